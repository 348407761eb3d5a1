"""Readers of the training and evaluation sets: every source becomes one table of prompts with a gain and an outcome."""

from __future__ import annotations

import csv
import gzip
import json
import re
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from default_router.abilities import Vote, abilities

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

STRONG = "gpt-4-1106-preview"
WEAK = "mistralai/Mixtral-8x7B-Instruct-v0.1"

EXPECTED_COUNTS = {"mmlu": 14_037, "gsm8k": 1_307, "mt_bench": 72}
"""Prompts left after the contaminated ones are removed, as published with RouteLLM."""

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


def normalised(prompt: str) -> str:
    """Key under which two spellings of one prompt count as the same."""
    return re.sub(r"\s+", " ", prompt).strip().casefold()


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
    rows = [row for path in sorted(folder.glob("mmlu_*.csv")) for row in _csv(path)]
    return _golden("mmlu", rows, folder)


def read_gsm8k(folder: Path) -> Source:
    """GSM8K test, right or wrong."""
    return _golden("gsm8k", list(_csv(folder / "gsm8k_responses.csv")), folder)


def read_mt_bench(folder: Path) -> Source:
    """MT-Bench, judged 1 to 10 on both turns; the prompt is the first turn."""
    scores: dict[tuple[int, str], dict[int, float]] = defaultdict(dict)
    for row in _json_lines(folder / "judgements.jsonl"):
        scores[row["question_id"], row["model"]][row["turn"]] = float(row["score"])
    banned = _contaminated(folder)
    prompts: list[str] = []
    gains: list[float] = []
    outcomes: list[float] = []
    for row in _json_lines(folder / "question.jsonl"):
        prompt = row["turns"][0]
        if prompt in banned:
            continue
        strong, weak = scores[row["question_id"], STRONG], scores[row["question_id"], WEAK]
        turns = [strong[turn] - weak[turn] for turn in sorted(strong)]
        prompts.append(prompt)
        gains.append(float(np.mean(turns)))
        outcomes.append(0.5 + 0.5 * float(np.mean(np.sign(turns))))
    return _checked(Source("mt_bench", prompts, np.array(gains), np.array(outcomes)))


def read_arena_hard(path: Path) -> Source:
    """Chatbot Arena votes by people on hard English prompts; several turns are joined by blank lines."""
    votes = []
    for row in _json_lines(path):
        first = {"model_a": 1.0, "model_b": 0.0}.get(row["winner"], 0.5)
        votes.append(Vote("\n\n".join(row["turns"]), row["model_a"], row["model_b"], first))
    return _from_votes("arena_hard", votes)


def read_open_assistant(path: Path) -> Source:
    """OpenAssistant prompts judged by GPT-4, only the pairs whose two presentation orders agree.

    The prompt is the last human turn: it is what the judged answers reply to, and what an
    application sends to a router.
    """
    seen: dict[tuple[str, str, str], dict[bool, float]] = defaultdict(dict)
    texts = {}
    for row in _json_lines(path):
        first, second = sorted((row["model_a"], row["model_b"]))
        in_order = row["model_a"] == first
        score = {"model_a": 1.0, "model_b": 0.0, "tie": 0.5}[row["winner"]]
        seen[row["message_id"], first, second][in_order] = score if in_order else 1.0 - score
        texts[row["message_id"]] = last_human_turn(row["prompt"])
    votes = [
        Vote(texts[message], first, second, orders[True])
        for (message, first, second), orders in seen.items()
        if len(orders) == 2 and orders[True] == orders[False]  # noqa: PLR2004 - both orders
    ]
    return _from_votes("open_assistant", votes)


def read_alpaca_eval(path: Path, excluded: Iterable[str]) -> Source:
    """AlpacaEval for the very pair of the golden labels. For evaluation only: its licence is non-commercial.

    Args:
        path: The battle file.
        excluded: Prompts of the training sources; a prompt that recurs there is left out.
    """
    banned = {normalised(prompt) for prompt in excluded}
    found: dict[str, list[float]] = defaultdict(list)
    for row in _json_lines(path):
        models = (row["model_a"], row["model_b"])
        if sorted(models) == ["Mixtral-8x7B-Instruct-v0.1", "gpt4_1106_preview"]:
            second = float(row["preference"]) - 1.0
            found[row["prompt"]].append(1.0 - second if models[0] == "gpt4_1106_preview" else second)
    prompts = sorted(prompt for prompt in found if normalised(prompt) not in banned)
    outcomes = np.array([np.mean(found[prompt]) for prompt in prompts])
    return Source("alpaca_eval", prompts, 2.0 * outcomes - 1.0, outcomes)


def last_human_turn(dialogue: str) -> str:
    """Text of the last `### Human:` turn of a Guanaco-style dialogue."""
    turn = re.split(r"### Human:", dialogue)[-1]
    return re.sub(r"\s*### Assistant:\s*$", "", turn).strip()


def _golden(name: str, rows: list[dict[str, str]], folder: Path) -> Source:
    banned = _contaminated(folder)
    kept = [row for row in rows if row["prompt"] not in banned]
    gains = np.array([float(row[STRONG] == "True") - float(row[WEAK] == "True") for row in kept])
    return _checked(Source(name, [row["prompt"] for row in kept], gains, 0.5 + 0.5 * gains))


def _from_votes(name: str, votes: list[Vote]) -> Source:
    """Orient each vote from the abler model to the less able one and average by prompt."""
    ability = abilities(votes)
    scores: dict[str, list[float]] = defaultdict(list)
    texts: dict[str, str] = {}
    for vote in votes:
        gap = ability[vote.first] - ability[vote.second]
        if 1.0 / (1.0 + np.exp(-abs(gap))) < MIN_EXPECTED_WIN or not vote.prompt.strip():
            continue
        key = normalised(vote.prompt)
        texts.setdefault(key, vote.prompt)
        scores[key].append(vote.score if gap > 0 else 1.0 - vote.score)
    keys = sorted(scores)
    outcomes = np.array([np.mean(scores[key]) for key in keys])
    return Source(name, [texts[key] for key in keys], 2.0 * outcomes - 1.0, outcomes)


def _checked(source: Source) -> Source:
    if len(source.prompts) != EXPECTED_COUNTS[source.name]:
        msg = f"{source.name}: {len(source.prompts)} prompts left, expected {EXPECTED_COUNTS[source.name]}"
        raise ValueError(msg)
    return source


def _contaminated(folder: Path) -> set[str]:
    return {row["eval_prompt"] for row in _json_lines(folder / "contaminated_prompts.jsonl")}


def _csv(path: Path) -> Iterator[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        yield from csv.DictReader(file)


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as file:
        for line in file:
            if line.strip():
                yield json.loads(line)
