"""Judges that share nothing with what guides: words against an attribute, another language model, repetition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedrm.experiments.prefix_texts import Part
from embedrm.numerics.bootstrap import Clustered, percentile_interval

Array = NDArray[np.float64]
SEED = 101
ORDERS = (1, 2, 3)
"""Lengths of the n-grams of distinct-n."""


@dataclass(frozen=True)
class AttributeJudge:
    """Logistic regression on words and pairs of words (TF-IDF), which never sees a text of the guiding half.

    Attributes
    ----------
    model : sklearn Pipeline
    accuracy : dict
        On texts of its own half that it has not seen: ``value``, ``low``, ``high`` over their groups, ``n``.
    """

    model: Any
    accuracy: dict[str, float]

    def positive(self, texts: Sequence[str]) -> NDArray[np.bool_]:
        """Whether each text is on the upper side."""
        return np.asarray(self.model.predict(list(texts)), dtype=bool)


def train_judge(train: Part, test: Part) -> AttributeJudge:
    """Fit the judge on texts at either end; texts in the middle teach it nothing."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2, token_pattern=r"(?u)\b\w[\w']*\b")
    model = make_pipeline(words, LogisticRegression(C=10.0, max_iter=1000, random_state=SEED))
    rows = train.decided
    model.fit([t for t, keep in zip(train.texts, rows) if keep], train.positive[rows])
    rows = test.decided
    told = np.asarray(model.predict([t for t, keep in zip(test.texts, rows) if keep]), dtype=bool)
    right = (told == test.positive[rows]).astype(np.float64)
    table = Clustered.from_rows(right, test.groups[rows], np.zeros(int(rows.sum())))
    low, high = percentile_interval(table.resample()[:, 0, 0])
    value = float(table.means()[0, 0, 0])
    return AttributeJudge(model, {"value": value, "low": float(low), "high": float(high), "n": int(rows.sum())})


def distinct(texts: Sequence[Sequence[int]], order: int) -> float:
    """Different n-grams over all n-grams of the continuations of one prompt; zero where there is none.

    Parameters
    ----------
    texts : sequence of sequences of int
        Tokens.
    order : int
        n.
    """
    grams = [tuple(one[i : i + order]) for one in texts for i in range(len(one) - order + 1)]
    return len(set(grams)) / len(grams) if grams else 0.0
