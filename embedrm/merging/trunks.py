"""Train a perceptron's trunk on what is no preference: classes, vectors or its own noisy input."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_softmax
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from embedrm.errors import InvalidInputError
from embedrm.featurizers.rows import FeatureRows
from embedrm.heads._network import Adam, Network
from embedrm.heads.mlp import MLPHead
from embedrm.numerics.digest import array_digest
from embedrm.numerics.folds import hold_out
from embedrm.preferences import EmbeddedPreferences, EmbeddedResponses, Rows

Array32 = NDArray[np.float32]
DENOISE = "denoise"


def train_trunk(
    start: MLPHead,
    x: EmbeddedPreferences | EmbeddedResponses,
    target: ArrayLike | str,
    *,
    noise: float = 0.3,
    learning_rate: float = 1e-3,
    l2: float = 1e-3,
    batch_rows: int = 256,
    max_epochs: int = 100,
    validation_fraction: float = 0.1,
    patience: int = 8,
    random_state: int = 0,
) -> MLPHead:
    r"""Move the hidden layers of a start by a task without preferences: the domain model of DogeRM, on frozen vectors.

    On the last hidden layer stands a new linear layer for the task, trained with the trunk by Adam and dropped afterwards,
    as the language-model head is in the paper. The **reward layer is the start's, untouched**: the result is for merging
    with ``layers="trunk"``, and its own rewards are those of a reward layer on a trunk that it was never trained with.

    Parameters
    ----------
    start : MLPHead
        Fitted or initialised (:meth:`MLPHead.initialise`); the general reward model is to be forked from the same one.
    x : EmbeddedPreferences or EmbeddedResponses
        Domain data; of preferences, their active responses. Which response of a pair was chosen is not read.
    target : array-like or "denoise"
        For each response of ``x`` (all of them, active or not): strings or whole numbers (n_responses,), which are
        classified by softmax cross-entropy; real numbers (n_responses,) or (n_responses, k), regressed by half the mean
        squared error of standardised columns; or ``"denoise"``: the response's own features from features with Gaussian
        noise added.
    noise : float
        Standard deviation of that noise, in units of the features' own (over all columns).
    learning_rate, l2, batch_rows, max_epochs, patience
        As in :class:`embedrm.MLPHead`; ``l2`` multiplies half the squared norm of all trained weights.
    validation_fraction : float in (0, 1)
        Share of the prompt groups by whose loss training is stopped and the best epoch kept.
    random_state : int

    Returns
    -------
    MLPHead
        With the start's parameters and featurizer; ``init_`` is the digest of the start's weights, ``trunk_task_`` says what
        it was trained on, ``n_epochs_``, ``train_losses_`` and ``validation_losses_`` are those of the task.

    References
    ----------
    Lin et al. (2024), "DogeRM", section 3: an analogue, see :func:`embedrm.merge_heads`.
    """
    who = "train_trunk"
    if not isinstance(start, MLPHead):
        raise InvalidInputError(f"{who} needs start to be an MLPHead, got {type(start).__name__}")
    check_is_fitted(start, "weights_")
    if not isinstance(x, (EmbeddedPreferences, EmbeddedResponses)):
        raise InvalidInputError(f"{who} needs EmbeddedPreferences or EmbeddedResponses, got {type(x).__name__}")
    for name, value, least in (("noise", noise, 0.0), ("l2", l2, 0.0), ("learning_rate", learning_rate, 1e-12)):
        if not (np.isfinite(value) and value >= least):
            raise InvalidInputError(f"{who} needs {name} to be a number of at least {least:g}, got {value!r}")
    for name, count in (("batch_rows", batch_rows), ("max_epochs", max_epochs), ("patience", patience)):
        if isinstance(count, bool) or not isinstance(count, (int, np.integer)) or count < 1:
            raise InvalidInputError(f"{who} needs {name} to be a whole number >= 1, got {count!r}")
    responses = x.responses if isinstance(x, EmbeddedPreferences) else x
    rows = x.active if isinstance(x, EmbeddedPreferences) else np.arange(len(x))
    start.featurizer_.check(responses, who)
    features = FeatureRows(start.featurizer_, responses, rows)
    task = _Task.of(target, responses.n_responses, rows, features, noise, who)
    groups = responses.group[responses.prompt_of[rows]]
    inside, outside = hold_out(groups, validation_fraction, random_state, who, "more prompts")
    rng = np.random.default_rng(random_state)
    last = Network.new((len(start.biases_[-2]), task.n_out), [rng])
    hidden = [(w[None].copy(), b[None].copy()) for w, b in zip(start.weights_[:-1], start.biases_[:-1])]
    network = Network([w for w, _ in hidden] + last.weights, [b for _, b in hidden] + last.biases)
    adam = Adam(network, learning_rate, 0.0, l2)
    best, best_loss, best_epoch = network.copy(), np.inf, 0
    train_losses, losses = [], []
    for epoch in range(1, max_epochs + 1):
        total = 0.0
        order = rng.permutation(inside)
        for positions in np.array_split(order, max(1, round(len(order) / batch_rows))):
            value, gradient = _step(network, task, positions, rng)
            total += value * len(positions)
            adam.step(gradient)
        if not np.isfinite(total):
            raise InvalidInputError(
                f"{who} met a loss that is not finite in epoch {epoch}; look for NaN or infinity in the vectors and the "
                "target, or lower learning_rate"
            )
        train_losses.append(total / len(inside))
        # the same noise in every epoch, so that epochs can be compared
        losses.append(_value(network, task, outside, np.random.default_rng([random_state, 1])))
        if losses[-1] < best_loss:
            best, best_loss, best_epoch = network.copy(), losses[-1], epoch
        elif epoch - best_epoch >= patience:
            break
    model: MLPHead = clone(start)
    model.featurizer_, model.n_features_in_ = start.featurizer_, start.n_features_in_
    model.weights_ = [*(w[0] for w in best.weights[:-1]), start.weights_[-1].copy()]
    model.biases_ = [*(b[0] for b in best.biases[:-1]), start.biases_[-1].copy()]
    model.n_epochs_, model.init_ = best_epoch, array_digest(start.named_weights())
    model.train_losses_, model.validation_losses_ = np.array(train_losses), np.array(losses)
    model.trunk_task_ = task.name
    return model


class _Task:
    """Inputs, targets and the loss of one task, by position among the rows."""

    def __init__(self, name: str, features: FeatureRows, goal: Any, n_out: int, noise: float | None) -> None:
        self.name, self.features, self.goal, self.n_out, self.noise = name, features, goal, n_out, noise

    @classmethod
    def of(cls, target: Any, n: int, rows: Rows, features: FeatureRows, noise: float, who: str) -> _Task:
        if isinstance(target, str):
            if target != DENOISE:
                raise InvalidInputError(f"{who} needs target to be an array or {DENOISE!r}, got {target!r}")
            squares = sum(float(np.square(block, dtype=np.float64).sum()) for _, block in features.blocks())
            spread = np.sqrt(squares / (len(features) * features.dim))
            return cls("denoising", features, None, features.dim, noise * spread)
        values = np.asarray(target)
        if values.ndim not in (1, 2) or len(values) != n:
            raise InvalidInputError(
                f"{who} needs a target of shape ({n},) or ({n}, k), a row for each response, got {values.shape}"
            )
        values = values[rows]
        if values.ndim == 1 and values.dtype.kind in "USbiu":
            classes, codes = np.unique(values, return_inverse=True)
            if len(classes) < 2:
                raise InvalidInputError(f"{who} needs at least two classes among the responses, got {len(classes)}")
            return cls(f"classification of {len(classes)} classes", features, codes, len(classes), None)
        if values.dtype.kind not in "fiu":
            raise InvalidInputError(f"{who} needs a target of strings or numbers, got {values.dtype}")
        values = values.reshape(len(values), -1).astype(np.float64)
        if not np.isfinite(values).all():
            n_bad = int((~np.isfinite(values).all(axis=1)).sum())
            raise InvalidInputError(
                f"{who} needs finite targets, got NaN or infinity for {n_bad} of {len(values)} responses"
            )
        spread = values.std(axis=0)
        goal = (values - values.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
        return cls(f"regression of {goal.shape[1]} numbers", features, goal, goal.shape[1], None)

    def inputs(self, positions: Rows, rng: np.random.Generator) -> tuple[Array32, Any]:
        """Return the network's input and its goal."""
        x: Array32 = self.features.take(positions)
        if self.noise is None:
            return x, self.goal[positions]
        drawn = rng.normal(scale=self.noise, size=x.shape)
        return (x + drawn).astype(np.float32), x

    def loss(self, outputs: Array32, goal: Any) -> tuple[float, NDArray[np.float64]]:
        """Mean loss, and its slope by the outputs."""
        n = len(outputs)
        if goal.ndim == 1:
            log_p = log_softmax(outputs.astype(np.float64), axis=1)
            slope = np.exp(log_p)
            slope[np.arange(n), goal] -= 1.0
            return -float(log_p[np.arange(n), goal].mean()), slope / n
        gap = outputs.astype(np.float64) - goal
        return 0.5 * float((gap**2).mean()), gap / gap.size


def _forward(network: Network, x: Array32) -> list[Array32]:
    """Inputs of every layer, and the outputs."""
    out = [x]
    for layer, (w, b) in enumerate(zip(network.weights, network.biases)):
        h = out[-1] @ w[0] + b[0]
        out.append(np.maximum(h, 0.0) if layer + 1 < len(network.weights) else h)
    return out


def _step(network: Network, task: _Task, positions: Rows, rng: np.random.Generator) -> tuple[float, Network]:
    """Return the batch's mean loss and its gradient."""
    x, goal = task.inputs(positions, rng)
    held = _forward(network, x)
    value, slope = task.loss(held[-1], goal)
    delta = slope.astype(np.float32)
    weights: list[Array32] = []
    biases: list[Array32] = []
    for layer in range(len(network.weights) - 1, -1, -1):
        weights.insert(0, (held[layer].T @ delta)[None])
        biases.insert(0, delta.sum(axis=0)[None])
        if layer:
            delta = (delta @ network.weights[layer][0].T) * (held[layer] > 0)
    return value, Network(weights, biases)


def _value(network: Network, task: _Task, positions: Rows, rng: np.random.Generator) -> float:
    total = 0.0
    for part in np.array_split(positions, max(1, len(positions) // 4096)):
        x, goal = task.inputs(part, rng)
        total += task.loss(_forward(network, x)[-1], goal)[0] * len(part)
    return total / len(positions)
