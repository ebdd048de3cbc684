"""``embedrm merge --config``: a YAML file in the words of merge configurations that are in use for language models.

Read are ``models`` (each with ``model`` and ``parameters``), ``merge_method``, ``base_model``, ``parameters`` and ``dtype``.
What would be lost in silence is refused, and what differs from a plain reading is told in notes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from embedrm.errors import DataError, EmbedRMError, InvalidInputError, unknown_name

_KEYS = ("models", "merge_method", "base_model", "parameters", "dtype", "tokenizer_source")
_MODEL_KEYS = ("model", "parameters")
# Keys of such files that mean something here is no counterpart to, and what to do instead.
_ELSEWHERE = {
    "slices": "layers are not taken from several models here; list whole models under 'models'",
    "modules": "whole encoders are merged here; list them under 'models'",
    "out_dtype": "the merged model keeps the first one's number type; leave it out",
    "tokenizer": "tokenizers are joined as tokenizer_source: union does; leave it out",
    "chat_template": "encoders have none; leave it out",
}
TYPES = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16"}


@dataclass
class MergeConfig:
    """What a file says.

    Attributes
    ----------
    paths : list of str
        The models, the one whose head, tokens and settings are kept first.
    weights : list of float or None
    method : str
    base : str or None
    options : dict
        Of the method.
    dtype : str or None
        A key of :data:`TYPES`.
    notes : list of str
        What was read otherwise than it may have been meant.
    """

    paths: list[str]
    weights: list[float] | None
    method: str
    base: str | None
    options: dict[str, Any]
    dtype: str | None = None
    notes: list[str] = field(default_factory=list)


def read_config(path: str) -> MergeConfig:
    """Read a merge configuration.

    Raises
    ------
    DataError
        With the path and, where there is one, the line.
    """
    from embedrm.experiments.experiment_files import read_yaml

    file = Path(path).expanduser()
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text in UTF-8"
        raise DataError(f"the merge configuration cannot be read ({reason}); check the path.", file) from None
    data, lines = read_yaml(text, file, "a merge is a mapping with 'models:' and 'merge_method:'")
    reader = _Reader(lines)
    try:
        return reader.read(data)
    except EmbedRMError as error:
        raise DataError(str(error), file, lines.get(reader.place)) from None


class _Reader:
    def __init__(self, lines: Mapping[tuple[str, ...], int]) -> None:
        self.lines, self.place, self.notes = lines, (), []  # type: tuple[Mapping[Any, int], tuple[str, ...], list[str]]

    def read(self, data: dict[str, Any]) -> MergeConfig:
        from embedrm.merging.methods import make_method

        self._known(data, _KEYS, (), "key of a merge configuration")
        self.place = ("merge_method",)
        if "merge_method" not in data:
            self.place = ()
            raise InvalidInputError("merge_method is missing; add it, such as merge_method: linear")
        kind = make_method(str(data["merge_method"]))
        self.place = ("tokenizer_source",)
        if data.get("tokenizer_source") not in (None, "union"):
            raise InvalidInputError(
                f"tokenizer_source: {data['tokenizer_source']} is not done here; the tokens of all models are joined (union)"
            )
        base = self._text(data, "base_model", ())
        if base is None and kind.on == "deltas":
            self.place = ("merge_method",)
            raise InvalidInputError(
                f"merge_method {kind.registered_name} merges deltas; add base_model, the model that all came from"
            )
        models = self._models(data)
        each = ("weight", *kind.each)
        whole = self._parameters(
            data.get("parameters"), ("parameters",), ("weight", *kind.options()), kind.registered_name
        )
        own = []
        for i, (_, parameters) in enumerate(models):
            own.append(self._parameters(parameters, ("models", str(i), "parameters"), each, kind.registered_name))
        paths = [name for name, _ in models]
        rows = self._order(paths, base, kind.on == "deltas")
        options = {key: value for key, value in whole.items() if key != "weight"}
        for key in kind.each:
            values = [own[i].get(key, whole.get(key)) for i in rows]
            if any(key in own[i] for i in rows):
                self._for_all(values, key, [paths[i] for i in rows])
                options[key] = values[0] if all(v == values[0] for v in values) else values
        weights: list[Any] | None = [own[i].get("weight", whole.get("weight")) for i in rows]
        if weights is not None and all(w is None for w in weights):
            weights = None
        elif weights is not None:
            self._for_all(weights, "weight", [paths[i] for i in rows])
        dtype = self._text(data, "dtype", ())
        self.place = ("dtype",)
        if dtype is not None and dtype not in TYPES:
            raise unknown_name("dtype", dtype, TYPES)
        return MergeConfig(
            [paths[i] for i in rows],
            weights,
            kind.registered_name,
            base if kind.on == "deltas" else None,
            options,
            dtype,
            self.notes,
        )

    def _models(self, data: dict[str, Any]) -> list[tuple[str, Any]]:
        self.place = ("models",) if "models" in data else ()
        found = data.get("models")
        if not isinstance(found, list) or not found:
            raise InvalidInputError("models must be a list of at least one '- model: FOLDER'")
        out = []
        for i, entry in enumerate(found):
            self.place = ("models", str(i))
            if not isinstance(entry, Mapping) or not isinstance(entry.get("model"), str):
                raise InvalidInputError(
                    "each entry of models is '- model: FOLDER', with parameters below it or without"
                )
            self._known(entry, _MODEL_KEYS, self.place, "key of a model")
            out.append((str(entry["model"]), entry.get("parameters")))
        return out

    def _order(self, paths: Sequence[str], base: str | None, deltas: bool) -> list[int]:
        """Return which models are merged, in which order: the one that is kept from comes first."""
        rows = list(range(len(paths)))
        self.place = ("base_model",)
        if base is None or base not in paths:
            if base is not None and not deltas:
                raise InvalidInputError(
                    f"base_model {base!r} is none of the models, and this method merges whole tensors, without a base; "
                    "leave it out"
                )
            return rows
        if not deltas:
            # the base is what stays at t = 0, and gives its settings and tokens
            first = paths.index(base)
            return [first, *(i for i in rows if i != first)]
        rest = [i for i in rows if paths[i] != base]
        if not rest:
            raise InvalidInputError("all models are the base_model itself; list what was trained from it")
        self.notes.append(f"{base} is the base itself and has no delta; it is not counted among the models")
        return rest

    def _parameters(self, found: Any, place: tuple[str, ...], known: Sequence[str], method: str) -> dict[str, Any]:
        self.place = place
        if found is None:
            return {}
        if not isinstance(found, Mapping):
            raise InvalidInputError("parameters must be names with values")
        out = {}
        for key, value in found.items():
            self.place = (*place, key)
            if key == "int8_mask":
                self.notes.append("int8_mask saves memory elsewhere and changes nothing here")
                continue
            name = "lambda_" if key == "lambda" else key
            if name not in known:
                kind = f"parameter of {method!r} for {'one model' if place[0] == 'models' else 'all models'}"
                raise unknown_name(kind, key, ["lambda" if k == "lambda_" else k for k in known])
            if isinstance(value, (list, Mapping)):
                raise InvalidInputError(
                    f"{key} is a list, which elsewhere is a gradient over layers or a filter by name; here a parameter is "
                    "one value for all layers"
                )
            if key == "weight" and (isinstance(value, bool) or not isinstance(value, (int, float))):
                raise InvalidInputError(f"weight must be a number, got {value!r}")
            out[name] = value
        return out

    def _for_all(self, values: Sequence[Any], key: str, paths: Sequence[str]) -> None:
        lacking = [path for path, value in zip(paths, values) if value is None]
        if lacking:
            self.place = ("models",)
            raise InvalidInputError(
                f"{key} is given for some models and not for {', '.join(lacking)}; give it for each, or once under the "
                "parameters of all"
            )

    def _text(self, data: Mapping[str, Any], key: str, place: tuple[str, ...]) -> str | None:
        value = data.get(key)
        if value is not None and not isinstance(value, str):
            self.place = (*place, key)
            raise InvalidInputError(f"{key} must be text, got {value!r}")
        return value

    def _known(self, data: Mapping[str, Any], known: Sequence[str], place: tuple[str, ...], what: str) -> None:
        for key in data:
            self.place = (*place, key)
            if key not in known:
                if not place and key in _ELSEWHERE:
                    raise InvalidInputError(f"{key} is not read here: {_ELSEWHERE[key]}")
                raise unknown_name(what, key, known)
        self.place = place
