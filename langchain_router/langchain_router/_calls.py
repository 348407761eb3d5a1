"""From a call of the routed model to a call of one of its children, and to the other one's where that fails."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import repeat
from typing import TYPE_CHECKING, Any, NamedTuple

from langchain_core.callbacks import BaseCallbackManager
from langchain_core.runnables.config import ensure_config, merge_configs

from langchain_router._children import routes
from langchain_router._fallback import TokenWatch
from langchain_router._messages import OUTER_KEY, ROUTING_KEY, Prompt, depth_of, flat, nested, records
from langchain_router._options import configured, specs, without_own
from langchain_router._recording import watches
from prefroute.conversation import FALLBACK, recorded
from prefroute.fallback import other_side
from prefroute.options import options_of, split

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Self

    from langchain_core.callbacks import Callbacks
    from langchain_core.runnables import Runnable, RunnableConfig
    from langchain_core.runnables.utils import ConfigurableFieldSpec

    from langchain_router._chooser import Chooser
    from prefroute.decider import Ask
    from prefroute.options import Options
    from prefroute.types import Route, RoutingDecision


class Wanted(NamedTuple):
    """A call as its caller makes it.

    Attributes:
        prompt: What the model is given.
        config: Its config, complete.
        kwargs: Its keywords, without those for routing.
    """

    prompt: Prompt
    config: RunnableConfig
    kwargs: Mapping[str, Any]


class Call(NamedTuple):
    """A call that is ready to be handed over.

    Attributes:
        child: Who gets it.
        value: What it is given.
        config: With the decision in its metadata.
        kwargs: The child's keywords.
        routing: The decision, as it is recorded.
        side: The side of the child.
        decision: Where it goes.
        wanted: The call as it was made.
        watch: Tells whether the other side may still answer in its place; None where it may not in any case.
    """

    child: Runnable[Any, Any]
    value: Any
    config: RunnableConfig
    kwargs: dict[str, Any]
    routing: dict[str, Any]
    side: Route
    decision: RoutingDecision
    wanted: Wanted
    watch: TokenWatch | None


@dataclass(frozen=True, kw_only=True)
class CallMaker:
    """Who chooses, and what is added to each call.

    Attributes:
        chooser: The two children, and how it is chosen between them.
        fallback: Whether the other side answers where the chosen one fails before its first token.
        callbacks: Added to each call, like `tags` and `metadata`.
    """

    chooser: Chooser
    fallback: bool = False
    callbacks: Callbacks = None
    tags: Sequence[str] = ()
    metadata: Mapping[str, Any] | None = None

    def between(self, strong: Runnable[Any, Any], weak: Runnable[Any, Any]) -> Self:
        """The same for two other children."""
        return replace(self, chooser=replace(self.chooser, strong=strong, weak=weak))

    @property
    def config_specs(self) -> list[ConfigurableFieldSpec]:
        """What routing can be configured by, and whatever the children can be."""
        own = specs()
        found = {spec.id: spec for spec in own}
        for spec in (*self.chooser.strong.config_specs, *self.chooser.weak.config_specs):
            known = found.setdefault(spec.id, spec)
            # Children that route as well read the same keys. Whatever else both read they may read with different
            # defaults, and then there is no common one to tell.
            if known not in (*own, spec):
                found[spec.id] = known._replace(default=None)
        return list(found.values())

    def want(self, value: Any, config: RunnableConfig, kwargs: Mapping[str, Any]) -> tuple[Wanted, Ask]:
        """A call as its caller makes it, and what the core is asked about it."""
        own, passed = split(kwargs)
        return self._want(value, config, passed, options_of(own, configured(config.get("configurable"))))

    def want_all(
        self, values: Sequence[Any], config: RunnableConfig, kwargs: Mapping[str, Any]
    ) -> tuple[list[Wanted], list[Ask]]:
        """The same for several calls with one config that is the caller's whole one."""
        own, passed = split(kwargs)
        options = options_of(own, configured(ensure_config().get("configurable")))
        pairs = [self._want(value, one, passed, options) for value, one in zip(values, _each(config), strict=False)]
        return [wanted for wanted, _ in pairs], [ask for _, ask in pairs]

    def _want(
        self, value: Any, config: RunnableConfig, passed: Mapping[str, Any], options: Options
    ) -> tuple[Wanted, Ask]:
        prompt = Prompt(value)
        depth = depth_of(config.get("metadata"))
        ask = self.chooser.ask(prompt, options, tools=passed.get("tools"), depth=depth)
        return Wanted(prompt, config, passed), ask

    def make(self, wanted: Wanted, decision: RoutingDecision) -> Call:
        """The call as the child gets it."""
        side = self.chooser.decider.answers(decision)
        watch = TokenWatch() if self.fallback else None
        return self._made(wanted, decision, side, recorded(decision, side), watch)

    def second(self, call: Call, error: Exception) -> Call | None:
        """The call as the other child gets it where one failed; None where it is too late, or not wanted."""
        if call.watch is None or call.watch.seen:
            return None
        side, routing = other_side(call.decision, call.side, error)
        tools = call.wanted.kwargs.get("tools")
        if not self.chooser.can_stand_in(side, call.wanted.prompt, call.decision, tools):
            return None
        return self._made(call.wanted, call.decision, side, routing, None)

    def _made(
        self, wanted: Wanted, decision: RoutingDecision, side: Route, routing: dict[str, Any], watch: TokenWatch | None
    ) -> Call:
        child = self.chooser.child(side)
        config = wanted.config.copy()
        if FALLBACK in routing:
            config.pop("run_id", None)  # It is that of the run that failed.
        metadata = config.get("metadata") or {}
        around = next(records(metadata.get(ROUTING_KEY)), None)
        noted = nested(routing, OUTER_KEY, around)
        config["metadata"] = {**metadata, **(self.metadata or {}), **flat(routing), ROUTING_KEY: noted}
        # A config that is not complete is completed by the child from its surroundings.
        configurable = config["configurable"] if "configurable" in config else ensure_config().get("configurable")
        rest = without_own(configurable or {})
        if rest is not None and not routes(child):
            config["configurable"] = rest
        if self.tags:
            config["tags"] = list(dict.fromkeys([*(config.get("tags") or ()), *self.tags]))
        if self.callbacks:
            config["callbacks"] = _merged(config.get("callbacks"), self.callbacks)
        if watching := [*watches(self.chooser.decider.recorder, routing), *([] if watch is None else [watch])]:
            config["callbacks"] = _merged(config.get("callbacks"), watching)
        # Passing `stop=None` on would undo a `stop` that the child has bound.
        kwargs = {name: value for name, value in wanted.kwargs.items() if name != "stop" or value is not None}
        value = self.chooser.readable(wanted.prompt, side)
        return Call(child, value, config, kwargs, routing, side, decision, wanted, watch)


def _each(config: RunnableConfig) -> Iterator[RunnableConfig]:
    """The config for each of several calls: a run id names one run, so it is the first one's."""
    yield config
    rest = config.copy()
    rest.pop("run_id", None)
    yield from repeat(rest)


def _merged(first: Callbacks, second: Callbacks) -> Callbacks:
    if isinstance(second, list):
        # A handler that is told twice counts twice.
        handlers = first.handlers if isinstance(first, BaseCallbackManager) else first or []
        second = [one for one in second if not any(one is known for known in handlers)]
    return merge_configs({"callbacks": first}, {"callbacks": second}).get("callbacks") if second else first
