r"""A shared head and one deviation from it for each domain, solved together without ever laying their features out.

With :math:`w_d = w_0 + v_d` a response is read by its own domain's weights, so a pass over the vectors costs what it costs
for a single head, whatever the number of domains: domain d's slopes give the gradient in :math:`v_d`, and their sum over
the domains the gradient in :math:`w_0`. Laid out, the same problem is a linear head on features D + 1 times as wide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from embedrm.composites._pooled_frames import Frame
from embedrm.errors import InvalidInputError
from embedrm.featurizers import Featurizer
from embedrm.featurizers.linear_map import LinearMap
from embedrm.numerics.solver import RewardLoss
from embedrm.numerics.solver_many import Coordinates, Solutions, minimise_many
from embedrm.objectives import Comparisons, Objective
from embedrm.preferences import EmbeddedPreferences
from embedrm.reward_model import check_finite

Array = NDArray[np.float64]
Result = TypeVar("Result")

# Pairs sampled for the metric, per feature; it shapes the path to the optimum, not the optimum.
_METRIC_PAIRS_PER_FEATURE = 4
_METRIC_MIN_PAIRS = 2_048
_METRIC_MAX_PAIRS = 16_384
# Of a small domain, this many at least.
_METRIC_MIN_DOMAIN = 256
_BLOCK_PAIRS = 2_048


class PooledProblem:
    r"""The mean loss of rewards :math:`\phi \cdot (w_0 + A_d v_d)` with its penalties, for several columns at once.

    .. math:: f(\Phi w) + \tfrac12 \lambda \lVert w_0 \rVert^2 + \sum_d \tfrac12 \tau_d \lVert v_d \rVert^2

    Columns differ by the weights of their pairs (folds). Weights are kept as (dim, 1 + D, k): the shared ones first; with
    one block in place of 1 + D there are no deviations.

    Parameters
    ----------
    objective : Objective
    featurizer : Featurizer
        Fitted.
    prefs : EmbeddedPreferences
    domains : sequence of str
        Sorted. A response whose domain is none of them is read by the shared weights.
    frames : list of Frame
        A_d of every domain: from weights on its own features to weights on the featurizer's.
    n_threads : int
        Domains that are read at once while the problem is solved; their number changes no bit.
    """

    def __init__(
        self,
        objective: Objective,
        featurizer: Featurizer,
        prefs: EmbeddedPreferences,
        domains: list[str],
        frames: list[Frame],
        n_threads: int = 1,
    ) -> None:
        self.n_threads = n_threads
        self._pool: ThreadPoolExecutor | None = None
        self.objective, self.domains, self.dim, self.frames = objective, domains, featurizer.dim_, frames
        found = Comparisons.of(prefs)
        domain = prefs.responses.domain[found.prompt_of]
        code = np.searchsorted(domains, domain)
        code[~np.isin(domain, domains)] = len(domains)
        # domain after domain, so that each one's rewards are a slice
        order = np.argsort(code, kind="stable")
        position = np.empty_like(order)
        position[order] = np.arange(len(order))
        self.comparisons = Comparisons(
            found.rows[order],
            np.asfortranarray(position[found.pairs]),
            found.weight,
            found.outcome,
            found.margin,
            found.gold[order],
            found.prompt_of[order],
        )
        self.loss = objective.loss(self.comparisons)
        ends = np.cumsum(np.bincount(code, minlength=len(domains) + 1))
        self.slices = [slice(int(a), int(b)) for a, b in zip([0, *ends[:-1]], ends)]
        self.maps = [LinearMap(featurizer, prefs.responses, found.rows[order][part]) for part in self.slices]
        self.dtype = self.maps[0].dtype
        self.pair_code = np.searchsorted(domains, prefs.domain)
        share = np.bincount(self.pair_code, weights=prefs.weight, minlength=len(domains))
        self.share: Array = share / share.sum()
        self._metric = self._metrics()

    @property
    def n_domains(self) -> int:
        """D."""
        return len(self.domains)

    @property
    def compares_domains(self) -> bool:
        """Whether some pair compares responses of two domains."""
        return not bool(self._inside(self.comparisons.pairs).all())

    def rows_of_domains(self) -> list[NDArray[np.intp]]:
        """Active responses of each domain."""
        return [np.sort(self.comparisons.rows[part]) for part in self.slices[: self.n_domains]]

    def forward(self, theta: Array) -> Array:
        """Rewards (n_responses, k) of weights (dim * n_blocks, k), or (n_responses,) of a vector."""
        w = theta.reshape(self.dim, -1, *theta.shape[1:])
        out = np.empty((len(self.comparisons.rows), *theta.shape[1:]))

        def domain(d: int) -> None:
            own = self.combined(w, d) if d + 1 < w.shape[1] else np.ascontiguousarray(w[:, 0])
            out[self.slices[d]] = _by_column(self.maps[d].forward, own)

        self._of_domains(domain)
        return out

    def combined(self, w: Array, d: int) -> Array:
        """Weights of domain d, shared ones and deviation together, of w (dim, n_blocks, ...)."""
        total: Array = w[:, 0] + self.frames[d].apply(w[:, d + 1])
        return total

    def _adjoint(self, g: Array, n_blocks: int) -> Array:
        out = np.zeros((self.dim, n_blocks, *g.shape[1:]))

        def domain(d: int) -> Array:
            own = _by_column(self.maps[d].adjoint, g[self.slices[d]])
            if d + 1 < n_blocks:
                out[:, d + 1] = self.frames[d].transpose(own)
            return own

        # in order, whichever is ready first
        for own in self._of_domains(domain):
            out[:, 0] += own
        return out.reshape(-1, *g.shape[1:])

    def _of_domains(self, work: Callable[[int], Result]) -> list[Result]:
        """Results for the domains that have responses, the remainder last."""
        present = [d for d, part in enumerate(self.slices) if part.stop > part.start]
        return [work(d) for d in present] if self._pool is None else list(self._pool.map(work, present))

    @contextmanager
    def _beside(self) -> Iterator[None]:
        """Read several domains at once inside the block."""
        if self.n_threads < 2:
            yield
            return
        with ThreadPoolExecutor(self.n_threads) as pool:
            self._pool = pool
            try:
                yield
            finally:
                self._pool = None

    def solve(
        self,
        l2: float,
        strength: Array | None,
        weight: Array | None = None,
        start: Array | None = None,
        *,
        base: Array | None = None,
        tol: float,
        max_iter: int,
        precise: bool = True,
        who: str,
    ) -> Array:
        """Return the minimisers, (dim, n_blocks, k).

        Parameters
        ----------
        l2 : float
        strength : ndarray of shape (n_domains,), optional
            tau of every domain; infinity leaves no deviation. None: the shared weights alone, one block.
        weight : ndarray of shape (n_pairs, k), optional
            Weights of the pairs; one column with their own weights where absent.
        start : ndarray of shape (dim, n_blocks, k), optional
            Where to begin; fewer blocks are filled up with zeros.
        base : ndarray of shape (n_responses,), optional
            Rewards to which those of the weights are added, of ``comparisons.rows``.
        precise : bool
            Reckon the loss in float64 whatever the precision of the vectors.
        """
        n_blocks = 1 if strength is None else 1 + self.n_domains
        k = 1 if weight is None else weight.shape[1]
        first = np.zeros((self.dim, n_blocks, k))
        if start is not None:
            shared = start.shape[1]
            first[:, :shared] = start
        if strength is not None:
            first[:, 1:][:, np.isinf(strength)] = 0.0
        loss: RewardLoss = self.loss if weight is None else self.objective.loss(self.comparisons.weighted(weight))
        if base is not None:
            loss = _Above(loss, base[:, None])
        with self._beside():
            found: Solutions = minimise_many(
                self.forward,
                lambda g: self._adjoint(g, n_blocks),
                loss,
                self._penalties(l2, strength),
                first.reshape(-1, k),
                self._coordinates(l2, strength, k),
                tol=tol,
                max_iter=max_iter,
                rounding=float(np.finfo(self.dtype).eps),
                dtype=np.float64 if precise else self.dtype,
                who=who,
            )
        if not np.isfinite(found.value).all():
            self.find_bad_rows()
        self.n_passes, self.value = found.n_passes, found.value
        return found.x.reshape(self.dim, n_blocks, k)

    def _penalties(self, l2: float, strength: Array | None) -> Array:
        tau = np.zeros(0) if strength is None else np.where(np.isinf(strength), 0.0, strength)
        penalties: Array = np.tile(np.concatenate([[l2], tau]), self.dim)[:, None]
        return penalties

    def _coordinates(self, l2: float, strength: Array | None, k: int) -> Coordinates:
        r"""Coordinates that whiten the problem, were all domains' curvatures diagonal in one basis.

        Then every direction is an arrow matrix of 1 + D rows, whose Cholesky factor is known. With curvatures h in the
        basis U of the shared features, and k in the basis V of the domains' own ones,
        :math:`w_0 = U u_0 / \sqrt{\lambda + \sum_d \tau_d h_d / (h_d + \tau_d)}` and
        :math:`v_d = V (u_d / \sqrt{k_d + \tau_d} - q_d V^T A_d^{-1} w_0)`, :math:`q_d = k_d / (k_d + \tau_d)`.
        """
        (basis, h), (own_basis, own_h) = self._metric
        n_own = 0 if strength is None else self.n_domains
        tau = np.full((self.n_domains, 1), np.inf) if strength is None else strength[:, None]
        free = np.isfinite(tau)
        with np.errstate(invalid="ignore"):
            left = np.where(free, tau * h / (h + tau), h).sum(axis=0)
            a = np.where(free, 1.0 / np.sqrt(own_h + tau), 0.0)
            q = np.where(free, own_h / (own_h + tau), 0.0)
        s = (1.0 / np.sqrt(np.maximum(l2 + left, 1e-12 * h.sum(axis=0))))[:, None]
        # as (rank, domains, columns)
        a, q = a.T[:, :n_own, None], q.T[:, :n_own, None]
        rank, own_rank, frames = len(s), len(a), self.frames

        def to_own(x: Array) -> Array:
            return (own_basis.T @ x.reshape(self.dim, -1)).reshape(own_rank, n_own, k)

        def from_own(x: Array) -> Array:
            return (own_basis @ x.reshape(own_rank, -1)).reshape(self.dim, n_own, k)

        def whiten(g: Array) -> Array:
            g = g.reshape(self.dim, 1 + n_own, k)
            shared = g[:, 0].copy()
            if not n_own:
                return s * (basis.T @ shared)
            mine = to_own(g[:, 1:])
            pulled = from_own(q * mine)
            for d in range(n_own):
                shared -= frames[d].inverse_transpose(pulled[:, d])
            return np.concatenate([s * (basis.T @ shared), (a * mine).reshape(-1, k)])

        def unwhiten(u: Array) -> Array:
            x = np.empty((self.dim, 1 + n_own, k))
            x[:, 0] = basis @ (s * u[:rank])
            if n_own:
                for d in range(n_own):
                    x[:, d + 1] = frames[d].inverse(x[:, 0])
                x[:, 1:] = from_own(a * u[rank:].reshape(own_rank, n_own, k) - q * to_own(x[:, 1:]))
            return x.reshape(-1, k)

        return Coordinates(whiten, unwhiten)

    def _metrics(self) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        """Bases (dim, rank) and, on them, every domain's curvature at zero (n_domains, rank): of shared and own features."""
        pairs = self.comparisons.pairs
        inside = self._inside(pairs)
        # With fewer pairs than features, the optimum is in the span of the differences.
        wide = len(pairs) < self.dim and self.objective.spans_differences() and bool(inside.all())
        samples = [self._sample(d, inside, wide) for d in range(self.n_domains)]
        shared = self._metric_of(samples, [Frame()] * self.n_domains, wide, None)
        if all(not (frame.plain or frame.crossed) for frame in self.frames):
            return shared, shared
        # without products, a domain's own features are everyone's but for factors near one
        alike = not wide and not any(frame.crossed for frame in self.frames)
        return shared, self._metric_of(samples, self.frames, wide, shared[0] if alike else None)

    def _metric_of(
        self, samples: list[NDArray[np.intp]], frames: list[Frame], wide: bool, basis: Array | None
    ) -> tuple[Array, Array]:
        def blocks(d: int) -> Iterator[NDArray[np.floating[Any]]]:
            for block in np.array_split(samples[d], max(1, len(samples[d]) // _BLOCK_PAIRS)):
                if len(block):
                    yield frames[d].transpose(self._features(d, block).T.astype(np.float64)).T.astype(self.dtype)

        if basis is None and wide:
            held = [rows.astype(np.float64) for d in range(self.n_domains) for rows in blocks(d)]
            basis = _span(np.concatenate(held))
        elif basis is None:
            moment = np.zeros((self.dim, self.dim), dtype=self.dtype)
            for d, sample in enumerate(samples):
                for rows in blocks(d):
                    moment += (self.share[d] / len(sample)) * (rows.T @ rows)
            if not np.isfinite(np.diag(moment)).all():
                self.find_bad_rows()
            basis = np.linalg.eigh(moment.astype(np.float64))[1]
        seen = basis.astype(self.dtype)
        h = np.zeros((self.n_domains, basis.shape[1]))
        for d, sample in enumerate(samples):
            for rows in blocks(d):
                turned = rows @ seen
                h[d] += (self.share[d] / len(sample)) * np.einsum("ij,ij->j", turned, turned, dtype=np.float64)
        # a domain without pairs of its own to look at is taken to be like the others
        alike = h.sum(axis=0)
        for d, sample in enumerate(samples):
            if not len(sample):
                h[d] = self.share[d] * alike
        h *= self.loss.bend
        # The sample may miss directions that the data has; a floor keeps the metric defined, and mild, there.
        return basis, h + 1e-3 * np.maximum(h.mean(axis=1, keepdims=True), 1e-12)

    def find_bad_rows(self) -> None:
        """Raise, counting the responses whose features are not finite."""
        check_finite(self.forward(np.ones(self.dim)), "PooledRewardModel.fit")
        raise InvalidInputError(
            "PooledRewardModel.fit met an objective that is not finite though every vector is; their values are too large: "
            "scale them, for example with Featurizer(scale='rms')"
        )

    def _inside(self, pairs: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Pairs whose responses are both of the pair's domain."""
        start = np.array([part.start for part in self.slices])[self.pair_code]
        stop = np.array([part.stop for part in self.slices])[self.pair_code]
        first, second = pairs[:, 0], pairs[:, 1]
        within: NDArray[np.bool_] = (np.minimum(first, second) >= start) & (np.maximum(first, second) < stop)
        return within

    def _sample(self, d: int, inside: NDArray[np.bool_], everything: bool) -> NDArray[np.intp]:
        own = np.flatnonzero((self.pair_code == d) & inside)
        if everything:
            return own
        total = min(_METRIC_MAX_PAIRS, max(_METRIC_MIN_PAIRS, _METRIC_PAIRS_PER_FEATURE * self.dim))
        wanted = min(len(own), max(_METRIC_MIN_DOMAIN, int(total * self.share[d])))
        return own[np.unique(np.linspace(0, len(own) - 1, wanted).astype(np.intp))] if wanted else own

    def _features(self, d: int, pairs: NDArray[np.intp]) -> NDArray[np.floating[Any]]:
        local = self.comparisons.pairs[pairs] - self.slices[d].start
        if not self.objective.pointwise:
            return self.maps[d].differences(local)
        rows = self.maps[d].features(local[:, 0])
        return rows - rows.mean(axis=0) if len(rows) else rows


class _Above:
    """A loss of rewards that are added to others, which stay."""

    def __init__(self, loss: RewardLoss, base: Array) -> None:
        self.loss, self.base, self.n_responses = loss, base, loss.n_responses

    def evaluate(self, rewards: Array) -> Any:
        return self.loss.evaluate(rewards + self.base)

    def second_derivative(self, at: Any, direction: Array) -> Any:
        return self.loss.second_derivative(at, direction)


def _by_column(product: Callable[[Array], Array], columns: Array) -> Array:
    """Product with one column by the faster way for vectors."""
    if columns.ndim == 2 and columns.shape[1] == 1:
        return product(np.ascontiguousarray(columns[:, 0]))[:, None]
    return product(columns)


def _span(d: Array) -> Array:
    """Orthonormal basis (dim, rank) of the rows of d."""
    eigenvalues, vectors = np.linalg.eigh(d @ d.T)
    kept = eigenvalues > 1e-12 * max(float(eigenvalues[-1]), 1e-300)
    basis: Array = (d.T @ vectors[:, kept]) / np.sqrt(eigenvalues[kept])
    return basis
