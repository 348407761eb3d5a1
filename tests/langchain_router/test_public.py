"""What the package exports, and what importing it costs."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import langchain_router

IMPORT = """
import socket, sys
def refuse(*_, **__):
    raise AssertionError("a socket was opened")
socket.socket.__init__ = refuse
import langchain_router, langchain_router.demo
heavy = {"torch", "transformers", "openai", "pandas", "matplotlib", "langchain", "llama_index"} & set(sys.modules)
assert not heavy, heavy
"""

MISSING = """
import sys
sys.modules["langchain_core"] = None
from prefroute.errors import MissingExtraError
try:
    import langchain_router
except MissingExtraError as error:
    print(error)
"""


def run(code: str) -> str:
    # No environment variable may be needed; the path says where the packages are.
    env = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_exports() -> None:
    assert langchain_router.__all__ == ["RoutedChatModel", "StrongCallRateHandler"]
    for name in langchain_router.__all__:
        assert getattr(langchain_router, name).__module__.startswith("langchain_router.")


def test_importing_it_loads_nothing_heavy_and_opens_no_socket() -> None:
    assert run(IMPORT) == ""


def test_a_missing_framework_is_told_at_the_door() -> None:
    assert run(MISSING).strip() == 'langchain_router needs langchain-core: pip install "prefroute[langchain]"'


def test_another_missing_module_is_not_mistaken_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "langchain_router", None)
    with pytest.raises(ModuleNotFoundError):
        __import__("langchain_router")
