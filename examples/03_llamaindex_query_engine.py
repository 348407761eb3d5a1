"""LlamaIndex: a routed LLM in a query engine, and a selector between two engines. Mock models stand for real ones."""

from llama_index.core import Document, MockEmbedding, SummaryIndex
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RouterQueryEngine
from llama_index.core.tools import QueryEngineTool
from llama_index_instrumentation import get_dispatcher

from llamaindex_router import RoutedLLM, RouterSelector, StrongCallRateEventHandler

QUESTIONS = [
    "What is the capital of Australia?",
    "Prove that there are infinitely many primes congruent to 3 modulo 4.",
]

# In production: OpenAI(model=...), Anthropic(model=...): any two LlamaIndex LLMs.
strong, weak = MockLLM(max_tokens=8), MockLLM(max_tokens=8)
rate = StrongCallRateEventHandler()
get_dispatcher().add_event_handler(rate)

# 1. The LLM is routed: the question is scored, not the retrieved text around it.
llm = RoutedLLM(strong=strong, weak=weak)
index = SummaryIndex.from_documents(
    [Document(text="Canberra is the capital of Australia.")], embed_model=MockEmbedding(8)
)
engine = index.as_query_engine(llm=llm)
for question in QUESTIONS:
    engine.query(question)
print(f"routed LLM: strong-call rate {rate.strong_rate:.0%} over {rate.snapshot()['total']} decisions")

# 2. The engine is routed: each query goes to the engine of the strong or of the weak LLM.
tools = [
    QueryEngineTool.from_defaults(index.as_query_engine(llm=strong), name="strong", description="expensive, thorough"),
    QueryEngineTool.from_defaults(index.as_query_engine(llm=weak), name="weak", description="cheap, quick"),
]
router_engine = RouterQueryEngine.from_defaults(
    query_engine_tools=tools, selector=RouterSelector(strong="strong", weak="weak"), llm=llm
)
for question in QUESTIONS:
    metadata = router_engine.query(question).metadata or {}
    print(f"{metadata['selector_result'].reason:55} {question}")
