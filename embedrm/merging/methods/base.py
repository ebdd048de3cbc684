"""The contract of merge methods, and the arithmetic that they share."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedrm.errors import InvalidInputError, unknown_name

Array = NDArray[Any]
Weights = NDArray[np.float64]
Step = Callable[[Sequence[Array]], Array]

# Entries that are merged at a time: what a method allocates stays small beside the tensors, and near the processor.
PIECE = 1 << 17


class MergeMethod:
    """One row of the table of merge methods: a pure function and what must be known to call it.

    Attributes
    ----------
    merge : callable
        ``(arrays, weights, *, **options) -> merged``: a list of arrays of one shape, one for each model, their weights
        (n_models,), and options; returns an array of that shape, float64.
    on : {"tensors", "deltas"}
        Whether the arrays are the models' tensors, or the tensors minus those of the ``base``; then what is returned is a
        delta too.
    citation : str
    elementwise : bool
        Whether each entry of the result follows from the same entries of the arrays alone, so that large tensors may be
        merged in pieces.
    begin : callable, optional
        For a method that must know something of the whole tensor first (a threshold, an angle): ``(pieces, weights, *,
        **options) -> step`` looks through :class:`Pieces` and returns what merges the pieces, each once and in their order.
        A method that has neither this nor ``elementwise`` is given whole tensors.
    each : tuple of str
        Options that may be one value for all models, or a sequence with one for each.
    keyed : bool
        Whether it draws, and takes ``keys``: one string a model, which together with ``random_state`` decides its draw.
    moments : bool
        Whether it takes ``moments``: one array a model, of the tensor's shape (a diagonal Fisher information).
    uniform : bool
        Whether it refuses weights that differ.
    """

    merge: ClassVar[Callable[..., Array]]
    on: ClassVar[str] = "tensors"
    citation: ClassVar[str]
    elementwise: ClassVar[bool] = False
    begin: ClassVar[Callable[..., Step] | None] = None
    each: ClassVar[tuple[str, ...]] = ()
    keyed: ClassVar[bool] = False
    moments: ClassVar[bool] = False
    uniform: ClassVar[bool] = False
    registered_name: ClassVar[str]

    @classmethod
    def options(cls) -> dict[str, Any]:
        """Names of the options with their defaults; ``inspect.Parameter.empty`` for one that must be given."""
        parameters = inspect.signature(cls.merge).parameters.values()
        given = {"keys", "moments"}
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in given}

    @classmethod
    def check_options(cls, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return all options, defaults included, or raise on an unknown or a missing one.

        ``lambda`` is understood as ``lambda_``, so that a merge configuration's names can be used as they are.
        """
        named = {"lambda_" if key == "lambda" else key: value for key, value in options.items()}
        known = cls.options()
        for name in named:
            if name not in known:
                raise unknown_name(f"option of the merge method {cls.registered_name!r}", name, known)
        whole = {**known, **named}
        missing = [name for name, value in whole.items() if value is inspect.Parameter.empty]
        if missing:
            raise InvalidInputError(
                f"the merge method {cls.registered_name!r} needs {', '.join(missing)}, for which there is no value that "
                "suits all models; give one"
            )
        return whole

    @classmethod
    def of_models(cls, options: Mapping[str, Any], n: int, rows: Sequence[int]) -> dict[str, Any]:
        """Return the options for some of n models: of those with a value for each model, the values of these models."""
        out = dict(options)
        for name in cls.each:
            value = out.get(name)
            if isinstance(value, (list, tuple, np.ndarray)):
                if len(value) != n:
                    raise InvalidInputError(
                        f"{cls.registered_name} needs {name} to be one number, or {n}, one for each model; got {len(value)}"
                    )
                out[name] = [value[i] for i in rows]
        return out

    @classmethod
    def survey(cls, models: Sequence[Callable[[], Iterator[Array]]], options: Mapping[str, Any]) -> dict[str, Any]:
        """Find what must be known of whole models before their first tensor is merged; passed on to ``begin``.

        Parameters
        ----------
        models : sequence of callables
            Of each model, what yields all that is to be merged of it, in pieces (1-D, float64), in the order in which it
            will be merged.
        options : mapping
            All of them.
        """
        return {}


class Pieces:
    """Arrays of one shape, or what they are beyond an origin, read in pieces.

    Parameters
    ----------
    arrays : sequence of ndarray
    origin : ndarray, optional
        What is subtracted from each.
    size : int, optional
        Entries of a piece.

    Attributes
    ----------
    n_models, n_entries : int
    parts : list of slice
        Of the flat arrays.
    """

    def __init__(self, arrays: Sequence[Array], origin: Array | None = None, size: int | None = None) -> None:
        self._arrays = [array.reshape(-1) for array in arrays]
        self._origin = None if origin is None else origin.reshape(-1)
        self.n_models, self.n_entries = len(arrays), self._arrays[0].size
        step = PIECE if size is None else size
        self.parts = [slice(start, start + step) for start in range(0, self.n_entries, step)]

    def read(self, i: int, part: slice) -> Weights:
        """Return a piece of model i in float64."""
        found: Weights = self._arrays[i][part].astype(np.float64)
        if self._origin is not None:
            found -= self._origin[part]
        return found

    def __call__(self, i: int) -> Iterator[Weights]:
        """Yield all pieces of model i."""
        return (self.read(i, part) for part in self.parts)


def in_pieces(begin: Callable[..., Step], arrays: Sequence[Array], weights: Weights | None, **options: Any) -> Array:
    """Merge arrays by a method that is defined piece by piece."""
    pieces = Pieces(arrays)
    step = begin(pieces, weights, **options)
    out = np.empty(pieces.n_entries)
    for part in pieces.parts:
        out[part] = step([pieces.read(i, part) for i in range(pieces.n_models)])
    return out.reshape(arrays[0].shape)


def make_method(method: str | type[MergeMethod]) -> type[MergeMethod]:
    """Return a merge method from its registered name, or as it is."""
    from embedrm.merging.methods import MERGE_METHODS

    if isinstance(method, type) and issubclass(method, MergeMethod):
        return method
    return MERGE_METHODS.get(str(method))


def check_weights(weights: ArrayLike | None, n: int, who: str) -> Weights:
    """Return n finite weights, not all zero; equal ones where None.

    Raises
    ------
    InvalidInputError
    """
    if weights is None:
        return np.full(n, 1.0 / n)
    try:
        found = np.asarray(weights, dtype=np.float64)
    except (TypeError, ValueError):
        raise InvalidInputError(f"{who} needs weights to be numbers, got {type(weights).__name__}") from None
    if found.shape != (n,):
        raise InvalidInputError(f"{who} needs {n} weights, one for each model, got shape {found.shape}")
    n_bad = int((~np.isfinite(found)).sum())
    if n_bad:
        raise InvalidInputError(f"{who} needs finite weights, got NaN or infinity for {n_bad} of {n} models")
    if not found.any():
        raise InvalidInputError(f"{who} needs a weight that is not zero, got {n} zeros")
    return found


def check_arrays(arrays: Sequence[ArrayLike], who: str) -> list[Array]:
    """Return the arrays in float64 (float32 ones as they are), all of one shape, or raise."""
    if not len(arrays):
        raise InvalidInputError(f"{who} needs at least one tensor, got an empty list")
    found = [np.asarray(array) for array in arrays]
    for array in found:
        if array.shape != found[0].shape:
            raise InvalidInputError(f"{who} needs tensors of one shape, got {found[0].shape} and {array.shape}")
    return [a if a.dtype in (np.float32, np.float64) else a.astype(np.float64) for a in found]


def check_share(value: Any, name: str, who: str, *, zero: bool = False) -> float:
    """Return a share in (0, 1] (or [0, 1]), or raise."""
    is_number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not is_number or not (0 <= value <= 1) or (value == 0 and not zero):
        raise InvalidInputError(f"{who} needs {name} in {'[' if zero else '('}0, 1], got {value!r}")
    return float(value)


def check_shares(value: Any, n: int, name: str, who: str, *, zero: bool = False) -> list[float]:
    """Return n shares from one for all, or from one for each, or raise."""
    several = isinstance(value, (list, tuple, np.ndarray))
    if several and len(value) != n:
        raise InvalidInputError(f"{who} needs {name} to be one number, or {n}, one for each model; got {len(value)}")
    return [check_share(one, name, who, zero=zero) for one in (value if several else [value] * n)]


def weighted_sum(arrays: Sequence[Array], weights: Weights, total: float | None = None) -> Array:
    r""":math:`\sum_i w_i x_i` in float64, as :math:`W x_m + \sum_i w_i (x_i - x_m)`, where m has the largest weight.

    Written so, copies of one tensor whose weights sum to one give it back to the bit, and so does a weight of one among
    zeros.

    Parameters
    ----------
    arrays : sequence of ndarray
    weights : ndarray of shape (n,)
    total : float, optional
        W, where it is known better than by adding the rounded weights.
    """
    m = int(np.argmax(np.abs(weights)))
    reference = arrays[m].astype(np.float64)
    out = reference * (float(weights.sum()) if total is None else total)
    for i, (array, weight) in enumerate(zip(arrays, weights)):
        if i != m and weight:
            out += weight * (array - reference)
    return out


def merged_sum(arrays: Sequence[Array], weights: Weights, normalize: bool, who: str) -> Array:
    """Weighted sum, divided by the sum of the weights under ``normalize``."""
    if not normalize:
        return weighted_sum(arrays, weights)
    return weighted_sum(arrays, weights / check_sum(weights, who), 1.0)


def check_sum(weights: Weights, who: str) -> float:
    """Return the sum of the weights, or raise where it is too small to divide by."""
    total = float(weights.sum())
    if abs(total) < 1e-8 * float(np.abs(weights).sum()):
        raise InvalidInputError(
            f"{who} divides by the sum of the weights, which is zero; use other weights, or normalize=False"
        )
    return total
