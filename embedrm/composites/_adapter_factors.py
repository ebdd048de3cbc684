r"""Low-rank adapters on a frozen perceptron: forward, backward, merging.

An adapter is a mapping of names to arrays: ``A0`` (n_in, r) and ``B0`` (r, n_out) for the first weight matrix, and so on;
``bias0`` (n_out,) added to the first biases; ``head`` (n_in, n_out) added to the last matrix as it is, without factors.
With B and all that is added at zero, the network is its trunk.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.floating[Any]]
Adapter = dict[str, Array]


@dataclass(frozen=True)
class Trunk:
    """Frozen weights (n_in, n_out) and biases (n_out,), layer by layer; rectifiers between them."""

    weights: Sequence[Array]
    biases: Sequence[Array]

    @property
    def last(self) -> int:
        """Index of the last layer."""
        return len(self.weights) - 1

    def classifier(self, n_classes: int, rows: NDArray[np.intp]) -> Trunk:
        """Return the trunk reading some of its inputs, its last layer replaced by one of zeros with an output a class."""
        width, dtype = len(self.weights[-1]), self.weights[-1].dtype
        return Trunk(
            [self.weights[0][rows], *self.weights[1:-1], np.zeros((width, n_classes), dtype)],
            [*self.biases[:-1], np.zeros(n_classes, dtype)],
        )


@dataclass(frozen=True)
class Plan:
    """What of a trunk is adapted.

    Parameters
    ----------
    layers : tuple of int
        Weight matrices with low-rank factors.
    rank : int
        Columns of A; at most the smaller side of a matrix are made, which reach any matrix of its shape.
    scale : float
        alpha / rank.
    biases : bool
        Whether the biases of the hidden layers are moved.
    head : bool
        Whether the last matrix gets an addition of its own; its bias too where it is a classifier's.
    """

    layers: tuple[int, ...]
    rank: int
    scale: float
    biases: bool
    head: bool

    def new(self, trunk: Trunk, rng: np.random.Generator) -> Adapter:
        """Draw A uniformly in +-1 / sqrt(n_in), all else zero: the trunk, whatever was drawn."""
        adapter: Adapter = {}
        for layer, w in enumerate(trunk.weights):
            n_in, n_out = w.shape
            if layer in self.layers:
                rank, limit = min(self.rank, n_in, n_out), 1 / np.sqrt(n_in)
                adapter[f"A{layer}"] = rng.uniform(-limit, limit, size=(n_in, rank)).astype(w.dtype)
                adapter[f"B{layer}"] = np.zeros((rank, n_out), w.dtype)
            # a constant added to every reward cancels in the margins; one added to a class does not
            if self.biases if layer < trunk.last else self.head and n_out > 1:
                adapter[f"bias{layer}"] = np.zeros(n_out, w.dtype)
        if self.head:
            adapter["head"] = np.zeros_like(trunk.weights[-1])
        return adapter


def flat_views(adapter: Mapping[str, Array]) -> tuple[Array, Array, Adapter]:
    """Copy an adapter into one vector of weights and one of biases; returns both and the adapter as views on them."""
    dtype = next(iter(adapter.values())).dtype if adapter else np.dtype(np.float32)
    vectors: list[Array] = []
    views: Adapter = {}
    for biases in (False, True):
        names = [name for name in adapter if name.startswith("bias") == biases]
        vectors.append(np.concatenate([np.zeros(0, dtype), *(adapter[name].ravel() for name in names)]))
        start = 0
        for name in names:
            end = start + adapter[name].size
            views[name] = vectors[-1][start:end].reshape(adapter[name].shape)
            start = end
    return vectors[0], vectors[1], views


def weight_of(trunk: Trunk, adapter: Adapter, scale: float, layer: int) -> Array:
    """Return W' = W + scale A B, plus the head's own addition; a new array unless nothing is added."""
    w = trunk.weights[layer]
    if f"A{layer}" in adapter:
        w = w + scale * (adapter[f"A{layer}"] @ adapter[f"B{layer}"])
    if layer == trunk.last and "head" in adapter:
        w = w + adapter["head"]
    return w


def merge(trunk: Trunk, adapter: Adapter, scale: float) -> tuple[list[Array], list[Array]]:
    """Weights and biases with the adapter in them; always made from the trunk, so nothing of another adapter is left."""
    weights = [weight_of(trunk, adapter, scale, layer).copy() for layer in range(len(trunk.weights))]
    biases: list[Array] = [b + adapter.get(f"bias{layer}", np.zeros_like(b)) for layer, b in enumerate(trunk.biases)]
    return weights, biases


def first_product(trunk: Trunk, x: Array) -> Array:
    """Return x W + b of the first layer, which all adapters share; shape (n, n_out)."""
    product: Array = x @ trunk.weights[0]
    product += trunk.biases[0]
    return product


@dataclass
class Pass:
    """A forward pass: ``outputs`` (n, n_out), and of every layer its ``inputs`` and the ``weights`` it was given."""

    outputs: Array
    inputs: list[Array]
    weights: list[Array]


def forward(trunk: Trunk, adapter: Adapter, scale: float, x: Array, first: Array) -> Pass:
    """Run inputs through the trunk with an adapter on it.

    The first layer is applied as x W + scale (x A) B, since x W (``first``) is the same under every adapter and its matrix
    is the large one; further layers are merged, which costs no more than a batch of a few rows.

    Parameters
    ----------
    x : ndarray of shape (n, n_in)
        Read only where the first matrix is adapted.
    first : ndarray of shape (n, n_out)
        :func:`first_product` of x.
    """
    inputs, weights = [x], [trunk.weights[0]]
    h = first
    if "A0" in adapter:
        h = h + scale * ((x @ adapter["A0"]) @ adapter["B0"])
    if "bias0" in adapter:
        h = h + adapter["bias0"]
    for layer in range(1, len(trunk.weights)):
        h = np.maximum(h, 0)
        inputs.append(h)
        weights.append(weight_of(trunk, adapter, scale, layer))
        h = h @ weights[layer]
        h += trunk.biases[layer] + adapter.get(f"bias{layer}", 0)
    return Pass(h, inputs, weights)


def backward(done: Pass, adapter: Adapter, scale: float, slope: Array, gradient: Adapter) -> None:
    """Write the gradient of ``sum(slope * outputs)`` in every array of the adapter into those of ``gradient``."""
    delta = slope
    for layer in range(len(done.inputs) - 1, -1, -1):
        u = done.inputs[layer]
        if f"A{layer}" in adapter:
            a, b = adapter[f"A{layer}"], adapter[f"B{layer}"]
            gradient[f"A{layer}"][...] = scale * (u.T @ (delta @ b.T))
            gradient[f"B{layer}"][...] = scale * ((u @ a).T @ delta)
        if f"bias{layer}" in adapter:
            gradient[f"bias{layer}"][...] = delta.sum(axis=0)
        if layer == len(done.inputs) - 1 and "head" in adapter:
            gradient["head"][...] = u.T @ delta
        if layer:
            delta = delta @ done.weights[layer].T
            delta *= u > 0


def n_parameters(adapter: Mapping[str, Array]) -> int:
    """Numbers in an adapter."""
    return sum(a.size for a in adapter.values())
