"""The router is asked the person's question, whichever part of the framework calls the LLM, and by whichever method."""

from __future__ import annotations

import json
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest
from llama_index.core import MockEmbedding, Settings, VectorStoreIndex
from llama_index.core.agent.react.formatter import ReActChatFormatter
from llama_index.core.agent.react.output_parser import ReActOutputParser
from llama_index.core.agent.workflow import AgentWorkflow, FunctionAgent, ReActAgent
from llama_index.core.base.llms.types import ToolCallBlock
from llama_index.core.callbacks import CallbackManager
from llama_index.core.chat_engine import (
    CondensePlusContextChatEngine,
    CondenseQuestionChatEngine,
    ContextChatEngine,
    SimpleChatEngine,
)
from llama_index.core.indices.query.query_transform import HyDEQueryTransform
from llama_index.core.llms import ChatMessage, TextBlock
from llama_index.core.memory import ChatMemoryBuffer, Memory, StaticMemoryBlock
from llama_index.core.memory.memory import InsertMethod
from llama_index.core.node_parser import TokenTextSplitter
from llama_index.core.postprocessor import LLMRerank
from llama_index.core.program import FunctionCallingProgram, LLMTextCompletionProgram
from llama_index.core.prompts import ChatPromptTemplate, PromptTemplate
from llama_index.core.query_engine import RetrieverQueryEngine, SubQuestionQueryEngine
from llama_index.core.question_gen import LLMQuestionGenerator
from llama_index.core.response_synthesizers import get_response_synthesizer
from llama_index.core.retrievers import BaseRetriever, QueryFusionRetriever
from llama_index.core.retrievers.fusion_retriever import QUERY_GEN_PROMPT
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from llama_index.core.selectors import LLMMultiSelector, LLMSingleSelector
from llama_index.core.tools import QueryEngineTool
from llamaindex_agents import AGENT_WARNINGS, TOOLS, Pair, Scripted
from sqlalchemy.ext.asyncio import create_async_engine

from llamaindex_router import RoutedLLM
from prefroute import ConfigurationError, RouterError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import DialectLLM

    from prefroute.testing import FixedRouter

FIRST, SECOND = "What is a prime number?", "And why is {one} none?\nBe brief, as in: Follow Up Input"
NODES = [
    NodeWithScore(node=TextNode(text=f"Passage {n}: " + "the sky is blue and the sea is wide. " * 40), score=1.0)
    for n in range(3)
]
CHAT_APIS = ["chat", "achat", "stream_chat", "astream_chat"]
chat_apis = pytest.mark.parametrize("api", CHAT_APIS)


LATER = find_spec("llama_index.core.agent.workflow.agent_context") is not None
"""Whether this release's ReAct agent puts up with an empty answer, and can be used by `predict_and_call`."""


class Passages(BaseRetriever):
    """Finds the same passages for everything, and writes down what it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        self.asked.append(query_bundle.query_str)
        return NODES


def memory() -> ChatMemoryBuffer:
    # The default memory of engines and agents is an SQLite connection that they never close.
    return ChatMemoryBuffer.from_defaults(token_limit=100_000)


@pytest.fixture
def settings() -> Iterator[object]:
    saved = dict(vars(Settings))
    Settings.transformations = [TokenTextSplitter()]
    yield Settings
    vars(Settings).clear()
    vars(Settings).update(saved)


@pytest.fixture
def small_windows(strong: DialectLLM, weak: DialectLLM) -> None:
    """So small that a synthesizer has to call several times."""
    strong.context_window = weak.context_window = 1000


@pytest.fixture
def actor(make_llm: type[DialectLLM]) -> Any:
    """Makes an LLM that says its lines one after the other: a text, or the name of a tool and its arguments."""

    class Actor(make_llm):  # type: ignore[valid-type, misc]
        lines: list[Any]

        def _message(self, text: str, asked: Any, kwargs: dict[str, Any]) -> ChatMessage:
            line = self.lines.pop(0)
            if isinstance(line, str):
                return ChatMessage(role="assistant", content=line)
            call = ToolCallBlock(tool_call_id=f"call-{len(self.lines)}", tool_name=line[0], tool_kwargs=line[1])
            return ChatMessage(role="assistant", blocks=[call])

    return Actor


async def chatted(engine: Any, api: str, text: str) -> str:
    if api == "chat":
        return str(engine.chat(text))
    if api == "achat":
        return str(await engine.achat(text))
    if api == "stream_chat":
        return "".join(engine.stream_chat(text).response_gen)
    streamed = await engine.astream_chat(text)
    return "".join([token async for token in streamed.async_response_gen()])


def calls_of(*llms: DialectLLM) -> list[str]:
    return [method for llm in llms for method, _, _ in llm.calls if method != "get_tool_calls"]


# --- synthesizers and query engines ---


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("use_async", [False, True])
@pytest.mark.parametrize(
    "mode", ["compact", "refine", "tree_summarize", "simple_summarize", "accumulate", "compact_accumulate"]
)
@pytest.mark.usefixtures("small_windows")
async def test_synthesizers_ask_about_the_question(
    routed: RoutedLLM,
    strong: DialectLLM,
    weak: DialectLLM,
    router: FixedRouter,
    case: tuple[str, str, str],
    mode: str,
    use_async: bool,
    streaming: bool,
) -> None:
    if streaming and mode in {"accumulate", "compact_accumulate"}:
        pytest.skip("not in the framework")
    _, text, name = case
    synthesizer = get_response_synthesizer(
        response_mode=mode, llm=routed, callback_manager=CallbackManager(), use_async=use_async, streaming=streaming
    )
    response = synthesizer.synthesize(text, NODES)
    assert name in ("".join(response.response_gen) if streaming else str(response))
    response = await synthesizer.asynthesize(text, NODES)
    assert name in ("".join([token async for token in response.response_gen]) if streaming else str(response))
    assert set(router.prompts) == {text}
    chosen, other = (strong, weak) if name == "big" else (weak, strong)
    assert calls_of(other) == []
    assert len(calls_of(chosen)) >= (2 if mode == "simple_summarize" else 4)


@pytest.mark.parametrize("mode", ["compact", "tree_summarize"])
async def test_synthesizers_of_objects_ask_about_the_question(
    routed: RoutedLLM, router: FixedRouter, case: tuple[str, str, str], mode: str
) -> None:
    synthesizer = get_response_synthesizer(
        response_mode=mode, llm=routed, callback_manager=CallbackManager(), output_cls=Pair
    )
    # The weak one's dialect is the one that the framework reads from a structured answer of either kind.
    assert synthesizer.synthesize(case[1], NODES[:1]).response == Pair(a=2, b=3)
    assert (await synthesizer.asynthesize(case[1], NODES[:1])).response == Pair(a=2, b=3)
    assert set(router.prompts) == {case[1]}


async def test_a_vector_index_of_the_application_asks_about_the_question(
    routed: RoutedLLM, router: FixedRouter, settings: Any, case: tuple[str, str, str]
) -> None:
    settings.llm = routed
    settings.callback_manager = CallbackManager()
    index = VectorStoreIndex([node.node for node in NODES], embed_model=MockEmbedding(8))
    assert case[2] in str(index.as_query_engine().query(case[1]))
    assert case[2] in str(await index.as_query_engine().aquery(QueryBundle(case[1], custom_embedding_strs=["other"])))
    assert set(router.prompts) == {case[1]}


@pytest.mark.parametrize("use_async", [False, True])
async def test_sub_questions_are_questions_of_their_own(
    make_llm: type[DialectLLM], router: FixedRouter, hard: str, use_async: bool
) -> None:
    # The strong one is asked for sub-questions and, at the end, for the answer; the weak one answers those.
    questions = json.dumps({"items": [{"sub_question": f"part {n}", "tool_name": "book"} for n in (1, 2)]})
    strong, weak = make_llm(name=f"```json\n{questions}\n```"), make_llm(name="small")
    routed = RoutedLLM(strong=strong, weak=weak, router=router)
    manager = CallbackManager()
    book = RetrieverQueryEngine.from_args(Passages(), llm=routed)
    engine = SubQuestionQueryEngine.from_defaults(
        [QueryEngineTool.from_defaults(book, name="book", description="A book.")],
        llm=routed,
        question_gen=LLMQuestionGenerator.from_defaults(llm=routed),
        response_synthesizer=get_response_synthesizer(llm=routed, callback_manager=manager),
        verbose=False,
        use_async=use_async,
    )
    for ask in (engine.query, engine.aquery):
        response = ask(hard)
        if ask == engine.aquery:
            response = await response
        assert "sub_question" in str(response)
    assert set(router.prompts) == {hard, "part 1", "part 2"}
    assert calls_of(weak)[:2] in (["chat", "chat"], ["achat", "achat"])
    assert len(calls_of(weak)) == len(calls_of(strong)) == 4


@pytest.mark.parametrize("use_async", [False, True])
async def test_a_fusion_retriever_asks_about_the_question(
    routed: RoutedLLM, router: FixedRouter, strong: DialectLLM, weak: DialectLLM, hard: str, use_async: bool
) -> None:
    strong.name = "one way to say it\nanother"
    passages = Passages()
    fusion = QueryFusionRetriever([passages], llm=routed, num_queries=3, use_async=use_async)
    assert fusion.retrieve(hard)
    assert await fusion.aretrieve(hard)
    assert passages.asked == [hard, "one way to say it", "another"] * 2
    assert set(router.prompts) == {hard}
    assert weak.calls == []


@pytest.mark.parametrize(
    "query",
    [
        "Query: is this one?\nQueries:\nQuery: yes",
        "  indented, and over\n\ntwo lines ",
        "with {braces} and {query} and {num_queries}",
        "Queries:",
    ],
)
def test_what_a_fusion_retriever_is_asked_is_found_whatever_it_looks_like(
    routed: RoutedLLM, router: FixedRouter, query: str
) -> None:
    routed.complete(QUERY_GEN_PROMPT.format(num_queries=3, query=query))
    assert [prompt.strip() for prompt in router.prompts] == [query.strip()]


@pytest.mark.parametrize(
    "prompt",
    [
        "Generate 3 search queries.\nQuery: {query}\nQueries:\n",
        "Query: what?\nQueries:",
        "Chat History:\nuser: a\nFollow Up Input: b\nStandalone question:",
        "Current message: hello",
        "",
    ],
)
def test_a_prompt_of_the_applications_own_is_asked_whole(routed: RoutedLLM, router: FixedRouter, prompt: str) -> None:
    routed.complete(prompt)
    assert router.prompts == [prompt]


def test_hypothetical_documents_are_for_the_question(
    routed: RoutedLLM, router: FixedRouter, case: tuple[str, str, str]
) -> None:
    bundle = HyDEQueryTransform(llm=routed)(case[1])
    assert bundle.embedding_strs == [case[2], case[1]]
    assert router.prompts == [case[1]]


async def test_selectors_ask_about_the_query(
    routed: RoutedLLM, router: FixedRouter, strong: DialectLLM, hard: str
) -> None:
    strong.name = '[{"choice": 2, "reason": "because"}]'
    for selector in (LLMSingleSelector.from_defaults(llm=routed), LLMMultiSelector.from_defaults(llm=routed)):
        assert selector.select(["a", "b"], hard).inds == [1]
        assert (await selector.aselect(["a", "b"], QueryBundle(hard))).inds == [1]
    assert set(router.prompts) == {hard}


async def test_a_reranker_asks_about_the_query(
    routed: RoutedLLM, router: FixedRouter, strong: DialectLLM, hard: str
) -> None:
    strong.name = "Doc: 1, Relevance: 9"
    reranker = LLMRerank(llm=routed, choice_batch_size=1, top_n=6)
    reranker.callback_manager = CallbackManager()
    assert len(reranker.postprocess_nodes(NODES, query_str=hard)) == 3
    assert len(await reranker.apostprocess_nodes(NODES, query_str=hard)) == 3
    assert set(router.prompts) == {hard}
    assert len(calls_of(strong)) == 6


# --- chat engines ---


@chat_apis
async def test_a_simple_chat_engine_asks_about_each_message(
    routed: RoutedLLM, router: FixedRouter, api: str, hard: str
) -> None:
    engine = SimpleChatEngine.from_defaults(llm=routed, memory=memory(), system_prompt="be brief")
    assert await chatted(engine, api, FIRST) == "small"
    assert await chatted(engine, api, hard) == "big"
    assert router.prompts == [FIRST, hard]


@chat_apis
@pytest.mark.usefixtures("small_windows")
async def test_a_context_chat_engine_asks_about_each_message(
    routed: RoutedLLM, router: FixedRouter, api: str, hard: str
) -> None:
    engine = ContextChatEngine.from_defaults(Passages(), llm=routed, memory=memory(), system_prompt="be brief")
    assert await chatted(engine, api, FIRST) == "small"
    assert await chatted(engine, api, hard) == "big"
    assert set(router.prompts) == {FIRST, hard}


@chat_apis
async def test_a_condensing_chat_engine_asks_about_the_message_and_what_becomes_of_it(
    routed: RoutedLLM, router: FixedRouter, api: str
) -> None:
    passages = Passages()
    engine = CondenseQuestionChatEngine.from_defaults(
        RetrieverQueryEngine.from_args(passages, llm=routed), llm=routed, memory=memory()
    )
    assert await chatted(engine, api, FIRST) == "small"
    assert router.prompts == [FIRST]
    assert await chatted(engine, api, SECOND) == "small"
    # The model's rewording, "small", is what the index is queried for.
    assert passages.asked == [FIRST, "small"]
    assert router.prompts[:2] == [FIRST, SECOND]
    assert set(router.prompts[2:]) <= {SECOND, "small"}


@pytest.mark.parametrize(
    "first", [FIRST, "a\n  Follow Up Input: x\n  Standalone question:", "a\n  Chat History:\n  b {question}"]
)
@chat_apis
async def test_a_condensing_chat_engine_with_context_asks_about_each_message(
    routed: RoutedLLM, router: FixedRouter, api: str, first: str
) -> None:
    passages = Passages()
    engine = CondensePlusContextChatEngine.from_defaults(passages, llm=routed, memory=memory())
    assert await chatted(engine, api, first) == "small"
    assert router.prompts == [first]
    router.prompts.clear()
    assert await chatted(engine, api, SECOND) == "small"
    assert passages.asked == [first, "small"]
    assert set(router.prompts) == {SECOND}


def test_a_condense_prompt_of_ones_own_is_asked_whole(routed: RoutedLLM, router: FixedRouter) -> None:
    prompt = "{chat_history}\n\nReword: {question}"
    engine = CondensePlusContextChatEngine.from_defaults(
        Passages(), llm=routed, memory=memory(), condense_prompt=prompt
    )
    engine.chat(FIRST)
    engine.chat("and?")
    assert router.prompts[1].endswith("\n\nReword: and?")
    assert router.prompts[-1] == "and?"


# --- programs ---


async def test_programs(routed: RoutedLLM, router: FixedRouter, case: tuple[str, str, str]) -> None:
    _, text, _ = case
    program = FunctionCallingProgram.from_defaults(Pair, "{question}", llm=routed)
    assert program(question=text) == Pair(a=2, b=3)
    assert await program.acall(question=text) == Pair(a=2, b=3)
    list(program.stream_call(question=text))
    [_ async for _ in await program.astream_call(question=text)]
    assert router.prompts == [text] * 4


async def test_completion_programs(make_llm: type[DialectLLM], router: FixedRouter, easy: str, hard: str) -> None:
    strong, weak = make_llm(name='{"a": 1, "b": 2}'), make_llm(name='{"a": 3, "b": 4}')
    # The framework itself writes the format after the question, and says nothing of where it begins.
    routed = RoutedLLM(strong=strong, weak=weak, router=router, text_fn=lambda messages: messages[-1].content[:6])
    program = LLMTextCompletionProgram.from_defaults(output_cls=Pair, prompt_template_str="{query_str}", llm=routed)
    assert program(query_str=easy) == Pair(a=3, b=4)
    assert await program.acall(query_str=easy) == Pair(a=3, b=4)
    assert router.prompts == [easy] * 2
    routed.text_fn = None
    program(query_str=hard)
    assert router.prompts[-1].startswith(hard)


# --- agents ---


@AGENT_WARNINGS
@pytest.mark.parametrize("streaming", [False, True])
async def test_a_function_agent_asks_once_about_the_question(
    routed: RoutedLLM,
    strong: DialectLLM,
    weak: DialectLLM,
    router: FixedRouter,
    case: tuple[str, str, str],
    streaming: bool,
) -> None:
    route, text, name = case
    agent = FunctionAgent(tools=TOOLS, llm=routed, streaming=streaming, system_prompt="be brief")
    result = await agent.run(text, memory=memory())
    assert str(result) == name
    assert router.prompts == [text]
    chosen, other = (strong, weak) if route == "strong" else (weak, strong)
    assert calls_of(other) == []
    assert len(calls_of(chosen)) == 2


@AGENT_WARNINGS
async def test_each_message_to_an_agent_is_asked_about(
    routed: RoutedLLM, router: FixedRouter, easy: str, hard: str
) -> None:
    agent, kept = FunctionAgent(tools=TOOLS, llm=routed, streaming=False), memory()
    assert str(await agent.run(easy, memory=kept)) == "small"
    assert str(await agent.run(hard, memory=kept)) == "big"
    assert str(await agent.run(easy, memory=kept)) == "small"
    assert router.prompts == [easy, hard, easy]


@AGENT_WARNINGS
async def test_a_hand_over_to_another_agent_goes_on_with_the_question(
    make_llm: type[DialectLLM], actor: Any, router: FixedRouter, easy: str
) -> None:
    weak = actor(
        name="small",
        lines=[
            ("handoff", {"to_agent": "second", "reason": "it can add"}),
            ("add", {"a": 2, "b": 3}),
            "it is 5",
        ],
    )
    routed = RoutedLLM(strong=make_llm(name="big"), weak=weak, router=router)
    first, second = (
        FunctionAgent(
            name=name, description=name, system_prompt=f"I am {name}", tools=TOOLS, llm=routed, streaming=False
        )
        for name in ("first", "second")
    )
    workflow = AgentWorkflow([first, second], root_agent="first")
    assert str(await workflow.run(user_msg=easy, memory=memory())) == "it is 5"
    assert weak.lines == []
    assert router.prompts == [easy]


@AGENT_WARNINGS
@pytest.mark.parametrize("kind", [FunctionAgent, AgentWorkflow])
@pytest.mark.parametrize("text", ["say hi", "Current message:\nnone\n\nCurrent state:\nof the art\n"])
async def test_the_state_of_an_agent_is_none_of_the_question(
    routed: RoutedLLM, weak: DialectLLM, router: FixedRouter, kind: Any, text: str
) -> None:
    state = {"note": "Current message:\n hm", "n": 3}
    if kind is FunctionAgent:
        agent: Any = FunctionAgent(tools=TOOLS, llm=routed, streaming=False, initial_state=state)
    else:
        agent = AgentWorkflow([FunctionAgent(tools=TOOLS, llm=routed, streaming=False)], initial_state=state)
    assert str(await agent.run(user_msg=text, memory=memory())) == "small"
    (_, messages, _) = weak.calls[0]
    assert messages[-1].content.startswith("Current state:"), "the model is told the state"
    assert [prompt.strip() for prompt in router.prompts] == [text.strip()]


@AGENT_WARNINGS
@pytest.mark.parametrize("streaming", [False, True])
async def test_a_react_agent_asks_once_about_the_question(
    make_llm: type[DialectLLM], router: FixedRouter, easy: str, streaming: bool
) -> None:
    weak = Scripted(
        lines=[
            'Thought: I need a tool.\nAction: add\nAction Input: {"a": 2, "b": 3}',
            "this cannot be parsed as a step: Action:",
            *([""] if LATER else []),
            "Thought: I can answer without using any more tools.\nAnswer: 5",
        ]
    )
    routed = RoutedLLM(strong=make_llm(name="big"), weak=weak, router=router)
    result = await ReActAgent(tools=TOOLS, llm=routed, streaming=streaming).run(easy, memory=memory())
    assert str(result) == "5"
    assert weak.lines == []
    assert router.prompts == [easy]


@AGENT_WARNINGS
@pytest.mark.skipif(not LATER, reason="not in this release")
@pytest.mark.parametrize("api", ["predict_and_call", "apredict_and_call"])
async def test_predict_and_call_by_a_model_without_tools_asks_once(
    make_llm: type[DialectLLM], router: FixedRouter, easy: str, api: str
) -> None:
    weak = Scripted(lines=['Thought: I need a tool.\nAction: add\nAction Input: {"a": 2, "b": 3}'])
    routed = RoutedLLM(strong=make_llm(name="big"), weak=weak, router=router)
    # Without these, the framework's own ReAct agent cannot be made in this place.
    given = {"react_chat_formatter": ReActChatFormatter(), "output_parser": ReActOutputParser(), "memory": memory()}
    answer = getattr(routed, api)(TOOLS, easy, **given)
    assert (answer if api == "predict_and_call" else await answer).response == "5"
    assert router.prompts == [easy]


@AGENT_WARNINGS
@pytest.mark.skipif("early_stopping_method" not in FunctionAgent.model_fields, reason="not in this release")
@pytest.mark.parametrize("kind", [FunctionAgent, ReActAgent, AgentWorkflow])
async def test_an_agent_that_is_stopped_early_sums_up_the_same_question(
    make_llm: type[DialectLLM], router: FixedRouter, weak: DialectLLM, easy: str, kind: Any
) -> None:
    lines = ['Thought: I need a tool.\nAction: add\nAction Input: {"a": 2, "b": 3}', "I ran out of time"]
    llm = Scripted(lines=lines) if kind is ReActAgent else weak
    routed = RoutedLLM(strong=make_llm(name="big"), weak=llm, router=router)
    if kind is AgentWorkflow:
        agent: Any = AgentWorkflow([FunctionAgent(tools=TOOLS, llm=routed)], early_stopping_method="generate")
    else:
        agent = kind(tools=TOOLS, llm=routed, early_stopping_method="generate")
    result = await agent.run(user_msg=easy, memory=memory(), max_iterations=1)
    assert str(result) == ("I ran out of time" if kind is ReActAgent else "small")
    assert router.prompts == [easy]


@AGENT_WARNINGS
@pytest.mark.parametrize("insert_method", [InsertMethod.USER, InsertMethod.SYSTEM])
async def test_what_a_memory_adds_is_none_of_the_question(
    routed: RoutedLLM, weak: DialectLLM, router: FixedRouter, easy: str, insert_method: InsertMethod
) -> None:
    engine = create_async_engine("sqlite+aiosqlite:///:memory:")
    block = StaticMemoryBlock(name="core", static_content=[TextBlock(text="The user is called Ann.")], priority=0)
    try:
        kept = Memory.from_defaults(async_engine=engine, memory_blocks=[block], insert_method=insert_method)
        agent = FunctionAgent(tools=TOOLS, llm=routed, streaming=False)
        assert str(await agent.run(easy, memory=kept)) == "small"
        assert str(await agent.run("and now?", memory=kept)) == "small"
    finally:
        await engine.dispose()
    assert any("Ann" in (message.content or "") for message in weak.calls[0][1]), "the model is told it"
    assert router.prompts == [easy, "and now?"]


@pytest.mark.parametrize(
    ("messages", "asked"),
    [
        (
            [("user", FIRST), ("assistant", "I see."), ("user", "Observation: pale. Why?")],
            "Observation: pale. Why?",
        ),
        ([("user", "<system-reminder>be kind</system-reminder>\nsay hi")], "say hi"),
        ([("user", FIRST), ("assistant", "a"), ("user", "<system-reminder>be kind</system-reminder>")], FIRST),
        ([("user", "<memory> of a goldfish, how long?")], "<memory> of a goldfish, how long?"),
        ([("user", "Current state: of the art?")], "Current state: of the art?"),
        (
            [("user", FIRST), ("assistant", "a"), ("system", "You have reached the maximum number of iterations (3).")],
            FIRST,
        ),
        ([("user", "You have reached the maximum number of iterations. Why?")], None),
    ],
)
async def test_words_of_a_person_that_look_like_a_frameworks(
    routed: RoutedLLM, router: FixedRouter, messages: list[tuple[str, str]], asked: str | None
) -> None:
    routed.chat([ChatMessage(role=role, content=content) for role, content in messages])
    assert router.prompts == [messages[-1][1] if asked is None else asked]


# --- text_fn ---


async def every_way(routed: RoutedLLM, text: str) -> list[str]:
    """Call it by each method with the same question, and name the methods."""
    prompt = PromptTemplate("Context: long.\nQ: {query_str}").partial_format(query_str=text)
    user = [ChatMessage(content=text)]
    done = {
        "chat": routed.chat(user),
        "achat": await routed.achat(user),
        "stream_chat": list(routed.stream_chat(user)),
        "astream_chat": [_ async for _ in await routed.astream_chat(user)],
        "complete": routed.complete(text),
        "acomplete": await routed.acomplete(text),
        "stream_complete": list(routed.stream_complete(text)),
        "astream_complete": [_ async for _ in await routed.astream_complete(text)],
        "predict": routed.predict(prompt),
        "apredict": await routed.apredict(prompt),
        "stream": list(routed.stream(prompt)),
        "astream": [_ async for _ in await routed.astream(prompt)],
        "structured_predict": routed.structured_predict(Pair, prompt),
        "astructured_predict": await routed.astructured_predict(Pair, prompt),
        "stream_structured_predict": list(routed.stream_structured_predict(Pair, prompt)),
        "astream_structured_predict": [_ async for _ in await routed.astream_structured_predict(Pair, prompt)],
        "chat_with_tools": routed.chat_with_tools(TOOLS, text),
        "achat_with_tools": await routed.achat_with_tools(TOOLS, chat_history=user),
        "stream_chat_with_tools": list(routed.stream_chat_with_tools(TOOLS, text)),
        "astream_chat_with_tools": [_ async for _ in await routed.astream_chat_with_tools(TOOLS, text)],
        "predict_and_call": routed.predict_and_call(TOOLS, text),
        "apredict_and_call": await routed.apredict_and_call(TOOLS, text),
    }
    return list(done)


async def test_a_text_function_gets_the_messages_of_every_call(
    strong: DialectLLM, weak: DialectLLM, router: FixedRouter, easy: str, hard: str
) -> None:
    seen: list[list[ChatMessage]] = []

    def text_fn(messages: list[ChatMessage]) -> str:
        seen.append(messages)
        return hard

    routed = RoutedLLM(strong=strong, weak=weak, router=router, text_fn=text_fn)
    methods = await every_way(routed, easy)
    for method, messages in zip(methods, seen, strict=True):
        templated = method.endswith("predict") or method in {"stream", "astream"}
        assert isinstance(messages, list), method
        (message,) = messages
        assert isinstance(message, ChatMessage), method
        assert message.role.value == "user", method
        assert message.content == (f"Context: long.\nQ: {easy}" if templated else easy), method
    assert router.prompts == [hard] * len(methods)
    assert weak.calls == []


def test_a_text_function_gets_the_whole_conversation(
    strong: DialectLLM, weak: DialectLLM, router: FixedRouter, easy: str, hard: str
) -> None:
    seen: list[Any] = []
    routed = RoutedLLM(strong=strong, weak=weak, router=router, text_fn=lambda messages: seen.append(messages) or hard)
    history = [ChatMessage(role="system", content="be brief"), ChatMessage(content=easy)]
    routed.chat(history)
    routed.chat_with_tools(TOOLS, "more", history)
    template = ChatPromptTemplate(message_templates=[*history, ChatMessage(content="{query_str}")])
    routed.predict(template, query_str="rest")
    assert [[message.content for message in messages] for messages in seen] == [
        ["be brief", easy],
        ["be brief", easy, "more"],
        ["be brief", easy, "rest"],
    ]
    assert len(history) == 2


@pytest.mark.parametrize("fault", [RuntimeError("no"), None, 3, b"bytes"])
async def test_where_a_text_function_fails_the_router_has_failed(
    strong: DialectLLM, weak: DialectLLM, router: FixedRouter, hard: str, fault: Any
) -> None:
    def text_fn(messages: Any) -> Any:
        if isinstance(fault, Exception):
            raise fault
        return fault

    routed = RoutedLLM(strong=strong, weak=weak, router=router, text_fn=text_fn, on_router_error="weak")
    methods = await every_way(routed, hard)
    assert routed.stats.snapshot()["by_reason"] == {"router_error": len(methods)}
    assert routed.stats.strong_rate == 0.0
    assert router.prompts == strong.calls == []
    raising = RoutedLLM(strong=strong, weak=weak, router=router, text_fn=text_fn, on_router_error="raise")
    with pytest.raises(RouterError):
        raising.complete(hard)
    with pytest.raises(RouterError):
        await raising.achat([ChatMessage(content=hard)])


async def _coroutine(messages: Any) -> str:
    return ""


@pytest.mark.parametrize("text_fn", ["text", 3, _coroutine])
def test_a_text_function_must_be_a_plain_function(
    strong: DialectLLM, weak: DialectLLM, router: FixedRouter, text_fn: Any
) -> None:
    with pytest.raises(ConfigurationError, match="text_fn"):
        RoutedLLM(strong=strong, weak=weak, router=router, text_fn=text_fn)


def test_a_text_function_is_not_asked_where_the_side_is_named(
    strong: DialectLLM, weak: DialectLLM, router: FixedRouter, easy: str
) -> None:
    routed = RoutedLLM(strong=strong, weak=weak, router=router, text_fn=lambda messages: 1 / 0)
    assert routed.complete(easy, route="weak").text == "small"
    assert routed.stats.snapshot()["by_reason"] == {"forced": 1}
