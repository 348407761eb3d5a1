"""A chat model that sends each prompt to a strong or a weak chat model."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from langchain_core.callbacks import CallbackManagerForLLMRun, Callbacks
from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult, LLMResult
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.utils import ConfigurableFieldSpec
from langchain_core.tools import BaseTool
from pydantic import BaseModel, Field
from typing_extensions import override

from langchain_router import _settings
from langchain_router._bound import RoutedBinding, RoutedRunnable
from langchain_router._calls import CallMaker
from langchain_router._capabilities import with_tools_where_able
from langchain_router._children import with_structure
from langchain_router._chooser import Chooser, TextFunction
from langchain_router._dispatch import Dispatch
from langchain_router._fallback import without_repeated
from langchain_router._generation import Generated, agenerate_one, generate_one, joined
from langchain_router._pair import ChatModelPair
from prefroute.conversation import Decide, TurnPolicy
from prefroute.decider import Decider
from prefroute.fallback import as_fallback
from prefroute.inputs import as_hook
from prefroute.options import split
from prefroute.recording import Recorder
from prefroute.router import Router
from prefroute.stats import RoutingStats
from prefroute.types import OnError, Route, RoutingDecision


class RoutedChatModel(ChatModelPair):
    """Sends each prompt to one of two chat models, whichever a router says is enough for it.

    A drop-in chat model: the whole call goes to the chosen model with the caller's config, so there is one run
    per call, with that model's name, usage, cache and rate limit. The decision (`RoutingDecision.as_dict()`) is in
    the run's metadata and in `response_metadata` of the message, both under `routing`; a stream carries it on its
    first chunk. `stream_events(version="v3")` has it in the run's metadata alone.

    A call may bring `threshold=`, or `strong_rate=` in its place, or `route="strong"` or `"weak"`; or, through a
    chain or a graph, `config["configurable"]` with `router_threshold`, `router_strong_rate` or `router_route`. What a
    call does not bring is the field's, then the router's own.

    Before the router is asked: a call that one model cannot take, by the models' profiles (window, tools, images),
    goes to the other one. The router is asked the text of the last human message, without what coding agents put
    around it. Where the models' providers differ, a model is given the other's answers as text and tool calls, for
    only their author can read signed thinking and the like; your own list of messages stays as it is.

    Example:
        ```python
        model = RoutedChatModel(strong=init_chat_model("openai:gpt-5"), weak=init_chat_model("openai:gpt-5-nano"))
        model.invoke("What is the capital of France?").response_metadata["routing"]["route"]
        model.invoke("Prove it.", route="strong")  # whatever the score
        ```

    Args:
        strong: The expensive model: a chat model, or a binding, retry, fallback or other Runnable around one; or,
            where `langchain` is installed, a name such as `"openai:gpt-5"`.
        weak: The cheap one, likewise.
        router: A router, a folder or hub id to load one from, or None for the one that comes with prefroute.
        threshold: Scores at or above it go to `strong`. None for the router's own at the time of each call.
            `strong_rate=0.3` in its place sends that share of calls to `strong`, by the calibration of the router.
        on_router_error: What happens when the router fails; None for the router's own setting.
        router_time_limit: Seconds the router may take before it counts as failed; None for the router's own.
        decide: `"per_turn"`: by the last human message, so the steps of one agent turn stay with one model.
            `"per_step"`: by that and the newest tool result, so they may change. `"per_conversation"`: the model of
            the latest answer stays, as recorded in it.
        lock_tool_loop: Whether the answer to a tool's result comes from the model that called the tool.
        escalate_after: So many identical tool calls, or failed tools, in one turn send its rest to `strong`.
        text_fn: Finds what the router is asked in the messages of a call. Where it fails, the router has failed.
        fallback_to_other: Whether the other model answers where the chosen one fails before its first token; once.
            The run's metadata and the answer say so, under `fallback`. Not in `stream_events(version="v3")`.
        shadow: The model that answers every call whatever is decided: what routing would do can be watched first.
        on_route: Called with each `RoutingDecision`; a quick, plain function.
        record: A `prefroute.recording.Recorder`, or the path of a file, that keeps each decision with its text and
            what came of it; None to keep nothing.
        stats: Counts each decision once; None for a fresh one.
        **settings: Fields of `BaseChatModel`. `callbacks`, `tags` and `metadata` are added to each call; `cache`,
            `disable_streaming`, `output_version`, `rate_limiter` and `verbose` are set on copies of both models.

    Raises:
        ThresholdError: The threshold is not a finite number, or there is none here and none in the router.
        ConfigurationError: A name is unknown, or a value cannot be used.
        PersistenceError: There is no readable router at `router`.
    """

    router: Router = Field(exclude=True)
    threshold: float | None = None
    on_router_error: OnError | None = None
    router_time_limit: float | None = None
    decide: Decide = "per_turn"
    lock_tool_loop: bool = False
    escalate_after: int | None = None
    text_fn: TextFunction | None = Field(default=None, exclude=True)
    fallback_to_other: bool = False
    shadow: Route | None = None
    on_route: Callable[[RoutingDecision], object] | None = Field(default=None, exclude=True)
    record: Recorder | None = Field(default=None, exclude=True)
    stats: RoutingStats = Field(default_factory=RoutingStats, exclude=True)

    def __init__(
        self,
        *,
        strong: Runnable[Any, Any] | str,
        weak: Runnable[Any, Any] | str,
        router: Router | str | Path | None = None,
        threshold: float | None = None,
        strong_rate: float | None = None,
        on_router_error: OnError | None = None,
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
        **settings: Any,
    ) -> None:
        # Here and not in validators: pydantic would wrap prefroute's own errors in a ValidationError.
        settings = _settings.known(type(self), settings)
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
        TurnPolicy(decide=decide, lock_tool_loop=lock_tool_loop, escalate_after=escalate_after)
        fields: dict[str, Any] = {
            "strong": _settings.as_child("strong", strong, settings),
            "weak": _settings.as_child("weak", weak, settings),
            "router": decider.router,
            "threshold": None if decider.threshold is None else float(decider.threshold),
            "on_router_error": on_router_error,
            "router_time_limit": None if router_time_limit is None else float(router_time_limit),
            "decide": decide,
            "lock_tool_loop": lock_tool_loop,
            "escalate_after": escalate_after,
            "text_fn": as_hook(text_fn, "text_fn", "the messages"),
            "fallback_to_other": as_fallback(fallback_to_other, shadow),
            "shadow": shadow,
            "on_route": on_route,
            "record": decider.recorder,
            "stats": decider.stats,
        }
        super().__init__(**fields, **settings)

    # --- calls ---

    @override
    def invoke(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AIMessage:
        return cast("AIMessage", self._dispatch.invoke(input, config, {"stop": stop, **kwargs}))

    @override
    async def ainvoke(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AIMessage:
        return cast("AIMessage", await self._dispatch.ainvoke(input, config, {"stop": stop, **kwargs}))

    @override
    def stream(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> Iterator[AIMessageChunk]:
        return self._dispatch.stream(input, config, {"stop": stop, **kwargs})

    @override
    def astream(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[AIMessageChunk]:
        return self._dispatch.astream(input, config, {"stop": stop, **kwargs})

    @override
    def batch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[AIMessage]:
        return self._dispatch.batch(inputs, config, kwargs, return_exceptions=return_exceptions)

    @override
    async def abatch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[AIMessage]:
        return await self._dispatch.abatch(inputs, config, kwargs, return_exceptions=return_exceptions)

    @override
    def generate(
        self,
        messages: list[list[BaseMessage]],
        stop: list[str] | None = None,
        callbacks: Callbacks = None,
        *,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        run_name: str | None = None,
        run_id: uuid.UUID | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        config = _run_config(callbacks, tags, metadata, run_name, run_id)
        dispatch = self._dispatch
        calls = dispatch.prepare_all(messages, config, {"stop": stop, **kwargs})
        return joined([dispatch.run(call, generate_one) for call in calls])

    @override
    async def agenerate(
        self,
        messages: list[list[BaseMessage]],
        stop: list[str] | None = None,
        callbacks: Callbacks = None,
        *,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        run_name: str | None = None,
        run_id: uuid.UUID | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        config = _run_config(callbacks, tags, metadata, run_name, run_id)
        dispatch = self._dispatch
        calls = await dispatch.aprepare_all(messages, config, {"stop": stop, **kwargs})
        asked = [dispatch.arun(call, agenerate_one) for call in calls]
        # Let all of them end before the first error is told, so that none goes on unseen.
        results = await asyncio.gather(*asked, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return joined(cast("list[Generated]", results))

    @override
    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        # Only for code that calls this hook itself; whoever gives a run manager has opened a run for this answer.
        config: RunnableConfig | None = None if run_manager is None else {"callbacks": []}
        message = self.invoke(messages, config, stop=stop, **kwargs)
        return ChatResult(generations=[ChatGeneration(message=message)])

    @override
    def stream_events(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, *, version: str = "v2", **kwargs: Any
    ) -> Any:
        """Events of one call; with `version="v3"` the chosen model's own typed stream."""
        if version != "v3":
            return super().stream_events(input, config, version=cast("Any", version), **kwargs)
        call = self._dispatch.prepare(input, config, kwargs)
        return cast("Any", call.child).stream_events(call.value, call.config, version="v3", **call.kwargs)

    @override
    def astream_events(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, *, version: str = "v2", **kwargs: Any
    ) -> Any:
        """Events of one call; with `version="v3"` an awaitable of the chosen model's own typed stream."""
        if version != "v3":
            events = super().astream_events(input, config, version=cast("Any", version), **kwargs)
            return without_repeated(events) if self.fallback_to_other else events
        return self._astream_events_v3(input, config, kwargs)

    async def _astream_events_v3(
        self, value: LanguageModelInput, config: RunnableConfig | None, kwargs: Mapping[str, Any]
    ) -> Any:
        call = await self._dispatch.aprepare(value, config, kwargs)
        opened = cast("Any", call.child).astream_events(call.value, call.config, version="v3", **call.kwargs)
        return await cast("Awaitable[Any]", opened)

    # --- binding ---

    @override
    def bind(self, **kwargs: Any) -> RoutedBinding:  # type: ignore[override] # the base names a private class
        """Bind arguments, those for routing among them; tools and schemas bound later keep them."""
        return RoutedBinding(bound=self, kwargs=kwargs, config={})

    @override
    def with_config(self, config: RunnableConfig | None = None, **kwargs: Any) -> RoutedBinding:
        """Bind config; tools and schemas bound later keep it."""
        return RoutedBinding(bound=self, kwargs={}, config=cast("RunnableConfig", {**(config or {}), **kwargs}))

    @override
    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Bind tools to both models, each in its own provider's format.

        Args:
            tools: As for the models' own `bind_tools`.
            tool_choice: Likewise.
            **kwargs: Likewise; `threshold`, `strong_rate` and `route` are kept for routing.

        Returns:
            A binding around a routed model whose two models have the tools.

        Raises:
            NotImplementedError: One of the models cannot take tools. Where the profile of that model says so too,
                this is no error: calls then go to the other one.
        """
        own, passed = split(kwargs)
        if tool_choice is not None:
            passed["tool_choice"] = tool_choice
        strong, weak = with_tools_where_able(self._sides, tools, **passed)
        return self.model_copy(update={"strong": strong, "weak": weak}).bind(**own)

    @override
    def with_structured_output(
        self, schema: dict[str, Any] | type, *, include_raw: bool = False, **kwargs: Any
    ) -> Runnable[LanguageModelInput, dict[str, Any] | BaseModel]:
        """Answer in a schema, each model by its own provider's method.

        Args:
            schema: As for the models' own `with_structured_output`.
            include_raw: Likewise; the raw message then carries the decision.
            **kwargs: Likewise; `threshold`, `strong_rate` and `route` are kept for routing.

        Returns:
            A Runnable that routes each input; per-call thresholds work as on the model.

        Raises:
            NotImplementedError: One of the models cannot do that.
        """
        own, passed = split(kwargs)
        strong, weak = (with_structure(child, schema, include_raw=include_raw, **passed) for child in self._sides)
        return RoutedRunnable(Dispatch(self._dispatch.maker.between(strong, weak))).bind(**own)

    # --- what it is ---

    @property
    @override
    def config_specs(self) -> list[ConfigurableFieldSpec]:
        return self._dispatch.maker.config_specs

    @property
    @override
    def _identifying_params(self) -> Mapping[str, Any]:
        threshold = self.router.threshold if self.threshold is None else self.threshold
        return {
            **super()._identifying_params,
            "router": type(self.router).__name__,
            "threshold": None if threshold is None else float(threshold),
        }

    @property
    def _dispatch(self) -> Dispatch:
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
        return Dispatch(
            CallMaker(
                chooser=Chooser(
                    strong=self.strong, weak=self.weak, decider=decider, policy=policy, text_fn=self.text_fn
                ),
                fallback=self.fallback_to_other,
                callbacks=self.callbacks,
                tags=self.tags or (),
                # The base class records package versions there; the chosen model adds the same ones itself.
                metadata={name: value for name, value in (self.metadata or {}).items() if name != "lc_versions"},
            )
        )


def _run_config(
    callbacks: Callbacks,
    tags: list[str] | None,
    metadata: dict[str, Any] | None,
    run_name: str | None,
    run_id: uuid.UUID | None,
) -> RunnableConfig:
    # Not ensure_config: generate() of a plain model does not take callbacks from its surroundings either.
    config: RunnableConfig = {"callbacks": callbacks, "tags": tags or [], "metadata": metadata or {}}
    if run_name is not None:
        config["run_name"] = run_name
    if run_id is not None:
        config["run_id"] = run_id
    return config
