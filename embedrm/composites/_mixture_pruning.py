"""Fewer or smaller experts for a fitted mixture, and what is left of its accuracy."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from sklearn.utils.validation import check_is_fitted

from embedrm.composites._mixture_checks import is_count
from embedrm.errors import InvalidInputError, unknown_name
from embedrm.featurizers import Featurizer
from embedrm.numerics.graph import gather_margins
from embedrm.preferences import EmbeddedPreferences, EmbeddedResponses, Rows
from embedrm.reward_model import RewardModel, check_preferences

Array = NDArray[np.float64]
RULES = ("load", "likeness")
_WHO = "MixtureRewardModel"

Self = TypeVar("Self", bound="Pruning")


class Pruning(RewardModel):
    """Drop, merge and compress the experts of a fitted mixture; nothing is trained again, and the original stays.

    Attributes
    ----------
    basis_ : ndarray of shape (n_features_in_, rank), loadings_ : ndarray of shape (rank, n_experts_)
        Experts as ``basis_ @ loadings_`` after :meth:`compress`; of rank 0 before, when ``coef_`` holds them.
    """

    featurizer_: Featurizer
    n_experts_: int
    k_: int
    expert_of_: Rows
    expert_names_: list[str]
    coef_: Array
    basis_: Array
    loadings_: Array
    weights_: list[Any]
    biases_: list[Any]
    gate_weights_: Array
    gate_bias_: Array

    def gates(self, responses: EmbeddedResponses, prompts: Rows | None = None) -> Array:
        """Weight of each expert for each prompt."""
        raise TypeError(f"{type(self).__name__} does not implement gates")

    def _columns(self, responses: EmbeddedResponses, rows: Rows | None) -> Array:
        raise TypeError(f"{type(self).__name__} does not implement _columns")

    def linear_weights(self) -> Array:
        """Weights (n_features_in_, n_columns) of linear experts and, last, of the shared part."""
        if not self.basis_.shape[1]:
            return self.coef_
        return np.concatenate([self.basis_ @ self.loadings_, self.coef_], axis=1)

    def prune(self: Self, preferences: EmbeddedPreferences, keep: int, by: str = "load") -> Self:
        """Return a mixture of fewer experts.

        Parameters
        ----------
        preferences : EmbeddedPreferences
            On which the experts are judged; training or validation pairs.
        keep : int
            Experts left.
        by : {"load", "likeness"}
            ``"load"`` drops the experts of the smallest mean gate; their prompts go to the others. ``"likeness"`` merges,
            two at a time, the experts whose margins correlate most: linear ones into their mean by importance,
            perceptrons into the more important one; prompts of both then go to the merged one.
        """
        check_is_fitted(self, "gate_bias_")
        prefs = check_preferences(preferences, f"{_WHO}.prune")
        if by not in RULES:
            raise unknown_name("rule of pruning", by, RULES)
        if not (is_count(keep) and 1 <= keep <= self.n_experts_):
            raise InvalidInputError(
                f"{_WHO}.prune keeps a whole number of experts from 1 to {self.n_experts_}, got {keep!r}"
            )
        importance = self._importance(prefs)
        model: Self = copy.copy(self)
        if by == "load":
            kept = np.sort(np.argsort(-importance, kind="stable")[:keep])
            groups = [[int(e)] for e in kept]
        else:
            groups = _merge_order(self._expert_margins(prefs), importance, keep)
        model._take_experts(groups, importance)
        return model

    def compress(self: Self, preferences: EmbeddedPreferences, rank: int) -> Self:
        """Return a mixture whose linear experts share a basis of ``rank`` directions.

        The directions are those that keep most of the experts' margins on the pairs: the leading eigenvectors of their
        second moments.
        """
        check_is_fitted(self, "gate_bias_")
        prefs = check_preferences(preferences, f"{_WHO}.compress")
        if self.weights_:
            raise InvalidInputError(f"{_WHO}.compress needs linear experts, got perceptrons; prune them instead")
        if not (is_count(rank) and 1 <= rank <= self.n_experts_):
            raise InvalidInputError(f"{_WHO}.compress needs a rank from 1 to {self.n_experts_}, got {rank!r}")
        margins = self._expert_margins(prefs)
        _, vectors = np.linalg.eigh(margins.T @ margins)
        leading = vectors[:, ::-1][:, :rank]
        weights = self.linear_weights()
        model: Self = copy.copy(self)
        model.basis_, model.loadings_ = weights[:, : self.n_experts_] @ leading, leading.T.copy()
        model.coef_ = weights[:, self.n_experts_ :].copy()
        return model

    def parameter_counts(self) -> dict[str, int]:
        """Numbers stored (``total``), read for one prompt (``active``), and the gate's, which are in both (``gate``)."""
        check_is_fitted(self, "gate_bias_")
        gate = self.gate_weights_.size + self.gate_bias_.size if self.n_experts_ > 1 else 0
        n, k = self.n_experts_, min(self.k_, self.n_experts_)
        if self.weights_:
            each = sum(w[0].size for w in self.weights_) + sum(b[0].size for b in self.biases_)
            shared = (len(self.weights_[0]) - n) * each
            return {"total": gate + shared + n * each, "active": gate + shared + k * each, "gate": gate}
        rank = self.basis_.shape[1]
        if rank:
            total, active = self.coef_.size + self.basis_.size + n * rank, self.coef_.size + self.basis_.size + k * rank
        else:
            each = len(self.coef_)
            total = self.coef_.size
            active = total - (n - k) * each
        return {"total": gate + total, "active": gate + active, "gate": gate}

    def size_facts(
        self,
        preferences: EmbeddedPreferences,
        test: EmbeddedPreferences,
        keep: Iterable[int] = (),
        ranks: Iterable[int] = (),
    ) -> list[dict[str, Any]]:
        """Accuracy against parameters of this mixture and of smaller ones made of it.

        Parameters
        ----------
        preferences : EmbeddedPreferences
            By which experts are dropped, merged and compressed; not the test pairs.
        test : EmbeddedPreferences
            On which accuracy is measured.
        keep, ranks : iterable of int
            Arguments of :meth:`prune`, under both rules, and of :meth:`compress`.

        Returns
        -------
        list of dict
            ``model``, ``n_experts``, ``accuracy``, ``total_parameters``, ``active_parameters``, and ``accuracy_per_active``,
            points above one half for every million active parameters.
        """
        models: dict[str, Pruning] = {"all experts": self}
        for n in keep:
            models |= {f"{n} experts by {by}": self.prune(preferences, n, by) for by in RULES}
        models |= {f"experts of rank {rank}": self.compress(preferences, rank) for rank in ranks}
        rows = []
        for name, model in models.items():
            counts, accuracy = model.parameter_counts(), model.score(test)
            rows.append(
                {
                    "model": name,
                    "n_experts": model.n_experts_,
                    "accuracy": accuracy,
                    "total_parameters": counts["total"],
                    "active_parameters": counts["active"],
                    "accuracy_per_active": 1e6 * 100.0 * (accuracy - 0.5) / counts["active"],
                }
            )
        return rows

    def _importance(self, prefs: EmbeddedPreferences) -> Array:
        """Mean gate of every expert, prompts by the weight of their pairs."""
        rows, local = np.unique(prefs.prompt_rows, return_inverse=True)
        weight = np.bincount(local, weights=prefs.weight)
        mean: Array = weight @ self.gates(prefs.responses, rows) / max(float(weight.sum()), 1e-300)
        return mean

    def _expert_margins(self, prefs: EmbeddedPreferences) -> Array:
        """Margins of the pairs under every expert, without the shared part; shape (n_pairs, n_experts_).

        Times the roots of the pairs' weights, so that second moments count each pair by its weight.
        """
        columns = self._columns(prefs.responses, prefs.active)[:, : self.n_experts_]
        weighted: Array = gather_margins(columns, prefs.local_pairs) * np.sqrt(prefs.weight)[:, None]
        return weighted

    def _take_experts(self, groups: list[list[int]], importance: Array) -> None:
        """Keep one expert for each group of old ones; gates of experts in no group go."""
        n = self.n_experts_
        mixing = np.zeros((n, len(groups)))
        for new, members in enumerate(groups):
            share = importance[members]
            mixing[members, new] = share / share.sum() if share.sum() > 0 else 1.0 / len(members)
        first = [members[int(np.argmax(importance[members]))] for members in groups]
        if self.weights_:
            columns = [*first, *range(n, len(self.weights_[0]))]
            self.weights_ = [w[columns] for w in self.weights_]
            self.biases_ = [b[columns] for b in self.biases_]
        elif self.basis_.shape[1]:
            self.loadings_ = self.loadings_ @ mixing
        else:
            self.coef_ = np.ascontiguousarray(np.concatenate([self.coef_[:, :n] @ mixing, self.coef_[:, n:]], axis=1))
        new_of = np.full(n, -1)
        for new, members in enumerate(groups):
            new_of[members] = new
        open_gates = new_of[self.expert_of_] >= 0
        self.expert_of_ = new_of[self.expert_of_[open_gates]]
        self.gate_weights_ = np.ascontiguousarray(self.gate_weights_[:, open_gates])
        self.gate_bias_ = self.gate_bias_[open_gates]
        self.k_ = min(self.k_, len(self.gate_bias_))
        self.expert_names_ = [" + ".join(self.expert_names_[e] for e in members) for members in groups]
        self.n_experts_ = len(groups)


def _merge_order(margins: Array, importance: Array, keep: int) -> list[list[int]]:
    """Groups of experts, the two most alike joined until ``keep`` are left; in the order of their first members."""
    groups = [[e] for e in range(margins.shape[1])]
    shares = importance.copy()
    columns = margins.copy()
    while len(groups) > keep:
        spread = np.sqrt(np.maximum((columns**2).sum(axis=0), 1e-300))
        alike = (columns.T @ columns) / np.outer(spread, spread)
        alike[np.tril_indices(len(groups))] = -np.inf
        a, b = np.unravel_index(int(np.argmax(alike)), alike.shape)
        total = shares[a] + shares[b]
        part = shares[a] / total if total > 0 else 0.5
        columns[:, a] = part * columns[:, a] + (1 - part) * columns[:, b]
        shares[a] = total
        groups[a] = groups[a] + groups[b]
        columns, shares = np.delete(columns, b, axis=1), np.delete(shares, b)
        del groups[b]
    return [sorted(members) for members in groups]
