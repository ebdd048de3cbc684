"""Boost trees on the loss of the comparison graph: slopes and curvatures of unique responses, early stopping."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedrm.errors import InvalidInputError
from embedrm.featurizers.rows import FeatureRows
from embedrm.heads._gbdt_data import SAMPLE_ROWS, binned, block_rows
from embedrm.numerics.threads import SMALL_ENTRIES, threads_for
from embedrm.objectives import Comparisons, Evaluation, Objective
from embedrm.objectives.base import Array, incidence, total_weight

# Least share of a response's usual curvature, for losses that curve at the start and for those that do not.
FLOOR, FLAT_FLOOR = 0.01, 1.0
# Least responses in a leaf: one in so many, within limits.
LEAVES_WORTH, LEAST_IN_LEAF, MOST_IN_LEAF = 8, 3, 20
# Bins up to which histograms are made from a copy laid out by rows: faster by a tenth, and twice the memory or more.
ROW_WISE_ENTRIES = 2**27
# Draws of features without a split after which there is taken to be none.
DRAWS = 20
# Before it, LightGBM was known to crash on quantised gradients.
QUANTISED_SINCE = (4, 4)


@dataclass(frozen=True)
class Plan:
    """How trees are grown; see :class:`embedrm.heads.gbdt.GBDTHead`."""

    max_trees: int
    learning_rate: float
    num_leaves: int
    max_depth: int
    min_data_in_leaf: int | None
    l2: float
    max_bin: int
    feature_fraction: float
    hessian_floor: float | None
    quantized: bool
    patience: int | None
    threads: int | None
    random_state: int


@dataclass
class Boosted:
    """What boosting gives: the kept trees as text, how many, the losses after every tree, and the gain of every feature."""

    text: str
    n_trees: int
    train_losses: Array
    validation_losses: Array
    importances: Array


class GraphLoss:
    """The loss of an objective as LightGBM's custom objective.

    Slopes and curvatures of the mean loss are multiplied by the number of responses, so that an average response weighs
    about as much as a row does in LightGBM's own objectives, which are sums.

    Parameters
    ----------
    comparisons : Comparisons
    objective : Objective
    floor : float, optional
        No curvature falls below this share of the response's usual one: the bend of the loss times the response's part of
        the weight. None for ``FLOOR``, or ``FLAT_FLOOR`` where the loss is straight at the start for all responses.
    """

    def __init__(self, comparisons: Comparisons, objective: Objective, floor: float | None = None) -> None:
        self.loss = objective.loss(comparisons)
        self.scale = float(comparisons.n_responses)
        share = incidence(comparisons.pairs, comparisons.n_responses, 1.0) @ total_weight(
            comparisons.weight, "GBDTHead"
        )
        usual = self.loss.bend * (0.5 if objective.pointwise else 1.0) * share
        self.at: Evaluation = self.loss.evaluate(np.zeros(comparisons.n_responses))
        if floor is None:
            floor = FLOOR if self.loss.diagonal(self.at).any() else FLAT_FLOOR
        self.least = floor * usual

    def look(self, rewards: Array) -> float:
        """Move to these rewards; returns the mean loss there."""
        self.at = self.loss.evaluate(rewards)
        return float(self.at.value)

    def gradients(self) -> tuple[Array, Array]:
        """Slope and curvature in every reward, scaled and rounded; shape (n_responses,) each."""
        hessian = np.maximum(self.loss.diagonal(self.at), self.least)
        return fixed_point(self.scale * self.at.slope), fixed_point(self.scale * hessian)


def fixed_point(values: Array) -> Array:
    """Round to multiples of 2**-24 of the power of two above the largest.

    LightGBM takes float32 and sums in float64. On one grid of 24 bits, sums of up to 2**28 values are exact, so that neither
    the number of threads nor the order of rows changes a bit of them. The rounding is that of float32 at the largest value.
    """
    largest = float(np.abs(values).max(initial=0.0))
    if not (np.isfinite(largest) and largest > 0.0):
        return values
    grid = np.ldexp(1.0, int(np.frexp(largest)[1]) - 24)
    rounded: Array = np.rint(values / grid) * grid
    return rounded


def threads_of(threads: int | None, entries: int) -> int:
    """LightGBM's num_threads: as asked; else one for small matrices and OpenMP's own number (0) for others."""
    if threads is not None:
        return threads
    return 1 if entries < SMALL_ENTRIES else 0


def leaf_size(wanted: int | None, n_responses: int, who: str) -> int:
    """Least number of responses in a leaf, or an error where no tree could have two."""
    size = int(np.clip(n_responses // LEAVES_WORTH, LEAST_IN_LEAF, MOST_IN_LEAF)) if wanted is None else wanted
    if n_responses < 2 * size:
        raise InvalidInputError(
            f"{who} needs at least {2 * size} responses to make two leaves of min_data_in_leaf={size}, and there are "
            f"{n_responses} to train on; give more pairs, or a smaller min_data_in_leaf"
        )
    return size


def parameters(plan: Plan, n_responses: int, dim: int, who: str) -> dict[str, Any]:
    """Every parameter that LightGBM is given; nothing is left to what it guesses from the data or the machine."""
    seed = plan.random_state
    return {
        # gradients come from outside, and scores start at zero; the average of labels that do not exist is no start
        "objective": "none",
        "metric": "none",
        "boost_from_average": False,
        "boosting": "gbdt",
        "learning_rate": plan.learning_rate,
        "num_leaves": plan.num_leaves,
        "max_depth": plan.max_depth,
        "min_data_in_leaf": leaf_size(plan.min_data_in_leaf, n_responses, who),
        "min_sum_hessian_in_leaf": 1e-3,
        # against the mean loss, like every l2 of this package
        "lambda_l2": plan.l2 * n_responses,
        "max_bin": plan.max_bin,
        "bin_construct_sample_cnt": SAMPLE_ROWS,
        # the filter would go by LightGBM's own min_data_in_leaf of 20: a Sequence is binned without ours
        "feature_pre_filter": False,
        # NaN is refused, so that no split needs a side for it
        "use_missing": False,
        "feature_fraction": plan.feature_fraction,
        "use_quantized_grad": plan.quantized,
        "deterministic": True,
        # decided here, since LightGBM would decide by trying which is faster
        "force_row_wise" if n_responses * dim <= ROW_WISE_ENTRIES else "force_col_wise": True,
        "num_threads": threads_of(plan.threads, n_responses * dim),
        "seed": seed,
        "feature_fraction_seed": seed,
        "bagging_seed": seed,
        "data_random_seed": seed,
        "extra_seed": seed,
        "verbosity": -1,
    }


def boost(
    features: FeatureRows,
    comparisons: Comparisons,
    validation: tuple[FeatureRows, Comparisons] | None,
    objective: Objective,
    plan: Plan,
    who: str = "GBDTHead",
) -> Boosted:
    """Grow trees until the held-out loss has not fallen for a while.

    Parameters
    ----------
    features : FeatureRows
        Of the responses of ``comparisons``, in their order.
    comparisons : Comparisons
    validation : (FeatureRows, Comparisons), optional
        Held-out pairs; the number of trees with the least loss on them is kept. All trees where absent.
    objective : Objective
    plan : Plan
    who : str
        Name in errors.

    Raises
    ------
    InvalidInputError
        If no tree can be grown, the features or the loss are not finite, or LightGBM refuses.
    """
    import lightgbm

    if plan.quantized and tuple(int(part) for part in lightgbm.__version__.split(".")[:2]) < QUANTISED_SINCE:
        raise InvalidInputError(
            f"{who}(quantized=True) needs LightGBM {'.'.join(map(str, QUANTISED_SINCE))} or later, and this is "
            f"{lightgbm.__version__}; update it, or leave quantized off"
        )
    params = parameters(plan, len(features), features.dim, who)
    graph = GraphLoss(comparisons, objective, plan.hessian_floor)
    held_out = GraphLoss(validation[1], objective) if validation is not None else None
    try:
        data, stopped_by = binned(features, None if validation is None else validation[0], params, who)
        if not any(data.feature_num_bin(j) > 1 for j in range(features.dim)):
            raise _no_tree(features, params, who)
        booster = lightgbm.Booster(params, data)
        if stopped_by is not None:
            booster.add_valid(stopped_by, "held out")
        # sums over pairs are short: BLAS threads that wait for each other would cost more than the trees
        with threads_for(0):
            train_losses, validation_losses, best = _grow(booster, graph, held_out, plan, who)
        if not best:
            raise _no_tree(features, params, who)
        return Boosted(
            booster.model_to_string(num_iteration=best),
            best,
            np.array(train_losses),
            np.array(validation_losses),
            booster.feature_importance("gain", iteration=best),
        )
    except lightgbm.basic.LightGBMError as error:
        raise InvalidInputError(
            f"{who}: LightGBM {lightgbm.__version__} stopped on {len(features)} responses with {features.dim} features "
            f"({error}); see the parameters it was given"
        ) from error


def _grow(
    booster: Any, graph: GraphLoss, held_out: GraphLoss | None, plan: Plan, who: str
) -> tuple[list[float], list[float], int]:
    """Train and validation losses after every tree, and how many trees to keep: none where none had a split."""
    train_losses: list[float] = []
    validation_losses: list[float] = []
    best, least, since, fruitless = 0, np.inf, 0, 0

    def gradients(scores: NDArray[np.float64], dataset: Any) -> tuple[Array, Array]:
        return graph.gradients()

    for _ in range(plan.max_trees):
        if booster.update(fobj=gradients):
            # where features are drawn for every tree, another draw may have a split
            fruitless += 1
            if plan.feature_fraction == 1.0 or fruitless >= DRAWS:
                break
            continue
        fruitless = 0
        train_losses.append(booster.eval_train(_measured(graph))[0][2])
        loss = train_losses[-1]
        if held_out is not None:
            loss = booster.eval_valid(_measured(held_out))[0][2]
            validation_losses.append(loss)
        if not np.isfinite(loss):
            raise InvalidInputError(
                f"{who}: the loss was not finite after {len(train_losses)} trees; lower learning_rate, or raise l2 or "
                "hessian_floor"
            )
        if held_out is None or loss < least:
            best, least, since = booster.current_iteration(), loss, 0
        else:
            since += 1
            if plan.patience is not None and since >= plan.patience:
                break
    return train_losses, validation_losses, best


def _measured(graph: GraphLoss) -> Any:
    def measure(scores: NDArray[np.float64], dataset: Any) -> tuple[str, float, bool]:
        return "loss", graph.look(scores), False

    return measure


def _no_tree(features: FeatureRows, params: dict[str, Any], who: str) -> InvalidInputError:
    """Error of data in which no tree has a split."""
    least, most = np.full(features.dim, np.inf), np.full(features.dim, -np.inf)
    for _, block in features.blocks(block_rows(features.dim)):
        least, most = np.minimum(least, block.min(axis=0)), np.maximum(most, block.max(axis=0))
    varied = int((least < most).sum())
    if not varied:
        return InvalidInputError(
            f"{who} could not grow a tree: all {features.dim} features are constant over the {len(features)} responses it "
            "was trained on; look at the embeddings and at the featurizer's views"
        )
    return InvalidInputError(
        f"{who} could not grow a tree: no split of the {len(features)} responses it was trained on, by {varied} features "
        f"that vary, leaves min_data_in_leaf={params['min_data_in_leaf']} of them on both sides and lowers the loss; give "
        "more pairs or a smaller min_data_in_leaf, and look whether the labels say anything (ties alone do not)"
    )
