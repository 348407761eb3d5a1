"""Embedders made of others, and of the length of the prompt."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, get_args

import numpy as np

from prefroute.errors import ConfigurationError, PersistenceError
from prefroute.inputs import as_prompts, finite_or_none
from prefroute.persistence import CONFIG_FILE, read_config, read_settings, write_config

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from typing import Self

    from numpy.typing import NDArray

    from prefroute.embedding import Embedder

LengthUnit = Literal["characters", "bytes"]


@dataclass(frozen=True, kw_only=True)
class LengthEmbedder:
    """One coordinate: the standardised log length of the text, to be put beside an embedding.

    The defaults suit chat prompts; `fitted` takes mean and deviation from prompts of one's own.

    Attributes:
        mean: Mean of log(1 + length).
        deviation: Its standard deviation.
        scale: What one deviation becomes; beside an embedding of length 1, the weight that length gets.
        limit: Deviations beyond which the length is cut, so that no text scores by its length alone; None for none.
        unit: What length is counted in. In bytes of UTF-8 texts that say the same are more alike: a Chinese
            character stands for a good half of a word, and has three.
    """

    mean: float = 5.5
    deviation: float = 1.0
    scale: float = 0.3
    limit: float | None = None
    unit: LengthUnit = "characters"

    embedder_type: ClassVar[str] = "length"
    dimensions: ClassVar[int] = 1
    is_quick: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Refuse what would make a coordinate that is no number."""
        if None in {finite_or_none(value) for value in (self.mean, self.deviation, self.scale)} or self.deviation <= 0:
            msg = f"mean, deviation and scale must be finite and deviation above 0, got {self}"
            raise ConfigurationError(msg)
        limit = finite_or_none(self.limit)
        if self.limit is not None and (limit is None or limit <= 0):
            msg = f"limit must be None or a number of deviations above 0, got {self.limit!r}"
            raise ConfigurationError(msg)
        if self.unit not in get_args(LengthUnit):
            msg = f"unit must be one of {', '.join(get_args(LengthUnit))}, got {self.unit!r}"
            raise ConfigurationError(msg)

    @classmethod
    def fitted(
        cls,
        prompts: Sequence[str],
        *,
        scale: float = 0.3,
        limit: float | None = None,
        unit: LengthUnit = "characters",
    ) -> Self:
        """Standardise by these prompts.

        Args:
            prompts: n texts, at least one.
            scale: What one deviation becomes.
            limit: Deviations beyond which the length is cut; None for none.
            unit: What length is counted in.

        Returns:
            The embedder; its deviation is 1 where all are equally long.

        Raises:
            ConfigurationError: There are no prompts, or a setting cannot be used.
        """
        logs = _log_lengths(as_prompts(prompts), unit)
        if not logs.size:
            msg = "got no prompts to take a mean length from; give at least one"
            raise ConfigurationError(msg)
        deviation = float(logs.std())
        # Of equal lengths rounding leaves a deviation of about 1e-16, which would blow up any other length.
        deviation = deviation if deviation > _LEAST_DEVIATION else 1.0
        return cls(mean=float(logs.mean()), deviation=deviation, scale=scale, limit=limit, unit=unit)

    def refitted(self, prompts: Sequence[str]) -> Self:
        """The same, standardised by these prompts; see `fitted`."""
        return self.fitted(prompts, scale=self.scale, limit=self.limit, unit=self.unit)

    @property
    def model_id(self) -> str:
        """Names the embedder for caches."""
        name = f"length:{self.mean!r}:{self.deviation!r}:{self.scale!r}"
        # Nothing is added for the defaults, so that caches of before these settings stay good.
        return name if (self.limit, self.unit) == (None, "characters") else f"{name}:{self.limit!r}:{self.unit}"

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The coordinate of each text, shape (n, 1)."""
        standardised = (_log_lengths(as_prompts(texts), self.unit) - self.mean) / self.deviation
        if self.limit is not None:
            standardised = standardised.clip(-self.limit, self.limit)
        return (self.scale * standardised).astype(np.float32)[:, None]

    def save_pretrained(self, path: str | Path) -> None:
        """Write `config.json`."""
        write_config(Path(path), {"embedder_type": self.embedder_type, "settings": asdict(self)})

    @classmethod
    def from_pretrained(cls, path: str | Path) -> Self:
        """Read what `save_pretrained` wrote.

        Raises:
            PersistenceError: The folder holds no readable length embedder.
        """
        return read_settings(cls, Path(path))


class ConcatenatedEmbedder:
    """The vectors of several embedders side by side."""

    embedder_type: ClassVar[str] = "concatenated"

    def __init__(self, parts: Sequence[Embedder]) -> None:
        """Put embedders side by side.

        Args:
            parts: At least one; each text is given to all. At most 16, with those that they are made of.

        Raises:
            ConfigurationError: There are none, or too many.
        """
        self.parts = tuple(parts)
        if not self.parts:
            msg = "got no embedders to put side by side; give at least one"
            raise ConfigurationError(msg)
        if (total := _count(self)) > _MOST_PARTS:
            msg = f"got {total} embedders to put side by side, in all; give at most {_MOST_PARTS}"
            raise ConfigurationError(msg)

    def __repr__(self) -> str:
        """The parts."""
        return f"{type(self).__name__}({list(self.parts)})"

    @property
    def dimensions(self) -> int | None:
        """Length of a row; None when a part does not tell its own."""
        sizes = [int(getattr(part, "dimensions", None) or 0) for part in self.parts]
        return sum(sizes) if all(sizes) else None

    @property
    def is_quick(self) -> bool:
        """Whether every part is."""
        return all(getattr(part, "is_quick", False) for part in self.parts)

    @property
    def model_id(self) -> str | None:
        """Names the embedder for caches; None when a part has no name."""
        names = [str(getattr(part, "model_id", None) or "") for part in self.parts]
        return "+".join(names) if all(names) else None

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts with every part, shape (n, sum of the parts' d)."""
        checked = as_prompts(texts)
        return np.hstack([part.embed(checked) for part in self.parts])

    @property
    def aembed(self) -> Callable[[Sequence[str]], Awaitable[NDArray[np.float32]]]:
        """`embed` without blocking the event loop, all parts at once; there where a part has an `aembed`.

        Parts without one embed in worker threads.
        """
        if not any(callable(getattr(part, "aembed", None)) for part in self.parts):
            msg = f"no part of {self!r} has an aembed"
            raise AttributeError(msg)
        return self._aembed

    async def _aembed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        checked = as_prompts(texts)
        tasks = [asyncio.ensure_future(_asked(part, checked)) for part in self.parts]
        try:
            return np.hstack(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()

    def save_pretrained(self, path: str | Path) -> None:
        """Write `config.json` and a folder for each part, named 0, 1, and so on."""
        from prefroute.embedding.registry import save_embedder

        folder = Path(path)
        for number, part in enumerate(self.parts):
            save_embedder(part, folder / str(number))
        write_config(folder, {"embedder_type": self.embedder_type, "parts": len(self.parts)})

    @classmethod
    def from_pretrained(cls, path: str | Path) -> Self:
        """Read what `save_pretrained` wrote.

        Raises:
            PersistenceError: The folder holds no readable concatenated embedder.
        """
        from prefroute.embedding.registry import load_embedder

        folder = Path(path)
        _check_nesting(folder)
        return cls([load_embedder(folder / str(number)) for number in range(_parts_in(folder))])


def _check_nesting(folder: Path) -> None:
    """Count the parts in all before any is loaded; folders within folders could come to any number."""
    waiting, total = [folder], 0
    while waiting:
        place = waiting.pop()
        count = _parts_in(place)
        total += count
        if total > _MOST_PARTS:
            msg = f"{folder / CONFIG_FILE} has more than {_MOST_PARTS} parts, with those that they are made of"
            raise PersistenceError(msg)
        inner = [place / str(number) for number in range(count)]
        kind = ConcatenatedEmbedder.embedder_type
        waiting += [part for part in inner if read_config(part).get("embedder_type") == kind]


def _parts_in(folder: Path) -> int:
    parts = read_config(folder).get("parts")
    if type(parts) is not int or not 1 <= parts <= _MOST_PARTS:
        msg = f"{folder / CONFIG_FILE}: parts must be a whole number from 1 to {_MOST_PARTS}, got {parts!r}"
        raise PersistenceError(msg)
    return parts


def _count(embedder: ConcatenatedEmbedder) -> int:
    inner = [_count(part) for part in embedder.parts if isinstance(part, ConcatenatedEmbedder)]
    return len(embedder.parts) + sum(inner)


async def _asked(part: Embedder, texts: list[str]) -> NDArray[np.float32]:
    ask = getattr(part, "aembed", None)
    rows: NDArray[np.float32] = await (ask(texts) if callable(ask) else asyncio.to_thread(part.embed, texts))
    return rows


_LEAST_DEVIATION = 1e-9

_MOST_PARTS = 16


def _log_lengths(texts: list[str], unit: LengthUnit) -> NDArray[np.float64]:
    lengths = map(len, texts) if unit == "characters" else map(_bytes_in, texts)
    return np.log1p(np.fromiter(lengths, dtype=np.float64, count=len(texts)))


def _bytes_in(text: str) -> int:
    # Half a surrogate pair cannot be encoded unless it is let pass.
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
