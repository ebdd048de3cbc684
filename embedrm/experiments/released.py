"""Arrays of candidates as the data of an experiment: the layout of the Reusing-Embeddings release."""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path
from typing import Any

from embedrm.datasets.candidate_arrays import load_release, release_paths
from embedrm.datasets.drawing import draw_pairs
from embedrm.errors import DataError
from embedrm.preferences import EmbeddedPreferences

_SPLITS = ("train", "validation", "test")


def load_candidates(setting: str, random_state: int) -> dict[str, EmbeddedPreferences]:
    """Map the splits of one setting, with one pair of different gold for each prompt, drawn at random.

    Parameters
    ----------
    setting : str
        ``FOLDER/NAME``, for files as :func:`embedrm.datasets.candidate_arrays.release_paths` names them.
    random_state : int
        Of the pairs.

    Returns
    -------
    dict of str to EmbeddedPreferences
        By split, of those of ``train``, ``validation`` and ``test`` that there are; each has vectors of its own.
    """
    folder, name = Path(setting).parent, Path(setting).name
    present = [split for split in _SPLITS if release_paths(folder, name, split)[0].exists()]
    if "train" not in present or len(present) < 2:
        wanted = " and ".join(str(release_paths(folder, name, split)[0]) for split in ("train", "test"))
        raise DataError(
            f"data.release {setting!r}: expected {wanted}, with their rewards; there is "
            f"{'only ' + ', '.join(present) if present else 'none of them'}"
        )
    return {
        split: draw_pairs(load_release(folder, name, split), "same-prompt", random_state=random_state)
        for split in present
    }


def candidate_facts(parts: dict[str, EmbeddedPreferences], setting: str, random_state: int) -> dict[str, Any]:
    """Return ``digest``, ``splits``, ``domains`` and ``name``, as of data that are read from files."""
    digest = blake2b(f"{random_state}".encode(), digest_size=16)
    for split, part in parts.items():
        digest.update(f"|{split}:{part.responses.info['data']['fingerprint']}".encode())
    return {
        "digest": digest.hexdigest(),
        "splits": sorted(parts),
        "domains": sorted({domain for part in parts.values() for domain in part.domains}),
        "name": Path(setting).name,
    }
