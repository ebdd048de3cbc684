"""Generated domains: prompts in a cluster for each, and a known linear reward in each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from head_comparison import STD, vectors

from embedrm import EmbeddedPreferences

# Distance of the domains' clusters and share of the prompt in a response, against the spread of prompts and responses.
APART, OF_PROMPT = 0.6, 0.5


@dataclass(frozen=True)
class World:
    """Domains: the mean prompt of each, (n_domains, dim), and the direction of its reward, (n_domains, dim)."""

    centres: np.ndarray
    teachers: np.ndarray

    @classmethod
    def draw(cls, rng: np.random.Generator, domains: int, dim: int, shared: float) -> World:
        """``shared`` is the expected cosine of two domains' directions; at -1, every other domain wants the opposite."""
        common = rng.standard_normal(dim)
        if shared < 0:
            return cls(
                APART * vectors(rng, domains, dim), np.where(np.arange(domains) % 2, -1.0, 1.0)[:, None] * common
            )
        own = rng.standard_normal((domains, dim))
        return cls(APART * vectors(rng, domains, dim), np.sqrt(shared) * common + np.sqrt(1.0 - shared) * own)

    def preferences(self, rng: np.random.Generator, domain_of: np.ndarray) -> EmbeddedPreferences:
        """One pair of responses for each prompt, the better by the known reward first."""
        prompts, responses = self.texts(rng, domain_of, 2)
        own = np.einsum("nkd,nd->nk", responses.astype(np.float64), self.teachers[domain_of])
        own *= STD / np.sqrt(0.5 * np.square(own[:, 0] - own[:, 1]).mean())
        # lengths that say nothing of the reward
        lengths = rng.integers(50, 2000, size=own.size)
        return EmbeddedPreferences.from_arrays(
            responses, prompt=prompts, rewards=own, domain=names(domain_of), covariates={"characters": lengths}
        )

    def texts(self, rng: np.random.Generator, domain_of: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Vectors of prompts (n, dim) and of k responses to each (n, k, dim), float32."""
        n, dim = len(domain_of), self.centres.shape[1]
        prompts = self.centres[domain_of] + vectors(rng, n, dim)
        responses = vectors(rng, n * k, dim).reshape(n, k, dim) + np.float32(OF_PROMPT) * prompts[:, None]
        return prompts, responses


def names(domain_of: np.ndarray) -> list[str]:
    """Names of domains by their numbers."""
    return [f"domain {d:02d}" for d in domain_of]


def uneven(total: int, domains: int) -> np.ndarray:
    """Domain of each of so many prompts; the largest domain has about eight times the prompts of the smallest."""
    share = np.geomspace(8.0, 1.0, domains)
    counts = np.maximum(2, np.floor(total * share / share.sum())).astype(int)
    counts[0] += total - counts.sum()
    return np.repeat(np.arange(domains), counts)
