"""Models to ask: where each one is, and what every request to it says beside the messages."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit

from prefroute.embedding._rows import as_size
from prefroute.embedding._secrets import as_key
from prefroute.errors import ConfigurationError
from prefroute.inputs import finite_or_none

OPENAI_KEY = "OPENAI_API_KEY"
OPENAI_URL = "https://api.openai.com/v1"
NO_KEY = "none"
"""What a server is sent that asks for no key."""

_OPENAI_HOSTS = ("openai.com", "openai.azure.com")


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """A chat model of OpenAI, or of any server that speaks its protocol. Holds no key, only where to find it.

    Attributes:
        model: Its name, as the server knows it.
        base_url: Of another server, such as `http://localhost:8000/v1`; None for `OPENAI_BASE_URL`, or OpenAI.
        key_env: Name of the environment variable with the key. None for `OPENAI_API_KEY` where there is no base_url;
            a server that is named by base_url is then sent the word "none" and nothing of the environment.
        system: System message of every request.
        temperature: None for the server's own.
        max_tokens: Most tokens of a reply. Sent as `max_completion_tokens` to OpenAI, whose newer models refuse the
            old name, and as `max_tokens` to all others, which understand that.
        max_retries: How often the openai package repeats a request that was refused for load or failed on the way.
            One that may be paid for is not: that got no answer in time, or one that broke off. Where the connection
            was dropped before an answer, or the server gave up waiting, it is made once more, unless this is 0.
        timeout: Seconds to connect, and again for the whole reply, counted from when the request goes out.

    Raises:
        ConfigurationError: A setting cannot be used.
    """

    model: str
    base_url: str | None = None
    key_env: str | None = None
    system: str | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    max_retries: int = 5
    timeout: float = 300.0

    def __post_init__(self) -> None:
        """Refuse what cannot be sent."""
        if not isinstance(self.model, str) or not self.model or self.model != self.model.strip():
            msg = f"model must be the name of a model, without white space around it; got {self.model!r}"
            raise ConfigurationError(msg)
        if self.base_url is not None:
            _check_url("base_url", self.base_url)
        if self.key_env is not None and not (isinstance(self.key_env, str) and self.key_env.strip()):
            # Not repeated here: it may be the key itself.
            found = "a blank one" if isinstance(self.key_env, str) else type(self.key_env).__name__
            msg = f"key_env must be the name of an environment variable, or None; got {found}"
            raise ConfigurationError(msg)
        if self.system is not None and not isinstance(self.system, str):
            msg = f"system must be a text, or None; got {self.system!r:.80}"
            raise ConfigurationError(msg)
        if self.max_tokens is not None:
            as_size("max_tokens", self.max_tokens)
        if self.temperature is not None and (finite_or_none(self.temperature) or 0.0) < 0:
            msg = f"temperature must be a number of at least 0, got {self.temperature!r}"
            raise ConfigurationError(msg)
        if type(self.max_retries) is not int or self.max_retries < 0:
            msg = f"max_retries must be a whole number of at least 0, got {self.max_retries!r}"
            raise ConfigurationError(msg)
        if (finite_or_none(self.timeout) or 0.0) <= 0:
            msg = f"timeout must be a positive number of seconds, got {self.timeout!r}"
            raise ConfigurationError(msg)

    @property
    def url(self) -> str:
        """Where requests go; the environment is looked at now.

        Raises:
            ConfigurationError: `OPENAI_BASE_URL` is no such address.
        """
        if self.base_url is not None:
            return self.base_url.rstrip("/")
        from_environment = os.environ.get("OPENAI_BASE_URL", "").strip()
        if from_environment:
            _check_url("OPENAI_BASE_URL", from_environment)
        return (from_environment or OPENAI_URL).rstrip("/")

    @property
    def is_stranger(self) -> bool:
        """Whether the server is to be sent nothing of the environment but the key that was named for it."""
        return self.base_url is not None

    def key(self) -> str:
        """Read the key from the environment.

        Raises:
            ConfigurationError: It is not there, or cannot be one; says which variable.
        """
        if self.key_env is None and self.is_stranger:
            return NO_KEY
        name = self.key_env or OPENAI_KEY
        value = os.environ.get(name, "")
        if not value.strip():
            msg = f"no key for {self.model}: the environment variable {name} is not set; set it, or name another one"
            raise ConfigurationError(msg)
        try:
            return as_key(value)
        except ConfigurationError as error:
            msg = f"{name}: {error}"
            raise ConfigurationError(msg) from None

    def request(self, text: str) -> dict[str, Any]:
        """The whole body of a request.

        Args:
            text: The user's message.

        Returns:
            Arguments of the openai package's `chat.completions.create`.
        """
        said = [] if self.system is None else [{"role": "system", "content": self.system}]
        body: dict[str, Any] = {"model": self.model, "messages": [*said, {"role": "user", "content": text}]}
        if self.temperature is not None:
            # 0 and 0.0 are one setting, and one call.
            body["temperature"] = float(self.temperature)
        if self.max_tokens is not None:
            host = urlsplit(self.url).hostname or ""
            is_openai = any(host == known or host.endswith(f".{known}") for known in _OPENAI_HOSTS)
            body["max_completion_tokens" if is_openai else "max_tokens"] = self.max_tokens
        return body

    def settings(self) -> dict[str, Any]:
        """What its replies depend on, as JSON knows it."""
        return {
            "model": self.model,
            "base_url": self.url,
            "system": self.system,
            "temperature": None if self.temperature is None else float(self.temperature),
            "max_tokens": self.max_tokens,
        }


def _parts(url: object) -> SplitResult | None:
    try:
        parts = urlsplit(url) if isinstance(url, str) else None
        # Reading the port checks it.
        is_address = parts is not None and parts.scheme in {"http", "https"} and parts.netloc and parts.port != 0
    except ValueError:
        return None
    return parts if is_address else None


def _check_url(name: str, url: object) -> None:
    parts = _parts(url)
    if parts is None:
        msg = f"{name} must look like https://host/v1, got {type(url).__name__} of another form"
        raise ConfigurationError(msg)
    # It is shown and saved; not repeated here for the same reason.
    if "@" in parts.netloc or parts.query or parts.fragment:
        msg = f"{name} must hold no user, password or query; name the variable of the key with key_env"
        raise ConfigurationError(msg)
