"""Counting parameters: by hand, and by the paper's formulas."""

import lightgbm
import numpy as np
import pytest

from embedrm import EmbeddedPreferences, GBDTHead, LinearHead, MLPHead
from embedrm.errors import InvalidInputError
from embedrm.experiments.accounting import Counted, accounting_rows
from embedrm.parameters import n_parameters


@pytest.fixture(scope="module")
def prefs():
    x = np.random.default_rng(0).normal(size=(60, 5))
    return EmbeddedPreferences.from_arrays(x, np.arange(60).reshape(30, 2))


def test_heads_are_counted_by_hand(prefs):
    assert n_parameters(LinearHead().fit(prefs)) == 5
    # weights and biases of 5-4-3-1; the losses by epoch are no parameters
    mlp = MLPHead(hidden=(4, 3), max_epochs=2, early_stopping=False).fit(prefs)
    assert n_parameters(mlp) == (5 * 4 + 4) + (4 * 3 + 3) + (3 + 1)


def test_trees_are_counted_by_leaves_and_thresholds(prefs):
    head = GBDTHead(max_trees=3, num_leaves=4, early_stopping=False, min_data_in_leaf=3).fit(prefs)
    trees = lightgbm.Booster(model_str=head.booster_).dump_model()["tree_info"]
    leaves = sum(tree["num_leaves"] for tree in trees)
    assert leaves > len(trees) == head.n_trees_
    assert n_parameters(head) == leaves + (leaves - len(trees))
    assert head.parameter_counts()["trees"] == len(trees)


def test_the_papers_formulas():
    encoder, head, router, adapter, trunk, n = 1000, 7, 11, 5, 20, 5
    variants = {
        "single": Counted(head),
        "RODOS": Counted(n * head + router, copies=n + 1),
        "MoRE": Counted(n * head + router),
        "ARLISS": Counted(trunk + (n + 1) * adapter),
    }
    rows = {row["variant"]: row for row in accounting_rows(encoder, variants)}
    assert rows["single"]["paper"] == 1007
    assert rows["RODOS"]["paper"] == 6 * 1000 + 5 * 7 + 11
    assert rows["ARLISS"]["paper"] == 1000 + 20 + 30
    assert rows["RODOS"]["reduction_paper"] == 0.0
    assert rows["ARLISS"]["reduction_paper"] == pytest.approx(1 - 1050 / 6046)
    assert rows["MoRE"]["shared"] == rows["RODOS"]["shared"] == 1046
    assert rows["MoRE"]["reduction_shared"] == 0.0


def test_a_reference_that_is_not_there_is_refused():
    with pytest.raises(InvalidInputError, match="reference 'RODOS'"):
        accounting_rows(10, {"single": Counted(1)})
