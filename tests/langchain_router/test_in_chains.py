"""A routed model in chains, and with retries and fallbacks around it and inside it."""

from __future__ import annotations

from typing import Any

from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate

from langchain_router import StrongCallRateHandler


async def test_a_chain_of_prompt_model_and_parser(setup: Any, recorder: Any) -> None:
    pair = setup()
    prompt = ChatPromptTemplate.from_messages([("system", "Be brief."), ("human", "{question}")])
    chain = prompt | pair.model | StrOutputParser()
    config = {"callbacks": [recorder], "configurable": {"router_threshold": 0.5}}
    assert chain.invoke({"question": "hard"}, config) == "strong"
    assert await chain.ainvoke({"question": "easy"}, config) == "weak"
    assert chain.batch([{"question": "hard"}, {"question": "easy"}], config) == ["strong", "weak"]
    assert "".join(chain.stream({"question": "hard"}, config)) == "strong says hi"
    assert "".join([part async for part in chain.astream({"question": "easy"}, config)]) == "weak says hi"
    assert chain.invoke({"question": "easy"}, {"configurable": {"router_threshold": 0.0}}) == "strong"
    assert len(recorder.models) == recorder.ended == 6
    assert [str(message.content) for message in pair.strong.seen[0].messages] == ["Be brief.", "hard"]
    assert "router_threshold" in str(chain.get_config_jsonschema())


def test_fallbacks_around(setup: Any, fake: Any) -> None:
    handler = StrongCallRateHandler()
    spare = fake(model_name="spare")
    pair = setup(strong=fake(model_name="strong", failures=9))
    chain = pair.model.with_fallbacks([spare])
    assert chain.invoke("hard", {"callbacks": [handler]}).content == "spare"
    assert chain.invoke("easy", {"callbacks": [handler]}).content == "weak"
    assert handler.snapshot()["by_route"] == {"strong": 1, "weak": 1}


def test_a_retry_around_decides_again(setup: Any, fake: Any) -> None:
    handler = StrongCallRateHandler()
    pair = setup(strong=fake(model_name="strong", failures=1))
    chain = pair.model.with_retry(wait_exponential_jitter=False)
    assert chain.invoke("hard", {"callbacks": [handler]}).content == "strong"
    assert len(pair.strong.seen) == 2
    assert handler.snapshot()["total"] == pair.model.stats.total == 2


async def test_a_retry_or_a_fallback_inside_is_one_decision(setup: Any, fake: Any, recorder: Any) -> None:
    handler = StrongCallRateHandler()
    strong, weak, spare = (
        fake(model_name="strong", failures=1),
        fake(model_name="weak", failures=9),
        fake(model_name="spare"),
    )
    pair = setup(
        strong=strong.with_retry(wait_exponential_jitter=False),
        weak=weak.with_fallbacks([spare]),
    )
    config = {"callbacks": [handler, recorder]}
    message = pair.model.invoke("hard", config)
    assert message.content == "strong"
    assert message.response_metadata["routing"]["route"] == "strong"
    assert (await pair.model.ainvoke("easy", config)).content == "spare"
    assert len(recorder.models) == 4
    assert handler.snapshot()["by_route"] == {"strong": 1, "weak": 1}
    assert pair.model.stats.total == 2


def test_a_childs_own_bindings_and_callbacks_hold(setup: Any, fake: Any, recorder: Any) -> None:
    strong = fake(model_name="strong", callbacks=[recorder], tags=["child"])
    pair = setup(strong=strong.bind(temperature=0.5))
    pair.model.invoke("hard")
    assert strong.seen[0].kwargs == {"temperature": 0.5}
    assert recorder.tags == [["child"]]
