# SPDX-License-Identifier: Apache-2.0
"""Files of records and events: JSON Lines (plain, gzip, standard output or input) and Parquet.

A file is written beside its name and moved there when it is complete, readable for its owner only: records
name users and tools. Readers give one object at a time, with the number of its line or row.
"""

from __future__ import annotations

import gzip
import importlib
import io
import json
import os
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol

from .records import Fields, strict

STANDARD: Final = "-"
"""Standard output or input, as a file name."""

PARQUET_HELP: Final = (
    "Parquet needs the package pyarrow, which is not installed here; run: pip install "
    "'cpex-tool-firewall[parquet]' (or: pip install pyarrow), or use --format jsonl"
)

_ROW_GROUP: Final = 16_384  # rows kept in memory
_LONGEST_LINE: Final = 1 << 20  # bytes
_GZIP_MAGIC: Final = b"\x1f\x8b"
_FASTEST: Final = 1

_TEXTS: Final = (
    *("tenant", "user", "agent", "group", "session", "token", "server", "tool", "previous"),
    *("decision", "mode", "uninspectable", "incident", "outcome", "action", "value", "by", "why"),
    *("arguments", "facts", "loop"),
)


class FileProblem(Exception):
    """A file that cannot be read or written. The text names it, what is wrong and what to do."""


class BadLine(Exception):
    """One line or row that is not what it should be. The text does not quote from it."""


class Writer(Protocol):
    """Takes objects until done() or abandon()."""

    def write(self, line: str, fields: Fields) -> None:
        """One object, as JSON and as fields."""

    def done(self) -> None:
        """Completes the file."""

    def abandon(self) -> None:
        """Leaves nothing behind."""


class LineWriter:
    """JSON Lines, compressed when the name ends in .gz."""

    def __init__(self, name: str) -> None:
        """name: a path, or STANDARD. Raises FileProblem."""
        self._draft = None if name == STANDARD else _Draft(Path(name))
        raw: BinaryIO = sys.stdout.buffer if self._draft is None else self._draft.file
        self._packed = (
            gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=_FASTEST, mtime=0, filename="")
            if name.endswith(".gz")
            else None
        )
        self._out: Any = io.BufferedWriter(self._packed, 1 << 16) if self._packed else raw

    def write(self, line: str, fields: Fields) -> None:
        """See Writer.write."""
        self._out.write(line.encode("ascii") + b"\n")

    def done(self) -> None:
        """See Writer.done."""
        self._out.flush()
        if self._packed is not None:
            self._out.close()
        if self._draft is not None:
            self._draft.keep()

    def abandon(self) -> None:
        """See Writer.abandon."""
        if self._draft is not None:
            self._draft.drop()


class ParquetWriter:
    """Parquet with one row a record, written in groups of rows."""

    def __init__(self, name: str) -> None:
        """Raises FileProblem, also when pyarrow is not installed."""
        pa, pq = pyarrow()
        text = pa.string()
        reason = pa.struct(
            [
                ("signal", text),
                *((n, pa.float64()) for n in ("p", "value", "baseline", "z_score")),
                ("explanation", text),
            ]
        )
        self._schema = pa.schema(
            [
                ("cursor", pa.int64()),
                ("kind", text),
                ("ts", pa.float64()),
                ("worker", text),
                ("seq", pa.int64()),
                *((field, text) for field in _TEXTS),
                ("blocked", pa.bool_()),
                ("risk", pa.float64()),
                ("reasons", pa.list_(reason)),
                ("cost", pa.float64()),
                ("snoozed", pa.bool_()),
                ("destinations", pa.list_(text)),
            ]
        )
        self._table = pa.Table.from_pylist
        self._draft = _Draft(Path(name))
        self._writer = pq.ParquetWriter(self._draft.file, self._schema, compression="zstd")
        self._rows: list[Fields] = []

    def write(self, line: str, fields: Fields) -> None:
        """See Writer.write."""
        self._rows.append(fields)
        if len(self._rows) >= _ROW_GROUP:
            self._flush()

    def done(self) -> None:
        """See Writer.done."""
        self._flush()
        self._writer.close()
        self._draft.keep()

    def abandon(self) -> None:
        """See Writer.abandon."""
        self._draft.drop()

    def _flush(self) -> None:
        try:
            table = self._table(self._rows, schema=self._schema)
        except UnicodeEncodeError:  # a lone surrogate, which Parquet cannot hold
            table = self._table([_strict_row(row) for row in self._rows], schema=self._schema)
        self._writer.write_table(table)
        self._rows = []


def pyarrow() -> tuple[Any, Any]:
    """The modules pyarrow and pyarrow.parquet. Raises FileProblem."""
    try:
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise FileProblem(PARQUET_HELP) from error


Progress = Callable[[int, int], None]
"""progress(bytes or rows done, in all; 0 when unknown)"""


def read_lines(name: str, progress: Progress | None = None) -> Iterator[tuple[int, Fields | BadLine]]:
    """(number of the line, object or what is wrong with it) of JSON Lines, plain or gzip; empty lines are
    left out. Raises FileProblem.
    """
    with _reading(name) as raw:
        size = 0 if name == STANDARD else os.fstat(raw.fileno()).st_size
        buffered: Any = raw if isinstance(raw, io.BufferedReader) else io.BufferedReader(raw)
        packed = buffered.peek(2)[:2] == _GZIP_MAGIC
        lines: Any = io.BufferedReader(gzip.GzipFile(fileobj=buffered), 1 << 16) if packed else buffered
        number = 0
        while line := lines.readline(_LONGEST_LINE):
            number += 1
            if len(line) >= _LONGEST_LINE and not line.endswith(b"\n"):
                _skip_line(lines)
                yield number, BadLine("longer than 1 MiB")
            elif line.strip():
                yield number, _parsed(line)
            if progress is not None and size and number % 1024 == 0:
                progress(buffered.tell(), size)


def read_parquet(name: str, progress: Progress | None = None) -> Iterator[tuple[int, Fields | BadLine]]:
    """(number of the row, object) of a Parquet file; absent values are left out. Raises FileProblem."""
    pa, pq = pyarrow()
    try:
        with pq.ParquetFile(name) as file:
            rows = file.metadata.num_rows
            number = 0
            for batch in file.iter_batches(batch_size=_ROW_GROUP // 2):
                for row in batch.to_pylist():
                    number += 1
                    yield number, {key: value for key, value in row.items() if value is not None}
                if progress is not None:
                    progress(number, rows)
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(name, error) from error


@contextmanager
def _reading(name: str) -> Iterator[BinaryIO]:
    try:
        if name == STANDARD:
            yield sys.stdin.buffer
        else:
            with Path(name).open("rb") as raw:
                yield raw
    except (OSError, EOFError, zlib.error) as error:
        raise _unreadable(name, error) from error


class _Draft:
    """A file under another name until it is complete."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._beside = path.with_name(f".{path.name}.{os.getpid()}.part")
        if path.is_dir():
            raise FileProblem(f"{path}: is a folder; name a file")
        try:
            descriptor = os.open(self._beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        except OSError as error:
            raise FileProblem(f"{path}: cannot be written ({error.strerror})") from error
        self.file: BinaryIO = os.fdopen(descriptor, "wb", 1 << 16)

    def keep(self) -> None:
        self.file.close()
        self._beside.replace(self._path)

    def drop(self) -> None:
        with suppress(OSError):  # what a full disk still holds in its buffer
            self.file.close()
        self._beside.unlink(missing_ok=True)


def _parsed(line: bytes) -> Fields | BadLine:
    try:
        value = json.loads(line, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return BadLine("not JSON")
    return value if isinstance(value, dict) else BadLine("an object was expected")


def _no_constant(name: str) -> float:
    raise ValueError(name)


def _skip_line(lines: Any) -> None:
    while (piece := lines.readline(_LONGEST_LINE)) and not piece.endswith(b"\n"):
        pass


def _strict_row(row: Fields) -> Fields:
    clean = {name: strict(value) for name, value in row.items()}
    if "reasons" in clean:
        clean["reasons"] = [
            {name: strict(value) for name, value in reason.items()} for reason in clean["reasons"]
        ]
    return clean


def _unreadable(name: str, error: BaseException) -> FileProblem:
    what = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return FileProblem(f"{name}: cannot be read ({what})")
