"""How a causal language model is asked about a prompt: text before it and text behind it, kept as data."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

from prefroute.errors import ConfigurationError

Format: TypeAlias = Literal["auto", "llama-3", "chat", "plain"]

INSTRUCTION = (
    "Estimate, before it is asked, how well a small language model will answer the question below, compared with a "
    "much stronger model. Consider what the question takes: knowledge of facts, reasoning over several steps, "
    "calculation, code, care with wording, and whether it can be understood at all. Do not answer the question. "
    "Reply with one rating from [[1]] to [[{labels}]], where [[1]] means that the small model will clearly fail where "
    "the stronger one succeeds, and [[{labels}]] means that its answer will be as good or better."
)
"""Asks for one of k labels; `{labels}` is their number."""

QUESTION = "Question:\n{question}\n\nRating:"
"""What stands around the prompt in the user's turn."""

LLAMA_3 = {
    "begin": "<|begin_of_text|>",
    "system": "<|start_header_id|>system<|end_header_id|>\n\n{text}<|eot_id|>",
    "user": "<|start_header_id|>user<|end_header_id|>\n\n{text}<|eot_id|>",
    "assistant": "<|start_header_id|>assistant<|end_header_id|>\n\n",
}
"""The turns of Llama 3, whose base model has no chat template (routellm/routers/causal_llm/configs.py there). The
published prompt ends before the assistant's header, which the model then generates; here it is part of the prompt, so
that the label is the very next token."""

_SENTINEL = "prefroute0question0here"


@dataclass(frozen=True, kw_only=True)
class PromptFormat:
    """A question is asked as `before + question + behind`.

    Attributes:
        before: The instruction and whatever stands before the question, special tokens in their written form.
        behind: What stands behind it, up to where the label comes.
    """

    before: str
    behind: str

    def __post_init__(self) -> None:
        """Refuse what would leave no token to read the label at."""
        if not isinstance(self.before, str) or not isinstance(self.behind, str) or not self.behind:
            msg = "a prompt format needs text behind the question, after which the label comes; got none"
            raise ConfigurationError(msg)


def build_format(tokenizer: Any, *, kind: Format = "auto", instruction: str, question: str = QUESTION) -> PromptFormat:
    """Put an instruction and a question into the turns of a model.

    Args:
        tokenizer: The model's.
        kind: `"chat"` for the tokenizer's chat template, `"llama-3"` for the turns of Llama 3, `"plain"` for text
            alone; `"auto"` for the first of these that the tokenizer has.
        instruction: What the model is asked to do.
        question: What stands around the prompt, which goes in place of `{question}`.

    Returns:
        The format.

    Raises:
        ConfigurationError: The tokenizer lacks what is asked for, or `{question}` does not stand once in `question`.
    """
    if kind not in get_args(Format):
        msg = f"the prompt format must be one of {', '.join(get_args(Format))}; got {kind!r}"
        raise ConfigurationError(msg)
    if question.count("{question}") != 1:
        msg = f"the text around the question must hold {{question}} once, got {question!r}"
        raise ConfigurationError(msg)
    asked = question.replace("{question}", _SENTINEL).strip()
    chosen = _of(tokenizer) if kind == "auto" else kind
    if chosen == "chat":
        return _split(_in_chat_template(tokenizer, instruction.strip(), asked))
    if chosen == "llama-3":
        turns = {"system": instruction.strip(), "user": asked}
        text = "".join(LLAMA_3[role].replace("{text}", own) for role, own in turns.items())
        return _split(LLAMA_3["begin"] + text + LLAMA_3["assistant"])
    begin = tokenizer.bos_token if _begins_text(tokenizer) else ""
    return _split(f"{begin}{instruction.strip()}\n\n{asked}")


def _of(tokenizer: Any) -> Format:
    if getattr(tokenizer, "chat_template", None):
        return "chat"
    vocabulary = tokenizer.get_vocab()
    return "llama-3" if {"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"} <= set(vocabulary) else "plain"


def _begins_text(tokenizer: Any) -> bool:
    """Whether the tokenizer puts a token of its own before every text."""
    first = tokenizer.bos_token_id
    return first is not None and list(tokenizer("a")["input_ids"])[:1] == [first]


def _in_chat_template(tokenizer: Any, instruction: str, asked: str) -> str:
    if not getattr(tokenizer, "chat_template", None):
        msg = "the tokenizer has no chat template; use the format 'plain', or 'llama-3' for a model of that family"
        raise ConfigurationError(msg)
    apart = [{"role": "system", "content": instruction}, {"role": "user", "content": asked}]
    together = [{"role": "user", "content": f"{instruction}\n\n{asked}"}]
    failure: Exception | None = None
    for messages in (apart, together):  # Some templates know no system's turn and say so by an exception.
        try:
            text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        except Exception as error:  # noqa: BLE001 - whatever a template raises
            failure = error
            continue
        if instruction in text:
            return str(text)
    reason = "it leaves the instruction out" if failure is None else f"{type(failure).__name__}: {failure}"
    msg = f"the tokenizer's chat template cannot be used ({reason}); use the format 'plain'"
    raise ConfigurationError(msg)


def _split(text: str) -> PromptFormat:
    before, found, behind = text.partition(_SENTINEL)
    if not found or _SENTINEL in behind:
        msg = "the chat template does not show the question once; use the format 'plain'"
        raise ConfigurationError(msg)
    return PromptFormat(before=before, behind=behind)


class Disarmed:
    """Writes special tokens within a question so that they are text: nobody's prompt may end its own turn.

    Args:
        tokenizer: The model's.
        labels: The label tokens.
    """

    def __init__(self, tokenizer: Any, labels: tuple[str, ...]) -> None:
        known = getattr(tokenizer, "added_tokens_decoder", {}).values()
        special = {str(token) for token in known if getattr(token, "special", False)}
        special |= {*labels, *map(str, tokenizer.all_special_tokens)}
        long = sorted((token for token in special if len(token) > 1), key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, long))) if long else None

    def __call__(self, text: str) -> str:
        """The text, with a space behind the first character of each special token."""
        if self._pattern is None:
            return text
        return self._pattern.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)
