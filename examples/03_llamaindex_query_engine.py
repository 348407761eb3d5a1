"""LlamaIndex: a query engine over a small index, whose answers are written by the LLM that the question needs.

The router is asked the question, not the text that was found for it. Mock models stand for real ones.
"""

from llama_index.core import Document, MockEmbedding, SummaryIndex
from llama_index.core.llms import MockLLM
from llama_index_instrumentation import get_dispatcher

from llamaindex_router import RoutedLLM, StrongCallRateEventHandler, routing_options
from prefroute import RoutingDecision

DOCUMENTS = [
    "Canberra is the capital of Australia.",
    "Primes congruent to 3 modulo 4 are 3, 7, 11, 19.",
    "Euclid proved that there are infinitely many primes.",
]
EASY = "What is the capital of Australia?"
HARD = "Prove that there are infinitely many primes congruent to 3 modulo 4."

# In production: OpenAI(model=...), Anthropic(model=...): any two LlamaIndex LLMs.
strong, weak = MockLLM(max_tokens=8), MockLLM(max_tokens=8)
decisions: list[RoutingDecision] = []
llm = RoutedLLM(strong=strong, weak=weak, on_route=decisions.append)  # Settings.llm = llm makes it everybody's
rate = StrongCallRateEventHandler()
get_dispatcher().add_event_handler(rate)

# "refine" asks the LLM once for each document; the decision is made once for a question.
index = SummaryIndex.from_documents([Document(text=text) for text in DOCUMENTS], embed_model=MockEmbedding(8))
engine = index.as_query_engine(llm=llm, response_mode="refine")
for question in (EASY, HARD):
    engine.query(question)
    print(f"{decisions[-1].route:6} {decisions[-1].score:.4f} {question}")

# An engine takes no keywords for its LLM. What is asked within this block has a threshold, or a side, of its own.
with routing_options(threshold=0.0):
    engine.query(EASY)
    print(f"{decisions[-1].route:6} with threshold 0")
with routing_options(route="weak"):
    engine.query(HARD)
    print(f"{decisions[-1].route:6} because it was named")

figures = rate.snapshot()
made = figures["calls"]["strong"]["calls"] + figures["calls"]["weak"]["calls"]
print(f"strong-call rate {rate.strong_rate:.0%} over {figures['total']} decisions, {made} calls of an LLM")
