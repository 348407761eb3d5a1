"""What a run of labelling came to."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from prefroute.labelling.labellers import STRONG_FIRST, WEAK_FIRST
from prefroute.labelling.spending import total_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from prefroute.labelling.spending import Ledger


@dataclass
class LabelSummary:
    """Figures of the output after a run.

    Attributes:
        output: The file.
        strong: Name of the strong model, and of its quality column.
        weak: The same of the weak model.
        prompts: Different prompts that were to be labelled.
        duplicates: Further ones that were the same.
        labelled: Rows with qualities, those of earlier runs among them.
        errors: How many rows of this run have none, by what went wrong.
        examples: The first message of each of these.
        final_errors: How many of these would come again with the same settings: the replies are recorded, or the
            server refuses the prompt itself.
        strong_better: Rows where the strong model's answer is worth more.
        ties: Rows where both are worth the same.
        weak_better: Rows where the weak model's is worth more.
        first_favoured: Rows whose judge preferred the answer that stood first, in both orders.
        second_favoured: The same for the one that stood second.
        judged_twice: Rows that a pairwise judge saw in both orders.
        unread_strong: Answers of the strong model with nothing to compare with a reference; they count as wrong.
        unread_weak: The same of the weak one.
        cut_off: Answers of rows of this run that ended at `max_tokens`.
        calls: Calls made by this run.
        refusals: How often a server refused one for load.
        paid: By role and model: calls, tokens and cost of all that the work file holds.
        cost: US dollars of all that; None where a price is not known.
        lost: US dollars set aside for calls that got no reply and may be paid for all the same.
        stopped: Why the run ended early: `max_cost`, `interrupted`, `failed`, or `declined` by who was asked to
            confirm; None when it did not.
        detail: The same for people.
    """

    output: str
    strong: str
    weak: str
    prompts: int
    duplicates: int = 0
    labelled: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    final_errors: int = 0
    strong_better: int = 0
    ties: int = 0
    weak_better: int = 0
    first_favoured: int = 0
    second_favoured: int = 0
    judged_twice: int = 0
    unread_strong: int = 0
    unread_weak: int = 0
    cut_off: int = 0
    calls: int = 0
    refusals: int = 0
    paid: list[dict[str, Any]] = field(default_factory=list)
    cost: float | None = 0.0
    lost: float = 0.0
    stopped: str | None = None
    detail: str = ""

    def add(self, row: Mapping[str, Any]) -> None:
        """Count a row that has its qualities."""
        self.labelled += 1
        gain = row[self.strong] - row[self.weak]
        self.strong_better += gain > 0
        self.weak_better += gain < 0
        self.ties += gain == 0
        verdict = row.get("verdict")
        if not isinstance(verdict, dict):
            return
        if verdict.keys() == {"strong", "weak"}:
            self.unread_strong += verdict["strong"] is None
            self.unread_weak += verdict["weak"] is None
        elif verdict.keys() == {STRONG_FIRST, WEAK_FIRST}:
            self.judged_twice += 1
            both = set(verdict.values())
            self.first_favoured += both == {"A"}
            self.second_favoured += both == {"B"}

    def fail(self, kind: str, message: str, *, is_final: bool) -> None:
        """Count a row that has none."""
        self.errors[kind] += 1
        self.examples.setdefault(kind, message)
        self.final_errors += is_final

    def settle(self, ledger: Ledger) -> None:
        """Note what was paid."""
        names = ("calls", "input_tokens", "output_tokens", "cost")
        self.paid = [
            {"role": role, "model": model, **{name: getattr(tally, name) for name in names}}
            for (role, model), tally in sorted(ledger.tallies.items())
        ]
        self.cost, self.lost = total_of(tally.cost for tally in ledger.tallies.values()), ledger.lost

    @property
    def left(self) -> int:
        """Prompts without a row of qualities, as far as this run was to label them."""
        return max(self.prompts - self.labelled, 0)

    @property
    def is_to_be_continued(self) -> bool:
        """Whether the same command run again may label more."""
        return self.stopped is not None or self.errors.total() > self.final_errors

    def as_dict(self) -> dict[str, Any]:
        """The figures, JSON-safe."""
        return {**vars(self), "errors": dict(self.errors), "left": self.left}
