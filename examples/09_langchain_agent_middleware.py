"""RouterMiddleware (prefroute[langchain-agents]) chooses the model of each step: one run of an agent uses both."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.tools import tool

from langchain_router.middleware import RouterMiddleware
from prefroute import Router


class TracebacksAreHard(Router):
    """A rule in place of a trained router, so that it is plain what is chosen and why."""

    threshold = 0.5

    def win_probability(self, prompts: Sequence[str]) -> Any:  # noqa: D102 - as for every router
        return np.array([0.9 if "Traceback" in prompt else 0.1 for prompt in prompts])


class Fake(BaseChatModel):
    """Follows a script: calls the tool with one path after the other, then answers."""

    paths: list[str]

    @property
    def _llm_type(self) -> str:
        return "fake"

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        n = sum(isinstance(message, ToolMessage) for message in messages)
        calls = [{"name": "run_tests", "args": {"path": path}, "id": str(n)} for path in self.paths[n : n + 1]]
        return ChatResult(generations=[ChatGeneration(message=AIMessage("" if calls else "Done.", tool_calls=calls))])

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:  # noqa: D102 - as for every chat model
        return self.bind(tools=tools, **kwargs)


@tool
def run_tests(path: str) -> str:
    """Run the tests below a path."""
    return "Traceback (most recent call last): ..." if path == "adapters" else "12 passed"


for paths in (["core", "adapters"], ["core", "core", "core", "core"]):
    strong, weak = Fake(paths=paths), Fake(paths=paths)
    # The router is asked the question and the newest tool result. First in the list: others see the chosen model.
    router = RouterMiddleware(strong=strong, weak=weak, router=TracebacksAreHard(), decide="per_step", escalate_after=3)
    run = create_agent(weak, [run_tests], middleware=[router]).invoke({"messages": [HumanMessage("Run the tests.")]})
    for message in run["messages"]:
        routing = message.response_metadata.get("routing", {"route": "", "reason": ""})
        print(f"{message.type:5} {routing['route']:6} {routing['reason']:10} {message.text or '(calls the tool)'}")
    print(f"strong steps: {router.stats.strong_rate:.0%}\n")
