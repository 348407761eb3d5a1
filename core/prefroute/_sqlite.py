"""SQLite files that threads and processes share: opened for each use, carried over no fork, waited for in turns."""

from __future__ import annotations

import os
import random
import sqlite3
import threading
import time
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

TURN = 0.05
"""Seconds to wait for a lock in SQLite's own hands, while other threads wait too; the longest pause between turns."""

_using = threading.Lock()
"""Held while a file is open. A process that is forked meanwhile would take its parent's locks for its own, for good."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_using.acquire, after_in_parent=_using.release, after_in_child=_using.release)


class Mark(NamedTuple):
    """What a file's header says it is.

    Attributes:
        application: Whose it is, and what kind.
        version: Of its tables.
    """

    application: int
    version: int


NOTHING = Mark(0, 0)
"""The mark of a new file, and of what marks nothing."""


def use(connect: Callable[[], sqlite3.Connection], act: Callable[[sqlite3.Connection], T], *, patience: float) -> T:
    """Do something with a file, one thread at a time; where another program has it locked, wait and do it again.

    Args:
        connect: Opens the file. A connection for each use takes a fraction of a millisecond, and none is ever shared
            between threads, carried over a fork, or left on a file that was deleted meanwhile.
        act: What to do; it may be done again from its beginning.
        patience: Seconds to wait for the other program.

    Returns:
        What `act` returns.

    Raises:
        Exception: What opening or acting raises: `sqlite3.Error` and, of a damaged file, others too.
    """
    until = time.monotonic() + patience
    while True:
        try:
            with _using, closing(connect()) as connection:
                return act(connection)
        except sqlite3.Error as error:
            if not is_busy(error) or time.monotonic() >= until:
                raise
        # Without the lock, which threads with other files, and forks, need too.
        time.sleep(random.uniform(0.0, TURN))  # noqa: S311 - so that two do not meet again and again


def is_busy(error: BaseException) -> bool:
    """Whether an error says that another program has the file locked."""
    # SQLITE_LOCKED is something else: no other program, but damage, for no two of our connections share a cache.
    code = getattr(error, "sqlite_errorcode", None) or 0
    return code & 0xFF == sqlite3.SQLITE_BUSY  # The rest says why.


def mark_of(connection: sqlite3.Connection) -> Mark:
    """What a file says it is; `NOTHING` for one that is no database.

    Raises:
        sqlite3.Error: It cannot be read.
    """
    is_alone = not connection.in_transaction
    if is_alone:
        # Of one state of the file: a process that marks it between the two reads would leave half a mark to be found.
        connection.execute("BEGIN")
    try:
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", None) != sqlite3.SQLITE_NOTADB:
            raise
        return NOTHING
    finally:
        if is_alone and connection.in_transaction:
            connection.execute("ROLLBACK")
    return Mark(application, version)


def claim(connection: sqlite3.Connection, mark: Mark, tables: str) -> Mark:
    """Make the tables in a file that is new.

    Args:
        connection: Of the file.
        mark: What the file shall say it is.
        tables: SQL statements that make them.

    Returns:
        What the file says it is, after that: another mark where it is something else's, which is left as it is.

    Raises:
        sqlite3.Error: It cannot be read or written.
    """
    found = mark_of(connection)
    if found != NOTHING:
        return found
    try:
        connection.execute("BEGIN IMMEDIATE")  # Another process may be making them at this moment.
    except sqlite3.DatabaseError as error:
        if getattr(error, "sqlite_errorcode", None) != sqlite3.SQLITE_NOTADB:
            raise
        return NOTHING
    found = mark_of(connection)
    (objects,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if found == NOTHING and not objects:
        for statement in tables.split(";"):
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {mark.application}")
        connection.execute(f"PRAGMA user_version = {mark.version}")
        found = mark
    connection.execute("COMMIT")
    return found
