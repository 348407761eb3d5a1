"""Two thousand calls at once of two real clients, with everything failing now and then."""

from __future__ import annotations

import asyncio
import logging
import threading
from contextlib import aclosing
from typing import TYPE_CHECKING

import httpx
import openai
import pytest
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_openai import ChatOpenAI
from loopback import Body, Fault, OpenAIServer, only_loopback, until
from questions import Unreliable, hard, number, sockets, text_of, unscored

from langchain_router import RoutedChatModel, StrongCallRateHandler

if TYPE_CHECKING:
    from collections.abc import Iterator

CALLS, TASKS = 2000, 32
PROVIDER_ERRORS = (openai.RateLimitError, openai.APIConnectionError, openai.APIError, httpx.RemoteProtocolError)


def fault_of(question: int) -> Fault | None:
    """Of twenty questions one is answered 429 and one is cut off."""
    if question % 20 == 7:
        return Fault(status=429)
    if question % 20 == 16:
        # Where the answer is no stream, the connection is cut in place of it.
        return Fault(drop_after=2) if streams(question) else Fault(drop=True)
    return None


def streams(question: int) -> bool:
    return question % 3 == 0


def asked(body: Body) -> int:
    return number(body["messages"][-1]["content"])


@pytest.fixture(autouse=True)
def _no_network() -> Iterator[None]:
    with only_loopback():
        yield


def client(server: OpenAIServer, name: str) -> ChatOpenAI:
    return ChatOpenAI(model=name, base_url=server.base_url, api_key="test", stream_usage=True, max_retries=0)


async def ask(model: RoutedChatModel, question: int, rate: StrongCallRateHandler) -> AIMessage | Exception:
    text, config = text_of(question), {"callbacks": [rate], "tags": [f"kind-{question % 2}"]}
    try:
        if not streams(question):
            return await model.ainvoke(text, config)
        whole: AIMessageChunk | None = None
        async with aclosing(model.astream(text, config)) as chunks:
            async for chunk in chunks:
                whole = chunk if whole is None else whole + chunk
    except PROVIDER_ERRORS as error:
        return error
    assert whole is not None
    return whole


async def ask_all(model: RoutedChatModel, rate: StrongCallRateHandler) -> dict[int, AIMessage | Exception]:
    questions, outcomes = iter(range(CALLS)), {}

    async def work() -> None:
        for question in questions:
            outcomes[question] = await ask(model, question, rate)

    await asyncio.gather(*(work() for _ in range(TASKS)))
    left = asyncio.all_tasks() - {asyncio.current_task()}
    await asyncio.sleep(0)
    assert not [task for task in left if not task.done()]
    return outcomes


@pytest.fixture(autouse=True)
def _no_log() -> Iterator[None]:
    # Two hundred warnings each, which the report of a failed test would repeat.
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("fallback", [False, True])
def test_every_call_ends_and_the_figures_add_up(fallback: bool) -> None:
    """With fallback the strong provider is the one that fails, and the weak one answers for it."""

    def faults(body: Body) -> Fault | None:
        return None if fallback and body["model"] == "weak" else fault_of(asked(body))

    threads, before = set(threading.enumerate()), sockets()
    with OpenAIServer(faults) as server:
        model = RoutedChatModel(
            strong=client(server, "strong"),
            weak=client(server, "weak"),
            router=Unreliable(),
            fallback_to_other=fallback,
        )
        rate = StrongCallRateHandler()
        outcomes = asyncio.run(ask_all(model, rate))
        until(lambda: server.open_connections == 0)
    until(lambda: set(threading.enumerate()) <= threads)
    until(lambda: sockets() <= before)

    broken = [question for question in range(CALLS) if isinstance(outcomes[question], Exception)]
    strong = {question for question in range(CALLS) if hard(question)}
    hurt = {question for question in range(CALLS) if fault_of(question) and (not fallback or question in strong)}
    # A stream that has begun is not begun again on the other side.
    beyond_help = {question for question in hurt if question % 20 == 16 and streams(question)}
    assert set(broken) == (beyond_help if fallback else hurt)
    limited = sum(isinstance(outcomes[question], openai.RateLimitError) for question in broken)
    assert limited == (0 if fallback else CALLS // 20)

    for question in set(range(CALLS)) - set(broken):
        message = outcomes[question]
        assert isinstance(message, AIMessage)
        routing = message.response_metadata["routing"]
        assert (routing["route"] == "strong") == (question in strong)
        assert (routing.get("answered_by") == "weak") == (question in hurt)
        answered = routing.get("answered_by", routing["route"])
        assert text_of(question) in message.text
        assert message.response_metadata["model_name"] == answered

    failing = sum(unscored(question) for question in range(CALLS))
    decided = {"total": CALLS, "by_reason": {"score": CALLS - failing, "router_error": failing}}
    for snapshot in (model.stats.snapshot(), rate.snapshot()):
        assert {name: snapshot[name] for name in decided} == decided
        assert snapshot["by_route"] == {"strong": len(strong), "weak": CALLS - len(strong)}
    figures = rate.snapshot()
    assert sum(group["total"] for group in figures["by_tag"].values()) == CALLS
    calls = figures["calls"]
    helped = len(hurt - beyond_help) if fallback else 0
    assert calls["strong"]["calls"] == len(strong)
    assert calls["weak"]["calls"] == CALLS - len(strong) + helped
    assert calls["strong"]["failed"] + calls["weak"]["failed"] == len(hurt)
    usage = [message.usage_metadata for message in outcomes.values() if isinstance(message, AIMessage)]
    for kind in ("input_tokens", "output_tokens"):
        assert calls["strong"][kind] + calls["weak"][kind] == sum(one[kind] for one in usage if one)
