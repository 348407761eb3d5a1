"""The embedding models of OpenAI, and of every server that speaks its protocol."""

from __future__ import annotations

import asyncio
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

from pydantic import SecretStr

from prefroute.embedding._openai_client import make_client
from prefroute.embedding._requests import TooLong, batched, means_too_long, steps
from prefroute.embedding._rows import (
    MAX_CHARACTERS,
    PROBE,
    as_rows,
    as_size,
    with_blanks,
    without_blanks,
)
from prefroute.embedding._secrets import as_key, masked, secrets_of, tells
from prefroute.errors import ConfigurationError, EmbeddingError, MissingExtraError
from prefroute.inputs import as_prompts, finite_or_none
from prefroute.persistence import read_settings, write_config

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

    import numpy as np
    from numpy.typing import NDArray

    from prefroute.embedding._openai_client import Kind

logger = logging.getLogger(__name__)

_KNOWN_DIMENSIONS = {
    "text-embedding-3-large": 3072,
    "text-embedding-3-small": 1536,
    "text-embedding-ada-002": 1536,
}

_MOST_BYTES = 300_000
"""UTF-8 bytes of a request's texts. OpenAI takes 300,000 tokens, and no token is shorter than a byte."""


@dataclass(frozen=True, kw_only=True)
class _Settings:
    """The fields of `config.json`; a key is never one of them."""

    model: str
    dimensions: int | None
    base_url: str | None
    batch_size: int
    max_characters: int
    max_retries: int
    timeout: float
    concurrency: int

    def __post_init__(self) -> None:
        if not isinstance(self.model, str) or not self.model:
            msg = f"model must be the name of an embedding model, got {self.model!r}"
            raise ConfigurationError(msg)
        if self.dimensions is not None:
            as_size("dimensions", self.dimensions)
        if self.base_url is not None:
            _check_url(self.base_url)
        for name in ("batch_size", "max_characters", "concurrency"):
            as_size(name, getattr(self, name))
        if type(self.max_retries) is not int or self.max_retries < 0:
            msg = f"max_retries must be a whole number of at least 0, got {self.max_retries!r}"
            raise ConfigurationError(msg)
        if (finite_or_none(self.timeout) or 0) <= 0:
            msg = f"timeout must be a positive number of seconds, got {self.timeout!r}"
            raise ConfigurationError(msg)


def _check_url(url: object) -> None:
    parts = urlsplit(url) if isinstance(url, str) else None
    if parts is None or parts.scheme not in {"http", "https"} or not parts.netloc:
        msg = f"base_url must look like https://host/v1, got {type(url).__name__}"
        raise ConfigurationError(msg)
    # It is shown, saved and part of cache keys; not repeated here for the same reason.
    if "@" in parts.netloc or parts.query or parts.fragment:
        msg = "base_url must hold no user, password or query; give the key as api_key"
        raise ConfigurationError(msg)


class OpenAIEmbedder:
    """An embedding model of OpenAI or of a server like it: rows of length 1, one a text.

    A client is made at the first use; only then is the environment (`OPENAI_API_KEY`, `OPENAI_BASE_URL`) read,
    by the openai package. Requests that fail are tried again by that package. A text that the server finds too
    long is halved until it fits, which depends on that text alone. Text that is empty or all white space, which
    the servers refuse, gets the all-zero row. Safe to share between threads. Needs the extra `openai`.
    """

    embedder_type: ClassVar[str] = "openai"

    def __init__(
        self,
        model: str = "text-embedding-3-small",
        *,
        dimensions: int | None = None,
        base_url: str | None = None,
        api_key: str | SecretStr | None = None,
        client: Any = None,
        async_client: Any = None,
        batch_size: int = 256,
        max_characters: int = MAX_CHARACTERS,
        max_retries: int = 5,
        timeout: float = 60.0,
        concurrency: int = 4,
    ) -> None:
        """Note which model; nothing is opened yet.

        Args:
            model: Name of the model.
            dimensions: Length of a row, for models that can shorten theirs; None for the model's own.
            base_url: Of another server, such as `http://localhost:8000/v1`; None for the client's default.
            api_key: None for `OPENAI_API_KEY`. White space around it is dropped. Never shown or saved.
            client: An `openai.OpenAI` to use instead of one made here (of Azure, say); `base_url`, `api_key`,
                `max_retries` and `timeout` are then its own affair.
            async_client: The same for `aembed`, an `openai.AsyncOpenAI`. With `client` alone, `aembed` uses
                that in worker threads.
            batch_size: Most texts in a request (OpenAI takes 2,048).
            max_characters: Characters of a text that are sent at most.
            max_retries: How often the client repeats a request that was refused for load or failed on the way.
            timeout: Seconds to connect, and to wait for each piece of an answer; a server that sends a little
                now and then can take longer in all.
            concurrency: Requests of one call that are under way at once.

        Raises:
            ConfigurationError: A setting cannot be used.
        """
        self._settings = _Settings(
            model=model,
            dimensions=dimensions,
            base_url=base_url,
            batch_size=batch_size,
            max_characters=max_characters,
            max_retries=max_retries,
            timeout=timeout,
            concurrency=concurrency,
        )
        key = api_key.get_secret_value() if isinstance(api_key, SecretStr) else api_key
        self._api_key = None if key is None else SecretStr(as_key(key))
        self._client = client
        self._async_client = async_client
        self._is_stranger = False  # Whether base_url came with a folder, not from the caller.
        self._has_told_cut = False
        self._in_threads = client is not None and async_client is None
        self._loop_clients: dict[asyncio.AbstractEventLoop, Any] = {}
        self._making = threading.Lock()
        self._dimensions = dimensions or (_KNOWN_DIMENSIONS.get(model) if base_url is None else None)

    def __repr__(self) -> str:
        """The model and the server."""
        at = "" if self._settings.base_url is None else f", base_url={self._settings.base_url!r}"
        return f"{type(self).__name__}({self._settings.model!r}{at})"

    @property
    def model(self) -> str:
        """Name of the model."""
        return self._settings.model

    @property
    def dimensions(self) -> int | None:
        """Length of a row; None until a server other than OpenAI's has answered."""
        return self._dimensions

    @property
    def model_id(self) -> str:
        """Names the model for caches, with whatever changes its rows."""
        s = self._settings
        changes = {"dimensions": s.dimensions, "base_url": s.base_url, "max_characters": s.max_characters}
        return f"{self.embedder_type}:{s.model}:{changes}"

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts.

        Args:
            texts: n texts; any text at all is defined.

        Returns:
            Shape (n, d); each row has length 1, or is all zero where the text is blank.

        Raises:
            PromptTypeError: Something is not a str.
            MissingExtraError: openai is not installed.
            ConfigurationError: No client can be made, for want of a key say.
            EmbeddingError: The server refused, could not be reached, or gave something else than n rows.
        """
        checked = as_prompts(texts)
        wanted, places = without_blanks(checked, self._settings.max_characters)
        batches = self._batches(wanted)
        if len(batches) <= 1 or self._settings.concurrency == 1:
            parts = [self._embed_batch(batch) for batch in batches]
        else:
            with ThreadPoolExecutor(min(self._settings.concurrency, len(batches)), "prefroute-openai") as pool:
                parts = list(pool.map(self._embed_batch, batches))
        return with_blanks(parts, places, len(checked), self._dimensions)

    async def aembed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """`embed` without blocking the event loop; ends its requests when it is cancelled."""
        if self._in_threads:
            return await asyncio.to_thread(self.embed, texts)
        checked = as_prompts(texts)
        wanted, places = without_blanks(checked, self._settings.max_characters)
        slots = asyncio.Semaphore(self._settings.concurrency)

        async def within(batch: list[str]) -> NDArray[np.float32]:
            async with slots:
                return await self._aembed_batch(batch)

        tasks = [asyncio.ensure_future(within(batch)) for batch in self._batches(wanted)]
        try:
            parts = await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
        return with_blanks(parts, places, len(checked), self._dimensions)

    async def aclose(self) -> None:
        """Close the connections that `aembed` keeps open for the running event loop; it opens them anew if needed."""
        with self._making:
            client = self._loop_clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.close()

    def save_pretrained(self, path: str | Path) -> None:
        """Write `config.json`: the name of the model and its settings, never a key.

        Args:
            path: Folder; made if missing.
        """
        write_config(Path(path), {"embedder_type": self.embedder_type, "settings": asdict(self._settings)})

    @classmethod
    def from_pretrained(
        cls, path: str | Path, *, api_key: str | SecretStr | None = None, client: Any = None, async_client: Any = None
    ) -> Self:
        """Read what `save_pretrained` wrote.

        A `base_url` that comes with the folder is sent nothing of the environment (`OPENAI_API_KEY`,
        `OPENAI_ORG_ID`, `OPENAI_PROJECT_ID`, `OPENAI_CUSTOM_HEADERS`): whoever wrote the folder would have it. It
        is sent the prompts, which is logged as a warning that names the host.

        Args:
            path: Folder.
            api_key: As for the constructor; needed for a server named in the folder that asks for one.
            client: As for the constructor.
            async_client: As for the constructor.

        Returns:
            The embedder.

        Raises:
            PersistenceError: The folder holds no readable embedder.
        """
        folder = Path(path)
        settings = read_settings(_Settings, folder)
        if settings.base_url is not None and api_key is None:
            api_key = _NO_KEY
        loaded = cls(**asdict(settings), api_key=api_key, client=client, async_client=async_client)
        if settings.base_url is not None:
            loaded._is_stranger = True
            if client is None or async_client is None:
                host = urlsplit(settings.base_url).netloc
                logger.warning("the embedder saved in %s sends the prompts it is given to %s", folder, host)
        return loaded

    def _batches(self, wanted: list[str]) -> list[list[str]]:
        if not wanted and self._dimensions is None:
            return [[PROBE]]
        return batched(wanted, most_texts=self._settings.batch_size, most_bytes=_MOST_BYTES)

    def _embed_batch(self, texts: list[str]) -> NDArray[np.float32]:
        plan = steps(texts)
        asked = next(plan)
        try:
            while True:
                asked = plan.send(self._answer(asked))
        except StopIteration as done:
            rows: NDArray[np.float32] = done.value
            return rows

    async def _aembed_batch(self, texts: list[str]) -> NDArray[np.float32]:
        plan = steps(texts)
        asked = next(plan)
        try:
            while True:
                asked = plan.send(await self._aanswer(asked))
        except StopIteration as done:
            rows: NDArray[np.float32] = done.value
            return rows

    def _answer(self, texts: list[str]) -> NDArray[np.float32] | TooLong:
        try:
            answer = self._sync_client().embeddings.create(**self._request(texts))
        except (ConfigurationError, MissingExtraError):
            raise
        except Exception as error:  # noqa: BLE001 - the package's own, and those of odd answers
            failure = self._failure(error)
        else:
            return self._rows(answer, len(texts))
        return self._told(failure, texts)

    async def _aanswer(self, texts: list[str]) -> NDArray[np.float32] | TooLong:
        try:
            answer = await self._client_of_loop().embeddings.create(**self._request(texts))
        except (ConfigurationError, MissingExtraError):
            raise
        except Exception as error:  # noqa: BLE001 - as above
            failure = self._failure(error)
        else:
            return self._rows(answer, len(texts))
        return self._told(failure, texts)

    def _told(self, failure: EmbeddingError | TooLong, texts: list[str]) -> TooLong:
        """Raise a failure, outside of any `except`, which would chain it to the server's own words again."""
        if isinstance(failure, EmbeddingError):
            raise failure
        if len(texts) == 1 and not self._has_told_cut:
            self._has_told_cut = True
            logger.warning(
                "%r finds a text of %d characters too long; such texts are halved until they fit. Set max_characters "
                "to save the requests; this is said once",
                self,
                len(texts[0]),
            )
        return failure

    def _request(self, texts: list[str]) -> dict[str, Any]:
        shorter = {} if self._settings.dimensions is None else {"dimensions": self._settings.dimensions}
        return {"model": self._settings.model, "input": texts, **shorter}

    def _rows(self, answer: Any, count: int) -> NDArray[np.float32]:
        source = repr(self)
        data = getattr(answer, "data", None)
        if not isinstance(data, list):
            msg = f"{source} gave a {type(answer).__name__} without data; is base_url that of an OpenAI-like server?"
            raise EmbeddingError(msg)
        by_place = {index: item for item in data if type(index := getattr(item, "index", None)) in {int, float}}
        if len(data) != count or by_place.keys() != set(range(count)):
            msg = f"{source} gave {len(data)} rows with {len(by_place)} different places for {count} texts"
            raise EmbeddingError(msg)
        values = [getattr(by_place[place], "embedding", None) for place in range(count)]
        rows = as_rows(values, count=count, dimensions=self._dimensions, source=source)
        self._dimensions = rows.shape[1]
        return rows

    def _failure(self, error: Exception) -> EmbeddingError | TooLong:
        """What a failed request comes to: texts to shorten, or an error without a secret in it or in its chain."""
        status = getattr(error, "status_code", None)
        secrets = self._secrets()
        shown = masked(str(error), secrets)
        remedy = _REMEDIES.get(status, "see that the server runs, speaks OpenAI's protocol, and is that of base_url")
        failure = EmbeddingError(f"{self!r} got no rows: {type(error).__name__}: {shown[:500]}; {remedy}")
        failure.__cause__ = None if tells(error, secrets) else error
        failure.__suppress_context__ = True
        return TooLong(failure) if means_too_long(status, str(error)) else failure

    def _secrets(self) -> set[str]:
        with self._making:
            clients = [self._client, self._async_client, *self._loop_clients.values()]
        found = set().union(*map(secrets_of, clients))
        return found if self._api_key is None else found | {self._api_key.get_secret_value()}

    def _sync_client(self) -> Any:
        with self._making:
            if self._client is None:
                self._client = self._made("OpenAI")
            return self._client

    def _client_of_loop(self) -> Any:
        """The asynchronous client of this event loop; its connections cannot be used from another one."""
        if self._async_client is not None:
            return self._async_client
        loop = asyncio.get_running_loop()
        with self._making:
            for past in [known for known in self._loop_clients if known.is_closed()]:
                del self._loop_clients[past]
            if loop not in self._loop_clients:
                self._loop_clients[loop] = self._made("AsyncOpenAI")
            return self._loop_clients[loop]

    def _made(self, kind: Kind) -> Any:
        return make_client(
            kind,
            source=repr(self),
            api_key=None if self._api_key is None else self._api_key.get_secret_value(),
            is_apart=self._is_stranger,
            base_url=self._settings.base_url,
            timeout=self._settings.timeout,
            max_retries=self._settings.max_retries,
        )


_NO_KEY = "none"
"""What a server is sent that asks for no key."""

_REMEDIES: dict[object, str] = {
    401: "check the key; a base_url that came with a saved router is not sent OPENAI_API_KEY, so give api_key=",
    403: "check the key and what it may do",
    404: "check the model's name and base_url",
    429: "raise max_retries, lower concurrency, or check the account's limits",
}
