"""``sun2025``: the whole study on tiny arrays and data, its tour, causal encoders, and data that cannot serve."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from embedrm import EmbeddingStore, PreferenceDataset, load_bundled
from embedrm.experiments import reuse_plan
from embedrm.experiments.papers import PAPERS
from embedrm.experiments.reuse_data import prepare_reuse
from embedrm.experiments.reuse_plan import LINEAR, MIXED, MODELS, SELECTIONS, THEIRS, WIDE, ReusePreset
from embedrm.experiments.reuse_report import DEPARTURES
from embedrm.experiments.study import prepare

sys.path.insert(0, str(Path(__file__).parent.parent / "encoders"))

from causal_models import make_causal

TINY = ReusePreset(
    dim=8,
    n_train=60,
    n_test=12,
    k_test=6,
    annotations=(30,),
    seeds=2,
    alikes=(0.8,),
    members=2,
    noisy=(10.0, 0.5),
    data_betas=(10.0, 0.5),
    data_seeds=1,
    paper_pairs=30,
    paper_dim=12,
    n_permutations=3,
    n_resamples=30,
    ns=(2, 6),
    jobs=1,
)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(reuse_plan.REUSE_PRESETS, "quick", TINY)
        patch.setitem(reuse_plan.WIDER, WIDE, partial(MODELS["BT-MLP"], hidden=(5,), max_epochs=2))
        for name, model in list(MODELS.items()):
            few = {"max_epochs": 2, "max_trees": 3, "hidden": (4,)}
            known = {key: value for key, value in few.items() if key in model().get_params()}
            patch.setitem(reuse_plan.MODELS, name, partial(model, **known))
        yield tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def small() -> PreferenceDataset:
    """Forty prompts of the bundled data, of two domains."""
    whole = load_bundled()
    own = whole.prompts["domain"].isin(["summary", "history"]).to_numpy()
    kept = np.flatnonzero(own & whole.prompts["split"].isin(["train", "test"]).to_numpy())[:80]
    pairs = np.isin(whole.responses["prompt_of"].to_numpy()[whole.pairs["chosen"].to_numpy()], kept)
    return whole.subset(np.flatnonzero(pairs)).compact()


@pytest.fixture(scope="module")
def made(home, small):
    return PAPERS.get("sun2025")().run(
        data=small, encoder="hashing:16", store=EmbeddingStore(home / "store"), output=home / "out"
    )


def studied(home, data, **options):
    """The report, unsaved and undrawn."""
    paper = PAPERS.get("sun2025")(**options)
    return paper.study(
        paper.prepare(data, "quick", encoder="hashing:16", store=EmbeddingStore(home / "store")), "quick"
    )


class TestStudy:
    def test_every_part_is_in_the_report(self, made):
        report, files = made
        assert files["html"].is_file()
        titles = [section.title for section in report.sections]
        assert titles == [
            "Claims",
            "The centre",
            "Annotation noise",
            "Number of annotations",
            "Pairing",
            "Ensembles",
            "Cost",
            "On encoded data: domains",
            "Where released code and paper differ",
        ]
        assert {"models", "best-of-n", "noise", "annotations", "pairing", "gap-and-gain"} <= set(report.figures)
        assert report.sections[-1].text == DEPARTURES
        for section in report.sections[1:-1]:
            assert section.tables, section.title

    def test_every_level_has_every_model(self, made):
        tables = made[0].tables
        rows = tables["noise"].rows
        assert [row["model"] for row in rows] == list(MODELS) * 6
        levels = list(dict.fromkeys(row["level"] for row in rows))
        assert [level.partition(":")[0] for level in levels] == [f"β = {b:g}" for b in reuse_plan.BETAS]
        assert [row["model"] for row in tables["pairing"].rows] == list(MODELS) * 4
        heads = list(dict.fromkeys(row["level"] for row in tables["pairing"].rows))
        assert [head.partition(":")[0] for head in heads] == [*SELECTIONS, MIXED]
        assert len(tables["cost"].rows) == 2 * len(MODELS)
        assert [row["scheme"] for row in tables["estimators"].rows] == ["all subsets", "3 permutations"] * len(MODELS)

    def test_the_centre_is_one_cell_in_every_table(self, made):
        tables = made[0].tables
        for model in MODELS:
            found = {
                str(row["gain" if name != "pairing" else "same"])
                for name, start in (("noise", "β = 1:"), ("annotations", "60 "), ("pairing", "same-prompt:"))
                for row in tables[name].rows
                if row["model"] == model and row["level"].startswith(start)
            }
            assert len(found) == 1

    def test_points_are_of_every_selection_and_of_other_arrays(self, made):
        series = {s["label"]: s["names"] for s in made[0].figures["gap-and-gain"].data["series"]}
        assert series[LINEAR] == [*SELECTIONS, "domains, random"]
        for model in THEIRS:
            assert series[model] == [*SELECTIONS, "80% shared", "domains, random"]

    def test_claims_have_verdicts_and_are_told(self, made):
        report, files = made
        assert len(report.claims) == 14
        assert {claim["setting"] for claim in report.claims} == {"analogue"}
        assert len(json.loads(files["json"].read_text())["claims"]) == 14
        assert report.summary[-1].startswith("Claims: ")
        # toys over-optimise nothing, and a claim that is not judged is named
        assert "ensembles-mitigate" not in {claim["id"] for claim in report.claims}
        text = report.sections[0].text
        assert text[-1].startswith(
            "Not judged: ensembles mitigate over-optimisation. At β = 0.5 the single model loses"
        )
        assert any("only then was the reading added that keeps ranks" in line for line in text)
        assert any("12 dimensions" in line for line in report.summary)

    def test_again_it_is_the_same_but_for_the_clock(self, home, small, made):
        again = studied(home, small)
        for name, table in made[0].tables.items():
            if name not in ("cost", "claims"):
                assert again.tables[name].rows == table.rows, name


class TestData:
    def test_a_causal_encoder_gives_last_tokens_of_joint_texts(self, home, small, tmp_path):
        folder = make_causal(tmp_path / "lm")
        coded = prepare_reuse(small, f"causal:{folder}", store=EmbeddingStore(home / "store"))
        assert "view joint:3 (last-token states of prompt and response as one text)" in coded.told[0]
        setting = coded.settings[0]
        from embedrm import load_encoder

        encoder = load_encoder(f"causal:{folder}")
        texts = small.joint_texts()
        expected = encoder.encode(texts, layers=(3,))[3]
        row = setting.train.view("response:final")[0]
        assert np.isclose(expected, row, atol=1e-4).all(axis=1).any()

    def test_two_encoders_are_compared_on_one_set_of_labels(self, home, small):
        report = studied(home, small, against="hashing:8")
        rows = report.tables["encoders"].rows
        assert [row["level"] for row in rows[::2]] == list(MODELS)
        assert [row["less"] is None for row in rows] == [True, False] * len(MODELS)

    def test_a_base_model_and_a_tuned_one_are_told_apart(self, home, small, tmp_path):
        import safetensors.torch

        base, tuned = make_causal(tmp_path / "base"), make_causal(tmp_path / "tuned")
        weights = safetensors.torch.load_file(tuned / "model.safetensors")
        moved = {name: 1.2 * value for name, value in weights.items()}
        safetensors.torch.save_file(moved, tuned / "model.safetensors", metadata={"format": "pt"})
        store = EmbeddingStore(home / "store")
        coded = prepare_reuse(small, f"causal:{base}", f"causal:{tuned}", store=store)
        assert ["encoder 1: base (" in one.name for one in coded.settings] == [True, False]
        assert ["encoder 2: tuned (" in one.name for one in coded.settings] == [False, True]
        assert "Encoder 2: tuned (" in coded.told[1]
        assert all("view joint:3 (last-token states of prompt and response as one text)" in told for told in coded.told)
        first, second = (one.train.view("response:final") for one in coded.settings)
        assert not np.allclose(first, second)
        np.testing.assert_array_equal(coded.settings[0].train.gold, coded.settings[1].train.gold)

    def test_data_without_gold_leave_their_part_out(self, home, small):
        bare = PreferenceDataset(
            small.prompts, small.responses.assign(gold=np.nan), small.pairs.assign(margin=np.nan), name="bare"
        )
        report = studied(home, bare)
        text = {section.title: section.text for section in report.sections}
        assert "no graded responses" in text["On encoded data"][0]
        assert any("this part is left out" in note for note in report.notes)

    def test_a_domain_of_one_prompt_leaves_pairing_out_alone(self, home, small):
        prompts = small.prompts.copy()
        trained = prompts.index[prompts["split"] == "train"][0]
        prompts.loc[trained, "domain"] = "alone"
        lone = PreferenceDataset(prompts, small.responses, small.pairs, name="lone")
        report = studied(home, lone)
        section = next(s for s in report.sections if s.title.startswith("On encoded data"))
        assert any("'alone' cannot be matched across prompts" in line for line in section.text)
        assert [table.name for table in section.tables] == ["data-noise-0"]


class TestTour:
    def test_two_objectives_over_labels_turned_round(self, home, small):
        data = prepare(small, encoder="hashing:16", store=EmbeddingStore(home / "store"))
        findings, section = PAPERS.get("sun2025")().tour(data)
        rows = section.tables[0].rows
        assert [row["flips"] for row in rows] == [0.0, 0.2, 0.4]
        from embedrm import Annotator, Featurizer, LinearHead, annotate

        noisy = annotate(data.train, Annotator(flip_rate=0.4))
        head = LinearHead(Featurizer(scale="rms"), objective="classification").fit(noisy)
        assert rows[2]["clf"]["value"] == pytest.approx(head.score(data.test))
        assert f"{rows[2]['bt']['value']:.3f} by a Bradley-Terry head" in findings[0]
        assert len(section.figures) == 1

    def test_labels_that_are_vote_shares_leave_it_out(self, home, small):
        shares = PreferenceDataset(small.prompts, small.responses, small.pairs.assign(outcome=0.8), name="shares")
        findings, section = PAPERS.get("sun2025")().tour(
            prepare(shares, encoder="hashing:16", store=EmbeddingStore(home / "s"))
        )
        assert findings[0].startswith("No labels were turned round")
        assert not section.tables


def test_the_estimate_names_the_preset():
    paper = PAPERS.get("sun2025")()
    assert paper.estimate("quick").startswith("about 4 minutes")
    assert paper.estimate("full") != paper.estimate("quick")
