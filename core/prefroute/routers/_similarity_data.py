"""What a similarity-weighted router knows: prompts, battles, tiers. Immutable; changes make a new one."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from prefroute.data import prompt_hashes, text_hashes
from prefroute.errors import ConfigurationError, PersistenceError
from prefroute.routers._embedding import embedded
from prefroute.routers._index import SimilarityIndex, build_index
from prefroute.routers._placement import Placement
from prefroute.routers._tier_sums import RowBattles, TierSums

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from prefroute.data import Battles
    from prefroute.embedding import Embedder

_COLUMNS = {"rows": "i4", "model_a": "i4", "model_b": "i4", "outcomes": "f4", "weights": "f4"}
_TENSORS = {**_COLUMNS, "prompt_ids": "u8", "group_ids": "u8", "ratings": "f8", "tiers": "i4", "held_out": "f8"}
"""Dtypes of what is saved beside the index."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SimilarityData:
    """Prompts, the battles over them, and the tiers of their models.

    Attributes:
        index: Embeddings of p prompts.
        battles: Battles over the rows of the index.
        prompt_ids: A hash of each prompt, by which one that comes again is known, shape (p,), uint64.
        group_ids: The same of its spelling without case and spacing, shape (p,), uint64.
        placement: The models and their tiers.
        weight_unit: What battles' weights are divided by, their mean when the router was fitted, so that only their
            proportions count beside the ridge.
        held_out: Strengths of the tiers as seen from prompts whose own battles were kept out, from which
            thresholds are taken, shape (k, num_tiers).

    Raises:
        ConfigurationError: The parts do not fit each other.
    """

    index: SimilarityIndex
    battles: RowBattles
    prompt_ids: NDArray[np.uint64]
    group_ids: NDArray[np.uint64]
    placement: Placement
    weight_unit: float = 1.0
    held_out: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 0)))

    def __post_init__(self) -> None:
        """Refuse what would fail, or point anywhere, at every query."""
        wrong = [
            *_faults_of(self.battles, len(self.index), len(self.placement.models)),
            *(
                f"{name} of shape {getattr(self, name).shape} for an index of {len(self.index)}"
                for name in ("prompt_ids", "group_ids")
                if getattr(self, name).shape != (len(self.index),)
            ),
        ]
        held_out = self.held_out
        if held_out.size and (held_out.shape[1:] != (self.placement.num_tiers,) or not np.isfinite(held_out).all()):
            wrong.append(f"held-out strengths of shape {held_out.shape} for {self.placement.num_tiers} tiers")
        if not (np.isfinite(self.weight_unit) and self.weight_unit > 0):
            wrong.append(f"a unit of weight of {self.weight_unit}")
        if wrong:
            msg = f"the parts of a similarity-weighted router do not fit: {'; '.join(wrong)}"
            raise ConfigurationError(msg)

    @cached_property
    def sums(self) -> TierSums:
        """The battles by pair of tiers."""
        return TierSums.of(self.battles, self.placement.tiers, self.placement.num_tiers)

    @property
    def groups(self) -> NDArray[np.int64]:
        """A number of each row's prompt, the same for its spellings, shape (p,)."""
        numbers: NDArray[np.int64] = np.unique(self.group_ids, return_inverse=True)[1]
        return numbers

    def with_held_out(self, strengths: NDArray[np.float64]) -> SimilarityData:
        """The same with other held-out strengths."""
        return replace(self, held_out=strengths).with_sums(self.sums)

    def with_sums(self, sums: TierSums) -> SimilarityData:
        """The same, given its battles by pair of tiers, so that they need not be made again."""
        vars(self)["sums"] = sums
        return self

    @property
    def waiting(self) -> int:
        """Battles that do not count yet, for one of their models has no tier."""
        untiered = self.placement.tiers < 0
        return int((untiered[self.battles.model_a] | untiered[self.battles.model_b]).sum())

    def added(self, battles: Battles, embedder: Embedder, *, progress: bool = False) -> tuple[SimilarityData, int]:
        """Add battles; tiers stay as they are.

        Args:
            battles: At least one.
            embedder: Embeds the prompts that are new.
            progress: Show a bar on stderr.

        Returns:
            The new data, and how many prompts were new. The index is copied once, or shared where no prompt
            is new.
        """
        ids = text_hashes(battles.prompts)
        rows = _rows_of(ids, self.prompt_ids)
        new = np.flatnonzero(rows < 0)
        placement = self.placement.extended(battles.models)
        rows[new] = len(self.index) + np.arange(len(new))
        scaled = battles.with_columns(weights=battles.weights / self.weight_unit)
        joined = self.battles.extended(RowBattles.of(scaled, rows, placement.positions(battles.models)))
        if not len(new):
            return replace(self, battles=joined, placement=placement), 0
        blocks = embedded(embedder, [battles.prompts[i] for i in new], progress=progress)
        more = build_index(blocks, len(new), dtype=self.index.dtype, mean=self.index.mean)
        order = TierSums.of(joined, placement.tiers, placement.num_tiers).order(len(self.index) + len(new))
        data = SimilarityData(
            index=self.index.rearranged(order, more),
            battles=joined.moved(order),
            prompt_ids=np.concatenate([self.prompt_ids, ids[new]])[order],
            group_ids=np.concatenate([self.group_ids, prompt_hashes(battles.prompts[i] for i in new)])[order],
            placement=placement,
            weight_unit=self.weight_unit,
            held_out=self.held_out,
        )
        return data, len(new)

    def tiered(self, num_tiers: int | None) -> SimilarityData:
        """Rate the models and cut the tiers anew; models without battles keep their rating."""
        placement = Placement.fit(self.placement.models, self.battles, num_tiers)
        for name, rating in zip(self.placement.models, self.placement.ratings, strict=True):
            if np.isnan(placement.ratings[placement.positions((name,))[0]]) and not np.isnan(rating):
                placement = placement.placed(name, rating=float(rating))
        order = TierSums.of(self.battles, placement.tiers, placement.num_tiers).order(len(self.index))
        if np.array_equal(order, np.arange(len(order))):
            return replace(self, placement=placement, held_out=np.empty((0, 0)))
        return SimilarityData(
            index=self.index.rearranged(order),
            battles=self.battles.moved(order),
            prompt_ids=self.prompt_ids[order],
            group_ids=self.group_ids[order],
            placement=placement,
            weight_unit=self.weight_unit,
        )

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Everything but the rows of the index and the names."""
        columns = {name: vars(self.battles)[name] for name in _COLUMNS}
        rest = {
            "prompt_ids": self.prompt_ids,
            "group_ids": self.group_ids,
            "ratings": self.placement.ratings,
            "tiers": self.placement.tiers,
        }
        return columns | rest | {"held_out": self.held_out} | self.index.tensors

    @classmethod
    def load(
        cls,
        folder: Path,
        tensors: dict[str, NDArray[Any]],
        *,
        models: Sequence[str],
        num_tiers: int,
        weight_unit: float,
    ) -> SimilarityData:
        """Put together what was saved.

        Raises:
            PersistenceError: Something is missing, or does not fit.
        """
        wrong = [
            name for name, dtype in _TENSORS.items() if name not in tensors or tensors[name].dtype != np.dtype(dtype)
        ]
        if wrong:
            msg = f"{folder} lacks {', '.join(wrong)}, or has them of another dtype; save the router again"
            raise PersistenceError(msg)
        try:
            return cls(
                index=SimilarityIndex.load(folder, tensors),
                battles=RowBattles(**{name: tensors[name] for name in _COLUMNS}),
                prompt_ids=tensors["prompt_ids"],
                group_ids=tensors["group_ids"],
                placement=Placement(
                    models=tuple(models), ratings=tensors["ratings"], tiers=tensors["tiers"], num_tiers=num_tiers
                ),
                weight_unit=weight_unit,
                held_out=tensors["held_out"],
            )
        except ConfigurationError as error:
            msg = f"{folder}: {error}"
            raise PersistenceError(msg) from error


def _faults_of(battles: RowBattles, rows: int, models: int) -> Iterator[str]:
    """What is wrong with battles over an index of so many rows between so many models; at most one thing."""
    columns, count = vars(battles), len(battles)
    if any(column.shape != (count,) for column in columns.values()):
        yield f"columns of battles of shapes {[column.shape for column in columns.values()]}"
    elif count and not _within(battles.rows, rows):
        yield f"battles over prompts outside the index of {rows}"
    elif count and not (_within(battles.model_a, models) and _within(battles.model_b, models)):
        yield f"battles of models outside the {models} known"
    elif not ((battles.outcomes >= 0) & (battles.outcomes <= 1)).all():
        yield "outcomes outside [0, 1]"
    elif not ((battles.weights > 0) & np.isfinite(battles.weights)).all():
        yield "weights that are not finite and above 0"


def _rows_of(ids: NDArray[np.uint64], known: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Where each id stands among the known ones, -1 where it does not."""
    order = np.argsort(known)
    place = np.minimum(np.searchsorted(known, ids, sorter=order), len(known) - 1)
    rows: NDArray[np.int64] = order[place]
    return np.where(known[rows] == ids, rows, -1)


def _within(positions: NDArray[np.integer], size: int) -> bool:
    return bool(positions.min() >= 0 and positions.max() < size)
