"""One path from a LangChain call to the chosen child: read the text, ask the router, hand the whole call over.

The router opens no run of its own. The child gets the caller's config with the decision in its metadata, so its
run is the only one, and a cache, a rate limiter or a tracer sees the model that really answered.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

from langchain_core.runnables.config import ensure_config, get_config_list, get_executor_for_config
from langchain_core.runnables.utils import gather_with_concurrency

from langchain_router._fallback import interrupts
from langchain_router._messages import annotated
from prefroute.fallback import arun, run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence

    from langchain_core.runnables import RunnableConfig

    from langchain_router._calls import Call, CallMaker, Wanted
    from prefroute.decider import Ask, Decider
    from prefroute.types import RoutingDecision

T = TypeVar("T")


@dataclass(frozen=True)
class Dispatch:
    """Decides and carries out.

    Attributes:
        maker: Makes a child's call of each call.
    """

    maker: CallMaker

    @property
    def _decider(self) -> Decider:
        return self.maker.chooser.decider

    # --- deciding ---

    def prepare(self, value: Any, config: RunnableConfig | None, kwargs: Mapping[str, Any]) -> Call:
        """Decide where one call goes and make it."""
        wanted, ask = self.maker.want(value, ensure_config(config), kwargs)
        return self.maker.make(wanted, self._decider.decide(ask))

    async def aprepare(self, value: Any, config: RunnableConfig | None, kwargs: Mapping[str, Any]) -> Call:
        """`prepare` without blocking the event loop."""
        wanted, ask = self.maker.want(value, ensure_config(config), kwargs)
        return self.maker.make(wanted, await self._decider.adecide(ask))

    def prepare_all(self, values: Sequence[Any], config: RunnableConfig, kwargs: Mapping[str, Any]) -> list[Call]:
        """Decide where several calls go; their config is used as it is, but for what a graph around them configures."""
        wanted, asks = self.maker.want_all(values, config, kwargs)
        return self._made(wanted, self._decider.decide_batch(asks))

    async def aprepare_all(
        self, values: Sequence[Any], config: RunnableConfig, kwargs: Mapping[str, Any]
    ) -> list[Call]:
        """`prepare_all` without blocking the event loop."""
        wanted, asks = self.maker.want_all(values, config, kwargs)
        return self._made(wanted, await self._decider.adecide_batch(asks))

    def _made(self, wanted: Sequence[Wanted], decided: Sequence[RoutingDecision | Exception]) -> list[Call]:
        # Exceptions are there only where they were asked for.
        decisions = cast("Sequence[RoutingDecision]", decided)
        return [self.maker.make(one, decision) for one, decision in zip(wanted, decisions, strict=True)]

    # --- one call ---

    def run(self, call: Call, function: Callable[[Call], T]) -> T:
        """Carry a call out; where that fails and may be mended, by the other side."""
        return run(call, function, self.maker.second, is_signal=interrupts)

    async def arun(self, call: Call, function: Callable[[Call], Awaitable[T]]) -> T:
        """`run` without blocking the event loop."""
        return await arun(call, function, self.maker.second, is_signal=interrupts)

    def invoke(self, value: Any, config: RunnableConfig | None, kwargs: Mapping[str, Any]) -> Any:
        """Answer one input."""
        return self.run(self.prepare(value, config, kwargs), _invoke)

    async def ainvoke(self, value: Any, config: RunnableConfig | None, kwargs: Mapping[str, Any]) -> Any:
        """Answer one input without blocking the event loop."""
        return await self.arun(await self.aprepare(value, config, kwargs), _ainvoke)

    def stream(self, value: Any, config: RunnableConfig | None, kwargs: Mapping[str, Any]) -> Iterator[Any]:
        """Answer one input in chunks; the first one carries the decision."""
        first, rest = self.run(self.prepare(value, config, kwargs), _opened)
        try:
            yield from first
            yield from rest
        finally:
            # A consumer that stops early must not leave the child's connection open until garbage collection.
            _close(rest)

    async def astream(self, value: Any, config: RunnableConfig | None, kwargs: Mapping[str, Any]) -> AsyncIterator[Any]:
        """`stream` without blocking the event loop; closing it closes the child's stream."""
        first, rest = await self.arun(await self.aprepare(value, config, kwargs), _aopened)
        try:
            for chunk in first:
                yield chunk
            async for chunk in rest:
                yield chunk
        finally:
            await _aclose(rest)

    # --- many calls ---

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
        questions = self._questions(values, configs, kwargs, return_exceptions=return_exceptions)
        decided = self._decider.decide_batch(questions.asks, return_exceptions=return_exceptions)

        def answer(call: Call | Exception) -> Any:
            if isinstance(call, Exception):
                return call
            try:
                return self.run(call, _invoke)
            except Exception as error:
                if not return_exceptions:
                    raise
                return error

        calls = self._calls(questions, decided)
        if len(calls) == 1:
            return [answer(calls[0])]
        with get_executor_for_config(configs[0]) as executor:
            return list(executor.map(answer, calls))

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
        questions = self._questions(values, configs, kwargs, return_exceptions=return_exceptions)
        decided = await self._decider.adecide_batch(questions.asks, return_exceptions=return_exceptions)

        async def answer(call: Call | Exception) -> Any:
            if isinstance(call, Exception):
                return call
            try:
                return await self.arun(call, _ainvoke)
            except Exception as error:
                if not return_exceptions:
                    raise
                return error

        calls = self._calls(questions, decided)
        return await gather_with_concurrency(configs[0].get("max_concurrency"), *map(answer, calls))

    def _questions(
        self,
        values: Sequence[Any],
        configs: Sequence[RunnableConfig],
        kwargs: Mapping[str, Any],
        *,
        return_exceptions: bool,
    ) -> _Questions:
        wanted: list[Wanted | Exception] = []
        asks: list[Ask] = []
        for value, config in zip(values, configs, strict=True):
            try:
                one, ask = self.maker.want(value, config, kwargs)
            except Exception as error:
                if not return_exceptions:
                    raise
                wanted.append(error)
            else:
                wanted.append(one)
                asks.append(ask)
        return _Questions(wanted, asks)

    def _calls(self, questions: _Questions, decided: Sequence[RoutingDecision | Exception]) -> list[Call | Exception]:
        """A call for each input, or why there is none; `decided` lacks the inputs that could not be asked about."""
        rest = iter(decided)
        calls: list[Call | Exception] = []
        for wanted in questions.wanted:
            outcome = wanted if isinstance(wanted, Exception) else next(rest)
            calls.append(
                outcome if isinstance(outcome, Exception) else self.maker.make(cast("Wanted", wanted), outcome)
            )
        return calls


class _Questions(NamedTuple):
    wanted: list[Wanted | Exception]
    asks: list[Ask]


def _invoke(call: Call) -> Any:
    return annotated(call.child.invoke(call.value, call.config, **call.kwargs), call.routing)


async def _ainvoke(call: Call) -> Any:
    return annotated(await call.child.ainvoke(call.value, call.config, **call.kwargs), call.routing)


# Only the first chunk carries the decision: adding chunks up concatenates equal strings and refuses differing numbers.


def _opened(call: Call) -> tuple[list[Any], Iterator[Any]]:
    """The first chunk, if there is any, and the rest of a stream; whatever fails before fails here."""
    chunks = call.child.stream(call.value, call.config, **call.kwargs)
    try:
        first = [annotated(next(chunks), call.routing)]
    except StopIteration:
        first = []
    except BaseException:
        _close(chunks)
        raise
    return first, chunks


async def _aopened(call: Call) -> tuple[list[Any], AsyncIterator[Any]]:
    chunks = call.child.astream(call.value, call.config, **call.kwargs)
    try:
        first = [annotated(await anext(chunks), call.routing)]
    except StopAsyncIteration:
        first = []
    except BaseException:
        await _aclose(chunks)
        raise
    return first, chunks


async def _aclose(chunks: AsyncIterator[Any]) -> None:
    if close := getattr(chunks, "aclose", None):
        await close()


def _close(chunks: Iterator[Any]) -> None:
    # What a child returns need not be a generator.
    if close := getattr(chunks, "close", None):
        close()
