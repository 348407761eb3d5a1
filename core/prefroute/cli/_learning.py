"""What every `prefroute train` command does before and after its router learns."""

from __future__ import annotations

import json
import logging
import os
import shlex
import sys
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import typer

from prefroute.cli._console import printable, show
from prefroute.errors import ConfigurationError, DataError, MissingExtraError, PersistenceError
from prefroute.types import ModelPair

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from prefroute.cli._options import DataOptions, EmbeddingOptions
    from prefroute.data import Battles, ReadReport
    from prefroute.embedding import Embedder

_PYTHON_ARGUMENTS = ("format=", "columns=", "values=", "models=", "on_bad_row=")
_BAD_ROWS_SHOWN = 3
_FILES_SHOWN = 6

_SILENT = logging.NullHandler()
"""Keeps warnings of skipped rows off stderr: the summary tells the same, with more about it."""


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """What was read, and what is left of it to learn from.

    Attributes:
        battles: To learn from.
        report: Of the readers.
        dropped: Battles left out after reading, by why.
    """

    battles: Battles
    report: ReadReport
    dropped: dict[str, int]


def checked_pair(options: DataOptions) -> ModelPair:
    """The pair, once all that can be refused before any work is done has been looked at.

    Raises:
        ConfigurationError: The files, the pair or the output folder cannot be used.
    """
    if not _files(options):
        msg = "no data: name at least one file with --data"
        raise ConfigurationError(msg)
    _outcome_values(options.outcome)
    _check_output(options.output)
    return ModelPair(strong=options.strong, weak=options.weak)


def opened_embedder(options: EmbeddingOptions) -> Embedder | None:
    """The embedder, tried on a word: what it lacks should be told before the data are read.

    Returns:
        The embedder; None for the router's own choice.

    Raises:
        ConfigurationError: There is no such embedder, or nothing to keep in the cache.
        MissingExtraError: What it needs is not installed.
    """
    from prefroute.embedding import ConcatenatedEmbedder, as_embedder

    if options.embedder is None:
        if options.cache is not None:
            msg = "--cache goes with --embedder; the embedder that comes with prefroute is as quick as a cache"
            raise ConfigurationError(msg)
        return None
    embedder = as_embedder(options.embedder)
    if options.cache is not None:
        parts = [_cached(part, options.cache) for part in getattr(embedder, "parts", [embedder])]
        embedder = parts[0] if len(parts) == 1 else ConcatenatedEmbedder(parts)
    embedder.embed(["prefroute"])
    return embedder


def fitted_embedder(embedder: Embedder | None, data: TrainingData) -> Embedder | None:
    """The opened embedder, its length and surface standardised by the prompts to learn from."""
    from prefroute.embedding.registry import standardised

    return None if embedder is None else standardised(embedder, data.battles.prompts)


def _cached(part: Embedder, path: Path) -> Embedder:
    """The part behind the cache; one that only looks at the text is quicker than any cache."""
    from prefroute.embedding import LengthEmbedder, SurfaceEmbedder
    from prefroute.embedding.cache import CachedEmbedder

    if isinstance(part, LengthEmbedder | SurfaceEmbedder):
        return part
    return CachedEmbedder(part, path, progress=shows_progress())


def read_data(options: DataOptions) -> TrainingData:
    """Read and clean the battles."""
    from prefroute.data import ReadReport, drop_duplicates, drop_short_prompts, read_battles

    report = ReadReport()
    logging.getLogger("prefroute.data").addHandler(_SILENT)
    try:
        battles = read_battles(
            _files(options),
            format=options.format,
            columns=options.columns or None,
            values=_outcome_values(options.outcome),
            models=(options.strong, options.weak),
            turn=options.turn,
            on_bad_row=options.on_bad_row,
            report=report,
            progress=shows_progress(),
        )
    except DataError as error:
        if not any(argument in str(error) for argument in _PYTHON_ARGUMENTS):
            raise
        here = "--format, --prompt-column and the like, --outcome VALUE=P, --strong and --weak, --on-bad-row"
        msg = f"{error} (on the command line: {here})"
        raise DataError(msg) from error
    long_enough = drop_short_prompts(battles, options.min_characters)
    kept = long_enough if options.keep_duplicates else drop_duplicates(long_enough)
    dropped = {
        f"prompts shorter than {options.min_characters} characters": len(battles) - len(long_enough),
        "repeated rows": len(long_enough) - len(kept),
    }
    if not len(kept):
        shortest = f"shorter than {options.min_characters} characters"
        msg = f"the prompts of all {len(battles):,} battles are {shortest}; lower --min-characters"
        raise DataError(msg)
    for side in ("strong", "weak"):
        _check_known(side, getattr(options, side), kept.models)
    return TrainingData(battles=kept, report=report, dropped=dropped)


def save_and_tell(router: Any, data: TrainingData, options: DataOptions, learnt: dict[str, Any]) -> None:
    """Save the router, and print what was read, dropped and learnt.

    Args:
        router: A fitted router.
        data: What it was fitted on.
        options: Of the command.
        learnt: What there is to tell of this kind of router, by label.
    """
    router.save_pretrained(options.output)
    summary = _summary(router, data, options, learnt)
    if options.as_json:
        typer.echo(json.dumps(summary))
        return
    for label, text in _lines(summary):
        show(f"{label:<10}{printable(text)}")


def needs(module: str, what: str, extra: str) -> None:
    """Refuse early what would fail after the data were read and embedded.

    Raises:
        MissingExtraError: The module is not installed.
    """
    from importlib.util import find_spec

    if find_spec(module) is None:
        name = {"sklearn": "scikit-learn"}.get(module, module)
        msg = f'{what} needs {name}: pip install "prefroute[{extra}]"'
        raise MissingExtraError(msg)


def shows_progress() -> bool:
    """Whether there is someone to show progress to."""
    return sys.stderr is not None and sys.stderr.isatty()


def _files(options: DataOptions) -> list[Path]:
    return [*(options.data or ()), *(options.more or ())]


def _outcome_values(given: Sequence[str] | None) -> dict[Any, float] | None:
    """What `--outcome VALUE=P` says, as `read_battles` wants it."""
    if not given:
        return None
    values: dict[Any, float] = {}
    for item in given:
        name, _, number = item.rpartition("=")
        try:
            values[name] = float(number)
        except ValueError:
            name = ""
        if not name:
            msg = f"--outcome must be VALUE=P with P from 0 to 1, such as tie=0.5; got {item!r}"
            raise ConfigurationError(msg)
    return values


def _check_known(side: str, name: str, models: Sequence[str]) -> None:
    """Refuse a name that is misspelt; a tier, as in "tier 1", is left to the routers that know tiers."""
    if name in models or name.startswith("tier "):
        return
    near = get_close_matches(name, models, 3, 0.4) or list(models)
    msg = (
        f"--{side} {name!r} is none of the {len(models)} models in the data; near it: {', '.join(near[:8])}. "
        "Write it as the data do"
    )
    raise ConfigurationError(msg)


def _check_output(folder: Path) -> None:
    from prefroute.persistence import CONFIG_FILE, read_config

    if folder.is_dir():
        if any(folder.iterdir()):
            try:
                is_router = "router_type" in read_config(folder)
            except PersistenceError:
                is_router = False
            if not is_router:
                msg = f"--output {folder} is not empty and holds no saved router ({CONFIG_FILE}); name another folder"
                raise ConfigurationError(msg)
    elif folder.exists():
        msg = f"--output {folder} is a file; name a folder"
        raise ConfigurationError(msg)
    parent = folder.absolute()
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        msg = f"--output {folder} cannot be written: {parent} may not be written to; name another folder"
        raise ConfigurationError(msg)


def _summary(router: Any, data: TrainingData, options: DataOptions, learnt: dict[str, Any]) -> dict[str, Any]:
    pair: ModelPair = router.pair
    battles, report = data.battles, data.report
    return {
        "router_type": router.router_type,
        "files": [file._asdict() for file in report.files],
        "bad_rows": {
            "count": report.rows_bad,
            "reasons": dict(report.reasons.most_common()),
            "first": [row._asdict() for row in report.bad_rows[:_BAD_ROWS_SHOWN]],
        },
        "dropped": data.dropped,
        "battles": len(battles),
        "prompts": len(battles.prompts),
        "models": len(battles.models),
        "pair": {"strong": pair.strong, "weak": pair.weak, "battles": _between(battles, pair)},
        "learnt": learnt,
        "threshold": router.threshold,
        "output": str(options.output),
    }


def _between(battles: Battles, pair: ModelPair) -> int | None:
    """Battles of the two with each other; None where a side is a tier."""
    if not {pair.strong, pair.weak} <= set(battles.models):
        return None
    strong, weak = (battles.models.index(name) for name in (pair.strong, pair.weak))
    a, b = battles.model_a, battles.model_b
    return int((((a == strong) & (b == weak)) | ((a == weak) & (b == strong))).sum())


def _lines(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """The summary as a label and a text a line; what there is nothing to tell of is left out."""
    pair, bad = summary["pair"], summary["bad_rows"]
    files = summary["files"]
    lines = [
        ("read", f"{file['file']}: {file['kept']:,} of {file['rows']:,} rows, as {file['format']}")
        for file in files[:_FILES_SHOWN]
    ]
    if len(files) > _FILES_SHOWN:
        kept, rows = (sum(file[count] for file in files) for count in ("kept", "rows"))
        lines.append(("", f"... {len(files)} files in all: {kept:,} of {rows:,} rows"))
    lines += [("unusable", f"{count:,} x {reason}") for reason, count in bad["reasons"].items()]
    lines += [("", f"{row['file']}:{row['line']}: {row['reason']}") for row in bad["first"]]
    lines += [("dropped", f"{count:,} battles: {reason}") for reason, count in summary["dropped"].items() if count]
    sizes = f"{summary['battles']:,} battles over {summary['prompts']:,} prompts between {summary['models']:,} models"
    own = "" if pair["battles"] is None else f"; {pair['battles']:,} between {pair['strong']} and {pair['weak']}"
    lines.append(("learnt", f"{summary['router_type']} from {sizes}{own}"))
    lines += [("", f"{label}: {_figure(value)}") for label, value in summary["learnt"].items()]
    command = shlex.join(["prefroute", "route", "--router", summary["output"], "Why is the sky blue?"])
    return [
        *lines,
        ("threshold", f"{summary['threshold']:.4f}: about half of prompts like these go to {pair['strong']}"),
        ("saved", summary["output"]),
        ("try", command),
    ]


def _figure(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
