"""A reward model with a fitted, saved calibration: margins that are log-odds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from embedrm.composites import COMPOSITES
from embedrm.composites._held_out import members_out_of_fold, out_of_fold_margins
from embedrm.errors import InvalidInputError, unknown_name
from embedrm.heads.linear import LinearHead
from embedrm.numerics.calibration import fit_margin_scale
from embedrm.numerics.isotonic import fit_isotonic, isotonic_probability
from embedrm.preferences import EmbeddedPreferences, EmbeddedResponses, Rows
from embedrm.reward_model import RewardModel, check_preferences

METHODS = ("platt", "temperature", "isotonic")


@COMPOSITES.register("calibrated")
class CalibratedRewardModel(RewardModel):
    r"""Any reward model with its margins put on a probability scale by held-out pairs.

    With a > 0 fitted to held-out margins m, rewards become :math:`a\,r`, and the probability that the chosen response wins
    is :math:`\sigma(a\,m)`; isotonic calibration leaves rewards as they are and gives a rising function of the margin.
    The order of rewards, and so accuracy, is the model's own in either case.

    Parameters
    ----------
    model : RewardModel, optional
        Cloned and fitted; ``LinearHead(l2="cv")`` where absent.
    method : {"platt", "temperature", "isotonic"}
        ``"platt"``: a by maximum likelihood with Platt's targets, which keep a finite however well the margins separate
        the pairs. ``"temperature"``: a = 1/T by plain maximum likelihood; the same for many prompt groups, and too sure
        for few. ``"isotonic"``: antisymmetric isotonic regression on margins, for shapes that no scale mends; it wants
        hundreds of pairs, and is wrong to use where rewards themselves must be on a common scale.
    cv : int
        Folds of whole prompt groups for out-of-fold margins, where there is no ``split``. The model that predicts is
        fitted on all pairs.
    split : str, optional
        Calibrate on the pairs of this split, such as ``"validation"``, and fit the model on all others.

    Attributes
    ----------
    model_ : RewardModel
        Fitted.
    scale_ : float
        a; 1 for isotonic calibration.
    sizes_, probabilities_ : ndarray of shape (k,)
        The isotonic function (:func:`embedrm.numerics.isotonic.fit_isotonic`); empty for the other methods.
    n_groups_ : int
        Prompt groups that the calibration was fitted on.

    Notes
    -----
    Platt's sigmoid has an intercept where classes differ in their shares. A pair has none: an intercept b would give the
    pair and its swap :math:`\sigma(a m + b) + \sigma(-a m + b) \ne 1`, so the probability would depend on which response is
    named first; and no reward could carry it, since constants cancel in a margin. See
    :func:`embedrm.numerics.calibration.fit_margin_scale`.

    Out-of-fold margins are those of models fitted on a part (1 - 1/cv) of the pairs; the scale of a model on all of them may
    differ slightly. Pairs of weight zero are left out of the calibration; votes and ties count by their shares.

    References
    ----------
    Platt (1999), "Probabilistic outputs for support vector machines"; Guo et al. (2017), "On calibration of modern neural
    networks"; Zadrozny and Elkan (2002), "Transforming classifier scores into accurate multiclass probability estimates".

    Examples
    --------
    >>> import numpy as np
    >>> from embedrm import CalibratedRewardModel, EmbeddedPreferences, LinearHead
    >>> x = np.random.default_rng(0).normal(size=(80, 3))
    >>> prefs = EmbeddedPreferences.from_arrays(x, np.arange(80).reshape(40, 2))
    >>> model = CalibratedRewardModel(LinearHead()).fit(prefs)
    >>> np.allclose(model.predict_proba(prefs) + model.predict_proba(prefs.swapped()), 1.0)
    True
    """

    # as the scales of a routed model
    not_parameters = frozenset({"sizes_", "probabilities_"})

    def __init__(
        self, model: RewardModel | None = None, method: str = "platt", cv: int = 5, split: str | None = None
    ) -> None:
        self.model = model
        self.method = method
        self.cv = cv
        self.split = split

    @property
    def margins_are_logits(self) -> bool:
        """True but for isotonic calibration, whose probabilities are those of :meth:`predict_proba` alone."""
        return self.method != "isotonic"

    def fit(self, preferences: EmbeddedPreferences, y: None = None) -> CalibratedRewardModel:
        """Fit the model and its calibration. Reads only the active rows. Returns self."""
        who = type(self).__name__
        prefs = check_preferences(preferences, who)
        self.check_parameters()
        if self.split is not None:
            training, held_out = self._parts(prefs)
            return self.fit_apart(prefs[training], prefs[held_out])
        self.model_ = clone(self._template()).fit(prefs)
        return self._calibrate(out_of_fold_margins(self.model_, prefs, self.cv, who), prefs)

    def fit_apart(self, preferences: EmbeddedPreferences, held_out: EmbeddedPreferences) -> CalibratedRewardModel:
        """Fit the model on some pairs and its calibration on others, whatever ``split`` says. Returns self.

        Parameters
        ----------
        preferences, held_out : EmbeddedPreferences
            Of no common prompt group; each may have vectors of its own.
        """
        who = f"{type(self).__name__}.fit_apart"
        self.check_parameters()
        self.model_ = clone(self._template()).fit(check_preferences(preferences, who))
        return self.calibrate(check_preferences(held_out, who))

    def _template(self) -> RewardModel:
        return LinearHead(l2="cv") if self.model is None else self.model

    def _parts(self, prefs: EmbeddedPreferences) -> tuple[Rows, Rows]:
        """Rows of the pairs outside the split, and of those in it."""
        prefs.in_split(str(self.split))
        inside = prefs.responses.split[prefs.prompt_rows] == self.split
        if inside.all():
            raise InvalidInputError(
                f"{type(self).__name__} needs pairs outside the split {self.split!r} to fit the model on, got none; leave "
                "split out to calibrate out of fold, or use calibrate on a fitted model"
            )
        return np.flatnonzero(~inside), np.flatnonzero(inside)

    def calibrate(self, preferences: EmbeddedPreferences) -> CalibratedRewardModel:
        """Fit the calibration anew on pairs whose prompts the fitted model has not seen. Returns self.

        Parameters
        ----------
        preferences : EmbeddedPreferences
            Held-out pairs; pairs that the model was fitted on would make it too sure.
        """
        check_is_fitted(self, "model_")
        self.check_parameters()
        prefs = check_preferences(preferences, f"{type(self).__name__}.calibrate")
        if not (prefs.weight > 0).any():
            raise InvalidInputError(f"{type(self).__name__}.calibrate needs pairs with positive weight, got only zeros")
        return self._calibrate(self.model_.margins(prefs), prefs)

    def _calibrate(self, margins: NDArray[np.float64], prefs: EmbeddedPreferences) -> CalibratedRewardModel:
        counted = prefs.weight > 0
        margins, prefs = margins[counted], prefs[counted]
        self.n_groups_ = len(np.unique(prefs.groups))
        self.scale_, self.sizes_, self.probabilities_ = 1.0, np.empty(0), np.empty(0)
        if self.method == "isotonic":
            self.sizes_, self.probabilities_ = fit_isotonic(margins, prefs.outcome, prefs.weight, self.n_groups_)
        else:
            smooth = self.method == "platt"
            self.scale_ = fit_margin_scale(margins, prefs.outcome, prefs.weight, self.n_groups_, smooth=smooth)
        return self

    def margins(self, preferences: EmbeddedPreferences) -> NDArray[np.float64]:
        """The model's margins times the scale; shape (n_pairs,)."""
        check_is_fitted(self, "scale_")
        return self.scale_ * self.model_.margins(preferences)

    def check_pairs(self, preferences: EmbeddedPreferences) -> None:
        """Refuse what the model inside refuses: one scale for all rewards does not put its experts on one."""
        check_is_fitted(self, "scale_")
        self.model_.check_pairs(preferences)

    def predict_proba(self, preferences: EmbeddedPreferences) -> NDArray[np.float64]:
        """Probability that the chosen response of each pair wins; shape (n_pairs,).

        One minus it is that of the pair the other way round.
        """
        margins = self.margins(preferences)
        if self.method == "isotonic":
            return isotonic_probability(margins, self.sizes_, self.probabilities_)
        probability: NDArray[np.float64] = expit(margins)
        return probability

    def fit_members(
        self,
        preferences: EmbeddedPreferences,
        seeds: Sequence[int],
        weight: NDArray[np.float64] | None = None,
        masks: NDArray[np.bool_] | None = None,
    ) -> list[CalibratedRewardModel]:
        """Fit several together, as the model inside fits its members, each with its own calibration.

        With folds, members are refitted in one pass a fold: folds are those of all pairs with their own weights, the same
        for all members. Features are left out, and seeds taken, by the model inside.
        """
        who = type(self).__name__
        prefs = check_preferences(preferences, who)
        self.check_parameters()
        template = self._template()
        training = np.arange(len(prefs)) if self.split is None else self._parts(prefs)[0]
        inside = None if weight is None else weight[training]
        models = template.fit_members(prefs[training], seeds, inside, masks)
        margins = None
        if self.split is None:
            margins = members_out_of_fold(template, models, prefs, seeds, weight, masks, self.cv, who)
        members = []
        for m, model in enumerate(models):
            member: CalibratedRewardModel = clone(self)
            if self.model is not None:
                member.set_params(model=clone(model))
            member.model_ = model
            own = prefs if weight is None else prefs.weighted(weight[:, m])
            if margins is None:
                member.calibrate(own[self._parts(own)[1]])
            else:
                member._calibrate(margins[:, m], own)
            members.append(member)
        return members

    def member_features(self, preferences: EmbeddedPreferences) -> int:
        """Those of the model inside."""
        return self._template().member_features(preferences)

    def _rewards(self, responses: EmbeddedResponses, rows: Rows | None) -> NDArray[np.float64]:
        check_is_fitted(self, "scale_")
        return self.scale_ * self.model_._rewards(responses, rows)

    def required_views(self) -> tuple[str, ...]:
        """The model's views."""
        check_is_fitted(self, "scale_")
        return self.model_.required_views()

    def _single_view(self) -> str | None:
        check_is_fitted(self, "scale_")
        return self.model_._single_view()

    def check_parameters(self) -> None:
        """Raise where a parameter cannot be used, whatever the pairs."""
        if self.method not in METHODS:
            raise unknown_name("method of CalibratedRewardModel", self.method, METHODS)
        if self.model is not None and not isinstance(self.model, RewardModel):
            raise InvalidInputError(
                f"CalibratedRewardModel needs model to be a reward model, got {type(self.model).__name__}"
            )
        if isinstance(self.cv, bool) or not isinstance(self.cv, (int, np.integer)) or self.cv < 2:
            raise InvalidInputError(f"CalibratedRewardModel needs cv to be a whole number >= 2, got {self.cv!r}")
        if self.split is not None and not isinstance(self.split, str):
            raise InvalidInputError(f"CalibratedRewardModel needs split to be the name of a split, got {self.split!r}")
