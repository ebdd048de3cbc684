"""Whether heads can be merged: plain facts of each, and every difference with what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from sklearn.utils.validation import check_is_fitted

from embedrm.errors import InvalidInputError
from embedrm.heads.linear import LinearHead
from embedrm.heads.mlp import MLPHead
from embedrm.merging.scalers import same_standardiser, standardiser_arrays, why_not_foldable
from embedrm.numerics.digest import array_digest
from embedrm.objectives import make_objective
from embedrm.preferences import EmbeddedPreferences

Head = LinearHead | MLPHead
LAYERS = ("all", "trunk")

# Reward scales this far apart are not those of one kind of model on like data.
MOST_SCALE_RATIO = 1.5


@dataclass(frozen=True)
class Difference:
    """One thing in which two models differ.

    Attributes
    ----------
    what : str
        Such as ``"initialisation"`` or ``"standardiser"``.
    a, b : str
        Names of the models.
    in_a, in_b : str
        What each has; digests for arrays.
    fatal : bool
        Whether merging is refused.
    remedy : str
        What to do.
    """

    what: str
    a: str
    b: str
    in_a: str
    in_b: str
    fatal: bool
    remedy: str

    def __str__(self) -> str:
        """One clause of a message."""
        return f"{self.what} ({self.a}: {self.in_a}; {self.b}: {self.in_b}): {self.remedy}"


@dataclass(frozen=True)
class CompatibilityReport:
    """Facts of several models and their differences from the first.

    Attributes
    ----------
    facts : list of dict
        One a model: ``name, kind, tensors`` (name to shape), ``terms, views, widths, covariates, projection, standardiser,
        initialisation, task, objective, margins_are_logits, reward_scale`` (standard deviation of rewards on the calibration
        pairs; None where none were given) and ``digest`` of the weights.
    differences : list of Difference
    """

    facts: list[dict[str, Any]]
    differences: list[Difference]

    @property
    def fatal(self) -> list[Difference]:
        """The differences for which merging is refused."""
        return [d for d in self.differences if d.fatal]

    @property
    def compatible(self) -> bool:
        """Whether none is fatal."""
        return not self.fatal

    def require(self, who: str) -> None:
        """Raise with every fatal difference and its remedy, where there is one."""
        if self.fatal:
            raise InvalidInputError(f"{who} refuses models that differ in " + "; and in ".join(map(str, self.fatal)))

    def as_dict(self) -> dict[str, Any]:
        """Return plain facts that round-trip through JSON."""
        return {
            "compatible": self.compatible,
            "models": self.facts,
            "differences": [asdict(d) for d in self.differences],
        }


def head_tensors(model: Head) -> dict[str, Any]:
    """Return the parameters of a fitted head by name: ``coef``, or those of :meth:`embedrm.MLPHead.named_weights`."""
    if isinstance(model, MLPHead):
        return dict(model.named_weights())
    check_is_fitted(model, "coef_")
    return {"coef": model.coef_}


def compare_heads(
    models: Sequence[Head],
    names: Sequence[str] | None = None,
    *,
    base: Head | None = None,
    layers: str = "all",
    rescale: bool = False,
    equalise: bool = False,
    align: bool = False,
    calibration: EmbeddedPreferences | None = None,
) -> CompatibilityReport:
    """Compare fitted heads, and the base that they came from, with the first of them; nothing is merged or changed.

    Parameters are those of :func:`embedrm.merging.heads.merge_heads`, which makes this report before it merges; they decide
    which differences are fatal.

    Raises
    ------
    InvalidInputError
        Where something is no linear head and no perceptron. Anything else is a difference.
    """
    names = [f"model {i + 1}" for i in range(len(models))] if names is None else list(names)
    everyone = [*zip(names, models), *([] if base is None else [("base", base)])]
    for name, model in everyone:
        if not isinstance(model, (LinearHead, MLPHead)):
            raise InvalidInputError(
                f"parameters can be merged of LinearHead and MLPHead, got {type(model).__name__} for {name}; merge the "
                "rewards of other models with MergedRewardModel"
            )
    measured = calibration if layers == "all" else None
    facts = [_facts(name, model, measured) for name, model in everyone]
    found: list[Difference] = []
    for (_, model), own in zip(everyone[1:], facts[1:]):
        is_base = own["name"] == "base" and base is not None and own is facts[-1]
        found += _structure(facts[0], own)
        if any(d.fatal for d in found if d.b == own["name"]):
            continue
        found += _standardiser(models[0], model, facts[0], own, rescale)
        if not is_base:
            found += _training(facts[0], own, align)
            found += _scale(facts[0], own, equalise)
    if base is not None and isinstance(base, MLPHead):
        found += _origin(facts[:-1], facts[-1])
    return CompatibilityReport(facts, found + _tasks(facts[: len(models)], layers))


def _facts(name: str, model: Head, calibration: EmbeddedPreferences | None) -> dict[str, Any]:
    tensors = head_tensors(model)
    f = model.featurizer_
    objective = make_objective(model.objective)
    scale = None
    if calibration is not None:
        scale = float(model._rewards(calibration.responses, calibration.active).std())
    projections = array_digest(f.projection_) if f.projection_ else "none"
    residuals = array_digest({"w": f.residual_weights_, "c": f.residual_centre_}) if f.residualise_ else "none"
    return {
        "name": name,
        "kind": type(model).__name__,
        "tensors": {key: list(value.shape) for key, value in tensors.items()},
        "terms": ", ".join(f.terms_),
        "views": ", ".join((*f.response_views_, *f.prompt_views_)),
        "widths": {view: len(centre) for view, centre in f.centre_.items()},
        "covariates": ", ".join(f.covariates_) or "none",
        "projection": projections,
        "residuals": residuals,
        "standardiser": array_digest(standardiser_arrays(f)),
        "initialisation": getattr(model, "init_", f"unknown ({name})") if isinstance(model, MLPHead) else "none",
        "task": getattr(model, "trunk_task_", "pairs"),
        "objective": repr(objective),
        "margins_are_logits": bool(objective.margins_are_logits),
        "reward_scale": scale,
        "digest": array_digest(tensors),
    }


def _different(a: dict[str, Any], b: dict[str, Any], key: str, what: str, fatal: bool, remedy: str) -> list[Difference]:
    if a[key] == b[key]:
        return []
    return [Difference(what, a["name"], b["name"], _say(a[key]), _say(b[key]), fatal, remedy)]


def _say(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {v}" for key, v in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _structure(a: dict[str, Any], b: dict[str, Any]) -> list[Difference]:
    found = _different(a, b, "kind", "kind", True, "merge heads of one kind, or rewards with MergedRewardModel")
    if found:
        return found
    encoded = "fit both on the same views of one encoder"
    found += _different(a, b, "views", "views", True, encoded)
    found += _different(a, b, "widths", "width of the views", True, encoded)
    found += _different(a, b, "terms", "terms", True, "fit both with the same featurizer")
    found += _different(a, b, "covariates", "covariates", True, "fit both with the same featurizer")
    if not found:
        alike = "fit both from one fitted featurizer"
        found += _different(a, b, "tensors", "names or shapes of the tensors", True, "fit both with the same layers")
        found += _different(a, b, "projection", "projection", True, alike)
        found += _different(a, b, "residuals", "residual regression", True, alike)
    return found


def _standardiser(one: Head, other: Head, a: dict[str, Any], b: dict[str, Any], rescale: bool) -> list[Difference]:
    if same_standardiser(one.featurizer_, other.featurizer_):
        return []
    if isinstance(one, MLPHead):
        fatal, remedy = True, "fork both from one start (MLPHead.fit_from), whose featurizer they keep"
    else:
        why = why_not_foldable(other.featurizer_, one.featurizer_)
        fatal = why is not None or not rescale
        remedy = "rescale=True expresses the weights in the first model's standardisation, exactly"
        if why is not None:
            remedy = f"it cannot be expressed in the first model's, since {why}; fit both with Featurizer(scale='none')"
    return _different(a, b, "standardiser", "standardiser", fatal, remedy)


def _training(a: dict[str, Any], b: dict[str, Any], align: bool) -> list[Difference]:
    fork = "fork both from one start (MLPHead.fit_from), or align=True to match their hidden units first"
    found = _different(a, b, "initialisation", "initialisation", not align, fork)
    if a["task"] == b["task"] == "pairs":
        remedy = "their rewards may differ in scale; give calibration to measure it"
        found += _different(a, b, "objective", "objective", False, remedy)
    return found


def _scale(a: dict[str, Any], b: dict[str, Any], equalise: bool) -> list[Difference]:
    one, other = a["reward_scale"], b["reward_scale"]
    if one is None or other is None:
        return []
    ratio = np.inf if min(one, other) <= 0 else max(one, other) / min(one, other)
    if ratio <= MOST_SCALE_RATIO:
        return []
    remedy = "equalise=True puts rewards to the first model's scale on the calibration pairs"
    if np.isinf(ratio):
        return _different(a, b, "reward_scale", "reward scale", True, "a model that gives one reward has no scale")
    return _different(a, b, "reward_scale", "reward scale", not equalise, remedy)


def _origin(facts: Sequence[dict[str, Any]], base: dict[str, Any]) -> list[Difference]:
    remedy = "a delta is taken from where the model began; give the start that fit_from was given"
    return [
        Difference("base", own["name"], base["name"], own["initialisation"], base["digest"], True, remedy)
        for own in facts
        if own["initialisation"] != base["digest"]
    ]


def _tasks(facts: Sequence[dict[str, Any]], layers: str) -> list[Difference]:
    """Heads whose reward layer learnt nothing from pairs, where that layer would be used."""
    used = facts if layers == "all" else facts[:1]
    return [
        Difference(
            "training task",
            facts[0]["name"],
            own["name"],
            facts[0]["task"],
            own["task"],
            True,
            f"the reward layer of {own['name']} was trained on no pairs; "
            + (
                "use layers='trunk', which keeps the first model's"
                if own is not facts[0]
                else "name a reward model first"
            ),
        )
        for own in used
        if own["task"] != "pairs"
    ]
