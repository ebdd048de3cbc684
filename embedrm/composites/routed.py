"""RODOS: an external router in front of one reward model per domain."""

from __future__ import annotations

import copy
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from embedrm.composites import COMPOSITES
from embedrm.composites._held_out import out_of_fold_margins
from embedrm.errors import InvalidInputError, unknown_name
from embedrm.heads.linear import LinearHead
from embedrm.numerics.calibration import fit_margin_scale
from embedrm.preferences import EmbeddedPreferences, EmbeddedResponses, Rows
from embedrm.reward_model import RewardModel, check_preferences
from embedrm.routers.base import Router, prompt_examples, prompt_vectors
from embedrm.routers.logistic import LogisticRouter

ROUTINGS = ("soft", "hard", "oracle", "random")


@COMPOSITES.register("routed")
class RoutedRewardModel(RewardModel):
    r"""One expert for each domain behind a router that sees the prompt only (RODOS).

    With gate :math:`g_d(x)` and the calibrated rewards :math:`\tilde r_d = a_d (r_d - b_d)` of the experts,

    .. math:: r(x, y) = \sum_d g_d(x) \, \tilde r_d(x, y)

    The gate is the same for both responses of a pair, so the constants that Bradley–Terry leaves free cancel and
    ``margins(swapped) == -margins``.

    Parameters
    ----------
    expert : RewardModel, optional
        Cloned and fitted on the pairs of each domain; ``LinearHead(l2="cv")`` where absent.
    router : Router, optional
        Fitted on the unique training prompts; ``LogisticRouter()`` where absent.
    routing : {"soft", "hard", "oracle", "random"}
        ``"soft"``: the router's calibrated probabilities. ``"hard"``: its most probable domain (the paper's rule).
        ``"oracle"``: the true domain, an upper bound on any router. ``"random"``: a domain drawn for each prompt group,
        what routing without knowledge costs.
    calibrate : bool
        Scale each expert by a_d fitted to its out-of-fold margins and shift it by b_d, the mean reward of its training
        responses; a domain with a single prompt group leaves nothing to hold out, and its a_d is 1. Mixing experts whose
        scales differ lets the most overconfident one decide, so turn it off only for hard routing and ranking within
        prompts.
    cv : int
        Folds, by prompt group, for the out-of-fold margins.
    random_state : int
        Seed of ``routing="random"``.

    Attributes
    ----------
    domains_ : list of str
        Domains with an expert, sorted.
    experts_ : list of RewardModel
        In the order of ``domains_``.
    scale_, offset_ : ndarray of shape (n_experts,)
        a_d and b_d.
    router_ : Router
    router_views_ : list of str

    References
    ----------
    Namgoong et al. (2024), "Exploring Domain Robust Lightweight Reward Models based on Router Mechanism", section on
    RODOS. This is an analogue: the paper tunes one language model a domain; here heads share one frozen encoder.
    """

    def __init__(
        self,
        expert: RewardModel | None = None,
        router: Router | None = None,
        routing: str = "soft",
        calibrate: bool = True,
        cv: int = 5,
        random_state: int = 0,
    ) -> None:
        self.expert = expert
        self.router = router
        self.routing = routing
        self.calibrate = calibrate
        self.cv = cv
        self.random_state = random_state

    def fit(self, preferences: EmbeddedPreferences, y: None = None) -> RoutedRewardModel:
        """Fit one expert for each domain among the pairs, its calibration, and the router. Returns self."""
        prefs = check_preferences(preferences, "RoutedRewardModel")
        if self.routing not in ROUTINGS:
            raise unknown_name("routing", self.routing, ROUTINGS)
        self._refuse_cross_prompt(prefs, self.calibrate)
        self.domains_ = list(prefs.domains)
        self.experts_, self.scale_, self.offset_ = self._fit_experts(prefs)
        router = LogisticRouter() if self.router is None else clone(self.router)
        self.router_views_ = router.resolve_views(prefs.responses.views)
        self.router_ = router.fit(*prompt_examples(prefs, self.router_views_, "RoutedRewardModel"))
        without = sorted(set(self.router_.classes_.tolist()) - set(self.domains_))
        if without:
            raise InvalidInputError(
                f"the domain(s) {', '.join(without)} appear among the pairs only as rejected responses of cross-prompt "
                "pairs, so they have no expert; add pairs chosen there, or drop those pairs"
            )
        return self

    def _fit_experts(
        self, prefs: EmbeddedPreferences
    ) -> tuple[list[RewardModel], NDArray[np.float64], NDArray[np.float64]]:
        """Experts of ``domains_``, with their scales and offsets."""
        template = LinearHead(l2="cv") if self.expert is None else self.expert
        experts: list[RewardModel] = []
        scale, offset = np.ones(len(self.domains_)), np.zeros(len(self.domains_))
        for k, domain in enumerate(self.domains_):
            own = prefs.in_domain(domain)
            try:
                expert = clone(template).fit(own)
                if self.calibrate:
                    scale[k] = self._calibrated_scale(expert, own)
                    offset[k] = expert._rewards(own.responses, own.active).mean()
            except InvalidInputError as error:
                raise InvalidInputError(f"the expert of domain {domain!r} ({len(own)} pairs): {error}") from error
            experts.append(expert)
        return experts, scale, offset

    def _calibrated_scale(self, expert: RewardModel, own: EmbeddedPreferences) -> float:
        if len(np.unique(own.groups)) < 2:
            return 1.0
        margins = out_of_fold_margins(expert, own, self.cv, "RoutedRewardModel")
        weight = own.weight if own.weight.sum() > 0 else None
        return fit_margin_scale(margins, own.outcome, weight, n_independent=len(np.unique(own.groups)))

    def with_routing(self, routing: str, random_state: int | None = None) -> RoutedRewardModel:
        """Return the same fitted experts and router under another routing; nothing is refitted or copied."""
        if routing not in ROUTINGS:
            raise unknown_name("routing", routing, ROUTINGS)
        check_is_fitted(self, "experts_")
        other = copy.copy(self)
        other.routing = routing
        other.random_state = self.random_state if random_state is None else random_state
        return other

    def gates(self, responses: EmbeddedResponses, prompts: Rows | None = None) -> NDArray[np.float64]:
        """Weight of each expert for each prompt; shape (n_prompts, n_experts), rows sum to one."""
        check_is_fitted(self, "experts_")
        if self.routing not in ROUTINGS:
            raise unknown_name("routing", self.routing, ROUTINGS)
        prompts = np.arange(responses.n_prompts) if prompts is None else prompts
        n = len(self.domains_)
        if self.routing in ("soft", "hard"):
            p = self.router_.predict_proba(prompt_vectors(responses, self.router_views_, prompts))
            return p if self.routing == "soft" else np.eye(n)[p.argmax(axis=1)]
        if self.routing == "random":
            return np.eye(n)[[self._draw(g, n) for g in responses.group[prompts]]]
        domain = responses.domain[prompts]
        unseen = sorted(set(domain.tolist()) - set(self.domains_))
        if unseen:
            raise InvalidInputError(
                f"oracle routing needs an expert for every domain; none was fitted for {', '.join(unseen)}. "
                "Use hard or soft routing, or fit on data with these domains"
            )
        return np.eye(n)[np.searchsorted(np.array(self.domains_), domain)]

    def _draw(self, group: str, n: int) -> int:
        key = int(self.random_state).to_bytes(16, "little", signed=True)
        return int.from_bytes(blake2b(str(group).encode(), digest_size=8, key=key).digest(), "little") % n

    def expert_rewards(self, responses: EmbeddedResponses, rows: Rows | None = None) -> NDArray[np.float64]:
        """Calibrated reward of every expert for every response; shape (n, n_experts). The wrong-expert matrix reads it."""
        check_is_fitted(self, "experts_")
        rewards = np.stack([e._rewards(responses, rows) for e in self.experts_], axis=1)
        return (rewards - self.offset_) * self.scale_

    def required_views(self) -> tuple[str, ...]:
        """The experts' views, and the router's where the routing asks it."""
        check_is_fitted(self, "experts_")
        views = set(self.router_views_) if self.routing in ("soft", "hard") else set()
        return tuple(sorted(views.union(*(e.required_views() for e in self.experts_))))

    def _rewards(self, responses: EmbeddedResponses, rows: Rows | None) -> NDArray[np.float64]:
        check_is_fitted(self, "experts_")
        prompt_of = responses.prompt_of if rows is None else responses.prompt_of[rows]
        prompts, local = np.unique(prompt_of, return_inverse=True)
        gates = self.gates(responses, prompts)
        if self.routing == "soft":
            return np.einsum("ij,ij->i", gates[local], self.expert_rewards(responses, rows))
        chosen = gates.argmax(axis=1)[local]
        out = np.empty(len(prompt_of))
        all_rows = np.arange(responses.n_responses) if rows is None else rows
        for k in np.unique(chosen):
            mine = chosen == k
            out[mine] = (self.experts_[k]._rewards(responses, all_rows[mine]) - self.offset_[k]) * self.scale_[k]
        return out

    def margins(self, preferences: EmbeddedPreferences) -> NDArray[np.float64]:
        """Margins of the pairs; pairs across prompts are refused unless the experts are calibrated to one scale."""
        self._refuse_cross_prompt(check_preferences(preferences, "RoutedRewardModel"), self.calibrate)
        return super().margins(preferences)

    @staticmethod
    def _refuse_cross_prompt(prefs: EmbeddedPreferences, calibrated: Any) -> None:
        n_cross = int(prefs.cross_prompt.sum())
        if n_cross and not calibrated:
            raise InvalidInputError(
                f"{n_cross} of {len(prefs)} pairs compare responses to different prompts, whose experts have unrelated "
                "scales; use calibrate=True, or drop those pairs"
            )
