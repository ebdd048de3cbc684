"""``embedrm cache``: look after the store of vectors."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedrm.cli import _common as common
from embedrm.cli._common import Console
from embedrm.cli._guard import FOUND, bare_help, keep
from embedrm.errors import InvalidInputError, unknown_name

if TYPE_CHECKING:
    from embedrm.store import EmbeddingStore

app = typer.Typer(help="Look after the store of vectors.")

Digest = Annotated[
    str | None,
    typer.Option(
        "--digest",
        help="Only this encoder: its digest (or the beginning of it), see 'cache stats'.",
        show_default=False,
    ),
]


@app.callback(invoke_without_command=True)
def _group(ctx: typer.Context) -> None:
    bare_help(ctx)


def _store(store: str | None) -> EmbeddingStore:
    from embedrm.store import EmbeddingStore

    return EmbeddingStore.default() if store is None else EmbeddingStore(store)


def _digest(store: EmbeddingStore, wanted: str) -> str:
    """Complete the beginning of a digest, if only one encoder has it."""
    from embedrm.store.folder import parse_folder_name

    held = {p.name for p in store.path.iterdir() if parse_folder_name(p.name)} if store.path.is_dir() else set()
    digests = sorted({name[:32] for name in held if name[:32].startswith(wanted)})
    if wanted in held or wanted in digests:
        return wanted
    if len(wanted) < 4 or not digests:
        raise unknown_name("encoder in the store", wanted, sorted({name[:32] for name in held}))
    if len(digests) > 1:
        raise InvalidInputError(f"{len(digests)} encoders begin with {wanted!r}; give more of the digest")
    return digests[0]


@app.command()
def path(store: common.Store = None, as_json: common.Json = False, quiet: common.Quiet = False) -> None:
    """Print where the vectors are kept (set EMBEDRM_HOME to move it)."""
    place = str(_store(store).path)
    Console(quiet, as_json).result({"path": place}, place)


@app.command()
def stats(store: common.Store = None, as_json: common.Json = False, quiet: common.Quiet = False) -> None:
    """Print what is stored, for each encoder."""
    facts = _store(store).stats()
    rows = [
        [
            e["digest"],
            e["model"] or "-",
            e["dtype"],
            f"{e['texts']:,}",
            ", ".join(f"{layer}: {count:,}" for layer, count in e["layers"].items()) or "-",
            f"{e['segments']:,}",
            common.size(e["bytes"]),
        ]
        for e in facts["encoders"]
    ]
    lines = [f"{facts['path']}: {common.plural(len(rows), 'encoder')}, {common.size(facts['bytes'])}"]
    if rows:
        header = ["encoder", "model", "dtype", "texts", "texts of each layer", "segments", "size"]
        lines += ["", common.table(header, rows)]
    damaged = sum(len(e["damaged"]) for e in facts["encoders"])
    quarantined = sum(len(e["quarantined"]) for e in facts["encoders"])
    stray = len(facts["leftovers"]) + sum(len(e["leftovers"]) for e in facts["encoders"])
    if damaged:
        lines.append(
            f"{common.plural(damaged, 'segment')} cannot be opened; 'embedrm cache verify --repair' sets them aside"
        )
    if quarantined:
        lines.append(f"{quarantined:,} files are in quarantine; they are not read, and may be deleted")
    if stray:
        lines.append(
            f"{stray:,} temporary files of writers that live or died; 'embedrm cache compact' removes old ones"
        )
    Console(quiet, as_json).result(facts, "\n".join(lines))


@app.command()
def verify(
    repair: Annotated[
        bool,
        typer.Option(
            "--repair", help="Set damaged files aside; what was in them is encoded again when it is asked for."
        ),
    ] = False,
    encoder: common.Encoder = None,
    store: common.Store = None,
    as_json: common.Json = False,
    quiet: common.Quiet = False,
) -> None:
    """Read every byte and compare it with its hash. Ends with 1 where something is damaged and was not set aside.

    With --encoder, its canary texts are encoded again too: a model that changed is found.
    """
    from embedrm.encoders import load_encoder

    console = Console(quiet, as_json)
    opened = _store(store)
    with console.progress() as progress:
        found = opened.verify(
            repair, encoder=None if encoder is None else load_encoder(encoder), progress=progress("verify (bytes)")
        )
    lines = [
        f"{opened.path}: whole are {common.plural(found.segments, 'segment')} "
        f"({found.vectors:,} vectors, {common.size(found.bytes)}), "
        f"damaged are {common.plural(len(found.damaged), 'file')}"
    ]
    for damage in found.damaged:
        place = f"; moved to {damage.quarantined}" if damage.quarantined else ""
        lines.append(f"damaged: {damage.path}: {damage.reason}{place}")
    for check in found.canaries:
        state = (
            "as it was" if check.ok else "NOT as it was: this encoder changed, and its stored vectors are not its own"
        )
        lines.append(f"canary: layer {check.layer}: {state} ({check.checked} texts, gap {check.worst:.2g})")
    if encoder is not None and not found.canaries:
        lines.append("canary: the store holds no canary texts of this encoder")
    lines += [f"unknown: {item}" for item in found.unknown]
    lines += [f"left over: {item}" for item in found.leftovers]
    left = [damage for damage in found.damaged if not damage.quarantined]
    if left and not repair:
        lines.append("set damaged files aside with --repair")
    console.result(found.to_dict(), "\n".join(lines))
    if left or not all(check.ok for check in found.canaries):
        raise typer.Exit(FOUND)


@app.command()
def compact(
    digest: Digest = None, store: common.Store = None, as_json: common.Json = False, quiet: common.Quiet = False
) -> None:
    """Merge small segments, drop repeats, and remove old temporary files of writers that died."""
    console = Console(quiet, as_json)
    opened = _store(store)
    keep("a compaction that stops loses nothing")
    with console.progress() as progress:
        facts = opened.compact(
            None if digest is None else _digest(opened, digest), progress=progress("compact (bytes)")
        )
    console.result(
        facts,
        f"{common.plural(facts['merged'], 'segment')} merged into {facts['written']:,}, "
        f"{common.size(facts['bytes_freed'])} freed, "
        f"{common.plural(facts['leftovers_removed'], 'temporary file')} removed",
    )


@app.command("export")
def export_(
    target: Annotated[
        str, typer.Argument(metavar="PATH", help="A new folder, or a file that ends in .tar.", show_default=False)
    ],
    digest: Digest = None,
    store: common.Store = None,
    as_json: common.Json = False,
    quiet: common.Quiet = False,
) -> None:
    """Copy vectors out of the store, to take elsewhere."""
    opened = _store(store)
    keep(f"what is in {target} is incomplete; delete it")
    facts: dict[str, Any] = opened.export(target, None if digest is None else _digest(opened, digest))
    Console(quiet, as_json).result({"path": target, **facts}, f"{_counted(facts)} copied to {target}")


@app.command("import")
def import_(
    source: Annotated[
        str, typer.Argument(metavar="PATH", help="An export (folder or .tar), or another store.", show_default=False)
    ],
    store: common.Store = None,
    as_json: common.Json = False,
    quiet: common.Quiet = False,
) -> None:
    """Take vectors in; every segment's hash is checked first."""
    opened = _store(store)
    keep("segments that were taken in are kept; the same command goes on from there")
    facts: dict[str, Any] = opened.import_(source)
    text = f"{_counted(facts)} taken from {source}; already there: {facts['present']:,}"
    Console(quiet, as_json).result({"path": source, **facts}, text)


@app.command()
def remove(
    digest: Annotated[
        str, typer.Argument(metavar="DIGEST", help="An encoder's digest, or the beginning of it.", show_default=False)
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    store: common.Store = None,
    as_json: common.Json = False,
    quiet: common.Quiet = False,
) -> None:
    """Delete an encoder's vectors. They can only be had back by encoding again."""
    opened = _store(store)
    found = _digest(opened, digest)
    if not yes:
        if not sys.stdin.isatty():
            raise InvalidInputError(f"remove deletes every vector of {found}; say --yes to mean it")
        typer.confirm(f"Delete every vector of {found} in {opened.path}?", abort=True, err=True)
    freed = opened.remove(found)
    Console(quiet, as_json).result(
        {"digest": found, "bytes_freed": freed}, f"{found} removed, {common.size(freed)} freed"
    )


def _counted(facts: dict[str, Any]) -> str:
    return ", ".join(
        [
            common.plural(facts["encoders"], "encoder"),
            common.plural(facts["segments"], "segment"),
            common.size(facts["bytes"]),
        ]
    )
