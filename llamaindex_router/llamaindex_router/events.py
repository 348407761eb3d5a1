"""How a decision becomes visible to LlamaIndex's instrumentation: one event, and tags on all that follows."""

from __future__ import annotations

import logging
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llama_index.core.bridge.pydantic import ConfigDict
from llama_index.core.instrumentation.events import BaseEvent
from llama_index_instrumentation import get_dispatcher
from llama_index_instrumentation.dispatcher import active_instrument_tags
from llama_index_instrumentation.event_handlers import NullEventHandler

from llamaindex_router.lending import current_loan
from prefroute import RoutingDecision  # noqa: TC001 - pydantic reads it from the field's annotation

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextvars import Token
    from types import TracebackType
    from typing import Self

    from llamaindex_router.lending import Loan
    from prefroute import Route

ROUTING_KEY = "routing"
"""Where a decision stands: in instrumentation tags and in a response's `additional_kwargs`."""

logger = logging.getLogger(__name__)

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
    # The framework's own handler for those who have none ignores events, and making one takes as long as deciding may.
    if _is_watched():
        _dispatcher.event(RoutingDecisionEvent(decision=decision, model_name=model_name, seconds=seconds))


def _is_watched() -> bool:
    dispatcher = _dispatcher
    while dispatcher:
        for handler in dispatcher.event_handlers:
            if type(handler) is not NullEventHandler:
                return True
        if not dispatcher.propagate:
            return False
        dispatcher = dispatcher.parent
    return False


@dataclass(slots=True, eq=False)
class Attempt:
    """One LLM asked for one answer.

    Attributes:
        side: Its side.
        model: The name of its model.
        routing: The decision, as it is recorded.
        loan: The callback handlers that it is lent.
        is_structured: Whether its answer is an object of the user's own, which says nothing of tokens.
    """

    side: Route
    model: str
    routing: Mapping[str, Any]
    loan: Loan | None = None
    is_structured: bool = False


_current: ContextVar[Attempt | None] = ContextVar("llamaindex_router_attempt", default=None)


def current_attempt() -> Attempt | None:
    """The attempt that is being made in this context, by the innermost routed LLM."""
    return _current.get()


class Attempting:
    """Within: every event and span is tagged with the decision, under `routing`, and the loan can be used.

    Never held across a `yield` of a stream: the consumer's own calls would carry the tag, and the reset might run in
    another context than the set.
    """

    __slots__ = ("_attempt", "_tokens")

    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt

    def __enter__(self) -> Self:
        """Set the tags, the attempt and the loan."""
        attempt = self._attempt
        # instrument_tags() of the framework replaces the tags, so whoever set others around us would lose them.
        tags = {**active_instrument_tags.get(), ROUTING_KEY: attempt.routing}
        self._tokens: tuple[Token[Any], Token[Any], Token[Any]] = (
            active_instrument_tags.set(tags),
            _current.set(attempt),
            current_loan.set(attempt.loan),
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Reset them."""
        tags, attempt, loan = self._tokens
        for variable, before in ((current_loan, loan), (_current, attempt), (active_instrument_tags, tags)):
            try:
                variable.reset(before)
            except ValueError:  # An event loop that is closed amid a chunk ends the stream in another context.
                logger.debug("%s was set in another context", variable.name)
