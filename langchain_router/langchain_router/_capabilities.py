"""What a call needs of a model, and what the models lack by their profiles."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from langchain_core.messages import AIMessage

from langchain_router._children import find_asked_model, with_tools
from prefroute.capabilities import Limits, Needs, most_tokens_of, tokens_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from langchain_core.messages import BaseMessage
    from langchain_core.runnables import Runnable

TOOLS, SCHEMA = "tool_calling", "structured_output"

_FEATURES = {
    "audio": "audio_inputs",
    "document": "pdf_inputs",
    "file": "pdf_inputs",
    "image": "image_inputs",
    "image_url": "image_inputs",
    "input_audio": "audio_inputs",
    "input_file": "pdf_inputs",
    "input_image": "image_inputs",
    "media": "image_inputs",
    "video": "video_inputs",
}
"""Types of content blocks, LangChain's own and providers', and the key of a model profile that tells of them."""

_BY_MIME = {"audio": "audio_inputs", "image": "image_inputs", "video": "video_inputs"}

_KNOWN = (TOOLS, *sorted(set(_FEATURES.values())))

_TOKENS_OF_A_BLOCK = 1000
"""What an image or a file is counted as: about what providers bill for a picture of ordinary size."""

_MOST_OF_A_TOOL = 2000
"""Tokens that the description of one tool hardly ever exceeds."""

_NO_LIMITS = Limits()


def limits_of(child: Runnable[Any, Any]) -> Limits:
    """What a child cannot do by the profile of its model; without one nothing is known, so nothing is ruled out."""
    found = find_asked_model(child)
    profile = None if found is None else found.model.profile
    if not profile:
        return _NO_LIMITS
    window = profile.get("max_input_tokens")
    lacks = {feature for feature in _KNOWN if profile.get(feature) is False}
    # A model without structured output of its own answers in a schema by a tool.
    if TOOLS in lacks and profile.get(SCHEMA) is False:
        lacks.add(SCHEMA)
    return Limits(window=window if isinstance(window, int) else None, lacks=lacks)


def bound_tools(*children: Runnable[Any, Any]) -> Any:
    """The tools that are bound to a child, of the first that has any."""
    found = (find_asked_model(child) for child in children)
    return next((tools for one in found if one is not None and (tools := one.kwargs.get("tools"))), None)


def thinks(child: Runnable[Any, Any]) -> bool:
    """Whether a child's model is set to signed thinking, as Anthropic's are."""
    found = find_asked_model(child)
    if found is None:
        return False
    # Asked of the class, for a pydantic model takes its time to say that it has no such attribute.
    own = found.model.thinking if "thinking" in type(found.model).model_fields else None  # type: ignore[attr-defined]
    setting = found.kwargs.get("thinking", own)
    return isinstance(setting, dict) and setting.get("type") != "disabled"


def with_tools_where_able(
    children: Sequence[Runnable[Any, Any]], tools: Any, **kwargs: Any
) -> list[Runnable[Any, Any]]:
    """The strong and the weak child with tools; one that cannot have them, and says so in its profile, stays as it is.

    Raises:
        NotImplementedError: No child can take tools, or one cannot whose profile does not say so.
    """
    able: list[Runnable[Any, Any]] = []
    unable = 0
    for side, child in zip(("strong", "weak"), children, strict=True):
        try:
            able.append(with_tools(child, tools, **kwargs))
        except NotImplementedError as error:
            unable += 1
            if TOOLS not in limits_of(child).lacks or unable == len(children):
                found = find_asked_model(child)
                name = type(child if found is None else found.model).__name__
                msg = f"the {side} model cannot take tools: {error or name}"
                raise NotImplementedError(msg) from error
            able.append(child)
    return able


def needs_of(messages: Sequence[BaseMessage], tools: Any, window: int | None, *, schema: bool = False) -> Needs:
    """What a call needs.

    Args:
        messages: All that is sent.
        tools: A sequence of what it may call, in any form; None or empty for nothing.
        window: The smaller window; nothing is measured where it could not matter.
        schema: Whether the answer must follow one.

    Returns:
        The needs.
    """
    features = ({TOOLS} if tools else set()) | ({SCHEMA} if schema else set())
    texts: list[str] = []
    blocks = 0
    for message in messages:
        for block in [message.content] if isinstance(message.content, str) else message.content:
            feature = _feature(block)
            if feature is not None:
                features.add(feature)
                blocks += _TOKENS_OF_A_BLOCK
            else:
                texts.extend(_texts(block))
        if isinstance(message, AIMessage):
            texts.extend(_json(call["args"]) for call in message.tool_calls)
    return Needs(tokens=blocks + _tokens(texts, tools, window, blocks), features=features)


def _tokens(texts: Sequence[str], tools: Any, window: int | None, blocks: int) -> int:
    """Tokens of texts and tools, no better than is needed to see whether they fit."""
    most = blocks + sum(map(most_tokens_of, texts)) + (_MOST_OF_A_TOOL * len(tools) if tools else 0)
    if window is None or most <= window:
        return 0
    return tokens_of(*texts) + (tokens_of(_json(tools)) if tools else 0)


def _feature(block: str | dict[str, Any]) -> str | None:
    if isinstance(block, str):
        return None
    kind = block.get("type")
    if not isinstance(kind, str) or kind not in _FEATURES:
        return None
    mime = _mime(block)
    if mime is None:
        return _FEATURES[kind]
    return "pdf_inputs" if mime == "application/pdf" else _BY_MIME.get(mime.partition("/")[0])


def _mime(block: dict[str, Any]) -> str | None:
    """The media type that a block names, in one of the places where providers have it."""
    source = block.get("source")
    holder = source if isinstance(source, dict) else {}
    if holder.get("type") == "text":
        return "text/plain"
    file = block.get("file")
    data = file.get("file_data") if isinstance(file, dict) else block.get("file_data")
    inline = data[5:].partition(";")[0] if isinstance(data, str) and data.startswith("data:") else None
    found = block.get("mime_type") or holder.get("media_type") or inline
    return found if isinstance(found, str) else None


def _texts(block: str | dict[str, Any]) -> Iterator[str]:
    if isinstance(block, str):
        yield block
    else:
        yield from (value for value in (block.get("text"), block.get("thinking")) if isinstance(value, str))


def _json(value: object) -> str:
    return json.dumps(value, default=str)
