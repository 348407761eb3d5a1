"""Tools, schemas, arguments and config bound to a routed model."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableBinding, RunnableLambda
from langchain_core.tools import tool
from pydantic import BaseModel

from langchain_router import RoutedChatModel


@tool
def add(a: int, b: int) -> int:
    """Add two integers."""
    return a + b


@tool
def sub(a: int, b: int) -> int:
    """Subtract two integers."""
    return a - b


class Answer(BaseModel):
    """An answer."""

    value: int


def answering(fake: Any, name: str, value: int) -> Any:
    call = {"name": "Answer", "args": {"value": value}, "id": "1"}
    return fake(model_name=name, answer=AIMessage("", tool_calls=[call]))


@pytest.fixture
def structured(setup: Any, fake: Any) -> Any:
    return setup(strong=answering(fake, "strong", 1), weak=answering(fake, "weak", 2))


def names(kwargs: dict[str, Any]) -> list[tuple[str, str]]:
    return [(one["function"]["name"], one["for"]) for one in kwargs["tools"]]


async def test_each_model_gets_the_tools_in_its_own_format(setup: Any) -> None:
    pair = setup()
    bound = pair.model.bind_tools([add], tool_choice="any", strict=True)
    assert isinstance(bound, RunnableBinding)
    assert isinstance(bound.bound, RoutedChatModel)
    assert bound.invoke("hard").content == "strong"
    assert (await bound.ainvoke("easy")).content == "weak"
    assert names(pair.strong.seen[0].kwargs) == [("add", "strong")]
    assert names(pair.weak.seen[0].kwargs) == [("add", "weak")]
    assert pair.weak.seen[0].kwargs["tool_choice"] == "any"
    assert pair.weak.seen[0].kwargs["strict"] is True
    assert pair.model.stats.total == 2
    # The model itself has none.
    pair.model.invoke("hard")
    assert pair.strong.seen[1].kwargs == {}


def test_tools_bound_again_replace_the_first(setup: Any) -> None:
    pair = setup()
    first = pair.model.bind_tools([add], tool_choice="any")
    first.bind_tools([sub]).invoke("hard")
    assert names(pair.strong.seen[0].kwargs) == [("sub", "strong")]
    assert "tool_choice" not in pair.strong.seen[0].kwargs
    first.invoke("hard")
    assert names(pair.strong.seen[1].kwargs) == [("add", "strong")]


def test_what_wrappers_around_a_child_hold_is_kept(setup: Any, fake: Any, recorder: Any) -> None:
    strong, spare = fake(model_name="strong", failures=1), fake(model_name="spare")
    weak = fake(model_name="weak", failures=1)
    pair = setup(
        strong=strong.bind(temperature=0.5).with_config(tags=["dear"]).with_fallbacks([spare.bind(temperature=1)]),
        weak=weak.with_retry(wait_exponential_jitter=False),
    )
    bound = pair.model.bind_tools([add])
    assert bound.invoke("hard", {"callbacks": [recorder]}).content == "spare"
    assert recorder.tags[0] == ["dear"]
    assert (strong.seen[0].kwargs["temperature"], spare.seen[0].kwargs["temperature"]) == (0.5, 1)
    assert names(spare.seen[0].kwargs) == [("add", "spare")]
    assert bound.invoke("easy").content == "weak"
    assert len(weak.seen) == 2
    assert names(weak.seen[1].kwargs) == [("add", "weak")]


def test_a_child_that_takes_no_tools_is_told_at_once(setup: Any) -> None:
    with pytest.raises(NotImplementedError, match="RunnableLambda has no bind_tools"):
        setup(weak=RunnableLambda(str)).model.bind_tools([add])


@pytest.mark.parametrize(
    "bind",
    [
        lambda model: model.bind(threshold=0.0, temperature=0.5).bind_tools([add]),
        lambda model: model.bind_tools([add]).bind(threshold=0.0, temperature=0.5),
        lambda model: model.bind_tools([add], threshold=0.0, temperature=0.5),
        lambda model: model.with_config(configurable={"router_threshold": 0.0}).bind_tools([add], temperature=0.5),
    ],
)
def test_a_bound_threshold_outlives_bound_tools(setup: Any, bind: Any) -> None:
    pair = setup()
    assert bind(pair.model).invoke("easy").content == "strong"
    assert pair.strong.seen[0].kwargs["temperature"] == 0.5
    assert names(pair.strong.seen[0].kwargs) == [("add", "strong")]
    assert bind(pair.model).invoke(
        "easy", threshold=0.5, config={"configurable": {"router_threshold": 0.5}}
    ).content == ("weak")


def test_one_binding_is_enough_for_langgraph(setup: Any) -> None:
    # create_react_agent looks one binding deep for a chat model.
    model = setup().model
    for bound in (model.bind(threshold=0.1).bind_tools([add]), model.bind_tools([add]).bind_tools([sub])):
        assert isinstance(bound.bound, RoutedChatModel)


def test_fallbacks_around_a_routed_model_keep_their_tools(setup: Any, fake: Any) -> None:
    spare = fake(model_name="spare")
    pair = setup(strong=fake(model_name="strong", failures=9))
    for model in (pair.model, pair.model.bind(threshold=0.4)):
        chain = model.with_fallbacks([spare]).bind_tools([add])
        assert chain.invoke("hard").content == "spare"
    assert [names(call.kwargs) for call in spare.seen] == [[("add", "spare")]] * 2


async def test_structured_output_is_routed(structured: Any, recorder: Any) -> None:
    chain = structured.model.with_structured_output(Answer)
    config = {"callbacks": [recorder]}
    assert chain.invoke("hard", config) == Answer(value=1)
    assert await chain.ainvoke("easy", config) == Answer(value=2)
    assert chain.batch(["hard", "easy"], config) == [Answer(value=1), Answer(value=2)]
    assert await chain.abatch(["hard", "easy"], config) == [Answer(value=1), Answer(value=2)]
    assert len(recorder.models) == 6
    assert structured.model.stats.total == 6
    assert [metadata["routing"]["route"] for metadata in recorder.models[:2]] == ["strong", "weak"]
    assert chain.get_output_schema().model_json_schema() == (
        structured.strong.with_structured_output(Answer).get_output_schema().model_json_schema()
    )
    assert chain.get_input_schema().model_json_schema() == structured.strong.get_input_schema().model_json_schema()
    assert [spec.id for spec in chain.config_specs] == ["router_threshold", "router_strong_rate", "router_route"]


async def test_structured_output_streams(setup: Any, fake: Any) -> None:
    chain = setup(strong=answering(fake, "strong", 1)).model.with_structured_output(Answer)
    assert list(chain.stream("hard")) == [Answer(value=1)]
    assert [part async for part in chain.astream("hard")] == [Answer(value=1)]


@pytest.mark.parametrize(
    "bind",
    [
        lambda model: model.with_structured_output(Answer).bind(threshold=0.0),
        lambda model: model.bind(threshold=0.0).with_structured_output(Answer),
        lambda model: model.with_structured_output(Answer, threshold=0.0),
        lambda model: model.with_structured_output(Answer).with_config(configurable={"router_threshold": 0.0}),
        lambda model: model.with_config(configurable={"router_threshold": 0.0}).with_structured_output(Answer),
    ],
)
def test_a_threshold_reaches_structured_output(structured: Any, bind: Any) -> None:
    assert bind(structured.model).invoke("easy") == Answer(value=1)


@pytest.mark.parametrize("include_raw", [False, True])
@pytest.mark.parametrize("outer", [False, True])
def test_structured_output_keeps_bound_arguments(setup: Any, fake: Any, include_raw: bool, outer: bool) -> None:
    strong = answering(fake, "strong", 1)
    if outer:
        model = setup(strong=strong).model.bind(temperature=0.5)
    else:
        model = setup(strong=strong.bind(temperature=0.5)).model
    model.with_structured_output(Answer, include_raw=include_raw).invoke("hard")
    assert strong.seen[0].kwargs["temperature"] == 0.5
    assert [one["function"]["name"] for one in strong.seen[0].kwargs["tools"]] == ["Answer"]


def test_the_raw_message_has_the_decision(structured: Any) -> None:
    chain = structured.model.with_structured_output(Answer, include_raw=True)
    result = chain.invoke("hard")
    assert result["parsed"] == Answer(value=1)
    assert result["raw"].response_metadata["routing"]["route"] == "strong"


def test_structured_output_through_wrappers(setup: Any, fake: Any, recorder: Any) -> None:
    strong = answering(fake, "strong", 1)
    down = fake(model_name="down", failures=9)
    pair = setup(strong=down.with_fallbacks([strong]), weak=answering(fake, "weak", 2).with_config(tags=["cheap"]))
    chain = pair.model.with_structured_output(Answer)
    assert chain.invoke("hard") == Answer(value=1)
    assert chain.invoke("easy", {"callbacks": [recorder]}) == Answer(value=2)
    assert "cheap" in recorder.tags[0]
    with pytest.raises(NotImplementedError, match="no with_structured_output"):
        setup(weak=RunnableLambda(str)).model.with_structured_output(Answer)
