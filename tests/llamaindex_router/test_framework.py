"""The routed LLM where applications put it: synthesizers, query engines, chat engines, Settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from llama_index.core import MockEmbedding, Settings, SummaryIndex, VectorStoreIndex
from llama_index.core.callbacks import CallbackManager
from llama_index.core.chat_engine import SimpleChatEngine
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.node_parser import TokenTextSplitter
from llama_index.core.response_synthesizers import get_response_synthesizer
from llama_index.core.schema import TextNode
from llama_index.core.selectors import LLMSingleSelector

from llamaindex_router import StrongCallRateHandler

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import DialectLLM

    from llamaindex_router import RoutedLLM
    from prefroute.testing import FixedRouter

NODES = [TextNode(text=f"Passage {n}: " + "the sky is blue and the sea is wide. " * 40) for n in range(6)]


@pytest.fixture
def settings() -> Iterator[object]:
    saved = dict(vars(Settings))
    Settings.transformations = [TokenTextSplitter()]
    yield Settings
    vars(Settings).clear()
    vars(Settings).update(saved)


@pytest.mark.parametrize("mode", ["compact", "refine", "tree_summarize", "simple_summarize", "accumulate"])
async def test_synthesizers_route_on_the_question(
    routed: RoutedLLM, router: FixedRouter, case: tuple[str, str, str], mode: str
) -> None:
    _, text, name = case
    synthesizer = get_response_synthesizer(response_mode=mode, llm=routed, callback_manager=CallbackManager())
    nodes = [node.text for node in NODES]
    assert name in str(synthesizer.get_response(text, nodes))
    assert name in str(await synthesizer.aget_response(text, nodes))
    assert set(router.prompts) == {text}
    assert routed.stats.total == len(router.prompts)


async def test_query_engines(routed: RoutedLLM, router: FixedRouter, settings: Any, case: tuple[str, str, str]) -> None:
    route, text, name = case
    handler = StrongCallRateHandler()
    settings.callback_manager = CallbackManager([handler])
    settings.llm = routed
    summary = SummaryIndex(NODES).as_query_engine()
    vector = VectorStoreIndex(NODES, embed_model=MockEmbedding(8)).as_query_engine(streaming=True)
    assert name in str(summary.query(text))
    assert "".join(vector.query(text).response_gen) == name
    assert name in str(await summary.aquery(text))
    assert set(router.prompts) == {text}
    assert handler.strong_rate == (1.0 if route == "strong" else 0.0)
    assert handler.snapshot()["total"] == routed.stats.total


async def test_chat_engine(routed: RoutedLLM, router: FixedRouter, easy: str, hard: str) -> None:
    # The default memory is an SQLite connection that is never closed.
    memory = ChatMemoryBuffer.from_defaults(token_limit=3000)
    chat = SimpleChatEngine.from_defaults(llm=routed, system_prompt="be brief", memory=memory)
    assert chat.chat(hard).response == "big"
    assert (await chat.achat(easy)).response == "small"
    assert "".join(chat.stream_chat(hard).response_gen) == "big"
    assert router.prompts == [hard, easy, hard]
    # What a memory keeps, and a provider is sent again, says nothing of routing.
    assert all(message.additional_kwargs == {} for message in chat.chat_history)


def test_llm_selector_is_routed_on_the_query(
    routed: RoutedLLM, router: FixedRouter, strong: DialectLLM, hard: str
) -> None:
    strong.name = '[{"choice": 2, "reason": "because"}]'
    result = LLMSingleSelector.from_defaults(llm=routed).select(["a", "b"], hard)
    assert result.ind == 1
    assert router.prompts == [hard]
