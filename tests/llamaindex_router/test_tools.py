"""Tool calls go out and are read in the dialect of the LLM that answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from llama_index.core.agent.workflow import FunctionAgent, ReActAgent
from llama_index.core.llms import ChatMessage, ChatResponse
from llama_index.core.memory import ChatMemoryBuffer
from llamaindex_agents import AGENT_WARNINGS, TOOLS

from llamaindex_router import RoutedLLM
from prefroute import ConfigurationError, ThresholdError

if TYPE_CHECKING:
    from conftest import DialectLLM, EventLog, PlainLLM

    from prefroute.testing import FixedRouter


class Limiter:
    acquired = 0

    def acquire(self) -> None:
        self.acquired += 1

    async def async_acquire(self) -> None:
        self.acquired += 1


def memory() -> ChatMemoryBuffer:
    # An agent's default memory is an SQLite connection that it never closes.
    return ChatMemoryBuffer.from_defaults(token_limit=3000)


async def with_tools(llm: Any, text: str, history: list[ChatMessage]) -> Any:
    """The last response of each of the four ways."""
    yield llm.chat_with_tools(TOOLS, text, history)
    yield await llm.achat_with_tools(TOOLS, user_msg=text, chat_history=history, tool_required=True)
    yield list(llm.stream_chat_with_tools(TOOLS, ChatMessage(content=text), history))[-1]
    yield [chunk async for chunk in await llm.astream_chat_with_tools(tools=TOOLS, user_msg=text)][-1]


async def test_tool_calls_in_both_dialects(
    routed: RoutedLLM, strong: DialectLLM, weak: DialectLLM, router: FixedRouter, case: tuple[str, str, str]
) -> None:
    route, text, name = case
    chosen, other = (strong, weak) if route == "strong" else (weak, strong)
    history = [ChatMessage(content="earlier")]
    async for response in with_tools(routed, text, history):
        assert response.message.content == name
        assert response.additional_kwargs["routing"]["route"] == route
        (call,) = routed.get_tool_calls_from_response(response)
        assert (call.tool_name, call.tool_kwargs) == ("add", {"a": 2, "b": 3})
    assert history == [ChatMessage(content="earlier")]
    assert router.prompts == [text] * 4
    assert other.calls == []
    sent = [kwargs for method, _, kwargs in chosen.calls if method != "get_tool_calls"]
    assert [kwargs["tool_required"] for kwargs in sent] == [False, True, False, False]
    assert {kwargs["dialect"] for kwargs in sent} == {chosen.dialect}


async def test_predict_and_call(routed: RoutedLLM, case: tuple[str, str, str]) -> None:
    _, text, _ = case
    assert routed.predict_and_call(TOOLS, text).response == "5"
    assert (await routed.apredict_and_call(TOOLS, chat_history=[ChatMessage(content=text)])).response == "5"
    assert routed.stats.total == 2


async def test_prepared_arguments_keep_their_decision(
    routed: RoutedLLM, strong: DialectLLM, weak: DialectLLM, router: FixedRouter, case: tuple[str, str, str]
) -> None:
    route, text, name = case
    prepared = routed._prepare_chat_with_tools(TOOLS, text, tool_required=True)
    routed.rate_limiter = limiter = Limiter()
    router.scores.clear()
    router.score = 0.1 if route == "strong" else 0.9
    assert routed.chat(**prepared).message.content == name
    assert (await routed.achat(**prepared)).message.content == name
    assert next(routed.stream_chat(**prepared)).additional_kwargs["routing"]["route"] == route
    assert routed.stats.total == 1
    assert limiter.acquired == 3


def test_threshold_of_a_tool_call(routed: RoutedLLM, easy: str) -> None:
    assert routed.chat_with_tools(TOOLS, easy, threshold=0.0).message.content == "big"
    assert routed.predict_and_call(TOOLS, easy, threshold=0.0).response == "5"
    assert routed.stats.strong_rate == 1.0


def test_reading_a_response_that_no_longer_says_whose_it_is(
    routed: RoutedLLM, strong: DialectLLM, weak: DialectLLM
) -> None:
    for llm in (strong, weak):
        bare = ChatResponse(message=llm.chat_with_tools(TOOLS, "x").message)
        assert routed.get_tool_calls_from_response(bare)[0].tool_kwargs == {"a": 2, "b": 3}
    nothing = ChatResponse(message=ChatMessage(role="assistant", content="no tools"))
    assert routed.get_tool_calls_from_response(nothing, error_on_no_tool_call=False) == []
    with pytest.raises(ValueError, match="found no tool calls"):
        routed.get_tool_calls_from_response(nothing)


def test_reading_keeps_a_nested_decision(
    make_llm: type[DialectLLM], routed: RoutedLLM, router: FixedRouter, hard: str, easy: str
) -> None:
    outer = RoutedLLM(strong=make_llm(name="giant"), weak=routed, router=router, threshold=2.0)
    for text in (hard, easy):
        response = outer.chat_with_tools(TOOLS, text)
        assert outer.get_tool_calls_from_response(response)[0].tool_kwargs == {"a": 2, "b": 3}


@pytest.mark.parametrize("sides", ["strong", "weak"])
def test_only_one_side_calls_tools(
    strong: DialectLLM, plain: PlainLLM, router: FixedRouter, easy: str, hard: str, events: EventLog, sides: Any
) -> None:
    pair = {"strong": strong, "weak": plain} if sides == "strong" else {"strong": plain, "weak": strong}
    routed = RoutedLLM(**pair, router=router)
    for text in (easy, hard):
        response = routed.chat_with_tools(TOOLS, text)
        routing = response.additional_kwargs["routing"]
        assert (routing["route"], routing["score"], routing["reason"]) == (sides, None, "capability")
        assert routed.get_tool_calls_from_response(response)[0].tool_name == "add"
    assert router.prompts == []
    assert routed.stats.snapshot()["by_reason"] == {"capability": 2}
    assert len(events.named("RoutingDecisionEvent")) == 2
    with pytest.raises(ThresholdError, match="nan"):
        routed.chat_with_tools(TOOLS, easy, threshold=float("nan"))


def test_neither_side_calls_tools(plain: PlainLLM, router: FixedRouter) -> None:
    routed = RoutedLLM(strong=plain, weak=plain, router=router)
    with pytest.raises(ConfigurationError, match="neither plain nor plain calls tools"):
        routed.chat_with_tools(TOOLS, "x")
    with pytest.raises(ConfigurationError, match="neither"):
        routed.get_tool_calls_from_response(ChatResponse(message=ChatMessage(content="x")))


def test_a_plain_answer_read_for_tool_calls(
    strong: DialectLLM, plain: PlainLLM, router: FixedRouter, easy: str
) -> None:
    routed = RoutedLLM(strong=strong, weak=plain, router=router)
    response = routed.chat([ChatMessage(content=easy)])
    assert response.additional_kwargs["routing"]["route"] == "weak"
    assert routed.get_tool_calls_from_response(response, error_on_no_tool_call=False) == []


@AGENT_WARNINGS
@pytest.mark.parametrize("streaming", [False, True])
async def test_function_agent_stays_on_one_model(
    routed: RoutedLLM,
    strong: DialectLLM,
    weak: DialectLLM,
    router: FixedRouter,
    case: tuple[str, str, str],
    streaming: bool,
) -> None:
    route, text, name = case
    result = await FunctionAgent(tools=TOOLS, llm=routed, streaming=streaming).run(text, memory=memory())
    assert str(result) == name
    assert [str(call.tool_output) for call in result.tool_calls] == ["5"]
    assert router.prompts == [text]
    assert (weak if route == "strong" else strong).calls == []


@AGENT_WARNINGS
async def test_react_agent_is_not_routed_on_observations(
    plain: PlainLLM, router: FixedRouter, easy: str, hard: str
) -> None:
    replies = iter(
        [
            'Thought: I need a tool.\nAction: add\nAction Input: {"a": 2, "b": 3}',
            "this cannot be parsed as a step: Action:",
            "Thought: I can answer without using any more tools.\nAnswer: 5",
        ]
    )

    class Scripted(type(plain)):
        def complete(self, prompt: Any, formatted: bool = False, **kwargs: Any) -> Any:
            response = super().complete(prompt, formatted, **kwargs)
            response.text = next(replies)
            return response

    routed = RoutedLLM(strong=plain, weak=Scripted(), router=router)
    result = await ReActAgent(tools=TOOLS, llm=routed, streaming=False).run(easy, memory=memory())
    assert str(result) == "5"
    assert router.prompts == [easy]
