"""Counters that any number of threads share, and that can be copied, pickled and carried over a fork."""

from __future__ import annotations

import os
import threading
import weakref
from copy import deepcopy
from typing import Any


class Shared:
    """An object whose state is guarded by `_lock`."""

    def __init__(self) -> None:
        # Reentrant, for a signal handler that reads the figures runs in the middle of whatever is under way.
        self._lock = threading.RLock()
        _instances.add(self)

    # A lock can be neither copied nor pickled; without these two, nothing that holds counters could be either.
    def __getstate__(self) -> dict[str, Any]:
        """State without the lock, taken at one moment."""
        with self._lock:
            return {name: deepcopy(value) for name, value in self.__dict__.items() if name != "_lock"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the state with a lock of its own."""
        self.__dict__.update(state)
        Shared.__init__(self)


_instances: weakref.WeakSet[Shared] = weakref.WeakSet()


def _after_fork() -> None:
    """Renew the locks: one that another thread held at the fork would never be released in the child."""
    for one in _instances:
        one._lock = threading.RLock()  # noqa: SLF001 - same module


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
