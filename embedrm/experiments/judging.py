"""What a fitted model is judged on: pairs of one split, and the candidates with gold among which it chooses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from embedrm.errors import InvalidInputError
from embedrm.numerics.bradley_terry import log_loss
from embedrm.numerics.ties import pair_credit
from embedrm.preferences import EmbeddedPreferences

if TYPE_CHECKING:
    from embedrm.experiments.choices import Choices
    from embedrm.reward_model import RewardModel


class NotFiniteError(InvalidInputError):
    """A trial whose result is NaN or infinite."""


@dataclass(frozen=True)
class Judged:
    """One split to be judged on, without its ties, and what means over it need."""

    name: str
    preferences: EmbeddedPreferences
    n_ties: int
    domains: list[str]
    domain_of: NDArray[np.intp]
    group_of: NDArray[np.intp]
    n_groups: int
    choices: Choices | None = None

    @classmethod
    def of(cls, name: str, preferences: EmbeddedPreferences, choices: Choices | None = None) -> Judged:
        """Prepare one split; ties alone are refused. ``choices`` are candidates of its prompts, to be judged on too."""
        kept = preferences[~preferences.ties]
        if not len(kept):
            raise InvalidInputError(
                f"the split {name!r} has {len(preferences)} pairs and all are ties, on which no accuracy can be told; "
                "choose other splits or domains to evaluate on"
            )
        # computed once here and carried along: every trial needs them
        _ = kept.active, kept.local_pairs
        domains, domain_of = np.unique(kept.domain, return_inverse=True)
        groups, group_of = np.unique(kept.groups, return_inverse=True)
        n_ties = len(preferences) - len(kept)
        return cls(name, kept, n_ties, domains.tolist(), domain_of, group_of, len(groups), choices)

    def judge(self, model: RewardModel) -> dict[str, Any]:
        """Return what :meth:`facts` says of a fitted model's margins, and what its choices among candidates are worth."""
        found = self.facts(model.margins(self.preferences), model.margins_are_logits)
        return found if self.choices is None else found | self.choices.facts(model)

    def facts(self, margins: NDArray[np.float64], logits: bool) -> dict[str, Any]:
        """Return accuracy (micro, macro, by domain), its standard error over prompt groups, and the log loss.

        Equal rewards count one half. ``se`` is the sandwich estimate for the mean over pairs, whose prompt groups are
        the independent units.
        """
        if not np.isfinite(margins).all():
            bad = int((~np.isfinite(margins)).sum())
            raise NotFiniteError(f"{bad} of {len(margins)} margins on the split {self.name!r} are not finite")
        credit = pair_credit(margins)
        counts = np.bincount(self.domain_of, minlength=len(self.domains))
        by_domain = np.bincount(self.domain_of, weights=credit, minlength=len(self.domains)) / counts
        micro = float(credit.mean())
        loss = None
        if logits:
            loss = float(log_loss(margins, self.preferences.outcome).mean())
            if not np.isfinite(loss):
                raise NotFiniteError(f"the log loss on the split {self.name!r} is not finite")
        return {
            "micro": micro,
            "macro": float(by_domain.mean()),
            "log_loss": loss,
            "se": clustered_se(credit, self.group_of, self.n_groups),
            "n_pairs": len(credit),
            "n_ties": self.n_ties,
            "n_groups": self.n_groups,
            "domains": dict(zip(self.domains, by_domain.tolist())),
        }


def clustered_se(values: NDArray[np.float64], group_of: NDArray[np.intp], n_groups: int) -> float | None:
    """Sandwich estimate of the standard error of the mean of values (n,) in groups (n,); None for one group."""
    if n_groups < 2:
        return None
    sums = np.bincount(group_of, weights=values - values.mean(), minlength=n_groups)
    return float(np.sqrt(n_groups / (n_groups - 1) * (sums**2).sum()) / len(values))
