"""A selector that sends a query to one of two choices, as a learned router decides; it calls no LLM."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING

from llama_index.core.base.base_selector import BaseSelector, SelectorResult, SingleSelection

from llamaindex_router.events import announce
from llamaindex_router.options import with_surrounding
from prefroute import ConfigurationError, RoutingDecision, RoutingStats
from prefroute.conversation import Settled
from prefroute.decider import Ask, Decider

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from llama_index.core.prompts.mixin import PromptDictType
    from llama_index.core.schema import QueryBundle
    from llama_index.core.tools.types import ToolMetadata

    from prefroute import OnError, Route, Router
    from prefroute.recording import Recorder

PAIR = 2


class RouterSelection(SelectorResult):
    """A selection of one choice, with the decision behind it.

    Attributes:
        decision: Route, score, threshold, reason and id.
    """

    decision: RoutingDecision

    @property
    def route(self) -> Route:
        """The side decided on."""
        return self.decision.route

    @property
    def score(self) -> float | None:
        """Estimated probability that the strong side's answer is better; None when the router failed."""
        return self.decision.score

    @property
    def threshold(self) -> float:
        """What the score was compared with."""
        return self.decision.threshold


class RouterSelector(BaseSelector):
    """Chooses between a strong and a weak query engine, retriever or tool.

    For `RouterQueryEngine`, `RouterRetriever` and whatever else takes a selector; these look for an LLM
    even where none is called, so give them `llm=` or set `Settings.llm`. Only the query text is scored, and
    exactly one choice is selected. `routing_options` holds for it too.

    Args:
        router: A router, a name or folder for `prefroute.load_router`, or None for the bundled default.
        threshold: Scores at or above it go to the strong choice; None for the router's own at each query.
        strong_rate: In place of a threshold: the share of queries that goes there, by the calibration of the router.
        strong: Tool name of the strong choice; without names the first choice is the strong one.
        weak: Tool name of the weak choice.
        on_router_error: Side taken when the router fails, or `"raise"`; None for the router's own setting.
        router_time_limit: Seconds the router may take; None for the router's own setting.
        shadow: The side that is selected whatever is decided: what routing would do can be watched first.
        on_route: Called with each `RoutingDecision`; a quick, plain function.
        record: A `prefroute.recording.Recorder`, or the path of a file, that keeps each decision with its query; what
            the chosen engine or tool makes of it is not known here.
        stats: Where decisions are counted; None for statistics of its own.

    Attributes:
        stats: Where decisions are counted.

    Raises:
        ConfigurationError: An argument cannot be used, or one name is given without the other.
        ThresholdError: Neither `threshold` nor the router has a threshold.
        PersistenceError: There is no readable router of that name.
    """

    def __init__(
        self,
        *,
        router: Router | str | Path | None = None,
        threshold: float | None = None,
        strong_rate: float | None = None,
        strong: str | None = None,
        weak: str | None = None,
        on_router_error: OnError | None = None,
        router_time_limit: float | None = None,
        shadow: Route | None = None,
        on_route: Callable[[RoutingDecision], object] | None = None,
        record: Recorder | str | Path | None = None,
        stats: RoutingStats | None = None,
    ) -> None:
        for side, name in (("strong", strong), ("weak", weak)):
            if not isinstance(name, str | None):
                msg = f"{side} must be the name of a tool: the engines have the LLMs; got {type(name).__name__}"
                raise ConfigurationError(msg)
        if (strong is None) != (weak is None) or (strong is not None and strong == weak):
            msg = f"strong and weak must be two different tool names or neither given, got {strong!r} and {weak!r}"
            raise ConfigurationError(msg)
        self._names: dict[Route, str | None] = {"strong": strong, "weak": weak}
        self._decider = Decider.of(
            router,
            threshold=threshold,
            strong_rate=strong_rate,
            on_error=on_router_error,
            time_limit=router_time_limit,
            stats=stats,
            on_route=on_route,
            shadow=shadow,
            record=record,
        )
        self.stats = self._decider.stats

    def _select(self, choices: Sequence[ToolMetadata], query: QueryBundle) -> RouterSelection:
        indices = self._indices(choices)
        started = perf_counter()
        return self._selection(self._decider.decide(_ask(query)), choices, indices, started)

    async def _aselect(self, choices: Sequence[ToolMetadata], query: QueryBundle) -> RouterSelection:
        indices = self._indices(choices)
        started = perf_counter()
        return self._selection(await self._decider.adecide(_ask(query)), choices, indices, started)

    def _selection(
        self, decision: RoutingDecision, choices: Sequence[ToolMetadata], indices: dict[Route, int], started: float
    ) -> RouterSelection:
        """What is selected after a decision, which is announced."""
        named = choices[indices[decision.route]].name or f"choice {indices[decision.route]}"
        announce(decision, named, perf_counter() - started)
        index = indices[self._decider.answers(decision)]
        return RouterSelection(selections=[SingleSelection(index=index, reason=_why(decision))], decision=decision)

    def _indices(self, choices: Sequence[ToolMetadata]) -> dict[Route, int]:
        """Where the two sides stand among the choices."""
        names = [choice.name for choice in choices]
        if len(names) != PAIR:
            msg = f"RouterSelector selects between exactly 2 choices, a strong and a weak one; got {len(names)}"
            raise ConfigurationError(msg)
        if self._names["strong"] is None:
            return {"strong": 0, "weak": 1}
        for side, name in self._names.items():
            if name not in names:
                msg = f"{side}={name!r} must name one of the choices, whose names are {names}"
                raise ConfigurationError(msg)
        return {side: names.index(name) for side, name in self._names.items()}

    def _get_prompts(self) -> PromptDictType:
        return {}

    def _update_prompts(self, prompts: PromptDictType) -> None:
        """Nothing: a router has no prompts."""


def _ask(query: QueryBundle) -> Ask:
    options = with_surrounding({})
    settled = None if options.route is None else Settled(options.route, "forced")
    return Ask(text=query.query_str, threshold=options.threshold, strong_rate=options.strong_rate, settled=settled)


def _why(decision: RoutingDecision) -> str:
    if decision.reason == "forced":
        return f"named by routing_options -> {decision.route}"
    if decision.score is None:
        return f"the router failed -> {decision.route}"
    sign = ">=" if decision.is_strong else "<"
    return f"P(strong wins)={decision.score:.2f} {sign} threshold {decision.threshold:.2f} -> {decision.route}"
