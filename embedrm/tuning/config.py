"""What is tuned, how, and for how long: one frozen object, checked before anything is loaded."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from embedrm.encoders.base import DEFAULT_ENCODER
from embedrm.encoders.truncation import SHORTENING_POLICIES
from embedrm.errors import InvalidInputError, unknown_name

METHODS = ("full", "top", "lora")
OBJECTIVES = ("bradley-terry", "domain", "masked-token", "contrastive")
VIEWS = ("dropout", "halves")
# Step sizes that held-out loss preferred on the bundled training split; fewer or fresh weights bear larger steps.
LEARNING_RATES = {"full": 1e-4, "top": 2e-4, "lora": 1e-3}


@dataclass(frozen=True)
class TuningConfig:
    """How an encoder is tuned.

    Parameters
    ----------
    base : str
        A sentence-transformers or Hugging Face encoder: a folder, a name on the hub, or the default encoder.
    revision : str, optional
        Branch, tag or commit on the hub.
    method : {"lora", "top", "full"}
        ``full`` moves all weights; ``top`` those of the last ``n_layers`` blocks and of what comes after them; ``lora``
        adds ``B A alpha / rank`` to the weights of linear layers and moves A and B alone (Hu et al. 2022, section 4).
    n_layers : int
        Blocks that ``top`` moves.
    rank, alpha, lora_dropout : int, float, float
        Of the low-rank adapters.
    target_modules : sequence of str, optional
        Ends of the names of linear layers that get an adapter, such as ``("query", "value")``; every linear layer of the
        blocks where absent.
    objective : {"bradley-terry", "domain", "masked-token", "contrastive"}
        ``bradley-terry``: a linear reward of the pooled vector of prompt and response, read as one text;
        ``domain``: which domain a prompt is of; ``masked-token``: hidden tokens of plain text (Devlin et al. 2019,
        section 3.1); ``contrastive``: two views of a text nearer than two texts (Gao et al. 2021, section 3).
    learning_rate : float, optional
        Largest step of AdamW; 1e-4 for ``full``, 2e-4 for ``top``, 1e-3 for ``lora`` where absent.
    head_learning_rate : float
        The same for the head, which starts at zero.
    weight_decay, warmup, clip : float
        Decoupled weight decay (not on vectors such as biases); share of the steps in which the step size rises linearly
        before it falls linearly to 0; largest length of the gradient.
    epochs : int
        Passes over the training data.
    max_steps : int, optional
        Stops there, whatever the epochs; the schedule ends there too.
    batch_tokens : int
        Tokens in one step, more or less: whole prompts are added while they fit.
    max_length : int
        The most tokens of a text that are read, and the limit of the tuned encoder's joint texts.
    truncation : {"middle", "head", "tail"}
        What is kept of a longer text; ``middle`` keeps the beginning of the prompt and the end of the response.
    dropout : float, optional
        Of the base while it is tuned; its own where absent.
    mask_share : float
        Share of the tokens that ``masked-token`` hides.
    views : {"dropout", "halves"}
        What ``contrastive`` takes for two views: one text under two draws of dropout, or its two halves.
    temperature : float
        Of the contrastive loss.
    validation_fraction : float
        Share of the prompt groups held out, to stop by and to choose the best state; 0 holds out none.
    patience : int
        Evaluations without a lower held-out loss before it stops.
    evaluations_per_epoch : int
        How often the held-out loss is looked at in an epoch, at even distances. A small encoder can be past its best before
        it has seen all pairs twice.
    evaluate_every : int, optional
        Steps between evaluations, instead.
    checkpoint_every : int
        Steps between checkpoints.
    threads : int, optional
        Threads torch uses; its own setting where absent, and for a run that goes on the number it began with: sums of
        other threads differ in the last bits.
    random_state : int
        Every draw follows from it and the number of the step.
    """

    base: str = DEFAULT_ENCODER
    revision: str | None = None
    method: str = "lora"
    n_layers: int = 2
    rank: int = 8
    alpha: float = 16.0
    lora_dropout: float = 0.0
    target_modules: Sequence[str] | None = None
    objective: str = "bradley-terry"
    learning_rate: float | None = None
    head_learning_rate: float = 1e-2
    weight_decay: float = 0.01
    warmup: float = 0.1
    clip: float = 1.0
    epochs: int = 3
    max_steps: int | None = None
    batch_tokens: int = 2048
    max_length: int = 128
    truncation: str = "middle"
    dropout: float | None = None
    mask_share: float = 0.15
    views: str = "dropout"
    temperature: float = 0.05
    validation_fraction: float = 0.1
    patience: int = 3
    evaluations_per_epoch: int = 2
    evaluate_every: int | None = None
    checkpoint_every: int = 50
    threads: int | None = None
    random_state: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.target_modules, Sequence) and not isinstance(self.target_modules, str):
            object.__setattr__(self, "target_modules", tuple(self.target_modules))
        if not isinstance(self.base, str) or not self.base.strip():
            raise InvalidInputError(f"base must name a folder or a model on the hub; got {self.base!r}")
        for name, known in (("method", METHODS), ("objective", OBJECTIVES), ("views", VIEWS)):
            if getattr(self, name) not in known:
                raise unknown_name(f"{name} of tuning", getattr(self, name), known)
        if self.truncation not in SHORTENING_POLICIES:
            raise unknown_name("truncation of tuning", self.truncation, SHORTENING_POLICIES)
        counts = ("n_layers", "rank", "epochs", "batch_tokens", "max_length", "patience")
        for name in (*counts, "evaluations_per_epoch", "checkpoint_every"):
            self._whole(name, 1)
        for name in ("max_steps", "evaluate_every", "threads"):
            if getattr(self, name) is not None:
                self._whole(name, 1)
        self._whole("random_state", 0)
        for name in ("alpha", "head_learning_rate", "clip", "temperature", "learning_rate"):
            if not (name == "learning_rate" and self.learning_rate is None):
                self._number(name, 0.0, math.inf, low_open=True)
        self._number("weight_decay", 0.0, math.inf)
        for name in ("lora_dropout", "warmup", "validation_fraction", "dropout"):
            if not (name == "dropout" and self.dropout is None):
                self._number(name, 0.0, 1.0)
        self._number("mask_share", 0.0, 1.0, low_open=True)
        targets = self.target_modules
        named = isinstance(targets, tuple) and targets and all(isinstance(name, str) and name for name in targets)
        if targets is not None and not named:
            raise InvalidInputError(f"target_modules must be names of linear layers, or None for all; got {targets!r}")

    def _whole(self, name: str, least: int) -> None:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise InvalidInputError(f"{name} of tuning must be a whole number of at least {least}; got {value!r}")

    def _number(self, name: str, low: float, high: float, *, low_open: bool = False) -> None:
        value = getattr(self, name)
        good = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if not good or not (low < value if low_open else low <= value) or value >= high:
            least = "above" if low_open else "at least"
            most = "" if math.isinf(high) else f" and below {high:g}"
            raise InvalidInputError(f"{name} of tuning must be a number {least} {low:g}{most}; got {value!r}")

    @property
    def step_size(self) -> float:
        """The largest step of AdamW on the encoder's own weights."""
        return LEARNING_RATES[self.method] if self.learning_rate is None else float(self.learning_rate)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TuningConfig:
        """Build a configuration from what :meth:`to_dict` returned; unknown names are refused."""
        known = [field.name for field in fields(cls)]
        for name in values:
            if name not in known:
                raise unknown_name("parameter of tuning", name, known)
        return cls(**values)
