"""What routed calls used and cost: tokens and dollars a side, the rate by tag, and what all strong would have cost.

The fakes report tokens and a name, as providers do; a handler that is given prices by these names adds up.
"""

from langchain_core.language_models import FakeMessagesListChatModel
from langchain_core.messages import AIMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate

from langchain_router import RoutedChatModel, StrongCallRateHandler
from prefroute.costs import Price

# US dollars for a million tokens, by the names that answers give; Prices.read("prices.json") reads them from a file.
PRICES = {"big-1": Price(input=2.5, output=10.0), "small-1": Price(input=0.15, output=0.6)}


def fake(name: str, output_tokens: int) -> FakeMessagesListChatModel:
    """A model that says so much about each question."""
    usage = UsageMetadata(input_tokens=95, output_tokens=output_tokens, total_tokens=95 + output_tokens)
    answer = AIMessage(f"({name})", usage_metadata=usage, response_metadata={"model_name": name})
    return FakeMessagesListChatModel(responses=[answer])


model = RoutedChatModel(strong=fake("big-1", 300), weak=fake("small-1", 200))
chain = ChatPromptTemplate.from_template("{question}") | model | StrOutputParser()
report = StrongCallRateHandler(prices=PRICES)
TRAFFIC = {
    "support": ["What is the capital of Australia?", "When do I get my refund?", "How long do refunds take?"],
    "research": ["Derive the Black-Scholes equation from delta hedging.", "Prove that 2 is irrational.", "Hi!"],
}
for tag, questions in TRAFFIC.items():
    tagged = chain.with_config(tags=[tag], callbacks=[report])
    tagged.batch([{"question": question} for question in questions])

figures = report.snapshot()
print(f"{figures['total']} decisions, {figures['strong_rate']:.0%} strong")
for tag, group in figures["by_tag"].items():
    print(f"  {tag:9} {group['total']} decisions, {group['strong_rate']:.0%} strong")
spent = 0.0
for side in ("strong", "weak"):
    used = figures["calls"][side]
    spent += used["cost"] or 0.0
    tokens = f"{used['input_tokens']} tokens in, {used['output_tokens']} out"
    print(f"{side:6} {used['calls']} calls, {tokens}, ${used['cost']:.6f}, {used['unpriced']} without a price")
# An estimate: it gives the strong model the weak one's number of tokens, and its answers may be longer.
weak = figures["calls"]["weak"]
instead = PRICES["big-1"].of(weak["input_tokens"], weak["output_tokens"])
saved = (instead or 0.0) - (weak["cost"] or 0.0)
print(f"all strong: about ${spent + saved:.6f}; saved about ${saved:.6f}, {saved / (spent + saved):.0%}")
