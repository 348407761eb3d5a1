"""Turning text into vectors: the protocol that routers ask for, and the embedders that come with the package."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from prefroute.embedding.combined import ConcatenatedEmbedder, LengthEmbedder
from prefroute.embedding.registry import as_embedder, load_embedder, save_embedder
from prefroute.embedding.static import StaticEmbedder
from prefroute.embedding.surface import SurfaceEmbedder

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from prefroute.embedding.cache import CachedEmbedder
    from prefroute.embedding.openai import OpenAIEmbedder
    from prefroute.embedding.sentence_transformers import SentenceTransformerEmbedder

__all__ = [
    "CachedEmbedder",
    "ConcatenatedEmbedder",
    "Embedder",
    "LengthEmbedder",
    "OpenAIEmbedder",
    "SentenceTransformerEmbedder",
    "StaticEmbedder",
    "SurfaceEmbedder",
    "as_embedder",
    "load_embedder",
    "save_embedder",
]

_IMPORTED_WHEN_ASKED_FOR = {
    "CachedEmbedder": "prefroute.embedding.cache",
    "OpenAIEmbedder": "prefroute.embedding.openai",
    "SentenceTransformerEmbedder": "prefroute.embedding.sentence_transformers",
}


def __getattr__(name: str) -> Any:
    """The embedders that most users need not import."""
    if name not in _IMPORTED_WHEN_ASKED_FOR:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(_IMPORTED_WHEN_ASKED_FOR[name]), name)


@runtime_checkable
class Embedder(Protocol):
    """Anything that embeds texts; nothing need be inherited.

    Read where it is there: `dimensions` (d), `model_id` (a str that names the model, for caches), `is_quick`
    (embedding a few short texts takes no longer than handing them to a thread), and, to be saved with a
    router, `embedder_type`, `save_pretrained(folder)` and `from_pretrained(folder)`.
    """

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts.

        Args:
            texts: n texts; one that is too long is cut.

        Returns:
            One row a text, shape (n, d); never NaN.
        """
        ...
