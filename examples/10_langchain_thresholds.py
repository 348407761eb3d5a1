"""Who decides how many calls go strong: each request, a calibrated rate, or nobody yet (shadow mode).

The bundled router scores; the two models are fakes. Calibrate with some hundreds of your own prompts, not with forty.
"""

from langchain_core.language_models import FakeListChatModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate

from langchain_router import RoutedChatModel
from prefroute import load_router

TOPICS = ("rain", "bread", "tax law", "jazz", "TLS handshakes", "tea", "protein folding", "chess", "roses", "DNA")
PEOPLE = ("me", "a child", "an engineer", "my boss")
traffic = [f"Explain {topic} to {person}." for topic in TOPICS for person in PEOPLE]
strong, weak = FakeListChatModel(responses=["(strong)"]), FakeListChatModel(responses=["(weak)"])
router = load_router()
found = router.calibrate(traffic, 0.3)
print(f"threshold {found.threshold:.4f}: of the next {len(traffic)}, {found.low:.0%} to {found.high:.0%} strong\n")

# One request brings a threshold, a rate or a side. A chain passes keywords to its first step only: there, use config.
chat = RoutedChatModel(strong=strong, weak=weak, router=router)
question = "Explain tea to me."
print("nothing given    ", chat.invoke(question).text)
print("threshold=0.6    ", chat.invoke(question, threshold=0.6).text)
print("strong_rate=0.9  ", chat.invoke(question, strong_rate=0.9).text)
print('route="strong"   ', chat.invoke(question, route="strong").text)
chain = ChatPromptTemplate.from_template("{question}") | chat | StrOutputParser()
answer = chain.invoke({"question": question}, {"configurable": {"router_strong_rate": 0.9}})
print("config of a chain", answer, "\n")

# A rate for all requests. It becomes a threshold when the model is made; statistics start anew.
for rate in (0.1, 0.3, 0.9):
    rated = RoutedChatModel(strong=strong, weak=weak, router=router, strong_rate=rate)
    rated.batch([*traffic])
    print(f"strong_rate={rate}: threshold {rated.threshold:.4f}, {rated.stats.strong_rate:.0%} of the sample strong")

# Shadow mode: the strong model answers everything, and what routing would have done is recorded.
watched = RoutedChatModel(strong=strong, weak=weak, router=router, strong_rate=0.3, shadow="strong")
answered = watched.batch([*traffic])
print(f"\nshadow: {watched.stats.strong_rate:.0%} would have gone strong")
for message in answered[:2]:
    print(message.text, message.response_metadata["routing"])
