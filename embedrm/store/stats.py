"""What a store holds, as facts; and where the user's own store is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from embedrm.errors import StoreError
from embedrm.store.files import leftovers
from embedrm.store.folder import QUARANTINE, Folder


def default_path() -> Path:
    """Return ``$EMBEDRM_HOME/store``; EMBEDRM_HOME defaults to ``~/.cache/embedrm``."""
    home = os.environ.get("EMBEDRM_HOME")
    return (Path(home) if home else Path.home() / ".cache" / "embedrm").expanduser() / "store"


def folder_stats(folder: Folder) -> dict[str, Any]:
    """Return the entry of one folder in :meth:`EmbeddingStore.stats`."""
    snapshot = folder.refresh(lenient=True)
    try:
        identity = folder.identity() or {}
    except StoreError:
        identity = {}  # verify() reports it
    words = snapshot.unique_words()
    counts = {str(la): int((snapshot.find(la, words)[0] >= 0).sum()) for la in snapshot.layers()}
    moved = folder.path / QUARANTINE
    return {
        "digest": folder.digest,
        "dtype": folder.dtype,
        "model": identity.get("name") or identity.get("model") or identity.get("kind"),
        "texts": len(words),
        "vectors": sum(counts.values()),
        "layers": counts,
        "segments": len(snapshot.segments),
        "bytes": sum(s.size for s in snapshot.segments),
        "damaged": sorted(folder.damaged),
        "quarantined": sorted(p.name for p in moved.iterdir()) if moved.is_dir() else [],
        "leftovers": [str(p) for p in leftovers(folder.path)],
    }
