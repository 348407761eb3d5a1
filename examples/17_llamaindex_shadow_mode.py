"""Shadow mode for LlamaIndex: the strong LLM answers everything, and what routing would have done is recorded.

So thresholds can be tried on live questions before any is answered by the weak LLM. Mock models stand for real ones.
"""

from llama_index.core import Document, MockEmbedding, Settings, SummaryIndex
from llama_index.core.llms import MockLLM
from llama_index_instrumentation import get_dispatcher

from llamaindex_router import RoutedLLM, StrongCallRateEventHandler
from prefroute import RoutingDecision, load_router

TOPICS = ("rain", "bread", "tax law", "jazz", "TLS handshakes", "tea", "protein folding", "chess", "roses", "DNA")
TRAFFIC = [f"Explain {topic} to {person}." for topic in TOPICS for person in ("me", "a child", "my boss")]

seen: list[RoutingDecision] = []
report = StrongCallRateEventHandler()
get_dispatcher().add_event_handler(report)
router = load_router()
strong, weak = MockLLM(max_tokens=8), MockLLM(max_tokens=8)
Settings.llm = RoutedLLM(strong=strong, weak=weak, router=router, shadow="strong", on_route=seen.append)
Settings.embed_model = MockEmbedding(8)

engine = SummaryIndex.from_documents([Document(text="An encyclopedia.")]).as_query_engine()
for question in TRAFFIC:
    engine.query(question)
figures = report.snapshot()
print(f"{figures['strong_rate']:.0%} of {figures['total']} questions would have gone to the strong LLM")
print(f"calls: {figures['calls']['strong']['calls']} strong, {figures['calls']['weak']['calls']} weak")
print("one answer:", Settings.llm.complete(TRAFFIC[0]).additional_kwargs["routing"])

# What other thresholds would have done, by the scores that were seen.
scores = sorted(decision.score for decision in seen if decision.score is not None)
for threshold in (0.62, 0.63, 0.64, 0.65):
    print(f"threshold {threshold}: {sum(score >= threshold for score in scores) / len(scores):.0%} strong")
# Calibrated with the questions, the router takes a rate; better with some hundreds of your own.
found = router.calibrate(TRAFFIC, 0.3)
print(
    f"strong_rate=0.3: threshold {found.threshold:.4f}; of the next {len(TRAFFIC)} {found.low:.0%} to {found.high:.0%}"
)
live = RoutedLLM(strong=strong, weak=weak, router=router, strong_rate=0.3)  # shadow left out
print(live.complete(TRAFFIC[0]).additional_kwargs["routing"])
