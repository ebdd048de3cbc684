"""Generated attribute texts: the same to the letter, halves and splits apart, labels that nothing but the words tells."""

from __future__ import annotations

import hashlib
import re
from collections import Counter

import numpy as np
import pytest

from embedrm.datasets.attribute_texts import grammar_digest, tables, write_attribute_texts
from embedrm.datasets.attribute_texts.draws import Draw, fill, spell
from embedrm.datasets.attribute_texts.writing import place_of
from embedrm.datasets.domains.extras.attributes import grade
from embedrm.errors import DataError, InvalidInputError

# Of the first 400 texts; to be changed with the grammar, and the version of its code where that changes.
DIGEST = "167cc364f1e56b820f1a992fcbf3ca6e"


@pytest.fixture(scope="module")
def many():
    return write_attribute_texts(4000)


def length(texts):
    return texts.str.count(" ") + 1


class TestTable:
    def test_the_same_to_the_letter(self, many):
        few = write_attribute_texts(400)
        assert few.equals(many.head(400))
        assert hashlib.blake2b("\n".join(few["text"]).encode(), digest_size=16).hexdigest() == DIGEST

    def test_columns(self, many):
        assert list(many) == ["text", "attribute", "label", "score", "topic", "group", "split", "half"]
        assert many["attribute"].value_counts().to_dict() == {"sentiment": 2000, "politeness": 2000}
        assert many.groupby(["attribute", "score"]).size().tolist() == [800, 400, 800] * 2
        assert many["text"].is_unique
        assert many["group"].is_unique
        labelled = many["score"] != 0.5
        assert (many.loc[labelled, "label"] == many.loc[labelled, "score"]).all()
        assert many.loc[~labelled, "label"].isna().all()

    def test_halves_and_splits_share_no_text_whatever_the_seed(self, many):
        seen = {}
        for half in "AB":
            for split in ("train", "validation", "test"):
                for seed in (0, 1):
                    table = write_attribute_texts(60, half=half, split=split, random_state=seed)
                    assert set(table["half"]) == {half}
                    assert set(table["split"]) == {split}
                    for text in table["text"]:
                        assert seen.setdefault(text, (half, split)) == (half, split)
        a, b = (write_attribute_texts(60, random_state=seed)["text"] for seed in (0, 1))
        assert len(set(a) & set(b)) < 5
        for row in many.head(50).itertuples():
            assert place_of(row.text) == (row.half, row.split, row.group)

    def test_shares_of_halves_and_splits(self):
        count = Counter(place_of(f"text {i}")[:2] for i in range(4000))
        for (_, split), n in count.items():
            assert n / 4000 == pytest.approx(0.4 if split == "train" else 0.05, abs=0.02)
        assert len(count) == 6

    def test_one_attribute_alone(self, many):
        alone = write_attribute_texts(100, attributes=["politeness"])
        both = many[many["attribute"] == "politeness"].head(100).reset_index(drop=True)
        assert alone.equals(both)
        assert len(write_attribute_texts(0)) == 0

    def test_bad_requests(self):
        for options, said in (
            ({"half": "C"}, "half"),
            ({"split": "heldout"}, "split"),
            ({"n": -1}, "n must be"),
            ({"n": 2.0}, "n must be"),
            ({"random_state": True}, "random_state"),
            ({"attributes": ["sentimant"]}, "Did you mean 'sentiment'"),
            ({"attributes": "sentiment"}, "different names"),
            ({"attributes": []}, "different names"),
            ({"attributes": ["sentiment", "sentiment"]}, "different names"),
        ):
            with pytest.raises(InvalidInputError, match=said):
                write_attribute_texts(**{"n": 2, **options})


class TestLabels:
    def test_length_and_topic_do_not_tell(self, many):
        """A classifier that reads the topic and the length, with their products, is at chance on texts it has not seen."""
        from sklearn.linear_model import LogisticRegression

        for name in ("sentiment", "politeness"):
            part = many[(many["attribute"] == name) & many["label"].notna()]
            topics = np.unique(part["topic"], return_inverse=True)[1]
            one = np.eye(topics.max() + 1)[topics]
            words = (length(part["text"]).to_numpy()[:, None] - 20) / 7
            letters = (part["text"].str.len().to_numpy()[:, None] - 110) / 40
            order = np.random.default_rng(0).permutation(len(part))
            x, y = np.hstack([one, one * words, words, words**2, letters])[order], part["label"].to_numpy()[order]
            model = LogisticRegression(max_iter=500).fit(x[::2], y[::2])
            assert abs(model.score(x[1::2], y[1::2]) - 0.5) < 0.055  # 800 texts: three standard errors

    def test_lengths(self, many):
        found = length(many["text"])
        assert found.min() == 8
        assert found.max() <= 35
        assert found.groupby(many["score"]).mean().tolist() == pytest.approx([20.4] * 3, abs=0.7)

    def test_openings_are_of_both_labels(self, many):
        reviews = many[(many["attribute"] == "sentiment") & many["label"].notna()]
        first = reviews["text"].str.split().str[:2].str.join(" ")
        told = reviews.groupby(first)["label"].agg(["size", "mean"])
        often = told[told["size"] >= 25]
        assert len(often) >= 10
        assert often["mean"].between(0.25, 0.75).all()
        for opening in ("Could you ", "Would you ", "You asked about ", "Your message about ", "Good morning, "):
            messages = many[many["text"].str.startswith(opening)]
            assert 0.15 < messages["label"].mean() < 0.85, opening

    def test_cues_agree(self, many):
        """The lexicon was made for other texts, and does not know "anything but dull"."""
        for name in ("sentiment", "politeness"):
            part = many[many["attribute"] == name].head(1000)
            count = Counter(_grade(row.text, name, row.score) for row in part.itertuples())
            assert count["lexicon agrees"] > 850
            assert count["contradicts"] < 80

    def test_the_evidence_is_spread(self, many):
        """Cut in the middle of its words, a review tells its label on either side more often than not."""
        cues = tables_cues()
        part = many[(many["attribute"] == "sentiment") & many["label"].notna() & (length(many["text"]) > 16)].head(400)
        for side in (0, 1):
            told = 0
            for row in part.itertuples():
                words = row.text.split()
                good, bad = cues.find(" ".join(words[: len(words) // 2] if side == 0 else words[len(words) // 2 :]))
                told += (len(good) > len(bad)) if row.label else (len(bad) > len(good))
            assert told / len(part) > 0.5


def tables_cues():
    from embedrm.datasets.domains.extras.cues import SENTIMENT

    return SENTIMENT


def _grade(text, name, score):
    try:
        return grade(text, name, score)
    except DataError:
        return "contradicts"


class TestLanguage:
    def test_spelling(self, many):
        for text in many["text"]:
            assert re.fullmatch(r"[A-Z].*[.?!]", text), text
            assert not re.search(r"[{}~|_]|  | [,.;:?!]|[.?!,:;][.,;:]|[.?!] [a-z]|\b(\w+) \1\b", text), text
            assert not re.search(
                r"\b[Aa] [aeio]\w|\b[Aa] un[^i]|\b[Aa]n [^aeiouh]|\b[Aa]n (?:use|one|uni[vq])", text
            ), text

    def test_verbs_agree(self, many):
        plurals = sorted({noun for topic in tables.REVIEWS for side in tables.table(topic).values()
                          for noun in side.get("many", ())})  # fmt: skip
        assert len(plurals) > 60
        wrong = re.compile(
            rf"\b(?:{'|'.join(map(re.escape, plurals))}),?(?: which)? was\b|\b[Ww]e (?:was|am)\b|\bI (?:were|are)\b"
        )
        assert not [text for text in many["text"] if wrong.search(text.replace("Those", "those"))]
        singular = {
            noun for topic in tables.REVIEWS for side in tables.table(topic).values() for noun in side.get("one", ())
        }
        wrong = re.compile(rf"\b(?:{'|'.join(map(re.escape, sorted(n for n in singular if '{' not in n)))}) were\b")
        assert not [text for text in many["text"] if wrong.search(text)]

    def test_articles(self):
        assert spell("a awful evening. a hour. a uninspired, a useful and a unique one?.") == (
            "An awful evening. An hour. An uninspired, a useful and a unique one?"
        )
        assert fill("{a} and {b}", {"a": "x", "b": "y"}) == "x and y"

    def test_a_draw_rather_takes_what_is_new(self):
        draw = Draw("seed")
        first = [draw.one(("x", "y")) for _ in range(2)]
        again = Draw("seed")
        assert [again.one(("x", "y")) for _ in range(2)] == first
        counts = Counter()
        for _ in range(200):
            draw.new_text()
            counts[draw.one(("x", "y")) == draw.one(("x", "y"))] += 1
        assert counts[True] < 40
        assert sorted(draw.several("abc", 5)) == list("abc")


class TestTables:
    def test_every_topic_has_what_reviews_need(self):
        for name in tables.REVIEWS:
            sides = dict(tables.table(name))
            topic, whole = sides.pop(name), sides.pop("whole")
            for field in ("head", "it", "seen", "waiting", "setting", "verdict_mixed"):
                assert topic[field], (name, field)
            for field in ("attr", "verdict", "reaction"):
                assert len(topic[f"{field}_good"]) >= 3
                assert len(topic[f"{field}_bad"]) >= 3
            assert "many" not in whole
            assert len(sides) >= 7
            for side, fields in [("whole", whole), *sides.items()]:
                assert set(fields) <= {"one", "many", "good", "bad", "does_good", "does_bad"}, (name, side)
                assert abs(len(fields["good"]) - len(fields["bad"])) <= 1, (name, side)
                assert ("does_good" in fields) is ("does_bad" in fields), (name, side)
                both = set(fields["good"]) & set(fields["bad"])
                assert not both, (name, side, both)

    def test_every_situation_has_what_messages_need(self):
        for name, fields in tables.table("situations").items():
            if "matter" in fields:
                assert set(fields) == {"topic", "matter", "news", "ask"}, name
            else:
                assert {"topic", "fact", "ask", "why"} <= set(fields) <= {"topic", "fact", "ask", "why", "when"}, name
                for ask in fields["ask"]:
                    assert re.fullmatch(r"[^|]+ \| \w+ing\b[^|]*", ask), ask

    def test_the_digest_names_the_tables(self, monkeypatch):
        before = grammar_digest()
        assert re.fullmatch("[0-9a-f]{32}", before)
        text = tables._text
        monkeypatch.setattr(tables, "_text", lambda name: text(name) + ("\n# x" if name == "hotel" else ""))
        assert grammar_digest() != before
