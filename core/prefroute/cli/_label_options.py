"""The options of `prefroute label`, and what they make: models, a labeller, prices."""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from prefroute.cli._label_report import show_estimate
from prefroute.cli._options import (  # noqa: TC001 - typer reads the annotations
    OnBadRowOption,
    PromptColumnOption,
    TurnOption,
)
from prefroute.errors import ConfigurationError, DataError

if TYPE_CHECKING:
    from prefroute.costs import Prices
    from prefroute.labelling import Endpoint, Estimate, Labeller

JudgeKind = Literal["pairwise", "score"]
MatchKind = Literal["exact", "numeric", "choice"]

_WAYS = "--judge, --match or --label-with"


def _show_instructions(kind: str | None) -> None:
    if kind is not None:
        from prefroute.labelling import bundled_instructions

        typer.echo(bundled_instructions("pairwise" if kind == "pairwise" else "score"), nl=False)
        raise typer.Exit


def _url(what: str) -> Any:
    return typer.Option(metavar="URL", help=f"Server of {what}, such as http://localhost:8000/v1; else OpenAI.")


def _key(what: str) -> Any:
    return typer.Option(
        metavar="NAME", help=f"Variable of the environment with the key for {what}; OPENAI_API_KEY if no URL is given."
    )


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """Which prompts."""

    prompt_column: PromptColumnOption = None
    reference_column: Annotated[
        str | None, typer.Option(metavar="NAME", help="Column of what is right, for --match or --label-with.")
    ] = None
    turn: TurnOption = "first"
    on_bad_row: OnBadRowOption = "skip"
    from_log: Annotated[
        Path | None,
        typer.Option(
            metavar="STORE",
            help="In place of FILE: what an adapter has recorded (record=), each prompt once.",
            exists=True,
            dir_okay=False,
        ),
    ] = None
    sample: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Take N of the prompts, drawn at random; the same ones each time."),
    ] = None
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Of these, take the first N only.")] = None

    def check(self, file: Path | None) -> None:
        """Refuse two sources, none, or what says nothing of a log.

        Raises:
            ConfigurationError: Says which.
        """
        if (file is None) == (self.from_log is None):
            got = "both" if file is not None else "neither"
            msg = f"give a file of prompts, or --from-log STORE; got {got}"
            raise ConfigurationError(msg)
        if self.from_log is None:
            return
        if self.prompt_column is not None or self.reference_column is not None:
            msg = "--prompt-column and --reference-column say nothing of --from-log, whose records have a prompt alone"
            raise ConfigurationError(msg)
        others = {"--turn": self.turn != "first", "--on-bad-row": self.on_bad_row != "skip"}
        if given := " and ".join(name for name, is_given in others.items() if is_given):
            msg = f"{given} says nothing of --from-log, whose records are one prompt each; leave it out"
            raise ConfigurationError(msg)


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """The two models, and how they are asked."""

    strong: Annotated[str, typer.Option(metavar="NAME", help="The strong model, as its server names it.")]
    weak: Annotated[str, typer.Option(metavar="NAME", help="The weak model.")]
    strong_base_url: Annotated[str | None, _url("the strong model")] = None
    strong_key_env: Annotated[str | None, _key("the strong model")] = None
    weak_base_url: Annotated[str | None, _url("the weak model")] = None
    weak_key_env: Annotated[str | None, _key("the weak model")] = None
    system: Annotated[
        Path | None, typer.Option(metavar="FILE", help="System message for both models.", exists=True, dir_okay=False)
    ] = None
    max_tokens: Annotated[int | None, typer.Option(min=1, metavar="N", help="Most tokens of an answer.")] = None
    temperature: Annotated[float | None, typer.Option(min=0, metavar="T", help="Of both models' answers.")] = None
    timeout: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS", help="How long any model, the judge too, may take for an answer; 300 if not given."
        ),
    ] = None
    max_retries: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="How often a refused or failed call is repeated; 5 if not given."),
    ] = None

    def patience(self) -> dict[str, Any]:
        """What was said of waiting and repeating, for every endpoint."""
        said = {"timeout": self.timeout, "max_retries": self.max_retries}
        return {name: value for name, value in said.items() if value is not None}

    def endpoints(self) -> tuple[Endpoint, Endpoint]:
        """Strong and weak."""
        from prefroute.labelling import Endpoint

        shared: dict[str, Any] = {"max_tokens": self.max_tokens, "temperature": self.temperature, **self.patience()}
        shared["system"] = _text(self.system)
        strong = Endpoint(model=self.strong, base_url=self.strong_base_url, key_env=self.strong_key_env, **shared)
        return strong, Endpoint(model=self.weak, base_url=self.weak_base_url, key_env=self.weak_key_env, **shared)


@dataclass(frozen=True, kw_only=True)
class LabellerOptions:
    """How answers are labelled: exactly one way."""

    judge: Annotated[
        JudgeKind | None,
        typer.Option(
            help="A judge compares the answers in both orders, or scores the weak one from 1 to 5 by the strong one."
        ),
    ] = None
    match: Annotated[MatchKind | None, typer.Option(help="An answer is right if it fits --reference-column.")] = None
    label_with: Annotated[
        str | None,
        typer.Option(
            metavar="FILE.py:FUNCTION",
            help=(
                "A function of prompt, strong answer, weak answer and reference that gives two qualities, or the "
                "probability that the strong answer is better. Runs the code of that file or module."
            ),
        ),
    ] = None
    judge_model: Annotated[str | None, typer.Option(metavar="NAME", help="The model that judges.")] = None
    judge_base_url: Annotated[str | None, _url("the judge")] = None
    judge_key_env: Annotated[str | None, _key("the judge")] = None
    judge_max_tokens: Annotated[int | None, typer.Option(min=1, metavar="N", help="Most tokens of a verdict.")] = None
    judge_temperature: Annotated[
        float | None, typer.Option(min=0, metavar="T", help="Of verdicts; the server's own if not given.")
    ] = None
    judge_instructions: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Instructions of one's own; see --show-instructions.", exists=True, dir_okay=False
        ),
    ] = None
    _show: Annotated[
        JudgeKind | None,
        typer.Option(
            "--show-instructions", is_eager=True, callback=_show_instructions, help="Print a judge's instructions."
        ),
    ] = None

    def labeller(self, patience: dict[str, Any]) -> Labeller:
        """The labeller.

        Args:
            patience: Of the judge's endpoint; see `ModelOptions.patience`.

        Raises:
            ConfigurationError: No way, or several, are given, or an option that says nothing.
        """
        from prefroute.labelling import Golden, OwnLabel, load_function

        given = [way for way in (self.judge, self.match, self.label_with) if way is not None]
        if len(given) != 1:
            msg = f"say how to label with one of {_WAYS}, got {len(given) or 'none'} of them"
            raise ConfigurationError(msg)
        if self.judge is not None:
            return self._judge(self.judge, patience)
        names = [item.name for item in fields(self) if item.name.startswith("judge_")]
        if said := [f"--{name}".replace("_", "-") for name in names if getattr(self, name) is not None]:
            msg = f"{', '.join(said)} says nothing without --judge; leave it out"
            raise ConfigurationError(msg)
        if self.match is not None:
            return Golden(self.match)
        return OwnLabel(*load_function(self.label_with or ""))

    def _judge(self, kind: JudgeKind, patience: dict[str, Any]) -> Labeller:
        from prefroute.labelling import Endpoint, PairwiseJudge, ReferenceScore, read_instructions

        if self.judge_model is None:
            msg = f"--judge {kind} needs --judge-model: the name of the model that judges"
            raise ConfigurationError(msg)
        endpoint = Endpoint(
            model=self.judge_model,
            base_url=self.judge_base_url,
            key_env=self.judge_key_env,
            max_tokens=self.judge_max_tokens,
            temperature=self.judge_temperature,
            **patience,
        )
        file = self.judge_instructions
        instructions = None if file is None else read_instructions(file, kind)
        return (PairwiseJudge if kind == "pairwise" else ReferenceScore)(endpoint, instructions=instructions)


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What the run may cost, and how it goes."""

    prices: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help='US dollars per million tokens: {"model": {"input": 2.5, "output": 10}}, as JSON.',
            exists=True,
            dir_okay=False,
        ),
    ] = None
    max_cost: Annotated[
        float | None,
        typer.Option(metavar="X", help="Most that labelling this output may cost in all, US dollars; needs --prices."),
    ] = None
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask, whatever it may cost.")] = False
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would take, and end.")] = False
    concurrency: Annotated[int, typer.Option(min=1, metavar="N", help="Calls under way at once.")] = 8
    restart: Annotated[
        bool, typer.Option("--restart", help="Make all rows anew; replies that were paid for are used again.")
    ] = False
    ask_again: Annotated[
        bool,
        typer.Option(
            "--ask-again", help="Ask anew where a reply was of no use: no answer, or a verdict not to be read."
        ),
    ] = False
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as one JSON object.")] = False

    def read_prices(self) -> Prices | None:
        """The prices of the file."""
        from prefroute.costs import Prices

        return None if self.prices is None else Prices.read(self.prices)

    def confirm(self, estimate: Estimate) -> bool:
        """Tell what is to come, and ask where it is, or may be, more than was allowed.

        Raises:
            ConfigurationError: There is something to ask, and nobody to answer.
        """
        show_estimate(estimate)
        if self.yes or estimate.is_within:
            return True
        why = "its cost is not known" if estimate.cost is None else "it may cost more than --max-cost"
        if not is_terminal():
            msg = f"{why}, and there is no terminal to ask on; add --yes to go on all the same"
            raise ConfigurationError(msg)
        return typer.confirm(f"{why}; go on?", err=True)


def is_terminal() -> bool:
    """Whether there is somebody to ask."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def _text(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        msg = f"{path} cannot be read: {error}; wanted a text file in UTF-8"
        raise DataError(msg) from error
