"""LlamaIndex embedding models as embedders."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.embeddings import MockEmbedding

from llamaindex_router.embeddings import LlamaIndexEmbedder
from prefroute import ConfigurationError, PersistenceError, PromptTypeError
from prefroute.embedding import Embedder, as_embedder, load_embedder, save_embedder
from prefroute.embedding.cache import CachedEmbedder

if TYPE_CHECKING:
    from pathlib import Path

HOSTILE = ["", " \n", "\ud800x", "\0", "\U0001f600" * 9, "a" * 1_000_000, "why?"]


class Recording(BaseEmbedding):
    """Gives one number and a one a text, and notes what it was asked."""

    api_key: str = "sk-secret-0123456789"
    rows: Any = None
    _asked: list[list[str]] = PrivateAttr(default_factory=list)

    def _get_text_embeddings(self, texts: list[str]) -> Any:
        self._asked.append(list(texts))
        return [[float(len(text)), 1.0] for text in texts] if self.rows is None else self.rows

    def _get_text_embedding(self, text: str) -> Any:
        raise NotImplementedError

    def _get_query_embedding(self, query: str) -> Any:
        raise NotImplementedError

    async def _aget_query_embedding(self, query: str) -> Any:
        raise NotImplementedError


def test_it_is_an_embedder_with_the_models_directions() -> None:
    embedder = LlamaIndexEmbedder(MockEmbedding(embed_dim=4))
    assert isinstance(embedder, Embedder)
    assert as_embedder(embedder) is embedder
    assert embedder.dimensions is None
    rows = embedder.embed(["a", "b"])
    np.testing.assert_allclose(rows, np.full((2, 4), 0.5))
    assert rows.dtype == np.float32
    assert embedder.dimensions == 4


def test_hostile_text_gives_finite_rows_batched_or_alone() -> None:
    embedder = LlamaIndexEmbedder(Recording(), batch_size=2)
    rows = embedder.embed(HOSTILE)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), [0, 0, 1, 1, 1, 1, 1], atol=1e-6)
    np.testing.assert_array_equal(rows, np.vstack([embedder.embed([text]) for text in HOSTILE]))


def test_texts_are_cut_and_asked_for_in_the_models_batches_without_blanks() -> None:
    model = Recording(embed_batch_size=2)
    LlamaIndexEmbedder(model, batch_size=3, max_characters=3).embed(["one", "", "three", "five", "seven"])
    assert model._asked == [["one", "thr"], ["fiv"], ["sev"]]


@pytest.mark.parametrize("texts", [[], ["", " "]])
def test_blank_text_needs_the_length_of_a_row_alone(texts: list[str]) -> None:
    assert LlamaIndexEmbedder(Recording()).embed(texts).shape == (len(texts), 2)


@pytest.mark.parametrize("rows", [[], [[1.0]], [[1.0], [2.0, 3.0]], [[1.0], [float("nan")]]])
def test_odd_rows_are_errors_that_name_the_model(rows: Any) -> None:
    with pytest.raises(RuntimeError, match=r"LlamaIndexEmbedder\(Recording\) gave"):
        LlamaIndexEmbedder(Recording(rows=rows)).embed(["a", "b"])


def test_what_is_no_model_or_no_text_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="BaseEmbedding"):
        LlamaIndexEmbedder("local")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="batch_size"):
        LlamaIndexEmbedder(Recording(), batch_size=0)
    with pytest.raises(PromptTypeError):
        LlamaIndexEmbedder(Recording()).embed("one text")


def test_it_is_saved_as_one_to_bring_along(tmp_path: Path) -> None:
    embedder = LlamaIndexEmbedder(Recording())
    save_embedder(embedder, tmp_path)
    with pytest.raises(PersistenceError, match="LlamaIndexEmbedder"):
        load_embedder(tmp_path)
    assert "sk-secret" not in (tmp_path / "config.json").read_text() + repr(embedder)


def test_it_is_cached_under_the_name_it_is_given(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="model_id"):
        CachedEmbedder(LlamaIndexEmbedder(Recording()), tmp_path / "cache")
    model = Recording()
    cached = CachedEmbedder(LlamaIndexEmbedder(model, model_id="mine"), tmp_path / "cache")
    np.testing.assert_array_equal(cached.embed(["a", "b"]), cached.embed(["a", "b"]))
    assert len(model._asked) == 1
