"""A LangChain chain whose model is chosen for each prompt. The two fake models stand for real ones."""

import asyncio

from langchain_core.language_models import FakeListChatModel
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate

from langchain_router import RoutedChatModel, StrongCallRateHandler

# In production: ChatOpenAI(model=...), ChatAnthropic(model=...), init_chat_model(...): any two chat models.
strong = FakeListChatModel(responses=["(the strong model's answer)"])
weak = FakeListChatModel(responses=["(the weak model's answer)"])

chat = RoutedChatModel(strong=strong, weak=weak)
# Instructions go into a system message: what is scored is the human one.
prompt = ChatPromptTemplate.from_messages([("system", "Answer in one line."), ("human", "{question}")])
chain = prompt | chat | StrOutputParser()
questions = [
    {"question": "What is the capital of Australia?"},
    {"question": "Prove that there are infinitely many primes congruent to 3 modulo 4."},
]

rate = StrongCallRateHandler()
for question, answer in zip(questions, chain.batch(questions, config={"callbacks": [rate]}), strict=True):
    print(f"{answer:28} {question['question']}")
print(f"strong-call rate: {rate.strong_rate:.0%}\n")

# One call may have its own threshold, through the config of any chain or graph around the model, or as a keyword.
all_strong = chain.with_config(configurable={"router_threshold": 0.0})
print("all strong:", all_strong.invoke(questions[0]))
print("all weak:  ", chat.invoke("Prove it.", threshold=1.1).text)

# The decision comes with the answer.
print("decision:  ", chat.invoke("What is 2 + 2?").response_metadata["routing"])


async def stream() -> None:
    """Streaming works as with any chat model."""
    async for chunk in chain.astream(questions[1]):
        print(chunk, end="")
    print()


asyncio.run(stream())
