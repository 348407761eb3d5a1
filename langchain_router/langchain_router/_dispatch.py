"""One path from a LangChain call to the chosen child: read the text, ask the router, hand the whole call over.

The router opens no run of its own. The child gets the caller's config with the decision in its metadata, so its
run is the only one, and a cache, a rate limiter or a tracer sees the model that really answered.
"""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass
from itertools import repeat
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from langchain_core.runnables.config import ensure_config, get_config_list, get_executor_for_config, merge_configs
from langchain_core.runnables.utils import ConfigurableFieldSpec, gather_with_concurrency

from langchain_router._messages import OUTER_KEY, ROUTING_KEY, annotated, nested, prompt_text
from prefroute.inputs import as_threshold

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence

    from langchain_core.callbacks import Callbacks
    from langchain_core.runnables import Runnable, RunnableConfig

    from prefroute.decider import Decider
    from prefroute.types import RoutingDecision

THRESHOLD_KWARG = "threshold"
THRESHOLD_CONFIGURABLE = "router_threshold"


class Call(NamedTuple):
    """A call that is ready to be handed over."""

    child: Runnable[Any, Any]
    config: RunnableConfig
    kwargs: dict[str, Any]
    decision: RoutingDecision


@dataclass(frozen=True, kw_only=True)
class Dispatch:
    """Two children, the router that chooses between them, and what is added to each call.

    Attributes:
        strong: The expensive side.
        weak: The cheap side.
        decider: The router and its settings.
        callbacks: Added to each call, like `tags` and `metadata`.
    """

    strong: Runnable[Any, Any]
    weak: Runnable[Any, Any]
    decider: Decider
    callbacks: Callbacks = None
    tags: Sequence[str] = ()
    metadata: Mapping[str, Any] | None = None

    @property
    def config_specs(self) -> list[ConfigurableFieldSpec]:
        """The configurable threshold and whatever the children can be configured by."""
        decider = self.decider
        default = decider.router.threshold if decider.threshold is None else decider.threshold
        own = ConfigurableFieldSpec(
            id=THRESHOLD_CONFIGURABLE,
            annotation=float,
            name="Router threshold",
            description="Prompts whose score is at or above it go to the strong model.",
            default=default,
        )
        specs = {THRESHOLD_CONFIGURABLE: own}
        for spec in (*self.strong.config_specs, *self.weak.config_specs):
            known = specs.setdefault(spec.id, spec)
            # Children that route as well read the same key. Whatever else both read they may read with different
            # defaults, and then there is no common one to tell.
            if known not in (own, spec):
                specs[spec.id] = known._replace(default=None)
        return list(specs.values())

    def prepare(self, value: Any, config: RunnableConfig | None, kwargs: Mapping[str, Any]) -> Call:
        """Decide where one call goes and make its config."""
        config = ensure_config(config)
        keyword, passed = _split(kwargs)
        decision = self.decider.decide(prompt_text(value), _threshold(config, keyword))
        return self.handover(decision, config, passed)

    async def aprepare(self, value: Any, config: RunnableConfig | None, kwargs: Mapping[str, Any]) -> Call:
        """`prepare` without blocking the event loop."""
        config = ensure_config(config)
        keyword, passed = _split(kwargs)
        decision = await self.decider.adecide(prompt_text(value), _threshold(config, keyword))
        return self.handover(decision, config, passed)

    def prepare_all(self, values: Sequence[Any], config: RunnableConfig, kwargs: Mapping[str, Any]) -> list[Call]:
        """Decide where several calls with one config go; the config is used as it is, but for the threshold."""
        keyword, passed = _split(kwargs)
        threshold = _threshold(ensure_config(), keyword)
        decisions = self.decider.decide_batch([prompt_text(value) for value in values], threshold)
        return [self.handover(decision, one, passed) for decision, one in zip(decisions, _each(config), strict=False)]

    async def aprepare_all(
        self, values: Sequence[Any], config: RunnableConfig, kwargs: Mapping[str, Any]
    ) -> list[Call]:
        """`prepare_all` without blocking the event loop."""
        keyword, passed = _split(kwargs)
        threshold = _threshold(ensure_config(), keyword)
        texts = [prompt_text(value) for value in values]
        decisions = await self.decider.adecide_batch(texts, threshold)
        return [self.handover(decision, one, passed) for decision, one in zip(decisions, _each(config), strict=False)]

    def invoke(self, value: Any, config: RunnableConfig | None, kwargs: Mapping[str, Any]) -> Any:
        """Answer one input."""
        return _call(self.prepare(value, config, kwargs), value)

    async def ainvoke(self, value: Any, config: RunnableConfig | None, kwargs: Mapping[str, Any]) -> Any:
        """Answer one input without blocking the event loop."""
        return await _acall(await self.aprepare(value, config, kwargs), value)

    def stream(self, value: Any, config: RunnableConfig | None, kwargs: Mapping[str, Any]) -> Iterator[Any]:
        """Answer one input in chunks; the first one carries the decision."""
        call = self.prepare(value, config, kwargs)
        chunks = call.child.stream(value, call.config, **call.kwargs)
        try:
            # On the first alone: adding chunks up concatenates equal strings and refuses differing numbers.
            for index, chunk in enumerate(chunks):
                yield chunk if index else annotated(chunk, call.decision)
        finally:
            # A consumer that stops early must not leave the child's connection open until garbage collection.
            if close := getattr(chunks, "close", None):
                close()

    async def astream(self, value: Any, config: RunnableConfig | None, kwargs: Mapping[str, Any]) -> AsyncIterator[Any]:
        """`stream` without blocking the event loop; closing it closes the child's stream."""
        call = await self.aprepare(value, config, kwargs)
        stream = cast("AsyncGenerator[Any, None]", call.child.astream(value, call.config, **call.kwargs))
        async with aclosing(stream) as chunks:
            first = True
            async for chunk in chunks:
                yield annotated(chunk, call.decision) if first else chunk
                first = False

    def batch(
        self,
        values: Sequence[Any],
        config: RunnableConfig | Sequence[RunnableConfig] | None,
        kwargs: Mapping[str, Any],
        *,
        return_exceptions: bool,
    ) -> list[Any]:
        """Answer many inputs; those with the same threshold share one call of the router."""
        if not values:
            return []
        configs = get_config_list(config, len(values))
        keyword, passed = _split(kwargs)
        outcomes, groups = _questions(values, configs, keyword, return_exceptions=return_exceptions)
        for threshold, texts in groups.items():
            decided: Sequence[RoutingDecision | Exception]
            try:
                decided = self.decider.decide_batch(list(texts.values()), threshold)
            except Exception as error:
                if not return_exceptions:
                    raise
                decided = [error] * len(texts)
            outcomes.update(zip(texts, decided, strict=True))

        def answer(index: int) -> Any:
            outcome = outcomes[index]
            if isinstance(outcome, Exception):
                return outcome
            try:
                return _call(self.handover(outcome, configs[index], passed), values[index])
            except Exception as error:
                if not return_exceptions:
                    raise
                return error

        if len(values) == 1:
            return [answer(0)]
        with get_executor_for_config(configs[0]) as executor:
            return list(executor.map(answer, list(range(len(values)))))

    async def abatch(
        self,
        values: Sequence[Any],
        config: RunnableConfig | Sequence[RunnableConfig] | None,
        kwargs: Mapping[str, Any],
        *,
        return_exceptions: bool,
    ) -> list[Any]:
        """`batch` without blocking the event loop."""
        if not values:
            return []
        configs = get_config_list(config, len(values))
        keyword, passed = _split(kwargs)
        outcomes, groups = _questions(values, configs, keyword, return_exceptions=return_exceptions)
        for threshold, texts in groups.items():
            decided: Sequence[RoutingDecision | Exception]
            try:
                decided = await self.decider.adecide_batch(list(texts.values()), threshold)
            except Exception as error:
                if not return_exceptions:
                    raise
                decided = [error] * len(texts)
            outcomes.update(zip(texts, decided, strict=True))

        async def answer(index: int) -> Any:
            outcome = outcomes[index]
            if isinstance(outcome, Exception):
                return outcome
            try:
                return await _acall(self.handover(outcome, configs[index], passed), values[index])
            except Exception as error:
                if not return_exceptions:
                    raise
                return error

        return await gather_with_concurrency(configs[0].get("max_concurrency"), *map(answer, range(len(values))))

    def handover(self, decision: RoutingDecision, config: RunnableConfig, kwargs: Mapping[str, Any]) -> Call:
        """The call as the chosen child gets it."""
        metadata = config.get("metadata") or {}
        routing = nested(decision, OUTER_KEY, metadata.get(ROUTING_KEY))
        own: RunnableConfig = {**config, "metadata": {**metadata, **(self.metadata or {}), ROUTING_KEY: routing}}
        if self.tags:
            own["tags"] = list(dict.fromkeys([*(config.get("tags") or ()), *self.tags]))
        if self.callbacks:
            own["callbacks"] = _merged_callbacks(config.get("callbacks"), self.callbacks)
        # Passing `stop=None` on would undo a `stop` that the child has bound.
        passed = {name: value for name, value in kwargs.items() if name != "stop" or value is not None}
        return Call(self.strong if decision.is_strong else self.weak, own, passed, decision)


def _call(call: Call, value: Any) -> Any:
    return annotated(call.child.invoke(value, call.config, **call.kwargs), call.decision)


async def _acall(call: Call, value: Any) -> Any:
    return annotated(await call.child.ainvoke(value, call.config, **call.kwargs), call.decision)


def _split(kwargs: Mapping[str, Any]) -> tuple[float | None, dict[str, Any]]:
    """The threshold given as a keyword, and the rest, which is the child's."""
    passed = dict(kwargs)
    return passed.pop(THRESHOLD_KWARG, None), passed


def _questions(
    values: Sequence[Any],
    configs: Sequence[RunnableConfig],
    keyword: float | None,
    *,
    return_exceptions: bool,
) -> tuple[dict[int, RoutingDecision | Exception], dict[float | None, dict[int, str]]]:
    """Texts by index for each threshold, and the errors of items that cannot be asked about."""
    failed: dict[int, RoutingDecision | Exception] = {}
    groups: dict[float | None, dict[int, str]] = {}
    for index, (value, config) in enumerate(zip(values, configs, strict=True)):
        try:
            threshold = _threshold(config, keyword)
            checked = None if threshold is None else as_threshold(threshold)
            text = prompt_text(value)
        except Exception as error:
            if not return_exceptions:
                raise
            failed[index] = error
        else:
            groups.setdefault(checked, {})[index] = text
    return failed, groups


def _threshold(config: RunnableConfig, keyword: float | None) -> float | None:
    """The threshold that a call brings, or None."""
    # `is None`: a threshold of 0.0 is legal and means all strong.
    if keyword is not None:
        return keyword
    configured: float | None = (config.get("configurable") or {}).get(THRESHOLD_CONFIGURABLE)
    return configured


def _each(config: RunnableConfig) -> Iterator[RunnableConfig]:
    """The config for each of several calls: a run id names one run, so it is the first one's."""
    yield config
    rest = config.copy()
    rest.pop("run_id", None)
    yield from repeat(rest)


def _merged_callbacks(first: Callbacks, second: Callbacks) -> Callbacks:
    return merge_configs({"callbacks": first}, {"callbacks": second}).get("callbacks")
