"""Gradient-boosted trees on the comparison graph, by LightGBM."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from embedrm.errors import InvalidInputError
from embedrm.featurizers import Featurizer
from embedrm.featurizers.rows import FeatureRows
from embedrm.heads import HEADS
from embedrm.heads._gbdt_data import bad_rows, block_rows
from embedrm.heads._gbdt_training import Plan, boost, threads_of
from embedrm.heads.base import FeatureHead
from embedrm.numerics.folds import hold_out
from embedrm.numerics.trees import tree_parameters
from embedrm.objectives import Comparisons, Objective, make_objective
from embedrm.preferences import EmbeddedPreferences, EmbeddedResponses, Rows
from embedrm.reward_model import check_finite, check_preferences

FAST_BINS = 15
MOST_BINS = 255
_WITHOUT = "early_stopping=False with a max_trees of your choice"


@HEADS.register("gbdt")
class GBDTHead(FeatureHead):
    r"""Sum of regression trees :math:`r(\phi) = \sum_t \eta f_t(\phi)` on features of a response, boosted by LightGBM.

    LightGBM has no objective on pairs. Here every tree is fitted to the slope and the curvature of the objective's mean loss
    in the rewards of unique responses, summed over the pairs that a response is in; leaf values are Newton steps

    .. math:: f = -\frac{\sum_{i} \partial_i}{\sum_{i} h_i + \lambda}

    over the responses i of a leaf, with :math:`\lambda` = ``l2``. Data are binned and trees grown on one row for each
    response, however many pairs it is in. Scores start at zero, and rewards have no free constant added.

    Parameters
    ----------
    featurizer : Featurizer, optional
        Which terms over which views; all response views as they are (trees need no scaling), side by side, where absent.
    objective : str or Objective
        See :mod:`embedrm.objectives`. ``classification`` is collapsed too: not two rows a pair, nor two a response, but one.
    max_trees : int
    learning_rate : float in (0, 1]
        eta. Curvatures are those of single rewards, and a step moves both rewards of a pair: above one half, the training
        loss may rise.
    num_leaves : int
        Most leaves of a tree.
    max_depth : int
        Most splits from root to leaf; -1 for no limit.
    min_data_in_leaf : int, optional
        Least responses in a leaf. Where absent, one in eight of the responses trained on, but from 3 to 20.
    l2 : float
        lambda; multiplies half the squared leaf values against the mean loss: it halves the value of a leaf whose share of
        the curvature equals it. LightGBM's ``lambda_l2`` is this times the number of responses.
    max_bin : int or "fast"
        Most values that are told apart in a feature; ``"fast"`` is 15, which LightGBM keeps in half a byte:
        up to twice as fast on a few thousand responses, where finding splits costs more than summing, and hardly on more.
    feature_fraction : float in (0, 1]
        Share of the features drawn for every tree.
    hessian_floor : float, optional
        Least curvature of a response, as a share of its usual one. Where absent, 0.01, or 1 for losses that are straight at
        the start (``hinge``), whose Newton steps would have no size.
    quantized : bool
        Sum slopes and curvatures rounded at random to a few levels (LightGBM's ``use_quantized_grad``, from its version 4.4
        on): a fifth to a third faster, and as good in every problem tried, but the bits then depend on the number of
        threads.
    early_stopping : bool
        Hold out ``validation_fraction`` of the prompt groups and keep the trees with the least loss on them (at least one);
        without it, all ``max_trees`` are kept.
    validation_fraction : float in (0, 1)
    patience : int
        Trees without a lower held-out loss after which training stops.
    threads : int, optional
        Where absent, one on small data, and otherwise as many as OpenMP has (``OMP_NUM_THREADS``). No bit of the result
        depends on it, unless ``quantized``. On processors that others use too, one is much faster than several that wait
        for each other.
    random_state : int
        Held-out groups, drawn features, and the sample that bin limits are found from.

    Attributes
    ----------
    booster_ : str
        The kept trees in LightGBM's text format, from which every prediction is made.
    n_trees_ : int
        Number of trees kept.
    train_losses_, validation_losses_ : ndarray of shape (n_trees_run,), float64
        Mean loss after every tree; the second empty without early stopping.
    feature_importances_ : ndarray of shape (n_features_in_,), float64
        Summed gain of the splits on each feature, as LightGBM counts it.
    n_features_in_ : int

    Notes
    -----
    The start is zero, and ``boost_from_average`` is off, as there are no labels to average. LightGBM ignores that setting
    under custom objectives in any case, so that they and its built-in ones differ unless it is off for both. Trees are grown
    with ``deterministic``, on slopes rounded to one grid of 24 bits, whose sums are exact in any order.

    Features are binned block by block, from memory maps too. What is held is their bins, one byte for each feature of each
    response (beyond 128 Mi of them; below, a copy in the order of rows makes it two to three), and some 400 bytes a pair,
    comparison graph included (`benchmarks/memory.py`).

    Wrong to use where a linear reward is expected and responses are few: a slope takes many splits.

    References
    ----------
    Ke et al. (2017), "LightGBM: a highly efficient gradient boosting decision tree"; as a reward model on embeddings Sun,
    Shen and Ton (2025), "Rethinking reward modeling in preference-based large language model alignment".
    """

    def __init__(
        self,
        featurizer: Featurizer | None = None,
        objective: str | Objective = "bradley-terry",
        max_trees: int = 200,
        learning_rate: float = 0.1,
        num_leaves: int = 15,
        max_depth: int = -1,
        min_data_in_leaf: int | None = None,
        l2: float = 1e-3,
        max_bin: int | str = 63,
        feature_fraction: float = 1.0,
        hessian_floor: float | None = None,
        quantized: bool = False,
        early_stopping: bool = True,
        validation_fraction: float = 0.1,
        patience: int = 20,
        threads: int | None = None,
        random_state: int = 0,
    ) -> None:
        self.featurizer = featurizer
        self.objective = objective
        self.max_trees = max_trees
        self.learning_rate = learning_rate
        self.num_leaves = num_leaves
        self.max_depth = max_depth
        self.min_data_in_leaf = min_data_in_leaf
        self.l2 = l2
        self.max_bin = max_bin
        self.feature_fraction = feature_fraction
        self.hessian_floor = hessian_floor
        self.quantized = quantized
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.threads = threads
        self.random_state = random_state

    def fit(self, preferences: EmbeddedPreferences, y: None = None) -> GBDTHead:
        """Boost; see the class. Reads only the active rows. Returns self."""
        who = type(self).__name__
        prefs = check_preferences(preferences, who)
        plan = self._plan()
        objective = make_objective(self.objective)
        self.featurizer_ = (Featurizer(scale="none") if self.featurizer is None else clone(self.featurizer)).fit(prefs)
        parts = [prefs]
        if self.early_stopping:
            parts = [
                prefs[rows]
                for rows in hold_out(
                    prefs.groups, self.validation_fraction, self.random_state, who, _WITHOUT, prefs.weight
                )
            ]
        comparisons = [Comparisons.of(part) for part in parts]
        rows = [FeatureRows(self.featurizer_, prefs.responses, c.rows, hold=False) for c in comparisons]
        data = list(zip(rows, comparisons))
        boosted = boost(*data[0], data[1] if len(data) > 1 else None, objective, plan, who)
        self.booster_, self.n_trees_ = boosted.text, boosted.n_trees
        self.train_losses_, self.validation_losses_ = boosted.train_losses, boosted.validation_losses
        self.feature_importances_ = boosted.importances
        self.n_features_in_ = self.featurizer_.dim_
        return self

    @property
    def margins_are_logits(self) -> bool:
        """As the objective has it."""
        return make_objective(self.objective).margins_are_logits

    def parameter_counts(self) -> dict[str, int]:
        """Numbers of the kept trees: ``trees``, ``leaves``, ``thresholds``, and the ``total`` of the last two."""
        check_is_fitted(self, "booster_")
        return tree_parameters(self.booster_)

    def _rewards(self, responses: EmbeddedResponses, rows: Rows | None) -> NDArray[np.float64]:
        check_is_fitted(self, "booster_")
        self.featurizer_.check(responses, type(self).__name__)
        features = FeatureRows(self.featurizer_, responses, rows, hold=False)
        booster = _parsed(self.booster_)
        threads = threads_of(self.threads, len(features) * features.dim)
        rewards = np.empty(len(features))
        for part, block in features.blocks(block_rows(features.dim)):
            rewards[part] = booster.predict(block, raw_score=True, num_threads=threads)
            rewards[part][bad_rows(block)] = np.nan
        return check_finite(rewards, type(self).__name__)

    def _plan(self) -> Plan:
        """Return the checked parameters of boosting."""
        max_bin = FAST_BINS if self.max_bin == "fast" else self.max_bin
        if not (_whole(max_bin) and 2 <= int(max_bin) <= MOST_BINS):
            raise InvalidInputError(
                f"GBDTHead needs max_bin to be a whole number from 2 to {MOST_BINS} or 'fast', got {self.max_bin!r}"
            )
        for name, least in (("max_trees", 1), ("patience", 1), ("num_leaves", 2), ("random_state", 0)):
            if not (_whole(getattr(self, name)) and getattr(self, name) >= least):
                raise InvalidInputError(
                    f"GBDTHead needs {name} to be a whole number >= {least}, got {getattr(self, name)!r}"
                )
        for name in ("min_data_in_leaf", "threads"):
            value = getattr(self, name)
            if value is not None and not (_whole(value) and value >= 1):
                raise InvalidInputError(f"GBDTHead needs {name} to be a whole number >= 1 or None, got {value!r}")
        if not (_whole(self.max_depth) and (self.max_depth == -1 or self.max_depth >= 1)):
            raise InvalidInputError(f"GBDTHead needs max_depth to be a whole number >= 1 or -1, got {self.max_depth!r}")
        for name in ("learning_rate", "feature_fraction"):
            if not 0 < getattr(self, name) <= 1:
                raise InvalidInputError(f"GBDTHead needs {name} in (0, 1], got {getattr(self, name)!r}")
        if not 0 < self.validation_fraction < 1:
            raise InvalidInputError(f"GBDTHead needs validation_fraction in (0, 1), got {self.validation_fraction!r}")
        if not (np.isfinite(self.l2) and self.l2 >= 0):
            raise InvalidInputError(f"GBDTHead needs l2 to be a number >= 0, got {self.l2!r}")
        for name in ("quantized", "early_stopping"):
            if not isinstance(getattr(self, name), (bool, np.bool_)):
                raise InvalidInputError(f"GBDTHead needs {name} to be True or False, got {getattr(self, name)!r}")
        if self.hessian_floor is not None and not (np.isfinite(self.hessian_floor) and self.hessian_floor >= 0):
            raise InvalidInputError(
                f"GBDTHead needs hessian_floor to be a number >= 0 or None, got {self.hessian_floor!r}"
            )
        return Plan(
            int(self.max_trees),
            float(self.learning_rate),
            int(self.num_leaves),
            int(self.max_depth),
            None if self.min_data_in_leaf is None else int(self.min_data_in_leaf),
            float(self.l2),
            int(max_bin),
            float(self.feature_fraction),
            None if self.hessian_floor is None else float(self.hessian_floor),
            bool(self.quantized),
            int(self.patience) if self.early_stopping else None,
            None if self.threads is None else int(self.threads),
            int(self.random_state),
        )


@lru_cache(maxsize=8)
def _parsed(text: str) -> Any:
    """Read a booster from its text; kept for the next predictions."""
    import lightgbm

    return lightgbm.Booster(model_str=text)


def _whole(value: object) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)
