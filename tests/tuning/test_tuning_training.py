"""Training: what it learns, that it is the same every time and after a kill, and what it refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import torch
from tuning_base import TEXTS, make_base, make_preferences

from embedrm import PreferenceDataset, TunedEncoder
from embedrm.datasets.template import PLAIN
from embedrm.errors import InvalidInputError, MissingDependencyError, ModelError
from embedrm.tuning.config import TuningConfig
from embedrm.tuning.loop import seeded
from embedrm.tuning.session import open_session

FAST = {"epochs": 3, "batch_tokens": 200, "max_length": 32, "learning_rate": 3e-3, "checkpoint_every": 4}
METHODS = ["lora", "top", "full"]
OBJECTIVES = ["bradley-terry", "domain", "masked-token", "contrastive"]


def tuner(base_folder, **changes):
    return TunedEncoder(base=str(base_folder), **{**FAST, "n_layers": 1, **changes})


def session(base_folder, data, **changes):
    return open_session(tuner(base_folder, **changes).config, data, None, PLAIN)


def weights(folder):
    found = {}
    for name in ("model.safetensors", "tuning_head.safetensors", "adapter/adapter_model.safetensors"):
        if (folder / name).is_file():
            found[name] = (folder / name).read_bytes()
    return found


# -- learning ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_it_learns_a_preference_that_depends_on_the_prompt(base_folder, preferences, tmp_path, method):
    tuned = tuner(base_folder, method=method, epochs=8).fit(preferences, tmp_path / "tuned")
    assert tuned.score(preferences) > 0.9
    losses = [entry["validation_loss"] for entry in tuned.history_]
    assert min(losses) < 0.8 * losses[0]


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_lowers_its_training_loss(base_folder, preferences, tmp_path, objective):
    data = TEXTS * 1 + preferences.response_texts() if objective in OBJECTIVES[2:] else preferences
    tuned = tuner(base_folder, method="full", objective=objective, epochs=6, patience=9).fit(data, tmp_path / "tuned")
    losses = [entry["train_loss"] for entry in tuned.history_]
    assert losses[-1] < 0.95 * losses[0]
    assert [entry["step"] for entry in tuned.history_] == sorted(entry["step"] for entry in tuned.history_)


def test_the_loss_of_pairs_is_that_of_bradley_and_terry(base_folder):
    data = make_preferences(6)
    frame = data.pairs.assign(outcome=[1.0, 0.75, 0.5] * 4, weight=[2.0, 1.0] * 6)
    data = PreferenceDataset(data.prompts, data.responses, frame)
    run = session(base_folder, data, validation_fraction=0.0, method="full", dropout=0.0)
    with torch.no_grad():
        run.problem.head.weight.copy_(torch.linspace(-1, 1, 32)[None])
    run.base.model.eval()
    found = run.problem.loss(run.base, np.arange(12), None)
    # again, one text at a time, from sentence-transformers' own pooling
    rewards = []
    for text in data.joint_texts():
        pooled = run.base.model[1](run.base.model[0](run.base.model.tokenize([text])))["sentence_embedding"]
        rewards.append(float(pooled.detach().numpy()[0] @ np.linspace(-1, 1, 32)))
    margins = np.array([rewards[a] - rewards[b] for a, b in zip(frame["chosen"], frame["rejected"])])
    outcome, weight = frame["outcome"].to_numpy(), frame["weight"].to_numpy()
    want = weight @ (outcome * np.log1p(np.exp(-margins)) + (1 - outcome) * np.log1p(np.exp(margins)))
    assert float(found.total.detach()) == pytest.approx(want, rel=1e-5)
    judged = outcome != 0.5
    assert found.judged == weight[judged].sum()
    assert found.right == pytest.approx((weight * (margins > 0))[judged].sum())


def test_a_response_is_read_once_a_batch_however_many_pairs_it_is_in(base_folder, preferences, monkeypatch):
    run = session(base_folder, preferences, validation_fraction=0.0).run
    read = []
    pooled = run.base.pooled
    monkeypatch.setattr(run.base, "pooled", lambda ids: read.append(len(ids)) or pooled(ids))
    run.problem.loss(run.base, np.array([0, 1, 0]), None)
    assert read == [3]  # two pairs, one of them twice, over three responses


def test_every_pair_is_in_an_epoch_once_and_prompts_stay_together(base_folder, preferences):
    run = session(base_folder, preferences)
    for epoch in (0, 1):
        batches = run.problem.epoch(run.run.config, epoch)
        assert sorted(np.concatenate(batches)) == run.problem.training.tolist()
        assert all(run.problem.tokens_of(batch) <= FAST["batch_tokens"] for batch in batches)
        of = [set(run.problem.prompt_of[batch]) for batch in batches]
        assert sum(map(len, of)) == len(set.union(*of))
    first, second = (run.problem.epoch(run.run.config, epoch) for epoch in (0, 1))
    assert [b.tolist() for b in first] != [b.tolist() for b in second]


def test_a_prompt_with_more_than_a_batch_is_divided(base_folder, preferences):
    run = session(base_folder, preferences, batch_tokens=20)
    batches = run.problem.epoch(run.run.config, 0)
    assert sorted(np.concatenate(batches)) == run.problem.training.tolist()
    assert max(map(len, batches)) == 1


def test_no_prompt_group_is_on_both_sides(base_folder, preferences):
    problem = session(base_folder, preferences, validation_fraction=0.3).problem
    groups = preferences.pair_groups()
    assert not set(groups[problem.training]) & set(groups[problem.held])
    assert len(set(groups[problem.held])) == round(0.3 * len(set(groups)))


def test_the_step_size_rises_then_falls(base_folder, preferences):
    run = session(base_folder, preferences, epochs=5, warmup=0.2).run
    sizes = [run._schedule(step) for step in range(run.n_steps)]
    top = int(np.argmax(sizes))
    assert sizes[top] == 1.0
    assert top == round(0.2 * run.n_steps) - 1
    assert (np.diff(sizes[: top + 1]) > 0).all()
    assert (np.diff(sizes[top:]) < 0).all()
    assert 0 < sizes[-1] < 0.1


def test_what_is_frozen_below_the_top_has_no_dropout(base_folder, preferences):
    run = session(base_folder, preferences, method="top", n_layers=1)
    run.run.take_step()
    lower, upper = run.base.blocks()
    assert not any(module.training for module in lower.modules())
    assert all(module.training for module in upper.modules())
    run.run.evaluate()
    assert not any(module.training for module in run.base.model.modules())


def test_matrices_decay_vectors_do_not_and_the_head_has_its_own_step_size(base_folder, preferences):
    run = session(base_folder, preferences, method="full", objective="domain", weight_decay=0.5).run
    for name, parameter in run.parameters.items():
        at, group = next(
            (i, g) for i, g in enumerate(run.optimiser.param_groups) if any(p is parameter for p in g["params"])
        )
        assert group["weight_decay"] == (0.5 if parameter.ndim > 1 else 0.0), name
        assert run.sizes[at] == (1e-2 if name.startswith("head.") else 3e-3), name


def test_dropout_is_drawn_anew_at_every_step(base_folder, preferences):
    with seeded():
        run = session(base_folder, preferences, method="full").run
        losses = []
        for step in (0, 1, 0):
            run._seed(step)
            run.base.model.train()
            with torch.no_grad():
                # not all alike: the states' components sum to zero
                run.problem.head.weight.copy_(torch.linspace(-1, 2, run.problem.head.weight.numel())[None])
            losses.append(float(run.problem.loss(run.base, np.arange(10), None).total.detach()))
    assert losses[0] == losses[2] != losses[1]


def test_batches_of_an_epoch_make_a_mean_over_it(base_folder, preferences):
    frame = preferences.pairs.assign(weight=np.linspace(0.5, 2.0, 80))
    data = PreferenceDataset(preferences.prompts, preferences.responses, frame)
    run = session(base_folder, data, epochs=1).run
    total = sum(scale * run.problem.weight[items].sum() for scale, (_, items) in zip(run.scale, run.plan))
    assert total == pytest.approx(run.n_steps)


def test_early_stopping_takes_the_best_state(base_folder, preferences, tmp_path):
    tuned = tuner(base_folder, method="full", learning_rate=0.1, evaluate_every=1, patience=4)
    tuned.fit(preferences, tmp_path / "tuned")
    history = tuned.history_
    losses = [entry["validation_loss"] for entry in history]
    best = int(np.argmin(losses))
    assert tuned.facts_["best_step"] == history[best]["step"]
    assert len(losses) == best + 5 < tuned.facts_["steps_planned"]
    assert "no lower held-out loss in 4 evaluations" in tuned.facts_["stopped"]
    # the saved weights are those of the best step: they give its held-out loss again
    problem = session(base_folder, preferences).problem
    margins = tuned.margins(preferences)[problem.held]
    assert np.log1p(np.exp(-margins)).mean() == pytest.approx(losses[best], abs=1e-4)


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_evaluations_stand_at_even_distances_in_every_epoch(base_folder, preferences, parts):
    run = session(base_folder, preferences, epochs=2, evaluations_per_epoch=parts).run
    steps = run.n_steps // 2
    assert steps >= 3
    due = [step for step in range(1, run.n_steps + 1) if run.is_due(step)]
    assert len(due) == 2 * parts
    assert {steps, 2 * steps} <= set(due)
    gaps = np.diff([0, *due])
    assert gaps.max() - gaps.min() <= 1


def test_only_the_top_blocks_move(base_folder, preferences, tmp_path):
    from safetensors.numpy import load_file

    tuned = tuner(base_folder, method="top", n_layers=1).fit(preferences, tmp_path / "tuned")
    before, after = (load_file(folder / "model.safetensors") for folder in (base_folder, tuned.folder))
    moved = {name for name in after if not np.array_equal(before[name], after[name])}
    assert moved == {name for name in before if name.startswith("encoder.layer.1.")} - {
        # a bias of the keys cancels in the softmax, so that its slope is rounding
        name
        for name in before
        if name.endswith("key.bias") and name not in moved
    }


# -- the same every time ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_two_runs_are_equal_to_the_bit_and_another_seed_is_not(base_folder, preferences, tmp_path, method):
    folders = [tuner(base_folder, method=method).fit(preferences, tmp_path / name).folder for name in "ab"]
    assert weights(folders[0]) == weights(folders[1])
    other = tuner(base_folder, method=method, random_state=1).fit(preferences, tmp_path / "c").folder
    assert weights(folders[0]) != weights(other)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_no_global_generator_is_changed_or_read(base_folder, preferences, tmp_path, objective):
    results = []
    for seed, name in ((1, "a"), (2, "b")):
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # noqa: NPY002
        results.append(
            weights(tuner(base_folder, objective=objective, epochs=1).fit(preferences, tmp_path / name).folder)
        )
        assert torch.equal(torch.get_rng_state(), before[0])
        assert np.random.get_state()[1].tolist() == before[1]  # noqa: NPY002
    assert results[0] == results[1]


class Stop(Exception):
    pass


def stop_after(steps):
    def progress(label):
        def step(done, total):
            if done == steps:
                raise Stop

        return step

    return progress


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_resumed_run_equals_an_uninterrupted_one(base_folder, preferences, tmp_path, method, objective):
    changes = {"method": method, "objective": objective, "evaluate_every": 3, "patience": 99, "checkpoint_every": 2}
    whole = tuner(base_folder, **changes).fit(preferences, tmp_path / "whole")
    with pytest.raises(Stop):
        tuner(base_folder, **changes).fit(preferences, tmp_path / "parts", progress=stop_after(5))
    assert not (tmp_path / "parts").exists()
    parts = tuner(base_folder, **changes).fit(preferences, tmp_path / "parts")
    assert parts.resumed_at_ == 4
    assert whole.resumed_at_ is None
    assert weights(parts.folder) == weights(whole.folder)
    assert parts.history_ == whole.history_
    assert not (tmp_path / "parts.unfinished").exists()


def test_a_run_goes_on_with_the_threads_it_began_with_unless_asked(base_folder, preferences, tmp_path):
    from embedrm.tuning.checkpoint import Checkpoints

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        first = session(base_folder, preferences).run
        assert first.threads == 2
        Checkpoints(tmp_path, {}).save(first)
        torch.set_num_threads(1)
        for asked, expected in ((None, 2), (1, 1)):
            run = session(base_folder, preferences, threads=asked).run
            assert run.threads == 1
            assert Checkpoints(tmp_path, {}).restore(run)
            assert run.threads == expected
    finally:
        torch.set_num_threads(before)


def test_a_run_stopped_after_its_last_step_is_only_saved(base_folder, preferences, tmp_path, monkeypatch):
    import embedrm.tuning.tuned as module

    save = module.save_tuned
    monkeypatch.setattr(module, "save_tuned", lambda *a: (_ for _ in ()).throw(Stop))
    with pytest.raises(Stop):
        tuner(base_folder).fit(preferences, tmp_path / "a")
    monkeypatch.setattr(module, "save_tuned", save)
    resumed = tuner(base_folder).fit(preferences, tmp_path / "a")
    assert resumed.resumed_at_ == resumed.facts_["steps"]
    assert weights(resumed.folder) == weights(tuner(base_folder).fit(preferences, tmp_path / "b").folder)


KILLED = """
import sys, torch
sys.path.insert(0, sys.argv[3])
from tuning_base import make_preferences
from embedrm import TunedEncoder
torch.set_num_threads(1)
def progress(label):
    return lambda done, total: print(done, flush=True)
TunedEncoder(base=sys.argv[1], epochs=300, patience=10**6, batch_tokens=200, max_length=32, checkpoint_every=1,
             evaluate_every=7, max_steps=int(sys.argv[4]), method="full").fit(
    make_preferences(), sys.argv[2], progress=progress)
"""


def test_killed_at_any_moment_it_goes_on(base_folder, tmp_path):
    steps = 60
    here = os.path.dirname(__file__)

    def start(name):
        arguments = [sys.executable, "-c", KILLED, str(base_folder), str(tmp_path / name), here, str(steps)]
        return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    process = start("killed")
    for line in process.stdout:
        if int(line) == 20:
            time.sleep(0.02)  # somewhere inside a step or a write
            process.send_signal(signal.SIGKILL)
            break
    process.stdout.close()
    process.stderr.close()
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "killed").exists()
    resumed = start("killed")
    out, err = resumed.communicate()
    assert resumed.returncode == 0, err
    assert 1 <= len(out.split()) <= steps - 20 + 1
    settings = {"epochs": 300, "patience": 10**6, "batch_tokens": 200, "max_length": 32, "evaluate_every": 7}
    TunedEncoder(base=str(base_folder), max_steps=steps, method="full", **settings).fit(
        make_preferences(), tmp_path / "whole"
    )
    assert weights(tmp_path / "killed") == weights(tmp_path / "whole")
    history = [json.loads((tmp_path / name / "tuning.json").read_text())["history"] for name in ("killed", "whole")]
    assert history[0] == history[1]


def test_a_checkpoint_of_another_run_is_refused(base_folder, preferences, tmp_path):
    with pytest.raises(Stop):
        tuner(base_folder).fit(preferences, tmp_path / "a", progress=stop_after(5))
    with pytest.raises(InvalidInputError, match=r"unfinished run that differs in: rank.*resume=False"):
        tuner(base_folder, rank=2).fit(preferences, tmp_path / "a")
    with pytest.raises(InvalidInputError, match="differs in: data, texts and their order"):
        tuner(base_folder).fit(preferences.subset(slice(0, 60)), tmp_path / "a")
    with pytest.raises(InvalidInputError, match="differs in: base"):
        tuner(make_base(tmp_path / "other", seed=1)).fit(preferences, tmp_path / "a")
    anew = tuner(base_folder, rank=2).fit(preferences, tmp_path / "a", resume=False)
    assert anew.resumed_at_ is None


def test_a_damaged_checkpoint_is_an_error_with_its_path(base_folder, preferences, tmp_path):
    with pytest.raises(Stop):
        tuner(base_folder).fit(preferences, tmp_path / "a", progress=stop_after(5))
    path = tmp_path / "a.unfinished" / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ModelError, match=r"checkpoint\.safetensors cannot be read.*resume=False"):
        tuner(base_folder).fit(preferences, tmp_path / "a")


# -- estimate and progress --------------------------------------------------------------------------------------------


def test_the_estimate_is_announced_before_the_work_and_changes_nothing(base_folder, preferences, tmp_path):
    said, seen = [], []

    def progress(label):
        return lambda done, total: seen.append((done, total, len(said)))

    tuned = tuner(base_folder).fit(preferences, tmp_path / "a", announce=said.append, progress=progress)
    assert len(said) == 1
    assert "from 3 timed steps" in said[0]
    assert seen[0] == (1, tuned.facts_["steps_planned"], 1)
    assert weights(tuned.folder) == weights(tuner(base_folder).fit(preferences, tmp_path / "b").folder)


def test_the_estimate_counts_steps_and_tokens(base_folder, preferences):
    found = tuner(base_folder, epochs=2).estimate(preferences)
    run = session(base_folder, preferences, epochs=2)
    assert found.n_steps == run.run.n_steps
    assert found.tokens == 2 * sum(len(run.problem.ids[row]) for row in run.problem.texts_of(run.problem.training))
    assert found.seconds > 0
    assert found.memory_bytes > 2**26
    assert "GiB" in str(found)


# -- what it refuses --------------------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_stops_with_the_step_and_a_remedy(base_folder, preferences, tmp_path):
    # the second step, after one that threw the weights out of all bounds
    with pytest.raises(ModelError, match=r"not finite at step \d+ of \d+ .*smaller learning_rate \(it is 1e\+30"):
        tuner(base_folder, method="full", learning_rate=1e30, warmup=0.0).fit(preferences, tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_nothing_to_learn_from_is_refused(base_folder, preferences, tmp_path):
    with pytest.raises(InvalidInputError, match="needs pairs, and the data have none"):
        tuner(base_folder).fit(preferences.subset([]), tmp_path / "a")
    ties = PreferenceDataset(preferences.prompts, preferences.responses, preferences.pairs.assign(outcome=0.5))
    with pytest.raises(InvalidInputError, match="all 80 are ties"):
        tuner(base_folder).fit(ties, tmp_path / "a")
    for objective in OBJECTIVES[1:]:
        with pytest.raises(InvalidInputError, match="there are none"):
            tuner(base_folder, objective=objective).fit(preferences.subset([]), tmp_path / "a")
    with pytest.raises(InvalidInputError, match="there are none"):
        tuner(base_folder, objective="masked-token").fit([], tmp_path / "a")
    assert not list(tmp_path.iterdir())


def test_pairs_that_are_read_alike_are_counted_and_refused_where_all_are(base_folder, tmp_path):
    long = " ".join(["very"] * 40)
    responses = pd.DataFrame({"response": [f"{long} kind", f"{long} rude", "kind", "rude"], "prompt_of": [0, 0, 1, 1]})
    prompts = pd.DataFrame({"prompt": ["name a red shirt", "name a green shirt"]})
    pairs = pd.DataFrame({"chosen": [0, 2], "rejected": [1, 3]})
    data = PreferenceDataset(prompts, responses, pairs)
    settings = {"truncation": "head", "validation_fraction": 0.0, "epochs": 1}
    tuned = tuner(base_folder, **settings).fit(data, tmp_path / "a")
    assert tuned.facts_["data"]["pairs_read_alike"] == 1
    assert tuned.facts_["data"]["truncation"]["truncated"] == 2
    with pytest.raises(InvalidInputError, match="same once cut to 32 tokens"):
        tuner(base_folder, **settings).fit(data.subset([0]), tmp_path / "b")


def test_one_domain_or_one_group_is_refused(base_folder, preferences, tmp_path):
    one = preferences.subset(preferences.pair_domains() == "shirt")
    with pytest.raises(InvalidInputError, match="at least 2 domains, and all 20 are of 'shirt'"):
        tuner(base_folder, objective="domain").fit(one, tmp_path / "a")
    with pytest.raises(InvalidInputError, match="one group only; give more prompts, or set validation_fraction=0"):
        tuner(base_folder).fit(preferences.subset([0, 1]), tmp_path / "a")


def test_an_encoder_without_a_tokenizer_is_refused(preferences, tmp_path):
    with pytest.raises(InvalidInputError, match="'hashing:64' is a HashingEncoder, which has none to tune"):
        TunedEncoder(base="hashing:64").fit(preferences, tmp_path / "a")
    from safetensors.numpy import save_file

    static = tmp_path / "static"
    static.mkdir()
    (static / "modules.json").write_text(
        json.dumps([{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.StaticEmbedding"}])
    )
    save_file({"embedding.weight": np.zeros((28, 4), dtype=np.float32)}, static / "model.safetensors")
    with pytest.raises(InvalidInputError, match="StaticEmbedding model, which has none to tune"):
        TunedEncoder(base=str(static)).fit(preferences, tmp_path / "a")


def test_a_folder_that_is_there_is_refused_before_any_work(preferences, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "note.txt").write_text("mine")
    with pytest.raises(InvalidInputError, match=r"already there.*never written over"):
        TunedEncoder(base="no such base").fit(preferences, tmp_path / "a")


def test_what_the_base_does_not_have_is_refused(base_folder, preferences, tmp_path):
    with pytest.raises(InvalidInputError, match="n_layers=3 is more than the 2 blocks"):
        tuner(base_folder, method="top", n_layers=3).fit(preferences, tmp_path / "a")
    with pytest.raises(InvalidInputError, match=r"ends in 'q_proj'. There are: dense, key, query, value"):
        tuner(base_folder, target_modules=["q_proj"]).fit(preferences, tmp_path / "a")
    with pytest.raises(InvalidInputError, match="more than the 64 positions"):
        tuner(base_folder, max_length=65).fit(preferences, tmp_path / "a")


def test_texts_where_pairs_are_needed_and_groups_where_none_are_taken(base_folder, preferences, tmp_path):
    with pytest.raises(InvalidInputError, match="needs a PreferenceDataset, got list"):
        tuner(base_folder).fit(TEXTS, tmp_path / "a")
    with pytest.raises(InvalidInputError, match="groups are for plain texts"):
        tuner(base_folder).fit(preferences, tmp_path / "a", groups=["x"])
    with pytest.raises(InvalidInputError, match="groups must be one for each of 5 texts; got 1"):
        tuner(base_folder, objective="masked-token").fit(TEXTS, tmp_path / "a", groups=["x"])


def test_without_peft_the_install_line_is_given(base_folder, preferences, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'embedrm\[tune\]'"):
        tuner(base_folder).fit(preferences, tmp_path / "a")
    assert tuner(base_folder, method="top", epochs=1).fit(preferences, tmp_path / "a").folder.is_dir()


# -- the products -----------------------------------------------------------------------------------------------------


def test_linear_layers_by_onednn_give_the_same_values_and_slopes(base_folder, preferences):
    changes = {"method": "lora", "dropout": 0.0, "validation_fraction": 0.0}
    found = []
    for enabled in (True, False):
        run = session(base_folder, preferences, **changes)
        for name, parameter in run.run.parameters.items():
            if "lora_B" in name:
                with torch.no_grad():
                    parameter.fill_(0.01)
        with torch.no_grad():
            run.problem.head.weight.copy_(torch.linspace(-1, 1, 32)[None])
        if not enabled:
            for module in run.base.model.modules():
                vars(module).pop("forward", None)
        loss = run.problem.loss(run.base, np.arange(20), None).total
        loss.backward()
        found.append([loss.detach(), *(p.grad for p in run.run.parameters.values())])
    for one, other in zip(*found):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_masks_hide_the_share_asked_for_and_never_a_special_token(base_folder):
    texts = ["name a red shirt and the house is very cold", "loud", "it is kind and calm and warm"]
    config = TuningConfig(
        base=str(base_folder), objective="masked-token", method="full", max_length=32, mask_share=0.3,
        validation_fraction=0.0,
    )  # fmt: skip
    run = open_session(config, texts, None, PLAIN)
    ids = run.problem.ids
    for seed in range(20):
        hidden = run.problem._hidden(ids, (3, 12), torch.Generator().manual_seed(seed)).numpy()
        assert hidden.sum(axis=1).tolist() == [3, 1, 2]
        for row, text in enumerate(ids):
            assert not hidden[row, 0]
            assert not hidden[row, len(text) - 1 :].any()


def test_halves_share_a_text_and_keep_the_special_tokens():
    from embedrm.tuning.contrastive import _halves

    assert _halves([2, 5, 6, 7, 3], 1, 1) == ([2, 5, 3], [2, 6, 7, 3])
    assert _halves([2, 5, 3], 1, 1) == ([], [])


def test_the_generator_is_put_back_after_an_error():
    before = torch.get_rng_state()

    def draw():
        with seeded():
            torch.rand(5)
            raise Stop

    with pytest.raises(Stop):
        draw()
    assert torch.equal(torch.get_rng_state(), before)
