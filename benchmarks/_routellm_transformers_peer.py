"""The published BERT router of `routellm`, by its own code in its own environment. Started by `transformer_speed.py`.

Nothing of it is replaced: `BERTRouter` reads a checkpoint that our side wrote, and is asked a prompt at a time, which
is all that it can be asked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from _peer import answer_requests, module_of, timed, versions

if TYPE_CHECKING:
    from pathlib import Path

LABELS = 3
PACKAGES = ("routellm", "torch", "transformers", "tokenizers", "numpy")


class Peer:
    """The published router."""

    def __init__(self, checkpoint: Path) -> None:
        module_of("transformers.utils.logging").disable_progress_bar()
        self.router = module_of("routellm.routers.routers").BERTRouter(str(checkpoint), num_labels=LABELS)

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Time `calculate_strong_win_rate` on the prompts given."""
        if request["do"] == "about":
            return {
                "versions": versions(*PACKAGES),
                "threads": module_of("torch").get_num_threads(),
                "model": f"{self.router.model.dtype} on {self.router.model.device}",
            }
        seconds, values = timed(self.router.calculate_strong_win_rate, request["prompts"])
        return {"seconds": seconds, "values": [float(value) for value in values]}


def main() -> None:
    """Answer requests until standard input ends."""
    answer_requests(Peer)


if __name__ == "__main__":
    main()
