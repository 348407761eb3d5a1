"""The file that records are kept in: its tables, and how it is written and kept small."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing, suppress
from functools import partial
from typing import TYPE_CHECKING

from prefroute._sqlite import TURN, Mark, claim, use
from prefroute.errors import ConfigurationError
from prefroute.recording._rows import CallRow, DecisionRow, FeedbackRow

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

MARK = Mark(0x70726563, 1)
"""Marks the file as ours in its header ("prec")."""

TABLES = """
CREATE TABLE decisions (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    time TEXT NOT NULL,
    prompt TEXT NOT NULL,
    route TEXT NOT NULL,
    score REAL,
    threshold REAL NOT NULL,
    reason TEXT NOT NULL,
    detail TEXT,
    answered_by TEXT NOT NULL
);
CREATE TABLE calls (
    number INTEGER PRIMARY KEY,
    decision INTEGER NOT NULL REFERENCES decisions (number),
    side TEXT NOT NULL,
    model TEXT,
    error TEXT,
    seconds REAL NOT NULL,
    input_tokens INTEGER,
    output_tokens INTEGER,
    stands_in INTEGER NOT NULL,
    answer TEXT
);
CREATE INDEX calls_by_decision ON calls (decision);
CREATE TABLE feedback (
    number INTEGER PRIMARY KEY,
    decision INTEGER NOT NULL REFERENCES decisions (number),
    score REAL NOT NULL,
    note TEXT,
    time TEXT NOT NULL
);
CREATE INDEX feedback_by_decision ON feedback (decision)
"""

_FILLED = 0.75
"""Share of the size limit that the file itself may fill; the rest is for the journal beside it."""

_AT_ONCE = 1 / 16
"""Share of that which one transaction may add or remove, for the journal holds what it changes."""

_ROW_BYTES = 300
"""What a row takes beside its texts, entries in indexes included."""

_SPARE_PAGES = 8
"""Pages that the trees of a transaction may grow by."""

_DECIDED = "INSERT OR IGNORE INTO decisions VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
# Of a decision that is not there (left out, or removed since) nothing else is kept either.
_CALLED = "INSERT INTO calls SELECT NULL, number, ?, ?, ?, ?, ?, ?, ?, ? FROM decisions WHERE id = ?"
_RATED = "INSERT INTO feedback SELECT NULL, number, ?, ?, ? FROM decisions WHERE id = ?"

_OLDEST = """
SELECT number, length(CAST(prompt AS BLOB))
    + (SELECT total(length(CAST(answer AS BLOB))) FROM calls WHERE decision = decisions.number)
    + (SELECT total(length(CAST(note AS BLOB))) FROM feedback WHERE decision = decisions.number)
FROM decisions ORDER BY number
"""


class Store:
    """The file; written by any number of threads and processes.

    It has a rollback journal and no write-ahead log: that leaves two more files, and is unsafe on a folder shared by
    machines.

    Args:
        path: The file; made at the first write, its folder too.
        max_bytes: What it and its journal may take.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        self.path = path
        self._max_bytes = max_bytes

    def parts(self, rows: Iterable[DecisionRow | CallRow]) -> Iterator[list[DecisionRow | CallRow]]:
        """Rows in their order, in parts that can each be added at once; what is too large for that is left out."""
        part: list[DecisionRow | CallRow] = []
        size = 0
        for row in rows:
            if (larger := _bytes_of(row)) > self._bytes_at_once:
                continue
            if size + larger > self._bytes_at_once:
                yield part
                part, size = [], 0
            part.append(row)
            size += larger
        if part:
            yield part

    def add(self, part: Sequence[DecisionRow | CallRow | FeedbackRow], *, patience: float) -> int:
        """Add rows, all or none of them; the oldest decisions make room for them.

        Args:
            part: In an order in which a decision comes before what belongs to it.
            patience: Seconds to wait where another program has the file locked.

        Returns:
            How many there were a place for: not what is there already, or belongs to no decision that is there.

        Raises:
            ConfigurationError: The file is something else's.
            sqlite3.Error: It cannot be written.
            OSError: Likewise.
        """
        return use(self._connect, partial(self._add, part), patience=patience)

    def add_feedback(self, row: FeedbackRow, *, patience: float) -> bool:
        """`add` a feedback; gives False where there is no such decision, or no such file, which is not made."""
        if not self.path.exists() or _bytes_of(row) > self._bytes_at_once:
            return False
        return self.add([row], patience=patience) > 0

    @property
    def _bytes_at_once(self) -> int:
        return int(self._max_bytes * _FILLED * _AT_ONCE)

    def _connect(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # Prompts are private; SQLite gives its journal the same mode. Only where there is no file: a program gives up
        # its locks on one that it has open elsewhere, when it closes it here.
        with suppress(FileExistsError):
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        connection = sqlite3.connect(self.path, timeout=TURN, isolation_level=None)
        try:
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # Of a file that has no tables yet.
        if claim(connection, MARK, TABLES) != MARK:
            msg = (
                f"{self.path} is no store of records that this prefroute writes; give another path, "
                "or delete the file if it is a damaged store"
            )
            raise ConfigurationError(msg)
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA secure_delete = ON")  # What is removed shall not stay readable in the file.

    def _add(self, rows: Sequence[DecisionRow | CallRow | FeedbackRow], connection: sqlite3.Connection) -> int:
        """Add rows that together are not too many; gives how many are new."""
        pages = _Pages(connection, self._max_bytes)
        connection.execute("BEGIN IMMEDIATE")
        pages.make_room(sum(map(_bytes_of, rows)))
        before = connection.total_changes
        for row in rows:
            connection.execute(_statement_of(row), row)
        added = connection.total_changes - before
        connection.execute("COMMIT")
        pages.give_back()
        return added


class _Pages:
    """The size of a file, in its pages.

    Args:
        connection: Of the file.
        max_bytes: What it and its journal may take.
    """

    def __init__(self, connection: sqlite3.Connection, max_bytes: int) -> None:
        self._connection = connection
        self._size = self._pragma("page_size")
        self._most = int(max_bytes * _FILLED) // self._size
        # The estimates below are generous; should they fail, it is SQLite that refuses to let the file grow.
        self._pragma(f"max_page_count = {int(max_bytes * (_FILLED + _AT_ONCE)) // self._size}")

    def make_room(self, wanted: int) -> None:
        """Remove the oldest decisions, with their calls and feedback, until so many bytes can be added."""
        pages = 2 * wanted // self._size + _SPARE_PAGES
        while self._used() + pages > self._most and self._remove_oldest(wanted + int(self._most * self._size / 32)):
            pass

    def give_back(self) -> None:
        """Make the file smaller where it is larger than may be: the limit was a higher one before."""
        # Otherwise free pages are left to what is added next.
        if (surplus := self._pragma("page_count") - self._most) > 0:
            with suppress(sqlite3.Error):  # What was added is there, and the next one tries again.
                # Not by `execute`, which would free a single page: it takes one step of what returns no columns.
                self._connection.executescript(f"PRAGMA incremental_vacuum({surplus})")

    def _used(self) -> int:
        return self._pragma("page_count") - self._pragma("freelist_count")

    def _remove_oldest(self, wanted: int) -> bool:
        """Remove decisions whose texts take so many bytes; gives False where there was none."""
        last, found = None, 0
        with closing(self._connection.execute(_OLDEST)) as oldest:
            for number, size in oldest:
                last, found = number, found + int(size) + _ROW_BYTES
                if found >= wanted:
                    break
        if last is not None:
            self._connection.execute("DELETE FROM calls WHERE decision <= ?", (last,))
            self._connection.execute("DELETE FROM feedback WHERE decision <= ?", (last,))
            self._connection.execute("DELETE FROM decisions WHERE number <= ?", (last,))
        return last is not None

    def _pragma(self, name: str) -> int:
        (value,) = self._connection.execute(f"PRAGMA {name}").fetchone()
        return int(value)


def _statement_of(row: DecisionRow | CallRow | FeedbackRow) -> str:
    if isinstance(row, DecisionRow):
        return _DECIDED
    return _CALLED if isinstance(row, CallRow) else _RATED


def _bytes_of(row: DecisionRow | CallRow | FeedbackRow) -> int:
    return _ROW_BYTES + sum(len(value.encode()) for value in row if isinstance(value, str))
