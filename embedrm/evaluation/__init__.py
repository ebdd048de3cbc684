"""Honest evaluation: accuracy with one tie rule, intervals clustered by prompt group, paired comparisons."""

from embedrm.evaluation.best_of_n import best_of_n_facts, select_best
from embedrm.evaluation.comparison import comparison_facts
from embedrm.evaluation.connectivity import connectivity_facts, diagnose_comparisons
from embedrm.evaluation.noise_ceiling import ceiling_facts
from embedrm.evaluation.pairwise import accuracy_facts
from embedrm.evaluation.reliability import reliability_facts
from embedrm.evaluation.routing import regret_facts, router_facts
from embedrm.evaluation.wrong_expert import wrong_expert_facts

__all__ = [
    "accuracy_facts",
    "best_of_n_facts",
    "ceiling_facts",
    "comparison_facts",
    "connectivity_facts",
    "diagnose_comparisons",
    "regret_facts",
    "reliability_facts",
    "router_facts",
    "select_best",
    "wrong_expert_facts",
]
