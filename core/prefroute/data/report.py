"""What a reader found: how many rows, how many it could not use, and which those were and why."""

from __future__ import annotations

import reprlib
from collections import Counter
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import TYPE_CHECKING, Literal, NamedTuple, NoReturn, TypeAlias

from prefroute.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable

Subject: TypeAlias = Literal["", "named column", "prompt", "columns", "format", "row", "outcome row", "outcomes"]
"""What a `TableError` is about, for who would word the remedy in another way."""

MAX_LISTED = 100
"""Bad rows listed one by one in a report; all of them are counted."""


class BadRow(NamedTuple):
    """A row that could not be used.

    Attributes:
        file: Where it stands: a path, or what kind of object was read.
        line: Its first line in a text file, from 1; its number, from 1, in anything else.
        reason: What was found, and what was wanted.
    """

    file: str
    line: int
    reason: str


class FileRead(NamedTuple):
    """What one file, frame or data set held.

    Attributes:
        file: As in `BadRow`.
        format: The format it was recognised as.
        rows: Rows found, without blank lines.
        kept: Those that were used.
        bad: Those that were not.
    """

    file: str
    format: str
    rows: int
    kept: int
    bad: int


@dataclass
class ReadReport:
    """Counts what readers found; give one to as many calls as are to be summed.

    Attributes:
        files: One entry a file, frame or data set, in the order read.
        bad_rows: The first 100 rows that could not be used; `rows_bad` counts them all.
        reasons: How many bad rows there are of each kind.
    """

    files: list[FileRead] = field(default_factory=list)
    bad_rows: list[BadRow] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def rows_read(self) -> int:
        """Rows found, good and bad."""
        return sum(file.rows for file in self.files)

    @property
    def rows_kept(self) -> int:
        """Rows that were used."""
        return sum(file.kept for file in self.files)

    @property
    def rows_bad(self) -> int:
        """Rows that were not used."""
        return sum(file.bad for file in self.files)

    def add_bad_row(self, row: BadRow, kind: str, rows: int = 1) -> None:
        """Count a row, or the rows lost with it, under a kind, and list it if the list is not full."""
        self.reasons[kind] += rows
        if len(self.bad_rows) < MAX_LISTED:
            self.bad_rows.append(row)

    def __str__(self) -> str:
        """A few lines for people."""
        lines = [f"{self.rows_read:,} rows read, {self.rows_kept:,} used, {self.rows_bad:,} not used"]
        lines += [f"  {file.file}: {file.kept:,} of {file.rows:,} rows, as {file.format}" for file in self.files]
        lines += [f"  not used: {count:,} x {kind}" for kind, count in self.reasons.most_common()]
        lines += [f"  {row.file}:{row.line}: {row.reason}" for row in self.bad_rows[:5]]
        if self.rows_bad > 5:  # noqa: PLR2004 - as many as are shown above
            lines.append("  ...")
        return "\n".join(lines)


class TableError(DataError):
    """Why a table cannot be read; the remedy, in words of the Python arguments, apart from what was found.

    Args:
        found: What was found.
        remedy: What to do about it.
        about: What it is about.
        details: The names or values that it is about.
    """

    def __init__(self, found: str, remedy: str = "", about: Subject = "", details: tuple[str, ...] = ()) -> None:
        self.found = found
        self.remedy = remedy
        self.about = about
        self.details = details
        super().__init__(found, remedy, about, details)

    def __str__(self) -> str:
        """What was found, and what to do about it."""
        return f"{self.found}{self.remedy}"


class RowError(Exception):
    """Why one row cannot be used; never leaves the readers.

    Args:
        kind: A short constant text, under which the row is counted.
        reason: The full reason, with what was found and wanted.
        outcome: The outcome that was not understood, if that is why.
        rows: Rows, or lines, that are lost with it.
        remedy: What to do about a damaged file, which is never passed over; empty where the row alone is bad.
    """

    def __init__(
        self, kind: str, reason: str | None = None, outcome: object = None, *, rows: int = 1, remedy: str = ""
    ) -> None:
        self.kind = kind
        self.reason = reason or kind
        self.outcome = outcome
        self.rows = rows
        self.remedy = remedy
        super().__init__(self.reason)


def refuse(kind: str, reason: str | None = None, outcome: object = None) -> NoReturn:
    """Raise `RowError`."""
    raise RowError(kind, reason, outcome)


def shown(value: object) -> str:
    """A value for a message: short, whatever it is."""
    return reprlib.repr(value)


def near(name: str, names: Iterable[str], cutoff: float = 0.6) -> list[str]:
    """Up to three names that one that is unknown may have been meant for, whatever their case."""
    folded = {known.casefold(): known for known in names}
    return [folded[match] for match in get_close_matches(name.casefold(), folded, 3, cutoff)]
