"""The literal arms of the router study, end to end on the tiny encoder: found again, counted, judged and shown."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file
from tuning_base import make_preferences

from embedrm import EmbeddingStore, Featurizer, PreferenceDataset, Report, SentenceEncoder, TunedEncoder
from embedrm.encoders import load_encoder
from embedrm.errors import InvalidInputError
from embedrm.evaluation.claims import VERDICTS
from embedrm.experiments import literal_arms as arms
from embedrm.experiments.literal_claims import beside
from embedrm.experiments.literal_scores import latencies, routed_margins
from embedrm.experiments.literal_study import LiteralPlan, LiteralStudy
from embedrm.experiments.papers import PAPERS, namgoong2024

TINY = arms.LiteralPreset(40, epochs=2, router_epochs=2, batch_tokens=256)


@pytest.fixture(scope="module")
def data() -> PreferenceDataset:
    return make_preferences(60).with_split({"train": 0.6, "validation": 0.1, "test": 0.3})


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMBEDRM_HOME", str(place))
        yield place


@pytest.fixture(scope="module")
def plan(home, data, base_folder) -> LiteralPlan:
    made = LiteralPlan(data, TINY, SentenceEncoder(str(base_folder)))
    made.store = EmbeddingStore(home / "vectors")
    return made


@pytest.fixture(scope="module")
def study(plan) -> LiteralStudy:
    return plan.run(Featurizer(["r"]), n_resamples=50)


def test_groups_are_whole_and_domains_take_turns(data):
    rows = arms.drawn_rows(data, 24)
    drawn = data.subset(rows)
    counts = pd.Series(drawn.pair_domains()).value_counts()
    assert counts.max() - counts.min() <= 2  # a prompt has two pairs
    assert set(data.response_splits()[drawn.pairs["chosen"]]) == {"train"}
    groups = data.pair_groups()
    train = data.response_splits()[data.pairs["chosen"].to_numpy()] == "train"
    assert set(rows.tolist()) == set(np.flatnonzero(np.isin(groups, groups[rows]) & train).tolist())
    np.testing.assert_array_equal(arms.drawn_rows(data, 24), rows)
    assert set(arms.drawn_rows(data, None).tolist()) == set(np.flatnonzero(train).tolist())


def test_a_small_domain_gives_all_it_has():
    data = make_preferences(40)
    domains = data.pair_domains()
    rows = np.flatnonzero((domains == "house") | (np.cumsum(domains == "shirt") <= 6))
    small = data.subset(rows).with_split({"train": 0.8, "test": 0.2})
    train = small.response_splits()[small.pairs["chosen"].to_numpy()] == "train"
    drawn = small.subset(arms.drawn_rows(small, 24)).pair_domains()
    assert (drawn == "shirt").sum() == (train & (small.pair_domains() == "shirt")).sum()
    assert len(drawn) in (24, 25)


def test_all_arms_learn_from_the_same_pairs(plan):
    whole = {arm.name: arm.data for arm in plan.arms if not arm.domain}
    assert len({id(data) for data in whole.values()}) == 1
    for of in (arms.RODOS, arms.ARLISS):
        parts = [arm for arm in plan.arms if arm.of == of and arm.domain]
        assert sum(len(arm.data) for arm in parts) == len(plan.train)
        assert all(set(arm.data.pair_domains()) == {arm.domain} for arm in parts)
    assert not set(plan.train.prompts["group"]) & set(plan.test.prompts["group"])


def test_arms_are_found_again_and_none_is_tuned_twice(plan, study, monkeypatch):
    monkeypatch.setattr(TunedEncoder, "fit", lambda *args, **options: pytest.fail("tuned again"))
    again = arms.tune_arms(plan.arms, plan.folder)
    assert list(again) == [arm.name for arm in plan.arms]
    assert "all 8 are tuned already" in plan.estimate()
    np.testing.assert_array_equal(again["single"].margins(plan.test), study.margins["single encoder, tuned"])


def test_another_configuration_or_other_pairs_have_a_folder_of_their_own(plan):
    config, epochs = plan.config, TINY.router_epochs
    other = arms.tuning_base(plan.encoder, arms.LiteralPreset(40, epochs=3))
    fewer = plan.train.subset(np.arange(20)).compact()
    folders = {
        arms.work_folder(plan.train, config, epochs),
        arms.work_folder(plan.train, other, epochs),
        arms.work_folder(plan.train, config, epochs + 1),
        arms.work_folder(fewer, config, epochs),
    }
    assert len(folders) == 4
    assert plan.folder in folders


def test_a_kill_between_arms_costs_the_arm_at_hand_alone(plan, study, tmp_path, monkeypatch):
    wanted = plan.arms[:3]
    fit, done = TunedEncoder.fit, []

    def killed(self, data, folder, **options):
        if len(done) == 1:
            raise KeyboardInterrupt
        done.append(Path(folder).name)
        return fit(self, data, folder, **options)

    monkeypatch.setattr(TunedEncoder, "fit", killed)
    with pytest.raises(KeyboardInterrupt):
        arms.tune_arms(wanted, tmp_path)
    monkeypatch.setattr(TunedEncoder, "fit", lambda s, d, f, **o: done.append(Path(f).name) or fit(s, d, f, **o))
    found = arms.tune_arms(wanted, tmp_path)
    assert done == ["single", "rodos-00", "rodos-01"]
    np.testing.assert_allclose(found["single"].margins(plan.test), study.margins["single encoder, tuned"], atol=1e-5)


def test_core_seconds_outlive_a_kill(tmp_path):
    for spent in (2.0, 3.0):
        clock = arms._Clock(tmp_path, "arm", lambda label: lambda done, total: None)
        clock.began -= spent
        clock.write()
    (arm,) = [arms.Arm("arm", arms.SINGLE, None, None)]
    assert arms.core_seconds([arm], tmp_path)["arm"] == pytest.approx(5.0, abs=0.2)


def test_routes_are_those_of_the_router_and_oracle_those_of_the_data(plan, study):
    router = TunedEncoder.load(plan.folder / "rodos-router")
    experts = {d: TunedEncoder.load(plan.folder / f"rodos-{i:02d}") for i, d in enumerate(plan.domains)}
    p = router.domain_probabilities(plan.test.prompt_texts())
    route = np.array(router.classes_)[p.argmax(axis=1)]
    owner = plan.test.responses["prompt_of"].to_numpy()[plan.test.pairs["chosen"].to_numpy()]
    each = {d: tuned.margins(plan.test) for d, tuned in experts.items()}
    hard = [each[route[prompt]][i] for i, prompt in enumerate(owner)]
    np.testing.assert_allclose(study.margins["RODOS, tuned"], hard, atol=1e-5)
    own = [each[d][i] for i, d in enumerate(plan.test.pair_domains())]
    np.testing.assert_allclose(study.margins["RODOS, tuned, oracle"], own, atol=1e-5)


def test_switched_adapters_score_as_the_merged_encoders(plan, study):
    for i, domain in enumerate(plan.domains):
        rows = plan.test.pair_domains() == domain
        merged = TunedEncoder.load(plan.folder / f"arliss-{i:02d}").margins(plan.test.subset(rows))
        np.testing.assert_allclose(study.margins["ARLISS, tuned, oracle"][rows], merged, atol=1e-5)


def test_each_expert_reads_only_what_is_sent_to_it_or_its_own(data):
    asked = {}

    def score(domain, part):
        asked[domain] = set(part.pairs["chosen"].tolist())
        return np.full(len(part), float(["house", "shirt"].index(domain)))

    routes = np.where(np.arange(len(data)) % 3 == 0, "house", data.pair_domains()).astype(object)
    hard, oracle = routed_margins(score, data, routes, ["house", "shirt"])
    np.testing.assert_array_equal(hard, routes == "shirt")
    np.testing.assert_array_equal(oracle, data.pair_domains() == "shirt")
    sent = (routes == "house") | (data.pair_domains() == "house")
    assert asked["house"] == set(data.pairs["chosen"].to_numpy()[sent].tolist())


def _numbers(path: Path) -> int:
    return sum(array.size for array in load_file(path).values())


def test_parameters_are_those_of_the_files(plan, study):
    size = {row["variant"]: row for row in study.sizes}
    single = _numbers(plan.folder / "single" / "model.safetensors")
    assert size["single encoder"]["parameters"] == single + 32
    router = single + 2 * 32 + 2
    assert size["RODOS"]["parameters"] == 2 * (single + 32) + router
    adapters = [
        plan.folder / name / "adapter" / "adapter_model.safetensors"
        for name in ("arliss-00", "arliss-01", "arliss-router")
    ]
    assert size["ARLISS"]["parameters"] == single + sum(map(_numbers, adapters)) + 2 * 32 + (2 * 32 + 2)
    expert = 32 * 64 + 64 + 64 * 32 + 32
    assert size["MoRE"]["parameters"] == single + expert + 32 + (2 * 32 + 2)
    for row in study.sizes:
        assert row["reduction"] == pytest.approx(1 - row["parameters"] / size["RODOS"]["parameters"])
    # with five domains: five experts, the one in the encoder among them, and five rows of the gate
    five = single + 4 * expert + 32 + 5 * 33
    assert size["MoRE"]["at_five"] == pytest.approx(1 - five / (5 * (single + 32) + router))


def test_bytes_are_those_on_disk_and_an_adapted_base_is_counted_once(plan, study):
    size = {row["variant"]: row["bytes"] for row in study.sizes}
    assert size["single encoder"] == sum(f.stat().st_size for f in (plan.folder / "single").rglob("*") if f.is_file())
    assert size["RODOS"] > 2.9 * size["ARLISS"] / 2
    assert size["single encoder"] < size["ARLISS"] < 3 * size["single encoder"]


def test_every_request_is_served_by_all_and_told_by_its_median():
    served = []
    serve = {name: (lambda p, r, n=name: served.append((n, p)) or 0.0) for name in ("a", "b")}
    rows = latencies(serve, [("one", "x"), ("two", "x")])
    assert served == [("a", "one"), ("b", "one"), ("a", "one"), ("b", "one"), ("b", "two"), ("a", "two")]
    assert [row["variant"] for row in rows] == ["a", "b"]
    assert rows[0]["ratio"] == 1.0


def test_one_request_gives_the_reward_of_the_study(plan, study):
    pair = plan.test.pairs[["chosen", "rejected"]].iloc[0]
    texts, answers = plan.test.prompt_texts(), plan.test.response_texts()
    prompt = texts[plan.test.responses["prompt_of"][pair["chosen"]]]
    for of in (arms.SINGLE, arms.RODOS, arms.MORE, arms.ARLISS):
        serve = study.tuned.request(of)
        margin = serve(prompt, answers[pair["chosen"]]) - serve(prompt, answers[pair["rejected"]])
        assert margin == pytest.approx(study.margins[f"{of}, tuned"][0], abs=1e-5)


def test_claims_stand_beside_their_analogues(study):
    assert all(c["setting"] == "re-implementation" and c["verdict"] in VERDICTS for c in study.claims)
    assert len(study.claims) == 6
    analogues = [{"id": c["id"].removesuffix("-tuned")} for c in study.claims[1:]] + [{"id": "other"}]
    joined = [c["id"] for c in beside(analogues, study.claims)]
    for claim in study.claims[1:]:
        assert joined.index(claim["id"]) == joined.index(claim["id"].removesuffix("-tuned")) + 1
    assert joined[-1] == study.claims[0]["id"]
    saved = next(c for c in study.claims if c["id"] == "arliss-halves-parameters-tuned")
    assert saved["measured"] == next(r["reduction"] for r in study.sizes if r["variant"] == "ARLISS")


def test_the_report_shows_it_and_facts_are_plain(study):
    json.dumps(study.facts())
    report = Report("reproduction", "t", summary=study.findings())
    study.add_sections(report)
    tables = {table.name for section in report.sections for table in section.tables}
    assert {"literal", "literal-differences", "literal-sizes", "literal-cost", "tuned-router-rodos"} <= tables
    figures = [figure.name for section in report.sections for figure in section.figures]
    assert figures == ["literal"]


def test_the_paper_joins_both_claims(home, data, base_folder, plan, study, tmp_path, monkeypatch):
    monkeypatch.setitem(arms.LITERAL_PRESETS, "quick", TINY)
    monkeypatch.setattr(namgoong2024, "N_RESAMPLES", 50)
    paper = PAPERS.get("namgoong2024")()
    encoder = SentenceEncoder(str(base_folder))
    report, files = paper.run(
        data=data, encoder=encoder, store=EmbeddingStore(home / "vectors"), output=tmp_path / "out", literal=True
    )
    settings = [claim["setting"] for claim in report.claims]
    assert settings.count("re-implementation") == 6
    assert settings.index("re-implementation") == 1
    assert files["html"].is_file()


@pytest.mark.parametrize("encoder", ["hashing", None])
def test_what_cannot_be_tuned_is_refused_before_anything_is_done(home, data, encoder, base_folder):
    chosen = load_encoder("hashing") if encoder else SentenceEncoder(str(base_folder))
    given = data if encoder else data.subset(data.pair_domains() == "house")
    told = "literal arms tune the encoder" if encoder else "at least 2 domains"
    with pytest.raises(InvalidInputError, match=told):
        LiteralPlan(given, TINY, chosen)
