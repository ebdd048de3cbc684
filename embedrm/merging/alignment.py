"""Permutation alignment: match the hidden units of one perceptron to those of another before they are merged."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from embedrm.errors import InvalidInputError

Tensors = Mapping[str, NDArray[Any]]
_MOST_ROUNDS = 100


def align(reference: Tensors, other: Tensors) -> tuple[dict[str, NDArray[Any]], list[NDArray[np.intp]]]:
    r"""Permute the hidden units of ``other`` so that its weights meet those of ``reference``; the function stays the same.

    Weight matching: permutations :math:`P_l` that maximise
    :math:`\sum_l \langle W^A_l, P_l W^B_l P_{l-1}^T \rangle + \langle b^A_l, P_l b^B_l \rangle`, by coordinate ascent: one
    hidden layer at a time, given its neighbours, is a linear assignment problem. Layers are visited in order until none
    changes. That is a local optimum; for one hidden layer it is the optimum.

    Parameters
    ----------
    reference, other : mapping of str to ndarray
        Of the names of :meth:`embedrm.MLPHead.named_weights`, and of equal shapes. Without ``reward.weight``, trunks alone
        are matched.

    Returns
    -------
    aligned : dict of str to ndarray
    permutations : list of ndarray
        For each hidden layer, which unit of ``other`` takes the place of each unit.

    References
    ----------
    Ainsworth, Hayase and Srinivasa (2023), "Git Re-Basin: Merging models modulo permutation symmetries", section 3.2 and
    algorithm 1.
    """
    n_layers = sum(name.startswith("hidden.") and name.endswith(".weight") for name in reference)
    if not n_layers or set(reference) != set(other):
        raise InvalidInputError("align needs two perceptrons with the same hidden layers")
    order = [np.arange(reference[f"hidden.{layer}.bias"].shape[0]) for layer in range(n_layers)]
    for _ in range(_MOST_ROUNDS):
        changed = False
        for layer in range(n_layers):
            gain = _gain(reference, other, order, layer)
            rows, columns = linear_sum_assignment(gain, maximize=True)
            # an assignment that is merely as good must not make it go round in circles
            better = gain[rows, columns].sum() > gain[rows, order[layer]].sum() * (1 + 1e-12) + 1e-12
            if better and not np.array_equal(columns, order[layer]):
                order[layer], changed = columns, True
        if not changed:
            break
    return _permuted(other, order), order


def _gain(a: Tensors, b: Tensors, order: list[NDArray[np.intp]], layer: int) -> NDArray[np.float64]:
    """How well unit i of A and unit j of B agree, (n_units, n_units), given the neighbouring layers' order."""
    name, after = f"hidden.{layer}", f"hidden.{layer + 1}"
    own, theirs = a[f"{name}.weight"].astype(np.float64), b[f"{name}.weight"].astype(np.float64)
    if layer:
        theirs = theirs[order[layer - 1]]
    gain = own.T @ theirs + np.outer(a[f"{name}.bias"], b[f"{name}.bias"]).astype(np.float64)
    last = layer + 1 == len(order)
    key = "reward.weight" if last else f"{after}.weight"
    if key in a:
        following = b[key].astype(np.float64)
        gain += a[key].astype(np.float64) @ (following if last else following[:, order[layer + 1]]).T
    return np.asarray(gain)


def _permuted(tensors: Tensors, order: list[NDArray[np.intp]]) -> dict[str, NDArray[Any]]:
    out = {name: np.asarray(array) for name, array in tensors.items()}
    for layer, units in enumerate(order):
        name = f"hidden.{layer}"
        out[f"{name}.weight"] = out[f"{name}.weight"][:, units]
        out[f"{name}.bias"] = out[f"{name}.bias"][units]
        key = "reward.weight" if layer + 1 == len(order) else f"hidden.{layer + 1}.weight"
        if key in out:
            out[key] = out[key][units]
    return {name: np.ascontiguousarray(array) for name, array in out.items()}
