"""Events, tags, callback handlers; and that they hold under concurrency."""

from __future__ import annotations

import asyncio
import gc
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from llama_index.core.callbacks import CallbackManager, CBEventType
from llama_index.core.callbacks.llama_debug import LlamaDebugHandler
from llama_index.core.llms import ChatMessage
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index_instrumentation.dispatcher import active_instrument_tags, instrument_tags

from llamaindex_router import RoutedLLM, RoutingDecisionEvent, StrongCallRateEventHandler, StrongCallRateHandler
from llamaindex_router.lending import BorrowingManager
from prefroute import RoutingDecision, RoutingStats
from prefroute.testing import FixedRouter, SlowRouter

if TYPE_CHECKING:
    from conftest import DialectLLM, EventLog

LLM_STARTS = ("LLMChatStartEvent", "LLMCompletionStartEvent")


def user(text: str) -> list[ChatMessage]:
    return [ChatMessage(content=text)]


def llm_starts(handler: LlamaDebugHandler) -> int:
    return len([e for e in handler.get_events(CBEventType.LLM) if e.payload and "serialized" in e.payload])


def debug() -> LlamaDebugHandler:
    return LlamaDebugHandler(print_trace_on_end=False)


async def test_llm_events_fire_once_with_the_real_model(
    routed: RoutedLLM, events: EventLog, case: tuple[str, str, str]
) -> None:
    route, text, name = case
    routed.chat(user(text))
    await routed.acomplete(text)
    routed.predict(PromptTemplate("{query_str}"), query_str=text)
    starts = events.named(*LLM_STARTS)
    # Releases before `to_payload` describe the model by its fields.
    assert [event.model_dict.get("model_name", event.model_dict.get("name")) for event in starts] == [name] * 3
    assert {event.tags["routing"]["route"] for event in starts} == {route}
    assert len(events.named("LLMChatEndEvent", "LLMCompletionEndEvent")) == 3
    assert len(events.named("LLMPredictStartEvent")) == 1


def test_decision_event(routed: RoutedLLM, events: EventLog, case: tuple[str, str, str]) -> None:
    route, text, name = case
    response = routed.complete(text)
    (event,) = events.named("RoutingDecisionEvent")
    assert isinstance(event, RoutingDecisionEvent)
    assert event.decision.as_dict() == response.additional_kwargs["routing"]
    assert (event.decision.route, event.model_name) == (route, name)
    assert event.seconds >= 0
    assert event.model_dump()["decision"]["route"] == route
    start = events.named("LLMCompletionStartEvent")[0]
    assert start.tags["routing"]["id"] == event.decision.id


def test_tags_of_others_are_kept(routed: RoutedLLM, events: EventLog, easy: str) -> None:
    with instrument_tags({"tenant": "a"}):
        routed.complete(easy)
        assert active_instrument_tags.get() == {"tenant": "a"}
    start = events.named("LLMCompletionStartEvent")[0]
    assert start.tags["tenant"] == "a"
    assert start.tags["routing"]["route"] == "weak"
    assert active_instrument_tags.get() == {}


def test_interleaved_streams_keep_their_tags(routed: RoutedLLM, events: EventLog, easy: str, hard: str) -> None:
    streams = [routed.stream_chat(user(easy)), routed.stream_chat(user(hard))]
    for stream in streams:
        next(stream)
        assert active_instrument_tags.get() == {}
    for stream in reversed(streams):
        for _ in stream:
            assert active_instrument_tags.get() == {}
    for event in events.named("LLMChatInProgressEvent", "LLMChatEndEvent"):
        expected = "strong" if event.messages[0].content == hard else "weak"
        assert event.tags["routing"]["route"] == expected
    assert len(events.named("LLMChatEndEvent")) == 2


async def test_interleaved_async_streams_keep_their_tags(
    routed: RoutedLLM, events: EventLog, easy: str, hard: str
) -> None:
    streams = [await routed.astream_chat(user(easy)), await routed.astream_chat(user(hard))]
    for stream in streams:
        await anext(stream)
        assert active_instrument_tags.get() == {}
    # Each is finished in a task of its own, so set and reset happen in another context than the start.
    await asyncio.gather(*(asyncio.ensure_future(_drain(stream)) for stream in streams))
    for event in events.named("LLMChatInProgressEvent", "LLMChatEndEvent"):
        expected = "strong" if event.messages[0].content == hard else "weak"
        assert event.tags["routing"]["route"] == expected
    assert len(events.named("LLMChatEndEvent")) == 2


async def _drain(stream: Any) -> None:
    async for _ in stream:
        pass


async def test_a_stream_that_is_closed_early_ends_under_its_tags(
    routed: RoutedLLM, events: EventLog, hard: str
) -> None:
    stream = routed.stream_chat(user(hard))
    next(stream)
    stream.close()
    astream = await routed.astream_chat(user(hard))
    await anext(astream)
    await astream.aclose()
    # The framework tells of an early end as of an exception.
    assert [event.tags["routing"]["route"] for event in events.named("ExceptionEvent")] == ["strong"] * 2


def test_managers_that_were_unset(routed: RoutedLLM, weak: DialectLLM, easy: str) -> None:
    handler = debug()
    weak.callback_manager = None
    routed.callback_manager = CallbackManager([handler])
    assert routed.complete(easy).text == "small"
    assert llm_starts(handler) == 1
    routed.callback_manager = None
    assert routed.complete(easy).text == "small"
    assert llm_starts(handler) == 1


def test_a_dropped_stream_leaves_no_trace(routed: RoutedLLM, hard: str) -> None:
    stream = routed.stream_chat(user(hard))
    next(stream)
    del stream
    gc.collect()
    assert active_instrument_tags.get() == {}


def test_proxy_handlers_are_lent_and_own_ones_kept(
    strong: DialectLLM, weak: DialectLLM, router: FixedRouter, easy: str, hard: str
) -> None:
    lent, own = debug(), debug()
    strong.callback_manager = CallbackManager([own])
    routed = RoutedLLM(strong=strong, weak=weak, router=router, callback_manager=CallbackManager([lent]))
    for text in (easy, hard):
        routed.complete(text)
        list(routed.stream_chat(user(text)))
    assert llm_starts(lent) == 4
    assert llm_starts(own) == 2
    assert strong.callback_manager.handlers == [own]
    strong.complete("called directly")
    assert (llm_starts(lent), llm_starts(own)) == (4, 3)


def test_a_replaced_manager_is_not_kept(strong: DialectLLM, weak: DialectLLM, router: FixedRouter, easy: str) -> None:
    first, second = debug(), debug()
    routed = RoutedLLM(strong=strong, weak=weak, router=router, callback_manager=CallbackManager([first]))
    routed.complete(easy)
    routed.callback_manager = CallbackManager([second])  # As Settings does at every access.
    routed.complete(easy)
    assert (llm_starts(first), llm_starts(second)) == (1, 1)


def test_a_handler_that_both_have_counts_once(
    strong: DialectLLM, weak: DialectLLM, router: FixedRouter, easy: str
) -> None:
    shared = debug()
    weak.callback_manager = CallbackManager([shared])
    routed = RoutedLLM(strong=strong, weak=weak, router=router, callback_manager=CallbackManager([shared]))
    routed.complete(easy)
    same = RoutedLLM(strong=strong, weak=weak, router=router, callback_manager=routed.callback_manager)
    weak.callback_manager = same.callback_manager
    same.complete(easy)
    assert llm_starts(shared) == 2
    assert weak.callback_manager is same.callback_manager


def test_two_proxies_that_share_an_llm(strong: DialectLLM, weak: DialectLLM, router: FixedRouter, easy: str) -> None:
    handlers = [debug(), debug()]
    proxies = [
        RoutedLLM(strong=strong, weak=weak, router=router, callback_manager=CallbackManager([handler]))
        for handler in handlers
    ]
    for proxy in (*proxies, proxies[0]):
        proxy.complete(easy)
    assert [llm_starts(handler) for handler in handlers] == [2, 1]


def test_nested_proxies_lend_on(strong: DialectLLM, weak: DialectLLM, router: FixedRouter, easy: str) -> None:
    handler, own = debug(), debug()
    inner = RoutedLLM(strong=strong, weak=weak, router=router, callback_manager=CallbackManager([own]))
    outer = RoutedLLM(strong=strong, weak=inner, router=router, callback_manager=CallbackManager([handler]))
    outer.complete(easy)
    assert (llm_starts(handler), llm_starts(own)) == (1, 1)
    assert outer.callback_manager.trace_map["root"] == [handler.get_events(CBEventType.LLM)[0].id_]
    inner.complete(easy)
    assert (llm_starts(handler), llm_starts(own)) == (1, 2)


def test_a_loan_is_for_the_called_llm_alone(
    strong: DialectLLM, weak: DialectLLM, router: FixedRouter, easy: str, hard: str
) -> None:
    handler = debug()
    routed = RoutedLLM(strong=strong, weak=weak, router=router, callback_manager=CallbackManager([handler]))
    routed.complete(easy)
    strong.tool_kwargs = {}
    tool = FunctionTool.from_defaults(lambda: weak.complete("asked by a tool").text, name="ask", description="Ask.")
    assert routed.predict_and_call([tool], hard).response == "small"
    assert llm_starts(handler) == 2


def test_lent_calls_are_in_the_lenders_trace(
    strong: DialectLLM, weak: DialectLLM, router: FixedRouter, easy: str
) -> None:
    handler = debug()
    manager = CallbackManager([handler])
    routed = RoutedLLM(strong=strong, weak=weak, router=router, callback_manager=manager)
    with manager.as_trace("query"), manager.event(CBEventType.QUERY) as query:
        routed.complete(easy)
    (llm_event,) = manager.trace_map[query._event_id]
    assert llm_event == handler.get_events(CBEventType.LLM)[0].id_
    routed.complete(easy)  # And opens the lender's trace where there is none.
    assert len(manager.trace_map["root"]) == 1


def test_borrowing_manager_manages_its_own_handlers() -> None:
    first, second = debug(), debug()
    own = CallbackManager([first])
    manager = BorrowingManager(own)
    manager.add_handler(second)
    manager.remove_handler(first)
    assert own.handlers == manager.handlers == [second]
    manager.set_handlers([first])
    assert own.handlers == [first]


def test_nothing_to_lend_touches_nothing(routed: RoutedLLM, weak: DialectLLM, easy: str) -> None:
    before = weak.callback_manager
    routed.complete(easy)
    assert weak.callback_manager is before


@pytest.mark.parametrize("kind", ["decisions", "calls"])
def test_rate_handlers(
    strong: DialectLLM, weak: DialectLLM, router: FixedRouter, easy: str, hard: str, kind: str
) -> None:
    handler = StrongCallRateEventHandler(window=2) if kind == "decisions" else StrongCallRateHandler(window=2)
    if kind == "decisions":
        for text in (hard, easy, easy):
            decision = router.route(text)
            handler.handle(RoutingDecisionEvent(decision=decision, model_name="m", seconds=0.001))
    else:
        routed = RoutedLLM(strong=strong, weak=weak, router=router, callback_manager=CallbackManager([handler]))
        for text in (hard, easy, easy):
            routed.complete(text)
        assert handler.on_event_start(CBEventType.LLM, {}, event_id="not routed") == "not routed"
    assert handler.strong_rate == pytest.approx(1 / 3)
    assert handler.window_strong_rate == 0.0
    assert handler.snapshot()["by_route"] == {"strong": 1, "weak": 2}
    handler.reset()
    assert handler.snapshot()["total"] == 0


async def test_rate_event_handler_attached(routed: RoutedLLM, easy: str, hard: str) -> None:
    from llama_index.core.instrumentation import get_dispatcher

    handler = StrongCallRateEventHandler()
    get_dispatcher().add_event_handler(handler)
    try:
        routed.complete(hard)
        list(routed.stream_chat(user(easy)))
        await routed.achat(user(easy))
    finally:
        get_dispatcher().event_handlers.remove(handler)
    snapshot = handler.snapshot()
    assert snapshot["by_route"] == {"strong": 1, "weak": 2}
    assert snapshot["latency_ms"]["p50"] is not None


@pytest.mark.parametrize("tag", [None, "mine", {}, {"route": "strong"}, [1], 3])
def test_foreign_tags_do_not_disturb_the_handler(tag: object, strong: DialectLLM) -> None:
    handler = StrongCallRateHandler()
    strong.callback_manager = CallbackManager([handler])
    with instrument_tags({"routing": tag}):
        strong.complete("x")
    assert handler.snapshot()["total"] == 0


async def test_gathered_calls_do_not_mix(strong: DialectLLM, weak: DialectLLM, easy: str, hard: str) -> None:
    stats = RoutingStats()
    router = FixedRouter(0.1, {f"{hard} {n}": 0.9 for n in range(0, 100, 2)})
    handler = StrongCallRateHandler()
    routed = RoutedLLM(
        strong=strong, weak=weak, router=router, stats=stats, callback_manager=CallbackManager([handler])
    )
    responses = await asyncio.gather(*(routed.achat(user(f"{hard} {n}")) for n in range(100)))
    assert [r.message.content for r in responses] == ["big", "small"] * 50
    assert len({r.additional_kwargs["routing"]["id"] for r in responses}) == 100
    assert stats.total == 100
    assert stats.strong_rate == handler.strong_rate == 0.5


async def test_async_calls_do_not_block_the_loop(strong: DialectLLM, weak: DialectLLM, easy: str) -> None:
    routed = RoutedLLM(strong=strong, weak=weak, router=SlowRouter(0.2, 0.9))
    call = asyncio.ensure_future(routed.achat(user(easy)))
    await asyncio.sleep(0)
    # On a blocked loop the call would be over before this line is reached.
    assert not call.done()
    assert (await call).message.content == "big"


def test_threads_add_up(strong: DialectLLM, weak: DialectLLM, router: FixedRouter, easy: str, hard: str) -> None:
    handler = StrongCallRateHandler()
    routed = RoutedLLM(strong=strong, weak=weak, router=router, callback_manager=CallbackManager([handler]))
    texts = [hard, easy, easy, easy] * 50
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda text: routed.complete(text).text, texts))
    assert answers == ["big" if text == hard else "small" for text in texts]
    assert routed.stats.total == handler.snapshot()["total"] == 200
    assert routed.stats.strong_rate == handler.strong_rate == 0.25


def test_event_accepts_a_rebuilt_decision() -> None:
    decision = RoutingDecision(route="weak", score=0.2, threshold=0.5, reason="score")
    event = RoutingDecisionEvent(decision=decision, model_name="m", seconds=0.0)
    assert RoutingDecision.from_dict(event.model_dump()["decision"]) == decision
