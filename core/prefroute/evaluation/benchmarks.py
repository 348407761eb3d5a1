"""Benchmarks: prompts with the quality of both models' answers, of one's own or in RouteLLM's layout."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from prefroute.data import ResponseTable, prompt_groups, read_judgements, read_prompts
from prefroute.data.cleaning import named_prompts
from prefroute.data.formats import hints_of
from prefroute.data.reading import TableReader
from prefroute.data.responses import response_parser
from prefroute.data.tables import tables_of
from prefroute.data.values import as_turn, name_of, number_of, number_or_none
from prefroute.errors import DataError
from prefroute.types import ModelPair

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from prefroute.data import ReadReport
    from prefroute.data.reading import OnBadRow, Source
    from prefroute.data.values import Turn

ROUTELLM_PAIR = ModelPair(strong="gpt-4-1106-preview", weak="mistralai/Mixtral-8x7B-Instruct-v0.1")
"""The models whose answers were published with RouteLLM."""

CONTAMINATED_FILE = "contaminated_prompts.jsonl"
"""Where RouteLLM's layout lists the prompts that were too near to its training data."""

RESPONSES_FOLDER = "responses"
"""Where RouteLLM's repository keeps the tables of MMLU, below that list."""

COLUMNS = (
    *("strong_cost", "weak_cost"),
    *("input_tokens", "strong_output_tokens", "weak_output_tokens"),
)
"""Numbers that a benchmark may hold beside the qualities, one a prompt."""


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Benchmark:
    """An immutable table of n rows: a prompt, and how good each model's answer to it is.

    Attributes:
        name: For people.
        pair: The two models.
        prompts: n texts; one may recur.
        strong: Quality of the strong model's answers, any scale, shape (n,).
        weak: Quality of the weak model's answers, on the same scale, shape (n,).
        categories: A category for each row; None where there are none.
        numbers: Columns of `COLUMNS`, each of shape (n,): costs in US dollars, and tokens.
        removed: Rows left out as contaminated.

    Raises:
        DataError: There are no rows, columns differ in length, or a quality or another number cannot be used.
    """

    name: str
    pair: ModelPair
    prompts: tuple[str, ...]
    strong: NDArray[np.float64]
    weak: NDArray[np.float64]
    categories: tuple[str, ...] | None = None
    numbers: Mapping[str, NDArray[np.float64]] | None = None
    removed: int = 0

    def __post_init__(self) -> None:
        """Freeze the arrays and refuse what is not such a table."""
        object.__setattr__(self, "prompts", tuple(self.prompts))
        if len(self.strong) != len(self.weak):
            msg = (
                f"benchmark {self.name!r}: {len(self.strong)} strong and {len(self.weak)} weak qualities; give as many"
            )
            raise DataError(msg)
        checked = self.responses  # The same checks as a response table, in the same words.
        if not self.prompts:
            msg = f"benchmark {self.name!r} has no rows"
            raise DataError(msg)
        object.__setattr__(self, "strong", checked.quality[:, 0])
        object.__setattr__(self, "weak", checked.quality[:, 1])
        object.__setattr__(self, "numbers", dict(self.numbers or {}))
        for name, column in {"categories": self.categories, **(self.numbers or {})}.items():
            if column is not None and len(column) != len(self.prompts):
                msg = f"benchmark {self.name!r}: {name} has {len(column)} values for {len(self.prompts)} prompts"
                raise DataError(msg)
        for name, column in (self.numbers or {}).items():
            if name not in COLUMNS or not (np.isfinite(column).all() and (np.asarray(column) >= 0).all()):
                msg = f"benchmark {self.name!r}: {name} must be one of {', '.join(COLUMNS)}, finite and 0 or more"
                raise DataError(msg)

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.prompts)

    def __repr__(self) -> str:
        """Name and size; prompts may be private."""
        return f"Benchmark({self.name!r}, {len(self)} prompts)"

    @property
    def responses(self) -> ResponseTable:
        """The qualities as a response table, which makes battles."""
        quality = np.column_stack([self.strong, self.weak])
        return ResponseTable(prompts=self.prompts, models=(self.pair.strong, self.pair.weak), quality=quality)

    @property
    def gains(self) -> NDArray[np.float64]:
        """Quality of the strong model's answer less that of the weak one's, shape (n,)."""
        return self.strong - self.weak

    @property
    def groups(self) -> NDArray[np.int64]:
        """A number for each prompt, the same where it recurs, shape (n,)."""
        return prompt_groups(self.prompts)

    @property
    def different(self) -> int:
        """Prompts that differ by more than their spelling: what an interval is as wide as."""
        return int(self.groups.max()) + 1

    def column(self, name: str) -> NDArray[np.float64] | None:
        """One of `numbers`, None where it is not there."""
        return (self.numbers or {}).get(name)

    def rows(self, chosen: NDArray[np.bool_]) -> Benchmark:
        """The rows that are true, at least one."""
        places = np.flatnonzero(chosen)
        return replace(
            self,
            prompts=tuple(self.prompts[place] for place in places),
            strong=self.strong[places],
            weak=self.weak[places],
            categories=None if self.categories is None else tuple(self.categories[place] for place in places),
            numbers={name: column[places] for name, column in (self.numbers or {}).items()},
        )

    def without(self, prompts: Iterable[str]) -> Benchmark:
        """The rows whose prompt is none of these, however spelt; the others are counted in `removed`."""
        banned = named_prompts(self.prompts, prompts)
        return replace(self.rows(~banned), removed=self.removed + int(np.count_nonzero(banned)))


def read_benchmark(
    source: Source,
    pair: ModelPair,
    *,
    name: str = "benchmark",
    prompt: str | None = None,
    category: str | None = None,
    numbers: Mapping[str, str] | None = None,
    turn: Turn = "first",
    on_bad_row: OnBadRow = "raise",
    report: ReadReport | None = None,
    progress: bool = False,
) -> Benchmark:
    """Read a table of prompts with one quality column a model.

    Args:
        source: As for `prefroute.data.read_battles`.
        pair: The models, by the names of their columns: numbers, or true and false.
        name: Name of the benchmark.
        prompt: Column of the prompt; None to recognise it.
        category: Column of a category, if there is one.
        numbers: Column of each of `COLUMNS` that is there, by that name. None to take those that are called so, as
            `prefroute label` writes them, and known for every row.
        turn: Which of several turns is the prompt.
        on_bad_row: As for `read_battles`.
        report: As for `read_battles`.
        progress: Whether to show a progress bar on stderr.

    Returns:
        The rows of all files, in order.

    Raises:
        DataError: As for `read_battles`.
        ConfigurationError: As for `read_battles`.
        MissingExtraError: As for `read_battles`.
    """
    named = dict(numbers or {})
    # A column that a table lacks is None in each row.
    known = COLUMNS if numbers is None else ()
    hints = hints_of("responses", None if prompt is None else {"prompt": prompt}, None, (pair.strong, pair.weak))
    reader = TableReader(hints, as_turn(turn), on_bad_row, report, progress=progress)
    more = [*named.values(), *([] if category is None else [category])]
    rows: list[tuple[str, list[float], list[float], str, dict[str, float]]] = []
    for table in tables_of(source):
        layout = reader.layout(table, more)
        if layout is None:
            continue
        wanted, parse = response_parser(layout, reader.turn, None)

        def parse_row(values: tuple[Any, ...], first: int = len(wanted), parse: Any = parse) -> Any:
            last = first + len(more)
            rest = values[first:last]
            extra = [number_of(value, column) for value, column in zip(rest, named.values(), strict=False)]
            label = "" if category is None else name_of(_text(rest[-1]), category)
            return *parse(values[:first]), extra, label, _amounts(known, values[last:])

        rows += reader.rows(table, layout, [*wanted, *more, *known], parse_row)
    reader.finish()
    columns = np.array([extra for _, _, extra, _, _ in rows], dtype=np.float64).reshape(len(rows), len(named))
    return Benchmark(
        name=name,
        pair=pair,
        prompts=tuple(text for text, *_ in rows),
        strong=np.array([qualities[0] for _, qualities, *_ in rows]),
        weak=np.array([qualities[1] for _, qualities, *_ in rows]),
        categories=None if category is None else tuple(label for _, _, _, label, _ in rows),
        numbers=dict(zip(named, columns.T, strict=True)) | _complete([amounts for *_, amounts in rows]),
    )


def _amounts(names: Sequence[str], values: Sequence[Any]) -> dict[str, float]:
    """Those of the numbers that are amounts."""
    found = {name: number_or_none(value) for name, value in zip(names, values, strict=True)}
    return {name: number for name, number in found.items() if number is not None and number >= 0}


def _complete(rows: Sequence[Mapping[str, float]]) -> dict[str, NDArray[np.float64]]:
    """The columns that are known for every row."""
    names = [name for name in COLUMNS if rows and all(name in row for row in rows)]
    return {name: np.array([row[name] for row in rows], dtype=np.float64) for name in names}


def read_mmlu(folder: str | Path, pair: ModelPair = ROUTELLM_PAIR) -> Benchmark:
    """Read MMLU in RouteLLM's layout: `mmlu_<domain>.csv` and a list of contaminated prompts.

    Args:
        folder: Where the files lie; the tables may lie in `responses` below the list, as in RouteLLM's repository.
        pair: The columns.

    Returns:
        The benchmark without the contaminated prompts, the domains as categories.

    Raises:
        DataError: The files are not there, or cannot be read.
    """
    files = sorted(Path(folder).glob("mmlu_*.csv")) or sorted(Path(folder).glob(f"{RESPONSES_FOLDER}/mmlu_*.csv"))
    if not files:
        msg = f"{folder} holds no mmlu_*.csv"
        raise DataError(msg)
    parts = [read_benchmark(file, pair) for file in files]
    domains = [file.stem.removeprefix("mmlu_") for file in files]
    whole = Benchmark(
        name="MMLU",
        pair=pair,
        prompts=tuple(text for part in parts for text in part.prompts),
        strong=np.concatenate([part.strong for part in parts]),
        weak=np.concatenate([part.weak for part in parts]),
        categories=tuple(domain for part, domain in zip(parts, domains, strict=True) for _ in part.prompts),
    )
    return _decontaminated(whole, folder)


def read_gsm8k(folder: str | Path, pair: ModelPair = ROUTELLM_PAIR) -> Benchmark:
    """Read GSM8K in RouteLLM's layout: `gsm8k_responses.csv` and a list of contaminated prompts.

    Args:
        folder: Where the files lie.
        pair: The columns.

    Returns:
        The benchmark without the contaminated prompts.

    Raises:
        DataError: The files are not there, or cannot be read.
    """
    return _decontaminated(read_benchmark(Path(folder) / "gsm8k_responses.csv", pair, name="GSM8K"), folder)


def read_mt_bench(folder: str | Path, pair: ModelPair = ROUTELLM_PAIR) -> Benchmark:
    """Read MT-Bench in RouteLLM's layout: questions, judgements and a list of contaminated prompts.

    Args:
        folder: Where `question.jsonl` and `judgements.jsonl` lie.
        pair: The models, as the judgements name them.

    Returns:
        One row a question, by its first turn, as published; its quality is the mean over both turns. A question is
        left out where either turn is contaminated.

    Raises:
        DataError: The files are not there, or cannot be read.
    """
    questions = Path(folder) / "question.jsonl"
    table = read_judgements(Path(folder) / "judgements.jsonl", questions, [pair.strong, pair.weak])
    first, last = (read_prompts(questions, "turns", turn=turn) for turn in ("first", "last"))
    category = dict(zip(first, read_prompts(questions, "category"), strict=True))
    groups = prompt_groups(table.prompts)
    places = np.unique(groups, return_index=True)[1]
    quality = np.stack([np.bincount(groups, column) for column in table.quality.T]) / np.bincount(groups)
    whole = Benchmark(
        name="MT-Bench",
        pair=pair,
        prompts=tuple(table.prompts[place] for place in places),
        strong=quality[0],
        weak=quality[1],
        categories=tuple(category[table.prompts[place]] for place in places),
    )
    return _decontaminated(whole, folder, also=dict(zip(last, first, strict=True)))


LAYOUTS = {
    "mmlu_*.csv": read_mmlu,
    f"{RESPONSES_FOLDER}/mmlu_*.csv": read_mmlu,
    "gsm8k_responses.csv": read_gsm8k,
    "judgements.jsonl": read_mt_bench,
}
"""What reads a folder, by a file that it holds."""


def read_folder(folder: str | Path, pair: ModelPair = ROUTELLM_PAIR) -> Benchmark:
    """Read a benchmark in RouteLLM's layout, told by the files in its folder.

    Args:
        folder: Where they lie.
        pair: The two models.

    Returns:
        The benchmark.

    Raises:
        DataError: It holds none of the three.
    """
    for pattern, read in LAYOUTS.items():
        if any(Path(folder).glob(pattern)):
            return read(folder, pair)
    msg = f"{folder} holds no benchmark in RouteLLM's layout: none of {', '.join(LAYOUTS)}; name files instead"
    raise DataError(msg)


def _decontaminated(whole: Benchmark, folder: str | Path, also: Mapping[str, str] | None = None) -> Benchmark:
    """Without the prompts of the folder's list; `also` has the prompt that goes by another text of it."""
    path = Path(folder) / CONTAMINATED_FILE
    if not path.is_file() and Path(folder).resolve().name == RESPONSES_FOLDER:
        path = Path(folder).resolve().parent / CONTAMINATED_FILE
    if not path.is_file():
        return whole
    listed = read_prompts(path, "eval_prompt")
    return whole.without([*listed, *((also or {})[text] for text in listed if text in (also or {}))])


def _text(value: Any) -> Any:
    """A category may be a number."""
    return value if isinstance(value, str) or value is None else str(value)
