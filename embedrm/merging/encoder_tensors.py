"""The tensors of several encoders merged: which there are, and the token table row by row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedrm.errors import InvalidInputError
from embedrm.merging.encoder_inputs import MergeInput
from embedrm.merging.encoder_parts import Rotated, View, mean_moment, open_moments
from embedrm.merging.encoder_report import is_unread, shared_rows
from embedrm.merging.kinds.base import module_places
from embedrm.merging.methods.base import MergeMethod, Weights, make_method
from embedrm.merging.rotation import procrustes
from embedrm.merging.safetensor_files import Array, in_memory
from embedrm.merging.tensors import each_piece, iter_merged, merge_tensors
from embedrm.merging.vocabulary import VocabularyPlan, plan_vocabulary, same_ids

WHO = "merge_encoders"
# Rows of a token table that an elementwise method merges at a time.
_ROWS = 4096


class EncoderMerge:
    """One merge of encoders that were found to be compatible; :meth:`stream` yields its tensors."""

    def __init__(
        self,
        inputs: list[MergeInput],
        base: MergeInput | None,
        weights: Weights | None,
        method: type[MergeMethod],
        options: dict[str, Any],
        rotation: str,
        moments: Sequence[str | Path] | None,
    ) -> None:
        self.inputs, self.base, self.weights, self.method, self.options = inputs, base, weights, method, options
        self.rotation = rotation
        everyone = [*inputs, *([] if base is None else [base])]
        # a uniform method must see a zero to refuse it
        self.asked = list(range(len(inputs))) if weights is None or method.uniform else np.flatnonzero(weights).tolist()
        self.involved = sorted({0, *self.asked})
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
        self.moments = [] if moments is None else open_moments(moments, inputs, common, rotation, WHO)
        if self.moments and isinstance(options.get("floor"), (int, float)):
            # moments of encoders are as small as 1e-8, and grow with the head: what is little is a share of their mean
            self.options = {**options, "floor": options["floor"] * mean_moment([self.moments[i] for i in self.asked])}
        self.known = self._known()

    def _known(self) -> dict[str, Any]:
        """Find what the method must know of whole models: a list with one entry for each that has a weight."""
        options = self.method.of_models(self.options, len(self.inputs), self.asked)
        return self.method.survey([partial(self._pieces, i) for i in self.asked], options)

    def _pieces(self, i: int) -> Iterator[Array]:
        """Yield all that is merged of a model, in the order in which it is."""
        name, tensors = self.inputs[i].name, [self.tensors[i], *([] if self.base is None else [self.tensors[-1]])]
        for group in self.plan.groups if self.plan is not None else ():
            if len(group.holders) > 1 and i in group.holders:
                part, in_base = self._in_base(group.tokens)
                some = [self._rows(t, r) for t, r in zip(tensors, (group.in_model[i][part], in_base[part]))]
                yield from each_piece(some[0], some[1] if self.base is not None else None, name, WHO)
        views = [View(t, self.names, self.types) for t in tensors]
        yield from each_piece(views[0], views[1] if self.base is not None else None, name, WHO)

    def _in_base(self, tokens: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return (places of the tokens that the base has, all where there is no base; each token's row there or -1)."""
        start = None if self.base is None else self.base.vocabulary
        rows = np.array([0 if start is None else start.ids.get(token, -1) for token in tokens], dtype=np.int64)
        return np.flatnonzero(rows >= 0), rows

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
            moments=[View(m, names) for m in self.moments] or None,
            known=self.known,
            **self.options,
        )

    def _merged_table(self, plan: VocabularyPlan) -> Array:
        """Merge the token table row by row: each token among the models that have it."""
        name = self.table or ""
        n_rows, dim = self.inputs[0].tensors.entries[name][1]
        out = np.zeros((plan.n_rows, dim), dtype=self.types[name])
        out[:n_rows] = self.tensors[0][name]
        for group in plan.groups:
            if len(group.holders) == 1:
                (only,) = group.holders
                out[group.rows] = self.tensors[only][name][group.in_model[only]]
                continue
            shared, in_base = self._in_base(group.tokens)
            for part in (shared, np.setdiff1d(np.arange(len(group.tokens)), shared)):
                # a token that the base lacks has no delta, and is averaged
                on_base = self.base is not None and part is shared
                method = self.method if on_base or self.base is None else make_method("linear")
                # rows of an elementwise method do not know of each other, and a few at a time take little memory
                pieces = max(1, len(part) // _ROWS) if method.elementwise else 1
                for some in np.array_split(part, pieces):
                    if not len(some):
                        continue
                    own = method is self.method
                    options = self.method.of_models(self.options, len(self.inputs), group.holders) if own else {}
                    rows = [group.in_model[i][some] for i in group.holders]
                    merged = merge_tensors(
                        [self._rows(self.tensors[i], row) for i, row in zip(group.holders, rows)],
                        self._weights_of(group.holders),
                        method,
                        base=self._rows(self.tensors[-1], in_base[some]) if on_base else None,
                        names=[self.inputs[i].name for i in group.holders],
                        who=WHO,
                        moments=self._moments_of(group.holders, rows) if own else None,
                        known=self._known_of(group.holders) if own else {},
                        **options,
                    )
                    out[group.rows[some]] = merged[name]
        return out

    def _rows(self, tensors: Mapping[str, Array], rows: NDArray[np.int64]) -> dict[str, Array]:
        # the table is asked for anew each time: pages of a file are held no longer than it is read
        name = str(self.table)
        return {name: tensors[name][rows].astype(self.types[name], copy=False)}

    def _moments_of(self, holders: Sequence[int], rows: Sequence[NDArray[np.int64]]) -> list[dict[str, Array]] | None:
        name = str(self.table)
        return [{name: self.moments[i][name][row]} for i, row in zip(holders, rows)] if self.moments else None

    def _known_of(self, holders: Sequence[int]) -> dict[str, Any]:
        return {key: [v for i, v in zip(self.asked, values) if i in holders] for key, values in self.known.items()}

    def _weights_of(self, holders: Sequence[int]) -> Weights | None:
        if self.weights is None:
            return None
        some = self.weights[list(holders)]
        if self.method.on == "deltas" or self.method.uniform or not some.sum():
            return some
        found: Weights = some if len(some) == len(self.weights) else some * (self.weights.sum() / some.sum())
        return found

    def stream(self, of: Sequence[str], prefix: str) -> Iterator[tuple[str, Array]]:
        """Yield the merged tensors of one module by their names without its prefix, in any order."""
        first = self.inputs[0]
        for name in of:
            if name in self.kept:
                yield name[len(prefix) :], first.tensors[name]
        if self.plan is not None and not prefix:
            yield str(self.table), self._merged_table(self.plan)
        names = [n for n in of if n in set(self.names)]
        if names:
            yield from ((name[len(prefix) :], array) for name, array in self._merged(names))
