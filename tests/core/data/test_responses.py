"""Response tables and judge scores, and the battles that they make."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefroute.data import ReadReport, ResponseTable, read_battles, read_judgements, read_responses, reference_battles
from prefroute.data.cleaning import responses_without_prompts
from prefroute.errors import ConfigurationError, DataError
from prefroute.types import Battle, ModelPair

PAIR = ModelPair("s", "w")


def table(quality: list[list[float]], models: tuple[str, ...] = ("s", "w")) -> ResponseTable:
    return ResponseTable(prompts=tuple(f"p{i}" for i in range(len(quality))), models=models, quality=np.array(quality))


def test_golden_labels_win_only_where_one_is_right() -> None:
    rows = [
        {"prompt": "1", "s": "True", "w": "False"},
        {"prompt": "2", "s": "false", "w": "TRUE"},
        {"prompt": "3", "s": True, "w": 1},
        {"prompt": "4", "s": 0, "w": False},
    ]
    assert read_battles(rows, models=["s", "w"]).for_pair(PAIR).outcomes.tolist() == [1.0, 0.0, 0.5, 0.5]
    assert read_responses(rows, ["s", "w"]).gains(PAIR).tolist() == [1.0, -1.0, 0.0, 0.0]


def test_scores_within_the_margin_tie() -> None:
    scores = table([[8, 7], [8, 6], [6, 8], [0.3, 0.1]])
    assert scores.to_battles().outcomes.tolist() == [1.0, 1.0, 0.0, 1.0]
    assert scores.to_battles(margin=1).outcomes.tolist() == [0.5, 1.0, 0.0, 0.5]
    assert scores.to_battles(margin=0.2).outcomes.tolist() == [1.0, 1.0, 0.0, 0.5]
    for margin in (-1, float("nan"), "1"):
        with pytest.raises(ConfigurationError, match="margin"):
            scores.to_battles(margin=margin)  # type: ignore[arg-type]


@given(st.integers(2, 5), st.integers(1, 6), st.randoms(use_true_random=False))
def test_every_two_models_meet_once_a_row(models: int, rows: int, random: Any) -> None:
    names = [f"m{i}" for i in range(models)]
    random.shuffle(names)
    quality = [[random.choice([0.0, 1.0, 2.0]) for _ in names] for _ in range(rows)]
    battles = list(table(quality, tuple(names)).to_battles(source="t", weight=2.0))
    wanted = [
        Battle(f"p{row}", names[i], names[j], 0.5 + 0.5 * np.sign(quality[row][i] - quality[row][j]), 2.0, "t")
        for row in range(rows)
        for i in range(models)
        for j in range(i + 1, models)
    ]
    assert battles == wanted


def test_a_prompt_may_recur() -> None:
    rows = [{"prompt": "q", "s": 9, "w": 5}, {"prompt": "q", "s": 5, "w": 9}, {"prompt": "q", "s": 9, "w": 8}]
    labels = read_battles(rows, models=["s", "w"]).for_pair(PAIR)
    assert labels.prompts == ["q"]
    assert labels.outcomes == pytest.approx([2 / 3])
    assert labels.weights.tolist() == [3.0]
    assert len(read_responses(rows, ["s", "w"])) == 3


@pytest.mark.parametrize(
    ("value", "reason"),
    [(None, "is missing"), ("", "is missing"), ("maybe", "finite number"), (float("nan"), "missing"), (-1, "1 to 10")],
)
def test_a_quality_that_is_none(value: Any, reason: str) -> None:
    rows = [{"prompt": "q", "s": 9, "w": value}]
    with pytest.raises(DataError, match=f"quality of w.*{reason}"):
        read_responses(rows, ["s", "w"], scale=(1, 10))


def test_columns_of_models_must_be_there() -> None:
    rows = [{"prompt": "q", "s": 9, "w": 5}]
    with pytest.raises(DataError, match="fit no known format"):
        read_battles(rows)
    with pytest.raises(DataError, match="no column 'x'; columns: 'prompt', 's', 'w'"):
        read_responses(rows, ["s", "x"])
    with pytest.raises(ConfigurationError, match="needs the quality columns"):
        read_responses(rows, [])
    with pytest.raises(DataError, match="at least two models, got s"):
        read_responses(rows, ["s"]).to_battles()


def test_what_is_no_response_table() -> None:
    for options, message in (
        ({"quality": np.zeros((2, 2))}, "shape"),
        ({"quality": [["x", "y"]]}, "numbers"),
        ({"quality": [[1.0, np.inf]]}, "finite"),
        ({"models": ("s", "s")}, "differ"),
    ):
        fields: dict[str, Any] = {"prompts": ("p",), "models": ("s", "w"), "quality": [[1.0, 0.0]]} | options
        with pytest.raises(DataError, match=message):
            ResponseTable(**fields)
    with pytest.raises(DataError, match="same models"):
        ResponseTable.concatenate([table([[1, 2]]), table([[1, 2]], ("a", "b"))])
    with pytest.raises(DataError, match="no model 'x'"):
        table([[1, 2]]).gains(ModelPair("s", "x"))


def test_rows_and_models_are_chosen() -> None:
    scores = table([[1, 2], [3, 4], [5, 6]])
    assert scores[np.array([True, False, True])].prompts == ("p0", "p2")
    assert scores[[2, 0]].quality.tolist() == [[5, 6], [1, 2]]
    assert scores[1:].for_models(["w"]).quality.tolist() == [[4], [6]]
    assert responses_without_prompts(scores, [" P1 "]).prompts == ("p0", "p2")
    assert repr(scores) == "ResponseTable(3 rows, 2 models)"


def test_scores_against_a_reference() -> None:
    prompts = ["a", "b", "c", "d", "e"]
    five = [1, 2, 3, 4, 5]
    assert reference_battles(prompts, five, PAIR).for_pair(PAIR).outcomes.tolist() == [1, 1, 1, 0, 0]
    assert reference_battles(prompts, five, PAIR, good_enough=3).for_pair(PAIR).outcomes.tolist() == [1, 1, 0, 0, 0]
    graded = reference_battles(prompts, five, PAIR, graded=True).for_pair(PAIR)
    assert graded.outcomes.tolist() == [1.0, 0.75, 0.5, 0.25, 0.0]
    ten = reference_battles(["a", "b"], [7, 8], PAIR, scale=(1, 10), source="judge")
    assert ten.for_pair(PAIR).outcomes.tolist() == [1.0, 0.0]
    assert ten.sources == ("judge",)
    reverse = ModelPair("a", "z")
    assert reference_battles(["p"], [1], reverse).for_pair(reverse).outcomes.tolist() == [1.0]


@pytest.mark.parametrize(
    ("scores", "options", "error", "message"),
    [
        ([0], {}, DataError, "not on the scale 1 to 5"),
        ([1, 2], {}, DataError, "shape"),
        (["x"], {}, DataError, "numbers"),
        ([1], {"good_enough": 9}, ConfigurationError, "good_enough"),
        ([1], {"good_enough": 3, "graded": True}, ConfigurationError, "without graded"),
        ([1], {"scale": (5, 1)}, ConfigurationError, "scale"),
        ([1], {"scale": 5}, ConfigurationError, "scale"),
    ],
)
def test_scores_that_cannot_be_used(scores: Any, options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        reference_battles(["p"], scores, PAIR, **options)


QUESTIONS = [{"question_id": 1, "turns": ["one", "more"]}, {"question_id": 2, "turns": ["two", "more"]}]


def judged(question: Any, model: str, score: Any, turn: int = 1) -> dict[str, Any]:
    return {"question_id": question, "model": model, "score": score, "turn": turn, "judge": ["gpt-4", "x"]}


def test_judgements_become_a_row_a_turn() -> None:
    rows = [
        judged(2, "w", 3), judged("2", "s", 9), judged(1, "s", 8, 2), judged(1, "w", 8, 2),
        judged(1, "s", 7), judged(1, "w", 2), judged(1, "w", 4), judged(1, "other", -1),
    ]  # fmt: skip
    scores = read_judgements(rows, QUESTIONS, ["s", "w"])
    assert scores.prompts == ("one", "one", "two")
    assert scores.quality.tolist() == [[7, 3], [8, 8], [9, 3]]
    assert scores.to_battles().for_pair(PAIR).outcomes.tolist() == [0.75, 1.0]


def test_judgements_that_cannot_be_used(tmp_path: Path) -> None:
    report = ReadReport()
    rows = [judged(1, "s", -1), judged(3, "s", 5), judged(None, "s", 5), judged(1, "s", 5), judged(1, "w", 5)]
    scores = read_judgements(rows, QUESTIONS, ["s", "w"], on_bad_row="skip", report=report)
    assert scores.prompts == ("one",)
    assert [row.line for row in report.bad_rows] == [1, 2, 3]
    with pytest.raises(DataError, match="row 1: score must be 1 to 10, got -1"):
        read_judgements(rows, QUESTIONS, ["s", "w"])
    with pytest.raises(DataError, match="turn 1: no score of w"):
        read_judgements([judged(1, "s", 5)], QUESTIONS, ["s", "w"])
    with pytest.raises(DataError, match="no column score"):
        read_judgements([{"question_id": 1, "model": "s"}], QUESTIONS, ["s", "w"])
