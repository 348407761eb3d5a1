"""What `prefroute demo` gets from this adapter."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest

from langchain_router import demo
from prefroute import ConfigurationError, MissingExtraError
from prefroute.testing import FixedRouter

PROMPTS = ["hard {with} braces", "easy", "hard {with} braces"]


def router() -> FixedRouter:
    return FixedRouter(0.1, {PROMPTS[0]: 0.9})


def with_langchain(monkeypatch: pytest.MonkeyPatch, init: Any) -> None:
    module = types.ModuleType("langchain.chat_models")
    module.init_chat_model = init  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "langchain", types.ModuleType("langchain"))
    monkeypatch.setitem(sys.modules, "langchain.chat_models", module)


def test_prompts_go_through_a_chain_offline() -> None:
    used = router()
    result = demo.run(PROMPTS, used)
    assert used.prompts == PROMPTS
    assert "LangChain" in result.framework
    assert [one.route for one in result.decisions] == ["strong", "weak", "strong"]
    assert [one.score for one in result.decisions] == [0.9, 0.1, 0.9]
    assert result.answers == [
        f"[offline stand-in for the {one.route} model] You asked: {prompt}"
        for one, prompt in zip(result.decisions, PROMPTS, strict=True)
    ]
    assert result.strong_rate == pytest.approx(2 / 3)


def test_a_named_model_is_made_by_langchain(monkeypatch: pytest.MonkeyPatch) -> None:
    with_langchain(monkeypatch, lambda spec: demo.OfflineChatModel(side=spec))
    result = demo.run(["easy"], router(), weak="openai:gpt-5-nano")
    assert result.answers == ["[offline stand-in for the openai:gpt-5-nano model] You asked: easy"]


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("langchain", "langchain.chat_models"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match="pip install langchain langchain-openai"):
        demo.run(["easy"], router(), strong="openai:gpt-5")
    with pytest.raises(MissingExtraError, match="langchain-google-genai"):
        demo.run(["easy"], router(), strong="google_genai:gemini-3-pro")


def test_a_model_that_cannot_be_made_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(spec: str) -> Any:
        raise RuntimeError("no api_key: " + spec)

    with_langchain(monkeypatch, refuse)
    with pytest.raises(ConfigurationError, match="no chat model of 'openai:gpt-5': no api_key: openai:gpt-5"):
        demo.run(["easy"], router(), strong="openai:gpt-5")
