"""One labelling: its arguments checked, its files locked and read, and what is left to do."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from prefroute.errors import ConfigurationError, DataError
from prefroute.inputs import finite_or_none
from prefroute.labelling.journal import SUFFIX, Journal, key_of
from prefroute.labelling.labellers import Answered, Golden
from prefroute.labelling.making import useless
from prefroute.labelling.rows import Output, Prompt, check_names, different
from prefroute.labelling.spending import Estimate, Ledger, estimated_tokens, total_of
from prefroute.labelling.summary import LabelSummary
from prefroute.labelling.verdicts import code_of

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping, Sequence

    from prefroute.costs import Price
    from prefroute.labelling.endpoints import Endpoint
    from prefroute.labelling.labellers import Labeller, Question, UnlabelledError

logger = logging.getLogger(__name__)

_OTHER_FORMATS = {".csv", ".gz", ".parquet", ".txt"}


class Job:
    """One labelling of one output; the output is locked, and the files are open, within its `with` block.

    See `label_prompts` for the arguments.

    Attributes:
        prompts: Those given, each once.
        sides: The endpoints `strong` and `weak`.
        labeller: How answers are labelled.
        concurrency: Calls under way at once.
        max_cost: Most that all calls may cost; None without a limit.
        ask_again: Whether replies that were of no use are asked for anew.
        journal: The work file.
        output: The rows.
        ledger: The account.
    """

    def __init__(
        self,
        prompts: Sequence[Prompt],
        *,
        strong: Endpoint,
        weak: Endpoint,
        labeller: Labeller,
        output: str | os.PathLike[str],
        prices: Mapping[str, Price | None] | None = None,
        max_cost: float | None = None,
        concurrency: int = 8,
        restart: bool = False,
        ask_again: bool = False,
    ) -> None:
        self._given = len(prompts)
        self.prompts = different(prompts)
        self.sides = {"strong": strong, "weak": weak}
        self.labeller = labeller
        self._path = Path(output)
        self.max_cost = max_cost
        self.concurrency = concurrency
        self._restart = restart
        self.ask_again = ask_again
        self.journal = Journal(Path(f"{self._path}{SUFFIX}"))
        self.output = Output(self._path)
        self._prices = {} if prices is None else prices
        self.ledger = Ledger(self._prices, max_cost)
        self._lock: Any = None

    def __enter__(self) -> Self:
        """Check, lock and read.

        Raises:
            ConfigurationError: An argument cannot be used, the output is another run's, or another process writes it.
            DataError: A file cannot be used.
        """
        self._check()
        self._acquire()
        try:
            self._read()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Close the files and let others at them."""
        self.journal.close()
        self.output.close()
        self._lock.release()

    def check_keys(self) -> None:
        """Refuse missing keys before anybody is asked anything.

        Raises:
            ConfigurationError: One is missing.
        """
        for endpoint in self.endpoints.values():
            endpoint.key()

    @property
    def endpoints(self) -> dict[str, Endpoint]:
        """The models by role: strong, weak, and judge if there is one."""
        judge = self.labeller.judge
        return self.sides if judge is None else {**self.sides, "judge": judge}

    @property
    def names(self) -> tuple[str, str]:
        """Names of the strong and the weak model."""
        return self.sides["strong"].model, self.sides["weak"].model

    @property
    def todo(self) -> list[Prompt]:
        """Prompts without a row of qualities; those that failed before come last, lest they stop the others."""
        left = [prompt for prompt in self.prompts if prompt not in self.output.good]
        return sorted(left, key=self.output.failed.__contains__)

    def fault_of(self, prompt: Prompt) -> UnlabelledError | None:
        """Why a prompt cannot be labelled whatever the models answer; None where it can."""
        return self.labeller.fault_of(prompt.reference or "") if isinstance(self.labeller, Golden) else None

    def start(self) -> None:
        """Make the files ready for rows."""
        # The rows go first: those of other settings must not outlive the note of what they were made with.
        self.output.start()
        self.journal.start(self._settings())

    def _settings(self) -> dict[str, Any]:
        sides = {role: endpoint.settings() for role, endpoint in self.sides.items()}
        has_references = any(prompt.reference is not None for prompt in self.prompts)
        return {**sides, **self.labeller.settings(), "references": has_references}

    def _check(self) -> None:
        check_names(*self.names)
        if not self.prompts:
            msg = "there are no prompts to label; give at least one"
            raise ConfigurationError(msg)
        if self.labeller.needs_reference and any(prompt.reference is None for prompt in self.prompts):
            msg = "labels by a reference need one for every prompt; give references"
            raise ConfigurationError(msg)
        faults = [self.fault_of(prompt) for prompt in self.prompts]
        if faults[0] is not None and None not in faults:
            msg = f"none of the {len(faults):,} references can be compared with an answer; the first one: {faults[0]}"
            raise DataError(msg)
        if type(self.concurrency) is not int or self.concurrency < 1:
            msg = f"concurrency must be a whole number of at least 1, got {self.concurrency!r}"
            raise ConfigurationError(msg)
        if self.max_cost is not None:
            if (finite_or_none(self.max_cost) or 0.0) <= 0:
                msg = f"max_cost must be US dollars, above 0; got {self.max_cost!r}"
                raise ConfigurationError(msg)
            unknown = sorted({end.model for end in self.endpoints.values() if not self._is_priced(end.model)})
            if unknown:
                msg = f"max_cost cannot be held without prices; there is none of {', '.join(unknown)}: give prices"
                raise ConfigurationError(msg)
        if self._path.suffix in _OTHER_FORMATS:
            msg = f"the output is JSON lines; name it something.jsonl, not {self._path.name}"
            raise ConfigurationError(msg)
        if not self._path.parent.is_dir() or self._path.is_dir():
            msg = f"the output {self._path} must be a file in a folder that exists; make the folder, or name another"
            raise ConfigurationError(msg)

    def _is_priced(self, model: str) -> bool:
        price = self._prices.get(model)
        return price is not None and price.of(1, 1) is not None

    def _acquire(self) -> None:
        from filelock import FileLock, Timeout

        self._lock = FileLock(f"{self._path}.lock", timeout=0, thread_local=False)
        try:
            self._lock.acquire()
        except Timeout:
            if not Path(self._lock.lock_file).exists():
                msg = f"{self._path}.lock cannot be made there; choose an output in a folder that can be written to"
                raise DataError(msg) from None
            msg = f"another run is labelling into {self._path}; wait for its end, or choose another output"
            raise ConfigurationError(msg) from None
        except OSError as error:
            msg = f"{self._path}.lock cannot be made: {error}; choose an output in a folder that can be written to"
            raise DataError(msg) from error

    def _read(self) -> None:
        self.journal.read()
        made_with = self.journal.settings
        if self.output.exists and made_with is None:
            msg = (
                f"{self._path} is there, but {self.journal.path.name}, which says how its rows were made, is not "
                "beside it; choose another output"
            )
            raise ConfigurationError(msg)
        if self._restart:
            self.output.restart()
        else:
            self.output.read()
        settings = self._settings()
        if self.output.good and made_with is not None and made_with != settings:
            changed = ", ".join(_differences(made_with, settings))
            msg = (
                f"{self._path} holds rows that were made with other settings ({changed}); choose another output, or "
                "restart: that empties the output and keeps every reply that was paid for, of which these settings "
                f"use {self._reusable():,} of {len(self.journal.calls):,}"
            )
            raise ConfigurationError(msg)
        if corrected := self.output.leave_out_other_references(self.prompts):
            logger.warning("%d rows had another reference than their prompts have now; they are made anew", corrected)
        self.ledger.record_all(self.journal.paid)
        self.ledger.write_off_all(self.journal.lost)
        if self.ask_again:
            for key in list(self._useless()):
                self.journal.forget(key)
        if self.max_cost is not None and not self.ledger.is_known:
            spent = {tally_of[1] for tally_of, tally in self.ledger.tallies.items() if not tally.is_known}
            msg = (
                f"max_cost cannot be held: {self.journal.path.name} holds calls to {', '.join(sorted(spent))}, whose "
                "price is not known; give that price too, or choose another output"
            )
            raise ConfigurationError(msg)

    def _useless(self) -> Iterator[str]:
        """Calls of rows without a label whose replies were of no use: blank answers, verdicts that cannot be read."""
        calls = self.journal.calls
        # Labellers of the user's own need not say what they could read.
        has_verdict = getattr(self.labeller, "has_verdict", None)
        for prompt in self.todo:
            keys = self._answer_keys(prompt)
            blank = [key for role, key in keys.items() if key in calls and useless(role, calls[key].reply) is not None]
            yield from blank
            if blank or has_verdict is None:
                continue
            for key, question in self._questions(prompt, keys).items():
                if key in calls and not has_verdict(question, calls[key].reply.text):
                    yield key

    def _reusable(self) -> int:
        """How many recorded replies are those to calls of these settings."""
        keys: set[str] = set()
        for prompt in self.prompts:
            answers = self._answer_keys(prompt)
            keys.update(answers.values(), self._questions(prompt, answers))
        return len(keys & self.journal.calls.keys())

    def _answer_keys(self, prompt: Prompt) -> dict[str, str]:
        """The calls that ask both models, by role."""
        return {role: key_of(role, endpoint, prompt.text) for role, endpoint in self.sides.items()}

    def _questions(self, prompt: Prompt, answers: Mapping[str, str]) -> dict[str, Question]:
        """What the judge is asked first, by its call; nothing without a judge, or where an answer is not there."""
        judge, calls = self.labeller.judge, self.journal.calls
        if judge is None or not calls.keys() >= set(answers.values()):
            return {}
        strong, weak = (calls[answers[role]].reply.text for role in ("strong", "weak"))
        answered = Answered(prompt.text, strong, weak, prompt.reference)
        asked = self.labeller.questions(answered, self.code)
        return {key_of("judge", judge, question.text): question for question in asked}

    def code(self, *parts: object) -> str:
        """The code of a call to the judge; see `verdicts.code_of`."""
        return code_of(self.journal.secret, *parts)

    def estimate(self) -> Estimate:
        """What is to be done, and about what it costs."""
        inputs: dict[str, dict[str, float]] = {role: {} for role in self.endpoints}
        todo = self.todo
        for prompt in todo:
            if self.fault_of(prompt) is not None:
                continue
            known = {role: self._known(role, prompt.text, inputs) for role in self.sides}
            self._count_judge(prompt, known, inputs.get("judge", {}))
        lines = tuple(
            self.ledger.estimate(role, endpoint, inputs[role].values()) for role, endpoint in self.endpoints.items()
        )
        return Estimate(
            prompts=len(self.prompts),
            duplicates=self._given - len(self.prompts),
            done=len(self.prompts) - len(todo),
            models=lines,
            spent=self.ledger.spent,
            lost=self.ledger.lost,
            cost=total_of(line.cost for line in lines),
            max_cost=self.max_cost,
        )

    def _known(self, role: str, text: str, inputs: dict[str, dict[str, float]]) -> str | None:
        """The answer, if it is there; else the call is counted."""
        endpoint = self.endpoints[role]
        key = key_of(role, endpoint, text)
        call = self.journal.calls.get(key)
        if call is None:
            inputs[role][key] = estimated_tokens(text) + estimated_tokens(endpoint.system or "")
            return None
        return call.reply.text

    def _count_judge(self, prompt: Prompt, known: dict[str, str | None], counted: dict[str, float]) -> None:
        judge = self.labeller.judge
        if judge is None:
            return
        more = sum(self.ledger.mean_output(role, self.sides[role]) for role in known if known[role] is None)
        answered = Answered(prompt.text, known["strong"] or "", known["weak"] or "", prompt.reference)
        for question in self.labeller.questions(answered, self.code):
            key = key_of("judge", judge, question.text)
            if more or key not in self.journal.calls:
                counted[key] = estimated_tokens(question.text) + more

    def declined(self) -> LabelSummary:
        """The summary of a run that did not begin."""
        summary = self.summary()
        summary.stopped, summary.detail = "declined", "nothing was asked"
        summary.settle(self.ledger)
        return summary

    def summary(self) -> LabelSummary:
        """The rows that are there."""
        strong, weak = self.names
        summary = LabelSummary(
            output=str(self._path),
            strong=strong,
            weak=weak,
            prompts=len(self.prompts),
            duplicates=self._given - len(self.prompts),
        )
        for prompt in self.prompts:
            if prompt in self.output.good:
                summary.add(self.output.good[prompt])
        return summary


def _differences(before: Mapping[str, Any], now: Mapping[str, Any], name: str = "") -> Iterator[str]:
    for key in sorted({*before, *now}):
        old, new, label = before.get(key), now.get(key), f"{name}{key}"
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _differences(old, new, f"{label} ")
        elif old != new:
            is_short = all(len(str(value)) <= 60 and not isinstance(value, dict) for value in (old, new))  # noqa: PLR2004
            yield f"{label}: {old} before, {new} now" if is_short else label
