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
from embedrm.composites._domain_changes import DomainChanges
from embedrm.composites._held_out import fit_and_hold_out
from embedrm.composites._linear_experts import LinearExperts
from embedrm.errors import InvalidInputError, unknown_name
from embedrm.heads.linear import LinearHead
from embedrm.numerics.calibration import fit_margin_scale
from embedrm.numerics.threads import allowed_threads, in_threads, threads_for
from embedrm.preferences import EmbeddedPreferences, EmbeddedResponses, Rows
from embedrm.reward_model import RewardModel, check_preferences
from embedrm.routers.base import Router, prompt_examples, prompt_pair_weights, prompt_vectors, takes_weights
from embedrm.routers.logistic import LogisticRouter

ROUTINGS = ("soft", "hard", "top-k", "oracle", "random")
PROMPT_WEIGHTS = ("prompts", "pairs")
# Prompts that are routed at once.
_GATE_ROWS = 65_536
# Entries of the active vectors up to which linear experts are fitted beside each other: what all of them may copy is then no
# more than one large expert may.
_BESIDE_ENTRIES = 2**26


@COMPOSITES.register("routed")
class RoutedRewardModel(DomainChanges, RewardModel):
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
    routing : {"soft", "hard", "top-k", "oracle", "random"}
        ``"soft"``: the router's calibrated probabilities. ``"hard"``: its most probable domain (the paper's rule).
        ``"top-k"``: its ``k`` most probable ones, renormalised to one. ``"oracle"``: the true domain, an upper bound on any
        router. ``"random"``: a domain drawn for each prompt group, what routing without knowledge costs.
    calibrate : bool
        Scale each expert by a_d fitted to its out-of-fold margins and shift it by b_d, the mean reward of its training
        responses; a domain with a single prompt group leaves nothing to hold out, and its a_d is 1. An expert that chooses
        its penalty by folds is measured at that penalty, on folds of the same pairs: the choice has seen them, so that a_d
        errs towards too sure as far as a choice among a few penalties can. Mixing experts whose scales differ lets the most
        overconfident one decide, so turn it off only for hard routing and ranking within prompts.
    cv : int
        Folds, by prompt group, for the out-of-fold margins.
    random_state : int
        Seed of ``routing="random"``.
    k : int
        Domains that ``"top-k"`` keeps; with as many as there are it is soft routing, with one it is hard routing.
    fallback : bool, optional
        Fit a general head too: ``expert`` on all pairs, calibrated like the others. It answers for prompts that a router
        with a reject option leaves, and under oracle routing for domains without an expert. Where absent, it is fitted if
        the router can reject. False is refused for such a router.
    prompt_weight : {"prompts", "pairs"}
        How much a training prompt counts for the router: each alike, or by the summed weight of its pairs. A domain with few
        prompts and many pairs each is all but unknown to a router that counts prompts.

    Attributes
    ----------
    domains_ : list of str
        Domains with an expert, sorted.
    experts_ : list of RewardModel
        In the order of ``domains_``.
    scale_, offset_ : ndarray of shape (n_experts,)
        a_d and b_d.
    general_ : RewardModel or None
        The general head, with ``general_scale_`` and ``general_offset_``.
    router_ : Router
        With all its thresholds, for each route where they differ.
    router_views_ : list of str

    Notes
    -----
    *A domain that training has not seen*: soft, hard, top-k and random routing send its prompts to the experts there are, or
    to the general head where the router rejects them. Oracle routing takes the general head, and without one is an error
    that names the domain. *A domain with a handful of pairs* has an expert fitted to them, as poor as they are few; hard
    routing hands all its prompts to it, soft routing as far as the router is sure. *A domain with one prompt group* leaves
    nothing to hold out: an expert that chooses its penalty by folds cannot be fitted, which is an error that names the
    domain; with a fixed penalty its a_d stays 1. *A domain with prompts but no pairs* is not seen by ``fit`` at all, which
    reads active rows only, and is an unseen domain afterwards. Partially pooled experts are the better choice for small
    domains.

    References
    ----------
    Namgoong et al. (2024), "Exploring Domain Robust Lightweight Reward Models based on Router Mechanism", section on
    RODOS. This is an analogue: the paper tunes one language model a domain; here heads share one frozen encoder.
    """

    # A calibration's scales and offsets are no parameters, in any composite: they are measured on a model that is fitted.
    not_parameters = frozenset({"scale_", "offset_"})
    # for subclasses that do not offer them
    k: int = 2
    cv: int = 5
    fallback: bool | None = None
    prompt_weight: str = "prompts"
    general_: RewardModel | None = None

    def __init__(
        self,
        expert: RewardModel | None = None,
        router: Router | None = None,
        routing: str = "soft",
        calibrate: bool = True,
        cv: int = 5,
        random_state: int = 0,
        k: int = 2,
        fallback: bool | None = None,
        prompt_weight: str = "prompts",
    ) -> None:
        self.expert = expert
        self.router = router
        self.routing = routing
        self.calibrate = calibrate
        self.cv = cv
        self.random_state = random_state
        offered = self._get_param_names()
        for name, value in (("k", k), ("fallback", fallback), ("prompt_weight", prompt_weight)):
            if name in offered:
                setattr(self, name, value)

    @property
    def margins_are_logits(self) -> bool:
        """True for calibrated experts; otherwise as the expert has it."""
        return bool(self.calibrate) or (LinearHead() if self.expert is None else self.expert).margins_are_logits

    def fit(self, preferences: EmbeddedPreferences, y: None = None) -> RoutedRewardModel:
        """Fit one expert for each domain among the pairs, its calibration, and the router. Returns self."""
        prefs = check_preferences(preferences, type(self).__name__)
        router = self._check_parameters()
        self._refuse_cross_prompt(prefs, self.calibrate)
        self.domains_ = list(prefs.domains)
        self.experts_, self.scale_, self.offset_ = self._fit_experts(prefs)
        self.general_, self.general_scale_, self.general_offset_ = None, 1.0, 0.0
        if router.can_reject if self.fallback is None else self.fallback:
            self.general_, self.general_scale_, self.general_offset_ = self._fit_general(prefs)
        self._learn_routes(router, prefs)
        return self

    def _check_parameters(self) -> Router:
        """Refuse wrong parameters; returns the router to fit."""
        if self.routing not in ROUTINGS:
            raise unknown_name("routing", self.routing, ROUTINGS)
        if self.prompt_weight not in PROMPT_WEIGHTS:
            raise unknown_name("prompt_weight", self.prompt_weight, PROMPT_WEIGHTS)
        self._check_k(self.k)
        for name, least in (("cv", 2), ("random_state", None)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or (least and value < least):
                wanted = "a whole number" + (f" >= {least}" if least else "")
                raise InvalidInputError(f"{type(self).__name__} needs {name} to be {wanted}, got {value!r}")
        router: Router = LogisticRouter() if self.router is None else clone(self.router)
        if router.can_reject and self.fallback is not None and not self.fallback:
            raise InvalidInputError(
                f"{type(router).__name__} may reject prompts, and fallback=False leaves nobody to answer for them; leave "
                "fallback out, or take another router"
            )
        if self.prompt_weight == "pairs" and not takes_weights(router):
            raise InvalidInputError(
                f"prompt_weight='pairs' needs a router whose fit takes sample_weight, which "
                f"{type(router).__name__}'s does not"
            )
        return router

    def _check_k(self, k: Any) -> None:
        if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
            raise InvalidInputError(f"{type(self).__name__} needs k to be a whole number >= 1, got {k!r}")

    def _learn_routes(self, router: Router, prefs: EmbeddedPreferences) -> None:
        """Fit the router on the unique prompts of the pairs."""
        self.router_views_ = router.resolve_views(prefs.responses.views)
        vectors, domains, groups = prompt_examples(prefs, self.router_views_, type(self).__name__)
        without = sorted(set(domains.tolist()) - set(self.domains_))
        if without:
            raise InvalidInputError(
                f"the domain(s) {', '.join(without)} appear among the pairs only as rejected responses of cross-prompt "
                "pairs, so they have no expert; add pairs chosen there, or drop those pairs"
            )
        extra = {"sample_weight": prompt_pair_weights(prefs)} if self.prompt_weight == "pairs" else {}
        self.router_ = router.fit(vectors, domains, groups, **extra)

    def _fit_experts(
        self, prefs: EmbeddedPreferences
    ) -> tuple[list[RewardModel], NDArray[np.float64], NDArray[np.float64]]:
        """Experts of ``domains_``, with their scales and offsets."""
        template = LinearHead(l2="cv") if self.expert is None else self.expert

        def fitted(domain: str) -> tuple[RewardModel, float, float]:
            own = prefs.in_domain(domain)
            try:
                return self._fit_scaled(template, own)
            except InvalidInputError as error:
                raise InvalidInputError(f"the expert of domain {domain!r} ({len(own)} pairs): {error}") from error

        responses = prefs.responses
        entries = len(prefs.active) * sum(responses.view(view).shape[1] for view in responses.views)
        if type(template) is LinearHead and entries <= _BESIDE_ENTRIES:
            # one at a time leaves cores idle; the largest first, so that none is left to run alone
            order = np.argsort([-np.count_nonzero(prefs.domain == domain) for domain in self.domains_], kind="stable")
            n_threads = allowed_threads()
            with threads_for(0):
                done = in_threads(fitted, [self.domains_[k] for k in order], n_threads)
            found = [done[k] for k in np.argsort(order)]
        else:
            found = [fitted(domain) for domain in self.domains_]
        experts, scale, offset = zip(*found)
        return list(experts), np.array(scale), np.array(offset)

    def _fit_new_experts(
        self, prefs: EmbeddedPreferences
    ) -> tuple[list[RewardModel], NDArray[np.float64], NDArray[np.float64]]:
        """As :meth:`_fit_experts`, on the pairs of the new domains alone, beside experts that stay as they are."""
        return self._fit_experts(prefs)

    def _fit_general(self, prefs: EmbeddedPreferences) -> tuple[RewardModel, float, float]:
        """Return the head of all pairs, its scale and its offset."""
        return self._fit_scaled(LinearHead(l2="cv") if self.expert is None else self.expert, prefs)

    def _fit_scaled(self, template: RewardModel, own: EmbeddedPreferences) -> tuple[RewardModel, float, float]:
        """Return a fitted clone of the template, its scale and its offset."""
        counted = own.weight > 0
        n_groups = len(np.unique(own.groups[counted]))
        if not self.calibrate or n_groups < 2:
            head, scale = clone(template).fit(own), 1.0
        else:
            head, margins = fit_and_hold_out(template, own, self.cv, type(self).__name__)
            scale = fit_margin_scale(
                margins[counted], own.outcome[counted], own.weight[counted], n_independent=n_groups
            )
        return head, scale, float(head._rewards(own.responses, own.active).mean()) if self.calibrate else 0.0

    def with_routing(self, routing: str, random_state: int | None = None, k: int | None = None) -> RoutedRewardModel:
        """Return the same fitted experts and router under another routing; nothing is refitted or copied."""
        if routing not in ROUTINGS:
            raise unknown_name("routing", routing, ROUTINGS)
        check_is_fitted(self, "experts_")
        other = copy.copy(self)
        other.routing = routing
        other.random_state = self.random_state if random_state is None else random_state
        other.k = self.k if k is None else k
        other._check_k(other.k)
        return other

    def gates(self, responses: EmbeddedResponses, prompts: Rows | None = None) -> NDArray[np.float64]:
        """Weight of each expert for each prompt; shape (n_prompts, n_experts).

        Rows sum to one; where the general head answers, they are zero.
        """
        check_is_fitted(self, "experts_")
        if self.routing not in ROUTINGS:
            raise unknown_name("routing", self.routing, ROUTINGS)
        prompts = np.arange(responses.n_prompts) if prompts is None else prompts
        n = len(self.domains_)
        if self.routing == "random":
            return np.eye(n)[[self._draw(g, n) for g in responses.group[prompts]]]
        if self.routing == "oracle":
            return self._oracle(responses.domain[prompts])
        gates = np.empty((len(prompts), n))
        for start in range(0, len(prompts), _GATE_ROWS):
            part = slice(start, start + _GATE_ROWS)
            vectors = prompt_vectors(responses, self.router_views_, prompts[part])
            gates[part] = self._gate(self.router_.predict_proba(vectors))
            if self.general_ is not None and self.router_.can_reject:
                gates[part][~self.router_.accept(vectors)] = 0.0
        return gates

    def _gate(self, p: NDArray[np.float64]) -> NDArray[np.float64]:
        """From probabilities (n, n_experts) to weights."""
        n, k = len(self.domains_), 1 if self.routing == "hard" else self.k
        if self.routing == "soft" or (self.routing == "top-k" and k >= n):
            return p
        if k == 1:
            return np.eye(n)[p.argmax(axis=1)]
        # equal probabilities go to the first by name
        dropped = np.argsort(-p, axis=1, kind="stable")[:, k:]
        kept = p.copy()
        np.put_along_axis(kept, dropped, 0.0, axis=1)
        gates: NDArray[np.float64] = kept / kept.sum(axis=1, keepdims=True)
        return gates

    def _oracle(self, domain: NDArray[np.str_]) -> NDArray[np.float64]:
        known = np.isin(domain, self.domains_)
        if self.general_ is None and not known.all():
            unseen = sorted(set(domain[~known].tolist()))
            raise InvalidInputError(
                f"oracle routing needs an expert for every domain; none was fitted for {', '.join(unseen)}. Use another "
                "routing, fit on data with these domains, or fit with fallback=True, so that a general head answers for them"
            )
        gates = np.zeros((len(domain), len(self.domains_)))
        gates[np.flatnonzero(known), np.searchsorted(np.array(self.domains_), domain[known])] = 1.0
        return gates

    def _draw(self, group: str, n: int) -> int:
        key = int(self.random_state).to_bytes(16, "little", signed=True)
        return int.from_bytes(blake2b(str(group).encode(), digest_size=8, key=key).digest(), "little") % n

    def expert_rewards(self, responses: EmbeddedResponses, rows: Rows | None = None) -> NDArray[np.float64]:
        """Calibrated reward of every expert for every response; shape (n, n_experts). The wrong-expert matrix reads it."""
        check_is_fitted(self, "experts_")
        linear = LinearExperts.of(self.experts_, self.scale_, self.offset_)
        if linear is not None and not linear.has_products:
            return linear.rewards(responses, rows)
        rewards = np.stack([e._rewards(responses, rows) for e in self.experts_], axis=1)
        return (rewards - self.offset_) * self.scale_

    def required_views(self) -> tuple[str, ...]:
        """The experts' views, the general head's, and the router's where the routing asks it."""
        check_is_fitted(self, "experts_")
        views = set(self.router_views_) if self.routing not in ("oracle", "random") else set()
        heads = [*self.experts_, *([] if self.general_ is None else [self.general_])]
        return tuple(sorted(views.union(*(e.required_views() for e in heads))))

    def _rewards(self, responses: EmbeddedResponses, rows: Rows | None) -> NDArray[np.float64]:
        check_is_fitted(self, "experts_")
        prompt_of = responses.prompt_of if rows is None else responses.prompt_of[rows]
        prompts, local = np.unique(prompt_of, return_inverse=True)
        gates = self.gates(responses, prompts)
        all_rows = np.arange(responses.n_responses) if rows is None else rows
        if self.routing == "soft" or (self.routing == "top-k" and self.k > 1):
            linear = LinearExperts.of(self.experts_, self.scale_, self.offset_)
            if linear is not None:
                out = linear.mix(gates, prompts, local, responses, rows)
            else:
                out = np.einsum("ij,ij->i", gates[local], self.expert_rewards(responses, rows))
        else:
            # each response by its own expert alone: the bits of that head
            chosen = np.where(gates.any(axis=1), gates.argmax(axis=1), -1)[local]
            out = np.zeros(len(prompt_of))
            for e in np.unique(chosen[chosen >= 0]):
                mine = chosen == e
                rewards = self.experts_[e]._rewards(responses, all_rows[mine])
                out[mine] = (rewards - self.offset_[e]) * self.scale_[e]
        if self.general_ is not None:
            left = np.asarray(~gates.any(axis=1))[local]
            if left.any():
                rewards = self.general_._rewards(responses, all_rows[left])
                out[left] = (rewards - self.general_offset_) * self.general_scale_
        return out

    def check_pairs(self, preferences: EmbeddedPreferences) -> None:
        """Refuse pairs across prompts unless the experts are calibrated to one scale, and what an expert refuses."""
        check_is_fitted(self, "router_")
        self._refuse_cross_prompt(preferences, self.calibrate)
        for expert in (*self.experts_, *(() if self.general_ is None else (self.general_,))):
            expert.check_pairs(preferences)

    @staticmethod
    def _refuse_cross_prompt(prefs: EmbeddedPreferences, calibrated: Any) -> None:
        n_cross = int(prefs.cross_prompt.sum())
        if n_cross and not calibrated:
            raise InvalidInputError(
                f"{n_cross} of {len(prefs)} pairs compare responses to different prompts, whose experts have unrelated "
                "scales; use calibrate=True, or drop those pairs"
            )
