"""A LlamaIndex embedding model as an embedder of prefroute."""

from __future__ import annotations

from llama_index.core.base.embeddings.base import BaseEmbedding

from prefroute.embedding.foreign import MAX_CHARACTERS, ForeignEmbedder
from prefroute.errors import ConfigurationError


class LlamaIndexEmbedder(ForeignEmbedder):
    """Embeds prompts with any LlamaIndex `BaseEmbedding`.

    All texts go through `get_text_embedding_batch`: a prompt to route is compared with the prompts of the training
    data, so both must be embedded the same way, and the query methods take one text at a time. There is no
    asynchronous method, since those of many LlamaIndex models block the event loop; routers then use a thread.

    Example:
        ```python
        embedder = LlamaIndexEmbedder(OpenAIEmbedding(), model_id="text-embedding-3-small")
        ```
    """

    def __init__(
        self,
        embed_model: BaseEmbedding,
        *,
        model_id: str | None = None,
        batch_size: int = 1024,
        max_characters: int = MAX_CHARACTERS,
    ) -> None:
        """Wrap a model.

        Args:
            embed_model: Any `BaseEmbedding`; it makes requests of `embed_batch_size` texts.
            model_id: Names the model for `CachedEmbedder`, with whatever changes its rows; no key belongs in it.
            batch_size: Texts given to the model at a time.
            max_characters: Characters of a text that are given; the model cuts further as it does.

        Raises:
            ConfigurationError: This is no `BaseEmbedding`, or a setting cannot be used.
        """
        if not isinstance(embed_model, BaseEmbedding):
            msg = f"embed_model must be a llama_index BaseEmbedding, got {type(embed_model).__name__}"
            raise ConfigurationError(msg)
        super().__init__(
            type(embed_model).__name__, model_id=model_id, batch_size=batch_size, max_characters=max_characters
        )
        self.embed_model = embed_model

    def _ask(self, texts: list[str]) -> list[list[float]]:
        return self.embed_model.get_text_embedding_batch(texts)
