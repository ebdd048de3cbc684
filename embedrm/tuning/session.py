"""A base, a problem and a run, put together from a configuration and data."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedrm.datasets import PreferenceDataset
from embedrm.datasets.template import Template
from embedrm.errors import InvalidInputError
from embedrm.tuning.base import TrainableBase, find_base
from embedrm.tuning.config import TuningConfig
from embedrm.tuning.loop import Run, reseed, seeded
from embedrm.tuning.methods import import_peft, prepare
from embedrm.tuning.problem import Problem
from embedrm.tuning.texts import plain_texts


@dataclass
class Session:
    """Everything of one tuning run in memory.

    Attributes
    ----------
    base : TrainableBase
    adapters : peft.PeftModel or None
    problem : Problem
    run : Run
    data_digest : str
        Of the data set's content, or of the texts.
    """

    base: TrainableBase
    adapters: Any
    problem: Problem
    run: Run
    data_digest: str

    def classes(self) -> list[str] | None:
        """The domains of the head, None where it is no classifier."""
        classes = getattr(self.problem, "classes", None)
        return None if classes is None else classes.tolist()

    def head_arrays(self) -> dict[str, NDArray[np.float32]]:
        """Arrays of a head that is of use after tuning."""
        if self.run.config.objective not in ("bradley-terry", "domain"):
            return {}
        return {name: value.detach().numpy().copy() for name, value in self.problem.head.state_dict().items()}


def open_session(
    config: TuningConfig,
    data: PreferenceDataset | Sequence[str],
    groups: Sequence[object] | None,
    template: Template,
) -> Session:
    """Check everything that can be checked cheaply, then load the base and lay out the run."""
    labelled = config.objective in ("bradley-terry", "domain")
    if labelled and not isinstance(data, PreferenceDataset):
        raise InvalidInputError(
            f"objective={config.objective!r} needs a PreferenceDataset, got {type(data).__name__}; plain texts are for "
            "'masked-token' and 'contrastive'"
        )
    if labelled and groups is not None:
        raise InvalidInputError("groups are for plain texts; a data set has its own. Leave them out.")
    if config.method == "lora":
        import_peft("tuning with method='lora'")
    texts, names = ([], []) if labelled else plain_texts(data, groups, template)
    encoder = find_base(config)
    with seeded():
        reseed(config.random_state)
        base = TrainableBase(encoder, config.dropout)
        problem = _problem(base, data, texts, names, template, config)
        adapters = prepare(base, config)
    if not len(problem.training):
        raise InvalidInputError("nothing is left to train on. Give more data, or a smaller validation_fraction.")
    digest = data.fingerprint() if isinstance(data, PreferenceDataset) else _digest(texts, names)
    return Session(base, adapters, problem, Run(base, problem, config), digest)


def _problem(
    base: TrainableBase, data: Any, texts: list[str], groups: list[str], template: Template, config: TuningConfig
) -> Problem:
    if config.objective == "bradley-terry":
        from embedrm.tuning.pairs import PairProblem

        return PairProblem(base, data, template, config)
    if config.objective == "domain":
        from embedrm.tuning.domains import DomainProblem

        return DomainProblem(base, data, template, config)
    if config.objective == "masked-token":
        from embedrm.tuning.masked import MaskedTokenProblem

        return MaskedTokenProblem(base, texts, groups, config)
    from embedrm.tuning.contrastive import ContrastiveProblem

    return ContrastiveProblem(base, texts, groups, config)


def _digest(texts: Sequence[str], groups: Sequence[str]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for text in (*texts, *groups):
        data = text.encode()
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()
