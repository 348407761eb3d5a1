"""The progress bar of labelling: rows, what they cost, and calls that are held back."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

_SECONDS = 0.25


class State(NamedTuple):
    """How far a run is.

    Attributes:
        done: Rows.
        cost: In words.
        waiting: Calls held back for a rate limit.
    """

    done: int
    cost: str
    waiting: int


@asynccontextmanager
async def bar(total: int, state: Callable[[], State], *, shown: bool) -> AsyncIterator[None]:
    """A bar on stderr until the end of the block, if it is to be shown."""
    if not shown:
        yield
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("labelling"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[about]}"), console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=total, about="")

        def show() -> None:
            now = state()
            held = f", {now.waiting} calls wait for a rate limit" if now.waiting else ""
            progress.update(task, completed=now.done, about=f"{now.cost}{held}")

        async def watch() -> None:
            while True:
                show()
                await asyncio.sleep(_SECONDS)

        watching = asyncio.create_task(watch())
        try:
            yield
        finally:
            watching.cancel()
            show()
