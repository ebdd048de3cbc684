"""Colours, chosen so that neighbouring series differ for every common kind of colour vision, on light and on dark.

Each colour has at least 3:1 contrast with its paper. In HTML the light colours are replaced by variables, so that
one drawing serves both schemes.
"""

from __future__ import annotations

INK = "#1b2126"
MUTED = "#5b6670"
GRID = "#e2e6ea"
PAPER = "#ffffff"

SERIES = ("#0b4f94", "#b93a08", "#0c8a6a", "#c8629f", "#b98a10", "#4394cf", "#5f3118", "#4d555e")
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "h")
DASHES = ("-", (0, (5, 1.6)), (0, (1.4, 1.4)), (0, (6, 1.6, 1.4, 1.6)))

VARIABLES = {INK: "fig-ink", MUTED: "fig-muted", GRID: "fig-grid", PAPER: "fig-paper"} | {
    colour: f"fig-{i + 1}" for i, colour in enumerate(SERIES)
}
LIGHT = {name: colour for colour, name in VARIABLES.items()}
DARK = {
    "fig-ink": "#e4e7ea",
    "fig-muted": "#9aa5af",
    "fig-grid": "#2e353c",
    "fig-paper": "#171b1f",
    "fig-1": "#4f9cf0",
    "fig-2": "#f2763d",
    "fig-3": "#3fd3a8",
    "fig-4": "#ec9bcb",
    "fig-5": "#f0cf63",
    "fig-6": "#a6dcff",
    "fig-7": "#b5795a",
    "fig-8": "#8a949e",
}

# Colour scales of heat maps, ends inwards; none of their stops is a colour above, so dark mode leaves them alone.
SEQUENTIAL = ("#f4f7fa", "#c9dcec", "#8fb8d8", "#4f8dbd", "#1f5f98", "#0b366a")
DIVERGING = ("#8f2f06", "#c96a34", "#eab48d", "#f6f4f0", "#a5c5e0", "#4a86bb", "#0c4680")
CELL_DARK = "#12181d"
CELL_LIGHT = "#fcfdfe"
ABSENT_CELL = "#eceff1"
