"""Decontamination: what is near a prompt of the other set goes, with a report, chunk by chunk."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from prefroute.data import Battles, decontaminate, nearest_prompts
from prefroute.data import decontamination as module
from prefroute.errors import ConfigurationError, DataError, PromptTypeError
from prefroute.types import Battle


class Angles:
    """Embeds the text of a number as that angle in degrees, at any length; anything else as zero."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.sizes.append(len(texts))
        angles = [float(text) if text.lstrip("-").isdigit() else None for text in texts]
        rows = [(0, 0) if a is None else (7 * np.cos(np.radians(a)), 7 * np.sin(np.radians(a))) for a in angles]
        return np.array(rows, dtype=np.float32).reshape(-1, 2)


def battles(*prompts: str) -> Battles:
    return Battles.from_rows([Battle(prompt, "a", "b", 1.0) for prompt in prompts])


def test_what_is_near_is_removed_and_reported() -> None:
    left, removed = decontaminate(
        battles("0", "10", "50", "10", "no"), ["15", "180"], embedder=Angles(), threshold=0.99
    )
    assert left.prompts == ("0", "50", "no")
    assert [(row.prompt, row.nearest, row.battles) for row in removed] == [("10", "15", 2)]
    assert removed[0].similarity == pytest.approx(np.cos(np.radians(5)), abs=1e-6)


def test_the_most_similar_comes_first() -> None:
    _, removed = decontaminate(battles("20", "1", "5"), ["0"], embedder=Angles(), threshold=0.9)
    assert [row.prompt for row in removed] == ["1", "5", "20"]


def test_equal_texts_go_even_when_they_embed_to_zero() -> None:
    left, removed = decontaminate(battles("same", "other"), ["same"], embedder=Angles(), threshold=1.0)
    assert left.prompts == ("other",)
    assert removed[0].similarity == 1.0


def test_chunks_give_what_one_product_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    prompts, others = [str(i) for i in range(0, 300, 7)], [str(i) for i in range(3, 300, 11)]
    whole = nearest_prompts(prompts, others, embedder=Angles())
    monkeypatch.setattr(module, "CHUNK", 5)
    embedder = Angles()
    parts = nearest_prompts(prompts, others, embedder=embedder, progress=True)
    assert max(embedder.sizes) <= 5
    np.testing.assert_allclose(parts[0], whole[0], atol=1e-6)
    distances = np.abs(np.subtract.outer(np.arange(0, 300, 7), np.arange(3, 300, 11)))
    np.testing.assert_array_equal(distances[np.arange(len(prompts)), parts[1]], distances.min(axis=1))


def test_the_bundled_embedder_finds_a_rewording_and_spares_the_rest() -> None:
    left, removed = decontaminate(
        battles("What is the capital of France?", "Write a sorting function in Rust"),
        ["what is the capital of france"],
        threshold=0.9,
    )
    assert left.prompts == ("Write a sorting function in Rust",)
    assert len(removed) == 1


@pytest.mark.parametrize("threshold", [0, -1, 1.01, float("nan"), "high"])
def test_thresholds_that_cannot_be_used(threshold: Any) -> None:
    with pytest.raises(ConfigurationError, match="threshold"):
        decontaminate(battles("1"), ["1"], embedder=Angles(), threshold=threshold)


def test_there_must_be_prompts_to_compare_with() -> None:
    with pytest.raises(DataError, match="no prompts to compare with"):
        decontaminate(battles("1"), [], embedder=Angles())
    with pytest.raises(PromptTypeError):
        decontaminate(battles("1"), [3], embedder=Angles())  # type: ignore[list-item]
    assert decontaminate(Battles.from_rows([]), ["1"], embedder=Angles()).removed == []
