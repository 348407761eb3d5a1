"""What went wrong once, each in a corner of its own."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import logging
import os
import subprocess
import sys
import threading
from dataclasses import dataclass
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from llama_index.core import MockEmbedding, SummaryIndex
from llama_index.core.agent.workflow import AgentWorkflow, CodeActAgent, FunctionAgent, ReActAgent
from llama_index.core.base.llms.types import ToolCallBlock
from llama_index.core.callbacks import CallbackManager, CBEventType
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.llms import ChatMessage, ChatResponse, CompletionResponse, LLMMetadata, MockLLM
from llama_index.core.llms.callbacks import llm_chat_callback
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.program import LLMTextCompletionProgram
from llama_index.core.prompts import ChatPromptTemplate, PromptTemplate, SelectorPromptTemplate
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.response_synthesizers import get_response_synthesizer
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from llama_index.core.workflow import StartEvent, StopEvent, Workflow, step
from llama_index_instrumentation.dispatcher import active_instrument_tags
from llamaindex_agents import AGENT_WARNINGS, TOOLS, Pair, Scripted
from pydantic import BaseModel, PrivateAttr

from llamaindex_router import (
    RoutedLLM,
    RouterSelector,
    StrongCallRateEventHandler,
    StrongCallRateHandler,
    routing_options,
)
from llamaindex_router.counting import used
from llamaindex_router.events import current_attempt
from llamaindex_router.lending import current_loan
from llamaindex_router.spans import SpansOfWork
from llamaindex_router.text import asked_in_chat
from prefroute import ConfigurationError, PrefrouteError, ThresholdError
from prefroute.testing import FixedRouter
from prefroute.usage import Tokens

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from conftest import DialectLLM, EventLog, PlainLLM
    from numpy.typing import NDArray


CHAT_APIS = ["chat", "achat", "stream_chat", "astream_chat"]
TOOL_APIS = ["chat_with_tools", "achat_with_tools", "stream_chat_with_tools", "astream_chat_with_tools"]
COMPLETION_APIS = ["complete", "acomplete", "stream_complete", "astream_complete"]
STREAMS_OBJECTS = pytest.mark.skipif(
    "stream_call" not in vars(LLMTextCompletionProgram), reason="not in this release, for models without tools"
)
STRUCTURED_APIS = [
    "structured_predict",
    "astructured_predict",
    pytest.param("stream_structured_predict", marks=STREAMS_OBJECTS),
    pytest.param("astream_structured_predict", marks=STREAMS_OBJECTS),
]
NODES = [
    NodeWithScore(node=TextNode(text=f"Passage {n}: " + "the sky is blue and the sea is wide. " * 40), score=1.0)
    for n in range(3)
]
PAIR_IN_JSON = '{"a": 2, "b": 3}'


class Passages(BaseRetriever):
    """Finds the same passages for everything."""

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return NODES


def memory() -> ChatMemoryBuffer:
    # The default memory of engines and agents is an SQLite connection that they never close.
    return ChatMemoryBuffer.from_defaults(token_limit=100_000)


def user(text: str) -> ChatMessage:
    return ChatMessage(content=text)


def said(text: str) -> ChatMessage:
    return ChatMessage(role="assistant", content=text)


def called(arguments: Any) -> ChatMessage:
    call = ToolCallBlock(tool_call_id="c1", tool_name="add", tool_kwargs=arguments)
    return ChatMessage(role="assistant", blocks=[call])


def result(text: str = "5") -> ChatMessage:
    return ChatMessage(role="tool", content=text, additional_kwargs={"tool_call_id": "c1"})


def routing_of(response: Any) -> dict[str, Any]:
    routing: dict[str, Any] = response.additional_kwargs["routing"]
    return routing


def asked_of(llm: Any) -> list[Any]:
    """What an LLM was asked, call by call."""
    return [asked for method, asked, _ in llm.calls if method != "get_tool_calls"]


def texts_of(messages: Sequence[ChatMessage]) -> list[str | None]:
    return [message.content for message in messages]


async def answered(llm: Any, api: str, *args: Any, **kwargs: Any) -> Any:
    """The answer, or the last piece of it."""
    found = getattr(llm, api)(*args, **kwargs)
    if api.startswith("a"):
        found = await found
    if "stream" not in api:
        return found
    return ([chunk async for chunk in found] if api.startswith("a") else list(found))[-1]


def engine_of(routed: RoutedLLM, mode: str = "compact") -> RetrieverQueryEngine:
    synthesizer = get_response_synthesizer(llm=routed, response_mode=mode, callback_manager=CallbackManager())
    return RetrieverQueryEngine(Passages(), synthesizer)


@pytest.fixture
def one_name(make_llm: type[DialectLLM], router: FixedRouter) -> RoutedLLM:
    """Two LLMs that say the same to everything."""
    llms = [make_llm(name="You are welcome.", dialect="blocks") for _ in range(2)]
    return RoutedLLM(strong=llms[0], weak=llms[1], router=router, decide="per_conversation")


# --- CodeActAgent ---


@AGENT_WARNINGS
@pytest.mark.parametrize("streaming", [False, True])
async def test_a_code_agent_with_models_without_tools(plain: PlainLLM, router: FixedRouter, streaming: bool) -> None:
    routed = RoutedLLM(strong=plain, weak=Scripted(lines=["the answer is 2"]), router=router)
    agent = CodeActAgent(code_execute_fn=lambda code: "2", llm=routed, tools=[], streaming=streaming)
    assert str(await agent.run("1 + 1?", memory=memory())) == "the answer is 2"


def test_an_answer_of_models_without_tools_has_no_tool_calls(plain: PlainLLM, router: FixedRouter, easy: str) -> None:
    routed = RoutedLLM(strong=plain, weak=Scripted(lines=["hi"]), router=router)
    answer = routed.chat([user(easy)])
    for response in (answer, ChatResponse(message=answer.message)):
        assert routed.get_tool_calls_from_response(response, error_on_no_tool_call=False) == []
        with pytest.raises(ConfigurationError, match="calls tools"):
            routed.get_tool_calls_from_response(response)


@AGENT_WARNINGS
@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("tools", [False, True])
async def test_a_code_agents_run_stays_with_one_model(
    make_llm: type[DialectLLM], router: FixedRouter, events: EventLog, hard: str, tools: bool, streaming: bool
) -> None:
    class Saying(make_llm):  # type: ignore[valid-type, misc]
        lines: list[str]

        async def achat(self, messages: Any, **kwargs: Any) -> ChatResponse:
            return ChatResponse(message=said(self.lines.pop(0)))

        async def astream_chat(self, messages: Any, **kwargs: Any) -> Any:
            async def gen() -> Any:
                line = self.lines.pop(0)
                yield ChatResponse(message=said(line), delta=line)

            return gen()

    lines = ["let me see: <execute>1+1</execute>", "again: <execute>1+1</execute>", "the answer is 2"]
    strong, weak = (
        Saying(name="saying", lines=said_by) if tools else Scripted(lines=said_by)
        for said_by in (lines, ["not me"] * 3)
    )
    routed = RoutedLLM(strong=strong, weak=weak, router=router)
    agent = CodeActAgent(code_execute_fn=lambda code: "2", llm=routed, tools=[], streaming=streaming)
    assert str(await agent.run(hard, memory=memory())) == "the answer is 2"
    assert (strong.lines, len(weak.lines)) == ([], 3)
    assert router.prompts == [hard]
    assert len(events.named("RoutingDecisionEvent")) == routed.stats.total == 1


# --- threads and forks ---


def test_a_model_that_another_thread_sets_an_attribute_of(
    make_llm: type[DialectLLM], weak: DialectLLM, router: FixedRouter, easy: str
) -> None:
    class Lazy(make_llm):  # type: ignore[valid-type, misc]
        client: Any = None
        _held: Any = PrivateAttr(default=None)

    llm = Lazy(name="big")
    added: list[str] = []

    class Meddling:
        """While somebody looks at it, another thread adds attributes to the LLM, as those with a client do."""

        @property
        def __class__(self) -> type:  # type: ignore[override]
            def connect() -> None:
                added.append(f"client{len(added)}")
                llm.__dict__[added[-1]] = object()
                llm.__pydantic_private__[f"_{added[-1]}"] = object()

            thread = threading.Thread(target=connect)
            thread.start()
            thread.join()
            return Meddling

    llm.client, llm._held = Meddling(), Meddling()
    routed = RoutedLLM(strong=llm, weak=weak, router=router)
    assert routed.chat([user(easy)]).message.content == "small"
    assert routed.metadata.model_name == "routed(big|small)"
    assert added, "it was looked at"


FORK = """
import os, signal, sys, threading
from collections import OrderedDict
from llama_index.core.llms import CompletionResponse, CustomLLM, LLMMetadata
from llama_index.core.llms.callbacks import llm_completion_callback
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.response_synthesizers import get_response_synthesizer
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeWithScore, TextNode
from llamaindex_router import RoutedLLM, spans
from prefroute.testing import FixedRouter

calls, inside, go_on = [], threading.Event(), threading.Event()

class LLM(CustomLLM):
    @property
    def metadata(self):
        return LLMMetadata(context_window=1000, num_output=50)
    @llm_completion_callback()
    def complete(self, prompt, formatted=False, **kwargs):
        calls.append(prompt)
        return CompletionResponse(text="words")
    def stream_complete(self, prompt, formatted=False, **kwargs):
        raise NotImplementedError

class Passages(BaseRetriever):
    def _retrieve(self, query_bundle):
        return [NodeWithScore(node=TextNode(text=f"{n} " + "the sea is wide. " * 90), score=1.0) for n in range(3)]

class Noted(OrderedDict):
    def __setitem__(self, key, value):
        if threading.current_thread() is other and not go_on.is_set():
            inside.set()
            go_on.wait()
        super().__setitem__(key, value)

def query():
    routed = RoutedLLM(strong=LLM(), weak=LLM(), router=FixedRouter(0.9))
    synthesizer = get_response_synthesizer(llm=routed, response_mode="refine")
    RetrieverQueryEngine(Passages(), synthesizer).query("Who is he?")
    return routed.stats.total

query()
spans._spans._open = Noted()
other = threading.Thread(target=query)
other.start()
inside.wait()
child = os.fork()
if child == 0:
    signal.alarm(30)  # Ends a child that hangs.
    calls.clear()
    total = query()
    print(f"{total} decision, several calls: {len(calls) > 2}", flush=True)
    os._exit(0)
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
go_on.set()
other.join()
sys.exit(code)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_fork_amid_a_span_leaves_its_child_able_to_tell_turns() -> None:
    env = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run(
        [sys.executable, "-c", FORK], env=env, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "1 decision, several calls: True"


# --- turns and conversations ---


@pytest.mark.parametrize("api", CHAT_APIS)
async def test_conversations_in_which_the_same_was_answered_stay_with_their_own_side(
    one_name: RoutedLLM, router: FixedRouter, easy: str, hard: str, api: str
) -> None:
    talks = {"strong": [user(hard)], "weak": [user(easy)]}
    for side, talk in talks.items():
        answer = await answered(one_name, api, talk)
        assert (routing_of(answer)["route"], answer.message.content) == (side, "You are welcome.")
        talk += [answer.message, user("go on")]
    for side, talk in talks.items():
        found = routing_of(await answered(one_name, api, talk))
        assert (found["route"], found["reason"]) == (side, "conversation")
    assert router.prompts == [hard, easy]


@pytest.mark.parametrize("api", CHAT_APIS)
async def test_an_answer_begun_for_the_model_is_a_decision_each_time(
    routed: RoutedLLM, router: FixedRouter, events: EventLog, hard: str, api: str
) -> None:
    ids = {routing_of(await answered(routed, api, [user(hard), said("{")]))["id"] for _ in range(3)}
    assert len(ids) == routed.stats.total == len(events.named("RoutingDecisionEvent")) == 3
    assert router.prompts == [hard] * 3


async def test_many_turns_under_way_together_are_a_decision_each(routed: RoutedLLM, router: FixedRouter) -> None:
    turns = 1500
    begun: dict[int, str] = {}
    all_begun = asyncio.Event()

    async def turn(number: int) -> bool:
        first = await routed.achat([user(f"question {number}")])
        begun[number] = routing_of(first)["id"]
        if len(begun) == turns:
            all_begun.set()
        await all_begun.wait()
        second = await routed.achat([user(f"question {number}"), called({"a": number, "b": 1}), result()])
        return routing_of(second)["id"] == begun[number]

    assert all(await asyncio.gather(*map(turn, range(turns))))
    assert routed.stats.total == len(router.prompts) == len(set(begun.values())) == turns


async def test_equal_queries_in_one_span_of_the_application_are_decided_one_by_one(
    routed: RoutedLLM, router: FixedRouter, events: EventLog, hard: str
) -> None:
    engine, dispatcher = engine_of(routed), get_dispatcher("application")

    @dispatcher.span
    def serve() -> None:
        for _ in range(5):
            engine.query(hard)

    @dispatcher.span
    async def aserve() -> None:
        for _ in range(5):
            await engine.aquery(hard)

    serve()
    await aserve()
    assert router.prompts == [hard] * 10
    assert routed.stats.total == len(events.named("RoutingDecisionEvent")) == 10


class TenQueries(Workflow):
    """An application's own workflow."""

    def __init__(self, engine: RetrieverQueryEngine, text: str) -> None:
        super().__init__()
        self._engine, self._text = engine, text

    @step
    async def ask(self, ev: StartEvent) -> StopEvent:
        for _ in range(10):
            await self._engine.aquery(self._text)
        return StopEvent(result="done")


@AGENT_WARNINGS
async def test_equal_queries_in_one_workflow_of_the_application_are_decided_one_by_one(
    routed: RoutedLLM, router: FixedRouter, events: EventLog, hard: str
) -> None:
    assert await TenQueries(engine_of(routed), hard).run() == "done"
    assert router.prompts == [hard] * 10
    assert routed.stats.total == len(events.named("RoutingDecisionEvent")) == 10


@pytest.fixture
def no_span_handlers(routed: RoutedLLM) -> Iterator[None]:
    """Somebody takes all handlers of spans away once there is a routed LLM."""
    root = get_dispatcher()
    before = root.span_handlers
    root.span_handlers = []
    yield
    root.span_handlers = before


@pytest.mark.usefixtures("no_span_handlers")
@pytest.mark.parametrize("mode", ["refine", "tree_summarize"])
def test_span_handlers_may_be_replaced(
    routed: RoutedLLM, strong: DialectLLM, weak: DialectLLM, router: FixedRouter, easy: str, hard: str, mode: str
) -> None:
    strong.context_window = weak.context_window = 1000
    engine = engine_of(routed, mode)
    routed.complete(easy)
    for count in (1, 2):
        engine.query(hard)
        assert router.prompts == [easy, *[hard] * count]
        assert routed.stats.total == count + 1
    assert len(asked_of(strong)) >= 6


@pytest.mark.usefixtures("no_span_handlers")
def test_span_handlers_may_be_replaced_just_before_a_query(
    routed: RoutedLLM, strong: DialectLLM, weak: DialectLLM, router: FixedRouter, hard: str
) -> None:
    strong.context_window = weak.context_window = 1000
    engine = engine_of(routed, "refine")
    engine.query(hard)
    before = len(router.prompts)
    engine.query(hard)
    assert len(router.prompts) == before + 1


# --- agents with an output class ---


def agent_of(kind: str, routed: RoutedLLM) -> Any:
    alone = {"output_cls": Pair, "system_prompt": "be brief"} if kind in {"FunctionAgent", "ReActAgent"} else {}
    if "CodeAct" in kind:
        agent: Any = CodeActAgent(code_execute_fn=lambda code: "5", tools=[], llm=routed)
    else:
        agent = (ReActAgent if "ReAct" in kind else FunctionAgent)(tools=TOOLS, llm=routed, **alone)
    return agent if alone else AgentWorkflow([agent], output_cls=Pair)


LINES = {
    "ReAct": [
        'Thought: I need a tool.\nAction: add\nAction Input: {"a": 2, "b": 3}',
        "Thought: I can answer without using any more tools.\nAnswer: 5",
        PAIR_IN_JSON,
    ],
    "CodeAct": ["let me see: <execute>2+3</execute>", "it is 5", PAIR_IN_JSON],
}


@AGENT_WARNINGS
@pytest.mark.parametrize(
    "kind",
    [
        "FunctionAgent",
        "ReActAgent",
        "AgentWorkflow-FunctionAgent",
        "AgentWorkflow-ReActAgent",
        "AgentWorkflow-CodeActAgent",
    ],
)
async def test_an_agent_with_an_output_class_is_decided_once_by_the_question(
    strong: DialectLLM, weak: DialectLLM, router: FixedRouter, events: EventLog, hard: str, kind: str
) -> None:
    lines = next((lines for name, lines in LINES.items() if name in kind), None)
    chosen: Any = strong if lines is None else Scripted(lines=lines * 2)
    routed = RoutedLLM(strong=chosen, weak=weak, router=router)
    agent, kept = agent_of(kind, routed), memory()
    # The second run tells of the first one's messages too.
    for count in (1, 2):
        answer = await agent.run(user_msg=hard, memory=kept)
        assert answer.structured_response == {"a": 2, "b": 3}
        assert router.prompts == [hard] * count
        assert routed.stats.total == len(events.named("RoutingDecisionEvent")) == count
    assert {method for method, _, _ in weak.calls} <= {"get_tool_calls"}


# --- what is kept ---


class Forgetful(FixedRouter):
    """Writes nothing down."""

    def win_probability(self, prompts: Sequence[str]) -> NDArray[np.float64]:
        return np.full(len(prompts), self.score)


_NO_STATE = (type, ModuleType, BuiltinFunctionType, logging.Logger)


def texts_within(root: object) -> set[str]:
    """Every text that an object keeps alive, however deep, without what belongs to the program."""
    found: set[str] = set()
    seen: dict[int, Any] = {}
    left: list[Any] = [root]
    while left:
        one = left.pop()
        if id(one) in seen or isinstance(one, _NO_STATE):
            continue
        seen[id(one)] = one
        if isinstance(one, str | bytes):
            found.add(one if isinstance(one, str) else repr(one))
        elif isinstance(one, FunctionType):
            left += one.__closure__ or ()
        else:
            left += gc.get_referents(one)
    return found


@pytest.mark.parametrize("decide", ["per_turn", "per_step", "per_conversation"])
async def test_no_prompt_is_kept(make_llm: type[DialectLLM], decide: Any) -> None:
    class Quiet(make_llm):  # type: ignore[valid-type, misc]
        def _noted(self, method: str, asked: Any, kwargs: dict[str, Any]) -> None:
            """Nothing."""

    strong, weak = (Quiet(name=name, tool_kwargs={"a": 2, "b": 3}) for name in ("big", "small"))
    routed = RoutedLLM(strong=strong, weak=weak, router=Forgetful(0.9), decide=decide)
    engine = engine_of(routed)
    for api in COMPLETION_APIS:
        await answered(routed, api, "PRIVATE words")
    for api in CHAT_APIS:
        await answered(routed, api, [user("PRIVATE words")])
        await answered(routed, api, [user("PRIVATE words"), called({"a": 2, "b": 3}), result("PRIVATE result")])
        await answered(routed, api, [user("PRIVATE words"), said("PRIVATE answer"), user("PRIVATE words")])
    engine.query("PRIVATE words")
    await engine.aquery("PRIVATE words")
    routed.structured_predict(Pair, PromptTemplate("{query_str}"), query_str="PRIVATE words")
    kept = texts_within(routed)
    assert {"big", "small", "sk-secret"} <= kept, "it was looked through"
    assert [text for text in kept if "PRIVATE" in text] == []


@pytest.mark.parametrize("decide", ["per_turn", "per_step", "per_conversation"])
async def test_completions_keep_nothing(strong: DialectLLM, weak: DialectLLM, hard: str, decide: Any) -> None:
    routed = RoutedLLM(strong=strong, weak=weak, router=Forgetful(0.9), decide=decide)
    for number in range(10):
        for api in COMPLETION_APIS:
            await answered(routed, api, f"{hard} {number}")
    assert (len(routed._memory.turns._kept), routed._memory.turns._under_way) == (0, {})


# --- windows ---


@pytest.mark.parametrize("depth", [1, 2])
def test_a_window_that_nobody_states_is_not_stated_by_a_nested_pair(
    plain: PlainLLM, weak: DialectLLM, depth: int
) -> None:
    weak.context_window = 100_000
    nested: Any = plain
    for _ in range(depth):
        nested = RoutedLLM(strong=nested, weak=Scripted(lines=["no"]), router=FixedRouter(0.9))
    outer = RoutedLLM(strong=nested, weak=weak, router=FixedRouter(0.9))
    long = "word " * 8000
    flat = RoutedLLM(strong=plain, weak=weak, router=FixedRouter(0.9))
    for routed in (flat, outer):
        found = routing_of(routed.complete(long))
        assert (found["route"], found["reason"]) == ("strong", "score")


def test_a_window_that_one_side_of_a_nested_pair_states_counts(
    plain: PlainLLM, make_llm: type[DialectLLM], weak: DialectLLM
) -> None:
    weak.context_window = 100_000
    nested = RoutedLLM(strong=make_llm(name="n", context_window=1000), weak=plain, router=FixedRouter(0.9))
    outer = RoutedLLM(strong=nested, weak=weak, router=FixedRouter(0.9))
    found = routing_of(outer.complete("word " * 8000))
    assert (found["route"], found["reason"]) == ("weak", "capability")


# --- parsers in templates ---

TEMPLATES = {
    "PromptTemplate": lambda: PromptTemplate("Count: {query_str}"),
    "ChatPromptTemplate": lambda: ChatPromptTemplate([user("Count: {query_str}")]),
    "SelectorPromptTemplate": lambda: SelectorPromptTemplate(
        PromptTemplate("Count: {query_str}"),
        [(lambda llm: llm.metadata.is_function_calling_model, ChatPromptTemplate([user("Count: {query_str}")]))],
    ),
    "one for both": lambda: SelectorPromptTemplate(PromptTemplate("Count: {query_str}")),
}


def parsers_in(template: Any) -> list[Any]:
    if isinstance(template, SelectorPromptTemplate):
        inner = [template.default_template, *(one for _, one in template.conditionals or ())]
        return [template.output_parser, *(one.output_parser for one in inner)]
    return [template.output_parser]


@pytest.mark.parametrize("kind", TEMPLATES)
@pytest.mark.parametrize("api", STRUCTURED_APIS)
async def test_a_parser_stays_with_the_model_that_it_is_for(
    strong: DialectLLM, router: FixedRouter, easy: str, hard: str, kind: str, api: str
) -> None:
    weak = Scripted(lines=[PAIR_IN_JSON])
    routed, template = RoutedLLM(strong=strong, weak=weak, router=router), TEMPLATES[kind]()
    assert await answered(routed, api, Pair, template, query_str=easy) == Pair(a=2, b=3)
    assert weak.lines == []
    assert set(parsers_in(template)) == {None}
    await answered(routed, api, Pair, template, query_str=hard)
    assert [texts_of(asked) for asked in asked_of(strong)] == [[f"Count: {hard}"]]
    assert set(parsers_in(template)) == {None}


@pytest.mark.parametrize("kind", TEMPLATES)
@pytest.mark.parametrize("api", ["structured_predict", "astructured_predict"])
async def test_a_parser_does_not_reach_the_model_that_stands_in(
    strong: DialectLLM, router: FixedRouter, easy: str, kind: str, api: str
) -> None:
    weak = Scripted(lines=["no JSON"])
    routed = RoutedLLM(strong=strong, weak=weak, router=router, fallback_to_other=True)
    template = TEMPLATES[kind]()
    assert await answered(routed, api, Pair, template, query_str=easy) == Pair(a=2, b=3)
    assert weak.lines == []
    assert [texts_of(asked) for asked in asked_of(strong)] == [[f"Count: {easy}"]]
    assert set(parsers_in(template)) == {None}


# --- usage ---


@dataclass
class UsageMetadata:
    """As Gemini's client has it: an object."""

    prompt_token_count: int
    candidates_token_count: int | None
    thoughts_token_count: int | None


USAGES = {
    "Bedrock Converse": (
        {"output": {}, "usage": {"inputTokens": 10, "outputTokens": 5, "totalTokens": 15}},
        {},
        Tokens(10, 5),
    ),
    "Bedrock Converse, with a cache": (
        {"usage": {"inputTokens": 10, "outputTokens": 5, "cacheReadInputTokens": 100, "cacheWriteInputTokens": 20}},
        {},
        Tokens(130, 5, 100),
    ),
    "Bedrock Converse, beside the answer": (
        {"output": {}, "usage": {"inputTokens": 10, "outputTokens": 5, "totalTokens": 15}},
        {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
        Tokens(10, 5),
    ),
    "Bedrock Converse, beside a stream": (
        {"contentBlockDelta": {"delta": {"text": "x"}}},
        {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
        Tokens(10, 5),
    ),
    "usage that says nothing": (
        {"usage": {"unit": "token"}},
        {"prompt_tokens": 10, "completion_tokens": 5},
        Tokens(10, 5),
    ),
    "Gemini, thoughts alone": (
        {"usage_metadata": {"prompt_token_count": 10, "candidates_token_count": None, "thoughts_token_count": 900}},
        {},
        Tokens(10, 900),
    ),
    "Gemini, thoughts beside an answer": (
        {"usage_metadata": {"prompt_token_count": 10, "candidates_token_count": 5, "thoughts_token_count": 900}},
        {},
        Tokens(10, 905),
    ),
    "Gemini, thoughts alone, as an object": (
        {"usage_metadata": UsageMetadata(10, None, 900)},
        {},
        Tokens(10, 900),
    ),
}


@pytest.mark.parametrize(("raw", "beside", "tokens"), USAGES.values(), ids=USAGES)
def test_tokens_in_shapes_of_providers(raw: Any, beside: dict[str, Any], tokens: Tokens) -> None:
    assert used(ChatResponse(message=said("x"), raw=raw, additional_kwargs=beside))[1] == tokens
    assert used(CompletionResponse(text="x", raw=raw, additional_kwargs=beside))[1] == tokens


@pytest.fixture
def telling(make_llm: type[DialectLLM]) -> Any:
    """Makes an LLM that tells what it has used."""
    raw = {"model": "telling", "usage": {"prompt_tokens": 10, "completion_tokens": 5}}

    class Telling(make_llm):  # type: ignore[valid-type, misc]
        def _told(self, messages: Any, kwargs: dict[str, Any]) -> ChatResponse:
            return ChatResponse(message=self._message(self.name, messages, kwargs), raw=raw)

        @llm_chat_callback()
        def chat(self, messages: Any, **kwargs: Any) -> ChatResponse:
            return self._told(messages, kwargs)

        @llm_chat_callback()
        async def achat(self, messages: Any, **kwargs: Any) -> ChatResponse:
            return self._told(messages, kwargs)

        @llm_chat_callback()
        def stream_chat(self, messages: Any, **kwargs: Any) -> Any:
            return (self._told(messages, kwargs) for _ in range(2))

        @llm_chat_callback()
        async def astream_chat(self, messages: Any, **kwargs: Any) -> Any:
            async def gen() -> Any:
                for _ in range(2):
                    yield self._told(messages, kwargs)

            return gen()

    return Telling


@pytest.mark.filterwarnings("ignore:The `json` method is deprecated:pydantic.PydanticDeprecatedSince20")
@pytest.mark.parametrize("api", [*CHAT_APIS, "complete", "acomplete"])
async def test_the_tokens_of_a_structured_model_as_a_side_count_once(
    telling: Any, strong: DialectLLM, router: FixedRouter, easy: str, api: str
) -> None:
    by_event, by_callback = StrongCallRateEventHandler(), StrongCallRateHandler()
    # The LLM within has callbacks of its own; those of the pair are lent to the one that is called.
    inner = telling(name="told", tool_kwargs={"a": 2, "b": 3}, callback_manager=CallbackManager([by_callback]))
    routed = RoutedLLM(
        strong=strong,
        weak=inner.as_structured_llm(Pair),
        router=router,
        callback_manager=CallbackManager([by_callback]),
    )
    root = get_dispatcher()
    root.add_event_handler(by_event)
    try:
        await answered(routed, api, easy if "complete" in api else [user(easy)])
    finally:
        root.event_handlers.remove(by_event)
    for handler in (by_event, by_callback):
        weak = handler.snapshot()["calls"]["weak"]
        assert (weak["calls"], weak["failed"]) == (1, 0)
        assert (weak["input_tokens"], weak["output_tokens"]) == (10, 5)


# --- settings ---


async def not_plain(_: Any) -> str:
    return ""


NONSENSE = [
    ("shadow", "nonsense"),
    ("shadow", 3),
    ("fallback_to_other", "yes"),
    ("fallback_to_other", 1),
    ("fallback_to_other", None),
    ("text_fn", 3),
    ("text_fn", not_plain),
    ("on_route", "print"),
    ("on_route", not_plain),
    ("router", "bundled"),
    ("router", None),
    ("router", FixedRouter),
    ("strong", "gpt-5"),
    ("strong", None),
    ("weak", 3),
    ("weak", FixedRouter()),
]
NONSENSE_IDS = [f"{name}-{number}" for number, (name, _) in enumerate(NONSENSE)]


@pytest.mark.parametrize(("name", "value"), NONSENSE, ids=NONSENSE_IDS)
def test_nonsense_cannot_be_assigned(
    routed: RoutedLLM, case: tuple[str, str, str], router: FixedRouter, name: str, value: Any
) -> None:
    before = getattr(routed, name)
    with pytest.raises(ConfigurationError, match=name):
        setattr(routed, name, value)
    assert getattr(routed, name) is before
    route, text, answer = case
    response = routed.chat([user(text)])
    assert (routing_of(response)["route"], response.message.content) == (route, answer)


def test_a_fallback_and_a_shadow_cannot_be_assigned_beside_each_other(
    strong: DialectLLM, weak: DialectLLM, router: FixedRouter, hard: str
) -> None:
    shadowed = RoutedLLM(strong=strong, weak=weak, router=router, shadow="weak")
    with pytest.raises(ConfigurationError, match="contradict"):
        shadowed.fallback_to_other = True
    assert (shadowed.fallback_to_other, shadowed.shadow) == (False, "weak")
    assert shadowed.chat([user(hard)]).message.content == "small"
    falling = RoutedLLM(strong=strong, weak=weak, router=router, fallback_to_other=True)
    with pytest.raises(ConfigurationError, match="contradict"):
        falling.shadow = "weak"
    assert (falling.fallback_to_other, falling.shadow) == (True, None)
    assert falling.chat([user(hard)]).message.content == "big"
    # One after the other they may be.
    falling.fallback_to_other = False
    falling.shadow = "weak"
    assert falling.chat([user(hard)]).message.content == "small"
    falling.shadow = None
    falling.fallback_to_other = True
    assert falling.chat([user(hard)]).message.content == "big"


def test_good_values_can_be_assigned(
    routed: RoutedLLM, make_llm: type[DialectLLM], strong: DialectLLM, weak: DialectLLM, easy: str, hard: str
) -> None:
    def said_by(text: str) -> str | None:
        return routed.chat([user(text)]).message.content

    routed.shadow = "strong"
    assert said_by(easy) == "big"
    routed.shadow = None
    assert said_by(easy) == "small"
    weak.error = RuntimeError("down")
    routed.fallback_to_other = True
    assert said_by(easy) == "big"
    weak.error = None
    decisions: list[Any] = []
    routed.text_fn, routed.on_route = (lambda messages: hard), decisions.append
    assert (said_by(easy), len(decisions)) == ("big", 1)
    routed.text_fn = routed.on_route = None
    assert (said_by(easy), len(decisions)) == ("small", 1)
    routed.router = FixedRouter(0.9)
    assert said_by(easy) == "big"
    routed.strong, routed.weak = make_llm(name="bigger"), make_llm(name="smaller")
    assert (said_by(easy), routed.metadata.model_name) == ("bigger", "routed(bigger|smaller)")
    routed.router = FixedRouter(0.1)
    assert said_by(easy) == "smaller"


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"threshold": 0.5, "strong_rate": 0.2}, ConfigurationError),
        ({"strong_rate": 7}, ConfigurationError),
        ({"strong_rate": -0.1}, ConfigurationError),
        ({"strong_rate": float("nan")}, ConfigurationError),
        ({"strong_rate": "most"}, ConfigurationError),
        ({"strong_rate": True}, ConfigurationError),
        ({"threshold": "high"}, ThresholdError),
        ({"threshold": float("inf")}, ThresholdError),
        ({"route": "both"}, ConfigurationError),
        ({"route": ["strong"]}, ConfigurationError),
    ],
    ids=lambda value: "-".join(f"{name}={one}" for name, one in value.items()) if isinstance(value, dict) else None,
)
def test_surroundings_that_cannot_be_meant_are_refused_at_once(
    routed: RoutedLLM, easy: str, given: dict[str, Any], error: type[Exception]
) -> None:
    entered = False
    with routing_options(route="strong"):
        with pytest.raises(error), routing_options(**given):
            entered = True
        assert routed.chat([user(easy)]).message.content == "big"
    assert not entered
    assert routed.chat([user(easy)]).message.content == "small"


# --- tools ---


@pytest.mark.parametrize("api", TOOL_APIS)
@pytest.mark.parametrize("how", ["neither", "named", "shadow"])
async def test_no_message_advises_what_cannot_be_done(
    plain: PlainLLM, make_llm: type[DialectLLM], router: FixedRouter, easy: str, api: str, how: str
) -> None:
    strong = Scripted(lines=[]) if how == "neither" else make_llm(name="big")
    routed = RoutedLLM(strong=strong, weak=plain, router=router, shadow="weak" if how == "shadow" else None)
    with pytest.raises(ConfigurationError) as caught:
        await answered(routed, api, TOOLS, easy, **({"route": "weak"} if how == "named" else {}))
    assert "predict_and_call" not in str(caught.value)
    assert "ReActAgent" in str(caught.value)


class Another(FunctionCallingLLM):
    """An LLM of another provider, which cannot read what it does not know."""

    name: str = "another"
    _asked: list[Any] = PrivateAttr(default_factory=list)

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name=self.name, is_chat_model=True, is_function_calling_model=True)

    @property
    def calls(self) -> list[Any]:
        return self._asked

    def chat(self, messages: Any, **kwargs: Any) -> ChatResponse:
        self._asked.append(("chat", messages, kwargs))
        return ChatResponse(message=said(self.name))

    def get_tool_calls_from_response(self, response: ChatResponse, **kwargs: Any) -> Any:
        msg = "no tool calls of mine"
        raise KeyError(msg)

    def _unused(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError

    achat = stream_chat = astream_chat = complete = stream_complete = acomplete = astream_complete = _unused
    _prepare_chat_with_tools = _unused


@pytest.mark.parametrize("side", ["strong", "weak"])
@pytest.mark.parametrize("form", ["block", "legacy"])
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ('{"a": 2, "b": ', {"a": 2, "b": None}),
        ('{"q": "x', {"q": None}),
        ("[1, 2]", {"arguments": "[1, 2]"}),
        ('"x"', {"arguments": '"x"'}),
        ("null", {"arguments": "null"}),
        ("", {}),
    ],
    ids=["cut-off", "cut-off-text", "list", "text", "null", "nothing"],
)
def test_arguments_that_are_no_object_become_one(
    make_llm: type[DialectLLM], router: FixedRouter, easy: str, side: Any, form: str, arguments: str, expected: Any
) -> None:
    reader, author = Another(), make_llm(name="author")
    pair = {"strong": reader, "weak": author} if side == "strong" else {"strong": author, "weak": reader}
    routed = RoutedLLM(**pair, router=router)
    answer = called(arguments)
    if form == "legacy":
        calls = [{"id": "c1", "type": "function", "function": {"name": "add", "arguments": arguments}}]
        answer = ChatMessage(role="assistant", content="", additional_kwargs={"tool_calls": calls})
    routed.chat([user(easy), answer, result()], route=side)
    given = asked_of(reader)[-1]
    blocks = [block for block in given[1].blocks if isinstance(block, ToolCallBlock)]
    assert [block.tool_kwargs for block in blocks] == [expected]


def test_a_rebuilt_response_is_read_where_the_strong_side_cannot(router: FixedRouter, weak: DialectLLM) -> None:
    routed = RoutedLLM(strong=Another(), weak=weak, router=router)
    message = ChatMessage(
        role="assistant",
        content="",
        additional_kwargs={"tool_calls": [{"id": "l1", "name": "add", "arguments": '{"a": 2, "b": 3}'}]},
    )
    for error_on_none in (False, True):
        (call,) = routed.get_tool_calls_from_response(
            ChatResponse(message=message), error_on_no_tool_call=error_on_none
        )
        assert (call.tool_id, call.tool_name, call.tool_kwargs) == ("l1", "add", {"a": 2, "b": 3})


# --- fallback ---


@pytest.mark.parametrize("api", [*CHAT_APIS, *TOOL_APIS])
async def test_the_second_attempt_sees_what_the_caller_sent(
    make_llm: type[DialectLLM], strong: DialectLLM, router: FixedRouter, easy: str, api: str
) -> None:
    class Appending(make_llm):  # type: ignore[valid-type, misc]
        def _noted(self, method: str, asked: Any, kwargs: dict[str, Any]) -> None:
            asked.append(said("a note of my own"))
            msg = "down"
            raise RuntimeError(msg)

    routed = RoutedLLM(strong=strong, weak=Appending(name="small"), router=router, fallback_to_other=True)
    messages = [user("earlier"), said("yes?")] if "tools" in api else [user("earlier"), said("yes?"), user(easy)]
    args: Any = (TOOLS, easy, messages) if "tools" in api else (messages,)
    sent = list(messages)
    response = await answered(routed, api, *args)
    assert routing_of(response)["fallback"] == {"from": "weak", "error": "RuntimeError"}
    assert [texts_of(asked) for asked in asked_of(strong)] == [["earlier", "yes?", easy]]
    assert messages == sent


# --- event loops ---


def is_clean() -> bool:
    return active_instrument_tags.get() == {} and current_attempt() is None and current_loan.get() is None


@pytest.mark.parametrize("api", ["astream_chat", "astream_complete"])
def test_a_loop_closed_amid_a_chunk_leaves_nothing_behind(
    make_llm: type[DialectLLM], router: FixedRouter, easy: str, api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    complaints: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)
    waits = asyncio.Event()

    class Hanging(make_llm):  # type: ignore[valid-type, misc]
        async def astream_chat(self, messages: Any, **kwargs: Any) -> Any:
            async def gen() -> Any:
                yield ChatResponse(message=said("a")) if api == "astream_chat" else CompletionResponse(text="a")
                waits.set()
                await asyncio.sleep(100)

            return gen()

        astream_complete = astream_chat

    handlers = CallbackManager([StrongCallRateHandler()])
    routed = RoutedLLM(
        strong=make_llm(name="big"), weak=Hanging(name="small"), router=router, callback_manager=handlers
    )

    def abandon() -> None:
        loop = asyncio.new_event_loop()
        loop.set_exception_handler(lambda *_: None)  # That a task is given up is not what this is about.
        asked = easy if "complete" in api else [user(easy)]
        task = loop.create_task(answered(routed, api, asked))
        loop.run_until_complete(waits.wait())
        loop.close()
        del task, loop
        gc.collect()
        assert is_clean()

    contextvars.copy_context().run(abandon)
    gc.collect()
    assert complaints == []
    assert is_clean()


# --- keys ---


def test_a_key_is_in_no_representation(strong: DialectLLM, weak: DialectLLM, router: FixedRouter, case: Any) -> None:
    handlers = CallbackManager([StrongCallRateHandler()])
    routed = RoutedLLM(
        strong=strong, weak=weak, router=router, fallback_to_other=True, callback_manager=handlers, decide="per_turn"
    )
    route, text, _ = case
    delegation = routed._choose(asked_in_chat([user(text)]), {})
    assert delegation.llm is (strong if route == "strong" else weak)
    for shown in (delegation, delegation.attempt, routed._chooser, routed._sides, routed._memory):
        assert "sk-secret" not in repr(shown)
    instead = delegation.other_for(RuntimeError("down"))
    assert instead is not None
    assert "sk-secret" not in repr(instead)
    assert "sk-secret" in repr(strong), "an LLM's own representation holds it"


def test_an_object_of_the_users_own_is_not_read_as_a_providers_answer(
    telling: Any, strong: DialectLLM, router: FixedRouter, easy: str
) -> None:
    class Car(BaseModel):
        """Has fields that look like those of a provider's answer."""

        model: str
        input_tokens: int = 7
        output_tokens: int = 9

    handler = StrongCallRateEventHandler()
    inner = telling(name="told", tool_kwargs={"model": "Corolla"})
    routed = RoutedLLM(strong=strong, weak=inner.as_structured_llm(Car), router=router)
    root = get_dispatcher()
    root.add_event_handler(handler)
    try:
        assert routed.chat([user(easy)]).raw == Car(model="Corolla")
    finally:
        root.event_handlers.remove(handler)
    calls = handler.snapshot()["calls"]
    assert (calls["weak"]["input_tokens"], calls["weak"]["output_tokens"]) == (10, 5)
    assert "Corolla" not in calls["by_model"]


def test_a_setting_that_is_assigned_amid_a_call_is_not_lost(
    strong: DialectLLM, weak: DialectLLM, router: FixedRouter, easy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    routed = RoutedLLM(strong=strong, weak=weak, router=router, threshold=0.5)
    made = RoutedLLM._made_chooser

    def slowly(self: RoutedLLM, sides: Any) -> Any:
        found = made(self, sides)
        monkeypatch.setattr(RoutedLLM, "_made_chooser", made)
        self.threshold = 0.05  # as another thread may
        return found

    monkeypatch.setattr(RoutedLLM, "_made_chooser", slowly)
    routed.complete(easy)
    assert routing_of(routed.complete(easy))["threshold"] == 0.05


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("threshold", "0.65", ThresholdError),
        ("threshold", float("nan"), ThresholdError),
        ("router", FixedRouter(0.5, threshold=None), ThresholdError),
        ("decide", "per-turn", ConfigurationError),
        ("lock_tool_loop", 1, ConfigurationError),
        ("escalate_after", 0, ConfigurationError),
        ("on_router_error", "ignore", ConfigurationError),
        ("router_time_limit", -1, ConfigurationError),
        ("stats", None, ConfigurationError),
    ],
    ids=lambda value: None if isinstance(value, str) else type(value).__name__,
)
def test_a_setting_that_every_call_would_be_refused_for_is_refused_at_once(
    strong: DialectLLM, weak: DialectLLM, router: FixedRouter, easy: str, name: str, value: Any, error: Any
) -> None:
    routed = RoutedLLM(strong=strong, weak=weak, router=router)
    before = getattr(routed, name)
    with pytest.raises(error):
        setattr(routed, name, value)
    assert getattr(routed, name) is before
    assert routed.complete(easy).text == "small"


def test_why_an_engine_answers_nothing_is_logged(
    strong: DialectLLM, weak: DialectLLM, router: FixedRouter, easy: str, caplog: pytest.LogCaptureFixture
) -> None:
    routed = RoutedLLM(strong=strong, weak=weak, router=router)
    with routing_options(strong_rate=0.3), pytest.raises(ConfigurationError):
        routed.predict(PromptTemplate("{query_str}"), query_str=easy)
    assert [record.levelname for record in caplog.records if "cannot be routed" in record.message] == ["WARNING"]


def test_metadata_that_could_not_be_read_once_is_read_again(
    make_llm: type[DialectLLM], strong: DialectLLM, router: FixedRouter, easy: str
) -> None:
    failures = [ValueError("not now")]

    class Shaky(make_llm):  # type: ignore[valid-type, misc]
        @property
        def metadata(self) -> LLMMetadata:
            if failures:
                raise failures.pop()
            return super().metadata

    weak = Shaky(name="small", context_window=1000)
    strong.context_window = 100_000
    routed = RoutedLLM(strong=strong, weak=weak, router=router)
    assert routing_of(routed.complete(easy))["route"] == "weak"
    assert failures == []
    assert routing_of(routed.complete("word " * 5000))["detail"] == "window"


def test_what_cannot_be_read_does_not_fail_a_call_that_is_remembered(
    strong: DialectLLM, weak: DialectLLM, router: FixedRouter
) -> None:
    class Odd(ChatMessage):
        @property
        def content(self) -> str:
            msg = "no text"
            raise ValueError(msg)

    routed = RoutedLLM(strong=strong, weak=weak, router=router, lock_tool_loop=True)
    assert routing_of(routed.chat([Odd(role="user")]))["reason"] == "router_error"


def test_an_open_query_is_not_forgotten_for_the_short_ones_beside_it() -> None:
    spans = SpansOfWork()
    engine = SummaryIndex([], embed_model=MockEmbedding(2)).as_query_engine(llm=MockLLM())
    spans.span_enter("long", None, instance=engine)  # type: ignore[arg-type]
    for number in range(30_000):
        spans.span_enter(f"short {number}", None, instance=engine)  # type: ignore[arg-type]
        spans.span_exit(f"short {number}", None)
    spans.span_enter("step", None, parent_id="long")  # type: ignore[arg-type]
    assert spans.work_of("step") == "long"
    spans.span_drop("long", None)
    spans.span_enter("late", None, parent_id="long")  # type: ignore[arg-type]
    assert spans.work_of("late") == "long", "what reads a stream comes later"
    assert spans.work_of("short 0") is None
    assert len(spans._open) == 2
    assert len(spans._ended) == 10_000


def test_handlers_in_each_others_place_say_so(routed: RoutedLLM, easy: str, caplog: pytest.LogCaptureFixture) -> None:
    wrong = StrongCallRateHandler()
    root = get_dispatcher()
    root.add_event_handler(wrong)  # type: ignore[arg-type]
    try:
        for _ in range(3):
            routed.complete(easy)
    finally:
        root.event_handlers.remove(wrong)  # type: ignore[arg-type]
    assert sum("takes a StrongCallRateEventHandler" in record.message for record in caplog.records) == 1
    manager = CallbackManager([StrongCallRateEventHandler()])  # type: ignore[list-item]
    for ask in (lambda: manager.on_event_start(CBEventType.QUERY), lambda: manager.start_trace("query")):
        with pytest.raises(ConfigurationError, match="takes a StrongCallRateHandler"):
            ask()


@pytest.mark.parametrize("setting", ["fallback_to_other", "decide", "text_fn", "on_route", "threshold", "window"])
def test_no_message_tells_a_key(strong: DialectLLM, weak: DialectLLM, router: FixedRouter, setting: str) -> None:
    secret = MockLLM()
    object.__setattr__(secret, "system_prompt", "x" * 50 + "sk-secret" + "x" * 50)
    assert "sk-secret" in repr(secret)
    makers: list[Any] = [
        lambda: RouterSelector(router=router, strong=secret, weak=secret),  # type: ignore[arg-type]
        lambda: StrongCallRateHandler(**{setting: secret} if setting == "window" else {"prices": {"a": secret}}),
        lambda: RoutedLLM(strong=strong, weak=weak, router=router, threshold=0.5, strong_rate=secret),  # type: ignore[arg-type]
    ]
    if setting != "window":
        makers.append(lambda: RoutedLLM(strong=strong, weak=weak, router=router, **{setting: secret}))
    for make in makers:
        with pytest.raises(PrefrouteError) as raised:
            make()
        assert "sk-secret" not in str(raised.value)


def test_what_an_llm_asks_in_its_own_call_does_not_stand_for_it(
    telling: Any, strong: DialectLLM, router: FixedRouter, easy: str
) -> None:
    guard = telling(name="guard", tool_kwargs={})

    class Guarded(MockLLM):
        @llm_chat_callback()
        def chat(self, messages: Any, **kwargs: Any) -> ChatResponse:
            guard.chat(messages)
            raw = {"model": "big", "usage": {"prompt_tokens": 1000, "completion_tokens": 1000}}
            return ChatResponse(message=ChatMessage(role="assistant", content="x"), raw=raw)

    handler = StrongCallRateEventHandler()
    routed = RoutedLLM(strong=strong, weak=Guarded(), router=router)
    root = get_dispatcher()
    root.add_event_handler(handler)
    try:
        routed.chat([user(easy)])
    finally:
        root.event_handlers.remove(handler)
    calls = handler.snapshot()["calls"]
    assert (calls["weak"]["calls"], calls["weak"]["input_tokens"], list(calls["by_model"])) == (1, 1000, ["big"])
