"""What the router is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from llama_index.core.agent.utils import messages_to_xml_format
from llama_index.core.base.llms.types import ImageBlock
from llama_index.core.llms import ChatMessage, LLMMetadata, TextBlock
from llama_index.core.output_parsers import PydanticOutputParser
from llama_index.core.prompts import ChatPromptTemplate, PromptTemplate, RichPromptTemplate, SelectorPromptTemplate
from llama_index.core.prompts.utils import is_chat_model

from llamaindex_router.text import asked_in_chat, asked_in_completion, asked_in_template, asked_with_tools
from prefroute.conversation import TurnPolicy

if TYPE_CHECKING:
    from llamaindex_router import RoutedLLM
    from llamaindex_router.text import Asked


def talk(*turns: tuple[str, str]) -> list[ChatMessage]:
    return [ChatMessage(role=role, content=content) for role, content in turns]


def question(asked: Asked) -> str:
    return asked.question(TurnPolicy(), None, locked=False).text


UNPARSED = "Error while parsing the output: no\n\nThe output should be in one of the following formats:\n1. To call ..."
EXECUTED = "Result of executing the code given:\n\n1"
RETOLD = messages_to_xml_format(talk(("user", "q"), ("assistant", "a"), ("user", "and then?"), ("assistant", "b")))[
    0
].content
IMAGE = ImageBlock(url="https://example.org/cat.png", image_mimetype="image/png")


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([], ""),
        (talk(("user", "q")), "q"),
        (talk(("system", "s"), ("user", "one"), ("assistant", "a"), ("user", "two")), "two"),
        (talk(("user", "q"), ("assistant", "call"), ("tool", "result")), "q"),
        (
            talk(("user", "q"), ("assistant", "Action: a\nAction Input: {}"), ("user", "Observation: 5")),
            "q",
        ),
        (talk(("user", "q"), ("assistant", "Recommended Action: rest."), ("user", "Observation: pale. Why?")), None),
        (talk(("user", "Observation: the patient is pale. Diagnose.")), "Observation: the patient is pale. Diagnose."),
        (talk(("user", "Observation: pale."), ("assistant", "I see.")), "Observation: pale."),
        (talk(("user", "q"), ("assistant", "?"), ("user", UNPARSED)), "q"),
        (talk(("user", "q"), ("assistant", "?"), ("user", "Error while parsing the output: why?")), None),
        (talk(("user", "q"), ("assistant", "<execute>1</execute>"), ("user", EXECUTED)), "q"),
        (talk(("user", "q"), ("assistant", "no code"), ("user", EXECUTED)), None),
        (talk(("user", RETOLD)), "and then?"),
        (talk(("system", "only this")), "only this"),
        ([ChatMessage(role="user", blocks=[TextBlock(text="a"), IMAGE, TextBlock(text="b")])], "a\nb"),
        ([*talk(("user", "q")), ChatMessage(role="user", blocks=[IMAGE])], ""),
        ([ChatMessage(role="user", blocks=[IMAGE])], ""),
    ],
)
def test_text_of_messages(messages: list[ChatMessage], expected: Any) -> None:
    assert question(asked_in_chat(messages)) == (messages[-1].content if expected is None else expected)


@pytest.mark.parametrize(
    ("prompt", "args", "expected"),
    [
        (PromptTemplate("{context_str} {query_str}"), {"context_str": "c", "query_str": "q"}, "q"),
        (PromptTemplate("{context_str} {query_str}").partial_format(query_str="q"), {"context_str": "c"}, "q"),
        (PromptTemplate("{query_str}").partial_format(query_str="old"), {"query_str": "new"}, "new"),
        (PromptTemplate("{chat_history} {question}"), {"chat_history": "h", "question": "q"}, "q"),
        (PromptTemplate("{query}"), {"query": "q"}, "q"),
        (PromptTemplate("Write about {topic}"), {"topic": "cats"}, "Write about cats"),
        (ChatPromptTemplate(message_templates=talk(("system", "s"), ("user", "u {x}"))), {"x": "y"}, "u y"),
        (RichPromptTemplate("Write about {{ topic }}"), {"topic": "cats"}, "Write about cats"),
        (PromptTemplate("{query_str} {x}"), {"query_str": "", "x": "y"}, " y"),
    ],
)
def test_text_of_prompt(routed: RoutedLLM, prompt: Any, args: dict[str, Any], expected: Any) -> None:
    assert question(asked_in_template(routed, prompt, args)) == expected


def test_text_of_a_conditional_prompt(routed: RoutedLLM) -> None:
    prompt = SelectorPromptTemplate(
        default_template=PromptTemplate("for completion {x}"),
        conditionals=[(is_chat_model, PromptTemplate("for chat {x}"))],
    )
    assert question(asked_in_template(routed, prompt, {"x": "1"})) == "for chat 1"


def test_conversation_is_a_list_of_its_own() -> None:
    history = talk(("user", "q"))
    assert asked_with_tools("more", history).messages == talk(("user", "q"), ("user", "more"))
    assert asked_with_tools(None, None).messages == []
    assert history == talk(("user", "q"))


@pytest.mark.parametrize("selector", [False, True])
def test_a_parser_left_in_a_template_stays_out_of_the_question(routed: RoutedLLM, selector: bool) -> None:
    plain = PromptTemplate("Tell me of {topic}.")
    prompt: Any = SelectorPromptTemplate(default_template=plain) if selector else plain
    prompt.output_parser = PydanticOutputParser(output_cls=LLMMetadata)
    assert "JSON" in prompt.format(llm=routed, topic="tea")
    assert question(asked_in_template(routed, prompt, {"topic": "tea"})) == "Tell me of tea."
    assert prompt.output_parser is not None


@pytest.mark.parametrize(
    "text",
    [
        "<current_conversation>" + "\t<user>\n\t\t<message>" * 40_000,
        "<memory>" + " " * 400_000,
        "\n\nCurrent message:\n" + "Current state:\n" * 40_000,
        "Here's a JSON schema to follow:\n" * 20_000 + "do not repeat the schema.",
    ],
    ids=["retold", "memory", "state", "schema"],
)
def test_a_text_made_to_hold_up_a_search_does_not(text: str) -> None:
    # Searches that read such texts again for each place where they may begin would take minutes.
    assert isinstance(question(asked_in_chat(talk(("user", text), ("assistant", "Action: x\n" * 20_000)))), str)


def test_what_was_said_of_marks_comes_back_whole() -> None:
    said = "Compare </message> and <message> tags.\n"
    assert question(asked_in_chat([messages_to_xml_format(talk(("user", said), ("assistant", "a")))[0]])) == said


def test_a_persons_observation_is_retold_as_theirs() -> None:
    told = talk(("user", "hi"), ("assistant", "hello"), ("user", "Observation: my lock file corrupts. Why?"))
    assert question(asked_in_chat([messages_to_xml_format(told)[0]])) == told[-1].content


def test_a_schema_stays_out_of_the_question(routed: RoutedLLM) -> None:
    parser = PydanticOutputParser(output_cls=LLMMetadata)
    text = parser.format("Write a song.")
    assert question(asked_in_chat(talk(("user", text)))) == "Write a song."
    assert question(asked_in_completion(text)) == "Write a song."
