"""What the cache of embeddings and the store of records share: marks of files."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from prefroute._sqlite import NOTHING, Mark, claim, mark_of

MARK = Mark(7, 3)
TABLE = "CREATE TABLE things (name TEXT)"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "things.sqlite"


class Raced(sqlite3.Connection):
    """Another process claims the file between the two reads of its mark."""

    others: Iterator[Path] = iter(())

    def execute(self, statement: str, *more: Any) -> sqlite3.Cursor:
        if statement == "PRAGMA user_version":
            for path in self.others:
                with closing(opened(path)) as other, suppress(sqlite3.OperationalError):
                    claim(other, MARK, TABLE)
        return super().execute(statement, *more)


def opened(path: Path, factory: type[sqlite3.Connection] = sqlite3.Connection) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=0, isolation_level=None, factory=factory)


def test_a_file_that_is_claimed_meanwhile_never_shows_half_a_mark(file: Path) -> None:
    with closing(opened(file, Raced)) as connection:
        assert isinstance(connection, Raced)
        connection.others = iter([file])
        assert mark_of(connection) in {NOTHING, MARK}
        assert not connection.in_transaction
        assert claim(connection, MARK, TABLE) == MARK
        assert mark_of(connection) == MARK


def test_the_file_of_something_else_is_left_as_it_is(file: Path) -> None:
    with closing(opened(file)) as connection:
        claim(connection, Mark(1, 1), TABLE)
        before = file.read_bytes()
        assert claim(connection, MARK, "CREATE TABLE more (name TEXT)") == Mark(1, 1)
    assert file.read_bytes() == before


def test_what_is_no_database_has_no_mark(file: Path) -> None:
    file.write_bytes(b"no database at all" * 100)
    with closing(opened(file)) as connection:
        assert (mark_of(connection), claim(connection, MARK, TABLE)) == (NOTHING, NOTHING)
