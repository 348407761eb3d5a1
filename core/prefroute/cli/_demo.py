"""`prefroute demo`: the bundled prompts through every adapter."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Annotated

import typer

from prefroute.cli._console import RouterOption, decision_table, show
from prefroute.errors import ConfigurationError, MissingExtraError, PrefrouteError
from prefroute.persistence import load_router

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from prefroute.demo import AdapterRun
    from prefroute.router import Router
    from prefroute.types import RoutingDecision

_ADAPTERS = ("langchain_router", "llamaindex_router")

# RouteLLM (arXiv 2406.18665), section 5: dollars per million tokens, GPT-4 and Mixtral 8x7B.
_STRONG_PRICE, _WEAK_PRICE = 24.7, 0.24


def demo(
    *,
    router: RouterOption = None,
    strong: Annotated[str | None, typer.Option(help="A real strong model, such as openai:NAME.")] = None,
    weak: Annotated[str | None, typer.Option(help="A real weak model, such as openai:NAME.")] = None,
) -> None:
    """Route about 25 prompts through every installed adapter; offline unless real models are named."""
    from prefroute.demo import PROMPTS

    if (strong is None) != (weak is None):
        msg = "--strong and --weak go together: name both models, or neither for offline stand-ins"
        raise ConfigurationError(msg)
    for option, spec in (("--strong", strong), ("--weak", weak)):
        if spec is not None and not all(spec.partition(":")):
            msg = f"{option} must be PROVIDER:NAME, such as openai:gpt-5-mini; got {spec!r}"
            raise ConfigurationError(msg)
    chosen = load_router(router)
    runs, missing = _run_adapters(chosen, strong, weak)
    if strong and not runs:
        raise missing[0]
    show(f"Answered by {strong} and {weak}." if strong else _OFFLINE_NOTE)
    for error in missing:
        show(f"Left out: {error}")
    decisions = runs[0].decisions if runs else chosen.route_batch(PROMPTS)
    answers = runs[0].answers if runs and strong else None
    show(decision_table(zip(PROMPTS, decisions, strict=True), answers))
    for run in runs:
        show(f"{run.framework}: strong-call rate {run.strong_rate:.0%} over {len(run.decisions)} prompts")
    if not runs:
        show("No adapter is installed; the router alone was asked.")
    show(_threshold_table(decisions))
    show("\nThe bundled router is a general one: the README says what to expect of it, and how to train your own.")
    if runs and runs[0].in_earnest:
        install, *lines = runs[0].in_earnest
        show(f"With real models ({install}):\n")
        show("\n".join(lines))


_OFFLINE_NOTE = "No model is called: offline stand-ins answer, labelled as such. The routing is real."


def _run_adapters(
    router: Router, strong: str | None, weak: str | None
) -> tuple[list[AdapterRun], list[MissingExtraError]]:
    """Route the demo's prompts through every adapter that is installed, and say what the others miss."""
    from prefroute.demo import PROMPTS

    runs: list[AdapterRun] = []
    missing: list[MissingExtraError] = []
    for adapter in _ADAPTERS:
        try:
            runs.append(importlib.import_module(f"{adapter}.demo").run(PROMPTS, router, strong=strong, weak=weak))
        except MissingExtraError as error:
            missing.append(error)
        except PrefrouteError:
            raise
        except Exception as error:  # A named model's provider may fail in any way.
            msg = f"{adapter} with {strong} and {weak}: {type(error).__name__}: {error}"
            raise PrefrouteError(msg) from error
    return runs, missing


def _threshold_table(decisions: Sequence[RoutingDecision]) -> Table:
    """Strong-call rate of the demo's prompts at three thresholds, and what it saves."""
    import numpy as np
    from rich.table import Table

    scores = np.array([decision.score for decision in decisions if decision.score is not None])
    low, high = np.quantile(scores, (0.25, 0.75)) if scores.size else (0.0, 1.0)
    thresholds = (
        (decisions[0].threshold, "the router's own"),
        (float(low), "3/4 of these strong"),
        (float(high), "1/4 of these strong"),
    )
    table = Table("threshold", "which is", "strong-call rate", "saving", title="What the threshold does")
    for threshold, meaning in sorted(thresholds):
        rate = float(np.mean(scores >= threshold)) if scores.size else 1.0
        saving = (1 - rate) * (1 - _WEAK_PRICE / _STRONG_PRICE)
        table.add_row(f"{threshold:.3f}", meaning, f"{rate:.0%}", f"{saving:.0%}")
    table.caption = (
        f"Saving against all strong at ${_STRONG_PRICE} and ${_WEAK_PRICE} per million tokens "
        "(RouteLLM, arXiv 2406.18665), equally long answers."
    )
    return table
