"""Running a job: as many rows at once as calls are allowed, until the last one or a reason to stop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import threading
from typing import TYPE_CHECKING

from prefroute.labelling._bar import State, bar
from prefroute.labelling._servers import IN_A_ROW
from prefroute.labelling._stopping import Stop, StoppedError
from prefroute.labelling.asking import Asker
from prefroute.labelling.making import make_row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prefroute.labelling.job import Job
    from prefroute.labelling.making import Made
    from prefroute.labelling.rows import Prompt
    from prefroute.labelling.summary import LabelSummary

logger = logging.getLogger(__name__)

_SIGNALS = ("SIGINT", "SIGTERM")


async def run_job(job: Job, *, progress: bool, handles_signals: bool) -> LabelSummary:
    """Make the calls and write the rows.

    Args:
        job: An entered one.
        progress: Whether to show a bar.
        handles_signals: Whether Ctrl-C lets the calls on their way come in first.

    Returns:
        What came of it.

    Raises:
        ConfigurationError: A key is missing, or cannot be sent.
        MissingExtraError: openai is not installed.
    """
    stop = Stop()
    asker = Asker(job.journal, job.ledger, stop, job.concurrency)
    summary = job.summary()
    try:
        for endpoint in job.endpoints.values():
            # Making the first client imports much, which would hold up the event loop.
            await asyncio.to_thread(asker.open, endpoint)
        await asker.write(job.start)
        await _Run(job, asker, stop, summary).all_rows(progress=progress, handles_signals=handles_signals)
    except StoppedError:
        pass  # Said by `stop`.
    finally:
        await asker.close()
    summary.calls, summary.refusals = asker.made, asker.refusals
    summary.stopped, summary.detail = stop.reason, stop.detail
    summary.settle(job.ledger)
    return summary


class _Run:
    """The rows of one run."""

    def __init__(self, job: Job, asker: Asker, stop: Stop, summary: LabelSummary) -> None:
        self._job = job
        self._asker = asker
        self._stop = stop
        self._summary = summary
        self._waiting: Iterator[Prompt] = iter(job.todo)
        self._workers: list[asyncio.Task[None]] = []
        self._useless = 0

    async def all_rows(self, *, progress: bool, handles_signals: bool) -> None:
        """Make them, or as many as there is time for."""
        total = len(self._job.prompts)
        self._workers = [asyncio.create_task(self._work()) for _ in range(min(self._job.concurrency, total))]
        try:
            with _on_signal(self._stop, self._give_up, wanted=handles_signals):
                async with bar(total, self._state, shown=progress):
                    results = await asyncio.gather(*self._workers, return_exceptions=True)
        finally:
            self._give_up()
        for result in results:
            # A worker that was cancelled by the second signal is no error.
            if isinstance(result, Exception):
                raise result

    async def _work(self) -> None:
        for prompt in self._waiting:
            if self._stop.reason is not None:
                return
            try:
                made = await make_row(self._job, self._asker, prompt)
                await self._asker.write(self._job.output.add, made.row)
            except StoppedError:
                return
            self._count(prompt, made)

    def _count(self, prompt: Prompt, made: Made) -> None:
        self._summary.cut_off += made.cut_off
        if made.fault is None:
            self._useless = 0
            self._summary.add(made.row)
            return
        self._summary.fail(made.fault, str(made.row["error"]), is_final=made.is_final)
        # Those of an earlier run cost nothing now.
        self._useless += made.is_useless and (self._job.ask_again or prompt not in self._job.output.failed)
        if self._useless >= IN_A_ROW:
            said = "" if made.row["verdict"] is None else f"; it said {made.row['verdict']!r:.200}"
            found = f"{IN_A_ROW} rows in a row have no label for a like reason: {made.row['error']}{said}"
            remedy = "see to the model, its instructions and limits, then ask again (--ask-again, ask_again=True)"
            self._stop.set("failed", self._asker.shown(f"{found}") + f"; {remedy}")

    def _give_up(self) -> None:
        self._asker.abandon()
        for worker in self._workers:
            worker.cancel()

    def _state(self) -> State:
        ledger, done = self._job.ledger, self._summary.labelled + self._summary.errors.total()
        limit = "" if self._job.max_cost is None else f" of ${self._job.max_cost:,.2f}"
        cost = f"${ledger.spent:,.4f}{limit}" if ledger.is_known else "cost unknown"
        return State(done, cost, self._asker.waiting)


@contextlib.contextmanager
def _on_signal(stop: Stop, give_up: Callable[[], None], *, wanted: bool) -> Iterator[None]:
    """Ctrl-C, or SIGTERM, starts nothing new and lets the calls on their way come in; the second one ends them."""
    if not wanted or threading.current_thread() is not threading.main_thread():
        yield
        return
    signals = 0

    def on_signal() -> None:
        nonlocal signals
        signals += 1
        if signals > 1:
            give_up()
            return
        stop.set("interrupted", "interrupted; what was paid for is kept, so run the same command to go on")
        logger.warning("stopping when the calls on their way have come in, which are paid for; again ends at once")

    loop = asyncio.get_running_loop()
    before = {}
    for name in _SIGNALS:
        number = getattr(signal, name)
        handler = signal.getsignal(number)
        # Windows knows no such handlers: Ctrl-C then ends the run at once.
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(number, on_signal)
            before[number] = handler
    try:
        yield
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            if handler is not None:  # None was not set from Python, and cannot be.
                signal.signal(number, handler)
