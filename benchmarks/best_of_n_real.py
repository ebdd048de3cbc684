"""Best-of-n with merged rewards: solutions, answers and summaries with gold, chosen by general, domain's and merged heads.

Command: python benchmarks/best_of_n_real.py --data FOLDER

Three files of candidates (`CANDIDATES`), each beside the pairs of one file of `_real.FILES`. Linear Bradley-Terry heads on
layers 2, 4 and 6 of the response: *general* is fitted on all other files, *all files* on all, *own* on the domain's pairs
alone. Penalties are by cross-validation: once for *general*, whose penalty *all files* has too, so that no prompt of the
domain decides it, and on every training set for *own*. *general, merged* and *all files, merged* are each merged with *own*;
lambda, of 0 to 1 by 0.05, is chosen by accuracy on a fifth of the domain's training prompt groups, which the heads that it
is chosen with have not seen, and the heads are then fitted again on all training pairs. Linear heads: merging weights is
averaging rewards.

Two designs. *Own split*: fitted on training pairs, judged on the candidates' test prompts, less those that are in training
pairs. *Cross-fitted*: every prompt with candidates is judged by heads fitted on all pairs but those of its fold's prompts
(five folds), for narrower intervals. Intervals are clustered by prompt group.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from _harness import command, finish, parser
from _real import add_options, load
from real_heads import VIEWS

from embedrm import EmbeddedPreferences, Featurizer, LinearHead, PreferenceDataset, Report, encode, read_preferences
from embedrm.datasets import prompt_group
from embedrm.datasets.candidates import candidates, prompts_where, shared_prompts
from embedrm.experiments.merging_best_of_n import BestOfNStudy
from embedrm.merging.heads import merge_heads
from embedrm.merging.sweep import sweep_heads
from embedrm.numerics.folds import group_folds, hold_out
from embedrm.progress import bars
from embedrm.reporting import collect
from embedrm.store import EmbeddingStore

CANDIDATES = {
    "gsm8k": ("math",),
    "medical_qa": ("medical_qa",),
    "summarization": ("summarization", "summary_factuality"),
}
SMOKE = {"arithmetic": ("arithmetic",), "summary": ("summary",)}
GENERAL, MERGED, ALL, ALL_MERGED, OWN = "general", "general, merged", "all files", "all files, merged", "own"
COMPARE = ((ALL_MERGED, ALL), (OWN, ALL), (MERGED, OWN))
SHOWN = ((MERGED, GENERAL), (MERGED, OWN), (ALL_MERGED, ALL))
N_FOLDS = 5


@dataclass(frozen=True)
class Texts:
    """Pairs as texts and as vectors, with the key by which prompts are found again in other files."""

    data: PreferenceDataset
    prefs: EmbeddedPreferences
    keys: np.ndarray

    @classmethod
    def of(cls, data: PreferenceDataset, encoder: Any, store: Any, smoke: bool) -> Texts:
        """Encode a data set."""
        with bars() as progress:
            layers = None if smoke else VIEWS["2,4,6"]["response"]
            prefs = encode(data, encoder, layers=layers, sides=("response",), store=store, progress=progress)
        columns = (data.prompts["prompt"].tolist(), data.prompts["context"].tolist())
        return cls(data, prefs, np.array([prompt_group(p, c) for p, c in zip(*columns)]))

    def without(self, keys: np.ndarray) -> EmbeddedPreferences:
        """Pairs of no group in which some prompt has one of the keys."""
        group = self.prefs.responses.group
        gone = np.isin(group, group[np.isin(self.keys, keys)])
        return self.prefs[~gone[self.prefs.prompt_rows]]


def head(smoke: bool, l2: float | str = "cv") -> LinearHead:
    return LinearHead(Featurizer() if smoke else Featurizer(**VIEWS["2,4,6"], scale="rms"), l2=0.1 if smoke else l2)


def fitted(
    train: EmbeddedPreferences, domains: tuple[str, ...], smoke: bool, l2: float
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fit and merge the heads; return them, and what was chosen. ``l2`` is of those on several files."""
    mine = np.isin(train.domain, domains)
    inside, outside = hold_out(train[mine].groups, 0.2, 0, "this benchmark", "more prompts")
    inner, validation = train[mine][inside], train[mine][outside]
    general = head(smoke, l2).fit(train[~mine])
    kept = ~np.isin(train.groups, validation.groups)
    trial = {GENERAL: general, ALL: head(smoke, l2).fit(train[kept]), OWN: head(smoke).fit(inner)}
    lam = {
        name: sweep_heads(trial[name], trial[OWN], validation, rescale=True)["chosen"]["lambda"]
        for name in (GENERAL, ALL)
    }
    heads = {GENERAL: general, ALL: head(smoke, l2).fit(train), OWN: head(smoke).fit(train[mine])}
    for name, merged in ((GENERAL, MERGED), (ALL, ALL_MERGED)):
        heads[merged] = merge_heads([heads[name], heads[OWN]], [1.0 - lam[name], lam[name]], rescale=True)
    facts = {
        "pairs": int((~mine).sum()),
        "own_pairs": int(mine.sum()),
        "validation_pairs": len(validation),
        "lambda": lam,
    }
    return {name: heads[name] for name in (GENERAL, MERGED, ALL, ALL_MERGED, OWN)}, facts


def own_split(
    pairs: Texts, chosen: Texts, domains: tuple[str, ...], smoke: bool, l2: float
) -> tuple[BestOfNStudy, dict[str, Any]]:
    """Training pairs against the candidates' test prompts that are in none of them."""
    train = pairs.prefs.in_split("train")
    trained = np.zeros(pairs.data.n_prompts, dtype=bool)
    trained[train.active_prompts] = True
    test = chosen.data.prompts["split"].to_numpy(dtype=object) == "test"
    seen = shared_prompts(chosen.data, prompts_where(pairs.data, trained))
    heads, facts = fitted(train, domains, smoke, l2)
    rewards = {name: model.predict(chosen.prefs) for name, model in heads.items()}
    facts["dropped"] = int((test & seen).sum())
    facts["seen_elsewhere"] = int((~test & seen).sum())
    return BestOfNStudy(rewards, chosen.prefs, compare=COMPARE, prompts=test & ~seen), facts


def cross_fitted(
    pairs: Texts, chosen: Texts, domains: tuple[str, ...], smoke: bool, l2: float
) -> tuple[BestOfNStudy, dict[str, Any]]:
    """Every prompt with candidates, judged by heads fitted without its fold's prompts."""
    rewards: dict[str, np.ndarray] = {}
    lams: list[dict[str, float]] = []
    owner, left = chosen.prefs.responses.prompt_of, []
    for _, fold in group_folds(chosen.keys, 2 if smoke else N_FOLDS, "this benchmark"):
        train = pairs.without(chosen.keys[fold])
        left.append(len(pairs.prefs) - len(train))
        heads, facts = fitted(train, domains, smoke, l2)
        lams.append(facts["lambda"])
        mine = np.isin(owner, fold)
        for name, model in heads.items():
            rewards.setdefault(name, np.full(len(owner), np.nan))[mine] = model.predict(chosen.prefs)[mine]
    facts |= {"lambda": {name: [lam[name] for lam in lams] for name in lams[0]}, "left_out_pairs": left}
    return BestOfNStudy(rewards, chosen.prefs, compare=COMPARE), facts


def lambdas(value: float | list[float]) -> str:
    return f"{value:g}" if isinstance(value, float) else ", ".join(f"{v:g}" for v in value)


def opened(doc: str | None) -> tuple[argparse.Namespace, float, str, Texts, Any]:
    """Read the command line and the training pairs: (arguments, when it began, encoder, pairs, the candidates' store)."""
    options = parser(doc)
    add_options(options)
    options.add_argument(
        "--candidates-store", default=None, help="folder for the candidates' vectors; the user's store where absent"
    )
    a = options.parse_args()
    started = time.perf_counter()
    encoder = "hashing:64" if a.smoke else a.encoder
    pairs = Texts.of(load(a), encoder, False if a.smoke else None, a.smoke)
    return a, started, encoder, pairs, EmbeddingStore(a.candidates_store) if a.candidates_store else None


def main() -> None:
    a, started, encoder, pairs, store = opened(__doc__)
    report = Report("benchmark", "Best of n with merged rewards on candidates with gold")
    rows, truncation = [], {}
    for name, domains in (SMOKE if a.smoke else CANDIDATES).items():
        if a.smoke:
            data = prompts_where(pairs.data, pairs.data.prompts["domain"].to_numpy(dtype=object) == domains[0])
        else:
            data = candidates(read_preferences(Path(a.data) / f"kwise_{name}.jsonl.gz"))
        chosen = Texts.of(data, encoder, False if a.smoke else store, a.smoke)
        truncation[name] = chosen.prefs.responses.info["truncation"]
        train = pairs.prefs.in_split("train")
        l2 = head(a.smoke).fit(train[~np.isin(train.domain, domains)]).l2_
        for design, make in (("own split", own_split), ("cross-fitted", cross_fitted)):
            study, facts = make(pairs, chosen, domains, a.smoke, l2)
            title = f"{name}, {design}"
            study.add_sections(report, f"{name.replace('_', '-')}-{design.replace(' ', '-')}", title)
            rows.append(
                {
                    "what": title,
                    "general_lambda": lambdas(facts["lambda"][GENERAL]),
                    "all_lambda": lambdas(facts["lambda"][ALL]),
                    "pairs": facts["pairs"],
                    "own_pairs": facts["own_pairs"],
                    "prompts": study.facts()["candidates"]["n_prompts"],
                    "dropped": facts.get("dropped"),
                }
            )
            for one, other in SHOWN:
                cell = study.difference(one, other)
                report.summary.append(
                    f"{title}: {one} less {other} at best of {study.facts()['headline']}: {cell['value']:+.3f} "
                    f"[{cell['low']:+.3f}, {cell['high']:+.3f}] gold, p = {cell['p']:.3g}"
                )
            print(f"{time.perf_counter() - started:.0f} s: {title}", file=sys.stderr, flush=True)
    columns = [
        {"key": "what", "label": "candidates"},
        {"key": "general_lambda", "label": "λ, general and own", "note": "one a fold where cross-fitted"},
        {"key": "all_lambda", "label": "λ, all files and own"},
        {
            "key": "pairs",
            "label": "pairs of other files",
            "kind": "integer",
            "note": "of the last fold where cross-fitted",
        },
        {"key": "own_pairs", "label": "pairs of the domain", "kind": "integer"},
        {"key": "prompts", "label": "prompts judged", "kind": "integer"},
        {"key": "dropped", "label": "dropped", "kind": "integer", "note": "test prompts that are in training pairs"},
    ]
    report.add_section(
        "What was fitted",
        tables=[{"name": "fitted", "title": "Lambda, pairs and prompts", "columns": columns, "rows": rows}],
    )
    report.notes += [
        "An analogue of the best-of-n of Lin et al. (2024): heads on frozen vectors are merged, not language models, and "
        "for linear heads that is averaging rewards. Heads keep their own scales, which λ weighs as they are: it is not the "
        "paper's λ.",
        "Candidates stand in the order of the files, which is that of systems (gsm8k, summarization) or of retrieval "
        "(medical_qa): the first response is no random one, and the first n of K are not either.",
        "Candidates of several systems, and retrieved ones, are no draws of one policy: the divergence is nominal.",
    ]
    report.provenance = collect(
        started=started,
        seeds=0,
        encoder=pairs.prefs.responses.info["encoder"],
        data=pairs.prefs.responses.info["data"],
        extra={"truncation": truncation},
        command=command(__file__, a),
    )
    finish(report, "best_of_n_real", a)


if __name__ == "__main__":
    main()
