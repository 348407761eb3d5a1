"""Telling a fault of a whole table from odd rows, which may be skipped."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from prefroute.data.report import TableError, shown

if TYPE_CHECKING:
    from prefroute.data.report import RowError
    from prefroute.data.tables import Table

_RECURS = 3
"""So many rows with one outcome that is not understood are no accident, if they are more than `_SHARE` of all."""
_SHARE = 0.01
_VALUES_SHOWN = 4


class Faults:
    """Why rows of one table cannot be used, to tell a fault of the whole table from odd rows."""

    def __init__(self) -> None:
        self._kinds: Counter[str] = Counter()
        self._first: dict[str, tuple[int, str]] = {}
        self._outcomes: Counter[str] = Counter()

    def add(self, line: int, error: RowError) -> None:
        """Count a row, or as many as are lost with it."""
        self._kinds[error.kind] += error.rows
        self._first.setdefault(error.kind, (line, error.reason))
        if error.outcome is not None:
            self._outcomes[shown(error.outcome)] += 1

    def check(self, table: Table, rows: int) -> None:
        """Refuse what is no accident.

        Raises:
            TableError: One outcome that is not understood recurs, or one reason takes most of the rows.
        """
        common = self._outcomes.most_common()
        if common and common[0][1] >= _RECURS and common[0][1] > _SHARE * rows:
            told = " or ".join(f"{value} ({count})" for value, count in common[:_VALUES_SHOWN])
            if len(common) > _VALUES_SHOWN:
                told += f" or {len(common) - _VALUES_SHOWN} other values"
            msg = f"{table.name}: {sum(self._outcomes.values())} of {rows} rows say {told}, which is not understood"
            remedy = ". Say with values= what they mean: the probability that model_a won, by value"
            raise TableError(msg, remedy, "outcomes", tuple(value for value, _ in common[:3]))
        for kind, count in self._kinds.most_common(1):
            if 2 * count > rows > 1:
                line, reason = self._first[kind]
                one = "" if reason == kind else f": {reason}"
                msg = f"{table.name}: {count} of {rows} rows cannot be used: {kind} (first at {table.unit} {line}{one})"
                raise TableError(msg, ". That is too many to skip: correct the file, or leave these rows out of it")
