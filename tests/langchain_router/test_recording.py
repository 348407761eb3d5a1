"""`record=`: what is in the store afterwards is what the caller saw."""

from __future__ import annotations

import asyncio
import copy
import pickle
from functools import reduce
from operator import add
from typing import TYPE_CHECKING, Any

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import ModelFallbackMiddleware
from langchain_core.language_models import BaseChatModel, FakeListLLM
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from pydantic import BaseModel

from langchain_router import RoutedChatModel
from langchain_router.middleware import RouterMiddleware
from prefroute import ConfigurationError
from prefroute.recording import Recorded, Recorder, read_recorded
from prefroute.testing import FailingRouter, FixedRouter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SECRET = "sk-secret in what the provider says"


class DownError(Exception):
    """What a provider's client raises."""


class Answer(BaseModel):
    """An answer."""

    side: str


@tool
def look_up(key: str) -> str:
    """Look a thing up."""
    return key


CALL = AIMessage("", tool_calls=[{"name": "look_up", "args": {"key": "a"}, "id": "1"}])


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "traffic.sqlite"


@pytest.fixture
def store(file: Path) -> Iterator[Recorder]:
    with Recorder(file, answers=True) as recorder:
        yield recorder


def kept(store: Recorder) -> list[Recorded]:
    assert store.flush(20)
    assert store.dropped == 0
    return list(read_recorded(store.path))


def the_call(item: Recorded) -> tuple[Any, ...]:
    (call,) = item.calls
    assert call.seconds > 0
    return call.side, call.model, call.error, call.input_tokens, call.output_tokens, call.stands_in, call.answer


def summed(chunks: Any) -> Any:
    return reduce(add, chunks)


async def asked(model: Any, api: str, text: str) -> Any:
    """Ask by one of LangChain's ways; gives the decision that the caller sees, if there is a message."""
    if api.startswith("events"):
        return await _asked_for_events(model, api, text)
    question = [[HumanMessage(text)]]
    ways = {
        "invoke": lambda: model.invoke(text),
        "batch": lambda: model.batch([text])[0],
        "generate": lambda: model.generate(question).generations[0][0].message,
        "stream": lambda: summed(model.stream(text)),
    }
    if api in ways:
        return ways[api]().response_metadata["routing"]
    if api == "ainvoke":
        message = await model.ainvoke(text)
    elif api == "abatch":
        message = (await model.abatch([text]))[0]
    elif api == "agenerate":
        message = (await model.agenerate(question)).generations[0][0].message
    else:
        message = summed([chunk async for chunk in model.astream(text)])
    return message.response_metadata["routing"]


async def _asked_for_events(model: Any, api: str, text: str) -> Any:
    if api == "events v2":
        events = [event async for event in model.astream_events(text, version="v2")]
        return next(event["metadata"]["routing"] for event in events if event["event"] == "on_chat_model_start")
    if api == "events v3":
        assert model.stream_events(text, version="v3").output.text
    else:
        assert (await (await model.astream_events(text, version="v3"))).text
    return None


@pytest.mark.parametrize(
    "api",
    [
        *("invoke", "ainvoke", "batch", "abatch", "generate", "agenerate", "stream", "astream"),
        *("events v2", "events v3", "events v3 async"),
    ],
)
async def test_decisions_and_calls_are_kept_as_the_caller_sees_them(setup: Any, store: Recorder, api: str) -> None:
    model = setup(record=store).model
    shown = [await asked(model, api, text) for text in ("hard", "easy")]
    items = kept(store)
    assert [item.prompt for item in items] == ["hard", "easy"]
    assert [item.answered_by for item in items] == ["strong", "weak"]
    for item, routing in zip(items, shown, strict=True):
        if routing is not None:
            assert item.decision.as_dict() == routing
        side = item.answered_by
        said = f"{side} says hi" if any(word in api for word in ("stream", "events")) else side
        assert the_call(item) == (side, side, None, 16, 8, False, said)


async def test_a_batch_is_kept_whole(setup: Any, store: Recorder) -> None:
    model = setup(record=store).model
    answers = model.batch(["hard", "easy", "hard"]) + await model.abatch(["easy", "hard"])
    items = {item.decision.id: item for item in kept(store)}
    assert len(items) == 5
    for answer in answers:
        item = items[answer.response_metadata["routing"]["id"]]
        assert the_call(item)[0] == item.prompt.replace("hard", "strong").replace("easy", "weak")


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("kind", ["model", "middleware"])
async def test_each_step_of_an_agent_is_kept(fake: Any, store: Recorder, kind: str, asynchronous: bool) -> None:
    weak = fake(model_name="weak")
    settings: dict[str, Any] = {
        "strong": fake(model_name="strong", answer=CALL),
        "weak": weak,
        "router": FixedRouter(0.1, {"go": 0.9}),  # The tool's result, beside the question, sends the next step to weak.
        "decide": "per_step",
        "record": store,
    }
    if kind == "model":
        agent = create_agent(RoutedChatModel(**settings), [look_up])
    else:
        agent = create_agent(weak, [look_up], middleware=[RouterMiddleware(**settings)])
    inputs = {"messages": [HumanMessage("go")]}
    state = await agent.ainvoke(inputs) if asynchronous else agent.invoke(inputs)
    shown = [message.response_metadata["routing"] for message in state["messages"] if message.type == "ai"]
    items = kept(store)
    assert [item.decision.as_dict() for item in items] == shown
    assert [the_call(item)[:3] for item in items] == [("strong", "strong", None), ("weak", "weak", None)]


@pytest.mark.parametrize("api", ["invoke", "ainvoke", "batch", "abatch", "generate", "agenerate", "stream", "astream"])
async def test_of_a_failure_the_name_is_kept_and_no_word(setup: Any, fake: Any, store: Recorder, api: str) -> None:
    model = setup(strong=fake(model_name="strong", failures=9, error=DownError(SECRET)), record=store).model
    with pytest.raises(DownError):
        await asked(model, api, "hard")
    (item,) = kept(store)
    assert the_call(item) == ("strong", "strong", "DownError", None, None, False, None)
    assert SECRET.encode() not in store.path.read_bytes()


@pytest.mark.parametrize("api", ["invoke", "ainvoke", "batch", "agenerate", "stream", "astream"])
async def test_the_other_side_is_kept_as_standing_in(setup: Any, fake: Any, store: Recorder, api: str) -> None:
    down = fake(model_name="strong", failures=9, error=DownError())
    await asked(setup(strong=down, fallback_to_other=True, record=store).model, api, "hard")
    (item,) = kept(store)
    assert item.decision.route == "strong"
    assert [(call.side, call.error, call.stands_in) for call in item.calls] == [
        ("strong", "DownError", False),
        ("weak", None, True),
    ]


@pytest.mark.parametrize("other", ["retry", "fallback"])
def test_each_try_inside_a_side_is_a_call(setup: Any, fake: Any, store: Recorder, other: str) -> None:
    down = fake(model_name="strong", failures=1, error=DownError())
    strong = down.with_retry(wait_exponential_jitter=False)
    if other == "fallback":
        strong = down.with_fallbacks([fake(model_name="third")])
    setup(strong=strong, record=store).model.invoke("hard")
    (item,) = kept(store)
    second = "strong" if other == "retry" else "third"
    assert [(call.side, call.model, call.error) for call in item.calls] == [
        ("strong", "strong", "DownError"),
        ("strong", second, None),
    ]


async def test_a_stream_that_is_given_up_is_kept_as_such(setup: Any, store: Recorder) -> None:
    model = setup(record=store).model
    chunks = model.stream("hard")
    next(chunks)
    chunks.close()
    achunks = model.astream("hard")
    await anext(achunks)
    await achunks.aclose()
    assert [the_call(item)[:3] for item in kept(store)] == [("strong", "strong", "GeneratorExit")] * 2


async def test_a_call_that_is_cancelled_leaves_its_decision_alone(setup: Any, fake: Any, store: Recorder) -> None:
    entered = asyncio.Event()

    class Hangs(fake):  # type: ignore[misc] # a fixture gives the class
        async def _agenerate(self, *_: Any, **__: Any) -> Any:
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.ensure_future(setup(strong=Hangs(model_name="strong"), record=store).model.ainvoke("hard"))
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    (item,) = kept(store)
    assert (item.prompt, item.calls) == ("hard", ())


@pytest.mark.parametrize(
    ("settings", "text", "reason", "answered_by"),
    [
        ({}, "easy", "forced", "strong"),
        ({"shadow": "weak"}, "hard", "score", "weak"),
        ({"router": FailingRouter()}, "easy", "router_error", "strong"),
    ],
    ids=["forced", "shadow", "router failed"],
)
def test_whatever_the_reason_the_text_is_kept(
    setup: Any, store: Recorder, settings: Any, text: str, reason: str, answered_by: str
) -> None:
    model = setup(record=store, **settings).model
    answer = model.invoke(text, route="strong") if reason == "forced" else model.invoke(text)
    (item,) = kept(store)
    assert (item.prompt, item.decision.reason, item.answered_by) == (text, reason, answered_by)
    assert item.decision.id == answer.response_metadata["routing"]["id"]
    assert the_call(item)[0] == answered_by


def test_a_conversation_that_stays_with_its_side_is_kept_with_what_was_said_last(setup: Any, store: Recorder) -> None:
    model = setup(decide="per_conversation", record=store).model
    answer = model.invoke("hard")
    model.invoke([HumanMessage("hard"), answer, HumanMessage("easy")])
    assert [(item.prompt, item.decision.reason, the_call(item)[0]) for item in kept(store)] == [
        ("hard", "score", "strong"),
        ("easy", "conversation", "strong"),
    ]


def test_a_call_that_one_side_cannot_take_is_kept_with_its_text(setup: Any, fake: Any, store: Recorder) -> None:
    weak = fake(model_name="weak", profile={"image_inputs": False})
    strong = fake(model_name="strong", profile={"image_inputs": True})
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    setup(strong=strong, weak=weak, record=store).model.invoke(
        [HumanMessage([{"type": "text", "text": "easy"}, image])]
    )
    (item,) = kept(store)
    assert (item.prompt, item.decision.reason, item.decision.detail) == ("easy", "capability", "image_inputs")


def test_messages_that_cannot_be_read_leave_no_record(setup: Any, fake: Any, store: Recorder) -> None:
    def fail(_: Any) -> str:
        raise ValueError

    model = setup(text_fn=fail, record=store).model
    assert model.invoke("easy").response_metadata["routing"]["reason"] == "router_error"
    assert kept(store) == []


def test_a_forced_call_is_made_though_its_text_cannot_be_found(
    setup: Any, store: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = setup(record=store).model
    monkeypatch.setattr("prefroute.conversation.TurnPolicy.question", lambda *_, **__: 1 / 0)
    assert model.invoke("easy", route="strong").response_metadata["routing"]["reason"] == "forced"
    (item,) = kept(store)
    assert (item.prompt, the_call(item)[0]) == ("", "strong")


def test_structured_output_and_tools_keep_the_recorder(setup: Any, fake: Any, store: Recorder) -> None:
    call = AIMessage("", tool_calls=[{"name": "Answer", "args": {"side": "s"}, "id": "1"}])
    pair = setup(strong=fake(model_name="strong", answer=call), weak=fake(model_name="weak", answer=call), record=store)
    assert pair.model.with_structured_output(Answer).invoke("hard") == Answer(side="s")
    pair.model.bind_tools([look_up]).invoke("easy")
    pair.model.bind(threshold=0.0).invoke("other")
    assert [(item.prompt, the_call(item)[0]) for item in kept(store)] == [
        ("hard", "strong"),
        ("easy", "weak"),
        ("other", "strong"),
    ]


def test_of_one_routed_model_in_another_both_decisions_keep_the_call(setup: Any, fake: Any, store: Recorder) -> None:
    inner = setup(record=store).model
    outer = RoutedChatModel(strong=inner, weak=fake(model_name="third"), router=FixedRouter(0.9), record=store)
    outer.invoke("easy")
    assert [(item.prompt, item.answered_by, the_call(item)[:2]) for item in kept(store)] == [
        ("easy", "strong", ("strong", "weak")),
        ("easy", "weak", ("weak", "weak")),
    ]


def test_a_side_that_calls_no_model_leaves_its_decision_alone(setup: Any, store: Recorder) -> None:
    setup(weak=RunnableLambda(lambda _: AIMessage("plain")), record=store).model.invoke("easy")
    (item,) = kept(store)
    assert item.calls == ()


def test_a_completion_model_is_called_too(setup: Any, store: Recorder) -> None:
    setup(weak=FakeListLLM(responses=["plain"]), record=store).model.invoke("easy")
    (item,) = kept(store)
    assert (the_call(item)[0], the_call(item)[2:]) == ("weak", (None, None, None, False, "plain"))


def test_an_answer_by_another_middleware_is_none_of_the_decision(fake: Any, store: Recorder) -> None:
    down = fake(model_name="weak", failures=9, error=DownError())
    third = fake(model_name="third")
    routing = RouterMiddleware(strong=fake(model_name="strong"), weak=down, router=FixedRouter(0.1), record=store)
    agent = create_agent(down, [], middleware=[routing, ModelFallbackMiddleware(third)])
    agent.invoke({"messages": [HumanMessage("go")]})
    assert len(third.seen) == 1
    (item,) = kept(store)
    assert the_call(item)[:3] == ("weak", "weak", "DownError")


def test_feedback_finds_a_decision_by_the_id_in_the_answer(setup: Any, store: Recorder, file: Path) -> None:
    model = setup(record=store).model
    first, second = (model.invoke(text).response_metadata["routing"]["id"] for text in ("hard", "easy"))
    assert store.feedback(first, "good", "as it should be")
    assert Recorder(file).feedback(second, 0.25)
    assert [item.rating for item in kept(store)] == [1.0, 0.25]


def test_the_calls_of_a_decision_that_is_not_of_the_sample_have_no_handler(setup: Any, file: Path) -> None:
    with Recorder(file, sample=0.0) as store:
        pair = setup(record=store)
        callbacks = []
        pair.model.strong = RunnableLambda(lambda _, config: callbacks.append(config["callbacks"]) or AIMessage("x"))
        pair.model.invoke("hard")
    assert not [one for one in callbacks[0].handlers if "CallWatch" in type(one).__name__]
    assert not file.exists()


def test_nothing_is_kept_unless_it_is_asked_for(setup: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = setup().model
    assert model.record is None
    model.invoke("hard")
    assert list(tmp_path.iterdir()) == []


def test_a_path_stands_for_a_recorder_and_no_file_is_made_before_the_first_decision(setup: Any, file: Path) -> None:
    model = setup(record=str(file)).model
    assert isinstance(model.record, Recorder)
    assert not file.exists()
    model.invoke("hard")
    model.record.close()
    assert [item.prompt for item in read_recorded(file)] == ["hard"]
    with pytest.raises(ConfigurationError, match=r"record must be a prefroute.recording.Recorder.*got int"):
        setup(record=3)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_copies_record_too_and_tell_nobody(setup: Any, store: Recorder, copied: Any) -> None:
    pair = setup(record=store)
    made = copied(store) if "lambda" in copied.__name__ else copied(pair.model).record
    assert made.path == store.path
    model = pair.model.model_copy(update={"record": made})
    model.invoke("hard")
    made.close()
    assert [item.prompt for item in read_recorded(store.path)] == ["hard"]
    assert "record" not in model.model_dump()
    assert str(store.path) not in repr(model)
    assert isinstance(model, BaseChatModel)
