"""`prefroute route`: where prompts would go."""

from __future__ import annotations

import json
import sys
from itertools import chain, islice
from typing import TYPE_CHECKING, Annotated

import typer

from prefroute.cli._console import RouterOption, decision_table, rate_line, show
from prefroute.errors import ConfigurationError
from prefroute.inputs import as_prompts
from prefroute.persistence import load_router
from prefroute.stats import RoutingStats

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from prefroute.router import Router
    from prefroute.types import RoutingDecision

_CHUNK = 256


def route(
    prompts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PROMPT...", help="Prompts; without any, stdin is read, one per line, blank lines skipped."
        ),
    ] = None,
    *,
    router: RouterOption = None,
    threshold: Annotated[
        float | None,
        typer.Option(help="Scores at or above it go strong; any finite number. Without it, the router's own."),
    ] = None,
    strong_rate: Annotated[
        float | None,
        typer.Option(
            metavar="R", help="In place of a threshold: share of traffic that goes strong, by the router's calibration."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a prompt.")] = False,
) -> None:
    """Say where prompts would go. No model is called."""
    if threshold is not None and strong_rate is not None:
        msg = f"give --threshold or --strong-rate, not both; got {threshold:g} and {strong_rate:g}"
        raise ConfigurationError(msg)
    chosen = load_router(router)
    if strong_rate is not None:
        threshold = chosen.threshold_for(strong_rate)
    stats = RoutingStats()
    decided = _decide(chosen, prompts or _stdin_lines(), threshold, stats)
    first = next(decided, None)
    if first is None:
        msg = "no prompts: give them as arguments, or one per line on stdin"
        raise ConfigurationError(msg)
    decided = chain([first], decided)
    if as_json:
        for prompt, decision in decided:
            fields = {name: getattr(decision, name) for name in ("score", "threshold", "route", "reason")}
            typer.echo(json.dumps({"prompt": prompt, **fields}))
    else:
        show(decision_table(decided))
        show(rate_line(stats))


def _decide(
    router: Router, prompts: Iterable[str], threshold: float | None, stats: RoutingStats
) -> Iterator[tuple[str, RoutingDecision]]:
    """Pairs of prompt and decision, a chunk at a time, so that a long file neither waits nor fills memory."""
    remaining = iter(prompts)
    while chunk := as_prompts(list(islice(remaining, _CHUNK))):
        yield from zip(chunk, router.route_batch(chunk, threshold, stats=stats), strict=True)


def _stdin_lines() -> Iterator[str]:
    if sys.stdin is None or sys.stdin.isatty():
        return
    for line in sys.stdin.buffer:
        text = line.decode("utf-8", "replace").removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}").strip("\r\n")
        if text.strip():
            yield text
