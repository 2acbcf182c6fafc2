# SPDX-License-Identifier: Apache-2.0
"""Records on their way to a server, on this host's disk: one SQLite file for all workers of a host.

A decision is here before its answer is given, whatever the server does. A row stays until the server has it;
findings and control records for KEEP_SECONDS longer, because a server may lose what it confirmed.

The rules of sqlite.py hold here too: only apsw opens the file, no process uses what it inherited by a fork,
and a file that cannot be read is set aside, never deleted.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import apsw

from .interface import JournalError, Kind, Pack
from .sqlite_file import (
    Patience,
    check_sqlite,
    connect,
    disconnect,
    identity,
    make_private,
    opened_patiently,
    writing,
)

FILE_NAME: Final = "spool.db"
KEEP_SECONDS: Final = 3600.0
"""Findings and control records stay so long after the server took them."""

MOST_ORDINARY_BYTES: Final = 128 * 1024 * 1024
"""So much of ordinary records may wait; findings and control records always find room."""

_BUSY_SECONDS: Final = 0.04
_OPEN_SECONDS: Final = 5.0
_LOOK_SECONDS: Final = 1.0
_CLEAN_SLICE: Final = 500
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS spool (
  id INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, owner TEXT NOT NULL, kind INTEGER NOT NULL,
  records INTEGER NOT NULL, body BLOB NOT NULL, mark BLOB NOT NULL,
  generation TEXT NOT NULL DEFAULT '', cursor INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS waiting ON spool(owner, id) WHERE cursor = 0;
CREATE INDEX IF NOT EXISTS marks ON spool(mark);
"""


class Waiting(NamedTuple):
    """A pack in the spool."""

    id: int
    pack: Pack


class Sent(NamedTuple):
    """A pack that the server had taken."""

    id: int
    at: float
    owner: str
    generation: str
    cursor: int
    body: bytes


class Spool:
    """The spool in `folder`; made there when there is none. `owner` names who writes through this object.

    at: seconds since the epoch, of this host. Raises JournalError. Used by one thread at a time.
    """

    def __init__(self, folder: Path, owner: str) -> None:
        check_sqlite(apsw.sqlite_lib_version())
        self.path = folder / FILE_NAME
        self.set_aside = ""
        """Where a file went that could not be read; "" while that did not happen."""
        self._owner = owner
        self._patience = Patience()
        self._durable: bool | None = None
        self._identity: tuple[int, int] | None = None
        self._next_look = 0.0
        self._connection: apsw.Connection | None = None
        self._unmarked: list[tuple[Waiting, int, str]] = []  # sent, with cursor and generation
        self.waiting = 0
        """How many packs of this owner the server does not have yet."""
        try:
            self._recount()
        except JournalError:
            if not self.set_aside:
                raise
            self._recount()

    def put(self, packs: Sequence[Pack], *, durable: bool, sent: Sequence[tuple[str, int]] = ()) -> None:
        """Adds packs, all or none. durable: they survive a power loss. sent: generation and cursor of each,
        when the server has them already.
        """
        now = time.time()
        with self._working() as connection:
            self._set_durable(connection, durable)
            rows = [
                (now, self._owner, *pack, _mark(pack.body), *(sent[n] if sent else ("", 0)))
                for n, pack in enumerate(packs)
            ]
            with writing(connection):
                connection.executemany(
                    "INSERT INTO spool(at, owner, kind, records, body, mark, generation, cursor)"
                    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    rows,
                )
        if not sent:
            self.waiting += len(rows)

    def replace(self, packs: Sequence[Pack]) -> None:
        """Forgets rows with these bodies: they are about to be put again, in their place among others."""
        with self._working() as connection:
            self._set_durable(connection, False)
            with writing(connection):
                connection.executemany(
                    "DELETE FROM spool WHERE owner = ? AND mark = ?",
                    ((self._owner, _mark(pack.body)) for pack in packs),
                )
            self.waiting = self._count(connection) - len(self._unmarked)

    def room(self) -> bool:
        """Whether ordinary records may wait here too."""
        with self._working() as connection:
            held: int = connection.execute(
                "SELECT coalesce(sum(length(body)), 0) FROM spool WHERE cursor = 0"
            ).get
            return held < MOST_ORDINARY_BYTES

    def next(self, limit: int) -> list[Waiting]:
        """The oldest packs of this owner that the server does not have."""
        after = self._unmarked[-1][0].id if self._unmarked else 0
        with self._working() as connection:
            found: Any = connection.execute(
                "SELECT id, kind, records, body FROM spool WHERE owner = ? AND cursor = 0 AND id > ?"
                " ORDER BY id LIMIT ?",
                (self._owner, after, limit),
            )
            return [Waiting(row[0], Pack(*row[1:])) for row in found]

    def sent(self, rows: Sequence[tuple[Waiting, int]], generation: str) -> None:
        """The server has these now, at these cursors. Ordinary ones are forgotten.

        While the disk does not take that, it is remembered here, so that nothing is sent over and over.
        """
        self._unmarked += [(row, cursor, generation) for row, cursor in rows]
        self.waiting = max(self.waiting - len(rows), 0)
        self._mark_sent()

    def _mark_sent(self) -> None:
        with self._working() as connection:
            self._set_durable(connection, False)
            with writing(connection):
                connection.executemany(
                    "DELETE FROM spool WHERE id = ?",
                    ((row.id,) for row, _, _ in self._unmarked if row.pack.kind == Kind.ORDINARY),
                )
                connection.executemany(
                    "UPDATE spool SET generation = ?, cursor = ? WHERE id = ?",
                    (
                        (generation, cursor, row.id)
                        for row, cursor, generation in self._unmarked
                        if row.pack.kind != Kind.ORDINARY
                    ),
                )
        self._unmarked.clear()
        self._recount()

    def remembered(self, after: int, limit: int, *, mine: bool) -> list[Sent]:
        """What the server took within KEEP_SECONDS, from this owner or from the others; ids after `after`."""
        with self._working() as connection:
            found: Any = connection.execute(
                "SELECT id, at, owner, generation, cursor, body FROM spool WHERE id > ? AND cursor > 0"
                f" AND owner {'=' if mine else '<>'} ? AND at > ? ORDER BY id LIMIT ?",
                (after, self._owner, time.time() - KEEP_SECONDS, limit),
            )
            return [Sent(*row) for row in found]

    def send_again(self, ids: Sequence[int]) -> None:
        """The server does not have these any more; they are this owner's to send now."""
        if self._unmarked:
            self._mark_sent()
        with self._working() as connection:
            self._set_durable(connection, False)
            with writing(connection):
                connection.executemany(
                    "UPDATE spool SET owner = ?, generation = '', cursor = 0 WHERE id = ?",
                    ((self._owner, one) for one in ids),
                )
            self.waiting = self._count(connection) - len(self._unmarked)

    def adopt(self, older_than: float) -> int:
        """Takes over what others could not send for so many seconds; returns how many packs."""
        with self._working() as connection:
            self._set_durable(connection, False)
            with writing(connection):
                connection.execute(
                    "UPDATE spool SET owner = ? WHERE cursor = 0 AND owner <> ? AND at < ?",
                    (self._owner, self._owner, time.time() - older_than),
                )
                taken = connection.changes()
            self.waiting += taken
            return taken

    def clean(self) -> None:
        """Forgets a slice of what the server has had for long enough."""
        with self._working() as connection:
            self._set_durable(connection, False)
            with writing(connection):
                connection.execute(
                    "DELETE FROM spool WHERE id IN"
                    " (SELECT id FROM spool WHERE cursor > 0 AND at < ? ORDER BY id LIMIT ?)",
                    (time.time() - KEEP_SECONDS, _CLEAN_SLICE),
                )

    def close(self) -> None:
        """Closes the file; the next use opens it again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            disconnect(connection)

    def _recount(self) -> None:
        with self._working() as connection:
            self.waiting = self._count(connection) - len(self._unmarked)

    def _count(self, connection: apsw.Connection) -> int:
        found: int = connection.execute(
            "SELECT count(*) FROM spool WHERE owner = ? AND cursor = 0", (self._owner,)
        ).get
        return found

    @contextmanager
    def _working(self) -> Iterator[apsw.Connection]:
        self._patience.lasts(_BUSY_SECONDS)
        try:
            self._check_file()
            if self._connection is None:
                self._connection = self._opened()
            yield self._connection
        except (apsw.CorruptError, apsw.NotADBError) as error:
            self._put_away()
            raise JournalError(
                f"{self.path}: the file is damaged; it is now {self.set_aside}, and a new one is used "
                f"(SQLite: {error})"
            ) from error
        except (apsw.Error, OSError) as error:
            raise JournalError(
                f"{self.path}: records cannot wait on this host's disk: {error}; check its free space and "
                "who may write there"
            ) from error

    def _opened(self) -> apsw.Connection:
        make_private(self.path)
        connection = opened_patiently(self._prepared, _OPEN_SECONDS)
        self._durable = None
        self._identity = identity(self.path)
        self._next_look = time.monotonic() + _LOOK_SECONDS
        return connection

    def _prepared(self) -> apsw.Connection:
        connection = connect(self.path, self._patience)
        try:
            connection.pragma("journal_mode", "WAL")
            connection.execute(_SCHEMA)
        except BaseException:
            disconnect(connection)
            raise
        return connection

    def _check_file(self) -> None:
        """SQLite goes on writing, without an error, into a file that was moved or deleted."""
        if self._connection is None or time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + _LOOK_SECONDS
        if identity(self.path) != self._identity:
            # Closing it could delete the write-ahead log of the file that took the name: it stays open.
            self._connection = None

    def _set_durable(self, connection: apsw.Connection, durable: bool) -> None:
        if durable is not self._durable:
            connection.pragma("synchronous", "FULL" if durable else "NORMAL")
            self._durable = durable

    def _put_away(self) -> None:
        """Renames the damaged file and what belongs to it."""
        self.close()
        name = f"{self.path.name}.damaged-{int(time.time())}"
        for suffix in ("-wal", "-shm", ""):
            with suppress(FileNotFoundError):
                self.path.with_name(self.path.name + suffix).rename(self.path.with_name(name + suffix))
        self.set_aside = str(self.path.with_name(name))
        self.waiting = 0


def _mark(body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=16).digest()
