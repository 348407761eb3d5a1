"""Benchmarks: tables of one's own, RouteLLM's layout, and how near their prompts lie to training data."""

import csv
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prefroute.data import ReadReport, prompt_hashes, seen_prompts
from prefroute.errors import ConfigurationError, DataError, PromptTypeError
from prefroute.evaluation.benchmarks import Benchmark, read_benchmark, read_folder
from prefroute.evaluation.similarity import benchmark_data_similarity
from prefroute.testing import FakeEmbedder
from prefroute.types import ModelPair

DATA = Path(os.environ.get("PREFROUTE_DATA", Path(__file__).parents[2] / "../shared/data"))
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"the shared data are not at {DATA}; set PREFROUTE_DATA")

PAIR = ModelPair("big", "small")
ROWS: list[dict[str, Any]] = [
    {"question": "Why?", "big": 1, "small": "false", "kind": "short", "paid": 0.1, "n": 3},
    {"question": "What is it?", "big": "0.5", "small": 0.25, "kind": 7, "paid": 0.2, "n": 9},
    {"question": "WHAT  is it?", "big": 1, "small": 1, "kind": "short", "paid": 0.3, "n": 9},
]


def test_a_table_of_ones_own_has_all_that_is_asked_for() -> None:
    table = read_benchmark(
        ROWS, PAIR, prompt="question", category="kind", numbers={"strong_cost": "paid", "input_tokens": "n"}
    )
    assert table.prompts == ("Why?", "What is it?", "WHAT  is it?")
    assert table.gains.tolist() == [1.0, 0.25, 0.0]
    assert table.categories == ("short", "7", "short")
    assert table.groups.tolist() == [0, 1, 1]
    cost, tokens = table.column("strong_cost"), table.column("input_tokens")
    assert cost is not None
    assert tokens is not None
    assert (cost.tolist(), tokens.tolist()) == ([0.1, 0.2, 0.3], [3.0, 9.0, 9.0])
    assert table.column("weak_cost") is None
    left = table.without(["what is it?"])
    assert (left.prompts, left.removed, left.categories) == (("Why?",), 2, ("short",))
    assert repr(table) == "Benchmark('benchmark', 3 prompts)"


def test_columns_that_are_called_so_are_recognised_where_every_row_has_them() -> None:
    table: list[dict[str, Any]] = [
        {"prompt": "a", "big": 1, "small": 0, "strong_cost": 0.5, "weak_cost": None, "input_tokens": "3"},
        {"prompt": "b", "big": 1, "small": 1, "strong_cost": "0.25", "weak_cost": 0.1, "input_tokens": -1},
    ]
    found = read_benchmark(table, PAIR)
    assert {name: row.tolist() for name, row in (found.numbers or {}).items()} == {"strong_cost": [0.5, 0.25]}
    assert read_benchmark(table, PAIR, numbers={}).numbers == {}
    whole = read_benchmark(table[:1], PAIR, category="prompt")
    assert sorted(whole.numbers or {}) == ["input_tokens", "strong_cost"]
    assert whole.categories == ("a",)


def test_rows_that_cannot_be_used_are_told() -> None:
    bad = [*ROWS, {**ROWS[0], "big": "good"}, {**ROWS[0], "kind": None}, {**ROWS[0], "paid": ""}]
    with pytest.raises(DataError, match="row 4: quality of big must be a finite number"):
        read_benchmark(bad, PAIR, prompt="question")
    report = ReadReport()
    table = read_benchmark(
        [*ROWS * 5, *bad],
        PAIR,
        prompt="question",
        category="kind",
        numbers={"strong_cost": "paid"},
        on_bad_row="skip",
        report=report,
    )
    assert (len(table), report.rows_bad) == (18, 3)
    with pytest.raises(DataError, match="no column 'mood'; it has: 'question'"):
        read_benchmark(ROWS, PAIR, prompt="question", category="mood")
    with pytest.raises(DataError, match="no column 'bigger'"):
        read_benchmark(ROWS, ModelPair("bigger", "small"), prompt="question")


def test_what_is_no_benchmark_is_refused() -> None:
    with pytest.raises(DataError, match="has no rows"):
        Benchmark(name="b", pair=PAIR, prompts=(), strong=np.empty(0), weak=np.empty(0))
    with pytest.raises(DataError, match="must be finite, got nan"):
        Benchmark(name="b", pair=PAIR, prompts=("x",), strong=np.array([np.nan]), weak=np.ones(1))
    with pytest.raises(DataError, match="2 strong and 1 weak qualities"):
        Benchmark(name="b", pair=PAIR, prompts=("x",), strong=np.ones(2), weak=np.ones(1))
    for numbers in ({"strong_cost": -np.ones(1)}, {"strong_cost": np.array([np.nan])}, {"paid": np.ones(1)}):
        with pytest.raises(DataError, match="must be one of strong_cost, weak_cost"):
            Benchmark(name="b", pair=PAIR, prompts=("x",), strong=np.ones(1), weak=np.ones(1), numbers=numbers)
    with pytest.raises(DataError, match="categories has 2 values for 1 prompts"):
        Benchmark(name="b", pair=PAIR, prompts=("x",), strong=np.ones(1), weak=np.ones(1), categories=("a", "b"))


@needs_data
@pytest.mark.parametrize(
    ("folder", "n", "removed", "weak", "strong", "categories"),
    [
        ("mmlu", 14037, 5, 0.6809, 0.8059, 57),
        ("gsm8k", 1307, 12, 0.6373, 0.8577, 0),
        ("mt_bench", 72, 8, 8.281, 9.212, 8),
    ],
)
def test_the_published_benchmarks_have_their_published_sizes_and_means(
    folder: str, n: int, removed: int, weak: float, strong: float, categories: int
) -> None:
    table = read_folder(DATA / "routellm" / folder)
    assert (len(table), table.removed) == (n, removed)
    assert (table.weak.mean(), table.strong.mean()) == pytest.approx((weak, strong), abs=6e-4)
    assert len(set(table.categories or ())) == categories


def test_the_layout_of_a_folder_is_told_by_its_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no benchmark in RouteLLM's layout"):
        read_folder(tmp_path)
    with (tmp_path / "gsm8k_responses.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([["prompt", "big", "small"], ["One?", 1, 0], ["Two?", 1, 1]])
    assert len(read_folder(tmp_path, PAIR)) == 2
    (tmp_path / "contaminated_prompts.jsonl").write_text(json.dumps({"eval_prompt": "ONE?"}))
    found = read_folder(tmp_path, PAIR)
    assert (found.prompts, found.removed) == (("Two?",), 1)


def test_mmlu_is_read_as_routellms_repository_keeps_it(tmp_path: Path) -> None:
    tables = tmp_path / "mmlu" / "responses"
    tables.mkdir(parents=True)
    for domain in ("anatomy", "law"):
        (tables / f"mmlu_{domain}.csv").write_text(f"prompt,big,small\n{domain} one,1,0\n{domain} two,1,1\n")
    (tmp_path / "mmlu" / "contaminated_prompts.jsonl").write_text(json.dumps({"eval_prompt": "law one"}))
    for folder in (tables, tables.parent):
        found = read_folder(folder, PAIR)
        assert found.prompts == ("anatomy one", "anatomy two", "law two")
        assert (found.categories, found.removed) == (("anatomy", "anatomy", "law"), 1)


def test_a_contaminated_second_turn_takes_its_question_along(tmp_path: Path) -> None:
    questions = [{"question_id": n, "category": "c", "turns": [f"first {n}", f"second {n}"]} for n in range(3)]
    scores = [
        {"question_id": n, "model": model, "score": 4 + n + turn + (model == "big"), "turn": turn}
        for n in range(3)
        for model in ("big", "small")
        for turn in (1, 2)
    ]
    for name, rows in {"question": questions, "judgements": scores}.items():
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "contaminated_prompts.jsonl").write_text(json.dumps({"eval_prompt": "second 1"}))
    found = read_folder(tmp_path, PAIR)
    assert found.prompts == ("first 0", "first 2")
    assert found.weak.tolist() == [5.5, 7.5]  # the mean of both turns
    assert found.gains.tolist() == [1.0, 1.0]


def test_hashes_know_a_prompt_however_spelt() -> None:
    hashes = prompt_hashes(["What is  it?", "Why?"])
    assert seen_prompts(["WHAT IS IT?", "Where?", " why? "], hashes).tolist() == [True, False, True]
    assert seen_prompts(["x"], hashes[:0]).tolist() == [False]
    assert prompt_hashes([]).shape == (0,)


def test_similarity_is_the_mean_of_the_largest_cosines() -> None:
    embedder = FakeEmbedder(8)
    training = ["a", "b", "c"]
    rows = {text: row / np.linalg.norm(row) for text in "abxy" for row in embedder.embed([text])}
    known = embedder.embed(training) / np.linalg.norm(embedder.embed(training), axis=1, keepdims=True)
    expected = np.mean([1.0, *(max(known @ rows[text]) for text in "xy")])
    found = benchmark_data_similarity(["a", "x", "y"], training, embedder=embedder)
    assert found == pytest.approx(expected, abs=1e-6)
    assert benchmark_data_similarity(training, training, embedder=embedder) == pytest.approx(1.0)
    with pytest.raises(DataError, match="prompts on both sides, got 1 and 0"):
        benchmark_data_similarity(["a"], [])
    with pytest.raises(PromptTypeError):
        benchmark_data_similarity("a", ["b"])


def test_options_about_nothing_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="turn must be one of"):
        read_benchmark(ROWS, PAIR, turn="second")  # type: ignore[arg-type]
