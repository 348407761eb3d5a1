"""Chat models that record how they were called, and a handler that records runs."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
import pytest_socket
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import PrivateAttr

from langchain_router import RoutedChatModel
from prefroute.testing import FixedRouter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from langchain_core.runnables import RunnableBinding

SCORES = {"hard": 0.9, "easy": 0.1}
USAGE = {"input_tokens": 16, "output_tokens": 8, "total_tokens": 24}


@dataclass
class Seen:
    messages: list[BaseMessage]
    stop: list[str] | None
    kwargs: dict[str, Any]
    asynchronous: bool
    thread: str = field(default_factory=lambda: threading.current_thread().name)


class FakeChat(BaseChatModel):
    """Answers with its name; fails `failures` times first."""

    model_name: str
    failures: int = 0
    error: Exception | None = None
    answer: Any = None
    _seen: list[Seen] = PrivateAttr(default_factory=list)
    _closed: list[str] = PrivateAttr(default_factory=list)

    @property
    def seen(self) -> list[Seen]:
        return self._seen

    @property
    def closed(self) -> list[str]:
        return self._closed

    @property
    def _llm_type(self) -> str:
        return "fake"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model_name": self.model_name}

    def _look(self, messages: list[BaseMessage], stop: Any, kwargs: dict[str, Any], *, asynchronous: bool) -> None:
        self._seen.append(Seen(list(messages), stop, kwargs, asynchronous))
        if len(self._seen) <= self.failures:
            raise self.error or ConnectionError(f"{self.model_name} is down")

    def _result(self) -> ChatResult:
        message = self.answer or AIMessage(self.model_name, usage_metadata=USAGE)
        message = message.model_copy(update={"response_metadata": {"model_name": self.model_name}})
        return ChatResult(generations=[ChatGeneration(message=message)], llm_output={"model_name": self.model_name})

    def _generate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        self._look(messages, stop, kwargs, asynchronous=False)
        return self._result()

    async def _agenerate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> ChatResult:
        self._look(messages, stop, kwargs, asynchronous=True)
        return self._result()

    def _combine_llm_outputs(self, outputs: list[Any], /) -> dict[str, Any]:
        return {"model_name": self.model_name, "calls": len(outputs)}

    def _chunks(self) -> list[ChatGenerationChunk]:
        if self.answer is not None:
            calls = [{**call, "args": json.dumps(call["args"]), "index": 0} for call in self.answer.tool_calls]
            return [ChatGenerationChunk(message=AIMessageChunk("", tool_call_chunks=calls))]
        first = AIMessageChunk(self.model_name, response_metadata={"model_name": self.model_name})
        rest = [AIMessageChunk(" says"), AIMessageChunk(" hi", usage_metadata=USAGE)]
        return [ChatGenerationChunk(message=message) for message in (first, *rest)]

    def _stream(self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any) -> Iterator[Any]:
        self._look(messages, stop, kwargs, asynchronous=False)
        try:
            yield from self._chunks()
        finally:
            self._closed.append("sync")

    async def _astream(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        self._look(messages, stop, kwargs, asynchronous=True)
        try:
            for chunk in self._chunks():
                yield chunk
        finally:
            self._closed.append("async")

    def bind_tools(self, tools: Any, *, tool_choice: Any = None, **kwargs: Any) -> RunnableBinding[Any, Any]:
        formatted = [{**convert_to_openai_tool(tool), "for": self.model_name} for tool in tools]
        choice = {} if tool_choice is None else {"tool_choice": tool_choice}
        return self.bind(tools=formatted, **choice, **kwargs)


class RunRecorder(BaseCallbackHandler):
    """Every run that started, with its kind and metadata, and the usage of those that ended."""

    run_inline = True

    def __init__(self) -> None:
        self.started: list[tuple[str, dict[str, Any]]] = []
        self.tags: list[list[str]] = []
        self.ids: list[Any] = []
        self.usage = 0
        self.ended = 0
        self.errors: list[BaseException] = []

    @property
    def models(self) -> list[dict[str, Any]]:
        return [metadata for kind, metadata in self.started if kind == "model"]

    def on_chat_model_start(self, *_: Any, metadata: Any = None, tags: Any = None, run_id: Any, **__: Any) -> None:
        self.started.append(("model", dict(metadata or {})))
        self.tags.append(list(tags or ()))
        self.ids.append(run_id)

    def on_chain_start(self, *_: Any, metadata: Any = None, **__: Any) -> None:
        self.started.append(("chain", dict(metadata or {})))

    def on_llm_end(self, response: Any, **_: Any) -> None:
        self.ended += 1
        usage = response.generations[0][0].message.usage_metadata
        self.usage += usage["total_tokens"] if usage else 0

    def on_llm_error(self, error: BaseException, **_: Any) -> None:
        self.errors.append(error)


@dataclass
class Setup:
    model: RoutedChatModel
    strong: FakeChat
    weak: FakeChat
    router: Any


@pytest.fixture(autouse=True)
def _no_network() -> Iterator[None]:
    # asyncio's own wake-up channel is a Unix socket pair.
    pytest_socket.disable_socket(allow_unix_socket=True)
    yield
    pytest_socket.enable_socket()


@pytest.fixture
def fake() -> type[FakeChat]:
    return FakeChat


@pytest.fixture
def recorder() -> RunRecorder:
    return RunRecorder()


@pytest.fixture
def setup() -> Callable[..., Setup]:
    """A routed pair: "hard" scores 0.9, "easy" 0.1, anything else 0.5; the threshold is 0.5."""

    def make(*, router: Any = None, strong: Any = None, weak: Any = None, **settings: Any) -> Setup:
        router = FixedRouter(0.5, SCORES) if router is None else router
        strong = FakeChat(model_name="strong") if strong is None else strong
        weak = FakeChat(model_name="weak") if weak is None else weak
        return Setup(RoutedChatModel(strong=strong, weak=weak, router=router, **settings), strong, weak, router)

    return make
