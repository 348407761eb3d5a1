"""The factors of a matrix factorization and their training by stochastic gradient; the only module here with torch."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from prefroute._torch import as_device

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import torch
    from numpy.typing import NDArray

    from prefroute.training.config import MatrixFactorizationConfig

_LEAST_WEIGHT = 1e-30

_EVALUATED = 8192
"""Held-out battles scored at a time."""


class Rows(NamedTuple):
    """Battles as arrays.

    Attributes:
        prompts: Row of the embeddings, shape (n,).
        model_a: Shape (n,).
        model_b: Shape (n,).
        outcomes: P(model_a wins), shape (n,).
        weights: Mean about 1, shape (n,).
    """

    prompts: NDArray[np.int64]
    model_a: NDArray[np.int64]
    model_b: NDArray[np.int64]
    outcomes: NDArray[np.float32]
    weights: NDArray[np.float32]

    def at(self, chosen: NDArray[np.bool_]) -> Rows:
        """The chosen battles."""
        return Rows(
            self.prompts[chosen],
            self.model_a[chosen],
            self.model_b[chosen],
            self.outcomes[chosen],
            self.weights[chosen],
        )


class Fitted(NamedTuple):
    """Factors multiplied out, and how they were found.

    Attributes:
        weights: `W1^T (v_M * w2)` of each model, shape (m, d).
        biases: `w2 . (v_M * b)` of each model, shape (m,).
        epochs: Passes made.
        best_epoch: The pass whose factors these are, from 1.
        train_loss: Mean log loss during that pass.
        validation_loss: Mean log loss on the held-out battles after it.
    """

    weights: NDArray[np.float64]
    biases: NDArray[np.float64]
    epochs: int
    best_epoch: int
    train_loss: float
    validation_loss: float


class _Factors:
    """score(M, q) = w2 . (normalise(v_M) * (W1 e_q + b)), begun as torch begins an embedding and linear layers."""

    def __init__(
        self, models: int, dimensions: int, config: MatrixFactorizationConfig, seed: int, device: torch.device
    ) -> None:
        import torch

        # Drawn on the CPU by a generator of its own: the same on every device, and nobody else's numbers change.
        generator = torch.Generator().manual_seed(seed)

        def uniform(*shape: int) -> torch.Tensor:
            drawn: torch.Tensor = (torch.rand(*shape, generator=generator) * 2 - 1) / shape[-1] ** 0.5
            return drawn

        width = config.dimensions
        self.models = torch.randn(models, width, generator=generator).to(device).requires_grad_()  # v, (m, k)
        self.projection = uniform(width, dimensions).to(device).requires_grad_()  # W1, (k, d)
        self.head = uniform(width).to(device).requires_grad_()  # w2, (k,)
        self.bias = torch.zeros(width, device=device, requires_grad=config.bias)  # b, (k,)

    def parameters(self) -> list[torch.Tensor]:
        return [p for p in (self.models, self.projection, self.head, self.bias) if p.requires_grad]

    def directions(self) -> torch.Tensor:
        """w2 * normalise(v_M) of each model, shape (m, k)."""
        import torch

        found: torch.Tensor = torch.nn.functional.normalize(self.models, dim=1) * self.head
        return found

    def multiplied_out(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Weights (m, d) and biases (m,) of the scores."""
        directions = self.directions()
        return directions @ self.projection, directions @ self.bias


class _Data:
    """The training battles, dealt anew in every pass."""

    def __init__(
        self,
        embeddings: NDArray[np.float32],
        rows: Rows,
        config: MatrixFactorizationConfig,
        seed: int,
        device: torch.device,
    ) -> None:
        import torch

        self.table = torch.as_tensor(embeddings, device=device)  # (p, d)
        self.rows = _tensors(rows, device)
        self._config = config
        self._order = torch.Generator().manual_seed(seed)
        self._noise = torch.Generator(device).manual_seed(seed)

    def batches(self) -> Iterator[list[torch.Tensor]]:
        """Embeddings (n, d), models a and b, outcomes and weights (n,) of each batch."""
        import torch

        scale = self._config.noise
        permutation = torch.randperm(len(self.rows[0]), generator=self._order).to(self.table.device)
        for batch in torch.split(permutation, self._config.batch_size):
            prompts, *others = (column[batch] for column in self.rows)
            texts = self.table[prompts]
            if scale:
                texts += scale * torch.randn(texts.shape, generator=self._noise, device=texts.device)
            yield [texts, *others]


def fit_factors(
    embeddings: NDArray[np.float32],
    train: Rows,
    held_out: Rows,
    *,
    models: int,
    config: MatrixFactorizationConfig,
    seed: int,
    on_epoch: Callable[[], None],
) -> Fitted:
    """Train factors with Adam; stop early on held-out battles.

    Args:
        embeddings: Of the distinct prompts, shape (p, d).
        train: Battles to learn from.
        held_out: Battles to stop by.
        models: Number of models m.
        config: The settings.
        seed: Of the first factors, the order of the battles and the noise.
        on_epoch: Called after each pass.

    Returns:
        The factors of the best pass, or of the last without early stopping.
    """
    import torch

    device = torch.device(as_device(config.device))
    factors = _Factors(models, embeddings.shape[1], config, seed, device)
    data = _Data(embeddings, train, config, seed, device)
    validation = _tensors(held_out, device)
    # Fused: one pass over the projection a step instead of ten.
    optimiser = torch.optim.Adam(
        factors.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay or 0.0, fused=True
    )
    best: Fitted | None = None
    with _one_thread():
        for epoch in range(1, config.max_epochs + 1):
            train_loss = _one_epoch(factors, optimiser, data)
            with torch.no_grad():
                weights, biases = factors.multiplied_out()
                validation_loss = _loss(weights, biases, data.table, validation)
            on_epoch()
            if best is None or config.patience is None or validation_loss < best.validation_loss:
                arrays = [tensor.cpu().numpy().astype(np.float64) for tensor in (weights, biases)]
                best = Fitted(arrays[0], arrays[1], epoch, epoch, train_loss, validation_loss)
            elif epoch - best.best_epoch >= config.patience:
                return best._replace(epochs=epoch)
    assert best is not None  # noqa: S101 - max_epochs is at least 1
    return best._replace(epochs=config.max_epochs)


def _one_epoch(factors: _Factors, optimiser: torch.optim.Adam, data: _Data) -> float:
    """Mean log loss of one pass in random order."""
    import torch

    total = torch.zeros((), device=data.table.device)
    for texts, model_a, model_b, outcomes, weights in data.batches():
        directions = factors.directions()
        gaps = directions[model_a] - directions[model_b]  # (n, k)
        logits = (gaps * torch.addmm(factors.bias, texts, factors.projection.T)).sum(dim=1)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, outcomes, weights)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        total += loss.detach() * len(weights)
    return float(total) / float(data.rows[-1].sum())


def _loss(weights: torch.Tensor, biases: torch.Tensor, table: torch.Tensor, rows: list[torch.Tensor]) -> float:
    """Mean log loss of these battles."""
    import torch

    total = torch.zeros((), device=table.device)
    for prompts, model_a, model_b, outcomes, importance in zip(
        *(torch.split(column, _EVALUATED) for column in rows), strict=True
    ):
        scores = torch.addmm(biases, table[prompts], weights.T)  # (n, m)
        logits = scores.gather(1, model_a[:, None]) - scores.gather(1, model_b[:, None])
        total += torch.nn.functional.binary_cross_entropy_with_logits(
            logits[:, 0], outcomes, importance, reduction="sum"
        )
    # Battles that weigh next to nothing beside the others may have no weight left in float32.
    return float(total) / max(float(rows[-1].sum()), _LEAST_WEIGHT)


def _tensors(rows: Rows, device: torch.device) -> list[torch.Tensor]:
    import torch

    return [torch.as_tensor(column, device=device) for column in rows]


@contextmanager
def _one_thread() -> Iterator[None]:
    """Batches this small lose by being shared between cores: 13 s became 184 s on two cores that were busy."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
