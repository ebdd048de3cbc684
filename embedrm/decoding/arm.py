"""ARM: the reward of every possible next token from one state."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedrm.decoding import PREFIX_HEADS
from embedrm.decoding import _lesson as lessons
from embedrm.decoding._arm_fitting import Fitted, Problem, Settings
from embedrm.decoding._lesson import Labels, Lesson
from embedrm.decoding._next_token import NextTokenHead, check_table
from embedrm.decoding._penalty import L2_GRID, choose_l2
from embedrm.decoding.base import Array, PrefixHead, TokenRecord
from embedrm.decoding.losses import POSITION_WEIGHTS, increments
from embedrm.errors import InvalidInputError
from embedrm.numerics.digest import array_digest
from embedrm.numerics.threads import allowed_threads, in_threads, threads_for

LOSSES = ("responses", "responses-ce", "distillation", "delta-distillation", "bradley-terry")
FROM_TEACHER = ("distillation", "delta-distillation")


@PREFIX_HEADS.register("arm")
class ARMHead(NextTokenHead):
    r"""Reward of next token v after prefix x: :math:`r(v|x) = \langle h(x), w\rangle + \langle W h(x), e(v)\rangle`.

    h is the state after the prefix, e(v) the frozen output embedding of v, so one state gives the rewards of all tokens. As
    a matrix of prefixes by tokens they have rank at most d, the size of a state, or d + 1 with a bias. The first term is the
    prefix's ``baseline``, the second the token's ``delta``.

    Parameters
    ----------
    rank : int, optional
        All of W is fitted where absent, as in the paper ("low rank" there is d against the vocabulary's size). A number r
        gives :math:`W = U V^\top` with r columns each: an extension of ours. Fitted by turns of U and V from the best
        approximation to the full W; a local minimum.
    baseline : bool
        Without it, w = 0 and the regulariser is on the whole score, as in the official code's head without baseline.
    bias : bool
        Adds an unpenalised constant b (not in the paper).
    loss : {"responses", "responses-ce", "distillation", "delta-distillation", "bradley-terry"}
        ``"responses"``: squared error from the text's label y at the token that came, cumulative weights (Eq. 9);
        ``"responses-ce"``: its cross-entropy, with rewards sigma(score). ``"distillation"``: squared error from a teacher's
        reward of prefix and token, at the tokens that came (Eq. 10). ``"delta-distillation"``: from the teacher's increment
        r(x_1..t) - r(x_1..t-1); a prefix's reward is then a sum of increments. ``"bradley-terry"`` (an extension):
        preference pairs of texts, by the scores of their last tokens.
    regulariser : float
        rho: adds rho times the mean over positions of delta(v'|x)^2 for random tokens v' (Eq. 11), so that tokens that were
        never seen after such a prefix get its baseline. Without it baseline and delta are not told apart.
    negatives : int or "all"
        Random tokens a position, drawn uniformly once; ``"all"`` is the expectation over the whole vocabulary, in closed
        form, which costs less (an extension).
    positions : {"cumulative", "uniform", "last"}, optional
        Weights of positions. Where absent ``"cumulative"``, 2t / (l (l + 1)), for labels, and for a teacher ``"uniform"``,
        all tokens alike, as in the official code. Pairs read the last position only.
    l2 : float or "cv"
        lambda of :math:`\tfrac12\lambda(\lVert W\rVert^2 + \lVert w\rVert^2)` beside the mean loss, in units in which states
        and embeddings have mean square norm one; ``"cv"`` picks from ``l2_grid`` by held-out loss.
    tol : float
        Gap to the minimum to reach, as a share of the loss of scores that are zero. With a rank, a round of both factors
        that gains less than 100 times this share is the last.
    max_passes : int
        Passes over the states, for each attribute, after which it stops.
    max_rounds : int
        Turns of U and V, with a rank.
    l2_grid : sequence of float
    cv : int
        Folds of ``l2="cv"``, of whole groups.
    keep_embeddings : bool
        Whether the table e is saved with the head. Without it, a loaded head must be given it by :meth:`attach`.
    random_state : int
        Random tokens.

    Attributes
    ----------
    factors_ : dict of ndarray
        ``weight`` (n_attributes, d_e, d), or ``left`` (n_attributes, d_e, r) and ``right`` (n_attributes, d, r).
    baseline_weight_ : ndarray of shape (n_attributes, d)
        w; zero without baseline.
    bias_ : ndarray of shape (n_attributes,)
    embeddings_ : ndarray of shape (V, d_e)
    embeddings_digest_ : str
    increments_ : bool
        Whether scores are increments of the prefix's reward, which then begins at ``start_``.
    start_ : ndarray of shape (n_attributes,)
        The teacher's reward of BOS alone; zero unless ``increments_``.
    l2_ : float
    cv_results_ : list of dict
    n_passes_ : int
        Most passes of an attribute.
    gap_ : float
        Largest gap of an attribute.
    converged_ : bool
        A warning tells where not.

    Notes
    -----
    A re-implementation of Troshin, Niculae and Fokkens (2024), "Efficient controlled language generation with low-rank
    autoregressive reward models" (later RAD-Q), on a frozen backbone: the configuration ``frozen_lm`` of the official code.
    The headline runs tune the backbone. Where the paper takes steps of AdamW, the losses here are convex in W (with a rank,
    in each factor) and solved to ``tol``, and a random token is drawn once for each position rather than anew each epoch.
    """

    def __init__(
        self,
        rank: int | None = None,
        baseline: bool = True,
        bias: bool = False,
        loss: str = "responses",
        regulariser: float = 1.0,
        negatives: int | str = 1,
        positions: str | None = None,
        l2: float | str = 1e-4,
        tol: float = 1e-8,
        max_passes: int = 500,
        max_rounds: int = 50,
        l2_grid: Iterable[float] = L2_GRID,
        cv: int = 5,
        keep_embeddings: bool = True,
        random_state: int = 0,
    ) -> None:
        self.rank = rank
        self.baseline = baseline
        self.bias = bias
        self.loss = loss
        self.regulariser = regulariser
        self.negatives = negatives
        self.positions = positions
        self.l2 = l2
        self.tol = tol
        self.max_passes = max_passes
        self.max_rounds = max_rounds
        self.l2_grid = l2_grid
        self.cv = cv
        self.keep_embeddings = keep_embeddings
        self.random_state = random_state

    def fit(
        self,
        states: TokenRecord,
        labels: Labels | None = None,
        *,
        embeddings: NDArray[Any],
        teacher: PrefixHead | None = None,
        weights: ArrayLike | None = None,
        groups: ArrayLike | None = None,
        pairs: ArrayLike | None = None,
        outcome: ArrayLike | None = None,
    ) -> ARMHead:
        """Fit on token states. Only states of texts that teach something are read. Returns self.

        Parameters
        ----------
        states : TokenStates
            Perhaps mapped from disk; read block by block, and never copied as a whole.
        labels : array-like of shape (n_texts,) or (n_texts, n_attributes), or mapping of names to (n_texts,), optional
            In [0, 1]; NaN where a text is not labelled. None with a teacher or pairs.
        embeddings : ndarray of shape (V, d_e)
            e: the language model's output embeddings (``language_model.output_embeddings()``).
        teacher : RADHead, optional
            Fitted on states of the same language model.
        weights : array-like of shape (n_texts,), optional
            Of texts; with pairs, of shape (n_pairs,).
        groups : array-like of shape (n_texts,), optional
            Prompt of each text, for ``l2="cv"``.
        pairs : array-like of shape (n_pairs, 2), optional
            Texts, the chosen one first.
        outcome : array-like of shape (n_pairs,), optional
            Share of votes for the chosen one, in [0.5, 1]; 1 where absent.
        """
        who = type(self).__name__
        self._check_parameters()
        lessons.begin(states, who)
        table = check_table(embeddings, int(states.vocab_size))
        lesson = self._lesson(states, labels, teacher, weights, groups, pairs, outcome)
        lesson.check(states, who)
        d = int(states.states.shape[1])
        if self.rank is not None and self.rank > min(d, table.shape[1]):
            raise InvalidInputError(
                f"{who} needs rank to be at most {min(d, table.shape[1])} here, got {self.rank}; rank=None fits all of W"
            )
        self.attributes_, self.model_ = lesson.names, str(states.model)
        self.n_features_in_, self.vocab_size_ = d, int(states.vocab_size)
        self.link_ = "logistic" if self.loss == "responses-ce" else "identity"
        self.bounded_ = self.loss != "bradley-terry" and (teacher is None or teacher.bounded_)
        self.increments_ = self.loss == "delta-distillation"
        self.start_ = self._start(states, lesson)
        negatives = self._random_tokens(states)
        self.cv_results_: list[dict[str, float]] = []
        n_threads = allowed_threads()
        # a block's products are small: threads that share one cost more than they save, and attributes have one each
        with threads_for(0):
            if self.l2 == "cv":

                def path(inside: Lesson, outside: Lesson, grid: Sequence[float]) -> Array:
                    return self._held_out(states, inside, outside, table, negatives, grid)

                self.l2_, self.cv_results_ = choose_l2(self.l2_grid, self.cv, lesson, path, who)
            else:
                self.l2_ = float(self.l2)

            def solve(attribute: int) -> Fitted:
                return self._problem(states, lesson, attribute, table, negatives).solve(self.l2_)[0]

            fitted = in_threads(solve, range(self.n_attributes), min(n_threads, self.n_attributes))
        self._take(fitted)
        self.embeddings_digest_ = array_digest({"embeddings": table})
        self._hold(table)
        return self

    def _lesson(
        self, states: TokenRecord, labels: Any, teacher: Any, weights: Any, groups: Any, pairs: Any, outcome: Any
    ) -> Lesson:
        who = type(self).__name__
        if self.loss not in FROM_TEACHER and teacher is not None:
            raise InvalidInputError(
                f"{who}(loss={self.loss!r}) has no teacher; leave it out, or choose loss='distillation'"
            )
        if self.loss == "bradley-terry":
            return lessons.preferred(states, pairs, outcome, weights, groups, labels, who)
        if pairs is not None or outcome is not None:
            raise InvalidInputError(f"{who} reads pairs with loss='bradley-terry' only; leave them out")
        if self.loss not in FROM_TEACHER:
            return lessons.labelled(states, labels, weights, groups, who)
        return lessons.taught(states, teacher, weights, groups, labels, who)

    def _start(self, states: TokenRecord, lesson: Lesson) -> Array:
        """The teacher's reward of BOS; the targets of the lesson become increments."""
        if not self.increments_ or lesson.targets is None:
            return np.zeros(self.n_attributes)
        offsets = np.asarray(states.offsets)
        active = np.flatnonzero(lesson.weights > 0)
        starts, lengths = offsets[active], offsets[active + 1] - offsets[active] - 1
        start = lesson.targets[starts].mean(axis=0)
        rows = np.concatenate([np.arange(s + 1, s + 1 + n) for s, n in zip(starts, lengths)])
        changes = increments(lesson.targets, starts, lengths)
        lesson.targets[rows] = changes
        return np.asarray(start, dtype=np.float64)

    def _random_tokens(self, states: TokenRecord) -> NDArray[np.int32]:
        """Tokens (n_rows, K) for the regulariser; drawn for all rows, so that those of a text do not hang on the others."""
        count = 0 if self.negatives == "all" or float(self.regulariser) == 0.0 else int(self.negatives)
        rng = np.random.default_rng(self.random_state)
        return rng.integers(0, states.vocab_size, size=(len(states.ids), count), dtype=np.int32)

    def _problem(
        self, states: TokenRecord, lesson: Lesson, attribute: int, table: NDArray[Any], negatives: NDArray[np.int32]
    ) -> Problem:
        scheme = self.positions or ("uniform" if self.loss in FROM_TEACHER else "cumulative")
        settings = Settings(
            self.rank,
            bool(self.baseline),
            bool(self.bias),
            self.loss == "responses-ce",
            float(self.regulariser),
            self.negatives == "all",
            float(self.tol),
            int(self.max_passes),
            int(self.max_rounds),
        )
        positions = lesson.positions(states, scheme).of(attribute)
        who = f"ARMHead (attribute {self.attributes_[attribute]!r})"
        return Problem(states.states, np.asarray(states.ids), positions, table, negatives, settings, who)

    def _held_out(
        self,
        states: TokenRecord,
        inside: Lesson,
        outside: Lesson,
        table: NDArray[Any],
        negatives: NDArray[np.int32],
        grid: Sequence[float],
    ) -> Array:
        """Mean loss (without the regulariser) of what is held out, summed over attributes, at each penalty."""
        inside.check(states, "a fold of ARMHead(l2='cv')")
        scheme = self.positions or ("uniform" if self.loss in FROM_TEACHER else "cumulative")
        unseen = outside.positions(states, scheme)
        totals = np.zeros(len(grid))
        for a in range(self.n_attributes):
            part = unseen.of(a)
            if not len(part.rows):
                continue
            loss = part.loss(self.loss == "responses-ce")
            problem, theta = self._problem(states, inside, a, table, negatives), None
            tokens = np.asarray(states.ids)[part.rows]
            for k, l2 in enumerate(grid):
                fitted, theta = problem.solve(l2, theta)
                totals[k] += loss.value(fitted.outputs(states.states, part.rows - 1, tokens, table))
        return totals

    def _take(self, fitted: list[Fitted]) -> None:
        self.factors_ = {"weight" if self.rank is None else "left": np.stack([f.left for f in fitted])}
        if self.rank is not None:
            self.factors_["right"] = np.stack([f.right for f in fitted if f.right is not None])
        self.baseline_weight_ = np.stack([f.w for f in fitted])
        self.bias_ = np.array([f.b for f in fitted])
        self.n_passes_ = max(f.n_passes for f in fitted)
        self.gap_ = max(f.gap for f in fitted)
        self.converged_ = all(f.converged for f in fitted)

    def _check_parameters(self) -> None:
        who = type(self).__name__
        lessons.check_name(self.loss, "loss", LOSSES, who)
        if self.positions is not None:
            lessons.check_name(self.positions, "positions", tuple(POSITION_WEIGHTS), who)
        if self.rank is not None:
            lessons.check_whole(self.rank, "rank (or None)", who, 1)
        if self.negatives != "all":
            lessons.check_whole(self.negatives, "negatives (or 'all')", who, 1)
        if self.l2 != "cv":
            lessons.check_number(self.l2, "l2 (or 'cv')", who)
        lessons.check_number(self.regulariser, "regulariser", who)
        lessons.check_number(self.tol, "tol", who, strictly=True)
        lessons.check_whole(self.max_passes, "max_passes", who, 2)
        lessons.check_whole(self.max_rounds, "max_rounds", who, 1)
