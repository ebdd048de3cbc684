"""Progress lines: what they say of slow and fast jobs."""

from __future__ import annotations

import pytest

from embedrm import progress


@pytest.mark.parametrize(
    ("rate", "said"), [(12345.0, "12,345/s"), (10.0, "10/s"), (2.34, "2.3/s"), (0.25, "4.0 s each"), (0.0, "0/s")]
)
def test_a_rate_below_one_is_told_as_seconds(rate, said):
    assert progress._speed(rate) == said


def test_a_line_every_ten_seconds_with_rate_and_time_left(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    lines = []
    step = progress._Lines("tuning", lines.append)
    for done, at in ((1, 5.0), (2, 10.0), (3, 15.0), (5, 20.0)):
        now[0] = at
        step(done, 50)
    assert lines == ["tuning: 2/50, 5.0 s each, 240 s left", "tuning: 5/50, 4.0 s each, 180 s left"]
