"""What a routed model becomes when something is bound to it."""

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any, cast

from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable, RunnableBinding, RunnableConfig
from langchain_core.runnables.utils import ConfigurableFieldSpec
from langchain_core.tools import BaseTool
from langchain_core.utils.pydantic import TypeBaseModel
from pydantic import BaseModel
from typing_extensions import override

from langchain_router._children import Routes, bind_first, with_structure, with_tools
from langchain_router._dispatch import Dispatch
from langchain_router._fallback import without_repeated
from prefroute.options import OWN_KWARGS, split


class RoutedBinding(RunnableBinding[LanguageModelInput, AIMessage]):
    """A routed model with arguments or config bound to it.

    A plain binding forgets them when tools or a schema are bound next, so that
    `create_agent(model.bind(threshold=0.1), tools)` would route by the default threshold.
    """

    @classmethod
    @override
    def lc_id(cls) -> list[str]:
        # By the name that LangChain knows, as its own binding of a chat model does.
        return [*cls.get_lc_namespace(), "RunnableBinding"]

    @override
    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        # A key may be among the arguments.
        yield "bound", self.bound
        yield "kwargs", {name: value if name in OWN_KWARGS else "..." for name, value in self.kwargs.items()}

    # The annotation must be there at run time: RunnableWithFallbacks reads it to bind tools to each fallback.
    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Bind tools and keep what is bound already; see `RoutedChatModel.bind_tools`."""
        if tool_choice is not None:
            kwargs["tool_choice"] = tool_choice
        return with_tools(self, tools, **kwargs)

    def with_structured_output(
        self, schema: dict[str, Any] | type, *, include_raw: bool = False, **kwargs: Any
    ) -> Runnable[LanguageModelInput, dict[str, Any] | BaseModel]:
        """Answer in a schema and keep what is bound already; see `RoutedChatModel.with_structured_output`."""
        return with_structure(self, schema, include_raw=include_raw, **kwargs)


class RoutedRunnable(Routes, Runnable[LanguageModelInput, Any]):
    """Routes each input to one of two Runnables; what `RoutedChatModel.with_structured_output` returns.

    Args:
        dispatch: The two, and how to choose.
    """

    def __init__(self, dispatch: Dispatch) -> None:
        self._dispatch = dispatch

    @property
    @override
    def InputType(self) -> Any:
        return self._dispatch.maker.chooser.strong.InputType

    @property
    @override
    def OutputType(self) -> Any:
        return self._dispatch.maker.chooser.strong.OutputType

    @override
    def get_input_schema(self, config: RunnableConfig | None = None) -> TypeBaseModel:
        return self._dispatch.maker.chooser.strong.get_input_schema(config)

    @override
    def get_output_schema(self, config: RunnableConfig | None = None) -> TypeBaseModel:
        return self._dispatch.maker.chooser.strong.get_output_schema(config)

    @property
    @override
    def config_specs(self) -> list[ConfigurableFieldSpec]:
        return self._dispatch.maker.config_specs

    @override
    def bind(self, **kwargs: Any) -> Runnable[LanguageModelInput, Any]:
        """Bind what is for routing, and any other argument to both models."""
        own, passed = split(kwargs)
        maker = self._dispatch.maker
        strong, weak = (bind_first(child, passed) for child in (maker.chooser.strong, maker.chooser.weak))
        routed = RoutedRunnable(Dispatch(maker.between(strong, weak)))
        return RunnableBinding(bound=routed, kwargs=own) if own else routed

    @override
    def invoke(self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        return self._dispatch.invoke(input, config, kwargs)

    @override
    async def ainvoke(self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        return await self._dispatch.ainvoke(input, config, kwargs)

    @override
    def stream(self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any) -> Iterator[Any]:
        return self._dispatch.stream(input, config, kwargs)

    @override
    def astream(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        return self._dispatch.astream(input, config, kwargs)

    @override
    def astream_events(
        self, input: Any, config: RunnableConfig | None = None, *, version: str = "v2", **kwargs: Any
    ) -> Any:
        events = super().astream_events(input, config, version=cast("Any", version), **kwargs)
        # The third version is for chat models alone, and says so when it is awaited.
        return without_repeated(events) if version != "v3" and self._dispatch.maker.fallback else events

    @override
    def batch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Any]:
        return self._dispatch.batch(inputs, config, kwargs, return_exceptions=return_exceptions)

    @override
    async def abatch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Any]:
        return await self._dispatch.abatch(inputs, config, kwargs, return_exceptions=return_exceptions)
