"""An index of embeddings: the cosine of a query with every prompt, in one matrix product."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from prefroute.errors import ConfigurationError, PersistenceError
from prefroute.routers import _fast_products

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from prefroute.embedding import Embedder


IndexDtype = Literal["float32", "bfloat16", "int8"]

INDEX_FILE = "index.npy"

DEFAULT_EMBEDDER = "static+surface"
"""The bundled one beside the surface of the prompt: similar then means alike in kind too, not in subject alone."""

_STORED: dict[str, type[np.generic]] = {"float32": np.float32, "bfloat16": np.uint16, "int8": np.int8}
"""How each kind lies in memory; numpy has no bfloat16, so its bits are kept."""

_BLOCK = 2**18
"""Numbers worked on at a time where a block is unpacked or copied: 1 MB of float32, which stays in the cache."""

_PRODUCT = 2**12
"""Rows multiplied at a time: the BLAS packs what it multiplies, and for all rows at once that takes 50 MB more."""

_RESULTS, _SHARE = 2**22, 24
"""Cosines computed at a time: 16 MB of them, or a 24th of the index where that is more."""

_NO_DIRECTION = 1e-6
"""What differs from the mean by less has no direction but that of rounding."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SimilarityIndex:
    """Unit vectors of p prompts, d numbers each. Immutable, safe to share between threads.

    Attributes:
        rows: float32, bfloat16 (its bits as uint16) or int8, shape (p, d). A row may be all zero: its
            cosine with anything is 0.
        mean: What is subtracted from every unit vector before it is scaled to length 1 again, shape (d,);
            None for nothing.
        scales: What a row of int8 is multiplied with to have length 1, shape (p,).

    Raises:
        ConfigurationError: The parts do not fit each other.
    """

    rows: NDArray[Any]
    mean: NDArray[np.float32] | None = None
    scales: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        """Refuse parts that would fail at every query."""
        if self.rows.ndim != 2 or not self.rows.size or self.rows.dtype not in _STORED.values():  # noqa: PLR2004
            msg = f"an index needs at least one row of float32, uint16 or int8, got {self.rows.dtype} {self.rows.shape}"
            raise ConfigurationError(msg)
        scaled = self.rows.dtype == np.int8
        _check_part("mean", self.mean, None if self.mean is None else self.dimensions)
        _check_part("scales", self.scales, len(self.rows) if scaled else None)

    def __len__(self) -> int:
        """Number of prompts p."""
        return len(self.rows)

    @property
    def dimensions(self) -> int:
        """Length d of a row."""
        return int(self.rows.shape[1])

    @property
    def dtype(self) -> IndexDtype:
        """How the rows are stored."""
        return next(name for name in get_args(IndexDtype) if self.rows.dtype == _STORED[name])

    @property
    def batch_size(self) -> int:
        """Queries whose cosines take a bounded amount of memory."""
        return max(1, max(_RESULTS, self.rows.size // _SHARE) // len(self))

    def batches(self, count: int) -> Iterator[slice]:
        """Cut `count` queries into batches."""
        return (slice(start, start + self.batch_size) for start in range(0, count, self.batch_size))

    def prepare(self, embeddings: object) -> NDArray[np.float32]:
        """Bring embeddings of queries to where the rows are: length 1, centred if these are.

        Args:
            embeddings: Shape (n, d).

        Returns:
            Shape (n, d), float32.

        Raises:
            ConfigurationError: Another shape, or something that is not a finite number.
        """
        return moved(unit_rows(embeddings, self.dimensions), self.mean)

    def cosines(self, queries: NDArray[np.float32]) -> NDArray[np.float32]:
        """Cosine of every row with every query.

        bfloat16 and int8 are multiplied as they are by torch, where that is installed and the CPU can; the
        query is then rounded alike. Otherwise numpy unpacks the rows block by block and multiplies in float32.

        Args:
            queries: From `prepare`, shape (b, d).

        Returns:
            A new array, shape (p, b). Rows first: sums over rows then run through memory in order.
        """
        if self.rows.dtype == np.uint16 and _fast_products.has_bfloat16():
            return _fast_products.bfloat16_product(self.rows, queries)
        if self.scales is not None and self.dimensions > 1 and _fast_products.has_int8():
            return _fast_products.int8_product(self.rows, self.scales, queries)
        stored = self.rows.dtype == np.float32
        if stored and len(queries) == 1:
            product: NDArray[np.float32] = self.rows @ queries.T
            return product
        found = np.empty((len(self), len(queries)), dtype=np.float32)
        for block in _slices(len(self), _PRODUCT) if stored else _blocks(len(self), self.dimensions):
            np.matmul(self.rows[block] if stored else self.unpacked(block), queries.T, out=found[block])
        return found

    def unpacked(self, chosen: slice | NDArray[np.integer]) -> NDArray[np.float32]:
        """Some rows as unit vectors in float32, which `cosines` takes as queries; shape (k, d)."""
        rows = self.rows[chosen]
        if self.rows.dtype == np.uint16:
            bits: NDArray[np.uint32] = np.left_shift(rows, 16, dtype=np.uint32)
            return bits.view(np.float32)
        unpacked: NDArray[np.float32] = rows.astype(np.float32)
        if self.scales is not None:
            unpacked *= self.scales[chosen][:, None]
        return unpacked

    def rearranged(self, order: NDArray[np.integer], more: SimilarityIndex | None = None) -> SimilarityIndex:
        """The rows of this index and of `more` in another order, with one copy of them.

        Args:
            order: Which row comes where; the rows of `more` are counted on from `len(self)`.
            more: Rows of the same dtype and mean.

        Returns:
            A new index, of `len(order)` rows.
        """
        rows = np.empty((len(order), self.dimensions), dtype=self.rows.dtype)
        for block in _blocks(len(order), self.dimensions):
            chosen, target = order[block], rows[block]
            own = chosen < len(self)
            target[own] = self.rows[chosen[own]]
            if more is not None:
                target[~own] = more.rows[chosen[~own] - len(self)]
        scales = self.scales
        if scales is not None:
            both = scales if more is None or more.scales is None else np.concatenate([scales, more.scales])
            scales = both[order]
        return SimilarityIndex(rows=rows, mean=self.mean, scales=scales)

    def mean_row(self) -> NDArray[np.float32]:
        """The mean of the rows of an index in float32, shape (d,)."""
        mean: NDArray[np.float32] = self.rows.mean(axis=0, dtype=np.float64).astype(np.float32)
        return mean

    def inverse_distances(self, mean: NDArray[np.float32]) -> NDArray[np.float32]:
        """1 / distance of each row from `mean`; 0 for a row that `moved` leaves without a direction; shape (p,)."""
        found = np.empty(len(self), dtype=np.float32)
        for block in _blocks(len(self), self.dimensions):
            norms = _norms(self.rows[block] - mean)
            known = self.rows[block].any(axis=1) & (norms > _NO_DIRECTION)
            found[block] = np.divide(1.0, norms, out=np.zeros_like(norms), where=known)
        return found

    def centred(self, *, in_place: bool = False) -> SimilarityIndex:
        """An index in float32 with the mean of its rows subtracted.

        Args:
            in_place: Overwrite the rows of this one, which cannot be used any more.

        Returns:
            The new index.
        """
        mean = self.mean_row()
        rows = self.rows if in_place else np.empty_like(self.rows)
        for block in _blocks(len(self), self.dimensions):
            rows[block] = moved(self.rows[block], mean)
        return SimilarityIndex(rows=rows, mean=mean)

    def packed(self, dtype: IndexDtype) -> SimilarityIndex:
        """An index in float32 as one of another dtype; the same index for float32."""
        if dtype == self.dtype:
            return self
        blocks = (self.rows[block] for block in _blocks(len(self), self.dimensions))
        return build_index(blocks, len(self), dtype=dtype, mean=self.mean, ready=True)

    def save(self, folder: Path) -> None:
        """Write the rows to `index.npy`."""
        np.save(folder / INDEX_FILE, np.asarray(self.rows), allow_pickle=False)

    @property
    def tensors(self) -> dict[str, NDArray[Any]]:
        """The small parts, for a router's safetensors."""
        parts = {"index_mean": self.mean, "index_scales": self.scales}
        return {name: part for name, part in parts.items() if part is not None}

    @classmethod
    def load(cls, folder: Path, tensors: dict[str, NDArray[Any]]) -> SimilarityIndex:
        """Map `index.npy` into memory: nothing is read until it is used, and processes share it.

        Raises:
            PersistenceError: The file is missing or damaged, or the small parts do not fit it.
        """
        path = folder / INDEX_FILE
        try:
            # Copy on write, though nothing writes: torch warns of every array that is read-only.
            rows = np.asarray(np.load(path, mmap_mode="c", allow_pickle=False))
            return cls(
                rows=np.ascontiguousarray(rows), mean=tensors.get("index_mean"), scales=tensors.get("index_scales")
            )
        except Exception as error:  # A damaged header raises whatever numpy's parser of it does.
            msg = f"{path} cannot be read: {error}; save the router again or fetch the folder anew"
            raise PersistenceError(msg) from error


def build_index(
    blocks: Iterable[object],
    count: int,
    *,
    dtype: IndexDtype = "float32",
    mean: NDArray[np.float32] | None = None,
    ready: bool = False,
) -> SimilarityIndex:
    """Build an index from embeddings that come in blocks, holding no more than it and one block.

    Args:
        blocks: Embeddings in order, shapes (k, d).
        count: Rows in all, p.
        dtype: How to store them: float32 is exact, bfloat16 takes half and int8 a quarter of the memory.
        mean: What to subtract; see `SimilarityIndex`.
        ready: The blocks are unit vectors already, less the mean.

    Returns:
        The index.

    Raises:
        ConfigurationError: Blocks of another shape, or other than finite numbers; an unknown dtype.
    """
    if dtype not in _STORED:
        msg = f"index_dtype must be one of {', '.join(_STORED)}; got {dtype!r}"
        raise ConfigurationError(msg)
    rows: NDArray[Any] | None = None
    scales = np.zeros(count, dtype=np.float32) if dtype == "int8" else None
    filled = 0
    for block in blocks:
        units = unit_rows(block, None if rows is None else rows.shape[1]) if not ready else np.asarray(block)
        units = units if ready else moved(units, mean)
        rows = np.empty((count, units.shape[1]), dtype=_STORED[dtype]) if rows is None else rows
        target = slice(filled, filled + len(units))
        filled += len(units)
        if filled > count:
            break
        rows[target], norms = _pack(units, dtype)
        if scales is not None:
            scales[target] = norms
    if rows is None or filled != count:
        msg = f"an index of {count} prompts needs as many embeddings, at least one; got {filled}"
        raise ConfigurationError(msg)
    return SimilarityIndex(rows=rows, mean=mean, scales=scales)


def check_embedder(embedder: Embedder, index: SimilarityIndex) -> None:
    """Refuse an embedder that says it gives vectors of another length than those in the index.

    Raises:
        ConfigurationError: It does.
    """
    dimensions = getattr(embedder, "dimensions", None)
    if isinstance(dimensions, int) and dimensions != index.dimensions:
        msg = (
            f"the embedder gives {dimensions} numbers a prompt, the index has {index.dimensions}; "
            "use the embedder that the router was trained with"
        )
        raise ConfigurationError(msg)


def unit_rows(embeddings: object, dimensions: int | None = None) -> NDArray[np.float32]:
    """Scale rows to length 1; one that is all zero stays so.

    Args:
        embeddings: Shape (n, d).
        dimensions: The d wanted; None for any.

    Returns:
        A new array, shape (n, d).

    Raises:
        ConfigurationError: Another shape, or something that is not a finite number.
    """
    try:
        rows = np.array(embeddings, dtype=np.float32)
    except (TypeError, ValueError) as error:
        msg = f"embeddings must be numbers, one row a prompt: {error}"
        raise ConfigurationError(msg) from None
    if rows.ndim != 2 or not rows.shape[1] or dimensions not in {None, rows.shape[1]}:  # noqa: PLR2004 - a matrix
        wanted = "one row a prompt" if dimensions is None else f"rows of {dimensions} numbers, as in the index"
        msg = f"embeddings must be {wanted}, got shape {rows.shape}; use the embedder that the router was trained with"
        raise ConfigurationError(msg)
    largest = np.abs(rows).max(axis=1, initial=0.0)
    if not np.isfinite(largest).all():
        msg = f"embeddings must be finite; row {int(np.argmin(np.isfinite(largest)))} is not"
        raise ConfigurationError(msg)
    # Divided by the largest number first: squares of very large or small ones leave the range of float32.
    _divide_rows(rows, largest)
    _divide_rows(rows, _norms(rows))
    return rows


def moved(units: NDArray[np.float32], mean: NDArray[np.float32] | None) -> NDArray[np.float32]:
    """Unit vectors less a mean, of length 1 again; shape (n, d).

    Args:
        units: Shape (n, d); a row that is all zero stays so.
        mean: Shape (d,); None for the same array.
    """
    if mean is None:
        return units
    found = units - mean
    norms = _norms(found)
    _divide_rows(found, np.where(norms > _NO_DIRECTION, norms, np.inf).astype(np.float32))
    # A text that the embedder knows nothing of stays without a direction.
    found[~units.any(axis=1)] = 0.0
    return found


def _norms(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    norms: NDArray[np.float32] = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    return norms


def _divide_rows(rows: NDArray[np.float32], by: NDArray[np.float32]) -> None:
    np.divide(rows, by[:, None], out=rows, where=by[:, None] > 0)


def _pack(units: NDArray[np.float32], dtype: IndexDtype) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """Rows as they are stored, and what each is multiplied with to have length 1."""
    if dtype == "bfloat16":
        bits = np.ascontiguousarray(units).view(np.uint32)
        # Round to nearest, ties to even, as hardware does.
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16), np.ones(len(units), dtype=np.float32)
    if dtype == "int8":
        steps = units.copy()
        _divide_rows(steps, np.abs(units).max(axis=1) / _fast_products.LEVELS)
        np.rint(steps, out=steps)
        norms = _norms(steps)
        inverse: NDArray[np.float32] = np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)
        return steps.astype(np.int8), inverse
    return units, np.ones(len(units), dtype=np.float32)


def _blocks(count: int, dimensions: int) -> Iterator[slice]:
    return _slices(count, max(1, _BLOCK // dimensions))


def _slices(count: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


def _check_part(name: str, part: Any, length: int | None) -> None:
    if length is None:
        fits = part is None
    else:
        fits = isinstance(part, np.ndarray) and part.dtype == np.float32 and part.shape == (length,)
        fits = fits and bool(np.isfinite(part).all())
    if not fits:
        found = f"{part.dtype} {part.shape}" if isinstance(part, np.ndarray) else repr(part)
        wanted = "left out" if length is None else f"{length} finite numbers of float32"
        msg = f"{name} of this index must be {wanted}, got {found}"
        raise ConfigurationError(msg)
