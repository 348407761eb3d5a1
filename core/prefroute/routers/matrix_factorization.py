"""Matrix factorization (RouteLLM, arXiv 2406.18665), served for one pair of models."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from prefroute.errors import ConfigurationError, PersistenceError
from prefroute.inputs import as_prompts, finite_or_none
from prefroute.persistence import CONFIG_FILE, TENSORS_FILE, SavedRouter, validated
from prefroute.router import Router

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from typing import Self

    from numpy.typing import NDArray

    from prefroute.embedding import Embedder

EMBEDDER_FOLDER = "embedder"

_INLINE_TEXTS, _INLINE_CHARACTERS = 8, 512
"""Up to so many texts of so many characters in all are scored on the event loop, in the time a thread takes."""


@dataclass(frozen=True, kw_only=True)
class LengthFeature:
    """One more coordinate beside the embedding: the standardised log length of the prompt.

    Attributes:
        mean: Mean of log(1 + characters) over the training prompts.
        deviation: Its standard deviation.
        weight: What one deviation adds to the logit.
    """

    mean: float
    deviation: float
    weight: float

    def __post_init__(self) -> None:
        """Refuse what would make a score that is no number."""
        if None in {finite_or_none(value) for value in (self.mean, self.deviation, self.weight)} or self.deviation <= 0:
            msg = f"mean, deviation and weight must be finite and deviation above 0, got {self}"
            raise ConfigurationError(msg)

    def logits(self, prompts: Sequence[str]) -> NDArray[np.float64]:
        """What the length adds to the logit of each prompt, shape (n,)."""
        characters = np.fromiter(map(len, prompts), dtype=np.float64, count=len(prompts))
        return self.weight * (np.log1p(characters) - self.mean) / self.deviation


@dataclass(frozen=True, kw_only=True)
class _Settings:
    """The fields of `config.json`."""

    bias: float
    length: LengthFeature | None


class MatrixFactorizationRouter(Router):
    """P(strong wins) = sigmoid(score(strong, q) - score(weak, q)), from the prompt's embedding.

    The factorization scores a model M as `w2 . (v_M * (W1 e_q + b))`. For one pair the difference of two
    such scores is linear in the embedding e_q, so it is kept as what remains: `weights . e_q + bias`.
    """

    router_type: ClassVar[str] = "matrix-factorization"

    def __init__(
        self,
        *,
        embedder: Embedder,
        weights: NDArray[np.float64],
        bias: float = 0.0,
        length: LengthFeature | None = None,
        threshold: float | None = None,
    ) -> None:
        """Put together a router from its parts.

        Args:
            embedder: Embeds prompts in d dimensions.
            weights: `((v_S - v_W) * w2) W1`, shape (d,).
            bias: `((v_S - v_W) * w2) . b`.
            length: A term for the length of the prompt, if it was trained with one.
            threshold: The default threshold.

        Raises:
            ConfigurationError: The weights do not fit the embedder, or a number is not finite.
        """
        self.embedder = embedder
        self.weights = _checked_weights(weights, getattr(embedder, "dimensions", None))
        self.bias = _checked_bias(bias)
        self.length = length
        self.threshold = threshold

    def win_probability(self, prompts: Sequence[str]) -> NDArray[np.float64]:
        """Estimate P(strong model wins) for each prompt; see `Router.win_probability`."""
        texts = as_prompts(prompts)
        logits = self.embedder.embed(texts) @ self.weights + self.bias  # (n,), float64
        if self.length is not None:
            logits += self.length.logits(texts)
        # tanh does not overflow, where exp(-logit) would.
        probabilities: NDArray[np.float64] = 0.5 + 0.5 * np.tanh(0.5 * logits)
        return probabilities

    def _is_quick(self, texts: list[str]) -> bool:
        from prefroute.embedding import StaticEmbedder

        # Only what is known to be: a subclass or another embedder may do anything.
        own = type(self).win_probability is MatrixFactorizationRouter.win_probability
        quick = own and "win_probability" not in vars(self) and type(self.embedder) is StaticEmbedder
        return quick and len(texts) <= _INLINE_TEXTS and sum(map(len, texts)) <= _INLINE_CHARACTERS

    def _to_saved(self, folder: Path) -> SavedRouter:
        save = getattr(self.embedder, "save_pretrained", None)
        if save is None:
            msg = (
                f"a router can be saved only if its embedder can: {type(self.embedder).__name__} has no save_pretrained"
            )
            raise PersistenceError(msg)
        save(folder / EMBEDDER_FOLDER)
        settings = _Settings(bias=self.bias, length=self.length)
        return SavedRouter(settings=asdict(settings), tensors={"weights": self.weights})

    @classmethod
    def _from_saved(cls, saved: SavedRouter, folder: Path) -> Self:
        from prefroute.embedding import StaticEmbedder

        settings = validated(_Settings, saved.settings, folder / CONFIG_FILE)
        embedder = StaticEmbedder.from_pretrained(folder / EMBEDDER_FOLDER)
        try:
            weights = saved.tensors["weights"]
            return cls(embedder=embedder, weights=weights, bias=settings.bias, length=settings.length)
        except KeyError:
            msg = f"{folder / TENSORS_FILE} lacks weights"
            raise PersistenceError(msg) from None
        except ConfigurationError as error:
            msg = f"{folder}: {error}"
            raise PersistenceError(msg) from error


def _checked_weights(weights: object, dimensions: int | None) -> NDArray[np.float64]:
    """One finite float64 a dimension; a wrong shape would otherwise fail at every prompt, where routing hides it."""
    try:
        array = np.asarray(weights, dtype=np.float64)
    except (TypeError, ValueError):
        array = np.empty((0, 0))
    if array.ndim != 1 or not np.isfinite(array).all() or dimensions not in {None, len(array)}:
        found = f"shape {array.shape}" if array.size else type(weights).__name__
        wanted = "finite numbers" if dimensions is None else f"{dimensions} finite numbers"
        msg = f"weights must be {wanted}, one for each dimension of the embedding, got {found}"
        raise ConfigurationError(msg)
    return array


def _checked_bias(bias: object) -> float:
    number = finite_or_none(bias)
    if number is None:
        msg = f"bias must be one finite number, got {type(bias).__name__}: {bias!r}"
        raise ConfigurationError(msg)
    return number
