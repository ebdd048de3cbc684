"""The set of chosen responses, written for fine-tuning: the best of each prompt's candidates, with where it comes from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedrm.datasets.lines import write_lines
from embedrm.datasets.preference import PreferenceDataset
from embedrm.errors import InvalidInputError
from embedrm.evaluation.best_of_n import select_best
from embedrm.numerics.best_of_n import divergence
from embedrm.preferences import EmbeddedResponses
from embedrm.reporting.provenance import collect

_PROMPT_FIELDS = ("system", "context", "domain", "split", "source")


def write_selected(
    path: str | Path,
    data: PreferenceDataset,
    rewards: ArrayLike,
    *,
    model: str,
    n: int | None = None,
    prompts: ArrayLike | None = None,
    keep: float = 1.0,
    provenance: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Write the response that a reward model likes best of each prompt's candidates, for training on it (RAFT).

    Parameters
    ----------
    path : str or Path
        One JSON object a line: ``prompt``, ``response``, ``score`` (its reward), ``n`` (candidates it was chosen from),
        ``model``; ``gold``, ``system``, ``context``, ``domain``, ``split`` and ``source`` where the data have them.
        ``PATH.provenance.json``, beside it, tells how they were chosen. Ends in .jsonl or .jsonl.gz.
    data : PreferenceDataset
        Prompts with their candidates.
    rewards : array-like of shape (n_responses,)
        Of every response, in the order of ``data``; compared within a prompt.
    model : str
        Name of what gave the rewards.
    n : int, optional
        The first n of a prompt's candidates; all where absent. Prompts with fewer are left out and counted.
    prompts : array-like of int, or mask over the prompts, optional
    keep : float in (0, 1]
        Share of the chosen responses that is kept, those that stand furthest above the mean reward of the candidates they
        were chosen from. Rewards themselves are not compared between prompts, where a Bradley-Terry model has no one scale.
    provenance : mapping, optional
        More facts for the file beside.

    Returns
    -------
    dict
        What the file beside says: ``model``, ``n``, ``keep``, ``rows`` (lines written), ``prompts_with_fewer``, ``ties``
        (prompts where another candidate has the same reward; the earliest is taken), ``not_kept``, ``kl`` (upper bound,
        nats; None where prompts have different numbers of candidates or not all are kept), ``mean_score``, ``mean_gold``
        and ``mean_gold_of_candidates`` (None without gold), and ``made`` (data, versions, time).

    Raises
    ------
    InvalidInputError
        For rewards that are not one finite number a response, files that are there already, and nothing to write.

    References
    ----------
    Dong et al. (2023), "RAFT: reward ranked finetuning for generative foundation model alignment".
    """
    target = Path(path)
    beside = target.with_name(f"{target.name}.provenance.json")
    if not target.name.endswith((".jsonl", ".jsonl.gz")):
        raise InvalidInputError(
            f"write_selected: expected a name that ends in .jsonl or .jsonl.gz, got {target.name!r}"
        )
    for one in (target, beside):
        if one.exists():
            raise InvalidInputError(f"write_selected: {one} exists already; choose another file. Nothing was done")
    if not isinstance(data, PreferenceDataset):
        raise InvalidInputError(
            f"write_selected needs a PreferenceDataset, whose texts are written, got {type(data).__name__}"
        )
    if isinstance(keep, bool) or not isinstance(keep, (int, float)) or not 0 < keep <= 1:
        raise InvalidInputError(f"write_selected needs keep in (0, 1], got {keep!r}")
    owner = data.responses["prompt_of"].to_numpy()
    responses = EmbeddedResponses({}, owner, domain=data.prompts["domain"].to_numpy(dtype=object))
    values = np.asarray(rewards, dtype=np.float64)
    chosen = select_best(values, responses, n=n, prompts=prompts)
    rows, among = chosen["rows"], chosen["n"]
    if not len(rows):
        raise InvalidInputError(f"write_selected: no prompt has {n} candidates; choose among fewer")
    pools = _pools(owner, rows, n)
    advantage = np.array([values[row] - values[pool].mean() for row, pool in zip(rows, pools)])
    n_kept = max(1, round(keep * len(rows)))
    kept = np.sort(np.argsort(-advantage, kind="stable")[:n_kept])
    gold = data.responses["gold"].to_numpy(dtype=np.float64)
    known = not np.isnan(gold[np.concatenate([pools[i] for i in kept])]).any()
    facts: dict[str, Any] = {
        "model": model,
        "n": n,
        "keep": float(keep),
        "rows": n_kept,
        "prompts_with_fewer": chosen["n_excluded"],
        "ties": chosen["n_ties"],
        "not_kept": len(rows) - n_kept,
        "kl": float(divergence(among[0])) if (among[kept] == among[0]).all() and n_kept == len(rows) else None,
        "mean_score": float(values[rows[kept]].mean()),
        "mean_gold": float(gold[rows[kept]].mean()) if known else None,
        "mean_gold_of_candidates": float(np.mean([gold[pools[i]].mean() for i in kept])) if known else None,
        "made": collect(data={"name": data.name, "fingerprint": data.fingerprint()}, extra=provenance),
    }
    lines = _lines(data, rows[kept], among[kept], values, gold, model)
    write_lines(target, lines, "write_selected: ")
    try:
        beside.write_text(json.dumps(facts, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise InvalidInputError(f"write_selected: cannot write {beside}: {error.strerror or error}") from None
    return facts


def _pools(owner: NDArray[np.intp], rows: NDArray[np.intp], n: int | None) -> list[NDArray[np.intp]]:
    """Return the candidates that each chosen response was chosen from."""
    order = np.argsort(owner, kind="stable")
    starts = np.searchsorted(owner[order], owner[rows], side="left")
    ends = np.searchsorted(owner[order], owner[rows], side="right")
    return [order[a : b if n is None else a + n] for a, b in zip(starts, ends)]


def _lines(
    data: PreferenceDataset,
    rows: NDArray[np.intp],
    among: NDArray[np.intp],
    values: NDArray[np.float64],
    gold: NDArray[np.float64],
    model: str,
) -> Iterator[dict[str, Any]]:
    texts, owner = data.responses["response"].tolist(), data.responses["prompt_of"].tolist()
    prompts = data.prompts["prompt"].tolist()
    about = {key: data.prompts[key].tolist() for key in _PROMPT_FIELDS}
    for row, size in zip(rows.tolist(), among.tolist()):
        prompt = owner[row]
        line = {"prompt": prompts[prompt], "response": texts[row], "score": float(values[row])}
        if not np.isnan(gold[row]):
            line["gold"] = float(gold[row])
        yield line | {"n": size, "model": model} | {key: v[prompt] for key, v in about.items() if v[prompt]}
