"""Parameters of a model of adapters, checked, in the form in which training takes them."""

from __future__ import annotations

from typing import Any

import numpy as np

from embedrm.composites._adapter_factors import Plan
from embedrm.composites._adapter_training import Schedule
from embedrm.errors import InvalidInputError, unknown_name
from embedrm.routers.base import Router

WHO = "AdapterRewardModel"
LAST_LAYERS = ("own", "adapted", "shared")


def check(model: Any, n_hidden: int, routings: tuple[str, ...]) -> None:
    """Raise unless the model's parameters are sound for a trunk of so many hidden layers."""
    if model.routing not in routings:
        raise unknown_name("routing", model.routing, routings)
    if model.last not in LAST_LAYERS:
        raise unknown_name(f"last layer of {WHO} (last)", model.last, LAST_LAYERS)
    if model.router is not None and not isinstance(model.router, Router):
        raise InvalidInputError(f"{WHO} needs router to be a Router, got {type(model.router).__name__}")
    counts = {"rank": model.rank, "batch_rows": model.batch_rows, "max_epochs": model.max_epochs}
    counts |= {"k": model.k, "patience": model.patience, "router_rank": model.router_rank}
    for name, value in counts.items():
        if not (_whole(value) and value >= 1):
            raise InvalidInputError(f"{WHO} needs {name} to be a whole number >= 1, got {value!r}")
    if model.fallback is not None and not model.fallback and model.router is not None and model.router.can_reject:
        raise InvalidInputError(
            f"{type(model.router).__name__} may reject prompts, and fallback=False leaves nobody to answer for them; leave "
            "fallback out, or take another router"
        )
    positive = {"learning_rate": model.learning_rate} | ({} if model.alpha is None else {"alpha": model.alpha})
    for name, value in positive.items():
        if not (_number(value) and value > 0):
            raise InvalidInputError(f"{WHO} needs {name} to be a number > 0, got {value!r}")
    for name in ("l2", "weight_decay"):
        value = getattr(model, name)
        if not (_number(value) and value >= 0):
            raise InvalidInputError(f"{WHO} needs {name} to be a number >= 0, got {value!r}")
    if not (_number(model.validation_fraction) and 0 < model.validation_fraction < 1):
        raise InvalidInputError(f"{WHO} needs validation_fraction in (0, 1), got {model.validation_fraction!r}")
    if model.layers is not None:
        layers: list[Any] = [None]
        if np.iterable(model.layers) and not isinstance(model.layers, str):
            layers = list(model.layers)
        if not all(_whole(x) and 0 <= x < n_hidden for x in layers) or len(set(layers)) != len(layers):
            raise InvalidInputError(
                f"{WHO} needs layers to be different numbers from 0 to {n_hidden - 1}, the trunk's hidden layers, got "
                f"{model.layers!r}"
            )
        if not layers and model.last == "shared" and not model.adapt_biases:
            raise InvalidInputError(f"{WHO} has nothing to adapt; name layers, or use last='own' or adapt_biases=True")


def plan(model: Any, n_hidden: int) -> Plan:
    """What a reward adapter adapts."""
    layers = tuple(range(n_hidden)) if model.layers is None else tuple(sorted(int(x) for x in model.layers))
    if model.last == "adapted":
        layers = (*layers, n_hidden)
    alpha = model.rank if model.alpha is None else model.alpha
    return Plan(layers, int(model.rank), float(alpha / model.rank), bool(model.adapt_biases), model.last == "own")


def router_plan(model: Any, n_hidden: int) -> Plan:
    """What the router adapter adapts: the same layers, with a softmax layer of its own."""
    alpha = model.router_rank if model.alpha is None else model.alpha
    layers = tuple(layer for layer in plan(model, n_hidden).layers if layer < n_hidden)
    return Plan(layers, int(model.router_rank), float(alpha / model.router_rank), bool(model.adapt_biases), True)


def schedule(model: Any) -> Schedule:
    """How long and how fast."""
    return Schedule(
        float(model.learning_rate),
        float(model.l2),
        float(model.weight_decay),
        int(model.batch_rows),
        int(model.max_epochs),
        int(model.patience) if model.early_stopping else None,
    )


def _whole(value: object) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _number(value: object) -> bool:
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool) and bool(np.isfinite(value))
