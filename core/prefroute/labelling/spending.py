"""What labelling costs: the estimate before it starts, and the account of what it has cost so far."""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from prefroute.costs import PAPER_TOKENS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from prefroute.costs import Price
    from prefroute.labelling.endpoints import Endpoint
    from prefroute.labelling.journal import LostCall, PaidCall, Reply

_PER_TOKEN = 4
_ENOUGH = 5
"""Replies after which their mean says more than a guess."""

_CAUTIOUS_OUTPUT = 4096
"""Output tokens that a call without `max_tokens` is taken to need, until there are replies enough."""

_ENOUGH_FOR_LONGEST = 20
_ABOVE_LONGEST = 1.5
_LEAST_BYTES_PER_TOKEN = 2
_MESSAGE_TOKENS = 50
"""What a server adds to the messages, at most."""

_WIDE = re.compile(r"[\u1100-\u11ff\u2e80-\ud7ff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff]")


def estimated_tokens(text: str) -> int:
    """About how many tokens a text has: one a Chinese, Japanese or Korean character, one for 4 of any others."""
    wide = 0 if text.isascii() else len(_WIDE.findall(text))
    return wide + -(-(len(text) - wide) // _PER_TOKEN)


def most_tokens(text: str) -> int:
    """More tokens than a text is ever likely to have: one for 2 bytes of UTF-8, and what a server adds."""
    return -(-len(text.encode("utf-8", "replace")) // _LEAST_BYTES_PER_TOKEN) + _MESSAGE_TOKENS


def total_of(costs: Iterable[float | None]) -> float | None:
    """The sum; None where one of them is not known."""
    known = list(costs)
    return None if None in known else sum(cost for cost in known if cost is not None)


@dataclass(frozen=True, kw_only=True)
class CallsEstimate:
    """The calls that one model is still to get.

    Attributes:
        role: strong, weak or judge.
        model: Its name.
        calls: How many.
        input_tokens: Estimated, of all of them.
        output_tokens: Likewise.
        cost: US dollars; None where the price is not known.
    """

    role: str
    model: str
    calls: int
    input_tokens: int
    output_tokens: int
    cost: float | None


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a run is about to do.

    Attributes:
        prompts: To be labelled, each different one once.
        duplicates: Further prompts that are the same as one of them.
        done: Those of `prompts` whose row is there.
        models: One entry a role.
        spent: US dollars that the calls in the work file have cost, as far as prices are known.
        lost: US dollars set aside for calls that got no reply and may be paid for all the same.
        cost: Estimated US dollars of what is to come; None where a price is not known.
        max_cost: Most that all of the work file may cost; None without a limit.
    """

    prompts: int
    duplicates: int
    done: int
    models: tuple[CallsEstimate, ...]
    spent: float
    lost: float
    cost: float | None
    max_cost: float | None

    @property
    def calls(self) -> int:
        """Calls to come."""
        return sum(line.calls for line in self.models)

    @property
    def is_within(self) -> bool:
        """Whether it is known to stay within the limit; without a limit, whether its cost is known."""
        if self.calls == 0:
            return True
        gone = self.spent + self.lost
        return self.cost is not None and (self.max_cost is None or gone + self.cost <= self.max_cost)

    def as_dict(self) -> dict[str, Any]:
        """The figures, JSON-safe."""
        return {**asdict(self), "models": [asdict(line) for line in self.models], "calls": self.calls}


@dataclass
class Tally:
    """Calls of one model in one role that were answered.

    Attributes:
        calls: How many.
        input_tokens: Of all.
        output_tokens: Of all.
        longest: Output tokens of the one with the most.
        known_cost: US dollars of those whose price is known.
        is_known: Whether that is all of them.
    """

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    longest: int = 0
    known_cost: float = 0.0
    is_known: bool = True

    @property
    def cost(self) -> float | None:
        """US dollars of all; None where a price is not known."""
        return self.known_cost if self.is_known else None


class Ledger:
    """The account of one run: what was paid, what is on its way, and whether there is money for more.

    Lives on one event loop. Tokens from a cache whose price is not known are counted at the price of other input,
    which is more than they cost. What a call without `max_tokens` may come to is a guess, so the limit can then be
    passed, by no more than the calls that were on their way.

    Args:
        prices: By name of the model.
        max_cost: Most that all calls of the work file may cost, US dollars; None without a limit.

    Attributes:
        lost: US dollars that are counted as gone, though it is not known whether they are.
        tallies: What was answered, by role and model.
    """

    def __init__(self, prices: Mapping[str, Price | None], max_cost: float | None) -> None:
        self.max_cost = max_cost
        self.lost = 0.0
        self.tallies: defaultdict[tuple[str, str], Tally] = defaultdict(Tally)
        self._prices = prices
        self._reserved: list[float] = []
        self._change = asyncio.Event()

    def record(self, call: PaidCall) -> None:
        """Count a reply; tokens that the server did not count are estimated."""
        tally, reply = self.tallies[call.role, call.model], call.reply
        tally.calls += 1
        tally.input_tokens += _known_input(reply)
        tally.output_tokens += _known_output(reply)
        tally.longest = max(tally.longest, _known_output(reply))
        cost = self._cost(call.model, _known_input(reply), _known_output(reply), reply.cached_tokens)
        tally.known_cost += cost or 0.0
        tally.is_known = tally.is_known and cost is not None

    def record_all(self, calls: Iterable[PaidCall]) -> None:
        """Count the replies of earlier runs."""
        for call in calls:
            self.record(call)

    def write_off_all(self, calls: Iterable[LostCall]) -> None:
        """Count as gone what earlier runs wrote off."""
        for call in calls:
            self.write_off(call.amount)

    @property
    def spent(self) -> float:
        """US dollars so far, as far as prices are known."""
        return sum(tally.known_cost for tally in self.tallies.values())

    @property
    def is_known(self) -> bool:
        """Whether `spent` is all of it."""
        return all(tally.is_known for tally in self.tallies.values())

    def cost_of(self, model: str, reply: Reply) -> float | None:
        """US dollars of one reply; None unless price and tokens are known."""
        if reply.input_tokens is None or reply.output_tokens is None:
            return None
        return self._cost(model, reply.input_tokens, reply.output_tokens, reply.cached_tokens)

    def mean_output(self, role: str, endpoint: Endpoint) -> float:
        """Output tokens to expect of a call: the mean so far, else `max_tokens`, else the mean of the paper."""
        tally = self.tallies.get((role, endpoint.model))
        if tally is not None and tally.calls >= _ENOUGH:
            return tally.output_tokens / tally.calls
        return float(PAPER_TOKENS[1] if endpoint.max_tokens is None else endpoint.max_tokens)

    def most_output(self, role: str, endpoint: Endpoint) -> float:
        """Output tokens to set money aside for: at least the most that a reply had, whatever was asked for."""
        tally = self.tallies.get((role, endpoint.model), Tally())
        if endpoint.max_tokens is not None:
            return float(max(endpoint.max_tokens, tally.longest))
        if tally.calls >= _ENOUGH_FOR_LONGEST:
            return tally.longest * _ABOVE_LONGEST
        return float(max(_CAUTIOUS_OUTPUT, tally.longest))

    def estimate(self, role: str, endpoint: Endpoint, inputs: Iterable[float]) -> CallsEstimate:
        """What calls to come will cost.

        Args:
            role: Of the model.
            endpoint: The model.
            inputs: Estimated input tokens of each call.
        """
        sent = list(inputs)
        total_in, total_out = round(sum(sent)), round(len(sent) * self.mean_output(role, endpoint))
        cost = self._cost(endpoint.model, total_in, total_out, 0) if sent else 0.0
        return CallsEstimate(
            role=role,
            model=endpoint.model,
            calls=len(sent),
            input_tokens=total_in,
            output_tokens=total_out,
            cost=cost,
        )

    async def reserve(self, role: str, endpoint: Endpoint, sent: int) -> Reservation | None:
        """Set money aside for a call, waiting for calls on their way where it may be too little.

        Args:
            role: Of the model.
            endpoint: The model.
            sent: Most input tokens.

        Returns:
            What to release when the call is over; None if the limit does not allow the call.
        """
        while True:
            # Anew each time: replies that came in meanwhile say more.
            amount = self._cost(endpoint.model, sent, self.most_output(role, endpoint), 0) or 0.0
            if self.max_cost is None or self.spent + self.lost + sum(self._reserved) + amount <= self.max_cost:
                self._reserved.append(amount)
                return Reservation(self, amount)
            if not self._reserved:
                return None
            self._change.clear()
            await self._change.wait()

    def release(self, amount: float) -> None:
        """Give back what was set aside."""
        self._reserved.remove(amount)
        self._change.set()

    def write_off(self, amount: float) -> None:
        """Count as gone what was set aside for a call that may be paid for but got no reply."""
        self.lost += amount

    def _cost(self, model: str, sent: float, received: float, cached: float) -> float | None:
        price = self._prices.get(model)
        if price is None:
            return None
        return price.of(sent, received, 0 if price.cached_input is None else min(cached, sent))


@dataclass(frozen=True)
class Reservation:
    """Money set aside for one call, until the end of the `with` block."""

    ledger: Ledger = field(repr=False)
    amount: float

    def __enter__(self) -> None:
        """It is set aside already."""

    def lose(self) -> None:
        """Note that the call may be paid for all the same."""
        self.ledger.write_off(self.amount)

    def __exit__(self, *_: object) -> None:
        """Give it back."""
        self.ledger.release(self.amount)


def _known_input(reply: Reply) -> int:
    return reply.sent_tokens if reply.input_tokens is None else reply.input_tokens


def _known_output(reply: Reply) -> int:
    return estimated_tokens(reply.text) if reply.output_tokens is None else reply.output_tokens
