"""Dividing and joining battle tables: splits by prompt, and mixtures in which no source drowns the others."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from prefroute.data.battles import Battles
from prefroute.data.cleaning import prompt_groups
from prefroute.data.report import shown
from prefroute.errors import ConfigurationError, DataError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

SHARE_POWER = 0.5
"""By default a source counts by the square root of its prompts."""


def split_by_prompt(battles: Battles, fractions: Sequence[float] = (0.8, 0.2), *, seed: int = 0) -> tuple[Battles, ...]:
    """Divide battles so that no prompt, in whatever case and spacing, is on two sides.

    Args:
        battles: Any.
        fractions: Share of the prompts in each part, above 0; they add up to 1.
        seed: Draws the prompts of each part.

    Returns:
        One table a fraction; together they have every battle once.

    Raises:
        ConfigurationError: The fractions or the seed cannot be used.
        DataError: There are too few prompts for every part to have one.
    """
    parts = split_prompts(battles.prompts, fractions, seed=seed)
    return tuple(battles[parts[battles.prompt_index] == part] for part in range(len(fractions)))


def split_prompts(
    prompts: Sequence[str], fractions: Sequence[float] = (0.8, 0.2), *, seed: int = 0
) -> NDArray[np.int64]:
    """Say of each prompt to which part of a split it belongs; arguments and errors as for `split_by_prompt`.

    Args:
        prompts: p texts, which may recur.
        fractions: Share of the prompts in each part.
        seed: Draws the prompts of each part.

    Returns:
        A part for each, from 0; the same for spellings of one prompt; shape (p,).
    """
    shares = _checked_fractions(fractions)
    if not isinstance(seed, int) or seed < 0:
        msg = f"seed must be a whole number from 0 on, got {shown(seed)}"
        raise ConfigurationError(msg)
    groups = prompt_groups(prompts)
    count = int(groups.max(initial=-1)) + 1
    ends = np.rint(np.cumsum(shares) * count).astype(np.int64)
    ends[-1] = count
    if np.diff(ends, prepend=0).min() < 1:
        msg = f"{count} distinct prompts are too few for parts of {', '.join(map(str, fractions))}; give more data"
        raise DataError(msg)
    part_of_group = np.empty(count, dtype=np.int64)
    part_of_group[np.random.default_rng(seed).permutation(count)] = np.searchsorted(ends, np.arange(count), "right")
    return part_of_group[groups]


def mix(
    tables: Mapping[str, Battles],
    *,
    weights: Mapping[str, float] | None = None,
    max_prompt_weight: float | None = None,
) -> Battles:
    """Join sources and weigh them against each other.

    A set with a hundred models has a thousand battles for a prompt where another has one; left as they are,
    the first would decide everything.

    Args:
        tables: Battles by name of their source, which they take.
        weights: How much each source counts in all, relative to the others; any scale. None for the square root
            of its number of prompts.
        max_prompt_weight: Most that the battles of one prompt within a source may count together, before the sources
            are weighed: 1.0 lets every prompt of a source count the same if its battles weigh 1 or more.

    Returns:
        All battles, in order, with weights that add up to what they did (after `max_prompt_weight`).

    Raises:
        ConfigurationError: A weight or name cannot be used.
        DataError: A source has no battles, or there is none.
    """
    if not tables or not all(len(table) for table in tables.values()):
        empty = ", ".join(repr(name) for name, table in tables.items() if not len(table))
        msg = f"a mixture needs battles of every source, got none of {empty or 'any'}"
        raise DataError(msg)
    if weights is not None and set(weights) != set(tables):
        msg = f"weights must name the sources {', '.join(tables)}; got {', '.join(weights) or 'none'}"
        raise ConfigurationError(msg)
    parts = {
        name: table if max_prompt_weight is None else cap_prompt_weight(table, max_prompt_weight)
        for name, table in tables.items()
    }
    wanted = {name: float(len(table.prompts)) ** SHARE_POWER for name, table in parts.items()}
    wanted = wanted if weights is None else {name: _positive(f"weights[{name!r}]", weights[name]) for name in parts}
    total = math.fsum(float(table.weights.sum()) for table in parts.values())
    scale = total / math.fsum(wanted.values())
    return Battles.concatenate(
        [
            _renamed(table, name).with_columns(weights=table.weights * (wanted[name] * scale / table.weights.sum()))
            for name, table in parts.items()
        ]
    )


def cap_prompt_weight(battles: Battles, limit: float) -> Battles:
    """Scale down the battles of every prompt that together weigh more than a limit.

    Args:
        battles: Any.
        limit: Most that the battles of one prompt may weigh together, above 0.

    Returns:
        The same battles with other weights.

    Raises:
        ConfigurationError: The limit is not above 0.
    """
    most = _positive("the largest weight of a prompt", limit)
    sums = np.bincount(battles.prompt_index, battles.weights, len(battles.prompts))
    factors = np.minimum(1.0, most / np.maximum(sums, np.finfo(float).tiny))
    return battles.with_columns(weights=battles.weights * factors[battles.prompt_index])


def _renamed(battles: Battles, source: str) -> Battles:
    from dataclasses import replace

    return replace(battles, sources=(source,), source_index=np.zeros(len(battles), dtype=np.int32))


def _checked_fractions(fractions: Sequence[float]) -> NDArray[np.float64]:
    try:
        shares = np.array(fractions, dtype=np.float64)
        usable = shares.ndim == 1 and len(shares) > 0 and shares.min() > 0 and abs(shares.sum() - 1.0) < 1e-6  # noqa: PLR2004 - rounding
    except (TypeError, ValueError):
        usable = False
    if not usable:
        msg = f"fractions must be above 0 and add up to 1, such as (0.8, 0.2); got {shown(fractions)}"
        raise ConfigurationError(msg)
    return shares


def _positive(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not (math.isfinite(value) and value > 0):
        msg = f"{name} must be a finite number above 0, got {shown(value)}"
        raise ConfigurationError(msg)
    return float(value)
