"""Where a language model is: the small ones of the package, trained once and kept; folders; the hub."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from embedrm.encoders.backbone import torch_threads
from embedrm.encoders.files import read_model
from embedrm.encoders.quiet import quiet_loading
from embedrm.encoders.resolve import resolve
from embedrm.errors import InvalidInputError, unknown_name
from embedrm.language_models.corpus import GENERATED, bundled_documents, corpus_identity
from embedrm.language_models.model import LanguageModel
from embedrm.language_models.states import put_in_place
from embedrm.language_models.training import SmallLM, train
from embedrm.progress import Progress, silent
from embedrm.store.files import TEMP_PREFIX, disk_error, make_folder, write_json
from embedrm.store.stats import default_path

BUNDLED = {"bundled": ("A", 0), "bundled:judge": ("B", 1)}
"""Half of the bundled text, and seed."""
FACTS = "language_model.json"
# Another number where the training changes: models that were kept are then not taken for new ones.
_RECIPE = 4


def load(name: Any, options: Mapping[str, Any]) -> LanguageModel:
    """Return a language model; see :func:`embedrm.language_models.load_language_model`."""
    if not isinstance(name, (str, os.PathLike)) or not os.fspath(name).strip():
        raise InvalidInputError(
            f"a language model is named by 'bundled', 'bundled:judge', a folder or a hub name; got {name!r}"
        )
    plain = os.fspath(name)
    known = ("config", "folder", "progress") if plain in BUNDLED else ("revision", "offline")
    for option in options:
        if option not in (*known, "max_length"):
            raise unknown_name(f"option of the language model {plain!r}", option, (*known, "max_length"))
    given = dict(options)
    limit = given.pop("max_length", None)
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 2):
        raise InvalidInputError(f"max_length must be a whole number of tokens from 2 (BOS and one more); got {limit!r}")
    if plain in BUNDLED:
        place = bundled_model(plain, **given)
        facts = json.loads((place / FACTS).read_text(encoding="utf-8"))
        return LanguageModel(read_model(place), plain, max_length=limit, facts=facts)
    if plain.partition(":")[0] == "bundled":
        raise unknown_name("bundled language model", plain, sorted(BUNDLED))
    return LanguageModel(resolve(plain, **given), plain, max_length=limit)


@contextmanager
def trained_beside(names: Sequence[str]) -> Iterator[None]:
    """Train bundled models that are not there yet in processes of their own, while the block does something else.

    Training takes one thread, so that two models take hardly longer than one. A process that fails leaves nothing: whoever
    asks for its model afterwards trains it, and is told what is wrong.

    Parameters
    ----------
    names : sequence of str
        Of :data:`BUNDLED`; at the end of the block all processes have ended.
    """
    missing = [name for name in names if not _place(name).is_dir()] if (os.cpu_count() or 1) > 1 else []
    code = "import sys; from embedrm.language_models.loading import bundled_model; bundled_model(sys.argv[1])"
    begun = [
        subprocess.Popen(
            [sys.executable, "-c", code, name],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for name in missing
    ]
    try:
        yield
    except BaseException:
        for process in begun:
            process.terminate()
        raise
    finally:
        for process in begun:
            process.wait()


def models_home() -> Path:
    """Return ``$EMBEDRM_HOME/language_models``."""
    return default_path().parent / "language_models"


def bundled_model(
    name: str,
    *,
    config: SmallLM | None = None,
    folder: str | os.PathLike[str] | None = None,
    progress: Progress = silent,
) -> Path:
    """Return the folder of a bundled language model, training it where it is not there.

    Parameters
    ----------
    name : str
        A name of :data:`BUNDLED`.
    config : SmallLM, optional
        Another size or training; its ``random_state`` is taken as it is.
    folder : path, optional
        Where models are kept, by their digests; ``$EMBEDRM_HOME/language_models`` where absent.
    progress : Progress

    Returns
    -------
    Path
        An ordinary Hugging Face folder, written whole or not at all, and language_model.json.
    """
    settings, identity, digest = _identity(name, config)
    half = identity["half"]
    home = models_home() if folder is None else Path(folder).expanduser()
    place = home / digest
    if place.is_dir():
        return place
    try:
        make_folder(home)
        temporary = Path(tempfile.mkdtemp(prefix=f"{TEMP_PREFIX}{digest}-", dir=home))
    except OSError as err:
        raise disk_error(err, home, "keep a language model", "Nothing was kept.") from err
    documents = bundled_documents(half)
    try:
        # One thread: two are a quarter faster at this size, and the sums of one are the same on machines of any size.
        with torch_threads(1):
            model, tokenizer = train(documents, settings, progress=progress(f"train the language model {name!r}"))
        with quiet_loading():
            model.save_pretrained(temporary, safe_serialization=True)
            tokenizer.save_pretrained(temporary)
        characters = sum(len(one.prompt) + len(one.text) for one in documents)
        description = (
            f"the bundled language model {name!r}, trained here from nothing on half {half} of the bundled text "
            f"({len(documents):,} documents, {characters / 1e6:.2f} million characters; "
            f"{sum(one.source == GENERATED for one in documents):,} are attribute texts of the package's grammar)"
        )
        write_json(temporary, FACTS, {"description": description, **identity})
        for path in temporary.iterdir():
            with path.open("rb+") as file:
                os.fsync(file.fileno())
        os.chmod(temporary, 0o755)
        put_in_place(temporary, place)
    except OSError as err:
        raise disk_error(err, home, "keep a language model", "Nothing was kept.") from err
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return place


def _identity(name: str, config: SmallLM | None = None) -> tuple[SmallLM, dict[str, Any], str]:
    """Settings of a bundled model, everything that decides it, and the digest of that."""
    half, seed = BUNDLED[name]
    settings = SmallLM(random_state=seed) if config is None else config
    if not isinstance(settings, SmallLM):
        raise InvalidInputError(f"config must be a SmallLM; got {type(settings).__name__}")
    settings.check()
    identity = {"recipe": _RECIPE, "half": half, "text": corpus_identity(half), "config": settings.to_dict()}
    digest = hashlib.blake2b(json.dumps(identity, sort_keys=True).encode("ascii"), digest_size=16).hexdigest()
    return settings, identity, digest


def _place(name: str) -> Path:
    return models_home() / _identity(name)[2]
