"""Experts in the top block: copies of what was there, mixed by a sparse gate on the prompt, tuned, resumed and saved."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from embedrm import PreferenceDataset, SentenceEncoder
from embedrm.datasets.template import PLAIN
from embedrm.errors import InvalidInputError, ModelError
from embedrm.tuning.base import TrainableBase, find_base
from embedrm.tuning.config import TuningConfig
from embedrm.tuning.experts import TopExperts, gate_logits, load_balance, sparse_gates
from embedrm.tuning.loop import Run
from embedrm.tuning.tuned_experts import TunedExperts

PROMPTS = ["name a red shirt.", "name a blue house?", "the house"]


@pytest.fixture(scope="module")
def config(base_folder) -> TuningConfig:
    return TuningConfig(
        base=str(base_folder), method="full", epochs=2, batch_tokens=256, max_length=32, checkpoint_every=3
    )


@pytest.fixture(scope="module")
def tuned(config, preferences, tmp_path_factory) -> TunedExperts:
    return TunedExperts(config, 3).fit(preferences, tmp_path_factory.mktemp("experts") / "more")


def _base(config) -> TrainableBase:
    base = TrainableBase(find_base(config))
    base.model.eval()
    return base


def test_untuned_experts_are_the_base_whatever_the_gates(config):
    base = _base(config)
    ids = base.ids(PROMPTS)
    with torch.no_grad():
        before = base.pooled(ids)
        experts = TopExperts(base, 4)
        gates = torch.tensor([[0.3, 0.7, 0, 0], [0, 0, 0, 1.0], [0.25, 0.25, 0.25, 0.25]])
        after = base.pooled(ids, before=lambda rows: setattr(experts, "gates", gates[rows]))
    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-6)


def test_the_mixture_is_the_weighted_sum_of_what_each_expert_gives(config):
    experts = TopExperts(_base(config), 3)
    draw = torch.Generator().manual_seed(0)
    states = torch.randn(4, 5, 32, generator=draw)
    experts.gates = torch.tensor([[0.5, 0.5, 0], [0, 0.2, 0.8], [1, 0, 0], [0, 0, 1.0]])
    with torch.no_grad():
        for module in (*experts.up, *experts.down):
            for parameter in module.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=draw))
        each = torch.stack([down(up(states)) for up, down in zip(experts.up, experts.down)])
        wanted = torch.einsum("ne,entd->ntd", experts.gates, each)
        torch.testing.assert_close(experts.block.intermediate(states), wanted, rtol=1e-5, atol=1e-5)


def test_the_gate_reads_the_states_that_enter_the_top_block(config, base_folder):
    base = _base(config)
    below = SentenceEncoder(str(base_folder), max_length=32).encode(PROMPTS, (1,))[1]
    with torch.no_grad():
        found = TopExperts(base, 2).prompt_states(base, base.ids(PROMPTS))
    np.testing.assert_allclose(found.numpy(), below, atol=1e-5)


def test_gates_are_a_softmax_over_the_largest_logits():
    gates = sparse_gates(torch.tensor([[0.0, 2.0, 1.0], [3.0, 3.0, -1.0]]), 2)
    e = np.e
    np.testing.assert_allclose(gates.numpy(), [[0, e / (1 + e), 1 / (1 + e)], [0.5, 0.5, 0]], atol=1e-6)
    assert sparse_gates(torch.zeros(2, 1), 2).tolist() == [[1.0], [1.0]]


def test_balance_by_hand():
    sure = 50.0 * torch.eye(2)
    # each prompt's own expert has no other prompt: as even as can be
    assert float(load_balance(sure)) == pytest.approx(0.0, abs=1e-6)
    assert float(load_balance(sure[[0, 0]])) == pytest.approx(2.0)
    assert float(load_balance(sure[[0]])) == 0.0
    # without a preference among many prompts it is one
    draw = torch.Generator().manual_seed(1)
    assert float(load_balance(1e-6 * torch.randn(400, 4, generator=draw))) == pytest.approx(1.0, abs=1e-4)


def test_balance_of_pairs_of_prompts_is_on_average_that_of_all_prompts():
    logits = torch.randn(9, 3, generator=torch.Generator().manual_seed(2)) + torch.tensor([1.0, 0.0, 0.0])
    pairs = [float(load_balance(logits[[i, j]])) for i in range(9) for j in range(i)]
    assert np.mean(pairs) == pytest.approx(float(load_balance(logits)), rel=1e-5)


def test_rewards_are_antisymmetric_and_a_prompt_has_one_decision(tuned, preferences):
    swapped = preferences.pairs.rename(columns={"chosen": "rejected", "rejected": "chosen"})
    other = PreferenceDataset(preferences.prompts, preferences.responses, swapped[preferences.pairs.columns])
    np.testing.assert_allclose(tuned.margins(other), -tuned.margins(preferences), atol=1e-6)
    gates = tuned.gates(preferences.prompt_texts())
    np.testing.assert_allclose(gates.sum(axis=1), 1.0, atol=1e-6)
    assert ((gates > 0).sum(axis=1) == 2).all()
    assert (gates > 0).any(axis=0).all()


def test_margins_are_differences_of_rewards_asked_one_by_one(tuned, preferences):
    texts, prompts = preferences.response_texts(), preferences.prompt_texts()
    margins = tuned.margins(preferences)
    for row in (0, 7):
        pair = preferences.pairs[["chosen", "rejected"]].iloc[row].tolist()
        prompt = prompts[preferences.responses["prompt_of"][pair[0]]]
        a, b = tuned.reward(prompt, [texts[i] for i in pair])
        assert a - b == pytest.approx(margins[row], abs=1e-5)


def test_it_learns_two_domains_that_disagree(base_folder, preferences, tmp_path):
    config = TuningConfig(
        base=str(base_folder), method="full", epochs=12, batch_tokens=256, max_length=32, learning_rate=1e-3
    )
    made = TunedExperts(config, 2).fit(preferences, tmp_path / "more")
    assert (made.margins(preferences) > 0).mean() > 0.9


def test_loaded_it_is_the_same_to_the_bit_and_its_encoder_is_an_ordinary_one(tuned, preferences):
    again = TunedExperts.load(tuned.folder)
    np.testing.assert_array_equal(again.margins(preferences), tuned.margins(preferences))
    assert (again.n_experts, again.k, again.balance) == (3, 2, 0.01)
    vectors = SentenceEncoder(str(tuned.folder / "encoder")).encode(PROMPTS)
    assert all(np.isfinite(v).all() for v in vectors.values())


def test_what_is_saved_is_what_was_tuned(config, preferences, tmp_path):
    made = TunedExperts(config, 2)
    session, _ = made.open_session(preferences)
    rows = np.arange(len(preferences))
    kept = {}
    train = Run.finish

    def finish(run):
        train(run)
        with torch.no_grad():
            kept["loss"] = float(run.problem.loss(run.base, rows, None).total)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "finish", finish)
        made.fit(preferences, tmp_path / "more")
    margins = TunedExperts.load(tmp_path / "more").margins(preferences)
    assert np.logaddexp(0.0, -margins).sum() == pytest.approx(kept["loss"], rel=1e-4)
    assert session.run.n_steps > 6


def test_a_killed_run_goes_on_and_ends_where_an_uninterrupted_one_does(config, preferences, tuned, tmp_path):
    step, taken = Run.take_step, []

    def killed(run):
        if len(taken) == 5:
            raise KeyboardInterrupt
        taken.append(1)
        step(run)

    made = TunedExperts(config, 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "take_step", killed)
        with pytest.raises(KeyboardInterrupt):
            made.fit(preferences, tmp_path / "more")
    assert made.fit(preferences, tmp_path / "more").resumed_at_ == 3
    np.testing.assert_allclose(made.margins(preferences), tuned.margins(preferences), atol=1e-5)


def test_balance_counts_in_training_alone(config, preferences):
    for balance in (0.0, 5.0):
        session, _ = TunedExperts(config, 3, balance=balance).open_session(preferences)
        problem, base = session.problem, session.base
        items = problem.training[:6]
        base.model.eval()
        plain = problem.loss(base, items, None)
        for module in base.model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        base.model.train()
        found = problem.loss(base, items, None)
        added = balance * plain.weight * float(load_balance(problem._logits.detach()))
        assert float(found.total.detach()) == pytest.approx(float(plain.total.detach()) + added, rel=1e-4)


def test_the_gate_gets_gradients_once_experts_differ(config, preferences):
    session, experts = TunedExperts(config, 3, balance=0.0).open_session(preferences)
    with torch.no_grad():
        session.problem.head["reward"].weight.fill_(0.1)
        for parameter in experts.up[1].parameters():
            parameter.mul_(1.5)
    session.problem.loss(session.base, session.problem.training[:8], None).total.backward()
    assert float(session.problem.head["gate"].weight.grad.abs().max()) > 0
    states = session.problem.experts.prompt_states(session.base, session.problem.prompt_ids)
    spread = gate_logits(session.problem.head, states).std(dim=0)
    assert 0.2 < float(spread.mean()) < 3.0


@pytest.mark.parametrize(
    ("changes", "options", "told"),
    [
        ({"method": "lora"}, {}, "method='full' or 'top'"),
        ({"objective": "domain"}, {}, "objective='bradley-terry'"),
        ({}, {"k": 0}, "k must be a whole number"),
        ({}, {"balance": -1.0}, "balance must be"),
    ],
)
def test_senseless_parameters_are_refused(config, changes, options, told):
    with pytest.raises(InvalidInputError, match=told):
        TunedExperts(TuningConfig.from_dict({**config.to_dict(), **changes}), 2, **options)


def test_pairs_across_prompts_and_other_folders_are_refused(config, preferences, tmp_path):
    pairs = preferences.pairs.copy()
    pairs.loc[0, "rejected"] = preferences.n_responses - 1
    across = PreferenceDataset(preferences.prompts, preferences.responses, pairs)
    with pytest.raises(InvalidInputError, match="1 of 80 pairs"):
        TunedExperts(config, 2).open_session(across, PLAIN)
    with pytest.raises(ModelError, match="holds no tuned experts"):
        TunedExperts.load(tmp_path)
    with pytest.raises(InvalidInputError, match="not tuned yet"):
        _ = TunedExperts(config, 2).folder


def test_blocks_of_another_form_are_refused(config):
    base = _base(config)
    del base.blocks()[-1].intermediate
    with pytest.raises(ModelError, match="no separate feed-forward part"):
        TopExperts(base, 2)
