"""embedrm run, sweep, runs and cite: what a user types, what is kept, and how mistakes read."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import pandas as pd
import pytest

from embedrm import LinearHead, Report, encode, read_preferences

STUDY = """\
title: Tea and sea
data: pairs.jsonl
encoder: hashing
head: {name: linear, l2: 0.1}
evaluation: test
"""


@pytest.fixture
def study(pairs_file: str) -> str:
    Path("study.yaml").write_text(STUDY)
    return "study.yaml"


class TestRun:
    def test_one_file_is_one_result(self, cli, study: str) -> None:
        outcome = cli(f"run {study} -o runs/one --json --set head.l2=0.3")
        assert outcome.code == 0, outcome.err
        report = Report.from_dict(outcome.json())
        prefs = encode(read_preferences("pairs.jsonl"), "hashing")
        score = LinearHead(l2=0.3).fit(prefs.in_split("train")).score(prefs.in_split("test"))
        assert report.tables["accuracy-test"].rows[0]["micro"]["value"] == pytest.approx(score)
        assert {"experiment.yaml", "trials.jsonl", "report.html"} <= {path.name for path in Path("runs/one").iterdir()}
        # what was kept is the experiment that was run, and runs again to the same result
        again = cli("run runs/one/experiment.yaml --json")
        assert Report.from_dict(again.json()).tables["accuracy-test"] == report.tables["accuracy-test"]

    def test_show_prints_and_runs_nothing(self, cli, study: str) -> None:
        outcome = cli(f"run {study} --show --set head=mlp --set head.hidden=[8]")
        assert outcome.code == 0, outcome.err
        assert outcome.out == (
            "title: Tea and sea\ndata:\n  files: pairs.jsonl\nencoder:\n  name: hashing\n"
            "head:\n  name: mlp\n  hidden: [8]\nevaluation:\n  splits: test\n"
        )
        assert not Path("runs").exists()

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            ("--set haed.l2=1", "Did you mean 'head'"),
            ("--set head.l2", "--set expects PATH=VALUE"),
            ("--set head.l2=[1", "cannot read"),
            ("--set head.l2=1 --set head.l2=2", "twice"),
            ("--set data=absent.jsonl", "absent.jsonl"),
            ("--set evaluation=tests", "Did you mean 'test'"),
            ("--set data=domans", "Did you mean 'domains'"),
            ("--set 'data={files: domains, ties: drop}'", "leave out data.ties"),
            ("--set seeds=1000000000", "from 1 to 100,000"),
            ("--set seeds=[2147483648]", "2,147,483,647"),
            ("--set 'calibrated={method: platt, split: test}'", "calibrated on and evaluated on"),
        ],
    )
    def test_mistakes_are_one_line(self, cli, study: str, words: str, said: str) -> None:
        outcome = cli(f"run {study} {words}")
        assert outcome.code == 2
        assert said in outcome.err.splitlines()[-1]

    def test_an_example_is_printed_and_is_a_file_that_runs(self, cli) -> None:
        outcome = cli("run --example")
        assert outcome.code == 0, outcome.err
        Path("mine.yaml").write_text(outcome.out)
        assert cli("run mine.yaml --show --json").json()["sweep"]["grid"]["featurizer.terms"] == ["r", "r,p*r"]
        assert "give it alone" in cli("run mine.yaml --example").err
        assert "embedrm run --example" in cli("run").err
        assert "Did you mean 'example'" in cli("run exampel").err

    def test_a_result_never_replaces_another_one(self, cli, study: str) -> None:
        assert cli(f"run {study} -o runs/one").code == 0
        kept = Path("runs/one/report.html").read_bytes()
        other = cli(f"run {study} -o runs/one --set head.l2=0.3")
        assert other.code == 2
        assert "another experiment (other there: head.l2)" in other.err
        assert Path("runs/one/report.html").read_bytes() == kept
        assert len(Path("runs/one/trials.jsonl").read_text().splitlines()) == 1
        # more seeds, another title and other intervals are the same experiment
        same = "--set seeds=2 --set title=Again --set evaluation.n_resamples=50"
        assert cli(f"run {study} -o runs/one {same}").code == 0
        # neither does a sweep that of a run, nor a run that of a sweep
        kept = Path("runs/one/report.html").read_bytes()
        assert cli(f"sweep {study} -o runs/one --grid head.l2=0.1,1").code == 0
        assert Path("runs/one/report.html").read_bytes() == kept
        [inner] = Path("runs/one").glob("sweep-*")
        assert (inner / "report.html").is_file()
        assert cli(f"sweep {study} -o runs/many --grid head.l2=0.1,1").code == 0
        outcome = cli(f"run {study} -o runs/many")
        assert (outcome.code, "holds a sweep" in outcome.err) == (2, True)
        assert cli("runs rm runs/one --yes").code == 0
        assert not Path("runs/one").exists()

    @pytest.mark.parametrize("command", ["run {} -o afile", "sweep {} -o afile --grid head.l2=1,2"])
    def test_a_file_is_no_folder(self, cli, study: str, command: str) -> None:
        Path("afile").write_text("mine")
        outcome = cli(command.format(study))
        assert (outcome.code, "it is a file" in outcome.err) == (2, True)
        assert Path("afile").read_text() == "mine"

    def test_a_mistake_in_the_file_is_told_with_its_line(self, cli, study: str) -> None:
        Path(study).write_text(STUDY.replace("l2:", "l2_gird:"))
        outcome = cli(f"run {study}")
        assert (outcome.code, outcome.err.count("\n")) == (2, 1)
        assert "study.yaml:4: " in outcome.err


class TestSweep:
    def test_a_grid_from_the_command_line(self, cli, study: str) -> None:
        outcome = cli(f"sweep {study} -o s --grid head.l2=0.01,1 --grid 'featurizer.terms=r;r,p*r' --json")
        assert outcome.code == 0, outcome.err
        report = Report.from_dict(outcome.json())
        assert len(report.tables["variants"].rows) == 4
        table = pd.read_csv("s/trials.csv")
        assert table["status"].tolist() == ["ok"] * 4
        assert table["head.l2"].tolist() == [0.01, 0.01, 1, 1]
        assert table["featurizer.terms"].tolist() == ["r", "r,p*r"] * 2
        assert Report.load("s") == report
        kept = Path("s/trials.jsonl").read_bytes()
        again = cli(f"sweep {study} -o s --grid head.l2=0.01,1 --grid 'featurizer.terms=r;r,p*r'")
        assert "0 computed now, 4 finished before" in " ".join(again.out.split())
        assert Path("s/trials.jsonl").read_bytes() == kept

    def test_another_sweep_of_the_folder_has_tables_of_its_own(self, cli, study: str) -> None:
        assert cli(f"sweep {study} -o s --grid head.l2=0.01,1").code == 0
        first = {path.name: path.read_bytes() for path in Path("s").iterdir() if path.is_file()}
        outcome = cli(f"sweep {study} -o s --grid head.l2=0.01,2 --json")
        assert outcome.code == 0, outcome.err
        [other] = Path("s").glob("sweep-*")
        assert len(pd.read_csv(other / "trials.csv")) == 2
        assert "1 computed now, 1 finished before" in outcome.json()["summary"][0]
        for name in ("report.html", "trials.csv", "sweep.yaml"):
            assert Path("s", name).read_bytes() == first[name]
        # the first one again finds its own place, and its file is a sweep
        assert cli("sweep s/sweep.yaml -o s").code == 0
        assert len(list(Path("s").glob("sweep-*"))) == 1
        assert cli("runs rm s --yes").code == 0
        assert not Path("s").exists()

    def test_axes_of_the_file_and_of_the_command_line(self, cli, study: str) -> None:
        Path(study).write_text(
            STUDY + "sweep:\n  grid: {head.l2: [0.1, 1]}\n  list: [{head: linear}, {head: random}]\n"
        )
        outcome = cli(f"sweep {study} -o s --dry-run --json")
        assert outcome.code == 2  # a random head has no l2
        assert "the variant head=random, head.l2=0.1" in outcome.err
        Path(study).write_text(STUDY + "sweep:\n  grid: {head.l2: [0.1, 1]}\n")
        outcome = cli(f"sweep {study} -o s --dry-run --json --grid featurizer.scale=rms,none --seeds 3")
        assert outcome.json() == {"planned": 12, "different": 4, "finished": 0, "failed": 0, "to_compute": 4}
        assert not Path("s").exists()

    def test_a_plan_without_its_data_is_counted_as_far_as_it_can_be(self, cli) -> None:
        outcome = cli("sweep bradley-terry -o s --dry-run")
        assert outcome.code == 2
        assert not outcome.out
        said = " ".join(outcome.err.split())
        assert "planned: 12,960 trials" in said
        assert "embd_Gemma2b_Gemma2b_Helpful_train.npy" in said

    def test_an_axis_of_the_command_line_replaces_the_files_of_any_kind(self, cli, study: str) -> None:
        Path(study).write_text(
            STUDY + "sweep:\n  grid: {head.l2: [0.1, 1]}\n  random: {featurizer.scale: [rms, none]}\n  samples: 2\n"
        )
        words = f"sweep {study} -o s --dry-run --json"
        drawn = cli(f"{words} --random 'head.l2=loguniform(1e-3, 10)' --samples 5").json()
        assert drawn["planned"] == 5
        # its only random axis is a grid now, so that nothing is drawn any more
        listed = cli(f"{words} --grid featurizer.scale=rms,none,standard").json()
        assert listed["planned"] == 6
        twice = cli(f"{words} --grid head.l2=1,2 --random 'head.l2=uniform(1, 2)' --samples 2")
        assert twice.code == 2
        assert "varied in two ways" in twice.err

    def test_random_samples_are_seeded(self, cli, study: str) -> None:
        words = f"sweep {study} -o s --random 'head.l2=loguniform(1e-3, 10)' --samples 3 --random-state 5 --json"
        assert cli(words).code == 0
        table = pd.read_csv("s/trials.csv")
        assert table["head.l2"].between(1e-3, 10).all()
        assert table["head.l2"].nunique() == 3
        again = cli(f"{words} --dry-run")
        assert again.json()["finished"] == 3

    @pytest.mark.skipif(find_spec("optuna") is None, reason="needs the extra optuna, which is not installed")
    def test_a_search_goes_on_and_says_how_it_went(self, cli, study: str) -> None:
        # splits are made where the data have none
        rows = [json.loads(line) for line in Path("pairs.jsonl").read_text().splitlines()]
        plain = [{key: value for key, value in row.items() if key != "split"} for row in rows]
        Path("pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in plain))
        Path(study).write_text(STUDY.replace("evaluation: test\n", ""))
        words = (
            f"sweep {study} -o s --random 'head.l2=loguniform(1e-3, 10)' --grid featurizer.scale=rms,none --search tpe"
        )
        first = cli(f"{words} --samples 3 --json")
        assert first.code == 0
        assert first.json()["summary"][0].startswith("Search by tpe: 3 settings proposed")
        counts = cli(f"{words} --samples 5 --dry-run --json").json()
        assert counts == {"settings": 5, "proposed": 3, "finished": 3, "failed": 0, "to_try": 2}
        assert cli(f"{words} --samples 5 --json").json()["summary"][0].startswith("Search by tpe: 5 settings proposed")
        # a plain sweep of the same axes has tables of its own
        assert cli(words.replace("--search tpe", "--samples 5")).code == 0
        assert len(list(Path("s").glob("sweep-*"))) == 2
        assert cli("runs rm s --yes").code == 0
        assert not Path("s").exists()

    @pytest.mark.parametrize(
        ("words", "said"),
        [
            ("", "nothing varies"),
            ("--grid head.l3=1,2", "unknown parameter"),
            ("--grid head.l2", "--grid expects"),
            ("--grid seeds=1,2", "cannot be varied"),
            ("--grid haed.l2=1,2", "Did you mean 'head'"),
            ("--grid head.l2=1,2 --metric macr", "Did you mean 'macro'"),
            ("--grid head.l2=1,2 --jobs 0", "--jobs 0"),
            ("--grid head.l2=1,2 --jobs 2 --backend lokey", "Did you mean 'loky'"),
            ("--random head.l2=lognormal(1,2) --samples 2", "Did you mean"),
        ],
    )
    def test_mistakes_are_one_line(self, cli, study: str, words: str, said: str) -> None:
        outcome = cli(f"sweep {study} -o s {words}")
        assert outcome.code == 2
        assert said in outcome.err.splitlines()[-1], outcome.err

    def test_a_backend_that_is_not_installed_says_how_to_get_it(self, cli, study: str, monkeypatch) -> None:
        import sys

        monkeypatch.setitem(sys.modules, "distributed", None)
        outcome = cli(f"sweep {study} -o s --grid head.l2=1,2 --jobs 2 --backend dask")
        assert outcome.code == 2
        assert "pip install 'embedrm[dask]'" in outcome.err


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


class TestRuns:
    @pytest.fixture
    def done(self, cli, study: str, folder: Path) -> None:
        if not (folder / "runs").exists():
            assert cli(f"run {study} -o runs/one").code == 0
            assert cli(f"sweep {study} -o runs/many --grid head.l2=0.01,1 --set training.size=8 --seeds 2").code == 0
            shutil.copytree("runs", folder / "runs")
        else:
            shutil.copytree(folder / "runs", "runs")

    @pytest.mark.usefixtures("done")
    def test_list_and_show(self, cli) -> None:
        facts = cli("runs list --json").json()
        assert [(f["folder"], f["kind"], f["finished"], f["failed"]) for f in facts] == [
            ("runs/many", "sweep", 4, 0),
            ("runs/one", "run", 1, 0),
        ]
        assert facts[1]["title"] == "Tea and sea"
        shown = cli("runs show runs/many")
        assert shown.out.count("l2=") == 4
        record = cli("runs show runs/one --json").json()["trials"][0]
        assert cli(f"runs show runs/one:{record['fingerprint'][:6]} --json").json() == record
        assert cli("runs show runs/one:zz").code == 2
        assert cli("runs show nowhere").code == 2

    @pytest.mark.usefixtures("done")
    def test_diff_says_which_settings_and_how_far(self, cli) -> None:
        trials = cli("runs show runs/many --json").json()["trials"]
        by_l2 = {t["settings"]["head.l2"]: t for t in trials if t["seed"] == 0}
        names = [f"runs/many:{by_l2[l2]['fingerprint']}" for l2 in (0.01, 1)]
        facts = cli(f"runs diff {names[0]} {names[1]} --json").json()
        assert facts["settings"] == {"head.l2": [0.01, 1.0]}
        expected = by_l2[1]["metrics"]["test"]["micro"] - by_l2[0.01]["metrics"]["test"]["micro"]
        assert facts["metrics"]["test micro"]["difference"] == pytest.approx(expected)
        losses = [by_l2[l2]["metrics"]["test"]["log_loss"] for l2 in (0.01, 1)]
        assert losses[0] != losses[1]
        assert facts["metrics"]["test log_loss"] == {
            "first": pytest.approx(losses[0]),
            "second": pytest.approx(losses[1]),
            "difference": pytest.approx(losses[1] - losses[0]),
        }
        outcome = cli(f"runs diff runs/one {names[0]}")
        assert "training.size" in outcome.out
        several = cli("runs diff runs/one runs/many")
        assert several.code == 2
        assert "2 variants" in several.err

    @pytest.mark.usefixtures("done")
    def test_rm_deletes_what_is_its_own_and_asks(self, cli) -> None:
        Path("runs/many/notes.txt").write_text("mine")
        Path("runs/many/figures/mine.txt").write_text("mine")
        assert cli("runs rm runs/many").code == 2
        assert Path("runs/many/trials.jsonl").exists()
        outcome = cli("runs rm runs/many --yes --json")
        assert outcome.json()["kept"] == ["figures", "notes.txt"]
        assert sorted(path.name for path in Path("runs/many").rglob("*.*")) == ["mine.txt", "notes.txt"]
        assert cli("runs rm runs/many --yes").code == 2
        assert cli("runs rm runs/one --yes").code == 0
        assert not Path("runs/one").exists()

    @pytest.mark.usefixtures("done")
    def test_rm_follows_no_link_and_takes_no_file_of_others(self, cli, tmp_path: Path) -> None:
        root, outside = Path("runs/many"), tmp_path / "outside"
        outside.mkdir()
        mine = [outside / "over-mine.png", outside / "host-1-00000000", root / "figures" / "mine.png"]
        mine += [root / "figures" / "more.svg", root / "running" / "deep" / "file"]
        for path in mine:
            path.parent.mkdir(exist_ok=True, parents=True)
            path.write_text("mine")
        (root / "sweep-0").symlink_to(outside, target_is_directory=True)
        (outside / "sweep.yaml").write_text("mine")
        (root / "data.json").write_text('[{"prompt": "mine"}]')
        mine += [outside / "sweep.yaml", root / "data.json"]
        assert cli("runs rm runs/many --yes").code == 0
        assert [path.exists() for path in mine] == [True] * len(mine)
        assert not (root / "trials.jsonl").exists()
        assert not list((root / "figures").glob("over-*"))

    @pytest.mark.usefixtures("done")
    def test_rm_leaves_folders_that_are_links(self, cli, tmp_path: Path) -> None:
        root, outside = Path("runs/many"), tmp_path / "elsewhere"
        shutil.move(root / "figures", outside)
        (root / "figures").symlink_to(outside, target_is_directory=True)
        before = sorted(path.name for path in outside.iterdir())
        assert before
        assert cli("runs rm runs/many --yes --json").json()["kept"] == ["figures"]
        assert sorted(path.name for path in outside.iterdir()) == before

    @pytest.mark.usefixtures("done")
    def test_rm_leaves_the_report_of_another_command(self, cli) -> None:
        Report("evaluation", "Mine").save("runs/many")
        assert cli("runs rm runs/many --yes").code == 0
        assert Report.load("runs/many").title == "Mine"

    @pytest.mark.usefixtures("done")
    def test_diff_tells_seeds_and_versions(self, cli) -> None:
        trials = cli("runs show runs/many --json").json()["trials"]
        first, second = (t["fingerprint"] for t in trials if t["settings"]["head.l2"] == 1)
        facts = cli(f"runs diff runs/many:{first} runs/many:{second} --json").json()
        assert sorted(facts["seeds"]) == [[0], [1]]
        assert facts["settings"] == {}
        path = Path("runs/one/trials.jsonl")
        [version] = facts["versions"][0]
        path.write_text(path.read_text().replace(f'"version":"{version}"', '"version":"0.0.1"'))
        shown = cli(f"runs diff runs/one runs/many:{first}").out
        assert f"computed by embedrm 0.0.1 and {version}" in shown

    @pytest.mark.usefixtures("done")
    def test_rm_leaves_a_folder_in_which_a_sweep_is_at_work(self, cli) -> None:
        from embedrm.experiments.sweep_claims import Claims

        with Claims("runs/many"):
            outcome = cli("runs rm runs/many --yes")
            assert outcome.code == 2
            assert "at work" in outcome.err
        assert cli("runs rm runs/many --yes").code == 0

    @pytest.mark.usefixtures("done")
    def test_torn_lines_are_told(self, cli) -> None:
        with open("runs/one/trials.jsonl", "ab") as file:
            file.write(b'{"fingerp\n')
        outcome = cli("runs show runs/one")
        assert "1 line of trials.jsonl" in outcome.err

    @pytest.mark.usefixtures("done")
    def test_cite_names_what_a_run_used(self, cli) -> None:
        found = {(one["kind"], one["what"]): one["cite"] for one in cli("cite runs/one --json").json()}
        assert "Bradley and Terry (1952)" in found["model", "linear"]
        assert ("data", "pairs.jsonl") in found
        assert ("encoder", "hashing") in found
        assert "@software{embedrm" in cli("cite").out
        kinds = [one["kind"] for one in json.loads(cli("cite --json").out)]
        assert kinds[0] == "toolkit"
        assert set(kinds) == {"toolkit", "paper"}
