"""From a data set to the comparison graph of its vectors: the one place where texts become rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from embedrm.datasets.template import PLAIN, Template
from embedrm.errors import InvalidInputError, unknown_name
from embedrm.numerics.annotation import KEY as LABEL_NOISE
from embedrm.preferences import EmbeddedPreferences, EmbeddedResponses
from embedrm.progress import Progress, silent
from embedrm.views import SIDES, Layer, Side, parse_layers, view_name

if TYPE_CHECKING:
    from embedrm.datasets import PreferenceDataset
    from embedrm.encoders import Encoder
    from embedrm.store import EmbeddingStore

Layers = str | int | Iterable[str | int] | None


def encode(
    dataset: PreferenceDataset,
    encoder: Encoder | str | None = None,
    *,
    layers: Layers | Mapping[str, Layers] = None,
    sides: Iterable[str] = ("response", "prompt"),
    store: EmbeddingStore | Literal[False] | None = None,
    template: Template = PLAIN,
    progress: Progress = silent,
) -> EmbeddedPreferences:
    """Encode a data set, reading from the store what is there and adding to it what is not.

    Parameters
    ----------
    dataset : PreferenceDataset
        Responses without pairs are encoded too: K-wise and best-of-n candidates are scored like any other.
    encoder : Encoder or str, optional
        An encoder, or what :func:`embedrm.load_encoder` takes; the default encoder where absent.
    layers : str, int, sequence or mapping of side to these, optional
        ``"3,6"``, ``"final"``; one choice for all sides or one each. The encoder's ``default_layers`` where absent.
    sides : sequence of {"response", "prompt", "joint"}
        Which views to make. ``joint`` is the prompt and the response encoded as one text.
    store : EmbeddingStore, optional
        The user's default store where absent; ``False`` encodes afresh and keeps nothing.
    template : Template
        How system text, context and prompt become one text.
    progress : Progress
        Called as ``progress(label)`` and then with ``(done, total)``; see :mod:`embedrm.progress`.

    Returns
    -------
    EmbeddedPreferences
        Views ``side:layer``; covariates ``characters, words, digits, punctuation, newlines, tokens, tokens_cut``; and
        ``responses.info`` with the fingerprints of data, encoder and template, the encoder's size, and what truncation did.
    """
    from embedrm.encoders import load_encoder
    from embedrm.store import EmbeddingStore

    if encoder is None or isinstance(encoder, str):
        encoder = load_encoder() if encoder is None else load_encoder(encoder)
    if store is None:
        store = EmbeddingStore.default()
    wanted = wanted_layers(encoder, layers, tuple(sides))
    texts = {
        side: dataset.prompt_texts(template)
        if side == "prompt"
        else dataset.joint_texts(template)
        if side == "joint"
        else dataset.response_texts()
        for side in wanted
    }
    views: dict[str, NDArray[np.float32]] = {}
    truncation: dict[str, Any] = {}
    cut: dict[str, NDArray[np.int64]] = {}
    for side, side_layers in wanted.items():
        step = progress(f"encode {side}s" if side != "joint" else "encode joint texts")
        vectors = (
            store.get(encoder, texts[side], side_layers, progress=step)
            if store
            else _encode_unique(encoder, texts[side], side_layers, step)
        )
        views |= {view_name(side, layer): vectors[layer] for layer in side_layers}
        tokens, cut[side] = encoder.count_tokens(texts[side])
        truncation[side] = _truncation(tokens, cut[side])
        if side == "response":
            counts = {"tokens": tokens, "tokens_cut": cut[side]}
    if "response" not in wanted:
        counts = dict(zip(("tokens", "tokens_cut"), encoder.count_tokens(dataset.response_texts())))
    pairs = dataset.pairs
    chosen_rejected = pairs[["chosen", "rejected"]].to_numpy()
    for side in ("response", "joint"):
        if side in wanted:
            truncation[side]["pairs_made_identical"] = _made_identical(encoder, texts[side], cut[side], chosen_rejected)
    table = dataset.responses
    prompts = dataset.prompts
    covariates = {
        name: table[name].to_numpy(dtype=np.float64)
        for name in ("characters", "words", "digits", "punctuation", "newlines")
    }
    responses = EmbeddedResponses(
        views,
        table["prompt_of"].to_numpy(),
        domain=prompts["domain"].to_numpy(dtype=object),
        group=prompts["group"].to_numpy(dtype=object),
        gold=table["gold"].to_numpy(dtype=np.float64),
        covariates={**covariates, **counts},
        split=prompts["split"].to_numpy(dtype=object),
        info={
            "data": {"name": dataset.name, "fingerprint": dataset.fingerprint()},
            "encoder": {**encoder.fingerprint(), "digest": encoder.fingerprint_digest()},
            "encoder_parameters": encoder.n_parameters(),
            "template": template.fingerprint(),
            "truncation": truncation,
            **{key: dataset.info[key] for key in (LABEL_NOISE,) if key in dataset.info},
        },
    )
    return EmbeddedPreferences(
        responses,
        chosen_rejected,
        weight=pairs["weight"].to_numpy(dtype=np.float64),
        margin=pairs["margin"].to_numpy(dtype=np.float64),
        outcome=pairs["outcome"].to_numpy(dtype=np.float64),
    )


def wanted_layers(encoder: Encoder, layers: Any, sides: tuple[str, ...]) -> dict[Side, tuple[Layer, ...]]:
    """Resolve the choice of layers for each side, as :func:`encode` takes it; unknown names raise."""
    if not sides:
        raise InvalidInputError(f"encode needs at least one side, got none; choose from {', '.join(SIDES)}")
    wanted: dict[Side, tuple[Layer, ...]] = {}
    named = tuple(layers) if isinstance(layers, Mapping) else ()
    for name in (*sides, *named):
        if name not in SIDES:
            raise unknown_name("side", name, SIDES)
    for side in (s for s in SIDES if s in sides):
        chosen = layers.get(side) if isinstance(layers, Mapping) else layers
        resolved = tuple(encoder.default_layers) if chosen is None else parse_layers(chosen)
        for layer in resolved:
            if layer not in encoder.layers:
                raise unknown_name(f"layer of {type(encoder).__name__}", layer, [str(v) for v in encoder.layers])
        wanted[side] = resolved
    return wanted


def _encode_unique(
    encoder: Encoder, texts: list[str], layers: tuple[Layer, ...], step: Any
) -> dict[Layer, NDArray[np.float32]]:
    row_of: dict[str, int] = {}
    rows = np.array([row_of.setdefault(text, len(row_of)) for text in texts], dtype=np.intp)
    vectors = encoder.encode(list(row_of), layers, progress=step)
    return {layer: vectors[layer][rows] for layer in layers}


def _truncation(tokens: NDArray[np.int64], cut: NDArray[np.int64]) -> dict[str, int]:
    return {
        "texts": len(tokens),
        "truncated": int((cut > 0).sum()),
        "tokens": int(tokens.sum()),
        "tokens_cut": int(cut.sum()),
        "longest": int(tokens.max(initial=0)),
    }


def _made_identical(encoder: Encoder, texts: list[str], cut: NDArray[np.int64], pairs: NDArray[Any]) -> int:
    """Pairs whose two different texts are one text once truncated: they can teach nothing."""
    both_cut = (cut[pairs] > 0).all(axis=1)
    suspects = pairs[both_cut]
    if not len(suspects):
        return 0
    rows = np.unique(suspects)
    digest = dict(zip(rows.tolist(), encoder.effective_digests([texts[i] for i in rows])))
    return sum(digest[a] == digest[b] for a, b in suspects.tolist())
