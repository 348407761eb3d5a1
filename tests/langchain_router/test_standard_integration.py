"""LangChain's own integration suite: providers on the loopback interface, and routed pairs of their clients."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from langchain_anthropic import ChatAnthropic
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests
from loopback import AnthropicServer, OpenAIServer, only_loopback

from langchain_router import RoutedChatModel
from prefroute.inputs import as_prompts
from prefroute.router import Router
from prefroute.testing import FixedRouter

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from langchain_core.language_models import BaseChatModel
    from numpy.typing import NDArray

OVERRIDE = "another"


class HashRouter(Router):
    """About half of all texts score above a half, always the same half."""

    threshold = 0.5

    def win_probability(self, prompts: Sequence[str]) -> NDArray[np.float64]:
        return np.array([hashlib.sha512(text.encode()).digest()[0] / 255 for text in as_prompts(prompts)])


@pytest.fixture(autouse=True)
def _no_network() -> Iterator[None]:
    with only_loopback():
        yield


@pytest.fixture(scope="module")
def openai_server() -> Iterator[OpenAIServer]:
    with OpenAIServer() as server:
        yield server


@pytest.fixture(scope="module")
def anthropic_server() -> Iterator[AnthropicServer]:
    with AnthropicServer() as server:
        yield server


# Warnings of the clients themselves, the last for JSON mode, which ChatAnthropic replaces by a tool.
@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings:UserWarning")
@pytest.mark.filterwarnings("ignore:Received a Pydantic BaseModel V1 schema:UserWarning")
@pytest.mark.filterwarnings("ignore:Unrecognized structured output method 'json_mode':UserWarning")
class Suite(ChatModelIntegrationTests):
    """What all runs of the suite have in common; `models` are those that a request may name."""

    chat_model_class: type[BaseChatModel] = RoutedChatModel
    models: tuple[str, ...] = ("strong", "weak")

    @pytest.fixture(autouse=True)
    def _servers(self, openai_server: OpenAIServer, anthropic_server: AnthropicServer) -> Iterator[None]:
        self.servers = (openai_server, anthropic_server)
        before = [len(server.requests) for server in self.servers]
        yield
        for server, start in zip(self.servers, before, strict=True):
            assert {body["model"] for body in server.requests[start:]} <= {*self.models, OVERRIDE}

    @property
    def model_override_value(self) -> str:
        return OVERRIDE

    @property
    def supports_json_mode(self) -> bool:
        return True

    def openai_params(self, model: str) -> dict[str, Any]:
        # With a base_url of one's own ChatOpenAI does not ask for usage unless it is told to.
        return {"model": model, "base_url": self.servers[0].base_url, "api_key": "test", "stream_usage": True}

    def anthropic_params(self, model: str) -> dict[str, Any]:
        return {"model": model, "base_url": self.servers[1].base_url, "api_key": "test"}


class TestOpenAI(Suite):
    """The baseline: what passes here is to pass below."""

    chat_model_class = ChatOpenAI

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return self.openai_params("strong")


class TestAnthropic(Suite):
    chat_model_class = ChatAnthropic

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return self.anthropic_params("strong")


# Some tests of the suite give `stop` to the constructor, which is for the models of a pair.
@pytest.mark.filterwarnings("ignore:RoutedChatModel ignores:UserWarning")
class RoutedSuite(Suite):
    router: Router = FixedRouter(0.5)
    threshold = 0.5

    @property
    def chat_model_params(self) -> dict[str, Any]:
        strong, weak = self.pair()
        return {"strong": strong, "weak": weak, "router": self.router, "threshold": self.threshold}

    def pair(self) -> tuple[BaseChatModel, BaseChatModel]:
        return self.openai("strong"), self.openai("weak")

    def openai(self, model: str) -> ChatOpenAI:
        return ChatOpenAI(**self.openai_params(model))

    def anthropic(self, model: str) -> ChatAnthropic:
        return ChatAnthropic(**self.anthropic_params(model))


class TestAllStrong(RoutedSuite):
    threshold = 0.0
    models = ("strong",)


class TestAllWeak(RoutedSuite):
    threshold = 1.1
    models = ("weak",)


class TestMixed(RoutedSuite):
    router = HashRouter()


class TestMixedProviders(TestMixed):
    def pair(self) -> tuple[BaseChatModel, BaseChatModel]:
        return self.openai("strong"), self.anthropic("weak")


class TestMixedProvidersTurnedRound(TestMixedProviders):
    """Each test's prompt goes to the other provider than above."""

    def pair(self) -> tuple[BaseChatModel, BaseChatModel]:
        return self.anthropic("strong"), self.openai("weak")


@pytest.mark.parametrize(
    "prompts", [("Hello", "Hey"), ("Tell me a joke about cats.", "What is the weather in San Francisco, CA?")]
)
def test_prompts_of_the_suite_go_to_both_models_of_a_mixed_pair(prompts: tuple[str, str]) -> None:
    assert sorted(HashRouter().win_probability(prompts) >= HashRouter.threshold) == [False, True]
