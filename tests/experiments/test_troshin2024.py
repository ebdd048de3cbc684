"""``troshin2024`` on a language model that is trained in seconds: every part, kept work, files, the command line."""

from __future__ import annotations

import dataclasses
import json
import shlex
import time
from types import SimpleNamespace

import numpy as np
import pytest

from embedrm.errors import InvalidInputError, StoreError
from embedrm.experiments import prefix_data, prefix_heads, prefix_spectra, prefix_tuning
from embedrm.experiments.papers import PAPERS
from embedrm.experiments.prefix_shelf import Shelf, head_digest
from embedrm.experiments.prefix_study import FROZEN, STATIC, STATIC_LINEAR, PrefixStudy
from embedrm.experiments.prefix_texts import PARTS, bundled_texts
from embedrm.experiments.prefix_tuned import DISTILLED, RAD, RESPONSES
from embedrm.experiments.prefix_tuning import Recorded, Tuning
from embedrm.language_models import SmallLM, load_language_model, loading
from embedrm.language_models.corpus import Document

TINY_LM = SmallLM(
    layers=2, width=16, heads=2, vocabulary=300, positions=160, epochs=2, batch_tokens=512, learning_rate=0.01
)
SIZES = {"train": 120, "validation": 40, "test": 60, "judge": 120, "judge-test": 60}
TINY = prefix_data.PrefixPreset(
    sizes=SIZES,
    n_prompts=4,
    n=2,
    new_tokens=5,
    top_k=6,
    betas=(5.0, 40.0),
    beta=40.0,
    n_prefixes=40,
    n_tokens=50,
    counts=(10, 40, 999),
    ranks=(1, 4, 64),
    ks=(2, 20),
    timed_tokens=3,
    repeats=2,
    epochs=40,
    tuning=Tuning(steps=30, batch_tokens=400, learning_rate=5e-3),
    n_resamples=50,
)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    import torch

    place, before = tmp_path_factory.mktemp("home"), torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMBEDRM_HOME", str(place))
        patch.setitem(prefix_data.PREFIX_PRESETS, "quick", TINY)
        yield place
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def models(home):
    """Folders of a guided and a judging model."""
    texts = bundled_texts({**SIZES, "judge": 120})
    documents = {
        "A": [Document("", t, "attributes", g) for t, g in zip(texts["train"].texts, texts["train"].groups)],
        "B": [Document("", t, "attributes", g) for t, g in zip(texts["judge"].texts, texts["judge"].groups)],
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "bundled_documents", lambda half: documents[half])
        made = [
            load_language_model(name, config=dataclasses.replace(TINY_LM, random_state=seed), folder=home / "models")
            for seed, name in enumerate(("bundled", "bundled:judge"))
        ]
    return [str(lm.files.folder) for lm in made]


@pytest.fixture
def cli():
    from typer.testing import CliRunner

    from embedrm.cli import app

    def invoke(words):
        result = CliRunner().invoke(app, shlex.split(words))
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return SimpleNamespace(code=result.exit_code, out=result.stdout, err=result.stderr)

    return invoke


@pytest.fixture(scope="module")
def study(home, models):
    paper = PAPERS.get("troshin2024")(*models)
    return PrefixStudy(paper.prepare(None, "quick"), TINY)


def test_every_part_is_there(study):
    facts = study.facts
    names = [name + suffix for suffix in ("", FROZEN) for name in (RAD, DISTILLED, RESPONSES)]
    assert [row["name"] for row in facts["heads"]] == [row["name"] for row in facts["backbones"]] == names
    assert [row["name"] for row in facts["matrices"]] == [*names, STATIC_LINEAR, STATIC]
    assert [row["name"].startswith("no baseline") for row in facts["ablation"]] == [False, False, True, True, False]
    assert [row["r"] for row in facts["rank_sweep"]] == [1, 4, 16]
    assert {(row["arm"], row["beta"]) for row in facts["curves"]} >= {(RAD, 5.0), (DISTILLED, 40.0), ("unguided", 0.0)}
    assert [row["prefixes"] for row in facts["over_prefixes"][RAD]] == [10, 40]
    ids = {claim["id"] for claim in study.claims}
    assert {
        "rad-learns-low-rank",
        "arm-bounded-by-d",
        "arm-time-constant",
        "synthetic-identity",
        "arm-faster-20",
    } <= ids


def test_ranks_keep_their_bounds(study):
    by = {row["name"]: row for row in study.facts["matrices"]}
    assert by[DISTILLED]["above_rounding"] <= by[DISTILLED]["bound"] == 16
    assert by[STATIC_LINEAR]["above_rounding"] <= 2
    biased = study.facts["ablation"][-1]["ranks"]
    assert biased["above_rounding"] == biased["bound"] == 17
    for row in study.facts["rank_sweep"][:-1]:
        # rank r of delta, and one for the baseline
        assert row["ranks"]["above_rounding"] <= row["ranks"]["bound"] == row["r"] + 1
    for row in study.facts["matrices"]:
        ranks = [row["ranks"][cutoff] for cutoff in sorted(row["ranks"], reverse=True)]
        assert ranks == sorted(ranks)


def test_the_matrix_of_rad_is_that_of_whole_texts_read_anew(study):
    import torch

    grid, arm = study.grid, study.main[RAD]
    matrix = prefix_spectra.rad_matrices(arm.reader, {RAD: arm.head}, grid, study.data.shelf)[RAD]
    for i, j in ((0, 0), (3, 17), (39, 49)):
        with torch.no_grad():
            ids = torch.tensor([[*grid.prefixes[i], int(grid.tokens[j])]])
            h = arm.reader.model.base_model(ids, use_cache=False).last_hidden_state[0, -1:].numpy()
        assert matrix[i, j] == pytest.approx(arm.head.rewards(h)[0, 0], abs=1e-5)
    # the state of a grid's row is the one after its prefix
    states = study.lessons.train
    assert all(int(states.ids[row]) == prefix[-1] for row, prefix in zip(grid.rows, grid.prefixes))


def test_pooled_states_are_means_of_static_vectors(study):
    states, table = study.lessons.train, study.lessons.embeddings
    means = prefix_spectra.pooled(states, table)
    first, last = int(states.offsets[2]), int(states.offsets[3])
    np.testing.assert_allclose(means.states[last - 1], table[states.ids[first:last]].mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(means.states[first], table[states.ids[first]], atol=1e-6)


def test_losses_by_hand(study):
    lessons, head = study.lessons, study.frozen[RAD].head
    rewards, scores, total = head.token_rewards(lessons.test)[:, 0], lessons.parts["test"].scores, 0.0
    for i, y in enumerate(scores):
        own = rewards[lessons.test.offsets[i] + 1 : lessons.test.offsets[i + 1]]
        t = np.arange(1, len(own) + 1)
        total += (2 * t / (len(own) * (len(own) + 1)) * (own - y) ** 2).sum()
    assert prefix_heads.label_loss(head, lessons, "test") == pytest.approx(total / len(scores))
    assert prefix_heads.teacher_loss(head, head, lessons.test) == 0.0
    assert prefix_heads.auc(np.array([1.0, 2.0, 2.0, 3.0]), np.array([False, True, False, True])) == 0.875


def test_strong_guidance_raises_the_reward(study):
    arm, points = study.main[RAD], study.steering.points
    assert points[RAD, 40.0].shape == (4, 7)
    assert (points[RAD, 40.0][:, 1] == 2).all()
    identity = [study.data.lm.fingerprint(), study.steering.decoding.identity()]
    told = {}
    for name, more in (("free", []), ("rad", [head_digest(arm.head), arm.reader.fingerprint(), 40.0, "sentiment"])):
        found = study.data.shelf.facts("texts", [*identity, *more], pytest.fail)
        texts = [one["prompt"] + one["text"] for row in found for one in row]
        told[name] = arm.head.text_rewards(arm.reader.token_states(texts, store_dir=False)).mean()
    assert told["rad"] > told["free"]


def test_what_was_computed_is_found_again(home, models, study, tmp_path):
    paper = PAPERS.get("troshin2024")(*models)
    again = PrefixStudy(paper.prepare(None, "quick"), TINY)
    assert study.data.shelf.computed > 20
    assert again.data.shelf.computed == 0
    for name in ("curves", "ablation", "gaps", "tried", "over_prefixes"):
        assert json.dumps(again.facts[name]) == json.dumps(study.facts[name])
    report, files = paper.run(output=tmp_path / "out")
    assert files["html"].is_file()
    assert report.claims
    assert any("llama-2x16" in note for note in report.notes)
    assert report.provenance["language_models"]["guided"]["fingerprint"] == study.data.lm.fingerprint()
    titles = [section.title for section in report.sections]
    assert titles[0] == "Claims"
    assert len(titles) == 8


def test_token_embeddings_stay_and_the_rest_moves(study):
    tuned = [
        p for p in study.data.shelf.folder.iterdir() if p.name.startswith("tuned-") and (p / "config.json").is_file()
    ]
    assert len(tuned) == 3
    for place in tuned:
        lm = load_language_model(str(place))
        np.testing.assert_array_equal(lm.output_embeddings(), study.data.lm.output_embeddings())
        assert lm.fingerprint() != study.data.lm.fingerprint()


def test_tuning_lowers_the_loss(study, tmp_path):
    states, scores = study.lessons.train, study.lessons.parts["train"].scores
    base = prefix_heads.label_loss(prefix_heads.new_rad(study.lessons, l2=1e-4), study.lessons, "train")
    lm = prefix_tuning.tuned_model(
        study.data.lm, states, scores, "rad", Tuning(steps=40, batch_tokens=800, learning_rate=3e-3), Shelf(tmp_path)
    )
    lessons, _ = prefix_heads.read_lessons(lm, study.data.texts.parts, "sentiment", Shelf(tmp_path))
    assert prefix_heads.label_loss(prefix_heads.new_rad(lessons, l2=1e-4), lessons, "train") < base


def test_a_recorded_teacher_speaks_of_all_rows_or_none(study):
    states = study.lessons.test
    rewards = study.frozen[RAD].head.token_rewards(states)
    teacher = Recorded.of(study.frozen[RAD].head, rewards, states)
    np.testing.assert_array_equal(teacher.token_rewards(states), rewards)
    with pytest.raises(InvalidInputError, match="rows"):
        teacher.rewards(states.states[:3])


def test_a_damaged_shelf_says_so(tmp_path):
    shelf = Shelf(tmp_path)
    assert shelf.facts("x", [1], lambda: {"a": 1}) == {"a": 1}
    assert shelf.facts("x", [1], pytest.fail) == {"a": 1}
    assert shelf.facts("x", [2], lambda: 2) == 2
    shelf.place("x", [1]).with_suffix(".json").write_text("{")
    with pytest.raises(StoreError, match="Remove it"):
        shelf.facts("x", [1], pytest.fail)
    shelf.arrays("y", 1, lambda: {"a": np.arange(3)})
    shelf.place("y", 1).with_suffix(".npz").write_bytes(b"no")
    with pytest.raises(StoreError, match="Remove it"):
        shelf.arrays("y", 1, dict)


def test_the_tour_is_quick_and_needs_no_data():
    began = time.perf_counter()
    findings, section = PAPERS.get("troshin2024")().tour(None)
    assert time.perf_counter() - began < 3
    assert "rank 8" in findings[0]
    assert len(section.tables) == len(section.figures) == 1


def test_files_on_the_command_line(cli, home, models, tmp_path, monkeypatch):
    monkeypatch.setitem(prefix_data.PREFIX_PRESETS, "quick", dataclasses.replace(TINY, tuning=None))
    path = tmp_path / "texts.jsonl"
    parts = bundled_texts(dict.fromkeys(PARTS, 120), random_state=3).parts
    rows = [
        {"text": t, "score": s, "split": "test" if "test" in name else "train"}
        for name in PARTS
        for t, s in zip(parts[name].texts, parts[name].scores)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    load = prefix_data.load_language_models
    monkeypatch.setattr(
        prefix_data,
        "load_language_models",
        lambda *names, **_: load(*(models[1] if name == "bundled:judge" else name for name in names)),
    )
    outcome = cli(f"reproduce troshin2024 --lm {models[0]} --data {path} --output {tmp_path / 'out'}")
    assert outcome.code == 0, outcome.err
    assert "troshin2024 (quick): about" in outcome.err
    assert "texts.jsonl" in (tmp_path / "out" / "report.md").read_text()
    assert "tunes no backbone" in (tmp_path / "out" / "report.md").read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("reproduce namgoong2024 --lm gpt2", "--lm: namgoong2024 has no use for it. It is for: troshin2024"),
        ("reproduce --lm gpt2", "--lm: tour has no use for it"),
        ("reproduce troshin2024 --encoder hashing", "--encoder: troshin2024 encodes no preferences"),
        ("reproduce troshin2024 --data nothere.jsonl", "nothere.jsonl"),
        ("reproduce troshin2024 --literal", "--literal: troshin2024 has no literal arms"),
    ],
)
def test_misuse_is_one_line(cli, words, said):
    outcome = cli(words)
    assert outcome.code == 2, outcome.err
    assert said in outcome.err
