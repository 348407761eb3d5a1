"""The clients that ask models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prefroute.embedding._openai_client import apart_settings, make_client, package
from prefroute.labelling._sending import guarded

if TYPE_CHECKING:
    from prefroute.labelling._gate import Gate
    from prefroute.labelling.endpoints import Endpoint


def client_of(endpoint: Endpoint, gate: Gate) -> Any:
    """An asynchronous client of the openai package.

    Args:
        endpoint: Whom it asks; its key is read from the environment now.
        gate: What each of its requests passes.

    Raises:
        ConfigurationError: There is no key, or it cannot be sent.
        MissingExtraError: openai is not installed.
    """
    source = f"the model {endpoint.model}"
    openai = package(source)
    key = endpoint.key()
    settings: dict[str, Any] = {"http_client": openai.DefaultAsyncHttpxClient()}
    if endpoint.is_stranger:
        settings = apart_settings(openai, "AsyncOpenAI", f"Bearer {key}")
    connections = settings["http_client"]
    # A redirected prompt would go to a host that nobody named, or come as a GET, whose answer is another.
    connections.follow_redirects = False
    connections.send = guarded(connections.send, gate, endpoint.timeout)
    return make_client(
        "AsyncOpenAI",
        source=source,
        api_key=key,
        is_apart=False,
        base_url=endpoint.url,
        timeout=endpoint.timeout,
        max_retries=endpoint.max_retries,
        **settings,
    )
