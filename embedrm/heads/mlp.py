"""Multi-layer perceptron head, trained Siamese on the comparison graph."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from embedrm.errors import InvalidInputError, unknown_name
from embedrm.featurizers import Featurizer
from embedrm.featurizers.rows import BLOCK_ROWS, FeatureRows
from embedrm.heads import HEADS
from embedrm.heads._groups import group_ranks
from embedrm.heads._mlp_training import RATE_SCHEDULES, Schedule, Trained, predict, train
from embedrm.heads._network import Network
from embedrm.heads.base import FeatureHead
from embedrm.numerics.digest import array_digest
from embedrm.numerics.folds import hold_out
from embedrm.numerics.threads import threads_for
from embedrm.objectives import Comparisons, Objective, make_objective
from embedrm.preferences import EmbeddedPreferences, EmbeddedResponses, Rows
from embedrm.reward_model import check_finite, check_preferences

# Outputs of a layer, of all heads that are scored together, for one block of responses (16 MiB).
_SCORED_ENTRIES = 4096 * 1024
_WITHOUT = "early_stopping=False with a max_epochs of your choice"
PRESETS = {"64-64-64-1": (64, 64, 64), "1024-512-1": (1024, 512)}
"""Hidden layers of the Reusing-Embeddings code: its ensemble members and its single model."""


@HEADS.register("mlp")
class MLPHead(FeatureHead):
    r"""Perceptron reward :math:`r = W_L h_{L-1} + b_L`, :math:`h_l = \max(0, W_l h_{l-1} + b_l)`, on features of a response.

    Trained by Adam on the objective's mean loss plus :math:`\tfrac12\lambda\sum_l\lVert W_l\rVert^2`, in batches of whole
    prompts: a response is computed once a step, however many pairs it is in (Siamese on the graph). A share of the prompt
    groups is held out, by whose loss training is stopped and the best epoch kept.

    Parameters
    ----------
    featurizer : Featurizer, optional
        Which terms over which views; all response views, centred and in one scale, where absent.
    hidden : sequence of int or str
        Widths of the hidden layers, or a preset: ``"64-64-64-1"``, ``"1024-512-1"`` (the sizes of Sun et al. 2025's code).
    objective : str or Objective
        See :mod:`embedrm.objectives`.
    l2 : float
        lambda; on weights, not on biases.
    weight_decay : float
        Decoupled decay of AdamW, beside or instead of ``l2``.
    dropout : float in [0, 1)
        Share of hidden outputs left out in training.
    learning_rate : float
    rate_schedule : {"constant", "cosine"}
        ``"cosine"``: the rate falls to zero over ``max_epochs`` along half a cosine, whether or not training is stopped
        before their end. A fixed number of epochs then goes further, and ends at rest.
    batch_rows : int
        Responses a step, about; fewer where the training set would make fewer than eight steps an epoch.
    max_epochs : int
    early_stopping : bool
        Hold out ``validation_fraction`` of the prompt groups; without it, all ``max_epochs`` are run.
    validation_fraction : float in (0, 1)
    patience : int
        Epochs without a better validation loss after which training stops.
    random_state : int
        First weights, batches, dropout and held-out groups.

    Attributes
    ----------
    weights_, biases_ : list of ndarray, float32
        ``weights_[l]`` (n_in, n_out) and ``biases_[l]`` (n_out,).
    n_epochs_ : int
        The epoch that was kept.
    train_losses_, validation_losses_ : ndarray of shape (n_epochs_run,), float64
        Mean loss by epoch; the second empty without early stopping.
    n_features_in_ : int
    init_ : str
        Digest of the first weights (of :meth:`named_weights`). Heads that began alike have the same one, and can be merged
        weight by weight (:func:`embedrm.merge_heads`).

    Notes
    -----
    Training and prediction are in float32 on NumPy; the same seed gives the same bits with the same number of BLAS threads.

    References
    ----------
    Sun, Shen and Ton (2025), "Reusing embeddings", whose reward models are perceptrons of these sizes on frozen embeddings.
    """

    not_parameters = frozenset({"train_losses_", "validation_losses_"})

    def __init__(
        self,
        featurizer: Featurizer | None = None,
        hidden: Sequence[int] | str = (64, 64, 64),
        objective: str | Objective = "bradley-terry",
        l2: float = 1e-3,
        weight_decay: float = 0.0,
        dropout: float = 0.0,
        learning_rate: float = 1e-3,
        rate_schedule: str = "constant",
        batch_rows: int = 512,
        max_epochs: int = 100,
        early_stopping: bool = True,
        validation_fraction: float = 0.1,
        patience: int = 8,
        random_state: int = 0,
    ) -> None:
        self.featurizer = featurizer
        self.hidden = hidden
        self.objective = objective
        self.l2 = l2
        self.weight_decay = weight_decay
        self.dropout = dropout
        self.learning_rate = learning_rate
        self.rate_schedule = rate_schedule
        self.batch_rows = batch_rows
        self.max_epochs = max_epochs
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.random_state = random_state

    def fit(self, preferences: EmbeddedPreferences, y: None = None) -> MLPHead:
        """Train; see the class. Reads only the active rows. Returns self."""
        prefs = check_preferences(preferences, type(self).__name__)
        trained = self.train_members(prefs, [self.random_state])
        self._take(trained, 0)
        return self

    def initialise(self, preferences: EmbeddedPreferences) -> MLPHead:
        """Fit the featurizer, draw the first weights, train nothing: a start for others to fork from. Returns self."""
        prefs = check_preferences(preferences, type(self).__name__)
        hidden = self._schedule().hidden
        self.featurizer_ = self._new_featurizer().fit(prefs)
        self.n_features_in_ = self.featurizer_.dim_
        sizes = (self.n_features_in_, *hidden, 1)
        first = Network.new(sizes, [np.random.default_rng(self.random_state)])
        none = np.zeros((0, 1))
        return self._take(Trained(first, np.zeros(1, dtype=np.intp), none, none, first), 0)

    def fit_from(self, preferences: EmbeddedPreferences, start: MLPHead) -> MLPHead:
        """Train on from the weights of a fitted or initialised head. Returns self.

        Parameters
        ----------
        preferences : EmbeddedPreferences
        start : MLPHead
            Its featurizer is taken over as it is, whatever ``featurizer`` says, so that all heads forked from it read the
            same features; its layers must be those of ``hidden``.
        """
        who = type(self).__name__
        prefs = check_preferences(preferences, who)
        if not isinstance(start, MLPHead):
            raise InvalidInputError(f"{who}.fit_from needs start to be an MLPHead, got {type(start).__name__}")
        check_is_fitted(start, "weights_")
        widths = tuple(len(b) for b in start.biases_[:-1])
        if widths != self._schedule().hidden:
            raise InvalidInputError(
                f"{who}.fit_from needs a start with hidden layers of {self._schedule().hidden}, got {widths}; set hidden "
                "alike"
            )
        trained = self.train_members(prefs, [self.random_state], start=start)
        return self._take(trained, 0)

    @property
    def margins_are_logits(self) -> bool:
        """As the objective has it."""
        return make_objective(self.objective).margins_are_logits

    def named_weights(self) -> dict[str, NDArray[np.float32]]:
        """Return weights and biases by name: ``hidden.0.weight``, ``hidden.0.bias``, ..., ``reward.bias``.

        A weight is (n_in, n_out), as in ``weights_``.
        """
        check_is_fitted(self, "weights_")
        return _named(self.weights_, self.biases_)

    def train_members(
        self,
        preferences: EmbeddedPreferences,
        seeds: Sequence[int],
        weight: NDArray[np.float64] | None = None,
        masks: NDArray[np.bool_] | None = None,
        start: MLPHead | None = None,
    ) -> Trained:
        """Train several members in one pass over the data; what ensembles are made of.

        Parameters
        ----------
        preferences : EmbeddedPreferences
        seeds : sequence of int
            One for each member's first weights. Batches and dropout follow the first seed, held-out groups
            ``random_state``; all members share them.
        weight : ndarray of shape (n_pairs, M), optional
            Pair weights of each member, as a bootstrap draws them.
        masks : ndarray of shape (M, dim), optional
            Features that each member may read.
        start : MLPHead, optional
            Whose featurizer and weights every member begins with.
        """
        schedule = self._schedule()
        objective = make_objective(self.objective)
        self.featurizer_ = self._new_featurizer().fit(preferences) if start is None else start.featurizer_
        self.featurizer_.check(preferences.responses, type(self).__name__)
        self.n_features_in_ = self.featurizer_.dim_
        first = None if start is None else start._network(len(seeds))
        inside, outside = np.arange(len(preferences)), np.arange(0)
        if self.early_stopping:
            inside, outside = hold_out(
                group_ranks(preferences),
                self.validation_fraction,
                self.random_state,
                type(self).__name__,
                _WITHOUT,
                preferences.weight,
            )
        comparisons = [Comparisons.of(preferences[rows]) for rows in (inside, outside) if len(rows)]
        if weight is not None:
            comparisons[0] = comparisons[0].weighted(weight[inside])
        parts = [(FeatureRows(self.featurizer_, preferences.responses, c.rows), c) for c in comparisons]
        width = max(self.n_features_in_, *schedule.hidden)
        with threads_for(len(seeds) * width * width * schedule.batch_rows // 64):
            return train(
                *parts[0],
                parts[1] if len(parts) > 1 else None,
                objective,
                schedule,
                seeds,
                masks,
                type(self).__name__,
                first,
            )

    def fit_members(
        self,
        preferences: EmbeddedPreferences,
        seeds: Sequence[int],
        weight: NDArray[np.float64] | None = None,
        masks: NDArray[np.bool_] | None = None,
    ) -> list[MLPHead]:
        """Fit several heads in one pass; see :meth:`train_members` for what they share.

        A member is therefore not, to the bit, the head fitted alone with its seed; it is as good a one.
        """
        model: MLPHead = clone(self)
        trained = model.train_members(check_preferences(preferences, "MLPHead"), seeds, weight, masks)
        return [model.member(trained, m).set_params(random_state=int(seed)) for m, seed in enumerate(seeds)]

    def member_features(self, preferences: EmbeddedPreferences) -> int:
        """Number of the featurizer's features."""
        return self._new_featurizer().fit(check_preferences(preferences, "MLPHead")).dim_

    def _new_featurizer(self) -> Featurizer:
        return Featurizer(scale="rms") if self.featurizer is None else clone(self.featurizer)

    def member(self, trained: Trained, m: int) -> MLPHead:
        """Return one of the members of :meth:`train_members` as a fitted head."""
        head: MLPHead = clone(self)
        head.featurizer_, head.n_features_in_ = self.featurizer_, self.n_features_in_
        return head._take(trained, m)

    def _take(self, trained: Trained, m: int) -> MLPHead:
        one = trained.network.member(m)
        self.weights_ = [w[0] for w in one.weights]
        self.biases_ = [b[0] for b in one.biases]
        self.n_epochs_ = int(trained.epochs[m])
        self.train_losses_ = np.array([losses[m] for losses in trained.train_losses])
        self.validation_losses_ = np.array([losses[m] for losses in trained.validation_losses])
        first = trained.first.member(m)
        self.init_ = array_digest(_named([w[0] for w in first.weights], [b[0] for b in first.biases]))
        # of a merge, or of a task without preferences, that these weights have replaced
        for name in ("merge_", "trunk_task_"):
            self.__dict__.pop(name, None)
        return self

    def _network(self, n_members: int = 1) -> Network:
        weights = [np.repeat(w[None], n_members, axis=0) for w in self.weights_]
        return Network(weights, [np.repeat(b[None], n_members, axis=0) for b in self.biases_])

    def _rewards(self, responses: EmbeddedResponses, rows: Rows | None) -> NDArray[np.float64]:
        check_is_fitted(self, "weights_")
        return self.joint_rewards([self], responses, rows)[:, 0]

    @classmethod
    def joint_rewards(
        cls, heads: Sequence[MLPHead], responses: EmbeddedResponses, rows: Rows | None
    ) -> NDArray[np.float64]:
        """Rewards of fitted heads with equal layers and equal featurizers, by one product; shape (n, n_heads)."""
        featurizer = heads[0].featurizer_
        featurizer.check(responses, cls.__name__)
        layers = range(len(heads[0].weights_))
        weights = [np.stack([head.weights_[layer] for head in heads]) for layer in layers]
        network = Network(weights, [np.stack([head.biases_[layer] for head in heads]) for layer in layers])
        widest = len(heads) * max(len(b) for b in heads[0].biases_)
        most = max(1, _SCORED_ENTRIES // widest)
        block_rows = None if most >= BLOCK_ROWS else most
        rewards = predict(network, FeatureRows(featurizer, responses, rows, hold=False), block_rows)
        # one finite sum a response is as many finite rewards
        check_finite(rewards.sum(axis=1), cls.__name__)
        return rewards

    def _schedule(self) -> Schedule:
        """Return the checked parameters of training."""
        hidden = self.hidden
        if isinstance(hidden, str):
            if hidden not in PRESETS:
                raise unknown_name("preset of MLPHead (hidden)", hidden, PRESETS)
            hidden = PRESETS[hidden]
        layers = tuple(hidden) if np.iterable(hidden) else ()
        if not layers or not all(_whole(width) and width >= 1 for width in layers):
            raise InvalidInputError(f"MLPHead needs hidden to be widths of at least 1 or a preset, got {self.hidden!r}")
        for name in ("l2", "weight_decay"):
            if not (np.isfinite(getattr(self, name)) and getattr(self, name) >= 0):
                raise InvalidInputError(f"MLPHead needs {name} to be a number >= 0, got {getattr(self, name)!r}")
        if not 0 <= self.dropout < 1:
            raise InvalidInputError(f"MLPHead needs dropout in [0, 1), got {self.dropout!r}")
        if not (np.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise InvalidInputError(f"MLPHead needs learning_rate > 0, got {self.learning_rate!r}")
        if self.rate_schedule not in RATE_SCHEDULES:
            raise unknown_name("rate_schedule of MLPHead", self.rate_schedule, RATE_SCHEDULES)
        if not 0 < self.validation_fraction < 1:
            raise InvalidInputError(f"MLPHead needs validation_fraction in (0, 1), got {self.validation_fraction!r}")
        for name in ("batch_rows", "max_epochs", "patience"):
            if not (_whole(getattr(self, name)) and getattr(self, name) >= 1):
                raise InvalidInputError(f"MLPHead needs {name} to be a whole number >= 1, got {getattr(self, name)!r}")
        return Schedule(
            layers,
            float(self.learning_rate),
            float(self.l2),
            float(self.weight_decay),
            float(self.dropout),
            int(self.batch_rows),
            int(self.max_epochs),
            int(self.patience) if self.early_stopping else None,
            self.rate_schedule,
        )


def _named(
    weights: Sequence[NDArray[np.float32]], biases: Sequence[NDArray[np.float32]]
) -> dict[str, NDArray[np.float32]]:
    names = [*(f"hidden.{layer}" for layer in range(len(weights) - 1)), "reward"]
    out: dict[str, NDArray[np.float32]] = {}
    for name, w, b in zip(names, weights, biases):
        out |= {f"{name}.weight": w, f"{name}.bias": b}
    return out


def _whole(value: object) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)
