"""Model providers on the loopback interface, as far as the code between their clients and a router needs them.

What a client does with a dropped stream, an early `aclose()` or an argument that its provider does not know shows
only when the real client talks to something real. `openai_server` and `anthropic_server` speak the two
protocols; here is what they share: HTTP, the faults, and the books that a test looks into.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import threading
import time
from abc import ABC, abstractmethod
from concurrent.futures import Future
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Self, get_type_hints

import pytest
import pytest_socket

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

Body = dict[str, Any]

HOST = "127.0.0.1"
REASONS = {
    413: "Content Too Large",
    422: "Unprocessable Content",
    200: "OK",
    301: "Moved Permanently",
    302: "Found",
    307: "Temporary Redirect",
    308: "Permanent Redirect",
    400: "Bad Request",
    401: "Unauthorized",
    402: "Payment Required",
    403: "Forbidden",
    404: "Not Found",
    408: "Request Timeout",
    429: "Too Many Requests",
    500: "Internal Server Error",
    503: "Service Unavailable",
    504: "Gateway Timeout",
    524: "A Timeout Occurred",
}
STOP_WITHIN = 10.0
# Clients wait so long before they repeat a request; by themselves they would wait half a second and more.
RETRY_AFTER = "retry-after-ms: 1"


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one request. Of all but `delay`, give one.

    Args:
        status: Answer 429 or 500, say, in the provider's own form.
        message: What the provider says then, in place of its usual words.
        retry_after: The header that says when to come again, or any other in its place.
        hang: Do not answer, until the client goes away or the server stops.
        drop: Close the connection where the answer should begin.
        drop_after: Close the connection after so many events of a stream, or all if it has fewer, without its end.
        garbled: Send half of the answer, or of each event of a stream, as if it were all.
        broken: Close the connection in the middle of an answer that is no stream.
        trickle: Send blanks so many seconds apart, and never an answer.
        delay: Seconds between the events of a stream, or before an answer that is not one.
    """

    status: int | None = None
    message: str | None = None
    retry_after: str = RETRY_AFTER
    hang: bool = False
    drop: bool = False
    drop_after: int | None = None
    garbled: bool = False
    broken: bool = False
    trickle: float = 0.0
    delay: float = 0.0


class Refused(Exception):  # noqa: N818 - named for what the provider does with the request
    """The provider would answer this request with an error."""

    def __init__(self, message: str, *, status: int = 400, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.param = param
        self.code = code


def require(
    condition: object, message: str, *, status: int = 400, param: str | None = None, code: str | None = None
) -> None:
    """Refuse a request that does not meet the condition."""
    if not condition:
        raise Refused(message, status=status, param=param, code=code)


class ProviderServer(ABC):
    """One provider, serving from `with` to the end of it, on a thread of its own.

    Args:
        faults: Asked on the server's thread with each request's body; None for an answer without fault. It may be
            replaced while the server runs.
        keep_alive: Leave connections open between requests. By default each is closed after its answer:
            frameworks keep their clients beyond the end of a test's event loop, and a connection kept from a closed
            loop cannot be used again.

    Attributes:
        port: Where it listens.
        aborted: How many requests lost their client before the end of their answer.
        errors: What failed in the server itself or in `faults`; the first is raised when the server stops.
    """

    path: str

    def __init__(self, faults: Callable[[Body], Fault | None] | None = None, *, keep_alive: bool = False) -> None:
        self.faults = faults
        self.keep_alive = keep_alive
        self.aborted = 0
        self.errors: list[Exception] = []
        self._requests: list[Body] = []
        self._headers: list[dict[str, str]] = []
        self._lock = threading.Lock()
        self._connections: set[asyncio.Task[None]] = set()
        self.port = 0

    # --- the provider ---

    @abstractmethod
    def check(self, body: Body) -> None:
        """Raise Refused for what the provider would not take."""

    @abstractmethod
    def complete(self, body: Body) -> Body:
        """The whole answer."""

    @abstractmethod
    def tokens(self, body: Body) -> tuple[int, int]:
        """Tokens of the prompt and of the answer, as the answer counts them."""

    @abstractmethod
    def events(self, body: Body) -> Iterable[str]:
        """The answer as server-sent events."""

    @abstractmethod
    def error(self, refused: Refused) -> Body:
        """The body of an error."""

    @abstractmethod
    def failure(self, status: int) -> Refused:
        """What the provider says with this status."""

    # --- what a test sees ---

    @property
    def origin(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def requests(self) -> list[Body]:
        """The bodies so far, those that were refused or went wrong among them."""
        with self._lock:
            return list(self._requests)

    @property
    def headers(self) -> list[dict[str, str]]:
        """The headers so far, by lower-case name."""
        with self._lock:
            return list(self._headers)

    @property
    def open_connections(self) -> int:
        return len(self._connections)

    def __enter__(self) -> Self:
        started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event, int]] = Future()
        serve = self._serve(started)
        self._thread = threading.Thread(target=asyncio.run, args=(serve,), name=type(self).__name__)
        self._thread.start()
        self._loop, self._stop, self.port = started.result(STOP_WITHIN)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(STOP_WITHIN)
        assert not self._thread.is_alive(), f"did not stop in {STOP_WITHIN:g} s"
        if self.errors:
            raise self.errors[0]

    # --- HTTP, on the server's thread ---

    async def _serve(self, started: Future[Any]) -> None:
        stop = asyncio.Event()
        try:
            server = await asyncio.start_server(self._connection, HOST, 0, backlog=1024)
        except Exception as error:  # noqa: BLE001 - for whoever starts the server; pytest-socket's are of any kind
            started.set_exception(error)
            return
        started.set_result((asyncio.get_running_loop(), stop, server.sockets[0].getsockname()[1]))
        await stop.wait()
        server.close()
        await asyncio.sleep(0)  # Connections just accepted get to their first step.
        connections = tuple(self._connections)
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections)
        await server.wait_closed()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            while await self._exchange(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # The client went away between two requests.
        except asyncio.CancelledError:
            writer.transport.abort()  # The server stops, and the client may not read what is left.
        except Exception as error:  # noqa: BLE001 - told to the test when the server stops
            self.errors.append(error)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()
            self._connections.discard(task)

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request and its answer; whether the connection stays open."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
        payload = await reader.readexactly(int(headers.get("content-length", 0)))
        with self._lock:
            self._headers.append(headers)
        # The client sends no more until it has the answer: whatever can be read now is the end of the connection.
        gone = asyncio.ensure_future(reader.read(1))
        try:
            complete = await self._respond(writer, head[0], payload, gone)
            self.aborted += gone.done() and not complete
        except ConnectionError:
            self.aborted += 1
            return False
        finally:
            gone.cancel()
            await asyncio.gather(gone, return_exceptions=True)
        return complete and self.keep_alive and gone.cancelled()

    async def _respond(
        self, writer: asyncio.StreamWriter, request_line: str, payload: bytes, gone: asyncio.Future[bytes]
    ) -> bool:
        """Whether the client got all that it was to get."""
        try:
            body = self._body(request_line, payload)
        except Refused as refused:
            return await self._send(writer, refused.status, self.error(refused))
        fault = (self.faults and self.faults(body)) or Fault()
        if fault.hang:
            await gone
        if fault.hang or fault.drop:
            return False
        if fault.status is not None:
            refused = self.failure(fault.status)
            refused.message = refused.message if fault.message is None else fault.message
            return await self._send(writer, fault.status, self.error(refused), extra=(fault.retry_after,))
        if body.get("stream"):
            events = (f"{_half(event)}\n\n" for event in self.events(body)) if fault.garbled else self.events(body)
            return await self._send_events(writer, events, fault, gone)
        if not await _still_there(gone, fault.delay):
            return False
        answer = self.complete(body)
        has_end = not (fault.trickle or fault.broken)
        return await (
            self._send(writer, 200, answer, garbled=fault.garbled)
            if has_end
            else self._send_no_end(writer, answer, fault, gone)
        )

    def _body(self, request_line: str, payload: bytes) -> Body:
        method, target, _ = request_line.split(" ")
        known = (method, target.partition("?")[0]) == ("POST", self.path)
        require(known, f"Invalid URL ({method} {target})", status=404)
        body: Body = json.loads(payload)
        with self._lock:
            self._requests.append(body)
        self.check(body)
        return body

    async def _send(
        self,
        writer: asyncio.StreamWriter,
        status: int,
        body: Body,
        *,
        extra: tuple[str, ...] = (),
        garbled: bool = False,
    ) -> bool:
        text = json.dumps(body, ensure_ascii=False)
        payload = (_half(text) if garbled else text).encode()
        self._write_head(writer, status, "application/json", f"content-length: {len(payload)}", *extra)
        writer.write(payload)
        await writer.drain()
        return True

    async def _send_no_end(
        self, writer: asyncio.StreamWriter, body: Body, fault: Fault, gone: asyncio.Future[bytes]
    ) -> bool:
        text = json.dumps(body)
        self._write_head(writer, 200, "application/json", f"content-length: {len(text)}")
        if fault.broken:
            writer.write(_half(text).encode())
            return False
        while await _still_there(gone, fault.trickle):
            writer.write(b" ")
        return False

    async def _send_events(
        self, writer: asyncio.StreamWriter, events: Iterable[str], fault: Fault, gone: asyncio.Future[bytes]
    ) -> bool:
        self._write_head(writer, 200, "text/event-stream; charset=utf-8", "transfer-encoding: chunked")
        for number, event in enumerate(itertools.islice(events, fault.drop_after)):
            if not await _still_there(gone, fault.delay if number else 0.0):
                return False
            payload = event.encode()
            writer.write(b"%x\r\n%b\r\n" % (len(payload), payload))
            await writer.drain()
        if fault.drop_after is not None:
            return False
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True

    def _write_head(self, writer: asyncio.StreamWriter, status: int, content_type: str, *more: str) -> None:
        connection = "connection: keep-alive" if self.keep_alive else "connection: close"
        lines = [f"HTTP/1.1 {status} {REASONS[status]}", f"content-type: {content_type}", connection, *more, "", ""]
        writer.write("\r\n".join(lines).encode("latin-1"))


def _half(text: str) -> str:
    return text[: len(text) // 2]


async def _still_there(gone: asyncio.Future[bytes], delay: float) -> bool:
    """Let others run, `delay` seconds if the client does not go away before; whether it is still there."""
    if delay:
        await asyncio.wait({gone}, timeout=delay)
    else:
        await asyncio.sleep(0)
    return not gone.done()


@cache
def fields(typed_dict: Any) -> frozenset[str]:
    """The names that a provider's own package gives to what may be in this object."""
    return frozenset(get_type_hints(typed_dict))


def unknown(given: Mapping[str, Any], *known: Any) -> list[str]:
    """What is in `given` and in none of the TypedDicts."""
    return sorted(set(given).difference(*map(fields, known)))


def until(condition: Callable[[], object], within: float = 5.0) -> None:
    """Wait for what the server's thread is about to see."""
    end = time.monotonic() + within
    while not condition():
        assert time.monotonic() < end, f"not within {within:g} s"
        time.sleep(0.002)


@contextlib.contextmanager
def only_loopback() -> Iterator[None]:
    """Sockets to 127.0.0.1 and nowhere else, for a fixture `_no_network` in place of the one in conftest."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("no_proxy", "NO_PROXY"):
            patch.setenv(name, HOST)
        pytest_socket.socket_allow_hosts([HOST], allow_unix_socket=True)
        yield
        pytest_socket._remove_restrictions()
