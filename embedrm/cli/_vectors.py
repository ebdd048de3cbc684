"""Bring your own vectors: .npy files and a table of pairs become EmbeddedPreferences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedrm.cli._common import Console
from embedrm.cli._data import ON_ERROR, reading_notes
from embedrm.datasets.readers import open_source
from embedrm.datasets.validate import ErrorLog, RowError, absent, check_number
from embedrm.errors import DataError, InvalidInputError, unknown_name
from embedrm.preferences import EmbeddedPreferences, EmbeddedResponses
from embedrm.views import Side, parse_layers, parse_view, view_name

NUMBERS = ("weight", "margin", "outcome")
NAMES = ("group", "domain", "split")
# What numpy raises on a file that is not the array it claims to be.
_DAMAGE = (ValueError, EOFError, SyntaxError, TypeError, OverflowError, KeyError, RecursionError)


@dataclass(frozen=True)
class VectorFiles:
    """The options that name arrays instead of texts."""

    vectors: Sequence[str] | None = None
    pairs: str | None = None
    prompt_vectors: Sequence[str] | None = None
    prompt_of: str | None = None
    on_error: str = "raise"

    def __bool__(self) -> bool:
        return any((self.vectors, self.pairs, self.prompt_vectors, self.prompt_of))

    def views(self) -> dict[str, NDArray[Any]]:
        """Return every matrix by its view, memory-mapped."""
        if not self.vectors:
            raise InvalidInputError(
                "--pairs, --prompt-vectors and --prompt-of belong to --vectors FILE.npy; give it too"
            )
        out: dict[str, NDArray[Any]] = {}
        for side, files in (("response", self.vectors), ("prompt", self.prompt_vectors or ())):
            for item in files:
                view, path = _view(item, side)  # type: ignore[arg-type]
                if view in out:
                    raise InvalidInputError(f"the view {view!r} is given twice; write {side} views as NAME=FILE.npy")
                out[view] = read_array(path)
        return out

    def responses(self) -> EmbeddedResponses:
        """Return the responses without pairs, for scoring."""
        if self.pairs is not None:
            raise InvalidInputError("score gives rewards of responses; leave --pairs out")
        views, prompt_of = self._flat()
        rows = np.zeros(_rows(views), dtype=np.intp) if prompt_of is None else prompt_of
        return EmbeddedResponses(views, rows)

    def preferences(self, split: str | None, default: str, console: Console) -> EmbeddedPreferences:
        """Return the pairs of one split over the vectors; the split is a column of the pairs, see ``take_split``."""
        if self.pairs is None:
            raise InvalidInputError("--vectors needs --pairs FILE with the columns chosen and rejected")
        views, prompt_of = self._flat()
        table = read_pairs(self.pairs, _rows(views), console, self.on_error)
        n_all = len(table["chosen"])
        if "split" in table and split != "all":
            wanted = split or default
            present = sorted(set(table["split"].tolist()) - {""})
            if wanted not in present:
                raise unknown_name(f"split in {self.pairs}", wanted, present)
            mask = table["split"] == wanted
            table = {name: column[mask] for name, column in table.items()}
            console.note(f"{int(mask.sum()):,} of {n_all:,} pairs are in the split {wanted!r}")
        elif split not in (None, "all"):
            raise InvalidInputError(
                f"{self.pairs} has no column 'split', so --split {split} selects nothing; leave it out"
            )
        else:
            console.note(f"all {n_all:,} pairs are used")
        pairs = np.stack([table["chosen"], table["rejected"]], axis=1)
        numbers: dict[str, Any] = {name: table[name] for name in NUMBERS if name in table}
        built = EmbeddedPreferences.from_arrays(views, pairs, prompt_of=prompt_of, **numbers)
        rows, n_prompts = built.responses.prompt_of, built.responses.n_prompts
        labels: dict[str, Any] = {
            name: _of_prompts(self.pairs, name, table[name], table["line"], rows[pairs], n_prompts, prompt_of is None)
            for name in ("domain", "group")
            if name in table
        }
        info = {"data": self._facts(views, pairs)}
        responses = EmbeddedResponses(views, rows, info=info, **labels)
        return EmbeddedPreferences(responses, pairs, **numbers)

    def _flat(self) -> tuple[dict[str, NDArray[Any]], NDArray[Any] | None]:
        """Return matrices and prompt rows; (n_prompts, k, dim) arrays are viewed as (n_prompts * k, dim)."""
        views = self.views()
        prompt_of = None if self.prompt_of is None else read_array(self.prompt_of)
        sides = {view: array for view, array in views.items() if not view.startswith("prompt:")}
        deep = {array.shape[:2] for array in sides.values() if array.ndim == 3}
        if deep:
            if len(deep) > 1 or any(array.ndim != 3 for array in sides.values()):
                raise InvalidInputError("--vectors of shape (n_prompts, k, dim) must agree in n_prompts and k")
            if prompt_of is not None:
                raise InvalidInputError("--prompt-of is implied by vectors of shape (n_prompts, k, dim); leave it out")
            n_prompts, k = next(iter(deep))
            prompt_of = np.repeat(np.arange(n_prompts), k)
            views |= {view: array.reshape(n_prompts * k, array.shape[2]) for view, array in sides.items()}
        if self.prompt_vectors and prompt_of is None:
            raise InvalidInputError("--prompt-vectors needs --prompt-of FILE.npy, the row of each response's prompt")
        return views, prompt_of

    def _facts(self, views: dict[str, NDArray[Any]], pairs: NDArray[Any]) -> dict[str, Any]:
        files = [*(_view(item, "response")[1] for item in self.vectors or ())]
        files += [_view(item, "prompt")[1] for item in self.prompt_vectors or ()]
        digest = blake2b(pairs.astype("<i8").tobytes(), digest_size=16)
        for file in files:
            digest.update(_file_digest(file))
        shapes = {view: [*map(int, array.shape)] for view, array in views.items()}
        return {"name": Path(str(self.pairs)).name, "vectors": shapes, "fingerprint": digest.hexdigest()}


def _view(item: str, side: Side) -> tuple[str, str]:
    """Split ``VIEW=FILE``; a bare file is the side's view "final"."""
    name, equals, path = item.partition("=")
    if not equals or Path(item).exists():
        return view_name(side, "final"), item
    view = name if ":" in name else view_name(side, parse_layers(name)[0])
    found, _ = parse_view(view)
    if (found == "prompt") != (side == "prompt"):
        raise InvalidInputError(f"{view!r} is no view of the {side} side; write for example 3={path} or final={path}")
    return view, path


def read_array(path: str) -> NDArray[Any]:
    """Map one .npy file; nothing in it is ever executed.

    Raises
    ------
    DataError
        Where it is missing, no .npy file, or holds Python objects.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise DataError("there is no such file; check the path.", path) from None
    except OSError as error:
        raise DataError(f"the file cannot be read ({error.strerror or error}); check the path.", path) from None
    except _DAMAGE as error:
        reason = " ".join(str(error).split())[:160]
        raise DataError(
            f"expected one array of numbers in NumPy's .npy format, got something else ({reason}); write it with "
            "np.save(path, array.astype('float32')).",
            path,
        ) from None
    if not isinstance(array, np.ndarray):
        getattr(array, "close", lambda: None)()
        raise DataError("expected one array (.npy), got an archive of them (.npz); save the array alone.", path)
    if not array.ndim:
        raise DataError("expected an array with at least one dimension, got a single number.", path)
    return array


def read_pairs(path: str, n_responses: int, console: Console, on_error: str = "raise") -> dict[str, NDArray[Any]]:
    """Read the table of pairs.

    Returns
    -------
    dict
        ``chosen`` and ``rejected`` (n_pairs,) int; where the file has them ``weight``, ``margin``, ``outcome`` (float)
        and ``group``, ``domain``, ``split`` (str); ``line`` (n_pairs,) int, the place of each.
    """
    if on_error not in ON_ERROR:
        raise unknown_name("on_error", on_error, ON_ERROR)
    source = open_source(path)
    missing = [side for side in ("chosen", "rejected") if source.columns is not None and side not in source.columns]
    if missing:
        raise DataError(
            f"expected the columns chosen and rejected, found no {' and no '.join(missing)}.", path, source.first_line
        )
    columns: dict[str, list[Any]] = {"line": [], "chosen": [], "rejected": []}
    log, seen, known = ErrorLog(on_error), {}, ("chosen", "rejected", *NUMBERS, *NAMES)
    for line, row in source.rows(None if source.columns is None else [c for c in source.columns if c in known]):
        try:
            if isinstance(row, RowError):
                raise row
            seen.update(dict.fromkeys(row))
            values = {side: _row_number(row, side, n_responses) for side in ("chosen", "rejected")}
            if values["chosen"] == values["rejected"]:
                raise RowError("chosen is rejected", "chosen and rejected are the same row", "delete the pair")
            more: dict[str, Any] = {n: _number(row, n) for n in NUMBERS}
            more |= {n: "" if absent(row, n) else str(row[n]) for n in NAMES}
        except RowError as error:
            log.add(path, line, error)
            continue
        for name, value in {"line": line, **values, **more}.items():
            columns.setdefault(name, []).append(value)
    log.finish()
    if not columns["line"]:
        if log.total:
            raise log.error(f"none of the {log.total} rows can be used: ")
        raise DataError("the file has no rows; expected one pair a row.", path)
    for text in reading_notes({"skipped": log.to_info()}):
        console.note(text)
    unused = [name for name in (source.columns or seen) if name not in known]
    if unused:
        console.note(f"columns of {path} that are not used: {', '.join(unused[:12])}")
    out = {name: np.array(columns[name], dtype=np.intp) for name in ("line", "chosen", "rejected")}
    out |= {name: np.array(columns[name], dtype=np.float64) for name in NUMBERS if name in seen}
    out |= {name: np.array(columns[name], dtype=str) for name in NAMES if name in seen}
    return out


def _row_number(row: Any, side: str, n: int) -> int:
    if absent(row, side):
        raise RowError("missing field", f"there is no {side!r}", "give the row of its vector, from 0")
    number = check_number(row[side], side, "not a row")
    if number != int(number) or not 0 <= number < n:
        raise RowError("not a row", f"{side} must be a whole number from 0 to {n - 1}, got {number:g}", "count from 0")
    return int(number)


def _number(row: Any, name: str) -> float:
    default = {"weight": 1.0, "margin": np.nan, "outcome": 1.0}[name]
    value = row.get(name)
    if absent(row, name) or (isinstance(value, float) and np.isnan(value)):
        return default
    number = check_number(value, name, f"bad {name}")
    if name == "weight" and number < 0:
        raise RowError("bad weight", "weight must not be negative", "give a number from 0")
    if name == "outcome" and not 0.5 <= number <= 1:
        raise RowError(
            "bad outcome", f"outcome must lie in 0.5 to 1, got {number:g}", "swap the pair if it is below 0.5"
        )
    return number


def _of_prompts(
    path: str,
    name: str,
    labels: NDArray[Any],
    lines: NDArray[Any],
    prompts: NDArray[Any],
    n_prompts: int,
    connected: bool,
) -> NDArray[Any]:
    """Turn one label a pair into one label a prompt; two labels of one prompt are an error that names both lines."""
    out = np.full(n_prompts, "", dtype=object)
    first = np.full(n_prompts, -1)
    for i, (label, ends) in enumerate(zip(labels.tolist(), prompts.tolist())):
        for prompt in ends if label else ():
            if first[prompt] < 0:
                first[prompt], out[prompt] = i, label
            elif out[prompt] != label:
                why = (
                    "responses that pairs connect are taken for answers to one prompt; give --prompt-of if they are not"
                    if connected
                    else "a prompt has one"
                )
                raise DataError(
                    f"{name} {label!r} here and {out[prompt]!r} in line {lines[first[prompt]]} are of one prompt: {why}.",
                    path,
                    int(lines[i]),
                )
    # a prompt without a group is its own
    unnamed = [f"prompt {i}" if name == "group" else "default" for i in range(n_prompts)]
    return np.array([label or other for label, other in zip(out.tolist(), unnamed)], dtype=object)


def _rows(views: dict[str, NDArray[Any]]) -> int:
    return next(len(array) for view, array in views.items() if not view.startswith("prompt:"))


def _file_digest(path: str) -> bytes:
    hasher = blake2b(digest_size=16)
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            hasher.update(block)
    return hasher.digest()
