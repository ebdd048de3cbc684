"""One base in memory, several low-rank adapters over it, and a switch between them that leaves no trace."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedrm.encoders.base import Layer
from embedrm.encoders.sentence import SentenceEncoder
from embedrm.errors import InvalidInputError, ModelError, unknown_name
from embedrm.tuning.base import base_digest
from embedrm.tuning.saving import read_adapter

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
    """

    folder: Path
    factors: dict[str, tuple[Any, Any]]
    n_parameters: int

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
        The encoder that the adapters were tuned from, or its name.

    Attributes
    ----------
    encoder : SentenceEncoder
        The base.
    adapters : dict of str to Adapter
        Those added, by name.

    Examples
    --------
    >>> switch = AdapterSwitch("all-MiniLM-L6-v2")
    >>> switch.add("science", "runs/science")  # doctest: +SKIP
    >>> switch.encode("science", ["Why is the sky blue?"])  # doctest: +SKIP
    """

    def __init__(self, base: SentenceEncoder | str) -> None:
        self.encoder = SentenceEncoder(base) if isinstance(base, str) else base
        if not isinstance(self.encoder, SentenceEncoder):
            raise InvalidInputError(
                f"AdapterSwitch needs a SentenceEncoder or the name of one, got {type(base).__name__}"
            )
        self.adapters: dict[str, Adapter] = {}
        self._active: Adapter | None = None
        self._hooked: set[str] = set()
        self._lock = threading.RLock()

    def __repr__(self) -> str:
        return f"AdapterSwitch({self.encoder.model!r}, adapters={list(self.adapters)})"

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
        ours = base_digest(self.encoder)
        if digest != ours:
            raise ModelError(
                f"the adapter in {place} is for the base {digest} ({settings.get('base_model_name_or_path')}), and this is "
                f"{ours} ({self.encoder.model}). An adapter is of use over its own base alone; give that one."
            )
        with self._lock:
            self.adapters[name] = self._read(place, settings, arrays)
        return self

    @contextmanager
    def use(self, name: str | None) -> Iterator[SentenceEncoder]:
        """Yield the encoder with an adapter applied; None for the base alone. Other threads wait."""
        if name is not None and name not in self.adapters:
            raise unknown_name("adapter", name, self.adapters)
        with self._lock:
            before = self._active
            self._active = None if name is None else self.adapters[name]
            try:
                yield self.encoder
            finally:
                self._active = before

    def encode(
        self, name: str | None, texts: Sequence[str], layers: Sequence[Layer] | None = None
    ) -> dict[Layer, NDArray[np.float32]]:
        """Encode texts with an adapter, or with the base alone; see :meth:`SentenceEncoder.encode`."""
        with self.use(name) as encoder:
            return encoder.encode(texts, layers)

    def _read(self, folder: Path, settings: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> Adapter:
        import torch

        transformer = self.encoder._load().model[0].auto_model
        modules = dict(transformer.named_modules())
        sides: dict[str, dict[str, Any]] = {}
        for key, array in arrays.items():
            found = _KEY.match(key)
            if found is None or found["layer"] not in modules:
                raise ModelError(f"{folder}: the adapter's array {key!r} belongs to no layer of {self.encoder.model!r}")
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
        return Adapter(folder, factors, sum(a.size for a in arrays.values()))

    def _hook(self, layer: str) -> Any:
        def add(module: Any, args: Any, output: Any) -> Any:
            pair = None if self._active is None else self._active.factors.get(layer)
            # None leaves the output as it is
            return None if pair is None else output + (args[0] @ pair[0]) @ pair[1]

        return add


def _refuse_unknown_kinds(folder: Path, settings: dict[str, Any]) -> None:
    strange = [name for name in ("use_dora", "alpha_pattern", "rank_pattern", "fan_in_fan_out") if settings.get(name)]
    if settings.get("peft_type") != "LORA" or settings.get("bias", "none") != "none":
        strange.append(f"peft_type {settings.get('peft_type')}, bias {settings.get('bias')}")
    if strange:
        raise ModelError(f"{folder}: only plain LoRA adapters can be switched, and this one has {', '.join(strange)}.")
