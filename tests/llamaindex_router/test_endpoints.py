"""Every endpoint, on both routes: the chosen LLM's own method answers and the response says who."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from llama_index.core.base.llms.types import LLMMetadata
from llama_index.core.llms import ChatMessage
from llama_index.core.prompts import PromptTemplate
from pydantic import BaseModel

from llamaindex_router import RoutedLLM
from llamaindex_router.delegation import Delegation
from llamaindex_router.events import Attempt
from prefroute import RoutingDecision, ThresholdError
from prefroute.testing import FailingRouter, FixedRouter

if TYPE_CHECKING:
    from conftest import DialectLLM, PlainLLM


class Pair(BaseModel):
    """Two numbers."""

    a: int
    b: int


QUESTION = PromptTemplate("Context: a long text that must not be scored.\nQ: {query_str}\nA:")


def user(text: str) -> list[ChatMessage]:
    return [ChatMessage(role="system", content="be brief"), ChatMessage(role="user", content=text)]


def answered_by(case: tuple[str, str, str], strong: DialectLLM, weak: DialectLLM) -> list[str]:
    """Names of the methods called on the chosen LLM; the other one must not have been touched."""
    chosen, other = (strong, weak) if case[0] == "strong" else (weak, strong)
    assert other.calls == []
    return [method for method, _, _ in chosen.calls]


def check_provenance(response: Any, route: str) -> None:
    routing = response.additional_kwargs["routing"]
    assert (routing["route"], routing["threshold"], routing["reason"]) == (route, 0.5, "score")
    assert routing["score"] == (0.9 if route == "strong" else 0.1)


async def test_message_endpoints(
    routed: RoutedLLM, strong: DialectLLM, weak: DialectLLM, router: FixedRouter, case: tuple[str, str, str]
) -> None:
    route, text, name = case
    responses = [routed.chat(user(text)), await routed.achat(user(text))]
    for response in responses:
        assert response.message.content == name
        assert response.raw == {"model": name}
        assert response.message.additional_kwargs == {}
        check_provenance(response, route)
    assert answered_by(case, strong, weak) == ["chat", "achat"]
    assert router.prompts == [text, text]
    assert routed.stats.total == 2


async def test_completion_endpoints(
    routed: RoutedLLM, strong: DialectLLM, weak: DialectLLM, router: FixedRouter, case: tuple[str, str, str]
) -> None:
    route, text, name = case
    for response in (routed.complete(text), await routed.acomplete(text, formatted=True)):
        assert response.text == name
        check_provenance(response, route)
    assert answered_by(case, strong, weak) == ["complete", "acomplete"]
    assert [kwargs["formatted"] for _, _, kwargs in (*strong.calls, *weak.calls)] == [False, True]
    assert router.prompts == [text, text]


async def test_streaming_endpoints(
    routed: RoutedLLM, strong: DialectLLM, weak: DialectLLM, case: tuple[str, str, str]
) -> None:
    route, text, name = case
    streams = [
        list(routed.stream_chat(user(text))),
        [chunk async for chunk in await routed.astream_chat(user(text))],
        list(routed.stream_complete(text)),
        [chunk async for chunk in await routed.astream_complete(text)],
    ]
    ids = set()
    for chunks in streams:
        assert "".join(chunk.delta for chunk in chunks) == name
        for chunk in chunks:
            check_provenance(chunk, route)
        ids |= {chunk.additional_kwargs["routing"]["id"] for chunk in chunks}
    assert len(ids) == len(streams) == routed.stats.total
    assert answered_by(case, strong, weak) == ["stream_chat", "astream_chat", "stream_complete", "astream_complete"]


async def test_prompt_endpoints_ask_about_the_query_alone(
    routed: RoutedLLM, strong: DialectLLM, weak: DialectLLM, router: FixedRouter, case: tuple[str, str, str]
) -> None:
    _, text, name = case
    partial = QUESTION.partial_format(query_str=text)
    assert routed.predict(QUESTION, query_str=text) == name
    assert await routed.apredict(partial) == name
    assert "".join(routed.stream(partial)) == name
    assert "".join([token async for token in await routed.astream(QUESTION, query_str=text)]) == name
    assert router.prompts == [text] * 4
    assert answered_by(case, strong, weak) == ["chat", "achat", "stream_chat", "astream_chat"]


async def test_structured_endpoints(
    routed: RoutedLLM, strong: DialectLLM, weak: DialectLLM, router: FixedRouter, case: tuple[str, str, str]
) -> None:
    _, text, name = case
    assert routed.structured_predict(Pair, QUESTION, query_str=text) == Pair(a=2, b=3)
    assert await routed.astructured_predict(Pair, QUESTION, query_str=text) == Pair(a=2, b=3)
    streamed = list(routed.stream_structured_predict(Pair, QUESTION, query_str=text))
    astreamed = [x async for x in await routed.astream_structured_predict(Pair, QUESTION, query_str=text)]
    assert len(streamed) == len(astreamed) == len(name)
    if case[0] == "weak":  # The framework reads streamed tool calls from the legacy key only.
        assert streamed[-1] == astreamed[-1] == Pair(a=2, b=3)
    assert router.prompts == [text] * 4
    assert {m for m in answered_by(case, strong, weak) if m != "get_tool_calls"} == {
        "chat",
        "achat",
        "stream_chat",
        "astream_chat",
    }


def test_structured_llm_takes_a_threshold(routed: RoutedLLM, strong: DialectLLM, weak: DialectLLM, easy: str) -> None:
    llm = routed.as_structured_llm(Pair)
    assert llm.chat([ChatMessage(content=easy)]).raw == Pair(a=2, b=3)
    assert llm.chat([ChatMessage(content=easy)], threshold=0.0).raw == Pair(a=2, b=3)
    assert routed.stats.snapshot()["by_route"] == {"strong": 1, "weak": 1}


def test_structured_predict_leaves_llm_kwargs_alone(routed: RoutedLLM, easy: str) -> None:
    llm_kwargs = {"threshold": 0.0, "temperature": 0.3}
    routed.structured_predict(Pair, QUESTION, llm_kwargs, query_str=easy)
    assert llm_kwargs == {"threshold": 0.0, "temperature": 0.3}


async def test_threshold_of_one_call(
    routed: RoutedLLM, strong: DialectLLM, weak: DialectLLM, easy: str, hard: str
) -> None:
    assert routed.chat(user(easy), threshold=0.1).message.content == "big"
    assert (await routed.achat(user(hard), threshold=0.95, temperature=0)).message.content == "small"
    assert routed.complete(easy, threshold=-1.0).text == "big"
    assert next(routed.stream_complete(hard, threshold=2.0)).additional_kwargs["routing"]["threshold"] == 2.0
    assert [chunk.delta async for chunk in await routed.astream_chat(user(easy), threshold=0)] == list("big")
    assert all("threshold" not in kwargs for _, _, kwargs in (*strong.calls, *weak.calls))
    assert weak.calls[0][2] == {"temperature": 0}
    with pytest.raises(ThresholdError, match="nan"):
        routed.complete(easy, threshold=float("nan"))


def test_threshold_can_be_changed(routed: RoutedLLM, easy: str) -> None:
    routed.threshold = 0.05
    assert routed.complete(easy).text == "big"
    routed.threshold = None
    routed.router.threshold = 0.2
    assert routed.complete(easy).text == "small"


def test_inner_system_prompt_is_kept(strong: DialectLLM, weak: DialectLLM, router: FixedRouter, easy: str) -> None:
    weak.system_prompt = "you are small"
    RoutedLLM(strong=strong, weak=weak, router=router).predict(QUESTION, query_str=easy)
    (_, messages, _) = weak.calls[0]
    assert messages[0].content == "you are small"


async def test_stream_decides_at_once(routed: RoutedLLM, router: FixedRouter, easy: str) -> None:
    chat = routed.stream_chat(user(easy))
    prompt = routed.stream_structured_predict(Pair, QUESTION, query_str=easy)
    assert router.prompts == [easy, easy]
    chat.close()
    prompt.close()


def test_closing_a_stream_closes_one_that_is_held_elsewhere(strong: DialectLLM) -> None:
    decision = RoutingDecision(route="strong", score=0.9, threshold=0.5, reason="score")
    taker = Delegation(
        llm=strong,
        decision=decision,
        attempt=Attempt("strong", "big", decision.as_dict()),
        fit=lambda messages: messages,
    )
    inner = (part for part in ("a", "b"))
    stream = taker.stream(lambda to: inner)
    assert next(stream) == "a"
    stream.close()
    assert list(inner) == []
    assert list(taker.stream(lambda to: iter(["not", "closable"]))) == ["not", "closable"]


def test_closing_a_stream_closes_the_inner_one(routed: RoutedLLM, strong: DialectLLM, hard: str) -> None:
    stream = routed.stream_chat(user(hard))
    next(stream)
    assert strong.open_streams == 1
    stream.close()
    assert strong.open_streams == 0


async def test_closing_an_async_stream_closes_the_inner_one(routed: RoutedLLM, strong: DialectLLM, hard: str) -> None:
    stream = await routed.astream_chat(user(hard))
    await anext(stream)
    assert strong.open_streams == 1
    await stream.aclose()
    # The framework's own wrapper in between is closed; what it wrapped is left to the event loop to finish.
    for _ in range(3):
        await asyncio.sleep(0)
    assert strong.open_streams == 0


async def test_provider_errors_pass_unchanged(
    strong: DialectLLM, weak: DialectLLM, router: FixedRouter, hard: str
) -> None:
    error = RuntimeError("429 from the provider")
    strong.error = error
    routed = RoutedLLM(strong=strong, weak=weak, router=router)
    with pytest.raises(RuntimeError) as raised:
        routed.chat(user(hard))
    assert raised.value is error
    with pytest.raises(RuntimeError) as raised:
        await routed.astream_chat(user(hard))
    assert raised.value is error
    assert weak.calls == []


async def test_a_failing_router_fails_open(strong: DialectLLM, weak: DialectLLM, easy: str) -> None:
    routed = RoutedLLM(strong=strong, weak=weak, router=FailingRouter(), on_router_error="weak")
    assert routed.complete(easy).additional_kwargs["routing"]["reason"] == "router_error"
    assert (await routed.achat(user(easy))).message.content == "small"
    assert routed.stats.snapshot()["by_reason"] == {"router_error": 2}


def test_callers_messages_are_not_changed(routed: RoutedLLM, easy: str) -> None:
    messages = user(easy)
    before = [message.model_copy(deep=True) for message in messages]
    routed.chat(messages)
    list(routed.stream_chat(tuple(messages)))
    assert messages == before


def test_a_cached_response_is_not_stamped_itself(
    strong: DialectLLM, weak: DialectLLM, router: FixedRouter, easy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cached = weak.complete(easy)
    monkeypatch.setattr(type(weak), "complete", lambda *_, **__: cached)
    routed = RoutedLLM(strong=strong, weak=weak, router=router)
    first, second = routed.complete(easy), routed.complete(easy)
    assert cached.additional_kwargs == {}
    assert "inner" not in second.additional_kwargs["routing"]
    assert first.additional_kwargs["routing"]["id"] != second.additional_kwargs["routing"]["id"]


def test_system_role_is_translated_for_a_side_that_wants_another(
    make_llm: type[DialectLLM], strong: DialectLLM, router: FixedRouter, easy: str
) -> None:
    weak = make_llm(name="small", role="user")
    routed = RoutedLLM(strong=strong, weak=weak, router=router)
    messages = user(easy)
    routed.chat(messages)
    assert [m.role.value for m in weak.calls[0][1]] == ["user", "user"]
    assert messages[0].role.value == "system"


def test_system_role_that_both_want_is_left_to_the_framework(
    make_llm: type[DialectLLM], router: FixedRouter, easy: str
) -> None:
    weak = make_llm(name="small", role="user")
    routed = RoutedLLM(strong=make_llm(name="big", role="user"), weak=weak, router=router)
    assert routed.metadata.system_role.value == "user"
    routed.chat(user(easy))
    assert [m.role.value for m in weak.calls[0][1]] == ["system", "user"]


def test_rate_limiter_is_waited_for(strong: DialectLLM, weak: DialectLLM, router: FixedRouter, easy: str) -> None:
    class Limiter:
        acquired = 0

        def acquire(self) -> None:
            self.acquired += 1

        async def async_acquire(self) -> None:
            self.acquired += 10

    limiter = Limiter()
    routed = RoutedLLM(strong=strong, weak=weak, router=router, rate_limiter=limiter)
    routed.complete(easy)
    routed.stream_chat(user(easy))
    assert limiter.acquired == 2


async def test_rate_limiter_is_awaited(strong: DialectLLM, weak: DialectLLM, router: FixedRouter, easy: str) -> None:
    class Limiter:
        acquired = 0

        async def async_acquire(self) -> None:
            self.acquired += 1

    limiter = Limiter()
    await RoutedLLM(strong=strong, weak=weak, router=router, rate_limiter=limiter).acomplete(easy)
    assert limiter.acquired == 1


def test_metadata_fits_both(make_llm: type[DialectLLM], plain: PlainLLM, router: FixedRouter) -> None:
    big = make_llm(name="big", context_window=128_000, num_output=16_000)
    small = make_llm(name="small", context_window=8192, num_output=512, role="user")
    merged = RoutedLLM(strong=big, weak=small, router=router).metadata
    assert merged == LLMMetadata(
        context_window=8192,
        num_output=512,
        is_chat_model=True,
        is_function_calling_model=True,
        model_name="routed(big|small)",
    )
    mixed = RoutedLLM(strong=big, weak=plain, router=router).metadata
    assert (mixed.is_chat_model, mixed.is_function_calling_model) == (True, False)


@pytest.mark.parametrize(
    ("sides", "expected"),
    [
        (((1000, -1), (500, -1)), (500, -1)),
        (((1000, 900), (500, 100)), (500, 400)),  # The strong one leaves a prompt 100 tokens, less than the weak one.
        (((1000, -1), (500, 100)), (500, 100)),
        (((600, 200), (500, -1)), (500, 256)),
    ],
)
def test_metadata_num_output(make_llm: type[DialectLLM], router: FixedRouter, sides: Any, expected: Any) -> None:
    pair = [make_llm(name="x", context_window=window, num_output=output) for window, output in sides]
    merged = RoutedLLM(strong=pair[0], weak=pair[1], router=router).metadata
    assert (merged.context_window, merged.num_output) == expected


def test_nested_routed_llms(make_llm: type[DialectLLM], routed: RoutedLLM, hard: str, easy: str) -> None:
    outer = RoutedLLM(strong=make_llm(name="giant"), weak=routed, router=FixedRouter(0.0))
    routing = outer.complete(hard).additional_kwargs["routing"]
    assert routing["route"] == "weak"
    assert routing["inner"]["route"] == "strong"
    assert outer.complete(easy).text == "small"
