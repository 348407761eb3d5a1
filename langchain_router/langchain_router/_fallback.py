"""The other side's chance where the chosen one failed: once, and only while nobody has seen a part of the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from langchain_core.callbacks import BaseCallbackHandler

from langchain_router._messages import recorded
from prefroute.conversation import FALLBACK

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from prefroute.types import Route, RoutingDecision

C = TypeVar("C")
R = TypeVar("R")


class TokenWatch(BaseCallbackHandler):
    """Notices the first token of a run: someone may have shown it, so nothing else may follow it."""

    run_inline = True

    def __init__(self) -> None:
        self.seen = False

    def on_llm_new_token(self, *_: Any, **__: Any) -> None:
        """A token of a stream."""
        self.seen = True

    def on_stream_event(self, *_: Any, **__: Any) -> None:
        """An event of a typed stream."""
        self.seen = True


def other_side(decision: RoutingDecision, failed: Route, error: Exception) -> tuple[Route, dict[str, Any]]:
    """The side that answers after one failed, and how that is recorded."""
    side: Route = "weak" if failed == "strong" else "strong"
    # The name alone: what a provider's error says may quote the prompt, or a key.
    return side, recorded(decision, side) | {FALLBACK: {"from": failed, "error": type(error).__name__}}


def run(call: C, function: Callable[[C], R], second: Callable[[C, Exception], C | None]) -> R:
    """Carry a call out; where that fails and may be mended, the second one.

    Args:
        call: The call.
        function: Carries out what it is given.
        second: The call to make after an error, None where there is none.

    Returns:
        What the function returns.

    Raises:
        Exception: The error of the first call: the side that was chosen is the one to tell of.
    """
    try:
        return function(call)
    except Exception as error:
        other = second(call, error)
        if other is None:
            raise
        try:
            return function(other)
        except Exception:  # noqa: BLE001 - it is shown as the context of the first
            raise error  # noqa: B904 - as above


async def arun(call: C, function: Callable[[C], Awaitable[R]], second: Callable[[C, Exception], C | None]) -> R:
    """`run` without blocking the event loop."""
    try:
        return await function(call)
    except Exception as error:
        other = second(call, error)
        if other is None:
            raise
        try:
            return await function(other)
        except Exception:  # noqa: BLE001 - as in `run`
            raise error  # noqa: B904 - as in `run`
