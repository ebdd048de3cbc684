"""A loaded sentence-transformers model, fed with token ids: the part of the encoder that needs torch."""

from __future__ import annotations

import re
import threading
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from embedrm.encoders.base import Layer
from embedrm.encoders.batching import padded_width
from embedrm.encoders.files import STATIC, TRANSFORMER, ModelFiles
from embedrm.encoders.hidden import HiddenMeans, find_blocks, masked_mean
from embedrm.encoders.onednn import use_onednn
from embedrm.encoders.quiet import quiet_loading
from embedrm.encoders.tokens import TextTokens
from embedrm.errors import ModelError

# How a loader says that weights were not in the file and were made up at random (transformers 5, transformers 4).
_MADE_UP = re.compile(r"^\s*(\S+)\s*\|\s*(?:MISSING|MISMATCH)", re.MULTILINE)
_MADE_UP_LIST = re.compile(r"newly initialized[^\[]*\[([^\]]*)\]")


def _load(files: ModelFiles, build: Any, dtype: Any) -> Any:
    if files.kind == STATIC and not (files.folder / "modules.json").is_file():
        # sentence-transformers takes such a folder, which lists no modules, for a transformer
        from sentence_transformers.models import Normalize, StaticEmbedding

        rest = [Normalize()] if files.normalises else []
        return build(modules=[StaticEmbedding.load(str(files.folder), local_files_only=True), *rest], device="cpu")
    return build(
        str(files.folder),
        device="cpu",
        local_files_only=True,
        trust_remote_code=False,
        # float32 whatever the file holds: half precision is slow on a CPU, and another vector.
        model_kwargs={"use_safetensors": True, "torch_dtype": dtype},
    )


class Backbone:
    """A model in memory.

    Parameters
    ----------
    files : ModelFiles
        Where it is. Nothing is downloaded and no code of the model is run.

    Attributes
    ----------
    model : SentenceTransformer
        On the CPU, in float32, in evaluation mode.

    Raises
    ------
    ModelError
        It cannot be loaded, or some of its weights are not in its files.
    """

    def __init__(self, files: ModelFiles) -> None:
        with warnings.catch_warnings():
            # in a notebook without widgets, tqdm warns of them when transformers imports it; no bar of it is ever shown
            warnings.filterwarnings("ignore", message="IProgress not found")
            import torch
            from sentence_transformers import SentenceTransformer

        self.files = files
        self._lock = threading.Lock()
        try:
            with quiet_loading() as messages:
                self.model = _load(files, SentenceTransformer, torch.float32)
        except Exception as err:  # the loaders raise whatever their formats raise
            reason = (str(err).strip().splitlines() or [""])[0][:300]
            raise ModelError(
                f"cannot load the model in {files.folder}: {type(err).__name__}: {reason}. Check that it is complete and "
                "that this version of sentence-transformers knows its architecture."
            ) from err
        self.model.eval().float()
        self._first = self.model[0]
        self._rest = list(self.model.children())[1:]
        self._refuse_made_up("\n".join(messages))
        if files.kind == TRANSFORMER:
            use_onednn(self._first.auto_model, lambda: self._first.auto_model(**_probe()).last_hidden_state)
        self._means: HiddenMeans | None = None
        self._layers_ready = False

    @property
    def tokenizer(self) -> Any:
        """The fast tokenizer itself (an object of the ``tokenizers`` package)."""
        tokenizer = self.model.tokenizer
        backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
        if not hasattr(backend, "encode_batch"):
            raise ModelError(
                f"{self.files.folder}: the tokenizer {type(tokenizer).__name__} has no fast version, which exact token "
                "counts need. Use a model with a tokenizer.json."
            )
        return backend

    def final_dim(self) -> int:
        """Width of the model's own sentence embedding."""
        ask = getattr(self.model, "get_embedding_dimension", None) or self.model.get_sentence_embedding_dimension
        return int(ask())

    def vectors(
        self, batch: Sequence[list[int]], layers: Collection[Layer], tokens: TextTokens
    ) -> dict[Layer, npt.NDArray[np.float32]]:
        """Run one batch.

        Parameters
        ----------
        batch : sequence of list of int
            Token ids, special tokens included, already shortened; none empty unless the model is a static embedding.
        layers : collection of Layer
        tokens : TextTokens
            The tokenizer the ids come from.

        Returns
        -------
        dict of Layer to ndarray of shape (len(batch), dim), float32
        """
        import torch

        with torch.inference_mode(), self._lock:  # hooks of two threads on one model would see each other's states
            if self.files.kind == STATIC:
                found: dict[Any, Any] = {"final": self._finish(self._first(self._flat(batch)))}
            else:
                found = self._transform(batch, layers, tokens)
            return {layer: found[layer].float().numpy() for layer in layers}

    def _transform(self, batch: Sequence[list[int]], layers: Collection[Layer], tokens: TextTokens) -> dict[Any, Any]:
        features, weights = self._padded(batch, tokens)
        n_layers = self.files.n_layers or 0
        wanted = {layer for layer in layers if layer != "final"}
        finish = "final" in layers or n_layers in wanted
        if wanted and not self._layers_ready:
            self._prepare_layers(n_layers)
        if self._means is None or not wanted - {n_layers}:
            output = self._first(features)
            means: dict[Any, Any] = {}
            states = output.get("all_layer_embeddings") if wanted - {n_layers} else None
            if states is not None:
                means = {k: masked_mean(states[k], weights) for k in wanted - {n_layers}}
        else:
            output, means = self._means.run(lambda: self._first(features), weights, wanted - {n_layers}, finish=finish)
        if n_layers in wanted:
            means[n_layers] = masked_mean(output["token_embeddings"], weights)
        if "final" in layers:
            means["final"] = self._finish(output)
        return means

    def _finish(self, features: Any) -> Any:
        for module in self._rest:
            features = module(features)
        embedding = features["sentence_embedding"]
        cut = getattr(self.model, "truncate_dim", None)
        return embedding if cut is None else embedding[:, :cut]

    def _padded(self, batch: Sequence[list[int]], tokens: TextTokens) -> tuple[dict[str, Any], Any]:
        """Pad on the right, whatever the tokenizer prefers: then no position of a text depends on its neighbours."""
        import torch

        tokenizer = self.model.tokenizer
        pad = tokenizer.pad_token_id
        lengths = np.array([len(ids) for ids in batch])
        shape = (len(batch), padded_width(int(lengths.max()), self.files.positions))
        ids = np.full(shape, 0 if pad is None else pad, dtype=np.int64)
        for row, text in enumerate(batch):
            ids[row, : len(text)] = text
        mask = np.arange(shape[1]) < lengths[:, None]
        features = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask.astype(np.int64))}
        if "token_type_ids" in tokenizer.model_input_names:
            types = np.zeros(shape, dtype=np.int64)
            if tokens.body_type or any(tokens.prefix_types) or any(tokens.suffix_types):
                for row, length in enumerate(lengths.tolist()):
                    types[row, :length] = tokens.types(length)
            features["token_type_ids"] = torch.from_numpy(types)
        if tokens.prompt_length:
            features["prompt_length"] = tokens.prompt_length
        weights = torch.from_numpy((mask / lengths[:, None]).astype(np.float32)[:, None, :])
        return features, weights

    @staticmethod
    def _flat(batch: Sequence[list[int]]) -> dict[str, Any]:
        import torch

        offsets = np.cumsum([0, *(len(ids) for ids in batch[:-1])])
        ids = np.array([token for text in batch for token in text], dtype=np.int64)
        return {"input_ids": torch.from_numpy(ids), "offsets": torch.from_numpy(offsets)}

    def _prepare_layers(self, n_layers: int) -> None:
        """Find the blocks, and check on a few tokens that what enters them is what transformers calls hidden states."""
        import torch

        model = self._first.auto_model
        blocks = find_blocks(model, n_layers)
        some = _probe()
        weights = torch.full((2, 1, 5), 0.2)
        states = model(**some, output_hidden_states=True).hidden_states
        if (
            getattr(self._first, "module_output_name", "token_embeddings") != "token_embeddings"
            or len(states) != n_layers + 1
        ):
            raise ModelError(
                f"{self.files.folder}: the hidden layers of this model cannot be read; use layers=('final',)"
            )
        want = [masked_mean(state, weights) for state in states[:-1]]
        if blocks is not None and _agrees(HiddenMeans(blocks), lambda: model(**some), weights, want):
            self._means = HiddenMeans(blocks)
        if self._means is None:
            # An unusual architecture (blocks shared or called in another layout): let transformers collect the states.
            model.config.output_hidden_states = True
        self._layers_ready = True

    def _refuse_made_up(self, said: str) -> None:
        names = _MADE_UP.findall(said)
        for listed in _MADE_UP_LIST.findall(said):
            names += [name.strip(" '\"") for name in listed.split(",")]
        # Token states do not pass a pooler, so many a model is saved without its weights.
        names = [name for name in names if "pooler" not in name]
        if self.files.kind == TRANSFORMER and names:
            raise ModelError(
                f"the weights in {self.files.folder} are incomplete: {len(names)} of the model's arrays, {names[0]} among "
                "them, are missing or of another shape, and would be random. Download or save the model again."
            )


def _agrees(tap: HiddenMeans, forward: Callable[[], Any], weights: Any, want: list[Any]) -> bool:
    import torch

    try:
        _, means = tap.run(forward, weights, range(len(want)), finish=True)
    except RuntimeError:  # states of another layout
        return False
    return len(means) == len(want) and all(torch.allclose(means[k], state, atol=1e-5) for k, state in enumerate(want))


def _probe() -> dict[str, Any]:
    """Return two short rows of the only two token ids that every vocabulary has."""
    import torch

    ids = torch.tensor([[0, 1, 1, 0, 1], [1, 0, 0, 1, 1]])
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


@contextmanager
def torch_threads(threads: int | None) -> Iterator[None]:
    """Let torch use this many threads inside the block; None leaves its setting alone."""
    if threads is None:
        yield
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
