"""Keeping decisions, their outcomes and what was thought of them, out of the way of the calls."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from prefroute.errors import ConfigurationError
from prefroute.inputs import as_hook, as_prompt
from prefroute.recording._checks import as_bool, as_bytes, as_file, as_rating, as_share
from prefroute.recording._outbox import Outbox
from prefroute.recording._rows import CallRow, DecisionRow, FeedbackRow
from prefroute.recording.calling import Calling

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType
    from typing import Self

    from prefroute.recording._store import Store
    from prefroute.types import Route, RoutingDecision

logger = logging.getLogger(__name__)

Rating: TypeAlias = Literal["good", "bad"] | float
"""What somebody thought of an answer: a word, or a score from 0, bad, to 1, good."""

MAX_BYTES = 1_000_000_000
"""What a store takes at most where nothing else is said."""

_PATIENCE = 10.0
"""Seconds to wait for another program that has the file locked."""


class Recorder:
    """Keeps routing decisions, the calls that followed and feedback in a local SQLite file.

    It never stands in the way of a call: what is to be kept is queued, and written by a thread that is there only
    while there is something to write. Where the file cannot be written (full or read-only disk, damage, another
    program's lock for more than 10 seconds) or the queue is full, records are lost, which is counted in `dropped` and
    logged once. A killed process loses the last fraction of a second; the file stays sound.

    It is SQLite because several processes may write, a feedback finds its decision, and the oldest can make room;
    lines of JSON are an export of it (`Recorded.as_dict()`). Several recorders may share a file. Copies of one and
    pickled ones write to the same file, with a queue of their own.

    Example:
        ```python
        with Recorder("traffic.sqlite", sample=0.1) as recorder:
            model = RoutedChatModel(strong=..., weak=..., record=recorder)
            answer = model.invoke("What is 2 + 2?")
            recorder.feedback(answer.response_metadata["routing"]["id"], "good")
        ```

    Args:
        path: The file; made at the first decision, readable by its owner alone. Prompts stand in it as they are.
        sample: Share of decisions that is kept, with all that belongs to them; told by a hash of the decision's id,
            so that every process agrees.
        redact: Makes of each text what is kept of it, or None to leave it out: a prompt with its whole decision, an
            answer or a note alone. Where it fails, the text is left out as well. A plain function; it is called in the
            recorder's thread, for a note in the caller's, so it may take its time.
        answers: Whether the text of the answers is kept too.
        max_bytes: What the file and its journal may take; the oldest decisions make room for new ones.

    Attributes:
        path: The file.
        answers: Whether the text of the answers is kept.

    Raises:
        ConfigurationError: A setting cannot be used, or the path is a folder.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        sample: float = 1.0,
        redact: Callable[[str], str | None] | None = None,
        answers: bool = False,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self.path = as_file(path)
        self.answers = as_bool("answers", answers)
        self._sample = as_share(sample)
        self._redact = as_hook(redact, "redact", "the text")
        self._max_bytes = as_bytes(max_bytes)
        self._begin()

    def _begin(self) -> None:
        self._outbox: Outbox[_Decided | CallRow] = Outbox(self._write)
        self._warned: set[str] = set()
        self._lost = 0
        self._patience = _PATIENCE

    # --- what adapters tell ---

    def wants(self, decision_id: str) -> bool:
        """Whether a decision is of the sample."""
        if self._sample >= 1.0:
            return True
        digest = blake2b(decision_id.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        return int.from_bytes(digest) < self._sample * 2**64

    def decided(self, text: str, decision: RoutingDecision, side: Route) -> None:
        """Keep a decision, if it is of the sample.

        Args:
            text: What the router was asked, or would have been.
            decision: The decision.
            side: Who answers after it.
        """
        if isinstance(text, str) and self.wants(decision.id):
            self._put(_Decided(datetime.now(UTC), text, decision, side), len(text))

    def calling(self, routing: Mapping[str, Any], model: str | None = None) -> Calling | None:
        """Begin to record the call of a model; None where its decision is not of the sample.

        Args:
            routing: The decision as it is recorded: `prefroute.conversation.recorded`.
            model: The name of the model, where that is known already.
        """
        if not self.wants(routing["id"]):
            return None
        return Calling(self._called, routing, model=model, keeps_answer=self.answers)

    def _called(self, row: CallRow) -> None:
        self._put(row, len(row.answer or ""))

    # --- what applications tell ---

    def feedback(self, decision_id: str, rating: Rating, note: str | None = None) -> bool:
        """Attach what somebody thought of the answer to a decision; several are all kept, and the last one counts.

        It writes at once, so it takes milliseconds, and up to 20 seconds where the file is locked or what was told
        before is still on its way to it. It can come from another process than the decision did.

        Args:
            decision_id: `RoutingDecision.id`, which the adapters show in what they return.
            rating: `"good"`, `"bad"`, or a score from 0 to 1.
            note: What else there is to say; goes through `redact` as well.

        Returns:
            Whether it was kept: False where no such decision is in the file (not of the sample, left out, lost,
            removed since), or the file cannot be written, which is logged once.

        Raises:
            ConfigurationError: The rating is none, or the id or the note is no str.
        """
        score = as_rating(rating)
        if not isinstance(decision_id, str) or not isinstance(note, str | None):
            got = f"{type(decision_id).__name__} and {type(note).__name__}"
            msg = f"feedback wants the id of a decision, a str, and a note that is a str or None; got {got}"
            raise ConfigurationError(msg)
        kept = None if note is None else self._redacted(note)
        if self._attach(decision_id, score, kept):
            return True
        return self._outbox.waiting > 0 and self._outbox.flush(_PATIENCE) and self._attach(decision_id, score, kept)

    async def afeedback(self, decision_id: str, rating: Rating, note: str | None = None) -> bool:
        """`feedback` without blocking the event loop."""
        return await asyncio.to_thread(self.feedback, decision_id, rating, note)

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until all that was told so far is written, or lost.

        Args:
            timeout: Seconds to wait at most.

        Returns:
            Whether that is so.
        """
        return self._outbox.flush(timeout)

    def close(self, timeout: float | None = None) -> bool:
        """`flush`, and end the thread; what is told later is still kept, by another thread."""
        return self._outbox.end(timeout)

    def __enter__(self) -> Self:
        """The recorder."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    @property
    def dropped(self) -> int:
        """Decisions, calls and texts that were lost: no room for them, no way to write them, or a failed redaction."""
        return self._outbox.lost + self._lost

    def __repr__(self) -> str:
        """The file alone."""
        return f"Recorder({str(self.path)!r})"

    def __getstate__(self) -> dict[str, Any]:
        """The settings: a copy has a queue of its own."""
        names = ("path", "answers", "_sample", "_redact", "_max_bytes")
        return {name: self.__dict__[name] for name in names}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the settings, with nothing under way."""
        self.__dict__.update(state)
        self._begin()

    # --- in the thread ---

    def _write(self, items: Sequence[_Decided | CallRow]) -> None:
        store = self._store
        rows = [row for item in items if (row := self._guarded(item)) is not None]
        parts = list(store.parts(rows))
        for part in parts:
            try:
                store.add(part, patience=self._patience)
            except Exception as error:  # noqa: BLE001 - of a damaged file sqlite3 raises more than its own errors
                self._lost += len(part)
                self._patience = 0.0  # Waiting for each part takes long, and the queue fills up meanwhile.
                self._tell_unwritten(error)
            else:
                self._patience = _PATIENCE
        if too_large := len(rows) - sum(map(len, parts)):
            self._lost += too_large
            self._warn("large", "a text is too large to record with max_bytes=%d; it is left out", self._max_bytes)

    def _guarded(self, item: _Decided | CallRow) -> DecisionRow | CallRow | None:
        try:
            return self._row_of(item)
        except BaseException as error:  # noqa: BLE001 - in this thread none is Ctrl-C; the others of its batch are kept
            self._lost += 1
            self._warn("odd", "a record is left out: %s", type(error).__name__)
            return None

    def _row_of(self, item: _Decided | CallRow) -> DecisionRow | CallRow | None:
        if isinstance(item, CallRow):
            model = None if item.model is None else as_prompt(item.model)
            return item._replace(model=model, answer=None if item.answer is None else self._redacted(item.answer))
        prompt = self._redacted(item.text)
        if prompt is None:
            return None
        known = {**item.decision.as_dict(), "detail": item.decision.detail}
        # One that cannot be encoded would lose all that is written with it.
        fields: dict[str, Any] = {
            name: as_prompt(value) if isinstance(value, str) else value for name, value in known.items()
        }
        return DecisionRow(
            **fields,
            time=item.time.isoformat(),
            prompt=prompt,
            answered_by=item.side,
        )

    def _redacted(self, text: str) -> str | None:
        """What is kept of a text; None where nothing is."""
        try:
            kept = text if self._redact is None else self._redact(text)
            # Not of a kind of text that somebody has made, which may do anything when it is written.
            return None if kept is None else as_prompt(str.__str__(kept) if isinstance(kept, str) else kept)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - it is the user's own; its message may quote the text
            self._lost += 1
            self._warn("redact", "redact failed with %s; what it fails for is not recorded", type(error).__name__)
            return None

    @property
    def _store(self) -> Store:
        # Not before it is needed: there are Pythons without SQLite.
        from prefroute.recording._store import Store

        return Store(self.path, self._max_bytes)

    # --- anywhere ---

    def _put(self, item: _Decided | CallRow, size: int) -> None:
        if not self._outbox.put(item, size):
            self._warn("queue", "records come faster than they can be written to %s; some are lost", self.path)

    def _attach(self, decision_id: str, score: float, note: str | None) -> bool:
        row = FeedbackRow(score, note, datetime.now(UTC).isoformat(), as_prompt(decision_id))
        try:
            return self._store.add_feedback(row, patience=_PATIENCE)
        except Exception as error:  # noqa: BLE001 - as in `_write`
            self._tell_unwritten(error)
            return False

    def _tell_unwritten(self, error: Exception) -> None:
        self._warn(
            "file",
            "the records cannot be written to %s (%s: %s); those that cannot are lost. "
            "Free space, or move the file away if it is damaged",
            self.path,
            type(error).__name__,
            str(error),
        )

    def _warn(self, kind: str, message: str, *values: object) -> None:
        if kind not in self._warned:
            self._warned.add(kind)
            logger.warning(f"{message}; this is said once", *values)  # noqa: G004 - the message is one of a few


class _Decided(NamedTuple):
    """A decision that is not redacted yet."""

    time: datetime
    text: str
    decision: RoutingDecision
    side: Route


def as_recorder(value: object) -> Recorder | None:
    """A recorder from what an adapter is given.

    Args:
        value: A recorder, the path of a file to keep everything in, or None to keep nothing.

    Raises:
        ConfigurationError: It is anything else.
    """
    if value is None or isinstance(value, Recorder):
        return value
    if isinstance(value, str | Path):
        return Recorder(value)
    msg = f"record must be a prefroute.recording.Recorder, the path of a file or None, got {type(value).__name__}"
    raise ConfigurationError(msg)
