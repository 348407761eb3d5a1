"""Training of the BERT classifier (RouteLLM, arXiv 2406.18665, section 4.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefroute._transformers import load_config, load_model, load_tokenizer
from prefroute.errors import ConfigurationError
from prefroute.inputs import as_pair
from prefroute.routers.bert import KIND, BertRouter, Encoder, bert_inputs, positions_of
from prefroute.training._checkpoints import run_of
from prefroute.training._examples import examples_of, held_out
from prefroute.training._fine_tuned import (
    RunFolder,
    check_training,
    completed,
    release,
    reloaded,
    report_of,
    save_trained,
    settings_of,
)
from prefroute.training.config import BertConfig

if TYPE_CHECKING:
    from pathlib import Path

    from prefroute.data import Battles
    from prefroute.types import ModelPair


def train_bert(
    battles: Battles,
    *,
    pair: ModelPair,
    config: BertConfig | None = None,
    checkpoints: str | Path | None = None,
    resume: bool = False,
    progress: bool = False,
) -> BertRouter:
    """Fine-tune an encoder to tell P(strong wins) from the prompt.

    All weights are trained, by the transformers library's `Trainer`; the weights of the least held-out loss are kept.
    Under `torchrun` or `accelerate launch` every process calls this with the same arguments and gets the same router;
    the result is that of one process, up to rounding and dropout.

    Args:
        battles: Battles; those of other pairs are left out.
        pair: The two models.
        config: The settings; None for the paper's.
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
        MissingExtraError: torch, transformers or accelerate is not installed.
    """
    config = BertConfig() if config is None else config
    check_training(battles, config, BertConfig, checkpoints, resume=resume)
    examples = examples_of(battles, as_pair(pair), config.labels)
    train, validation = held_out(examples, config.validation_share, config.seed)

    from prefroute.training._fine_tuning import Rows, Task, fine_tune, seeded

    load_config(config.model, revision=config.revision)  # First, for what it says where there is no model.
    tokenizer = load_tokenizer(config.model, revision=config.revision)
    if tokenizer.pad_token_id is None:
        msg = (
            f"the model {config.model!r} has no padding token, so it is no encoder; train_causal_lm is for such models"
        )
        raise ConfigurationError(msg)
    folder = RunFolder(checkpoints)
    with seeded(config.seed):
        model = load_model(
            KIND,
            config.model,
            device="cpu",
            dtype="float32",
            complete=False,
            revision=config.revision,
            num_labels=config.labels,
        )
        length = min(config.max_length, positions_of(model))
        encoder = Encoder(tokenizer, length)
        task = Task(
            model=model,
            train=Rows(encoder(train.prompts), train),
            held_out=Rows(encoder(validation.prompts), validation),
            inputs=lambda rows: bert_inputs(rows, encoder.pad, "cpu"),
            options={},
            logits=lambda logits: logits,
        )

        del model
        outcome = fine_tune(
            task,
            config,
            folder.path,
            run=run_of(settings_of(config, router="bert"), train),
            resume=resume,
            progress=progress,
            save_best=lambda trainer, best: save_trained(trainer, tokenizer, best),
        )
        del task
    release()
    fitted, words = reloaded(KIND, folder, config)
    router = BertRouter(
        model=fitted,
        tokenizer=words,
        pair=pair,
        max_length=length,
        training=report_of(config, train, validation, outcome),
    )
    return completed(router, folder, battles, validation)
