"""Head-level merging: one head out of the parameters of several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.base import clone

from embedrm.errors import InvalidInputError, unknown_name
from embedrm.heads.linear import LinearHead
from embedrm.heads.mlp import MLPHead
from embedrm.merging.alignment import align as align_units
from embedrm.merging.compatibility import LAYERS, CompatibilityReport, Head, compare_heads, head_tensors
from embedrm.merging.methods.base import MergeMethod, check_weights, make_method
from embedrm.merging.scalers import fold, same_standardiser
from embedrm.merging.tensors import Tensors, iter_merged
from embedrm.preferences import EmbeddedPreferences


def merge_heads(
    models: Sequence[Head],
    weights: ArrayLike | None = None,
    method: str | type[MergeMethod] = "linear",
    *,
    base: Head | str | None = None,
    layers: str = "all",
    rescale: bool = False,
    align: bool = False,
    calibration: EmbeddedPreferences | None = None,
    equalise: bool = False,
    moments: Sequence[Tensors] | None = None,
    names: Sequence[str] | None = None,
    **options: Any,
) -> Head:
    r"""Merge fitted heads of one kind into one; nothing is trained, and no model given is changed.

    **DogeRM on frozen vectors** (Lin et al. 2024; an analogue: the paper merges language models, here a perceptron's trunk
    takes the transformer's place): draw or train a start, fork from it a general reward model (:meth:`MLPHead.fit_from`) and
    a domain model trained on anything but preferences (:func:`embedrm.merging.trunks.train_trunk`), and merge

    ``merge_heads([general, domain], [1 - lam, lam], layers="trunk")``:

    hidden layers become :math:`(1 - \lambda)\theta_{\mathrm{general}} + \lambda\theta_{\mathrm{domain}}`, the reward layer
    stays the general model's. Merging heads of two *preference* domains, reward layers and all, is not the paper's method
    but that of model soups and WARM. For linear heads merging weights is averaging rewards, exactly.

    Parameters
    ----------
    models : sequence of LinearHead, or of MLPHead
        The first is the general model, whose parameters, featurizer and (with ``layers="trunk"``) reward layer the merged
        one has.
    weights : array-like of shape (n_models,), optional
        Equal where absent. The rule by which they are normalised is the method's (``normalize``).
    method : str or MergeMethod
        See :data:`embedrm.merging.MERGE_METHODS`.
    base : LinearHead, MLPHead or "zero", optional
        The start of all models, for methods on deltas. ``"zero"``: no weights at all, which is where the search for a
        linear head begins; refused for perceptrons.
    layers : {"all", "trunk"}
        ``"trunk"``: hidden layers only, for perceptrons.
    rescale : bool
        Express linear heads that were standardised otherwise in the first one's standardisation, exactly but for a constant
        a prompt, and merge then. False refuses them.
    align : bool
        Match the hidden units of perceptrons that began with different weights to the first model's
        (:func:`embedrm.merging.alignment.align`); such perceptrons are refused otherwise. Refused where all began alike,
        whose units match as they are, and with methods on deltas, since there is no common base.
    calibration : EmbeddedPreferences, optional
        Pairs, of no test split, on whose responses the models' reward scales are compared; scales more than 1.5 apart are
        refused. Not compared where absent, nor for ``layers="trunk"``, where only one reward layer is used.
    equalise : bool
        Put the others' rewards to the first model's standard deviation on the calibration responses, by their last layer.
    moments : sequence of mappings, optional
        For ``method="fisher"``: :func:`embedrm.merging.fisher.fisher_moments` of each model.
    names : sequence of str, optional
        What to call the models in errors.
    **options
        Of the method, such as ``density``, ``normalize``, ``lambda``.

    Returns
    -------
    LinearHead or MLPHead
        Fitted; its ``merge_`` tells the method, weights, options and digests of what it was made of. Losses of training are
        absent or NaN.

    Raises
    ------
    InvalidInputError
        With every difference that forbids merging and what to do about each
        (:func:`embedrm.merging.compatibility.compare_heads`), before anything is merged.
    """
    kind = make_method(method)
    options = kind.check_options(options)
    if not len(models):
        raise InvalidInputError("merge_heads needs at least one model, got an empty list")
    names = [f"model {i + 1}" for i in range(len(models))] if names is None else [str(name) for name in names]
    if len(names) != len(models):
        raise InvalidInputError(f"merge_heads needs one name for each of {len(models)} models, got {len(names)}")
    w = None if options.get("t") is not None and weights is None else check_weights(weights, len(models), "merge_heads")
    _check_settings(models, kind, base, layers, align, calibration, equalise)
    origin = base if isinstance(base, (LinearHead, MLPHead)) else None
    report = compare_heads(
        models,
        names,
        base=origin,
        layers=layers,
        rescale=rescale,
        equalise=equalise,
        align=align,
        calibration=calibration,
    )
    report.require("merge_heads")
    if align and len({own["initialisation"] for own in report.facts[: len(models)]}) == 1:
        raise InvalidInputError(
            "merge_heads(align=True) is for heads that began apart; these began alike: leave it out"
        )
    tensors = _tensors(models, report, align, layers, equalise)
    if moments is not None and any(not same_standardiser(models[0].featurizer_, m.featurizer_) for m in models):
        raise InvalidInputError(
            "merge_heads cannot use moments of heads that are standardised otherwise: they are in other units; fit both "
            "with Featurizer(scale='none')"
        )
    if moments is not None and (align or equalise):
        raise InvalidInputError(
            "merge_heads cannot use moments with align or equalise, which move what they were taken of"
        )
    start = _start(base, origin, models[0], tensors[0])
    merged = dict(
        iter_merged(
            tensors,
            w,
            kind,
            base=start,
            moments=None if moments is None else [{k: m[k] for k in tensors[0] if k in m} for m in moments],
            names=names,
            who="merge_heads",
            **options,
        )
    )
    return _head(models[0], merged, _record(kind, w, options, layers, report))


def _check_settings(
    models: Sequence[Head],
    kind: type[MergeMethod],
    base: Any,
    layers: str,
    align: bool,
    calibration: EmbeddedPreferences | None,
    equalise: bool,
) -> None:
    if layers not in LAYERS:
        raise unknown_name("layers of merge_heads", layers, LAYERS)
    perceptrons = all(isinstance(model, MLPHead) for model in models)
    if layers == "trunk" and not perceptrons:
        raise InvalidInputError(
            "merge_heads(layers='trunk') needs perceptrons: a linear head has no trunk; use layers='all'"
        )
    if align and not perceptrons:
        raise InvalidInputError("merge_heads(align=True) needs perceptrons: a linear head has no hidden units to match")
    if align and kind.on == "deltas":
        raise InvalidInputError(
            f"merge_heads cannot align for {kind.registered_name!r}: heads that began apart have no common base; use linear"
        )
    if isinstance(base, str) and (base != "zero" or perceptrons):
        raise InvalidInputError(
            f"merge_heads takes base='zero' for linear heads, or a fitted head, got {base!r}; for perceptrons give the "
            "start that they were forked from"
        )
    if base is not None and not isinstance(base, (str, LinearHead, MLPHead)):
        raise InvalidInputError(f"merge_heads needs base to be a fitted head or 'zero', got {type(base).__name__}")
    if equalise and (calibration is None or layers == "trunk"):
        raise InvalidInputError(
            "merge_heads(equalise=True) needs calibration, the pairs on which scales are measured, and layers='all'"
        )


def _tensors(
    models: Sequence[Head], report: CompatibilityReport, align: bool, layers: str, equalise: bool
) -> list[dict[str, NDArray[Any]]]:
    """Parameters of each model in the first one's coordinates, with the layers that are merged."""
    out: list[dict[str, NDArray[Any]]] = []
    scale = report.facts[0]["reward_scale"]
    for model, facts in zip(models, report.facts):
        tensors = head_tensors(model)
        if not same_standardiser(models[0].featurizer_, model.featurizer_):
            tensors["coef"] = fold(tensors["coef"], model.featurizer_, models[0].featurizer_)
        if equalise and out:
            factor = scale / facts["reward_scale"]
            last = ("coef", "reward.weight", "reward.bias")
            tensors = {k: (v * factor).astype(v.dtype) if k in last else v for k, v in tensors.items()}
        if layers == "trunk":
            tensors = {name: array for name, array in tensors.items() if name.startswith("hidden.")}
        if align and out:
            tensors, _ = align_units(out[0], tensors)
        out.append(tensors)
    return out


def _start(
    base: Any, origin: Head | None, first: Head, tensors: Mapping[str, NDArray[Any]]
) -> dict[str, NDArray[Any]] | None:
    if base is None:
        return None
    if origin is None:
        return {name: np.zeros_like(array) for name, array in tensors.items()}
    found = head_tensors(origin)
    if not same_standardiser(first.featurizer_, origin.featurizer_):
        found["coef"] = fold(found["coef"], origin.featurizer_, first.featurizer_)
    return {name: found[name] for name in tensors}


def _record(
    kind: type[MergeMethod],
    weights: NDArray[np.float64] | None,
    options: Mapping[str, Any],
    layers: str,
    report: CompatibilityReport,
) -> dict[str, Any]:
    return {
        "method": kind.registered_name,
        "weights": None if weights is None else weights.tolist(),
        "options": dict(options),
        "layers": layers,
        "models": [facts["digest"] for facts in report.facts if facts["name"] != "base"],
        "names": [facts["name"] for facts in report.facts if facts["name"] != "base"],
    }


def _head(first: Head, merged: Mapping[str, NDArray[Any]], record: dict[str, Any]) -> Head:
    """Return a fitted head with the first one's parameters and featurizer, and the merged weights."""
    head: Head = clone(first)
    head.featurizer_, head.n_features_in_ = first.featurizer_, first.n_features_in_
    head.merge_ = record
    if isinstance(head, LinearHead):
        head.coef_, head.cv_results_, head.objective_ = merged["coef"], [], float("nan")
        head.l2_ = first.l2_
        return head
    whole = {**head_tensors(first), **merged}
    stems = [name.removesuffix(".weight") for name in whole if name.endswith(".weight")]
    head.weights_ = [whole[f"{stem}.weight"].copy() for stem in stems]
    head.biases_ = [whole[f"{stem}.bias"].copy() for stem in stems]
    head.n_epochs_, head.train_losses_, head.validation_losses_ = 0, np.empty(0), np.empty(0)
    head.init_ = getattr(first, "init_", "")
    return head
