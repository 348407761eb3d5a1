"""Pairs of real clients with providers on the loopback interface: switching, leaving early, leaking nothing."""

from __future__ import annotations

import asyncio
import copy
from contextlib import aclosing
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import pytest
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from loopback import AnthropicServer, Fault, OpenAIServer, only_loopback, until
from pydantic import BaseModel

from langchain_router import RoutedChatModel
from prefroute.testing import FixedRouter

if TYPE_CHECKING:
    from collections.abc import Iterator

THINKING = {"type": "enabled", "budget_tokens": 1024}


@pytest.fixture(autouse=True)
def _no_network() -> Iterator[None]:
    with only_loopback():
        yield


@tool
def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"{city}: hard to say"


class Joke(BaseModel):
    """A joke."""

    setup: str
    punchline: str


def gpt(server: OpenAIServer, **settings: Any) -> ChatOpenAI:
    return ChatOpenAI(
        model="gpt", base_url=server.base_url, api_key="test", stream_usage=True, max_retries=0, **settings
    )


def claude(server: AnthropicServer, **settings: Any) -> ChatAnthropic:
    return ChatAnthropic(
        model="claude", base_url=server.base_url, api_key="test", max_retries=0, max_tokens=2048, **settings
    )


MARKED = [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]


@pytest.mark.parametrize("settings", [{}, {"thinking": THINKING}], ids=["plain", "thinking"])
@pytest.mark.parametrize("output_version", [None, "v1"])
@pytest.mark.parametrize("streamed", [False, True])
def test_a_conversation_may_change_providers_at_every_turn(
    openai_server: Any, anthropic_server: Any, settings: Any, output_version: Any, streamed: bool
) -> None:
    extra = {} if output_version is None else {"output_version": output_version}
    model = RoutedChatModel(
        strong=claude(anthropic_server, **settings), weak=gpt(openai_server), router=FixedRouter(), **extra
    )
    bound = model.bind_tools([get_weather])
    messages: list[Any] = [SystemMessage(MARKED)]
    before: list[Any] = []
    for number, route in enumerate(("strong", "weak", "strong", "strong", "weak")):
        assert messages[: len(before)] == before, "the caller's messages stay as they were"
        text = f"What is the weather in City{number}?"
        block = {"type": "text", "text": text, "cache_control": {"type": "ephemeral"}}
        messages.append(HumanMessage([block] if number < 2 else text))
        for _step in range(2):
            answer = _answer(bound, messages, route, streamed=streamed)
            messages.append(answer)
            if not answer.tool_calls:
                break
            messages.extend(
                ToolMessage(get_weather.invoke(call["args"]), tool_call_id=call["id"]) for call in answer.tool_calls
            )
        assert f"City{number}" in messages[-1].text
        before = copy.deepcopy(messages)
    asked = [body for server in (openai_server, anthropic_server) for body in server.requests]
    assert len(asked) == 10
    marked = [body for body in anthropic_server.requests if "cache_control" in str(body)]
    assert len(marked) == len(anthropic_server.requests), "a mark stays where it is understood"


def _answer(bound: Any, messages: list[Any], route: str, *, streamed: bool) -> Any:
    if not streamed:
        return bound.invoke(messages, route=route)
    whole = None
    for chunk in bound.stream(messages, route=route):
        whole = chunk if whole is None else whole + chunk
    return whole


@pytest.mark.parametrize("strong_thinks", [False, True])
async def test_an_exchange_with_a_tool_stays_where_thinking_was_off_or_on(
    openai_server: Any, anthropic_server: Any, strong_thinks: bool
) -> None:
    """The tool's result would go to the other side; its provider would refuse the call without its thinking."""
    question = "What is the weather in Rome?"
    router = FixedRouter(0.9, {question: 0.1})
    thinking, plain = claude(anthropic_server, thinking=THINKING), gpt(openai_server)
    strong, weak = (thinking, plain) if strong_thinks else (plain, thinking)
    model = RoutedChatModel(strong=strong, weak=weak, router=router, decide="per_step")
    bound = model.bind_tools([get_weather])
    call = await bound.ainvoke(question)
    messages = [HumanMessage(question), call, ToolMessage("hard to say", tool_call_id=call.tool_calls[0]["id"])]
    end = await bound.ainvoke(messages)
    assert [one.response_metadata["routing"]["route"] for one in (call, end)] == ["weak", "weak"]
    assert end.response_metadata["routing"]["reason"] == "tool_loop"
    assert (await bound.ainvoke([*messages, end, HumanMessage("and now?")])).response_metadata["routing"][
        "route"
    ] == "strong"


def test_without_thinking_a_step_may_change_sides(openai_server: Any, anthropic_server: Any) -> None:
    question = "What is the weather in Rome?"
    model = RoutedChatModel(
        strong=claude(anthropic_server),
        weak=gpt(openai_server),
        router=FixedRouter(0.9, {question: 0.1}),
        decide="per_step",
    )
    bound = model.bind_tools([get_weather])
    call = bound.invoke(question)
    end = bound.invoke(
        [HumanMessage(question), call, ToolMessage("hard to say", tool_call_id=call.tool_calls[0]["id"])]
    )
    assert [one.response_metadata["routing"]["route"] for one in (call, end)] == ["weak", "strong"]
    assert end.response_metadata["model_name"] == "claude"


# A warning of the client itself, about what it has parsed.
@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning")
@pytest.mark.parametrize("route", ["strong", "weak"])
async def test_nothing_of_routing_reaches_a_provider(openai_server: Any, anthropic_server: Any, route: Any) -> None:
    """The servers refuse whatever their API does not know."""
    router = FixedRouter(0.5)
    router.calibrate([f"prompt {n}" for n in range(50)], 0.5)
    model = RoutedChatModel(
        strong=claude(anthropic_server),
        weak=gpt(openai_server),
        router=router,
        fallback_to_other=True,
        on_route=print,
        text_fn=lambda messages: messages[-1].text,
    )
    own: list[dict[str, Any]] = [{"threshold": 0.4}, {"strong_rate": 0.5}, {}]
    for options in own:
        keywords = {**options, "route": route}
        config: Any = {"configurable": {f"router_{name}": value for name, value in keywords.items()}}
        bound, structured = model.bind_tools([get_weather]), model.with_structured_output(Joke)
        for runnable in (model, bound, structured):
            await runnable.ainvoke("Hi", **keywords)
            await runnable.bind(**keywords).ainvoke("Hi")
            runnable.invoke("Hi", config)
            assert [chunk async for chunk in runnable.astream("Hi", config)]
        model.generate([[HumanMessage("Hi")]], **keywords)
        await model.abatch(["Hi", "Ho"], config)
    servers = {"strong": anthropic_server, "weak": openai_server}
    assert len(servers[route].requests) == len(own) * 15
    assert all(len(server.requests) == 0 for side, server in servers.items() if side != route)


@pytest.mark.parametrize("route", ["strong", "weak"])
async def test_leaving_a_stream_early_releases_the_connection(
    openai_server: Any, anthropic_server: Any, route: str
) -> None:
    if route == "strong" and version("langchain-anthropic") < "1.7":
        pytest.skip("this release of langchain-anthropic leaves its own stream open")
    model = RoutedChatModel(strong=claude(anthropic_server), weak=gpt(openai_server), router=FixedRouter())
    server = anthropic_server if route == "strong" else openai_server
    server.faults = lambda _: Fault(delay=0.05)
    async with aclosing(model.astream("A long story", route=route)) as chunks:
        async for _chunk in chunks:
            break
    await asyncio.to_thread(until, lambda: server.open_connections == 0)
    assert server.aborted == 1
    stream = model.stream("A long story", route=route)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    await asyncio.to_thread(until, lambda: server.aborted == 2)


async def test_a_cancelled_call_releases_the_connection(openai_server: Any, anthropic_server: Any) -> None:
    model = RoutedChatModel(
        strong=claude(anthropic_server), weak=gpt(openai_server), router=FixedRouter(), fallback_to_other=True
    )
    for server in (openai_server, anthropic_server):
        server.faults = lambda _: Fault(hang=True)
    for route, server in (("strong", anthropic_server), ("weak", openai_server)):
        task = asyncio.create_task(model.ainvoke("Hi", route=route))
        await asyncio.to_thread(until, lambda server=server: len(server.requests) == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.to_thread(until, lambda server=server: server.aborted == 1)
    assert len(openai_server.requests) == len(anthropic_server.requests) == 1, "cancelling is no failure to mend"


async def test_the_other_provider_answers_for_one_that_is_down(openai_server: Any, anthropic_server: Any) -> None:
    openai_server.faults = lambda _: Fault(status=500)
    model = RoutedChatModel(
        strong=claude(anthropic_server), weak=gpt(openai_server), router=FixedRouter(0.1), fallback_to_other=True
    )
    history: list[Any] = [HumanMessage("Hi"), AIMessage("Hello", response_metadata={"model_provider": "openai"})]
    message = await model.ainvoke([*history, HumanMessage("And you?")])
    routing = message.response_metadata["routing"]
    assert (routing["route"], routing["answered_by"], routing["fallback"]["from"]) == ("weak", "strong", "weak")
    chunks = [chunk async for chunk in model.astream("Hi")]
    assert chunks[0].response_metadata["routing"]["answered_by"] == "strong"
    assert not any("routing" in chunk.response_metadata for chunk in chunks[1:])
    openai_server.faults = lambda _: Fault(drop_after=2)
    seen: list[str] = []

    async def read() -> None:
        async for chunk in model.astream("Hi"):
            seen.append(chunk.text)  # noqa: PERF401 - what came before the end is what is looked at

    with pytest.raises(Exception, match=r"(?i)connection|peer|incomplete"):
        await read()
    assert seen
    assert len(anthropic_server.requests) == 2
