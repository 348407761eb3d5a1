"""What `prefroute demo` runs."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING

import pytest
from llama_index.core import Settings
from llama_index_instrumentation import get_dispatcher

from llamaindex_router import demo, events
from prefroute import ConfigurationError, MissingExtraError, ThresholdError
from prefroute.testing import FixedRouter

if TYPE_CHECKING:
    from conftest import DialectLLM


def test_demo(router: FixedRouter, easy: str, hard: str) -> None:
    run = demo.run([easy, hard, easy, easy], router)
    assert run.framework.startswith("LlamaIndex")
    assert [decision.route for decision in run.decisions] == ["weak", "strong", "weak", "weak"]
    assert run.answers[1] == f"[offline stand-in for the strong model] {hard}"
    assert run.strong_rate == 0.25
    assert router.prompts == [easy, hard, easy, easy]


def test_demo_leaves_nothing_behind(router: FixedRouter, easy: str) -> None:
    before = Settings._llm, list(get_dispatcher(events.__name__).event_handlers)
    demo.run([easy], router)
    with pytest.raises(ThresholdError):
        demo.run([easy], FixedRouter(threshold=None))
    assert (Settings._llm, list(get_dispatcher(events.__name__).event_handlers)) == before


def test_demo_with_a_real_model(
    router: FixedRouter, easy: str, hard: str, make_llm: type[DialectLLM], monkeypatch: pytest.MonkeyPatch
) -> None:
    integration = ModuleType("llama_index.llms.openai")
    integration.OpenAI = lambda model: make_llm(name=model)
    monkeypatch.setitem(sys.modules, "llama_index.llms.openai", integration)
    run = demo.run([easy, hard], router, weak="openai:gpt-5-mini")
    assert run.answers == ["gpt-5-mini", f"[offline stand-in for the strong model] {hard}"]


@pytest.mark.parametrize("spec", ["gpt-5", "anthropic:claude", "openai:", ""])
def test_demo_refuses_other_models(router: FixedRouter, spec: str) -> None:
    with pytest.raises(ConfigurationError, match="openai:NAME"):
        demo.run(["x"], router, strong=spec)


def test_demo_names_the_missing_package(router: FixedRouter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llama_index.llms.openai", None)
    with pytest.raises(MissingExtraError, match="pip install llama-index-llms-openai"):
        demo.run(["x"], router, strong="openai:gpt-5")
