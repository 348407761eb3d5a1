"""Recording LLMs in two tool dialects, and no network."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

import pytest
from llama_index.core.base.llms.types import ToolCallBlock
from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.callbacks.base import global_stack_trace, global_stack_trace_ids
from llama_index.core.callbacks.schema import BASE_TRACE_EVENT
from llama_index.core.llms import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    CustomLLM,
    LLMMetadata,
    MessageRole,
    TextBlock,
)
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import ToolSelection
from llama_index_instrumentation import get_dispatcher
from llama_index_instrumentation.event_handlers import BaseEventHandler
from pytest_socket import disable_socket, enable_socket

from llamaindex_router import RoutedLLM
from prefroute.testing import FixedRouter

if TYPE_CHECKING:
    from collections.abc import Iterator

EASY, HARD = "say hi", "prove the Riemann hypothesis"


class DialectLLM(FunctionCallingLLM):
    """Answers with its name, calls the first tool it is given, and writes down what it was asked."""

    name: str
    dialect: Literal["blocks", "legacy"] = "blocks"
    api_key: str = "sk-secret"
    tool_kwargs: dict[str, Any] = Field(default_factory=dict)
    context_window: int = 4096
    num_output: int = 256
    role: MessageRole = MessageRole.SYSTEM
    error: Any = None
    _calls: list[tuple[str, Any, dict[str, Any]]] = PrivateAttr(default_factory=list)
    _open_streams: list[int] = PrivateAttr(default_factory=list)

    @property
    def calls(self) -> list[tuple[str, Any, dict[str, Any]]]:
        return self._calls

    @property
    def open_streams(self) -> int:
        return len(self._open_streams)

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(
            model_name=self.name,
            is_chat_model=True,
            is_function_calling_model=True,
            context_window=self.context_window,
            num_output=self.num_output,
            system_role=self.role,
        )

    def _noted(self, method: str, asked: Any, kwargs: dict[str, Any]) -> None:
        self._calls.append((method, asked, kwargs))
        if self.error is not None:
            raise self.error

    def _message(self, text: str, asked: Any, kwargs: dict[str, Any]) -> ChatMessage:
        message = ChatMessage(role=MessageRole.ASSISTANT, blocks=[TextBlock(text=text)])
        has_result = any(earlier.role == MessageRole.TOOL for earlier in asked)
        for tool in [] if has_result else kwargs.get("tools", [])[:1]:
            if self.dialect == "blocks":
                message.blocks.append(ToolCallBlock(tool_call_id="b1", tool_name=tool, tool_kwargs=self.tool_kwargs))
            else:
                call = {"id": "l1", "name": tool, "arguments": json.dumps(self.tool_kwargs)}
                message.additional_kwargs["tool_calls"] = [call]
        return message

    @llm_chat_callback()
    def chat(self, messages: Any, **kwargs: Any) -> ChatResponse:
        self._noted("chat", messages, kwargs)
        return ChatResponse(message=self._message(self.name, messages, kwargs), raw={"model": self.name})

    @llm_chat_callback()
    async def achat(self, messages: Any, **kwargs: Any) -> ChatResponse:
        self._noted("achat", messages, kwargs)
        return ChatResponse(message=self._message(self.name, messages, kwargs), raw={"model": self.name})

    @llm_chat_callback()
    def stream_chat(self, messages: Any, **kwargs: Any) -> Any:
        self._noted("stream_chat", messages, kwargs)

        def gen() -> Iterator[ChatResponse]:
            self._open_streams.append(1)
            try:
                for end in range(1, len(self.name) + 1):
                    text = self.name[:end]
                    yield ChatResponse(message=self._message(text, messages, kwargs), delta=text[-1])
            finally:
                self._open_streams.pop()

        return gen()

    @llm_chat_callback()
    async def astream_chat(self, messages: Any, **kwargs: Any) -> Any:
        self._noted("astream_chat", messages, kwargs)

        async def gen() -> Any:
            self._open_streams.append(1)
            try:
                for end in range(1, len(self.name) + 1):
                    text = self.name[:end]
                    yield ChatResponse(message=self._message(text, messages, kwargs), delta=text[-1])
            finally:
                self._open_streams.pop()

        return gen()

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        self._noted("complete", prompt, {"formatted": formatted, **kwargs})
        return CompletionResponse(text=self.name)

    @llm_completion_callback()
    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        self._noted("acomplete", prompt, {"formatted": formatted, **kwargs})
        return CompletionResponse(text=self.name)

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        self._noted("stream_complete", prompt, {"formatted": formatted, **kwargs})
        return (CompletionResponse(text=self.name[: n + 1], delta=c) for n, c in enumerate(self.name))

    @llm_completion_callback()
    async def astream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        self._noted("astream_complete", prompt, {"formatted": formatted, **kwargs})

        async def gen() -> Any:
            for n, c in enumerate(self.name):
                yield CompletionResponse(text=self.name[: n + 1], delta=c)

        return gen()

    def _prepare_chat_with_tools(
        self, tools: Any, user_msg: Any = None, chat_history: Any = None, tool_required: bool = False, **kwargs: Any
    ) -> dict[str, Any]:
        messages = [] if chat_history is None else chat_history
        if user_msg is not None:
            # As OpenAI's does: into the caller's own list.
            messages.append(ChatMessage(content=user_msg) if isinstance(user_msg, str) else user_msg)
        names = [tool.metadata.name for tool in tools]
        return {"messages": messages, "tools": names, "tool_required": tool_required, "dialect": self.dialect}

    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[ToolSelection]:
        self._calls.append(("get_tool_calls", response, kwargs))
        if self.dialect == "blocks":
            found = [
                ToolSelection(tool_id=block.tool_call_id, tool_name=block.tool_name, tool_kwargs=block.tool_kwargs)
                for block in response.message.blocks
                if isinstance(block, ToolCallBlock)
            ]
        else:
            found = [
                ToolSelection(tool_id=call["id"], tool_name=call["name"], tool_kwargs=json.loads(call["arguments"]))
                for call in response.message.additional_kwargs.get("tool_calls", [])
            ]
        if error_on_no_tool_call and not found:
            msg = f"{self.name} found no tool calls"
            raise ValueError(msg)
        return found


class PlainLLM(CustomLLM):
    """A completion model without tools."""

    name: str = "plain"
    reply: str = "plain"

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name=self.name)

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return CompletionResponse(text=self.reply)

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        return iter([CompletionResponse(text=self.reply, delta=self.reply)])


class EventLog(BaseEventHandler):
    """Keeps every event."""

    _events: list[Any] = PrivateAttr(default_factory=list)

    def handle(self, event: Any, **_: Any) -> None:
        self._events.append(event)

    def named(self, *names: str) -> list[Any]:
        return [event for event in self._events if event.class_name() in names]

    @property
    def all(self) -> list[Any]:
        return self._events


@pytest.fixture(autouse=True)
def _no_network() -> Iterator[None]:
    disable_socket(allow_unix_socket=True)
    yield
    enable_socket()


@pytest.fixture(autouse=True)
def _no_trace_left() -> None:
    """Begin with an empty trace: the framework leaves some of it behind where a call has failed."""
    global_stack_trace.set([BASE_TRACE_EVENT])
    global_stack_trace_ids.set([])


@pytest.fixture
def easy() -> str:
    return EASY


@pytest.fixture
def hard() -> str:
    return HARD


@pytest.fixture
def router() -> FixedRouter:
    return FixedRouter(0.1, {HARD: 0.9})


@pytest.fixture
def strong() -> DialectLLM:
    return DialectLLM(name="big", dialect="blocks", tool_kwargs={"a": 2, "b": 3})


@pytest.fixture
def weak() -> DialectLLM:
    return DialectLLM(name="small", dialect="legacy", tool_kwargs={"a": 2, "b": 3})


@pytest.fixture
def plain() -> PlainLLM:
    return PlainLLM()


@pytest.fixture
def make_llm() -> type[DialectLLM]:
    return DialectLLM


@pytest.fixture
def routed(strong: DialectLLM, weak: DialectLLM, router: FixedRouter) -> RoutedLLM:
    return RoutedLLM(strong=strong, weak=weak, router=router)


@pytest.fixture(params=["strong", "weak"])
def case(request: pytest.FixtureRequest) -> tuple[str, str, str]:
    """Route, a text that goes there, and the name of the model that answers."""
    return ("strong", HARD, "big") if request.param == "strong" else ("weak", EASY, "small")


@pytest.fixture
def events() -> Iterator[EventLog]:
    log = EventLog()
    root = get_dispatcher()
    root.add_event_handler(log)
    yield log
    root.event_handlers[:] = [handler for handler in root.event_handlers if handler is not log]
