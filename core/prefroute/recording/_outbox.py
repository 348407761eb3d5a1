"""A bounded queue to a thread of its own, which is there only while there is something to do."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

T = TypeVar("T")

MOST_ITEMS = 10_000
MOST_CHARACTERS = 50_000_000
"""How much waits at most: a disk that hangs must not fill the memory."""

BATCH = 500
"""Items that are handled at once."""

GATHER = 0.2
"""Seconds that the first item waits for others; what a killed process loses, beside what is being handled."""

IDLE = 2.0
"""Seconds without anything to do after which the thread ends."""

EXIT_PATIENCE = 20.0
"""Seconds that the end of the process waits for what is left."""

logger = logging.getLogger(__name__)


class _Waiting(NamedTuple, Generic[T]):
    item: T
    size: int


class Outbox(Generic[T]):
    """Takes items from any thread or task without ever waiting, and handles them in order in a thread of its own.

    In a forked child it begins empty: what waits in the parent is the parent's.

    Args:
        handle: Is given items; what it raises loses these and no others.

    Attributes:
        lost: Items that there was no room for, or that could not be handled.
    """

    def __init__(self, handle: Callable[[Sequence[T]], object]) -> None:
        self._handle = handle
        self.lost = 0
        self._begin()
        _outboxes.add(self)

    def _begin(self) -> None:
        # Reentrant, for a signal handler may put something in the middle of whatever is under way.
        self._ready = threading.Condition(threading.RLock())
        self._waiting: deque[_Waiting[T]] = deque()
        self._size = 0
        self._taken_in = self._handled = 0
        self._in_hurry = self._is_ending = False
        self._thread: threading.Thread | None = None

    def put(self, item: T, size: int) -> bool:
        """Leave an item; gives False, and counts it as lost, where there is no room or no thread to be had.

        Args:
            item: The item.
            size: Its characters, or what else makes it large.
        """
        with self._ready:
            if len(self._waiting) >= MOST_ITEMS or self._size + size > MOST_CHARACTERS or not self._has_thread():
                self.lost += 1
                return False
            self._waiting.append(_Waiting(item, size))
            self._size += size
            self._taken_in += 1
            if len(self._waiting) in {1, BATCH}:
                self._ready.notify_all()
            return True

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all that was put so far is handled.

        Args:
            timeout: Seconds to wait at most.

        Returns:
            Whether it is; False too for the thread that handles, which cannot wait for itself.
        """
        with self._ready:
            if self._thread is threading.current_thread():
                return False
            wanted = self._taken_in
            self._in_hurry = True
            self._ready.notify_all()
            return self._ready.wait_for(lambda: self._handled >= wanted, timeout)

    def end(self, timeout: float | None = None) -> bool:
        """`flush`, and let the thread end now; something that is put later begins another."""
        is_done = self.flush(timeout)
        with self._ready:
            thread, self._is_ending = self._thread, self._thread is not None
            self._ready.notify_all()
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)
        return is_done

    @property
    def waiting(self) -> int:
        """Items that are not handled yet."""
        with self._ready:
            return self._taken_in - self._handled

    def _has_thread(self) -> bool:
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="prefroute-recorder", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # There are too many, or the interpreter is about to end.
                logger.debug("no thread to record in", exc_info=True)
                return False
            self._thread = thread
            _see_to_the_end()
        return True

    def _run(self) -> None:
        while items := self._take():
            try:
                self._handle(items)
            except BaseException:  # whatever it is, the thread goes on with the next ones
                # Without what was raised: it may quote a prompt.
                logger.warning("%d records are lost: they could not be handled", len(items))
                logger.debug("what was raised", exc_info=True)
                self.lost += len(items)
            finally:
                with self._ready:
                    self._handled += len(items)
                    self._ready.notify_all()

    def _take(self) -> list[T]:
        """The next items; none where the thread shall end."""
        with self._ready:
            self._ready.wait_for(lambda: self._waiting or self._is_ending, IDLE)
            if not self._waiting:
                self._thread, self._is_ending = None, False
                return []
            self._ready.wait_for(lambda: self._in_hurry or self._is_ending or len(self._waiting) >= BATCH, GATHER)
            found = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
            self._size -= sum(one.size for one in found)
            self._in_hurry = self._in_hurry and bool(self._waiting)
            return [one.item for one in found]


_outboxes: weakref.WeakSet[Outbox[Any]] = weakref.WeakSet()
_seen_to_by: set[int] = set()
"""The process whose end is seen to: a child that `multiprocessing` forks ends in a way of its own."""


def _see_to_the_end() -> None:
    if os.getpid() in _seen_to_by:
        return
    is_first = not _seen_to_by
    _seen_to_by.add(os.getpid())
    if is_first:
        atexit.register(_flush_all)
    # By what is loaded: whoever does not use it need not load it, and another thread may be loading it just now.
    if (finalize := getattr(sys.modules.get("multiprocessing.util"), "Finalize", None)) is not None:
        finalize(None, _flush_all, exitpriority=0)


def _flush_all() -> None:
    for outbox in list(_outboxes):
        if outbox.waiting and not outbox.flush(EXIT_PATIENCE):
            logger.warning("the process ends before %d records are written; they are lost", outbox.waiting)


def _after_fork() -> None:
    for outbox in _outboxes:
        outbox._begin()  # noqa: SLF001 - same module


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
