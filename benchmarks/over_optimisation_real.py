"""Over-optimisation on real candidates with gold: solutions, answers and summaries, chosen by one head and by ensembles.

Command: python benchmarks/over_optimisation_real.py --data FOLDER

The three files of candidates of `best_of_n_real.py`. A linear Bradley-Terry head on layers 2, 4 and 6 of the response, with
a penalty by cross-validation on the labels as they are, and ensembles of ten (bootstraps of the prompt groups: mean, WCO,
UWO) are fitted on the domain's training pairs, of which 0 to 40 % are turned round, three draws each. They choose among the
candidates of test prompts, less those that are in training pairs. Ties are left out of the training pairs, and vote shares
count as sure, since a simulated annotator turns sure labels round; the labels had errors of their own before.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from _harness import command, finish
from best_of_n_real import CANDIDATES, SMOKE, Texts, head, opened

from embedrm import EmbeddedPreferences, Report, read_preferences
from embedrm.datasets.candidates import candidates, prompts_where, shared_prompts
from embedrm.experiments.over_optimisation import ENSEMBLES, OverOptimisationStudy
from embedrm.reporting import collect


def sure(prefs: EmbeddedPreferences) -> EmbeddedPreferences:
    """Pairs without ties, their vote shares as sure labels."""
    kept = prefs[~prefs.ties]
    return EmbeddedPreferences(prefs.responses, kept.pairs, weight=kept.weight)


def main() -> None:
    a, started, encoder, pairs, store = opened(__doc__)
    train = pairs.prefs.in_split("train")
    report = Report("benchmark", "Over-optimisation on candidates with gold")
    for name, domains in (SMOKE if a.smoke else CANDIDATES).items():
        if a.smoke:
            data = prompts_where(pairs.data, pairs.data.prompts["domain"].to_numpy(dtype=object) == domains[0])
        else:
            data = candidates(read_preferences(Path(a.data) / f"kwise_{name}.jsonl.gz"))
        chosen = Texts.of(data, encoder, False if a.smoke else store, a.smoke)
        own = sure(train[np.isin(train.domain, domains)])
        trained = np.zeros(pairs.data.n_prompts, dtype=bool)
        trained[own.active_prompts] = True
        test = data.prompts["split"].to_numpy(dtype=object) == "test"
        unseen = ~shared_prompts(data, prompts_where(pairs.data, trained))
        l2 = head(a.smoke).fit(own).l2_
        study = OverOptimisationStudy(
            own,
            chosen.prefs.responses,
            member=head(a.smoke, l2),
            n_members=3 if a.smoke else 10,
            n_draws=1 if a.smoke else 3,
            prompts=test & unseen,
        )
        study.add_sections(report, name.replace("_", "-"), name)
        facts = study.facts()
        worst, n = facts["levels"][-1], facts["ns"][-1]
        for level in (facts["levels"][0], worst):
            row = study.row(level, "single")
            lost = row["lost"]
            said = [f"peak at n = {row['peak']}, lost after it {lost['value']:+.3f}{ends(lost)}"]
            for model in ENSEMBLES:
                cell = study.difference(level, model)["gold"][-1]
                said.append(f"{model} less single {cell['value']:+.3f}{ends(cell)}")
            report.summary.append(f"{name}, best of {n}, {level}: {'; '.join(said)}")
        print(f"{time.perf_counter() - started:.0f} s: {name}, l2 = {l2:g}", file=sys.stderr, flush=True)
    report.notes += [
        "Candidates of several systems, and retrieved ones, are no draws of one policy: the divergence is nominal.",
        "With four to sixteen candidates a prompt, best-of-n is a mild optimisation: that nothing is lost here does not say "
        "that nothing would be lost at n = 500.",
    ]
    report.provenance = collect(
        started=started,
        seeds=[0, 1, 2],
        encoder=pairs.prefs.responses.info["encoder"],
        data=pairs.prefs.responses.info["data"],
        command=command(__file__, a),
    )
    finish(report, "over_optimisation_real", a)


def ends(cell: dict[str, Any]) -> str:
    return "" if cell["low"] is None else f" [{cell['low']:+.3f}, {cell['high']:+.3f}]"


if __name__ == "__main__":
    main()
