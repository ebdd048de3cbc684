"""Vectors on disk: immutable segments, looked up by content, computed once and shared by every run."""

from embedrm.store.canary import CANARY_TEXTS, CanaryCheck
from embedrm.store.digest import fingerprint_digest, text_keys
from embedrm.store.segment import DamagedSegmentError, Segment, write_segment
from embedrm.store.stats import default_path
from embedrm.store.store import EmbeddingStore
from embedrm.store.verify import Damage, VerifyReport

__all__ = [
    "CANARY_TEXTS",
    "CanaryCheck",
    "Damage",
    "DamagedSegmentError",
    "EmbeddingStore",
    "Segment",
    "VerifyReport",
    "default_path",
    "fingerprint_digest",
    "text_keys",
    "write_segment",
]
