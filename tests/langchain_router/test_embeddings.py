"""LangChain embedding models as embedders."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings, FakeEmbeddings

from langchain_router.embeddings import LangChainEmbedder
from prefroute import ConfigurationError, PersistenceError, PromptTypeError
from prefroute.embedding import Embedder, as_embedder, load_embedder, save_embedder
from prefroute.embedding.cache import CachedEmbedder

if TYPE_CHECKING:
    from pathlib import Path

HOSTILE = ["", " \n", "\ud800x", "\0", "\U0001f600" * 9, "a" * 1_000_000, "why?"]


class Recording(Embeddings):
    """Gives one number and a one a text, and notes how it was asked."""

    api_key = "sk-secret-0123456789"

    def __init__(self, rows: Any = None) -> None:
        self.rows = rows
        self.asked: list[tuple[str, list[str]]] = []

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return self._answer("documents", texts)

    def embed_query(self, text: str) -> list[float]:
        raise NotImplementedError

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        return self._answer("adocuments", texts)

    def _answer(self, method: str, texts: list[str]) -> Any:
        self.asked.append((method, list(texts)))
        return [[float(len(text)), 1.0] for text in texts] if self.rows is None else self.rows


def test_it_is_an_embedder_with_the_models_directions() -> None:
    model = DeterministicFakeEmbedding(size=16)
    embedder = LangChainEmbedder(model)
    assert isinstance(embedder, Embedder)
    assert as_embedder(embedder) is embedder
    assert embedder.dimensions is None
    rows = embedder.embed(["a", "b"])
    wanted = np.array(model.embed_documents(["a", "b"]))
    np.testing.assert_allclose(rows, wanted / np.linalg.norm(wanted, axis=1, keepdims=True), atol=1e-6)
    assert rows.dtype == np.float32
    assert embedder.dimensions == 16


def test_hostile_text_gives_finite_rows_batched_or_alone() -> None:
    embedder = LangChainEmbedder(DeterministicFakeEmbedding(size=16), batch_size=2)
    rows = embedder.embed(HOSTILE)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), [0, 0, 1, 1, 1, 1, 1], atol=1e-6)
    np.testing.assert_array_equal(rows, np.vstack([embedder.embed([text]) for text in HOSTILE]))


def test_texts_are_cut_and_asked_for_in_batches_without_blanks() -> None:
    model = Recording()
    LangChainEmbedder(model, batch_size=2, max_characters=3).embed(["one", "", "three", "five"])
    assert model.asked == [("documents", ["one", "thr"]), ("documents", ["fiv"])]


async def test_async_uses_the_models_async_method() -> None:
    model = Recording()
    embedder = LangChainEmbedder(model, batch_size=3)
    rows = await embedder.aembed(HOSTILE)
    assert {method for method, _ in model.asked} == {"adocuments"}
    np.testing.assert_array_equal(rows, embedder.embed(HOSTILE))
    np.testing.assert_array_equal(await LangChainEmbedder(FakeEmbeddings(size=4)).aembed([""]), np.zeros((1, 4)))


@pytest.mark.parametrize("texts", [[], ["", " "]])
def test_blank_text_needs_the_length_of_a_row_alone(texts: list[str]) -> None:
    assert LangChainEmbedder(Recording()).embed(texts).shape == (len(texts), 2)


@pytest.mark.parametrize("rows", [[], [[1.0]], [[1.0], [2.0, 3.0]], [[1.0], [None]], [[1.0], [float("nan")]], None])
def test_odd_rows_are_errors_that_name_the_model(rows: Any) -> None:
    model = Recording(rows)
    if rows is None:
        model._answer = lambda *_: None  # type: ignore[method-assign]
    with pytest.raises(RuntimeError, match=r"LangChainEmbedder\(Recording\) gave"):
        LangChainEmbedder(model).embed(["a", "b"])


def test_what_is_no_model_or_no_text_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="Embeddings"):
        LangChainEmbedder("text-embedding-3-small")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="batch_size"):
        LangChainEmbedder(Recording(), batch_size=0)
    with pytest.raises(PromptTypeError):
        LangChainEmbedder(Recording()).embed("one text")


def test_it_is_saved_as_one_to_bring_along(tmp_path: Path) -> None:
    embedder = LangChainEmbedder(Recording())
    save_embedder(embedder, tmp_path)
    with pytest.raises(PersistenceError, match="LangChainEmbedder"):
        load_embedder(tmp_path)
    assert "sk-secret" not in (tmp_path / "config.json").read_text() + repr(embedder)


def test_it_is_cached_under_the_name_it_is_given(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="model_id"):
        CachedEmbedder(LangChainEmbedder(Recording()), tmp_path / "cache")
    model = Recording()
    cached = CachedEmbedder(LangChainEmbedder(model, model_id="mine"), tmp_path / "cache")
    np.testing.assert_array_equal(cached.embed(["a", "b"]), cached.embed(["a", "b"]))
    assert len(model.asked) == 1
