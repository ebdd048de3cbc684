"""Best-of-n with merged and other rewards: models choose among real candidates, gold judges the choices."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from embedrm.datasets.preference import PreferenceDataset
from embedrm.errors import InvalidInputError
from embedrm.evaluation.best_of_n import best_of_n_facts, select_best
from embedrm.numerics.bootstrap import N_RESAMPLES
from embedrm.pipeline import RewardPipeline
from embedrm.preferences import EmbeddedPreferences, EmbeddedResponses
from embedrm.progress import Progress, silent
from embedrm.reporting import best_of_n as parts
from embedrm.reporting.report import Report
from embedrm.reward_model import RewardModel

Array = NDArray[np.float64]
Data = EmbeddedPreferences | EmbeddedResponses | PreferenceDataset
Rewards = RewardModel | RewardPipeline | Callable[[Any], ArrayLike] | ArrayLike


class BestOfNStudy:
    """Rewards of several models on the same candidates, and what their choices are worth.

    Parameters
    ----------
    models : mapping of name to model, function or array
        A fitted reward model (of ``data``'s vectors), a :class:`embedrm.RewardPipeline` (where ``data`` are texts), a
        function of ``data``, or an array: in the end one reward a response, (n_responses,), as merged encoders give them.
        Rewards need one scale within a prompt only.
    data : EmbeddedPreferences, EmbeddedResponses or PreferenceDataset
        Candidates with gold. Their pairs, if any, are not read.
    reference : str, optional
        The model that the others are compared with; the first where absent.
    compare : sequence of (str, str)
        Further differences, the first less the second.
    progress : Progress
    n_resamples : int
        Bootstrap draws of whole prompt groups.
    **options
        Of :func:`embedrm.evaluation.best_of_n.best_of_n_facts`: ``ns``, ``estimator``, ``prompts``, ``missing``, ``gold``,
        ``same_prompts``, ``n_permutations``, ``random_state``.

    Attributes
    ----------
    responses : EmbeddedResponses
        The candidates; without vectors where ``data`` are texts.
    rewards : dict of str to ndarray of shape (n_responses,)

    Raises
    ------
    InvalidInputError
        As :func:`embedrm.evaluation.best_of_n.best_of_n_facts`, and for a model that cannot read ``data``.

    Notes
    -----
    An analogue of the best-of-n experiment of Lin et al. (2024) with the rewards at hand: what the paper's claim would be
    judged by, ``facts()["differences"]``, is left to the caller, who knows at which level the rewards were merged.
    """

    def __init__(
        self,
        models: Mapping[str, Rewards],
        data: Data,
        *,
        reference: str | None = None,
        compare: Sequence[tuple[str, str]] = (),
        progress: Progress = silent,
        n_resamples: int = N_RESAMPLES,
        **options: Any,
    ) -> None:
        self.responses = responses_of(data)
        if not models:
            raise InvalidInputError("BestOfNStudy expects at least one model, got none")
        step = progress("score candidates")
        self.rewards: dict[str, Array] = {}
        for done, (name, model) in enumerate(models.items(), start=1):
            self.rewards[name] = _rewards(name, model, data)
            step(done, len(models))
        self._facts = best_of_n_facts(
            self.rewards, self.responses, reference=reference, compare=compare, n_resamples=n_resamples, **options
        )
        self._prompts = options.get("prompts")

    def facts(self) -> dict[str, Any]:
        """Return everything measured, as plain values."""
        return self._facts

    def difference(self, model: str, reference: str, n: int | None = None) -> dict[str, Any]:
        """Return one difference at one n (the headline's where absent): ``{value, low, high, p, p_holm}`` over prompts."""
        facts = self._facts
        found = [d for d in facts["differences"] if (d["model"], d["reference"]) == (model, reference)]
        at = facts["headline"] if n is None else n
        if not found or at not in facts["ns"]:
            known = ", ".join(f"{d['model']} − {d['reference']}" for d in facts["differences"]) or "none"
            raise InvalidInputError(
                f"{model} − {reference} at n = {at} was not measured; measured were {known}, at n = "
                f"{', '.join(map(str, facts['ns']))}"
            )
        cell: dict[str, Any] = found[0]["micro"][facts["ns"].index(at)]
        return cell

    def selected(self, model: str, n: int | None = None) -> dict[str, Any]:
        """Return the responses that a model chooses; see :func:`embedrm.evaluation.best_of_n.select_best`."""
        if model not in self.rewards:
            raise InvalidInputError(f"there is no model {model!r} here; there are {', '.join(self.rewards)}")
        return select_best(self.rewards[model], self.responses, n=n, prompts=self._prompts)

    def findings(self) -> list[str]:
        """Return what to take away, one sentence each."""
        return parts.best_of_n_findings(self._facts)

    def add_sections(self, report: Report, name: str = "best-of-n", title: str = "Best of n", text: str = "") -> None:
        """Add tables and figures to a report; ``name`` begins their names, so that several studies fit in one report."""
        facts = self._facts
        tables = [
            parts.best_of_n_table(facts, name, f"{title}: gold of the choice"),
            parts.detail_table(facts, f"{name}-detail"),
        ]
        if facts["differences"] and max(facts["ns"]) > 1:
            tables.append(parts.differences_table(facts, f"{name}-differences"))
        if len(facts["domains"]) > 1:
            tables.append(parts.domains_table(facts, f"{name}-domains"))
        figures = [
            parts.best_of_n_figure(facts, name, f"{title}: gold of the choice"),
            parts.proxy_figure(facts, f"{name}-proxy"),
        ]
        said = [text] if text else []
        report.add_section(title, [*said, parts.paper_sentence(facts)], tables=tables, figures=figures)


def responses_of(data: Data) -> EmbeddedResponses:
    """Return prompts, gold and lengths of any kind of data; without vectors of texts."""
    if isinstance(data, EmbeddedPreferences):
        return data.responses
    if isinstance(data, EmbeddedResponses):
        return data
    if not isinstance(data, PreferenceDataset):
        raise InvalidInputError(
            "BestOfNStudy expects EmbeddedPreferences, EmbeddedResponses or a PreferenceDataset, got "
            f"{type(data).__name__}"
        )
    prompts, table = data.prompts, data.responses
    return EmbeddedResponses(
        {},
        table["prompt_of"].to_numpy(),
        domain=prompts["domain"].to_numpy(dtype=object),
        group=prompts["group"].to_numpy(dtype=object),
        split=prompts["split"].to_numpy(dtype=object),
        gold=table["gold"].to_numpy(dtype=np.float64),
        covariates={"characters": table["characters"].to_numpy(dtype=np.float64)},
        info={"data": {"name": data.name, "fingerprint": data.fingerprint()}},
    )


def _rewards(name: str, model: Rewards, data: Data) -> Array:
    texts = isinstance(data, PreferenceDataset)
    if isinstance(model, RewardModel) and texts:
        raise InvalidInputError(f"{name!r} reads vectors, and texts came; give encode(data, ...) or a RewardPipeline")
    if isinstance(model, RewardPipeline) and not texts:
        raise InvalidInputError(
            f"{name!r} reads texts, and vectors came; give the PreferenceDataset or its model alone"
        )
    if isinstance(model, (RewardModel, RewardPipeline)):
        return model.predict(data)  # type: ignore[arg-type]
    found = model(data) if callable(model) else model
    return np.asarray(found, dtype=np.float64)
