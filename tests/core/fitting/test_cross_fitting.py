"""Scores of prompts that were not learnt from, and a choice that no label had a say in for its own prompt."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from prefroute import Router
from prefroute.data import Battles
from prefroute.data.cleaning import prompt_key
from prefroute.errors import DataError
from prefroute.evaluation import apgr
from prefroute.evaluation.benchmarks import Benchmark
from prefroute.fitting.candidates import Candidate
from prefroute.fitting.cross_fitting import (
    Labels,
    area_of,
    choose,
    held_out_logits,
    learning_curve,
    levelled,
    tied_like,
)
from prefroute.fitting.work import Work
from prefroute.types import ModelPair

Toy = Callable[..., Benchmark]

PAIR = ModelPair("big", "small")


class Memory(Router):
    """Knows the label of every prompt that it learnt, in any spelling, and of no other."""

    def __init__(self, battles: Battles) -> None:
        learnt = battles.for_pair(PAIR)
        self.known = dict(zip(map(prompt_key, learnt.prompts), learnt.outcomes, strict=True))

    def win_probability(self, prompts: Sequence[str]) -> NDArray[np.float64]:
        return np.array([self.known.get(prompt_key(text), 0.5) for text in prompts])


class Memories:
    """Makes them, and keeps what each of them learnt from."""

    def __init__(self, *, fails_at: int | None = None) -> None:
        self.made: list[Memory] = []
        self.places: list[Path | None] = []
        self.fails_at = fails_at
        self.candidate = Candidate(kind="memory", embedding=None, learn=self.learn)

    def learn(self, battles: Battles, place: Path | None) -> Router:
        if len(self.made) == self.fails_at:
            msg = "too little to learn"
            raise DataError(msg)
        self.made.append(Memory(battles))
        self.places.append(place)
        return self.made[-1]


def labels_of(
    gains: Sequence[float],
    prompts: Sequence[str] | None = None,
    *,
    folds: int = 5,
    seed: int = 0,
    pair: ModelPair = PAIR,
) -> Labels:
    strong = np.array(gains, dtype=float)
    texts = tuple(prompts or (f"prompt {i}" for i in range(len(strong))))
    table = Benchmark(name="b", pair=pair, prompts=texts, strong=strong, weak=np.zeros(len(strong)))
    return Labels.of(table, folds, seed)


@pytest.mark.parametrize(
    ("gains", "wanted"),
    [
        ([1, 0, -1, 1], [1.0, 0.5, 0.0, 1.0]),
        ([0, 0, 0], [0.5, 0.5, 0.5]),
        ([4] * 40 + [1, 0, -2], [1.0] * 40 + [0.625, 0.5, 0.25]),
        ([0.4] * 40 + [0.1, 0, -0.2], [1.0] * 40 + [0.625, 0.5, 0.25]),
        # One that is off the scale does not make ties of the others.
        ([4] * 40 + [1, 0, -2, -1e6], [1.0] * 40 + [0.625, 0.5, 0.25, 0.0]),
    ],
)
def test_outcomes_rise_with_the_gain_from_a_tie_at_a_half(gains: list[float], wanted: list[float]) -> None:
    labels = labels_of(gains)
    assert labels.outcomes == pytest.approx(wanted)
    # Whichever name comes first in the alphabet.
    for pair in (PAIR, ModelPair("small", "big")):
        learnt = labels_of(gains, pair=pair).battles.for_pair(pair)
        assert learnt.prompts == list(labels.prompts)
        assert learnt.outcomes == pytest.approx(wanted)


SPELLINGS = (str, str.upper, "  {}".format, "{}\n".format)


@settings(max_examples=40, deadline=None)
@given(different=st.integers(2, 90), folds=st.integers(2, 6), seed=st.integers(0, 99))
def test_no_spelling_of_a_prompt_is_learnt_from_where_it_is_scored(different: int, folds: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    numbers = generator.permutation(np.repeat(np.arange(different), generator.integers(1, 4, different)))
    prompts = [SPELLINGS[generator.integers(4)](f"what is {number} to me") for number in numbers]
    labels = labels_of(generator.choice([-1.0, 1.0], len(prompts)), prompts, folds=folds, seed=seed)
    keys = np.array([prompt_key(text) for text in prompts])
    sizes = [len(set(keys[labels.folds == fold])) for fold in range(labels.fold_count)]
    assert sum(sizes) == len(set(keys))
    assert max(sizes) - min(sizes) <= 1
    # A fold has at least 15 prompts, where there are as many for two.
    assert labels.fold_count == max(2, min(folds, different // 15))
    memories = Memories()
    logits = held_out_logits(memories.candidate, labels)
    # What knows all labels by heart knows nothing of these.
    assert (logits == 0).all()
    for fold, memory in enumerate(memories.made):
        assert set(memory.known) == set(keys[labels.folds != fold])


def test_scores_stand_in_the_place_of_their_prompts_and_stay_finite() -> None:
    labels = labels_of([1, -1, 0, 1] * 5)
    sure = dict(zip(labels.prompts, np.linspace(0.0, 1.0, 20), strict=True))

    class Sure(Router):
        def win_probability(self, prompts: Sequence[str]) -> NDArray[np.float64]:
            return np.array([sure[text] for text in prompts])

    found = held_out_logits(Candidate(kind="sure", embedding=None, learn=lambda *_: Sure()), labels)
    middle = np.linspace(0.0, 1.0, 20)[1:-1]
    assert found[1:-1] == pytest.approx(np.log(middle / (1 - middle)))
    assert np.isfinite(found).all()
    assert found[0] < -20 < 20 < found[-1]


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.floats(-20, 20), st.integers(0, 3)), min_size=1, max_size=30),
)
def test_folds_are_brought_to_one_level_and_keep_their_order(rows: list[tuple[float, int]]) -> None:
    logits = np.array([logit for logit, _ in rows])
    folds = np.unique([fold for _, fold in rows], return_inverse=True)[1]
    found = levelled(logits, folds)
    for fold in range(folds.max() + 1):
        inside = folds == fold
        assert found[inside].mean() == pytest.approx(logits.mean(), abs=1e-9)
        assert np.diff(found[inside]) == pytest.approx(np.diff(logits[inside]), abs=1e-9)


def test_the_least_loss_is_chosen_and_the_first_of_equals() -> None:
    labels = labels_of([1, -1] * 20)
    right = np.array([1.0, -1.0] * 20)
    choice = choose([-right, 0 * right, right, right], labels)
    assert choice.best == 2
    assert choice.losses == pytest.approx(
        [np.log1p(np.exp(1.0)), np.log(2.0), np.log1p(np.exp(-1.0)), np.log1p(np.exp(-1.0))]
    )
    assert choice.errors[2] == choice.errors[3] == 0.0
    # All differences are alike, so they are sure.
    assert choice.errors == pytest.approx(0.0, abs=1e-12)
    assert choice.logits == pytest.approx(levelled(right, labels.folds), abs=1e-7)
    assert (choice.measured == choice.logits).all()


def test_the_error_of_a_difference_is_that_of_paired_losses() -> None:
    generator = np.random.default_rng(0)
    labels = labels_of(generator.choice([-1.0, 1.0], 60))
    logits = [generator.normal(size=60) for _ in range(3)]
    choice = choose(logits, labels)
    losses = [np.log1p(np.exp(-np.where(labels.gains > 0, row, -row))) for row in logits]
    assert choice.losses == pytest.approx([row.mean() for row in losses])
    wanted = [np.std(row - losses[choice.best]) / np.sqrt(60) for row in losses]
    assert choice.errors == pytest.approx(wanted)
    # Rows that repeat a prompt are no more evidence.
    thrice = labels_of(np.tile(labels.gains, 3), labels.prompts * 3)
    assert choose([np.tile(row, 3) for row in logits], thrice).errors == pytest.approx(wanted)


def test_labels_of_a_fold_have_no_say_in_who_scores_it() -> None:
    up = np.linspace(-1.0, 1.0, 40)
    gains = np.where(np.arange(40) % 4 == 0, -1.0, 1.0)
    logits = [up, -up, np.full(40, 1.0)]
    labels = labels_of(gains)
    for fold in range(labels.fold_count):
        out = labels.folds == fold
        orders, bests = set(), set()
        for theirs in (up > 0, up < 0, np.ones(40, dtype=bool)):
            # Five times as much is at stake in this fold as in the others.
            outcomes = np.where(out, 5.0 * (2.0 * theirs - 1.0), labels.outcomes)
            changed = replace(labels, outcomes=outcomes)
            choice = choose(logits, changed)
            bests.add(choice.best)
            orders.add(tuple(np.sign(np.diff(choice.measured[out]))))
        assert len(bests) > 1
        assert len(orders) == 1, orders


def test_the_best_of_many_that_know_nothing_is_not_measured_as_if_it_knew() -> None:
    chosen, measured = [], []
    for seed in range(40):
        generator = np.random.default_rng(seed)
        labels = labels_of(generator.choice([-1.0, 1.0, 1.0, 1.0], 150), folds=10, seed=seed)
        choice = choose([generator.normal(1.0, 0.3, 150) for _ in range(20)], labels)
        chosen.append(area_of(choice.logits, labels))
        measured.append(apgr(choice.measured, labels.gains))
    error = np.std(measured) / np.sqrt(40)
    assert np.mean(chosen) > 0.5 + 5 * error
    assert np.mean(measured) < 0.5 + 2 * error


def test_recovery_is_measured_on_one_level_and_not_at_all_without_a_gap() -> None:
    gains = np.tile([1.0, -0.5], 30)
    labels = labels_of(gains)
    useful = np.where(gains > 0, 0.1, -0.1)
    # A level for each fold hides what is in it.
    shifted = useful + 10.0 * labels.folds
    assert apgr(useful, gains) > apgr(shifted, gains) + 0.1
    assert area_of(shifted, labels) > apgr(shifted, gains) + 0.1
    assert np.isnan(area_of(useful, labels_of(-gains)))


def test_scores_tie_where_others_do() -> None:
    scores = np.array([0.1, 0.3, 0.5, 0.9, 0.7])
    assert tied_like(scores, np.array([2.0, 1.0, 2.0, 0.0, 2.0 + 1e-15])) == pytest.approx(
        [1.3 / 3, 0.3, 1.3 / 3, 0.9, 1.3 / 3]
    )


def test_a_learning_curve_learns_from_fewer_and_fewer_of_the_same(toy: Toy) -> None:
    labels = Labels.of(toy(100), 10, 0)
    memories = Memories()
    logits = np.linspace(-1.0, 1.0, 100)
    curve = learning_curve(memories.candidate, labels, logits)
    assert [point.prompts for point in curve] == [10, 21, 42, 83]
    sizes = [[len(memory.known) for memory in memories.made[at : at + 6]] for at in (0, 6, 12)]
    for point, found in zip(curve, sizes, strict=False):
        assert found == pytest.approx([point.prompts] * 6, abs=2)
    for few, more in zip(memories.made, memories.made[6:], strict=False):
        assert set(few.known) < set(more.known)
    assert [point.apgr for point in curve] == [0.5, 0.5, 0.5, area_of(logits, labels)]
    again = Memories()
    learning_curve(again.candidate, labels, logits, seed=1)
    assert [set(memory.known) for memory in again.made] != [set(memory.known) for memory in memories.made]


def test_prompts_that_recur_count_once_in_a_learning_curve() -> None:
    labels = labels_of([1.0, -0.5] * 80, [f"{'A' if i % 2 else 'a'} prompt {i // 2}" for i in range(160)], folds=4)
    memories = Memories()
    curve = learning_curve(memories.candidate, labels, np.zeros(160))
    assert [point.prompts for point in curve] == [8, 15, 30, 60]
    assert [len(memory.known) for memory in memories.made[8:]] == [30] * 4


def test_folds_that_are_done_are_not_fitted_again(toy: Toy, tmp_path: Path) -> None:
    labels = Labels.of(toy(60), 4, 0)
    work = Work.of(tmp_path / "work", labels, ("settings", 0))
    whole = held_out_logits(Memories().candidate, labels)
    first = Memories(fails_at=2)
    with pytest.raises(DataError, match="too little to learn"):
        held_out_logits(first.candidate, labels, work=work)
    assert first.places == [work.place("fold-0"), work.place("fold-1")]
    second = Memories()
    same = Work.of(tmp_path / "work", Labels.of(toy(60), 4, 0), ("settings", 0))
    assert (held_out_logits(second.candidate, labels, work=same) == whole).all()
    assert second.places == [work.place("fold-2"), work.place("fold-3")]
    changes: list[tuple[Any, Any]] = [
        (labels, ("settings", 1)),
        (Labels.of(toy(60, seed=1), 4, 0), ("settings", 0)),
        (Labels.of(toy(60), 4, 1), ("settings", 0)),
        (Labels.of(toy(60, shuffled=True), 4, 0), ("settings", 0)),
    ]
    for other, given_ in changes:
        assert Work.of(tmp_path / "work", other, given_).find(0, int((other.folds == 0).sum())) is None
    # A file that was cut off is as good as none.
    next((tmp_path / "work").glob("*-0.npy")).write_bytes(b"\x93NUMPY")
    third = Memories()
    assert (held_out_logits(third.candidate, labels, work=same) == whole).all()
    assert third.places == [work.place("fold-0")]
    other = tmp_path / "work" / "notes.txt"
    other.write_text("of somebody else")
    Work.clear(tmp_path / "work")
    assert list((tmp_path / "work").iterdir()) == [other]
    other.unlink()
    Work.clear(tmp_path / "work")
    assert not (tmp_path / "work").exists()
    Work.clear(tmp_path / "work")
