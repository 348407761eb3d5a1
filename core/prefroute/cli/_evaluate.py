"""`prefroute evaluate`: what routers recover on prompts whose answers were judged."""

from __future__ import annotations

import json
import math
import os
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prefroute._text import plain, visible
from prefroute.cli._benchmark import ColumnOptions, PriceOptions, a_thousand, excluded, is_swapped, read_data, unpriced
from prefroute.cli._console import printable, show
from prefroute.cli._learning import shows_progress
from prefroute.cli._options import SeedOption, with_options
from prefroute.errors import ConfigurationError, DataError
from prefroute.persistence import load_router, own_folder, write_atomically
from prefroute.types import ModelPair

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from prefroute.costs import Savings
    from prefroute.data import Battles
    from prefroute.evaluation.benchmarks import Benchmark
    from prefroute.evaluation.results import Evaluation, RouterResult
    from prefroute.evaluation.savings import AnswerCosts
    from prefroute.router import Router

_FEW = 300
"""Prompts below which hardly any router can be told from chance."""


@with_options
def evaluate(
    routers: Annotated[
        list[str], typer.Argument(metavar="ROUTER...", help="Saved routers, or default, random or prompt-length.")
    ],
    columns: ColumnOptions,
    prices: PriceOptions,
    *,
    data: Annotated[
        list[Path],
        typer.Option(
            metavar="FILE",
            help=(
                "Prompts with one quality column a model: CSV, JSON lines or Parquet, also .gz; repeat it for several "
                "files. Or a folder of MMLU, GSM8K or MT-Bench in RouteLLM's layout, less its contaminated prompts."
            ),
            exists=True,
        ),
    ],
    strong: Annotated[str, typer.Option(metavar="COL", help="Quality of the strong model's answer: a number.")],
    weak: Annotated[str, typer.Option(metavar="COL", help="Quality of the weak model's answer.")],
    json_file: Annotated[
        Path | None, typer.Option("--json", metavar="FILE", dir_okay=False, help="Write all figures as JSON; - prints.")
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(metavar="DIR", file_okay=False, help="Write a report with figures: report.html, PNG and SVG."),
    ] = None,
    training_data: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Labelled prompts as --data that the baselines are fitted on: kNN, and the prompt's length.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    exclude: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Prompts to leave out, contaminated ones say.", exists=True, dir_okay=False),
    ] = None,
    category_column: Annotated[
        str | None, typer.Option(metavar="NAME", help="Column of a category, for the report.")
    ] = None,
    keep_overlap: Annotated[
        bool, typer.Option("--keep-overlap", help="Measure on prompts that a router learnt from, too, and say so.")
    ] = False,
    router_cost: Annotated[
        float | None, typer.Option(min=0, metavar="X", help="What the router itself costs, US dollars a request.")
    ] = None,
    resamples: Annotated[int, typer.Option(min=1, max=100_000, metavar="N", help="Of the bootstrap.")] = 1000,
    seed: SeedOption = 0,
) -> None:
    """Measure routers on judged prompts, with intervals and beside the baselines."""
    pair = ModelPair(strong=strong.strip(), weak=weak.strip())
    _check_writable(json_file, report)
    if router_cost is not None and not math.isfinite(router_cost):
        msg = f"--router-cost must be US dollars a request, got {router_cost}"
        raise ConfigurationError(msg)
    named = {name: load_router(path) for name, path in _names(routers).items()}
    rows = read_data(
        data,
        pair,
        columns,
        category=category_column,
        is_priced=prices.prices is not None,
        progress=shows_progress(),
    )
    benchmark = excluded(rows, exclude)
    costs = prices.costs(benchmark)
    from prefroute.evaluation.evaluate import evaluate as measure
    from prefroute.evaluation.savings import all_savings

    found = measure(
        named,
        benchmark,
        training=_training(training_data, pair, columns, benchmark),
        keep_overlap=keep_overlap,
        resamples=resamples,
        seed=seed,
        progress=shows_progress(),
    )
    savings = all_savings(found, costs, router_cost=router_cost)
    if costs.strong is None and costs.weak is None:
        savings = {}
    for warning in [*_warnings(found, named), *_unpriced(costs, prices, benchmark)]:
        sys.stderr.write(f"prefroute: warning: {printable(warning)}\n")
    if json_file is None or str(json_file) != "-":
        # Before anything is written: what was measured with much work is seen even where a file then fails.
        _show(found, savings)
    _write(found, savings, json_file, report)


def _show(found: Evaluation, savings: dict[str, dict[str, Savings]]) -> None:
    for line in _header(found):
        show(printable(line))
    show(_table(found))
    for line in [*_verdicts(found), *_saved(savings)]:
        show(printable(line))


def _names(given: Sequence[str]) -> dict[str, str]:
    """Routers by the folder's own name, or the registered one; by all of the path where that is another's name."""
    from prefroute.evaluation.results import COIN, KNN, LENGTH, ORACLE

    own = {path: path if own_folder(path) is None else Path(path).resolve().name for path in dict.fromkeys(given)}
    often = Counter([*own.values(), COIN, LENGTH, KNN, ORACLE])
    found = {}
    for path, name in own.items():
        # A folder called as a baseline must not stand in for it.
        is_other = own_folder(path) is not None and often[name] > 1
        found[(path if path != name else f"./{path}") if is_other else name] = path
    return found


def _training(
    files: list[Path] | None, pair: ModelPair, columns: ColumnOptions, benchmark: Benchmark
) -> Battles | None:
    """What the baselines are fitted on: labelled prompts that are not measured on."""
    if not files:
        return None
    from prefroute.data import without_prompts

    rows = read_data(files, pair, columns, progress=False)
    left = without_prompts(rows.responses.to_battles(), benchmark.prompts)
    if not len(left):
        msg = "every prompt of --training-data is in --data too, so nothing is left to fit the baselines on"
        raise DataError(msg)
    return left


def _check_writable(json_file: Path | None, report: Path | None) -> None:
    """Refuse now what could not be written after all the work."""
    places = {"--report": report, "--json": None if json_file is None else json_file.absolute().parent}
    for option, folder in places.items():
        if folder is None:
            continue
        place = folder.absolute()
        while not place.exists() and option == "--report":
            place = place.parent
        if not place.is_dir():
            msg = f"{option}: there is no folder {place}; make it, or name another"
            raise ConfigurationError(msg)
        if not os.access(place, os.W_OK | os.X_OK) and not (json_file is not None and json_file.exists()):
            msg = f"{option}: {place} may not be written to; name another folder"
            raise ConfigurationError(msg)
    if report is not None:
        from prefroute.cli._learning import needs

        needs("matplotlib", "a report", "eval")
        needs("jinja2", "a report", "eval")


def _write(
    found: Evaluation, savings: dict[str, dict[str, Savings]], json_file: Path | None, report: Path | None
) -> None:
    figures = found.as_dict()
    for name, points in savings.items():
        figures["routers"][name]["savings"] = {point: item.as_dict() for point, item in points.items()}
    text = json.dumps(plain(figures), indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    if json_file is not None and str(json_file) == "-":
        typer.echo(text.rstrip("\n"))
    elif json_file is not None:
        _write_text(json_file, text)
        show(f"figures   {visible(str(json_file))}")
    if report is not None:
        from prefroute.evaluation.report import write_report

        page = write_report(found, report, savings=savings or None)
        show(f"report    {visible(str(page))}")


def _write_text(path: Path, text: str) -> None:
    data = text.encode("utf-8", "backslashreplace")
    if path.exists() and not path.is_file():
        with path.open("wb") as file:  # A pipe or a device is written to, not replaced.
            file.write(data)
    else:
        write_atomically(path.resolve(), data)


def _unpriced(costs: AnswerCosts, prices: PriceOptions, benchmark: Benchmark) -> list[str]:
    """What was said of prices and does not tell what answers cost."""
    if prices.prices is None and prices.input_tokens is None:
        return []
    missing = unpriced(costs, prices, benchmark)
    return [missing] if missing else []


def _warnings(found: Evaluation, routers: dict[str, Router]) -> list[str]:
    told = []
    for name, router in routers.items():
        result = found.results[name]
        if result.n_overlap is None:
            told.append(f"what {name} learnt from is not known: it may be measured on its own training prompts")
        elif result.n_overlap and found.kept_overlap:
            told.append(f"{name} learnt from {result.n_overlap:,} of the prompts it is measured on (--keep-overlap)")
        elif not result.n_used:
            told.append(f"{name} learnt from every prompt of the data, so there is nothing to measure it on")
        elif result.n_overlap:
            few = f"; the {result.n_used:,} that remain are few" if result.n_used < _FEW else ""
            told.append(f"{name} learnt from {result.n_overlap:,} of the prompts; they are left out for it{few}")
        told += _swapped(name, router, found)
    if len(found.benchmark) < _FEW:
        few = f"{len(found.benchmark)} {'prompt is' if len(found.benchmark) == 1 else 'prompts are'} few"
        told.append(f"{few}: intervals are wide, and a real advantage may not show")
    return told


def _swapped(name: str, router: Router, found: Evaluation) -> list[str]:
    asked = found.benchmark.pair
    if not is_swapped(router, asked):
        return []
    return [f"{name} was trained with {asked.weak} as the strong model; are --strong and --weak swapped?"]


def _header(found: Evaluation) -> list[str]:
    benchmark, pair = found.benchmark, found.benchmark.pair
    removed = f", {benchmark.removed} contaminated or excluded ones left out" if benchmark.removed else ""
    return [
        f"{benchmark.name}: {len(benchmark):,} prompt{'s' if len(benchmark) > 1 else ''}{removed}",
        f"strong: {pair.strong}, mean quality {benchmark.strong.mean():.4g}",
        f"weak:   {pair.weak}, mean quality {benchmark.weak.mean():.4g}",
    ]


def _table(found: Evaluation) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("router", "n", "APGR (95 %)", "CPT50", "CPT80", "beats random"):
        # Names are folded where there is no room, figures never.
        table.add_column(name, overflow="fold", no_wrap=name != "router")
    for name, result in found.results.items():
        figures = result.figures
        label = Text(printable(name) + (" *" if result.is_baseline else ""))
        if figures is None:
            table.add_row(label, "0", "-", "-", "-", "not measured")
            continue
        area = _number(figures.apgr, ".3f")
        if not math.isnan(figures.apgr_low) and not math.isnan(figures.apgr_high):
            area += f" ({_ends(figures.apgr_low, figures.apgr_high)})"
        shares = (_number(figures.cpt50, ".1%"), _number(figures.cpt80, ".1%"))
        table.add_row(label, f"{result.n_used:,}", area, *shares, result.against_random)
    return table


def _verdicts(found: Evaluation) -> list[str]:
    benchmark = found.benchmark
    lines = ["* baseline. APGR: share of the quality gap recovered, over all strong-call rates; random gets 0.500."]
    if benchmark.strong.mean() <= benchmark.weak.mean():
        lines.append(
            f"{benchmark.pair.strong} is no better than {benchmark.pair.weak} here: there is no gap to recover."
        )
    for result in found.results.values():
        if not result.is_baseline:
            lines += [line for line in (_at_threshold(result), _against_length(found, result)) if line]
    return lines


def _at_threshold(result: RouterResult) -> str:
    """What the router does as it is set."""
    if result.threshold is None or result.strong_rate is None or result.quality is None:
        return ""
    return (
        f"{result.name}: at its threshold of {result.threshold:.4g} {result.strong_rate:.1%} strong calls, "
        f"mean quality {result.quality:.4g}"
    )


def _against_length(found: Evaluation, result: RouterResult) -> str:
    """How a router does beside the length of the prompt."""
    from prefroute.evaluation.results import LENGTH

    item = found.comparison(result.name, LENGTH)
    if item is None or math.isnan(item.result.low) or item.result.low == item.result.high:
        return ""  # nothing to say, or the same scores
    _, low, high, _ = item.seen_from(result.name)
    unknown = f"cannot be told, with {item.n:,} prompts, from"
    verdict = "better than" if low > 0 else "worse than" if high < 0 else unknown
    return f"{result.name}: {verdict} prompt length alone ({_ends(low, high)} APGR)"


def _saved(savings: dict[str, dict[str, Savings]]) -> list[str]:
    lines = []
    for name, points in savings.items():
        for point, item in points.items():
            against = f"{a_thousand(item.saved_against_strong)} against always strong"
            random = f"{a_thousand(item.saved_against_random)} against random of equal quality"
            own = f"router itself {a_thousand(item.router_cost)}"
            lines.append(
                f"{name}, {point}: costs {a_thousand(item.cost)} per 1,000 requests ({own}); saves {against}, {random}"
            )
    if any(item.router_cost is None for points in savings.values() for item in points.values()):
        lines.append("what the router itself costs is not known, so neither is what it saves; give --router-cost")
    return lines


def _ends(low: float, high: float) -> str:
    return f"{_number(low, '.3f')} to {_number(high, '.3f')}"


def _number(value: float, form: str) -> str:
    return format(value, form) if value == value else "-"  # noqa: PLR0124 - NaN
