"""One call handed to the chosen LLM: in its context, and with the decision on what comes back."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ParamSpec, TypeVar, cast

from llama_index.core.llms import ChatResponse, CompletionResponse

from llamaindex_router.events import ROUTING_KEY, routing_tags
from llamaindex_router.lending import Loan, lent

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator

    from llama_index.core.llms import LLM

    from prefroute import RoutingDecision

P = ParamSpec("P")
R = TypeVar("R")

INNER_KEY = "inner"
"""Under `routing`, the decision of a routed LLM that is itself one side of another."""


@dataclass(frozen=True, slots=True)
class Delegation:
    """One call and who takes it.

    Attributes:
        llm: The chosen LLM.
        decision: Why it was chosen.
        loan: The callback handlers that the call lends it.
    """

    llm: LLM
    decision: RoutingDecision
    loan: Loan | None

    @contextmanager
    def _context(self) -> Generator[None]:
        with routing_tags(self.decision), lent(self.loan):
            yield

    def call(self, method: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a method of the chosen LLM."""
        with self._context():
            return stamped(method(*args, **kwargs), self.decision)

    async def acall(self, method: Callable[P, Awaitable[R]], *args: P.args, **kwargs: P.kwargs) -> R:
        """Await a method of the chosen LLM."""
        with self._context():
            return stamped(await method(*args, **kwargs), self.decision)

    def stream(self, method: Callable[P, Iterator[R]], *args: P.args, **kwargs: P.kwargs) -> Generator[R]:
        """Call a streaming method of the chosen LLM now; its chunks come as they are asked for."""
        with self._context():
            chunks = method(*args, **kwargs)
        return self._chunks(chunks)

    async def astream(
        self, method: Callable[P, Awaitable[AsyncIterator[R]]], *args: P.args, **kwargs: P.kwargs
    ) -> AsyncGenerator[R]:
        """Await a streaming method of the chosen LLM now; its chunks come as they are asked for."""
        with self._context():
            chunks = await method(*args, **kwargs)
        return self._achunks(chunks)

    def _chunks(self, chunks: Iterator[R]) -> Generator[R]:
        try:
            while True:
                with self._context():
                    try:
                        chunk = next(chunks)
                    except StopIteration:
                        return
                yield stamped(chunk, self.decision)
        finally:
            # A consumer who stops early ends the provider's stream too, rather than leave it to the garbage collector.
            if close := getattr(chunks, "close", None):
                with self._context():
                    close()

    async def _achunks(self, chunks: AsyncIterator[R]) -> AsyncGenerator[R]:
        try:
            while True:
                with self._context():
                    try:
                        chunk = await anext(chunks)
                    except StopAsyncIteration:
                        return
                yield stamped(chunk, self.decision)
        finally:
            if close := getattr(chunks, "aclose", None):
                with self._context():
                    await close()


def stamped(result: R, decision: RoutingDecision) -> R:
    """A copy of a response with the decision in its `additional_kwargs`; anything else as it is.

    The decision stays out of the message: providers send a message's `additional_kwargs` on, and memories
    store them. A copy, because an LLM that caches hands out the same response again.
    """
    if not isinstance(result, ChatResponse | CompletionResponse):
        return result
    routing = decision.as_dict()
    if ROUTING_KEY in result.additional_kwargs:
        routing[INNER_KEY] = result.additional_kwargs[ROUTING_KEY]
    copied = result.model_copy(update={"additional_kwargs": {**result.additional_kwargs, ROUTING_KEY: routing}})
    return cast("R", copied)  # model_copy keeps the class, but not for the type checker


def unstamped(response: ChatResponse) -> ChatResponse:
    """The response as the chosen LLM had given it."""
    kwargs = dict(response.additional_kwargs)
    inner = kwargs.pop(ROUTING_KEY, {}).get(INNER_KEY)
    if inner is not None:
        kwargs[ROUTING_KEY] = inner
    return response.model_copy(update={"additional_kwargs": kwargs})
