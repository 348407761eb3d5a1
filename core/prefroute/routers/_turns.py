"""A lock that survives a fork and may be pickled with what holds it."""

from __future__ import annotations

import os
import threading
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType


class Turn:
    """Lets one thread at a time in: `with turn: ...`.

    A pass over an index uses every core and all of the memory's bandwidth, so two at once take longer than one
    after the other; far longer where the BLAS's threads wait for each other in a busy loop (measured with 16
    threads on two busy cores: five times).
    """

    def __init__(self) -> None:
        """Start with nobody in."""
        self._lock = threading.Lock()
        _all.add(self)

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    def __reduce__(self) -> tuple[type[Turn], tuple[()]]:
        return (Turn, ())

    def renew(self) -> None:
        """Let go of a lock that another thread held at a fork."""
        self._lock = threading.Lock()


_all: weakref.WeakSet[Turn] = weakref.WeakSet()


def _after_fork() -> None:
    for turn in list(_all):
        turn.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
