"""The tables: their check, subsets, texts, covariates, templates."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from datasets_files import row
from hypothesis import given
from hypothesis import strategies as st

from embedrm.datasets import PLAIN, PreferenceDataset, Template
from embedrm.datasets.covariates import measure
from embedrm.errors import InvalidInputError


def tables():
    prompts = pd.DataFrame({"prompt": ["p", "q"], "domain": ["x", "y"]})
    responses = pd.DataFrame({"response": ["a", "b", "c", "d"], "prompt_of": [0, 0, 1, 1]})
    pairs = pd.DataFrame({"chosen": [0, 3, 0], "rejected": [1, 2, 3]})
    return {"prompts": prompts, "responses": responses, "pairs": pairs}


def make(**changed):
    return PreferenceDataset(**{**tables(), **changed})


def changed(table, **columns):
    return {table: tables()[table].assign(**columns)}


def test_missing_columns_get_their_defaults_and_types():
    data = make()
    assert list(data.prompts) == ["prompt", "domain", "group", "system", "context", "source", "split"]
    assert list(data.responses)[:3] == ["response", "prompt_of", "gold"]
    assert data.pairs.dtypes.astype(str).to_dict() == {
        "chosen": "int64",
        "rejected": "int64",
        "weight": "float64",
        "margin": "float64",
        "outcome": "float64",
    }
    assert data.responses["gold"].isna().all()
    assert (data.n_prompts, data.n_responses, data.n_pairs, len(data)) == (2, 4, 3, 3)
    assert data.domains == ("x", "y")
    assert data.pair_domains().tolist() == ["x", "y", "x"]
    assert data.response_domains().tolist() == ["x", "x", "y", "y"]


def test_an_index_of_the_frames_is_not_a_row_number():
    frames = tables()
    frames["responses"].index = [7, 7, 9, 1]
    assert PreferenceDataset(**frames).fingerprint() == make().fingerprint()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"prompts": [1]}, "expected a pandas DataFrame, got list"),
        ({"prompts": pd.DataFrame({"text": ["p"]})}, "missing: prompt; unknown: text"),
        (changed("prompts", prompt=["p", 3]), "prompts table, row 1: prompt must be a string, got int"),
        (changed("prompts", prompt=["p", None]), "row 1: prompt must be a string"),
        (changed("prompts", system=pd.Series(["", "\ud800"], dtype=object)), "row 1: system holds half"),
        (changed("prompts", prompt="p", domain="x"), "row 1: the same prompt and domain as row 0"),
        (changed("prompts", group=["", "g"]), "row 0: group is empty"),
        (changed("prompts", split=["train", "dev"]), "row 1: split must be one of"),
        (changed("prompts", group="g", split=["train", "test"]), "1 groups are in more than one split"),
        (changed("prompts", extra=1), "unknown: extra"),
        (changed("responses", prompt_of=[0, 0, 1, 2]), "row 3: prompt_of is 2, and the prompts table has 2 rows"),
        (changed("responses", prompt_of=[0, 0, 1, -1]), "row 3: prompt_of is -1"),
        (changed("responses", prompt_of=[0, 0, 1, 0.5]), "prompt_of must hold whole numbers"),
        (changed("responses", response=["a", "a", "c", "d"]), "row 1: the same text and prompt as row 0"),
        (changed("responses", response=["a", "", "c", "d"]), "row 1: response is empty"),
        (changed("responses", gold=[0, 1, 2, np.inf]), "row 3: gold must be finite or NaN"),
        (changed("responses", gold=["a", "b", "c", "d"]), "gold must be numeric"),
        (changed("responses", words="many"), "words must be numeric"),
        (changed("pairs", chosen=[0, 3, 4]), "row 2: chosen is 4"),
        (changed("pairs", rejected=[0, 2, 3]), "row 0: chosen and rejected are one response"),
        (changed("pairs", weight=[1, -1, 1]), "row 1: weight is below zero"),
        (changed("pairs", weight=[1, np.nan, 1]), "row 1: weight must be finite"),
        (changed("pairs", outcome=[1, 1, 0.4]), r"row 2: outcome must lie in \[0.5, 1\]; swap the pair"),
        (changed("pairs", margin=[1, -np.inf, 1]), "row 1: margin must be finite"),
        (
            changed("prompts", split=["train", "test"]),
            "row 2: chosen and rejected belong to prompts of different splits",
        ),
        ({"info": []}, "info a dict"),
    ],
)
def test_every_rule_is_checked_and_named_by_table_and_row(wrong, message):
    with pytest.raises(InvalidInputError, match=message):
        make(**wrong)


def test_an_empty_reply_can_be_scored_but_not_learnt_from():
    data = make(responses=tables()["responses"].assign(response=["a", "b", "c", ""]), pairs=tables()["pairs"][:1])
    assert data.responses["characters"].tolist() == [1, 1, 1, 0]


def test_subsets_share_the_tables_and_slice_pairs():
    data = PreferenceDataset.from_records([row(i) for i in range(10)])
    by_row = data.subset([3, 1, 1, -1])
    assert by_row.pairs["chosen"].tolist() == [6, 2, 2, 18]
    assert by_row.prompts is data.prompts
    assert by_row.responses is data.responses
    mask = np.arange(10) % 2 == 0
    assert data.subset(mask).pairs.equals(data.subset(np.flatnonzero(mask)).pairs)
    assert data.subset(slice(0, 10, 2)).pairs.equals(data.subset(mask).pairs)
    assert data.subset([]).n_pairs == 0
    for wrong in ([10], [-11], mask[:5], [0.5], [[1]], ["a"]):
        with pytest.raises(InvalidInputError, match="subset"):
            data.subset(wrong)


def test_split_returns_the_pairs_of_that_split():
    data = PreferenceDataset.from_records([row(i, split="test" if i < 3 else "train") for i in range(10)])
    assert data.split("test").pairs["chosen"].tolist() == [0, 2, 4]
    assert data.split("train").n_pairs == 7
    with pytest.raises(InvalidInputError, match="the data have train, test"):
        data.split("validation")
    with pytest.raises(InvalidInputError, match="Did you mean 'train'"):
        data.split("trian")


def test_compact_keeps_what_pairs_need_and_the_other_candidates():
    data = PreferenceDataset.from_records(
        [{"prompt": f"p{i}", "responses": ["a", "b", "c"], "gold": [0, 1, 1 + i]} for i in range(3)]
    )
    assert (data.n_prompts, data.n_responses, data.n_pairs) == (3, 9, 8)
    part = data.subset([2]).compact()
    assert (part.n_prompts, part.n_responses, part.n_pairs) == (1, 3, 1)
    assert part.prompts["prompt"].tolist() == ["p1"]
    assert part.info["compacted"] == {"prompts": 2, "responses": 6, "responses_with_gold": 6}
    PreferenceDataset(part.prompts, part.responses, part.pairs)
    with pytest.raises(InvalidInputError, match="nothing would be left"):
        data.subset([]).compact()


def test_pairs_across_prompts_count_as_one_group():
    data = make()
    assert len(set(data.pair_groups())) == 1
    assert len(set(data.subset([0, 1]).pair_groups())) == 2
    assert data.summary()["total"]["pairs_across_prompts"] == 1


def test_texts_by_the_template():
    data = PreferenceDataset.from_records([row(1, system="Be brief.", context="A passage."), row(2)])
    assert data.prompt_texts() == ["Be brief.\n\nWhat is 1?\n\nA passage.", "What is 2?"]
    assert data.response_texts()[:2] == ["It is the number 1.", "Nobody knows 1."]
    assert data.joint_texts()[2] == "What is 2?\n\nIt is the number 2."
    labelled = Template("labelled", ("context", "prompt"), context_label="C: ", response_label="A: ", separator="\n")
    assert data.joint_texts(labelled)[0] == "C: A passage.\nWhat is 1?\nA: It is the number 1."


def test_a_text_without_a_prompt_is_its_own_joint_text():
    data = PreferenceDataset.from_records([{"text": "a", "label": 1}])
    assert data.joint_texts() == ["a"]


def test_turns():
    assert PLAIN.turns([("user", "a")]) == "a"
    turns = [("user", "a"), ("assistant", "b"), ("tool", "t"), ("user", "c")]
    assert PLAIN.turns(turns) == "Human: a\n\nAssistant: b\n\nTool: t\n\nHuman: c"


def test_a_templates_fingerprint_changes_with_every_field():
    other = {
        "order": ("prompt",),
        "system_label": "S: ",
        "context_label": "C: ",
        "response_label": "R: ",
        "separator": "\n",
        "turn_labels": (("user", "U: "),),
        "name": "other",
    }
    assert set(other) == set(PLAIN.fingerprint())
    for name, value in other.items():
        assert Template(**{name: value}).fingerprint() != PLAIN.fingerprint()
    for order in [(), ("system",), ("prompt", "prompt"), ("prompt", "text")]:
        with pytest.raises(InvalidInputError, match="order"):
            Template(order=order)


def test_covariates_by_hand():
    table = measure(["", "a 1\n22, б!٣", "no marks"])
    assert table["characters"].tolist() == [0, 11, 8]
    assert table["words"].tolist() == [0, 4, 2]
    assert table["newlines"].tolist() == [0, 1, 0]
    assert np.allclose(table["digits"], [0, 4 / 11, 0])
    assert np.allclose(table["punctuation"], [0, 2 / 11, 0])


@given(st.lists(st.text(), min_size=1, max_size=3))
def test_covariates_against_a_count_character_by_character(texts):
    import unicodedata

    table = measure(texts)
    for text, digits, marks in zip(texts, table["digits"], table["punctuation"]):
        kinds = [unicodedata.category(char) for char in text]
        assert digits * max(len(text), 1) == pytest.approx(kinds.count("Nd"))
        assert marks * max(len(text), 1) == pytest.approx(sum(kind[0] in "PS" for kind in kinds))


def test_given_covariates_are_kept():
    measured = make().responses
    frame = measured.assign(words=[9, 9, 9, 9], tokens=[1, 2, 3, 4])
    again = make(responses=frame)
    assert again.responses["words"].tolist() == [9] * 4
    assert again.responses["tokens"].tolist() == [1, 2, 3, 4]


def test_the_template_can_be_had_without_pandas():
    code = "import sys, embedrm.datasets.template; sys.exit('pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
