"""Figures as facts: the numbers a picture shows, checked when they are made. Drawing is :mod:`~.plots`' job."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from embedrm.errors import InvalidInputError
from embedrm.reporting.plain import brackets, choice, fields, number, plain, sequence, slug, text, texts

MAX_SERIES = 12
"""A reader cannot tell more series apart, whatever their colours: eight hues, then the same hues hollow."""

SCALES = ("linear", "log")


@dataclass(frozen=True, init=False)
class Figure:
    """A figure of facts.

    Parameters
    ----------
    name : str
        A slug, unique in its report: the file name and the anchor in the HTML.
    title : str
        What the figure shows.
    kind : {"intervals", "bars", "heatmap", "lines", "scatter"}
        How it is drawn.
    data : mapping
        What is drawn; None stands for an absent value wherever a value may be absent.

        ``intervals`` and ``bars`` (horizontal; a dot and whiskers, or a bar from zero, per category and series)
            ``categories`` [str] · ``series`` [{``label``, ``values``, ``low``?, ``high``?}], one value per category ·
            ``x_label`` (the values), ``y_label`` (the categories) · ``reference``? [{``value``, ``label``}] ·
            ``limits``? [lo, hi] of the values.
        ``heatmap`` (cells annotated)
            ``rows`` [str] · ``columns`` [str] · ``values`` [[number]] by row · ``row_label``, ``column_label``,
            ``value_label`` · ``centre``? (a diverging scale around it) · ``limits``? [lo, hi] of the colours ·
            ``digits``? of the annotations (default 2).
        ``lines``
            ``series`` [{``label``, ``x``, ``y``, ``low``?, ``high``?}] · ``x_label``, ``y_label`` · ``x_scale``?,
            ``y_scale``? ("linear" or "log") · ``x``? {``ticks`` [number], ``labels`` [str]} to name places on the
            x axis · ``reference``? · ``diagonal``? (true draws y = x) · ``limits``? [lo, hi] of y.
        ``scatter``
            ``series`` [{``label``, ``x``, ``y``, ``low``?, ``high``?, ``names``? [str]}] · ``x_label``, ``y_label`` ·
            ``x_scale``?, ``y_scale``? · ``reference``? · ``diagonal``? · ``limits``? [lo, hi] of y. Series with intervals
            are drawn a little apart, so that those of one x can be told; a name that points of one x share is written once.
    caption : str, default ""
        How to read it.

    Raises
    ------
    InvalidInputError
        Anything else, with its place: NaN and infinities, lengths that disagree, an interval with one end, a log
        scale with a value that is not positive, more than :data:`MAX_SERIES` series.
    """

    name: str
    title: str
    kind: str
    data: dict[str, Any]
    caption: str

    def __init__(self, name: str, title: str, kind: str, data: Mapping[str, Any], caption: str = "") -> None:
        place = f"figure {slug(name, 'a figure name')!r}"
        choice(kind, place, "figure kind", tuple(_CHECKS))
        values = {
            "name": name,
            "title": text(title, f"{place}: title"),
            "kind": kind,
            "data": _CHECKS[kind](data, f"{place}: data"),
            "caption": text(caption, f"{place}: caption"),
        }
        for key, value in values.items():
            object.__setattr__(self, key, value)

    def to_dict(self) -> dict[str, Any]:
        """Return the figure as plain data."""
        return {
            "name": self.name,
            "title": self.title,
            "caption": self.caption,
            "kind": self.kind,
            "data": plain(self.data, f"figure {self.name!r}: data"),
        }

    def _repr_svg_(self) -> str:
        """Show the figure in a notebook."""
        from embedrm.reporting.plots import draw, svg_text

        return svg_text(draw(self))

    @classmethod
    def of(cls, value: Figure | Mapping[str, Any], place: str) -> Figure:
        """Return a figure from a figure or from its plain data."""
        if isinstance(value, Figure):
            return value
        return cls(**fields(value, place, ("name", "title", "kind", "data"), ("caption",)))


def _categorical(data: Any, place: str) -> dict[str, Any]:
    facts = fields(data, place, ("categories", "series", "x_label", "y_label"), ("reference", "limits"))
    categories = texts(facts["categories"], f"{place}.categories")
    result: dict[str, Any] = {"categories": categories, "series": []}
    for i, one in enumerate(_series(facts["series"], f"{place}.series")):
        here = f"{place}.series[{i}]"
        series = fields(one, here, ("label", "values"), ("low", "high"))
        values = _numbers(series["values"], f"{here}.values", len(categories), "categories")
        made = {"label": text(series["label"], f"{here}.label"), "values": values}
        result["series"].append(made | _bounds(series, values, here))
    result |= _labels(facts, place, "x_label", "y_label")
    return result | _reference(facts, place) | _limits(facts, place)


def _heatmap(data: Any, place: str) -> dict[str, Any]:
    names = ("row_label", "column_label", "value_label")
    facts = fields(data, place, ("rows", "columns", "values", *names), ("centre", "limits", "digits"))
    rows, columns = texts(facts["rows"], f"{place}.rows"), texts(facts["columns"], f"{place}.columns")
    values = sequence(facts["values"], f"{place}.values")
    if len(values) != len(rows):
        raise InvalidInputError(f"{place}.values has {len(values)} rows, and {len(rows)} are named.")
    result: dict[str, Any] = {"rows": rows, "columns": columns}
    result["values"] = [_numbers(v, f"{place}.values[{i}]", len(columns), "columns") for i, v in enumerate(values)]
    result |= _labels(facts, place, *names)
    if facts.get("centre") is not None:
        result["centre"] = number(facts["centre"], f"{place}.centre")
    if facts.get("digits") is not None:
        result["digits"] = digits = number(facts["digits"], f"{place}.digits")
        if digits not in range(7):
            raise InvalidInputError(f"{place}.digits is {digits!r}; a whole number from 0 to 6 was expected.")
    return result | _limits(facts, place)


def _lines(data: Any, place: str) -> dict[str, Any]:
    more = ("x", "x_scale", "y_scale", "reference", "diagonal", "limits")
    facts = fields(data, place, ("series", "x_label", "y_label"), more)
    scales = _scales(facts, place)
    result: dict[str, Any] = {"series": []}
    for i, one in enumerate(_series(facts["series"], f"{place}.series")):
        here = f"{place}.series[{i}]"
        series = fields(one, here, ("label", "x", "y"), ("low", "high"))
        made = {"label": text(series["label"], f"{here}.label")} | _points(series, here)
        result["series"].append(made | _bounds(series, made["y"], here))
    result |= _labels(facts, place, "x_label", "y_label") | scales
    if facts.get("x") is not None:
        axis = fields(facts["x"], f"{place}.x", ("ticks", "labels"))
        labels = texts(axis["labels"], f"{place}.x.labels")
        ticks = _numbers(axis["ticks"], f"{place}.x.ticks", len(labels), "labels", absent=False)
        result["x"] = {"ticks": ticks, "labels": labels}
    result |= _reference(facts, place) | _diagonal(facts, place) | _limits(facts, place)
    _positive(result, place)
    return result


def _scatter(data: Any, place: str) -> dict[str, Any]:
    facts = fields(
        data, place, ("series", "x_label", "y_label"), ("x_scale", "y_scale", "reference", "diagonal", "limits")
    )
    result: dict[str, Any] = {"series": []}
    for i, one in enumerate(_series(facts["series"], f"{place}.series")):
        here = f"{place}.series[{i}]"
        series = fields(one, here, ("label", "x", "y"), ("low", "high", "names"))
        made = {"label": text(series["label"], f"{here}.label")} | _points(series, here)
        made |= _bounds(series, made["y"], here)
        if series.get("names") is not None:
            made["names"] = texts(series["names"], f"{here}.names")
            _same_length(made["names"], len(made["x"]), f"{here}.names", "points")
        result["series"].append(made)
    result |= _labels(facts, place, "x_label", "y_label") | _scales(facts, place)
    result |= _reference(facts, place) | _diagonal(facts, place) | _limits(facts, place)
    _positive(result, place)
    return result


def _series(value: Any, place: str) -> list[Any]:
    series = sequence(value, place)
    if len(series) > MAX_SERIES:
        raise InvalidInputError(
            f"{place}: {len(series)} series came, and a reader can tell at most {MAX_SERIES} apart. "
            "Split them over several figures."
        )
    return series


def _points(series: Mapping[str, Any], place: str) -> dict[str, Any]:
    xs = _numbers(series["x"], f"{place}.x", None, "", absent=False)
    return {"x": xs, "y": _numbers(series["y"], f"{place}.y", len(xs), "x values")}


def _same_length(values: list[Any], expected: int, place: str, of_what: str) -> None:
    if len(values) != expected:
        raise InvalidInputError(f"{place} has {len(values)} entries, and there are {expected} {of_what}.")


def _numbers(value: Any, place: str, expected: int | None, of_what: str, absent: bool = True) -> list[Any]:
    values = sequence(value, place)
    if expected is not None:
        _same_length(values, expected, place, of_what)
    return [None if v is None and absent else number(v, f"{place}[{i}]") for i, v in enumerate(values)]


def _bounds(series: Mapping[str, Any], values: list[Any], place: str) -> dict[str, Any]:
    low, high = series.get("low"), series.get("high")
    if low is None and high is None:
        return {}
    if low is None or high is None:
        raise InvalidInputError(f"{place}: intervals have both ends or neither; give low and high.")
    lows = _numbers(low, f"{place}.low", len(values), "values")
    highs = _numbers(high, f"{place}.high", len(values), "values")
    for i, (value, a, b) in enumerate(zip(values, lows, highs)):
        brackets(a, b, f"{place}: entry [{i}]")
        if value is None and a is not None:
            raise InvalidInputError(f"{place}: entry [{i}] has an interval and no value. Make its ends None too.")
    return {"low": lows, "high": highs}


def _labels(facts: Mapping[str, Any], place: str, *keys: str) -> dict[str, Any]:
    return {key: text(facts[key], f"{place}.{key}") for key in keys}


def _scales(facts: Mapping[str, Any], place: str) -> dict[str, Any]:
    given = {key: facts[key] for key in ("x_scale", "y_scale") if facts.get(key) is not None}
    return {key: choice(value, f"{place}.{key}", "scale", SCALES) for key, value in given.items()}


def _limits(facts: Mapping[str, Any], place: str) -> dict[str, Any]:
    if facts.get("limits") is None:
        return {}
    low, high = _numbers(facts["limits"], f"{place}.limits", 2, "limits (low and high)", absent=False)
    if low >= high:
        raise InvalidInputError(f"{place}.limits: the low limit {low:g} must be below the high one {high:g}.")
    return {"limits": [low, high]}


def _reference(facts: Mapping[str, Any], place: str) -> dict[str, Any]:
    if facts.get("reference") is None:
        return {}
    made = []
    for i, one in enumerate(sequence(facts["reference"], f"{place}.reference")):
        here = f"{place}.reference[{i}]"
        line = fields(one, here, ("value", "label"))
        made.append({"value": number(line["value"], f"{here}.value"), "label": text(line["label"], f"{here}.label")})
    return {"reference": made}


def _diagonal(facts: Mapping[str, Any], place: str) -> dict[str, Any]:
    if facts.get("diagonal") is None:
        return {}
    if not isinstance(facts["diagonal"], bool):
        raise InvalidInputError(f"{place}.diagonal is true or false, and a {type(facts['diagonal']).__name__} came.")
    return {"diagonal": facts["diagonal"]}


def _positive(facts: Mapping[str, Any], place: str) -> None:
    """Refuse what a logarithmic axis cannot show."""
    for axis in ("x", "y"):
        if facts.get(f"{axis}_scale") != "log":
            continue
        keys = (axis, "low", "high") if axis == "y" else (axis,)
        found = {f"series[{i}].{k}": one.get(k, []) for i, one in enumerate(facts["series"]) for k in keys}
        if axis == "y":
            found["reference"] = [line["value"] for line in facts.get("reference", [])]
            found["limits"] = facts.get("limits", [])
        elif "x" in facts:
            found["x.ticks"] = facts["x"]["ticks"]
        for name, values in found.items():
            if any(value is not None and value <= 0 for value in values):
                raise InvalidInputError(
                    f"{place}.{name} holds a value that is not positive, which a log {axis} axis cannot show. "
                    f"Use {axis}_scale 'linear' or make the value None."
                )


_CHECKS: dict[str, Callable[[Any, str], dict[str, Any]]] = {
    "intervals": _categorical,
    "heatmap": _heatmap,
    "lines": _lines,
    "bars": _categorical,
    "scatter": _scatter,
}
