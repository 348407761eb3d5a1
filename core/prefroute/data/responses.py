"""Response tables: prompts with the quality of each model's answer, and what battles they make."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from prefroute.data.battles import Battles, Selection, _union
from prefroute.data.report import refuse, shown
from prefroute.data.values import number_of, turn_reader
from prefroute.errors import ConfigurationError, DataError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from prefroute.data.formats import Layout
    from prefroute.data.values import Turn
    from prefroute.types import ModelPair

GOOD_ENOUGH = 0.75
"""How far up its scale a judge's score means that the weak model's answer will do: 4 of 1 to 5, as published."""


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class ResponseTable:
    """An immutable table of r rows: a prompt, and the quality of each of m models' answers to it.

    Attributes:
        prompts: r texts; one may recur, for several turns or judges, say.
        models: m names, in the order of the columns.
        quality: Shape (r, m), finite, higher is better; 1 and 0 for right and wrong.

    Raises:
        DataError: The shapes do not fit, models recur, or a quality is not finite.
    """

    prompts: tuple[str, ...]
    models: tuple[str, ...]
    quality: NDArray[np.float64]

    def __post_init__(self) -> None:
        """Freeze the array and refuse what is not such a table."""
        try:
            quality = np.asarray(self.quality, dtype=np.float64).view()
        except (TypeError, ValueError) as error:
            msg = f"quality must be numbers: {error}"
            raise DataError(msg) from error
        object.__setattr__(self, "prompts", tuple(self.prompts))
        object.__setattr__(self, "models", tuple(self.models))
        object.__setattr__(self, "quality", quality)
        quality.flags.writeable = False
        if quality.shape != (len(self.prompts), len(self.models)):
            msg = f"quality must be of shape {(len(self.prompts), len(self.models))}, got {quality.shape}"
            raise DataError(msg)
        if len(set(self.models)) != len(self.models):
            msg = f"models must differ, got {', '.join(self.models)}"
            raise DataError(msg)
        if not np.isfinite(quality).all():
            row, column = np.argwhere(~np.isfinite(quality))[0]
            msg = f"row {row}: the quality of {self.models[column]} must be finite, got {quality[row, column]}"
            raise DataError(msg)

    @classmethod
    def concatenate(cls, tables: Sequence[ResponseTable]) -> ResponseTable:
        """The rows of all, in order; their models must be the same.

        Raises:
            DataError: They are not, or there is no table.
        """
        if not tables or any(table.models != tables[0].models for table in tables):
            msg = f"tables of the same models can be joined, got {[list(table.models) for table in tables]}"
            raise DataError(msg)
        prompts = tuple(prompt for table in tables for prompt in table.prompts)
        return cls(prompts=prompts, models=tables[0].models, quality=np.concatenate([t.quality for t in tables]))

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.prompts)

    def __getitem__(self, rows: Selection) -> ResponseTable:
        """The chosen rows."""
        chosen = np.arange(len(self))[rows]
        prompts = tuple(self.prompts[row] for row in chosen)
        return ResponseTable(prompts=prompts, models=self.models, quality=self.quality[chosen])

    def __repr__(self) -> str:
        """Sizes alone; prompts may be private."""
        return f"ResponseTable({len(self)} rows, {len(self.models)} models)"

    def for_models(self, names: Sequence[str]) -> ResponseTable:
        """The columns of these models.

        Raises:
            DataError: One is unknown.
        """
        unknown = [name for name in names if name not in self.models]
        if unknown:
            msg = f"no model {', '.join(map(repr, unknown))} among {', '.join(map(repr, self.models))}"
            raise DataError(msg)
        columns = [self.models.index(name) for name in names]
        return ResponseTable(prompts=self.prompts, models=tuple(names), quality=self.quality[:, columns])

    def gains(self, pair: ModelPair) -> NDArray[np.float64]:
        """Quality of the strong model's answer minus the weak one's, shape (r,).

        Raises:
            DataError: A model is unknown.
        """
        quality = self.for_models((pair.strong, pair.weak)).quality
        return quality[:, 0] - quality[:, 1]

    def to_battles(self, *, margin: float = 0.0, source: str = "", weight: float = 1.0) -> Battles:
        """One battle a row between every two models: the one of higher quality wins.

        Golden labels make a win where one of the two is right, and else a tie, as published.

        Args:
            margin: Two qualities that differ by no more than this tie.
            source: Source of the battles.
            weight: Weight of each battle.

        Returns:
            r * m * (m - 1) / 2 battles, those of a row together.

        Raises:
            DataError: There are fewer than two models.
            ConfigurationError: The margin is not a number from 0 on.
        """
        if not (isinstance(margin, int | float) and margin >= 0 and np.isfinite(margin)):
            msg = f"margin must be a finite number from 0 on, got {shown(margin)}"
            raise ConfigurationError(msg)
        if len(self.models) < 2:  # noqa: PLR2004 - a battle has two sides
            msg = f"battles need at least two models, got {', '.join(self.models) or 'none'}"
            raise DataError(msg)
        first, second = np.array(list(combinations(range(len(self.models)), 2))).T
        gaps = self.quality[:, first] - self.quality[:, second]
        # Scores such as 0.3 and 0.1 differ by more than 0.2 in their last bit only.
        ties = np.abs(gaps) <= margin * (1.0 + 1e-12) if margin else gaps == 0.0
        outcomes = np.where(ties, 0.5, (gaps > 0).astype(np.float64)).ravel()
        prompts, (places,) = _union([self.prompts], ordered=False)
        names, (model_places,) = _union([self.models], ordered=True)
        return Battles(
            prompts=prompts,
            models=names,
            sources=(source,),
            prompt_index=np.repeat(places, len(first)),
            model_a=np.tile(model_places[first], len(self)),
            model_b=np.tile(model_places[second], len(self)),
            outcomes=outcomes,
            weights=np.full(len(outcomes), weight),
            source_index=np.zeros(len(outcomes), dtype=np.int32),
        )


def reference_battles(
    prompts: Sequence[str],
    scores: Sequence[float] | NDArray[np.float64],
    pair: ModelPair,
    *,
    scale: tuple[float, float] = (1.0, 5.0),
    good_enough: float | None = None,
    graded: bool = False,
    source: str = "",
) -> Battles:
    """Battles from scores that a judge gave the weak model's answers with the strong one's as reference.

    Args:
        prompts: n texts.
        scores: The weak model's score on each, shape (n,).
        pair: The models.
        scale: Lowest and highest score possible.
        good_enough: From this score on the weak model's answer will do, and it wins; below, the strong one wins.
            None for three quarters up the scale: 4 of 1 to 5, as in the published causal classifier's training.
        graded: Take the score itself for the outcome instead: the lowest is a sure win of the strong model,
            the highest a sure win of the weak one.
        source: Source of the battles.

    Returns:
        n battles.

    Raises:
        DataError: A score is outside the scale, or there are not as many as prompts.
        ConfigurationError: The scale or `good_enough` cannot be used.
    """
    low, high = _checked_scale(scale)
    limit = low + GOOD_ENOUGH * (high - low) if good_enough is None else good_enough
    if not low < limit <= high or (graded and good_enough is not None):
        msg = f"good_enough must lie on the scale above {low:g} up to {high:g}, without graded; got {good_enough!r}"
        raise ConfigurationError(msg)
    given = ResponseTable(prompts=tuple(prompts), models=("weak",), quality=np.asarray(scores).reshape(-1, 1))
    values = given.quality[:, 0]
    outside = (values < low) | (values > high)
    if outside.any():
        row = int(np.argmax(outside))
        msg = f"row {row}: score {values[row]:g} is not on the scale {low:g} to {high:g}; give scale= or drop such rows"
        raise DataError(msg)
    outcomes = (high - values) / (high - low) if graded else (values < limit).astype(np.float64)
    both = ResponseTable(prompts=given.prompts, models=(pair.strong, pair.weak), quality=np.zeros((len(given), 2)))
    return both.to_battles(source=source).with_columns(outcomes=outcomes)


def response_parser(
    layout: Layout, turn: Turn, scale: tuple[float, float] | None
) -> tuple[list[str], Callable[[tuple[Any, ...]], tuple[str, list[float]]]]:
    """What reads the rows of a response table; see `formats.battle_parser`."""
    low, high = (-np.inf, np.inf) if scale is None else _checked_scale(scale)
    read_prompt = turn_reader(turn, is_json=False)
    labels = [f"quality of {name}" for name in layout.columns]

    def parse(values: tuple[Any, ...]) -> tuple[str, list[float]]:
        prompt = read_prompt(values[0])
        qualities = [number_of(value, label) for value, label in zip(values[1:], labels, strict=True)]
        for quality, label in zip(qualities, labels, strict=True):
            if not low <= quality <= high:
                refuse(f"{label} is off the scale", f"{label} must be {low:g} to {high:g}, got {quality:g}")
        return prompt, qualities

    return [layout.prompt, *layout.columns], parse


def _checked_scale(scale: tuple[float, float]) -> tuple[float, float]:
    try:
        low, high = (float(end) for end in scale)
    except (TypeError, ValueError):
        low, high = np.nan, np.nan
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        msg = f"scale must be the lowest and the highest score possible, such as (1, 5); got {shown(scale)}"
        raise ConfigurationError(msg)
    return low, high
