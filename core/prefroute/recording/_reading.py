"""Reading the file that records are kept in."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from prefroute._sqlite import TURN, Mark, mark_of, use
from prefroute.errors import DataError
from prefroute.recording._store import MARK
from prefroute.recording.records import Feedback, Recorded, RecordedCall
from prefroute.types import RoutingDecision

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

T = TypeVar("T")

_PATIENCE = 10.0
"""Seconds to wait for a writer; its transactions take milliseconds."""

_PAGE = 200
"""Decisions that are read at once: whoever writes waits no longer than that takes."""

_DECISIONS = "SELECT * FROM decisions WHERE number > ? AND number <= ? ORDER BY number LIMIT ?"
_CALLS = "SELECT * FROM calls WHERE decision BETWEEN ? AND ? ORDER BY number"
_FEEDBACK = "SELECT * FROM feedback WHERE decision BETWEEN ? AND ? ORDER BY number"


class StoredRecords:
    """The records in a file, for reading only.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def last(self) -> int:
        """The number of the newest decision; 0 where there is none."""
        return self._read(_last)

    def items(self, last: int) -> Iterator[Recorded]:
        """The decisions up to a number."""
        after = 0
        while page := self._read(partial(_page, after, last)):
            yield from page.items
            after = page.last

    def _read(self, act: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return use(self._connect, act, patience=_PATIENCE)
        except DataError:
            raise
        except (sqlite3.Error, KeyError, TypeError, ValueError) as error:
            msg = (
                f"the records in {self._path} cannot be read ({type(error).__name__}: {error}); where another program "
                "has it locked, try again; where it is damaged, sqlite3's .recover may save what is left"
            )
            raise DataError(msg) from error

    def _connect(self) -> sqlite3.Connection:
        if not self._path.is_file():
            msg = f"there is no file {self._path}; give the path that the Recorder was given"
            raise DataError(msg)
        # For writing as far as the file allows: what a killed process left half written must be undone first.
        uri = f"{self._path.absolute().as_uri()}?mode=rw"
        connection = sqlite3.connect(uri, uri=True, timeout=TURN, isolation_level=None)
        try:
            connection.execute("PRAGMA query_only = ON")
            self._check(mark_of(connection))
        except BaseException:
            connection.close()
            raise
        return connection

    def _check(self, found: Mark) -> None:
        if found != MARK:
            what = "of another version" if found.application == MARK.application else "no store of records"
            msg = f"{self._path} is {what}; give a file that a prefroute.recording.Recorder of this version wrote"
            raise DataError(msg)


class _Page(NamedTuple):
    """Some decisions, and the number of the last of them."""

    items: list[Recorded]
    last: int


def _last(connection: sqlite3.Connection) -> int:
    (last,) = connection.execute("SELECT max(number) FROM decisions").fetchone()
    return int(last or 0)


def _page(after: int, last: int, connection: sqlite3.Connection) -> _Page | None:
    connection.row_factory = sqlite3.Row
    connection.execute("BEGIN")  # So that all three are of one moment.
    decisions = connection.execute(_DECISIONS, (after, last, _PAGE)).fetchall()
    if not decisions:
        return None
    span = (decisions[0]["number"], decisions[-1]["number"])
    calls, feedback = defaultdict(list), defaultdict(list)
    for row in connection.execute(_CALLS, span):
        calls[row["decision"]].append(_call(dict(row)))
    for row in connection.execute(_FEEDBACK, span):
        given = Feedback(score=row["score"], note=row["note"], time=datetime.fromisoformat(row["time"]))
        feedback[row["decision"]].append(given)
    items = [_recorded(dict(row), calls[row["number"]], feedback[row["number"]]) for row in decisions]
    return _Page(items, decisions[-1]["number"])


def _call(row: dict[str, Any]) -> RecordedCall:
    kept = {name: value for name, value in row.items() if name not in {"number", "decision"}}
    return RecordedCall(**kept | {"stands_in": bool(row["stands_in"])})


def _recorded(row: dict[str, Any], calls: list[RecordedCall], feedback: list[Feedback]) -> Recorded:
    return Recorded(
        prompt=row["prompt"],
        decision=RoutingDecision.from_dict(row),
        time=datetime.fromisoformat(row["time"]),
        answered_by=row["answered_by"],
        calls=tuple(calls),
        feedback=tuple(feedback),
    )
