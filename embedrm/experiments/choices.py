"""Candidates with gold on which trials are judged: what the best of n by a model is worth, and how it ranks them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from embedrm.errors import InvalidInputError
from embedrm.evaluation.over_optimisation import GOLD, ChoiceJudge
from embedrm.experiments.judging import NotFiniteError, clustered_se
from embedrm.experiments.mapped_pages import give_back
from embedrm.experiments.trial_metrics import SPEARMAN, gold_name
from embedrm.preferences import EmbeddedResponses

if TYPE_CHECKING:
    from embedrm.reward_model import RewardModel

# Vectors of one block of candidates; models cut it further. What is mapped of it is given back when it is scored.
BLOCK_BYTES = 128 * 2**20
# The prompts that are judged on are drawn once, and are the same for every trial.
_SEED = 0x5C0


@dataclass(frozen=True)
class Choices:
    """Candidates of one split, each with gold.

    Attributes
    ----------
    name : str
        The split.
    responses : EmbeddedResponses
        All that there are; the candidates are those of :attr:`judge`.
    judge : ChoiceJudge
        Of the unbiased estimator, on the prompts that have candidates for the largest n.
    ns : list of int
        Ascending, without 1.
    unit : float
        Standard deviation of gold within prompts, pooled over the candidates.
    group_of : ndarray of shape (n_prompts,), int
    n_groups : int
    """

    name: str
    responses: EmbeddedResponses
    judge: ChoiceJudge
    ns: list[int]
    unit: float
    group_of: NDArray[np.intp]
    n_groups: int

    @classmethod
    def of(
        cls,
        name: str,
        responses: EmbeddedResponses,
        prompts: NDArray[np.bool_],
        ns: Sequence[int],
        n_prompts: int | None = None,
    ) -> Choices:
        """Collect the candidates of some prompts (a mask of them), or of ``n_prompts`` drawn at random among these.

        Prompts without gold, and those whose gold is incomplete, are left out.

        Raises
        ------
        InvalidInputError
            Where there are no candidates for the largest n, gold does not vary, or there are fewer prompts.
        """
        try:
            judge = ChoiceJudge(responses, ns=list(ns), prompts=prompts, missing="drop-prompts")
            if n_prompts is not None:
                names = judge.scored.candidates.names
                if n_prompts > len(names):
                    raise InvalidInputError(
                        f"{n_prompts:,} prompts were asked for (evaluation.prompts), and {len(names):,} have candidates"
                    )
                drawn = np.random.default_rng(_SEED).choice(names, n_prompts, replace=False)
                judge = ChoiceJudge(responses, ns=list(ns), prompts=np.sort(drawn), missing="drop-prompts")
        except InvalidInputError as error:
            raise InvalidInputError(
                f"evaluation.best_of_n on the split {name!r}: {error}; where only another split has candidates with gold, "
                "name that one in evaluation.splits"
            ) from None
        unit = float(judge.scored.gold_facts["within_sd"])
        if not unit > 0:
            raise InvalidInputError(
                f"evaluation.best_of_n on the split {name!r}: all candidates of a prompt have the same gold, so that no "
                "choice matters"
            )
        groups, group_of = np.unique(judge.scored.group, return_inverse=True)
        return cls(name, responses, judge, [n for n in judge.ns if n > 1], unit, group_of, len(groups))

    def rewards(self, model: RewardModel) -> NDArray[np.float64]:
        """Return a fitted model's rewards of the candidates, in their order; scored block by block."""
        rows = self.judge.scored.candidates.rows
        out = np.empty(len(rows))
        width = sum(m.shape[1] * m.itemsize for v, m in self.responses.views.items() if not v.startswith("prompt:"))
        size = max(1, BLOCK_BYTES // max(1, width))
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            out[start : start + size] = model.predict(_taken(self.responses, part))
            give_back(self.responses, int(part[0]), int(part[-1]) + 1)
        return out

    def facts(self, model: RewardModel) -> dict[str, Any]:
        """Return what a fitted model's choices are worth.

        Returns
        -------
        dict
            ``best_of_N`` for each n: gold of the best of n by the model's rewards above the mean of the prompt's
            candidates, in standard deviations within prompts; the mean over all sets of n (the unbiased estimator) and over
            prompts. ``spearman``: rank correlation of rewards and gold, the mean over the prompts whose gold varies. Each
            with its standard error over prompt groups, ``best_of_N_se`` and ``spearman_se``. ``n_candidates`` and
            ``n_choice_prompts``.
        """
        rewards = self.rewards(model)
        if not np.isfinite(rewards).all():
            bad = int((~np.isfinite(rewards)).sum())
            raise NotFiniteError(f"{bad} of {len(rewards)} rewards on the split {self.name!r} are not finite")
        everywhere = np.zeros(self.responses.n_responses)
        everywhere[self.judge.scored.candidates.rows] = rewards
        curves, ranks = self.judge.curves(everywhere)
        gain = (curves[:, :, GOLD] - self.judge.mean_gold[:, None]) / self.unit
        out: dict[str, Any] = {}
        for n in self.ns:
            one = gain[:, self.judge.ns.index(n)]
            out[gold_name(n)] = float(one.mean())
            out[f"{gold_name(n)}_se"] = clustered_se(one, self.group_of, self.n_groups)
        known = ~np.isnan(ranks)
        groups, group_of = np.unique(self.group_of[known], return_inverse=True)
        out[SPEARMAN] = float(ranks[known].mean())
        out[f"{SPEARMAN}_se"] = clustered_se(ranks[known], group_of, len(groups))
        return out | {"n_candidates": len(rewards), "n_choice_prompts": len(ranks)}


def _taken(responses: EmbeddedResponses, rows: NDArray[np.intp]) -> EmbeddedResponses:
    """Return some responses; without copying their vectors where they lie side by side."""
    first, end = int(rows[0]), int(rows[-1]) + 1
    if end - first != len(rows):
        return responses.take(rows)
    part = slice(first, end)
    low, high = int(responses.prompt_of[part].min()), int(responses.prompt_of[part].max()) + 1
    prompts = slice(low, high)
    return EmbeddedResponses(
        {v: m[prompts] if v.startswith("prompt:") else m[part] for v, m in responses.views.items()},
        responses.prompt_of[part] - low,
        domain=responses.domain[prompts],
        group=responses.group[prompts],
        split=responses.split[prompts],
        covariates={k: c[part] for k, c in responses.covariates.items()},
        info=responses.info,
    )
