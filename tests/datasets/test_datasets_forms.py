"""Every form of a row on examples that can be counted by hand."""

import math

import pytest
from datasets_files import row, write_jsonl

from embedrm.datasets import PreferenceDataset, load_hf, read_preferences
from embedrm.errors import DataError, InvalidInputError


def read(*rows, **options):
    return PreferenceDataset.from_records(rows, **options)


def texts(data):
    """[(system, prompt, chosen, rejected), ...] of the pairs."""
    prompt = data.prompts.iloc[data.responses["prompt_of"].to_numpy()[data.pairs["chosen"].to_numpy()]]
    chosen, rejected = (data.responses["response"].to_numpy()[data.pairs[side]] for side in ("chosen", "rejected"))
    return list(zip(prompt["system"], prompt["prompt"], chosen, rejected))


def refused(*rows, **options):
    with pytest.raises(DataError) as caught:
        read(*rows, **options)
    assert caught.value.path == "records"
    return caught.value


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def test_pair_fields_reach_their_tables():
    data = read(
        row(
            1,
            domain="maths",
            system="Be brief.",
            context="A passage.",
            source="us",
            split="dev",
            weight=2,
            margin="0.5",
            outcome=0.75,
            gold_chosen=3,
            gold_rejected=1,
        )
    )
    assert data.info["files"][0]["form"] == "pair"
    prompt = data.prompts.iloc[0]
    assert prompt[["prompt", "domain", "system", "context", "source", "split"]].tolist() == [
        "What is 1?",
        "maths",
        "Be brief.",
        "A passage.",
        "us",
        "validation",
    ]
    assert data.pairs.iloc[0].tolist() == [0, 1, 2.0, 0.5, 0.75]
    assert data.responses["gold"].tolist() == [3.0, 1.0]


def test_absent_fields_have_their_defaults():
    data = read(row(1, margin=None, weight="", split=""))
    assert data.pairs["weight"].tolist() == [1.0]
    assert math.isnan(data.pairs["margin"][0])
    assert data.pairs["outcome"].tolist() == [1.0]
    assert data.prompts[["domain", "system", "context", "source", "split"]].iloc[0].tolist() == [
        "default",
        "",
        "",
        "",
        "",
    ]


def test_a_prompt_and_a_response_are_one_row_however_often_they_occur():
    data = read(
        {"prompt": "p", "chosen": "a", "rejected": "b"},
        {"prompt": "p", "chosen": "a", "rejected": "c"},
        {"prompt": "p", "chosen": "b", "rejected": "c"},
        {"prompt": "p", "chosen": "a", "rejected": "b", "domain": "other"},
    )
    assert (data.n_prompts, data.n_responses, data.n_pairs) == (2, 5, 4)
    assert data.pairs[["chosen", "rejected"]].to_numpy().tolist() == [[0, 1], [0, 2], [1, 2], [3, 4]]
    assert data.domains == ("default", "other")
    assert data.pair_domains().tolist() == ["default"] * 3 + ["other"]
    assert len(set(data.pair_groups())) == 1


def test_system_and_context_are_part_of_a_prompts_identity():
    data = read(row(1), row(1, system="s"), row(1, context="c"), row(1, system="s"))
    assert data.n_prompts == 3
    # A system text does not make another question; a context does.
    assert data.prompts["group"].nunique() == 2


def test_vote_share_below_half_swaps_the_sides():
    data = read(
        {"prompt": "p", "chosen": "a", "rejected": "b", "vote_share": 0.25, "gold_chosen": 1, "gold_rejected": 5},
        {"prompt": "q", "chosen": "a", "rejected": "b", "vote_share": 0, "margin": -2},
        {"prompt": "r", "chosen": "a", "rejected": "b", "vote_share": 0.5},
    )
    assert [pair[2:] for pair in texts(data)] == [("b", "a"), ("b", "a"), ("a", "b")]
    assert data.pairs["outcome"].tolist() == [0.75, 1.0, 0.5]
    assert data.pairs["margin"][1] == 2.0
    assert data.responses["gold"].tolist()[:2] == [5.0, 1.0]
    assert data.info["counts"] == {"pairs swapped because the outcome favoured rejected": 2}
    assert data.column_note() == "columns: vote_share -> outcome"


def test_margin_against_the_outcome_is_refused():
    assert "margin favours chosen" in str(refused(row(1, outcome=0.2, margin=1.0)))


@pytest.mark.parametrize(("ties", "pairs"), [("auto", 2), ("keep", 2), ("drop", 1)])
def test_stated_ties(ties, pairs):
    data = read(row(1), row(2, outcome=0.5), ties=ties)
    assert data.n_pairs == pairs
    assert data.info["counts"].get("ties dropped", 0) == 2 - pairs
    assert data.summary()["total"]["ties"] == pairs - 1


def test_nothing_but_dropped_ties_is_an_error():
    assert "ties='keep'" in str(refused(row(1, outcome=0.5), ties="drop"))


@pytest.mark.parametrize(
    ("chosen", "rejected", "expected"),
    [
        ("The sky is blue.", "The sky is green.", ("The sky is", "blue.", "green.")),
        # Words are not divided, and neither side is left empty.
        ("Say it: black", "Say it: blue", ("Say it:", "black", "blue")),
        ("Q: why? A: yes", "Q: why? A: yes, and more", ("Q: why? A:", "yes", "yes, and more")),
        ("Q?\nyes  ", "Q?\nyes indeed", ("Q?", "yes", "yes indeed")),
    ],
)
def test_implicit_prompt_in_texts(chosen, rejected, expected):
    data = read({"chosen": chosen, "rejected": rejected})
    assert data.info["files"][0]["form"] == "implicit"
    assert texts(data) == [("", *expected)]


def test_implicit_prompt_needs_a_shared_beginning():
    assert "share no beginning" in str(refused({"chosen": "Yes.", "rejected": "No."}))


CHAT = [user("Hi"), assistant("Hello"), user("Name a colour")]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        # implicit: the prompt is what both sides begin with
        (
            {"chosen": [*CHAT, assistant("Red")], "rejected": [*CHAT, assistant("No")]},
            ("", "Human: Hi\n\nAssistant: Hello\n\nHuman: Name a colour", "Red", "No"),
        ),
        # explicit: the prompt is a list, the sides hold the reply alone
        (
            {"prompt": [user("Name a colour")], "chosen": [assistant("Red")], "rejected": [assistant("No")]},
            ("", "Name a colour", "Red", "No"),
        ),
        # a prompt as text beside sides that repeat it
        (
            {
                "prompt": "Name a colour",
                "chosen": [user("Name a colour"), assistant("Red")],
                "rejected": [user("Name a colour"), assistant("No")],
            },
            ("", "Name a colour", "Red", "No"),
        ),
        # a system message, and content in blocks
        (
            {
                "prompt": [
                    {"role": "system", "content": "Be kind."},
                    {"role": "user", "content": [{"type": "text", "text": "Name"}, {"type": "text", "text": "one"}]},
                ],
                "chosen": [assistant("Red")],
                "rejected": [assistant("No")],
            },
            ("Be kind.", "Name\n\none", "Red", "No"),
        ),
        # the other usual spelling of a message
        (
            {
                "chosen": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}],
                "rejected": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Go away"}],
            },
            ("", "Hi", "Hello", "Go away"),
        ),
    ],
)
def test_conversational(fields, expected):
    data = read(fields)
    assert data.info["files"][0]["form"] == "conversational"
    assert texts(data) == [expected]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"chosen": [user("a"), assistant("b")], "rejected": [user("x"), assistant("c")]}, "differ before their last"),
        ({"chosen": [user("a")], "rejected": [user("a")]}, "not the assistant's"),
        ({"chosen": [assistant("b")], "rejected": [assistant("c")]}, "no message comes before"),
        ({"chosen": [], "rejected": [user("a")]}, "empty list"),
        ({"chosen": ["b"], "rejected": ["c"]}, "must be an object, got a string"),
        ({"chosen": [{"role": "user"}], "rejected": []}, "lacks role or content"),
        ({"chosen": [{"role": "pirate", "content": "a"}], "rejected": []}, "the role 'pirate'"),
        ({"chosen": [user([{"type": "image"}])], "rejected": []}, "not text"),
        ({"chosen": [user(None)], "rejected": []}, "is null"),
        ({"prompt": "other", "chosen": [user("a"), assistant("b")], "rejected": [user("a"), assistant("c")]}, "begins"),
        (
            {
                "system": "one",
                "chosen": [{"role": "system", "content": "two"}, user("a"), assistant("b")],
                "rejected": [{"role": "system", "content": "two"}, user("a"), assistant("c")],
            },
            "system field and the system message differ",
        ),
        (
            {"prompt": [{"role": "system", "content": "s"}], "chosen": [assistant("b")], "rejected": [assistant("c")]},
            "no user message",
        ),
    ],
)
def test_conversational_refusals(fields, message):
    assert message in str(refused(fields))


def test_chat_and_plain_text_of_one_question_are_one_prompt():
    plain = read({"prompt": "Name a colour", "chosen": "Red", "rejected": "No"})
    chat = read({"prompt": [user("Name a colour")], "chosen": [assistant("Red")], "rejected": [assistant("No")]})
    assert plain.fingerprint() == chat.fingerprint()


def test_transcripts_are_split_at_the_last_assistant_turn():
    before = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Name a colour"
    data = read(
        {"chosen": f"{before}\n\nAssistant: Red", "rejected": f"{before}\n\nAssistant: No"},
        {"chosen": "\n\nHuman: Only one?\n\nAssistant: Yes\n", "rejected": "\n\nHuman: Only one?\n\nAssistant: No"},
    )
    assert data.info["files"][0]["form"] == "hh-rlhf"
    assert texts(data) == [("", before.strip(), "Red", "No"), ("", "Only one?", "Yes", "No")]


@pytest.mark.parametrize(
    ("chosen", "rejected", "message"),
    [
        ("\n\nHuman: a\n\nAssistant: b", "\n\nHuman: x\n\nAssistant: c", "differ before"),
        ("\n\nHuman: a\n\nAssistant: b", "\n\nHuman: a", "no Assistant turn"),
        ("\n\nHuman: a\n\nAssistant: b", "\n\nHuman: a\n\nAssistant: ", "is empty"),
        ("\n\nHuman: \n\nAssistant: b", "\n\nHuman: \n\nAssistant: c", "is empty"),
    ],
)
def test_transcript_refusals(chosen, rejected, message):
    error = refused({"chosen": chosen, "rejected": rejected}, form="hh-rlhf")
    assert message in str(error)
    assert error.line == 1


def test_kwise_pairs_every_two_of_different_gold():
    data = read({"prompt": "p", "responses": ["a", "b", "c", "d"], "gold": ["1.5", 3, 1.5, 0]}, domain="d")
    assert data.info["files"][0]["form"] == "kwise"
    assert data.responses["gold"].tolist() == [1.5, 3.0, 1.5, 0.0]
    found = {(pair[2], pair[3], gap) for pair, gap in zip(texts(data), data.pairs["margin"])}
    assert found == {("b", "a", 1.5), ("a", "d", 1.5), ("b", "c", 1.5), ("b", "d", 3.0), ("c", "d", 1.5)}
    assert data.info["counts"] == {"pairs of equal gold left out": 1}


def test_kwise_ties_are_kept_when_asked():
    data = read({"prompt": "p", "responses": ["a", "b"], "gold": [1, 1]}, ties="keep")
    assert data.pairs[["margin", "outcome"]].to_numpy().tolist() == [[0.0, 0.5]]
    assert data.info["counts"] == {}


def test_kwise_repeats():
    data = read({"prompt": "p", "responses": ["a", "a", "b"], "gold": [1, 1, 0]})
    assert (data.n_responses, data.n_pairs) == (2, 1)
    assert data.info["counts"] == {"repeated responses of a K-wise row merged": 1}
    assert "another gold" in str(refused({"prompt": "p", "responses": ["a", "a"], "gold": [1, 0]}))


@pytest.mark.parametrize(
    ("responses", "gold", "message"),
    [
        (["a", "b"], [1], "2 responses and 1 gold"),
        ([], [], "0 responses"),
        ("ab", [1, 2], "must be a list, got a string"),
        (["a", "b"], {"x": 1}, "must be a list, got an object"),
        (["a", 2], [1, 2], "response 2 must be a string, got a number"),
        (["a", " "], [1, 2], "response 2 is empty"),
        (["a", "b"], [1, None], "gold 2 must be a number, got null"),
        (["a", "b"], [1, math.nan], "gold 2 must be finite, got NaN"),
        (["a", "b"], [1, "many"], "got the text 'many'"),
        (["a", "b"], [1, 10**400], "beyond the range"),
        (["a", "b"], [1e308, -1e308], "too far apart"),
        (["a", "b"], [1, True], "must be a number, got a boolean"),
    ],
)
def test_kwise_refusals(responses, gold, message):
    assert message in str(refused({"prompt": "p", "responses": responses, "gold": gold}))


def test_golds_of_one_response_in_several_rows_are_averaged_and_counted():
    one = {"prompt": "p", "responses": ["a", "b"], "gold": [4, 1]}
    other = {"prompt": "p", "responses": ["a", "b"], "gold": [2, 1]}
    data = read(one, other, one)
    assert data.responses["gold"].tolist() == [3.0, 1.0]
    assert data.info["counts"] == {"responses whose different golds were averaged": 1}
    assert read(other, one, one).responses["gold"].tolist() == [3.0, 1.0]


def test_unpaired_texts_become_responses_with_gold():
    data = read(
        {"text": "good", "label": True, "attribute": "tone", "split": "train"},
        {"text": "bad", "label": "0", "attribute": "tone", "split": "test"},
        {"text": "Bad!", "label": 0, "attribute": "tone", "split": "test"},
    )
    assert data.info["files"][0]["form"] == "unpaired"
    assert (data.n_responses, data.n_pairs, data.domains) == (3, 0, ("tone",))
    assert data.responses["gold"].tolist() == [1.0, 0.0, 0.0]
    assert data.response_splits().tolist() == ["train", "test", "test"]
    # Each text is its own group, but for those that are nearly equal.
    assert data.prompts["group"].nunique() == 2
    assert data.column_note() == "columns: attribute -> domain"


def test_scored_responses_of_prompts():
    data = read(
        {"prompt": "p", "completion": "a", "label": False},
        {"prompt": "p", "completion": "b", "label": True},
    )
    assert (data.n_prompts, data.n_responses) == (1, 2)


def test_a_label_must_be_a_number():
    assert "got the text 'toxic'" in str(refused({"text": "a", "label": "toxic"}))


def test_given_values_take_the_place_of_columns():
    data = read(row(1, domain="x", split="nonsense"), domain="maths", split="test", source="ours")
    assert data.prompts[["domain", "split", "source"]].iloc[0].tolist() == ["maths", "test", "ours"]
    assert data.info["unused_columns"] == {"records": ["domain", "split"]}
    assert data.info["set"] == {"domain": "maths", "split": "test", "source": "ours"}


# -- columns ---------------------------------------------------------------------------------------------------------


def test_usual_names_are_recognised_and_told():
    data = read({"Question": "p", "better": "a", "worse-response": "b", "extra": 1, "": 2})
    assert texts(data) == [("", "p", "a", "b")]
    assert data.column_note() == "columns: Question -> prompt, better -> chosen, worse-response -> rejected"
    assert data.info["unused_columns"] == {"records": ["extra", ""]}


def test_two_candidates_are_an_error_that_names_both():
    fields = {"instruction": "p", "input": "q", "chosen": "a", "rejected": "b"}
    message = str(refused(fields))
    assert "'instruction' and 'input' could both be the prompt" in message
    assert "--column prompt=instruction" in message
    data = read(fields, columns={"prompt": "instruction", "context": "input"})
    assert data.prompts[["prompt", "context"]].iloc[0].tolist() == ["p", "q"]


def test_the_fields_own_name_wins():
    data = read({"prompt": "p", "question": "q", "chosen": "a", "rejected": "b"})
    assert texts(data)[0][1] == "p"
    assert data.info["unused_columns"]["records"] == ["question"]


def test_a_field_can_be_denied_a_column():
    rows = row(1, category="x", subset="y")
    assert "could both be the domain" in str(refused(rows))
    assert read(rows, columns={"domain": None}).domains == ("default",)


def test_a_late_optional_column_is_read_and_a_late_extra_is_listed():
    rows = [row(i) for i in range(1200)] + [row(1200, margin=2.0, remark="x")]
    data = read(*rows)
    assert data.pairs["margin"].tolist()[-1] == 2.0
    assert data.info["unused_columns"]["records"] == ["remark"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"columns": {"promt": "a"}}, "Did you mean 'prompt'"),
        ({"columns": {"prompt": "chosen", "context": "chosen"}}, "given to two fields"),
        ({"columns": {"prompt": 3}}, "must be a column name"),
        ({"columns": {"domain": "x"}, "domain": "y"}, "contradict"),
        ({"form": "pairs"}, "unknown form 'pairs'"),
        ({"on_error": "ignore"}, "unknown on_error"),
        ({"ties": "half"}, "unknown ties"),
        ({"split": "dev"}, "unknown split 'dev'"),
        ({"domain": " "}, "domain must be a name"),
        ({"max_errors_shown": "all"}, "max_errors_shown"),
        ({"froms": 1}, "unknown option 'froms'"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(InvalidInputError, match="(?s)" + message.replace("(", "\\(")):
        read(row(1), **options)


def test_a_column_that_is_not_there():
    error = refused(row(1), columns={"prompt": "promtp"})
    assert "Did you mean 'prompt'" in str(error)


def test_columns_that_fit_no_form():
    assert "fit no known form" in str(refused({"a": 1, "b": 2}))
    assert "form 'kwise' needs the field 'responses'" in str(refused(row(1), form="kwise"))
    both = {"prompt": "p", "chosen": "a", "rejected": "b", "responses": ["a", "b"], "gold": [1, 0]}
    assert "'pair' and 'kwise'" in str(refused(both))
    assert read(both, form="kwise").n_pairs == 1
    # Columns with the fields' own names decide against those that only could be meant.
    assert read(row(1, response="x", score=1)).info["unused_columns"]["records"] == ["response", "score"]


# -- objects ---------------------------------------------------------------------------------------------------------


class FakeHub:
    """What is needed of a hub data set: iteration over dict rows."""

    def __init__(self, rows):
        self.rows = rows

    def __iter__(self):
        return iter(self.rows)


def test_hub_objects():
    data = load_hf(FakeHub([row(1), row(2)]), split="test", name="hub")
    assert data.n_pairs == 2
    parts = load_hf({"train": FakeHub([row(1)]), "dev": FakeHub([row(2)])}, name="hub")
    assert sorted(parts.prompts["split"]) == ["train", "validation"]
    assert [entry["path"] for entry in parts.info["files"]] == ["hub[train]", "hub[dev]"]
    with pytest.raises(InvalidInputError, match="train_prefs"):
        load_hf({"train_prefs": FakeHub([row(1)])})
    with pytest.raises(InvalidInputError, match="loaded"):
        load_hf("someone/something")
    with pytest.raises(DataError, match=r"hub:2: a record must be a mapping"):
        load_hf(FakeHub([row(1), 3]), name="hub")


def test_the_real_package_where_it_is_installed():
    package = pytest.importorskip("datasets", reason="the optional package datasets is not installed")
    assert load_hf(package.Dataset.from_list([row(1), row(2)])).n_pairs == 2


def test_numpy_and_decimal_values():
    from decimal import Decimal

    import numpy as np

    data = read(row(1, margin=np.float32(0.5), weight=Decimal("2.5"), group=np.str_("g")))
    assert data.pairs[["weight", "margin"]].iloc[0].tolist() == [2.5, 0.5]
    assert data.prompts["group"].tolist() == ["g"]


def test_several_files_in_one_call(tmp_path):
    one = write_jsonl(tmp_path / "one.jsonl", [row(1), row(2)])
    other = write_jsonl(tmp_path / "two.jsonl.gz", [{"question": "q", "chosen": "a", "rejected": "b"}])
    data = read_preferences([one, str(other)])
    assert (data.n_pairs, data.name) == (3, "one+two")
    assert data.column_note() == f"columns: question -> prompt in {other}"
