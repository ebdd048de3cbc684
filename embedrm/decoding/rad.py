"""RAD: the reward of a prefix from its last state."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.utils.validation import check_is_fitted

from embedrm.decoding import PREFIX_HEADS
from embedrm.decoding import _lesson as lessons
from embedrm.decoding._lesson import Labels, Lesson
from embedrm.decoding._linear import LinearOperator
from embedrm.decoding._penalty import L2_GRID, choose_l2
from embedrm.decoding._perceptron import Schedule, forward, train
from embedrm.decoding._scorer import StateScorer
from embedrm.decoding._solver import Solution, minimise
from embedrm.decoding._units import root_mean_square
from embedrm.decoding.base import Array, PrefixHead, TokenRecord, block_rows, check_scores, gathered, slices
from embedrm.decoding.losses import POSITION_WEIGHTS
from embedrm.errors import InvalidInputError
from embedrm.numerics.folds import hold_out
from embedrm.numerics.threads import threads_for

OBJECTIVES = ("cumulative-mse", "cumulative-ce", "bradley-terry")


@PREFIX_HEADS.register("rad")
class RADHead(PrefixHead):
    r"""Reward :math:`r(x_{1:t}) = f(h_t)` of a prefix from the state after its last token, linear or a perceptron.

    With a label y in [0, 1] of the whole text at each of its l positions, the loss is

    .. math:: \frac{1}{n}\sum_i \frac{2}{l_i(l_i+1)} \sum_{t=1}^{l_i} t\,\bigl(r(x^i_{1:t}) - y_i\bigr)^2

    summed over attributes, plus :math:`\tfrac12\lambda\lVert w\rVert^2`.

    Parameters
    ----------
    hidden : sequence of int
        Widths of hidden layers with rectifiers; none gives a linear head. A linear head on states that are means of token
        vectors gives rewards of rank at most 2 (a prefix's part plus a token's part), whatever it learns.
    objective : {"cumulative-mse", "cumulative-ce", "bradley-terry"}
        The loss above; the cross-entropy of sigma(score) in its place, in which case rewards are sigma(score); or
        preference pairs of texts by their last scores (an extension), which reads pairs and no labels.
    positions : {"cumulative", "uniform", "last"}
        Weights of positions: 2t / (l (l + 1)); all positions of all texts alike; the last of each text alone.
    l2 : float or "cv"
        lambda, where a state has mean square norm one (a perceptron: where a coordinate has mean square one); ``"cv"``
        picks from ``l2_grid`` by held-out loss, for linear heads.
    learning_rate, batch_rows, max_epochs, early_stopping, validation_fraction, patience
        Of a perceptron, trained by Adam on batches of positions: a share of the groups is held out, and the epoch with the
        smallest held-out loss is kept.
    tol : float
        Of a linear head: gap to the minimum to reach, as a share of the loss of scores that are zero.
    max_passes : int
        Of a linear head: passes over the states after which it stops.
    l2_grid : sequence of float
    cv : int
        Folds of ``l2="cv"``, of whole groups.
    random_state : int
        First weights, batches and held-out groups of a perceptron.

    Attributes
    ----------
    weights_, biases_ : list of ndarray
        ``weights_[l]`` (n_in, n_out) and ``biases_[l]`` (n_out,), on raw states; float64 of a linear head.
    l2_ : float
    cv_results_ : list of dict
    converged_ : bool
        Whether the gap was reached, or the held-out loss had stopped to fall; a warning tells where not.
    n_passes_ : int
        Of a linear head: most passes of an attribute.
    n_epochs_ : int
        Of a perceptron: the epoch kept.
    train_losses_, validation_losses_ : ndarray
        By epoch.

    Notes
    -----
    A re-implementation of the reward head of Deng and Raffel (2023), "Reward-augmented decoding", on a frozen backbone; they
    tune the backbone with it. Weights of positions as in their code and in Eq. 5 of Troshin et al. (2024).
    """

    not_parameters = frozenset({"train_losses_", "validation_losses_"})

    def __init__(
        self,
        hidden: Sequence[int] = (),
        objective: str = "cumulative-mse",
        positions: str = "cumulative",
        l2: float | str = 1e-4,
        learning_rate: float = 1e-3,
        batch_rows: int = 512,
        max_epochs: int = 60,
        early_stopping: bool = True,
        validation_fraction: float = 0.1,
        patience: int = 5,
        tol: float = 1e-8,
        max_passes: int = 500,
        l2_grid: Iterable[float] = L2_GRID,
        cv: int = 5,
        random_state: int = 0,
    ) -> None:
        self.hidden = hidden
        self.objective = objective
        self.positions = positions
        self.l2 = l2
        self.learning_rate = learning_rate
        self.batch_rows = batch_rows
        self.max_epochs = max_epochs
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.tol = tol
        self.max_passes = max_passes
        self.l2_grid = l2_grid
        self.cv = cv
        self.random_state = random_state

    def fit(
        self,
        states: TokenRecord,
        labels: Labels | None = None,
        *,
        weights: ArrayLike | None = None,
        groups: ArrayLike | None = None,
        pairs: ArrayLike | None = None,
        outcome: ArrayLike | None = None,
    ) -> RADHead:
        """Fit on token states. Only states of texts that teach something are read. Returns self.

        Parameters
        ----------
        states : TokenStates
        labels : array-like of shape (n_texts,) or (n_texts, n_attributes), or mapping of names to (n_texts,), optional
            In [0, 1]; NaN where a text is not labelled.
        weights : array-like of shape (n_texts,), optional
            Of texts; with pairs, of shape (n_pairs,).
        groups : array-like of shape (n_texts,), optional
            Prompt of each text: whole groups are held out. Each text by itself where absent.
        pairs : array-like of shape (n_pairs, 2), optional
            Texts, the chosen one first.
        outcome : array-like of shape (n_pairs,), optional
            Share of votes for the chosen one, in [0.5, 1]; 1 where absent.
        """
        who = type(self).__name__
        hidden = self._check_parameters()
        lessons.begin(states, who)
        if self.objective == "bradley-terry":
            lesson = lessons.preferred(states, pairs, outcome, weights, groups, labels, who)
        else:
            if pairs is not None or outcome is not None:
                raise InvalidInputError(f"{who} reads pairs with objective='bradley-terry' only; leave them out")
            lesson = lessons.labelled(states, labels, weights, groups, who)
        lesson.check(states, who)
        self.attributes_, self.model_ = lesson.names, str(states.model)
        self.n_features_in_, self.vocab_size_ = int(states.states.shape[1]), int(states.vocab_size)
        self.link_ = "logistic" if self._entropy else "identity"
        self.bounded_ = self.objective != "bradley-terry"
        self.cv_results_: list[dict[str, float]] = []
        # batches and blocks are small: threads that share their products cost more than they save
        with threads_for(0):
            if hidden:
                self._fit_perceptron(states, lesson, hidden)
            else:
                self._fit_linear(states, lesson)
        return self

    def _fit_linear(self, states: TokenRecord, lesson: Lesson) -> None:
        if self.l2 == "cv":

            def path(inside: Lesson, outside: Lesson, grid: Sequence[float]) -> Array:
                return self._held_out(states, inside, outside, grid)

            self.l2_, self.cv_results_ = choose_l2(self.l2_grid, self.cv, lesson, path, type(self).__name__)
        else:
            self.l2_ = float(self.l2)
        solved = [next(iter(self._linear(states, lesson, a, [self.l2_]))) for a in range(self.n_attributes)]
        self.weights_: list[NDArray[Any]] = [np.stack([coef for coef, _, _ in solved], axis=1)]
        self.biases_: list[NDArray[Any]] = [np.array([bias for _, bias, _ in solved])]
        self.converged_ = all(solution.converged for _, _, solution in solved)
        self.n_passes_ = max(solution.n_passes for _, _, solution in solved)

    def _linear(
        self, states: TokenRecord, lesson: Lesson, attribute: int, penalties: Sequence[float]
    ) -> Iterator[tuple[Array, float, Solution]]:
        """Coefficients and intercept of one attribute at each penalty, each begun at the one before."""
        positions = lesson.positions(states, self.positions).of(attribute)
        unit = root_mean_square(states.states, type(self).__name__, positions.rows, positions.even[:, 0])
        loss = positions.loss(self._entropy)
        operator = LinearOperator(states.states, positions.rows, unit, penalties[0]).prepare(loss.curvature_bound())
        theta = np.zeros(operator.size)
        for l2 in penalties:
            operator.set_l2(l2)
            who = f"RADHead (attribute {self.attributes_[attribute]!r})"
            solution = minimise(operator, loss, theta, tol=self.tol, max_passes=self.max_passes, who=who)
            theta = solution.theta
            yield theta[:-1] / unit, float(theta[-1]), solution

    def _held_out(self, states: TokenRecord, inside: Lesson, outside: Lesson, grid: Sequence[float]) -> Array:
        """Mean loss of what is held out, summed over attributes, at each penalty."""
        inside.check(states, "a fold of RADHead(l2='cv')")
        unseen = outside.positions(states, self.positions)
        totals = np.zeros(len(grid))
        for a in range(self.n_attributes):
            part = unseen.of(a)
            if not len(part.rows):
                continue
            loss = part.loss(self._entropy)
            for k, (coef, bias, _) in enumerate(self._linear(states, inside, a, grid)):
                totals[k] += loss.value(gathered(states.states, part.rows, coef) + bias)
        return totals

    def _fit_perceptron(self, states: TokenRecord, lesson: Lesson, hidden: tuple[int, ...]) -> None:
        who = type(self).__name__
        schedule = Schedule(
            hidden,
            lessons.check_number(self.learning_rate, "learning_rate", who, strictly=True),
            float(self.l2),
            lessons.check_whole(self.batch_rows, "batch_rows", who, 2),
            lessons.check_whole(self.max_epochs, "max_epochs", who, 1),
            lessons.check_whole(self.patience, "patience", who, 1),
            int(self.random_state),
        )
        positions, held_out = lesson.positions(states, self.positions), None
        if self.early_stopping:
            fraction = lessons.check_number(self.validation_fraction, "validation_fraction", who, strictly=True)
            remedy = "early_stopping=False with a max_epochs of your choice"
            inside, outside = hold_out(
                lesson.groups, fraction, schedule.random_state, who, remedy, np.asarray(lesson.weights)
            )
            kept = lesson.take(inside)
            kept.check(states, f"{who}(early_stopping=True)")
            positions = kept.positions(states, self.positions)
            held_out = lesson.take(outside).positions(states, self.positions)
        trained = train(states.states, positions, held_out, self.n_attributes, self._entropy, schedule, who)
        self.l2_ = schedule.l2
        self.weights_, self.biases_ = trained.weights, trained.biases
        self.n_epochs_, self.converged_ = trained.epoch, trained.converged
        self.train_losses_, self.validation_losses_ = trained.train_losses, trained.validation_losses
        if not trained.converged:
            from sklearn.exceptions import ConvergenceWarning

            warnings.warn(
                f"{who} ran all {schedule.max_epochs} epochs while its held-out loss still fell now and then (the best was "
                f"epoch {trained.epoch}); raise max_epochs or learning_rate",
                ConvergenceWarning,
                stacklevel=3,
            )

    def _check_parameters(self) -> tuple[int, ...]:
        who = type(self).__name__
        lessons.check_name(self.objective, "objective", OBJECTIVES, who)
        lessons.check_name(self.positions, "positions", tuple(POSITION_WEIGHTS), who)
        hidden: Any = self.hidden
        if not isinstance(hidden, (tuple, list)) or any(type(w) is not int or w < 1 for w in hidden):
            raise InvalidInputError(
                f"{who} needs hidden to be widths of layers, such as (64,) or (), got {self.hidden!r}"
            )
        if self.l2 == "cv" and self.hidden:
            raise InvalidInputError(f"{who} chooses l2='cv' for linear heads only; give a number with hidden layers")
        if self.l2 != "cv":
            lessons.check_number(self.l2, "l2 (or 'cv')", who)
        lessons.check_number(self.tol, "tol", who, strictly=True)
        lessons.check_whole(self.max_passes, "max_passes", who, 2)
        return tuple(int(w) for w in self.hidden)

    def rewards(self, h: NDArray[Any]) -> Array:
        """Rewards of prefixes.

        Parameters
        ----------
        h : ndarray of shape (n, dim)
            The state after each prefix's last token; may be mapped from disk.

        Returns
        -------
        ndarray of shape (n, n_attributes), float64
        """
        return np.asarray(self._link(self.scores(h)), dtype=np.float64)

    def scores(self, h: NDArray[Any]) -> Array:
        """Rewards before the link: of a head with ``link_ == "logistic"``, log odds."""
        check_is_fitted(self, "weights_")
        h = np.asanyarray(h)
        self._check_vectors(h)
        out = np.empty((len(h), self.n_attributes))
        exact = self.weights_[0].dtype == np.float64 or h.dtype == np.float64
        for part in slices(len(h), block_rows(self.n_features_in_)):
            x = np.asarray(h[part], dtype=np.float64 if exact else np.float32)
            out[part] = forward(self.weights_, self.biases_, x)[0]
        check_scores(out, type(self).__name__)
        return out

    def token_rewards(self, states: TokenRecord) -> Array:
        """Reward of every prefix, BOS alone included; shape (n_rows, n_attributes)."""
        self.check(states)
        return self.rewards(states.states)

    def text_rewards(self, states: TokenRecord) -> Array:
        """Reward of each whole text; shape (n_texts, n_attributes), float64."""
        self.check(states)
        return self.rewards(states.states[np.asarray(states.offsets[1:]) - 1])

    def scorer(self, columns: Sequence[int]) -> StateScorer:
        """Return what gives the rewards of some attributes (by position), step after step."""
        check_is_fitted(self, "weights_")
        return StateScorer(self, columns)

    def torch_tensors(self) -> dict[str, list[Any]]:
        """Return ``weights`` and ``biases`` as float32 torch tensors, layer by layer."""
        import torch

        check_is_fitted(self, "weights_")
        parts = {"weights": self.weights_, "biases": self.biases_}
        return {name: [torch.from_numpy(a.astype(np.float32)) for a in layers] for name, layers in parts.items()}

    @property
    def _entropy(self) -> bool:
        return self.objective == "cumulative-ce"
