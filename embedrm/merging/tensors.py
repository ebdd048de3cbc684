"""Merge named tensors by any method: matched by name, never by position, and one at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedrm.errors import InvalidInputError
from embedrm.merging.methods.base import Array, MergeMethod, Weights, check_weights, make_method
from embedrm.numerics.digest import array_digest

Tensors = Mapping[str, NDArray[Any]]

# Entries that an elementwise method merges at a time: what it allocates stays small beside the tensors.
_PIECE = 1 << 20


def merge_tensors(
    models: Sequence[Tensors],
    weights: ArrayLike | None = None,
    method: str | type[MergeMethod] = "linear",
    *,
    base: Tensors | None = None,
    moments: Sequence[Tensors] | None = None,
    names: Sequence[str] | None = None,
    who: str = "merge_tensors",
    **options: Any,
) -> dict[str, Array]:
    """Merge models that are mappings of names to arrays; see :func:`iter_merged`, whose tensors it collects.

    Returns
    -------
    dict of str to ndarray
        In the order of the first model's names, in its shapes and types.
    """
    merged = iter_merged(models, weights, method, base=base, moments=moments, names=names, who=who, **options)
    return dict(merged)


def iter_merged(
    models: Sequence[Tensors],
    weights: ArrayLike | None = None,
    method: str | type[MergeMethod] = "linear",
    *,
    base: Tensors | None = None,
    moments: Sequence[Tensors] | None = None,
    names: Sequence[str] | None = None,
    who: str = "iter_merged",
    **options: Any,
) -> Iterator[tuple[str, Array]]:
    """Yield (name, merged tensor), one at a time, so that only one tensor of each model need be in memory.

    Parameters
    ----------
    models : sequence of mappings of str to ndarray
        Each with the same names, shapes and types. A mapping may read an array from disk when it is asked for. Arithmetic
        is in float64; what is yielded has the type of the models' tensors. Integer and boolean tensors must be equal in
        all models, and are kept.
    weights : array-like of shape (n_models,), optional
    method : str or MergeMethod
        A name of :data:`embedrm.merging.MERGE_METHODS`.
    base : mapping of str to ndarray, optional
        The model that all came from; needed by methods on deltas, refused by others.
    moments : sequence of mappings, optional
        For Fisher-weighted merging.
    names : sequence of str, optional
        What to call the models in errors.
    who : str
        Who asks, for errors.
    **options
        Of the method (:meth:`embedrm.merging.methods.MergeMethod.options`).

    Notes
    -----
    A model of weight zero is not read at all. Where one entry of the merged delta is exactly one model's delta, the entry
    is exactly that model's: in real arithmetic base + (x - base) is x.

    Raises
    ------
    InvalidInputError
        Where names, shapes or types differ (all differing names are told), numbers are not finite, or an option is wrong.
        Everything but the numbers is checked before the first tensor is yielded.
    """
    kind = make_method(method)
    options = kind.check_options(options)
    if not len(models):
        raise InvalidInputError(f"{who} needs at least one model, got an empty list")
    names = [f"model {i + 1}" for i in range(len(models))] if names is None else list(names)
    t = options.get("t")
    w = None if t is not None and weights is None else check_weights(weights, len(models), who)
    if (kind.on == "deltas") != (base is not None):
        raise InvalidInputError(
            f"{who} needs base, the model that all came from, since the method {kind.registered_name!r} merges deltas"
            if base is None
            else f"{who} got a base, which the method {kind.registered_name!r} has no use for: it merges whole tensors; "
            "leave base out, or take a method on deltas"
        )
    if kind.moments != (moments is not None) or (moments is not None and len(moments) != len(models)):
        raise InvalidInputError(
            f"{who} needs moments, one mapping for each of {len(models)} models, for the method {kind.registered_name!r}"
            if kind.moments
            else f"{who} got moments, which the method {kind.registered_name!r} has no use for; leave them out"
        )
    others = [*zip(names[1:], models[1:])]
    others += [] if base is None else [("the base", base)]
    others += [(f"the moments of {n}", m) for n, m in zip(names, moments or ())]
    for name, other in others:
        check_same_names(models[0], other, names[0], name, who)
    return _merged(list(models), w, kind, base, moments, names, who, options)


def _merged(
    models: list[Tensors],
    weights: Weights | None,
    kind: type[MergeMethod],
    base: Tensors | None,
    moments: Sequence[Tensors] | None,
    names: Sequence[str],
    who: str,
    options: dict[str, Any],
) -> Iterator[tuple[str, Array]]:
    order = list(models[0])
    asked = list(range(len(models)))
    # a uniform method must see a zero to refuse it
    if weights is not None and not kind.uniform:
        asked = np.flatnonzero(weights).tolist()
    digests = [array_digest(models[i]) for i in asked] if kind.keyed else []
    w = None if weights is None else weights[asked]
    for tensor in order:
        first = np.asarray(models[0][tensor])
        read = {i: first if i == 0 else np.asarray(models[i][tensor]) for i in asked}
        origin = None if base is None else np.asarray(base[tensor])
        told = [(names[i], a) for i, a in read.items()] + ([] if origin is None else [("the base", origin)])
        _check_alike(tensor, first, told, names[0], who)
        arrays = list(read.values())
        if first.dtype.kind in "biu":
            yield tensor, _kept(tensor, arrays, who)
            continue
        extra = dict(options)
        if kind.keyed:
            extra["keys"] = [f"{digest}|{tensor}" for digest in digests]
        known = None if moments is None else [np.asarray(moments[i][tensor]) for i in asked]
        for m in known or ():
            if m.shape != first.shape:
                raise InvalidInputError(f"{who}: moments of {tensor!r} must have shape {first.shape}, got {m.shape}")
        yield tensor, _one(arrays, w, kind, origin, known, extra, first.dtype)


def _one(
    arrays: list[Array],
    weights: Weights | None,
    kind: type[MergeMethod],
    origin: Array | None,
    moments: list[Array] | None,
    options: dict[str, Any],
    dtype: Any,
) -> Array:
    """Merge one tensor, in pieces where the method allows."""
    out = np.empty(arrays[0].shape, dtype=dtype)
    flat, parts = out.reshape(-1), [slice(None)]
    if kind.elementwise and out.size > _PIECE:
        arrays = [a.reshape(-1) for a in arrays]
        origin = None if origin is None else origin.reshape(-1)
        moments = None if moments is None else [m.reshape(-1) for m in moments]
        parts = [slice(start, start + _PIECE) for start in range(0, out.size, _PIECE)]
    for part in parts:
        whole = len(parts) == 1
        pieces = arrays if whole else [a[part] for a in arrays]
        extra = dict(options)
        if moments is not None:
            extra["moments"] = moments if whole else [m[part] for m in moments]
        if origin is None:
            merged = kind.merge(pieces, weights, **extra)
        else:
            start = (origin if whole else origin[part]).astype(np.float64)
            deltas = [p - start for p in pieces]
            delta = kind.merge(deltas, weights, **extra)
            merged = start + delta
            for piece, own in zip(pieces, deltas):
                merged = np.where(delta == own, piece, merged)
        flat[part] = merged.reshape(-1)
    return out


def check_same_names(one: Tensors, other: Tensors, name: str, other_name: str, who: str) -> None:
    """Raise unless two models have the same tensors, naming those that only one of them has."""
    only = [sorted(set(a) - set(b)) for a, b in ((one, other), (other, one))]
    if any(only):
        told = [f"only {n} has {_some(o)}" for n, o in zip((name, other_name), only) if o]
        raise InvalidInputError(
            f"{who} merges tensors by name and leaves none out, but {' and '.join(told)}; merge models of one architecture"
        )


def _some(names: Sequence[str], most: int = 5) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(repr(n) for n in names[:most]) + rest


def _check_alike(tensor: str, first: Array, told: list[tuple[str, Array]], name: str, who: str) -> None:
    for other, array in told:
        if array.shape != first.shape or array.dtype != first.dtype:
            raise InvalidInputError(
                f"{who} needs {tensor!r} to have one shape and type in all models, got {first.shape} {first.dtype} in "
                f"{name} and {array.shape} {array.dtype} in {other}"
            )
        if array.dtype.kind == "f":
            n_bad = int((~np.isfinite(array)).sum())
            if n_bad:
                raise InvalidInputError(
                    f"{who} met NaN or infinity in {n_bad} of {array.size} numbers of {tensor!r} in {other}; that model is "
                    "damaged or its training diverged"
                )
        elif array.dtype.kind not in "biu":
            raise InvalidInputError(f"{who} cannot merge {tensor!r} of {other}: {array.dtype} holds no real numbers")


def _kept(tensor: str, arrays: list[Array], who: str) -> Array:
    if not all(np.array_equal(array, arrays[0]) for array in arrays):
        raise InvalidInputError(
            f"{who} cannot merge {tensor!r}: it holds whole numbers, which have no mean, and they differ between the models"
        )
    return arrays[0].copy()
