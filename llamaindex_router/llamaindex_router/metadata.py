"""What two LLMs have in common, as the framework sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_index.core.constants import DEFAULT_NUM_OUTPUTS
from llama_index.core.llms import LLMMetadata, MessageRole
from llama_index.core.llms.function_calling import FunctionCallingLLM

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llama_index.core.llms import LLM, ChatMessage

UNLIMITED = -1
"""A `num_output` that stands for no stated limit."""


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
    return LLMMetadata(
        context_window=window,
        num_output=_num_output(window, pair),
        is_chat_model=any(side.is_chat_model for side in pair),
        is_function_calling_model=calls_tools(strong) and calls_tools(weak),
        model_name=f"routed({pair[0].model_name}|{pair[1].model_name})",
        system_role=roles.pop() if len(roles) == 1 else MessageRole.SYSTEM,
    )


def _num_output(window: int, pair: Sequence[LLMMetadata]) -> int:
    if all(side.num_output == UNLIMITED for side in pair):
        return UNLIMITED
    # The framework gives a prompt `context_window - num_output` tokens. The larger num_output of a long-context
    # model can exceed the other's whole window; this keeps the smaller of the two rooms exactly.
    room = min(
        side.context_window - (DEFAULT_NUM_OUTPUTS if side.num_output == UNLIMITED else side.num_output)
        for side in pair
    )
    return window - room


def calls_tools(llm: LLM) -> bool:
    """Whether an LLM takes tools through its API."""
    return isinstance(llm, FunctionCallingLLM) and llm.metadata.is_function_calling_model


def model_name(llm: LLM) -> str:
    """Name of the model, for people; never fails."""
    try:
        return llm.metadata.model_name
    except Exception:  # noqa: BLE001 - providers look models up here and raise on new ones; a label is not worth a call
        return str(getattr(llm, "model", llm.class_name()))


def described(llm: LLM) -> dict[str, Any]:
    """What may be told of an LLM; its own fields may hold keys."""
    return {"class_name": llm.class_name(), "model_name": model_name(llm)}


def with_system_role(messages: Sequence[ChatMessage], chosen: LLM, other: LLM) -> Sequence[ChatMessage]:
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
    if all(message.role != MessageRole.SYSTEM for message in messages):
        return messages
    role = chosen.metadata.system_role
    if role in {MessageRole.SYSTEM, other.metadata.system_role}:
        return messages
    return [
        message.model_copy(update={"role": role}) if message.role == MessageRole.SYSTEM else message
        for message in messages
    ]
