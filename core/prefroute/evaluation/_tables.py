"""The tables of the evaluation report, as text ready to be laid out."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from prefroute.data import prompt_key
from prefroute.evaluation._format import (
    DASH,
    between,
    change,
    count,
    dollars,
    number,
    p_value,
    percent,
    quality,
    shown,
    threshold,
)
from prefroute.evaluation._verdict import routers_of, standing_of
from prefroute.evaluation.metrics import apgr, rank, routed_quality, strong_share
from prefroute.evaluation.results import LEVELS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from prefroute.costs import Savings
    from prefroute.evaluation.results import Evaluation, Figures, PairedComparison, RouterResult

FEW_ROWS = 30
"""A category with fewer rows is marked."""

COMPARISONS, CATEGORIES, EXAMPLES = 120, 300, 5
"""Rows shown at most of each table."""

PROMPT = 300
"""Characters shown of a prompt."""

POINTS = {"cpt50": "50 % of the gap", "cpt80": "80 % of the gap", "threshold": "its own threshold"}
"""Where savings are told, in words."""

_SHARES = ("0.2", "0.5", "0.8")
"""Of strong calls, where quality is told; as `Figures.quality_at` names them."""

_PER = 1000.0
"""Requests that costs are told for."""


@dataclass(frozen=True)
class Cell:
    """A figure, and in small print what belongs to it."""

    text: str
    note: str = ""


@dataclass(frozen=True)
class Row:
    """Cells of one line; the first is its heading."""

    cells: tuple[Cell, ...]
    is_baseline: bool = False


@dataclass(frozen=True)
class Table:
    """A table as text.

    Attributes:
        caption: What it shows.
        columns: Headings, with in small print what belongs to them.
        rows: Its lines.
        texts: Of the columns, how many from the left are words; the others are figures.
        left_out: Lines that were too many to show.
    """

    caption: str
    columns: tuple[Cell, ...]
    rows: tuple[Row, ...]
    texts: int = 1
    left_out: int = 0


@dataclass(frozen=True)
class Example:
    """One prompt, and how the router and the models did on it."""

    prompt: str
    facts: str


def routers_table(evaluation: Evaluation) -> Table:
    """What every router and baseline recovers, and on what."""
    columns = (
        Cell("Router"),
        Cell("Better than random?"),
        Cell("APGR", "95 % interval"),
        *(Cell(f"CPT {percent(level)}", "95 % interval") for level in LEVELS.values()),
        *(Cell("Quality", f"at {percent(float(share))} strong calls") for share in _SHARES),
        Cell("Prompts", "measured on"),
        Cell("Overlap", "with its training"),
    )
    rows = tuple(_router_row(evaluation, result) for result in evaluation.results.values())
    return Table("What all routers and baselines recover", columns, rows)


def more_figures_table(evaluation: Evaluation) -> Table:
    """The forms that are published of every router and baseline, how good its scores are, and how long they took."""
    columns = (
        Cell("Router"),
        Cell("APGR", "published form"),
        *(Cell(f"CPT {percent(level)}", "published form") for level in LEVELS.values()),
        Cell("Quality", "mean of all shares of strong calls"),
        Cell("ROC AUC"),
        Cell("ECE"),
        Cell("Seconds", "to score all prompts"),
    )
    rows = tuple(_more_row(result) for result in evaluation.results.values())
    return Table("More figures of all routers and baselines", columns, rows)


def comparisons_table(evaluation: Evaluation) -> Table:
    """Each router beside each baseline and each other router, on the prompts that neither learnt from."""
    names = {result.name for result in routers_of(evaluation)}
    # Against the baselines first: what is left out of many is routers among themselves.
    order = sorted(
        (item for item in evaluation.comparisons if {item.first, item.second} & names),
        key=lambda item: {item.first, item.second} <= names,
    )
    columns = (
        Cell("First"),
        Cell("Second"),
        Cell("In words"),
        Cell("Difference of APGR", "95 % interval"),
        Cell("p"),
        Cell("Prompts", "of both"),
    )
    rows = tuple(_comparison_row(evaluation, item) for item in order[:COMPARISONS])
    return Table("Two routers on the same prompts", columns, rows, texts=3, left_out=max(0, len(order) - COMPARISONS))


def costs_table(savings: Mapping[str, Mapping[str, Savings]]) -> Table:
    """What a thousand requests cost and save, at each point of each router."""
    columns = (
        Cell("Router"),
        Cell("Routed at"),
        Cell("Strong calls"),
        Cell("Models", "as routed"),
        Cell("Router", "itself"),
        Cell("Models", "always strong"),
        Cell("Models", "random, same quality"),
        Cell("Saved", "against always strong"),
        Cell("Saved", "against random"),
        Cell("Call ratio", "random over router"),
        Cell("Cost ratio", "random over router"),
    )
    rows = tuple(_costs_row(name, point, found) for name, points in savings.items() for point, found in points.items())
    return Table("US dollars for 1,000 requests", columns, rows, texts=2)


def categories_table(evaluation: Evaluation, result: RouterResult) -> Table | None:
    """What a router does in each category, the largest first; None where there are none."""
    benchmark = evaluation.benchmark
    if benchmark.categories is None or not result.used.any():
        return None
    labels = np.array(benchmark.categories, dtype=object)[result.used]
    names, places = np.unique(labels.astype(str), return_inverse=True)
    sizes = np.bincount(places, minlength=len(names))
    order = sorted(range(len(names)), key=lambda place: (-int(sizes[place]), str(names[place])))
    at_threshold = (Cell("Strong calls", "at its threshold"), Cell("Mean quality", "at its threshold"))
    columns = (
        Cell("Category"),
        Cell("Prompts"),
        Cell("Weak model", "mean quality"),
        Cell("Strong model", "mean quality"),
        Cell("Gap"),
        Cell("APGR"),
        *(at_threshold if result.threshold is not None else ()),
    )
    used = np.flatnonzero(result.used)
    rows = tuple(
        _category_row(evaluation, result, str(names[place]), used[places == place]) for place in order[:CATEGORIES]
    )
    return Table(f"{shown(result.name)} by category", columns, rows, left_out=max(0, len(order) - CATEGORIES))


def examples(evaluation: Evaluation, result: RouterResult) -> tuple[list[Example], list[Example]]:
    """Prompts on which a router was most right, and most wrong: its score's rank against what the models did.

    Args:
        evaluation: What was measured.
        result: Of the router.

    Returns:
        At most five of each, each prompt once. The measure is the gain times how far the rank of the score lies above
        the middle, from -1 to 1: positive where a high score met a gain, or a low one a loss.
    """
    used = np.flatnonzero(result.used)
    if not used.size:
        return [], []
    ranking = rank(result.scores[used])
    places, standing = np.empty(len(used), dtype=np.int64), np.empty(len(used))
    places[ranking.order] = ranking.first + 1
    standing[ranking.order] = 1.0 - (ranking.first + ranking.last + 1.0) / len(used)
    worth = evaluation.benchmark.gains[used] * standing
    found = []
    for sign in (1.0, -1.0):
        chosen: dict[str, Example] = {}
        for place in np.argsort(-sign * worth, kind="stable"):
            if len(chosen) == EXAMPLES or not sign * worth[place] > 0:
                break
            row = int(used[place])
            key = prompt_key(evaluation.benchmark.prompts[row])
            chosen.setdefault(key, _example(evaluation, result, row, int(places[place])))
        found.append(list(chosen.values()))
    return found[0], found[1]


def _against_random(result: RouterResult, figures: Figures) -> Cell:
    told = result.against_random
    return Cell(DASH) if told == "-" else Cell(told, f"p {p_value(figures.random_p_value)}")


def _router_row(evaluation: Evaluation, result: RouterResult) -> Row:
    figures, cells = result.figures, [Cell(DASH)] * 7
    if figures is not None:
        cells = [
            _against_random(result, figures),
            _with_ends(figures, "apgr"),
            *(_with_ends(figures, name) for name in LEVELS),
            *(Cell(quality(figures.quality_at[share])) for share in _SHARES),
        ]
    overlap = Cell("unknown")
    if result.n_overlap is not None:
        treated = "counted" if evaluation.kept_overlap else "left out"
        overlap = Cell(count(result.n_overlap), treated if result.n_overlap else "")
    return Row((_head(result), *cells, Cell(count(result.n_used)), overlap), result.is_baseline)


def _more_row(result: RouterResult) -> Row:
    figures, cells = result.figures, [Cell(DASH)] * 6
    if figures is not None:
        cells = [
            Cell(number(figures.apgr_published)),
            *(Cell(percent(getattr(figures, f"{name}_published"))) for name in LEVELS),
            Cell(quality(figures.average_quality)),
            Cell(number(figures.roc_auc)),
            Cell(number(figures.ece)),
        ]
    # Scores that were given, and the oracle's, took no time that is known.
    seconds = Cell(number(result.seconds, 2) if result.seconds else DASH)
    return Row((_head(result), *cells, seconds), result.is_baseline)


def _head(result: RouterResult) -> Cell:
    return Cell(shown(result.name), "baseline" if result.is_baseline else "")


def _with_ends(figures: Figures, name: str) -> Cell:
    value, form = getattr(figures, name), number if name == "apgr" else percent
    if not math.isfinite(value):
        return Cell(DASH, "not defined")
    return Cell(form(value), between(getattr(figures, f"{name}_low"), getattr(figures, f"{name}_high"), form))


def _comparison_row(evaluation: Evaluation, item: PairedComparison) -> Row:
    words = {"better": "first is better", "worse": "second is better", "open": "cannot tell"}
    result = item.result
    defined = math.isfinite(result.difference)
    difference = Cell(change(result.difference), between(result.low, result.high, change) if defined else "not defined")
    return Row(
        (
            Cell(shown(item.first)),
            Cell(shown(item.second)),
            Cell(words[standing_of(evaluation, item, item.first)]),
            difference,
            Cell(p_value(result.p_value).removeprefix("= ")),
            Cell(count(item.n)),
        )
    )


def _costs_row(name: str, point: str, found: Savings) -> Row:
    def cost(value: float | None, *, signed: bool = False) -> Cell:
        return Cell(dollars(None if value is None else value * _PER, signed=signed))

    is_known = found.random is not None and found.cost is not None and found.router_cost is not None
    ratio = "unknown" if found.cost_ratio is None and not is_known else number(found.cost_ratio, 2)
    return Row(
        (
            Cell(shown(name)),
            Cell(POINTS.get(point, shown(point))),
            Cell(percent(found.strong_rate)),
            cost(found.cost),
            cost(found.router_cost),
            cost(found.always_strong),
            cost(found.random),
            cost(found.saved_against_strong, signed=True),
            cost(found.saved_against_random, signed=True),
            Cell(number(found.call_ratio, 2)),
            Cell(ratio),
        )
    )


def _category_row(evaluation: Evaluation, result: RouterResult, name: str, rows: NDArray[np.int64]) -> Row:
    scores, strong, weak = result.scores[rows], evaluation.benchmark.strong[rows], evaluation.benchmark.weak[rows]
    at_threshold: tuple[Cell, ...] = ()
    if result.threshold is not None:
        quality_there = routed_quality(scores, strong, weak, result.threshold)
        at_threshold = (Cell(percent(strong_share(scores, result.threshold))), Cell(quality(quality_there)))
    return Row(
        (
            Cell(shown(name)),
            Cell(count(len(rows)), "few" if len(rows) < FEW_ROWS else ""),
            Cell(quality(float(weak.mean()))),
            Cell(quality(float(strong.mean()))),
            Cell(change(float((strong - weak).mean()))),
            Cell(number(apgr(scores, strong - weak))),
            *at_threshold,
        )
    )


def _example(evaluation: Evaluation, result: RouterResult, row: int, place: int) -> Example:
    benchmark = evaluation.benchmark
    facts = (
        f"Score {threshold(float(result.scores[row]))} (rank {count(place)} of {count(result.n_used)}); "
        f"strong model {quality(float(benchmark.strong[row]))}, weak model {quality(float(benchmark.weak[row]))}."
    )
    return Example(shown(benchmark.prompts[row], PROMPT), facts)
