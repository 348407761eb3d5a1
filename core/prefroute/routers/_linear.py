"""What routers whose logit is linear in the embedding share: serving, checks, and the scale that they learn on."""

from __future__ import annotations

import reprlib
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from prefroute.bradley_terry import sigmoid
from prefroute.errors import ConfigurationError, DataError
from prefroute.routers._embedding import EmbeddingRouter, embedded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

    from prefroute.embedding import Embedder

_INLINE_TEXTS, _INLINE_CHARACTERS = 8, 512
"""Up to so many texts of so many characters in all are scored on the event loop, in the time a thread takes."""

DEFAULT_EMBEDDER = "static+length"
"""The bundled one beside the length of the prompt. The other features of the surface added nothing here."""

_ROUNDING = 1e-6

_ROWS = 4096
"""Rows made float64 at a time."""

_LEAST_SPREAD = 1e-2
"""Coordinates that hardly vary are not blown up further than to a hundredth of the usual spread."""


class LinearRouter(EmbeddingRouter):
    """P(strong wins) = sigmoid(direction . e_q + offset), e_q being the prompt's embedding."""

    def __init__(
        self, *, embedder: Embedder, direction: NDArray[np.float64], offset: float, threshold: float | None
    ) -> None:
        """Store the parts, which the subclass has checked.

        Args:
            embedder: Embeds prompts in d dimensions.
            direction: Shape (d,).
            offset: The logit where the embedding is zero.
            threshold: The default threshold.
        """
        self.embedder = embedder
        self.threshold = threshold
        self._direction = direction
        self._offset = offset

    def win_probability_of_embeddings(self, embeddings: NDArray[np.floating]) -> NDArray[np.float64]:
        """The same from embeddings that are there already.

        Args:
            embeddings: Of n prompts by the router's embedder, shape (n, d).

        Returns:
            n probabilities in [0, 1], shape (n,).

        Raises:
            ConfigurationError: The embeddings are not of d dimensions.
        """
        try:
            rows = np.asarray(embeddings)
            fits = rows.ndim == 2 and rows.shape[1] == len(self._direction) and rows.dtype.kind in "fiu"  # noqa: PLR2004
        except (TypeError, ValueError):
            fits = False
        if not fits:
            found = getattr(embeddings, "shape", None) or type(embeddings).__name__
            msg = (
                f"embeddings must be n x {len(self._direction)} numbers, got {found}; "
                "give the router the embedder that it was trained with"
            )
            raise ConfigurationError(msg)
        with np.errstate(invalid="ignore"):
            logits: NDArray[np.float64] = rows.astype(np.float64) @ self._direction + self._offset  # (n,)
        if not np.isfinite(logits).all():
            msg = f"embeddings must be finite; row {int(np.argmin(np.isfinite(logits)))} is not"
            raise ConfigurationError(msg)
        return sigmoid(logits)

    def _is_quick(self, texts: list[str]) -> bool:
        # Only what is known to be: a subclass or another embedder may do anything.
        quick = self._scores_as_written() and getattr(self.embedder, "is_quick", False)
        return quick and len(texts) <= _INLINE_TEXTS and sum(map(len, texts)) <= _INLINE_CHARACTERS


class Standardisation(NamedTuple):
    """Centres the coordinates of an embedding and gives them one spread; linear, so it folds into the weights.

    The parts of a concatenated embedder keep their spread beside each other; the whole gets mean square length 1.

    Attributes:
        centre: Mean embedding, shape (d,).
        scale: What each coordinate is divided by, shape (d,).
    """

    centre: NDArray[np.float64]
    scale: NDArray[np.float64]

    @classmethod
    def fit(cls, embeddings: NDArray[np.float32], widths: Sequence[int]) -> Standardisation:
        """Take the scale from embeddings.

        Args:
            embeddings: Of the training prompts, shape (p, d).
            widths: Dimensions of each part side by side, d in all; see `part_widths`.

        Returns:
            The scale.
        """
        centre = embeddings.mean(axis=0, dtype=np.float64)
        spread = np.sqrt(sum(_squares(embeddings[i : i + _ROWS], centre) for i in range(0, len(embeddings), _ROWS)))
        spread /= np.sqrt(len(embeddings))
        # What rounding leaves of a constant coordinate is no spread; such a one gets no weight at all.
        spread[spread <= _ROUNDING * np.abs(centre)] = 0.0
        scale = np.full_like(spread, np.inf)
        start = 0
        for width in widths:
            part = slice(start, start + width)
            usual = float(np.sqrt(np.mean(spread[part] ** 2)))
            if usual > 0:
                scale[part] = np.where(spread[part] > 0, np.maximum(spread[part] / usual, _LEAST_SPREAD), np.inf)
            start += width
        return cls(centre, scale * (float(np.sqrt(np.sum((spread / scale) ** 2))) or 1.0))

    @classmethod
    def none(cls, dimensions: int) -> Standardisation:
        """The one that changes nothing."""
        return cls(np.zeros(dimensions), np.ones(dimensions))

    def __call__(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Standardise, shape (n, d)."""
        standard = embeddings - self.centre.astype(np.float32)
        standard /= self.scale.astype(np.float32)
        return standard

    def folded(
        self, weights: NDArray[np.float64], biases: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Weights (m, d) and biases (m,) for raw embeddings, from those for standardised ones."""
        raw = weights / self.scale
        return raw, biases - raw @ self.centre


def _squares(rows: NDArray[np.float32], centre: NDArray[np.float64]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = np.sum((rows - centre) ** 2, axis=0)
    return found


def embedded_rows(embedder: Embedder, prompts: Sequence[str], *, progress: bool) -> NDArray[np.float32]:
    """Embed the training prompts.

    Args:
        embedder: The embedder.
        prompts: p texts, at least one.
        progress: Whether to show a bar on stderr.

    Returns:
        Shape (p, d), float32.

    Raises:
        ConfigurationError: The embedder does not give one row a text.
        DataError: It gave a number that is not finite.
    """
    blocks = embedded(embedder, prompts, progress=progress)
    rows = np.concatenate([np.asarray(block, dtype=np.float32) for block in blocks])
    if rows.ndim != 2 or not rows.shape[1]:  # noqa: PLR2004 - a matrix
        msg = f"{type(embedder).__name__} must embed {len(prompts)} prompts as one row each, got shape {rows.shape}"
        raise DataError(msg)
    finite = np.isfinite(rows).all(axis=1)
    if not finite.all():
        wrong = reprlib.repr(prompts[int(np.argmin(finite))])
        msg = f"{type(embedder).__name__} gave numbers that are not finite for {wrong}; leave such prompts out"
        raise DataError(msg)
    return rows


def part_widths(embedder: Embedder, dimensions: int) -> list[int]:
    """Dimensions of each part of a concatenated embedder; all in one where they are not known."""
    parts = getattr(embedder, "parts", ())
    widths = [int(getattr(part, "dimensions", None) or 0) for part in parts]
    return widths if all(widths) and sum(widths) == dimensions else [dimensions]


def finite_array(values: ArrayLike, shape: tuple[int | None, ...], name: str) -> NDArray[np.float64]:
    """Numbers of this shape; a wrong one would otherwise fail at every prompt, where routing hides it.

    Args:
        values: What was given.
        shape: None for an axis of any length.
        name: What it is called.

    Returns:
        A read-only array, for threads share it.

    Raises:
        ConfigurationError: It has another shape or a number that is not finite.
    """
    try:
        array = np.asarray(values, dtype=np.float64).view()
    except (TypeError, ValueError):
        array = np.empty(0)
    fits = array.ndim == len(shape) and all(want in {None, size} for want, size in zip(shape, array.shape, strict=True))
    if not fits or not np.isfinite(array).all():
        wanted = " x ".join("d" if size is None else str(size) for size in shape)
        found = f"shape {array.shape}" if array.size else reprlib.repr(values)
        kind = "" if np.isfinite(array).all() else ", not all finite"
        msg = f"{name} must be {wanted} finite numbers, got {found}{kind}"
        raise ConfigurationError(msg)
    array.flags.writeable = False
    return array
