"""Options that say what a benchmark is, and what reads it."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass, replace
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from prefroute.cli._console import printable
from prefroute.cli._options import OnBadRow, OnBadRowOption, PromptColumnOption, Turn, TurnOption  # noqa: TC001 - likewise
from prefroute.errors import ConfigurationError, DataError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prefroute.costs import Price, Prices
    from prefroute.data.report import TableError
    from prefroute.evaluation.benchmarks import Benchmark
    from prefroute.evaluation.savings import AnswerCosts
    from prefroute.router import Router
    from prefroute.types import ModelPair

_SILENT = logging.NullHandler()

_PER_THOUSAND = 1000.0


@dataclass(frozen=True, kw_only=True)
class ColumnOptions:
    """Which columns of the data hold what, beside the qualities."""

    prompt_column: PromptColumnOption = None
    strong_cost_column: Annotated[
        str | None, typer.Option(metavar="NAME", help="Column of what the strong answer cost, US dollars.")
    ] = None
    weak_cost_column: Annotated[
        str | None, typer.Option(metavar="NAME", help="Column of what the weak answer cost.")
    ] = None
    input_tokens_column: Annotated[str | None, typer.Option(metavar="NAME", help="Column of the prompt's tokens.")] = (
        None
    )
    strong_output_tokens_column: Annotated[
        str | None, typer.Option(metavar="NAME", help="Column of the strong answer's tokens.")
    ] = None
    weak_output_tokens_column: Annotated[
        str | None, typer.Option(metavar="NAME", help="Column of the weak answer's tokens.")
    ] = None
    turn: TurnOption = "first"
    on_bad_row: OnBadRowOption = "skip"

    @property
    def numbers(self) -> dict[str, str]:
        """The named columns of numbers by what they hold."""
        from prefroute.evaluation.benchmarks import COLUMNS

        named = {name: getattr(self, f"{name}_column") for name in COLUMNS}
        return {name: column for name, column in named.items() if column is not None}


@dataclass(frozen=True, kw_only=True)
class PriceOptions:
    """What answers cost, where the data do not say."""

    prices: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help='Prices in US dollars per million tokens: {"model": {"input": 2.5, "output": 10}}, as JSON.',
            exists=True,
            dir_okay=False,
        ),
    ] = None
    input_tokens: Annotated[
        float | None, typer.Option(min=0, metavar="N", help="Mean tokens of a prompt, where no column has them.")
    ] = None
    output_tokens: Annotated[float | None, typer.Option(min=0, metavar="N", help="Mean tokens of an answer.")] = None

    def read(self) -> Prices | None:
        """The prices of the file."""
        from prefroute.costs import Prices

        return None if self.prices is None else Prices.read(self.prices)

    def costs(self, benchmark: Benchmark) -> AnswerCosts:
        """What the answers of a benchmark cost, as far as that is known.

        Raises:
            ConfigurationError: One of the two mean numbers of tokens is missing.
            DataError: The file of prices cannot be read.
        """
        from prefroute.evaluation.savings import answer_costs

        given = (self.input_tokens, self.output_tokens)
        if (given[0] is None) != (given[1] is None):
            msg = "--input-tokens and --output-tokens go together; give both"
            raise ConfigurationError(msg)
        tokens = None if given[0] is None or given[1] is None else (given[0], given[1])
        return answer_costs(benchmark, self.read(), tokens=tokens)


def read_data(
    data: list[Path],
    pair: ModelPair,
    columns: ColumnOptions,
    *,
    category: str | None = None,
    is_priced: bool = False,
    progress: bool,
) -> Benchmark:
    """Read the files, or the folder in RouteLLM's layout, that a command is given.

    Args:
        data: Files, or one folder.
        pair: The quality columns.
        columns: What the others hold.
        category: Column of a category.
        is_priced: Whether prices are given: they are then taken in place of costs that nobody named.
        progress: Whether to show a progress bar.

    Returns:
        The benchmark; rows that were skipped are told on stderr.

    Raises:
        DataError: They cannot be read; the remedy is in words of the command line.
        ConfigurationError: Files and folders are mixed, or an option says nothing about a folder.
    """
    from prefroute.data import ReadReport
    from prefroute.data.report import TableError
    from prefroute.evaluation.benchmarks import read_benchmark, read_folder

    folders = [path for path in data if path.is_dir()]
    if folders:
        if len(data) > 1 or columns.numbers or columns.prompt_column or category:
            msg = f"--data {folders[0]} is a folder in RouteLLM's layout: give it alone, without options about columns"
            raise ConfigurationError(msg)
        return read_folder(folders[0], pair)
    report = ReadReport()
    logging.getLogger("prefroute.data").addHandler(_SILENT)
    try:
        found = read_benchmark(
            data,
            pair,
            name=data[0].name if len(data) == 1 else f"{data[0].name} and {len(data) - 1} more",
            prompt=columns.prompt_column,
            category=category,
            numbers=columns.numbers or None,
            turn=columns.turn,
            on_bad_row=columns.on_bad_row,
            report=report,
            progress=progress,
        )
    except TableError as error:
        raise DataError(in_options(error)) from error
    if report.rows_bad:
        reasons = ", ".join(f"{count:,} x {reason}" for reason, count in report.reasons.most_common())
        sys.stderr.write(f"prefroute: warning: {report.rows_bad:,} rows cannot be used: {printable(reasons)}\n")
    if is_priced and not columns.numbers:
        return replace(found, numbers={name: row for name, row in (found.numbers or {}).items() if "cost" not in name})
    return found


def excluded(benchmark: Benchmark, files: list[Path] | None) -> Benchmark:
    """The benchmark without the prompts that files list.

    Args:
        benchmark: The rows.
        files: Each with a column prompt, or eval_prompt as in RouteLLM's lists of contaminated prompts; a `.txt` file
            has one prompt a line.

    Returns:
        The other rows.
    """
    for path in files or ():
        left = set(read_prompt_file(path))
        try:
            benchmark = benchmark.without(left)
        except DataError as error:
            msg = f"--exclude {path} leaves none of the {len(benchmark):,} prompts; exclude fewer"
            raise DataError(msg) from error
    return benchmark


def read_prompt_file(
    path: Path, column: str | None = None, *, turn: Turn = "first", on_bad_row: OnBadRow = "raise"
) -> list[str]:
    """Prompts of a file.

    Args:
        path: CSV, JSON lines or Parquet; or `.txt` with one prompt a line.
        column: Column of the prompt; None for `prompt` or `eval_prompt`, whichever is there.
        turn: Which of several turns is the prompt.
        on_bad_row: As for `read_prompts`.

    Returns:
        The prompts, in order.

    Raises:
        DataError: They cannot be read.
    """
    from prefroute.data import read_prompts
    from prefroute.data.report import TableError

    if path.suffix == ".txt" and column is None:
        try:
            # Not by splitlines, which takes a form feed, say, for the end of a prompt.
            lines = path.read_text(encoding="utf-8-sig").split("\n")
        except OSError as error:
            msg = f"{path} cannot be read: {error}"
            raise DataError(msg) from error
        except UnicodeDecodeError as error:
            line = error.object[: error.start].count(b"\n") + 1
            msg = f"{path}, line {line}, is no UTF-8 (byte 0x{error.object[error.start]:02x}); save the file as UTF-8"
            raise DataError(msg) from error
        found = [line for line in lines if line.strip()]
        if not found:
            msg = f"{path} holds no prompts; one a line is wanted"
            raise DataError(msg)
        return found
    first: DataError | None = None
    for name in ("prompt", "eval_prompt") if column is None else (column,):
        try:
            return read_prompts(path, name, turn=turn, on_bad_row=on_bad_row)
        except TableError as error:
            raise DataError(in_options(error)) from error
        except DataError as error:
            first = first or error
    msg = f"{first}. Name the column with --prompt-column"
    raise DataError(msg)


def is_swapped(router: Router, pair: ModelPair) -> bool:
    """Whether a router was trained for the same two models the other way round."""
    own = getattr(router, "pair", None)
    return own is not None and (own.strong, own.weak) == (pair.weak, pair.strong)


def unpriced(costs: AnswerCosts, prices: PriceOptions, benchmark: Benchmark) -> str:
    """What is missing to know what the answers cost; empty where nothing is."""
    pair = benchmark.pair
    unknown = [name for name, column in ((pair.strong, costs.strong), (pair.weak, costs.weak)) if column is None]
    if not unknown:
        return ""
    listed: Mapping[str, Price | None] = prices.read() or {}
    unlisted = [name for name in unknown if listed.get(name) is None]
    if unlisted:
        names = ", ".join(map(repr, listed)) or "none; give --prices"
        return f"there is no price of {' nor of '.join(map(repr, unlisted))}; prices: {names}"
    return "prices are known, tokens are not; give --input-tokens and --output-tokens, or columns of tokens or costs"


def a_thousand(cost: float | None) -> str:
    """A cost of one request as dollars per 1,000 of them."""
    if cost is None:
        return "unknown"
    return f"{'-' if cost < 0 else ''}${abs(cost) * _PER_THOUSAND:,.4g}"


def in_options(error: TableError) -> str:
    """What is wrong with a table, with the remedy in words of the command line."""
    remedies = {
        "named column": ". Correct the option that names it",
        "prompt": ". Name it with --prompt-column",
        "columns": ". Wanted: a column of the prompt (--prompt-column), and one named as --strong and one as --weak",
        "format": ". Wanted: a column of the prompt, and one named as --strong and one as --weak",
        "row": ". Correct it, or leave such rows out with --on-bad-row skip",
    }
    return error.found + remedies.get(error.about, error.remedy)
