"""The real files under shared data: each is read whole by the arguments that the documentation gives."""

import os
from pathlib import Path

import numpy as np
import pytest

from prefroute.data import (
    ReadReport,
    clean,
    consistent_votes,
    describe,
    read_battles,
    read_judgements,
    read_prompts,
    read_responses,
    split_by_prompt,
)
from prefroute.data.cleaning import responses_without_prompts
from prefroute.types import ModelPair

ROOT = Path(__file__).parents[3]
DATA = Path(os.environ.get("PREFROUTE_DATA", ROOT / "../shared/data"))
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"the shared data are not at {DATA}; set PREFROUTE_DATA")
PAIR = ModelPair(strong="gpt-4-1106-preview", weak="mistralai/Mixtral-8x7B-Instruct-v0.1")


@pytest.mark.parametrize(
    ("name", "rows", "left", "weak", "strong"),
    [("mmlu", 14_042, 14_037, 0.6809, 0.8059), ("gsm8k", 1_319, 1_307, 0.6373, 0.8577)],
)
def test_golden_labels(name: str, rows: int, left: int, weak: float, strong: float) -> None:
    folder = DATA / "routellm" / name
    table = read_responses(sorted(folder.glob("*.csv")), [PAIR.strong, PAIR.weak])
    assert len(table) == rows
    table = responses_without_prompts(table, read_prompts(folder / "contaminated_prompts.jsonl", "eval_prompt"))
    assert len(table) == left
    assert table.quality.mean(axis=0) == pytest.approx([strong, weak], abs=1e-4)
    battles = table.to_battles(source=name)
    assert battles.outcomes.mean() == pytest.approx(0.5 + 0.5 * (strong - weak), abs=1e-4)


def test_mt_bench() -> None:
    folder = DATA / "routellm/mt_bench"
    table = read_judgements(folder / "judgements.jsonl", folder / "question.jsonl", [PAIR.strong, PAIR.weak])
    assert len(table) == 160
    table = responses_without_prompts(table, read_prompts(folder / "contaminated_prompts.jsonl", "eval_prompt"))
    assert len(table) == 144
    assert table.quality.mean(axis=0) == pytest.approx([9.212, 8.281], abs=1e-3)


def test_arena_hard() -> None:
    battles = read_battles(DATA / "battles/arena_hard.jsonl.gz", turn="all")
    assert (len(battles), len(battles.models)) == (776, 29)
    assert describe(battles).ties == pytest.approx(238 / 776)


def test_open_assistant_votes_lean_to_whoever_stands_first_and_half_of_them_are_consistent() -> None:
    report = ReadReport()
    votes = read_battles(DATA / "battles/qlora_oa.jsonl.gz", columns={"prompt": "message_id"}, report=report)
    assert (len(votes), len(votes.prompts), len(votes.models)) == (38_544, 953, 7)
    assert int((votes.outcomes == 1).sum()) == 18_875
    assert report.rows_bad == 0
    assert len(consistent_votes(votes, ties=False)) == 7_477 + 4_700
    assert len(consistent_votes(votes)) == 7_477 + 4_700 + 1_292
    summary = describe(consistent_votes(votes))
    assert abs(describe(votes).first_wins - 0.5) > 0.07
    assert summary.ties == pytest.approx(1_292 / 13_469)
    dialogues = read_battles(DATA / "battles/qlora_oa.jsonl.gz", turn="last")
    assert len(dialogues.prompts) == 952
    assert not any("### " in prompt for prompt in dialogues.prompts)


def test_alpaca_eval() -> None:
    votes = read_battles(
        DATA / "battles/alpaca_eval.jsonl.gz",
        columns={"outcome": "preference", "source": "judge"},
        values={0: 0.5, 1: 1.0, 2: 0.0},
    )
    assert (len(votes), len(votes.prompts), len(votes.sources)) == (102_966, 805, 5)
    assert int((votes.outcomes == 1).sum()) == 42_819
    assert int((votes.outcomes == 0).sum()) == 37_467
    training, held_out = split_by_prompt(clean(votes), seed=3)
    assert not set(training.prompts) & set(held_out.prompts)
    assert np.isclose(len(held_out.prompts) / len(clean(votes).prompts), 0.2, atol=0.01)
