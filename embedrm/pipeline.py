"""Encoder and reward model together: the one object that takes text and gives rewards."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from embedrm.datasets.template import PLAIN, Template
from embedrm.encoding import Layers, encode
from embedrm.errors import InvalidInputError, ModelError
from embedrm.persistence import load_model, save_model
from embedrm.progress import Progress, silent
from embedrm.views import parse_view

if TYPE_CHECKING:
    from embedrm.datasets import PreferenceDataset
    from embedrm.encoders import Encoder
    from embedrm.preferences import EmbeddedPreferences
    from embedrm.reward_model import RewardModel
    from embedrm.store import EmbeddingStore


class RewardPipeline:
    """A frozen encoder, a template and a reward model.

    Parameters
    ----------
    encoder : Encoder
        Turns text into vectors.
    model : RewardModel
        Fitted, or to be fitted by :meth:`fit`.
    layers : str, int, sequence or mapping of side to these, optional
        Layers encoded for fitting; the encoder's default layers where absent. A fitted model is given the views it
        reads, and no others.
    sides : sequence of {"response", "prompt", "joint"}
        Sides encoded for fitting.
    template : Template
        How system text, context and prompt become one text.
    store : EmbeddingStore, optional
        The user's default store where absent; False keeps nothing.

    Examples
    --------
    >>> from embedrm import HashingEncoder, LinearHead, RewardPipeline, load_bundled
    >>> pipeline = RewardPipeline(HashingEncoder(), LinearHead(), store=False)
    >>> pipeline = pipeline.fit(load_bundled().split("train"))
    >>> pipeline.score("What is 2 + 3?", ["5", "It is 6."]).shape
    (2,)
    """

    def __init__(
        self,
        encoder: Encoder,
        model: RewardModel,
        *,
        layers: Layers | Mapping[str, Layers] = None,
        sides: Iterable[str] = ("response", "prompt"),
        template: Template = PLAIN,
        store: EmbeddingStore | bool | None = None,
    ) -> None:
        self.encoder = encoder
        self.model = model
        self.layers = layers
        self.sides = sides
        self.template = template
        self.store = store
        self.training: dict[str, Any] = {}

    def fit(self, dataset: PreferenceDataset, *, progress: Progress = silent) -> RewardPipeline:
        """Encode the data set and fit the model on its pairs. Returns self."""
        preferences = encode(
            dataset,
            self.encoder,
            layers=self.layers,
            sides=self.sides,
            store=self._store(),
            template=self.template,
            progress=progress,
        )
        self.model.fit(preferences)
        self.training = training_facts(preferences)
        return self

    def encode(self, dataset: PreferenceDataset, *, progress: Progress = silent) -> EmbeddedPreferences:
        """Encode the views that the fitted model reads."""
        layers: dict[str, list[str]] = {}
        for view in self.model.required_views() or (f"response:{self.encoder.default_layers[-1]}",):
            side, layer = parse_view(view)
            layers.setdefault(side, []).append(str(layer))
        return encode(
            dataset,
            self.encoder,
            layers=layers,
            sides=tuple(layers),
            store=self._store(),
            template=self.template,
            progress=progress,
        )

    def predict(self, dataset: PreferenceDataset, *, progress: Progress = silent) -> NDArray[np.float64]:
        """Rewards of all responses of a data set, in its order; shape (n_responses,)."""
        return self.model.predict(self.encode(dataset, progress=progress))

    def score(
        self,
        prompts: str | Sequence[str],
        responses: Sequence[str],
        *,
        system: str | Sequence[str] = "",
        context: str | Sequence[str] = "",
        domain: str | Sequence[str] = "default",
        progress: Progress = silent,
    ) -> NDArray[np.float64]:
        """Rewards of responses to prompts.

        Parameters
        ----------
        prompts : str or sequence of str
            One prompt for all responses, or one for each.
        responses : sequence of str
        system, context, domain : str or sequence of str
            For all prompts, or one for each. The domain is read by oracle routing only.

        Returns
        -------
        ndarray of shape (len(responses),), float64
        """
        from embedrm.datasets import PreferenceDataset

        if isinstance(responses, str):
            raise InvalidInputError(
                "score expects a sequence of responses, got one string; put it in a list: [response]"
            )
        n = len(responses)
        columns: dict[str, str | Sequence[str]] = {
            "prompt": prompts,
            "system": system,
            "context": context,
            "domain": domain,
        }
        wide = {name: _each(name, value, n) for name, value in columns.items()}
        for name, values in {**wide, "response": list(responses)}.items():
            wrong = next((type(v).__name__ for v in values if not isinstance(v, str)), None)
            if wrong is not None:
                raise InvalidInputError(f"score expects every {name} to be a string, got {wrong}")
        row_of: dict[tuple[str, str, str, str], int] = {}
        keys = list(zip(*(wide[name] for name in columns)))
        prompt_of = [row_of.setdefault(key, len(row_of)) for key in keys]
        # A sampler may give one response twice: it is one row of the data, and has one reward.
        response_row: dict[tuple[int, str], int] = {}
        rows = np.array(
            [response_row.setdefault(key, len(response_row)) for key in zip(prompt_of, responses)], dtype=np.intp
        )
        if not n:
            return np.empty(0)
        import pandas as pd

        dataset = PreferenceDataset(
            pd.DataFrame(list(row_of), columns=list(columns)),
            pd.DataFrame(list(response_row), columns=["prompt_of", "response"]),
            pd.DataFrame({"chosen": np.empty(0, np.int64), "rejected": np.empty(0, np.int64)}),
            name="score",
        )
        return self.predict(dataset, progress=progress)[rows]

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Save to a folder (JSON and safetensors; the encoder by name and fingerprint, not its weights)."""
        return save_model(
            self.model,
            folder,
            overwrite=overwrite,
            extra={
                "encoder": self.encoder.spec(),
                "fingerprint": self.encoder.fingerprint(),
                "digest": self.encoder.fingerprint_digest(),
                "template": self.template.fingerprint(),
                "training": self.training,
            },
        )

    @classmethod
    def load(
        cls, folder: str | Path, *, encoder: Encoder | None = None, store: EmbeddingStore | bool | None = None
    ) -> RewardPipeline:
        """Load what :meth:`save` wrote.

        Parameters
        ----------
        folder : path-like
        encoder : Encoder, optional
            Used instead of the saved description; its fingerprint must be the saved one.
        store : EmbeddingStore, optional
            As in the constructor.

        Raises
        ------
        ModelError
            If the folder is no saved pipeline, or the encoder found here gives other vectors than the one it was
            trained with.
        """
        from embedrm.encoders import encoder_from_spec

        model, extra = load_model(folder)
        if "encoder" not in extra:
            raise ModelError(
                f"{folder} was fitted on bring-your-own vectors and knows no encoder; use it with vectors, or fit on texts"
            )
        if encoder is None:
            encoder = encoder_from_spec(extra["encoder"])
        found = encoder.fingerprint()
        if encoder.fingerprint_digest() != extra["digest"]:
            saved = extra["fingerprint"]
            different = sorted(k for k in {*saved, *found} if saved.get(k) != found.get(k))
            raise ModelError(
                f"{folder} was trained with another encoder: {', '.join(different) or 'its fingerprint'} differ(s); "
                "its rewards would mean nothing with this one. Install the encoder it names, or train again"
            )
        pipeline = cls(encoder, model, template=_template(extra["template"]), store=store)
        pipeline.training = dict(extra.get("training", {}))
        return pipeline

    def _store(self) -> Any:
        if self.store is True:
            raise InvalidInputError(
                "store must be an EmbeddingStore, None (the default store) or False (none), got True"
            )
        return self.store


def training_facts(preferences: EmbeddedPreferences) -> dict[str, Any]:
    """What a saved model says of its training data: fingerprints, counts, domains."""
    info = preferences.responses.info
    return {
        "data": info.get("data"),
        "n_pairs": preferences.n_pairs,
        "n_ties": int(preferences.ties.sum()),
        "domains": list(preferences.domains),
    }


def _each(name: str, value: str | Sequence[str], n: int) -> list[str]:
    values = [value] * n if isinstance(value, str) else list(value)
    if len(values) != n:
        raise InvalidInputError(f"score expects one {name} or one for each of {n} responses, got {len(values)}")
    return values


def _template(saved: Mapping[str, Any]) -> Template:
    plain = {k: saved[k] for k in (f.name for f in fields(Template)) if k in saved}
    plain["order"] = tuple(plain["order"])
    plain["turn_labels"] = tuple((a, b) for a, b in plain["turn_labels"])
    return Template(**plain)
