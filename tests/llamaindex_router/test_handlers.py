"""StrongCallRateEventHandler and StrongCallRateHandler: rates, calls, tokens and costs."""

from __future__ import annotations

import asyncio
import copy
import json
import math
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from llama_index.core import Settings
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.callbacks import CallbackManager, CBEventType, TokenCountingHandler
from llama_index.core.callbacks.llama_debug import LlamaDebugHandler
from llama_index.core.callbacks.schema import EventPayload
from llama_index.core.chat_engine import SimpleChatEngine
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.events import BaseEvent
from llama_index.core.instrumentation.events.exception import ExceptionEvent
from llama_index.core.instrumentation.events.llm import LLMChatEndEvent, LLMChatStartEvent, LLMCompletionEndEvent
from llama_index.core.llms import LLM, ChatMessage, ChatResponse, CompletionResponse, LLMMetadata
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.prompts import PromptTemplate
from llama_index.core.response_synthesizers import get_response_synthesizer
from llama_index.core.tools import FunctionTool
from llama_index_instrumentation.dispatcher import instrument_tags
from llamaindex_agents import AGENT_WARNINGS

from llamaindex_router import RoutedLLM, RouterSelector, StrongCallRateEventHandler, StrongCallRateHandler
from prefroute import ConfigurationError
from prefroute.costs import Price
from prefroute.testing import FixedRouter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import DialectLLM, PlainLLM

NOTHING = {"calls": 0, "failed": 0, "input_tokens": 0, "output_tokens": 0, "cost": None, "unpriced": 0}
PRICE = Price(input=10.0, cached_input=1.0, output=30.0)
QUESTION = PromptTemplate("Context: a long text.\nQ: {query_str}\nA:")


class Metered(LLM):
    """An LLM whose answers say what they used; its streams say so in their last part."""

    model: str
    raw: Any = None
    error: Any = None
    parts: int = 3
    breaks: Any = None

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name=self.model, is_chat_model=True)

    def _chat(self) -> ChatResponse:
        if self.error is not None:
            raise self.error
        return ChatResponse(message=ChatMessage(role="assistant", content=self.model), raw=self.raw)

    def _completion(self) -> CompletionResponse:
        if self.error is not None:
            raise self.error
        return CompletionResponse(text=self.model, raw=self.raw)

    def _parts(self, response: Any) -> Iterator[Any]:
        for number in range(1, self.parts + 1):
            yield response.model_copy(update={"delta": "x", "raw": self.raw if number == self.parts else {}})
        if self.breaks is not None:
            raise self.breaks

    async def _aparts(self, response: Any) -> Any:
        for part in self._parts(response):
            yield part

    @llm_chat_callback()
    def chat(self, messages: Any, **kwargs: Any) -> ChatResponse:
        return self._chat()

    @llm_chat_callback()
    async def achat(self, messages: Any, **kwargs: Any) -> ChatResponse:
        await asyncio.sleep(0)
        return self._chat()

    @llm_chat_callback()
    def stream_chat(self, messages: Any, **kwargs: Any) -> Any:
        return self._parts(self._chat())

    @llm_chat_callback()
    async def astream_chat(self, messages: Any, **kwargs: Any) -> Any:
        return self._aparts(self._chat())

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return self._completion()

    @llm_completion_callback()
    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return self._completion()

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        return self._parts(self._completion())

    @llm_completion_callback()
    async def astream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        return self._aparts(self._completion())


def user(text: str) -> list[ChatMessage]:
    return [ChatMessage(content=text)]


def tokens(given: int, answered: int, model: str | None = None) -> dict[str, Any]:
    """What OpenAI's say, as a plain dictionary."""
    usage = {"prompt_tokens": given, "completion_tokens": answered, "total_tokens": given + answered}
    return {"usage": usage, **({} if model is None else {"model": model})}


def figures(calls: int = 1, **more: Any) -> dict[str, Any]:
    return NOTHING | {"calls": calls} | more


EVERY = [
    "chat",
    "achat",
    "stream_chat",
    "astream_chat",
    "complete",
    "acomplete",
    "stream_complete",
    "astream_complete",
    "predict",
    "apredict",
    "stream",
    "astream",
]
every_api = pytest.mark.parametrize("api", EVERY)


async def opened(routed: Any, api: str, text: str) -> Any:
    """What a method returns; a stream is not read."""
    if api in {"predict", "apredict", "stream", "astream"}:
        result = getattr(routed, api)(QUESTION, query_str=text)
    else:
        result = getattr(routed, api)(text if "complete" in api else user(text))
    return await result if api.startswith("a") else result


async def ask(routed: Any, api: str, text: str) -> None:
    result = await opened(routed, api, text)
    if api.startswith("astream"):
        async for _ in result:
            pass
    elif api.startswith("stream"):
        list(result)


async def ask_all(routed: Any, text: str) -> None:
    for api in EVERY:
        await ask(routed, api, text)


class Watched:
    """A routed LLM that both handlers watch."""

    def __init__(self, strong: LLM, weak: LLM, router: FixedRouter, events: Any, calls: Any, **settings: Any) -> None:
        self.events, self.calls = events, calls
        manager = CallbackManager([calls])
        self.llm = RoutedLLM(strong=strong, weak=weak, router=router, callback_manager=manager, **settings)

    def usage(self) -> dict[str, Any]:
        """What both handlers say of calls; they say the same."""
        first, second = self.events.snapshot()["calls"], self.calls.snapshot()["calls"]
        assert first == second
        assert json.loads(json.dumps(first)) == first
        return dict(first)


@pytest.fixture
def watch(router: FixedRouter) -> Iterator[Any]:
    attached: list[Any] = []

    def make(strong: LLM, weak: LLM, *, prices: Any = None, **settings: Any) -> Watched:
        attached.append(StrongCallRateEventHandler(prices=prices))
        get_dispatcher().add_event_handler(attached[-1])
        made = {"router": router, **settings}
        return Watched(strong, weak, made.pop("router"), attached[-1], StrongCallRateHandler(prices=prices), **made)

    yield make
    for handler in attached:
        get_dispatcher().event_handlers.remove(handler)


# --- rates ---


async def test_decisions_and_calls_are_rates_of_their_own(watch: Any, easy: str, hard: str) -> None:
    watched = watch(Metered(model="big"), Metered(model="small"))
    assert math.isnan(watched.events.strong_rate)
    assert math.isnan(watched.calls.window_strong_rate)
    await ask_all(watched.llm, hard)
    watched.llm.complete(easy)
    for handler in (watched.events, watched.calls):
        snapshot = handler.snapshot()
        assert snapshot["total"] == 13
        assert snapshot["by_route"] == {"strong": 12, "weak": 1}
        assert snapshot["strong_rate"] == handler.strong_rate == pytest.approx(12 / 13)
        assert snapshot["by_reason"] == {"score": 13}
    assert watched.usage()["strong"]["calls"] == 12
    # One question, several calls.
    manager = watched.llm.callback_manager
    synthesizer = get_response_synthesizer(
        response_mode="accumulate", llm=watched.llm, callback_manager=manager, use_async=True
    )
    texts = ["passage " * 2000] * 2
    with manager.as_trace("query"), manager.event(CBEventType.QUERY):
        await synthesizer.aget_response(hard, texts)
    assert watched.events.snapshot()["total"] == watched.llm.stats.total == 14
    more = watched.calls.snapshot()["total"] - 13
    assert more >= 2
    assert watched.usage()["strong"]["calls"] == 12 + more


def test_the_window(watch: Any, easy: str, hard: str) -> None:
    for handler in (StrongCallRateEventHandler(window=2), StrongCallRateHandler(window=2)):
        with pytest.raises(ConfigurationError):
            type(handler)(window=0)
    events, calls = StrongCallRateEventHandler(window=2), StrongCallRateHandler(window=2)
    watched = Watched(Metered(model="big"), Metered(model="small"), FixedRouter(0.1, {hard: 0.9}), events, calls)
    get_dispatcher().add_event_handler(events)
    try:
        for text in (hard, easy, easy):
            watched.llm.complete(text)
    finally:
        get_dispatcher().event_handlers.remove(events)
    for handler in (events, calls):
        assert handler.strong_rate == pytest.approx(1 / 3)
        assert handler.window_strong_rate == 0.0


async def test_forgetting(watch: Any, hard: str) -> None:
    watched = watch(Metered(model="big", raw=tokens(3, 2)), Metered(model="small"))
    await ask_all(watched.llm, hard)
    for handler in (watched.events, watched.calls):
        handler.reset()
        assert handler.snapshot()["total"] == 0
    assert watched.usage() == {"strong": NOTHING, "weak": NOTHING, "by_model": {}}
    watched.llm.complete(hard)
    assert watched.usage()["strong"]["input_tokens"] == 3


def test_selections_are_decisions_but_no_calls(watch: Any, router: FixedRouter, hard: str) -> None:
    watched = watch(Metered(model="big"), Metered(model="small"))
    RouterSelector(router=router).select(["a", "b"], hard)
    assert watched.events.snapshot()["total"] == 1
    assert watched.calls.snapshot()["total"] == 0
    assert watched.usage()["strong"]["calls"] == 0


def test_calls_of_others_are_not_counted(watch: Any, hard: str) -> None:
    big = Metered(model="big", raw=tokens(3, 2))
    watched = watch(big, Metered(model="small"))
    big.callback_manager = CallbackManager([watched.calls])
    big.complete("called directly")
    assert watched.usage() == {"strong": NOTHING, "weak": NOTHING, "by_model": {}}
    watched.llm.complete(hard)
    assert watched.usage()["strong"]["calls"] == 1


# --- tokens and costs ---

OPENAI_OBJECT = SimpleNamespace(
    model="gpt-5-2025-08-07",
    usage=SimpleNamespace(
        prompt_tokens=1000,
        completion_tokens=200,
        total_tokens=1200,
        prompt_tokens_details=SimpleNamespace(cached_tokens=400, audio_tokens=0),
    ),
)
OPENAI_DICT = {
    "model": "gpt-5-2025-08-07",
    "usage": {
        "prompt_tokens": 1000,
        "completion_tokens": 200,
        "total_tokens": 1200,
        "prompt_tokens_details": {"cached_tokens": 400},
    },
}
OPENAI_RESPONSES = SimpleNamespace(
    model="gpt-5-2025-08-07",
    usage=SimpleNamespace(
        input_tokens=1000,
        output_tokens=200,
        total_tokens=1200,
        input_tokens_details=SimpleNamespace(cached_tokens=400),
        output_tokens_details=SimpleNamespace(reasoning_tokens=100),
    ),
)
OPENAI_COMPLETED = SimpleNamespace(type="response.completed", response=OPENAI_RESPONSES)
ANTHROPIC = {
    "id": "msg",
    "model": "claude-opus-4-5",
    "usage": SimpleNamespace(
        input_tokens=500, output_tokens=200, cache_read_input_tokens=400, cache_creation_input_tokens=100
    ),
}
ANTHROPIC_DICT = {
    "model": "claude-opus-4-5",
    "usage": {
        "input_tokens": 600,
        "output_tokens": 200,
        "cache_read_input_tokens": 400,
        "cache_creation_input_tokens": None,
    },
}
GEMINI = {
    "model_version": "gemini-3-pro",
    "usage_metadata": {
        "prompt_token_count": 1000,
        "candidates_token_count": 200,
        "cached_content_token_count": 400,
        "total_token_count": 1200,
    },
}
GEMINI_OBJECT = SimpleNamespace(
    usage_metadata=SimpleNamespace(
        prompt_token_count=1000, candidates_token_count=200, cached_content_token_count=400, total_token_count=1200
    ),
)
GEMINI_THINKING = {
    "usage_metadata": {
        "prompt_token_count": 1000,
        "candidates_token_count": 50,
        "thoughts_token_count": 150,
        "cached_content_token_count": 400,
        "total_token_count": 1200,
    },
}
ALL_SHAPES: dict[str, tuple[Any, str]] = {
    "openai, an object": (OPENAI_OBJECT, "gpt-5-2025-08-07"),
    "openai, a dict": (OPENAI_DICT, "gpt-5-2025-08-07"),
    "openai responses": (OPENAI_RESPONSES, "gpt-5-2025-08-07"),
    "openai responses, streamed": (OPENAI_COMPLETED, "gpt-5-2025-08-07"),
    "anthropic": (ANTHROPIC, "claude-opus-4-5"),
    "anthropic, a dict": (ANTHROPIC_DICT, "claude-opus-4-5"),
    "gemini": (GEMINI, "gemini-3-pro"),
    "gemini, an object": (GEMINI_OBJECT, "big"),
    "gemini that thinks": (GEMINI_THINKING, "big"),
}
"""Each of 1,000 tokens in, 400 of them from a cache, and 200 out; and the name that it is counted under."""

COST = (600 * 10.0 + 400 * 1.0 + 200 * 30.0) / 1e6


@pytest.mark.parametrize("shape", ALL_SHAPES)
@pytest.mark.parametrize("api", ["chat", "acomplete", "stream_chat", "astream_complete"])
async def test_tokens_and_cost_as_providers_tell_them(watch: Any, hard: str, shape: str, api: str) -> None:
    raw, name = ALL_SHAPES[shape]
    watched = watch(Metered(model="big", raw=raw), Metered(model="small"), prices={name: PRICE})
    await ask(watched.llm, api, hard)
    expected = figures(input_tokens=1000, output_tokens=200, cost=pytest.approx(COST))
    assert watched.events.snapshot()["calls"]["strong"] == expected
    assert watched.calls.snapshot()["calls"]["strong"] == expected
    assert watched.events.snapshot()["calls"]["by_model"] == {name: expected}
    assert watched.events.snapshot()["calls"]["weak"] == NOTHING


@pytest.mark.parametrize("model", ["gpt-5-2025-08-07", "big"])
def test_a_price_by_either_name_counts(watch: Any, hard: str, model: str) -> None:
    raw = tokens(100, 10, model="gpt-5-2025-08-07")
    watched = watch(Metered(model="big", raw=raw), Metered(model="small"), prices={model: Price(input=1, output=2)})
    watched.llm.complete(hard)
    assert watched.usage()["strong"]["cost"] == pytest.approx(120 / 1e6)
    assert set(watched.usage()["by_model"]) == {"gpt-5-2025-08-07"}


@pytest.mark.parametrize(
    ("raw", "prices"),
    [
        (None, {"big": PRICE}),
        ({}, {"big": PRICE}),
        ("text", {"big": PRICE}),
        ({"usage": None}, {"big": PRICE}),
        ({"usage": {"prompt_tokens": None, "completion_tokens": None}}, {"big": PRICE}),
        ({"usage": {"prompt_tokens": -5, "completion_tokens": 3}}, {"big": PRICE}),
        ({"usage": {"prompt_tokens": "many", "completion_tokens": 3}}, {"big": PRICE}),
        ({"usage": [1, 2]}, {"big": PRICE}),
        (SimpleNamespace(), {"big": PRICE}),
        (object(), {"big": PRICE}),
    ],
)
@pytest.mark.parametrize("api", ["chat", "stream_complete"])
async def test_an_answer_that_does_not_say_what_it_used_is_unpriced(
    watch: Any, hard: str, api: str, raw: Any, prices: Any
) -> None:
    watched = watch(Metered(model="big", raw=raw), Metered(model="small"), prices=prices)
    await ask(watched.llm, api, hard)
    expected = figures(unpriced=1)
    assert watched.usage() == {"strong": expected, "weak": NOTHING, "by_model": {"big": expected}}


def test_a_model_without_a_price_is_unpriced(watch: Any, easy: str, hard: str) -> None:
    pair = Metered(model="big", raw=tokens(3, 2)), Metered(model="small", raw=tokens(30, 20))
    watched = watch(*pair, prices={"big": PRICE, "small": None})
    watched.llm.complete(hard)
    watched.llm.complete(easy)
    usage = watched.usage()
    assert usage["strong"] == figures(input_tokens=3, output_tokens=2, cost=pytest.approx(90 / 1e6))
    assert usage["weak"] == figures(input_tokens=30, output_tokens=20, unpriced=1)
    for handler in (StrongCallRateEventHandler, StrongCallRateHandler):
        with pytest.raises(ConfigurationError, match="prices"):
            handler(prices=[1])
        with pytest.raises(ConfigurationError, match="price of 'big'"):
            handler(prices={"big": 3})


def test_models_are_told_apart(watch: Any, hard: str, easy: str) -> None:
    strong = Metered(model="big", raw=tokens(1, 1, model="big-1"))
    watched = watch(strong, Metered(model="small", raw=tokens(5, 5)))
    watched.llm.complete(hard)
    strong.raw = tokens(2, 2, model="big-2")
    watched.llm.complete(hard)
    strong.raw = tokens(4, 4)
    strong.error = RuntimeError("down")
    with pytest.raises(RuntimeError, match="down"):
        watched.llm.complete(hard)
    watched.llm.complete(easy)
    by_model = watched.usage()["by_model"]
    assert {name: (one["calls"], one["failed"], one["input_tokens"]) for name, one in by_model.items()} == {
        "big-1": (1, 0, 1),
        "big-2": (1, 0, 2),
        "big": (1, 1, 0),
        "small": (1, 0, 5),
    }
    assert watched.usage()["strong"]["calls"] == 3


def test_a_model_goes_by_the_name_that_it_gives_itself(watch: Any, strong: DialectLLM, weak: DialectLLM) -> None:
    # No field of theirs is called `model`, and earlier releases tell of an LLM by its fields.
    watched = watch(strong, weak)
    watched.llm.complete("easy")
    assert set(watched.usage()["by_model"]) == {"small"}


# --- each call once ---


@every_api
async def test_a_completion_model_that_is_talked_to_is_counted_once(
    watch: Any, plain: PlainLLM, easy: str, api: str
) -> None:
    class Streaming(type(plain)):  # type: ignore[misc]
        @llm_completion_callback()
        def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
            def gen() -> Iterator[CompletionResponse]:
                yield CompletionResponse(text="p", delta="p")
                yield CompletionResponse(text="plain", delta="lain", raw=tokens(7, 3))

            return gen()

        @llm_completion_callback()
        def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
            return CompletionResponse(text="plain", raw=tokens(7, 3))

    watched = watch(Metered(model="big"), Streaming())
    for count in (1, 2):
        await ask(watched.llm, api, easy)
        usage = watched.usage()["weak"]
        assert (usage["calls"], usage["failed"]) == (count, 0)
        assert (usage["input_tokens"], usage["output_tokens"]) == (7 * count, 3 * count)
        assert watched.calls.snapshot()["total"] == watched.events.snapshot()["total"] == count


@AGENT_WARNINGS
async def test_the_steps_of_an_agent_are_calls_of_one_decision(
    watch: Any, strong: DialectLLM, weak: DialectLLM, hard: str
) -> None:
    tool = FunctionTool.from_defaults(lambda a, b: a + b, name="add", description="Add.")
    watched = watch(strong, weak)
    agent = FunctionAgent(tools=[tool], llm=watched.llm)
    assert str(await agent.run(hard, memory=ChatMemoryBuffer.from_defaults(token_limit=3000))) == "big"
    assert watched.events.snapshot()["total"] == 1
    assert watched.calls.snapshot()["total"] == 2
    assert watched.usage()["strong"]["calls"] == 2


@pytest.mark.parametrize("api", [api for api in EVERY if "stream" in api])
async def test_a_stream_that_is_closed_early_was_given_up(watch: Any, hard: str, api: str) -> None:
    watched = watch(Metered(model="big", raw=tokens(3, 2)), Metered(model="small"))
    stream = await opened(watched.llm, api, hard)
    if api.startswith("a"):
        await anext(stream)
        await stream.aclose()
        # The framework's own wrapper in between is closed; what it wrapped is left to the event loop to finish.
        for _ in range(3):
            await asyncio.sleep(0)
    else:
        next(stream)
        stream.close()
    expected = figures(failed=1)
    assert watched.usage() == {"strong": expected, "weak": NOTHING, "by_model": {"big": expected}}


@every_api
async def test_errors_are_failed_calls(watch: Any, hard: str, api: str) -> None:
    watched = watch(Metered(model="big", error=RuntimeError("down")), Metered(model="small"))
    with pytest.raises(RuntimeError, match="down"):
        await ask(watched.llm, api, hard)
    assert watched.usage()["strong"] == figures(failed=1)
    assert watched.events.snapshot()["by_route"] == {"strong": 1, "weak": 0}


@pytest.mark.parametrize("api", [api for api in EVERY if "stream" in api])
@pytest.mark.parametrize("parts", [0, 2])
async def test_a_stream_that_breaks_off_is_a_failed_call(watch: Any, hard: str, api: str, parts: int) -> None:
    strong = Metered(model="big", raw=tokens(3, 2), parts=parts, breaks=RuntimeError("broken off"))
    watched = watch(strong, Metered(model="small"))
    with pytest.raises(RuntimeError, match="broken off"):
        await ask(watched.llm, api, hard)
    assert watched.usage()["strong"] == figures(failed=1)


@every_api
async def test_a_fallback_is_a_failed_call_and_an_answered_one(watch: Any, hard: str, api: str) -> None:
    strong = Metered(model="big", error=RuntimeError("down"))
    watched = watch(strong, Metered(model="small", raw=tokens(3, 2)), fallback_to_other=True)
    await ask(watched.llm, api, hard)
    usage = watched.usage()
    assert usage["strong"] == figures(failed=1)
    assert usage["weak"] == figures(input_tokens=3, output_tokens=2, unpriced=1)
    assert watched.events.snapshot()["by_route"] == {"strong": 1, "weak": 0}, "one decision"
    assert watched.calls.snapshot()["by_route"]["weak"] == 1


@every_api
@pytest.mark.parametrize("side", ["strong", "weak"])
async def test_what_a_shadow_answers_is_counted_as_its_own(
    watch: Any, hard: str, easy: str, api: str, side: Any
) -> None:
    pair = Metered(model="big", raw=tokens(3, 2)), Metered(model="small", raw=tokens(3, 2))
    watched = watch(*pair, shadow=side)
    await ask(watched.llm, api, hard)
    await ask(watched.llm, api, easy)
    other = "weak" if side == "strong" else "strong"
    assert watched.usage()[side]["calls"] == 2
    assert watched.usage()[other] == NOTHING
    assert watched.events.snapshot()["by_route"] == {"strong": 1, "weak": 1}
    assert watched.calls.snapshot()["by_route"] == {side: 2, other: 0}


async def test_nested_routed_llms_are_each_a_decision_and_one_call(watch: Any, hard: str) -> None:
    watched = watch(Metered(model="big", raw=tokens(3, 2)), Metered(model="small"))
    outer = RoutedLLM(strong=Metered(model="giant"), weak=watched.llm, router=FixedRouter(0.0))
    await ask_all(outer, hard)
    assert watched.events.snapshot()["by_route"] == {"strong": 12, "weak": 12}
    usage = watched.events.snapshot()["calls"]
    assert usage["by_model"] == {"big": figures(12, input_tokens=36, output_tokens=24, unpriced=12)}
    assert usage["strong"]["calls"] + usage["weak"]["calls"] == 12


# --- at once ---


async def test_many_tasks_add_up(watch: Any) -> None:
    router = FixedRouter(0.1, {f"hard {n}": 0.9 for n in range(0, 200, 4)})
    pair = Metered(model="big", raw=tokens(3, 2)), Metered(model="small", raw=tokens(5, 4))
    watched = watch(*pair, prices={"big": PRICE, "small": PRICE}, router=router)
    await asyncio.gather(*(ask(watched.llm, EVERY[n % 12], f"hard {n}") for n in range(200)))
    usage = watched.usage()
    assert (usage["strong"]["calls"], usage["weak"]["calls"]) == (50, 150)
    assert (usage["strong"]["input_tokens"], usage["weak"]["output_tokens"]) == (150, 600)
    assert usage["by_model"] == {"big": usage["strong"], "small": usage["weak"]}
    assert watched.events.strong_rate == watched.calls.strong_rate == watched.llm.stats.strong_rate == 0.25


def test_many_threads_add_up(watch: Any) -> None:
    router = FixedRouter(0.1, {f"hard {n}": 0.9 for n in range(0, 200, 4)})
    strong, weak = Metered(model="big", raw=tokens(3, 2)), Metered(model="small", raw=tokens(5, 4))
    watched = watch(strong, weak, router=router)
    sync = [api for api in EVERY if not api.startswith("a")]

    def work(number: int) -> None:
        asyncio.run(ask(watched.llm, sync[number % len(sync)], f"hard {number}"))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(200)))
    usage = watched.usage()
    assert (usage["strong"]["calls"], usage["weak"]["calls"]) == (50, 150)
    assert (usage["strong"]["input_tokens"], usage["weak"]["output_tokens"]) == (150, 600)
    assert watched.events.strong_rate == watched.calls.strong_rate == 0.25


async def test_interleaved_streams_add_up(watch: Any, easy: str, hard: str) -> None:
    watched = watch(Metered(model="big", raw=tokens(3, 2)), Metered(model="small", raw=tokens(5, 4)))
    streams = [watched.llm.stream_chat(user(text)) for text in (hard, easy, hard)]
    astreams = [await watched.llm.astream_complete(text) for text in (hard, easy)]
    for _ in range(2):
        for stream in streams:
            next(stream)
        for astream in astreams:
            await anext(astream)
    assert watched.usage() == {"strong": NOTHING, "weak": NOTHING, "by_model": {}}, "none is over yet"
    streams.pop().close()
    for stream in streams:
        list(stream)
    for astream in astreams:
        async for _ in astream:
            pass
    assert watched.usage()["strong"] == figures(3, failed=1, input_tokens=6, output_tokens=4, unpriced=2)
    assert watched.usage()["weak"] == figures(2, input_tokens=10, output_tokens=8, unpriced=2)


def test_calls_under_way_are_not_kept(watch: Any, hard: str) -> None:
    watched = watch(Metered(model="big"), Metered(model="small"))
    asyncio.run(ask_all(watched.llm, hard))
    watched.llm.strong.error = RuntimeError("down")
    for _ in range(3):
        with pytest.raises(RuntimeError, match="down"):
            watched.llm.chat(user(hard))
    for handler in (watched.events, watched.calls):
        kept = [value for value in vars(handler._calls).values() if isinstance(value, dict | set)]
        assert [len(value) for value in kept] == [0] * len(kept)


# --- nonsense ---


@pytest.mark.parametrize(
    "event",
    [
        BaseEvent(),
        LLMChatStartEvent(model_dict={}, messages=[], additional_kwargs={}),
        LLMChatStartEvent(model_dict={"model": 3}, messages=[], additional_kwargs={}, tags={"routing": "strong"}),
        LLMChatEndEvent(messages=[], response=None),
        LLMChatEndEvent(messages=[], response=None, span_id="unknown", tags={"routing": {"route": ["strong"]}}),
        LLMCompletionEndEvent(prompt="x", response=CompletionResponse(text="x", raw=3), span_id="unknown"),
        ExceptionEvent(exception=RuntimeError(), span_id=None),
        ExceptionEvent(exception=RuntimeError(), tags={"routing": 7}),
    ],
    ids=lambda event: type(event).__name__,
)
def test_foreign_events_disturb_nobody(event: Any) -> None:
    handler = StrongCallRateEventHandler()
    # The dispatcher would swallow what it raises.
    handler.handle(event)
    handler.handle(event)
    assert handler.snapshot()["total"] == 0
    assert handler.snapshot()["calls"] == {"strong": NOTHING, "weak": NOTHING, "by_model": {}}


@pytest.mark.parametrize(
    "payload",
    [
        None,
        {},
        {EventPayload.RESPONSE: None},
        {EventPayload.RESPONSE: "text"},
        {EventPayload.EXCEPTION: None},
        {EventPayload.SERIALIZED: 3},
        {"routing": {"route": "strong"}},
    ],
)
@pytest.mark.parametrize("kind", [CBEventType.LLM, CBEventType.QUERY, CBEventType.EXCEPTION])
def test_foreign_callbacks_disturb_nobody(payload: Any, kind: CBEventType) -> None:
    handler = StrongCallRateHandler()
    with instrument_tags({"routing": {"route": "strong", "reason": "score"}}):
        assert handler.on_event_start(kind, payload, event_id="e", parent_id="p") == "e"
        handler.on_event_end(kind, payload, event_id="e")
        handler.on_event_end(kind, payload, event_id="another")
        handler.on_event_end(kind, payload)
    handler.start_trace("t")
    handler.end_trace("t", {"root": ["e"]})
    assert handler.snapshot()["total"] == 0
    assert handler.snapshot()["calls"] == {"strong": NOTHING, "weak": NOTHING, "by_model": {}}


@pytest.mark.parametrize(
    "model", [None, 3, [], {}, {"model": None}, {"model": ["x"]}, {"model": ""}, {"model_name": 7}, "text"]
)
def test_a_model_that_tells_nonsense_of_itself_is_counted_all_the_same(watch: Any, hard: str, model: Any) -> None:
    class Odd(Metered):
        def to_payload(self) -> Any:
            return model if isinstance(model, dict) else {}

        def to_dict(self, **_: Any) -> Any:
            return dict(self.to_payload())

    watched = watch(Odd(model="big", raw={"model": model, "usage": model}), Metered(model="small"))
    assert watched.llm.complete(hard).text == "big"
    usage = watched.usage()
    assert usage["strong"]["calls"] == 1
    assert usage["strong"]["unpriced"] == 1


def test_handlers_can_be_copied(watch: Any, hard: str) -> None:
    watched = watch(Metered(model="big", raw=tokens(3, 2)), Metered(model="small"))
    watched.llm.complete(hard)
    for handler in (watched.events, watched.calls):
        assert copy.deepcopy(handler).snapshot() == handler.snapshot()


# --- managers and limiters ---


@pytest.fixture
def settings() -> Iterator[Any]:
    saved = dict(vars(Settings))
    yield Settings
    vars(Settings).clear()
    vars(Settings).update(saved)


@pytest.mark.parametrize("first", ["llm", "manager"])
def test_the_applications_manager_sees_all_calls(
    settings: Any, router: FixedRouter, easy: str, hard: str, first: str
) -> None:
    handler = StrongCallRateHandler()
    pair = Metered(model="big", raw=tokens(3, 2)), Metered(model="small", raw=tokens(5, 4))
    routed = RoutedLLM(strong=pair[0], weak=pair[1], router=router)
    if first == "llm":
        settings.llm = routed
        settings.callback_manager = CallbackManager([handler])
    else:
        settings.callback_manager = CallbackManager([handler])
        settings.llm = routed
    chat = SimpleChatEngine.from_defaults(memory=ChatMemoryBuffer.from_defaults(token_limit=3000))
    chat.chat(hard)
    settings.llm.complete(easy)
    synthesizer = get_response_synthesizer()
    assert str(synthesizer.get_response(hard, ["passage"])) == "big"
    usage = handler.snapshot()["calls"]
    assert usage["strong"] == figures(2, input_tokens=6, output_tokens=4, unpriced=2)
    assert usage["weak"] == figures(input_tokens=5, output_tokens=4, unpriced=1)
    settings.callback_manager = CallbackManager([LlamaDebugHandler(print_trace_on_end=False)])
    settings.llm.complete(easy)
    assert handler.snapshot()["total"] == 3, "a manager that was taken away sees nothing more"


@pytest.mark.parametrize("api", ["chat", "achat", "complete"])
async def test_a_token_counter_of_one_model_counts_that_model(
    settings: Any, router: FixedRouter, easy: str, hard: str, api: str
) -> None:
    counters = [TokenCountingHandler(tokenizer=str.split) for _ in range(3)]
    strong = Metered(model="big", raw=tokens(3, 2), callback_manager=CallbackManager([counters[0]]))
    weak = Metered(model="small", raw=tokens(50, 40), callback_manager=CallbackManager([counters[1]]))
    settings.callback_manager = CallbackManager([counters[2]])
    settings.llm = RoutedLLM(strong=strong, weak=weak, router=router)
    for text in (hard, easy, easy):
        await ask(settings.llm, api, text)
    assert [counter.total_llm_token_count for counter in counters] == [5, 180, 185]
    assert strong.callback_manager.handlers == [counters[0]]
    assert weak.callback_manager.handlers == [counters[1]]
    strong.complete("called directly")
    assert [counter.total_llm_token_count for counter in counters] == [10, 180, 185]


class Limiter:
    def __init__(self) -> None:
        self.acquired: list[str] = []

    def acquire(self) -> None:
        self.acquired.append("acquire")

    async def async_acquire(self) -> None:
        self.acquired.append("async_acquire")


@every_api
async def test_a_limiter_is_waited_for_once_a_call(router: FixedRouter, hard: str, api: str) -> None:
    limiter = Limiter()
    routed = RoutedLLM(strong=Metered(model="big"), weak=Metered(model="small"), router=router, rate_limiter=limiter)
    await ask(routed, api, hard)
    assert limiter.acquired == ["async_acquire" if api.startswith("a") else "acquire"]
    await ask(routed, api, hard)
    assert len(limiter.acquired) == 2


@pytest.mark.skipif("rate_limiter" not in LLM.model_fields, reason="not in this release")
@every_api
async def test_a_models_own_limiter_is_waited_for_too(router: FixedRouter, easy: str, hard: str, api: str) -> None:
    limiter = Limiter()
    strong = Metered(model="big", rate_limiter=limiter)
    routed = RoutedLLM(strong=strong, weak=Metered(model="small"), router=router)
    await ask(routed, api, easy)
    assert limiter.acquired == []
    await ask(routed, api, hard)
    assert len(limiter.acquired) == 1
