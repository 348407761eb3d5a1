"""The package door: its names, what importing it costs, and what it says without the framework."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import llamaindex_router

ROOT = Path(__file__).parents[2]

EXPECTED_ALL = [
    "RoutedLLM",
    "RouterSelector",
    "RoutingDecisionEvent",
    "StrongCallRateEventHandler",
    "StrongCallRateHandler",
    "routing_options",
]


NO_SOCKETS = """
import os, sys
import llama_index.core  # Opens a socket itself, in urllib3, to see whether there is IPv6.
sys.addaudithook(lambda event, _: event.startswith("socket.") and os._exit(9))
"""


def run_python(code: str) -> str:
    """What the code prints in a fresh interpreter with an all but empty environment."""
    path = os.pathsep.join(str(ROOT / folder) for folder in ("core", "llamaindex_router"))
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env={"PYTHONPATH": path}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_exported_names() -> None:
    assert sorted(llamaindex_router.__all__) == EXPECTED_ALL
    for name in EXPECTED_ALL:
        assert getattr(llamaindex_router, name).__doc__


def test_importing_is_light() -> None:
    heavy = ["torch", "transformers", "openai", "pandas", "matplotlib", "langchain_core"]
    code = f"import llamaindex_router, llamaindex_router.demo\nprint([m for m in {heavy} if m in sys.modules])"
    assert run_python(NO_SOCKETS + code) == "[]"


@pytest.mark.parametrize("missing", ["llama_index", "llama_index.core"])
def test_missing_framework(missing: str) -> None:
    code = f"""
import sys
class Hide:
    def find_spec(self, name, path=None, target=None):
        if name == {missing!r}:
            raise ModuleNotFoundError("hidden", name=name)
sys.meta_path.insert(0, Hide())
from prefroute import MissingExtraError
try:
    import llamaindex_router
except MissingExtraError as error:
    print(error)
"""
    assert run_python(code).endswith('llama-index-core: pip install "prefroute[llamaindex]"')


def test_broken_framework_is_not_called_missing() -> None:
    code = """
import sys
class Break:
    def find_spec(self, name, path=None, target=None):
        if name == "llama_index.core.schema":
            raise ModuleNotFoundError("no such module", name="some_dependency")
sys.meta_path.insert(0, Break())
try:
    import llamaindex_router
except ModuleNotFoundError as error:
    print(error.name)
"""
    assert run_python(code) == "some_dependency"
