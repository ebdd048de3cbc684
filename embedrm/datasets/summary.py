"""What a data set holds, counted; and a digest of its content."""

from __future__ import annotations

import struct
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from embedrm.datasets.preference import PreferenceDataset

Mask = npt.NDArray[np.bool_]


def summarise(data: PreferenceDataset) -> dict[str, Any]:
    """Return the counts of a data set as JSON values, see :meth:`PreferenceDataset.summary`."""
    prompts, responses, pairs = data.prompts, data.responses, data.pairs
    prompt_of = responses["prompt_of"].to_numpy()
    chosen, rejected = pairs["chosen"].to_numpy(), pairs["rejected"].to_numpy()
    outcome = pairs["outcome"].to_numpy()
    characters = responses["characters"].to_numpy()
    tie = outcome == 0.5
    longer = np.sign(characters[chosen] - characters[rejected]) / 2.0 + 0.5
    in_pair = np.zeros(len(responses), dtype=bool)
    in_pair[chosen] = in_pair[rejected] = True
    has_gold = ~np.isnan(responses["gold"].to_numpy())
    groups = prompts["group"].to_numpy().astype(object)
    domains = prompts["domain"].to_numpy().astype(object)
    splits = prompts["split"].to_numpy().astype(object)
    both_ways = _judged_both_ways(chosen, rejected, tie)
    repeated = _repeated(data)
    across = prompt_of[chosen] != prompt_of[rejected]

    def counts(here: Mask) -> dict[str, Any]:
        """Counts over the prompts of a mask, their responses and the pairs whose chosen is theirs."""
        mine = here[prompt_of]
        pair = mine[chosen]
        judged = pair & ~tie
        return {
            "prompts": int(here.sum()),
            "groups": len(set(groups[here])),
            "responses": int(mine.sum()),
            "responses_in_pairs": int((mine & in_pair).sum()),
            "responses_with_gold": int((mine & has_gold).sum()),
            "pairs": int(pair.sum()),
            "ties": int((pair & tie).sum()),
            "disagreements": int((pair & both_ways).sum()),
            "repeated_pairs": int((pair & repeated).sum()),
            "pairs_across_prompts": int((pair & across).sum()),
            "longer_chosen": float(longer[judged].mean()) if judged.any() else None,
        }

    everywhere = np.ones(len(prompts), dtype=bool)
    names = sorted(set(splits))
    by_domain: dict[str, Any] = {}
    for domain in data.domains:
        here = domains == domain
        by_domain[domain] = {
            **counts(here),
            "splits": {name: counts(here & (splits == name)) for name in names if (here & (splits == name)).any()},
        }
    told = (
        "files",
        "columns",
        "unused_columns",
        "set",
        "counts",
        "skipped",
        "group_leak",
        "template",
        "assigned_splits",
        "compacted",
    )
    return {
        "name": data.name,
        "fingerprint": data.fingerprint(),
        "total": counts(everywhere),
        "domains": by_domain,
        "splits": {name: counts(splits == name) for name in names},
        **{key: data.info[key] for key in told if key in data.info},
    }


def _judged_both_ways(chosen: npt.NDArray[np.int64], rejected: npt.NDArray[np.int64], tie: Mask) -> Mask:
    """Mark one pair row for every two responses that were judged both ways (the first row of the smaller one)."""
    marks = np.zeros(len(chosen), dtype=bool)
    judged = np.flatnonzero(~tie)
    if not len(judged):
        return marks
    width = int(max(chosen.max(), rejected.max())) + 1
    forward = chosen[judged] * width + rejected[judged]
    backward = rejected[judged] * width + chosen[judged]
    hit = judged[np.isin(forward, backward) & (chosen[judged] < rejected[judged])]
    _, first = np.unique(chosen[hit] * width + rejected[hit], return_index=True)
    marks[hit[first]] = True
    return marks


def _repeated(data: PreferenceDataset) -> Mask:
    """Mark the pair rows that say exactly what an earlier row says."""
    if not data.n_pairs:
        return np.zeros(0, dtype=bool)
    return data.pairs.duplicated().to_numpy(dtype=bool)


def _digest(kind: bytes, *parts: bytes) -> bytes:
    """Digest of parts, each preceded by its length, so that no two lists of parts run together."""
    hasher = blake2b(kind, digest_size=16)
    for part in parts:
        hasher.update(len(part).to_bytes(8, "little"))
        hasher.update(part)
    return hasher.digest()


def _float(value: float) -> bytes:
    # One pattern for NaN and one for zero, whatever made them.
    return b"nan" if value != value else struct.pack("<d", value + 0.0)


def content_digest(data: PreferenceDataset) -> str:
    """Return the BLAKE2b-128 of what the tables say, in hexadecimal.

    Each prompt, response and pair is digested by its content (a response with its prompt, a pair with its responses),
    and the sorted digests are digested together. Hence row order, row numbers, the types of columns, the version of
    pandas, the name and ``info`` play no part; every text, label, split and number does.
    """
    columns = [data.prompts[name].tolist() for name in ("prompt", "system", "context", "domain", "group", "source")]
    columns.append(data.prompts["split"].tolist())
    prompts = [_digest(b"prompt", *(text.encode() for text in row)) for row in zip(*columns)]
    responses = [
        _digest(b"response", prompts[prompt], text.encode(), _float(gold))
        for text, prompt, gold in zip(
            data.responses["response"].tolist(),
            data.responses["prompt_of"].tolist(),
            data.responses["gold"].tolist(),
        )
    ]
    pairs = [
        _digest(b"pair", responses[chosen], responses[rejected], *(_float(number) for number in numbers))
        for chosen, rejected, *numbers in zip(
            *(data.pairs[name].tolist() for name in ("chosen", "rejected", "weight", "margin", "outcome"))
        )
    ]
    whole = [b"".join(sorted(digests)) for digests in (prompts, responses, pairs)]
    return _digest(b"embedrm preferences 1", *whole).hex()
