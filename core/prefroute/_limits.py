"""Running a function under a time limit without ever waiting for it longer than that."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, TypeVar

from prefroute.errors import RouterTimeoutError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

MAX_OVERDUE = 32
"""Calls past their limit that may still be running, in the whole process, before new limited calls are refused."""

_lock = threading.Lock()
_overdue: set[_Call] = set()


class _Call(Future):  # type: ignore[type-arg]  # results differ from call to call; call_within restores the type
    """One function call in a thread of its own.

    A thread cannot be stopped from outside, so a call past its limit is left running and kept in
    `_overdue` until it ends. Daemon threads, rather than an executor's, because the interpreter joins
    an executor's threads when it exits: one hung router would hang the program.
    """

    def __init__(self, function: Callable[[], object]) -> None:
        super().__init__()
        # From here on a cancelled waiter cannot cancel this future, so setting its result always works.
        self.set_running_or_notify_cancel()
        context = contextvars.copy_context()
        threading.Thread(target=context.run, args=(self._run, function), name="prefroute-limited", daemon=True).start()

    def _run(self, function: Callable[[], object]) -> None:
        try:
            self.set_result(function())
        except BaseException as error:  # noqa: BLE001 - handed to whoever waits, not swallowed
            self.set_exception(error)
        with _lock:
            _overdue.discard(self)

    def abandon(self) -> None:
        """Stop waiting; the call counts as overdue until it ends."""
        with _lock:
            if not self.done():
                _overdue.add(self)


def _start(function: Callable[[], object]) -> _Call:
    with _lock:
        overdue = len(_overdue)
    if overdue >= MAX_OVERDUE:
        msg = f"{overdue} earlier calls are still running past their time limit; no further one is started"
        raise RouterTimeoutError(msg)
    return _Call(function)


def _expired(seconds: float) -> RouterTimeoutError:
    return RouterTimeoutError(f"the router did not answer within its time limit of {seconds:g} s")


def call_within(function: Callable[[], T], seconds: float) -> T:
    """Return `function()`, or raise RouterTimeoutError after `seconds`."""
    call = _start(function)
    try:
        result: T = call.result(timeout=seconds)
    except TimeoutError as error:
        if call.done() and call.exception() is error:  # The function's own TimeoutError, not ours.
            raise
        call.abandon()
        raise _expired(seconds) from error
    return result


async def acall_within(function: Callable[[], T], seconds: float) -> T:
    """Await `function()` run in a thread, or raise RouterTimeoutError after `seconds`."""
    call = _start(function)
    waiter: asyncio.Future[T] = asyncio.wrap_future(call)
    try:
        await asyncio.wait([waiter], timeout=seconds)
        if not waiter.done():
            raise _expired(seconds)
        return waiter.result()
    finally:
        if not waiter.done():  # Expired, or the awaiting task was cancelled.
            waiter.cancel()
            call.abandon()
