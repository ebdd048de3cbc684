"""What ``embedrm fit --help`` lists: everything that is registered, with a line each."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Sequence
from typing import Any

from embedrm.cli._parameters import made_elsewhere

# Parameters of the calibration that options make.
_OF_CALIBRATION = ("model", "method")
_SYMBOLS = {"phi": "φ", "cdot": "·", "mid": "|", "sigma": "σ", "lambda": "λ", "circ": "∘", "pi": "π", "mu": "μ"}
_SYMBOLS |= {"Sigma": "Σ", "log": "log "}


def listing() -> list[str]:
    """Return one line for each head, model, objective, projection and router: its name, what it is, its parameters."""
    from embedrm.cli._composites import WRAPPERS, domain_models, ingredients
    from embedrm.composites import COMPOSITES
    from embedrm.featurizers import FEATURIZERS, Featurizer
    from embedrm.featurizers.base import projections
    from embedrm.heads import HEADS
    from embedrm.objectives import OBJECTIVES
    from embedrm.routers import ROUTERS

    return [
        "Heads (--head), with what --set takes:",
        *map(_line, HEADS),
        "Models that treat domains (--model), what each is made of, and what --set takes as MODEL.PARAMETER=VALUE:",
        *(_line((name, cls), ingredients(name, cls)) for name, cls in domain_models().items()),
        "Objectives (--set objective=NAME, and objective.PARAMETER=VALUE):",
        *map(_line, OBJECTIVES),
        "Features (--set featurizer.PARAMETER=VALUE):",
        _line(("featurizer", Featurizer)),
        "Projections of views (--set featurizer.project=NAME, and featurizer.project.PARAMETER=VALUE):",
        *(_line((name, FEATURIZERS.get(name))) for name in projections()),
        "Routers (--router), with what --set takes as router.PARAMETER=VALUE (a router inside one: router.router=NAME, and "
        "router.router.PARAMETER=VALUE):",
        *map(_line, ROUTERS),
        f"Around them ({', '.join(WRAPPERS.values())}), with what --set takes as NAME.PARAMETER=VALUE:",
        *(_line((name, COMPOSITES.get(name))) for name in WRAPPERS),
    ]


def _line(entry: tuple[str, type], made_of: Sequence[str] = ()) -> str:
    name, cls = entry
    made = made_elsewhere(cls)
    defaults = [
        f"{parameter.name}={_written(parameter.default)}"
        for parameter in inspect.signature(cls).parameters.values()
        if parameter.name not in made and not (name == "calibrated" and parameter.name in _OF_CALIBRATION)
    ]
    prefix = f"made of {', '.join(made_of)}; " if made_of else ""
    return f"{name}: {summary(cls)} ({prefix}{', '.join(defaults) or 'no parameters'})"


def summary(cls: type) -> str:
    """Return the first line of a class's docstring without the marks of reStructuredText."""
    first = (inspect.getdoc(cls) or "").strip().partition("\n")[0]
    first = re.sub(r":\w+:`~?([^`]*)`", r"\1", first).replace("`", "")
    first = re.sub(r"\\mathrm\{(\w+)\}", r"\1", first)
    first = re.sub(r"\\frac\{([^{}]*)\}\{([^{}]*)\}", r"((\1) / (\2))", first).replace("\\tfrac12", "½")
    first = re.sub(r"\\([A-Za-z]+)", lambda command: _SYMBOLS.get(command[1], command[1]), first)
    return " ".join(first.split())


def _written(value: Any) -> str:
    return json.dumps(value, default=str)
