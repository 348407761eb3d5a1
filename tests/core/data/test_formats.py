"""Which format a table is of, what its values mean, and which text is the prompt."""

import json
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefroute.data import Battles, ReadReport, human_turns, read_battles, read_prompts, read_responses
from prefroute.errors import ConfigurationError, DataError
from prefroute.types import Battle, ModelPair

PAIR = {"model_a": "x", "model_b": "y"}


def outcomes(rows: list[dict[str, Any]], **options: Any) -> list[float]:
    read: list[float] = read_battles(rows, **options).outcomes.tolist()
    return read


def arena(a: Any, b: Any, tie: Any, prompt: Any = '["one", "two"]') -> dict[str, Any]:
    return {"id": 1, "prompt": prompt, **PAIR, "winner_model_a": a, "winner_model_b": b, "winner_tie": tie}


def test_arena_rows() -> None:
    rows = [arena(1, 0, 0), arena("0", "1", "0"), arena(False, False, True), arena(0.0, 0.0, 1.0)]
    assert outcomes(rows) == [1.0, 0.0, 0.5, 0.5]
    assert read_battles(rows).prompts == ("one",)
    assert read_battles(rows, turn="last").prompts == ("two",)
    assert read_battles(rows, turn="all").prompts == ("one\n\ntwo",)
    assert read_battles([arena(1, 0, 0, "plain text")]).prompts == ("plain text",)
    assert read_battles([arena(1, 0, 0, '["\\ud83d hi"]')]).prompts == ("\ufffd hi",)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (arena(1, 1, 0), "exactly one of the three must be 1"),
        (arena(0, 0, 0), "exactly one of the three must be 1"),
        (arena(None, None, None), "exactly one of the three must be 1"),
        (arena(2, 0, 0), "exactly one"),
        (arena("yess", 0, 0), "finite number"),
        (arena(1, 0, 0, "[broken"), "no JSON list"),
        (arena(1, 0, 0, "[]"), "no turn"),
        (arena(1, 0, 0, "[null]"), "missing"),
        (arena(1, 0, 0, "[3]"), "not text"),
        (arena(1, 0, 0, None), "missing"),
    ],
)
def test_arena_rows_that_are_bad(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        read_battles([row])


def test_fastchat_rows() -> None:
    winners = ["model_a", "model_b", "tie", "tie (bothbad)", " Model_A "]
    rows = [{**PAIR, "winner": winner, "turns": ["one", "two"], "question_id": 3} for winner in winners]
    assert outcomes(rows) == [1.0, 0.0, 0.5, 0.5, 1.0]
    assert read_battles(rows, turn="all").prompts == ("one\n\ntwo",)
    assert read_battles([{**PAIR, "winner": "tie", "turns": '["one", "two"]'}]).prompts == ("one",)


def vote(value: Any, model_a: str = "gpt-big", model_b: str = "gpt-small", column: str = "winner") -> float:
    row = {"prompt": "q", "model_a": model_a, "model_b": model_b, column: value}
    (outcome,) = outcomes([row], columns={"outcome": column})
    return outcome


@pytest.mark.parametrize("column", ["winner", "outcome", "vote"])
@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        (["a", "A", " A ", "model_a", "Model A", "MODEL-A", "gpt-big", " gpt-big "], 1.0),
        (["b", "B", "model_b", "model b", "gpt-small"], 0.0),
        (["tie", "Tie", "draw", "equal", "both", "neither", "tie (bothbad)", "both_bad"], 0.5),
    ],
)
def test_votes_in_words_and_names_of_the_winner(column: str, values: list[str], wanted: float) -> None:
    assert [vote(value, column=column) for value in values] == [wanted] * len(values)


def test_the_names_of_a_row_come_before_the_words() -> None:
    assert [vote(value, "B", "A") for value in ("A", "B", "model_a", "tie")] == [0.0, 1.0, 1.0, 0.5]
    assert [vote("tie", "x", "tie"), vote("tie", "tie", "x"), vote("tie", "x", "y")] == [0.0, 1.0, 0.5]
    assert [vote("model_a", "x", "model_a"), vote("x", "y", "x"), vote("x", "x", "y")] == [0.0, 0.0, 1.0]
    with pytest.raises(DataError, match="outcome is 'a'"):
        vote("a", "B", "A")
    with pytest.raises(DataError, match="outcome is 'GPT-BIG'"):
        vote("GPT-BIG")


def test_ties_in_words_beside_numbers() -> None:
    values = ["1", "0", "tie", "0.5", "Draw", 1, 0.25, True, "true"]
    assert [vote(value, column="vote") for value in values] == [1.0, 0.0, 0.5, 0.5, 0.5, 1.0, 0.25, 1.0, 1.0]
    rows = [{**PAIR, "prompt": "q", "vote": value} for value in ("1", 2, "both")]
    assert outcomes(rows, columns={"outcome": "vote"}, values={1: 1.0, 2: 0.0}) == [1.0, 0.0, 0.5]


def test_a_number_in_a_column_of_winners_may_count_the_models_and_is_not_guessed() -> None:
    for value in (0, 1, "1", 2):
        with pytest.raises(DataError, match="wanted model_a or a"):
            vote(value)
    assert vote("2", "2", "1") == 1.0


def test_a_number_that_is_also_the_name_of_a_model() -> None:
    assert [vote("1", "1", "0", "vote"), vote("0", "1", "0", "vote"), vote("2", "1", "2", "vote")] == [1.0, 0.0, 0.0]
    with pytest.raises(DataError, match="also the name of the other model"):
        vote("1", "0", "1", "vote")


def test_a_probability_for_the_name_of_a_model_is_refused() -> None:
    for side in ({"model_a": "big", "model_b": "y"}, {"model_a": "x", "model_b": "big"}):
        with pytest.raises(ConfigurationError, match=r"'big', which is the name of a model.*leave --outcome out"):
            outcomes([{"prompt": "q", "winner": "big", **side}], values={"big": 1.0, "tie": 0.5})


def faulty(bad: list[Any], good: int) -> list[dict[str, Any]]:
    return [{**PAIR, "prompt": "q", "winner": value} for value in [*bad, *["tie"] * good]]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (faulty(["X"] * 44 + ["Y"] * 43, 111), r"87 of 198 rows say 'X' \(44\) or 'Y' \(43\), which is not understood"),
        (faulty(["X"] * 3, 296), r"3 of 299 rows say 'X' \(3\)"),
        (faulty([*"XXXUVWYZ"], 100), r"8 of 108 rows say 'X' \(3\).* or 2 other values"),
        (faulty([None] * 11, 10), r"11 of 21 rows cannot be used: outcome is missing \(first at row 1\)"),
        (faulty([*"UVWYZ"], 4), r"5 of 9 rows cannot be used: unknown outcome \(first at row 1: outcome is 'U'"),
    ],
)
def test_what_recurs_is_not_skipped(rows: list[dict[str, Any]], message: str) -> None:
    report = ReadReport()
    with pytest.raises(DataError, match=message):
        read_battles(rows, on_bad_row="skip", report=report)
    assert report.rows_read == len(rows)


def test_a_scale_that_is_no_probability_is_not_skipped() -> None:
    rows = [{**PAIR, "prompt": "q", "outcome": value} for value in [1, 2, 3, 4, 5] * 5]
    with pytest.raises(DataError, match=r"20 of 25 rows say 2 \(5\).*values="):
        read_battles(rows, on_bad_row="skip")


@pytest.mark.parametrize("rows", [faulty(["X"] * 3, 297), faulty(["X"] * 2, 8), faulty([*"UVWYZ"], 5)])
def test_odd_rows_are_skipped(rows: list[dict[str, Any]]) -> None:
    report = ReadReport()
    assert len(read_battles(rows, on_bad_row="skip", report=report)) == report.rows_kept < len(rows)


def test_an_error_about_a_table_can_be_pickled() -> None:
    with pytest.raises(DataError) as caught:
        read_battles(faulty(["X"] * 4, 4), on_bad_row="skip")
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (str(copy), copy.details) == (str(caught.value), ("'X'",))


def test_the_prompt_of_messages_and_dialogues() -> None:
    messages = [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "answer"},
        {"role": "user", "content": [{"type": "text", "text": "two"}, {"type": "image"}]},
    ]
    rows = [{**PAIR, "winner": "tie", "conversation_a": messages}]
    assert [read_battles(rows, turn=turn).prompts[0] for turn in ("first", "last", "all")] == [
        "one",
        "two",
        "one\n\ntwo",
    ]
    dialogue = "### Human: one? ### Assistant: answer ### Human: two? ### Assistant:"
    rows = [{**PAIR, "winner": "tie", "prompt": dialogue}]
    assert [read_battles(rows, turn=turn).prompts[0] for turn in ("first", "last")] == ["one?", "two?"]
    assert human_turns(dialogue) == ["one?", "two?"]
    assert human_turns(" no mark ") == ["no mark"]


def test_a_prompt_in_a_plain_column_is_never_taken_apart() -> None:
    rows = [
        {**PAIR, "outcome": 1, "prompt": "[1, 2] is a list"},
        {**PAIR, "outcome": 1, "text": "x", "prompt": "['a']"},
    ]
    assert read_battles(rows).prompts == ("[1, 2] is a list", "['a']")
    named = [{**PAIR, "outcome": 1, "question": '["a"]'}]
    assert read_battles(named, columns={"prompt": "question"}).prompts == ('["a"]',)


def test_votes_with_columns_and_values_given() -> None:
    rows = [
        {"instruction": "q", "generator_1": "x", "generator_2": "y", "preference": value, "judge": "j", "n": 2}
        for value in (1.0, 2, "1.25", 0, 1.5)
    ]
    columns = {
        "prompt": "instruction", "model_a": "generator_1", "model_b": "generator_2",
        "outcome": "preference", "source": "judge", "weight": "n",
    }  # fmt: skip
    battles = read_battles(rows, columns=columns, values={0: 0.5, 1: 1.0, 2: 0.0})
    assert battles.outcomes.tolist() == [1.0, 0.0, 0.75, 0.5, 0.5]
    assert battles.sources == ("j",)
    assert battles.weights.tolist() == [2.0] * 5


@pytest.mark.parametrize(
    ("values", "value", "wanted"),
    [
        ({1: 1.0, 2: 0.0}, 1.25, 0.75),
        ({"1": 1.0, "2": 0.0}, 1.25, 0.75),
        ({-1: 0.0, 0: 0.5, 1: 1.0}, "0.5", 0.75),
        ({1: 0.0, 10: 1.0}, 5.5, 0.5),
        ({"left": 1, "right": 0}, " LEFT ", 1.0),
        ({True: 1, False: 0}, "1", 1.0),
        ({"true": 1, "false": 0}, True, 1.0),
        ({"True": 1, "false": 0}, np.False_, 0.0),
        ({1: 1.0, 2: 0.0, 3: 0.5}, 3, 0.5),
    ],
)
def test_what_values_mean(values: Any, value: Any, wanted: float) -> None:
    rows = [{**PAIR, "prompt": "q", "vote": value}]
    assert outcomes(rows, columns={"outcome": "vote"}, values=values) == pytest.approx([wanted])


@pytest.mark.parametrize(
    ("values", "value"),
    [
        ({1: 1.0, 2: 0.0}, 0.5),
        ({1: 1.0, 2: 0.0, 3: 0.5}, 2.5),
        ({0: 0.5, 1: 1.0, 2: 0.0}, 0.5),
        ({"a": 1.0, "b": 0.0}, "c"),
        ({"a": 1.0, "b": 0.0}, 0.5),
        ({"a": 1.0, "b": 0.0}, ["a"]),
    ],
)
def test_values_that_were_not_given_are_refused(values: Any, value: Any) -> None:
    with pytest.raises(DataError, match="wanted one of"):
        read_battles([{**PAIR, "prompt": "q", "vote": value}], columns={"outcome": "vote"}, values=values)


def test_the_own_table_round_trips() -> None:
    rows = [Battle("q", "x", "y", 0.25, 2.0, "s"), Battle("r", "z", "y", 1.0)]
    fields = ("prompt", "model_a", "model_b", "outcome", "weight", "source")
    read = read_battles([{name: getattr(row, name) for name in fields} for row in rows])
    assert list(read) == rows


def test_columns_that_fit_nothing_are_listed_with_the_formats_and_the_remedy() -> None:
    with pytest.raises(DataError) as caught:
        read_battles([{"question": "q", "left": "x"}])
    for part in ("'question', 'left'", "arena", "fastchat", "responses", "columns=", "models="):
        assert part in str(caught.value)


def test_a_column_of_prompts_that_is_missing_and_models_that_are_misspelt() -> None:
    with pytest.raises(DataError, match=r"no column of prompts .*it has: 'question', 'model_a'.*columns=\{'prompt'"):
        read_battles([{"question": "q", **PAIR, "winner": "tie"}])
    table = [{"prompt": "q", "gpt-big": 1, "gpt-small": 0}]
    with pytest.raises(DataError) as caught:
        read_battles(table, models=["GPT-big", "gpt-small"])
    columns = "columns: 'prompt', 'gpt-big', 'gpt-small'"
    assert str(caught.value) == f"list: no column 'GPT-big'; {columns}; did you mean gpt-big?"
    with pytest.raises(DataError, match=r"no column 'other'; columns: 'prompt', 'gpt-big', 'gpt-small'$"):
        read_battles(table, models=["other", "gpt-small"])
    with pytest.raises(DataError, match="fit no known format"):
        read_battles(table, models=["other", "else"])
    with pytest.raises(DataError, match=r"'c0', .* and \d+ more"):
        read_battles([{f"c{n}": 1 for n in range(300)}])


def test_columns_that_fit_two_formats_are_refused_until_one_is_named() -> None:
    rows = [{**PAIR, "prompt": "q", "winner": "tie", "outcome": 1.0}]
    with pytest.raises(DataError, match="fit battles and fastchat; say which with format="):
        read_battles(rows)
    assert outcomes(rows, format="battles") == [1.0]
    assert outcomes(rows, format="fastchat") == [0.5]
    assert outcomes(rows, columns={"outcome": "outcome"}) == [1.0]
    with pytest.raises(DataError, match="do not fit format arena"):
        read_battles(rows, format="arena")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "csv"}, "format must be one of"),
        ({"columns": {"question": "q"}}, "'question'"),
        ({"models": "gpt-4"}, "must list"),
        ({"models": ["a", "a"]}, "different"),
        ({"turn": "second"}, "turn must be"),
        ({"on_bad_row": "ignore"}, "on_bad_row must be"),
        ({"values": {}}, "probability"),
        ({"values": {"tie": 2.0}}, "probability"),
    ],
)
def test_arguments_that_cannot_be_used(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        read_battles([{**PAIR, "prompt": "q", "winner": "tie"}], **options)


def test_values_are_refused_where_they_would_do_nothing() -> None:
    with pytest.raises(ConfigurationError, match="arena format"):
        read_battles([arena(1, 0, 0)], values={1: 1.0})
    scores = [{"prompt": "q", "a": 1.0, "b": 0.0, "n": 2}]
    with pytest.raises(ConfigurationError, match=r"response table.*values= .* does not apply"):
        read_battles(scores, models=["a", "b"], values={1: 1.0})
    for role in ("weight", "source", "model_a"):
        with pytest.raises(ConfigurationError, match=f"a column of {role} .* does not apply"):
            read_battles(scores, models=["a", "b"], columns={role: "n"})
        with pytest.raises(ConfigurationError, match=f"a column of {role} .* does not apply"):
            read_responses(scores, ["a", "b"], columns={role: "n"})


def test_a_named_column_that_is_not_there() -> None:
    with pytest.raises(DataError, match=r"no column 'vote'.*it has: 'model_a'"):
        read_battles([PAIR], columns={"outcome": "vote"})


def test_prompts_alone() -> None:
    report = ReadReport()
    rows = [{"text": "a"}, {"text": None}, {"text": ["b", "c"]}]
    assert read_prompts(rows, "text", on_bad_row="skip", report=report, turn="last") == ["a", "c"]
    assert report.rows_bad == 1
    with pytest.raises(DataError, match="no column 'prompt'"):
        read_prompts(rows)


def test_names_of_models_are_trimmed() -> None:
    assert read_battles([{"prompt": "q", "model_a": " x ", "model_b": "y", "outcome": 1}]).models == ("x", "y")


@given(
    st.lists(
        st.tuples(
            st.text(min_size=1).filter(lambda text: not text.isspace()),
            st.sampled_from(["x", "y"]),
            st.floats(0, 1),
            st.floats(1e-3, 1e3),
        ),
        min_size=1,
        max_size=30,
    )
)
def test_any_table_survives_json(rows: list[tuple[str, str, float, float]]) -> None:
    written = [
        {"prompt": prompt, "model_a": a, "model_b": "z", "outcome": outcome, "weight": weight}
        for prompt, a, outcome, weight in rows
        if not prompt.startswith("### Human:")
    ]
    if not written:
        return
    read = read_battles([json.loads(json.dumps(row)) for row in written])
    assert [row.prompt for row in read] == [row["prompt"] for row in written]
    np.testing.assert_array_equal(read.outcomes, [row["outcome"] for row in written])
    np.testing.assert_array_equal(read.weights, [row["weight"] for row in written])
    assert Battles.concatenate([read, read]).for_pair(ModelPair(written[0]["model_a"], "z")).weights.sum() > 0  # type: ignore[arg-type]
