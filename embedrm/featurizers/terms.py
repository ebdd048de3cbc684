r"""Features of a response as terms over views: ``r``, ``p*r`` and ``abs(p-r)``.

With response views :math:`r_v`, prompt views :math:`p_u` and the scaled and, where wanted, projected vectors
:math:`z = (x - \mu) / s \, P`, the features are the concatenation of :math:`z_{r_v}`, :math:`z_{p_u} \circ z_{r_v}` and
:math:`|z_{p_u} - z_{r_v}|`, and last the covariates that were asked for. A term in the prompt alone is the same for both
responses of a pair, cancels in every margin, and is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from embedrm.errors import InvalidInputError, unknown_name
from embedrm.featurizers import FEATURIZERS, surface
from embedrm.featurizers._streaming import covariance, mean_and_variance
from embedrm.featurizers.base import Projection, make_projection
from embedrm.featurizers.residual import fit_residual
from embedrm.featurizers.sources import names, sources
from embedrm.numerics.sharing import once
from embedrm.numerics.threads import threads_for
from embedrm.preferences import EmbeddedPreferences, EmbeddedResponses, Rows
from embedrm.views import select_views

TERMS = ("r", "p*r", "abs(p-r)")
SCALES = ("none", "rms", "standard")
_PROMPT_ONLY = {"p", "p*p", "abs(p)", "1"}
_RESIDUAL_BLOCK_ROWS = 1024

Array = NDArray[np.float64]


@FEATURIZERS.register("terms")
class Featurizer(BaseEstimator):
    """Terms over named views.

    Parameters
    ----------
    terms : sequence of {"r", "p*r", "abs(p-r)"}
        What to build from each response view r and prompt view p; every prompt view meets every response view.
    response : str or sequence of str, optional
        Response-side views: ``"3,6"`` means ``response:3`` and ``response:6``; ``"joint:6"`` by its full name. All
        ``response:*`` views where absent.
    prompt : str or sequence of str, optional
        Prompt views for the interaction terms, likewise. All ``prompt:*`` views where absent; unused without such terms.
    scale : {"rms", "standard", "none"}
        ``"rms"`` centres every column of a view and divides the view by one number, the root mean square of its centred
        columns: layers of different size become comparable to one penalty, and their geometry stays.
        ``"standard"`` divides every column by its own standard deviation; constant columns are left undivided.
        ``"none"`` leaves vectors as they are. All are fitted on the active responses (and their prompts) only.
    project : str or Projection, optional
        What each view's scaled vectors go through before the terms are made: ``"whiten"``, ``"pca"`` or ``"random"`` with
        its default parameters, or an object with others, such as ``PCAProjection(n_components=64)``. Fitted on active
        rows only. Nothing where absent.
    covariates : sequence of str
        Surface features beside the terms, off by default: ``characters``, ``words``, ``tokens``, ``tokens_cut`` and
        ``newlines`` as log(1 + count), and ``digits``, ``punctuation`` (shares of the characters) or any covariate of your
        own as it is; each centred and divided by its standard deviation unless ``scale="none"``. **A bias risk**: given
        the length or the formatting of a response, a reward learns to prefer it, and a policy to produce it;
        :attr:`bias_risk` says so in words.
    residualise : sequence of str
        Covariates whose linear part is taken out of every feature, for length-controlled rewards: on the active rows no
        feature, and no reward that is linear in them, correlates with log(1 + count) of ``"characters"``, say. It holds
        over responses, each counted once, and not exactly inside every pair; and a head that is not linear can find
        length again. It also removes what length honestly says of quality.

    Attributes
    ----------
    response_views_, prompt_views_ : tuple of str
        The views used, in the order of the features.
    centre_, spread_ : dict of str to ndarray of shape (dim,), float64
        Centre and spread of every view.
    projection_ : dict of str to ndarray of shape (dim, k), float64
        Matrix of every view; empty without a projection.
    covariates_, residualise_ : tuple of str
        The covariates used as features, and as controls.
    covariate_centre_, covariate_spread_ : ndarray of shape (n_covariates,), float64
        Of the covariates, after their logarithm.
    residual_centre_ : ndarray of shape (n_controls,), float64
        Mean of the controls.
    residual_weights_ : ndarray of shape (n_controls, dim_), float64
        What one unit of each control adds to every feature, by least squares.
    dim_ : int
        Number of features.

    Examples
    --------
    >>> import numpy as np
    >>> from embedrm import EmbeddedPreferences, Featurizer
    >>> from embedrm.featurizers import PCAProjection
    >>> x = np.random.default_rng(0).normal(size=(8, 5))
    >>> prefs = EmbeddedPreferences.from_arrays(x, [[0, 1], [2, 3], [4, 5], [6, 7]], covariates={"characters": range(8)})
    >>> featurizer = Featurizer(project=PCAProjection(n_components=2), residualise="characters").fit(prefs)
    >>> featurizer.transform(prefs.responses).shape
    (8, 2)
    """

    def __init__(
        self,
        terms: str | Iterable[str] = ("r",),
        response: str | Iterable[str] | None = None,
        prompt: str | Iterable[str] | None = None,
        scale: str = "rms",
        project: str | Projection | None = None,
        covariates: str | Iterable[str] = (),
        residualise: str | Iterable[str] = (),
    ) -> None:
        self.terms = terms
        self.response = response
        self.prompt = prompt
        self.scale = scale
        self.project = project
        self.covariates = covariates
        self.residualise = residualise

    def fit(self, preferences: EmbeddedPreferences) -> Featurizer:
        """Choose the views and learn their scale from the active rows."""
        responses = preferences.responses
        # of the pairs, what is learned depends on nothing but the active rows
        given = (type(self), self._described(), names(responses), preferences.active)
        learned = once("features", sources(responses), given, lambda: self._learn(preferences), _bytes)
        # dictionaries of its own, of arrays that all fits on these rows share
        self.__dict__.update({name: dict(v) if isinstance(v, dict) else v for name, v in learned.items()})
        return self

    def _described(self) -> dict[str, Any]:
        """Constructor's parameters as plain values, which no later change of an object changes."""
        given = self.get_params(deep=False)
        if isinstance(self.project, Projection):
            given["project"] = (type(self.project), dict(vars(self.project)))
        return {name: tuple(v) if isinstance(v, list) else v for name, v in given.items()}

    def _learn(self, preferences: EmbeddedPreferences) -> dict[str, Any]:
        """Fit, and return what was learned."""
        terms = (
            tuple(self.terms) if not isinstance(self.terms, str) else tuple(t.strip() for t in self.terms.split(","))
        )
        for term in terms:
            if term in _PROMPT_ONLY:
                raise InvalidInputError(
                    f"Featurizer got the term {term!r}, which is the same for both responses of a pair and cancels; "
                    f"use terms that contain r: {', '.join(TERMS)}"
                )
            if term not in TERMS:
                raise unknown_name("term", term, TERMS)
        if len(set(terms)) != len(terms):
            raise InvalidInputError(f"Featurizer names a term twice: {', '.join(terms)}; name each term once")
        if not terms:
            raise InvalidInputError(f"Featurizer needs at least one term, got none; choose from {', '.join(TERMS)}")
        if self.scale not in SCALES:
            raise unknown_name("scale", self.scale, SCALES)
        projection = make_projection(self.project)
        names = surface.parse_names(self.covariates, "covariates")
        controls = surface.parse_names(self.residualise, "residualise")
        for name in controls:
            if name in names:
                raise InvalidInputError(
                    f"Featurizer names {name!r} in covariates and in residualise, and nothing would be left of it; name it "
                    "in one of them"
                )
        views = preferences.responses.views
        self.terms_ = terms
        self.response_views_ = select_views(self.response, views, "response", "Featurizer(response=...)")
        crossed = any(t != "r" for t in terms)
        self.prompt_views_ = select_views(self.prompt, views, "prompt", "Featurizer(prompt=...)") if crossed else ()
        for p in self.prompt_views_:
            for r in self.response_views_:
                if views[p].shape[1] != views[r].shape[1] and not (projection and projection.mixes_widths):
                    raise InvalidInputError(
                        f"the terms p*r and abs(p-r) need views of one width, got {p} with {views[p].shape[1]} and "
                        f"{r} with {views[r].shape[1]} columns"
                    )
        surface.check_names(preferences.responses, (*names, *controls), "Featurizer")
        rows = dict.fromkeys(self.response_views_, preferences.active)
        rows |= dict.fromkeys(self.prompt_views_, preferences.active_prompts)
        self.centre_: dict[str, Array] = {}
        self.spread_: dict[str, Array] = {}
        for view in rows:
            self._fit_scale(view, views[view], rows[view], projection is not None and projection.centres)
        entries = sum(len(rows[v]) * len(self.centre_[v]) for v in rows)
        self.projection_: dict[str, Array] = {}
        if projection:
            with threads_for(entries):
                self.projection_ = self._projections(projection, preferences, rows)
        self._fit_covariates(preferences, names)
        copies = ("r" in terms) + sum(t != "r" for t in terms) * len(self.prompt_views_)
        self.dim_ = copies * sum(self._width(v) for v in self.response_views_) + len(names)
        # no controls yet: the regression is on the features as they are
        self.residualise_: tuple[str, ...] = ()
        self.residual_centre_, self.residual_weights_ = np.zeros(0), np.zeros((0, self.dim_))
        if controls:
            with threads_for(entries):
                self._fit_residual(preferences, controls)
        return {name: value for name, value in vars(self).items() if name.endswith("_")}

    def _fit_scale(self, view: str, matrix: NDArray[Any], rows: Rows, centred: bool) -> None:
        dim = matrix.shape[1]
        self.centre_[view], self.spread_[view] = np.zeros(dim), np.ones(dim)
        if self.scale == "none" and not centred:
            return
        self.centre_[view], variance = mean_and_variance(matrix, rows, view)
        if self.scale != "none":
            spread = np.sqrt(variance if self.scale == "standard" else np.full(dim, variance.mean()))
            self.spread_[view] = np.where(spread > 0, spread, 1.0)

    def _projections(
        self, projection: Projection, preferences: EmbeddedPreferences, rows: dict[str, Rows]
    ) -> dict[str, Array]:
        """One matrix a view; views that meet in a term share theirs where the projection wants it."""

        def covariance_of(*names: str) -> Callable[[], Array]:
            def mean() -> Array:
                moments = [
                    covariance(preferences.responses.views[v], rows[v], self.centre_[v], self.spread_[v]) for v in names
                ]
                return moments[0] if len(moments) == 1 else np.mean(moments, axis=0)

            return mean

        if projection.shares_basis and self.prompt_views_:
            where = f"the views {', '.join(rows)}"
            shared = projection.matrix(len(self.centre_[next(iter(rows))]), covariance_of(*rows), where)
            return dict.fromkeys(rows, shared)
        return {v: projection.matrix(len(self.centre_[v]), covariance_of(v), f"the view {v!r}") for v in rows}

    def _fit_covariates(self, preferences: EmbeddedPreferences, names: tuple[str, ...]) -> None:
        self.covariates_ = names
        self.covariate_centre_, self.covariate_spread_ = np.zeros(len(names)), np.ones(len(names))
        if names and self.scale != "none":
            values = surface.columns(preferences.responses, names, preferences.active)
            self.covariate_centre_ = values.mean(axis=0)
            spread = values.std(axis=0)
            varies = spread > 1e-12 * np.abs(self.covariate_centre_)
            self.covariate_spread_ = np.where(varies, spread, 1.0)

    def _fit_residual(self, preferences: EmbeddedPreferences, controls: tuple[str, ...]) -> None:
        rows = preferences.active

        def blocks() -> Iterator[tuple[slice, NDArray[Any]]]:
            for start in range(0, len(rows), _RESIDUAL_BLOCK_ROWS):
                part = slice(start, start + _RESIDUAL_BLOCK_ROWS)
                yield part, self.transform(preferences.responses, rows[part])

        values = surface.columns(preferences.responses, controls, rows)
        self.residual_centre_, self.residual_weights_ = fit_residual(values, blocks(), self.dim_)
        self.residualise_ = controls

    @property
    def bias_risk(self) -> str | None:
        """A sentence on the covariates among the features; None where there are none."""
        return surface.bias_risk(surface.parse_names(self.covariates, "covariates"))

    @property
    def rescales(self) -> bool:
        """Whether a view's vectors are changed before the terms are made."""
        return self.scale != "none" or bool(self.projection_)

    def check(self, responses: EmbeddedResponses, who: str) -> None:
        """Raise unless the views this featurizer was fitted on are present with the same widths, and the covariates too."""
        check_is_fitted(self, "dim_")
        for view in (*self.response_views_, *self.prompt_views_):
            responses.view(view, len(self.centre_[view]), who)
        surface.check_names(responses, (*self.covariates_, *self.residualise_), who)

    def transform(
        self, responses: EmbeddedResponses, rows: Rows | None = None, dtype: Any = np.float64
    ) -> NDArray[np.floating[Any]]:
        """Materialise the features of some rows; shape (n, dim_).

        Parameters
        ----------
        responses : EmbeddedResponses
        rows : ndarray of int, optional
            All responses where absent. Call it block by block on large data.
        dtype : numpy dtype
        """
        self.check(responses, "Featurizer")
        rows = np.arange(responses.n_responses) if rows is None else rows
        z_r = [self._scaled(responses, v, rows, dtype) for v in self.response_views_]
        z_p = [self._scaled(responses, v, responses.prompt_of[rows], dtype) for v in self.prompt_views_]
        parts: list[NDArray[Any]] = []
        for term in self.terms_:
            if term == "r":
                parts += z_r
            else:
                parts += [p * r if term == "p*r" else np.abs(p - r) for p in z_p for r in z_r]
        if self.covariates_:
            parts.append(self.covariate_features(responses, rows).astype(dtype))
        out = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
        if self.residualise_:
            out -= self.centred_controls(responses, rows).astype(dtype) @ self.residual_weights_.astype(dtype)
        return out

    def covariate_features(self, responses: EmbeddedResponses, rows: Rows | None = None) -> Array:
        """Covariate features of some responses, or of all; shape (n, n_covariates), float64."""
        return (surface.columns(responses, self.covariates_, rows) - self.covariate_centre_) / self.covariate_spread_

    def centred_controls(self, responses: EmbeddedResponses, rows: Rows | None = None) -> Array:
        """Centred controls of some responses, or of all; features lose ``controls @ residual_weights_``."""
        return surface.columns(responses, self.residualise_, rows) - self.residual_centre_

    def _scaled(self, responses: EmbeddedResponses, view: str, rows: Rows, dtype: Any) -> NDArray[Any]:
        block = responses.view(view)[rows].astype(dtype)
        if self.rescales:
            block -= self.centre_[view].astype(dtype)
            block /= self.spread_[view].astype(dtype)
        return block @ self.projection_[view].astype(dtype) if self.projection_ else block

    def _width(self, view: str) -> int:
        """Columns of a view after the projection."""
        return self.projection_[view].shape[1] if self.projection_ else len(self.centre_[view])

    def feature_blocks(self) -> list[tuple[str, str | None, str, slice]]:
        """Layout of the terms' features: (term, prompt view or None, response view, columns), in order.

        The covariates' columns come after them, in the order of ``covariates_``.
        """
        check_is_fitted(self, "dim_")
        blocks: list[tuple[str, str | None, str, slice]] = []
        start = 0
        for term in self.terms_:
            for p in (None,) if term == "r" else self.prompt_views_:
                for r in self.response_views_:
                    width = self._width(r)
                    blocks.append((term, p, r, slice(start, start + width)))
                    start += width
        return blocks


def _bytes(value: Any) -> int:
    """Bytes of the arrays in what was learned."""
    if isinstance(value, np.ndarray):
        return value.nbytes
    return sum(map(_bytes, value.values())) if isinstance(value, dict) else 0
