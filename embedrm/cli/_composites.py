"""The models that treat domains, for ``--model``: found in their registry, and what each is made of."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from embedrm.errors import InvalidInputError

if TYPE_CHECKING:
    from embedrm.reward_model import RewardModel

# Composites around any model, and the options that make them.
WRAPPERS = {"ensemble": "--members", "calibrated": "--calibrate"}
# Composites that take a list of models, which no option can give.
_OF_MANY = ("merged",)
# Models whose constructor takes any reward model, and whose fit takes one head only.
_ONE_HEAD = {"pooled": "linear"}
# The heads that models take by themselves, with what they say of them.
_OWN_HEADS: dict[str, dict[str, Any]] = {"routed": {"l2": "cv"}, "pooled": {"l2": "cv"}, "adapters": {"hidden": (64,)}}


@dataclass(frozen=True)
class Slot:
    """The parameter of a model that a head fills.

    Attributes
    ----------
    parameter : str
        ``expert`` or ``trunk``, say.
    only : str or None
        The one head that fits; any where None.
    own : dict or None
        Parameters of the head that the model takes by itself; None where that is known to the model alone.
    """

    parameter: str
    only: str | None
    own: dict[str, Any] | None

    @property
    def head(self) -> str:
        """The head where none is named."""
        return self.only or "linear"


def domain_models() -> dict[str, type]:
    """Return every composite that is no wrapper and is not made of a list of models, by its registered name."""
    from embedrm.composites import COMPOSITES

    return {name: cls for name, cls in COMPOSITES if name not in WRAPPERS and name not in _OF_MANY}


def slot_of(name: str, cls: type, given: Mapping[str, Any]) -> Slot | None:
    """Return the slot of a model, by the type of its parameters; None for one that makes its experts itself."""
    from embedrm.heads import HEADS
    from embedrm.reward_model import RewardModel

    hints = get_type_hints(cls.__init__)  # type: ignore[misc]
    for parameter in inspect.signature(cls).parameters:
        hint = hints.get(parameter)
        for kind in (hint, *get_args(hint)):
            if isinstance(kind, type) and issubclass(kind, RewardModel):
                own = None if name not in _OWN_HEADS else dict(_OWN_HEADS[name])
                only = _ONE_HEAD.get(name) or HEADS.name_of(kind)
                if own is not None and only is not None and "random_state" in given:
                    seeded = "random_state" in inspect.signature(HEADS.get(only)).parameters
                    own |= {"random_state": given["random_state"]} if seeded else {}
                return Slot(parameter, only, own)
    return None


def ingredients(name: str, cls: type) -> list[str]:
    """Return the options that a model is made by, beside its own parameters."""
    slot, takes = slot_of(name, cls, {}), inspect.signature(cls).parameters
    out = ["features"] if slot is None and "featurizer" in takes else []
    if slot is not None:
        out.append("--head" if slot.only is None else f"--head {slot.only}")
    return [*out, *(f"--{option}" for option in ("router", "routing") if option in takes)]


def parts(model: RewardModel) -> Iterator[Any]:
    """Give a model and all models, routers and features that it is made of."""
    yield model
    yield from (value for value in model.get_params().values() if hasattr(value, "get_params"))


def refuse_early(model: RewardModel) -> None:
    """Refuse what ``fit`` would refuse whatever the data, before anything is encoded."""
    from embedrm.composites import _adapter_settings
    from embedrm.composites.adapters import AdapterRewardModel
    from embedrm.composites.pooled import PooledRewardModel
    from embedrm.composites.routed import ROUTINGS

    for part in parts(model):
        check = getattr(part, "check_parameters", None) or getattr(part, "_check_parameters", None)
        if check is not None and not isinstance(part, type):
            check()
        if isinstance(part, PooledRewardModel):
            part._strengths()
        if isinstance(part, AdapterRewardModel):
            hidden = (64,) if part.trunk is None else part.trunk._schedule().hidden
            _adapter_settings.check(part, len(hidden), ROUTINGS)
            features = None if part.trunk is None else part.trunk.featurizer
            if part.router is None and features is not None and not _has_responses_alone(features.terms):
                raise InvalidInputError(
                    f"model 'adapters' sends prompts through the features of the term r, and --terms {features.terms} has "
                    "none; add r, or name a --router of its own"
                )


def _has_responses_alone(terms: Any) -> bool:
    return "r" in ([term.strip() for term in terms.split(",")] if isinstance(terms, str) else list(terms))


def reads_prompts(model: RewardModel) -> str | None:
    """Return the name of a model inside that sends prompts to its experts, so that prompts must be encoded."""
    found = {cls: name for name, cls in domain_models().items()}
    # one expert leaves nothing to choose
    return next((found[type(p)] for p in parts(model) if type(p) in found and getattr(p, "n_experts", None) != 1), None)


def refuse_without_prompts(model: RewardModel, sides: Sequence[str]) -> None:
    """Raise where prompts would not be encoded for a model that reads them."""
    name = reads_prompts(model)
    if name is not None and "prompt" not in sides:
        raise InvalidInputError(
            f"model {name!r} sends prompts to its experts, and --side leaves prompts out; add --side prompt"
        )
