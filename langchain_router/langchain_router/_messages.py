"""The two ends of a routed call: the text it is routed by, and the message it comes back with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from langchain_core.messages import BaseMessage, HumanMessage, convert_to_messages
from langchain_core.prompt_values import PromptValue

from prefroute.errors import PromptTypeError

if TYPE_CHECKING:
    from prefroute.types import RoutingDecision

ROUTING_KEY = "routing"
"""Where the decision stands, in run metadata and in `response_metadata`."""

OUTER_KEY, INNER_KEY = "outer", "inner"
"""Where one routed model is a side of another: the other's decision, below `routing`, in metadata and in a message."""


def prompt_text(value: Any) -> str:
    """The text that a call is routed by: the last human message, or the last message where there is none.

    In the steps of an agent the last message is often a tool's; the human one stays the same, so one turn stays
    with one model.

    Args:
        value: What a chat model takes: a str, a PromptValue, or a sequence of messages in any of their forms.

    Returns:
        Its text; parts that are not text are left out.

    Raises:
        PromptTypeError: It is something else.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, PromptValue):
        value = value.to_messages()
    if not isinstance(value, Sequence) or isinstance(value, bytes | bytearray):
        msg = f"a chat model takes a str, a PromptValue or a sequence of messages, got {type(value).__name__}"
        raise PromptTypeError(msg)
    last: BaseMessage | None = None
    for item in reversed(value):
        message = item if isinstance(item, BaseMessage) else convert_to_messages([item])[0]
        if isinstance(message, HumanMessage):
            return str(message.text)
        last = message if last is None else last
    return "" if last is None else str(last.text)


def nested(decision: RoutingDecision, key: str, other: object) -> dict[str, Any]:
    """A decision as a dictionary, with that of the routed model around or inside this one, if there is any."""
    return decision.as_dict() | ({key: other} if isinstance(other, dict) else {})


def annotated(value: Any, decision: RoutingDecision) -> Any:
    """What a child returned, with the decision in `response_metadata`; anything that is no message stays as it is.

    Always a copy: the same message may stand in a cache.
    """
    if isinstance(value, BaseMessage):
        routing = nested(decision, INNER_KEY, value.response_metadata.get(ROUTING_KEY))
        return value.model_copy(update={"response_metadata": {**value.response_metadata, ROUTING_KEY: routing}})
    if isinstance(value, dict) and isinstance(value.get("raw"), BaseMessage):
        # What a structured output is with `include_raw`.
        return type(value)({**value, "raw": annotated(value["raw"], decision)})
    return value
