"""What the values of an outcome column mean: probabilities, votes in words, names of models, or what a caller says."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from prefroute.data.report import refuse, shown
from prefroute.data.values import is_missing, number_of, number_or_none
from prefroute.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

_SIDES = {"a": 1.0, "model a": 1.0, "b": 0.0, "model b": 0.0}
_TIES = ("tie", "tied", "draw", "equal", "both", "neither", "tie (bothbad)", "both bad", "bothbad")
_WORDS = {**_SIDES, **dict.fromkeys(_TIES, 0.5)}
_SPACE = re.compile(r"[\s_-]+")


def vote_of(value: Any, model_a: str, model_b: str, *, takes_numbers: bool) -> float:
    """An outcome of which the caller has said nothing.

    The name of one of the row's two models, written as there, says which won, whatever the name: `A` means the
    model called A if there is one, not model_a. Otherwise `a`, `model_a` and the like, in any case, name a side,
    and `tie`, `draw`, `equal`, `both` and `neither` are ties.

    Args:
        value: What the row says.
        model_a: Name of one model of the row.
        model_b: Name of the other.
        takes_numbers: Whether a number is the probability that model_a wins. In a column called `winner` it might
            as well count the models, from 0 or from 1.

    Returns:
        The probability that model_a wins.

    Raises:
        RowError: It says none of these, or two of them.
    """
    if is_missing(value) or (isinstance(value, str) and value.isspace()):
        refuse("outcome is missing")
    text = value.strip() if isinstance(value, str) else None
    named = None if text is None else {model_b: 0.0, model_a: 1.0}.get(text)
    number = number_or_none(value) if takes_numbers else None
    if named is not None:
        if number is not None and number != named and 0.0 <= number <= 1.0:
            reason = f"outcome {shown(value)} is a probability and also the name of the other model; rename the models"
            refuse("ambiguous outcome", reason, value)
        return named
    if number is not None:
        return probability_of(value)
    found = None if text is None else _WORDS.get(_SPACE.sub(" ", text.lower()))
    # A letter in another case than the name of a model may mean that model as well as a side.
    if text is None or found is None or text.lower() in {model_a.lower(), model_b.lower()}:
        wanted = "model_a or a, model_b or b, tie, or the name of one of these models"
        wanted = f"a number from 0 to 1, {wanted}" if takes_numbers else wanted
        refuse("unknown outcome", f"outcome is {shown(value)}; wanted {wanted}", value)
    return found


def probability_of(value: Any) -> float:
    """An outcome that is given as the probability that model_a wins."""
    number = number_of(value, "outcome")
    if not 0.0 <= number <= 1.0:
        reason = f"outcome must be the probability in [0, 1] that model_a wins, got {shown(value)}"
        refuse("outcome is outside [0, 1]", reason, value)
    return number


class OutcomeValues:
    """What the values of an outcome column mean, as the caller says.

    Args:
        values: Probability that model_a wins, by value. A number between two that are given is interpolated
            when these are a sure win of either side, or when all that are given form a scale, rising or falling
            throughout: `{1: 1.0, 2: 0.0}` makes 1.25 a 0.75, and `{0: 0.5, 1: 1.0, 2: 0.0}` does not know 0.5.
            The words for a tie need not be given.

    Raises:
        ConfigurationError: It is empty, or a probability is outside [0, 1].
    """

    def __init__(self, values: Mapping[Any, float]) -> None:
        wrong = next((v for v in values.values() if not isinstance(v, int | float) or not 0.0 <= v <= 1.0), None)
        if not values or wrong is not None:
            msg = f"values= must give the probability in [0, 1] that model_a wins for each value, got {shown(values)}"
            raise ConfigurationError(msg)
        self._texts = {key.strip() for key in values if isinstance(key, str)}
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
        if found is None and isinstance(value, bool | np.bool_):
            found = self._exact.get(str(value).lower())
        if found is None and isinstance(value, str) and _SPACE.sub(" ", value.strip().lower()) in _TIES:
            found = 0.5
        if found is None:
            wanted = ", ".join(map(str, self._exact))
            wanted += "".join(f", {low[0]:g} to {high[0]:g}" for low, high in self._steps)
            refuse("unknown outcome", f"outcome is {shown(value)}; wanted one of {wanted}", value)
        return found

    def refuse_name(self, name: str) -> None:
        """Refuse a model that `values` has a probability for.

        The model may stand on either side, so that a probability for its name is wrong on every second row.

        Raises:
            ConfigurationError: It has.
        """
        if name in self._texts:
            msg = (
                f"values= (--outcome) gives a probability for {name!r}, which is the name of a model: "
                "the outcome column holds names of models; leave --outcome out, they are understood"
            )
            raise ConfigurationError(msg)

    def _between(self, value: Any) -> float | None:
        if isinstance(value, float):
            for (low, first), (high, second) in self._steps:
                if low <= value <= high:
                    return first + (second - first) * (value - low) / (high - low)
        return None


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
