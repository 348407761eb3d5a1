"""The rows of the tables that records are kept in, in the order of their columns and parameters."""

from __future__ import annotations

from typing import NamedTuple


class DecisionRow(NamedTuple):
    """A decision as it is stored."""

    id: str
    time: str
    prompt: str
    route: str
    score: float | None
    threshold: float
    reason: str
    detail: str | None
    answered_by: str


class CallRow(NamedTuple):
    """A call as it is stored, by the decision's id."""

    side: str
    model: str | None
    error: str | None
    seconds: float
    input_tokens: int | None
    output_tokens: int | None
    stands_in: bool
    answer: str | None
    id: str


class FeedbackRow(NamedTuple):
    """A feedback as it is stored, by the decision's id."""

    score: float
    note: str | None
    time: str
    id: str
