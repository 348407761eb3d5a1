"""Data of `paper_tables.py`: the four targets, the battles, and what trains and what is scored in each half."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from prefroute import ModelPair
from prefroute.data import (
    Battles,
    ResponseTable,
    consistent_votes,
    decontaminate,
    drop_short_prompts,
    mix,
    pool_by_strength,
    prompt_key,
    read_battles,
    read_prompts,
    split_prompts,
)
from prefroute.evaluation.benchmarks import ROUTELLM_PAIR, Benchmark, read_folder

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

PAIR = ROUTELLM_PAIR

ALIASES = {"gpt4_1106_preview": PAIR.strong, "Mixtral-8x7B-Instruct-v0.1": PAIR.weak}
"""Names of the pair in AlpacaEval."""

UNSEEN_JUDGE = "weighted_alpaca_eval_gpt4_turbo"
UNSEEN = ModelPair(strong="claude-2", weak="vicuna-7b")
"""The pair not trained on, by `check_unseen`'s rule."""

OTHER_JUDGES = {"bedrock_claude"}
"""Judges in AlpacaEval that are no GPT-4."""

MMLU_LABELS = 1500
"""Golden labels of MMLU that train, at most, as many as in the paper."""

SEED = 0
HALVES = (0, 1)
CONDITIONS = ("battles", "battles + golden labels")


class Training(NamedTuple):
    """What one router learns from.

    Attributes:
        native: Battles of all models.
        pooled: The same made into battles of the pair, source by source.
    """

    native: Battles
    pooled: Battles


@dataclass(frozen=True)
class Study:
    """All data, divided.

    Attributes:
        targets: By name.
        halves: Half of each row of a target, by name of the target, shape (n,).
        battles: Arena and OpenAssistant, by name, without what is near a prompt of a target.
        alpaca: AlpacaEval's votes on the prompts of each half, without what is near a prompt of the other half.
    """

    targets: dict[str, Benchmark]
    halves: dict[str, NDArray[np.int64]]
    battles: dict[str, Battles]
    alpaca: tuple[Battles, ...]

    def training(self, condition: str, half: int) -> Training:
        """What is learnt from the data of one half."""
        votes = {**self.battles, "alpaca_eval": self.alpaca[half]}
        labels = self.labels(half) if condition == CONDITIONS[1] else {}
        pooled = {name: pool_by_strength(table, PAIR) for name, table in votes.items()}
        return Training(native=mix({**votes, **labels}), pooled=mix({**pooled, **labels}))

    def labels(self, half: int) -> dict[str, Battles]:
        """Golden labels of one half, as battles of the pair by name of the target."""
        found = {}
        for name, benchmark in self.targets.items():
            if benchmark.pair != PAIR:
                continue
            rows = np.flatnonzero(self.halves[name] == half)
            if name == "MMLU":
                rows = np.sort(np.random.default_rng(SEED + half).permutation(rows)[:MMLU_LABELS])
            own = benchmark.rows(np.isin(np.arange(len(benchmark)), rows))
            quality = np.column_stack([own.strong, own.weak])
            found[name] = ResponseTable(
                prompts=own.prompts, models=(PAIR.strong, PAIR.weak), quality=quality
            ).to_battles()
        return found

    def scored(self, half: int) -> dict[str, list[str]]:
        """Prompts of the other half, by target: those that a router of this half scores."""
        return {
            name: [prompt for prompt, own in zip(benchmark.prompts, self.halves[name], strict=True) if own != half]
            for name, benchmark in self.targets.items()
        }


def read_study(data: Path) -> Study:
    """Read everything and divide it.

    Args:
        data: The folder that holds `routellm` and `battles`.
    """
    votes = read_alpaca_votes(data / "battles/alpaca_eval.jsonl.gz")
    targets = {
        name: read_folder(data / "routellm" / folder)
        for name, folder in (("MT-Bench", "mt_bench"), ("MMLU", "mmlu"), ("GSM8K", "gsm8k"))
    }
    targets["unseen pair"] = unseen_benchmark(votes)
    everything = [prompt for benchmark in targets.values() for prompt in benchmark.prompts]
    parts = split_prompts(everything, (0.5, 0.5), seed=SEED)
    ends = np.cumsum([len(benchmark) for benchmark in targets.values()])[:-1]
    halves = dict(zip(targets, np.split(parts, ends), strict=True))
    battles = {
        name: unlike(drop_short_prompts(table), everything, name)
        for name, table in {
            "arena_hard": read_battles(data / "battles/arena_hard.jsonl.gz", turn="all"),
            "open_assistant": read_open_assistant(data / "battles/qlora_oa.jsonl.gz"),
        }.items()
    }
    study = Study(targets, halves, {name: without_unseen(table) for name, table in battles.items()}, ())
    half_of = dict(zip(map(prompt_key, everything), parts.tolist(), strict=True))
    known = drop_short_prompts(without_unseen(renamed(votes)))
    half_of_prompt = np.array([half_of[prompt_key(prompt)] for prompt in known.prompts])
    alpaca = []
    for half in HALVES:
        others = [prompt for prompts in study.scored(half).values() for prompt in prompts]
        own = known[half_of_prompt[known.prompt_index] == half]
        alpaca.append(unlike(own, others, f"alpaca_eval, half {half + 1}"))
    return replace(study, alpaca=tuple(alpaca))


def read_open_assistant(path: Path) -> Battles:
    """Votes whose two orders agree; the prompt is the last human turn, which the judged answers reply to."""
    texts = dict(zip(read_prompts(path, "message_id"), read_prompts(path, turn="last"), strict=True))
    votes = consistent_votes(read_battles(path, columns={"prompt": "message_id"}))
    return votes.map_prompts(texts.__getitem__)


def read_alpaca_votes(path: Path) -> Battles:
    """Votes of the judges that are GPT-4; a vote's source is its judge."""
    columns = {"outcome": "preference", "source": "judge"}
    votes = read_battles(path, columns=columns, values={0: 0.5, 1: 1.0, 2: 0.0})
    judged = np.array([judge not in OTHER_JUDGES for judge in votes.sources])
    return votes[judged[votes.source_index]]


def unseen_benchmark(votes: Battles) -> Benchmark:
    """AlpacaEval for the pair not trained on: what the judge says of each model's answer against the reference's."""
    quality = preferences(votes)
    check_unseen(quality)
    strong, weak = quality[UNSEEN.strong], quality[UNSEEN.weak]
    prompts = sorted(strong)
    return Benchmark(
        name="AlpacaEval, unseen pair",
        pair=UNSEEN,
        prompts=tuple(prompts),
        strong=np.array([strong[prompt] for prompt in prompts]),
        weak=np.array([weak[prompt] for prompt in prompts]),
    )


def preferences(votes: Battles) -> dict[str, dict[str, float]]:
    """Preference for each model over the reference under the one judge, by model and prompt."""
    found: dict[str, dict[str, float]] = {}
    for vote in votes[votes.source_index == votes.sources.index(UNSEEN_JUDGE)]:
        if vote.model_a in ALIASES:
            found.setdefault(vote.model_b, {})[vote.prompt] = 1.0 - vote.outcome
        elif vote.model_b in ALIASES:
            found.setdefault(vote.model_a, {})[vote.prompt] = vote.outcome
    return found


def check_unseen(quality: dict[str, dict[str, float]]) -> None:
    """Hold the rule by which the unseen pair was fixed before anything was scored.

    Of the models that the judge compared with the reference on every prompt: the best Claude by its mean preference,
    and the worst Vicuna. The paper has a Claude too, and Vicuna is the first chat model made of Llama, which the
    paper's weak model is. The worst of all models would lose so surely that only the strong one's preference counted.

    Raises:
        ValueError: The pair is another.
    """
    most = max(map(len, quality.values()))
    means = {name: float(np.mean(list(own.values()))) for name, own in quality.items() if len(own) == most}
    best = max((name for name in means if name.startswith("claude")), key=means.__getitem__)
    worst = min((name for name in means if name.startswith("vicuna")), key=means.__getitem__)
    if (best, worst) != (UNSEEN.strong, UNSEEN.weak):
        msg = f"the rule gives {best} and {worst}, not {UNSEEN.strong} and {UNSEEN.weak}"
        raise ValueError(msg)


def without_unseen(battles: Battles) -> Battles:
    """The battles in which neither model of the unseen pair stands."""
    banned = np.array([name in {UNSEEN.strong, UNSEEN.weak} for name in battles.models])
    return battles[~(banned[battles.model_a] | banned[battles.model_b])]


def renamed(battles: Battles) -> Battles:
    """The battles with the pair's own names."""
    names = [ALIASES.get(name, name) for name in battles.models]
    models = sorted(names)
    place = np.array([models.index(name) for name in names])
    return replace(battles, models=tuple(models), model_a=place[battles.model_a], model_b=place[battles.model_b])


def unlike(battles: Battles, prompts: list[str], name: str) -> Battles:
    """The battles over prompts that are not near any of these; says on stderr how many went."""
    left, removed = decontaminate(battles, prompts)
    gone = sum(item.battles for item in removed)
    print(
        f"{name}: {len(left.prompts)} prompts, {len(left):,} battles; left out as near a target: "
        f"{len(removed)} prompts, {gone:,} battles",
        file=sys.stderr,
        flush=True,
    )
    return left
