"""Rewards, routes, sizes and latencies of tuned arms: what the literal study measures, without any judgement."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from embedrm.experiments.literal_arms import ARLISS, MORE, RODOS, SINGLE

if TYPE_CHECKING:
    from embedrm.datasets import PreferenceDataset

Array = NDArray[np.float64]
Score = Callable[[str, "PreferenceDataset"], Array]

PAPER_DOMAINS = 5
"""Domains of the paper, for which the parameters are told too."""
# Statistics that are saved with a gate, and not trained.
_NOT_PARAMETERS = frozenset({"head.mean", "head.scale"})


class TunedArms:
    """The tuned arms together, ready to score.

    Parameters
    ----------
    arms : mapping of str to TunedEncoder or TunedExperts
        By the names of :func:`embedrm.experiments.literal_arms.arms`.
    domains : sequence of str
        Of the experts, in their order.
    """

    def __init__(self, arms: Mapping[str, Any], domains: Sequence[str]) -> None:
        from embedrm.tuning.switch import AdapterSwitch

        self.single, self.more, self.router = arms["single"], arms["more"], arms["rodos-router"]
        self.domains = list(domains)
        self.experts = {d: arms[f"rodos-{i:02d}"] for i, d in enumerate(self.domains)}
        self.adapters = {d: arms[f"arliss-{i:02d}"] for i, d in enumerate(self.domains)}
        self.adapter_router = arms["arliss-router"]
        self.base = self.single.base_encoder()
        self.switch = AdapterSwitch(self.base)
        self.switch.add("router", self.adapter_router.folder)
        for domain, tuned in self.adapters.items():
            self.switch.add(f"domain {domain}", tuned.folder)

    def probabilities(self, of: str, prompts: Sequence[str]) -> tuple[Array, list[str]]:
        """Return (probabilities, classes) of a variant's router, one row for each prompt."""
        if of == RODOS:
            return self.router.domain_probabilities(prompts), self.router.classes_
        return self.switch.domain_probabilities("router", prompts), self.adapter_router.classes_

    def expert_margins(self, of: str, domain: str, data: PreferenceDataset) -> Array:
        """Margins of all pairs of a data set under one domain's expert."""
        if of == RODOS:
            found: Array = self.experts[domain].margins(data)
            return found
        small = data.compact()
        rewards = self.switch.rewards(f"domain {domain}", small)
        both = small.pairs[["chosen", "rejected"]].to_numpy()
        return rewards[both[:, 0]] - rewards[both[:, 1]]

    def request(self, of: str) -> Callable[[str, str], float]:
        """Return what serves one request, (prompt, response) to reward, its route included."""

        def rodos(prompt: str, response: str) -> float:
            route = self.router.classes_[int(self.router.domain_probabilities([prompt])[0].argmax())]
            return float(self.experts[route].reward(prompt, [response])[0])

        def arliss(prompt: str, response: str) -> float:
            p = self.switch.domain_probabilities("router", [prompt])[0]
            route = self.adapter_router.classes_[int(p.argmax())]
            return float(self.switch.reward(f"domain {route}", prompt, [response])[0])

        alone = {SINGLE: self.single, MORE: self.more}
        if of in alone:
            return lambda prompt, response: float(alone[of].reward(prompt, [response])[0])
        return {RODOS: rodos, ARLISS: arliss}[of]

    def switching_seconds(self, repeats: int = 200) -> float:
        """Median seconds to exchange the active adapter."""
        names = list(self.switch.adapters)
        taken = []
        for i in range(repeats):
            began = time.perf_counter()
            with self.switch.use(names[i % len(names)]):
                taken.append(time.perf_counter() - began)
        return float(np.median(taken))


def routed_margins(
    score: Score, data: PreferenceDataset, routes: NDArray[np.object_], domains: Sequence[str]
) -> tuple[Array, Array]:
    """Return margins under hard routes and under the true domains, (n_pairs,) each.

    Parameters
    ----------
    score : callable
        ``score(domain, data)``: margins of all pairs under that domain's expert.
    data : PreferenceDataset
    routes : ndarray of shape (n_pairs,), str
        Where each pair's prompt is sent.
    domains : sequence of str
        Of the experts; each reads the pairs that are sent to it or are its own, and no others.
    """
    truth = data.pair_domains()
    hard, oracle = np.full(len(data), np.nan), np.full(len(data), np.nan)
    for domain in domains:
        rows = np.flatnonzero((routes == domain) | (truth == domain))
        if len(rows):
            margins = score(domain, data.subset(rows))
            sent, own = routes[rows] == domain, truth[rows] == domain
            hard[rows[sent]], oracle[rows[own]] = margins[sent], margins[own]
    return hard, oracle


def latencies(
    serve: Mapping[str, Callable[[str, str], float]], requests: Sequence[tuple[str, str]]
) -> list[dict[str, Any]]:
    """Seconds for one request by variant; every request is served by all in turn, the order rotating.

    Returns
    -------
    list of dict
        ``variant``, ``seconds`` (median) and ``ratio``: the median over requests of the seconds against the first
        variant's on the same request.
    """
    names = list(serve)
    for name in names:
        serve[name](*requests[0])
    taken = {name: np.empty(len(requests)) for name in names}
    for i, request in enumerate(requests):
        for name in names[i % len(names) :] + names[: i % len(names)]:
            began = time.perf_counter()
            serve[name](*request)
            taken[name][i] = time.perf_counter() - began
    first = taken[names[0]]
    return [
        {"variant": name, "seconds": float(np.median(s)), "ratio": float(np.median(s / first))}
        for name, s in taken.items()
    ]


def saved_parameters(*paths: Path) -> int:
    """Count the floating-point numbers in safetensors files, or in all of a folder; statistics of a gate left out."""
    from safetensors import safe_open

    total = 0
    for path in paths:
        for file in sorted(path.rglob("*.safetensors")) if path.is_dir() else [path]:
            with safe_open(file, "np") as arrays:
                for name in arrays.keys():  # noqa: SIM118
                    part = arrays.get_slice(name)
                    if part.get_dtype()[0] in "FB" and part.get_dtype() != "BOOL" and name not in _NOT_PARAMETERS:
                        total += int(np.prod(part.get_shape(), dtype=np.int64))
    return total


def bytes_of(*paths: Path) -> int:
    """Bytes of files, and of all files in folders."""
    return sum(
        f.stat().st_size for path in paths for f in ([path] if path.is_file() else path.rglob("*")) if f.is_file()
    )


def tuned_sizes(arms: TunedArms) -> list[dict[str, Any]]:
    """Parameters and bytes of each variant, counted in what was saved.

    Returns
    -------
    list of dict
        ``variant``, ``models`` (what it is made of), ``parameters``, ``bytes``, ``reduction`` (share of the parameters
        saved against RODOS), ``at_five``: the same with five domains, from
        the mean size of an expert's part, and ``base_bytes``, those of the encoder alone.
    """
    from embedrm.tuning.saving import HEAD

    n = len(arms.domains)
    single = arms.single.folder
    # the base is counted as the single encoder without its head: the same weights in the same format
    notes = [single / HEAD, single / "tuning.json"]
    base = saved_parameters(single) - saved_parameters(single / HEAD)
    base_bytes = bytes_of(single) - bytes_of(*notes)

    def adapter(tuned: Any) -> list[Path]:
        return [tuned.adapter, tuned.folder / HEAD]

    experts = [saved_parameters(tuned.folder) for tuned in arms.experts.values()]
    router = saved_parameters(arms.router.folder)
    added = [saved_parameters(*adapter(tuned)) for tuned in arms.adapters.values()]
    routing = saved_parameters(*adapter(arms.adapter_router))
    more = saved_parameters(arms.more.folder)
    expert = arms.more.expert_parameters()
    few = PAPER_DOMAINS
    folders = [tuned.folder for tuned in (*arms.experts.values(), arms.router)]
    adapters = [path for tuned in (*arms.adapters.values(), arms.adapter_router) for path in adapter(tuned)]
    rows = [
        (SINGLE, "one encoder", saved_parameters(single), saved_parameters(single), bytes_of(single)),
        (
            RODOS,
            f"{n} encoders and a router",
            sum(experts) + router,
            np.mean(experts) * few + router,
            bytes_of(*folders),
        ),
        (MORE, f"one encoder, {n} experts and a gate", more, more - (n - few) * expert, bytes_of(arms.more.folder)),
        (
            ARLISS,
            f"one encoder, {n} adapters and a router's",
            base + sum(added) + routing,
            base + np.mean(added) * few + routing,
            base_bytes + bytes_of(*adapters),
        ),
    ]
    whole, at_five = rows[1][2], rows[1][3]
    return [
        {
            "variant": name,
            "models": models,
            "parameters": int(count),
            "bytes": int(size),
            "reduction": 1.0 - count / whole,
            "at_five": 1.0 - float(five) / float(at_five),
            "base_bytes": base_bytes,
        }
        for name, models, count, five, size in rows
    ]
