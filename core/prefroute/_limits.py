"""Running what a router does so that nothing it does can harm the caller: exceptions become values, waiting ends."""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
from concurrent.futures import Future
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from prefroute.errors import RouterTimeoutError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

MAX_OVERDUE = 32
"""Calls of one owner that may still be running past their limit before new limited calls of it are refused."""


@dataclass(frozen=True, slots=True)
class Failure:
    """An exception as a value.

    Some exceptions do not survive the way out of a thread or a task: a future refuses StopIteration, and
    takes any CancelledError for its own cancellation.

    Attributes:
        error: The exception.
    """

    error: BaseException


Outcome: TypeAlias = T | Failure


def attempt(function: Callable[[], T]) -> Outcome[T]:
    """Return what a function returns, or how it failed.

    Exceptions that are no `Exception` pass, for they ask the thread to stop (KeyboardInterrupt, the time limits
    of task queues), except two that say nothing but that the function failed.
    """
    try:
        return function()
    except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - handed on as a value
        return Failure(error)
    except BaseException as error:
        if _is_panic(error):
            return Failure(error)
        raise


def _is_panic(error: BaseException) -> bool:
    """Whether an extension written in Rust, a tokenizer say, broke an invariant of its own."""
    return type(error).__module__ == "pyo3_runtime"


class _Call(Future):  # type: ignore[type-arg]  # results differ from call to call
    """One function call in a thread of its own.

    A thread cannot be stopped from outside, so a call past its limit is left running. Daemon threads,
    rather than an executor's, because the interpreter joins an executor's threads when it exits: one
    hung router would hang the program.
    """

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.deadline = monotonic() + seconds
        # From here on a cancelled waiter cannot cancel this future, so setting its result always works.
        self.set_running_or_notify_cancel()

    def start(self, owner: int, function: Callable[[], object]) -> None:
        """Start the thread.

        Raises:
            RuntimeError: The system starts no further thread.
        """
        context = contextvars.copy_context()
        work = (self._run, owner, function)
        thread = threading.Thread(target=context.run, args=work, name="prefroute-limited", daemon=True)
        with _lock:
            _running.setdefault(owner, set()).add(self)
        try:
            thread.start()
        except BaseException:
            self._forget(owner)
            raise

    def _run(self, owner: int, function: Callable[[], object]) -> None:
        try:
            outcome = attempt(function)
        except BaseException as error:  # noqa: BLE001 - SystemExit and the like, handed to whoever waits
            self.set_exception(error)
        else:
            self.set_result(outcome)
        self._forget(owner)

    def _forget(self, owner: int) -> None:
        with _lock:
            calls = _running.get(owner, set())
            calls.discard(self)
            if not calls:  # An id can be another owner's by and by.
                _running.pop(owner, None)


_lock = threading.Lock()
_running: dict[int, set[_Call]] = {}
"""Limited calls in progress by the id of their owner, which they keep alive."""


def _after_fork() -> None:
    """Forget the parent's calls, whose threads and loops do not run here, and a lock that one of them may have held."""
    global _lock  # noqa: PLW0603 - a lock held at the fork can only be replaced
    _lock = threading.Lock()
    _running.clear()
    _ending.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _refusal(overdue: int) -> Failure | None:
    if overdue < MAX_OVERDUE:
        return None
    msg = f"{overdue} earlier calls are still running past their time limit; no further one is started"
    return Failure(RouterTimeoutError(msg))


def _started(owner: object, function: Callable[[], object], seconds: float) -> _Call | Failure:
    """A call that is under way, or why there is none."""
    now = monotonic()
    with _lock:
        overdue = sum(call.deadline < now for call in _running.get(id(owner), ()))
    if (refused := _refusal(overdue)) is not None:
        return refused
    call = _Call(seconds)
    failed = attempt(lambda: call.start(id(owner), function))
    return failed if isinstance(failed, Failure) else call


def _expired(seconds: float) -> Failure:
    return Failure(RouterTimeoutError(f"the router did not answer within its time limit of {seconds:g} s"))


def attempt_within(owner: object, function: Callable[[], T], seconds: float) -> Outcome[T]:
    """`attempt` in a thread of its own, waited for no longer than `seconds`.

    Args:
        owner: Whose overdue calls count; the function must keep it alive.
        function: What to do.
        seconds: How long to wait.

    Returns:
        What it returned or how it failed; a RouterTimeoutError when it took too long.
    """
    call = _started(owner, function, seconds)
    if isinstance(call, Failure):
        return call
    try:
        outcome: Outcome[T] = call.result(timeout=min(seconds, threading.TIMEOUT_MAX))
    except TimeoutError:  # Ours: the function's own would have come as a Failure.
        return _expired(seconds)
    return outcome


async def aattempt_within(owner: object, function: Callable[[], T], seconds: float) -> Outcome[T]:
    """`attempt_within` without blocking the event loop."""
    call = _started(owner, function, seconds)
    if isinstance(call, Failure):
        return call
    waiter: asyncio.Future[Outcome[T]] = asyncio.wrap_future(call)
    try:
        await asyncio.wait([waiter], timeout=seconds)
        return waiter.result() if waiter.done() else _expired(seconds)
    finally:
        waiter.cancel()


_ending: dict[asyncio.Task[Any], int] = {}
"""Cancelled tasks that have not ended yet, with the id of their owner; event loops keep only weak references."""


async def aattempt(owner: object, function: Callable[[], Awaitable[T]], seconds: float | None) -> Outcome[T]:
    """Await what an asynchronous function gives, no longer than `seconds`.

    Args:
        owner: As for `attempt_within`.
        function: What to call and await.
        seconds: How long to wait; None for as long as it takes. With a limit it runs in a task of its own,
            so that one which ignores being cancelled at the limit is not waited for.

    Returns:
        What it returned or how it failed; a RouterTimeoutError when it took too long.
    """
    if seconds is None:
        return await _caught(function)
    for task in [task for task in list(_ending) if task.get_loop().is_closed()]:
        _ending.pop(task, None)
    if (refused := _refusal(sum(of == id(owner) for of in list(_ending.values())))) is not None:
        return refused
    task = asyncio.ensure_future(_caught(function))
    try:
        await asyncio.wait([task], timeout=seconds)
        return task.result() if task.done() else _expired(seconds)
    finally:
        if not task.done():
            task.cancel()
            _ending[task] = id(owner)
            task.add_done_callback(_ended)
            await asyncio.sleep(0)  # One turn of the loop is all that a well-behaved task needs to end.


def _ended(task: asyncio.Task[Any]) -> None:
    _ending.pop(task, None)


async def _caught(function: Callable[[], Awaitable[T]]) -> Outcome[T]:
    """`attempt` for an asynchronous function."""
    try:
        return await function()
    except asyncio.CancelledError as error:
        # Ours to pass on if somebody cancelled this task; otherwise something that the router awaited was cancelled.
        # A caller that swallowed an earlier cancellation counts as cancelled: better that than to swallow one.
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        return Failure(error)
    except Exception as error:  # noqa: BLE001 - handed on as a value
        return Failure(error)
    except BaseException as error:
        if _is_panic(error):
            return Failure(error)
        raise
