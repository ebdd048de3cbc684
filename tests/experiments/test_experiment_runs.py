"""An experiment's fingerprint and result: what changes them, and what must not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from embedrm import LinearHead, Report
from embedrm.errors import InvalidInputError
from embedrm.experiments import running
from embedrm.experiments.experiment import Experiment
from embedrm.experiments.experiment_run import run_experiment
from embedrm.experiments.judging import Judged, NotFiniteError
from embedrm.experiments.running import Workbench, run_trial
from embedrm.experiments.sweep_trials import TrialFile
from embedrm.featurizers import Featurizer
from embedrm.preferences import EmbeddedPreferences, EmbeddedResponses

BASE = {"data": "pairs.jsonl", "encoder": "hashing:32", "head": {"name": "linear", "l2": 0.1}}


def made(n: int = 240, dim: int = 5, seed: int = 0) -> EmbeddedPreferences:
    """Pairs of two domains that want opposite things, two pairs to a prompt group, in three splits."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((2 * n, dim)).astype(np.float32)
    prompts = np.arange(n)
    domain = np.where(prompts // 2 % 2, "sea", "tea").astype(object)
    split = np.array(["train", "train", "validation", "test"], dtype=object)[prompts // 4 % 4]
    group = np.array([f"g{i // 2}" for i in range(n)], dtype=object)
    of = np.repeat(prompts, 2)
    reward = x[:, 0] * np.where(domain[of] == "sea", 1.0, -0.5) + x[:, 1] + 0.3 * rng.standard_normal(2 * n)
    pairs = np.arange(2 * n).reshape(-1, 2)
    pairs = np.where((reward[pairs[:, 0]] < reward[pairs[:, 1]])[:, None], pairs[:, ::-1], pairs)
    responses = EmbeddedResponses(
        {"response:final": x, "prompt:final": rng.standard_normal((n, dim)).astype(np.float32)},
        of,
        domain=domain,
        split=split,
        group=group,
    )
    return EmbeddedPreferences(responses, pairs)


@pytest.fixture(scope="module")
def prefs() -> EmbeddedPreferences:
    return made()


def write_pairs(path: str, n: int = 60, better: str = "kettle", split: bool = True) -> None:
    rows = []
    for i in range(n):
        row = {
            "prompt": f"Tea {i}?",
            "chosen": f"the {better} {i % 5}",
            "rejected": f"a bucket {i % 7}",
            "domain": "tea",
        }
        row |= {"split": ("train", "validation", "test")[i % 3]} if split else {}
        rows.append(json.dumps(row))
    Path(path).write_text("\n".join(rows) + "\n")


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EMBEDRM_HOME", str(tmp_path / "home"))
    write_pairs("pairs.jsonl")


class TestFingerprint:
    @pytest.mark.usefixtures("files")
    @pytest.mark.parametrize(
        "change",
        [
            {"head.l2": 0.2},
            {"head": "mlp"},
            {"head.objective": "hinge"},
            {"featurizer.scale": "none"},
            {"encoder": "hashing:64"},
            {"encoder.sides": ["response"]},
            {"training.size": 10},
            {"training.split": "validation", "evaluation.splits": "test"},
            {"evaluation.splits": "test"},
            {"data.domains": "tea"},
            {"ensemble": 3},
            {"calibrated": "platt"},
            {"model": "routed"},
        ],
        ids=str,
    )
    def test_changes_with_what_a_result_depends_on(self, change: dict) -> None:
        bench, base = Workbench(), Experiment(BASE)
        assert base.with_settings(change).fingerprint(bench) != base.fingerprint(bench)

    @pytest.mark.usefixtures("files")
    @pytest.mark.parametrize(
        "change",
        [
            {"title": "Another title"},
            {"head.l2": 0.1, "head.tol": 1e-9},
            {"featurizer": {"terms": "r"}},
            {"featurizer": None},
            {"evaluation.n_resamples": 7, "evaluation.random_state": 3},
            {"evaluation.splits": ["validation", "test"]},
            {"seeds": 9},
            {"data": {"files": ["copy.jsonl"], "ties": "auto"}},
            {"data.shares": {"train": 0.5, "test": 0.5}},
            {"encoder": {"name": "hashing", "options": {"dim": 32}}},
            {"head.l2_grid": [1e-3, 1e-2, 1e-1, 1, 10]},
            {"head.objective": {"name": "bradley-terry"}},
            {"evaluation.splits": ["test", "validation"]},
            {"training.by": "pairs"},
            {"training.annotation": {"flip_rate": 0}},
        ],
        ids=str,
    )
    def test_does_not_change_with_anything_else(self, change: dict) -> None:
        Path("copy.jsonl").write_text(Path("pairs.jsonl").read_text())
        base = Experiment({**BASE, "featurizer": {"terms": ["r"]}} if "featurizer" in change else BASE)
        if change.get("featurizer", 0) is None:
            base = Experiment(BASE)
        assert base.with_settings(change).fingerprint() == base.fingerprint()

    @pytest.mark.usefixtures("files")
    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ({"head.objective": "bt-smoothed"}, {"head.objective": {"name": "bt-smoothed"}}),
            ({"featurizer.project": "pca"}, {"featurizer.project": {"name": "pca"}}),
            ({"ensemble": 3}, {"ensemble": {"n_members": 3}}),
            ({"data.domains": "tea"}, {"data.domains": ["tea"]}),
            ({"featurizer.covariates": "characters"}, {"featurizer.covariates": ["characters"]}),
            ({"head.l2": 1}, {"head.l2": 1.0}),
            ({"training.pairing": "similar"}, {"training.pairing": {"name": "similar"}}),
        ],
    )
    def test_two_spellings_are_one(self, one: dict, other: dict) -> None:
        base = Experiment(BASE)
        assert base.with_settings(one).fingerprint() == base.with_settings(other).fingerprint()
        assert base.with_settings(one).fingerprint() != base.fingerprint()

    def test_an_object_that_differs_in_a_parameter_is_not_its_name(self, prefs: EmbeddedPreferences) -> None:
        bench = Workbench(preferences=prefs)
        named, other = (
            Experiment({"head": {"name": "linear", "objective": {"name": "bt-smoothed", **more}}}).fingerprint(bench)
            for more in ({}, {"flip_rate": 0.31})
        )
        assert named != other

    def test_the_order_of_layers_counts_and_that_of_keys_does_not(self) -> None:
        bench = Workbench()
        facts = []
        for layers in (["2", "6"], ["6", "2"]):
            experiment = Experiment({"encoder": {"name": "all-MiniLM-L6-v2", "layers": layers}})
            facts.append(bench.vector_facts(experiment.config))
        # features have the order of the layers, and what a seed draws for them depends on it
        assert facts[0] != facts[1]
        one = Experiment({"head": {"name": "linear", "l2": 1, "tol": 1e-6}, "encoder": "hashing"})
        other = Experiment({"encoder": "hashing", "head": {"tol": 1e-6, "l2": 1, "name": "linear"}})
        assert one.fingerprint(bench) == other.fingerprint(bench)

    @pytest.mark.usefixtures("files")
    def test_follows_the_content_of_files_and_not_their_bytes(self) -> None:
        first = Experiment(BASE).fingerprint()
        text = Path("pairs.jsonl").read_text()
        Path("pairs.jsonl").write_text(text.replace('", "', '",   "'))
        assert Experiment(BASE).fingerprint() == first
        write_pairs("pairs.jsonl", better="harbour")
        assert Experiment(BASE).fingerprint() != first

    def test_follows_vectors_at_hand(self, prefs: EmbeddedPreferences) -> None:
        experiment = Experiment()
        first = experiment.fingerprint(Workbench(preferences=prefs))
        assert experiment.fingerprint(Workbench(preferences=made())) == first
        other = made()
        other.responses.views["response:final"][3, 1] += 1e-3
        assert experiment.fingerprint(Workbench(preferences=other)) != first
        assert experiment.fingerprint(Workbench(preferences=made().swapped())) != first

    def test_seeds_matter_where_something_is_drawn(self, prefs: EmbeddedPreferences) -> None:
        bench = Workbench(preferences=prefs)
        for settings, matters in (
            ({}, False),
            ({"training.size": 20}, True),
            ({"head": "mlp"}, True),
            ({"featurizer.project": "random"}, False),
            ({"featurizer.project": {"name": "random", "n_components": 2}}, True),
            ({"ensemble": 2}, True),
        ):
            experiment = Experiment().with_settings(settings)
            names = {experiment.fingerprint(bench, seed) for seed in range(3)}
            assert (len(names) == 3, experiment.seed_matters()) == (matters, matters), settings

    @pytest.mark.usefixtures("files")
    def test_facts_of_files_are_remembered_by_their_bytes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        known: dict = {}
        first = Experiment(BASE).fingerprint(Workbench(known=known))
        assert len(known) == 1
        monkeypatch.setattr(running, "_read", lambda *_: pytest.fail("the files were read again"))
        assert Experiment(BASE).fingerprint(Workbench(known=known)) == first

    @pytest.mark.usefixtures("files")
    def test_a_split_that_is_made_is_part_of_it(self) -> None:
        write_pairs("pairs.jsonl", split=False)
        one = Experiment(BASE)
        assert one.with_settings({"data.random_state": 1}).fingerprint() != one.fingerprint()
        assert one.with_settings({"data.shares": {"train": 0.5, "test": 0.5}}).fingerprint() != one.fingerprint()


class TestResult:
    def test_is_that_of_the_public_interface(self, prefs: EmbeddedPreferences) -> None:
        experiment = Experiment({"head": {"name": "linear", "l2": 0.3}, "featurizer": {"terms": "r,p*r"}})
        facts, model = run_trial(experiment.config.parts, 0, Workbench(preferences=prefs).prepared(experiment.config))
        head = LinearHead(Featurizer(terms="r,p*r"), l2=0.3).fit(prefs.in_split("train"))
        test = prefs.in_split("test")
        np.testing.assert_array_equal(model.coef_, head.coef_)
        assert facts["metrics"]["test"]["micro"] == pytest.approx(head.score(test))
        by_domain = {d: head.score(test.in_domain(d)) for d in ("sea", "tea")}
        assert facts["metrics"]["test"]["domains"] == pytest.approx(by_domain)
        assert facts["metrics"]["test"]["macro"] == pytest.approx(np.mean(list(by_domain.values())))
        assert facts["metrics"]["test"]["log_loss"] == pytest.approx(np.log1p(np.exp(-head.margins(test))).mean())
        assert facts["parameters"] == 10
        assert facts["n_train"] == len(prefs.in_split("train"))

    def test_standard_errors_are_over_prompt_groups(self) -> None:
        x = np.array([[1.0], [0], [1], [0], [0], [1], [1], [0]])
        responses = EmbeddedResponses(
            {"response:final": x},
            np.repeat(np.arange(4), 2),
            group=np.array(list("aabb")),
            split=np.array(["test"] * 4),
        )
        judged = Judged.of("test", EmbeddedPreferences(responses, np.arange(8).reshape(-1, 2)))
        # credits 1, 1, 0, 1 in the groups a a b b: residuals sum to 0.5 and -0.5
        facts = judged.facts(np.array([1.0, 1.0, -1.0, 1.0]), True)
        assert facts["se"] == pytest.approx(np.sqrt(2 / 1 * (0.25 + 0.25)) / 4)
        assert (facts["micro"], facts["n_groups"]) == (0.75, 2)
        with pytest.raises(NotFiniteError, match="1 of 4"):
            judged.facts(np.array([1.0, np.nan, 1.0, 1.0]), True)

    def test_a_drawn_training_set_is_nested_and_of_its_size(self, prefs: EmbeddedPreferences) -> None:
        small = Workbench(preferences=prefs).prepared(Experiment({"training": {"size": 20}}).config)
        large = Workbench(preferences=prefs).prepared(Experiment({"training": {"size": 40}}).config)
        assert len(small.draw(0).active_prompts) == 20
        assert set(small.draw(0).prompt_rows) < set(large.draw(0).prompt_rows)
        assert set(small.draw(0).prompt_rows) != set(small.draw(1).prompt_rows)
        with pytest.raises(InvalidInputError, match="beyond the training data"):
            Workbench(preferences=prefs).prepared(Experiment({"training": {"size": 10**6}}).config).draw(0)

    def test_domains_are_of_all_of_training_or_of_evaluation(self, prefs: EmbeddedPreferences) -> None:
        def sizes(**sections: dict) -> tuple[tuple[str, ...], list[str]]:
            made_ = Workbench(preferences=prefs).prepared(Experiment(sections).config)
            return made_.training.domains, made_.judged[-1].domains

        assert sizes(data={"domains": "sea"}) == (("sea",), ["sea"])
        assert sizes(training={"domains": ["sea"]}) == (("sea",), ["sea", "tea"])
        assert sizes(evaluation={"domains": "tea"}) == (("sea", "tea"), ["tea"])
        with pytest.raises(InvalidInputError, match="Did you mean 'sea'"):
            sizes(data={"domains": "see"})

    def test_a_training_split_is_not_evaluated_on(self, prefs: EmbeddedPreferences) -> None:
        with pytest.raises(InvalidInputError, match="fitted on and evaluated on"):
            Workbench(preferences=prefs).prepared(Experiment({"evaluation": {"splits": ["train", "test"]}}).config)
        with pytest.raises(InvalidInputError, match="Did you mean 'test'"):
            Workbench(preferences=prefs).prepared(Experiment({"evaluation": "tset"}).config)

    def test_a_calibration_split_is_not_evaluated_on_and_keeps_to_the_domains(self, prefs: EmbeddedPreferences) -> None:
        from embedrm import CalibratedRewardModel

        parts = {"calibrated": {"method": "platt", "split": "validation"}}
        with pytest.raises(InvalidInputError, match="calibrated on and evaluated on"):
            Workbench(preferences=prefs).prepared(Experiment(parts).config)
        experiment = Experiment({**parts, "evaluation": "test", "data": {"domains": "sea"}})
        _, model = run_trial(experiment.config.parts, 0, Workbench(preferences=prefs).prepared(experiment.config))
        sea = prefs.in_domain("sea")
        apart = CalibratedRewardModel(LinearHead()).fit_apart(sea.in_split("train"), sea.in_split("validation"))
        np.testing.assert_array_equal(model.margins(prefs), apart.margins(prefs))

    @pytest.mark.usefixtures("files")
    def test_calibration_on_a_split_of_its_own(self, prefs: EmbeddedPreferences) -> None:
        from embedrm import CalibratedRewardModel

        parts = {"calibrated": {"method": "platt", "split": "validation"}, "evaluation": "test"}
        experiment = Experiment(parts)
        _, model = run_trial(experiment.config.parts, 0, Workbench(preferences=prefs).prepared(experiment.config))
        apart = CalibratedRewardModel(LinearHead()).fit_apart(prefs.in_split("train"), prefs.in_split("validation"))
        test = prefs.in_split("test")
        np.testing.assert_array_equal(model.margins(test), apart.margins(test))


class TestFeaturesAreFittedOnce:
    def test_and_results_are_the_same_to_the_bit(
        self, prefs: EmbeddedPreferences, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        experiment = Experiment({"featurizer": {"project": "whiten"}})
        prepared = Workbench(preferences=prefs).prepared(experiment.config)
        from embedrm.experiments.running_features import forget_features

        forget_features()
        fits = []
        plain = Featurizer._learn
        monkeypatch.setattr(Featurizer, "_learn", lambda self, p: (fits.append(len(p)), plain(self, p))[1])
        found = []
        for l2 in (0.1, 1.0, 0.1):
            parts = experiment.with_settings({"head.l2": l2}).config.parts
            found.append(run_trial(parts, 0, prepared)[1].coef_)
        assert len(fits) == 1
        np.testing.assert_array_equal(found[0], found[2])
        head = LinearHead(Featurizer(project="whiten"), l2=1.0).fit(prefs.in_split("train"))
        np.testing.assert_array_equal(found[1], head.coef_)
        # other pairs are another fit
        run_trial(experiment.with_settings({"training.size": 20}).config.parts, 0, prepared)
        drawn = experiment.with_settings({"training.size": 20})
        run_trial(drawn.config.parts, 0, Workbench(preferences=prefs).prepared(drawn.config))
        assert len(fits) == 3

    def test_what_was_spared_is_part_of_the_cost(self, prefs: EmbeddedPreferences) -> None:
        experiment = Experiment({"featurizer": {"project": "whiten"}})
        prepared = Workbench(preferences=prefs).prepared(experiment.config)
        from embedrm.experiments.running_features import forget_features

        forget_features()
        first, second = (run_trial(experiment.config.parts, 0, prepared)[0] for _ in range(2))
        assert first["spared_seconds"] == 0.0
        assert 0.0 < second["spared_seconds"] < second["seconds"]


class TestRun:
    def test_gives_a_report_and_one_record_a_seed(self, prefs: EmbeddedPreferences, tmp_path: Path) -> None:
        experiment = Experiment({"title": "A study", "training": {"size": 30}, "seeds": 3})
        report = run_experiment(experiment, tmp_path / "run", preferences=prefs)
        assert Report.load(tmp_path / "run") == report
        assert report.title == "A study"
        assert [row["seed"] for row in report.tables["seeds"].rows] == ["0", "1", "2"]
        kept = TrialFile(tmp_path / "run")
        kept.read()
        assert sorted(r["seed"] for r in kept.records.values()) == [0, 1, 2]
        mean = np.mean([r["metrics"]["test"]["micro"] for r in kept.records.values()])
        cell = report.tables["accuracy-test"].rows[0]["micro"]
        assert cell["value"] == pytest.approx(mean)
        assert cell["low"] < mean < cell["high"]
        assert Experiment.from_file(tmp_path / "run" / "experiment.yaml") == experiment
        assert set(report.provenance["fingerprints"].values()) == set(kept.records)

    def test_seeds_that_change_nothing_are_one_fit_and_said_so(self, prefs: EmbeddedPreferences) -> None:
        report = run_experiment(Experiment({"seeds": 4}), preferences=prefs)
        assert len(report.tables["seeds"].rows) == 1
        assert any("the seeds are one fit" in note for note in report.notes)

    @pytest.mark.usefixtures("files")
    def test_from_files_with_the_length_row(self) -> None:
        report = run_experiment(Experiment(BASE))
        assert [row["model"] for row in report.tables["accuracy-test"].rows] == ["linear", "length only"]
        assert report.provenance["data"]["name"]
        assert report.provenance["encoder"]["kind"] == "hashing"
