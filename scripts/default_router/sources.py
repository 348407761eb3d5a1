"""Readers of the training and evaluation sets: every source becomes one table of prompts with a gain and an outcome."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from prefroute.data import (
    ResponseTable,
    consistent_votes,
    pool_by_strength,
    prompt_key,
    read_battles,
    read_judgements,
    read_prompts,
    read_responses,
    responses_without_prompts,
)
from prefroute.types import ModelPair

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

    from prefroute.data import Battles

PAIR = ModelPair(strong="gpt-4-1106-preview", weak="mistralai/Mixtral-8x7B-Instruct-v0.1")

EXPECTED_COUNTS = {"mmlu": 14_037, "gsm8k": 1_307, "mt_bench": 72}
"""Prompts left after the contaminated ones are removed, as published with RouteLLM."""

RIDGE = 1.0
"""Keeps a model with few or one-sided votes at a finite ability; one vote's worth of shrinkage."""

MIN_EXPECTED_WIN = 0.6
"""A vote counts as strong against weak when the fitted abilities give the better model at least this chance."""


@dataclass(frozen=True)
class Source:
    """One set of prompts.

    Attributes:
        name: Short name.
        prompts: n texts, as a user would send them.
        gains: Quality of the strong model's answer minus the weak model's, shape (n,); any scale.
        outcomes: P(strong wins) as observed, in [0, 1], ties 0.5, shape (n,).
    """

    name: str
    prompts: list[str]
    gains: NDArray[np.float64]
    outcomes: NDArray[np.float64]


def without_choices(prompt: str) -> str:
    """The question of a multiple-choice prompt without its lettered options and the closing "Answer:"."""
    return re.split(r"\nA\. ", prompt, maxsplit=1)[0].strip()


def read_training_sources(data: Path) -> list[Source]:
    """Every source that the shipped router may learn from, in a fixed order."""
    return [
        read_mmlu(data / "routellm/mmlu"),
        read_gsm8k(data / "routellm/gsm8k"),
        read_mt_bench(data / "routellm/mt_bench"),
        read_arena_hard(data / "battles/arena_hard.jsonl.gz"),
        read_open_assistant(data / "battles/qlora_oa.jsonl.gz"),
    ]


def read_mmlu(folder: Path) -> Source:
    """MMLU test, right or wrong."""
    return _golden("mmlu", sorted(folder.glob("mmlu_*.csv")), folder)


def read_gsm8k(folder: Path) -> Source:
    """GSM8K test, right or wrong."""
    return _golden("gsm8k", [folder / "gsm8k_responses.csv"], folder)


def read_mt_bench(folder: Path) -> Source:
    """MT-Bench, judged 1 to 10 on both turns; the prompt is the first turn."""
    scores = read_judgements(folder / "judgements.jsonl", folder / "question.jsonl", [PAIR.strong, PAIR.weak])
    scores = _uncontaminated(scores, folder)
    battles = scores.to_battles()
    gains = np.bincount(battles.prompt_index, scores.gains(PAIR)) / np.bincount(battles.prompt_index)
    labels = battles.for_pair(PAIR)
    return _checked(Source("mt_bench", labels.prompts, gains, labels.outcomes))


def read_arena_hard(path: Path) -> Source:
    """Chatbot Arena votes by people on hard English prompts; several turns are joined by blank lines."""
    return _from_votes("arena_hard", read_battles(path, turn="all"))


def read_open_assistant(path: Path) -> Source:
    """OpenAssistant prompts judged by GPT-4, only the pairs whose two presentation orders agree.

    The prompt is the last human turn: it is what the judged answers reply to, and what an
    application sends to a router.
    """
    # Two messages end with one turn: their votes are compared apart, so they are told by message.
    messages = read_prompts(path, "message_id")
    texts = dict(zip(messages, read_prompts(path, turn="last"), strict=True))
    votes = read_battles(path, columns={"prompt": "message_id"})
    return _from_votes("open_assistant", consistent_votes(votes).map_prompts(texts.__getitem__))


def read_alpaca_eval(path: Path, excluded: Iterable[str]) -> Source:
    """AlpacaEval for the very pair of the golden labels. For evaluation only: its licence is non-commercial.

    Args:
        path: The battle file.
        excluded: Prompts of the training sources; a prompt that recurs there is left out.
    """
    banned = {prompt_key(prompt) for prompt in excluded}
    votes = read_battles(path, columns={"outcome": "preference"}, values={0: 0.5, 1: 1.0, 2: 0.0})
    labels = votes.for_pair(ModelPair("gpt4_1106_preview", "Mixtral-8x7B-Instruct-v0.1"))
    found = dict(zip(labels.prompts, labels.outcomes, strict=True))
    prompts = sorted(prompt for prompt in found if prompt_key(prompt) not in banned)
    outcomes = np.array([found[prompt] for prompt in prompts])
    return Source("alpaca_eval", prompts, 2.0 * outcomes - 1.0, outcomes)


def _golden(name: str, paths: list[Path], folder: Path) -> Source:
    table = _uncontaminated(read_responses(paths, [PAIR.strong, PAIR.weak]), folder)
    gains = table.gains(PAIR)
    return _checked(Source(name, list(table.prompts), gains, 0.5 + 0.5 * gains))


def _from_votes(name: str, battles: Battles) -> Source:
    """Orient each vote from the abler model to the less able one and average by prompt."""
    pooled = pool_by_strength(battles, PAIR, min_win=MIN_EXPECTED_WIN, ridge=RIDGE)
    scores: dict[str, list[float]] = defaultdict(list)
    texts: dict[str, str] = {}
    for vote in pooled:
        if not vote.prompt.strip():
            continue
        key = prompt_key(vote.prompt)
        texts.setdefault(key, vote.prompt)
        scores[key].append(vote.outcome if vote.model_a == PAIR.strong else 1.0 - vote.outcome)
    keys = sorted(scores)
    outcomes = np.array([np.mean(scores[key]) for key in keys])
    return Source(name, [texts[key] for key in keys], 2.0 * outcomes - 1.0, outcomes)


def _checked(source: Source) -> Source:
    if len(source.prompts) != EXPECTED_COUNTS[source.name]:
        msg = f"{source.name}: {len(source.prompts)} prompts left, expected {EXPECTED_COUNTS[source.name]}"
        raise ValueError(msg)
    return source


def _uncontaminated(table: ResponseTable, folder: Path) -> ResponseTable:
    return responses_without_prompts(table, read_prompts(folder / "contaminated_prompts.jsonl", "eval_prompt"))
