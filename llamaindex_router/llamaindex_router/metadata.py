"""What two LLMs have in common and what sets them apart, as the framework sees it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llama_index.core.constants import DEFAULT_NUM_OUTPUTS
from llama_index.core.llms import LLM, LLMMetadata, MessageRole
from llama_index.core.llms.function_calling import FunctionCallingLLM

from prefroute.capabilities import Limits, Needs, most_tokens_of, tokens_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llama_index.core.llms import ChatMessage

logger = logging.getLogger(__name__)

_ERROR = 1.5
"""How many times as much the estimate of tokens may say as there are."""

UNLIMITED = -1
"""A `num_output` that stands for no stated limit."""

TOOLS = "tool_calling"
"""The detail of a decision for a call with tools that the other side cannot take."""


@dataclass(frozen=True, slots=True)
class Known:
    """What routing needs to know of one LLM.

    Attributes:
        name: Name of its model, for people.
        limits: What it cannot do.
        system_role: The role in which it wants a system prompt.
        thinks: Whether it is set to signed thinking, as Anthropic's are.
        certain: Whether it said so itself; what it could not say now it may say later.
    """

    name: str
    limits: Limits
    system_role: MessageRole
    thinks: bool
    certain: bool = True

    @property
    def calls_tools(self) -> bool:
        """Whether it takes tools through its API."""
        return TOOLS not in self.limits.lacks


def known_of(llm: LLM) -> Known:
    """What there is to know of an LLM; never fails, for what is not known rules nothing out."""
    try:
        metadata = llm.metadata
    except Exception:  # providers look models up here and raise on new ones; the call itself may work
        logger.debug("metadata of %s could not be read", type(llm).__name__, exc_info=True)
        limits = Limits(lacks=_lacks(isinstance(llm, FunctionCallingLLM)))
        return Known(_name_of(llm), limits, MessageRole.SYSTEM, _thinks(llm), certain=False)
    # A window that nobody has stated is the framework's own guess.
    window = metadata.context_window - _output(metadata) if "context_window" in metadata.model_fields_set else None
    return Known(
        name=metadata.model_name,
        limits=Limits(window=window, lacks=_lacks(_calls_tools(llm, metadata))),
        system_role=metadata.system_role,
        thinks=_thinks(llm),
    )


def _calls_tools(llm: LLM, metadata: LLMMetadata) -> bool:
    return isinstance(llm, FunctionCallingLLM) and metadata.is_function_calling_model


def _lacks(calls_tools: bool) -> frozenset[str]:  # noqa: FBT001 - the one thing that it depends on
    return frozenset() if calls_tools else frozenset({TOOLS})


def _name_of(llm: LLM) -> str:
    return str(getattr(llm, "model", llm.class_name()))


def _thinks(llm: LLM) -> bool:
    settings = (llm.__dict__.get(name) for name in ("thinking_dict", "thinking"))
    return any(isinstance(one, dict) and one.get("type", "disabled") != "disabled" for one in settings)


def merged_metadata(strong: LLM, weak: LLM) -> LLMMetadata:
    """Metadata under which a call that was prepared fits whichever LLM takes it.

    Args:
        strong: One side.
        weak: The other.

    Returns:
        The smaller context window and the smaller room for a prompt in it; a chat model if either is one
        (the other applies its own `messages_to_prompt`); function calling only if both can.
    """
    pair = (strong.metadata, weak.metadata)
    window = min(side.context_window for side in pair)
    roles = {side.system_role for side in pair}
    # One that nobody has stated is the framework's guess, and is no more than that when it is handed on.
    stated = any(side.context_window == window and "context_window" in side.model_fields_set for side in pair)
    return LLMMetadata(
        **({"context_window": window} if stated else {}),
        num_output=_num_output(window, pair),
        is_chat_model=any(side.is_chat_model for side in pair),
        is_function_calling_model=all(map(_calls_tools, (strong, weak), pair)),
        model_name=f"routed({pair[0].model_name}|{pair[1].model_name})",
        system_role=roles.pop() if len(roles) == 1 else MessageRole.SYSTEM,
    )


def _num_output(window: int, pair: Sequence[LLMMetadata]) -> int:
    if all(side.num_output == UNLIMITED for side in pair):
        return UNLIMITED
    # The framework gives a prompt `context_window - num_output` tokens. The larger num_output of a long-context
    # model can exceed the other's whole window; this keeps the smaller of the two rooms exactly.
    return window - min(side.context_window - _output(side) for side in pair)


def _output(side: LLMMetadata) -> int:
    return DEFAULT_NUM_OUTPUTS if side.num_output == UNLIMITED else side.num_output


def described(llm: LLM) -> dict[str, Any]:
    """What may be told of an LLM; its own fields may hold keys."""
    return {"class_name": llm.class_name(), "model_name": known_of(llm).name}


class State:
    """What an LLM's metadata can depend on, at one moment: its attributes, and what containers and LLMs in them hold.

    What a container holds is not looked into.

    Args:
        llm: The LLM.
    """

    __slots__ = ("_contents", "_llm", "_llms", "_own", "_private")

    def __init__(self, llm: LLM) -> None:
        self._llm = llm
        self._own, self._private = dict(llm.__dict__), dict(llm.__pydantic_private__ or ())
        values = [*self._own.values(), *self._private.values()]
        self._contents = [(value, value.copy()) for value in values if isinstance(value, dict | list | set)]
        self._llms = [State(value) for value in values if isinstance(value, LLM)]

    def is_still_of(self, llm: LLM) -> bool:
        """Whether nothing of it has changed; what cannot be compared has."""
        if llm is not self._llm:
            return False
        try:
            # Of what is the same object only that is looked at, so this takes no longer than it must.
            return (
                llm.__dict__ == self._own
                and (llm.__pydantic_private__ or {}) == self._private
                and all(value == before for value, before in self._contents)
                and all(state.is_still_of(state._llm) for state in self._llms)  # noqa: SLF001 - same class
            )
        except Exception:  # values may be anything, and say anything when they are compared
            logger.debug("the attributes of %s could not be compared", type(llm).__name__, exc_info=True)
            return False


def needs_of(messages: Sequence[ChatMessage], window: int, *, tools: bool, is_packed: bool) -> Needs:
    """What a call needs, measured no better than is needed to see whether it fits.

    Args:
        messages: All that is sent; images and the like are not measured.
        window: The smaller window, in tokens.
        tools: Whether it brings tools.
        is_packed: Whether the framework made it fit, by a count of its own; then only what is far too much counts.
    """
    texts = [text for message in messages if (text := message.content)]
    tokens = tokens_of(*texts) if sum(map(most_tokens_of, texts)) > window else 0
    if is_packed:
        tokens = int(tokens / _ERROR)
    return Needs(tokens=tokens, features=frozenset({TOOLS}) if tools else frozenset())


def with_system_role(messages: Sequence[ChatMessage], chosen: Known, other: Known) -> Sequence[ChatMessage]:
    """The messages as the chosen LLM wants its system prompt.

    Chat engines write system prompts in the role that `metadata` names. That is SYSTEM for two LLMs that
    differ, and then the one that wants another role gets copies of those messages with it.

    Args:
        messages: A conversation; not changed.
        chosen: Who gets it.
        other: The other side.

    Returns:
        The messages, or a list in which the SYSTEM ones are replaced.
    """
    role = chosen.system_role
    if role in {MessageRole.SYSTEM, other.system_role}:
        return messages
    if all(message.role != MessageRole.SYSTEM for message in messages):
        return messages
    return [
        message.model_copy(update={"role": role}) if message.role == MessageRole.SYSTEM else message
        for message in messages
    ]
