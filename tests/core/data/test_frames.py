"""Frames, data sets and Parquet: the same battles as from text, with missing cells reported by row."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prefroute.data import ReadReport, read_battles, read_prompts, read_responses
from prefroute.errors import DataError, MissingExtraError

ROWS = [
    {"prompt": "q", "model_a": "x", "model_b": "y", "winner": "tie", "weight": 1.0},
    {"prompt": "r", "model_a": "x", "model_b": "y", "winner": None, "weight": None},
    {"prompt": "s", "model_a": "x", "model_b": "y", "winner": "model_b", "weight": 2.0},
]


def check(source: Any, **options: Any) -> None:
    report = ReadReport()
    battles = read_battles(source, on_bad_row="skip", report=report, **options)
    assert battles.prompts == ("q", "s")
    assert battles.outcomes.tolist() == [0.5, 0.0]
    assert [(row.line, row.reason) for row in report.bad_rows] == [(2, "outcome is missing")]


class FakeDataset:
    """As much of a Hugging Face Dataset as is used."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows = rows
        self.column_names = list(rows[0])

    def __len__(self) -> int:
        return len(self.rows)

    def select_columns(self, names: list[str]) -> "FakeDataset":
        return FakeDataset([{name: row[name] for name in names} for row in self.rows])

    def with_format(self, kind: None) -> "FakeDataset":
        return self

    def iter(self, batch_size: int) -> Any:
        for start in range(0, len(self.rows), batch_size):
            part = self.rows[start : start + batch_size]
            yield {name: [row[name] for row in part] for name in self.column_names}


@pytest.mark.parametrize("source", [ROWS, tuple(ROWS), iter(ROWS), FakeDataset(ROWS)])
def test_rows_in_memory(source: Any) -> None:
    check(source)


def test_a_long_data_set_is_read_in_batches() -> None:
    rows = [ROWS[0] | {"prompt": f"q{i}"} for i in range(3000)]
    for source in (FakeDataset(rows), (row for row in rows)):
        assert read_battles(source).prompts == tuple(f"q{i}" for i in range(3000))
    broken = [*rows[:2500], ROWS[1]]
    with pytest.raises(DataError, match="list, row 2501: outcome is missing"):
        read_battles(broken)


def test_a_pandas_frame() -> None:
    pandas = pytest.importorskip("pandas")
    check(pandas.DataFrame(ROWS))
    check(pandas.DataFrame(ROWS).convert_dtypes())
    check(pandas.DataFrame(ROWS), columns={"weight": "weight"})
    turns = pandas.DataFrame([{"turns": ["one", "two"], "model_a": "x", "model_b": "y", "winner": "tie"}])
    assert read_battles(turns, turn="last").prompts == ("two",)
    with pytest.raises(DataError, match="more than one column"):
        read_battles(pandas.DataFrame([[1, 2]], columns=["prompt", "prompt"]))


def test_a_parquet_file(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    check(tmp_path / "a.parquet")
    rows = [
        {"prompt": "q", "gpt-3.5": 1.0, "b.c": 2.0, "d": True},
        {"prompt": "r", "gpt-3.5": None, "b.c": 2.0, "d": True},
    ]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "b.parquet")
    table = read_responses(tmp_path / "b.parquet", ["b.c", "d", "gpt-3.5"], on_bad_row="skip")
    assert table.quality.tolist() == [[2.0, 1.0, 1.0]]


def parquet_of(path: Path, prompts: list[bytes], **options: Any) -> Path:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    offsets = pyarrow.array(np.cumsum([0, *map(len, prompts)]), pyarrow.int32()).buffers()[1]
    # Built from its bytes, since pyarrow makes no such text of its own accord.
    texts = pyarrow.StringArray.from_buffers(len(prompts), offsets, pyarrow.py_buffer(b"".join(prompts)))
    columns = {"prompt": texts} | {
        name: pyarrow.array([value] * len(prompts))
        for name, value in (("model_a", "x"), ("model_b", "y"), ("winner", "tie"))
    }
    parquet.write_table(pyarrow.table(columns), path, **options)
    return path


def test_a_text_of_parquet_that_is_no_utf8_costs_its_own_row_only(tmp_path: Path) -> None:
    path = parquet_of(tmp_path / "a.parquet", [b"one", b"\xff\xfe", b"three"])
    report = ReadReport()
    assert read_battles(path, on_bad_row="skip", report=report).prompts == ("one", "three")
    assert [(row.line, row.reason) for row in report.bad_rows] == [(2, "a text is not UTF-8; write it as UTF-8")]


def test_a_broken_page_of_parquet_is_refused_even_when_skipping(tmp_path: Path) -> None:
    prompts = [f"question number {n}".encode() for n in range(5000)]
    path = parquet_of(tmp_path / "a.parquet", prompts, row_group_size=2500, compression="snappy", use_dictionary=False)
    data = bytearray(path.read_bytes())
    place = data.index(b"question number 2500")
    data[place - 60 : place - 4] = b"\xff" * 56
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"damaged from row \d+ on: nothing from here on.*Fetch the file again"):
        read_battles(path, on_bad_row="skip")


def test_columns_that_recur_are_refused(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.table([["q"], ["r"]], names=["prompt", "prompt"]), tmp_path / "a.parquet")
    (tmp_path / "a.csv").write_text("prompt,prompt\nq,r\n")
    frame = pandas.DataFrame([["q", "r"]], columns=["prompt", "prompt"])
    for source in (tmp_path / "a.parquet", tmp_path / "a.csv", frame):
        with pytest.raises(DataError, match="prompt names more than one column"):
            read_prompts(source)


def test_parquet_without_pyarrow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and more")
    with pytest.raises(MissingExtraError, match=r'pip install "prefroute\[train\]"'):
        read_battles(tmp_path / "a.parquet")
