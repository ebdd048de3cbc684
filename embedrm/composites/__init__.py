"""Models made of models: routed now; ensembles, mixtures and adapters obey the same contract."""

from embedrm.registry import Registry

COMPOSITES = Registry("composite model", "embedrm.composites")

__all__ = ["COMPOSITES"]
