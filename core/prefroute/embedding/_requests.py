"""How texts become requests to a server with limits: pure functions, which ask nothing themselves."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from numpy.typing import NDArray


_PHRASES = re.compile(
    r"context (?:length|window|size)|maximum\b.{0,40}?\btokens\b|too many tokens"
    r"|input\b.{0,40}?\bis too (?:large|long)",
    re.IGNORECASE | re.DOTALL,
)
"""What says that a text is too long whatever the status: llama.cpp says it with 500."""

_WORDS = re.compile(r"\btokens\b|\btoken (?:limit|count)|too (?:long|large)|input length|batch size", re.IGNORECASE)
"""What says so beside a status that blames the request: OpenAI and vLLM with 400, TEI with 413 and 422."""

_OTHERWISE = re.compile(r"deadline|time[- ]?d?[- ]?out|authenti|authoriz|cancel", re.IGNORECASE)
"""What speaks of something else, such as "context deadline exceeded" or "invalid authentication token"."""


def means_too_long(status: object, message: str) -> bool:
    """Whether a refusal says that the request is longer than the server takes.

    Args:
        status: Of HTTP.
        message: The server's words.
    """
    if _OTHERWISE.search(message):
        return False
    if status in {400, 413, 422}:
        return bool(_PHRASES.search(message) or _WORDS.search(message))
    return status == 500 and bool(_PHRASES.search(message))  # noqa: PLR2004 - a status of HTTP


class TooLong(NamedTuple):
    """The server's word that a request is beyond its limit.

    Attributes:
        error: What to raise when nothing can be made shorter.
    """

    error: Exception


def batched(texts: Sequence[str], *, most_texts: int, most_bytes: int) -> list[list[str]]:
    """Put neighbours together.

    Args:
        texts: n texts.
        most_texts: In a batch.
        most_bytes: Of UTF-8 in a batch; a text that is longer goes alone.

    Returns:
        The batches, in order.
    """
    batches: list[list[str]] = []
    held = 0
    for text in texts:
        size = len(text.encode())
        if not batches or len(batches[-1]) >= most_texts or held + size > most_bytes:
            batches.append([])
            held = 0
        batches[-1].append(text)
        held += size
    return batches


def steps(texts: Sequence[str]) -> Generator[list[str], NDArray[np.float32] | TooLong, NDArray[np.float32]]:
    """Embed one batch without doing the asking: yields what to ask next, is sent the answer, returns the rows.

    A request that is too long is split until it is clear which text is, and that one is halved until it fits; so
    what is embedded of a text does not depend on the others.

    Args:
        texts: n texts, at least one, none blank.

    Yields:
        Texts for one request.

    Returns:
        Shape (n, d).
    """
    left = list(texts)
    rows: dict[int, NDArray[np.float32]] = {}
    # By length, so that those that are too long stand together.
    waiting = [sorted(range(len(left)), key=lambda place: len(left[place]))]
    while waiting:
        places = waiting.pop()
        answer = yield [left[place] for place in places]
        if not isinstance(answer, TooLong):
            rows.update(zip(places, answer, strict=True))
        elif len(places) > 1:
            middle = len(places) // 2
            waiting += [places[:middle], places[middle:]]
        else:
            left[places[0]] = _halved(left[places[0]], answer.error)
            waiting.append(places)
    return np.stack([rows[place] for place in range(len(left))])


def _halved(text: str, error: Exception) -> str:
    text = text.lstrip()  # What is left must not be blank.
    if len(text) == 1:
        raise error
    return text[: len(text) // 2]
