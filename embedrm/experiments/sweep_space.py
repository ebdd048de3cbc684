"""What a sweep varies: grids, lists of variants, one axis at a time, and seeded random samples."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from embedrm.errors import InvalidInputError
from embedrm.experiments.experiment_files import Misfit, Place, read_value
from embedrm.experiments.experiment_values import check_known

KEYS = ("grid", "list", "around", "random", "samples", "random_state")
DRAWS = ("uniform", "loguniform", "integers", "logintegers", "choice")
_CALL = re.compile(r"(\w+)\((.*)\)", re.DOTALL)

MOST = 200_000
"""Variants of one sweep: each is checked, and planned, before the first is computed."""

Settings = dict[str, Any]


@dataclass(frozen=True)
class Draw:
    """One random axis: ``loguniform(1e-4, 1)``, ``uniform(a, b)``, ``integers(a, b)`` (both ends), ``choice(...)``."""

    kind: str
    values: tuple[Any, ...]

    @classmethod
    def read(cls, text: Any, place: Place) -> Draw:
        """Read the text of a draw; a list is a choice."""
        if isinstance(text, (list, tuple)):
            return cls("choice", tuple(text))
        found = _CALL.fullmatch(text.strip()) if isinstance(text, str) else None
        if found is None:
            raise Misfit(
                f"a random axis is drawn by {', '.join(DRAWS)}, such as loguniform(1e-4, 1), or from a list; "
                f"got {text!r:.60}",
                place,
            )
        check_known(found[1], DRAWS, "draw", place)
        draw = cls(found[1], tuple(read_value(f"[{found[2]}]")))
        draw._check(place)
        return draw

    def _check(self, place: Place) -> None:
        if self.kind == "choice":
            good, needs = bool(self.values), "at least one value"
        else:
            numbers = [
                v for v in self.values if isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v)
            ]
            good = len(numbers) == len(self.values) == 2 and numbers[0] < numbers[1]
            needs = "two numbers, the smaller first"
            if good and self.kind.startswith("log"):
                good, needs = numbers[0] > 0, "two numbers above 0, the smaller first"
            if good and self.kind.endswith("integers"):
                good, needs = all(isinstance(v, int) for v in numbers), "two whole numbers, the smaller first"
        if not good:
            raise Misfit(f"{self.kind}(...) needs {needs}, got {', '.join(map(str, self.values)) or 'nothing'}.", place)

    def sample(self, rng: np.random.Generator) -> Any:
        """Draw one value; floats to six digits, so that they are the same when read back from a table."""
        if self.kind == "choice":
            return self.values[int(rng.integers(len(self.values)))]
        low, high = self.values
        if self.kind == "integers":
            return int(rng.integers(low, high + 1))
        if self.kind == "logintegers":
            return min(high, int(math.exp(rng.uniform(math.log(low), math.log(high + 1)))))
        value = (
            math.exp(rng.uniform(math.log(low), math.log(high)))
            if self.kind == "loguniform"
            else rng.uniform(low, high)
        )
        return float(f"{value:.6g}")


@dataclass
class Space:
    """The variants of a sweep: every list entry, axis in turn and random draw, each at every point of the grid.

    Parameters
    ----------
    grid : mapping of dotted path to list of values
        All combinations.
    variants : list of mapping of dotted path to value
        The ``list``: settings that go together.
    around : mapping of dotted path to list of values
        One axis at a time, the others as the experiment has them (its centre, which comes first).
    random : mapping of dotted path to Draw
        ``samples`` draws of all of them at once.
    samples, random_state : int
    """

    grid: dict[str, list[Any]] = field(default_factory=dict)
    variants: list[Settings] = field(default_factory=list)
    around: dict[str, list[Any]] = field(default_factory=dict)
    random: dict[str, Draw] = field(default_factory=dict)
    samples: int = 0
    random_state: int = 0

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> Space:
        """Read the section ``sweep``; unknown keys raise with the nearest one."""
        for key in data:
            check_known(key, KEYS, "key of 'sweep'", ("sweep", key))
        axes: dict[str, dict[str, list[Any]]] = {}
        for kind in ("grid", "around"):
            axes[kind] = {}
            for path, values in axes_of(data.get(kind), kind).items():
                axes[kind][path] = _axis(path, values, ("sweep", kind, path))
        variants = data.get("list") or []
        if not isinstance(variants, (list, tuple)) or not all(isinstance(v, Mapping) for v in variants):
            raise Misfit("'list' of 'sweep' is a list of mappings such as {head: mlp}.", ("sweep", "list"))
        random = {p: Draw.read(v, ("sweep", "random", p)) for p, v in axes_of(data.get("random"), "random").items()}
        counts = {}
        for name in ("samples", "random_state"):
            value = data.get(name, 0)
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                raise Misfit(f"{name!r} of 'sweep' must be a whole number from 0, got {value!r:.40}.", ("sweep", name))
            counts[name] = value
        if random and not counts["samples"]:
            raise Misfit("'random' of 'sweep' needs 'samples', how many to draw.", ("sweep", "random"))
        if counts["samples"] and not random:
            raise Misfit("'samples' of 'sweep' needs 'random', what to draw.", ("sweep", "samples"))
        space = cls(axes["grid"], [dict(v) for v in variants], axes["around"], random, **counts)
        twice = [path for path in space.grid if path in space.around or path in space.random]
        if twice:
            raise Misfit(f"{twice[0]!r} is varied in two ways; keep one.", ("sweep", "grid", twice[0]))
        return space

    def written(self) -> dict[str, Any]:
        """Return plain data that :meth:`read` reads back."""
        draws = {
            path: list(d.values) if d.kind == "choice" else f"{d.kind}({', '.join(map(str, d.values))})"
            for path, d in self.random.items()
        }
        out = {"grid": self.grid, "list": self.variants, "around": self.around, "random": draws}
        kept: dict[str, Any] = {key: value for key, value in out.items() if value}
        if self.random:
            kept |= {"samples": self.samples, "random_state": self.random_state}
        return kept

    @property
    def paths(self) -> list[str]:
        """Every path that varies, in the order of the axes."""
        listed = [path for variant in self.variants for path in variant]
        return list(dict.fromkeys([*listed, *self.around, *self.random, *self.grid]))

    def count(self) -> int:
        """Return the number of variants, repeats counted."""
        around = 1 + sum(map(len, self.around.values())) if self.around else 0
        centres = len(self.variants) + around + self.samples
        return max(1, centres) * math.prod(map(len, self.grid.values()))

    def settings(self) -> list[Settings]:
        """Return the settings of every variant, without repeats, in a fixed order."""
        n = self.count()
        if n > MOST:
            raise Misfit(
                f"the axes of 'sweep' make {n:,} variants, and a sweep takes at most {MOST:,}; vary fewer settings at "
                "once, or draw them: 'random' and 'samples'.",
                ("sweep", "grid"),
            )
        centres: list[Settings] = [*self.variants]
        if self.around:
            centres += [{}, *({path: value} for path, values in self.around.items() for value in values)]
        if self.random:
            rng = np.random.default_rng(self.random_state)
            for _ in range(self.samples):
                centres.append({path: draw.sample(rng) for path, draw in self.random.items()})
        centres = centres or [{}]
        points = [dict(zip(self.grid, point)) for point in itertools.product(*self.grid.values())]
        found = {json.dumps({**c, **p}, sort_keys=True): {**c, **p} for c in centres for p in points}
        return list(found.values())


def axes_of(value: Any, kind: str) -> Mapping[str, Any]:
    """Return the axes of one kind; none where the kind is absent."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise Misfit(f"{kind!r} of 'sweep' is a mapping of paths such as head.l2, got {value!r:.40}.", ("sweep", kind))
    return value


def _axis(path: str, values: Any, place: Place) -> list[Any]:
    if not isinstance(values, (list, tuple)) or not values:
        raise Misfit(f"{path!r} of 'sweep' needs a list of values, got {values!r:.60}.", place)
    texts = [json.dumps(v, sort_keys=True) for v in values]
    if len(set(texts)) < len(texts):
        raise Misfit(f"{path!r} of 'sweep' names one value twice; name each once.", place)
    return list(values)


def read_axes(items: Sequence[str] | None, option: str = "--grid") -> dict[str, list[Any]]:
    """Read ``PATH=VALUE,VALUE`` words.

    Values that hold commas are told apart by semicolons (``featurizer.terms=r;r,p*r``) or written as a list in brackets.
    """
    out: dict[str, list[Any]] = {}
    for item in items or ():
        path, equals, text = item.partition("=")
        path, text = path.strip(), text.strip()
        if not equals or not path or not text:
            raise InvalidInputError(f"{option} expects PATH=VALUE,VALUE such as head.l2=1e-4,1e-2,1; got {item!r}")
        if path in out:
            raise InvalidInputError(f"{option} gives {path!r} twice; give all its values at once")
        if text.startswith("["):
            values = read_value(text)
            if not isinstance(values, list):
                raise InvalidInputError(f"{option} {path}: expected a list in brackets, got {text!r}")
        else:
            values = [read_value(part) for part in text.split(";" if ";" in text else ",")]
        out[path] = _axis(path, values, ("sweep", "grid", path))
    return out
