"""Namgoong et al. (2024): router-based domain reward models, on a frozen encoder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from embedrm.composites.routed import RoutedRewardModel
from embedrm.evaluation import accuracy_facts, comparison_facts, wrong_expert_facts
from embedrm.experiments.papers import PAPERS
from embedrm.experiments.papers.base import Paper
from embedrm.experiments.routing_study import RoutingStudy
from embedrm.experiments.study import StudyData, duration, training_responses
from embedrm.featurizers import Featurizer
from embedrm.heads.length import LengthHead
from embedrm.heads.linear import LinearHead
from embedrm.heads.random import RandomHead
from embedrm.numerics.bootstrap import N_RESAMPLES
from embedrm.numerics.graph import gather_margins
from embedrm.preferences import EmbeddedPreferences
from embedrm.progress import Progress, silent
from embedrm.reporting import Report, Table
from embedrm.reporting.accuracy import (
    accuracy_figure,
    accuracy_table,
    splits_table,
    wrong_expert_figure,
)
from embedrm.reporting.report import Section
from embedrm.reward_model import RewardModel
from embedrm.routers.base import prompt_vectors

if TYPE_CHECKING:
    from embedrm.datasets import PreferenceDataset
    from embedrm.experiments.literal_study import LiteralPlan

SHARED = "one shared head"
ROUTINGS = {"hard": "hard routing", "soft": "soft routing", "oracle": "oracle routing", "random": "random routing"}
GROUPS = {
    SHARED: "models",
    "hard routing": "models",
    "soft routing": "models",
    "oracle routing": "bounds on routing",
    "random routing": "bounds on routing",
    "length only": "trivial baselines",
    "random reward": "trivial baselines",
}
TOUR_FIGURE = (SHARED, "hard routing", "soft routing", "oracle routing", "random routing", "length only")
BUNDLED_RESPONSES = 9_743
"""Responses of the training pairs of the bundled data, known without reading them."""
# Seconds of a study on two cores: to start with, of the bundled data, and the power of the responses by which they grow.
# With more of them vectors leave the processor's cache and optima take more steps: of the quick study, four times the
# responses took five times as long. The power of the full study is from smaller data alone.
SECONDS = {"quick": (15.0, 65.0, 1.23), "full": (60.0, 900.0, 1.6)}
# Candidates of the full study; chosen on training folds, never on test.
FEATURES = {
    "response": Featurizer(["r"], scale="rms"),
    "response + prompt×response": Featurizer(["r", "p*r"], scale="rms"),
}


def _margins(fitted: dict[str, RewardModel], test: EmbeddedPreferences) -> dict[str, NDArray[np.float64]]:
    return {name: model.margins(test) for name, model in fitted.items()}


class _Comparison:
    """All rows of the paper's main table on one data set, fitted and scored."""

    def __init__(self, data: StudyData, featurizer: Featurizer, progress: Progress, n_resamples: int) -> None:
        step = progress("fit heads and router")
        head = LinearHead(featurizer, l2="cv")
        shared = head.fit(data.train)
        step(1, 3)
        self.routed = RoutedRewardModel(LinearHead(featurizer, l2="cv")).fit(data.train)
        step(2, 3)
        fitted: dict[str, RewardModel] = {SHARED: shared}
        fitted |= {label: self.routed.with_routing(routing) for routing, label in ROUTINGS.items()}
        fitted |= {"length only": LengthHead().fit(data.train), "random reward": RandomHead().fit(data.train)}
        self.test = data.test
        self.margins = _margins(fitted, data.test)
        logits = {name: model.margins_are_logits for name, model in fitted.items()}
        self.accuracy = accuracy_facts(self.margins, data.test, logits=logits, n_resamples=n_resamples)
        self.n_resamples = n_resamples
        self.wrong_expert = self._wrong_expert()
        self.router = self._router(data.test)
        self.heldout: dict[str, Any] | None = None
        if len(data.heldout):
            self.heldout = accuracy_facts(
                _margins(fitted, data.heldout), data.heldout, logits=logits, n_resamples=n_resamples
            )
            self.heldout_router = self._router(data.heldout)
        step(3, 3)

    def _wrong_expert(self) -> dict[str, Any]:
        responses, rows, pairs = self.test.responses, self.test.active, self.test.local_pairs
        rewards = self.routed.expert_rewards(responses, rows)
        margins = np.stack([gather_margins(r, pairs) for r in rewards.T], axis=1)
        return wrong_expert_facts(margins, self.routed.domains_, self.test)

    def _router(self, part: EmbeddedPreferences) -> dict[str, Any]:
        prompts = part.active_prompts
        responses = part.responses
        truth = responses.domain[prompts]
        found = self.routed.router_.predict(prompt_vectors(responses, self.routed.router_views_, prompts))
        return {"accuracy": float((truth == found).mean()), "n": len(prompts)}

    def compare(self, a: str, b: str) -> dict[str, Any]:
        return comparison_facts(self.margins[a], self.margins[b], self.test, n_resamples=self.n_resamples)

    def heldout_tables(self) -> list[Table]:
        """Return test against held-out phrasings, nothing where the data have no such split."""
        if self.heldout is None:
            return []
        router = self.heldout_router
        caption = (
            "The same models on prompts whose phrasings training has not seen. The router finds the domain of "
            f"{self.router['accuracy']:.1%} of the test prompts and of {router['accuracy']:.1%} of {router['n']:,} held-out "
            "ones."
        )
        parts = {"test": self.accuracy, "held out": self.heldout}
        return [splits_table(parts, "held-out-phrasings", "Does it hold for other phrasings?", caption)]

    def findings(self) -> list[str]:
        rows = {row["model"]: row for row in self.accuracy["rows"]}
        out = []
        for label in ("soft routing", "oracle routing"):
            d = self.compare(label, SHARED)["micro"]
            out.append(
                f"{label} {rows[label]['micro']['value']:.3f} against {rows[SHARED]['micro']['value']:.3f} for one shared "
                f"head (micro): {d['value']:+.3f} [{d['low']:+.3f}, {d['high']:+.3f}]."
            )
        out.append(
            f"The router finds the domain of {self.router['accuracy']:.1%} of {self.router['n']:,} test prompts; "
            f"routing at random gives {rows['random routing']['micro']['value']:.3f}, the longer response "
            f"{rows['length only']['micro']['value']:.3f}."
        )
        return out


@PAPERS.register("namgoong2024")
class Namgoong2024(Paper):
    """Router-based domain reward models."""

    title = "Router-based domain reward models"
    citation = (
        "Namgoong, Jung, Jung and Roh (2024), Exploring Domain Robust Lightweight Reward Models based on Router "
        "Mechanism, Findings of ACL 2024."
    )
    setting = (
        "an analogue. The paper tunes small language models: one for each domain and one as the router (RODOS), one with "
        "experts inside (MoRE), one with adapters (ARLISS); here heads, experts, adapters and routers "
        "share one frozen encoder."
    )
    has_literal = True

    def estimate(self, preset: str = "quick", data: PreferenceDataset | None = None) -> str:
        """Say how long the study takes after encoding, by the responses of the training pairs."""
        n = BUNDLED_RESPONSES if data is None else training_responses(data)
        start, bundled, power = SECONDS[preset]
        time = duration(start + bundled * (n / BUNDLED_RESPONSES) ** power)
        more = "; several times that where it chooses products of prompt and response" if preset == "full" else ""
        return f"about {time} after encoding, on two idle cores{more}"

    def tour(self, data: StudyData, progress: Progress = silent) -> tuple[list[str], Section]:
        """Shared head, routed heads and their controls; the wrong-expert matrix."""
        c = _Comparison(data, FEATURES["response"], progress, N_RESAMPLES)
        text = [
            "One linear head for all domains, against one head for each domain behind a router that sees the prompt only. "
            "Oracle routing knows the true domain, random routing draws one for each prompt."
        ]
        table = accuracy_table(c.accuracy, "router-comparison", "One head or one for each domain?", groups=GROUPS)
        figures = [accuracy_figure(c.accuracy, TOUR_FIGURE, "router-comparison"), wrong_expert_figure(c.wrong_expert)]
        return c.findings(), Section(self.title, text, [table, *c.heldout_tables()], figures)

    def plan_literal(self, preset: str = "quick", data: Any = None, encoder: Any = None) -> LiteralPlan:
        """Lay out the literal arms: RODOS, ARLISS, MoRE and a single encoder, tuned."""
        from embedrm.experiments.literal_study import LiteralPlan

        return LiteralPlan(data, preset, encoder)

    def study(
        self, data: StudyData, preset: str, progress: Progress = silent, *, literal: LiteralPlan | None = None
    ) -> Report:
        """All variants, routes, sizes, domains that come and go, claims; ``full`` chooses the features too."""
        report = Report("reproduction", self.title, notes=[data.sentence(), f"{self.citation} Here: {self.setting}"])
        featurizer, options = FEATURES["response"], {"n_seeds": 5, "n_added": 2, "n_resamples": N_RESAMPLES}
        if preset == "full":
            featurizer, table = _choose_features(data, progress)
            report.add_section(
                "Features", "Chosen by the log loss of training folds, whole prompt groups held out.", [table]
            )
            options = {"n_seeds": 10, "n_added": len(data.train.domains), "n_resamples": 5 * N_RESAMPLES}
        study = RoutingStudy(data, featurizer, progress=progress, **options)
        tuned = None
        if literal is not None:
            from embedrm.experiments.literal_claims import beside

            tuned = literal.run(featurizer, progress=progress, n_resamples=options["n_resamples"])
            study.claims = beside(study.claims, tuned.claims)
        report.summary += study.findings()
        study.add_sections(report)
        if tuned is not None:
            report.summary += tuned.findings()
            tuned.add_sections(report)
        return report


def _choose_features(data: StudyData, progress: Progress) -> tuple[Featurizer, Table]:
    step = progress("choose features")
    rows: list[dict[str, Any]] = []
    best: tuple[float, str] | None = None
    for done, (label, featurizer) in enumerate(FEATURES.items(), start=1):
        results = LinearHead(featurizer, l2="cv").fit(data.train).cv_results_
        chosen = min(results, key=lambda r: r["log_loss"])
        rows.append({"features": label, **chosen})
        best = min(best or (np.inf, ""), (chosen["log_loss"], label))
        step(done, len(FEATURES))
    columns: list[dict[str, Any]] = [
        {"key": "features", "label": "features"},
        {"key": "l2", "label": "l2", "kind": "number"},
        {"key": "log_loss", "label": "held-out log loss", "kind": "number", "digits": 4, "best": "min"},
        {"key": "accuracy", "label": "held-out accuracy", "kind": "share", "best": "max"},
    ]
    caption = "The shared head on the training pairs; the best l2 of each."
    label = best[1] if best else next(iter(FEATURES))
    return FEATURES[label], Table("features", "Choice of features", columns, rows, caption=caption)
