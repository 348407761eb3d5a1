"""`prefroute train`: a router from data of one's own, one command a kind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from prefroute.cli._fine_tune import bert, causal_lm
from prefroute.cli._learning import checked_pair, opened, read_data, shows_progress
from prefroute.cli._options import DataOptions, EmbeddingOptions, SeedOption, with_options
from prefroute.cli._summary import save_and_tell
from prefroute.errors import ConfigurationError

if TYPE_CHECKING:
    from prefroute.routers.matrix_factorization import MatrixFactorizationRouter
    from prefroute.training import MatrixFactorizationConfig

IndexDtype = Literal["float32", "bfloat16", "int8"]
Ties = Literal["half", "drop"]
Centring = Literal["no", "yes", "choose"]

IndexDtypeOption = Annotated[
    IndexDtype, typer.Option(help="Kind of numbers in the index: bfloat16 takes half the memory, int8 a quarter.")
]

train = typer.Typer()
train.command()(bert)
train.command()(causal_lm)


@train.callback(invoke_without_command=True)
def _train(context: typer.Context) -> None:
    """Train a router on your own data."""
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@train.command()
@with_options
def similarity_weighted(
    options: DataOptions,
    embedding: EmbeddingOptions,
    *,
    tiers: Annotated[
        int | None,
        typer.Option(min=2, metavar="N", help="Tiers the models are cut into; else 10, or one a model if fewer."),
    ] = None,
    base: Annotated[
        list[float] | None,
        typer.Option(
            metavar="X",
            help="What weighs similarity; published: 10. Repeat it to have the best of these; else of 10 to 300.",
        ),
    ] = None,
    centred: Annotated[
        Centring, typer.Option(help="Subtract the mean embedding (published: no), or let cross-validation choose.")
    ] = "choose",
    index_dtype: IndexDtypeOption = "float32",
    seed: SeedOption = 0,
) -> None:
    """Weigh battles by similarity to the prompt."""
    pair, data, embedder = opened(options, embedding)
    from prefroute.routers.similarity_weighted import SimilarityWeightedRouter

    router = SimilarityWeightedRouter.fit(
        data.battles,
        embedder=embedder,
        pair=pair,
        num_tiers=tiers,
        base=base or None,
        centred={"no": False, "yes": True, "choose": None}[centred],
        index_dtype=index_dtype,
        seed=seed,
        progress=shows_progress(),
    )
    index = {"prompts": len(router.index), "dimensions": router.index.dimensions, "dtype": index_dtype}
    learnt = {
        "tiers": router.tiers,
        "ratings": {name: round(rating, 1) for name, rating in router.ratings.items()},
        "base": router.base,
        "centred": router.index.mean is not None,
        "index": index,
    }
    save_and_tell(router, data, options, learnt)


@train.command()
@with_options
def matrix_factorization(
    options: DataOptions,
    embedding: EmbeddingOptions,
    *,
    published: Annotated[
        bool, typer.Option("--published", help="Start from the settings of the published code, not from ours.")
    ] = False,
    epochs: Annotated[int | None, typer.Option(min=1, metavar="N", help="Passes over the battles at most.")] = None,
    patience: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Passes without a better held-out loss before it stops.")
    ] = None,
    folds: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Factorizations trained, each without its share, and averaged."),
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(metavar="X", help="Of Adam.")] = None,
    ties: Annotated[Ties | None, typer.Option(help="Learn ties as half a win, or drop them as published.")] = None,
    device: Annotated[str, typer.Option(metavar="NAME", help="cpu, cuda or another that torch knows.")] = "auto",
    seed: SeedOption = 0,
) -> None:
    """Learn a vector for each model (torch)."""
    from prefroute.training import MatrixFactorizationConfig, train_matrix_factorization

    given: dict[str, Any] = {
        "max_epochs": epochs,
        "patience": patience,
        "folds": folds,
        "learning_rate": learning_rate,
        "ties": ties,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    start = MatrixFactorizationConfig.published if published else MatrixFactorizationConfig
    config = start(**changes, device=device, seed=seed)
    pair, data, embedder = opened(options, embedding, needed=("torch", "training a matrix factorization", "train"))
    router = train_matrix_factorization(
        data.battles, embedder=embedder, pair=pair, config=config, progress=shows_progress()
    )
    save_and_tell(router, data, options, _training_of(router), _limits_of(router, config))


@train.command()
@with_options
def knn(
    options: DataOptions,
    embedding: EmbeddingOptions,
    *,
    neighbours: Annotated[
        list[int] | None,
        typer.Option(min=1, metavar="N", help="Repeat it to have the best chosen; else the best of 10, 30, 100, 300."),
    ] = None,
    index_dtype: IndexDtypeOption = "float32",
    seed: SeedOption = 0,
) -> None:
    """A baseline: the mean of the nearest prompts."""
    pair, data, embedder = opened(options, embedding)
    from prefroute.routers.knn import KNNRouter

    router = KNNRouter.fit(
        data.battles,
        embedder=embedder,
        pair=pair,
        k=neighbours,
        index_dtype=index_dtype,
        seed=seed,
        progress=shows_progress(),
    )
    save_and_tell(router, data, options, {"neighbours": router.k})


@train.command()
@with_options
def logistic_regression(options: DataOptions, embedding: EmbeddingOptions, *, seed: SeedOption = 0) -> None:
    """A baseline on the embedding (scikit-learn)."""
    pair, data, embedder = opened(options, embedding, needed=("sklearn", "fitting a logistic regression", "train"))
    from prefroute.routers.logistic_regression import LogisticRegressionRouter

    router = LogisticRegressionRouter.fit(
        data.battles, embedder=embedder, pair=pair, seed=seed, progress=shows_progress()
    )
    save_and_tell(router, data, options, {"C": router.c})


@train.command()
@with_options
def prompt_length(options: DataOptions) -> None:
    """The baseline to beat: length alone."""
    pair = checked_pair(options)
    data = read_data(options)
    from prefroute.routers.baselines import PromptLengthRouter

    router = PromptLengthRouter.fit(data.battles, pair=pair)
    save_and_tell(router, data, options, {"slope": router.slope, "intercept": router.intercept})


@train.command(
    hidden=True, add_help_option=False, context_settings={"ignore_unknown_options": True, "allow_extra_args": True}
)
def random() -> None:
    """There is nothing to learn; said here, since it is a router like the others."""
    msg = (
        "random and prompt-length need no training (--router random); train prompt-length fits the length to your data"
    )
    raise ConfigurationError(msg)


def _training_of(router: MatrixFactorizationRouter) -> dict[str, Any]:
    report = router.training
    if report is None:
        return {}
    return {
        "epochs": list(report.best_epochs),
        "ties_dropped": report.ties_dropped,
        "log_loss": report.train_loss,
        "log_loss_held_out": report.validation_loss,
        "prompts_held_out": report.validation_prompts,
    }


def _limits_of(router: MatrixFactorizationRouter, config: MatrixFactorizationConfig) -> list[str]:
    report = router.training
    if report is None or config.patience is None or max(report.best_epochs) < config.max_epochs:
        return []
    return [f"stopped at the limit of {config.max_epochs} epochs while still improving; raise --epochs"]
