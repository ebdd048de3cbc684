"""``embedrm runs``: the results that runs and sweeps left."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from embedrm.cli import _common as common
from embedrm.cli._common import Console
from embedrm.cli._guard import bare_help
from embedrm.errors import InvalidInputError

app = typer.Typer(help="Look after the results of 'embedrm run' and 'embedrm sweep'.")

_SHOWN = 50


@app.callback(invoke_without_command=True)
def _root(ctx: typer.Context) -> None:
    bare_help(ctx)


@app.command("list")
def list_(
    folder: Annotated[str, typer.Argument(metavar="[FOLDER]", help="Where to look, also below it.")] = "runs",
    as_json: common.Json = False,
    quiet: common.Quiet = False,
) -> None:
    """List runs and sweeps: how much is finished, what failed, when the last trial ended."""
    from embedrm.experiments.runs import find_runs

    facts = [run.facts() for run in find_runs(folder)]
    rows = [
        [
            f["folder"],
            f["kind"],
            f"{f['finished']:,}",
            f"{f['failed']:,}",
            _seconds(f["seconds"]),
            f["last"] or "-",
            f["title"],
        ]
        for f in facts
    ]
    header = ["folder", "kind", "finished", "failed", "fits", "last", "title"]
    text = common.table(header, rows) if rows else f"no runs in {folder}"
    Console(quiet, as_json).result(facts, text)


@app.command("show")
def show(
    run: Annotated[str, typer.Argument(metavar="FOLDER[:FINGERPRINT]", help="A folder, or one trial of it.")],
    as_json: common.Json = False,
    quiet: common.Quiet = False,
) -> None:
    """Show the trials of a folder, best first by validation where there is one, or all that is known of one trial."""
    from embedrm.experiments.runs import Run, split_name

    console = Console(quiet, as_json)
    folder, name = split_name(run)
    found = Run.load(folder)
    if name is not None:
        record = found.find(name)
        console.result(record, _one(record))
        return
    if found.torn:
        console.note(f"{common.plural(found.torn, 'line')} of trials.jsonl are no whole record, and are left out")
    records = sorted(found.records, key=_order)
    console.result({**found.facts(), "trials": records}, _many(records))


@app.command("diff")
def diff(
    first: Annotated[str, typer.Argument(metavar="FOLDER[:FINGERPRINT]", help="A run, or one trial of a sweep.")],
    second: Annotated[str, typer.Argument(metavar="FOLDER[:FINGERPRINT]", help="What it is compared with.")],
    as_json: common.Json = False,
    quiet: common.Quiet = False,
) -> None:
    """Say which settings of two results differ, and how far apart the results are (second minus first)."""
    from embedrm.experiments.experiment_run import shown
    from embedrm.experiments.runs import diff_facts

    facts = diff_facts(first, second)
    settings = [
        [p, "-" if a is None else shown(a), "-" if b is None else shown(b)] for p, (a, b) in facts["settings"].items()
    ]
    metrics = [
        [name, f"{m['first']:.6g}", f"{m['second']:.6g}", f"{m['difference']:+.4g}"]
        for name, m in facts["metrics"].items()
    ]
    parts = [
        common.table(["setting", "first", "second"], settings) if settings else "no setting differs",
        common.table(["result", "first", "second", "difference"], metrics),
    ]
    first_seeds, second_seeds = facts["seeds"]
    if first_seeds != second_seeds:
        parts.append(f"seeds: {_listed(first_seeds)} of the first, {_listed(second_seeds)} of the second")
    elif len(first_seeds) > 1:
        parts.append(f"means over {common.plural(len(first_seeds), 'seed')}: {_listed(first_seeds)}")
    if facts["versions"][0] != facts["versions"][1]:
        old, new = (", ".join(each) for each in facts["versions"])
        parts.append(f"computed by embedrm {old} and {new}: the difference may be one of versions")
    Console(quiet, as_json).result(facts, "\n\n".join(parts))


@app.command("rm")
def rm(
    folder: Annotated[str, typer.Argument(metavar="FOLDER", help="A folder of a run or a sweep.")],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: common.Json = False,
    quiet: common.Quiet = False,
) -> None:
    """Delete the results in a folder. Files that are not of a run or sweep stay."""
    from embedrm.experiments.runs import Run, remove_run

    facts = Run.load(folder).facts()
    what = f"{facts['finished']:,} finished and {facts['failed']:,} failed trials in {folder}"
    if not yes:
        if not sys.stdin.isatty():
            raise InvalidInputError(f"rm deletes {what}; say --yes to mean it")
        typer.confirm(f"Delete {what}?", abort=True, err=True)
    done = remove_run(folder)
    kept = f"; left there: {', '.join(done['kept'])}" if done["kept"] else ""
    Console(quiet, as_json).result(done, f"{folder} removed, {common.size(done['bytes_freed'])} freed{kept}")


def _order(record: dict[str, Any]) -> tuple[int, float, str]:
    splits = record.get("metrics") or {}
    value = splits.get("validation", {}).get("micro", 0.0)
    return (0 if record["status"] == "ok" else 1, -value, record["fingerprint"])


def _listed(seeds: list[int]) -> str:
    return ", ".join(map(str, seeds[:10])) + (f" and {len(seeds) - 10:,} more" if len(seeds) > 10 else "")


def _seconds(value: float) -> str:
    return f"{value:.1f} s" if value < 100 else f"{value / 60:.0f} min" if value < 6000 else f"{value / 3600:.1f} h"


def _many(records: list[dict[str, Any]]) -> str:
    from embedrm.experiments.sweep_tidy import label

    splits = list(dict.fromkeys(split for record in records for split in record.get("metrics") or {}))
    rows = []
    for record in records[:_SHOWN]:
        metrics = record.get("metrics") or {}
        cells = [f"{metrics[s]['micro']:.4f}" if s in metrics else "-" for s in splits]
        error = (record.get("error") or {}).get("type", "")
        what = (label(record["settings"]) if record["settings"] else "-") + (f" ({error})" if error else "")
        rows.append(
            [record["fingerprint"][:10], str(record["seed"]), *cells, _seconds(record.get("seconds") or 0.0), what]
        )
    text = common.table(["fingerprint", "seed", *splits, "fit", "settings"], rows)
    more = len(records) - _SHOWN
    return text + (f"\n{more:,} more; --json has all" if more > 0 else "")


def _one(record: dict[str, Any]) -> str:
    from embedrm.experiments.experiment_run import leaves, shown

    lines = []
    for key, value in leaves({k: v for k, v in record.items() if v is not None}).items():
        lines.append(f"{key:<44}{f'{value:.6g}' if isinstance(value, float) else shown(value)}")
    return "\n".join(lines)
