"""Ensembles: several models of one kind, their agreement, and what to make of their disagreement."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from embedrm.composites import COMPOSITES
from embedrm.composites._member_rewards import member_rewards
from embedrm.composites._standardise import means_and_scales
from embedrm.errors import InvalidInputError, unknown_name
from embedrm.heads.linear import LinearHead
from embedrm.numerics.folds import hold_out
from embedrm.numerics.graph import gather_margins
from embedrm.preferences import EmbeddedPreferences, EmbeddedResponses, Rows
from embedrm.reward_model import RewardModel, check_preferences

KINDS = ("bootstrap", "seeds", "features")
FEW_GROUPS = ("raise", "adapt")
AGGREGATES = ("mean", "min", "uwo", "lcb", "median")
# Rows on which members of different seeds are compared to see that they differ at all.
_PROBE_ROWS = 256


def aggregated(rewards: NDArray[np.float64], aggregate: str, k: float = 0.5) -> NDArray[np.float64]:
    """Return one reward a response of the members' (n_responses, n_members), by a named aggregate; shape (n_responses,)."""
    if aggregate not in AGGREGATES:
        raise unknown_name("aggregate", aggregate, AGGREGATES)
    made: NDArray[np.float64]
    if aggregate == "min":
        return rewards.min(axis=1)
    if aggregate == "median":
        made = np.median(rewards, axis=1)
        return made
    made = rewards.mean(axis=1)
    if aggregate == "uwo":
        made -= k * rewards.var(axis=1)
    elif aggregate == "lcb":
        made -= k * rewards.std(axis=1)
    return made


@COMPOSITES.register("ensemble")
class EnsembleRewardModel(RewardModel):
    r"""Several models of one kind, trained together, and one reward made of theirs.

    With the members' rewards :math:`r_1 \dots r_M`, their mean :math:`\bar r` and standard deviation s (of the M members,
    not of a population they are drawn from), the reward is

    ==========  ==============================  ============================================
    aggregate   reward                          name elsewhere
    ==========  ==============================  ============================================
    ``mean``    :math:`\bar r`                  mean optimisation
    ``min``     :math:`\min_m r_m`              worst-case optimisation, WCO
    ``uwo``     :math:`\bar r - k s^2`          uncertainty-weighted optimisation, UWO
    ``lcb``     :math:`\bar r - k s`            lower confidence bound; RewardBench's variant
    ``median``  median
    ==========  ==============================  ============================================

    Parameters
    ----------
    member : RewardModel, optional
        Cloned for each member; ``LinearHead()`` where absent. Linear heads and perceptrons are trained in one pass
        (:meth:`embedrm.RewardModel.fit_members`), other models one after another.
    n_members : int
        M, at least 2.
    kind : {"bootstrap", "seeds", "features"}
        What makes members differ. ``"bootstrap"``: prompt groups drawn with replacement, by weights on their pairs.
        ``"seeds"``: ``random_state`` alone, which a model with one optimum has no use for. ``"features"``: each member reads
        a random share of the features. Members with a ``random_state`` have different ones in every kind.
    feature_fraction : float in (0, 1]
        Share of features that a member of ``kind="features"`` reads.
    aggregate : {"mean", "min", "uwo", "lcb", "median"}
    k : float
        How much disagreement costs under ``"uwo"`` and ``"lcb"``; at least 0.
    standardise : bool
        Put every member's rewards to mean 0 and standard deviation 1 on the calibration responses before they are
        aggregated; the means and scales are fitted and saved.
    calibration_fraction : float in (0, 1), optional
        Share of the training pairs' prompt groups that is kept from the members, and on whose responses they are
        standardised. None: all pairs train, and their own responses standardise; for few prompts, and a little off where
        members fit their training responses more closely than others. Not used without ``standardise``.
    few_groups : {"raise", "adapt"}
        What to do where the pairs have too few prompt groups to draw from and to keep some for the calibration (3, with the
        defaults). ``"raise"``: refuse them. ``"adapt"``: do without what they cannot give, for small domains of a routed
        model: members are standardised on the training responses, and those of a single group are not drawn, so that a
        bootstrap of them has equal members. Refits on folds, for a calibration of the ensemble, always adapt, so that the
        calibration asks for no more groups than the ensemble itself.
    random_state : int

    Attributes
    ----------
    members_ : list of RewardModel
    member_means_, member_scales_ : ndarray of shape (n_members,)
        What is subtracted from each member's rewards, then divided by; zeros and ones without ``standardise``.
    n_calibration_ : int
        Responses behind them.
    standardised_on_ : str
        ``"held-out responses"``, ``"training responses"`` or ``"nothing"``.

    Notes
    -----
    Bradley–Terry leaves every member an offset and, with its penalty, a scale of its own. Without standardisation the
    minimum is the member with the lowest offset, and s is mostly the spread of offsets. Standardising takes one offset and
    one scale away from each member, over all prompts; how good one *prompt's* responses are on average is still something
    that no pair within prompts has measured, so that rewards of different prompts differ in s for no reason in the data.
    Within a prompt :meth:`margin_uncertainty` is free of all this. Per-prompt standardisation is not offered: the reward
    of a response would depend on what else is scored with it.

    Pairs of weight zero are left out before anything is drawn or kept apart.

    A pessimistic reward (``min``, ``uwo``, ``lcb``) of swapped training labels is not the reward turned round, and its
    margins are not log-odds; nor are those of standardised members: wrap the ensemble in a calibrated model where
    probabilities are wanted. Members share their training responses and one encoder, so their errors are alike, and s is
    below the true uncertainty; more so the less they differ. Eisenstein et al. find that ensembles lessen over-optimisation
    and do not end it, for that reason.

    References
    ----------
    Coste et al. (2024), "Reward model ensembles help mitigate overoptimization" (mean, WCO, UWO with the variance);
    Eisenstein et al. (2023), "Helping or herding? Reward model ensembles mitigate but do not eliminate reward hacking";
    Lambert et al. (2024), "RewardBench", whose ensembles are z-scored and take the mean less the standard deviation.
    """

    def __init__(
        self,
        member: RewardModel | None = None,
        n_members: int = 5,
        kind: str = "bootstrap",
        feature_fraction: float = 0.5,
        aggregate: str = "mean",
        k: float = 0.5,
        standardise: bool = True,
        calibration_fraction: float | None = 0.1,
        few_groups: str = "raise",
        random_state: int = 0,
    ) -> None:
        self.member = member
        self.n_members = n_members
        self.kind = kind
        self.feature_fraction = feature_fraction
        self.aggregate = aggregate
        self.k = k
        self.standardise = standardise
        self.calibration_fraction = calibration_fraction
        self.few_groups = few_groups
        self.random_state = random_state

    def fit(self, preferences: EmbeddedPreferences, y: None = None) -> EnsembleRewardModel:
        """Fit the members together, then their standardisation. Reads only the active rows. Returns self."""
        prefs = check_preferences(preferences, "EnsembleRewardModel")
        self.check_parameters()
        template = LinearHead() if self.member is None else self.member
        prefs = prefs[prefs.weight > 0]
        if not len(prefs):
            raise InvalidInputError("EnsembleRewardModel needs pairs with positive weight, got only zeros")
        training, calibration = self._split(prefs)
        seeds = (np.random.SeedSequence(self.random_state).generate_state(self.n_members) >> 1).tolist()
        weight = self._bootstrap(training) if self.kind == "bootstrap" else None
        masks = self._masks(template.member_features(training)) if self.kind == "features" else None
        self.members_ = template.fit_members(training, seeds, weight, masks)
        if self.kind == "seeds":
            self._refuse_equal_members(template, training)
        self.member_means_, self.member_scales_ = np.zeros(self.n_members), np.ones(self.n_members)
        self.n_calibration_ = 0
        if self.standardise:
            self.n_calibration_ = len(calibration.active)
            responses, rows = calibration.responses, calibration.active
            self.member_means_, self.member_scales_ = means_and_scales(self.members_, responses, rows)
        return self

    @property
    def margins_are_logits(self) -> bool:
        """For the plain mean of members whose margins are."""
        inside = LinearHead() if self.member is None else self.member
        return self.aggregate == "mean" and not self.standardise and inside.margins_are_logits

    def predict_members(self, x: EmbeddedResponses | EmbeddedPreferences | NDArray[np.floating]) -> NDArray[np.float64]:
        """Standardised reward of every member for every response; shape (n_responses, n_members)."""
        check_is_fitted(self, "members_")
        return self._member_rewards(self._responses_of(x), None)

    def uncertainty(self, x: EmbeddedResponses | EmbeddedPreferences | NDArray[np.floating]) -> NDArray[np.float64]:
        """Standard deviation of the members' standardised rewards; shape (n_responses,). See the class's notes."""
        spread: NDArray[np.float64] = self.predict_members(x).std(axis=1)
        return spread

    def margin_uncertainty(self, preferences: EmbeddedPreferences) -> NDArray[np.float64]:
        """Standard deviation of the members' standardised margins; shape (n_pairs,). No free constant is in it."""
        check_is_fitted(self, "members_")
        self.check_pairs(check_preferences(preferences, "EnsembleRewardModel"))
        rewards = self._member_rewards(preferences.responses, preferences.active)
        spread: NDArray[np.float64] = gather_margins(rewards, preferences.local_pairs).std(axis=1)
        return spread

    def check_pairs(self, preferences: EmbeddedPreferences) -> None:
        """Refuse what a member refuses."""
        check_is_fitted(self, "members_")
        for member in self.members_:
            member.check_pairs(preferences)

    def required_views(self) -> tuple[str, ...]:
        """The members' views."""
        check_is_fitted(self, "members_")
        return tuple(sorted({view for member in self.members_ for view in member.required_views()}))

    def _single_view(self) -> str | None:
        check_is_fitted(self, "members_")
        views = {member._single_view() for member in self.members_}
        return views.pop() if len(views) == 1 else None

    def _responses_of(self, x: EmbeddedResponses | EmbeddedPreferences | NDArray[np.floating]) -> EmbeddedResponses:
        if isinstance(x, EmbeddedPreferences):
            return x.responses
        return x if isinstance(x, EmbeddedResponses) else self._as_responses(np.asarray(x))

    def _member_rewards(self, responses: EmbeddedResponses, rows: Rows | None) -> NDArray[np.float64]:
        rewards = member_rewards(self.members_, responses, rows)
        rewards -= self.member_means_
        rewards /= self.member_scales_
        return rewards

    def _rewards(self, responses: EmbeddedResponses, rows: Rows | None) -> NDArray[np.float64]:
        check_is_fitted(self, "members_")
        return aggregated(self._member_rewards(responses, rows), self.aggregate, self.k)

    def _split(self, prefs: EmbeddedPreferences) -> tuple[EmbeddedPreferences, EmbeddedPreferences]:
        """Pairs to train members on, and pairs on whose responses they are standardised."""
        n_groups = len(np.unique(prefs.groups))
        least = 2 if self.kind == "bootstrap" else 1
        held = self.standardise and self.calibration_fraction is not None
        self.standardised_on_ = "training responses" if self.standardise else "nothing"
        if n_groups < least + held and self.few_groups == "raise":
            raise InvalidInputError(
                f"EnsembleRewardModel(kind={self.kind!r}) needs at least {least + held} prompt groups"
                + (", one of them to standardise members on" if held else "")
                + f", got {n_groups}; give more prompts"
                + (", or calibration_fraction=None to standardise on the training responses" if held else "")
                + (", or another kind" if least > 1 else "")
                + ", or few_groups='adapt' to do without what these cannot give"
            )
        if n_groups < least + held or not held or self.calibration_fraction is None:
            return prefs, prefs
        self.standardised_on_ = "held-out responses"
        fraction = min(self.calibration_fraction, (n_groups - least) / n_groups)
        train, out = hold_out(prefs.groups, fraction, self.random_state, "EnsembleRewardModel", "more prompts")
        return prefs[train], prefs[out]

    def _bootstrap(self, training: EmbeddedPreferences) -> NDArray[np.float64]:
        """Weights (n_pairs, n_members): each member's draw of as many prompt groups as there are, with replacement."""
        names, group = np.unique(training.groups, return_inverse=True)
        rng = np.random.default_rng([self.random_state, 1])
        drawn = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=self.n_members)
        weight: NDArray[np.float64] = training.weight[:, None] * drawn.T[group]
        return weight

    def _masks(self, n_features: int) -> NDArray[np.bool_]:
        """Features of each member (n_members, n_features), the same number for all."""
        wanted = max(1, round(self.feature_fraction * n_features))
        rng = np.random.default_rng([self.random_state, 2])
        masks = np.zeros((self.n_members, n_features), dtype=bool)
        for mask in masks:
            mask[rng.permutation(n_features)[:wanted]] = True
        return masks

    def _refuse_equal_members(self, template: RewardModel, training: EmbeddedPreferences) -> None:
        rows = training.active[:_PROBE_ROWS]
        first = self.members_[0]._rewards(training.responses, rows)
        if all(np.array_equal(member._rewards(training.responses, rows), first) for member in self.members_[1:]):
            del self.members_
            raise InvalidInputError(
                f"all {self.n_members} members of EnsembleRewardModel(kind='seeds') are equal: random_state changes nothing "
                f"in this {type(template).__name__}; choose kind='bootstrap'"
            )

    def check_parameters(self) -> None:
        """Raise where a parameter cannot be used, whatever the pairs."""
        who = "EnsembleRewardModel"
        if self.member is not None and not isinstance(self.member, RewardModel):
            raise InvalidInputError(f"{who} needs member to be a reward model, got {type(self.member).__name__}")
        if self.kind not in KINDS:
            raise unknown_name("kind of ensemble", self.kind, KINDS)
        if self.aggregate not in AGGREGATES:
            raise unknown_name("aggregate", self.aggregate, AGGREGATES)
        if self.few_groups not in FEW_GROUPS:
            raise unknown_name("few_groups of EnsembleRewardModel", self.few_groups, FEW_GROUPS)
        if isinstance(self.n_members, bool) or not isinstance(self.n_members, (int, np.integer)) or self.n_members < 2:
            raise InvalidInputError(f"{who} needs n_members to be a whole number >= 2, got {self.n_members!r}")
        if not (np.isfinite(self.k) and self.k >= 0):
            raise InvalidInputError(f"{who} needs k to be a number >= 0, got {self.k!r}")
        if not 0 < self.feature_fraction <= 1:
            raise InvalidInputError(f"{who} needs feature_fraction in (0, 1], got {self.feature_fraction!r}")
        if self.calibration_fraction is not None and not 0 < self.calibration_fraction < 1:
            raise InvalidInputError(
                f"{who} needs calibration_fraction in (0, 1) or None, got {self.calibration_fraction!r}"
            )
        inside = LinearHead() if self.member is None else self.member
        if self.kind == "seeds" and not any(key.rpartition("__")[2] == "random_state" for key in inside.get_params()):
            raise InvalidInputError(
                f"{who}(kind='seeds') needs a member with a random_state; {type(inside).__name__} has none, so all members "
                "would be equal; choose kind='bootstrap' or 'features'"
            )
        if self.kind == "features" and type(inside).member_features is RewardModel.member_features:
            raise InvalidInputError(
                f"{who}(kind='features'): {type(inside).__name__} cannot leave features out by member; choose "
                "kind='bootstrap', or 'seeds' for a member with a random_state"
            )
