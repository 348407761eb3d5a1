"""The settings of a recorder and what it is told, checked."""

from __future__ import annotations

import reprlib
from pathlib import Path

from prefroute.errors import ConfigurationError
from prefroute.inputs import finite_or_none

_LEAST_BYTES = 1_000_000
"""Less would hold little beside the tables themselves."""

_WORDS = {"good": 1.0, "bad": 0.0}


def as_rating(value: object) -> float:
    """The score that a rating means.

    Args:
        value: `"good"`, `"bad"`, or a number from 0 to 1.

    Raises:
        ConfigurationError: It is anything else.
    """
    score = _WORDS.get(value) if isinstance(value, str) else finite_or_none(value)
    if score is None or not 0.0 <= score <= 1.0:
        msg = f'a rating must be "good", "bad" or a number from 0 to 1, got {reprlib.repr(value)}'
        raise ConfigurationError(msg)
    return score


def as_file(path: object) -> Path:
    """Check that this is the path of a file, which need not be there.

    Raises:
        ConfigurationError: It is anything else.
    """
    if not isinstance(path, str | Path) or not str(path):
        msg = f"the path of the records must be a non-empty str or a Path, got {reprlib.repr(path)}"
        raise ConfigurationError(msg)
    file = Path(path)
    if file.is_dir():
        msg = f"the records need a file, and {file} is a folder; give {file / 'traffic.sqlite'}, say"
        raise ConfigurationError(msg)
    return file


def as_share(sample: object) -> float:
    """Check the share of decisions that is kept.

    Raises:
        ConfigurationError: It is no number from 0 to 1.
    """
    share = finite_or_none(sample)
    if share is None or not 0.0 <= share <= 1.0:
        msg = f"sample must be the share of decisions to keep, a number from 0 to 1; got {reprlib.repr(sample)}"
        raise ConfigurationError(msg)
    return share


def as_bytes(max_bytes: object) -> int:
    """Check a size limit.

    Raises:
        ConfigurationError: It is no integer, or too small for the tables.
    """
    if isinstance(max_bytes, bool) or not isinstance(max_bytes, int) or max_bytes < _LEAST_BYTES:
        msg = f"max_bytes must be an integer of {_LEAST_BYTES} or more, got {reprlib.repr(max_bytes)}"
        raise ConfigurationError(msg)
    return max_bytes


def as_bool(name: str, value: object) -> bool:
    """Check a switch.

    Raises:
        ConfigurationError: It is neither True nor False.
    """
    if not isinstance(value, bool):
        msg = f"{name} must be True or False, got {reprlib.repr(value)}"
        raise ConfigurationError(msg)
    return value
