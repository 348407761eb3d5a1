"""Tool calls of `RoutedLLM`: made, sent and read by the LLM that answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from llamaindex_router.base import DECISION_KEY, RoutedBase
from llamaindex_router.delegation import unstamped
from llamaindex_router.events import ROUTING_KEY
from llamaindex_router.text import conversation, text_of_messages

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llama_index.core.base.llms.types import ChatResponseAsyncGen, ChatResponseGen
    from llama_index.core.chat_engine.types import AgentChatResponse
    from llama_index.core.llms import LLM, ChatMessage, ChatResponse
    from llama_index.core.llms.function_calling import FunctionCallingLLM
    from llama_index.core.llms.llm import ToolSelection
    from llama_index.core.tools.types import BaseTool

    from llamaindex_router.delegation import Delegation


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
        chosen = self._choose(_asked(user_msg, chat_history), kwargs, tools=True)
        history = self._history(chat_history, chosen)
        return chosen.call(_able(chosen).chat_with_tools, tools, user_msg, history, *args, **kwargs)

    async def achat_with_tools(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> ChatResponse:
        """Answer a conversation or call tools."""
        chosen = await self._achoose(_asked(user_msg, chat_history), kwargs, tools=True)
        history = self._history(chat_history, chosen)
        return await chosen.acall(_able(chosen).achat_with_tools, tools, user_msg, history, *args, **kwargs)

    def stream_chat_with_tools(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> ChatResponseGen:
        """Answer a conversation or call tools, in growing pieces; decided before this returns."""
        chosen = self._choose(_asked(user_msg, chat_history), kwargs, tools=True)
        history = self._history(chat_history, chosen)
        return chosen.stream(_able(chosen).stream_chat_with_tools, tools, user_msg, history, *args, **kwargs)

    async def astream_chat_with_tools(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> ChatResponseAsyncGen:
        """Answer a conversation or call tools, in growing pieces; decided before this returns."""
        chosen = await self._achoose(_asked(user_msg, chat_history), kwargs, tools=True)
        history = self._history(chat_history, chosen)
        return await chosen.astream(_able(chosen).astream_chat_with_tools, tools, user_msg, history, *args, **kwargs)

    def predict_and_call(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> AgentChatResponse:
        """Let the chosen LLM call tools and run them; one that has no tool API does so as a ReAct agent."""
        chosen = self._choose(_asked(user_msg, chat_history), kwargs)
        history = self._history(chat_history, chosen)
        return chosen.call(chosen.llm.predict_and_call, tools, user_msg, history, *args, **kwargs)

    async def apredict_and_call(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> AgentChatResponse:
        """Let the chosen LLM call tools and run them; one that has no tool API does so as a ReAct agent."""
        chosen = await self._achoose(_asked(user_msg, chat_history), kwargs)
        history = self._history(chat_history, chosen)
        return await chosen.acall(chosen.llm.apredict_and_call, tools, user_msg, history, *args, **kwargs)

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
        readers = self._sides_with_tools()
        if (routing := response.additional_kwargs.get(ROUTING_KEY)) is not None:
            readers = [routing["route"]] if routing["route"] in readers else readers
            response = unstamped(response)
        for route in readers[:-1]:
            if found := _tool_calls(self._side(route), response, error_on_none=False, **kwargs):
                return found
        return _tool_calls(self._side(readers[-1]), response, error_on_none=error_on_no_tool_call, **kwargs)

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
        # The rate limiter is left to the chat call.
        chosen = self._delegation(self._decide(_asked(user_msg, chat_history), kwargs, tools=True))
        prepared = chosen.call(
            _able(chosen)._prepare_chat_with_tools_compat,  # noqa: SLF001 - the framework's hook for subclasses
            tools,
            user_msg=user_msg,
            chat_history=self._history(chat_history, chosen),
            verbose=verbose,
            allow_parallel_tool_calls=allow_parallel_tool_calls,
            tool_required=tool_required,
            **kwargs,
        )
        return {**prepared, DECISION_KEY: chosen.decision}

    def _history(self, history: list[ChatMessage] | None, chosen: Delegation) -> list[ChatMessage] | None:
        # Always a list of its own: OpenAI's LLM appends the user's message to the one it is given.
        return None if history is None else list(self._readable(history, chosen))


def _asked(user_msg: str | ChatMessage | None, history: Sequence[ChatMessage] | None) -> str:
    return text_of_messages(conversation(user_msg, history))


def _able(chosen: Delegation) -> FunctionCallingLLM:
    # Only sides that call tools are chosen for such a call.
    return cast("FunctionCallingLLM", chosen.llm)


def _tool_calls(reader: LLM, response: ChatResponse, *, error_on_none: bool, **kwargs: Any) -> list[ToolSelection]:
    able = cast("FunctionCallingLLM", reader)
    return able.get_tool_calls_from_response(response, error_on_no_tool_call=error_on_none, **kwargs)
