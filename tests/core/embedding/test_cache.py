"""The cache on disk: found again, shared, interrupted, damaged."""

from __future__ import annotations

import logging
import os
import signal
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefroute import _sqlite
from prefroute.embedding import cache, load_embedder, save_embedder
from prefroute.embedding.cache import CachedEmbedder, CacheSize
from prefroute.embedding.combined import LengthEmbedder
from prefroute.errors import ConfigurationError, EmbeddingError, PersistenceError, PromptTypeError
from prefroute.testing import FakeEmbedder

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

TEXTS = ["", "a", "b", "\ud800", "\ufffd", "\0", "\U0001f600", "a" * 100_000]


class Counting(FakeEmbedder):
    """Notes what it was asked."""

    model_id = "counting"

    def __init__(self, dimension: int = 8) -> None:
        super().__init__(dimension)
        self.asked: list[list[str]] = []
        self.fails_at: int | None = None

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        if self.fails_at is not None and len(self.asked) >= self.fails_at:
            raise KeyboardInterrupt
        self.asked.append(list(texts))
        return super().embed(texts)


class Asynchronous(Counting):
    async def aembed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return super().embed(texts)

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        raise NotImplementedError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "below" / "cache.sqlite"


def test_each_distinct_text_is_embedded_once_and_then_found(file: Path) -> None:
    embedder = Counting()
    cached = CachedEmbedder(embedder, file, chunk_size=3)
    assert cached.size() == CacheSize(0, 0)
    rows = cached.embed(["b", "a", "b", "c", "a", "d"])
    assert embedder.asked == [["b", "a", "c"], ["d"]]
    np.testing.assert_array_equal(rows, FakeEmbedder().embed(["b", "a", "b", "c", "a", "d"]))
    again = Counting()
    np.testing.assert_array_equal(CachedEmbedder(again, file).embed(["d", "e", "a"]), again_rows(["d", "e", "a"]))
    assert again.asked == [["e"]]
    assert cached.size().rows == 5
    assert cached.size().bytes == file.stat().st_size > 0
    assert [entry.name for entry in file.parent.iterdir()] == [file.name]


def again_rows(texts: list[str]) -> NDArray[np.float32]:
    return FakeEmbedder().embed(texts)


@settings(max_examples=25, deadline=None)
@given(calls=st.lists(st.lists(st.sampled_from(TEXTS), max_size=6), max_size=4), chunk_size=st.integers(1, 4))
def test_it_gives_what_the_embedder_gives(
    calls: list[list[str]], chunk_size: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    embedder = Counting()
    cached = CachedEmbedder(embedder, tmp_path_factory.mktemp("cache") / "c", chunk_size=chunk_size)
    for texts in calls:
        readable = [text.replace("\ud800", "\ufffd") for text in texts]
        rows = cached.embed(texts)
        assert rows.shape == (len(texts), 8)
        np.testing.assert_array_equal(rows, again_rows(readable))
    asked = [text for chunk in embedder.asked for text in chunk]
    assert len(asked) == len(set(asked))


def test_models_share_a_file_and_keep_apart(file: Path) -> None:
    first = CachedEmbedder(FakeEmbedder(4), file, model_id="m:4")
    second = CachedEmbedder(FakeEmbedder(8), file, model_id="m:8")
    assert first.embed(["a"]).shape == (1, 4)
    assert second.embed(["a"]).shape == (1, 8)
    assert second.size().rows == 2


def test_an_embedder_without_a_name_must_be_given_one(file: Path) -> None:
    with pytest.raises(ConfigurationError, match="FakeEmbedder has no model_id"):
        CachedEmbedder(FakeEmbedder(), file)


@pytest.mark.parametrize("bad", [0, -1, 2.0, True])
def test_a_chunk_has_at_least_one_text(bad: Any, file: Path) -> None:
    with pytest.raises(ConfigurationError, match="chunk_size"):
        CachedEmbedder(Counting(), file, chunk_size=bad)


@pytest.mark.parametrize("bad", ["one text", [None], [b"x"], 3])
def test_what_is_not_text_is_refused(bad: Any, file: Path) -> None:
    with pytest.raises(PromptTypeError):
        CachedEmbedder(Counting(), file).embed(bad)


def test_an_interrupted_run_resumes_where_it_was(file: Path) -> None:
    texts = [str(number) for number in range(10)]
    embedder = Counting()
    embedder.fails_at = 3
    with pytest.raises(KeyboardInterrupt):
        CachedEmbedder(embedder, file, chunk_size=2).embed(texts)
    again = Counting()
    CachedEmbedder(again, file).embed(texts)
    assert again.asked == [["6", "7", "8", "9"]]


def test_the_bar_is_on_stderr(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    CachedEmbedder(Counting(), file, progress=True).embed(["a", "b"])
    out, err = capsys.readouterr()
    assert out == ""
    assert "embedding" in err
    CachedEmbedder(Counting(), file).embed(["a", "b", "c"])
    assert capsys.readouterr() == ("", "")


async def test_async_asks_the_embedders_own_async_method(file: Path) -> None:
    embedder = Asynchronous()
    rows = await CachedEmbedder(embedder, file, chunk_size=2).aembed(["a", "b", "a", "c"])
    np.testing.assert_array_equal(rows, again_rows(["a", "b", "a", "c"]))
    assert embedder.asked == [["a", "b"], ["c"]]
    other = Counting()  # Has none, and is asked in a thread.
    np.testing.assert_array_equal(await CachedEmbedder(other, file).aembed(["c", "d"]), again_rows(["c", "d"]))
    assert other.asked == [["d"]]
    assert (await CachedEmbedder(embedder, file).aembed([])).shape == (0, 8)


def test_sixteen_threads_share_it(file: Path) -> None:
    cached = CachedEmbedder(Counting(), file, chunk_size=2)
    calls = [[str(number % 20), str((number * 7) % 20), str((number * 3) % 20)] for number in range(64)]
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(cached.embed, calls))
    for texts, rows in zip(calls, found, strict=True):
        np.testing.assert_array_equal(rows, again_rows(texts))
    assert cached.size().rows == 20


WRITER = """
import sys
from prefroute.embedding.cache import CachedEmbedder
from prefroute.testing import FakeEmbedder
path, start, stop = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
cached = CachedEmbedder(FakeEmbedder(64), path, model_id="fake", chunk_size=5)
print("ready", flush=True)
sys.stdin.readline()
for first in range(start, stop, 20):
    cached.embed([str(number) for number in range(first, min(first + 20, stop))])
    print(first, flush=True)
"""


def writer(file: Path, start: int, stop: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(file), str(start), str(stop)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_four_processes_write_at_once(file: Path) -> None:
    # Neighbours overlap by half, so that the same rows are written by two.
    processes = [writer(file, first, first + 400) for first in (0, 200, 400, 600)]
    for process in processes:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
    errors = []
    with ThreadPoolExecutor(4) as pool:
        for process, (_, err) in zip(processes, pool.map(lambda one: one.communicate("go\n"), processes), strict=True):
            errors.append((process.returncode, err))
    assert errors == [(0, "")] * 4
    texts = [str(number) for number in range(1000)]
    embedder = Counting(64)
    rows = CachedEmbedder(embedder, file, model_id="fake").embed(texts)
    assert embedder.asked == []
    np.testing.assert_array_equal(rows, FakeEmbedder(64).embed(texts))


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL here")
def test_a_writer_that_is_killed_leaves_what_it_had_written(file: Path) -> None:
    process = writer(file, 0, 1_000_000)
    assert process.stdin
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    process.stdin.write("go\n")
    process.stdin.flush()
    for _ in range(10):
        done = int(process.stdout.readline()) + 20
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    texts = [str(number) for number in range(done + 100)]
    embedder = Counting(64)
    rows = CachedEmbedder(embedder, file, model_id="fake").embed(texts)
    np.testing.assert_array_equal(rows, FakeEmbedder(64).embed(texts))
    asked = [text for chunk in embedder.asked for text in chunk]
    assert not set(asked) & {str(number) for number in range(done)}


def test_a_transaction_cut_short_by_a_kill_is_undone(file: Path) -> None:
    cached = CachedEmbedder(Counting(), file)
    cached.embed(["a", "b"])
    # What a killed writer leaves at the worst moment: pages half written, and the journal that undoes them.
    code = f"""
import os, signal, sqlite3
connection = sqlite3.connect({str(file)!r}, isolation_level=None)
connection.execute("PRAGMA cache_size = 1")
connection.execute("BEGIN IMMEDIATE")
connection.execute("DELETE FROM rows")
for number in range(300):
    connection.execute("INSERT INTO rows VALUES (?, ?)", (str(number).encode(), bytes(4000)))
assert os.path.getsize({str(file) + "-journal"!r}) > 0
os._exit(9)
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 9, done.stderr
    assert file.with_name(file.name + "-journal").exists()
    again = Counting()
    np.testing.assert_array_equal(CachedEmbedder(again, file).embed(["a", "b"]), again_rows(["a", "b"]))
    assert again.asked == []
    assert cached.size().rows == 2


def test_a_full_disk_is_logged_once_and_fails_nothing(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource", reason="file sizes cannot be limited here")
    assert resource
    code = f"""
import resource, logging
import numpy as np
from prefroute.embedding.cache import CachedEmbedder
from prefroute.testing import FakeEmbedder
logging.basicConfig(format="%(name)s %(message)s")
cached = CachedEmbedder(FakeEmbedder(256), {str(tmp_path / "cache")!r}, model_id="fake", chunk_size=20)
cached.embed(["kept"])
resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))
texts = [str(number) for number in range(200)]
for _ in range(2):
    assert np.array_equal(cached.embed(texts), FakeEmbedder(256).embed(texts))
assert np.array_equal(cached.embed(["kept"]), FakeEmbedder(256).embed(["kept"]))
assert cached.size().rows >= 1
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("texts are embedded without it") == 1
    assert done.stderr.startswith("prefroute.embedding.cache the embedding cache")


def test_a_folder_that_cannot_be_made_is_logged_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("in the way")
    cached = CachedEmbedder(Counting(), tmp_path / "file" / "cache")
    for _ in range(2):
        np.testing.assert_array_equal(cached.embed(["a"]), again_rows(["a"]))
    assert len(caplog.records) == 1
    assert caplog.records[0].levelno == logging.WARNING


def test_a_lock_that_is_not_let_go_fails_nothing(
    file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("prefroute.embedding.cache._PATIENCE", 0.01)
    cached = CachedEmbedder(Counting(), file)
    cached.embed(["a"])
    holder = sqlite3.connect(file, isolation_level=None)
    try:
        holder.execute("BEGIN EXCLUSIVE")
        np.testing.assert_array_equal(cached.embed(["a", "b"]), again_rows(["a", "b"]))
    finally:
        holder.close()
    assert "locked" in caplog.text
    cached.embed(["c"])
    assert cached.size().rows == 2


def test_a_lock_is_waited_for_once_a_call_and_keeps_no_other_file_waiting(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    CachedEmbedder(Counting(), file).embed(["a"])
    other, tries = CachedEmbedder(Counting(), tmp_path / "other.sqlite"), []
    connect, sleep = CachedEmbedder._connect, time.sleep

    def counted(self: CachedEmbedder) -> sqlite3.Connection:
        tries.append(self.path)
        return connect(self)

    def slept(seconds: float) -> None:
        assert not _sqlite._using.locked()
        other.embed([f"{len(tries)}"])
        sleep(seconds)

    monkeypatch.setattr(CachedEmbedder, "_connect", counted)
    monkeypatch.setattr("prefroute.embedding.cache._PATIENCE", 0.1)
    monkeypatch.setattr("prefroute._sqlite.TURN", 0.01)
    monkeypatch.setattr(time, "sleep", slept)
    holder = sqlite3.connect(file, isolation_level=None)
    try:
        holder.execute("BEGIN EXCLUSIVE")
        embedder = Counting()
        CachedEmbedder(embedder, file, chunk_size=1).embed(["a", "b", "c"])
        assert other.size().rows > 0
        assert embedder.asked == [["a"], ["b"], ["c"]]
        during = [path for path in tries if path == file]
        monkeypatch.setattr("prefroute.embedding.cache._PATIENCE", 0.0)
        tries.clear()
        CachedEmbedder(Counting(), file, chunk_size=1).embed(["a", "b", "c"])
        assert tries == [file]
        assert len(during) > 1  # While there was patience, it was tried again.
    finally:
        holder.close()


def test_a_lock_that_is_let_go_is_waited_for(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    CachedEmbedder(Counting(), file).embed(["a"])
    holder = sqlite3.connect(file, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    monkeypatch.setattr(time, "sleep", lambda seconds: holder.close())
    embedder = Counting()
    CachedEmbedder(embedder, file).embed(["a", "b"])
    assert embedder.asked == [["b"]]
    assert CachedEmbedder(embedder, file).size().rows == 2


@pytest.mark.parametrize("key", [b"another", "text", 3, None])
def test_a_row_that_was_not_asked_for_is_passed_over(key: Any) -> None:
    work = cache._Work(["a"], "m", None)
    work.find(key, cache._packed(np.ones(3, dtype=np.float32)))
    assert work.count_missing() == 1


@pytest.mark.parametrize("error", [UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid"), OverflowError("large")])
def test_whatever_a_damaged_file_raises_fails_nothing(
    error: Exception, file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> None:
        raise error

    monkeypatch.setattr("prefroute.embedding.cache._prepare", fail)
    cached = CachedEmbedder(Counting(), file)
    np.testing.assert_array_equal(cached.embed(["a"]), again_rows(["a"]))
    assert cached.size().rows == 0
    assert len(caplog.records) == 1


def test_a_row_that_cannot_be_read_leaves_no_lock_behind(
    file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    CachedEmbedder(Counting(), file).embed(["a", "b"])
    with closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute("UPDATE rows SET vector = CAST(x'ff' AS TEXT)")
    kept: list[BaseException] = []  # As a log that keeps what it is given would, with all that hangs on it.
    warn = CachedEmbedder._warn
    monkeypatch.setattr(
        CachedEmbedder, "_warn", lambda self, doing, error: (kept.append(error), warn(self, doing, error))
    )
    monkeypatch.setattr("prefroute.embedding.cache._PATIENCE", 0.0)
    CachedEmbedder(Counting(), file).embed(["a", "b"])
    assert len(kept) == 1
    assert "UTF-8" in caplog.text
    embedder = Counting()
    CachedEmbedder(embedder, file).embed(["a", "b"])
    assert not embedder.asked


def test_damage_never_gives_one_text_the_row_of_another(file: Path) -> None:
    texts = ["a", "b", "c"]
    CachedEmbedder(Counting(), file).embed(texts)
    content = file.read_bytes()
    index = 2 * 4096  # The third page: which key stands in which row.
    for place in (place for place in range(index, len(content)) if content[place]):
        for change in (1, 2, 3):
            damaged = bytearray(content)
            damaged[place] ^= change
            file.write_bytes(damaged)
            np.testing.assert_array_equal(CachedEmbedder(Counting(), file).embed(texts), again_rows(texts))


@settings(max_examples=60, deadline=None)
@given(damage=st.lists(st.tuples(st.integers(100, 2**20), st.integers(1, 255)), min_size=1, max_size=200))
def test_any_damage_fails_nothing(damage: list[tuple[int, int]], tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("damaged") / "cache.sqlite"
    texts = [str(number) for number in range(200)]
    CachedEmbedder(Counting(), file).embed(texts)
    content = bytearray(file.read_bytes())
    for place, change in damage:  # Beyond the header, which says what the file is.
        content[100 + place % (len(content) - 100)] ^= change
    file.write_bytes(content)
    np.testing.assert_array_equal(CachedEmbedder(Counting(), file).embed(texts), again_rows(texts))


def test_damaged_pages_are_logged_and_fail_nothing(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    texts = [str(number) for number in range(400)]
    CachedEmbedder(FakeEmbedder(64), file, model_id="fake").embed(texts)
    content = bytearray(file.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)  # All but the first page, which says what the file is.
    file.write_bytes(content)
    rows = CachedEmbedder(FakeEmbedder(64), file, model_id="fake").embed(texts)
    np.testing.assert_array_equal(rows, FakeEmbedder(64).embed(texts))
    assert len(caplog.records) == 1
    assert "delete the file" in caplog.text


@pytest.mark.parametrize("damaged", [b"", b"\0" * 36, b"\0" * 35, None, "text", b"\0\0\x80\x7f" * 9])
def test_a_damaged_row_is_embedded_anew(damaged: Any, file: Path) -> None:
    CachedEmbedder(Counting(), file).embed(["a", "b"])
    connection = sqlite3.connect(file)
    with connection:
        stored = connection.execute("SELECT vector FROM rows").fetchone()[0]
        value = bytes([stored[0] ^ 1]) + stored[1:] if damaged is None else damaged
        connection.execute("UPDATE rows SET vector = ?", (value,))
    connection.close()
    for asked in ([["a", "b"]], []):
        embedder = Counting()
        np.testing.assert_array_equal(CachedEmbedder(embedder, file).embed(["a", "b"]), again_rows(["a", "b"]))
        assert embedder.asked == asked


def other_database(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE mine (x)")
    connection.close()


def later_format(path: Path) -> None:
    CachedEmbedder(Counting(), path).embed(["a"])
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 2")
    connection.close()


@pytest.mark.parametrize("write", [lambda path: path.write_text("notes " * 1000), other_database, later_format])
def test_a_file_that_is_no_cache_is_refused_and_left_alone(write: Any, tmp_path: Path) -> None:
    path = tmp_path / "file"
    write(path)
    before = path.read_bytes()
    cached = CachedEmbedder(Counting(), path)
    for use in (lambda: cached.embed(["a"]), cached.size):
        with pytest.raises(ConfigurationError, match="is not an embedding cache"):
            use()
    assert path.read_bytes() == before


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is a folder"):
        CachedEmbedder(Counting(), tmp_path)


def test_an_empty_file_becomes_a_cache(tmp_path: Path) -> None:
    (tmp_path / "cache").touch()
    cached = CachedEmbedder(Counting(), tmp_path / "cache")
    cached.embed(["a"])
    assert cached.size().rows == 1


def test_a_file_deleted_meanwhile_is_made_anew(file: Path) -> None:
    cached = CachedEmbedder(Counting(), file)
    cached.embed(["a"])
    file.unlink()
    cached.embed(["b"])
    assert cached.size().rows == 1


def test_a_model_that_changed_under_its_name_is_noticed(file: Path) -> None:
    CachedEmbedder(FakeEmbedder(4), file, model_id="m").embed(["a"])
    with pytest.raises(EmbeddingError, match=r"rows of length 8.*another model_id"):
        CachedEmbedder(FakeEmbedder(8), file, model_id="m").embed(["a", "b"])
    told = FakeEmbedder(8)
    told.dimensions = 8  # type: ignore[attr-defined]
    assert CachedEmbedder(told, file, model_id="m").embed(["a", "b"]).shape == (2, 8)


@pytest.mark.parametrize("rows", [np.zeros((1, 4)), np.zeros(2), np.full((2, 4), np.nan)])
def test_odd_rows_are_errors_and_not_kept(rows: Any, file: Path) -> None:
    embedder = FakeEmbedder()
    embedder.embed = lambda texts: rows  # type: ignore[method-assign]
    cached = CachedEmbedder(embedder, file, model_id="odd")
    with pytest.raises(EmbeddingError):
        cached.embed(["a", "b"])
    assert cached.size().rows == 0


def test_no_text_stands_in_the_file(file: Path) -> None:
    CachedEmbedder(Counting(), file, model_id="a-model-name").embed(["a confidential prompt"])
    content = file.read_bytes()
    assert b"confidential" not in content
    assert b"a-model-name" not in content


def test_what_is_saved_is_the_embedder_behind_it(file: Path, tmp_path: Path) -> None:
    behind = LengthEmbedder(scale=0.5)
    save_embedder(CachedEmbedder(behind, file), tmp_path / "saved")
    assert load_embedder(tmp_path / "saved") == behind
    save_embedder(CachedEmbedder(Counting(), file), tmp_path / "external")
    with pytest.raises(PersistenceError, match="Counting"):
        load_embedder(tmp_path / "external")


def test_it_survives_a_fork_while_in_use(file: Path) -> None:
    if not hasattr(os, "fork"):
        pytest.skip("there is no fork here")
    code = f"""
import os, threading, warnings
from prefroute.embedding.cache import CachedEmbedder
from prefroute.testing import FakeEmbedder
warnings.simplefilter("ignore")
cached = CachedEmbedder(FakeEmbedder(), {str(file)!r}, model_id="fake", chunk_size=1)
cached.embed(["first"])  # A module that is being imported by a thread cannot be imported in a fork.
ended = threading.Event()
def use():
    number = 0
    while not ended.is_set():
        cached.embed([str(number)])
        number += 1
thread = threading.Thread(target=use)
thread.start()
for number in range(5):
    child = os.fork()
    if not child:
        cached.embed([f"child {{number}}"])
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
ended.set()
thread.join()
asked = []
fake = FakeEmbedder()
fake.embed = lambda texts: asked.extend(texts) or FakeEmbedder().embed(texts)
CachedEmbedder(fake, {str(file)!r}, model_id="fake").embed([f"child {{number}}" for number in range(5)])
assert not asked
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
