"""Where rows come from: text files, Parquet, frames, data sets and plain iterables, all seen as rows of values."""

from __future__ import annotations

import os
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from prefroute.data.report import RowError, shown
from prefroute.errors import ConfigurationError, DataError, MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

Row: TypeAlias = "tuple[int, tuple[Any, ...] | RowError]"
"""Line or row number from 1, and the values of the wanted columns (None where missing) or why there are none."""

Batch: TypeAlias = "tuple[int, list[Row]]"
"""How far the table is read, in the unit of its `size`, and some rows."""

BATCH = 1024
PEEKED = 50
"""Rows whose keys say which columns a table of mappings has; more where none of these is a mapping."""


class Table(Protocol):
    """Rows that can be read once.

    Attributes:
        name: For messages: a path, or the kind of object.
        label: Name of the source that the rows are of, when they do not say.
        unit: What its rows are numbered by: line or row.
        size: Bytes or rows in all; None when unknown.
    """

    name: str
    label: str
    unit: str
    size: int | None

    def columns(self) -> list[str]:
        """Names of its columns; empty when it has no rows."""

    def read(self, wanted: Sequence[str]) -> Iterator[Batch]:
        """Its rows; a wanted column that it lacks is None in each."""


class Mappings:
    """Rows of an iterable of mappings."""

    unit = "row"

    def __init__(self, rows: Iterable[Any], name: str, size: int | None = None) -> None:
        self.name = name
        self.label = ""
        self.size = size
        self._rows = iter(rows)
        self._peeked: list[Any] = []

    def columns(self) -> list[str]:
        """Keys of the first rows."""
        columns, self._peeked = peeked(self._rows)
        return columns

    def read(self, wanted: Sequence[str]) -> Iterator[Batch]:
        """The rows, those looked at before first."""
        numbered = enumerate(chain(self._peeked, self._rows), 1)
        while rows := [(number, values_of(row, wanted)) for number, row in islice(numbered, BATCH)]:
            yield rows[-1][0], rows


class Frame:
    """Rows of a pandas frame."""

    unit = "row"

    def __init__(self, frame: Any) -> None:
        self.name = type(frame).__name__
        self.label = ""
        self.size: int | None = len(frame)
        self._frame = frame

    def columns(self) -> list[str]:
        """Its columns that have a text for a name."""
        return [name for name in self._frame.columns if isinstance(name, str)]

    def read(self, wanted: Sequence[str]) -> Iterator[Batch]:
        """The rows; NaN, NaT and NA are None."""
        held = set(self.columns())
        for start in range(0, len(self._frame), BATCH):
            part = self._frame.iloc[start : start + BATCH]
            rows = zip(*(_cells(part[name]) if name in held else [None] * len(part) for name in wanted), strict=True)
            yield start + len(part), list(enumerate(rows, start + 1))


class HubDataset:
    """Rows of a Hugging Face `Dataset`."""

    unit = "row"

    def __init__(self, dataset: Any) -> None:
        self.name = type(dataset).__name__
        self.label = ""
        self.size: int | None = len(dataset)
        self._dataset = dataset

    def columns(self) -> list[str]:
        """Its columns."""
        return list(self._dataset.column_names)

    def read(self, wanted: Sequence[str]) -> Iterator[Batch]:
        """The rows, with no other column loaded."""
        held = [name for name in wanted if name in self._dataset.column_names]
        done = 0
        for part in self._dataset.select_columns(held).with_format(None).iter(batch_size=BATCH):
            size = len(part[held[0]])
            rows = zip(*(part.get(name) or [None] * size for name in wanted), strict=True)
            yield done + size, list(enumerate(rows, done + 1))
            done += size


class Parquet:
    """Rows of a Parquet file."""

    unit = "row"

    def __init__(self, path: Path) -> None:
        self.name = str(path)
        self.label = path.stem
        try:
            from pyarrow.parquet import ParquetFile
        except ImportError as error:
            msg = f'{path} is a Parquet file, which needs pyarrow: pip install "prefroute[train]"'
            raise MissingExtraError(msg) from error
        try:
            self._file = ParquetFile(path)
        except (OSError, ValueError) as error:
            msg = f"{path} cannot be read as Parquet: {error}"
            raise DataError(msg) from error
        self.size: int | None = self._file.metadata.num_rows

    def columns(self) -> list[str]:
        """Its columns."""
        return list(self._file.schema_arrow.names)

    def read(self, wanted: Sequence[str]) -> Iterator[Batch]:
        """The rows, with no other column loaded."""
        held = [name for name in wanted if name in self.columns()]
        done = 0
        try:
            for part in self._file.iter_batches(BATCH, columns=held):
                columns = {name: part.column(name).to_pylist() for name in held}
                rows = zip(*(columns.get(name, [None] * len(part)) for name in wanted), strict=True)
                yield done + len(part), list(enumerate(rows, done + 1))
                done += len(part)
        except (OSError, ValueError) as error:
            yield done, [(done + 1, RowError("damaged file", f"nothing from here on can be read: {error}"))]


def tables_of(source: Any) -> list[Table]:
    """See what there is to read; nothing but the first bytes of each file is read yet.

    Args:
        source: A path, paths, a pandas frame, a Hugging Face data set, or an iterable of mappings.

    Returns:
        One table a file, frame or data set.

    Raises:
        ConfigurationError: It is nothing of that kind.
        DataError: A file is missing or of no known kind.
        MissingExtraError: It is a Parquet file and pyarrow is not installed.
    """
    if isinstance(source, str | os.PathLike):
        return [_file(Path(os.fspath(source)))]
    if hasattr(source, "keys") and not hasattr(source, "iloc"):
        parts = ", ".join(map(str, islice(source.keys(), 8)))
        msg = f"a mapping cannot be read as a whole, got {type(source).__name__} of {parts}; pass one of its values"
        raise ConfigurationError(msg)
    if hasattr(source, "columns") and hasattr(source, "iloc"):
        return [Frame(source)]
    if isinstance(getattr(source, "column_names", None), list) and hasattr(source, "select_columns"):
        return [HubDataset(source) if hasattr(source, "__len__") else Mappings(source, type(source).__name__)]
    if isinstance(source, list | tuple) and source and all(isinstance(item, str | os.PathLike) for item in source):
        return [table for item in source for table in tables_of(item)]
    if isinstance(source, bytes) or not hasattr(source, "__iter__"):
        msg = (
            f"data are read from a path, paths, a pandas frame, a Hugging Face Dataset or an iterable of mappings, "
            f"got {type(source).__name__}: {shown(source)}"
        )
        raise ConfigurationError(msg)
    return [Mappings(source, type(source).__name__, len(source) if hasattr(source, "__len__") else None)]


def _file(path: Path) -> Table:
    from prefroute.data import text_files

    try:
        is_folder = path.is_dir()
        start, is_packed = (b"", False) if is_folder else text_files.start_of(path)
    except DataError:
        raise
    except (OSError, ValueError) as error:
        msg = f"{path} cannot be read: {getattr(error, 'strerror', None) or error}"
        raise DataError(msg) from error
    if is_folder:
        msg = f"{path} is a folder; name its files, in Python with sorted(Path({str(path)!r}).glob('*.csv'))"
        raise DataError(msg)
    if not start.startswith(b"PAR1"):
        return text_files.text_table(path, start)
    if is_packed:
        msg = f"{path} is a Parquet file inside gzip; unpack it first (Parquet packs its columns itself)"
        raise DataError(msg)
    return Parquet(path)


def values_of(row: Any, wanted: Sequence[str]) -> tuple[Any, ...] | RowError:
    """The wanted values of one mapping."""
    try:
        return tuple([row.get(name) for name in wanted])
    except AttributeError:
        return RowError("not a mapping", f"wanted a mapping of columns to values, got {type(row).__name__}")


def peeked(rows: Iterable[Any]) -> tuple[list[str], list[Any]]:
    """All keys of the first rows, in order of first appearance, and these rows."""
    names: dict[str, None] = {}
    seen = []
    for row in rows:
        seen.append(row)
        if hasattr(row, "keys"):
            names.update(dict.fromkeys(row.keys()))
        if names and len(seen) >= PEEKED:
            break
    return list(names), seen


def _cells(column: Any) -> list[Any]:
    cells: list[Any] = column.astype(object).where(column.notna(), None).tolist()
    return cells
