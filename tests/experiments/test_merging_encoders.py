"""Encoder-level merging end to end on a tiny encoder: laws of the ends, the choice of lambda, resuming, claims, report."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from embedrm import EmbeddingStore, PreferenceDataset, Report, SentenceEncoder, TunedEncoder
from embedrm.encoders import load_encoder
from embedrm.encoders.merged import MergedEncoder
from embedrm.errors import InvalidInputError
from embedrm.evaluation.claims import FAILS, HOLDS, VERDICTS
from embedrm.experiments import merging_arms as arms
from embedrm.experiments.merging_claims import judge_merging
from embedrm.experiments.merging_curves import choose, sweep_facts
from embedrm.experiments.merging_encoders import EncoderMergeStudy
from embedrm.experiments.merging_plan import EncoderMergePlan
from embedrm.experiments.merging_static import SIF_A, make_static, token_weights
from embedrm.numerics.ties import pair_credit
from embedrm.preferences import EmbeddedPreferences, EmbeddedResponses

sys.path.insert(0, str(Path(__file__).parent.parent / "tuning"))

from tuning_base import make_base, make_preferences

TINY = arms.MergePreset(
    24, epochs=2, text_epochs=3, lambdas=(0.0, 0.3, 0.7, 1.0), base_lambdas=(0.0, 0.5, 1.0), batch_tokens=256
)


def renamed(data: PreferenceDataset, names: dict[str, str]) -> PreferenceDataset:
    prompts = data.prompts.copy()
    prompts["domain"] = prompts["domain"].replace(names)
    return PreferenceDataset(prompts, data.responses.copy(), data.pairs.copy(), name="renamed")


@pytest.fixture(scope="module")
def data() -> PreferenceDataset:
    """Three domains: two are merged towards, one is general."""
    made = make_preferences(72, n_domains=3).with_split({"train": 0.5, "validation": 0.2, "test": 0.3})
    prompts = made.prompts.copy()
    prompts["domain"] = [("shirt", "math", "code")[i % 3] for i in range(len(prompts))]
    responses = made.responses.copy()
    responses["gold"] = [float(i % 3 == 0) for i in range(len(responses))]
    return PreferenceDataset(prompts, responses, made.pairs.copy(), name="three")


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    import torch

    place, before = tmp_path_factory.mktemp("home"), torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMBEDRM_HOME", str(place))
        yield place
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def base(home) -> SentenceEncoder:
    return SentenceEncoder(str(make_base(home / "base")))


@pytest.fixture(scope="module")
def plan(home, data, base) -> EncoderMergePlan:
    made = EncoderMergePlan(data, TINY, base)
    made.store = EmbeddingStore(home / "vectors")
    return made


@pytest.fixture(scope="module")
def study(plan) -> EncoderMergeStudy:
    return plan.run(n_resamples=50)


# -- targets and what is drawn ------------------------------------------------------------------------------------------


def test_domains_are_known_by_name_and_a_stand_in_says_so():
    found = arms.find_targets(["arithmetic", "code", "science", "history"])
    assert [(t.name, t.domains) for t in found] == [
        ("code", ("code",)),
        ("math", ("arithmetic",)),
        ("science", ("science",)),
    ]
    assert "no domain of these data is medical" in found[2].note
    both = arms.find_targets(["science", "mediqa", "gsm8k", "kwise_gsm8k", "chat"])
    assert [(t.name, t.domains) for t in both] == [("math", ("gsm8k", "kwise_gsm8k")), ("medical", ("mediqa",))]
    assert arms.find_targets(["a", "b"], {"a": "sums"}) == [arms.Target("sums", ("a",))]
    with pytest.raises(InvalidInputError, match="'c'"):
        arms.find_targets(["a", "b"], {"c": "sums"})
    for there in (["math", "code"], ["chat", "history"], []):
        with pytest.raises(InvalidInputError, match="one general domain beside it"):
            arms.find_targets(there)


def test_a_target_that_cannot_be_judged_is_left_aside_unless_it_was_asked_for(data, base):
    judged = data.pair_domains().astype(str)
    lacking = (judged == "code") & (data.response_splits()[data.pairs["chosen"].to_numpy()] == "validation")
    part = data.subset(np.flatnonzero(~lacking)).compact()
    found = EncoderMergePlan(part, TINY, base)
    assert [t.name for t in found.targets] == ["math"]
    assert found.general_domains == ["code", "shirt"]
    assert len(found.notes) == 1
    assert "code is no target but one of the general domains: lambda is chosen on validation pairs" in found.notes[0]
    with pytest.raises(InvalidInputError, match=r"code \(code\) has none with a preference"):
        EncoderMergePlan(part, TINY, base, targets={"code": "code", "math": "math"})
    neither = data.subset(
        np.flatnonzero(data.response_splits()[data.pairs["chosen"].to_numpy()] != "validation")
    ).compact()
    held_out = EncoderMergePlan(neither, TINY, base)
    assert [t.name for t in held_out.targets] == ["code", "math"]
    assert min(own.n_pairs for own in held_out.validation.values()) > 0


def test_the_general_encoder_never_sees_a_target(plan):
    assert set(plan.train.pair_domains()) == {"shirt"}
    general, *domains = plan.arms
    assert general.name == arms.GENERAL
    assert general.config.objective == "bradley-terry"
    assert {arm.name: arm.config.objective for arm in domains} == {"code": "masked-token", "math": "masked-token"}
    assert {arm.config.base for arm in plan.arms} == {plan.config.base}


def test_text_of_a_domain_is_of_its_training_split_and_reads_no_preference(plan, data):
    train = data.response_splits()[data.pairs["chosen"].to_numpy()] == "train"
    own = data.subset(np.flatnonzero(train & (data.pair_domains() == "math")))
    swapped = own.pairs.assign(chosen=own.pairs["rejected"], rejected=own.pairs["chosen"])
    other = PreferenceDataset(own.prompts.copy(), own.responses.copy(), swapped, name="swapped")
    (math,) = [arm for arm in plan.arms if arm.name == "math"]
    found, _ = arms.domain_texts(other, arms.Target("math", ("math",)), False)
    assert sorted(found) == sorted(math.data)
    rest = data.subset(np.flatnonzero(~train)).compact().prompts
    train_prompts = set(data.prompts.loc[data.prompts["split"] == "train", "prompt"])
    assert not (set(rest["prompt"]) - train_prompts) & set(math.data)


def test_bundled_text_comes_from_the_table_without_other_splits():
    from embedrm.datasets.bundled import load_bundled_table

    table = load_bundled_table("texts")
    found, groups = arms.domain_texts(None, arms.Target("math", ("arithmetic",)), True)
    train = table[(table["domain"] == "arithmetic") & (table["split"] == "train")]
    assert set(found) == set(train["text"])
    assert set(groups) == set(train["group"])


def test_drawn_test_texts_are_whole_groups_of_every_domain_and_nested(data):
    rows = arms.labelled(data, "test")
    few, more = arms.drawn_texts(data, rows, 6), arms.drawn_texts(data, rows, 12)
    assert set(few.tolist()) < set(more.tolist()) < set(rows.tolist())
    groups = data.pair_groups()
    assert set(few.tolist()) == set(rows[np.isin(groups[rows], groups[few])].tolist())
    texts, both = data.joint_texts(), data.pairs[["chosen", "rejected"]].to_numpy()
    for domain in ("shirt", "math", "code"):
        own = few[data.pair_domains()[few] == domain]
        assert 6 <= len({texts[r] for r in both[own].ravel()}) <= 6 + 3
    np.testing.assert_array_equal(arms.drawn_texts(data, rows, None), rows)


# -- laws ---------------------------------------------------------------------------------------------------------------


def test_lambda_0_is_the_general_model_and_lambda_1_the_domain_model_to_the_bit(plan, study):
    general, math = study.tuned[arms.GENERAL], study.tuned["math"]
    own = general.margins(plan.test)
    models = [general.folder, math.folder]
    np.testing.assert_array_equal(study.tuned_margins(study.merged(models, [1.0, 0.0]), plan.test), own)
    np.testing.assert_array_equal(study.tuned_margins(general.joint_encoder(), plan.test), own)
    last = study.tuned_margins(study.merged(models, [0.0, 1.0]), plan.test)
    np.testing.assert_array_equal(study.tuned_margins(math.joint_encoder(), plan.test), last)
    between = study.tuned_margins(study.merged(models, [0.5, 0.5]), plan.test)
    assert np.abs(between - own).max() > 0
    assert np.abs(between - last).max() > 0


def test_the_curve_begins_at_the_general_models_own_accuracy(plan, study):
    margins = study.tuned[arms.GENERAL].margins(plan.test)
    own = plan.test.pair_domains() == "math"
    expected = float(np.mean(margins[own] > 0) + 0.5 * np.mean(margins[own] == 0))
    facts = study.sweeps["math"]
    assert facts["test"]["target"][0]["value"] == pytest.approx(expected)
    assert facts["change"]["target"][0] == {"value": 0.0, "low": 0.0, "high": 0.0}
    q = facts["margins"]["quantiles"].index(0.5)
    assert facts["margins"]["target"][0][q] == pytest.approx(np.median(margins[own]))


def test_a_point_of_the_curve_is_a_merged_folder_scored_by_itself(plan, study, tmp_path):
    from embedrm.merging.encoders import merge_encoders

    general = study.tuned[arms.GENERAL]
    merge_encoders([general.folder, study.tuned["code"].folder], tmp_path / "m", [0.7, 0.3])
    margins = TunedEncoder.load(general.folder)._head("bradley-terry")
    margins.encoder = SentenceEncoder(
        str(tmp_path / "m"), max_length=plan.config.max_length, truncation=plan.config.truncation
    )
    own = plan.test.pair_domains() == "code"
    median = float(np.median(margins.margins(plan.test)[own]))
    facts = study.sweeps["code"]
    assert facts["lambdas"][1] == 0.3
    assert facts["margins"]["target"][1][2] == pytest.approx(median, abs=1e-5)


def test_the_order_of_domains_changes_nothing(plan, study, data, base, home):
    turned = EncoderMergePlan(data, TINY, base, targets={"math": "math", "code": "code"})
    assert [arm.folder for arm in turned.arms] == [arm.folder for arm in plan.arms]
    turned.targets = turned.targets[::-1]
    turned.store = plan.store
    other = turned.run(n_resamples=50)
    assert list(other.sweeps) == ["math", "code"]
    for name in other.sweeps:
        for kind in ("sweeps", "base_sweeps", "static_sweeps"):
            a, b = ({k: v for k, v in getattr(s, kind)[name].items() if k != "seconds"} for s in (study, other))
            assert a == b
    weights = [0.8, 0.05, 0.15]
    folders = [study.tuned[n].folder for n in (arms.GENERAL, "math", "code")]
    one = study.tuned_margins(study.merged(folders, weights), plan.test)
    two = study.tuned_margins(study.merged([folders[0], *folders[:0:-1]], [weights[0], *weights[:0:-1]]), plan.test)
    np.testing.assert_allclose(one, two, atol=1e-6)


# -- the choice of lambda -----------------------------------------------------------------------------------------------


def prefs_of(outcome: list[float], domain: str = "math") -> EmbeddedPreferences:
    n = len(outcome)
    responses = EmbeddedResponses(
        {},
        np.repeat(np.arange(n), 2),
        domain=np.array([domain] * n, dtype=object),
        group=np.array([f"g{i}" for i in range(n)], dtype=object),
    )
    return EmbeddedPreferences(responses, np.arange(2 * n).reshape(n, 2), outcome=np.array(outcome))


def test_of_equal_lambdas_the_smallest_is_chosen():
    assert choose(np.array([0.5, 0.7, 0.7, 0.6])) == 1
    assert choose(np.array([0.7, 0.7 + 1e-15, 0.7])) == 0
    # one pair of ten thousand is a difference
    assert choose(np.array([0.7, 0.7001])) == 1
    np.testing.assert_array_equal(choose(np.array([[0.1, 0.2], [0.2, 0.1]])), [1, 0])


def test_lambda_is_chosen_on_labelled_validation_pairs_of_the_target_alone():
    prefs = prefs_of([1.0, 1.0, 1.0, 0.5])
    # right at lambda 0: one of three; at 0.5: two; at 1: one. The tie would make lambda 1 the best.
    validation = np.array([[1, -1, -1, 0], [1, 1, -1, 0], [-1, -1, 1, 9]], dtype=float)
    test = np.array([[1, 1, 1, 1], [-1, -1, 1, 1], [-1, -1, -1, -1]], dtype=float)
    facts = sweep_facts([0.0, 0.5, 1.0], validation, prefs, test, prefs, ["math"], n_resamples=200)
    assert facts["chosen"]["lambda"] == 0.5
    assert facts["chosen"]["index"] == 1
    assert facts["validation"]["n_pairs"] == 3
    assert [c["value"] for c in facts["test"]["target"]] == pytest.approx([1.0, 1 / 3, 0.0])
    assert facts["change"]["target"][1]["value"] == pytest.approx(-2 / 3)
    assert facts["test"]["others"] is None
    assert facts["compared"]["others"] is None
    assert 0.0 <= facts["chosen"]["low"] <= 0.5 <= facts["chosen"]["high"] <= 1.0


def test_other_domains_count_once_each_and_pairs_of_the_target_once_each():
    domains = ["math", "gsm", "gsm", "gsm", "a", "b", "b", "b"]
    n = len(domains)
    prefs = EmbeddedPreferences.from_arrays(
        np.zeros((2 * n, 1)), np.arange(2 * n).reshape(n, 2), prompt_of=np.arange(2 * n) // 2, domain=domains
    )
    margins = np.array([np.ones(n), [1, -1, -1, -1, -1, 1, 1, 1]])
    facts = sweep_facts([0.0, 1.0], margins, prefs, margins, prefs, ["math", "gsm"], n_resamples=20)
    assert facts["test"]["target"][1]["value"] == pytest.approx(1 / 4)
    assert facts["test"]["others"][1]["value"] == pytest.approx(1 / 2)
    assert facts["change"]["others"][1]["value"] == pytest.approx(-1 / 2)


def test_other_labels_in_the_test_split_change_no_choice(plan, study, data, base):
    test = data.response_splits()[data.pairs["chosen"].to_numpy()] == "test"
    pairs = data.pairs.copy()
    pairs.loc[test, ["chosen", "rejected"]] = data.pairs.loc[test, ["rejected", "chosen"]].to_numpy()
    turned = EncoderMergePlan(PreferenceDataset(data.prompts.copy(), data.responses.copy(), pairs), TINY, base)
    turned.store = plan.store
    other = turned.run(n_resamples=50)
    assert [arm.folder for arm in turned.arms] == [arm.folder for arm in plan.arms]
    for name in study.sweeps:
        for kind in ("sweeps", "base_sweeps", "static_sweeps"):
            a, b = getattr(study, kind)[name], getattr(other, kind)[name]
            assert a["chosen"] == b["chosen"]
            assert a["validation"] == b["validation"]
            assert [c["value"] for c in b["test"]["target"]] == pytest.approx(
                [1 - c["value"] for c in a["test"]["target"]]
            )


@pytest.mark.parametrize(("split", "said"), [("validation", "lambda is chosen on"), ("test", "merging is judged by")])
def test_an_asked_for_target_without_pairs_to_choose_or_judge_by_is_refused_before_tuning(
    data, base, home, split, said, monkeypatch
):
    monkeypatch.setattr(TunedEncoder, "fit", lambda *args, **options: pytest.fail("tuned"))
    pairs = data.pairs.copy()
    gone = (data.response_splits()[pairs["chosen"].to_numpy()] == split) & (data.pair_domains() == "code")
    pairs.loc[gone, "outcome"] = 0.5
    lacking = PreferenceDataset(data.prompts.copy(), data.responses.copy(), pairs)
    with pytest.raises(InvalidInputError, match=rf"{said} {split} pairs .* code \(code\) has none"):
        EncoderMergePlan(lacking, TINY, base, targets={"code": "code", "math": "math"})


def test_what_cannot_be_tuned_or_has_no_general_pairs_is_refused(data, base, home):
    with pytest.raises(InvalidInputError, match="cannot be tuned"):
        EncoderMergePlan(data, TINY, load_encoder("hashing"))
    with pytest.raises(InvalidInputError, match="objective of a domain encoder"):
        EncoderMergePlan(data, TINY, base, objective="bradley-terry")
    splits = data.response_splits()[data.pairs["chosen"].to_numpy()]
    rows = np.flatnonzero((splits != "train") | (data.pair_domains() != "shirt"))
    with pytest.raises(InvalidInputError, match="training pairs of general domains"):
        EncoderMergePlan(data.subset(rows), TINY, base)


# -- kept and found again -----------------------------------------------------------------------------------------------


def test_a_second_run_tunes_and_encodes_nothing(plan, study, data, base, monkeypatch):
    monkeypatch.setattr(TunedEncoder, "fit", lambda *args, **options: pytest.fail("tuned again"))
    monkeypatch.setattr(SentenceEncoder, "encode", lambda *args, **options: pytest.fail("encoded again"))
    monkeypatch.setattr(MergedEncoder, "_merged", lambda *args: pytest.fail("merged again"))
    again = EncoderMergePlan(data, TINY, base)
    again.store = plan.store
    assert "all 3 are tuned already" in again.estimate()
    other = again.run(n_resamples=50)
    assert list(other.claims) == study.claims


def test_other_settings_text_or_pairs_have_folders_of_their_own(plan):
    general, domain = plan.arms[0], plan.arms[1]
    others = [
        replace(general, config=replace(general.config, epochs=3)),
        replace(general, data=general.data.subset(np.arange(6)).compact()),
        replace(domain, config=replace(domain.config, objective="contrastive")),
        replace(domain, data=domain.data[:-1], groups=domain.groups[:-1]),
        replace(domain, groups=tuple(reversed(domain.groups))),
    ]
    folders = [arm.folder for arm in (general, domain, *others)]
    assert len(set(folders)) == len(folders)
    same = replace(general, config=replace(general.config, checkpoint_every=7, threads=2))
    assert same.folder == general.folder


# -- static tables ------------------------------------------------------------------------------------------------------


def test_a_static_table_is_the_weighted_vector_of_each_token_alone(study, home, tmp_path):
    from safetensors.numpy import load_file

    from embedrm.tuning.base import TrainableBase

    encoder = study.general.joint_encoder()
    tokens = TrainableBase(encoder).tokens
    weights = token_weights(tokens, ["a red house", "loud"], ["red red house", "red"])
    vocabulary = tokens.backend.get_vocab()
    share = {"red": 0.75, "house": 0.25, "a": 0.0, "loud": 0.0}
    for word, p in share.items():
        assert weights[vocabulary[word]] == pytest.approx(SIF_A / (SIF_A + p))
    assert np.flatnonzero(weights).tolist() == sorted(vocabulary[w] for w in share)
    place = make_static(encoder, weights, tmp_path)
    table = load_file(place / "model.safetensors")["embedding.weight"]
    alone = encoder.encode(["red"], (study.layer,))[study.layer][0]
    np.testing.assert_allclose(table[vocabulary["red"]], alone * weights[vocabulary["red"]], atol=1e-6)
    assert not table[weights == 0].any()
    text = SentenceEncoder(str(place)).encode(["red loud house"], ("final",))["final"][0]
    rows = [table[vocabulary[w]] for w in ("red", "loud", "house")]
    np.testing.assert_allclose(text, np.mean(rows, axis=0), atol=1e-6)
    assert make_static(encoder, weights, tmp_path) == place


def test_static_margins_are_linear_in_lambda(study):
    medians = study.static_sweeps["math"]
    assert medians["lambdas"] == list(TINY.lambdas)
    assert all(np.isfinite(medians["margins"]["target"]).ravel())


# -- claims and report --------------------------------------------------------------------------------------------------


def fake(lam: float, own: float, other: float, half: float = 0.005) -> dict:
    def cell(value: float) -> dict:
        return {"value": value, "low": value - half, "high": value + half}

    return {
        "chosen": {"lambda": lam, "low": lam, "high": lam},
        "compared": {"target": {"micro": cell(own)}, "others": {"macro": cell(other)}},
    }


def test_verdicts_follow_from_intervals():
    gold = {"math": {"value": 0.1, "low": 0.05, "high": 0.2}}
    claims = judge_merging(
        {"math": fake(0.3, 0.1, 0.0), "code": fake(0.0, 0.0, -0.1, 0.0)}, {"math": fake(0.3, -0.1, 0)}, gold
    )
    verdicts = {claim["id"]: claim["verdict"] for claim in claims}
    assert verdicts == {
        "dogerm-rises-math": HOLDS,
        "dogerm-rises-code": FAILS,
        "dogerm-keeps-others-math": HOLDS,
        "dogerm-keeps-others-code": FAILS,
        "dogerm-best-lambda": FAILS,
        "dogerm-best-of-n-math": HOLDS,
        "dogerm-second-architecture-math": FAILS,
    }
    assert {c["id"]: c["setting"] for c in claims}["dogerm-second-architecture-math"] == "analogue"


def test_the_report_shows_all_and_facts_are_plain(study):
    json.dumps(study.facts())
    report = Report("reproduction", "t", summary=study.findings())
    study.add_sections(report)
    report.to_dict()
    tables = {table.name for section in report.sections for table in section.tables}
    assert {
        *("merging-encoders", "merging-kinds", "merging-base", "merging-static", "merging-methods", "merging-tuning"),
        *("merging-cost", "best-of-n-math", "best-of-n-code"),
    } <= tables
    figures = {figure.name for section in report.sections for figure in section.figures}
    assert {"merging-curve-math", "merging-domains-code", "merging-margins-math", "merging-base-curves"} <= figures
    assert all(claim["verdict"] in VERDICTS for claim in study.claims)
    assert len(study.claims) == 2 + 2 + 1 + 2 + 2
    models = [row["model"] for row in study.together["rows"]]
    assert models[0] == "general alone"
    assert models[-1] == "all merged"
    assert len(models) == 4
    assert sum(study.together["weights"].values()) <= 1
    assert {row["method"] for row in study.methods} >= {"linear", "slerp", "ties", "dare_linear", "breadcrumbs"}


def test_all_domains_at_once_share_one_merge(plan, study, monkeypatch):
    # whatever was chosen in so small a study
    monkeypatch.setattr(study, "lambdas", lambda: {name: 0.3 + 0.4 * i for i, name in enumerate(study.sweeps)})
    together = study._together()
    chosen, folders = study.lambdas(), [study.tuned[name].folder for name in study.sweeps]
    shares = [lam / len(chosen) for lam in chosen.values()]
    assert together["weights"] == dict(zip(chosen, shares))
    weights = [1 - sum(shares), *shares]
    encoder = MergedEncoder([str(study.general.folder), *map(str, folders)], weights, **study._limits())
    expected = pair_credit(study.tuned_margins(encoder, plan.test))[~study.test.ties].mean()
    row = next(row for row in together["rows"] if row["model"] == "all merged")
    assert row["micro"]["value"] == pytest.approx(expected)


def test_best_of_n_reads_all_graded_candidates(plan, study):
    for name, one in study.best_of_n.items():
        data = plan.candidates[name]
        assert set(data.prompts["split"]) == {"test"}
        assert set(data.prompts["domain"]) == {name}
        assert one.facts()["candidates"]["by_k"] == {"3": len(data.prompts)} or one.facts()["ns"][-1] == 3


def test_movements_are_those_of_the_weights(study):
    from safetensors.numpy import load_file

    base = load_file(Path(study.plan.config.base) / "model.safetensors")
    general, math = (load_file(study.tuned[n].folder / "model.safetensors") for n in (arms.GENERAL, "math"))
    both = [n for n in base if n in general and not n.startswith("pooler") and base[n].dtype.kind == "f"]
    flat = [np.concatenate([(m[n].astype(float) - base[n]).ravel() for n in both]) for m in (general, math)]
    cosine = flat[0] @ flat[1] / np.linalg.norm(flat[0]) / np.linalg.norm(flat[1])
    assert study.moved["math"]["cosine"] == pytest.approx(cosine, abs=1e-3)
    assert study.moved[arms.GENERAL]["cosine"] is None
    assert study.moved[arms.GENERAL]["length"] > 0
