"""Small files for the tests of readers."""

import gzip
import json


def row(number=0, **fields):
    """One good pair row, told apart by its number."""
    return {
        "prompt": f"What is {number}?",
        "chosen": f"It is the number {number}.",
        "rejected": f"Nobody knows {number}.",
        **fields,
    }


def write_jsonl(path, rows):
    """Write rows, or lines given as text or bytes, one a line; packed where the name ends in .gz."""
    lines = [
        line if isinstance(line, bytes) else line.encode() if isinstance(line, str) else json.dumps(line).encode()
        for line in rows
    ]
    data = b"".join(line + b"\n" for line in lines)
    path.write_bytes(gzip.compress(data) if path.name.endswith(".gz") else data)
    return path
