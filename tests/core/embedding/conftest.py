"""A small server with the protocol of OpenAI's embeddings, on this machine alone."""

from __future__ import annotations

import base64
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import pytest_socket

from prefroute.testing import FakeEmbedder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

Reply = tuple[int, dict[str, Any]]


def refusal(message: str, **fields: Any) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None, **fields}}


@dataclass
class EmbeddingServer:
    """What it was asked, and how it answers.

    `replies` are given first, in order; `answer`, where set, makes the rest from the request.
    """

    url: str = ""
    dimensions: int = 8
    most_characters: int = 10_000
    too_long: Reply = (400, refusal("This model's maximum context length is 8192 tokens, however you requested 9000"))
    replies: list[Reply] = field(default_factory=list)
    answer: Callable[[dict[str, Any]], Reply] | None = None
    requests: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    arrived: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.gate.set()

    @property
    def texts(self) -> list[str]:
        return [text for request in self.requests for text in request["input"]]

    def vectors(self, texts: list[str], dimensions: int | None = None) -> NDArray[np.float32]:
        return FakeEmbedder(dimensions or self.dimensions).embed(texts)

    def reply(self, request: dict[str, Any]) -> Reply:
        self.requests.append(request)
        self.arrived.set()
        assert self.gate.wait(30)
        if self.replies:
            return self.replies.pop(0)
        if self.answer is not None:
            return self.answer(request)
        texts = request["input"]
        if any(not text.strip() for text in texts):
            return 400, refusal("'$.input' is invalid")
        if any(len(text) > self.most_characters for text in texts):
            return self.too_long
        return 200, self.answer_of(self.vectors(texts, request.get("dimensions")), request.get("encoding_format"))

    @staticmethod
    def answer_of(rows: Any, encoding: str | None = None) -> dict[str, Any]:
        data = []
        for index, row in enumerate(rows):
            values: Any = [None if value is None else float(value) for value in row]
            if encoding == "base64":
                values = base64.b64encode(np.asarray(row, dtype=np.float32).tobytes()).decode()
            data.append({"object": "embedding", "index": index, "embedding": values})
        # In any order: only the index says which text a row belongs to.
        return {"object": "list", "model": "m", "data": data[::-1], "usage": {"prompt_tokens": 1, "total_tokens": 1}}


@pytest.fixture
def server() -> Iterator[EmbeddingServer]:
    state = EmbeddingServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            state.keys.append(self.headers.get("Authorization"))
            state.headers.append({name.lower(): value for name, value in self.headers.items()})
            status, body = state.reply(request)
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.send_header("retry-after-ms", "1")
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    pytest_socket.socket_allow_hosts(["127.0.0.1"], allow_unix_socket=True)
    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    http.block_on_close = False
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{http.server_port}/v1"
    yield state
    state.gate.set()
    http.shutdown()
    http.server_close()
    thread.join()
    pytest_socket.enable_socket()
    pytest_socket._remove_restrictions()


@pytest.fixture(name="refusal")
def _refusal() -> Callable[..., dict[str, Any]]:
    return refusal
