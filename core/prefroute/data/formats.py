"""The known formats: how each is recognised by its columns, and how a row of it becomes a battle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from prefroute.data.report import refuse, shown
from prefroute.data.values import WINNERS, OutcomeValues, is_missing, name_of, number_of, probability_of, turn_reader
from prefroute.errors import ConfigurationError, DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from prefroute.data.values import Turn

BattleRow: TypeAlias = tuple[str, str, str, float, float, str]
"""prompt, model_a, model_b, outcome, weight, source."""

FORMATS = {
    "battles": "prompt, model_a, model_b, outcome (P(model_a wins), or what values= says), perhaps weight, source",
    "fastchat": "model_a, model_b, winner (model_a, model_b, tie, tie (bothbad)), and prompt, turns or conversation_a",
    "arena": "model_a, model_b, prompt (a JSON list of turns), winner_model_a, winner_model_b, winner_tie",
    "responses": "prompt and one quality column a model, named with models=[...]",
}
"""The formats, and the columns that each is recognised by."""

_ONE_HOT = ("winner_model_a", "winner_model_b", "winner_tie")
_OUTCOMES: dict[str, tuple[str, ...]] = {"battles": ("outcome",), "fastchat": ("winner",), "arena": _ONE_HOT}
_TURNS = ("turns", "conversation_a")
_PROMPTS = ("prompt", *_TURNS)
_ROLES = ("prompt", "model_a", "model_b", "outcome", "weight", "source")
_PAIR_SIZE = 2


@dataclass(frozen=True, kw_only=True)
class Hints:
    """What a caller says about the columns.

    Attributes:
        format: A name of `FORMATS`; None to recognise it.
        columns: Name of the column by what it holds (prompt, model_a, model_b, outcome, weight, source).
        values: What the values of the outcome column mean.
        models: Quality columns of a response table.
    """

    format: str | None = None
    columns: Mapping[str, str]
    values: Mapping[Any, float] | None = None
    models: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The format of a table, and which of its columns holds what.

    Attributes:
        format: A name of `FORMATS`.
        prompt: Column of the prompt.
        columns: The others that are needed: both models and the outcome, or the quality columns.
        weight: Column of the weight, if there is one.
        source: Column of the source, if there is one.
    """

    format: str
    prompt: str
    columns: tuple[str, ...]
    weight: str | None = None
    source: str | None = None


def hints_of(
    format_name: str | None,
    columns: Mapping[str, str] | None,
    values: Mapping[Any, float] | None,
    models: Sequence[str],
) -> Hints:
    """Check what a caller says about the columns.

    Raises:
        ConfigurationError: A format, a column's use, or the models cannot be used.
    """
    if format_name is not None and format_name not in FORMATS:
        msg = f"format must be one of {', '.join(FORMATS)}, or None to recognise it; got {shown(format_name)}"
        raise ConfigurationError(msg)
    unknown = [role for role in columns or () if role not in _ROLES]
    if unknown:
        msg = f"columns= names the column of any of {', '.join(_ROLES)}; got {', '.join(map(repr, unknown))}"
        raise ConfigurationError(msg)
    if isinstance(models, str) or not all(isinstance(name, str) and name for name in models):
        msg = f"models= must list the quality columns of a response table, got {shown(models)}"
        raise ConfigurationError(msg)
    if len(set(models)) != len(models):
        msg = f"models= must name different columns, got {', '.join(models)}"
        raise ConfigurationError(msg)
    return Hints(format=format_name, columns=dict(columns or {}), values=values, models=tuple(models))


def recognise(found: Sequence[str], hints: Hints, name: str) -> Layout:
    """Tell the format of a table by its columns.

    Args:
        found: Its columns.
        hints: What the caller says about them.
        name: The table, for messages.

    Returns:
        The format and its columns.

    Raises:
        DataError: It is of no known format, or of several; says the columns found, the formats and the remedy.
    """
    twice = sorted({column for column in found if column and list(found).count(column) > 1})
    if twice:
        msg = f"{name}: {', '.join(twice)} names more than one column; give each column a name of its own"
        raise DataError(msg)
    lacking = [column for column in hints.columns.values() if column not in found]
    if lacking:
        msg = f"{name} has no column {', '.join(map(repr, lacking))}, which columns= names; it has: {_listed(found)}"
        raise DataError(msg)
    layouts = {kind: layout for kind in FORMATS if (layout := _layout(kind, found, hints)) is not None}
    if hints.format is not None:
        layouts = {kind: layout for kind, layout in layouts.items() if kind == hints.format}
    if len(layouts) == 1:
        return next(iter(layouts.values()))
    known = "\n".join(f"  {kind}: {columns}" for kind, columns in FORMATS.items())
    if layouts:
        remedy = f"its columns fit {' and '.join(layouts)}; say which with format="
    elif hints.format is not None:
        remedy = f"its columns do not fit format={hints.format!r}; say with columns= which column holds what"
    else:
        remedy = (
            "its columns fit no known format; say with columns={'prompt': ..., 'model_a': ..., 'model_b': ..., "
            "'outcome': ...} which column holds what and with values= what the outcomes mean, "
            "or with models=[...] which are the quality columns of a response table"
        )
    msg = f"{name}: {remedy}.\nColumns found: {_listed(found)}\nFormats known:\n{known}"
    raise DataError(msg)


def battle_parser(
    layout: Layout, hints: Hints, turn: Turn, label: str
) -> tuple[list[str], Callable[[tuple[Any, ...]], BattleRow]]:
    """What reads the rows of a battle table.

    Args:
        layout: Its columns.
        hints: For the meaning of its outcomes.
        turn: Which turn is the prompt.
        label: Source of rows that name none.

    Returns:
        The columns wanted, and a function of their values that gives a battle or raises `RowError`.

    Raises:
        ConfigurationError: `values` cannot be used.
    """
    wanted = [layout.prompt, *layout.columns]
    optional = [column for column in (layout.weight, layout.source) if column is not None]
    read_prompt = turn_reader(turn, is_json=layout.format == "arena" or layout.prompt in _TURNS)
    read_outcome = _outcome_reader(layout, hints)
    has_weight, has_source = layout.weight is not None, layout.source is not None
    names: dict[Any, str] = {}

    def known(value: Any, column: str) -> str:
        try:
            return names[value]
        except KeyError:
            return names.setdefault(value, name_of(value, column))
        except TypeError:
            return name_of(value, column)

    def parse(values: tuple[Any, ...]) -> BattleRow:
        prompt = read_prompt(values[0])
        model_a, model_b = known(values[1], "model_a"), known(values[2], "model_b")
        if model_a == model_b:
            refuse("one model on both sides", f"model_a and model_b are both {model_a!r}")
        weight, source = 1.0, label
        if has_weight and not is_missing(value := values[-2 if has_source else -1]):
            weight = number_of(value, "weight")
            if weight <= 0.0:
                refuse("weight is not above 0", f"weight must be above 0, got {shown(value)}")
        if has_source and not is_missing(values[-1]):
            source = known(values[-1], "source")
        return prompt, model_a, model_b, read_outcome(values), weight, source

    return [*wanted, *optional], parse


def _layout(kind: str, found: Sequence[str], hints: Hints) -> Layout | None:
    named = hints.columns
    prompt = named.get("prompt") or next((column for column in _PROMPTS if column in found), None)
    if prompt is None:
        return None
    if kind == "responses":
        fits = bool(hints.models) and set(hints.models) <= set(found) and "outcome" not in named
        return Layout(format=kind, prompt=prompt, columns=hints.models) if fits else None
    outcome = _OUTCOMES[kind]
    if "outcome" in named:
        # A column that the caller names says more than one that happens to have a known name.
        outcome = (named["outcome"],)
        if kind != (hints.format or ("fastchat" if named["outcome"] == "winner" else "battles")) or kind == "arena":
            return None
    models = (named.get("model_a", "model_a"), named.get("model_b", "model_b"))
    needed = outcome[:_PAIR_SIZE] if kind == "arena" else outcome
    if not {*models, *needed} <= set(found):
        return None
    own = kind == "battles"
    weight = named.get("weight") or ("weight" if own and "weight" in found else None)
    source = named.get("source") or ("source" if own and "source" in found else None)
    return Layout(format=kind, prompt=prompt, columns=(*models, *outcome), weight=weight, source=source)


def _outcome_reader(layout: Layout, hints: Hints) -> Callable[[tuple[Any, ...]], float]:
    if layout.format == "arena":
        if hints.values is not None:
            msg = "values= says what one outcome column means; the arena format has one column an outcome"
            raise ConfigurationError(msg)
        return _one_hot
    if hints.values is None and layout.format == "battles":
        return lambda values: probability_of(values[3])
    meaning = OutcomeValues(WINNERS if hints.values is None else hints.values)
    return lambda values: meaning(values[3])


def _one_hot(values: tuple[Any, ...]) -> float:
    flags = [
        0.0 if is_missing(value) else number_of(value, column)
        for value, column in zip(values[3:6], _ONE_HOT, strict=True)
    ]
    if sorted(flags) != [0.0, 0.0, 1.0]:
        shown_flags = ", ".join(f"{column} {value:g}" for column, value in zip(_ONE_HOT, flags, strict=True))
        refuse("not exactly one winner", f"exactly one of the three must be 1, got {shown_flags}")
    return flags[0] + 0.5 * flags[2]


def _listed(columns: Sequence[str]) -> str:
    return ", ".join(map(repr, columns[:40])) + (", ..." if len(columns) > 40 else "") or "none"  # noqa: PLR2004 - a message
