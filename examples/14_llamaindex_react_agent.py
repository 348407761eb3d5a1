"""A LlamaIndex ReActAgent for a pair in which one LLM has no tool calling: tools are called in the text of answers.

Each question chooses the model, and all steps of its run stay with that model: what tools found is not scored.
"""

import asyncio
from collections.abc import Iterator
from typing import Any

from llama_index.core.agent.workflow import AgentWorkflow
from llama_index.core.llms import CompletionResponse, CustomLLM, LLMMetadata
from llama_index.core.llms.callbacks import llm_completion_callback
from llama_index_instrumentation import get_dispatcher

from llamaindex_router import RoutedLLM, StrongCallRateEventHandler, routing_options


class Fake(CustomLLM):
    """Calls the tool once, then answers. In production any two LlamaIndex LLMs."""

    name: str

    @property
    def metadata(self) -> LLMMetadata:  # noqa: D102 - as for every LLM
        return LLMMetadata(model_name=self.name)

    @llm_completion_callback()
    def complete(self, prompt: str, *_: Any, **__: Any) -> CompletionResponse:  # noqa: D102 - as for every LLM
        said = 'Thought: I have to look it up.\nAction: population\nAction Input: {"city": "Lima"}'
        if "\nuser: Observation: " in prompt:
            said = f"Thought: I can answer.\nAnswer: 10 million, says the {self.name} model."
        return CompletionResponse(text=said)

    @llm_completion_callback()
    def stream_complete(self, prompt: str, *_: Any, **__: Any) -> Iterator[CompletionResponse]:  # noqa: D102 - as above
        yield self.complete(prompt)


def population(city: str) -> str:
    """How many people live in a city."""
    return {"Lima": "10 million"}[city]


async def main() -> None:
    """Ask an easy and a hard question, and a hard one of the weak model."""
    rate = StrongCallRateEventHandler()
    get_dispatcher().add_event_handler(rate)
    llm = RoutedLLM(strong=Fake(name="strong"), weak=Fake(name="weak"))
    agent = AgentWorkflow.from_tools_or_functions([population], llm=llm)
    print("the framework chose:", *(type(one).__name__ for one in agent.agents.values()))
    for question in ("How many people live in Lima?", "Derive a differential equation for Lima's population."):
        print(f"{await agent.run(question)!s:40} {question}")
    with routing_options(route="weak"):
        print(await agent.run("Derive another one."), "It was named.")
    made = sum(rate.snapshot()["calls"][side]["calls"] for side in ("strong", "weak"))
    print(f"{rate.snapshot()['total']} decisions, {rate.strong_rate:.0%} strong, {made} calls of an LLM")


asyncio.run(main())
