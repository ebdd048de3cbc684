"""The study of router-based reward models on small generated data: its facts agree with slower ways to them."""

from __future__ import annotations

import json

import numpy as np
import pytest

from embedrm import Featurizer, PreferenceDataset, Report, RoutedRewardModel
from embedrm.checks import example_preferences
from embedrm.checks.data import map_views
from embedrm.errors import InvalidInputError
from embedrm.evaluation.claims import VERDICTS
from embedrm.experiments import variants as v
from embedrm.experiments.accounting import Counted, accounting_rows
from embedrm.experiments.domain_changes import added_domain_facts, left_out_facts
from embedrm.experiments.routing_claims import judge
from embedrm.experiments.routing_study import RoutingStudy
from embedrm.experiments.studied_domains import studied
from embedrm.experiments.study import StudyData, duration, training_responses
from embedrm.numerics.folds import hold_out

FEATURES = Featurizer(["r"])


@pytest.fixture(scope="module")
def data() -> StudyData:
    prefs, _ = example_preferences(120)
    info = {
        "encoder": {"kind": "given"},
        "encoder_parameters": 1000,
        "truncation": {"response": {"texts": 10, "truncated": 0}},
    }
    prefs.responses.info.update(info)
    train, test = hold_out(prefs.groups, 0.4, 0, "the test", "more")
    return StudyData("example", prefs[train], prefs[:0], prefs[test], prefs[:0])


@pytest.fixture(scope="module")
def study(data: StudyData) -> RoutingStudy:
    return RoutingStudy(data, FEATURES, n_seeds=2, n_resamples=50)


def test_every_variant_is_there_in_the_order_of_the_table(study):
    assert list(study.variants) == list(v.GROUPS)
    for name, variant in study.variants.items():
        seeded = name in v.SEEDED or name in (v.ARLISS_SOFT, v.RANDOM)
        assert len(variant.margins["test"]) == (2 if seeded else 1) or name == v.WRONG


def test_random_routing_is_the_mean_of_its_draws(study):
    first, second = study.variants[v.RANDOM].margins["test"]
    assert not np.array_equal(first, second)
    (row,) = (row for row in study.regret["rows"] if row["routing"] == v.RANDOM)
    table = next(row for row in study.accuracy["test"]["rows"] if row["model"] == v.RANDOM)
    assert row["accuracy"] == pytest.approx(table["micro"]["value"])
    assert table["micro"]["value"] == pytest.approx(np.mean([(m > 0).mean() for m in (first, second)]))


def test_wrong_routing_is_every_expert_but_the_own(data):
    model = RoutedRewardModel(v.linear(FEATURES), routing="hard").fit(data.train)
    wrong = v.wrong_margins(model, data.test)
    assert wrong.shape == (len(model.domains_) - 1, len(data.test))
    for i in (0, len(data.test) - 1):
        one = data.test[[i]]
        expected = []
        for k, (domain, expert) in enumerate(zip(model.domains_, model.experts_)):
            if domain != one.domain[0]:
                expected.append(model.scale_[k] * expert.margins(one)[0])
        np.testing.assert_allclose(np.sort(wrong[:, i]), np.sort(expected), rtol=1e-10)


def test_a_domain_left_out_is_one_never_trained_on(data):
    make = {v.SINGLE: v.factories(FEATURES)[v.SINGLE]}
    rodos = RoutedRewardModel(v.linear(FEATURES), routing="hard").fit(data.train)
    facts = left_out_facts(make, {v.RODOS: rodos}, data.train, data.test, (0, 1), frozenset(), n_resamples=20)
    domain = data.train.domains[0]
    rest, own = data.train[data.train.domain != domain], data.test[data.test.domain == domain]
    for name, model in (
        (v.SINGLE, v.linear(FEATURES)),
        (v.RODOS, RoutedRewardModel(v.linear(FEATURES), routing="hard")),
    ):
        row = next(row for row in facts["rows"] if row["model"] == name)
        assert row["domains"][domain]["value"] == model.fit(rest).score(own)


def test_adding_a_domain_changes_no_other_and_ends_where_training_on_all_does(data):
    full = RoutedRewardModel(v.linear(FEATURES), routing="hard").fit(data.train)
    (row,) = added_domain_facts(full, full, 1.0, data.train, data.test, data.train.domains[:1], n_resamples=20)
    assert row["changed"] == 0.0
    assert row["difference"]["value"] == 0.0
    assert row["after"] == row["full"]


def test_adding_the_second_domain_changes_the_first_by_no_bit(data):
    two = list(data.train.domains[:2])
    train, test = (
        map_views(prefs[np.isin(prefs.domain, two)], lambda name, x: x.astype(np.float32))
        for prefs in (data.train, data.test)
    )
    full = RoutedRewardModel(v.linear(FEATURES), routing="hard").fit(train)
    rows = added_domain_facts(full, full, 1.0, train, test, two, n_resamples=20)
    assert [row["changed"] for row in rows] == [0.0, 0.0]


def test_a_change_of_another_expert_is_found(data, monkeypatch):
    full = RoutedRewardModel(v.linear(FEATURES), routing="hard").fit(data.train)
    add = RoutedRewardModel.add_domain

    def careless(model, prefs):
        found = add(model, prefs)
        found.scale_ = found.scale_ * 2.0
        return found

    monkeypatch.setattr(RoutedRewardModel, "add_domain", careless)
    first, *others = data.train.domains
    (row,) = added_domain_facts(full, full, 1.0, data.train, data.test, [first], n_resamples=20)
    rows = data.test.active
    scaled = full.expert_rewards(data.test.responses, rows)[:, [full.domains_.index(d) for d in others]]
    assert row["changed"] == pytest.approx(np.abs(scaled).max())


def test_claims_are_judged_and_sizes_counted(study):
    assert [c["id"] for c in study.claims][:2] == ["rodos-most-accurate", "RODOS-comparable"]
    assert {c["verdict"] for c in study.claims} <= set(VERDICTS)
    n = len(study.rodos.domains_)
    rows = {row["variant"]: row for row in study.accounting}
    heads = study.variants[v.RODOS].parameters
    assert rows[v.RODOS]["paper"] == (n + 1) * 1000 + heads
    assert rows[v.RODOS]["shared"] == 1000 + heads


def test_without_an_encoders_weights_nothing_is_said_of_saving_them(study):
    heads = {name: Counted(10, 4 if name == v.RODOS else 1) for name in (v.RODOS, v.MORE, v.ARLISS)}
    with_weights, without = (judge(study.compared, accounting_rows(f, heads, v.RODOS), ()) for f in (100, 0))
    saved = {claim["id"]: claim["measured"] for claim in with_weights if claim["id"].endswith("halves-parameters")}
    assert saved == {f"{name}-halves-parameters": pytest.approx(1 - 110 / 410) for name in ("more", "arliss")}
    assert [c["id"] for c in without] == [c["id"] for c in with_weights if c["id"] not in saved]


def test_the_report_round_trips_and_names_every_claim(study):
    report = Report("reproduction", "A study")
    study.add_sections(report)
    again = Report.from_dict(json.loads(report.to_json()))
    assert again.to_dict() == report.to_dict()
    assert len(again.claims) == len(study.claims) == 8
    text = report.text()
    assert all(claim["verdict"] in text for claim in study.claims)
    assert report.html().count("<figure") >= 3


def test_test_pairs_of_unknown_domains_are_left_aside_and_counted(data):
    first, *others = data.train.domains
    known = data.train[data.train.domain != first]
    narrow = StudyData("example", known, known[:0], data.test, known[:0])
    study = RoutingStudy(narrow, FEATURES, n_seeds=1, n_added=1, n_resamples=20)
    report = Report("reproduction", "A study")
    study.add_sections(report)
    gone = int((data.test.domain == first).sum())
    assert gone
    assert report.notes == [f"Domain {first}: {gone:,} pairs of the test split, and none in training; left aside."]
    assert study.accuracy["test"]["domains"] == others


def test_one_domain_is_refused_since_nothing_is_routed(data):
    first = data.train.domains[0]
    one = StudyData("one", data.train.in_domain(first), data.train[:0], data.test, data.train[:0])
    with pytest.raises(
        InvalidInputError, match=rf"at least 2 domains .* got {first} .*in the test pairs: .*same names"
    ):
        RoutingStudy(one, FEATURES)
    other = StudyData("none", data.train, data.train[:0], data.test[:0], data.train[:0])
    with pytest.raises(InvalidInputError, match=r"got none .*in the test pairs: none"):
        RoutingStudy(other, FEATURES)


def test_domains_of_few_prompts_are_left_aside_or_named(data):
    first, second, third = data.train.domains
    groups = np.unique(data.train.in_domain(first).groups)
    lone = data.train[(data.train.domain != first) | (data.train.groups == groups[0])]
    found = studied(StudyData("one group", lone, lone[:0], data.test, lone[:0]))
    n = int((lone.domain == first).sum())
    assert found.notes[0] == (
        f"Domain {first}: {n} training pairs of fewer than 2 prompt groups of positive weight a domain, of which none can "
        "be held out to choose a penalty by; left aside in all splits."
    )
    assert found.data.train.domains == found.data.test.domains == (second, third)
    two = data.train[(data.train.domain != first) | np.isin(data.train.groups, groups[:2])]
    test = data.test[data.test.domain != third]
    pair = studied(StudyData("two groups", two, two[:0], test, two[:0]))
    n_tested = len(np.unique(test.in_domain(first).groups))
    assert pair.data.train.domains == (first, second, third)
    assert pair.notes[0] == f"Domain {third}: no pairs in the test split; trained on, and without a row in its tables."
    assert f": {first} (2 and {n_tested})." in pair.notes[1]
    # and the whole study runs on it
    study = RoutingStudy(pair.data, FEATURES, n_seeds=1, n_resamples=20)
    assert study.accuracy["test"]["domains"] == [first, second]
    assert {row["domain"] for row in study.added} == {first, second}
    # pairs without weight make no group
    weightless = two.weighted(np.where((two.domain == first) & (two.groups == groups[0]), 0.0, two.weight))
    assert studied(StudyData("weightless", weightless, two[:0], data.test, two[:0])).data.train.domains == (
        second,
        third,
    )


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (3, "10 seconds"),
        (44, "40 seconds"),
        (90, "2 minutes"),
        (89, "90 seconds"),
        (5399, "90 minutes"),
        (5400, "2 hours"),
        (7300, "2 hours"),
    ],
)
def test_durations_are_said_as_a_person_says_them(seconds, said):
    assert duration(seconds) == said


def test_training_responses_are_those_of_training_pairs_by_split_or_share():
    table = [
        {"prompt": f"p{i}", "chosen": f"a{i}", "rejected": f"b{i}", "split": "test" if i < 4 else "train"}
        for i in range(10)
    ]
    assert training_responses(PreferenceDataset.from_records(table)) == 12
    bare = [{key: value for key, value in row.items() if key != "split"} for row in table]
    assert training_responses(PreferenceDataset.from_records(bare)) == 14
