"""Small value types shared by every layer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args
from uuid import uuid4

from prefroute.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping

Route: TypeAlias = Literal["strong", "weak"]
"""The side a prompt is sent to."""

OnError: TypeAlias = Literal["strong", "weak", "raise"]
"""What happens when a router fails: a side to fall back to, or `raise`."""

Reason: TypeAlias = Literal["score", "router_error", "capability", "forced", "conversation", "tool_loop", "escalation"]
"""Why a side was chosen.

`score`: by the router. `router_error`: it gave no score. `capability`: only that side can take the call. `forced`: the
caller named it. `conversation`: the conversation stays with its side. `tool_loop`: that side called the tool whose
result is answered. `escalation`: the turn was getting nowhere.
"""


def _new_id() -> str:
    return uuid4().hex


@dataclass(frozen=True, slots=True)
class ModelPair:
    """The two models that are routed between, by the names they have in the training data.

    Attributes:
        strong: The better and dearer one.
        weak: The cheaper one.

    Raises:
        ConfigurationError: A name is missing, or both are the same.
    """

    strong: str
    weak: str

    def __post_init__(self) -> None:
        """Refuse what cannot be routed between."""
        for side in ("strong", "weak"):
            name = getattr(self, side)
            if not isinstance(name, str) or not name:
                msg = f"the {side} model must be named by a non-empty str, got {name!r}"
                raise ConfigurationError(msg)
        if self.strong == self.weak:
            msg = f"the strong and the weak model must differ, got {self.strong!r} twice"
            raise ConfigurationError(msg)


@dataclass(frozen=True, slots=True)
class Battle:
    """Two models' answers to one prompt, compared.

    Attributes:
        prompt: What both were asked.
        model_a: Name of one model.
        model_b: Name of the other.
        outcome: Probability that `model_a`'s answer is the better one: 1, 0, 0.5 for a tie, or between.
        weight: How much it counts.
        source: Where it comes from.
    """

    prompt: str
    model_a: str
    model_b: str
    outcome: float
    weight: float = 1.0
    source: str = ""


@dataclass(frozen=True, slots=True)
class RoutingDecision:
    """Where one prompt goes, and why.

    Attributes:
        route: The chosen side.
        score: Estimated probability that the strong model's answer is better, in [0, 1];
            None when the router gave no usable one or was not asked.
        threshold: The threshold the score was compared with; `score >= threshold` is strong.
        reason: Why this side was chosen.
        detail: More of why, in a word, where there is more: what the other side lacks, say.
        id: Unique to this decision, so that whoever sees it several times (a retry, a fallback, a
            stream) counts it once. Not part of equality.
    """

    route: Route
    score: float | None
    threshold: float
    reason: Reason
    detail: str | None = None
    id: str = field(default_factory=_new_id, compare=False)

    @property
    def is_strong(self) -> bool:
        """Whether the strong model was chosen."""
        return self.route == "strong"

    def as_dict(self) -> dict[str, Any]:
        """The decision as a plain, JSON-safe dictionary; `detail` is there only if there is one."""
        return {
            "route": self.route,
            "score": self.score,
            "threshold": self.threshold,
            "reason": self.reason,
            **({} if self.detail is None else {"detail": self.detail}),
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
            detail=fields.get("detail"),
            id=fields["id"],
        )
