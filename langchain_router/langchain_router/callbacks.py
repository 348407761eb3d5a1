"""A callback handler that reports the strong-call rate."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from langchain_core.callbacks import BaseCallbackHandler

from langchain_router._messages import OUTER_KEY, ROUTING_KEY
from prefroute.stats import DEFAULT_WINDOW, ReportsStats, RoutingStats
from prefroute.types import RoutingDecision

if TYPE_CHECKING:
    from collections.abc import Mapping

logger = logging.getLogger(__name__)


class StrongCallRateHandler(ReportsStats, BaseCallbackHandler):
    """Counts the routing decisions of the runs it sees, each one once.

    Works wherever callbacks go: on one call, a chain, a graph; with sync and async code, from any number of threads.
    It sees what runs below the place it is attached to; `RoutedChatModel.stats` counts everything that one model
    decides. A retry around a routed model decides again, which counts again; a retry inside it does not.

    Example:
        ```python
        rate = StrongCallRateHandler()
        chain.batch(questions, config={"callbacks": [rate]})
        rate.strong_rate
        ```

    Args:
        window: How many of the latest decisions the windowed rate covers.

    Raises:
        ConfigurationError: `window` is not a positive integer.
    """

    # It only counts, so an event loop need not send it to a thread.
    run_inline = True

    def __init__(self, window: int = DEFAULT_WINDOW) -> None:
        self._stats = RoutingStats(window)

    def on_chat_model_start(self, *_: Any, metadata: Mapping[str, Any] | None = None, **__: Any) -> None:
        """Count the decision that a chat model's run carries."""
        self._count(metadata)

    def on_llm_start(self, *_: Any, metadata: Mapping[str, Any] | None = None, **__: Any) -> None:
        """Count the decision that a completion model's run carries."""
        self._count(metadata)

    def on_chain_start(self, *_: Any, metadata: Mapping[str, Any] | None = None, **__: Any) -> None:
        """Count the decision that the run of a retry, a fallback or a chain around a model carries."""
        self._count(metadata)

    def _count(self, metadata: Mapping[str, Any] | None) -> None:
        try:
            routing = (metadata or {}).get(ROUTING_KEY)
            while routing is not None:
                self._stats.record_once(RoutingDecision.from_dict(routing))
                routing = routing.get(OUTER_KEY)
        except Exception:  # noqa: BLE001 - metadata is anybody's, and a handler must not disturb the call
            logger.debug("run metadata holds no routing decision under %r", ROUTING_KEY)
