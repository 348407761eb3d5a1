"""batch and abatch, generate and agenerate: one call of the router, one run of a child for each item."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest
from langchain_core.callbacks import CallbackManager
from langchain_core.messages import HumanMessage
from langchain_core.prompt_values import StringPromptValue
from langchain_core.runnables import RunnableLambda

from prefroute import PromptTypeError, RouterError, ThresholdError
from prefroute.testing import FailingRouter, FixedRouter


class CountingRouter(FixedRouter):
    def __init__(self) -> None:
        super().__init__(0.5, {"hard": 0.9, "easy": 0.1})
        self.calls: list[list[str]] = []

    def win_probability(self, prompts: Any) -> Any:
        self.calls.append(list(prompts))
        return super().win_probability(prompts)


async def batched(model: Any, api: str, *args: Any, **kwargs: Any) -> list[Any]:
    return model.batch(*args, **kwargs) if api == "batch" else await model.abatch(*args, **kwargs)


async def generated(model: Any, api: str, *args: Any, **kwargs: Any) -> Any:
    return model.generate(*args, **kwargs) if api == "generate" else await model.agenerate(*args, **kwargs)


BATCH = pytest.mark.parametrize("api", ["batch", "abatch"])
GENERATE = pytest.mark.parametrize("api", ["generate", "agenerate"])


@BATCH
async def test_a_batch_is_one_call_of_the_router(setup: Any, recorder: Any, api: str) -> None:
    pair = setup(router=CountingRouter())
    prompts = ["hard", "easy", "hard", "easy", "easy"]
    answers = await batched(pair.model, api, prompts, {"callbacks": [recorder], "max_concurrency": 2})
    assert [answer.content for answer in answers] == ["strong", "weak", "strong", "weak", "weak"]
    assert pair.router.calls == [prompts]
    assert len(recorder.models) == 5
    ids = {answer.response_metadata["routing"]["id"] for answer in answers}
    assert ids == {metadata["routing"]["id"] for metadata in recorder.models}
    assert len(ids) == 5
    assert pair.model.stats.snapshot()["by_route"] == {"strong": 2, "weak": 3}
    assert {call.asynchronous for call in pair.weak.seen} == {api == "abatch"}


@BATCH
async def test_an_empty_batch_asks_nobody(setup: Any, api: str) -> None:
    pair = setup(router=CountingRouter())
    assert await batched(pair.model, api, []) == []
    assert pair.router.calls == []


@BATCH
async def test_each_item_may_have_its_own_config(setup: Any, api: str) -> None:
    pair = setup(router=CountingRouter())
    configs = [
        {"configurable": {"router_threshold": 0.0}, "metadata": {"n": 0}},
        {"metadata": {"n": 1}},
        {"configurable": {"router_threshold": 0.0}},
        {"configurable": {"router_threshold": 1.1}},
    ]
    answers = await batched(pair.model, api, ["easy", "easy", "easy", "hard"], configs)
    assert [answer.content for answer in answers] == ["strong", "weak", "strong", "weak"]
    # One call for each distinct threshold.
    assert sorted(map(sorted, pair.router.calls)) == [["easy"], ["easy", "easy"], ["hard"]]
    answers = await batched(pair.model, api, ["easy", "easy"], configs[:2], threshold=0.05)
    assert [answer.response_metadata["routing"]["threshold"] for answer in answers] == [0.05, 0.05]


@BATCH
async def test_errors_are_raised_or_returned(setup: Any, fake: Any, api: str) -> None:
    error = ConnectionError("down")
    pair = setup(strong=fake(model_name="strong", failures=99, error=error))
    with pytest.raises(ConnectionError):
        await batched(pair.model, api, ["easy", "hard"])
    answers = await batched(pair.model, api, ["easy", "hard", "easy"], return_exceptions=True)
    assert [getattr(answer, "content", answer) for answer in answers] == ["weak", error, "weak"]
    (alone,) = await batched(pair.model, api, ["hard"], return_exceptions=True)
    assert alone is error


@BATCH
async def test_an_item_that_cannot_be_routed_fails_alone(setup: Any, api: str) -> None:
    pair = setup()
    configs = [{}, {}, {"configurable": {"router_threshold": "high"}}]
    answers = await batched(pair.model, api, ["easy", 3, "easy"], configs, return_exceptions=True)
    assert answers[0].content == "weak"
    assert isinstance(answers[1], PromptTypeError)
    assert isinstance(answers[2], ThresholdError)
    assert pair.model.stats.total == 1
    with pytest.raises(PromptTypeError):
        await batched(pair.model, api, ["easy", 3])
    assert len(pair.weak.seen) == 1


@BATCH
async def test_a_router_that_raises_fails_the_items(setup: Any, api: str) -> None:
    pair = setup(router=FailingRouter(), on_router_error="raise")
    with pytest.raises(RouterError):
        await batched(pair.model, api, ["a", "b"])
    answers = await batched(pair.model, api, ["a", "b"], return_exceptions=True)
    assert [type(answer) for answer in answers] == [RouterError, RouterError]


@BATCH
async def test_lists_given_stay_as_they_were(setup: Any, api: str) -> None:
    inputs = [[HumanMessage("hard")], "easy"]
    configs = [{"tags": ["a"]}, {"tags": ["b"]}]
    await batched(setup(tags=["own"]).model, api, inputs, configs)
    assert inputs == [[HumanMessage("hard")], "easy"]
    assert configs == [{"tags": ["a"]}, {"tags": ["b"]}]


async def test_as_completed_gives_every_item(setup: Any) -> None:
    pair = setup()
    done = dict(pair.model.batch_as_completed(["hard", "easy"]))
    assert {index: message.content for index, message in done.items()} == {0: "strong", 1: "weak"}
    done = {index: message async for index, message in pair.model.abatch_as_completed(["hard", "easy"])}
    assert {index: message.content for index, message in done.items()} == {0: "strong", 1: "weak"}


def test_a_batch_runs_no_more_at_once_than_asked(setup: Any, fake: Any) -> None:
    running, most, lock = 0, 0, threading.Lock()
    pair_up = threading.Barrier(2)

    class Busy(fake):
        def _generate(self, *args: Any, **kwargs: Any) -> Any:
            nonlocal running, most
            with lock:
                running += 1
                most = max(most, running)
            pair_up.wait(30)
            with lock:
                running -= 1
            return super()._generate(*args, **kwargs)

    pair = setup(strong=Busy(model_name="strong"), weak=Busy(model_name="weak"))
    pair.model.batch(["hard", "easy"] * 4, {"max_concurrency": 2})
    assert most == 2


async def test_statistics_add_up_over_threads_and_tasks(setup: Any) -> None:
    from langchain_router import StrongCallRateHandler

    handler = StrongCallRateHandler()
    pair = setup()
    config = {"callbacks": [handler]}
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: pair.model.invoke("hard" if i % 4 == 0 else "easy", config), range(200)))
    await asyncio.gather(*(pair.model.ainvoke("hard" if i % 4 == 0 else "easy", config) for i in range(200)))
    for snapshot in (pair.model.stats.snapshot(), handler.snapshot()):
        assert snapshot["by_route"] == {"strong": 100, "weak": 300}
    assert handler.strong_rate == 0.25


@GENERATE
async def test_generate_is_one_run_a_prompt(setup: Any, recorder: Any, api: str) -> None:
    pair = setup(router=CountingRouter(), tags=["own"])
    messages = [[HumanMessage("hard")], [HumanMessage("easy")]]
    run_id = uuid4()
    result = await generated(
        pair.model,
        api,
        messages,
        ["x"],
        [recorder],
        tags=["t"],
        metadata={"m": 1},
        run_name="r",
        run_id=run_id,
        top_p=1,
    )
    assert [generations[0].message.content for generations in result.generations] == ["strong", "weak"]
    assert pair.router.calls == [["hard", "easy"]]
    assert len(recorder.models) == len(result.run) == 2
    assert recorder.usage == 48
    assert recorder.ids.count(run_id) == 1
    assert recorder.tags == [["t", "own"]] * 2
    for generations, metadata in zip(result.generations, recorder.models, strict=True):
        assert generations[0].message.response_metadata["routing"] == metadata["routing"]
        assert metadata["m"] == 1
    assert result.llm_output == {
        "strong": {"model_name": "strong", "calls": 1},
        "weak": {"model_name": "weak", "calls": 1},
    }
    assert pair.strong.seen[0].stop == ["x"]
    assert pair.strong.seen[0].kwargs == {"top_p": 1}


@GENERATE
async def test_generate_of_one_side_is_as_the_model_makes_it(setup: Any, api: str) -> None:
    pair = setup()
    result = await generated(pair.model, api, [[HumanMessage("easy")]])
    assert result.llm_output == {"model_name": "weak", "calls": 1}
    result = await generated(pair.model, api, [[HumanMessage("easy")]] * 2, threshold=0.0)
    assert result.llm_output == {"model_name": "strong", "calls": 2}
    assert (await generated(pair.model, api, [])).generations == []


@GENERATE
async def test_generate_keeps_what_a_child_has_bound(setup: Any, fake: Any, recorder: Any, api: str) -> None:
    strong = fake(model_name="strong")
    bound = strong.bind(temperature=0.5).with_config(tags=["bound"])
    result = await generated(setup(strong=bound).model, api, [[HumanMessage("hard")]], callbacks=[recorder])
    assert result.llm_output == {"model_name": "strong", "calls": 1}
    assert strong.seen[0].kwargs == {"temperature": 0.5}
    assert recorder.tags == [["bound"]]


@GENERATE
async def test_generate_through_a_retry(setup: Any, fake: Any, api: str) -> None:
    strong = fake(model_name="strong", failures=1)
    pair = setup(strong=strong.with_retry(wait_exponential_jitter=False))
    result = await generated(pair.model, api, [[HumanMessage("hard")]])
    assert result.generations[0][0].message.content == "strong"
    assert result.generations[0][0].message.response_metadata["routing"]["route"] == "strong"
    assert len(strong.seen) == 2


@GENERATE
async def test_generate_raises_the_models_error(setup: Any, fake: Any, api: str) -> None:
    pair = setup(strong=fake(model_name="strong", failures=9))
    with pytest.raises(ConnectionError, match="strong is down"):
        await generated(pair.model, api, [[HumanMessage("easy")], [HumanMessage("hard")]])


async def test_generate_prompt_routes_too(setup: Any) -> None:
    pair = setup()
    prompts = [StringPromptValue(text="hard"), StringPromptValue(text="easy")]
    for result in (pair.model.generate_prompt(prompts), await pair.model.agenerate_prompt(prompts)):
        assert [generations[0].text for generations in result.generations] == ["strong", "weak"]


@GENERATE
async def test_generate_takes_the_threshold_of_its_surroundings(setup: Any, api: str) -> None:
    pair = setup()

    async def node(text: str) -> str:
        result = await generated(pair.model, api, [[HumanMessage(text)]])
        return str(result.generations[0][0].text)

    config = {"configurable": {"router_threshold": 0.0}}
    assert await RunnableLambda(node).ainvoke("easy", config) == "strong"


async def test_the_generate_hook_answers_without_a_second_run(setup: Any, recorder: Any) -> None:
    pair = setup()

    def wrapper(text: str) -> str:
        # As a model that wraps another one does: it has opened the run for this answer.
        (manager,) = CallbackManager([recorder]).on_chat_model_start({}, [[HumanMessage(text)]])
        return str(pair.model._generate([HumanMessage(text)], run_manager=manager).generations[0].text)

    assert RunnableLambda(wrapper).invoke("hard", {"callbacks": [recorder]}) == "strong"
    assert len(recorder.models) == 1
    assert (await pair.model._agenerate([HumanMessage("easy")])).generations[0].message.content == "weak"
