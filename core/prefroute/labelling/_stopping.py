"""How a run ends early, and what a call that got no reply says."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")

StopReason: TypeAlias = Literal["max_cost", "interrupted", "failed"]
"""Why a run ended before its last row."""


class CallFailedError(Exception):
    """A call got no reply; never leaves this package.

    Args:
        kind: Short, to count it under.
        message: Without secrets.
        is_final: Whether the same request would be refused again.
        may_be_paid: Whether the server may have answered all the same.
    """

    def __init__(self, kind: str, message: str, *, is_final: bool = False, may_be_paid: bool = False) -> None:
        self.kind = kind
        self.is_final = is_final
        self.may_be_paid = may_be_paid
        super().__init__(message)


class StoppedError(Exception):
    """The run stops, and this call was not made; never leaves this package."""


class Stop:
    """Whether the run is to end, and why; the first reason counts.

    Attributes:
        reason: None while it goes on.
        detail: For people.
    """

    def __init__(self) -> None:
        self.reason: StopReason | None = None
        self.detail = ""
        self._waiting: list[Callable[[], None]] = []

    def set(self, reason: StopReason, detail: str) -> None:
        """End the run."""
        if self.reason is None:
            self.reason, self.detail = reason, detail
            for call in self._waiting:
                call()

    def then(self, call: Callable[[], None]) -> None:
        """Have a function called when the run is to end."""
        self._waiting.append(call)


async def together(*calls: Coroutine[Any, Any, T]) -> list[T]:
    """The results of all; the first exception only when all have ended, since those that go on are paid for."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [result for result in results if not isinstance(result, BaseException)]
