"""Static token tables made from tuned encoders: a second architecture to merge, offline and in seconds."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from embedrm.progress import Progress, Step, silent
from embedrm.store.files import make_folder, sync_folder, write_json

if TYPE_CHECKING:
    from embedrm.encoders.sentence import SentenceEncoder
    from embedrm.encoders.tokens import TextTokens
    from embedrm.tuning.base import TrainableBase

SIF_A = 1e-3
"""Of the weight a / (a + p) of a token whose share of the text is p (Arora et al. 2017, section 3)."""
_ENTRY = {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.StaticEmbedding"}
_BATCH = 512


def token_weights(tokens: TextTokens, needed: Sequence[str], counted: Sequence[str]) -> NDArray[np.float32]:
    """Return the weight of each row of a token table, (n_rows,): a / (a + p), and 0 for tokens that no text needs.

    Parameters
    ----------
    tokens : TextTokens
        The tokenizer that all tables share.
    needed : sequence of str
        All texts that will be read.
    counted : sequence of str
        Training texts, in which the shares p are counted.
    """
    special = {*tokens.prefix, *tokens.suffix}
    # one row for each id, gaps included
    counts = np.zeros(1 + max(tokens.backend.get_vocab(with_added_tokens=True).values()))
    for ids in tokens.ids(list(counted)):
        np.add.at(counts, [i for i in ids if i not in special], 1.0)
    there = counts > 0
    for ids in tokens.ids(list(needed)):
        there[[i for i in ids if i not in special]] = True
    share = counts / max(1.0, counts.sum())
    return np.where(there, SIF_A / (SIF_A + share), 0.0).astype(np.float32)


def static_folder(parent: Path, encoder: SentenceEncoder, weights: NDArray[np.float32]) -> Path:
    """Return the place of a table: one for each encoder and set of weights."""
    found = encoder.fingerprint()
    digest = hashlib.blake2b(weights.tobytes(), digest_size=8)
    digest.update(json.dumps([found["weights"], found["tokenizer"], found["modules"]]).encode())
    return parent / f"static-{digest.hexdigest()}"


def make_static(
    encoder: SentenceEncoder, weights: NDArray[np.float32], parent: Path, progress: Progress = silent, label: str = ""
) -> Path:
    """Distil an encoder into a static token table, and return its folder; found again where it is there.

    A token's row is the pooled vector of the encoder for that token alone between its special tokens, times the token's
    weight; a text is the mean of its rows. That is how model2vec begins; nothing is rotated or reduced afterwards, so that
    tables of encoders from one base stay in one basis and can be merged row by row.

    Parameters
    ----------
    encoder : SentenceEncoder
        A transformer, tuned or not.
    weights : ndarray of shape (n_rows,)
        Of :func:`token_weights`; rows of weight 0 stay zero.
    parent : Path
        Where the folder goes.
    """
    place = static_folder(parent, encoder, weights)
    if place.is_dir():
        return place
    from safetensors.numpy import save_file

    from embedrm.tuning.base import TrainableBase

    base, rows = TrainableBase(encoder), np.flatnonzero(weights)
    vectors = _token_vectors(base, rows, progress(f"static table {label}".strip()))
    table = np.zeros((len(weights), vectors.shape[1]), dtype=np.float32)
    table[rows] = vectors * weights[rows, None]
    make_folder(parent)
    temporary = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=parent))
    try:
        (temporary / "tokenizer.json").write_text(base.tokens.backend.to_str(), encoding="utf-8")
        save_file({"embedding.weight": table}, temporary / "model.safetensors")
        (temporary / "modules.json").write_text(json.dumps([_ENTRY]), encoding="utf-8")
        write_json(temporary, "static.json", {"of": encoder.fingerprint()["weights"], "a": SIF_A, "rows": len(rows)})
        os.chmod(temporary, 0o755)
        os.replace(temporary, place)
        sync_folder(parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        if not place.is_dir():
            raise
    return place


def _token_vectors(base: TrainableBase, rows: NDArray[np.intp], step: Step) -> NDArray[np.float32]:
    import torch

    base.model.eval()
    parts = []
    with torch.no_grad():
        for start in range(0, len(rows), _BATCH):
            some = rows[start : start + _BATCH].tolist()
            parts.append(base.pooled([[*base.tokens.prefix, row, *base.tokens.suffix] for row in some]).numpy())
            step(start + len(some), len(rows))
    found: NDArray[np.float32] = np.concatenate(parts).astype(np.float32)
    return found
