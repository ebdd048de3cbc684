"""Heads for steering by the attributes of the bundled corpus: sentiment and politeness."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from embedrm.datasets.bundled import load_bundled_table
from embedrm.decoding.arm import ARMHead
from embedrm.decoding.base import PrefixHead
from embedrm.decoding.rad import RADHead
from embedrm.errors import unknown_name
from embedrm.language_models.corpus import ATTRIBUTES, half_of
from embedrm.progress import Progress, silent

if TYPE_CHECKING:
    import pandas as pd

    from embedrm.language_models import LanguageModel

METHODS = ("arm", "rad")
WORDS: dict[str, tuple[str, float]] = {
    "positive": ("sentiment", 1.0),
    "negative": ("sentiment", -1.0),
    "polite": ("politeness", 1.0),
    "rude": ("politeness", -1.0),
}
"""Words for the ends of the bundled attributes: the attribute, and which way."""
# Another number where the training changes: heads that were kept are then not taken for new ones.
RECIPE = 3

# The smaller of two penalties that the validation texts of troshin2024 are asked about, and the one that they choose.
ARM_L2 = 1e-5

GENERATED = 6000
"""Generated texts that heads learn from, beside the hand-written ones."""


def training_texts(half: str = "A") -> pd.DataFrame:
    """Return the training texts of one half of the bundled attribute corpus, and generated ones of the same half.

    Parameters
    ----------
    half : {"A", "B"}
        ``A`` is for what guides; ``B`` is left for what judges.
    """
    import pandas as pd

    from embedrm.datasets.attribute_texts import write_attribute_texts

    table = load_bundled_table(ATTRIBUTES)
    table = table[(table["split"] == "train").to_numpy() & (half_of(table["group"]) == half)]
    generated = write_attribute_texts(GENERATED, half=half, split="train")
    columns = ["text", "attribute", "score", "group", "split"]
    return pd.concat([table[columns], generated[columns]], ignore_index=True)


def train_attribute_head(lm: LanguageModel, method: str = "arm", *, progress: Progress = silent) -> PrefixHead:
    """Fit a head on the bundled attribute corpus.

    Parameters
    ----------
    lm : LanguageModel
        Whose states are read.
    method : {"arm", "rad"}
        ``"arm"``: taught by the labels (responses only). ``"rad"``: a perceptron on the prefix's state, cumulative squared
        error.
    progress : Progress

    Returns
    -------
    RADHead or ARMHead
        With the attributes ``politeness`` and ``sentiment``; texts of one teach nothing of the other.

    Raises
    ------
    InvalidInputError
        For an unknown method.
    """
    if method not in METHODS:
        raise unknown_name("method of guidance", method, METHODS)
    table = training_texts()
    states = lm.token_states(table["text"].tolist(), progress=progress)
    groups = np.unique(table["group"], return_inverse=True)[1]
    labels: dict[str, Any] = {
        name: np.where(table["attribute"] == name, table["score"], np.nan)
        for name in sorted(table["attribute"].unique())
    }
    step = progress(f"fitting the {method} head")
    step(0, 1)
    # ARM is not distilled here: the frozen states of a small language model say little of a text's tone, so that a teacher
    # that reads nothing else has little to teach, while ARM reads the next token's embedding as well. See troshin2024.
    head: PrefixHead
    if method == "rad":
        head = RADHead(hidden=(64,), learning_rate=3e-3).fit(states, labels, groups=groups)
    else:
        head = ARMHead(loss="responses", l2=ARM_L2).fit(
            states, labels, embeddings=lm.output_embeddings(), groups=groups
        )
    step(1, 1)
    return head
