"""One run of the embedding study: ten small perceptrons in one pass against the released recipe, in core-seconds and gold.

Command: python benchmarks/study_cost.py

A run is 10,000 pairs of two responses × 2,048 dimensions, labelled by a teacher whose gold is a network of one hidden
layer, an ensemble of ten, and the scoring of 200 prompts × 100 candidates. Labels are right in one case; in the other they
are drawn by Bradley–Terry probabilities of the gold (beta = 1, in standard deviations of all responses' gold).

*released recipe*: the code of Sun et al. (2025) as published, without its files and bookkeeping, in PyTorch. Each member is
a perceptron 1024-512-1, trained on a random 80 % of the mirrored pairs (both orders of each), 60 steps of Adam at 1e-3, each
on 10,240 fresh random rows, both responses of a row through the network; the last weights are kept, and the mean of the
members is the reward. The loss on the other 20 %, which decides nothing without early stopping, is not reckoned here.
Vectors are gathered from one array by row number, and never stored mirrored. The cost of its classification form, in which
a row is one response, is that of one member times ten.

*ten perceptrons in one pass*: `RECIPE` below, alike for both cases. It was chosen on teachers 100 and 101, by their test
prompts; the teachers that are judged here (0 and up) were not looked at. Its second row, with six times the penalty, is
what one would choose where labels are known to be noisy. Linear rows stand beside, with a penalty chosen likewise.

Core-seconds are the process's time on all threads (user and system) from before the fit to after the scores. Featurizers,
standardisation of members and everything else that a call does are in it; the making of data and pairs is not. Both sides
are run for each teacher and case, in alternating order, with the same number of threads. Gold of the best of n is by the
unbiased estimator; intervals are over the prompts of all teachers, paired.
"""

from __future__ import annotations

import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from _harness import command, finish, parser, ratio_cell
from threadpoolctl import threadpool_limits

from embedrm import (
    Annotator,
    EmbeddedPreferences,
    EnsembleRewardModel,
    Featurizer,
    LinearHead,
    Report,
    annotate,
    draw_pairs,
)
from embedrm.datasets.candidate_arrays import map_candidates
from embedrm.datasets.teachers import Teacher
from embedrm.evaluation.over_optimisation import GOLD, ChoiceJudge
from embedrm.heads.mlp import MLPHead
from embedrm.numerics.bootstrap import Clustered, percentile_interval
from embedrm.parameters import n_parameters
from embedrm.reporting import collect
from embedrm.reward_model import RewardModel

LIMIT, PARAMETERS = 20, 600_000
MEMBERS = 10
RELEASED, OURS, STRONGER = "released recipe", "ten perceptrons in one pass", "the same, l2 = 0.03"
CASES = {"right labels": Annotator(), "beta = 1": Annotator(beta=1.0, scale="global-std")}
RECIPE: dict[str, Any] = {
    "hidden": (64,),
    "l2": 0.005,
    "learning_rate": 1e-3,
    "rate_schedule": "cosine",
    "max_epochs": 8,
    "early_stopping": False,
}
LINEAR_L2 = 0.03
HIDDEN, STEPS, BATCH, TRAINED_SHARE = (1024, 512), 60, 10_240, 0.8


def ensemble(member: RewardModel, kind: str) -> EnsembleRewardModel:
    """Ten members that all train on all pairs, standardised on the training responses."""
    return EnsembleRewardModel(member, n_members=MEMBERS, kind=kind, calibration_fraction=None)


def models(epochs: int) -> dict[str, tuple[RewardModel, int]]:
    """Every model that is not the released recipe, and its number of members."""
    recipe = RECIPE | {"max_epochs": epochs}
    featurizer = Featurizer(scale="rms")
    linear = LinearHead(featurizer, l2=LINEAR_L2)
    return {
        OURS: (ensemble(MLPHead(featurizer, **recipe), "seeds"), MEMBERS),
        STRONGER: (ensemble(MLPHead(featurizer, **recipe | {"l2": 0.03}), "seeds"), MEMBERS),
        "linear head": (linear, 1),
        "ten linear heads, bootstrap": (ensemble(linear, "bootstrap"), MEMBERS),
    }


@dataclass
class Data:
    """Pairs with labels, test vectors, and the judge of choices among them."""

    train: EmbeddedPreferences
    test: np.ndarray
    judge: ChoiceJudge


def make(teacher: int, case: str, a: Any) -> Data:
    """Draw one teacher's data; labels of the two cases are of the same pairs."""
    drawn = Teacher(a.dim, "network", random_state=teacher)
    pairs = draw_pairs(map_candidates(*drawn.arrays("train", a.pairs, 2), split="train"), random_state=teacher)
    candidates = map_candidates(*drawn.arrays("test", a.prompts, a.candidates), split="test")
    ns = sorted({1, *(n for n in (2, 5, 10, 30, 50) if n < a.candidates), a.candidates})
    judge = ChoiceJudge(candidates, ns=ns)
    return Data(annotate(pairs, CASES[case], random_state=teacher), candidates.view("response:final"), judge)


def released(data: Data, members: int, steps: int, siamese: bool = True) -> np.ndarray:
    """Train and score as the release does; the mean reward of the members (n_responses,)."""
    vectors = torch.from_numpy(data.train.responses.view("response:final"))
    chosen, rejected = (torch.from_numpy(side.copy()) for side in data.train.pairs.T)
    if siamese:
        rows = torch.stack([torch.cat([chosen, rejected]), torch.cat([rejected, chosen])], dim=1)
    else:
        rows = torch.cat([chosen, rejected])[:, None]
    labels = torch.cat([torch.ones(len(chosen)), torch.zeros(len(chosen))])
    test = torch.from_numpy(data.test)
    rewards = torch.zeros(len(test))
    loss_of = torch.nn.functional.binary_cross_entropy_with_logits
    for member in range(members):
        torch.manual_seed(member)
        network = perceptron(vectors.shape[1])
        inside = torch.randperm(len(rows))[: int(TRAINED_SHARE * len(rows))]
        adam = torch.optim.Adam(network.parameters(), lr=1e-3)
        for _ in range(steps):
            batch = inside[torch.randperm(len(inside))[:BATCH]]
            sides = [network(vectors[side])[:, 0] for side in rows[batch].T]
            loss = loss_of(sides[0] - sides[1] if siamese else sides[0], labels[batch])
            adam.zero_grad()
            loss.backward()
            adam.step()
        with torch.no_grad():
            rewards += network(test)[:, 0] / members
    return rewards.double().numpy()


def perceptron(dim: int) -> torch.nn.Sequential:
    """The released network."""
    return torch.nn.Sequential(
        torch.nn.Linear(dim, HIDDEN[0]),
        torch.nn.ReLU(),
        torch.nn.Linear(HIDDEN[0], HIDDEN[1]),
        torch.nn.ReLU(),
        torch.nn.Linear(HIDDEN[1], 1),
    )


def spent(job: Callable[[], np.ndarray]) -> tuple[np.ndarray, dict[str, float]]:
    """What a job gives, its core-seconds and its seconds."""
    wall, core = time.perf_counter(), time.process_time()
    made = job()
    return made, {"core_seconds": time.process_time() - core, "seconds": time.perf_counter() - wall}


def run(teacher: int, case: str, a: Any, first: bool) -> list[dict[str, Any]]:
    """All models on one teacher and case; whether the released recipe is the first of them alternates."""
    data = make(teacher, case, a)
    sizes: dict[str, int] = {RELEASED: sum(p.numel() for p in perceptron(a.dim).parameters())}
    jobs: dict[str, Callable[[], np.ndarray]] = {RELEASED: lambda: released(data, a.members, a.steps)}
    for name, (model, n_members) in models(a.epochs).items():

        def job(model: RewardModel = model, name: str = name, n_members: int = n_members) -> np.ndarray:
            fitted = model.fit(data.train)
            sizes[name] = n_parameters(fitted.members_[0] if n_members > 1 else fitted)
            return fitted.predict(data.test)

        jobs[name] = job
    found = {}
    for name in list(jobs) if first else [*list(jobs)[1:], RELEASED]:
        rewards, cost = spent(jobs[name])
        curves, spearman = data.judge.curves(rewards, name)
        found[name] = {"model": name, "teacher": teacher, "case": case, "parameters": sizes[name], **cost}
        found[name] |= {"gold": curves[:, :, GOLD], "spearman": spearman, "ns": data.judge.ns}
        at_most = found[name]["gold"][:, -1].mean()
        said = f"{cost['core_seconds']:.1f} core-seconds, Spearman {spearman.mean():.4f}, gold {at_most:.3f}"
        print(f"teacher {teacher}, {case}, {name}: {said}", file=sys.stderr, flush=True)
    return [found[name] for name in jobs]


def differences(case: str, runs: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Means of one case, one row a model; and what each has over the released recipe, with intervals over prompts."""
    of: dict[str, np.ndarray] = {}
    for name in dict.fromkeys(r["model"] for r in runs):
        mine = [np.column_stack([r["spearman"], r["gold"]]) for r in runs if r["model"] == name and r["case"] == case]
        of[name] = np.concatenate(mine)
    prompts = np.arange(len(of[RELEASED]))
    means, over = [], []
    for name, values in of.items():
        keys = ["spearman", *(f"best{n}" for n in runs[0]["ns"])]
        means.append({"case": case, "model": name, **dict(zip(keys, values.mean(axis=0).tolist()))})
        if name == RELEASED:
            continue
        gap = values - of[RELEASED]
        ends = percentile_interval(Clustered.from_rows(gap, prompts, np.full(len(gap), "all")).resample()[:, 0])
        cells = [
            {"value": float(v), "low": float(low), "high": float(high)} for v, low, high in zip(gap.mean(axis=0), *ends)
        ]
        over.append({"case": case, "model": name, **dict(zip(keys, cells))})
    return means, over


def cost_rows(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Core-seconds of every model and how many times the released recipe costs as much, over all paired runs."""
    slow = [r["core_seconds"] for r in runs if r["model"] == RELEASED]
    rows = []
    for name in dict.fromkeys(r["model"] for r in runs):
        mine = [r for r in runs if r["model"] == name]
        fast = [r["core_seconds"] for r in mine]
        rows.append(
            {
                "model": name,
                "parameters": mine[0]["parameters"],
                "core_seconds": float(np.median(fast)),
                "seconds": float(np.median([r["seconds"] for r in mine])),
                "ratio": None if name == RELEASED else ratio_cell(slow, fast),
            }
        )
    return rows


def signed(cell: dict[str, float]) -> str:
    """Write a difference with its interval."""
    return f"{cell['value']:+.3f} [{cell['low']:+.3f}, {cell['high']:+.3f}]"


def verdicts(cost: dict[str, Any], over: list[dict[str, Any]], most: int) -> list[str]:
    """Say whether the counted rows keep to the limits."""
    ratio = cost["ratio"]
    kept = "within" if ratio["low"] >= LIMIT else "MISSES"
    out = [
        f"{OURS}: 1/{ratio['value']:.0f} of the released recipe's core-seconds (1/{ratio['low']:.0f} in the worst run; "
        f"{kept} the limit of 1/{LIMIT}), {cost['parameters']:,} parameters a member "
        f"({'under' if cost['parameters'] < PARAMETERS else 'NOT UNDER'} {PARAMETERS:,})"
    ]
    for row in over:
        if row["model"] == OURS:
            cells = [
                row["spearman"],
                *(value for key, value in row.items() if key.startswith("best") and key != "best1"),
            ]
            worse = any(cell["high"] < 0 for cell in cells)
            better = all(cell["low"] > 0 for cell in cells)
            said = "better" if better else "WORSE somewhere" if worse else "equal or better (an interval holds zero)"
            out.append(
                f"{row['case']}: {said} in Spearman ({signed(row['spearman'])}) and in gold at every n (best of {most}: "
                f"{signed(row[f'best{most}'])})"
            )
    return out


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--teachers", type=int, nargs="+", default=[0, 1], help="random states, each with both cases")
    options.add_argument("--threads", type=int, default=2)
    for name, value in {"pairs": 10_000, "dim": 2048, "prompts": 200, "candidates": 100}.items():
        options.add_argument(f"--{name}", type=int, default=value)
    for name, value in {"members": MEMBERS, "steps": STEPS, "epochs": RECIPE["max_epochs"]}.items():
        options.add_argument(f"--{name}", type=int, default=value, help="other numbers are for trials")
    a = options.parse_args()
    toy = options.parse_args([])
    toy.pairs, toy.dim, toy.prompts, toy.candidates, toy.members, toy.steps, toy.epochs = 200, 16, 20, 10, 2, 2, 2
    if a.smoke:
        toy.smoke, toy.output, a = True, a.output, toy
    warnings.simplefilter("ignore")
    torch.set_num_threads(a.threads)
    started = time.perf_counter()
    runs: list[dict[str, Any]] = []
    with threadpool_limits(a.threads):
        run(100, "right labels", toy, True)  # libraries are loaded by it
        for i, (teacher, case) in enumerate((t, c) for t in a.teachers for c in CASES):
            runs += run(teacher, case, a, i % 2 == 0)
        data = make(a.teachers[0], "right labels", a)
        _, one = spent(lambda: released(data, 1, a.steps, siamese=False))
    rows = cost_rows(runs)
    fast = next(row for row in rows if row["model"] == OURS)
    found = [differences(case, runs) for case in CASES]
    most = runs[0]["ns"][-1]
    halved = a.members * one["core_seconds"]
    report = Report(
        "benchmark",
        "One run of the study: core-seconds and gold against the released recipe",
        summary=[
            *verdicts(fast, [row for _, over in found for row in over], most),
            f"the released recipe's classification form would cost {halved:,.0f} core-seconds, "
            f"{halved / fast['core_seconds']:.0f} times {OURS} (one member × {a.members})",
        ],
        provenance=collect(started=started, seeds=a.teachers, command=command(__file__, a)),
    )
    columns = [
        {"key": "model", "label": "model"},
        {"key": "parameters", "label": "parameters", "kind": "integer", "note": "of one member"},
        {
            "key": "core_seconds",
            "label": "core-seconds",
            "kind": "seconds",
            "note": "median of the runs, fit and scores",
        },
        {"key": "seconds", "label": "seconds", "kind": "seconds", "note": "wall clock, likewise"},
        {"key": "ratio", "label": "released / this", "kind": "interval", "digits": 1, "note": "median, least and most"},
    ]
    caption = (
        f"{a.pairs:,} pairs × {a.dim:,} dimensions, {a.members} members, {a.prompts} prompts × {a.candidates} candidates, "
        f"{a.threads} threads; {len(a.teachers)} teachers × {len(CASES)} cases, each run once."
    )
    table = {"name": "cost", "title": "Core-seconds", "columns": columns, "rows": rows, "caption": caption}
    report.add_section("Cost", tables=[table])
    keys = [("spearman", "Spearman"), *((f"best{n}", f"best of {n}") for n in runs[0]["ns"])]
    head = [{"key": "case", "label": "labels"}, {"key": "model", "label": "model"}]
    columns = [*head, *({"key": k, "label": label, "kind": "number", "digits": 3} for k, label in keys)]
    caption = "Spearman of reward and gold, mean over prompts; gold of the choice, in standard deviations of all gold."
    rows = [row for means, _ in found for row in means]
    table = {"name": "quality", "title": "Spearman and gold", "columns": columns, "rows": rows, "caption": caption}
    report.add_section("Quality", tables=[table])
    columns = [
        *head,
        *({"key": k, "label": label, "kind": "interval", "digits": 3} for k, label in keys if k != "best1"),
    ]
    rows = [{k: v for k, v in row.items() if k != "best1"} for _, over in found for row in over]
    caption = f"Less the released recipe on the same prompts ({len(a.teachers) * a.prompts}); 95 % over prompts."
    table = {"name": "over", "title": "Over the released recipe", "columns": columns, "rows": rows, "caption": caption}
    report.add_section("Against the released recipe", tables=[table])
    columns = [
        {"key": "teacher", "label": "teacher", "kind": "integer"},
        *head,
        {"key": "core_seconds", "label": "core-seconds", "kind": "seconds"},
        {"key": "spearman", "label": "Spearman", "kind": "number", "digits": 3},
        {"key": "gold", "label": f"best of {most}", "kind": "number", "digits": 3},
    ]
    rows = [{c["key"]: r[c["key"]] for c in columns} for r in runs]
    for row in rows:
        row["spearman"], row["gold"] = float(row["spearman"].mean()), float(row["gold"][:, -1].mean())
    table = {"name": "runs", "title": "Every run", "columns": columns, "rows": rows}
    report.add_section("Runs", tables=[table])
    finish(report, "study_cost", a)


if __name__ == "__main__":
    main()
