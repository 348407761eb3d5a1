"""What RoutedChatModel adds to a call of a chat model that answers at once.

Run: python benchmarks/langchain_overhead.py [calls]
The figure is the difference of medians of the same call with and without routing; target: at most 0.4 ms.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import sys
from time import perf_counter
from typing import TYPE_CHECKING, Any

from langchain_router import RoutedChatModel
from langchain_router.demo import OfflineChatModel
from prefroute import PrefrouteError, load_router
from prefroute.testing import FixedRouter

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from langchain_core.language_models import BaseChatModel

    from prefroute import Router

PROMPT = "Explain how a hash map handles collisions, and when you would prefer a tree."
WARM_UP = 100


class AsyncOfflineChatModel(OfflineChatModel):
    """Answers on the event loop, as providers do; the base class would go through a thread."""

    async def _agenerate(self, *args: Any, **kwargs: Any) -> Any:
        return self._generate(*args, **kwargs)


def median_ms(call: Callable[[], object], calls: int) -> float:
    """Median time of a call."""
    times = []
    for _ in range(calls + WARM_UP):
        started = perf_counter()
        call()
        times.append(perf_counter() - started)
    return statistics.median(times[WARM_UP:]) * 1e3


async def amedian_ms(call: Callable[[], Awaitable[object]], calls: int) -> float:
    """Median time of an awaited call."""
    times = []
    for _ in range(calls + WARM_UP):
        started = perf_counter()
        await call()
        times.append(perf_counter() - started)
    return statistics.median(times[WARM_UP:]) * 1e3


def measure(model: BaseChatModel, calls: int) -> tuple[float, float]:
    """Medians of invoke and ainvoke."""

    async def ainvoke() -> float:
        return await amedian_ms(lambda: model.ainvoke(PROMPT), calls)

    gc.collect()
    return median_ms(lambda: model.invoke(PROMPT), calls), asyncio.run(ainvoke())


def main() -> None:
    """Print a small table."""
    calls = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    routers: dict[str, Router] = {"FixedRouter": FixedRouter(0.9)}
    try:
        routers["bundled default"] = load_router()
    except PrefrouteError as error:
        print(f"no default router: {error}", file=sys.stderr)
    child = AsyncOfflineChatModel(side="strong")
    plain = measure(child, calls)
    print(f"{'':<22}{'invoke ms':>12}{'ainvoke ms':>12}{'added':>10}{'added':>10}")
    print(f"{'plain child':<22}{plain[0]:>12.3f}{plain[1]:>12.3f}")
    for name, router in routers.items():
        routed = measure(RoutedChatModel(strong=child, weak=child, router=router), calls)
        added = [with_ - without for with_, without in zip(routed, plain, strict=True)]
        print(f"{name:<22}{routed[0]:>12.3f}{routed[1]:>12.3f}{added[0]:>10.3f}{added[1]:>10.3f}")


if __name__ == "__main__":
    main()
