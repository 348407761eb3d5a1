"""LlamaIndex: two ways to route in a RouterQueryEngine, between two engines. Mock models stand for real ones.

RouterSelector chooses the engine by the score of the question, and asks no LLM for that. LLMSingleSelector lets an LLM
read what the engines are for; with a RoutedLLM, the model is picked first, and picks the engine.
"""

from collections.abc import Iterator
from typing import Any

from llama_index.core import Document, MockEmbedding, SummaryIndex, VectorStoreIndex
from llama_index.core.llms import CompletionResponse, CustomLLM, LLMMetadata
from llama_index.core.llms.callbacks import llm_completion_callback
from llama_index.core.query_engine import RouterQueryEngine
from llama_index.core.selectors import LLMSingleSelector
from llama_index.core.tools import QueryEngineTool

from llamaindex_router import RoutedLLM, RouterSelector


class Fake(CustomLLM):
    """In production OpenAI(model=...), Anthropic(model=...): any two LlamaIndex LLMs."""

    name: str

    @property
    def metadata(self) -> LLMMetadata:  # noqa: D102 - as for every LLM
        return LLMMetadata(model_name=self.name)

    @llm_completion_callback()
    def complete(self, prompt: str, *_: Any, **__: Any) -> CompletionResponse:  # noqa: D102 - as for every LLM
        choice = f'[{{"choice": 1, "reason": "says the {self.name} model"}}]'
        return CompletionResponse(text=choice if "choices" in prompt else f"({self.name})")

    @llm_completion_callback()
    def stream_complete(self, prompt: str, *_: Any, **__: Any) -> Iterator[CompletionResponse]:  # noqa: D102 - as above
        yield self.complete(prompt)


strong, weak = Fake(name="strong"), Fake(name="weak")
documents = [Document(text=text) for text in ("Refunds take 14 days.", "Notice is given a month before.")]
everything = SummaryIndex.from_documents(documents)
nearest = VectorStoreIndex.from_documents(documents, embed_model=MockEmbedding(8))
THOROUGH, QUICK = "reads everything, for questions that compare or derive", "looks one fact up"
tools = [
    QueryEngineTool.from_defaults(everything.as_query_engine(llm=strong), name="thorough", description=THOROUGH),
    QueryEngineTool.from_defaults(nearest.as_query_engine(llm=weak), name="quick", description=QUICK),
]
routed = RoutedLLM(strong=strong, weak=weak)
by_score = RouterSelector(strong="thorough", weak="quick")
# The engine wants an LLM even where its selector asks none.
for selector in (by_score, LLMSingleSelector.from_defaults(llm=routed)):
    engine = RouterQueryEngine.from_defaults(query_engine_tools=tools, selector=selector, llm=routed)
    print(type(selector).__name__)
    for question in ("How long do refunds take?", "Compare the deadlines, and derive which one binds."):
        response = engine.query(question)
        selected = (response.metadata or {})["selector_result"]
        print(f"  {tools[selected.ind].metadata.name:8} {response!s:8} {selected.reason:54} {question}")
print(f"strong: {by_score.stats.strong_rate:.0%} by the selector, {routed.stats.strong_rate:.0%} by the LLM")
