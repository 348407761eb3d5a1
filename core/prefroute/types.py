"""Small value types shared by every layer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args
from uuid import uuid4

if TYPE_CHECKING:
    from collections.abc import Mapping

Route: TypeAlias = Literal["strong", "weak"]
"""The side a prompt is sent to."""

OnError: TypeAlias = Literal["strong", "weak", "raise"]
"""What happens when a router fails: a side to fall back to, or `raise`."""

Reason: TypeAlias = Literal["score", "router_error", "capability"]
"""Why a side was chosen: by its score, because the router gave none, or because only that side can take the call."""


def _new_id() -> str:
    return uuid4().hex


@dataclass(frozen=True, slots=True)
class RoutingDecision:
    """Where one prompt goes, and why.

    Attributes:
        route: The chosen side.
        score: Estimated probability that the strong model's answer is better, in [0, 1];
            None when the router gave no usable one or was not asked.
        threshold: The threshold the score was compared with; `score >= threshold` is strong.
        reason: Why this side was chosen.
        id: Unique to this decision, so that whoever sees it several times (a retry, a fallback, a
            stream) counts it once. Not part of equality.
    """

    route: Route
    score: float | None
    threshold: float
    reason: Reason
    id: str = field(default_factory=_new_id, compare=False)

    @property
    def is_strong(self) -> bool:
        """Whether the strong model was chosen."""
        return self.route == "strong"

    def as_dict(self) -> dict[str, Any]:
        """The decision as a plain, JSON-safe dictionary."""
        return {
            "route": self.route,
            "score": self.score,
            "threshold": self.threshold,
            "reason": self.reason,
            "id": self.id,
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> RoutingDecision:
        """Rebuild a decision from `as_dict()`; keys that it does not know are ignored.

        Raises:
            KeyError: A field is missing.
            ValueError: A field holds what no decision has.
            TypeError: The id is not a str.
        """
        for name, allowed in (("route", get_args(Route)), ("reason", get_args(Reason))):
            if fields[name] not in allowed:
                msg = f"{name} must be one of {', '.join(allowed)}; got {fields[name]!r}"
                raise ValueError(msg)
        if not isinstance(fields["id"], str):
            msg = f"id must be a str, got {type(fields['id']).__name__}"
            raise TypeError(msg)
        return cls(
            route=fields["route"],
            score=fields["score"],
            threshold=fields["threshold"],
            reason=fields["reason"],
            id=fields["id"],
        )
