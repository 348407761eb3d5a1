"""A causal language model's logits at the last token, with the keys and values of a common beginning kept."""

from __future__ import annotations

import copy
import inspect
from typing import TYPE_CHECKING, Any

from prefroute.routers._token_batches import padded

if TYPE_CHECKING:
    from collections.abc import Sequence

_WIDE, _NARROW = 1e-3, 0.15
"""Root mean squares of differences of logits, beside their spread, that rounding may make in float32 and in 16 bits: a
model of 32 layers and random weights was at 0.04 in bfloat16."""

_WINDOWS = ("sliding_window", "window_size", "attention_window", "attention_chunk_size")
"""What configs call the number of tokens that a layer sees back."""

_A_COPY = 8
"""Copied tokens that count as one computed: they take memory, and hardly any time."""

_FEWEST = 8
"""Tokens of a beginning that are worth keeping."""


class LastToken:
    """One forward pass a batch: `prefix` is computed once, and only the last position's logits are made.

    Args:
        model: A `PreTrainedModel` for causal language modelling, in evaluation mode.
        prefix: Tokens that most prompts begin with.
        probe: Some more, as of a long prompt, to find out what the model can do.
    """

    def __init__(self, model: Any, prefix: Sequence[int], probe: Sequence[int]) -> None:
        self._model = model
        self.prefix = list(prefix)
        self._probe = list(probe)
        self._kept: Any = None
        self._pads = True
        self._is_tried = False
        self._options = last_only(model)
        self._takes_positions = takes(model, "position_ids")

    def computed(self, row: Sequence[int]) -> int:
        """How much a row counts: its tokens that are computed, and a little for those that are copied."""
        keeps = self._kept is not None or (not self._is_tried and len(self.prefix) >= _FEWEST)
        size = len(self.prefix)
        return len(row) - size + size // _A_COPY if keeps and self._begins(row) else len(row)

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

        self._try()
        found: Any = None
        for follows, places in self._groups(rows):
            start = len(self.prefix) if follows else 0
            logits = self._forward([rows[place][start:] for place in places], follows=follows)
            chosen = logits[:, torch.tensor(list(labels), device=logits.device)]
            found = chosen.new_empty((len(rows), len(labels))) if found is None else found
            found[torch.tensor(places, device=chosen.device)] = chosen
        return found

    def _groups(self, rows: Sequence[Sequence[int]]) -> list[tuple[bool, list[int]]]:
        """Rows that are computed together, and whether behind the kept beginning."""
        groups: dict[tuple[bool, int], list[int]] = {}
        for place, row in enumerate(rows):
            # A tokenizer may join the last letters of the beginning with the first ones of a question.
            follows = self._kept is not None and self._begins(row)
            groups.setdefault((follows, 0 if self._pads else len(row)), []).append(place)
        return [(follows, places) for (follows, _), places in groups.items()]

    def _forward(self, rows: Sequence[Sequence[int]], *, follows: bool) -> Any:
        """Logits of the whole vocabulary at the end of each row, shape (n, v)."""
        offset = len(self.prefix) if follows else 0
        inputs = left_padded(rows, takes_positions=self._takes_positions, device=self._model.device, offset=offset)
        if follows:
            inputs |= {"past_key_values": _copied(self._kept, len(rows)), "use_cache": True}
        else:
            inputs["use_cache"] = False
        return self._model(**inputs, **self._options).logits[:, -1]

    def _try(self) -> None:
        """Find out once what this model gives the same logits with: gaps before a row, and a kept beginning.

        Some count a window or the distance of tokens by place, so that gaps push the beginning out of sight
        (sliding and local attention); some know no mask, or keep their past in a form that cannot be copied.
        """
        if self._is_tried:
            return
        short, long = ([*self.prefix, *self._probe[:size]] for size in (2, len(self._probe)))
        plain = [self._forward([row], follows=False)[0] for row in (short, long)]
        self._pads = not _has_window(self._model) and _are_near(self._forward([short, long], follows=False), plain)
        self._kept = self._computed_prefix()
        if self._kept is not None:
            size = len(self.prefix)
            ends = [short[size:], long[size:]]
            if self._pads:
                again = self._forward(ends, follows=True)
            else:
                again = [self._forward([end], follows=True)[0] for end in ends]
            if not _are_near(again, plain):
                self._kept = None
        self._is_tried = True

    def _computed_prefix(self) -> Any:
        """The keys and values of the beginning, if this model keeps them in a form that can be copied."""
        if len(self.prefix) < _FEWEST:
            return None
        import torch
        from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

        tokens = torch.tensor([self.prefix], device=self._model.device)
        kept = getattr(self._model(input_ids=tokens, use_cache=True, **self._options), "past_key_values", None)
        layers = kept.layers if type(kept) is DynamicCache else []
        copied = bool(layers) and all(type(layer) in {DynamicLayer, DynamicSlidingWindowLayer} for layer in layers)
        return kept if copied else None


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


def _has_window(model: Any) -> bool:
    """Whether some layers see only so many places back, of which gaps would take some away."""
    return any(getattr(model.config, name, None) for name in _WINDOWS)


def _are_near(found: Any, wanted: Sequence[Any]) -> bool:
    """Whether logits are the same up to rounding of the numbers they were computed in."""
    import torch

    tolerance = _WIDE if wanted[0].dtype is torch.float32 else _NARROW
    pairs = [(a.float(), b.float()) for a, b in zip(found, wanted, strict=True)]
    return all(float((a - b).square().mean().sqrt()) <= tolerance * max(float(b.std()), 1e-6) for a, b in pairs)
