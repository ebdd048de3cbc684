"""Which weights move: all of them, those of the top blocks, or low-rank adapters beside them."""

from __future__ import annotations

import warnings
from typing import Any

from embedrm.errors import InvalidInputError, MissingDependencyError
from embedrm.tuning.base import TrainableBase
from embedrm.tuning.config import TuningConfig


def prepare(base: TrainableBase, config: TuningConfig) -> Any:
    """Mark the weights that are tuned, and put adapters in.

    To be called with torch's generator seeded: A of an adapter is drawn from it, B is zero.

    Returns
    -------
    peft.PeftModel or None
        The adapters; the base's transformer holds them too.
    """
    adapters = None
    if config.method == "lora":
        adapters = _add_adapters(base, config)
    else:
        for parameter in base.model.parameters():
            parameter.requires_grad_(config.method == "full")
        if config.method == "top":
            for block in top_blocks(base, config):
                for parameter in block.parameters():
                    parameter.requires_grad_(True)
            for module in list(base.model.children())[1:]:
                for parameter in module.parameters():
                    parameter.requires_grad_(True)
        for name, parameter in base.transformer.named_parameters():
            if "pooler" in name.split("."):  # token states do not pass it
                parameter.requires_grad_(False)
    base.speed_up()
    return adapters


def top_blocks(base: TrainableBase, config: TuningConfig) -> list[Any]:
    """Return the last ``n_layers`` blocks."""
    blocks = list(base.blocks())
    if config.n_layers > len(blocks):
        raise InvalidInputError(
            f"n_layers={config.n_layers} is more than the {len(blocks)} blocks of {config.base!r}; give at most that, or "
            "method='full'"
        )
    return blocks[-config.n_layers :]


def set_training(base: TrainableBase, config: TuningConfig, training: bool) -> None:
    """Switch dropout on for what is tuned; below the top blocks it stays off, where it would only be noise."""
    base.model.train(training and config.method != "top")
    if training and config.method == "top":
        for block in top_blocks(base, config):
            block.train()


def linear_targets(base: TrainableBase, config: TuningConfig) -> list[str]:
    """Return the full names of the linear layers that get an adapter, in the transformer's order."""
    import torch

    inside = {id(module) for block in base.blocks() for module in block.modules()}
    linear = [
        name
        for name, module in base.transformer.named_modules()
        if isinstance(module, torch.nn.Linear) and id(module) in inside
    ]
    if config.target_modules is None:
        return linear
    ends = {end: [name for name in linear if name == end or name.endswith("." + end)] for end in config.target_modules}
    missing = [end for end, names in ends.items() if not names]
    if missing:
        known = ", ".join(sorted({name.rpartition(".")[2] for name in linear}))
        raise InvalidInputError(
            f"target_modules: no linear layer in the blocks of {config.base!r} ends in {missing[0]!r}. There are: {known}."
        )
    wanted = {name for names in ends.values() for name in names}
    return [name for name in linear if name in wanted]


def import_peft(who: str) -> Any:
    """Return the package peft, or say how to install it."""
    try:
        import peft
    except ImportError as err:
        raise MissingDependencyError("peft", who, "tune") from err
    return peft


def _add_adapters(base: TrainableBase, config: TuningConfig) -> Any:
    peft = import_peft("tuning with method='lora'")
    settings = peft.LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.lora_dropout,
        target_modules=linear_targets(base, config),
        bias="none",
    )
    # layers are exchanged in place, so base.transformer holds the adapters as well
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # what peft asks of transformers is its own affair
        adapters = peft.get_peft_model(base.transformer, settings)
    for parameter in base.model.parameters():
        parameter.requires_grad_(False)
    for name, parameter in base.transformer.named_parameters():
        if "lora_" in name:
            parameter.requires_grad_(True)
    return adapters
