"""Merging on frozen vectors: rewards, linear heads, and trunks of perceptrons, the head-level analogue of DogeRM."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from embedrm.composites.merged import MergedRewardModel
from embedrm.errors import InvalidInputError, unknown_name
from embedrm.evaluation import accuracy_facts, comparison_facts
from embedrm.experiments.merging_head_claims import judge_heads
from embedrm.experiments.merging_head_curves import Curves, cells, lambda_facts
from embedrm.experiments.merging_head_report import add_head_sections, head_findings
from embedrm.experiments.study import StudyData
from embedrm.featurizers import Featurizer
from embedrm.heads.linear import LinearHead
from embedrm.heads.mlp import MLPHead
from embedrm.merging.fisher import fisher_moments
from embedrm.merging.heads import merge_heads
from embedrm.merging.methods import MERGE_METHODS, make_method
from embedrm.merging.sweep import LAMBDAS, sweep_heads, sweep_margins
from embedrm.merging.trunks import DENOISE, train_trunk
from embedrm.numerics.bootstrap import N_RESAMPLES
from embedrm.numerics.ties import pair_credit
from embedrm.progress import Progress, silent
from embedrm.reward_model import RewardModel

if TYPE_CHECKING:
    from embedrm.preferences import EmbeddedPreferences
    from embedrm.reporting import Report

Array = NDArray[np.float64]

REWARDS_LINEAR, LINEAR = "linear heads, rewards averaged", "linear heads, weights merged"
REWARDS_MLP, WARM = "perceptrons, rewards averaged", "perceptrons, weights merged (WARM)"
PROMPT, DENOISING, GRADES = "which prompt it answers", "denoising", "its grade"
TASKS = (PROMPT, DENOISING, GRADES)
"""What a domain's trunk learns of a response; none reads which of two was chosen. The first one there is judges claims."""
ALIGNED = "trunk from another start, aligned"
TWO_REWARD_MODELS, DOGE = "two reward models", "a reward model and a trunk without preferences (analogue of DogeRM)"

METHOD_OPTIONS: dict[str, dict[str, Any]] = {
    "dare_linear": {"density": 0.5},
    "dare_ties": {"density": 0.5},
    "breadcrumbs": {"density": 0.9},
}
"""Options of methods that have no default for them; all other options are the methods' own."""
MIDDLE = 0.35
"""Of the region 0.2 to 0.5: the weight at which methods are compared where validation chose not to merge at all."""
EPOCHS = {PROMPT: 40, DENOISING: 20, GRADES: 40}
START_EPOCHS = 10


class HeadMergeStudy:
    r"""Everything of Lin et al. (2024) that frozen vectors allow: reward-level and head-level merging over lambda.

    The general model learns from pairs of all domains that are no target. Rewards of it and of a head on a target's own
    pairs are averaged; weights of linear heads are merged, which is the same; and trunks of perceptrons are merged, all
    forked from one start: the general reward model's with one that learnt something without preferences from the target's
    responses, the general reward layer kept. lambda is chosen for each target on its validation pairs, by the mean accuracy
    over the seeds; test pairs choose nothing.

    Parameters
    ----------
    data : StudyData
        With validation pairs of every target.
    targets : mapping of str to str
        A target's label, such as "math", to its domain in the data.
    featurizer : Featurizer, optional
        Of all heads; the response alone, all its views, where absent.
    hidden : sequence of int
        Widths of the trunk.
    n_seeds : int
        Starts of the perceptrons, each with a general and a domain model; curves are means over them.
    progress : Progress
    n_resamples : int
    seed : int
        Of the first start.

    Attributes
    ----------
    levels : dict of (str, str) to dict
        By level and label: :func:`embedrm.experiments.merging_head_curves.lambda_facts`.
    primary : str
        The level by which claims are judged, fixed before anything is measured: the first of :data:`TASKS` there is.
    methods : dict of str to list of dict
    linear, alignment, cost : dict
    claims : list of dict
    notes : list of str

    Raises
    ------
    InvalidInputError
        Without targets, general pairs, or validation and test pairs of a target; for an unknown domain, with the nearest.
    """

    def __init__(
        self,
        data: StudyData,
        targets: Mapping[str, str],
        *,
        featurizer: Featurizer | None = None,
        hidden: Sequence[int] = (128, 64),
        n_seeds: int = 3,
        progress: Progress = silent,
        n_resamples: int = N_RESAMPLES,
        seed: int = 0,
    ) -> None:
        self.data, self.n_resamples, self.lambdas = data, n_resamples, LAMBDAS
        self.targets = _checked(data, targets)
        self.hidden, self.seeds = tuple(hidden), tuple(range(seed, seed + n_seeds))
        self.featurizer = Featurizer(["r"], scale="rms") if featurizer is None else featurizer
        self.others = [d for d in data.train.domains if d not in self.targets.values() and d in data.test.domains]
        self.general_pairs = data.train[~np.isin(data.train.domain, list(self.targets.values()))]
        self.notes: list[str] = []
        self.tasks = self._tasks()
        self.primary = trunk_level(next(iter(self.tasks)))
        self.parts = {"validation": data.validation, "test": data.test}
        self.levels: dict[tuple[str, str], dict[str, Any]] = {}
        self._gained: dict[tuple[str, str], Array] = {}
        self._linear_heads(progress("merge linear heads"))
        self.general_mlps: list[MLPHead] = []
        self.trunks: dict[tuple[str, str], list[MLPHead]] = {}
        self._perceptrons(progress("merge perceptrons"))
        self.alignment = self._align()
        self.methods = self._methods(progress("compare merge methods"))
        self.cost = self._cost()
        self.claims = judge_heads(self.gain(self.primary), [self.levels[self.primary, label] for label in self.targets])

    # -- fitting ----------------------------------------------------------------------------------------------------

    def _tasks(self) -> dict[str, Any]:
        """What trunks can learn on these data: the goal of every response, or the name of the task."""
        responses = self.data.train.responses
        views = [name for name in responses.views if name.startswith("prompt:")]
        tasks: dict[str, Any] = {}
        if views:
            tasks[PROMPT] = np.asarray(responses.views[views[-1]])[responses.prompt_of]
        else:
            self.notes.append(f"No prompt vectors: no trunk learns {PROMPT}.")
        tasks[DENOISING] = DENOISE
        if np.isfinite(responses.gold[self.data.train.active]).all():
            tasks[GRADES] = responses.gold
        else:
            self.notes.append(f"Not every training response has a grade: no trunk learns {GRADES}.")
        return tasks

    def _own(self, label: str) -> EmbeddedPreferences:
        return self.data.train.in_domain(self.targets[label])

    def _add(self, level: str, label: str, curves: Sequence[Curves]) -> None:
        """Judge a level's margins: for each seed, those of every part over lambda."""
        margins = {part: np.stack([found[part] for found in curves]) for part in self.parts}
        facts = self.levels[level, label] = lambda_facts(
            self.lambdas,
            margins,
            self.data.validation,
            self.data.test,
            self.targets[label],
            self.others,
            n_resamples=self.n_resamples,
        )
        credit = pair_credit(margins["test"][:, [facts["chosen"]["index"], 0]]).mean(axis=0)
        self._gained[level, label] = (credit[0] - credit[1])[self._judged(label)]

    def _judged(self, label: str) -> NDArray[np.bool_]:
        rows: NDArray[np.bool_] = (self.data.test.domain == self.targets[label]) & ~self.data.test.ties
        return rows

    def gain(self, level: str) -> dict[str, float]:
        """Change of accuracy from lambda = 0 to the chosen lambdas, each target counting once; a cell."""
        labels = list(self.targets)
        pairs = [self.data.test[self._judged(label)] for label in labels]
        gained = np.concatenate([self._gained[level, label] for label in labels])
        groups, domains = (np.concatenate([getattr(p, name) for p in pairs]) for name in ("groups", "domain"))
        return cells(gained[None], groups, domains, self.n_resamples)[0]

    def _averaged(self, general: RewardModel, domain: RewardModel) -> Curves:
        """Margins of the averaged rewards, both on one scale: their spread over the validation responses, without labels."""
        model = MergedRewardModel.of([("general", general), ("domain", domain)], calibration=self.data.validation)
        weights = np.array([[1.0 - lam, lam] for lam in self.lambdas]) / model.member_scales_
        return {
            part: weights @ np.stack([member.margins(prefs) for member in model.members_])
            for part, prefs in self.parts.items()
        }

    def _linear_heads(self, step: Any) -> None:
        self.general_linear = LinearHead(self.featurizer, l2="cv").fit(self.general_pairs)
        self.linear: dict[str, Any] = {"l2": self.general_linear.l2_, "difference": {}}
        self.domain_linear = {}
        for done, label in enumerate(self.targets, start=1):
            own = self.domain_linear[label] = LinearHead(self.featurizer, l2="cv").fit(self._own(label))
            self._add(REWARDS_LINEAR, label, [self._averaged(self.general_linear, own)])
            self._add(LINEAR, label, [sweep_margins(self.general_linear, own, self.parts, rescale=True)])
            self.linear["difference"][label] = self._linear_difference(own)
            step(done, len(self.targets))

    def _linear_difference(self, own: LinearHead) -> float:
        """Largest difference of a margin between merged heads and averaged rewards, over the largest margin."""
        mean = MergedRewardModel.of([("general", self.general_linear), ("domain", own)])
        gap = size = 0.0
        for lam in self.lambdas:
            merged = merge_heads([self.general_linear, own], [1.0 - lam, lam], rescale=True).margins(self.data.test)
            averaged = mean.set_params(weights=[1.0 - lam, lam]).margins(self.data.test)
            gap, size = max(gap, float(np.abs(merged - averaged).max())), max(size, float(np.abs(averaged).max()))
        return gap / size if size > 0 else gap

    def _perceptrons(self, step: Any) -> None:
        found: dict[tuple[str, str], list[Curves]] = {}
        self.starts: list[MLPHead] = []
        goal = next(iter(self.tasks.values()))
        done, total = 0, len(self.seeds) * len(self.targets)
        for seed in self.seeds:
            head = MLPHead(self.featurizer, self.hidden, random_state=seed)
            drawn = MLPHead(self.featurizer, self.hidden, random_state=seed).initialise(self.data.train)
            start = train_trunk(drawn, self.data.train, goal, max_epochs=START_EPOCHS, random_state=seed)
            general = head.fit_from(self.general_pairs, start)
            self.starts.append(start)
            self.general_mlps.append(general)
            for label in self.targets:
                own = MLPHead(self.featurizer, self.hidden, random_state=seed).fit_from(self._own(label), start)
                found.setdefault((REWARDS_MLP, label), []).append(self._averaged(general, own))
                found.setdefault((WARM, label), []).append(sweep_margins(general, own, self.parts))
                for task, target in self.tasks.items():
                    level = trunk_level(task)
                    trunk = train_trunk(start, self._own(label), target, max_epochs=EPOCHS[task], random_state=seed)
                    self.trunks.setdefault((level, label), []).append(trunk)
                    found.setdefault((level, label), []).append(
                        sweep_margins(general, trunk, self.parts, layers="trunk")
                    )
                done += 1
                step(done, total)
        for (level, label), curves in found.items():
            self._add(level, label, curves)

    def _align(self) -> dict[str, Any]:
        """Trunks of one start merged with general models of another: refused as they are, and aligned."""
        if len(self.seeds) < 2:
            self.notes.append("Alignment needs two starts (n_seeds): left out.")
            return {}
        refusals = []
        for label in self.targets:
            trunks = self.trunks[self.primary, label]
            others = trunks[1:] + trunks[:1]
            try:
                merge_heads([self.general_mlps[0], others[0]], layers="trunk", names=["general", label])
            except InvalidInputError as error:
                refusals.append(str(error))
            self._add(
                ALIGNED,
                label,
                [
                    sweep_margins(general, other, self.parts, layers="trunk", align=True)
                    for general, other in zip(self.general_mlps, others)
                ],
            )
        return {"refusals": refusals}

    # -- methods, cost, claims --------------------------------------------------------------------------------------

    def _methods(self, step: Any) -> dict[str, list[dict[str, Any]]]:
        """Every merge method on the primary trunks, against lambda = 0."""
        names = [name for name in MERGE_METHODS.names() if name != "warm"]
        general = np.stack([model.margins(self.data.test) for model in self.general_mlps])
        moments = [fisher_moments(model, self.general_pairs) for model in self.general_mlps]
        out: dict[str, list[dict[str, Any]]] = {}
        for label, domain in self.targets.items():
            own = self.data.test.domain == domain
            rest = np.isin(self.data.test.domain, self.others)
            chosen = self.levels[self.primary, label]["chosen"]["lambda"]
            for name in names:
                kind, options = make_method(name), dict(METHOD_OPTIONS.get(name, {}))
                lam = 0.5 if kind.uniform else chosen or MIDDLE
                margins = []
                for s, (model, trunk) in enumerate(zip(self.general_mlps, self.trunks[self.primary, label])):
                    extra: dict[str, Any] = {"base": self.starts[s]} if kind.on == "deltas" else {}
                    if kind.moments:
                        extra["moments"] = [moments[s], fisher_moments(trunk, self._own(label))]
                    merged = merge_heads([model, trunk], [1.0 - lam, lam], name, layers="trunk", **extra, **options)
                    margins.append(merged.margins(self.data.test))
                found = np.stack(margins)
                row = {"method": name, "lambda": lam, "options": kind.check_options(options), "on": kind.on}
                for part, rows in (("target", own), ("others", rest)):
                    if not rows.any():
                        row[part] = None
                        continue
                    facts = comparison_facts(
                        found[:, rows], general[:, rows], self.data.test[rows], n_resamples=self.n_resamples
                    )
                    row[part] = facts["macro"]
                out.setdefault(label, []).append(row)
            step(len(out), len(self.targets))
        return out

    def _cost(self, repeats: int = 5) -> dict[str, float]:
        """Median seconds of a sweep over linear heads, and of one evaluation without intervals, taken by turns."""
        head, own = self.general_linear, next(iter(self.domain_linear.values()))
        test = self.data.test
        jobs = {
            "sweep": lambda: sweep_heads(head, own, test, rescale=True),
            "evaluation": lambda: accuracy_facts({"general": head.margins(test)}, test, n_resamples=1),
        }
        seconds: dict[str, list[float]] = {name: [] for name in jobs}
        for _ in range(repeats):
            for name, job in jobs.items():
                began = time.perf_counter()
                job()
                seconds[name].append(time.perf_counter() - began)
        ratio = np.median(np.array(seconds["sweep"]) / np.array(seconds["evaluation"]))
        return {name: float(np.median(values)) for name, values in seconds.items()} | {"ratio": float(ratio)}

    # -- report -----------------------------------------------------------------------------------------------------

    def facts(self) -> dict[str, Any]:
        """Return everything measured, as plain values."""
        return {
            "targets": dict(self.targets),
            "others": list(self.others),
            "lambdas": list(self.lambdas),
            "n_seeds": len(self.seeds),
            "primary": self.primary,
            "levels": [{"level": level, "target": label, **own} for (level, label), own in self.levels.items()],
            "gains": {level: self.gain(level) for level in dict.fromkeys(level for level, _ in self.levels)},
            "methods": self.methods,
            "linear": self.linear,
            "alignment": self.alignment,
            "cost": self.cost,
            "claims": self.claims,
            "notes": self.notes,
        }

    def findings(self) -> list[str]:
        """Return what to take away, one sentence each."""
        return head_findings(self)

    def add_sections(self, report: Report) -> None:
        """Add tables, figures and notes to a report; claims are left to the caller, who may have others beside them."""
        add_head_sections(self, report)


def trunk_level(task: str) -> str:
    """Return the name of the level at which trunks that learnt a task are merged."""
    return f"trunk merged; domain trunk learnt {task}"


def _checked(data: StudyData, targets: Mapping[str, str]) -> dict[str, str]:
    """Return the targets in order of their labels, so that the caller's order changes nothing."""
    if not targets:
        raise InvalidInputError(
            "a study of merging needs at least one target, such as {'math': 'arithmetic'}; got none"
        )
    for label, domain in targets.items():
        if domain not in data.train.domains:
            raise unknown_name(f"domain for the target {label!r}", domain, data.train.domains)
        for part, prefs in (("validation", data.validation), ("test", data.test)):
            if not ((prefs.domain == domain) & ~prefs.ties).any():
                raise InvalidInputError(
                    f"merging towards {label!r} needs {part} pairs of the domain {domain!r} with a preference, got none; "
                    "give data whose splits share domains"
                )
    if len(set(targets.values())) < len(targets):
        raise InvalidInputError(f"each target needs a domain of its own, got {', '.join(sorted(targets.values()))}")
    if not set(data.train.domains) - set(targets.values()):
        raise InvalidInputError(
            "a study of merging needs training pairs of a domain that is no target, for the general model; got none"
        )
    return {label: targets[label] for label in sorted(targets)}
