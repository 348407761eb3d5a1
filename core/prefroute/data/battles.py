"""The battle table: every schema is read into it, every router is trained from it."""

from __future__ import annotations

import reprlib
from array import array
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from prefroute.errors import DataError
from prefroute.types import Battle, ModelPair

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

Selection: TypeAlias = "slice | NDArray[np.bool_] | NDArray[np.integer] | Sequence[int]"


class PairLabels(NamedTuple):
    """What the battles of one pair of models say about each prompt.

    Attributes:
        prompts: k distinct prompts.
        outcomes: P(strong wins) as observed: the weighted mean over the prompt's battles, shape (k,).
        weights: Summed weight of those battles, shape (k,).
    """

    prompts: list[str]
    outcomes: NDArray[np.float64]
    weights: NDArray[np.float64]


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Battles:
    """An immutable table of n battles over p distinct prompts between m models, kept by column.

    Each distinct prompt is stored, and later embedded, once. Made with `from_rows`, `concatenate` or the
    readers; the constructor takes ready columns and checks them.

    Attributes:
        prompts: The p distinct prompts, in order of first appearance.
        models: The m names, sorted.
        sources: Names of the sources, sorted.
        prompt_index: Prompt of each battle, a position in `prompts`, shape (n,).
        model_a: One model of each battle, a position in `models`, shape (n,).
        model_b: The other, shape (n,).
        outcomes: Probability that `model_a` wins, in [0, 1], shape (n,).
        weights: How much each battle counts, above 0, shape (n,).
        source_index: Source of each battle, a position in `sources`, shape (n,).

    Raises:
        DataError: Columns differ in length, point outside their tables, or hold what no battle has.
    """

    prompts: tuple[str, ...]
    models: tuple[str, ...]
    sources: tuple[str, ...]
    prompt_index: NDArray[np.int32]
    model_a: NDArray[np.int32]
    model_b: NDArray[np.int32]
    outcomes: NDArray[np.float64]
    weights: NDArray[np.float64]
    source_index: NDArray[np.int32]

    def __post_init__(self) -> None:
        """Freeze the columns and refuse what is not a table of battles."""
        for field in fields(self)[3:]:
            dtype = np.float64 if field.name in {"outcomes", "weights"} else np.int32
            column = np.asarray(getattr(self, field.name), dtype=dtype).view()
            column.flags.writeable = False
            object.__setattr__(self, field.name, column)
        _check(self)

    @classmethod
    def from_rows(cls, rows: Iterable[Battle]) -> Battles:
        """Collect battles.

        Args:
            rows: n battles.

        Returns:
            The table.

        Raises:
            DataError: A row is no battle; says which.
        """
        columns = BattleColumns()
        for number, row in enumerate(rows):
            try:
                columns.add(row.prompt, row.model_a, row.model_b, row.outcome, row.weight, row.source)
            except (AttributeError, TypeError, ValueError) as error:
                msg = f"row {number} is no battle: {error}; got {reprlib.repr(row)}"
                raise DataError(msg) from error
        return columns.table()

    @classmethod
    def concatenate(cls, tables: Sequence[Battles]) -> Battles:
        """One table of all; prompts, models and sources of one spelling become one."""
        prompts, prompt_places = _union([table.prompts for table in tables], ordered=False)
        models, model_places = _union([table.models for table in tables], ordered=True)
        sources, source_places = _union([table.sources for table in tables], ordered=True)

        def joined(name: str, places: list[NDArray[np.int32]] | None = None) -> NDArray[Any]:
            columns: list[NDArray[Any]] = [getattr(table, name) for table in tables]
            if places is not None:
                columns = [place[column] for place, column in zip(places, columns, strict=True)]
            return np.concatenate([np.empty(0, dtype=np.int32 if places else np.float64), *columns])

        return cls(
            prompts=prompts,
            models=models,
            sources=sources,
            prompt_index=joined("prompt_index", prompt_places),
            model_a=joined("model_a", model_places),
            model_b=joined("model_b", model_places),
            outcomes=joined("outcomes"),
            weights=joined("weights"),
            source_index=joined("source_index", source_places),
        )

    def __len__(self) -> int:
        """Number of battles."""
        return len(self.outcomes)

    def __iter__(self) -> Iterator[Battle]:
        """The battles, one by one."""
        columns = (self.prompt_index, self.model_a, self.model_b, self.outcomes, self.weights, self.source_index)
        for prompt, a, b, outcome, weight, source in zip(*(column.tolist() for column in columns), strict=True):
            yield Battle(self.prompts[prompt], self.models[a], self.models[b], outcome, weight, self.sources[source])

    def __getitem__(self, rows: Selection) -> Battles:
        """The chosen battles, with the prompts and models that they name."""
        chosen = replace(self, **{f.name: getattr(self, f.name)[rows] for f in fields(self)[3:]})
        return _compacted(chosen)

    def __repr__(self) -> str:
        """Sizes alone; prompts may be private."""
        return f"Battles({len(self)} battles, {len(self.prompts)} prompts, {len(self.models)} models)"

    def with_columns(
        self, *, outcomes: NDArray[np.float64] | None = None, weights: NDArray[np.float64] | None = None
    ) -> Battles:
        """The same battles with other outcomes or weights."""
        return replace(
            self,
            outcomes=self.outcomes if outcomes is None else outcomes,
            weights=self.weights if weights is None else weights,
        )

    def map_prompts(self, function: Callable[[str], str]) -> Battles:
        """The same battles with every prompt replaced; prompts that become equal become one.

        Args:
            function: Gives the new text of a prompt; called once for each distinct one.

        Raises:
            DataError: It gave something that is not text.
        """
        new = tuple(function(prompt) for prompt in self.prompts)
        wrong = next((text for text in new if not isinstance(text, str)), None)
        if wrong is not None or None in new:
            msg = f"map_prompts must give texts, got {type(wrong).__name__}: {reprlib.repr(wrong)}"
            raise DataError(msg)
        prompts, (places,) = _union([new], ordered=False)
        return replace(self, prompts=prompts, prompt_index=places[self.prompt_index])

    def between(self, pair: ModelPair) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
        """Find the battles between these two models.

        Args:
            pair: The models; one that the table lacks has none.

        Returns:
            Which battles they are, shape (n,), and P(strong wins) as observed in each of the k of them, shape (k,).
        """
        strong, weak = (self.models.index(name) if name in self.models else -1 for name in (pair.strong, pair.weak))
        forward = (self.model_a == strong) & (self.model_b == weak)
        rows = forward | ((self.model_a == weak) & (self.model_b == strong))
        return rows, np.where(forward, self.outcomes, 1.0 - self.outcomes)[rows]

    def for_pair(self, pair: ModelPair) -> PairLabels:
        """Label prompts by the battles between these two models.

        Args:
            pair: The models.

        Returns:
            One label a prompt that has such a battle, in order of `prompts`.

        Raises:
            DataError: There is no such battle; names the models that the table has.
        """
        rows, outcomes = self.between(pair)
        if not rows.any():
            msg = (
                f"no battle between {pair.strong!r} and {pair.weak!r} among {len(self)}; "
                f"models: {reprlib.repr(list(self.models))}. Name two models that were compared with each other"
            )
            raise DataError(msg)
        index, weights = self.prompt_index[rows], self.weights[rows]
        size = len(self.prompts)
        total = np.bincount(index, weights, size).astype(np.float64)
        won = np.bincount(index, weights * outcomes, size)
        present = np.flatnonzero(total)
        return PairLabels(
            [self.prompts[i] for i in present], np.clip(won[present] / total[present], 0.0, 1.0), total[present]
        )


class BattleColumns:
    """Collects battles one by one, by column."""

    def __init__(self) -> None:
        self._prompts: dict[str, int] = {}
        self._models: dict[str, int] = {}
        self._sources: dict[str, int] = {}
        self._pointers = tuple(array("i") for _ in range(4))
        self._numbers = (array("d"), array("d"))

    def add(  # noqa: PLR0917 - the columns, in their order, a million times
        self, prompt: str, model_a: str, model_b: str, outcome: float, weight: float, source: str
    ) -> None:
        """Add one battle.

        Raises:
            TypeError: A number is none, or a name cannot be looked up.
            ValueError: A number is a text that is none.
        """
        prompts, models, sources = self._prompts, self._models, self._sources
        outcomes, weights = self._numbers
        outcome, weight = float(outcome), float(weight)
        for pointer, place in zip(
            self._pointers,
            (
                prompts.setdefault(prompt, len(prompts)),
                models.setdefault(model_a, len(models)),
                models.setdefault(model_b, len(models)),
                sources.setdefault(source, len(sources)),
            ),
            strict=True,
        ):
            pointer.append(place)
        outcomes.append(outcome)
        weights.append(weight)

    def table(self) -> Battles:
        """The battles collected so far.

        Raises:
            DataError: One is not possible; says which.
        """
        prompt_index, model_a, model_b, source_index = (np.array(pointer, dtype=np.int32) for pointer in self._pointers)
        models, places = _sorted(self._models)
        sources, source_places = _sorted(self._sources)
        return Battles(
            prompts=tuple(self._prompts),
            models=models,
            sources=sources,
            prompt_index=prompt_index,
            model_a=places[model_a],
            model_b=places[model_b],
            outcomes=np.array(self._numbers[0]),
            weights=np.array(self._numbers[1]),
            source_index=source_places[source_index],
        )


def _sorted(positions: dict[str, int]) -> tuple[tuple[str, ...], NDArray[np.int32]]:
    """Names in order, and the new place of each old position."""
    names = list(positions)
    try:
        order = sorted(range(len(names)), key=names.__getitem__)
    except TypeError:
        wrong = next(name for name in names if not isinstance(name, str))
        msg = f"models and sources must be named by str, got {wrong!r} ({type(wrong).__name__})"
        raise DataError(msg) from None
    places = np.empty(len(names), dtype=np.int32)
    places[order] = np.arange(len(names), dtype=np.int32)
    return tuple(names[i] for i in order), places


def _union(tables: list[tuple[str, ...]], *, ordered: bool) -> tuple[tuple[str, ...], list[NDArray[np.int32]]]:
    """All names, and for each table the place of its names among them."""
    names = dict.fromkeys(name for table in tables for name in table)
    listed = sorted(names) if ordered else list(names)
    place = {name: i for i, name in enumerate(listed)}
    return tuple(listed), [np.array([place[name] for name in table], dtype=np.int32) for table in tables]


def _check(table: Battles) -> None:
    n = len(table.outcomes)
    lengths = {field.name: len(getattr(table, field.name)) for field in fields(table)[3:]}
    if set(lengths.values()) != {n}:
        msg = f"the columns of a battle table must be equally long, got {lengths}"
        raise DataError(msg)
    for name in ("prompts", "models", "sources"):
        wrong = next((value for value in getattr(table, name) if not isinstance(value, str)), None)
        if wrong is not None:
            msg = f"{name} must be str, got {type(wrong).__name__}: {reprlib.repr(wrong)}"
            raise DataError(msg)
    pointers = (("prompt_index", "prompts"), ("model_a", "models"), ("model_b", "models"), ("source_index", "sources"))
    for column, values in pointers:
        index, size = getattr(table, column), len(getattr(table, values))
        _refuse(column, index, (index < 0) | (index >= size), f"a position among the {size} {values}")
    _refuse("outcome", table.outcomes, ~((table.outcomes >= 0) & (table.outcomes <= 1)), "in [0, 1]")
    _refuse("weight", table.weights, ~((table.weights > 0) & np.isfinite(table.weights)), "finite and above 0")
    same = table.model_a == table.model_b
    _refuse("model_b", table.model_b, same, "another model than model_a")


def _refuse(name: str, column: NDArray[np.generic], wrong: NDArray[np.bool_], wanted: str) -> None:
    if wrong.any():
        row = int(np.argmax(wrong))
        msg = f"battle {row}: {name} must be {wanted}, got {column[row]}; {int(wrong.sum())} such rows"
        raise DataError(msg)


def _compacted(table: Battles) -> Battles:
    """The same battles without the prompts, models and sources that none of them names."""
    kept, prompt_index = np.unique(table.prompt_index, return_inverse=True)
    models, model_index = np.unique(np.concatenate([table.model_a, table.model_b]), return_inverse=True)
    sources, source_index = np.unique(table.source_index, return_inverse=True)
    return replace(
        table,
        prompts=tuple(table.prompts[i] for i in kept),
        models=tuple(table.models[i] for i in models),
        sources=tuple(table.sources[i] for i in sources),
        prompt_index=prompt_index.astype(np.int32),
        model_a=model_index[: len(table)].astype(np.int32),
        model_b=model_index[len(table) :].astype(np.int32),
        source_index=source_index.astype(np.int32),
    )
