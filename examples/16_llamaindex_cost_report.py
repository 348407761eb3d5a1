"""What routed LlamaIndex calls used and cost: tokens and dollars by model, and what all strong would have cost.

The fakes report tokens and a name in `raw`, as providers' LLMs do; a handler that is given prices by name adds up.
"""

from collections.abc import Iterator
from typing import Any

from llama_index.core import Document, MockEmbedding, SummaryIndex
from llama_index.core.llms import CompletionResponse, CustomLLM, LLMMetadata
from llama_index.core.llms.callbacks import llm_completion_callback
from llama_index_instrumentation import get_dispatcher

from llamaindex_router import RoutedLLM, StrongCallRateEventHandler
from prefroute.costs import Price

# US dollars for a million tokens, by the names that answers give; Prices.read("prices.json") reads them from a file.
PRICES = {"big-1": Price(input=2.5, output=10.0), "small-1": Price(input=0.15, output=0.6)}


class Fake(CustomLLM):
    """In production OpenAI(...), whose streams tell tokens only if asked: see docs/llamaindex.md."""

    model: str
    tokens: int

    @property
    def metadata(self) -> LLMMetadata:  # noqa: D102 - as for every LLM
        return LLMMetadata(model_name=self.model)

    @llm_completion_callback()
    def complete(self, prompt: str, *_: Any, **__: Any) -> CompletionResponse:  # noqa: D102 - as for every LLM
        usage = {"prompt_tokens": len(prompt) // 4, "completion_tokens": self.tokens}
        return CompletionResponse(text=f"({self.model})", raw={"model": self.model, "usage": usage})

    @llm_completion_callback()
    def stream_complete(self, prompt: str, *_: Any, **__: Any) -> Iterator[CompletionResponse]:  # noqa: D102 - as above
        yield self.complete(prompt)


report = StrongCallRateEventHandler(prices=PRICES)
get_dispatcher().add_event_handler(report)
llm = RoutedLLM(strong=Fake(model="big-1", tokens=300), weak=Fake(model="small-1", tokens=200))
documents = [Document(text="Refunds take 14 days. " * 30), Document(text="Notice is given a month before. " * 30)]
index = SummaryIndex.from_documents(documents, embed_model=MockEmbedding(8))
engine = index.as_query_engine(llm, response_mode="refine")
for question in ("How long do refunds take?", "Hi!", "Derive which of the deadlines binds, and prove it."):
    engine.query(question)

figures = report.snapshot()
print(f"{figures['total']} decisions, {report.strong_rate:.0%} strong")
for name, used in figures["calls"]["by_model"].items():  # or ["strong"] and ["weak"], whatever the models are called
    tokens = f"{used['input_tokens']} tokens in, {used['output_tokens']} out"
    print(f"{name:8} {used['calls']} calls, {tokens}, ${used['cost'] or 0:.6f}, {used['unpriced']} without a price")
# An estimate: it gives the strong model the weak one's number of tokens, and its answers may be longer.
weak, spent = figures["calls"]["weak"], sum(figures["calls"][side]["cost"] or 0 for side in ("strong", "weak"))
saved = (PRICES["big-1"].of(weak["input_tokens"], weak["output_tokens"]) or 0) - (weak["cost"] or 0)
print(f"spent ${spent:.6f}; all strong: about ${spent + saved:.6f}; saved about {saved / (spent + saved):.0%}")
