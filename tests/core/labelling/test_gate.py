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
        ({}, None),
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
        ({"retry-after": "nan"}, None),
        ({"retry-after": "soon"}, None),
    ],
)
def test_a_server_is_left_alone_for_as_long_as_it_asks(headers: dict[str, str], seconds: float | None) -> None:
    assert seconds_asked(headers, NOW) == seconds


def answer(status: int, seconds: float = 0.0) -> SimpleNamespace:
    return SimpleNamespace(status_code=status, is_error=status >= 400, headers={"retry-after": str(seconds)})


async def call(gate: Gate, status: int, seconds: float = 100.0) -> None:
    """A call that is refused, and repeated by a client that waits by itself first."""
    await gate.on_request()
    await gate.on_response(answer(status, seconds))
    if status >= 400:
        await asyncio.sleep(seconds)
        await gate.on_request()


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
    held = asyncio.create_task(gate.on_request())
    await asyncio.sleep(0)
    gate.shut()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(held, 5)


async def test_a_refusal_that_comes_after_the_shutting_is_not_repeated_and_an_answer_is_taken() -> None:
    gate = Gate()
    await gate.on_request()
    gate.shut()
    with pytest.raises(asyncio.CancelledError):
        await gate.on_response(answer(429, 100.0))
    await gate.on_response(answer(200))
    with pytest.raises(asyncio.CancelledError):
        await gate.on_request()


async def test_a_call_that_was_answered_after_all_is_not_ended() -> None:
    gate = Gate()
    await gate.on_request()
    await gate.on_response(answer(500))
    await gate.on_request()
    gate.shut()
    await asyncio.sleep(0)
    assert not asyncio.current_task().cancelling()  # type: ignore[union-attr] # a test runs in one


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr("prefroute.labelling._gate.time.monotonic", lambda: now[0])
    return now


def silent(status: int = 429) -> SimpleNamespace:
    return SimpleNamespace(status_code=status, is_error=True, headers={})


async def held(gate: Gate, clock: list[float]) -> float:
    """Seconds until a gate that holds opens; the clock goes on so far."""
    start = clock[0]
    while gate.is_holding:
        clock[0] += 0.5
    return clock[0] - start


@pytest.mark.parametrize("status", [429, 503])
async def test_a_server_that_does_not_say_how_long_is_left_alone_longer_each_time(
    status: int, clock: list[float]
) -> None:
    gate = Gate()
    seconds = []
    for _ in range(8):
        await gate.on_response(silent(status))
        await gate.on_response(silent(status))  # One that was on its way at the same time.
        seconds.append(await held(gate, clock))
    assert seconds == [1, 2, 4, 8, 16, 32, 60, 60]
    await gate.on_response(answer(200))
    await gate.on_response(silent(status))
    assert await held(gate, clock) == 1
    assert gate.refusals == 17


async def test_a_server_that_says_how_long_is_left_alone_for_no_longer(clock: list[float]) -> None:
    gate = Gate()
    for _ in range(3):
        await gate.on_response(answer(429, 3.0))
        assert gate.is_told
        assert await held(gate, clock) == 3
    await gate.on_response(answer(429, 0.0))
    assert not gate.is_holding
    await gate.on_response(silent())
    assert not gate.is_told
