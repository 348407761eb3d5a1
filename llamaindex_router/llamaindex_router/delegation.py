"""One call handed to the chosen LLM: in its context, with the decision on what comes back, and a second chance."""

from __future__ import annotations

import logging
from contextlib import aclosing, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar, cast

from llama_index.core.llms import ChatResponse, CompletionResponse
from llama_index.core.prompts import BasePromptTemplate, ChatPromptTemplate, SelectorPromptTemplate

from llamaindex_router.counting import used
from llamaindex_router.events import ROUTING_KEY, Attempting
from llamaindex_router.text import known_by
from prefroute.fallback import arun, run

if TYPE_CHECKING:
    from collections.abc import (
        AsyncGenerator,
        AsyncIterator,
        Awaitable,
        Callable,
        Generator,
        Hashable,
        Iterator,
        Mapping,
        Sequence,
    )

    from llama_index.core.llms import LLM, ChatMessage

    from llamaindex_router.events import Attempt
    from prefroute import RoutingDecision
    from prefroute.recording.calling import Calling
    from prefroute.turns import Answers

R = TypeVar("R")

INNER_KEY = "inner"
"""Under `routing`, the decision of a routed LLM that is itself one side of another."""

_END = object()

logger = logging.getLogger(__name__)


@dataclass(slots=True, kw_only=True)
class Delegation:
    """One call and who takes it.

    Attributes:
        llm: The LLM that answers.
        decision: Where the call should go.
        attempt: How this is shown to whoever watches.
        fit: Makes messages such that the LLM can read them.
        rate_limiter: Waited for before the LLM is asked.
        instead: Finds who takes the call where the LLM failed; None where nobody may.
        instead_of: The error of the LLM that this one stands in for.
        answers: Where the decision is kept for conversations that come back with the answer; None where that is not
            needed.
        said: What the person said last.
        calling: Records how it goes; None where nothing is recorded.
    """

    llm: LLM = field(repr=False)  # Its repr may hold its key.
    decision: RoutingDecision
    attempt: Attempt
    fit: Callable[[Sequence[ChatMessage]], list[ChatMessage]]
    rate_limiter: Any | None = None
    instead: Callable[[Exception], Delegation | None] | None = None
    instead_of: Exception | None = None
    answers: Answers | None = None
    said: str = ""
    calling: Calling | None = None

    def call(self, ask: Callable[[Delegation], R]) -> R:
        """Let the LLM answer, or the other one where it fails and that is wanted.

        Args:
            ask: Calls a method of the LLM that it is given.
        """
        return run(self, lambda one: one.ask_once(ask), _second)

    async def acall(self, ask: Callable[[Delegation], Awaitable[R]]) -> R:
        """`call` without blocking the event loop."""
        return await arun(self, lambda one: one.aask_once(ask), _second)

    def stream(self, ask: Callable[[Delegation], Iterator[R]]) -> Generator[R]:
        """Let the LLM begin its answer now; its chunks come as they are asked for."""
        try:
            chunks = self.open(ask)
        except Exception as error:
            if (other := self.other_for(error)) is None:
                raise
            return other.stream(ask)
        return _chunks(self, chunks, ask)

    async def astream(self, ask: Callable[[Delegation], Awaitable[AsyncIterator[R]]]) -> AsyncGenerator[R]:
        """`stream` without blocking the event loop."""
        try:
            chunks = await self.aopen(ask)
        except Exception as error:
            if (other := self.other_for(error)) is None:
                raise
            return await other.astream(ask)
        return _achunks(self, chunks, ask)

    def other_for(self, error: Exception) -> Delegation | None:
        """Who streams the answer where this one failed before the first chunk; None where nobody may.

        Raises:
            Exception: This one stood in for another: the error of that one is the one to tell of.
        """
        if self.instead_of is not None:
            raise self.instead_of
        return _second(self, error)

    def fit_template(self, prompt: BasePromptTemplate) -> Any:
        """A copy of a template such that the LLM can read the conversation in it, as there is in those of chat engines.

        A copy, because programs leave the parser of the LLM that they are made for in the template.
        """
        chosen = prompt.select(self.llm) if isinstance(prompt, SelectorPromptTemplate) else prompt
        if isinstance(chosen, ChatPromptTemplate):
            return chosen.model_copy(update={"message_templates": self.fit(chosen.message_templates)})
        return chosen.model_copy()

    # One attempt

    def ask_once(self, ask: Callable[[Delegation], R]) -> R:
        """The LLM's answer."""
        if self.rate_limiter is not None:
            self.rate_limiter.acquire()
        with Attempting(self.attempt), self.calling or nullcontext():
            return self._finished(ask(self))

    async def aask_once(self, ask: Callable[[Delegation], Awaitable[R]]) -> R:
        """The LLM's answer."""
        if self.rate_limiter is not None:
            await self.rate_limiter.async_acquire()
        with Attempting(self.attempt), self.calling or nullcontext():
            return self._finished(await ask(self))

    def open(self, ask: Callable[[Delegation], Iterator[R]]) -> Iterator[R]:
        """The LLM's stream."""
        if self.rate_limiter is not None:
            self.rate_limiter.acquire()
        with Attempting(self.attempt), self.calling or nullcontext():
            return ask(self)

    async def aopen(self, ask: Callable[[Delegation], Awaitable[AsyncIterator[R]]]) -> AsyncIterator[R]:
        """The LLM's stream."""
        if self.rate_limiter is not None:
            await self.rate_limiter.async_acquire()
        with Attempting(self.attempt), self.calling or nullcontext():
            return await ask(self)

    def next_of(self, chunks: Iterator[R]) -> Any:
        """The next chunk of the LLM's stream; `_END` where there is none."""
        with Attempting(self.attempt), self.calling or nullcontext():
            return next(chunks, _END)

    async def anext_of(self, chunks: AsyncIterator[R]) -> Any:
        """The next chunk of the LLM's stream; `_END` where there is none."""
        with Attempting(self.attempt), self.calling or nullcontext():
            return await anext(chunks, _END)

    def _finished(self, result: R) -> R:
        if self.calling is not None:
            tell_answer(self.calling, result)
        if self.answers is not None:
            self.answers.note(_known_by(result, self.said), self.attempt.routing)
        return stamped(result, self.attempt.routing)


def _second(failed: Delegation, error: Exception) -> Delegation | None:
    return None if failed.instead is None else failed.instead(error)


def _chunks(one: Delegation, chunks: Iterator[R], ask: Callable[[Delegation], Iterator[R]]) -> Generator[R]:
    seen = _Seen(one)
    try:
        try:
            chunk = one.next_of(chunks)
        except Exception as error:
            # The framework's LLMs send their request when the first chunk is asked for.
            if (other := one.other_for(error)) is None:
                raise
            yield from other.stream(ask)
            return
        while chunk is not _END:
            seen.add(chunk)
            yield stamped(chunk, one.attempt.routing)
            chunk = one.next_of(chunks)
        seen.tell_answer()
    finally:
        seen.keep()
        # A consumer who stops early ends the provider's stream too, rather than leave it to the garbage collector.
        if close := getattr(chunks, "close", None):
            with Attempting(one.attempt):
                close()


async def _achunks(
    one: Delegation, chunks: AsyncIterator[R], ask: Callable[[Delegation], Awaitable[AsyncIterator[R]]]
) -> AsyncGenerator[R]:
    seen = _Seen(one)
    try:
        try:
            chunk = await one.anext_of(chunks)
        except Exception as error:
            if (other := one.other_for(error)) is None:
                raise
            async with aclosing(await other.astream(ask)) as stream:
                async for one_of_the_other in stream:
                    yield one_of_the_other
            return
        while chunk is not _END:
            seen.add(chunk)
            yield stamped(chunk, one.attempt.routing)
            chunk = await one.anext_of(chunks)
        seen.tell_answer()
    finally:
        seen.keep()
        if close := getattr(chunks, "aclose", None):
            with Attempting(one.attempt):
                await close()


class _Seen:
    """What of a stream is needed to know its answer by, and to record it."""

    __slots__ = ("_is_kept", "_last", "_one", "_tokens")

    def __init__(self, one: Delegation) -> None:
        self._one = one
        self._is_kept = one.answers is not None or one.calling is not None
        self._last: object = None
        self._tokens: list[str] = []

    def add(self, chunk: object) -> None:
        """Take note of a chunk: a response holds all that came before, a token does not."""
        if not self._is_kept:
            return
        if isinstance(chunk, str):
            self._tokens.append(chunk)
        else:
            self._last = chunk

    def tell_answer(self) -> None:
        """Record the answer, of which all was seen."""
        if self._one.calling is not None:
            tell_answer(self._one.calling, self._all)

    def keep(self) -> None:
        """Keep the decision for what was seen; if that is not the answer, it was given up."""
        if self._one.answers is not None:
            self._one.answers.note(_known_by(self._all, self._one.said), self._one.attempt.routing)
        if self._one.calling is not None:
            self._one.calling.failed(GeneratorExit())

    @property
    def _all(self) -> object:
        return "".join(self._tokens) if self._tokens else self._last


def tell_answer(calling: Calling, result: object) -> None:
    """Record an answer with what it says of itself; an object of the user's own says nothing."""
    if isinstance(result, str):
        calling.answered(answer=result)
    elif not isinstance(result, ChatResponse | CompletionResponse):
        calling.answered()
    else:
        try:
            names, tokens = used(result)
            text = result.message.content if isinstance(result, ChatResponse) else result.text
        except Exception:  # what a provider's answer holds is its own affair
            logger.debug("an answer could not be read", exc_info=True)
            calling.answered()
        else:
            calling.answered(model=next(iter(names), None), tokens=tokens, answer=text)


def _known_by(result: object, said: str) -> Sequence[Hashable]:
    if isinstance(result, ChatResponse):
        return known_by(result.message, said)
    if isinstance(result, CompletionResponse):
        return known_by(result.text, said)
    return known_by(result, said) if isinstance(result, str) else []


def stamped(result: R, routing: Mapping[str, Any]) -> R:
    """A copy of a response with the decision in its `additional_kwargs`; anything else as it is.

    The decision stays out of the message: providers send a message's `additional_kwargs` on, and memories
    store them. A copy, because an LLM that caches hands out the same response again.
    """
    if not isinstance(result, ChatResponse | CompletionResponse):
        return result
    inner = result.additional_kwargs.get(ROUTING_KEY)
    noted = {**routing, **({} if inner is None else {INNER_KEY: inner})}
    copied = result.model_copy(update={"additional_kwargs": {**result.additional_kwargs, ROUTING_KEY: noted}})
    return cast("R", copied)  # model_copy keeps the class, but not for the type checker


def unstamped(response: ChatResponse) -> ChatResponse:
    """The response as the chosen LLM had given it."""
    kwargs = dict(response.additional_kwargs)
    inner = kwargs.pop(ROUTING_KEY, {}).get(INNER_KEY)
    if inner is not None:
        kwargs[ROUTING_KEY] = inner
    return response.model_copy(update={"additional_kwargs": kwargs})
