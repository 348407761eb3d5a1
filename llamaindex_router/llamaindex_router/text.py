"""What the router is asked: the question in a call, without what the framework put around it."""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING, Any

from llama_index.core.base.llms.types import ToolCallBlock
from llama_index.core.llms import ChatMessage, MessageRole
from llama_index.core.prompts import SelectorPromptTemplate

from prefroute.conversation import Message, Question, without_noise

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence

    from llama_index.core.llms import LLM
    from llama_index.core.prompts import BasePromptTemplate

    from prefroute.conversation import TurnPolicy
    from prefroute.turns import Answers

QUERY_VARIABLES = ("query_str", "question", "query")
"""Template variables in which the framework's prompts carry the question."""

ASSISTANTS = frozenset({MessageRole.ASSISTANT, MessageRole.CHATBOT, MessageRole.MODEL})
"""Roles of a model's answers, by the names that providers have for them."""

_TOOLS = frozenset({MessageRole.TOOL, MessageRole.FUNCTION})

_COMPLAINTS = ("Error while parsing the output:", "FAILURE: Your previous response was empty.")
"""What ReActAgent says to an answer that it could not parse, as USER."""

_FROM_REACT = ("Observation:", *_COMPLAINTS)
"""What ReActAgent writes as USER messages; the first is a tool's result."""

_OUT_OF_STEPS = "You have reached the maximum number of iterations ("
"""What agents write as SYSTEM where they ask for a last answer."""

_STATE = re.compile(r"Current state:\n.*?\n\nCurrent message:\n(.*)\n\Z", re.DOTALL)
"""The user's message as agents with a state rewrite it."""

_MEMORY = re.compile(r"\s*<memory>.*?</memory>\s*", re.DOTALL)
"""What `Memory(insert_method="user")` puts before the user's message."""

_REACT_CALL = re.compile(r"^Action: .*?^Action Input: .*", re.DOTALL | re.MULTILINE)
"""A tool call in the answer of a ReAct agent."""

_WRAPPED = (
    ("llama_index.core.chat_engine.condense_plus_context", "DEFAULT_CONDENSE_PROMPT_TEMPLATE", "{question}"),
    ("llama_index.core.retrievers.fusion_retriever", "QUERY_GEN_PROMPT", "{query}"),
)
"""Templates that the framework fills in and gives to `complete`: module, name and variable of the question."""


class Asked:
    """What a call is about, read as far as it is asked for.

    Args:
        messages: Makes the messages of the call.
        question: What is asked, where the call says so itself.
    """

    def __init__(self, messages: Callable[[], Sequence[ChatMessage]], question: str | None = None) -> None:
        self._make = messages
        self._messages: Sequence[ChatMessage] | None = None
        self._question = question

    @property
    def messages(self) -> Sequence[ChatMessage]:
        """The messages of the call; the caller's own, not to be changed."""
        if self._messages is None:
            self._messages = self._make()
        return self._messages

    def question(self, policy: TurnPolicy, answers: Answers | None, *, locked: bool) -> Question:
        """What the router is asked.

        Args:
            policy: How a conversation is read.
            answers: The decisions behind the answers in it; None where they do not matter.
            locked: Whether a tool's result can be answered by no other side than the one that called the tool.
        """
        if self._question is not None:
            return Question(self._question)
        return policy.question(_newest_first(self.messages, answers), locked=locked)


def asked_in_chat(messages: Sequence[ChatMessage]) -> Asked:
    """What a conversation is about."""
    return Asked(lambda: messages)


def asked_with_tools(user_msg: str | ChatMessage | None, history: Sequence[ChatMessage] | None) -> Asked:
    """What a conversation is about whose last message may come by itself."""
    return Asked(lambda: _joined(user_msg, history))


def asked_in_completion(prompt: str) -> Asked:
    """What a raw prompt is about: all of it, unless it is one that the framework wraps around a question."""
    question = _wrapped_question(prompt) if isinstance(prompt, str) else None
    return Asked(lambda: [ChatMessage(content=prompt)], prompt if question is None else question)


def asked_in_template(llm: LLM, prompt: BasePromptTemplate, prompt_args: Mapping[str, Any]) -> Asked:
    """What a template is about that is filled in with a question.

    Args:
        llm: Chooses among the variants of a conditional template.
        prompt: The template; synthesizers have put the question in its `kwargs` already.
        prompt_args: The remaining variables.

    Returns:
        The variable of `QUERY_VARIABLES` that is set; a prompt without one is filled in and read as a conversation.
    """

    def messages() -> Sequence[ChatMessage]:
        return _without_parser(llm, prompt).format_messages(llm=llm, **prompt_args)

    variables = {**prompt.kwargs, **prompt_args}
    found = (variables.get(name) for name in QUERY_VARIABLES)
    question = next((one for one in found if isinstance(one, str) and one), None)
    return Asked(messages, None if question is None else without_noise(question) or question)


def known_by(message: ChatMessage) -> list[Hashable]:
    """What an answer is known by when it comes back in a history, which may have been stored in between.

    Returns:
        The ids of its tool calls, which are unique; without any, its text.
    """
    ids = [call.tool_call_id for call in message.blocks if isinstance(call, ToolCallBlock) and call.tool_call_id]
    legacy = [_field(call, "id") for call in _legacy_calls(message)]
    keys: list[Hashable] = [("call", one) for one in dict.fromkeys([*ids, *legacy]) if isinstance(one, str)]
    return keys or known_by_text(message.content or "")


def known_by_text(text: str) -> list[Hashable]:
    """What an answer is known by of which there is only the text."""
    return [("text", hash(text.strip()))] if text.strip() else []


def _newest_first(messages: Sequence[ChatMessage], answers: Answers | None) -> Iterator[Message]:
    for index in range(len(messages) - 1, -1, -1):
        yield _seen(messages, index, answers)


def _seen(messages: Sequence[ChatMessage], index: int, answers: Answers | None) -> Message:
    """One message as routing sees it."""
    message = messages[index]
    text = message.content or ""
    if message.role == MessageRole.USER:
        if text.startswith(_FROM_REACT) and any(earlier.role in ASSISTANTS for earlier in messages[:index]):
            return Message(role="tool", text=text, failed=text.startswith(_COMPLAINTS))
        return Message(role="human", text=_by_person(text))
    if message.role in ASSISTANTS:
        routing = None if answers is None else answers.find(known_by(message))
        return Message(role="ai", text=text, calls=_calls(message, text), routing=routing)
    # The framework does not say whether a tool failed: what it puts into the message is the error's text alone.
    is_step = message.role in _TOOLS or text.startswith(_OUT_OF_STEPS)
    return Message(role="tool" if is_step else "other", text=text)


def _by_person(text: str) -> str:
    if text.lstrip().startswith("<memory>"):
        text = _MEMORY.sub("", text, count=1) or text
    return _STATE.sub(r"\1", text, count=1) if "\n\nCurrent message:\n" in text else text


def _calls(message: ChatMessage, text: str) -> tuple[str, ...]:
    blocks = [block for block in message.blocks if isinstance(block, ToolCallBlock)]
    if blocks:
        return tuple(f"{block.tool_name} {_canonical(block.tool_kwargs)}" for block in blocks)
    if legacy := _legacy_calls(message):
        return tuple(_canonical(_field(call, "function") or call) for call in legacy)
    react = _REACT_CALL.search(text) if "Action:" in text else None
    return () if react is None else (react[0].strip(),)


def _legacy_calls(message: ChatMessage) -> Sequence[Any]:
    """Tool calls as providers wrote them before there were blocks for them."""
    found = message.additional_kwargs.get("tool_calls")
    return found if isinstance(found, list | tuple) else ()


def _field(call: Any, name: str) -> Any:
    return call.get(name) if isinstance(call, dict) else getattr(call, name, None)


def _canonical(arguments: Any) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, sort_keys=True, default=repr)


def _wrapped_question(prompt: str) -> str | None:
    for module, name, variable in _WRAPPED:
        # Whoever fills the template in has loaded the module that holds it.
        template = getattr(sys.modules.get(module), name, None)
        if isinstance(template, str) and (question := _filled_in(template, variable, prompt)):
            return question
    return None


def _filled_in(template: str, variable: str, prompt: str) -> str | None:
    """What stands in a filled-in template in the place of its last variable."""
    before, _, tail = template.partition(variable)
    if not prompt.startswith(before.partition("{")[0]) or not prompt.endswith(tail):
        return None
    _, lead, question = prompt[: len(prompt) - len(tail)].rpartition(before.rpartition("}")[2])
    return question.strip() if lead else None


def _without_parser(llm: LLM, prompt: BasePromptTemplate) -> BasePromptTemplate:
    """The template without an output parser, which would write its format into the question.

    The framework's structured programs leave theirs behind in the template that they were given.
    """
    if isinstance(prompt, SelectorPromptTemplate):
        prompt = prompt.select(llm)
    return prompt.model_copy(update={"output_parser": None})


def _joined(user_msg: str | ChatMessage | None, history: Sequence[ChatMessage] | None) -> list[ChatMessage]:
    """The messages of a tool call, in a list of their own."""
    messages = list(history or ())
    if user_msg is not None:
        messages.append(ChatMessage(role=MessageRole.USER, content=user_msg) if isinstance(user_msg, str) else user_msg)
    return messages
