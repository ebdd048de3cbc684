"""Surface measures of a response, taken once where the text is, so that length control never needs text again."""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Sequence

import numpy as np
import pandas as pd

COVARIATES = ("characters", "words", "digits", "punctuation", "newlines")
"""Column names: ``characters``, ``words`` and ``newlines`` are counts, ``digits`` and ``punctuation`` are shares."""

_ASCII_DIGITS = string.digits.encode()
_ASCII_PUNCTUATION = string.punctuation.encode()
_NOT_ASCII = re.compile(r"[^\x00-\x7f]+")


def measure(texts: Sequence[str]) -> pd.DataFrame:
    """Measure each text.

    Parameters
    ----------
    texts : sequence of str

    Returns
    -------
    DataFrame, one row per text
        ``characters`` (int64, code points), ``words`` (int64, runs of non-space), ``digits`` and ``punctuation``
        (float64, shares of the characters, 0 for an empty text), ``newlines`` (int64). Digits are the Unicode decimal
        digits; punctuation is the Unicode categories P and S (symbols included, as in ``string.punctuation``).
    """
    counts = np.zeros((len(texts), 5), dtype=np.int64)
    categories: dict[str, str] = {}
    for row, text in enumerate(texts):
        # ASCII bytes are counted by deletion, which runs at memory speed; only the other characters are looked at.
        plain = text.encode("ascii", "ignore")
        digits = len(plain) - len(plain.translate(None, _ASCII_DIGITS))
        marks = len(plain) - len(plain.translate(None, _ASCII_PUNCTUATION))
        if len(plain) != len(text):
            for char in "".join(_NOT_ASCII.findall(text)):
                kind = categories.get(char)
                if kind is None:
                    kind = categories[char] = unicodedata.category(char)
                digits += kind == "Nd"
                marks += kind[0] in "PS"
        counts[row] = len(text), len(text.split()), digits, marks, text.count("\n")
    characters = np.maximum(counts[:, 0], 1)
    return pd.DataFrame(
        {
            "characters": counts[:, 0],
            "words": counts[:, 1],
            "digits": counts[:, 2] / characters,
            "punctuation": counts[:, 3] / characters,
            "newlines": counts[:, 4],
        }
    )
