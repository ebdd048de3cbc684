"""Write the seed data set again: ``python -m embedrm.datasets.seed [--out FOLDER] [--card]``."""

from __future__ import annotations

import argparse
import gzip
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path

from embedrm.datasets.bundled import data_folder
from embedrm.datasets.seed.card import fill, tables
from embedrm.datasets.seed.generate import FILES, digest, json_lines, pack, rows
from embedrm.errors import DataError, EmbedRMError


def _same(path: Path, content: bytes) -> bool:
    try:
        return gzip.decompress(path.read_bytes()) == content
    except (OSError, EOFError, zlib.error):
        return False


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the generator and its checks, and write what has changed; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m embedrm.datasets.seed", description=__doc__)
    parser.add_argument("--out", type=Path, help="folder to write to (default: data/ of the checkout)")
    parser.add_argument("--card", action="store_true", help="write the tables of the card README.md there as well")
    options = parser.parse_args(arguments)
    try:
        folder = options.out or data_folder()
        if not folder.is_dir():
            raise DataError("there is no such folder; make it, or give another one with --out.", folder)
        tables_of_rows = rows()
        contents = dict(zip(FILES, map(json_lines, tables_of_rows)))
        for name, content in contents.items():
            path = folder / name
            # Another zlib may pack the same rows into other bytes, so a file that holds these rows is left alone.
            changed = not _same(path, content)
            if changed:
                path.write_bytes(pack(content))
            sys.stdout.write(f"{path}: {digest(content)}{'' if changed else ' (unchanged)'}\n")
        if options.card:
            path = folder / "README.md"
            every_row = [row for table in tables_of_rows for row in table]
            path.write_text(fill(path.read_text(encoding="utf-8"), tables(every_row, contents)), encoding="utf-8")
            sys.stdout.write(f"{path}: tables written\n")
    except (EmbedRMError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
