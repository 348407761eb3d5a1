"""What every `prefroute train` command does before and after its router learns."""

from __future__ import annotations

import logging
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prefroute.errors import ConfigurationError, DataError, MissingExtraError, PersistenceError
from prefroute.types import ModelPair

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from prefroute.cli._options import DataOptions, EmbeddingOptions
    from prefroute.data import Battles, ReadReport
    from prefroute.data.report import TableError
    from prefroute.embedding import Embedder

_MODELS_SHOWN = 6
_COLUMNS = "--model-a-column, --model-b-column, --outcome-column"

_SILENT = logging.NullHandler()
"""Keeps warnings of skipped rows off stderr: the summary tells the same, with more about it."""


@dataclass(frozen=True, kw_only=True)
class TrainingData:
    """What was read, and what is left of it to learn from.

    Attributes:
        battles: To learn from.
        report: Of the readers.
        dropped: Battles left out after reading, by why.
        graded: Whether they were made of grades, where the weak model never wins.
    """

    battles: Battles
    report: ReadReport
    dropped: dict[str, int]
    graded: bool = False


@dataclass(frozen=True, kw_only=True)
class JudgeScores:
    """That the data are scores of the weak model's answers, with the strong model's as reference.

    Attributes:
        column: Where they stand.
        most: The best score possible; 1 is the worst.
    """

    column: str
    most: int


def checked_pair(options: DataOptions, cache: Path | None = None) -> ModelPair:
    """The pair, once all that can be refused before any work is done has been looked at.

    Args:
        options: Of the command.
        cache: File of embeddings, which may lie in the output folder.

    Returns:
        The pair.

    Raises:
        ConfigurationError: The files, the pair or the output folder cannot be used.
    """
    if not _files(options):
        msg = "no data: name at least one file with --data"
        raise ConfigurationError(msg)
    _outcome_values(options.outcome)
    check_output(options.output, cache)
    return ModelPair(strong=options.strong, weak=options.weak)


def opened(
    options: DataOptions, embedding: EmbeddingOptions, *, needed: tuple[str, str, str] | None = None
) -> tuple[ModelPair, TrainingData, Embedder | None]:
    """What a router over an embedder is trained from; what can be refused is refused before the data are read.

    Args:
        options: Of the command.
        embedding: Of the command.
        needed: A module that training needs, with what needs it and the extra that brings it, as for `needs`.

    Returns:
        The pair, the data, and the embedder, None for the router's own choice.
    """
    pair = checked_pair(options, embedding.cache)
    if needed is not None:
        needs(*needed)
    embedder = opened_embedder(embedding)
    data = read_data(options)
    return pair, data, fitted_embedder(embedder, data)


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
        whole = getattr(embedder, "parts", [embedder])
        parts = [_cached(part, options.cache) for part in whole]
        if all(part is before for part, before in zip(parts, whole, strict=True)):
            msg = f"--cache has nothing to keep: {options.embedder} only looks at the text; leave --cache out"
            raise ConfigurationError(msg)
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


def read_data(options: DataOptions, scores: JudgeScores | None = None) -> TrainingData:
    """Read and clean the battles, or the scores of a judge as battles."""
    from prefroute.data import ReadReport, drop_duplicates, drop_short_prompts
    from prefroute.data.report import TableError

    report = ReadReport()
    logging.getLogger("prefroute.data").addHandler(_SILENT)
    try:
        battles = _read_battles(options, report) if scores is None else _read_scores(options, scores, report)
    except TableError as error:
        raise DataError(_in_options(error, options, scores)) from error
    if options.margin is not None and all(file.format != "responses" for file in report.files):
        msg = "--margin is for response tables, with one quality column a model; these are battles, so leave it out"
        raise ConfigurationError(msg)
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
    return TrainingData(battles=kept, report=report, dropped=dropped, graded=scores is not None)


def _read_battles(options: DataOptions, report: ReadReport) -> Battles:
    from prefroute.data import read_battles

    return read_battles(
        _files(options),
        format=options.format,
        columns=options.columns or None,
        values=_outcome_values(options.outcome),
        models=(options.strong, options.weak),
        margin=options.margin or 0.0,
        turn=options.turn,
        on_bad_row=options.on_bad_row,
        report=report,
        progress=shows_progress(),
    )


def _read_scores(options: DataOptions, scores: JudgeScores, report: ReadReport) -> Battles:
    from prefroute.data import read_responses, reference_battles

    unused = sorted(options.columns.keys() - {"prompt"})
    if unused or options.outcome or options.margin is not None or options.format is not None:
        named = [f"--{name}-column".replace("_", "-") for name in unused]
        wrong = ", ".join(named) or "--outcome, --margin or --format"
        msg = f"--score-column goes with --prompt-column alone, not with {wrong}"
        raise ConfigurationError(msg)
    scale = (1.0, float(scores.most))
    table = read_responses(
        _files(options),
        [scores.column],
        columns=options.columns or None,
        scale=scale,
        turn=options.turn,
        on_bad_row=options.on_bad_row,
        report=report,
        progress=shows_progress(),
    )
    pair = ModelPair(strong=options.strong, weak=options.weak)
    return reference_battles(table.prompts, table.quality[:, 0], pair, scale=scale, graded=True)


def needs(module: str, what: str, extra: str) -> None:
    """Refuse early what would fail after the data were read and embedded.

    Raises:
        MissingExtraError: The module is not installed.
    """
    from importlib.util import find_spec

    if find_spec(module) is None:
        name = {"sklearn": "scikit-learn"}.get(module, module)
        alone = "pip install scikit-learn is enough, or " if module == "sklearn" else ""
        msg = f'{what} needs {name}: {alone}pip install "prefroute[{extra}]"'
        raise MissingExtraError(msg)


def shows_progress() -> bool:
    """Whether there is someone to show progress to."""
    return sys.stderr is not None and sys.stderr.isatty() and is_first()


def is_first() -> bool:
    """Whether this is the process that speaks and writes, of those that a launcher has started."""
    from prefroute.training._fine_tuned import is_first_process

    return is_first_process()


def _in_options(error: TableError, options: DataOptions, scores: JudgeScores | None) -> str:
    """What is wrong with a table, with the remedy in words of the command line."""
    if scores is not None and error.about == "columns":
        return f"{error.found}. Scores need the prompt (--prompt-column) and {scores.column!r} (--score-column)"
    named = " and ".join(
        f"--{role}-column".replace("_", "-") for role, n in options.columns.items() if n in error.details
    )
    outcomes = " ".join(f"--outcome {value}=P" for value in error.details)
    leave_out = "Correct it, or leave such rows out with --on-bad-row skip"
    remedies = {
        "named column": f". Correct {named}",
        "prompt": ". Name it with --prompt-column",
        "columns": (
            f". Battles need prompt, model_a, model_b, winner (name them with --prompt-column, {_COLUMNS}); "
            "responses a column named as --strong and one as --weak"
        ),
        "format": "; say which with --format",
        "row": f". {leave_out}",
        "outcome row": f". {leave_out}, or say with --outcome VALUE=P what other values mean",
        "outcomes": f". Say what they mean: {outcomes} (P is 1: model_a won, 0: model_b won, 0.5: a tie)",
    }
    return error.found + remedies.get(error.about, error.remedy)


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
        if not name or not 0.0 <= values[name] <= 1.0:
            msg = f"--outcome must be VALUE=P with P from 0 to 1, such as tie=0.5; got {item!r}"
            raise ConfigurationError(msg)
    return values


def _check_known(side: str, name: str, models: Sequence[str]) -> None:
    """Refuse a name that is misspelt; a tier, as in "tier 1", is left to the routers that know tiers."""
    from prefroute.data.report import near

    if name in models or name.startswith("tier "):
        return
    meant = near(name, models, 0.4)
    like = f"near it: {', '.join(meant)}" if meant else f"such as {', '.join(models[:_MODELS_SHOWN])}"
    msg = f"--{side} {name!r} is none of the {len(models)} models in the data; {like}. Write it as the data do"
    raise ConfigurationError(msg)


def check_output(folder: Path, cache: Path | None = None) -> None:
    """Refuse early a folder that a router cannot, or should not, be written to.

    Args:
        folder: New, empty, or with a router to replace.
        cache: File of embeddings, which may lie in it.

    Raises:
        ConfigurationError: It is anything else, or may not be written to.
    """
    from prefroute.persistence import CONFIG_FILE, read_config

    if folder.is_dir():
        if _is_occupied(folder, cache):
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
        if parent.is_symlink():
            msg = f"--output {folder} cannot be written: {parent} is a link to what is not there; name another folder"
            raise ConfigurationError(msg)
        parent = parent.parent
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        msg = f"--output {folder} cannot be written: {parent} may not be written to; name another folder"
        raise ConfigurationError(msg)


def _is_occupied(folder: Path, cache: Path | None) -> bool:
    """Whether a folder holds more than what a save that was killed has left, and the cache."""
    from prefroute.persistence import STAGING

    own = () if cache is None else tuple(f"{cache.name}{end}" for end in ("", "-journal", "-wal", "-shm"))
    in_folder = cache is not None and cache.absolute().parent.resolve() == folder.resolve()
    return any(not path.name.startswith(STAGING) and not (in_folder and path.name in own) for path in folder.iterdir())
