"""A tuned encoder on disk: an ordinary sentence-transformers folder, its head, its adapter, and how it came about."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedrm.encoders.files import read_json
from embedrm.encoders.quiet import quiet_loading
from embedrm.errors import InvalidInputError, ModelError
from embedrm.store.files import make_folder, sync_folder, write_json
from embedrm.tuning.base import TrainableBase

FORMAT = 1
FACTS, HEAD, ADAPTER, ADAPTER_BASE = "tuning.json", "tuning_head.safetensors", "adapter", "base.json"


def check_free(folder: Path) -> None:
    """Refuse a folder that is already there.

    Raises
    ------
    InvalidInputError
        It exists and is not an empty folder.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise InvalidInputError(
            f"{folder} is already there, and a tuned encoder is never written over. Give another folder, or remove it."
        )


def save_tuned(
    folder: Path, base: TrainableBase, adapters: Any, head: Mapping[str, NDArray[Any]], facts: dict[str, Any]
) -> None:
    """Write everything into a temporary folder and rename it into place.

    Parameters
    ----------
    folder : Path
        Must not be there, or be empty.
    base : TrainableBase
        Its adapters are merged into its weights on the way, so that it is of no more use for tuning.
    adapters : peft.PeftModel or None
    head : mapping of str to ndarray
        Empty where the objective leaves none.
    facts : dict
        Of ``tuning.json``.
    """
    from safetensors.numpy import save_file

    check_free(folder)
    make_folder(folder.parent)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        if adapters is not None:
            _save_adapter(temporary / ADAPTER, adapters, facts)
            # the adapted layers become plain ones again, in place
            adapters.merge_and_unload()
        for parameter in base.model.parameters():
            parameter.requires_grad_(False)
        with quiet_loading():
            base.model.save(str(temporary), create_model_card=False, safe_serialization=True)
        if head:
            save_file(dict(head), temporary / HEAD)
        write_json(temporary, FACTS, {"format": FORMAT, **facts})
        os.chmod(temporary, 0o755)
        if folder.is_dir():
            folder.rmdir()
        os.replace(temporary, folder)
        sync_folder(folder.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _save_adapter(folder: Path, adapters: Any, facts: dict[str, Any]) -> None:
    for settings in adapters.peft_config.values():
        # a name, not a path of this machine
        settings.base_model_name_or_path = facts["config"]["base"]
        settings.inference_mode = True
    # left to itself, peft asks the hub whether the vocabulary has grown; embeddings never have adapters here
    adapters.save_pretrained(str(folder), safe_serialization=True, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)
    write_json(folder, ADAPTER_BASE, {"base": facts["config"]["base"], "base_digest": facts["base_digest"]})


def read_facts(folder: Path) -> dict[str, Any]:
    """Return the content of ``tuning.json``.

    Raises
    ------
    ModelError
        There is none, or it is of a newer format.
    """
    facts = read_json(folder / FACTS)
    if not isinstance(facts, dict):
        raise ModelError(f"{folder} holds no tuned encoder: its {FACTS} is missing. Give a folder that tuning wrote.")
    if facts.get("format") != FORMAT:
        raise ModelError(f"{folder / FACTS} has format {facts.get('format')}, expected {FORMAT}. Use a newer embedrm.")
    return facts


def read_head(folder: Path) -> dict[str, NDArray[np.float32]]:
    """Return the arrays of the head; empty where there is none."""
    from safetensors.numpy import load_file

    path = folder / HEAD
    if not path.is_file():
        return {}
    arrays: dict[str, NDArray[np.float32]] = load_file(path)
    return arrays


def read_adapter(folder: Path) -> tuple[dict[str, Any], dict[str, NDArray[Any]], str]:
    """Return (settings, arrays, digest of the base) of an adapter.

    Parameters
    ----------
    folder : Path
        A tuned folder or its ``adapter`` folder.

    Raises
    ------
    ModelError
        There is no adapter, or nothing says which base it is for.
    """
    from safetensors.numpy import load_file

    place = folder / ADAPTER if (folder / ADAPTER).is_dir() else folder
    settings, base = read_json(place / "adapter_config.json"), read_json(place / ADAPTER_BASE)
    if not isinstance(settings, dict) or not (place / "adapter_model.safetensors").is_file():
        raise ModelError(f"{folder} holds no adapter. Give a folder that was tuned with method='lora'.")
    if not isinstance(base, dict) or not isinstance(base.get("base_digest"), str):
        raise ModelError(
            f"{place} does not say which base it is for ({ADAPTER_BASE} is missing). Give a folder that tuning wrote."
        )
    return settings, load_file(place / "adapter_model.safetensors"), base["base_digest"]


def as_json(values: Any) -> Any:
    """Return values with NumPy's scalars as plain numbers."""
    return json.loads(json.dumps(values, default=lambda value: value.item()))
