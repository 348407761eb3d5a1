"""The parts of `RoutedLLM` that are not calls: its fields, its choice of a side, and how it is shown and stored."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from inspect import isfunction, signature
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeAlias, TypedDict, get_args

from llama_index.core.bridge.pydantic import Field, PrivateAttr, field_serializer
from llama_index.core.llms import LLM, ChatMessage, LLMMetadata
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.structured_llm import StructuredLLM

from llamaindex_router.choosing import Chooser, Memory
from llamaindex_router.delegation import Delegation
from llamaindex_router.events import Attempt, announce
from llamaindex_router.lending import lend
from llamaindex_router.metadata import described
from llamaindex_router.options import with_surrounding
from prefroute import (
    ConfigurationError,
    OnError,
    PersistenceError,
    PrefrouteError,
    Route,
    Router,
    RoutingDecision,
    RoutingStats,
)
from prefroute.conversation import Decide, TurnPolicy, recorded
from prefroute.decider import Ask, Decider
from prefroute.fallback import as_fallback, other_side
from prefroute.inputs import as_hook, as_on_error, as_route, as_threshold, as_time_limit
from prefroute.options import OWN_KWARGS
from prefroute.recording import Recorder  # noqa: TC001 - pydantic reads it from the field's annotation
from prefroute.recording.recorder import as_recorder
from prefroute.stats import as_stats

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Self

    from llamaindex_router.choosing import Choice, Sides
    from llamaindex_router.text import Asked
    from prefroute.options import Options
    from prefroute.recording.calling import Calling
    from prefroute.turns import Made

logger = logging.getLogger(__name__)

DECISION_KEY = "_routing_decision"
"""Where `_prepare_chat_with_tools` leaves its decision for the chat call that follows."""

TextFunction: TypeAlias = Callable[[Sequence[ChatMessage]], str]
"""Finds what the router is asked in the messages of a call."""


class Prepared(NamedTuple):
    """A decision that was made when the arguments of a call were, and that of a routed LLM inside the chosen one."""

    decision: RoutingDecision
    inner: Any = None


class _Toward(TypedDict):
    """What of a delegation depends on the side; see `Delegation`."""

    llm: LLM
    attempt: Attempt
    fit: Callable[[Sequence[ChatMessage]], list[ChatMessage]]
    calling: Calling | None


class RoutedBase(FunctionCallingLLM):
    """Fields and choice of a side; see `RoutedLLM`."""

    strong: LLM
    weak: LLM
    router: Router = Field(exclude=True)
    threshold: float | None
    on_router_error: OnError | None
    router_time_limit: float | None
    decide: Decide
    lock_tool_loop: bool
    escalate_after: int | None
    text_fn: TextFunction | None = Field(exclude=True)
    fallback_to_other: bool
    shadow: Route | None
    on_route: Callable[[RoutingDecision], object] | None = Field(exclude=True)
    record: Recorder | None = Field(exclude=True)
    stats: RoutingStats = Field(exclude=True)
    # The framework's own field in later releases; repeated here so that it works in all.
    rate_limiter: Any | None = Field(default=None, exclude=True)

    _memory: Memory = PrivateAttr(default_factory=Memory)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Work out the signatures of methods once: the framework's spans ask for them at every call."""
        for method in vars(cls).values():
            if isfunction(method):
                method.__signature__ = signature(method)  # type: ignore[attr-defined] # functions may have one
        super().__init_subclass__(**kwargs)

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuse now what every call would be refused for, or would quietly do wrong."""
        super().__setattr__(name, checked(self, name, value))
        self._memory.fields_changed()

    @classmethod
    def class_name(cls) -> str:
        """Stable name of the class."""
        return "RoutedLLM"

    @property
    def metadata(self) -> LLMMetadata:
        """What both LLMs have in common, so that a call prepared by it fits either."""
        # A copy, for who is given it may change it.
        return self._sides.merged.model_copy()

    # Choosing

    def _choose(
        self, asked: Asked, kwargs: dict[str, Any], *, tools: bool = False, repeatable: bool = True
    ) -> Delegation:
        """Decide who takes a call.

        Args:
            asked: What it is about.
            kwargs: The call's own keyword arguments; those meant for routing are taken out.
            tools: Whether only an LLM that calls tools will do.
            repeatable: Whether the other side may make the same call where the chosen one failed.
        """
        try:
            prepared, options = _taken_out(kwargs)
            chooser = self._chooser
            if prepared is not None:
                return self._delegation(prepared.decision, chooser, asked)
            choice = chooser.choice(asked, options, tools=tools)
            started = perf_counter()
            made = chooser.memory.turns.decide(chooser.decider, choice.ask, choice.turn)
        except PrefrouteError as error:
            _tell(asked, error)
            raise
        _announce(made, chooser, started)
        return self._delegation(made.decision, chooser, asked, choice if repeatable else None)

    async def _achoose(
        self, asked: Asked, kwargs: dict[str, Any], *, tools: bool = False, repeatable: bool = True
    ) -> Delegation:
        """`_choose` without blocking the event loop."""
        try:
            prepared, options = _taken_out(kwargs)
            chooser = self._chooser
            if prepared is not None:
                return self._delegation(prepared.decision, chooser, asked)
            choice = chooser.choice(asked, options, tools=tools)
            started = perf_counter()
            made = await chooser.memory.turns.adecide(chooser.decider, choice.ask, choice.turn)
        except PrefrouteError as error:
            _tell(asked, error)
            raise
        _announce(made, chooser, started)
        return self._delegation(made.decision, chooser, asked, choice if repeatable else None)

    def _delegation(
        self, decision: RoutingDecision, chooser: Chooser, asked: Asked, choice: Choice | None = None
    ) -> Delegation:
        """The call for the side that answers after a decision.

        Args:
            decision: The decision.
            chooser: How it was chosen.
            asked: What the call is about.
            choice: What was asked of the core; None where the other side may not make the same call.
        """
        side = chooser.decider.answers(decision)

        def instead(error: Exception) -> Delegation | None:
            other, routing = other_side(decision, side, error)
            if choice is None or not choice.may_go_to(other):
                return None
            return replace(found, **self._toward(other, routing, chooser), instead=None, instead_of=error)

        found = Delegation(
            **self._toward(side, recorded(decision, side), chooser),
            decision=decision,
            rate_limiter=self.rate_limiter,
            instead=instead if choice is not None and self.fallback_to_other and decision.reason != "forced" else None,
        )
        return chooser.remembering(found, asked)

    def _toward(self, side: Route, routing: dict[str, Any], chooser: Chooser) -> _Toward:
        """What of a delegation depends on the side."""
        llm = self._side(side)
        attempt = Attempt(
            side,
            chooser.sides.known(side).name,
            routing,
            loan=lend(self.callback_manager, llm),
            is_structured=isinstance(llm, StructuredLLM),
        )
        calling = None if self.record is None else self.record.calling(routing, attempt.model)
        return {"llm": llm, "attempt": attempt, "fit": chooser.sides.fitting(side), "calling": calling}

    @property
    def _sides(self) -> Sides:
        return self._memory.sides_of(self.strong, self.weak)

    @property
    def _chooser(self) -> Chooser:
        return self._memory.chooser_of(self.__dict__, self._made_chooser)

    def _made_chooser(self, sides: Sides) -> Chooser:
        decider = Decider(
            router=self.router,
            threshold=self.threshold,
            on_error=self.on_router_error,
            time_limit=self.router_time_limit,
            stats=self.stats,
            on_route=self.on_route,
            shadow=self.shadow,
            recorder=self.record,
        )
        policy = TurnPolicy(decide=self.decide, lock_tool_loop=self.lock_tool_loop, escalate_after=self.escalate_after)
        return Chooser(sides=sides, decider=decider, policy=policy, memory=self._memory, text_fn=self.text_fn)

    def _side(self, route: Route) -> LLM:
        return self.strong if route == "strong" else self.weak

    # Showing and storing

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """Names only: an LLM's own repr may hold its API key."""
        yield "strong", self._sides.known("strong").name
        yield "weak", self._sides.known("weak").name
        yield "router", type(self.router).__name__
        yield "threshold", self.router.threshold if self.threshold is None else self.threshold

    @field_serializer("strong", "weak")
    def _names_only(self, llm: LLM) -> dict[str, Any]:
        return described(llm)

    def to_payload(self) -> dict[str, Any]:
        """What instrumentation may be told of this LLM; no keys."""
        return {
            "class_name": self.class_name(),
            **self.metadata.model_dump(),
            "strong": described(self.strong),
            "weak": described(self.weak),
            "router": type(self.router).__name__,
            "threshold": self.threshold,
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any], **kwargs: Any) -> Self:  # noqa: ARG003 - the framework's signature
        """Refused: a dictionary holds neither the router nor the LLMs.

        Raises:
            PersistenceError: Always.
        """
        msg = "a RoutedLLM cannot be rebuilt from a dictionary, which holds no router and no LLM; construct it anew"
        raise PersistenceError(msg)

    def __getstate__(self) -> NoReturn:
        """Refuse pickling; the framework's own way would silently drop a router that cannot be pickled."""
        msg = "a RoutedLLM cannot be pickled; save its router with router.save_pretrained() and construct it anew"
        raise PersistenceError(msg)


def checked(llm: RoutedBase, name: str, value: Any) -> Any:
    """A setting of a routed LLM, checked.

    Raises:
        ConfigurationError: It cannot be used.
    """
    if name in get_args(Route):
        return as_llm(value, name)
    if name in HOOKS:
        return as_hook(value, name, HOOKS[name])
    if name in _OPTIONAL:
        value = None if value is None else _OPTIONAL[name](value)
    if name in _POLICY:
        TurnPolicy(**{field: getattr(llm, field) for field in _POLICY} | {name: value})
    elif name == "fallback_to_other":
        as_fallback(value, llm.shadow)
    elif name == "router" and not isinstance(value, Router):
        msg = f"router must be a Router, got {type(value).__name__}; load_router reads one from a folder"
        raise ConfigurationError(msg)
    elif name == "stats":
        as_stats(value)
    elif name == "shadow" and value is not None:
        as_fallback(llm.fallback_to_other, as_route(value, name))
    if name in {"router", "threshold"}:  # Together they must give a threshold.
        given = {"router": llm.router, "threshold": llm.threshold} | {name: value}
        Decider(router=given["router"], threshold=given["threshold"]).threshold_of(Ask())
    return value


_OPTIONAL: dict[str, Callable[[object], object]] = {
    "threshold": as_threshold,
    "on_router_error": as_on_error,
    "router_time_limit": as_time_limit,
    "record": as_recorder,
}

_POLICY = ("decide", "lock_tool_loop", "escalate_after")

HOOKS = {"text_fn": "the messages", "on_route": "the decision"}
"""Functions of the user's own, and what they are functions of."""


def as_llm(value: object, name: str) -> LLM:
    """Check that this is an LLM.

    Raises:
        ConfigurationError: It is anything else.
    """
    if not isinstance(value, LLM):
        msg = f"{name} must be a LlamaIndex LLM, got {type(value).__name__}"
        raise ConfigurationError(msg)
    return value


def _announce(made: Made, chooser: Chooser, started: float) -> None:
    if made.is_new:
        announce(made.decision, chooser.sides.known(made.decision.route).name, perf_counter() - started)


def _tell(asked: Asked, error: PrefrouteError) -> None:
    """Log what is wrong with the settings where the framework would pass over it.

    Its synthesizers take a `ValueError` for an answer that could not be parsed, and answer with "Empty Response".
    """
    if asked.is_packed:
        logger.warning("a call cannot be routed: %s", error)


def _taken_out(kwargs: dict[str, Any]) -> tuple[Prepared | None, Options]:
    """What a call's keyword arguments say to the routed LLM; they are left to the chosen one without it."""
    prepared: Prepared | None = kwargs.pop(DECISION_KEY, None)
    if prepared is not None and prepared.inner is not None:
        kwargs[DECISION_KEY] = prepared.inner
    return prepared, with_surrounding({name: kwargs.pop(name) for name in OWN_KWARGS if name in kwargs})
