"""How the similarity-weighted router's time and memory grow with the number of battles.

Run: `python benchmarks/similarity_growth.py [--dimensions 256] [--sizes 10000,...]`. Prints a table in Markdown; each
line comes from a process of its own. Memory is the largest resident size less the one before, as the kernel counts it
(Linux): while fitting with an embedder that reads its vectors from disk, and while a router that was saved answers.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from _synthetic import StoredEmbedder, make_columns, make_queries, write_embeddings

if TYPE_CHECKING:
    from collections.abc import Callable

    from prefroute.routers._index import IndexDtype

SIZES = (10_000, 30_000, 100_000, 300_000, 1_000_000)
DTYPES: tuple[IndexDtype, ...] = ("float32", "bfloat16", "int8")
BATCH = 64
QUERIES = 256
MIB = 2**20


def peak_bytes() -> int:
    """The largest resident size of this process since `reset_peak`."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    msg = "the kernel does not tell VmHWM"
    raise RuntimeError(msg)


def reset_peak() -> int:
    """Start counting anew; the resident size now."""
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    return peak_bytes()


def median_ms(call: Callable[[int], object], repeats: int) -> float:
    """Median milliseconds of `call(0)`, `call(1)`, ... after one that only warms up."""
    call(0)
    found = []
    for number in range(repeats):
        start = time.perf_counter()
        call(number)
        found.append((time.perf_counter() - start) * 1e3)
    return statistics.median(found)


def import_torch(dtype: str) -> None:
    """Import what the router would, so that its own size is not taken for the index's."""
    if dtype != "float32" and find_spec("torch"):
        import_module("torch")


def fit(folder: Path, size: int, dtype: IndexDtype) -> dict[str, Any]:
    """Fit on stored embeddings, save the router, and tell time and memory."""
    from prefroute.routers.similarity_weighted import SimilarityWeightedRouter

    columns, _ = make_columns(size)
    battles, embedder = columns.battles(), StoredEmbedder(folder / "embeddings.npy")
    embedder.embed(battles.prompts[:10])
    import_torch(dtype)
    before = reset_peak()
    start = time.perf_counter()
    router = SimilarityWeightedRouter.fit(
        battles, embedder=embedder, pair=columns.pair, base=10.0, centred=False, index_dtype=dtype
    )
    seconds, memory = time.perf_counter() - start, peak_bytes() - before
    router.save_pretrained(folder / f"router-{dtype}")
    return {"fit_s": seconds, "fit_bytes": memory}


def serve(folder: Path, dtype: str) -> dict[str, Any]:
    """Load the saved router, and tell time and memory of one query and of batches."""
    from prefroute.routers.similarity_weighted import SimilarityWeightedRouter

    embedder, queries = StoredEmbedder(folder / "embeddings.npy"), np.load(folder / "queries.npy")
    import_torch(dtype)
    before = reset_peak()
    router = SimilarityWeightedRouter.from_pretrained(folder / f"router-{dtype}", embedder=embedder)
    single = median_ms(lambda n: router.win_probability_of_embeddings(queries[n % QUERIES][None]), 15)
    starts = [start % QUERIES for start in range(0, 10 * BATCH, BATCH)]
    batch = median_ms(lambda n: router.win_probability_of_embeddings(queries[starts[n] : starts[n] + BATCH]), 5)
    return {"one_ms": single, "batch_ms": batch, "serve_bytes": peak_bytes() - before}


def one_pass(folder: Path) -> dict[str, Any]:
    """One product of the float32 embeddings with a vector: what must be read for one query."""
    rows, queries = np.load(folder / "embeddings.npy"), np.load(folder / "queries.npy")
    return {"pass_ms": median_ms(lambda n: rows @ queries[n % QUERIES], 15), "index_bytes": rows.nbytes}


def measure(size: int, dimensions: int, dtype: str) -> dict[str, Any]:
    """All figures of one size, each part in a fresh process."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _, topics = make_columns(size)
        write_embeddings(folder / "embeddings.npy", topics, dimensions)
        np.save(folder / "queries.npy", make_queries(folder / "embeddings.npy", QUERIES))
        found: dict[str, Any] = {}
        for part in ("pass", "fit", "serve"):
            command = [sys.executable, __file__, "--part", part, name, str(size), dtype]
            found |= json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    scale = {"float32": 1.0, "bfloat16": 0.5, "int8": 0.25}[dtype]
    return found | {"index_bytes": found["index_bytes"] * scale}


def table_row(size: int, dimensions: int, dtype: str) -> str:
    """One line of the table."""
    found = measure(size, dimensions, dtype)
    index = found["index_bytes"]
    return (
        f"| {size:,} x {dimensions} | {dtype} | {index / MIB:,.0f} MiB | {found['pass_ms']:.3g} ms "
        f"| {found['one_ms']:.3g} ms | {found['batch_ms']:.3g} ms | {found['batch_ms'] / BATCH * 1e3:.3g} us "
        f"| {found['fit_s']:.3g} s | {found['fit_bytes'] / index:.2f} | {found['serve_bytes'] / index:.2f} |"
    )


HEADER = (
    f"| battles | index | size | one pass, float32 | one query | batch of {BATCH} | a query of it | fitting "
    "| memory, fitting / index | memory, serving / index |\n|---|---|---|---|---|---|---|---|---|---|"
)


def main() -> None:
    """Measure and print; with `--part`, be one of the processes."""
    if "--part" in sys.argv[1:2]:
        part, name, size, given = sys.argv[2:6]
        dtype = next(known for known in DTYPES if known == given)
        folder = Path(name)
        found = {
            "pass": lambda: one_pass(folder),
            "fit": lambda: fit(folder, int(size), dtype),
            "serve": lambda: serve(folder, dtype),
        }[part]()
        print(json.dumps(found))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dimensions", type=int, default=256)
    parser.add_argument("--sizes", type=lambda text: [int(part) for part in text.split(",")], default=SIZES)
    parser.add_argument("--dtypes", type=lambda text: text.split(","), default=["float32"], help=", ".join(DTYPES))
    arguments = parser.parse_args()
    print(HEADER)
    for size in arguments.sizes:
        for dtype in arguments.dtypes:
            print(table_row(size, arguments.dimensions, dtype), flush=True)


if __name__ == "__main__":
    main()
