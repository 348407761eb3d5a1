"""A conversation that changes providers, made fit for the one that is to answer next.

Providers put into their answers what only they can read: signed thinking, encrypted reasoning, results of their own
tools. Sent to another provider such a block is an error (400), and so is a mark for a prompt cache that the other does
not have. What every provider reads stays: text, tool calls and their results.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from langchain_core.messages import AIMessage, BaseMessage

from langchain_router._messages import ROUTING_KEY
from prefroute.conversation import answered_by

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from prefroute.types import Route

_FAMILIES = {
    "amazon_bedrock": "bedrock",
    "anthropic-bedrock": "anthropic",
    "anthropic-mantle": "anthropic",
    "azure": "openai",
    "azure_openai": "openai",
    "bedrock_converse": "bedrock",
    "google_genai": "google",
    "google_vertexai": "google",
    "mistral": "mistralai",
}
"""Names under which one provider's format goes, in LangSmith parameters and in `model_provider` of a message."""

_CACHE_MARKS = ("cache_control", "cachePoint", "prompt_cache_breakpoint")
"""Marks for a prompt cache in content blocks: Anthropic's, Bedrock's and OpenAI's."""

_REFUSED_MARKS = {
    "anthropic": ("cachePoint", "prompt_cache_breakpoint"),
    "bedrock": ("prompt_cache_breakpoint",),
    "openai": ("cache_control", "cachePoint"),
    **dict.fromkeys(("cohere", "deepseek", "google", "groq", "mistralai", "xai"), _CACHE_MARKS),
}
"""Those that a format is known to refuse; who else takes them is not known, so there they stay."""


def family(provider: object) -> str | None:
    """The format that a provider's messages have, None where the provider is not known."""
    return _FAMILIES.get(provider, provider) if isinstance(provider, str) else None


def may_be_foreign(message: BaseMessage) -> bool:
    """Whether a message can hold what only one provider reads."""
    return isinstance(message, AIMessage) or not isinstance(message.content, str)


def readable(
    messages: Sequence[BaseMessage], *, side: Route, families: Mapping[Route, str | None]
) -> list[BaseMessage] | None:
    """The messages as the side that answers next can read them.

    Args:
        messages: The conversation; neither it nor a message of it is changed.
        side: Who answers next.
        families: Whose format each side has.

    Returns:
        The conversation, with another object for each message that had to change; None where none had to.
    """
    own = families[side]
    fit = [_readable(message, own, families) for message in messages]
    if all(after is before for after, before in zip(fit, messages, strict=True)):
        return None
    return [message for message in fit if message is not None]


def _readable(message: BaseMessage, own: str | None, families: Mapping[Route, str | None]) -> BaseMessage | None:
    if isinstance(message, AIMessage) and (author := _author(message, families)) is not None and author != own:
        return _neutral(message)
    if isinstance(message.content, str):
        return message
    content = [_without_foreign_marks(block, own) for block in message.content]
    if all(after is before for after, before in zip(content, message.content, strict=True)):
        return message
    return message.model_copy(update={"content": [block for block in content if block is not None]})


def _author(message: AIMessage, families: Mapping[Route, str | None]) -> str | None:
    """Whose format an answer has: as the message says itself, else that of the side that gave it.

    Clients that are built on another provider's package leave that one's name, so a name that is neither side's says
    less than the record.
    """
    named = family(message.response_metadata.get("model_provider"))
    if named in families.values():
        return named
    routing = message.response_metadata.get(ROUTING_KEY)
    side = answered_by(routing) if isinstance(routing, dict) else None
    return named if side is None else families[side]


def _neutral(message: AIMessage) -> AIMessage | None:
    """The answer as text and tool calls; None where nothing is left, for providers refuse empty answers."""
    text = "".join(map(_text, [message.content] if isinstance(message.content, str) else message.content))
    text = text or _text({"type": "refusal", **message.additional_kwargs})
    if not text.strip() and not message.tool_calls and not message.invalid_tool_calls:
        return None
    return AIMessage(
        text, name=message.name, tool_calls=message.tool_calls, invalid_tool_calls=message.invalid_tool_calls
    )


def _text(block: str | dict[str, Any]) -> str:
    if isinstance(block, str):
        return block
    kind = block.get("type")
    # A tuple, for what stands in a message need not be hashable.
    found = block.get("text") if kind in ("text", "output_text") else block.get("refusal") if kind == "refusal" else ""
    return found if isinstance(found, str) else ""


def _without_foreign_marks(block: Any, own: str | None) -> Any:
    """The block without marks for another provider's prompt cache; None where it was nothing else."""
    if not isinstance(block, dict):
        return block
    foreign = set(_REFUSED_MARKS.get(own or "", ()))
    extras = block.get("extras")
    marked_extras = isinstance(extras, dict) and not foreign.isdisjoint(extras)
    if foreign.isdisjoint(block) and not marked_extras:
        return block
    kept = {key: value for key, value in block.items() if key not in foreign}
    if marked_extras and isinstance(extras, dict):
        kept["extras"] = {key: value for key, value in extras.items() if key not in foreign}
    return kept or None
