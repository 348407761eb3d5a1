"""The index: exact cosines, every dtype, text without a direction, bounded batches, files."""

import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from prefroute.errors import ConfigurationError, PersistenceError
from prefroute.routers import _embedding, _fast_products, _index
from prefroute.routers._embedding import embedded
from prefroute.routers._index import IndexDtype, SimilarityIndex, build_index, unit_rows
from prefroute.routers._turns import Turn
from prefroute.testing import FakeEmbedder

DTYPES: list[IndexDtype] = ["float32", "bfloat16", "int8"]
TOLERANCE = {"float32": 1e-6, "bfloat16": 8e-3, "int8": 2e-2}


def rows(count: int, dimensions: int = 24, seed: int = 0) -> NDArray[np.float32]:
    random = np.random.default_rng(seed)
    found = random.standard_normal((count, dimensions), dtype=np.float32) + 0.5
    return found * random.uniform(0.1, 30, (count, 1)).astype(np.float32)


def build(embeddings: NDArray[np.float32], dtype: IndexDtype = "float32", **options: Any) -> SimilarityIndex:
    return build_index([embeddings[:50], embeddings[50:]], len(embeddings), dtype=dtype, **options)


def expected(index: NDArray[Any], queries: NDArray[Any], mean: NDArray[Any] | None = None) -> NDArray[np.float64]:
    moved = []
    for part in (index.astype(np.float64), queries.astype(np.float64)):
        units = part / np.linalg.norm(part, axis=1, keepdims=True)
        units = units if mean is None else units - mean
        moved.append(units / np.linalg.norm(units, axis=1, keepdims=True))
    found: NDArray[np.float64] = moved[0] @ moved[1].T
    return found


@pytest.fixture(params=["torch where it helps", "numpy"])
def product(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways of multiplying small numbers."""
    if request.param == "numpy":
        monkeypatch.setattr(_fast_products, "has_bfloat16", lambda: False)
        monkeypatch.setattr(_fast_products, "has_int8", lambda: False)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.usefixtures("product")
def test_cosines_are_those_of_float64(dtype: IndexDtype, centred: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_index, "_BLOCK", 24 * 7)
    monkeypatch.setattr(_index, "_PRODUCT", 9)
    embeddings, queries = rows(100), rows(5, seed=1)
    index = build(embeddings)
    index = (index.centred() if centred else index).packed(dtype)
    assert (index.dtype, len(index), index.dimensions) == (dtype, 100, 24)
    units = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    wanted = expected(embeddings, queries, units.mean(axis=0) if centred else None)
    found = index.cosines(index.prepare(queries))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, atol=TOLERANCE[dtype])
    np.testing.assert_allclose(index.cosines(index.prepare(queries[:1])), found[:, :1], atol=TOLERANCE[dtype])
    own = index.unpacked(np.array([3, 97]))
    np.testing.assert_allclose(np.linalg.norm(own, axis=1), 1, atol=4e-3)
    np.testing.assert_allclose(index.cosines(own)[[3, 97], [0, 1]], 1, atol=TOLERANCE[dtype])


def test_bfloat16_rounds_to_the_nearest_even() -> None:
    torch = pytest.importorskip("torch")
    units = unit_rows(rows(40))
    wanted = torch.from_numpy(units).to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)
    np.testing.assert_array_equal(build(units, "bfloat16").rows, wanted)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.usefixtures("product")
def test_what_has_no_direction_has_cosine_0_with_everything(dtype: IndexDtype, centred: bool) -> None:
    embeddings = rows(10)
    embeddings[4] = 0
    index = build(embeddings)
    index = (index.centred() if centred else index).packed(dtype)
    found = index.cosines(index.prepare(np.concatenate([np.zeros((1, 24)), embeddings])))
    assert np.isfinite(found).all()
    assert (found[4] == 0).all()
    assert (found[:, 0] == 0).all()


def test_very_large_and_very_small_numbers_keep_their_direction() -> None:
    embeddings = rows(6)
    scales = np.array([1e38, 1e30, 1, 1e-10, 1e-30, 1e-37], dtype=np.float32)[:, None]
    scaled = embeddings / np.abs(embeddings).max(axis=1, keepdims=True) * scales
    np.testing.assert_allclose(unit_rows(scaled), unit_rows(embeddings), atol=1e-5)


def test_one_prompt_alone_centred_has_no_direction() -> None:
    index = build(rows(1)).centred()
    assert not index.rows.any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_are_rearranged_and_joined(dtype: IndexDtype) -> None:
    embeddings = rows(30)
    whole, first = build(embeddings, dtype), build(embeddings[:20], dtype)
    more = build(embeddings[20:], dtype)
    order = np.random.default_rng(0).permutation(30)
    found = first.rearranged(order, more)
    np.testing.assert_array_equal(found.rows, whole.rows[order])
    np.testing.assert_array_equal(found.unpacked(slice(None)), whole.unpacked(order))
    np.testing.assert_array_equal(whole.rearranged(order).rows, found.rows)


def test_batches_cover_all_queries_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    index = build(rows(100, dimensions=240))
    monkeypatch.setattr(_index, "_RESULTS", 300)
    assert index.batch_size == 10, "a 24th of the index where that is more"
    assert [range(25)[batch] for batch in index.batches(25)] == [range(10), range(10, 20), range(20, 25)]
    monkeypatch.setattr(_index, "_RESULTS", 0)
    assert build(rows(100, dimensions=2)).batch_size == 1


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_saved_index_is_mapped_and_the_same(dtype: IndexDtype, tmp_path: Path) -> None:
    index = build(rows(30)).centred().packed(dtype)
    index.save(tmp_path)
    loaded = SimilarityIndex.load(tmp_path, index.tensors)
    assert isinstance(loaded.rows.base, np.memmap)
    queries = loaded.prepare(rows(3, seed=1))
    np.testing.assert_array_equal(loaded.cosines(queries), index.cosines(queries))


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    index = build(rows(30), "int8")
    with pytest.raises(PersistenceError, match=r"index\.npy"):
        SimilarityIndex.load(tmp_path, {})
    path = tmp_path / "index.npy"
    hostile: list[Any] = [
        np.array([{"a": 1}], dtype=object),
        np.zeros((3, 2), dtype=np.float64),
        np.zeros(3, dtype=np.float32),
        np.zeros((0, 3), dtype=np.float32),
        np.array("text"),
    ]
    for array in hostile:
        np.save(path, array, allow_pickle=True)
        with pytest.raises(PersistenceError):
            SimilarityIndex.load(tmp_path, {})
    index.save(tmp_path)
    data = path.read_bytes()
    for damaged in (b"", data[:5], data[:100], data[:-1], b"\x93NUMPY" + bytes(200), data.replace(b"descr", b"{{{{{")):
        shutil.copy(path, tmp_path / "whole")
        path.write_bytes(damaged)
        with pytest.raises(PersistenceError):
            SimilarityIndex.load(tmp_path, index.tensors)
        shutil.move(tmp_path / "whole", path)
    for tensors in ({}, {"index_scales": np.ones(3, np.float32)}, {"index_scales": np.full(30, np.nan, np.float32)}):
        with pytest.raises(PersistenceError, match="scales"):
            SimilarityIndex.load(tmp_path, tensors)
    with pytest.raises(PersistenceError, match="mean"):
        SimilarityIndex.load(tmp_path, index.tensors | {"index_mean": np.ones(3, np.float32)})


@pytest.mark.parametrize(
    "embeddings", [np.ones((2, 3)), np.ones(24), np.full((1, 24), np.nan), np.full((1, 24), np.inf), [["a"] * 24]]
)
def test_queries_that_do_not_fit_are_refused(embeddings: Any) -> None:
    with pytest.raises(ConfigurationError, match="embeddings must be"):
        build(rows(5)).prepare(embeddings)


def test_embeddings_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="float32, bfloat16, int8"):
        build(rows(3), "float16")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="rows of 24"):
        build_index([rows(2), rows(2, dimensions=3)], 4)
    with pytest.raises(ConfigurationError, match="got 2"):
        build_index([rows(2)], 3)
    with pytest.raises(ConfigurationError, match="got 3"):
        build_index([rows(3)], 2)
    with pytest.raises(ConfigurationError, match="at least one; got 0"):
        build_index([], 0)


def test_texts_are_embedded_in_blocks(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(_embedding, "_TEXTS", 4)
    texts = [str(number) for number in range(10)]
    blocks = list(embedded(FakeEmbedder(3), texts, progress=True))
    assert [len(block) for block in blocks] == [4, 4, 2]
    np.testing.assert_array_equal(np.concatenate(blocks), FakeEmbedder(3).embed(texts))
    shown = capsys.readouterr()
    assert "Embedding" in shown.err
    assert not shown.out

    class Short:
        def embed(self, texts: Any) -> NDArray[np.float32]:
            return np.ones((1, 3), dtype=np.float32)

    with pytest.raises(ConfigurationError, match=r"Short.*4 texts, 1 rows"):
        list(embedded(Short(), texts))


def test_a_turn_is_let_go_after_a_fork() -> None:
    turn = Turn()
    held, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with turn:
            held.set()
            leave.wait(10)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(10)
    old = turn._lock
    turn.renew()
    with turn:
        assert old.locked(), "the other thread is still in, as it seems to be after a fork"
    turn._lock = old
    leave.set()
    thread.join()
    assert not old.locked()


def test_one_dimension_is_multiplied_right_in_batches() -> None:
    index = build(np.array([[2.0], [-1.0], [0.5]], dtype=np.float32), "int8")
    queries = np.array([[1.0], [-3.0], [0.0]], dtype=np.float32)
    np.testing.assert_allclose(index.cosines(index.prepare(queries)), [[1, -1, 0], [-1, 1, 0], [1, -1, 0]], atol=1e-6)
