"""The other side answers where the chosen one fails; and a side that answers everything, whatever is decided."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import ToolCallBlock
from llama_index.core.callbacks import CallbackManager
from llama_index.core.llms import ChatMessage, ChatResponse, CompletionResponse
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.prompts import PromptTemplate
from llama_index.core.response_synthesizers import get_response_synthesizer
from llamaindex_agents import AGENT_WARNINGS, TOOLS, Pair

from llamaindex_router import RoutedLLM, RouterSelector, routing_options
from prefroute import ConfigurationError, RouterError, RoutingDecision
from prefroute.testing import FailingRouter, FixedRouter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import DialectLLM, EventLog, PlainLLM

QUESTION = PromptTemplate("Context: a long text.\nQ: {query_str}\nA:")


RESPONDING = [
    "chat",
    "achat",
    "complete",
    "acomplete",
    "chat_with_tools",
    "achat_with_tools",
]
STREAMING = [
    "stream_chat",
    "astream_chat",
    "stream_complete",
    "astream_complete",
    "stream_chat_with_tools",
    "astream_chat_with_tools",
]
TOKENS = ["predict", "apredict", "stream", "astream"]
STRUCTURED = [
    "structured_predict",
    "astructured_predict",
    "stream_structured_predict",
    "astream_structured_predict",
]
EVERY = [*RESPONDING, *STREAMING, *TOKENS, *STRUCTURED]
every_api = pytest.mark.parametrize("api", EVERY)
each_side = pytest.mark.parametrize("side", ["strong", "weak"])


def user(text: str) -> list[ChatMessage]:
    return [ChatMessage(content=text)]


def _arguments(api: str, text: str, options: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if "structured" in api:
        return (Pair, QUESTION, options), {"query_str": text}
    if api in TOKENS:
        return (QUESTION,), {"query_str": text, **options}
    if "tools" in api or "call" in api:
        return (TOOLS, text), options
    return (text if "complete" in api else user(text),), options


async def opened(routed: RoutedLLM, api: str, text: str, **options: Any) -> Any:
    """What a method returns; a stream is not read."""
    args, kwargs = _arguments(api, text, options)
    result = getattr(routed, api)(*args, **kwargs)
    return await result if api.startswith("a") else result


async def ask(routed: RoutedLLM, api: str, text: str, **options: Any) -> list[Any]:
    """All that a method answers."""
    result = await opened(routed, api, text, **options)
    if api.startswith("astream"):
        return [part async for part in result]
    return list(result) if api.startswith("stream") else [result]


def routing_of(response: Any) -> dict[str, Any]:
    routing: dict[str, Any] = response.additional_kwargs["routing"]
    return routing


def calls_of(llm: DialectLLM) -> list[str]:
    return [method for method, _, _ in llm.calls if method != "get_tool_calls"]


def tags(events: EventLog) -> list[dict[str, Any]]:
    """The decisions under which LLMs were called, as the calls began."""
    return [event.tags["routing"] for event in events.named("LLMChatStartEvent", "LLMCompletionStartEvent")]


@pytest.fixture
def pair(
    strong: DialectLLM, weak: DialectLLM, router: FixedRouter, easy: str, hard: str
) -> dict[str, tuple[DialectLLM, DialectLLM, str]]:
    """By side: its LLM, the other one, and a text that is sent there."""
    return {"strong": (strong, weak, hard), "weak": (weak, strong, easy)}


@pytest.fixture
def routed(strong: DialectLLM, weak: DialectLLM, router: FixedRouter) -> RoutedLLM:
    return RoutedLLM(strong=strong, weak=weak, router=router, fallback_to_other=True)


def _parts(llm: Any, kind: Any) -> Iterator[Any]:
    llm._open_streams.append(1)
    try:
        for text in ("x" * n for n in range(1, llm.after + 1)):
            if kind is ChatResponse:
                yield ChatResponse(message=ChatMessage(role="assistant", content=text), delta="x")
            else:
                yield CompletionResponse(text=text, delta="x")
        if llm.fault is not None:
            raise llm.fault
    finally:
        llm._open_streams.pop()


async def _aparts(llm: Any, kind: Any) -> Any:
    for part in _parts(llm, kind):
        yield part


@pytest.fixture
def breaking(make_llm: type[DialectLLM]) -> Any:
    """Makes an LLM whose streams fail after some parts, or end there."""

    class Breaking(make_llm):  # type: ignore[valid-type, misc]
        after: int = 0
        fault: Any = None

        @llm_chat_callback()
        def stream_chat(self, messages: Any, **kwargs: Any) -> Any:
            self._noted("stream_chat", messages, kwargs)
            return _parts(self, ChatResponse)

        @llm_chat_callback()
        async def astream_chat(self, messages: Any, **kwargs: Any) -> Any:
            self._noted("astream_chat", messages, kwargs)
            return _aparts(self, ChatResponse)

        @llm_completion_callback()
        def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
            self._noted("stream_complete", prompt, kwargs)
            return _parts(self, CompletionResponse)

        @llm_completion_callback()
        async def astream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
            self._noted("astream_complete", prompt, kwargs)
            return _aparts(self, CompletionResponse)

    return Breaking


# --- fallback ---


@each_side
@every_api
async def test_the_other_side_answers_and_it_is_told(
    routed: RoutedLLM, pair: Any, router: FixedRouter, events: EventLog, api: str, side: str
) -> None:
    failing, other, text = pair[side]
    failing.error = RuntimeError("429, with a secret in it")
    other_side = "weak" if side == "strong" else "strong"
    parts = await ask(routed, api, text)
    assert len(calls_of(failing)) == len(calls_of(other)) == 1
    assert router.prompts == [text]
    record = {"from": side, "error": "RuntimeError"}
    if api in RESPONDING or api in STREAMING:
        for part in parts:
            routing = routing_of(part)
            assert (routing["route"], routing["answered_by"], routing["fallback"]) == (side, other_side, record)
            assert routing["reason"] == "score"
    first, second = tags(events)
    assert (first["route"], second["route"]) == (side, side)
    assert first["id"] == second["id"]
    assert "fallback" not in first
    assert (second["answered_by"], second["fallback"]) == (other_side, record)
    assert len(events.named("RoutingDecisionEvent")) == 1
    assert routed.stats.snapshot()["by_route"] == {side: 1, other_side: 0}
    assert "secret" not in str([event.tags for event in events.all])


@every_api
async def test_what_is_said_is_the_other_sides(routed: RoutedLLM, pair: Any, api: str) -> None:
    failing, other, text = pair["strong"]
    failing.error = RuntimeError("down")
    other.tool_kwargs = {"a": 7, "b": 8}
    last = (await ask(routed, api, text))[-1]
    if api in STRUCTURED:
        assert last == Pair(a=7, b=8)
    elif api in TOKENS:
        assert last == ("small" if "predict" in api else "l")
    else:
        assert (last.text if "complete" in api else last.message.content) == "small"


@every_api
async def test_it_is_off_by_default(
    strong: DialectLLM, weak: DialectLLM, router: FixedRouter, hard: str, api: str
) -> None:
    strong.error = RuntimeError("down")
    with pytest.raises(RuntimeError) as raised:
        await ask(RoutedLLM(strong=strong, weak=weak, router=router), api, hard)
    assert raised.value is strong.error
    assert weak.calls == []


@every_api
async def test_nothing_is_marked_where_nothing_failed(routed: RoutedLLM, pair: Any, events: EventLog, api: str) -> None:
    _, other, text = pair["strong"]
    await ask(routed, api, text)
    assert calls_of(other) == []
    (tag,) = tags(events)
    assert not {"fallback", "answered_by"} & set(tag)


@each_side
@every_api
async def test_where_both_fail_the_first_error_is_told(routed: RoutedLLM, pair: Any, api: str, side: str) -> None:
    failing, other, text = pair[side]
    failing.error, other.error = RuntimeError("first"), ValueError("second")
    with pytest.raises(RuntimeError, match="first") as raised:
        await ask(routed, api, text)
    assert raised.value is failing.error
    assert len(calls_of(failing)) == len(calls_of(other)) == 1
    assert routed.stats.total == 1


@pytest.mark.parametrize("api", STREAMING)
@pytest.mark.parametrize("first", ["at once", "at its first part"])
async def test_where_both_streams_fail_the_first_error_is_told(
    breaking: Any, router: FixedRouter, hard: str, api: str, first: str
) -> None:
    fault = RuntimeError("first")
    strong = breaking(name="big", fault=fault)
    weak = breaking(name="small", fault=ValueError("second"))
    if first == "at once":
        strong.error = fault
    routed = RoutedLLM(strong=strong, weak=weak, router=router, fallback_to_other=True)
    with pytest.raises(RuntimeError, match="first") as raised:
        await ask(routed, api, hard)
    assert raised.value is fault
    assert len(calls_of(strong)) == len(calls_of(weak)) == 1
    assert strong.open_streams == weak.open_streams == 0


@pytest.mark.parametrize("how", ["keyword", "surrounding"])
@pytest.mark.parametrize("api", [*RESPONDING, *STREAMING, *STRUCTURED])
async def test_a_side_that_the_caller_named_is_not_exchanged(routed: RoutedLLM, pair: Any, api: str, how: str) -> None:
    failing, other, text = pair["strong"]
    failing.error = RuntimeError("down")
    around, options = ({}, {"route": "strong"}) if how == "keyword" else ({"route": "strong"}, {})
    with pytest.raises(RuntimeError, match="down"), routing_options(**around):
        await ask(routed, api, text, **options)
    assert other.calls == []


@pytest.mark.parametrize("api", ["predict_and_call", "apredict_and_call"])
async def test_tools_that_may_have_run_are_not_run_again(routed: RoutedLLM, pair: Any, api: str) -> None:
    failing, other, text = pair["strong"]
    failing.error = RuntimeError("down")
    with pytest.raises(RuntimeError, match="down"):
        await opened(routed, api, text)
    assert other.calls == []


@pytest.mark.parametrize("api", STREAMING + [api for api in TOKENS + STRUCTURED if "stream" in api])
@pytest.mark.parametrize("after", [0, 1, 3])
async def test_only_before_its_first_part_a_stream_is_exchanged(
    breaking: Any, weak: DialectLLM, router: FixedRouter, hard: str, api: str, after: int
) -> None:
    strong = breaking(name="big", after=after, fault=RuntimeError("broken off"))
    routed = RoutedLLM(strong=strong, weak=weak, router=router, fallback_to_other=True)
    stream = await opened(routed, api, hard)
    seen: list[Any] = []

    async def read() -> None:
        if api.startswith("a"):
            async for part in stream:
                seen.append(part)  # noqa: PERF401 - it is kept although the rest fails
        else:
            for part in stream:
                seen.append(part)  # noqa: PERF402 - as above

    if after == 0:
        await read()
        assert len(calls_of(weak)) == 1
        assert len(seen) == len("small")
        if api in STREAMING:
            assert {routing_of(part)["answered_by"] for part in seen} == {"weak"}
            assert {routing_of(part)["fallback"]["error"] for part in seen} == {"RuntimeError"}
    else:
        with pytest.raises(RuntimeError, match="broken off"):
            await read()
        assert calls_of(weak) == []
        if api in STREAMING:
            assert len(seen) == after
    assert strong.open_streams == weak.open_streams == 0
    assert routed.stats.total == 1


@pytest.mark.parametrize("api", [api for api in STREAMING if "chat" in api])
async def test_a_stream_of_nothing_is_no_failure(
    breaking: Any, weak: DialectLLM, router: FixedRouter, hard: str, api: str
) -> None:
    routed = RoutedLLM(strong=breaking(name="big"), weak=weak, router=router, fallback_to_other=True)
    assert await ask(routed, api, hard) == []
    assert weak.calls == []


@pytest.mark.parametrize("api", ["stream_chat", "astream_chat", "stream_chat_with_tools", "astream_chat_with_tools"])
@pytest.mark.parametrize("down", [False, True])
async def test_closing_early_closes_the_stream_that_answers(routed: RoutedLLM, pair: Any, api: str, down: bool) -> None:
    first, second, text = pair["strong"]
    first.error = RuntimeError("down") if down else None
    answering = second if down else first
    stream = await opened(routed, api, text)
    if api.startswith("a"):
        await anext(stream)
        assert answering.open_streams == 1
        await stream.aclose()
        # The framework's own wrapper in between is closed; what it wrapped is left to the event loop to finish.
        for _ in range(3):
            await asyncio.sleep(0)
    else:
        next(stream)
        assert answering.open_streams == 1
        stream.close()
    assert first.open_streams == second.open_streams == 0


def test_a_stream_that_nobody_reads_is_closed_all_the_same(routed: RoutedLLM, pair: Any) -> None:
    first, second, text = pair["strong"]
    stream = routed.stream_chat(user(text))
    stream.close()
    assert first.open_streams == second.open_streams == 0
    assert calls_of(second) == []


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, asyncio.CancelledError])
def test_what_ends_the_program_is_no_reason(routed: RoutedLLM, pair: Any, kind: type[BaseException]) -> None:
    failing, other, text = pair["strong"]
    failing.error = kind()
    with pytest.raises(kind):
        routed.chat(user(text))
    assert other.calls == []


async def test_a_call_that_is_cancelled_is_not_made_again(
    make_llm: type[DialectLLM], weak: DialectLLM, router: FixedRouter, hard: str
) -> None:
    asked = asyncio.Event()

    class Waiting(make_llm):  # type: ignore[valid-type, misc]
        @llm_chat_callback()
        async def achat(self, messages: Any, **kwargs: Any) -> Any:
            asked.set()
            await asyncio.sleep(60)

    strong = Waiting(name="big")
    routed = RoutedLLM(strong=strong, weak=weak, router=router, fallback_to_other=True)
    call = asyncio.ensure_future(routed.achat(user(hard)))
    await asked.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert weak.calls == []


async def test_an_error_of_the_router_is_no_reason(strong: DialectLLM, weak: DialectLLM, hard: str) -> None:
    routed = RoutedLLM(
        strong=strong, weak=weak, router=FailingRouter(), on_router_error="raise", fallback_to_other=True
    )
    with pytest.raises(RouterError):
        routed.complete(hard)
    with pytest.raises(RouterError):
        await routed.achat(user(hard))
    assert strong.calls == weak.calls == []


def test_a_side_that_was_taken_because_the_router_failed_may_be_exchanged(
    strong: DialectLLM, weak: DialectLLM, hard: str
) -> None:
    strong.error = RuntimeError("down")
    routed = RoutedLLM(strong=strong, weak=weak, router=FailingRouter(), fallback_to_other=True)
    routing = routing_of(routed.complete(hard))
    assert (routing["reason"], routing["answered_by"]) == ("router_error", "weak")


@pytest.mark.parametrize("api", ["chat", "acomplete", "stream_chat"])
async def test_a_side_whose_window_is_too_small_is_not_tried(
    make_llm: type[DialectLLM], router: FixedRouter, api: str
) -> None:
    strong, weak = make_llm(name="big", context_window=128_000), make_llm(name="small")
    strong.error = RuntimeError("down")
    routed = RoutedLLM(strong=strong, weak=weak, router=router, fallback_to_other=True)
    with pytest.raises(RuntimeError, match="down"):
        await ask(routed, api, "a word and another " * 3000)
    assert weak.calls == []


@pytest.mark.parametrize("api", [api for api in EVERY if "tools" in api])
async def test_a_side_without_tools_is_not_tried(
    strong: DialectLLM, plain: PlainLLM, router: FixedRouter, hard: str, api: str
) -> None:
    strong.error = RuntimeError("down")
    routed = RoutedLLM(strong=strong, weak=plain, router=router, fallback_to_other=True)
    with pytest.raises(RuntimeError, match="down"):
        await ask(routed, api, hard)


def test_the_other_side_gets_what_it_can_read(make_llm: type[DialectLLM], router: FixedRouter, hard: str) -> None:
    strong, weak = make_llm(name="big"), make_llm(name="small", role="user")
    strong.error = RuntimeError("down")
    routed = RoutedLLM(strong=strong, weak=weak, router=router, fallback_to_other=True)
    messages = [ChatMessage(role="system", content="be brief"), *user(hard)]
    routed.chat(messages, temperature=0.5)
    assert [message.role.value for message in strong.calls[0][1]] == ["system", "user"]
    assert [message.role.value for message in weak.calls[0][1]] == ["user", "user"]
    assert strong.calls[0][2] == weak.calls[0][2] == {"temperature": 0.5}
    assert messages[0].role.value == "system"


@pytest.mark.parametrize("api", ["chat_with_tools", "achat_with_tools", "stream_chat_with_tools"])
async def test_tool_calls_are_read_by_who_made_them(routed: RoutedLLM, pair: Any, api: str) -> None:
    failing, other, text = pair["strong"]
    failing.error = RuntimeError("down")
    other.tool_kwargs = {"a": 7, "b": 8}
    response = (await ask(routed, api, text))[-1]
    other.calls.clear()
    (call,) = routed.get_tool_calls_from_response(response)
    assert call.tool_kwargs == {"a": 7, "b": 8}
    assert [method for method, _, _ in other.calls] == ["get_tool_calls"]


@AGENT_WARNINGS
@pytest.mark.parametrize("streaming", [False, True])
async def test_an_agent_goes_on_while_its_model_is_down(
    routed: RoutedLLM, pair: Any, events: EventLog, streaming: bool
) -> None:
    failing, other, text = pair["strong"]
    failing.error = RuntimeError("down")
    agent = FunctionAgent(tools=TOOLS, llm=routed, streaming=streaming)
    result = await agent.run(text, memory=ChatMemoryBuffer.from_defaults(token_limit=3000))
    assert str(result) == "small"
    assert [str(call.tool_output) for call in result.tool_calls] == ["5"]
    assert len(calls_of(other)) == 2
    assert len(events.named("RoutingDecisionEvent")) == routed.stats.total == 1


def test_the_side_that_called_the_tool_answers_its_result(
    strong: DialectLLM, weak: DialectLLM, router: FixedRouter, hard: str
) -> None:
    routed = RoutedLLM(strong=strong, weak=weak, router=router, fallback_to_other=True, lock_tool_loop=True)
    strong.error = RuntimeError("down")
    answer = routed.chat_with_tools(TOOLS, hard).message
    strong.error = None
    result = ChatMessage(role="tool", content="5", additional_kwargs={"tool_call_id": "l1"})
    following = routing_of(routed.chat_with_tools(TOOLS, chat_history=[*user(hard), answer, result]))
    assert (following["route"], following["reason"]) == ("weak", "tool_loop")


def test_the_next_call_tries_the_chosen_side_again(routed: RoutedLLM, pair: Any) -> None:
    failing, _, text = pair["strong"]
    failing.error = RuntimeError("down")
    assert routed.complete(text).text == "small"
    failing.error = None
    assert routed.complete(text).text == "big"


async def test_calls_at_once_each_have_their_own_chance(routed: RoutedLLM, pair: Any, easy: str) -> None:
    failing, _, text = pair["strong"]
    failing.error = RuntimeError("down")
    answers = await asyncio.gather(*(routed.achat(user(one)) for one in [text, easy] * 50))
    assert [answer.message.content for answer in answers] == ["small"] * 100
    assert ["fallback" in routing_of(answer) for answer in answers] == [True, False] * 50
    assert routed.stats.snapshot()["by_route"] == {"strong": 50, "weak": 50}


def test_nested_each_pair_tries_its_own_other_side(
    make_llm: type[DialectLLM], routed: RoutedLLM, pair: Any, easy: str
) -> None:
    failing, other, text = pair["strong"]
    outer = RoutedLLM(strong=make_llm(name="giant"), weak=routed, router=FixedRouter(0.0), fallback_to_other=True)
    failing.error = RuntimeError("down")
    routing = routing_of(outer.complete(text))
    assert routing["inner"]["fallback"]["from"] == "strong"
    assert "fallback" not in routing
    other.error = ValueError("down too")
    response = outer.complete(text)
    assert response.text == "giant"
    assert routing_of(response)["fallback"] == {"from": "weak", "error": "RuntimeError"}


def test_synthesizers_fall_back_too(routed: RoutedLLM, pair: Any) -> None:
    failing, _, text = pair["strong"]
    failing.error = RuntimeError("down")
    synthesizer = get_response_synthesizer(llm=routed, callback_manager=CallbackManager())
    assert str(synthesizer.get_response(text, ["passage"])) == "small"


@each_side
def test_a_shadow_that_answers_everything_cannot_be_stood_in_for(
    strong: DialectLLM, weak: DialectLLM, router: FixedRouter, side: Any
) -> None:
    with pytest.raises(ConfigurationError, match="contradict"):
        RoutedLLM(strong=strong, weak=weak, router=router, fallback_to_other=True, shadow=side)


# --- shadow ---


@each_side
@pytest.mark.parametrize("api", [*EVERY, "predict_and_call", "apredict_and_call"])
async def test_a_shadow_answers_and_the_rest_says_what_would_have_been(
    strong: DialectLLM,
    weak: DialectLLM,
    router: FixedRouter,
    events: EventLog,
    easy: str,
    hard: str,
    api: str,
    side: Any,
) -> None:
    seen: list[RoutingDecision] = []
    routed = RoutedLLM(strong=strong, weak=weak, router=router, shadow=side, on_route=seen.append)
    for text, route in ((hard, "strong"), (easy, "weak")):
        events.all.clear()
        parts = await ask(routed, api, text)
        expected = None if side == route else side
        if api in RESPONDING or api in STREAMING:
            for part in parts:
                assert (routing_of(part)["route"], routing_of(part).get("answered_by")) == (route, expected)
                assert (part.text if "complete" in api else part.message.content) in ("big", "small")[side == "weak"]
        assert {(tag["route"], tag.get("answered_by")) for tag in tags(events)} == {(route, expected)}
        (event,) = events.named("RoutingDecisionEvent")
        assert event.decision == seen[-1]
        assert event.decision.route == route
    assert calls_of(weak if side == "strong" else strong) == []
    assert routed.stats.snapshot()["by_route"] == {"strong": 1, "weak": 1}


@each_side
async def test_a_shadow_is_selected_whatever_is_decided(
    router: FixedRouter, events: EventLog, easy: str, hard: str, side: Any
) -> None:
    selector = RouterSelector(router=router, shadow=side)
    expected = 0 if side == "strong" else 1
    for text, route in ((hard, "strong"), (easy, "weak")):
        for result in (selector.select(["a", "b"], text), await selector.aselect(["a", "b"], text)):
            assert result.ind == expected
            assert result.decision.route == route
    assert selector.stats.snapshot()["by_route"] == {"strong": 2, "weak": 2}
    assert [event.decision.route for event in events.named("RoutingDecisionEvent")] == ["strong"] * 2 + ["weak"] * 2


def test_a_shadow_answers_whatever_else_decides(
    make_llm: type[DialectLLM], router: FixedRouter, easy: str, hard: str
) -> None:
    strong, weak = make_llm(name="big", context_window=128_000), make_llm(name="small")
    routed = RoutedLLM(strong=strong, weak=weak, router=router, shadow="weak", decide="per_conversation")
    assert routed.chat(user(easy), route="strong").message.content == "small"
    assert routed.chat(user("a word and another " * 3000)).message.content == "small"
    with routing_options(threshold=0.0):
        assert routed.complete(easy).text == "small"
    answer = routed.chat(user(hard))
    following = routed.chat([*user(hard), answer.message, *user(easy)])
    routing = routing_of(following)
    assert (routing["route"], routing["reason"]) == ("strong", "conversation"), "as routing would have gone on"
    assert routing["answered_by"] == "weak"
    assert following.message.content == "small"


def test_tool_calls_of_a_shadow_are_read_by_it(
    strong: DialectLLM, weak: DialectLLM, router: FixedRouter, hard: str
) -> None:
    routed = RoutedLLM(strong=strong, weak=weak, router=router, shadow="weak")
    response = routed.chat_with_tools(TOOLS, hard)
    weak.calls.clear()
    assert routed.get_tool_calls_from_response(response)[0].tool_kwargs == {"a": 2, "b": 3}
    assert [method for method, _, _ in weak.calls] == ["get_tool_calls"]
    prepared = routed._prepare_chat_with_tools(TOOLS, hard)
    assert prepared["dialect"] == "legacy"
    assert routed.chat(**prepared).message.content == "small"
    assert strong.calls == []


@AGENT_WARNINGS
async def test_an_agent_in_the_shadow(strong: DialectLLM, weak: DialectLLM, router: FixedRouter, easy: str) -> None:
    router.scores[f"{easy}\n\n5"] = 0.9
    routed = RoutedLLM(strong=strong, weak=weak, router=router, shadow="strong", decide="per_step")
    agent = FunctionAgent(tools=TOOLS, llm=routed)
    assert str(await agent.run(easy, memory=ChatMemoryBuffer.from_defaults(token_limit=3000))) == "big"
    assert weak.calls == []
    assert routed.stats.snapshot()["by_route"] == {"strong": 1, "weak": 1}


def test_a_shadow_without_tools_cannot_answer_in_their_place(
    strong: DialectLLM, plain: PlainLLM, router: FixedRouter, hard: str
) -> None:
    routed = RoutedLLM(strong=strong, weak=plain, router=router, shadow="weak")
    with pytest.raises(ConfigurationError):
        routed.chat_with_tools(TOOLS, hard)
    assert strong.calls == []


def test_a_shadow_reads_the_history_that_it_wrote(
    strong: DialectLLM, weak: DialectLLM, router: FixedRouter, hard: str
) -> None:
    routed = RoutedLLM(strong=strong, weak=weak, router=router, shadow="weak")
    call = ToolCallBlock(tool_call_id="c", tool_name="add", tool_kwargs={"a": 1, "b": 2})
    history = [*user(hard), ChatMessage(role="assistant", blocks=[call]), ChatMessage(role="tool", content="3")]
    routed.chat(history)
    assert [id(message) for message in weak.calls[0][1]] == [id(message) for message in history]
