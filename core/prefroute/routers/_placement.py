"""Models and the tiers they stand in, by name."""

from __future__ import annotations

import difflib
import re
import reprlib
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from prefroute.bradley_terry import optimal_tiers, rate_models, win_matrix
from prefroute.errors import ConfigurationError
from prefroute.inputs import finite_or_none
from prefroute.types import ModelPair

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from prefroute.routers._tier_sums import RowBattles

MOST_TIERS = 10
"""Tiers of the published router."""

_TIER_NAME = re.compile(r"tier ([1-9]\d{0,5})", re.IGNORECASE | re.ASCII)


@dataclass(frozen=True, kw_only=True, eq=False)
class Placement:
    """Where each model stands.

    Attributes:
        models: Names, in the order in which battles number them; m of them.
        ratings: Elo rating of each, 1000 being their mean; NaN for one that is not rated yet, shape (m,).
        tiers: Tier of each, 0 for the best; -1 for one that has none yet, shape (m,).
        num_tiers: Number of tiers.

    Raises:
        ConfigurationError: The parts do not fit each other.
    """

    models: tuple[str, ...]
    ratings: NDArray[np.float64]
    tiers: NDArray[np.int32]
    num_tiers: int

    def __post_init__(self) -> None:
        """Refuse what could not be looked up."""
        count = len(self.models)
        if len(set(self.models)) != count or self.ratings.shape != (count,) or self.tiers.shape != (count,):
            msg = (
                f"each model needs one name, rating and tier: {len(set(self.models))} names of {count} differ, "
                f"ratings {self.ratings.shape}, tiers {self.tiers.shape}"
            )
            raise ConfigurationError(msg)
        if self.num_tiers < 1 or ((self.tiers < -1) | (self.tiers >= self.num_tiers)).any():
            msg = f"tiers must be from 0 to {self.num_tiers - 1}, or -1, got {reprlib.repr(self.tiers.tolist())}"
            raise ConfigurationError(msg)
        placed = self.tiers >= 0
        if not np.isfinite(self.ratings[placed]).all() or len(np.unique(self.tiers[placed])) != self.num_tiers:
            msg = f"each of the {self.num_tiers} tiers needs a model, and each model in one a finite rating"
            raise ConfigurationError(msg)

    @classmethod
    def fit(cls, models: tuple[str, ...], battles: RowBattles, num_tiers: int | None) -> Placement:
        """Rate models by all battles, then cut them into tiers.

        Args:
            models: Names of the models that the battles number.
            battles: The battles; a model with none is left without a rating and a tier.
            num_tiers: Number of tiers; None for 10, or one a model where there are fewer.
        """
        met = np.unique(np.concatenate([battles.model_a, battles.model_b]))
        place = np.full(len(models), -1)
        place[met] = np.arange(len(met))
        wins = win_matrix(
            place[battles.model_a], place[battles.model_b], battles.outcomes, battles.weights, size=len(met)
        )
        rated = rate_models(wins)
        count = min(MOST_TIERS, len(met)) if num_tiers is None else num_tiers
        ratings, tiers = np.full(len(models), np.nan), np.full(len(models), -1, dtype=np.int32)
        ratings[met], tiers[met] = rated, optimal_tiers(rated, count)
        return cls(models=models, ratings=ratings, tiers=tiers, num_tiers=count)

    def tier_of(self, name: str) -> int:
        """Tier of a model, or of a tier's own name: `"tier 1"` is the best.

        Raises:
            ConfigurationError: The name is unknown, or has no tier yet.
        """
        if name in self._position:
            tier = int(self.tiers[self._position[name]])
            if tier < 0:
                msg = f"{name!r} came with battles that were added later and has no tier yet; call refit() first"
                raise ConfigurationError(msg)
            return tier
        named = _TIER_NAME.fullmatch(name)
        if named and int(named[1]) <= self.num_tiers:
            return int(named[1]) - 1
        raise ConfigurationError(self._unknown(name))

    def tiers_of(self, pair: ModelPair) -> tuple[int, int]:
        """Tiers of a pair.

        Raises:
            ConfigurationError: One is unknown, or both are in one tier.
        """
        if not isinstance(pair, ModelPair):
            msg = f"pair must be a ModelPair(strong=..., weak=...), got {type(pair).__name__}: {reprlib.repr(pair)}"
            raise ConfigurationError(msg)
        strong, weak = self.tier_of(pair.strong), self.tier_of(pair.weak)
        if strong == weak:
            inside = [name for name, tier in zip(self.models, self.tiers, strict=True) if tier == strong]
            others = [f"tier {tier + 1}" for tier in range(self.num_tiers) if tier != strong]
            remedy = f"name models of two tiers, one of {', '.join(others)}," if others else "name models of two tiers"
            msg = (
                f"{pair.strong!r} and {pair.weak!r} are both in tier {strong + 1} of {self.num_tiers} "
                f"({reprlib.repr(inside)}), so every prompt would score 0.5; {remedy} or train with more tiers"
            )
            raise ConfigurationError(msg)
        return strong, weak

    def placed(
        self, name: str, *, like: str | None = None, tier: int | None = None, rating: float | None = None
    ) -> Placement:
        """A placement that also knows `name`; see `SimilarityWeightedRouter.with_model`."""
        if not isinstance(name, str) or not name:
            msg = f"a model is named by a non-empty str, got {name!r}"
            raise ConfigurationError(msg)
        if name in self._position and self.tiers[self._position[name]] >= 0:
            msg = f"{name!r} is known already, in tier {self.tier_of(name) + 1}"
            raise ConfigurationError(msg)
        if [like, tier, rating].count(None) != 2:  # noqa: PLR2004 - one of three is given
            msg = f"place {name!r} by exactly one of like=, tier= and rating=; got {like!r}, {tier!r} and {rating!r}"
            raise ConfigurationError(msg)
        found, points = self._by_rating(rating) if rating is not None else self._by_tier(like, tier)
        if name not in self._position:
            return Placement(
                models=(*self.models, name),
                ratings=np.append(self.ratings, points),
                tiers=np.append(self.tiers, np.int32(found)),
                num_tiers=self.num_tiers,
            )
        ratings, tiers = self.ratings.copy(), self.tiers.copy()
        ratings[self._position[name]], tiers[self._position[name]] = points, found
        return Placement(models=self.models, ratings=ratings, tiers=tiers, num_tiers=self.num_tiers)

    def _by_rating(self, rating: object) -> tuple[int, float]:
        points = finite_or_none(rating)
        if points is None:
            msg = f"rating must be a finite number of Elo points (1000 is the mean), got {rating!r}"
            raise ConfigurationError(msg)
        distance = np.where(self.tiers >= 0, np.abs(self.ratings - points), np.inf)
        return int(self.tiers[np.nanargmin(distance)]), points

    def _by_tier(self, like: str | None, tier: int | None) -> tuple[int, float]:
        if like is not None:
            found = self.tier_of(like)
            if like in self._position:
                return found, float(self.ratings[self._position[like]])
        else:
            if isinstance(tier, bool) or not isinstance(tier, int) or not 1 <= tier <= self.num_tiers:
                msg = f"tier must be from 1, the best, to {self.num_tiers}; got {tier!r}"
                raise ConfigurationError(msg)
            found = tier - 1
        return found, float(self.ratings[self.tiers == found].mean())

    def extended(self, names: tuple[str, ...]) -> Placement:
        """A placement that also has these models, without a tier."""
        new = tuple(name for name in names if name not in self._position)
        return Placement(
            models=self.models + new,
            ratings=np.append(self.ratings, np.full(len(new), np.nan)),
            tiers=np.append(self.tiers, np.full(len(new), -1, dtype=np.int32)),
            num_tiers=self.num_tiers,
        )

    def positions(self, names: tuple[str, ...]) -> NDArray[np.int64]:
        """Where each of these known models stands in `models`."""
        return np.array([self._position[name] for name in names], dtype=np.int64)

    @cached_property
    def _position(self) -> dict[str, int]:
        return {name: position for position, name in enumerate(self.models)}

    def _unknown(self, name: str) -> str:
        near = difflib.get_close_matches(name, self.models, n=3, cutoff=0.5) or sorted(self.models)[:5]
        return (
            f"unknown model {reprlib.repr(name)}; {'near it' if near else 'known'}: {', '.join(near)} "
            f"({len(self.models)} known, and tier 1 to tier {self.num_tiers}). Place a model that the data lack with "
            "with_model(name, like=KNOWN), with_model(name, tier=NUMBER) or with_model(name, rating=ELO)"
        )
