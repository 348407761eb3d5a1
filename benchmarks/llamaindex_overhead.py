"""What RoutedLLM adds to a LlamaIndex LLM that answers at once: a chat, a streamed chunk, an agent's step; metadata.

Run: python benchmarks/llamaindex_overhead.py [calls]
Each figure is the difference of two medians; plain and routed calls take turns, so that both see the same machine.
Target, with a router of constant score: 80 microseconds a chat, set on a day on which a plain one took 107.
"""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from functools import partial
from statistics import median
from time import perf_counter
from typing import TYPE_CHECKING, Any

from llama_index.core.base.llms.types import ToolCallBlock
from llama_index.core.llms import ChatMessage, ChatResponse, MockLLM
from llama_index.core.llms.callbacks import llm_chat_callback

from llamaindex_router import RoutedLLM, RouterSelector
from prefroute import PrefrouteError, load_router
from prefroute.testing import FixedRouter

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from llama_index.core.llms import LLM

    from prefroute import Router

ASKED = [ChatMessage(content="Explain in one sentence why the sky is blue.")]
STEP = [
    *ASKED,
    ChatMessage(
        role="assistant", blocks=[ToolCallBlock(tool_call_id="1", tool_name="search", tool_kwargs={"q": "sky"})]
    ),
    ChatMessage(role="tool", content="Rayleigh scattering " * 50, additional_kwargs={"tool_call_id": "1"}),
]
CHOICES = ["the strong engine", "the weak engine"]
CHUNKS = 500


class ChunkyLLM(MockLLM):
    """Answers a stream in many chunks."""

    @llm_chat_callback()
    def stream_chat(self, messages: Any, **_: Any) -> Iterator[ChatResponse]:  # noqa: ARG002 - the framework's signature
        """The same chunk again and again."""
        message = ChatMessage(role="assistant", content="x")
        return (ChatResponse(message=message, delta="x") for _ in range(CHUNKS))


def added(plain: Callable[[], object], routed: Callable[[], object], calls: int) -> tuple[float, float]:
    """Microseconds of a plain call, and what a routed one takes beyond it."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(calls + calls // 10):
        for call, taken in zip((plain, routed), times, strict=True):
            started = perf_counter()
            call()
            taken.append(perf_counter() - started)
    first, second = (median(taken[calls // 10 :]) * 1e6 for taken in times)
    return first, second - first


async def aadded(
    plain: Callable[[], Awaitable[object]], routed: Callable[[], Awaitable[object]], calls: int
) -> tuple[float, float]:
    """The same for coroutines."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(calls + calls // 10):
        for call, taken in zip((plain, routed), times, strict=True):
            started = perf_counter()
            await call()
            taken.append(perf_counter() - started)
    first, second = (median(taken[calls // 10 :]) * 1e6 for taken in times)
    return first, second - first


def alone(call: Callable[[], object], calls: int) -> float:
    """Microseconds of a call."""
    return added(lambda: None, call, calls)[1]


def import_seconds(module: str, after: str) -> float:
    """Median time to import a module in a fresh interpreter that has imported another one."""
    code = f"import {after}, time; t = time.perf_counter(); import {module}; print(time.perf_counter() - t)"
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(7)]
    return median(float(run.stdout) for run in runs)


def routers() -> dict[str, Router]:
    """The routers to measure; the bundled default where its files are present."""
    found: dict[str, Router] = {"constant score": FixedRouter(0.9)}
    try:
        found["bundled default"] = load_router()
    except PrefrouteError as error:
        print(f"bundled default left out: {error}")
    return found


def drained(llm: LLM) -> None:
    """Read a stream to its end."""
    for _ in llm.stream_chat(ASKED):
        pass


def rows_of(router: Router, calls: int) -> Iterator[tuple[str, float, float | None]]:
    """Kind of call, microseconds of the plain one, and what routing adds; None where there is no plain one."""
    bare, chunky = MockLLM(max_tokens=8), ChunkyLLM(max_tokens=8)
    routed = RoutedLLM(strong=bare, weak=bare, router=router)
    routed.chat(ASKED)  # The turn that STEP goes on with.
    yield "chat", *added(partial(bare.chat, ASKED), partial(routed.chat, ASKED), calls)
    yield "chat, later step of a turn", *added(partial(bare.chat, STEP), partial(routed.chat, STEP), calls)
    yield "achat", *asyncio.run(aadded(partial(bare.achat, ASKED), partial(routed.achat, ASKED), calls))
    streams = partial(drained, chunky), partial(drained, RoutedLLM(strong=chunky, weak=chunky, router=router))
    plain, more = added(*streams, max(calls // 50, 10))
    yield "stream_chat, a chunk", plain / CHUNKS, more / CHUNKS
    yield (
        "selector.select",
        alone(partial(RouterSelector(router=router).select, CHOICES, "Why is the sky blue?"), calls),
        None,
    )
    yield "metadata", alone(lambda: routed.metadata, calls), None


def main() -> None:
    """Measure and print a Markdown table."""
    calls = int(sys.argv[1]) if len(sys.argv) > 1 else 2000
    logging.disable(logging.WARNING)
    print("| router | call | plain, or alone | routing adds | adds / plain |\n|---|---|---|---|---|")
    for name, router in routers().items():
        for call, plain, more in rows_of(router, calls):
            rest = "| |" if more is None else f"{more:.1f} us | {more / plain:.2f} |"
            print(f"| {name} | `{call}` | {plain:.1f} us | {rest}")
    seconds = import_seconds("llamaindex_router", after="llama_index.core")
    print(f"\nimport llamaindex_router, after llama_index.core: {seconds * 1e3:.0f} ms")


if __name__ == "__main__":
    main()
