"""What the router is asked: the question in a call, without what the framework put around it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_index.core.llms import ChatMessage, MessageRole
from llama_index.core.prompts import SelectorPromptTemplate

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llama_index.core.llms import LLM
    from llama_index.core.prompts import BasePromptTemplate

QUERY_VARIABLES = ("query_str", "question", "query")
"""Template variables in which the framework's prompts carry the question."""

# What ReActAgent writes as USER messages: tool results, and complaints about an answer it could not parse.
_REACT_PREFIXES = ("Observation:", "Error while parsing the output:", "FAILURE: Your previous response was empty.")


def text_of_messages(messages: Sequence[ChatMessage]) -> str:
    """Text of the last message that the user wrote.

    History, system prompts and tool results say little about how hard the question is, and an agent's
    steps keep asking about the same question, so its loop stays on one model.

    Args:
        messages: A conversation.

    Returns:
        Text blocks of the last USER message with text, those that ReActAgent wrote excepted. Without any,
        the last message with text; without that, the empty string.
    """
    last = ""
    for index in range(len(messages) - 1, -1, -1):
        text = messages[index].content
        if not text:
            continue
        if messages[index].role == MessageRole.USER and not _from_react(messages, index, text):
            return text
        last = last or text
    return last


def _from_react(messages: Sequence[ChatMessage], index: int, text: str) -> bool:
    """Whether the agent wrote this; an answer of the model then comes before it, so a first message never is."""
    return text.startswith(_REACT_PREFIXES) and any(m.role == MessageRole.ASSISTANT for m in messages[:index])


def text_of_prompt(llm: LLM, prompt: BasePromptTemplate, prompt_args: Mapping[str, Any]) -> str:
    """The question that a template is filled in with.

    Args:
        llm: Chooses among the variants of a conditional template.
        prompt: The template; synthesizers have put the question in its `kwargs` already.
        prompt_args: The remaining variables.

    Returns:
        The variable of `QUERY_VARIABLES` that is set; a prompt without one is filled in and read as messages.
    """
    variables = {**prompt.kwargs, **prompt_args}
    for name in QUERY_VARIABLES:
        question = variables.get(name)
        if isinstance(question, str) and question:
            return question
    return text_of_messages(_without_parser(llm, prompt).format_messages(llm=llm, **prompt_args))


def _without_parser(llm: LLM, prompt: BasePromptTemplate) -> BasePromptTemplate:
    """The template without an output parser, which would write its format into the question.

    The framework's structured programs leave theirs behind in the template that they were given.
    """
    if isinstance(prompt, SelectorPromptTemplate):
        prompt = prompt.select(llm)
    return prompt.model_copy(update={"output_parser": None})


def conversation(user_msg: str | ChatMessage | None, history: Sequence[ChatMessage] | None) -> list[ChatMessage]:
    """The messages of a tool call, in a list of their own."""
    messages = list(history or ())
    if user_msg is not None:
        messages.append(ChatMessage(role=MessageRole.USER, content=user_msg) if isinstance(user_msg, str) else user_msg)
    return messages
