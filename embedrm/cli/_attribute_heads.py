"""Heads that steer: a saved one, or one trained on the bundled corpus at first use and kept."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedrm.cli._common import Console
from embedrm.cli._guard import keep
from embedrm.errors import InvalidInputError, unknown_name

if TYPE_CHECKING:
    from embedrm.decoding.base import PrefixHead
    from embedrm.language_models import LanguageModel

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def heads_home() -> Path:
    """Return ``$EMBEDRM_HOME/prefix_heads``."""
    from embedrm.store.stats import default_path

    return default_path().parent / "prefix_heads"


def attribute_head(lm: LanguageModel, method: str, console: Console) -> PrefixHead:
    """Return the head of the bundled attributes on this language model, training it where it is not kept."""
    from embedrm.decoding.guidance_training import RECIPE, train_attribute_head, training_texts
    from embedrm.persistence import load_model, save_model

    table = training_texts()
    identity = {
        "recipe": RECIPE,
        "method": method,
        "model": lm.fingerprint(),
        "texts": [[str(a), str(t), float(s)] for a, t, s in zip(table["attribute"], table["text"], table["score"])],
    }
    digest = hashlib.blake2b(json.dumps(identity, sort_keys=True).encode("ascii"), digest_size=16).hexdigest()
    folder = heads_home() / digest
    if not folder.is_dir():
        console.note(
            f"training the {method} head on {len(table):,} bundled texts (once, about a minute); it is kept in {folder}"
        )
        with console.progress() as progress:
            head = train_attribute_head(lm, method, progress=progress)
        save_model(
            head, folder, extra={"language_model": lm.describe(), "data": "the bundled attribute corpus, half A"}
        )
        keep(f"the head is kept in {folder}")
    return _checked(load_model(folder)[0], lm)


def saved_head(folder: str, lm: LanguageModel) -> PrefixHead:
    """Return a head that was saved, or raise where it is none, or of another language model."""
    from embedrm.decoding.base import PrefixHead
    from embedrm.persistence import load_model

    head = load_model(folder)[0]
    if not isinstance(head, PrefixHead):
        raise InvalidInputError(
            f"{folder} holds a {type(head).__name__}, which rewards whole responses; --head takes an ARM or RAD "
            "head. To choose among finished texts by it, use embedrm score"
        )
    return _checked(head, lm)


def _checked(head: Any, lm: LanguageModel) -> PrefixHead:
    head.check_model(lm.fingerprint())
    if getattr(head, "keep_embeddings", True) is False:
        head.attach(lm.output_embeddings())
    checked: PrefixHead = head
    return checked


def method_of(head: PrefixHead) -> str:
    """Return "arm" for heads that reward next tokens, "rad" for those that reward prefixes."""
    return "arm" if hasattr(head, "next_rewards") else "rad"


def attribute_weights(asked: Sequence[str], head: PrefixHead) -> dict[str, float]:
    """Read repeated ``NAME`` or ``NAME=WEIGHT``: the head's attributes, and the words for their ends where it has them.

    Examples
    --------
    ``positive`` is ``{"sentiment": 1.0}``, ``rude=2`` is ``{"politeness": -2.0}``.
    """
    from embedrm.decoding.guidance_training import WORDS

    names = [str(name) for name in head.attributes_]
    words = {word: way for word, way in WORDS.items() if way[0] in names}
    weights: dict[str, float] = {}
    for item in asked:
        word, equals, value = (part.strip() for part in item.partition("="))
        if word not in names and word not in words:
            raise unknown_name("attribute", word, [*words, *names])
        if equals and not _NUMBER.fullmatch(value):
            raise InvalidInputError(f"--attribute expects NAME or NAME=WEIGHT with a number, got {item!r}")
        name, sign = words.get(word, (word, 1.0))
        if name in weights:
            raise InvalidInputError(f"--attribute names {name!r} twice; give it once, with a weight")
        weights[name] = sign * (float(value) if equals else 1.0)
    return weights
