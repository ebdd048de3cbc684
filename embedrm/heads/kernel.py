"""Kernel head: a Gaussian kernel's reward, linear in its values at landmarks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from embedrm.errors import InvalidInputError
from embedrm.featurizers import Featurizer
from embedrm.featurizers.rows import FeatureRows
from embedrm.heads import HEADS
from embedrm.heads._penalty import check_l2, choose_l2
from embedrm.heads._sampling import draw
from embedrm.heads.base import FeatureHead
from embedrm.numerics.distances import squared_distances
from embedrm.numerics.solver import metric_transform, minimise
from embedrm.numerics.threads import threads_for
from embedrm.objectives import Comparisons, Loss, Objective, make_objective
from embedrm.preferences import EmbeddedPreferences, EmbeddedResponses, Rows
from embedrm.reward_model import check_finite, check_preferences

Array = NDArray[np.float64]

# Kernel features of all training responses are kept up to this size; beyond it they are made again in every pass.
HELD_LIMIT_BYTES = 256 * 2**20
BLOCK_ROWS = 1024
_MEDIAN_ROWS = 1024
_METRIC_ROWS = 16_384
L2_GRID = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
# Eigenvalues of the landmarks' kernel below this share of the largest are rounding.
_RANK = 1e-10


@HEADS.register("kernel")
class KernelHead(FeatureHead):
    r"""Reward :math:`r(x) = \sum_j \alpha_j k(x, z_j)` with a Gaussian kernel and landmarks z_j: kernel Bradley–Terry.

    .. math:: k(x, z) = \exp\!\left(-\frac{\lVert\phi(x) - \phi(z)\rVert^2}{2 h^2}\right), \qquad
              \min_\alpha \; f(r) + \tfrac12 \lambda\, \alpha^\top K \alpha

    with features :math:`\phi`, the landmarks' kernel matrix K and the mean loss f of the objective. By the representer
    theorem the best function of the whole kernel space lies in the span of the training responses; where all of them are
    landmarks, this is that function, and otherwise it is its Nyström approximation. It is solved as a linear head on the
    features :math:`K^{-1/2} k(x)`, whose squared weights are the squared norm of the function.

    Parameters
    ----------
    featurizer : Featurizer, optional
        Which terms over which views; all response views, centred and in one scale, where absent.
    n_components : int
        Landmarks, drawn from the active training responses; all of these where there are no more.
    bandwidth : float or "median"
        h, in units of the features; ``"median"`` takes the median distance between (at most 1,024) landmarks.
    objective : str or Objective
        See :mod:`embedrm.objectives`.
    l2 : float or "cv"
        lambda. A kernel's function is never larger than its norm, so useful values are below those of the linear head.
        ``"cv"`` picks from ``l2_grid`` as :class:`embedrm.LinearHead` does, with landmarks of each fold's own.
    tol : float
        Objective gap to reach (see :func:`embedrm.numerics.solver.minimise`).
    max_iter : int
    random_state : int
        Draw of the landmarks; it depends on the vectors, not on the order of the rows.
    l2_grid : sequence of float
        Candidates of ``l2="cv"``.
    cv : int
        Folds of ``l2="cv"``.

    Attributes
    ----------
    landmarks_ : ndarray of shape (m, n_features_in_), float32
    dual_coef_ : ndarray of shape (m,), float64
        alpha.
    bandwidth_ : float
    l2_ : float
        The penalty used.
    cv_results_ : list of dict
        For ``l2="cv"``: ``l2``, held-out ``log_loss`` (``loss`` under an objective whose margins are no logits) and
        ``accuracy`` of each candidate.
    objective_ : float
        The objective at the optimum.
    n_features_in_ : int

    Notes
    -----
    Features are float32, kernels and everything after them float64. Kernel features of the training responses are held up
    to 256 MiB (65,536 responses at 512 landmarks) and made again in each pass beyond. Far from every landmark the reward
    goes to zero. The median distance is a wide bandwidth where there are few features or the reward has fine structure;
    a grid search over ``bandwidth`` (scikit-learn's, with ``groups``) is then worth its time.

    References
    ----------
    Williams and Seeger (2001), "Using the Nyström method to speed up kernel machines". The median distance as a
    bandwidth is a common heuristic, not a tuned choice.
    """

    def __init__(
        self,
        featurizer: Featurizer | None = None,
        n_components: int = 512,
        bandwidth: float | str = "median",
        objective: str | Objective = "bradley-terry",
        l2: float | str = 1e-3,
        tol: float = 1e-9,
        max_iter: int = 500,
        random_state: int = 0,
        l2_grid: Iterable[float] = L2_GRID,
        cv: int = 5,
    ) -> None:
        self.featurizer = featurizer
        self.n_components = n_components
        self.bandwidth = bandwidth
        self.objective = objective
        self.l2 = l2
        self.tol = tol
        self.max_iter = max_iter
        self.random_state = random_state
        self.l2_grid = l2_grid
        self.cv = cv

    def fit(self, preferences: EmbeddedPreferences, y: None = None) -> KernelHead:
        """Draw the landmarks and fit their weights. Reads only the active rows. Returns self."""
        who = type(self).__name__
        prefs = check_preferences(preferences, who)
        self._check_parameters()
        objective = make_objective(self.objective)
        self.cv_results_: list[dict[str, float]] = []
        if self.l2 == "cv":
            path = partial(self._held_out, objective)
            self.l2_, self.cv_results_ = choose_l2(self, prefs, path, objective, who)
        else:
            self.l2_ = float(self.l2)
        [(self.dual_coef_, self.objective_)] = self._solve(prefs, objective, [self.l2_], self.tol)
        return self

    def _held_out(
        self,
        objective: Objective,
        inside: EmbeddedPreferences,
        outside: EmbeddedPreferences,
        grid: Sequence[float],
    ) -> Iterator[tuple[Array, None]]:
        """Rewards of held-out responses by a head fitted on the inside, at each penalty."""
        head: KernelHead = clone(self)
        for coef, _ in head._solve(inside, objective, grid, max(self.tol, 1e-6)):
            head.dual_coef_ = coef
            yield head._rewards(outside.responses, outside.active), None

    def _solve(
        self, prefs: EmbeddedPreferences, objective: Objective, penalties: Sequence[float], tol: float
    ) -> Iterator[tuple[Array, float]]:
        """Draw landmarks, and give alpha and the objective's value at each penalty, each starting at the last."""
        who = type(self).__name__
        self.featurizer_ = (Featurizer() if self.featurizer is None else clone(self.featurizer)).fit(prefs)
        self.n_features_in_ = self.featurizer_.dim_
        comparisons = Comparisons.of(prefs)
        features = FeatureRows(self.featurizer_, prefs.responses, comparisons.rows)
        positions = draw(features, self.n_components, np.random.default_rng(self.random_state), who)
        self.landmarks_ = features.take(positions)
        with threads_for(len(features) * len(positions)):
            self.bandwidth_ = self._bandwidth()
            root = _inverse_root(self._kernel(self.landmarks_))
            mapped = _KernelMap(self, features, root)
            loss = objective.loss(comparisons)
            moment = _moment(mapped, loss, objective)
        theta = np.zeros(mapped.dim)
        for l2 in penalties:
            with threads_for(len(features) * len(positions)):
                solution = minimise(
                    mapped.forward,
                    mapped.adjoint,
                    loss,
                    l2,
                    theta,
                    _transform(moment, l2),
                    tol=tol,
                    max_iter=self.max_iter,
                    rounding=float(np.finfo(np.float64).eps),
                    who=who,
                )
            theta = solution.x
            yield root @ theta, solution.value

    @property
    def margins_are_logits(self) -> bool:
        """As the objective has it."""
        return make_objective(self.objective).margins_are_logits

    def _rewards(self, responses: EmbeddedResponses, rows: Rows | None) -> Array:
        check_is_fitted(self, "dual_coef_")
        self.featurizer_.check(responses, type(self).__name__)
        features = FeatureRows(self.featurizer_, responses, rows, hold=False)
        out = np.empty(len(features))
        for part, x in features.blocks(BLOCK_ROWS):
            out[part] = self._kernel(x) @ self.dual_coef_
        return check_finite(out, type(self).__name__)

    def _kernel(self, x: NDArray[np.float32]) -> Array:
        """Kernel of rows x with the landmarks; shape (n, m)."""
        exponent = squared_distances(x, self.landmarks_)
        exponent *= -0.5 / self.bandwidth_**2
        return np.exp(exponent, out=exponent)

    def _bandwidth(self) -> float:
        if self.bandwidth != "median":
            return float(self.bandwidth)
        # the landmarks are in content order; every so-manieth is as random as they are
        spread = np.linspace(0, len(self.landmarks_) - 1, min(_MEDIAN_ROWS, len(self.landmarks_))).astype(np.intp)
        some = self.landmarks_[spread]
        distances = np.sqrt(squared_distances(some, some)[np.triu_indices(len(some), 1)])
        # copies of one text say nothing of the scale
        apart = distances[distances > 1e-6 * distances.max(initial=0.0)]
        return float(np.median(apart)) if len(apart) else 1.0

    def _check_parameters(self) -> None:
        for name, least in (("n_components", 1), ("max_iter", 1), ("random_state", 0)):
            value = getattr(self, name)
            if not (isinstance(value, (int, np.integer)) and not isinstance(value, bool) and value >= least):
                raise InvalidInputError(f"KernelHead needs {name} to be a whole number >= {least}, got {value!r}")
        if self.bandwidth != "median" and not (_number(self.bandwidth) and float(self.bandwidth) > 0):
            raise InvalidInputError(
                f"KernelHead needs bandwidth to be a number > 0 or 'median', got {self.bandwidth!r}"
            )
        check_l2(self, "KernelHead")
        if not (_number(self.tol) and self.tol > 0):
            raise InvalidInputError(f"KernelHead needs tol > 0, got {self.tol!r}")


class _KernelMap:
    """Kernel features :math:`K^{-1/2} k(x)` of the training responses, held or made block by block."""

    def __init__(self, head: KernelHead, features: FeatureRows, root: Array) -> None:
        self.head, self.features, self.root = head, features, root
        self.n, self.dim = len(features), root.shape[1]
        self._held: Array | None = None
        if self.n * self.dim * 8 <= HELD_LIMIT_BYTES:
            held = np.empty((self.n, self.dim))
            for part, x in features.blocks(BLOCK_ROWS):
                held[part] = head._kernel(x) @ root
            self._held = held

    def take(self, positions: Rows) -> Array:
        """Kernel features of some rows."""
        if self._held is not None:
            return self._held[positions]
        return self.head._kernel(self.features.take(positions)) @ self.root

    def forward(self, theta: Array) -> Array:
        """Rewards of all rows."""
        if self._held is not None:
            return self._held @ theta
        weights, out = self.root @ theta, np.empty(self.n)
        for part, x in self.features.blocks(BLOCK_ROWS):
            out[part] = self.head._kernel(x) @ weights
        return out

    def adjoint(self, slope: Array) -> Array:
        """Gradient in the weights, of slopes on all rows."""
        if self._held is not None:
            return slope @ self._held
        total = np.zeros(len(self.root))
        for part, x in self.features.blocks(BLOCK_ROWS):
            total += slope[part] @ self.head._kernel(x)
        return total @ self.root


def _inverse_root(kernel: Array) -> Array:
    """R (m, rank) with ``R @ R.T`` the (pseudo-)inverse of a kernel matrix."""
    values, vectors = np.linalg.eigh(kernel)
    kept = values > _RANK * values[-1]
    root: Array = vectors[:, kept] / np.sqrt(values[kept])
    return root


def _moment(mapped: _KernelMap, loss: Loss, objective: Objective) -> Array:
    """Estimate of the Hessian at zero without the penalty; it shapes the path to the optimum, not the optimum."""
    n = mapped.n if objective.pointwise else len(loss.pairs)
    sample = np.unique(np.linspace(0, n - 1, min(_METRIC_ROWS, n)).astype(np.intp))
    moment = np.zeros((mapped.dim, mapped.dim))
    for block in np.array_split(sample, max(1, len(sample) // BLOCK_ROWS)):
        if objective.pointwise:
            d = mapped.take(block)
            d -= d.mean(axis=0)
        else:
            d = mapped.take(loss.pairs[block, 0]) - mapped.take(loss.pairs[block, 1])
        moment += d.T @ d
    moment *= loss.bend / len(sample)
    return moment


def _transform(moment: Array, l2: float) -> Array:
    """Whitening of the Hessian's estimate at a penalty."""
    h = moment.copy()
    # directions that the sample misses keep a mild scale
    h[np.diag_indices_from(h)] += l2 + 1e-3 * max(float(np.trace(moment)) / len(moment), 1e-12)
    return metric_transform(h)


def _number(value: object) -> bool:
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool) and bool(np.isfinite(value))
