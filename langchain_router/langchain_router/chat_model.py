"""A chat model that sends each prompt to a strong or a weak chat model."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
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
from langchain_router._children import with_structure, with_tools
from langchain_router._dispatch import THRESHOLD_KWARG, Dispatch
from langchain_router._generation import agenerate_one, generate_one, joined
from langchain_router._pair import ChatModelPair
from prefroute.decider import Decider
from prefroute.router import Router
from prefroute.stats import RoutingStats
from prefroute.types import OnError


class RoutedChatModel(ChatModelPair):
    """Sends each prompt to one of two chat models, whichever a router says is enough for it.

    A drop-in chat model: the whole call goes to the chosen model with the caller's config, so there is one run
    per call, with that model's name, usage, cache and rate limit. The decision (`RoutingDecision.as_dict()`) is in
    the run's metadata and in `response_metadata` of the message, both under `routing`; a stream carries it on its
    first chunk. `stream_events(version="v3")` has it in the run's metadata alone.

    The threshold of a call is, first that is given: the keyword `threshold`, then
    `config["configurable"]["router_threshold"]`, then the field, then the router's own. It is routed by the text
    of the last human message, so the steps of one agent turn stay with one model.

    Example:
        ```python
        model = RoutedChatModel(strong=init_chat_model("openai:gpt-5"), weak=init_chat_model("openai:gpt-5-nano"))
        model.invoke("What is the capital of France?").response_metadata["routing"]["route"]
        model.invoke("Prove it.", threshold=0.0)  # strong, whatever the score
        ```

    Args:
        strong: The expensive model: a chat model, or a binding, retry, fallback or other Runnable around one.
        weak: The cheap one, likewise.
        router: A router, a folder or hub id to load one from, or None for the one that comes with prefroute.
        threshold: Scores at or above it go to `strong`. None for the router's own at the time of each call.
            `strong_rate=0.3` in its place sends that share of calls to `strong`, by the calibration of the router.
        on_router_error: What happens when the router fails; None for the router's own setting.
        router_time_limit: Seconds the router may take before it counts as failed; None for the router's own.
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
    stats: RoutingStats = Field(default_factory=RoutingStats, exclude=True)

    def __init__(
        self,
        *,
        strong: Runnable[Any, Any],
        weak: Runnable[Any, Any],
        router: Router | str | Path | None = None,
        threshold: float | None = None,
        strong_rate: float | None = None,
        on_router_error: OnError | None = None,
        router_time_limit: float | None = None,
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
        )
        fields: dict[str, Any] = {
            "strong": _settings.as_child("strong", strong, settings),
            "weak": _settings.as_child("weak", weak, settings),
            "router": decider.router,
            "threshold": None if decider.threshold is None else float(decider.threshold),
            "on_router_error": on_router_error,
            "router_time_limit": None if router_time_limit is None else float(router_time_limit),
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
        calls = self._dispatch.prepare_all(messages, config, {"stop": stop, **kwargs})
        return joined(calls, [generate_one(call, one) for call, one in zip(calls, messages, strict=True)])

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
        calls = await self._dispatch.aprepare_all(messages, config, {"stop": stop, **kwargs})
        asked = [agenerate_one(call, one) for call, one in zip(calls, messages, strict=True)]
        # Let all of them end before the first error is told, so that none goes on unseen.
        results = await asyncio.gather(*asked, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return joined(calls, cast("list[LLMResult]", results))

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
        return cast("Any", call.child).stream_events(input, call.config, version="v3", **call.kwargs)

    @override
    def astream_events(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, *, version: str = "v2", **kwargs: Any
    ) -> Any:
        """Events of one call; with `version="v3"` an awaitable of the chosen model's own typed stream."""
        if version != "v3":
            return super().astream_events(input, config, version=cast("Any", version), **kwargs)
        return self._astream_events_v3(input, config, kwargs)

    async def _astream_events_v3(
        self, value: LanguageModelInput, config: RunnableConfig | None, kwargs: Mapping[str, Any]
    ) -> Any:
        call = await self._dispatch.aprepare(value, config, kwargs)
        opened = cast("Any", call.child).astream_events(value, call.config, version="v3", **call.kwargs)
        return await cast("Awaitable[Any]", opened)

    # --- binding ---

    @override
    def bind(self, **kwargs: Any) -> RoutedBinding:  # type: ignore[override] # the base names a private class
        """Bind arguments, `threshold` among them; tools and schemas bound later keep them."""
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
            **kwargs: Likewise; `threshold` is kept for routing.

        Returns:
            A binding around a routed model whose two models have the tools.

        Raises:
            NotImplementedError: One of the models cannot take tools.
        """
        own, passed = _split(kwargs)
        if tool_choice is not None:
            passed["tool_choice"] = tool_choice
        strong, weak = (with_tools(child, tools, **passed) for child in self._sides)
        return self.model_copy(update={"strong": strong, "weak": weak}).bind(**own)

    @override
    def with_structured_output(
        self, schema: dict[str, Any] | type, *, include_raw: bool = False, **kwargs: Any
    ) -> Runnable[LanguageModelInput, dict[str, Any] | BaseModel]:
        """Answer in a schema, each model by its own provider's method.

        Args:
            schema: As for the models' own `with_structured_output`.
            include_raw: Likewise; the raw message then carries the decision.
            **kwargs: Likewise; `threshold` is kept for routing.

        Returns:
            A Runnable that routes each input; per-call thresholds work as on the model.

        Raises:
            NotImplementedError: One of the models cannot do that.
        """
        own, passed = _split(kwargs)
        strong, weak = (with_structure(child, schema, include_raw=include_raw, **passed) for child in self._sides)
        return RoutedRunnable(replace(self._dispatch, strong=strong, weak=weak)).bind(**own)

    # --- what it is ---

    @property
    @override
    def config_specs(self) -> list[ConfigurableFieldSpec]:
        return self._dispatch.config_specs

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
        return Dispatch(
            strong=self.strong,
            weak=self.weak,
            decider=Decider(
                router=self.router,
                threshold=self.threshold,
                on_error=self.on_router_error,
                time_limit=self.router_time_limit,
                stats=self.stats,
            ),
            callbacks=self.callbacks,
            tags=self.tags or (),
            # The base class records package versions there; the chosen model adds the same ones itself.
            metadata={name: value for name, value in (self.metadata or {}).items() if name != "lc_versions"},
        )


def _split(kwargs: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arguments that are for routing, and those that are for the models."""
    own = {name: value for name, value in kwargs.items() if name == THRESHOLD_KWARG}
    return own, {name: value for name, value in kwargs.items() if name != THRESHOLD_KWARG}


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
