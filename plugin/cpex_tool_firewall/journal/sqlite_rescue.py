# SPDX-License-Identifier: Apache-2.0
"""Saves a SQLite journal whose files were deleted or damaged under it.

A process that still has the files open can read them although they have no name any more, write-ahead log
included. So one worker, under the lock of `journal.lock`, copies everything it can read into a new file and
puts that in place; the others find another file under the name and follow. The last part is copied while
nobody else can write, and that lock is kept until everybody has noticed: whoever still has the old file can
store nothing in it that would be lost. Should he nevertheless, he stores it again (Journal.heal).

The new file goes on with the same generation, digests and cursors, a good way further on, so that no reader
is ahead of it and no cursor is given twice; signed checkpoints say what is missing, and where.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import apsw

from ..folders import sync_folder
from .chain import ChainKey, Checkpoint
from .interface import JournalError
from .sqlite_chain import (
    Row,
    check_range,
    check_row,
    checkpoints,
    end_bytes,
    put_checkpoint,
    readable_pack,
    sound,
    with_kept,
)
from .sqlite_schema import PACK_COLUMNS, last_id, make_schema, meta, table_texts

JUMP: Final = 1_000_000
"""How far cursors go on behind a rescue: more than are given in the second until everybody has noticed."""

LOCK_SECONDS: Final = 30.0

_LOCK_NAME: Final = "journal.lock"
_SLICE: Final = 512
_DAMAGED_KEPT: Final = 3
_UNREADABLE: Final = (apsw.CorruptError, apsw.IOError, apsw.NotADBError, UnicodeDecodeError)


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """One process at a time opens or saves a journal. Raises JournalError when another takes too long."""
    try:
        descriptor = os.open(folder / _LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise JournalError(
            f"{folder / _LOCK_NAME}: cannot be opened ({error.strerror}); the folder must exist and belong "
            "to the user of the gateway (mode 0700)"
        ) from error
    try:
        if os.geteuid() == 0:  # the gateway may be another user, and root's file would lock it out
            owner = folder.stat()
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
        until = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() >= until:
                    raise JournalError(
                        f"{folder / _LOCK_NAME}: another process has been opening or saving the journal for "
                        f"more than {LOCK_SECONDS:g} s; look for one that hangs (fuser -v shows who has it "
                        "open)"
                    ) from error
                time.sleep(0.01)
        yield
    finally:
        os.close(descriptor)


def copy(
    source: apsw.Connection, target: Path, key: ChainKey, generation: str, *, known: int, busy_seconds: float
) -> int:
    """Copies what can be read of an open journal into a new file. Returns how many packs are missing.

    generation: of the journal as far as it is known, else "". known: the highest cursor that was ever seen of
    it. From now on `source` holds the write lock, when it could be had: keep it open until everybody else has
    noticed. Raises apsw.Error when not even the tables can be read, or the new file cannot be written.
    """
    _leave_transaction(source)
    mended = _mend(source)
    with suppress(*_UNREADABLE):
        generation = meta(source, "generation") or generation
    if not generation:
        raise apsw.CorruptError("the journal does not say which one it is")
    with _new_file(target) as made:
        make_schema(made, key, generation)
        copied = _Copy(source, made, key)
        if not mended:
            source.execute("BEGIN")
            copied.all(_last(source, known))  # others go on writing meanwhile
            _leave_transaction(source)
            with suppress(*_UNREADABLE, apsw.BusyError, apsw.ReadOnlyError):
                _lock(source, busy_seconds)
        else:
            copied.all(_last(source, known))
        last = _last(source, known)
        copied.chain(last)
        copied.end(max(last, known))
        with suppress(*_UNREADABLE):
            made.executemany(
                "INSERT OR IGNORE INTO workers VALUES (?, ?, ?, ?)",
                source.execute("SELECT name, seen, body, left FROM workers").fetchall(),
            )
    return copied.lost


def _mend(source: apsw.Connection) -> bool:
    """Makes SQLite find the tables although their texts are damaged. True when that was needed: `source` is
    then in a transaction that must not be committed, because what is damaged stays as it is.
    """
    try:
        source.execute("SELECT count(*) FROM packs WHERE id < 0").fetchall()
    except (apsw.CorruptError, apsw.SQLError):
        source.pragma("writable_schema", True)
        source.execute("BEGIN IMMEDIATE")
        texts = [(text, name) for name, text in table_texts().items()]
        source.executemany("UPDATE sqlite_schema SET sql = ? WHERE name = ?", texts)
        source.execute("PRAGMA writable_schema = RESET").fetchall()  # reads them again
        return True
    return False


def begin_anew(target: Path, key: ChainKey, *, after: str) -> None:
    """A new file with nothing in it, of a generation of its own, because nothing was readable of `after`."""
    with _new_file(target) as made:
        make_schema(made, key)
        made.execute("INSERT INTO meta VALUES ('after', ?)", (after,))


def jump(connection: apsw.Connection, key: ChainKey, known: int) -> None:
    """Notes that everything after its end up to the cursor `known` is missing: the journal is an older copy.
    What comes next gets cursors that were never given before. Inside a transaction of the caller.
    """
    last, tail = end_bytes(connection)
    note = Checkpoint(last, known + JUMP, "rolled back", known - last, 0, tail, key.START, None, None)
    put_checkpoint(connection, key, note)
    _go_on_from(connection, known + JUMP)


def enough_room(path: Path) -> None:
    """Raises OSError when there is no room for a second journal beside this one."""
    needed = 0
    for suffix in ("", "-wal"):
        with suppress(FileNotFoundError):
            needed += path.with_name(path.name + suffix).stat().st_size
    space = os.statvfs(path.parent)
    if space.f_bavail * space.f_frsize < needed:
        raise OSError(errno.ENOSPC, f"{needed >> 20} MiB of free space are needed to save it")


# --- the new file takes the name of the old one ---


def put_in_place(path: Path, target: Path) -> None:
    """Moves what is left of the old files aside and the new one to their name. A process that is killed in
    the middle leaves this to the next one: see finish().
    """
    target.rename(_ready(path))
    sync_folder(path.parent)
    finish(path)


def finish(path: Path) -> bool:
    """Does what is left of put_in_place(), under the lock. False when nothing is."""
    if not unfinished(path):
        return False
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")
    for suffix in ("-shm", "-wal", ""):  # a log must never be found beside a file that it is not of
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(
                path.with_name(f"{path.stem}.damaged-{stamp}.db{suffix}")
            )
    sync_folder(path.parent)
    _ready(path).rename(path)
    _drop_old(path)
    sync_folder(path.parent)
    return True


def unfinished(path: Path) -> bool:
    """Whether somebody was killed while he put a new file in place, or is doing it right now."""
    return _ready(path).exists()


def _ready(path: Path) -> Path:
    return path.with_name(f"{path.stem}.rescued.db")


def _drop_old(path: Path) -> None:
    name = re.compile(re.escape(path.stem) + r"\.damaged-([0-9T.]+)\.db(-wal|-shm)?\Z")
    aside = [(match[1], found) for found in path.parent.iterdir() if (match := name.match(found.name))]
    kept = sorted({stamp for stamp, _ in aside}, reverse=True)[:_DAMAGED_KEPT]
    for stamp, found in aside:
        if stamp not in kept:
            found.unlink(missing_ok=True)


# --- copying ---


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


def _last(source: apsw.Connection, known: int) -> int:
    try:
        return last_id(source)
    except _UNREADABLE:
        return known


def _leave_transaction(source: apsw.Connection) -> None:
    if source.in_transaction:
        with suppress(apsw.Error):  # SQLite may have ended it by itself
            source.execute("ROLLBACK")


def _lock(source: apsw.Connection, seconds: float) -> None:
    """Begins a write that is never ended: nobody else can write as long as `source` is open."""
    until = time.monotonic() + seconds
    while True:
        try:
            source.execute("BEGIN IMMEDIATE")
        except apsw.BusyError:
            if time.monotonic() >= until:
                raise
            time.sleep(0.001)
        else:
            return


def _go_on_from(connection: apsw.Connection, cursor: int) -> None:
    connection.execute("DELETE FROM sqlite_sequence WHERE name = 'packs'")
    connection.execute("INSERT INTO sqlite_sequence VALUES ('packs', ?)", (cursor,))


class _Copy:
    """Copies packs in order, as far as they can be read and follow on each other.

    A pack that is not what was stored is left out. The first one behind packs that cannot be read cannot be
    checked, because the digest before it is not known: it is taken as it is, and the signed note about the
    hole holds it, so that nobody can change it from now on.
    """

    def __init__(self, source: apsw.Connection, made: apsw.Connection, key: ChainKey) -> None:
        self.lost = 0  # packs
        self._source = source
        self._made = made
        self._key = key
        self._at = 0  # every cursor up to here was looked at
        self._previous = key.START  # digest of what was stored there
        self._hole: int | None = None  # what was stored behind this cursor is missing
        self._missing = 0  # packs in the hole
        self._rows: list[Row] = []  # to be written

    def all(self, last: int) -> None:
        """Everything up to the cursor `last`."""
        for checkpoint in self._checkpoints():
            if checkpoint.upto <= self._at:
                continue
            self.chain(min(checkpoint.start, checkpoint.upto))
            if checkpoint.start >= checkpoint.upto:  # damaged: nobody knows any more what it was about
                self._open_hole(0)
                continue
            self._close_hole(self._at)
            self._range(checkpoint)
        self.chain(last)

    def chain(self, last: int) -> None:
        """What was stored after what was copied so far, up to the cursor `last`."""
        for row in _readable(self._source, self._at, last):
            self._take(row)
            if len(self._rows) >= _SLICE:
                self._write()
        self._write()
        if last > self._at:
            self._open_hole(last - self._at)
            self._at = last

    def end(self, last: int) -> None:
        """Cursors go on far behind `last`."""
        if last > self._at:
            self._open_hole(last - self._at)
        self._at = last + JUMP
        if self._hole is None:
            self._hole = last
        self._close_hole(self._at)
        _go_on_from(self._made, self._at)

    def _checkpoints(self) -> list[Checkpoint]:
        try:
            return checkpoints(self._source)
        except _UNREADABLE:
            return []

    def _range(self, checkpoint: Checkpoint) -> None:
        # A damaged page may give the same twice, or in another order.
        found = {row.id: row for row in _readable(self._source, self._at, checkpoint.upto) if sound(row)}
        rows = [found[cursor] for cursor in sorted(found)]
        if not check_range(self._key, checkpoint, rows):
            put_checkpoint(self._made, self._key, checkpoint)
        else:
            missing = max(checkpoint.kept - len(rows), 1)
            self.lost += missing
            start = max(checkpoint.start, self._at)  # a damaged note may claim more
            self._cover(start, checkpoint.upto, checkpoint.tail, rows, checkpoint.removed + missing)
        self._rows += rows
        self._write()
        self._at, self._previous = checkpoint.upto, checkpoint.tail
        if not checkpoint.genuine(self._key):  # nor can its digest be believed
            self._open_hole(0)

    def _take(self, row: Row) -> None:
        if row.id <= self._at:  # a damaged page may give the same twice, or in another order
            self.lost += 1
            return
        follows = row.id == self._at + 1
        if follows and not check_row(self._key, self._previous, row):
            self._close_hole(self._at)
            self._rows.append(row)
        elif follows and self._hole is None:
            self._open_hole(1)
        else:
            if not follows:
                self._open_hole(row.id - self._at - 1)
            if readable_pack(row):
                self._rows.append(row)
                self._previous = self._key.tail(self._previous, row.digests)
                self._close_hole(row.id, row)
            else:
                self._open_hole(1)
        self._at = row.id
        self._previous = self._key.tail(self._previous, row.digests)

    def _open_hole(self, packs: int) -> None:
        if self._hole is None:
            self._hole = self._at
        self._missing += packs
        self.lost += packs

    def _close_hole(self, upto: int, first: Row | None = None) -> None:
        if self._hole is None:
            return
        if self._hole < upto:
            self._cover(self._hole, upto, self._previous, [first] if first else [], self._missing)
        self._hole, self._missing = None, 0

    def _cover(self, start: int, upto: int, tail: bytes, kept: list[Row], removed: int) -> None:
        note = Checkpoint(start, upto, "rescued", removed, 0, tail, self._key.START, None, None)
        put_checkpoint(self._made, self._key, with_kept(self._key, note, kept))

    def _write(self) -> None:
        self._made.executemany("INSERT INTO packs VALUES (?, ?, ?, ?, ?, ?)", self._rows)
        self._rows = []


def _readable(source: apsw.Connection, after: int, upto: int) -> Iterator[Row]:
    """The packs in (after, upto] that can be read: a part that cannot is halved until it is one pack."""
    while after < upto:
        end = min(after + _SLICE, upto)
        yield from _readable_part(source, after, end)
        after = max(end, _next_after(source, end, upto) - 1)


def _readable_part(source: apsw.Connection, after: int, upto: int) -> Iterator[Row]:
    parts = [(after, upto)]
    while parts:
        start, end = parts.pop()
        try:
            found: Any = source.execute(
                f"SELECT {PACK_COLUMNS} FROM packs WHERE id > ? AND id <= ? ORDER BY id",
                (start, end),
            ).fetchall()
        except _UNREADABLE:
            if end - start > 1:
                middle = (start + end) // 2
                parts += [(middle, end), (start, middle)]
            continue
        for row in found:
            yield Row(*row)


def _next_after(source: apsw.Connection, cursor: int, upto: int) -> int:
    """The next cursor at which there may be something: cursors jump far ahead at each rescue."""
    try:
        found: int | None = source.execute("SELECT min(id) FROM packs WHERE id > ?", (cursor,)).get
    except _UNREADABLE:
        return cursor + 1
    return upto + 1 if found is None else found
