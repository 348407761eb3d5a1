"""A callback handler that reports the strong-call rate."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, get_args

from langchain_core.callbacks import BaseCallbackHandler

from langchain_router._messages import ROUTING_KEY
from prefroute.stats import DEFAULT_WINDOW, RoutingStats
from prefroute.types import Reason, Route, RoutingDecision

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prefroute.stats import StatsSnapshot

logger = logging.getLogger(__name__)

_REMEMBERED = 10_000
"""How many decisions are told apart. One is seen again only by runs below its own, so long before it is forgotten."""


class StrongCallRateHandler(BaseCallbackHandler):
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
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def strong_rate(self) -> float:
        """Share of decisions that chose the strong model; NaN before the first."""
        return self._stats.strong_rate

    @property
    def window_strong_rate(self) -> float:
        """The same over the latest `window` decisions; NaN before the first."""
        return self._stats.window_strong_rate

    def snapshot(self) -> StatsSnapshot:
        """All figures at one moment; latencies are None, for a run does not tell them."""
        return self._stats.snapshot()

    def reset(self) -> None:
        """Forget every decision."""
        with self._lock:
            self._seen.clear()
            self._stats.reset()

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
        routing = (metadata or {}).get(ROUTING_KEY)
        if routing is None:
            return
        try:
            decision = RoutingDecision.from_dict(routing)
            if decision.route not in get_args(Route) or decision.reason not in get_args(Reason):
                return
            with self._lock:
                if decision.id in self._seen:
                    return
                self._seen[decision.id] = None
                if len(self._seen) > _REMEMBERED:
                    self._seen.popitem(last=False)
                self._stats.record(decision)
        except (KeyError, TypeError, AttributeError):
            # Metadata is anybody's: something else may stand under this key.
            logger.debug("run metadata holds no routing decision under %r", ROUTING_KEY)
