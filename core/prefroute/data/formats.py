"""The known formats: how each is recognised by its columns, and how a row of it becomes a battle."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from prefroute.data.outcomes import OutcomeValues, vote_of
from prefroute.data.report import TableError, near, refuse, shown
from prefroute.data.tables import refuse_twice
from prefroute.data.values import is_missing, name_of, number_of, turn_reader
from prefroute.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from prefroute.data.values import Turn

BattleRow: TypeAlias = tuple[str, str, str, float, float, str]
"""prompt, model_a, model_b, outcome, weight, source."""

FORMATS = {
    "battles": "prompt, model_a, model_b, outcome (P(model_a wins), a, b, tie or a name), perhaps weight, source",
    "fastchat": "model_a, model_b, winner (model_a, model_b, tie or a name), and prompt, turns or conversation_a",
    "arena": "model_a, model_b, prompt (a JSON list of turns), winner_model_a, winner_model_b, winner_tie",
    "responses": "prompt and one quality column a model, named with models=[...]",
}
"""The formats, and the columns that each is recognised by."""

OutcomeReader: TypeAlias = "Callable[[tuple[Any, ...], str, str], float]"
"""Probability that model_a wins, from the values from the outcome on and the names of both models."""

_ONE_HOT = ("winner_model_a", "winner_model_b", "winner_tie")
_OUTCOMES: dict[str, tuple[str, ...]] = {"battles": ("outcome",), "fastchat": ("winner",), "arena": _ONE_HOT}
_TURNS = ("turns", "conversation_a")
_PROMPTS = ("prompt", *_TURNS)
_ROLES = ("prompt", "model_a", "model_b", "outcome", "weight", "source")
_PAIR_SIZE = 2
_ROOM = 100


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


def recognise(found: Sequence[str], hints: Hints, name: str, *, is_open: bool = False) -> Layout:
    """Tell the format of a table by its columns.

    Args:
        found: Its columns.
        hints: What the caller says about them.
        name: The table, for messages.
        is_open: Whether later rows may have a weight or source though the first have none.

    Returns:
        The format and its columns.

    Raises:
        DataError: It is of no known format, or of several; says the columns found, the formats and the remedy.
        ConfigurationError: It is a response table, and a hint is about battles.
    """
    refuse_twice(found, name)
    if hints.format == "responses":
        _refuse_battle_hints(hints, name)
    require_columns(tuple(hints.columns.values()), found, name)
    layouts = _layouts(found, hints)
    if len(layouts) == 1:
        layout = next(iter(layouts.values()))
        if layout.format == "responses":
            _refuse_battle_hints(hints, name)
        if is_open and layout.format == "battles":
            return replace(layout, weight=layout.weight or "weight", source=layout.source or "source")
        return layout
    raise _unrecognised(found, hints, name, layouts)


def require_columns(wanted: Sequence[str], found: Sequence[str], name: str) -> None:
    """Refuse a table that lacks a column which the caller named.

    Raises:
        DataError: It does; says which, and what there is.
    """
    lacking = tuple(column for column in wanted if column not in found)
    if lacking:
        msg = f"{name} has no column {', '.join(map(repr, lacking))}; it has: {_listed(found)}{_meant(lacking, found)}"
        raise TableError(msg, ". See columns=", "named column", lacking)


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
    read_outcome, refuse_name = _outcome_reader(layout, hints)
    has_weight, has_source = layout.weight is not None, layout.source is not None
    names: dict[Any, str] = {}

    def known(value: Any, column: str) -> str:
        try:
            return names[value]
        except KeyError:
            name = name_of(value, column)
            if column != "source":
                refuse_name(name)
            return names.setdefault(value, name)
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
        return prompt, model_a, model_b, read_outcome(values[3:], model_a, model_b), weight, source

    return [*wanted, *optional], parse


def _refuse_battle_hints(hints: Hints, name: str) -> None:
    """Refuse what says nothing about a response table."""
    options = [f"{role} (--{role.replace('_', '-')}-column)" for role in hints.columns if role != "prompt"]
    given = [f"a column of {option}" for option in options]
    if hints.values is not None:
        given.append("values= (--outcome)")
    if given:
        one = "do" if len(given) > 1 else "does"
        msg = (
            f"{name} is a response table, with one quality column a model: {' and '.join(given)} {one} not apply "
            "to it; leave that out, or read battles apart from response tables"
        )
        raise ConfigurationError(msg)


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


def _outcome_reader(layout: Layout, hints: Hints) -> tuple[OutcomeReader, Callable[[str], None]]:
    """What reads the values from the outcome on, and what refuses names of models that it could not read."""
    if layout.format == "arena":
        if hints.values is not None:
            msg = "values= (--outcome) says what one outcome column means; the arena format has one column an outcome"
            raise ConfigurationError(msg)
        return _one_hot, lambda _: None
    if hints.values is None:
        takes_numbers = layout.format == "battles"
        return lambda values, a, b: vote_of(values[0], a, b, takes_numbers=takes_numbers), lambda _: None
    meaning = OutcomeValues(hints.values)
    return lambda values, a, b: meaning(values[0]), meaning.refuse_name  # noqa: ARG005 - as of the other readers


def _one_hot(values: tuple[Any, ...], model_a: str, model_b: str) -> float:  # noqa: ARG001 - as of the other readers
    flags = [
        0.0 if is_missing(value) else number_of(value, column)
        for value, column in zip(values[:3], _ONE_HOT, strict=True)
    ]
    if sorted(flags) != [0.0, 0.0, 1.0]:
        shown_flags = ", ".join(f"{column} {value:g}" for column, value in zip(_ONE_HOT, flags, strict=True))
        refuse("not exactly one winner", f"exactly one of the three must be 1, got {shown_flags}")
    return flags[0] + 0.5 * flags[2]


def _layouts(found: Sequence[str], hints: Hints) -> dict[str, Layout]:
    """The formats that the columns fit, of those that the caller lets them have."""
    kinds = FORMATS if hints.format is None else (hints.format,)
    return {kind: layout for kind in kinds if (layout := _layout(kind, found, hints)) is not None}


def _unrecognised(found: Sequence[str], hints: Hints, name: str, layouts: Mapping[str, Layout]) -> TableError:
    """What to say of a table that fits no format, or several."""
    listed = _listed(found)
    known = "\n".join(f"  {kind}: {columns}" for kind, columns in FORMATS.items())
    formats = f".\nColumns found: {listed}\nFormats known:\n{known}"
    if layouts:
        msg = f"{name}: its columns fit {' and '.join(layouts)}"
        return TableError(msg, f"; say which with format={formats}", "format")
    if "prompt" not in hints.columns and not set(_PROMPTS) & set(found):
        likely = replace(hints, columns={**hints.columns, "prompt": found[0]})
        if _layouts(found, likely):
            msg = f"{name} has no column of prompts ({', '.join(_PROMPTS)}); it has: {listed}"
            return TableError(msg, ". Say with columns={'prompt': ...} which it is", "prompt")
    lacking = tuple(model for model in hints.models if model not in found)
    expects_models = hints.format == "responses" or (hints.format is None and "model_a" not in found)
    msg = f"{name}: no column {', '.join(map(repr, lacking))}; columns: {listed}{_meant(lacking, found)}"
    if expects_models and (len(lacking) < len(hints.models) or _meant(lacking, found)):
        return TableError(msg)
    if expects_models and hints.format is not None and lacking:
        return TableError(msg, f"; say with columns= which column holds what{formats}", "columns")
    if hints.format is not None:
        msg = f"{name}: its columns do not fit format {hints.format}"
        return TableError(msg, f"; say with columns= which column holds what{formats}", "columns")
    remedy = (
        "; say with columns={'prompt': ..., 'model_a': ..., 'model_b': ..., 'outcome': ...} which column holds what "
        "and with values= what the outcomes mean, or with models=[...] which are the quality columns of a response "
        f"table{formats}"
    )
    return TableError(f"{name}: its columns fit no known format: {listed}", remedy, "columns")


def _meant(lacking: Sequence[str], found: Sequence[str]) -> str:
    meant = [match for name in lacking for match in near(name, found)[:1]]
    return f"; did you mean {' and '.join(meant)}?" if meant else ""


def _listed(columns: Sequence[str]) -> str:
    """The names, as many as a message has room for."""
    shown_names: list[str] = []
    for column in columns:
        shown_names.append(shown(column))
        if sum(map(len, shown_names)) > _ROOM:
            break
    more = len(columns) - len(shown_names)
    return ", ".join(shown_names) + (f" and {more} more" if more else "") or "none"
