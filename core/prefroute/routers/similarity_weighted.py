"""Similarity-weighted ranking (RouteLLM, arXiv 2406.18665, section 4.2): no training, one pass over the prompts."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from prefroute.bradley_terry import RIDGE
from prefroute.data import prompt_groups, prompt_hashes, text_hashes
from prefroute.embedding import save_embedder
from prefroute.errors import ConfigurationError, DataError, PersistenceError
from prefroute.evaluation import validate
from prefroute.inputs import as_seed, finite_or_none
from prefroute.persistence import CONFIG_FILE, EMBEDDER_FOLDER, SavedRouter, validated
from prefroute.routers._embedding import EmbeddingRouter, embedded, training_embedder
from prefroute.routers._index import DEFAULT_EMBEDDER, IndexDtype, SimilarityIndex, build_index, check_embedder
from prefroute.routers._placement import Placement
from prefroute.routers._similarity_choice import Candidate, choose, left_out_strengths, win_probabilities
from prefroute.routers._similarity_data import SimilarityData
from prefroute.routers._tier_sums import RowBattles, TierSums
from prefroute.routers._turns import Turn
from prefroute.types import ModelPair  # noqa: TC001 - read from the annotation when settings are checked

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Self

    from numpy.typing import NDArray

    from prefroute.data import Battles
    from prefroute.embedding import Embedder

logger = logging.getLogger(__name__)

_LARGEST_BASE = 1e12

_BASES = (10.0, 30.0, 100.0, 300.0)

_FEWEST_TO_CHOOSE_BY = 50
"""With fewer prompts a choice would be chance."""


@dataclass(frozen=True, kw_only=True)
class AddedBattles:
    """What `SimilarityWeightedRouter.add` did.

    Attributes:
        battles: Battles added.
        new_prompts: Prompts among them that the router did not know.
        new_models: Models that it did not know; they get a tier at `refit()`.
        waiting: All battles, these and earlier ones, that count only from the next `refit()` on, for one
            of their models has no tier yet.
    """

    battles: int
    new_prompts: int
    new_models: tuple[str, ...]
    waiting: int


@dataclass(frozen=True, kw_only=True)
class _Settings:
    """The fields of `config.json`."""

    pair: ModelPair
    base: float
    ridge: float
    seed: int
    models: list[str]
    num_tiers: int
    wanted_tiers: int | None
    weight_unit: float


class SimilarityWeightedRouter(EmbeddingRouter):
    """P(strong wins) from a Bradley-Terry fit in which battles over similar prompts weigh more.

    For a query q, battle i over a prompt p_i weighs w_i = base^(1 + s_i), with
    s_i = cos(e_q, e_i) / max_k cos(e_q, e_k). The strengths x of the tiers minimise
    sum_i w_i * logloss(outcome_i, sigmoid(x_a - x_b)), and P = sigmoid(x_tier(strong) - x_tier(weak)).

    The loss depends on the battles only through the summed weights of wins between tiers, so per query there
    is one matrix-vector product, one sum by pair of tiers, and Newton's method on as many unknowns as there
    are tiers. The published code fits a logistic regression on two rows a battle for every query instead. Its
    same-tier battles are noise and are left out here (`TierSums` says why), its ties count as here half a win
    each way, and a ridge far below the weight of one battle keeps P inside (0, 1) where the data are one-sided.

    Safe to share between threads: a query sees the router before or after `add` and `refit`, never between.

    Attributes:
        embedder: What embeds prompts.
        pair: The models, or tiers, that it routes between.
        base: What weighs similarity.
        ridge: What holds strengths together where data say nothing.
    """

    router_type: ClassVar[str] = "similarity-weighted"

    def __init__(
        self,
        *,
        embedder: Embedder,
        data: SimilarityData,
        pair: ModelPair,
        base: float = 10.0,
        ridge: float = RIDGE,
        seed: int = 0,
        num_tiers: int | None = None,
        threshold: float | None = None,
    ) -> None:
        """Put together a router from ready parts; `fit` makes one from battles.

        Args:
            embedder: The embedder that the index was made with.
            data: Prompts, battles and tiers.
            pair: Known models, or tiers as `"tier 1"`, the best.
            base: Above 1, up to 1e12.
            ridge: Above 0, the battle of an unrelated prompt being 1.
            seed: Draws the prompts that thresholds are taken from.
            num_tiers: Tiers to make at `refit`; None for 10, or one a model where there are fewer.
            threshold: The default threshold; None for the median score of training prompts whose own
                battles were kept out, where the data hold such.

        Raises:
            ConfigurationError: The parts do not fit each other, a model is unknown, or both are in one tier.
        """
        check_embedder(embedder, data.index)
        data.placement.tiers_of(pair)  # Refuses what cannot be routed.
        self.embedder = embedder
        self.pair = pair
        self.base = _checked_base(base)
        self.ridge = _checked_ridge(ridge)
        self.seed = as_seed(seed)
        self.num_tiers = num_tiers
        self._data = data
        self._scoring, self._writing = Turn(), Turn()
        self.threshold = _median_score(data, pair) if threshold is None else threshold

    @classmethod
    def fit(
        cls,
        battles: Battles,
        *,
        embedder: str | Path | Embedder | None = None,
        pair: ModelPair,
        num_tiers: int | None = None,
        base: float | Sequence[float] | None = None,
        centred: bool | None = None,
        index_dtype: IndexDtype = "float32",
        ridge: float = RIDGE,
        seed: int = 0,
        progress: bool = False,
    ) -> Self:
        """Rate the models, cut them into tiers and embed the prompts.

        Args:
            battles: Battles of any models; all of them count.
            embedder: An embedder, or its name as in `as_embedder`; None for the one that comes with the package
                beside the surface of the prompt.
            pair: The models to route between, or tiers as `"tier 1"`, the best.
            num_tiers: Number of tiers; None for 10 as published, or one a model where there are fewer.
            base: 10 as published. Of several, the one whose P has the least log loss in a 5-fold cross-validation
                over the prompts with battles between the two tiers; None for the best of 10, 30, 100 and 300.
            centred: Whether to subtract the mean embedding, which spreads the cosines; published: False. None to
                choose likewise. What is left open is as published where fewer than 50 prompts have such battles.
            index_dtype: `"float32"`; `"bfloat16"` for half the memory, or `"int8"` for a quarter. These two are also
                quicker than float32 where torch is installed and the CPU has instructions for them, and slower
                elsewhere.
            ridge: See `fit_bradley_terry`; the battle of mean weight over an unrelated prompt weighs 1.
            seed: Draws folds, and the prompts that the threshold is taken from.
            progress: Show bars on stderr.

        Returns:
            The router. Its threshold sends half of prompts like the training ones to the strong model.

        Raises:
            DataError: There are no battles.
            ConfigurationError: An argument cannot be used, a model is unknown, both models are in one tier, or
                there is nothing to choose by.
        """
        if not len(battles):
            msg = "there are no battles to learn from; give at least one between models of the two tiers"
            raise DataError(msg)
        candidates = _candidates(base, centred)
        _checked_ridge(ridge)
        as_seed(seed)
        embedder = training_embedder(embedder, battles.prompts, default=DEFAULT_EMBEDDER)
        unit = float(battles.weights.mean())
        battles = battles.with_columns(weights=battles.weights / unit)
        everyone = np.arange(len(battles.models))
        rows = RowBattles.of(battles, np.arange(len(battles.prompts)), everyone)
        placement = Placement.fit(battles.models, rows, num_tiers)
        tiers = placement.tiers_of(pair)  # Before hours of embedding.
        order = TierSums.of(rows, placement.tiers, placement.num_tiers).order(len(battles.prompts))
        rows = rows.moved(order)
        prompts = [battles.prompts[i] for i in order]
        sums = TierSums.of(rows, placement.tiers, placement.num_tiers)
        if len(sums.labels(*tiers)[0]) < _FEWEST_TO_CHOOSE_BY:
            candidates = _candidates(10.0 if base is None else base, bool(centred))

        several, late = len(candidates) > 1, any(candidate.centred for candidate in candidates)
        plain = build_index(
            embedded(embedder, prompts, progress=progress),
            len(prompts),
            dtype="float32" if several or late else index_dtype,
        )
        groups = prompt_groups(prompts)
        choice = choose(candidates, plain, sums, tiers=tiers, ridge=ridge, groups=groups, seed=seed, progress=progress)
        chosen = candidates[0] if choice is None else choice.best
        index = (plain.centred(in_place=True) if chosen.centred else plain).packed(index_dtype)
        data = SimilarityData(
            index=index,
            battles=rows,
            prompt_ids=text_hashes(prompts),
            group_ids=prompt_hashes(prompts),
            placement=placement,
            weight_unit=unit,
        ).with_sums(sums)
        router = cls(
            embedder=embedder,
            data=_with_held_out(data, chosen.base, ridge, seed, progress=progress),
            pair=pair,
            base=chosen.base,
            ridge=ridge,
            seed=seed,
            num_tiers=num_tiers,
        )
        if choice is not None:
            logger.info("chose %s; cross-validated log loss: %s", chosen, choice.losses)
            lengths = [len(prompts[row]) for row in choice.rows]
            router.validation = validate(choice.scores, choice.outcomes, lengths)
        router.note_training_prompts(prompts)
        return router

    @property
    def models(self) -> tuple[str, ...]:
        """Every model that it knows, sorted; those without a tier yet included."""
        return tuple(sorted(self._data.placement.models))

    @property
    def tiers(self) -> dict[str, int]:
        """Tier of each model that has one, 1 being the best."""
        placement = self._data.placement
        placed = zip(placement.models, placement.tiers.tolist(), strict=True)
        return {name: tier + 1 for name, tier in sorted(placed) if tier >= 0}

    @property
    def ratings(self) -> dict[str, float]:
        """Elo rating of each rated model, the mean of those with battles being 1000."""
        placement = self._data.placement
        rated = zip(placement.models, placement.ratings.tolist(), strict=True)
        return {name: rating for name, rating in sorted(rated) if rating == rating}  # noqa: PLR0124 - NaN: not rated

    @property
    def index(self) -> SimilarityIndex:
        """The embedded prompts."""
        return self._data.index

    def win_probability_of_embeddings(self, embeddings: NDArray[Any]) -> NDArray[np.float64]:
        """Estimate P(strong wins) for embeddings that are there already.

        Args:
            embeddings: Of the router's embedder, shape (n, d), of any length. All weights are equal for a
                row that is all zero.

        Returns:
            n probabilities, shape (n,).

        Raises:
            ConfigurationError: Another shape, or something that is not a finite number.
        """
        data = self._data
        strong, weak = data.placement.tiers_of(self.pair)
        queries = data.index.prepare(embeddings)
        scores = np.empty(len(queries))
        for batch in data.index.batches(len(queries)):
            with self._scoring:
                cosines = data.index.cosines(queries[batch])
            strengths = data.sums.strengths(cosines, base=self.base, ridge=self.ridge)
            scores[batch] = win_probabilities(strengths, strong, weak)
        return scores

    def with_pair(self, pair: ModelPair) -> Self:
        """A router for another pair, sharing all arrays, with that pair's threshold.

        What either of the two is later taught with `add` is its own.

        Args:
            pair: Known models, or tiers as `"tier 1"`.

        Returns:
            The router.

        Raises:
            ConfigurationError: A model is unknown, or both are in one tier.
        """
        return self._copy(self._data, pair, threshold=self.threshold if pair == self.pair else None)

    def with_model(
        self, name: str, *, like: str | None = None, tier: int | None = None, rating: float | None = None
    ) -> Self:
        """A router that also knows a model without battles, sharing all arrays.

        Args:
            name: The model.
            like: A known model, whose tier it gets; or
            tier: its tier, from 1, the best; or
            rating: its Elo rating on the scale of `ratings`: it gets the tier of the model rated nearest.

        Returns:
            The router, for the same pair; `with_pair` routes to the new model.

        Raises:
            ConfigurationError: Not exactly one of the three, or the model is known already.
        """
        placement = self._data.placement.placed(name, like=like, tier=tier, rating=rating)
        return self._copy(replace(self._data, placement=placement), self.pair, threshold=self.threshold)

    def add(self, battles: Battles, *, progress: bool = False) -> AddedBattles:
        """Learn more battles. Tiers stay as they are until `refit()`, and so does the threshold.

        A calibration is dropped, for scores are others then.
        Others may use the router meanwhile; of several writers one waits for the other. New prompts make a
        copy of the index, so collect battles and add them together.

        Args:
            battles: Battles; those of models without a tier are kept, and count from the next `refit()` on.
            progress: Show a bar on stderr.

        Returns:
            What was added, and what waits.
        """
        if not len(battles):
            return AddedBattles(battles=0, new_prompts=0, new_models=(), waiting=self._data.waiting)
        with self._writing:
            before = self._data.placement.models
            data, new_prompts = self._data.added(battles, self.embedder, progress=progress)
            _ = data.sums  # Now, rather than at the next query.
            self.note_training_prompts(battles.prompts)
            self._data = data
            self._forget_calibration()
        new_models = tuple(sorted(set(data.placement.models) - set(before)))
        if data.waiting:
            logger.warning("%d battles of models without a tier count only after refit()", data.waiting)
        return AddedBattles(battles=len(battles), new_prompts=new_prompts, new_models=new_models, waiting=data.waiting)

    def refit(self, *, progress: bool = False) -> None:
        """Rate the models and cut the tiers anew, so that all battles count.

        A threshold that was never set by hand becomes that of the new tiers.

        Args:
            progress: Show a bar on stderr.

        Raises:
            ConfigurationError: The pair now stands in one tier; the router then stays as it was.
        """
        with self._writing:
            data = self._data.tiered(self.num_tiers)
            data.placement.tiers_of(self.pair)
            data = _with_held_out(data, self.base, self.ridge, self.seed, progress=progress)
            own = self.threshold == _median_score(self._data, self.pair)
            self._data = data
            self._forget_calibration()
            if own:
                self.threshold = _median_score(data, self.pair)

    def _forget_calibration(self) -> None:
        """Scores are others now, and so what a strong-call rate takes."""
        if self.calibration is not None:
            self.calibration = None
            logger.warning("the calibration no longer holds and was dropped; calibrate again for strong_rate")

    def _copy(self, data: SimilarityData, pair: ModelPair, threshold: float | None) -> Self:
        copy = type(self)(
            embedder=self.embedder,
            data=data,
            pair=pair,
            base=self.base,
            ridge=self.ridge,
            seed=self.seed,
            num_tiers=self.num_tiers,
            threshold=threshold,
        )
        copy._inherit(self)  # noqa: SLF001 - of its own kind
        return copy

    def _to_saved(self, folder: Path) -> SavedRouter:
        data = self._data
        save_embedder(self.embedder, folder / EMBEDDER_FOLDER)
        data.index.save(folder)
        settings = _Settings(
            pair=self.pair,
            base=self.base,
            ridge=self.ridge,
            seed=self.seed,
            models=list(data.placement.models),
            num_tiers=data.placement.num_tiers,
            wanted_tiers=self.num_tiers,
            weight_unit=data.weight_unit,
        )
        return SavedRouter(settings=asdict(settings), tensors=data.tensors())

    @classmethod
    def _from_saved(cls, saved: SavedRouter, folder: Path) -> Self:
        settings = validated(_Settings, saved.settings, folder / CONFIG_FILE)
        data = SimilarityData.load(
            folder,
            saved.tensors,
            models=settings.models,
            num_tiers=settings.num_tiers,
            weight_unit=settings.weight_unit,
        )
        embedder = saved.embedder_of(folder)
        if saved.embedder is not None:  # What the caller gave is no fault of the folder.
            check_embedder(embedder, data.index)
        try:
            return cls(
                embedder=embedder,
                data=data,
                pair=settings.pair,
                base=settings.base,
                ridge=settings.ridge,
                seed=settings.seed,
                num_tiers=settings.wanted_tiers,
            )
        except ConfigurationError as error:
            msg = f"{folder}: {error}"
            raise PersistenceError(msg) from error


def _with_held_out(
    data: SimilarityData, base: float, ridge: float, seed: int, *, progress: bool = False
) -> SimilarityData:
    strengths = left_out_strengths(
        data.index, data.sums, base=base, ridge=ridge, groups=data.groups, seed=seed, progress=progress
    )
    return data.with_held_out(strengths)


def _median_score(data: SimilarityData, pair: ModelPair) -> float | None:
    if not data.held_out.size:
        return None
    return float(np.median(win_probabilities(data.held_out, *data.placement.tiers_of(pair))))


def _candidates(base: object, centred: object) -> list[Candidate]:
    base = _BASES if base is None else base
    bases: list[Any] = list(base) if isinstance(base, Sequence | np.ndarray) and not isinstance(base, str) else [base]
    if not bases or not isinstance(centred, bool | None):
        msg = f"base must be a number or several, centred True, False or None; got {base!r} and {centred!r}"
        raise ConfigurationError(msg)
    ways = [False, True] if centred is None else [bool(centred)]
    return [Candidate(base=number, centred=way) for number in map(_checked_base, bases) for way in ways]


def _checked_base(base: object) -> float:
    number = finite_or_none(base)
    if number is None or not 1.0 < number <= _LARGEST_BASE:
        msg = f"base must be above 1, where all battles weigh the same, and at most {_LARGEST_BASE:g}; got {base!r}"
        raise ConfigurationError(msg)
    return number


def _checked_ridge(ridge: object) -> float:
    number = finite_or_none(ridge)
    if number is None or number <= 0:
        msg = f"ridge must be above 0, or one-sided battles would have no answer; got {ridge!r}"
        raise ConfigurationError(msg)
    return number
