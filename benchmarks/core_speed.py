"""Speed of importing, loading and scoring with the bundled default router.

Run: `python benchmarks/core_speed.py`. Prints a table in Markdown; nothing is judged.
"""

from __future__ import annotations

import platform
import statistics
import subprocess
import sys
import time
from importlib import metadata
from importlib.util import find_spec

REPEATS = 9
# Each package, and the module that it extends: what a user has imported anyway.
IMPORTS = {
    "prefroute": "numpy",
    "langchain_router": "langchain_core.language_models.chat_models",
    "llamaindex_router": "llama_index.core",
}
SHORT = "What is the boiling point of water at {} metres?"


def fresh(code: str) -> list[float]:
    """Milliseconds that `code` prints, each from an interpreter of its own; the first run only warms the disk."""
    command = [sys.executable, "-c", f"from time import perf_counter as now\n{code}"]
    runs = [
        float(subprocess.run(command, check=True, capture_output=True, text=True).stdout) for _ in range(REPEATS + 1)
    ]
    return runs[1:]


def row(what: str, values: list[float], unit: str, target: str) -> str:
    """One line of the table: median and range."""
    return f"| {what} | {statistics.median(values):.3g} {unit} | {min(values):.3g} to {max(values):.3g} | {target} |"


def scoring() -> list[str]:
    """Scoring one short prompt, and batches of them."""
    from prefroute import load_router

    router = load_router()
    prompts = [SHORT.format(n) for n in range(20_000)]
    router.win_probability(prompts[:100])
    singles = []
    for prompt in prompts[:2000]:
        start = time.perf_counter()
        router.win_probability([prompt])
        singles.append((time.perf_counter() - start) * 1e3)
    routes = []
    for prompt in prompts[:2000]:
        start = time.perf_counter()
        router.route(prompt)
        routes.append((time.perf_counter() - start) * 1e3)
    rates = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        router.win_probability(prompts)
        rates.append(len(prompts) / (time.perf_counter() - start))
    return [
        row("`win_probability` of one short prompt", singles, "ms", "at most 0.2 ms"),
        row("`route` of one short prompt", routes, "ms", "-"),
        row("`win_probability` of 20,000 short prompts", rates, "prompts/s", "at least 20,000/s"),
    ]


def main() -> None:
    """Measure and print."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("prefroute", "numpy", "tokenizers"))
    print(f"Python {platform.python_version()}, {platform.machine()}, {versions}; median of {REPEATS} or more runs.\n")
    print("| what | median | range | target |\n|---|---|---|---|")
    for package, base in IMPORTS.items():
        if find_spec(base.partition(".")[0]) is None:
            continue
        code = f"import {base}\nt = now()\nimport {package}\nprint((now() - t) * 1e3)"
        print(row(f"`import {package}` after `import {base}`", fresh(code), "ms", "at most 80 ms"))
    code = "t = now()\nimport prefroute\nprint((now() - t) * 1e3)"
    print(row("`import prefroute` alone", fresh(code), "ms", "-"))
    code = "from prefroute import load_router\nt = now()\nload_router()\nprint((now() - t) * 1e3)"
    print(row("`load_router()`, cold", fresh(code), "ms", "at most 300 ms"))
    print("\n".join(scoring()))


if __name__ == "__main__":
    main()
