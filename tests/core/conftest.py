"""Fixtures that several test files of the core share."""

import io
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from prefroute import cli
from prefroute.data import Battles, read_battles
from prefroute.testing import write_tiny_encoder, write_tiny_llama

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the command in this process; gives status, stdout and stderr."""

    def call(*arguments: str, stdin: bytes = b"") -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["prefroute", *arguments])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = capsys.readouterr()
        return stop.value.code or 0, out, err  # type: ignore[return-value]

    return call


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Models this tiny lose by being shared between cores, and much where other processes use these too."""
    torch.set_num_threads(1)


TOPICS = ("prime numbers", "the Roman empire", "bread", "black holes", "chess", "tax law", "jazz", "tea", "rivers")
HARD = [f"Derive {number} theorems about {topic}." for topic in TOPICS for number in range(3, 9)]
EASY = [f"Name {number} facts about {topic}." for topic in TOPICS for number in range(3, 9)]


@pytest.fixture(scope="session")
def golden() -> Battles:
    """Big is right everywhere, small on the easy half: what tells them apart is one word."""
    rows = [{"prompt": prompt, "big": 1, "small": int(prompt in EASY)} for prompt in [*HARD, *EASY]]
    return read_battles(rows, models=["big", "small"])


@pytest.fixture(scope="session")
def encoder_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT without a head."""
    return write_tiny_encoder(tmp_path_factory.mktemp("encoder"), texts=[*HARD, *EASY])


@pytest.fixture(scope="session")
def llama_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama."""
    return write_tiny_llama(tmp_path_factory.mktemp("llama"), texts=[*HARD, *EASY])
