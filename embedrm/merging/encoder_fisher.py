"""Diagonal Fisher informations of encoders on pairs, written to a file for Fisher-weighted merging."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from embedrm.errors import InvalidInputError, ModelError
from embedrm.merging.encoder_inputs import MergeInput
from embedrm.merging.encoder_report import is_unread
from embedrm.merging.safetensor_files import REAL_TYPES, write_safetensors
from embedrm.numerics.bradley_terry import log_loss_curvature
from embedrm.progress import Progress, silent
from embedrm.store.files import make_folder
from embedrm.tuning.config import TuningConfig
from embedrm.tuning.heads import template_of
from embedrm.tuning.saving import read_facts, read_head

if TYPE_CHECKING:
    from embedrm.datasets import PreferenceDataset
    from embedrm.tuning.base import TrainableBase

WHO = "write_encoder_moments"


def write_encoder_moments(
    model: str | Path,
    data: PreferenceDataset,
    output: str | Path,
    *,
    head: str | Path | None = None,
    n_pairs: int | None = 256,
    random_state: int = 0,
    progress: Progress = silent,
) -> dict[str, Any]:
    r"""Estimate how much pairs say of each weight of an encoder, and write it for ``merge_encoders(method="fisher")``.

    .. math:: F_j = E[\sigma(m)\,\sigma(-m)\,(\partial m/\partial\theta_j)^2]

    with m the margin of a pair under the encoder and its reward head. The expectation over the label is exact
    (Bradley–Terry, under the model itself), so labels are not read; that over pairs is a weighted mean.

    Parameters
    ----------
    model : str or path
        A tuned folder; with ``head`` any encoder, such as one that was moved by plain text.
    data : PreferenceDataset
        Pairs of what the encoder is good at: those that it was tuned on, or others of their kind. No test pairs.
    output : str or path
        The safetensors file to write; must not be there. It is as large as the model in float32.
    head : str or path, optional
        A tuned folder whose reward head, template and limits are taken; the model's own where absent. DogeRM keeps the
        general model's head, so a domain encoder without one is measured with that.
    n_pairs : int, optional
        At most so many pairs, drawn without replacement among those of positive weight; None takes all. Each costs a pass
        forwards and backwards over two texts.
    random_state : int
        Of the draw.
    progress : Progress

    Returns
    -------
    dict
        ``pairs`` used, ``mean`` (over all weights of the model), ``model`` (its digest), ``file``.

    Raises
    ------
    InvalidInputError
        No pairs of positive weight, or a file that is already there.
    ModelError
        No reward head, or a tensor of the model that takes part in no pass.

    Notes
    -----
    Moments scale with the square of the head's length: measure models that are to be merged with heads of one scale, or
    with one head. A weight that no pair touches, such as the embedding of an unseen token, has 0, and takes the weighted
    mean of the models (``floor`` of :func:`embedrm.merging.methods.fisher.fisher`). Dropout is off.

    References
    ----------
    Matena and Raffel (2022), "Merging models with Fisher-weighted averaging", section 3.1.
    """
    place = Path(output).expanduser()
    if place.exists():
        raise InvalidInputError(f"{place} is already there, and moments are never written over; give another file")
    if n_pairs is not None and (isinstance(n_pairs, bool) or not isinstance(n_pairs, int) or n_pairs < 1):
        raise InvalidInputError(f"{WHO} needs n_pairs to be a whole number >= 1 or None, got {n_pairs!r}")
    base, problem = _opened(str(model), Path(str(model if head is None else head)).expanduser(), data, head is None)
    usable = np.flatnonzero(problem.weight > 0)
    rng = np.random.default_rng(random_state)
    used = usable if n_pairs is None or n_pairs >= len(usable) else np.sort(rng.choice(usable, n_pairs, replace=False))
    one = MergeInput(Path(str(model)).name, base.encoder)
    found = _moments(base, problem, used, progress)
    entries = {n: ("F32", shape) for n, (kind, shape) in one.tensors.entries.items() if kind in REAL_TYPES}
    arrays = dict(_by_file_name(base, one, found, list(entries)))
    make_folder(place.parent)
    temporary = place.with_name(f".{place.name}.{os.getpid()}.tmp")
    try:
        write_safetensors(temporary, entries, arrays.items(), {"model": one.digest, "pairs": str(len(used))})
        os.replace(temporary, place)
    finally:
        temporary.unlink(missing_ok=True)
    total = sum(float(array.sum(dtype=np.float64)) for array in arrays.values())
    mean = total / max(1, sum(array.size for array in arrays.values()))
    return {"pairs": len(used), "mean": mean, "model": one.digest, "file": str(place)}


def _opened(model: str, head: Path, data: PreferenceDataset, own: bool) -> tuple[TrainableBase, Any]:
    """Open the model with a reward head and the pairs, as tuning reads them."""
    import torch

    from embedrm.encoders.sentence import SentenceEncoder
    from embedrm.tuning.base import TrainableBase
    from embedrm.tuning.pairs import PairProblem

    facts, arrays = read_facts(head), read_head(head)
    if facts["config"]["objective"] != "bradley-terry" or "weight" not in arrays:
        raise ModelError(
            f"{head} was tuned with objective={facts['config']['objective']!r} and has no reward head. Give head=FOLDER, a "
            "folder that was tuned with objective='bradley-terry', such as the general model of the merge."
        )
    config = TuningConfig.from_dict({**facts["config"], "validation_fraction": 0.0})
    encoder = SentenceEncoder(model, max_length=config.max_length, truncation=config.truncation, threads=config.threads)
    base = TrainableBase(encoder, dropout=0.0)
    base.model.eval()
    base.speed_up()
    if base.layer != facts["layer"] or base.dim != arrays["weight"].shape[1]:
        raise ModelError(
            f"the reward head of {head} reads {arrays['weight'].shape[1]} columns of layer {facts['layer']}, and {model} "
            f"has {base.dim} of layer {base.layer}. Give a head of the same architecture."
        )
    problem = PairProblem(base, data, template_of(facts), config)
    with torch.no_grad():
        problem.head.weight.copy_(torch.from_numpy(arrays["weight"]))
    return base, problem


def _moments(
    base: TrainableBase, problem: Any, used: NDArray[np.intp], progress: Progress
) -> dict[int, NDArray[np.float32]]:
    """Weighted mean of the curvature times the squared slopes, by the identity of a parameter."""
    import torch

    parameters = list(base.model.parameters())
    for parameter in parameters:
        parameter.requires_grad_(True)
    out = {id(p): torch.zeros_like(p) for p in parameters}
    share = problem.weight[used] / problem.weight[used].sum()
    step = progress("moments")
    for done, (pair, weight) in enumerate(zip(used.tolist(), share.tolist()), start=1):
        texts, local = np.unique(problem.pairs[pair], return_inverse=True)
        rewards = problem.rewards(base, texts)
        margin = rewards[int(local[0])] - rewards[int(local[1])]
        # in place: gradients as large as the model need not be allocated for each pair
        base.model.zero_grad(set_to_none=False)
        margin.backward()
        scale = weight * float(log_loss_curvature(np.array([float(margin.detach())]))[0])
        for parameter in parameters:
            if parameter.grad is not None:
                out[id(parameter)].addcmul_(parameter.grad, parameter.grad, value=scale)
        step(done, len(used))
    return {key: value.numpy() for key, value in out.items()}


def _by_file_name(
    base: TrainableBase, one: MergeInput, found: dict[int, NDArray[np.float32]], names: list[str]
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yield the moments by the names under which the model's file has the weights."""
    modules = list(base.model.children())
    known = {name: id(p) for name, p in base.transformer.named_parameters(remove_duplicate=False)}
    prefix = f"{getattr(base.transformer, 'base_model_prefix', '')}."
    for i, module in enumerate(base.files.modules[1:], start=1):
        known |= {f"{i}_{module.kind}/{name}": id(p) for name, p in modules[i].named_parameters(remove_duplicate=False)}
    for name in names:
        key = known.get(name, known.get(name.removeprefix(prefix)))
        kind, shape = one.tensors.entries[name]
        if key is not None and found[key].shape == shape:
            yield name, found[key]
        elif is_unread(name, kind):
            yield name, np.zeros(shape, dtype=np.float32)
        else:
            raise ModelError(
                f"{one.files.folder}: its tensor {name!r} is no weight that is loaded, so pairs say nothing of it. Merge by "
                "another method."
            )
