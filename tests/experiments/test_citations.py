"""What is cited: entries that BibTeX reads, everything that a run used, and nothing that it did not."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from embedrm.experiments.bibliography import ENTRIES, bibtex
from embedrm.experiments.citations import paper_citations, run_citations, toolkit
from embedrm.experiments.papers import PAPERS

NEEDED = {
    "article": {"author", "title", "journal", "year"},
    "inproceedings": {"author", "title", "booktitle", "year"},
    "misc": {"author", "title", "year", "eprint", "archiveprefix"},
    "software": {"author", "title", "version"},
}


def entries(text: str) -> list[tuple[str, str, dict[str, str]]]:
    """Read BibTeX by its grammar: kind, key, and fields in braces that balance."""
    out, place = [], 0
    while found := re.compile(r"\s*@(\w+)\{([\w-]+),\s*").match(text, place):
        place, fields = found.end(), {}
        while field := re.compile(r"(\w+)\s*=\s*\{").match(text, place):
            depth, end = 1, field.end()
            while depth:
                depth += {"{": 1, "}": -1}.get(text[end], 0)
                end += 1
            fields[field[1]] = text[field.end() : end - 1]
            place = re.compile(r"\s*,?\s*").match(text, end).end()  # type: ignore[union-attr]
        assert text[place] == "}"
        place += 1
        out.append((found[1], found[2], fields))
    assert not text[place:].strip()
    return out


def test_every_paper_has_entries_that_bibtex_reads() -> None:
    assert set(ENTRIES) == set(PAPERS.names())
    keys = []
    for one in [*paper_citations(), toolkit()]:
        for kind, key, fields in entries(one["bibtex"]):
            assert NEEDED[kind] <= set(fields), key
            assert all(fields.values())
            keys.append(key)
    assert len(set(keys)) == len(keys)


def test_entries_agree_with_what_is_said_of_the_papers() -> None:
    plain = str.maketrans("", "", "{}-:,")
    for one in paper_citations():
        said = one["cite"].lower().translate(plain)
        kind, _, fields = entries(one["bibtex"])[0]
        for name in fields["author"].split(" and "):
            assert name.partition(",")[0].translate(plain).lower() in said
        if kind != "article":  # an article has the title of its last version
            assert fields["title"].lower().translate(plain) in said
    assert bibtex("unknown2030") is None


def kept(folder: Path, *experiments: dict) -> str:
    folder.mkdir()
    base = {"status": "ok", "seed": 0, "settings": {}, "metrics": {"test": {"micro": 0.5}}}
    lines = [json.dumps({**base, "fingerprint": f"f{i}", "experiment": one}) for i, one in enumerate(experiments)]
    (folder / "trials.jsonl").write_text("\n".join(lines) + "\n")
    return str(folder)


def cited(run: str) -> dict[tuple[str, str], str]:
    return {(one["kind"], one["what"]): one["cite"] for one in run_citations(run)}


def test_parts_of_all_variants_each_once(tmp_path: Path) -> None:
    smoothed = {"head": {"name": "linear", "objective": "bt-smoothed"}, "data": "domains", "encoder": "hashing"}
    routed = {"model": "routed", "data": "hh-rlhf.jsonl.gz"}
    found = cited(kept(tmp_path / "a", smoothed, routed, routed))
    assert {("data", "domains"), ("data", "hh-rlhf.jsonl.gz"), ("encoder", "hashing")} <= set(found)
    assert ("encoder", "all-MiniLM-L6-v2") in found
    assert "Namgoong" in found["model", "routed"]
    one = cited(f"{tmp_path / 'a'}:f0")
    assert ("model", "routed") not in one
    assert ("encoder", "all-MiniLM-L6-v2") not in one


def test_a_release_is_cited_in_place_of_files_and_an_encoder(tmp_path: Path) -> None:
    release = {"data": {"release": "released/a"}, "encoder": {"name": "hashing", "sides": ["response"]}}
    found = cited(kept(tmp_path / "a", release))
    assert [key for key in found if key[0] in ("data", "encoder")] == [("data", "released/a")]


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    found = cited(kept(tmp_path / "a", {"head": "of-another-version"}, {"head": "linear"}))
    assert ("model", "linear") in found
    [(what, cite)] = [(what, cite) for (kind, what), cite in found.items() if kind == "unread"]
    assert what.startswith("1 of 2 variants")
    assert "of-another-version" in cite


@pytest.mark.parametrize("line", ['{"x": 1}', "no json", '{"fingerprint": "a", "status": "ok"}'])
def test_another_file_of_that_name_is_told_apart(tmp_path: Path, line: str) -> None:
    from embedrm.errors import DataError
    from embedrm.experiments.runs import find_runs, remove_run

    (tmp_path / "trials.jsonl").write_text(line + "\n")
    (tmp_path / "data.json").write_text("[1]")
    assert find_runs(tmp_path) == []
    with pytest.raises(DataError, match="something else"):
        remove_run(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.json", "trials.jsonl"]
