"""Whatever is read, only errors of this package come out, and every row is used or reported."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prefroute.data import ReadReport, read_battles, read_judgements, read_responses
from prefroute.errors import PrefrouteError

ROWS = [
    {"prompt": f'a "{i}",\n b', "model_a": "x", "model_b": "y", "winner": "tie", "weight": 1.5, "turns": ["é", "😀"]}
    for i in range(5)
]
JSON_LINES = "\n".join(json.dumps(row) for row in ROWS).encode()
CSV = b'prompt,model_a,model_b,winner\n"a,\n""b""",x,y,tie\r\n' + "é😀,x,y,model_a\n".encode() * 4
FILES = [JSON_LINES, CSV, json.dumps(ROWS).encode(), gzip.compress(JSON_LINES), gzip.compress(CSV)]
one_file = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def read(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    report = ReadReport()
    try:
        battles = read_battles(path, on_bad_row="skip", report=report)
    except PrefrouteError:
        return
    assert len(battles) == report.rows_kept
    assert report.rows_read == report.rows_kept + report.rows_bad
    for prompt in battles.prompts:
        prompt.encode()


@one_file
@given(content=st.binary(max_size=300), name=st.sampled_from(["a", "a.csv", "a.json", "a.csv.gz", "a.parquet"]))
def test_any_bytes(tmp_path: Path, content: bytes, name: str) -> None:
    read(tmp_path / name, content)


@one_file
@given(data=st.data(), content=st.sampled_from(FILES))
def test_good_files_with_bytes_changed(tmp_path: Path, data: st.DataObject, content: bytes) -> None:
    damaged = bytearray(content)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(damaged) - 1))
        damaged[place : place + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    read(tmp_path / "a", bytes(damaged))


odd = ["tie", "x", "[", "[]", "### Human:", 10**400, np.float32("nan"), np.array([1, 2]), np.array("a"), b"x", {}]
any_value = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(odd),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["role", "content", "text"]), inner),
    max_leaves=4,
)
any_row = st.dictionaries(
    st.sampled_from(["prompt", "turns", "model_a", "model_b", "winner", "outcome", "weight", "source", "winner_tie"]),
    any_value,
)


@settings(deadline=None)
@given(st.lists(any_row | any_value, max_size=6), any_value)
def test_any_rows(rows: list[Any], value: Any) -> None:
    good = {"prompt": "q", "model_a": "x", "model_b": "y", "outcome": 1.0}
    for options in ({}, {"columns": {"outcome": "winner", "weight": "weight"}}, {"models": ["outcome", "weight"]}):
        for source in ([good, *rows], [good | {"winner": "tie", "weight": value, "source": value}, *rows]):
            try:
                battles = read_battles(source, on_bad_row="skip", turn="all", **options)  # type: ignore[arg-type]
            except PrefrouteError:
                continue
            assert np.isfinite(battles.outcomes).all()


@settings(deadline=None)
@given(any_value, any_value, any_value)
def test_any_judgement(question: Any, score: Any, turn: Any) -> None:
    rows = [{"question_id": question, "model": "m", "score": score, "turn": turn}]
    for questions in (rows, [{"question_id": question, "prompt": "q"}]):
        try:
            table = read_judgements(rows, questions, ["m"], on_bad_row="skip")
        except PrefrouteError:
            continue
        assert table.quality.shape == (1, 1)


@pytest.mark.parametrize("value", [np.array([1.0, 2.0]), [1], {"a": 1}, "x", b"x", np.array("x"), object()])
def test_any_quality(value: Any) -> None:
    with pytest.raises(PrefrouteError, match="quality of s"):
        read_responses([{"prompt": "q", "s": value}], ["s"])
