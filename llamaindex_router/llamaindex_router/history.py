"""A conversation that changes providers, made fit for the one that is to answer next.

Providers put into their answers what only they can read: signed thinking, tool calls in a format of their own, sources
of citations. Sent to another provider such a thing is an error, or is lost. What every provider reads stays: text,
images, tool calls as the framework's own blocks, and their results.
"""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from operator import is_
from typing import TYPE_CHECKING, Any

from llama_index.core.base.llms.types import CachePoint, CitationBlock, ThinkingBlock, ToolCallBlock
from llama_index.core.llms import ChatResponse
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.utils import parse_partial_json

from llamaindex_router.text import ASSISTANTS, calls_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llama_index.core.base.llms.types import ContentBlock
    from llama_index.core.llms import LLM, ChatMessage

logger = logging.getLogger(__name__)

_LEGACY = ("tool_calls", "function_call")
"""Keys under `additional_kwargs` where providers wrote tool calls before there were blocks for them."""

_SIGNING = ("Anthropic", "Bedrock")
"""Beginnings of the names of LLM classes that sign their thinking, and take no other."""

_REASONING_ITEMS = ("OpenAIResponses",)
"""The same of those whose thinking is an item that their provider keeps."""

_TAKE_CACHE_POINTS = _SIGNING
"""The same of those that know a block that marks a prompt cache; the others refuse it, or ignore it at best."""

_ROUTING = ("RoutedBase",)
"""The same of those that send the messages on to others, and make them fit themselves."""


def same_format(one: LLM, other: LLM) -> bool:
    """Whether two LLMs write messages in one format: the class of one builds on that of the other."""
    return isinstance(one, type(other)) or isinstance(other, type(one))


def _is_any(llm: LLM, names: tuple[str, ...]) -> bool:
    # By name, for the packages need not be there; those that build on such a class are like it.
    return any(kind.__name__.startswith(names) for kind in type(llm).__mro__)


def readable(messages: Sequence[ChatMessage], llm: LLM, other: LLM) -> Sequence[ChatMessage]:
    """The messages as the LLM that answers next can read them.

    Args:
        messages: A conversation; neither it nor a message of it is changed.
        llm: Who answers.
        other: Who may have answered before.

    Returns:
        The messages; where one had to change, another list with a copy in its place.
    """
    if same_format(llm, other):
        return messages
    try:
        fit = [_readable(message, llm, other) for message in messages]
    except Exception:  # what cannot be read here is the model's to refuse, or to understand
        logger.debug("the history could not be looked through", exc_info=True)
        return messages
    if all(after is before for after, before in zip(fit, messages, strict=True)):
        return messages
    return [message for message in fit if message is not None]


def _readable(message: ChatMessage, llm: LLM, other: LLM) -> ChatMessage | None:
    """The message, or a copy that can be read; None where nothing is left of it, for providers refuse empty ones."""
    if message.role in ASSISTANTS:
        blocks = _with_calls(message, llm, other)
        blocks = [made for block in blocks if (made := _fit_for(block, llm)) is not None]
    else:
        blocks = [block for block in message.blocks if not isinstance(block, CachePoint) or _knows_cache_points(llm)]
    # A reader of blocks may take the same calls from these keys once more, in a format that it does not know.
    drop = message.role in ASSISTANTS and any(isinstance(block, ToolCallBlock) for block in blocks)
    legacy = drop and any(key in message.additional_kwargs for key in _LEGACY)
    if not legacy and len(blocks) == len(message.blocks) and all(map(is_, blocks, message.blocks)):
        return message
    if not blocks and message.blocks:
        return None
    kwargs = message.additional_kwargs
    if legacy:
        kwargs = {key: value for key, value in kwargs.items() if key not in _LEGACY}
    return message.model_copy(update={"blocks": blocks, "additional_kwargs": kwargs})


def _with_calls(message: ChatMessage, llm: LLM, other: LLM) -> list[ContentBlock]:
    """The blocks of an answer, with its tool calls among them where only another LLM can see them."""
    blocks = list(message.blocks)
    if any(isinstance(block, ToolCallBlock) for block in blocks):
        return blocks
    if not any(message.additional_kwargs.get(key) for key in _LEGACY) or _read_by(llm, message):
        return blocks
    return [*blocks, *(_read_by(other, message) or _known(message))]


def _known(message: ChatMessage) -> list[ToolCallBlock]:
    """The tool calls of an answer that neither LLM reads, as no client does its own objects once they were stored."""
    return [
        _with_parsed_arguments(ToolCallBlock(tool_call_id=call.id, tool_name=call.name, tool_kwargs=call.arguments))
        for call in calls_of(message)
    ]


def _read_by(llm: LLM, message: ChatMessage) -> list[ToolCallBlock]:
    """The tool calls that an LLM sees in an answer."""
    if not isinstance(llm, FunctionCallingLLM):
        return []
    try:
        found = llm.get_tool_calls_from_response(ChatResponse(message=message), error_on_no_tool_call=False)
    except Exception:  # it is another one's format
        logger.debug("%s does not read these tool calls", type(llm).__name__, exc_info=True)
        return []
    return [
        ToolCallBlock(tool_call_id=call.tool_id, tool_name=call.tool_name, tool_kwargs=call.tool_kwargs)
        for call in found
    ]


def _knows_cache_points(llm: LLM) -> bool:
    return _is_any(llm, _TAKE_CACHE_POINTS + _ROUTING)


def _fit_for(block: ContentBlock, llm: LLM) -> ContentBlock | None:
    """A block of an answer as a format can take it; None where it cannot."""
    if isinstance(block, ToolCallBlock):
        return _with_parsed_arguments(block)
    if isinstance(block, ThinkingBlock):
        return block if _is_own_thinking(block, llm) else None
    # Citations repeat what the text says; only the provider that made them takes them back, and need not have them.
    return None if isinstance(block, CachePoint | CitationBlock) and not _knows_cache_points(llm) else block


def _with_parsed_arguments(call: ToolCallBlock) -> ToolCallBlock:
    """The call with its arguments as an object: some providers give a JSON text, which others refuse."""
    if not isinstance(call.tool_kwargs, str):
        return call
    arguments: Any = None
    for parse in (json.loads, parse_partial_json):  # An answer that was cut off has its arguments cut off too.
        with suppress(ValueError):
            arguments = parse(call.tool_kwargs or "{}")
            break
    kept = arguments if isinstance(arguments, dict) else {"arguments": call.tool_kwargs}
    return call.model_copy(update={"tool_kwargs": kept})


def _is_own_thinking(block: ThinkingBlock, llm: LLM) -> bool:
    if _is_any(llm, _ROUTING):
        return True  # It sees to that itself.
    more = block.additional_information
    item = more.get("id")
    if more.get("signature"):
        return _is_any(llm, _SIGNING)
    if isinstance(item, str) and item.startswith("rs_"):
        return _is_any(llm, _REASONING_ITEMS)
    return not _is_any(llm, _SIGNING + _REASONING_ITEMS)
