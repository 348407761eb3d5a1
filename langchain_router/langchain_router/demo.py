"""The LangChain part of `prefroute demo`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda, RunnableParallel

from langchain_router._messages import ROUTING_KEY
from langchain_router._named import named
from langchain_router.callbacks import StrongCallRateHandler
from langchain_router.chat_model import RoutedChatModel
from prefroute.demo import AdapterRun
from prefroute.types import RoutingDecision

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prefroute.router import Router
    from prefroute.types import Route


class OfflineChatModel(BaseChatModel):
    """Stands in for a model that needs a key: every answer says so and repeats the question.

    Attributes:
        side: Whose place it takes.
    """

    side: str

    @property
    def _llm_type(self) -> str:
        return "offline-stand-in"

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        text = f"[offline stand-in for the {self.side} model] You asked: {messages[-1].text}"
        return ChatResult(generations=[ChatGeneration(message=AIMessage(content=text))])


IN_EARNEST = (
    "pip install langchain-openai",
    "from langchain_openai import ChatOpenAI",
    "from langchain_router import RoutedChatModel, StrongCallRateHandler",
    "rate = StrongCallRateHandler()",
    'chat = RoutedChatModel(strong=ChatOpenAI(model="STRONG"), weak=ChatOpenAI(model="WEAK"))',
    'print(chat.invoke("Why is the sky blue?", config={"callbacks": [rate]}).text)',
    'print(f"strong-call rate: {rate.strong_rate:.0%}")',
)


def run(prompts: Sequence[str], router: Router, *, strong: str | None = None, weak: str | None = None) -> AdapterRun:
    """Route prompts through a LangChain chain: a prompt template, a routed model, an output parser.

    Args:
        prompts: What to ask.
        router: Decides, by its own threshold.
        strong: A model as `init_chat_model` names it, such as `openai:gpt-5`; None for an offline stand-in.
        weak: Likewise.

    Returns:
        One decision and one answer a prompt, and the strong-call rate as a callback handler counted it.

    Raises:
        MissingExtraError: A model was named and the packages for it are not installed.
        ConfigurationError: LangChain makes no model of that name.
    """
    rate = StrongCallRateHandler()
    model = RoutedChatModel(strong=_model("strong", strong), weak=_model("weak", weak), router=router)
    chain = (
        ChatPromptTemplate.from_messages([("system", "Answer in one sentence."), ("human", "{question}")])
        | model
        | RunnableParallel(answer=StrOutputParser(), routing=RunnableLambda(_routing))
    )
    results = chain.batch([{"question": prompt} for prompt in prompts], config={"callbacks": [rate]})
    return AdapterRun(
        framework="LangChain (ChatPromptTemplate | RoutedChatModel | StrOutputParser)",
        decisions=[RoutingDecision.from_dict(result["routing"]) for result in results],
        answers=[result["answer"] for result in results],
        in_earnest=IN_EARNEST,
        strong_rate=rate.strong_rate,
    )


def _routing(message: AIMessage) -> dict[str, Any]:
    routing: dict[str, Any] = message.response_metadata[ROUTING_KEY]
    return routing


def _model(side: Route, spec: str | None) -> BaseChatModel:
    return OfflineChatModel(side=side) if spec is None else named(spec)
