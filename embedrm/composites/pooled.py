"""Partial pooling: one linear head a domain, pulled towards a head that they share."""

from __future__ import annotations

import copy
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone

from embedrm.composites import COMPOSITES
from embedrm.composites._pooled_frames import Frame, own_frame
from embedrm.composites._pooled_problem import PooledProblem
from embedrm.composites._pooled_strength import Choice, HeldOut, choose
from embedrm.composites.routed import RoutedRewardModel
from embedrm.errors import InvalidInputError
from embedrm.featurizers import Featurizer
from embedrm.heads.linear import LinearHead
from embedrm.numerics.threads import SMALL_ENTRIES, allowed_threads, threads_for
from embedrm.objectives import make_objective
from embedrm.preferences import EmbeddedPreferences, EmbeddedResponses, Rows
from embedrm.reward_model import RewardModel, check_finite
from embedrm.routers.base import Router

STRENGTH_GRID = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03)
_WHO = "PooledRewardModel"


@COMPOSITES.register("pooled")
class PooledRewardModel(RoutedRewardModel):
    r"""One linear head for each domain, shrunk towards a shared one, behind a router that sees the prompt only.

    The weights of domain d are :math:`w_d = w_0 + v_d`, all found at once:

    .. math::
        \min_{w_0, v} \; f(r) + \tfrac12 \lambda \lVert w_0 \rVert^2 + \sum_d \tfrac12 \tau_d \lVert u_d \rVert^2,
        \qquad v_d = A_d u_d, \quad r_i = \phi_i \cdot (w_0 + v_{d(i)}), \qquad \tau_d = s \, \pi_d^{\,\gamma}

    with f the objective's mean loss over **all** pairs (by weight), d(i) the domain of response i's prompt, :math:`\lambda`
    the expert's ``l2``, s the ``strength``, :math:`\pi_d` the domain's share of the pairs' weight, :math:`\gamma` the
    ``share_power``, and :math:`A_d` from weights on the domain's own features to weights on everyone's (``own_scale``).

    - :math:`s \to \infty`: every domain has the single head of all pairs.
    - :math:`\lambda \to \infty`: each has the head of its own pairs alone, ``LinearHead(l2=tau_d / pi_d)``.
    - :math:`s \to 0`: that head without a penalty.

    A mixture is :math:`r = \phi \cdot (w_0 + \sum_d g_d v_d)`, less the domains' levels.

    Parameters
    ----------
    expert : LinearHead, optional
        The head that is pooled: its featurizer (fitted on all pairs, one for all domains), objective, ``l2`` and solver
        settings. ``l2`` is that of :math:`w_0`; ``"cv"`` picks it from ``l2_grid`` for the single head and, under
        ``strength="cv"``, then tries the stronger ones of the grid beside deviations. ``LinearHead(l2="cv")`` where
        absent. Other models cannot be pooled here.
    router, routing, random_state, k, prompt_weight
        As in :class:`RoutedRewardModel`.
    fallback : bool, optional
        As there; the general head is :math:`w_0`.
    strength : float or "cv"
        s; infinity for no deviations. ``"cv"`` picks it by the mean held-out log loss of ``cv`` folds of whole prompt
        groups (by the objective itself where margins are no logits), infinity being among the candidates.
    strength_grid : sequence of float
        Candidates of ``strength="cv"``. They are tried from the strongest on, each begun where the last one ended, and
        the weakest are left out once two in a row have helped neither the whole nor a domain.
    share_power : float in [0, 1]
        :math:`\gamma`. Against a domain's *own* mean loss the pull is :math:`s \, \pi_d^{\gamma - 1}`: with 0, the
        hierarchical normal model in which all deviations have one variance and pairs are independent, a domain with a
        hundredth of the pairs is pulled a hundred times as hard as all pairs would be; with 1, all domains are pulled
        equally hard, however few their pairs.
    min_groups : int, optional
        Prompt groups from which on a domain may have a strength of its own: where that lowers the held-out loss of its own
        pairs by more than a standard error (clustered by prompt group). None: one strength for all.
    own_scale : bool
        Measure a domain's deviation in features that are centred and scaled on the domain's own rows, as those of a head
        of its own would be: :math:`v_d = A_d u_d` with the penalty on :math:`u_d`. It matters for ``p*r``, whose products
        with a prompt that is centred on all domains are mostly products with the domain's mean prompt. Featurizers with
        projections, residuals or distances have no such map, and their deviations read the shared features.
    calibrate : bool
        Subtract from a domain's rewards their mean over its training responses; nothing is scaled, since all weights come
        from one likelihood. Where training pairs compare responses across domains, nothing is subtracted either: the
        likelihood has seen their levels.
    cv : int
        Folds for ``l2`` and ``strength``.

    Attributes
    ----------
    shared_ : LinearHead
        :math:`w_0`: the reward of a domain of which nothing is known.
    experts_ : list of LinearHead
        :math:`w_d`, in the order of ``domains_``.
    strength_ : float
        The common s.
    tau_ : ndarray of shape (n_experts,)
        :math:`\tau_d`.
    l2_ : float
    cv_results_ : list of dict
        ``l2``, ``strength``, held-out ``log_loss`` and ``accuracy`` of each candidate.
    scale_, offset_ : ndarray of shape (n_experts,)
        Ones, and what is subtracted.

    Notes
    -----
    A domain without training pairs has no expert, and needs a router that knows it not (soft and hard routing then send it
    where they think best). One with few pairs, or a single prompt group, gets nearly the shared head. Strengths of single
    domains are found on the path where all domains have one strength.

    References
    ----------
    Evgeniou and Pontil (2004), "Regularized multi-task learning" (the penalty); Daumé (2007), "Frustratingly easy domain
    adaptation" (the same as shared and own copies of the features); Finkel and Manning (2009), "Hierarchical Bayesian
    domain adaptation" (the normal prior); Gelman and Hill (2007), "Data analysis using regression and
    multilevel/hierarchical models", chapter 12 (partial pooling).
    """

    # chosen, not learned
    not_parameters = RoutedRewardModel.not_parameters | {"tau_"}
    _of_domains = (*RoutedRewardModel._of_domains, "tau_")

    def __init__(
        self,
        expert: RewardModel | None = None,
        router: Router | None = None,
        routing: str = "soft",
        strength: float | str = "cv",
        strength_grid: Iterable[float] = STRENGTH_GRID,
        share_power: float = 0.5,
        min_groups: int | None = 30,
        own_scale: bool = True,
        calibrate: bool = True,
        cv: int = 5,
        random_state: int = 0,
        k: int = 2,
        fallback: bool | None = None,
        prompt_weight: str = "prompts",
    ) -> None:
        super().__init__(
            expert=expert,
            router=router,
            routing=routing,
            calibrate=calibrate,
            cv=cv,
            random_state=random_state,
            k=k,
            fallback=fallback,
            prompt_weight=prompt_weight,
        )
        self.strength = strength
        self.strength_grid = strength_grid
        self.share_power = share_power
        self.min_groups = min_groups
        self.own_scale = own_scale

    @property
    def margins_are_logits(self) -> bool:
        """As the expert's objective has it."""
        return (LinearHead() if self.expert is None else self.expert).margins_are_logits

    def _fit_experts(
        self, prefs: EmbeddedPreferences
    ) -> tuple[list[RewardModel], NDArray[np.float64], NDArray[np.float64]]:
        template = self._template()
        strengths = self._strengths()
        objective = make_objective(template.objective)
        featurizer = template._new_featurizer().fit(prefs)
        frames = [self._frame(template, featurizer, prefs.in_domain(d))[0] for d in self.domains_]
        # a pass is a product a domain; small ones are made beside each other, by one thread each
        entries = len(prefs.active) * featurizer.dim_ // len(self.domains_)
        n_threads = allowed_threads() if entries < SMALL_ENTRIES else 1
        with threads_for(entries):
            problem = PooledProblem(objective, featurizer, prefs, self.domains_, frames, n_threads)
            choice = self._choose(template, problem, prefs, strengths)
            weights = problem.solve(choice.l2, choice.strength, tol=template.tol, max_iter=template.max_iter, who=_WHO)[
                :, :, 0
            ]
        self.l2_, self.strength_, self.tau_, self.cv_results_ = (
            choice.l2,
            choice.common,
            choice.strength,
            choice.results,
        )
        value = float(problem.value[0])

        def head(coef: NDArray[np.float64]) -> LinearHead:
            made: LinearHead = clone(template)
            made.featurizer_, made.n_features_in_ = featurizer, featurizer.dim_
            made.l2_, made.cv_results_ = choice.l2, []
            made.coef_, made.objective_ = np.ascontiguousarray(check_finite(coef, f"{_WHO}.fit")), value
            return made

        self.shared_ = head(weights[:, 0])
        self.total_weight_ = float(prefs.weight.sum())
        experts: list[RewardModel] = [head(problem.combined(weights, d)) for d in range(problem.n_domains)]
        offset = np.zeros(len(experts))
        if self.calibrate and not problem.compares_domains:
            offset[:] = [_level(e, prefs.responses, rows) for e, rows in zip(experts, problem.rows_of_domains())]
        return experts, np.ones(len(experts)), offset

    def _fit_new_experts(
        self, prefs: EmbeddedPreferences
    ) -> tuple[list[RewardModel], NDArray[np.float64], NDArray[np.float64]]:
        """Deviations of new domains from the shared head as it is, under the common strength."""
        template, shared = self._template(), self.shared_
        objective, featurizer = make_objective(template.objective), shared.featurizer_
        experts: list[RewardModel] = []
        tau, offset = np.full(len(self.domains_), np.inf), np.zeros(len(self.domains_))
        for d, domain in enumerate(self.domains_):
            own = prefs.in_domain(domain)
            share = own.weight.sum() / (self.total_weight_ + own.weight.sum())
            expert: LinearHead = copy.deepcopy(shared)
            if np.isfinite(self.strength_) and share > 0:
                tau[d] = self.strength_ * share**self.share_power
                frame, scaled = self._frame(template, featurizer, own)
                problem = PooledProblem(objective, scaled, own, [domain], [Frame()])
                base = shared._rewards(own.responses, problem.comparisons.rows)
                found = problem.solve(
                    tau[d] / share, None, base=base, tol=template.tol, max_iter=template.max_iter, who=_WHO
                )
                expert.coef_ = check_finite(shared.coef_ + frame.apply(found[:, 0, 0]), f"{_WHO}.add_domain")
            if self.calibrate:
                offset[d] = _level(expert, own.responses, own.active)
            experts.append(expert)
        self.tau_ = tau
        return experts, np.ones(len(experts)), offset

    def _fit_general(self, prefs: EmbeddedPreferences) -> tuple[RewardModel, float, float]:
        """Return the shared head, on the scale of its likelihood."""
        crossed = not self.calibrate or not self.offset_.any()
        return self.shared_, 1.0, 0.0 if crossed else _level(self.shared_, prefs.responses, prefs.active)

    def _frame(
        self, template: LinearHead, featurizer: Featurizer, own: EmbeddedPreferences
    ) -> tuple[Frame, Featurizer]:
        """The map from a domain's own features, and these features; the identity and the shared ones where there is none."""
        if not self.own_scale:
            return Frame(), featurizer
        scaled = template._new_featurizer().fit(own)
        frame = own_frame(featurizer, scaled)
        return frame, featurizer if frame == Frame() else scaled

    def _choose(
        self, template: LinearHead, problem: PooledProblem, prefs: EmbeddedPreferences, strengths: list[float]
    ) -> Choice:
        if template.l2 != "cv":
            l2_grid = [float(template.l2)]
        else:
            l2_grid = sorted({float(v) for v in template.l2_grid}, reverse=True)
            if not l2_grid or l2_grid[-1] < 0:
                raise InvalidInputError(
                    f"{_WHO}(expert=LinearHead(l2='cv')) needs l2_grid of numbers >= 0, got {tuple(template.l2_grid)!r}"
                )
        if len(l2_grid) == 1 and self.strength != "cv":
            tau = np.full(problem.n_domains, strengths[0])
            if np.isfinite(strengths[0]):
                tau *= problem.share**self.share_power
            return Choice(l2_grid[0], strengths[0], tau)
        who = f"{_WHO}(strength='cv')" if self.strength == "cv" else f"{_WHO}(expert=LinearHead(l2='cv'))"
        held = HeldOut(problem, prefs, self.cv, template.max_iter, who)
        return choose(held, l2_grid, strengths, self.strength == "cv", self.share_power, self.min_groups)

    def _template(self) -> LinearHead:
        template = LinearHead(l2="cv") if self.expert is None else self.expert
        if type(template) is not LinearHead:
            raise InvalidInputError(
                f"{_WHO} pools the weights of LinearHead experts, got {type(template).__name__}; use RoutedRewardModel for "
                "other experts, each fitted to its own domain alone"
            )
        template._check_parameters()
        return template

    def _strengths(self) -> list[float]:
        """Candidates, falling."""
        if self.strength == "cv":
            grid = [float(v) for v in self.strength_grid]
        elif isinstance(self.strength, (int, float)) and not isinstance(self.strength, bool) and self.strength >= 0:
            grid = [float(self.strength)]
        else:
            raise InvalidInputError(f"{_WHO} needs strength to be a number >= 0 or 'cv', got {self.strength!r}")
        if not grid or not all(v >= 0 for v in grid):
            raise InvalidInputError(
                f"{_WHO}(strength='cv') needs strength_grid of numbers >= 0, got {tuple(self.strength_grid)!r}"
            )
        if not 0 <= self.share_power <= 1:
            raise InvalidInputError(f"{_WHO} needs share_power in [0, 1], got {self.share_power!r}")
        whole = isinstance(self.min_groups, (int, np.integer)) and not isinstance(self.min_groups, bool)
        if self.min_groups is not None and not (whole and self.min_groups >= 2):
            raise InvalidInputError(
                f"{_WHO} needs min_groups to be a whole number >= 2 or None, got {self.min_groups!r}"
            )
        return sorted(set(grid), reverse=True)


def _level(head: RewardModel, responses: EmbeddedResponses, rows: Rows) -> float:
    """Mean reward of some responses; zero of none."""
    return float(head._rewards(responses, rows).mean()) if len(rows) else 0.0
