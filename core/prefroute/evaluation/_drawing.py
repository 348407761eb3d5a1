"""How the figures of the evaluation report look. matplotlib is imported in use, and its settings are left alone.

Colours are those of Okabe and Ito, told apart by people who do not see all of them; lines also differ in their dashes.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

from prefroute.evaluation._format import percent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#5D3A9B")
DASHES: tuple[Any, ...] = ("-", (0, (6, 1.8)), (0, (6, 1.8, 1.2, 1.8)), (0, (2, 1.2)))
DOTS: Any = (0, (1, 2))
INK, FAINT, PALE, GREY = "#24292f", "#5b6470", "#bfc5cc", "#8a939e"

WIDE, NARROW = (5.6, 3.6), (4.2, 2.9)
"""Width and height in inches, without the legend."""

LINE = 0.2
"""Inches that a line of a legend takes."""

LABEL, TITLE = 24, 44
"""Characters of a name in a legend, and above a figure."""

_ROOM, _POINTS_PER_INCH = 1.75, 72
"""Inches for a name in a legend of two columns, whatever its letters."""

_TWICE = 192
"""Dots per inch: a browser shows 96."""

_STYLE: Any = {
    "axes.axisbelow": True,
    "axes.edgecolor": FAINT,
    "axes.formatter.useoffset": False,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial"],  # the first comes with matplotlib; others are no wider
    "font.size": 10,
    "grid.color": "#e4e7eb",
    "legend.fontsize": 9,
    "lines.linewidth": 1.9,
    "svg.fonttype": "none",  # text stays text: half the size, and slides can edit it
    "svg.hashsalt": "prefroute",
    "text.color": INK,
    "text.parse_math": False,  # a name may hold dollar signs
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
}


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A figure as files.

    Attributes:
        name: Of the files, without an ending.
        alt: What it shows, in words.
        svg: The figure.
        png: The same for slides, at twice the size.
    """

    name: str
    alt: str
    svg: bytes
    png: bytes


@contextmanager
def style() -> Iterator[None]:
    """Draw as this module wants, whatever the process has set; what it has set is there again afterwards."""
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        yield


def canvas(size: tuple[float, float], *, legend: int, columns: int = 2) -> tuple[Figure, Axes]:
    """A figure, and its axes above the room for a legend of so many entries."""
    from matplotlib.figure import Figure

    width, height = size
    room = 0.08 + LINE * -(-legend // columns)
    whole = height + room
    figure = Figure(figsize=(width, whole))
    left, right, below, above = 0.72, 0.2, 0.44, 0.52
    frame = (left / width, (below + room) / whole, (width - left - right) / width, (height - below - above) / whole)
    return figure, figure.add_axes(frame)


def title(axes: Axes, head: str, below: str) -> None:
    """Two lines above the axes: slides show a figure without the page around it."""
    look: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "ha": "left", "va": "bottom"}
    axes.annotate(head, (0.0, 1.0), xytext=(0, 20), fontsize=10.5, fontweight="bold", **look)
    axes.annotate(_drawable(below), (0.0, 1.0), xytext=(0, 7), fontsize=9, color=FAINT, **look)


def legend(figure: Figure, handles: Sequence[Any], labels: Sequence[str], *, columns: int = 2) -> None:
    """What is what, below the axes."""
    # A label that begins with an underscore would be left out: names are set once the legend is there.
    drawn = figure.legend(
        handles,
        [str(place) for place in range(len(labels))],
        loc="lower center",
        ncols=columns,
        frameon=False,
        borderaxespad=0.2,
        handlelength=2.6 if columns <= 2 else 1.4,  # noqa: PLR2004 - three have no dashes to show
        columnspacing=1.6,
        labelspacing=0.35,
    )
    for text, label in zip(drawn.get_texts(), labels, strict=True):
        text.set_text(_fitting(_drawable(label), float(text.get_fontsize())))


def percent_axes(axes: Axes, *, x: bool = False, y: bool = False) -> None:
    """Shares as percentages."""
    for axis, wanted in ((axes.xaxis, x), (axes.yaxis, y)):
        if wanted:
            axis.set_major_formatter(lambda value, _: percent(value))


def limits(values: NDArray[Any], margin: float = 0.04) -> tuple[float, float]:
    """From the lowest to the highest with a margin, also where all are the same."""
    low, high = float(values.min()), float(values.max())
    size = max(abs(low), abs(high))
    room = margin * (high - low) if high - low > 1e-6 * size else 0.05 * max(size, 1.0)
    return low - room, high + room


def saved(figure: Figure, name: str, alt: str) -> Drawn:
    """The figure as files: without dates and versions the same figures are the same files."""
    svg, png = BytesIO(), BytesIO()
    figure.savefig(svg, format="svg", metadata={"Date": None, "Creator": "prefroute"})
    figure.savefig(png, format="png", dpi=_TWICE, metadata={"Software": "prefroute"})
    return Drawn(name=name, alt=alt, svg=svg.getvalue(), png=png.getvalue())


def _drawable(text: str) -> str:
    """The text in characters that the font has: others would be boxes, with a warning for each."""
    known: Callable[[int], int] = _font().get_char_index
    return "".join(c if known(ord(c)) else "\N{REPLACEMENT CHARACTER}" for c in text)


def _fitting(text: str, size: float) -> str:
    """The text cut to the room for it; letters differ threefold in width."""
    font = _font()
    font.set_size(size, _POINTS_PER_INCH)
    whole = text
    while text:
        shown = text if text == whole else f"{text}\N{HORIZONTAL ELLIPSIS}"
        font.set_text(shown)
        if font.get_width_height()[0] <= 64 * _POINTS_PER_INCH * _ROOM:  # in 64ths of a point
            return shown
        text = text[:-1]
    return whole


def _font() -> Any:
    from matplotlib.font_manager import findfont, get_font

    return get_font(findfont("DejaVu Sans"))
