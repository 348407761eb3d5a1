"""The two ends of a routed call: the conversation that it brings, and the message it comes back with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage, convert_to_messages
from langchain_core.prompt_values import PromptValue

from prefroute.conversation import Message
from prefroute.errors import PromptTypeError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

ROUTING_KEY = "routing"
"""Where the decision stands, in run metadata and in `response_metadata`."""

OUTER_KEY, INNER_KEY = "outer", "inner"
"""Where one routed model is a side of another: the other's decision, below `routing`, in metadata and in a message."""


class Prompt:
    """What a chat model is given, read as far as it is asked for.

    Args:
        value: A str, a PromptValue, or a sequence of messages in any of their forms.

    Raises:
        PromptTypeError: It is something else.
    """

    def __init__(self, value: Any) -> None:
        is_sequence = isinstance(value, Sequence) and not isinstance(value, bytes | bytearray)
        if not is_sequence and not isinstance(value, PromptValue):
            msg = f"a chat model takes a str, a PromptValue or a sequence of messages, got {type(value).__name__}"
            raise PromptTypeError(msg)
        self.value = value

    @cached_property
    def messages(self) -> list[BaseMessage]:
        """Its messages."""
        if isinstance(self.value, str):
            return [HumanMessage(self.value)]
        if isinstance(self.value, PromptValue):
            return self.value.to_messages()
        return [self._message(item) for item in self.value]

    def newest_first(self, depth: int = 0) -> Iterator[Message]:
        """Its messages as routing sees them, from the last one back.

        Args:
            depth: How many routed models stand around the one that asks; answers carry the decisions of all.
        """
        if isinstance(self.value, str):
            yield Message(role="human", text=self.value)
            return
        items = self.messages if isinstance(self.value, PromptValue) else self.value
        for item in reversed(items):
            yield _seen(self._message(item), depth)

    @staticmethod
    def _message(item: Any) -> BaseMessage:
        return item if isinstance(item, BaseMessage) else convert_to_messages([item])[0]


def _seen(message: BaseMessage, depth: int) -> Message:
    if isinstance(message, HumanMessage):
        # LangChain's own summary of what was said before is nothing that the person says.
        summary = message.additional_kwargs.get("lc_source") == "summarization"
        return Message(role="other" if summary else "human", text=str(message.text))
    if isinstance(message, AIMessage):
        calls = tuple(f"{call['name']} {_canonical(call['args'])}" for call in message.tool_calls)
        return Message(role="ai", text=str(message.text), calls=calls, routing=recorded_routing(message, depth))
    if isinstance(message, ToolMessage):
        return Message(role="tool", text=str(message.text), failed=message.status == "error")
    return Message(role="other", text=str(message.text))


def _canonical(arguments: object) -> str:
    return json.dumps(arguments, sort_keys=True, default=repr)


def recorded_routing(message: BaseMessage, depth: int = 0) -> Mapping[str, Any] | None:
    """The decision that an answer carries, by the routed model that has so many others around it."""
    routing = message.response_metadata.get(ROUTING_KEY)
    for _ in range(depth):
        routing = routing.get(INNER_KEY) if isinstance(routing, dict) else None
    return routing if isinstance(routing, dict) else None


def depth_of(metadata: Mapping[str, Any] | None) -> int:
    """How many routed models a call has come through, by the metadata of its run."""
    return sum(1 for _ in records((metadata or {}).get(ROUTING_KEY)))


def records(routing: object) -> Iterator[dict[str, Any]]:
    """A recorded decision and those around it; what is somebody else's under the same key is none."""
    while isinstance(routing, dict) and isinstance(routing.get("id"), str) and "route" in routing:
        yield routing
        routing = routing.get(OUTER_KEY)


def flat(routing: Mapping[str, Any]) -> dict[str, Any]:
    """The main fields of a recorded decision under names of their own: tracers filter by plain keys."""
    return {f"router_{name}": routing[name] for name in ("route", "score", "threshold", "reason")}


def nested(routing: Mapping[str, Any], key: str, other: object) -> dict[str, Any]:
    """A decision as it is recorded, with that of the routed model around or inside this one, if there is any."""
    return {**routing, **({key: other} if isinstance(other, dict) else {})}


def annotated(value: Any, routing: Mapping[str, Any]) -> Any:
    """What a child returned, with the decision in `response_metadata`; anything that is no message stays as it is.

    Always a copy: the same message may stand in a cache.
    """
    if isinstance(value, BaseMessage):
        found = nested(routing, INNER_KEY, value.response_metadata.get(ROUTING_KEY))
        return value.model_copy(update={"response_metadata": {**value.response_metadata, ROUTING_KEY: found}})
    if isinstance(value, dict) and isinstance(value.get("raw"), BaseMessage):
        # What a structured output is with `include_raw`.
        return type(value)({**value, "raw": annotated(value["raw"], routing)})
    return value
