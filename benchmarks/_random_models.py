"""Models of random weights in the shapes that are served, for measuring speed: what they say means nothing."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import transformers
from transformer_quality import minilm

from prefroute._torch import AUTO, as_dtype, torch_dtype
from prefroute._transformers import load_model, load_tokenizer, quiet_loading
from prefroute.compat.routellm import DEFAULT_PAIR
from prefroute.routers._prompt_format import INSTRUCTION, QUESTION, PromptFormat, build_format
from prefroute.routers._transformer import save_model_files
from prefroute.routers.bert import BertRouter
from prefroute.routers.causal_lm import (
    MAX_LENGTH,
    PUBLISHED_VALUES,
    CausalLMRouter,
    QuestionEncoder,
    label_ids,
    label_tokens,
)
from prefroute.testing import write_tiny_encoder, write_tiny_llama

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

BERT_LABELS = 3
HEAD_STD, LABEL_STD, BODY_STD = 0.3, 0.1, 0.06
"""Of random weights: large enough that P varies over prompts."""

LABELS = label_tokens(len(PUBLISHED_VALUES))
VOCABULARY = 8192
INSTRUCTION_TOKENS, QUERY_TOKENS = 210, 300
"""Of the input that the causal LM reads, and what the whole comes to."""

LLAMA_40M: dict[str, Any] = {
    "vocabulary": VOCABULARY,
    "hidden_size": 512,
    "intermediate_size": 1920,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "initializer_range": BODY_STD,
}
LLAMA_3_8B: dict[str, Any] = {
    "vocab_size": 128_261,
    "hidden_size": 4096,
    "intermediate_size": 14_336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "max_position_embeddings": 8192,
}
XLM_ROBERTA_BASE: dict[str, Any] = {
    "vocab_size": 250_002,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 514,
    "type_vocab_size": 1,
}


def write_bert(folder: Path) -> None:
    """Write all-MiniLM-L6-v2 with a random head of win, tie and loss, as a published checkpoint is laid out."""
    model = load_model(
        "AutoModelForSequenceClassification",
        minilm(),
        device="cpu",
        dtype="float32",
        complete=False,
        num_labels=BERT_LABELS,
    )
    with torch.no_grad():
        model.classifier.weight.normal_(std=HEAD_STD, generator=torch.Generator().manual_seed(0))
    save_model_files(model, load_tokenizer(minilm()), folder)


def small_llama(folder: Path, texts: Sequence[str]) -> CausalLMRouter:
    """A causal-LM router on the CPU around a Llama of some 40 M weights in float32."""
    write_tiny_llama(folder, texts=texts, **LLAMA_40M)
    tokenizer = labelled_tokenizer(folder)
    model = load_model("AutoModelForCausalLM", folder, device="cpu", dtype="float32", complete=True)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    rows = torch.randn((len(LABELS), model.config.hidden_size), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        model.get_output_embeddings().weight[label_ids(tokenizer, LABELS)] = LABEL_STD * rows
    return causal_router(model, tokenizer)


def served_llama(folder: Path, texts: Sequence[str], device: str, **sizes: Any) -> CausalLMRouter:
    """A causal-LM router around a Llama of these sizes, made where it computes."""
    write_tiny_llama(folder, texts=texts, vocabulary=VOCABULARY)
    model = _made("AutoModelForCausalLM", transformers.LlamaConfig(**sizes), device)
    return causal_router(model, labelled_tokenizer(folder))


def served_bert(folder: Path, texts: Sequence[str], device: str, **sizes: Any) -> BertRouter:
    """A BERT router around an XLM-RoBERTa of these sizes, made where it computes."""
    write_tiny_encoder(folder, texts=texts, vocabulary=VOCABULARY)
    tokenizer = load_tokenizer(folder)
    settings: Any = transformers.XLMRobertaConfig
    config = settings(pad_token_id=tokenizer.pad_token_id, num_labels=BERT_LABELS, **sizes)
    model = _made("AutoModelForSequenceClassification", config, device)
    return BertRouter(model=model, tokenizer=tokenizer, pair=DEFAULT_PAIR)


def _made(kind: str, config: Any, device: str) -> Any:
    dtype = torch_dtype(as_dtype(AUTO, device))
    with quiet_loading(), torch.device(device):
        return getattr(transformers, kind).from_config(config, dtype=dtype).eval()


def labelled_tokenizer(folder: Path) -> Any:
    """The tokenizer in a folder, the label tokens added."""
    tokenizer = load_tokenizer(folder)
    tokenizer.add_tokens(list(LABELS), special_tokens=True)
    return tokenizer


def causal_router(model: Any, tokenizer: Any) -> CausalLMRouter:
    """A router with an instruction of some `INSTRUCTION_TOKENS` tokens, its labels counting as published."""
    return CausalLMRouter(
        model=model,
        tokenizer=tokenizer,
        prompt_format=_long_format(tokenizer),
        labels=LABELS,
        pair=DEFAULT_PAIR,
        label_values=PUBLISHED_VALUES,
    )


def encoder_of(router: CausalLMRouter) -> QuestionEncoder:
    """What gives the tokens that the router reads, and the instruction's, `prefix`."""
    return QuestionEncoder(router.tokenizer, router.prompt_format, router.labels, router.max_length)


def _long_format(tokenizer: Any) -> PromptFormat:
    """The usual instruction, its words over and over until `INSTRUCTION_TOKENS` tokens stand before the question."""
    words = INSTRUCTION.replace("{labels}", str(len(LABELS))).split()

    def of_words(count: int) -> PromptFormat:
        text = " ".join(words[place % len(words)] for place in range(count))
        return build_format(tokenizer, kind="plain", instruction=text, question=QUESTION)

    def tokens(count: int) -> int:
        return len(QuestionEncoder(tokenizer, of_words(count), LABELS, MAX_LENGTH).prefix)

    return of_words(bisect_left(range(INSTRUCTION_TOKENS), INSTRUCTION_TOKENS, lo=1, key=tokens))


def questions_of(router: CausalLMRouter, prompts: Sequence[str], count: int) -> list[str]:
    """The prompts that with the instruction are nearest to `QUERY_TOKENS` tokens."""
    lengths = np.array([len(row) for row in encoder_of(router)(prompts)])
    return [prompts[place] for place in np.argsort(abs(lengths - QUERY_TOKENS), kind="stable")[:count]]
