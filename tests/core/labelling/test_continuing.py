"""What a further run of the same output takes for the same, and what not."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any

import pytest
from loopback import LabellingServer, questions

from prefroute.errors import ConfigurationError
from prefroute.labelling import Golden, OwnLabel, load_function

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Rows = list[dict[str, Any]]
Label = "Callable[..., LabelSummary]"


def test_a_corrected_reference_takes_the_place_of_the_wrong_one(
    label: Label, server: LabellingServer, rows: Callable[[], Rows], caplog: pytest.LogCaptureFixture
) -> None:
    server.says |= {"big": lambda said: "5", "small": lambda said: "7"}
    label(["q", "r"], labeller=Golden("numeric"), references=["7", "7"])
    with caplog.at_level(logging.WARNING, logger="prefroute.labelling"):
        summary = label(["q", "r"], labeller=Golden("numeric"), references=["5", "7"])
    assert (summary.labelled, summary.calls) == (2, 0)
    found = {(row["prompt"], row["reference"]): (row["big"], row["small"]) for row in rows()}
    assert found == {("q", "5"): (1.0, 0.0), ("r", "7"): (0.0, 1.0)}
    assert "1 rows had another reference than their prompts have now" in caplog.text


def test_rows_of_prompts_that_are_not_given_stay(label: Label, rows: Callable[[], Rows]) -> None:
    labeller = OwnLabel(lambda *_: 0.5, name="half")
    label(["q", "r"], labeller=labeller, references=["1", "2"])
    label(["s"], labeller=labeller, references=["3"])
    label(["s", "q", "q"], labeller=labeller, references=["3", "1", "4"])
    assert sorted((row["prompt"], row["reference"]) for row in rows()) == [
        ("q", "1"),
        ("q", "4"),
        ("r", "2"),
        ("s", "3"),
    ]


def test_verdicts_count_among_the_replies_that_changed_settings_use(label: Label) -> None:
    label(questions(3))
    with pytest.raises(ConfigurationError, match="of which these settings use 12 of 12"):
        label(questions(3), references=["r"] * 3)


def test_a_function_of_a_file_may_import_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "neighbour_of_labels.py").write_text("HALF = 0.5\n")
    (tmp_path / "mine.py").write_text("from neighbour_of_labels import HALF\n\ndef label(*_):\n    return HALF\n")
    before = list(sys.path)
    function, name = load_function(f"{tmp_path / 'mine.py'}:label")
    assert function() == 0.5
    assert name.startswith("mine.py:label@")
    assert sys.path == before


def test_a_module_in_the_working_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "module_of_labels.py").write_text("def label(*_):\n    return 0.25\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    function, _ = load_function("module_of_labels:label")
    assert function() == 0.25
