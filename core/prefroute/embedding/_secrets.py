"""Keys of servers: what may be one, where they stand, and how they are kept out of messages. Pure functions."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from prefroute.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_SHORTEST = 8
"""A secret of fewer characters guards nothing, and would blot words out of messages."""

_VISIBLE = re.compile(r"[!-~]+")

_HARMLESS = frozenset({"accept", "accept-encoding", "connection", "content-type", "user-agent"})
_NEEDED = _HARMLESS | {"host", "content-length", "transfer-encoding"}
_STATISTICS = "x-stainless-"
"""Headers by which the openai package tells its version and the platform."""


def as_key(key: str) -> str:
    """Check a key: it goes into a header, and a library that refuses a header shows it.

    Args:
        key: As it was given; white space around it, such as the newline of a file, is no part of it.

    Returns:
        The key alone.

    Raises:
        ConfigurationError: It could not stand in a header; the message does not hold it.
    """
    stripped = key.strip()
    if not _VISIBLE.fullmatch(stripped):
        found = "nothing" if not stripped else "white space, control or other characters in it"
        msg = f"an API key is visible ASCII characters without spaces, got {found}; copy it anew (it is not shown here)"
        raise ConfigurationError(msg)
    return stripped


def check_headers(client: Any) -> None:
    """Refuse headers of the environment that could not be sent, before a library shows them in doing so.

    Raises:
        ConfigurationError: Names the header, not its value.
    """
    for name, value in _own_headers(client):
        if not value.isascii() or not value.isprintable() or value != value.strip():
            msg = (
                f"the header {name!r}, set by an OPENAI_ variable of the environment, has a value with control "
                "or non-ASCII characters or white space around it; set it anew (it is not shown here)"
            )
            raise ConfigurationError(msg)


def is_needed(header: str, *, authorization: str | None, value: str) -> bool:
    """Whether a request to a server that we were not told to trust needs this header.

    Args:
        header: Its name.
        authorization: What may be sent as `Authorization`.
        value: Its value.
    """
    name = header.lower()
    return name in _NEEDED or name.startswith(_STATISTICS) or (name == "authorization" and value == authorization)


def secrets_of(client: Any) -> set[str]:
    """What a client knows that must not be shown: its key, and values of the headers that it was given."""
    found = {getattr(client, "api_key", None)}
    for _, value in _own_headers(client):
        found |= {value, *value.split()}  # "Bearer KEY" may come back as the key alone.
    return {secret for secret in found if isinstance(secret, str) and secret.strip()}


def masked(text: str, secrets: Iterable[str]) -> str:
    """The text with every secret, raw or as Python or JSON write it, replaced."""
    for form in sorted(_forms(secrets), key=len, reverse=True):
        text = text.replace(form, "***")
    return text


def tells(error: BaseException, secrets: Iterable[str]) -> bool:
    """Whether an exception, or one that led to it, holds a secret."""
    forms = _forms(secrets)
    return any(form in text for one in _chain(error) for text in _words(one) for form in forms)


def _words(error: BaseException) -> Iterator[str]:
    yield str(error)
    yield repr(error)
    yield from getattr(error, "__notes__", ())


def _chain(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is not None and not any(one is known for known in found):
            found.append(one)
            waiting += [one.__cause__, one.__context__, *getattr(one, "exceptions", ())]
    return found


def _forms(secrets: Iterable[str]) -> set[str]:
    forms: set[str] = set()
    for secret in secrets:
        plain = {secret, secret.strip()}
        forms |= plain
        for one in plain:
            forms |= {repr(one)[1:-1], repr(one.encode("utf-8", "replace"))[2:-1], json.dumps(one)[1:-1]}
    return {form for form in forms if len(form) >= _SHORTEST}


def _own_headers(client: Any) -> Iterator[tuple[str, str]]:
    headers = getattr(client, "default_headers", None)
    for name, value in headers.items() if isinstance(headers, Mapping) else ():
        if isinstance(value, str) and name.lower() not in _HARMLESS and not name.lower().startswith(_STATISTICS):
            yield name, value
