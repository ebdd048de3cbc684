"""Static token tables: StaticEmbedding of sentence-transformers, with tables of model2vec among them."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np

from embedrm.encoders.files import STATIC, ModelFiles
from embedrm.encoders.merged import ENCODER_KINDS
from embedrm.errors import ModelError
from embedrm.merging.kinds.base import EncoderKind, EncoderTensors, Entries, module_places, weight_files
from embedrm.merging.safetensor_files import Array, SafetensorFiles
from embedrm.merging.vocabulary import Vocabulary

TABLE = "embedding.weight"


@ENCODER_KINDS.register(STATIC)
class StaticKind(EncoderKind):
    """Static token tables: one row a token, whose mean is the embedding."""

    def tensors(self, files: ModelFiles) -> EncoderTensors:
        """Return the table as one tensor, a row for each token id; a model2vec mapping and weights are multiplied out."""
        found = SafetensorFiles(weight_files(files.first))
        table, kind = _folded(found, files)
        parts: dict[str, Mapping[str, Array]] = {"": {TABLE: table}}
        entries: Entries = {TABLE: (kind, table.shape)}
        for prefix, place in module_places(files).items():
            if prefix:
                parts[prefix] = further = SafetensorFiles(weight_files(place))
                entries.update({prefix + name: entry for name, entry in further.entries.items()})
        return EncoderTensors(parts, entries)

    def table(self, entries: Entries) -> str | None:
        """Return the name of the table."""
        return TABLE

    def vocabulary(self, files: ModelFiles) -> Vocabulary:
        """Return the vocabulary of ``tokenizer.json``, which is what is loaded."""
        from tokenizers import Tokenizer

        path = files.first / "tokenizer.json"
        if not path.is_file():
            raise ModelError(f"{path} is missing, and nothing else says which token a row is of. Save the model again.")
        return Vocabulary.of(json.loads(Tokenizer.from_file(str(path)).to_str()))


def _folded(found: SafetensorFiles, files: ModelFiles) -> tuple[Array, str]:
    if TABLE in found:
        return found[TABLE], found.entries[TABLE][0]
    if "embeddings" not in found:
        raise ModelError(f"{files.first} holds no token table ({TABLE!r} or 'embeddings'). Save the model again.")
    table, kind = found["embeddings"], found.entries["embeddings"][0]
    if table.dtype.kind != "f":
        raise ModelError(f"{files.first}: the table holds whole numbers, which cannot be averaged. Save it in float32.")
    if "mapping" in found:
        table = table[np.asarray(found["mapping"], dtype=np.int64)]
    if "weights" in found:
        # in float32 at least, as sentence-transformers multiplies
        wide = np.promote_types(table.dtype, np.float32)
        table = (table.astype(wide) * np.asarray(found["weights"])[:, None]).astype(wide)
        kind = {"<f4": "F32", "<f8": "F64"}[wide.str]
    return table, kind
