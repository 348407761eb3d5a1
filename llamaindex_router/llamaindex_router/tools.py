"""Tool calls of `RoutedLLM`: made, sent and read by the LLM that answers."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast, get_args

from llamaindex_router.base import DECISION_KEY, Prepared, RoutedBase
from llamaindex_router.delegation import unstamped
from llamaindex_router.events import ROUTING_KEY
from llamaindex_router.text import asked_with_tools
from prefroute.conversation import answered_by
from prefroute.types import Route

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llama_index.core.base.llms.types import ChatResponseAsyncGen, ChatResponseGen
    from llama_index.core.chat_engine.types import AgentChatResponse
    from llama_index.core.llms import LLM, ChatMessage, ChatResponse
    from llama_index.core.llms.function_calling import FunctionCallingLLM
    from llama_index.core.llms.llm import ToolSelection
    from llama_index.core.tools.types import BaseTool

    from llamaindex_router.delegation import Delegation


logger = logging.getLogger(__name__)


class RoutedTools(RoutedBase):
    """The methods that take tools; see `RoutedLLM`.

    Arguments after the messages are handed on as they came. When only one side calls tools, it takes the
    `*_with_tools` calls whatever the router would say, with `reason="capability"`.
    """

    def chat_with_tools(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> ChatResponse:
        """Answer a conversation or call tools."""
        chosen = self._choose(asked_with_tools(user_msg, chat_history), kwargs, tools=True)
        return chosen.call(
            lambda to: _able(to).chat_with_tools(tools, user_msg, _history(chat_history, to), *args, **kwargs)
        )

    async def achat_with_tools(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> ChatResponse:
        """Answer a conversation or call tools."""
        chosen = await self._achoose(asked_with_tools(user_msg, chat_history), kwargs, tools=True)
        return await chosen.acall(
            lambda to: _able(to).achat_with_tools(tools, user_msg, _history(chat_history, to), *args, **kwargs)
        )

    def stream_chat_with_tools(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> ChatResponseGen:
        """Answer a conversation or call tools, in growing pieces; decided before this returns."""
        chosen = self._choose(asked_with_tools(user_msg, chat_history), kwargs, tools=True)
        return chosen.stream(
            lambda to: _able(to).stream_chat_with_tools(tools, user_msg, _history(chat_history, to), *args, **kwargs)
        )

    async def astream_chat_with_tools(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> ChatResponseAsyncGen:
        """Answer a conversation or call tools, in growing pieces; decided before this returns."""
        chosen = await self._achoose(asked_with_tools(user_msg, chat_history), kwargs, tools=True)
        return await chosen.astream(
            lambda to: _able(to).astream_chat_with_tools(tools, user_msg, _history(chat_history, to), *args, **kwargs)
        )

    def predict_and_call(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> AgentChatResponse:
        """Let the chosen LLM call tools and run them, in its own way."""
        # Tools may have run before something fails, so this is not done twice.
        chosen = self._choose(asked_with_tools(user_msg, chat_history), kwargs, repeatable=False)
        return chosen.call(
            lambda to: to.llm.predict_and_call(tools, user_msg, _history(chat_history, to), *args, **kwargs)
        )

    async def apredict_and_call(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> AgentChatResponse:
        """Let the chosen LLM call tools and run them, in its own way."""
        chosen = await self._achoose(asked_with_tools(user_msg, chat_history), kwargs, repeatable=False)
        return await chosen.acall(
            lambda to: to.llm.apredict_and_call(tools, user_msg, _history(chat_history, to), *args, **kwargs)
        )

    def get_tool_calls_from_response(
        self,
        response: ChatResponse,
        error_on_no_tool_call: bool = True,  # noqa: FBT001, FBT002 - the framework's signature
        **kwargs: Any,
    ) -> list[ToolSelection]:
        """Read the tool calls in a response, in the dialect of the LLM that gave it.

        Args:
            response: The response; one rebuilt around a message no longer says whose it is, and is read by
                the strong LLM and, if that finds nothing, by the weak one.
            error_on_no_tool_call: Whether a response without tool calls is an error.
            **kwargs: For the LLM that reads.

        Returns:
            The tool calls.

        Raises:
            ValueError: There are none and `error_on_no_tool_call` is set.
            ConfigurationError: Neither LLM calls tools.
        """
        sides = self._sides
        if error_on_no_tool_call:
            sides.check_tools()
        readers: list[Route] = [side for side in get_args(Route) if sides.known(side).calls_tools]
        if (routing := response.additional_kwargs.get(ROUTING_KEY)) is not None:
            readers = [side for side in readers if side == answered_by(routing)] or readers
            response = unstamped(response)
        if not readers:
            return []
        for side in readers[:-1]:
            if found := self._read(side, response, **kwargs):
                return found
        return _tool_calls(self._side(readers[-1]), response, error_on_none=error_on_no_tool_call, **kwargs)

    def _read(self, side: Route, response: ChatResponse, **kwargs: Any) -> list[ToolSelection]:
        """What one side finds; nothing where it fails, for the response may be in the other's dialect."""
        try:
            return _tool_calls(self._side(side), response, error_on_none=False, **kwargs)
        except Exception:  # the other one is asked
            logger.debug("the %s side cannot read these tool calls", side, exc_info=True)
            return []

    def _prepare_chat_with_tools(  # noqa: PLR0917 - the framework's signature
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,  # noqa: FBT001, FBT002 - as above
        allow_parallel_tool_calls: bool = False,  # noqa: FBT001, FBT002 - as above
        tool_required: bool = False,  # noqa: FBT001, FBT002 - as above
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Arguments for a chat call; they carry the decision, so that the call goes to whom they were made for."""
        chosen = self._choose(asked_with_tools(user_msg, chat_history), kwargs, tools=True, repeatable=False)
        # The rate limiter, and the record, are left to the chat call.
        prepared = replace(chosen, rate_limiter=None, calling=None).call(
            lambda to: _able(to)._prepare_chat_with_tools_compat(  # noqa: SLF001 - the framework's hook for subclasses
                tools,
                user_msg=user_msg,
                chat_history=_history(chat_history, to),
                verbose=verbose,
                allow_parallel_tool_calls=allow_parallel_tool_calls,
                tool_required=tool_required,
                **kwargs,
            )
        )
        return {**prepared, DECISION_KEY: Prepared(chosen.decision, prepared.get(DECISION_KEY))}


def _history(history: Sequence[ChatMessage] | None, to: Delegation) -> list[ChatMessage] | None:
    return None if history is None else to.fit(history)


def _able(chosen: Delegation) -> FunctionCallingLLM:
    # Only sides that call tools are chosen for such a call.
    return cast("FunctionCallingLLM", chosen.llm)


def _tool_calls(reader: LLM, response: ChatResponse, *, error_on_none: bool, **kwargs: Any) -> list[ToolSelection]:
    able = cast("FunctionCallingLLM", reader)
    return able.get_tool_calls_from_response(response, error_on_no_tool_call=error_on_none, **kwargs)
