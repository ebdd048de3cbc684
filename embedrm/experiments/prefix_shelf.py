"""What a study of prefix rewards computed once, kept by what it was computed from."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedrm.decoding.base import PrefixHead
from embedrm.errors import StoreError
from embedrm.numerics.digest import array_digest
from embedrm.persistence import load_model, save_model
from embedrm.store.files import disk_error, make_folder, write_atomic
from embedrm.store.stats import default_path

# Another number where what is kept changes its meaning.
RECIPE = 1


class Shelf:
    """Texts and matrices in one folder, each named by the digest of everything that decides it.

    Parameters
    ----------
    folder : path, optional
        ``$EMBEDRM_HOME/prefix_study`` where absent.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        self.folder = Path(folder) if folder is not None else default_path().parent / "prefix_study"
        self.computed = 0

    def facts(self, kind: str, identity: Any, make: Callable[[], Any]) -> Any:
        """Return plain facts, from disk or made by ``make`` and written."""
        place = self.place(kind, identity).with_suffix(".json")
        if not place.is_file():
            self._write(place, json.dumps(make()).encode("ascii"))
        try:
            return json.loads(place.read_text(encoding="ascii"))
        except (OSError, ValueError) as error:
            raise _damaged(place, error) from None

    def arrays(self, kind: str, identity: Any, make: Callable[[], dict[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
        """Return arrays, from disk or made by ``make`` and written."""
        place = self.place(kind, identity).with_suffix(".npz")
        if not place.is_file():
            sink = io.BytesIO()
            np.savez(sink, **make())  # type: ignore[arg-type]
            self._write(place, sink.getvalue())
        try:
            with np.load(place, allow_pickle=False) as kept:
                return {name: kept[name] for name in kept.files}
        except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
            raise _damaged(place, error) from None

    def head(self, identity: Any, make: Callable[[], PrefixHead], embeddings: NDArray[Any]) -> Any:
        """Return a fitted head, from disk or made by ``make`` and saved; next-token heads get ``embeddings`` back."""
        place = self.place("head", identity)
        if not place.is_dir():
            self.computed += 1
            made = make()
            try:
                make_folder(place.parent)
                save_model(made, place)
            except OSError as error:
                raise disk_error(error, place.parent, "keep a head", "Nothing was kept.") from error
            return made
        found = load_model(place)[0]
        if getattr(found, "keep_embeddings", True) is False:
            found.attach(embeddings)
        return found

    def place(self, kind: str, identity: Any) -> Path:
        """Return where something is kept, without a suffix."""
        text = json.dumps([RECIPE, kind, identity], sort_keys=True)
        return self.folder / f"{kind}-{hashlib.blake2b(text.encode('ascii'), digest_size=16).hexdigest()}"

    def _write(self, place: Path, content: bytes) -> None:
        self.computed += 1
        try:
            make_folder(place.parent)
            write_atomic(place.parent, [content], place.name)
        except OSError as error:
            raise disk_error(error, place.parent, "keep what the study computed", "Nothing was kept.") from error


def _damaged(place: Path, error: Exception) -> StoreError:
    first = (str(error).splitlines() or [""])[0][:200]
    return StoreError(f"{place} cannot be read: {first}. Remove it; it is computed again.")


def head_digest(head: PrefixHead) -> str:
    """Return 32 hex digits that name what a fitted head learned, its language model included."""
    arrays: dict[str, NDArray[Any]] = {}
    for name in ("weights_", "biases_"):
        for i, array in enumerate(getattr(head, name, [])):
            arrays[f"{name}{i}"] = array
    arrays |= getattr(head, "factors_", {})
    for name in ("baseline_weight_", "bias_", "start_", "recorded_"):
        if hasattr(head, name):
            arrays[name] = getattr(head, name)
    told = [type(head).__name__, head.model_, list(head.attributes_), head.link_, head.bounded_]
    told.append(bool(getattr(head, "increments_", False)))
    told.append(getattr(head, "embeddings_digest_", ""))
    return hashlib.blake2b(json.dumps([told, array_digest(arrays)]).encode(), digest_size=16).hexdigest()
