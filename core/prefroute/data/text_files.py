"""Text files as tables: CSV, JSON lines and JSON arrays, packed by gzip or not, with the line of each row."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import re
import threading
import zlib
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar, cast

from prefroute.data.report import RowError, shown
from prefroute.data.tables import BATCH, peeked, values_of
from prefroute.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from prefroute.data.tables import Batch, Row, Table

T = TypeVar("T")

_BOM = "\ufeff".encode()
_DAMAGE = (EOFError, OSError, zlib.error)
"""What a file that ends too early, or a broken disk, raises while it is read."""

_START = 4096
"""Bytes that tell what kind of file it is."""

_SWALLOWED = 5
"""So many lines of one cell that would each be a row are taken for rows, not for text."""
_LEAST_WIDTH = 3
_REPACK = ". Fetch or pack the file again, or cut it off there"
_CORRECT = ". Correct it there, fetch the file again, or cut it off there"

_SPACE = re.compile(r"[ \t\r\n]*")
_SEPARATOR = re.compile(rb'"?sep=([,;\t|])"?\r?\n?', re.IGNORECASE)
"""The line with which Excel says what separates the cells of a CSV file."""

_limit_lock = threading.Lock()


def _after_fork() -> None:
    """Renew the lock, which another thread may have held at the fork."""
    global _limit_lock  # noqa: PLW0603 - a lock held at the fork can only be replaced
    _limit_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def start_of(path: Path) -> tuple[bytes, bool]:
    """The first bytes of a file, unpacked, and whether it is packed by gzip (by its content, not its name)."""
    start = b""
    with _opened(path) as (raw, stream):
        try:
            while len(start) < _START and (part := stream.read1(_START)):
                start += part
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            if not start:
                msg = f"{path} is damaged: {error}; fetch or pack it again"
                raise DataError(msg) from error
        return start, raw is not stream


def text_table(path: Path, start: bytes) -> Table:
    """Tell by its content, and where that can be both by its name, what kind of text a file is."""
    if start.startswith((b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff")):
        is_wide = start.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff"))
        msg = f"{path} is UTF-{32 if is_wide else 16}; save it as UTF-8"
        raise DataError(msg)
    suffixes = [suffix.lower() for suffix in path.suffixes]
    text = start.removeprefix(_BOM).lstrip()
    if not {".csv", ".tsv"} & set(suffixes) and text[:1] in {b"{", b"["}:
        return JsonArray(path) if text.startswith(b"[") else JsonLines(path)
    if {".json", ".jsonl", ".ndjson"} & set(suffixes):
        return JsonLines(path)
    return Csv(path)


class _TextFile:
    """What the kinds of text files share."""

    unit = "line"
    is_open = True

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self.label = re.sub(r"\.(csv|tsv|jsonl?|ndjson|txt)$", "", path.name.removesuffix(".gz"), flags=re.IGNORECASE)
        self.size: int | None = path.stat().st_size
        self._path = path


class JsonLines(_TextFile):
    """One JSON object a line; blank lines are passed over."""

    def columns(self) -> list[str]:
        """Keys of the first rows that can be read."""
        with _opened(self._path) as (_, stream):
            return peeked(row for _, row in _json_lines(stream))[0]

    def read(self, wanted: Sequence[str]) -> Iterator[Batch]:
        """The rows."""
        with _opened(self._path) as (raw, stream):
            lines = _json_lines(stream)
            while rows := [_selected(line, row, wanted) for line, row in islice(lines, BATCH)]:
                yield raw.tell(), rows


class JsonArray(_TextFile):
    """One JSON array of objects; read as a whole."""

    def columns(self) -> list[str]:
        """Keys of the first rows that can be read."""
        with _opened(self._path) as (_, stream):
            return peeked(row for _, row in _json_array(stream))[0]

    def read(self, wanted: Sequence[str]) -> Iterator[Batch]:
        """The rows."""
        with _opened(self._path) as (raw, stream):
            items = _json_array(stream)
            while rows := [_selected(line, row, wanted) for line, row in islice(items, BATCH)]:
                yield raw.tell(), rows


class Csv(_TextFile):
    """Comma-separated values with a header; semicolons and tabs are recognised, empty cells are None."""

    is_open = False

    def columns(self) -> list[str]:
        """The header.

        Raises:
            DataError: The header cannot be read.
        """
        with self._reader() as (_, reader):
            return self._header(reader)

    def read(self, wanted: Sequence[str]) -> Iterator[Batch]:
        """The rows."""
        with self._reader() as (raw, reader):
            names = self._header(reader)
            places = [names.index(name) if name in names else -1 for name in wanted]
            for rows in _csv_batches(reader, len(names), places):
                yield raw.tell(), rows

    @contextmanager
    def _reader(self) -> Iterator[tuple[io.BufferedReader, Any]]:
        delimiter, is_told = self._delimiter()
        # Bytes that are no UTF-8 become lone surrogates, so that only their own row is bad.
        with (
            _opened(self._path) as (raw, stream),
            io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="") as text,
        ):
            # Without `strict` a quote that is never closed swallows the rest of the file without a word.
            reader = csv.reader(text, delimiter=delimiter, strict=True)
            if is_told:
                next(reader)
            yield raw, reader

    def _delimiter(self) -> tuple[str, bool]:
        """What separates the cells, and whether a line of its own says so."""
        with _opened(self._path) as (_, stream):
            header = self._within(lambda: stream.readline(1 << 16), "its first line")
        if told := _SEPARATOR.fullmatch(header.removeprefix(_BOM)):
            return told[1].decode(), True
        counts = {mark: header.count(mark.encode()) for mark in ",\t;"}
        return max(counts, key=lambda mark: counts[mark]), False

    def _header(self, reader: Any) -> list[str]:
        with _no_field_limit():
            header: list[str] = self._within(lambda: next((row for row in reader if row), []), "the header")
        return [name.strip() for name in header]

    def _within(self, step: Callable[[], T], part: str) -> T:
        try:
            return step()
        except (csv.Error, *_DAMAGE) as error:
            msg = f"{self.name}: {part} cannot be read: {error}; is it a CSV file?"
            raise DataError(msg) from error


def _selected(line: int, row: Any, wanted: Sequence[str]) -> Row:
    return line, row if isinstance(row, RowError) else values_of(row, wanted)


def _csv_batches(reader: Any, width: int, places: list[int]) -> Iterator[list[Row]]:
    rows: list[Row] = []
    ended = False
    while not ended:
        rows = []
        with _no_field_limit():
            for _ in range(BATCH):
                start = reader.line_num + 1
                try:
                    row = next(reader)
                except StopIteration:
                    ended = True
                    break
                except csv.Error as error:
                    rows.append((start, _csv_error(error, start, reader.line_num)))
                except _DAMAGE as error:
                    rows.append((start, _damage(error)))
                    ended = True
                    break
                else:
                    if row:
                        lines = reader.line_num - start + 1
                        swallowed = lines > _SWALLOWED and _swallowed(
                            row, width, reader.dialect.delimiter, start, lines
                        )
                        rows.append((start, swallowed or _csv_values(row, width, places)))
        if rows:
            yield rows


def _csv_values(row: list[str], width: int, places: list[int]) -> tuple[str | None, ...] | RowError:
    if len(row) != width:
        reason = f"{len(row)} fields where the header has {width}; a quote or a separator is missing or too many"
        return RowError("wrong number of fields", reason)
    values = tuple([(row[place] or None) if place >= 0 else None for place in places])
    for value in values:
        if value is not None and not value.isascii() and not _is_encodable(value):
            return RowError("not UTF-8", f"not UTF-8: {shown(value)}; save the file as UTF-8")
    return values


def _swallowed(row: list[str], width: int, delimiter: str, start: int, lines: int) -> RowError | None:
    """Why a row is none, if a stray quote has made one cell of the rows up to the next quote."""
    for cell in row:
        # The first and the last line are parts of rows.
        inner = [line for line in cell.splitlines()[1:-1] if line]
        like_rows = sum(line.count(delimiter) == width - 1 for line in inner)
        if width >= _LEAST_WIDTH and like_rows >= _SWALLOWED and 2 * like_rows > len(inner):
            reason = (
                f"{_range(start, lines)} lost: one cell holds {like_rows} lines that would each be a row of "
                f"{width} fields; a quote is missing or too many"
            )
            return RowError("rows within one quoted cell", reason, rows=lines)
    return None


def _csv_error(error: csv.Error, start: int, line: int) -> RowError:
    lines = line - start + 1
    if "unexpected end of data" in str(error):
        reason = f"{_range(start, lines)} lost, up to the end: a quote is opened and never closed"
        return RowError("quote never closed", reason, rows=lines, remedy=_CORRECT)
    if lines > 1:
        reason = f"{_range(start, lines)} lost: a quote is opened in line {start} and not closed before line {line}"
        return RowError("lines lost within quotes", f"{reason} ({error})", rows=lines, remedy=_CORRECT)
    return RowError("not CSV", f"not CSV: {error}")


def _range(start: int, lines: int) -> str:
    return f"line {start} is" if lines == 1 else f"lines {start} to {start + lines - 1} are"


def _json_lines(stream: io.BufferedReader) -> Iterator[tuple[int, Any]]:
    """Line number and what each line that is not blank holds, or a `RowError`."""
    line = 0
    try:
        for line, data in enumerate(stream, 1):
            if data.isspace():
                continue
            try:
                yield line, json.loads((data.removeprefix(_BOM) if line == 1 else data).decode())
            except UnicodeDecodeError as error:
                yield (
                    line,
                    RowError("not UTF-8", f"not UTF-8 at byte {error.start + 1} of the line; save the file as UTF-8"),
                )
            except (ValueError, RecursionError) as error:
                yield line, RowError("not JSON", f"not JSON: {error}; {shown(data)}")
    except _DAMAGE as error:
        yield line + 1, _damage(error)


def _json_array(stream: io.BufferedReader) -> Iterator[tuple[int, Any]]:
    """First line of each item of an array, and the item, or a `RowError`."""
    data = bytearray()
    damage = None
    try:
        while part := stream.read1(1 << 20):
            data += part
    except _DAMAGE as error:
        damage = _damage(error)
    text = data.decode("utf-8-sig", errors="surrogateescape")
    line = 1
    decoder = json.JSONDecoder()
    is_utf8 = _is_encodable(text)
    # The items are decoded one by one, to know where each begins and to keep those before a fault.
    position = _after_space(text, 0) + 1
    done = 0
    while (position := _after_space(text, position)) < len(text) and text[position] != "]":
        line += text.count("\n", done, position)
        done = position
        try:
            item, end = decoder.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            yield line, damage or _broken(f"not JSON, and nothing after it was read: {error}")
            return
        bad = not is_utf8 and not _is_encodable(text[position:end])
        yield line, RowError("not UTF-8", "not UTF-8; save the file as UTF-8") if bad else item
        position = _after_space(text, end)
        if text[position : position + 1] == ",":
            position += 1
        elif text[position : position + 1] not in {"", "]"}:
            yield line, _broken("no comma after this item, and nothing after it was read")
            return
    line += text.count("\n", done, position)
    if position >= len(text):
        yield line, damage or _broken("the file ends before the array does")
    elif text[position + 1 :].strip():
        yield line, _broken("there is text after the end of the array, which was not read")


def _after_space(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return position if match is None else match.end()


def _damage(error: BaseException) -> RowError:
    return RowError("damaged file", f"nothing from here on can be read: {error}", remedy=_REPACK)


def _broken(reason: str) -> RowError:
    return RowError("broken JSON array", reason, remedy=_CORRECT)


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


class _Unpacked(io.RawIOBase):
    """Content of a gzip file in the pieces that it unpacks in, so that those before a fault are not lost."""

    def __init__(self, packed: gzip.GzipFile) -> None:
        self._packed = packed

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._packed.read1(len(buffer))
        buffer[: len(data)] = data
        return len(data)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[io.BufferedReader, io.BufferedReader]]:
    """The file as it lies, for its position, and its content unpacked."""
    with path.open("rb") as raw:
        if raw.peek(2)[:2] != b"\x1f\x8b":
            yield raw, raw
            return
        with gzip.GzipFile(fileobj=raw) as packed, io.BufferedReader(cast("Any", _Unpacked(packed))) as stream:
            yield raw, stream


@contextmanager
def _no_field_limit() -> Iterator[None]:
    """Let the csv module read cells of any length.

    Its limit is one number for the whole process, so it is lifted only for a batch of rows at a time, never
    while a reader is left waiting, and put back as it was.
    """
    with _limit_lock:
        before = csv.field_size_limit(2**31 - 1)  # the largest that every platform takes
        try:
            yield
        finally:
            csv.field_size_limit(before)


def json_list(text: str) -> list[Any] | None:
    """A JSON list, or None if the text is none."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, list) else None
