"""`record=`: what is in the store afterwards is what the caller saw."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from llama_index.core import PromptTemplate
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import ImageBlock, TextBlock
from llama_index.core.llms import ChatMessage, ChatResponse
from llama_index.core.llms.callbacks import llm_chat_callback
from llama_index.core.schema import QueryBundle
from llama_index.core.tools import ToolMetadata
from llamaindex_agents import AGENT_WARNINGS, TOOLS, Pair

from llamaindex_router import RoutedLLM, RouterSelector, routing_options
from prefroute import ConfigurationError
from prefroute.recording import Recorded, Recorder, read_recorded
from prefroute.testing import FailingRouter, FixedRouter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from conftest import DialectLLM, PlainLLM

QUESTION = PromptTemplate("Context: a long text.\nQ: {query_str}\nA:")
RESPONDING = ["chat", "achat", "complete", "acomplete", "chat_with_tools", "achat_with_tools"]
STREAMING = [
    *("stream_chat", "astream_chat", "stream_complete", "astream_complete"),
    *("stream_chat_with_tools", "astream_chat_with_tools"),
]
TOKENS = ["predict", "apredict", "stream", "astream"]
STRUCTURED = [f"{prefix}structured_predict" for prefix in ("", "a", "stream_", "astream_")]
CALLING = ["predict_and_call", "apredict_and_call"]
EVERY = [*RESPONDING, *STREAMING, *TOKENS, *STRUCTURED, *CALLING]
SECRET = "sk-secret in what the provider says"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Recorder]:
    with Recorder(tmp_path / "traffic.sqlite", answers=True) as recorder:
        yield recorder


@pytest.fixture
def routed(strong: DialectLLM, weak: DialectLLM, router: FixedRouter, store: Recorder) -> RoutedLLM:
    return RoutedLLM(strong=strong, weak=weak, router=router, record=store)


def kept(store: Recorder) -> list[Recorded]:
    assert store.flush(20)
    assert store.dropped == 0
    return list(read_recorded(store.path))


def the_call(item: Recorded) -> tuple[Any, ...]:
    (call,) = item.calls
    assert call.seconds > 0
    return call.side, call.model, call.error, call.stands_in, call.answer


async def opened(routed: RoutedLLM, api: str, text: str) -> Any:
    """What a method returns; a stream is not read."""
    if "structured" in api:
        result = getattr(routed, api)(Pair, QUESTION, query_str=text)
    elif api in TOKENS:
        result = getattr(routed, api)(QUESTION, query_str=text)
    elif "tools" in api or "call" in api:
        result = getattr(routed, api)(TOOLS, text)
    else:
        result = getattr(routed, api)(text if "complete" in api else [ChatMessage(content=text)])
    return await result if api.startswith("a") else result


async def ask(routed: RoutedLLM, api: str, text: str) -> list[Any]:
    """All that a method answers."""
    result = await opened(routed, api, text)
    if api.startswith("astream"):
        return [part async for part in result]
    return list(result) if api.startswith("stream") else [result]


@pytest.mark.parametrize("api", EVERY)
async def test_decisions_and_calls_are_kept_as_the_caller_sees_them(
    routed: RoutedLLM, store: Recorder, case: tuple[str, str, str], api: str
) -> None:
    side, text, name = case
    last = (await ask(routed, api, text))[-1]
    (item,) = kept(store)
    assert (item.prompt, item.decision.route, item.answered_by) == (text, side, side)
    if api in {*RESPONDING, *STREAMING}:
        assert item.decision.as_dict() == last.additional_kwargs["routing"]
    said = None if api in {*STRUCTURED, *CALLING} else name
    assert the_call(item) == (side, name, None, False, said)


@pytest.mark.parametrize("api", ["chat", "achat", "stream_chat", "astream_chat"])
async def test_tokens_and_the_models_own_name_are_read_from_the_answer(
    make_llm: type[DialectLLM], weak: DialectLLM, store: Recorder, api: str
) -> None:
    def response() -> ChatResponse:
        raw = {"model": "big-2026", "usage": {"prompt_tokens": 7, "completion_tokens": 3}}
        return ChatResponse(message=ChatMessage(role="assistant", content="yes"), delta="yes", raw=raw)

    class Telling(make_llm):  # type: ignore[valid-type, misc]
        @llm_chat_callback()
        def chat(self, messages: Any, **kwargs: Any) -> ChatResponse:
            return response()

        @llm_chat_callback()
        async def achat(self, messages: Any, **kwargs: Any) -> ChatResponse:
            return response()

        @llm_chat_callback()
        def stream_chat(self, messages: Any, **kwargs: Any) -> Any:
            return (response() for _ in range(1))

        @llm_chat_callback()
        async def astream_chat(self, messages: Any, **kwargs: Any) -> Any:
            async def gen() -> Any:
                yield response()

            return gen()

    await ask(RoutedLLM(strong=Telling(name="big"), weak=weak, router=FixedRouter(0.9), record=store), api, "x")
    (call,) = kept(store)[0].calls
    assert (call.model, call.input_tokens, call.output_tokens, call.answer) == ("big-2026", 7, 3, "yes")


@pytest.mark.parametrize("api", EVERY)
async def test_of_a_failure_the_name_is_kept_and_no_word(
    routed: RoutedLLM, strong: DialectLLM, store: Recorder, hard: str, api: str
) -> None:
    strong.error = ConnectionError(SECRET)
    with pytest.raises(ConnectionError):
        await ask(routed, api, hard)
    (item,) = kept(store)
    assert the_call(item) == ("strong", "big", "ConnectionError", False, None)
    assert SECRET.encode() not in store.path.read_bytes()


@pytest.mark.parametrize("api", [*RESPONDING, *STREAMING, *TOKENS, *STRUCTURED])
async def test_the_other_side_is_kept_as_standing_in(
    routed: RoutedLLM, strong: DialectLLM, store: Recorder, hard: str, api: str
) -> None:
    routed.fallback_to_other, strong.error = True, ConnectionError()
    await ask(routed, api, hard)
    (item,) = kept(store)
    assert item.decision.route == "strong"
    assert [(call.side, call.model, call.error, call.stands_in) for call in item.calls] == [
        ("strong", "big", "ConnectionError", False),
        ("weak", "small", None, True),
    ]


@pytest.mark.parametrize("api", ["stream_chat", "astream_chat", "stream"])
async def test_a_stream_that_is_given_up_is_kept_as_such(
    routed: RoutedLLM, store: Recorder, hard: str, api: str
) -> None:
    chunks = await opened(routed, api, hard)
    if api.startswith("a"):
        await anext(chunks)
        await chunks.aclose()
    else:
        next(chunks)
        chunks.close()
    assert the_call(kept(store)[0]) == ("strong", "big", "GeneratorExit", False, None)


async def test_a_call_that_is_cancelled_is_kept_as_such(
    make_llm: type[DialectLLM], weak: DialectLLM, store: Recorder
) -> None:
    entered = asyncio.Event()

    class Hangs(make_llm):  # type: ignore[valid-type, misc]
        async def achat(self, messages: Any, **kwargs: Any) -> ChatResponse:
            entered.set()
            await asyncio.Event().wait()
            raise AssertionError

    routed = RoutedLLM(strong=Hangs(name="big"), weak=weak, router=FixedRouter(0.9), record=store)
    task = asyncio.ensure_future(routed.achat([ChatMessage(content="x")]))
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert the_call(kept(store)[0])[:3] == ("strong", "big", "CancelledError")


async def test_a_stream_that_nobody_reads_leaves_its_decision_alone(
    routed: RoutedLLM, store: Recorder, hard: str
) -> None:
    await opened(routed, "stream_chat", hard)
    assert kept(store)[0].calls == ()


@AGENT_WARNINGS
@pytest.mark.parametrize("decide", ["per_turn", "per_step"])
async def test_the_steps_of_an_agents_turn_are_calls_of_its_decision(
    strong: DialectLLM, weak: DialectLLM, router: FixedRouter, store: Recorder, hard: str, decide: Any
) -> None:
    routed = RoutedLLM(strong=strong, weak=weak, router=router, decide=decide, record=store)
    await FunctionAgent(tools=TOOLS, llm=routed).run(hard)
    items = kept(store)
    calls = [(call.side, call.error) for item in items for call in item.calls]
    if decide == "per_turn":
        assert [item.prompt for item in items] == [hard]
        assert calls == [("strong", None)] * 2
    else:
        assert len(items) == 2
        assert calls == [("strong", None), ("weak", None)]
    assert [item.decision.route for item in items] == [item.calls[0].side for item in items]
    assert routed.stats.total == len(items)


def test_arguments_that_are_prepared_first_are_no_call(routed: RoutedLLM, store: Recorder, hard: str) -> None:
    prepared = routed._prepare_chat_with_tools(TOOLS, hard)
    assert kept(store)[0].calls == ()
    routed.chat(**prepared)
    (item,) = kept(store)
    assert the_call(item)[:3] == ("strong", "big", None)


def test_forced_calls_and_shadows_are_kept_with_their_text(
    strong: DialectLLM, weak: DialectLLM, router: FixedRouter, store: Recorder, easy: str
) -> None:
    routed = RoutedLLM(strong=strong, weak=weak, router=router, record=store)
    routed.complete(easy, route="strong")
    routed.shadow = "strong"
    routed.complete(easy)
    routed.shadow, routed.router = None, FailingRouter()
    routed.complete(easy)
    assert [(i.prompt, i.decision.route, i.decision.reason, i.answered_by, the_call(i)[0]) for i in kept(store)] == [
        (easy, "strong", "forced", "strong", "strong"),
        (easy, "weak", "score", "strong", "strong"),
        (easy, "strong", "router_error", "strong", "strong"),
    ]


def test_a_call_that_one_side_cannot_take_is_kept_with_its_text(
    strong: DialectLLM, plain: PlainLLM, router: FixedRouter, store: Recorder, easy: str
) -> None:
    RoutedLLM(strong=strong, weak=plain, router=router, record=store).chat_with_tools(TOOLS, easy)
    (item,) = kept(store)
    assert (item.prompt, item.decision.reason, the_call(item)[0]) == (easy, "capability", "strong")


def test_a_text_that_cannot_be_found_leaves_no_record(
    strong: DialectLLM, weak: DialectLLM, router: FixedRouter, store: Recorder, easy: str
) -> None:
    def fail(_: Any) -> str:
        raise ValueError

    routed = RoutedLLM(strong=strong, weak=weak, router=router, text_fn=fail, record=store)
    assert routed.complete(easy).additional_kwargs["routing"]["reason"] == "router_error"
    assert kept(store) == []


def test_an_answer_without_text_is_kept_without_one(
    make_llm: type[DialectLLM], weak: DialectLLM, store: Recorder
) -> None:
    class Draws(make_llm):  # type: ignore[valid-type, misc]
        @llm_chat_callback()
        def chat(self, messages: Any, **kwargs: Any) -> ChatResponse:
            return ChatResponse(message=ChatMessage(role="assistant", blocks=[ImageBlock(image=b"x")]))

    routed = RoutedLLM(strong=Draws(name="big"), weak=weak, router=FixedRouter(0.9), record=store)
    routed.chat([ChatMessage(blocks=[TextBlock(text="draw")])])
    assert the_call(kept(store)[0]) == ("strong", "big", None, False, None)


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_selector_keeps_its_decisions_alone(
    router: FixedRouter, store: Recorder, hard: str, easy: str, asynchronous: bool
) -> None:
    selector = RouterSelector(router=router, shadow="weak", record=store)
    choices = [ToolMetadata(description="", name="dear"), ToolMetadata(description="", name="cheap")]
    shown = []
    for text in (hard, easy):
        query = QueryBundle(text)
        made = await selector.aselect(choices, query) if asynchronous else selector.select(choices, query)
        shown.append(made.decision.id)
    with routing_options(route="strong"):
        shown.append(selector.select(choices, QueryBundle(easy)).decision.id)
    items = kept(store)
    assert [item.decision.id for item in items] == shown
    assert [(item.prompt, item.decision.route, item.answered_by, item.calls) for item in items] == [
        (hard, "strong", "weak", ()),
        (easy, "weak", "weak", ()),
        (easy, "strong", "weak", ()),
    ]


def test_feedback_finds_a_decision_by_the_id_in_the_answer(routed: RoutedLLM, store: Recorder, hard: str) -> None:
    answer = routed.complete(hard)
    assert store.feedback(answer.additional_kwargs["routing"]["id"], "bad")
    assert [item.rating for item in kept(store)] == [0.0]


def test_nothing_is_kept_unless_it_is_asked_for(
    strong: DialectLLM, weak: DialectLLM, router: FixedRouter, tmp_path: Path, hard: str, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    routed = RoutedLLM(strong=strong, weak=weak, router=router)
    assert routed.record is None
    routed.complete(hard)
    assert list(tmp_path.iterdir()) == []


def test_a_path_stands_for_a_recorder_also_when_it_is_set_later(
    strong: DialectLLM, weak: DialectLLM, router: FixedRouter, tmp_path: Path, hard: str
) -> None:
    routed = RoutedLLM(strong=strong, weak=weak, router=router, record=str(tmp_path / "a.sqlite"))
    first = routed.record
    assert isinstance(first, Recorder)
    routed.complete(hard)
    routed.record = tmp_path / "b.sqlite"
    assert list(tmp_path.iterdir()) in ([], [first.path])
    routed.complete("another")
    for recorder in (first, routed.record):
        recorder.close()
    assert [item.prompt for name in "ab" for item in read_recorded(tmp_path / f"{name}.sqlite")] == [hard, "another"]
    routed.record = None
    routed.complete("a third")
    for wrong in (3, tmp_path):
        with pytest.raises(ConfigurationError):
            routed.record = wrong
        with pytest.raises(ConfigurationError):
            RouterSelector(router=router, record=wrong)
    assert "record" not in routed.model_dump()
    assert "sqlite" not in repr(routed)
