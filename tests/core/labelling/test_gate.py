"""How long a server is left alone, and how that ends."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from prefroute.labelling._gate import Gate, seconds_asked

NOW = 1_700_000_000.0  # Tue, 14 Nov 2023 22:13:20 GMT


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 0.0),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250"}, 0.25),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "7"}, 7.0),
        ({"retry-after": "Tue, 14 Nov 2023 22:13:50 GMT"}, 30.0),
        ({"retry-after": "Tue, 14 Nov 2023 22:13:00 GMT"}, 0.0),
        ({"retry-after": "86400"}, 86400.0),
        ({"retry-after": "inf"}, float("inf")),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "nan"}, 0.0),
        ({"retry-after": "soon"}, 0.0),
    ],
)
def test_a_server_is_left_alone_for_as_long_as_it_asks(headers: dict[str, str], seconds: float) -> None:
    assert seconds_asked(headers, NOW) == seconds


def answer(status: int, seconds: float = 0.0) -> SimpleNamespace:
    return SimpleNamespace(status_code=status, is_error=status >= 400, headers={"retry-after": str(seconds)})


async def call(gate: Gate, status: int, seconds: float = 100.0) -> None:
    """A call that is refused, and repeated by a client that waits by itself first."""
    await gate.on_request(None)
    await gate.on_response(answer(status, seconds))
    if status >= 400:
        await asyncio.sleep(seconds)
        await gate.on_request(None)


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_shutting_ends_a_call_that_waits_to_be_repeated(status: int) -> None:
    gate = Gate()
    waiting = asyncio.create_task(call(gate, status))
    await asyncio.sleep(0)
    gate.shut()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(waiting, 5)


async def test_shutting_ends_a_call_that_is_held_back() -> None:
    gate = Gate()
    await gate.on_response(answer(429, 100.0))
    assert gate.is_holding
    held = asyncio.create_task(gate.on_request(None))
    await asyncio.sleep(0)
    gate.shut()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(held, 5)


async def test_a_refusal_that_comes_after_the_shutting_is_not_repeated_and_an_answer_is_taken() -> None:
    gate = Gate()
    await gate.on_request(None)
    gate.shut()
    with pytest.raises(asyncio.CancelledError):
        await gate.on_response(answer(429, 100.0))
    await gate.on_response(answer(200))
    with pytest.raises(asyncio.CancelledError):
        await gate.on_request(None)


async def test_a_call_that_was_answered_after_all_is_not_ended() -> None:
    gate = Gate()
    await gate.on_request(None)
    await gate.on_response(answer(500))
    await gate.on_request(None)
    gate.shut()
    await asyncio.sleep(0)
    assert not asyncio.current_task().cancelling()  # type: ignore[union-attr] # a test runs in one
