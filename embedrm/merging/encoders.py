"""Encoder-level merging: one encoder out of the weights of several, as DogeRM merges language models."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike

from embedrm.encoders.files import read_model
from embedrm.errors import InvalidInputError
from embedrm.merging.compatibility import CompatibilityReport
from embedrm.merging.encoder_inputs import RECORD, open_inputs
from embedrm.merging.encoder_parts import copy_small_files, keep_head
from embedrm.merging.encoder_report import compare_inputs
from embedrm.merging.encoder_tensors import WHO, EncoderMerge
from embedrm.merging.kinds.base import module_places
from embedrm.merging.methods.base import MergeMethod, check_weights, make_method
from embedrm.merging.safetensor_files import write_safetensors
from embedrm.merging.vocabulary import VocabularyPlan
from embedrm.store.files import make_folder, sync_folder, write_json
from embedrm.tuning.saving import HEAD, check_free

FORMAT = 1
# Files that would contradict a tokenizer.json with more tokens.
_STALE = ("vocab.txt", "vocab.json", "merges.txt", "added_tokens.json")


def merge_encoders(
    models: Sequence[str | Path],
    output: str | Path,
    weights: ArrayLike | None = None,
    method: str | type[MergeMethod] = "linear",
    *,
    base: str | Path | None = None,
    accept: Sequence[str] = (),
    rotation: str = "none",
    names: Sequence[str] | None = None,
    moments: Sequence[str | Path] | None = None,
    **options: Any,
) -> dict[str, Any]:
    r"""Merge encoders of one architecture and base into a folder; nothing is trained.

    **DogeRM itself** (Lin et al. 2024), on small encoders: ``merge_encoders([general, domain], folder, [1 - lam, lam])``,
    with ``general`` tuned by preferences and ``domain`` by text or labels of the domain, both from one base. Every
    transformer weight becomes :math:`(1 - \lambda)\theta_{\mathrm{general}} + \lambda\theta_{\mathrm{domain}}`, and so does
    the embedding of every token that both have; a token of one alone keeps the embedding it has there. The **general
    model's reward head is kept** as it is, and any other head is left out.

    Parameters
    ----------
    models : sequence of str or path
        Folders or names of sentence-transformers or Hugging Face encoders, tuned folders among them. The first is the
        general model: its tokens come first, and its head, pooling, limits, prompts and number type are kept.
    output : path
        Where the merged encoder goes; it must not be there yet. It appears whole or not at all.
    weights : array-like of shape (n_models,), optional
        Equal where absent. How they are normalised is the method's (``normalize``). Of a model of weight zero nothing is
        taken, not even its tokens: :math:`\lambda = 0` is the general model.
    method : str or MergeMethod
        See :data:`embedrm.merging.MERGE_METHODS`.
    base : str or path, optional
        The encoder that all came from, for methods on deltas.
    accept : sequence of str
        Differences that shall not forbid merging; see :func:`embedrm.merging.encoder_report.compare_encoders`.
    rotation : {"none", "procrustes"}
        ``"procrustes"``: static token tables are first rotated to the first model's, by the orthogonal matrix that fits best
        over the tokens they share. For tables that were reduced (by principal components) apart.
    names : sequence of str, optional
        What to call the models; their folders' names where absent.
    moments : sequence of str or path, optional
        For ``fisher``: a safetensors file for each model, in their order, such as
        :func:`embedrm.write_encoder_moments` writes. ``floor`` is in units of their mean over all
        weights of all models that have a weight.
    **options
        Of the method, such as ``density``, ``normalize``, ``lambda``.

    Returns
    -------
    dict
        What is also in ``merge.json`` in the folder: method, weights, options, digests of the inputs, tokens, differences.

    Raises
    ------
    InvalidInputError
        With every difference that forbids merging and what to do about each, before anything is merged or written.
    ModelError
        A folder that is no model.

    Notes
    -----
    A token that several models have, but not all, is merged among those that have it; of methods on whole tensors with the
    weights' sum unchanged. A token that the base lacks has no delta, and is averaged by the weights. Rows of the first
    model's table that belong to no token are kept where vocabularies differ.

    References
    ----------
    Lin et al. (2024), "DogeRM", section 3 (embeddings, transformer and output layer are merged apart).
    """
    kind = make_method(method)
    chosen = kind.check_options(options)
    if kind.moments != (moments is not None):
        raise InvalidInputError(
            f"{WHO} needs moments for the method {kind.registered_name!r}: a file for each model, which "
            "embedrm.write_encoder_moments writes from a tuned folder and labelled pairs"
            if kind.moments
            else f"{WHO} got moments, which the method {kind.registered_name!r} has no use for; leave them out"
        )
    place = Path(output).expanduser()
    check_free(place)
    inputs, start = open_inputs(models, names, base, WHO)
    w = None if chosen.get("t") is not None and weights is None else check_weights(weights, len(inputs), WHO)
    if (kind.on == "deltas") != (start is not None):
        raise InvalidInputError(
            f"{WHO} needs base, the encoder that all came from, since the method {kind.registered_name!r} merges deltas"
            if start is None
            else f"{WHO} got a base, which the method {kind.registered_name!r} has no use for; leave base out"
        )
    report = compare_inputs(inputs, start, accept, rotation)
    report.require(WHO)
    merge = EncoderMerge(inputs, start, w, kind, chosen, rotation, moments)
    record = _record(merge, report, accept, chosen)
    make_folder(place.parent)
    temporary = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.parent))
    try:
        copy_small_files(inputs[0], temporary)
        _write(merge, temporary)
        keep_head(inputs[0], temporary, record)
        write_json(temporary, RECORD, record)
        os.chmod(temporary, 0o755)
        if place.is_dir():
            place.rmdir()
        os.replace(temporary, place)
        sync_folder(place.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return record


def _write(merge: EncoderMerge, folder: Path) -> None:
    """Write weights, and the tokenizer and configuration where the vocabulary has grown."""
    first = merge.inputs[0]
    places = module_places(first.files)
    for prefix, place in places.items():
        of = [n for n in first.tensors.entries if n.startswith(prefix) and (prefix or "/" not in n)]
        entries = {n[len(prefix) :]: first.tensors.entries[n] for n in of}
        if merge.plan is not None and not prefix:
            kind, shape = entries[str(merge.table)]
            entries[str(merge.table)] = (kind, (merge.plan.n_rows, *shape[1:]))
        target = folder / place.relative_to(first.files.folder)
        make_folder(target)
        write_safetensors(target / "model.safetensors", entries, merge.stream(of, prefix))
    if merge.plan is not None:
        _write_vocabulary(merge, folder, merge.plan)


def _write_vocabulary(merge: EncoderMerge, folder: Path, plan: VocabularyPlan) -> None:
    first = merge.inputs[0]
    inner = folder / first.files.first.relative_to(first.files.folder)
    config = json.loads(text) if (text := _text(inner / "config.json")) else None
    if config is not None and plan.n_rows != first.tensors.entries[str(merge.table)][1][0]:
        write_json(inner, "config.json", first.kind.grown_settings(config, plan.n_rows))
    if not plan.grown:
        return
    for name in _STALE:
        (inner / name).unlink(missing_ok=True)
    text = json.dumps(plan.vocabulary.description, ensure_ascii=False)
    (inner / "tokenizer.json").write_text(text, encoding="utf-8")
    found = first.kind.vocabulary(read_model(folder))
    if found.ids != plan.vocabulary.ids:
        n_other = sum(found.ids.get(token) != i for token, i in plan.vocabulary.ids.items())
        raise InvalidInputError(
            f"{WHO} cannot append tokens to the tokenizer of {first.name}: once loaded, {n_other:,} tokens have other "
            "ids; give both encoders one vocabulary"
        )


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _record(
    merge: EncoderMerge, report: CompatibilityReport, accept: Sequence[str], options: dict[str, Any]
) -> dict[str, Any]:
    inputs, plan = merge.inputs, merge.plan
    # of one base is what all of the same base, or that base itself, give
    origins = {one.origin for one in inputs}
    known = next((origin for origin in origins if origin is not None), None)
    one_base = all(one.origin == known or one.digest == known for one in inputs)
    in_both = None if plan is None else sum(len(g.tokens) for g in plan.groups if len(g.holders) > 1)
    return {
        "format": FORMAT,
        "method": merge.method.registered_name,
        "citation": merge.method.citation,
        "weights": None if merge.weights is None else merge.weights.tolist(),
        "options": options,
        "rotation": merge.rotation,
        "moments": [m.facts() for m in merge.moments] or None,
        "accepted": [accept] if isinstance(accept, str) else list(accept),
        "models": [one.identity() for one in inputs],
        "base": None if merge.base is None else merge.base.identity(),
        "base_digest": known if one_base else None,
        "head": inputs[0].name if (inputs[0].files.folder / HEAD).is_file() else None,
        "tokens": None
        if plan is None
        else {"all": len(plan.vocabulary.ids), "appended": plan.grown, "of several models": in_both},
        "tensors_merged": len(merge.names) + (merge.plan is not None),
        "tensors_kept": merge.kept,
        "tensors_left_out": merge.left_out,
        "differences": [str(difference) for difference in report.differences],
    }
