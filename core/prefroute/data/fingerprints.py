"""Hashes of prompts: they tell whether a prompt was in a training set that is not kept."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from prefroute.data.cleaning import prompt_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray


def text_hashes(texts: Iterable[str]) -> NDArray[np.uint64]:
    """A hash of each text: 64 bits of BLAKE2b.

    The texts themselves, which may be private, cannot be read back from them; whoever guesses one can check the guess.

    Args:
        texts: n texts.

    Returns:
        Shape (n,).
    """
    digests = (hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest() for text in texts)
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


def digest_of(texts: Iterable[str]) -> hashlib._Hash:
    """A digest of texts in their order, each with its length, to be updated with whatever else tells a run.

    Args:
        texts: n texts.

    Returns:
        SHA-256.
    """
    digest = hashlib.sha256()
    for text in texts:
        encoded = text.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "little") + encoded)
    return digest


def prompt_hashes(prompts: Iterable[str]) -> NDArray[np.uint64]:
    """A hash of each prompt that is the same for spellings that differ in case and white space alone.

    Args:
        prompts: n texts.

    Returns:
        Shape (n,).
    """
    return text_hashes(prompt_key(prompt) for prompt in prompts)


def seen_prompts(prompts: Sequence[str], hashes: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Which prompts are among those that hashes were made of.

    Args:
        prompts: n texts.
        hashes: Of `prompt_hashes`, in any order.

    Returns:
        Shape (n,). That a prompt is taken for another of a million has a chance of 1 in 10^13.
    """
    return np.isin(prompt_hashes(prompts), hashes)
