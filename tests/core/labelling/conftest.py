"""What the tests of labelling share: the three models on the loopback interface, and prompts."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from loopback import LabellingServer, only_loopback

from prefroute.labelling import Endpoint, LabelSummary, PairwiseJudge, label_prompts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

Rows = list[dict[str, Any]]


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("API_KEY", "BASE_URL", "ADMIN_KEY", "ORG_ID", "PROJECT_ID", "CUSTOM_HEADERS"):
        monkeypatch.delenv(f"OPENAI_{name}", raising=False)
    with only_loopback():
        yield


@pytest.fixture
def server() -> Iterator[LabellingServer]:
    with LabellingServer() as one:
        yield one


@pytest.fixture
def endpoint(server: LabellingServer) -> Callable[..., Endpoint]:
    """A model on the server."""
    return partial(Endpoint, base_url=server.base_url, timeout=20.0)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "labels.jsonl"


@pytest.fixture
def label(endpoint: Callable[..., Endpoint], output: Path) -> Callable[..., LabelSummary]:
    """Labels prompts with a pairwise judge, unless something else is said."""

    def call(prompts: list[str], **settings: Any) -> LabelSummary:
        given = {
            "strong": endpoint(model="big"),
            "weak": endpoint(model="small"),
            "labeller": PairwiseJudge(endpoint(model="judge")),
            "output": output,
        }
        return label_prompts(prompts, **{**given, **settings})

    return call


@pytest.fixture
def rows(output: Path) -> Callable[[], Rows]:
    """Reads the output, of which every line must be whole."""
    return lambda: [json.loads(line) for line in output.read_text(encoding="utf-8").split("\n")[:-1]]


@pytest.fixture
def calls(output: Path) -> Callable[[], Rows]:
    """Reads the replies in the work file; a torn last line is none."""

    def read() -> Rows:
        lines = output.with_name(f"{output.name}.calls").read_bytes().split(b"\n")[:-1]
        return [item for item in map(json.loads, lines) if item["kind"] == "call"]

    return read
