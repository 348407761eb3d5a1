"""A callback handler that reports the strong-call rate, and what the calls used."""

from __future__ import annotations

import logging
import re
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, NamedTuple

from langchain_core.callbacks import BaseCallbackHandler

from langchain_router._messages import ROUTING_KEY, records
from langchain_router._usage import used
from prefroute._shared import Shared
from prefroute.conversation import answered_by
from prefroute.stats import DEFAULT_WINDOW, ReportsStats, RoutingStats, StatsSnapshot
from prefroute.types import RoutingDecision
from prefroute.usage import CallStats, GroupedRates, GroupRate, UsageSnapshot

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from uuid import UUID

    from langchain_core.outputs import LLMResult

    from prefroute.costs import Price
    from prefroute.types import Route

logger = logging.getLogger(__name__)

_MOST_RUNS = 100_000
"""Runs under way that are remembered: one whose end is never told must not be kept for ever."""

_POSITION = re.compile(
    r"(seq:step|graph:step|condition|retry:attempt):\d+|branch:(\d+|default)|map:key:.*|langsmith:.*"
)
"""Tags that LangChain itself gives the parts of a chain."""


class HandlerSnapshot(StatsSnapshot):
    """What `StrongCallRateHandler.snapshot` returns: one moment, JSON-safe.

    The figures of `StatsSnapshot` count decisions; `by_tag` and `by_run_name` group them, by the tags of the run that
    first showed a decision, and by the name of that run and of all runs around it. `calls` counts runs of models: what
    each side answered, whatever was decided.
    """

    by_tag: dict[str, GroupRate]
    by_run_name: dict[str, GroupRate]
    calls: UsageSnapshot


class _Run(NamedTuple):
    """A run under way: its name, the run around it and, for a run of a routed model, who answers."""

    name: str | None
    parent: UUID | None
    side: Route | None = None
    model: str | None = None


class StrongCallRateHandler(Shared, ReportsStats, BaseCallbackHandler):
    """Counts the routing decisions of the runs it sees, each one once, and the calls of models that follow from them.

    Works wherever callbacks go: on one call, a chain, a graph; with sync and async code, from any number of threads.
    It sees what runs below the place it is attached to; `RoutedChatModel.stats` counts everything that one model
    decides. A retry around a routed model decides again, which counts again; a retry inside it is another call of the
    same decision.

    Example:
        ```python
        rate = StrongCallRateHandler()
        chain.batch(questions, config={"callbacks": [rate]})
        rate.strong_rate
        rate.snapshot()["calls"]["strong"]["output_tokens"]
        ```

    Args:
        window: How many of the latest decisions the windowed rate covers.
        prices: Prices of models by the names that their answers give, such as `prefroute.costs.Prices.read(file)`;
            without them no cost is known.

    Raises:
        ConfigurationError: `window` is not a positive integer.
    """

    # It only counts, so an event loop need not send it to a thread.
    run_inline = True

    def __init__(self, window: int = DEFAULT_WINDOW, *, prices: Mapping[str, Price | None] | None = None) -> None:
        super().__init__()
        self._stats = RoutingStats(window)
        self._calls = CallStats(prices)
        self._by_tag, self._by_name = GroupedRates(), GroupedRates()
        self._runs: OrderedDict[UUID, _Run] = OrderedDict()

    def snapshot(self) -> HandlerSnapshot:
        """All figures; each kind of them at one moment."""
        return {
            **self._stats.snapshot(),
            "by_tag": self._by_tag.snapshot(),
            "by_run_name": self._by_name.snapshot(),
            "calls": self._calls.snapshot(),
        }

    def reset(self) -> None:
        """Forget everything counted; calls under way will be counted when they end."""
        for counts in (self._stats, self._calls, self._by_tag, self._by_name):
            counts.reset()

    def on_chat_model_start(self, serialized: Any, *_: Any, **event: Any) -> None:
        """Count the decision that a chat model's run carries."""
        self._started(serialized, event, answers=True)

    def on_llm_start(self, serialized: Any, *_: Any, **event: Any) -> None:
        """Count the decision that a completion model's run carries."""
        self._started(serialized, event, answers=True)

    def on_chain_start(self, serialized: Any, *_: Any, **event: Any) -> None:
        """Count the decision that the run of a retry, a fallback or a chain around a model carries."""
        self._started(serialized, event)

    def on_tool_start(self, serialized: Any, *_: Any, **event: Any) -> None:
        """Remember the run of a tool, which may call models."""
        self._started(serialized, event)

    def on_retriever_start(self, serialized: Any, *_: Any, **event: Any) -> None:
        """Remember the run of a retriever, which may call models."""
        self._started(serialized, event)

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **_: Any) -> None:
        """Count a call that was answered."""
        run = self._ended(run_id)
        if run is None or run.side is None:
            return
        try:
            models, tokens, cost = used(response)
        except Exception:
            logger.debug("the result of a model could not be read", exc_info=True)
            models, tokens, cost = [], None, None
        self._calls.record(run.side, [*models, *_named(run.model)], tokens, cost=cost)

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **_: Any) -> None:  # noqa: ARG002 - the signature
        """Count a call that failed."""
        run = self._ended(run_id)
        if run is not None and run.side is not None:
            self._calls.record_failed(run.side, _named(run.model))

    def on_chain_end(self, *_: Any, run_id: UUID, **__: Any) -> None:
        """Forget the run."""
        self._ended(run_id)

    on_chain_error = on_tool_end = on_tool_error = on_retriever_end = on_retriever_error = on_chain_end

    def _started(self, serialized: Any, event: Mapping[str, Any], *, answers: bool = False) -> None:
        try:
            metadata = event.get("metadata") or {}
            name = event.get("name") or _class_name(serialized)
            run = _Run(name, event.get("parent_run_id"))
            routing = next(records(metadata.get(ROUTING_KEY)), None)
            if routing is not None:
                self._count(routing, event.get("tags") or (), run)
                if answers:
                    run = run._replace(side=answered_by(routing), model=metadata.get("ls_model_name"))
            if (run_id := event.get("run_id")) is not None:
                with self._lock:
                    self._runs[run_id] = run
                    if len(self._runs) > _MOST_RUNS:
                        self._runs.popitem(last=False)
        except Exception:  # noqa: BLE001 - metadata is anybody's, and a handler must not disturb the call
            logger.debug("run metadata holds no routing decision under %r", ROUTING_KEY)

    def _count(self, routing: object, tags: Sequence[str], run: _Run) -> None:
        for record in records(routing):
            decision = RoutingDecision.from_dict(record)
            if self._stats.record_once(decision):
                shown = (tag for tag in dict.fromkeys(tags) if not _POSITION.fullmatch(tag))
                self._by_tag.record(shown, strong=decision.is_strong)
                self._by_name.record(dict.fromkeys(self._names(run)), strong=decision.is_strong)

    def _names(self, run: _Run) -> Iterator[str]:
        """The name of a run and of those around it that are under way."""
        seen = 0
        while seen < _DEEPEST:
            if run.name:
                yield run.name
            with self._lock:
                around = None if run.parent is None else self._runs.get(run.parent)
            if around is None:
                return
            run, seen = around, seen + 1

    def _ended(self, run_id: UUID) -> _Run | None:
        with self._lock:
            return self._runs.pop(run_id, None)


_DEEPEST = 100
"""How far up names are collected; ids that name each other as parents must not hold up anybody."""


def _named(model: str | None) -> list[str]:
    return [model] if model else []


def _class_name(serialized: Any) -> str | None:
    if not isinstance(serialized, dict):
        return None
    found = serialized.get("name") or (serialized.get("id") or [None])[-1]
    return found if isinstance(found, str) else None
