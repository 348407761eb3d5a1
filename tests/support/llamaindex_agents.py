"""What tests of LlamaIndex's agents and programs share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from llama_index.core.llms import CompletionResponse, CustomLLM, LLMMetadata
from llama_index.core.llms.callbacks import llm_completion_callback
from llama_index.core.tools import FunctionTool
from pydantic import BaseModel

if TYPE_CHECKING:
    from collections.abc import Iterator

AGENT_WARNINGS = pytest.mark.filterwarnings(
    # The framework's workflows look at every attribute of an agent, pydantic's deprecated ones included.
    "ignore:is_running called from within a step:DeprecationWarning",
    "ignore:The `__fields:pydantic.PydanticDeprecatedSince20",
    "ignore:The `__fields_set:pydantic.PydanticDeprecatedSince20",
    "ignore:The `model_:pydantic.PydanticDeprecatedSince211",
    "ignore:Accessing the 'model_:pydantic.PydanticDeprecatedSince211",
)


class Pair(BaseModel):
    """Two numbers."""

    a: int
    b: int


class Scripted(CustomLLM):
    """A completion model without tools that says its lines one after the other."""

    lines: list[str]

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name="scripted")

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return CompletionResponse(text=self.lines.pop(0))

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        def gen() -> Iterator[CompletionResponse]:
            line = self.lines.pop(0)
            yield CompletionResponse(text=line, delta=line)

        return gen()


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


TOOLS = [FunctionTool.from_defaults(add)]
