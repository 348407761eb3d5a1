"""Single values of a row: the prompt out of turns and dialogues, names of models, numbers."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast, get_args

from prefroute.data.report import refuse, shown
from prefroute.data.text_files import json_list
from prefroute.errors import ConfigurationError
from prefroute.inputs import as_prompt

if TYPE_CHECKING:
    from collections.abc import Callable

Turn: TypeAlias = Literal["first", "last", "all"]
"""Which of the user's turns is the prompt; `all` joins them by blank lines."""

_TRUTH = {"true": 1.0, "false": 0.0, "yes": 1.0, "no": 0.0}
_HUMAN = "### Human:"
_ANSWER = re.compile(r"\s*### Assistant:")


def as_turn(turn: object) -> Turn:
    """Check which turn is asked for."""
    if turn not in get_args(Turn):
        msg = f"turn must be one of {', '.join(get_args(Turn))}; got {shown(turn)}"
        raise ConfigurationError(msg)
    return cast("Turn", turn)


def prompt_of(value: Any, turn: Turn, *, is_json: bool = False) -> str:
    """Text of the prompt.

    Args:
        value: A text; a dialogue of `### Human:` and `### Assistant:` turns; a list of the user's turns; or a
            list of messages with `role` and `content`.
        turn: Which of several turns.
        is_json: Whether a text that begins with `[` is a JSON list of turns.

    Returns:
        The prompt, in a form that can be encoded.

    Raises:
        RowError: There is none.
    """
    if isinstance(value, str):
        if is_json and value.startswith("["):
            turns = json_list(value)
            if turns is None:
                kind = "prompt is not a list of turns"
                refuse(kind, f"prompt begins with [ but is no JSON list of turns: {shown(value)}")
            value = _chosen([_turn_text(item) for item in turns if _is_of_user(item)], turn)
        elif value.startswith(_HUMAN):
            value = _chosen(human_turns(value), turn)
    elif isinstance(items := value.tolist() if hasattr(value, "tolist") else value, list | tuple):
        value = _chosen([_turn_text(item) for item in items if _is_of_user(item)], turn)
    if not isinstance(value, str):
        if is_missing(value):
            refuse("prompt is missing")
        refuse("prompt is not text", f"prompt is {type(value).__name__}, not text: {shown(value)}")
    if not value or value.isspace():
        refuse("prompt is empty")
    return value if value.isascii() else as_prompt(value)


def human_turns(dialogue: str) -> list[str]:
    """The user's turns of a dialogue written as `### Human: ... ### Assistant: ...`.

    Args:
        dialogue: Its text; one without such a mark is a single turn.

    Returns:
        The turns, in order, without white space around them.
    """
    parts = dialogue.split(_HUMAN)
    return [_ANSWER.split(part, maxsplit=1)[0].strip() for part in (parts[1:] if len(parts) > 1 else parts)]


def name_of(value: Any, column: str) -> str:
    """Name of a model or source."""
    if is_missing(value) or (isinstance(value, str) and not value.strip()):
        refuse(f"{column} is missing")
    if not isinstance(value, str):
        refuse(f"{column} is not a name", f"{column} must be a name, got {type(value).__name__}: {shown(value)}")
    name = value.strip()
    return name if name.isascii() else as_prompt(name)


def number_of(value: Any, column: str) -> float:
    """A finite number, from a number, a truth value or a text of either."""
    if is_missing(value):
        refuse(f"{column} is missing")
    number = number_or_none(value)
    if number is None:
        refuse(f"{column} is not a number", f"{column} must be a finite number, got {shown(value)}")
    return number


def number_or_none(value: Any) -> float | None:
    """A finite number, from a number, a truth value or a text of either; None from anything else."""
    try:
        number = _TRUTH[value.strip().lower()] if isinstance(value, str) and value.strip().lower() in _TRUTH else None
        number = float(value) if number is None else number
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def is_missing(value: Any) -> bool:
    """Whether a value is None, NaN or an empty text."""
    if isinstance(value, str):
        return not value
    return value is None or (isinstance(value, float) and math.isnan(value))


def turn_reader(turn: Turn, *, is_json: bool) -> Callable[[Any], str]:
    """`prompt_of` for one column."""

    def read(value: Any) -> str:
        return prompt_of(value, turn, is_json=is_json)

    return read


def _is_of_user(item: Any) -> bool:
    role = item.get("role") if hasattr(item, "get") else None
    return role is None or (isinstance(role, str) and role.lower() in {"user", "human"})


def _turn_text(item: Any) -> Any:
    """Text of a turn that may be a message, whose content may be in parts."""
    content = item.get("content") if hasattr(item, "get") else item
    if isinstance(content, list | tuple):
        texts = [part.get("text") for part in content if hasattr(part, "get")]
        return "\n".join(text for text in texts if isinstance(text, str))
    return content


def _chosen(turns: list[Any], turn: Turn) -> Any:
    if not turns:
        refuse("prompt has no turn of a user")
    if turn == "all":
        wrong = [item for item in turns if not isinstance(item, str)]
        if wrong:
            refuse("a turn is not text", f"a turn is not text: {shown(wrong[0])}")
        return "\n\n".join(turns)
    return turns[0 if turn == "first" else -1]
