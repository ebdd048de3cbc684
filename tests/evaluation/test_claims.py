"""Verdicts follow from intervals by one rule."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedrm import Report
from embedrm.errors import InvalidInputError
from embedrm.evaluation.claims import FAILS, HOLDS, UNDECIDED, Claim, Region
from embedrm.reporting.claims import claims_table

HIGHER = Region(least=0.0)
COMPARABLE = Region(least=-0.01, most=0.01)
IDENTICAL = Region(0.0, 0.0, closed=True)


@pytest.mark.parametrize(
    ("region", "low", "high", "verdict"),
    [
        (HIGHER, 0.001, 0.02, HOLDS),
        (HIGHER, 0.0, 0.02, UNDECIDED),
        (HIGHER, -0.01, 0.02, UNDECIDED),
        (HIGHER, -0.02, 0.0, FAILS),
        (HIGHER, 0.0, 0.0, FAILS),
        (COMPARABLE, -0.009, 0.009, HOLDS),
        (COMPARABLE, -0.009, 0.01, UNDECIDED),
        (COMPARABLE, 0.005, 0.03, UNDECIDED),
        (COMPARABLE, -0.03, 0.03, UNDECIDED),
        (COMPARABLE, 0.01, 0.03, FAILS),
        (COMPARABLE, -0.03, -0.02, FAILS),
        (IDENTICAL, 0.0, 0.0, HOLDS),
        (IDENTICAL, 1e-300, 1e-300, FAILS),
        (IDENTICAL, -1.0, 1.0, UNDECIDED),
        (Region(0.2, 0.5, closed=True), 0.2, 0.5, HOLDS),
        (Region(0.2, 0.5), 0.2, 0.5, UNDECIDED),
    ],
)
def test_verdicts_counted_by_hand(region, low, high, verdict):
    assert region.verdict(low, high) == verdict


@given(st.lists(st.floats(-10, 10), min_size=4, max_size=4), st.booleans(), st.floats(0, 1))
def test_a_wider_interval_never_turns_a_verdict_round(four, closed, share):
    least, most = sorted(four[:2])
    low, high = sorted(four[2:])
    if least == most and not closed:
        return
    region = Region(least, most, closed)
    inner = low + share * (high - low)
    narrow, wide = region.verdict(inner, inner), region.verdict(low, max(high, inner))
    assert {narrow, wide} != {HOLDS, FAILS}
    if wide in (HOLDS, FAILS):
        assert narrow == wide


def test_empty_and_backward_regions_and_intervals_are_refused():
    for bad in ({"least": 1.0, "most": 0.0}, {"least": 0.0, "most": 0.0}, {"least": math.nan}):
        with pytest.raises(InvalidInputError, match="region"):
            Region(**bad)
    with pytest.raises(InvalidInputError, match="low <= high"):
        HIGHER.verdict(1.0, 0.0)
    with pytest.raises(InvalidInputError, match="low <= high"):
        HIGHER.verdict(math.nan, 0.0)


def claim(region=HIGHER, **changes):
    made = {"id": "better", "statement": "A is better", "source": "a paper", "setting": "analogue", "quantity": "A - B"}
    return Claim(**made | changes, region=region)


def test_a_judged_claim_says_everything():
    facts = claim().judge(0.02, 0.01, 0.03)
    assert facts == {
        "id": "better",
        "statement": "A is better",
        "source": "a paper",
        "setting": "analogue",
        "quantity": "A - B; the claim: above 0",
        "measured": 0.02,
        "interval": [0.01, 0.03],
        "verdict": HOLDS,
    }
    assert claim(IDENTICAL).judge(0.0)["interval"] == [0.0, 0.0]
    assert "exactly 0" in claim(IDENTICAL).judge(0.0)["quantity"]
    with pytest.raises(InvalidInputError, match="finite"):
        claim().judge(math.nan)
    with pytest.raises(InvalidInputError, match="setting"):
        claim(setting="copy")


def cell(value, half):
    return {"value": value, "low": value - half, "high": value + half}


def test_several_parts_hold_together_or_not():
    good, poor, open_ = cell(0.05, 0.01), cell(-0.05, 0.01), cell(0.001, 0.01)
    assert claim().all_of([good, good])["verdict"] == HOLDS
    assert claim().all_of([good, open_])["verdict"] == UNDECIDED
    shown = claim().all_of([good, open_, poor])
    assert (shown["verdict"], shown["measured"]) == (FAILS, -0.05)
    # of equal verdicts the part nearest to the outside is shown
    assert claim().all_of([cell(0.05, 0.01), cell(0.02, 0.01)])["measured"] == 0.02
    with pytest.raises(InvalidInputError, match="at least one part"):
        claim().all_of([])


def test_claims_travel_with_a_report():
    facts = claim().judge(0.02, 0.01, 0.03)
    report = Report("reproduction", "A paper", claims=[facts])
    report.add_section("Claims", tables=[claims_table(report.claims)])
    assert report.to_dict()["claims"] == [facts]
    assert Report.from_json(report.to_json()).claims == [facts]
    assert "holds" in report.text()
    assert "A is better" in report.html()
