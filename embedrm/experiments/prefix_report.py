"""Words and sections of the study of prefix rewards; everything is read from its facts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from embedrm.evaluation.claims import VERDICTS
from embedrm.experiments import prefix_tables as tables
from embedrm.experiments.prefix_claims import AIM
from embedrm.experiments.prefix_spectra import CUTOFF
from embedrm.experiments.prefix_tuning import describe
from embedrm.reporting.claims import claims_table

if TYPE_CHECKING:
    from embedrm.experiments.prefix_study import PrefixStudy
    from embedrm.reporting import Report

_VERDICTS = (
    "The paper tunes GPT-2 on millions of labelled texts and guides GPT-2-large; here a small model is guided, and small "
    "copies of it reward. A verdict is about this setting."
)


def signed(cell: dict[str, float]) -> str:
    """Return a difference with its interval, in words."""
    return f"{cell['value']:+.3f} [{cell['low']:+.3f}, {cell['high']:+.3f}]"


def findings(study: PrefixStudy) -> list[str]:
    """Return what to take away, one sentence each."""
    facts, preset, end = study.facts, study.preset, study.data.texts.end
    curves = study.curves
    out = []
    free = curves.cell("unguided", 0.0, "positive")
    strongest = max(preset.betas)
    parts = [
        f"{arm} {curves.cell(arm, strongest, 'positive')['value']:.2f} (perplexity "
        f"{curves.cell(arm, strongest, 'perplexity')['value']:.1f})"
        for arm in ("RAD", "ARM distilled", "ARM responses-only")
    ]
    out.append(
        f"Texts judged {end}: {free['value']:.2f} unguided (perplexity "
        f"{curves.cell('unguided', 0.0, 'perplexity')['value']:.1f}); at β = {strongest:g} {', '.join(parts)}."
    )
    for arm, gap in facts["gaps"].items():
        if gap is None:
            out.append(f"{arm} and RAD cannot be compared at equal perplexity: {tables.NO_GAP}")
            continue
        aim = f" (aim: no more than {AIM:.0%} below)" if arm == "ARM distilled" else ""
        out.append(
            f"{arm} less RAD at equal perplexity: {signed(gap['gap'])} of texts, {signed(gap['relative'])} of RAD's "
            f"shift{aim}."
        )
    ranks = {row["name"]: row["interval"]["value"] for row in facts["matrices"]}
    out.append(
        f"Rank of the learned reward matrix at a cut-off of {CUTOFF:g} (states of {facts['dim']}): RAD {ranks['RAD']:.0f}, "
        f"ARM distilled {ranks['ARM distilled']:.0f}, ARM responses-only {ranks['ARM responses-only']:.0f}."
    )
    timing = {(row["way"], row["k"]): row for row in facts["timing"]}
    speeds = [
        f"{timing['RAD', k]['against_arm']['value']:.1f} at k = {k}" for k in sorted({k for _, k in timing}) if k > 1
    ]
    out.append(f"RAD's time per token over ARM's, both on shared states: {', '.join(speeds)}.")
    counts = ", ".join(f"{sum(c['verdict'] == word for c in study.claims)} {word}" for word in VERDICTS)
    return [*out, f"Claims: {counts}."]


def add_sections(study: PrefixStudy, report: Report) -> None:
    """Add every section to a report."""
    facts, data = study.facts, study.data
    report.add_section("Claims", _VERDICTS, tables=[claims_table(study.claims)])
    report.add_section(
        "Heads and backbones",
        _heads_text(study),
        [
            tables.backbones_table(facts["backbones"], data.texts.end),
            tables.heads_table(facts),
            tables.tried_table(facts),
        ],
    )
    figures = [tables.tradeoff_figure(study.curves, data.texts.end), tables.rate_figure(study.curves, data.texts.end)]
    report.add_section(
        "Attribute against fluency",
        _curves_text(study),
        [tables.curves_table(facts, data.texts.end), tables.gaps_table(facts), tables.examples_table(facts)],
        figures,
    )
    report.add_section(
        "Rank of the learned reward matrix",
        [
            facts["shape"],
            f"A rank counts singular values above a share of the largest, {CUTOFF:g} where nothing else is said: about what "
            "float32's rounding rule gives at the size of the paper's vocabulary, whose cut-off is that of Finlayson "
            "et al. The largest is mostly the mean reward, so that a cut-off of 0.1 sees little else. Above rounding, "
            "ARM has the rank that its form allows; what is large enough to matter is less.",
        ],
        [tables.ranks_table(facts)],
        [tables.over_prefixes_figure(facts), tables.spectra_figure(facts)],
    )
    report.add_section(
        "Ablation: baseline and regulariser",
        f"Distilled heads, with the penalty that validation chose for the first, decoded at β = {study.preset.beta:g}. "
        "Without baseline the regulariser is on the whole score, as in the official code.",
        [tables.variants_table(facts["ablation"], "ablation", "Baseline and regulariser", data.texts.end)],
    )
    report.add_section(
        "Rank of W, an extension",
        "W = UV' of rank r, fitted by turns. In the paper W is a full matrix, and low rank means the size of a state "
        "against the vocabulary.",
        [tables.variants_table(facts["rank_sweep"], "rank-sweep", "Rank r of W", data.texts.end)],
        [tables.rank_sweep_figure(facts, data.texts.end)],
    )
    report.add_section("Time per token", _time_text(study), [tables.timing_table(facts)], [tables.timing_figure(facts)])
    report.add_section(
        "Synthetic matrices of full rank",
        "All texts of two tokens, whose reward is an entry of a matrix, with frozen random states smaller than the matrix. "
        "Floor: the error of the best matrix of ARM's rank, whatever the states.",
        [tables.synthetic_table(facts)],
        [tables.synthetic_figure(facts)],
    )


def notes(study: PrefixStudy) -> list[str]:
    """Return what a reader should know of how this was done."""
    cut = study.cut
    out = [
        "Perplexity: of all continuations of an arm as one text, under a language model trained on the other half of "
        "the texts from another seed; prompts are read and not judged. Distinct-n: different over all n-grams of "
        "tokens among the continuations of one prompt, mean over prompts.",
        "Intervals of rates and perplexities are over prompts; all arms decode the same prompts with the same draws.",
        "Rewards are clamped to [0, 1], and tokens are drawn at temperature 1 from the logits plus β times the reward.",
    ]
    if cut["texts_cut"]:
        out.append(
            f"{cut['texts_cut']:,} texts were longer than the language model reads, and {cut['tokens_cut']:,} tokens "
            "at their ends were not read."
        )
    return out


def _heads_text(study: PrefixStudy) -> list[str]:
    told, tuning = study.facts["judge"], study.preset.tuning
    if study.not_tuned or tuning is None:
        backbones = [f"{study.not_tuned} So everything here is on the frozen backbone."]
    else:
        backbones = [
            f"{describe(tuning)} The tuned copies read along as separate reward models; guided is the model as it was.",
            "Rows named frozen: heads on the guided model's own states, which is the configuration frozen_lm of the "
            "official code. RAD is a perceptron there. What a state of the last layer still holds of an attribute is "
            "what the next token depends on; RAD has nothing else to read, where ARM reads the candidate's embedding too.",
        ]
    return [
        *backbones,
        "RAD is trained on cumulative squared error. ARM is a baseline and a full matrix W: distilled from RAD, or "
        "trained on the texts' labels alone (responses-only); both with the random-token regulariser, here its "
        "expectation over the vocabulary in closed form. Penalties are chosen on validation texts; neither judge is asked.",
        f"The judge of the attribute is a logistic regression on words and pairs of words of half B: accuracy "
        f"{told['value']:.3f} [{told['low']:.3f}, {told['high']:.3f}] on {told['n']:,} texts of that half that it has not "
        "seen.",
    ]


def _curves_text(study: PrefixStudy) -> list[str]:
    d, texts = study.steering.decoding, study.data.texts
    kind = "neutral test texts" if texts.neutral_prompts() else "test texts of either end (there are no neutral ones)"
    return [
        f"{len(d.prompts)} prompts, the first words of {kind}, {d.n} continuations of each, at most {d.new_tokens} tokens, "
        f"{d.top_k} candidates. The judge reads the prompt with its continuation.",
        "At equal perplexity: the best rate along a curve at no more than a perplexity, straight lines between betas, "
        "at the perplexities of RAD's own points; mean over those that both curves reach. Where RAD's shift is "
        "small at these, the share of it is a wide interval.",
    ]


def _time_text(study: PrefixStudy) -> str:
    preset: Any = study.preset
    return (
        f"One sequence, {preset.timed_tokens} new tokens, {preset.repeats} paired runs in alternating order, medians with "
        "intervals. ARM and RAD read the guided model's own states and cache; RAD scores all candidates in one batched pass "
        "on the cache of their prefix. The rigorous measurement, with separate models and larger vocabularies, is "
        "benchmarks/guided_decoding.py."
    )
