"""``embedrm merge``: one encoder, or one head, out of several, by any merge method."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedrm.cli import _common as common
from embedrm.cli._common import Console
from embedrm.cli._guard import FOUND, keep
from embedrm.cli._merge_runs import Encoders, Heads, Request
from embedrm.cli._parameters import read_value
from embedrm.errors import InvalidInputError

if TYPE_CHECKING:
    from embedrm.cli._merge_config import MergeConfig
    from embedrm.merging.compatibility import CompatibilityReport

_ENCODER_PANEL, _HEAD_PANEL = "Merging encoders", "Merging heads"


def merge(
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="A B [C...]",
            help="What is merged, the general model first: folders or names of encoders (tuned ones among them), or folders "
            "of linear heads or perceptrons that 'embedrm fit' wrote.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="FOLDER", help="Where the merged model is saved.", show_default=False),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="linear (DogeRM; the default), slerp, model_soup, warm; on deltas from --base: task_arithmetic, ties, "
            "dare_linear, dare_ties, breadcrumbs; fisher, with --moments.",
            show_default=False,
        ),
    ] = None,
    weight: Annotated[
        list[float] | None,
        typer.Option(
            "--weight",
            help="One for each model; or one for each but the first, which then has 1 minus their sum: of two models, "
            "--weight 0.3 is lambda = 0.3. Equal by default; repeat it.",
            show_default=False,
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="What all came from, for methods on deltas; for linear heads also 'zero'.",
            show_default=False,
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="A parameter of the method, such as density=0.5, normalize=false, lambda=0.7 or scope=model; repeat it.",
            show_default=False,
        ),
    ] = None,
    config: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Models, method, base and parameters in a YAML file instead, in mergekit's words: models, merge_method, "
            "base_model, parameters, dtype.",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say whether they can be merged, and in what they differ.")
    ] = False,
    accept: Annotated[
        list[str] | None,
        typer.Option(
            "--accept",
            metavar="DIFFERENCE",
            help="A difference that shall not forbid merging: base, pooling, normalisation, max-length, prompts, type, "
            "basis; repeat it.",
            rich_help_panel=_ENCODER_PANEL,
            show_default=False,
        ),
    ] = None,
    moments: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILE",
            help="For fisher: one for each model in their order, from embedrm.write_encoder_moments in Python; repeat it.",
            rich_help_panel=_ENCODER_PANEL,
            show_default=False,
        ),
    ] = None,
    rotation: Annotated[
        str,
        typer.Option(
            help="Static token tables in different bases: none, or procrustes.", rich_help_panel=_ENCODER_PANEL
        ),
    ] = "none",
    layers: Annotated[
        str,
        typer.Option(
            help="What of perceptrons: all, or trunk (keep the first's reward layer).", rich_help_panel=_HEAD_PANEL
        ),
    ] = "all",
    rescale: Annotated[
        bool,
        typer.Option(
            "--rescale",
            help="Express linear heads in the first one's standardisation, exactly.",
            rich_help_panel=_HEAD_PANEL,
        ),
    ] = False,
    align: Annotated[
        bool,
        typer.Option(
            "--align", help="Match hidden units of perceptrons that began apart.", rich_help_panel=_HEAD_PANEL
        ),
    ] = False,
    as_json: common.Json = False,
    quiet: common.Quiet = False,
) -> None:
    """Merge encoders or heads into one; nothing is trained. The first model's reward head is kept.

    'embedrm merge runs/general runs/maths --weight 0.3 --output runs/merged' is DogeRM with lambda = 0.3. What differs is
    told first, and anything that makes merging meaningless is refused. With --dry-run exit code 1 means that it would be.
    """
    console = Console(quiet, as_json)
    if output is None and not dry_run:
        raise InvalidInputError("merge needs --output FOLDER for the merged model, or --dry-run; nothing was done")
    asked = _read(config, paths, method, weight, base, set_, console)
    request = Request(
        asked.paths,
        asked.weights,
        asked.method,
        asked.base,
        asked.options,
        list(accept or ()),
        rotation,
        layers,
        rescale,
        align,
        moments,
        asked.dtype,
    )
    paths = request.paths
    saved = [(Path(p).expanduser() / "model.json").is_file() for p in paths]
    if any(saved) != all(saved):
        raise InvalidInputError(
            f"{paths[saved.index(True)]} is a fitted model and {paths[saved.index(False)]} an encoder; merge one kind"
        )
    _check_method(request)
    if output is not None:
        _check_place(output)
    run = Heads(request) if all(saved) else Encoders(request)
    report = run.report()
    if dry_run:
        console.result(report.as_dict(), _report_text(report))
        if not report.compatible:
            raise typer.Exit(FOUND)
        return
    place = Path(str(output)).expanduser()
    report.require("merge")
    console.note(_report_text(report))
    facts = run.save(place)
    keep(f"the merged model is in {place}")
    console.result(
        {"folder": str(place), "merge": facts, "compatibility": report.as_dict()}, _text(request, facts, place)
    )


def _read(
    config: str | None,
    paths: list[str] | None,
    method: str | None,
    weight: list[float] | None,
    base: str | None,
    set_: list[str] | None,
    console: Console,
) -> MergeConfig:
    """Return what is asked for, from a file or from the options."""
    from embedrm.cli._merge_config import MergeConfig, read_config

    if config is None:
        if not paths:
            raise InvalidInputError(
                "merge needs the models, such as 'embedrm merge A B --output FOLDER', or --config FILE"
            )
        options = {name: read_value(text) for name, text in common.settings(set_, "--set").items()}
        return MergeConfig(list(paths), _weights(weight, len(paths)), method or "linear", base, options)
    given = {"models": paths, "--method": method, "--weight": weight, "--base": base, "--set": set_}
    both = [name for name, value in given.items() if value]
    if both:
        raise InvalidInputError(f"--config says all about the merge; leave {', '.join(both)} out, or --config")
    found = read_config(config)
    for note in found.notes:
        console.note(f"config: {note}")
    return found


def _weights(given: list[float] | None, n: int) -> list[float] | None:
    if not given:
        return None
    if len(given) == n:
        return given
    if len(given) == n - 1:
        first = 1.0 - sum(given)
        # a sum of tenths may be a rounding above one
        if min(given) < 0 or first < -1e-12:
            raise InvalidInputError(
                f"--weight {' --weight '.join(format(weight, 'g') for weight in given)} leaves the first model "
                f"{first:g}, and with its weight left out all are to be between 0 and 1; to go beyond the models, give "
                f"--weight {n} times"
            )
        return [max(first, 0.0), *given]
    fewer = "once" if n == 2 else f"{n - 1} times"
    raise InvalidInputError(
        f"--weight is given {len(given)} times for {n} models; give it {n} times, or {fewer} (the first then has 1 minus "
        "the others)"
        if n > 1
        else f"--weight is given {len(given)} times for one model; give it once, or name the other models"
    )


def _check_place(output: str) -> None:
    """Refuse a place that is taken, or where nothing can be written, before models are read."""
    place = Path(output).expanduser()
    if place.exists() and not (place.is_dir() and not any(place.iterdir())):
        raise InvalidInputError(
            f"{place} is already there, and a merged model is never written over; give another --output, or remove it"
        )
    common.check_writable(str(place))


def _check_method(request: Request) -> None:
    from embedrm.merging.methods import make_method
    from embedrm.merging.methods.base import check_weights

    kind = make_method(request.method)
    options = kind.check_options(request.options)
    n = len(request.paths)
    if request.weights is not None or options.get("t") is None:
        weights = check_weights(request.weights, n, "merge")
        if kind.uniform and len(set(weights.tolist())) > 1:
            raise InvalidInputError(
                f"--method {request.method} gives every model the same weight; leave --weight out, or take --method linear"
            )
    if kind.moments != bool(request.moments):
        raise InvalidInputError(
            f"--method {request.method} needs --moments FILE for each model, which "
            "embedrm.write_encoder_moments writes in Python; for heads use embedrm.merge_heads there"
            if kind.moments
            else f"--moments are for --method fisher, and the method is {request.method}; leave them out"
        )
    if kind.on == "deltas" and request.base is None:
        raise InvalidInputError(
            f"--method {request.method} merges deltas: give --base, the model that all came from{_known_base(request.paths)}"
        )
    if kind.on != "deltas" and request.base is not None:
        raise InvalidInputError(
            f"--method {request.method} merges whole tensors and has no use for --base; leave it out"
        )


def _known_base(paths: Sequence[str]) -> str:
    """Say what tuned folders were tuned from, where all of them were from one encoder."""
    from embedrm.encoders.files import read_json
    from embedrm.tuning.saving import FACTS

    facts = [read_json(Path(path).expanduser() / FACTS) or {} for path in paths]
    names = {str(one.get("config", {}).get("base")) for one in facts if one}
    digests = {one.get("base_digest") for one in facts}
    return f"; these were tuned from {names.pop()!r}" if len(names) == len(digests) == 1 and all(facts) else ""


def _report_text(report: CompatibilityReport) -> str:
    rows = []
    for own in report.facts:
        if "tuned_by" in own:
            head = f"{own['tuned_by']} head" if own["reward_head"] else "no head"
            rows.append([own["name"], own["architecture"], f"{own['parameters']:,}", own["digest"][:12], head])
        else:
            size = sum(_product(shape) for shape in own["tensors"].values())
            rows.append([own["name"], own["kind"], f"{size:,}", own["digest"][:12], own["task"]])
    lines = [common.table(["model", "kind", "parameters", "digest", "trained on"], rows), ""]
    lines += [f"{'refused' if d.fatal else 'differs'}   {d}" for d in report.differences]
    for digest in dict.fromkeys(own["digest"] for own in report.facts):
        alike = [own["name"] for own in report.facts if own["digest"] == digest]
        if len(alike) > 1:
            lines.append(f"same      {', '.join(alike)} are one model: their digests are equal")
    lines.append("they can be merged" if report.compatible else "they cannot be merged")
    return "\n".join(lines)


def _product(shape: Sequence[int]) -> int:
    size = 1
    for n in shape:
        size *= n
    return size


def _text(request: Request, facts: dict[str, Any], place: Path) -> str:
    weights = facts["weights"]
    told = [
        f"{path} ({'equal' if weights is None else format(w, 'g')})"
        for path, w in zip(request.paths, weights or request.paths)
    ]
    options = ", ".join(f"{name.rstrip('_')}={value}" for name, value in facts["options"].items())
    lines = [f"merged    {' + '.join(told)}", f"method    {facts['method']}" + (f" ({options})" if options else "")]
    if facts.get("tokens"):
        t = facts["tokens"]
        lines.append(f"tokens    {t['all']:,}, of them {t['appended']:,} appended to the first model's")
    if facts.get("head"):
        lines.append(f"head      kept from {facts['head']}, untouched")
    for key, word in (("tensors_kept", "kept"), ("tensors_left_out", "left out")):
        if facts.get(key):
            lines.append(f"{word:<9} {', '.join(facts[key])}: in one model only, and no vector depends on it")
    lines.append(f"saved in  {place}")
    return "\n".join(lines)
