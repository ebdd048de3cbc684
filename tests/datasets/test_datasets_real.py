"""Published preference data, where a copy is at hand."""

import os
from pathlib import Path

import pytest

from embedrm.datasets import read_preferences

FOLDER = os.environ.get("EMBEDRM_REAL_DATA", "")
FILES = sorted(Path(FOLDER).glob("*.jsonl.gz")) if FOLDER else []

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FILES, reason="EMBEDRM_REAL_DATA does not name a folder with real data (*.jsonl.gz)"),
]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name.split(".")[0])
def test_a_real_file_loads_without_a_bad_row(path):
    data = read_preferences(path)
    summary = data.summary()
    assert summary["skipped"]["rows"] == 0
    form = summary["files"][0]["form"]
    expected = {"attr": "unpaired", "kwise": "kwise"}.get(path.name.split("_")[0], "pair")
    assert form == expected
    if form == "pair":
        # Nothing is lost: a row of the file is a pair.
        assert data.n_pairs == summary["files"][0]["rows"]
        assert summary["total"]["disagreements"] == summary["total"]["repeated_pairs"] == 0
    assert summary["total"]["responses_in_pairs"] == (0 if form == "unpaired" else data.n_responses) or form == "kwise"
    assert {"train", "test"} <= set(summary["splits"])
    # What splits divide is at most the same question in other words.
    assert summary.get("group_leak", {"exact": 0})["exact"] == 0


def test_a_new_split_of_all_files_together_divides_no_group():
    data = read_preferences([path for path in FILES if not path.name.startswith(("attr", "kwise"))])
    split = data.with_split(random_state=1)
    assert (split.prompts.groupby("group")["split"].nunique() == 1).all()
    assert (split.prompts.groupby("prompt")["split"].nunique() == 1).all()
