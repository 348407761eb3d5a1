"""Reading battles and responses of any known format, with every row that cannot be used reported."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar, get_args

import numpy as np

from prefroute.data.battles import BattleColumns, Battles
from prefroute.data.faults import Faults
from prefroute.data.formats import Hints, Layout, battle_parser, hints_of, recognise, require_columns
from prefroute.data.report import BadRow, FileRead, ReadReport, RowError, TableError, refuse, shown
from prefroute.data.responses import ResponseTable, response_parser
from prefroute.data.tables import refuse_twice, tables_of
from prefroute.data.values import Turn, as_turn, prompt_of
from prefroute.errors import ConfigurationError, DataError

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from prefroute.data.tables import Table

T = TypeVar("T")

logger = logging.getLogger(__name__)

OnBadRow: TypeAlias = Literal["raise", "skip"]
"""What happens at a row that cannot be used."""

Source: TypeAlias = "str | os.PathLike[str] | Iterable[Any]"
"""A path, paths, a pandas frame, a Hugging Face `Dataset`, or an iterable of mappings."""


def read_battles(
    source: Source,
    *,
    format: str | None = None,  # noqa: A002 - what everyone calls it
    columns: Mapping[str, str] | None = None,
    values: Mapping[Any, float] | None = None,
    models: Sequence[str] = (),
    margin: float = 0.0,
    turn: Turn = "first",
    name: str | None = None,
    on_bad_row: OnBadRow = "raise",
    report: ReadReport | None = None,
    progress: bool = False,
) -> Battles:
    """Read preference data of any known format.

    Text files (CSV, JSON lines, a JSON array), packed by gzip or not, are told by their content, and Parquet
    too. The format is told by the columns:

    * `battles`: prompt, model_a, model_b, outcome, and optionally weight and source: the table itself. The outcome
      is the probability that model_a wins, or a vote in words.
    * `arena`: the 55k release of the Chatbot Arena (winner_model_a, winner_model_b, winner_tie).
    * `fastchat`: the battles of FastChat: winner is a vote in words.
    * `responses`: prompt and one quality column a model, named with `models`.

    A vote in words is `a` or `model_a`, `b` or `model_b` in any case, or a tie (`tie`, `draw`, `equal`, `both`,
    `neither`, `tie (bothbad)`); or the name of the winning model, exactly as in that row's model_a or model_b. Where
    a model is itself called A or tie, say, its rows mean the model.

    Anything else is read by saying which column holds what: AlpacaEval's votes, say, with
    `columns={"outcome": "preference"}, values={0: 0.5, 1: 1.0, 2: 0.0}`.

    Args:
        source: A path, paths, a pandas frame, a Hugging Face `Dataset`, or an iterable of mappings.
        format: Name of the format, where the columns fit more than one.
        columns: Name of the column that holds the prompt, model_a, model_b, outcome, weight or source, by that name.
        values: Probability that model_a wins, by value of the outcome column. A number between two that are given
            is interpolated when these are a sure win of either side, or all that are given rise or fall throughout.
            Words for a tie are understood without. Names of models are refused: they are understood when it is None.
        models: The quality columns of a response table (numbers, or true and false); battle tables need none.
            Each row becomes one battle between every two of them.
        margin: Two qualities of a response table that differ by no more than this tie.
        turn: Which of the user's turns is the prompt, where there are several: a list of texts or of messages, or a
            text of `### Human:` and `### Assistant:` turns. Published training took the first.
        name: Source of rows that name none; by default the file's name without its ending.
        on_bad_row: `raise` at a row that cannot be used, or `skip` it, with a warning in the log at the end. What
            is no accident is not skipped: one unknown outcome in at least 3 rows and more than 1 % of a file, or
            one reason why more than half of its rows cannot be used. Nor is a damaged file, of which no one knows
            how much is lost: cut short, or with a quote that runs over several lines.
        report: Where to count what was read, and to list the rows that could not be used.
        progress: Whether to show a progress bar on stderr.

    Returns:
        The battles of all files, in order.

    Raises:
        DataError: A file or its columns cannot be read, a row cannot be used and `on_bad_row` is `raise`, or too
            many or all of them cannot be.
        ConfigurationError: An argument cannot be used, or says nothing about a response table that is read.
        MissingExtraError: A Parquet file, and pyarrow is not installed.
    """
    reader = TableReader(
        hints_of(format, columns, values, models), as_turn(turn), on_bad_row, report, progress=progress
    )
    tables: list[Battles] = []
    for rows in tables_of(source):
        layout = reader.layout(rows)
        label = rows.label if name is None else name
        if layout is None:
            continue
        if layout.format == "responses":
            tables.append(reader.responses(rows, layout).to_battles(margin=margin, source=label))
            continue
        wanted, parse = battle_parser(layout, reader.hints, reader.turn, label)
        collected = BattleColumns()
        for battle in reader.rows(rows, layout, wanted, parse):
            collected.add(*battle)
        tables.append(collected.table())
    reader.finish()
    return Battles.concatenate(tables)


def read_responses(
    source: Source,
    models: Sequence[str],
    *,
    columns: Mapping[str, str] | None = None,
    scale: tuple[float, float] | None = None,
    turn: Turn = "first",
    on_bad_row: OnBadRow = "raise",
    report: ReadReport | None = None,
    progress: bool = False,
) -> ResponseTable:
    """Read a table of prompts with one quality column a model: golden labels, or scores of a judge.

    Args:
        source: As for `read_battles`.
        models: The quality columns, at least one: numbers, or true and false (1 and 0).
        columns: `{"prompt": NAME}` where the column of the prompt has another name.
        scale: Lowest and highest quality possible; a row with any other is bad (judges that fail write -1, say).
        turn: As for `read_battles`.
        on_bad_row: As for `read_battles`.
        report: As for `read_battles`.
        progress: Whether to show a progress bar on stderr.

    Returns:
        The rows of all files, in order; a prompt may recur.

    Raises:
        DataError: As for `read_battles`.
        ConfigurationError: As for `read_battles`.
        MissingExtraError: As for `read_battles`.
    """
    hints = hints_of("responses", columns, None, models)
    if not hints.models:
        msg = "read_responses needs the quality columns: models=[...], got none"
        raise ConfigurationError(msg)
    reader = TableReader(hints, as_turn(turn), on_bad_row, report, progress=progress)
    tables = [
        reader.responses(rows, layout, scale)
        for rows in tables_of(source)
        if (layout := reader.layout(rows)) is not None
    ]
    reader.finish()
    return ResponseTable.concatenate(tables)


def read_prompts(
    source: Source,
    column: str = "prompt",
    *,
    turn: Turn = "first",
    on_bad_row: OnBadRow = "raise",
    report: ReadReport | None = None,
) -> list[str]:
    """Read one column of prompts, such as those of a benchmark that training must not hold.

    Args:
        source: As for `read_battles`.
        column: Their column.
        turn: As for `read_battles`.
        on_bad_row: As for `read_battles`.
        report: As for `read_battles`.

    Returns:
        The prompts, in order.

    Raises:
        DataError: As for `read_battles`.
        ConfigurationError: As for `read_battles`.
        MissingExtraError: As for `read_battles`.
    """
    turn = as_turn(turn)
    return read_columns(
        source, [column], lambda values: prompt_of(values[0], turn), turn=turn, on_bad_row=on_bad_row, report=report
    )


def read_columns(
    source: Source,
    columns: Sequence[str],
    parse: Callable[[tuple[Any, ...]], T],
    *,
    turn: Turn,
    on_bad_row: OnBadRow,
    report: ReadReport | None,
) -> list[T]:
    """Read some columns of tables of any format, the first of which holds the prompt.

    Args:
        source: As for `read_battles`.
        columns: Their names.
        parse: Makes one item of the values of a row, or raises a `RowError`.
        turn: A checked one.
        on_bad_row: As for `read_battles`.
        report: As for `read_battles`.

    Returns:
        What the good rows are parsed to, in order.

    Raises:
        DataError: As for `read_battles`; also where a column is not there.
    """
    reader = TableReader(hints_of(None, {"prompt": columns[0]}, None, ()), turn, on_bad_row, report, progress=False)
    layout = Layout(format="prompts", prompt=columns[0], columns=())
    items: list[T] = []
    for rows in tables_of(source):
        found = rows.columns()
        refuse_twice(found, rows.name)
        missing = [name for name in columns if found and name not in found]
        if missing:
            listed = ", ".join(map(repr, found))
            msg = f"{rows.name} has no column {' nor '.join(map(repr, missing))}; it has: {listed}"
            raise DataError(msg)
        items += reader.rows(rows, layout, list(columns), parse)
    reader.finish()
    return items


class TableReader:
    """Reads tables with one set of options, and counts."""

    def __init__(
        self, hints: Hints, turn: Turn, on_bad_row: OnBadRow, report: ReadReport | None, *, progress: bool
    ) -> None:
        if on_bad_row not in get_args(OnBadRow):
            msg = f"on_bad_row must be one of {', '.join(get_args(OnBadRow))}; got {shown(on_bad_row)}"
            raise ConfigurationError(msg)
        self.hints = hints
        self.turn = turn
        self.skips = on_bad_row == "skip"
        self.report = ReadReport() if report is None else report
        self.progress = progress
        self._before = (len(self.report.files), len(self.report.bad_rows))

    def layout(self, table: Table, also: Sequence[str] = ()) -> Layout | None:
        """The format of a table, which must have these columns too; None when it has no rows at all."""
        found = table.columns()
        if not found:
            # The rows, if there are any, have no columns: let them be reported one by one.
            for _ in self.rows(table, Layout(format="unknown", prompt="", columns=()), ["prompt"], _refuse):
                pass
            return None
        require_columns(also, found, table.name)
        return recognise(found, self.hints, table.name, is_open=table.is_open)

    def responses(self, table: Table, layout: Layout, scale: tuple[float, float] | None = None) -> ResponseTable:
        """Read a response table."""
        wanted, parse = response_parser(layout, self.turn, scale)
        rows = list(self.rows(table, layout, wanted, parse))
        quality = np.array([qualities for _, qualities in rows], dtype=np.float64).reshape(-1, len(layout.columns))
        return ResponseTable(prompts=tuple(prompt for prompt, _ in rows), models=layout.columns, quality=quality)

    def rows(
        self, table: Table, layout: Layout, wanted: list[str], parse: Callable[[tuple[Any, ...]], Any]
    ) -> Iterator[Any]:
        """What the good rows of a table are parsed to; the others are counted, or raised."""
        kept = bad = 0
        faults = Faults()
        try:
            with _bar(table, shown=self.progress) as advance:
                for done, batch in table.read(wanted):
                    for line, row in batch:
                        try:
                            if isinstance(row, RowError):
                                raise row
                            parsed = parse(row)
                        except RowError as error:
                            bad += error.rows
                            faults.add(line, error)
                            self._bad_row(table, line, error)
                        else:
                            kept += 1
                            yield parsed
                    advance(done)
        finally:
            self.report.files.append(FileRead(table.name, layout.format, kept + bad, kept, bad))
        faults.check(table, kept + bad)

    def finish(self) -> None:
        """Say what was left out since this was last asked, once all of a source is read.

        Raises:
            DataError: Nothing was of use.
        """
        files = self.report.files[self._before[0] :]
        bad, kept = sum(file.bad for file in files), sum(file.kept for file in files)
        first = next(iter(self.report.bad_rows[self._before[1] :]), None)
        self._before = (len(self.report.files), len(self.report.bad_rows))
        example = f"; first: {first.file}:{first.line}: {first.reason}" if first is not None else ""
        if not kept:
            names = ", ".join(file.file for file in files) or "the source"
            msg = f"{names}: none of {bad} rows could be used{example}" if bad else f"{names} holds no rows"
            raise DataError(msg)
        if bad:
            logger.warning("%d of %d rows could not be used and were skipped%s", bad, bad + kept, example)

    def _bad_row(self, table: Table, line: int, error: RowError) -> None:
        self.report.add_bad_row(BadRow(table.name, line, error.reason), error.kind, error.rows)
        if error.remedy:
            msg = f"{table.name}: the file is damaged from {table.unit} {line} on: {error.reason}"
            raise TableError(msg, error.remedy)
        if not self.skips:
            msg = f"{table.name}, {table.unit} {line}: {error.reason}"
            remedy = '. Correct it, or pass on_bad_row="skip" to leave such rows out and have them reported'
            if error.outcome is None:
                raise TableError(msg, remedy, "row")
            raise TableError(msg, f"{remedy}; or say with values= what other values mean", "outcome row")


def _refuse(values: tuple[Any, ...]) -> None:  # noqa: ARG001 - whatever they are
    refuse("no columns", "the row has no columns")


@contextmanager
def _bar(table: Table, *, shown: bool) -> Iterator[Callable[[int], None]]:
    """A progress bar for one table, told how far it is read."""
    if not shown:
        yield lambda _: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task(f"reading {table.name}", total=table.size)
        yield lambda done: progress.update(task, completed=done)
