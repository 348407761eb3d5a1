"""A RAG chain that is routed by the question alone, and not by the documents that were found for it.

The router reads the text of the last human message. Where the documents stand in that message, it scores them too; two
ways to keep them out are shown. Embeddings and models are fakes: which documents are found means nothing here.
"""

from collections.abc import Sequence

from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.language_models import FakeListChatModel
from langchain_core.messages import BaseMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnablePassthrough
from langchain_core.vectorstores import InMemoryVectorStore

from langchain_router import RoutedChatModel
from prefroute import load_router

DOCUMENTS = [
    "Refunds are paid within 14 days to the card that was charged.",
    "A contract ends with the month after the one in which notice is given.",
    "Prove your identity with a passport or an identity card.",
]
QUESTIONS = ["When do I get my refund?", "Compare the deadlines for refunds and notice, and derive which one binds."]

store = InMemoryVectorStore(DeterministicFakeEmbedding(size=32))
store.add_texts(DOCUMENTS)
retriever = store.as_retriever(search_kwargs={"k": 2}) | (lambda found: "\n".join(one.page_content for one in found))

# The documents in the system message: what is left in the human one is the question, and nothing else has to be said.
apart = ChatPromptTemplate.from_messages([("system", "Answer from this:\n{context}"), ("human", "{question}")])
# The documents in the human message, as many templates have it.
together = ChatPromptTemplate.from_template("{question}\n\n<context>\n{context}\n</context>")


def question_of(messages: Sequence[BaseMessage]) -> str:
    """What comes before the documents; were this to fail, the call would go to the strong model."""
    return str(messages[-1].text).partition("\n\n<context>")[0]


router = load_router()
strong, weak = FakeListChatModel(responses=["(strong)"]), FakeListChatModel(responses=["(weak)"])
plain = RoutedChatModel(strong=strong, weak=weak, router=router)
told = RoutedChatModel(strong=strong, weak=weak, router=router, text_fn=question_of)
chains = {
    "in the system message": apart | plain,
    "in the human message": together | plain,
    "the same, with text_fn": together | told,
}
for question in QUESTIONS:
    print(f"{question}\n  {'the question alone':24} score {router.route(question).score:.4f}")
    for name, answer in chains.items():
        chain = {"context": retriever, "question": RunnablePassthrough()} | answer
        message = chain.invoke(question)
        routing = message.response_metadata["routing"]
        print(f"  {name:24} score {routing['score']:.4f}  {message.text}")
