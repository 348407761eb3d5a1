"""Which format a table is of, what its values mean, and which text is the prompt."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefroute.data import Battles, ReadReport, human_turns, read_battles, read_prompts
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


def test_columns_that_fit_two_formats_are_refused_until_one_is_named() -> None:
    rows = [{**PAIR, "prompt": "q", "winner": "tie", "outcome": 1.0}]
    with pytest.raises(DataError, match="fit battles and fastchat; say which with format="):
        read_battles(rows)
    assert outcomes(rows, format="battles") == [1.0]
    assert outcomes(rows, format="fastchat") == [0.5]
    assert outcomes(rows, columns={"outcome": "outcome"}) == [1.0]
    with pytest.raises(DataError, match="do not fit format='arena'"):
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
