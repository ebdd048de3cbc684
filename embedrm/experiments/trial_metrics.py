"""The figures by which trials are compared: their names, what they are called in a report, and which way is better."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from embedrm.errors import InvalidInputError, unknown_name

if TYPE_CHECKING:
    from embedrm.experiments.experiment_config import Config

METRICS = ("micro", "macro", "log_loss")
"""Of pairs: in every trial."""
SPEARMAN = "spearman"
_GOLD = re.compile(r"best_of_(\d+)")
_TITLES = {"micro": "accuracy", "macro": "macro accuracy", "log_loss": "log loss (nats)", SPEARMAN: "Spearman"}
_COUNTS = ("n_candidates", "n_choice_prompts")


def gold_name(n: int) -> str:
    """Return the name of the gold of the best of n."""
    return f"best_of_{n}"


def title(metric: str) -> str:
    """Return what a metric is called in a report."""
    found = _GOLD.fullmatch(metric)
    return f"gold of the best of {int(found[1]):,} (sd)" if found else _TITLES[metric]


def lower_is_better(metric: str) -> bool:
    """Whether less of a metric is better."""
    return metric == "log_loss"


def chance(metric: str) -> float | None:
    """Return what a random reward has; None where nobody can say."""
    return None if metric == "log_loss" else 0.5 if metric in ("micro", "macro") else 0.0


def recorded(facts: Mapping[str, Any]) -> list[str]:
    """Return the metrics of one split's facts in a record; those that are known."""
    own = [name for name in facts if name == SPEARMAN or _GOLD.fullmatch(name)]
    return [name for name in (*METRICS, *own) if facts.get(name) is not None]


def choice_columns(facts: Mapping[str, Any]) -> list[str]:
    """Return the keys of one split's facts that tell of choices among candidates: metrics, standard errors and counts."""
    return [
        name
        for name in facts
        if name in _COUNTS or name.removesuffix("_se") == SPEARMAN or _GOLD.fullmatch(name.removesuffix("_se"))
    ]


def offered(configs: Iterable[Config]) -> list[str]:
    """Return the metrics that trials of all these configurations have."""
    common: set[int] | None = None
    for config in configs:
        ns = set(config.evaluation.best_of_n or ())
        common = ns if common is None else common & ns
    chosen = sorted(common or ())
    return [*METRICS, *([SPEARMAN] if chosen else []), *(gold_name(n) for n in chosen)]


def check_metric(metric: str, configs: Iterable[Config]) -> str:
    """Return the metric if trials of these configurations have it."""
    known = offered(configs)
    if metric in known:
        return metric
    if metric == SPEARMAN or _GOLD.fullmatch(metric):
        raise InvalidInputError(
            f"the metric {metric!r} is not recorded by these trials (they have {', '.join(known)}); set "
            "evaluation.best_of_n to numbers of candidates, such as [2, 10, 100]"
        )
    raise unknown_name("metric", metric, known)
