"""DogeRM on small encoders: a general reward encoder merged with domain encoders, weight by weight, over lambda."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from embedrm.encoders.merged import MergedEncoder
from embedrm.encoding import encode
from embedrm.evaluation import accuracy_facts
from embedrm.experiments import merging_arms as arms
from embedrm.experiments.merging_best_of_n import BestOfNStudy
from embedrm.experiments.merging_claims import judge_merging
from embedrm.experiments.merging_cost import merge_cost, movements
from embedrm.experiments.merging_curves import sweep_facts
from embedrm.experiments.merging_report import add_merging_sections, merging_findings
from embedrm.experiments.merging_static import make_static, token_weights
from embedrm.featurizers import Featurizer
from embedrm.heads.linear import LinearHead
from embedrm.numerics.bootstrap import N_RESAMPLES
from embedrm.numerics.graph import gather_margins
from embedrm.preferences import EmbeddedResponses
from embedrm.progress import Progress, silent
from embedrm.views import view_name

if TYPE_CHECKING:
    from embedrm.datasets import PreferenceDataset
    from embedrm.experiments.merging_plan import EncoderMergePlan
    from embedrm.preferences import EmbeddedPreferences
    from embedrm.reporting import Report

Array = NDArray[np.float64]
Margins = Callable[[Any, "PreferenceDataset"], Array]

METHODS: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("slerp", {}),
    ("ties", {"density": 0.5}),
    ("dare_linear", {"density": 0.5}),
    ("breadcrumbs", {"density": 0.9}),
)
"""Merged beside the linear method, at the lambda that it chose; task arithmetic with weights that sum to one is linear."""
ALONE, MERGED, TOGETHER = "general alone", "merged", "all merged"


class EncoderMergeStudy:
    """Encoder-level merging: facts, claims, sections of a report.

    Attributes
    ----------
    sweeps, base_sweeps, static_sweeps : dict of str to dict
        Target to :func:`embedrm.experiments.merging_curves.sweep_facts`: both encoders moved; the general one unmoved;
        static token tables.
    together : dict
        Accuracy of the general model, of each merged one at its lambda, and of all merged at once.
    methods, cost, moved, tuning, seconds
        Other methods at the same lambda; what a merge costs; how far the encoders were moved, and by what; seconds of
        tuning (all there were) and of the rest (of this run).
    claims : list of dict
    """

    def __init__(self, plan: EncoderMergePlan, progress: Progress = silent, n_resamples: int = N_RESAMPLES) -> None:
        from embedrm.store import EmbeddingStore
        from embedrm.tuning.base import find_base

        self.plan, self.n_resamples, self.progress = plan, n_resamples, progress
        self.store = EmbeddingStore.default() if plan.store is None else plan.store
        self.tuned = arms.tune_merge_arms(plan.arms, progress)
        began = time.perf_counter()
        self.tuning = {name: one.facts_ for name, one in self.tuned.items()}
        self.general, self.base = self.tuned[arms.GENERAL], find_base(plan.config)
        self.layer = self.general.facts_["layer"]
        first = self.general.joint_encoder()
        self.test, self.base_test = (self._prefs(d, first, self.layer) for d in (plan.test, plan.base_test))
        self.validation = {n: self._prefs(d, first, self.layer) for n, d in plan.validation.items()}
        self.sweeps = {t.name: self._moved_sweep(t) for t in plan.targets}
        self.together = self._together()
        self.methods = self._methods()
        self.best_of_n = self._best_of_n()
        self.base_sweeps = self._base_sweeps()
        self.static_sweeps = self._static_sweeps()
        folders = {name: str(one.folder) for name, one in self.tuned.items()}
        self.moved = movements(folders, plan.config.base)
        self.cost = merge_cost([folders[arms.GENERAL], folders[plan.targets[0].name]], [0.7, 0.3])
        self.seconds = {
            "tuning": float(sum(facts["seconds"] for facts in self.tuning.values())),
            "rest": time.perf_counter() - began,
        }
        self.claims = judge_merging(
            self.sweeps,
            self.static_sweeps,
            {name: study.difference(MERGED, ALONE) for name, study in self.best_of_n.items()},
        )

    # -- margins ------------------------------------------------------------------------------------------------------

    def _prefs(self, data: PreferenceDataset, encoder: Any, layer: Any) -> EmbeddedPreferences:
        return encode(data, encoder, layers={"joint": str(layer)}, sides=("joint",), store=self.store)

    def tuned_margins(self, encoder: Any, data: PreferenceDataset) -> Array:
        """Margins of the general model's own reward head on another encoder's vectors, (n_pairs,)."""
        from embedrm.tuning.heads import TunedHead

        return TunedHead(self.general.folder, encoder, "bradley-terry", self.store).margins(data)

    def _head_margins(self, head: LinearHead, layer: Any, encoder: Any, data: PreferenceDataset) -> Array:
        # the store alone, not encode: counting tokens would merge where the base's tokenizer was saved in another form
        vectors = self.store.get(encoder, data.joint_texts(self.general.template), (layer,))[layer]
        owner = data.responses["prompt_of"].to_numpy()
        rewards = head.predict(EmbeddedResponses({view_name("joint", layer): vectors}, owner))
        return gather_margins(rewards, data.pairs[["chosen", "rejected"]].to_numpy())

    def _limits(self) -> dict[str, Any]:
        config = self.plan.config
        return {"max_length": config.max_length, "truncation": config.truncation, "threads": config.threads}

    def merged(self, models: Sequence[Any], weights: Sequence[float], **options: Any) -> MergedEncoder:
        """Return a merged encoder that reads as much as the tuned ones do."""
        return MergedEncoder([str(model) for model in models], list(weights), **options, **self._limits())

    # -- sweeps -------------------------------------------------------------------------------------------------------

    def _sweep(
        self,
        label: str,
        target: arms.Target,
        encoder_at: Callable[[float], Any],
        margins: Margins,
        lambdas: Sequence[float],
        base: bool = False,
    ) -> dict[str, Any]:
        data, prefs = (self.plan.base_test, self.base_test) if base else (self.plan.test, self.test)
        own, step = self.plan.validation[target.name], self.progress(f"merge {label}")
        began = time.perf_counter()
        rows = []
        for i, lam in enumerate(lambdas):
            encoder = encoder_at(lam)
            rows.append((margins(encoder, own), margins(encoder, data)))
            _release(encoder)
            step(i + 1, len(lambdas))
        facts = sweep_facts(
            lambdas, np.stack([r[0] for r in rows]), self.validation[target.name], np.stack([r[1] for r in rows]), prefs,
            target.domains, n_resamples=self.n_resamples,
        )  # fmt: skip
        return {**facts, "seconds": time.perf_counter() - began}

    def _between(self, first: Any, last: Any, models: Sequence[Any], lam: float, **options: Any) -> Any:
        """The encoder at lambda: at its ends the models themselves, which merging gives back to the bit."""
        if lam in (0.0, 1.0):
            return last if lam else first
        return self.merged(models, [round(1.0 - lam, 12), lam], **options)

    def _moved_sweep(self, target: arms.Target) -> dict[str, Any]:
        domain = self.tuned[target.name]
        at = partial(
            self._between,
            self.general.joint_encoder(),
            domain.joint_encoder(),
            (self.general.folder, domain.folder),
        )
        return self._sweep(f"general and {target.name}", target, at, self.tuned_margins, self.plan.preset.lambdas)

    def _base_sweeps(self) -> dict[str, Any]:
        """The arm in which only the domain encoder moved: the general head is fitted on the unmoved base."""
        head = self._linear(self.layer).fit(self._prefs(self.plan.train, self.base, self.layer))
        margins = partial(self._head_margins, head, self.layer)
        found = {}
        for target in self.plan.targets:
            domain = self.tuned[target.name]
            at = partial(self._between, self.base, domain.joint_encoder(), (self.base.model, domain.folder))
            label = f"unmoved base and {target.name}"
            found[target.name] = self._sweep(label, target, at, margins, self.plan.preset.base_lambdas, base=True)
        return found

    def _static_sweeps(self) -> dict[str, Any]:
        from embedrm.encoders.sentence import SentenceEncoder
        from embedrm.tuning.base import TrainableBase

        plan = self.plan
        counted = [*plan.train.joint_texts(), *(text for arm in plan.arms[1:] for text in arm.data)]
        read = [text for data in (*plan.validation.values(), plan.test) for text in data.joint_texts()]
        weights = token_weights(TrainableBase(self.base).tokens, [*counted, *read], counted)
        tables = {
            name: make_static(one.joint_encoder(), weights, arms.merging_folder(), self.progress, f"of {name}")
            for name, one in self.tuned.items()
        }
        encoders = {name: SentenceEncoder(str(place)) for name, place in tables.items()}
        general = encoders[arms.GENERAL]
        head = self._linear("final").fit(self._prefs(plan.train, general, "final"))
        margins = partial(self._head_margins, head, "final")

        def at(name: str, lam: float) -> Any:
            if lam in (0.0, 1.0):
                return encoders[name] if lam else general
            places = [str(tables[arms.GENERAL]), str(tables[name])]
            # tables of one base and never rotated; the report tells how far they still agree
            return MergedEncoder(places, [round(1.0 - lam, 12), lam], accept=("basis",))

        return {
            t.name: self._sweep(
                f"static tables of general and {t.name}", t, partial(at, t.name), margins, plan.preset.lambdas
            )
            for t in plan.targets
        }

    def _linear(self, layer: Any) -> LinearHead:
        return LinearHead(Featurizer(["r"], response=f"joint:{layer}", scale="rms"), l2="cv")

    def at_chosen(self, target: arms.Target) -> Any:
        """Return the encoder merged with a target's at the lambda chosen for it."""
        domain = self.tuned[target.name]
        models = (self.general.folder, domain.folder)
        lam = self.lambdas()[target.name]
        return self._between(self.general.joint_encoder(), domain.joint_encoder(), models, lam)

    # -- other merges -------------------------------------------------------------------------------------------------

    def lambdas(self) -> dict[str, float]:
        """The lambda chosen for each target."""
        return {name: facts["chosen"]["lambda"] for name, facts in self.sweeps.items()}

    def _together(self) -> dict[str, Any]:
        chosen = self.lambdas()
        n = len(chosen)
        folders = [self.general.folder, *(self.tuned[name].folder for name in chosen)]
        shares = [lam / n for lam in chosen.values()]
        margins = {ALONE: self.tuned_margins(self.general.joint_encoder(), self.plan.test)}
        for target in self.plan.targets:
            label = f"with {target.name} at {chosen[target.name]:g}"
            margins[label] = self.tuned_margins(self.at_chosen(target), self.plan.test)
        if n > 1:
            whole = self.merged(folders, [round(1.0 - sum(shares), 12), *shares])
            margins[TOGETHER] = self.tuned_margins(
                whole if any(shares) else self.general.joint_encoder(), self.plan.test
            )
        facts = accuracy_facts(margins, self.test, n_resamples=self.n_resamples)
        others = ~np.isin(self.test.domain.astype(str), [d for t in self.plan.targets for d in t.domains])
        rest = accuracy_facts(
            {k: m[others] for k, m in margins.items()}, self.test[others], n_resamples=self.n_resamples
        )
        for row, other in zip(facts["rows"], rest["rows"]):
            row["others"] = other["macro"]
            for target in self.plan.targets:
                own = np.isin(self.test.domain.astype(str), list(target.domains))
                if len(target.domains) == 1:
                    row[f"target {target.name}"] = row["domains"][target.domains[0]]
                else:
                    part = accuracy_facts(
                        {"it": margins[row["model"]][own]}, self.test[own], n_resamples=self.n_resamples
                    )
                    row[f"target {target.name}"] = part["rows"][0]["micro"]
        return {**facts, "weights": dict(zip(chosen, shares)), "n_others": int(others.sum())}

    def _best_of_n(self) -> dict[str, BestOfNStudy]:
        found = {}
        for target in self.plan.targets:
            data = self.plan.candidates[target.name]
            if data is not None:
                encoders = {ALONE: self.general.joint_encoder(), MERGED: self.at_chosen(target)}
                models = {name: partial(self._rewards, encoder) for name, encoder in encoders.items()}
                found[target.name] = BestOfNStudy(
                    models, data, reference=ALONE, progress=self.progress, n_resamples=self.n_resamples
                )
        return found

    def _rewards(self, encoder: Any, data: PreferenceDataset) -> Array:
        from embedrm.tuning.heads import TunedHead

        return TunedHead(self.general.folder, encoder, "bradley-terry", self.store).rewards(data)

    def _methods(self) -> list[dict[str, Any]]:
        """Accuracy on each target's own test pairs, by method, at the lambda that the linear method chose."""
        rows = []
        for target in self.plan.targets:
            data = self.plan.test.subset(
                np.flatnonzero(np.isin(self.plan.test.pair_domains().astype(str), target.domains))
            ).compact()
            prefs = self._prefs(data, self.general.joint_encoder(), self.layer)
            chosen = self.lambdas()[target.name]
            lam = chosen if 0.0 < chosen < 1.0 else arms.MIDDLE
            models = (self.general.folder, self.tuned[target.name].folder)
            step = self.progress(f"merge by other methods with {target.name}")
            margins = {"general alone": self.tuned_margins(self.general.joint_encoder(), data)}
            for i, (name, options) in enumerate((("linear", {}), *METHODS)):
                more: dict[str, Any] = {"options": options} if options else {}
                if name in ("ties", "dare_linear", "breadcrumbs"):
                    more["base"] = self.base.model
                encoder = self.merged(models, [round(1.0 - lam, 12), lam], method=name, **more)
                margins[name] = self.tuned_margins(encoder, data)
                _release(encoder)
                step(i + 1, 1 + len(METHODS))
            found = accuracy_facts(margins, prefs, n_resamples=self.n_resamples)
            rows += [
                {
                    "target": target.name,
                    "lambda": lam,
                    "chosen": chosen,
                    "method": row["model"],
                    "accuracy": row["micro"],
                }
                for row in found["rows"]
            ]
        return rows

    # -- the result ---------------------------------------------------------------------------------------------------

    def facts(self) -> dict[str, Any]:
        """Return everything measured, as plain values."""
        names = ("sweeps", "base_sweeps", "static_sweeps", "together", "methods", "cost", "moved", "seconds", "claims")
        return {
            **{name: getattr(self, name) for name in names},
            "best_of_n": {name: study.facts() for name, study in self.best_of_n.items()},
        }

    def findings(self) -> list[str]:
        """Return what to take away, one sentence each."""
        return merging_findings(self)

    def add_sections(self, report: Report) -> None:
        """Add tables, figures and notes to a report."""
        add_merging_sections(self, report)


def _release(encoder: Any) -> None:
    """Free a merged model at once: dozens of them are made in turn."""
    if isinstance(encoder, MergedEncoder):
        encoder.release()
