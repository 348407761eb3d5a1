"""The call of a model, from its beginning to its end, for the record."""

from __future__ import annotations

from time import perf_counter
from typing import TYPE_CHECKING, Any

from prefroute.conversation import FALLBACK, answered_by
from prefroute.recording._rows import CallRow

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType
    from typing import Self

    from prefroute.usage import Tokens

_LARGEST_COUNT = 2**63 - 1
"""What SQLite takes."""


class Calling:
    """A call of a model from its beginning to its end, which is recorded once.

    As a context, it records what is raised within as the call's failure; an answer is told of by `answered`.

    Args:
        keep: Takes what there is to keep, at the end.
        routing: The decision that it follows from, as it is recorded.
        model: The name of the model, where that is known already.
        keeps_answer: Whether the text of the answer is kept.
    """

    __slots__ = ("_is_over", "_keep", "_keeps_answer", "_model", "_routing", "_started")

    def __init__(
        self,
        keep: Callable[[CallRow], None],
        routing: Mapping[str, Any],
        *,
        model: str | None = None,
        keeps_answer: bool = False,
    ) -> None:
        self._keeps_answer = keeps_answer
        self._keep = keep
        self._routing = routing
        self._model = model
        self._started = perf_counter()
        self._is_over = False

    def answered(self, *, model: str | None = None, tokens: Tokens | None = None, answer: str | None = None) -> None:
        """The call was answered.

        Args:
            model: The name of the model as the answer gives it, in place of the one that was known.
            tokens: What it used, where known.
            answer: The text of the answer; kept if the recorder keeps answers.
        """
        self._ended(model, tokens, answer if self._keeps_answer else None, None)

    def failed(self, error: BaseException) -> None:
        """The call failed, or was given up."""
        self._ended(None, None, None, type(error).__name__)

    def _ended(self, model: str | None, tokens: Tokens | None, answer: str | None, error: str | None) -> None:
        if self._is_over:
            return
        self._is_over = True
        self._keep(
            CallRow(
                side=answered_by(self._routing) or self._routing["route"],
                model=model or self._model or None,
                error=error,
                seconds=perf_counter() - self._started,
                input_tokens=None if tokens is None else _count(tokens.input),
                output_tokens=None if tokens is None else _count(tokens.output),
                stands_in=FALLBACK in self._routing,
                answer=answer,
                id=self._routing["id"],
            )
        )

    def __enter__(self) -> Self:
        """The call."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Record what was raised."""
        if error is not None:
            self.failed(error)


def _count(value: int) -> int | None:
    return value if 0 <= value <= _LARGEST_COUNT else None
