"""The static embedder: its arithmetic on a tiny model, and that it agrees with model2vec on the bundled one."""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers

from prefroute.embedding import Embedder, StaticEmbedder
from prefroute.embedding.static import StaticEmbedderConfig
from prefroute.errors import PersistenceError
from prefroute.persistence import DEFAULT_ROUTER

BUNDLED = DEFAULT_ROUTER / "embedder" / "0"
TEXTS = [
    "What is the capital of France?",
    "",
    "🙂🚀",
    "Prove that the square root of two is irrational. " * 3,
    "Naïve café — déjà vu…",
    "证明素数有无穷多个 and Доказать",
    "word " * 2000,
    "a\x00b",
    "x" * 100_000,
]


@pytest.fixture(scope="module")
def bundled() -> StaticEmbedder:
    return StaticEmbedder.from_pretrained(BUNDLED)


def tiny(**config: int) -> StaticEmbedder:
    """Tokens [UNK], cat, dog and emu in two dimensions; dog and emu share a row."""
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, "cat": 1, "dog": 2, "emu": 3}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return StaticEmbedder(
        tokenizer=tokenizer,
        vectors=np.array([[0, 0], [127, 0], [0, 127]], dtype=np.int8),
        weights=np.array([0, 1, 1, 3], dtype=np.float32),
        mapping=np.array([0, 1, 2, 2]),
        config=StaticEmbedderConfig(**config),
    )


def test_a_row_is_the_weighted_mean_scaled_to_length_one() -> None:
    rows = tiny().embed(["cat", "cat dog", "cat emu zebra", "zebra", ""])
    assert rows.dtype == np.float32
    expected = [[1, 0], [0.5**0.5, 0.5**0.5], [0.1**0.5, 0.9**0.5], [0, 0], [0, 0]]
    np.testing.assert_allclose(rows, expected, atol=1e-6)


def test_long_text_is_cut_by_tokens_and_by_characters() -> None:
    np.testing.assert_allclose(tiny(max_tokens=2).embed(["cat cat dog"]), [[1, 0]])
    np.testing.assert_allclose(tiny(max_characters=7).embed(["cat cat dog"]), [[1, 0]])


def test_no_texts_are_no_rows_and_what_is_no_text_is_a_type_error() -> None:
    assert tiny().embed([]).shape == (0, 2)
    with pytest.raises(TypeError, match="int"):
        tiny().embed(["cat", 3])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="str"):
        tiny().embed("cat")


def test_it_is_an_embedder() -> None:
    assert isinstance(tiny(), Embedder)


def test_it_survives_saving_and_loading(tmp_path: Path) -> None:
    embedder = tiny(max_tokens=3)
    embedder.save_pretrained(tmp_path / "new" / "folder")
    again = StaticEmbedder.from_pretrained(tmp_path / "new" / "folder")
    assert again.config == embedder.config
    np.testing.assert_array_equal(again.embed(["cat emu dog dog", "emu"]), embedder.embed(["cat emu dog dog", "emu"]))


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("weights", np.array([0, 1, np.nan, 3], dtype=np.float32)),
        ("weights", np.array([0, 1, np.inf, 3], dtype=np.float32)),
        ("weights", np.array([0, 1, 3e38, 3], dtype=np.float32)),
        ("weights", np.array([0, 1, 1, 3], dtype=np.float64)),
        ("vectors", np.array([[0, 0], [np.nan, 0], [0, 1]], dtype=np.float32)),
        ("vectors", np.array([[0, 0], [1e30, 0], [0, 1]], dtype=np.float32)),
    ],
)
def test_numbers_that_would_make_no_number_are_refused(tmp_path: Path, part: str, value: Any) -> None:
    broken = tiny()
    setattr(broken, part, value)
    broken.save_pretrained(tmp_path)
    with pytest.raises(PersistenceError, match="must be finite with products below"):
        StaticEmbedder.from_pretrained(tmp_path)


@pytest.mark.parametrize("settings", [{"max_tokens": 0}, {"max_characters": -1}, {"max_tokens": True}])
def test_a_cut_that_leaves_nothing_is_refused(tmp_path: Path, settings: dict[str, int]) -> None:
    tiny().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"settings": settings}))
    with pytest.raises(PersistenceError, match=r"must be at least 1|valid integer"):
        StaticEmbedder.from_pretrained(tmp_path)


@pytest.mark.parametrize("change", ["type", "settings", "tokenizer", "tensors", "no tensors", "no folder"])
def test_a_damaged_folder_is_a_clear_error(tmp_path: Path, change: str) -> None:
    tiny().save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    if change == "type":
        (tmp_path / "config.json").write_text(json.dumps(config | {"embedder_type": "other"}))
    elif change == "settings":
        (tmp_path / "config.json").write_text(json.dumps(config | {"settings": {"max_tokens": "many"}}))
    elif change == "tokenizer":
        (tmp_path / "tokenizer.json").write_text("{}")
    elif change == "tensors":
        other = tiny()
        other.mapping = other.mapping[:2]
        other.save_pretrained(tmp_path)
    elif change == "no tensors":
        (tmp_path / "model.safetensors").unlink()
    with pytest.raises(PersistenceError):
        StaticEmbedder.from_pretrained(tmp_path / "none" if change == "no folder" else tmp_path)


@given(st.lists(st.text(st.characters()), min_size=1, max_size=20))
def test_any_text_has_a_row_and_batches_agree_with_one_by_one(bundled: StaticEmbedder, texts: list[str]) -> None:
    rows = bundled.embed(texts)
    norms = np.linalg.norm(rows, axis=1)
    assert np.all((np.abs(norms - 1) < 1e-5) | (norms == 0))
    alone = np.vstack([bundled.embed([text]) for text in texts])
    np.testing.assert_allclose(rows, alone, rtol=0, atol=1e-6)


def test_a_megabyte_is_cut_before_it_is_tokenised(bundled: StaticEmbedder) -> None:
    texts = ["why not? " * 110_000, "y" * 1_000_000, "🔥" * 250_000]
    bundled.embed(["warm up"])
    started = time.perf_counter()
    rows = bundled.embed(texts)
    assert time.perf_counter() - started < 1.0  # Tokenising all of it takes far longer; this takes milliseconds.
    assert np.isfinite(rows).all()


def test_sixteen_threads_get_the_same_rows(bundled: StaticEmbedder) -> None:
    expected = bundled.embed(TEXTS)
    results: list[Any] = [None] * 16

    def work(slot: int) -> None:
        results[slot] = [bundled.embed(TEXTS) for _ in range(5)]

    threads = [threading.Thread(target=work, args=(slot,)) for slot in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for rows in results:
        np.testing.assert_array_equal(rows, [expected] * 5)


def test_it_agrees_with_model2vec(bundled: StaticEmbedder) -> None:
    model2vec = pytest.importorskip("model2vec", reason="model2vec is not installed; it is needed only to compare")
    model = model2vec.StaticModel.from_pretrained(BUNDLED, normalize=True)
    np.testing.assert_allclose(bundled.embed(TEXTS), model.encode(TEXTS, use_multiprocessing=False), atol=1e-5)


def test_importing_it_loads_neither_tokenizers_nor_safetensors() -> None:
    code = (
        "import sys, prefroute.embedding; print(sorted({'tokenizers', 'safetensors', 'pydantic'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
