"""Options that several commands share, written once: a command takes them as one parameter."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

OnBadRow = Literal["raise", "skip"]
Turn = Literal["first", "last", "all"]


PromptColumnOption = Annotated[str | None, typer.Option(metavar="NAME", help="Column of the prompt.")]
TurnOption = Annotated[Turn, typer.Option(help="Which of the user's turns is the prompt, where a row has several.")]
OnBadRowOption = Annotated[
    OnBadRow,
    typer.Option(
        help="What to do about a row that cannot be used: stop, or skip and count it. A damaged file always stops."
    ),
]


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """Which battles to learn from, for which pair, and where to write the router."""

    more: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="FILE", help="More files, as of a glob after --data.", exists=True, dir_okay=False, readable=True
        ),
    ] = None
    data: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE...",
            help="Battles, or responses with one quality column a model: CSV, JSON lines or Parquet, also .gz.",
            exists=True,
            dir_okay=False,
            readable=True,
        ),
    ] = None
    strong: Annotated[str, typer.Option(metavar="NAME", help="The strong model, as the data name it.")]
    weak: Annotated[str, typer.Option(metavar="NAME", help="The weak model, as the data name it.")]
    output: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder for the router: new, empty, or with a router to replace.")
    ]
    format: Annotated[
        str | None, typer.Option(metavar="NAME", help="battles, fastchat, arena or responses; else it is recognised.")
    ] = None
    prompt_column: PromptColumnOption = None
    model_a_column: Annotated[str | None, typer.Option(metavar="NAME", help="Column of one model.")] = None
    model_b_column: Annotated[str | None, typer.Option(metavar="NAME", help="Column of the other model.")] = None
    outcome_column: Annotated[str | None, typer.Option(metavar="NAME", help="Column that says who won.")] = None
    weight_column: Annotated[str | None, typer.Option(metavar="NAME", help="Column of the weight of a battle.")] = None
    source_column: Annotated[
        str | None, typer.Option(metavar="NAME", help="Column of where a battle comes from, or who judged it.")
    ] = None
    outcome: Annotated[
        list[str] | None,
        typer.Option(
            metavar="VALUE=P",
            help=(
                "What a value of the outcome column means: P that model_a won, as in 1=1, 2=0. Repeat it. "
                "a, b, tie and names of models are understood without."
            ),
        ),
    ] = None
    turn: TurnOption = "first"
    on_bad_row: OnBadRowOption = "skip"
    margin: Annotated[
        float | None,
        typer.Option(min=0, metavar="X", help="Two qualities of a response table that differ by no more tie."),
    ] = None
    min_characters: Annotated[int, typer.Option(min=0, metavar="N", help="Leave out prompts of fewer characters.")] = 16
    keep_duplicates: Annotated[
        bool, typer.Option("--keep-duplicates", help="Count a battle again that is there twice, outcome and all.")
    ] = False
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as one JSON object.")] = False

    def __post_init__(self) -> None:
        """Trim the names of the models, as those in the data are."""
        for side in ("strong", "weak"):
            object.__setattr__(self, side, getattr(self, side).strip())

    @property
    def columns(self) -> dict[str, str]:
        """The named columns by what they hold."""
        roles = ("prompt", "model_a", "model_b", "outcome", "weight", "source")
        named = {role: getattr(self, f"{role}_column") for role in roles}
        return {role: name for role, name in named.items() if name is not None}


@dataclass(frozen=True, kw_only=True)
class EmbeddingOptions:
    """How prompts become vectors."""

    embedder: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help=(
                "static, minilm, sentence-transformers:ID, openai:MODEL, length, surface, a folder, or several joined "
                "by +; else static, which comes with prefroute, and what suits the router: the length or the surface."
            ),
        ),
    ] = None
    cache: Annotated[
        Path | None,
        typer.Option(metavar="FILE", dir_okay=False, help="Keep what --embedder makes here, for the next time."),
    ] = None


SeedOption = Annotated[int, typer.Option(min=0, metavar="N", help="Seed of whatever is drawn by chance.")]


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the fields of its dataclass parameters as options of its own.

    Args:
        command: Some of its parameters are annotated with a dataclass whose fields are annotated for typer.

    Returns:
        A function that typer sees with one parameter a field.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {name: hint for name, hint in hints.items() if is_dataclass(hint)}
    parameters = []
    for name, parameter in inspect.signature(command).parameters.items():
        if name in groups:
            parameters += _parameters_of(groups[name])
        else:
            parameters.append(parameter.replace(annotation=hints[name]))

    @wraps(command)
    def flat(**given: Any) -> None:
        for name, kind in groups.items():
            given[name] = kind(**{field.name: given.pop(field.name) for field in fields(kind)})
        command(**given)

    flat.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined] # read by inspect
    flat.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return flat


def _parameters_of(kind: Any) -> list[inspect.Parameter]:
    hints = get_type_hints(kind, include_extras=True)
    return [
        parameter.replace(annotation=hints[parameter.name]) for parameter in inspect.signature(kind).parameters.values()
    ]
