"""What a prompt looks like, as coordinates to be put beside its embedding; no model is needed."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from prefroute.errors import ConfigurationError
from prefroute.inputs import as_prompts, finite_or_none
from prefroute.persistence import read_settings, write_config

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

    from numpy.typing import NDArray

FEATURES = (
    *("log characters", "log lines", "log characters of the longest line", "log mean length of a word"),
    *("log question marks", "share of digits", "share of symbols", "share of upper case", "share beyond ASCII"),
)
"""Chosen for what they are, not by what they gave on any data."""

_MEANS = (5.3, 1.1, 5.1, 1.8, 0.44, 0.015, 0.04, 0.03, 0.03)
_DEVIATIONS = (0.9, 0.6, 0.8, 0.2, 0.4, 0.03, 0.04, 0.03, 0.1)
"""About those of the five sources that the bundled router was trained on; `fitted` takes those of one's own prompts."""

_CLIP = 3.0
"""Deviations beyond which a feature is cut, so that one odd prompt does not outweigh its meaning."""

_LEAST_DEVIATION = 1e-9

_MAX_CHARACTERS = 32_000
"""Characters that are looked at, so that 1 MB of text stays fast; the length is that of the whole text."""


@dataclass(frozen=True, kw_only=True)
class SurfaceEmbedder:
    """Nine standardised features of the text, as `FEATURES` lists them.

    Embeddings are made to ignore what these show: how long a prompt is, whether it is code, a sum, a list or a
    single question. Beside an embedding they let routers see it.

    Attributes:
        means: Of each feature.
        deviations: Its standard deviation.
        scale: What one deviation becomes, beside an embedding of length 1.
    """

    means: tuple[float, ...] = _MEANS
    deviations: tuple[float, ...] = _DEVIATIONS
    scale: float = 0.2

    embedder_type: ClassVar[str] = "surface"
    dimensions: ClassVar[int] = len(FEATURES)
    is_quick: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuse what would make coordinates that are no numbers."""
        numbers = [finite_or_none(value) for value in (*self.means, *self.deviations, self.scale)]
        counts = {len(self.means), len(self.deviations)}
        if None in numbers or counts != {len(FEATURES)} or min(self.deviations) <= 0:
            msg = f"means and deviations must be {len(FEATURES)} finite numbers, deviations above 0; got {self}"
            raise ConfigurationError(msg)

    @classmethod
    def fitted(cls, prompts: Sequence[str], *, scale: float = 0.2) -> Self:
        """Standardise by these prompts.

        Args:
            prompts: n texts, at least one.
            scale: What one deviation becomes.

        Returns:
            The embedder; the deviation of a feature that is the same everywhere is 1.

        Raises:
            ConfigurationError: There are no prompts.
        """
        features = _features(as_prompts(prompts))
        if not len(features):
            msg = "got no prompts to standardise by; give at least one"
            raise ConfigurationError(msg)
        deviations = features.std(axis=0)
        deviations[deviations < _LEAST_DEVIATION] = 1.0
        return cls(
            means=tuple(features.mean(axis=0).tolist()), deviations=tuple(deviations.tolist()), scale=float(scale)
        )

    def refitted(self, prompts: Sequence[str]) -> Self:
        """The same, standardised by these prompts; see `fitted`."""
        return self.fitted(prompts, scale=self.scale)

    @property
    def model_id(self) -> str:
        """Names the embedder for caches."""
        return f"surface:{self.means!r}:{self.deviations!r}:{self.scale!r}"

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The features of each text, shape (n, 9)."""
        standardised = (_features(as_prompts(texts)) - np.array(self.means)) / np.array(self.deviations)
        rows: NDArray[np.float32] = (self.scale * standardised.clip(-_CLIP, _CLIP)).astype(np.float32)
        return rows

    def save_pretrained(self, path: str | Path) -> None:
        """Write `config.json`."""
        write_config(Path(path), {"embedder_type": self.embedder_type, "settings": asdict(self)})

    @classmethod
    def from_pretrained(cls, path: str | Path) -> Self:
        """Read what `save_pretrained` wrote.

        Raises:
            PersistenceError: The folder holds no readable surface embedder.
        """
        return read_settings(cls, Path(path))


def _features(texts: list[str]) -> NDArray[np.float64]:
    """The raw features, shape (n, 9)."""
    return np.array([_features_of(text) for text in texts], dtype=np.float64).reshape(-1, len(FEATURES))


def _features_of(whole: str) -> list[float]:
    text = whole[:_MAX_CHARACTERS]
    size = max(1, len(text))
    lines, words = text.split("\n"), text.split()
    mean_word = sum(map(len, words)) / max(1, len(words))
    counts = (len(whole), len(lines), max(map(len, lines)), mean_word, text.count("?"))
    # Sums over str methods: loops in C, where a generator expression would take three times as long.
    letters_digits, spaces = sum(map(str.isalnum, text)), sum(map(str.isspace, text))
    shares = (
        sum(map(str.isdigit, text)),
        len(text) - letters_digits - spaces,
        sum(map(str.isupper, text)),
        0 if text.isascii() else len(text) - sum(map(str.isascii, text)),
    )
    return [*np.log1p(counts).tolist(), *(share / size for share in shares)]
