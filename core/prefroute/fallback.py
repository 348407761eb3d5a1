"""The other side's chance where the chosen one failed: once, and only while nobody has seen a part of the answer."""

from __future__ import annotations

import reprlib
from typing import TYPE_CHECKING, Any, TypeVar

from prefroute.conversation import FALLBACK, recorded
from prefroute.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from prefroute.types import Route, RoutingDecision

C = TypeVar("C")
R = TypeVar("R")


def _never(error: Exception) -> bool:  # noqa: ARG001 - the signature of those that look at it
    return False


def as_fallback(value: object, shadow: object) -> bool:
    """Check whether the other side may answer for one that fails.

    Raises:
        ConfigurationError: It is neither True nor False, or it is True where one side answers everything.
    """
    if not isinstance(value, bool):
        msg = f"fallback_to_other must be True or False, got {reprlib.repr(value)}"
        raise ConfigurationError(msg)
    if value and shadow is not None:
        msg = f"fallback_to_other and shadow={reprlib.repr(shadow)} contradict each other: a shadow answers every call"
        raise ConfigurationError(msg)
    return value


def other_side(decision: RoutingDecision, failed: Route, error: Exception) -> tuple[Route, dict[str, Any]]:
    """The side that answers after one failed, and how that is recorded."""
    side: Route = "weak" if failed == "strong" else "strong"
    # The name alone: what a provider's error says may quote the prompt, or a key.
    return side, recorded(decision, side) | {FALLBACK: {"from": failed, "error": type(error).__name__}}


def run(
    call: C,
    function: Callable[[C], R],
    second: Callable[[C, Exception], C | None],
    *,
    is_signal: Callable[[Exception], bool] = _never,
) -> R:
    """Carry a call out; where that fails and may be mended, the second one.

    Args:
        call: The call.
        function: Carries out what it is given.
        second: The call to make after an error, None where there is none.
        is_signal: Whether an exception is no failure but how the framework says something.

    Returns:
        What the function returns.

    Raises:
        Exception: The error of the first call: the side that was chosen is the one to tell of.
    """
    try:
        return function(call)
    except Exception as error:
        other = None if is_signal(error) else second(call, error)
        if other is None:
            raise
        try:
            return function(other)
        except Exception as again:
            if is_signal(again):
                raise
            raise error  # noqa: B904 - the second is shown as its context


async def arun(
    call: C,
    function: Callable[[C], Awaitable[R]],
    second: Callable[[C, Exception], C | None],
    *,
    is_signal: Callable[[Exception], bool] = _never,
) -> R:
    """`run` without blocking the event loop."""
    try:
        return await function(call)
    except Exception as error:
        other = None if is_signal(error) else second(call, error)
        if other is None:
            raise
        try:
            return await function(other)
        except Exception as again:
            if is_signal(again):
                raise
            raise error  # noqa: B904 - as in `run`
