"""Trials that share bins, features and matrices: each is made once, costs are whole, and no bit of a result knows of it."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from embedrm import EmbeddedPreferences, EmbeddedResponses, draw_pairs
from embedrm.experiments import running_features
from embedrm.experiments.experiment import Experiment
from embedrm.experiments.running import Workbench, run_trial
from embedrm.experiments.running_features import forget_features
from embedrm.featurizers import Featurizer
from embedrm.featurizers.linear_map import LinearMap
from embedrm.featurizers.rows import FeatureRows
from embedrm.featurizers.sources import sources
from embedrm.heads import _gbdt_data
from embedrm.heads._gbdt_training import parameters
from embedrm.heads._linear_problem import Problem
from embedrm.heads.gbdt import GBDTHead
from embedrm.numerics import sharing

GBDT = {"name": "gbdt", "max_trees": 12, "num_leaves": 5}
BETAS = [0.5, 1.0, 2.0]


@pytest.fixture(scope="module")
def lists() -> EmbeddedPreferences:
    """Four responses to each of 200 prompts in three splits, gold in a product of two coordinates and a sum."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(800, 6)).astype(np.float32)
    responses = EmbeddedResponses(
        {"response:final": x, "prompt:final": rng.normal(size=(200, 6)).astype(np.float32)},
        np.repeat(np.arange(200), 4),
        gold=x[:, 0] * x[:, 1] + x[:, 2:].sum(axis=1),
        split=np.array(["train", "train", "validation", "test"])[np.arange(200) % 4],
    )
    return draw_pairs(responses, "same-prompt", 800, random_state=9)


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    forget_features()
    yield
    forget_features()


def experiment(head: dict[str, Any], **sections: Any) -> Experiment:
    return Experiment({"head": head, **sections})


def annotated(beta: float | None = None, **training: Any) -> dict[str, Any]:
    said = {} if beta is None else {"annotation": {"beta": beta, "scale": "global-std"}}
    return {"training": {"pairing": "same-prompt", "n_annotations": 200, **training, **said}}


def run(bench: Workbench, trials: list[tuple[Experiment, int]], alone: bool = False) -> list[tuple[Any, Any]]:
    """Facts and model of each trial; alone, with nothing shared between them."""
    once: Callable[..., Any] = run_trial.__wrapped__ if alone else run_trial  # type: ignore[attr-defined]
    return [once(trial.config.parts, seed, bench.prepared(trial.config)) for trial, seed in trials]


def bits(model: Any) -> tuple[Any, ...]:
    """Everything that a head learned, but its featurizer."""
    learned = {k: v for k, v in vars(model).items() if k.endswith("_") and k != "featurizer_"}
    return tuple((k, v.tobytes() if isinstance(v, np.ndarray) else repr(v)) for k, v in sorted(learned.items()))


def counted(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, seconds: float = 0.0) -> list[Any]:
    """Let a function note what it is called with, and take a while."""
    plain, calls = getattr(owner, name), []

    def noting(*arguments: Any, **options: Any) -> Any:
        calls.append(arguments)
        time.sleep(seconds)
        return plain(*arguments, **options)

    monkeypatch.setattr(owner, name, noting)
    return calls


def same_as_alone(bench: Workbench, trials: list[tuple[Experiment, int]]) -> None:
    """Results in the order given and turned round are, to the bit, those of trials that share nothing."""
    alone = run(bench, trials, alone=True)
    for order in (trials, trials[::-1]):
        found = run(bench, order) if order is trials else run(bench, order)[::-1]
        for (facts, model), (other, single) in zip(found, alone):
            assert bits(model) == bits(single)
            assert facts["metrics"] == other["metrics"]


class TestBins:
    def test_are_those_of_the_rows_whatever_the_labels_and_the_trees(
        self, lists: EmbeddedPreferences, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bench = Workbench(preferences=lists)
        heads = [GBDT, GBDT | {"num_leaves": 3, "learning_rate": 0.3}, GBDT | {"l2": 0.1, "min_data_in_leaf": 7}]
        trials = [(experiment(head, **annotated(beta)), seed) for seed in (0, 1) for beta in BETAS for head in heads]
        made = counted(monkeypatch, _gbdt_data, "_binned")
        found = run(bench, trials)
        # rows to train on and rows to stop by, for each of two seeds
        assert len(made) == 4
        assert len({bits(model) for _, model in found}) == len(trials)

    @pytest.mark.parametrize(
        "change",
        [
            {"head": GBDT | {"max_bin": 15}},
            {"head": GBDT | {"validation_fraction": 0.3}},
            {"head": GBDT | {"early_stopping": False}},
            {"featurizer": {"terms": "r,p*r"}},
            {"featurizer": {"scale": "rms"}},
            {"featurizer": {"project": {"name": "pca", "n_components": 3}}},
            annotated(n_annotations=150),
            annotated(pairing="cross-prompt"),
        ],
        ids=str,
    )
    def test_are_made_anew_for_other_rows_features_or_bins(
        self, lists: EmbeddedPreferences, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
    ) -> None:
        bench = Workbench(preferences=lists)
        base = {"head": GBDT, **annotated()}
        made = counted(monkeypatch, _gbdt_data, "_binned")
        run(bench, [(Experiment(base), 0)])
        before = len(made)
        run(bench, [(Experiment(base | change), 0)])
        assert len(made) > before

    def test_results_are_those_of_trials_alone(self, lists: EmbeddedPreferences) -> None:
        """Fails where a trial's bins depend on what an earlier one was told, or a booster writes to them."""
        heads = [
            GBDT,
            GBDT | {"num_leaves": 3, "learning_rate": 0.5, "min_data_in_leaf": 12},
            GBDT | {"max_bin": 7},
            GBDT | {"max_bin": "fast", "feature_fraction": 0.5},
            GBDT | {"early_stopping": False, "l2": 0.1},
            GBDT | {"objective": "hinge", "max_depth": 2},
            GBDT | {"quantized": True, "threads": 1},
        ]
        trials = [
            (experiment(head, **annotated(beta)), seed) for seed in (0, 3) for beta in BETAS[:2] for head in heads
        ]
        same_as_alone(Workbench(preferences=lists), trials)

    def test_rows_to_stop_by_are_their_own(self, lists: EmbeddedPreferences) -> None:
        shelf = sharing.Shelf()
        shelf.begin(sources(lists.responses))
        featurizer = Featurizer().fit(lists)
        plan = parameters(GBDTHead()._plan(), 100, 6, "test")
        train, *others = (FeatureRows(featurizer, lists.responses, np.arange(k, 2 * k)) for k in (100, 50, 60))
        with sharing.sharing(shelf):
            found = [_gbdt_data.binned(train, held_out, plan, "test")[1] for held_out in (*others, None, others[0])]
        assert [None if data is None else data.num_data() for data in found] == [50, 60, None, 50]
        assert found[3] is found[0]

    def test_costs_are_whole(self, lists: EmbeddedPreferences, monkeypatch: pytest.MonkeyPatch) -> None:
        bench = Workbench(preferences=lists)
        counted(monkeypatch, _gbdt_data, "_binned", seconds=0.05)
        began = time.perf_counter()
        (first, _), (second, _) = run(bench, [(experiment(GBDT, **annotated(beta)), 0) for beta in BETAS[:2]])
        spent = time.perf_counter() - began
        assert first["spared_seconds"] == 0.0
        assert second["seconds"] > second["spared_seconds"] >= 0.1
        # what was paid once is in the seconds of both
        assert first["seconds"] + second["seconds"] - second["spared_seconds"] < spent


class TestLinear:
    @pytest.mark.parametrize("features", [{}, {"terms": "r,p*r"}, {"project": "whiten"}], ids=str)
    def test_a_path_of_penalties_gathers_and_measures_once(
        self, lists: EmbeddedPreferences, monkeypatch: pytest.MonkeyPatch, features: dict[str, Any]
    ) -> None:
        bench = Workbench(preferences=lists)
        maps, moments = counted(monkeypatch, LinearMap, "__init__"), counted(monkeypatch, Problem, "_moment")
        trials = [(experiment({"l2": l2}, featurizer=features), 0) for l2 in (1e-4, 1e-2, 1.0, 1e-3)]
        run(bench, trials)
        # of the training pairs, and of the two splits that are judged
        assert (len(maps), len(moments)) == (3, 1)

    def test_fewer_pairs_than_features(self, lists: EmbeddedPreferences, monkeypatch: pytest.MonkeyPatch) -> None:
        bench = Workbench(preferences=lists)
        spans = counted(monkeypatch, Problem, "_span")
        few = annotated(n_annotations=5)
        trials = [(experiment({"l2": l2}, **few), 0) for l2 in (1e-3, 1.0)]
        run(bench, trials)
        assert len(spans) == 1
        same_as_alone(bench, trials)

    def test_other_pairs_of_the_same_rows_have_their_own_metric(
        self, lists: EmbeddedPreferences, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bench = Workbench(preferences=lists)
        moments = counted(monkeypatch, Problem, "_moment")
        trials = [(experiment({"l2": 0.1}, **annotated(n_annotations=500)), seed) for seed in (0, 1)]
        rows = [bench.prepared(trial.config).draw(seed).active for trial, seed in trials]
        np.testing.assert_array_equal(*rows)
        run(bench, trials)
        assert len(moments) == 2

    def test_losses_that_bend_otherwise_have_their_own_metric(
        self, lists: EmbeddedPreferences, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        moments = counted(monkeypatch, Problem, "_moment")
        names = ("bradley-terry", "hinge", "classification", "regression", "bt-smoothed")
        trials = [(experiment({"l2": 0.1, "objective": name}), 0) for name in names]
        run(Workbench(preferences=lists), trials)
        # on differences, on single rewards, and four times as much on those
        assert len(moments) == 3

    def test_folds_are_not_held(self, lists: EmbeddedPreferences) -> None:
        run(Workbench(preferences=lists), [(experiment({"l2": "cv", "cv": 3}), 0)])
        kinds = [entry.kind for entry in running_features._MEMORY.shelf._entries]
        # features of the whole and of each fold; what is fitted on and the two splits that are judged
        assert sorted(kinds) == ["axes"] + ["features"] * 4 + ["linear map"] * 3

    def test_results_are_those_of_trials_alone(self, lists: EmbeddedPreferences) -> None:
        """Fails where one trial's solution starts from another's, or takes a metric of other pairs or another loss."""
        features = [{}, {"terms": "r,p*r", "scale": "standard"}, {"project": {"name": "pca", "n_components": 3}}]
        heads = [
            *({"l2": l2} for l2 in (1e-4, 1e-1, 10.0)),
            *({"l2": 0.1, "objective": name} for name in ("hinge", "classification", "bt-smoothed")),
            {"l2": "cv"},
        ]
        trials = [
            (experiment(head, featurizer=f, **annotated(beta)), seed)
            for seed in (0, 1)
            for beta in BETAS[:2]
            for f in features
            for head in heads
        ]
        same_as_alone(Workbench(preferences=lists), trials)

    def test_what_scoring_was_spared_is_counted_to_it(
        self, lists: EmbeddedPreferences, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        counted(monkeypatch, LinearMap, "__init__", seconds=0.02)
        bench = Workbench(preferences=lists)
        _, (facts, _) = run(bench, [(experiment({"l2": l2}), 0) for l2 in (0.1, 1.0)])
        # one map to fit on and two to judge on
        assert facts["score_seconds"] >= 0.04
        assert facts["seconds"] >= 0.02
        assert facts["spared_seconds"] >= 0.06


class TestWhatIsHeld:
    def test_features_are_found_among_copies_that_share_vectors(
        self, lists: EmbeddedPreferences, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bench = Workbench(preferences=lists)
        fits = counted(monkeypatch, Featurizer, "_learn")
        run(bench, [(experiment({"l2": 0.1}, featurizer={"project": "pca"}, **annotated(beta)), 0) for beta in BETAS])
        assert len(fits) == 1

    def test_other_vectors_leave_nothing_of_these(self, lists: EmbeddedPreferences) -> None:
        shelf = running_features._MEMORY.shelf
        trial = [(experiment({"l2": 0.1}), 0)]
        run(Workbench(preferences=lists), trial)
        held = len(shelf)
        copies = {name: view.copy() for name, view in lists.responses.views.items()}
        others = EmbeddedResponses(copies, lists.responses.prompt_of, split=lists.responses.split)
        run(Workbench(preferences=EmbeddedPreferences(others, lists.pairs)), trial)
        assert len(shelf) == held
        mine = {id(view) for view in copies.values()}
        assert all(mine & set(map(id, entry.sources)) for entry in shelf._entries)

    def test_candidates_that_are_scored_block_by_block_are_not_held(self, lists: EmbeddedPreferences) -> None:
        bench = Workbench(preferences=lists)
        trials = [(experiment({"l2": 0.1}, evaluation={"splits": "test", "best_of_n": [2, 4]}), 0)]
        run(bench, trials)
        known = {id(array) for array in bench.prepared(trials[0][0].config).vectors()}
        entries = running_features._MEMORY.shelf._entries
        assert entries
        assert all(id(source) in known for entry in entries for source in entry.sources)

    def test_nothing_is_shared_outside_a_trial(self, lists: EmbeddedPreferences) -> None:
        trial = [(experiment({"l2": 0.1}), 0)]
        run(Workbench(preferences=lists), trial, alone=True)
        assert len(running_features._MEMORY.shelf) == 0
        assert sharing._OPEN.get() is None


class TestVectorsThatArrive:
    """Bundles are sent to workers one by one, each with its vectors."""

    def test_again_are_those_that_are_there(self, lists: EmbeddedPreferences) -> None:
        bench = Workbench(preferences=lists)
        sent = [bench.prepared(experiment({}, **annotated(beta)).config) for beta in BETAS]
        arrived = [pickle.loads(pickle.dumps(one)) for one in sent]
        first = arrived[0]
        for one, other in zip(arrived[1:], sent[1:]):
            assert [id(array) for array in one.vectors()] == [id(array) for array in first.vectors()]
            assert one.section == other.section
            np.testing.assert_array_equal(one.draw(3).pairs, other.draw(3).pairs)
        assert first.whole.responses.view("response:final") is not lists.responses.view("response:final")

    def test_other_vectors_are_others_and_live_no_longer_than_they_are_held(self, lists: EmbeddedPreferences) -> None:
        from embedrm.experiments.training_sets import _ARRIVED

        def arriving(preferences: EmbeddedPreferences) -> Any:
            return pickle.loads(pickle.dumps(Workbench(preferences=preferences).prepared(experiment({}).config)))

        one, other = arriving(lists), arriving(lists[np.arange(700)].compact())
        assert one.whole.responses.n_responses != other.whole.responses.n_responses
        before = len(_ARRIVED)
        del one, other
        assert len(_ARRIVED) == before - 2

    def test_trials_of_bundles_share_bins_and_features(
        self, lists: EmbeddedPreferences, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bench = Workbench(preferences=lists)
        made = counted(monkeypatch, _gbdt_data, "_binned")
        held = None
        for beta in BETAS:
            trial = experiment(GBDT, **annotated(beta))
            # the last bundle is held until the next has arrived
            held, last = pickle.loads(pickle.dumps(bench.prepared(trial.config))), held
            run_trial(trial.config.parts, 0, held)
            del last
        assert len(made) == 2
