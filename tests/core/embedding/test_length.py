"""The length of the prompt as a coordinate: its unit, its limit, and that what was saved before these is still read."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prefroute.embedding import ConcatenatedEmbedder, LengthEmbedder, SurfaceEmbedder, load_embedder, save_embedder
from prefroute.embedding.registry import standardised
from prefroute.errors import ConfigurationError, PersistenceError


@pytest.mark.parametrize(
    ("text", "size"), [("", 0), ("prime", 5), ("素数", 6), ("простое", 14), ("🙂", 4), ("\ud800", 3), ("é\ud800a", 6)]
)
def test_bytes_are_those_of_utf8(text: str, size: int) -> None:
    plain = LengthEmbedder(mean=0.0, deviation=1.0, scale=1.0, unit="bytes")
    np.testing.assert_allclose(plain.embed([text]), [[np.log1p(size)]], rtol=1e-6)


def test_length_is_cut_at_the_limit_and_rises_below_it() -> None:
    cut = LengthEmbedder(mean=5.0, deviation=1.0, scale=0.5, limit=2.0)
    coordinates = cut.embed(["", "a" * 100, "a" * 300, "a" * 100_000])[:, 0]
    assert coordinates[[0, 3]].tolist() == [-1.0, 1.0]
    assert (np.diff(coordinates) > 0).all()
    np.testing.assert_array_equal(
        coordinates[1:3], LengthEmbedder(mean=5.0, scale=0.5).embed(["a" * 100, "a" * 300])[:, 0]
    )


@pytest.mark.parametrize("limit", [0.0, -1.0, float("inf"), float("nan"), "2", True])
def test_a_limit_that_is_none_is_refused(limit: Any) -> None:
    with pytest.raises(ConfigurationError, match="limit must be None or a number of deviations above 0"):
        LengthEmbedder(limit=limit)


@pytest.mark.parametrize("unit", ["words", "", None])
def test_another_unit_is_refused_with_those_that_are_known(unit: Any) -> None:
    with pytest.raises(ConfigurationError, match="unit must be one of characters, bytes"):
        LengthEmbedder(unit=unit)


def test_standardised_anew_it_keeps_its_other_settings() -> None:
    prompts = ["素数", "素数" * 20]
    given = ConcatenatedEmbedder([LengthEmbedder(scale=0.7, limit=1.5, unit="bytes"), SurfaceEmbedder(scale=0.4)])
    found: Any = standardised(given, prompts)
    assert found.parts[0] == LengthEmbedder.fitted(prompts, scale=0.7, limit=1.5, unit="bytes")
    assert found.parts[0].mean == pytest.approx(np.log1p([6, 120]).mean())
    assert found.parts[1] == SurfaceEmbedder.fitted(prompts, scale=0.4)


def test_it_is_read_as_it_was_saved(tmp_path: Path) -> None:
    saved = LengthEmbedder(mean=5.4, limit=2.0, unit="bytes")
    save_embedder(saved, tmp_path)
    assert load_embedder(tmp_path) == saved


def test_what_was_saved_without_unit_and_limit_is_read_as_before(tmp_path: Path) -> None:
    save_embedder(LengthEmbedder(mean=4.0), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    del config["settings"]["unit"], config["settings"]["limit"]
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert load_embedder(tmp_path) == LengthEmbedder(mean=4.0)
    config["settings"]["unit"] = "words"
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    with pytest.raises(PersistenceError, match="unit"):
        load_embedder(tmp_path)


def test_caches_tell_units_and_limits_apart_and_know_what_was_there_before() -> None:
    assert LengthEmbedder(mean=4.0).model_id == "length:4.0:1.0:0.3"
    settings: list[Any] = [{}, {"limit": 2.0}, {"unit": "bytes"}, {"limit": 2.0, "unit": "bytes"}, {"limit": 1.0}]
    assert len({LengthEmbedder(**given).model_id for given in settings}) == len(settings)
