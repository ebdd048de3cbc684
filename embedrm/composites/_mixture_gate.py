r"""The gate of a mixture: sparse softmax on prompts, its slopes, its balance losses, and where it starts.

A gate has one row a prompt and one column an expert. Weights :math:`\pi` of the prompts sum to one; sums over prompts are
weighted by them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, softmax

from embedrm.composites._mixture_solver import Metric, minimise
from embedrm.preferences import Rows

Array = NDArray[np.float64]

# Directions of the prompts in which clusters are looked for.
_CLUSTER_DIM = 32


def kept_logits(logits: Array, k: int, dropped: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
    """Mask of the k largest logits of each row, the first of equal ones; a dropped expert is kept only if all are."""
    usable = logits
    if dropped is not None and dropped.any():
        usable = np.where(dropped & ~dropped.all(axis=1, keepdims=True), -np.inf, logits)
    if k >= logits.shape[1]:
        return usable > -np.inf
    order = np.argsort(-usable, axis=1, kind="stable")[:, :k]
    mask = np.zeros(logits.shape, dtype=bool)
    np.put_along_axis(mask, order, True, axis=1)
    return mask & (usable > -np.inf)


def sparse_softmax(logits: Array, k: int, dropped: NDArray[np.bool_] | None = None) -> Array:
    """Softmax over the kept logits, zero elsewhere; shape of ``logits``."""
    if k >= logits.shape[1] and dropped is None:
        dense: Array = softmax(logits, axis=1)
        return dense
    kept: Array = softmax(np.where(kept_logits(logits, k, dropped), logits, -np.inf), axis=1)
    return kept


def softmax_slope(gate: Array, slope: Array) -> Array:
    """Slope in the logits from the slope in the gate; zero where the gate is."""
    back: Array = gate * (slope - (gate * slope).sum(axis=1, keepdims=True))
    return back


def switch_balance(logits: Array, weight: Array) -> tuple[float, Array]:
    r"""Return :math:`n \sum_i f_i P_i` and its slope in the logits, which goes through P alone.

    f is the share of prompts whose largest logit is i, P the mean probability before any is left out (Fedus, Zoph and
    Shazeer 2022, "Switch Transformers", equation 4). 1 where both are even; n where all prompts go to one expert.
    """
    n = logits.shape[1]
    p = softmax(logits, axis=1)
    share = np.bincount(logits.argmax(axis=1), weights=weight, minlength=n)
    value = n * float(share @ (weight @ p))
    return value, softmax_slope(p, n * weight[:, None] * share)


def squared_variation(total: Array) -> tuple[float, Array]:
    """Squared coefficient of variation of the experts' totals (n,), and its slope."""
    mean, variance = float(total.mean()), float(total.var())
    value = variance / mean**2
    return value, 2.0 * (total - mean) / (len(total) * mean**2) - 2.0 * variance / (len(total) * mean**3)


def importance_balance(gate: Array, weight: Array) -> tuple[float, Array]:
    """Squared variation of the importance, the experts' weighted sums of the gate; and its slope in the logits."""
    value, slope = squared_variation(weight @ gate)
    return value, softmax_slope(gate, weight[:, None] * slope)


def load_balance(logits: Array, noisy: Array, noise: float, k: int, weight: Array) -> tuple[float, Array]:
    r"""Squared variation of the smooth load, and its slope in the logits.

    The load of expert i is the weighted sum of the probabilities that another draw of its own noise would keep it,
    :math:`\Phi((a_i - t_i) / \sigma)`, with :math:`t_i` the k-th largest noisy logit of the others (Shazeer et al. 2017,
    "Outrageously large neural networks", appendix A).
    """
    n = logits.shape[1]
    if k >= n:
        return 0.0, np.zeros_like(logits)
    order = np.argsort(-noisy, axis=1, kind="stable")
    rows = np.arange(len(logits))
    inside = np.zeros(logits.shape, dtype=bool)
    np.put_along_axis(inside, order[:, :k], True, axis=1)
    # the k-th among the others is the (k+1)-th of all for an expert that is inside
    holder = np.where(inside, order[:, [k]], order[:, [k - 1]])
    z = (logits - np.take_along_axis(noisy, holder, axis=1)) / noise
    value, slope = squared_variation(weight @ ndtr(z))
    back = weight[:, None] * slope * np.exp(-0.5 * z * z) / (np.sqrt(2.0 * np.pi) * noise)
    out = back.copy()
    np.subtract.at(out, (rows[:, None], holder), back)
    return value, out


def label_loss(logits: Array, codes: Rows, expert_label: Rows, weight: Array) -> tuple[float, Array]:
    """Weighted mean of ``-log P(label)`` and its slope in the logits; a label's probability is that of all its experts."""
    p = softmax(logits, axis=1)
    own = np.where(expert_label[None, :] == codes[:, None], p, 0.0)
    total = np.maximum(own.sum(axis=1), 1e-300)
    return -float(weight @ np.log(total)), weight[:, None] * (p - own / total[:, None])


@dataclass(frozen=True)
class Start:
    """First gate: ``weights`` (dim, n_experts) and ``bias`` (n_experts,)."""

    weights: Array
    bias: Array


def logistic_start(
    z: NDArray[Any],
    codes: Rows,
    expert_label: Rows,
    weight: Array,
    l2: float,
    whiten: Callable[[Array], Array],
    random_state: int,
) -> Start:
    """Softmax regression of labels on prompts, from which joint training begins.

    Drawn from ``random_state`` are only the first weights of experts that share a label with others.
    """
    n = len(expert_label)
    dim = z.shape[1]
    # experts of one label begin apart, or they would stay alike
    twins = np.array([int((expert_label[:e] == expert_label[e]).sum()) for e in range(n)])
    first = np.zeros((dim + 1, n))
    if twins.any():
        rng = np.random.default_rng([random_state, 5])
        first[:dim] = 0.5 * rng.normal(size=(dim, n)) * (expert_label[:, None] == expert_label).sum(axis=1).clip(0, 2)
        first[:dim] /= np.sqrt(dim)
        first[:dim, np.bincount(expert_label)[expert_label] == 1] = 0.0

    def value_and_slope(x: Array) -> tuple[float, Array]:
        w = x.reshape(dim + 1, n)
        logits = (z @ w[:dim].astype(z.dtype)).astype(np.float64) + w[dim]
        value, slope = label_loss(logits, codes, expert_label, weight)
        out = np.empty_like(w)
        out[:dim] = z.T @ slope.astype(z.dtype)
        out[:dim] += l2 * w[:dim]
        out[dim] = slope.sum(axis=0)
        return value + 0.5 * l2 * float((w[:dim] ** 2).sum()), out.ravel()

    def precondition(x: Array) -> Array:
        w = x.reshape(dim + 1, n)
        return np.concatenate([whiten(w[:dim]), 4.0 * w[dim:]]).ravel()

    found = minimise(value_and_slope, first.ravel(), precondition, tol=1e-4, max_iter=30).x.reshape(dim + 1, n)
    return Start(found[:dim], found[dim])


def clusters(z: NDArray[Any], weight: Array, n: int, random_state: int) -> Rows:
    """Number each prompt by its cluster, at most n of them, in its leading directions; the order of rows does not matter."""
    from sklearn.cluster import KMeans

    if z.shape[1] > _CLUSTER_DIM:
        weighted = z * np.sqrt(weight * len(z)).astype(z.dtype)[:, None]
        z = z @ Metric.of(weighted, 1.0).directions[:, -_CLUSTER_DIM:].astype(z.dtype)
    rng = np.random.default_rng([random_state, 7])
    order = np.argsort(z.astype(np.float64) @ rng.normal(size=z.shape[1]), kind="stable")
    distinct = len(np.unique(z, axis=0)) if len(z) <= n else n
    model = KMeans(n_clusters=min(n, distinct), n_init=4, random_state=random_state)
    codes = np.empty(len(z), dtype=np.intp)
    codes[order] = model.fit(z[order], sample_weight=np.maximum(weight[order], 1e-12 / len(z))).labels_
    return codes
