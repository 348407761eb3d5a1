"""Calls at once of real clients, with everything failing now and then: every figure has to add up."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
import openai
import pytest
from llama_index.core.callbacks import CallbackManager
from llama_index.core.llms import ChatMessage
from llama_index.core.prompts import PromptTemplate
from llama_index.llms.openai import OpenAI
from llama_index_instrumentation import get_dispatcher
from llama_index_instrumentation.event_handlers import BaseEventHandler
from loopback import Body, Fault, OpenAIServer, only_loopback, until
from pydantic import PrivateAttr
from questions import Unreliable, hard, number, sockets, text_of, unscored

from llamaindex_router import RoutedLLM, StrongCallRateEventHandler, StrongCallRateHandler
from prefroute.costs import Price
from prefroute.testing import FixedRouter, SlowRouter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray


STRONG, WEAK = "gpt-4o", "gpt-4o-mini"
PRICES = {STRONG: Price(input=2.5, output=10.0), WEAK: Price(input=0.15, output=0.6)}
CALLS, TASKS = 960, 32
IN_THREADS, THREADS = 240, 8
PROMPT = PromptTemplate("{query_str}")
WAYS = ("achat", "astream_chat", "acomplete", "apredict", "astream_complete")


def way_of(question: int) -> str:
    return WAYS[question % len(WAYS)]


def streams(question: int) -> bool:
    return "stream" in way_of(question)


def fault_of(question: int) -> Fault | None:
    """Of twelve questions five go wrong, each in its own way."""
    return {
        1: Fault(status=429),
        4: Fault(status=500),
        6: Fault(garbled=True),
        8: Fault(drop=True),
        # Where the answer is no stream, the connection is cut in place of it.
        11: Fault(drop_after=2) if streams(question) else Fault(drop=True),
    }.get(question % 12)


def error_of(question: int) -> tuple[type[Exception], ...]:
    """What the client makes of it."""
    cut = (openai.APIConnectionError, httpx.RemoteProtocolError)
    return {
        1: (openai.RateLimitError,),
        4: (openai.InternalServerError,),
        6: (json.JSONDecodeError,),
        8: cut,
        11: cut,
    }[question % 12]


FAILURES = (openai.APIError, httpx.RemoteProtocolError, json.JSONDecodeError)


def asked(body: Body) -> int:
    return number(body["messages"][-1]["content"])


class EventCounter(BaseEventHandler):
    """How many events of each kind there were, and which decisions the calls of LLMs belong to."""

    _kinds: Counter[str] = PrivateAttr(default_factory=Counter)
    _ids: Counter[str] = PrivateAttr(default_factory=Counter)
    _lock: threading.Lock = PrivateAttr(default_factory=threading.Lock)

    def handle(self, event: Any, **_: Any) -> None:
        kind = event.class_name().removeprefix("LLMChat").removeprefix("LLMCompletion")
        with self._lock:
            self._kinds[kind] += 1
            if kind == "StartEvent":
                self._ids[event.tags["routing"]["id"]] += 1

    @property
    def kinds(self) -> Counter[str]:
        return self._kinds

    @property
    def ids(self) -> Counter[str]:
        """Calls by decision."""
        return self._ids


@dataclass(frozen=True)
class Watched:
    """A routed pair of OpenAI's models, and all that watches it."""

    llm: RoutedLLM
    events: StrongCallRateEventHandler
    callbacks: StrongCallRateHandler
    counter: EventCounter


@pytest.fixture(autouse=True)
def _no_network() -> Iterator[None]:
    with only_loopback():
        yield


@pytest.fixture(autouse=True)
def _no_log() -> Iterator[None]:
    # A warning for every failure, which the report of a failed test would repeat.
    logging.disable(logging.WARNING)
    yield
    logging.disable(logging.NOTSET)


@pytest.fixture
def watch() -> Iterator[Callable[..., Watched]]:
    root = get_dispatcher()
    before = list(root.event_handlers)

    def make(server: OpenAIServer, **settings: Any) -> Watched:
        def client(name: str) -> OpenAI:
            # Tokens of a stream are told only on request.
            extra = {"stream_options": {"include_usage": True}}
            return OpenAI(model=name, api_base=server.base_url, api_key="test", max_retries=0, additional_kwargs=extra)

        events, callbacks = StrongCallRateEventHandler(prices=PRICES), StrongCallRateHandler(prices=PRICES)
        counter = EventCounter()
        root.event_handlers.extend([events, counter])
        manager = CallbackManager([callbacks])
        llm = RoutedLLM(strong=client(STRONG), weak=client(WEAK), callback_manager=manager, **settings)
        return Watched(llm, events, callbacks, counter)

    yield make
    root.event_handlers[:] = before


async def ask(llm: RoutedLLM, question: int) -> Any:
    """The last response, or the text where there is no response; an error that is the provider's."""
    text, way = text_of(question), way_of(question)
    try:
        if way == "apredict":
            return await llm.apredict(PROMPT, query_str=text)
        prompt: Any = [ChatMessage(text)] if way.endswith("chat") else text
        if not streams(question):
            return await getattr(llm, way)(prompt)
        last = None
        async with aclosing(await getattr(llm, way)(prompt)) as chunks:
            async for chunk in chunks:
                last = chunk
    except FAILURES as error:
        return error
    return last


def ask_in_thread(llm: RoutedLLM, question: int) -> Any:
    """`ask` by the methods for threads."""
    text, way = text_of(question), way_of(question)
    try:
        if way == "apredict":
            return llm.predict(PROMPT, query_str=text)
        prompt: Any = [ChatMessage(text)] if way.endswith("chat") else text
        if not streams(question):
            return getattr(llm, way[1:])(prompt)
        last = None
        with closing(getattr(llm, way[1:])(prompt)) as chunks:
            for chunk in chunks:
                last = chunk
    except FAILURES as error:
        return error
    return last


async def ask_all(llm: RoutedLLM, calls: int) -> dict[int, Any]:
    questions, outcomes = iter(range(calls)), {}

    async def work() -> None:
        for question in questions:
            outcomes[question] = await ask(llm, question)

    await asyncio.gather(*(work() for _ in range(TASKS)))
    # What the client leaves of a garbled stream to the garbage collector ends in a task of its own.
    if left := asyncio.all_tasks() - {asyncio.current_task()}:
        _, pending = await asyncio.wait(left, timeout=5.0)
        assert not pending
    return outcomes


def check(watched: Watched, server: OpenAIServer, outcomes: dict[int, Any], *, fallback: bool) -> None:
    """All that was seen of these calls agrees."""
    questions = set(outcomes)
    strong = set(filter(hard, questions))
    hurt = {question for question in questions if fault_of(question) and (not fallback or question in strong)}
    # A stream that has begun is not begun again on the other side.
    beyond_help = {question for question in hurt if question % 12 == 11 and streams(question)}
    helped = hurt - beyond_help if fallback else set()

    # What callers see.
    broken = {question for question, outcome in outcomes.items() if isinstance(outcome, Exception)}
    assert broken == hurt - helped
    for question in broken:
        assert isinstance(outcomes[question], error_of(question)), question
    for question in questions - broken:
        answered = STRONG if question in strong and question not in helped else WEAK
        outcome = outcomes[question]
        text = outcome if isinstance(outcome, str) else (getattr(outcome, "text", None) or outcome.message.content)
        assert text == f"{answered} says: {text_of(question)}"
        if isinstance(outcome, str):
            continue
        routing = outcome.additional_kwargs["routing"]
        assert routing["route"] == ("strong" if question in strong else "weak")
        assert routing["reason"] == ("router_error" if unscored(question) else "score")
        assert routing.get("answered_by") == ("weak" if question in helped else None)
        assert routing.get("fallback", {}).get("from") == ("strong" if question in helped else None)

    # What providers see.
    requests = server.requests
    weak = questions - strong
    assert Counter(body["model"] for body in requests) == {STRONG: len(strong), WEAK: len(weak) + len(helped)}
    answers = [
        body for body in requests if asked(body) not in hurt or (asked(body) in helped and body["model"] == WEAK)
    ]
    tokens = {name: [server.tokens(body) for body in answers if body["model"] == name] for name in (STRONG, WEAK)}

    # What is counted: decisions once, calls by who was called.
    failing = sum(map(unscored, questions))
    decisions = {
        "total": len(questions),
        "by_reason": {"score": len(questions) - failing, "router_error": failing},
        "by_route": {"strong": len(strong), "weak": len(weak)},
    }
    for snapshot in (watched.llm.stats.snapshot(), watched.events.snapshot()):
        assert {name: snapshot[name] for name in decisions} == decisions
    assert watched.callbacks.snapshot()["total"] == len(requests)
    assert watched.callbacks.snapshot()["by_route"] == {"strong": len(strong), "weak": len(weak) + len(helped)}
    failed = {STRONG: len(hurt & strong), WEAK: len(hurt - strong)}
    for handler in (watched.events, watched.callbacks):
        figures = handler.snapshot()["calls"]
        assert set(figures["by_model"]) == {STRONG, WEAK}
        for side, name in (("strong", STRONG), ("weak", WEAK)):
            usage = figures[side]
            assert figures["by_model"][name] == usage
            assert usage["calls"] == sum(body["model"] == name for body in requests)
            assert usage["failed"] == failed[name]
            assert usage["calls"] - usage["failed"] == len(tokens[name])
            assert usage["input_tokens"] == sum(given for given, _ in tokens[name])
            assert usage["output_tokens"] == sum(made for _, made in tokens[name])
            assert usage["unpriced"] == 0
            cost = PRICES[name].of(usage["input_tokens"], usage["output_tokens"])
            assert usage["cost"] == pytest.approx(cost)

    # What the framework tells of: each call begins once, and carries the decision it follows from.
    kinds = watched.counter.kinds
    assert kinds["RoutingDecisionEvent"] == len(questions)
    assert kinds["StartEvent"] == len(requests)
    assert kinds["EndEvent"] == len(answers)
    assert Counter(watched.counter.ids.values()) == Counter({1: len(questions) - len(helped), 2: len(helped)})


def only_strong_fails(body: Body) -> Fault | None:
    return None if body["model"] == WEAK else fault_of(asked(body))


@pytest.mark.parametrize("fallback", [False, True])
def test_every_call_ends_and_the_figures_add_up(watch: Callable[..., Watched], fallback: bool) -> None:
    """With fallback the strong provider is the one that fails, and the weak one answers for it."""
    threads, before = set(threading.enumerate()), sockets()
    with OpenAIServer(only_strong_fails if fallback else lambda body: fault_of(asked(body))) as server:
        watched = watch(server, router=Unreliable(), fallback_to_other=fallback)
        outcomes = asyncio.run(ask_all(watched.llm, CALLS))
        until(lambda: server.open_connections == 0)
    until(lambda: set(threading.enumerate()) <= threads)
    until(lambda: sockets() <= before)
    check(watched, server, outcomes, fallback=fallback)


@pytest.mark.parametrize("fallback", [False, True])
def test_the_figures_add_up_over_threads(watch: Callable[..., Watched], fallback: bool) -> None:
    with OpenAIServer(only_strong_fails if fallback else lambda body: fault_of(asked(body))) as server:
        watched = watch(server, router=Unreliable(), fallback_to_other=fallback)
        questions = range(IN_THREADS)
        with ThreadPoolExecutor(THREADS) as pool:
            outcomes = dict(pool.map(lambda one: (one, ask_in_thread(watched.llm, one)), questions))
        until(lambda: server.open_connections == 0)
    check(watched, server, outcomes, fallback=fallback)


class Ticked(SlowRouter):
    """Looks whether the event loop goes on while it takes its time."""

    def __init__(self) -> None:
        super().__init__(0.02, score=0.9)
        self.ticks = 0
        self.stood_still = False

    async def tick(self) -> None:
        while True:
            self.ticks += 1
            await asyncio.sleep(0.001)

    def win_probability(self, prompts: Sequence[str]) -> NDArray[np.float64]:
        before, end = self.ticks, time.monotonic() + 5.0
        scores = super().win_probability(prompts)
        while self.ticks == before and time.monotonic() < end and not self.stood_still:
            time.sleep(0.001)
        self.stood_still |= self.ticks == before
        return scores


async def test_a_slow_router_holds_up_no_one_else(watch: Callable[..., Watched]) -> None:
    router = Ticked()
    with OpenAIServer() as server:
        watched = watch(server, router=router)
        ticking = asyncio.create_task(router.tick())
        responses = await asyncio.gather(*(watched.llm.achat([ChatMessage(text_of(one))]) for one in range(200)))
        ticking.cancel()
        assert len(server.requests) == 200
    assert [response.message.content for response in responses] == [
        f"{STRONG} says: {text_of(one)}" for one in range(200)
    ]
    assert len(router.prompts) == 200
    assert not router.stood_still
    assert watched.llm.stats.snapshot()["total"] == watched.counter.kinds["RoutingDecisionEvent"] == 200
    assert len({response.additional_kwargs["routing"]["id"] for response in responses}) == 200


class Held(FixedRouter):
    """Takes until it is let go."""

    def __init__(self) -> None:
        super().__init__(0.9)
        self.asked = threading.Event()
        self.let_go = threading.Event()

    def win_probability(self, prompts: Sequence[str]) -> NDArray[np.float64]:
        self.asked.set()
        assert self.let_go.wait(10.0)
        return super().win_probability(prompts)


async def test_a_call_that_is_cancelled_while_the_router_is_asked_asks_no_model(watch: Callable[..., Watched]) -> None:
    router = Held()
    with OpenAIServer() as server:
        watched = watch(server, router=router, fallback_to_other=True)
        task = asyncio.create_task(watched.llm.achat([ChatMessage("Hi")]))
        await asyncio.to_thread(router.asked.wait, 10.0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        router.let_go.set()
        assert (await watched.llm.achat([ChatMessage("Hi")])).message.content == f"{STRONG} says: Hi"
        assert len(server.requests) == 1
    assert watched.llm.stats.snapshot()["total"] == watched.events.snapshot()["total"] == 1
    assert watched.events.snapshot()["calls"]["strong"]["calls"] == 1


@pytest.mark.parametrize("when", ["before the answer", "before the stream", "amid the stream"])
async def test_a_call_that_is_cancelled_is_a_failed_one_and_not_made_again(
    watch: Callable[..., Watched], when: str
) -> None:
    began = asyncio.Event()
    with OpenAIServer(lambda body: Fault(delay=30.0) if when == "amid the stream" else Fault(hang=True)) as server:
        watched = watch(server, router=FixedRouter(0.9), fallback_to_other=True)

        async def call() -> None:
            if when == "before the answer":
                await watched.llm.achat([ChatMessage("Hi")])
            async with aclosing(await watched.llm.astream_chat([ChatMessage("Hi")])) as chunks:
                async for _ in chunks:
                    began.set()

        task = asyncio.create_task(call())
        if when == "amid the stream":
            await began.wait()
        else:
            await asyncio.to_thread(until, lambda: server.requests)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.to_thread(until, lambda: server.open_connections == 0)
        assert server.aborted == 1
        assert len(server.requests) == 1
    for handler in (watched.events, watched.callbacks):
        snapshot = handler.snapshot()
        assert (snapshot["total"], snapshot["calls"]["weak"]["calls"]) == (1, 0)
        assert (snapshot["calls"]["strong"]["calls"], snapshot["calls"]["strong"]["failed"]) == (1, 1)
