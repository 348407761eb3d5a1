"""What a server sent back, as a reply: whatever was paid for is one, even if nothing can be read in it."""

from __future__ import annotations

from typing import Any

from prefroute.inputs import as_prompt
from prefroute.labelling.journal import Reply

_MOST_TOKENS = 10**9
"""A count above it is none."""


class NoReplyError(ValueError):
    """What came with status 200 is no completion, and nothing says that it was paid for."""


def reply_of(body: Any, sent: int) -> Reply:
    """A completion as a reply.

    Args:
        body: Of the answer, as JSON knows it.
        sent: Estimated input tokens.

    Returns:
        The reply; one that holds no text in any known form has a fault.

    Raises:
        NoReplyError: It is no completion.
    """
    found = body if isinstance(body, dict) else {}
    choices, usage = found.get("choices"), _object(found.get("usage"))
    if not isinstance(choices, list) and not usage:
        msg = f"the server gave {_shape(body)}, which has no choices; does it speak OpenAI's protocol?"
        raise NoReplyError(msg)
    choice = _object(choices[0]) if isinstance(choices, list) and choices else None
    text, fault = ("", "it has no choices") if choice is None else _text(_object(choice.get("message")))
    reason = None if choice is None else choice.get("finish_reason")
    return Reply(
        text=as_prompt(text),
        finish_reason=as_prompt(reason) if isinstance(reason, str) else None,
        input_tokens=_count(usage.get("prompt_tokens")),
        output_tokens=_output(usage),
        cached_tokens=_count(_object(usage.get("prompt_tokens_details")).get("cached_tokens")) or 0,
        sent_tokens=sent,
        fault=fault,
    )


def _text(message: dict[str, Any]) -> tuple[str, str | None]:
    """The text of a message, and why there is none."""
    content = message.get("content") or message.get("refusal") or ""
    if isinstance(content, list):
        # Some servers part what a model thinks from what it says.
        parts = [_object(part).get("text") for part in content if _object(part).get("type") == "text"]
        content = "".join(part for part in parts if isinstance(part, str))
    if isinstance(content, str):
        return content, None
    return "", f"its content is {_shape(content)}"


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _count(value: object) -> int | None:
    return value if type(value) is int and 0 <= value <= _MOST_TOKENS else None


def _output(usage: dict[str, Any]) -> int | None:
    """Some servers leave what a model thought out of `completion_tokens`, but not out of the total and the bill."""
    sent, received, total = (_count(usage.get(f"{name}_tokens")) for name in ("prompt", "completion", "total"))
    return received if sent is None or total is None else max(received or 0, total - sent)


def _shape(value: object) -> str:
    if isinstance(value, dict):
        return f"an object with {', '.join(map(repr, list(value)[:5])) or 'nothing'}"
    return f"a {type(value).__name__}"
