"""From views to features: which terms over which matrices, and how they are scaled."""

from embedrm.featurizers.terms import Featurizer

__all__ = ["Featurizer"]
