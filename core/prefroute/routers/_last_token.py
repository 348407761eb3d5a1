"""A causal language model's logits at the last token, with the keys and values of a common beginning kept."""

from __future__ import annotations

import copy
import inspect
from typing import TYPE_CHECKING, Any

from prefroute.routers._token_batches import padded

if TYPE_CHECKING:
    from collections.abc import Sequence

_FEWEST = 8
"""Tokens of a beginning that are worth keeping."""


class LastToken:
    """One forward pass a batch: `prefix` is computed once, and only the last position's logits are made.

    Args:
        model: A `PreTrainedModel` for causal language modelling, in evaluation mode.
        prefix: Tokens that most prompts begin with.
    """

    def __init__(self, model: Any, prefix: Sequence[int]) -> None:
        self._model = model
        self.prefix = list(prefix)
        self._kept: Any = None
        self._is_tried = len(self.prefix) < _FEWEST
        self._options = last_only(model)
        self._takes_positions = takes(model, "position_ids")

    def computed(self, row: Sequence[int]) -> int:
        """How many tokens of a row are computed for it alone, as far as is known before the first pass."""
        keeps = self._kept is not None or not self._is_tried
        return len(row) - len(self.prefix) if keeps and self._begins(row) else len(row)

    def _begins(self, row: Sequence[int]) -> bool:
        size = len(self.prefix)
        return len(row) > size and list(row[:size]) == self.prefix

    def __call__(self, rows: Sequence[Sequence[int]], labels: Sequence[int]) -> Any:
        """Logits of the label tokens behind each row.

        Args:
            rows: Tokens of n prompts, none empty.
            labels: k tokens.

        Returns:
            A tensor of shape (n, k).
        """
        import torch

        self._keep_prefix()
        size = len(self.prefix)
        # A tokenizer may join the last letters of the beginning with the first ones of a question.
        shares = [self._kept is not None and self._begins(row) for row in rows]
        places = {kind: [place for place, own in enumerate(shares) if own is kind] for kind in (True, False)}
        found: Any = None
        for kind, own in places.items():
            if own:
                logits = self._forward([rows[place][size:] if kind else rows[place] for place in own], labels, kind)
                found = logits.new_empty((len(rows), len(labels))) if found is None else found
                found[torch.tensor(own, device=logits.device)] = logits
        return found

    def _forward(self, rows: list[Sequence[int]], labels: Sequence[int], follows: bool) -> Any:  # noqa: FBT001 - a kind
        import torch

        offset = len(self.prefix) if follows else 0
        inputs = left_padded(rows, takes_positions=self._takes_positions, device=self._model.device, offset=offset)
        if follows:
            inputs |= {"past_key_values": _copied(self._kept, len(rows)), "use_cache": True}
        else:
            inputs["use_cache"] = False
        logits = self._model(**inputs, **self._options).logits
        return logits[:, -1, torch.tensor(list(labels), device=logits.device)]

    def _keep_prefix(self) -> None:
        """Compute the beginning, if this model keeps keys and values in a form that can be copied."""
        if self._is_tried:
            return
        import torch
        from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

        tokens = torch.tensor([self.prefix], device=self._model.device)
        kept = getattr(self._model(input_ids=tokens, use_cache=True, **self._options), "past_key_values", None)
        layers = kept.layers if type(kept) is DynamicCache else []
        if layers and all(type(layer) in {DynamicLayer, DynamicSlidingWindowLayer} for layer in layers):
            self._kept = kept
        self._is_tried = True


def last_only(model: Any) -> dict[str, int]:
    """What makes a model give the last position's logits alone, if it can."""
    return {"logits_to_keep": 1} if takes(model, "logits_to_keep") else {}


def takes(model: Any, argument: str) -> bool:
    """Whether a model is called with an argument of this name."""
    return argument in inspect.signature(model.forward).parameters


def left_padded(
    rows: Sequence[Sequence[int]], *, takes_positions: bool, device: Any, offset: int = 0
) -> dict[str, Any]:
    """What a causal model is called with so that every row ends at the last position.

    Args:
        rows: Tokens of n prompts.
        takes_positions: Whether the model takes `position_ids`.
        device: Where the model is.
        offset: How many tokens are in its cache already.

    Returns:
        Its keyword arguments; positions count the tokens that are not padding.
    """
    import torch

    tokens, mask = padded(rows, 0, left=True)
    inputs: dict[str, Any] = {"input_ids": torch.from_numpy(tokens).to(device)}
    positions = offset + (mask.cumsum(axis=1) - 1).clip(min=0)
    if takes_positions:
        inputs["position_ids"] = torch.from_numpy(positions).to(device)
    if offset or not mask.all():
        seen = torch.ones((len(rows), offset), dtype=torch.int64)
        inputs["attention_mask"] = torch.cat([seen, torch.from_numpy(mask)], dim=1).to(device)
    return inputs


def right_padded(rows: Sequence[Sequence[int]], *, keeps_some: bool) -> dict[str, Any]:
    """What a causal model is trained with: its logits are wanted at the last token of every row.

    Gaps are behind the rows. Before them they would attend to nothing at all, of which torch's attention by cuDNN
    makes gradients that are not numbers once in a while (seen with torch 2.11 on an H100, in bfloat16).

    Args:
        rows: Tokens of n prompts.
        keeps_some: Whether the model makes logits of chosen positions alone.

    Returns:
        Its keyword arguments, and `last`: where among the positions of the logits each row's last token is.
    """
    import torch

    tokens, mask = padded(rows, 0, left=False)
    inputs = {"input_ids": torch.from_numpy(tokens)}
    if not mask.all():
        inputs["attention_mask"] = torch.from_numpy(mask)
    last = torch.tensor([len(row) - 1 for row in rows])
    if keeps_some:
        inputs["logits_to_keep"], last = torch.unique(last, return_inverse=True)
    return inputs | {"last": last}


def _copied(kept: Any, rows: int) -> Any:
    """The kept keys and values for so many rows. Layers replace their tensors when they grow, so these are shared."""
    cache = copy.copy(kept)
    cache.layers = [copy.copy(layer) for layer in kept.layers]
    if rows > 1:
        cache.batch_repeat_interleave(rows)
    return cache
