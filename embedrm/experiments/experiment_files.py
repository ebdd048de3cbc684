"""YAML and TOML as plain data, with the line of every key: what the strict configuration is read from.

YAML is read by the scalars of YAML 1.2 (``1e-4`` is a number, ``no`` and ``on`` are text); a key that comes twice, a tag
and a merge key are errors, since each of them is a way for a setting to be lost in silence.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from datetime import time as clock
from importlib import import_module
from pathlib import Path
from typing import Any

from embedrm.errors import DataError, InvalidInputError

Place = tuple[str, ...]

_EXPERIMENT = "an experiment is a mapping of sections such as 'data:' and 'head:'"
_INTEGER = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?((0|[1-9][0-9]*)?\.[0-9]+|(0|[1-9][0-9]*)\.?)([eE][-+]?[0-9]+)?")
_WORDS: dict[str, Any] = {
    "": None,
    "~": None,
    "null": None,
    "None": None,
    "true": True,
    "false": False,
    "True": True,
    "False": False,
    "inf": float("inf"),
    ".inf": float("inf"),
    "-inf": float("-inf"),
    "-.inf": float("-inf"),
}
_TEXT = "tag:yaml.org,2002:str"
_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "map", "seq", "timestamp")}
_MAX_NODES = 200_000
_TOML_KEY = re.compile(r"""^\s*((?:[\w-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[\w-]+|"[^"]*"|'[^']*'))*)\s*=""")
_TOML_TABLE = re.compile(r"""^\s*\[\[?\s*([^\[\]]+?)\s*\]\]?\s*(?:#.*)?$""")
SUFFIXES = (".yaml", ".yml", ".toml")


class Misfit(InvalidInputError):
    """A setting that is not what it must be, and where it stands.

    Parameters
    ----------
    message : str
    place : sequence of str
        Its keys, from the top; a reader of files turns them into a line.
    """

    def __init__(self, message: str, place: Iterable[str] = ()) -> None:
        self.place: Place = tuple(place)
        super().__init__(message)


def read_file(path: str | Path) -> tuple[dict[str, Any], dict[Place, int]]:
    """Read a YAML or TOML file.

    Returns
    -------
    data : dict
        Strings, numbers, truth values, None, lists and mappings.
    lines : dict of tuple of str to int
        Line of each key, by its keys from the top; entries of lists by their position.

    Raises
    ------
    DataError
        With the path and the line.
    """
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise DataError("an experiment is text in UTF-8, and this file is not; save it as UTF-8.", file) from None
    except OSError as error:
        raise DataError(f"the experiment cannot be read ({error.strerror or error}); check the path.", file) from None
    if file.suffix.lower() == ".toml":
        return _read_toml(text, file)
    if file.suffix.lower() not in SUFFIXES:
        raise DataError(f"an experiment is a file that ends in {', '.join(SUFFIXES)}; rename it.", file)
    return read_yaml(text, file)


def read_yaml(
    text: str, path: str | Path | None = None, what: str = _EXPERIMENT
) -> tuple[dict[str, Any], dict[Place, int]]:
    """Read YAML text; see :func:`read_file`. ``what`` says in an error what the mapping that is read should be."""
    import yaml

    lines: dict[Place, int] = {}
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        value = None if node is None else _Plain(path, lines).of(node, ())
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        raise DataError(f"this is not YAML: {problem}.", path, None if mark is None else mark.line + 1) from None
    except RecursionError:
        raise DataError("the YAML is nested too deeply.", path) from None
    return _mapping(value, path, what), lines


def scalar(text: str) -> Any:
    """Return the value of a plain scalar: None, a truth value, a number, or else the text itself."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text):
        return int(text) if len(text) < 4000 else text
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


def read_value(text: str) -> Any:
    """Return one value as it would stand in a file: a scalar, or a list or mapping in brackets."""
    if not text.lstrip().startswith(("[", "{", '"', "'")):
        return scalar(text.strip())
    try:
        return read_yaml(f"value: {text}")[0]["value"]
    except DataError as error:
        raise InvalidInputError(f"cannot read {text!r} as a value: {error.message}") from None


class _Plain:
    """Plain values of YAML's nodes."""

    def __init__(self, path: str | Path | None, lines: dict[Place, int]) -> None:
        self.path, self.lines, self.seen = path, lines, 0

    def of(self, node: Any, place: Place) -> Any:
        import yaml

        line = node.start_mark.line + 1
        self.seen += 1
        if self.seen > _MAX_NODES:
            raise DataError(f"more than {_MAX_NODES:,} values came, aliases counted; write fewer.", self.path, line)
        quoted = isinstance(node, yaml.ScalarNode) and node.style is not None
        if node.tag not in (_TAGS if not quoted else {_TEXT}):
            raise DataError(f"the tag {node.tag!r} is not read here; write plain values.", self.path, line)
        if isinstance(node, yaml.ScalarNode):
            return scalar(node.value) if node.style is None else node.value
        if isinstance(node, yaml.SequenceNode):
            return [self._entry(inner, (*place, str(i))) for i, inner in enumerate(node.value)]
        out: dict[str, Any] = {}
        for key, value in node.value:
            here = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode) or (key.value == "<<" and key.style is None):
                raise DataError("keys are plain words; merge keys (<<) and others are not read.", self.path, here)
            if key.value in out:
                raise DataError(f"the key {key.value!r} comes twice; keep one.", self.path, here)
            self.lines[(*place, key.value)] = here
            out[key.value] = self.of(value, (*place, key.value))
        return out

    def _entry(self, node: Any, place: Place) -> Any:
        self.lines[place] = node.start_mark.line + 1
        return self.of(node, place)


def _read_toml(text: str, path: Path) -> tuple[dict[str, Any], dict[Place, int]]:
    tomllib = import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    try:
        value = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"line (\d+)", str(error))
        raise DataError(f"this is not TOML: {error}.", path, int(found[1]) if found else None) from None
    lines = _toml_lines(text)
    for place, found in _dates(value, ()):
        raise DataError(
            f"dates are not read here, got {found}; write it as text, in quotes.", path, line_of(lines, place)
        )
    return _mapping(value, path), lines


def _dates(value: Any, place: Place) -> Iterator[tuple[Place, Any]]:
    """Give the values that TOML has and YAML, as read here, has not: dates and times."""
    if isinstance(value, (dict, list)):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _dates(inner, (*place, str(key)))
    elif isinstance(value, (date, clock)):
        yield place, value


def _toml_lines(text: str) -> dict[Place, int]:
    """Find lines by the look of the text, which the parser does not tell; the first of a key counts."""
    lines: dict[Place, int] = {}
    table: Place = ()
    for number, line in enumerate(text.splitlines(), 1):
        head, key = _TOML_TABLE.match(line), _TOML_KEY.match(line)
        if head is not None:
            table = _toml_names(head[1])
            place = table
        elif key is not None:
            place = (*table, *_toml_names(key[1]))
        else:
            continue
        for end in range(1, len(place) + 1):
            lines.setdefault(place[:end], number)
    return lines


def _toml_names(text: str) -> Place:
    return tuple(part.strip().strip("\"'") for part in re.findall(r"\"[^\"]*\"|'[^']*'|[^.]+", text))


def _mapping(value: Any, path: str | Path | None, what: str = _EXPERIMENT) -> dict[str, Any]:
    if not isinstance(value, dict):
        came = "nothing" if value is None else f"a {type(value).__name__}"
        raise DataError(f"{what}, and {came} came.", path)
    return value


def to_yaml(data: Mapping[str, Any]) -> str:
    """Return plain data as YAML that :func:`read_yaml` reads back to the same values."""
    import yaml

    class Writer(yaml.SafeDumper):
        """Quotes whatever this module would read as something else than text."""

        def ignore_aliases(self, data: Any) -> bool:
            return True

    def text(dumper: Any, value: str) -> Any:
        plain = isinstance(scalar(value), str) and value.isprintable()
        return dumper.represent_scalar(_TEXT, value, style=None if plain else '"')

    def number(dumper: Any, value: float) -> Any:
        text = repr(value).replace("inf", ".inf")
        # the writer takes a number without a point for text, and would tag it
        text = text.replace("e", ".0e") if "e" in text and "." not in text else text
        return dumper.represent_scalar("tag:yaml.org,2002:float", text)

    def flat(dumper: Any, value: list[Any]) -> Any:
        simple = all(not isinstance(v, (list, dict)) for v in value)
        return dumper.represent_sequence("tag:yaml.org,2002:seq", value, flow_style=simple)

    Writer.add_representer(str, text)
    Writer.add_representer(float, number)
    Writer.add_representer(list, flat)
    Writer.add_representer(tuple, flat)
    return yaml.dump(
        dict(data), Dumper=Writer, sort_keys=False, allow_unicode=True, default_flow_style=False, width=110
    )


def line_of(lines: Mapping[Place, int], place: Place) -> int | None:
    """Return the line of a place, or of the nearest one around it that has a line."""
    for end in range(len(place), 0, -1):
        if place[:end] in lines:
            return lines[place[:end]]
    return None
