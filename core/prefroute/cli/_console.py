"""What the commands share: options, and how results are shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from prefroute._text import visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.table import Table

    from prefroute.stats import RoutingStats
    from prefroute.types import RoutingDecision

RouterOption = Annotated[
    str | None,
    typer.Option(
        "--router",
        metavar="NAME",
        help="Folder or hub id of a saved router, or random or prompt-length; without it, the bundled default.",
    ),
]


def show(item: str | Table) -> None:
    """Print text or a table, as it is."""
    from rich.console import Console

    # Prompts are not markup: "[/]" in one must neither vanish nor raise, and ":smile:" stays as it is.
    Console(highlight=False, markup=False, emoji=False, soft_wrap=isinstance(item, str)).print(item)


def decision_table(decided: Iterable[tuple[str, RoutingDecision]], answers: Sequence[str] | None = None) -> Table:
    """One row a prompt."""
    from rich.table import Table
    from rich.text import Text

    table = Table(expand=True)
    for name in ("prompt", "score", "route", *(["answer"] if answers else [])):
        # Columns with a ratio share what the others leave: texts are cut, figures never.
        table.add_column(name, no_wrap=True, ratio=1 if name in {"prompt", "answer"} else None)
    for index, (prompt, decision) in enumerate(decided):
        score = "-" if decision.score is None else f"{decision.score:.3f}"
        shown = [prompt, *([answers[index]] if answers else [])]
        first, *rest = [Text(printable(text)) for text in shown]
        table.add_row(first, score, decision.route, *rest)
    return table


def printable(text: str) -> str:
    """One line of text without the control characters that would steer the terminal."""
    return visible(" ".join(text.split()))


def rate_line(stats: RoutingStats) -> str:
    """How many of the prompts went to the strong model."""
    strong, total = stats.snapshot()["by_route"]["strong"], stats.total
    return f"strong-call rate {strong}/{total} = {strong / total:.0%}"
