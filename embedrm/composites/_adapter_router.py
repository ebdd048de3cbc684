"""The router adapter: prompts through the trunk of the reward model, with low-rank factors of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import softmax

from embedrm.composites._adapter_factors import Adapter, Array, Trunk, first_product, forward
from embedrm.errors import InvalidInputError
from embedrm.featurizers import Featurizer
from embedrm.featurizers.rows import BLOCK_ROWS
from embedrm.preferences import EmbeddedPreferences
from embedrm.routers.base import Router, check_vectors
from embedrm.views import parse_view, view_name

_REMEDY = (
    "encode the prompts at the layers of the responses, or give a router of its own, such as router=LogisticRouter()"
)


@dataclass(frozen=True)
class PromptBlocks:
    """Which prompt view stands in for which response view, and where its features enter the trunk.

    Attributes
    ----------
    pairs : tuple of (str, str)
        Prompt view and response view of every block of the term r that has one.
    """

    pairs: tuple[tuple[str, str], ...]

    def columns(self, featurizer: Featurizer) -> NDArray[np.intp]:
        """Return the trunk's inputs that they fill, in the order of ``pairs``; all others count as zero."""
        part_of = {r: part for term, _, r, part in featurizer.feature_blocks() if term == "r"}
        return np.concatenate([np.arange(part_of[r].start, part_of[r].stop) for _, r in self.pairs])

    @property
    def views(self) -> list[str]:
        """Prompt views, each once."""
        return list(dict.fromkeys(p for p, _ in self.pairs))

    @classmethod
    def of(cls, featurizer: Featurizer, views: Mapping[str, NDArray[Any]], who: str) -> PromptBlocks:
        """Find them among the views present.

        Raises
        ------
        InvalidInputError
            Where the features have no term r, no prompt view is of a layer that the trunk reads, or one has another width.
        """
        blocks = [r for term, _, r, _ in featurizer.feature_blocks() if term == "r"]
        if not blocks:
            raise InvalidInputError(
                f"{who} sends prompts through the inputs that the trunk has for the term r, and its features are "
                f"{', '.join(featurizer.terms_)}; add the term r, or give a router of its own (router=LogisticRouter())"
            )
        pairs = []
        for response in blocks:
            prompt = view_name("prompt", parse_view(response)[1])
            if prompt not in views:
                continue
            width, expected = views[prompt].shape[1], len(featurizer.centre_[response])
            if width != expected:
                raise InvalidInputError(
                    f"{who} sends {prompt} through the trunk in the place of {response} and expects {expected} columns, "
                    f"got {width}; {_REMEDY}"
                )
            pairs.append((prompt, response))
        if not pairs:
            wanted = ", ".join(view_name("prompt", parse_view(r)[1]) for r in blocks)
            present = ", ".join(v for v in views if v.startswith("prompt:")) or "none"
            raise InvalidInputError(
                f"{who} sends prompts through the trunk and needs at least one prompt view of the layers it reads "
                f"({wanted}), got {present}; {_REMEDY}"
            )
        return cls(tuple(pairs))


def fit_scaling(
    featurizer: Featurizer, blocks: PromptBlocks, preferences: EmbeddedPreferences
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centre and spread of the prompt views side by side, by the featurizer's rule, over the active prompts.

    Prompts have a mean and a size of their own; with those of responses they would enter the trunk far from where it was
    trained.
    """
    own = Featurizer(scale=featurizer.scale)
    own.centre_, own.spread_ = {}, {}
    for view in blocks.views:
        matrix = preferences.responses.view(view)
        own._fit_scale(view, matrix, preferences.active_prompts, featurizer.rescales)
    return tuple(np.concatenate([d[v] for v in blocks.views]) for d in (own.centre_, own.spread_))  # type: ignore[return-value]


def prompt_features(
    featurizer: Featurizer, blocks: PromptBlocks, centre: Array, spread: Array, X: NDArray[Any], dtype: Any
) -> Array:
    """Turn prompt vectors, views side by side (n, dim), into the trunk's inputs at ``blocks.columns`` (n, n_columns)."""
    z = X.astype(dtype)
    z -= centre.astype(dtype)
    z /= spread.astype(dtype)
    start, part_of = 0, {}
    for prompt, response in blocks.pairs:
        if prompt not in part_of:
            part_of[prompt] = slice(start, start := start + len(featurizer.centre_[response]))
    projection = featurizer.projection_
    parts = [
        z[:, part_of[p]] @ projection[r].astype(dtype) if projection else z[:, part_of[p]] for p, r in blocks.pairs
    ]
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


class AdapterRouter(Router):
    """A fitted router adapter, seen as a router: a view on the arrays of an ``AdapterRewardModel``, holding no copy.

    Parameters
    ----------
    trunk : Trunk
        With a softmax layer in the place of the reward's.
    adapter : dict of str to ndarray
    scale, temperature : float
    featurizer : Featurizer
    blocks : PromptBlocks
    centre, spread : ndarray of shape (dim,)
    classes : sequence of str
    """

    def __init__(
        self,
        trunk: Trunk,
        adapter: Adapter,
        scale: float,
        temperature: float,
        featurizer: Featurizer,
        blocks: PromptBlocks,
        centre: Array,
        spread: Array,
        classes: Sequence[str],
    ) -> None:
        self.trunk, self.adapter, self.scale, self.temperature = trunk, adapter, scale, temperature
        self.featurizer, self.blocks, self.centre, self.spread = featurizer, blocks, centre, spread
        self.classes = classes

    @property
    def classes_(self) -> NDArray[np.str_]:  # type: ignore[override]
        """The domains, sorted."""
        return np.array(list(self.classes))

    def inputs(self, X: ArrayLike) -> Array:
        """The trunk's inputs (n, n_columns), float32, of prompt vectors (n, dim), views side by side."""
        matrix = check_vectors(X, "AdapterRouter", len(self.centre))
        return prompt_features(self.featurizer, self.blocks, self.centre, self.spread, matrix, np.float32)

    def scores(self, z: Array) -> NDArray[np.float64]:
        """Unnormalised log-probabilities (n, n_domains) of :meth:`inputs`, before the temperature."""
        out = np.empty((len(z), len(self.classes)))
        for start in range(0, len(z), BLOCK_ROWS):
            block = z[start : start + BLOCK_ROWS]
            first = first_product(self.trunk, block)
            out[start : start + len(block)] = forward(self.trunk, self.adapter, self.scale, block, first).outputs
        return out

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:
        """Calibrated probability of each domain; shape (n_prompts, n_domains)."""
        probability: NDArray[np.float64] = softmax(self.scores(self.inputs(X)) / self.temperature, axis=1)
        return probability


def trained_arrays(router: Router) -> Adapter:
    """Fitted arrays of floats of any router, by name."""
    fitted = {name: value for name, value in vars(router).items() if name.endswith("_") and not name.startswith("_")}
    return {name: value for name, value in fitted.items() if isinstance(value, np.ndarray) and value.dtype.kind == "f"}
