"""What a trainer by steps says of a loss that is not finite."""

from __future__ import annotations

from embedrm.errors import InvalidInputError

_REMEDY = "look for NaN or infinity in the vectors, scale them (Featurizer(scale='rms')), or lower learning_rate"


def loss_not_finite(who: str, epoch: int) -> InvalidInputError:
    """Return the error of a training loss that is not finite in some epoch."""
    return InvalidInputError(f"{who} met a loss that is not finite in epoch {epoch}; {_REMEDY}")


def no_epoch_can_be_chosen(who: str, n_epochs: int) -> InvalidInputError:
    """Return the error of a held-out loss that was finite in no epoch, or before the first (0 epochs)."""
    when = f"in each of {n_epochs} epochs" if n_epochs else "before the first epoch"
    return InvalidInputError(
        f"{who} met a held-out loss that is not finite {when}, so that no epoch can be chosen; {_REMEDY}"
    )
