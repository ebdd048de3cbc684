"""``embedrm tune``: move an encoder by preferences, domains or plain text, on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from embedrm.cli import _common as common
from embedrm.cli._common import Console
from embedrm.cli._data import Reading
from embedrm.cli._guard import keep
from embedrm.errors import InvalidInputError

if TYPE_CHECKING:
    from embedrm.progress import Progress
    from embedrm.tuning import TunedEncoder, TuningConfig, TuningEstimate

_TUNING_PANEL = "Tuning"
# Parameters of the configuration that are options of their own.
_OPTIONS = {
    "base": "--base",
    "method": "--method",
    "objective": "--objective",
    "random_state": "--random-state",
}
_LABELLED = ("bradley-terry", "domain")


class TuneCommand(TyperCommand):
    """Lists what ``--set`` takes at the end of the help, and only there, since that imports it."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help with the listing as its end."""
        self.epilog = "\n\n".join(line.replace("[", "\\[") for line in _listing())
        super().format_help(ctx, formatter)


def _listing() -> list[str]:
    from embedrm.tuning.config import LEARNING_RATES, TuningConfig

    defaults = {name: value for name, value in TuningConfig().to_dict().items() if name not in _OPTIONS}
    rates = ", ".join(f"{rate:g} for {method}" for method, rate in LEARNING_RATES.items())
    kinds = {
        "What is read": ("max_length", "truncation", "batch_tokens", "epochs", "max_steps"),
        "Steps": ("learning_rate", "head_learning_rate", "weight_decay", "warmup", "clip", "dropout"),
        "Stopping": ("validation_fraction", "patience", "evaluations_per_epoch", "evaluate_every"),
        "Checkpoints": ("checkpoint_every",),
        "Of lora": ("rank", "alpha", "lora_dropout", "target_modules"),
        "Of top": ("n_layers",),
        "Of masked-token": ("mask_share",),
        "Of contrastive": ("views", "temperature"),
    }
    told = {name for names in kinds.values() for name in names}
    kinds["Others"] = tuple(name for name in defaults if name not in told)
    lines = ["What --set takes, with defaults (null: chosen by itself):"]
    for kind, names in kinds.items():
        lines.append(f"{kind}: " + ", ".join(f"{name}={_written(defaults[name])}" for name in names))
    return [*lines, f"learning_rate by itself: {rates}."]


def _written(value: Any) -> str:
    return "null" if value is None else str(value)


def tune(
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            help="A bundled data set (such as domains) or files of preferences: .jsonl, .csv, .tsv, .parquet. For "
            "masked-token and contrastive also plain text: .txt with one text a line, or texts (bundled).",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FOLDER",
            help="Where the tuned encoder is saved; until then, FOLDER.unfinished holds what a kill leaves.",
            show_default=False,
        ),
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            help="What moves: lora (low-rank adapters), top (the last blocks) or full (all weights).",
            rich_help_panel=_TUNING_PANEL,
        ),
    ] = "lora",
    objective: Annotated[
        str,
        typer.Option(
            help="What moves it: bradley-terry (pairs), domain (which domain a prompt is of), masked-token or contrastive "
            "(plain text).",
            rich_help_panel=_TUNING_PANEL,
        ),
    ] = "bradley-terry",
    base: Annotated[
        str | None,
        typer.Option(
            metavar="ENCODER",
            help="What is tuned: a model of the Hugging Face hub or its folder. By default all-MiniLM-L6-v2.",
            rich_help_panel=_TUNING_PANEL,
            show_default=False,
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="A parameter of the list below, such as rank=16, epochs=5 or max_length=256; repeat it.",
            rich_help_panel=_TUNING_PANEL,
            show_default=False,
        ),
    ] = None,
    random_state: Annotated[
        int,
        typer.Option("--random-state", "--seed", min=0, help="Seed of every draw.", rich_help_panel=_TUNING_PANEL),
    ] = 0,
    split: Annotated[
        str | None,
        typer.Option(
            help="Tune on this split, or 'all'. By default train, or everything in data without splits. The prompts that "
            "decide when to stop are taken out of it.",
            show_default=False,
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume/--no-resume", help="Go on from what a kill left; or throw it away and begin anew."),
    ] = True,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Only say how long it will take and what it needs; nothing is written.")
    ] = False,
    form: common.Form = "auto",
    columns: common.Columns = None,
    on_error: common.OnError = "raise",
    ties: common.Ties = "auto",
    allow_group_leak: common.GroupLeak = False,
    as_json: common.Json = False,
    quiet: common.Quiet = False,
) -> None:
    """Tune an encoder on preferences, domains or plain text, and save it as an ordinary sentence-transformers folder.

    'embedrm tune domains --output runs/tuned', then 'embedrm fit domains --encoder runs/tuned --output runs/model': the
    other commands take the folder as their --encoder. Killed at any moment, the same command goes on where it was.
    """
    from embedrm.cli._plain import read_material

    console = Console(quiet, as_json)
    if output is None and not estimate:
        raise InvalidInputError("tune needs --output FOLDER for the tuned encoder, or --estimate; nothing was done")
    config = _config(method, objective, base, random_state, set_)
    folder = None if output is None or estimate else Path(output).expanduser()
    if folder is not None:
        from embedrm.tuning.saving import check_free

        common.check_writable(str(folder))
        check_free(folder)
    reading = Reading(form, columns, on_error, ties, allow_group_leak)
    material = read_material(paths, split, reading, objective in _LABELLED, console)

    from embedrm.tuning import TunedEncoder

    tuned = TunedEncoder(config)
    expected: TuningEstimate | None = None
    if estimate or not quiet or as_json:
        console.note("timing a few steps")
        expected = tuned.estimate(material.data, groups=material.groups)
    if folder is None:
        console.result(None if expected is None else asdict(expected), str(expected))
        return
    console.note(str(expected))
    work = folder.with_name(folder.name + ".unfinished")
    if work.exists():
        console.note(f"{work} holds an unfinished run, which is " + ("resumed" if resume else "thrown away"))
    keep(f"what was checkpointed is in {work}; the same command goes on from there")
    with console.progress() as progress:
        tuned.fit(
            material.data,
            folder,
            groups=material.groups,
            resume=resume,
            progress=_telling(progress, console),
        )
    keep(f"the tuned encoder is in {folder}")
    facts = _facts(tuned, expected)
    console.result(facts, _text(facts))


def _config(method: str, objective: str, base: str | None, random_state: int, set_: list[str] | None) -> TuningConfig:
    from embedrm.cli._parameters import parameters
    from embedrm.tuning import TuningConfig

    given = common.settings(set_, "--set")
    for name in given:
        if name in _OPTIONS:
            raise InvalidInputError(f"--set {name} has an option of its own; give {_OPTIONS[name]}")
    values = parameters(TuningConfig, "tuning", given)
    named = {} if base is None else {"base": base}
    return TuningConfig(**{**values, **named, "method": method, "objective": objective, "random_state": random_state})


def _telling(progress: Progress, console: Console) -> Progress:
    """Say before the first step where a resumed run goes on: tuning puts it into its label."""

    def start(label: str) -> Callable[[int, int], None]:
        _, resumed, step = label.partition(" from step ")
        if resumed:
            console.note(f"going on after step {step}")
        return progress(label)

    return start


def _facts(tuned: TunedEncoder, expected: TuningEstimate | None) -> dict[str, Any]:
    known = tuned.facts_
    best: dict[str, Any] = next((e for e in tuned.history_ if e["step"] == known["best_step"]), {})
    kept = (
        "config",
        "data",
        "history",
        "best_step",
        "steps",
        "steps_planned",
        "stopped",
        "parameters_tuned",
        "parameters_base",
        "classes",
        "seconds",
    )
    return {
        "folder": str(tuned.folder),
        **{name: known[name] for name in kept},
        "held_out": {name: best.get(f"validation_{name}") for name in ("loss", "accuracy")},
        "resumed_at": tuned.resumed_at_,
        "estimate": None if expected is None else asdict(expected),
        "encoder": tuned.encoder().fingerprint_digest(),
    }


def _text(facts: dict[str, Any]) -> str:
    config, data = facts["config"], facts["data"]
    header = ["epoch", "step", "training loss", "held-out loss", "held-out accuracy"]
    rows = [
        [
            f"{entry['epoch']}{' *' if entry['step'] == facts['best_step'] else ''}",
            f"{entry['step']:,}",
            f"{entry['train_loss']:.4f}",
            *(
                "-" if (value := entry.get(f"validation_{name}")) is None else form.format(value)
                for name, form in (("loss", "{:.4f}"), ("accuracy", "{:.3f}"))
            ),
        ]
        for entry in facts["history"]
    ]
    cut = data.get("truncation", {})
    shortened = (
        f", {cut['truncated']:,} of them cut to {config['max_length']} tokens ({config['truncation']})"
        if cut.get("truncated")
        else ""
    )
    share = facts["parameters_tuned"] / max(1, facts["parameters_base"])
    alike = data.get("pairs_read_alike")
    lines = [
        common.table(header, rows),
        "",
        f"tuned     {config['base']} by {config['objective']}, {config['method']}: "
        f"{facts['parameters_tuned']:,} numbers moved ({share:.1%} of the base)",
        f"read      {data['texts']:,} texts{shortened}",
        *([f"          {alike:,} pairs have two texts that are the same once cut"] if alike else []),
        f"kept      the state after step {facts['best_step']:,} of {facts['steps']:,} (*); {facts['stopped']}",
        *([f"resumed   after step {facts['resumed_at']:,}"] if facts["resumed_at"] is not None else []),
        f"saved in  {facts['folder']} ({facts['seconds']:.1f} s); other commands read it with --encoder {facts['folder']}",
    ]
    return "\n".join(lines)
