"""Trials judged on choices among candidates: against brute force, block by block, and with nothing silently left out."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from embedrm.datasets.teachers import Teacher, write_candidates
from embedrm.errors import InvalidInputError
from embedrm.experiments import choices as module
from embedrm.experiments.choices import Choices
from embedrm.experiments.experiment import Experiment
from embedrm.experiments.mapped_pages import give_back, map_of
from embedrm.experiments.running import Workbench, run_trial
from embedrm.experiments.trial_metrics import check_metric, offered, recorded
from embedrm.heads.linear import LinearHead
from embedrm.preferences import EmbeddedResponses

N, K, DIM = 6, 7, 3
ARRAYS = "Gemma2b_Gemma2b_Helpful"


class Given:
    """A fitted model whose reward is the first feature, and that notes how many responses it was given at once."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def predict(self, responses: EmbeddedResponses) -> np.ndarray:
        self.sizes.append(responses.n_responses)
        return responses.views["response:final"][:, 0].astype(np.float64)


def some_responses(seed: int = 0, **more: Any) -> EmbeddedResponses:
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((N * K, DIM)).astype(np.float32)
    gold = vectors[:, 0] + rng.standard_normal(N * K)
    return EmbeddedResponses({"response:final": vectors}, np.repeat(np.arange(N), K), **{"gold": gold, **more})


def brute(rewards: np.ndarray, gold: np.ndarray, n: int) -> np.ndarray:
    """Mean gold of the best of every set of n candidates, prompt by prompt; equal rewards share their gold."""
    out = []
    for r, g in zip(rewards, gold):
        found = []
        for chosen in itertools.combinations(range(len(r)), n):
            best = max(r[i] for i in chosen)
            found.append(np.mean([g[i] for i in range(len(r)) if r[i] == best]))
        out.append(np.mean(found))
    return np.array(out)


class TestAgainstBruteForce:
    @pytest.mark.parametrize("rounded", [False, True])
    def test_gold_of_the_best_of_n_and_spearman(self, rounded: bool) -> None:
        responses = some_responses()
        vectors = responses.views["response:final"]
        if rounded:
            vectors[:] = np.round(vectors)
        found = Choices.of("test", responses, np.ones(N, dtype=bool), [2, 3, K]).facts(Given())
        rewards, gold = vectors[:, 0].reshape(N, K).astype(float), responses.gold.reshape(N, K)
        mean = gold.mean(axis=1)
        unit = np.sqrt(np.mean((gold - mean[:, None]) ** 2))
        for n in (2, 3, K):
            gain = (brute(rewards, gold, n) - mean) / unit
            assert found[f"best_of_{n}"] == pytest.approx(gain.mean(), abs=1e-12)
            assert found[f"best_of_{n}_se"] == pytest.approx(gain.std(ddof=1) / np.sqrt(N), abs=1e-12)
        ranks = [spearmanr(r, g).statistic for r, g in zip(rewards, gold)]
        assert found["spearman"] == pytest.approx(np.mean(ranks), abs=1e-12)
        assert (found["n_candidates"], found["n_choice_prompts"]) == (N * K, N)

    def test_perfect_and_opposite_rewards(self) -> None:
        responses = some_responses()
        responses.views["response:final"][:, 0] = responses.gold
        up = Choices.of("test", responses, np.ones(N, dtype=bool), [K]).facts(Given())
        gold = responses.gold.reshape(N, K)
        unit = np.sqrt(np.mean((gold - gold.mean(axis=1, keepdims=True)) ** 2))
        assert up["best_of_7"] == pytest.approx((gold.max(axis=1) - gold.mean(axis=1)).mean() / unit, rel=1e-6)
        assert up["spearman"] == pytest.approx(1.0)
        responses.views["response:final"][:, 0] *= -1
        down = Choices.of("test", responses, np.ones(N, dtype=bool), [K]).facts(Given())
        assert down["spearman"] == pytest.approx(-1.0)
        assert down["best_of_7"] < 0

    def test_standard_errors_are_of_prompt_groups(self) -> None:
        # the same prompt three times over is no more evidence than once
        one = some_responses()
        groups = np.array(["a", "a", "b", "b", "c", "c"])
        alone = Choices.of("test", one, np.ones(N, dtype=bool), [2]).facts(Given())
        grouped = Choices.of("test", some_responses(group=groups), np.ones(N, dtype=bool), [2]).facts(Given())
        assert alone["best_of_2"] == grouped["best_of_2"]
        assert alone["best_of_2_se"] != grouped["best_of_2_se"]


class TestWhatIsScored:
    def test_blocks_change_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        choices = Choices.of("test", some_responses(), np.ones(N, dtype=bool), [2, 5])
        whole, parts = Given(), Given()
        first = choices.facts(whole)
        monkeypatch.setattr(module, "BLOCK_BYTES", 5 * DIM * 4)
        assert choices.facts(parts) == first
        assert whole.sizes == [N * K]
        assert max(parts.sizes) == 5
        assert sum(parts.sizes) == N * K

    def test_other_prompts_are_not_read(self) -> None:
        responses = some_responses()
        mask = np.array([True, False, True, True, False, True])
        first = Choices.of("test", responses, mask, [2]).facts(Given())
        responses.views["response:final"][~mask[responses.prompt_of]] = np.nan
        assert Choices.of("test", responses, mask, [2]).facts(Given()) == first
        assert first["n_choice_prompts"] == 4

    def test_a_drawn_part_of_the_prompts_is_the_same_each_time(self) -> None:
        drawn = [Choices.of("test", some_responses(), np.ones(N, dtype=bool), [2], 3) for _ in range(2)]
        names = [one.judge.scored.candidates.names.tolist() for one in drawn]
        assert names[0] == names[1]
        assert len(names[0]) == 3
        # none is drawn twice
        every = Choices.of("test", some_responses(), np.ones(N, dtype=bool), [2], N)
        assert every.facts(Given()) == Choices.of("test", some_responses(), np.ones(N, dtype=bool), [2]).facts(Given())
        with pytest.raises(InvalidInputError, match="7 prompts were asked for"):
            Choices.of("test", some_responses(), np.ones(N, dtype=bool), [2], 7)

    def test_mapped_vectors_are_given_back_and_stay_what_they_are(self, tmp_path: Path) -> None:
        rng = np.random.default_rng(1)
        np.save(tmp_path / "x.npy", rng.standard_normal((400, 1024)).astype(np.float32))
        mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
        assert map_of(mapped[:]) is not None
        # a private map may hold changes that are nowhere else
        assert map_of(np.load(tmp_path / "x.npy", mmap_mode="c")) is None
        assert map_of(np.ones((3, 2))) is None
        gold = rng.standard_normal(400)
        held = EmbeddedResponses({"response:final": np.array(mapped)}, np.repeat(np.arange(20), 20), gold=gold)
        on_disk = EmbeddedResponses({"response:final": mapped}, np.repeat(np.arange(20), 20), gold=gold)
        every = np.ones(20, dtype=bool)
        assert Choices.of("t", on_disk, every, [5]).facts(Given()) == Choices.of("t", held, every, [5]).facts(Given())
        assert np.array_equal(mapped, held.views["response:final"])

    @pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="resident pages are told on Linux only")
    def test_pages_are_no_longer_held(self, tmp_path: Path) -> None:
        np.save(tmp_path / "big.npy", np.ones((64, 65536), dtype=np.float32))
        mapped = np.load(tmp_path / "big.npy", mmap_mode="r")
        responses = EmbeddedResponses({"response:final": mapped}, np.zeros(64, dtype=int))

        def resident() -> int:
            lines = Path("/proc/self/smaps").read_text(encoding="utf-8").split("big.npy", 1)[1].splitlines()
            return next(int(line.split()[1]) for line in lines if line.startswith("Rss:"))

        assert float(mapped.sum()) == 64 * 65536
        assert resident() > 16_000
        give_back(responses, 0, 32)
        # give or take a large page
        assert 4_000 < resident() < 10_300
        give_back(responses)
        assert resident() < 500
        assert float(mapped.sum()) == 64 * 65536

    @pytest.mark.parametrize(
        ("gold", "ns", "match"),
        [
            (np.full(N * K, np.nan), [2], "no response with gold"),
            (np.zeros(N * K), [2], "the same gold"),
            (np.arange(N * K), [8], "no prompt has more than 7"),
        ],
    )
    def test_what_cannot_be_judged_is_refused(self, gold: np.ndarray, ns: list[int], match: str) -> None:
        with pytest.raises(InvalidInputError, match=match):
            Choices.of("test", some_responses(gold=gold), np.ones(N, dtype=bool), ns)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("released")
    teacher = Teacher(dim=8)
    write_candidates(teacher, where, ARRAYS, "train", 80, 10)
    write_candidates(teacher, where, ARRAYS, "validation", 30, 10)
    write_candidates(teacher, where, ARRAYS, "test", 40, 20)
    return where


def experiment(folder: Path, **evaluation: Any) -> Experiment:
    return Experiment(
        {
            "data": {"release": str(folder / ARRAYS)},
            "encoder": "hashing",
            "training": {"pairing": "same-prompt"},
            "head": {"name": "linear", "l2": 0.01},
            "evaluation": {"splits": "test", **evaluation},
        }
    )


class TestTrials:
    def test_a_trial_is_judged_on_all_candidates_of_its_split(self, folder: Path) -> None:
        made = experiment(folder, best_of_n=[5, 20])
        prepared = Workbench(False).prepared(made.config)
        facts, model = run_trial(made.config.parts, 0, prepared)
        found = facts["metrics"]["test"]
        vectors = np.load(folder / f"embd_{ARRAYS}_test.npy")
        gold = np.load(folder / f"reward_{ARRAYS}_test.npy")[:, :, 0].astype(float)
        rewards = model.predict(vectors.reshape(-1, 8)).reshape(40, 20)
        unit = np.sqrt(np.mean((gold - gold.mean(axis=1, keepdims=True)) ** 2))
        best = gold[np.arange(40), rewards.argmax(axis=1)] - gold.mean(axis=1)
        assert found["best_of_20"] == pytest.approx(best.mean() / unit)
        assert found["spearman"] == pytest.approx(np.mean([spearmanr(r, g).statistic for r, g in zip(rewards, gold)]))
        assert facts["score_core_seconds"] >= 0
        assert facts["draw_core_seconds"] >= 0
        assert recorded(found) == ["micro", "macro", "log_loss", "best_of_5", "best_of_20", "spearman"]

    def test_pairs_are_judged_as_before(self, folder: Path) -> None:
        results = []
        for more in ({}, {"best_of_n": [5]}):
            made = experiment(folder, **more)
            results.append(
                run_trial(made.config.parts, 0, Workbench(False).prepared(made.config))[0]["metrics"]["test"]
            )
        assert {key: results[1][key] for key in results[0]} == results[0]

    def test_only_what_changes_a_record_changes_the_fingerprint(self, folder: Path) -> None:
        plain = experiment(folder).fingerprint()
        assert experiment(folder, n_resamples=7).fingerprint() == plain
        two = experiment(folder, best_of_n=[2, 5]).fingerprint()
        assert two != plain
        assert experiment(folder, best_of_n=[5, 2]).fingerprint() == two
        assert experiment(folder, best_of_n=[2, 5], prompts=10).fingerprint() != two

    def test_a_split_without_enough_candidates_is_named(self, folder: Path) -> None:
        made = experiment(folder, splits=["validation", "test"], best_of_n=[20])
        with pytest.raises(InvalidInputError, match=r"split 'validation': best of 20 .* evaluation\.splits"):
            Workbench(False).prepared(made.config)

    @pytest.mark.parametrize(
        ("evaluation", "match"),
        [
            ({"best_of_n": []}, "different whole numbers from 2"),
            ({"best_of_n": [1, 2]}, "different whole numbers from 2"),
            ({"best_of_n": [2, 2]}, "different whole numbers from 2"),
            ({"best_of_n": 5}, "must be a list"),
            ({"best_of_n": [2.5]}, "must be a list"),
            ({"prompts": 5}, "'best_of_n', which is not set"),
            ({"best_of_n": [2], "prompts": 0}, "at least 1"),
            ({"best_of": [2]}, "best_of_n"),
        ],
    )
    def test_settings_are_strict(self, folder: Path, evaluation: dict[str, Any], match: str) -> None:
        with pytest.raises(InvalidInputError, match=match):
            experiment(folder, **evaluation)

    def test_metrics_are_those_that_all_variants_have(self, folder: Path) -> None:
        configs = [experiment(folder, best_of_n=ns).config for ns in ([2, 5], [5, 10])]
        assert offered(configs) == ["micro", "macro", "log_loss", "spearman", "best_of_5"]
        assert offered([experiment(folder).config]) == ["micro", "macro", "log_loss"]
        with pytest.raises(InvalidInputError, match=r"best_of_10.*set evaluation\.best_of_n"):
            check_metric("best_of_10", configs)
        with pytest.raises(InvalidInputError, match="micro"):
            check_metric("mikro", configs)

    def test_gold_reported_as_run(self, folder: Path) -> None:
        from embedrm.experiments.experiment_run import run_experiment

        table = run_experiment(experiment(folder, best_of_n=[20])).tables["seeds"]
        assert {"c0_best_of_20", "c0_spearman"} <= {column.key for column in table.columns}
        assert all(0 < row["c0_best_of_20"] < 3 for row in table.rows)


def test_a_linear_teacher_is_found(tmp_path: Path) -> None:
    # a head that learns the gold itself captures nearly all that the best by gold has
    teacher = Teacher(dim=6, kind="linear")
    write_candidates(teacher, tmp_path, ARRAYS, "train", 400, 6)
    write_candidates(teacher, tmp_path, ARRAYS, "test", 50, 30)
    made = experiment(tmp_path, best_of_n=[30])
    prepared = Workbench(False).prepared(made.config)
    found = prepared.judged[0].judge(LinearHead(l2=1e-4).fit(prepared.draw(0)))
    assert found["spearman"] > 0.95
    assert found["best_of_30"] > 1.9
