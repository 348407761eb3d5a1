"""The OpenAI embedder against a small server on this machine."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import subprocess
import sys
import traceback
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from prefroute.embedding import as_embedder, load_embedder, save_embedder
from prefroute.embedding._requests import means_too_long
from prefroute.embedding._secrets import masked, tells
from prefroute.embedding.openai import OpenAIEmbedder
from prefroute.errors import ConfigurationError, EmbeddingError, MissingExtraError, PromptTypeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

KEY = "sk-a-very-secret-key-0123456789"
HOSTILE = ["", " \n\t", "\ud800x", "\0", "\U0001f600" * 50, "a" * 1_000_000, "中文" * 30, "<|endoftext|>"]

openai = pytest.importorskip("openai")


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    for name in ("BASE_URL", "ADMIN_KEY", "ORG_ID", "PROJECT_ID", "CUSTOM_HEADERS"):
        monkeypatch.delenv(f"OPENAI_{name}", raising=False)


@pytest.fixture
def make(server: Any) -> Iterator[Callable[..., OpenAIEmbedder]]:
    made: list[OpenAIEmbedder] = []

    def embedder(**settings: Any) -> OpenAIEmbedder:
        made.append(OpenAIEmbedder("m", **{"base_url": server.url, "api_key": KEY, "timeout": 30.0} | settings))
        return made[-1]

    yield embedder
    for one in made:
        if one._client is not None:
            one._client.close()


def test_rows_stand_where_their_texts_do(server: Any, make: Callable[..., OpenAIEmbedder]) -> None:
    texts = [f"text {number}" for number in range(23)]
    embedder = make(batch_size=5)
    assert embedder.dimensions is None
    rows = embedder.embed(texts)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, server.vectors(texts), atol=1e-6)
    assert sorted(len(request["input"]) for request in server.requests) == [3, 5, 5, 5, 5]
    assert {request["model"] for request in server.requests} == {"m"}
    assert embedder.dimensions == 8
    assert set(server.keys) == {f"Bearer {KEY}"}


def test_a_request_stays_below_the_limit_of_bytes(server: Any, make: Callable[..., OpenAIEmbedder]) -> None:
    server.most_characters = 40_000
    make(concurrency=1).embed(["é" * 30_000] * 12)
    assert [len(request["input"]) for request in server.requests] == [5, 5, 2]


async def test_async_gives_the_same_rows(server: Any, make: Callable[..., OpenAIEmbedder]) -> None:
    embedder = make(batch_size=3)
    texts = [*HOSTILE, *(f"text {number}" for number in range(10))]
    rows = await embedder.aembed(texts)
    await embedder.aclose()
    assert await embedder.aembed([]) is not None
    np.testing.assert_array_equal(rows, await asyncio.to_thread(embedder.embed, texts))


def test_one_embedder_serves_one_event_loop_after_another(server: Any, make: Callable[..., OpenAIEmbedder]) -> None:
    embedder = make()

    async def use() -> Any:
        rows = await embedder.aembed(["a", "b"])
        await embedder.aclose()
        return rows

    first, second = asyncio.run(use()), asyncio.run(use())
    np.testing.assert_array_equal(first, second)
    assert not embedder._loop_clients


async def test_async_lets_the_event_loop_run(server: Any, make: Callable[..., OpenAIEmbedder]) -> None:
    embedder = make()
    server.gate.clear()
    asked = asyncio.create_task(embedder.aembed(["a"]))
    # The server waits for a gate that only this loop opens: were the loop blocked, this would never end.
    assert await asyncio.to_thread(server.arrived.wait, 30)
    assert not asked.done()
    server.gate.set()
    assert (await asked).shape == (1, 8)
    await embedder.aclose()


async def test_a_client_of_ones_own_is_used_for_both(server: Any) -> None:
    with openai.OpenAI(api_key=KEY, base_url=server.url) as client:
        embedder = OpenAIEmbedder("m", client=client)
        rows = await embedder.aembed(["a"])
    async with openai.AsyncOpenAI(api_key=KEY, base_url=server.url) as client:
        np.testing.assert_array_equal(rows, await OpenAIEmbedder("m", async_client=client).aembed(["a"]))


@pytest.mark.parametrize("concurrency", [1, 4])
def test_hostile_text_gives_finite_rows_batched_or_alone(
    concurrency: int, server: Any, make: Callable[..., OpenAIEmbedder]
) -> None:
    server.most_characters = 9_000
    embedder = make(concurrency=concurrency)
    rows = embedder.embed(HOSTILE)
    assert np.isfinite(rows).all()
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), [0, 0, 1, 1, 1, 1, 1, 1], atol=1e-6)
    alone = np.vstack([embedder.embed([text]) for text in HOSTILE])
    np.testing.assert_array_equal(rows, alone)


@pytest.mark.parametrize("texts", [[], ["", " "]])
def test_blank_text_needs_the_length_of_a_row_alone(
    texts: list[str], server: Any, make: Callable[..., OpenAIEmbedder]
) -> None:
    embedder = make()
    rows = embedder.embed(texts)
    assert rows.shape == (len(texts), 8)
    assert not rows.any()
    embedder.embed(texts)
    assert len(server.requests) == 1
    assert OpenAIEmbedder().embed(texts).shape == (len(texts), 1536)  # Known without asking.


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (400, "This model's maximum context length is 512 tokens. However, you requested 3000 tokens"),
        (400, "Invalid 'input[0]': maximum input length is 8192 tokens."),
        (413, "Input validation error: `inputs` must have less than 512 tokens. Given: 3000"),
        (500, "input is too large to process. increase the physical batch size"),
        (400, "the input length exceeds the context length"),
    ],
)
def test_only_texts_that_are_too_long_are_halved_until_they_fit(
    status: int, message: str, server: Any, make: Callable[..., OpenAIEmbedder], refusal: Callable[..., dict[str, Any]]
) -> None:
    server.most_characters, server.too_long = 300, (status, refusal(message))
    texts = ["short", "x" * 1000, "   " + "y" * 500, "z" * 300, "short too"]
    rows = make(max_retries=0, max_characters=900).embed(texts)
    read = ["short", "x" * 225, "y" * 250, "z" * 300, "short too"]
    np.testing.assert_allclose(rows, server.vectors(read), atol=1e-6)


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (500, "context deadline exceeded"),
        (500, "context canceled"),
        (500, "unexpected token < in JSON"),
        (500, "request with 12 tokens failed: too large a backlog"),
        (400, "invalid authentication token"),
        (400, "request timed out: input is too long in the queue"),
        (401, "maximum context length"),
        (None, "maximum context length"),
    ],
)
def test_what_is_not_about_length_is_not_taken_for_it(status: int | None, message: str) -> None:
    assert not means_too_long(status, message)


@pytest.mark.parametrize(
    "message",
    [
        "input (5000 tokens) is too large to process. increase the physical batch size",
        "This model has a context window of 512",
        "maximum number of tokens exceeded",
        "Too many tokens",
    ],
)
def test_an_explicit_phrase_is_about_length_with_500_too(message: str) -> None:
    assert means_too_long(500, message)


def test_a_passing_failure_shortens_no_text(
    server: Any, make: Callable[..., OpenAIEmbedder], refusal: Callable[..., dict[str, Any]]
) -> None:
    server.replies = [(500, refusal("context deadline exceeded"))]
    with pytest.raises(EmbeddingError, match="deadline"):
        make(max_retries=0).embed(["one two three four"])
    assert len(server.requests) == 1


def test_that_a_text_is_cut_is_said_once(
    server: Any, make: Callable[..., OpenAIEmbedder], caplog: pytest.LogCaptureFixture
) -> None:
    server.most_characters = 100
    embedder = make(max_retries=0)
    embedder.embed(["short"])
    assert not caplog.records
    embedder.embed(["x" * 1000, "y" * 300])
    embedder.embed(["z" * 1000])
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "of 1000 characters too long" in record.getMessage()


def test_a_server_that_finds_everything_too_long_is_an_error(server: Any, make: Callable[..., OpenAIEmbedder]) -> None:
    server.answer = lambda request: server.too_long
    with pytest.raises(EmbeddingError, match="maximum context length"):
        make().embed(["four", "five5"])
    assert len(server.requests) < 20


def test_a_busy_server_is_asked_again(
    server: Any, make: Callable[..., OpenAIEmbedder], refusal: Callable[..., dict[str, Any]]
) -> None:
    server.replies = [(429, refusal("Rate limit reached")), (503, refusal("overloaded"))]
    assert make(max_retries=2).embed(["a"]).shape == (1, 8)
    assert len(server.requests) == 3
    server.replies = [(429, refusal("Rate limit reached"))]
    with pytest.raises(EmbeddingError, match=r"RateLimitError.*raise max_retries") as caught:
        make(max_retries=0).embed(["a"])
    assert isinstance(caught.value.__cause__, openai.RateLimitError)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[1.0, 0.0]], "gave 1 rows"),
        ([[1.0, 0.0]] * 3, "gave 3 rows"),
        ([[1.0, 0.0], [1.0]], "not lists of numbers of one length"),
        ([[1.0, 0.0], [1.0, None]], "not"),
        ([[1.0, 0.0], [1.0, 1e39]], "not finite"),
        ([[1.0, 0.0], [1.0, float("nan")]], "not finite"),
        ([[], []], "shape"),
    ],
)
def test_odd_answers_are_errors_that_say_what_came(
    rows: Any, message: str, server: Any, make: Callable[..., OpenAIEmbedder]
) -> None:
    server.answer = lambda request: (200, server.answer_of(rows))
    with pytest.raises(EmbeddingError, match=message):
        make().embed(["a", "b"])


def test_rows_of_another_length_than_asked_for_are_an_error(server: Any, make: Callable[..., OpenAIEmbedder]) -> None:
    assert make(dimensions=4).embed(["a"]).shape == (1, 4)
    assert server.requests[0]["dimensions"] == 4
    server.answer = lambda request: (200, server.answer_of([[1.0] * 8]))  # It knows of no dimensions.
    with pytest.raises(EmbeddingError, match="length 8, wanted 4"):
        make(dimensions=4).embed(["a"])


def test_one_place_given_twice_is_an_error(server: Any, make: Callable[..., OpenAIEmbedder]) -> None:
    def twice(request: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        answer = server.answer_of([[1.0], [2.0]])
        answer["data"][0]["index"] = 0
        return 200, answer

    server.answer = twice
    with pytest.raises(EmbeddingError, match="1 different places for 2 texts"):
        make().embed(["a", "b"])


@pytest.mark.parametrize("index", [[0], {"a": 0}, None, "0", float("nan"), 1e300])
def test_a_place_that_is_no_number_is_an_error(index: Any, server: Any, make: Callable[..., OpenAIEmbedder]) -> None:
    answer = server.answer_of([[1.0]])
    answer["data"][0]["index"] = index
    server.answer = lambda request: (200, answer)
    with pytest.raises(EmbeddingError, match="different places for 1 texts"):
        make().embed(["a"])


@pytest.mark.parametrize("body", [{}, {"data": []}, {"data": None}, {"data": "x"}, ["x"]])
def test_an_answer_of_another_kind_is_an_error(body: Any, server: Any, make: Callable[..., OpenAIEmbedder]) -> None:
    server.answer = lambda request: (200, body)
    with pytest.raises(EmbeddingError):
        make().embed(["a"])


def test_a_server_that_is_not_there_is_an_error_with_a_remedy(server: Any) -> None:
    embedder = OpenAIEmbedder("m", base_url="http://127.0.0.1:1/v1", api_key=KEY, max_retries=0)
    with pytest.raises(EmbeddingError, match="see that the server runs"):
        embedder.embed(["a"])


def test_the_key_is_never_shown(
    server: Any,
    make: Callable[..., OpenAIEmbedder],
    refusal: Callable[..., dict[str, Any]],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    embedder = make(max_retries=0)
    caplog.set_level(logging.DEBUG)
    server.answer = lambda request: (401, refusal(f"Incorrect API key provided: {KEY}"))
    with pytest.raises(EmbeddingError, match=r"provided: \*\*\*.*check the key") as caught:
        embedder.embed(["a"])
    chain = [repr(error) + str(error) for error in (caught.value, caught.value.__cause__) if error]
    assert caught.value.__suppress_context__
    save_embedder(embedder, tmp_path)
    written = "".join(file.read_text() for file in tmp_path.iterdir())
    assert KEY not in "".join([*chain, repr(embedder), embedder.model_id, written, caplog.text, repr(vars(embedder))])


@pytest.mark.parametrize(
    "bad", ["", " ", "sk-private 1234567", "sk-private\x01234567", "sk-private-\xe9-1234", "a\nsk-private"]
)
def test_a_key_that_no_header_can_hold_is_refused_without_being_shown(bad: str) -> None:
    with pytest.raises(ConfigurationError, match="not shown here") as caught:
        OpenAIEmbedder("m", api_key=bad)
    assert "private" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("where", ["argument", "environment"])
def test_a_newline_after_the_key_is_no_part_of_it(
    where: str,
    server: Any,
    make: Callable[..., OpenAIEmbedder],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("OPENAI_API_KEY", f"{KEY}\n")
    make(api_key=f" {KEY}\n" if where == "argument" else None).embed(["a"])
    assert server.keys == [f"Bearer {KEY}"]
    assert KEY not in caplog.text
    monkeypatch.setenv("OPENAI_API_KEY", "\n")
    with pytest.raises(ConfigurationError, match="no API key"):
        make(api_key=None).embed(["a"])


def test_a_secret_anywhere_in_what_led_to_a_failure_breaks_the_chain(
    server: Any, make: Callable[..., OpenAIEmbedder], monkeypatch: pytest.MonkeyPatch
) -> None:
    embedder = make(max_retries=0)
    client = embedder._sync_client()
    inner, outer = ValueError(f"Illegal header value {f'Bearer {KEY}'.encode()!r}"), OSError("connection error")

    def fail(**_: Any) -> None:
        try:
            raise inner
        except ValueError:
            raise outer from None

    monkeypatch.setattr(client.embeddings, "create", fail)
    with pytest.raises(EmbeddingError, match="connection error") as caught:
        embedder.embed(["a"])
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert KEY not in "".join(traceback.format_exception(caught.value))


def test_a_secret_is_known_in_every_form() -> None:
    secret = 'key-"1\t2\n-and-more'
    for form in (secret, repr(secret), repr(secret.encode()), json.dumps(secret)):
        assert "and-more" not in masked(f"<{form}>", {secret})
        assert tells(ValueError(form), {secret})
    error = ValueError("calm")
    error.add_note(secret)
    assert tells(ExceptionGroup("several", [error]), {secret})
    assert not tells(ValueError("calm"), {secret})
    assert masked("a none of it", {"none"}) == "a none of it"


def test_values_of_default_headers_are_masked_as_keys_are(server: Any, refusal: Callable[..., dict[str, Any]]) -> None:
    token = "a-token-of-the-gateway"
    server.answer = lambda request: (403, refusal(f"{token} may not; send application/json"))
    headers = {"X-Gateway": f"Token {token}"}
    with (
        openai.OpenAI(api_key=KEY, base_url=server.url, default_headers=headers, max_retries=0) as client,
        pytest.raises(EmbeddingError, match=r"\*\*\* may not; send application/json") as caught,
    ):
        OpenAIEmbedder("m", client=client).embed(["a"])
    assert token not in "".join(traceback.format_exception(caught.value))


def test_a_header_of_the_environment_that_cannot_be_sent_is_refused_without_being_shown(
    make: Callable[..., OpenAIEmbedder], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("OPENAI_ORG_ID", "org-secret\n")
    with pytest.raises(ConfigurationError, match="header 'OpenAI-Organization'") as caught:
        make().embed(["a"])
    assert "org-secret" not in "".join(traceback.format_exception(caught.value)) + caplog.text


@pytest.mark.parametrize("url", ["http://me:password1@host/v1", "https://h/v1?key=password1", "host", "ftp://x", 3])
def test_a_url_with_a_secret_in_it_is_refused_without_repeating_it(url: Any) -> None:
    with pytest.raises(ConfigurationError, match="base_url must") as caught:
        OpenAIEmbedder(base_url=url)
    assert "password1" not in str(caught.value)


def test_it_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    embedder = OpenAIEmbedder("text-embedding-3-large", dimensions=256, batch_size=7, timeout=5, concurrency=2)
    save_embedder(embedder, tmp_path)
    loaded = load_embedder(tmp_path)
    assert isinstance(loaded, OpenAIEmbedder)
    assert loaded._settings == embedder._settings
    assert loaded.model_id == embedder.model_id
    assert loaded.dimensions == 256
    assert as_embedder("openai:text-embedding-3-small").model_id == OpenAIEmbedder().model_id  # type: ignore[attr-defined]


def test_a_saved_url_is_not_sent_the_key_of_the_environment(
    server: Any, make: Callable[..., OpenAIEmbedder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    save_embedder(make(), tmp_path)
    loaded = load_embedder(tmp_path)
    loaded.embed(["a"])
    assert server.keys == ["Bearer none"]
    own = OpenAIEmbedder.from_pretrained(tmp_path, api_key="another-key")
    own.embed(["a"])
    assert server.keys[-1] == "Bearer another-key"
    for one in (loaded, own):
        one._client.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("key", [None, "a-key-of-that-server"])
async def test_a_saved_url_is_sent_nothing_of_the_environment(
    key: str | None,
    server: Any,
    make: Callable[..., OpenAIEmbedder],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_ADMIN_KEY", "mine-admin")
    monkeypatch.setenv("OPENAI_ORG_ID", "mine-org")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "mine-project")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "Authorization: Bearer mine\nX-Mine: mine-x\nuser-agent-2: mine")
    save_embedder(make(), tmp_path)
    make().embed(["a"])
    assert "mine-org" in server.headers[0].values()  # That they would be sent is what this is about.
    server.headers.clear()
    caplog.clear()
    loaded = OpenAIEmbedder.from_pretrained(tmp_path, api_key=key)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert server.url.split("/")[2] in record.getMessage()
    await asyncio.to_thread(loaded.embed, ["a"])
    await loaded.aembed(["b"])
    await loaded.aclose()
    loaded._client.close()
    assert len(server.headers) == 2
    for headers in server.headers:
        assert headers["authorization"] == f"Bearer {key or 'none'}"
        assert not {"openai-organization", "openai-project", "x-mine", "user-agent-2"} & headers.keys()
        assert "mine" not in "".join(headers.values())
    assert len(caplog.records) == 1


def test_without_a_key_the_error_says_where_one_is_looked_for() -> None:
    with pytest.raises(ConfigurationError, match="OPENAI_API_KEY"):
        OpenAIEmbedder().embed(["a"])


def test_without_the_package_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openai", None)
    embedder = OpenAIEmbedder()
    with pytest.raises(MissingExtraError, match=r"prefroute\[openai\]"):
        embedder.embed(["a"])


@pytest.mark.parametrize(
    "settings",
    [
        {"model": ""},
        {"model": None},
        {"dimensions": 0},
        {"dimensions": 2.5},
        {"batch_size": 0},
        {"batch_size": True},
        {"max_characters": -1},
        {"max_retries": -1},
        {"timeout": 0},
        {"timeout": float("inf")},
        {"concurrency": 0},
    ],
)
def test_settings_that_cannot_be_used_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(settings))):
        OpenAIEmbedder(**settings)


@pytest.mark.parametrize("bad", ["one text", [None], [b"x"], 3])
def test_what_is_not_text_is_refused_before_anything_is_asked(
    bad: Any, server: Any, make: Callable[..., OpenAIEmbedder]
) -> None:
    with pytest.raises(PromptTypeError):
        make().embed(bad)
    assert not server.requests


def test_threads_share_it(server: Any, make: Callable[..., OpenAIEmbedder]) -> None:
    embedder = make()
    texts = [f"text {number}" for number in range(64)]
    with ThreadPoolExecutor(16) as pool:
        rows = np.vstack(list(pool.map(lambda text: embedder.embed([text]), texts)))
    np.testing.assert_allclose(rows, server.vectors(texts), atol=1e-6)


async def test_a_cancelled_call_ends_its_requests(server: Any, make: Callable[..., OpenAIEmbedder]) -> None:
    embedder = make(batch_size=1, concurrency=1)
    server.gate.clear()
    asked = asyncio.create_task(embedder.aembed(["a", "b", "c"]))
    assert await asyncio.to_thread(server.arrived.wait, 30)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    server.gate.set()
    await embedder.aembed(["d"])
    await embedder.aclose()
    assert server.texts == ["a", "d"]


def test_making_one_reads_no_environment_and_loads_no_client() -> None:
    code = """
import os, sys, json
class Guarded(type(os.environ)):
    def __getitem__(self, name): raise SystemExit(f"read {name}")
from prefroute.embedding.openai import OpenAIEmbedder
os.environ.__class__ = Guarded
embedder = OpenAIEmbedder(base_url="http://localhost:1/v1")
repr(embedder), embedder.model_id, embedder.dimensions
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {"openai", "httpx", "httpx2", "torch"}.isdisjoint(json.loads(done.stdout))
    gc.collect()
