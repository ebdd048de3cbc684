"""Encoder-level merging: one encoder out of the weights of several, as DogeRM merges language models."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from embedrm.encoders.files import read_model
from embedrm.errors import InvalidInputError
from embedrm.merging.compatibility import CompatibilityReport
from embedrm.merging.encoder_inputs import RECORD, MergeInput, open_inputs
from embedrm.merging.encoder_parts import Rotated, View, copy_small_files, keep_head
from embedrm.merging.encoder_report import compare_inputs, is_unread, shared_rows
from embedrm.merging.kinds.base import module_places
from embedrm.merging.methods.base import MergeMethod, Weights, check_weights, make_method
from embedrm.merging.rotation import procrustes
from embedrm.merging.safetensor_files import Array, in_memory, write_safetensors
from embedrm.merging.tensors import iter_merged, merge_tensors
from embedrm.merging.vocabulary import VocabularyPlan, plan_vocabulary, same_ids
from embedrm.store.files import make_folder, sync_folder, write_json
from embedrm.tuning.saving import HEAD, check_free

FORMAT = 1
WHO = "merge_encoders"
# Rows of a token table that are merged at a time.
_ROWS = 4096
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
        See :data:`embedrm.merging.MERGE_METHODS`; all but ``fisher``.
    base : str or path, optional
        The encoder that all came from, for methods on deltas.
    accept : sequence of str
        Differences that shall not forbid merging; see :func:`embedrm.merging.encoder_report.compare_encoders`.
    rotation : {"none", "procrustes"}
        ``"procrustes"``: static token tables are first rotated to the first model's, by the orthogonal matrix that fits best
        over the tokens they share. For tables that were reduced (by principal components) apart.
    names : sequence of str, optional
        What to call the models; their folders' names where absent.
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
    if kind.moments:
        raise InvalidInputError(
            f"{WHO} has no moments for {kind.registered_name!r}: no labels are read here; take another method"
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
    merge = _Merge(inputs, start, w, kind, chosen, rotation)
    record = _record(merge, report, accept)
    make_folder(place.parent)
    temporary = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.parent))
    try:
        copy_small_files(inputs[0], temporary)
        merge.write(temporary)
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


class _Merge:
    """One merge, ready to be written."""

    def __init__(
        self,
        inputs: list[MergeInput],
        base: MergeInput | None,
        weights: Weights | None,
        method: type[MergeMethod],
        options: dict[str, Any],
        rotation: str,
    ) -> None:
        self.inputs, self.base, self.weights, self.method, self.options = inputs, base, weights, method, options
        self.rotation = rotation
        everyone = [*inputs, *([] if base is None else [base])]
        # a uniform method must see a zero to refuse it
        asked = range(len(inputs)) if weights is None or method.uniform else np.flatnonzero(weights).tolist()
        self.involved = sorted({0, *asked})
        first = inputs[0]
        ours = first.tensors.entries
        self.table = first.kind.table(ours)
        common = [name for name in ours if all(name in one.tensors.entries for one in everyone)]
        # what only the first model has, and no vector depends on; the report has refused anything else
        self.kept = [name for name in ours if name not in common]
        self.left_out = sorted(
            {n for one in inputs[1:] for n, (t, _) in one.tensors.entries.items() if n not in ours and is_unread(n, t)}
        )
        self.plan = self._plan()
        self.names = [name for name in common if self.plan is None or name != self.table]
        self.types = {n: np.result_type(*(in_memory(one.tensors.entries[n][0]) for one in everyone)) for n in common}
        self.tensors: list[Mapping[str, Array]] = [one.tensors for one in everyone]
        if rotation == "procrustes":
            self._rotate(everyone)

    def _plan(self) -> VocabularyPlan | None:
        """Plan the merged vocabulary; None where all have the same rows for the same tokens."""
        some = [self.inputs[i] for i in self.involved] + ([] if self.base is None else [self.base])
        # a table of another size has rows that belong to no token, or tokens of its own
        alike = not self.table or len({one.tensors.entries[self.table][1] for one in some}) == 1
        one_file = len({one.files.tokenizer_digest() for one in some}) == 1
        if alike and (one_file or same_ids([one.vocabulary for one in some])):
            return None
        if self.table is None:
            raise InvalidInputError(f"{WHO} does not know the token table of this architecture by name")
        known = {i: self.inputs[i].vocabulary for i in self.involved}
        rows = {i: self.inputs[i].tensors.entries[self.table][1][0] for i in self.involved}
        return plan_vocabulary(known, rows, [one.name for one in self.inputs], WHO)

    def _rotate(self, everyone: list[MergeInput]) -> None:
        first, table = self.inputs[0], self.table or ""
        if len(module_places(first.files)) > 1:
            raise InvalidInputError(
                f"{WHO} cannot rotate a table whose vectors go through a layer with weights of its own; leave rotation out"
            )
        for i, one in enumerate(everyone):
            if i and (i >= len(self.inputs) or i in self.involved):
                rows = shared_rows(first.vocabulary, one.vocabulary)
                matrix = procrustes(first.tensors[table], one.tensors[table], *rows)
                self.tensors[i] = Rotated(one.tensors, table, matrix)

    # -- tensors --------------------------------------------------------------------------------------------------

    def _merged(self, names: Sequence[str]) -> Iterator[tuple[str, Array]]:
        views = [View(tensors, names, self.types) for tensors in self.tensors]
        return iter_merged(
            views[: len(self.inputs)],
            self.weights,
            self.method,
            base=None if self.base is None else views[-1],
            names=[one.name for one in self.inputs],
            who=WHO,
            **self.options,
        )

    def _merged_table(self, plan: VocabularyPlan) -> Array:
        """Merge the token table row by row: each token among the models that have it."""
        name = self.table or ""
        tables = [tensors[name] for tensors in self.tensors]
        out = np.zeros((plan.n_rows, tables[0].shape[1]), dtype=self.types[name])
        out[: len(tables[0])] = tables[0]
        start = None if self.base is None else self.base.vocabulary
        for group in plan.groups:
            if len(group.holders) == 1:
                (only,) = group.holders
                out[group.rows] = tables[only][group.in_model[only]]
                continue
            in_base = np.array([-1 if start is None else start.ids.get(token, -1) for token in group.tokens])
            for has_base in (True, False):
                part = np.flatnonzero((in_base >= 0) == has_base)
                method, options = (
                    (self.method, self.options) if has_base or start is None else (make_method("linear"), {})
                )
                # rows of an elementwise method do not know of each other, and a few at a time take little memory
                pieces = max(1, len(part) // _ROWS) if method.elementwise else 1
                for some in np.array_split(part, pieces):
                    if not len(some):
                        continue
                    rows = [{name: tables[i][group.in_model[i][some]].astype(self.types[name])} for i in group.holders]
                    origin = {name: tables[-1][in_base[some]].astype(self.types[name])} if has_base else None
                    merged = merge_tensors(
                        rows,
                        self._weights_of(group.holders),
                        method,
                        base=origin,
                        names=[self.inputs[i].name for i in group.holders],
                        who=WHO,
                        **options,
                    )
                    out[group.rows[some]] = merged[name]
        return out

    def _weights_of(self, holders: Sequence[int]) -> Weights | None:
        if self.weights is None:
            return None
        some = self.weights[list(holders)]
        if self.method.on == "deltas" or self.method.uniform or not some.sum():
            return some
        found: Weights = some if len(some) == len(self.weights) else some * (self.weights.sum() / some.sum())
        return found

    # -- files ----------------------------------------------------------------------------------------------------

    def write(self, folder: Path) -> None:
        """Write weights, and the tokenizer and configuration where the vocabulary has grown."""
        first = self.inputs[0]
        places = module_places(first.files)
        for prefix, place in places.items():
            of = [n for n in first.tensors.entries if n.startswith(prefix) and (prefix or "/" not in n)]
            entries = {n[len(prefix) :]: first.tensors.entries[n] for n in of}
            if self.plan is not None and not prefix:
                kind, shape = entries[str(self.table)]
                entries[str(self.table)] = (kind, (self.plan.n_rows, *shape[1:]))
            target = folder / place.relative_to(first.files.folder)
            make_folder(target)
            write_safetensors(target / "model.safetensors", entries, self._stream(of, prefix))
        if self.plan is not None:
            self._write_vocabulary(folder, self.plan)

    def _stream(self, of: Sequence[str], prefix: str) -> Iterator[tuple[str, Array]]:
        first = self.inputs[0]
        for name in of:
            if name in self.kept:
                yield name[len(prefix) :], first.tensors[name]
        if self.plan is not None and not prefix:
            yield str(self.table), self._merged_table(self.plan)
        names = [n for n in of if n in set(self.names)]
        if names:
            yield from ((name[len(prefix) :], array) for name, array in self._merged(names))

    def _write_vocabulary(self, folder: Path, plan: VocabularyPlan) -> None:
        first = self.inputs[0]
        inner = folder / first.files.first.relative_to(first.files.folder)
        config = json.loads(text) if (text := _text(inner / "config.json")) else None
        if config is not None and plan.n_rows != first.tensors.entries[str(self.table)][1][0]:
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


def _record(merge: _Merge, report: CompatibilityReport, accept: Sequence[str]) -> dict[str, Any]:
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
        "options": merge.options,
        "rotation": merge.rotation,
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
