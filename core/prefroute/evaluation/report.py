"""An evaluation as one web page that can be handed on, with its figures beside it for slides."""

from __future__ import annotations

import math
from base64 import b64encode
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefroute._version import __version__
from prefroute.errors import MissingExtraError
from prefroute.evaluation import _drawing, _figures, _tables
from prefroute.evaluation._format import count, listed, named, percent, printable, quality, shown, threshold
from prefroute.evaluation._verdict import FEWEST_LEFT, measured_of, statements, verdicts
from prefroute.evaluation.resampling import PERMUTATIONS
from prefroute.evaluation.results import LENGTH
from prefroute.persistence import write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from prefroute.costs import Savings
    from prefroute.evaluation._drawing import Drawn
    from prefroute.evaluation.results import Evaluation, RouterResult

REPORT_FILE, FIGURES_FOLDER = "report.html", "figures"

TEMPLATE = Path(__file__).with_name("report.html.j2")

ROUTERS = 8
"""Routers that figures, categories and examples of their own are shown for."""


def write_report(
    evaluation: Evaluation,
    folder: str | Path,
    *,
    savings: Mapping[str, Mapping[str, Savings]] | None = None,
) -> Path:
    """Write an evaluation as one web page without scripts, and its figures as SVG and PNG.

    The page quotes some prompts of the benchmark; it opens without a network. Files of an earlier report of the
    same names are replaced, others in the folder are left.

    Args:
        evaluation: From `evaluate` or `evaluate_scores`.
        folder: Where `report.html` and `figures/` go; made where it is not there.
        savings: By name of the router, then by where it was routed: `cpt50`, `cpt80` or `threshold`. None for none.

    Returns:
        The path of `report.html`.

    Raises:
        MissingExtraError: matplotlib or jinja2 is not installed.
        OSError: The folder cannot be written.
    """
    template = _template()
    folder = Path(folder)
    figures = folder / FIGURES_FOLDER
    figures.mkdir(parents=True, exist_ok=True)
    with _drawing.style():
        page = template.render(_content(evaluation, savings or {}, figures))
    path = folder / REPORT_FILE
    write_atomically(path, page.encode())
    return path


def _template() -> Any:
    """The page to fill in, once everything that is needed is there.

    Raises:
        MissingExtraError: matplotlib or jinja2 is not installed.
    """
    try:
        import matplotlib.figure  # noqa: F401 - it is used later; what is missing is told before anything is written
        from jinja2 import Environment, StrictUndefined
        from markupsafe import Markup, escape
    except ImportError as error:
        msg = f'a report needs matplotlib and jinja2: pip install "prefroute[eval]" ({error})'
        raise MissingExtraError(msg) from error

    def clean(value: Any) -> Any:
        # Markup is our own, and already clean; a lone surrogate could not even be written.
        return printable(value) if type(value) is str else value

    def breakable(text: str) -> Markup:
        # A name of many words need not be as wide as all of them.
        return escape(printable(text)).replace("_", Markup("_<wbr>")).replace("/", Markup("/<wbr>"))

    environment = Environment(
        autoescape=True, finalize=clean, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["breakable"] = breakable
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8"))


def remove_report(folder: Path) -> None:
    """Remove what `write_report` has written there, and nothing else."""
    (folder / REPORT_FILE).unlink(missing_ok=True)
    for drawn in (folder / FIGURES_FOLDER).glob("*"):
        if drawn.suffix in {".svg", ".png"}:
            drawn.unlink()


def _content(evaluation: Evaluation, savings: Mapping[str, Mapping[str, Savings]], figures: Path) -> dict[str, Any]:
    """What the template is filled with; the figures are written on the way."""
    benchmark, groups = evaluation.benchmark, evaluation.benchmark.groups
    measured = measured_of(evaluation)
    each = enumerate(measured[:ROUTERS], 1)
    return {
        "benchmark": named(benchmark.name),
        "strong": named(benchmark.pair.strong),
        "weak": named(benchmark.pair.weak),
        "facts": _facts(evaluation, len(set(groups.tolist()))),
        "statements": statements(evaluation, groups),
        "verdicts": verdicts(evaluation, groups),
        "named": named,
        "has_length": LENGTH in evaluation.results,
        "curves": [_embedded(drawn, figures) for drawn in _figures.curves(evaluation) if drawn is not None],
        "n_measured": len(measured),
        "most_curves": _figures.CURVES,
        "own_rows": _own_rows(evaluation),
        "routers": [_of_router(evaluation, result, place, figures) for place, result in each],
        "all_routers": [_tables.routers_table(evaluation), _tables.more_figures_table(evaluation)],
        "comparisons": _tables.comparisons_table(evaluation),
        "costs": _tables.costs_table(savings) if any(savings.values()) else None,
        "permutations": count(PERMUTATIONS),
        "resamples": count(evaluation.resamples),
        "seed": evaluation.seed,
        "few_rows": _tables.FEW_ROWS,
        "fewest_left": FEWEST_LEFT,
        "version": __version__,
    }


def _facts(evaluation: Evaluation, different: int) -> list[tuple[str, str]]:
    benchmark = evaluation.benchmark
    prompts = count(len(benchmark))
    if different < len(benchmark):
        prompts += f" ({count(different)} different)"
    return [
        ("Strong model", f"{named(benchmark.pair.strong)}, mean quality {quality(float(benchmark.strong.mean()))}"),
        ("Weak model", f"{named(benchmark.pair.weak)}, mean quality {quality(float(benchmark.weak.mean()))}"),
        ("Prompts", prompts),
        *([("Contaminated or excluded prompts", count(benchmark.removed))] if benchmark.removed else []),
        ("Prompts a router was trained on", "counted" if evaluation.kept_overlap else "left out where known"),
        ("Written", f"{datetime.now(UTC).date().isoformat()} by prefroute {__version__}"),
    ]


def _own_rows(evaluation: Evaluation) -> str:
    """Which routers are measured on fewer rows than there are."""
    fewer = [result.name for result in evaluation.results.values() if 0 < result.n_used < len(evaluation.benchmark)]
    return listed(fewer)


def _of_router(evaluation: Evaluation, result: RouterResult, place: int, figures: Path) -> dict[str, Any]:
    name = f"router-{place}"
    right, wrong = _tables.examples(evaluation, result)
    return {
        "name": shown(result.name),
        "figures": list(_router_figures(evaluation, result, name, figures)),
        "notes": list(_router_notes(result)),
        "categories": _tables.categories_table(evaluation, result),
        "right": right,
        "wrong": wrong,
    }


def _router_figures(evaluation: Evaluation, result: RouterResult, name: str, figures: Path) -> Iterator[dict[str, str]]:
    for drawn in (
        _figures.score_histogram(evaluation, result, name),
        _figures.reliability_diagram(evaluation, result, name),
        _figures.call_rate(result, name),
    ):
        if drawn is not None:
            yield _embedded(drawn, figures)


def _router_notes(result: RouterResult) -> Iterator[str]:
    if result.figures is not None and math.isnan(result.figures.ece):
        yield "Its scores are not all chances from 0 to 1, so there is no reliability diagram."
    if result.threshold is None:
        yield "No threshold of its own was measured."
    elif result.strong_rate is not None:
        yield (
            f"At its own threshold, {threshold(result.threshold)}, {percent(result.strong_rate)} of the prompts go to "
            f"the strong model; mean quality {quality(result.quality)}."
        )


def _embedded(drawn: Drawn, figures: Path) -> dict[str, str]:
    """A figure as the page holds it, written beside it as well."""
    write_atomically(figures / f"{drawn.name}.svg", drawn.svg)
    write_atomically(figures / f"{drawn.name}.png", drawn.png)
    return {"alt": drawn.alt, "svg": b64encode(drawn.svg).decode("ascii")}
