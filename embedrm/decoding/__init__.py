"""Rewards of prefixes and next tokens: heads on a frozen language model's states, and decoding guided by them.

What is exported is imported when it is first asked for: importing this package imports neither torch nor scikit-learn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embedrm.registry import Registry

if TYPE_CHECKING:
    from embedrm.decoding.arm import ARMHead
    from embedrm.decoding.base import PrefixHead
    from embedrm.decoding.candidates import CandidateFilter
    from embedrm.decoding.generation import Generation, generate
    from embedrm.decoding.processors import ARMProcessor, RADProcessor
    from embedrm.decoding.rad import RADHead
    from embedrm.decoding.redistribution import Redistribution, redistribute
    from embedrm.decoding.reranking import Chain, Choice, best_of_n, language_model_steps, search_steps, step_rewards
    from embedrm.decoding.spectrum import Spectrum, reward_matrix
    from embedrm.decoding.steps import AGGREGATIONS, Aggregation, aggregate

PREFIX_HEADS = Registry("prefix head", "embedrm.decoding")

_LAZY = {
    "AGGREGATIONS": "embedrm.decoding.steps",
    "ARMHead": "embedrm.decoding.arm",
    "ARMProcessor": "embedrm.decoding.processors",
    "Aggregation": "embedrm.decoding.steps",
    "CandidateFilter": "embedrm.decoding.candidates",
    "Chain": "embedrm.decoding.reranking",
    "Choice": "embedrm.decoding.reranking",
    "Generation": "embedrm.decoding.generation",
    "PrefixHead": "embedrm.decoding.base",
    "RADHead": "embedrm.decoding.rad",
    "RADProcessor": "embedrm.decoding.processors",
    "Redistribution": "embedrm.decoding.redistribution",
    "Spectrum": "embedrm.decoding.spectrum",
    "aggregate": "embedrm.decoding.steps",
    "best_of_n": "embedrm.decoding.reranking",
    "generate": "embedrm.decoding.generation",
    "language_model_steps": "embedrm.decoding.reranking",
    "redistribute": "embedrm.decoding.redistribution",
    "reward_matrix": "embedrm.decoding.spectrum",
    "search_steps": "embedrm.decoding.reranking",
    "step_rewards": "embedrm.decoding.reranking",
}

# ``spectrum`` is a module here, and its function is got from there
__all__ = [
    "AGGREGATIONS",
    "ARMHead",
    "ARMProcessor",
    "Aggregation",
    "CandidateFilter",
    "Chain",
    "Choice",
    "Generation",
    "PREFIX_HEADS",
    "PrefixHead",
    "RADHead",
    "RADProcessor",
    "Redistribution",
    "Spectrum",
    "aggregate",
    "best_of_n",
    "generate",
    "language_model_steps",
    "redistribute",
    "reward_matrix",
    "search_steps",
    "step_rewards",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        from importlib import import_module

        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
