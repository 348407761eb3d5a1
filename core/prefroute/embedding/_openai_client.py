"""Making the openai package's clients, with nothing of the environment in them where that is not theirs to have."""

from __future__ import annotations

import os
from typing import Any, Literal, TypeAlias

from prefroute.embedding._secrets import as_key, check_headers, is_needed
from prefroute.errors import ConfigurationError, MissingExtraError

Kind: TypeAlias = Literal["OpenAI", "AsyncOpenAI"]


def make_client(kind: Kind, *, source: str, api_key: str | None, is_apart: bool, **settings: Any) -> Any:
    """Make a client.

    Args:
        kind: Which.
        source: Names the embedder in messages.
        api_key: None for `OPENAI_API_KEY`.
        is_apart: Whether the server is one that the caller did not name: it is then sent nothing that the
            package reads in the environment. Needs `api_key`.
        **settings: The client's own: `base_url`, `timeout`, `max_retries`.

    Returns:
        The client.

    Raises:
        MissingExtraError: openai is not installed.
        ConfigurationError: There is no key, or it or a header of the environment cannot be sent.
    """
    openai = package(source)
    key = os.environ.get("OPENAI_API_KEY") if api_key is None else api_key
    # A blank one is none; the package itself must not find it again.
    key = as_key(key) if key and key.strip() else ""
    apart = apart_settings(openai, kind, f"Bearer {key}") if is_apart else {}
    try:
        client = getattr(openai, kind)(api_key=key, **settings, **apart)
    except openai.OpenAIError as error:
        msg = (
            f"no client for {source}: no API key; give api_key= or set OPENAI_API_KEY "
            "(a server of your own that asks for none takes any word)"
        )
        raise ConfigurationError(msg) from error
    if not is_apart:
        check_headers(client)
    return client


def package(source: str) -> Any:
    """The openai package.

    Args:
        source: What needs it, for the message.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        import openai
    except ModuleNotFoundError as error:
        if error.name != "openai":
            raise
        msg = f'{source} needs the openai package: pip install "prefroute[openai]"'
        raise MissingExtraError(msg) from error
    return openai


def apart_settings(openai: Any, kind: Kind, authorization: str) -> dict[str, Any]:
    """Settings of a client that sends nothing of the environment.

    What the package reads there differs from version to version, and there is no switch for it; so what a request
    does not need is taken off it as it goes out.
    """

    def strip(request: Any) -> None:
        for name, value in list(request.headers.items()):
            if not is_needed(name, authorization=authorization, value=value):
                del request.headers[name]

    async def astrip(request: Any) -> None:
        strip(request)

    connections = (
        openai.DefaultHttpxClient(event_hooks={"request": [strip]})
        if kind == "OpenAI"
        else openai.DefaultAsyncHttpxClient(event_hooks={"request": [astrip]})
    )
    return {
        "http_client": connections,
        "organization": "",
        "project": "",
        "default_headers": {"Authorization": authorization},
    }
