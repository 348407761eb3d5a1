"""Where rows come from: text files, Parquet, frames, data sets and plain iterables, all seen as rows of values."""

from __future__ import annotations

import os
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from prefroute.data.report import RowError, TableError, shown
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
        is_open: Whether later rows may have columns that the first ones lack.
    """

    name: str
    label: str
    unit: str
    size: int | None
    is_open: bool

    def columns(self) -> list[str]:
        """Names of its columns; empty when it has no rows."""

    def read(self, wanted: Sequence[str]) -> Iterator[Batch]:
        """Its rows; a wanted column that it lacks is None in each."""


class Mappings:
    """Rows of an iterable of mappings."""

    unit = "row"
    is_open = True

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
    is_open = False

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
    is_open = False

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
    is_open = False

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
                columns = {name: _arrow_cells(part.column(name)) for name in held}
                rows = zip(*(columns.get(name, [None] * len(part)) for name in wanted), strict=True)
                yield done + len(part), list(enumerate(map(_whole, rows), done + 1))
                done += len(part)
        except (OSError, ValueError) as error:
            reason = f"nothing from here on can be read: {error}"
            yield done, [(done + 1, RowError("damaged file", reason, remedy=". Fetch the file again"))]


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
        is_other = not is_folder and path.exists() and not path.is_file()
        start, is_packed = (b"", False) if is_folder or is_other else text_files.start_of(path)
    except DataError:
        raise
    except (OSError, ValueError) as error:
        msg = f"{path} cannot be read: {getattr(error, 'strerror', None) or error}"
        raise DataError(msg) from error
    if is_other:
        # A pipe would be emptied by the first look at it, or waited for without end.
        msg = f"{path} is a pipe or device, not a file; write its content to a file, and name that"
        raise DataError(msg)
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


def refuse_twice(found: Sequence[str], name: str) -> None:
    """Refuse columns that cannot be told apart.

    Raises:
        TableError: A name recurs.
    """
    twice = sorted({column for column in found if column and list(found).count(column) > 1})
    if twice:
        msg = f"{name}: {', '.join(twice)} names more than one column; give each column a name of its own"
        raise TableError(msg)


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


def _arrow_cells(column: Any) -> list[Any]:
    """Values of a column; a `RowError` for one that Python cannot hold."""
    try:
        cells: list[Any] = column.to_pylist()
    except (ValueError, OverflowError):
        return [_arrow_cell(item) for item in column]
    return cells


def _arrow_cell(item: Any) -> Any:
    try:
        return item.as_py()
    except UnicodeDecodeError:
        return RowError("not UTF-8", "a text is not UTF-8; write it as UTF-8")
    except (ValueError, OverflowError) as error:
        return RowError("unreadable value", f"a value cannot be read: {error}")


def _whole(values: tuple[Any, ...]) -> tuple[Any, ...] | RowError:
    return next((value for value in values if isinstance(value, RowError)), values)
