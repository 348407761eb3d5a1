"""Turning text into vectors: the protocol that routers ask for, and the bundled static model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from prefroute.embedding.static import StaticEmbedder

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Embedder", "StaticEmbedder"]


@runtime_checkable
class Embedder(Protocol):
    """Anything that embeds texts; nothing need be inherited."""

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts.

        Args:
            texts: n texts.

        Returns:
            One row a text, shape (n, d); never NaN.
        """
        ...
