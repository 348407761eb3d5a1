"""The figures of the evaluation report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from prefroute.evaluation._drawing import (
    COLOURS,
    DASHES,
    DOTS,
    FAINT,
    GREY,
    INK,
    LABEL,
    LINE,
    NARROW,
    PALE,
    TITLE,
    WIDE,
    canvas,
    legend,
    limits,
    percent_axes,
    saved,
    title,
)
from prefroute.evaluation._format import counted, number, percent, quality, shown, threshold
from prefroute.evaluation._verdict import measured_of
from prefroute.evaluation.metrics import CostQualityCurve, cost_quality_curve
from prefroute.evaluation.reliability import outcomes_of, reliability
from prefroute.evaluation.resampling import interval
from prefroute.evaluation.results import COIN, GRID, ORACLE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from numpy.typing import NDArray

    from prefroute.evaluation._drawing import Drawn
    from prefroute.evaluation.resampling import Resampled
    from prefroute.evaluation.results import Evaluation, Figures, RouterResult

CURVES = 12
"""Routers drawn at most in one figure: more cannot be told apart."""

_CROWDED = 3
"""With more routers than that, their bands are paler."""

_OUTCOMES = (("weak better", COLOURS[1]), ("both the same", PALE), ("strong better", COLOURS[0]))

_POINTS = 400
"""Points drawn at most of a curve."""

_MOST_RECOVERED = 1.6
"""Up to where the oracle may stretch the axis of PGR; with a small gap it lies far above all."""

_Z = 1.959964
_HALF = 0.5


class _Line(NamedTuple):
    """A router's curve and how it looks; `band` is how strongly its interval is shaded."""

    result: RouterResult
    figures: Figures
    resampled: Resampled
    curve: CostQualityCurve
    look: dict[str, Any]
    band: float


def curves(evaluation: Evaluation) -> tuple[Drawn, Drawn | None]:
    """Mean quality, and share of the gap recovered (None without a gap), against the share of strong calls."""
    lines = _lines(evaluation)
    subject = f"{shown(evaluation.benchmark.name, LABEL)}, {counted(len(evaluation.benchmark), 'prompt')}"
    with_gap = [line for line in lines if not np.isnan(line.figures.apgr)]
    return _cost_quality(lines, subject), _recovery(with_gap, subject) if with_gap else None


def score_histogram(evaluation: Evaluation, result: RouterResult, name: str) -> Drawn | None:
    """How the scores lie, by which model was better; None where no score is finite."""
    finite = result.used & np.isfinite(result.scores)
    scores, gains = result.scores[finite], evaluation.benchmark.gains[finite]
    if not scores.size:
        return None
    from matplotlib.ticker import MaxNLocator

    figure, axes = canvas(NARROW, legend=len(_OUTCOMES), columns=len(_OUTCOMES))
    low, high = limits(scores)
    edges = np.linspace(low, high, int(np.clip(np.sqrt(len(scores)), 8, 30)) + 1)
    bottom, handles, totals = np.zeros(len(edges) - 1), [], []
    for sign, (label, colour) in zip((-1, 0, 1), _OUTCOMES, strict=True):
        heights = np.histogram(scores[np.sign(gains) == sign], edges)[0]
        top = bottom + heights
        # One outline each: a bar a bin would be thirty times as large in the SVG.
        handles.append(axes.stairs(top, edges, baseline=bottom, fill=True, color=colour, linewidth=0))
        bottom = top
        totals.append(f"{label} {heights.sum():,}")
    axes.set_ylim(0.0, 1.12 * float(bottom.max()))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    axes.grid(visible=False, axis="x")
    _mark_threshold(axes, result, low, high)
    axes.set(xlim=(low, high), xlabel="Score", ylabel="Prompts")
    title(axes, "Scores by outcome", shown(result.name, TITLE))
    legend(figure, handles, [label for label, _ in _OUTCOMES], columns=len(_OUTCOMES))
    alt = (
        f"Stacked histogram of the scores of {shown(result.name)}, from {threshold(float(scores.min()))} to "
        f"{threshold(float(scores.max()))}, by which model's answer was better: {', '.join(totals)}."
    )
    return saved(figure, f"{name}-scores", alt)


def reliability_diagram(evaluation: Evaluation, result: RouterResult, name: str) -> Drawn | None:
    """Whether scores mean what they say; None for scores that are no chances."""
    if result.figures is None or np.isnan(result.figures.ece):
        return None
    used = result.used
    predicted, observed, counts = reliability(result.scores[used], outcomes_of(evaluation.benchmark.gains[used]))
    figure, axes = canvas(NARROW, legend=2)
    line = axes.plot([0, 1], [0, 1], color=FAINT, linestyle=DOTS, linewidth=1.4)
    points = axes.errorbar(
        predicted,
        observed,
        np.abs(_wilson(observed, counts) - observed),
        fmt="o",
        markersize=4.5,
        color=COLOURS[0],
        elinewidth=1.2,
        capsize=2.5,
    )
    axes.set(xlim=limits(predicted), ylim=(-0.02, 1.02), xlabel="Mean score in a bin", ylabel="Strong model better")
    percent_axes(axes, y=True)
    title(axes, f"Reliability, ECE {number(result.figures.ece)}", shown(result.name, TITLE))
    legend(figure, [points, line[0]], ["observed, 95 % interval", "exact score"])
    alt = (
        f"Reliability diagram of {shown(result.name)} in {counted(len(counts), 'bin')}: mean scores from "
        f"{number(float(predicted[0]))} to {number(float(predicted[-1]))}, where the strong model was better in "
        f"{percent(float(observed[0]))} to {percent(float(observed[-1]))}; ECE {number(result.figures.ece)}."
    )
    return saved(figure, f"{name}-reliability", alt)


def call_rate(result: RouterResult, name: str) -> Drawn | None:
    """Share of strong calls against the threshold; None where no score is finite."""
    used = np.sort(result.scores[result.used])
    scores = used[np.isfinite(used)]
    if not scores.size:
        return None
    figure, axes = canvas((NARROW[0], NARROW[1] + LINE), legend=0)  # as high as its neighbours with their legends
    low, high = limits(scores)
    values, first = np.unique(scores, return_index=True)
    infinite = float(np.mean(used == np.inf))
    shares = infinite + (len(scores) - first) / len(used)
    kept = np.unique(np.linspace(0, len(values) - 1, _POINTS).astype(int))
    # The share at a threshold is that of the next score from it upwards: steps go back.
    x = np.concatenate([[low], values[kept], [values[-1], high]])
    y = np.concatenate([shares[:1], shares[kept], [infinite, infinite]])
    axes.step(x, y, where="pre", color=COLOURS[0])
    _mark_threshold(axes, result, low, high)
    axes.set(xlim=(low, high), ylim=(-0.02, 1.02), xlabel="Threshold", ylabel="Strong calls")
    percent_axes(axes, y=True)
    title(axes, "Strong calls by threshold", shown(result.name, TITLE))
    own = "No threshold of its own was measured."
    if result.threshold is not None:
        own = f"At its own threshold, {threshold(result.threshold)}, it is {percent(result.strong_rate)}."
    alt = (
        f"Share of prompts that {shown(result.name)} sends to the strong model, falling as the threshold rises from "
        f"{threshold(float(scores[0]))} to {threshold(float(scores[-1]))}. {own}"
    )
    return saved(figure, f"{name}-call-rate", alt)


def _cost_quality(lines: Sequence[_Line], subject: str) -> Drawn:
    figure, axes = canvas(WIDE, legend=len(lines) + 1)
    handles = []
    for line in lines:
        if line.band and line.result.band is not None:
            axes.fill_between(GRID, *line.result.band, color=line.look["color"], alpha=line.band, linewidth=0)
        handles += axes.plot(*line.curve, **line.look)
    whole = lines[-1].figures
    handles += axes.plot([0, 1], [whole.quality_weak, whole.quality_strong], color=FAINT, linestyle=DOTS, linewidth=1.4)
    axes.set_ylim(limits(axes.dataLim.intervaly))
    axes.set_ylabel("Mean quality")
    title(axes, "Quality against cost", subject)
    _share_axis(axes)
    legend(figure, handles, [*(shown(line.result.name, LABEL) for line in lines), "random (expected)"])
    at_half = [f"{shown(line.result.name)} {quality(line.figures.quality_at[str(_HALF)])}" for line in lines]
    alt = (
        "Line chart of mean quality against the share of prompts sent to the strong model, from "
        f"{quality(whole.quality_weak)} with none to {quality(whole.quality_strong)} with all. "
        f"At 50 %: {', '.join(at_half)}."
    )
    return saved(figure, "cost-quality", alt)


def _recovery(lines: Sequence[_Line], subject: str) -> Drawn:
    figure, axes = canvas(WIDE, legend=len(lines) + 1)
    handles, low, high = [], 0.0, 1.0
    for line in lines:
        recovered = _recovered(line, line.curve.quality)
        if line.band:
            band = _recovery_band(line.resampled)
            axes.fill_between(GRID, *band, color=line.look["color"], alpha=line.band, linewidth=0)
        handles += axes.plot(line.curve.shares, recovered, **line.look)
        top = float(recovered.max())
        high = max(high, min(_MOST_RECOVERED, top) if line.result.name == ORACLE else top)
        low = min(low, float(recovered.min()))
    handles += axes.plot([0, 1], [0, 1], color=FAINT, linestyle=DOTS, linewidth=1.4)
    axes.set_ylim(limits(np.array([low, high])))
    axes.set_ylabel("Gap recovered (PGR)")
    title(axes, "Share of the quality gap recovered", subject)
    _share_axis(axes)
    percent_axes(axes, y=True)
    legend(figure, handles, [*(shown(line.result.name, LABEL) for line in lines), "random (expected)"])
    at_half = [
        f"{shown(line.result.name)} {percent(float(_recovered(line, line.figures.quality_at[str(_HALF)])))}"
        for line in lines
    ]
    alt = (
        "Line chart of the share of the quality gap recovered (PGR) against the share of prompts sent to the strong "
        f"model. At 50 %, where random routing recovers 50 %: {', '.join(at_half)}."
    )
    return saved(figure, "gap-recovered", alt)


def _lines(evaluation: Evaluation) -> list[_Line]:
    """Routers, the baselines in grey but the coin, whose line is known, and the oracle at the end."""
    measured = measured_of(evaluation)[:CURVES]
    band = 0.14 if len(measured) <= _CROWDED else 0.06
    looks: list[tuple[RouterResult, dict[str, Any], float]] = []
    for place, result in enumerate(measured):
        dashes = DASHES[place % len(DASHES)]
        looks.append((result, {"color": COLOURS[place % len(COLOURS)], "linestyle": dashes, "zorder": 3}, band))
    greys = [r for r in evaluation.results.values() if r.is_baseline and r.name not in {COIN, ORACLE}]
    for place, result in enumerate(greys, 1):
        dashes = DASHES[place % len(DASHES)]
        looks.append((result, {"color": GREY, "linestyle": dashes, "linewidth": 1.3, "zorder": 2.6}, 0.0))
    oracle = {"color": INK, "linestyle": "-", "linewidth": 1.1, "zorder": 2.4}
    looks.append((evaluation.results[ORACLE], oracle, 0.08))
    return [
        _Line(result, result.figures, result.resampled, _curve(evaluation, result), look, band)
        for result, look, band in looks
        if result.figures is not None and result.resampled is not None
    ]


def _curve(evaluation: Evaluation, result: RouterResult) -> CostQualityCurve:
    used, benchmark = result.used, evaluation.benchmark
    curve = cost_quality_curve(result.scores[used], benchmark.strong[used], benchmark.weak[used])
    if len(curve.shares) <= _POINTS:
        return curve
    shares = np.linspace(0.0, 1.0, _POINTS)
    return CostQualityCurve(shares, np.interp(shares, curve.shares, curve.quality))


def _recovered(line: _Line, values: NDArray[np.float64] | float) -> NDArray[np.float64]:
    weak, strong = line.figures.quality_weak, line.figures.quality_strong
    return (np.asarray(values, dtype=np.float64) - weak) / (strong - weak)


def _recovery_band(resampled: Resampled) -> NDArray[np.float64]:
    """95 % band of PGR at `GRID`, each resample against its own gap; shape (2, 101)."""
    gained, gaps = resampled.gained, resampled.gaps[:, None]
    shares = np.divide(gained, gaps, out=np.full_like(gained, np.nan), where=gaps > 0)
    return np.array([interval(column) for column in shares.T]).T


def _wilson(observed: NDArray[np.float64], counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """95 % interval of a share, shape (2, k); a little wide where ties count half, as they vary less than wins."""
    square = _Z**2 / counts
    middle = (observed + square / 2.0) / (1.0 + square)
    half = np.sqrt(square * (observed * (1.0 - observed) + square / 4.0)) / (1.0 + square)
    return np.array([middle - half, middle + half])


def _share_axis(axes: Axes) -> None:
    axes.set(xlim=(-0.01, 1.01), xlabel="Prompts sent to the strong model")
    percent_axes(axes, x=True)


def _mark_threshold(axes: Axes, result: RouterResult, low: float, high: float) -> None:
    if result.threshold is None or not low <= result.threshold <= high:
        return
    axes.axvline(result.threshold, color=INK, linewidth=1.1, linestyle=(0, (4, 2)))
    is_right = result.threshold - low > (high - low) / 2.0
    axes.annotate(
        f"threshold {threshold(result.threshold)}",
        (result.threshold, 1.0),
        xycoords=("data", "axes fraction"),
        xytext=(-4 if is_right else 4, -3),
        textcoords="offset points",
        ha="right" if is_right else "left",
        va="top",
        fontsize=8.5,
        bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1.0},
    )
