"""``embedrm merge``: one encoder, or one head, out of several, by any merge method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedrm.cli import _common as common
from embedrm.cli._common import Console
from embedrm.cli._guard import FOUND, keep
from embedrm.cli._parameters import read_value
from embedrm.errors import InvalidInputError, ModelError

if TYPE_CHECKING:
    from embedrm.merging.compatibility import CompatibilityReport

_ENCODER_PANEL, _HEAD_PANEL = "Merging encoders", "Merging heads"


@dataclass(frozen=True)
class _Request:
    paths: list[str]
    weights: list[float] | None
    method: str
    base: str | None
    options: dict[str, Any]
    accept: list[str]
    rotation: str
    layers: str
    rescale: bool
    align: bool


def merge(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="A B [C...]",
            help="What is merged, the general model first: folders or names of encoders (tuned ones among them), or folders "
            "of linear heads or perceptrons that 'embedrm fit' wrote.",
            show_default=False,
        ),
    ],
    output: Annotated[
        str | None,
        typer.Option("--output", "-o", metavar="FOLDER", help="Where the merged model is saved.", show_default=False),
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            help="linear (DogeRM), slerp, model_soup, warm; on deltas from --base: task_arithmetic, ties, dare_linear, "
            "dare_ties, breadcrumbs."
        ),
    ] = "linear",
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
            help="A parameter of the method, such as density=0.5, normalize=false or lambda=0.7; repeat it.",
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
    options = {name: read_value(text) for name, text in common.settings(set_, "--set").items()}
    request = _Request(
        list(paths),
        _weights(weight, len(paths)),
        method,
        base,
        options,
        list(accept or ()),
        rotation,
        layers,
        rescale,
        align,
    )
    saved = [(Path(p).expanduser() / "model.json").is_file() for p in paths]
    if any(saved) != all(saved):
        raise InvalidInputError(
            f"{paths[saved.index(True)]} is a fitted model and {paths[saved.index(False)]} an encoder; merge one kind"
        )
    _check_method(request)
    run = _Heads(request) if all(saved) else _Encoders(request)
    report = run.report()
    if dry_run:
        console.result(report.as_dict(), _report_text(report))
        if not report.compatible:
            raise typer.Exit(FOUND)
        return
    place = Path(str(output)).expanduser()
    common.check_writable(str(output))
    report.require("merge")
    console.note(_report_text(report))
    facts = run.save(place)
    keep(f"the merged model is in {place}")
    console.result(
        {"folder": str(place), "merge": facts, "compatibility": report.as_dict()}, _text(request, facts, place)
    )


def _weights(given: list[float] | None, n: int) -> list[float] | None:
    if not given:
        return None
    if len(given) == n:
        return given
    if len(given) == n - 1:
        return [1.0 - sum(given), *given]
    raise InvalidInputError(
        f"--weight is given {len(given)} times for {n} models; give it {n} times, or {n - 1} times (the first then has 1 "
        "minus their sum)"
    )


def _check_method(request: _Request) -> None:
    from embedrm.merging.methods import make_method

    kind = make_method(request.method)
    kind.check_options(request.options)
    if kind.moments:
        raise InvalidInputError(
            f"--method {request.method} needs moments of labelled data, which this command does not read; use merge_heads"
        )
    if kind.on == "deltas" and request.base is None:
        raise InvalidInputError(f"--method {request.method} merges deltas: give --base, the model that all came from")
    if kind.on != "deltas" and request.base is not None:
        raise InvalidInputError(
            f"--method {request.method} merges whole tensors and has no use for --base; leave it out"
        )


class _Encoders:
    """Encoders' folders, tuned ones among them."""

    def __init__(self, request: _Request) -> None:
        self.request = request
        if request.layers != "all" or request.rescale or request.align:
            raise InvalidInputError(
                "--layers, --rescale and --align are for heads, and these are encoders; leave them out"
            )

    def report(self) -> CompatibilityReport:
        from embedrm.merging.encoder_report import compare_encoders

        r = self.request
        return compare_encoders(r.paths, base=r.base, accept=r.accept, rotation=r.rotation)

    def save(self, place: Path) -> dict[str, Any]:
        from embedrm.merging.encoders import merge_encoders

        r = self.request
        return merge_encoders(
            r.paths, place, r.weights, r.method, base=r.base, accept=r.accept, rotation=r.rotation, **r.options
        )


class _Heads:
    """Linear heads or perceptrons that were fitted and saved, on vectors of one encoder."""

    def __init__(self, request: _Request) -> None:
        from embedrm.persistence import load_model

        self.request = request
        if request.accept or request.rotation != "none":
            raise InvalidInputError("--accept and --rotation are for encoders, and these are heads; leave them out")
        loaded = [load_model(path) for path in request.paths]
        self.models = [model for model, _ in loaded]
        self.extra = loaded[0][1]
        self.base: Any = request.base
        further = [(path, extra) for path, (_, extra) in zip(request.paths[1:], loaded[1:])]
        if request.base not in (None, "zero"):
            self.base, extra = load_model(str(request.base))
            further.append((str(request.base), extra))
        for path, extra in further:
            for key, what in (("digest", "encoder"), ("template", "template")):
                if extra.get(key) != self.extra.get(key):
                    raise ModelError(
                        f"{path} was fitted with another {what} than {request.paths[0]}; their weights mean other things. "
                        "Fit both alike, or merge their rewards"
                    )

    @property
    def _settings(self) -> dict[str, Any]:
        r = self.request
        return {"names": r.paths, "layers": r.layers, "rescale": r.rescale, "align": r.align}

    def report(self) -> CompatibilityReport:
        from embedrm.merging.compatibility import compare_heads

        base = None if isinstance(self.base, str) else self.base
        return compare_heads(self.models, base=base, **self._settings)

    def save(self, place: Path) -> dict[str, Any]:
        from embedrm.merging.heads import merge_heads
        from embedrm.persistence import save_model

        r = self.request
        if place.exists():
            raise InvalidInputError(f"{place} is already there, and a merged model is never written over; give another")
        merged: Any = merge_heads(self.models, r.weights, r.method, base=self.base, **self._settings, **r.options)
        facts: dict[str, Any] = dict(merged.merge_)
        training = {**self.extra.get("training", {}), "merge": facts}
        save_model(merged, place, extra={**self.extra, "training": training})
        return facts


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
    lines.append("they can be merged" if report.compatible else "they cannot be merged")
    return "\n".join(lines)


def _product(shape: Sequence[int]) -> int:
    size = 1
    for n in shape:
        size *= n
    return size


def _text(request: _Request, facts: dict[str, Any], place: Path) -> str:
    weights = facts["weights"]
    told = [
        f"{path} ({'equal' if weights is None else format(w, 'g')})"
        for path, w in zip(request.paths, weights or request.paths)
    ]
    options = ", ".join(f"{name}={value}" for name, value in facts["options"].items())
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
