"""Preferences encoded for the Reusing-Embeddings study: one vector a response, and a second encoder where one is given."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedrm.encoding import encode
from embedrm.experiments.reuse_settings import Setting, encoded
from embedrm.experiments.study import load_dataset, with_splits
from embedrm.progress import Progress, silent
from embedrm.reporting import collect

if TYPE_CHECKING:
    from embedrm.preferences import EmbeddedPreferences


@dataclass(frozen=True)
class EncodedData:
    """Encoded data of the study.

    Attributes
    ----------
    name : str
    settings : list of Setting
        One for each encoder; empty where the data have no gold.
    told : list of str
        What was encoded, and how.
    info : dict
        Of the first encoding.
    """

    name: str
    settings: list[Setting]
    told: list[str]
    info: dict[str, Any]

    def provenance(self, started: float, command: str | None, seeds: Any) -> dict[str, Any]:
        """Collect the facts of this run for a report."""
        info = self.info
        extra = {"truncation": info["truncation"], "template": info["template"]}
        return collect(
            command=command, seeds=seeds, encoder=info["encoder"], data=info["data"], started=started, extra=extra
        )


def prepare_reuse(
    data: Any = None,
    encoder: Any = None,
    against: Any = None,
    *,
    store: Any = None,
    random_state: int = 0,
    progress: Progress = silent,
) -> EncodedData:
    """Encode the data by an encoder, and by a second one that it is compared with.

    A causal language model reads prompt and response as one text, of which the last token's state after the last block is
    the vector, as in the paper. Any other encoder reads the response, and its last layer is taken.

    Parameters
    ----------
    data : PreferenceDataset, path or list of paths, optional
        The bundled data where absent.
    encoder, against : Encoder or str, optional
        Such as ``"causal:FOLDER"``. ``against``: for a base model beside a tuned one.
    store, progress
        As in :func:`embedrm.encode`.
    random_state : int
        Of the split, where the data bring none.
    """
    from embedrm.encoders import load_encoder

    dataset = with_splits(load_dataset(data), random_state)
    chosen = [encoder, *([] if against is None else [against])]
    models = [load_encoder(one) if isinstance(one, str) else load_encoder() if one is None else one for one in chosen]
    settings, told, infos = [], [], []
    for number, model in enumerate(models, start=1):
        causal = type(model).registered_name == "causal"
        layer = tuple(model.default_layers)[-1]
        options: dict[str, Any] = {"layers": (layer,), "sides": ("joint",)} if causal else {"sides": ("response",)}
        preferences: EmbeddedPreferences = encode(dataset, model, store=store, progress=progress, **options)
        view = f"{'joint' if causal else 'response'}:{layer}"
        info = preferences.responses.info
        name = str(info["encoder"].get("model", info["encoder"].get("kind")))
        if len(models) > 1:
            # a base model and one tuned from it have one architecture and one name
            name = _given_name(model, name)
        split = preferences.responses.split[preferences.prompt_rows]
        label = dataset.name or "data"
        setting = encoded(
            preferences[split == "train"],
            preferences[split == "test"],
            label if len(models) == 1 else f"{label}, encoder {number}: {name}",
            view,
        )
        settings += [] if setting is None else [setting]
        which = "Encoder" if len(models) == 1 else f"Encoder {number}"
        told.append(_told(dataset.name or "unnamed", f"{which}: {name}", view, model, info, setting))
        infos.append(info)
    return EncodedData(dataset.name or "unnamed", settings, told, infos[0])


def _given_name(model: Any, name: str) -> str:
    """The end of what an encoder was named by, and its own name where that is another."""
    given = Path(str(getattr(model, "model", name))).name
    return name if given in ("", name) else f"{given} ({name})"


def _told(data: str, name: str, view: str, model: Any, info: dict[str, Any], setting: Setting | None) -> str:
    side = view.partition(":")[0]
    cut = info["truncation"][side]
    how = f"{getattr(model, 'pooling', '')}-token states of prompt and response as one text" if side == "joint" else ""
    graded = (
        f"{setting.train.n_prompts:,} training and {setting.candidates.n_prompts:,} test prompts have responses of "
        "different gold"
        if setting is not None
        else "no graded responses that differ, so that this part is left out"
    )
    return (
        f"Data: {data}; {graded}. {name}, frozen; view {view}{f' ({how})' if how else ''}; {cut['truncated']:,} "
        f"of {cut['texts']:,} texts truncated."
    )
