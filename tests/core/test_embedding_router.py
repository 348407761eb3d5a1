"""Routers over an embedder: which of its two ways of embedding is asked, and when."""

import asyncio
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from prefroute.routers.matrix_factorization import MatrixFactorizationRouter
from prefroute.types import ModelPair


class Both:
    """Embeds a text as its length and 1, and keeps how it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.asked.append(f"embed in {threading.current_thread() is threading.main_thread()}")
        return np.array([[len(text), 1] for text in texts], dtype=np.float32)

    async def aembed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        await asyncio.sleep(0)
        self.asked.append("aembed")
        return np.array([[len(text), 1] for text in texts], dtype=np.float32)


def router_over(embedder: Any, kind: type[MatrixFactorizationRouter] = MatrixFactorizationRouter) -> Any:
    return kind(
        embedder=embedder,
        models=("big", "small"),
        weights=[[0.1, -1.0], [0.0, 0.0]],
        pair=ModelPair("big", "small"),
        threshold=0.5,
    )


async def test_async_calls_embed_asynchronously_and_agree() -> None:
    embedder = Both()
    router = router_over(embedder)
    expected = router.win_probability(["a", "b" * 30])
    np.testing.assert_array_equal(await router.awin_probability(["a", "b" * 30]), expected)
    decision = await router.aroute("b" * 30)
    assert (decision.route, decision.reason) == ("strong", "score")
    assert embedder.asked == ["embed in True", "aembed", "aembed"]
    assert (await router.awin_probability([])).shape == (0,)


async def test_a_time_limit_and_a_failure_fail_open() -> None:
    class Stuck(Both):
        async def aembed(self, texts: Sequence[str]) -> NDArray[np.float32]:
            await asyncio.sleep(60)
            raise AssertionError

    class Broken(Both):
        async def aembed(self, texts: Sequence[str]) -> NDArray[np.float32]:
            raise StopIteration

    assert (await router_over(Stuck()).aroute("a", time_limit=0.01)).reason == "router_error"
    assert (await router_over(Broken()).aroute("a")).reason == "router_error"

    class Wide(Both):
        async def aembed(self, texts: Sequence[str]) -> NDArray[np.float32]:
            return np.ones((1, 7), dtype=np.float32)

    with pytest.raises(ValueError, match="n x 2 numbers, got"):
        await router_over(Wide()).awin_probability(["a"])


async def test_a_router_that_scores_otherwise_is_asked_as_it_is_written() -> None:
    class Mine(MatrixFactorizationRouter):
        def win_probability(self, prompts: Sequence[str]) -> NDArray[np.float64]:
            return super().win_probability([f"{prompt}!" for prompt in prompts])

    embedder = Both()
    router = router_over(embedder, Mine)
    np.testing.assert_array_equal(await router.awin_probability(["a"]), router.win_probability(["a"]))
    assert (await router.aroute("a")).score == router.win_probability(["a"])[0]
    assert "aembed" not in embedder.asked
    assert embedder.asked == ["embed in False", "embed in True", "embed in False", "embed in True"]
