"""One base in memory, several low-rank adapters over it, and a switch between them that leaves no trace."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from embedrm.encoders.base import Encoder, Layer, Step
from embedrm.encoders.sentence import SentenceEncoder
from embedrm.errors import InvalidInputError, ModelError, unknown_name
from embedrm.tuning.base import base_digest
from embedrm.tuning.heads import TunedHead
from embedrm.tuning.saving import read_adapter, read_facts

if TYPE_CHECKING:
    from embedrm.datasets import PreferenceDataset

_KEY = re.compile(r"^base_model\.model\.(?P<layer>.+)\.lora_(?P<side>[AB])(?:\.default)?\.weight$")


@dataclass(frozen=True)
class Adapter:
    """A low-rank change of some linear layers.

    Attributes
    ----------
    folder : Path
        Where it came from.
    factors : dict of str to (A', B' alpha / rank)
        By the layer's name, transposed: ``y += (x A') B'``.
    n_parameters : int
        Numbers in A and B.
    digest : str
        Of the arrays and the scale; 32 hex digits.
    """

    folder: Path
    factors: dict[str, tuple[Any, Any]]
    n_parameters: int
    digest: str

    @property
    def nbytes(self) -> int:
        """Bytes it takes in memory."""
        return 4 * self.n_parameters


class AdapterSwitch:
    """A frozen base with adapters that are switched in memory.

    An adapter is added to what a layer gives, ``y = W x + B (A x) alpha / rank``, and never merged into the weights:
    switching exchanges one reference, whatever the size of the model, and without an adapter the base computes what it
    always computed, to the bit.

    Parameters
    ----------
    base : SentenceEncoder or str
        The encoder that the adapters were tuned from, or its name; :meth:`TunedEncoder.base_encoder` has the limits of a
        tuning too, which rewards need. It is loaded anew, so that nobody else's copy ever has an adapter.

    Attributes
    ----------
    adapters : dict of str to Adapter
        Those added, by name.

    Examples
    --------
    >>> switch = AdapterSwitch("all-MiniLM-L6-v2")
    >>> switch.add("science", "runs/science")  # doctest: +SKIP
    >>> switch.encoder("science").encode(["Why is the sky blue?"])  # doctest: +SKIP
    """

    def __init__(self, base: SentenceEncoder | str) -> None:
        found = SentenceEncoder(base) if isinstance(base, str) else base
        if not isinstance(found, SentenceEncoder):
            raise InvalidInputError(f"AdapterSwitch needs a SentenceEncoder or its name, got {type(base).__name__}")
        self.base = SentenceEncoder(**found.get_params())
        self.adapters: dict[str, Adapter] = {}
        self._active: Adapter | None = None
        self._hooked: set[str] = set()
        self._heads: dict[tuple[str, str], TunedHead] = {}
        self._lock = threading.RLock()

    def __repr__(self) -> str:
        return f"AdapterSwitch({self.base.model!r}, adapters={list(self.adapters)})"

    def add(self, name: str, folder: str | Path) -> AdapterSwitch:
        """Load an adapter. Returns the switch.

        Parameters
        ----------
        name : str
            What to call it here.
        folder : path
            A folder that was tuned with ``method="lora"``, or its ``adapter`` folder.

        Raises
        ------
        ModelError
            No adapter, or one for another base.
        InvalidInputError
            The name is taken.
        """
        if not isinstance(name, str) or not name or name in self.adapters:
            raise InvalidInputError(
                f"an adapter's name must be a new string; got {name!r}, there are {list(self.adapters)}"
            )
        place = Path(folder).expanduser()
        settings, arrays, digest = read_adapter(place)
        ours = base_digest(self.base)
        if digest != ours:
            raise ModelError(
                f"the adapter in {place} is for the base {digest} ({settings.get('base_model_name_or_path')}), and this is "
                f"{ours} ({self.base.model}). An adapter is of use over its own base alone; give that one."
            )
        with self._lock:
            self.adapters[name] = self._read(place, settings, arrays)
        return self

    @contextmanager
    def use(self, name: str | None) -> Iterator[SentenceEncoder]:
        """Apply an adapter (None: the base alone) inside the block, and yield the loaded base; other threads wait.

        The base does not know of the adapter: do not store its vectors. :meth:`encoder` gives an encoder that can be.
        """
        adapter = None if name is None else self._adapter(name)
        with self._lock:
            before, self._active = self._active, adapter
            try:
                yield self.base
            finally:
                self._active = before

    def encoder(self, name: str | None) -> AdaptedEncoder:
        """Return the base with an adapter (None: without) as an encoder, which shares the loaded base."""
        return AdaptedEncoder(self, name, "" if name is None else self._adapter(name).digest)

    def rewards(self, name: str, data: PreferenceDataset) -> NDArray[np.float64]:
        """Return the rewards of all responses by an adapter that was tuned on pairs, (n_responses,)."""
        return self._head(name, "bradley-terry").rewards(data)

    def reward(self, name: str, prompts: str | Sequence[str], responses: Sequence[str]) -> NDArray[np.float64]:
        """Return rewards of responses to one prompt, or to one each, (n,)."""
        return self._head(name, "bradley-terry").reward(prompts, responses)

    def domain_probabilities(self, name: str, prompts: Sequence[str]) -> NDArray[np.float64]:
        """Return the probability of each domain by an adapter that was tuned on domains, (n, n_domains)."""
        return self._head(name, "domain").probabilities(prompts)

    def _adapter(self, name: str) -> Adapter:
        if name not in self.adapters:
            raise unknown_name("adapter", name, self.adapters)
        return self.adapters[name]

    def _head(self, name: str, objective: str) -> TunedHead:
        folder = self._adapter(name).folder
        key = (name, objective)
        if key not in self._heads:
            self._heads[key] = TunedHead(folder, self.encoder(name), objective)
            tuned = read_facts(folder)["config"]
            wanted, ours = (tuned["max_length"], tuned["truncation"]), (self.base.token_limit, self.base.truncation)
            if wanted != ours:
                del self._heads[key]
                raise InvalidInputError(
                    f"the head of {name!r} was tuned on texts cut to {wanted[0]} tokens ({wanted[1]}), and this base reads "
                    f"{ours[0]} ({ours[1]}). Make the switch over TunedEncoder.load(folder).base_encoder()."
                )
        return self._heads[key]

    def _read(self, folder: Path, settings: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Adapter:
        import torch

        transformer = self.base._load().model[0].auto_model
        modules = dict(transformer.named_modules())
        sides: dict[str, dict[str, Any]] = {}
        for key, array in arrays.items():
            found = _KEY.match(key)
            if found is None or found["layer"] not in modules:
                raise ModelError(f"{folder}: the adapter's array {key!r} belongs to no layer of {self.base.model!r}")
            sides.setdefault(found["layer"], {})[found["side"]] = torch.from_numpy(np.array(array, dtype=np.float32))
        _refuse_unknown_kinds(folder, settings)
        factors = {}
        for layer, pair in sides.items():
            if set(pair) != {"A", "B"}:
                raise ModelError(f"{folder}: the adapter has only one of A and B for {layer}. Save it again.")
            rank = pair["A"].shape[0]
            root = settings.get("use_rslora", False)
            scale = float(settings["lora_alpha"]) / (rank**0.5 if root else rank)
            factors[layer] = (pair["A"].T.contiguous(), pair["B"].T.contiguous() * scale)
            if layer not in self._hooked:
                modules[layer].register_forward_hook(self._hook(layer))
                self._hooked.add(layer)
        digest = hashlib.blake2b(digest_size=16)
        for layer in sorted(factors):
            digest.update(layer.encode())
            for side in factors[layer]:
                digest.update(side.contiguous().numpy().tobytes())
        return Adapter(folder, factors, sum(a.size for a in arrays.values()), digest.hexdigest())

    def _hook(self, layer: str) -> Any:
        def add(module: Any, args: Any, output: Any) -> Any:
            pair = None if self._active is None else self._active.factors.get(layer)
            # None leaves the output as it is
            return None if pair is None else output + (args[0] @ pair[0]) @ pair[1]

        return add


class AdaptedEncoder(Encoder):
    """The base of a switch with one of its adapters, as an encoder with a fingerprint of its own."""

    registered_name = "adapted"

    def __init__(self, switch: AdapterSwitch, name: str | None, digest: str) -> None:
        self.switch, self.name, self.digest = switch, name, digest
        self.truncation = switch.base.truncation

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Those of the base."""
        return self.switch.base.layers

    @property
    def default_layers(self) -> tuple[Layer, ...]:
        """Those of the base."""
        return self.switch.base.default_layers

    @property
    def token_limit(self) -> int | None:
        """That of the base."""
        return self.switch.base.token_limit

    def dim(self, layer: Layer) -> int:
        """Width of one layer's vectors."""
        return self.switch.base.dim(layer)

    def encode(
        self, texts: Sequence[str], layers: Sequence[Layer] | None = None, *, progress: Step | None = None
    ) -> dict[Layer, NDArray[np.float32]]:
        """Encode texts with the adapter; see :meth:`Encoder.encode`."""
        with self.switch.use(self.name) as base:
            return base.encode(texts, layers, progress=progress)

    def fingerprint(self) -> dict[str, Any]:
        """That of the base, and the adapter's digest."""
        base = self.switch.base.fingerprint()
        return {**base, "adapter": self.digest} if self.digest else base

    def count_tokens(self, texts: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Count tokens; see :meth:`Encoder.count_tokens`."""
        return self.switch.base.count_tokens(texts)

    def effective_digests(self, texts: Sequence[str]) -> list[bytes]:
        """Digest of what is read of each text; see :meth:`Encoder.effective_digests`."""
        return self.switch.base.effective_digests(texts)

    def n_parameters(self) -> int:
        """Count the weights of the base and of the adapter."""
        added = 0 if self.name is None else self.switch.adapters[self.name].n_parameters
        return self.switch.base.n_parameters() + added

    def spec(self) -> dict[str, Any]:
        """Refuse: an encoder in a file cannot be one that shares a base in memory."""
        raise InvalidInputError(
            "an adapted encoder lives in memory; to save what uses it, take TunedEncoder.load(folder).encoder(), which has "
            "the adapter merged in"
        )

    def __repr__(self) -> str:
        return f"AdaptedEncoder({self.switch.base.model!r}, adapter={self.name!r})"


def _refuse_unknown_kinds(folder: Path, settings: dict[str, Any]) -> None:
    strange = [name for name in ("use_dora", "alpha_pattern", "rank_pattern", "fan_in_fan_out") if settings.get(name)]
    if settings.get("peft_type") != "LORA" or settings.get("bias", "none") != "none":
        strange.append(f"peft_type {settings.get('peft_type')}, bias {settings.get('bias')}")
    if strange:
        raise ModelError(f"{folder}: only plain LoRA adapters can be switched, and this one has {', '.join(strange)}.")
