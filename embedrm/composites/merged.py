"""Reward-level merging: the weighted mean of the rewards of models of any kinds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from embedrm.composites import COMPOSITES
from embedrm.composites._standardise import means_and_scales
from embedrm.composites.ensemble import FEW_GROUPS
from embedrm.errors import InvalidInputError, unknown_name
from embedrm.heads.linear import LinearHead
from embedrm.heads.ridge import RidgeHead
from embedrm.numerics.folds import hold_out
from embedrm.preferences import EmbeddedPreferences, EmbeddedResponses, Rows
from embedrm.reward_model import RewardModel, check_preferences

Members = Sequence[tuple[str, RewardModel]]


@COMPOSITES.register("merged")
class MergedRewardModel(RewardModel):
    r"""The weighted sum of several models' rewards: :math:`r = \sum_m w_m (r_m - a_m) / s_m`.

    Members may be of different kinds (a pooled and a mixture model) and read different views. All of them are fitted on the
    same pairs; :meth:`of` merges models that were fitted already, on whatever data.

    Parameters
    ----------
    members : list of (str, RewardModel), optional
        Names and models, each cloned and fitted. Parameters of a member are ``name__parameter``. ``LinearHead()`` and
        ``RidgeHead()`` where absent.
    weights : sequence of float, optional
        w, one for each member, used as they are given; 1 / n_members each where absent. A negative weight subtracts a
        member. A member of weight zero is not asked at all. May be changed on a fitted model (``set_params``), so that a
        sweep over weights fits nothing again.
    standardise : bool
        Put every member's rewards to mean 0 and standard deviation 1 on the calibration responses before they are merged
        (a and s; fitted and saved). False merges rewards as they are: right where all members' margins are log-odds.
    calibration_fraction : float in (0, 1), optional
        Share of the training pairs' prompt groups that is kept from the members, and on whose responses they are
        standardised. None: all pairs train, and their own responses standardise, by which a member that fits its training
        responses more closely than others counts too little. Not used without ``standardise``.
    few_groups : {"raise", "adapt"}
        Where there is a single prompt group, so that none can be kept for the calibration: refuse, or standardise on the
        training responses. Refits on folds, for a calibration of the merged model, always adapt; they keep the penalties
        that members chose on all pairs.
    random_state : int
        Which prompt groups are kept. Members have their own.

    Attributes
    ----------
    names_ : list of str
    members_ : list of RewardModel
        Fitted, in the order of ``names_``.
    member_means_, member_scales_ : ndarray of shape (n_members,)
        a and s; zeros and ones without ``standardise``.
    n_calibration_ : int
        Responses behind them.
    standardised_on_ : str
        ``"held-out responses"``, ``"training responses"``, ``"calibration responses"`` (of :meth:`of`) or ``"nothing"``.

    Notes
    -----
    Bradley–Terry leaves every model an offset and, with its penalty, a scale of its own; unstandardised, the mean follows
    the model with the largest rewards. A standard deviation is a scale of *rewards over all prompts*; where margins should
    instead count by how sure they are, wrap each member in :class:`embedrm.CalibratedRewardModel` and merge with
    ``standardise=False``: their margins are log-odds, and so is a mean of them.

    For linear heads on the same features this is the same model as merging the heads' weights
    (:func:`embedrm.merge_heads`); for anything with a trunk it is not. Averaging rewards is what is called an ensemble of
    reward models elsewhere; the parameters of nothing are merged, so this is not the method of Lin et al. (2024), but what
    theirs is to be held against.

    References
    ----------
    Coste et al. (2024), "Reward model ensembles help mitigate overoptimization" (mean optimisation); Rame et al. (2024),
    "WARM", section 3, which compares averaging rewards with averaging weights.

    Examples
    --------
    >>> import numpy as np
    >>> from embedrm import EmbeddedPreferences, LengthHead, LinearHead, MergedRewardModel
    >>> x = np.random.default_rng(0).normal(size=(60, 3))
    >>> prefs = EmbeddedPreferences.from_arrays(x, np.arange(60).reshape(30, 2))
    >>> model = MergedRewardModel([("mild", LinearHead(l2=1e-3)), ("strict", LinearHead(l2=1.0))], standardise=False)
    >>> merged = model.fit(prefs).predict(x)
    >>> np.allclose(merged, np.mean([m.predict(x) for m in model.members_], axis=0))
    True
    """

    def __init__(
        self,
        members: Members | None = None,
        weights: Sequence[float] | None = None,
        standardise: bool = True,
        calibration_fraction: float | None = 0.1,
        few_groups: str = "raise",
        random_state: int = 0,
    ) -> None:
        self.members = members
        self.weights = weights
        self.standardise = standardise
        self.calibration_fraction = calibration_fraction
        self.few_groups = few_groups
        self.random_state = random_state

    def fit(self, preferences: EmbeddedPreferences, y: None = None) -> MergedRewardModel:
        """Fit every member on the same pairs, then their standardisation. Reads only the active rows. Returns self."""
        who = type(self).__name__
        prefs = check_preferences(preferences, who)
        self.check_parameters()
        prefs = prefs[prefs.weight > 0]
        if not len(prefs):
            raise InvalidInputError(f"{who} needs pairs with positive weight, got only zeros")
        training, calibration = self._split(prefs)
        templates = self._templates()
        members = []
        for name, template in templates:
            try:
                members.append(clone(template).fit(training))
            except InvalidInputError as error:
                raise InvalidInputError(f"the member {name!r} of {who}: {error}") from error
        return self._take([name for name, _ in templates], members, calibration.responses, calibration.active)

    @classmethod
    def of(
        cls,
        members: Members,
        weights: Sequence[float] | None = None,
        calibration: EmbeddedPreferences | EmbeddedResponses | None = None,
    ) -> MergedRewardModel:
        """Merge fitted models, which may have been fitted on different data; nothing is fitted again or copied.

        Parameters
        ----------
        members : list of (str, RewardModel)
            Fitted.
        weights : sequence of float, optional
        calibration : EmbeddedPreferences or EmbeddedResponses, optional
            On whose (active) responses members are standardised; of no test split. Absent, rewards are merged as they are.

        Returns
        -------
        MergedRewardModel
            Its parameters are those of the fitted models, so that a clone can be fitted anew, on one set of pairs.
        """
        model = cls(members, weights, standardise=calibration is not None)
        model.check_parameters()
        for _, fitted in members:
            check_is_fitted(fitted)
        if calibration is None:
            model.standardised_on_ = "nothing"
            return model._restated(members, None, None)
        if not isinstance(calibration, (EmbeddedPreferences, EmbeddedResponses)) or not len(calibration):
            raise InvalidInputError(
                f"{cls.__name__}.of needs calibration to be EmbeddedPreferences or EmbeddedResponses that are not "
                f"empty, got {type(calibration).__name__}"
            )
        model.standardised_on_ = "calibration responses"
        if isinstance(calibration, EmbeddedPreferences):
            return model._restated(members, calibration.responses, calibration.active)
        return model._restated(members, calibration, np.arange(len(calibration)))

    def _restated(self, members: Members, responses: EmbeddedResponses | None, rows: Rows | None) -> MergedRewardModel:
        """Take fitted members, with unfitted clones of them as the parameters."""
        self.members = [(name, clone(fitted)) for name, fitted in members]
        return self._take([name for name, _ in members], [fitted for _, fitted in members], responses, rows)

    def _take(
        self, names: list[str], members: list[RewardModel], responses: EmbeddedResponses | None, rows: Rows | None
    ) -> MergedRewardModel:
        self.names_, self.members_ = names, members
        self.member_means_, self.member_scales_ = np.zeros(len(members)), np.ones(len(members))
        self.n_calibration_ = 0
        if self.standardise and responses is not None and rows is not None:
            self.n_calibration_ = len(rows)
            self.member_means_, self.member_scales_ = means_and_scales(members, responses, rows)
        return self

    @property
    def margins_are_logits(self) -> bool:
        """For a mean (weights that are not negative and sum to one) of unstandardised members whose margins are."""
        weights = self._weights(len(self._templates()))
        is_mean = bool((weights >= 0).all() and abs(weights.sum() - 1.0) < 1e-9)
        inside = [model for (_, model), weight in zip(self._templates(), weights) if weight]
        return not self.standardise and is_mean and all(model.margins_are_logits for model in inside)

    def predict_members(self, x: EmbeddedResponses | EmbeddedPreferences) -> NDArray[np.float64]:
        """Standardised reward of every member for every response; shape (n_responses, n_members)."""
        check_is_fitted(self, "members_")
        responses = x.responses if isinstance(x, EmbeddedPreferences) else x
        rewards = np.stack([member._rewards(responses, None) for member in self.members_], axis=1)
        return (rewards - self.member_means_) / self.member_scales_

    def margins(self, preferences: EmbeddedPreferences) -> NDArray[np.float64]:
        """Weighted sum of the members' margins; shape (n_pairs,). Refuses the pairs that a member refuses."""
        check_is_fitted(self, "members_")
        check_preferences(preferences, type(self).__name__)
        total = np.zeros(len(preferences))
        for weight, member, _, scale in self._asked():
            total += weight * (member.margins(preferences) / scale)
        return total

    def check_pairs(self, preferences: EmbeddedPreferences) -> None:
        """Refuse what a member refuses."""
        check_is_fitted(self, "members_")
        for _, member, _, _ in self._asked():
            member.check_pairs(preferences)

    def _rewards(self, responses: EmbeddedResponses, rows: Rows | None) -> NDArray[np.float64]:
        check_is_fitted(self, "members_")
        total = np.zeros(responses.n_responses if rows is None else len(rows))
        for weight, member, mean, scale in self._asked():
            total += weight * ((member._rewards(responses, rows) - mean) / scale)
        return total

    def required_views(self) -> tuple[str, ...]:
        """Views of the members that have a weight."""
        check_is_fitted(self, "members_")
        return tuple(sorted({view for _, member, _, _ in self._asked() for view in member.required_views()}))

    def _single_view(self) -> str | None:
        check_is_fitted(self, "members_")
        views = {member._single_view() for _, member, _, _ in self._asked()}
        return views.pop() if len(views) == 1 else None

    def _asked(self) -> list[tuple[float, RewardModel, float, float]]:
        """Weight, member, mean and scale of those whose weight is not zero."""
        weights = self._weights(len(self.members_))
        rows = zip(weights.tolist(), self.members_, self.member_means_.tolist(), self.member_scales_.tolist())
        return [row for row in rows if row[0] != 0.0]

    def _split(self, prefs: EmbeddedPreferences) -> tuple[EmbeddedPreferences, EmbeddedPreferences]:
        """Pairs to train members on, and pairs on whose responses they are standardised."""
        self.standardised_on_ = "training responses" if self.standardise else "nothing"
        if not self.standardise or self.calibration_fraction is None:
            return prefs, prefs
        if len(np.unique(prefs.groups)) < 2:
            if self.few_groups == "adapt":
                return prefs, prefs
            raise InvalidInputError(
                f"{type(self).__name__} needs at least 2 prompt groups, one of them to standardise members on, got 1; give "
                "more prompts, or calibration_fraction=None to standardise on the training responses, or standardise=False"
            )
        self.standardised_on_ = "held-out responses"
        who = type(self).__name__
        train, out = hold_out(prefs.groups, self.calibration_fraction, self.random_state, who, "more prompts")
        return prefs[train], prefs[out]

    def _templates(self) -> list[tuple[str, RewardModel]]:
        if self.members is None:
            return [("linear", LinearHead()), ("ridge", RidgeHead())]
        return list(self.members)

    def _weights(self, n_members: int) -> NDArray[np.float64]:
        """Return the weights, checked."""
        if self.weights is None:
            return np.full(n_members, 1.0 / n_members)
        try:
            weights = np.asarray(self.weights, dtype=np.float64)
        except (TypeError, ValueError):
            weights = np.empty(0)
        if weights.shape != (n_members,):
            came = f"shape {weights.shape}" if weights.size else f"{type(self.weights).__name__}"
            raise InvalidInputError(
                f"{type(self).__name__} needs {n_members} weights, one number for each member, got {came}"
            )
        if not np.isfinite(weights).all() or not weights.any():
            raise InvalidInputError(
                f"{type(self).__name__} needs finite weights that are not all zero; look for NaN or infinity in them"
            )
        return weights

    def check_parameters(self) -> None:
        """Raise where a parameter cannot be used, whatever the pairs."""
        who = type(self).__name__
        if self.members is not None:
            check_members(self.members, set(self._get_param_names()), who)
        self._weights(len(self._templates()))
        fraction = self.calibration_fraction
        if fraction is not None and not (isinstance(fraction, (int, float)) and 0 < fraction < 1):
            raise InvalidInputError(f"{who} needs calibration_fraction in (0, 1) or None, got {fraction!r}")
        if self.few_groups not in FEW_GROUPS:
            raise unknown_name(f"few_groups of {who}", self.few_groups, FEW_GROUPS)
        if isinstance(self.random_state, bool) or not isinstance(self.random_state, (int, np.integer)):
            raise InvalidInputError(f"{who} needs random_state to be a whole number, got {self.random_state!r}")

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters; ``deep`` adds members by their names, and ``name__parameter`` of each."""
        out: dict[str, Any] = super().get_params(deep=False)
        for name, model in (self.members or ()) if deep else ():
            out[name] = model
            out |= {f"{name}__{key}": value for key, value in model.get_params(deep=True).items()}
        return out

    def set_params(self, **params: Any) -> MergedRewardModel:
        """Set parameters; a member's name exchanges that member."""
        if "members" in params:
            self.members = params.pop("members")
        named = {name for name, _ in self.members or ()} & params.keys()
        if named:
            self.members = [(name, params.pop(name) if name in named else model) for name, model in self.members or ()]
        super().set_params(**params)
        return self


def check_members(members: object, taken: set[str], who: str) -> None:
    """Raise unless these are (name, RewardModel) pairs under names of their own, none of them ``taken``."""
    pairs = list(members) if isinstance(members, Sequence) and not isinstance(members, str) else []
    if not pairs:
        raise InvalidInputError(
            f"{who} needs members to be a list of at least one (name, RewardModel), got "
            + ("an empty list" if isinstance(members, Sequence) else type(members).__name__)
        )
    names = set()
    for pair in pairs:
        if not (isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str)):
            raise InvalidInputError(f"{who} needs every member to be (name, RewardModel), got a {type(pair).__name__}")
        name, model = pair
        if not isinstance(model, RewardModel):
            raise InvalidInputError(
                f"the member {name!r} of {who} is a {type(model).__name__}, not a reward model (a class must be called)"
            )
        if not name or "__" in name or name in taken or name in names:
            raise InvalidInputError(
                f"{who} cannot call a member {name!r}: a name must not be empty, hold two underscores, be that of a "
                "parameter, or be given twice"
            )
        names.add(name)
