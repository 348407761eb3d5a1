"""Fine-tuning by the transformers library's `Trainer`: one process or many, resumable, best checkpoint kept."""

from __future__ import annotations

import inspect
import math
import random
import shutil
from contextlib import contextmanager
from functools import cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from prefroute._transformers import quiet_loading
from prefroute.errors import ConfigurationError, ConvergenceError
from prefroute.training._checkpoints import BEST, open_run, step_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import torch
    from numpy.typing import NDArray
    from transformers import Trainer, TrainingArguments

    from prefroute.training._examples import Examples
    from prefroute.training.config import FineTuningConfig

_HELD_OUT = "log_loss"
"""What the library calls the mean loss of the held-out prompts, which chooses the best checkpoint."""

_SPREAD = 3
"""The stage of DeepSpeed's ZeRO that spreads the weights themselves."""

_STATE = "trainer_state.json"

_LOGS = 20
"""Times that the training loss is told between the beginning and the end."""


class Rows:
    """Examples as tokens, as a data loader takes them.

    Args:
        tokens: Of each of n prompts.
        examples: Their targets and weights.
    """

    def __init__(self, tokens: Sequence[Sequence[int]], examples: Examples) -> None:
        self.tokens = tokens
        self.examples = examples

    def __len__(self) -> int:
        """Number of examples."""
        return len(self.tokens)

    def __getitem__(self, row: int) -> dict[str, Any]:
        """One example."""
        return {
            "tokens": self.tokens[row],
            "targets": self.examples.targets[row],
            "weights": self.examples.weights[row],
        }


class Task(NamedTuple):
    """What is to be learnt, by which model.

    Attributes:
        model: A `PreTrainedModel`, or one that peft has wrapped.
        train: To learn from.
        held_out: To choose the best checkpoint by.
        inputs: Makes the model's keyword arguments of the tokens of a batch; `last`, if there, is the position of each
            row's logits.
        options: Further keyword arguments of each call of the model.
        logits: Takes the logits that the loss is over from a row's, the labels' first, shape (n, k) or more.
    """

    model: Any
    train: Rows
    held_out: Rows
    inputs: Callable[[list[Sequence[int]]], dict[str, Any]]
    options: dict[str, Any]
    logits: Callable[[Any], torch.Tensor]


class Outcome(NamedTuple):
    """How training went; see `FineTuningReport`."""

    steps: int
    resumed_step: int
    best_step: int
    train_loss: float
    validation_loss: float


def log_losses(logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Weighted log loss of each soft label.

    Args:
        logits: Shape (n, k) or more, the labels' first; of one label, that of a win.
        targets: Shape (n, k).
        weights: Of mean 1 over all examples, shape (n,).

    Returns:
        Shape (n,), in nats.
    """
    import torch

    wide = logits.float()
    if wide.shape[1] == 1:
        losses = torch.nn.functional.binary_cross_entropy_with_logits(wide[:, 0], targets[:, 0], reduction="none")
    else:
        # -sum over the labels of target * log share; tokens beyond the labels have no target.
        shares = wide.log_softmax(dim=1)[:, : targets.shape[1]]
        losses = -(targets * shares).sum(dim=1)
    return losses * weights


@cache
def _trainer_class() -> Any:
    """Defined once it is needed, for it inherits from what importing this module must not import."""
    import torch
    from transformers import Trainer

    class SoftLabelTrainer(Trainer):
        """A `Trainer` whose loss is the weighted log loss of soft labels."""

        def __init__(self, *, task: Task, **given: Any) -> None:
            super().__init__(model=task.model, train_dataset=task.train, eval_dataset=task.held_out, **given)
            self._task = task
            # The loss is a mean over the batch, so the library has to divide it by the parts of a step.
            self.model_accepts_loss_kwargs = False

        def _get_train_sampler(self, *_: Any, **__: Any) -> Any:
            """Whole batches alone in every pass, however they are parted between processes and micro-batches.

            Several processes would fill up a last part of one with prompts that one process would not repeat.
            """
            size = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
            rows: Rows = self._task.train
            return torch.utils.data.RandomSampler(rows, num_samples=len(rows) // size * size or len(rows))

        def compute_loss(
            self,
            model: Any,
            inputs: dict[str, Any],
            return_outputs: bool = False,  # noqa: FBT001, FBT002 - the library's signature
            num_items_in_batch: Any = None,  # noqa: ARG002 - the library's signature
        ) -> Any:
            """The mean loss of a batch."""
            losses = self._losses(model, inputs)
            return (losses.mean(), {"losses": losses}) if return_outputs else losses.mean()

        def _losses(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
            given = dict(inputs)
            targets, weights = given.pop("targets"), given.pop("weights")
            last = given.pop("last", None)
            logits = model(**given, **self._task.options).logits
            if last is not None:
                logits = logits[torch.arange(len(last), device=last.device), last]
            return log_losses(self._task.logits(logits), targets, weights)

        def prediction_step(self, model: Any, inputs: dict[str, Any], *_: Any, **__: Any) -> Any:
            """The loss of each held-out prompt; the library leaves out those that several processes repeat."""
            with torch.no_grad(), self.compute_loss_context_manager():
                losses = self._losses(model, self._prepare_inputs(inputs)).detach()
            return losses.mean(), losses, losses

    return SoftLabelTrainer


@cache
def _last_step_class() -> Any:
    from transformers import TrainerCallback

    class LastStep(TrainerCallback):
        """Has the last step measured too, whose number need not be a multiple."""

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
            if state.global_step >= state.max_steps:
                control.should_evaluate = control.should_save = True

    return LastStep


@cache
def _progress_class() -> Any:
    from transformers import TrainerCallback

    class FineTuningProgress(TrainerCallback):
        """A bar on stderr with both losses."""

        def __init__(self) -> None:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
            self._bar = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True))
            self._task: Any = None
            self._losses: dict[str, float] = {}

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
            self._bar.start()
            self._task = self._bar.add_task("Fine-tuning", total=state.max_steps, completed=state.global_step)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
            self._bar.update(self._task, completed=state.global_step)

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:  # noqa: ARG002
            names = {"loss": "loss", f"eval_{_HELD_OUT}": "held out"}
            self._losses |= {names[name]: value for name, value in (logs or {}).items() if name in names}
            shown = ", ".join(f"{name} {value:.4f}" for name, value in self._losses.items())
            self._bar.update(self._task, description=f"Fine-tuning: {shown}" if shown else "Fine-tuning")

        def stop(self) -> None:
            """Take the bar's hands off the terminal, however training ended."""
            self._bar.stop()

    return FineTuningProgress


def fine_tune(
    task: Task,
    config: FineTuningConfig,
    folder: Path,
    *,
    run: dict[str, Any],
    resume: bool,
    progress: bool,
    save_best: Callable[[Trainer, Path], None],
) -> Outcome:
    """Train, keep the weights of the least held-out loss, and write them to `best` in the folder of the run.

    Args:
        task: What is to be learnt.
        config: The settings.
        folder: For the checkpoints; the same one for all processes.
        run: As `run_of` gives it.
        resume: Whether to go on from the last checkpoint there.
        progress: Whether the first process shows a bar on stderr.
        save_best: Writes the trainer's model to a folder; called by every process.

    Returns:
        How it went.

    Raises:
        ConfigurationError: The batch cannot be shared between the processes, or the run cannot be resumed.
        ConvergenceError: The held-out loss was not a number at any checkpoint.
    """
    import torch
    from transformers.trainer_callback import PrinterCallback, TrainerState

    arguments = _arguments(config, folder, len(task.train))
    _keep_names(task.model)
    together = arguments.world_size > 1
    last = _open_together(folder, run, resume=resume) if together else open_run(folder, run, resume=resume)
    last_step = _last_step_class()()
    bar = _progress_class()() if progress and arguments.process_index == 0 else None
    with quiet_loading():
        trainer = _trainer_class()(
            task=task,
            args=arguments,
            data_collator=_collator(task),
            compute_metrics=lambda found: {_HELD_OUT: float(np.mean(found.predictions))},
            callbacks=[last_step] if bar is None else [last_step, bar],
        )
        trainer.pop_callback(PrinterCallback)
        _check_gathering(trainer)
        try:
            if last is not None and _is_finished(trainer, last):
                trainer.state = TrainerState.load_from_json(str(last / _STATE))
                trainer._load_from_checkpoint(str(last))  # noqa: SLF001 - `train` would make one more step
            else:
                trainer.train(resume_from_checkpoint=None if last is None else str(last))
        except torch.OutOfMemoryError as error:
            reason = (str(error).splitlines() or [""])[0]
            msg = (
                f"training ran out of memory ({reason}); give a smaller micro_batch_size, "
                "gradient_checkpointing=True, a shorter max_length, or LoRA"
            )
            raise ConfigurationError(msg) from error
        finally:
            if bar is not None:
                bar.stop()
        state = trainer.state
        best_loss = math.nan if state.best_metric is None else float(state.best_metric)
        if not state.best_global_step or not math.isfinite(best_loss):
            msg = "the held-out loss was not a number at any checkpoint; give a lower learning rate"
            raise ConvergenceError(msg)
        best = folder / BEST
        if arguments.process_index == 0:
            shutil.rmtree(best, ignore_errors=True)
        wait_for_all()
        save_best(trainer, best)
        wait_for_all()
    losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
    return Outcome(
        steps=int(state.global_step),
        resumed_step=0 if last is None else step_of(last),
        best_step=int(state.best_global_step),
        train_loss=float(losses[-1]) if losses else math.nan,
        validation_loss=best_loss,
    )


def _is_finished(trainer: Trainer, last: Path) -> bool:
    """Whether a run was at its end when its last checkpoint, which is then also the best, was written."""
    spread = trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled
    return not spread and step_of(last) >= trainer.args.max_steps


def _check_gathering(trainer: Trainer) -> None:
    """Refuse to spread weights over processes in a way that leaves no whole model at the end.

    Raises:
        ConfigurationError: The launcher's settings do so; says which to change.
    """
    accelerator = trainer.accelerator
    fsdp = getattr(accelerator.state, "fsdp_plugin", None) if trainer.is_fsdp_enabled else None
    if fsdp is not None and "FULL" not in str(fsdp.state_dict_type):
        msg = f"FSDP is to save {fsdp.state_dict_type}, of which no router can be made; set FULL_STATE_DICT"
        raise ConfigurationError(msg)
    if trainer.is_deepspeed_enabled:
        settings = accelerator.state.deepspeed_plugin.deepspeed_config.get("zero_optimization", {})
        if settings.get("stage") == _SPREAD and not settings.get("stage3_gather_16bit_weights_on_model_save"):
            msg = "DeepSpeed's stage 3 is to save no whole model; set zero3_save_16bit_model to true"
            raise ConfigurationError(msg)


def _keep_names(model: Any) -> None:
    """Let checkpoints name weights as the model does.

    transformers 5 writes some under older names (LayerNorm.gamma for LayerNorm.weight) and its `Trainer` reads them
    back by name, passing over those it does not know: a resumed run and the best checkpoint then lacked them.
    """
    given = inspect.signature(type(model).save_pretrained).parameters
    if "save_original_format" in given:
        model.save_pretrained = partial(model.save_pretrained, save_original_format=False)


def wait_for_all() -> None:
    """Wait until every process of the run is here; at once where there is one."""
    import torch

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()


def end_processes() -> None:
    """Part from the other processes of the run, once nothing more is to be done together."""
    import torch

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from this seed whatever is drawn from the process's own generators, and give them back as they were."""
    import torch

    states = random.getstate(), np.random.get_state()  # noqa: NPY002 - the library draws from these
    devices = list(range(torch.cuda.device_count()))
    with torch.random.fork_rng(devices=devices):
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - as above
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])  # noqa: NPY002 - as above


def _arguments(config: FineTuningConfig, folder: Path, examples: int) -> TrainingArguments:
    import torch
    from transformers import TrainingArguments

    # Said outright even where there is nothing else: the library then lets several processes share CPUs.
    use_cpu = config.device == "cpu" or not torch.accelerator.is_available()
    # The library takes the number of processes from what a launcher has set; the rest below depends on it.
    probe = TrainingArguments(output_dir=str(folder), use_cpu=use_cpu, report_to="none")
    world = probe.world_size
    if config.batch_size % world:
        msg = f"batch_size {config.batch_size} cannot be shared by {world} processes; give a multiple of {world}"
        raise ConfigurationError(msg)
    share = config.batch_size // world
    micro = min(share, config.micro_batch_size or share)
    if share % micro:
        msg = (
            f"micro_batch_size {micro} does not divide the share of {share} prompts that each of {world} processes has"
        )
        raise ConfigurationError(msg)
    a_pass = max(1, examples // config.batch_size)
    steps = config.steps if config.epochs is None else max(1, math.ceil(config.epochs * a_pass))
    every = math.ceil(steps / config.evaluations)
    on_gpu = probe.device.type == "cuda"
    rises = config.schedule == "constant" and config.warmup > 0
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=micro,
        per_device_eval_batch_size=max(micro, min(16, 4 * micro)),
        gradient_accumulation_steps=share // micro,
        learning_rate=config.learning_rate,
        lr_scheduler_type="constant_with_warmup" if rises else config.schedule,
        warmup_steps=round(config.warmup * steps),
        weight_decay=config.weight_decay,
        gradient_checkpointing=config.gradient_checkpointing,
        bf16=on_gpu and torch.cuda.is_bf16_supported(including_emulation=False),
        eval_strategy="steps",
        eval_steps=every,
        save_strategy="steps",
        save_steps=every,
        save_total_limit=1,  # and the best
        load_best_model_at_end=True,
        metric_for_best_model=_HELD_OUT,
        greater_is_better=False,
        logging_steps=max(1, steps // _LOGS),
        label_names=["targets"],
        remove_unused_columns=False,
        seed=config.seed,
        data_seed=config.seed,
        use_cpu=use_cpu,
        dataloader_pin_memory=on_gpu,
        disable_tqdm=True,
        report_to="none",
    )
    # Several GPUs without a launcher: the library would spread the batch over them by threads and enlarge it.
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1  # noqa: SLF001 - there is no other way to say so
    return arguments


def _open_together(folder: Path, run: dict[str, Any], *, resume: bool) -> Path | None:
    """The first process opens the folder; what it finds, or what is wrong, all of them get."""
    import torch

    found: list[Any] = [None]
    if torch.distributed.get_rank() == 0:
        try:
            found = [open_run(folder, run, resume=resume)]
        except ConfigurationError as error:
            found = [error]
    torch.distributed.broadcast_object_list(found, src=0)
    if isinstance(found[0], ConfigurationError):
        raise found[0]
    last: Path | None = found[0]
    return last


def _collator(task: Task) -> Callable[[list[dict[str, Any]]], dict[str, Any]]:
    import torch

    def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
        targets: NDArray[np.float32] = np.stack([row["targets"] for row in rows])
        weights = np.array([row["weights"] for row in rows], dtype=np.float32)
        inputs = task.inputs([row["tokens"] for row in rows])
        return inputs | {"targets": torch.from_numpy(targets), "weights": torch.from_numpy(weights)}

    return collate
