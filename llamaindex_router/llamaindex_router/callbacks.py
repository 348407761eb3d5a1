"""Handlers that report the strong-call rate, one for each of LlamaIndex's two ways of watching."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.callbacks.base_handler import BaseCallbackHandler
from llama_index.core.callbacks.schema import CBEventType
from llama_index.core.instrumentation.event_handlers import BaseEventHandler

from llamaindex_router.events import RoutingDecisionEvent, tagged_decision
from prefroute.stats import DEFAULT_WINDOW, ReportsStats, RoutingStats

if TYPE_CHECKING:
    from llama_index.core.instrumentation.events import BaseEvent


class StrongCallRateEventHandler(ReportsStats, BaseEventHandler):
    """Counts routing *decisions*, of every routed LLM and selector, through instrumentation.

    This is the strong-call rate in the sense of calibration: one count for each time a router was asked.
    To attach it to everything in the process:
        ```python
        handler = StrongCallRateEventHandler()
        get_dispatcher().add_event_handler(handler)  # from llama_index.core.instrumentation
        ```

    Args:
        window: How many of the latest decisions `window_strong_rate` covers.
    """

    _stats: RoutingStats = PrivateAttr()

    def __init__(self, *, window: int = DEFAULT_WINDOW) -> None:
        super().__init__()
        self._stats = RoutingStats(window)

    @classmethod
    def class_name(cls) -> str:
        """Stable name of the class."""
        return "StrongCallRateEventHandler"

    def handle(self, event: BaseEvent, **kwargs: Any) -> None:  # noqa: ARG002 - the framework's signature
        """Count a decision; other events are not looked at."""
        if isinstance(event, RoutingDecisionEvent):
            self._stats.record(event.decision, event.seconds)


class StrongCallRateHandler(ReportsStats, BaseCallbackHandler):
    """Counts *calls of an LLM* that a routed LLM made, through the callback manager.

    One decision can be several calls (a structured prediction that is repaired, a ReAct step) or none (a
    selector's choice of a query engine), so the rate can differ from that of `StrongCallRateEventHandler`.
    Calls of LLMs that are not routed do not count, except what a tool calls while a routed `predict_and_call`
    runs it.
        ```python
        handler = StrongCallRateHandler()
        Settings.callback_manager.add_handler(handler)  # or RoutedLLM(..., callback_manager=...)
        ```

    Args:
        window: How many of the latest calls `window_strong_rate` covers.
    """

    def __init__(self, *, window: int = DEFAULT_WINDOW) -> None:
        super().__init__(event_starts_to_ignore=[], event_ends_to_ignore=[])
        self._stats = RoutingStats(window)

    def on_event_start(
        self,
        event_type: CBEventType,
        payload: dict[str, Any] | None = None,  # noqa: ARG002 - the framework's signature
        event_id: str = "",
        parent_id: str = "",  # noqa: ARG002 - as above
        **kwargs: Any,  # noqa: ARG002 - as above
    ) -> str:
        """Count the start of a routed LLM call."""
        if event_type == CBEventType.LLM and (decision := tagged_decision()) is not None:
            self._stats.record(decision)
        return event_id

    def on_event_end(
        self,
        event_type: CBEventType,
        payload: dict[str, Any] | None = None,
        event_id: str = "",
        **kwargs: Any,
    ) -> None:
        """Nothing: calls are counted when they start."""

    def start_trace(self, trace_id: str | None = None) -> None:
        """Nothing: traces are not counted."""

    def end_trace(self, trace_id: str | None = None, trace_map: dict[str, list[str]] | None = None) -> None:
        """Nothing: traces are not counted."""
