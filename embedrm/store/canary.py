"""Canaries: fixed texts, stored with the first vectors, that show whether an encoder still gives what it gave.

A model whose weights changed under an unchanged fingerprint cannot be seen from the files: every hash is right. So
each folder keeps the vectors of a few texts of the package (never the user's) and, when asked, encodes them again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embedrm.errors import StoreError
from embedrm.store.digest import TextEncoder, key_words, text_keys
from embedrm.store.files import write_json
from embedrm.store.index import Snapshot
from embedrm.views import Layer

FILE = "canaries.json"
# Float32 sums in another order (another batch, another processor) differ by about 1e-6; a changed model, quantisation
# or tokenisation by 1e-2 and more. Half precision adds half a unit in the eleventh bit.
TOLERANCE = {"float32": 1e-3, "float16": 2e-3}

CANARY_TEXTS = (
    "The lighthouse keeper counted seven ships before the fog came in.",
    "Can you explain, in two short steps, why ice floats on water?",
    "I refuse. That would not be safe, and I would rather tell you why.",
    "def area(width, height):\n    return width * height\n",
    "3 + 4 * 12 = 51, so each of the 17 boxes holds exactly 3 marbles.",
    "Ein kleiner Vogel saß auf dem Zaun; 小鸟在唱歌, и снег ещё не растаял.",
    "no punctuation no capitals just a plain answer typed in a hurry",
    "# Plan\n\n- wake early\n- walk to the market\n- **buy** bread, salt & plums (2 kg)\n",
)


@dataclass(frozen=True)
class CanaryCheck:
    """The canaries of one layer, encoded again.

    Attributes
    ----------
    folder : str
        Name of the encoder's folder.
    layer : int or "final"
    checked : int
        Canaries that were stored and compared.
    worst : float
        Largest ``||new - stored|| / ||stored||``; infinity if the width changed.
    tolerance : float
    """

    folder: str
    layer: Layer
    checked: int
    worst: float
    tolerance: float

    @property
    def ok(self) -> bool:
        """Whether the encoder still gives the stored vectors."""
        return self.worst <= self.tolerance


def write_canaries(folder: Path) -> None:
    """Write the package's canaries, with their keys, beside encoder.json."""
    entries = [{"text": t, "key": k.tobytes().hex()} for t, k in zip(CANARY_TEXTS, text_keys(CANARY_TEXTS))]
    write_json(folder, FILE, {"canaries": entries})


def read_canaries(folder: Path, file: str = FILE) -> list[str]:
    """Return the canary texts of a folder, which an earlier version may have chosen; the package's if it has none."""
    path = folder / file
    try:
        entries = json.loads(path.read_text("utf-8"))["canaries"]
        texts = [entry["text"] for entry in entries]
        keys = [entry["key"] for entry in entries]
    except FileNotFoundError:
        return list(CANARY_TEXTS)
    except (ValueError, KeyError, TypeError):
        texts, keys = [], None
    if keys != [k.tobytes().hex() for k in text_keys(texts)]:
        raise StoreError(
            f"{path} is damaged: its texts do not match their keys. Run `embedrm cache verify --repair`; the file is "
            "written again with the next vectors."
        )
    return texts


def check_canaries(
    name: str, dtype: str, texts: Sequence[str], snapshot: Snapshot, encoder: TextEncoder, tolerance: float | None
) -> list[CanaryCheck]:
    """Encode a folder's canaries again and compare them with their stored vectors, layer by layer."""
    words = key_words(text_keys(texts))
    where = {layer: snapshot.find(layer, words) for layer in snapshot.layers()}
    limit = TOLERANCE[dtype] if tolerance is None else tolerance
    layers = [layer for layer, (segment, _) in where.items() if (segment >= 0).any()]
    fresh = encoder.encode(list(texts), layers) if layers else {}
    out = []
    for layer, (segment, row) in where.items():
        known = np.flatnonzero(segment >= 0)
        worst = 0.0
        if known.size:
            stored = snapshot.gather(layer, segment[known], row[known], np.float64)
            new = np.asarray(fresh[layer], np.float64)[known]
            if new.shape != stored.shape:
                worst = float("inf")
            else:
                scale = np.maximum(np.linalg.norm(stored, axis=1), np.finfo(np.float32).tiny)
                gap = np.linalg.norm(new - stored, axis=1) / scale
                worst = float(np.where(np.isnan(gap), np.inf, gap).max())
        out.append(CanaryCheck(name, layer, int(known.size), worst, limit))
    return out
