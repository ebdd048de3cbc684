"""Facts of an evaluation, counted by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest

from embedrm import EmbeddedPreferences
from embedrm.errors import InvalidInputError
from embedrm.evaluation import accuracy_facts, comparison_facts, wrong_expert_facts
from embedrm.numerics.significance import holm, mcnemar_exact


def prefs(n_tied=1):
    """Six labelled pairs: four of domain a in two groups, two of domain b in one; then ties."""
    n = 6 + n_tied
    prompt_of = np.repeat([0, 0, 1, 1, 2, 2, 2][:n], 2)
    return EmbeddedPreferences.from_arrays(
        np.zeros((2 * n, 1)),
        np.arange(2 * n).reshape(-1, 2),
        prompt_of=prompt_of,
        domain=["a", "a", "b"],
        group=["g", "h", "k"],
        outcome=[1, 1, 1, 0.75, 1, 1] + [0.5] * n_tied,
    )


M = np.array([2.0, -1.0, 0.0, 3.0, -0.5, 1.0, 9.0])


def many(n=300, seed=0):
    rng = np.random.default_rng(seed)
    p = EmbeddedPreferences.from_arrays(
        np.zeros((2 * n, 1)),
        np.arange(2 * n).reshape(-1, 2),
        prompt_of=np.repeat(np.arange(n), 2),
        domain=np.array(["a", "b", "c"])[rng.integers(0, 3, n)],
        group=[f"g{i // 2}" for i in range(n)],
        outcome=rng.choice([0.5, 0.8, 1.0], n),
    )
    return p, rng.normal(size=n) + 0.6, rng.normal(size=n) + 0.2


class TestAccuracy:
    def test_counts_by_hand(self):
        facts = accuracy_facts({"model": M}, prefs(), n_resamples=20)
        assert (facts["n_pairs"], facts["n_ties"], facts["n_groups"]) == (6, 1, 3)
        assert facts["domains"] == ["a", "b"]
        assert facts["n_by_domain"] == {"a": 4, "b": 2}
        row = facts["rows"][0]
        # a: right, wrong, half, right; b: wrong, right
        assert row["domains"]["a"]["value"] == 2.5 / 4
        assert row["domains"]["b"]["value"] == 1 / 2
        assert row["micro"]["value"] == pytest.approx(3.5 / 6)
        assert row["macro"]["value"] == pytest.approx((2.5 / 4 + 1 / 2) / 2)
        assert (row["domains"]["a"]["n"], row["micro"]["n"], row["macro"]["n"]) == (4, 6, 2)
        outcome = np.array([1, 1, 1, 0.75, 1, 1])
        p = 1 / (1 + np.exp(-M[:6]))
        expected = -(outcome * np.log(p) + (1 - outcome) * np.log(1 - p)).mean()
        assert row["log_loss"]["value"] == pytest.approx(expected)
        assert row["margins"]["median"] == np.median(M[:6])

    def test_margins_that_are_no_logits_have_no_log_loss(self):
        rows = accuracy_facts({"a": M, "b": M}, prefs(), logits={"b": False}, n_resamples=5)["rows"]
        assert rows[0]["log_loss"] is not None
        assert rows[1]["log_loss"] is None

    def test_intervals_hold_their_value_and_are_clustered(self):
        p, a, _ = many()
        facts = accuracy_facts({"a": a}, p)
        row = facts["rows"][0]
        for cell in (*row["domains"].values(), row["micro"], row["macro"], row["log_loss"]):
            assert cell["low"] < cell["value"] < cell["high"]
        # about 2 * 1.96 * sqrt(p (1 - p) / n) for pairs that are in fact independent
        width = row["micro"]["high"] - row["micro"]["low"]
        share = row["micro"]["value"]
        assert width == pytest.approx(3.92 * np.sqrt(share * (1 - share) / facts["n_pairs"]), rel=0.2)

    def test_a_scale_changes_no_accuracy_and_ties_change_nothing(self):
        p, a, _ = many()
        one, ten = (accuracy_facts({"m": m}, p, n_resamples=50)["rows"][0] for m in (a, 10 * a))
        assert one["micro"] == ten["micro"]
        labelled = p[~p.ties]
        without = accuracy_facts({"m": a[~p.ties]}, labelled, n_resamples=50)["rows"][0]
        assert without["domains"] == one["domains"]

    def test_models_share_their_resamples(self):
        p, a, _ = many()
        rows = accuracy_facts({"x": a, "y": a.copy()}, p, n_resamples=50)["rows"]
        assert rows[0]["micro"] == rows[1]["micro"]
        alone = accuracy_facts({"y": a}, p, n_resamples=50)["rows"][0]
        assert alone["micro"] == pytest.approx(rows[1]["micro"])

    def test_facts_are_plain_json(self):
        p, a, _ = many()
        facts = accuracy_facts({"a": a}, p, n_resamples=10)
        assert json.loads(json.dumps(facts, allow_nan=False)) == facts

    @pytest.mark.parametrize(
        "margins, message",
        [
            ({}, "at least one model's margins, got none"),
            ({"m": np.zeros(3)}, r"margins of 'm' must have shape \(7,\), or .*, got \(3,\)"),
            ({"m": np.full(7, np.nan)}, "NaN in 6 of 6 pairs"),
        ],
    )
    def test_wrong_margins_are_refused(self, margins, message):
        with pytest.raises(InvalidInputError, match=message):
            accuracy_facts(margins, prefs())

    def test_ties_alone_are_refused(self):
        p = prefs()
        with pytest.raises(InvalidInputError, match="at least one pair to evaluate, got none"):
            accuracy_facts({"m": np.zeros(1)}, p[p.ties])

    def test_the_vectors_are_not_read(self):
        p, a, _ = many()
        expected = accuracy_facts({"a": a}, p, n_resamples=5)
        p.responses.views.clear()
        assert accuracy_facts({"a": a}, p, n_resamples=5) == expected


class TestComparison:
    def test_differences_by_hand(self):
        a, b = M, np.array([1.0, 1.0, -1.0, 3.0, -2.0, -1.0, -9.0])
        facts = comparison_facts(a, b, prefs(), n_resamples=30)
        # credits a: 1 0 .5 1 | 0 1; b: 1 1 0 1 | 0 0
        assert facts["micro"]["value"] == pytest.approx((0 - 1 + 0.5 + 0 + 0 + 1) / 6)
        assert facts["domains"]["a"]["value"] == pytest.approx(-0.5 / 4)
        assert facts["domains"]["b"]["value"] == pytest.approx(1 / 2)
        assert facts["macro"]["value"] == pytest.approx((-0.5 / 4 + 1 / 2) / 2)
        assert (facts["n_pairs"], facts["n_ties"]) == (6, 1)
        assert facts["domains"]["a"]["n"] == 4
        # only a: the last pair; only b: the second; half credit: the third
        assert facts["mcnemar"] == {"only_a": 1, "only_b": 1, "half_credit": 1, "p": 1.0}
        assert facts["domains"]["b"]["mcnemar"] == mcnemar_exact([0, 1], [0, 0])

    def test_exchanging_the_models_turns_everything_round(self):
        p, a, b = many()
        ab, ba = comparison_facts(a, b, p), comparison_facts(b, a, p)
        cells = [("micro",), ("macro",), *(("domains", d) for d in ab["domains"])]
        for path in cells:
            x, y = ab, ba
            for key in path:
                x, y = x[key], y[key]
            assert x["value"] == -y["value"]
            assert x["low"] == pytest.approx(-y["high"], abs=1e-12)
            assert x["high"] == pytest.approx(-y["low"], abs=1e-12)
            assert x["p"] == y["p"]
            assert x.get("p_holm") == y.get("p_holm")
        assert ab["mcnemar"]["only_a"] == ba["mcnemar"]["only_b"]
        assert ab["mcnemar"]["p"] == ba["mcnemar"]["p"]

    def test_a_model_against_itself_is_no_difference(self):
        p, a, _ = many()
        facts = comparison_facts(a, a, p, n_resamples=99)
        assert facts["micro"] == {"value": 0.0, "low": 0.0, "high": 0.0, "p": 1.0}

    def test_pairing_is_used_where_models_agree(self):
        p, a, _ = many()
        # b differs from a on a few pairs only: the difference is far more certain than either accuracy
        b = a.copy()
        b[np.flatnonzero((a > 0) & ~p.ties)[::12]] *= -1
        facts = comparison_facts(a, b, p)
        alone = accuracy_facts({"a": a}, p)["rows"][0]["micro"]
        assert facts["micro"]["high"] - facts["micro"]["low"] < 0.6 * (alone["high"] - alone["low"])
        assert facts["micro"]["p"] < 0.01

    def test_pairs_of_one_group_count_as_one_draw(self):
        # every group holds ten pairs with one fate; as if independent, the interval would be sqrt(10) shorter
        n_groups, each = 60, 10
        rng = np.random.default_rng(3)
        fate_a, fate_b = (np.repeat(np.sign(rng.normal(size=n_groups) + shift), each) for shift in (0.5, 0.3))
        widths = []
        for groups in (np.repeat(np.arange(n_groups), each), np.arange(n_groups * each)):
            p = EmbeddedPreferences.from_arrays(
                np.zeros((2 * len(groups), 1)),
                np.arange(2 * len(groups)).reshape(-1, 2),
                prompt_of=np.repeat(np.arange(len(groups)), 2),
                group=groups,
            )
            micro = comparison_facts(fate_a, fate_b, p, n_resamples=400)["micro"]
            widths.append(micro["high"] - micro["low"])
        assert widths[0] / widths[1] == pytest.approx(np.sqrt(each), rel=0.25)

    def test_values_are_differences_of_accuracies(self):
        p, a, b = many()
        facts = comparison_facts(a, b, p, n_resamples=5)
        x, y = accuracy_facts({"a": a, "b": b}, p, n_resamples=5)["rows"]
        assert facts["micro"]["value"] == pytest.approx(x["micro"]["value"] - y["micro"]["value"])
        assert facts["macro"]["value"] == pytest.approx(x["macro"]["value"] - y["macro"]["value"])

    def test_holm_is_over_the_domains(self):
        p, a, b = many()
        facts = comparison_facts(a, b, p, n_resamples=199)
        domains = facts["domains"].values()
        np.testing.assert_allclose([d["p_holm"] for d in domains], holm([d["p"] for d in domains]))

    def test_lists_are_taken_and_facts_are_plain_json(self):
        facts = comparison_facts(M.tolist(), (-M).tolist(), prefs(), n_resamples=9)
        assert json.loads(json.dumps(facts, allow_nan=False)) == facts

    def test_wrong_shapes_are_refused(self):
        with pytest.raises(InvalidInputError, match=r"margins of 'model b' must have shape \(7,\), or .*, got \(6,\)"):
            comparison_facts(M, M[:6], prefs())


class TestWrongExpert:
    def test_matrix_by_hand(self):
        margins = np.stack([M, -M], axis=1)
        facts = wrong_expert_facts(margins, ["a", "b"], prefs())
        assert facts == {
            "experts": ["a", "b"],
            "domains": ["a", "b"],
            "accuracy": [[2.5 / 4, 1 / 2], [1.5 / 4, 1 / 2]],
            "n_by_domain": {"a": 4, "b": 2},
        }

    def test_experts_need_not_be_the_domains(self):
        facts = wrong_expert_facts(M[:, None], ["shared"], prefs())
        assert facts["experts"] == ["shared"]
        assert np.shape(facts["accuracy"]) == (1, 2)

    def test_wrong_shapes_are_refused(self):
        with pytest.raises(InvalidInputError, match=r"margins of shape \(7, 2\), got \(7, 1\)"):
            wrong_expert_facts(M[:, None], ["a", "b"], prefs())


class TestSeveralSeeds:
    """Margins of several seeds: each pair has its mean accuracy, and prompts are what intervals are about."""

    def pairs(self):
        x = np.zeros((8, 1))
        return EmbeddedPreferences.from_arrays(x, np.arange(8).reshape(4, 2), prompt_of=np.repeat(np.arange(4), 2))

    def test_means_by_hand(self):
        prefs = self.pairs()
        two = np.array([[1.0, 1.0, -1.0, 0.0], [1.0, -1.0, -1.0, 1.0]])
        row = accuracy_facts({"m": two}, prefs)["rows"][0]
        assert row["micro"]["value"] == pytest.approx((1 + 0.5 + 0 + 0.75) / 4)
        assert (row["n_seeds"], row["seed_sd"]) == (2, pytest.approx(np.std([2.5 / 4, 2.0 / 4], ddof=1)))
        assert row["log_loss"]["value"] == pytest.approx(np.logaddexp(0, -two).mean())
        single = accuracy_facts({"m": two[0]}, prefs)["rows"][0]
        assert (single["n_seeds"], single["seed_sd"]) == (1, None)

    def test_equal_seeds_are_one(self):
        prefs = self.pairs()
        one = np.array([1.0, -1.0, 1.0, 0.5])
        a, b = accuracy_facts({"m": one}, prefs), accuracy_facts({"m": np.stack([one, one])}, prefs)
        assert a["rows"][0]["micro"] == b["rows"][0]["micro"]
        other = -one[::-1]
        plain, seeded = comparison_facts(one, other, prefs), comparison_facts(np.stack([one] * 3), other, prefs)
        assert plain["micro"] == seeded["micro"]
        assert plain["mcnemar"] is not None
        assert seeded["mcnemar"] is None
