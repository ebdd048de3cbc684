"""Domains that come and go in a routed model, without training the experts of the others again."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from embedrm.errors import InvalidInputError, unknown_name
from embedrm.preferences import EmbeddedPreferences
from embedrm.reward_model import RewardModel, check_preferences
from embedrm.routers.base import Router

Self = TypeVar("Self", bound="DomainChanges")


class DomainChanges:
    """What :class:`embedrm.RoutedRewardModel` offers for domains that are added to it or dropped from it."""

    domains_: list[str]
    experts_: list[RewardModel]
    scale_: NDArray[np.float64]
    offset_: NDArray[np.float64]
    calibrate: bool
    router: Router | None
    prompt_weight: str
    general_: RewardModel | None
    _of_domains: tuple[str, ...] = ("experts_", "scale_", "offset_")
    """Fitted lists and arrays with an entry for each of ``domains_``, in their order."""

    def _check_parameters(self) -> Router:
        raise TypeError(f"{type(self).__name__} does not implement _check_parameters")

    def _fit_new_experts(
        self, prefs: EmbeddedPreferences
    ) -> tuple[list[RewardModel], NDArray[np.float64], NDArray[np.float64]]:
        raise TypeError(f"{type(self).__name__} does not implement _fit_new_experts")

    def _learn_routes(self, router: Router, prefs: EmbeddedPreferences) -> None:
        raise TypeError(f"{type(self).__name__} does not implement _learn_routes")

    @staticmethod
    def _refuse_cross_prompt(prefs: EmbeddedPreferences, calibrated: Any) -> None:
        raise TypeError("a routed model implements _refuse_cross_prompt")

    def add_domain(self: Self, preferences: EmbeddedPreferences) -> Self:
        """Return a model with an expert for each new domain and the router fitted anew; this one is not changed.

        The other experts are shared, not copied, with their scales and offsets, so that their rewards are the same bits. The
        general head stays what it was.

        Parameters
        ----------
        preferences : EmbeddedPreferences
            Pairs of the new domains, and of all the old ones for the prompts on which the router learns to tell them apart:
            what the model was fitted on together with what is new. Of the old domains only prompts are read.

        Raises
        ------
        InvalidInputError
            Without a new domain, or without prompts of an old one.
        """
        check_is_fitted(self, "experts_")
        prefs = check_preferences(preferences, f"{type(self).__name__}.add_domain")
        router = self._check_parameters()
        self._refuse_cross_prompt(prefs, self.calibrate)
        new = self._new_domains(prefs, "an expert")
        other = copy.copy(self)
        other.domains_ = new
        other.experts_, other.scale_, other.offset_ = other._fit_new_experts(prefs[np.isin(prefs.domain, new)])
        names = [*self.domains_, *new]
        order = np.argsort(names, kind="stable")
        other.domains_ = [names[i] for i in order]
        for name in self._of_domains:
            old, added = getattr(self, name), getattr(other, name)
            is_list = isinstance(old, list)
            setattr(other, name, [[*old, *added][i] for i in order] if is_list else np.concatenate([old, added])[order])
        other._learn_routes(router, prefs)
        return other

    def _new_domains(self, prefs: EmbeddedPreferences, what: str) -> list[str]:
        """Domains without ``what``; raise where there is none, or no prompt of one that has it."""
        new = [d for d in prefs.domains if d not in self.domains_]
        if not new:
            raise InvalidInputError(
                f"add_domain needs pairs of a domain without {what}, got only {', '.join(prefs.domains)}; to train a "
                "domain again, fit"
            )
        missing = sorted(set(self.domains_) - set(prefs.responses.domain[prefs.active_prompts].tolist()))
        if missing:
            raise InvalidInputError(
                f"add_domain refits the router and needs prompts of every domain, got none of {', '.join(missing)}; pass "
                "the pairs that the model was fitted on together with the new ones"
            )
        return new

    def with_router(
        self: Self, router: Router, preferences: EmbeddedPreferences, prompt_weight: str | None = None
    ) -> Self:
        """Return a model of the same experts behind another router, fitted here; this one is not changed.

        Routers are compared at the cost of routers: no expert is fitted again.

        Parameters
        ----------
        router : Router
            Cloned and fitted on the unique prompts of the pairs.
        preferences : EmbeddedPreferences
            What the model was fitted on.
        prompt_weight : {"prompts", "pairs"}, optional
            As in :class:`embedrm.RoutedRewardModel`; this model's own where absent.

        Raises
        ------
        InvalidInputError
            For pairs of a domain without an expert, and for a router that rejects prompts where no general head was fitted.
        """
        check_is_fitted(self, "experts_")
        prefs = check_preferences(preferences, f"{type(self).__name__}.with_router")
        other = copy.copy(self)
        other.router = router
        if prompt_weight is not None:
            if isinstance(self, BaseEstimator) and "prompt_weight" not in self.get_params(deep=False):
                raise InvalidInputError(
                    f"{type(self).__name__} has no prompt_weight: its prompts count alike; leave it out of with_router"
                )
            other.prompt_weight = prompt_weight
        fresh = other._check_parameters()
        if fresh.can_reject and other.general_ is None:
            raise InvalidInputError(
                f"{type(router).__name__} may reject prompts, and this model was fitted without a general head to answer "
                "for them; fit it with fallback=True"
            )
        other._learn_routes(fresh, prefs)
        return other

    def drop_domain(self: Self, domain: str, preferences: EmbeddedPreferences) -> Self:
        """Return a model without the expert of a domain and with the router fitted anew; this one is not changed.

        The other experts are shared, not copied. Independent experts never read the domain's pairs, so that the result is
        what ``fit`` gives without the domain; what experts learned together (a shared part, a trunk, a general head) keeps
        what it learned from it.

        Parameters
        ----------
        domain : str
        preferences : EmbeddedPreferences
            Pairs of the other domains, whose prompts the router is fitted on; pairs of the domain itself are left out.

        Raises
        ------
        InvalidInputError
            For a domain without an expert, the only one, or without prompts of one that stays.
        """
        check_is_fitted(self, "experts_")
        prefs = check_preferences(preferences, f"{type(self).__name__}.drop_domain")
        router = self._check_parameters()
        if domain not in self.domains_:
            raise unknown_name("domain with an expert", domain, self.domains_)
        keep = [k for k, name in enumerate(self.domains_) if name != domain]
        prefs = prefs[np.isin(prefs.domain, [self.domains_[k] for k in keep])]
        missing = sorted({self.domains_[k] for k in keep} - set(prefs.domains))
        if not keep or missing:
            raise InvalidInputError(
                f"drop_domain refits the router and needs pairs of every domain that stays, got none of "
                f"{', '.join(missing) or 'any'}; pass the pairs that the model was fitted on"
            )
        other = copy.copy(self)
        other.domains_ = [self.domains_[k] for k in keep]
        for name in self._of_domains:
            old = getattr(self, name)
            setattr(other, name, [old[k] for k in keep] if isinstance(old, list) else old[keep])
        other._learn_routes(router, prefs)
        return other
