"""Preference data: battle tables, their readers, and what is done to them before training."""

from prefroute.data.battles import Battles, PairLabels
from prefroute.data.cleaning import (
    clean,
    consistent_votes,
    drop_duplicates,
    drop_short_prompts,
    prompt_groups,
    prompt_key,
    responses_without_prompts,
    without_prompts,
)
from prefroute.data.decontamination import Decontaminated, RemovedPrompt, decontaminate, nearest_prompts
from prefroute.data.fingerprints import prompt_hashes, seen_prompts, text_hashes
from prefroute.data.judgements import read_judgements
from prefroute.data.mixing import cap_prompt_weight, mix, split_by_prompt, split_prompts
from prefroute.data.pooling import pool_by_strength
from prefroute.data.reading import read_battles, read_prompts, read_responses
from prefroute.data.report import BadRow, FileRead, ReadReport
from prefroute.data.responses import ResponseTable, reference_battles
from prefroute.data.summary import BattleSummary, describe
from prefroute.data.values import human_turns

__all__ = [
    "BadRow",
    "BattleSummary",
    "Battles",
    "Decontaminated",
    "FileRead",
    "PairLabels",
    "ReadReport",
    "RemovedPrompt",
    "ResponseTable",
    "cap_prompt_weight",
    "clean",
    "consistent_votes",
    "decontaminate",
    "describe",
    "drop_duplicates",
    "drop_short_prompts",
    "human_turns",
    "mix",
    "nearest_prompts",
    "pool_by_strength",
    "prompt_groups",
    "prompt_hashes",
    "prompt_key",
    "read_battles",
    "read_judgements",
    "read_prompts",
    "read_responses",
    "reference_battles",
    "responses_without_prompts",
    "seen_prompts",
    "split_by_prompt",
    "split_prompts",
    "text_hashes",
    "without_prompts",
]
