"""A LangChain embedding model as an embedder of prefroute."""

from __future__ import annotations

from typing import TYPE_CHECKING

from langchain_core.embeddings import Embeddings

from prefroute.embedding.foreign import MAX_CHARACTERS, ForeignEmbedder
from prefroute.errors import ConfigurationError
from prefroute.inputs import as_prompts

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray


class LangChainEmbedder(ForeignEmbedder):
    """Embeds prompts with any LangChain `Embeddings`.

    All texts go through `embed_documents`: a prompt to route is compared with the prompts of the training data, so
    both must be embedded the same way, and `embed_query` takes one text at a time.

    Example:
        ```python
        embedder = LangChainEmbedder(OpenAIEmbeddings(), model_id="text-embedding-3-small")
        ```
    """

    def __init__(
        self,
        embeddings: Embeddings,
        *,
        model_id: str | None = None,
        batch_size: int = 1024,
        max_characters: int = MAX_CHARACTERS,
    ) -> None:
        """Wrap a model.

        Args:
            embeddings: Any `Embeddings`.
            model_id: Names the model for `CachedEmbedder`, with whatever changes its rows; no key belongs in it.
            batch_size: Texts given to the model at a time.
            max_characters: Characters of a text that are given; the model cuts further as it does.

        Raises:
            ConfigurationError: This is no `Embeddings`, or a setting cannot be used.
        """
        if not isinstance(embeddings, Embeddings):
            msg = f"embeddings must be a langchain_core.embeddings.Embeddings, got {type(embeddings).__name__}"
            raise ConfigurationError(msg)
        super().__init__(
            type(embeddings).__name__, model_id=model_id, batch_size=batch_size, max_characters=max_characters
        )
        self.embeddings = embeddings

    async def aembed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """`embed` without blocking the event loop, by the model's `aembed_documents`."""
        checked = as_prompts(texts)
        wanted, places = self._wanted(checked)
        parts = [
            self._checked(await self.embeddings.aembed_documents(batch), len(batch)) for batch in self._batches(wanted)
        ]
        return self._placed(parts, places, len(checked))

    def _ask(self, texts: list[str]) -> list[list[float]]:
        return self.embeddings.embed_documents(texts)
