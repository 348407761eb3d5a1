"""An agent whose model is a RoutedChatModel: each question chooses the model, and its tool loop stays with that model.

Needs prefroute[langchain-agents]. The fakes call the tool once and then answer. Routing is seen in the messages, and
counted by a callback handler.
"""

from typing import Any

from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import tool

from langchain_router import RoutedChatModel, StrongCallRateHandler


class Fake(BaseChatModel):
    """In production any two chat models that take tools: ChatOpenAI(model=...), ChatAnthropic(model=...)."""

    model: str

    @property
    def _llm_type(self) -> str:
        return "fake"

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        call = {"name": "population", "args": {"city": "Lima"}, "id": f"call_{len(messages)}"}
        message = AIMessage("", tool_calls=[call])
        if isinstance(messages[-1], ToolMessage):
            message = AIMessage(f"{messages[-1].text}, says the {self.model} model.")
        return ChatResult(generations=[ChatGeneration(message=message)])

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:  # noqa: D102 - as for every chat model
        return self.bind(tools=tools, **kwargs)


@tool
def population(city: str) -> str:
    """How many people live in a city."""
    return {"Lima": "10 million"}[city]


model = RoutedChatModel(strong=Fake(model="strong"), weak=Fake(model="weak"))  # decide="per_turn" is the default
agent = create_agent(model, [population], system_prompt="Look things up before you answer.")
rate = StrongCallRateHandler()
history: list[Any] = []
for question in ("How many people live in Lima?", "Derive a differential equation for Lima's population."):
    history = agent.invoke({"messages": [*history, HumanMessage(question)]}, {"callbacks": [rate]})["messages"]
for message in history:
    routing = message.response_metadata.get("routing", {})
    print(f"{message.type:5} {routing.get('route', ''):6} {message.text or '(calls the tool)'}")
print(f"{rate.snapshot()['total']} decisions, {rate.strong_rate:.0%} strong")

# One run may have a threshold of its own, through the config of the agent.
run = agent.invoke({"messages": [HumanMessage("And Lima?")]}, {"configurable": {"router_threshold": 0.0}})
print("threshold 0:", run["messages"][-1].text)
