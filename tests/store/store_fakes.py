"""A fake encoder whose vectors follow from the text alone, and the processes that the fault tests start and kill."""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections import Counter

import numpy as np

from embedrm.store import CANARY_TEXTS, EmbeddingStore, fill, fingerprint_digest


def vector(text, layer, dim, salt=""):
    raw = hashlib.shake_256(f"{salt}|{layer}|{text}".encode()).digest(2 * dim)
    return (np.frombuffer(raw, "<i2") / np.float32(7919)).astype(np.float32)


class FakeEncoder:
    """Counts how often each (text, layer) is encoded; ``log`` appends one line per text, also across processes."""

    def __init__(self, name="fake", dims=None, delay=0.0, log=None, salt="", **extra):
        self.name, self.dims, self.delay, self.log, self.salt, self.extra = name, dims, delay, log, salt, extra
        self.dims = dims or {0: 4, 3: 8, "final": 6}
        self.layers = tuple(self.dims)
        self.default_layers = ("final",)
        self.counts = Counter()
        self.batches = []

    def dim(self, layer):
        return self.dims[layer]

    def fingerprint(self):
        return {"name": self.name, "max_length": 128, **self.extra}

    def fingerprint_digest(self):
        return fingerprint_digest(self.fingerprint())

    def encode(self, texts, layers=None, *, progress=None):
        layers = self.default_layers if layers is None else tuple(layers)
        self.batches.append((list(texts), layers))
        if self.delay:
            time.sleep(self.delay * len(texts))
        if self.log:
            with open(self.log, "a") as file:
                file.writelines(f"{os.getpid()} {text!r}\n" for text in texts)
        for text in texts:
            self.counts.update((text, layer) for layer in layers)
        return {
            layer: np.stack([vector(t, layer, self.dims[layer], self.salt) for t in texts]).reshape(len(texts), -1)
            for layer in layers
        }

    def user_counts(self):
        """Counts without the canaries."""
        return Counter({key: n for key, n in self.counts.items() if key[0] not in CANARY_TEXTS})

    def expected(self, texts, layer):
        return np.stack([vector(t, layer, self.dims[layer], self.salt) for t in texts])


class SilentEncoder(FakeEncoder):
    """Has the same fingerprint and fails when it is asked to encode: what is stored must answer."""

    def encode(self, texts, layers=None, *, progress=None):
        raise AssertionError(f"asked to encode {len(texts)} texts")


def poke(path, at, value):
    """Change one byte in place (rewriting a whole file makes some file systems wait for the disk)."""
    with open(path, "r+b") as file:
        file.seek(at)
        file.write(bytes([value]))


def texts_of(start, stop):
    return [f"text number {i}" for i in range(start, stop)]


def main(action, path, start, stop, delay, log=None):
    texts = texts_of(int(start), int(stop))
    encoder = FakeEncoder(delay=float(delay), log=log)
    store = EmbeddingStore(path, block_texts=16)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    if action == "write":
        store.get(encoder, texts, [3, "final"], batch_segment_bytes=4096)
    elif action == "share":
        fill._LOOK_SECONDS = 0.0
        store.get(encoder, texts, [3, "final"], batch_segment_bytes=1024)
    elif action == "compact":
        i = 0
        while True:
            store.compact(target_bytes=1 << 20, small_bytes=1 << 20, leftover_age=1e9)
            extra = [f"extra {os.getpid()} {i} {j}" for j in range(8)]
            store.get(encoder, extra, [3, "final"])
            i += 1


if __name__ == "__main__":
    main(*sys.argv[1:])
