"""The `prefroute` command. The only module that prints."""

from __future__ import annotations

import importlib
import json
import sys
from itertools import chain, islice
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prefroute import __version__
from prefroute.errors import ConfigurationError, MissingExtraError, PrefrouteError
from prefroute.inputs import as_prompts
from prefroute.persistence import load_router
from prefroute.stats import RoutingStats

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rich.table import Table

    from prefroute.demo import AdapterRun
    from prefroute.router import Router
    from prefroute.types import RoutingDecision

# typer carries its own copy of click from some release on, so click's class is found through typer.
_USAGE_ERROR: Any = next(base for base in typer.BadParameter.__mro__ if base.__name__ == "ClickException")

_ADAPTERS = ("langchain_router", "llamaindex_router")
_CHUNK = 256
_JOINERS = "\N{ZERO WIDTH NON-JOINER}\N{ZERO WIDTH JOINER}"  # Persian and emoji are written with them.
_USAGE = 2
_INTERRUPTED = 130

# RouteLLM (arXiv 2406.18665), section 5: dollars per million tokens, GPT-4 and Mixtral 8x7B.
_STRONG_PRICE, _WEAK_PRICE = 24.7, 0.24

_SNIPPET = (
    "from langchain_openai import ChatOpenAI",
    "from langchain_router import RoutedChatModel, StrongCallRateHandler",
    "rate = StrongCallRateHandler()",
    'chat = RoutedChatModel(strong=ChatOpenAI(model="STRONG"), weak=ChatOpenAI(model="WEAK"))',
    'print(chat.invoke("Why is the sky blue?", config={"callbacks": [rate]}).text)',
    'print(f"strong-call rate: {rate.strong_rate:.0%}")',
)

app = typer.Typer(
    help="Learned routing between a strong and a weak chat model.",
    context_settings={"help_option_names": ["-h", "--help"]},
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

RouterOption = Annotated[
    str | None, typer.Option("--router", help="Folder or hub id of a saved router; without it, the bundled default.")
]


def main() -> None:
    """Run the command; whatever goes wrong is one line on stderr and a non-zero exit status."""
    if hasattr(sys.stdout, "reconfigure"):
        # A terminal that cannot show a character gets its escape, not a traceback.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        status = app(standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
    except _USAGE_ERROR as error:
        _fail(error.format_message(), error.exit_code)
    except ConfigurationError as error:
        _fail(str(error), _USAGE)
    except PrefrouteError as error:
        _fail(str(error), 1)
    except (KeyboardInterrupt, typer.Abort):
        _fail("interrupted", _INTERRUPTED)
    except BrokenPipeError:
        # The reader has gone (`| head`). Python would complain once more when it flushes stdout at exit.
        sys.stdout = None
        sys.exit(1)
    except OSError as error:  # A full disk under a redirected stdout.
        sys.stdout = None
        _fail(str(error), 1)
    sys.exit(status)


def _fail(message: str, status: int) -> None:
    sys.stderr.write(f"prefroute: {' '.join(message.split())}\n")
    sys.exit(status)


def _show_version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it with the flag's value
    if wanted:
        typer.echo(f"prefroute {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Learned routing between a strong and a weak chat model."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command()
def route(
    prompts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PROMPT...", help="Prompts; without any, stdin is read, one per line, blank lines skipped."
        ),
    ] = None,
    router: RouterOption = None,
    threshold: Annotated[
        float | None,
        typer.Option(help="Scores at or above it go strong; any finite number. Without it, the router's own."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a prompt.")] = False,
) -> None:
    """Say where prompts would go. No model is called."""
    chosen = load_router(router)
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
        _print(_decision_table(decided))
        _print(_rate_line(stats))


@app.command()
def demo(
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
    _print(f"Answered by {strong} and {weak}." if strong else _OFFLINE_NOTE)
    for error in missing:
        _print(f"Left out: {error}")
    decisions = runs[0].decisions if runs else chosen.route_batch(PROMPTS)
    answers = runs[0].answers if runs and strong else None
    _print(_decision_table(zip(PROMPTS, decisions, strict=True), answers))
    for run in runs:
        _print(f"{run.framework}: strong-call rate {run.strong_rate:.0%} over {len(run.decisions)} prompts")
    if not runs:
        _print("No adapter is installed; the router alone was asked.")
    _print(_threshold_table(decisions))
    _print("\nThe bundled router is a general one: the README says what to expect of it, and how to train your own.")
    _print("With real models (pip install langchain-openai):\n")
    _print("\n".join(_SNIPPET))


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


def _print(item: str | Table) -> None:
    from rich.console import Console

    # Prompts are not markup: "[/]" in one must neither vanish nor raise.
    Console(highlight=False, markup=False, soft_wrap=isinstance(item, str)).print(item)


def _decision_table(decided: Iterable[tuple[str, RoutingDecision]], answers: Sequence[str] | None = None) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(expand=True)
    for name in ("prompt", "score", "route", *(["answer"] if answers else [])):
        # Columns with a ratio share what the others leave: texts are cut, figures never.
        table.add_column(name, no_wrap=True, ratio=1 if name in {"prompt", "answer"} else None)
    for index, (prompt, decision) in enumerate(decided):
        score = "-" if decision.score is None else f"{decision.score:.3f}"
        shown = [prompt, *([answers[index]] if answers else [])]
        first, *rest = [Text(_printable(text)) for text in shown]
        table.add_row(first, score, decision.route, *rest)
    return table


def _printable(text: str) -> str:
    """One line of text without the control characters that would steer the terminal."""
    return "".join(
        c if c.isprintable() or c in _JOINERS else "\N{REPLACEMENT CHARACTER}" for c in " ".join(text.split())
    )


def _rate_line(stats: RoutingStats) -> str:
    strong, total = stats.snapshot()["by_route"]["strong"], stats.total
    return f"strong-call rate {strong}/{total} = {strong / total:.0%}"


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
