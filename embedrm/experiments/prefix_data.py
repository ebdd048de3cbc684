"""What a study of prefix rewards starts from: texts with an attribute, a language model to guide, another one to judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from embedrm.experiments.prefix_shelf import Shelf
from embedrm.experiments.prefix_texts import AttributeTexts, bundled_texts, read_attribute_texts
from embedrm.experiments.prefix_tuning import Tuning
from embedrm.language_models import load_language_models
from embedrm.language_models.model import LanguageModel
from embedrm.progress import Progress, silent
from embedrm.reporting import collect

GUIDED, JUDGE = "bundled", "bundled:judge"


@dataclass(frozen=True)
class PrefixPreset:
    """Sizes of a study.

    Attributes
    ----------
    sizes : dict of part to int
        The most texts of each.
    n_prompts, n, new_tokens, top_k : int
        Of decoding: prompts, continuations of each, their tokens at most, candidates.
    betas : tuple of float
        Strengths of guidance on the curves.
    beta : float
        The one at which ablations, ranks and tuned backbones are compared; one of ``betas``.
    n_prefixes, n_tokens : int
        Of reward matrices.
    counts : tuple of int
        Prefixes at which their rank is told.
    ranks : tuple of int
        r of W = U V'.
    ks : tuple of int
        Candidates of the timing.
    timed_tokens, repeats : int
    epochs : int
        Of the perceptron on token-pair matrices.
    tuning : Tuning or None
        Of the backbone.
    n_resamples : int
    """

    sizes: dict[str, int]
    n_prompts: int
    n: int
    betas: tuple[float, ...]
    beta: float
    n_prefixes: int
    n_tokens: int
    counts: tuple[int, ...]
    ranks: tuple[int, ...]
    ks: tuple[int, ...] = (5, 20, 80)
    new_tokens: int = 20
    top_k: int = 20
    timed_tokens: int = 24
    repeats: int = 9
    epochs: int = 400
    tuning: Tuning | None = field(default_factory=Tuning)
    n_resamples: int = 2000


PREFIX_PRESETS = {
    "quick": PrefixPreset(
        sizes={"train": 2000, "validation": 400, "test": 600, "judge": 4000, "judge-test": 1000},
        n_prompts=60,
        n=4,
        betas=(2.0, 5.0, 10.0, 20.0),
        beta=10.0,
        n_prefixes=200,
        n_tokens=200,
        counts=(25, 50, 100, 200),
        ranks=(1, 4, 16),
    ),
    "full": PrefixPreset(
        sizes={"train": 8000, "validation": 1000, "test": 2000, "judge": 12000, "judge-test": 3000},
        n_prompts=200,
        n=25,
        betas=(1.0, 2.0, 5.0, 10.0, 20.0, 40.0),
        beta=10.0,
        n_prefixes=2000,
        n_tokens=1000,
        counts=(50, 100, 250, 500, 1000, 2000),
        ranks=(1, 2, 4, 8, 16, 32, 64),
        ks=(1, 5, 20, 40, 80),
        timed_tokens=48,
        repeats=15,
        tuning=Tuning(steps=600),
    ),
}


@dataclass(frozen=True)
class PrefixData:
    """Texts and models.

    Attributes
    ----------
    texts : AttributeTexts
    lm, fluency : LanguageModel
        The guided one, which the heads read too; and the one that judges fluency.
    shelf : Shelf
    """

    texts: AttributeTexts
    lm: LanguageModel
    fluency: LanguageModel
    shelf: Shelf

    def sentences(self) -> list[str]:
        """Say what was read and which models these were."""
        return [
            self.texts.sentence(),
            *self.texts.notes,
            f"Guided, and read by the heads: {self.lm.describe()}.",
            f"Judge of fluency: {self.fluency.describe()}.",
        ]

    def provenance(self, started: float, command: str | None, seeds: Any) -> dict[str, Any]:
        """Collect the facts of this run for a report."""
        data = {
            "name": self.texts.name,
            "attribute": self.texts.attribute,
            "texts": {name: len(part) for name, part in self.texts.parts.items()},
            "fingerprint": self.texts.fingerprint(),
        }
        models = {
            name: {"told": lm.describe(), "fingerprint": lm.fingerprint()}
            for name, lm in (("guided", self.lm), ("judge", self.fluency))
        }
        return collect(command=command, seeds=seeds, data=data, started=started, extra={"language_models": models})


def prepare_prefixes(
    preset: PrefixPreset,
    data: AttributeTexts | str | Path | Sequence[str | Path] | None = None,
    *,
    lm: str | LanguageModel = GUIDED,
    judge: str | LanguageModel = JUDGE,
    shelf: Shelf | None = None,
    progress: Progress = silent,
) -> PrefixData:
    """Write or read the texts, load the models (training the bundled ones at first use).

    Parameters
    ----------
    preset : PrefixPreset
    data : AttributeTexts, path or list of paths, optional
        The bundled corpus where absent.
    lm, judge : str or LanguageModel
        Names as in :func:`embedrm.language_models.load_language_model`.
    shelf : Shelf, optional
    progress : Progress
    """
    if data is None:
        texts = bundled_texts(preset.sizes)
    elif isinstance(data, AttributeTexts):
        texts = data
    else:
        texts = read_attribute_texts(data, preset.sizes)
    names = [name for name in (lm, judge) if not isinstance(name, LanguageModel)]
    loaded = iter(load_language_models(*names, progress=progress))
    guided, judging = (name if isinstance(name, LanguageModel) else next(loaded) for name in (lm, judge))
    return PrefixData(texts, guided, judging, shelf or Shelf())
