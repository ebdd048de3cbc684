"""From texts to what a saved model reads: its own encoder, each view encoded once, truncation told."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from embedrm.cli._common import Console
from embedrm.cli._models import Loaded
from embedrm.encoding import encode
from embedrm.errors import InvalidInputError, ModelError
from embedrm.pipeline import RewardPipeline
from embedrm.preferences import EmbeddedPreferences, EmbeddedResponses, Rows
from embedrm.progress import Progress
from embedrm.reward_model import RewardModel
from embedrm.views import parse_view

if TYPE_CHECKING:
    from embedrm.datasets import PreferenceDataset
    from embedrm.encoders import Encoder


class OnItsOwnVectors(RewardModel):
    """A fitted model together with the pairs as its own encoder sees them.

    Models of different encoders are compared on the same pairs; each reads its own vectors of them.

    Parameters
    ----------
    model : RewardModel
    preferences : EmbeddedPreferences
        The same pairs, in the same order, as those that :meth:`margins` is asked for.
    """

    def __init__(self, model: RewardModel, preferences: EmbeddedPreferences) -> None:
        self.model = model
        self.preferences = preferences

    @property
    def margins_are_logits(self) -> bool:
        """As the model has it."""
        return self.model.margins_are_logits

    def margins(self, preferences: EmbeddedPreferences) -> NDArray[np.float64]:
        """Return the model's margins on its own vectors of the pairs."""
        self._check_pairs(preferences)
        return self.model.margins(self.preferences)

    @property
    def predict_proba(self) -> Callable[[EmbeddedPreferences], NDArray[np.float64]]:
        """The model's probabilities on its own vectors of the pairs, where it has any; an AttributeError where not."""
        proba: Callable[[EmbeddedPreferences], NDArray[np.float64]] = self.model.predict_proba

        def on_own(preferences: EmbeddedPreferences) -> NDArray[np.float64]:
            self._check_pairs(preferences)
            return proba(self.preferences)

        return on_own

    def _check_pairs(self, preferences: EmbeddedPreferences) -> None:
        if not np.array_equal(preferences.pairs, self.preferences.pairs):
            raise InvalidInputError("a model with vectors of its own was asked for other pairs than these vectors have")

    def _rewards(self, responses: EmbeddedResponses, rows: Rows | None) -> NDArray[np.float64]:
        return self.model._rewards(self.preferences.responses, rows)


def open_pipelines(loaded: Sequence[Loaded], encoder: str | None, store: Any) -> list[RewardPipeline]:
    """Return the pipeline of each saved model; one without an encoder is an error that says what to do."""
    for one in loaded:
        if "encoder" not in one.extra:
            raise ModelError(
                f"{one.folder} was fitted on bring-your-own vectors and has no encoder for texts; give it vectors with "
                "--vectors"
            )
    return [
        RewardPipeline.load(one.folder, encoder=None if encoder is None else _elsewhere(one, encoder), store=store)
        for one in loaded
    ]


def _elsewhere(one: Loaded, encoder: str) -> Encoder:
    """Return a model's own encoder, with its weights taken from where ``--encoder`` says."""
    from embedrm.encoders import encoder_from_spec, load_encoder

    found = load_encoder(encoder)
    saved = one.extra["encoder"]
    if found.spec()["encoder"] != saved.get("encoder"):
        return found
    default = {name: p.default for name, p in inspect.signature(type(found)).parameters.items()}
    said = {name: value for name, value in found.get_params().items() if value != default[name]}
    return encoder_from_spec({**saved, **said})


def encode_for(
    pipelines: Sequence[RewardPipeline], data: PreferenceDataset, progress: Progress
) -> list[EmbeddedPreferences]:
    """Encode the pairs for each pipeline; those of one encoder and template share their vectors."""
    kin: dict[tuple[str, str], list[int]] = {}
    for i, pipeline in enumerate(pipelines):
        kin.setdefault((pipeline.encoder.fingerprint_digest(), repr(pipeline.template)), []).append(i)
    out: dict[int, EmbeddedPreferences] = {}
    for members in kin.values():
        first = pipelines[members[0]]
        layers: dict[str, list[str]] = {}
        views = {view for i in members for view in pipelines[i].model.required_views()}
        for view in sorted(views) or [f"response:{first.encoder.default_layers[-1]}"]:
            side, layer = parse_view(view)
            layers.setdefault(side, []).append(str(layer))
        preferences = encode(
            data,
            first.encoder,
            layers=layers,
            sides=tuple(layers),
            store=first.store,  # type: ignore[arg-type]
            template=first.template,
            progress=progress,
        )
        out |= dict.fromkeys(members, preferences)
    return [out[i] for i in range(len(pipelines))]


def on_shared_pairs(
    loaded: Sequence[Loaded], preferences: Sequence[EmbeddedPreferences]
) -> tuple[dict[str, RewardModel], EmbeddedPreferences]:
    """Return models by name and the pairs of the first; others' vectors travel with their models."""
    first = preferences[0]
    models = {
        one.name: one.model if own is first else OnItsOwnVectors(one.model, own)
        for one, own in zip(loaded, preferences)
    }
    return models, first


def note_truncation(preferences: EmbeddedPreferences, console: Console) -> None:
    """Say how much the encoder could not read."""
    for side, facts in preferences.responses.info.get("truncation", {}).items():
        if facts["truncated"]:
            console.note(
                f"truncation: {facts['truncated']:,} of {facts['texts']:,} {side} texts are longer than the encoder reads; "
                f"{facts['tokens_cut']:,} of {facts['tokens']:,} tokens were cut off"
            )
        if facts.get("pairs_made_identical"):
            console.note(
                f"truncation: {facts['pairs_made_identical']:,} pairs have two {side} texts that are the same once cut; "
                "they can teach and test nothing"
            )
