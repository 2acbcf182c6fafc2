# SPDX-License-Identifier: Apache-2.0
"""Saves a SQLite journal whose files were deleted or damaged under it.

A process that still has the files open can read them although they have no name any more, write-ahead log
included. So one worker, under the lock of `journal.lock`, copies everything it can read into a new file and
puts that in place; the others find another file under the name and follow. What they stored in between into
the old one, they store again (Journal.heal).

The new file goes on with the same generation, digests and cursors, a good way further on, so that no reader
is ahead of it; a signed checkpoint says what is missing.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import apsw

from .chain import ChainKey, Checkpoint
from .interface import JournalError
from .sqlite_chain import Row, check_range, check_row, checkpoints, put_checkpoint, with_kept
from .sqlite_schema import PACK_COLUMNS, last_id, make_schema

JUMP: Final = 1_000_000
"""How far cursors go on behind a rescue: more than are given in the second until everybody has noticed."""

_LOCK_NAME: Final = "journal.lock"
_LOCK_SECONDS: Final = 10.0
_SLICE: Final = 512
_DAMAGED_KEPT: Final = 3


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """One process at a time. Raises JournalError when another one takes too long."""
    descriptor = os.open(folder / _LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        until = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() >= until:
                    raise JournalError(
                        f"{folder / _LOCK_NAME}: another process has been saving the journal for more than "
                        f"{_LOCK_SECONDS:g} s"
                    ) from error
                time.sleep(0.01)
        yield
    finally:
        os.close(descriptor)


def copy(source: apsw.Connection, target: Path, key: ChainKey, generation: str) -> int:
    """Copies what can be read of an open journal into a new file. Returns how many packs could not be.

    Raises apsw.Error when not even the tables can be read, or the new file cannot be written.
    """
    with _new_file(target) as made:
        make_schema(made, key, generation)
        return _copy_all(source, made, key)


def begin_anew(target: Path, key: ChainKey) -> None:
    """A new file with nothing in it, of a generation of its own."""
    with _new_file(target) as made:
        make_schema(made, key)


@contextmanager
def _new_file(target: Path) -> Iterator[apsw.Connection]:
    made = apsw.Connection(
        str(target), flags=apsw.SQLITE_OPEN_READWRITE | apsw.SQLITE_OPEN_CREATE | apsw.SQLITE_OPEN_EXCLUSIVE
    )
    try:
        made.pragma("synchronous", "FULL")
        with made:
            yield made
    finally:
        made.close()


def put_in_place(path: Path, target: Path) -> None:
    """Moves what is left of the old files aside and the new one to their name."""
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    for suffix in ("-shm", "-wal", ""):
        old = path.with_name(path.name + suffix)
        if old.exists():
            old.rename(path.with_name(f"{path.stem}.damaged-{stamp}.db{suffix}"))
    target.rename(path)
    aside = sorted(path.parent.glob(f"{path.stem}.damaged-*.db"), reverse=True)
    for damaged in aside[_DAMAGED_KEPT:]:
        for suffix in ("-shm", "-wal", ""):
            damaged.with_name(damaged.name + suffix).unlink(missing_ok=True)
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _copy_all(source: apsw.Connection, made: apsw.Connection, key: ChainKey) -> int:
    last = last_id(source)
    covered = checkpoints(source)
    cursor, previous, missing = 0, key.START, 0
    for checkpoint in covered:
        if checkpoint.start > cursor:
            missing += _copy_plain(source, made, key, cursor, checkpoint.start, previous)[0]
        rows = list(_readable(source, checkpoint.start, checkpoint.upto))
        _insert(made, rows)
        if not check_range(key, checkpoint, rows):
            put_checkpoint(made, key, checkpoint)
        else:
            missing += max(checkpoint.kept - len(rows), 0)
            _cover(made, key, checkpoint.start, checkpoint.upto, checkpoint.tail, rows, checkpoint.removed)
        cursor, previous = checkpoint.upto, checkpoint.tail
    lost, previous = _copy_plain(source, made, key, cursor, last, previous)
    _cover(made, key, last, last + JUMP, previous, [], 0)
    made.execute("DELETE FROM sqlite_sequence WHERE name = 'packs'")
    made.execute("INSERT INTO sqlite_sequence VALUES ('packs', ?)", (last + JUMP,))
    return missing + lost


def _copy_plain(
    source: apsw.Connection, made: apsw.Connection, key: ChainKey, start: int, upto: int, previous: bytes
) -> tuple[int, bytes]:
    """A part of the chain without notes, (start, upto]: (packs that could not be read, its last digest).

    In the new file it has notes, a slice each: nothing lies between notes there, where neither pruning nor
    the next rescue would look.
    """
    cursor, whole, found = start, True, 0
    part: list[Row] = []

    def put() -> int:
        if not part:
            return cursor
        _insert(made, part)
        end = part[-1].id
        tail = part[-1].digests[-len(key.START) :]
        why = "pruned" if whole else "rescued"
        _cover(made, key, cursor, end, tail, part, 0 if whole else end - cursor - len(part), why)
        part.clear()
        return end

    for row in _readable(source, start, upto):
        last = part[-1].id if part else cursor
        if whole and (row.id != last + 1 or check_row(key, previous, row)):
            # From the first record that does not follow, the chain is told anew: by what is there.
            cursor = put()
            whole = False
        previous = row.digests[-len(key.START) :]
        found += 1
        part.append(row)
        if len(part) == _SLICE:
            cursor = put()
    cursor = put()
    if cursor < upto:
        _cover(made, key, cursor, upto, previous, [], upto - cursor)
    return upto - start - found, previous


def _cover(
    made: apsw.Connection,
    key: ChainKey,
    start: int,
    upto: int,
    tail: bytes,
    kept: list[Row],
    removed: int,
    why: str = "rescued",
) -> None:
    note = Checkpoint(start, upto, why, removed, 0, tail, key.START, None, None)
    put_checkpoint(made, key, with_kept(key, note, kept))


def _insert(made: apsw.Connection, rows: list[Row]) -> None:
    made.executemany("INSERT INTO packs VALUES (?, ?, ?, ?, ?, ?)", rows)


def _readable(source: apsw.Connection, after: int, upto: int) -> Iterator[Row]:
    """The packs in (after, upto] that can be read: a part that cannot is halved until it is one pack."""
    parts = [(start, min(start + _SLICE, upto)) for start in range(after, upto, _SLICE)]
    parts.reverse()
    while parts:
        start, end = parts.pop()
        try:
            found: Any = source.execute(
                f"SELECT {PACK_COLUMNS} FROM packs WHERE id > ? AND id <= ? ORDER BY id",
                (start, end),
            ).fetchall()
        except (apsw.CorruptError, apsw.IOError, apsw.NotADBError):
            if end - start > 1:
                middle = (start + end) // 2
                parts += [(middle, end), (start, middle)]
            continue
        for row in found:
            yield Row(*row)
