"""Multi-attribute ridge head: attributes by regression, their combination by the pairs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from embedrm.errors import InvalidInputError, unknown_name
from embedrm.featurizers import Featurizer
from embedrm.featurizers.linear_map import LinearMap
from embedrm.featurizers.rows import FeatureRows
from embedrm.heads import HEADS
from embedrm.heads._penalty import L2_GRID, check_l2, choose_l2
from embedrm.heads.base import FeatureHead
from embedrm.numerics.solver import metric_transform, minimise
from embedrm.numerics.threads import threads_for
from embedrm.objectives import Comparisons, Objective, make_objective
from embedrm.preferences import EmbeddedPreferences, EmbeddedResponses, Rows
from embedrm.reward_model import check_finite, check_preferences

Array = NDArray[np.float64]

BLOCK_ROWS = 1024


@HEADS.register("ridge")
class RidgeHead(FeatureHead):
    r"""Reward = weighted sum of attributes, each a ridge regression of ratings on the features.

    Every attribute k (helpfulness, correctness, ...) is regressed on the features :math:`\phi` of the active responses that
    have a rating :math:`y_{ik}`, in closed form, with an unpenalised intercept:

    .. math:: \min_{v_k, b_k} \; \frac{1}{n_k} \sum_{i: y_{ik} \neq \mathrm{NaN}}
              \tfrac12 (y_{ik} - \phi_i \cdot v_k - b_k)^2 + \tfrac12 \lambda \lVert v_k \rVert^2

    which is scikit-learn's ``Ridge(alpha=l2*n_k)``. The reward is :math:`\sum_k w_k a_k(x)` with
    :math:`a_k(x) = \phi(x) \cdot v_k + b_k`, less length where ``decorrelate`` is set:
    :math:`a'_k = a_k - \lambda_k (\ell - \bar\ell)`, :math:`\ell = \log(1 + \text{length})`, and :math:`\lambda_k` such that
    a'_k has no correlation with :math:`\ell` on the training responses.

    Parameters
    ----------
    attributes : sequence of str, or str with commas
        Names of covariates that hold the ratings, NaN where absent; ``"gold"`` means the responses' gold scores.
    featurizer : Featurizer, optional
        Which terms over which views; all response views, centred and in one scale, where absent.
    l2 : float or "cv"
        lambda of the regressions. ``"cv"`` picks from ``l2_grid`` as :class:`embedrm.LinearHead` does, by the pairs; where
        the weights are given, rewards are on the scale of the ratings, and the mean squared error of held-out ratings
        decides, in units of each attribute's variance.
    weights : sequence of float or "fit"
        w, one for each attribute; ``"fit"`` learns them from the pairs.
    weights_l2 : float
        Penalty of fitted weights, in units where each attribute has standard deviation one on the training responses.
    objective : str or Objective
        What fitted weights minimise; see :mod:`embedrm.objectives`.
    decorrelate : {"characters", "words", "tokens", other covariate} or None
        Length to take out of every attribute. A prediction then needs this covariate, and only then.
    tol : float
        Objective gap to reach in fitting the weights.
    l2_grid : sequence of float
        Candidates of ``l2="cv"``.
    cv : int
        Folds of ``l2="cv"``, of whole prompt groups; each must leave ratings of every attribute.

    Attributes
    ----------
    attributes_ : tuple of str
    coef_ : ndarray of shape (k, n_features_in_), float64
        v, on the (scaled) features.
    intercept_ : ndarray of shape (k,), float64
    n_ratings_ : ndarray of shape (k,), int
        Ratings that each attribute was fitted on.
    length_slope_ : ndarray of shape (k,), float64
        lambda_k; zero without ``decorrelate``.
    length_mean_ : float
        Mean of log(1 + length) on the training responses.
    weights_ : ndarray of shape (k,), float64
    l2_ : float
        The penalty used.
    cv_results_ : list of dict
        For ``l2="cv"``: ``l2``, held-out ``log_loss`` (``loss`` where it is another one) and ``accuracy`` of each candidate.
    n_features_in_ : int

    Notes
    -----
    An analogue of the first stage of ArmoRM (Wang et al. 2024, "Interpretable preferences via multi-objective reward
    modeling and mixture-of-experts") and of its correction for verbosity, on frozen embeddings. What differs: their
    regressions have no intercept, and the penalty of each is chosen on validation ratings; they take out the predicted
    verbosity by a penalty that brings a rank correlation on a reference set to about zero, we take out the text's own
    length by least squares; and their weights come from a gate on the prompt, ours are the same for every prompt.

    Fitted weights see the attributes' predictions on the regressions' own training responses. Pair weights count in the
    weights w, not in the regressions: a rating is a fact of one response. Normal equations are summed in float64, block by
    block, once for all attributes rated on the same responses; memory is features squared.
    """

    def __init__(
        self,
        attributes: Iterable[str] = ("gold",),
        featurizer: Featurizer | None = None,
        l2: float | str = 1e-2,
        weights: Sequence[float] | str = "fit",
        weights_l2: float = 1e-2,
        objective: str | Objective = "bradley-terry",
        decorrelate: str | None = None,
        tol: float = 1e-9,
        l2_grid: Iterable[float] = L2_GRID,
        cv: int = 5,
    ) -> None:
        self.attributes = attributes
        self.featurizer = featurizer
        self.l2 = l2
        self.weights = weights
        self.weights_l2 = weights_l2
        self.objective = objective
        self.decorrelate = decorrelate
        self.tol = tol
        self.l2_grid = l2_grid
        self.cv = cv

    def fit(self, preferences: EmbeddedPreferences, y: None = None) -> RidgeHead:
        """Fit regressions, lengths and weights. Reads only the active rows. Returns self."""
        prefs = check_preferences(preferences, type(self).__name__)
        self.attributes_, given = self._check_parameters()
        self.cv_results_: list[dict[str, float]] = []
        if self.l2 == "cv":
            objective = make_objective(self.objective)
            self.l2_, self.cv_results_ = choose_l2(self, prefs, self._held_out, objective, type(self).__name__)
        else:
            self.l2_ = float(self.l2)
        for _ in self._path(prefs, given, [self.l2_]):
            pass
        return self

    def _path(self, prefs: EmbeddedPreferences, given: Array | None, penalties: Sequence[float]) -> Iterator[None]:
        """Fit at each penalty in turn; one pass over the features serves all of them."""
        responses, rows = prefs.responses, prefs.active
        ratings = self._ratings(responses, rows)
        length = None if self.decorrelate is None else self._log_length(responses, rows)
        self.featurizer_ = (Featurizer() if self.featurizer is None else clone(self.featurizer)).fit(prefs)
        self.n_features_in_ = self.featurizer_.dim_
        with threads_for(len(rows) * self.n_features_in_):
            regressions = self._regress(responses, rows, ratings, penalties)
        for self.coef_, self.intercept_ in regressions:
            with threads_for(len(rows) * self.n_features_in_):
                self._weigh(prefs, given, length)
            yield

    def _weigh(self, prefs: EmbeddedPreferences, given: Array | None, length: Array | None) -> None:
        """Take the length out of the regressions' predictions, and combine them."""
        self.length_slope_, self.length_mean_ = np.zeros(len(self.attributes_)), 0.0
        predicted = self._attributes(prefs.responses, prefs.active)
        if length is not None:
            self.length_mean_ = float(length.mean())
            beyond = length - self.length_mean_
            spread = float(beyond @ beyond)
            # where every length is the same there is nothing to take out
            if spread > 1e-20 * len(length) * max(self.length_mean_**2, 1.0):
                self.length_slope_ = beyond @ predicted / spread
            predicted = predicted - np.outer(beyond, self.length_slope_)
        self.weights_ = self._combine(prefs, predicted) if given is None else given

    def _held_out(
        self, inside: EmbeddedPreferences, outside: EmbeddedPreferences, grid: Sequence[float]
    ) -> Iterator[tuple[Array, float | None]]:
        """Rewards of held-out responses by a head fitted on the inside, at each penalty, and the error of given weights."""
        head: RidgeHead = clone(self)
        head.attributes_, given = head._check_parameters()
        rows = outside.active
        try:
            inner = head._ratings(inside.responses, inside.active)
            stated = None if given is None else head._ratings(outside.responses, rows, least=1)
        except InvalidInputError as error:
            raise InvalidInputError(
                f"a fold of RidgeHead(l2='cv') has too few ratings: {error}; or give l2 as a number"
            ) from error
        variance = np.nanvar(inner, axis=0)
        for _ in head._path(inside, given, grid):
            loss = None
            if stated is not None:
                squares = (head._regressed(outside.responses, rows) - stated) ** 2 / np.where(
                    variance > 0, variance, 1.0
                )
                loss = float(np.nanmean(squares))
            yield head._rewards(outside.responses, rows), loss

    @property
    def margins_are_logits(self) -> bool:
        """As the objective has it where the weights are fitted; not where they are given."""
        return isinstance(self.weights, str) and make_objective(self.objective).margins_are_logits

    def attribute_rewards(self, x: EmbeddedResponses | EmbeddedPreferences | NDArray[Any]) -> Array:
        """Predicted attributes, less length where ``decorrelate`` is set.

        Parameters
        ----------
        x : EmbeddedResponses, EmbeddedPreferences or ndarray of shape (n, dim)
            As in :meth:`predict`.

        Returns
        -------
        ndarray of shape (n_responses, k), float64
            In the order of ``attributes_``, on the scales of their ratings; ``predict`` is this times ``weights_``.
        """
        check_is_fitted(self, "weights_")
        if isinstance(x, EmbeddedPreferences):
            x = x.responses
        return self._attributes(x if isinstance(x, EmbeddedResponses) else self._as_responses(np.asarray(x)), None)

    def _rewards(self, responses: EmbeddedResponses, rows: Rows | None) -> Array:
        check_is_fitted(self, "weights_")
        return check_finite(self._attributes(responses, rows) @ self.weights_, type(self).__name__)

    def _regressed(self, responses: EmbeddedResponses, rows: Rows | None) -> Array:
        """Predictions of the regressions (n, k), length included."""
        self.featurizer_.check(responses, type(self).__name__)
        out = LinearMap(self.featurizer_, responses, rows).forward(np.ascontiguousarray(self.coef_.T)) + self.intercept_
        check_finite(out.sum(axis=1), type(self).__name__)
        return out

    def _attributes(self, responses: EmbeddedResponses, rows: Rows | None) -> Array:
        out = self._regressed(responses, rows)
        if self.length_slope_.any():
            length = self._log_length(responses, np.arange(responses.n_responses) if rows is None else rows)
            out -= np.outer(length - self.length_mean_, self.length_slope_)
        return out

    def _single_view(self) -> str | None:
        check_is_fitted(self, "weights_")
        return None if self.length_slope_.any() else super()._single_view()

    def _column(self, responses: EmbeddedResponses, name: str, parameter: str) -> Array:
        """One covariate, or the gold scores."""
        if name == "gold" and parameter == "attributes":
            return responses.gold
        if name not in responses.covariates:
            if not responses.covariates:
                raise InvalidInputError(
                    f"RidgeHead({parameter}=...) needs the covariate {name!r}, but these responses carry none; encode from "
                    "a dataset, or give covariates= to from_arrays"
                )
            raise unknown_name(f"covariate for RidgeHead({parameter}=...):", name, responses.covariates)
        return responses.covariates[name]

    def _ratings(self, responses: EmbeddedResponses, rows: Rows, least: int = 2) -> Array:
        """Ratings (n, k) of the active responses, NaN where absent."""
        ratings = np.stack([self._column(responses, name, "attributes")[rows] for name in self.attributes_], axis=1)
        for name, column in zip(self.attributes_, ratings.T):
            if np.isinf(column).any():
                raise InvalidInputError(
                    f"RidgeHead needs ratings that are finite, or NaN where absent, got infinite values in {name!r}"
                )
            n_present = int((~np.isnan(column)).sum())
            if n_present < least:
                raise InvalidInputError(
                    f"RidgeHead needs at least {least} responses in pairs with a rating of {name!r}, got {n_present} of "
                    f"{len(column)}; name attributes that the data carry, or give gold scores"
                )
        return ratings

    def _log_length(self, responses: EmbeddedResponses, rows: Rows) -> Array:
        length = self._column(responses, str(self.decorrelate), "decorrelate")[rows]
        n_bad = int((~(np.isfinite(length) & (length >= 0))).sum())
        if n_bad:
            raise InvalidInputError(
                f"RidgeHead(decorrelate={self.decorrelate!r}) needs a length >= 0 of every response, and {n_bad} of "
                f"{len(length)} have none; give the covariate, or decorrelate=None"
            )
        return np.log1p(length)

    def _regress(
        self, responses: EmbeddedResponses, rows: Rows, ratings: Array, penalties: Sequence[float]
    ) -> list[tuple[Array, Array]]:
        """Coefficients and intercepts at each penalty; regressions with the same ratings present are solved together."""
        k, dim = len(self.attributes_), self.n_features_in_
        out = [(np.zeros((k, dim)), np.zeros(k)) for _ in penalties]
        present = ~np.isnan(ratings)
        self.n_ratings_ = present.sum(axis=0)
        patterns, pattern_of = np.unique(present, axis=1, return_inverse=True)
        for p in range(patterns.shape[1]):
            members = np.flatnonzero(pattern_of.reshape(-1) == p)
            kept = np.flatnonzero(patterns[:, p])
            features = FeatureRows(self.featurizer_, responses, rows[kept], dtype=np.float64, hold=False)
            solved = ridge(features, ratings[np.ix_(kept, members)], penalties)
            for (coef, intercept), (own_coef, own_intercept) in zip(out, solved):
                coef[members], intercept[members] = own_coef, own_intercept
        return out

    def _combine(self, prefs: EmbeddedPreferences, predicted: Array) -> Array:
        """Weights of the attributes, fitted on the pairs."""
        spread = predicted.std(axis=0)
        # an attribute that is the same for every response has no say
        flat = spread <= 1e-12 * np.maximum(np.abs(predicted).max(axis=0), 1e-300)
        z = (predicted - predicted.mean(axis=0)) / np.where(flat, 1.0, spread)
        z[:, flat] = 0.0
        objective = make_objective(self.objective)
        loss = objective.loss(Comparisons.of(prefs))
        d = z - z.mean(axis=0) if objective.pointwise else z[loss.pairs[:, 0]] - z[loss.pairs[:, 1]]
        metric = d.T @ d * (loss.bend / len(d))
        metric[np.diag_indices_from(metric)] += float(self.weights_l2) + 1e-9 * max(float(np.trace(metric)), 1e-12)
        solution = minimise(
            lambda w: z @ w,
            lambda slope: slope @ z,
            loss,
            float(self.weights_l2),
            np.zeros(z.shape[1]),
            metric_transform(metric),
            tol=self.tol,
            who=type(self).__name__,
        )
        return np.where(flat, 0.0, solution.x / np.where(flat, 1.0, spread))

    def _check_parameters(self) -> tuple[tuple[str, ...], Array | None]:
        """Return the names of the attributes, and their weights where given."""
        given = self.attributes
        names = tuple(n.strip() for n in given.split(",")) if isinstance(given, str) else tuple(given)
        if not names or len(set(names)) != len(names) or not all(isinstance(n, str) and n for n in names):
            raise InvalidInputError(
                f"RidgeHead needs attributes to be one or more names of covariates or 'gold', each once, got {given!r}"
            )
        check_l2(self, "RidgeHead")
        if not (isinstance(self.weights_l2, (int, float)) and np.isfinite(self.weights_l2) and self.weights_l2 >= 0):
            raise InvalidInputError(f"RidgeHead needs weights_l2 to be a number >= 0, got {self.weights_l2!r}")
        if not (isinstance(self.tol, (int, float)) and self.tol > 0):
            raise InvalidInputError(f"RidgeHead needs tol > 0, got {self.tol!r}")
        if isinstance(self.weights, str):
            if self.weights != "fit":
                raise InvalidInputError(f"RidgeHead needs weights to be numbers or 'fit', got {self.weights!r}")
            return names, None
        weights = np.array(list(self.weights), dtype=np.float64)
        if weights.shape != (len(names),) or not np.isfinite(weights).all():
            raise InvalidInputError(
                f"RidgeHead needs one finite weight for each of {len(names)} attribute(s), got shape {weights.shape}"
            )
        return names, weights


def ridge(features: FeatureRows, targets: Array, penalties: Sequence[float]) -> list[tuple[Array, Array]]:
    """Coefficients (k, dim) and intercepts (k,) of ridge regressions that share their rows, at each penalty.

    Parameters
    ----------
    features : FeatureRows
        n rows, float64.
    targets : ndarray of shape (n, k)
    penalties : sequence of float
        Against half the mean squared error. At 0, the solution of least norm where there are several.
    """
    n, dim = len(features), features.dim
    moment, product = np.zeros((dim, dim)), np.zeros((dim, targets.shape[1]))
    shift, total = np.zeros(dim), np.zeros(dim)
    level = targets.mean(axis=0)
    for part, x in features.blocks(BLOCK_ROWS):
        if part.start == 0:
            # sums about a point near the mean lose no digits to it
            shift = x.mean(axis=0)
        x = x - shift
        total += x.sum(axis=0)
        moment += x.T @ x
        product += x.T @ (targets[part] - level)
    check_finite(np.diag(moment), "RidgeHead.fit")
    mean = total / n
    moment = moment / n - np.outer(mean, mean)
    product /= n
    out = []
    for l2 in penalties:
        if l2 > 0:
            solved = np.linalg.solve(moment + l2 * np.eye(dim), product)
        else:
            solved = np.linalg.lstsq(moment, product, rcond=1e-12)[0]
        coef = solved.T.astype(np.float64)
        out.append((coef, level - coef @ (shift + mean)))
    return out
