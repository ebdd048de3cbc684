"""The variants of router-based reward modelling, fitted on one data set over several seeds."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedrm.composites.adapters import AdapterRewardModel
from embedrm.composites.mixture import MixtureRewardModel
from embedrm.composites.pooled import PooledRewardModel
from embedrm.composites.routed import RoutedRewardModel
from embedrm.featurizers import Featurizer
from embedrm.heads.length import LengthHead
from embedrm.heads.linear import LinearHead
from embedrm.heads.mlp import MLPHead
from embedrm.heads.random import RandomHead
from embedrm.numerics.graph import gather_margins
from embedrm.parameters import n_parameters
from embedrm.persistence import save_model
from embedrm.preferences import EmbeddedPreferences
from embedrm.progress import Progress, silent
from embedrm.reward_model import RewardModel

Array = NDArray[np.float64]

SINGLE, SINGLE_MLP = "single head", "single perceptron"
RODOS, RODOS_SOFT = "RODOS, hard", "RODOS, soft"
MORE, MORE_LABELLED, MIXTURE = "MoRE", "MoRE, labelled gate", "mixture with a shared part"
ARLISS, ARLISS_SOFT = "ARLISS, hard", "ARLISS, soft"
POOLED = "partial pooling"
ORACLE, RANDOM, WRONG = "oracle routing", "random routing", "wrong routing"
LENGTH, CHANCE = "length only", "random reward"

GROUPS = {
    **dict.fromkeys((SINGLE, SINGLE_MLP), "one model for all domains"),
    **dict.fromkeys((RODOS, RODOS_SOFT, MORE, ARLISS, ARLISS_SOFT), "the paper's variants"),
    **dict.fromkeys((MORE_LABELLED, MIXTURE, POOLED), "variants of ours"),
    **dict.fromkeys((ORACLE, RANDOM, WRONG), "RODOS under other routes"),
    **dict.fromkeys((LENGTH, CHANCE), "trivial baselines"),
}
"""The block of rows that each variant is shown in."""

TRUNK = (64,)


@dataclass
class Variant:
    """One variant, fitted once for each seed.

    Attributes
    ----------
    model : RewardModel
        Of the first seed.
    margins : dict of str to ndarray of shape (n_seeds, n_pairs)
        By the name of the evaluated part. One row where no seed changes the model.
    seconds : float
        Mean time of a fit.
    parameters : int
        Numbers learned; see :func:`embedrm.parameters.n_parameters`.
    copies : int
        Models of the encoder's size that the paper's form of it keeps.
    """

    model: RewardModel
    margins: dict[str, Array]
    seconds: float = 0.0
    parameters: int = 0
    copies: int = 1


def linear(featurizer: Featurizer) -> LinearHead:
    """Return the head that single models and experts are made of."""
    return LinearHead(featurizer, l2="cv")


def factories(featurizer: Featurizer) -> dict[str, Callable[[int], RewardModel]]:
    """Unfitted variants, by name, as functions of the seed."""
    return {
        SINGLE: lambda seed: linear(featurizer),
        SINGLE_MLP: lambda seed: MLPHead(featurizer, TRUNK, random_state=seed),
        RODOS: lambda seed: RoutedRewardModel(linear(featurizer), routing="hard", random_state=seed),
        MORE: lambda seed: MixtureRewardModel(featurizer, shared=False, supervision=0.0, random_state=seed),
        MORE_LABELLED: lambda seed: MixtureRewardModel(featurizer, shared=False, random_state=seed),
        MIXTURE: lambda seed: MixtureRewardModel(featurizer, random_state=seed),
        ARLISS: lambda seed: AdapterRewardModel(
            MLPHead(featurizer, TRUNK, random_state=seed), routing="hard", random_state=seed
        ),
        POOLED: lambda seed: PooledRewardModel(linear(featurizer), random_state=seed),
    }


SEEDED = frozenset({SINGLE_MLP, MORE, ARLISS})
"""Variants that a seed changes; the others have one optimum, and are fitted once."""


def fit_variants(
    train: EmbeddedPreferences,
    parts: Mapping[str, EmbeddedPreferences],
    featurizer: Featurizer,
    seeds: Sequence[int],
    progress: Progress = silent,
) -> dict[str, Variant]:
    """Fit every variant on the training pairs and take its margins on every part.

    Parameters
    ----------
    train : EmbeddedPreferences
    parts : mapping of name to EmbeddedPreferences
        What is evaluated, such as ``"test"``; nothing is chosen on them.
    featurizer : Featurizer
        Of all heads and experts.
    seeds : sequence of int
        For the variants of :data:`SEEDED`, and for the draws of random routing.

    Returns
    -------
    dict of str to Variant
        In the order of a table: :data:`GROUPS`.
    """
    made = factories(featurizer)
    step = progress("fit variants")
    total = sum(len(seeds) if name in SEEDED else 1 for name in made)
    done = 0
    found: dict[str, Variant] = {}
    for name, factory in made.items():
        margins: dict[str, list[Array]] = {}
        models: list[RewardModel] = []
        seconds = []
        for seed in seeds if name in SEEDED else seeds[:1]:
            start = time.perf_counter()
            models.append(factory(seed).fit(train))
            seconds.append(time.perf_counter() - start)
            for routing, model in routings(name, models[-1]).items():
                for part, prefs in parts.items():
                    margins.setdefault(f"{routing}\n{part}", []).append(model.margins(prefs))
            done += 1
            step(done, total)
        for routing, model in routings(name, models[0]).items():
            found[routing] = Variant(
                model,
                {part: np.stack(margins[f"{routing}\n{part}"]) for part in parts},
                float(np.mean(seconds)),
                n_parameters(model),
                len(model.domains_) + 1 if isinstance(model, RoutedRewardModel) and name in (RODOS, POOLED) else 1,
            )
    rodos = found[RODOS].model
    if isinstance(rodos, RoutedRewardModel):
        draws = [rodos.with_routing("random", seed) for seed in seeds]
        found[RANDOM].margins = {
            part: np.stack([model.margins(prefs) for model in draws]) for part, prefs in parts.items()
        }
        wrong = {part: wrong_margins(rodos, prefs) for part, prefs in parts.items()}
        found[WRONG] = Variant(rodos, wrong, found[RODOS].seconds, found[RODOS].parameters, found[RODOS].copies)
    for name, head in ((LENGTH, LengthHead()), (CHANCE, RandomHead())):
        head.fit(train)
        found[name] = Variant(head, {part: head.margins(prefs)[None] for part, prefs in parts.items()})
    return {name: found[name] for name in GROUPS if name in found}


def routings(name: str, model: RewardModel) -> dict[str, RewardModel]:
    """Return a fitted variant with the other routes it is shown under; nothing is fitted again."""
    if isinstance(model, RoutedRewardModel) and name == RODOS:
        others = {RODOS_SOFT: "soft", ORACLE: "oracle", RANDOM: "random"}
        return {RODOS: model, **{label: model.with_routing(routing) for label, routing in others.items()}}
    if isinstance(model, RoutedRewardModel) and name == ARLISS:
        return {ARLISS: model, ARLISS_SOFT: model.with_routing("soft")}
    return {name: model}


def wrong_margins(model: RoutedRewardModel, prefs: EmbeddedPreferences) -> Array:
    """Margins under every wrong expert in turn; shape (n_experts - 1, n_pairs).

    Row j sends a prompt of expert d's domain to expert (d + 1 + j) modulo n. With one expert there is no wrong one, and the
    only row is its own.
    """
    rewards = model.expert_rewards(prefs.responses, prefs.active)
    margins = np.stack([gather_margins(column, prefs.local_pairs) for column in rewards.T], axis=1)
    n = margins.shape[1]
    own = np.searchsorted(np.array(model.domains_), prefs.domain)
    shifts = range(1, n) if n > 1 else (0,)
    return np.stack([margins[np.arange(len(prefs)), (own + shift) % n] for shift in shifts])


def size_on_disk(model: RewardModel) -> int:
    """Bytes of the saved model, all files."""
    with tempfile.TemporaryDirectory() as folder:
        saved = save_model(model, Path(folder) / "model")
        return sum(file.stat().st_size for file in saved.rglob("*") if file.is_file())


def latency(model: RewardModel, prefs: EmbeddedPreferences, repeats: int = 5) -> float:
    """Seconds to route and score one response whose vectors are at hand: median over repeats, by response."""
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        model.margins(prefs)
        taken.append(time.perf_counter() - start)
    return float(np.median(taken)) / max(1, len(prefs.active))
