"""Merge named tensors by any method: matched by name, never by position, and one at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedrm.errors import InvalidInputError
from embedrm.merging.methods.base import Array, MergeMethod, Pieces, Weights, check_weights, make_method
from embedrm.numerics.digest import array_digest

Tensors = Mapping[str, NDArray[Any]]


def merge_tensors(
    models: Sequence[Tensors],
    weights: ArrayLike | None = None,
    method: str | type[MergeMethod] = "linear",
    *,
    base: Tensors | None = None,
    moments: Sequence[Tensors] | None = None,
    names: Sequence[str] | None = None,
    who: str = "merge_tensors",
    known: Mapping[str, Any] | None = None,
    **options: Any,
) -> dict[str, Array]:
    """Merge models that are mappings of names to arrays; see :func:`iter_merged`, whose tensors it collects.

    Returns
    -------
    dict of str to ndarray
        In the order of the first model's names, in its shapes and types.
    """
    merged = iter_merged(
        models, weights, method, base=base, moments=moments, names=names, who=who, known=known, **options
    )
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
    known: Mapping[str, Any] | None = None,
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
    known : mapping, optional
        What :meth:`embedrm.merging.methods.MergeMethod.survey` found, where these tensors are a part of the models; it is
        asked of these tensors alone where absent. Of models with a weight, in their order.
    **options
        Of the method (:meth:`embedrm.merging.methods.MergeMethod.options`).

    Notes
    -----
    Large tensors are merged in pieces of ``PIECE`` entries: beside the arrays that a mapping returns and the merged one,
    little is in memory.

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
    # a uniform method must see a zero to refuse it
    asked = list(range(len(models))) if w is None or kind.uniform else np.flatnonzero(w).tolist()
    chosen = kind.of_models(options, len(models), asked)
    return _merged(list(models), w, kind, base, moments, names, who, chosen, asked, known)


def _merged(
    models: list[Tensors],
    weights: Weights | None,
    kind: type[MergeMethod],
    base: Tensors | None,
    moments: Sequence[Tensors] | None,
    names: Sequence[str],
    who: str,
    options: dict[str, Any],
    asked: Sequence[int],
    known: Mapping[str, Any] | None,
) -> Iterator[tuple[str, Array]]:
    digests = [array_digest(models[i]) for i in asked] if kind.keyed else []
    w = None if weights is None else weights[list(asked)]
    if known is None:
        known = kind.survey([partial(each_piece, models[i], base, names[i], who) for i in asked], options)
    for tensor in list(models[0]):
        first = np.asarray(models[0][tensor])
        read = {i: first if i == 0 else np.asarray(models[i][tensor]) for i in asked}
        origin = None if base is None else np.asarray(base[tensor])
        told = [(names[i], a) for i, a in read.items()] + ([] if origin is None else [("the base", origin)])
        _check_alike(tensor, first, told, names[0], who)
        arrays = list(read.values())
        if first.dtype.kind in "biu":
            yield tensor, _kept(tensor, arrays, who)
            continue
        extra = {**options, **known}
        if kind.keyed:
            extra["keys"] = [f"{digest}|{tensor}" for digest in digests]
        about = None if moments is None else [np.asarray(moments[i][tensor]) for i in asked]
        for i, m in zip(asked, about or ()):
            if m.shape != first.shape:
                raise InvalidInputError(f"{who}: moments of {tensor!r} must have shape {first.shape}, got {m.shape}")
            # NaN is not at least 0 either
            if m.size and not (m.min() >= 0 and m.max() < np.inf):
                raise InvalidInputError(
                    f"{who}: moments of {tensor!r} of {names[i]} are not all finite and at least 0, as means of squared "
                    "slopes are; estimate them again"
                )
        yield tensor, _one(arrays, w, kind, origin, about, extra, first.dtype)


def each_piece(model: Tensors, base: Tensors | None, name: str, who: str) -> Iterator[Array]:
    """Yield what a model's real tensors are (beyond a base), piece by piece, in float64 and in their order."""
    for tensor in model:
        array = np.asarray(model[tensor])
        origin = None if base is None else np.asarray(base[tensor])
        _check_alike(tensor, array, [(name, array)] + ([] if origin is None else [("the base", origin)]), name, who)
        if array.dtype.kind == "f":
            yield from Pieces([array], origin)(0)


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
    flat, shape = out.reshape(-1), out.shape
    in_parts = kind.elementwise or kind.begin is not None
    pieces = Pieces(arrays, origin, None if in_parts else out.size)
    step = None if kind.begin is None else kind.begin(pieces, weights, **options)
    moments = [m.reshape(-1) for m in moments or ()]
    for part in pieces.parts:
        found = [pieces.read(i, part) for i in range(len(arrays))]
        if step is not None:
            merged = step(found)
        else:
            extra = {**options, "moments": [m[part] for m in moments]} if kind.moments else options
            whole = found if in_parts else [f.reshape(shape) for f in found]
            merged = np.asarray(kind.merge(whole, weights, **extra)).reshape(-1)
        if origin is not None:
            delta = merged
            merged = origin.reshape(-1)[part] + delta
            for array, own in zip(arrays, found):
                merged = np.where(delta == own, array.reshape(-1)[part], merged)
        flat[part] = merged
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
