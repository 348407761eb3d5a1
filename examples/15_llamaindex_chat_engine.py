"""LlamaIndex chat engines: each thing that the person says is scored by itself, or the conversation keeps its model.

The router is asked neither the history nor what was retrieved. Mock models stand for real ones.
"""

from collections.abc import Iterator
from typing import Any

from llama_index.core import Document, MockEmbedding, SummaryIndex
from llama_index.core.chat_engine import SimpleChatEngine
from llama_index.core.chat_engine.types import ChatMode
from llama_index.core.llms import CompletionResponse, CustomLLM, LLMMetadata
from llama_index.core.llms.callbacks import llm_completion_callback

from llamaindex_router import RoutedLLM, routing_options


class Fake(CustomLLM):
    """In production OpenAI(model=...), Anthropic(model=...): any two LlamaIndex LLMs."""

    name: str

    @property
    def metadata(self) -> LLMMetadata:  # noqa: D102 - as for every LLM
        return LLMMetadata(model_name=self.name)

    @llm_completion_callback()
    def complete(self, *_: Any, **__: Any) -> CompletionResponse:  # noqa: D102 - as for every LLM
        return CompletionResponse(text=f"({self.name})")

    @llm_completion_callback()
    def stream_complete(self, *_: Any, **__: Any) -> Iterator[CompletionResponse]:  # noqa: D102 - as above
        yield CompletionResponse(text=f"({self.name})", delta=f"({self.name})")


strong, weak = Fake(name="strong"), Fake(name="weak")
SAID = ["Hi!", "Derive the Black-Scholes equation from delta hedging.", "Thanks!"]

# Over documents: a question chooses the model of its answer.
index = SummaryIndex.from_documents([Document(text="A hedge is a row of bushes.")], embed_model=MockEmbedding(8))
engine = index.as_chat_engine(chat_mode=ChatMode.CONTEXT, llm=RoutedLLM(strong=strong, weak=weak))
for said in SAID:
    print(f"{engine.chat(said)!s:9} {said}")
# Where an answer is streamed, it is read within the block: the engine may call the LLM only then.
with routing_options(route="strong"):
    print("".join(engine.stream_chat("Bye!").response_gen), " Bye! (the side was named)\n")

# Without documents, and the model of the first answer stays, for better or worse. The LLM object remembers it.
llm = RoutedLLM(strong=strong, weak=weak, decide="per_conversation")
for begin in (0, 1):
    talk = SimpleChatEngine.from_defaults(llm=llm)
    for said in SAID[begin:]:
        print(f"{talk.chat(said)!s:9} {said}")
    print(llm.stats.snapshot()["by_reason"])
