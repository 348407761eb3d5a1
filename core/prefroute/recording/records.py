"""What is kept of real traffic: a decision, the calls of models that followed from it, and what was thought of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from prefroute.types import Route, RoutingDecision


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedCall:
    """One call of a model under a decision.

    Attributes:
        side: Whose model it was.
        model: Its name, where that is known.
        error: Name of the exception's type where the call failed or was given up; None where it was answered. Never
            the message, which may quote the prompt, or a key.
        seconds: Time from the call to the whole answer, or to the error.
        input_tokens: Tokens of the prompt, where the provider told.
        output_tokens: Tokens of the answer, likewise.
        stands_in: Whether it answered in place of the other side, which had failed.
        answer: Text of the answer, where the recorder keeps answers.
    """

    side: Route
    model: str | None
    error: str | None
    seconds: float
    input_tokens: int | None
    output_tokens: int | None
    stands_in: bool
    answer: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Feedback:
    """What somebody thought of the answer to a decision.

    Attributes:
        score: From 0, bad, to 1, good.
        note: What else was said, if anything.
        time: When it was given, in UTC.
    """

    score: float
    note: str | None
    time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """A decision and what came of it.

    Attributes:
        prompt: The text that the router was asked, or would have been, as the recorder's `redact` left it.
        decision: The decision.
        time: When it was made, in UTC.
        answered_by: The side that the call went to: another than the decision's in shadow.
        calls: The calls of models that followed, in the order in which they ended; none where none is known of.
        feedback: All that was given, oldest first.
    """

    prompt: str
    decision: RoutingDecision
    time: datetime
    answered_by: Route
    calls: tuple[RecordedCall, ...] = ()
    feedback: tuple[Feedback, ...] = ()

    @property
    def rating(self) -> float | None:
        """The score of the last feedback, which is the one that counts; None where there is none."""
        return self.feedback[-1].score if self.feedback else None

    def as_dict(self) -> dict[str, Any]:
        """All of it as a plain, JSON-safe dictionary, with times as text: one line of an export."""
        return {
            "prompt": self.prompt,
            "decision": self.decision.as_dict(),
            "time": self.time.isoformat(),
            "answered_by": self.answered_by,
            "calls": [asdict(call) for call in self.calls],
            "feedback": [{**asdict(one), "time": one.time.isoformat()} for one in self.feedback],
            "rating": self.rating,
        }


def read_recorded(path: str | Path) -> Iterator[Recorded]:
    """Read what a `Recorder` has written, also while it writes.

    Args:
        path: The file. It is opened for reading; all that may be written is the repair that SQLite makes after a
            process was killed amid a write.

    Returns:
        The decisions that are there now, oldest first, each with its calls and its feedback. They are read as they are
        asked for, so that a large store need not fit into memory.

    Raises:
        DataError: There is no such file, it is no store of records, or it is damaged or stays locked; the last two
            also amid the reading.
    """
    # Not before it is needed: there are Pythons without SQLite.
    from prefroute.recording._reading import StoredRecords

    stored = StoredRecords(Path(path))
    return stored.items(stored.last())
