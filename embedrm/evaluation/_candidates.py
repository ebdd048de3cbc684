"""Which candidates are judged: prompts asked about, gold that is there, rewards that are numbers; all else counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedrm.errors import InvalidInputError, unknown_name
from embedrm.numerics.best_of_n import Candidates
from embedrm.preferences import EmbeddedResponses

Array = NDArray[np.float64]

GOLD_SCALES = ("raw", "standard")
MISSING = ("raise", "drop-prompts", "drop-responses")


@dataclass(frozen=True)
class Scored:
    """Candidates with their gold and their rewards.

    Attributes
    ----------
    candidates : Candidates
    gold : ndarray of shape (n,)
        On the scale asked for.
    rewards : dict of model name to ndarray of shape (n,)
    group, domain : ndarray of shape (n_prompts,), str
    left_out : dict of str to int
        Prompts and responses that are not among the candidates, by reason.
    scale : str
        Of gold.
    """

    candidates: Candidates
    gold: Array
    rewards: dict[str, Array]
    group: NDArray[np.str_]
    domain: NDArray[np.str_]
    left_out: dict[str, int]
    scale: str

    def with_at_least(self, k: int) -> Scored:
        """Keep the prompts with k candidates or more."""
        kept = self.candidates.size >= k
        inside = kept[self.candidates.prompt]
        names = self.candidates.names
        return replace(
            self,
            candidates=Candidates(
                self.candidates.rows[inside],
                np.unique(self.candidates.prompt[inside], return_inverse=True)[1],
                names[kept],
                np.cumsum(self.candidates.size[kept]) - self.candidates.size[kept],
                self.candidates.size[kept],
            ),
            gold=self.gold[inside],
            rewards={name: values[inside] for name, values in self.rewards.items()},
            group=self.group[kept],
            domain=self.domain[kept],
            left_out=self.left_out | {"prompts_with_too_few": int((~kept).sum())},
        )

    @property
    def domains(self) -> tuple[str, ...]:
        """Domains of the prompts, sorted."""
        return tuple(np.unique(self.domain).tolist())

    @property
    def n_by_domain(self) -> dict[str, int]:
        """Prompts of each domain."""
        names, counts = np.unique(self.domain, return_counts=True)
        return dict(zip(names.tolist(), counts.tolist()))

    @property
    def uninformative(self) -> int:
        """Prompts whose candidates all have the same gold, so that no choice matters."""
        start = self.candidates.start
        same = np.maximum.reduceat(self.gold, start) == np.minimum.reduceat(self.gold, start)
        return int(same.sum())

    @property
    def counts(self) -> dict[str, Any]:
        """How many there are, of what size, and what was left out."""
        sizes, prompts = np.unique(self.candidates.size, return_counts=True)
        return {
            "n_prompts": self.candidates.n_prompts,
            "n_groups": len(np.unique(self.group)),
            "n_responses": len(self.gold),
            "k_min": int(sizes[0]),
            "k_max": int(sizes[-1]),
            "k_mean": float(self.candidates.size.mean()),
            "by_k": {str(k): n for k, n in zip(sizes.tolist(), prompts.tolist())},
            "n_uninformative": self.uninformative,
            "left_out": self.left_out,
        }

    @property
    def gold_facts(self) -> dict[str, Any]:
        """Scale and statistics of the gold of the candidates; ``within_sd`` pools the deviations from prompts' means."""
        within = self.gold - self.candidates.means(self.gold)[self.candidates.prompt]
        return {
            "scale": self.scale,
            "mean": float(self.gold.mean()),
            "sd": float(self.gold.std()),
            "within_sd": float(np.sqrt(np.mean(within * within))),
            "low": float(self.gold.min()),
            "high": float(self.gold.max()),
            "binary": bool(np.isin(self.gold, (0.0, 1.0)).all()),
        }


def scored_candidates(
    rewards: Mapping[str, ArrayLike],
    responses: EmbeddedResponses,
    prompts: ArrayLike | None,
    missing: str,
    scale: str,
    *,
    reserved: Sequence[str] = (),
    with_gold: bool = True,
) -> Scored:
    """Collect candidates with gold (any candidates, without ``with_gold``) and check the rewards of each."""
    if missing not in MISSING:
        raise unknown_name("treatment of missing gold", missing, MISSING)
    if scale not in GOLD_SCALES:
        raise unknown_name("scale of gold", scale, GOLD_SCALES)
    asked = _prompt_mask(prompts, responses.n_prompts)
    rows = np.flatnonzero(asked[responses.prompt_of])
    left_out = {"prompts_not_asked_about": int((~asked).sum())}
    gold = responses.gold
    if with_gold:
        if np.isinf(gold[rows]).any():
            raise InvalidInputError("gold must be finite (or NaN where absent), got an infinite value")
        rows, counted = _with_gold(rows, responses, missing)
        left_out |= counted
    if not len(rows):
        raise InvalidInputError(
            "best-of-n found no response"
            + (" with gold" if with_gold else "")
            + " among the prompts asked about; check "
            "the split and the column 'gold'"
        )
    candidates = Candidates.of(responses.prompt_of, rows)
    domain = responses.domain[candidates.names]
    return Scored(
        candidates,
        _on_scale(gold[candidates.rows], domain[candidates.prompt], scale) if with_gold else gold[candidates.rows],
        _checked(rewards, responses.n_responses, candidates.rows, reserved),
        responses.group[candidates.names],
        domain,
        left_out,
        scale,
    )


def _prompt_mask(prompts: ArrayLike | None, n_prompts: int) -> NDArray[np.bool_]:
    if prompts is None:
        return np.ones(n_prompts, dtype=bool)
    given = np.asarray(prompts)
    if given.dtype == np.bool_ and given.shape == (n_prompts,):
        return given
    whole = given.ndim == 1 and (given.size == 0 or np.issubdtype(given.dtype, np.integer))
    if not whole or (given.size and (given.min() < 0 or given.max() >= n_prompts)):
        raise InvalidInputError(
            f"prompts must be a mask of {n_prompts} prompts or rows of them from 0 to {n_prompts - 1}, got {given.dtype} "
            f"of shape {given.shape}"
        )
    mask = np.zeros(n_prompts, dtype=bool)
    mask[given.astype(np.intp)] = True
    return mask


def _with_gold(
    rows: NDArray[np.intp], responses: EmbeddedResponses, missing: str
) -> tuple[NDArray[np.intp], dict[str, int]]:
    """Leave out what has no gold, by the rule asked for, and count it."""
    absent = np.isnan(responses.gold[rows])
    owner = responses.prompt_of[rows]
    n_all = np.bincount(owner, minlength=responses.n_prompts)
    n_absent = np.bincount(owner[absent], minlength=responses.n_prompts)
    none, partly = (n_all > 0) & (n_absent == n_all), (n_absent > 0) & (n_absent < n_all)
    counted = {"prompts_without_gold": int(none.sum())}
    if partly.any():
        n_lacking = int(n_absent[partly].sum())
        if missing == "raise":
            raise InvalidInputError(
                f"gold is missing of {n_lacking:,} responses of {int(partly.sum()):,} prompts whose other responses have "
                "it, and a choice among the rest alone would be of another size; give it, or say missing='drop-prompts' or "
                "'drop-responses'"
            )
        if missing == "drop-prompts":
            counted["prompts_with_gold_missing"] = int(partly.sum())
            none |= partly
        else:
            counted["responses_without_gold"] = n_lacking
    return rows[~absent & ~none[owner]], counted


def _on_scale(gold: Array, domain: NDArray[np.str_], scale: str) -> Array:
    if scale == "raw":
        return gold
    _, code = np.unique(domain, return_inverse=True)
    count = np.bincount(code)
    above = gold - (np.bincount(code, weights=gold) / count)[code]
    sd = np.sqrt(np.bincount(code, weights=above * above) / count)
    return above / np.where(sd > 0, sd, 1.0)[code]


def _checked(
    rewards: Mapping[str, ArrayLike], n_responses: int, rows: NDArray[np.intp], reserved: Sequence[str]
) -> dict[str, Array]:
    if not rewards:
        raise InvalidInputError("best-of-n expects the rewards of at least one model, got none")
    out = {}
    for name, values in rewards.items():
        if name in reserved:
            raise InvalidInputError(
                f"a model cannot be called {name!r}, which is a row of its own; give it another name"
            )
        array = np.asarray(values, dtype=np.float64)
        if array.shape != (n_responses,):
            raise InvalidInputError(
                f"rewards of {name!r} must have shape ({n_responses},), one a response, got {array.shape}"
            )
        taken = array[rows]
        n_bad = int((~np.isfinite(taken)).sum())
        if n_bad:
            raise InvalidInputError(
                f"rewards of {name!r} must be finite, got NaN or infinity for {n_bad:,} of {len(taken):,} candidates; "
                "score them first"
            )
        out[name] = taken
    return out
