"""Embedding models of other frameworks as embedders; what the adapters' bridges share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from prefroute.embedding._rows import MAX_CHARACTERS, PROBE, as_rows, as_size, with_blanks, without_blanks
from prefroute.inputs import as_prompts

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

__all__ = ["MAX_CHARACTERS", "ForeignEmbedder"]


class ForeignEmbedder(ABC):
    """Makes a framework's model an embedder: rows of length 1, one a text.

    A subclass needs `_ask`. Text that is empty or all white space, which many providers refuse, gets the
    all-zero row. As safe to share between threads as the model is. It cannot be saved with a router: whoever
    loads that gives the embedder anew, `load_router(path, embedder=...)`.
    """

    def __init__(
        self,
        name: str,
        *,
        model_id: str | None = None,
        batch_size: int = 1024,
        max_characters: int = MAX_CHARACTERS,
    ) -> None:
        """Store how to ask.

        Args:
            name: Names the model in messages.
            model_id: Names the model for `CachedEmbedder`, with whatever changes its rows; no key belongs in it.
            batch_size: Texts given to the model at a time, which makes requests of its own size of them.
            max_characters: Characters of a text that are given.

        Raises:
            ConfigurationError: A setting cannot be used.
        """
        self._name = name
        self.model_id = model_id
        self.batch_size = as_size("batch_size", batch_size)
        self.max_characters = as_size("max_characters", max_characters)
        self._dimensions: int | None = None

    def __repr__(self) -> str:
        """The model's kind, not its fields, which may hold a key."""
        return f"{type(self).__name__}({self._name})"

    @property
    def dimensions(self) -> int | None:
        """Length of a row; None until the model has answered."""
        return self._dimensions

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts.

        Args:
            texts: n texts; each is cut at `max_characters`.

        Returns:
            Shape (n, d); each row has length 1, or is all zero where the text is blank.

        Raises:
            PromptTypeError: Something is not a str.
            EmbeddingError: The model gave something else than one finite row a text.
        """
        checked = as_prompts(texts)
        wanted, places = self._wanted(checked)
        parts = [self._checked(self._ask(batch), len(batch)) for batch in self._batches(wanted)]
        return self._placed(parts, places, len(checked))

    @abstractmethod
    def _ask(self, texts: list[str]) -> object:
        """Hook: the model's rows for these texts, in any form that numpy takes."""

    def _wanted(self, texts: list[str]) -> tuple[list[str], list[int]]:
        return without_blanks(texts, self.max_characters)

    def _placed(self, parts: list[NDArray[np.float32]], places: list[int], count: int) -> NDArray[np.float32]:
        return with_blanks(parts, places, count, self._dimensions)

    def _batches(self, wanted: list[str]) -> list[list[str]]:
        if not wanted and self._dimensions is None:
            return [[PROBE]]
        return [wanted[start : start + self.batch_size] for start in range(0, len(wanted), self.batch_size)]

    def _checked(self, values: object, count: int) -> NDArray[np.float32]:
        rows = as_rows(values, count=count, dimensions=self._dimensions, source=repr(self))
        self._dimensions = rows.shape[1]
        return rows
