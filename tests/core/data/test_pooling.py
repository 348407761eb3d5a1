"""Battles of many models as battles of one pair: who is called strong, what is left out, and what stays as it was."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefroute import ModelPair
from prefroute.data import Battles, pool_by_strength
from prefroute.errors import ConfigurationError, ConvergenceError, DataError
from prefroute.types import Battle

PAIR = ModelPair(strong="zeus", weak="ant")


def votes(*rows: tuple[Any, ...]) -> Battles:
    return Battles.from_rows([Battle(*row) for row in rows])


def ladder() -> list[tuple[Any, ...]]:
    """best beats good beats poor, most of the time."""
    pairs = (("best", "good"), ("good", "poor"), ("best", "poor"))
    return [(f"prompt {i}", *pair, 1.0 if i % 5 else 0.0) for i in range(50) for pair in pairs]


def test_the_better_rated_side_is_strong_wherever_it_stands() -> None:
    given_battles = votes(
        *ladder(),
        ("forward", "best", "poor", 0.75, 2.0, "arena"),
        ("backward", "poor", "best", 0.75, 3.0, "arena"),
    )
    pooled = pool_by_strength(given_battles, PAIR)
    assert pooled.models == ("ant", "zeus")
    assert list(pooled)[-2:] == [
        Battle("forward", "zeus", "ant", 0.75, 2.0, "arena"),
        Battle("backward", "ant", "zeus", 0.75, 3.0, "arena"),
    ]
    labels = pooled.for_pair(PAIR)
    outcome = dict(zip(labels.prompts, labels.outcomes.tolist(), strict=True))
    assert outcome["forward"] == 0.75
    assert outcome["backward"] == 0.25
    assert len(pooled) == len(given_battles)


def test_battles_of_models_that_are_near_each_other_are_left_out() -> None:
    even = [("even", "best", "twin", float(i % 2)) for i in range(20)]
    twin = [(f"prompt {i}", "twin", "poor", 1.0 if i % 5 else 0.0) for i in range(50)]
    battles = votes(*ladder(), *twin, *even)
    pooled = pool_by_strength(battles, PAIR)
    assert "even" not in pooled.prompts
    assert len(pooled) == len(battles) - len(even)
    assert len(pool_by_strength(battles, PAIR, min_win=0.5)) == len(battles)
    # best beats poor by more than good does: with a higher bar fewer are left, and then none.
    assert 0 < len(pool_by_strength(battles, PAIR, min_win=0.8)) < len(pooled)
    with pytest.raises(DataError, match=r"in none of 220 battles .* smaller min_win"):
        pool_by_strength(battles, PAIR, min_win=0.999)


def test_models_rated_equal_have_no_stronger_one() -> None:
    with pytest.raises(DataError, match="in none of 2 battles"):
        pool_by_strength(votes(("p", "a", "b", 1.0), ("q", "b", "a", 1.0)), PAIR, min_win=0.5)


def test_weights_count_in_the_ratings() -> None:
    battles = votes(("p", "a", "b", 1.0, 1.0), ("q", "a", "b", 0.0, 9.0))
    assert [row.model_a for row in pool_by_strength(battles, PAIR)] == ["ant", "ant"]


def test_names_of_the_pair_may_be_among_the_models() -> None:
    battles = votes(*[("p", "ant", "zeus", 1.0)] * 9)
    # The data say otherwise than the names do, and the data decide.
    assert [row.model_a for row in pool_by_strength(battles, PAIR)] == ["zeus"] * 9


def test_a_larger_ridge_draws_models_together() -> None:
    battles = votes(*[("p", "a", "b", 1.0)] * 3)
    assert len(pool_by_strength(battles, PAIR)) == 3
    with pytest.raises(DataError):
        pool_by_strength(battles, PAIR, ridge=100.0)
    with pytest.raises(ConvergenceError):
        pool_by_strength(battles, PAIR, ridge=0.0)


@pytest.mark.parametrize("min_win", [0.4, 1.0, -1, float("nan"), "0.6", None])
def test_a_bar_that_is_no_such_chance_is_refused(min_win: Any) -> None:
    with pytest.raises(ConfigurationError, match="min_win must be a chance"):
        pool_by_strength(votes(*ladder()), PAIR, min_win=min_win)


def test_other_arguments_are_refused() -> None:
    with pytest.raises(DataError, match="no battles to pool"):
        pool_by_strength(Battles.from_rows([]), PAIR)
    with pytest.raises(ConfigurationError, match="ridge"):
        pool_by_strength(votes(*ladder()), PAIR, ridge=-1.0)
    with pytest.raises(ConfigurationError):
        pool_by_strength(votes(*ladder()), ("zeus", "zeus"))  # type: ignore[arg-type]


@given(st.lists(st.tuples(*[st.integers(0, 4)] * 3, st.sampled_from([0.0, 0.5, 1.0])), min_size=1, max_size=40))
def test_swapping_the_sides_of_every_battle_changes_no_label(rows: list[tuple[int, int, int, float]]) -> None:
    kept = [(f"p{p}", f"m{a}", f"m{b}", outcome) for p, a, b, outcome in rows if a != b]
    swapped = [(p, b, a, 1.0 - outcome) for p, a, b, outcome in kept]
    found = []
    for side in (kept, swapped):
        try:
            labels = pool_by_strength(votes(*side), PAIR).for_pair(PAIR)
        except DataError:
            found.append(None)
        else:
            found.append((labels.prompts, np.round(labels.outcomes, 9).tolist(), labels.weights.tolist()))
    assert found[0] == found[1]
