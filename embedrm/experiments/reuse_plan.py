"""The named centre of the Reusing-Embeddings study, and the factors that are varied around it, one at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from embedrm.heads.gbdt import GBDTHead
from embedrm.heads.linear import LinearHead
from embedrm.heads.mlp import MLPHead
from embedrm.reward_model import RewardModel

BETAS = (10.0, 5.0, 3.0, 1.0, 0.7, 0.5)
"""Sharpness of the simulated annotators, from the fewest wrong labels to the most."""

NS = (2, 5, 10, 30, 50, 100, 300, 500)
"""Where best-of-n is read; one is always there."""

HIDDEN = (256, 64)
"""Of every perceptron: 541,057 numbers on vectors of 2,048, below the 0.6 million that the paper states."""

MOST_PARAMETERS = 600_000

BT_MLP, CLF_MLP, CLF_GBDT = "BT-MLP", "CLF-MLP", "CLF-LightGBM"
LINEAR, BT_GBDT = "BT-linear", "BT-LightGBM"
THEIRS = (BT_MLP, CLF_MLP, CLF_GBDT)
"""The models of the paper; the others are ours."""

MODELS: dict[str, Callable[[], RewardModel]] = {
    BT_MLP: partial(MLPHead, hidden=HIDDEN),
    CLF_MLP: partial(MLPHead, hidden=HIDDEN, objective="classification"),
    CLF_GBDT: partial(GBDTHead, objective="classification", max_bin="fast"),
    LINEAR: LinearHead,
    BT_GBDT: partial(GBDTHead, max_bin="fast"),
}

WIDE = "BT-MLP of 1,024 and 512"
WIDER: dict[str, Callable[[], RewardModel]] = {WIDE: partial(MLPHead, hidden="1024-512-1")}
"""The released code's layers, at the centre alone: what the smaller ones cost."""

RANDOM, SIMILAR, DIVERSIFIED = "same-prompt", "similar", "diversified"
SELECTIONS = (DIVERSIFIED, RANDOM, SIMILAR)
"""Which two responses to a prompt an annotator is shown, from those furthest apart to those most alike."""

MIXED = "diversified, ranks not kept"
"""The worst and the best responses, matched across prompts at random."""


@dataclass(frozen=True)
class Arm:
    """How the training labels of one cell of the study come about.

    Parameters
    ----------
    n : int
        Annotations: pairs with one answer each.
    beta : float
        Of the annotator, in standard deviations of the gold of all training responses.
    selection : {"same-prompt", "similar", "diversified"}
        Which responses are shown.
    cross : bool
        Whether the very same responses are compared across prompts instead, each with one of its partner's rank.
    ranks : bool
        Whether those ranks are kept across prompts; otherwise the worst may meet the worst.
    """

    n: int
    beta: float = 1.0
    selection: str = RANDOM
    cross: bool = False
    ranks: bool = True


@dataclass(frozen=True)
class ReusePreset:
    """Sizes of a study.

    Parameters
    ----------
    dim, n_train, k_train, n_test, k_test : int
        Of the generated arrays: dimensions, prompts and candidates of each.
    annotations : tuple of int
        Numbers of annotations beside that of the centre, which is one for each training prompt.
    seeds : int
        Functions of gold: each has its own vectors, pairs, wrong labels and seed of the models.
    alikes : tuple of float
        Shares of variance that responses to one prompt have in common, beside the centre's one half; for the scatter.
    members : int
        Of an ensemble.
    noisy : tuple of float
        Betas under which ensembles are studied, from the sharpest.
    data_betas, data_seeds : tuple of float, int
        On encoded data.
    paper_pairs, paper_dim : int
        Size at which models are timed beside the centre's.
    n_permutations : int
        Of the paper's scheme of best-of-n.
    n_resamples : int
    ns : tuple of int
    jobs : int, optional
        Processes; one a core where absent, at most eight. Nothing but the time depends on it.
    """

    dim: int = 128
    n_train: int = 4000
    k_train: int = 10
    n_test: int = 100
    k_test: int = 500
    annotations: tuple[int, ...] = (1000, 2000, 8000)
    seeds: int = 5
    alikes: tuple[float, ...] = (0.2, 0.8)
    members: int = 5
    noisy: tuple[float, ...] = (10.0, 1.0, 0.5)
    data_betas: tuple[float, ...] = (10.0, 1.0, 0.5)
    data_seeds: int = 5
    paper_pairs: int = 10_000
    paper_dim: int = 2048
    n_permutations: int = 100
    n_resamples: int = 2000
    ns: tuple[int, ...] = NS
    jobs: int | None = None

    @property
    def centre(self) -> Arm:
        """One annotation for each prompt, of two random responses to it, by an annotator of beta 1."""
        return Arm(self.n_train)

    def noise(self) -> list[Arm]:
        """Return the arms of annotation noise, the sharpest annotator first."""
        return [replace(self.centre, beta=beta) for beta in BETAS]

    def amounts(self) -> list[Arm]:
        """Return the arms of the number of annotations, fewest first."""
        return [replace(self.centre, n=n) for n in sorted({*self.annotations, self.n_train})]

    def pairings(self) -> dict[str, tuple[Arm, Arm]]:
        """Return (same prompt, across prompts) by selection, and for :data:`MIXED`."""
        arms = {selection: replace(self.centre, selection=selection) for selection in SELECTIONS}
        both = {name: (arm, replace(arm, cross=True)) for name, arm in arms.items()}
        apart = arms[DIVERSIFIED]
        return both | {MIXED: (apart, replace(apart, cross=True, ranks=False))}


REUSE_PRESETS = {
    "quick": ReusePreset(),
    "full": ReusePreset(
        dim=2048,
        n_train=10_000,
        n_test=200,
        annotations=(1000, 2000, 5000, 20_000, 40_000),
        alikes=(0.1, 0.3, 0.7, 0.9),
        members=10,
        noisy=BETAS,
        data_betas=BETAS,
        data_seeds=8,
        n_resamples=10_000,
    ),
}
