"""Over-optimisation of reward models: one model and ensembles choose the best of n, trained on labels of known noise."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from copy import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from embedrm.annotation import annotate
from embedrm.composites.ensemble import EnsembleRewardModel, aggregated
from embedrm.errors import InvalidInputError
from embedrm.evaluation.over_optimisation import ChoiceJudge, over_optimisation_facts
from embedrm.heads.mlp import MLPHead
from embedrm.numerics.annotation import Annotator
from embedrm.numerics.bootstrap import N_RESAMPLES
from embedrm.preferences import EmbeddedPreferences, EmbeddedResponses
from embedrm.progress import Progress, silent
from embedrm.reporting import over_optimisation as parts
from embedrm.reporting.provenance import collect
from embedrm.reporting.report import Report
from embedrm.reward_model import RewardModel, check_preferences

Array = NDArray[np.float64]

SINGLE = "single"
ENSEMBLES = {"mean": "mean", "WCO": "min", "UWO": "uwo"}
"""Rows of the study and the aggregate of each: the mean, worst-case and uncertainty-weighted optimisation."""
NOISE = (0.0, 0.1, 0.2, 0.3, 0.4)


class OverOptimisationStudy:
    """What the best of n is worth by gold, chosen by one model and by ensembles of such models, over label noise.

    For each level of noise and each draw, the training labels are spoilt by a simulated annotator; one model is fitted on
    all of them, an ensemble on the same ones, and both choose among the same candidates.

    Parameters
    ----------
    train : EmbeddedPreferences
        Pairs whose labels are right.
    candidates : EmbeddedResponses
        With gold, of prompts that are not trained on; the views of ``train``. Rewards are of one scale within a prompt only,
        and nothing here compares prompts.
    member : RewardModel, optional
        The single model, and each member; ``MLPHead()`` where absent.
    n_members : int
    kind : str, optional
        Of :class:`embedrm.EnsembleRewardModel`: "seeds" where the member has a ``random_state``, "bootstrap" otherwise.
        Members of "seeds" read every pair, as the single model does.
    k : float
        Of UWO: how much the members' variance costs.
    noise : sequence of float or Annotator
        Levels, the least first; a number is a flip rate.
    n_draws : int
        Of the wrong labels; the draw is the seed of the models too.
    random_state : int
    n_resamples : int
    progress : Progress
    **options
        Of :class:`embedrm.evaluation.over_optimisation.ChoiceJudge`: ``ns``, ``prompts``, ``estimator``, ``missing``,
        ``gold``, ``n_permutations``.

    Attributes
    ----------
    judge : ChoiceJudge
    rewards : dict of (level, model) to ndarray of shape (n_responses,)
        Of the first draw: what a set of chosen responses can be written from
        (:func:`embedrm.experiments.selected_set.write_selected`).

    Raises
    ------
    InvalidInputError
        For candidates among the prompts that are trained on, levels of one name, and options out of range.

    Notes
    -----
    An analogue of Coste et al. (2024) and of the ensembles of Sun et al. (2025) with models on frozen vectors: nothing is
    generated, and the policy that is optimised is best-of-n. Members are standardised on the training responses, so that
    none is withheld from them.

    References
    ----------
    Gao, Schulman and Hilton (2023), "Scaling laws for reward model overoptimization"; Coste et al. (2024), "Reward model
    ensembles help mitigate overoptimization"; Sun et al. (2025), "Reusing embeddings".
    """

    def __init__(
        self,
        train: EmbeddedPreferences,
        candidates: EmbeddedResponses,
        *,
        member: RewardModel | None = None,
        n_members: int = 10,
        kind: str | None = None,
        k: float = 1.0,
        noise: Sequence[float | Annotator] = NOISE,
        n_draws: int = 3,
        random_state: int = 0,
        n_resamples: int = N_RESAMPLES,
        progress: Progress = silent,
        **options: Any,
    ) -> None:
        started = time.perf_counter()
        prefs = check_preferences(train, "OverOptimisationStudy")
        if not isinstance(candidates, EmbeddedResponses):
            raise InvalidInputError(
                f"OverOptimisationStudy needs candidates to be EmbeddedResponses, got {type(candidates).__name__}; those of "
                "preferences are in their attribute 'responses'"
            )
        self._check_number("n_draws", n_draws)
        self._check_number("n_resamples", n_resamples)
        self.member: RewardModel = MLPHead() if member is None else member
        seeded = any(key.rpartition("__")[2] == "random_state" for key in self.member.get_params())
        self.kind = kind or ("seeds" if seeded else "bootstrap")
        self.n_members, self.k = n_members, k
        self.levels = _levels(noise)
        self.judge = ChoiceJudge(candidates, random_state=random_state, **options)
        self._refuse_what_was_trained_on(prefs, candidates)
        ensemble = EnsembleRewardModel(
            self.member, n_members, self.kind, k=k, calibration_fraction=None, random_state=random_state
        )
        ensemble.check_parameters()
        self.rewards: dict[tuple[str, str], Array] = {}
        curves: dict[str, dict[str, list[Any]]] = {
            level: {model: [] for model in (SINGLE, *ENSEMBLES)} for level in self.levels
        }
        step, done = progress("reward models chosen by"), 0
        for level, annotator in self.levels.items():
            for draw in range(n_draws):
                noisy = annotate(prefs, annotator, random_state=random_state + draw)
                for model, rewards in self._rewards(ensemble, noisy, candidates, random_state + draw).items():
                    curves[level][model].append(self.judge.curves(rewards, model))
                    if draw == 0:
                        self.rewards[level, model] = rewards
                done += 1
                step(done, len(self.levels) * n_draws)
        self._judges = [self.judge] * n_draws
        self._curves, self._bootstrap = curves, {"n_resamples": n_resamples, "random_state": random_state}
        self._about = {
            "n_pairs": len(prefs),
            "n_members": n_members,
            "kind": self.kind,
            "k": float(k),
            "member": type(self.member).__name__,
            "noise": {level: annotator.to_info() for level, annotator in self.levels.items()},
        }
        self._facts: dict[str, dict[str, Any]] = {}
        self._provenance: dict[str, Any] = {
            "seeds": list(range(random_state, random_state + n_draws)),
            "data": {"train": prefs.responses.info.get("data"), "candidates": candidates.info.get("data")},
            "encoder": candidates.info.get("encoder"),
            "extra": {"study_seconds": time.perf_counter() - started},
        }

    @classmethod
    def pooled(cls, studies: Sequence[OverOptimisationStudy]) -> OverOptimisationStudy:
        """Return one study of several on data of their own, such as several functions of gold.

        Their draws are its draws, so that intervals are over the data too. They must have the same levels, models and
        members, numbers of pairs, prompts and candidates; ``judge``, ``rewards`` and facts of the data are the first's.
        """
        first = studies[0]
        for one in studies[1:]:
            if one._about != first._about or one._bootstrap["n_resamples"] != first._bootstrap["n_resamples"]:
                raise InvalidInputError(
                    "OverOptimisationStudy.pooled needs studies of the same levels of noise, members, k, numbers of "
                    "pairs and of resamples"
                )
        made = copy(first)
        made._judges = [judge for one in studies for judge in one._judges]
        made._curves = {
            level: {model: [c for one in studies for c in one._curves[level][model]] for model in models}
            for level, models in first._curves.items()
        }
        made._facts = {}
        seeds = [seed for one in studies for seed in one._provenance["seeds"]]
        seconds = sum(one._provenance["extra"]["study_seconds"] for one in studies)
        made._provenance = first._provenance | {"seeds": seeds, "extra": {"study_seconds": seconds}}
        return made

    def without_vectors(self) -> OverOptimisationStudy:
        """Return the study with what its facts need alone: small enough to be sent about."""
        made = copy(self)
        small = {id(judge): judge.without_vectors() for judge in {id(j): j for j in self._judges}.values()}
        made._judges = [small[id(judge)] for judge in self._judges]
        made.judge = made._judges[0]
        return made

    def facts(self, reference: str = SINGLE) -> dict[str, Any]:
        """Return everything measured, as plain values; models are compared with ``reference``.

        Against the single model, an ensemble has the gain of averaging as well as that of caution; WCO and UWO against the
        ``mean`` of the same members have that of caution alone.
        """
        if reference not in self._facts:
            found = over_optimisation_facts(self._judges, self._curves, reference=reference, **self._bootstrap)
            self._facts[reference] = found | self._about
        return self._facts[reference]

    def row(self, level: str, model: str) -> dict[str, Any]:
        """Return the row of one level and model, of the facts' ``rows``."""
        return _find(self.facts()["rows"], "row", level, model)

    def difference(self, level: str, model: str, reference: str = SINGLE) -> dict[str, Any]:
        """Return what a model has over the reference at one level, of the facts' ``differences``."""
        return _find(self.facts(reference)["differences"], f"difference from {reference!r}", level, model)

    def findings(self) -> list[str]:
        """Return what to take away, one sentence each."""
        return parts.over_optimisation_findings(self.facts())

    def add_sections(
        self, report: Report, name: str = "over-optimisation", title: str = "Over-optimisation", text: str = ""
    ) -> None:
        """Add tables and figures to a report; ``name`` begins their names, so that several studies fit in one report."""
        facts = self.facts()
        figures = []
        if facts["gold"]["within_sd"] > 0 and len(facts["ns"]) > 1:
            ends = dict.fromkeys((facts["levels"][0], facts["levels"][-1]))
            figures = [parts.goodhart_figure(facts, level, f"{name}-curve-{i}") for i, level in enumerate(ends)]
            figures.append(parts.noise_figure(facts, f"{name}-noise"))
        tables = [parts.over_optimisation_table(facts, name, title), parts.gold_table(facts, f"{name}-gold")]
        tables.append(parts.differences_table(facts, f"{name}-differences"))
        report.add_section(title, [*([text] if text else []), self._how()], tables=tables, figures=figures)

    def report(self, title: str = "Over-optimisation") -> Report:
        """Return a report of its own."""
        made = Report("over-optimisation", title, self.findings(), notes=_NOTES)
        self.add_sections(made, title=title)
        made.provenance = collect(**self._provenance)
        return made

    def _how(self) -> str:
        facts = self.facts()
        members = {"seeds": "seeds", "bootstrap": "bootstraps of the prompt groups", "features": "features"}[self.kind]
        return (
            f"{facts['member']} on {facts['n_pairs']:,} pairs. The single model is fitted on all of them; an ensemble has "
            f"{facts['n_members']:,} members of different {members}. WCO takes the least of their rewards, UWO the mean "
            f"less {facts['k']:g} times their variance, each member standardised on the training responses."
        )

    def _rewards(
        self, ensemble: EnsembleRewardModel, noisy: EmbeddedPreferences, candidates: EmbeddedResponses, seed: int
    ) -> Mapping[str, Array]:
        single: RewardModel = clone(self.member)
        seeded = [key for key in single.get_params() if key.rpartition("__")[2] == "random_state"]
        single.set_params(**dict.fromkeys(seeded, seed))
        made = {SINGLE: single.fit(noisy).predict(candidates)}
        fitted: EnsembleRewardModel = clone(ensemble).set_params(random_state=seed)
        members = fitted.fit(noisy).predict_members(candidates)
        return made | {name: aggregated(members, aggregate, self.k) for name, aggregate in ENSEMBLES.items()}

    def _refuse_what_was_trained_on(self, train: EmbeddedPreferences, candidates: EmbeddedResponses) -> None:
        """Only where both are the same rows: group names of two data sets need not mean the same."""
        if train.responses is not candidates:
            return
        shared = np.isin(self.judge.scored.group, candidates.group[candidates.prompt_of[train.active]])
        if shared.any():
            raise InvalidInputError(
                f"OverOptimisationStudy: {int(shared.sum()):,} of {len(shared):,} prompts with candidates are in groups "
                "that are trained on, and what a model has seen tells nothing; give prompts=, such as the test split's"
            )

    def _check_number(self, name: str, value: Any) -> None:
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
            raise InvalidInputError(f"OverOptimisationStudy needs {name} to be a whole number from 1, got {value!r}")


_NOTES = (
    "Reward and gold are compared within prompts alone. The divergence is that of best-of-n from the policy that candidates "
    "are drawn from, an upper bound; candidates of several systems, and retrieved ones, have no such policy.",
    "An analogue of the published studies, with heads on frozen vectors; no language model is trained or sampled from.",
)


def _find(rows: list[dict[str, Any]], what: str, level: str, model: str) -> dict[str, Any]:
    for row in rows:
        if (row["level"], row["model"]) == (level, model):
            return row
    known = "; ".join(f"{row['level']}, {row['model']}" for row in rows)
    raise InvalidInputError(f"the study has no {what} of {level!r} and {model!r}; it has {known}")


def _levels(noise: Sequence[float | Annotator]) -> dict[str, Annotator]:
    """Levels by their names, in the order given."""
    made: dict[str, Annotator] = {}
    for one in noise:
        annotator = one if isinstance(one, Annotator) else Annotator(flip_rate=one)
        label = "0 % turned round"
        if not annotator.exact:
            rate = f"{100 * annotator.flip_rate:.4g} % turned round" if annotator.flip_rate else ""
            label = ", ".join(part for part in (rate, _sharpness(annotator)) if part)
        if label in made:
            raise InvalidInputError(f"OverOptimisationStudy: two levels of noise are {label!r}; give each once")
        made[label] = annotator
    if not made:
        raise InvalidInputError("OverOptimisationStudy needs at least one level of noise, such as 0.0 for right labels")
    return made


def _sharpness(annotator: Annotator) -> str:
    return "" if annotator.beta is None else f"β = {annotator.beta:g}"
