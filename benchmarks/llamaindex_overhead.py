"""What routing adds to a LlamaIndex call: medians with and without it, over an LLM that answers at once.

Run with: python benchmarks/llamaindex_overhead.py [--calls 2000]
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import subprocess
import sys
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING

from llama_index.core.llms import ChatMessage, MockLLM

from llamaindex_router import RoutedLLM, RouterSelector
from prefroute import Router, RouterNotFoundError, load_router
from prefroute.testing import FixedRouter

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

MESSAGES = [ChatMessage(content="Explain in one sentence why the sky is blue.")]
CHOICES = ["the strong engine", "the weak engine"]


def seconds_per_call(call: Callable[[], object], calls: int) -> float:
    """Median over calls, after a tenth of them as warm-up."""
    times = []
    for _ in range(calls + calls // 10):
        started = perf_counter()
        call()
        times.append(perf_counter() - started)
    return median(times[calls // 10 :])


async def aseconds_per_call(call: Callable[[], Awaitable[object]], calls: int) -> float:
    """The same for a coroutine."""
    times = []
    for _ in range(calls + calls // 10):
        started = perf_counter()
        await call()
        times.append(perf_counter() - started)
    return median(times[calls // 10 :])


def import_seconds(module: str, after: str) -> float:
    """Median time to import a module in a fresh interpreter that has imported another one."""
    code = f"import {after}, time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(7)]
    return median(float(run.stdout) for run in runs)


def routers() -> dict[str, Router]:
    """The routers to measure; the bundled default where its files are present."""
    found: dict[str, Router] = {"FixedRouter": FixedRouter(0.9)}
    try:
        found["bundled default"] = load_router()
    except RouterNotFoundError as error:
        print(f"bundled default left out: {error}")
    return found


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=2000)
    calls = parser.parse_args().calls
    logging.disable(logging.WARNING)
    bare = MockLLM(max_tokens=8)
    plain = seconds_per_call(lambda: bare.chat(MESSAGES), calls)
    aplain = asyncio.run(aseconds_per_call(lambda: bare.achat(MESSAGES), calls))
    print(f"\n{'':<18}{'call':<18}{'median ms':>10}{'added ms':>10}")
    print(f"{'no routing':<18}{'chat':<18}{plain * 1e3:>10.3f}")
    print(f"{'no routing':<18}{'achat':<18}{aplain * 1e3:>10.3f}")
    for name, router in routers().items():
        routed = RoutedLLM(strong=bare, weak=bare, router=router)
        selector = RouterSelector(router=router)
        chat = seconds_per_call(lambda llm=routed: llm.chat(MESSAGES), calls)  # type: ignore[misc]
        achat = asyncio.run(aseconds_per_call(lambda llm=routed: llm.achat(MESSAGES), calls))  # type: ignore[misc]
        select = seconds_per_call(lambda it=selector: it.select(CHOICES, MESSAGES[0].content), calls)  # type: ignore[misc]
        print(f"{name:<18}{'chat':<18}{chat * 1e3:>10.3f}{(chat - plain) * 1e3:>10.3f}")
        print(f"{name:<18}{'achat':<18}{achat * 1e3:>10.3f}{(achat - aplain) * 1e3:>10.3f}")
        print(f"{name:<18}{'selector.select':<18}{select * 1e3:>10.3f}")
    added = import_seconds("llamaindex_router", after="llama_index.core")
    print(f"\nimport llamaindex_router, after llama_index.core: {added * 1e3:.0f} ms")


if __name__ == "__main__":
    main()
