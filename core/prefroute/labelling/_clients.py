"""The clients that ask models: gated, and never sending a request again that may have been paid for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prefroute.embedding._openai_client import apart_settings, make_client, package

if TYPE_CHECKING:
    from prefroute.labelling._gate import Gate
    from prefroute.labelling.endpoints import Endpoint


class MayBePaidError(BaseException):
    """No answer came in time, though the server may still have made one.

    No `Exception`, since the openai package repeats a request after any of those, and each would be paid for.
    """


def sent_once(send: Any) -> Any:
    """An HTTP client's `send` that tells a request which may have been answered from one which was not."""

    async def sent(*arguments: Any, **settings: Any) -> Any:
        try:
            return await send(*arguments, **settings)
        except Exception as error:
            # By name: the openai package takes two packages for HTTP, each with its own.
            if type(error).__name__ == "ReadTimeout":
                raise MayBePaidError from error
            raise

    return sent


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
    connections.send = sent_once(connections.send)
    hooks = connections.event_hooks
    connections.event_hooks = {
        "request": [*hooks["request"], gate.on_request],
        "response": [*hooks["response"], gate.on_response],
    }
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
