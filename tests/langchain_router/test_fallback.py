"""`fallback_to_other`: the other side answers where the chosen one fails before anybody saw a token; once."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4

import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnablePassthrough
from langchain_core.tools import tool
from langchain_core.utils.function_calling import convert_to_openai_tool
from langgraph.graph import START, MessagesState, StateGraph
from pydantic import BaseModel, PrivateAttr, ValidationError

from langchain_router import StrongCallRateHandler
from prefroute import ConfigurationError, RouterError, RoutingDecision, ThresholdError
from prefroute.testing import FailingRouter, FixedRouter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

WHOLE = ["invoke", "ainvoke", "batch", "abatch", "generate", "agenerate"]
STREAMS = ["stream", "astream"]
STRUCTURED = ["structured", "astructured"]
EVERY = [*WHOLE, *STREAMS, *STRUCTURED]
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


class Answer(BaseModel):
    """An answer."""

    side: str


class DownError(Exception):
    """What a provider's client raises."""


@tool
def look_up(key: str) -> str:
    """Look a thing up."""
    return key


def summed(chunks: list[Any]) -> Any:
    total = chunks[0]
    for chunk in chunks[1:]:
        total += chunk
    return total


class Call(NamedTuple):
    messages: list[Any]
    kwargs: dict[str, Any]


class Flaky(BaseChatModel):
    """Answers with its name; fails at its first calls, or after so many chunks, or waits for ever.

    Attributes:
        entered: Set where it begins to wait.
        structured: Whether it answers in the schema.
    """

    model_name: str
    failures: int = 0
    error: Any = None
    breaks_after: int | None = None
    entered: Any = None
    streaming: bool = False
    structured: bool = False
    answer: Any = None
    _seen: list[Call] = PrivateAttr(default_factory=list)
    _opened: list[str] = PrivateAttr(default_factory=list)
    _closed: list[str] = PrivateAttr(default_factory=list)

    @property
    def seen(self) -> list[Call]:
        return self._seen

    @property
    def opened(self) -> list[str]:
        """Streams that began."""
        return self._opened

    @property
    def closed(self) -> list[str]:
        """Streams that ended."""
        return self._closed

    @property
    def _llm_type(self) -> str:
        return "flaky"

    def _look(self, messages: Any, kwargs: Any) -> None:
        self._seen.append(Call(list(messages), kwargs))
        if len(self._seen) <= self.failures:
            raise self.error

    def _message(self) -> AIMessage:
        if self.answer is not None:
            return self.answer.model_copy(update={"response_metadata": {}})
        calls: Any = [{"name": "Answer", "args": {"side": self.model_name}, "id": "1"}] if self.structured else []
        return AIMessage("" if self.structured else self.model_name, tool_calls=calls)

    def _parts(self) -> Iterator[Any]:
        message = self._message()
        parts = [AIMessageChunk(self.model_name), AIMessageChunk(" says"), AIMessageChunk(" hi")]
        if message.tool_calls:
            calls: Any = [{**call, "args": json.dumps(call["args"]), "index": 0} for call in message.tool_calls]
            parts = [AIMessageChunk("", tool_call_chunks=calls), AIMessageChunk("")]
        for number, part in enumerate(parts):
            if number == self.breaks_after:
                raise self.error
            yield ChatGenerationChunk(message=part)

    def _result(self) -> ChatResult:
        generation = ChatGeneration(message=self._message())
        return ChatResult(generations=[generation], llm_output={"model_name": self.model_name})

    def _combine_llm_outputs(self, outputs: list[Any], /) -> dict[str, Any]:
        return {"model_name": self.model_name, "calls": len(outputs)}

    async def _wait(self) -> None:
        if self.entered is not None:
            self.entered.set()
            await asyncio.Event().wait()

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        self._look(messages, kwargs)
        return self._result()

    async def _agenerate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        self._look(messages, kwargs)
        await self._wait()
        return self._result()

    def _stream(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> Iterator[Any]:
        self._opened.append("sync")
        try:
            self._look(messages, kwargs)
            yield from self._parts()
        finally:
            self._closed.append("sync")

    async def _astream(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        self._opened.append("async")
        try:
            self._look(messages, kwargs)
            await self._wait()
            for part in self._parts():
                yield part
        finally:
            self._closed.append("async")

    def bind_tools(self, tools: Any, *, tool_choice: Any = None, **kwargs: Any) -> Any:
        return self.bind(tools=[{**convert_to_openai_tool(tool), "for": self.model_name} for tool in tools], **kwargs)


@pytest.fixture
def pair_of(setup: Any) -> Callable[..., Any]:
    """A pair with the fallback on, whose strong side is down, for any kind of call."""

    def make(api: str, *, down: Any = ("strong",), error: Any = None, strong: Any = None, **settings: Any) -> Any:
        error = DownError("overloaded") if error is None else error
        fields: dict[str, Any] = {"strong": strong or {}, "weak": settings.pop("weak", None) or {}}
        children = {
            name: Flaky(
                model_name=name,
                structured=api in STRUCTURED,
                **{"failures": 99 if name in down else 0, "error": error, **fields[name]},
            )
            for name in fields
        }
        return setup(**children, **{"fallback_to_other": True, **settings})

    return make


async def ask(model: Any, api: str, text: Any = "hard", config: Any = None, **kwargs: Any) -> Any:
    """One call of any kind, as a message."""
    if api in STRUCTURED:
        chain = model.with_structured_output(Answer, include_raw=True)
        found = await ask(chain, "invoke" if api == "structured" else "ainvoke", text, config, **kwargs)
        assert found["parsed"] is not None
        return found["raw"]
    if "generate" in api:
        messages, kwargs = [[HumanMessage(text)]], {**(config or {}), **kwargs}
        result = model.generate(messages, **kwargs) if api == "generate" else await model.agenerate(messages, **kwargs)
        return result.generations[0][0].message
    if api == "stream":
        return summed(list(model.stream(text, config, **kwargs)))
    if api == "astream":
        return summed([chunk async for chunk in model.astream(text, config, **kwargs)])
    if "batch" in api:
        given = ([text], config)
        answers = model.batch(*given, **kwargs) if api == "batch" else await model.abatch(*given, **kwargs)
        return answers[0]
    return model.invoke(text, config, **kwargs) if api == "invoke" else await model.ainvoke(text, config, **kwargs)


def side_of(message: Any) -> str:
    if message.tool_calls:
        return message.tool_calls[0]["args"]["side"]
    return message.text.split()[0]


every = pytest.mark.parametrize("api", EVERY)


# --- that the other one answers ---


@every
@pytest.mark.parametrize(("text", "down", "other"), [("hard", "strong", "weak"), ("easy", "weak", "strong")])
async def test_the_other_side_answers_and_it_is_told(
    pair_of: Any, recorder: Any, api: str, text: str, down: str, other: str
) -> None:
    seen: list[RoutingDecision] = []
    pair = pair_of(api, down=[down], on_route=seen.append)
    answer = await ask(pair.model, api, text, {"callbacks": [recorder]})
    assert side_of(answer) == other
    routing = answer.response_metadata["routing"]
    assert routing["route"] == down, "what was decided stays what was decided"
    assert routing["reason"] == "score"
    assert routing["answered_by"] == other
    assert routing["fallback"] == {"from": down, "error": "DownError"}
    assert "overloaded" not in str(answer)
    # The runs: two of models, one that failed and one that answered, of one decision.
    assert [metadata["ls_model_name"] for metadata in recorder.models] == [down, other]
    first, second = (metadata["routing"] for metadata in recorder.models)
    assert second == routing
    assert first == {name: value for name, value in routing.items() if name not in {"answered_by", "fallback"}}
    assert len(set(recorder.ids)) == 2
    assert len(recorder.errors) == 1
    assert [decision.id for decision in seen] == [routing["id"]]
    assert pair.model.stats.snapshot()["by_route"] == {"strong": int(down == "strong"), "weak": int(down == "weak")}
    assert len(getattr(pair, down).seen) == len(getattr(pair, other).seen) == 1


@every
async def test_it_is_off_by_default(pair_of: Any, api: str) -> None:
    error = DownError()
    pair = pair_of(api, error=error, fallback_to_other=False)
    with pytest.raises(DownError) as caught:
        await ask(pair.model, api)
    assert caught.value is error
    assert pair.weak.seen == []


@every
async def test_nothing_is_marked_where_nothing_failed(pair_of: Any, recorder: Any, api: str) -> None:
    pair = pair_of(api, down=[])
    answer = await ask(pair.model, api, "hard", {"callbacks": [recorder]})
    assert side_of(answer) == "strong"
    assert set(answer.response_metadata["routing"]) == {"route", "score", "threshold", "reason", "id"}
    assert len(recorder.models) == 1
    assert pair.weak.seen == []


@every
async def test_where_both_fail_the_first_error_is_told(pair_of: Any, setup: Any, api: str) -> None:
    first, second = DownError("first"), DownError("second")
    structured = api in STRUCTURED
    strong = Flaky(model_name="strong", failures=99, error=first, structured=structured)
    weak = Flaky(model_name="weak", failures=99, error=second, structured=structured)
    model = setup(strong=strong, weak=weak, fallback_to_other=True).model
    with pytest.raises(DownError) as caught:
        await ask(model, api)
    assert caught.value is first
    assert caught.value.__context__ is second, "the other one can be seen too"
    assert (len(strong.seen), len(weak.seen)) == (1, 1), "once"
    assert model.stats.total == 1


@every
async def test_the_next_call_tries_the_chosen_side_again(pair_of: Any, api: str) -> None:
    pair = pair_of(api, down=[], strong={"failures": 1, "error": DownError()})
    assert [side_of(await ask(pair.model, api)) for _ in range(2)] == ["weak", "strong"]
    assert pair.model.stats.snapshot()["by_route"] == {"strong": 2, "weak": 0}


@every
async def test_settings_of_the_call_hold_for_both(pair_of: Any, api: str) -> None:
    pair = pair_of(api)
    answer = await ask(pair.model, api, "easy", threshold=0.0, temperature=0.5)
    assert side_of(answer) == "weak"
    assert answer.response_metadata["routing"]["threshold"] == 0.0
    for call in (*pair.strong.seen, *pair.weak.seen):
        # A chain with `include_raw` drops its keywords, routed or not.
        assert api in STRUCTURED or call.kwargs["temperature"] == 0.5
        assert "threshold" not in call.kwargs


@every
async def test_a_side_that_the_caller_named_is_not_exchanged(pair_of: Any, api: str) -> None:
    pair = pair_of(api)
    with pytest.raises(DownError):
        await ask(pair.model, api, "easy", route="strong")
    assert pair.weak.seen == []


@pytest.mark.parametrize("api", [api for api in EVERY if api not in STRUCTURED])
async def test_a_run_id_is_that_of_the_first_run(pair_of: Any, recorder: Any, api: str) -> None:
    run_id = uuid4()
    pair = pair_of(api)
    await ask(pair.model, api, "hard", {"callbacks": [recorder], "run_id": run_id})
    assert recorder.ids[0] == run_id
    assert recorder.ids[1] not in {run_id, None}


@pytest.mark.parametrize("api", [api for api in EVERY if "generate" not in api])
async def test_the_callers_config_holds_for_both_and_stays_as_it_was(pair_of: Any, recorder: Any, api: str) -> None:
    config: Any = {"callbacks": [recorder], "metadata": {"mine": 1}, "tags": ["t"], "configurable": {"thread_id": "7"}}
    pair = pair_of(api, tags=["own"])
    await ask(pair.model, api, "hard", config)
    assert [metadata["mine"] for metadata in recorder.models] == [1, 1]
    assert all({"t", "own"} <= set(tags) for tags in recorder.tags)
    assert config == {
        "callbacks": [recorder],
        "metadata": {"mine": 1},
        "tags": ["t"],
        "configurable": {"thread_id": "7"},
    }


@pytest.mark.parametrize("api", ["batch", "abatch"])
async def test_each_of_a_batch_has_its_own_chance(pair_of: Any, api: str) -> None:
    model = pair_of(api).model
    texts = ["hard", "easy", "hard"]
    answers = model.batch(texts) if api == "batch" else await model.abatch(texts)
    assert [side_of(answer) for answer in answers] == ["weak"] * 3
    assert ["fallback" in answer.response_metadata["routing"] for answer in answers] == [True, False, True]
    assert model.stats.snapshot()["by_route"] == {"strong": 2, "weak": 1}


@pytest.mark.parametrize("api", ["batch", "abatch"])
async def test_errors_of_a_batch_are_returned_where_both_fail(pair_of: Any, api: str) -> None:
    error = DownError()
    pair = pair_of(api, down=["strong", "weak"], error=error)
    texts = ["hard", "easy"]
    if api == "batch":
        outcomes = pair.model.batch(texts, return_exceptions=True)
    else:
        outcomes = await pair.model.abatch(texts, return_exceptions=True)
    assert outcomes == [error, error]


async def test_a_batch_as_completed_falls_back_too(pair_of: Any) -> None:
    pair = pair_of("batch")
    assert {side_of(answer) for _, answer in pair.model.batch_as_completed(["hard", "easy"])} == {"weak"}
    assert {side_of(answer) async for _, answer in pair.model.abatch_as_completed(["hard", "easy"])} == {"weak"}


def test_generated_output_stands_under_the_side_that_answered(pair_of: Any) -> None:
    result = pair_of("generate").model.generate([[HumanMessage("hard")], [HumanMessage("easy")]])
    assert result.llm_output == {"model_name": "weak", "calls": 2}
    assert [generation[0].message.text for generation in result.generations] == ["weak", "weak"]


def test_a_handler_counts_one_decision_and_two_calls(pair_of: Any) -> None:
    handler = StrongCallRateHandler()
    pair = pair_of("invoke")
    pair.model.invoke("hard", {"callbacks": [handler]})
    assert handler.snapshot()["by_route"] == {"strong": 1, "weak": 0}


def test_bound_tools_and_arguments_go_to_whoever_answers(pair_of: Any) -> None:
    pair = pair_of("invoke")
    assert side_of(pair.model.bind(temperature=0.5).bind_tools([look_up]).invoke("hard")) == "weak"
    (call,) = pair.weak.seen
    assert [one["for"] for one in call.kwargs["tools"]] == ["weak"]
    assert call.kwargs["temperature"] == 0.5


@every
async def test_wrappers_inside_have_their_chance_first(setup: Any, api: str) -> None:
    structured = api in STRUCTURED
    strong = Flaky(model_name="strong", failures=1, error=DownError(), structured=structured)
    weak = Flaky(model_name="weak", structured=structured)
    # A retry hands a stream through without trying again.
    wrapped = strong.with_fallbacks([strong]) if api in STREAMS else strong.with_retry(wait_exponential_jitter=False)
    model = setup(strong=wrapped, weak=weak, fallback_to_other=True).model
    assert side_of(await ask(model, api)) == "strong"
    assert (len(strong.seen), weak.seen) == (2, [])


@pytest.mark.parametrize("side", ["strong", "weak"])
def test_a_shadow_that_answers_everything_cannot_be_stood_in_for(pair_of: Any, side: str) -> None:
    with pytest.raises(ConfigurationError, match=f"fallback_to_other and shadow='{side}' contradict each other"):
        pair_of("invoke", shadow=side)
    assert pair_of("invoke", shadow=side, fallback_to_other=False).model.shadow == side


def test_the_side_that_called_the_tool_answers_its_result(pair_of: Any) -> None:
    call: Any = [{"name": "look_up", "args": {"key": "a"}, "id": "1"}]
    pair = pair_of(
        "invoke", down=[], lock_tool_loop=True, decide="per_step", weak={"failures": 1, "error": DownError()}
    )
    pair.strong.answer = AIMessage("", tool_calls=call)
    caller = pair.model.invoke("easy")
    assert caller.response_metadata["routing"]["answered_by"] == "strong"
    pair.strong.answer = None
    answer = pair.model.invoke([HumanMessage("easy"), caller, ToolMessage("a", tool_call_id="1")])
    assert answer.text == "strong"
    assert answer.response_metadata["routing"]["reason"] == "tool_loop"


def test_a_conversation_goes_on_with_the_side_that_was_decided_on(pair_of: Any) -> None:
    pair = pair_of("invoke", down=[], decide="per_conversation", strong={"failures": 1, "error": DownError()})
    answer = pair.model.invoke("hard")
    assert answer.text == "weak"
    following = pair.model.invoke([HumanMessage("hard"), answer, HumanMessage("easy")])
    assert following.text == "strong"
    assert following.response_metadata["routing"]["reason"] == "conversation"


@pytest.mark.parametrize("api", ["invoke", "astream", "generate", "structured"])
async def test_a_side_that_cannot_take_the_call_is_not_tried(setup: Any, api: str) -> None:
    # It would answer without the tools, or without having seen the picture.
    strong = Flaky(model_name="strong", failures=99, error=DownError(), structured=api in STRUCTURED)
    weak = Flaky(model_name="weak", profile={"image_inputs": False}, structured=api in STRUCTURED)
    model = setup(strong=strong, weak=weak, fallback_to_other=True).model
    picture = [{"type": "text", "text": "easy"}, IMAGE]
    value: Any = picture if "generate" in api else [HumanMessage(picture)]
    with pytest.raises(DownError):
        await ask(model, api, value)
    assert weak.seen == []


def test_a_side_without_tools_does_not_answer_in_their_place(setup: Any, fake: Any) -> None:
    class Toolless(fake):
        def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
            raise NotImplementedError

    weak = Toolless(model_name="weak", profile={"tool_calling": False})
    strong = Flaky(model_name="strong", failures=99, error=DownError())
    bound = setup(strong=strong, weak=weak, fallback_to_other=True).model.bind_tools([look_up])
    with pytest.raises(DownError):
        bound.invoke("easy")
    assert weak.seen == []


# --- that it does not where it must not ---


@every
@pytest.mark.parametrize("router", [FailingRouter(), FailingRouter(ValueError())])
async def test_an_error_of_the_router_is_no_reason(pair_of: Any, api: str, router: Any) -> None:
    pair = pair_of(api, down=[], router=router, on_router_error="raise")
    with pytest.raises(RouterError):
        await ask(pair.model, api)
    assert pair.strong.seen == pair.weak.seen == []


@every
async def test_an_error_of_the_caller_is_no_reason(pair_of: Any, api: str) -> None:
    pair = pair_of(api, down=[])
    with pytest.raises(ThresholdError):
        await ask(pair.model, api, threshold="high")
    assert pair.strong.seen == pair.weak.seen == []


@pytest.mark.parametrize("api", [api for api in EVERY if not api.startswith("a")])
@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_what_ends_the_program_is_no_reason(pair_of: Any, api: str, kind: type[BaseException]) -> None:
    pair = pair_of(api, down=[])

    def end(*_: Any, **__: Any) -> Any:
        raise kind

    object.__setattr__(pair.strong, "_look", end)
    with pytest.raises(kind):
        asyncio.run(ask(pair.model, api))
    assert pair.weak.seen == []


@pytest.mark.parametrize("api", [api for api in EVERY if api.startswith("a")])
async def test_a_call_that_is_cancelled_is_not_made_again(pair_of: Any, recorder: Any, api: str) -> None:
    entered = asyncio.Event()
    pair = pair_of(api, down=[], strong={"entered": entered})
    task = asyncio.create_task(ask(pair.model, api, "hard", {"callbacks": [recorder]}))
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert pair.weak.seen == []
    assert len(recorder.models) == 1
    assert pair.strong.closed == pair.strong.opened == (["async"] if api == "astream" else [])


@pytest.mark.parametrize("api", STREAMS)
@pytest.mark.parametrize("after", [1, 2])
async def test_after_a_chunk_was_seen_nobody_else_answers(pair_of: Any, api: str, after: int) -> None:
    error = DownError()
    pair = pair_of(api, down=[], strong={"breaks_after": after, "error": error})
    seen: list[str] = []

    async def read() -> None:
        if api == "stream":
            for chunk in pair.model.stream("hard"):
                seen.append(chunk.text)  # noqa: PERF401 - the error ends it
        else:
            async for chunk in pair.model.astream("hard"):
                seen.append(chunk.text)  # noqa: PERF401 - likewise

    with pytest.raises(DownError) as caught:
        await read()
    assert caught.value is error
    assert seen == ["strong", " says"][:after]
    assert pair.weak.seen == []
    assert pair.strong.closed == pair.strong.opened
    assert len(pair.strong.closed) == 1


@pytest.mark.parametrize("api", STREAMS)
async def test_before_the_first_chunk_the_other_side_answers(pair_of: Any, api: str) -> None:
    pair = pair_of(api, down=[], strong={"breaks_after": 0, "error": DownError()})
    answer = await ask(pair.model, api)
    assert answer.text == "weak says hi"
    assert answer.response_metadata["routing"]["fallback"] == {"from": "strong", "error": "DownError"}
    assert len(pair.strong.closed) == len(pair.weak.closed) == 1


class Shows(BaseCallbackHandler):
    """Shows tokens as they come."""

    run_inline = True

    def __init__(self) -> None:
        self.shown: list[str] = []

    def on_llm_new_token(self, token: Any, **_: Any) -> None:
        self.shown.append(token)


@pytest.mark.parametrize("api", [*WHOLE, *STRUCTURED])
@pytest.mark.parametrize("after", [0, 1])
async def test_after_a_callback_saw_a_token_nobody_else_answers(pair_of: Any, api: str, after: int) -> None:
    # A model may stream inside `invoke`, as it does in a graph that shows tokens.
    error, shows = DownError(), Shows()
    pair = pair_of(api, down=[], strong={"breaks_after": after, "error": error, "streaming": True})
    call = ask(pair.model, api, "hard", {"callbacks": [shows]})
    if after == 0:
        assert side_of(await call) == "weak"
        assert shows.shown == []
        return
    with pytest.raises(DownError) as caught:
        await call
    assert caught.value is error
    assert len(shows.shown) == 1
    assert pair.weak.seen == []


BREAKS = pytest.mark.parametrize(("after", "text"), [(0, "weak says hi"), (1, "strong")])
BETA = pytest.mark.filterwarnings("ignore:.*in beta:langchain_core._api.beta_decorator.LangChainBetaWarning")


@BREAKS
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_graph_that_shows_tokens_never_shows_two_answers(
    pair_of: Any, after: int, text: str, asynchronous: bool
) -> None:
    pair = pair_of("invoke", down=[], strong={"breaks_after": after, "error": DownError()})

    def node(state: Any) -> Any:
        return {"messages": [pair.model.invoke(state["messages"])]}

    async def anode(state: Any) -> Any:
        return {"messages": [await pair.model.ainvoke(state["messages"])]}

    graph: Any = StateGraph(MessagesState)
    graph = graph.add_node("model", anode if asynchronous else node).add_edge(START, "model").compile()
    value, shown = {"messages": [("human", "hard")]}, []

    async def read() -> None:
        if asynchronous:
            async for chunk, _ in graph.astream(value, stream_mode="messages"):
                shown.append(chunk.text)
        else:
            for chunk, _ in graph.stream(value, stream_mode="messages"):
                shown.append(chunk.text)

    if after == 0:
        await read()
    else:
        with pytest.raises(DownError):
            await read()
    assert "".join(shown) == text


@BETA
@BREAKS
@pytest.mark.parametrize("in_chain", [False, True])
async def test_events_never_tell_of_two_answers_nor_of_one_twice(
    pair_of: Any, after: int, text: str, in_chain: bool
) -> None:
    pair = pair_of("astream", down=[], strong={"breaks_after": after, "error": DownError()})
    shown: list[str] = []
    model = RunnablePassthrough() | pair.model if in_chain else pair.model

    async def read() -> None:
        async for event in model.astream_events("hard", version="v2"):
            if event["event"] == "on_chat_model_stream":
                shown.append(event["data"]["chunk"].text)  # noqa: PERF401 - the error may end it

    if after == 0:
        await read()
    else:
        with pytest.raises(DownError):
            await read()
    assert "".join(shown) == text


@BETA
async def test_events_of_structured_output_tell_its_answer_once(pair_of: Any) -> None:
    model = pair_of("structured").model.with_structured_output(Answer)
    told = [
        event["data"]["chunk"]
        async for event in model.astream_events("hard", version="v2")
        if event["event"] == "on_chain_stream"
    ]
    assert told == [Answer(side="weak")]


@BETA
def test_a_typed_stream_passes_its_error_on(pair_of: Any) -> None:
    error = DownError()
    pair = pair_of("stream", error=error)
    with pytest.raises(DownError) as caught:
        str(pair.model.stream_events("hard", version="v3").text)
    assert caught.value is error
    assert pair.weak.seen == []


def test_a_fallback_around_it_comes_after_both(pair_of: Any, fake: Any) -> None:
    pair = pair_of("invoke", down=["strong", "weak"])
    spare = fake(model_name="spare")
    assert pair.model.with_fallbacks([spare]).invoke("hard").content == "spare"
    assert (len(pair.strong.seen), len(pair.weak.seen)) == (1, 1)


def test_nested_each_pair_tries_its_own_other_side(pair_of: Any, setup: Any) -> None:
    inner = pair_of("invoke")
    mid = setup(strong=Flaky(model_name="top"), weak=inner.model, router=FixedRouter(0.1), fallback_to_other=True)
    answer = mid.model.invoke("hard")
    assert answer.text == "weak"
    assert "fallback" not in answer.response_metadata["routing"]
    assert answer.response_metadata["routing"]["inner"]["fallback"]["from"] == "strong"
    inner = pair_of("invoke", down=["strong", "weak"])
    mid = setup(strong=Flaky(model_name="top"), weak=inner.model, router=FixedRouter(0.1), fallback_to_other=True)
    answer = mid.model.invoke("hard")
    assert answer.text == "top"
    assert answer.response_metadata["routing"]["fallback"] == {"from": "weak", "error": "DownError"}


# --- that nothing stays open ---


@pytest.mark.parametrize(("down", "fallback"), [([], False), ([], True), (["strong"], True)])
async def test_closing_early_closes_the_stream_that_answers(pair_of: Any, down: Any, fallback: bool) -> None:
    pair = pair_of("stream", down=down, fallback_to_other=fallback)
    answers = pair.weak if down else pair.strong
    stream = pair.model.stream("hard")
    next(stream)
    assert answers.closed == []
    stream.close()
    assert answers.closed == ["sync"]
    astream = pair.model.astream("hard")
    await anext(astream)
    assert answers.closed == ["sync"]
    await astream.aclose()
    assert answers.closed == ["sync", "async"]
    for model in (pair.strong, pair.weak):
        assert model.closed == model.opened


@pytest.mark.parametrize("fallback", [False, True])
@pytest.mark.parametrize(
    "bind",
    [
        lambda model: model.bind_tools([look_up]),
        lambda model: model.bind(temperature=0.5),
        lambda model: model.with_structured_output(Answer, include_raw=True),
        lambda model: model.with_structured_output(Answer).bind(threshold=0.5),
        lambda model: RunnablePassthrough() | model.with_config(tags=["t"]),
    ],
    ids=["tools", "bind", "schema", "schema, bind", "chain"],
)
async def test_closing_early_closes_the_stream_of_what_is_bound(pair_of: Any, fallback: bool, bind: Any) -> None:
    pair = pair_of("structured", down=[], fallback_to_other=fallback)
    bound = bind(pair.model)
    stream = bound.stream("hard")
    next(stream)
    stream.close()
    assert pair.strong.closed == pair.strong.opened == ["sync"]
    astream = bound.astream("hard")
    await anext(astream)
    await astream.aclose()
    # LangChain's own bindings and chains leave what they iterate over to the event loop, around a plain model too.
    for _ in range(100):
        await asyncio.sleep(0)
    assert pair.strong.closed == pair.strong.opened == ["sync", "async"]


class Parts:
    """Chunks that come from no generator."""

    def __init__(self, *parts: Any, closed: list[str]) -> None:
        self.parts = list(parts)
        self.closed = closed

    def __iter__(self) -> Parts:
        return self

    def __next__(self) -> Any:
        if not self.parts:
            raise StopIteration
        part = self.parts.pop(0)
        if isinstance(part, Exception):
            raise part
        return part

    def __aiter__(self) -> Parts:
        return self

    async def __anext__(self) -> Any:
        try:
            return next(self)
        except StopIteration:
            raise StopAsyncIteration from None


class ClosingParts(Parts):
    """The same, and they can be closed."""

    def close(self) -> None:
        self.closed.append("sync")

    async def aclose(self) -> None:
        self.closed.append("async")


class Odd(Runnable[Any, Any]):
    """A child whose streams are no generators."""

    def __init__(self, kind: type[Parts], *parts: Any) -> None:
        self.kind, self.parts = kind, parts
        self.closed: list[str] = []

    def invoke(self, *_: Any, **__: Any) -> Any:
        return self.parts[-1]

    def stream(self, *_: Any, **__: Any) -> Any:
        return self.kind(*self.parts, closed=self.closed)

    def astream(self, *_: Any, **__: Any) -> Any:
        return self.kind(*self.parts, closed=self.closed)


@pytest.mark.parametrize("kind", [Parts, ClosingParts])
async def test_a_stream_that_is_no_generator_works_and_is_closed(setup: Any, kind: type[Parts]) -> None:
    odd = Odd(kind, AIMessageChunk("a"), AIMessageChunk("b"))
    model = setup(strong=odd).model
    assert [chunk.text for chunk in model.stream("hard")] == ["a", "b"]
    assert [chunk.text async for chunk in model.astream("hard")] == ["a", "b"]
    assert odd.closed == ([] if kind is Parts else ["sync", "async"])


@pytest.mark.parametrize("kind", [Parts, ClosingParts])
async def test_a_stream_that_fails_at_once_is_closed(setup: Any, kind: type[Parts]) -> None:
    odd = Odd(kind, DownError(), AIMessageChunk("b"))
    pair = setup(strong=odd, fallback_to_other=True)
    for api in STREAMS:
        answer = await ask(pair.model, api)
        assert answer.text == "weak says hi"
        assert answer.response_metadata["routing"]["fallback"]["error"] == "DownError"
    assert odd.closed == ([] if kind is Parts else ["sync", "async"])


@pytest.mark.parametrize("api", STREAMS)
async def test_a_stream_of_nothing_is_no_failure(setup: Any, api: str) -> None:
    pair = setup(strong=Odd(ClosingParts), fallback_to_other=True)
    if api == "stream":
        assert list(pair.model.stream("hard")) == []
    else:
        assert [chunk async for chunk in pair.model.astream("hard")] == []
    assert pair.weak.seen == []
    assert len(pair.strong.closed) == 1


async def test_a_stream_that_nobody_reads_is_not_opened(pair_of: Any) -> None:
    pair = pair_of("stream", down=[])
    pair.model.stream("hard").close()
    await pair.model.astream("hard").aclose()
    assert pair.strong.opened == []
    assert pair.model.stats.total == 0


async def test_cancelling_the_reader_of_a_stream_closes_it(pair_of: Any) -> None:
    pair = pair_of("astream", down=[])
    got = asyncio.Event()

    async def read() -> None:
        async for _ in pair.model.astream("hard"):
            got.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(read())
    await got.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    # The reader left its generator behind; closing it is the event loop's affair, at the latest when it ends.
    await asyncio.get_running_loop().shutdown_asyncgens()
    assert pair.strong.closed == ["async"]
    assert pair.weak.seen == []


def test_an_answer_that_does_not_parse_is_an_answer_all_the_same(setup: Any) -> None:
    odd = AIMessage("", tool_calls=[{"name": "Answer", "args": {"size": 1}, "id": "1"}])
    pair = setup(
        strong=Flaky(model_name="strong", answer=odd),
        weak=Flaky(model_name="weak", structured=True),
        fallback_to_other=True,
    )
    with pytest.raises(ValidationError):
        pair.model.with_structured_output(Answer).invoke("hard")
    assert pair.weak.seen == []
