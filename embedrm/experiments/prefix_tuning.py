"""The language model itself tuned as a reward model, RAD and ARM: the paper's headline setting, for a short while."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedrm.decoding.base import PrefixHead, TokenRecord
from embedrm.encoders.token_states import TokenStates
from embedrm.errors import InvalidInputError, ModelError
from embedrm.experiments.prefix_shelf import Shelf
from embedrm.language_models.model import LanguageModel
from embedrm.progress import Progress, silent

LARGEST = 12e6
"""Weights of the largest language model that is tuned here: beyond it a few hundred steps on a CPU take hours."""


@dataclass(frozen=True)
class Tuning:
    """How a backbone is tuned.

    Attributes
    ----------
    steps : int
    batch_tokens : int
        Tokens of a step, about.
    learning_rate : float
        Of AdamW, falling to nothing along a line; betas 0.9 and 0.95, weight decay 0.01, gradients of norm at most 2, as in
        the official configurations.
    regulariser : float
        Of ARM, on one random token a position.
    random_state : int
    """

    steps: int = 100
    batch_tokens: int = 1024
    learning_rate: float = 5e-4
    regulariser: float = 1.0
    random_state: int = 0


class Recorded(PrefixHead):
    """A teacher that has spoken already: its rewards of every row of a corpus, read from another model's states of it."""

    recorded_: NDArray[np.float64]

    @classmethod
    def of(cls, like: PrefixHead, rewards: NDArray[np.float64], states: TokenRecord) -> Recorded:
        """Record the rewards (n_rows, n_attributes) of a head for a student that reads ``states``."""
        made = cls()
        made.attributes_, made.link_, made.bounded_ = like.attributes_, like.link_, like.bounded_
        made.model_, made.vocab_size_ = states.model, states.vocab_size
        made.n_features_in_ = int(states.states.shape[1])
        made.recorded_ = rewards
        return made

    def fit(self) -> Recorded:
        """Nothing is left to learn."""
        return self

    def rewards(self, h: NDArray[Any]) -> NDArray[np.float64]:
        """Rewards of all rows; others than all of them are refused."""
        if len(h) != len(self.recorded_):
            raise InvalidInputError(
                f"this teacher has rewards of {len(self.recorded_)} rows, and {len(h)} were asked for"
            )
        return self.recorded_

    def token_rewards(self, states: TokenRecord) -> NDArray[np.float64]:
        """Rewards of all rows."""
        self.check(states)
        return self.rewards(states.states)


def tuned_model(
    lm: LanguageModel,
    states: TokenStates,
    scores: NDArray[np.float64],
    kind: str,
    tuning: Tuning,
    shelf: Shelf,
    *,
    teacher: NDArray[np.float64] | None = None,
    progress: Progress = silent,
) -> LanguageModel:
    """Tune a copy of a language model with a reward head on top, and keep it.

    Token embeddings stay frozen (and with them e(v), where the two are one table); all else moves.

    Parameters
    ----------
    lm : LanguageModel
    states : TokenStates
        Only its tokens are read.
    scores : ndarray of shape (n_texts,)
        Labels in [0, 1].
    kind : {"rad", "arm", "responses"}
        RAD: a linear reward of the state after each prefix, cumulative squared error. ARM: <h, w> + <W h, e(v)> of the token
        that came, squared error from the teacher's reward, with the regulariser. Responses: the same reward, cumulative
        squared error from the text's label, with the regulariser.
    tuning : Tuning
    shelf : Shelf
        Its folder keeps the tuned model.
    teacher : ndarray of shape (n_rows,), optional
        Rewards of every prefix, for ARM.
    progress : Progress

    Returns
    -------
    LanguageModel
        The tuned backbone; the head that was tuned with it is not kept: heads are solved on its states.
    """
    from embedrm.language_models import load_language_model

    targets = None if teacher is None else np.round(teacher, 6).tolist()
    identity = [lm.fingerprint(), kind, asdict(tuning), states.ids.tolist(), states.offsets.tolist()]
    place = shelf.place("tuned", [*identity, scores.tolist(), targets])
    if not place.is_dir():
        model = _trained(lm, states, scores, kind, tuning, teacher, progress)
        _keep(model, lm, place)
        shelf.computed += 1
    return load_language_model(str(place))


def _keep(model: Any, lm: LanguageModel, place: Path) -> None:
    from embedrm.encoders.quiet import quiet_loading
    from embedrm.store.files import TEMP_PREFIX, disk_error, make_folder

    try:
        make_folder(place.parent)
        temporary = Path(tempfile.mkdtemp(prefix=TEMP_PREFIX, dir=place.parent))
    except OSError as error:
        raise disk_error(error, place.parent, "keep a tuned model", "Nothing was kept.") from error
    try:
        with quiet_loading():
            model.save_pretrained(temporary, safe_serialization=True)
            lm.tokenizer.save_pretrained(temporary)
        os.replace(temporary, place)
    except OSError as error:
        raise disk_error(error, place.parent, "keep a tuned model", "Nothing was kept.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _trained(
    lm: LanguageModel,
    states: TokenStates,
    scores: NDArray[np.float64],
    kind: str,
    tuning: Tuning,
    teacher: NDArray[np.float64] | None,
    progress: Progress,
) -> Any:
    import torch

    from embedrm.tuning.linear import use_trainable_onednn

    model = _fresh(lm)
    tables = {id(module.weight) for module in (model.get_input_embeddings(), model.get_output_embeddings())}
    for weight in model.parameters():
        weight.requires_grad_(id(weight) not in tables)
    use_trainable_onednn(model)
    d, e = lm.dim, model.get_output_embeddings().weight
    w, bias = torch.zeros(d, requires_grad=True), torch.full((1,), float(scores.mean()), requires_grad=True)
    matrix = torch.zeros(e.shape[1], d, requires_grad=True)
    moved = [weight for weight in model.parameters() if weight.requires_grad]
    learned = [*moved, w, bias] if kind == "rad" else [*moved, w, matrix]
    optimiser = torch.optim.AdamW(learned, lr=tuning.learning_rate, betas=(0.9, 0.95), weight_decay=0.01)
    draw = torch.Generator().manual_seed(tuning.random_state)
    step = progress(f"tune the backbone for {kind.upper()}")
    for done, batch in enumerate(_batches(states, tuning), start=1):
        for group in optimiser.param_groups:
            group["lr"] = tuning.learning_rate * (1.0 - (done - 1) / tuning.steps)
        ids, there = _padded(states, batch)
        h = model.base_model(input_ids=ids, use_cache=False).last_hidden_state
        t = torch.arange(1, ids.shape[1])
        inside = there[:, 1:].float()
        length = inside.sum(dim=1, keepdim=True)
        share = inside * 2 * t / (length * (length + 1)) / len(batch)
        y = torch.from_numpy(scores[batch]).float()[:, None]
        if kind == "rad":
            loss = (share * (h[:, 1:] @ w + bias - y) ** 2).sum()
        else:
            taught = kind == "arm"
            goal = _goals(teacher, states, batch, ids.shape[1]) if taught else y
            query, read = h[:, :-1] @ matrix.T, e.detach()
            score = h[:, :-1] @ w + (query * read[ids[:, 1:]]).sum(dim=-1)
            random = torch.randint(0, len(read), ids[:, 1:].shape, generator=draw)
            other = (query * read[random]).sum(dim=-1)
            even = inside / inside.sum()
            loss = ((even if taught else share) * (score - goal) ** 2).sum()
            loss = loss + tuning.regulariser * (even * other**2).sum()
        if not bool(torch.isfinite(loss.detach())):
            raise ModelError(f"tuning for {kind.upper()}: the loss is not finite at step {done}; lower learning_rate")
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learned, 2.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        step(done, tuning.steps)
    for module in model.modules():
        vars(module).pop("forward", None)
    return model.eval().requires_grad_(False)


def _fresh(lm: LanguageModel) -> Any:
    """A copy of the model as it is on disk, without what makes the frozen one fast."""
    from transformers import AutoModelForCausalLM

    from embedrm.encoders.quiet import quiet_loading

    with quiet_loading():
        model = AutoModelForCausalLM.from_pretrained(str(lm.files.folder), local_files_only=True)
    # eval: no dropout, so that there is one source of chance
    return model.float().eval()


def _batches(states: TokenStates, tuning: Tuning) -> Iterator[NDArray[np.intp]]:
    """Texts of each step: shuffled epochs, cut so that a batch has about the tokens asked for."""
    rng = np.random.default_rng(tuning.random_state)
    known = np.flatnonzero(states.lengths > 0)
    size = max(1, int(tuning.batch_tokens / (states.lengths[known].mean() + 1)))
    left: NDArray[np.intp] = np.empty(0, dtype=np.intp)
    for _ in range(tuning.steps):
        if len(left) < size:
            left = np.concatenate([left, rng.permutation(known)])
        yield left[:size]
        left = left[size:]


def _padded(states: TokenStates, batch: NDArray[np.intp]) -> tuple[Any, Any]:
    import torch

    lengths = states.lengths[batch] + 1
    ids = np.zeros((len(batch), int(lengths.max())), dtype=np.int64)
    for row, i in enumerate(batch):
        ids[row, : lengths[row]] = states.ids[states.offsets[i] : states.offsets[i + 1]]
    # attention looks back only, so that padding on the right needs no mask
    return torch.from_numpy(ids), torch.from_numpy(np.arange(ids.shape[1]) < lengths[:, None])


def _goals(teacher: NDArray[np.float64] | None, states: TokenStates, batch: NDArray[np.intp], width: int) -> Any:
    import torch

    if teacher is None:
        raise ModelError("tuning for ARM needs a teacher's rewards of every prefix")
    goals = np.zeros((len(batch), width - 1), dtype=np.float32)
    for row, i in enumerate(batch):
        own = teacher[states.offsets[i] + 1 : states.offsets[i + 1]]
        goals[row, : len(own)] = own
    return torch.from_numpy(goals)


def describe(tuning: Tuning) -> str:
    """Say what was tuned, for a report."""
    return (
        f"Three copies of the small language model are tuned for a short while ({tuning.steps} steps of about "
        f"{tuning.batch_tokens:,} tokens, AdamW at {tuning.learning_rate:g}, falling; token embeddings stay frozen): "
        "for RAD with a linear reward on cumulative squared error, for distilled ARM on the tuned RAD's rewards and for "
        "responses-only ARM on labels, both with the full W and the regulariser. Then each head is solved on its tuned "
        "states. The paper tunes GPT-2 for an epoch over millions of texts: this shows the way, not the size."
    )
