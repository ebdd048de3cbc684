"""Which responses are put before an annotator. One scheme, one file; :func:`embedrm.draw_pairs` applies them.

A pair is drawn once and in one order, since heads here need no mirrored copy of it: Bradley-Terry is antisymmetric, and
the classification objective makes its two rows itself. Mirrored rows (both orders of every pair, as in the code of the
study) must not be split at random: about four fifths of the rows that a random fifth holds out have their mirror image in
training, so that early stopping and validation see pairs that were trained on. Split prompts first, whatever is done to
pairs afterwards; ``in_split``, ``with_split`` and every split inside a model go by prompt group.
"""

from __future__ import annotations

from embedrm.registry import Registry

PAIRINGS: Registry = Registry("pairing scheme", "embedrm.datasets.pairing")

from embedrm.datasets.pairing.base import PairingScheme, Pool, make_scheme  # noqa: E402

__all__ = ["PAIRINGS", "PairingScheme", "Pool", "make_scheme"]
