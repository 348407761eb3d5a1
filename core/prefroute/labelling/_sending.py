"""Sending a request: past the gate, within its time, and never again by itself where it may have been paid for."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from prefroute.labelling._gate import Gate

_GAVE_UP = {408, 504, 524}
"""What is said by whoever gave up waiting for an answer that may be made all the same."""

_DROPPED = {"ReadError", "RemoteProtocolError"}


class MayBePaidError(BaseException):
    """A request went out and nothing that can be read came back, though the server may have answered it.

    No `Exception`, since the openai package repeats a request after any of those, and each would be paid for.

    Args:
        kind: Short, to count it under.
        message: What happened.
        may_repeat: Whether one more try may help: the server had not begun to answer.
    """

    may_be_paid = True

    def __init__(self, kind: str, message: str, *, may_repeat: bool = False) -> None:
        self.kind = kind
        self.may_repeat = may_repeat
        super().__init__(message)


def guarded(send: Any, gate: Gate, seconds: float) -> Callable[..., Any]:
    """An HTTP client's `send` for requests that are paid for.

    Args:
        send: The client's own.
        gate: What each request passes first.
        seconds: For the whole answer, counted from when the request goes out.

    Returns:
        Likewise; it raises MayBePaidError where that is so.
    """

    async def sent(request: Any, **settings: Any) -> Any:
        await gate.on_request()
        response = None
        try:
            async with asyncio.timeout(None) as limit:
                request.extensions["trace"] = _starting(limit, seconds)
                response = await send(request, **{**settings, "stream": True})
                await _read(response, gate)
        except TimeoutError as error:
            raise _too_late(seconds) from error
        except asyncio.CancelledError as error:
            is_out = limit.when() is not None
            if is_out and (response is None or response.is_success):
                raise _given_up() from error
            raise
        except Exception as error:
            # By name: the openai package takes two packages for HTTP, each with its own.
            name = type(error).__name__
            if name == "ReadTimeout":
                raise _too_late(seconds) from error
            if response is not None and response.is_success:
                raise _broken(error) from error
            if response is None and name in _DROPPED:
                raise _dropped(error) from error
            raise
        if response.status_code in _GAVE_UP:
            raise _expired(response.status_code)
        return response

    return sent


def _starting(limit: asyncio.Timeout, seconds: float) -> Callable[..., Any]:
    """What HTTP clients tell their steps to; it starts the time when a connection is there and the request goes out."""

    async def trace(event: str, _: object) -> None:
        if event.endswith(".send_request_headers.started"):
            limit.reschedule(asyncio.get_running_loop().time() + seconds)

    return trace


async def _read(response: Any, gate: Gate) -> None:
    try:
        await gate.on_response(response)
        if response.status_code not in _GAVE_UP:
            await response.aread()
    finally:
        await response.aclose()


def _too_late(seconds: float) -> MayBePaidError:
    # Counted under the name that the openai package has for it.
    return MayBePaidError("APITimeoutError", f"no answer within {seconds:g} seconds; a longer timeout may help")


def _broken(error: Exception) -> MayBePaidError:
    return MayBePaidError("broken answer", f"the answer broke off ({_named(error)})")


def _dropped(error: Exception) -> MayBePaidError:
    message = f"the connection was dropped before an answer came ({_named(error)})"
    return MayBePaidError("APIConnectionError", message, may_repeat=True)


def _expired(status: int) -> MayBePaidError:
    message = f"the server gave up waiting for the answer (status {status})"
    return MayBePaidError(f"status {status}", message, may_repeat=True)


def _given_up() -> MayBePaidError:
    return MayBePaidError("given up", "the run ended before its answer came")


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"
