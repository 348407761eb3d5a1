"""A static embedding model: one vector a token, averaged. Read with tokenizers and safetensors alone."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from prefroute.errors import ConfigurationError, PersistenceError
from prefroute.inputs import as_prompts
from prefroute.persistence import (
    CONFIG_FILE,
    read_config,
    read_tensors,
    validated,
    write_atomically,
    write_config,
    write_tensors,
)

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

    from numpy.typing import NDArray
    from tokenizers import Tokenizer

MODEL_FILE = "model.safetensors"
TOKENIZER_FILE = "tokenizer.json"

_CHUNK = 256
"""Texts tokenised at a time: bounds the memory that the encodings of a large batch take."""


_LARGEST = 1e15
"""Largest product of an embedding and a weight: sums and squares of such stay far from the end of float32."""


@dataclass(frozen=True, kw_only=True)
class StaticEmbedderConfig:
    """How text is cut.

    Attributes:
        max_characters: Characters of a text that are read; cutting here first keeps 1 MB of text fast.
        max_tokens: Tokens of those that count.
    """

    max_characters: int = 3072
    max_tokens: int = 512

    def __post_init__(self) -> None:
        """Refuse to read nothing at all."""
        if self.max_characters < 1 or self.max_tokens < 1:
            msg = f"max_characters and max_tokens must be at least 1, got {self.max_characters} and {self.max_tokens}"
            raise ConfigurationError(msg)


class StaticEmbedder:
    """The weighted mean of token vectors, scaled to length 1.

    Text with no known token (empty, or only of scripts and emoji outside the vocabulary) gets the
    all-zero row. Safe to share between threads. The files are those of model2vec, which can read them too.
    """

    embedder_type: ClassVar[str] = "static"

    def __init__(
        self,
        *,
        tokenizer: Tokenizer,
        vectors: NDArray[np.int8] | NDArray[np.float32],
        weights: NDArray[np.float32],
        mapping: NDArray[np.integer],
        config: StaticEmbedderConfig | None = None,
    ) -> None:
        """Put together a model from its parts.

        Args:
            tokenizer: A `tokenizers.Tokenizer` that neither pads nor truncates; v tokens.
            vectors: The quantised vocabulary, shape (c, d); several tokens may share a row.
            weights: Weight of each token times the scale of its row in `vectors`, shape (v,).
            mapping: Row of `vectors` for each token, shape (v,).
            config: How text is cut.
        """
        self.tokenizer = tokenizer
        self.vectors = vectors
        self.weights = weights
        self.mapping = mapping
        self.config = config or StaticEmbedderConfig()

    @property
    def dimensions(self) -> int:
        """Length of a row."""
        return int(self.vectors.shape[1])

    @property
    def is_quick(self) -> bool:
        """Whether a few short texts are embedded in the time a thread takes; a subclass may do anything."""
        return type(self) is StaticEmbedder

    @cached_property
    def model_id(self) -> str:
        """Names the model for caches, by its content."""
        digest = hashlib.sha256(repr(self.config).encode())
        for array in (self.vectors, self.weights, self.mapping):
            digest.update(np.ascontiguousarray(array).tobytes())
        digest.update(self.tokenizer.to_str().encode())
        return f"static:{digest.hexdigest()}"

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts.

        Args:
            texts: n texts; any text at all is defined.

        Returns:
            Shape (n, d); each row has length 1, or is all zero where no token is known.

        Raises:
            PromptTypeError: Something is not a str.
        """
        cut = [text[: self.config.max_characters] for text in as_prompts(texts)]
        rows = np.zeros((len(cut), self.dimensions), dtype=np.float32)
        for start in range(0, len(cut), _CHUNK):
            self._embed_into(rows[start : start + _CHUNK], self._tokenise(cut[start : start + _CHUNK]))
        return rows

    def _tokenise(self, texts: list[str]) -> list[list[int]]:
        if len(texts) == 1:  # Without the batch's hand-over to worker threads.
            encodings = [self.tokenizer.encode(texts[0], add_special_tokens=False)]
        else:
            encodings = self.tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [encoding.ids[: self.config.max_tokens] for encoding in encodings]

    def _embed_into(self, rows: NDArray[np.float32], ids: list[list[int]]) -> None:
        """Fill the rows of texts that have tokens; unknown tokens have weight 0 and so count for nothing."""
        for row, tokens in zip(rows, ids, strict=True):
            if tokens:
                vectors = self.vectors[self.mapping[tokens]].astype(np.float32)  # (tokens, d)
                np.dot(self.weights[tokens], vectors, out=row)
        norms = np.sqrt(np.einsum("ij,ij->i", rows, rows))[:, None]
        # A mean and a sum differ only in length, which is divided out here.
        np.divide(rows, norms, out=rows, where=norms > 0)

    def save_pretrained(self, path: str | Path) -> None:
        """Write `config.json`, `model.safetensors` and `tokenizer.json`.

        Args:
            path: Folder; made if missing.
        """
        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / TOKENIZER_FILE, self.tokenizer.to_str().encode())
        tensors = {"embeddings": self.vectors, "weights": self.weights, "mapping": self.mapping}
        write_tensors(folder / MODEL_FILE, tensors)
        write_config(folder, {"embedder_type": self.embedder_type, "normalize": True, "settings": asdict(self.config)})

    @classmethod
    def from_pretrained(cls, path: str | Path) -> Self:
        """Read what `save_pretrained` wrote.

        Args:
            path: Folder.

        Returns:
            The embedder.

        Raises:
            PersistenceError: The folder holds no readable static embedder.
        """
        folder = Path(path)
        fields = read_config(folder)
        if fields.get("embedder_type") != cls.embedder_type:
            found = fields.get("embedder_type")
            msg = f"{folder / CONFIG_FILE} has embedder_type {found!r}; this class reads {cls.embedder_type!r}"
            raise PersistenceError(msg)
        config = validated(StaticEmbedderConfig, fields.get("settings"), folder / CONFIG_FILE)
        tokenizer = _read_tokenizer(folder / TOKENIZER_FILE)
        tensors = read_tensors(folder / MODEL_FILE)
        _check_shapes(tensors, tokenizer.get_vocab_size(), folder / MODEL_FILE)
        return cls(
            tokenizer=tokenizer,
            vectors=tensors["embeddings"],
            weights=tensors["weights"],
            mapping=tensors["mapping"],
            config=config,
        )


def _read_tokenizer(path: Path) -> Tokenizer:
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_str(path.read_text(encoding="utf-8"))
    except Exception as error:  # tokenizers raises plain Exception
        msg = f"{path} cannot be read: {error}; save the embedder again or fetch the folder anew"
        raise PersistenceError(msg) from error


def _check_shapes(tensors: dict[str, NDArray[np.generic]], vocabulary: int, path: Path) -> None:
    missing = {"embeddings", "weights", "mapping"} - tensors.keys()
    if missing:
        msg = f"{path} lacks {', '.join(sorted(missing))}"
        raise PersistenceError(msg)
    vectors, weights, mapping = tensors["embeddings"], tensors["weights"], tensors["mapping"]
    if vectors.ndim != 2 or weights.shape != (vocabulary,) or mapping.shape != (vocabulary,):  # noqa: PLR2004 - a matrix
        msg = (
            f"{path} does not fit its tokenizer of {vocabulary} tokens: embeddings {vectors.shape}, "
            f"weights {weights.shape}, mapping {mapping.shape}"
        )
        raise PersistenceError(msg)
    if not np.issubdtype(mapping.dtype, np.integer) or mapping.min() < 0 or mapping.max() >= len(vectors):
        msg = f"{path}: mapping points outside the {len(vectors)} rows of embeddings"
        raise PersistenceError(msg)
    # Products of the two are summed in float32: not finite, or near its end, would make scores that are no numbers.
    largest = [np.abs(tensor.astype(np.float64)).max(initial=0.0) for tensor in (vectors, weights)]
    if weights.dtype != np.float32 or not np.isfinite(largest).all() or largest[0] * largest[1] > _LARGEST:
        msg = f"{path}: embeddings and float32 weights must be finite with products below {_LARGEST:g}"
        raise PersistenceError(msg)
