"""RouterMiddleware in agents, and agents around a routed model."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import threading
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import (
    AgentMiddleware,
    ExtendedModelResponse,
    LLMToolSelectorMiddleware,
    ModelFallbackMiddleware,
    ModelRequest,
    ModelResponse,
    ModelRetryMiddleware,
)
from langchain_core.caches import InMemoryCache
from langchain_core.language_models import BaseChatModel, FakeListChatModel
from langchain_core.language_models.chat_models import generate_from_stream
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, SystemMessage, ToolMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import RunnableLambda
from langchain_core.runnables.config import var_child_runnable_config
from langchain_core.tools import StructuredTool, ToolException, tool
from langchain_core.utils.function_calling import convert_to_openai_tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.config import get_stream_writer
from langgraph.prebuilt import create_react_agent
from langgraph.types import Command, interrupt
from pydantic import BaseModel, PrivateAttr
from typing_extensions import TypedDict

from langchain_router import RoutedChatModel, StrongCallRateHandler
from langchain_router.middleware import RouterMiddleware
from prefroute import ConfigurationError, MissingExtraError, PrefrouteError, RoutingStats, ThresholdError
from prefroute.testing import FailingRouter, FixedRouter, SlowRouter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from prefroute import RoutingDecision

SCORES = {"hard": 0.9, "easy": 0.1, "easy\n\nhard": 0.9}
USAGE = {"input_tokens": 16, "output_tokens": 8, "total_tokens": 24}
LOOK = ("look", {"query": "x"})


@dataclass
class Seen:
    messages: list[Any]
    kwargs: dict[str, Any]
    asynchronous: bool


class StepChat(BaseChatModel):
    """In each turn it calls the tools of its script one after the other, and then answers with its name."""

    model_name: str
    temperature: float = 0.0
    script: tuple[Any, ...] = ()
    provider: str = "steps"
    failures: int = 0
    breaks: bool = False
    refuses: str = "no such question"
    _seen: list[Seen] = PrivateAttr(default_factory=list)

    @property
    def seen(self) -> list[Seen]:
        return self._seen

    @property
    def _llm_type(self) -> str:
        return "steps"

    def _get_ls_params(self, stop: Any = None, **kwargs: Any) -> Any:
        params: Any = super()._get_ls_params(stop, **kwargs)
        return {**params, "ls_provider": self.provider, "ls_model_name": self.model_name}

    def _error(self, what: str) -> ConnectionError:
        return ConnectionError(f"{self.model_name} is {what}")

    def _chunks(self, messages: list[Any], kwargs: dict[str, Any], *, asynchronous: bool = False) -> list[Any]:
        self._seen.append(Seen(list(messages), kwargs, asynchronous))
        if len(self._seen) <= self.failures:
            raise self._error("down")
        metadata = {"model_name": self.model_name, "model_provider": self.provider}
        last: Any = {"content": "", "usage_metadata": USAGE, "response_metadata": metadata}
        turn = messages[max(index for index, message in enumerate(messages) if message.type == "human") :]
        if turn[0].content == self.refuses:
            raise self._error("unwilling")
        step = sum(message.type == "tool" for message in turn)
        if kwargs.get("response_format"):
            parts = ['{"word": ', f'"{self.model_name}"}}']
        elif step < len(self.script) or kwargs.get("tool_choice") == "any":
            name, args = self.script[step] if step < len(self.script) else ("Answer", {"word": self.model_name})
            call = {"name": name, "args": str(args).replace("'", '"'), "id": f"{self.model_name}-{step}", "index": 0}
            return [AIMessageChunk(**{**last, "tool_call_chunks": [call]})]
        else:
            parts = [self.model_name, " says", " hi"]
        return [*map(AIMessageChunk, parts), AIMessageChunk(**last)]

    def _parts(self, chunks: list[Any]) -> Iterator[Any]:
        for chunk in chunks:
            yield ChatGenerationChunk(message=chunk)
            if self.breaks:
                raise self._error("gone")

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        return generate_from_stream(self._parts(self._chunks(messages, kwargs)))

    async def _agenerate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        chunks = self._chunks(messages, kwargs, asynchronous=True)
        await asyncio.sleep(0)
        return generate_from_stream(self._parts(chunks))

    def _stream(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> Iterator[Any]:
        yield from self._parts(self._chunks(messages, kwargs))

    async def _astream(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        for part in self._parts(self._chunks(messages, kwargs, asynchronous=True)):
            await asyncio.sleep(0)
            yield part

    def bind_tools(self, tools: Any, *, tool_choice: Any = None, **kwargs: Any) -> Any:
        choice = {} if tool_choice is None else {"tool_choice": tool_choice}
        return self.bind(tools=[convert_to_openai_tool(one) for one in tools], **choice, **kwargs)


@tool
def look(query: str) -> str:
    """Look it up."""
    return "hard"


@tool
def broken(query: str) -> str:
    """Fail."""
    raise ToolException(query)


broken.handle_tool_error = True


class Around(AgentMiddleware[Any, Any, Any]):
    """Changes requests, and what is done with them; keeps what it saw."""

    def __init__(self, change: Any = None, after: Any = None) -> None:
        super().__init__()
        self._change, self._after = change or (lambda request: request), after or (lambda response: response)
        self.models: list[Any] = []

    def wrap_model_call(self, request: Any, handler: Any) -> Any:
        self.models.append(request.model)
        return self._after(handler(self._change(request)))

    async def awrap_model_call(self, request: Any, handler: Any) -> Any:
        self.models.append(request.model)
        return self._after(await handler(self._change(request)))


class Team(NamedTuple):
    agent: Any
    middleware: RouterMiddleware
    strong: StepChat
    weak: StepChat
    router: Any


def team(
    *,
    script: Sequence[Any] = (),
    outer: Sequence[Any] = (),
    inner: Sequence[Any] = (),
    strong: dict[str, Any] | None = None,
    weak: dict[str, Any] | None = None,
    router: Any = None,
    agent: dict[str, Any] | None = None,
    **settings: Any,
) -> Team:
    """An agent; "hard" scores 0.9, "easy" 0.1, "easy" with the tool's result 0.9, anything else 0.5."""
    strong_model = StepChat(model_name="strong", script=tuple(script), **(strong or {}))
    weak_model = StepChat(model_name="weak", script=tuple(script), **(weak or {}))
    router = FixedRouter(0.5, SCORES) if router is None else router
    middleware = RouterMiddleware(strong=strong_model, weak=weak_model, router=router, **settings)
    options = {"tools": [look, broken], **(agent or {})}
    base = StepChat(model_name="base", failures=99)  # the agent's own model never answers
    made = create_agent(base, middleware=[*outer, middleware, *inner], **options)
    return Team(made, middleware, strong_model, weak_model, router)


def answers(state: Any) -> list[AIMessage]:
    return [message for message in state["messages"] if isinstance(message, AIMessage)]


def routings(state: Any) -> list[dict[str, Any]]:
    return [message.response_metadata["routing"] for message in answers(state)]


def sides(state: Any) -> list[tuple[str, str]]:
    return [(routing["route"], routing["reason"]) for routing in routings(state)]


def models(state: Any) -> list[str]:
    return [message.response_metadata["model_name"] for message in answers(state)]


@pytest.fixture(params=["invoke", "ainvoke"])
def ask(request: pytest.FixtureRequest) -> Any:
    """Lets an agent answer, sync and async."""

    async def call(agent: Any, text: Any = "easy", config: Any = None, **kwargs: Any) -> Any:
        given = text if isinstance(text, Command) else {"messages": text}
        if request.param == "invoke":
            return agent.invoke(given, config, **kwargs)
        return await agent.ainvoke(given, config, **kwargs)

    return call


# --- whose turn it is ---


async def test_each_question_goes_to_the_model_that_its_score_asks_for(ask: Any) -> None:
    agent, middleware, strong, weak, router = team()
    hard, easy = await ask(agent, "hard"), await ask(agent, "easy")
    assert (models(hard), models(easy)) == (["strong"], ["weak"])
    assert (len(strong.seen), len(weak.seen)) == (1, 1)
    assert router.prompts == ["hard", "easy"]
    assert middleware.stats.snapshot()["by_route"] == {"strong": 1, "weak": 1}
    assert [tool["function"]["name"] for tool in weak.seen[0].kwargs["tools"]] == ["look", "broken"]


async def test_async_agents_ask_the_router_in_a_thread_and_the_model_without_one() -> None:
    threads: list[threading.Thread] = []

    class Noting(FixedRouter):
        def win_probability(self, prompts: Any) -> Any:
            threads.append(threading.current_thread())
            return super().win_probability(prompts)

    agent, _, _, weak, _ = team(router=Noting(0.1))
    await agent.ainvoke({"messages": "easy"})
    assert weak.seen[0].asynchronous
    assert len(threads) == 1
    assert threads[0] is not threading.current_thread()


@pytest.mark.parametrize(
    ("decide", "asked", "answered"),
    [
        ("per_turn", ["easy", "easy"], ["weak", "weak"]),
        ("per_step", ["easy", "easy\n\nhard"], ["weak", "strong"]),
        ("per_conversation", ["easy"], ["weak", "weak"]),
    ],
)
async def test_one_run_uses_one_model_or_both(ask: Any, decide: Any, asked: Any, answered: Any) -> None:
    agent, middleware, _, _, router = team(script=[LOOK], decide=decide)
    state = await ask(agent)
    assert models(state) == answered
    assert router.prompts == asked
    assert middleware.stats.total == 2
    assert [message.type for message in state["messages"]] == ["human", "ai", "tool", "ai"]


async def test_a_conversation_stays_with_its_model_over_several_turns(ask: Any) -> None:
    agent, _, _, _, router = team(decide="per_conversation", agent={"checkpointer": InMemorySaver()})
    one, other = ({"configurable": {"thread_id": name}} for name in ("one", "other"))
    forced = {"configurable": {"thread_id": "one", "router_route": "strong"}}
    await ask(agent, "easy", one)
    await ask(agent, "hard", one)
    await ask(agent, "hard", forced)
    assert sides(await ask(agent, "hard", one)) == [
        ("weak", "score"),
        ("weak", "conversation"),
        ("strong", "forced"),
        ("weak", "conversation"),
    ]
    assert sides(await ask(agent, "hard", other)) == [("strong", "score")]
    assert router.prompts == ["easy", "hard"]


async def test_a_tool_loop_can_be_locked_to_the_model_that_called_the_tool(ask: Any) -> None:
    agent, _, _, _, router = team(script=[LOOK], decide="per_step", lock_tool_loop=True)
    assert sides(await ask(agent)) == [("weak", "score"), ("weak", "tool_loop")]
    assert router.prompts == ["easy"]


async def test_the_same_call_again_and_again_goes_to_the_strong_model(ask: Any) -> None:
    agent = team(script=[LOOK] * 3, escalate_after=2).agent
    state = await ask(agent)
    assert sides(state) == [("weak", "score"), ("weak", "score"), ("strong", "escalation"), ("strong", "escalation")]
    assert routings(state)[2]["detail"] == "repeated tool call"
    again = await ask(agent, [*state["messages"], HumanMessage("easy")])
    assert sides(again)[4:] == sides(state)  # a new turn begins anew


async def test_failed_tools_go_to_the_strong_model(ask: Any) -> None:
    script = [("broken", {"query": "a"}), LOOK, ("broken", {"query": "b"})]
    state = await ask(team(script=script, escalate_after=2).agent)
    assert [message.status for message in state["messages"] if isinstance(message, ToolMessage)] == [
        "error",
        "success",
        "error",
    ]
    assert sides(state) == [("weak", "score")] * 3 + [("strong", "escalation")]
    assert routings(state)[3]["detail"] == "failed tools"


async def test_a_function_may_find_the_text(ask: Any) -> None:
    seen: list[Any] = []
    agent, _, _, _, router = team(
        text_fn=lambda messages: seen.append(messages) or "hard", agent={"system_prompt": "Be brief."}
    )
    assert models(await ask(agent)) == ["strong"]
    assert router.prompts == ["hard"]
    assert [message.content for message in seen[0]] == ["Be brief.", "easy"]


async def test_the_system_message_goes_along_and_is_not_routed_by(ask: Any) -> None:
    agent, _, _, weak, router = team(agent={"system_prompt": "hard"})
    await ask(agent)
    assert [message.content for message in weak.seen[0].messages] == ["hard", "easy"]
    assert router.prompts == ["easy"]


# --- what a run brings ---


@dataclass
class Wishes:
    user: str = "me"
    router_threshold: float | None = None
    router_strong_rate: float | None = None
    router_route: str | None = None


class WishesDict(TypedDict, total=False):
    router_threshold: float
    router_strong_rate: float
    router_route: str


class WishesModel(BaseModel):
    router_threshold: float | None = None
    router_strong_rate: float | None = None
    router_route: str | None = None


def calibrated() -> FixedRouter:
    router = FixedRouter(0.5, {f"prompt {n}": n / 100 for n in range(100)} | SCORES)
    router.calibrate([f"prompt {n}" for n in range(100)], 0.5)
    return router


@pytest.mark.parametrize(
    ("wish", "threshold", "reason"),
    [
        ({"threshold": 0.05}, 0.05, "score"),
        ({"threshold": 0.0}, 0.0, "score"),
        ({"strong_rate": 1.0}, 0.0, "score"),
        ({"route": "strong"}, None, "forced"),
    ],
)
@pytest.mark.parametrize("way", ["configurable", "dataclass", "dict", "model", "model_settings"])
async def test_a_run_may_bring_its_own_bar(
    ask: Any, wish: dict[str, Any], threshold: Any, reason: str, way: str
) -> None:
    named = {f"router_{name}": value for name, value in wish.items()}
    schema: Any = {"dataclass": Wishes, "dict": WishesDict, "model": WishesModel}.get(way)
    settings = Around(lambda request: request.override(model_settings={**wish, "temperature": 0.5}))
    agent, _, strong, _, _ = team(
        router=calibrated(), outer=[settings] if way == "model_settings" else [], agent={"context_schema": schema}
    )
    config = {"configurable": named} if way == "configurable" else None
    context = {"context": named if way == "dict" else schema(**named)} if schema else {}
    (routing,) = routings(await ask(agent, "easy", config, **context))
    assert (routing["route"], routing["reason"]) == ("strong", reason)
    assert threshold is None or routing["threshold"] == pytest.approx(threshold, abs=0.02)
    assert set(strong.seen[0].kwargs) - {"temperature"} == {"tools"}
    assert strong.seen[0].kwargs.get("temperature") == (0.5 if way == "model_settings" else None)


async def test_settings_come_before_context_and_context_before_config(ask: Any) -> None:
    config = {"configurable": {"router_threshold": 0.03}}
    agent = team(agent={"context_schema": Wishes}).agent
    assert routings(await ask(agent, "easy", config, context=Wishes()))[0]["threshold"] == 0.03
    assert routings(await ask(agent, "easy", config, context=Wishes(router_threshold=0.02)))[0]["threshold"] == 0.02
    settings = Around(lambda request: request.override(model_settings={"threshold": 0.01}))
    agent = team(outer=[settings], agent={"context_schema": Wishes}).agent
    assert routings(await ask(agent, "easy", config, context=Wishes(router_threshold=0.02)))[0]["threshold"] == 0.01
    assert routings(await ask(agent, "easy", context=Wishes(router_strong_rate=0.3)))[0]["threshold"] == 0.01


async def test_a_bar_in_the_context_stands_in_for_one_of_another_kind_in_the_config(ask: Any) -> None:
    agent = team(router=calibrated(), agent={"context_schema": Wishes}).agent
    config = {"configurable": {"router_strong_rate": 0.3}}
    assert routings(await ask(agent, "easy", config, context=Wishes(router_threshold=0.02)))[0]["threshold"] == 0.02
    config = {"configurable": {"router_threshold": 0.7}}
    (routing,) = routings(await ask(agent, "easy", config, context=Wishes(router_strong_rate=1.0)))
    assert routing["threshold"] == pytest.approx(0.0, abs=0.02)


@pytest.mark.parametrize(
    ("wish", "error"),
    [
        ({"router_threshold": float("nan")}, ThresholdError),
        ({"router_threshold": "high"}, ThresholdError),
        ({"router_route": "best"}, ConfigurationError),
        ({"router_strong_rate": 0.3}, ConfigurationError),  # this router is not calibrated
    ],
)
async def test_a_wish_that_cannot_be_met_is_told(ask: Any, wish: Any, error: type[PrefrouteError]) -> None:
    with pytest.raises(error):
        await ask(team().agent, "easy", {"configurable": wish})


# --- when routing fails ---


@pytest.mark.parametrize(
    ("router", "settings", "side"),
    [
        (FailingRouter(), {}, "strong"),
        (FailingRouter(on_error="weak"), {}, "weak"),
        (FailingRouter(on_error="raise"), {}, "strong"),
        (FailingRouter(on_error="raise"), {"on_router_error": "weak"}, "weak"),
        (FixedRouter(float("nan")), {}, "strong"),
        (SlowRouter(0.2, 0.1, time_limit=0.01), {}, "strong"),
        (SlowRouter(0.2, 0.9), {"router_time_limit": 0.01, "on_router_error": "weak"}, "weak"),
        (FixedRouter(0.1), {"text_fn": lambda _: 1 / 0}, "strong"),
        (FixedRouter(0.1), {"text_fn": lambda _: None}, "strong"),
        (FixedRouter(0.9), {"text_fn": lambda _: 1 / 0, "on_router_error": "weak"}, "weak"),
    ],
)
async def test_a_router_that_fails_never_ends_a_run(ask: Any, router: Any, settings: dict[str, Any], side: str) -> None:
    agent, middleware, *_ = team(router=router, script=[LOOK], **settings)
    state = await ask(agent)
    assert models(state) == [side, side]
    assert sides(state) == [(side, "router_error")] * 2
    assert middleware.stats.snapshot()["by_reason"] == {"router_error": 2}


async def test_a_router_that_is_set_to_raise_later_does_not_end_a_run_either(ask: Any) -> None:
    router = FailingRouter()
    agent = team(router=router).agent
    router.on_error = "raise"
    assert sides(await ask(agent)) == [("strong", "router_error")]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"on_router_error": "raise"}, "must not end the run of an agent"),
        ({"on_router_error": "both"}, "must be one of strong, weak"),
        ({"router_time_limit": -1}, "time limit must be"),
        ({"decide": "per_day"}, "decide must be one of"),
        ({"escalate_after": 0}, "escalate_after must be"),
        ({"lock_tool_loop": "yes"}, "lock_tool_loop must be"),
        ({"fallback_to_other": 1}, "fallback_to_other must be"),
        ({"shadow": "both"}, "shadow must be"),
        ({"shadow": "weak", "fallback_to_other": True}, "contradict"),
        ({"text_fn": "last"}, "text_fn must be"),
        ({"on_route": 7}, "on_route must be"),
        ({"stats": {}}, "stats must be"),
        ({"strong_rate": 0.5}, "calibrated"),
        ({"threshold": 0.5, "strong_rate": 0.5}, "not both"),
        ({"router": 7}, "router must be"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        team(**settings)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda model: model.bind(temperature=0.5),
        lambda model: model.bind_tools([look]),
        lambda model: model.with_config(tags=["mine"]),
        lambda model: model.with_retry(),
        lambda model: model.with_fallbacks([model]),
        lambda model: model | RunnableLambda(str),
        lambda _: 7,
    ],
)
@pytest.mark.parametrize("side", ["strong", "weak"])
def test_what_an_agent_could_not_bind_tools_to_is_refused(wrap: Any, side: str) -> None:
    pair = {"strong": StepChat(model_name="strong"), "weak": StepChat(model_name="weak")}
    pair[side] = wrap(pair[side])
    with pytest.raises(ConfigurationError, match=f"{side} must be a") as told:
        RouterMiddleware(**pair, router=FixedRouter())
    assert type(pair[side]).__name__ in str(told.value)


async def test_models_may_be_named(ask: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("langchain.chat_models.init_chat_model", lambda name: StepChat(model_name=name))
    middleware = RouterMiddleware(strong="openai:big", weak="openai:small", router=FixedRouter(0.5, SCORES))
    agent = create_agent(StepChat(model_name="base"), middleware=[middleware])
    assert models(await ask(agent, "hard")) + models(await ask(agent)) == ["openai:big", "openai:small"]


@pytest.mark.parametrize(
    ("error", "told"), [(ImportError("no package"), MissingExtraError), (ValueError("no key"), ConfigurationError)]
)
def test_a_name_that_makes_no_model_is_told(monkeypatch: pytest.MonkeyPatch, error: Exception, told: Any) -> None:
    def refuse(name: str) -> Any:
        raise error

    monkeypatch.setattr("langchain.chat_models.init_chat_model", refuse)
    with pytest.raises(told, match="nobody:model"):
        RouterMiddleware(strong="nobody:model", weak=StepChat(model_name="weak"), router=FixedRouter())


# --- where the decision is seen ---


async def test_each_step_is_one_run_of_the_real_model(ask: Any, recorder: Any) -> None:
    agent = team(script=[LOOK], decide="per_step").agent
    state = await ask(agent, "easy", {"callbacks": [recorder], "metadata": {"mine": 1}, "tags": ["mine"]})
    assert [metadata["ls_model_name"] for metadata in recorder.models] == ["weak", "strong"]
    assert [metadata["routing"] for metadata in recorder.models] == routings(state)
    assert [metadata["router_route"] for metadata in recorder.models] == ["weak", "strong"]
    assert [metadata["mine"] for metadata in recorder.models] == [1, 1]
    assert all("mine" in tags for tags in recorder.tags)
    assert not any("routing" in metadata for kind, metadata in recorder.started if kind == "chain")
    assert (recorder.ended, recorder.usage, recorder.errors) == (2, 48, [])
    assert [message.usage_metadata for message in answers(state)] == [USAGE, USAGE]
    assert set(routings(state)[0]) == {"route", "score", "threshold", "reason", "id"}


async def test_events_show_the_decision_and_each_token_once() -> None:
    agent = team(script=[LOOK], decide="per_step").agent
    events = [event async for event in agent.astream_events({"messages": "easy"}, version="v2")]
    starts = [event for event in events if event["event"] == "on_chat_model_start"]
    assert [start["metadata"]["routing"]["route"] for start in starts] == ["weak", "strong"]
    assert [start["parent_ids"] != [] for start in starts] == [True, True]  # they are part of the agent's run
    tokens = [event["data"]["chunk"].text for event in events if event["event"] == "on_chat_model_stream"]
    assert "".join(tokens) == "strong says hi"


def react(model: Any) -> Any:
    return create_react_agent(model, [look])


def around_model(model: Any) -> Any:
    return create_agent(model, [look])


@pytest.fixture(params=["middleware", "create_agent", "create_react_agent"])
def streaming(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """An agent that routes in one of three ways, per step, and calls a tool first."""

    def make(**model: Any) -> Any:
        if request.param == "middleware":
            return team(script=[LOOK], decide="per_step", strong=model, weak=model).agent
        strong, weak = (StepChat(model_name=name, script=(LOOK,), **model) for name in ("strong", "weak"))
        routed = RoutedChatModel(strong=strong, weak=weak, router=FixedRouter(0.5, SCORES), decide="per_step")
        return react(routed) if request.param == "create_react_agent" else around_model(routed)

    return make


# The function has a successor, and is in wide use.
tolerant = pytest.mark.filterwarnings("ignore:create_react_agent has been moved")


@tolerant
@pytest.mark.parametrize("api", ["stream", "astream"])
async def test_messages_mode_shows_each_token_once(streaming: Any, api: str) -> None:
    agent = streaming()
    given: Any = ({"messages": "easy"},)
    if api == "stream":
        parts = list(agent.stream(*given, stream_mode="messages"))
    else:
        parts = [part async for part in agent.astream(*given, stream_mode="messages")]
    told = [(chunk, metadata) for chunk, metadata in parts if isinstance(chunk, AIMessageChunk)]
    assert [chunk.text for chunk, _ in told if chunk.text] == ["strong", " says", " hi"]
    assert [call["name"] for chunk, _ in told for call in chunk.tool_call_chunks] == ["look"]
    assert [message.text for message, _ in parts if not isinstance(message, AIMessageChunk)] == ["hard"]
    assert {metadata["routing"]["route"] for chunk, metadata in told if chunk.text} == {"strong"}
    assert {metadata["routing"]["route"] for chunk, metadata in told if chunk.tool_call_chunks} == {"weak"}
    assert {metadata["langgraph_node"] for _, metadata in told} <= {"model", "agent"}


@tolerant
@pytest.mark.parametrize("api", ["stream", "astream"])
async def test_messages_mode_shows_an_answer_that_is_not_streamed_once(streaming: Any, api: str) -> None:
    agent = streaming(disable_streaming=True)
    given: Any = ({"messages": "easy"},)
    if api == "stream":
        parts = list(agent.stream(*given, stream_mode="messages"))
    else:
        parts = [part async for part in agent.astream(*given, stream_mode="messages")]
    assert [message.text for message, _ in parts] == ["", "hard", "strong says hi"]


@tolerant
async def test_the_state_holds_the_decision_of_each_step(ask: Any, streaming: Any, recorder: Any) -> None:
    state = await ask(streaming(), "easy", {"callbacks": [recorder]})
    assert sides(state) == [("weak", "score"), ("strong", "score")]
    assert [metadata["routing"] for metadata in recorder.models] == routings(state)
    assert [metadata["ls_model_name"] for metadata in recorder.models] == models(state) == ["weak", "strong"]
    assert recorder.usage == 48


@tolerant
@pytest.mark.parametrize("around", [around_model, react])
async def test_a_routed_model_with_a_bound_threshold_keeps_it_in_an_agent(ask: Any, around: Any, setup: Any) -> None:
    routed = setup().model
    assert models(await ask(around(routed.bind(threshold=0.05)))) == ["strong"]
    assert models(await ask(around(routed), "easy", {"configurable": {"router_threshold": 0.05}})) == ["strong"]
    assert models(await ask(around(routed))) == ["weak"]


@pytest.mark.parametrize("own", ["b", {"plan": "b"}], ids=["text", "object"])
async def test_metadata_of_ones_own_under_the_same_key_ends_no_conversation(ask: Any, setup: Any, own: Any) -> None:
    routed = setup(decide="per_conversation").model
    config = {"configurable": {"thread_id": "1"}, "metadata": {"routing": own}}
    for agent in (
        create_agent(routed, checkpointer=InMemorySaver()),
        team(decide="per_conversation", agent={"checkpointer": InMemorySaver()}).agent,
    ):
        await ask(agent, "easy", config)
        assert sides(await ask(agent, "hard", config)) == [("weak", "score"), ("weak", "conversation")]


# --- among other middleware ---


async def test_others_see_the_real_model(ask: Any) -> None:
    noting = Around()
    agent = team(script=[LOOK], decide="per_step", inner=[noting]).agent
    await ask(agent)
    assert [(model.__class__, model.model_name) for model in noting.models] == [
        (StepChat, "weak"),
        (StepChat, "strong"),
    ]
    assert all(isinstance(model, StepChat) for model in noting.models)


async def test_what_others_change_reaches_the_model(ask: Any) -> None:
    change = Around(
        lambda request: request.override(system_message=SystemMessage("Be brief."), model_settings={"seed": 1})
    )
    agent, _, _, weak, _ = team(inner=[change])
    await ask(agent)
    assert weak.seen[0].kwargs["seed"] == 1
    assert [message.content for message in weak.seen[0].messages] == ["Be brief.", "easy"]


async def test_what_others_make_of_the_response_is_kept(ask: Any) -> None:
    short = Around(after=lambda response: AIMessage("short", response_metadata=response.result[0].response_metadata))
    state = await ask(team(inner=[short]).agent)
    assert [(message.content, models(state)) for message in answers(state)] == [("short", ["weak"])]
    assert sides(state) == [("weak", "score")]
    command = Command(update={"messages": [HumanMessage("noted")]})
    extended = Around(after=lambda response: ExtendedModelResponse(model_response=response, command=command))
    state = await ask(team(inner=[extended]).agent)
    assert [message.content for message in state["messages"]] == ["easy", "weak says hi", "noted"]
    assert sides(state) == [("weak", "score")]


@pytest.mark.parametrize(
    "wrap",
    [
        lambda response: response,
        lambda response: response.result[0],
        lambda response: ExtendedModelResponse(model_response=response, command=Command()),
    ],
)
async def test_a_response_of_any_form_gets_the_decision_as_a_copy(wrap: Any) -> None:
    middleware = team().middleware
    answer = AIMessage("hi", response_metadata={"model_name": "m"})
    asked = ToolMessage("no answer", tool_call_id="1")
    given = ModelResponse(result=[answer, asked], structured_response=7)

    def handler(request: Any) -> Any:
        request.model.bind().invoke(request.messages)
        return wrap(given)

    async def ahandler(request: Any) -> Any:
        await request.model.bind().ainvoke(request.messages)
        return wrap(given)

    request = ModelRequest(model=StepChat(model_name="base"), messages=[HumanMessage("easy")])
    for response in (
        middleware.wrap_model_call(request, handler),
        await middleware.awrap_model_call(request, ahandler),
    ):
        assert type(response) is type(wrap(given))
        inside = getattr(response, "model_response", response)
        noted = inside if isinstance(inside, AIMessage) else inside.result[0]
        assert noted.response_metadata["routing"]["route"] == "weak"
        assert noted.response_metadata["model_name"] == "m"
        if inside is not noted:
            assert (inside.result[1], inside.structured_response) == (asked, 7)
    assert answer.response_metadata == {"model_name": "m"}


async def test_an_answer_of_another_model_is_none_of_the_decision(ask: Any) -> None:
    third = StepChat(model_name="third")
    agent = team(weak={"failures": 9}, inner=[ModelFallbackMiddleware(third)]).agent
    (answer,) = answers(await ask(agent))
    assert answer.text == "third says hi"
    assert "routing" not in answer.response_metadata


async def test_a_model_that_is_handed_on_may_be_given_fallbacks(ask: Any) -> None:
    backup = StepChat(model_name="backup")
    around = Around(lambda request: request.override(model=request.model.with_fallbacks([backup])))
    state = await ask(team(script=[LOOK], weak={"failures": 9}, inner=[around]).agent)
    assert {message.text.split()[0] for message in answers(state) if message.text} == {"backup"}


async def test_a_retry_inside_is_one_decision_and_one_outside_decides_again(ask: Any) -> None:
    retry: Any = ModelRetryMiddleware(max_retries=1, initial_delay=0.0)
    for place, decisions in (("inner", 1), ("outer", 2)):
        rate = StrongCallRateHandler()
        agent, middleware, *_ = team(weak={"failures": 1}, **{place: [retry]})
        state = await ask(agent, "easy", {"callbacks": [rate]})
        assert models(state) == ["weak"]
        snapshot = rate.snapshot()
        assert (snapshot["total"], middleware.stats.total) == (decisions, decisions)
        assert (snapshot["calls"]["weak"]["calls"], snapshot["calls"]["weak"]["failed"]) == (2, 1)


async def test_what_others_ask_of_models_of_their_own_is_no_routed_call(ask: Any, recorder: Any) -> None:
    """A guard, a tool selector: what they use is neither side's."""
    rate = StrongCallRateHandler()
    guard = StepChat(model_name="guard")

    def guarded(request: Any) -> Any:
        guard.invoke("is this harmless?")
        return request

    agent = team(inner=[Around(guarded)]).agent
    await ask(agent, "easy", {"callbacks": [recorder, rate]})
    assert [("routing" in one, one["ls_model_name"]) for one in recorder.models] == [(False, "guard"), (True, "weak")]
    assert rate.snapshot()["calls"]["weak"]["calls"] == 1


async def test_a_tool_selector_inside_works(ask: Any) -> None:
    class Selecting(StepChat):
        def with_structured_output(self, schema: Any, **_: Any) -> Any:
            return RunnableLambda(lambda _: {"tools": ["look"]})

    selector = LLMToolSelectorMiddleware(model=Selecting(model_name="selector"))
    agent, _, _, weak, _ = team(inner=[selector])
    await ask(agent)
    assert [one["function"]["name"] for one in weak.seen[0].kwargs["tools"]] == ["look"]


def test_what_a_graph_gives_its_nodes_is_there_inside() -> None:
    def change(request: Any) -> Any:
        get_stream_writer()({"seen": request.model.model_name})
        return request

    agent = team(inner=[Around(change)]).agent
    assert list(agent.stream({"messages": "easy"}, stream_mode="custom")) == [{"seen": "weak"}]


async def test_a_routed_model_may_be_a_side(ask: Any, setup: Any, recorder: Any) -> None:
    rate = StrongCallRateHandler()
    routed = setup(decide="per_conversation").model
    middleware = RouterMiddleware(strong=routed, weak=StepChat(model_name="small"), router=FixedRouter(0.9))
    state = await ask(create_agent(routed, middleware=[middleware]), "easy", {"callbacks": [recorder, rate]})
    (routing,) = routings(state)
    assert (routing["route"], routing["inner"]["route"], models(state)) == ("strong", "weak", ["weak"])
    assert [one["routing"]["outer"]["route"] for one in recorder.models] == ["strong"]
    assert rate.snapshot()["by_route"] == {"strong": 1, "weak": 1}
    assert rate.snapshot()["calls"]["weak"]["calls"] == 1


async def test_an_agent_may_be_a_tool_of_another(ask: Any, recorder: Any) -> None:
    rate = StrongCallRateHandler()
    helper = team(agent={"name": "helper"}, router=FixedRouter(0.9)).agent

    def help_out(query: str) -> str:
        """Help."""
        return str(helper.invoke({"messages": query})["messages"][-1].text)

    async def ahelp_out(query: str) -> str:
        return str((await helper.ainvoke({"messages": query}))["messages"][-1].text)

    tools = [StructuredTool.from_function(help_out, ahelp_out)]
    agent = team(script=[("help_out", {"query": "x"})], agent={"tools": tools, "name": "boss"}).agent
    state = await ask(agent, "easy", {"callbacks": [recorder, rate]})
    assert [message.text for message in state["messages"]][2:] == ["strong says hi", "weak says hi"]
    assert [one["routing"]["route"] for one in recorder.models] == ["weak", "strong", "weak"]
    assert not any("outer" in one["routing"] for one in recorder.models)
    names = rate.snapshot()["by_run_name"]
    assert {name: names[name]["total"] for name in ("boss", "help_out", "helper")} == {
        "boss": 3,
        "help_out": 1,
        "helper": 1,
    }


@pytest.mark.parametrize("fallback", [False, True])
async def test_what_a_model_has_of_its_own_is_kept_and_not_changed(ask: Any, recorder: Any, fallback: bool) -> None:
    own: dict[str, Any] = {"metadata": {"own": 1}, "tags": ["own"], "callbacks": [recorder]}
    agent, _, strong, weak, _ = team(weak=own, strong={**own, "failures": 1}, fallback_to_other=fallback)
    before = [(model.metadata, model.callbacks) for model in (strong, weak)]
    await ask(agent)
    with contextlib.nullcontext() if fallback else pytest.raises(ConnectionError):
        await ask(agent, "hard")
    assert [metadata["own"] for metadata in recorder.models] == [1] * (3 if fallback else 2)
    assert all("own" in tags for tags in recorder.tags)
    assert [(model.metadata, model.callbacks) for model in (strong, weak)] == before


@pytest.mark.parametrize(
    "change",
    [
        lambda model: model.model_copy(update={"temperature": 0.5}),
        copy.copy,
        lambda model: setattr(model, "temperature", 0.5) or model,
    ],
    ids=["model_copy", "copy", "set"],
)
async def test_others_may_change_the_model_they_are_given(ask: Any, recorder: Any, change: Any) -> None:
    inner = Around(lambda request: request.override(model=change(request.model)))
    state = await ask(team(inner=[inner]).agent, "easy", {"callbacks": [recorder]})
    assert models(state) == ["weak"]
    assert [metadata["routing"] for metadata in recorder.models] == routings(state)


async def test_others_may_call_the_model_they_are_given(ask: Any, recorder: Any) -> None:
    """To select tools with it, or to judge: those are runs too, of the model that they say."""

    def judged(request: Any) -> Any:
        request.model.invoke("is this harmless?")
        request.model.bind(seed=1).invoke("is this harmless?")
        request.model.with_structured_output(Answer).invoke("is this harmless?")
        (request.model | str).invoke("is this harmless?")
        request.model.with_retry().invoke("is this harmless?")
        return request

    agent, _, _, weak, _ = team(inner=[Around(judged)])
    assert models(await ask(agent, "easy", {"callbacks": [recorder]})) == ["weak"]
    assert [metadata["ls_model_name"] for metadata in recorder.models] == ["weak"] * 6
    assert len(weak.seen) == 6


class Opening(StepChat):
    """Opens its client when it is first asked, and keeps it in one of the ways that models of providers do."""

    way: str
    kept: Any = None
    _opened: list[Any] = PrivateAttr(default_factory=list)
    _kept: Any = PrivateAttr(default=None)

    @cached_property
    def _cached(self) -> Any:
        return self._open()

    def _open(self) -> Any:
        self._opened.append(object())
        return self._opened[-1]

    def _chunks(self, messages: list[Any], kwargs: dict[str, Any], **rest: Any) -> list[Any]:
        if self.way == "cached property":
            assert self._cached
        elif self.way == "field":
            self.kept = self.kept or self._open()
        else:
            self._kept = self._kept or self._open()
        return super()._chunks(messages, kwargs, **rest)


@pytest.mark.parametrize("way", ["cached property", "field", "private attribute"])
async def test_a_model_opens_its_client_once(ask: Any, way: str) -> None:
    weak = Opening(model_name="weak", script=(LOOK,), way=way)
    middleware = RouterMiddleware(strong=StepChat(model_name="strong"), weak=weak, router=FixedRouter(0.1))
    agent = create_agent(weak, [look], middleware=[middleware])
    await ask(agent)
    await ask(agent)
    assert (len(weak.seen), len(weak._opened)) == (4, 1)


async def test_langchains_own_fakes_go_on_through_their_answers(ask: Any) -> None:
    """They count in a field of their own; agents are tested with them."""
    weak = FakeListChatModel(responses=["one", "two", "three"])
    middleware = RouterMiddleware(strong=StepChat(model_name="strong"), weak=weak, router=FixedRouter(0.1))
    agent = create_agent(weak, middleware=[middleware])
    assert [(await ask(agent))["messages"][-1].content for _ in range(3)] == ["one", "two", "three"]


class Serializable(StepChat):
    @classmethod
    def is_lc_serializable(cls) -> bool:
        return True


@pytest.mark.parametrize("kind", [StepChat, Serializable])
async def test_a_models_own_cache_answers_the_same_question_whatever_the_decision(ask: Any, kind: Any) -> None:
    weak = kind(model_name="weak", cache=InMemoryCache())
    middleware = RouterMiddleware(strong=StepChat(model_name="strong"), weak=weak, router=FixedRouter(0.1))
    agent = create_agent(weak, middleware=[middleware])
    for threshold in (0.5, 0.6):
        state = await ask(agent, [HumanMessage("easy", id="1")], {"configurable": {"router_threshold": threshold}})
        assert [routing["threshold"] for routing in routings(state)] == [threshold]
    assert len(weak.seen) == 1


# --- structured output ---


class Answer(BaseModel):
    """The answer."""

    word: str


STRUCTURED = {"profile": {"structured_output": True, "tool_calling": True}}
BY_TOOLS = {"profile": {"structured_output": False, "tool_calling": True}}


@pytest.mark.parametrize("tools", [[look], []])
async def test_structured_output_goes_the_real_models_way(ask: Any, tools: Any) -> None:
    agent, _, strong, weak, _ = team(
        strong=STRUCTURED, weak=BY_TOOLS, agent={"response_format": Answer, "tools": tools}
    )
    hard, easy = await ask(agent, "hard"), await ask(agent, "easy")
    assert (hard["structured_response"], easy["structured_response"]) == (Answer(word="strong"), Answer(word="weak"))
    assert "response_format" in strong.seen[0].kwargs
    assert "tool_choice" not in strong.seen[0].kwargs
    assert "response_format" not in weak.seen[0].kwargs
    assert weak.seen[0].kwargs["tool_choice"] == "any"
    assert sides(hard) + sides(easy) == [("strong", "score"), ("weak", "score")]


async def test_structured_output_needs_a_model_that_can_give_it(ask: Any) -> None:
    """A weak model with neither way cannot answer in a schema."""
    nothing = {"profile": {"structured_output": False, "tool_calling": False}}
    state = await ask(team(strong=STRUCTURED, weak=nothing, agent={"response_format": Answer, "tools": []}).agent)
    assert sides(state) == [("strong", "capability")]


# --- from one provider to another ---


SIGNED = {"type": "thinking", "thinking": "hm", "signature": "abc"}
CACHED = {"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}


async def test_a_model_is_given_no_history_that_only_the_others_provider_reads(ask: Any) -> None:
    agent, _, strong, weak, _ = team(
        strong={"provider": "anthropic"},
        weak={"provider": "openai"},
        agent={"system_prompt": SystemMessage([CACHED])},
    )
    told = AIMessage([SIGNED, {"type": "text", "text": "4"}], response_metadata={"model_provider": "anthropic"})
    history = [HumanMessage("hard"), told, HumanMessage([{**CACHED, "text": "easy"}])]
    state = await ask(agent, history)
    assert answers(state)[-1].text == "weak says hi"
    system, first, second, third = weak.seen[0].messages
    assert system.content == [{"type": "text", "text": "Be brief."}]
    assert (first.content, second.content) == ("hard", "4")
    assert third.content == [{"type": "text", "text": "easy"}]
    assert state["messages"][1].content == told.content  # the user's own history is as it was
    assert state["messages"][2].content == history[2].content
    await ask(agent, [*history[:2], HumanMessage("hard")])
    assert [message.content for message in strong.seen[0].messages] == [[CACHED], "hard", told.content, "hard"]


async def test_an_agents_own_steps_are_made_readable_too(ask: Any) -> None:
    thought = Around(after=_with_thinking)
    agent, _, strong, _, _ = team(
        script=[LOOK],
        decide="per_step",
        inner=[thought],
        strong={"provider": "openai"},
        weak={"provider": "anthropic"},
    )
    state = await ask(agent)
    assert models(state) == ["weak", "strong"]
    call = strong.seen[0].messages[1]
    assert (call.content, [one["name"] for one in call.tool_calls]) == ("", ["look"])
    assert answers(state)[0].content == [SIGNED]


def _with_thinking(response: Any) -> Any:
    message = response.result[0]
    return AIMessage([SIGNED], tool_calls=message.tool_calls, response_metadata=message.response_metadata)


# --- what the models can take ---


@pytest.mark.parametrize(
    ("lacking", "text", "detail"),
    [
        ({"tool_calling": False}, "easy", "tool_calling"),
        ({"max_input_tokens": 40}, "easy " * 40, "window"),
        ({"image_inputs": False}, [{"type": "text", "text": "easy"}, {"type": "image", "url": "x"}], "image_inputs"),
    ],
)
async def test_what_the_weak_model_cannot_take_goes_to_the_strong_one(
    ask: Any, lacking: Any, text: Any, detail: str
) -> None:
    agent, middleware, *_, router = team(weak={"profile": lacking}, router=FixedRouter(0.1))
    state = await ask(agent, [HumanMessage(text)])
    (routing,) = routings(state)
    assert (models(state), routing["reason"], routing["detail"]) == (["strong"], "capability", detail)
    assert router.prompts == []
    assert middleware.stats.snapshot()["by_reason"] == {"capability": 1}
    forced = await ask(agent, [HumanMessage(text)], {"configurable": {"router_route": "weak"}})
    assert sides(forced) == [("weak", "forced")]


async def test_an_agent_without_tools_needs_none(ask: Any) -> None:
    lacking = {"profile": {"tool_calling": False}}
    assert sides(await ask(team(weak=lacking, agent={"tools": []}).agent)) == [("weak", "score")]
    assert sides(await ask(team(weak=lacking, strong=lacking).agent)) == [("weak", "score")]


async def test_the_system_message_takes_room_in_the_window(ask: Any) -> None:
    agent = team(weak={"profile": {"max_input_tokens": 40}}, agent={"system_prompt": "Be brief. " * 40}).agent
    assert sides(await ask(agent)) == [("strong", "capability")]


# --- the other model ---


async def test_the_other_model_answers_where_one_fails(ask: Any, recorder: Any) -> None:
    rate = StrongCallRateHandler()
    agent, middleware, strong, weak, _ = team(
        fallback_to_other=True,
        script=[LOOK],
        strong={"provider": "openai"},
        weak={"provider": "anthropic", "failures": 1},
        agent={"system_prompt": SystemMessage([CACHED])},
    )
    state = await ask(agent, "easy", {"callbacks": [recorder, rate]})
    assert models(state) == ["strong", "weak"]  # the next step is as decided again
    first, second = routings(state)
    assert (first["route"], first["answered_by"]) == ("weak", "strong")
    assert first["fallback"] == {"from": "weak", "error": "ConnectionError"}
    assert "fallback" not in second
    assert [one["ls_model_name"] for one in recorder.models] == ["weak", "strong", "weak"]
    assert len(set(recorder.ids)) == 3
    assert ["fallback" in one["routing"] for one in recorder.models] == [False, True, False]
    assert [str(error) for error in recorder.errors] == ["weak is down"]
    assert weak.seen[0].messages[0].content == [CACHED]
    assert strong.seen[0].messages[0].content == [{"type": "text", "text": "Be brief."}]
    assert middleware.stats.total == rate.snapshot()["total"] == 2
    calls = rate.snapshot()["calls"]
    assert [(calls[side]["calls"], calls[side]["failed"]) for side in ("strong", "weak")] == [(1, 0), (2, 1)]


async def test_the_other_model_gets_the_request_as_it_was_made(ask: Any) -> None:
    agent, _, strong, weak, _ = team(
        fallback_to_other=True,
        strong={"provider": "openai", "failures": 1},
        weak={"provider": "anthropic"},
        agent={"system_prompt": SystemMessage([CACHED])},
    )
    assert models(await ask(agent, "hard")) == ["weak"]
    assert strong.seen[0].messages[0].content == [{"type": "text", "text": "Be brief."}]
    assert weak.seen[0].messages[0].content == [CACHED]


async def test_where_both_fail_the_first_error_is_told(ask: Any) -> None:
    agent, _, strong, weak, _ = team(fallback_to_other=True, strong={"failures": 9}, weak={"failures": 9})
    with pytest.raises(ConnectionError, match="weak is down"):
        await ask(agent)
    assert (len(strong.seen), len(weak.seen)) == (1, 1)


async def test_by_default_an_error_passes_through(ask: Any) -> None:
    agent, middleware, strong, _, _ = team(weak={"failures": 9})
    with pytest.raises(ConnectionError, match="weak is down"):
        await ask(agent)
    assert strong.seen == []
    assert middleware.stats.total == 1


async def streamed(agent: Any, api: str, parts: list[Any]) -> None:
    given: Any = {"messages": "easy"}
    if api == "stream":
        parts.extend(agent.stream(given, stream_mode="messages"))
    else:
        async for part in agent.astream(given, stream_mode="messages"):
            parts.append(part)  # noqa: PERF401 - what came before an error counts


@pytest.mark.parametrize("api", ["stream", "astream"])
async def test_the_other_model_answers_before_the_first_token_only(api: str) -> None:
    agent = team(fallback_to_other=True, weak={"failures": 1}).agent
    parts: list[Any] = []
    await streamed(agent, api, parts)
    assert "".join(chunk.text for chunk, _ in parts) == "strong says hi"
    assert {metadata["routing"]["fallback"]["from"] for _, metadata in parts} == {"weak"}
    broken_off, _, strong, _, _ = team(fallback_to_other=True, weak={"breaks": True})
    seen: list[Any] = []
    with pytest.raises(ConnectionError, match="weak is gone"):
        await streamed(broken_off, api, seen)
    assert [chunk.text for chunk, _ in seen] == ["weak"]
    assert strong.seen == []


@pytest.mark.parametrize("api", ["stream", "astream"])
async def test_tokens_of_anothers_model_are_not_this_ones_first(api: str) -> None:
    guard = StepChat(model_name="guard")
    agent = team(
        fallback_to_other=True, weak={"failures": 1}, inner=[Around(lambda r: guard.invoke("ok?") and r)]
    ).agent
    parts: list[Any] = []
    await streamed(agent, api, parts)
    assert "".join(chunk.text for chunk, _ in parts).endswith("strong says hi")


def asking(model_name: str) -> Around:
    """A person is asked before one of the models is."""

    def change(request: Any) -> Any:
        if request.model.model_name == model_name:
            interrupt("may I?")
        return request

    return Around(change)


async def test_an_interrupt_is_no_failure(ask: Any) -> None:
    saved = {"checkpointer": InMemorySaver()}
    agent, _, strong, weak, _ = team(fallback_to_other=True, inner=[asking("weak")], agent=saved)
    config = {"configurable": {"thread_id": "1"}}
    state = await ask(agent, "easy", config)
    assert [one.value for one in state["__interrupt__"]] == ["may I?"]
    assert (strong.seen, weak.seen) == ([], [])
    assert models(await ask(agent, Command(resume="yes"), config)) == ["weak"]


async def test_an_interrupt_of_the_other_models_call_is_none_either(ask: Any) -> None:
    saved = {"checkpointer": InMemorySaver()}
    agent = team(fallback_to_other=True, weak={"failures": 9}, inner=[asking("strong")], agent=saved).agent
    config = {"configurable": {"thread_id": "1"}}
    state = await ask(agent, "easy", config)
    assert [one.value for one in state["__interrupt__"]] == ["may I?"]
    assert models(await ask(agent, Command(resume="yes"), config)) == ["strong"]


@pytest.mark.parametrize(
    ("settings", "config"),
    [
        ({"weak": {"failures": 1}}, {"configurable": {"router_route": "weak"}}),
        ({"strong": {"failures": 1}, "weak": {"profile": {"tool_calling": False}}}, {}),
    ],
    ids=["named by the run", "cannot take the call"],
)
async def test_not_every_call_is_one_for_the_other_model(ask: Any, settings: Any, config: Any) -> None:
    agent, middleware, strong, weak, _ = team(fallback_to_other=True, **settings)
    with pytest.raises(ConnectionError, match="is down"):
        await ask(agent, "easy", config)
    assert len(strong.seen) + len(weak.seen) == middleware.stats.total == 1


# --- watching, counting ---


async def test_in_shadow_one_model_answers_whatever_is_decided(ask: Any) -> None:
    rate = StrongCallRateHandler()
    agent, middleware, strong, weak, _ = team(shadow="weak")
    config = {"callbacks": [rate]}
    (hard,), (easy,) = routings(await ask(agent, "hard", config)), routings(await ask(agent, "easy", config))
    assert (hard["route"], hard["answered_by"]) == ("strong", "weak")
    assert easy["route"] == "weak"
    assert "answered_by" not in easy
    assert (strong.seen, len(weak.seen)) == ([], 2)
    assert middleware.stats.strong_rate == rate.strong_rate == 0.5
    assert [rate.snapshot()["calls"][side]["calls"] for side in ("strong", "weak")] == [0, 2]


async def test_decisions_are_counted_and_told_once(ask: Any) -> None:
    told: list[RoutingDecision] = []
    stats = RoutingStats()
    agent, middleware, *_ = team(script=[LOOK], decide="per_step", stats=stats, on_route=told.append)
    state = await ask(agent)
    assert middleware.stats is stats
    assert [decision.as_dict() for decision in told] == routings(state)
    assert stats.snapshot()["by_route"] == {"strong": 1, "weak": 1}
    assert stats.snapshot()["latency_ms"]["p50"] is not None


async def test_a_hook_that_fails_disturbs_nobody(ask: Any) -> None:
    assert models(await ask(team(on_route=lambda _: 1 / 0).agent)) == ["weak"]


async def test_names_and_tags_around_an_agents_decision(ask: Any) -> None:
    rate = StrongCallRateHandler()
    agent = team(script=[LOOK], agent={"name": "helper"}).agent
    await ask(agent, "easy", {"callbacks": [rate], "tags": ["mine"]})
    assert rate.snapshot()["by_tag"] == {"mine": {"total": 2, "strong_rate": 0.0}}
    assert rate.snapshot()["by_run_name"] == {
        name: {"total": 2, "strong_rate": 0.0} for name in ("StepChat", "model", "helper")
    }


# --- many at once ---


def surroundings() -> Any:
    return var_child_runnable_config.get()


async def test_nothing_is_left_in_the_surroundings() -> None:
    middleware = team(fallback_to_other=True).middleware
    request = ModelRequest(model=StepChat(model_name="base"), messages=[HumanMessage("easy")])
    asked: list[str] = []

    def fails(given: Any) -> Any:
        asked.append(given.model.model_name)
        raise ConnectionError

    async def afails(given: Any) -> Any:
        fails(given)

    async def waits(given: Any) -> Any:
        asked.append(given.model.model_name)
        await asyncio.Event().wait()

    before = surroundings()
    with pytest.raises(ConnectionError):
        middleware.wrap_model_call(request, fails)
    assert surroundings() is before
    with pytest.raises(ConnectionError):
        await middleware.awrap_model_call(request, afails)
    assert surroundings() is before
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await middleware.awrap_model_call(request, waits)
    assert surroundings() is before
    assert asked == ["weak", "strong", "weak", "strong", "weak"]


async def test_many_runs_at_once_add_up(recorder: Any) -> None:
    """One middleware and one handler, 32 tasks and 8 threads; every third question is refused by its model."""
    rate = StrongCallRateHandler()
    agent, middleware, strong, weak, _ = team(
        script=[LOOK], decide="per_step", strong={"refuses": "no"}, weak={"refuses": "no"}
    )
    expected = {"easy": ["weak", "strong"], "hard": ["strong", "strong"], "no": []}
    texts = ["easy", "hard", "no"] * 32
    config: Any = {"callbacks": [rate, recorder]}
    before = surroundings()

    async def task(number: int) -> None:
        for text in texts[number : number + 3]:
            with contextlib.suppress(ConnectionError):
                state = await agent.ainvoke({"messages": text}, config)
                assert [routing["route"] for routing in routings(state)] == models(state) == expected[text]
            assert surroundings() is before

    def thread(number: int) -> None:
        for text in texts[number : number + 6]:
            with contextlib.suppress(ConnectionError):
                state = agent.invoke({"messages": text}, config)
                assert [routing["route"] for routing in routings(state)] == models(state) == expected[text]
            assert surroundings() is None

    threads = [asyncio.to_thread(_in_new_context, thread, number) for number in range(8)]
    await asyncio.gather(*map(task, range(32)), *threads)
    runs = 32 + 8 * 2  # of each question
    by_route = {"strong": runs * 4, "weak": runs}
    assert middleware.stats.snapshot()["by_route"] == rate.snapshot()["by_route"] == by_route
    calls = rate.snapshot()["calls"]
    assert (calls["strong"]["calls"], calls["strong"]["failed"]) == (runs * 4, runs)
    assert (calls["weak"]["calls"], calls["weak"]["failed"]) == (runs, 0)
    assert calls["strong"]["input_tokens"] == 16 * runs * 3
    assert calls["weak"]["output_tokens"] == 8 * runs
    assert len(strong.seen) + len(weak.seen) == runs * 5
    answered = {(metadata["ls_model_name"], metadata["routing"]["route"]) for metadata in recorder.models}
    assert answered == {("strong", "strong"), ("weak", "weak")}  # no run shows another's decision
    assert len({metadata["routing"]["id"] for metadata in recorder.models}) == runs * 5
    assert rate._runs == {}


def _in_new_context(function: Any, number: int) -> None:
    """A thread of one's own starts without the surroundings of the test."""
    made = threading.Thread(target=function, args=(number,))
    made.start()
    made.join()
