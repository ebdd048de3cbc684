"""Reproduced papers: one paper, one file. Each registers itself and gives a tour section and a full study."""

from embedrm.registry import Registry

PAPERS = Registry("paper", "embedrm.experiments.papers")

__all__ = ["PAPERS"]
