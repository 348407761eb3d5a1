"""`prefroute train bert` and `prefroute train causal-lm`: transformers fine-tuned, by one process or by many."""

from __future__ import annotations

import shutil
import sys
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path  # noqa: TC003 - typer reads the annotations
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from prefroute.cli._learning import JudgeScores, checked_pair, is_first, needs, read_data, shows_progress
from prefroute.cli._options import DataOptions, SeedOption, with_options
from prefroute.cli._summary import save_and_tell
from prefroute.errors import ConfigurationError
from prefroute.types import ModelPair

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prefroute.cli._learning import TrainingData
    from prefroute.routers._transformer import TransformerRouter
    from prefroute.training import BertConfig, CausalLMConfig

Labels = Literal["1", "3"]


@dataclass(frozen=True, kw_only=True)
class FineTuningOptions:
    """How a transformer is fine-tuned."""

    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Hub id or folder of the model to begin with, or of a router trained before."
        ),
    ] = None
    epochs: Annotated[float | None, typer.Option(metavar="X", help="Passes over the prompts, instead of --steps.")] = (
        None
    )
    steps: Annotated[int | None, typer.Option(min=1, metavar="N", help="Optimiser steps; else 2000.")] = None
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Prompts a step of all processes; else 16, or 8 for causal-lm."),
    ] = None
    micro_batch_size: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Prompts that a process computes at once, to save memory.")
    ] = None
    evaluations: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Checkpoints, each with its held-out loss; else 10.")
    ] = None
    learning_rate: Annotated[float | None, typer.Option(metavar="X", help="Of AdamW; else 1e-5.")] = None
    max_length: Annotated[
        int | None, typer.Option(min=8, metavar="N", help="Tokens that are read; else 512, or 2048.")
    ] = None
    gradient_checkpointing: Annotated[
        bool, typer.Option("--gradient-checkpointing", help="Less memory, a third more time.")
    ] = False
    device: Annotated[str, typer.Option(metavar="NAME", help="auto, or cpu where there is a GPU too.")] = "auto"
    checkpoints: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            file_okay=False,
            help="Folder for checkpoints; else OUTPUT.checkpoints, removed once the router is saved.",
        ),
    ] = None
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where an earlier run with the same settings was stopped.")
    ] = False

    def changes(self) -> dict[str, Any]:
        """What is given, by field of the config."""
        if self.steps is not None and self.epochs is not None:
            msg = f"--steps {self.steps} and --epochs {self.epochs:g} say two things; give one of them"
            raise ConfigurationError(msg)
        own = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            name: value for name, value in own.items() if value is not None and name not in {"checkpoints", "resume"}
        }

    def folder(self, output: Path) -> Path:
        """Where the checkpoints go."""
        named = output if output.name else output.absolute()
        return self.checkpoints or named.with_name(f"{named.name}.checkpoints")


@with_options
def bert(
    options: DataOptions,
    tuning: FineTuningOptions,
    *,
    labels: Annotated[
        Labels, typer.Option(help="1: the probability of a win; 3: of a win, a tie and a loss, as published.")
    ] = "1",
    seed: SeedOption = 0,
) -> None:
    """Fine-tune an encoder (torch, transformers)."""
    from prefroute.training import BertConfig, train_bert

    checked_pair(options)
    config = BertConfig(**tuning.changes(), labels=1 if labels == "1" else 3, seed=seed)
    _needs_transformers()
    data = read_data(options)
    _train(train_bert, data, options, tuning, config)


@with_options
def causal_lm(
    options: DataOptions,
    tuning: FineTuningOptions,
    *,
    labels: Annotated[
        int | None,
        typer.Option(min=2, max=9, metavar="N", help="Label tokens; else 3, or 5 with --score-column."),
    ] = None,
    score_column: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The data are a judge's scores of the weak model's answers, 1 to --labels, in this column.",
        ),
    ] = None,
    published: Annotated[
        bool, typer.Option("--published", help="Start from the paper's settings, not from ours.")
    ] = False,
    instruction: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", exists=True, dir_okay=False, help="What the model is asked to do, as a text file."
        ),
    ] = None,
    lora_rank: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Train low-rank updates alone (peft), which take less memory."),
    ] = None,
    seed: SeedOption = 0,
) -> None:
    """Fine-tune a causal language model (torch, transformers)."""
    from prefroute.training import CausalLMConfig, train_causal_lm

    checked_pair(options)
    changes = tuning.changes() | {"seed": seed}
    if labels is not None or (score_column is not None and not published):
        changes["labels"] = labels or 5
        changes["label_values"] = None
    changes["graded"] = score_column is not None
    if instruction is not None:
        changes["instruction"] = _text_of(instruction)
    if lora_rank is not None:
        changes["lora_rank"] = lora_rank
    config = CausalLMConfig.published(**changes) if published else CausalLMConfig(**changes)
    _needs_transformers()
    if lora_rank is not None:
        needs("peft", "training with LoRA", "train")
    scores = None if score_column is None else JudgeScores(column=score_column, most=config.labels)
    data = read_data(options, scores)
    _train(train_causal_lm, data, options, tuning, config)


def _train(
    train: Callable[..., TransformerRouter],
    data: TrainingData,
    options: DataOptions,
    tuning: FineTuningOptions,
    config: BertConfig | CausalLMConfig,
) -> None:
    """Train, save and tell."""
    folder = tuning.folder(options.output)
    with _resumable(folder):
        router = train(
            data.battles,
            pair=ModelPair(strong=options.strong, weak=options.weak),
            config=config,
            checkpoints=folder,
            resume=tuning.resume,
            progress=shows_progress(),
        )
    _finish(router, data, options, tuning, config)


@contextmanager
def _resumable(folder: Path) -> Iterator[None]:
    """Say where a run that is interrupted can go on."""
    from prefroute.training._checkpoints import last_whole, step_of

    try:
        yield
    except KeyboardInterrupt:
        last = last_whole(folder)
        if last is not None and is_first():
            sys.stderr.write(f"prefroute: --resume goes on from step {step_of(last)}, kept in {folder}\n")
        raise


def _text_of(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        msg = f"--instruction {file} cannot be read as UTF-8 text: {error}"
        raise ConfigurationError(msg) from error


def _needs_transformers() -> None:
    for package in ("torch", "transformers", "accelerate"):
        needs(package, "fine-tuning a transformer", "train")


def _finish(
    router: TransformerRouter,
    data: TrainingData,
    options: DataOptions,
    tuning: FineTuningOptions,
    config: BertConfig | CausalLMConfig,
) -> None:
    """Save and tell, by the first process alone."""
    from prefroute.training._fine_tuning import end_processes, wait_for_all

    report = router.training
    if report is None:
        msg = "the trained router has no report of its training"
        raise ConfigurationError(msg)
    learnt = {
        "model": report.model,
        "steps": report.steps,
        "best_step": report.best_step,
        "resumed_at_step": report.resumed_step,
        "log_loss_at_the_end": report.train_loss,
        "log_loss_held_out": report.validation_loss,
        "prompts_held_out": report.validation_prompts,
    }
    warnings = []
    if report.best_step == report.steps and config.evaluations > 1:
        warnings.append("the held-out loss was still falling at the last step; raise --steps or --epochs")
    if is_first():
        save_and_tell(router, data, options, learnt, warnings)
    wait_for_all()  # Others may still be reading the trained model there.
    if is_first() and tuning.checkpoints is None:
        shutil.rmtree(tuning.folder(options.output), ignore_errors=True)
    end_processes()
