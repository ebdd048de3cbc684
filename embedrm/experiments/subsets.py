"""Nested training sets for learning curves: by prompts, by pairs a prompt, by responses a prompt.

A pair has one size at which it joins, and stays in every larger set.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from embedrm.errors import InvalidInputError, unknown_name
from embedrm.preferences import EmbeddedPreferences, Rows
from embedrm.reporting.curve import UNITS
from embedrm.reward_model import check_preferences

KINDS = tuple(UNITS)
"""The ways of growing a training set; see :func:`joining_sizes`."""

_SMALLEST = {"prompts": 2, "pairs": 1, "responses": 2}


def joining_sizes(training: EmbeddedPreferences, by: str, random_state: int | Sequence[int] = 0) -> Rows:
    """Return the size at which each pair joins the training set; the set of size s holds the pairs that joined by s.

    Parameters
    ----------
    training : EmbeddedPreferences
        Without pairs across prompts, which belong to no one prompt.
    by : {"prompts", "pairs", "responses"}
        ``prompts``: sizes count prompts. Whole prompt groups are drawn, each with all its responses and pairs, until
        there are as many prompts as asked for (a group of several prompts may exceed that). Domains keep their shares:
        once a share t of the draw is done, a domain of n groups has floor or ceiling of n·t of them (systematic
        sampling with a random start in each domain; a group in several domains counts in the first by name).

        ``pairs``: sizes count pairs a prompt. All prompts are kept, each with at most that many of its pairs, drawn at
        random: what more labels on the same prompts bring.

        ``responses``: sizes count responses a prompt. All prompts are kept, each with at most that many of its
        responses and every pair among these: what wider lists bring, where encoding is the cost. The first two
        responses of a prompt are those of a random pair, so that no prompt is without one.
    random_state : int or sequence of int
        Another value gives another draw.

    Returns
    -------
    ndarray of shape (n_pairs,), int
    """
    across = int(training.cross_prompt.sum())
    if across:
        raise InvalidInputError(
            f"a learning curve draws prompts with their pairs, and {across} of {len(training)} training pairs compare "
            "responses to different prompts; leave them out: preferences[~preferences.cross_prompt]"
        )
    rng = np.random.default_rng(random_state)
    if by == "prompts":
        return _groups_join(training, rng)
    if by == "pairs":
        return _rank(training.prompt_rows, rng.permutation(len(training)).astype(np.float64)) + 1
    if by == "responses":
        drawn = _rank(training.prompt_rows, rng.permutation(len(training)).astype(np.float64)) == 0
        key = rng.random(len(training.active))
        key[training.local_pairs[drawn]] = -1.0
        place = _rank(training.responses.prompt_of[training.active], key) + 1
        joins: Rows = place[training.local_pairs].max(axis=1)
        return joins
    raise unknown_name("kind of learning curve", by, KINDS)


def _groups_join(training: EmbeddedPreferences, rng: np.random.Generator) -> Rows:
    names, code = np.unique(training.groups, return_inverse=True)
    domains, domain = np.unique(training.domain, return_inverse=True)
    stratum = np.full(len(names), len(domains))
    np.minimum.at(stratum, code, domain)
    rank = _rank(stratum, rng.permutation(len(names)).astype(np.float64))
    start, size = rng.random(len(domains)), np.bincount(stratum, minlength=len(domains))
    order = np.argsort((rank + start[stratum]) / size[stratum], kind="stable")
    prompts = np.unique(training.prompt_rows)
    n_prompts = np.bincount(np.searchsorted(names, training.responses.group[prompts]), minlength=len(names))
    joins = np.empty(len(names), dtype=np.intp)
    joins[order] = np.cumsum(n_prompts[order]) - n_prompts[order] + 1
    return joins[code]


def _rank(code: Rows, key: NDArray[np.float64]) -> Rows:
    """Return the place of each entry, from 0, among those of its code, by key."""
    order = np.lexsort((key, code))
    ordered = code[order]
    rank = np.empty(len(code), dtype=np.intp)
    rank[order] = np.arange(len(code)) - np.searchsorted(ordered, ordered)
    return rank


def curve_sizes(
    training: EmbeddedPreferences, by: str, sizes: Sequence[int | str] | None = None, steps: int = 6
) -> list[int]:
    """Return the sizes of a curve, ascending.

    Parameters
    ----------
    training : EmbeddedPreferences
    by : {"prompts", "pairs", "responses"}
        What sizes count: prompts, pairs a prompt, responses a prompt.
    sizes : sequence of int or "all", optional
        "all" is everything there is. Absent, ``steps`` sizes that double up to everything; fewer where they would fall
        below 2 prompts, 1 pair or 2 responses.
    steps : int

    Raises
    ------
    InvalidInputError
        For a size below the smallest or beyond the data, a size given twice, or data in which nothing can vary: one pair
        (or two responses) a prompt.
    """
    if by not in KINDS:
        raise unknown_name("kind of learning curve", by, KINDS)
    check_preferences(training, "a learning curve")
    unit, least = UNITS[by], _SMALLEST[by]
    prompt_rows = training.prompt_rows
    if by == "prompts":
        most = len(np.unique(prompt_rows))
    else:
        most = int(np.bincount(prompt_rows if by == "pairs" else training.responses.prompt_of[training.active]).max())
    if most <= least:
        remedy = "there are too few to draw from" if by == "prompts" else "grow the set by prompts instead"
        raise InvalidInputError(
            f"a learning curve by {by} needs more than {least} {unit}, and these {len(training)} training pairs have at "
            f"most {most}; {remedy}"
        )
    if sizes is None:
        if steps < 2:
            raise InvalidInputError(f"a learning curve needs at least 2 sizes, got steps={steps}")
        return sorted({max(least, -(-most // 2**i)) for i in range(min(steps, 64))})
    wanted = [most if size == "all" else size for size in sizes]
    for size in wanted:
        if isinstance(size, bool) or not isinstance(size, (int, np.integer)) or size < least:
            raise InvalidInputError(f"sizes are whole numbers of {unit} from {least}, or 'all'; got {size!r}")
        if size > most:
            raise InvalidInputError(
                f"the size {size:,} is beyond the training data, which have at most {most:,} {unit}; give up to {most}, or "
                "'all'"
            )
    if not wanted or len(set(wanted)) < len(wanted):
        raise InvalidInputError(f"expected different sizes, got {', '.join(map(str, sizes)) or 'none'}")
    return sorted(int(size) for size in wanted)
