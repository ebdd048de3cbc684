"""What ``embedrm merge`` merges: encoders, or heads that were fitted on vectors of one encoder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedrm.errors import InvalidInputError, ModelError

if TYPE_CHECKING:
    from embedrm.merging.compatibility import CompatibilityReport


@dataclass(frozen=True)
class Request:
    """What is asked for."""

    paths: list[str]
    weights: list[float] | None
    method: str
    base: str | None
    options: dict[str, Any]
    accept: list[str]
    rotation: str
    layers: str
    rescale: bool
    align: bool
    moments: list[str] | None
    dtype: str | None


class Encoders:
    """Encoders' folders, tuned ones among them."""

    def __init__(self, request: Request) -> None:
        self.request = request
        if request.layers != "all" or request.rescale or request.align:
            raise InvalidInputError(
                "--layers, --rescale and --align are for heads, and these are encoders; leave them out"
            )

    def report(self) -> CompatibilityReport:
        """Compare what is merged."""
        from embedrm.cli._merge_config import TYPES
        from embedrm.merging.encoder_report import compare_encoders

        r = self.request
        report = compare_encoders(r.paths, base=r.base, accept=r.accept, rotation=r.rotation)
        own = [t for t in report.facts[0]["types"] if t in TYPES.values()]
        if r.dtype is not None and own != [TYPES[r.dtype]]:
            kept = ", ".join(name for name, kind in TYPES.items() if kind in own)
            raise InvalidInputError(
                f"dtype: {r.dtype} is not what is written: the merged encoder keeps the first model's numbers, {kept}; "
                f"leave dtype out, or save {r.paths[0]} in {r.dtype} first"
            )
        return report

    def save(self, place: Path) -> dict[str, Any]:
        """Merge into a folder, and return the facts of the merge."""
        from embedrm.merging.encoders import merge_encoders

        r = self.request
        return merge_encoders(
            r.paths,
            place,
            r.weights,
            r.method,
            base=r.base,
            accept=r.accept,
            rotation=r.rotation,
            moments=r.moments,
            **r.options,
        )


class Heads:
    """Linear heads or perceptrons that were fitted and saved, on vectors of one encoder."""

    def __init__(self, request: Request) -> None:
        from embedrm.persistence import load_model

        self.request = request
        if request.accept or request.rotation != "none" or request.moments:
            raise InvalidInputError(
                "--accept, --rotation and --moments are for encoders, and these are heads; leave them out"
            )
        if request.dtype is not None:
            raise InvalidInputError(
                "dtype is for encoders, and these are heads, whose numbers stay as they are; leave it out"
            )
        loaded = [load_model(path) for path in request.paths]
        self.models = [model for model, _ in loaded]
        self.extra = loaded[0][1]
        self.base: Any = request.base
        further = [(path, extra) for path, (_, extra) in zip(request.paths[1:], loaded[1:])]
        if request.base not in (None, "zero"):
            self.base, extra = load_model(str(request.base))
            further.append((str(request.base), extra))
        for path, extra in further:
            for key, what in (("digest", "encoder"), ("template", "template")):
                if extra.get(key) != self.extra.get(key):
                    raise ModelError(
                        f"{path} was fitted with another {what} than {request.paths[0]}; their weights mean other things. "
                        "Fit both alike, or merge their rewards"
                    )

    @property
    def _settings(self) -> dict[str, Any]:
        r = self.request
        return {"names": r.paths, "layers": r.layers, "rescale": r.rescale, "align": r.align}

    def report(self) -> CompatibilityReport:
        """Compare what is merged."""
        from embedrm.merging.compatibility import compare_heads

        base = None if isinstance(self.base, str) else self.base
        return compare_heads(self.models, base=base, **self._settings)

    def save(self, place: Path) -> dict[str, Any]:
        """Merge into a folder, and return the facts of the merge."""
        from embedrm.merging.heads import merge_heads
        from embedrm.persistence import save_model

        r = self.request
        if place.exists():
            raise InvalidInputError(f"{place} is already there, and a merged model is never written over; give another")
        merged: Any = merge_heads(self.models, r.weights, r.method, base=self.base, **self._settings, **r.options)
        facts: dict[str, Any] = dict(merged.merge_)
        training = {**self.extra.get("training", {}), "merge": facts}
        save_model(merged, place, extra={**self.extra, "training": training})
        return facts
