"""Words and sections of the Reusing-Embeddings study; everything is read from its facts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embedrm.evaluation.claims import VERDICTS
from embedrm.experiments import reuse_tables as tables
from embedrm.experiments.reuse_arms import CROSS, row_of
from embedrm.experiments.reuse_claims import ENSEMBLES
from embedrm.experiments.reuse_cost import THERE
from embedrm.experiments.reuse_plan import BT_MLP, HIDDEN, SELECTIONS, THEIRS
from embedrm.reporting.claims import claims_table

if TYPE_CHECKING:
    from embedrm.experiments.reuse_study import ReuseStudy
    from embedrm.reporting import Report

_VERDICTS = (
    "The paper embeds answers of language models of 2 to 8 billion parameters and judges by golden reward models. Here the "
    "claims are judged on generated arrays whose gold is a known function of the vectors. A verdict is about this setting: "
    "seeds differ in the function, the vectors, the pairs, their labels and the models, and prompts are resampled within "
    "each.",
    "A claim on several cells at once holds only where all of them do, so that it is no easier upheld by chance for having "
    "many; it does not hold where one cell alone lies outside, which among many happens by chance more often than in one. "
    "Intervals are not widened for the number of cells or claims: of verdicts on claims at their bound, some are wrong.",
    "Two readings of comparing across prompts are judged. At first the worst and the best responses were matched at random; "
    "that was seen to harm, and only then was the reading added that keeps ranks. It is no prediction, and stands beside "
    "the first. That small layers choose no worse was asked after the first results too.",
)

DEPARTURES = (
    "Perceptron: the paper states fewer than 0.6 million parameters, the released code has layers of 1,024 and 512 (2.62 "
    f"million at 2,048 dimensions). Followed: the paper; layers of {HIDDEN[0]} and {HIDDEN[1]}, 541,057 parameters there.",
    "CLF-LightGBM: the code imports LightGBM and never trains it, and its settings are not stated. Followed: the paper's "
    "model, with this package's settings (200 trees at most, 15 leaves, 15 bins, stopped early).",
    "Same-prompt pairs: the code builds cross-prompt pairs only. Followed: the paper; both are here, on the same responses.",
    "Similar and diversified: the code keeps responses sorted by gold and takes ranks 5 and 6, or 1 and 10, of ten. "
    "Followed: both, which agree; across prompts the two ranks are kept, which is our reading of both, and the other "
    "reading is beside it.",
    "Scale of beta: the code divides differences of gold by 6 for one data set and by 1 for the other, the follow-up's code "
    "by the global standard deviation. Followed: the global standard deviation of the training responses. A negative "
    "beta, which the code takes for perfect labels, is not used.",
    "Steps: an epoch of the code is a few random subsets of 10,240 mirrored rows, so that 30 epochs are at most 60 steps, "
    "and the last weights are kept. Followed: neither; whole passes over the pairs, the best epoch kept.",
    "Mirrored pairs: the code writes every pair in both orders and then holds out a random fifth of the rows, whose mirror "
    "images it has mostly trained on. Followed: neither; no copies, and prompts are held out.",
    "Ensembles: the code trains ten members and evaluates the last one alone, so that its mean, least and first member are "
    "one curve. Followed: the paper; all members, each standardised.",
    "Best-of-n: 100 permutations of 500 candidates in the code. Followed: the mean over all subsets, which they estimate; "
    "both are shown side by side.",
    "The code counts a choice at or below its prompt's median as a success. Followed: neither; shares of the candidates "
    "that the choice beats are given.",
    "Last position: the code reads the vector at the last position of a padded batch, a padding token for some tokenizers. "
    "Followed: the paper; a causal encoder's vector is that of the last token of the text.",
)
"""Where the released code differs from the paper, and which is followed."""


def findings(study: ReuseStudy) -> list[str]:
    """Return what to take away, one sentence each."""
    facts = study.facts
    noise, n = facts["noise"], facts["noise"]["ns"][-1]
    centre = facts["centre"]
    told = ", ".join(f"{m} {_cell(row_of(noise, 'rows', centre, m)['gain_sd'][-1])}" for m in noise["models"])
    out = [f"At the centre ({centre}) the best of {n:,} gains in gold, in standard deviations within prompts: {told}."]
    first, last = noise["levels"][0], noise["levels"][-1]
    for one in noise["changes"]:
        if one["model"] in THEIRS:
            parts = (row_of(noise, "differences", level, one["model"])["gold"][-1] for level in (first, last))
            at = " and ".join(f"{_signed(cell)} ({level})" for cell, level in zip(parts, (first, last)))
            out.append(f"{one['model']} less {BT_MLP} in gold: {at}; the change is {_signed(one['gold'])}.")
    gains = [
        f"{level} {_signed(row_of(facts['crossed'][BT_MLP], 'differences', level, CROSS)['gold'][-1])}"
        for level in SELECTIONS
    ]
    out.append(
        f"Comparing across prompts instead of within, {BT_MLP}, gold by the responses shown: {', '.join(gains)}."
    )
    out += study.ensembles.findings()[-3:]
    paper = [row for row in facts["cost"] if row["size"] == THERE and row["model"] in THEIRS]
    if paper:
        fits = ", ".join(f"{row['model']} {row['seconds']:.0f} s ({row['parameters']:,})" for row in paper)
        size = f"{paper[0]['pairs']:,} pairs of {paper[0]['dim']:,} dimensions"
        out.append(f"One fit on {size}, seconds (and parameters): {fits}.")
    fits = facts["fits"]
    out.append(f"{fits['n']:,} models of the factors were fitted in {fits['seconds']:.0f} seconds of one core.")
    counts = ", ".join(f"{sum(c['verdict'] == word for c in study.claims)} {word}" for word in VERDICTS)
    return [*out, f"Claims: {counts}."]


def notes(study: ReuseStudy) -> list[str]:
    """Return what a reader should know of how this was done."""
    preset = study.preset
    return [
        f"Annotators: the better response is preferred with probability σ(β Δr / s), s the standard deviation of the gold "
        f"of all training responses. {preset.seeds} seeds, each with its own function of gold, vectors, pairs, wrong labels "
        "and first weights.",
        "Functions of gold are of one kind (and of another one for ensembles), with other weights for each seed; another "
        "kind might rank the models otherwise.",
        "Generated vectors are normal with a spectrum that falls, and no encoder has made them. The parts on encoded data "
        "have few candidates a prompt, so that best-of-n ends early there.",
    ]


def add_sections(study: ReuseStudy, report: Report) -> None:
    """Add every section to a report."""
    facts, preset = study.facts, study.preset
    noise, amounts = facts["noise"], facts["amounts"]
    report.add_section("Claims", [*_VERDICTS, *_unjudged(study)], tables=[claims_table(study.claims)])
    report.add_section(
        "The centre",
        [
            f"On {study.told}; {preset.seeds} such sets, each with vectors and a function of its own.",
            f"{preset.n_train:,} annotations, one for each training prompt, of two random responses to it, by an annotator "
            f"of β = {preset.centre.beta:g}: {facts['errors'][facts['centre']]:.0%} of the labels are wrong. Perceptrons "
            f"have layers of {HIDDEN[0]} and {HIDDEN[1]}. One factor is varied at a time below.",
        ],
        [
            tables.estimators_table(facts["estimators"], preset.n_permutations),
            tables.levels_table(
                facts["wide"],
                "layers",
                f"Layers: best of {noise['ns'][-1]:,}",
                f"{HIDDEN[0]} and {HIDDEN[1]} here, 1,024 and 512 in the released code.",
            ),
        ],
        [tables.models_figure(noise, facts["centre"]), tables.curves_figure(noise, facts["centre"])],
    )
    report.add_section(
        "Annotation noise",
        "Factor: the annotator's β. Shares of wrong labels are expectations over the pairs drawn.",
        [tables.levels_table(noise, "noise", f"Noise: best of {noise['ns'][-1]:,}")],
        [
            tables.factor_figure(
                noise,
                [100 * facts["errors"][level] for level in noise["levels"]],
                "noise",
                "Gold gained over label errors",
                "labels that are wrong, per cent",
            )
        ],
    )
    report.add_section(
        "Number of annotations",
        f"Factor: the number of pairs, at β = {preset.centre.beta:g}; more than one a prompt above {preset.n_train:,}.",
        [tables.levels_table(amounts, "annotations", f"Annotations: best of {amounts['ns'][-1]:,}")],
        [
            tables.factor_figure(
                amounts,
                facts["counts"],
                "annotations",
                "Gold gained over annotations",
                "annotations",
                log=True,
                labels=True,
            )
        ],
    )
    _add_pairing(study, report)
    _add_ensembles(study, report)
    report.add_section("Cost", _cost_text(facts), [tables.cost_table(facts["cost"])])
    _add_data(study, report)
    report.add_section("Where released code and paper differ", list(DEPARTURES))


def _unjudged(study: ReuseStudy) -> list[str]:
    """Say which claim is not judged, and why."""
    if any(claim["id"] == ENSEMBLES.id for claim in study.claims):
        return []
    facts = study.facts["ensembles"]
    worst, single = facts["levels"][-1], facts["reference"]
    lost = _cell(row_of(facts, "rows", worst, single)["lost"])
    return [
        f"Not judged: {ENSEMBLES.statement[0].lower()}{ENSEMBLES.statement[1:]}. At {worst} the {single} model loses {lost} "
        "after its peak, which is not told from zero: there is nothing sure to be mitigated."
    ]


def _add_pairing(study: ReuseStudy, report: Report) -> None:
    facts = study.facts
    points = facts["points"] + [point for part in facts["on_data"] for point in part["points"]]
    report.add_section(
        "Pairing",
        [
            "Factor: which two responses are compared. An annotator is shown two random responses to a prompt, the two "
            "middle ones by gold (similar), or the worst and the best (diversified). Across prompts, the very same "
            "responses are matched anew, each as often as before: a random one with a random one, a middle one with a "
            "middle one, the worst of one prompt with the best of another. With ranks not kept, the worst and the best are "
            "matched at random, so that a worst one may meet a worst one. Labels get easier where gold differs more, at "
            "the same β.",
        ],
        [tables.pairing_table(facts["crossed"], facts["gaps"], "pairing", study.preset.n_train)],
        [tables.pairing_figure(facts["crossed"]), tables.scatter_figure(points)],
    )


def _add_ensembles(study: ReuseStudy, report: Report) -> None:
    study.ensembles.add_sections(
        report,
        "ensembles",
        "Ensembles",
        f"On {study.told_peaked}; {study.preset.seeds} such sets. These are not the arrays of the centre: here gold falls "
        "again far out, so that there is something to over-optimise. Members have the labels of the single model, and "
        "seeds of their own.",
    )


def _cost_text(facts: dict[str, Any]) -> list[str]:
    return [
        "Each model is fitted once, alone, before anything else, with the libraries loaded; freed memory is given back to "
        "the system before each, so that peaks can be compared. The paper's size is that of its released code: 10,000 pairs "
        "of 2,048 dimensions.",
    ]


def _add_data(study: ReuseStudy, report: Report) -> None:
    facts = study.facts
    if study.data is None or not study.data.settings:
        text = ["The data have no graded responses, so that nothing was judged on them."] if study.data else []
        if text:
            report.add_section("On encoded data", text)
        return
    for i, part in enumerate(facts["on_data"]):
        noise = part["noise"]
        report.add_section(
            f"On encoded data: {part['name']}",
            [
                *part["told"],
                f"{part['n']:,} annotations, one for each prompt. Prompts have few candidates, so that best-of-n ends at "
                f"{noise['ns'][-1]}; no claim is judged here.",
            ],
            [
                tables.levels_table(noise, f"data-noise-{i}", f"Noise: best of {noise['ns'][-1]:,}"),
                *(
                    [tables.pairing_table(part["crossed"], part["gaps"], f"data-pairing-{i}", part["n"])]
                    if part["crossed"]
                    else []
                ),
            ],
            [
                tables.factor_figure(
                    noise,
                    [100 * part["errors"][level] for level in noise["levels"]],
                    f"data-noise-{i}",
                    f"Gold gained over label errors: {part['name']}",
                    "labels that are wrong, per cent",
                )
            ],
        )
    if facts["encoders"] is not None:
        report.add_section(
            "Two encoders",
            "The same responses, pairs and wrong labels, encoded by both.",
            [tables.levels_table(facts["encoders"], "encoders", f"Encoders: best of {facts['encoders']['ns'][-1]:,}")],
        )


def _cell(cell: dict[str, Any]) -> str:
    ends = "" if cell["low"] is None else f" [{cell['low']:.2f}, {cell['high']:.2f}]"
    return f"{cell['value']:.2f}{ends}"


def _signed(cell: dict[str, Any]) -> str:
    ends = "" if cell["low"] is None else f" [{cell['low']:+.2f}, {cell['high']:+.2f}]"
    return f"{cell['value']:+.2f}{ends}"
