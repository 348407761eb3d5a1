"""What `prefroute demo` runs for LlamaIndex: prompts through a real selector, with stand-ins for the models."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from llama_index.core.llms import LLM, MockLLM
from llama_index.core.query_engine import CustomQueryEngine, RouterQueryEngine
from llama_index.core.tools import QueryEngineTool
from llama_index_instrumentation import get_dispatcher

from llamaindex_router import events
from llamaindex_router.callbacks import StrongCallRateEventHandler
from llamaindex_router.selector import RouterSelector
from prefroute import ConfigurationError, MissingExtraError
from prefroute.demo import AdapterRun

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llamaindex_router.selector import RouterSelection
    from prefroute import Route, Router, RoutingDecision

FRAMEWORK = "LlamaIndex (RouterSelector in a RouterQueryEngine)"

IN_EARNEST = (
    "pip install llama-index-llms-openai",
    "from llama_index.llms.openai import OpenAI",
    "from llamaindex_router import RoutedLLM",
    'llm = RoutedLLM(strong=OpenAI(model="STRONG"), weak=OpenAI(model="WEAK"))',
    'print(llm.complete("Why is the sky blue?").text)',
    'print(f"strong-call rate: {llm.stats.strong_rate:.0%}")',
)


class _StandInEngine(CustomQueryEngine):
    """Answers without any model, and says so."""

    side: str

    def custom_query(self, query_str: str) -> str:
        return f"[offline stand-in for the {self.side} model] {query_str}"


class _ModelEngine(CustomQueryEngine):
    """Answers with an LLM."""

    llm: LLM

    def custom_query(self, query_str: str) -> str:
        return self.llm.complete(query_str).text


def run(prompts: Sequence[str], router: Router, *, strong: str | None = None, weak: str | None = None) -> AdapterRun:
    """Route prompts through a LlamaIndex query engine.

    Args:
        prompts: What to ask.
        router: Who decides, at its own threshold.
        strong: Model of the strong side, as `openai:NAME`; None for an offline stand-in.
        weak: Model of the weak side, likewise.

    Returns:
        Decisions and answers in order, and the strong-call rate as the event handler counted it.

    Raises:
        ConfigurationError: A model is not of the form `openai:NAME`.
        MissingExtraError: The package for OpenAI models is not installed.
        ThresholdError: The router has no threshold of its own.
    """
    specs: dict[Route, str | None] = {"strong": strong, "weak": weak}
    engine = RouterQueryEngine(
        RouterSelector(router=router, strong="strong", weak="weak"),
        [
            QueryEngineTool.from_defaults(_engine(side, spec), name=side, description=f"the {side} model")
            for side, spec in specs.items()
        ],
        # Never called, but without it the engine would look for a global one and want an API key.
        llm=MockLLM(),
    )
    handler = StrongCallRateEventHandler()
    # On our own dispatcher, not the process-wide root, and only for as long as the demo runs.
    dispatcher = get_dispatcher(events.__name__)
    dispatcher.add_event_handler(handler)
    decisions: list[RoutingDecision] = []
    answers: list[str] = []
    try:
        for prompt in prompts:
            response = engine.query(prompt)
            selection: RouterSelection = (response.metadata or {})["selector_result"]
            decisions.append(selection.decision)
            answers.append(str(response))
    finally:
        dispatcher.event_handlers.remove(handler)
    return AdapterRun(
        framework=FRAMEWORK,
        decisions=decisions,
        answers=answers,
        strong_rate=handler.strong_rate,
        in_earnest=IN_EARNEST,
    )


def _engine(side: Route, spec: str | None) -> CustomQueryEngine:
    return _StandInEngine(side=side) if spec is None else _ModelEngine(llm=_model(spec))


def _model(spec: str) -> LLM:
    provider, _, name = spec.partition(":")
    if provider != "openai" or not name:
        msg = f"models are given as openai:NAME, for example openai:gpt-5-mini; got {spec!r}"
        raise ConfigurationError(msg)
    try:
        integration = import_module("llama_index.llms.openai")
    except ModuleNotFoundError as error:
        msg = "real models need the OpenAI integration; install it with: pip install llama-index-llms-openai"
        raise MissingExtraError(msg, name=error.name) from error
    model: LLM = integration.OpenAI(model=name)
    return model
