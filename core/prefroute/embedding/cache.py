"""Rows of an embedder kept on disk, so that no text is paid for twice."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import sqlite3
import zlib
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from prefroute._sqlite import TURN, Mark, claim, is_busy, use
from prefroute.embedding._rows import as_size
from prefroute.errors import ConfigurationError, EmbeddingError
from prefroute.inputs import as_prompts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray

    from prefroute.embedding import Embedder

logger = logging.getLogger(__name__)

_MARK = Mark(0x70726566, 1)
"""Marks the file as ours in its header ("pref")."""

_TABLE = "CREATE TABLE rows (key BLOB PRIMARY KEY, vector BLOB NOT NULL)"

_PATIENCE = 10.0
"""Seconds to wait for another writer; its transactions take milliseconds."""

_LOOKED_UP = 500
"""Keys in one query; SQLite takes 999 variables at least."""

_LOOK_UP = "SELECT b.key, b.vector FROM rows AS a JOIN rows AS b ON b.rowid = a.rowid WHERE a.key IN ({})"
"""The key as it stands beside the vector: that in the index, if damaged, may lead to the row of another text."""

_DIGEST_BYTES = 20


class CacheSize(NamedTuple):
    """What a cache file holds.

    Attributes:
        rows: Rows of all models in it.
        bytes: Size of the file.
    """

    rows: int
    bytes: int


class CachedEmbedder:
    """An embedder that looks into a file first, and notes there what it had to compute.

    The file is an SQLite database in the standard library's hands: threads and processes of one machine may
    share it, and one that is killed loses at most the chunk it was at. It holds digests of the texts and the rows,
    no text and no key. Rows are found by `model_id` and text, so models may share a file.

    A cache that cannot be read or written (full disk, damaged pages, no permission) never fails the embedding, and
    one that another program keeps locked is waited for once a call, for 10 seconds:
    the first such failure is logged as a warning, and texts are embedded as if they were not there. Rows that were
    damaged are noticed by their checksum and computed anew. Only a file that is no embedding cache at all is
    refused, and left as it is.
    """

    def __init__(
        self,
        embedder: Embedder,
        path: str | Path,
        *,
        model_id: str | None = None,
        chunk_size: int = 1024,
        progress: bool = False,
    ) -> None:
        """Put a cache before an embedder; nothing is opened yet.

        Args:
            embedder: What computes the rows.
            path: The file; made at the first use, its folder too. It grows by 4 d + 70 bytes or so a text and
                nothing is ever removed; delete it when it is too large.
            model_id: Names the model and whatever changes its rows; None for the embedder's own `model_id`.
            chunk_size: Texts embedded, and then kept, at a time; what an interruption may lose.
            progress: Whether to show a bar on stderr while many texts are embedded.

        Raises:
            ConfigurationError: The model has no name, or the path is a folder.
        """
        name = getattr(embedder, "model_id", None) if model_id is None else model_id
        if not isinstance(name, str) or not name:
            msg = f"{type(embedder).__name__} has no model_id to keep its rows under; give model_id="
            raise ConfigurationError(msg)
        self.embedder = embedder
        self.path = Path(path)
        if self.path.is_dir():
            msg = f"the cache must be a file, and {self.path} is a folder; give {self.path / 'embeddings.sqlite'}, say"
            raise ConfigurationError(msg)
        self.model_id = name
        self.chunk_size = as_size("chunk_size", chunk_size)
        self.progress = progress
        self._has_warned = False

    def __repr__(self) -> str:
        """The embedder and the file."""
        return f"{type(self).__name__}({self.embedder!r}, {str(self.path)!r})"

    @property
    def dimensions(self) -> int | None:
        """Length of a row, where the embedder tells."""
        found: int | None = getattr(self.embedder, "dimensions", None)
        return found

    def size(self) -> CacheSize:
        """How much the file holds; nothing when there is none.

        Raises:
            ConfigurationError: The file is no embedding cache.
        """
        if not self.path.exists():
            return CacheSize(0, 0)
        counts: list[int] = []
        self._use("read", lambda connection: counts.extend(*connection.execute("SELECT count(*) FROM rows")))
        return CacheSize(sum(counts), self.path.stat().st_size)

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts; each distinct one that the file lacks is embedded once.

        Args:
            texts: n texts.

        Returns:
            Shape (n, d), as the embedder gives them.

        Raises:
            PromptTypeError: Something is not a str.
            ConfigurationError: The file is no embedding cache.
            EmbeddingError: The embedder gave another number of rows than it was given texts, or rows of another
                length than those in the file.
        """
        work = _Work(as_prompts(texts), self.model_id, self.dimensions)
        if not work.keys:
            return self.embedder.embed([])
        self._look_up(work)
        with self._shown(work) as advance:
            for chunk in work.missing(self.chunk_size):
                rows = self.embedder.embed([text for _, text in chunk])
                self._keep(work, work.add(chunk, rows))
                advance(len(chunk))
        return work.result()

    async def aembed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """`embed` without blocking the event loop, by the embedder's own `aembed` where it has one."""
        ask = getattr(self.embedder, "aembed", None)
        if ask is None:
            return await asyncio.to_thread(self.embed, texts)
        work = _Work(as_prompts(texts), self.model_id, self.dimensions)
        if not work.keys:
            empty: NDArray[np.float32] = await ask([])
            return empty
        await asyncio.to_thread(self._look_up, work)
        with self._shown(work) as advance:
            for chunk in work.missing(self.chunk_size):
                rows = await ask([text for _, text in chunk])
                await asyncio.to_thread(self._keep, work, work.add(chunk, rows))
                advance(len(chunk))
        return work.result()

    def save_pretrained(self, path: str | Path) -> None:
        """Save the embedder behind the cache; the file is this machine's and stays where it is.

        Args:
            path: Folder; made if missing. What is loaded from it has no cache.
        """
        from prefroute.embedding.registry import save_embedder

        save_embedder(self.embedder, path)

    def _connect(self) -> sqlite3.Connection:
        # A connection for each use: it takes a fraction of a millisecond, and none is ever shared between threads,
        # carried over a fork, or left on a file that was deleted meanwhile.
        self.path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self.path, timeout=min(TURN, _PATIENCE), isolation_level=None)
        try:
            _prepare(connection, self.path)
            # Not a write-ahead log: that leaves two more files, and is unsafe on a folder shared by machines.
            connection.execute("PRAGMA synchronous = NORMAL")
        except BaseException:
            connection.close()
            raise
        return connection

    def _use(self, doing: str, act: Callable[[sqlite3.Connection], None]) -> bool:
        """Do something with the file, one thread at a time; gives False where another program kept it locked.

        The first failure is logged, and none is raised.
        """
        try:
            use(self._connect, act, patience=_PATIENCE)
        except ConfigurationError:
            raise
        except Exception as error:  # noqa: BLE001 - of a damaged file sqlite3 raises more than its own errors
            self._warn(doing, error)
            return not is_busy(error)
        return True

    def _warn(self, doing: str, error: Exception) -> None:
        if not self._has_warned:
            self._has_warned = True
            logger.warning(
                "the embedding cache %s cannot be %s (%s: %s); texts are embedded without it. "
                "Free space, or delete the file if it is damaged; this is said once",
                self.path,
                doing,
                type(error).__name__,
                str(error),
            )

    def _look_up(self, work: _Work) -> None:
        keys = list(work.keys)

        def look_up(connection: sqlite3.Connection) -> None:
            for start in range(0, len(keys), _LOOKED_UP):
                part = keys[start : start + _LOOKED_UP]
                marks = ",".join("?" * len(part))
                # Closed whatever happens: one left half read, as in a traceback that a log keeps, is a lock.
                with closing(connection.execute(_LOOK_UP.format(marks), part)) as found:
                    for key, vector in found:
                        work.find(key, vector)

        work.has_file = self._use("read", look_up)

    def _keep(self, work: _Work, rows: list[tuple[bytes, bytes]]) -> None:
        def keep(connection: sqlite3.Connection) -> None:
            connection.execute("BEGIN IMMEDIATE")
            connection.executemany("INSERT OR REPLACE INTO rows (key, vector) VALUES (?, ?)", rows)
            connection.execute("COMMIT")

        if work.has_file:
            work.has_file = self._use("written", keep)

    def _shown(self, work: _Work) -> AbstractContextManager[Any]:
        if not self.progress:
            return nullcontext(_unseen)
        return _bar(len(work.keys), len(work.keys) - work.count_missing())


def _unseen(count: int) -> None:
    """Advance no bar."""


@contextmanager
def _bar(total: int, done: int) -> Iterator[Any]:
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("embedding", total=total, completed=done)
        yield lambda count: progress.advance(task, count)


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Make the table in a new file; refuse the file of something else."""
    if claim(connection, _MARK, _TABLE) != _MARK:
        msg = (
            f"{path} is not an embedding cache that this prefroute reads; give another path, "
            "or delete the file if it is a damaged cache"
        )
        raise ConfigurationError(msg)


class _Work:
    """One call: which texts are wanted, and the rows that are known so far."""

    def __init__(self, texts: list[str], model_id: str, dimensions: int | None) -> None:
        prefix = hashlib.blake2b(model_id.encode("utf-8", "surrogatepass") + b"\0", digest_size=_DIGEST_BYTES)
        self.has_file = True  # Until another program is found to keep it locked; waiting for each chunk takes long.
        self.keys: dict[bytes, int] = {}  # Each distinct text, with its number among them.
        self._distinct: list[str] = []
        self._numbers = np.empty(len(texts), dtype=np.intp)  # (n,) into the distinct texts
        for place, text in enumerate(texts):
            digest = prefix.copy()
            digest.update(text.encode())
            number = self.keys.setdefault(digest.digest(), len(self._distinct))
            if number == len(self._distinct):
                self._distinct.append(text)
            self._numbers[place] = number
        self._dimensions = dimensions
        self._rows: NDArray[np.float32] | None = None  # (distinct, d)
        self._is_known = np.zeros(len(self._distinct), dtype=np.bool_)

    def find(self, key: object, stored: object) -> None:
        """Take a row from the file; one that is damaged, of another length, or not asked for, stays missing."""
        row = _unpacked(stored)
        number = self.keys.get(key) if isinstance(key, bytes) else None
        if row is not None and number is not None and self._dimensions in {None, row.size}:
            self._dimensions = row.size
            self._put([number], row[None, :])

    def count_missing(self) -> int:
        """How many distinct texts have no row yet."""
        return int(self._is_known.size - np.count_nonzero(self._is_known))

    def missing(self, chunk_size: int) -> Iterator[list[tuple[bytes, str]]]:
        """Key and text of those without a row, in chunks."""
        wanted = [(key, self._distinct[number]) for key, number in self.keys.items() if not self._is_known[number]]
        for start in range(0, len(wanted), chunk_size):
            yield wanted[start : start + chunk_size]

    def add(self, chunk: list[tuple[bytes, str]], rows: NDArray[np.float32]) -> list[tuple[bytes, bytes]]:
        """Take rows from the embedder, shape (len(chunk), d), and give what is to be stored."""
        rows = np.asarray(rows, dtype=np.float32)
        if rows.ndim != 2 or len(rows) != len(chunk):  # noqa: PLR2004 - a matrix
            msg = f"the embedder gave an array of shape {rows.shape} for {len(chunk)} texts; wanted one row a text"
            raise EmbeddingError(msg)
        if not np.isfinite(rows).all():
            msg = "the embedder gave a row that is not finite; it was not kept"
            raise EmbeddingError(msg)
        if self._rows is not None and rows.shape[1] != self._rows.shape[1]:
            msg = (
                f"the embedder gave rows of length {rows.shape[1]}, and those before, in this call or in the cache, "
                f"have {self._rows.shape[1]}; if the model was changed, give it another model_id"
            )
            raise EmbeddingError(msg)
        self._put([self.keys[key] for key, _ in chunk], rows)
        return [(key, _packed(row)) for (key, _), row in zip(chunk, rows, strict=True)]

    def result(self) -> NDArray[np.float32]:
        """The row of each text, shape (n, d)."""
        if self._rows is None:
            msg = "the embedder gave no rows"
            raise EmbeddingError(msg)
        return self._rows if len(self._rows) == len(self._numbers) else self._rows[self._numbers]

    def _put(self, numbers: list[int], rows: NDArray[np.float32]) -> None:
        if self._rows is None:
            self._rows = np.empty((len(self._distinct), rows.shape[1]), dtype=np.float32)
        self._rows[numbers] = rows
        self._is_known[numbers] = True


def _packed(row: NDArray[np.float32]) -> bytes:
    data = row.astype("<f4").tobytes()
    return data + zlib.crc32(data).to_bytes(4, "little")


def _unpacked(stored: object) -> NDArray[np.float32] | None:
    if not isinstance(stored, bytes) or len(stored) < 8 or len(stored) % 4:  # noqa: PLR2004 - one number and a checksum
        return None
    data, checksum = stored[:-4], stored[-4:]
    if zlib.crc32(data).to_bytes(4, "little") != checksum:
        return None
    return np.frombuffer(data, dtype="<f4").astype(np.float32)
