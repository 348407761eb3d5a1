"""What callers give, checked: prompts and the settings of a call."""

from __future__ import annotations

import inspect
import math
import reprlib
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, cast, get_args

from prefroute.errors import ConfigurationError, PromptTypeError, ThresholdError
from prefroute.types import ModelPair, OnError, Route

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def as_prompt(prompt: object) -> str:
    """Check that this is a text.

    Args:
        prompt: A str.

    Returns:
        It, in a form that can be encoded; see `as_prompts`.

    Raises:
        PromptTypeError: It is not a str; says what came.
    """
    return _encodable(prompt, "prompt")


def as_prompts(prompts: Sequence[str]) -> list[str]:
    """Check that these are texts, and make each one encodable.

    A surrogate that is not part of a pair stands for no character and cannot be encoded, so it becomes
    U+FFFD, as every UTF-8 decoder would have made it.

    Args:
        prompts: n texts; not one lone str, whose characters would pass for n prompts.

    Returns:
        n texts that can be encoded as UTF-8.

    Raises:
        PromptTypeError: Something is not a str; says where and what came.
    """
    if isinstance(prompts, str | bytes):
        msg = f"prompts must be a sequence of str, got one {type(prompts).__name__}; pass [prompt] instead"
        raise PromptTypeError(msg)
    try:
        items = list(prompts)
    except TypeError:
        raise _not_text("prompts", prompts, wanted="a sequence of str") from None
    return [_encodable(item, f"prompts[{index}]") for index, item in enumerate(items)]


def as_threshold(value: object) -> float:
    """Check a threshold.

    Args:
        value: Any finite real number.

    Returns:
        It, as a float.

    Raises:
        ThresholdError: It is anything else.
    """
    number = finite_or_none(value)
    if number is None:
        msg = f"threshold must be a finite number, got {reprlib.repr(value)} ({type(value).__name__})"
        raise ThresholdError(msg)
    return number


def not_both(threshold: object, strong_rate: object) -> None:
    """Check that a threshold and a rate, which is another way to give one, do not come together.

    Raises:
        ConfigurationError: They do.
    """
    if threshold is not None and strong_rate is not None:
        got = f"{reprlib.repr(threshold)} and {reprlib.repr(strong_rate)}"
        msg = f"give threshold= or strong_rate=, not both; got {got}"
        raise ConfigurationError(msg)


def as_on_error(value: object) -> OnError:
    """Check what is to happen when a router fails.

    Args:
        value: `"strong"`, `"weak"` or `"raise"`.

    Returns:
        It.

    Raises:
        ConfigurationError: It is anything else.
    """
    if value not in get_args(OnError):
        msg = f"when the router fails: must be one of {', '.join(get_args(OnError))}; got {reprlib.repr(value)}"
        raise ConfigurationError(msg)
    return cast("OnError", value)


def as_route(value: object, name: str = "route") -> Route:
    """Check that this names a side.

    Args:
        value: `"strong"` or `"weak"`.
        name: What to call it in the message.

    Returns:
        It.

    Raises:
        ConfigurationError: It is anything else.
    """
    if value not in get_args(Route):
        msg = f"{name} must be one of {', '.join(get_args(Route))}; got {reprlib.repr(value)}"
        raise ConfigurationError(msg)
    return cast("Route", value)


def as_hook(value: object, name: str, of: str) -> Callable[..., Any] | None:
    """Check a function of the user's own, which is called where nothing can be waited for.

    Args:
        value: A plain function, or None.
        name: What to call it in the message.
        of: What it is a function of.

    Returns:
        It.

    Raises:
        ConfigurationError: It is anything else, a coroutine function among them.
    """
    if value is not None and (not callable(value) or _is_asynchronous(value)):
        msg = f"{name} must be a plain function of {of}, not a coroutine function; got {reprlib.repr(value)}"
        raise ConfigurationError(msg)
    return value


def _is_asynchronous(function: Callable[..., object]) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)


def as_time_limit(value: object) -> float:
    """Check how long a router may take.

    Args:
        value: A positive, finite number of seconds.

    Returns:
        It, as a float.

    Raises:
        ConfigurationError: It is anything else.
    """
    seconds = finite_or_none(value)
    if seconds is None or seconds <= 0:
        msg = f"the router's time limit must be a positive number of seconds, got {reprlib.repr(value)}"
        raise ConfigurationError(msg)
    return seconds


def as_pair(pair: object) -> ModelPair:
    """Check that this is a pair of models.

    Raises:
        ConfigurationError: It is anything else.
    """
    if not isinstance(pair, ModelPair):
        msg = f"pair must be a ModelPair(strong=..., weak=...), got {type(pair).__name__}: {reprlib.repr(pair)}"
        raise ConfigurationError(msg)
    return pair


def as_seed(seed: object) -> int:
    """Check the seed of a generator.

    Raises:
        ConfigurationError: It is not an integer of 0 or more.
    """
    if isinstance(seed, bool) or not isinstance(seed, Integral) or not 0 <= int(seed) < _LARGEST_SEED:
        msg = f"seed must be an integer from 0 to 2**62 - 1, got {reprlib.repr(seed)}"
        raise ConfigurationError(msg)
    return int(seed)


_LARGEST_SEED = 2**62


def finite_or_none(value: object) -> float | None:
    """The value as a float if it is a finite real number (a bool passes for none), else None."""
    if not isinstance(value, Real) or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (OverflowError, ValueError):  # An integer or fraction beyond the largest float.
        return None
    return number if math.isfinite(number) else None


def _not_text(name: str, value: object, wanted: str = "a str") -> PromptTypeError:
    return PromptTypeError(f"{name} must be {wanted}, got {type(value).__name__}: {reprlib.repr(value)}")


def _encodable(item: object, name: str) -> str:
    if not isinstance(item, str):
        raise _not_text(name, item)
    if item.isascii():
        return item
    try:
        item.encode()
    except UnicodeEncodeError:
        return item.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return item
