"""A loaded causal language model, fed with token ids: the part of causal encoders and language models that needs torch."""

from __future__ import annotations

import inspect
import re
import threading
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from embedrm.encoders.files import ModelFiles
from embedrm.encoders.quiet import quiet_loading
from embedrm.errors import ModelError

# How a loader says that weights were not in the file and were made up at random (transformers 5, transformers 4).
_MADE_UP = re.compile(r"^\s*(\S+)\s*\|\s*(?:MISSING|MISMATCH)", re.MULTILINE)
_MADE_UP_LIST = re.compile(r"newly initialized[^\[]*\[([^\]]*)\]")
# Sums of products in another order: far above rounding, far below any mistake.
CLOSE = 1e-4


class CausalBackbone:
    """A causal language model in memory, frozen, in float32 on the CPU.

    Parameters
    ----------
    files : ModelFiles
        Where it is. Nothing is downloaded and no code of the model is run.

    Attributes
    ----------
    model : transformers.PreTrainedModel
        With its language modelling head, in evaluation mode; no parameter takes a gradient.
    tokenizer : transformers.PreTrainedTokenizerFast
    bos_id : int or None
        The token before every text: the tokenizer's own beginning of a text, or where it has none its end of a text,
        which models trained on packed texts have read before each of them; None where it has neither.
    eos_id : int or None

    Raises
    ------
    ModelError
        It cannot be loaded, is no causal language model, or some of its weights are not in its files.
    """

    def __init__(self, files: ModelFiles) -> None:
        with warnings.catch_warnings():
            # in a notebook without widgets, tqdm warns of them when transformers imports it; no bar of it is ever shown
            warnings.filterwarnings("ignore", message="IProgress not found")
            import torch
            from transformers import AutoModelForCausalLM

        self.files = files
        self.lock = threading.Lock()
        if files.config.get("is_encoder_decoder"):
            raise ModelError(f"{files.folder} holds a model with an encoder and a decoder; a causal language model is "
                             "needed.")  # fmt: skip
        try:
            with quiet_loading() as messages:
                # float32 whatever the file holds: half precision is slow on a CPU, and another vector.
                self.model = AutoModelForCausalLM.from_pretrained(
                    str(files.first),
                    local_files_only=True,
                    trust_remote_code=False,
                    use_safetensors=True,
                    torch_dtype=torch.float32,
                )
        except Exception as err:  # the loaders raise whatever their formats raise
            reason = (str(err).strip().splitlines() or [""])[0][:300]
            raise ModelError(
                f"cannot load a causal language model from {files.folder}: {type(err).__name__}: {reason}. Check that it is "
                "complete, is one, and that this version of transformers knows its architecture."
            ) from err
        self._refuse_made_up("\n".join(messages))
        self.tokenizer = load_tokenizer(files)
        self.model.eval().float().requires_grad_(False)
        self._takes = set(inspect.signature(self.core.forward).parameters)
        self.bos_id = bos_of(self.tokenizer)
        self.eos_id = _first_id(self.tokenizer.eos_token_id)
        self._refuse_two_way()

    @property
    def core(self) -> Any:
        """The transformer without the language modelling head: what it returns is what the head reads."""
        return self.model.base_model

    @property
    def backend(self) -> Any:
        """The fast tokenizer itself (an object of the ``tokenizers`` package)."""
        return fast_backend(self.tokenizer, self.files)

    def probe(self) -> Any:
        """Return the states of two short rows of the only two token ids that every vocabulary has."""
        ids, mask = self.pad([[0, 1, 1, 0, 1], [1, 0, 0, 1, 1]])
        return self.run(ids, mask).last_hidden_state

    def output_embeddings(self) -> npt.NDArray[np.float32]:
        """Return the table of the language modelling head, (vocabulary, dim)."""
        head = self.model.get_output_embeddings()
        if head is None:
            raise ModelError(f"{self.files.folder}: the model {type(self.model).__name__} has no output embeddings.")
        table: npt.NDArray[np.float32] = head.weight.detach().float().numpy()
        return table

    def run(
        self,
        ids: Any,
        mask: Any,
        *,
        past: Any = None,
        past_mask: Any = None,
        every_layer: bool = False,
        keep: bool = False,
    ) -> Any:
        """Run the transformer, without its head, on rows padded on the right.

        Parameters
        ----------
        ids, mask : tensor of shape (n, tokens), int64
            Token ids, and 1 where there is a token.
        past : cache, optional
            Keys and values of n prefixes, see :meth:`select`; ``past_mask`` (n, prefix tokens) says which places are
            filled.
        every_layer : bool
            Whether ``hidden_states`` is wanted.
        keep : bool
            Whether ``past_key_values`` is wanted.

        Returns
        -------
        output of the model
            ``last_hidden_state`` (n, tokens, dim); and what was asked for.
        """
        import torch

        whole, given = mask, {}
        if past is not None:
            whole = torch.cat([past_mask, mask], dim=1)
            given["past_key_values"] = past
            if "position_ids" in self._takes:
                places = past_mask.sum(dim=1, keepdim=True) + torch.arange(ids.shape[1])
                # padding may lie beyond the last position that there is
                most = self.files.positions
                given["position_ids"] = places if most is None else places.clamp(max=most - 1)
        return self.core(
            input_ids=ids,
            attention_mask=whole,
            output_hidden_states=every_layer,
            use_cache=keep or past is not None,
            return_dict=True,
            **given,
        )

    def pad(self, rows: Sequence[Sequence[int]], width: int | None = None) -> tuple[Any, Any]:
        """Return ids and mask of rows, padded on the right whatever the tokenizer prefers.

        Then no position of a text depends on its neighbours, and the token at place t is the t-th.
        """
        import torch

        lengths = np.array([len(row) for row in rows])
        ids = np.zeros((len(rows), width or int(lengths.max())), dtype=np.int64)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = row
        mask = np.arange(ids.shape[1]) < lengths[:, None]
        return torch.from_numpy(ids), torch.from_numpy(mask.astype(np.int64))

    @staticmethod
    def select(past: Any, rows: Any) -> Any:
        """Return a cache of keys and values with a row for each of ``rows``; the given one is left as it was."""
        from transformers import DynamicCache

        chosen = DynamicCache()
        for number, layer in enumerate(past.layers):
            chosen.update(layer.keys[rows], layer.values[rows], number)
        return chosen

    def can_share(self) -> bool:
        """Whether continuing a prefix from its keys and values gives the states of the whole text.

        Tried on three short rows whose prefixes have two lengths; models whose attention looks back over a window, or
        that keep something else than keys and values, are not tried.
        """
        import torch

        config = self.files.config
        windows = [kind for kind in config.get("layer_types") or () if kind != "full_attention"]
        if windows or (config.get("sliding_window") and config.get("use_sliding_window", True)):
            return False
        rows = [[0, 1, 1, 0, 1, 0], [1, 0, 1, 1], [1, 0, 1, 0, 0]]
        starts, of, cut = [rows[0][:4], rows[1][:3]], [0, 1, 1], [4, 3, 3]
        try:
            with torch.inference_mode():
                ids, mask = self.pad(rows)
                whole = self.run(ids, mask).last_hidden_state
                start_ids, start_mask = self.pad(starts)
                past = self.run(start_ids, start_mask, keep=True).past_key_values
                ids, mask = self.pad([row[n:] for row, n in zip(rows, cut)])
                rest = self.run(ids, mask, past=self.select(past, of), past_mask=start_mask[of]).last_hidden_state
                close = CLOSE * max(1.0, float(whole.abs().max()))
                return all(
                    torch.allclose(rest[i, : len(row) - n], whole[i, n : len(row)], atol=close, rtol=0.0)
                    for i, (row, n) in enumerate(zip(rows, cut))
                )
        except Exception:  # an architecture with another kind of cache: whole texts it is
            return False

    def _refuse_two_way(self) -> None:
        """Refuse a model whose states depend on what comes after them: some encoders load with a causal head."""
        import torch

        with torch.inference_mode():
            ids, mask = self.pad([[0, 1, 1], [0, 1, 0]])
            states = self.run(ids, mask).last_hidden_state[:, :2]
        if not torch.allclose(states[0], states[1], atol=CLOSE * max(1.0, float(states.abs().max())), rtol=0.0):
            raise ModelError(
                f"{self.files.folder} holds a model ({type(self.model).__name__}) whose states depend on later tokens; a "
                "causal language model is needed. Use the encoder 'sentence' for it."
            )

    def _refuse_made_up(self, said: str) -> None:
        names = _MADE_UP.findall(said)
        for listed in _MADE_UP_LIST.findall(said):
            names += [name.strip(" '\"") for name in listed.split(",")]
        if names:
            raise ModelError(
                f"the weights in {self.files.folder} are incomplete: {len(names)} of the model's arrays, {names[0]} among "
                "them, are missing or of another shape, and would be random. Give a whole causal language model."
            )


def load_tokenizer(files: ModelFiles) -> Any:
    """Return the transformers tokenizer of a model; the model itself is not loaded.

    Raises
    ------
    ModelError
        It cannot be loaded.
    """
    from transformers import AutoTokenizer

    try:
        with quiet_loading():
            return AutoTokenizer.from_pretrained(str(files.first), local_files_only=True, trust_remote_code=False)
    except Exception as err:  # as for the model
        reason = (str(err).strip().splitlines() or [""])[0][:300]
        raise ModelError(
            f"cannot load the tokenizer in {files.folder}: {type(err).__name__}: {reason}. Check that it is complete."
        ) from err


def fast_backend(tokenizer: Any, files: ModelFiles) -> Any:
    """Return the ``tokenizers`` object of a tokenizer; ModelError where it has none."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not hasattr(backend, "encode_batch"):
        raise ModelError(
            f"{files.folder}: the tokenizer {type(tokenizer).__name__} has no fast version, which exact token counts need. "
            "Use a model with a tokenizer.json."
        )
    return backend


def bos_of(tokenizer: Any) -> int | None:
    """Return the token to read a text after: the beginning of a text, else the end of one; None without either."""
    return _first_id(tokenizer.bos_token_id, tokenizer.eos_token_id)


def _first_id(*found: Any) -> int | None:
    return next((int(one) for one in found if isinstance(one, int)), None)
