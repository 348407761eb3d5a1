"""LangChain's own unit suite, on a pair of a real provider's clients."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from langchain_openai import ChatOpenAI
from langchain_tests.unit_tests import ChatModelUnitTests

from langchain_router import RoutedChatModel
from prefroute.testing import FixedRouter

if TYPE_CHECKING:
    from langchain_core.language_models import BaseChatModel


# The suite gives every chat model temperature, api_key and the like.
@pytest.mark.filterwarnings("ignore:RoutedChatModel ignores:UserWarning")
class TestRouted(ChatModelUnitTests):
    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return RoutedChatModel

    @property
    def chat_model_params(self) -> dict[str, Any]:
        strong, weak = (ChatOpenAI(model=name, api_key="test") for name in ("strong", "weak"))
        return {"strong": strong, "weak": weak, "router": FixedRouter()}

    @property
    def model_override_value(self) -> str:
        return "another"
