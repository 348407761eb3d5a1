"""Fine-tune an encoder and a causal language model as routers, and serve one of them.

Needs `pip install '.[train]'`. The two models here are tiny, of random weights, so that nothing is downloaded;
leave `model=` out to begin with the paper's. On the command line: `prefroute train bert --help`, `prefroute train
causal-lm --help`, with `torchrun` or `accelerate launch` before it for several GPUs (docs/bert.md, docs/causal_lm.md).
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from prefroute import ModelPair, RoutingStats, load_router
from prefroute.data import read_battles, split_by_prompt
from prefroute.testing import write_tiny_encoder, write_tiny_llama
from prefroute.training import BertConfig, CausalLMConfig, train_bert, train_causal_lm

topics = ["bread", "Paris", "cats", "tea", "rain", "chess", "jazz", "maps", "roses", "trains", "cheese", "stars"]
easy = [f"Name a nice fact about {topic}, version {n}." for topic in topics for n in range(10)]
hard = [f"Prove a theorem about {topic} and criticise proof {n}." for topic in topics for n in range(10)]
rows = [{"prompt": prompt, "big": 1, "small": 1} for prompt in easy]
rows += [{"prompt": prompt, "big": 1, "small": 0} for prompt in hard]
pair = ModelPair(strong="big", weak="small")
train, unseen = split_by_prompt(read_battles(rows, models=["big", "small"]), (0.8, 0.2))

with TemporaryDirectory() as temporary:  # in production a folder of your own
    folder = Path(temporary)
    encoder = write_tiny_encoder(folder / "encoder", texts=easy + hard)
    llama = write_tiny_llama(folder / "llama", texts=easy + hard)

    # Weights that are few and random want a learning rate far above that of trained ones (1e-5).
    few: dict[str, Any] = {"steps": 25, "evaluations": 2, "learning_rate": 5e-3, "device": "cpu"}
    bert = train_bert(train, pair=pair, config=BertConfig(model=str(encoder), **few))
    # Checkpoints in a folder that stays: a run that is killed goes on with the same call and resume=True.
    instruction = "Will the small model answer as well as the big one? [[1]] no, [[3]] yes."  # there is a longer one
    config = CausalLMConfig(model=str(llama), instruction=instruction, **few)
    causal = train_causal_lm(train, pair=pair, config=config, checkpoints=folder / "run")
    for router in (bert, causal):
        router.save_pretrained(folder / router.router_type)
        print(f"{router.router_type}, what it recovers of prompts kept out: {router.validation}")

    # device=None takes a GPU if there is one; int8 halves the time on CPUs that have no bfloat16.
    served, stats = load_router(folder / "bert", device="cpu", dtype="float32"), RoutingStats()
    served.route_batch(unseen.prompts, stats=stats)
    print(f"{served}\nstrong-call rate {stats.strong_rate:.0%} on {stats.total} prompts that training did not see")
