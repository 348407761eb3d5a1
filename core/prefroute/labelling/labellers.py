"""Ways to label: what the two answers to a prompt are worth, by a judge, a reference or a function of one's own."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, get_args

from prefroute._limits import Failure, attempt
from prefroute.errors import ConfigurationError
from prefroute.inputs import finite_or_none
from prefroute.labelling.golden import TOLERANCE, Match, check

if TYPE_CHECKING:
    from collections.abc import Callable

    from prefroute.labelling.endpoints import Endpoint
    from prefroute.labelling.journal import Reply

STRONG_FIRST, WEAK_FIRST = "strong_first", "weak_first"
"""Names of the two orders in the verdicts of a pairwise judge."""


class Answered(NamedTuple):
    """A prompt with both answers.

    Attributes:
        prompt: The text.
        strong: The strong model's answer.
        weak: The weak model's answer.
        reference: What is right, where that is known.
    """

    prompt: str
    strong: str
    weak: str
    reference: str | None = None


class Label(NamedTuple):
    """What the answers are worth.

    Attributes:
        strong: Quality of the strong model's answer.
        weak: Quality of the weak model's answer, on the same scale.
        verdict: How that was found, as JSON knows it.
    """

    strong: float
    weak: float
    verdict: Any


class UnlabelledError(Exception):
    """There is no label for this row; never leaves this package.

    Args:
        kind: Short, to count it under.
        message: With what was found.
        verdict: What there is of one.
        is_final: Whether another run with the same settings would find the same.
    """

    def __init__(self, kind: str, message: str, verdict: Any = None, *, is_final: bool = False) -> None:
        self.kind = kind
        self.verdict = verdict
        self.is_final = is_final
        super().__init__(message)


class AskJudge(Protocol):
    """What a labeller may ask."""

    def code(self, *parts: object) -> str:
        """The code of a call that is built from these parts."""

    async def reply(self, text: str) -> Reply:
        """The judge's reply."""


class Labeller(Protocol):
    """A way to label."""

    @property
    def judge(self) -> Endpoint | None:
        """The model that judges, if one does."""

    @property
    def needs_reference(self) -> bool:
        """Whether prompts must have a reference."""

    def settings(self) -> dict[str, Any]:
        """What labels depend on, as JSON knows it."""

    def questions(self, answered: Answered, code: Callable[..., str]) -> list[Question]:
        """What the judge is asked at first; empty without a judge."""

    async def label(self, answered: Answered, ask: AskJudge) -> Label:
        """Label one row.

        Raises:
            UnlabelledError: There is no label.
        """


class Question(NamedTuple):
    """One message to a judge.

    Attributes:
        name: Tells the questions of one row apart.
        text: The message.
        code: What its verdict must carry.
    """

    name: str
    text: str
    code: str


@dataclass(frozen=True)
class Golden:
    """Labels by a reference: 1 for an answer that is right, 0 for any other; see `golden`.

    Attributes:
        match: How answers are compared.
        tolerance: Of numbers.

    Raises:
        ConfigurationError: There is no such comparison, or the tolerance is none.
    """

    match: Match
    tolerance: float = TOLERANCE

    def __post_init__(self) -> None:
        """Refuse what is no comparison."""
        if self.match not in get_args(Match):
            msg = f"match must be one of {', '.join(get_args(Match))}; got {self.match!r}"
            raise ConfigurationError(msg)
        tolerance = finite_or_none(self.tolerance)
        if tolerance is None or tolerance < 0:
            msg = f"tolerance must be a number of at least 0, got {self.tolerance!r}"
            raise ConfigurationError(msg)

    judge: ClassVar[None] = None
    needs_reference: ClassVar[bool] = True

    def settings(self) -> dict[str, Any]:
        """The comparison."""
        return {"labels": "golden", "match": self.match, "tolerance": self.tolerance}

    def questions(self, answered: Answered, code: Callable[..., str]) -> list[Question]:  # noqa: ARG002 - no judge
        """None."""
        return []

    def fault_of(self, reference: str) -> UnlabelledError | None:
        """Why nothing can be compared with a reference; None where it can."""
        if check("", reference, self.match, tolerance=self.tolerance) is not None:
            return None
        kind = f"no {_WANTED[self.match]} in the reference"
        msg = f"{kind}: {reference[:80]!r}; correct it, or choose another way to match"
        return UnlabelledError(kind, msg, is_final=True)

    async def label(self, answered: Answered, ask: AskJudge) -> Label:  # noqa: ARG002 - no judge
        """Compare both answers."""
        # Searches of long answers take a while.
        return await asyncio.to_thread(self._compared, answered)

    def _compared(self, answered: Answered) -> Label:
        reference = answered.reference or ""
        fault = self.fault_of(reference)
        if fault is not None:
            raise fault
        strong = check(answered.strong, reference, self.match, tolerance=self.tolerance)
        weak = check(answered.weak, reference, self.match, tolerance=self.tolerance)
        assert strong is not None  # noqa: S101 - the reference can be compared
        assert weak is not None  # noqa: S101 - likewise
        verdict = {"strong": strong.extracted, "weak": weak.extracted}
        return Label(float(strong.is_right), float(weak.is_right), verdict)


_WANTED: dict[Match, str] = {"exact": "text", "numeric": "number", "choice": "option letter"}


class OwnLabel:
    """Labels by a function of the user's own.

    Args:
        function: Takes prompt, strong answer, weak answer and reference (None where there is none); gives two finite
            qualities, or the probability that the strong answer is better. It is called in a thread; what it
            gives is awaited first where that can be. What it raises, SystemExit too, is the error of that row alone.
        name: What to call it in the settings; None for its own name.
    """

    judge = None
    needs_reference = False

    def __init__(self, function: Callable[[str, str, str, str | None], Any], name: str | None = None) -> None:
        if not callable(function):
            msg = f"a label is made by a function of prompt, strong answer, weak answer and reference; got {function!r}"
            raise ConfigurationError(msg)
        self._function = function
        self._name = name or f"{getattr(function, '__module__', '')}:{getattr(function, '__qualname__', 'function')}"

    def __repr__(self) -> str:
        """The function's name."""
        return f"OwnLabel({self._name})"

    def settings(self) -> dict[str, Any]:
        """The function's name; a function that has changed under its name is not noticed."""
        return {"labels": "own", "function": self._name}

    def questions(self, answered: Answered, code: Callable[..., str]) -> list[Question]:  # noqa: ARG002 - no judge
        """None."""
        return []

    async def label(self, answered: Answered, ask: AskJudge) -> Label:  # noqa: ARG002 - no judge
        """Call the function."""
        try:
            # As a value: a thread's StopIteration would be waited for for ever.
            given = await asyncio.to_thread(attempt, partial(self._function, *answered))
            if inspect.isawaitable(given):
                given = await given
            qualities = None if isinstance(given, Failure) else _qualities(given)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - anything at all, of the user's own code
            given = Failure(error)
        if isinstance(given, Failure):
            kind = f"{self._name} raised {type(given.error).__name__}"
            raise UnlabelledError(kind, f"{kind}: {_written(str, given.error)}")
        if qualities is None:
            kind = f"{self._name} gave no label"
            msg = f"{kind}: wanted two finite numbers or one in [0, 1], got {_written(repr, given):.80}"
            raise UnlabelledError(kind, msg)
        return Label(*qualities, verdict=None)


def _written(how: Callable[[Any], str], what: object) -> str:
    """An object of the user's own in words, if it has any."""
    try:
        return how(what)
    except Exception as error:  # noqa: BLE001 - of the user's own code, as above
        return f"what cannot be shown ({type(error).__name__})"


def _qualities(given: object) -> tuple[float, float] | None:
    pair = _sequence(given)
    if pair is not None:
        numbers = [number for number in map(_number, pair) if number is not None]
        return (numbers[0], numbers[1]) if len(numbers) == len(pair) == 2 else None  # noqa: PLR2004 - a pair
    chance = _number(given)
    return None if chance is None or not 0.0 <= chance <= 1.0 else (chance, 1.0 - chance)


def _sequence(given: Any) -> list[Any] | None:
    """The items of whatever has a length and an order, such as an array; None of anything else."""
    if isinstance(given, str | bytes | Mapping) or not hasattr(given, "__getitem__"):
        return None
    try:
        return [given[place] for place in range(len(given))]
    except (TypeError, LookupError):  # An array without dimensions has the method, and no length.
        return None


def _number(value: Any) -> float | None:
    item = getattr(value, "item", None)
    if callable(item) and getattr(value, "size", None) == 1:
        value = item()  # A number of numpy, or an array of one.
    return float(value) if isinstance(value, bool) else finite_or_none(value)
