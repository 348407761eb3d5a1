"""What training the two transformer routers has in common, around the fine-tuning itself."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from prefroute._torch import AUTO, as_device, as_dtype, needs_torch
from prefroute.data import Battles
from prefroute.errors import ConfigurationError, DataError
from prefroute.evaluation import validate
from prefroute.routers._transformer import (
    FineTuningReport,
    ModelFiles,
    TransformerRouter,
    keep_plain_files,
    load_parts,
)
from prefroute.training._checkpoints import BEST, refuse_earlier

if TYPE_CHECKING:
    from prefroute.training._examples import Examples
    from prefroute.training._fine_tuning import Outcome
    from prefroute.training.config import FineTuningConfig

R = TypeVar("R", bound=TransformerRouter)


class RunFolder:
    """Where the checkpoints of a run lie: a folder of the caller's, or one that goes away with the router.

    Args:
        given: The caller's.
    """

    def __init__(self, given: str | Path | None) -> None:
        self._own = _OwnFolder() if given is None else None
        self.path = self._own.path / "run" if self._own is not None else Path(given or "")

    def files(self) -> ModelFiles:
        """The trained model's files, which keep the folder."""
        return ModelFiles(self.path / BEST, keep=self._own)


class _OwnFolder:
    """A temporary folder that goes away with the last that holds this; without `TemporaryDirectory`'s complaint."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="prefroute-"))
        weakref.finalize(self, _remove, self.path, os.getpid())


def _remove(path: Path, process: int) -> None:
    if os.getpid() == process:  # A forked child that ends must not take its parent's model along.
        shutil.rmtree(path, ignore_errors=True)


def check_training(
    battles: object, config: object, wanted: type[FineTuningConfig], checkpoints: str | Path | None, *, resume: bool
) -> None:
    """Refuse early what could not be trained.

    Raises:
        DataError: `battles` are none.
        ConfigurationError: `config` or the folder cannot be used.
        MissingExtraError: A package of the extra `train` is not installed.
    """
    if not isinstance(battles, Battles):
        msg = f"battles must be Battles, as read_battles gives them, got {type(battles).__name__}"
        raise DataError(msg)
    if not isinstance(config, wanted):
        msg = f"config must be a {wanted.__name__}, got {type(config).__name__}; None for the defaults"
        raise ConfigurationError(msg)
    needs_torch("fine-tuning", "torch", "transformers", "accelerate", extra="train")
    if resume and checkpoints is None:
        msg = "resume=True needs checkpoints=, the folder of the run to resume"
        raise ConfigurationError(msg)
    if checkpoints is None and process_count() > 1:
        msg = "training by several processes needs checkpoints=, a folder that all of them see"
        raise ConfigurationError(msg)
    if checkpoints is not None and not resume and is_first_process():
        refuse_earlier(Path(checkpoints))


def process_count() -> int:
    """How many processes a launcher such as torchrun or accelerate has started for this run."""
    try:
        return max(1, int(os.environ.get("WORLD_SIZE", "1")))
    except ValueError:
        return 1


def is_first_process() -> bool:
    """Whether this is the process that speaks and writes; always so where there is one."""
    return process_count() == 1 or os.environ.get("RANK", "0") == "0"


def report_of(config: FineTuningConfig, train: Examples, held_out: Examples, outcome: Outcome) -> FineTuningReport:
    """What came out of a run."""
    return FineTuningReport(
        model=config.model,
        prompts=len(train.prompts),
        validation_prompts=len(held_out.prompts),
        steps=outcome.steps,
        best_step=outcome.best_step,
        resumed_step=outcome.resumed_step,
        train_loss=outcome.train_loss,
        validation_loss=outcome.validation_loss,
    )


def completed(router: R, folder: RunFolder, battles: Battles, held_out: Examples, *, graded: bool = False) -> R:
    """Give a trained router its files, its threshold, and what it recovers of the prompts held out.

    Args:
        router: The router.
        folder: Of its run.
        battles: All that it was trained with.
        held_out: The prompts held out.
        graded: Whether outcomes are grades: the best one then means that the strong model gains nothing, not that it
            loses.

    Returns:
        The router.
    """
    scores = router.win_probability(held_out.prompts)
    router._files = folder.files()  # noqa: SLF001 - of this package's own
    router.threshold = float(np.median(scores))
    outcomes = (1.0 + held_out.outcomes) / 2.0 if graded else held_out.outcomes
    router.validation = validate(scores, outcomes, [len(prompt) for prompt in held_out.prompts])
    router.note_training_prompts(battles.for_pair(router.pair).prompts)
    return router


def settings_of(config: FineTuningConfig, **more: Any) -> dict[str, Any]:
    """The settings of a run as plain values."""
    from dataclasses import asdict

    return asdict(config) | more


def save_trained(trainer: Any, tokenizer: Any, folder: Path) -> None:
    """Write the model that a trainer holds, which may be spread over many processes; called by all of them."""
    trainer.save_model(str(folder))
    if trainer.args.should_save:
        tokenizer.save_pretrained(folder)
        keep_plain_files(folder)


def load_plainly() -> None:
    """Let models be loaded whole from here on, after a launcher has had them spread over processes."""
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    # Else the library spreads what it loads as DeepSpeed's stage 3 does, and one process alone waits for the others.
    unset_hf_deepspeed_config()  # type: ignore[no-untyped-call]
    # Else only the first process of a machine reads weights, and the others keep what was in memory.
    os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"


def reloaded(kind: str, folder: RunFolder, config: FineTuningConfig) -> tuple[Any, Any]:
    """The trained model and its tokenizer, read again as a saved router is: with the numbers it will serve in."""
    device = as_device(config.device)
    return load_parts(kind, folder.path / BEST, device=device, dtype=as_dtype(AUTO, device))


def release() -> None:
    """Give back what training has held on to, before the model is loaded again to serve."""
    import gc

    import torch

    load_plainly()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
