"""The committed files of the seed data set: made by the generator, whole, and inside their limits."""

import gzip
import json
import os
import subprocess
import sys
import zlib
from collections import Counter

import pytest

from embedrm.datasets.bundled import bundled_paths, data_folder
from embedrm.datasets.seed import DOMAINS, KWISE_DOMAINS, PAIR_DOMAINS, SOURCE
from embedrm.datasets.seed.card import fill, tables
from embedrm.datasets.seed.generate import FILES, contents, digest, pack
from embedrm.datasets.seed.measure import comparisons, length_only, near_duplicates, shingles, texts

COMMITTED = {path.name: gzip.decompress(path.read_bytes()) for path in bundled_paths("seed")}
ROWS = [json.loads(line) for name in FILES for line in COMMITTED[name].decode().splitlines()]
PAIRS = list(comparisons(ROWS))


@pytest.fixture(scope="module")
def made():
    return contents()


def test_the_generator_makes_the_committed_files(made):
    assert {name: digest(content) for name, content in made.items()} == {
        name: digest(content) for name, content in COMMITTED.items()
    }


def test_the_packed_bytes_are_those_of_the_committed_files(made):
    if "ng" in zlib.ZLIB_RUNTIME_VERSION:
        pytest.skip("zlib-ng packs the same content into other bytes")
    for path in bundled_paths("seed"):
        assert path.read_bytes() == pack(made[path.name])


def test_packed_files_hold_neither_name_nor_time():
    for path in bundled_paths("seed"):
        head = path.read_bytes()[:10]
        assert head[3] == 0, "a flag in the gzip header says that a name or comment follows"
        assert head[4:8] == bytes(4)


@pytest.mark.parametrize("seed, zone", [("1", "Asia/Tokyo"), ("77", "America/Lima")])
def test_generation_depends_on_nothing_around_it(tmp_path, seed, zone):
    checkout = data_folder().parent
    environment = {**os.environ, "PYTHONHASHSEED": seed, "TZ": zone, "LC_ALL": "C", "PYTHONPATH": str(checkout)}
    command = [sys.executable, "-m", "embedrm.datasets.seed", "--out", str(tmp_path)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert {name: gzip.decompress((tmp_path / name).read_bytes()) for name in FILES} == COMMITTED
    again = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert again.stdout.count("(unchanged)") == len(FILES)


def test_a_missing_folder_is_one_line(tmp_path):
    command = [sys.executable, "-m", "embedrm.datasets.seed", "--out", str(tmp_path / "none")]
    environment = {**os.environ, "PYTHONPATH": str(data_folder().parent)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "there is no such folder" in done.stderr
    assert "Traceback" not in done.stderr


def test_rows_have_the_fields_of_their_file():
    shared = {"prompt", "domain", "source", "split", "group", "check", "template"}
    for row in ROWS:
        kwise = row["domain"] in KWISE_DOMAINS
        assert set(row) == shared | ({"responses", "gold"} if kwise else {"chosen", "rejected"})
        assert row["source"] == SOURCE
        assert row["group"].startswith(row["domain"] + "/")
        assert row["template"].split("/")[0] in (*DOMAINS, "facts")
        if kwise:
            assert 4 <= len(row["responses"]) == len(row["gold"]) <= 6
            assert len(set(row["gold"])) > 1


def test_every_text_is_trimmed_and_of_one_prompt():
    owner = {}
    for row in ROWS:
        for text in (row["prompt"], *row.get("responses", (row.get("chosen"), row.get("rejected")))):
            assert text == text.strip() != ""
            assert owner.setdefault(text, row["group"]) == row["group"]


def test_a_group_is_in_one_split_and_the_shares_are_kept():
    split_of = {}
    for row in ROWS:
        assert split_of.setdefault(row["group"], row["split"]) == row["split"]
    for domain in DOMAINS:
        shares = Counter(split for group, split in split_of.items() if group.startswith(domain + "/"))
        total = sum(shares.values())
        assert total >= 90
        assert shares["train"] / total == pytest.approx(0.6, abs=0.02)
        assert shares["validation"] / total == pytest.approx(0.1, abs=0.02)


def test_the_size_keeps_encoding_quick():
    prompts, responses = texts(ROWS)
    assert 1.3 * sum(len(text.split()) for text in (*prompts, *responses)) < 150_000
    assert sum(path.stat().st_size for path in bundled_paths("seed")) < 400 * 1024


def test_length_alone_tells_little_except_where_the_card_says_so():
    by_domain = {domain: length_only(pair for pair in PAIRS if pair[0] == domain) for domain in DOMAINS}
    assert 0.45 <= length_only(PAIRS) <= 0.60
    assert by_domain.pop("explain") > 0.62
    assert by_domain.pop("brief") < 0.40
    assert all(0.44 < value < 0.60 for value in by_domain.values()), by_domain


def test_near_duplicates_are_rare():
    prompts, responses = texts(ROWS)
    assert near_duplicates([(text, text) for text in prompts], 0.7) < 0.01
    assert near_duplicates([(text, group) for text, (_, group) in responses.items()], 0.7) < 0.01


def test_near_duplicates_by_hand():
    # Runs of three words: abc bcd cde against abc bcd cdx share two of four.
    items = [("a b c d e", "1"), ("A b, c d x", "2"), ("p q r s", "3"), ("a b c d e", "1")]
    assert near_duplicates(items, 0.5) == 0.75
    assert near_duplicates(items, 0.51) == 0
    assert shingles("Two words") == {("two", "words")}


def test_length_only_by_hand():
    head = ("d", "test", "p")
    assert length_only([(*head, "a b", "a"), (*head, "a", "b"), (*head, "a", "b c"), (*head, "x", "y")]) == 0.5


def test_comparisons_leave_equal_golds_out():
    row = {"domain": "d", "split": "train", "prompt": "p", "responses": ["a", "b", "c"], "gold": [0.0, 1.0, 0.0]}
    assert [(better, worse) for *_, better, worse in comparisons([row])] == [("b", "a"), ("b", "c")]


def test_conflicting_domains_say_the_same_things_on_opposite_sides():
    from embedrm.datasets.seed.phrases import CAUTION, OFFER

    for domain, good, bad in (("harmful", CAUTION, OFFER), ("benign", OFFER, CAUTION)):
        pairs = [pair for pair in PAIRS if pair[0] == domain]
        for phrases, side, other in ((good, 3, 4), (bad, 4, 3)):
            used = [sum(phrase in pair[side] for pair in pairs) for phrase in phrases]
            assert min(used) > 0, "a phrase that only one of the two domains uses gives the domain away"
            assert not any(phrase in pair[other] for pair in pairs for phrase in phrases)


def test_no_word_of_the_prompts_gives_a_conflicting_domain_away():
    for one, other in (("brief", "explain"), ("harmful", "benign")):
        asked = {d: {r["prompt"] for r in ROWS if r["domain"] == d} for d in (one, other)}
        words = Counter()
        for side, sign in ((one, 1), (other, -1)):
            for prompt in asked[side]:
                for word in set(prompt.lower().split()):
                    words[word] += sign
        # If one word decided, it would be in nearly all prompts of one side and in none of the other.
        assert max(abs(count) for count in words.values()) < 0.5 * len(asked[one])


def test_the_card_is_up_to_date():
    card = (data_folder() / "README.md").read_text(encoding="utf-8")
    assert fill(card, tables(ROWS, COMMITTED)) == card


def test_the_pair_and_kwise_files_hold_their_domains():
    for name, domains in zip(FILES, (PAIR_DOMAINS, KWISE_DOMAINS)):
        assert {json.loads(line)["domain"] for line in COMMITTED[name].decode().splitlines()} == set(domains)
