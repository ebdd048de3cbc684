"""Routers: from a prompt's vector to domain probabilities. One router, one file."""

from embedrm.registry import Registry

ROUTERS = Registry("router", "embedrm.routers")

__all__ = ["ROUTERS"]
