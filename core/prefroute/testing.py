"""Fakes for tests of code that uses a router: no model, no files, no randomness."""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING

from prefroute.inputs import as_prompts
from prefroute.router import Router

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from prefroute.types import OnError

__all__ = ["FailingRouter", "FakeEmbedder", "FixedRouter", "SlowRouter"]


class FixedRouter(Router):
    """Gives scores that the test chose.

    Args:
        score: Score of every prompt that `scores` does not name.
        scores: Scores by exact prompt text.
        threshold: Default threshold.

    Attributes:
        prompts: Every prompt it was asked, in order.
    """

    def __init__(
        self, score: float = 0.5, scores: Mapping[str, float] | None = None, *, threshold: float | None = 0.5
    ) -> None:
        self.score = score
        self.scores = dict(scores or {})
        self.threshold = threshold
        self.prompts: list[str] = []

    def win_probability(self, prompts: Sequence[str]) -> NDArray[np.float64]:
        """The chosen scores, shape (n,)."""
        import numpy as np

        texts = as_prompts(prompts)
        self.prompts.extend(texts)
        return np.array([self.scores.get(text, self.score) for text in texts], dtype=np.float64)


class FailingRouter(Router):
    """Raises the given exception at every call.

    Args:
        error: What it raises.
        threshold: Default threshold.
        on_error: As for every router.
    """

    def __init__(
        self, error: Exception | None = None, *, threshold: float | None = 0.5, on_error: OnError = "strong"
    ) -> None:
        self.error = RuntimeError("this router always fails") if error is None else error
        self.threshold = threshold
        self.on_error = on_error

    def win_probability(self, prompts: Sequence[str]) -> NDArray[np.float64]:  # noqa: ARG002 - it never looks
        """Raise the chosen exception."""
        raise self.error


class SlowRouter(FixedRouter):
    """A `FixedRouter` that takes its time.

    Args:
        seconds: How long each call sleeps.
        score: Score of every prompt.
        threshold: Default threshold.
        time_limit: As for every router.
    """

    def __init__(
        self,
        seconds: float,
        score: float = 0.5,
        *,
        threshold: float | None = 0.5,
        time_limit: float | None = None,
    ) -> None:
        super().__init__(score, threshold=threshold)
        self.seconds = seconds
        self.time_limit = time_limit

    def win_probability(self, prompts: Sequence[str]) -> NDArray[np.float64]:
        """Sleep, then the score, shape (n,)."""
        time.sleep(self.seconds)
        return super().win_probability(prompts)


class FakeEmbedder:
    """Embeds a text as a unit vector that depends on its characters alone.

    Args:
        dimension: Length d of the vectors.
    """

    def __init__(self, dimension: int = 8) -> None:
        self.dimension = dimension

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of norm 1, shape (n, d)."""
        import numpy as np

        rows = np.empty((len(texts), self.dimension), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            seed = int.from_bytes(hashlib.sha256(text.encode("utf-8", "replace")).digest()[:8])
            row[:] = np.random.default_rng(seed).standard_normal(self.dimension)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        return rows
