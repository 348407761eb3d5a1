"""How many labelled prompts it takes to tell a router from chance."""

from __future__ import annotations

import math
from statistics import NormalDist

from prefroute.errors import ConfigurationError
from prefroute.evaluation.resampling import CONFIDENCE

POWER = 0.8
"""In so many of 100 samples of that size the advantage would show."""

WORTHWHILE = 0.05
"""APGR above that of a coin: about what routers reach on traffic that is somewhat like what they learnt from."""


def prompts_to_settle(prompts: int, low: float, high: float, advantage: float, *, power: float = POWER) -> int:
    """Labelled prompts with which an advantage over random routing would most likely be told from chance.

    The standard error of APGR falls with the root of the number of prompts; a two-sided test at 5 % then finds the
    advantage with the wanted power (normal approximation).

    Args:
        prompts: Prompts that the interval was measured on.
        low: Lower end of the 95 % interval of APGR on them.
        high: Upper end.
        advantage: APGR less 0.5, above 0.
        power: Chance to find it.

    Returns:
        Prompts in all, the measured ones among them.

    Raises:
        ConfigurationError: The interval has no ends, or the advantage is not above 0.
    """
    if not (math.isfinite(low) and math.isfinite(high) and low < high and advantage > 0 and 0 < power < 1):
        msg = f"an interval with two ends and an advantage above 0 are needed, got {low} to {high}, {advantage}"
        raise ConfigurationError(msg)
    normal = NormalDist()
    both_sides = normal.inv_cdf((1.0 + CONFIDENCE) / 2.0)
    error = (high - low) / (2.0 * both_sides)
    return math.ceil(prompts * ((both_sides + normal.inv_cdf(power)) * error / advantage) ** 2)
