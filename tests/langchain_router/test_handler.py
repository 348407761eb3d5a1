"""StrongCallRateHandler."""

from __future__ import annotations

import asyncio
import copy
import json
import math
import pickle
import threading
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import AsyncCallbackManager, CallbackManager
from langchain_core.documents import Document
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, Generation, LLMResult
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableBranch, RunnableLambda, RunnableParallel
from langchain_core.tools import tool

from langchain_router import RoutedChatModel, StrongCallRateHandler
from prefroute import ConfigurationError, RoutingDecision
from prefroute.costs import Price, Prices
from prefroute.testing import FixedRouter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PRICE = Price(input=10.0, cached_input=1.0, output=30.0)
NOTHING = {"calls": 0, "failed": 0, "input_tokens": 0, "output_tokens": 0, "cost": None, "unpriced": 0}


def decision(route: Any = "strong") -> dict[str, Any]:
    return RoutingDecision(route=route, score=0.5, threshold=0.5, reason="score").as_dict()


def test_rates_over_all_and_over_the_window() -> None:
    handler = StrongCallRateHandler(window=2)
    assert math.isnan(handler.strong_rate)
    assert math.isnan(handler.window_strong_rate)
    for route in ("strong", "strong", "weak", "weak"):
        handler.on_chat_model_start({}, [[]], metadata={"routing": decision(route)})
    assert handler.strong_rate == 0.5
    assert handler.window_strong_rate == 0.0
    assert handler.snapshot()["by_reason"] == {"score": 4}
    handler.reset()
    assert handler.snapshot()["total"] == 0
    with pytest.raises(ConfigurationError):
        StrongCallRateHandler(window=0)


def test_one_decision_counts_once_however_many_runs_show_it() -> None:
    handler = StrongCallRateHandler()
    shown = decision()
    handler.on_chain_start({}, {}, metadata={"routing": shown})
    handler.on_chat_model_start({}, [[]], metadata={"routing": dict(shown)})
    handler.on_llm_start({}, ["x"], metadata={"routing": shown})
    assert handler.snapshot()["total"] == 1
    handler.reset()
    handler.on_chain_start({}, {}, metadata={"routing": shown})
    assert handler.snapshot()["total"] == 1


def test_what_it_remembers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prefroute.stats._REMEMBERED", 3)
    handler = StrongCallRateHandler()
    for _ in range(10):
        handler.on_chat_model_start({}, [[]], metadata={"routing": decision()})
    assert len(handler._stats._seen) == 3
    assert handler.snapshot()["total"] == 10


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {},
        {"routing": None},
        {"routing": "strong"},
        {"routing": 3},
        {"routing": {"route": "strong"}},
        {"routing": {**decision(), "id": ["unhashable"]}},
        {"routing": {**decision(), "route": ["unhashable"]}},
        {"routing": {**decision(), "route": "sideways"}},
        {"routing": {**decision(), "reason": {}}},
        {"routing": [1, 2]},
    ],
)
def test_foreign_metadata_is_passed_over(metadata: Any) -> None:
    handler = StrongCallRateHandler()
    handler.on_chat_model_start({}, [[]], metadata=metadata)
    handler.on_chain_start({}, {}, metadata=metadata)
    snapshot = handler.snapshot()
    assert (snapshot["total"], snapshot["by_route"], snapshot["by_reason"]) == (0, {"strong": 0, "weak": 0}, {})


async def test_async_managers_count_at_once() -> None:
    handler = StrongCallRateHandler()
    manager = AsyncCallbackManager.configure([handler], inheritable_metadata={"routing": decision()})
    await manager.on_chat_model_start({}, [[]])
    await manager.on_chain_start({}, {})
    CallbackManager.configure([handler], inheritable_metadata={"routing": decision("weak")}).on_chain_start({}, {})
    assert handler.strong_rate == 0.5


async def test_it_runs_in_the_loops_own_thread() -> None:
    threads = []

    class Noting(StrongCallRateHandler):
        def on_chain_start(self, *args: Any, **kwargs: Any) -> None:
            threads.append(threading.current_thread())
            super().on_chain_start(*args, **kwargs)

    await AsyncCallbackManager([Noting()]).on_chain_start({}, {})
    assert threads == [threading.current_thread()]


def test_threads_may_share_it() -> None:
    handler = StrongCallRateHandler()
    shared = [decision() for _ in range(200)]

    def show() -> None:
        for one in shared:
            handler.on_chat_model_start({}, [[]], metadata={"routing": one})

    threads = [threading.Thread(target=show) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert handler.snapshot()["total"] == 200


def test_nested_routed_models_count_both_decisions_and_show_both(setup: Any) -> None:
    inner = setup(router=FixedRouter(0.2)).model
    outer = RoutedChatModel(strong=inner, weak=inner.weak, router=FixedRouter(0.9))
    rate = StrongCallRateHandler()
    message = outer.invoke("hi", config={"callbacks": [rate]})
    assert rate.snapshot()["by_route"] == {"strong": 1, "weak": 1}
    routing = message.response_metadata["routing"]
    assert (routing["route"], routing["inner"]["route"]) == ("strong", "weak")


@pytest.mark.parametrize("metadata", [{"routing": {"route": ["strong"], "reason": "score"}}, 7, {"routing": 7}])
def test_garbage_in_metadata_disturbs_nobody(metadata: Any) -> None:
    rate = StrongCallRateHandler()
    rate.on_chain_start({}, {}, metadata=metadata)
    assert rate.snapshot()["total"] == 0


def test_a_handler_can_be_copied_and_pickled() -> None:
    rate = StrongCallRateHandler()
    for twin in (copy.deepcopy(rate), pickle.loads(pickle.dumps(rate))):
        assert twin.snapshot() == rate.snapshot()


# --- groups ---


def groups(**totals: int) -> dict[str, dict[str, float]]:
    return {name: {"total": total, "strong_rate": 1.0} for name, total in totals.items()}


async def asked(api: str, chain: Any, given: Any, config: Any) -> Any:
    return chain.invoke(given, config) if api == "invoke" else await chain.ainvoke(given, config)


apis = pytest.mark.parametrize("api", ["invoke", "ainvoke"])


@apis
async def test_rates_by_tag_are_of_the_callers_tags(setup: Any, api: str) -> None:
    rate = StrongCallRateHandler()
    model = setup(tags=["model"]).model
    chain = RunnableLambda(str) | RunnableParallel(a=model, b=model.with_config(tags=["b"]))
    await asked(api, chain, "hard", {"callbacks": [rate], "tags": ["mine", "mine"]})
    assert rate.snapshot()["by_tag"] == groups(mine=2, model=2, b=1)
    await asked(api, chain, "easy", {"callbacks": [rate], "tags": ["mine"]})
    assert rate.snapshot()["by_tag"]["mine"] == {"total": 4, "strong_rate": 0.5}


@apis
@pytest.mark.parametrize(
    ("failures", "around"),
    [
        (0, lambda model: RunnableLambda(str) | model),
        (0, lambda model: RunnableParallel(a=model)),
        (0, lambda model: RunnableBranch((lambda text: text == "hard", model), model)),
        (0, lambda model: RunnableBranch((lambda text: text != "hard", model), model)),
        (0, lambda model: RunnableBranch((lambda text: model.invoke(text).text == "strong", model), model)),
        (1, lambda model: model.with_retry(wait_exponential_jitter=False)),
        (1, lambda model: model.with_fallbacks([model])),
    ],
    ids=["sequence", "parallel", "branch", "default", "condition", "retry", "fallback"],
)
async def test_tags_that_langchain_gives_the_parts_of_a_chain_are_no_groups(
    setup: Any, fake: Any, failures: int, around: Any, api: str
) -> None:
    rate = StrongCallRateHandler()
    chain = around(setup(strong=fake(model_name="strong", failures=failures)).model)
    await asked(api, chain, "hard", {"callbacks": [rate], "tags": ["mine"]})
    assert set(rate.snapshot()["by_tag"]) == {"mine"}


class Retriever(BaseRetriever):
    model: Any

    def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
        return [Document(self.model.invoke(query, {"callbacks": run_manager.get_child()}).text)]


def test_rates_by_run_name_are_of_the_run_and_all_around_it(setup: Any) -> None:
    rate = StrongCallRateHandler()
    model = setup().model

    @tool
    def think(text: str) -> str:
        """Think."""
        return str(model.invoke(text).text)

    step = RunnableLambda(lambda text: think.invoke({"text": text})).with_config(run_name="step")
    chain = (RunnableLambda(str) | step).with_config(run_name="chain")
    chain.invoke("hard", {"callbacks": [rate]})
    assert rate.snapshot()["by_run_name"] == groups(FakeChat=1, think=1, step=1, chain=1)
    model.invoke("hard", {"callbacks": [rate], "run_name": "alone"})
    (RunnableLambda(str) | model).invoke("hard", {"callbacks": [rate], "run_name": "chain"})
    assert rate.snapshot()["by_run_name"] == groups(FakeChat=2, chain=2, think=1, step=1, alone=1)
    assert rate._runs == {}


async def test_rates_by_run_name_in_async_code(setup: Any) -> None:
    rate = StrongCallRateHandler()
    model = setup().model

    @tool
    async def think(text: str) -> str:
        """Think."""
        return str((await model.ainvoke(text)).text)

    chain = (RunnableLambda(str) | RunnableLambda(lambda text: {"text": text}) | think).with_config(run_name="chain")
    await asyncio.gather(*(chain.ainvoke("hard", {"callbacks": [rate]}) for _ in range(20)))
    assert rate.snapshot()["by_run_name"] == groups(FakeChat=20, think=20, chain=20)
    assert rate._runs == {}


def test_a_retriever_around_a_model_hides_nothing_around_it(setup: Any) -> None:
    """Those that ask a model for other words for the question, or whether a document is of use."""
    rate = StrongCallRateHandler()
    chain = (RunnableLambda(str) | Retriever(model=setup().model)).with_config(run_name="rag")
    chain.invoke("hard", {"callbacks": [rate]})
    assert rate.snapshot()["by_run_name"] == groups(FakeChat=1, Retriever=1, rag=1)
    assert rate._runs == {}


def test_a_name_that_stands_twice_around_a_run_counts_once(setup: Any) -> None:
    rate = StrongCallRateHandler()
    inner = (RunnableLambda(str) | setup().model).with_config(run_name="chain")
    (RunnableLambda(str) | inner).with_config(run_name="chain").invoke("hard", {"callbacks": [rate]})
    assert rate.snapshot()["by_run_name"] == groups(FakeChat=1, chain=1)


def test_runs_that_name_each_other_as_parents_hold_up_nobody() -> None:
    rate, one, other = StrongCallRateHandler(), uuid4(), uuid4()
    rate.on_chain_start({}, {}, run_id=one, parent_run_id=other, name="one")
    rate.on_chain_start({}, {}, run_id=other, parent_run_id=one, name="other")
    rate.on_chat_model_start({}, [[]], run_id=uuid4(), parent_run_id=one, metadata={"routing": decision()})
    assert rate.snapshot()["by_run_name"] == groups(one=1, other=1)


def test_a_run_without_a_name_goes_by_its_class() -> None:
    rate = StrongCallRateHandler()
    for serialized in ({"name": "A"}, {"id": ["package", "B"]}, {"id": []}, {"id": [7]}, None, "x"):
        rate.on_chat_model_start(serialized, [[]], run_id=uuid4(), metadata={"routing": decision()})
    assert rate.snapshot()["by_run_name"] == groups(A=1, B=1)
    assert rate.snapshot()["total"] == 6


@pytest.mark.parametrize("own", ["v2", {"plan": "b"}, ["a"]], ids=["text", "object", "list"])
def test_metadata_of_ones_own_under_the_same_key_hides_nothing(setup: Any, own: Any) -> None:
    rate = StrongCallRateHandler()
    chain = (RunnableLambda(str) | setup().model).with_config(run_name="chain")
    message = chain.invoke("hard", {"callbacks": [rate], "metadata": {"routing": own}})
    assert message.response_metadata["routing"]["route"] == "strong"
    assert count(rate) == {"decided": (1, 0), "strong": (1, 0), "weak": (0, 0)}
    assert rate.snapshot()["by_run_name"] == groups(FakeChat=1, chain=1)
    assert rate._runs == {}


# --- decisions and calls ---


def count(rate: StrongCallRateHandler) -> dict[str, Any]:
    """Decisions by side, and the calls of each side with those that failed."""
    snapshot = rate.snapshot()
    calls = snapshot["calls"]
    return {
        "decided": tuple(snapshot["by_route"].values()),
        "strong": (calls["strong"]["calls"], calls["strong"]["failed"]),
        "weak": (calls["weak"]["calls"], calls["weak"]["failed"]),
    }


@apis
@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda setup, fake: setup().model, {"decided": (0, 1), "strong": (0, 0), "weak": (1, 0)}),
        (
            lambda setup, fake: (
                setup(weak=fake(model_name="weak", failures=1).with_retry(wait_exponential_jitter=False)).model
            ),
            {"decided": (0, 1), "strong": (0, 0), "weak": (2, 1)},
        ),
        (
            lambda setup, fake: setup(weak=fake(model_name="weak", failures=1)).model.with_retry(
                wait_exponential_jitter=False
            ),
            {"decided": (0, 2), "strong": (0, 0), "weak": (2, 1)},
        ),
        (
            lambda setup, fake: setup(weak=fake(model_name="weak", failures=1), fallback_to_other=True).model,
            {"decided": (0, 1), "strong": (1, 0), "weak": (1, 1)},
        ),
        (
            lambda setup, fake: (
                setup(weak=fake(model_name="weak", failures=1).with_fallbacks([fake(model_name="spare")])).model
            ),
            {"decided": (0, 1), "strong": (0, 0), "weak": (2, 1)},
        ),
        (lambda setup, fake: setup(shadow="strong").model, {"decided": (0, 1), "strong": (1, 0), "weak": (0, 0)}),
        (
            lambda setup, fake: RoutedChatModel(
                strong=fake(model_name="big"), weak=setup(shadow="strong").model, router=FixedRouter(0.1)
            ),
            {"decided": (0, 2), "strong": (1, 0), "weak": (0, 0)},
        ),
    ],
    ids=["plain", "retry inside", "retry outside", "other side", "fallback inside", "shadow", "nested"],
)
async def test_decisions_and_calls_are_counted_apart(
    setup: Any, fake: Any, api: str, make: Callable[..., Any], expected: Any
) -> None:
    rate = StrongCallRateHandler()
    await asked(api, make(setup, fake), "easy", {"callbacks": [rate]})
    assert count(rate) == expected
    assert rate._runs == {}


async def test_calls_that_are_not_routed_are_nobodys(fake: Any) -> None:
    rate = StrongCallRateHandler()
    fake(model_name="plain").invoke("hard", {"callbacks": [rate]})
    await fake(model_name="plain").ainvoke("hard", {"callbacks": [rate]})
    assert rate.snapshot()["calls"] == {"strong": NOTHING, "weak": NOTHING, "by_model": {}}
    assert rate._runs == {}


@apis
async def test_a_call_that_fails_counts_as_failed_and_costs_nothing(setup: Any, fake: Any, api: str) -> None:
    rate = StrongCallRateHandler(prices={"weak": PRICE})
    with pytest.raises(ConnectionError):
        await asked(api, setup(weak=fake(model_name="weak", failures=1)).model, "easy", {"callbacks": [rate]})
    assert rate.snapshot()["calls"]["weak"] == {**NOTHING, "calls": 1, "failed": 1}


async def test_a_stream_that_is_closed_early_ends_as_one_that_failed(setup: Any) -> None:
    rate = StrongCallRateHandler()
    model = setup().model
    stream = model.stream("hard", {"callbacks": [rate]})
    next(stream)
    stream.close()
    astream = model.astream("hard", {"callbacks": [rate]})
    await anext(astream)
    await astream.aclose()
    assert rate.snapshot()["calls"]["strong"] == {**NOTHING, "calls": 2, "failed": 2}
    assert rate._runs == {}


async def test_a_stream_that_breaks_off_counts_as_failed(setup: Any, fake: Any) -> None:
    class Breaking(fake):  # type: ignore[misc, valid-type]
        def _chunks(self) -> Iterator[Any]:
            yield super()._chunks()[0]
            raise ConnectionError

    rate = StrongCallRateHandler()
    model = setup(weak=Breaking(model_name="weak")).model
    with pytest.raises(ConnectionError):
        list(model.stream("easy", {"callbacks": [rate]}))
    with pytest.raises(ConnectionError):
        [chunk async for chunk in model.astream("easy", {"callbacks": [rate]})]
    assert rate.snapshot()["calls"]["weak"] == {**NOTHING, "calls": 2, "failed": 2}


async def test_a_cancelled_stream_is_forgotten_and_a_later_call_counts(setup: Any, fake: Any) -> None:
    class Waiting(fake):  # type: ignore[misc, valid-type]
        async def _astream(self, *args: Any, **kwargs: Any) -> Any:
            async for chunk in super()._astream(*args, **kwargs):
                yield chunk
                await asyncio.Event().wait()

    rate = StrongCallRateHandler()
    model = setup(strong=Waiting(model_name="strong")).model

    async def read() -> None:
        async for _ in model.astream("hard", {"callbacks": [rate]}):
            pass

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(read(), 0.02)
    assert count(rate) == {"decided": (1, 0), "strong": (1, 1), "weak": (0, 0)}
    await model.ainvoke("hard", {"callbacks": [rate]})
    assert count(rate) == {"decided": (2, 0), "strong": (2, 1), "weak": (0, 0)}
    assert rate._runs == {}


def test_runs_that_never_end_are_not_kept_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("langchain_router.callbacks._MOST_RUNS", 3)
    rate, runs = StrongCallRateHandler(), [uuid4() for _ in range(10)]
    for run in runs:
        rate.on_chat_model_start({}, [[]], run_id=run, metadata={"routing": decision()})
    assert list(rate._runs) == runs[-3:]
    for run in runs:
        rate.on_llm_end(LLMResult(generations=[]), run_id=run)
        rate.on_llm_end(LLMResult(generations=[]), run_id=run)  # told twice
    assert count(rate) == {"decided": (10, 0), "strong": (3, 0), "weak": (0, 0)}


# --- tokens and costs ---


def usage(inputs: int = 1000, outputs: int = 100, **details: int) -> dict[str, Any]:
    return {
        "input_tokens": inputs,
        "output_tokens": outputs,
        "total_tokens": inputs + outputs,
        "input_token_details": details,
    }


@apis
@pytest.mark.parametrize(
    ("used", "tokens", "cost"),
    [
        (usage(), (1000, 100), 0.013),
        (usage(cache_read=400), (1000, 100), 0.0094),
        (usage(cache_read=0), (1000, 100), 0.013),
        (usage(cache_creation=400), (1000, 100), 0.013),
        (usage(cache_read=5000), (1000, 100), 0.004),  # no more than there are
        (usage(0, 0), (0, 0), 0.0),
    ],
)
async def test_tokens_and_cost_by_side(setup: Any, fake: Any, api: str, used: Any, tokens: Any, cost: float) -> None:
    rate = StrongCallRateHandler(prices={"strong": PRICE, "weak": Price(input=0.0, output=0.0, cached_input=0.0)})
    pair = setup(strong=fake(model_name="strong", answer=AIMessage("hi", usage_metadata=used)))
    config = {"callbacks": [rate]}
    for text in ("hard", "hard", "easy"):
        await asked(api, pair.model, text, config)
    calls = rate.snapshot()["calls"]
    assert calls["strong"].pop("cost") == pytest.approx(2 * cost)  # type: ignore[misc]
    assert calls["strong"] == {
        "calls": 2,
        "failed": 0,
        "input_tokens": 2 * tokens[0],
        "output_tokens": 2 * tokens[1],
        "unpriced": 0,
    }
    assert calls["weak"] == {**NOTHING, "calls": 1, "input_tokens": 16, "output_tokens": 8, "cost": 0.0}


@pytest.mark.parametrize(
    "prices",
    [
        None,
        {},
        {"other": PRICE},
        {"strong": None},
        {"strong": Price(input=10.0, output=None)},
        {"strong": Price(input=10.0, output=30.0)},  # some of its tokens were cached
        Prices({"other": PRICE}),
    ],
)
def test_a_cost_that_is_not_known_is_not_zero(setup: Any, fake: Any, prices: Any) -> None:
    rate = StrongCallRateHandler(prices=prices)
    answer = AIMessage("hi", usage_metadata=usage(cache_read=1))
    setup(strong=fake(model_name="strong", answer=answer)).model.invoke("hard", {"callbacks": [rate]})
    strong = rate.snapshot()["calls"]["strong"]
    assert (strong["cost"], strong["unpriced"], strong["input_tokens"]) == (None, 1, 1000)


def test_a_call_without_usage_is_unpriced_among_priced_ones(setup: Any, fake: Any) -> None:
    rate = StrongCallRateHandler(prices=Prices({"strong": PRICE}))
    config = {"callbacks": [rate]}
    setup(strong=fake(model_name="strong", answer=AIMessage("hi"))).model.invoke("hard", config)
    assert rate.snapshot()["calls"]["strong"] == {**NOTHING, "calls": 1, "unpriced": 1}
    setup().model.invoke("hard", config)
    strong = rate.snapshot()["calls"]["strong"]
    assert (strong["calls"], strong["unpriced"], strong["cost"]) == (2, 1, pytest.approx(400e-6))


def result(message: Any) -> LLMResult:
    return LLMResult(generations=[[ChatGeneration(message=message)]])


@pytest.mark.parametrize(
    ("metadata", "named", "cost"),
    [
        ({"model_name": "a"}, {}, 1.0),
        ({"model": "a"}, {}, 1.0),
        ({"model_name": "a", "model": "b"}, {"ls_model_name": "b"}, 1.0),
        ({"model_name": "a-2026-11-01", "model": "b"}, {"ls_model_name": "a"}, 2.0),
        ({"model_name": "a-2026-11-01"}, {"ls_model_name": "a"}, 1.0),
        ({"model_name": ["a"]}, {"ls_model_name": None}, None),
    ],
)
def test_the_price_is_that_of_the_name_that_the_answer_gives(metadata: Any, named: Any, cost: float | None) -> None:
    prices = {"a": Price(input=1e6, output=0.0), "b": Price(input=2e6, output=0.0)}
    rate, run = StrongCallRateHandler(prices=prices), uuid4()
    rate.on_chat_model_start({}, [[]], run_id=run, metadata={"routing": decision(), **named})
    message = AIMessage("", response_metadata=metadata, usage_metadata=usage(1, 7))
    rate.on_llm_end(result(message), run_id=run)
    assert rate.snapshot()["calls"]["strong"]["cost"] == cost


def test_prices_that_are_none_are_refused() -> None:
    for prices in ({"strong": 3.0}, {"strong": {"input": 1.0, "output": 2.0}}, 7):
        with pytest.raises(ConfigurationError):
            StrongCallRateHandler(prices=prices)  # type: ignore[arg-type]


@apis
async def test_an_answer_from_a_cache_costs_nothing(setup: Any, fake: Any, api: str) -> None:
    rate = StrongCallRateHandler(prices={"strong": PRICE})
    model = setup(strong=fake(model_name="strong", cache=InMemoryCache())).model
    for _ in range(3):
        await asked(api, model, "hard", {"callbacks": [rate]})
    strong = rate.snapshot()["calls"]["strong"]
    assert (strong["calls"], strong["unpriced"], strong["cost"]) == (3, 0, pytest.approx(400e-6))
    assert count(rate)["decided"] == (3, 0)


@apis
async def test_so_does_one_of_a_model_that_tells_no_usage(setup: Any, fake: Any, api: str) -> None:
    rate = StrongCallRateHandler()
    model = setup(strong=fake(model_name="strong", cache=InMemoryCache(), answer=AIMessage("hi"))).model
    for _ in range(3):
        await asked(api, model, "hard", {"callbacks": [rate]})
    strong = rate.snapshot()["calls"]["strong"]
    assert (strong["calls"], strong["unpriced"], strong["cost"]) == (3, 1, 0.0)


def with_usage(found: Any) -> LLMResult:
    message = AIMessage("")
    message.usage_metadata = found
    return result(message)


GARBAGE = {
    "nothing": None,
    "no generations": LLMResult(generations=[]),
    "no generation": LLMResult(generations=[[]]),
    "a completion": LLMResult(generations=[[Generation(text="hi")]]),
    "no usage": with_usage({}),
    "text": with_usage("many"),
    "half": with_usage({"input_tokens": 3}),
    "words": with_usage({"input_tokens": "three", "output_tokens": "four"}),
    "nulls": with_usage({"input_tokens": None, "output_tokens": None}),
    "no number": with_usage({"input_tokens": math.nan, "output_tokens": 1}),
    "negative": with_usage({"input_tokens": -3, "output_tokens": 4}),
    "details": with_usage({"input_tokens": 3, "output_tokens": 4, "input_token_details": "none"}),
    "cached": with_usage({"input_tokens": 3, "output_tokens": 4, "input_token_details": {"cache_read": "none"}}),
    "cost": with_usage({"input_tokens": 3, "output_tokens": 4, "total_cost": "free"}),
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
@pytest.mark.parametrize("prices", [None, {"m": PRICE}], ids=["unpriced", "priced"])
def test_a_result_that_cannot_be_read_is_a_call_all_the_same(garbage: Any, prices: Any) -> None:
    rate, run = StrongCallRateHandler(prices=prices), uuid4()
    rate.on_chat_model_start({}, [[]], run_id=run, metadata={"routing": decision(), "ls_model_name": "m"})
    rate.on_llm_end(garbage, run_id=run)
    strong = rate.snapshot()["calls"]["strong"]
    assert (strong["calls"], strong["failed"]) == (1, 0)
    assert strong["unpriced"] == (strong["cost"] is None)
    assert min(strong["input_tokens"], strong["output_tokens"]) >= 0
    json.dumps(rate.snapshot(), allow_nan=False)


def test_a_completion_model_is_a_call_too() -> None:
    rate, run = StrongCallRateHandler(), uuid4()
    rate.on_llm_start({"name": "old"}, ["hi"], run_id=run, metadata={"routing": decision("weak")})
    rate.on_llm_end(LLMResult(generations=[[Generation(text="ho")]]), run_id=run)
    assert rate.snapshot()["calls"]["weak"] == {**NOTHING, "calls": 1, "unpriced": 1}


@pytest.mark.filterwarnings("ignore:.*in beta:langchain_core._api.beta_decorator.LangChainBetaWarning")
async def test_every_way_of_calling_counts_the_same(setup: Any) -> None:
    rate = StrongCallRateHandler(prices={"strong": PRICE})
    model, config = setup().model, {"callbacks": [rate]}
    model.invoke("hard", config)
    await model.ainvoke("hard", config)
    list(model.stream("hard", config))
    [chunk async for chunk in model.astream("hard", config)]
    model.batch(["hard"] * 2, config)
    await model.abatch(["hard"] * 2, config)
    list(model.batch_as_completed(["hard"] * 2, config))
    model.generate([[message] for message in model._convert_input("hard").to_messages()] * 2, callbacks=[rate])
    [event async for event in model.astream_events("hard", config, version="v2")]
    str(model.stream_events("hard", config, version="v3").text)
    strong = rate.snapshot()["calls"]["strong"]
    assert strong.pop("cost") == pytest.approx(14 * 400e-6)  # type: ignore[misc]
    assert strong == {"calls": 14, "failed": 0, "input_tokens": 16 * 14, "output_tokens": 8 * 14, "unpriced": 0}
    assert (rate.snapshot()["total"], rate._runs) == (14, {})


# --- copies, forgetting, many at once ---


@pytest.mark.parametrize(
    "twin_of", [copy.copy, copy.deepcopy, lambda rate: pickle.loads(pickle.dumps(rate))], ids=["copy", "deep", "pickle"]
)
def test_a_copy_starts_with_the_figures_and_goes_its_own_way(setup: Any, twin_of: Any) -> None:
    rate = StrongCallRateHandler(prices={"strong": PRICE})
    model, run = setup().model, uuid4()
    model.invoke("hard", {"callbacks": [rate], "tags": ["mine"]})
    rate.on_chat_model_start({}, [[]], run_id=run, metadata={"routing": decision()})
    before = copy.deepcopy(rate.snapshot())
    twin = twin_of(rate)
    assert twin.snapshot() == before
    model.invoke("hard", {"callbacks": [twin], "tags": ["mine"]})
    twin.on_llm_end(with_usage(None), run_id=run)
    assert (count(twin)["decided"], count(twin)["strong"]) == ((3, 0), (3, 0))
    assert rate.snapshot() == before
    rate.on_llm_end(with_usage(None), run_id=run)  # the run is under way here too
    assert count(rate)["strong"] == (2, 0)


def test_forgetting_leaves_calls_under_way_to_be_counted() -> None:
    rate, run = StrongCallRateHandler(), uuid4()
    empty = rate.snapshot()
    event: dict[str, Any] = {"run_id": run, "tags": ["mine"], "metadata": {"routing": decision()}}
    rate.on_chat_model_start({"name": "m"}, [[]], **event)
    rate.reset()
    assert rate.snapshot() == empty
    rate.on_llm_end(with_usage(None), run_id=run)
    assert count(rate) == {"decided": (0, 0), "strong": (1, 0), "weak": (0, 0)}


async def test_threads_and_tasks_add_up_exactly(setup: Any, fake: Any) -> None:
    """One handler, 16 threads and 16 tasks, retries and the other side's answers among their calls."""

    class Flaky(fake):  # type: ignore[misc, valid-type]
        def _look(self, messages: Any, *args: Any, **kwargs: Any) -> None:
            super()._look(messages, *args, **kwargs)
            if messages[-1].content == "no":
                raise ConnectionError

    rate = StrongCallRateHandler(window=10, prices={"strong": Price(input=1e6, output=0.0), "weak": PRICE})
    router = FixedRouter(0.5, {"hard": 0.9, "easy": 0.1, "no": 0.1})
    model = setup(router=router, weak=Flaky(model_name="weak"), fallback_to_other=True).model
    chain = (RunnableLambda(str) | model).with_config(run_name="chain")
    texts = ["hard", "easy", "easy", "no"] * 5
    torn: list[Any] = []

    def thread() -> None:
        for text in texts:
            chain.invoke(text, {"callbacks": [rate], "tags": [text]})
            snapshot = rate.snapshot()
            if sum(snapshot["by_route"].values()) != sum(snapshot["by_reason"].values()):
                torn.append(snapshot)

    async def task() -> None:
        for text in texts:
            await chain.ainvoke(text, {"callbacks": [rate], "tags": [text]})

    threads = [threading.Thread(target=thread) for _ in range(16)]
    for one in threads:
        one.start()
    await asyncio.gather(*(task() for _ in range(16)))
    for one in threads:
        await asyncio.to_thread(one.join)
    snapshot, n = rate.snapshot(), 160
    assert torn == []
    assert snapshot["by_route"] == {"strong": n, "weak": 3 * n}
    assert snapshot["by_tag"] == {
        "hard": {"total": n, "strong_rate": 1.0},
        "easy": {"total": 2 * n, "strong_rate": 0.0},
        "no": {"total": n, "strong_rate": 0.0},
    }
    assert snapshot["by_run_name"]["chain"] == {"total": 4 * n, "strong_rate": 0.25}
    strong, weak = snapshot["calls"]["strong"], snapshot["calls"]["weak"]
    assert (strong["calls"], strong["failed"], strong["cost"]) == (2 * n, 0, 16.0 * 2 * n)
    assert (weak["calls"], weak["failed"], weak["input_tokens"], weak["unpriced"]) == (3 * n, n, 16 * 2 * n, 0)
    assert rate._runs == {}


def test_a_snapshot_is_json(setup: Any) -> None:
    rate = StrongCallRateHandler(prices={"strong": PRICE})
    setup().model.batch(["hard", "easy"], {"callbacks": [rate], "tags": ["mine"]})
    snapshot = rate.snapshot()
    assert json.loads(json.dumps(snapshot, allow_nan=False)) == snapshot
