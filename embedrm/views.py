"""Names of views: which side of the data a matrix describes, and from which encoder layer it comes.

A view is ``side:layer`` with side ``response``, ``prompt`` or ``joint`` (prompt and response encoded as one text) and
layer a number (mean-pooled states after that transformer block) or ``final`` (the encoder's own sentence embedding).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, TypeAlias

from embedrm.errors import InvalidInputError, unknown_name

Layer: TypeAlias = "int | Literal['final']"
Side = Literal["response", "prompt", "joint"]
SIDES: tuple[Side, ...] = ("response", "prompt", "joint")


def view_name(side: Side, layer: Layer) -> str:
    """Return ``"response:3"`` and the like."""
    return f"{side}:{layer}"


def parse_layers(layers: str | int | Iterable[str | int]) -> tuple[Layer, ...]:
    """Read layers from ``"3,6"``, ``6``, ``"final"`` or a sequence of them; order kept, repeats refused."""
    parts: Iterable[str | int]
    if isinstance(layers, str):
        parts = layers.split(",")
    else:
        parts = layers if isinstance(layers, Iterable) else [layers]
    out: list[Layer] = []
    for part in parts:
        text = str(part).strip()
        if text == "final":
            layer: Layer = "final"
        elif text.isdecimal():
            layer = int(text)
        else:
            raise InvalidInputError(
                f"expected a layer number or 'final', got {part!r}; write for example '3,6' or 'final'"
            )
        if layer in out:
            raise InvalidInputError(f"layer {layer!r} is named twice in {layers!r}; name each layer once")
        out.append(layer)
    if not out:
        raise InvalidInputError("expected at least one layer, got none; write for example '3,6' or 'final'")
    return tuple(out)


def parse_view(view: str) -> tuple[Side, Layer]:
    """Split ``"prompt:6"`` into its side and layer."""
    side, colon, layer = view.partition(":")
    if side not in SIDES or not colon or "," in layer:
        raise InvalidInputError(
            f"expected a view such as 'response:3', 'prompt:final' or 'joint:6', got {view!r}; sides are {', '.join(SIDES)}"
        )
    return side, parse_layers(layer)[0]


def select_views(
    wanted: str | Iterable[str] | None, available: Iterable[str], default_side: Side, who: str
) -> tuple[str, ...]:
    """Resolve a user's choice of views against those present.

    Parameters
    ----------
    wanted : str, sequence of str or None
        ``None`` takes every available view; ``"3,6"`` means those layers of ``default_side``; full names such as
        ``"joint:6"`` may be mixed in.
    available : iterable of str
        Views that exist.
    default_side : str
        Side of a bare layer. Where it is "prompt", only prompt views are accepted; otherwise only views with a row for
        each response ("response" and "joint").
    who : str
        Who asks, for the error.
    """
    known = list(available)
    if wanted is None:
        names = tuple(v for v in known if v.partition(":")[0] == default_side)
        if not names:
            raise InvalidInputError(
                f"{who} needs at least one {default_side} view, got none; present: {', '.join(known) or 'no view at all'}"
            )
        return names
    parts = wanted.split(",") if isinstance(wanted, str) else list(wanted) if isinstance(wanted, Iterable) else [wanted]
    names = tuple(v.strip() if ":" in str(v) else view_name(default_side, parse_layers(str(v))[0]) for v in parts)
    for name in names:
        side, _ = parse_view(name)
        if (side == "prompt") != (default_side == "prompt"):
            raise InvalidInputError(
                f"{who} expects views with a row for each {'prompt' if default_side == 'prompt' else 'response'}, got "
                f"{name!r}; name a {default_side} view"
            )
        if name not in known:
            raise unknown_name(f"view for {who}:", name, known)
    if len(set(names)) != len(names):
        raise InvalidInputError(f"{who} names a view twice: {', '.join(names)}; name each view once")
    return names
