"""Token states on disk: a folder of three memory-mapped arrays, named by what they are, put in place whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from embedrm.encoders.files import read_json
from embedrm.encoders.token_states import TokenStates
from embedrm.errors import ModelError, StoreError
from embedrm.progress import Progress
from embedrm.store.files import TEMP_PREFIX, disk_error, make_folder, sync_folder, write_json
from embedrm.store.stats import default_path

if TYPE_CHECKING:
    from embedrm.language_models.model import LanguageModel

FORMAT = 1
STATES, IDS, OFFSETS, FACTS = "states.npy", "ids.npy", "offsets.npy", "facts.json"
_CHECKED_ROWS = 1 << 14


def states_home() -> Path:
    """Return ``$EMBEDRM_HOME/token_states``."""
    return default_path().parent / "token_states"


def states_key(model: str, texts: Sequence[str], dtype: str, limit: int | None, truncation: str) -> str:
    """Return the name of the folder for these texts under this model: 32 hex digits of all that changes a state.

    The limit and what happens beyond it are part of it, although they change no state of a text that is short enough:
    otherwise it would have to be known which texts those are, before they are tokenised.
    """
    head = json.dumps([FORMAT, model, dtype, limit, truncation, len(texts)])
    digest = hashlib.blake2b(head.encode("ascii"), digest_size=16)
    for text in texts:
        plain = text.encode()
        digest.update(len(plain).to_bytes(8, "little") + plain)
    return digest.hexdigest()


def cached_states(
    model: LanguageModel,
    texts: list[str],
    store_dir: str | Path | Literal[False] | None,
    dtype: str,
    truncation: str,
    progress: Progress,
) -> TokenStates:
    """Return token states from disk, computing and keeping them where they are not there; see LanguageModel.token_states."""
    if store_dir is False:
        rows, cut = model.read(texts, truncation)
        offsets, ids = _layout(rows)
        states = np.empty((len(ids), model.dim), dtype=dtype)
        rounding = _fill(model, rows, offsets, states, progress)
        return TokenStates(states, ids, offsets, model.fingerprint(), model.vocab_size, {**cut, **rounding})
    home = states_home() if store_dir is None else Path(store_dir).expanduser()
    digest = model.fingerprint()
    place = home / states_key(digest, texts, dtype, model.max_length, truncation)
    if not place.is_dir():
        _write(model, texts, place, dtype, truncation, progress)
    return open_states(place, digest)


def open_states(folder: Path, model: str | None = None) -> TokenStates:
    """Map the token states of a folder; only its small files are read.

    Parameters
    ----------
    folder : Path
    model : str, optional
        The digest of the model that they must be of.

    Raises
    ------
    StoreError
        It is damaged, of a newer format, or of another model.
    """
    facts = read_json(folder / FACTS)
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise _damaged(folder, f"its {FACTS} is missing or of another format")
    if model is not None and facts.get("model") != model:
        raise _damaged(folder, f"it is of the model {facts.get('model')}, not of {model}")
    try:
        ids = np.load(folder / IDS, mmap_mode="r", allow_pickle=False)
        offsets = np.load(folder / OFFSETS, allow_pickle=False)
        states = np.load(folder / STATES, mmap_mode="r", allow_pickle=False)
        if [list(ids.shape), list(offsets.shape), list(states.shape)] != facts["shapes"]:
            raise ValueError("its arrays have other shapes than it says")
        return TokenStates(states, ids, offsets, str(facts["model"]), int(facts["vocab_size"]), dict(facts["info"]))
    except (OSError, ValueError, KeyError, EOFError) as err:
        raise _damaged(folder, str(err).splitlines()[0][:200]) from err


def _damaged(folder: Path, reason: str) -> StoreError:
    return StoreError(
        f"the token states in {folder} cannot be used: {reason}. Remove that folder; they are computed again."
    )


def _layout(rows: Sequence[Sequence[int]]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    ids = np.fromiter((i for row in rows for i in row), dtype=np.int32, count=int(offsets[-1]))
    return offsets, ids


def _fill(
    model: LanguageModel,
    rows: Sequence[Sequence[int]],
    offsets: npt.NDArray[np.int64],
    states: npt.NDArray[Any],
    progress: Progress,
) -> dict[str, Any]:
    """Compute all states into an array, and return the error of rounding where there is one."""
    step, done, total = progress("token states"), 0, int(offsets[-1])
    half = states.dtype == np.float16
    worst = squares = size = 0.0
    for batch, found in model.state_batches(rows):
        for i, one in zip(batch, found):
            if half:
                if float(np.abs(one).max()) > float(np.finfo(np.float16).max):
                    raise ModelError(f"states of {model.name} are beyond the range of float16; keep them as float32.")
                lost = one - one.astype(np.float16).astype(np.float32)
                worst = max(worst, float(np.abs(lost).max()))
                squares += float((lost.astype(np.float64) ** 2).sum())
                size += float((one.astype(np.float64) ** 2).sum())
            states[offsets[i] : offsets[i + 1]] = one
            done += len(one)
        step(done, total)
    if not half or not size:
        return {}
    scale = float(np.sqrt(size / states.size))
    return {"rounding": {"largest": worst / scale, "rms": float(np.sqrt(squares / size))}}


def _write(
    model: LanguageModel, texts: list[str], place: Path, dtype: str, truncation: str, progress: Progress
) -> None:
    """Compute states straight into a file below a temporary name, and rename its folder into place."""
    rows, cut = model.read(texts, truncation)
    offsets, ids = _layout(rows)
    try:
        make_folder(place.parent)
        temporary = Path(tempfile.mkdtemp(prefix=f"{TEMP_PREFIX}{place.name}-", dir=place.parent))
    except OSError as err:
        raise disk_error(err, place.parent, "keep token states", "Nothing was kept.") from err
    try:
        shape = (len(ids), model.dim)
        # open_memmap cannot map an empty file
        if ids.size:
            states = np.lib.format.open_memmap(temporary / STATES, mode="w+", dtype=np.dtype(dtype), shape=shape)
            rounding = _fill(model, rows, offsets, states, progress)
            states.flush()
            del states
        else:
            np.save(temporary / STATES, np.empty(shape, dtype=dtype))
            rounding = {}
        np.save(temporary / IDS, ids)
        np.save(temporary / OFFSETS, offsets)
        for name in (STATES, IDS, OFFSETS):
            _sync(temporary / name)
        facts = {
            "format": FORMAT,
            "model": model.fingerprint(),
            "model_name": model.name,
            "vocab_size": model.vocab_size,
            "shapes": [list(ids.shape), list(offsets.shape), list(shape)],
            "info": {**cut, **rounding},
        }
        write_json(temporary, FACTS, facts)
        os.chmod(temporary, 0o755)
        put_in_place(temporary, place)
    except OSError as err:
        raise disk_error(err, place.parent, "keep token states", "Nothing was kept.") from err
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def put_in_place(temporary: Path, place: Path) -> None:
    """Rename a finished folder; where another process was quicker, what it made is as good."""
    try:
        os.replace(temporary, place)
    except OSError:
        if not place.is_dir():
            raise
    sync_folder(place.parent)


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
