"""What to cite: the toolkit, the papers behind the parts of a model, the encoder and the data of a run."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sklearn.base import BaseEstimator

from embedrm.errors import InvalidInputError
from embedrm.experiments.bibliography import bibtex
from embedrm.experiments.experiment import Experiment
from embedrm.experiments.runs import Run, split_name

DEFAULT_MODEL_SOURCE = (
    'Reimers and Gurevych (2019), "Sentence-BERT: Sentence embeddings using Siamese BERT-networks"; Wang et al. (2020), '
    '"MiniLM: Deep self-attention distillation for task-agnostic compression of pre-trained transformers"'
)
_SECTION = re.compile(r"^References\n-{5,}\n(.*?)(?=\n\S[^\n]*\n-{3,}|\Z)", re.MULTILINE | re.DOTALL)


def toolkit() -> dict[str, str]:
    """Return the citation of the toolkit itself: name, version, and an entry for BibTeX."""
    from embedrm import __version__

    bibtex = (
        "@software{embedrm,\n"
        "  title   = {embedrm: Embedding-based reward modelling on a CPU},\n"
        "  author  = {{The embedrm developers}},\n"
        f"  version = {{{__version__}}},\n"
        "  license = {Apache-2.0}\n"
        "}"
    )
    return {"what": "embedrm", "cite": f"The embedrm developers, embedrm {__version__}", "bibtex": bibtex}


def references(cls: type) -> str | None:
    """Return the section References of a class's own docstring on one line, None where it has none."""
    own = cls.__dict__.get("__doc__")
    found = None if own is None else _SECTION.search(inspect.cleandoc(own))
    return " ".join(found[1].split()) if found else None


def model_citations(model: Any) -> list[dict[str, str]]:
    """Return the references of a model and of every part of it, each once."""
    out: dict[str, dict[str, str]] = {}
    for part in _parts(model):
        text = references(type(part))
        if text is not None:
            name = getattr(type(part), "registered_name", type(part).__name__)
            out.setdefault(name, {"what": name, "cite": text})
    return list(out.values())


def _parts(value: Any) -> Iterator[Any]:
    from embedrm.objectives import OBJECTIVES

    if isinstance(value, BaseEstimator) or hasattr(value, "get_params"):
        yield value
        for name, inner in value.get_params(deep=False).items():
            if name == "objective" and isinstance(inner, str) and inner in OBJECTIVES:
                yield OBJECTIVES.get(inner)()
            elif hasattr(inner, "get_params"):
                yield from _parts(inner)


def run_citations(run: str) -> list[dict[str, str]]:
    """Return what a run or a sweep used and who made it.

    Parameters
    ----------
    run : str
        ``FOLDER`` or ``FOLDER:FINGERPRINT``; of a sweep, the parts of all its variants.

    Returns
    -------
    list of dict
        ``what``, ``kind`` ("toolkit", "model", "encoder", "data", "unread") and ``cite``; of data with a recipe ``licence``
        too, of the toolkit ``bibtex``.
    """
    folder, name = split_name(run)
    loaded = Run.load(folder)
    records = loaded.records if name is None else [loaded.find(name)]
    experiments: dict[str, Mapping[str, Any]] = {}
    for record in records:
        found = record.get("experiment")
        if isinstance(found, Mapping):
            experiments.setdefault(str(found), found)
    out: dict[tuple[str, str], dict[str, str]] = {}
    unread: list[str] = []
    for data in experiments.values():
        try:
            experiment = Experiment(data)
        except InvalidInputError as error:
            # of a head that is not installed here, or of another version: what can be read is told
            unread.append(str(error))
            continue
        config = experiment.config
        found_here = [{"kind": "model", **one} for one in model_citations(experiment.model)]
        if config.data.release is None:
            found_here += [encoder_citation(config.encoder.name)]
            found_here += [data_citation(path) for path in config.data.paths]
        else:
            found_here += [release_citation(config.data.release)]
        for one in found_here:
            out.setdefault((one["kind"], one["what"]), one)
    if unread:
        said = f"{len(unread):,} of {len(experiments):,} variants cannot be read here, and are not cited"
        out["unread", said] = {"kind": "unread", "what": said, "cite": unread[0]}
    return [{"kind": "toolkit", **toolkit()}, *out.values()]


def release_citation(setting: str) -> dict[str, str]:
    """Return how to cite arrays in the layout of a release: their texts and their encoder are not known here."""
    cite = "arrays in the layout of the Reusing-Embeddings release; if they are of that release, cite sun2025"
    return {
        "kind": "data",
        "what": setting,
        "cite": f"{cite} ('embedrm cite'), and the makers of the data and the models",
    }


def encoder_citation(name: str) -> dict[str, str]:
    """Return how to cite an encoder, or that its own card says so."""
    from embedrm.encoders import DEFAULT_ENCODER, ENCODERS

    kind = name.partition(":")[0]
    if name.rpartition("/")[2] == DEFAULT_ENCODER:
        cite = DEFAULT_MODEL_SOURCE
    elif kind in ENCODERS and kind != "sentence":
        cite = references(ENCODERS.get(kind)) or "part of embedrm"
    else:
        cite = "see the card of the model"
    return {"kind": "encoder", "what": name, "cite": cite}


def data_citation(path: str) -> dict[str, str]:
    """Return how to cite a data set: bundled ones, and files made by 'embedrm data prepare', by their name."""
    from embedrm.datasets.bundled import bundled_names
    from embedrm.datasets.public import RECIPES

    stem = Path(path).name.split(".")[0]
    if path in bundled_names():
        return {"kind": "data", "what": path, "cite": "written for embedrm; its card is data/README.md"}
    if stem in RECIPES:
        facts = RECIPES.get(stem).facts()  # type: ignore[attr-defined]
        return {"kind": "data", "what": path, "cite": facts["citation"], "licence": facts["licence"]}
    return {"kind": "data", "what": path, "cite": "not known to embedrm; see where the file is from"}


def paper_citations() -> list[dict[str, str]]:
    """Return the papers that 'embedrm reproduce' reproduces, each with how."""
    from embedrm.experiments.papers import PAPERS

    out = []
    for name, paper in PAPERS:
        found = {"kind": "paper", "what": name, "cite": paper.citation, "here": paper.setting}  # type: ignore[attr-defined]
        entries = bibtex(name)
        out.append(found if entries is None else {**found, "bibtex": entries})
    return out
