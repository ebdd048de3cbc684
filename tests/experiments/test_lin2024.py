"""``lin2024``: the paper joins its studies, tunes unasked where it can, and says why where it cannot."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from embedrm import EmbeddingStore, PreferenceDataset, SentenceEncoder, TunedEncoder
from embedrm.errors import InvalidInputError
from embedrm.experiments import merging_arms as arms
from embedrm.experiments.papers import PAPERS, lin2024
from embedrm.experiments.study import prepare

sys.path.insert(0, str(Path(__file__).parent.parent / "tuning"))

from tuning_base import make_base, make_preferences

TINY = arms.MergePreset(20, epochs=1, text_epochs=1, lambdas=(0.0, 0.5, 1.0), base_lambdas=(0.0, 1.0), batch_tokens=256)


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    import torch

    place, before = tmp_path_factory.mktemp("home"), torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMBEDRM_HOME", str(place))
        patch.setitem(arms.MERGE_PRESETS, "quick", TINY)
        patch.setattr(lin2024, "N_RESAMPLES", 50)
        patch.setitem(lin2024.STARTS, "quick", 1)
        yield place
    torch.set_num_threads(before)


def in_domains(names: tuple[str, ...], n: int = 60) -> PreferenceDataset:
    made = make_preferences(n).with_split({"train": 0.5, "validation": 0.2, "test": 0.3})
    prompts = made.prompts.copy()
    prompts["domain"] = [names[i % len(names)] for i in range(len(prompts))]
    return PreferenceDataset(prompts, made.responses.copy(), made.pairs.copy(), name="colours")


@pytest.fixture(scope="module")
def base(home) -> SentenceEncoder:
    return SentenceEncoder(str(make_base(home / "base")))


def test_it_tunes_unasked_and_finds_everything_again(home, base, tmp_path, monkeypatch):
    data, store = in_domains(("chat", "math")), EmbeddingStore(home / "vectors")
    paper = PAPERS.get("lin2024")()
    assert paper.always_literal
    assert "all" not in (paper.plan_if_possible("quick", data, base).estimate())
    report, files = paper.run(data=data, encoder=base, store=store, output=tmp_path / "out")
    assert files["html"].is_file()
    assert not paper.why_not
    ids = {claim["id"] for claim in report.claims}
    assert {"dogerm-rises-math", "dogerm-keeps-others-math", "dogerm-best-lambda"} <= ids
    assert "claims" in {table.name for section in report.sections for table in section.tables}
    monkeypatch.setattr(TunedEncoder, "fit", lambda *args, **options: pytest.fail("tuned again"))
    again, _ = PAPERS.get("lin2024")().run(data=data, encoder=base, store=store, output=tmp_path / "again")
    assert again.claims == report.claims


def test_without_an_encoder_to_tune_it_says_so_and_shows_the_rest(home, tmp_path):
    data = in_domains(("chat", "math"))
    paper = PAPERS.get("lin2024")()
    report, _ = paper.run(data=data, encoder="hashing", store=EmbeddingStore(home / "h"), output=tmp_path / "out")
    assert "cannot be tuned" in paper.why_not
    assert paper.why_not in report.summary
    with pytest.raises(InvalidInputError, match="cannot be tuned"):
        PAPERS.get("lin2024")().run(data=data, encoder="hashing", output=tmp_path / "no", literal=True)


@pytest.mark.parametrize("names", [("chat", "math", "code"), ("tea", "sea"), ("tea",)])
def test_the_tour_fits_any_domains(home, names):
    data = prepare(in_domains(names), encoder="hashing", store=EmbeddingStore(home / "h"))
    findings, section = PAPERS.get("lin2024")().tour(data)
    assert findings
    if len(names) == 1:
        assert not section.tables
        assert "Nothing was merged" in findings[0]
        return
    shown = [row["target"] for row in section.tables[0].rows]
    assert shown == (["code", "math"] if "math" in names else sorted(names))
    assert len(section.figures) == 1


def test_the_tour_without_validation_pairs_chooses_nothing(home):
    data = in_domains(("chat", "math"))
    splits = data.response_splits()[data.pairs["chosen"].to_numpy()]
    few = data.subset(np.flatnonzero(splits != "validation")).compact()
    findings, section = PAPERS.get("lin2024")().tour(prepare(few, encoder="hashing", store=EmbeddingStore(home / "h")))
    assert "in the split validation" in findings[0]
    assert not section.tables


def test_other_names_of_domains_are_told(home, base):
    data = in_domains(("chat", "sums"))
    paper = lin2024.Lin2024({"sums": "math"}, objective="contrastive")
    plan = paper.plan_literal("quick", data, base)
    assert [(t.name, t.domains) for t in plan.targets] == [("math", ("sums",))]
    assert plan.arms[1].config.objective == "contrastive"
    embedded = prepare(data, encoder="hashing", store=EmbeddingStore(home / "h"))
    assert "merged with math" in paper.tour(embedded)[0][0]
    with pytest.raises(InvalidInputError, match="'sumz'"):
        lin2024.Lin2024({"sumz": "math"}).tour(embedded)


def test_validation_pairs_are_held_out_of_training_where_the_data_bring_none():
    from embedrm import load_bundled
    from embedrm.experiments.study import VALIDATION_SHARE, with_splits

    whole = load_bundled()
    assert with_splits(whole, validation=True) is whole
    prompts = whole.prompts.copy()
    prompts.loc[prompts["split"] == "validation", "split"] = "train"
    two = PreferenceDataset(prompts, whole.responses, whole.pairs)
    assert with_splits(two) is two
    made, again = with_splits(two, validation=True), with_splits(two, validation=True)
    before, after = two.prompts["split"].to_numpy(), made.prompts["split"].to_numpy()
    assert (after == again.prompts["split"].to_numpy()).all()
    moved = before != after
    assert set(before[moved]) == {"train"}
    assert set(after[moved]) == {"validation"}
    # whole groups, of every domain that trains, about the share that is said
    groups = made.prompts.groupby("group")["split"].nunique()
    assert groups.max() == 1
    held, trained = (set(made.prompts["domain"][after == name]) for name in ("validation", "train"))
    assert held == trained
    pair_split = made.response_splits()[made.pairs["chosen"].to_numpy()]
    n = int((pair_split == "validation").sum())
    assert made.info["validation_held_out"]["pairs"] == n
    assert n / (before[made.responses["prompt_of"].to_numpy()[made.pairs["chosen"]]] == "train").sum() == pytest.approx(
        VALIDATION_SHARE, abs=0.02
    )
    other = with_splits(two, random_state=1, validation=True)
    assert not (other.prompts["split"].to_numpy() == after).all()
