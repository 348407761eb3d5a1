"""How routers are trained: frozen settings, checked when they are made."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from prefroute.errors import ConfigurationError
from prefroute.inputs import finite_or_none

if TYPE_CHECKING:
    from typing import Self

Ties = Literal["half", "drop"]


@dataclass(frozen=True, kw_only=True)
class MatrixFactorizationConfig:
    """How a matrix factorization is trained; the defaults were chosen by cross-validation.

    Attributes:
        dimensions: Length k of the models' vectors; the paper's d_model.
        bias: Whether the projected prompt has a bias, as in the paper; the published code has none.
        ties: `"half"` learns ties as outcome 0.5, which routing needs; `"drop"` leaves them out, as published.
        standardise: Whether the coordinates of the embedding are centred and given one spread first.
        max_epochs: Passes over the battles at most.
        patience: Passes without a better held-out loss before it stops, keeping the best; None for all passes,
            keeping the last, as published.
        learning_rate: Of Adam.
        weight_decay: L2 penalty, added to the gradient by Adam; None for 1.2 over the number of battles, and at
            most 0.003: one prior for any amount of data.
        batch_size: Battles a step.
        noise: Standard deviation of the Gaussian noise added to each coordinate of the embedding.
        folds: Factorizations trained, each on all prompts but its own share, then averaged. 1 for one alone,
            which never sees the share that `validation_share` holds out. None for 5 where there are at most
            5,000 prompts, for whom a held-out share is a loss, and 1 beyond.
        validation_share: Share of the prompts held out when there is one fold.
        seed: Of the folds, the first factors, the order of the battles and the noise.
        device: As torch names it; `"auto"` for a GPU where there is one.

    Raises:
        ConfigurationError: A value is out of range.
    """

    dimensions: int = 128
    bias: bool = True
    ties: Ties = "half"
    standardise: bool = True
    max_epochs: int = 1000
    patience: int | None = 5
    learning_rate: float = 3e-4
    weight_decay: float | None = None
    batch_size: int = 64
    noise: float = 0.0
    folds: int | None = None
    validation_share: float = 0.1
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        """Refuse what could not be trained."""
        for name in ("dimensions", "max_epochs", "batch_size"):
            _check(name, getattr(self, name), _is_integer(getattr(self, name), 1), "an integer of at least 1")
        for name in ("patience", "folds"):
            value = getattr(self, name)
            _check(name, value, value is None or _is_integer(value, 1), "an integer of at least 1, or None")
        _check("seed", self.seed, _is_integer(self.seed, 0) and self.seed < 2**62, "an integer from 0 to 2**62 - 1")
        for name in ("bias", "standardise"):
            _check(name, getattr(self, name), isinstance(getattr(self, name), bool), "True or False")
        for name in ("learning_rate", "validation_share"):
            number = finite_or_none(getattr(self, name))
            _check(name, getattr(self, name), number is not None and number > 0, "a finite number above 0")
        for name in ("weight_decay", "noise"):
            value = getattr(self, name)
            number = 0.0 if value is None and name == "weight_decay" else finite_or_none(value)
            _check(name, value, number is not None and number >= 0, "a finite number of at least 0")
        _check("validation_share", self.validation_share, self.validation_share < 1, "below 1")
        _check("ties", self.ties, self.ties in get_args(Ties), " or ".join(get_args(Ties)))
        _check("device", self.device, isinstance(self.device, str) and bool(self.device), "a device that torch knows")

    @classmethod
    def published(cls, **changes: Any) -> Self:
        """The settings of the published training code (lm-sys/RouteLLM, train_matrix_factorization.py).

        Its 100 epochs are the code's; the paper trains about 10.

        Args:
            **changes: Fields to set otherwise.
        """
        settings = cls(
            bias=False,
            ties="drop",
            standardise=False,
            max_epochs=100,
            patience=None,
            learning_rate=3e-4,
            weight_decay=1e-5,
            batch_size=64,
            noise=0.1,
            folds=1,
            validation_share=0.05,
        )
        return replace(settings, **changes)


def _is_integer(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _check(name: str, value: object, fits: bool, wanted: str) -> None:  # noqa: FBT001 - the outcome of a check
    if not fits:
        msg = f"{name} must be {wanted}, got {value!r}"
        raise ConfigurationError(msg)
