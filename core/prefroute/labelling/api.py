"""Labelling prompts from Python: what `prefroute label` does."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from prefroute.errors import ConfigurationError
from prefroute.inputs import as_prompts
from prefroute.labelling.job import Job
from prefroute.labelling.rows import Prompt
from prefroute.labelling.running import run_job

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping, Sequence

    from prefroute.costs import Price
    from prefroute.labelling.endpoints import Endpoint
    from prefroute.labelling.labellers import Labeller
    from prefroute.labelling.spending import Estimate
    from prefroute.labelling.summary import LabelSummary


def label_prompts(
    prompts: Sequence[str],
    *,
    strong: Endpoint,
    weak: Endpoint,
    labeller: Labeller,
    output: str | os.PathLike[str],
    references: Sequence[str] | None = None,
    prices: Mapping[str, Price | None] | None = None,
    max_cost: float | None = None,
    confirm: Callable[[Estimate], bool] | None = None,
    concurrency: int = 8,
    restart: bool = False,
    ask_again: bool = False,
    progress: bool = False,
) -> LabelSummary:
    """Ask both models, label their answers, and write a table that every reader of prefroute reads.

    Every reply is on disk, in a work file beside the output (`OUTPUT.calls`), before anything is done with it, and
    every finished row is on disk at once. Called again after whatever ended it, it repeats no call whose reply had
    arrived; calls that were on their way when the process was killed, at most `concurrency`, are made again, since
    nobody knows what became of them. Rows with an error are made anew. In the main thread Ctrl-C and SIGTERM let
    the calls on their way come in first.

    A row has the prompt, a quality a model in a column of its name, the answers, the verdict, tokens, costs, and an
    error: null, or why there are no qualities. Rows come in the order in which they are finished.

    Args:
        prompts: n texts; one that recurs, with the same reference, is labelled once.
        strong: The strong model.
        weak: The weak model, of another name.
        labeller: `PairwiseJudge`, `ReferenceScore`, `Golden`, or `OwnLabel`.
        output: JSON lines; continued if they were made with the same settings.
        references: n texts with what is right; needed by `Golden`.
        prices: By name of the model, such as `Prices`; costs of others are unknown.
        max_cost: US dollars that all calls in the work file may cost; no call is made that is expected to go beyond.
            A call is expected to get the longest answer that `max_tokens` allows. Without `max_tokens` that is a
            guess (4,096 tokens, and after 20 replies half as much again as the longest), and the limit can be passed
            by the calls that are on their way together.
        confirm: Asked with the estimate before the first call; False ends it there. Not asked if nothing is left to do.
        concurrency: Calls under way at once.
        restart: Leave out rows that are there, and make them anew from replies that are there and new ones.
        ask_again: Where a row has no label since a reply was of no use (an empty answer, a verdict that cannot be
            read), ask, and pay, for that reply anew.
        progress: Whether to show a bar on stderr.

    Returns:
        The summary, which says whether and why the run ended early.

    Raises:
        ConfigurationError: An argument cannot be used, a key is missing, the output holds rows of other settings,
            another process writes it, or an event loop is running in this thread.
        DataError: The output or the work file cannot be used.
        MissingExtraError: openai is not installed.
    """
    _refuse_loop()
    given = _prompts(prompts, references)
    with Job(
        given,
        strong=strong,
        weak=weak,
        labeller=labeller,
        output=output,
        prices=prices,
        max_cost=max_cost,
        concurrency=concurrency,
        restart=restart,
        ask_again=ask_again,
    ) as job:
        declined = _asked(job, confirm)
        return declined or asyncio.run(run_job(job, progress=progress, handles_signals=True))


async def alabel_prompts(
    prompts: Sequence[str],
    *,
    strong: Endpoint,
    weak: Endpoint,
    labeller: Labeller,
    output: str | os.PathLike[str],
    references: Sequence[str] | None = None,
    prices: Mapping[str, Price | None] | None = None,
    max_cost: float | None = None,
    confirm: Callable[[Estimate], bool] | None = None,
    concurrency: int = 8,
    restart: bool = False,
    ask_again: bool = False,
    progress: bool = False,
) -> LabelSummary:
    """`label_prompts` without blocking the event loop; leaves signals alone, and ends its calls when cancelled."""
    job = Job(
        _prompts(prompts, references),
        strong=strong,
        weak=weak,
        labeller=labeller,
        output=output,
        prices=prices,
        max_cost=max_cost,
        concurrency=concurrency,
        restart=restart,
        ask_again=ask_again,
    )
    await asyncio.to_thread(job.__enter__)
    try:
        declined = await asyncio.to_thread(_asked, job, confirm)
        return declined or await run_job(job, progress=progress, handles_signals=False)
    finally:
        job.__exit__()


def estimate_labels(
    prompts: Sequence[str],
    *,
    strong: Endpoint,
    weak: Endpoint,
    labeller: Labeller,
    output: str | os.PathLike[str],
    references: Sequence[str] | None = None,
    prices: Mapping[str, Price | None] | None = None,
    max_cost: float | None = None,
    restart: bool = False,
    ask_again: bool = False,
) -> Estimate:
    """What `label_prompts` would do with these arguments, and about what that costs. Makes no call, needs no key."""
    settings: dict[str, Any] = {"prices": prices, "max_cost": max_cost, "restart": restart, "ask_again": ask_again}
    given = _prompts(prompts, references)
    with Job(given, strong=strong, weak=weak, labeller=labeller, output=output, **settings) as job:
        return job.estimate()


def _refuse_loop() -> None:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    msg = "label_prompts cannot wait in a running event loop, as of a notebook; write: await alabel_prompts(...)"
    raise ConfigurationError(msg)


def _asked(job: Job, confirm: Callable[[Estimate], bool] | None) -> LabelSummary | None:
    """The summary of a run that is not wanted; None to go on."""
    job.check_keys()
    if confirm is None:
        return None
    estimate = job.estimate()
    if estimate.done == estimate.prompts or confirm(estimate):
        return None
    return job.declined()


def _prompts(prompts: Sequence[str], references: Sequence[str] | None) -> list[Prompt]:
    texts = as_prompts(prompts)
    if any(not text.strip() for text in texts):
        msg = f"prompt {next(n for n, text in enumerate(texts) if not text.strip())} is blank; leave it out"
        raise ConfigurationError(msg)
    if references is None:
        return [Prompt(text) for text in texts]
    known = as_prompts(references)
    if len(known) != len(texts):
        msg = f"there must be one reference a prompt, got {len(known)} for {len(texts)} prompts"
        raise ConfigurationError(msg)
    return [Prompt(text, reference) for text, reference in zip(texts, known, strict=True)]
