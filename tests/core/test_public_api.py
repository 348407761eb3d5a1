"""What the three packages export, and what importing them does not do."""

import json
import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

EXPORTS = {
    "prefroute": [
        "Battle",
        "ConfigurationError",
        "ConvergenceError",
        "DataError",
        "EmbeddingError",
        "MissingExtraError",
        "ModelPair",
        "OnError",
        "PersistenceError",
        "PrefrouteError",
        "PromptTypeError",
        "Reason",
        "Route",
        "Router",
        "RouterError",
        "RouterNotFoundError",
        "RouterTimeoutError",
        "RoutingDecision",
        "RoutingStats",
        "ScoreError",
        "StatsSnapshot",
        "ThresholdError",
        "__version__",
        "load_router",
    ],
    "langchain_router": ["RoutedChatModel", "StrongCallRateHandler"],
    "llamaindex_router": [
        "RoutedLLM",
        "RouterSelector",
        "RoutingDecisionEvent",
        "StrongCallRateEventHandler",
        "StrongCallRateHandler",
        "routing_options",
    ],
}
FRAMEWORKS = {
    "prefroute": None,
    "langchain_router": "langchain_core.language_models.chat_models",
    "llamaindex_router": "llama_index.core",
}
HEAVY = [
    *(
        "torch",
        "transformers",
        "sentence_transformers",
        "openai",
        "pandas",
        "pyarrow",
        "matplotlib",
        "jinja2",
        "sklearn",
    ),
    *("model2vec", "typer", "rich"),
]

# Runs in a fresh interpreter: any use of a socket ends it, and what was imported is told.
PROBE = """
import json, sys
def forbid(event, args):
    if event.startswith("socket."):
        raise SystemExit(f"importing used {event}")
for name in sys.argv[2:]:  # what the framework itself does at import is its own affair
    __import__(name)
before = set(sys.modules)
sys.addaudithook(forbid)
__import__(sys.argv[1])
print(json.dumps(sorted({name.partition(".")[0] for name in set(sys.modules) - before})))
"""


@pytest.mark.parametrize("package", EXPORTS)
def test_the_public_surface_is_pinned(package: str) -> None:
    module = import_module(package)
    assert sorted(module.__all__) == sorted(EXPORTS[package])
    assert all(hasattr(module, name) for name in module.__all__)


@pytest.mark.parametrize("package", EXPORTS)
def test_importing_is_light_and_silent(package: str) -> None:
    framework = FRAMEWORKS[package]
    # An empty environment, save for what the operating system itself cannot do without.
    environment = {name: os.environ[name] for name in ("SYSTEMROOT",) if name in os.environ}
    done = subprocess.run(
        [sys.executable, "-c", PROBE, package, *([framework] if framework else [])],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    imported = set(json.loads(done.stdout))
    assert imported.isdisjoint([*HEAVY, "numpy"])  # numpy is needed when something is scored, not before
    assert package in imported


@pytest.mark.parametrize(
    ("package", "framework", "extra"),
    [("langchain_router", "langchain_core", "langchain"), ("llamaindex_router", "llama_index", "llamaindex")],
)
def test_a_missing_framework_is_one_error_that_names_the_extra(package: str, framework: str, extra: str) -> None:
    code = f"import sys; sys.modules[{framework!r}] = None\nimport {package}"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "prefroute.errors.MissingExtraError" in done.stderr
    assert f"prefroute[{extra}]" in done.stderr


def test_every_module_of_the_core_imports_without_what_the_extras_bring() -> None:
    modules = [
        ".".join(path.relative_to(ROOT / "core").with_suffix("").parts).removesuffix(".__init__")
        for path in sorted((ROOT / "core").rglob("*.py"))
        if path.name != "__main__.py"
    ]
    assert "prefroute.training.matrix_factorization" in modules
    code = f"""
import importlib, sys
for name in {modules!r}:
    importlib.import_module(name)
print(sorted(set(sys.modules) & set({HEAVY!r}) - {{"typer", "rich"}}))
"""
    done = subprocess.run([sys.executable, "-c", code], env={}, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_the_core_imports_no_framework() -> None:
    for path in (ROOT / "core").rglob("*.py"):
        for line in path.read_text(encoding="utf-8").splitlines():
            assert not re.match(r"\s*(import|from) (langchain|llama)", line), path
