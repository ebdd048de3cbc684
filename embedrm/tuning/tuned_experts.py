"""TunedExperts: one encoder with experts in its top block, tuned by preferences, saved, loaded and scored."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedrm.datasets import PreferenceDataset
from embedrm.datasets.template import PLAIN, Template
from embedrm.encoders.backbone import torch_threads
from embedrm.encoders.files import read_json
from embedrm.encoders.quiet import quiet_loading
from embedrm.errors import InvalidInputError, ModelError
from embedrm.progress import Progress, silent
from embedrm.store.files import make_folder, sync_folder, write_json
from embedrm.tuning.base import TrainableBase, find_base
from embedrm.tuning.checkpoint import Checkpoints
from embedrm.tuning.config import TuningConfig
from embedrm.tuning.experts import ExpertPairProblem, TopExperts, gate_head, gate_logits, mixed_rewards, sparse_gates
from embedrm.tuning.heads import template_of
from embedrm.tuning.loop import Run, reseed, seeded
from embedrm.tuning.methods import prepare
from embedrm.tuning.saving import as_json, check_free
from embedrm.tuning.session import Session
from embedrm.tuning.tuned import run_facts, run_identity

FORMAT = 1
FACTS, ARRAYS, ENCODER = "experts.json", "experts.safetensors", "encoder"

Array = NDArray[np.float64]


class TunedExperts:
    """A tuned encoder whose top block has several feed-forward experts, two of which serve each prompt.

    Parameters
    ----------
    config : TuningConfig
        Of objective ``bradley-terry``; ``full`` moves everything, ``top`` the top blocks (with the experts) and the gate.
    n_experts : int
    k : int
        Experts that serve a prompt.
    balance : float
        Weight of the load balance in the loss.

    Notes
    -----
    See :mod:`embedrm.tuning.experts` for the network. The folder holds ``encoder/``, an ordinary encoder with the first
    expert, and the other experts with gate and reward in ``experts.safetensors``.
    """

    def __init__(self, config: TuningConfig, n_experts: int, *, k: int = 2, balance: float = 0.01) -> None:
        if config.objective != "bradley-terry" or config.method == "lora":
            raise InvalidInputError(
                "experts are tuned with objective='bradley-terry' and method='full' or 'top'; got "
                f"{config.objective!r} and {config.method!r}"
            )
        for name, value in (("n_experts", n_experts), ("k", k)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InvalidInputError(f"{name} must be a whole number of at least 1; got {value!r}")
        if not 0.0 <= balance < float("inf"):
            raise InvalidInputError(f"balance must be a number of at least 0; got {balance!r}")
        self.config, self.n_experts, self.k, self.balance = config, n_experts, k, balance
        self.facts_: dict[str, Any] = {}
        self.resumed_at_: int | None = None
        self._folder: Path | None = None
        self._network: tuple[TrainableBase, TopExperts, Any] | None = None

    def open_session(self, data: PreferenceDataset, template: Template = PLAIN) -> tuple[Session, TopExperts]:
        """Load the base, put the experts in, and lay out the run."""
        encoder = find_base(self.config)
        with seeded():
            reseed(self.config.random_state)
            base = TrainableBase(encoder, self.config.dropout)
            base.model.eval()
            experts = TopExperts(base, self.n_experts)
            problem = ExpertPairProblem(base, experts, data, template, self.config, k=self.k, balance=self.balance)
            prepare(base, self.config)
        return Session(base, None, problem, Run(base, problem, self.config), data.fingerprint()), experts

    def fit(
        self,
        data: PreferenceDataset,
        folder: str | Path,
        *,
        template: Template = PLAIN,
        progress: Progress = silent,
    ) -> TunedExperts:
        """Tune and save; goes on from a checkpoint of the same run. See :meth:`TunedEncoder.fit`."""
        place = Path(folder).expanduser()
        check_free(place)
        session, experts = self.open_session(data, template)
        network = {"n_experts": self.n_experts, "k": self.k, "balance": self.balance}
        work = place.with_name(place.name + ".unfinished")
        checkpoints = Checkpoints(work, {**run_identity(self.config, session, template), "experts": network})
        run = session.run
        resumed = run.position.step if checkpoints.restore(run) else None
        start = run.position.step
        step = progress("tuning (experts)" + (f" from step {start}" if start else ""))
        run.train(lambda done, total: step(done - start, total - start), checkpoints.save, checkpoints.save_best)
        run.finish()
        facts = as_json({**run_facts(self.config, session, template), **network})
        _save(place, session, experts, facts)
        shutil.rmtree(work, ignore_errors=True)
        self._folder, self.facts_, self._network, self.resumed_at_ = place, facts, None, resumed
        return self

    @classmethod
    def load(cls, folder: str | Path) -> TunedExperts:
        """Open what :meth:`fit` saved; the network is loaded on first use.

        Raises
        ------
        ModelError
            The folder holds no tuned experts.
        """
        place = Path(folder).expanduser()
        facts = read_json(place / FACTS)
        if not isinstance(facts, dict) or facts.get("format") != FORMAT:
            raise ModelError(f"{place} holds no tuned experts: its {FACTS} is missing or of another format.")
        config = TuningConfig.from_dict(facts["config"])
        made = cls(config, facts["n_experts"], k=facts["k"], balance=facts["balance"])
        made._folder, made.facts_ = place, facts
        return made

    @property
    def folder(self) -> Path:
        """Where the tuned network is."""
        if self._folder is None:
            raise InvalidInputError("these experts are not tuned yet; call fit(data, folder), or load(folder)")
        return self._folder

    def expert_parameters(self) -> int:
        """Count what one more expert adds: its feed-forward part and its row of the gate."""
        _, experts, head = self._loaded()
        own = sum(p.numel() for side in (experts.up, experts.down) for p in side[0].parameters())
        return int(own + head["gate"].weight[0].numel() + 1)

    def gates(self, prompts: Sequence[str]) -> Array:
        """Return the gates of prompts, (n_prompts, n_experts); rows sum to one and have at most k entries."""
        import torch

        base, experts, head = self._loaded()
        with torch.no_grad(), torch_threads(self.config.threads):
            states = experts.prompt_states(base, base.ids(list(prompts)))
            found: Array = sparse_gates(gate_logits(head, states), self.k).numpy().astype(np.float64)
        return found

    def reward(self, prompts: str | Sequence[str], responses: Sequence[str]) -> Array:
        """Return rewards of responses to one prompt, or to one each, (n,)."""
        asked = [prompts] * len(responses) if isinstance(prompts, str) else list(prompts)
        if isinstance(responses, str) or len(asked) != len(responses):
            raise InvalidInputError(
                f"reward expects a list of responses, and one prompt or one for each; got {len(asked)}"
            )
        template = template_of(self.facts_)
        joint = [template.joint(prompt, response) for prompt, response in zip(asked, responses)]
        return self._rewards(joint, asked)

    def margins(self, data: PreferenceDataset) -> Array:
        """Return reward of chosen minus reward of rejected, (n_pairs,); only responses in pairs are read."""
        template = template_of(self.facts_)
        both = data.pairs[["chosen", "rejected"]].to_numpy()
        active, local = np.unique(both, return_inverse=True)
        joint, prompts = data.joint_texts(template), data.prompt_texts(template)
        owner = data.responses["prompt_of"].to_numpy()[active]
        rewards = self._rewards([joint[row] for row in active.tolist()], [prompts[p] for p in owner.tolist()])
        places = local.reshape(both.shape)
        found: Array = rewards[places[:, 0]] - rewards[places[:, 1]]
        return found

    def _rewards(self, joint: list[str], prompts: list[str]) -> Array:
        import torch

        base, experts, head = self._loaded()
        unique = list(dict.fromkeys(prompts))
        place = {prompt: row for row, prompt in enumerate(unique)}
        with torch.no_grad(), torch_threads(self.config.threads):
            gates = sparse_gates(gate_logits(head, experts.prompt_states(base, base.ids(unique))), self.k)
            every = gates[[place[prompt] for prompt in prompts]]
            found: Array = mixed_rewards(base, experts, head, base.ids(joint), every).numpy().astype(np.float64)
        return found

    def _loaded(self) -> tuple[TrainableBase, TopExperts, Any]:
        if self._network is None:
            self._network = _load(self.folder, self.config, self.n_experts)
        return self._network


def _expert_arrays(experts: TopExperts) -> dict[str, Any]:
    """Return the arrays of all experts but the first, which is in the encoder's own folder."""
    return {
        f"{side}.{i}.{name}": value
        for side, modules in (("up", experts.up), ("down", experts.down))
        for i, module in enumerate(modules)
        for name, value in module.state_dict().items()
        if i > 0
    }


def _save(folder: Path, session: Session, experts: TopExperts, facts: dict[str, Any]) -> None:
    from safetensors.torch import save_file

    check_free(folder)
    make_folder(folder.parent)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        head = {f"head.{name}": value for name, value in session.problem.head.state_dict().items()}
        arrays = {name: value.detach().contiguous() for name, value in {**_expert_arrays(experts), **head}.items()}
        save_file(arrays, str(temporary / ARRAYS))
        experts.leave()
        with quiet_loading():
            session.base.model.save(str(temporary / ENCODER), create_model_card=False, safe_serialization=True)
        write_json(temporary, FACTS, {"format": FORMAT, **facts})
        os.chmod(temporary, 0o755)
        os.replace(temporary, folder)
        sync_folder(folder.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _load(folder: Path, config: TuningConfig, n: int) -> tuple[TrainableBase, TopExperts, Any]:
    import torch
    from safetensors.torch import load_file

    arrays = load_file(str(folder / ARRAYS))
    base = TrainableBase(find_base(replace(config, base=str(folder / ENCODER), revision=None)))
    for parameter in base.model.parameters():
        parameter.requires_grad_(False)
    experts = TopExperts(base, n)
    for side, modules in (("up", experts.up), ("down", experts.down)):
        for i, module in enumerate(modules):
            if i > 0:
                start = f"{side}.{i}."
                module.load_state_dict({k[len(start) :]: v for k, v in arrays.items() if k.startswith(start)})
    head = {name[5:]: value for name, value in arrays.items() if name.startswith("head.")}
    dim = head["gate.weight"].shape[1]
    network = gate_head(dim, n, torch.zeros(2, dim))
    network.load_state_dict(head)
    base.speed_up()
    base.model.eval()
    return base, experts, network
