"""Files of JSON lines that only grow, a line on disk before anything else happens."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from typing import TYPE_CHECKING, Any

from prefroute.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

logger = logging.getLogger(__name__)


class LineFile:
    """One file. Not to be used by two threads at once: whoever owns it has one writer.

    Args:
        path: The file; made at the first line, for its owner alone: it holds prompts and answers.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._size = 0
        self._lacks_end = False
        self._descriptor: int | None = None

    def read(self, *, strict: bool = False) -> list[dict[str, Any]]:
        """Every object in it; what a kill left of a last line is dropped with a warning, and cut off later.

        A last line that lacks nothing but its end is kept, and ended later.

        Args:
            strict: Refuse a file with other lines that are no objects, instead of leaving these out.

        Raises:
            DataError: The file cannot be read, or is refused.
        """
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return []
        except OSError as error:
            msg = f"{self.path} cannot be read: {error.strerror or error}; make it readable, or choose another output"
            raise DataError(msg) from error
        end = content.rfind(b"\n") + 1
        found = list(map(_object, content[:end].split(b"\n")[:-1]))
        last = _object(content[end:])
        self._lacks_end = last is not None
        if last is not None:
            found.append(last)
            end = len(content)
        damaged = found.count(None)
        if strict and damaged:
            msg = f"{self.path}, line {found.index(None) + 1}, is no JSON object; mend it, or choose another output"
            raise DataError(msg)
        self._size = end
        if end < len(content):
            logger.warning("%s: its last line was cut short as it was written, and is left out", self.path)
        if damaged:
            logger.warning("%s: %d damaged lines are left out", self.path, damaged)
        return [item for item in found if item is not None]

    def append(self, item: dict[str, Any]) -> None:
        """Write a line, and return when it is on disk.

        Raises:
            OSError: It could not be written; the file is as before.
        """
        # In one go with the end that the line before may lack: on a full disk there is both or neither.
        line = b"\n" * self._lacks_end + _line(item)
        descriptor = self._opened()
        try:
            _write(descriptor, line)
            os.fsync(descriptor)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, self._size)
            raise
        self._size += len(line)
        self._lacks_end = False

    def rewrite(self, items: Iterable[dict[str, Any]]) -> None:
        """Put other lines in the place of all, at one stroke.

        Raises:
            OSError: They could not be written; the file is as before.
        """
        self.close()
        content = b"".join(map(_line, items))
        beside = self.path.with_name(f"{self.path.name}.new")
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _BINARY, _PRIVATE)
        try:
            _write(descriptor, content)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        beside.replace(self.path)
        _sync_folder(self.path.parent)
        self._size, self._lacks_end = len(content), False

    def close(self) -> None:
        """Close the file; a further line opens it again."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _opened(self) -> int:
        if self._descriptor is None:
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | _BINARY, _PRIVATE)
            os.ftruncate(self._descriptor, self._size)
            _sync_folder(self.path.parent)
        return self._descriptor


_PRIVATE = 0o600
_BINARY = getattr(os, "O_BINARY", 0)  # Windows alone has it, and would else write \r\n.


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _line(item: dict[str, Any]) -> bytes:
    # In ASCII, for a lone surrogate has no other form.
    return json.dumps(item, allow_nan=False).encode() + b"\n"


def _write(descriptor: int, content: bytes) -> None:
    left = memoryview(content)
    while left:
        left = left[os.write(descriptor, left) :]


def _sync_folder(folder: Path) -> None:
    """Put the name of a new file on disk too, where the system lets a folder be opened for that."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
