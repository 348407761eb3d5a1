"""Cleaning, consistent votes, splits and mixtures: what is kept, what it weighs, and that no prompt is on two sides."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefroute.data import (
    Battles,
    cap_prompt_weight,
    clean,
    consistent_votes,
    drop_duplicates,
    mix,
    prompt_groups,
    prompt_key,
    split_by_prompt,
    split_prompts,
    without_prompts,
)
from prefroute.errors import ConfigurationError, DataError
from prefroute.types import Battle


def votes(*rows: tuple[Any, ...]) -> Battles:
    return Battles.from_rows([Battle(*row) for row in rows])


def test_spellings_of_a_prompt_are_one() -> None:
    assert prompt_key("  Why\n\tNOT? ") == prompt_key("why not?")
    assert prompt_groups(["a b", "c", "A  B", "ab"]).tolist() == [0, 1, 0, 2]


def test_short_prompts_and_repeated_rows_go() -> None:
    long = "a prompt of enough characters"
    battles = votes(
        ("x" * 15, "a", "b", 1.0),
        ("x" * 16, "a", "b", 1.0),
        (long, "a", "b", 1.0),
        (long.upper(), "a", "b", 1.0),
        (long, "b", "a", 1.0),
        (long, "a", "b", 0.5),
        (long, "a", "b", 1.0, 1.0, "another"),
    )
    assert [row for i, row in enumerate(battles) if i not in {0, 3}] == list(clean(battles))
    assert len(clean(battles, min_characters=0)) == 6
    assert len(clean(battles, keep_duplicates=True)) == 6
    assert list(drop_duplicates(clean(battles))) == list(clean(battles))
    assert len(clean(battles, min_characters=100)) == 0
    for number in (-1, 1.5, "16"):
        with pytest.raises(ConfigurationError, match="min_characters"):
            clean(battles, min_characters=number)  # type: ignore[arg-type]


def test_votes_count_where_both_orders_agree() -> None:
    battles = votes(
        ("agree", "a", "b", 1.0, 1.0), ("agree", "b", "a", 0.0, 3.0),
        ("turns", "a", "b", 1.0), ("turns", "b", "a", 1.0),
        ("half", "b", "a", 1.0), ("half", "a", "b", 0.5),
        ("once", "a", "b", 1.0), ("once", "a", "b", 1.0),
        ("tie", "b", "a", 0.5), ("tie", "a", "b", 0.5),
        ("graded", "b", "a", 0.9), ("graded", "a", "b", 0.3),
        ("sources", "a", "b", 1.0, 1.0, "s"), ("sources", "b", "a", 0.0, 1.0, "t"),
        ("four", "a", "b", 1.0), ("four", "b", "a", 0.0), ("four", "a", "b", 1.0), ("four", "b", "a", 1.0),
    )  # fmt: skip
    kept = [(row.prompt, row.model_a, row.outcome, row.weight) for row in consistent_votes(battles)]
    assert kept == [
        ("agree", "a", 1.0, 2.0),
        ("tie", "b", 0.5, 1.0),
        ("graded", "b", pytest.approx(0.8), 1.0),
    ]
    assert [row.prompt for row in consistent_votes(battles, ties=False)] == ["agree", "graded"]
    assert len(consistent_votes(Battles.from_rows([]))) == 0


@given(
    st.lists(st.tuples(st.sampled_from("pqr"), st.sampled_from(["ab", "ba", "ac", "ca"]), st.sampled_from([0, 0.5, 1])))
)
def test_consistent_votes_do_not_depend_on_the_order_of_the_rows(rows: list[tuple[str, str, float]]) -> None:
    battles = votes(*[(prompt, pair[0], pair[1], float(outcome)) for prompt, pair, outcome in rows])

    def verdicts(table: Battles) -> set[Any]:
        return {
            (
                row.prompt,
                *sorted((row.model_a, row.model_b)),
                row.outcome if row.model_a < row.model_b else 1 - row.outcome,
            )
            for row in consistent_votes(table)
        }

    assert verdicts(battles) == verdicts(battles[np.arange(len(battles))[::-1]])


def test_known_prompts_are_left_out_however_spelt() -> None:
    battles = votes(("One ", "a", "b", 1.0), ("two", "a", "b", 1.0))
    assert without_prompts(battles, ["ONE"]).prompts == ("two",)
    with pytest.raises(DataError, match=r"pass \[prompt\]"):
        without_prompts(battles, "one")


@given(
    st.lists(st.sampled_from(["a", "A ", "b", "B", "c", "d", "e  f", "E f", "g"]), min_size=1, max_size=60),
    st.integers(0, 5),
)
def test_a_split_has_every_battle_once_and_no_prompt_twice(prompts: list[str], seed: int) -> None:
    battles = votes(*[(prompt, "x", "y", 1.0, float(i + 1)) for i, prompt in enumerate(prompts)])
    count = len({prompt_key(prompt) for prompt in prompts})
    if count < 4:
        with pytest.raises(DataError, match="too few"):
            split_by_prompt(battles, (0.25, 0.25, 0.25, 0.25), seed=seed)
        return
    parts = split_by_prompt(battles, (0.5, 0.25, 0.25), seed=seed)
    assert sorted(row.weight for part in parts for row in part) == [i + 1 for i in range(len(prompts))]
    keys = [{prompt_key(prompt) for prompt in part.prompts} for part in parts]
    assert sum(len(part) for part in keys) == len(set.union(*keys)) == count
    assert abs(len(keys[0]) - count / 2) <= 1
    again = split_by_prompt(battles, (0.5, 0.25, 0.25), seed=seed)
    assert [list(part) for part in parts] == [list(part) for part in again]


def test_seeds_split_differently_and_shares_are_kept() -> None:
    prompts = [f"prompt {i}" for i in range(1000)]
    first, second = (split_prompts(prompts, (0.8, 0.2), seed=seed) for seed in (0, 1))
    assert np.bincount(first).tolist() == np.bincount(second).tolist() == [800, 200]
    assert (first != second).any()


@pytest.mark.parametrize(
    "fractions", [(), (0.5,), (0.5, 0.6), (1.0, 0.0), (1.5, -0.5), "half", (float("nan"), 1.0), 0.5]
)
def test_fractions_that_cannot_be_used(fractions: Any) -> None:
    with pytest.raises(ConfigurationError, match="fractions"):
        split_prompts(["a", "b"], fractions)
    with pytest.raises(ConfigurationError, match="seed"):
        split_prompts(["a", "b"], seed=-1)


def many_and_few() -> dict[str, Battles]:
    many = votes(*[(f"m{i % 4}", f"model{i}", "z", 1.0) for i in range(400)])
    few = votes(*[(f"f{i}", "a", "b", 0.5) for i in range(16)])
    return {"many": many, "few": few}


def share(mixed: Battles, name: str) -> float:
    weights = mixed.weights[mixed.source_index == mixed.sources.index(name)]
    return float(weights.sum() / mixed.weights.sum())


def test_a_source_of_many_models_does_not_drown_the_others() -> None:
    tables = many_and_few()
    mixed = mix(tables)
    assert mixed.sources == ("few", "many")
    assert mixed.weights.sum() == pytest.approx(416)
    assert share(mixed, "few") == pytest.approx(4 / 6)  # sqrt(16) to sqrt(4)
    given_shares = mix(tables, weights={"many": 1, "few": 3})
    assert share(given_shares, "few") == pytest.approx(0.75)
    assert [row.outcome for row in mixed] == [1.0] * 400 + [0.5] * 16
    assert tables["few"].weights.tolist() == [1.0] * 16


def test_a_prompt_counts_no_more_than_its_limit() -> None:
    tables = many_and_few()
    capped = cap_prompt_weight(tables["many"], 1.0)
    assert np.bincount(capped.prompt_index, capped.weights) == pytest.approx([1.0] * 4)
    assert list(cap_prompt_weight(tables["few"], 1.0)) == list(tables["few"])
    assert mix(tables, max_prompt_weight=1.0).weights.sum() == pytest.approx(4 + 16)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"weights": {"many": 1.0}}, ConfigurationError),
        ({"weights": {"many": 1.0, "few": 0.0}}, ConfigurationError),
        ({"weights": {"many": 1.0, "few": "x"}}, ConfigurationError),
        ({"max_prompt_weight": 0}, ConfigurationError),
        ({"max_prompt_weight": float("nan")}, ConfigurationError),
    ],
)
def test_mixtures_that_cannot_be(options: Any, error: type[Exception]) -> None:
    with pytest.raises(error):
        mix(many_and_few(), **options)
    for tables in ({}, {"empty": Battles.from_rows([])}):
        with pytest.raises(DataError, match="got none of"):
            mix(tables)
