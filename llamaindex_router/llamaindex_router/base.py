"""The parts of `RoutedLLM` that are not calls: its fields, its choice of a side, and how it is shown and stored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from inspect import isfunction, signature
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeAlias, get_args

from llama_index.core.bridge.pydantic import Field, PrivateAttr, field_serializer
from llama_index.core.llms import LLM, ChatMessage, LLMMetadata
from llama_index.core.llms.function_calling import FunctionCallingLLM

from llamaindex_router.choosing import Chooser, Memory
from llamaindex_router.delegation import Delegation
from llamaindex_router.events import Attempt, announce
from llamaindex_router.lending import lend
from llamaindex_router.metadata import described
from llamaindex_router.options import with_surrounding
from prefroute import ConfigurationError, OnError, PersistenceError, Route, Router, RoutingDecision, RoutingStats
from prefroute.conversation import Decide, TurnPolicy, recorded
from prefroute.decider import Decider
from prefroute.fallback import as_fallback, other_side
from prefroute.inputs import as_hook, as_route
from prefroute.options import OWN_KWARGS

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Self

    from llamaindex_router.choosing import Choice, Sides
    from llamaindex_router.text import Asked
    from prefroute.options import Options

DECISION_KEY = "_routing_decision"
"""Where `_prepare_chat_with_tools` leaves its decision for the chat call that follows."""

TextFunction: TypeAlias = Callable[[Sequence[ChatMessage]], str]
"""Finds what the router is asked in the messages of a call."""


class Prepared(NamedTuple):
    """A decision that was made when the arguments of a call were, and that of a routed LLM inside the chosen one."""

    decision: RoutingDecision
    inner: Any = None


class _MadeBy(NamedTuple):
    """What a decision is made by: the router and its settings, what is known of the sides, what the call is about."""

    decider: Decider
    chooser: Chooser
    asked: Asked


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
        prepared, options = _taken_out(kwargs)
        made_by = _MadeBy(self._decider, self._chooser, asked)
        if prepared is not None:
            return self._delegation(prepared.decision, made_by)
        decider, chooser, _ = made_by
        choice = chooser.choice(asked, options, answers=decider.shadow, tools=tools)
        started = perf_counter()
        made = chooser.memory.turns.decide(decider, choice.ask, choice.turn)
        if made.is_new:
            announce(made.decision, chooser.sides.known(made.decision.route).name, perf_counter() - started)
        return self._delegation(made.decision, made_by, choice if repeatable else None)

    async def _achoose(
        self, asked: Asked, kwargs: dict[str, Any], *, tools: bool = False, repeatable: bool = True
    ) -> Delegation:
        """`_choose` without blocking the event loop."""
        prepared, options = _taken_out(kwargs)
        made_by = _MadeBy(self._decider, self._chooser, asked)
        if prepared is not None:
            return self._delegation(prepared.decision, made_by)
        decider, chooser, _ = made_by
        choice = chooser.choice(asked, options, answers=decider.shadow, tools=tools)
        started = perf_counter()
        made = await chooser.memory.turns.adecide(decider, choice.ask, choice.turn)
        if made.is_new:
            announce(made.decision, chooser.sides.known(made.decision.route).name, perf_counter() - started)
        return self._delegation(made.decision, made_by, choice if repeatable else None)

    def _delegation(self, decision: RoutingDecision, made_by: _MadeBy, choice: Choice | None = None) -> Delegation:
        """The call for the side that answers after a decision.

        Args:
            decision: The decision.
            made_by: What it was made by.
            choice: What was asked of the core; None where the other side may not make the same call.
        """
        side = made_by.decider.answers(decision)

        def instead(error: Exception) -> Delegation | None:
            other, routing = other_side(decision, side, error)
            if choice is None or not choice.may_go_to(other):
                return None
            return replace(self._toward(other, decision, routing, made_by), instead_of=error)

        mendable = choice is not None and self.fallback_to_other and decision.reason != "forced"
        found = self._toward(side, decision, recorded(decision, side), made_by)
        return replace(found, instead=instead) if mendable else found

    def _toward(self, side: Route, decision: RoutingDecision, routing: dict[str, Any], made_by: _MadeBy) -> Delegation:
        llm, (_, chooser, asked) = self._side(side), made_by
        return Delegation(
            llm=llm,
            decision=decision,
            attempt=Attempt(side, chooser.sides.known(side).name, routing, lend(self.callback_manager, llm)),
            fit=chooser.sides.fitting(side),
            rate_limiter=self.rate_limiter,
            answers=chooser.memory.answers if chooser.remembers else None,
            said=asked.said if chooser.remembers else "",
        )

    @property
    def _sides(self) -> Sides:
        return self._memory.sides_of(self.strong, self.weak)

    @property
    def _chooser(self) -> Chooser:
        memory = self._memory
        policy = TurnPolicy(decide=self.decide, lock_tool_loop=self.lock_tool_loop, escalate_after=self.escalate_after)
        return Chooser(
            sides=memory.sides_of(self.strong, self.weak), policy=policy, memory=memory, text_fn=self.text_fn
        )

    @property
    def _decider(self) -> Decider:
        # Built for each call, so that an assignment to a field takes effect.
        return Decider(
            router=self.router,
            threshold=self.threshold,
            on_error=self.on_router_error,
            time_limit=self.router_time_limit,
            stats=self.stats,
            on_route=self.on_route,
            shadow=self.shadow,
        )

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
    if name == "router" and not isinstance(value, Router):
        msg = f"router must be a Router, got {type(value).__name__}; load_router reads one from a folder"
        raise ConfigurationError(msg)
    if name == "shadow":
        as_fallback(llm.fallback_to_other, value)
        return None if value is None else as_route(value, name)
    if name == "fallback_to_other":
        return as_fallback(value, llm.shadow)
    return as_hook(value, name, HOOKS[name]) if name in HOOKS else value


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


def _taken_out(kwargs: dict[str, Any]) -> tuple[Prepared | None, Options]:
    """What a call's keyword arguments say to the routed LLM; they are left to the chosen one without it."""
    prepared: Prepared | None = kwargs.pop(DECISION_KEY, None)
    if prepared is not None and prepared.inner is not None:
        kwargs[DECISION_KEY] = prepared.inner
    return prepared, with_surrounding({name: kwargs.pop(name) for name in OWN_KWARGS if name in kwargs})
