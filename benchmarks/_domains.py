"""Generated domains: prompts in a cluster for each, and a known linear reward in each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embedrm import EmbeddedPreferences

STD = 2.0
# Spread of the domains' clusters against that of their prompts, in so many leading directions; a router errs now and then.
APART, LEADING = 0.7, 24
# Share of the prompt in a response, against its own part.
OF_PROMPT = 0.5


@dataclass(frozen=True)
class World:
    """Domains: the mean prompt of each, (n_domains, dim), and the direction of its reward, (n_domains, dim).

    All vectors are normal rows times ``mix`` (dim, dim): a spectrum that falls as 1/k, turned.
    """

    mix: np.ndarray
    centres: np.ndarray
    teachers: np.ndarray

    @classmethod
    def draw(cls, rng: np.random.Generator, domains: int, dim: int, shared: float) -> World:
        """``shared`` is the expected cosine of two domains' directions; at -1, every other domain wants the opposite."""
        turn = np.linalg.qr(rng.standard_normal((dim, dim)))[0]
        mix = (turn / np.sqrt(1.0 + np.arange(dim))[:, None]).astype(np.float32)
        apart = APART * rng.standard_normal((domains, dim)) * (np.arange(dim) < LEADING)
        common, own = rng.standard_normal(dim), rng.standard_normal((domains, dim))
        if shared < 0:
            teachers = np.where(np.arange(domains) % 2, -1.0, 1.0)[:, None] * common
        else:
            teachers = np.sqrt(shared) * common + np.sqrt(1.0 - shared) * own
        return cls(mix, apart.astype(np.float32) @ mix, teachers)

    def preferences(self, rng: np.random.Generator, domain_of: np.ndarray) -> EmbeddedPreferences:
        """One pair of responses for each prompt, the better by the known reward first."""
        prompts, responses = self.texts(rng, domain_of, 2)
        reward = np.einsum("nkd,nd->nk", responses.astype(np.float64), self.teachers[domain_of])
        reward *= STD / np.sqrt(0.5 * np.square(reward[:, 0] - reward[:, 1]).mean())
        # lengths that say nothing of the reward
        lengths = rng.integers(50, 2000, size=reward.size)
        return EmbeddedPreferences.from_arrays(
            responses, prompt=prompts, rewards=reward, domain=names(domain_of), covariates={"characters": lengths}
        )

    def texts(self, rng: np.random.Generator, domain_of: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Vectors of prompts (n, dim) and of k responses to each (n, k, dim), float32."""
        n, dim = len(domain_of), len(self.mix)
        prompts = self.centres[domain_of] + rng.standard_normal((n, dim), dtype=np.float32) @ self.mix
        own = rng.standard_normal((n * k, dim), dtype=np.float32) @ self.mix
        return prompts, own.reshape(n, k, dim) + np.float32(OF_PROMPT) * prompts[:, None]


def names(domain_of: np.ndarray) -> list[str]:
    """Names of domains by their numbers."""
    return [f"domain {d:02d}" for d in domain_of]


def uneven(total: int, domains: int) -> np.ndarray:
    """Domain of each of so many prompts; the largest domain has about eight times the prompts of the smallest."""
    share = np.geomspace(8.0, 1.0, domains)
    counts = np.maximum(2, np.floor(total * share / share.sum())).astype(int)
    counts[0] += total - counts.sum()
    return np.repeat(np.arange(domains), counts)
