"""How a decision becomes visible to LlamaIndex's instrumentation: one event, and tags on all that follows."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from llama_index.core.bridge.pydantic import ConfigDict
from llama_index.core.instrumentation.events import BaseEvent
from llama_index_instrumentation import get_dispatcher
from llama_index_instrumentation.dispatcher import active_instrument_tags

from prefroute import RoutingDecision

if TYPE_CHECKING:
    from collections.abc import Generator

ROUTING_KEY = "routing"
"""Where a decision stands: in instrumentation tags and in a response's `additional_kwargs`."""

_dispatcher = get_dispatcher(__name__)


class RoutingDecisionEvent(BaseEvent):
    """Sent once for each routing decision, before the chosen model is called.

    Attributes:
        decision: The decision: route, score, threshold, reason and id.
        model_name: Name of the chosen model, or of the choice that a selector made.
        seconds: Time it took to decide.
    """

    # Older releases of pydantic reserve every name that begins with "model_".
    model_config = ConfigDict(protected_namespaces=())

    decision: RoutingDecision
    model_name: str
    seconds: float

    @classmethod
    def class_name(cls) -> str:
        """Stable name of the event, for sinks that tell events apart by it."""
        return "RoutingDecisionEvent"


def announce(decision: RoutingDecision, model_name: str, seconds: float) -> None:
    """Send the event of one decision to every attached handler."""
    _dispatcher.event(RoutingDecisionEvent(decision=decision, model_name=model_name, seconds=seconds))


@contextmanager
def routing_tags(decision: RoutingDecision) -> Generator[None]:
    """Tag every event and span within with the decision, under `routing`.

    Never held across a `yield` of a stream: the consumer's own calls would carry the tag, and the reset
    might run in another context than the set.
    """
    # instrument_tags() of the framework replaces the tags, so whoever set others around us would lose them.
    token = active_instrument_tags.set({**active_instrument_tags.get(), ROUTING_KEY: decision.as_dict()})
    try:
        yield
    finally:
        active_instrument_tags.reset(token)


def tagged_decision() -> RoutingDecision | None:
    """The decision of the routed call that is being made in this context, if there is one."""
    fields: Any = active_instrument_tags.get().get(ROUTING_KEY)
    try:
        return RoutingDecision.from_dict(fields)
    except (KeyError, TypeError):  # No tag, or somebody else's of the same name.
        return None
