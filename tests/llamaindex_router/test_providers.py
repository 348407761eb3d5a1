"""Pairs of real clients with providers on the loopback interface: switching, leaving early, leaking nothing."""

from __future__ import annotations

import asyncio
import copy
import gc
import inspect
import json
import logging
import pickle
import typing
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from contextvars import Context
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anthropic
import llama_index.llms.anthropic.utils as anthropic_messages
import openai
import pytest
from llama_index.core import SummaryIndex
from llama_index.core.agent.workflow import AgentWorkflow, FunctionAgent, ReActAgent
from llama_index.core.base.llms.types import CacheControl, CachePoint, CitationBlock, ThinkingBlock
from llama_index.core.callbacks import CallbackManager
from llama_index.core.chat_engine import SimpleChatEngine
from llama_index.core.llms import LLM, ChatMessage, ChatResponse, CompletionResponse, MessageRole, TextBlock
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.prompts import ChatPromptTemplate, PromptTemplate
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.response_synthesizers import ResponseMode, get_response_synthesizer
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.core.tools import FunctionTool
from llama_index.llms.anthropic import Anthropic
from llama_index.llms.openai import OpenAI
from llama_index_instrumentation import get_dispatcher
from loopback import AnthropicServer, Fault, OpenAIServer, only_loopback, until
from openai.types.chat import ChatCompletionMessageFunctionToolCall
from pydantic import BaseModel

from llamaindex_router import RoutedLLM, StrongCallRateEventHandler, StrongCallRateHandler, routing_options
from prefroute import ConfigurationError, PersistenceError
from prefroute.costs import Price
from prefroute.testing import FixedRouter

if TYPE_CHECKING:
    from collections.abc import Callable

    from conftest import EventLog
    from loopback import Body, ProviderServer

KEY = "sk-never-to-be-seen"
THINKING = {"type": "enabled", "budget_tokens": 1024}
GPT, MINI, OPUS, HAIKU = "gpt-4o", "gpt-4o-mini", "claude-opus-5-5", "claude-haiku-5-5"
THINKER = "claude-opus-5-5 thinking"
PRICES = {
    GPT: Price(input=2.5, output=10.0),
    MINI: Price(input=0.15, output=0.6),
    OPUS: Price(input=5.0, output=25.0),
    HAIKU: Price(input=1.0, output=5.0),
}
PAIRS = {"openai": (GPT, MINI), "openai+anthropic": (GPT, HAIKU), "anthropic+openai": (OPUS, MINI)}
MIXED = [name for name in PAIRS if "+" in name]
HARD, EASY = "What is the weather in Rome?", "What is the weather in Oslo?"
PROMPT = PromptTemplate("{query_str}")


def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"{city}: hard to say"


TOOLS = [FunctionTool.from_defaults(get_weather)]


class Joke(BaseModel):
    """A joke."""

    setup: str
    punchline: str


@dataclass
class World:
    """Both providers and their clients, which are made once: that takes them a tenth of a second each."""

    openai: OpenAIServer
    anthropic: AnthropicServer
    llms: dict[str, LLM] = field(default_factory=dict)
    seen: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in (GPT, MINI):
            self.llms[name] = self.gpt(name)
        for name in (OPUS, HAIKU):
            self.llms[name] = self.claude(name)
        self.llms[THINKER] = self.claude(OPUS, thinking_dict=THINKING)

    def gpt(self, name: str, **settings: Any) -> OpenAI:
        # Tokens of a stream are told only on request.
        extra = {"stream_options": {"include_usage": True}}
        return OpenAI(
            model=name,
            api_base=self.openai.base_url,
            api_key=KEY,
            max_retries=0,
            additional_kwargs=extra,
            **settings,
        )

    def claude(self, name: str, **settings: Any) -> Anthropic:
        return Anthropic(
            model=name, base_url=self.anthropic.base_url, api_key=KEY, max_retries=0, max_tokens=2048, **settings
        )

    @property
    def servers(self) -> dict[str, ProviderServer]:
        return {"openai": self.openai, "anthropic": self.anthropic}

    def server_of(self, name: str) -> ProviderServer:
        return self.anthropic if name.startswith("claude") else self.openai

    def begin(self) -> None:
        self.openai.faults = self.anthropic.faults = None
        self.openai.snapshots = {}
        self.seen = {name: len(server.requests) for name, server in self.servers.items()}

    def requests(self, provider: str | None = None) -> list[Body]:
        """What reached the providers since the test began."""
        chosen = {name: server for name, server in self.servers.items() if provider in {None, name}}
        return [body for name, server in chosen.items() for body in server.requests[self.seen[name] :]]


@pytest.fixture(scope="module")
def _providers() -> Iterator[World]:
    with OpenAIServer() as openai_server, AnthropicServer() as anthropic_server:
        yield World(openai_server, anthropic_server)


@pytest.fixture
def world(_providers: World) -> World:
    _providers.begin()
    return _providers


@pytest.fixture(autouse=True)
def _no_network() -> Iterator[None]:
    with only_loopback():
        yield


@pytest.fixture(autouse=True)
def _repaired(monkeypatch: pytest.MonkeyPatch) -> None:
    """The framework's client calls what is a TypedDict in older releases of `anthropic`, and a union in newer ones."""
    for name in ("MessageParam", "BetaMessageParam"):
        if typing.get_origin(getattr(anthropic_messages, name)) is typing.Union:
            monkeypatch.setattr(anthropic_messages, name, dict)


@dataclass(frozen=True)
class Watched:
    """A routed pair with both handlers."""

    llm: RoutedLLM
    events: StrongCallRateEventHandler
    callbacks: StrongCallRateHandler

    @property
    def handlers(self) -> tuple[StrongCallRateEventHandler, StrongCallRateHandler]:
        return self.events, self.callbacks


@pytest.fixture
def watch(world: World) -> Iterator[Callable[..., Watched]]:
    root = get_dispatcher()
    before = list(root.event_handlers)

    def make(pair: tuple[str, str], **settings: Any) -> Watched:
        events, callbacks = StrongCallRateEventHandler(prices=PRICES), StrongCallRateHandler(prices=PRICES)
        root.event_handlers.append(events)
        given = {"router": FixedRouter(0.1, {HARD: 0.9}), "callback_manager": CallbackManager([callbacks]), **settings}
        strong, weak = (world.llms[name] for name in pair)
        return Watched(RoutedLLM(strong=strong, weak=weak, **given), events, callbacks)

    yield make
    root.event_handlers[:] = before


# Of Anthropic's client, and of the framework's wrapper for structured answers.
of_the_clients = pytest.mark.filterwarnings(
    "ignore:The 'output_format' parameter is deprecated:DeprecationWarning",
    "ignore:The `json` method is deprecated:DeprecationWarning",
)

# Every endpoint

CHATS = ("chat", "achat", "stream_chat", "astream_chat")
COMPLETIONS = ("complete", "acomplete", "stream_complete", "astream_complete")
WITH_TOOLS = tuple(f"{name}_with_tools" for name in CHATS)
AGENTS = ("predict_and_call", "apredict_and_call")
TEMPLATES = ("predict", "apredict", "stream", "astream")
STRUCTURED = tuple(f"{name}structured_predict" for name in ("", "a", "stream_", "astream_"))
# The framework's own wrapper; it has no streams of completions.
STRUCTURED_LLM = tuple(f"as_structured_llm.{name}" for name in (*CHATS, "complete", "acomplete"))
ENDPOINTS = (*CHATS, *COMPLETIONS, *WITH_TOOLS, *AGENTS, *TEMPLATES, *STRUCTURED, *STRUCTURED_LLM)
TAKE_NO_OPTIONS = {*TEMPLATES, *STRUCTURED_LLM}


def call(llm: Any, endpoint: str, text: str, **own: Any) -> Any:
    """Call a method of the framework's interface; `own` is for routing."""
    holder, _, method = endpoint.rpartition(".")
    function = getattr(llm.as_structured_llm(Joke) if holder else llm, method)
    if endpoint in STRUCTURED:
        return function(Joke, PROMPT, llm_kwargs=own, query_str=text)
    if endpoint in TEMPLATES:
        return function(PROMPT, query_str=text)
    if endpoint in (*WITH_TOOLS, *AGENTS):
        return function(TOOLS, text, **own)
    return function(text if "complete" in method else [ChatMessage(text)], **own)


async def outcome(made: Any) -> Any:
    """What a call comes to: of a stream all tokens, or the last piece, which holds the others."""
    if inspect.isawaitable(made):
        made = await made
    if isinstance(made, AsyncIterator):
        pieces = [piece async for piece in made]
    elif isinstance(made, Iterator):
        pieces = list(made)
    else:
        return made
    return "".join(pieces) if isinstance(pieces[0], str) else pieces[-1]


def check_answer(llm: Any, endpoint: str, made: Any, name: str, text: str) -> None:
    """The answer is what this model makes of this text."""
    city = text.removesuffix("?").rpartition(" ")[2]
    if endpoint in WITH_TOOLS:
        # The second is what agents make of it, who keep the message alone.
        for response in (made, ChatResponse(message=made.message)):
            (selection,) = llm.get_tool_calls_from_response(response)
            assert (selection.tool_name, selection.tool_kwargs) == ("get_weather", {"city": city})
    elif endpoint in AGENTS:
        assert made.response == f"{city}: hard to say"
    elif endpoint in (*STRUCTURED, *STRUCTURED_LLM):
        joke = made if endpoint in STRUCTURED else made.raw
        assert (joke.setup, joke.punchline) == (city, text)
    else:
        said = made if isinstance(made, str) else getattr(made, "text", None) or made.message.content
        assert said == f"{name} says: {text}"


@of_the_clients
@pytest.mark.parametrize("route", ["strong", "weak"])
@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("endpoint", ENDPOINTS)
async def test_every_endpoint(
    world: World, watch: Callable[..., Watched], events: EventLog, endpoint: str, pair: str, route: str
) -> None:
    name = dict(zip(("strong", "weak"), PAIRS[pair], strict=True))[route]
    text = HARD if route == "strong" else EASY
    watched = watch(PAIRS[pair])
    made = await outcome(call(watched.llm, endpoint, text))
    check_answer(watched.llm, endpoint, made, name, text)

    (body,) = world.requests()
    assert body["model"] == name
    (event,) = events.named("RoutingDecisionEvent")
    assert (event.decision.route, event.decision.reason, event.model_name) == (route, "score", name)
    if isinstance(made, ChatResponse | CompletionResponse) and endpoint not in STRUCTURED_LLM:
        assert made.additional_kwargs["routing"] == event.decision.as_dict()
        assert "routing" not in str(getattr(made, "message", ""))
    assert "routing" not in json.dumps(body)
    assert event.decision.id not in json.dumps(body)
    assert watched.llm.stats.snapshot()["by_route"] == {"strong": int(route == "strong"), "weak": int(route == "weak")}

    if name in {HAIKU, OPUS} and endpoint in (*STRUCTURED, *STRUCTURED_LLM):
        return  # Anthropic's client tells the framework of no call where the API itself makes the answer an object.
    for handler in watched.handlers:
        usage = handler.snapshot()["calls"]
        given, made_tokens = world.server_of(name).tokens(body)
        figures = {"calls": 1, "failed": 0, "input_tokens": given, "output_tokens": made_tokens, "unpriced": 0}
        assert usage[route] == {**figures, "cost": pytest.approx(PRICES[name].of(given, made_tokens))}
        assert usage["by_model"] == {name: usage[route]}
        assert usage["weak" if route == "strong" else "strong"]["calls"] == 0


OPTIONS = [
    ({"threshold": 0.4}, "strong"),
    ({"threshold": 0.6}, "weak"),
    ({"strong_rate": 0.9}, "strong"),
    ({"strong_rate": 0.1}, "weak"),
    ({"route": "strong"}, "strong"),
    ({"route": "weak"}, "weak"),
    ({"route": "weak", "threshold": 0.0}, "weak"),
]


@of_the_clients
@pytest.mark.parametrize("endpoint", ENDPOINTS)
async def test_options_of_a_call_work_and_reach_no_provider(
    world: World, watch: Callable[..., Watched], endpoint: str
) -> None:
    """The servers refuse whatever their API does not know."""
    scores = {f"prompt {n}": n / 50 for n in range(50)}
    router = FixedRouter(0.5, scores)
    router.calibrate(list(scores), 0.5)
    seen: list[str] = []
    watched = watch(
        PAIRS["openai+anthropic"],
        router=router,
        fallback_to_other=True,
        on_route=lambda decision: seen.append(decision.route),
        text_fn=lambda messages: messages[-1].content,
    )
    expected = []
    for own, route in OPTIONS:
        with routing_options(**own):
            await outcome(call(watched.llm, endpoint, HARD))
        expected.append(route)
        if endpoint not in TAKE_NO_OPTIONS:
            opposite = {"route": "strong" if route == "weak" else "weak"} if "route" in own else {"threshold": 2.0}
            with routing_options(**opposite):
                await outcome(call(watched.llm, endpoint, HARD, **own))
            expected.append(route)
    assert seen == expected
    asked = [body["model"] for provider in ("openai", "anthropic") for body in world.requests(provider)]
    assert asked == sorted((GPT if route == "strong" else HAIKU for route in expected), reverse=True)


# Figures


async def test_a_model_is_priced_by_the_name_it_was_asked_for_where_it_answers_by_another(
    world: World, watch: Callable[..., Watched]
) -> None:
    world.openai.snapshots = {GPT: "gpt-4o-2024-08-06", MINI: "gpt-4o-mini-2024-07-18"}
    watched = watch(PAIRS["openai"])
    for endpoint in ("chat", "astream_chat", "acomplete", "stream_complete", "predict"):
        await outcome(call(watched.llm, endpoint, HARD))
        await outcome(call(watched.llm, endpoint, EASY))
    given = [world.openai.tokens(body) for body in world.requests() if body["model"] == GPT]
    cost = PRICES[GPT].of(sum(one for one, _ in given), sum(one for _, one in given))
    for handler in watched.handlers:
        usage = handler.snapshot()["calls"]
        assert (usage["strong"]["calls"], usage["strong"]["unpriced"]) == (5, 0)
        assert usage["strong"]["cost"] == pytest.approx(cost)
        assert usage["by_model"] == {
            "gpt-4o-2024-08-06": usage["strong"],
            "gpt-4o-mini-2024-07-18": usage["weak"],
        }


@pytest.mark.parametrize("pair", MIXED)
async def test_an_error_of_a_provider_comes_as_it_is_and_counts(
    world: World, watch: Callable[..., Watched], pair: str
) -> None:
    world.openai.faults = world.anthropic.faults = lambda body: Fault(status=429)
    watched = watch(PAIRS[pair])
    for text, name in ((HARD, PAIRS[pair][0]), (EASY, PAIRS[pair][1])):
        error = openai.RateLimitError if name in {GPT, MINI} else anthropic.RateLimitError
        for endpoint in ("chat", "acomplete", "stream_chat", "astream_chat_with_tools", "predict_and_call"):
            with pytest.raises(error) as caught:
                await outcome(call(watched.llm, endpoint, text))
            assert KEY not in str(caught.value)
            assert caught.value.__cause__ is None
    for handler in watched.handlers:
        for side in ("strong", "weak"):
            usage = handler.snapshot()["calls"][side]
            assert (usage["calls"], usage["failed"], usage["cost"]) == (5, 5, None)


@pytest.mark.parametrize("endpoint", ["chat", "acomplete", "stream_complete", "astream_chat_with_tools", "apredict"])
async def test_the_other_provider_answers_for_one_that_is_down(
    world: World, watch: Callable[..., Watched], endpoint: str
) -> None:
    world.openai.faults = lambda body: Fault(status=500)
    watched = watch(PAIRS["anthropic+openai"], fallback_to_other=True)
    made = await outcome(call(watched.llm, endpoint, EASY))
    check_answer(watched.llm, endpoint, made, OPUS, EASY)
    if not isinstance(made, str):
        routing = made.additional_kwargs["routing"]
        assert (routing["route"], routing["answered_by"]) == ("weak", "strong")
        assert routing["fallback"] == {"from": "weak", "error": "InternalServerError"}
    for handler in watched.handlers:
        usage = handler.snapshot()["calls"]
        assert [(usage[side]["calls"], usage[side]["failed"]) for side in ("strong", "weak")] == [(1, 0), (1, 1)]
        assert usage["strong"]["input_tokens"] == world.anthropic.tokens(world.requests("anthropic")[0])[0]
    assert watched.events.snapshot()["by_route"] == {"strong": 0, "weak": 1}


@pytest.mark.parametrize("endpoint", ["chat", "acomplete", "stream_complete", "astream_chat_with_tools", "apredict"])
async def test_where_both_are_down_the_error_is_that_of_the_one_that_was_chosen(
    world: World, watch: Callable[..., Watched], endpoint: str
) -> None:
    world.openai.faults, world.anthropic.faults = (lambda body: Fault(status=429)), (lambda body: Fault(status=500))
    watched = watch(PAIRS["openai+anthropic"], fallback_to_other=True)
    with pytest.raises(openai.RateLimitError):
        await outcome(call(watched.llm, endpoint, HARD))
    with pytest.raises(anthropic.InternalServerError):
        await outcome(call(watched.llm, endpoint, EASY))
    assert [len(world.requests(name)) for name in ("openai", "anthropic")] == [2, 2]
    for handler in watched.handlers:
        usage = handler.snapshot()["calls"]
        assert [(usage[side]["calls"], usage[side]["failed"]) for side in ("strong", "weak")] == [(2, 2), (2, 2)]


@pytest.mark.parametrize("endpoint", CHATS)
async def test_the_other_provider_is_given_what_it_can_read(
    world: World, watch: Callable[..., Watched], endpoint: str
) -> None:
    llm = watch((THINKER, MINI), fallback_to_other=True).llm
    messages = [ChatMessage(HARD)]
    made = llm.chat_with_tools(TOOLS, chat_history=messages, route="weak")
    messages += [made.message, *results_of(llm, made)]
    messages += [llm.chat_with_tools(TOOLS, chat_history=messages, route="weak").message, ChatMessage(EASY)]
    world.openai.faults = lambda body: Fault(status=500)
    made = await outcome(getattr(llm, endpoint)(messages))
    assert made.message.content == f"{OPUS} says: {EASY}"
    assert made.additional_kwargs["routing"]["answered_by"] == "strong"


async def test_a_shadow_answers_whatever_is_decided(world: World, watch: Callable[..., Watched]) -> None:
    watched = watch(PAIRS["openai+anthropic"], shadow="strong")
    made = await outcome(call(watched.llm, "astream_chat_with_tools", EASY))
    routing = made.additional_kwargs["routing"]
    assert (routing["route"], routing["answered_by"]) == ("weak", "strong")
    check_answer(watched.llm, "astream_chat_with_tools", made, GPT, EASY)
    assert [body["model"] for body in world.requests()] == [GPT]
    assert watched.events.snapshot()["by_route"] == {"strong": 0, "weak": 1}
    assert watched.callbacks.snapshot()["by_route"] == {"strong": 1, "weak": 0}
    assert watched.events.snapshot()["calls"]["strong"]["calls"] == 1


def test_a_prompt_too_long_for_one_provider_goes_to_the_other(world: World, watch: Callable[..., Watched]) -> None:
    watched = watch(PAIRS["anthropic+openai"])
    text = "word " * 140_000
    routing = watched.llm.complete(text).additional_kwargs["routing"]
    assert (routing["route"], routing["reason"], routing["detail"]) == ("strong", "capability", "window")
    assert [body["model"] for body in world.requests()] == [OPUS]
    assert watched.llm.complete("word").additional_kwargs["routing"]["reason"] == "score"


# Conversations


def results_of(llm: RoutedLLM, response: ChatResponse) -> list[ChatMessage]:
    """The results of the tool calls in a response, as agents write them."""
    return [
        ChatMessage(
            role=MessageRole.TOOL,
            content=get_weather(**selection.tool_kwargs),
            additional_kwargs={"tool_call_id": selection.tool_id, "name": selection.tool_name},
        )
        for selection in llm.get_tool_calls_from_response(response, error_on_no_tool_call=False)
    ]


@pytest.mark.parametrize("endpoint", WITH_TOOLS)
@pytest.mark.parametrize("pair", [*(PAIRS[name] for name in MIXED), (THINKER, MINI), (GPT, THINKER)], ids=str)
async def test_a_conversation_may_change_providers_at_every_turn(
    world: World, watch: Callable[..., Watched], pair: tuple[str, str], endpoint: str
) -> None:
    llm = watch(pair, router=FixedRouter()).llm
    messages = [ChatMessage(role=MessageRole.SYSTEM, content="Be brief.")]
    thoughts = 0
    for number, route in enumerate(("strong", "weak", "strong", "strong", "weak")):
        question: str | None = f"What is the weather in City{number}?"
        for _step in range(2):
            before = copy.deepcopy(messages)
            made = await outcome(getattr(llm, endpoint)(TOOLS, question, chat_history=messages, route=route))
            assert messages == before, "the caller's messages stay as they were"
            assert made.additional_kwargs["routing"]["route"] == route
            messages.extend([ChatMessage(question)] if question else [])
            question = None
            messages.append(made.message)
            thoughts += any(isinstance(block, ThinkingBlock) for block in made.message.blocks)
            messages.extend(results_of(llm, made))
        assert made.message.content.endswith(f"says: City{number}: hard to say")
    assert len(world.requests()) == 10
    assert thoughts == {(THINKER, MINI): 6, (GPT, THINKER): 4}.get(pair, 0)
    assert "hinking" not in json.dumps([body["messages"] for body in world.requests("openai")])
    if thoughts:
        # The server takes back what it has signed itself, and nothing else.
        last = [
            block["type"] for message in world.requests("anthropic")[-1]["messages"] for block in message["content"]
        ]
        assert last.count("thinking") == thoughts - 1


def blocks_of(body: Body) -> list[str]:
    return [block["type"] for message in body["messages"] for block in message["content"]]


def legacy(**calls: str) -> list[ChatCompletionMessageFunctionToolCall]:
    """Tool calls as the framework kept OpenAI's before there were blocks for them."""
    return [
        ChatCompletionMessageFunctionToolCall.model_validate(
            {"id": id_, "type": "function", "function": {"name": "get_weather", "arguments": arguments}}
        )
        for id_, arguments in calls.items()
    ]


def answered(*ids: str) -> list[ChatMessage]:
    kwargs = [{"tool_call_id": one, "name": "get_weather"} for one in ids]
    return [ChatMessage(role=MessageRole.TOOL, content="rain", additional_kwargs=one) for one in kwargs]


@pytest.mark.parametrize("stored", [False, True])
async def test_tool_calls_in_the_old_form_of_openai_are_read_by_anthropic(
    world: World, watch: Callable[..., Watched], stored: bool
) -> None:
    llm = watch(PAIRS["anthropic+openai"]).llm
    calls = legacy(call_1='{"city": "Rome"}', call_2='{"city": "Oslo"}')
    messages = [
        ChatMessage("And in Rome and Oslo?"),
        ChatMessage(role=MessageRole.ASSISTANT, blocks=[], additional_kwargs={"tool_calls": calls}),
        *answered("call_1", "call_2"),
    ]
    if stored:
        # As a chat store gives them back.
        messages = [ChatMessage.model_validate_json(message.model_dump_json()) for message in messages]
    before = copy.deepcopy(messages)
    for endpoint in WITH_TOOLS:
        made = await outcome(getattr(llm, endpoint)(TOOLS, chat_history=messages, route="strong"))
        assert made.message.content == f"{OPUS} says: rain rain"
        uses = [block for message in world.requests()[-1]["messages"] for block in message["content"]][1:3]
        assert uses == [
            {"type": "tool_use", "id": f"call_{number}", "name": "get_weather", "input": {"city": city}}
            for number, city in enumerate(("Rome", "Oslo"), 1)
        ]
    if not stored:
        assert (await llm.achat(messages, route="weak")).message.content == f"{MINI} says: rain"
    assert messages == before


async def test_tool_calls_in_the_old_form_of_anthropic_are_read_by_openai(
    world: World, watch: Callable[..., Watched]
) -> None:
    llm = watch(PAIRS["openai+anthropic"]).llm
    calls = [{"id": "toolu_1", "name": "get_weather", "input": {"city": "Rome"}, "type": "tool_use"}]
    messages = [
        ChatMessage("And in Rome?"),
        ChatMessage(role=MessageRole.ASSISTANT, blocks=[], additional_kwargs={"tool_calls": calls}),
        *answered("toolu_1"),
    ]
    before = copy.deepcopy(messages)
    assert (await llm.achat(messages, route="weak")).message.content == f"{HAIKU} says: rain"
    assert (await llm.achat(messages, route="strong")).message.content == f"{GPT} says: rain"
    assert messages == before


@pytest.mark.parametrize("route", ["strong", "weak"])
async def test_what_only_one_provider_reads_stays_with_it(
    world: World, watch: Callable[..., Watched], route: str
) -> None:
    llm = watch(PAIRS["openai+anthropic"]).llm
    mark = CachePoint(cache_control=CacheControl(type="ephemeral"))
    source = CitationBlock(
        cited_content=TextBlock(text="Rain is wet."), source="a", title="b", additional_location_info={}
    )
    messages = [
        ChatMessage(blocks=[TextBlock(text="Is rain wet?"), mark]),
        ChatMessage(
            role=MessageRole.ASSISTANT, blocks=[ThinkingBlock(content="Hm."), TextBlock(text="It is."), source]
        ),
        ChatMessage("Are you sure?"),
    ]
    before = copy.deepcopy(messages)
    assert (await llm.achat(messages, route=route)).message.content.endswith("says: Are you sure?")
    # Chat engines put conversations into templates.
    template = ChatPromptTemplate(message_templates=messages)
    with routing_options(route=route):
        for endpoint in TEMPLATES:
            said = await outcome(getattr(llm, endpoint)(template))
            assert said.endswith("says: Are you sure?")
    assert messages == template.message_templates == before
    assert len(world.requests("anthropic" if route == "weak" else "openai")) == 5


async def test_a_chat_stays_with_the_provider_it_began_with_if_wanted(
    world: World, watch: Callable[..., Watched]
) -> None:
    watched = watch(PAIRS["openai+anthropic"], decide="per_conversation")
    engine = SimpleChatEngine.from_defaults(llm=watched.llm, memory=ChatMemoryBuffer.from_defaults())
    assert engine.chat(HARD).response == f"{GPT} says: {HARD}"
    assert (await engine.achat(EASY)).response == f"{GPT} says: {EASY}"
    assert "".join(engine.stream_chat("And you?").response_gen) == f"{GPT} says: And you?"
    assert watched.llm.stats.snapshot()["by_reason"] == {"score": 1, "conversation": 2}
    assert len(world.requests()[-1]["messages"]) == 5
    engine.reset()
    assert engine.chat(EASY).response == f"{HAIKU} says: {EASY}"


NODES = [TextNode(text=text) for text in ("It rains.", "It snows.", "It is dry.")]


@pytest.mark.parametrize("pair", PAIRS)
async def test_a_query_is_one_decision_and_several_calls(
    world: World, watch: Callable[..., Watched], pair: str
) -> None:
    strong, _ = PAIRS[pair]
    watched = watch(PAIRS[pair])
    manager = watched.llm.callback_manager
    synthesizer = get_response_synthesizer(llm=watched.llm, callback_manager=manager, response_mode=ResponseMode.REFINE)
    retriever = SummaryIndex(NODES).as_retriever()
    engine = RetrieverQueryEngine(retriever, response_synthesizer=synthesizer, callback_manager=manager)
    engine.query(HARD)
    await engine.aquery(HARD)
    assert [body["model"] for body in world.requests()] == [strong] * 6
    assert watched.llm.stats.snapshot()["total"] == watched.events.snapshot()["total"] == 2
    tokens = [world.server_of(strong).tokens(body) for body in world.requests()]
    for handler in watched.handlers:
        usage = handler.snapshot()["calls"]["strong"]
        assert (usage["calls"], usage["input_tokens"]) == (6, sum(given for given, _ in tokens))


def test_a_synthesizer_by_itself_makes_one_decision(world: World, watch: Callable[..., Watched]) -> None:
    watched = watch(PAIRS["openai"])
    synthesizer = get_response_synthesizer(
        llm=watched.llm, callback_manager=watched.llm.callback_manager, response_mode=ResponseMode.REFINE
    )
    # Where no trace of an earlier test is left.
    Context().run(synthesizer.synthesize, HARD, [NodeWithScore(node=node) for node in NODES])
    assert len(world.requests()) == 3
    assert watched.llm.stats.snapshot()["total"] == 1


# Agents

# The framework's workflows look at every attribute of an agent, pydantic's deprecated ones included.
of_agents = pytest.mark.filterwarnings(
    "ignore:is_running called from within a step:DeprecationWarning",
    "ignore:The `__fields:pydantic.PydanticDeprecatedSince20",
    "ignore:The `__fields_set:pydantic.PydanticDeprecatedSince20",
    "ignore:The `model_:pydantic.PydanticDeprecatedSince211",
    "ignore:Accessing the 'model_:pydantic.PydanticDeprecatedSince211",
)


@of_agents
@pytest.mark.parametrize("route", ["strong", "weak"])
@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("kind", [FunctionAgent, ReActAgent])
async def test_an_agent_run_stays_with_one_provider_and_is_one_decision(
    world: World, watch: Callable[..., Watched], events: EventLog, kind: Any, pair: str, route: str
) -> None:
    name = dict(zip(("strong", "weak"), PAIRS[pair], strict=True))[route]
    watched = watch(PAIRS[pair])
    run = await kind(tools=TOOLS, llm=watched.llm).run(HARD if route == "strong" else EASY)
    city = "Rome" if route == "strong" else "Oslo"
    observation = "Observation: " if kind is ReActAgent else ""
    assert run.response.content == f"{name} says: {observation}{city}: hard to say"
    assert [body["model"] for body in world.requests()] == [name, name]
    (event,) = events.named("RoutingDecisionEvent")
    assert event.decision.route == route
    starts = events.named("LLMChatStartEvent")
    assert [start.tags["routing"]["id"] for start in starts] == [event.decision.id] * 2
    tokens = [world.server_of(name).tokens(body) for body in world.requests()]
    for handler in watched.handlers:
        usage = handler.snapshot()["calls"][route]
        assert (usage["calls"], usage["failed"], usage["unpriced"]) == (2, 0, 0)
        assert usage["input_tokens"] == sum(given for given, _ in tokens)
        assert usage["output_tokens"] == sum(made for _, made in tokens)
    assert watched.llm.stats.snapshot()["total"] == watched.events.snapshot()["total"] == 1
    assert watched.callbacks.snapshot()["total"] == 2


@of_agents
async def test_options_around_an_agent_hold_for_all_its_steps(world: World, watch: Callable[..., Watched]) -> None:
    watched = watch(PAIRS["openai+anthropic"])
    workflow = AgentWorkflow.from_tools_or_functions(TOOLS, llm=watched.llm)
    with routing_options(route="strong"):
        run = await workflow.run(EASY)
    assert run.response.content == f"{GPT} says: Oslo: hard to say"
    assert [body["model"] for body in world.requests()] == [GPT, GPT]
    assert watched.llm.stats.snapshot()["by_reason"] == {"forced": 1}


@of_agents
@pytest.mark.parametrize("first", ["strong", "weak"])
@pytest.mark.parametrize("pair", MIXED)
@pytest.mark.parametrize("kind", [FunctionAgent, ReActAgent])
async def test_in_a_run_by_steps_one_provider_answers_what_the_other_has_asked_a_tool(
    world: World, watch: Callable[..., Watched], events: EventLog, kind: Any, pair: str, first: str
) -> None:
    strong, weak = PAIRS[pair]
    text = HARD if first == "strong" else EASY
    city = "Rome" if first == "strong" else "Oslo"
    observation = "Observation: " if kind is ReActAgent else ""
    result = f"{observation}{city}: hard to say"
    scores = {text: 0.9 if first == "strong" else 0.1, f"{text}\n\n{result}": 0.1 if first == "strong" else 0.9}
    watched = watch(PAIRS[pair], router=FixedRouter(0.5, scores, threshold=0.55), decide="per_step")
    agent = kind(tools=TOOLS, llm=watched.llm)
    memory = ChatMemoryBuffer.from_defaults()
    run = await agent.run(text, memory=memory)
    asked, answering = (strong, weak) if first == "strong" else (weak, strong)
    assert run.response.content == f"{answering} says: {result}"
    routes = [event.decision.route for event in events.named("RoutingDecisionEvent")]
    assert routes == [first, "weak" if first == "strong" else "strong"]
    assert [len(world.requests(name)) for name in ("openai", "anthropic")] == [1, 1]
    assert watched.llm.router.prompts == [text, f"{text}\n\n{result}"]
    for handler in watched.handlers:
        usage = handler.snapshot()["calls"]
        assert {name: figures["calls"] for name, figures in usage["by_model"].items()} == {asked: 1, answering: 1}
    # The conversation goes on with whoever was asked first, whose call the other has answered.
    await agent.run("Thanks!", memory=memory)
    assert len(world.requests()) == 3


@of_agents
@pytest.mark.parametrize("pair", [(THINKER, MINI), (GPT, THINKER)], ids=str)
async def test_in_a_run_by_steps_thinking_stays_with_who_has_thought(
    world: World, watch: Callable[..., Watched], events: EventLog, pair: tuple[str, str]
) -> None:
    """With thinking on, Anthropic refuses a tool's result after a call without it: an exchange stays where it began."""
    questions = [f"What is the weather in {city}?" for city in ("Rome", "Oslo", "Bonn")]
    scores = {questions[0]: 0.1, questions[1]: 0.9, questions[2]: 0.1}
    watched = watch(pair, router=FixedRouter(0.9, scores), decide="per_step")
    agent = FunctionAgent(tools=TOOLS, llm=watched.llm)
    memory = ChatMemoryBuffer.from_defaults()
    for question in questions:
        run = await agent.run(question, memory=memory)
        city = question.removesuffix("?").rpartition(" ")[2]
        assert run.response.content.endswith(f"says: {city}: hard to say")
    decisions = [(event.decision.route, event.decision.reason) for event in events.named("RoutingDecisionEvent")]
    assert decisions == [(side, reason) for side in ("weak", "strong", "weak") for reason in ("score", "tool_loop")]
    assert "hinking" not in json.dumps([body["messages"] for body in world.requests("openai")])
    bodies = world.requests("anthropic")
    assert len(bodies) == (4 if pair[1] == THINKER else 2)
    signed = [block for message in bodies[-1]["messages"] for block in message["content"] if block.get("signature")]
    assert len(signed) == (3 if pair[1] == THINKER else 1)


@of_agents
@pytest.mark.parametrize("pair", MIXED)
@pytest.mark.parametrize("kind", [FunctionAgent, ReActAgent])
async def test_a_run_goes_on_with_the_other_provider_where_one_goes_down(
    world: World, watch: Callable[..., Watched], kind: Any, pair: str
) -> None:
    strong, weak = PAIRS[pair]

    def down_after_the_first_step(body: Body) -> Fault | None:
        return Fault(status=500) if body["model"] == weak and "hard to say" in json.dumps(body) else None

    world.openai.faults = world.anthropic.faults = down_after_the_first_step
    watched = watch(PAIRS[pair], fallback_to_other=True)
    run = await kind(tools=TOOLS, llm=watched.llm).run(EASY)
    observation = "Observation: " if kind is ReActAgent else ""
    assert run.response.content == f"{strong} says: {observation}Oslo: hard to say"
    assert watched.llm.stats.snapshot()["by_route"] == {"strong": 0, "weak": 1}
    for handler in watched.handlers:
        usage = handler.snapshot()["calls"]
        assert [(usage[side]["calls"], usage[side]["failed"]) for side in ("strong", "weak")] == [(1, 0), (2, 1)]


# Leaving early


@pytest.mark.parametrize("route", ["strong", "weak"])
@pytest.mark.parametrize("endpoint", ["stream_chat", "stream_complete", "stream", "stream_chat_with_tools"])
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_leaving_a_stream_early_releases_the_connection(
    world: World, watch: Callable[..., Watched], endpoint: str, asynchronous: bool, route: str
) -> None:
    server = world.openai if route == "strong" else world.anthropic
    server.faults = lambda body: Fault(delay=0.05)
    aborted = server.aborted
    watched = watch(PAIRS["openai+anthropic"])
    # Long enough to be left amid it; most of the asynchronous clients read on to the end even then.
    text = "Tell me" if asynchronous else "a " * 100
    with routing_options(route=route):
        stream = call(watched.llm, f"a{endpoint}" if asynchronous else endpoint, text)
        if asynchronous:
            async with aclosing(await stream) as pieces:
                await anext(pieces)
        else:
            next(stream)
            stream.close()
    # The framework's clients leave their own streams to it.
    gc.collect()
    await asyncio.to_thread(until, lambda: server.open_connections == 0)
    if not asynchronous:
        assert server.aborted == aborted + 1
    for handler in watched.handlers:
        usage = handler.snapshot()["calls"][route]
        assert (usage["calls"], usage["failed"]) == (1, 1)


# Keys


def shown(llm: RoutedLLM) -> list[str]:
    payload = llm.to_payload() if hasattr(llm, "to_payload") else {}
    dumped = [llm.to_dict(), payload, llm.model_dump(), llm.metadata.model_dump(), llm.dict()]
    return [
        repr(llm),
        str(llm),
        llm.to_json(),
        llm.model_dump_json(),
        *(json.dumps(one, default=repr) for one in dumped),
    ]


@pytest.mark.filterwarnings("ignore:The `dict` method is deprecated:DeprecationWarning")
async def test_a_key_is_shown_nowhere(
    world: World, watch: Callable[..., Watched], caplog: pytest.LogCaptureFixture, events: EventLog
) -> None:
    caplog.set_level(logging.DEBUG)
    watched = watch(PAIRS["openai+anthropic"], fallback_to_other=True)
    inside = watch((OPUS, MINI))
    inside.llm.weak = watched.llm
    world.openai.faults = lambda body: Fault(status=500)
    for endpoint in ("chat", "astream_chat", "acomplete", "predict", "achat_with_tools"):
        await outcome(call(watched.llm, endpoint, HARD))
        await outcome(call(inside.llm, endpoint, EASY))
    told = [record.getMessage() for record in caplog.records if record.name.startswith(("prefroute", "llamaindex"))]
    errors: list[BaseException] = []
    for broken in (
        lambda: pickle.dumps(watched.llm),
        lambda: RoutedLLM.from_dict(watched.llm.to_dict()),
        lambda: RoutedLLM(strong=world.llms[GPT], weak="gpt-4o-mini"),
        lambda: RoutedLLM(strong=world.llms[GPT], weak=world.llms[HAIKU], shadow=world.llms[GPT]),
        lambda: RoutedLLM(strong=world.llms[GPT], weak=world.llms[HAIKU], router=world.llms[GPT]),
        lambda: watched.llm.chat([ChatMessage("Hi")], route=world.llms[GPT]),
        lambda: watched.llm.chat([ChatMessage("Hi")], threshold=world.llms[GPT]),
    ):
        with pytest.raises((ConfigurationError, PersistenceError, TypeError, ValueError)) as caught:
            broken()
        errors.append(caught.value)
    kept = [json.dumps(handler.snapshot()) for handler in watched.handlers]
    sent = [event.model_dump_json() for event in events.named("RoutingDecisionEvent")]
    everything = [*shown(watched.llm), *shown(inside.llm), *told, *map(str, errors), *map(repr, errors), *kept, *sent]
    assert len(everything) > 30
    assert not [text for text in everything if KEY in text]
