"""The parts of `RoutedLLM` that are not calls: its fields, its choice of a side, and how it is shown and stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from llama_index.core.bridge.pydantic import Field, field_serializer
from llama_index.core.llms import LLM  # noqa: TC002 - pydantic reads it from the fields' annotations
from llama_index.core.llms.function_calling import FunctionCallingLLM

from llamaindex_router.deciding import adecide, decide, decide_unasked
from llamaindex_router.delegation import Delegation
from llamaindex_router.lending import lend
from llamaindex_router.metadata import calls_tools, described, merged_metadata, model_name, with_system_role
from prefroute import ConfigurationError, OnError, PersistenceError, Router, RoutingDecision, RoutingStats
from prefroute.decider import Decider

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from typing import Self

    from llama_index.core.llms import ChatMessage, LLMMetadata

    from prefroute import Route

DECISION_KEY = "_routing_decision"
"""Where `_prepare_chat_with_tools` leaves its decision for the chat call that follows."""


class RoutedBase(FunctionCallingLLM):
    """Fields and choice of a side; see `RoutedLLM`."""

    strong: LLM
    weak: LLM
    router: Router = Field(exclude=True)
    threshold: float | None
    on_router_error: OnError | None
    router_time_limit: float | None
    stats: RoutingStats = Field(exclude=True)
    # The framework's own field in later releases; repeated here so that it works in all.
    rate_limiter: Any | None = Field(default=None, exclude=True)

    @classmethod
    def class_name(cls) -> str:
        """Stable name of the class."""
        return "RoutedLLM"

    @property
    def metadata(self) -> LLMMetadata:
        """What both LLMs have in common, so that a call prepared by it fits either."""
        return merged_metadata(self.strong, self.weak)

    # Choosing

    def _choose(self, text: str, call_kwargs: dict[str, Any], *, tools: bool = False) -> Delegation:
        """Decide who takes a call, and wait until it may be made.

        Args:
            text: What the router is asked.
            call_kwargs: The call's own keyword arguments; those meant for routing are taken out.
            tools: Whether only an LLM that calls tools will do.
        """
        decision = self._decide(text, call_kwargs, tools=tools)
        if self.rate_limiter is not None:
            self.rate_limiter.acquire()
        return self._delegation(decision)

    async def _achoose(self, text: str, call_kwargs: dict[str, Any], *, tools: bool = False) -> Delegation:
        """`_choose` without blocking the event loop."""
        threshold, decision = self._given(call_kwargs, tools=tools)
        if decision is None:
            decision = await adecide(self._decider, text, self._name_of, threshold)
        if self.rate_limiter is not None:
            await self.rate_limiter.async_acquire()
        return self._delegation(decision)

    def _decide(self, text: str, call_kwargs: dict[str, Any], *, tools: bool) -> RoutingDecision:
        threshold, decision = self._given(call_kwargs, tools=tools)
        return decide(self._decider, text, self._name_of, threshold) if decision is None else decision

    def _given(self, call_kwargs: dict[str, Any], *, tools: bool) -> tuple[float | None, RoutingDecision | None]:
        """The threshold of this call, and its decision where that needs no router."""
        threshold = call_kwargs.pop("threshold", None)
        decision: RoutingDecision | None = call_kwargs.pop(DECISION_KEY, None)
        if decision is None and tools:
            able = self._sides_with_tools()
            if len(able) == 1:
                decision = decide_unasked(self._decider, able[0], self._name_of, threshold)
        return threshold, decision

    def _sides_with_tools(self) -> list[Route]:
        able: list[Route] = [route for route in ("strong", "weak") if calls_tools(self._side(route))]
        if not able:
            names = f"{model_name(self.strong)} nor {model_name(self.weak)}"
            msg = (
                f"neither {names} calls tools (metadata.is_function_calling_model); use predict_and_call or ReActAgent"
            )
            raise ConfigurationError(msg)
        return able

    def _delegation(self, decision: RoutingDecision) -> Delegation:
        llm = self._side(decision.route)
        return Delegation(llm, decision, lend(self.callback_manager, llm))

    def _readable(self, messages: Sequence[ChatMessage], chosen: Delegation) -> Sequence[ChatMessage]:
        """The messages as the chosen LLM wants its system prompt."""
        other = self.weak if chosen.llm is self.strong else self.strong
        return with_system_role(messages, chosen.llm, other)

    @property
    def _decider(self) -> Decider:
        # Built for each call, so that an assignment to a field takes effect.
        return Decider(
            router=self.router,
            threshold=self.threshold,
            on_error=self.on_router_error,
            time_limit=self.router_time_limit,
            stats=self.stats,
        )

    def _side(self, route: Route) -> LLM:
        return self.strong if route == "strong" else self.weak

    def _name_of(self, route: Route) -> str:
        return model_name(self._side(route))

    # Showing and storing

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """Names only: an LLM's own repr may hold its API key."""
        yield "strong", model_name(self.strong)
        yield "weak", model_name(self.weak)
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
