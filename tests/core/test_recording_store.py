"""The file of the records and the queue before it: what holds when others read, write or look into the file."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

import pytest

from prefroute import RoutingDecision
from prefroute.recording import Recorder, _outbox, _reading, read_recorded
from prefroute.recording._outbox import Outbox
from prefroute.recording._rows import DecisionRow
from prefroute.recording._store import Store

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

LIMIT = 1_000_000

LOCK = """
import sqlite3, sys
try:
    sqlite3.connect(sys.argv[1], timeout=0, isolation_level=None).execute("BEGIN IMMEDIATE")
except sqlite3.OperationalError as error:
    print(error)
else:
    print("free")
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "traffic.sqlite"


def decision() -> RoutingDecision:
    return RoutingDecision(route="strong", score=0.6, threshold=0.5, reason="score")


def row(prompt: str) -> DecisionRow:
    fields: dict[str, Any] = {**decision().as_dict(), "detail": None}
    return DecisionRow(**fields, time="2026-01-01T00:00:00+00:00", prompt=prompt, answered_by="strong")


def test_of_what_made_room_no_word_is_left_in_the_file(file: Path) -> None:
    words = [f"secret-{number:03}-" for number in range(300)]
    store = Store(file, LIMIT)
    for part in store.parts([row(word * 400) for word in words]):
        store.add(part, patience=10.0)
    there = {item.prompt[: len(words[0])] for item in read_recorded(file)}
    removed = [word for word in words if word not in there]
    assert len(removed) > 100
    content = file.read_bytes()
    # Pages that became free and that nothing else was written to since are in it too.
    with closing(sqlite3.connect(file)) as connection:
        assert connection.execute("PRAGMA freelist_count").fetchone() > (0,)
    assert [word for word in removed if word.encode() in content] == []


def test_a_lock_that_the_application_holds_on_the_file_outlasts_a_try_to_write(file: Path) -> None:
    store = Store(file, LIMIT)
    store.add([row("before")], patience=0.0)
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            store.add([row("meanwhile")], patience=0.0)
        # POSIX takes a program's locks on a file when it closes the file, whichever part of it had opened it.
        command = [sys.executable, "-c", LOCK, str(file)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "database is locked"


def test_a_transaction_waits_until_the_disk_has_it(file: Path) -> None:
    with closing(Store(file, LIMIT)._connect()) as connection:
        # NORMAL: without it a power failure may leave a damaged file; no test can cut the power.
        assert connection.execute("PRAGMA synchronous").fetchone() == (1,)


def test_what_no_room_can_be_made_for_is_refused_before_the_limit(file: Path) -> None:
    with Recorder(file, max_bytes=LIMIT) as store:
        store.decided("before", decision(), "strong")
        store.flush()
        with closing(sqlite3.connect(file, isolation_level=None)) as connection:
            # Of somebody else, so that it is not ours to remove.
            connection.execute("CREATE TABLE letters (text)")
            connection.execute("INSERT INTO letters VALUES (zeroblob(?))", (LIMIT - 20_000 - file.stat().st_size,))
        store.decided("x" * 40_000, decision(), "strong")
        store.flush()
        assert store.dropped == 1
    assert file.stat().st_size <= LIMIT


def test_answers_count_for_what_may_wait(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_outbox, "MOST_CHARACTERS", 10)
    in_redact, go_on = threading.Event(), threading.Event()

    def redact(text: str) -> str:
        in_redact.set()
        go_on.wait(30)
        return text

    with Recorder(file, redact=redact, answers=True) as store:
        made = decision()
        store.decided("hello", made, "strong")
        assert in_redact.wait(30)
        for answer in ("123456", "78901", "7890", "!"):
            store.calling(made.as_dict()).answered(answer=answer)  # type: ignore[union-attr] # all are of the sample
        dropped = store.dropped
        go_on.set()
    assert dropped == 2
    (item,) = read_recorded(file)
    assert [call.answer for call in item.calls] == ["123456", "7890"]


def test_a_decision_is_read_with_its_calls_whoever_removes_it_meanwhile(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Recorder(file) as store:
        made = decision()
        store.decided("hello", made, "strong")
        store.calling(made.as_dict(), "model").answered()  # type: ignore[union-attr] # all are of the sample
    connect, seen = _reading.StoredRecords._connect, []

    def remove(statement: str) -> None:
        if "FROM calls" in statement:
            seen.append(statement)
            with (
                closing(sqlite3.connect(file, timeout=0, isolation_level=None)) as other,
                suppress(sqlite3.OperationalError),
            ):
                other.execute("DELETE FROM calls")

    def connected(self: Any) -> sqlite3.Connection:
        connection = connect(self)
        connection.set_trace_callback(remove)
        return connection

    monkeypatch.setattr(_reading.StoredRecords, "_connect", connected)
    (item,) = read_recorded(file)
    assert len(seen) == 1
    assert [call.model for call in item.calls] == ["model"]


def test_a_flush_hurries_what_was_put_before_it_and_nothing_after(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_outbox, "GATHER", 30.0)
    monkeypatch.setattr(_outbox, "BATCH", 3)
    batches: list[list[str]] = []
    is_handled = threading.Event()

    def handle(items: Sequence[str]) -> None:
        batches.append(list(items))
        is_handled.set()

    outbox = Outbox(handle)
    outbox.put("a", 1)
    assert outbox.flush(20)
    is_handled.clear()
    outbox.put("b", 1)
    # The next ones are gathered again, for a transaction each would take the disk's time.
    assert not is_handled.wait(0.2)
    outbox.put("c", 1)
    outbox.put("d", 1)
    assert is_handled.wait(20)
    assert outbox.end(20)
    assert batches == [["a"], ["b", "c", "d"]]


def test_a_flush_hurries_all_that_waits_in_however_many_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_outbox, "GATHER", 30.0)
    monkeypatch.setattr(_outbox, "BATCH", 2)
    batches: list[list[str]] = []
    is_taken, go_on = threading.Event(), threading.Event()

    def handle(items: Sequence[str]) -> None:
        is_taken.set()
        go_on.wait(20)
        batches.append(list(items))

    outbox = Outbox(handle)
    for item in "ab":
        outbox.put(item, 1)
    assert is_taken.wait(20)
    for item in "cde":
        outbox.put(item, 1)
    assert not outbox.flush(0.0)
    go_on.set()
    assert outbox.flush(10)
    assert outbox.end(10)
    assert batches == [["a", "b"], ["c", "d"], ["e"]]
