"""A conversation that changes providers: what the next one is given of what the other said."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
from langchain_core.load import dumpd
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    HumanMessage,
    RemoveMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.prompt_values import ChatPromptValue
from langchain_core.runnables import RunnableLambda
from pydantic import BaseModel, PrivateAttr

from langchain_router._history import family, readable
from prefroute.testing import FixedRouter

if TYPE_CHECKING:
    from collections.abc import Callable

FAMILIES: Any = {"strong": "anthropic", "weak": "openai"}
APIS = ["invoke", "ainvoke", "stream", "astream", "batch", "abatch", "generate", "agenerate"]

TEXT = {"type": "text", "text": "It is 4."}
THINKING = {"type": "thinking", "thinking": "2 and 2", "signature": "c2ln"}
REDACTED = {"type": "redacted_thinking", "data": "ZW5j"}
TOOL_USE = {"type": "tool_use", "id": "t1", "name": "add", "input": {"a": 2}}
SERVER_USE = {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"query": "4"}}
SERVER_RESULT = {"type": "web_search_tool_result", "tool_use_id": "s1", "content": [{"encrypted_content": "ZW5j"}]}
REASONING = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "ZW5j"}
FUNCTION_CALL = {"type": "function_call", "id": "fc_1", "call_id": "t1", "name": "add", "arguments": '{"a": 2}'}
OUTPUT_TEXT = {"type": "output_text", "text": "It is 4.", "annotations": [], "id": "msg_1"}
REFUSAL = {"type": "refusal", "refusal": "I will not."}
CALLS: Any = [{"type": "tool_call", "id": "t1", "name": "add", "args": {"a": 2}}]
INVALID: Any = [{"type": "invalid_tool_call", "id": "t1", "name": "add", "args": "{a", "error": "no JSON"}]
MARK = {"type": "ephemeral"}


def said(content: Any, provider: str | None = "anthropic", **fields: Any) -> AIMessage:
    """An answer of a provider, as its package leaves it."""
    metadata = {"model_name": "m", "id": "msg_1"} | ({} if provider is None else {"model_provider": provider})
    return AIMessage(content, response_metadata=metadata, id="run-1", **fields)


def for_weak(*messages: Any) -> Any:
    return readable(messages, side="weak", families=FAMILIES)


# --- answers of the other provider ---


@pytest.mark.parametrize(
    ("content", "fields", "text"),
    [
        ("It is 4.", {}, "It is 4."),
        ([THINKING, TEXT], {}, "It is 4."),
        ([REDACTED, TEXT], {}, "It is 4."),
        ([THINKING, REDACTED, THINKING, TEXT], {}, "It is 4."),
        ([REASONING, OUTPUT_TEXT], {}, "It is 4."),
        (["It ", {"type": "text", "text": "is 4."}], {}, "It is 4."),
        ([{**TEXT, "citations": [{"url": "https://x"}], "index": 0}], {}, "It is 4."),
        ([SERVER_USE, SERVER_RESULT, TEXT], {}, "It is 4."),
        ([{"type": "web_search_call", "id": "ws_1"}, OUTPUT_TEXT], {}, "It is 4."),
        ([{"type": "code_interpreter_call", "id": "ci_1"}, {"type": "mcp_call"}, OUTPUT_TEXT], {}, "It is 4."),
        ([REFUSAL], {}, "I will not."),
        ([THINKING, TOOL_USE], {"tool_calls": CALLS}, ""),
        ([{**TEXT, "cache_control": MARK}, TOOL_USE], {"tool_calls": CALLS}, "It is 4."),
        ([REASONING, FUNCTION_CALL], {"tool_calls": CALLS}, ""),
        ("", {"tool_calls": CALLS, "additional_kwargs": {"tool_calls": [{"id": "t1"}]}}, ""),
        ([TEXT, TOOL_USE], {"tool_calls": CALLS, "invalid_tool_calls": INVALID}, "It is 4."),
        ("", {"invalid_tool_calls": INVALID}, ""),
        ("It is 4.", {"additional_kwargs": {"reasoning_content": "2 and 2"}}, "It is 4."),
        # As `output_version="v1"` has it.
        ([{"type": "reasoning", "reasoning": "2 and 2", "extras": {"signature": "c2ln"}}, TEXT], {}, "It is 4."),
        ([{"type": "reasoning", "reasoning": "x"}, CALLS[0]], {"tool_calls": CALLS}, ""),
        ([{"type": "server_tool_call", "name": "web_search", "args": {}, "id": "s1"}, TEXT], {}, "It is 4."),
        ([{"type": "server_tool_result", "tool_call_id": "s1", "status": "success"}, TEXT], {}, "It is 4."),
        ([{"type": "non_standard", "value": REDACTED}, TEXT], {}, "It is 4."),
        ([{"type": "text", "text": None}, {"text": "no type"}, {}, TEXT], {}, "It is 4."),
        ([{"type": ["text"]}, {"type": None}, TEXT], {}, "It is 4."),
    ],
)
def test_of_a_foreign_answer_text_and_tool_calls_are_left(content: Any, fields: Any, text: str) -> None:
    message = said(content, **fields)
    before = copy.deepcopy(message)
    (left,) = for_weak(message)
    assert left is not message
    assert message == before
    assert left == AIMessage(
        text, tool_calls=fields.get("tool_calls", []), invalid_tool_calls=fields.get("invalid_tool_calls", [])
    )


def test_a_foreign_answer_loses_all_that_only_its_provider_knows() -> None:
    message = said(
        [THINKING, TEXT],
        name="Ada",
        usage_metadata={"input_tokens": 1, "output_tokens": 1, "total_tokens": 2},
        additional_kwargs={
            "reasoning_content": "secret",
            "__gemini_function_call_thought_signatures__": {"t1": "c2ln"},
        },
    )
    (left,) = for_weak(message)
    assert left.name == "Ada"
    assert left.additional_kwargs == {}
    assert left.usage_metadata is None
    shown = str(dumpd(left))
    assert not [word for word in ("c2ln", "secret", "thinking", "msg_1", "anthropic") if word in shown]


def test_a_refusal_beside_the_content_is_not_lost() -> None:
    # Where OpenAI's chat completions have it.
    message = said("", "openai", additional_kwargs={"refusal": "I will not."})
    left = readable([HumanMessage("a"), message, HumanMessage("b")], side="strong", families=FAMILIES)
    assert left is not None
    assert [one.text for one in left] == ["a", "I will not.", "b"]


@pytest.mark.parametrize(
    "content", ["", " \n", [], [THINKING], [REDACTED, {"type": "text", "text": ""}], [SERVER_USE, SERVER_RESULT], [{}]]
)
def test_an_answer_of_which_nothing_is_left_is_left_out(content: Any) -> None:
    question, following = HumanMessage("a"), HumanMessage("b")
    left = for_weak(question, said(content), following)
    assert left == [question, following]
    assert (left[0], left[1]) == (question, following)


def test_a_chunk_is_an_answer_too() -> None:
    chunk = AIMessageChunk([THINKING, TEXT], response_metadata={"model_provider": "anthropic"})
    assert for_weak(chunk) == [AIMessage("It is 4.")]


def test_what_is_readable_stays_so() -> None:
    once = for_weak(*conversation())
    assert for_weak(*once) is None


def test_it_goes_both_ways() -> None:
    theirs, ours = said([REASONING, OUTPUT_TEXT], "openai"), said([THINKING, TEXT])
    assert readable([theirs, ours], side="strong", families=FAMILIES) == [AIMessage("It is 4."), ours]
    assert readable([theirs, ours], side="weak", families=FAMILIES) == [theirs, AIMessage("It is 4.")]


def test_an_answer_of_a_third_provider_is_foreign_to_both() -> None:
    message = said([{"type": "thinking", "thinking": "x"}, TEXT], "google_genai")
    for side in ("strong", "weak"):
        assert readable([message], side=side, families=FAMILIES) == [AIMessage("It is 4.")]


# --- what stays ---


OWN: list[Any] = [
    SystemMessage("Be brief."),
    HumanMessage([{"type": "text", "text": "2 + 2?"}, {"type": "image_url", "image_url": {"url": "https://x"}}]),
    said([REASONING, FUNCTION_CALL], "openai", tool_calls=CALLS),
    ToolMessage([{"type": "text", "text": "4"}], tool_call_id="t1"),
    said([REASONING, OUTPUT_TEXT], "openai"),
    HumanMessage("Really?"),
]


def test_a_conversation_of_ones_own_stays_as_it_is() -> None:
    assert for_weak(*OWN) is None
    assert for_weak() is None


def test_only_what_must_change_is_another_object() -> None:
    foreign = said([THINKING, TEXT])
    left = for_weak(*OWN, foreign, *OWN)
    assert [after is before for after, before in zip(left, [*OWN, foreign, *OWN], strict=True)] == [
        *[True] * len(OWN),
        False,
        *[True] * len(OWN),
    ]


@pytest.mark.parametrize(
    "message",
    [
        said([REASONING, OUTPUT_TEXT], "azure"),
        said([REASONING, OUTPUT_TEXT], "azure_openai"),
        said([THINKING, TEXT], None),
        AIMessage([THINKING, TEXT]),
        AIMessage([THINKING, TEXT], response_metadata={"model_provider": None}),
        AIMessage([THINKING, TEXT], response_metadata={"routing": "strong"}),
        AIMessage([THINKING, TEXT], response_metadata={"routing": {"route": "both"}}),
        AIMessage([THINKING, TEXT], response_metadata={"routing": {"route": ["strong"]}}),
        AIMessage([THINKING, TEXT], response_metadata={"routing": {"answered_by": {}, "route": "weak"}}),
        AIMessage([THINKING, TEXT], response_metadata={"routing": {}, "model_provider": ["anthropic"]}),
        RemoveMessage(id="1"),
    ],
)
def test_an_answer_of_ones_own_or_of_nobody_known_stays(message: Any) -> None:
    assert for_weak(HumanMessage("a"), message) is None


@pytest.mark.parametrize(
    ("routing", "changes"),
    [
        ({"route": "strong"}, True),
        ({"route": "weak"}, False),
        ({"route": "weak", "answered_by": "strong"}, True),
        ({"route": "strong", "answered_by": "weak"}, False),
    ],
)
def test_an_answer_that_names_no_provider_is_of_the_side_that_answered(routing: Any, changes: bool) -> None:
    message = AIMessage([THINKING, TEXT], response_metadata={"routing": routing})
    assert (for_weak(message) is not None) is changes


def test_an_answer_says_itself_whose_it_is_before_the_record_does() -> None:
    # The conversation may come from another pair.
    message = said([THINKING, TEXT])
    message.response_metadata["routing"] = {"route": "weak"}
    assert for_weak(message) == [AIMessage("It is 4.")]


def test_providers_of_one_format_are_one_family() -> None:
    assert family("azure") == family("azure_openai") == family("openai") == "openai"
    assert family("amazon_bedrock") == family("bedrock_converse") == family("bedrock")
    assert family("google_genai") == family("google_vertexai")
    assert family("anthropic") == "anthropic"
    assert family(None) is family(3) is family(["openai"]) is None


# --- marks for a cache ---


def kinds(content: Any) -> list[Any]:
    return [
        SystemMessage(content),
        HumanMessage(content),
        ToolMessage(content, tool_call_id="t1"),
        said(content, "openai"),
        AIMessage(content),
    ]


@pytest.mark.parametrize(
    "message", kinds([{**TEXT, "cache_control": MARK}, "more"]), ids=lambda one: type(one).__name__
)
def test_marks_for_the_others_cache_are_taken_off(message: Any) -> None:
    before = copy.deepcopy(message)
    (left,) = for_weak(message)
    assert left == message.model_copy(update={"content": [TEXT, "more"]})
    assert message == before
    assert type(left) is type(message)
    if message.response_metadata.get("model_provider") is None:
        assert readable([message], side="strong", families=FAMILIES) is None


@pytest.mark.parametrize(
    ("mark", "value", "taken_by"),
    [
        ("cache_control", MARK, {"anthropic", "bedrock"}),
        ("cachePoint", {"type": "default"}, {"bedrock"}),
        ("prompt_cache_breakpoint", True, {"openai"}),
    ],
)
def test_a_mark_is_taken_out_where_it_is_known_to_be_refused(mark: str, value: Any, taken_by: set[str]) -> None:
    image = {"type": "image_url", "image_url": {"url": "https://x"}, mark: value}
    extra = {**TEXT, "extras": {mark: value, "kept": 1}}
    message = HumanMessage([image, extra, TEXT])
    families: Any
    for own in ("anthropic", "bedrock", "openai", "google", "mistralai", "unheard-of"):
        families = {"strong": own, "weak": "else"}
        left = readable([message], side="strong", families=families)
        if own in taken_by | {"unheard-of"}:
            assert left is None
            continue
        assert left is not None
        bare = {key: value for key, value in image.items() if key != mark}
        assert left[0].content == [bare, {**TEXT, "extras": {"kept": 1}}, TEXT]
        assert left[0].content[2] is message.content[2]


def test_anthropics_models_at_another_provider_are_of_one_format() -> None:
    assert family("anthropic-bedrock") == family("anthropic") == "anthropic"


def test_a_block_that_is_nothing_but_a_mark_goes() -> None:
    point = {"cachePoint": {"type": "default"}}
    message = HumanMessage([TEXT, point])
    assert for_weak(message) == [HumanMessage([TEXT])]
    assert message.content == [TEXT, point]
    assert readable([message], side="strong", families={"strong": "bedrock", "weak": "openai"}) is None


def test_a_word_that_is_a_marks_name_is_no_mark() -> None:
    assert (
        for_weak(HumanMessage("cache_control"), HumanMessage(["cachePoint", {**TEXT, "text": "cache_control"}])) is None
    )


# --- through the routed model ---


class Answer(BaseModel):
    """An answer."""

    value: int


@pytest.fixture
def provider_chat(fake: Any) -> Callable[..., Any]:
    """Makes models whose provider is known, and tells in `seen` what they were given."""

    class ProviderChat(fake):
        provider: str | None
        _given: list[Any] = PrivateAttr(default_factory=list)

        def _get_ls_params(self, stop: Any = None, **kwargs: Any) -> Any:
            params = {**super()._get_ls_params(stop, **kwargs), "ls_provider": self.provider}
            return {name: value for name, value in params.items() if value is not None}

        def _look(self, messages: Any, *args: Any, **kwargs: Any) -> None:
            self._given.append(list(messages))
            super()._look(messages, *args, **kwargs)

        @property
        def given(self) -> list[Any]:
            return self._given

    def make(name: str, provider: str | None, **fields: Any) -> Any:
        return ProviderChat(model_name=name, provider=provider, **fields)

    return make


@pytest.fixture
def pair_of(setup: Any, provider_chat: Any) -> Callable[..., Any]:
    def make(strong: str | None = "anthropic", weak: str | None = "openai", **settings: Any) -> Any:
        return setup(strong=provider_chat("strong", strong), weak=provider_chat("weak", weak), **settings)

    return make


def conversation() -> list[Any]:
    return [
        SystemMessage([{"type": "text", "text": "Be brief.", "cache_control": MARK}]),
        HumanMessage("easy"),
        said([THINKING, REDACTED, {**TEXT, "cache_control": MARK}, TOOL_USE], tool_calls=CALLS),
        ToolMessage([{"type": "text", "text": "4", "cache_control": MARK}], tool_call_id="t1"),
        said([THINKING]),
        said([REASONING, OUTPUT_TEXT], "openai"),
        HumanMessage([{"type": "text", "text": "easy", "cache_control": MARK}]),
    ]


def for_openai(messages: list[Any]) -> list[Any]:
    return [
        SystemMessage([{"type": "text", "text": "Be brief."}]),
        messages[1],
        AIMessage("It is 4.", tool_calls=CALLS),
        ToolMessage([{"type": "text", "text": "4"}], tool_call_id="t1"),
        messages[5],
        HumanMessage([{"type": "text", "text": "easy"}]),
    ]


async def call(model: Any, api: str, messages: Any, **kwargs: Any) -> None:
    if api == "generate":
        model.generate([messages], **kwargs)
    elif api == "agenerate":
        await model.agenerate([messages], **kwargs)
    elif api == "stream":
        list(model.stream(messages, **kwargs))
    elif api == "astream":
        assert [chunk async for chunk in model.astream(messages, **kwargs)]
    elif api == "batch":
        model.batch([messages, messages], **kwargs)
    elif api == "abatch":
        await model.abatch([messages, messages], **kwargs)
    elif api == "invoke":
        model.invoke(messages, **kwargs)
    else:
        await model.ainvoke(messages, **kwargs)


@pytest.mark.parametrize("api", APIS)
async def test_the_other_provider_gets_a_history_that_it_can_read(pair_of: Any, api: str) -> None:
    messages = conversation()
    before, objects = copy.deepcopy(messages), list(messages)
    pair = pair_of()
    await call(pair.model, api, messages)
    assert pair.weak.given[0] == for_openai(messages)
    assert messages == before
    assert all(one is other for one, other in zip(messages, objects, strict=True))
    assert pair.strong.seen == []


@pytest.mark.parametrize("api", APIS)
async def test_the_same_conversation_goes_to_each_side_in_its_own_way(pair_of: Any, api: str) -> None:
    messages = conversation()
    pair = pair_of()
    await call(pair.model, api, messages, route="strong")
    given = pair.strong.given[0]
    assert given[:5] == messages[:5]
    assert given[5] == AIMessage("It is 4.")
    assert given[6] == messages[6]


@pytest.mark.filterwarnings("ignore:.*in beta:langchain_core._api.beta_decorator.LangChainBetaWarning")
async def test_typed_streams_get_it_too(pair_of: Any) -> None:
    messages = conversation()
    pair = pair_of()
    assert str(pair.model.stream_events(messages, version="v3").text)
    stream = await pair.model.astream_events(messages, version="v3")
    assert [part async for part in stream.text]
    assert [event async for event in pair.model.astream_events(messages, version="v2")]
    assert pair.weak.given == [for_openai(messages)] * 3


WRAPPERS = {
    "alone": lambda model: model,
    "binding": lambda model: model.bind(temperature=0.5),
    "config": lambda model: model.with_config(tags=["t"]),
    "retry": lambda model: model.with_retry(),
    "fallbacks": lambda model: model.with_fallbacks([model]),
}


@pytest.mark.parametrize("include_raw", [False, True])
@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
async def test_structured_output_gets_it_too(setup: Any, provider_chat: Any, wrap: Any, include_raw: bool) -> None:
    answer = AIMessage("", tool_calls=[{"name": "Answer", "args": {"value": 1}, "id": "1"}])
    strong, weak = provider_chat("strong", "anthropic", answer=answer), provider_chat("weak", "openai", answer=answer)
    model = setup(strong=wrap(strong), weak=wrap(weak)).model
    chain = model.with_structured_output(Answer, include_raw=include_raw)
    messages = conversation()
    chain.invoke(messages)
    await chain.ainvoke(messages)
    chain.batch([messages, messages])
    list(chain.stream(messages))
    assert weak.given == [for_openai(messages)] * 5


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_providers_are_seen_through_wrappers_and_tools(setup: Any, provider_chat: Any, wrap: Any) -> None:
    strong, weak = provider_chat("strong", "anthropic"), provider_chat("weak", "openai")
    model = setup(strong=wrap(strong), weak=wrap(weak)).model
    messages = conversation()
    model.invoke(messages)
    model.bind_tools([Answer]).invoke(messages)
    assert weak.given == [for_openai(messages)] * 2


def test_messages_of_other_forms_are_readable_too(pair_of: Any) -> None:
    pair = pair_of()
    messages = conversation()
    pair.model.invoke(ChatPromptValue(messages=messages))
    pair.model.invoke(tuple(messages))
    pair.model.invoke([("human", "easy"), messages[2], {"role": "user", "content": "easy"}])
    assert pair.weak.given[:2] == [for_openai(messages)] * 2
    assert pair.weak.given[2] == [
        HumanMessage("easy"),
        AIMessage("It is 4.", tool_calls=CALLS),
        HumanMessage("easy"),
    ]
    assert messages == conversation()


@pytest.mark.parametrize(
    ("strong", "weak"),
    [
        ("openai", "openai"),
        ("azure", "openai"),
        ("google_genai", "google_vertexai"),
        (None, "openai"),
        ("openai", None),
    ],
)
def test_where_no_provider_changes_nothing_is_touched(pair_of: Any, strong: Any, weak: Any) -> None:
    pair = pair_of(strong, weak)
    messages = conversation()
    pair.model.invoke(messages)
    assert pair.weak.given == [messages]


def test_a_child_that_is_no_model_gets_the_very_list(setup: Any, provider_chat: Any) -> None:
    given: list[Any] = []
    child = RunnableLambda(lambda value: given.append(value) or AIMessage("weak"))
    messages = conversation()
    setup(strong=provider_chat("strong", "anthropic"), weak=child).model.invoke(messages)
    assert given[0] is messages


def test_a_list_that_needs_no_change_is_handed_on_itself(setup: Any, provider_chat: Any) -> None:
    given: list[Any] = []

    class Keeping(type(provider_chat("x", "openai"))):
        def invoke(self, value: Any, *args: Any, **kwargs: Any) -> Any:
            given.append(value)
            return super().invoke(value, *args, **kwargs)

    weak = Keeping(model_name="weak", provider="openai")
    model = setup(strong=provider_chat("strong", "anthropic"), weak=weak).model
    for value in ([*OWN, HumanMessage("easy")], "easy", [("human", "easy")], ChatPromptValue(messages=OWN)):
        model.invoke(value, route="weak")
        assert given[-1] is value


def test_answers_of_the_pair_itself_are_told_apart_without_a_providers_name(pair_of: Any) -> None:
    pair = pair_of()
    hard, easy = pair.model.invoke("hard"), pair.model.invoke("easy")
    for answer in (hard, easy):
        assert "model_provider" not in answer.response_metadata
        answer.content = [THINKING, TEXT]
    messages = [HumanMessage("a"), hard, HumanMessage("b"), easy, HumanMessage("easy")]
    pair.model.invoke(messages)
    assert pair.weak.given[-1] == [messages[0], AIMessage("It is 4."), *messages[2:]]
    pair.model.invoke(messages, route="strong")
    assert pair.strong.given[-1] == [*messages[:3], AIMessage("It is 4."), messages[4]]


def test_a_shadow_that_answered_is_whose_the_answer_is(pair_of: Any) -> None:
    answer = pair_of(shadow="weak").model.invoke("hard")
    answer.content = [THINKING, TEXT]
    pair = pair_of()
    pair.model.invoke([HumanMessage("a"), answer, HumanMessage("easy")])
    assert pair.weak.given[-1][1].content == [THINKING, TEXT]
    pair.model.invoke([HumanMessage("a"), answer, HumanMessage("hard")])
    assert pair.strong.given[-1][1] == AIMessage("It is 4.")


@pytest.mark.parametrize("api", APIS)
async def test_who_answers_instead_gets_a_history_that_it_can_read(setup: Any, provider_chat: Any, api: str) -> None:
    strong = provider_chat("strong", "anthropic", failures=9)
    weak = provider_chat("weak", "openai")
    model = setup(strong=strong, weak=weak, router=FixedRouter(0.9), fallback_to_other=True).model
    messages = conversation()
    await call(model, api, messages)
    assert strong.given[0][2] == messages[2]
    assert weak.given[0] == for_openai(messages)
    assert messages == conversation()


def test_a_record_that_makes_no_sense_does_not_leave_the_rest_unreadable(pair_of: Any) -> None:
    pair = pair_of()
    odd = AIMessage("odd", response_metadata={"routing": {"route": ["strong"]}})
    messages = [HumanMessage("easy"), odd, said([THINKING, TEXT]), HumanMessage("easy")]
    pair.model.invoke(messages)
    assert pair.weak.given == [[messages[0], odd, AIMessage("It is 4."), messages[3]]]


def test_what_the_router_is_asked_does_not_depend_on_who_may_read_it(pair_of: Any) -> None:
    pair = pair_of(decide="per_conversation")
    first = pair.model.invoke("hard")
    first.content = [THINKING, TEXT]
    messages = [HumanMessage("hard"), first, HumanMessage("easy")]
    answer = pair.model.invoke(messages, route="weak")
    assert pair.weak.given[-1][1] == AIMessage("It is 4.")
    following = pair.model.invoke([*messages, answer, HumanMessage("easy")])
    assert following.response_metadata["routing"]["reason"] == "conversation"
    assert following.text == "strong"


def test_the_own_answers_of_a_provider_that_goes_by_another_name_stay(pair_of: Any) -> None:
    # Clients of OpenAI's format that are built on its package leave "openai" in their answers.
    pair = pair_of("cerebras", "anthropic")
    answer = said([REASONING, OUTPUT_TEXT], "openai")
    answer.response_metadata["routing"] = {"route": "strong", "reason": "score"}
    messages = [HumanMessage("hard"), answer, HumanMessage("hard")]
    pair.model.invoke(messages)
    assert pair.strong.given == [messages]
    pair.model.invoke(messages, route="weak")
    assert pair.weak.given[0][1] == AIMessage("It is 4.")
