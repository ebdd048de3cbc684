"""ARLISS: one trunk, a low-rank adapter for each domain, and a router adapter on the same trunk."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from embedrm.composites import COMPOSITES
from embedrm.composites import _adapter_settings as settings
from embedrm.composites._adapter_expert import AdapterExpert, expert_outputs
from embedrm.composites._adapter_factors import Adapter, merge, n_parameters
from embedrm.composites._adapter_fitting import (
    WHO,
    fit_adapters,
    fit_router,
    fit_scales,
    fit_trunk,
    held_out_groups,
    trunk_of,
)
from embedrm.composites._adapter_router import AdapterRouter, PromptBlocks, fit_scaling, trained_arrays
from embedrm.composites.routed import ROUTINGS, RoutedRewardModel
from embedrm.errors import InvalidInputError, unknown_name
from embedrm.heads.mlp import MLPHead
from embedrm.numerics.calibration import fit_softmax_temperature
from embedrm.preferences import EmbeddedPreferences, EmbeddedResponses, Rows
from embedrm.reward_model import RewardModel, check_finite, check_preferences
from embedrm.routers.base import Router, check_vectors, prompt_examples


@COMPOSITES.register("adapters")
class AdapterRewardModel(RoutedRewardModel):
    r"""One perceptron for all domains, a low-rank adapter for each, and a router adapter on the same trunk (ARLISS).

    The trunk is trained on the pairs of all domains and frozen. Under the adapter of domain d its weight matrices are

    .. math:: W'_l = W_l + \tfrac{\alpha}{r} A_l^d B_l^d

    with A of r columns drawn at random and B zero before training, so that an untrained adapter is the trunk. Each adapter
    is trained on the pairs of its domain by the trunk's objective, plus :math:`\tfrac12\lambda` times the squared norm of
    its factors and its head. The router is an adapter of the same kind: the prompt goes through the trunk with it, and
    a softmax layer takes the place of the reward. A text is so scored in two passes, the router adapter on, then the reward
    adapter on; no weight is written for it.

    Parameters
    ----------
    trunk : MLPHead, optional
        Cloned and trained; ``MLPHead(hidden=(64,), random_state=random_state)`` where absent: one hidden layer leaves more
        of the prompt to the router than three. Its objective is that of the adapters too.
    router : Router, optional
        A router of its own instead of the router adapter, for prompts that cannot go through the trunk.
    rank : int
        r; of a matrix whose smaller side is less, that side, which is full rank.
    alpha : float, optional
        Numerator of the scaling; the rank where absent, which makes it one.
    layers : sequence of int, optional
        Which hidden weight matrices have factors, from 0; all where absent.
    last : {"own", "adapted", "shared"}
        The vector that makes the reward of the last hidden layer. ``"own"``: each domain adds one to the trunk's, without
        a bias. ``"adapted"``: low-rank factors as in the layers. ``"shared"``: the trunk's for all.
    adapt_biases : bool
        Whether an adapter moves the biases of the hidden layers too.
    router_rank : int
        Rank of the router adapter.
    routing, calibrate, k
        As in :class:`embedrm.RoutedRewardModel`.
    fallback : bool, optional
        Let the trunk, with the pooled scale, answer for prompts that a ``router`` of its own rejects, and under oracle
        routing for domains without an adapter. Where absent, it does if the router can reject.
    l2 : float
        lambda; on all that an adapter trains but biases.
    weight_decay : float
        Decoupled decay of AdamW, beside or instead of ``l2``.
    learning_rate : float
    batch_rows : int
        Responses (for the router: prompts) a step, about.
    max_epochs : int
    early_stopping : bool
        Keep each adapter from the epoch of the least loss on its domain's held-out prompt groups; epoch 0 is the trunk.
    validation_fraction : float in (0, 1)
        Share of each domain's prompt groups that is held out, the same for the trunk, the adapters, the router and all
        calibration.
    patience : int
    random_state : int
        First factors (alike for every domain, so that neither names nor order matter), batches, held-out groups, and
        ``routing="random"``.

    Attributes
    ----------
    domains_, trunk_
        Names, sorted; an :class:`embedrm.MLPHead`.
    adapters_ : list of dict of str to ndarray
        In the order of ``domains_``: ``A0`` (n_in, r), ``B0`` (r, n_out), ``bias0`` (n_out,) and so on, and ``head``.
    epochs_, n_held_out_ : ndarray of shape (n_domains,), int
        The epoch that each adapter was kept from; prompt groups of its domain that were held out.
    scale_, offset_ : ndarray of shape (n_domains,)
        Calibration of the experts, as in :class:`embedrm.RoutedRewardModel`; see Notes.
    pooled_scale_, scaling_, router_scaling_ : float
        Scale fitted to the held-out margins of all domains; alpha / r of the rewards' adapters and of the router's.
    router_adapter_ : dict of str to ndarray
        Factors and softmax layer (``head`` and its bias); empty with a router of its own.
    router_centre_, router_spread_ : ndarray of shape (dim,), float64
        Of the prompt views side by side.
    router_temperature_, router_epoch_, router_views_
        Of its probabilities; of its training; the prompt views that it reads.

    Notes
    -----
    **What the trunk reads of a prompt.** A prompt view takes the place of the response view of its layer in the inputs
    that the trunk has for the term r, centred and scaled by its own mean and spread; inputs of products, distances,
    covariates and of layers at which prompts were not encoded count as zero. Without the term r, without such a view, or
    with one of another width, nothing can go through: that is refused, and a ``router`` of its own is the way out.

    **Switching costs nothing.** Predictions apply x W + (alpha / r) (x A) B in the first layer, whose product x W all
    adapters share, and add the factors of the small later layers once a call. :meth:`merged` writes W' out.

    **Calibration.** Refits on folds would train every adapter several times; the scales are fitted to held-out margins. A
    domain that held out n groups has the geometric mean of its own and the pooled scale, with weights n and 30.

    **Small domains.** A domain with one prompt group has nothing to stop by; with early stopping its adapter stays at zero,
    so that it is the trunk, with the pooled scale. A domain without pairs has no expert: the oracle refuses it, and the
    router sends its prompts to the domains it knows.

    References
    ----------
    Namgoong et al. (2024), "Exploring Domain Robust Lightweight Reward Models based on Router Mechanism", ARLISS. This is an
    analogue: the paper's adapters are on a language model; here they are on a perceptron over a frozen encoder. Hu et al.
    (2022), "LoRA: Low-rank adaptation of large language models", section 4.1.
    """

    _of_domains = ("adapters_", "epochs_", "n_held_out_", "scale_", "offset_")

    def __init__(
        self,
        trunk: MLPHead | None = None,
        router: Router | None = None,
        rank: int = 8,
        alpha: float | None = None,
        layers: Sequence[int] | None = None,
        last: str = "own",
        adapt_biases: bool = True,
        router_rank: int = 32,
        routing: str = "soft",
        calibrate: bool = True,
        l2: float = 3e-2,
        weight_decay: float = 0.0,
        learning_rate: float = 3e-3,
        batch_rows: int = 512,
        max_epochs: int = 100,
        early_stopping: bool = True,
        validation_fraction: float = 0.1,
        patience: int = 16,
        random_state: int = 0,
        k: int = 2,
        fallback: bool | None = None,
    ) -> None:
        self.trunk = trunk
        self.router = router
        self.rank = rank
        self.alpha = alpha
        self.layers = layers
        self.last = last
        self.adapt_biases = adapt_biases
        self.router_rank = router_rank
        self.routing = routing
        self.calibrate = calibrate
        self.l2 = l2
        self.weight_decay = weight_decay
        self.learning_rate = learning_rate
        self.batch_rows = batch_rows
        self.max_epochs = max_epochs
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.random_state = random_state
        self.k = k
        self.fallback = fallback

    @property
    def margins_are_logits(self) -> bool:
        """True for calibrated experts; otherwise as the trunk's objective has it."""
        return bool(self.calibrate) or (MLPHead() if self.trunk is None else self.trunk).margins_are_logits

    # -- fitting ---------------------------------------------------------------------------------------------------

    def fit(self, preferences: EmbeddedPreferences, y: None = None) -> AdapterRewardModel:
        """Train the trunk on all pairs, then an adapter for each domain among them, and the router. Returns self."""
        trunk = MLPHead(hidden=(64,), random_state=self.random_state) if self.trunk is None else self.trunk
        if not isinstance(trunk, MLPHead):
            raise InvalidInputError(f"{WHO} needs trunk to be an MLPHead, got {type(trunk).__name__}")
        n_hidden = len(trunk._schedule().hidden)
        settings.check(self, n_hidden, ROUTINGS)
        prefs = self._usable(preferences)
        held = self._held_out(prefs, trunk.early_stopping)
        self.trunk_ = fit_trunk(clone(trunk), prefs, held)
        self.scaling_ = settings.plan(self, n_hidden).scale
        self.domains_: list[str] = []
        self.adapters_: list[Adapter] = []
        self.epochs_, self.n_held_out_ = np.zeros(0, dtype=np.intp), np.zeros(0, dtype=np.intp)
        self.scale_, self.offset_ = np.zeros(0), np.zeros(0)
        self.pooled_scale_: float | None = None
        self._add_adapters(list(prefs.domains), prefs, held)
        self._fit_router(prefs, held)
        can_reject = self.router_model_ is not None and self.router_model_.can_reject
        self.falls_back_ = can_reject if self.fallback is None else bool(self.fallback)
        self.general_scale_, self.general_offset_ = 1.0, 0.0
        if self.calibrate:
            self.general_scale_ = float(self.pooled_scale_ or 1.0)
            self.general_offset_ = float(self.trunk_._rewards(prefs.responses, prefs.active).mean())
        return self

    def add_domain(self, preferences: EmbeddedPreferences) -> AdapterRewardModel:
        """Return a model with an adapter for each new domain and the router refitted; this one is not changed.

        The trunk and the other domains' adapters, scales and offsets are shared, so that their rewards are the same bits.

        Parameters
        ----------
        preferences : EmbeddedPreferences
            Pairs of the new domains, and prompts of all domains for the router: the training pairs, say. Of domains that
            are known, only prompts are read.
        """
        check_is_fitted(self, "adapters_")
        settings.check(self, self._n_hidden, ROUTINGS)
        prefs = self._usable(preferences)
        new = self._new_domains(prefs, "an adapter")
        other = copy.copy(self)
        held = other._held_out(prefs, False)
        other._add_adapters(new, prefs, held)
        other._fit_router(prefs, held)
        return other

    def _learn_routes(self, router: Router, prefs: EmbeddedPreferences) -> None:
        """Fit the router adapter, or the router of its own, on the prompts of the pairs."""
        prefs = self._usable(prefs)
        self._fit_router(prefs, self._held_out(prefs, False))

    def _usable(self, preferences: EmbeddedPreferences) -> EmbeddedPreferences:
        prefs = check_preferences(preferences, WHO)
        self._refuse_cross_prompt(prefs, self.calibrate)
        prefs = prefs[prefs.weight > 0]
        if not len(prefs):
            raise InvalidInputError(f"{WHO} needs pairs with positive weight, got only zeros")
        return prefs

    def _held_out(self, prefs: EmbeddedPreferences, trunk_stops: bool) -> NDArray[np.str_]:
        if not (trunk_stops or self.early_stopping or self.calibrate):
            return np.empty(0, dtype=str)
        return held_out_groups(prefs, self.validation_fraction, self.random_state)

    def _add_adapters(self, new: list[str], prefs: EmbeddedPreferences, held: NDArray[np.str_]) -> None:
        """Train adapters of new domains, calibrate them, and put them in their places among the others."""
        plan, schedule = replace(settings.plan(self, self._n_hidden), scale=self.scaling_), settings.schedule(self)
        adapters, epochs, tests = fit_adapters(self.trunk_, plan, schedule, prefs, new, held, self.random_state)
        n_held = np.array([len(np.unique(t.groups)) for t in tests], dtype=np.intp)
        scale, offset = np.ones(len(new)), np.zeros(len(new))
        if self.calibrate:
            experts = [self._expert(a) for a in adapters]
            scale, self.pooled_scale_ = fit_scales(experts, tests, self.pooled_scale_)
            active = [prefs.in_domain(d).active for d in new]
            offset = np.array([e._rewards(prefs.responses, rows).mean() for e, rows in zip(experts, active)])
        names, adapters = [*self.domains_, *new], [*self.adapters_, *adapters]
        order = np.argsort(names, kind="stable")
        self.domains_, self.adapters_ = [names[k] for k in order], [adapters[k] for k in order]
        self.epochs_ = np.concatenate([self.epochs_, epochs])[order]
        self.n_held_out_ = np.concatenate([self.n_held_out_, n_held])[order]
        self.scale_ = np.concatenate([self.scale_, scale])[order]
        self.offset_ = np.concatenate([self.offset_, offset])[order]

    def _fit_router(self, prefs: EmbeddedPreferences, held: NDArray[np.str_]) -> None:
        self.router_model_: Router | None = None
        self.router_adapter_: Adapter = {}
        self.router_pairs_: list[list[str]] = []
        self.router_centre_, self.router_spread_ = np.zeros(0), np.zeros(0)
        self.router_temperature_, self.router_epoch_ = 1.0, 0
        plan = settings.router_plan(self, self._n_hidden)
        self.router_scaling_ = plan.scale
        if self.router is None:
            blocks = PromptBlocks.of(self.trunk_.featurizer_, prefs.responses.views, WHO)
            self.router_views_, self.router_pairs_ = blocks.views, [list(pair) for pair in blocks.pairs]
        else:
            own: Router = clone(self.router)
            self.router_views_ = own.resolve_views(prefs.responses.views)
        X, y, groups = prompt_examples(prefs, self.router_views_, WHO)
        without = sorted(set(y.tolist()) - set(self.domains_))
        if without:
            raise InvalidInputError(
                f"the domain(s) {', '.join(without)} appear among the pairs only as rejected responses of cross-prompt "
                "pairs, so they have no adapter; add pairs chosen there, or drop those pairs"
            )
        if self.router is not None:
            self.router_model_ = own.fit(X, y, groups)
            return
        check_vectors(X, "AdapterRouter")
        self.router_centre_, self.router_spread_ = fit_scaling(self.trunk_.featurizer_, blocks, prefs)
        router = self._adapter_router()
        z, codes = router.inputs(X), np.searchsorted(np.array(self.domains_), y)
        parts = [(z[rows], codes[rows]) for rows in (~np.isin(groups, held), np.isin(groups, held))]
        self.router_adapter_, self.router_epoch_ = fit_router(
            router.trunk, plan, settings.schedule(self), parts[0], parts[1], self.random_state
        )
        if self.calibrate and len(parts[1][0]) and len(self.domains_) > 1:
            scores = self._adapter_router().scores(parts[1][0])
            self.router_temperature_ = fit_softmax_temperature(scores, parts[1][1])

    # -- views on the trunk ----------------------------------------------------------------------------------------

    @property
    def experts_(self) -> list[RewardModel]:  # type: ignore[override]
        """The trunk under each domain's adapter, in the order of ``domains_``: views, made at once and without a copy."""
        return [self._expert(adapter) for adapter in self.adapters_]

    @property
    def router_(self) -> Router:  # type: ignore[override]
        """The router adapter on the trunk, or the router of its own."""
        return self._adapter_router() if self.router_model_ is None else self.router_model_

    @property
    def general_(self) -> MLPHead | None:  # type: ignore[override]
        """The trunk, where it answers for prompts that nobody else does."""
        return self.trunk_ if self.falls_back_ else None

    def _expert(self, adapter: Adapter) -> AdapterExpert:
        return AdapterExpert(trunk_of(self.trunk_), adapter, self.scaling_, self.trunk_.featurizer_)

    def _adapter_router(self) -> AdapterRouter:
        featurizer = self.trunk_.featurizer_
        blocks = PromptBlocks(tuple((prompt, response) for prompt, response in self.router_pairs_))
        return AdapterRouter(
            trunk_of(self.trunk_).classifier(len(self.domains_), blocks.columns(featurizer)),
            self.router_adapter_,
            self.router_scaling_,
            self.router_temperature_,
            featurizer,
            blocks,
            self.router_centre_,
            self.router_spread_,
            self.domains_,
        )

    @property
    def _n_hidden(self) -> int:
        return len(self.trunk_.weights_) - 1

    def expert_rewards(self, responses: EmbeddedResponses, rows: Rows | None = None) -> NDArray[np.float64]:
        """Calibrated reward of every expert for every response; shape (n, n_experts). The features are made once."""
        check_is_fitted(self, "adapters_")
        rewards = expert_outputs(
            trunk_of(self.trunk_), self.adapters_, self.scaling_, self.trunk_.featurizer_, responses, rows
        )
        check_finite(rewards.sum(axis=1), WHO)
        return (rewards - self.offset_) * self.scale_

    def merged(self, domain: str) -> MLPHead:
        """Return a head of its own with W' of one domain, before calibration; made anew from the trunk at every call.

        Its rewards are those of ``experts_`` to the rounding of float32, and no number of another domain is in it.
        """
        check_is_fitted(self, "adapters_")
        if domain not in self.domains_:
            raise unknown_name("domain", domain, self.domains_)
        head = copy.copy(self.trunk_)
        k = self.domains_.index(domain)
        head.weights_, head.biases_ = merge(trunk_of(self.trunk_), self.adapters_[k], self.scaling_)
        return head

    def parameter_counts(self) -> dict[str, int]:
        """Numbers that were trained: ``trunk``, ``adapters`` (of all domains), ``router`` and their ``total``.

        Of the heads alone: the encoder, the featurizer's scaling and the calibration are not counted.
        """
        check_is_fitted(self, "adapters_")
        router = self.router_adapter_ if self.router_model_ is None else trained_arrays(self.router_model_)
        counts = {
            "trunk": sum(a.size for a in (*self.trunk_.weights_, *self.trunk_.biases_)),
            "adapters": sum(n_parameters(a) for a in self.adapters_),
            "router": n_parameters(router),
        }
        return {**counts, "total": sum(counts.values())}

    def adapter_sizes(self) -> dict[str, dict[str, int]]:
        """``parameters`` and ``bytes`` of the adapter of each domain: what switching to it takes beside the trunk."""
        check_is_fitted(self, "adapters_")
        return {
            domain: {"parameters": n_parameters(adapter), "bytes": sum(a.nbytes for a in adapter.values())}
            for domain, adapter in zip(self.domains_, self.adapters_)
        }
