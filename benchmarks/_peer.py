"""A peer in an environment of its own, asked over pipes, and what is timed of both sides.

Both environments import this file, so it needs the standard library alone.
"""

from __future__ import annotations

import importlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class PeerProcess:
    """A script beside this one, run by another interpreter and asked line by line.

    Args:
        python: The interpreter.
        script: Name of the script.
        folder: What both sides read.
    """

    def __init__(self, python: Path, script: str, folder: Path) -> None:
        environment = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "PYTHONHOME"}}
        self.process = subprocess.Popen(
            [str(python), str(Path(__file__).with_name(script)), str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )

    def ask(self, do: str, **details: Any) -> dict[str, Any]:
        """One request and its answer."""
        if self.process.stdin is None or self.process.stdout is None:
            msg = "the peer has no pipes"
            raise RuntimeError(msg)
        self.process.stdin.write(json.dumps({"do": do, **details}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            msg = f"the peer ended with status {self.process.wait()}; does its environment import routellm?"
            raise RuntimeError(msg)
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End it."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.process.wait(timeout=60)


class Answerer(Protocol):
    """What a peer's script runs."""

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """One answer."""


def answer_requests(make: Callable[[Path], Answerer]) -> None:
    """Be the peer: answer requests until standard input ends; whatever else is printed goes to standard error."""
    os.environ.setdefault("OPENAI_API_KEY", "unused")  # routellm makes a client when imported; it is never called
    answers, sys.stdout = sys.stdout, sys.stderr
    peer = make(Path(sys.argv[1]))
    for line in sys.stdin:
        print(json.dumps(peer.answer(json.loads(line))), file=answers, flush=True)


def timed(call: Callable[[Any], Any], queries: Iterable[Any]) -> tuple[list[float], list[Any]]:
    """Seconds of the call on each of the queries, and what it gave."""
    seconds, values = [], []
    for query in queries:
        start = time.perf_counter()
        value = call(query)
        seconds.append(time.perf_counter() - start)
        values.append(value)
    return seconds, values


def versions(*packages: str) -> dict[str, str]:
    """Of those packages that are installed."""
    found = {}
    for package in packages:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def module_of(name: str) -> Any:
    """A module of the peer's, which only its own environment has."""
    return importlib.import_module(name)


class Timings:
    """Milliseconds by name, gathered over the rounds."""

    def __init__(self) -> None:
        self.values: dict[str, list[float]] = defaultdict(list)

    def time(self, name: str, call: Callable[[Any], Any], queries: Iterable[Any]) -> list[Any]:
        """Time the call on each of the queries; what it gave is returned."""
        seconds, values = timed(call, queries)
        self.add(name, seconds)
        return values

    def add(self, name: str, seconds: Iterable[float]) -> None:
        """What was timed elsewhere."""
        self.values[name] += [value * 1e3 for value in seconds]

    def __getitem__(self, name: str) -> float:
        """The median."""
        return statistics.median(self.values[name])

    def shown(self, name: str) -> str:
        """Median and range."""
        values = self.values[name]
        return f"{self[name]:.3g} ms ({min(values):.3g} to {max(values):.3g})"

    def rate(self, name: str, size: int) -> str:
        """How many a second, of `size` a call: median and range."""
        values = self.values[name]
        slow, median, fast = (size * 1e3 / value for value in (max(values), self[name], min(values)))
        return f"{median:.3g}/s ({slow:.3g} to {fast:.3g})"
