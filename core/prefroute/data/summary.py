"""A battle table in a few figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from prefroute.data.battles import Battles

SHOWN = 8
"""Models and sources that a summary lists by name."""


@dataclass(frozen=True, kw_only=True)
class BattleSummary:
    """Figures of a battle table.

    Attributes:
        battles: Number of battles.
        prompts: Distinct prompts.
        median_prompt_length: In characters, over the distinct prompts.
        models: Battles of each model, most first.
        sources: Battles of each source, most first.
        source_weights: Summed weight of each source.
        ties: Share of battles whose outcome is 0.5.
        first_wins: Of the decided ones, the share that model_a won: far from a half where a judge prefers
            whoever stands first, or where one model always does.
        total_weight: Summed weight.
    """

    battles: int
    prompts: int
    median_prompt_length: float
    models: dict[str, int]
    sources: dict[str, int]
    source_weights: dict[str, float]
    ties: float
    first_wins: float
    total_weight: float

    def __str__(self) -> str:
        """A few lines for people."""
        lines = [
            f"{self.battles:,} battles over {self.prompts:,} prompts between {len(self.models):,} models",
            f"{self.ties:.1%} ties; model_a won {self.first_wins:.1%} of the decided ones",
            "models: " + _listed(self.models),
        ]
        if len(self.sources) > 1:
            shares = {name: weight / self.total_weight for name, weight in self.source_weights.items()}
            parts = [f"{name or 'no name'} {count:,} ({shares[name]:.0%})" for name, count in self.sources.items()]
            lines.append("sources (share of the weight): " + ", ".join(parts[:SHOWN]))
        return "\n".join(lines)


def describe(battles: Battles) -> BattleSummary:
    """Sum up a battle table.

    Args:
        battles: Any, also an empty one, whose shares are then 0.

    Returns:
        Its figures.
    """
    decided = battles.outcomes != 0.5  # noqa: PLR2004 - a tie
    sides = np.concatenate([battles.model_a, battles.model_b])
    weights = np.bincount(battles.source_index, battles.weights, len(battles.sources))
    return BattleSummary(
        battles=len(battles),
        prompts=len(battles.prompts),
        median_prompt_length=float(np.median([len(prompt) for prompt in battles.prompts] or [0])),
        models=_counted(battles.models, np.bincount(sides, minlength=len(battles.models))),
        sources=_counted(battles.sources, np.bincount(battles.source_index, minlength=len(battles.sources))),
        source_weights=dict(zip(battles.sources, weights.tolist(), strict=True)),
        ties=float(1.0 - decided.mean()) if len(battles) else 0.0,
        first_wins=float((battles.outcomes[decided] > 0.5).mean()) if decided.any() else 0.0,  # noqa: PLR2004 - a win
        total_weight=float(battles.weights.sum()),
    )


def _counted(names: tuple[str, ...], counts: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> dict[str, int]:
    return {names[i]: int(counts[i]) for i in np.argsort(-counts, kind="stable")}


def _listed(counts: dict[str, int]) -> str:
    parts = [f"{name} {count:,}" for name, count in list(counts.items())[:SHOWN]]
    return ", ".join(parts) + (f" and {len(counts) - SHOWN:,} more" if len(counts) > SHOWN else "")
