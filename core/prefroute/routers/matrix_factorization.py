"""Matrix factorization (RouteLLM, arXiv 2406.18665, section 4.1), as it is served: numpy alone."""

from __future__ import annotations

import reprlib
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from prefroute.embedding import save_embedder
from prefroute.errors import ConfigurationError, PersistenceError
from prefroute.inputs import as_pair, finite_or_none
from prefroute.persistence import CONFIG_FILE, EMBEDDER_FOLDER, TENSORS_FILE, SavedRouter, validated
from prefroute.routers._linear import LinearRouter, finite_array
from prefroute.types import ModelPair

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Self

    from numpy.typing import ArrayLike, NDArray

    from prefroute.embedding import Embedder


@dataclass(frozen=True, kw_only=True)
class TrainingReport:
    """What came out of training a matrix factorization.

    Attributes:
        battles: Battles learnt from.
        prompts: Distinct prompts of those.
        models: Models of those.
        ties_dropped: Battles left out because they were ties.
        epochs: Passes over the data that were made, one number a fold.
        best_epochs: The pass whose factors were kept, counted from 1, one number a fold.
        train_loss: Log loss a battle during that pass, mean over the folds, in nats.
        validation_loss: Log loss a battle on the held-out prompts after it, in nats.
        validation_prompts: Held-out prompts.
    """

    battles: int
    prompts: int
    models: int
    ties_dropped: int
    epochs: tuple[int, ...]
    best_epochs: tuple[int, ...]
    train_loss: float
    validation_loss: float
    validation_prompts: int


@dataclass(frozen=True, kw_only=True)
class _Settings:
    """The fields of `config.json`."""

    models: list[str]
    strong: str
    weak: str
    training: TrainingReport | None = None


class MatrixFactorizationRouter(LinearRouter):
    """P(strong wins) = sigmoid(score(strong, q) - score(weak, q)), from the prompt's embedding e_q.

    The factorization scores a model M as `w2 . (v_M * (W1 e_q + b))`, which is linear in e_q: so each model
    is served as one row of weights, `W1^T (v_M * w2)`, and one bias, `w2 . (v_M * b)`. That is exact, and
    smaller than the factors.

    Attributes:
        embedder: Embeds prompts.
        models: Names of the m models that it can route between.
        weights: One row a model, shape (m, d).
        biases: One number a model, shape (m,).
        ratings: Elo rating of each model, shape (m,); None if they are not known.
        centre: The mean embedding of the training prompts, shape (d,); None if it is not known.
        pair: The two models that are routed between.
        training: What came out of its training, if it was trained here.
    """

    router_type: ClassVar[str] = "matrix-factorization"

    def __init__(
        self,
        *,
        embedder: Embedder,
        models: Sequence[str],
        weights: ArrayLike,
        biases: ArrayLike | None = None,
        ratings: ArrayLike | None = None,
        centre: ArrayLike | None = None,
        pair: ModelPair,
        threshold: float | None = None,
        training: TrainingReport | None = None,
    ) -> None:
        """Put together a router from its parts; `train_matrix_factorization` makes one from battles.

        Args:
            embedder: Embeds prompts in d dimensions.
            models: Names of the m models that it can route between.
            weights: One row a model, shape (m, d).
            biases: One number a model, shape (m,); None for zeros.
            ratings: Elo rating of each model, shape (m,); only needed to place others by rating.
            centre: The mean embedding of the training prompts, shape (d,); only needed so that
                `with_pair` can give a threshold.
            pair: The two models that are routed between.
            threshold: The default threshold.
            training: What came out of its training.

        Raises:
            ConfigurationError: The parts do not fit together, or a number is not finite.
        """
        self.models = _checked_models(models)
        size = len(self.models)
        shape = (size, getattr(embedder, "dimensions", None))
        self.weights = finite_array(weights, shape, "weights (models x dimensions of the embedding)")
        self.biases = finite_array(np.zeros(size) if biases is None else biases, (size,), "biases")
        self.ratings = None if ratings is None else finite_array(ratings, (size,), "ratings")
        self.centre = None if centre is None else finite_array(centre, (self.weights.shape[1],), "centre")
        self.pair = as_pair(pair)
        self.training = training
        strong, weak = (self._position(name) for name in (pair.strong, pair.weak))
        # One vector a pair: what one prompt costs then does not depend on the number of models.
        super().__init__(
            embedder=embedder,
            direction=self.weights[strong] - self.weights[weak],
            offset=float(self.biases[strong] - self.biases[weak]),
            threshold=threshold,
        )

    def __repr__(self) -> str:
        """Sizes and the pair."""
        size, dimensions = self.weights.shape
        return f"{type(self).__name__}({self.pair}, {size} models, {dimensions} dimensions)"

    def with_pair(self, pair: ModelPair) -> Self:
        """The same router between two other models that it knows; arrays are shared.

        Args:
            pair: The two models.

        Returns:
            A router. Its threshold is the score of the mean training embedding, which sends about half of
            prompts like those to the strong model; None where that embedding is not known.

        Raises:
            ConfigurationError: A model is unknown; names those that are known.
        """
        if pair == self.pair:
            return self._copy(pair=pair, threshold=self.threshold)
        router = self._copy(pair=pair)
        if self.centre is not None:
            # The logit is linear in the embedding, so its mean over the prompts is its value at their mean.
            router.threshold = float(router.win_probability_of_embeddings(self.centre[None])[0])
        return router

    def with_model(self, name: str, *, like: str | None = None, rating: float | None = None) -> Self:
        """A router that also knows a model which was absent from training; `with_pair` then routes to it.

        Args:
            name: The new model.
            like: A known model that it is nearest to: it gets that model's scores.
            rating: Or its Elo rating, on the scale of `ratings`: its scores are then interpolated between
                the two known models that stand next to it, and those of the nearest one beyond the ends.
                The nearest known model alone is as good where the ratings lie close; interpolation has no jumps.

        Returns:
            A router for the same pair.

        Raises:
            ConfigurationError: The name is taken, not exactly one of `like` and `rating` is given, `like` is
                unknown, or the router has no ratings.
        """
        if not isinstance(name, str) or not name or name in self.models:
            msg = f"a new model needs a name that is not taken, got {name!r}; taken: {reprlib.repr(list(self.models))}"
            raise ConfigurationError(msg)
        if (like is None) == (rating is None):
            msg = f"place {name!r} by exactly one of like= and rating=, got {like!r} and {rating!r}"
            raise ConfigurationError(msg)
        mix = self._mix_of_rating(rating) if like is None else np.eye(len(self.models))[self._position(like)]
        ratings = None if self.ratings is None else np.append(self.ratings, mix @ self.ratings)
        return self._copy(
            models=(*self.models, name),
            weights=np.vstack([self.weights, mix @ self.weights]),
            biases=np.append(self.biases, mix @ self.biases),
            ratings=ratings,
            threshold=self.threshold,
        )

    def _mix_of_rating(self, rating: object) -> NDArray[np.float64]:
        """Share of each known model in one of this rating, shape (m,)."""
        if self.ratings is None:
            msg = "this router holds no ratings of its models; place the new one with like=, the name of a known model"
            raise ConfigurationError(msg)
        number = finite_or_none(rating)
        if number is None:
            msg = f"rating must be one finite number, got {rating!r}"
            raise ConfigurationError(msg)
        order = np.argsort(self.ratings, kind="stable")
        place = float(np.interp(number, self.ratings[order], np.arange(len(order))))
        below, share = int(place), place % 1.0
        mix = np.zeros(len(order))
        mix[order[below]] = 1.0 - share
        mix[order[min(below + 1, len(order) - 1)]] += share
        return mix

    def _copy(
        self,
        *,
        pair: ModelPair | None = None,
        threshold: float | None = None,
        models: Sequence[str] | None = None,
        weights: ArrayLike | None = None,
        biases: ArrayLike | None = None,
        ratings: ArrayLike | None = None,
    ) -> Self:
        router = type(self)(
            embedder=self.embedder,
            models=self.models if models is None else models,
            weights=self.weights if weights is None else weights,
            biases=self.biases if biases is None else biases,
            ratings=self.ratings if ratings is None else ratings,
            centre=self.centre,
            pair=self.pair if pair is None else pair,
            threshold=threshold,
            training=self.training,
        )
        router._inherit(self)  # noqa: SLF001 - of its own kind
        return router

    def _position(self, name: str) -> int:
        if name not in self.models:
            msg = f"unknown model {name!r}; known: {', '.join(self.models)}. Place another one with with_model"
            raise ConfigurationError(msg)
        return self.models.index(name)

    def _to_saved(self, folder: Path) -> SavedRouter:
        save_embedder(self.embedder, folder / EMBEDDER_FOLDER)
        settings = _Settings(
            models=list(self.models), strong=self.pair.strong, weak=self.pair.weak, training=self.training
        )
        tensors = {"weights": self.weights, "biases": self.biases}
        known = {"ratings": self.ratings, "centre": self.centre}
        return SavedRouter(
            settings=asdict(settings),
            tensors=tensors | {name: array for name, array in known.items() if array is not None},
        )

    @classmethod
    def _from_saved(cls, saved: SavedRouter, folder: Path) -> Self:
        settings = validated(_Settings, saved.settings, folder / CONFIG_FILE)
        missing = {"weights", "biases"} - saved.tensors.keys()
        if missing:
            msg = f"{folder / TENSORS_FILE} lacks {', '.join(sorted(missing))}"
            raise PersistenceError(msg)
        embedder = saved.embedder_of(folder)
        try:
            return cls(
                embedder=embedder,
                models=settings.models,
                weights=saved.tensors["weights"],
                biases=saved.tensors["biases"],
                ratings=saved.tensors.get("ratings"),
                centre=saved.tensors.get("centre"),
                pair=ModelPair(settings.strong, settings.weak),
                training=settings.training,
            )
        except ConfigurationError as error:
            msg = f"{folder}: {error}"
            raise PersistenceError(msg) from error


def _checked_models(models: Sequence[str]) -> tuple[str, ...]:
    names = (models,) if isinstance(models, str) else tuple(models)
    if isinstance(models, str) or not all(isinstance(name, str) for name in names) or len(set(names)) != len(names):
        msg = f"models must be a sequence of different names, got {reprlib.repr(models)}"
        raise ConfigurationError(msg)
    return names
