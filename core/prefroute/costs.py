"""What routing costs and saves: prices as data, unknown prices as unknown, savings with their sign.

The prices that come along are those of the two models of RouteLLM's paper (arXiv 2406.18665, section 5.4 and appendix
D: $24.7 and $0.24 per million tokens at 95 input and 264 output tokens); give your own models' prices.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefroute.errors import ConfigurationError, DataError
from prefroute.inputs import finite_or_none

if TYPE_CHECKING:
    from collections.abc import Iterator


PAPER_PRICES = Path(__file__).with_name("prices.json")

PAPER_TOKENS = (95.0, 264.0)
"""Mean input and output tokens of a request in the paper."""

_PER = 1e6
_KINDS = ("input", "cached_input", "output")


@dataclass(frozen=True, kw_only=True)
class Price:
    """US dollars per million tokens; None for a price that is not known, which is not 0.

    Attributes:
        input: Of tokens of the prompt.
        output: Of tokens of the answer.
        cached_input: Of tokens of the prompt that the provider had in its cache.

    Raises:
        ConfigurationError: A price is negative or not a number.
    """

    input: float | None
    output: float | None
    cached_input: float | None = None

    def __post_init__(self) -> None:
        """Refuse what is no price."""
        for kind in _KINDS:
            value = getattr(self, kind)
            number = finite_or_none(value)
            if value is not None and (number is None or number < 0):
                msg = f"the {kind} price must be US dollars per million tokens, 0 or more, or None; got {value!r}"
                raise ConfigurationError(msg)

    def of(self, input_tokens: float, output_tokens: float, cached_tokens: float = 0.0) -> float | None:
        """The cost of one request.

        Args:
            input_tokens: Tokens of the prompt, the cached ones included.
            output_tokens: Tokens of the answer.
            cached_tokens: Those of the prompt that were cached.

        Returns:
            US dollars; None if tokens were used whose price is not known.

        Raises:
            ConfigurationError: Numbers of tokens that cannot be.
        """
        if not 0.0 <= cached_tokens <= input_tokens or output_tokens < 0:
            given = f"{input_tokens} in, {output_tokens} out, {cached_tokens} cached"
            msg = f"tokens must be 0 or more, and cached ones are among the input; got {given}"
            raise ConfigurationError(msg)
        used = {"input": input_tokens - cached_tokens, "cached_input": cached_tokens, "output": output_tokens}
        total = 0.0
        for kind, tokens in used.items():
            price = getattr(self, kind)
            if tokens and price is None:
                return None
            total += tokens * (price or 0.0)
        return total / _PER


class Prices(Mapping[str, Price | None]):
    """Prices by name of the model; a model that is not listed has the price None: unknown.

    Args:
        prices: A price, or None, for each name.
    """

    def __init__(self, prices: Mapping[str, Price | None]) -> None:
        self._prices = dict(prices)

    @classmethod
    def of_paper(cls) -> Prices:
        """The prices of the two models in RouteLLM's paper."""
        return cls.read(PAPER_PRICES)

    @classmethod
    def read(cls, path: str | Path) -> Prices:
        """Read a JSON object: `{"model": {"input": 10.0, "cached_input": 2.5, "output": 30.0}}`.

        Args:
            path: The file. A price that is left out or null is unknown.

        Returns:
            The prices.

        Raises:
            DataError: The file is not of that form; says where.
        """
        try:
            table = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            msg = f"{path} cannot be read as prices: {error}"
            raise DataError(msg) from error
        if not isinstance(table, dict):
            msg = f'{path} must hold an object such as {{"model": {{"input": 10, "output": 30}}}}'
            raise DataError(msg)
        found: dict[str, Price | None] = {}
        for name, fields in table.items():
            if fields is not None and (not isinstance(fields, dict) or set(fields) - set(_KINDS)):
                msg = f"{path}: the price of {name!r} must be an object with {', '.join(_KINDS)}; got {fields!r}"
                raise DataError(msg)
            try:
                given = None if fields is None else {"input": None, "output": None, **fields}
                found[name] = None if given is None else Price(**given)
            except ConfigurationError as error:
                msg = f"{path}: {name!r}: {error}"
                raise DataError(msg) from error
        return cls(found)

    def overridden(self, other: Mapping[str, Price | None]) -> Prices:
        """These prices, and where the other names a model, its."""
        return Prices({**self._prices, **other})

    def __getitem__(self, name: str) -> Price | None:
        """The price of a model, None where it is not known."""
        return self._prices.get(name)

    def __iter__(self) -> Iterator[str]:
        """The names listed."""
        return iter(self._prices)

    def __len__(self) -> int:
        """How many are listed."""
        return len(self._prices)


@dataclass(frozen=True, kw_only=True)
class Savings:
    """What a request costs on average at one share of strong calls, in US dollars, and what that saves.

    Savings are signed: below 0 routing costs more. None where a price is not known, and for what compares with random
    routing where no random routing is as good, or as bad.

    Attributes:
        strong_rate: Share of strong calls.
        cost: Of a routed request, without the router's own cost.
        router_cost: The router's own, a request; None where it is not known.
        always_strong: Cost when every request goes to the strong model.
        random: Cost when requests picked by chance go there until the quality is the same.
        saved_against_strong: Net of the router's own cost.
        saved_against_random: Net of the router's own cost.
        call_ratio: Strong calls of random routing over those of this router, at equal quality: the paper's Table 6.
        cost_ratio: The same of the costs of all calls, the router's own included.
    """

    strong_rate: float
    cost: float | None
    router_cost: float | None
    always_strong: float | None
    random: float | None
    saved_against_strong: float | None
    saved_against_random: float | None
    call_ratio: float | None
    cost_ratio: float | None

    def as_dict(self) -> dict[str, Any]:
        """The figures, JSON-safe."""
        return asdict(self)


def savings(
    strong_rate: float,
    random_rate: float,
    *,
    strong_cost: float | None,
    weak_cost: float | None,
    router_cost: float | None,
    cost: float | None = None,
) -> Savings:
    """What a share of strong calls saves against always-strong, and against random routing of equal quality.

    Args:
        strong_rate: Share of strong calls, in [0, 1].
        random_rate: Share of strong calls with which random routing reaches the same quality: the PGR there.
        strong_cost: Mean cost of a request to the strong model, US dollars; None where it is not known.
        weak_cost: Mean cost of a request to the weak one.
        router_cost: The router's own cost a request: 0 only if it truly is; None where it is not known.
        cost: Mean cost of a routed request, where it is known prompt by prompt; None for the mean of both by the rate.

    Returns:
        The figures.
    """
    both = None if strong_cost is None or weak_cost is None else (strong_cost, weak_cost)
    routed = cost if cost is not None else _blend(both, strong_rate)
    # A quality above both models', or below both, is none that random routing reaches.
    reached = 0.0 <= random_rate <= 1.0
    random = _blend(both, random_rate) if reached else None
    net = None if routed is None or router_cost is None else routed + router_cost
    return Savings(
        strong_rate=strong_rate,
        cost=routed,
        router_cost=router_cost,
        always_strong=strong_cost,
        random=random,
        saved_against_strong=None if strong_cost is None or net is None else strong_cost - net,
        saved_against_random=None if random is None or net is None else random - net,
        call_ratio=random_rate / strong_rate if strong_rate and reached else None,
        cost_ratio=random / net if random is not None and net else None,
    )


def _blend(costs: tuple[float, float] | None, rate: float) -> float | None:
    return None if costs is None else costs[1] + rate * (costs[0] - costs[1])
