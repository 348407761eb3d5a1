"""A conversation that changes providers: each LLM is given what it can read, and the caller's list stays as it is."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.llms.types import (
    CacheControl,
    CachePoint,
    CitationBlock,
    ImageBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from llama_index.core.llms import ChatMessage, TextBlock
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.prompts import ChatPromptTemplate
from llamaindex_agents import AGENT_WARNINGS, TOOLS, Pair

from llamaindex_router import RoutedLLM

if TYPE_CHECKING:
    from collections.abc import Sequence

    from conftest import DialectLLM

    from prefroute.testing import FixedRouter


SIGNED = ThinkingBlock(content="hm", additional_information={"signature": "EqQB"})
REASONING = ThinkingBlock(
    content="", additional_information={"id": "rs_1", "encrypted_content": "x", "type": "reasoning"}
)
UNSIGNED = ThinkingBlock(content="hm")
CITED = CitationBlock(
    cited_content=TextBlock(text="the sky"), source="s", title="t", additional_location_info={"start_char_index": 0}
)
CACHED = CachePoint(cache_control=CacheControl(type="ephemeral"))
CALL = ToolCallBlock(tool_call_id="b1", tool_name="add", tool_kwargs={"a": 2, "b": 3})
CALL_IN_JSON = ToolCallBlock(tool_call_id="b1", tool_name="add", tool_kwargs='{"a": 2, "b": 3}')
LEGACY = {"tool_calls": [{"id": "l1", "name": "add", "arguments": '{"a": 2, "b": 3}'}]}
"""In the dialect of `openai` below."""
TEXT = TextBlock(text="I see.")


def question(text: str) -> ChatMessage:
    return ChatMessage(content=text)


def said(*blocks: Any, **kwargs: Any) -> ChatMessage:
    return ChatMessage(role="assistant", blocks=list(blocks), additional_kwargs=kwargs)


def result(call: str = "b1") -> ChatMessage:
    return ChatMessage(role="tool", content="5", additional_kwargs={"tool_call_id": call})


@pytest.fixture
def anthropic(make_llm: type[DialectLLM]) -> Any:
    """An LLM with blocks, named for its provider, by which its like are known."""

    class Anthropic(make_llm):  # type: ignore[valid-type, misc]
        pass

    return Anthropic(name="big", dialect="blocks", tool_kwargs={"a": 2, "b": 3})


@pytest.fixture
def openai(make_llm: type[DialectLLM]) -> Any:
    class OpenAI(make_llm):  # type: ignore[valid-type, misc]
        pass

    return OpenAI(name="small", dialect="legacy", tool_kwargs={"a": 2, "b": 3})


@pytest.fixture
def routed(anthropic: Any, openai: Any, router: FixedRouter) -> RoutedLLM:
    return RoutedLLM(strong=anthropic, weak=openai, router=router)


APIS = [
    "chat",
    "achat",
    "stream_chat",
    "astream_chat",
    "chat_with_tools",
    "achat_with_tools",
    "stream_chat_with_tools",
    "astream_chat_with_tools",
    "predict_and_call",
    "apredict_and_call",
]


async def sent(llm: Any, routed: RoutedLLM, api: str, messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """What one LLM is given of a conversation."""
    args: Any = (TOOLS, None, messages) if "tools" in api or "call" in api else (messages,)
    more = {"error_on_no_tool_call": False} if "call" in api else {}
    found = getattr(routed, api)(*args, route="strong" if llm is routed.strong else "weak", **more)
    if api.startswith("a"):
        found = await found
    if api.startswith("astream"):
        [_ async for _ in found]
    elif api.startswith("stream"):
        list(found)
    asked = [given for method, given, _ in llm.calls if method != "get_tool_calls"]
    return list(asked[-1])


def given(llm: Any, routed: RoutedLLM, *messages: ChatMessage) -> list[ChatMessage]:
    routed.chat(messages, route="strong" if llm is routed.strong else "weak")
    return list(llm.calls[-1][1])


def blocks_of(messages: Sequence[ChatMessage]) -> list[Any]:
    return [block for message in messages if message.role.value == "assistant" for block in message.blocks]


# --- tool calls ---


@pytest.mark.parametrize("api", APIS)
async def test_calls_in_the_others_dialect_become_blocks(
    anthropic: Any, routed: RoutedLLM, api: str, easy: str
) -> None:
    history = [question(easy), said(TEXT, **LEGACY, refusal=None), result("l1"), question("and?")]
    found = await sent(anthropic, routed, api, history)
    assert [message.role.value for message in found] == ["user", "assistant", "tool", "user"]
    call = ToolCallBlock(tool_call_id="l1", tool_name="add", tool_kwargs={"a": 2, "b": 3})
    assert found[1].blocks == [TEXT, call]
    assert found[1].additional_kwargs == {"refusal": None}
    assert found[2] == result("l1")


@pytest.mark.parametrize("api", APIS)
async def test_blocks_with_arguments_as_text_get_them_as_an_object(
    anthropic: Any, routed: RoutedLLM, api: str, easy: str
) -> None:
    found = await sent(anthropic, routed, api, [question(easy), said(CALL_IN_JSON, **LEGACY), result()])
    assert blocks_of(found) == [CALL]
    assert found[1].additional_kwargs == {}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [("", {}), ("{}", {}), ('{"a": {"b": [1]}}', {"a": {"b": [1]}}), ({"a": 1}, {"a": 1})],
)
@pytest.mark.parametrize("side", ["strong", "weak"])
def test_arguments(routed: RoutedLLM, side: str, arguments: Any, expected: Any) -> None:
    llm = getattr(routed, side)
    call = ToolCallBlock(tool_call_id="b1", tool_name="add", tool_kwargs=arguments)
    assert blocks_of(given(llm, routed, question("q"), said(call), result()))[0].tool_kwargs == expected


@pytest.mark.parametrize("arguments", ['{"a": ', "[1]", "3", "null", "not json"])
def test_arguments_that_are_none_do_not_stop_a_call(anthropic: Any, routed: RoutedLLM, arguments: str) -> None:
    call = ToolCallBlock(tool_call_id="b1", tool_name="add", tool_kwargs=arguments)
    (block,) = blocks_of(given(anthropic, routed, question("q"), said(call), result()))
    assert (block.tool_call_id, block.tool_name) == ("b1", "add")
    assert isinstance(block.tool_kwargs, str | dict), "no more than the framework has room for"


def test_legacy_keys_beside_blocks_are_left_out(anthropic: Any, openai: Any, routed: RoutedLLM) -> None:
    both = said(TEXT, CALL, **LEGACY, function_call={"name": "add"}, mine=1)
    for llm in (anthropic, openai):
        found = given(llm, routed, question("q"), both, result())
        assert found[1].additional_kwargs == {"mine": 1}
        assert blocks_of(found) == [TEXT, CALL]


def test_several_calls_keep_their_order(anthropic: Any, routed: RoutedLLM) -> None:
    calls = [{"id": f"l{n}", "name": "add", "arguments": json.dumps({"a": n})} for n in range(3)]
    history = [question("q"), said(tool_calls=calls), *(result(f"l{n}") for n in range(3))]
    found = blocks_of(given(anthropic, routed, *history))
    assert [(block.tool_call_id, block.tool_kwargs) for block in found] == [(f"l{n}", {"a": n}) for n in range(3)]


@pytest.mark.parametrize("legacy", [None, [], "text", 3, [3], [{"id": "x"}], [{"arguments": "{"}], {"a": 1}])
@pytest.mark.parametrize("side", ["strong", "weak"])
def test_calls_that_nobody_can_read_do_not_stop_a_call(routed: RoutedLLM, side: str, legacy: Any) -> None:
    llm = getattr(routed, side)
    found = given(llm, routed, question("q"), said(TEXT, tool_calls=legacy), question("and?"))
    assert blocks_of(found) == [TEXT]


@AGENT_WARNINGS
@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("first", ["strong", "weak"])
async def test_an_agents_run_over_two_providers(
    anthropic: Any, openai: Any, router: FixedRouter, easy: str, hard: str, streaming: bool, first: str
) -> None:
    text, caller, answering = (hard, anthropic, openai) if first == "strong" else (easy, openai, anthropic)
    router.scores[f"{text}\n\n5"] = 0.1 if first == "strong" else 0.9
    routed = RoutedLLM(strong=anthropic, weak=openai, router=router, decide="per_step")
    memory = ChatMemoryBuffer.from_defaults(token_limit=3000)
    answer = await FunctionAgent(tools=TOOLS, llm=routed, streaming=streaming).run(text, memory=memory)
    assert str(answer) == answering.name
    (seen,) = [messages for method, messages, _ in answering.calls if method != "get_tool_calls"]
    assert [message.role.value for message in seen] == ["user", "assistant", "tool"]
    calls = [block for block in seen[1].blocks if isinstance(block, ToolCallBlock)]
    assert [(call.tool_name, call.tool_kwargs) for call in calls] == [("add", {"a": 2, "b": 3})]
    assert calls[0].tool_call_id == seen[2].additional_kwargs["tool_call_id"]
    assert not {"tool_calls", "function_call"} & set(seen[1].additional_kwargs)
    # What is kept is what the caller wrote.
    kept = memory.get_all()[1]
    assert ("tool_calls" in kept.additional_kwargs) == (caller is openai)


# --- other blocks ---


@pytest.mark.parametrize(
    ("block", "to_anthropic", "to_openai"),
    [
        (SIGNED, True, False),
        (REASONING, False, None),
        (UNSIGNED, False, None),
        (CITED, True, False),
        (CACHED, True, False),
        (TEXT, True, True),
        (CALL, True, True),
        (ImageBlock(url="https://example.org/cat.png", image_mimetype="image/png"), True, True),
    ],
    ids=["signed", "reasoning", "unsigned", "cited", "cached", "text", "call", "image"],
)
@pytest.mark.parametrize("api", APIS)
async def test_blocks_go_to_those_who_read_them(
    anthropic: Any, openai: Any, routed: RoutedLLM, api: str, block: Any, to_anthropic: Any, to_openai: Any
) -> None:
    history = [question("q"), said(TEXT, block, TextBlock(text="So.")), question("and?")]
    for llm, kept in ((anthropic, to_anthropic), (openai, to_openai)):
        found = await sent(llm, routed, api, history)
        assert len(found) == 3
        if kept is not None:
            expected = [TEXT, block, TextBlock(text="So.")] if kept else [TEXT, TextBlock(text="So.")]
            assert found[1].blocks == expected
            assert (found[1] is history[1]) == kept


@pytest.mark.parametrize("role", ["user", "system", "assistant", "tool"])
def test_cache_points_are_left_out_wherever_they_are(anthropic: Any, openai: Any, routed: RoutedLLM, role: str) -> None:
    message = ChatMessage(role=role, blocks=[TEXT, CACHED])
    history = [question("q"), message, question("and?")]
    assert given(openai, routed, *history)[1].blocks == [TEXT]
    assert given(anthropic, routed, *history)[1] is message


@pytest.mark.parametrize("role", ["user", "system", "tool"])
def test_words_of_others_stay_as_they_are(openai: Any, routed: RoutedLLM, role: str) -> None:
    message = ChatMessage(role=role, blocks=[TEXT, SIGNED, CALL], additional_kwargs=dict(LEGACY))
    assert given(openai, routed, question("q"), message, question("and?"))[1] is message


def test_a_message_of_which_nothing_is_left_is_left_out(openai: Any, routed: RoutedLLM) -> None:
    history = [question("q"), said(SIGNED), question("and?")]
    assert given(openai, routed, *history) == [question("q"), question("and?")]
    assert len(history) == 3


def test_a_message_that_was_empty_stays(openai: Any, routed: RoutedLLM) -> None:
    empty = ChatMessage(role="assistant", blocks=[])
    assert given(openai, routed, question("q"), empty, question("and?"))[1] is empty


@pytest.mark.parametrize("api", ["predict", "apredict", "stream", "astream", "structured_predict"])
async def test_a_conversation_in_a_template_is_made_fit_too(openai: Any, routed: RoutedLLM, api: str) -> None:
    # As chat engines make them that answer from an index.
    history = [question("q"), said(SIGNED, TEXT, CALL_IN_JSON), question("{query_str}")]
    template = ChatPromptTemplate(message_templates=history)
    args = (Pair, template) if "structured" in api else (template,)
    found = getattr(routed, api)(*args, query_str="easy")
    if api.startswith("a"):
        found = await found
    if api == "stream":
        list(found)
    elif api == "astream":
        [_ async for _ in found]
    asked = next(given for method, given, _ in openai.calls if method != "get_tool_calls")
    assert blocks_of(asked) == [TEXT, CALL]
    assert template.message_templates[1].blocks == [SIGNED, TEXT, CALL_IN_JSON]


# --- the caller's own ---


def everything() -> list[ChatMessage]:
    """A conversation in which every message has something that one of the two cannot read."""
    return [
        ChatMessage(role="system", blocks=[TextBlock(text="be brief"), CACHED.model_copy(deep=True)]),
        ChatMessage(role="user", blocks=[TextBlock(text="q"), CACHED.model_copy(deep=True)]),
        said(SIGNED.model_copy(deep=True), TEXT, CITED.model_copy(deep=True), **json.loads(json.dumps(LEGACY))),
        result("l1"),
        said(CALL_IN_JSON.model_copy(deep=True), **json.loads(json.dumps(LEGACY))),
        result("b1"),
        question("and?"),
    ]


def shape(messages: Sequence[ChatMessage]) -> list[Any]:
    """All of a conversation, down to which objects it is made of."""
    return [
        (id(message), message.model_dump(), [id(block) for block in message.blocks], id(message.additional_kwargs))
        for message in messages
    ]


@pytest.mark.parametrize("kind", [list, tuple])
@pytest.mark.parametrize("side", ["strong", "weak"])
@pytest.mark.parametrize("api", APIS)
async def test_the_callers_messages_stay_as_they_are(routed: RoutedLLM, api: str, side: str, kind: Any) -> None:
    history = kind(everything())
    before = shape(history)
    found = await sent(getattr(routed, side), routed, api, history)
    assert shape(history) == before
    assert len(history) == 7
    # The last two can be read by both as they are.
    assert found[-1] is history[-1]
    assert found[-2] is history[-2]


@pytest.mark.parametrize("side", ["strong", "weak"])
async def test_a_new_message_is_not_put_into_the_callers_history(routed: RoutedLLM, side: Any) -> None:
    history = everything()
    before = shape(history)
    routed.chat_with_tools(TOOLS, "more", history, route=side)
    await routed.achat_with_tools(TOOLS, question("more"), history, route=side)
    list(routed.stream_chat_with_tools(TOOLS, "more", history, route=side))
    routed._prepare_chat_with_tools(TOOLS, "more", history, route=side)
    routed.predict_and_call(TOOLS, "more", history, route=side, error_on_no_tool_call=False)
    assert shape(history) == before


@pytest.mark.parametrize("side", ["strong", "weak"])
def test_messages_that_both_can_read_are_shared(routed: RoutedLLM, side: str) -> None:
    history = [
        ChatMessage(role="system", content="be brief"),
        question("q"),
        said(TEXT),
        question("r"),
        said(CALL),
        result(),
        question("s"),
    ]
    found = given(getattr(routed, side), routed, *history)
    assert [id(message) for message in found] == [id(message) for message in history]


def test_a_changed_message_shares_what_did_not_change(openai: Any, routed: RoutedLLM) -> None:
    message = said(SIGNED, TEXT, CALL, mine=1)
    found = given(openai, routed, question("q"), message, result())[1]
    assert found is not message
    assert [id(block) for block in found.blocks] == [id(message.blocks[1]), id(message.blocks[2])]


# --- who is of one family ---


@pytest.mark.parametrize("order", [1, -1])
def test_a_family_reads_its_own(openai: Any, router: FixedRouter, order: int) -> None:
    class AzureOpenAI(type(openai)):  # type: ignore[misc]
        pass

    pair = [AzureOpenAI(name="big", dialect="legacy"), openai][::order]
    routed = RoutedLLM(strong=pair[0], weak=pair[1], router=router)
    history = everything()
    for llm in pair:
        found = given(llm, routed, *history)
        assert [id(message) for message in found] == [id(message) for message in history]


def test_two_of_one_class_read_each_other(strong: Any, weak: Any, router: FixedRouter) -> None:
    routed = RoutedLLM(strong=strong, weak=weak, router=router)
    history = everything()
    assert [id(message) for message in given(weak, routed, *history)] == [id(message) for message in history]


def test_a_nested_pair_gets_what_it_can_hand_on(
    anthropic: Any, openai: Any, make_llm: type[DialectLLM], router: FixedRouter, hard: str
) -> None:
    class Gemini(make_llm):  # type: ignore[valid-type, misc]
        pass

    inner = RoutedLLM(strong=anthropic, weak=openai, router=router)
    outer = RoutedLLM(strong=Gemini(name="giant"), weak=inner, router=router, threshold=2.0)
    history = [question("q"), said(SIGNED, TEXT, CACHED), question(hard)]
    assert outer.chat(history).message.content == "big"
    assert anthropic.calls[-1][1][1].blocks == [SIGNED, TEXT, CACHED]
    outer.chat([*history[:2], question("easy")])
    assert openai.calls[-1][1][1].blocks == [TEXT]
