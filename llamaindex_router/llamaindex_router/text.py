"""What the router is asked: the question in a call, without what the framework put around it."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from llama_index.core.base.llms.types import ToolCallBlock
from llama_index.core.llms import ChatMessage, MessageRole
from llama_index.core.prompts import SelectorPromptTemplate

from prefroute.conversation import Message, Question, without_noise
from prefroute.turns import Turn

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

_COMPLAINTS = {
    "Error while parsing the output:": "\nThe output should be in one of the following formats:\n",
    "FAILURE: Your previous response was empty.": "\nYou must output a thought and an action/answer.\n",
}
"""What ReActAgent says as USER to an answer that it could not parse: how that begins, and what comes later."""

_EXECUTED = "Result of executing the code given:\n\n"

_RESULTS = {"Observation:": "\nAction Input:", _EXECUTED: "<execute>"}
"""How ReActAgent and CodeActAgent begin a tool's result, which they write as USER; and what the call had in it."""

_BY_AGENTS = (*_COMPLAINTS, *_RESULTS)

_OUT_OF_STEPS = "You have reached the maximum number of iterations ("
"""What agents write as SYSTEM where they ask for a last answer."""

_STATE, _MESSAGE = "Current state:\n", "\n\nCurrent message:\n"
"""How agents with a state begin when they rewrite the person's message, and what comes before that."""

_MEMORY, _MEMORY_END = "<memory>", "</memory>"
"""What `Memory(insert_method="user")` puts before the person's message: how it begins and ends."""

_RETOLD = "<current_conversation>"
"""How agents with an output class begin when they tell the conversation as one USER message."""

_SCHEMA, _SCHEMA_END = "\n\n\nHere's a JSON schema to follow:\n", "do not repeat the schema."
"""What programs that answer as text put after the question: how it begins, and how it ends."""

_WRAPPED = (
    ("llama_index.core.chat_engine.condense_plus_context", "DEFAULT_CONDENSE_PROMPT_TEMPLATE", "{question}"),
    ("llama_index.core.prompts.default_prompts", "HYDE_TMPL", "{context_str}"),
    ("llama_index.core.retrievers.fusion_retriever", "QUERY_GEN_PROMPT", "{query}"),
)
"""Templates that the framework fills in with a question by itself, or under another name: module, name, variable."""


class Asked:
    """What a call is about, read as far as it is asked for.

    Args:
        messages: Makes the messages of the call.
        question: What is asked, where the call says so itself.
        is_conversation: Whether the messages are what was said, one after the other.
        is_packed: Whether the framework saw to it that the call fits into a window.
    """

    def __init__(
        self,
        messages: Callable[[], Sequence[ChatMessage]],
        question: str | None = None,
        *,
        is_conversation: bool = False,
        is_packed: bool = False,
    ) -> None:
        self.is_packed = is_packed
        self._is_conversation = is_conversation
        self._make = messages
        self._messages: Sequence[ChatMessage] | None = None
        self._question = question

    @property
    def messages(self) -> Sequence[ChatMessage]:
        """The messages of the call; the caller's own, not to be changed."""
        if self._messages is None:
            self._messages = self._make()
        return self._messages

    @property
    def said(self) -> str:
        """What the person said last."""
        return _Said(self.messages).before(len(self.messages)) if self._question is None else self._question

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

    def turn(self, question: Question, work: str | None) -> Turn:
        """What tells the turn that the call belongs to.

        Args:
            question: What was found to be asked.
            work: The piece of work that the call is part of; of other calls than a conversation's, all on one question
                in it are one turn.
        """
        return Turn(work, is_conversation=self._is_conversation, goes_on=question.goes_on)


def asked_in_chat(messages: Sequence[ChatMessage]) -> Asked:
    """What a conversation is about."""
    return Asked(lambda: messages, is_conversation=True)


def asked_with_tools(user_msg: str | ChatMessage | None, history: Sequence[ChatMessage] | None) -> Asked:
    """What a conversation is about whose last message may come by itself."""
    return Asked(lambda: _joined(user_msg, history), is_conversation=True)


def asked_in_completion(prompt: str) -> Asked:
    """What a raw prompt is about: all of it, unless it is one that the framework wraps around a question."""
    question = (_wrapped_question(prompt) or _without_schema(prompt)) if isinstance(prompt, str) else prompt
    return Asked(lambda: [ChatMessage(content=prompt)], question)


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
    return Asked(messages, None if question is None else without_noise(question) or question, is_packed=True)


def known_by(answer: ChatMessage | str, said: str) -> list[Hashable]:
    """What an answer is known by when it comes back in a history, which may have been stored in between.

    Args:
        answer: The answer, or its text where there is no more of it.
        said: What the person said last before it: "You are welcome." is said to many.

    Returns:
        One key, of these and of its tool calls; none where it has neither text nor calls.
    """
    text, calls = (answer, []) if isinstance(answer, str) else (answer.content or "", calls_of(answer))
    text = text.strip()
    # The ids of calls alone would not do: some providers have none, and name calls by their tools.
    return [hash((said, text, *calls))] if text or calls else []


def _newest_first(messages: Sequence[ChatMessage], answers: Answers | None) -> Iterator[Message]:
    said = _Said(messages)
    for index in range(len(messages) - 1, -1, -1):
        message = messages[index]
        if answers is None or message.role not in ASSISTANTS:
            yield _seen(messages, index)
        else:
            yield replace(_seen(messages, index), routing=answers.find(known_by(message, said.before(index))))


class _Said:
    """What the person said last before each message, looked for from the last one back."""

    def __init__(self, messages: Sequence[ChatMessage]) -> None:
        self._messages = messages
        self._found: tuple[int, str] = (len(messages), "")

    def before(self, index: int) -> str:
        at, text = self._found
        if at >= index:
            earlier = ((i, _seen(self._messages, i)) for i in range(index - 1, -1, -1))
            at, text = next(((i, one.text) for i, one in earlier if one.role == "human"), (-1, ""))
            self._found = at, text
        return text


def _seen(messages: Sequence[ChatMessage], index: int) -> Message:
    """One message as routing sees it."""
    message = messages[index]
    text = message.content or ""
    if message.role == MessageRole.USER:
        if text.startswith(_BY_AGENTS) and (why := _by_agent(messages, index, text)) is not None:
            return Message(role="tool", text=text, failed=why == "complaint")
        return Message(role="human", text=_wrapped_question(text) or _by_person(text))
    if message.role in ASSISTANTS:
        made = tuple(f"{call.name} {call.arguments}" for call in calls_of(message))
        react = None if made else _react_call(text)
        return Message(role="ai", text=text, calls=made if react is None else (react,))
    # The framework does not say whether a tool failed: what it puts into the message is the error's text alone.
    is_step = message.role in _TOOLS or text.startswith(_OUT_OF_STEPS)
    return Message(role="tool" if is_step else "other", text=text)


def _by_agent(messages: Sequence[ChatMessage], index: int, text: str) -> Literal["complaint", "result"] | None:
    """What an agent says with this; None where a person does: a result comes after an answer that calls a tool."""
    if any(text.startswith(begun) and later in text for begun, later in _COMPLAINTS.items()):
        return "complaint"
    called = next((call for begun, call in _RESULTS.items() if text.startswith(begun)), None)
    answer = next((messages[i] for i in range(index - 1, -1, -1) if messages[i].role in ASSISTANTS), None)
    return "result" if called is not None and answer is not None and called in (answer.content or "") else None


def _by_person(text: str) -> str:
    """What the person said of a message that the framework has put something around.

    By plain searches, each of which reads the text once: whoever writes it must not hold up anybody.
    """
    if text.startswith(_RETOLD):
        text = _retold(text)
    text = _without_schema(text)
    if text.lstrip().startswith(_MEMORY):
        _, end, rest = text.partition(_MEMORY_END)
        text = rest.lstrip() if end and rest.strip() else text
    before, found, state = text.partition(_STATE)
    _, mark, message = state.partition(_MESSAGE)
    return before + message.removesuffix("\n") if found and mark else text


def _without_schema(text: str) -> str:
    """The question before the schema of an answer."""
    return (text.rpartition(_SCHEMA)[0] or text) if text.rstrip().endswith(_SCHEMA_END) else text


def _retold(text: str) -> str:
    """What the person said last in a conversation that is told as one message."""
    for told in reversed(text.split("\t<user>\n")[1:]):
        said = _messages(told.partition("\t</user>\n")[0])
        # Results of code are in the memory that is retold, as the person's words.
        if said and not said.startswith(_EXECUTED):
            return said
    return text


def _messages(told: str) -> str:
    return "\n".join(part.rpartition("</message>")[0] for part in told.split("\t\t<message>")[1:])


def _react_call(text: str) -> str | None:
    """The tool call in an answer of a ReAct agent."""
    before, mark, arguments = text.partition("\nAction Input:")
    _, called, name = before.rpartition("Action:")
    return f"{name.strip()} {arguments.strip()}" if mark and called else None


class Call(NamedTuple):
    """A tool call in an answer.

    Attributes:
        id: As the provider or the framework gave it.
        name: Of the tool.
        arguments: As a JSON text that is the same for the same arguments.
    """

    id: str | None
    name: str
    arguments: str


def calls_of(message: ChatMessage) -> list[Call]:
    """The tool calls of an answer: the framework's blocks, or what providers wrote before there were any."""
    blocks = [block for block in message.blocks if isinstance(block, ToolCallBlock)]
    if blocks:
        return [Call(block.tool_call_id, block.tool_name, _canonical(block.tool_kwargs)) for block in blocks]
    legacy = message.additional_kwargs.get("tool_calls")
    found = map(_legacy_call, legacy if isinstance(legacy, list | tuple) else ())
    return [call for call in found if call is not None]


def _legacy_call(call: Any) -> Call | None:
    """A call as OpenAI's or Anthropic's messages have it, as an object or as it is stored."""
    inner = field_of(call, "function") or call
    arguments: Any = next((found for key in _ARGUMENTS if (found := field_of(inner, key)) is not None), {})
    made, name = field_of(call, "id"), field_of(inner, "name")
    return Call(made if isinstance(made, str) else None, name, _canonical(arguments)) if isinstance(name, str) else None


_ARGUMENTS = ("arguments", "input")


def field_of(holder: Any, name: str) -> Any:
    """A field of what a provider gave, which may be an object or a dictionary; None where it has none of that name."""
    return holder.get(name) if isinstance(holder, dict) else getattr(holder, name, None)


def _canonical(arguments: Any) -> str:
    """Arguments as a text; providers give an object, or a JSON text with spaces of their own."""
    if isinstance(arguments, str):
        try:
            return _canonical(dict(json.loads(arguments)))
        except (TypeError, ValueError):
            return arguments
    return json.dumps(arguments, sort_keys=True, default=repr)


def _wrapped_question(prompt: str) -> str | None:
    for module, name, variable in _WRAPPED:
        # Whoever fills the template in has loaded the module that holds it.
        template = getattr(sys.modules.get(module), name, None)
        if isinstance(template, str) and (question := _filled_in(template, variable, prompt)):
            return question
    return None


def _filled_in(template: str, variable: str, prompt: str) -> str | None:
    """What stands in a filled-in template in the place of its last variable."""
    beginning, before, tail = _parts(template, variable)
    if not prompt.startswith(beginning) or not prompt.endswith(tail):
        return None
    _, lead, question = prompt[: len(prompt) - len(tail)].rpartition(before)
    return question.strip() if lead else None


@cache
def _parts(template: str, variable: str) -> tuple[str, str, str]:
    """What stands in a template before its first variable, and before and after its last one."""
    before, _, tail = template.partition(variable)
    return before.partition("{")[0], before.rpartition("}")[2], tail


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
