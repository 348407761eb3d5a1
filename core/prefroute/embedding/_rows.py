"""What embedders answer, checked; shared by those whose rows come from somewhere else."""

from __future__ import annotations

import reprlib
from typing import TYPE_CHECKING

import numpy as np

from prefroute.errors import ConfigurationError, EmbeddingError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

MAX_CHARACTERS = 32_000
"""Characters of a text that a large model reads by default: about 8,000 tokens of English."""

PROBE = "."
"""Embedded when only the length of a row is wanted."""


def as_rows(values: object, *, count: int, dimensions: int | None, source: str) -> NDArray[np.float32]:
    """Check what a model answered, and scale each row to length 1.

    Args:
        values: Rows in any form that numpy takes.
        count: n, how many are wanted.
        dimensions: d, how long each must be; None for any one length.
        source: Names the model in messages.

    Returns:
        Shape (n, d); a row of zeros stays so.

    Raises:
        EmbeddingError: These are not n finite rows of one length d.
    """
    try:
        # A number beyond float32 becomes infinite, which is told below.
        with np.errstate(over="ignore"):
            rows = np.asarray(values, dtype=np.float32)
    except (TypeError, ValueError, OverflowError) as error:
        msg = f"{source} gave rows that are not lists of numbers of one length: {error}"
        raise EmbeddingError(msg) from error
    if rows.ndim != 2 or len(rows) != count or not rows.shape[1]:  # noqa: PLR2004 - a matrix
        msg = f"{source} gave an array of shape {rows.shape} for {count} texts; wanted one row a text"
        raise EmbeddingError(msg)
    if dimensions not in {None, rows.shape[1]}:
        msg = f"{source} gave rows of length {rows.shape[1]}, wanted {dimensions}; is it another model?"
        raise EmbeddingError(msg)
    if not np.isfinite(rows).all():
        bad = int(np.flatnonzero(~np.isfinite(rows).all(axis=1))[0])
        msg = f"{source} gave a row that is not finite, for text {bad} of {count}"
        raise EmbeddingError(msg)
    return scaled(rows)


def scaled(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows of length 1, shape (n, d); a row of zeros stays so."""
    wide = rows.astype(np.float64)  # The squares of float32 may overflow or vanish.
    norms = np.sqrt(np.einsum("ij,ij->i", wide, wide))[:, None]
    np.divide(wide, norms, out=wide, where=norms > 0)
    return wide.astype(np.float32)


def without_blanks(texts: Sequence[str], max_characters: int) -> tuple[list[str], list[int]]:
    """Cut texts, and leave out those of white space alone, which servers refuse.

    Args:
        texts: n texts, checked.
        max_characters: Characters kept of each.

    Returns:
        The others, and their places among the n.
    """
    cut = [text[:max_characters] for text in texts]
    places = [place for place, text in enumerate(cut) if text.strip()]
    return [cut[place] for place in places], places


def with_blanks(
    parts: Sequence[NDArray[np.float32]], places: Sequence[int], count: int, dimensions: int | None
) -> NDArray[np.float32]:
    """Put rows at their places among rows of zeros.

    Args:
        parts: Arrays of k rows in all; read for their length alone where k is 0.
        places: k places.
        count: n, how many rows are wanted.
        dimensions: d, needed where there are no parts.

    Returns:
        Shape (n, d).
    """
    if places and len(places) == count:
        return np.concatenate(parts)
    full = np.zeros((count, parts[0].shape[1] if parts else dimensions or 0), dtype=np.float32)
    if places:
        full[list(places)] = np.concatenate(parts)
    return full


def as_size(name: str, value: object) -> int:
    """Check a whole number of at least 1.

    Raises:
        ConfigurationError: It is anything else.
    """
    if type(value) is not int or value < 1:
        msg = f"{name} must be a whole number of at least 1, got {reprlib.repr(value)}"
        raise ConfigurationError(msg)
    return value
