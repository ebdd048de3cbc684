"""Generated attribute texts: reviews by sentiment and messages by politeness, as many as are asked for.

The bundled table "attributes" has some 1,800 texts, each written by hand. That is too few for a language model, and few
for the heads that steer one. Here a grammar puts texts together from hand-written clauses, in ``tables``.
"""

from __future__ import annotations

from embedrm.datasets.attribute_texts.writing import SPLITS, grammar_digest, write_attribute_texts

__all__ = ["SPLITS", "grammar_digest", "write_attribute_texts"]
