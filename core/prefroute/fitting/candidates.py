"""The routers that `fit_router` chooses from, and how each learns; the choices within one are its own."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from prefroute.embedding import as_embedder
from prefroute.embedding.registry import standardised
from prefroute.errors import ConfigurationError
from prefroute.inputs import as_prompts
from prefroute.routers._linear import embedded_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from prefroute.data import Battles
    from prefroute.embedding import Embedder
    from prefroute.router import Router
    from prefroute.training import BertConfig
    from prefroute.types import ModelPair

LENGTH, BERT = "prompt-length", "bert"

LIGHT = (LENGTH, "similarity-weighted", "knn", "logistic-regression")
"""Tried by default, the simplest first. Each takes a second or so for 1,500 prompts."""

ON_REQUEST = ("matrix-factorization", BERT)
"""Slower: for one pair a matrix factorization is a logistic regression, and takes torch; BERT wants a GPU."""

OVER_EMBEDDINGS = {*LIGHT, *ON_REQUEST} - {LENGTH, BERT}
"""Those that an embedder says something for."""

EMBEDDER = "static"
"""The one that comes with the package."""

BESIDE = "surface"
"""Stands beside every embedding that is named without it: it never did worse here, and mostly better."""


class Remembered:
    """An embedder that has embedded the prompts of a fit before: each fold asks for them again.

    Attributes:
        embedder: The embedder itself.
        dimensions: Length of a row.
    """

    def __init__(self, embedder: Embedder, prompts: Sequence[str], *, progress: bool) -> None:
        """Embed them.

        Args:
            embedder: The embedder.
            prompts: p texts.
            progress: Whether to show a bar on stderr.
        """
        self.embedder = embedder
        texts = list(dict.fromkeys(as_prompts(prompts)))
        self._rows = embedded_rows(embedder, texts, progress=progress)
        self._places = {text: place for place, text in enumerate(texts)}
        self.dimensions = self._rows.shape[1]
        # What `part_widths` reads: without it the embedding and what stands beside it would get one scale.
        self.parts = getattr(embedder, "parts", ())

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """The rows of these prompts, shape (n, d)."""
        return self._rows[[self._places[text] for text in as_prompts(texts)]]


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One kind of router over one embedder.

    Attributes:
        kind: Its `router_type`.
        embedding: Names the embedder; None for a kind that has none.
        learn: Fits it on battles; the folder is for checkpoints, None for none to be kept.
        takes_long: Whether fitting it again for a learning curve is too much, and losing a fit would be a pity.
    """

    kind: str
    embedding: str | None
    learn: Callable[[Battles, Path | None], Router]
    takes_long: bool = False

    @property
    def name(self) -> str:
        """For people."""
        return self.kind if self.embedding is None else f"{self.kind}, {self.embedding}"

    def threads(self) -> AbstractContextManager[object]:
        """One thread for the linear algebra of a light kind, as many as there are for any other.

        The matrices of light kinds are small: on a machine that does other work too, several threads spend nearly all
        their time waiting for each other.
        """
        if self.takes_long:
            return nullcontext()
        limited: AbstractContextManager[object] = import_module("threadpoolctl").threadpool_limits(1, user_api="blas")
        return limited


def candidates_of(
    kinds: Sequence[str],
    embedders: Sequence[str | Embedder],
    *,
    prompts: Sequence[str],
    pair: ModelPair,
    bert: BertConfig | None = None,
    seed: int = 0,
    progress: bool = False,
) -> list[Candidate]:
    """Every kind over every embedder.

    Args:
        kinds: Of `LIGHT` and `ON_REQUEST`.
        embedders: Names as for `as_embedder`, or embedders; names without `length` or `surface` get the latter.
        prompts: The different prompts of the fit, p texts; all are embedded here, and lengths standardised by them.
            No label is looked at.
        pair: The two models.
        bert: Settings of BERT.
        seed: Of what is drawn.
        progress: Whether to show progress bars on stderr.

    Returns:
        The candidates, in the order of the kinds.

    Raises:
        ConfigurationError: A kind is unknown, or there is none, or no embedder.
    """
    check_kinds(kinds)
    over_embeddings, alone = _learners(pair, seed), _alone(pair, bert)
    over = [kind for kind in kinds if kind in over_embeddings]
    remembered = {
        name: Remembered(embedder, prompts, progress=progress)
        for name, embedder in (_named(embedders, prompts) if over else {}).items()
    }
    found = []
    for kind in dict.fromkeys(kinds):
        if kind in alone:
            found.append(Candidate(kind=kind, embedding=None, learn=alone[kind], takes_long=kind == BERT))
            continue
        found += [
            Candidate(kind=kind, embedding=name, learn=_with_embedder(over_embeddings[kind], embedder))
            for name, embedder in remembered.items()
        ]
    return found


def check_kinds(kinds: Sequence[str]) -> None:
    """Refuse what is no kind of router that can be fitted here.

    Raises:
        ConfigurationError: One is unknown, or there is none.
    """
    known = (*LIGHT, *ON_REQUEST)
    unknown = [kind for kind in kinds if kind not in known]
    if unknown or not kinds:
        got = ", ".join(map(repr, unknown)) or "none"
        msg = f"routers to choose from must be some of {', '.join(known)}; got {got}"
        raise ConfigurationError(msg)


def _learners(pair: ModelPair, seed: int) -> dict[str, Callable[..., Router]]:
    def similarity_weighted(battles: Battles, embedder: Any) -> Router:
        from prefroute.routers.similarity_weighted import SimilarityWeightedRouter

        return SimilarityWeightedRouter.fit(battles, embedder=embedder, pair=pair, seed=seed)

    def knn(battles: Battles, embedder: Any) -> Router:
        from prefroute.routers.knn import KNNRouter

        return KNNRouter.fit(battles, embedder=embedder, pair=pair, seed=seed)

    def logistic_regression(battles: Battles, embedder: Any) -> Router:
        from prefroute.routers.logistic_regression import LogisticRegressionRouter

        return LogisticRegressionRouter.fit(battles, embedder=embedder, pair=pair, seed=seed)

    def matrix_factorization(battles: Battles, embedder: Any) -> Router:
        from prefroute.training import MatrixFactorizationConfig, train_matrix_factorization

        config = MatrixFactorizationConfig(seed=seed)
        return train_matrix_factorization(battles, embedder=embedder, pair=pair, config=config)

    return {
        "similarity-weighted": similarity_weighted,
        "knn": knn,
        "logistic-regression": logistic_regression,
        "matrix-factorization": matrix_factorization,
    }


def _alone(pair: ModelPair, config: BertConfig | None) -> dict[str, Callable[..., Router]]:
    def prompt_length(battles: Battles, place: Path | None) -> Router:  # noqa: ARG001 - it takes no time
        from prefroute.routers.baselines import PromptLengthRouter

        return PromptLengthRouter.fit(battles, pair=pair)

    def bert(battles: Battles, place: Path | None) -> Router:
        from prefroute.training import train_bert

        return train_bert(battles, pair=pair, config=config, checkpoints=place, resume=place is not None)

    return {LENGTH: prompt_length, BERT: bert}


def _with_embedder(learn: Callable[..., Router], embedder: Remembered) -> Callable[[Battles, Path | None], Router]:
    def learnt(battles: Battles, place: Path | None) -> Router:  # noqa: ARG001 - it takes seconds
        return learn(battles, embedder)

    return learnt


def _named(embedders: Sequence[str | Embedder], prompts: Sequence[str]) -> Mapping[str, Embedder]:
    if not embedders:
        msg = f"routers over an embedding need at least one embedder, such as {EMBEDDER!r}; got none"
        raise ConfigurationError(msg)
    found: dict[str, Embedder] = {}
    for given in embedders:
        name = with_surface(given) if isinstance(given, str) else type(given).__name__
        embedder = as_embedder(name) if isinstance(given, str) else given
        if name in found and not isinstance(given, str):
            name = f"{name} {len(found) + 1}"
        found[name] = standardised(embedder, prompts)
    return found


def with_surface(name: str) -> str:
    """The name of an embedder, with what stands beside it by default."""
    names = {part.strip() for part in name.split("+")}
    return name if names & {"length", BESIDE} else f"{name}+{BESIDE}"
