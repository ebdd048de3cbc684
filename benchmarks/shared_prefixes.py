"""What reading a common beginning once saves: many responses to one prompt, encoded jointly with it.

Command: python benchmarks/shared_prefixes.py

The model is a GPT-2 of 4 layers and width 256 with random weights, written to a temporary folder and read by CausalEncoder
as any other; prompts and responses are random words, one token each. Both ways give last-token vectors of every text, from
the same texts, in alternating order; a ratio is a median of paired runs. Beside the time stand the tokens that went through
the model (without padding), which bound what can be saved, and the largest difference between the two ways' vectors as a
share of the largest value, which the encoder states to be at most 1e-4. Where nothing is shared (one response to each
prompt) the row tells what looking for it costs.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from _harness import command, finish, paired_seconds, parser, ratio_cell

from embedrm import Report
from embedrm.encoders.causal import CausalEncoder
from embedrm.encoders.causal_prefixes import shared_prefixes
from embedrm.reporting import collect

# prompts, responses to each, tokens of a prompt, tokens of a response
CASES = ((8, 16, 256, 64), (8, 16, 64, 64), (32, 4, 256, 64), (64, 2, 256, 64), (128, 1, 256, 64))
SMOKE = ((2, 4, 24, 6), (4, 1, 24, 6))
WORDS = 2000
TOLERANCE = 1e-4


def write_model(folder: Path, a: argparse.Namespace) -> None:
    """Write a random model with one token for each word; the generator that all of torch shares is left as it was."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    vocab = {token: i for i, token in enumerate(["<bos>", "<eos>", *(f"w{i}" for i in range(WORDS))])}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="<eos>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<eos>", model_max_length=512
    ).save_pretrained(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = GPT2Config(
            vocab_size=len(vocab), n_layer=a.layers, n_embd=a.width, n_head=max(1, a.width // 64), n_positions=512,
            bos_token_id=0, eos_token_id=1,
        )  # fmt: skip
        GPT2LMHeadModel(config).save_pretrained(folder)


def texts_of(case: tuple[int, int, int, int]) -> list[str]:
    """Write every prompt with each of its responses; a response has half to all of its tokens."""
    n_prompts, n_responses, prompt, response = case
    rng = np.random.default_rng(0)

    def words(n: int) -> str:
        return " ".join(f"w{i}" for i in rng.integers(0, WORDS, n))

    prompts = [words(prompt) for _ in range(n_prompts)]
    return [
        f"{one} {words(int(rng.integers(response // 2, response + 1)))}" for one in prompts for _ in range(n_responses)
    ]


def measure(case: tuple[int, int, int, int], ways: dict[str, CausalEncoder], repeats: int) -> dict[str, Any]:
    """One row of the table."""
    texts = texts_of(case)
    last = ways["whole"].layers[-2]
    found = {name: encoder.encode(texts, (last,))[last] for name, encoder in ways.items()}
    seconds = paired_seconds({name: lambda e=e: e.encode(texts, (last,)) for name, e in ways.items()}, repeats)
    ids = [[0, *(int(word[1:]) + 2 for word in text.split())] for text in texts]
    whole = sum(map(len, ids))
    saved = sum(group.length * (len(group.rows) - 1) for group in shared_prefixes(ids))
    n_prompts, n_responses, prompt, response = case
    return {
        "case": f"{n_prompts} prompts of {prompt} tokens, {n_responses} response(s) of {response // 2} to {response}",
        "whole": float(np.median(seconds["whole"])),
        "shared": float(np.median(seconds["shared"])),
        "faster": ratio_cell(seconds["whole"], seconds["shared"]),
        "tokens": whole / (whole - saved),
        "difference": float(np.abs(found["whole"] - found["shared"]).max() / np.abs(found["whole"]).max()),
    }


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--layers", type=int, default=4)
    options.add_argument("--width", type=int, default=256)
    a = options.parse_args()
    cases = SMOKE if a.smoke else CASES
    if a.smoke:
        a.layers, a.width, a.repeats = 2, 32, 2
    warnings.simplefilter("ignore")
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        write_model(Path(folder), a)
        ways = {name: CausalEncoder(folder, share_prefixes=name == "shared") for name in ("whole", "shared")}
        if not ways["shared"].shares_prefixes:
            raise SystemExit("the model did not pass the encoder's trial of sharing")
        rows = [measure(case, ways, a.repeats) for case in cases]
    most = max(row["difference"] for row in rows)
    told = [f"{row['case']}: {row['faster']['value']:.2f} times as fast as whole texts" for row in rows]
    told.append(
        f"largest difference between the vectors: {most:.1e} of the largest value "
        f"({'within' if most <= TOLERANCE else 'BEYOND'} {TOLERANCE:g})"
    )
    report = Report(
        "benchmark",
        "Reading a common beginning once",
        summary=told,
        provenance=collect(started=started, seeds=0, command=command(__file__, a)),
    )
    columns = [
        {"key": "case", "label": "texts"},
        {"key": "whole", "label": "whole texts", "kind": "seconds", "note": "median"},
        {"key": "shared", "label": "shared", "kind": "seconds", "note": "median"},
        {"key": "faster", "label": "shared = 1", "kind": "interval", "digits": 2, "note": "whole texts; paired runs"},
        {
            "key": "tokens",
            "label": "tokens, shared = 1",
            "kind": "number",
            "digits": 2,
            "note": "read, without padding",
        },
        {
            "key": "difference",
            "label": "difference",
            "kind": "text",
            "note": "largest, as a share of the largest value",
        },
    ]
    shown = [{**row, "difference": f"{row['difference']:.1e}"} for row in rows]
    caption = f"{a.layers} layers, width {a.width}, random weights, float32; {a.repeats} paired runs."
    table = {"name": "main", "title": "Shared and whole", "columns": columns, "rows": shown, "caption": caption}
    report.add_section("Encoding", tables=[table])
    finish(report, "shared_prefixes", a)


if __name__ == "__main__":
    main()
