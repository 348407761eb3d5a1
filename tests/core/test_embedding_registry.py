"""Embedders by name, put side by side, saved and read back."""

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from prefroute import ConfigurationError, PersistenceError, load_router
from prefroute.embedding import (
    ConcatenatedEmbedder,
    Embedder,
    LengthEmbedder,
    StaticEmbedder,
    SurfaceEmbedder,
    as_embedder,
    load_embedder,
    save_embedder,
)
from prefroute.routers.matrix_factorization import MatrixFactorizationRouter
from prefroute.testing import FakeEmbedder
from prefroute.types import ModelPair

TEXTS = ["", "Hello", "Why is the sky blue?", "\ud800", "x" * 10_000]


class Mine:
    """An embedder that only embeds."""

    dimensions = 2

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return np.array([[len(text), 1] for text in texts], dtype=np.float32).reshape(-1, 2)


def test_names_and_embedders_are_found() -> None:
    assert isinstance(as_embedder(), StaticEmbedder)
    assert isinstance(as_embedder("static"), StaticEmbedder)
    assert isinstance(as_embedder("length"), LengthEmbedder)
    own = FakeEmbedder()
    assert as_embedder(own) is own
    both = as_embedder("static + length")
    assert isinstance(both, ConcatenatedEmbedder)
    assert isinstance(both, Embedder)
    assert both.embed(TEXTS).shape == (5, 257)
    assert both.dimensions == 257
    np.testing.assert_array_equal(both.embed(TEXTS)[:, :256], as_embedder("static").embed(TEXTS))


@pytest.mark.parametrize("unknown", ["", "best", "openai:", "sentence-transformers:", "static+", 3, object()])
def test_others_are_refused_with_the_names_that_are_known(unknown: Any) -> None:
    with pytest.raises(ConfigurationError, match="static, minilm, length"):
        as_embedder(unknown)


def test_length_is_standardised() -> None:
    fitted = LengthEmbedder.fitted(["ab", "abcdefgh"], scale=0.5)
    np.testing.assert_allclose(fitted.embed(["ab", "abcdefgh"]), [[-0.5], [0.5]], rtol=1e-6)
    assert LengthEmbedder.fitted(["a", "b"]).deviation == 1.0
    with pytest.raises(ConfigurationError, match="got no prompts"):
        LengthEmbedder.fitted([])
    for wrong in ({"deviation": 0.0}, {"mean": float("nan")}, {"scale": "much"}):
        with pytest.raises(ConfigurationError, match="finite and deviation above 0"):
            LengthEmbedder(**wrong)  # type: ignore[arg-type]


def test_the_surface_is_what_it_says() -> None:
    surface = as_embedder("surface")
    assert isinstance(surface, SurfaceEmbedder)
    plain = SurfaceEmbedder(means=(0.0,) * 9, deviations=(1.0,) * 9, scale=1.0)
    text = "Is 12 > é?\nYES or no"
    counts = np.log1p([len(text), 2, 10, np.mean([2, 2, 1, 2, 3, 2, 2]), 1])
    shares = np.array([2, 2, 4, 1]) / len(text)
    np.testing.assert_allclose(plain.embed([text])[0], np.minimum([*counts, *shares], 3.0), rtol=1e-6)
    assert np.abs(surface.embed(["1" * 10_000, "", "\ud800", "?\n" * 50_000])).max() <= 0.6 + 1e-6
    assert surface.embed([]).shape == (0, 9)
    fitted = SurfaceEmbedder.fitted(["a b?", "ccc", "ddd ddd\n1"], scale=0.5)
    rows = fitted.embed(["a b?", "ccc", "ddd ddd\n1"])
    np.testing.assert_allclose(rows.mean(axis=0), 0.0, atol=1e-6)
    assert set(rows.std(axis=0).round(4)) == {0.0, 0.5}  # what is the same everywhere stays 0
    with pytest.raises(ConfigurationError, match="got no prompts"):
        SurfaceEmbedder.fitted([])
    for wrong in ({"means": (1.0,)}, {"deviations": (0.0,) * 9}, {"scale": float("inf")}):
        with pytest.raises(ConfigurationError, match="9 finite numbers, deviations above 0"):
            SurfaceEmbedder(**wrong)  # type: ignore[arg-type]


def test_length_and_surface_are_standardised_by_the_training_prompts() -> None:
    prompts = ["ab", "abcdefgh"]
    both = as_embedder("static+length", prompts=prompts)
    assert isinstance(both, ConcatenatedEmbedder)
    assert both.parts[1] == LengthEmbedder.fitted(prompts)
    assert as_embedder("surface", prompts=prompts) == SurfaceEmbedder.fitted(prompts)
    three = as_embedder("static+static+length", prompts=prompts)  # beside two models, as long as beside one
    assert isinstance(three, ConcatenatedEmbedder)
    assert three.parts[2] == LengthEmbedder.fitted(prompts, scale=0.3 * np.sqrt(2.0))


def test_what_is_side_by_side_tells_what_its_parts_tell() -> None:
    known, silent = as_embedder("static+length"), ConcatenatedEmbedder([Mine(), LengthEmbedder()])
    assert isinstance(known, ConcatenatedEmbedder)
    assert known.is_quick
    assert known.model_id is not None
    assert known.model_id.startswith("static:")
    assert (silent.is_quick, silent.model_id, silent.dimensions) == (False, None, 3)
    with pytest.raises(ConfigurationError, match="got no embedders"):
        ConcatenatedEmbedder([])


def test_the_name_of_the_bundled_model_follows_its_content() -> None:
    first, second = StaticEmbedder.from_pretrained(_static()), StaticEmbedder.from_pretrained(_static())
    assert first.model_id == second.model_id
    changed = StaticEmbedder(
        tokenizer=first.tokenizer, vectors=first.vectors, weights=first.weights * 2, mapping=first.mapping
    )
    assert changed.model_id != first.model_id


def _static() -> Path:
    from prefroute.embedding.registry import BUNDLED

    return BUNDLED


def test_saved_and_read_back(tmp_path: Path) -> None:
    embedder = as_embedder("length+static+surface", prompts=["Why?", "Because of 12 things."])
    save_embedder(embedder, tmp_path)
    for again in (load_embedder(tmp_path), as_embedder(tmp_path), as_embedder(str(tmp_path))):
        np.testing.assert_array_equal(again.embed(TEXTS), embedder.embed(TEXTS))


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"embedder_type": "other"}, "embedder_type 'other'; known: concatenated"),
        ({"embedder_type": None}, "embedder_type None"),
        ({"embedder_type": "concatenated", "parts": -1}, "parts must be a whole number"),
        ({"embedder_type": "surface", "settings": {"means": [1.0], "deviations": [1.0]}}, "9 finite numbers"),
        ({"embedder_type": "length", "settings": {"means": 1.0}}, "means"),
        ({"embedder_type": "length", "settings": {"mean": 1.0, "deviation": 0.0, "scale": 1.0}}, "above 0"),
    ],
)
def test_damaged_folders_are_refused(tmp_path: Path, config: dict[str, Any], problem: str) -> None:
    header = {"format": "prefroute", "format_version": 1}
    (tmp_path / "config.json").write_text(json.dumps(header | config))
    with pytest.raises(PersistenceError, match=problem):
        load_embedder(tmp_path)


def test_known_names_come_before_folders_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("static", "static+surface", "minilm", "openai:m", "own"):
        save_embedder(LengthEmbedder(), name)
    assert isinstance(as_embedder("static"), StaticEmbedder)
    assert isinstance(as_embedder("static+surface"), ConcatenatedEmbedder)
    assert type(as_embedder("minilm")).__name__ == "SentenceTransformerEmbedder"
    assert type(as_embedder("openai:m")).__name__ == "OpenAIEmbedder"
    for folder in ("./static", Path("static"), "./static+surface", str(tmp_path / "static+surface"), "own"):
        assert isinstance(as_embedder(folder), LengthEmbedder)
    (tmp_path / "mo+del").mkdir()
    model = as_embedder("sentence-transformers:./mo+del")
    assert type(model).__name__ == "SentenceTransformerEmbedder"
    assert model.model == "./mo+del"  # type: ignore[attr-defined]


@pytest.mark.parametrize("text", ["x" * 5000, "y/" * 5000, "a\0b"])
def test_what_could_be_no_path_is_refused_as_a_name(text: str) -> None:
    with pytest.raises(ConfigurationError, match="unknown embedder"):
        as_embedder(text)


@pytest.mark.parametrize(
    "files",
    [{"modules.json": "[]"}, {"config.json": '{"model_type": "bert"}'}, {"modules.json": "x", "config.json": "{"}],
)
def test_the_folder_of_a_model_is_told_how_to_be_given(tmp_path: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    for given in (tmp_path, str(tmp_path)):
        with pytest.raises(PersistenceError, match=f"give it as sentence-transformers:{tmp_path}"):
            as_embedder(given)


def test_parts_are_counted_in_all(tmp_path: Path) -> None:
    eight = ConcatenatedEmbedder([LengthEmbedder()] * 7)
    most = ConcatenatedEmbedder([eight, eight])
    save_embedder(most, tmp_path / "most")
    assert load_embedder(tmp_path / "most").embed(TEXTS).shape == (5, 14)
    for parts in ([eight, eight, LengthEmbedder()], [LengthEmbedder()] * 17):
        with pytest.raises(ConfigurationError, match=r"17 embedders .* at most 16"):
            ConcatenatedEmbedder(parts)


def test_folders_within_folders_are_counted_before_any_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = {"format": "prefroute", "format_version": 1, "embedder_type": "concatenated", "parts": 1}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "0").symlink_to(tmp_path)  # Without end.
    with pytest.raises(PersistenceError, match="more than 16 parts"):
        load_embedder(tmp_path)
    loaded = []
    monkeypatch.setattr(LengthEmbedder, "from_pretrained", loaded.append)
    save_embedder(LengthEmbedder(), tmp_path / "wide" / "0")
    for number in range(1, 3):
        save_embedder(ConcatenatedEmbedder([LengthEmbedder()] * 16), tmp_path / "wide" / str(number))
    (tmp_path / "wide" / "config.json").write_text(json.dumps(config | {"parts": 3}))
    with pytest.raises(PersistenceError, match="more than 16 parts"):
        load_embedder(tmp_path / "wide")
    assert not loaded


class Asynchronous(Mine):
    """One that waits for the other parts to have begun."""

    def __init__(self) -> None:
        self.others = threading.Event()

    async def aembed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        assert await asyncio.to_thread(self.others.wait, 30)
        return self.embed(texts)


class Beginning(Mine):
    """Embeds in a thread that is not the event loop's, and says that it has begun."""

    def __init__(self, begun: threading.Event) -> None:
        self.begun = begun

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        assert threading.current_thread() is not threading.main_thread()
        self.begun.set()
        return super().embed(texts)


async def test_what_is_side_by_side_is_asynchronous_where_a_part_is() -> None:
    slow = Asynchronous()
    both = ConcatenatedEmbedder([slow, Beginning(slow.others)])
    rows = await both.aembed(TEXTS)
    np.testing.assert_array_equal(rows, np.hstack([Mine().embed(TEXTS)] * 2))
    assert not hasattr(ConcatenatedEmbedder([Mine(), LengthEmbedder()]), "aembed")
    assert hasattr(ConcatenatedEmbedder([LengthEmbedder(), both]), "aembed")


async def test_a_part_that_fails_ends_the_others() -> None:
    class Failing(Mine):
        async def aembed(self, texts: Sequence[str]) -> NDArray[np.float32]:
            await begun.wait()
            raise OSError

    class Waiting(Mine):
        async def aembed(self, texts: Sequence[str]) -> NDArray[np.float32]:
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()
            raise AssertionError

    begun, ended = asyncio.Event(), asyncio.Event()
    with pytest.raises(OSError):  # noqa: PT011 - it has no message
        await ConcatenatedEmbedder([Failing(), Waiting()]).aembed(["a"])
    await asyncio.wait_for(ended.wait(), 30)


def test_embedders_that_few_need_are_imported_when_asked_for() -> None:
    code = """
import sys
import prefroute.embedding as embedding
names = {"CachedEmbedder": "cache", "OpenAIEmbedder": "openai", "SentenceTransformerEmbedder": "sentence_transformers"}
modules = {f"prefroute.embedding.{module}" for module in names.values()} | {"sqlite3"}
assert not modules & set(sys.modules), modules & set(sys.modules)
assert set(names) <= set(embedding.__all__)
for name in embedding.__all__:
    assert getattr(embedding, name).__name__ == name or callable(getattr(embedding, name))
assert modules <= set(sys.modules)
assert not hasattr(embedding, "Other")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_an_embedder_that_cannot_be_saved_is_brought_at_loading(tmp_path: Path) -> None:
    pair, own = ModelPair("big", "small"), Mine()
    parts: Any = {"models": ("big", "small"), "weights": [[0.1, 0.0], [0.0, 0.0]], "pair": pair}
    router = MatrixFactorizationRouter(embedder=own, **parts)
    router.save_pretrained(tmp_path)
    with pytest.raises(PersistenceError, match=r"the 'Mine' .* load_router\(FOLDER, embedder=...\)"):
        load_router(tmp_path)
    again = load_router(tmp_path, embedder=own)
    np.testing.assert_array_equal(again.win_probability(TEXTS), router.win_probability(TEXTS))
    assert MatrixFactorizationRouter.from_pretrained(tmp_path, embedder=own).embedder is own
    with pytest.raises(PersistenceError, match="dimensions"):
        load_router(tmp_path, embedder="static")
    with pytest.raises(ConfigurationError, match="unknown embedder 'best'"):
        load_router(tmp_path, embedder="best")
