"""``embedrm encode``: fill the store, so that everything later starts from vectors."""

from __future__ import annotations

import time
from typing import Any

from embedrm.cli import _common as common
from embedrm.cli._common import Console
from embedrm.cli._data import Reading, load
from embedrm.errors import InvalidInputError


def encode(
    paths: common.Paths = None,
    encoder: common.Encoder = None,
    encoder_options: common.EncoderOptions = None,
    layers: common.Layers = None,
    sides: common.Sides = ["response", "prompt"],  # noqa: B006
    store: common.Store = None,
    form: common.Form = "auto",
    columns: common.Columns = None,
    on_error: common.OnError = "raise",
    ties: common.Ties = "auto",
    allow_group_leak: common.GroupLeak = False,
    as_json: common.Json = False,
    quiet: common.Quiet = False,
) -> None:
    """Encode texts into the store. Texts that are there already are not encoded again; an interrupted run goes on."""
    from embedrm.cli._models import make_encoder
    from embedrm.encoding import encode as encode_dataset
    from embedrm.encoding import wanted_layers
    from embedrm.store import EmbeddingStore

    console = Console(quiet, as_json)
    data = load(paths, Reading(form, columns, on_error, ties, allow_group_leak), console)
    chosen = make_encoder(encoder, encoder_options)
    wanted = wanted_layers(chosen, common.layer_choice(layers, sides), tuple(sides))
    kept = common.open_store(store)
    if not isinstance(kept, EmbeddingStore):
        raise InvalidInputError("encode fills a store; name one with --store")
    texts = {
        side: data.prompt_texts()
        if side == "prompt"
        else data.joint_texts()
        if side == "joint"
        else data.response_texts()
        for side in wanted
    }
    plans = {side: kept.plan(chosen, texts[side], side_layers) for side, side_layers in wanted.items()}
    for side, plan in plans.items():
        console.note(f"{side}: {plan['missing']:,} of {plan['unique']:,} different texts are still to be encoded")
    started = time.perf_counter()
    with console.progress() as progress:
        preferences = encode_dataset(
            data,
            chosen,
            layers={side: ",".join(map(str, side_layers)) for side, side_layers in wanted.items()},
            sides=tuple(wanted),
            store=kept,
            progress=progress,
        )
    seconds = time.perf_counter() - started
    truncation = preferences.responses.info["truncation"]
    facts: dict[str, Any] = {
        "store": str(kept.path),
        "encoder": preferences.responses.info["encoder"],
        "data": preferences.responses.info["data"],
        "seconds": round(seconds, 3),
        "sides": {
            side: {
                "layers": [str(layer) for layer in wanted[side]],
                "unique_texts": plan["unique"],
                "stored_before": plan["stored"],
                "encoded": plan["missing"],
                **truncation[side],
            }
            for side, plan in plans.items()
        },
    }
    console.result(facts, _text(facts))


def _text(facts: dict[str, Any]) -> str:
    header = ["side", "layers", "texts", "different", "stored before", "encoded", "tokens", "texts cut", "tokens cut"]
    rows = [
        [
            side,
            ",".join(f["layers"]),
            *(
                f"{f[key]:,}"
                for key in ("texts", "unique_texts", "stored_before", "encoded", "tokens", "truncated", "tokens_cut")
            ),
        ]
        for side, f in facts["sides"].items()
    ]
    lines = [common.table(header, rows), ""]
    for side, f in facts["sides"].items():
        if "pairs_made_identical" in f:
            lines.append(f"pairs whose two {side} texts are the same once cut: {f['pairs_made_identical']:,}")
    lines.append(f"encoder {facts['encoder']['digest']}, store {facts['store']}, {facts['seconds']:.1f} s")
    return "\n".join(lines)
