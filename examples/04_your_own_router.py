"""Train a router on one's own labels, and set its threshold for a strong-call rate.

Needs torch to train: `pip install "prefroute[train]"`. The labels here are made up; yours say how good the answers
were, prompt by prompt. On the command line: `prefroute train matrix-factorization --help`.
"""

from tempfile import TemporaryDirectory

import numpy as np

from prefroute import ModelPair, RoutingStats, load_router
from prefroute.data import read_battles, split_by_prompt
from prefroute.training import MatrixFactorizationConfig, train_matrix_factorization

topics = ["bread", "Paris", "cats", "tea", "rain", "chess", "jazz", "maps", "roses", "trains", "cheese", "stars"]
easy = [f"Name a nice fact about {topic}, version {n}." for topic in topics for n in range(20)]
hard = [f"Prove a theorem about {topic} and criticise proof {n}." for topic in topics for n in range(20)]
# The big model is right everywhere; the small one on easy prompts, and on a quarter of the hard ones.
rows = [{"prompt": prompt, "big": 1, "small": int(n % 8 > 0)} for n, prompt in enumerate(easy)]
rows += [{"prompt": prompt, "big": 1, "small": int(n % 4 == 0)} for n, prompt in enumerate(hard)]

# Split by prompt: the threshold is chosen on prompts that training did not see.
pair = ModelPair(strong="big", weak="small")
train, held_out = split_by_prompt(read_battles(rows, models=["big", "small"]), (0.8, 0.2))
router = train_matrix_factorization(train, pair=pair, config=MatrixFactorizationConfig(max_epochs=20))

# 30 % strong calls: the 70 % quantile of the scores of prompts like those to come.
router.threshold = float(np.quantile(router.win_probability(held_out.prompts), 0.7))

stats = RoutingStats()
with TemporaryDirectory() as folder:  # in production a folder of your own
    router.save_pretrained(folder)
    load_router(folder).route_batch(held_out.prompts, stats=stats)
print(f"threshold {router.threshold:.3f}, strong-call rate {stats.strong_rate:.0%} on {stats.total} held-out prompts")
