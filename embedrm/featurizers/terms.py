r"""Features of a response as terms over views: ``r``, ``p*r`` and ``abs(p-r)``.

With response views :math:`r_v`, prompt views :math:`p_u` and the scaled vectors :math:`z = (x - \mu) / s`, the features
are the concatenation of :math:`z_{r_v}`, :math:`z_{p_u} \circ z_{r_v}` and :math:`|z_{p_u} - z_{r_v}|`. A term in the
prompt alone is the same for both responses of a pair, cancels in every margin, and is refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator
from sklearn.utils.validation import check_is_fitted

from embedrm.errors import InvalidInputError, unknown_name
from embedrm.featurizers import FEATURIZERS
from embedrm.preferences import EmbeddedPreferences, EmbeddedResponses, Rows
from embedrm.views import select_views

TERMS = ("r", "p*r", "abs(p-r)")
SCALES = ("none", "rms", "standard")
_PROMPT_ONLY = {"p", "p*p", "abs(p)", "1"}


@FEATURIZERS.register("terms")
class Featurizer(BaseEstimator):
    """Terms over named views.

    Parameters
    ----------
    terms : sequence of {"r", "p*r", "abs(p-r)"}
        What to build from each response view r and prompt view p; every prompt view meets every response view.
    response : str or sequence of str, optional
        Response-side views: ``"3,6"`` means ``response:3`` and ``response:6``; ``"joint:6"`` by its full name. All
        ``response:*`` views where absent.
    prompt : str or sequence of str, optional
        Prompt views for the interaction terms, likewise. All ``prompt:*`` views where absent; unused without such terms.
    scale : {"rms", "standard", "none"}
        ``"rms"`` centres every column of a view and divides the view by one number, the root mean square of its centred
        columns: layers of different size become comparable to one penalty, and their geometry stays.
        ``"standard"`` divides every column by its own standard deviation; constant columns are left undivided.
        ``"none"`` leaves vectors as they are. All are fitted on the active responses (and their prompts) only.

    Attributes
    ----------
    response_views_, prompt_views_ : tuple of str
        The views used, in the order of the features.
    centre_, spread_ : dict of str to ndarray of shape (dim,), float64
        Centre and spread of every view.
    dim_ : int
        Number of features.
    """

    def __init__(
        self,
        terms: Iterable[str] = ("r",),
        response: str | Iterable[str] | None = None,
        prompt: str | Iterable[str] | None = None,
        scale: str = "rms",
    ) -> None:
        self.terms = terms
        self.response = response
        self.prompt = prompt
        self.scale = scale

    def fit(self, preferences: EmbeddedPreferences) -> Featurizer:
        """Choose the views and learn their scale from the active rows."""
        terms = (
            tuple(self.terms) if not isinstance(self.terms, str) else tuple(t.strip() for t in self.terms.split(","))
        )
        for term in terms:
            if term in _PROMPT_ONLY:
                raise InvalidInputError(
                    f"Featurizer got the term {term!r}, which is the same for both responses of a pair and cancels; "
                    f"use terms that contain r: {', '.join(TERMS)}"
                )
            if term not in TERMS:
                raise unknown_name("term", term, TERMS)
        if len(set(terms)) != len(terms):
            raise InvalidInputError(f"Featurizer names a term twice: {', '.join(terms)}; name each term once")
        if not terms:
            raise InvalidInputError(f"Featurizer needs at least one term, got none; choose from {', '.join(TERMS)}")
        if self.scale not in SCALES:
            raise unknown_name("scale", self.scale, SCALES)
        views = preferences.responses.views
        self.terms_ = terms
        self.response_views_ = select_views(self.response, views, "response", "Featurizer(response=...)")
        crossed = any(t != "r" for t in terms)
        self.prompt_views_ = select_views(self.prompt, views, "prompt", "Featurizer(prompt=...)") if crossed else ()
        for p in self.prompt_views_:
            for r in self.response_views_:
                if views[p].shape[1] != views[r].shape[1]:
                    raise InvalidInputError(
                        f"the terms p*r and abs(p-r) need views of one width, got {p} with {views[p].shape[1]} and "
                        f"{r} with {views[r].shape[1]} columns"
                    )
        self.centre_: dict[str, NDArray[np.float64]] = {}
        self.spread_: dict[str, NDArray[np.float64]] = {}
        for view in self.response_views_:
            self._fit_scale(view, views[view], preferences.active)
        for view in self.prompt_views_:
            self._fit_scale(view, views[view], preferences.active_prompts)
        widths = [views[v].shape[1] for v in self.response_views_]
        copies = ("r" in terms) + sum(t != "r" for t in terms) * len(self.prompt_views_)
        self.dim_ = copies * sum(widths)
        return self

    def _fit_scale(self, view: str, matrix: NDArray[Any], rows: Rows) -> None:
        dim = matrix.shape[1]
        if self.scale == "none":
            self.centre_[view], self.spread_[view] = np.zeros(dim), np.ones(dim)
            return
        total, squares = np.zeros(dim), np.zeros(dim)
        for start in range(0, len(rows), 4096):
            block = matrix[rows[start : start + 4096]].astype(np.float64)
            total += block.sum(axis=0)
            squares += np.einsum("ij,ij->j", block, block)
        if not len(rows):
            raise InvalidInputError("Featurizer needs at least one active response, got none; check the pairs")
        if not np.isfinite(squares).all():
            n_bad = sum(int((~np.isfinite(matrix[i])).any()) for i in rows)
            raise InvalidInputError(
                f"Featurizer expects finite vectors, got NaN or infinity (or values too large to square) in view {view!r}, "
                f"in {n_bad or 'some'} of {len(rows)} rows; look at the embeddings (embedrm cache verify)"
            )
        mean = total / len(rows)
        variance = np.maximum(squares / len(rows) - mean**2, 0.0)
        # below this, a column's variation is rounding of its mean
        variance[variance <= 1e-12 * np.maximum(mean**2, 1e-30)] = 0.0
        spread = np.sqrt(variance if self.scale == "standard" else np.full(dim, variance.mean()))
        self.centre_[view], self.spread_[view] = mean, np.where(spread > 0, spread, 1.0)

    def check(self, responses: EmbeddedResponses, who: str) -> None:
        """Raise unless the views this featurizer was fitted on are present with the same widths."""
        check_is_fitted(self, "dim_")
        for view in (*self.response_views_, *self.prompt_views_):
            responses.view(view, len(self.centre_[view]), who)

    def transform(
        self, responses: EmbeddedResponses, rows: Rows | None = None, dtype: Any = np.float64
    ) -> NDArray[np.floating[Any]]:
        """Materialise the features of some rows; shape (n, dim_).

        Parameters
        ----------
        responses : EmbeddedResponses
        rows : ndarray of int, optional
            All responses where absent. Call it block by block on large data.
        dtype : numpy dtype
        """
        self.check(responses, "Featurizer")
        rows = np.arange(responses.n_responses) if rows is None else rows
        z_r = [self._scaled(responses, v, rows, dtype) for v in self.response_views_]
        z_p = [self._scaled(responses, v, responses.prompt_of[rows], dtype) for v in self.prompt_views_]
        parts: list[NDArray[Any]] = []
        for term in self.terms_:
            if term == "r":
                parts += z_r
            else:
                parts += [p * r if term == "p*r" else np.abs(p - r) for p in z_p for r in z_r]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def _scaled(self, responses: EmbeddedResponses, view: str, rows: Rows, dtype: Any) -> NDArray[Any]:
        block = responses.view(view)[rows].astype(dtype)
        if self.scale != "none":
            block -= self.centre_[view].astype(dtype)
            block /= self.spread_[view].astype(dtype)
        return block

    def feature_blocks(self) -> list[tuple[str, str | None, str, slice]]:
        """Layout of the features: (term, prompt view or None, response view, columns), in order."""
        check_is_fitted(self, "dim_")
        blocks: list[tuple[str, str | None, str, slice]] = []
        start = 0
        for term in self.terms_:
            for p in (None,) if term == "r" else self.prompt_views_:
                for r in self.response_views_:
                    width = len(self.centre_[r])
                    blocks.append((term, p, r, slice(start, start + width)))
                    start += width
        return blocks
