"""Middleware that chooses the model of each step of an agent."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables.config import ensure_config

from langchain_router import _settings
from langchain_router._chooser import Chooser, TextFunction
from langchain_router._fallback import TokenWatch, interrupts
from langchain_router._messages import ROUTING_KEY, Prompt, annotated, flat
from langchain_router._options import CONFIGURABLE_KEYS, configured
from langchain_router._recording import watches
from langchain_router._view import view_of
from prefroute.conversation import Decide, TurnPolicy, recorded
from prefroute.decider import Ask, Decider
from prefroute.errors import ConfigurationError, MissingExtraError
from prefroute.fallback import arun, as_fallback, other_side, run
from prefroute.inputs import as_hook
from prefroute.options import options_of, split

try:
    from langchain.agents.middleware import AgentMiddleware
except ModuleNotFoundError as error:
    if (error.name or "").partition(".")[0] != "langchain":
        raise
    _message = 'RouterMiddleware needs langchain: pip install "prefroute[langchain-agents]"'
    raise MissingExtraError(_message) from error

if TYPE_CHECKING:
    from pathlib import Path

    from langchain.agents.middleware import ModelRequest
    from langchain_core.callbacks import BaseCallbackHandler
    from langchain_core.runnables import RunnableConfig

    from prefroute.recording import Recorder
    from prefroute.router import Router
    from prefroute.stats import RoutingStats
    from prefroute.types import Route, RoutingDecision


class _Step(NamedTuple):
    """One model call of an agent: as it is made, and as it is handed on."""

    asked: ModelRequest[Any]
    request: ModelRequest[Any]
    routing: dict[str, Any]
    side: Route
    decision: RoutingDecision
    watch: TokenWatch


class RouterMiddleware(AgentMiddleware[Any, Any, Any]):
    """Gives each model call of an agent to a strong or a weak chat model, whichever a router says is enough for it.

    The agent works with the chosen model itself, so strategies for structured output, strict tools and provider
    features are that model's own; put this first among the middleware, that the others see it too. The decision is in
    the metadata of the model's run and in `response_metadata["routing"]` of its message. A router that fails never
    ends a run: the step goes to the side that `on_router_error` names.

    A run may bring `router_threshold`, `router_strong_rate` or `router_route` in its context or under `configurable`.

    Example:
        ```python
        agent = create_agent(weak, tools, middleware=[RouterMiddleware(strong=strong, weak=weak, decide="per_step")])
        agent.invoke({"messages": "Compare the two."}, {"configurable": {"router_threshold": 0.6}})
        ```

    Args:
        strong: The expensive chat model, or its name for `init_chat_model`. Not a binding: an agent binds tools anew
            and would lose its arguments; set these on the model.
        weak: The cheap one, likewise.
        router: As for `RoutedChatModel`, like the rest.
        threshold: Scores at or above it go to `strong`.
        strong_rate: In place of a threshold.
        on_router_error: Which side a step goes to when the router fails; None for the router's own setting, and the
            strong side where that is to raise.
        router_time_limit: Seconds the router may take.
        decide: `"per_turn"`, `"per_step"` or `"per_conversation"`.
        lock_tool_loop: Whether the answer to a tool's result comes from the model that called the tool.
        escalate_after: So many identical tool calls, or failed tools, in one turn send its rest to `strong`.
        text_fn: Finds what the router is asked in the messages of a step.
        fallback_to_other: Whether the other model answers where the chosen one fails before its first token; once.
        shadow: The model that answers every step whatever is decided.
        on_route: Called with each decision.
        record: A recorder, or the path of a file, that keeps each decision and what came of it.
        stats: Counts each decision once; None for a fresh one.

    Attributes:
        stats: The statistics.

    Raises:
        ThresholdError: The threshold is not a finite number, or there is none here and none in the router.
        ConfigurationError: A setting cannot be used.
        PersistenceError: There is no readable router at `router`.
        MissingExtraError: A model was named and the packages for it are not installed.
    """

    def __init__(
        self,
        *,
        strong: BaseChatModel | str,
        weak: BaseChatModel | str,
        router: Router | str | Path | None = None,
        threshold: float | None = None,
        strong_rate: float | None = None,
        on_router_error: Literal["strong", "weak"] | None = None,
        router_time_limit: float | None = None,
        decide: Decide = "per_turn",
        lock_tool_loop: bool = False,
        escalate_after: int | None = None,
        text_fn: TextFunction | None = None,
        fallback_to_other: bool = False,
        shadow: Route | None = None,
        on_route: Callable[[RoutingDecision], object] | None = None,
        record: Recorder | str | Path | None = None,
        stats: RoutingStats | None = None,
    ) -> None:
        super().__init__()
        if cast("str | None", on_router_error) == "raise":
            msg = 'on_router_error must be "strong" or "weak": a router that fails must not end the run of an agent'
            raise ConfigurationError(msg)
        decider = Decider.of(
            router,
            threshold=threshold,
            strong_rate=strong_rate,
            on_error=on_router_error,
            time_limit=router_time_limit,
            stats=stats,
            on_route=on_route,
            shadow=shadow,
            record=record,
        )
        self._chooser = Chooser(
            strong=_as_model("strong", strong),
            weak=_as_model("weak", weak),
            decider=decider,
            policy=TurnPolicy(decide=decide, lock_tool_loop=lock_tool_loop, escalate_after=escalate_after),
            text_fn=as_hook(text_fn, "text_fn", "the messages"),
        )
        self._fallback = as_fallback(fallback_to_other, shadow)
        self.stats = decider.stats

    def wrap_model_call(self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Any]) -> Any:
        """Let the chosen model make the call."""
        step = self._step(request, self._decider.decide(self._ask(request)))
        return run(step, lambda one: _carry_out(one, handler), self._second, is_signal=interrupts)

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[Any]]
    ) -> Any:
        """`wrap_model_call` without blocking the event loop."""
        step = self._step(request, await self._decider.adecide(self._ask(request)))
        return await arun(step, lambda one: _acarry_out(one, handler), self._second, is_signal=interrupts)

    @property
    def _decider(self) -> Decider:
        # Looked up at each step, for the router's setting may change.
        decider = self._chooser.decider
        raises = decider.on_error is None and decider.router.on_error == "raise"
        return replace(decider, on_error="strong") if raises else decider

    def _ask(self, request: ModelRequest[Any]) -> Ask:
        own, _ = split(request.model_settings)
        options = options_of(own, _given(request.runtime), configured(ensure_config().get("configurable")))
        schema = request.response_format is not None
        return self._chooser.ask(_prompt(request), options, tools=request.tools, schema=schema)

    def _step(self, request: ModelRequest[Any], decision: RoutingDecision) -> _Step:
        side = self._chooser.decider.answers(decision)
        return self._made(request, decision, side, recorded(decision, side))

    def _second(self, step: _Step, error: Exception) -> _Step | None:
        if not self._fallback or step.watch.seen:
            return None
        side, routing = other_side(step.decision, step.side, error)
        if not self._chooser.can_stand_in(side, _prompt(step.asked), step.decision, tools=step.asked.tools):
            return None
        return self._made(step.asked, step.decision, side, routing)

    def _made(
        self,
        request: ModelRequest[Any],
        decision: RoutingDecision,
        side: Route,
        routing: dict[str, Any],
    ) -> _Step:
        watch = TokenWatch()
        model = cast("BaseChatModel", self._chooser.child(side))
        _, settings = split(request.model_settings)
        handlers = [watch, *watches(self._chooser.decider.recorder, routing)]
        changed: dict[str, Any] = {"model": _marked(model, routing, handlers), "model_settings": settings}
        messages: list[BaseMessage] = self._chooser.readable(_prompt(request), side)
        if request.system_message is not None:
            changed["system_message"], messages = messages[0], messages[1:]
        changed["messages"] = messages
        return _Step(request, request.override(**changed), routing, side, decision, watch)


def _prompt(request: ModelRequest[Any]) -> Prompt:
    system = [] if request.system_message is None else [request.system_message]
    return Prompt([*system, *request.messages])


def _given(runtime: Any) -> dict[str, Any]:
    """What the context of a run brings for routing; it may be a dictionary or any object."""
    context = getattr(runtime, "context", None)
    if not isinstance(context, Mapping):
        context = {key: getattr(context, key, None) for key in CONFIGURABLE_KEYS}
    return configured(context)


def _carry_out(step: _Step, handler: Callable[[ModelRequest[Any]], Any]) -> Any:
    response = handler(step.request)
    # Where other middleware let another model answer, or answered itself, the message is none of this decision.
    return _noted(response, step.routing) if step.watch.ended else response


async def _acarry_out(step: _Step, handler: Callable[[ModelRequest[Any]], Awaitable[Any]]) -> Any:
    response = await handler(step.request)
    return _noted(response, step.routing) if step.watch.ended else response


def _marked(model: BaseChatModel, routing: dict[str, Any], handlers: Sequence[BaseCallbackHandler]) -> BaseChatModel:
    """The model with the decision in the metadata of its runs in this step."""
    added: RunnableConfig = {"metadata": {**flat(routing), ROUTING_KEY: routing}, "callbacks": [*handlers]}
    return view_of(model, lambda _: added)


def _noted(response: Any, routing: dict[str, Any]) -> Any:
    """The response with the decision in its messages."""
    if isinstance(response, AIMessage):
        return annotated(response, routing)
    if (inner := getattr(response, "model_response", None)) is not None:
        return replace(response, model_response=_noted(inner, routing))
    result = [annotated(message, routing) if isinstance(message, AIMessage) else message for message in response.result]
    return replace(response, result=result)


def _as_model(name: str, model: object) -> BaseChatModel:
    made = _settings.as_child(name, model, {})
    if not isinstance(made, BaseChatModel):
        msg = (
            f"{name} must be a chat model, or its name, got {type(made).__name__}: an agent binds tools to the model "
            "itself and would lose what is bound already; set arguments, retries and fallbacks on the model, or use "
            "LangChain's middleware for them"
        )
        raise ConfigurationError(msg)
    return made
