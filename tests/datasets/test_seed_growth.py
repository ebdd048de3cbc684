"""Tables of the seed data set, and that the set can grow without moving what is there."""

import pytest

from embedrm.datasets.seed import DOMAINS, generate
from embedrm.datasets.seed.items import combine, deal, rng, split_of
from embedrm.datasets.seed.records import load, parse
from embedrm.errors import DataError


def test_fields_blocks_and_remarks():
    records = parse("# remark\nid: a\ncode:\n  def f():\n      # kept\n      pass\ntest: 1\ntest: 2\n\n\nid: b\n", "t")
    assert [record["id"] for record in records] == ["a", "b"]
    assert records[0]["code"] == "def f():\n    # kept\n    pass"
    assert records[0].all("test") == ["1", "2"]
    assert records[0].all("none") == []
    assert records[1].place == "t:11"


@pytest.mark.parametrize(
    "text, message",
    [
        ("id: a\nnonsense", "t:2"),
        ("two words: a", "t:1"),
        ("id: a\n\nid: a", "occurs twice"),
        ("q: a", "'id' once"),
        ("id: a\nid: b", "'id' once"),
    ],
)
def test_broken_tables_are_refused_with_their_place(text, message):
    with pytest.raises(DataError, match=message):
        parse(text, "t")


def test_an_unknown_table_is_refused():
    with pytest.raises(DataError, match="none-such"):
        load("none-such")


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_longer_table_changes_no_row(domain, monkeypatch):
    whole = generate.items(domain)
    records = load(domain)
    monkeypatch.setattr(generate, "load", lambda name: records[:37])
    assert generate.items(domain) == whole[:37]


def test_combinations_are_distinct_within_a_round_and_do_not_depend_on_later_ones():
    pools = [["a", "b", "c"], ["x", "y"]]
    first = [tuple(combine(i, pools, "test")) for i in range(6)]
    assert len(set(first)) == 6
    assert [tuple(combine(i, pools, "test")) for i in range(18)][:6] == first
    assert len({tuple(combine(i, pools, "test")) for i in range(6, 12)}) == 6


def test_dealing_gives_every_number_once_a_round():
    assert sorted(deal(i, 5, "k") for i in range(5)) == [0, 1, 2, 3, 4]
    assert sorted(deal(i, 5, "k") for i in range(5, 10)) == [0, 1, 2, 3, 4]


def test_draws_depend_on_their_key_alone():
    assert rng("a", "b").random() == rng("a", "b").random() != rng("a", "c").random()


def test_splits_by_place():
    splits = [split_of(i) for i in range(30)]
    assert splits.count("train") == 18
    assert splits.count("validation") == 3
    assert splits[:10] == splits[10:20]


def test_a_text_at_two_prompts_is_refused(monkeypatch):
    twin = generate.items("science")[:1]
    monkeypatch.setattr(generate, "items", lambda domain: [(f"{domain}/x", "train", twin[0][2])])
    with pytest.raises(DataError, match="text in common"):
        generate.rows()
