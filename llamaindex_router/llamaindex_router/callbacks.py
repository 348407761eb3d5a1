"""Handlers that report the strong-call rate, one for each of LlamaIndex's two ways of watching."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NoReturn

from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.callbacks.base_handler import BaseCallbackHandler
from llama_index.core.callbacks.schema import CBEventType, EventPayload
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events.exception import ExceptionEvent
from llama_index.core.instrumentation.events.llm import (
    LLMChatEndEvent,
    LLMChatStartEvent,
    LLMCompletionEndEvent,
    LLMCompletionStartEvent,
)
from llama_index_instrumentation.events.span import SpanDropEvent

from llamaindex_router.counting import CallCounter
from llamaindex_router.events import RoutingDecisionEvent
from prefroute import ConfigurationError, RoutingDecision
from prefroute.stats import DEFAULT_WINDOW, ReportsStats, RoutingStats, StatsSnapshot

if TYPE_CHECKING:
    from collections.abc import Mapping

    from llama_index.core.instrumentation.events import BaseEvent

    from prefroute.costs import Price
    from prefroute.usage import UsageSnapshot

logger = logging.getLogger(__name__)


class HandlerSnapshot(StatsSnapshot):
    """What the handlers' `snapshot` returns: one moment, JSON-safe.

    The figures of `StatsSnapshot` are of decisions or of calls, as the handler counts. `calls` counts calls of LLMs:
    what each side answered, whatever was decided, and what that used and cost.
    """

    calls: UsageSnapshot


class _Reports(ReportsStats):
    """The figures of a handler."""

    _calls: CallCounter

    def snapshot(self) -> HandlerSnapshot:
        """All figures; each kind of them at one moment."""
        return {**self._stats.snapshot(), "calls": self._calls.snapshot()}

    def reset(self) -> None:
        """Forget everything counted; calls under way will be counted when they end."""
        self._stats.reset()
        self._calls.reset()


class StrongCallRateEventHandler(_Reports, BaseEventHandler):
    """Counts routing *decisions*, of every routed LLM and selector, through instrumentation; and the calls that follow.

    Its `strong_rate` is that of calibration: one count for each time a side was chosen, once for a turn of several
    calls. Calls of LLMs that are not routed do not count, except what a tool calls while a routed `predict_and_call`
    runs it. To attach it to everything in the process:
        ```python
        handler = StrongCallRateEventHandler()
        get_dispatcher().add_event_handler(handler)  # from llama_index.core.instrumentation
        ```

    Args:
        window: How many of the latest decisions `window_strong_rate` covers.
        prices: Prices of models by the names that their answers give, such as `prefroute.costs.Prices.read(file)`;
            without them no cost is known.

    Raises:
        ConfigurationError: `window` is not a positive integer, or something is no price.
    """

    _stats: RoutingStats = PrivateAttr()
    _calls: CallCounter = PrivateAttr()

    def __init__(self, *, window: int = DEFAULT_WINDOW, prices: Mapping[str, Price | None] | None = None) -> None:
        super().__init__()
        self._stats = RoutingStats(window)
        self._calls = CallCounter(prices)

    @classmethod
    def class_name(cls) -> str:
        """Stable name of the class."""
        return "StrongCallRateEventHandler"

    @property
    def event_starts_to_ignore(self) -> NoReturn:
        """Say that this is the wrong kind: only a callback manager asks for this."""
        self.start_trace()

    def start_trace(self, trace_id: str | None = None) -> NoReturn:  # noqa: ARG002 - the signature of the other kind
        """Say that this is the wrong kind.

        Raises:
            ConfigurationError: Always: only a callback manager calls this.
        """
        msg = (
            "StrongCallRateEventHandler is for get_dispatcher().add_event_handler(...); "
            "a CallbackManager takes a StrongCallRateHandler"
        )
        raise ConfigurationError(msg)

    def handle(self, event: BaseEvent, **kwargs: Any) -> None:  # noqa: ARG002 - the framework's signature
        """Count a decision, or a call of a routed LLM; other events are not looked at."""
        if isinstance(event, RoutingDecisionEvent):
            self._stats.record(event.decision, event.seconds)
        elif isinstance(event, LLMChatStartEvent | LLMCompletionStartEvent):
            self._calls.started(event.span_id)
        elif isinstance(event, LLMChatEndEvent | LLMCompletionEndEvent):
            self._calls.ended(event.span_id, event.response)
        elif isinstance(event, ExceptionEvent | SpanDropEvent):
            # The first is sent for a stream that breaks off, the second for a call that raises.
            self._calls.failed(event.span_id)


class StrongCallRateHandler(_Reports, BaseCallbackHandler):
    """Counts *calls of an LLM* that a routed LLM made, through the callback manager, by the side that was called.

    One decision can be several calls (a structured prediction that is repaired, the steps of an agent) or none (a
    selector's choice of a query engine), so the rate can differ from that of `StrongCallRateEventHandler`.
    Calls of LLMs that are not routed do not count, except what a tool calls while a routed `predict_and_call`
    runs it.
        ```python
        handler = StrongCallRateHandler()
        Settings.callback_manager.add_handler(handler)  # before engines are built
        ```

    Args:
        window: How many of the latest calls `window_strong_rate` covers.
        prices: As for `StrongCallRateEventHandler`.

    Raises:
        ConfigurationError: `window` is not a positive integer, or something is no price.
    """

    def __init__(self, *, window: int = DEFAULT_WINDOW, prices: Mapping[str, Price | None] | None = None) -> None:
        super().__init__(event_starts_to_ignore=[], event_ends_to_ignore=[])
        self._is_told = False
        self._stats = RoutingStats(window)
        self._calls = CallCounter(prices)

    def on_event_start(
        self,
        event_type: CBEventType,
        payload: dict[str, Any] | None = None,  # noqa: ARG002 - the framework's signature
        event_id: str = "",
        parent_id: str = "",  # noqa: ARG002 - as above
        **kwargs: Any,  # noqa: ARG002 - as above
    ) -> str:
        """Count the start of a routed LLM call."""
        if event_type == CBEventType.LLM:
            attempt = self._calls.started(event_id)
            if attempt is not None:
                self._stats.record(RoutingDecision.from_dict({**attempt.routing, "route": attempt.side}))
        return event_id

    def on_event_end(
        self,
        event_type: CBEventType,
        payload: dict[str, Any] | None = None,
        event_id: str = "",
        **kwargs: Any,  # noqa: ARG002 - the framework's signature
    ) -> None:
        """Count what a routed LLM call used, or that it failed."""
        if event_type != CBEventType.LLM:
            return
        found = payload or {}
        if EventPayload.EXCEPTION in found:
            self._calls.failed(event_id)
        else:
            self._calls.ended(event_id, found.get(EventPayload.RESPONSE) or found.get(EventPayload.COMPLETION))

    def handle(self, event: object, **kwargs: Any) -> None:  # noqa: ARG002 - the signature of the other kind
        """Say that this is the wrong kind: a dispatcher passes over what its handlers raise."""
        if self._is_told:
            return
        self._is_told = True
        logger.error("StrongCallRateHandler is for a CallbackManager; a dispatcher takes a StrongCallRateEventHandler")

    def start_trace(self, trace_id: str | None = None) -> None:
        """Nothing: traces are not counted."""

    def end_trace(self, trace_id: str | None = None, trace_map: dict[str, list[str]] | None = None) -> None:
        """Nothing: traces are not counted."""
