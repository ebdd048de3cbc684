"""The literal arms of the router study beside their frozen analogues, both trained on the very same pairs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from embedrm.composites.routed import RoutedRewardModel
from embedrm.encoding import encode
from embedrm.errors import InvalidInputError
from embedrm.evaluation import accuracy_facts, comparison_facts, router_facts
from embedrm.experiments import literal_arms as arms
from embedrm.experiments import variants as v
from embedrm.experiments.literal_claims import judge_literal
from embedrm.experiments.literal_report import add_literal_sections, literal_findings
from embedrm.experiments.literal_scores import TunedArms, latencies, routed_margins, tuned_sizes
from embedrm.experiments.study import duration, load_dataset, with_splits
from embedrm.featurizers import Featurizer
from embedrm.heads.linear import LinearHead
from embedrm.numerics.bootstrap import N_RESAMPLES
from embedrm.parameters import n_parameters
from embedrm.pipeline import RewardPipeline
from embedrm.progress import Progress, silent
from embedrm.reward_model import RewardModel

if TYPE_CHECKING:
    from embedrm.datasets import PreferenceDataset
    from embedrm.encoders import Encoder
    from embedrm.reporting import Report

Array = NDArray[np.float64]

ARMS = (arms.SINGLE, arms.RODOS, arms.MORE, arms.ARLISS)
ANALOGUES = {arms.SINGLE: v.SINGLE, arms.RODOS: v.RODOS, arms.MORE: v.MORE, arms.ARLISS: v.ARLISS}
JOINT = "single head on joint texts, frozen"
"""The frozen encoder on what the tuned ones read, so that reading prompt and response together is not taken for tuning."""
N_REQUESTS = 40
# Forwards alone costs a third of a step; routed arms read some pairs under two experts, the gate reads prompts too.
_SCORING_READS = 4.6 / 3.0


def tuned(of: str) -> str:
    """Return the name of a tuned variant in tables."""
    return f"{of}, tuned"


def frozen(of: str) -> str:
    """Return the name of its analogue."""
    return f"{of}, frozen"


def oracle(name: str) -> str:
    """Return the name of a routed variant under the true domains."""
    return f"{name}, oracle"


class LiteralPlan:
    """What will be tuned, where it is kept, and how long it takes; nothing is tuned before :meth:`run`.

    Parameters
    ----------
    data : PreferenceDataset, path or None
        The bundled data set where absent.
    preset : str
        Of :data:`embedrm.experiments.literal_arms.LITERAL_PRESETS`, or one of one's own.
    encoder : Encoder or str, optional
        What is tuned, and what the analogues keep frozen.

    Attributes
    ----------
    store : EmbeddingStore or None
        Where the frozen vectors are kept; the user's own where None.

    Raises
    ------
    InvalidInputError
        An encoder that cannot be tuned, or data that have too few domains.
    MissingDependencyError
        Without the package peft, which the adapters need.
    """

    def __init__(
        self,
        data: PreferenceDataset | str | None = None,
        preset: str | arms.LiteralPreset = "quick",
        encoder: Encoder | str | None = None,
    ) -> None:
        from embedrm.tuning.methods import import_peft

        import_peft("the literal arm ARLISS")
        self.preset = arms.LITERAL_PRESETS[preset] if isinstance(preset, str) else preset
        self.encoder = encoder
        self.store: Any = None
        self.config = arms.tuning_base(encoder, self.preset)
        dataset = with_splits(load_dataset(data))
        self.train = dataset.subset(arms.drawn_rows(dataset, self.preset.n_pairs)).compact()
        self.arms = arms.arms(self.train, self.config, self.preset.router_epochs)
        self.domains = sorted(set(self.train.pair_domains().tolist()))
        splits = dataset.response_splits()[dataset.pairs["chosen"].to_numpy()]
        judged = (splits == "test") & np.isin(dataset.pair_domains().astype(str), self.domains)
        if not judged.any():
            raise InvalidInputError(
                f"literal arms need test pairs of the domains they are trained on ({', '.join(self.domains)}), and there "
                "are none. Give data whose splits share domains."
            )
        self.test = dataset.subset(judged).compact()
        self.folder = arms.work_folder(self.train, self.config, self.preset.router_epochs)

    def estimate(self) -> str:
        """Say how long the literal arms take on this machine, from a few timed steps, and what they need."""
        found = arms.estimate_arms(self.arms, self.folder)
        left = int(found["arms"])
        sizes = f"{len(self.train):,} training pairs, {self.config.epochs} epochs, one seed"
        if not left:
            return f"literal arms ({sizes}): all {len(self.arms)} are tuned already, in {self.folder}; scoring takes minutes"
        whole = found["rate"] * found["tokens"]
        scoring = whole * len(self.test) / len(self.train) * _SCORING_READS
        ready = f" ({len(self.arms) - left} more are there already)" if left < len(self.arms) else ""
        return (
            f"literal arms ({sizes}): {left} models to tune{ready}, about {duration(found['seconds'] + scoring)} on this "
            f"machine as it is now, scoring included; memory about {found['memory_bytes'] / 2**30:.1f} GiB, disk "
            f"{found['disk_bytes'] / 2**30:.1f} GiB in {self.folder}, where a run that was stopped goes on"
        )

    def run(
        self,
        featurizer: Featurizer,
        *,
        progress: Progress = silent,
        n_resamples: int = N_RESAMPLES,
    ) -> LiteralStudy:
        """Fit the analogues, tune what is not tuned yet, and measure both."""
        return LiteralStudy(self, featurizer, self.store, progress, n_resamples)


class LiteralStudy:
    """Tuned arms and frozen analogues on the same pairs: facts, claims, sections of a report.

    Attributes
    ----------
    accuracy, router, sizes, latency, cost, compared, claims
        Plain facts; see :meth:`facts`.
    """

    def __init__(
        self, plan: LiteralPlan, featurizer: Featurizer, store: Any, progress: Progress, n_resamples: int
    ) -> None:
        self.plan, self.n_resamples = plan, n_resamples
        self.base = plan.config.base
        self.train_prefs = encode(plan.train, plan.encoder, store=store, progress=progress)
        self.test = encode(plan.test, plan.encoder, store=store, progress=progress)
        self.margins: dict[str, Array] = {}
        # first the analogues: what they refuse is refused before hours of tuning
        self.analogues, self.seconds = self._fit_analogues(featurizer)
        self.margins[JOINT] = self._joint_margins(store)
        self.encoding_seconds = self._encoding_seconds()
        tuned_arms = arms.tune_arms(plan.arms, plan.folder, progress)
        self.tuned = TunedArms(tuned_arms, plan.domains)
        self.tuned_facts = {name: arm.facts_ for name, arm in tuned_arms.items()}
        self.router: dict[str, dict[str, Any]] = {}
        self._score_tuned(progress("score tuned encoders"))
        self.accuracy = accuracy_facts(self.margins, self.test, n_resamples=n_resamples)
        self.sizes = tuned_sizes(self.tuned)
        self.latency = self._latency()
        self.switching = self.tuned.switching_seconds()
        self.cost = self._cost()
        self.compared = self._compare()
        self.claims = judge_literal(self.compared, self.sizes)

    def _fit_analogues(self, featurizer: Featurizer) -> tuple[dict[str, RewardModel], dict[str, float]]:
        models, seconds = {}, {}
        for of, name in ANALOGUES.items():
            began = time.process_time()
            models[of] = v.factories(featurizer)[name](0).fit(self.train_prefs)
            seconds[of] = time.process_time() - began
            self.margins[frozen(of)] = models[of].margins(self.test)
            routed = models[of]
            if isinstance(routed, RoutedRewardModel):
                self.margins[oracle(frozen(of))] = routed.with_routing("oracle").margins(self.test)
        return models, seconds

    def _joint_margins(self, store: Any) -> Array:
        from embedrm.tuning.base import find_base, reward_layer

        encoder = find_base(self.plan.config)
        layer = reward_layer(encoder.files)
        train, test = (
            encode(data, encoder, layers={"joint": str(layer)}, sides=("joint",), store=store)
            for data in (self.plan.train, self.plan.test)
        )
        head = LinearHead(Featurizer(["r"], response=f"joint:{layer}", scale="rms"), l2="cv")
        return head.fit(train).margins(test)

    def _encoding_seconds(self) -> float:
        """Processor seconds to encode what the analogues are trained on, the store left aside."""
        began = time.process_time()
        encode(self.plan.train, self.plan.encoder, store=False)
        return time.process_time() - began

    def _score_tuned(self, step: Any) -> None:
        data, found = self.plan.test, self.tuned
        self.margins[tuned(arms.SINGLE)] = found.single.margins(data)
        step(1, 4)
        prompts = self.test.active_prompts
        texts = data.prompt_texts(found.single.template)
        responses = self.test.responses
        for done, of in enumerate((arms.RODOS, arms.ARLISS), start=2):
            proba, classes = found.probabilities(of, [texts[p] for p in prompts.tolist()])
            truth, group = responses.domain[prompts], responses.group[prompts]
            self.router[tuned(of)] = router_facts(proba, classes, truth, groups=group, n_resamples=self.n_resamples)
            sent = dict(zip(prompts.tolist(), np.array(classes, dtype=object)[proba.argmax(axis=1)]))
            routes = np.array([sent[p] for p in self.test.prompt_rows.tolist()], dtype=object)

            def score(domain: str, part: PreferenceDataset, of: str = of) -> Array:
                return found.expert_margins(of, domain, part)

            hard, own = routed_margins(score, data, routes, self.plan.domains)
            self.margins[tuned(of)], self.margins[oracle(tuned(of))] = hard, own
            step(done, 4)
        self.margins[tuned(arms.MORE)] = found.more.margins(data)
        step(4, 4)

    def _latency(self) -> list[dict[str, Any]]:
        texts, answers = self.plan.test.prompt_texts(self.tuned.single.template), self.plan.test.response_texts()
        chosen = self.plan.test.pairs["chosen"].to_numpy()
        rows = chosen[np.linspace(0, len(chosen) - 1, min(N_REQUESTS, len(chosen))).astype(int)].tolist()
        owner = self.plan.test.responses["prompt_of"].to_numpy()
        serve = {tuned(of): self.tuned.request(of) for of in ARMS}
        # the encoder with the limits of the tuning, so that it reads as much
        for of, model in self.analogues.items():
            pipeline = RewardPipeline(self._frozen_encoder(), model, store=False)
            serve[frozen(of)] = partial(_score_one, pipeline)
        return latencies(serve, [(texts[owner[r]], answers[r]) for r in rows])

    def _frozen_encoder(self) -> Encoder:
        from embedrm.encoders import load_encoder

        encoder = self.plan.encoder
        return load_encoder(encoder or self.base) if encoder is None or isinstance(encoder, str) else encoder

    def _cost(self) -> list[dict[str, Any]]:
        spent = arms.core_seconds(self.plan.arms, self.plan.folder)
        size = {row["variant"]: row for row in self.sizes}
        speed = {row["variant"]: row for row in self.latency}
        base = size[arms.ARLISS]
        rows = []
        for of in ARMS:
            own = [arm for arm in self.plan.arms if arm.of == of]
            rows.append(
                {
                    "variant": tuned(of),
                    "parameters": size[of]["parameters"],
                    "bytes": size[of]["bytes"],
                    "latency": speed[tuned(of)]["seconds"],
                    "ratio": speed[tuned(of)]["ratio"],
                    "seconds": sum(spent[arm.name] for arm in own),
                }
            )
        encoder = self.tuned.base.n_parameters()
        weights = base["base_bytes"]
        for of, model in self.analogues.items():
            rows.append(
                {
                    "variant": frozen(of),
                    "parameters": encoder + n_parameters(model),
                    "bytes": weights + v.size_on_disk(model),
                    "latency": speed[frozen(of)]["seconds"],
                    "ratio": speed[frozen(of)]["ratio"],
                    "seconds": self.encoding_seconds + self.seconds[of],
                }
            )
        return rows

    def _compare(self) -> Mapping[tuple[str, str], dict[str, Any]]:
        asked = [(tuned(of), frozen(of)) for of in ARMS]
        asked += [(tuned(of), tuned(arms.SINGLE)) for of in ARMS[1:]]
        asked.append((tuned(arms.SINGLE), JOINT))
        asked += [(tuned(arms.RODOS), tuned(of)) for of in (arms.MORE, arms.ARLISS)]
        return {
            (a, b): comparison_facts(self.margins[a], self.margins[b], self.test, n_resamples=self.n_resamples)
            for a, b in asked
        }

    def facts(self) -> dict[str, Any]:
        """Return everything measured, as plain values."""
        return {
            "accuracy": self.accuracy,
            "router": self.router,
            "sizes": self.sizes,
            "latency": self.latency,
            "switching_seconds": self.switching,
            "cost": self.cost,
            "claims": self.claims,
        }

    def findings(self) -> list[str]:
        """Return what to take away, one sentence each."""
        return literal_findings(self)

    def add_sections(self, report: Report) -> None:
        """Add tables, the figure and the notes to a report."""
        add_literal_sections(self, report)


def _score_one(pipeline: RewardPipeline, prompt: str, response: str) -> float:
    return float(pipeline.score(prompt, [response])[0])
