"""What RoutedChatModel adds to a chat model that answers at once: a call, a streamed chunk, a batch.

Run: python benchmarks/langchain_overhead.py [calls]
Each figure is the difference of two medians; plain and routed calls take turns, so that both see the same machine.
Targets, with a router of constant score: 0.25 ms an invoke, 0.5 ms an ainvoke, 20 microseconds a chunk; a batch of 256
asks the router once.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import sys
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any

from langchain_core.messages import AIMessageChunk
from langchain_core.outputs import ChatGenerationChunk

from langchain_router import RoutedChatModel
from langchain_router.demo import OfflineChatModel
from prefroute import PrefrouteError, load_router
from prefroute.testing import FixedRouter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence

    import numpy as np
    from langchain_core.language_models import BaseChatModel
    from numpy.typing import NDArray

    from prefroute import Router

PROMPT = "Explain how a hash map handles collisions, and when you would prefer a tree."
WARM_UP = 100
CHUNKS = 500
BATCH = 256


class QuickChatModel(OfflineChatModel):
    """Answers on the event loop, as providers do, and in many chunks."""

    async def _agenerate(self, *args: Any, **kwargs: Any) -> Any:
        return self._generate(*args, **kwargs)

    def _stream(self, *_: Any, **__: Any) -> Iterator[ChatGenerationChunk]:
        yield from (ChatGenerationChunk(message=AIMessageChunk(content="x")) for _ in range(CHUNKS))

    async def _astream(self, *_: Any, **__: Any) -> AsyncIterator[ChatGenerationChunk]:
        for _number in range(CHUNKS):
            yield ChatGenerationChunk(message=AIMessageChunk(content="x"))


class CountingRouter(FixedRouter):
    """A constant score, and how often it was asked; whether it may be asked on the event loop is set."""

    calls = 0
    quick = False

    def win_probability(self, prompts: Sequence[str]) -> NDArray[np.float64]:
        """The score, shape (n,)."""
        self.calls += 1
        return super().win_probability(prompts)

    def _is_quick(self, texts: list[str]) -> bool:  # noqa: ARG002 - the hook's signature
        return self.quick


def medians(calls: Sequence[Callable[[], object]], rounds: int) -> list[float]:
    """Median seconds of each of some calls that take turns."""
    times: list[list[float]] = [[] for _ in calls]
    gc.collect()
    for _ in range(rounds):
        for call, taken in zip(calls, times, strict=True):
            started = perf_counter()
            call()
            taken.append(perf_counter() - started)
    warm = min(WARM_UP, rounds // 5)
    return [statistics.median(taken[warm:]) for taken in times]


async def amedians(calls: Sequence[Callable[[], Awaitable[object]]], rounds: int) -> list[float]:
    """`medians` of awaited calls."""
    times: list[list[float]] = [[] for _ in calls]
    gc.collect()
    for _ in range(rounds):
        for call, taken in zip(calls, times, strict=True):
            started = perf_counter()
            await call()
            taken.append(perf_counter() - started)
    warm = min(WARM_UP, rounds // 5)
    return [statistics.median(taken[warm:]) for taken in times]


def consume(model: BaseChatModel) -> None:
    """Read a stream to its end."""
    for _ in model.stream(PROMPT):
        pass


async def aconsume(model: BaseChatModel) -> None:
    """The same of an asynchronous stream."""
    async for _ in model.astream(PROMPT):
        pass


def added(plain: BaseChatModel, routed: BaseChatModel, calls: int) -> dict[str, tuple[float, float]]:
    """Seconds of the plain call, and what routing adds, by kind of call; of a stream, a chunk."""
    both = (plain, routed)
    streams = max(calls // 20, 10)
    prompts: list[Any] = [PROMPT] * BATCH
    found = {
        "invoke": medians([partial(model.invoke, PROMPT) for model in both], calls),
        "ainvoke": asyncio.run(amedians([partial(model.ainvoke, PROMPT) for model in both], calls)),
        "chunk": medians([partial(consume, model) for model in both], streams),
        "achunk": asyncio.run(amedians([partial(aconsume, model) for model in both], streams)),
        "batch": medians([partial(model.batch, prompts) for model in both], max(calls // 50, 5)),
    }
    per = {"chunk": CHUNKS, "achunk": CHUNKS, "batch": BATCH}
    return {kind: (one / per.get(kind, 1), (two - one) / per.get(kind, 1)) for kind, (one, two) in found.items()}


def main() -> None:
    """Print a Markdown table."""
    calls = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    counting, quick = CountingRouter(0.9), CountingRouter(0.9)
    quick.quick = True  # As the bundled one says of short texts: it is then asked on the event loop.
    routers: dict[str, Router] = {"constant score, in a thread": counting, "constant score": quick}
    try:
        routers["bundled default"] = load_router()
    except PrefrouteError as error:
        print(f"no default router: {error}", file=sys.stderr)
    child = QuickChatModel(side="strong")
    print("| router | call | plain child | routing adds |")
    print("|---|---|---|---|")
    for name, router in routers.items():
        routed = RoutedChatModel(strong=child, weak=child, router=router)
        for kind, (plain, more) in added(child, routed, calls).items():
            print(f"| {name} | `{kind}` | {plain * 1e6:,.1f} us | {more * 1e6:,.1f} us |")
    before = counting.calls
    RoutedChatModel(strong=child, weak=child, router=counting).batch([PROMPT] * BATCH)
    print(f"\nA batch of {BATCH} asked the router {counting.calls - before} time(s).")


if __name__ == "__main__":
    main()
