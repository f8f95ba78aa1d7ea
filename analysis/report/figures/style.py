"""How figures look: readable in grey, by the colour-blind, and in a column of a paper.

Colours are Okabe and Ito's, ordered so that neighbours differ in lightness; every arm also has its own marker
and dash. Figures are plain `matplotlib.figure.Figure` objects, without pyplot and its global state.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec

from analysis.records.outputs import write_output

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

P = ParamSpec("P")
COLOURS = ("#000000", "#E69F00", "#0072B2", "#56B4E9", "#D55E00", "#009E73", "#CC79A7", "#8C8C00")
MARKERS = "osD^vPX*"
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)), (0, (7, 2, 1, 2)))
FORMATS = ("pdf", "svg", "png")
_RC = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
    "svg.hashsalt": "analysis",  # the same figure is the same file
    "pdf.fonttype": 42,  # real fonts, not outlines that publishers refuse
}


def plainly(draw: Callable[P, Figure]) -> Callable[P, Figure]:
    """A function that draws, in which a `$` in a name is a dollar, and no name is TeX."""

    @functools.wraps(draw)
    def inside(*arguments: P.args, **options: P.kwargs) -> Figure:
        import matplotlib as mpl

        with mpl.rc_context({"text.parse_math": False, "text.usetex": False}):
            return draw(*arguments, **options)

    return inside


def panels(
    columns: int = 1, rows: int = 1, width: float = 3.4, height: float = 2.6, share_y: bool = False
) -> tuple[Figure, list[Axes]]:
    """A new figure and its axes, row by row; width and height are of one panel, in inches."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_RC):
        figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False, sharey=share_y)
    return figure, list(grid.ravel())


def look(index: int) -> dict[str, object]:
    """Colour, marker and dash of the index-th arm."""
    return {
        "color": COLOURS[index % len(COLOURS)],
        "marker": MARKERS[index % len(MARKERS)],
        "linestyle": DASHES[index % len(DASHES)],
    }


def save(figure: Figure, stem: str | Path, formats: tuple[str, ...] = FORMATS) -> list[Path]:
    """Write STEM.pdf, STEM.svg and STEM.png; returns the paths."""
    stem = Path(stem)
    return [write_output(stem.with_name(f"{stem.name}.{form}"), _rendered(figure, form, dpi=200)) for form in formats]


def svg(figure: Figure) -> str:
    """The figure as SVG text, the same for the same figure."""
    return _rendered(figure, "svg").decode()


def _rendered(figure: Figure, form: str, **options: int) -> bytes:
    import matplotlib as mpl

    out = io.BytesIO()
    undated = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(form, {})
    with mpl.rc_context(_RC):
        figure.savefig(out, format=form, metadata=undated, **options)
    return out.getvalue()
