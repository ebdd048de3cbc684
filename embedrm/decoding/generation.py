"""Texts from prompts with ``model.generate``, guided or not: BOS, left padding, batches and seeds in one place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from embedrm.encoders.base import check_texts
from embedrm.errors import InvalidInputError
from embedrm.progress import Progress, silent

if TYPE_CHECKING:
    from embedrm.decoding.processors import RewardProcessor
    from embedrm.language_models import LanguageModel


@dataclass(frozen=True)
class Generation:
    """One continuation.

    Attributes
    ----------
    prompt : str
    text : str
        What was written after the prompt, without special tokens.
    ids : tuple of int
        The new tokens, without the end-of-text token.
    ended : bool
        Whether the model ended the text by itself.
    """

    prompt: str
    text: str
    ids: tuple[int, ...]
    ended: bool


def generate(
    lm: LanguageModel,
    prompts: Sequence[str],
    *,
    processor: RewardProcessor | None = None,
    n: int = 1,
    max_new_tokens: int = 20,
    top_k: int | None = None,
    top_p: float | None = None,
    greedy: bool = False,
    temperature: float = 1.0,
    seed: int = 0,
    batch_size: int = 32,
    progress: Progress = silent,
) -> list[list[Generation]]:
    """Continue prompts.

    Parameters
    ----------
    lm : LanguageModel
    prompts : sequence of str
    processor : RADProcessor or ARMProcessor, optional
        Its filter is the filter; ``top_k`` and ``top_p`` are for unguided texts.
    n : int
        Continuations of each prompt.
    max_new_tokens : int
    top_k, top_p : int, float, optional
    greedy : bool
        The most probable token at each step instead of a draw.
    temperature : float
        Of the logits, guided or not. A processor's top-p set is of the logits before it, an unguided text's of those after.
    seed : int
        Of the draws. The generator that all of torch shares is put back at the end.
    batch_size : int
        Sequences at once. Draws are made for a batch as a whole, so another size gives other texts.
    progress : Progress

    Returns
    -------
    list of lists of Generation
        For each prompt its n continuations.

    Raises
    ------
    InvalidInputError
        For prompts that are not text, options out of range or that contradict each other, and a prompt that leaves no room
        for new tokens.
    """
    from embedrm.decoding.candidates import CandidateFilter

    if isinstance(prompts, str):
        raise InvalidInputError("generate expects a sequence of prompts, got one string; put it in a list: [prompt]")
    prompts = check_texts(prompts)
    wholes = {"n": (n, 1), "max_new_tokens": (max_new_tokens, 1), "batch_size": (batch_size, 1), "seed": (seed, 0)}
    for name, (value, least) in wholes.items():
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
            raise InvalidInputError(f"generate expects {name} of at least {least}, a whole number; got {value!r}")
    if not (isinstance(temperature, (int, float, np.number)) and np.isfinite(temperature) and temperature > 0):
        raise InvalidInputError(
            f"generate expects a positive temperature, got {temperature!r}; greedy=True draws nothing"
        )
    if processor is not None and processor.lm is not lm:
        raise InvalidInputError("generate was given a processor for another language model; make one with this model")
    if processor is not None and (top_k is not None or top_p is not None):
        raise InvalidInputError("the processor has a filter of its own; give top_k and top_p to it, not to generate")
    CandidateFilter(top_k, top_p)
    rows = [[lm.bos_id, *lm.encode(prompt)] for prompt in prompts for _ in range(n)]
    longest = max(map(len, rows), default=0) + max_new_tokens
    if lm.max_length is not None and longest > lm.max_length:
        raise InvalidInputError(
            f"the longest prompt with its {max_new_tokens} new tokens has {longest:,} tokens, and the language model reads "
            f"{lm.max_length:,}; shorten one of them"
        )
    options: dict[str, Any] = {"max_new_tokens": max_new_tokens, "do_sample": not greedy}
    if not greedy:
        # said in full: transformers would keep the 50 most probable tokens by default
        options |= {
            "top_k": top_k or 0,
            "top_p": 1.0 if top_p is None else float(top_p),
            "temperature": float(temperature),
        }
    elif top_k is not None or top_p is not None or temperature != 1.0:
        raise InvalidInputError("greedy decoding has no top_k, top_p or temperature; leave them out")
    step = progress("generating")
    made: list[tuple[list[int], bool]] = []
    with _lent_generator():
        for index, start in enumerate(range(0, len(rows), batch_size)):
            _seed(seed, index)
            made += _batch(lm, rows[start : start + batch_size], processor, options)
            step(len(made), len(rows))
    texts = [
        Generation(prompts[i // n], _continuation(lm, rows[i], ids), tuple(ids), ended)
        for i, (ids, ended) in enumerate(made)
    ]
    return [texts[i : i + n] for i in range(0, len(texts), n)]


def padded(rows: Sequence[Sequence[int]], pad: int) -> tuple[Any, Any]:
    """Return token ids padded on the left, and their attention mask; both (n, longest)."""
    import torch

    width = max(map(len, rows))
    ids = torch.tensor([[pad] * (width - len(row)) + list(row) for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return ids, mask


def _batch(
    lm: LanguageModel, rows: list[list[int]], processor: Any, options: dict[str, Any]
) -> list[tuple[list[int], bool]]:
    import torch

    ids, mask = padded(rows, _pad(lm))
    processors = {} if processor is None else {"logits_processor": [processor]}
    with torch.inference_mode():
        out = lm.model.generate(
            ids, attention_mask=mask, pad_token_id=_pad(lm), eos_token_id=lm.eos_id, **options, **processors
        )
    made = []
    for row in out[:, ids.shape[1] :].tolist():
        ended = lm.eos_id is not None and lm.eos_id in row
        made.append((row[: row.index(lm.eos_id)] if ended else row, ended))
    return made


def _pad(lm: LanguageModel) -> int:
    # which token it is does not matter: it is masked before a prompt, and cut off after the end of a text
    return lm.bos_id if lm.eos_id is None else lm.eos_id


def _continuation(lm: LanguageModel, prompt: list[int], ids: list[int]) -> str:
    # some tokenizers write the first word of a text without the space before it, so the new tokens are not written alone
    before = lm.decode(prompt[1:])
    whole = lm.decode([*prompt[1:], *ids])
    return whole[len(before) :] if whole.startswith(before) else lm.decode(ids)


def _seed(seed: int, index: int) -> None:
    import torch

    value = int(np.random.SeedSequence([seed, index]).generate_state(1, np.uint64)[0] >> np.uint64(1))
    torch.set_rng_state(torch.Generator().manual_seed(value).get_state())


@contextmanager
def _lent_generator() -> Iterator[None]:
    import torch

    before = torch.get_rng_state()
    try:
        yield
    finally:
        torch.set_rng_state(before)
