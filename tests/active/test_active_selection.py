"""Active selection: the design against brute force, what strategies choose, and no label read before it is bought."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedrm import (
    AdapterRewardModel,
    Annotator,
    CalibratedRewardModel,
    EmbeddedPreferences,
    EnsembleRewardModel,
    Featurizer,
    LengthHead,
    LinearHead,
    MLPHead,
    annotate,
    draw_pairs,
    label_actively,
    select_pairs,
)
from embedrm.active import STRATEGIES, Strategy, make_strategy, unlabelled
from embedrm.active._last_layer import last_layer
from embedrm.errors import InvalidInputError
from embedrm.heads.laplace import LaplaceHead
from embedrm.numerics.d_optimal import greedy_d_optimal

NAMES = ["d-optimal", "margin", "random", "uncertainty"]


def world(n_prompts=80, k=4, dim=5, seed=0, noise=True):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n_prompts, k, dim)) * np.linspace(1.5, 0.3, dim)
    gold = x @ rng.normal(size=dim)
    pool = EmbeddedPreferences.from_arrays(
        x.reshape(-1, dim), prompt_of=np.repeat(np.arange(n_prompts), k), rewards=gold
    )
    return annotate(pool, Annotator(beta=2.0)) if noise else pool


def log_det(x, weight, rows, start):
    return np.linalg.slogdet(start + (x[rows] * weight[rows, None]).T @ x[rows])[1]


class TestDesign:
    @settings(max_examples=40, deadline=None)
    @given(seed=st.integers(0, 10_000), dim=st.integers(1, 4), past=st.booleans())
    def test_every_step_is_the_best_by_determinant(self, seed, dim, past):
        rng = np.random.default_rng(seed)
        x, weight = rng.normal(size=(9, dim)), rng.uniform(0.01, 0.25, 9)
        known = None
        start = 0.1 * np.eye(dim)
        if past:
            old = rng.normal(size=(3, dim))
            known = old.T @ old
            start = start + known
        chosen, gains = greedy_d_optimal(x, weight, 6, ridge=0.1, past=known)
        rows = []
        for row, gain in zip(chosen.tolist(), gains):
            before = log_det(x, weight, rows, start)
            tried = {i: log_det(x, weight, [*rows, i], start) - before for i in range(9) if i not in rows}
            assert max(tried, key=tried.get) == row
            assert gain == pytest.approx(tried[row], abs=1e-9)
            rows.append(row)
        assert (np.diff(gains) <= 1e-12).all()

    def test_the_first_is_the_best_of_all_and_a_batch_within_the_bound(self):
        rng = np.random.default_rng(3)
        for _ in range(20):
            x, weight = rng.normal(size=(8, 3)), rng.uniform(0.01, 0.25, 8)
            start = 0.05 * np.eye(3)
            zero = log_det(x, weight, [], start)
            for n in (1, 2, 3):
                best = max(log_det(x, weight, list(rows), start) - zero for rows in combinations(range(8), n))
                _, gains = greedy_d_optimal(x, weight, n, ridge=0.05)
                assert gains.sum() >= (1 - 1 / np.e) * best - 1e-9
                assert n > 1 or gains.sum() == pytest.approx(best)

    def test_by_hand(self):
        # along the long axis first; then the other axis, although its row is shorter than the copy of the first
        x = np.array([[3.0, 0.0], [0.0, 1.0], [2.9, 0.0]])
        chosen, gains = greedy_d_optimal(x, np.full(3, 0.25), 3, ridge=0.1)
        assert chosen.tolist() == [0, 1, 2]
        assert gains[0] == pytest.approx(np.log1p(0.25 * 9 / 0.1))
        assert gains[1] == pytest.approx(np.log1p(0.25 * 1 / 0.1))
        # what was measured before is not asked again; a row without information comes last
        assert greedy_d_optimal(x, np.full(3, 0.25), 1, ridge=0.1, past=np.diag([9.0, 0.0]))[0].tolist() == [1]
        assert greedy_d_optimal(x, np.array([0.0, 0.25, 0.25]), 3, ridge=0.1)[0].tolist() == [2, 1, 0]

    def test_many_updates_stay_exact(self):
        rng = np.random.default_rng(0)
        x, weight = rng.normal(size=(3000, 40)) * np.logspace(0, -3, 40), rng.uniform(0.01, 0.25, 3000)
        chosen, gains = greedy_d_optimal(x, weight, 2000, ridge=1e-7)
        start = 1e-7 * np.eye(40)
        assert len(set(chosen.tolist())) == 2000
        assert gains.sum() == pytest.approx(log_det(x, weight, chosen, start) - log_det(x, weight, [], start), rel=1e-8)


class TestLastLayer:
    @pytest.mark.parametrize(
        "model",
        [
            LinearHead(l2=0.01),
            LinearHead(Featurizer(scale="standard"), l2=0.01, objective="classification"),
            LaplaceHead(l2=0.01),
            MLPHead(hidden=(6, 7), max_epochs=5),
            CalibratedRewardModel(LinearHead(l2=0.01)),
            EnsembleRewardModel(LinearHead(l2=0.01), n_members=3),
            EnsembleRewardModel(MLPHead(hidden=(3,), max_epochs=3), n_members=2),
        ],
        ids=lambda model: " ".join(repr(model).split())[:40],
    )
    def test_margins_are_linear_in_it(self, model):
        pool = world()
        fitted = model.fit(pool)
        values = last_layer(fitted, pool.responses, pool.active)
        z = values[pool.local_pairs[:, 0]] - values[pool.local_pairs[:, 1]]
        margins = fitted.margins(pool)
        weights = np.linalg.lstsq(z, margins, rcond=None)[0]
        assert np.abs(z @ weights - margins).max() < 1e-4 * np.abs(margins).max()

    def test_rows_are_those_asked_for(self):
        pool = world()
        for model in (LinearHead(l2=0.1), MLPHead(hidden=(4,), max_epochs=2)):
            fitted = model.fit(pool)
            every = last_layer(fitted, pool.responses, np.arange(320))
            assert np.allclose(last_layer(fitted, pool.responses, np.array([7, 3])), every[[7, 3]], rtol=1e-5)
        assert every.shape == (320, 4)
        assert (every >= 0).all()


class TestStrategies:
    def test_they_are_found_by_their_files(self):
        assert STRATEGIES.names() == NAMES

    def fitted(self, pool, labelled=60):
        model = EnsembleRewardModel(LinearHead(l2=0.01), n_members=4, standardise=False)
        return model.fit(pool[:labelled]), pool[:labelled], pool[labelled:]

    @pytest.mark.parametrize("name", NAMES)
    def test_rows_are_different_and_labels_are_not_seen(self, name):
        model, labelled, left = self.fitted(world())
        options = {"model": model, "labelled": labelled, "random_state": 3}
        chosen = select_pairs(left, 30, name, **options)
        assert len(set(chosen.tolist())) == 30
        assert chosen.min() >= 0
        assert chosen.max() < len(left)
        wrong = EmbeddedPreferences(
            left.responses, left.pairs[:, ::-1], outcome=np.linspace(0.5, 1, len(left)), weight=np.arange(len(left))
        )
        assert np.array_equal(select_pairs(wrong, 30, name, **options), chosen)
        assert len(select_pairs(left, len(left), name, **options)) == len(left)

    def test_what_candidates_lose(self):
        pool = world()
        blind = unlabelled(pool)
        assert (blind.pairs[:, 0] < blind.pairs[:, 1]).all()
        assert np.isnan(blind.responses.gold).all()
        assert not np.isnan(pool.responses.gold).any()
        assert np.isnan(blind.margin).all()
        assert blind.responses.views is pool.responses.views

    def test_margin_and_uncertainty_by_definition(self):
        model, labelled, left = self.fitted(world())
        options = {"model": model, "labelled": labelled}
        margins, spread = np.abs(model.margins(left)), model.margin_uncertainty(left)
        chosen = select_pairs(left, 20, "margin", **options)
        assert np.array_equal(chosen, np.argsort(margins)[:20])
        chosen = select_pairs(left, 20, "uncertainty", **options)
        assert np.array_equal(chosen, np.argsort(-spread)[:20])

    def test_d_optimal_is_the_design_on_the_last_layer(self):
        pool = world()
        model = LinearHead(l2=0.01).fit(pool[:60])
        labelled, left = pool[:60], pool[60:]
        x = pool.responses.views["response:final"]
        z, old = (x[p.pairs[:, 0]] - x[p.pairs[:, 1]] for p in (left, labelled))
        weight, old_weight = (1 / (2 + 2 * np.cosh(model.margins(p))) for p in (left, labelled))
        ridge = 1e-3 * np.mean(weight * (z**2).sum(axis=1)) / x.shape[1]
        for past in (True, False):
            known = (old * old_weight[:, None]).T @ old if past else None
            expected, _ = greedy_d_optimal(z, weight, 25, ridge=ridge, past=known)
            chosen = select_pairs(left, 25, {"name": "d-optimal", "past": past}, model=model, labelled=labelled)
            assert np.array_equal(chosen, expected)
        flat, _ = greedy_d_optimal(
            z,
            np.full(len(z), 0.25),
            25,
            ridge=1e-3 * np.mean(0.25 * (z**2).sum(axis=1)) / x.shape[1],
            past=old.T @ old / 4,
        )
        chosen = select_pairs(left, 25, {"name": "d-optimal", "informed": False}, model=model, labelled=labelled)
        assert np.array_equal(chosen, flat)

    def test_d_optimal_does_not_depend_on_the_unit_of_features(self):
        made = []
        for unit in (1.0, 1024.0):
            pool = world()
            pool.responses.views["response:final"] *= unit
            model = LinearHead(Featurizer(scale="none"), l2=0.01 * unit**2).fit(pool[:60])
            strong = {"name": "d-optimal", "ridge": 1.0, "past": False}
            made.append(
                [select_pairs(pool[60:], 20, s, model=model, labelled=pool[:60]) for s in ("d-optimal", strong)]
            )
        assert np.array_equal(*made)
        assert not np.array_equal(*made[0])

    def test_d_optimal_looks_at_so_many(self):
        model, labelled, left = self.fitted(world())
        options = {"model": model, "labelled": labelled, "random_state": 1}
        chosen = select_pairs(left, 10, {"name": "d-optimal", "consider": 10}, **options)
        assert set(chosen) == set(np.random.default_rng(1).permutation(len(left))[:10])
        assert len(select_pairs(left, 12, {"name": "d-optimal", "consider": 1}, **options)) == 12

    def test_d_optimal_spreads_over_directions(self):
        # nearly all pairs are copies of one long question, four ask another: a batch must have both
        rng = np.random.default_rng(0)
        x = np.zeros((200, 2, 2))
        x[:, 0, 0] = 3 + 0.01 * rng.normal(size=200)
        x[:4, 0] = [0.0, 0.5]
        pool = EmbeddedPreferences.from_arrays(
            x.reshape(-1, 2), prompt_of=np.repeat(np.arange(200), 2), rewards=np.tile([1.0, 0.0], 200)
        )
        model = LinearHead(l2=1.0).fit(pool[10:14])
        rest = np.r_[0:10, 14:200]
        chosen = rest[select_pairs(pool[rest], 6, model=model, labelled=pool[10:14])]
        assert (chosen < 4).any()
        by_margin = rest[select_pairs(pool[rest], 4, "margin", model=model, labelled=pool[10:14])]
        assert (by_margin < 4).all()

    def test_what_cannot_be_chosen_is_refused(self):
        model, labelled, left = self.fitted(world())
        linear = LinearHead(l2=0.1).fit(labelled)
        length = LengthHead()
        for strategy, fitted, message in (
            ("uncertainty", linear, "LinearHead does not"),
            ("d-optiml", linear, "Did you mean 'd-optimal'"),
            ({"name": "d-optimal", "passt": True}, linear, "Did you mean 'past'"),
            ({"name": "d-optimal", "past": 1}, linear, "past must be true or false"),
            ({"name": "d-optimal", "ridge": 0}, linear, "ridge"),
            ({"name": "d-optimal", "consider": 0}, linear, "consider"),
            (7, linear, "got int"),
            ("d-optimal", length, "no probability"),
            ({"name": "d-optimal", "informed": False}, length, "linear in its last layer"),
            ("d-optimal", EnsembleRewardModel(LinearHead(), aggregate="min").fit(labelled), "no probability"),
        ):
            with pytest.raises(InvalidInputError, match=message):
                select_pairs(left, 3, strategy, model=fitted, labelled=labelled)
        for n in (0, len(left) + 1, True):
            with pytest.raises(InvalidInputError, match="n must be"):
                select_pairs(left, n, "random", model=model, labelled=labelled)
        with pytest.raises(InvalidInputError, match="AdapterRewardModel has none"):
            last_layer(AdapterRewardModel(), left.responses, left.active)
        assert make_strategy(make_strategy("margin")) == make_strategy({"name": "margin"})


class TestRounds:
    @pytest.mark.parametrize("name", NAMES)
    def test_a_budget_is_spent_and_no_other_label_is_read(self, name):
        pool = world()
        model = LaplaceHead(l2=0.01)
        run = label_actively(model, pool, name, budget=50, rounds=4, random_state=5)
        assert [one.n_labelled for one in run.rounds] == [12, 25, 38, 50]
        assert [len(one.picked) for one in run.rounds] == [12, 13, 13, 12]
        assert len(set(run.picked.tolist())) == 50
        # labels of pairs that were never picked turned round, and all gold gone
        other = np.setdiff1d(np.arange(len(pool)), run.picked)
        pairs = pool.pairs.copy()
        pairs[other] = pairs[other][:, ::-1]
        changed = EmbeddedPreferences(unlabelled(pool).responses, pairs)
        again = label_actively(model, changed, name, budget=50, rounds=4, random_state=5)
        assert np.array_equal(again.picked, run.picked)
        assert np.array_equal(again.model.coef_, run.model.coef_)
        # the last model is one that was fitted on what was picked
        assert np.array_equal(run.model.coef_, LaplaceHead(l2=0.01).fit(pool[run.picked]).coef_)
        assert run.facts["strategy"] == name
        assert run.facts["budget"] == 50

    def test_a_strategy_is_shown_no_label_of_a_candidate(self):
        shown = []

        class Peeking(Strategy):
            def choose(self, candidates, n, model, labelled, rng):
                shown.append((candidates, labelled))
                return np.arange(n)

        pool = world()
        run = label_actively(LinearHead(l2=0.01), pool, Peeking(), budget=30, rounds=3)
        assert len(shown) == 2
        for (candidates, labelled), n in zip(shown, (10, 20)):
            assert (candidates.pairs[:, 0] < candidates.pairs[:, 1]).all()
            assert np.isnan(candidates.responses.gold).all()
            assert len(candidates) == len(pool) - n
            assert np.array_equal(labelled.pairs, pool[run.picked[:n]].pairs)
            # what is labelled shares its responses with the candidates
            assert np.isnan(labelled.responses.gold).all()
        shown.clear()
        taken = EmbeddedPreferences(pool.responses, pool.pairs[:9], weight=np.arange(1, 10.0), outcome=np.full(9, 0.75))
        select_pairs(pool[9:], 5, Peeking(), model=LinearHead().fit(taken), labelled=taken)
        ((_, labelled),) = shown
        assert np.isnan(labelled.responses.gold).all()
        assert not np.isnan(pool.responses.gold).any()
        for name in ("pairs", "weight", "outcome"):
            assert np.array_equal(getattr(labelled, name), getattr(taken, name))

    def test_the_first_round_is_the_same_for_every_strategy_and_all_are_reproducible(self):
        pool = world()
        runs = {n: label_actively(LaplaceHead(l2=0.01), pool, n, budget=40, rounds=2) for n in NAMES}
        first = runs["random"].rounds[0].picked
        assert all(np.array_equal(run.rounds[0].picked, first) for run in runs.values())
        later = {tuple(run.rounds[1].picked) for run in runs.values()}
        assert len(later) == len(NAMES)
        again = label_actively(LaplaceHead(l2=0.01), pool, "d-optimal", budget=40, rounds=2)
        assert np.array_equal(again.picked, runs["d-optimal"].picked)

    def test_later_choices_follow_the_labels(self):
        pool = world()
        run = label_actively(LinearHead(l2=0.01), pool, "margin", budget=40, rounds=2)
        pairs = pool.pairs.copy()
        # all labels of the first round turned round, but one: another model, another choice
        first = run.rounds[0].picked[1:]
        pairs[first] = pairs[first][:, ::-1]
        other = label_actively(
            LinearHead(l2=0.01), EmbeddedPreferences(pool.responses, pairs), "margin", budget=40, rounds=2
        )
        assert not np.array_equal(other.picked, run.picked)

    def test_a_design_beats_chance_where_directions_differ_much(self):
        # one direction in twenty pairs matters; a random draw seldom meets it
        def pool(seed, n):
            rng = np.random.default_rng(seed)
            x = rng.normal(size=(n, 2, 12)) * np.where(rng.random((n, 1, 12)) < 0.06, 1.0, 0.02)
            gold = x @ np.ones(12)
            return EmbeddedPreferences.from_arrays(
                x.reshape(-1, 12), prompt_of=np.repeat(np.arange(n), 2), rewards=gold
            )

        held_out = pool(100, 2000)
        gains = []
        for seed in range(5):
            curves = {
                name: label_actively(LinearHead(l2=1e-4), pool(seed, 600), name, budget=40, rounds=4).curve(held_out)
                for name in ("random", "d-optimal")
            }
            assert [row["n_labelled"] for row in curves["random"]] == [10, 20, 30, 40]
            gains.append(curves["d-optimal"][-1]["accuracy"] - curves["random"][-1]["accuracy"])
        assert np.mean(gains) > 0.02

    def test_pairs_across_prompts_can_be_candidates(self):
        pool = annotate(draw_pairs(world(noise=False), "cross-prompt", 200), Annotator(beta=1.0, scale="global-std"))
        run = label_actively(LinearHead(l2=0.01), pool, budget=60, rounds=3)
        assert len(run.picked) == 60

    def test_what_cannot_be_run_is_refused(self):
        pool = world()
        mirrored = EmbeddedPreferences(pool.responses, np.concatenate([pool.pairs, pool.pairs[:3, ::-1]]))
        for candidates, options, message in (
            (pool, {"budget": 0}, "budget must be"),
            (pool, {"budget": len(pool) + 1}, "the candidates"),
            (pool, {"budget": 5, "rounds": 6}, "rounds must be a whole number from 1 to 5"),
            (mirrored, {"budget": 5}, f"3 of {len(mirrored)} candidates repeat"),
            (pool, {"budget": 5, "strategy": "best"}, "unknown selection strategy"),
            (3, {"budget": 5}, "got"),
        ):
            with pytest.raises(InvalidInputError, match=message):
                label_actively(LinearHead(), candidates, **options)
