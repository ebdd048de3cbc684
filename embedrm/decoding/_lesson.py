"""What a prefix head is taught: labels of texts, preference pairs, or a teacher's rewards, and at which positions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedrm.decoding.base import Array, TokenRecord, check_states
from embedrm.decoding.losses import POSITION_WEIGHTS, CrossEntropy, OutputLoss, Pairs, Squares, positions_in_text
from embedrm.errors import InvalidInputError, unknown_name

Labels = ArrayLike | Mapping[str, ArrayLike]


@dataclass(frozen=True)
class Positions:
    """Positions that a loss reads.

    Attributes
    ----------
    rows : ndarray of shape (n,)
        Row of the state after each position's token, rising; the state before it is one row up.
    weights, targets : ndarray of shape (n, n_attributes)
        Weights sum to one for each attribute; empty for pairs.
    even : ndarray of shape (n, n_attributes)
        Weight of the text alone, scaled to sum to one: positions as a regulariser counts them.
    pairs, outcome, pair_weights : ndarray, optional
        Pairs of positions.
    """

    rows: NDArray[np.intp]
    weights: Array
    targets: Array
    even: Array
    pairs: NDArray[np.intp] | None = None
    outcome: Array | None = None
    pair_weights: Array | None = None

    def of(self, attribute: int) -> Positions:
        """Return the positions that count for one attribute, with its column alone."""
        if self.pairs is not None:
            return self
        kept = np.flatnonzero(self.weights[:, attribute] > 0)
        column = slice(attribute, attribute + 1)
        even = self.even[kept, column] / self.even[kept, column].sum()
        return Positions(self.rows[kept], self.weights[kept, column], self.targets[kept, column], even)

    def loss(self, entropy: bool) -> OutputLoss:
        """Return the loss of one attribute's outputs."""
        if self.pairs is not None and self.outcome is not None and self.pair_weights is not None:
            return Pairs(len(self.rows), self.pairs, self.outcome, self.pair_weights)
        kind = CrossEntropy if entropy else Squares
        return kind(self.targets[:, 0], self.weights[:, 0])


@dataclass(frozen=True)
class Lesson:
    """Labels of texts, pairs of texts, or a teacher's targets, checked.

    Attributes
    ----------
    names : tuple of str
        Of the attributes.
    weights : ndarray of shape (n_items,)
        Of texts, or of pairs.
    groups : ndarray of shape (n_items,), int
        Items of one group are never on two sides of a split.
    labels : ndarray of shape (n_texts, n_attributes), optional
    pairs, outcome : ndarray, optional
    targets : ndarray of shape (n_rows, n_attributes), optional
        A teacher's reward of every prefix, by row.
    """

    names: tuple[str, ...]
    weights: Array
    groups: NDArray[np.intp]
    labels: Array | None = None
    pairs: NDArray[np.intp] | None = None
    outcome: Array | None = None
    targets: Array | None = None

    def take(self, items: NDArray[np.intp]) -> Lesson:
        """Return the lesson with all other items' weights zero."""
        weights = np.zeros_like(self.weights)
        weights[items] = self.weights[items]
        return Lesson(self.names, weights, self.groups, self.labels, self.pairs, self.outcome, self.targets)

    def positions(self, states: TokenRecord, scheme: str) -> Positions:
        """Return the positions with weight; ``scheme`` is one of ``losses.POSITION_WEIGHTS``."""
        if self.pairs is not None:
            return self._final(states)
        offsets = np.asarray(states.offsets, dtype=np.int64)
        weights = self._text_weights()
        active = np.flatnonzero((weights > 0).any(axis=1))
        starts, lengths = offsets[active], offsets[active + 1] - offsets[active] - 1
        rows = np.repeat(starts, lengths) + positions_in_text(lengths) + 1
        # an attribute that no text teaches has no weights to share out
        spread = weights[active] / np.maximum(weights[active].sum(axis=0), np.finfo(float).tiny)
        share = np.zeros((len(rows), len(self.names)))
        for a in np.flatnonzero(spread.any(axis=0)):
            share[:, a] = POSITION_WEIGHTS[scheme](lengths, spread[:, a])
        even = np.repeat(spread, lengths, axis=0)
        if self.labels is not None:
            targets = np.repeat(np.nan_to_num(self.labels[active]), lengths, axis=0)
        else:
            targets = np.zeros((len(rows), len(self.names))) if self.targets is None else self.targets[rows]
        kept = (share > 0).any(axis=1)
        return Positions(rows[kept], share[kept], targets[kept], even[kept])

    def _text_weights(self) -> Array:
        """Weights of texts for every attribute; zero where one is not labelled."""
        spread = np.repeat(self.weights[:, None], len(self.names), axis=1)
        return spread if self.labels is None else np.where(np.isnan(self.labels), 0.0, spread)

    def _final(self, states: TokenRecord) -> Positions:
        if self.pairs is None or self.outcome is None:
            raise TypeError("a lesson without pairs has no final positions of pairs")
        kept = np.flatnonzero(self.weights > 0)
        texts, local = np.unique(self.pairs[kept], return_inverse=True)
        outcome = self.outcome[kept]
        share = self.weights[kept] / self.weights[kept].sum()
        rows = np.asarray(states.offsets)[texts + 1].astype(np.intp) - 1
        none = np.zeros((len(rows), 0))
        even = np.full((len(rows), 1), 1.0 / len(rows))
        return Positions(rows, none, none, even, local.reshape(-1, 2), outcome, share)

    def check(self, states: TokenRecord, who: str) -> None:
        """Raise where a text that teaches has no token, or an attribute nothing to learn from."""
        lengths = np.diff(states.offsets) - 1
        if self.pairs is not None:
            active = np.unique(self.pairs[self.weights > 0])
        else:
            weights = self._text_weights()
            active = np.flatnonzero((weights > 0).any(axis=1))
            for name, column in zip(self.names, weights.T):
                if not column.any():
                    raise InvalidInputError(
                        f"{who} needs labelled texts of positive weight for the attribute {name!r}, got none of "
                        f"{len(column)}; leave the attribute out"
                    )
        empty = int((lengths[active] < 1).sum())
        if empty:
            raise InvalidInputError(f"{who} got {empty} text(s) without a token after BOS; give them weight 0")


def labelled(states: TokenRecord, labels: Labels | None, weights: Any, groups: Any, who: str) -> Lesson:
    """Check labels of texts and make a lesson of them.

    Parameters
    ----------
    states : TokenStates
    labels : array-like of shape (n_texts,) or (n_texts, n_attributes), or mapping of names to columns
        In [0, 1]; NaN where a text has no label.
    weights, groups : array-like of shape (n_texts,), optional
    who : str
        Who asks, for errors.
    """
    n = len(states.offsets) - 1
    if labels is None:
        raise InvalidInputError(f"{who} needs labels of the {n} texts in [0, 1], got none")
    if isinstance(labels, Mapping):
        names = tuple(str(name) for name in labels)
        if not names:
            raise InvalidInputError(f"{who} needs at least one attribute, got an empty mapping")
        columns = [np.asarray(column, dtype=np.float64) for column in labels.values()]
        wrong = [name for name, column in zip(names, columns) if column.shape != (n,)]
        if wrong:
            raise InvalidInputError(f"{who} needs a label for each of {n} texts, and {wrong[0]!r} has another shape")
        values = np.stack(columns, axis=1)
    else:
        values = np.asarray(labels, dtype=np.float64)
        values = values[:, None] if values.ndim == 1 else values
        if values.ndim != 2 or len(values) != n or not values.shape[1]:
            raise InvalidInputError(f"{who} needs labels (n_texts, n_attributes) of {n} texts, got {np.shape(labels)}")
        names = tuple(f"attribute {k}" for k in range(values.shape[1])) if values.shape[1] > 1 else ("reward",)
    outside = int((~np.isnan(values) & ~((values >= 0) & (values <= 1))).sum())
    if outside:
        raise InvalidInputError(
            f"{who} needs labels in [0, 1], or NaN where there is none, and {outside} of {values.size} are not; rescale them"
        )
    for name, column in zip(names, values.T):
        if np.isnan(column).all():
            raise InvalidInputError(f"{who} got no label of the attribute {name!r}: all {n} are NaN; leave it out")
    return Lesson(names, _weights(weights, n, "text", who), _groups(groups, n, who), labels=values)


def preferred(
    states: TokenRecord, pairs: Any, outcome: Any, weights: Any, groups: Any, labels: Any, who: str
) -> Lesson:
    """Check preference pairs of texts, and make a lesson of them; weights are those of pairs."""
    n = len(states.offsets) - 1
    if labels is not None:
        raise InvalidInputError(f"{who} learns from pairs with this objective, and reads no labels; leave them out")
    if pairs is None:
        raise InvalidInputError(f"{who} needs pairs (n_pairs, 2) of texts with this objective, got none")
    rows = np.asarray(pairs)
    if rows.ndim != 2 or rows.shape[1] != 2 or not len(rows) or rows.dtype.kind not in "iu":
        raise InvalidInputError(
            f"{who} needs pairs of shape (n_pairs, 2), whole numbers, got {rows.dtype} {rows.shape}"
        )
    if rows.min() < 0 or rows.max() >= n:
        raise InvalidInputError(f"{who} needs pairs of texts 0 to {n - 1}, got {rows.min()} to {rows.max()}")
    shares = np.ones(len(rows)) if outcome is None else np.asarray(outcome, dtype=np.float64)
    if shares.shape != (len(rows),) or not ((shares >= 0.5) & (shares <= 1)).all():
        raise InvalidInputError(f"{who} needs one outcome in [0.5, 1] for each of {len(rows)} pairs")
    omega = _weights(weights, len(rows), "pair", who)
    # a text may be in several pairs, and then those stay together
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    group = _groups(groups, n, who)
    graph = coo_matrix((np.ones(len(rows)), (group[rows[:, 0]], group[rows[:, 1]])), shape=(n, n))
    part = connected_components(graph, directed=False)[1]
    return Lesson(("reward",), omega, part[group[rows[:, 0]]], pairs=rows.astype(np.intp), outcome=shares)


def taught(states: TokenRecord, teacher: Any, weights: Any, groups: Any, labels: Any, who: str) -> Lesson:
    """Make a lesson of a teacher's rewards of every prefix of the texts."""
    from embedrm.decoding.base import PrefixHead

    n = len(states.offsets) - 1
    if labels is not None:
        raise InvalidInputError(f"{who} learns from its teacher with this loss, and reads no labels; leave them out")
    if not isinstance(teacher, PrefixHead) or not hasattr(teacher, "rewards"):
        raise InvalidInputError(
            f"{who} needs a fitted RADHead as teacher with this loss, got {type(teacher).__name__}; a teacher rewards "
            "prefixes"
        )
    teacher.check(states)
    omega = _weights(weights, n, "text", who)
    targets = np.zeros((len(states.ids), len(teacher.attributes_)))
    for i, text in _runs(omega > 0):
        rows = slice(int(states.offsets[i]), int(states.offsets[text]))
        targets[rows] = teacher.rewards(states.states[rows])
    return Lesson(teacher.attributes_, omega, _groups(groups, n, who), targets=targets)


def _runs(mask: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """First and past-the-last index of every run of true entries."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def _weights(weights: Any, n: int, of: str, who: str) -> Array:
    values = np.ones(n) if weights is None else np.asarray(weights, dtype=np.float64)
    if values.shape != (n,) or not np.isfinite(values).all() or (values < 0).any() or not values.any():
        raise InvalidInputError(
            f"{who} needs one weight >= 0 for each of {n} {of}s, not all zero; got shape {values.shape}"
        )
    return values


def _groups(groups: Any, n: int, who: str) -> NDArray[np.intp]:
    if groups is None:
        return np.arange(n)
    values = np.asarray(groups)
    if values.shape != (n,):
        raise InvalidInputError(f"{who} needs a group for each of {n} texts, got shape {values.shape}")
    return np.unique(values, return_inverse=True)[1].astype(np.intp)


def check_number(value: Any, name: str, who: str, *, above: float = 0.0, strictly: bool = False) -> float:
    """Return a finite number >= ``above`` (or greater), or raise."""
    good = isinstance(value, (int, float, np.number)) and not isinstance(value, (bool, np.bool_)) and np.isfinite(value)
    if not good or value < above or (strictly and value == above):
        raise InvalidInputError(
            f"{who} needs {name} to be a number {'>' if strictly else '>='} {above:g}, got {value!r}"
        )
    return float(value)


def check_whole(value: Any, name: str, who: str, least: int) -> int:
    """Return a whole number >= ``least``, or raise."""
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or value < least:
        raise InvalidInputError(f"{who} needs {name} to be a whole number >= {least}, got {value!r}")
    return int(value)


def check_name(value: Any, name: str, known: Any, who: str) -> str:
    """Return one of the known names, or raise."""
    if not isinstance(value, str) or value not in known:
        raise unknown_name(f"{name} of {who}", value, known)
    return value


def begin(states: TokenRecord, who: str) -> None:
    """Check the states that a head is to be fitted on."""
    check_states(states, who)
