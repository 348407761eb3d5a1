"""What the router is asked through the routed model, when it is not asked, and what a call may bring."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import pytest
from langchain.agents import create_agent
from langchain.chat_models import base as chat_models
from langchain.chat_models import init_chat_model
from langchain_core.load import dumpd, load
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.prompt_values import ChatPromptValue, StringPromptValue
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from pydantic import BaseModel

from langchain_router import RoutedChatModel
from prefroute import ConfigurationError, MissingExtraError, RouterError, RoutingDecision, ThresholdError
from prefroute.testing import FailingRouter, FixedRouter

if TYPE_CHECKING:
    from collections.abc import Callable

IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
REMINDER = "<system-reminder>Be brief.</system-reminder>"
APIS = ["invoke", "ainvoke", "stream", "astream", "batch", "abatch", "generate", "agenerate"]
every_api = pytest.mark.parametrize("api", APIS)


class Answer(BaseModel):
    """An answer."""

    value: int


@tool
def look_up(key: str) -> str:
    """Look a thing up."""
    return f"hard {key}"


@tool
def describe_at_length(key: str) -> str:
    """Filled in below."""
    return key


describe_at_length.description = "word " * 400


def summed(chunks: list[Any]) -> Any:
    total = chunks[0]
    for chunk in chunks[1:]:
        total += chunk
    return total


async def ask(model: Any, api: str, value: Any, config: Any = None, **kwargs: Any) -> Any:
    """One call of any kind, as a message."""
    if api in {"generate", "agenerate"}:
        messages = [[HumanMessage(value)] if isinstance(value, str) else value]
        if api == "generate":
            # The config of a graph's node is in the context alone, and `generate` takes none.
            result = RunnableLambda(lambda _: model.generate(messages, **kwargs)).invoke("", config)
        else:

            async def node(_: Any) -> Any:
                return await model.agenerate(messages, **kwargs)

            result = await RunnableLambda(node).ainvoke("", config)
        return result.generations[0][0].message
    if api == "stream":
        return summed(list(model.stream(value, config, **kwargs)))
    if api == "astream":
        return summed([chunk async for chunk in model.astream(value, config, **kwargs)])
    if api in {"batch", "abatch"}:
        # Twice, for one alone is a case of its own.
        values = [value, value]
        if api == "batch":
            return model.batch(values, config, **kwargs)[1]
        return (await model.abatch(values, config, **kwargs))[1]
    return model.invoke(value, config, **kwargs) if api == "invoke" else await model.ainvoke(value, config, **kwargs)


def routing_of(message: Any) -> dict[str, Any]:
    return message.response_metadata["routing"]


def why(message: Any) -> tuple[Any, ...]:
    routing = routing_of(message)
    return routing["route"], routing["reason"], routing.get("detail")


def say(message: Any) -> str:
    return message.text.split()[0]


def call_of(name: str = "look_up", key: str = "a", ident: str = "1") -> AIMessage:
    return AIMessage("", tool_calls=[{"name": name, "args": {"key": key}, "id": ident}])


@pytest.fixture
def scripted(fake: Any) -> Callable[..., Any]:
    """Makes models that give one answer after the other, and repeat the last."""

    class Scripted(fake):
        answers: list[Any]

        def _result(self) -> Any:
            self.answer = self.answers[min(len(self.seen), len(self.answers)) - 1]
            return super()._result()

    return lambda name, *answers: Scripted(model_name=name, answers=list(answers) or [AIMessage(name)])


# --- what is asked ---


@every_api
@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([SystemMessage("s"), HumanMessage("a"), AIMessage("b"), HumanMessage("c")], "c"),
        ([HumanMessage([{"type": "text", "text": "c"}, IMAGE])], "c"),
        ([HumanMessage([IMAGE, "c", {"type": "text", "text": " d"}])], "c d"),
        ([HumanMessage("a"), HumanMessage([IMAGE])], ""),
        ([HumanMessage(f"{REMINDER}c")], "c"),
        ([HumanMessage("c"), AIMessage("b"), HumanMessage([{"type": "text", "text": REMINDER}])], "c"),
        ([HumanMessage("c"), call_of(), ToolMessage("t", tool_call_id="1")], "c"),
    ],
)
async def test_the_last_human_message_is_asked(setup: Any, api: str, value: Any, text: str) -> None:
    pair = setup(router=FixedRouter(0.9))
    await ask(pair.model, api, value)
    assert set(pair.router.prompts) == {text}
    assert pair.strong.seen[0].messages == value


@pytest.mark.parametrize("api", [api for api in APIS if "generate" not in api])
@pytest.mark.parametrize(
    "value",
    [
        "c",
        [("system", "s"), ("human", "a"), ("ai", "b"), ("human", "c"), ("ai", "d")],
        [{"role": "user", "content": "a"}, {"role": "user", "content": [{"type": "text", "text": "c"}, IMAGE]}],
        [("human", "a"), HumanMessage("c"), {"role": "assistant", "content": "d"}],
        (HumanMessage("a"), HumanMessage("c")),
        StringPromptValue(text="c"),
        ChatPromptValue(messages=[HumanMessage("a"), HumanMessage([{"type": "text", "text": "c"}, IMAGE])]),
    ],
)
async def test_messages_may_have_any_form(setup: Any, api: str, value: Any) -> None:
    pair = setup(router=FixedRouter(0.9))
    await ask(pair.model, api, value)
    assert set(pair.router.prompts) == {"c"}


@pytest.mark.parametrize(
    ("decide", "text"),
    [("per_turn", "q"), ("per_step", "q\n\nnew"), ("per_conversation", "q")],
)
@every_api
async def test_a_step_is_asked_with_its_newest_tool_result(setup: Any, api: str, decide: str, text: str) -> None:
    pair = setup(router=FixedRouter(0.9), decide=decide)
    results = [ToolMessage(content, tool_call_id="1") for content in ("old", "new")]
    await ask(pair.model, api, [HumanMessage("q"), call_of(), results[0], call_of(), results[1]])
    assert set(pair.router.prompts) == {text}


def test_a_prompt_of_a_chain_is_asked(setup: Any) -> None:
    pair = setup(router=FixedRouter(0.9))
    prompt = ChatPromptTemplate.from_messages([("system", "s"), ("human", "{q}"), ("ai", "so far")])
    (prompt | pair.model.with_structured_output(Answer, include_raw=True)).invoke({"q": "c"})
    assert pair.router.prompts == ["c"]


# --- agents ---


def run_agent(model: Any, question: str = "easy") -> list[Any]:
    return create_agent(model=model, tools=[look_up]).invoke({"messages": [("human", question)]})["messages"]


def answers_of(messages: list[Any]) -> list[Any]:
    return [message for message in messages if isinstance(message, AIMessage)]


def test_one_agent_run_per_step_uses_both_models(setup: Any, scripted: Any) -> None:
    router = FixedRouter(0.5, {"easy": 0.1, "easy\n\nhard a": 0.9, "easy\n\nhard b": 0.2})
    weak = scripted("weak", call_of(), AIMessage("weak ends"))
    strong = scripted("strong", call_of(key="b", ident="2"))
    pair = setup(router=router, strong=strong, weak=weak, decide="per_step")
    messages = run_agent(pair.model)
    assert [why(message)[:2] for message in answers_of(messages)] == [
        ("weak", "score"),
        ("strong", "score"),
        ("weak", "score"),
    ]
    assert messages[-1].text == "weak ends"
    assert router.prompts == ["easy", "easy\n\nhard a", "easy\n\nhard b"]
    assert [len(seen.messages) for seen in strong.seen] == [3]
    tools = [one["for"] for seen in weak.seen + strong.seen for one in seen.kwargs["tools"]]
    assert tools == ["weak", "weak", "strong"]


@pytest.mark.parametrize("decide", ["per_turn", "per_conversation"])
def test_one_agent_run_per_turn_stays_with_one_model(setup: Any, scripted: Any, decide: str) -> None:
    router = FixedRouter(0.9, {"easy": 0.1})
    weak = scripted("weak", call_of(), call_of(key="b", ident="2"), AIMessage("weak ends"))
    pair = setup(router=router, weak=weak, decide=decide)
    messages = run_agent(pair.model)
    assert {why(message)[0] for message in answers_of(messages)} == {"weak"}
    assert len(weak.seen) == 3
    assert pair.strong.seen == []
    assert router.prompts == (["easy"] * 3 if decide == "per_turn" else ["easy"])


def test_a_tool_loop_may_be_locked_to_its_model(setup: Any, scripted: Any) -> None:
    router = FixedRouter(0.9, {"easy": 0.1})
    weak = scripted("weak", call_of(), AIMessage("weak ends"))
    pair = setup(router=router, weak=weak, decide="per_step", lock_tool_loop=True)
    messages = run_agent(pair.model)
    assert [why(message) for message in answers_of(messages)] == [("weak", "score", None), ("weak", "tool_loop", None)]
    assert pair.model.stats.snapshot()["by_reason"] == {"score": 1, "tool_loop": 1}


THINKING = {"type": "enabled", "budget_tokens": 1024}


@pytest.mark.parametrize(
    ("strong", "weak", "locked"),
    [
        ({"thinking": THINKING}, {}, True),
        ({}, {"thinking": THINKING}, True),
        ({"thinking": THINKING}, {"thinking": {"type": "disabled"}}, True),
        ({"thinking": THINKING}, {"thinking": {"type": "adaptive"}}, False),
        ({"thinking": {"type": "disabled"}}, {}, False),
        ({}, {}, False),
    ],
)
def test_where_one_model_alone_thinks_it_answers_the_results_of_its_tools(
    setup: Any, fake: Any, strong: Any, weak: Any, locked: bool
) -> None:
    children = {"strong": fake(model_name="strong").bind(**strong), "weak": fake(model_name="weak").bind(**weak)}
    model = setup(router=FixedRouter(0.9, {"easy": 0.1}), **children, decide="per_step").model
    first = model.invoke("easy")
    first.tool_calls = call_of().tool_calls
    messages = [HumanMessage("easy"), first, ToolMessage("hard", tool_call_id="1")]
    expected = ("weak", "tool_loop", None) if locked else ("strong", "score", None)
    assert why(model.invoke(messages)) == why(model.bind_tools([look_up]).invoke(messages)) == expected
    assert why(model.invoke([*messages, HumanMessage("hard")])) == ("strong", "score", None)


def test_an_agent_that_repeats_itself_goes_to_the_strong_model(setup: Any, scripted: Any) -> None:
    again = [call_of(ident=str(number)) for number in range(3)]
    weak = scripted("weak", *again)
    pair = setup(weak=weak, strong=scripted("strong", AIMessage("strong ends")), escalate_after=3)
    messages = run_agent(pair.model)
    assert messages[-1].text == "strong ends"
    assert why(messages[-1]) == ("strong", "escalation", "repeated tool call")
    assert len(weak.seen) == 3


def test_calls_with_the_same_arguments_in_another_order_are_the_same(setup: Any) -> None:
    calls = [{"b": 1, "a": {"d": 2, "c": 3}}, {"a": {"c": 3, "d": 2}, "b": 1}]
    messages: list[Any] = [HumanMessage("easy")]
    for args in calls:
        messages += [AIMessage("", tool_calls=[{"name": "f", "args": args, "id": "1"}])]
        messages += [ToolMessage("", tool_call_id="1")]
    pair = setup(escalate_after=2)
    assert why(pair.model.invoke(messages))[1] == "escalation"
    messages[-2].tool_calls[0]["args"] = {"b": 1, "a": {"d": 2, "c": 4}}
    assert why(pair.model.invoke(messages))[1] == "score"
    messages[-2].tool_calls[0] |= {"name": "g", "args": calls[0]}
    assert why(pair.model.invoke(messages))[1] == "score"


def test_tools_that_failed_escalate(setup: Any) -> None:
    failed = [ToolMessage("no", tool_call_id="1", status="error") for _ in range(2)]
    pair = setup(escalate_after=2)
    assert why(pair.model.invoke([HumanMessage("easy"), call_of(), failed[0], call_of(key="b"), failed[1]])) == (
        "strong",
        "escalation",
        "failed tools",
    )
    assert why(pair.model.invoke([HumanMessage("easy"), call_of(), failed[0]]))[1] == "score"


# --- conversations ---


@every_api
async def test_a_conversation_stays_with_its_model(setup: Any, api: str) -> None:
    pair = setup(decide="per_conversation")
    messages: list[Any] = [HumanMessage("easy")]
    reasons = []
    for text in ("hard", "hard", "easy"):
        answer = await ask(pair.model, api, messages)
        assert say(answer) == "weak"
        reasons.append(routing_of(answer)["reason"])
        messages += [answer, HumanMessage(text)]
    assert reasons == ["score", "conversation", "conversation"]
    assert set(pair.router.prompts) == {"easy"}
    assert say(await ask(pair.model, api, [HumanMessage("hard")])) == "strong"


def test_a_side_forced_for_one_call_is_not_kept(setup: Any) -> None:
    pair = setup(decide="per_conversation")
    messages: list[Any] = [HumanMessage("easy")]
    messages += [pair.model.invoke(messages), HumanMessage("on")]
    forced = pair.model.invoke(messages, route="strong")
    assert say(forced) == "strong"
    assert why(pair.model.invoke([*messages, forced, HumanMessage("hard")])) == ("weak", "conversation", None)
    assert why(pair.model.invoke([HumanMessage("a"), forced, HumanMessage("easy")])) == ("weak", "score", None)


def test_a_side_chosen_because_the_router_failed_is_not_kept(setup: Any) -> None:
    failed = setup(router=FailingRouter()).model.invoke("easy")
    pair = setup(decide="per_conversation")
    assert why(pair.model.invoke([HumanMessage("a"), failed, HumanMessage("easy")])) == ("weak", "score", None)


def test_a_conversation_kept_by_a_checkpointer_stays_with_its_model(setup: Any) -> None:
    pair = setup(decide="per_conversation")
    agent = create_agent(model=pair.model, tools=[], checkpointer=InMemorySaver())
    for thread, texts in (("1", ["easy", "hard", "hard"]), ("2", ["hard", "easy", "easy"])):
        for text in texts:
            found = agent.invoke({"messages": [("human", text)]}, {"configurable": {"thread_id": thread}})
        side = "weak" if thread == "1" else "strong"
        answers = answers_of(found["messages"])
        assert [why(message)[:2] for message in answers] == [(side, "score"), *[(side, "conversation")] * 2]
    assert pair.router.prompts == ["easy", "hard"]


@pytest.mark.filterwarnings("ignore:The function `load` is in beta")
def test_a_conversation_that_was_stored_stays_with_its_model(setup: Any) -> None:
    pair = setup(decide="per_conversation")
    messages = [HumanMessage("easy"), pair.model.invoke("easy"), HumanMessage("hard")]
    stored = load(dumpd(messages), allowed_objects="messages")
    assert stored == messages
    assert why(pair.model.invoke(stored)) == ("weak", "conversation", None)


def test_a_streamed_answer_is_understood_in_a_conversation(setup: Any) -> None:
    pair = setup(decide="per_conversation")
    chunk = summed(list(pair.model.stream("easy")))
    assert why(pair.model.invoke([HumanMessage("easy"), chunk, HumanMessage("hard")])) == ("weak", "conversation", None)


@pytest.mark.parametrize(
    "routing", ["weak", ["weak"], 3, {"route": ["weak"], "reason": "score"}, {"route": "weak", "reason": {}}], ids=str
)
def test_a_record_of_somebody_elses_disturbs_nobody(setup: Any, routing: Any) -> None:
    pair = setup(decide="per_conversation", lock_tool_loop=True)
    answer = AIMessage("a", response_metadata={"routing": routing})
    messages = [HumanMessage("a"), answer, HumanMessage("hard")]
    assert why(pair.model.invoke(messages)) == ("strong", "score", None)


def test_metadata_of_the_callers_own_disturbs_nobody(setup: Any) -> None:
    pair = setup(decide="per_conversation")
    messages = [HumanMessage("easy"), pair.model.invoke("easy"), HumanMessage("hard")]
    for routing in ("mine", {"team": "a"}, {"route": "A1"}):
        answer = pair.model.invoke(messages, {"metadata": {"routing": routing}})
        assert why(answer) == ("weak", "conversation", None)


@pytest.fixture
def nested(setup: Any, fake: Any) -> Any:
    """A routed model whose weak side is one too: "hard" goes to "strong", "hit" to "mid", the rest to "weak"."""

    def make(*, mid: Any = None, weak: Any = None, strong: Any = None, **settings: Any) -> Any:
        scores = {"hit": 0.9, "low": 0.1}
        inner = setup(router=FixedRouter(0.1, scores), strong=mid or fake(model_name="mid"), weak=weak, **settings)
        outer = setup(router=FixedRouter(0.1, {"hard": 0.9}), strong=strong, weak=inner.model, **settings)
        return outer, inner

    return make


@every_api
async def test_nested_models_each_keep_their_own_side(nested: Any, api: str) -> None:
    outer, inner = nested(decide="per_conversation")
    messages: list[Any] = [HumanMessage("hit")]
    for text in ("hard", "low", "end"):
        answer = await ask(outer.model, api, messages)
        assert say(answer) == "mid"
        assert routing_of(answer)["route"] == "weak"
        assert routing_of(answer)["inner"]["route"] == "strong"
        messages += [answer, HumanMessage(text)]
    assert set(outer.router.prompts) == set(inner.router.prompts) == {"hit"}


def test_an_inner_model_keeps_its_side_over_answers_of_the_outer_ones(nested: Any) -> None:
    outer, _ = nested(decide="per_conversation")
    messages: list[Any] = [HumanMessage("hit")]
    messages += [outer.model.invoke(messages), HumanMessage("hard")]
    messages += [outer.model.invoke(messages, route="strong"), HumanMessage("low")]
    assert messages[3].text == "strong"
    answer = outer.model.invoke(messages)
    assert answer.text == "mid"
    assert routing_of(answer)["inner"]["reason"] == "conversation"


def test_nested_three_deep(setup: Any, nested: Any) -> None:
    outer, _ = nested(decide="per_conversation")
    top = setup(router=FixedRouter(0.1, {"top": 0.9}), weak=outer.model, decide="per_conversation").model
    messages: list[Any] = [HumanMessage("hit")]
    messages += [top.invoke(messages), HumanMessage("top")]
    answer = top.invoke(messages)
    assert answer.text == "mid"
    assert routing_of(answer)["inner"]["inner"]["reason"] == "conversation"
    # Alone, the middle one does not take the top one's decisions for its own.
    assert routing_of(outer.model.invoke([HumanMessage("hit"), answer, HumanMessage("hard")]))["route"] == "weak"


def provider_chat(fake: Any, name: str, provider: str) -> Any:
    class ProviderChat(fake):
        def _get_ls_params(self, stop: Any = None, **kwargs: Any) -> Any:
            return {**super()._get_ls_params(stop, **kwargs), "ls_provider": provider}

        def _result(self) -> Any:
            result = super()._result()
            result.generations[0].message.response_metadata["model_provider"] = provider
            return result

    return ProviderChat(model_name=name)


def test_nested_models_of_several_providers_each_keep_their_own_side(nested: Any, fake: Any) -> None:
    outer, inner = nested(
        strong=provider_chat(fake, "strong", "openai"),
        mid=provider_chat(fake, "mid", "openai"),
        weak=provider_chat(fake, "weak", "anthropic"),
        decide="per_conversation",
    )
    messages: list[Any] = [HumanMessage("hit")]
    messages += [outer.model.invoke(messages), HumanMessage("low")]
    answer = outer.model.invoke(messages)
    assert answer.text == "mid"
    assert routing_of(answer)["inner"]["reason"] == "conversation"
    assert inner.router.prompts == ["hit"]


# --- a text of the caller's own ---


@every_api
async def test_a_text_function_finds_what_is_asked(setup: Any, api: str) -> None:
    given: list[Any] = []

    def first_words(messages: Any) -> str:
        given.append(list(messages))
        return messages[0].text

    pair = setup(text_fn=first_words)
    messages = [HumanMessage("hard"), AIMessage("a"), HumanMessage("easy")]
    assert say(await ask(pair.model, api, messages)) == "strong"
    assert given[0] == messages
    assert set(pair.router.prompts) == {"hard"}


def test_a_text_function_gets_messages_whatever_the_form(setup: Any) -> None:
    pair = setup(text_fn=lambda messages: " ".join(f"{message.type}:{message.text}" for message in messages))
    for value in ("x", [("human", "x")], StringPromptValue(text="x"), [{"role": "user", "content": "x"}]):
        pair.model.invoke(value)
    assert pair.router.prompts == ["human:x"] * 4


def test_a_text_function_is_not_asked_where_the_side_is_settled(setup: Any) -> None:
    pair = setup(text_fn=lambda _: pytest.fail("asked"), decide="per_conversation", escalate_after=1)
    answer = AIMessage("a", response_metadata={"routing": {"route": "weak", "reason": "score"}})
    assert say(pair.model.invoke([HumanMessage("hard"), answer, HumanMessage("hard")])) == "weak"
    assert say(pair.model.invoke("easy", route="strong")) == "strong"
    assert say(pair.model.invoke([HumanMessage("easy"), call_of()])) == "strong"


def raises(_: Any) -> str:
    raise ValueError("secret")


@every_api
@pytest.mark.parametrize("function", [raises, lambda _: None, lambda _: 3, lambda _: b"hard"])
async def test_where_a_text_function_fails_the_router_has_failed(
    setup: Any, api: str, function: Any, caplog: pytest.LogCaptureFixture
) -> None:
    pair = setup(text_fn=function)
    assert why(await ask(pair.model, api, "easy")) == ("strong", "router_error", None)
    assert "secret" not in caplog.text
    assert say(await ask(setup(text_fn=function, on_router_error="weak").model, api, "hard")) == "weak"
    pair = setup(text_fn=function, on_router_error="raise")
    with pytest.raises(RouterError):
        await ask(pair.model, api, "easy")
    assert pair.router.prompts == []
    assert pair.strong.seen == pair.weak.seen == []


def test_a_text_function_that_fails_for_one_of_a_batch_fails_for_that_one(setup: Any) -> None:
    pair = setup(text_fn=lambda messages: {"hard": "hard", "easy": "easy"}[messages[0].text], on_router_error="raise")
    outcomes = pair.model.batch(["hard", "odd", "easy"], return_exceptions=True)
    assert [getattr(outcome, "content", type(outcome)) for outcome in outcomes] == ["strong", RouterError, "weak"]


class Waits:
    async def __call__(self, messages: Any) -> str:
        return ""


async def later(messages: Any) -> str:
    return ""


@pytest.mark.parametrize("function", ["hard", 3, later, Waits()])
def test_a_text_function_must_be_a_plain_function(setup: Any, function: Any) -> None:
    with pytest.raises(ConfigurationError, match="text_fn must be a plain function of the messages"):
        setup(text_fn=function)


@pytest.mark.parametrize(
    "settings",
    [
        {"decide": "sometimes"},
        {"lock_tool_loop": "yes"},
        {"escalate_after": 0},
        {"fallback_to_other": 1},
        {"shadow": "both"},
        {"on_route": "print"},
        {"on_route": later},
    ],
)
def test_settings_that_cannot_be_meant_are_refused(setup: Any, settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(settings))):
        setup(**settings)


# --- what the models can take ---


def of(fake: Any, strong: Any = None, weak: Any = None) -> dict[str, Any]:
    return {"strong": fake(model_name="strong", profile=strong), "weak": fake(model_name="weak", profile=weak)}


LONG = [HumanMessage("word " * 300), AIMessage("yes"), HumanMessage("easy")]
WITH_IMAGE = [HumanMessage([{"type": "text", "text": "easy"}, IMAGE])]


@every_api
@pytest.mark.parametrize(
    ("profile", "value", "detail"),
    [
        ({"max_input_tokens": 200}, LONG, "window"),
        ({"image_inputs": False}, WITH_IMAGE, "image_inputs"),
        ({"image_inputs": False}, [*WITH_IMAGE, AIMessage("nice"), HumanMessage("easy")], "image_inputs"),
    ],
)
async def test_what_one_model_cannot_take_goes_to_the_other(
    setup: Any, fake: Any, api: str, profile: Any, value: Any, detail: str
) -> None:
    pair = setup(**of(fake, weak=profile))
    answer = await ask(pair.model, api, value)
    assert say(answer) == "strong"
    assert why(answer) == ("strong", "capability", detail)
    assert routing_of(answer)["score"] is None
    assert pair.router.prompts == []
    assert say(await ask(pair.model, api, "easy")) == "weak"
    assert say(await ask(setup(**of(fake, strong=profile)).model, api, value)) == "weak"


@pytest.mark.parametrize(
    ("feature", "block"),
    [
        ("image_inputs", IMAGE),
        ("image_inputs", {"type": "image", "source_type": "url", "url": "https://x/y.png"}),
        ("image_inputs", {"type": "image", "url": "https://x/y.png"}),
        ("image_inputs", {"type": "input_image", "image_url": "https://x/y.png"}),
        ("pdf_inputs", {"type": "file", "base64": "AAAA", "mime_type": "application/pdf"}),
        ("pdf_inputs", {"type": "file", "file": {"file_data": "AAAA", "filename": "a.pdf"}}),
        ("pdf_inputs", {"type": "document", "source": {"type": "base64", "data": "AAAA"}}),
        ("audio_inputs", {"type": "audio", "base64": "AAAA", "mime_type": "audio/wav"}),
        ("audio_inputs", {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}}),
        ("video_inputs", {"type": "video", "base64": "AAAA", "mime_type": "video/mp4"}),
    ],
)
def test_kinds_of_content_are_told_apart(setup: Any, fake: Any, feature: str, block: Any) -> None:
    others = {"image_inputs", "pdf_inputs", "audio_inputs", "video_inputs"} - {feature}
    value = [HumanMessage([{"type": "text", "text": "easy"}, block])]
    answer = setup(**of(fake, weak={feature: False})).model.invoke(value)
    assert why(answer) == ("strong", "capability", feature)
    assert why(setup(**of(fake, weak=dict.fromkeys(others, False))).model.invoke(value)) == ("weak", "score", None)
    in_tool = [HumanMessage("easy"), call_of(), ToolMessage([block], tool_call_id="1")]
    assert why(setup(**of(fake, weak={feature: False})).model.invoke(in_tool)) == ("strong", "capability", feature)


def test_a_file_of_text_needs_nothing(setup: Any, fake: Any) -> None:
    value = [HumanMessage(["easy", {"type": "file", "base64": "AAAA", "mime_type": "text/plain"}])]
    assert why(setup(**of(fake, weak={"pdf_inputs": False})).model.invoke(value)) == ("weak", "score", None)


@pytest.mark.parametrize(
    ("strong", "weak"),
    [
        (None, None),
        ({}, {}),
        (None, {"image_inputs": True, "max_input_tokens": 100_000}),
        ({"image_inputs": False, "max_input_tokens": 10}, {"image_inputs": False, "max_input_tokens": 10}),
        ({"max_input_tokens": 10}, {"image_inputs": False}),
        ({"image_outputs": False}, {"tool_calling": False, "max_output_tokens": 1}),
    ],
)
def test_a_profile_that_does_not_say_rules_nothing_out(setup: Any, fake: Any, strong: Any, weak: Any) -> None:
    pair = setup(**of(fake, strong, weak))
    value = [HumanMessage("word " * 300), *WITH_IMAGE]
    assert why(pair.model.invoke(value)) == ("weak", "score", None)


def test_all_that_is_sent_counts_for_the_window(setup: Any, fake: Any) -> None:
    long, args = "word " * 300, {"key": "word " * 300}
    pair = setup(**of(fake, weak={"max_input_tokens": 200}))
    for value in (
        "easy " + long,
        [SystemMessage(long), HumanMessage("easy")],
        [HumanMessage("easy"), AIMessage("", tool_calls=[{"name": "f", "args": args, "id": "1"}])],
        [HumanMessage("easy"), call_of(), ToolMessage(long, tool_call_id="1")],
        [HumanMessage("easy"), call_of(), ToolMessage([{"type": "text", "text": long}], tool_call_id="1")],
        [HumanMessage([{"type": "text", "text": "easy"}, IMAGE])],
    ):
        assert why(pair.model.invoke(value))[1:] == ("capability", "window")
    assert why(pair.model.invoke("easy"))[1] == "score"


def test_tools_count_for_the_window(setup: Any, fake: Any) -> None:
    pair = setup(**of(fake, strong={"max_input_tokens": 100_000}, weak={"max_input_tokens": 200}))
    assert why(pair.model.bind_tools([describe_at_length]).invoke("easy")) == ("strong", "capability", "window")
    assert why(pair.model.bind_tools([look_up]).invoke("easy")) == ("weak", "score", None)


@pytest.mark.parametrize("side", ["strong", "weak"])
@every_api
async def test_tools_go_to_the_model_that_takes_them(setup: Any, fake: Any, api: str, side: str) -> None:
    other = "weak" if side == "strong" else "strong"
    pair = setup(**of(fake, **{other: {"tool_calling": False}, side: {"tool_calling": True}}))
    text = "easy" if side == "strong" else "hard"
    if "generate" not in api:
        bound = pair.model.bind_tools([look_up])
        assert why(await ask(bound, api, text)) == (side, "capability", "tool_calling")
    assert why(await ask(pair.model, api, text, tools=[{"type": "function"}])) == (side, "capability", "tool_calling")
    assert why(await ask(pair.model, api, text)) == (other, "score", None)
    assert why(await ask(pair.model, api, text, tools=[])) == (other, "score", None)


WRAPPERS = {
    "alone": lambda model: model,
    "binding": lambda model: model.bind(temperature=0.5),
    "config": lambda model: model.with_config(tags=["t"]),
    "retry": lambda model: model.with_retry(),
    "fallbacks": lambda model: model.with_fallbacks([model]),
}


def answering(fake: Any, name: str, value: int, profile: Any = None) -> Any:
    call = {"name": "Answer", "args": {"value": value}, "id": "1"}
    return fake(model_name=name, answer=AIMessage("", tool_calls=[call]), profile=profile)


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_a_profile_is_seen_through_wrappers(setup: Any, fake: Any, wrap: Any) -> None:
    weak = fake(model_name="weak", profile={"image_inputs": False, "tool_calling": False})
    pair = setup(weak=wrap(weak))
    assert why(pair.model.invoke(WITH_IMAGE)) == ("strong", "capability", "image_inputs")
    assert why(pair.model.bind_tools([look_up]).invoke("easy")) == ("strong", "capability", "tool_calling")


@pytest.mark.parametrize("include_raw", [False, True])
@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_structured_output_goes_to_the_model_that_can_take_the_call(
    setup: Any, fake: Any, wrap: Any, include_raw: bool
) -> None:
    decisions: list[RoutingDecision] = []
    for profile, value, detail in (
        ({"image_inputs": False}, WITH_IMAGE, "image_inputs"),
        ({"max_input_tokens": 200}, LONG, "window"),
        ({"tool_calling": False}, "easy", "tool_calling"),
    ):
        children = {"strong": wrap(answering(fake, "s", 1)), "weak": wrap(answering(fake, "w", 2, profile))}
        model = setup(**children, on_route=decisions.append).model
        found = model.with_structured_output(Answer, include_raw=include_raw).invoke(value)
        assert (decisions[-1].route, decisions[-1].reason, decisions[-1].detail) == ("strong", "capability", detail)
        assert (found["parsed"] if include_raw else found) == Answer(value=1)


@pytest.fixture
def toolless(fake: Any) -> Callable[..., Any]:
    class Toolless(fake):
        def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
            raise NotImplementedError

    return Toolless


def test_tools_are_bound_where_they_can_be_if_the_profile_says_where(setup: Any, toolless: Any) -> None:
    no_tools = {"tool_calling": False}
    pair = setup(weak=toolless(model_name="weak", profile=no_tools))
    bound = pair.model.bind_tools([look_up])
    assert why(bound.invoke("easy")) == ("strong", "capability", "tool_calling")
    assert len(pair.strong.seen[0].kwargs["tools"]) == 1
    assert say(pair.model.invoke("easy")) == "weak"
    strong = setup(strong=toolless(model_name="strong", profile=no_tools))
    assert why(strong.model.bind_tools([look_up]).invoke("hard")) == ("weak", "capability", "tool_calling")


@pytest.mark.parametrize("profile", [None, {}, {"tool_calling": True}, {"image_inputs": False}])
def test_tools_that_cannot_be_bound_are_told_if_the_profile_does_not_say(
    setup: Any, toolless: Any, profile: Any
) -> None:
    for side in ("strong", "weak"):
        with pytest.raises(NotImplementedError):
            setup(**{side: toolless(model_name=side, profile=profile)}).model.bind_tools([look_up])


@pytest.mark.parametrize("side", ["strong", "weak"])
def test_a_side_that_has_no_tools_cannot_be_made_to_answer_in_their_place(setup: Any, toolless: Any, side: str) -> None:
    children = {side: toolless(model_name=side, profile={"tool_calling": False})}
    model = setup(**children).model
    with pytest.raises(ConfigurationError, match=f"the {side} model cannot take the tools"):
        model.bind_tools([look_up]).invoke("easy", route=side)
    assert say(model.invoke("easy", route=side)) == side
    with pytest.raises(ConfigurationError, match=f"the {side} model cannot take the tools"):
        setup(**children, shadow=side).model.bind_tools([look_up]).invoke("easy")


def test_tools_that_no_model_takes_are_told(setup: Any, toolless: Any) -> None:
    strong, weak = (toolless(model_name=name, profile={"tool_calling": False}) for name in ("strong", "weak"))
    with pytest.raises(NotImplementedError):
        setup(strong=strong, weak=weak).model.bind_tools([look_up])


def test_a_forced_side_gets_even_what_it_cannot_take(setup: Any, fake: Any) -> None:
    pair = setup(**of(fake, weak={"image_inputs": False, "max_input_tokens": 1}))
    assert why(pair.model.invoke(WITH_IMAGE, route="weak")) == ("weak", "forced", None)
    assert say(pair.model.invoke(WITH_IMAGE, {"configurable": {"router_route": "weak"}})) == "weak"


def test_what_a_model_can_take_comes_before_where_the_conversation_is(setup: Any, fake: Any) -> None:
    pair = setup(**of(fake, weak={"image_inputs": False}), decide="per_conversation", lock_tool_loop=True)
    answer = pair.model.invoke("easy")
    assert why(pair.model.invoke([HumanMessage("easy"), answer, *WITH_IMAGE]))[:2] == ("strong", "capability")
    assert why(pair.model.invoke([HumanMessage("easy"), answer, HumanMessage("hard")]))[:2] == ("weak", "conversation")


def test_each_of_a_batch_is_looked_at(setup: Any, fake: Any) -> None:
    pair = setup(**of(fake, weak={"image_inputs": False}))
    answers = pair.model.batch(["easy", WITH_IMAGE, "easy", "hard"])
    assert [why(answer)[:2] for answer in answers] == [
        ("weak", "score"),
        ("strong", "capability"),
        ("weak", "score"),
        ("strong", "score"),
    ]
    assert pair.router.prompts == ["easy", "easy", "hard"]


# --- what a call brings ---


@pytest.fixture
def calibrated(setup: Any) -> Any:
    """Prompts "p0" to "p99" score 0.00 to 0.99; by default half of them go strong."""
    router = FixedRouter(0.5, {f"p{number}": number / 100 for number in range(100)})
    router.calibrate(list(router.scores), 0.5)
    return lambda **settings: setup(router=router, **settings)


OPTIONS: dict[str, dict[str, Any]] = {
    "route": {"route": "strong"},
    "threshold": {"threshold": 0.1},
    "strong_rate": {"strong_rate": 0.9},
}
"""Each sends "p30", which goes weak by default, to the strong side."""


@every_api
@pytest.mark.parametrize("name", OPTIONS)
async def test_a_call_may_bring_its_own_settings(calibrated: Any, api: str, name: str) -> None:
    pair = calibrated()
    kwargs = OPTIONS[name]
    config = {"configurable": {f"router_{key}": value for key, value in kwargs.items()}}
    assert say(await ask(pair.model, api, "p30")) == "weak"
    by_keyword = await ask(pair.model, api, "p30", **kwargs)
    by_config = await ask(pair.model, api, "p30", config)
    assert say(by_keyword) == say(by_config) == "strong"
    expected = "forced" if name == "route" else "score"
    assert routing_of(by_keyword)["reason"] == routing_of(by_config)["reason"] == expected
    assert routing_of(by_keyword)["threshold"] == routing_of(by_config)["threshold"]
    assert say(await ask(pair.model, api, "p30")) == "weak", "for that call alone"
    assert [call.kwargs for call in pair.strong.seen + pair.weak.seen] == [{}] * (
        len(pair.strong.seen) + len(pair.weak.seen)
    )


BOUND: dict[str, Callable[..., Any]] = {
    "bind": lambda model, **kwargs: model.bind(**kwargs),
    "bind, then tools": lambda model, **kwargs: model.bind(**kwargs).bind_tools([look_up]),
    "tools, then bind": lambda model, **kwargs: model.bind_tools([look_up]).bind(**kwargs),
    "tools with it": lambda model, **kwargs: model.bind_tools([look_up], **kwargs),
    "config": lambda model, **kwargs: model.with_config(configurable={f"router_{k}": v for k, v in kwargs.items()}),
    "schema with it": lambda model, **kwargs: model.with_structured_output(Answer, include_raw=True, **kwargs),
    "bind, then schema": lambda model, **kwargs: model.bind(**kwargs).with_structured_output(Answer, include_raw=True),
    "schema, then bind": lambda model, **kwargs: model.with_structured_output(Answer, include_raw=True).bind(**kwargs),
}


@pytest.mark.parametrize("bind", BOUND.values(), ids=BOUND)
@pytest.mark.parametrize("name", OPTIONS)
async def test_settings_may_be_bound(calibrated: Any, bind: Any, name: str) -> None:
    pair = calibrated()
    bound = bind(pair.model, **OPTIONS[name])
    for found in (
        bound.invoke("p30"),
        await bound.ainvoke("p30"),
        *bound.batch(["p30", "p30"]),
        *await bound.abatch(["p30", "p30"]),
    ):
        assert routing_of(found["raw"] if isinstance(found, dict) else found)["route"] == "strong"
    assert {name for call in pair.strong.seen for name in call.kwargs} <= {
        "tools",
        "tool_choice",
        "ls_structured_output_format",
    }


@pytest.mark.parametrize("api", ["batch", "abatch"])
async def test_each_of_a_batch_may_bring_its_own(calibrated: Any, api: str) -> None:
    pair = calibrated()
    brought = [{}, {"router_route": "strong"}, {"router_threshold": 0.1}, {"router_strong_rate": 0.9}, {}]
    configs = [{"configurable": one} for one in brought]
    model = pair.model
    answers = model.batch(["p30"] * 5, configs) if api == "batch" else await model.abatch(["p30"] * 5, configs)
    assert [say(answer) for answer in answers] == ["weak", "strong", "strong", "strong", "weak"]
    assert [routing_of(answer)["reason"] for answer in answers] == ["score", "forced", "score", "score", "score"]


@pytest.mark.parametrize(
    ("field", "configured", "keyword", "threshold", "route"),
    [
        ({}, {}, {}, None, "weak"),
        ({"threshold": 0.2}, {}, {}, 0.2, "strong"),
        ({"strong_rate": 0.9}, {}, {}, None, "strong"),
        ({"threshold": 0.2}, {"threshold": 0.4}, {}, 0.4, "weak"),
        ({"threshold": 0.2}, {"strong_rate": 0.1}, {}, None, "weak"),
        ({"threshold": 0.9}, {"threshold": 0.8}, {"threshold": 0.3}, 0.3, "strong"),
        ({"threshold": 0.9}, {"threshold": 0.8}, {"strong_rate": 0.9}, None, "strong"),
        ({"threshold": 0.9}, {"strong_rate": 0.05}, {"threshold": 0.0}, 0.0, "strong"),
        ({"strong_rate": 0.1}, {"strong_rate": 0.05}, {"strong_rate": 0.9}, None, "strong"),
        ({"threshold": 0.9}, {"route": "strong"}, {}, 0.9, "strong"),
        ({"threshold": 0.1}, {"route": "strong"}, {"route": "weak"}, 0.1, "weak"),
        ({"threshold": 0.1}, {"route": "weak"}, {"threshold": 0.2}, 0.2, "weak"),
        ({"threshold": 0.1}, {"route": "weak"}, {"route": None}, 0.1, "weak"),
        ({"threshold": 0.1}, {"threshold": None, "route": None}, {"threshold": None}, 0.1, "strong"),
    ],
)
@pytest.mark.parametrize("api", ["invoke", "ainvoke", "generate"])
async def test_keyword_before_config_before_field_before_router(
    calibrated: Any, api: str, field: Any, configured: Any, keyword: Any, threshold: Any, route: str
) -> None:
    pair = calibrated(**field)
    config = {"configurable": {f"router_{name}": value for name, value in configured.items()}}
    routing = routing_of(await ask(pair.model, api, "p30", config, **keyword))
    assert routing["route"] == route
    if threshold is not None:
        assert routing["threshold"] == threshold


@every_api
@pytest.mark.parametrize(
    ("brought", "error", "message"),
    [
        ({"threshold": "high"}, ThresholdError, "finite number, got 'high'"),
        ({"threshold": float("inf")}, ThresholdError, "finite"),
        ({"strong_rate": 2}, ConfigurationError, "rate"),
        ({"strong_rate": "most"}, ConfigurationError, "rate"),
        ({"threshold": 0.5, "strong_rate": 0.5}, ConfigurationError, "not both"),
        ({"route": "best"}, ConfigurationError, "route must be one of strong, weak; got 'best'"),
        ({"route": ["weak"]}, ConfigurationError, "route must be one of"),
        ({"route": True}, ConfigurationError, "route must be one of"),
    ],
)
async def test_what_a_call_cannot_mean_is_told(
    calibrated: Any, api: str, brought: Any, error: type[Exception], message: str
) -> None:
    pair = calibrated(fallback_to_other=True)
    with pytest.raises(error, match=message):
        await ask(pair.model, api, "p30", **brought)
    with pytest.raises(error, match=message):
        await ask(pair.model, api, "p30", {"configurable": {f"router_{k}": v for k, v in brought.items()}})
    assert pair.strong.seen == pair.weak.seen == []
    assert pair.model.stats.total == 0


def test_a_rate_needs_a_calibrated_router(setup: Any) -> None:
    with pytest.raises(ConfigurationError, match="needs a calibrated router"):
        setup().model.invoke("easy", strong_rate=0.3)


# --- what the children see of it ---


BROUGHT: list[dict[str, Any]] = [{"threshold": 0.0}, {"route": "strong"}]
CONFIGURED = {"router_threshold": 0.0, "router_route": "strong", "thread_id": "7"}


@pytest.fixture
def emulated(fake: Any, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, list[dict[str, Any]]]:
    """A model that takes any key under `configurable` for a parameter, and the parameters it was made of."""
    made: list[dict[str, Any]] = []

    def create(*, model: str, **kwargs: Any) -> Any:
        made.append(kwargs)
        return fake(model_name=model)

    monkeypatch.setattr(chat_models, "_get_chat_model_creator", lambda provider: create)
    return init_chat_model("openai:strong", configurable_fields="any"), made


@every_api
async def test_no_setting_becomes_a_parameter_of_a_configurable_model(setup: Any, emulated: Any, api: str) -> None:
    child, made = emulated
    model = setup(strong=child).model
    answer = await ask(model, api, "easy", {"configurable": {**CONFIGURED, "temperature": 0.5}})
    assert say(answer) == "strong"
    for kwargs in BROUGHT:
        await ask(model, api, "easy", **kwargs)
    assert {name for kwargs in made for name in kwargs} <= {"temperature", "thread_id"}
    assert made[0]["temperature"] == 0.5, "what is the model's own stays"


async def test_no_setting_becomes_a_parameter_of_a_bound_configurable_model(setup: Any, emulated: Any) -> None:
    child, made = emulated
    config: Any = {"configurable": CONFIGURED}
    for wrapped in (child, child.with_retry(), child.with_config(tags=["t"])):
        model = setup(strong=wrapped).model
        model.invoke("easy", config)
        if wrapped is child:
            model.bind_tools([look_up]).invoke("easy", config)
            model.with_structured_output(Answer).invoke("easy", config)
            await model.bind_tools([look_up]).ainvoke("easy", config)
        model.with_config(configurable={"router_route": "strong"}).invoke("easy")
    assert {name for kwargs in made for name in kwargs} <= {"thread_id"}


@every_api
async def test_no_setting_reaches_a_child(setup: Any, api: str) -> None:
    seen: list[Any] = []

    def child(value: Any, config: Any, **kwargs: Any) -> AIMessage:
        seen.append((dict(config.get("configurable", {})), kwargs))
        return AIMessage("strong")

    pair = setup(strong=RunnableLambda(child))
    answer = await ask(pair.model, api, "easy", {"configurable": CONFIGURED}, mine=1)
    assert say(answer) == "strong"
    for kwargs in BROUGHT:
        await ask(pair.model, api, "easy", **kwargs, mine=1)
    for configurable, kwargs in seen:
        assert not [key for key in configurable if key.startswith("router_")]
        assert kwargs == {"mine": 1}
    assert seen[0][0].get("thread_id") == "7"


def test_the_callers_configurable_stays_as_it_was(setup: Any) -> None:
    config: Any = {"configurable": dict(CONFIGURED)}
    setup().model.invoke("easy", config)
    assert config == {"configurable": CONFIGURED}


@pytest.mark.parametrize(
    "wrap",
    [
        *WRAPPERS.values(),
        lambda model: model.bind_tools([look_up]),
        lambda model: model.with_config(tags=["t"]).with_retry(),
    ],
    ids=[*WRAPPERS, "tools", "two"],
)
def test_a_nested_routed_model_reads_the_same_configurable(setup: Any, fake: Any, wrap: Any) -> None:
    inner = setup(strong=fake(model_name="mid"), weak=fake(model_name="tiny"), router=FixedRouter(0.4))
    outer = setup(router=FixedRouter(0.1), weak=wrap(inner.model))
    assert say(outer.model.invoke("easy")) == "tiny"
    assert say(outer.model.invoke("easy", {"configurable": {"router_threshold": 0.3}})) == "mid"


# --- watching ---


@every_api
async def test_a_hook_sees_each_decision_once(setup: Any, api: str) -> None:
    seen: list[RoutingDecision] = []
    pair = setup(on_route=seen.append)
    answer = await ask(pair.model, api, "hard")
    assert len(seen) == pair.model.stats.total == (2 if "batch" in api else 1)
    assert seen[-1] == RoutingDecision("strong", 0.9, 0.5, "score")
    assert seen[-1].id == routing_of(answer)["id"]
    await ask(pair.model, api, "easy", route="strong")
    assert (seen[-1].route, seen[-1].reason) == ("strong", "forced")


@every_api
async def test_a_hook_that_fails_disturbs_nobody(setup: Any, api: str, caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: RoutingDecision) -> None:
        raise RuntimeError

    assert say(await ask(setup(on_route=fail).model, api, "hard")) == "strong"
    assert "on_route failed" in caplog.text


def test_a_hook_outlives_what_is_bound(setup: Any) -> None:
    seen: list[RoutingDecision] = []
    model = setup(on_route=seen.append).model
    model.bind_tools([look_up]).invoke("hard")
    model.with_structured_output(Answer, include_raw=True).invoke("easy")
    assert [decision.route for decision in seen] == ["strong", "weak"]


@every_api
@pytest.mark.parametrize("side", ["strong", "weak"])
async def test_a_shadow_answers_and_the_rest_says_what_would_have_been(
    setup: Any, recorder: Any, api: str, side: str
) -> None:
    seen: list[RoutingDecision] = []
    pair = setup(shadow=side, on_route=seen.append)
    for text, route in (("hard", "strong"), ("easy", "weak")):
        seen.clear()
        answer = await ask(pair.model, api, text, {"callbacks": [recorder]} if "generate" not in api else None)
        assert say(answer) == side
        routing = routing_of(answer)
        assert routing["route"] == route
        assert routing.get("answered_by") == (None if side == route else side)
        assert {decision.route for decision in seen} == {route}
        if "generate" not in api:
            assert recorder.models[-1]["routing"] == {**routing, "id": recorder.models[-1]["routing"]["id"]}
    count = 2 if "batch" in api else 1
    assert pair.model.stats.snapshot()["by_route"] == {"strong": count, "weak": count}


def test_a_shadow_answers_whatever_else_decides(setup: Any, fake: Any) -> None:
    pair = setup(**of(fake, weak={"image_inputs": False}), shadow="weak", decide="per_conversation")
    assert say(pair.model.invoke("easy", route="strong")) == "weak"
    assert say(pair.model.invoke(WITH_IMAGE)) == "weak"
    answer = pair.model.invoke("hard")
    following = pair.model.invoke([HumanMessage("hard"), answer, HumanMessage("easy")])
    assert why(following) == ("strong", "conversation", None), "as routing would have gone on"
    assert say(following) == "weak"
    assert say(pair.model.bind_tools([look_up]).invoke("hard")) == "weak"
    assert say(pair.model.with_structured_output(Answer, include_raw=True).invoke("hard")["raw"]) == "weak"


def test_a_message_does_not_say_who_answered_where_nothing_is_unusual(setup: Any) -> None:
    routing = routing_of(setup().model.invoke("hard"))
    assert set(routing) == {"route", "score", "threshold", "reason", "id"}


# --- models by name ---


def test_a_model_may_be_named(fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def init(name: str) -> Any:
        made.append(name)
        return fake(model_name=name)

    monkeypatch.setattr("langchain.chat_models.init_chat_model", init)
    model = RoutedChatModel(strong="openai:gpt-5", weak="anthropic:small", router=FixedRouter(0.9), output_version="v1")
    assert made == ["openai:gpt-5", "anthropic:small"]
    assert model.invoke("hard").content == [{"type": "text", "text": "openai:gpt-5"}]
    assert say(model.bind_tools([look_up]).invoke("hard", route="weak")) == "anthropic:small"


@pytest.mark.parametrize(
    ("name", "package"),
    [("anthropic:claude", "langchain-anthropic"), ("google_genai:g", "langchain-google-genai"), ("gpt-5", "openai")],
)
def test_a_named_model_whose_package_is_missing_says_which(
    fake: Any, monkeypatch: pytest.MonkeyPatch, name: str, package: str
) -> None:
    def init(_: str) -> Any:
        raise ImportError

    monkeypatch.setattr("langchain.chat_models.init_chat_model", init)
    with pytest.raises(MissingExtraError, match=f"pip install langchain .*{package}"):
        RoutedChatModel(strong=name, weak=fake(model_name="w"), router=FixedRouter())


def test_a_model_by_name_without_langchain_says_so(fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "langchain.chat_models", None)
    with pytest.raises(MissingExtraError, match="pip install langchain"):
        RoutedChatModel(strong=fake(model_name="s"), weak="openai:gpt-5", router=FixedRouter())


@pytest.mark.parametrize("name", ["nonsense", "nobody:gpt", "", " "])
def test_a_name_of_no_model_is_told(fake: Any, name: str) -> None:
    with pytest.raises(ConfigurationError, match="LangChain makes no chat model of"):
        RoutedChatModel(strong=fake(model_name="s"), weak=name, router=FixedRouter())
