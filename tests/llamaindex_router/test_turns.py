"""One decision a turn, what a call may bring, and which side cannot take a call."""

from __future__ import annotations

import asyncio
import contextvars
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from llama_index.core import async_utils
from llama_index.core.agent.workflow import AgentWorkflow, FunctionAgent, ReActAgent
from llama_index.core.base.llms.types import ToolCallBlock
from llama_index.core.callbacks import CallbackManager
from llama_index.core.chat_engine import CondensePlusContextChatEngine, SimpleChatEngine
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.llms import ChatMessage, LLMMetadata
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.prompts import PromptTemplate
from llama_index.core.query_engine import RetrieverQueryEngine, RouterQueryEngine
from llama_index.core.response_synthesizers import get_response_synthesizer
from llama_index.core.retrievers import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from llama_index.core.selectors import LLMSingleSelector
from llama_index.core.tools import FunctionTool, QueryEngineTool
from llamaindex_agents import AGENT_WARNINGS, TOOLS, Pair, Scripted

from llamaindex_router import RoutedLLM, RouterSelector, routing_options
from prefroute import ConfigurationError, RoutingDecision, ThresholdError
from prefroute.routers.baselines import RandomRouter
from prefroute.testing import FailingRouter, FixedRouter, SlowRouter

if TYPE_CHECKING:
    from conftest import DialectLLM, EventLog, PlainLLM

NODES = [
    NodeWithScore(node=TextNode(text=f"Passage {n}: " + "the sky is blue and the sea is wide. " * 40), score=1.0)
    for n in range(3)
]
QUESTION = PromptTemplate("Context: a long text.\nQ: {query_str}\nA:")
MODES = ["compact", "refine", "tree_summarize", "accumulate", "compact_accumulate"]

CARRIES_CONTEXT = hasattr(async_utils, "contextvars")
"""Whether this release's threads for `use_async` know of the query that they are part of."""


class Passages(BaseRetriever):
    """Finds the same passages for everything."""

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return NODES


def memory() -> ChatMemoryBuffer:
    # The default memory of engines and agents is an SQLite connection that they never close.
    return ChatMemoryBuffer.from_defaults(token_limit=100_000)


def user(text: str) -> list[ChatMessage]:
    return [ChatMessage(content=text)]


def step(question: str, *results: str, routed_call: ChatMessage | None = None) -> list[ChatMessage]:
    """A turn in which a tool was called and gave its results, one after the other."""
    messages = user(question)
    for number, result in enumerate(results):
        call = ToolCallBlock(tool_call_id=f"c{number}", tool_name="add", tool_kwargs={"a": number, "b": 3})
        messages.append(routed_call or ChatMessage(role="assistant", blocks=[call]))
        messages.append(ChatMessage(role="tool", content=result, additional_kwargs={"tool_call_id": f"c{number}"}))
    return messages


def routing_of(response: Any) -> dict[str, Any]:
    routing: dict[str, Any] = response.additional_kwargs["routing"]
    return routing


def calls_of(*llms: DialectLLM) -> list[str]:
    return [method for llm in llms for method, _, _ in llm.calls if method != "get_tool_calls"]


def ids_of(events: EventLog) -> set[str]:
    """Ids of the decisions under which LLMs were called."""
    starts = events.named("LLMChatStartEvent", "LLMCompletionStartEvent")
    return {event.tags["routing"]["id"] for event in starts}


def check_decisions(routed: RoutedLLM, router: FixedRouter, events: EventLog, count: int) -> None:
    """So many decisions, whoever counts them, and all of them were followed."""
    announced = {event.decision.id for event in events.named("RoutingDecisionEvent")}
    assert len(events.named("RoutingDecisionEvent")) == len(announced) == count
    assert routed.stats.total == count
    assert len(router.prompts) == count
    assert ids_of(events) == announced


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


# --- a query is a turn ---


@pytest.mark.parametrize("use_async", [False, True])
@pytest.mark.parametrize("api", ["query", "aquery"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.usefixtures("small_windows")
async def test_a_query_is_decided_once(
    routed: RoutedLLM,
    strong: DialectLLM,
    router: FixedRouter,
    events: EventLog,
    hard: str,
    mode: str,
    api: str,
    use_async: bool,
) -> None:
    if use_async and api == "query" and not CARRIES_CONTEXT:
        pytest.skip("not in this release")
    synthesizer = get_response_synthesizer(
        response_mode=mode, llm=routed, callback_manager=CallbackManager(), use_async=use_async
    )
    engine = RetrieverQueryEngine(Passages(), synthesizer)
    for count in (1, 2):
        assert "big" in str(await engine.aquery(hard) if api == "aquery" else engine.query(hard))
        check_decisions(routed, router, events, count)
    assert len(calls_of(strong)) >= 4


@pytest.mark.parametrize("mode", ["compact", "tree_summarize", "simple_summarize"])
def test_a_streamed_query_is_decided_once(
    routed: RoutedLLM, router: FixedRouter, events: EventLog, hard: str, mode: str
) -> None:
    synthesizer = get_response_synthesizer(
        response_mode=mode, llm=routed, callback_manager=CallbackManager(), streaming=True
    )
    engine = RetrieverQueryEngine(Passages(), synthesizer)
    for count in (1, 2):
        assert "".join(engine.query(hard).response_gen) == "big"
        check_decisions(routed, router, events, count)


@pytest.mark.usefixtures("small_windows")
def test_a_streamed_query_of_several_calls_asks_about_the_question(
    routed: RoutedLLM, router: FixedRouter, hard: str
) -> None:
    synthesizer = get_response_synthesizer(
        response_mode="refine", llm=routed, callback_manager=CallbackManager(), streaming=True
    )
    assert "".join(RetrieverQueryEngine(Passages(), synthesizer).query(hard).response_gen) == "big"
    # The framework makes the last call when its answer is read, and then the query is over.
    assert router.prompts in ([hard], [hard, hard])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.usefixtures("small_windows")
async def test_a_synthesis_without_an_engine_is_decided_once(
    routed: RoutedLLM, router: FixedRouter, events: EventLog, hard: str, mode: str
) -> None:
    synthesizer = get_response_synthesizer(
        response_mode=mode, llm=routed, callback_manager=CallbackManager(), use_async=CARRIES_CONTEXT
    )
    synthesizer.synthesize(hard, NODES)
    check_decisions(routed, router, events, 1)
    await synthesizer.asynthesize(hard, NODES)
    check_decisions(routed, router, events, 2)


@pytest.mark.parametrize("api", ["complete", "acomplete", "chat"])
async def test_an_error_does_not_make_one_turn_of_what_follows(
    routed: RoutedLLM, strong: DialectLLM, router: FixedRouter, hard: str, api: str
) -> None:
    async def ask() -> None:
        answer = getattr(routed, api)(user(hard) if api == "chat" else hard)
        if api == "acomplete":
            await answer

    strong.error = RuntimeError("down")
    with pytest.raises(RuntimeError, match="down"):
        await ask()
    strong.error = None
    # Tasks begin with a copy of what the failed call has left behind.
    for _ in range(2):
        await asyncio.gather(*(routed.acomplete(hard) for _ in range(5)))
    assert routed.stats.total == len(router.prompts) == 11


def test_what_the_framework_leaves_behind_is_no_query(
    routed: RoutedLLM, strong: DialectLLM, router: FixedRouter, hard: str
) -> None:
    synthesizer = get_response_synthesizer(llm=routed, callback_manager=CallbackManager())

    def work() -> None:
        # Outside of a query the framework's trace is out of step from the second synthesis on, and for good.
        for _ in range(3):
            synthesizer.synthesize(hard, NODES[:1])
        strong.error = RuntimeError("down")
        with pytest.raises(RuntimeError, match="down"):
            routed.complete(hard)
        strong.error = None
        for _ in range(3):
            routed.complete(hard)

    contextvars.copy_context().run(work)
    assert routed.stats.total == len(router.prompts) == 7


def test_queries_in_a_span_of_the_applications_own_are_turns_of_their_own(
    routed: RoutedLLM, router: FixedRouter, events: EventLog, hard: str
) -> None:
    engine = RetrieverQueryEngine.from_args(Passages(), llm=routed)

    @get_dispatcher("application").span
    def evaluate() -> None:
        for _ in range(3):
            engine.query(hard)
            routed.complete(hard)

    evaluate()
    check_decisions(routed, router, events, 6)


@pytest.mark.usefixtures("small_windows")
async def test_calls_of_a_query_that_begin_together_wait_for_one_decision(
    strong: DialectLLM, weak: DialectLLM, events: EventLog, easy: str
) -> None:
    router = SlowRouter(0.02)
    routed = RoutedLLM(strong=strong, weak=weak, router=router)
    synthesizer = get_response_synthesizer(
        response_mode="tree_summarize", llm=routed, callback_manager=CallbackManager(), use_async=True
    )
    engine = RetrieverQueryEngine(Passages(), synthesizer)
    await engine.aquery(easy)
    check_decisions(routed, router, events, 1)
    if CARRIES_CONTEXT:
        engine.query(easy)
        check_decisions(routed, router, events, 2)


@pytest.mark.usefixtures("small_windows")
async def test_queries_at_once_are_decided_one_by_one(
    routed: RoutedLLM, router: FixedRouter, events: EventLog, easy: str, hard: str
) -> None:
    engines = [
        RetrieverQueryEngine(
            Passages(),
            get_response_synthesizer(response_mode=mode, llm=routed, callback_manager=CallbackManager()),
        )
        for mode in ("tree_summarize", "refine")
    ]
    texts = [hard, easy] * 2
    answers = await asyncio.gather(*(engine.aquery(text) for engine in engines for text in texts))
    assert ["big" in str(answer) for answer in answers] == [True, False] * 4
    check_decisions(routed, router, events, 8)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda job: job[0].query(job[1]), [(e, text) for e in engines for text in texts]))
    assert ["big" in str(answer) for answer in answers] == [True, False] * 4
    check_decisions(routed, router, events, 16)


async def test_a_selection_and_the_query_behind_it_are_decided_once(
    routed: RoutedLLM, strong: DialectLLM, router: FixedRouter, events: EventLog, hard: str
) -> None:
    strong.name = '[{"choice": 2, "reason": "because"}]'
    tools = [
        QueryEngineTool.from_defaults(
            RetrieverQueryEngine.from_args(Passages(), llm=routed), name=name, description="d"
        )
        for name in ("a", "b")
    ]
    engine = RouterQueryEngine.from_defaults(tools, selector=LLMSingleSelector.from_defaults(llm=routed), llm=routed)
    engine.query(hard)
    check_decisions(routed, router, events, 1)
    await engine.aquery(hard)
    check_decisions(routed, router, events, 2)
    assert len(calls_of(strong)) >= 4


@pytest.mark.parametrize("api", ["chat", "achat"])
async def test_a_condensed_message_is_decided_once(
    routed: RoutedLLM, router: FixedRouter, events: EventLog, easy: str, api: str
) -> None:
    engine = CondensePlusContextChatEngine.from_defaults(Passages(), llm=routed, memory=memory())
    for text in (easy, "and why?", "and why?"):
        answer = getattr(engine, api)(text)
        if api == "achat":
            await answer
    assert router.prompts == [easy, "and why?", "and why?"]
    check_decisions(routed, router, events, 3)


# --- an agent's run is a turn ---


async def run(agent: Any, text: str, **kwargs: Any) -> str:
    return str(await agent.run(user_msg=text, memory=memory(), **kwargs))


@AGENT_WARNINGS
@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("decide", ["per_turn", "per_conversation"])
async def test_an_agents_run_is_decided_once(
    strong: DialectLLM,
    weak: DialectLLM,
    router: FixedRouter,
    events: EventLog,
    case: tuple[str, str, str],
    streaming: bool,
    decide: Any,
) -> None:
    routed = RoutedLLM(strong=strong, weak=weak, router=router, decide=decide)
    agent = FunctionAgent(tools=TOOLS, llm=routed, streaming=streaming)
    for count in (1, 2):
        assert await run(agent, case[1]) == case[2]
        check_decisions(routed, router, events, count)


@AGENT_WARNINGS
async def test_runs_at_once_are_decided_one_by_one(
    routed: RoutedLLM, router: FixedRouter, events: EventLog, easy: str, hard: str
) -> None:
    agents = [FunctionAgent(tools=TOOLS, llm=routed, streaming=False, name=f"agent {n}") for n in range(10)]
    texts = [hard, easy] * 5
    answers = await asyncio.gather(*(run(agent, text) for agent, text in zip(agents, texts, strict=True)))
    assert answers == ["big", "small"] * 5
    # The same words, said to ten agents: ten turns.
    check_decisions(routed, router, events, 10)


@AGENT_WARNINGS
async def test_a_hand_over_is_of_the_same_turn(
    make_llm: type[DialectLLM], actor: Any, router: FixedRouter, events: EventLog, easy: str
) -> None:
    lines = [("handoff", {"to_agent": "second", "reason": "r"}), ("add", {"a": 2, "b": 3}), "done"]
    routed = RoutedLLM(strong=make_llm(name="big"), weak=actor(name="small", lines=lines), router=router)
    first, second = (
        FunctionAgent(name=name, description=name, tools=TOOLS, llm=routed, streaming=False)
        for name in ("first", "second")
    )
    assert await run(AgentWorkflow([first, second], root_agent="first"), easy) == "done"
    check_decisions(routed, router, events, 1)


@AGENT_WARNINGS
async def test_a_react_run_is_decided_once(
    make_llm: type[DialectLLM], router: FixedRouter, events: EventLog, easy: str
) -> None:
    lines = [
        'Thought: t\nAction: add\nAction Input: {"a": 2, "b": 3}',
        "not to be parsed: Action:",
        "Thought: I can answer without using any more tools.\nAnswer: 5",
    ]
    routed = RoutedLLM(strong=make_llm(name="big"), weak=Scripted(lines=lines * 2), router=router)
    for count in (1, 2):
        assert await run(ReActAgent(tools=TOOLS, llm=routed, streaming=False), easy) == "5"
        # CustomLLM.achat tells of itself as a chat, and again as a completion.
        check_decisions(routed, router, events, count)


def test_steps_of_one_turn_share_a_decision(routed: RoutedLLM, router: FixedRouter, hard: str) -> None:
    first = routed.chat_with_tools(TOOLS, chat_history=user(hard))
    second = routed.chat_with_tools(TOOLS, chat_history=step(hard, "5"))
    third = routed.chat(step(hard, "5", "6"))
    assert routing_of(first) == routing_of(second) == routing_of(third)
    assert router.prompts == [hard]
    assert routed.stats.total == 1


async def test_what_a_person_says_again_is_decided_again(
    routed: RoutedLLM, router: FixedRouter, events: EventLog, easy: str
) -> None:
    answers = [routed.chat(user(easy)), await routed.achat(user(easy)), routed.complete(easy), routed.complete(easy)]
    again = routed.chat([*user(easy), ChatMessage(role="assistant", content="hi"), *user(easy)])
    assert len({routing_of(answer)["id"] for answer in (*answers, again)}) == 5
    check_decisions(routed, router, events, 5)
    for _ in range(2):
        routed.predict(QUESTION, query_str=easy)
        await routed.apredict(QUESTION, query_str=easy)
    check_decisions(routed, router, events, 9)


def test_a_chat_engines_messages_are_turns_of_their_own(
    routed: RoutedLLM, router: FixedRouter, events: EventLog, easy: str, hard: str
) -> None:
    engine = SimpleChatEngine.from_defaults(llm=routed, memory=memory())
    for text in (easy, easy, hard, easy):
        engine.chat(text)
    assert router.prompts == [easy, easy, hard, easy]
    check_decisions(routed, router, events, 4)


def test_a_changed_setting_holds_from_the_next_step_on(routed: RoutedLLM, router: FixedRouter, easy: str) -> None:
    assert routing_of(routed.chat(user(easy)))["route"] == "weak"
    routed.threshold = 0.05
    changed = routing_of(routed.chat(step(easy, "5")))
    assert (changed["route"], changed["threshold"]) == ("strong", 0.05)
    routed.threshold = None
    router.threshold = 0.07
    assert routing_of(routed.chat(step(easy, "5")))["threshold"] == 0.07
    router.threshold = 0.5
    routed.router = FixedRouter(0.8)
    assert routing_of(routed.chat(step(easy, "5")))["score"] == 0.8


def test_a_step_may_bring_settings_of_its_own(routed: RoutedLLM, easy: str) -> None:
    first = routing_of(routed.chat(user(easy)))
    bar = routing_of(routed.chat(step(easy, "5"), threshold=0.05))
    assert (bar["route"], bar["threshold"], bar["reason"]) == ("strong", 0.05, "score")
    forced = routing_of(routed.chat_with_tools(TOOLS, chat_history=step(easy, "5"), route="strong"))
    assert (forced["route"], forced["reason"]) == ("strong", "forced")
    back = routing_of(routed.chat(step(easy, "5")))
    assert (back["route"], back["reason"], back["threshold"]) == ("weak", "score", 0.5)
    assert back["id"] == first["id"]


def test_two_routed_llms_do_not_share_their_turns(
    routed: RoutedLLM, strong: DialectLLM, weak: DialectLLM, router: FixedRouter, easy: str
) -> None:
    other = RoutedLLM(strong=strong, weak=weak, router=router)
    first, second = (routing_of(llm.chat(messages)) for llm in (routed, other) for messages in [step(easy, "5")])
    assert first["id"] != second["id"]
    assert (routed.stats.total, other.stats.total) == (1, 1)


# --- per step, per conversation, locked, escalated ---


@AGENT_WARNINGS
@pytest.mark.parametrize("streaming", [False, True])
async def test_per_step_one_run_uses_both_models(
    strong: DialectLLM, weak: DialectLLM, router: FixedRouter, events: EventLog, easy: str, streaming: bool
) -> None:
    router.scores[f"{easy}\n\n5"] = 0.9
    routed = RoutedLLM(strong=strong, weak=weak, router=router, decide="per_step")
    agent = FunctionAgent(tools=TOOLS, llm=routed, streaming=streaming)
    assert await run(agent, easy) == "big"
    assert router.prompts == [easy, f"{easy}\n\n5"]
    assert len(calls_of(weak)) == len(calls_of(strong)) == 1
    check_decisions(routed, router, events, 2)
    assert routed.stats.snapshot()["by_route"] == {"strong": 1, "weak": 1}


def test_per_step_every_step_is_decided(
    strong: DialectLLM, weak: DialectLLM, router: FixedRouter, events: EventLog, easy: str
) -> None:
    routed = RoutedLLM(strong=strong, weak=weak, router=router, decide="per_step")
    for results in ([], ["5"], ["5", "5"], ["5", "5", "6"]):
        routed.chat(step(easy, *results))
    assert router.prompts == [easy, f"{easy}\n\n5", f"{easy}\n\n5", f"{easy}\n\n6"]
    check_decisions(routed, router, events, 4)


@AGENT_WARNINGS
async def test_per_step_a_react_run_uses_both_models(
    make_llm: type[DialectLLM], router: FixedRouter, events: EventLog, easy: str
) -> None:
    router.scores |= {f"{easy}\n\n5": 0.9, f"{easy}\n\nObservation: 5": 0.9}
    weak = Scripted(lines=['Thought: t\nAction: add\nAction Input: {"a": 2, "b": 3}'])
    strong = Scripted(lines=["Thought: I can answer without using any more tools.\nAnswer: it is 5"])
    routed = RoutedLLM(strong=strong, weak=weak, router=router, decide="per_step")
    assert await run(ReActAgent(tools=TOOLS, llm=routed, streaming=False), easy) == "it is 5"
    check_decisions(routed, router, events, 2)


@AGENT_WARNINGS
@pytest.mark.parametrize("side", ["strong", "weak"])
async def test_a_tool_loop_may_be_locked_to_its_model(
    strong: DialectLLM, weak: DialectLLM, router: FixedRouter, easy: str, hard: str, side: str
) -> None:
    text, chosen, other = (hard, strong, weak) if side == "strong" else (easy, weak, strong)
    router.scores[f"{text}\n\n5"] = 0.1 if side == "strong" else 0.9
    decisions: list[RoutingDecision] = []
    routed = RoutedLLM(
        strong=strong,
        weak=weak,
        router=router,
        decide="per_step",
        lock_tool_loop=True,
        on_route=decisions.append,
    )
    assert await run(FunctionAgent(tools=TOOLS, llm=routed, streaming=False), text) == chosen.name
    assert [(decision.route, decision.reason) for decision in decisions] == [(side, "score"), (side, "tool_loop")]
    assert calls_of(other) == []


@AGENT_WARNINGS
async def test_an_agent_that_repeats_itself_goes_to_the_strong_model(
    actor: Any, router: FixedRouter, easy: str
) -> None:
    strong, weak = actor(name="big", lines=["it is 5"]), actor(name="small", lines=[("add", {"a": 2, "b": 3})] * 9)
    decisions: list[RoutingDecision] = []
    routed = RoutedLLM(strong=strong, weak=weak, router=router, escalate_after=3, on_route=decisions.append)
    assert await run(FunctionAgent(tools=TOOLS, llm=routed, streaming=False), easy) == "it is 5"
    assert len(calls_of(weak)) == 3
    assert [(one.route, one.reason, one.detail) for one in decisions] == [
        ("weak", "score", None),
        ("strong", "escalation", "repeated tool call"),
    ]


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("function", [False, True])
def test_calls_in_a_dialect_count_as_repetitions_too(
    strong: DialectLLM, weak: DialectLLM, router: FixedRouter, easy: str, count: int, function: bool
) -> None:
    routed = RoutedLLM(strong=strong, weak=weak, router=router, escalate_after=3)
    messages = user(easy)
    for number in range(count):
        called = {"name": "add", "arguments": '{"a": 2, "b": 3}'}
        call = {"id": f"l{number}", **({"type": "function", "function": called} if function else called)}
        messages.append(ChatMessage(role="assistant", additional_kwargs={"tool_calls": [call]}))
        messages.append(ChatMessage(role="tool", content="5", additional_kwargs={"tool_call_id": call["id"]}))
    assert routing_of(routed.chat(messages))["reason"] == ("escalation" if count == 3 else "score")


@AGENT_WARNINGS
async def test_other_calls_are_no_repetition(actor: Any, router: FixedRouter, easy: str) -> None:
    lines = [*(("add", {"a": n, "b": 3}) for n in range(5)), "done"]
    weak = actor(name="small", lines=lines)
    routed = RoutedLLM(strong=actor(name="big", lines=[]), weak=weak, router=router, escalate_after=2)
    assert await run(FunctionAgent(tools=TOOLS, llm=routed, streaming=False), easy) == "done"


@AGENT_WARNINGS
async def test_a_react_agent_that_repeats_itself_goes_to_the_strong_model(router: FixedRouter, easy: str) -> None:
    weak = Scripted(lines=['Thought: t\nAction: add\nAction Input: {"a": 2, "b": 3}'] * 9)
    strong = Scripted(lines=["Thought: I can answer without using any more tools.\nAnswer: 5"])
    routed = RoutedLLM(strong=strong, weak=weak, router=router, escalate_after=2)
    assert await run(ReActAgent(tools=TOOLS, llm=routed, streaming=False), easy) == "5"
    assert len(weak.lines) == 7
    assert routed.stats.snapshot()["by_reason"] == {"score": 1, "escalation": 1}


@pytest.mark.parametrize("through", ["itself", "a copy", "a store"])
def test_a_conversation_stays_with_its_model(
    strong: DialectLLM, weak: DialectLLM, router: FixedRouter, easy: str, hard: str, through: str
) -> None:
    routed = RoutedLLM(strong=strong, weak=weak, router=router, decide="per_conversation")
    answer = routed.chat(user(hard)).message
    if through == "a copy":
        answer = answer.model_copy(deep=True)
    elif through == "a store":
        answer = ChatMessage.model_validate(answer.model_dump())
    assert answer.additional_kwargs == {}
    stayed = routing_of(routed.chat([*user(hard), answer, *user(easy)]))
    assert (stayed["route"], stayed["reason"]) == ("strong", "conversation")
    other = routing_of(routed.chat(user(easy)))
    assert (other["route"], other["reason"]) == ("weak", "score"), "another conversation"


def test_a_chat_engines_conversation_stays_with_its_model(
    strong: DialectLLM, weak: DialectLLM, router: FixedRouter, easy: str, hard: str
) -> None:
    routed = RoutedLLM(strong=strong, weak=weak, router=router, decide="per_conversation")
    engines = [SimpleChatEngine.from_defaults(llm=routed, memory=memory()) for _ in range(2)]
    answers = [
        [engine.chat(text).response for text in texts]
        for engine, texts in zip(engines, [[hard, easy], [easy, hard]], strict=True)
    ]
    assert answers == [["big", "big"], ["small", "small"]]
    assert "".join(engines[0].stream_chat(easy).response_gen) == "big"
    assert routed.stats.snapshot()["by_reason"] == {"score": 2, "conversation": 3}


@pytest.mark.parametrize("settings", [{"decide": "per_conversation"}, {"lock_tool_loop": True}], ids=["kept", "locked"])
def test_conversations_whose_calls_go_by_the_same_id_are_told_apart(
    make_llm: type[DialectLLM], router: FixedRouter, easy: str, hard: str, settings: Any
) -> None:
    # As those of Gemini do: it has no ids, and the framework takes the name of the tool for one.
    pair = {side: make_llm(name=side, tool_kwargs={"a": 2, "b": 3}) for side in ("strong", "weak")}
    routed = RoutedLLM(**pair, router=router, **settings)
    answers = {text: routed.chat_with_tools(TOOLS, text).message for text in (hard, easy)}
    result = ChatMessage(role="tool", content="5", additional_kwargs={"tool_call_id": "b1"})
    for text, side in ((hard, "strong"), (easy, "weak")):
        routing = routing_of(routed.chat_with_tools(TOOLS, chat_history=[*user(text), answers[text], result]))
        assert routing["route"] == side


def test_a_side_that_was_named_for_one_call_is_not_kept(
    strong: DialectLLM, weak: DialectLLM, router: FixedRouter, easy: str
) -> None:
    routed = RoutedLLM(strong=strong, weak=weak, router=router, decide="per_conversation")
    answer = routed.chat(user(easy), route="strong").message
    following = routing_of(routed.chat([*user(easy), answer, *user(easy)]))
    assert (following["route"], following["reason"]) == ("weak", "score")


def test_a_streamed_answer_is_known_in_a_conversation(
    strong: DialectLLM, weak: DialectLLM, router: FixedRouter, easy: str, hard: str
) -> None:
    routed = RoutedLLM(strong=strong, weak=weak, router=router, decide="per_conversation")
    answer = list(routed.stream_chat(user(hard)))[-1].message
    assert routing_of(routed.chat([*user(hard), answer, *user(easy)]))["reason"] == "conversation"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"decide": "per_message"}, "decide must be one of per_turn, per_step, per_conversation"),
        ({"lock_tool_loop": 1}, "lock_tool_loop must be True or False"),
        ({"escalate_after": 0}, "escalate_after must be"),
        ({"escalate_after": True}, "escalate_after must be"),
        ({"fallback_to_other": "yes"}, "fallback_to_other must be True or False"),
        ({"shadow": "both"}, "shadow must be one of strong, weak"),
        ({"on_route": 3}, "on_route"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(
    strong: DialectLLM, weak: DialectLLM, router: FixedRouter, settings: Any, message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        RoutedLLM(strong=strong, weak=weak, router=router, **settings)


# --- what a call brings ---


@pytest.fixture
def calibrated(strong: DialectLLM, weak: DialectLLM) -> Any:
    """Prompts "p0" to "p99" score 0.00 to 0.99; by default half of them go strong."""
    router = FixedRouter(0.5, {f"p{number}": number / 100 for number in range(100)})
    router.calibrate(list(router.scores), 0.5)
    return lambda **settings: RoutedLLM(strong=strong, weak=weak, router=router, **settings)


OPTIONS: dict[str, dict[str, Any]] = {
    "route": {"route": "strong"},
    "threshold": {"threshold": 0.1},
    "strong_rate": {"strong_rate": 0.9},
}
"""Each sends "p30", which goes weak by default, to the strong side."""
each_option = pytest.mark.parametrize("name", OPTIONS)


async def by_keyword(routed: RoutedLLM, text: str, **options: Any) -> None:
    """Call by each method that takes keywords."""
    routed.chat(user(text), **options, mine=1)
    await routed.achat(user(text), **options, mine=1)
    list(routed.stream_chat(user(text), **options, mine=1))
    [_ async for _ in await routed.astream_chat(user(text), **options, mine=1)]
    routed.complete(text, **options, mine=1)
    await routed.acomplete(text, **options, mine=1)
    list(routed.stream_complete(text, **options, mine=1))
    [_ async for _ in await routed.astream_complete(text, **options, mine=1)]
    routed.chat_with_tools(TOOLS, text, **options)
    await routed.achat_with_tools(TOOLS, text, **options)
    list(routed.stream_chat_with_tools(TOOLS, text, **options))
    [_ async for _ in await routed.astream_chat_with_tools(TOOLS, text, **options)]
    routed.predict_and_call(TOOLS, text, **options)
    await routed.apredict_and_call(TOOLS, text, **options)
    routed.chat(**routed._prepare_chat_with_tools(TOOLS, text, **options))
    structured = dict(options)
    routed.structured_predict(Pair, QUESTION, structured, query_str=text)
    await routed.astructured_predict(Pair, QUESTION, structured, query_str=text)
    list(routed.stream_structured_predict(Pair, QUESTION, structured, query_str=text))
    [_ async for _ in await routed.astream_structured_predict(Pair, QUESTION, structured, query_str=text)]
    routed.as_structured_llm(Pair).chat(user(text), **options)
    assert structured == options


BY_KEYWORD = 20


@each_option
async def test_a_call_may_bring_its_own_settings(
    calibrated: Any, strong: DialectLLM, weak: DialectLLM, events: EventLog, name: str
) -> None:
    routed = calibrated()
    await by_keyword(routed, "p30", **OPTIONS[name])
    assert weak.calls == []
    assert routed.stats.snapshot()["by_reason"] == {"forced" if name == "route" else "score": BY_KEYWORD}
    seen = {key for method, _, kwargs in strong.calls if method != "get_tool_calls" for key in kwargs}
    assert not seen & {"route", "threshold", "strong_rate"}
    for event in events.named("LLMChatStartEvent", "LLMCompletionStartEvent"):
        # The framework's StructuredLLM tells of itself as well, with what it was given.
        assert "routing" not in event.tags or not set(event.additional_kwargs) & {"route", "threshold", "strong_rate"}
    await by_keyword(routed, "p30")
    assert strong.calls != []
    assert routed.stats.snapshot()["by_route"] == {"strong": BY_KEYWORD, "weak": BY_KEYWORD}


@each_option
async def test_settings_may_surround_calls(calibrated: Any, strong: DialectLLM, weak: DialectLLM, name: str) -> None:
    routed = calibrated()
    with routing_options(**OPTIONS[name]):
        await by_keyword(routed, "p30")
        prompt = QUESTION.partial_format(query_str="p30")
        routed.predict(prompt)
        await routed.apredict(prompt)
        list(routed.stream(prompt))
        [_ async for _ in await routed.astream(prompt)]
    assert weak.calls == []
    assert routed.stats.snapshot()["by_reason"] == {"forced" if name == "route" else "score": BY_KEYWORD + 4}
    assert routed.complete("p30").text == "small"


@pytest.mark.parametrize(
    ("field", "around", "keyword", "threshold", "route"),
    [
        ({}, {}, {}, None, "weak"),
        ({"threshold": 0.2}, {}, {}, 0.2, "strong"),
        ({"strong_rate": 0.9}, {}, {}, None, "strong"),
        ({"threshold": 0.2}, {"threshold": 0.4}, {}, 0.4, "weak"),
        ({"threshold": 0.2}, {"strong_rate": 0.1}, {}, None, "weak"),
        ({"threshold": 0.9}, {"threshold": 0.8}, {"threshold": 0.3}, 0.3, "strong"),
        ({"threshold": 0.9}, {"threshold": 0.8}, {"strong_rate": 0.9}, None, "strong"),
        ({"threshold": 0.9}, {"strong_rate": 0.05}, {"threshold": 0.0}, 0.0, "strong"),
        ({"strong_rate": 0.1}, {"strong_rate": 0.05}, {"strong_rate": 0.9}, None, "strong"),
        ({"threshold": 0.9}, {"route": "strong"}, {}, 0.9, "strong"),
        ({"threshold": 0.1}, {"route": "strong"}, {"route": "weak"}, 0.1, "weak"),
        ({"threshold": 0.1}, {"route": "weak"}, {"threshold": 0.2}, 0.2, "weak"),
        ({"threshold": 0.1}, {"route": "weak"}, {"route": None}, 0.1, "weak"),
        ({"threshold": 0.1}, {"threshold": None, "route": None}, {"threshold": None}, 0.1, "strong"),
    ],
)
@pytest.mark.parametrize("api", ["chat", "acomplete"])
async def test_keyword_before_surrounding_before_field_before_router(
    calibrated: Any, api: str, field: Any, around: Any, keyword: Any, threshold: Any, route: str
) -> None:
    routed = calibrated(**field)
    with routing_options(**around):
        if api == "chat":
            response = routed.chat(user("p30"), **keyword)
        else:
            response = await routed.acomplete("p30", **keyword)
    routing = routing_of(response)
    assert routing["route"] == route
    if threshold is not None:
        assert routing["threshold"] == threshold


def test_surroundings_within_each_other(calibrated: Any) -> None:
    routed = calibrated()
    with routing_options(threshold=0.1):
        assert routed.complete("p30").text == "big"
        with routing_options(route="weak"):
            inner = routing_of(routed.complete("p30"))
            assert (inner["route"], inner["threshold"]) == ("weak", 0.1)
            with routing_options(route="strong", strong_rate=0.2):
                assert routing_of(routed.complete("p30"))["threshold"] == routed.router.threshold_for(0.2)
        with pytest.raises(ZeroDivisionError), routing_options(threshold=0.9):
            1 / 0  # noqa: B018 - it is to fail
        assert routed.complete("p30").text == "big"
    assert routed.complete("p30").text == "small"


async def test_surroundings_hold_for_tasks_that_are_started_within(calibrated: Any) -> None:
    routed = calibrated()

    async def ask() -> str:
        await asyncio.sleep(0)
        return (await routed.acomplete("p30")).text

    with routing_options(threshold=0.1):
        inside = asyncio.create_task(ask())
        gathered = await asyncio.gather(ask(), ask(), asyncio.to_thread(lambda: routed.complete("p30").text))
    outside = asyncio.create_task(ask())
    assert (await inside, await outside, gathered) == ("big", "small", ["big"] * 3)


async def test_surroundings_of_one_task_are_not_anothers(calibrated: Any) -> None:
    routed = calibrated()

    async def ask(options: dict[str, Any]) -> str:
        with routing_options(**options):
            await asyncio.sleep(0)
            answer = (await routed.achat(user("p30"))).message.content
            await asyncio.sleep(0)
        return str(answer)

    asked = [{"threshold": 0.1}, {}, {"route": "strong"}, {"route": "weak"}] * 5
    assert await asyncio.gather(*map(ask, asked)) == ["big", "small", "big", "small"] * 5


def test_surroundings_of_one_thread_are_not_anothers(calibrated: Any) -> None:
    routed = calibrated()

    def ask(threshold: float) -> str:
        with routing_options(threshold=threshold):
            return str(routed.complete("p30").text)

    with ThreadPoolExecutor(4) as pool, routing_options(threshold=0.1):
        assert list(pool.map(ask, [0.1, 0.9] * 20)) == ["big", "small"] * 20
        assert pool.submit(lambda: routed.complete("p30").text).result() == "small", "a thread has a context of its own"
        copied = contextvars.copy_context()
        assert pool.submit(copied.run, lambda: routed.complete("p30").text).result() == "big"


@each_option
async def test_surroundings_hold_in_engines_and_agents_and_selectors(
    calibrated: Any, strong: DialectLLM, weak: DialectLLM, name: str
) -> None:
    routed = calibrated()
    synthesizer = get_response_synthesizer(
        response_mode="tree_summarize", llm=routed, callback_manager=CallbackManager(), use_async=True
    )
    engine = RetrieverQueryEngine(Passages(), synthesizer)
    selector = RouterSelector(router=routed.router)
    chat = SimpleChatEngine.from_defaults(llm=routed, memory=memory())
    with routing_options(**OPTIONS[name]):
        assert "big" in str(engine.query("p30"))
        assert "big" in str(await engine.aquery("p30"))
        assert chat.chat("p30").response == "big"
        assert "".join(chat.stream_chat("p30").response_gen) == "big"
        for selected in (selector.select(["a", "b"], "p30"), await selector.aselect(["a", "b"], "p30")):
            assert (selected.route, selected.ind) == ("strong", 0)
            assert selected.decision.reason == ("forced" if name == "route" else "score")
    assert weak.calls == []
    assert selector.select(["a", "b"], "p30").route == "weak"


@AGENT_WARNINGS
@each_option
async def test_surroundings_hold_in_an_agents_run(
    calibrated: Any, weak: DialectLLM, events: EventLog, name: str
) -> None:
    routed = calibrated()
    agent = FunctionAgent(tools=TOOLS, llm=routed)
    with routing_options(**OPTIONS[name]):
        assert await run(agent, "p30") == "big"
        assert weak.calls == []
        started = agent.run("p30", memory=memory())
    assert str(await started) == "big", "a run that was started within"
    assert await run(agent, "p30") == "small"
    # A named side is a decision for each call; a threshold is one for each turn.
    assert len(ids_of(events)) == routed.stats.total


@pytest.mark.parametrize(
    ("brought", "error", "message"),
    [
        ({"threshold": "high"}, ThresholdError, "finite number, got 'high'"),
        ({"threshold": float("inf")}, ThresholdError, "finite"),
        ({"strong_rate": 2}, ConfigurationError, "rate"),
        ({"strong_rate": "most"}, ConfigurationError, "rate"),
        ({"threshold": 0.5, "strong_rate": 0.5}, ConfigurationError, "not both"),
        ({"route": "best"}, ConfigurationError, "route must be one of strong, weak; got 'best'"),
        ({"route": ["weak"]}, ConfigurationError, "route must be one of"),
        ({"route": True}, ConfigurationError, "route must be one of"),
    ],
)
async def test_what_a_call_cannot_mean_is_told(
    calibrated: Any, strong: DialectLLM, weak: DialectLLM, brought: Any, error: type[Exception], message: str
) -> None:
    routed = calibrated(fallback_to_other=True)
    with pytest.raises(error, match=message):
        routed.chat(user("p30"), **brought)
    with pytest.raises(error, match=message):
        await routed.astream_complete("p30", **brought)
    with pytest.raises(error, match=message):
        await routed.astructured_predict(Pair, QUESTION, brought, query_str="p30")
    with pytest.raises(error, match=message):
        routed.chat_with_tools(TOOLS, chat_history=step("p30", "5"), **brought)
    with pytest.raises(error, match=message), routing_options(**brought):
        routed.predict(QUESTION, query_str="p30")
    with pytest.raises(error, match=message), routing_options(**brought):
        RouterSelector(router=routed.router).select(["a", "b"], "p30")
    assert strong.calls == weak.calls == []
    assert routed.stats.total == 0
    assert routed.complete("p30").text == "small", "and nothing of it is left"


def test_a_rate_needs_a_calibrated_router(routed: RoutedLLM, easy: str) -> None:
    with pytest.raises(ConfigurationError, match="needs a calibrated router"):
        routed.complete(easy, strong_rate=0.3)
    with pytest.raises(ConfigurationError, match="needs a calibrated router"), routing_options(strong_rate=0.3):
        routed.complete(easy)


def test_a_rate_of_a_call_is_met(strong: DialectLLM, weak: DialectLLM) -> None:
    prompts = [f"prompt {number}" for number in range(200)]
    router = RandomRouter()
    router.calibrate(prompts, 0.5)
    routed = RoutedLLM(strong=strong, weak=weak, router=router)
    answers = [routed.complete(prompt, strong_rate=0.2).text for prompt in prompts]
    assert answers.count("big") == pytest.approx(40, abs=1)


def test_nested_routed_llms_follow_the_same_surroundings(
    make_llm: type[DialectLLM], routed: RoutedLLM, easy: str
) -> None:
    outer = RoutedLLM(strong=make_llm(name="giant"), weak=routed, router=FixedRouter(0.2))
    assert outer.complete(easy).text == "small"
    with routing_options(threshold=0.15):
        assert outer.complete(easy).text == "giant"
    with routing_options(route="weak"):
        assert outer.complete(easy).text == "small"
    assert outer.complete(easy, route="weak").text == "small", "a keyword is for the one that is called"


def test_a_rate_of_one_step_is_for_that_step(calibrated: Any) -> None:
    routed = calibrated()
    routes = [
        routing_of(routed.chat(step("p30", *results), **options))["route"]
        for results, options in (
            ([], {}),
            (["5"], {"strong_rate": 0.9}),
            (["5", "6"], {}),
            (["5"], {"strong_rate": 0.6}),
        )
    ]
    assert routes == ["weak", "strong", "weak", "weak"]
    assert routed.stats.total == 3


# --- watching ---


async def test_a_hook_sees_each_decision_once(
    strong: DialectLLM, weak: DialectLLM, router: FixedRouter, hard: str, easy: str
) -> None:
    seen: list[RoutingDecision] = []
    routed = RoutedLLM(strong=strong, weak=weak, router=router, on_route=seen.append)
    selector = RouterSelector(router=router, on_route=seen.append)
    answer = routed.chat(user(hard))
    routed.chat(step(hard, "5"))
    assert [decision.as_dict() for decision in seen] == [routing_of(answer)]
    await routed.acomplete(easy, route="strong")
    assert (seen[-1].route, seen[-1].reason) == ("strong", "forced")
    selected = await selector.aselect(["a", "b"], easy)
    assert seen[-1] is selected.decision
    assert len(seen) == 3


def test_a_hook_that_fails_disturbs_nobody(
    strong: DialectLLM, weak: DialectLLM, router: FixedRouter, hard: str, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: RoutingDecision) -> None:
        raise RuntimeError

    assert RoutedLLM(strong=strong, weak=weak, router=router, on_route=fail).complete(hard).text == "big"
    assert RouterSelector(router=router, on_route=fail).select(["a", "b"], hard).ind == 0
    assert caplog.text.count("on_route failed") == 2


# --- what a side cannot take ---


LONG = "a word and another " * 3000


@pytest.mark.parametrize("small", ["strong", "weak"])
async def test_what_does_not_fit_one_window_goes_to_the_other_side(
    make_llm: type[DialectLLM], router: FixedRouter, events: EventLog, small: str
) -> None:
    sides = {
        side: make_llm(name=side, context_window=4096 if side == small else 128_000) for side in ("strong", "weak")
    }
    other = "weak" if small == "strong" else "strong"
    routed = RoutedLLM(**sides, router=router)
    answers = [
        routed.chat(user(LONG)),
        await routed.acomplete(LONG),
        routed.chat_with_tools(TOOLS, "short", [ChatMessage(role="system", content=LONG)]),
        list(routed.stream_chat([*user(LONG), ChatMessage(role="assistant", content="a"), *user("short")]))[-1],
    ]
    for answer in answers:
        routing = routing_of(answer)
        assert (routing["route"], routing["score"]) == (other, None)
        assert (routing["reason"], routing["detail"]) == ("capability", "window")
    assert routed.predict(PromptTemplate("{context_str}\n{query_str}"), context_str=LONG, query_str="short") == other
    assert router.prompts == []
    assert routed.stats.snapshot()["by_reason"] == {"capability": 5}
    assert calls_of(sides[small]) == []
    assert routing_of(routed.chat(user("short")))["reason"] == "score"
    assert routing_of(routed.chat(user(LONG), route=small))["reason"] == "forced"
    check = [event.tags["routing"]["route"] for event in events.named("LLMChatStartEvent")]
    assert check[-1] == small


@pytest.mark.parametrize("settings", [{"decide": "per_conversation"}, {"lock_tool_loop": True}], ids=["kept", "locked"])
def test_what_fits_comes_before_where_the_conversation_is(
    make_llm: type[DialectLLM], router: FixedRouter, easy: str, settings: Any
) -> None:
    strong = make_llm(name="big", context_window=128_000)
    routed = RoutedLLM(strong=strong, weak=make_llm(name="small"), router=router, **settings)
    answer = routed.chat_with_tools(TOOLS, easy).message
    result = ChatMessage(role="tool", content=LONG, additional_kwargs={"tool_call_id": "b1"})
    routing = routing_of(routed.chat_with_tools(TOOLS, chat_history=[*user(easy), answer, result]))
    assert (routing["route"], routing["reason"]) == ("strong", "capability")


def test_room_for_the_answer_is_left(make_llm: type[DialectLLM], router: FixedRouter) -> None:
    text = "a word and another " * 400
    weak = make_llm(name="small", context_window=4096)
    routed = RoutedLLM(strong=make_llm(name="big", context_window=128_000), weak=weak, router=router)
    assert routed.chat(user(text)).message.content == "small"
    weak.num_output = 3000
    assert routing_of(routed.chat(user(text)))["detail"] == "window"


def test_where_nothing_fits_the_router_decides(make_llm: type[DialectLLM], router: FixedRouter) -> None:
    routed = RoutedLLM(strong=make_llm(name="big"), weak=make_llm(name="small"), router=router)
    assert routing_of(routed.chat(user(LONG)))["reason"] == "score"


def test_a_window_that_nobody_stated_rules_nothing_out(
    make_llm: type[DialectLLM], plain: PlainLLM, router: FixedRouter
) -> None:
    routed = RoutedLLM(strong=make_llm(name="big", context_window=128_000), weak=plain, router=router)
    routing = routing_of(routed.chat(user(LONG)))
    assert (routing["route"], routing["reason"]) == ("weak", "score")


@pytest.mark.parametrize("mode", ["compact", "tree_summarize", "refine"])
def test_what_was_packed_for_the_smaller_window_fits_it(
    make_llm: type[DialectLLM], router: FixedRouter, easy: str, mode: str
) -> None:
    # The framework fills the smaller window as far as it goes; that must not read as too much for it.
    weak = make_llm(name="small", context_window=2048)
    strong = make_llm(name="big", context_window=128_000)
    routed = RoutedLLM(strong=strong, weak=weak, router=router)
    synthesizer = get_response_synthesizer(response_mode=mode, llm=routed, callback_manager=CallbackManager())
    assert "small" in str(synthesizer.synthesize(easy, NODES * 8))
    assert strong.calls == []
    assert set(routed.stats.snapshot()["by_reason"]) == {"score"}


@AGENT_WARNINGS
async def test_a_turn_that_outgrows_a_window_goes_on_with_the_other_side(
    actor: Any, make_llm: type[DialectLLM], router: FixedRouter, easy: str
) -> None:
    weak = make_llm(name="small", tool_kwargs={})
    strong = actor(name="big", lines=["done"], context_window=128_000)
    tool = FunctionTool.from_defaults(lambda: LONG, name="read", description="Read.")
    decisions: list[RoutingDecision] = []
    routed = RoutedLLM(strong=strong, weak=weak, router=router, on_route=decisions.append)
    assert await run(FunctionAgent(tools=[tool], llm=routed, streaming=False), easy) == "done"
    assert [(one.route, one.reason, one.detail) for one in decisions] == [
        ("weak", "score", None),
        ("strong", "capability", "window"),
    ]


def test_tools_go_to_the_side_that_takes_them(
    strong: DialectLLM, plain: PlainLLM, router: FixedRouter, easy: str
) -> None:
    routed = RoutedLLM(strong=strong, weak=plain, router=router)
    routing = routing_of(routed.chat_with_tools(TOOLS, easy))
    assert (routing["reason"], routing["detail"]) == ("capability", "tool_calling")
    assert routing_of(routed.chat(user(easy)))["reason"] == "score"
    assert router.prompts == [easy]


def test_a_side_that_only_says_that_it_takes_tools_does_not(
    strong: DialectLLM, plain: PlainLLM, router: FixedRouter, easy: str
) -> None:
    class Boasting(type(plain)):  # type: ignore[misc]
        @property
        def metadata(self) -> LLMMetadata:
            return LLMMetadata(model_name="boasting", is_function_calling_model=True)

    class Modest(type(strong)):  # type: ignore[misc]
        @property
        def metadata(self) -> LLMMetadata:
            return super().metadata.model_copy(update={"is_function_calling_model": False})

    for weak in (Boasting(), Modest(name="modest")):
        routed = RoutedLLM(strong=strong, weak=weak, router=router)
        assert routing_of(routed.chat_with_tools(TOOLS, easy))["detail"] == "tool_calling"
        assert not routed.metadata.is_function_calling_model


async def test_where_no_side_takes_tools_it_is_told(plain: PlainLLM, router: FixedRouter, easy: str) -> None:
    routed = RoutedLLM(strong=plain, weak=type(plain)(), router=router)
    for call in (routed.chat_with_tools, routed.stream_chat_with_tools, routed._prepare_chat_with_tools):
        with pytest.raises(ConfigurationError, match="neither"):
            call(TOOLS, easy)
    for call in (routed.achat_with_tools, routed.astream_chat_with_tools):
        with pytest.raises(ValueError, match="neither"):
            await call(TOOLS, easy)
    assert routed.stats.total == 0
    assert routed.chat(user(easy)).message.content == "plain"


def test_a_side_without_tools_cannot_be_named_for_them(
    strong: DialectLLM, plain: PlainLLM, router: FixedRouter, easy: str
) -> None:
    routed = RoutedLLM(strong=strong, weak=plain, router=router)
    with pytest.raises(ConfigurationError):
        routed.chat_with_tools(TOOLS, easy, route="weak")
    assert strong.calls == []


def test_a_failed_router_is_asked_once_a_turn(strong: DialectLLM, weak: DialectLLM, easy: str) -> None:
    routed = RoutedLLM(strong=strong, weak=weak, router=FailingRouter(on_error="weak"))
    first = routing_of(routed.chat(user(easy)))
    assert (first["route"], first["reason"]) == ("weak", "router_error")
    assert routing_of(routed.chat(step(easy, "5")))["route"] == "weak"
    assert routed.stats.total <= 2
