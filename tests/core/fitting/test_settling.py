"""How many labels it takes to tell a router from chance."""

import math
from statistics import NormalDist

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefroute.errors import ConfigurationError
from prefroute.fitting import prompts_to_settle

Z = NormalDist().inv_cdf(0.975)


def power_of(prompts: int, deviation: float, advantage: float) -> float:
    """Chance that the mean of so many values of this deviation and mean lies above what chance alone reaches."""
    return 1.0 - NormalDist(advantage * math.sqrt(prompts) / deviation).cdf(Z)


@pytest.mark.parametrize(
    ("effect", "power", "wanted"), [(0.5, 0.8, 32), (0.25, 0.8, 126), (0.1, 0.8, 785), (0.25, 0.9, 169)]
)
@pytest.mark.parametrize("measured_on", [100, 1500])
def test_the_number_is_that_of_textbooks(effect: float, power: float, wanted: int, measured_on: int) -> None:
    # The mean of n values of deviation 1 has an interval of 1.96 / sqrt(n) on both sides.
    half = Z / math.sqrt(measured_on)
    assert prompts_to_settle(measured_on, 0.6 - half, 0.6 + half, effect, power=power) == wanted


SIZES = {"prompts": st.integers(50, 5000), "half": st.floats(0.01, 0.5), "advantage": st.floats(0.005, 0.5)}


@given(**SIZES, power=st.floats(0.5, 0.99))
def test_it_is_the_least_that_has_the_power(prompts: int, half: float, advantage: float, power: float) -> None:
    found = prompts_to_settle(prompts, 0.5 - half, 0.5 + half, advantage, power=power)
    deviation = half / Z * math.sqrt(prompts)
    assert power_of(found, deviation, advantage) >= power - 1e-9
    assert found == 1 or power_of(found - 1, deviation, advantage) <= power + 1e-9


@given(**SIZES, factor=st.floats(1.01, 3.0))
def test_it_falls_with_the_advantage_and_rises_with_all_else(
    prompts: int, half: float, advantage: float, factor: float
) -> None:
    def settle(count: int = prompts, width: float = half, lead: float = advantage, power: float = 0.6) -> int:
        return prompts_to_settle(count, 0.5 - width, 0.5 + width, lead, power=power)

    assert settle(lead=advantage * factor) <= settle()
    assert settle(width=half * factor) >= settle()
    assert settle(count=2 * prompts) >= settle()
    assert settle(power=0.9) >= settle()
    # Where the interval lies says nothing.
    assert abs(prompts_to_settle(prompts, 0.1, 0.1 + 2 * half, advantage, power=0.6) - settle()) <= 1


@pytest.mark.parametrize(
    ("low", "high", "advantage", "power"),
    [
        (math.nan, 0.6, 0.1, 0.8),
        (0.4, math.inf, 0.1, 0.8),
        (0.5, 0.5, 0.1, 0.8),
        (0.6, 0.4, 0.1, 0.8),
        (0.4, 0.6, 0.0, 0.8),
        (0.4, 0.6, -0.1, 0.8),
        (0.4, 0.6, math.nan, 0.8),
        (0.4, 0.6, 0.1, 0.0),
        (0.4, 0.6, 0.1, 1.0),
    ],
)
def test_what_says_nothing_is_refused(low: float, high: float, advantage: float, power: float) -> None:
    with pytest.raises(ConfigurationError, match="an interval with two ends and an advantage above 0 are needed, got"):
        prompts_to_settle(200, low, high, advantage, power=power)
