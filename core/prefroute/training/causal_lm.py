"""Training of the causal LLM classifier (RouteLLM, arXiv 2406.18665, section 4.1; labels as in anyscale/llm-router)."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from prefroute._torch import AUTO, as_device, as_dtype, needs_torch
from prefroute._transformers import load_config, load_model, load_tokenizer
from prefroute.inputs import as_pair
from prefroute.routers._last_token import right_padded, takes
from prefroute.routers._prompt_format import INSTRUCTION, build_format
from prefroute.routers._transformer import save_model_files
from prefroute.routers.causal_lm import KIND, CausalLMRouter, QuestionEncoder, label_ids, label_tokens
from prefroute.training._checkpoints import run_of
from prefroute.training._examples import balanced_rows, examples_of, held_out
from prefroute.training._fine_tuned import (
    RunFolder,
    check_training,
    completed,
    load_plainly,
    release,
    reloaded,
    report_of,
    save_trained,
    settings_of,
)
from prefroute.training.config import CausalLMConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import torch

    from prefroute._torch import Dtype
    from prefroute.data import Battles
    from prefroute.types import ModelPair

ADAPTER = "adapter"
"""Where in the folder of a run the trained low-rank updates lie, before they are added to the weights."""


def train_causal_lm(
    battles: Battles,
    *,
    pair: ModelPair,
    config: CausalLMConfig | None = None,
    checkpoints: str | Path | None = None,
    resume: bool = False,
    progress: bool = False,
) -> CausalLMRouter:
    """Fine-tune a causal language model to say, as one token, how well the weak model will answer.

    Label tokens `[[1]]` to `[[k]]` are added to the vocabulary, each beginning as the mean of the tokens that its text
    was cut into before. The loss is that of the label token alone, at the position where the router reads it. The
    weights of the least held-out loss are kept. Judge scores of 1 to 5 are learnt with
    `reference_battles(prompts, scores, pair, graded=True)` and `CausalLMConfig(labels=5, graded=True)`. Under
    `torchrun` or `accelerate launch` every process calls this with the same arguments and gets the same router.

    Args:
        battles: Battles; those of other pairs are left out.
        pair: The two models.
        config: The settings; None for the defaults, which need a GPU for their model of 8 billion weights.
        checkpoints: Folder for the checkpoints of this run, which stay there; several processes need the same one.
            None for a temporary one.
        resume: Go on where an earlier run in that folder was stopped; begin where there is none.
        progress: Whether to show a progress bar on stderr.

    Returns:
        The router. Its threshold is the median of its scores of the held-out prompts, which sends half of such
        prompts to the strong model; its `training` says how training went.

    Raises:
        DataError: There is nothing to learn from.
        ConfigurationError: `pair`, `config` or the folder cannot be used, or the model cannot be loaded.
        ConvergenceError: The held-out loss was never a number.
        MissingExtraError: torch, transformers, accelerate or (with LoRA) peft is not installed.
    """
    config = CausalLMConfig() if config is None else config
    check_training(battles, config, CausalLMConfig, checkpoints, resume=resume)
    if config.lora_rank is not None:
        needs_torch("training with LoRA", "peft", extra="train")
    train, validation = held_out(
        examples_of(battles, as_pair(pair), config.labels), config.validation_share, config.seed
    )
    learnt = train.at(balanced_rows(train.targets, config.seed)) if config.balanced else train

    from prefroute.training._fine_tuning import Rows, Task, fine_tune, seeded

    folder = RunFolder(checkpoints)
    base = _Base(config)
    labels = label_tokens(config.labels)
    encoder = QuestionEncoder(base.tokenizer, base.prompt_format, labels, base.max_length)
    with seeded(config.seed):
        model = base.load()
        if config.lora_rank is not None:
            model = _with_updates(model, config, label_ids(base.tokenizer, labels))
        if config.gradient_checkpointing:
            model.enable_input_require_grads()
        task = Task(
            model=model,
            train=Rows(encoder(learnt.prompts), learnt),
            held_out=Rows(encoder(validation.prompts), validation),
            inputs=partial(right_padded, keeps_some=takes(base_model_of(model), "logits_to_keep")),
            options={"use_cache": False},
            logits=_label_logits(config, label_ids(base.tokenizer, labels)),
        )
        del model
        outcome = fine_tune(
            task,
            config,
            folder.path,
            run=run_of(settings_of(config, router="causal-lm"), learnt),
            resume=resume,
            progress=progress,
            save_best=base.saver(folder.path),
        )
        del task
    release()
    fitted, words = reloaded(KIND, folder, config)
    router = CausalLMRouter(
        model=fitted,
        tokenizer=words,
        prompt_format=base.prompt_format,
        labels=labels,
        pair=pair,
        label_values=config.label_values,
        max_length=base.max_length,
        training=report_of(config, train, validation, outcome),
    )
    return completed(router, folder, battles, validation, graded=config.graded)


class _Base:
    """The model before training: with label tokens, which need not be trained to be told apart."""

    def __init__(self, config: CausalLMConfig) -> None:
        self._settings = config
        positions = getattr(load_config(config.model, revision=config.revision), "max_position_embeddings", None)
        self.max_length = min(config.max_length, int(positions or config.max_length))
        self.tokenizer = load_tokenizer(config.model, revision=config.revision)
        labels = label_tokens(config.labels)
        # What each label's text is cut into while it is no token yet.
        self._pieces = [list(self.tokenizer(label, add_special_tokens=False)["input_ids"]) for label in labels]
        instruction = INSTRUCTION.replace("{labels}", str(config.labels))
        self.prompt_format = build_format(
            self.tokenizer,
            kind=config.prompt_format,
            instruction=instruction if config.instruction is None else config.instruction,
            question=config.question,
        )
        self.tokenizer.add_tokens(list(labels), special_tokens=True)
        self._labels = label_ids(self.tokenizer, labels)
        self._dtype: Dtype = "float32"
        if config.lora_rank is not None:
            # Only the updates are trained, in float32; the weights below them need no more bits than they are served.
            device = as_device(config.device)
            self._dtype = as_dtype(AUTO, device) if device != "cpu" else "float32"

    def load(self) -> Any:
        """Load it; the same each time."""
        from prefroute.training._fine_tuning import seeded

        with seeded(self._settings.seed):
            model = load_model(
                KIND,
                self._settings.model,
                device="cpu",
                dtype=self._dtype,
                complete=True,
                revision=self._settings.revision,
            )
            add_label_rows(model, self._labels, self._pieces)
        return model

    def saver(self, folder: Path) -> Callable[[Any, Path], None]:
        """What writes the trained model to a folder: plain weights, low-rank updates added."""
        if self._settings.lora_rank is None:
            return lambda trainer, best: save_trained(trainer, self.tokenizer, best)

        def merge(trainer: Any, best: Path) -> None:
            trainer.save_model(str(folder / ADAPTER))
            if not trainer.args.should_save:
                return
            from peft import PeftModel

            # From the files: a model that is spread over several GPUs could not be added up in place.
            load_plainly()
            merged = PeftModel.from_pretrained(self.load(), folder / ADAPTER).merge_and_unload()
            save_model_files(merged, self.tokenizer, best)

        return merge


def add_label_rows(model: Any, labels: Sequence[int], pieces: Sequence[Sequence[int]]) -> None:
    """Make room for the label tokens and begin each as the mean of the tokens its text was cut into.

    The labels then begin nearly alike, each leaning to its own digit, and none is far from what the model knows.

    Args:
        model: A causal language model.
        labels: Numbers of the label tokens.
        pieces: Tokens of each label's text before it was a token.
    """
    import torch

    inputs = model.get_input_embeddings()
    if max(labels) >= inputs.weight.shape[0]:
        model.resize_token_embeddings(max(labels) + 1, mean_resizing=False)
    tables = (model.get_input_embeddings().weight, model.get_output_embeddings().weight)
    with torch.no_grad():
        for weight in tables[:1] if tables[0] is tables[1] else tables:
            for label, own in zip(labels, pieces, strict=True):
                if list(own) != [label]:  # A label that was a token already keeps what it has.
                    weight[label] = weight[list(own)].mean(dim=0)


def base_model_of(model: Any) -> Any:
    """The model itself, within what peft has wrapped around it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _with_updates(model: Any, config: CausalLMConfig, labels: list[int]) -> Any:
    """Wrap a model so that only low-rank updates of its linear layers are trained, and the label tokens' rows."""
    from peft import LoraConfig, get_peft_model

    tied = model.get_input_embeddings().weight is model.get_output_embeddings().weight
    table = model.get_input_embeddings() if tied else model.get_output_embeddings()
    name = next(name for name, module in model.named_modules() if module is table).rpartition(".")[2]
    settings = LoraConfig(
        r=config.lora_rank or 1,
        lora_alpha=config.lora_alpha,
        target_modules="all-linear",
        trainable_token_indices={name: labels},
        task_type="CAUSAL_LM",
    )
    wrapped = get_peft_model(model, settings)
    # Else every checkpoint would hold all rows of the vocabulary, because it has grown; the labels' rows are in it.
    wrapped.save_pretrained = partial(wrapped.save_pretrained, save_embedding_layers=False)  # type: ignore[method-assign]
    return wrapped


def _label_logits(config: CausalLMConfig, labels: list[int]) -> Callable[[Any], torch.Tensor]:
    """Takes the logits that the loss is over."""

    def of_labels(logits: Any) -> torch.Tensor:
        found: torch.Tensor = logits[:, labels]
        return found

    def of_vocabulary(logits: Any) -> torch.Tensor:
        # The labels first, so that targets over them need only zeros behind.
        others = np.setdiff1d(np.arange(logits.shape[-1]), labels)
        found: torch.Tensor = logits[:, np.concatenate([labels, others])]
        return found

    return of_labels if config.loss == "labels" else of_vocabulary
