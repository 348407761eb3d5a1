"""LangChain's own conformance suite, on a routed pair."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.utils.function_calling import convert_to_openai_tool
from langchain_tests.unit_tests import ChatModelUnitTests

from langchain_router import RoutedChatModel
from prefroute.testing import FixedRouter


class ToolCallingModel(BaseChatModel):
    """A provider as LangChain expects one: tools by keyword, a schema by tool."""

    @property
    def _llm_type(self) -> str:
        return "tool-calling"

    def _generate(self, *_: Any, **__: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=AIMessage("x"))])

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self.bind(tools=[convert_to_openai_tool(one) for one in tools], **kwargs)


# The suite gives every chat model temperature, api_key and the like.
@pytest.mark.filterwarnings("ignore:RoutedChatModel ignores:UserWarning")
class TestStandard(ChatModelUnitTests):
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return RoutedChatModel

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"strong": ToolCallingModel(), "weak": ToolCallingModel(), "router": FixedRouter()}
