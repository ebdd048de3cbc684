"""Checkpoints of a run: one safetensors file with its position as JSON in the header, exchanged in one rename.

The best state changes seldom and has a file of its own, named by its step; a checkpoint names the one it belongs to, which
is written before it and removed only after the next. So whatever a kill leaves behind is one complete state, or none.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from embedrm.errors import InvalidInputError, ModelError
from embedrm.store.files import make_folder, write_atomic
from embedrm.tuning.loop import Position, Run

FORMAT = 2
NAME = "checkpoint.safetensors"
_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


class Checkpoints:
    """The checkpoints of one run in a folder.

    Parameters
    ----------
    folder : Path
        Made when the first is written.
    identity : dict
        What a run must share to go on from here (configuration, base, data), as JSON values.
    """

    def __init__(self, folder: Path, identity: dict[str, Any]) -> None:
        self.folder, self.identity = folder, identity

    def save_best(self, run: Run) -> None:
        """Write the best state beside the former ones."""
        make_folder(self.folder)
        write_atomic(self.folder, [_to_bytes(run.best, {})], _best_name(run.position))

    def save(self, run: Run) -> None:
        """Write the run's state in the place of the former one."""
        make_folder(self.folder)
        tensors = {f"parameter.{name}": value.detach() for name, value in run.parameters.items()}
        for name, parameter in run.parameters.items():
            state = run.optimiser.state.get(parameter, {})
            tensors |= {f"{moment}.{name}": state[moment] for moment in _MOMENTS if moment in state}
        position = asdict(run.position)
        position["best_loss"] = repr(position["best_loss"])
        header = {"format": FORMAT, "identity": self.identity, "position": position, "threads": run.threads}
        write_atomic(self.folder, [_to_bytes(tensors, header)], NAME)
        for path in self.folder.glob("best-*.safetensors"):
            if path.name != _best_name(run.position):
                path.unlink(missing_ok=True)

    def restore(self, run: Run) -> bool:
        """Bring a fresh run to where the checkpoint is; False where there is none.

        Raises
        ------
        InvalidInputError
            The checkpoint is of another configuration, base or data.
        ModelError
            It cannot be read.
        """
        import torch

        path = self.folder / NAME
        if not path.is_file():
            return False
        tensors, header = _read(path)
        if header.get("format") != FORMAT:
            raise ModelError(
                f"{path} has format {header.get('format')}, expected {FORMAT}. Remove the folder to begin anew."
            )
        self._refuse_other(header["identity"])
        position = {**header["position"], "best_loss": float(header["position"]["best_loss"])}
        run.position = Position(**position)
        if run.config.threads is None:
            run.threads = int(header["threads"])
        with torch.no_grad():
            for name, parameter in run.parameters.items():
                parameter.copy_(tensors[f"parameter.{name}"])
                state = {moment: tensors[f"{moment}.{name}"] for moment in _MOMENTS if f"{moment}.{name}" in tensors}
                if state:
                    run.optimiser.state[parameter] = state
        if math.isfinite(run.position.best_loss):
            run.best, _ = _read(self.folder / _best_name(run.position))
        return True

    def _refuse_other(self, found: dict[str, Any]) -> None:
        if found == self.identity:
            return
        differing = sorted(name for name in {**found, **self.identity} if found.get(name) != self.identity.get(name))
        if "config" in differing:
            ours, theirs = self.identity["config"], found.get("config", {})
            differing.remove("config")
            differing += sorted(name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name))
        raise InvalidInputError(
            f"{self.folder} holds an unfinished run that differs in: {', '.join(differing)}. Ask for the same to go on "
            "from there, pass resume=False to throw it away, or give another folder."
        )


def _best_name(position: Position) -> str:
    return f"best-{position.best_step:08d}.safetensors"


def _to_bytes(tensors: dict[str, Any], header: dict[str, Any]) -> bytes:
    from safetensors.torch import save

    whole = {name: value.detach().contiguous() for name, value in tensors.items()}
    data: bytes = save(whole, {"embedrm": json.dumps(header)})
    return data


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {}).get("embedrm", "{}"))
            return {name: file.get_tensor(name) for name in file.keys()}, header  # noqa: SIM118
    except (OSError, ValueError, SafetensorError) as err:
        raise ModelError(
            f"{path} cannot be read ({err}). Remove its folder, or pass resume=False, to begin anew."
        ) from err
