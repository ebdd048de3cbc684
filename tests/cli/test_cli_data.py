"""embedrm data: samples, checks, and the notes on what reading did."""

from __future__ import annotations

import json
from pathlib import Path

import pytest


def _write(name: str, rows: list[dict], header: str = "") -> str:
    Path(name).write_text(header + "".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return name


ROW = {"prompt": "p", "chosen": "good", "rejected": "bad"}


def test_check_counts_domains_splits_ties_and_disagreements(cli) -> None:
    rows = [
        {**ROW, "domain": "a", "split": "train"},
        {"prompt": "p", "chosen": "bad", "rejected": "good", "domain": "a", "split": "train"},
        {**ROW, "prompt": "q", "domain": "a", "split": "test", "outcome": 0.5},
        {**ROW, "prompt": "r", "chosen": "very long", "domain": "b", "split": "test"},
    ]
    outcome = cli("data", "check", _write("d.jsonl", rows))
    assert outcome.code == 0
    assert outcome.err == ""
    lines = {line.split()[0]: line.split() for line in outcome.out.splitlines() if line.strip()}
    # domain, prompts, responses, pairs, ties, both ways, repeated, longer chosen, train, test
    assert lines["a"] == ["a", "2", "4", "3", "1", "1", "0", "50.0%", "2", "1"]
    assert lines["b"] == ["b", "1", "2", "1", "0", "0", "0", "100.0%", "0", "1"]
    assert lines["all"][:4] == ["all", "3", "6", "4"]
    assert "form pair; 4 of 4 rows used" in outcome.out
    assert "1 pairs of responses are judged both ways; they are kept" in outcome.out


def test_check_json_is_the_summary_of_the_python_interface(cli, pairs_file: str) -> None:
    from embedrm import read_preferences

    assert cli(f"data check {pairs_file} --json").json() == read_preferences(pairs_file).summary()


def test_the_applied_mapping_is_told(cli) -> None:
    rows = [{"question": "p", "better": "g", "worse": "b", "note": 1}]
    path = _write("d.jsonl", rows)
    checked = cli("data", "check", path)
    assert "columns: question -> prompt, better -> chosen, worse -> rejected" in checked.out
    assert "columns not used in d.jsonl: note" in checked.out
    shown = cli("data", "show", path)
    assert shown.err == "columns: question -> prompt, better -> chosen, worse -> rejected\n"
    assert cli("data", "show", path, "--quiet").err == ""


def test_a_column_can_be_named_and_declined(cli) -> None:
    rows = [{"q": "p", "prompt": "not this", "chosen": "g", "rejected": "b", "margin": 2}]
    path = _write("d.jsonl", rows)
    (sample,) = cli("data", "show", path, "--column", "prompt=q", "--column", "margin=", "--json").json()
    assert sample["prompt"] == "p"
    assert "margin" not in sample


def test_skipped_rows_are_counted_and_told(cli) -> None:
    rows = [ROW, {**ROW, "prompt": "q", "rejected": "good"}, {"prompt": "r", "chosen": 3, "rejected": "x"}]
    path = _write("d.jsonl", rows)
    raised = cli("data", "check", path)
    assert raised.code == 2
    assert raised.out == ""
    first, *rest = raised.err.splitlines()
    assert first.startswith("error: d.jsonl:2: ")
    assert rest[0].startswith("  d.jsonl:3: ")
    assert "--on-error skip" in raised.err
    assert "on_error=" not in raised.err
    skipped = cli("data", "check", path, "--on-error", "skip")
    assert skipped.code == 0
    assert "1 of 3 rows used" in skipped.out
    assert "reading: skipped 2 bad rows" in skipped.out
    shown = cli("data", "show", path, "--on-error", "skip")
    assert "reading: skipped 2 bad rows" in shown.err
    assert "d.jsonl:2" in shown.err


def test_max_errors_shown_limits_the_lines(cli) -> None:
    path = _write("d.jsonl", [{"prompt": f"p{i}", "chosen": "x", "rejected": "x"} for i in range(30)])
    assert len(cli("data", "check", path, "--max-errors-shown", "2").err.splitlines()) == 4
    assert len(cli("data", "check", path).err.splitlines()) == 22


def test_show_prints_every_domain_and_can_print_one(cli, pairs_file: str) -> None:
    everything = cli(f"data show {pairs_file} --json").json()
    assert [sample["domain"] for sample in everything] == ["sea", "sea", "tea", "tea"]
    one = cli(f"data show {pairs_file} --domain tea -n 3 --json").json()
    assert [sample["domain"] for sample in one] == ["tea"] * 3
    text = cli(f"data show {pairs_file} --domain tea -n 1").out
    assert text.startswith("── tea (pair row ")
    for label in ("prompt:", "chosen:", "rejected:"):
        assert f"\n{label}" in text
    wrong = cli(f"data show {pairs_file} --domain teq")
    assert wrong.code == 2
    assert "Did you mean 'tea'?" in wrong.err


def test_show_shortens_long_texts_and_says_by_how_much(cli) -> None:
    path = _write("d.jsonl", [{**ROW, "chosen": "word " * 400}])
    assert "[1,400 more characters; --full shows them]" in cli("data", "show", path).out.replace("\n           ", " ")
    full = cli("data", "show", path, "--full").out
    assert full.count("word") == 400


def test_show_does_not_send_control_characters_to_the_terminal(cli) -> None:
    path = _write("d.jsonl", [{**ROW, "chosen": "\x1b[31mred\x1b[0m \u202eback"}])
    out = cli("data", "show", path).out
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert "\\x1b[31mred" in out


def test_responses_without_pairs_are_shown_with_their_gold(cli) -> None:
    path = _write("d.jsonl", [{"text": "a", "label": 0.25}, {"text": "b", "label": 1}])
    samples = cli("data", "show", path, "--json").json()
    assert [(sample["response"], sample["gold_response"]) for sample in samples] == [("a", 0.25), ("b", 1.0)]


def test_a_name_that_is_neither_file_nor_bundled_gets_the_nearest_name(cli) -> None:
    outcome = cli("data show sede")
    assert outcome.code == 2
    assert outcome.err == "error: unknown data set (and no such file) 'sede'. Did you mean 'seed'? Known: seed.\n"


@pytest.mark.parametrize("words", ["data show seed nothere.jsonl", "data check seed --form kwise", "data show"])
def test_misuse_of_a_bundled_name_is_an_error(cli, words: str) -> None:
    outcome = cli(words)
    assert outcome.code == 2
    assert outcome.err.startswith("error: ")


def test_bundled_data_are_listed_shown_and_checked(cli) -> None:
    (entry,) = [e for e in cli("data list --json").json() if e["name"] == "seed"]
    assert entry["pairs"] > 100
    assert "seed" in cli("data list").out
    shown = cli("data show seed -n 1 --json").json()
    assert [sample["domain"] for sample in shown] == entry["domains"]
    checked = cli("data check seed --json").json()
    assert checked["total"]["pairs"] == entry["pairs"]


def test_a_file_called_seed_wins_over_the_bundled_data(cli) -> None:
    Path("seed").mkdir()
    outcome = cli("data show seed")
    assert outcome.code == 2
    assert "seed: " in outcome.err
