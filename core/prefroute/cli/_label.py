"""`prefroute label`: prompts, to answers of both models, to a label each."""

from __future__ import annotations

import json
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from prefroute.cli._benchmark import in_options, read_prompt_file
from prefroute.cli._label_options import (  # noqa: TC001 - typer reads the annotations
    LabellerOptions,
    ModelOptions,
    RunOptions,
    SourceOptions,
)
from prefroute.cli._label_report import show_estimate, show_summary
from prefroute.cli._learning import needs, shows_progress
from prefroute.cli._options import OnBadRow, Turn, with_options
from prefroute.errors import ConfigurationError, DataError

if TYPE_CHECKING:
    from prefroute.labelling import Estimate, LabelSummary, Prompt

_STATUS = {"failed": 1, "declined": 1, "max_cost": 3, "interrupted": 130}


@with_options
def label(
    models: ModelOptions,
    labellers: LabellerOptions,
    source: SourceOptions,
    run: RunOptions,
    *,
    prompts: Annotated[
        Path | None,
        typer.Argument(
            metavar="FILE",
            help="Prompts: CSV, JSON lines or Parquet, also .gz; or .txt with one a line.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    output: Annotated[
        Path, typer.Option(metavar="FILE", help="JSON lines of labelled prompts; continued if it is there.")
    ],
) -> None:
    """Ask both models, and label their answers: a table to fit a router on.

    Every reply is on disk before it is used (OUTPUT.calls). Run the same command again after whatever ended it: no
    call whose reply had arrived is made twice. Ctrl-C waits for the calls on their way. Ends with 3 at --max-cost.
    """
    from prefroute.labelling import estimate_labels, label_prompts

    source.check(prompts)
    strong, weak = models.endpoints()
    labeller = labellers.labeller(models.patience())
    if labeller.needs_reference and source.reference_column is None:
        msg = "--match needs --reference-column: the column of what is right"
        raise ConfigurationError(msg)
    if labeller.judge is not None and source.reference_column is not None:
        msg = "--reference-column says nothing to a judge, and rows without one would be left out; leave it out"
        raise ConfigurationError(msg)
    needs("openai", "asking models", "openai")
    found = _chosen(_prompts(prompts, source), source)
    arguments: dict[str, Any] = {
        "strong": strong,
        "weak": weak,
        "labeller": labeller,
        "output": output,
        "references": None if source.reference_column is None else [prompt.reference for prompt in found],
        "prices": run.read_prices(),
        "max_cost": run.max_cost,
        "restart": run.restart,
        "ask_again": run.ask_again,
    }
    texts = [prompt.text for prompt in found]
    if run.dry_run:
        _tell_estimate(estimate_labels(texts, **arguments), as_json=run.as_json)
        return
    summary = label_prompts(
        texts, **arguments, confirm=run.confirm, concurrency=run.concurrency, progress=shows_progress()
    )
    if run.as_json:
        typer.echo(json.dumps(summary.as_dict(), allow_nan=False))
    else:
        show_summary(summary)
    raise typer.Exit(_status(summary))


def _status(summary: LabelSummary) -> int:
    if summary.stopped is not None:
        return _STATUS[summary.stopped]
    return 0 if summary.labelled else 1


def _tell_estimate(estimate: Estimate, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(estimate.as_dict(), allow_nan=False))
    else:
        show_estimate(estimate)


def _chosen(found: list[Prompt], source: SourceOptions) -> list[Prompt]:
    """Those of the sample, and of these the first."""
    from prefroute.labelling.prompts import drawn

    return (found if source.sample is None else drawn(found, source.sample))[: source.limit]


def _prompts(path: Path | None, source: SourceOptions) -> list[Prompt]:
    """The prompts of the file, with their references where a column is named, or those of the log."""
    from prefroute.labelling import Prompt
    from prefroute.labelling.prompts import recorded_prompts

    if path is None or source.from_log is not None:
        return recorded_prompts(cast("Path", source.from_log))
    turn: Turn = source.turn
    on_bad_row: OnBadRow = source.on_bad_row
    if source.reference_column is None:
        texts = read_prompt_file(path, source.prompt_column, turn=turn, on_bad_row=on_bad_row)
        return [Prompt(text) for text in texts]
    if path.suffix == ".txt":
        msg = f"{path} has no columns, so no --reference-column; wanted CSV, JSON lines or Parquet"
        raise ConfigurationError(msg)
    from prefroute.data.report import TableError
    from prefroute.labelling import read_referenced_prompts

    column = source.prompt_column or "prompt"
    try:
        return read_referenced_prompts(path, source.reference_column, column, turn=turn, on_bad_row=on_bad_row)
    except TableError as error:
        raise DataError(in_options(error)) from error
    except DataError as error:
        msg = f"{error}. Name the columns with --prompt-column and --reference-column"
        raise DataError(msg) from error
