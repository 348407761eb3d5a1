"""Holding back calls: a server that refuses one for load is left alone by all for a while."""

from __future__ import annotations

import asyncio
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

LONGEST_HOLD = 300.0
"""Seconds; a server that asks for more is not waited for."""

FIRST_HOLD = 1.0
"""Seconds that a server is left alone for which does not say how long; twice as many at each further time."""

LONGEST_OWN_HOLD = 60.0
"""Seconds at which that ends."""

_REFUSED = {429, 503}


def seconds_asked(headers: Mapping[str, str], now: float) -> float | None:
    """How long a server asks to be left alone.

    Args:
        headers: Of its answer, by lower-case name.
        now: Seconds since the epoch, for answers that name a time.

    Returns:
        Seconds, at least 0; None where it does not say.
    """
    asked = _number(headers.get("retry-after-ms"))
    seconds = None if asked is None else asked / 1000.0
    after = headers.get("retry-after")
    if seconds is None and after is not None:
        seconds = _number(after)
        if seconds is None:
            try:
                seconds = parsedate_to_datetime(after).timestamp() - now
            except (ValueError, OverflowError):
                seconds = None
    return None if seconds is None else max(seconds, 0.0)


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if number == number else None  # noqa: PLR0124 - NaN


class Gate:
    """What every request to one server with one key passes, the repeated ones too.

    Args:
        too_long: Called with the seconds where a server asks for more than `LONGEST_HOLD`.

    Attributes:
        refusals: How often the server refused one for load.
        is_told: Whether it said for how long the last time.
    """

    def __init__(self, too_long: Callable[[float], None] | None = None) -> None:
        self.refusals = 0
        self.is_told = False
        self._too_long = too_long
        self._opens_at = 0.0
        self._next_hold = FIRST_HOLD
        self._held: set[asyncio.Future[None]] = set()
        self._refused: set[asyncio.Task[Any]] = set()
        self._is_shut = False

    @property
    def is_holding(self) -> bool:
        """Whether requests are held back now."""
        return time.monotonic() < self._opens_at

    async def on_request(self) -> None:
        """Wait until requests may go out.

        Raises:
            asyncio.CancelledError: The gate is shut, or the task is cancelled.
        """
        while not self._is_shut and (left := self._opens_at - time.monotonic()) > 0:
            loop = asyncio.get_running_loop()
            opening = loop.create_future()
            timer = loop.call_later(left, _open, opening)
            self._held.add(opening)
            try:
                await opening
            finally:
                self._held.discard(opening)
                timer.cancel()
        if self._is_shut:
            raise asyncio.CancelledError
        self._refused.discard(_task())

    async def on_response(self, response: Any) -> None:
        """Look whether the server asks to be left alone.

        Raises:
            asyncio.CancelledError: The gate is shut, and this call would have to be repeated.
        """
        if response.status_code in _REFUSED:
            self.refusals += 1
            self._hold(seconds_asked(response.headers, time.time()))
        elif not response.is_error:
            self._next_hold = FIRST_HOLD
        if response.is_error and self._is_shut:
            raise asyncio.CancelledError
        if response.is_error:
            self._refused.add(_task())

    def _hold(self, asked: float | None) -> None:
        self.is_told = asked is not None
        if asked is None:
            # Calls that were on their way together are refused together, which is one time.
            if self.is_holding:
                return
            asked = self._next_hold
            self._next_hold = min(2.0 * asked, LONGEST_OWN_HOLD)
        self._opens_at = max(self._opens_at, time.monotonic() + min(asked, LONGEST_HOLD))
        if asked > LONGEST_HOLD and self._too_long is not None and not self._is_shut:
            self._too_long(asked)

    def forget(self) -> None:
        """Note that the call of this task is over."""
        self._refused.discard(_task())

    def shut(self) -> None:
        """Let nothing out any more; what is held back, or waits to be repeated, ends as cancelled."""
        self._is_shut = True
        for opening in tuple(self._held):
            opening.cancel()
        for task in tuple(self._refused):
            task.cancel()


def _task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    assert task is not None  # noqa: S101 - hooks run in the task of their call
    return task


def _open(opening: asyncio.Future[None]) -> None:
    if not opening.done():
        opening.set_result(None)
