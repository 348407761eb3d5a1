"""invoke and ainvoke: who answers, what is told, what is left alone."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any
from uuid import uuid4

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import CallbackManager, UsageMetadataCallbackHandler
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.prompt_values import ChatPromptValue, StringPromptValue
from langchain_core.runnables import RunnableLambda

from langchain_router import StrongCallRateHandler
from prefroute import PromptTypeError, RouterError, RoutingDecision, ThresholdError
from prefroute.testing import FailingRouter, FixedRouter, SlowRouter


@pytest.mark.parametrize(("prompt", "side"), [("hard", "strong"), ("easy", "weak")])
async def test_the_score_chooses_who_answers(setup: Any, prompt: str, side: str) -> None:
    pair = setup()
    assert pair.model.invoke(prompt).content == side
    assert (await pair.model.ainvoke(prompt)).content == side
    chosen = getattr(pair, side)
    assert [call.asynchronous for call in chosen.seen] == [False, True]
    other = pair.weak if side == "strong" else pair.strong
    assert other.seen == []


@pytest.mark.parametrize("api", ["invoke", "ainvoke"])
async def test_one_call_is_one_run_of_the_chosen_model(setup: Any, recorder: Any, api: str) -> None:
    pair = setup()
    config = {"callbacks": [recorder], "metadata": {"mine": 1}, "tags": ["t"], "run_id": uuid4()}
    if api == "invoke":
        message = pair.model.invoke("hard", config)
    else:
        message = await pair.model.ainvoke("hard", config)
    assert [kind for kind, _ in recorder.started] == ["model"]
    assert (recorder.ended, recorder.usage) == (1, 24)
    assert recorder.ids == [config["run_id"]]
    (metadata,) = recorder.models
    assert metadata["ls_model_name"] == "strong"
    assert metadata["mine"] == 1
    assert recorder.tags == [["t"]]
    decision = RoutingDecision.from_dict(metadata["routing"])
    assert decision == RoutingDecision(route="strong", score=0.9, threshold=0.5, reason="score")
    assert message.response_metadata == {"model_name": "strong", "routing": metadata["routing"]}
    json.dumps(message.response_metadata)
    assert pair.model.stats.total == 1


def test_the_callers_config_and_messages_stay_as_they_were(setup: Any, recorder: Any) -> None:
    messages = [SystemMessage("be brief"), HumanMessage("hard")]
    before = [message.model_copy(deep=True) for message in messages]
    config = {"callbacks": [recorder], "metadata": {"mine": 1}, "tags": ["t"], "configurable": {"k": 1}}
    pair = setup(tags=["own"], metadata={"also": 2})
    pair.model.invoke(messages, config)
    assert messages == before
    assert config == {"callbacks": [recorder], "metadata": {"mine": 1}, "tags": ["t"], "configurable": {"k": 1}}
    assert pair.strong.seen[0].messages == before


def test_what_the_routed_model_holds_is_added_to_the_run(setup: Any, recorder: Any) -> None:
    pair = setup(tags=["own"], metadata={"team": "a"}, callbacks=[recorder])
    pair.model.invoke("easy", {"tags": ["call"], "metadata": {"user": "u"}})
    assert recorder.tags == [["call", "own"]]
    assert recorder.models[0]["team"] == "a"
    assert recorder.models[0]["user"] == "u"


def test_a_counting_handler_on_model_and_call_counts_once(setup: Any) -> None:
    usage = UsageMetadataCallbackHandler()
    model = setup(callbacks=[usage]).model
    model.invoke("easy", {"callbacks": [usage]})
    model.generate([[HumanMessage("easy")]], callbacks=[usage])
    assert usage.usage_metadata["weak"]["total_tokens"] == 2 * 24


def test_the_same_handler_on_model_and_call_is_told_once(setup: Any, recorder: Any) -> None:
    pair = setup(callbacks=[recorder])
    chain = RunnableLambda(lambda text: text) | pair.model
    chain.invoke("easy", {"callbacks": [recorder]})
    assert len(recorder.models) == 1


def test_handlers_of_model_and_call_are_both_told(setup: Any, recorder: Any) -> None:
    other = StrongCallRateHandler()
    pair = setup(callbacks=[other])
    pair.model.invoke("easy", {"callbacks": [recorder]})
    RunnableLambda(pair.model.invoke).invoke("hard", {"callbacks": CallbackManager([recorder], [recorder])})
    assert len(recorder.models) == other.snapshot()["total"] == 2


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("hard", "hard"),
        ("", ""),
        ([], ""),
        ([HumanMessage("easy"), AIMessage("?"), HumanMessage("hard")], "hard"),
        ([HumanMessage("hard"), AIMessage("", tool_calls=[]), ToolMessage("42", tool_call_id="1")], "hard"),
        ([SystemMessage("only this")], "only this"),
        ([SystemMessage("first"), AIMessage("last")], "last"),
        ([("system", "s"), ("human", "hard")], "hard"),
        ([{"role": "user", "content": "hard"}, {"role": "assistant", "content": "no"}], "hard"),
        (["hard"], "hard"),
        (StringPromptValue(text="hard"), "hard"),
        (ChatPromptValue(messages=[HumanMessage("hard"), AIMessage("no")]), "hard"),
        (
            [HumanMessage([{"type": "text", "text": "ha"}, {"type": "image_url", "image_url": {"url": "x"}}, "rd"])],
            "hard",
        ),
    ],
)
async def test_the_last_human_message_is_what_is_scored(setup: Any, value: Any, text: str) -> None:
    router = FixedRouter(0.9)
    pair = setup(router=router)
    pair.model._dispatch.prepare(value, None, {})
    await pair.model._dispatch.aprepare(value, None, {})
    assert router.prompts == [text, text]
    assert all(type(prompt) is str for prompt in router.prompts)


@pytest.mark.parametrize("value", [None, 3, b"bytes", {"messages": []}])
def test_what_is_no_prompt_is_told(setup: Any, value: Any) -> None:
    with pytest.raises(PromptTypeError, match=type(value).__name__):
        setup().model.invoke(value)


@pytest.mark.parametrize(
    ("field", "configured", "keyword", "used"),
    [
        (None, None, None, 0.5),
        (0.2, None, None, 0.2),
        (0.2, 0.3, None, 0.3),
        (0.2, 0.3, 0.4, 0.4),
        (0.2, 0.0, None, 0.0),
        (0.2, 0.3, 0.0, 0.0),
        (0.0, None, None, 0.0),
        (0.2, 7, None, 7.0),
        (0.2, 0.3, -1, -1.0),
    ],
)
async def test_keyword_then_configurable_then_field_then_router(
    setup: Any, field: Any, configured: Any, keyword: Any, used: float
) -> None:
    pair = setup(threshold=field)
    config = None if configured is None else {"configurable": {"router_threshold": configured, "__pregel": object()}}
    kwargs = {} if keyword is None else {"threshold": keyword}
    for message in (pair.model.invoke("easy", config, **kwargs), await pair.model.ainvoke("easy", config, **kwargs)):
        assert message.response_metadata["routing"]["threshold"] == used
        assert message.content == ("strong" if used <= 0.1 else "weak")
    seen = pair.strong.seen + pair.weak.seen
    assert [call.kwargs for call in seen] == [{}, {}]


def test_the_router_is_asked_for_its_threshold_at_the_time_of_the_call(setup: Any) -> None:
    pair = setup()
    pair.router.threshold = 0.05
    assert pair.model.invoke("easy").content == "strong"


@pytest.mark.parametrize("threshold", [float("nan"), "0.5", True])
def test_an_unusable_threshold_of_a_call_is_told(setup: Any, threshold: Any) -> None:
    pair = setup()
    with pytest.raises(ThresholdError):
        pair.model.invoke("easy", threshold=threshold)
    with pytest.raises(ThresholdError):
        pair.model.invoke("easy", {"configurable": {"router_threshold": threshold}})
    assert pair.weak.seen == []


def test_a_node_that_passes_no_config_on_still_uses_the_configured_threshold(setup: Any, recorder: Any) -> None:
    # As in a LangGraph node: the config is in the context alone.
    pair = setup()
    node = RunnableLambda(lambda text: pair.model.invoke(text).content)
    config = {"configurable": {"router_threshold": 0.0}, "callbacks": [recorder]}
    assert node.invoke("easy", config) == "strong"
    assert recorder.models[0]["routing"]["threshold"] == 0.0


async def test_stop_and_other_arguments_reach_the_chosen_model(setup: Any, fake: Any) -> None:
    pair = setup()
    pair.model.invoke("hard", stop=["x"], temperature=0.3)
    await pair.model.ainvoke("hard", stop=["x"], temperature=0.3)
    assert [(call.stop, call.kwargs) for call in pair.strong.seen] == [(["x"], {"temperature": 0.3})] * 2


def test_a_stop_bound_to_a_child_survives(setup: Any, fake: Any) -> None:
    strong = fake(model_name="strong")
    setup(strong=strong.bind(stop=["end"])).model.invoke("hard")
    assert strong.seen[0].stop == ["end"]


async def test_provider_errors_pass_unchanged(setup: Any, fake: Any, recorder: Any) -> None:
    class QuotaError(Exception):
        pass

    error = QuotaError("no more")
    pair = setup(strong=fake(model_name="strong", failures=99, error=error))
    for call in (
        lambda: pair.model.invoke("hard", {"callbacks": [recorder]}),
        lambda: list(pair.model.stream("hard")),
        lambda: pair.model.batch(["hard"]),
        lambda: pair.model.generate([[HumanMessage("hard")]]),
    ):
        with pytest.raises(QuotaError) as caught:
            call()
        assert caught.value is error
    with pytest.raises(QuotaError):
        await pair.model.ainvoke("hard")
    assert recorder.errors == [error]
    assert pair.weak.seen == []


async def test_a_failing_router_fails_open(setup: Any, caplog: pytest.LogCaptureFixture) -> None:
    pair = setup(router=FailingRouter())
    message = pair.model.invoke("easy")
    assert message.content == "strong"
    assert message.response_metadata["routing"]["reason"] == "router_error"
    assert message.response_metadata["routing"]["score"] is None
    assert (await pair.model.ainvoke("easy")).content == "strong"
    assert pair.model.stats.snapshot()["by_reason"] == {"router_error": 2}
    assert "FailingRouter failed: RuntimeError; 1 of 1 prompts go to" in caplog.text


def test_the_constructor_says_where_failures_go(setup: Any) -> None:
    assert setup(router=FailingRouter(), on_router_error="weak").model.invoke("hard").content == "weak"
    with pytest.raises(RouterError, match="FailingRouter failed: RuntimeError"):
        setup(router=FailingRouter(), on_router_error="raise").model.invoke("hard")


async def test_a_slow_router_is_cut_off(setup: Any) -> None:
    pair = setup(router=SlowRouter(30.0), router_time_limit=0.01, on_router_error="weak")
    assert pair.model.invoke("hard").content == "weak"
    assert (await pair.model.ainvoke("hard")).response_metadata["routing"]["reason"] == "router_error"


@pytest.mark.parametrize("api", ["ainvoke", "abatch", "astream", "agenerate"])
async def test_scoring_does_not_block_the_event_loop(setup: Any, api: str) -> None:
    released = threading.Event()

    class Waiting(FixedRouter):
        def win_probability(self, prompts: Any) -> Any:
            assert released.wait(30)
            return super().win_probability(prompts)

    pair = setup(router=Waiting())

    async def ask() -> None:
        if api == "ainvoke":
            await pair.model.ainvoke("hard")
        elif api == "abatch":
            await pair.model.abatch(["hard", "hard"])
        elif api == "agenerate":
            await pair.model.agenerate([[HumanMessage("hard")]])
        else:
            assert [chunk async for chunk in pair.model.astream("hard")]

    task = asyncio.create_task(ask())
    # If scoring held the loop, nothing could release it.
    await asyncio.sleep(0)
    asyncio.get_running_loop().call_soon(released.set)
    await task
    # A router that waited in vain would have failed, and failed open.
    assert set(pair.model.stats.snapshot()["by_reason"]) == {"score"}


def test_each_child_caches_under_its_own_key(setup: Any, recorder: Any) -> None:
    cache = InMemoryCache()
    pair = setup(cache=cache)
    first = pair.model.invoke("easy")
    second = pair.model.invoke("easy", {"callbacks": [recorder]})
    assert (first.content, second.content) == ("weak", "weak")
    assert len(pair.weak.seen) == 1
    assert len(recorder.models) == 1
    # The threshold moves the prompt to the other model: the weak answer must not be served for it.
    assert pair.model.invoke("easy", threshold=0.0).content == "strong"
    assert len(cache._cache) == 2
    # Each call has its own decision, and the cached message has none.
    assert first.response_metadata["routing"]["id"] != second.response_metadata["routing"]["id"]
    (stored,) = [value for value in cache._cache.values() if value[0].message.content == "weak"]
    assert "routing" not in stored[0].message.response_metadata


def test_a_child_without_a_chat_model_in_it_answers_as_it_does(setup: Any) -> None:
    pair = setup(weak=RunnableLambda(lambda text: f"plain {text}"))
    assert pair.model.invoke("easy") == "plain easy"


def test_a_routed_model_routes_between_routed_models(setup: Any, fake: Any, recorder: Any) -> None:
    tiny = fake(model_name="tiny")
    inner = setup(weak=tiny, threshold=0.05).model
    pair = setup(weak=inner)
    message = pair.model.invoke("easy", {"callbacks": [recorder]})
    assert message.content == "strong"
    assert len(recorder.models) == 1
    assert [spec.id for spec in pair.model.config_specs] == ["router_threshold", "router_strong_rate", "router_route"]
