"""From views to features: which terms over which matrices, and how they are scaled. One featurizer, one file."""

from embedrm.registry import Registry

FEATURIZERS: Registry = Registry("featurizer", "embedrm.featurizers")

from embedrm.featurizers.terms import Featurizer  # noqa: E402  (the registry must exist before a class registers)

__all__ = ["FEATURIZERS", "Featurizer"]
