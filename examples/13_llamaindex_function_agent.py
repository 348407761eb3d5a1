"""A LlamaIndex FunctionAgent whose steps are routed one by one (decide="per_step"): one run uses both models."""

import asyncio
from collections.abc import Iterator
from typing import Any

from llama_index.core.agent.workflow import AgentOutput, FunctionAgent
from llama_index.core.llms import ChatResponse, CompletionResponse, CustomLLM, LLMMetadata
from llama_index.core.llms.callbacks import llm_completion_callback
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import ToolSelection

from llamaindex_router import RoutedLLM
from prefroute.testing import FixedRouter


class Fake(CustomLLM, FunctionCallingLLM):
    """Calls the tool twice, then answers. In production two LLMs that call tools: OpenAI(model=...)."""

    name: str

    @property
    def metadata(self) -> LLMMetadata:  # noqa: D102 - this and the others as for every LLM
        return LLMMetadata(model_name=self.name, is_function_calling_model=True)

    @llm_completion_callback()
    def complete(self, prompt: str, *_: Any, **__: Any) -> CompletionResponse:  # noqa: D102
        paths = ["core", "adapters"][prompt.count("\ntool: ") :][:1]  # one after the other, then an answer
        calls = [{"tool_id": path, "tool_name": "run_tests", "tool_kwargs": {"path": path}} for path in paths]
        return CompletionResponse(text=f"({self.name})", additional_kwargs={"tool_calls": calls})

    @llm_completion_callback()
    def stream_complete(self, prompt: str, *_: Any, **__: Any) -> Iterator[CompletionResponse]:  # noqa: D102
        yield self.complete(prompt)

    def _prepare_chat_with_tools(self, *_: Any, chat_history: Any = None, **__: Any) -> dict[str, Any]:
        return {"messages": chat_history}

    def get_tool_calls_from_response(self, response: ChatResponse, *_: Any, **__: Any) -> list[ToolSelection]:  # noqa: D102
        return [ToolSelection(**call) for call in response.message.additional_kwargs["tool_calls"]]


def run_tests(path: str) -> str:
    """Run the tests below a path."""
    return "Traceback (most recent call last): ..." if path == "adapters" else "12 passed"


async def main() -> None:
    """Run the agent. The router, a rule here, is asked the question, and after a tool's result both."""
    router = FixedRouter(0.1, {f"Run the tests.\n\n{run_tests('adapters')}": 0.9})
    llm = RoutedLLM(strong=Fake(name="strong"), weak=Fake(name="weak"), router=router, decide="per_step")
    run = FunctionAgent(tools=[run_tests], llm=llm).run("Run the tests.")
    async for event in run.stream_events():
        if isinstance(event, AgentOutput):
            print(event.response.content, [call.tool_kwargs for call in event.tool_calls] or "is done")
    print(f"strong steps: {llm.stats.strong_rate:.0%} of {llm.stats.total}")


asyncio.run(main())
