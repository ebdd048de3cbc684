"""The three tables of a data set: their columns, and the one check that every data set passes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from embedrm.datasets.covariates import COVARIATES, measure
from embedrm.datasets.groups import SPLITS, prompt_group
from embedrm.errors import InvalidInputError

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

PROMPT_COLUMNS = ("prompt", "domain", "group", "system", "context", "source", "split")
RESPONSE_COLUMNS = ("response", "prompt_of", "gold", *COVARIATES)
PAIR_COLUMNS = ("chosen", "rejected", "weight", "margin", "outcome")
_TOKEN_COLUMNS = ("tokens", "tokens_cut")


def _fail(table: str, what: str, row: int | None = None) -> InvalidInputError:
    place = f"{table} table" if row is None else f"{table} table, row {row}"
    return InvalidInputError(f"PreferenceDataset: {place}: {what}")


def _columns(frame: object, table: str, known: Sequence[str], needed: Sequence[str]) -> pd.DataFrame:
    if not isinstance(frame, pd.DataFrame):
        raise _fail(table, f"expected a pandas DataFrame, got {type(frame).__name__}.")
    names = [str(name) for name in frame.columns]
    missing = [name for name in needed if name not in names]
    unknown = [name for name in names if name not in known]
    if missing or unknown or len(set(names)) != len(names):
        raise _fail(
            table,
            f"expected the columns {', '.join(known)} (needed: {', '.join(needed)}); "
            f"missing: {', '.join(missing) or 'none'}; unknown: {', '.join(unknown) or 'none'}.",
        )
    return frame


def _texts(frame: pd.DataFrame, table: str, name: str, default: str | None = None) -> list[str]:
    if name not in frame.columns:
        return [default or ""] * len(frame)
    values: list[Any] = frame[name].tolist()
    for row, value in enumerate(values):
        if not isinstance(value, str):
            raise _fail(table, f"{name} must be a string, got {type(value).__name__}.", row)
        if not value.isascii():
            try:
                value.encode("utf-8")
            except UnicodeEncodeError:
                raise _fail(table, f"{name} holds half of a surrogate pair, which is not text.", row) from None
    return values


def _rows(frame: pd.DataFrame, table: str, name: str, limit: int, of: str) -> Ints:
    values = frame[name].to_numpy()
    if len(values) == 0:
        return np.zeros(0, dtype=np.int64)
    if values.dtype.kind not in "iu":
        raise _fail(table, f"{name} must hold whole numbers (rows of the {of} table), got {values.dtype}.")
    rows = values.astype(np.int64)
    bad = np.flatnonzero((rows < 0) | (rows >= limit))
    if len(bad):
        raise _fail(table, f"{name} is {rows[bad[0]]}, and the {of} table has {limit} rows.", int(bad[0]))
    return rows


def _numbers(frame: pd.DataFrame, table: str, name: str, default: float, *, may_be_nan: bool) -> Floats:
    if name not in frame.columns:
        return np.full(len(frame), default)
    try:
        values = frame[name].to_numpy(dtype=np.float64, na_value=np.nan)
    except (TypeError, ValueError):
        raise _fail(table, f"{name} must be numeric, got {frame[name].dtype}.") from None
    bad = np.flatnonzero(np.isinf(values) if may_be_nan else ~np.isfinite(values))
    if len(bad):
        raise _fail(table, f"{name} must be finite{' or NaN (absent)' if may_be_nan else ''}.", int(bad[0]))
    return values


def text_column(values: Sequence[str]) -> pd.Series:
    """Return texts as pandas' own string column (also where there are none)."""
    return pd.Series(list(values), dtype="str")


def check_prompts(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the prompts table with every column, or raise InvalidInputError."""
    _columns(frame, "prompts", PROMPT_COLUMNS, ("prompt",))
    columns = {name: _texts(frame, "prompts", name) for name in PROMPT_COLUMNS if name not in ("domain", "group")}
    columns["domain"] = _texts(frame, "prompts", "domain", "default")
    if "group" in frame.columns:
        columns["group"] = _texts(frame, "prompts", "group")
    else:
        columns["group"] = [prompt_group(*pair) for pair in zip(columns["prompt"], columns["context"])]
    for name in ("domain", "group"):
        if "" in columns[name]:
            raise _fail("prompts", f"{name} is empty.", columns[name].index(""))
    for row, split in enumerate(columns["split"]):
        if split and split not in SPLITS:
            raise _fail("prompts", f"split must be one of {', '.join(SPLITS)} or empty, got {split!r}.", row)
    return pd.DataFrame({name: text_column(columns[name]) for name in PROMPT_COLUMNS})


def check_responses(frame: pd.DataFrame, n_prompts: int) -> pd.DataFrame:
    """Return the responses table with every column (covariates measured where absent), or raise."""
    _columns(frame, "responses", (*RESPONSE_COLUMNS, *_TOKEN_COLUMNS), ("response", "prompt_of"))
    texts = _texts(frame, "responses", "response")
    prompt_of = _rows(frame, "responses", "prompt_of", n_prompts, "prompts")
    seen: dict[tuple[int, str], int] = {}
    for row, key in enumerate(zip(prompt_of.tolist(), texts)):
        if seen.setdefault(key, row) != row:
            raise _fail("responses", f"the same text and prompt as row {seen[key]}; keep one of them.", row)
    columns: dict[str, Any] = {
        "response": text_column(texts),
        "prompt_of": prompt_of,
        "gold": _numbers(frame, "responses", "gold", np.nan, may_be_nan=True),
    }
    present = [name for name in (*COVARIATES, *_TOKEN_COLUMNS) if name in frame.columns]
    for name in present:
        columns[name] = frame[name].to_numpy()
        if columns[name].dtype.kind not in "iuf":
            raise _fail("responses", f"{name} must be numeric, got {columns[name].dtype}.")
    if not set(COVARIATES) <= set(present):
        measured = measure(texts)
        columns.update({name: measured[name].to_numpy() for name in COVARIATES})
    order = [name for name in (*RESPONSE_COLUMNS, *_TOKEN_COLUMNS) if name in columns]
    return pd.DataFrame({name: columns[name] for name in order})


def check_pairs(frame: pd.DataFrame, n_responses: int) -> pd.DataFrame:
    """Return the pairs table with every column, or raise InvalidInputError."""
    _columns(frame, "pairs", PAIR_COLUMNS, ("chosen", "rejected"))
    chosen = _rows(frame, "pairs", "chosen", n_responses, "responses")
    rejected = _rows(frame, "pairs", "rejected", n_responses, "responses")
    same = np.flatnonzero(chosen == rejected)
    if len(same):
        raise _fail("pairs", "chosen and rejected are one response.", int(same[0]))
    weight = _numbers(frame, "pairs", "weight", 1.0, may_be_nan=False)
    outcome = _numbers(frame, "pairs", "outcome", 1.0, may_be_nan=False)
    if (weight < 0).any():
        raise _fail("pairs", "weight is below zero.", int(np.argmax(weight < 0)))
    outside = (outcome < 0.5) | (outcome > 1)
    if outside.any():
        raise _fail("pairs", "outcome must lie in [0.5, 1]; swap the pair.", int(np.argmax(outside)))
    margin = _numbers(frame, "pairs", "margin", np.nan, may_be_nan=True)
    return pd.DataFrame(
        {"chosen": chosen, "rejected": rejected, "weight": weight, "margin": margin, "outcome": outcome}
    )


def check_tables(
    prompts: pd.DataFrame, responses: pd.DataFrame, pairs: pd.DataFrame, info: Mapping[str, Any]
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Return the three tables complete and in canonical column order, or raise InvalidInputError.

    Beyond the columns: one row per prompt identity, and no group in two splits unless ``info["group_leak"]`` says
    that this was asked for; a pair across prompts stays inside one split.
    """
    prompts = check_prompts(prompts)
    responses = check_responses(responses, len(prompts))
    pairs = check_pairs(pairs, len(responses))
    # A reply that is empty can be scored, since models do give some, but it must not teach.
    teaches = ~np.isnan(responses["gold"].to_numpy())
    for side in ("chosen", "rejected"):
        teaches[pairs[side].to_numpy()] = True
    empty = np.flatnonzero(teaches & np.array([not text for text in responses["response"].tolist()], dtype=bool))
    if len(empty):
        raise _fail("responses", "response is empty, and is in a pair or has gold.", int(empty[0]))
    splits = prompts["split"].to_numpy()
    leak_allowed = "group_leak" in info
    identity = [prompts[name].tolist() for name in ("prompt", "system", "context", "domain")]
    groups = prompts["group"].tolist()
    seen: dict[tuple[str, ...], int] = {}
    for row, key in enumerate(zip(*identity)):
        # Without a prompt the group is all that tells two rows apart; with a tolerated leak, the split is.
        full = (*key, *([groups[row]] if not any(key[:3]) else []), *([splits[row]] if leak_allowed else []))
        if seen.setdefault(full, row) != row:
            raise _fail("prompts", f"the same prompt and domain as row {seen[full]}; keep one of them.", row)
    if not leak_allowed:
        leaks = leaking_groups(groups, splits.tolist())
        if leaks:
            group, sides = next(iter(leaks.items()))
            raise _fail(
                "prompts",
                f"{len(leaks)} groups are in more than one split, such as {group!r} in {' and '.join(sides)}. "
                "Give each group one split, or clear the split column and call with_split().",
            )
    ends = [splits[responses["prompt_of"].to_numpy()[pairs[side].to_numpy()]] for side in ("chosen", "rejected")]
    across = np.flatnonzero(ends[0] != ends[1])
    if len(across):
        raise _fail("pairs", "chosen and rejected belong to prompts of different splits.", int(across[0]))
    return prompts, responses, pairs


def leaking_groups(groups: Sequence[str], splits: Sequence[str]) -> dict[str, dict[str, int]]:
    """Return the groups found in two splits or more: group -> {split: its first prompt row}. No split is no leak."""
    found: dict[str, dict[str, int]] = {}
    for row, (group, split) in enumerate(zip(groups, splits)):
        if split:
            found.setdefault(group, {}).setdefault(split, row)
    return {group: sides for group, sides in found.items() if len(sides) > 1}
