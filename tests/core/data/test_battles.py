"""The battle table itself: rows in, rows out, selections, joins, and what is refused."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefroute.data import Battles, describe
from prefroute.errors import DataError
from prefroute.types import Battle, ModelPair

rows_of_battles = st.lists(
    st.builds(
        Battle,
        prompt=st.sampled_from(["p", "q", "r", "\ufffd ok"]),
        model_a=st.sampled_from(["a", "b"]),
        model_b=st.sampled_from(["c", "d"]),
        outcome=st.floats(0, 1),
        weight=st.floats(0.01, 100),
        source=st.sampled_from(["", "s"]),
    ),
    max_size=40,
)


@given(rows_of_battles)
def test_rows_come_back_as_they_went_in(rows: list[Battle]) -> None:
    table = Battles.from_rows(rows)
    assert list(table) == rows
    assert list(table.prompts) == list(dict.fromkeys(row.prompt for row in rows))
    assert list(table.models) == sorted({name for row in rows for name in (row.model_a, row.model_b)})


@given(rows_of_battles, st.data())
def test_selections_agree_with_lists(rows: list[Battle], data: st.DataObject) -> None:
    table = Battles.from_rows(rows)
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows))), dtype=bool)
    assert list(table[mask]) == [row for row, kept in zip(rows, mask, strict=True) if kept]
    assert list(table[np.flatnonzero(mask)]) == list(table[mask])
    assert list(table[1:5]) == rows[1:5]
    assert set(table[mask].prompts) == {row.prompt for row in table[mask]}


@given(st.lists(rows_of_battles, max_size=4))
def test_joined_tables_have_the_rows_of_all(parts: list[list[Battle]]) -> None:
    joined = Battles.concatenate([Battles.from_rows(part) for part in parts])
    assert list(joined) == [row for part in parts for row in part]


@given(rows_of_battles)
def test_labels_of_a_pair_are_weighted_means(rows: list[Battle]) -> None:
    table = Battles.from_rows(rows)
    wanted = [row for row in rows if {row.model_a, row.model_b} == {"a", "c"}]
    if not wanted:
        with pytest.raises(DataError, match="no battle between"):
            table.for_pair(ModelPair("c", "a"))
        return
    labels = table.for_pair(ModelPair("c", "a"))
    assert set(labels.prompts) == {row.prompt for row in wanted}
    for prompt, outcome, weight in zip(*labels, strict=True):
        own = [row for row in wanted if row.prompt == prompt]
        assert weight == pytest.approx(sum(row.weight for row in own))
        assert outcome == pytest.approx(sum(row.weight * (1 - row.outcome) for row in own) / weight)


def test_prompts_that_become_equal_become_one() -> None:
    table = Battles.from_rows([Battle("A", "x", "y", 1.0), Battle("b", "x", "y", 0.5), Battle("a", "x", "y", 0.0)])
    mapped = table.map_prompts(str.lower)
    assert mapped.prompts == ("a", "b")
    assert mapped.prompt_index.tolist() == [0, 1, 0]
    with pytest.raises(DataError, match="must give texts"):
        table.map_prompts(lambda _: None)  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize(
    "row",
    [None, "battle", Battle("p", "a", "b", "x"), Battle(["p"], "a", "b", 1.0), Battle("p", "a", "b", None)],  # type: ignore[arg-type, list-item]
)
def test_what_is_no_battle_is_named_by_its_row(row: Any) -> None:
    with pytest.raises(DataError, match="row 1 is no battle"):
        Battles.from_rows([Battle("p", "a", "b", 1.0), row])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (Battle("p", "a", "a", 1.0), "another model"),
        (Battle("p", "a", "b", 1.5), "outcome"),
        (Battle("p", "a", "b", float("nan")), "outcome"),
        (Battle("p", "a", "b", 1.0, 0.0), "weight"),
        (Battle("p", "a", "b", 1.0, float("inf")), "weight"),
        (Battle(3, "a", "b", 1.0), "prompts must be str"),  # type: ignore[arg-type]
        (Battle("p", 3, "b", 1.0), "named by str"),  # type: ignore[arg-type]
    ],
)
def test_impossible_battles_are_refused(row: Battle, message: str) -> None:
    with pytest.raises(DataError, match=message):
        Battles.from_rows([row])


def test_columns_are_frozen_and_checked() -> None:
    table = Battles.from_rows([Battle("p", "a", "b", 1.0)])
    with pytest.raises(ValueError, match="read-only"):
        table.outcomes[0] = 0.5
    with pytest.raises(DataError, match="position among"):
        replace(table, prompt_index=np.array([7], dtype=np.int32))
    with pytest.raises(DataError, match="equally long"):
        table.with_columns(outcomes=np.array([1.0, 0.0]))


def test_a_table_shows_its_sizes_and_never_its_prompts() -> None:
    table = Battles.from_rows([Battle("secret", "a", "b", 1.0), Battle("q", "a", "c", 0.5, source="s")])
    assert repr(table) == "Battles(2 battles, 2 prompts, 3 models)"
    summary = describe(table)
    assert "secret" not in str(summary)
    assert (summary.battles, summary.prompts, summary.ties, summary.first_wins) == (2, 2, 0.5, 1.0)
    assert summary.models == {"a": 2, "b": 1, "c": 1}
    assert summary.source_weights == {"": 1.0, "s": 1.0}
    assert "no name 1 (50%)" in str(summary)
    empty = describe(Battles.from_rows([]))
    assert (empty.battles, empty.ties, empty.first_wins, empty.median_prompt_length) == (0, 0.0, 0.0, 0.0)
    assert "0 battles" in str(empty)
