"""Single values of a row: the prompt out of turns and dialogues, names of models, outcomes, numbers."""

from __future__ import annotations

import math
import re
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast, get_args

from prefroute.data.report import refuse, shown
from prefroute.data.text_files import json_list
from prefroute.errors import ConfigurationError
from prefroute.inputs import as_prompt

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Turn: TypeAlias = Literal["first", "last", "all"]
"""Which of the user's turns is the prompt; `all` joins them by blank lines."""

WINNERS: dict[Any, float] = {
    "model_a": 1.0,
    "model_b": 0.0,
    "tie": 0.5,
    "tie (bothbad)": 0.5,
    "both_bad": 0.5,
}
"""What the `winner` column of the FastChat schema may hold."""

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
    try:
        number = _TRUTH[value.strip().lower()] if isinstance(value, str) and value.strip().lower() in _TRUTH else None
        number = float(value) if number is None else number
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        refuse(f"{column} is not a number", f"{column} must be a finite number, got {shown(value)}")
    return number


def probability_of(value: Any) -> float:
    """An outcome that is given as the probability that model_a wins."""
    number = number_of(value, "outcome")
    if not 0.0 <= number <= 1.0:
        reason = (
            f"outcome must be the probability in [0, 1] that model_a wins, got {shown(value)}; "
            "say with values= what other values mean"
        )
        refuse("outcome is outside [0, 1]", reason)
    return number


def is_missing(value: Any) -> bool:
    """Whether a value is None, NaN or an empty text."""
    if isinstance(value, str):
        return not value
    return value is None or (isinstance(value, float) and math.isnan(value))


class OutcomeValues:
    """What the values of an outcome column mean.

    Args:
        values: Probability that model_a wins, by value. A number between two that are given is interpolated
            when these are a sure win of either side, or when all that are given form a scale, rising or falling
            throughout: `{1: 1.0, 2: 0.0}` makes 1.25 a 0.75, and `{0: 0.5, 1: 1.0, 2: 0.0}` does not know 0.5.

    Raises:
        ConfigurationError: It is empty, or a probability is outside [0, 1].
    """

    def __init__(self, values: Mapping[Any, float]) -> None:
        wrong = next((v for v in values.values() if not isinstance(v, int | float) or not 0.0 <= v <= 1.0), None)
        if not values or wrong is not None:
            msg = f"values= must give the probability in [0, 1] that model_a wins for each value, got {shown(values)}"
            raise ConfigurationError(msg)
        self._exact = {_plain(key): float(value) for key, value in values.items()}
        anchors = sorted((key, value) for key, value in self._exact.items() if isinstance(key, float))
        steps = list(pairwise(anchors))
        rises = [second[1] - first[1] for first, second in steps]
        is_scale = len(anchors) == len(self._exact) and bool(rises) and (min(rises) > 0 or max(rises) < 0)
        self._steps = [step for step, rise in zip(steps, rises, strict=True) if is_scale or abs(rise) == 1.0]

    def __call__(self, value: Any) -> float:
        """The probability that a value stands for."""
        try:
            return self._exact[value]
        except (KeyError, TypeError):
            pass
        if is_missing(value):
            refuse("outcome is missing")
        plain = _plain(value)
        found = self._exact.get(plain, self._between(plain))
        if found is None:
            wanted = ", ".join(map(str, self._exact))
            wanted += "".join(f", {low[0]:g} to {high[0]:g}" for low, high in self._steps)
            reason = f"outcome is {shown(value)}; wanted one of {wanted}. Say with values= what other values mean"
            refuse("unknown outcome", reason)
        return found

    def _between(self, value: Any) -> float | None:
        if isinstance(value, float):
            for (low, first), (high, second) in self._steps:
                if low <= value <= high:
                    return first + (second - first) * (value - low) / (high - low)
        return None


def turn_reader(turn: Turn, *, is_json: bool) -> Callable[[Any], str]:
    """`prompt_of` for one column."""

    def read(value: Any) -> str:
        return prompt_of(value, turn, is_json=is_json)

    return read


def _plain(value: Any) -> Any:
    """One form for values that differ only in how a file writes them."""
    if isinstance(value, str):
        text = value.strip().lower()
        try:
            return float(text)
        except ValueError:
            return text
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return shown(value)


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
