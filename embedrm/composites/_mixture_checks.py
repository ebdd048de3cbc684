"""What the parameters of a mixture may be."""

from __future__ import annotations

from typing import Any

import numpy as np

from embedrm.errors import InvalidInputError, unknown_name

PROMPT_WEIGHTS = ("pairs", "prompts")
_WHO = "MixtureRewardModel"


def checked_parameters(model: Any) -> tuple[tuple[int, ...] | None, tuple[float, ...]]:
    """Return the hidden widths, None for linear experts, and ``l2_grid``; raise where a parameter is out of its range."""
    for name in ("n_experts", "k"):
        value = getattr(model, name)
        if value is not None and not (is_count(value) and value >= 1):
            raise InvalidInputError(f"{_WHO} needs {name} to be a whole number >= 1 or None, got {value!r}")
    for name in ("l2", "l2_shared"):
        value = getattr(model, name)
        if value is not None and value != "cv" and not _is_size(value):
            raise InvalidInputError(f"{_WHO} needs {name} to be a number >= 0, 'cv' or None, got {value!r}")
    grid: tuple[float, ...] = ()
    if "cv" in (model.l2, model.l2_shared):
        # read once: it may be an iterator
        grid = tuple(model.l2_grid) if np.iterable(model.l2_grid) else (model.l2_grid,)
        if not (grid and np.iterable(model.l2_grid) and all(_is_size(v) for v in grid)):
            raise InvalidInputError(f"{_WHO}(l2='cv') needs l2_grid of numbers >= 0, got {grid!r}")
        if not (is_count(model.cv) and model.cv >= 2):
            raise InvalidInputError(f"{_WHO}(l2='cv') needs cv to be a whole number >= 2, got {model.cv!r}")
    for name in ("gate_l2", "supervision", "balance", "variation", "noise"):
        if not _is_size(getattr(model, name)):
            raise InvalidInputError(f"{_WHO} needs {name} to be a number >= 0, got {getattr(model, name)!r}")
    for name in ("tol", "learning_rate"):
        if not (_is_size(getattr(model, name)) and getattr(model, name) > 0):
            raise InvalidInputError(f"{_WHO} needs {name} > 0, got {getattr(model, name)!r}")
    for name in ("max_iter", "batch_rows", "max_epochs", "patience"):
        if not (is_count(getattr(model, name)) and getattr(model, name) >= 1):
            raise InvalidInputError(f"{_WHO} needs {name} to be a whole number >= 1, got {getattr(model, name)!r}")
    if not (is_count(model.random_state) and model.random_state >= 0):
        raise InvalidInputError(f"{_WHO} needs random_state to be a whole number >= 0, got {model.random_state!r}")
    if not (_is_size(model.expert_dropout) and model.expert_dropout < 1):
        raise InvalidInputError(f"{_WHO} needs expert_dropout in [0, 1), got {model.expert_dropout!r}")
    if not (_is_size(model.validation_fraction) and 0 < model.validation_fraction < 1):
        raise InvalidInputError(f"{_WHO} needs validation_fraction in (0, 1), got {model.validation_fraction!r}")
    if model.prompt_weight not in PROMPT_WEIGHTS:
        raise unknown_name("prompt_weight of MixtureRewardModel", model.prompt_weight, PROMPT_WEIGHTS)
    if model.hidden is None:
        return None, grid
    hidden = tuple(model.hidden) if np.iterable(model.hidden) else (model.hidden,)
    if not hidden or not all(is_count(width) and width >= 1 for width in hidden):
        raise InvalidInputError(f"{_WHO} needs hidden to be widths of at least 1, or None, got {model.hidden!r}")
    return hidden, grid


def is_count(value: object) -> bool:
    """Whether it is a whole number and no truth value."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _is_size(value: object) -> bool:
    return isinstance(value, (int, float, np.number)) and bool(np.isfinite(value)) and bool(value >= 0)
