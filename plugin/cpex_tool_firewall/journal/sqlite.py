# SPDX-License-Identifier: Apache-2.0
"""The default journal: one SQLite file in WAL mode, shared by every worker and the command line of one host.

Rules that keep the file whole, each learned from a measured loss:

* Only apsw opens it. A second SQLite copy in a process, or a plain open() and close() of the file, drops
  the locks that process holds, and another process may then delete the write-ahead log under it. stat() is
  harmless.
* SQLite before 3.51.3 can corrupt a WAL file when two processes write and checkpoint at once: it is refused.
* SQLite goes on writing, without an error, into files that were moved or deleted: they are compared each
  second.
* SQLite's own busy handler sleeps up to 100 ms at a time; ours naps half a millisecond and gives up in time.
* A connection must not be used, nor closed, by a forked child: there it is left alone, and using it is an
  error.
"""

import json
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import apsw

from .interface import FORGET_SECONDS, JournalError, Worker

FILE_NAME = "journal.db"
SCHEMA_VERSION = 1
MINIMUM_SQLITE = (3, 51, 3)

_APPLICATION_ID = 0x54464A31  # "TFJ1": tells our file from any other SQLite file
_SCHEMA = """
CREATE TABLE records (id INTEGER PRIMARY KEY AUTOINCREMENT, body BLOB NOT NULL);
CREATE TABLE workers (
  name TEXT PRIMARY KEY, seen REAL NOT NULL, body TEXT NOT NULL, left INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
"""
_BUSY_SECONDS = 0.05
_BUSY_NAP_SECONDS = 0.0005
_OPEN_SECONDS = 5.0
_WATCH_SECONDS = 1.0
_WAL_BYTES_KEPT = 16 * 1024 * 1024

_ADVICE: tuple[tuple[type[apsw.Error], str], ...] = (
    (apsw.FullError, "the disk is full; free space on that file system, writing resumes by itself"),
    (
        apsw.BusyError,
        "another process keeps the file locked; look for one that hangs (fuser -v shows who has it open)",
    ),
    (
        apsw.LockedError,
        "another process keeps the file locked; look for one that hangs (fuser -v shows who has it open)",
    ),
    (
        apsw.ReadOnlyError,
        "the file or its file system is read-only; make it writable for the user of the gateway",
    ),
    (
        apsw.CantOpenError,
        "the file cannot be opened; check that the folder belongs to the user of the gateway (mode 0700)",
    ),
    (
        apsw.PermissionsError,
        "the file may not be opened; check that the folder belongs to the user of the gateway",
    ),
    (apsw.NotADBError, "this is not a journal; move the file away, or restore it from a backup"),
    (
        apsw.CorruptError,
        "the file is damaged; stop the workers, move it away, and restore a backup or start anew",
    ),
    (apsw.IOError, "the disk reported an error or is full; check the file system and its free space"),
)

# Connections of this process, by id. Holding them here keeps a forked child from closing them with its
# garbage.
_connections: dict[int, apsw.Connection] = {}
_opening = threading.Lock()


def _renew_lock_after_fork() -> None:
    """A lock that another thread held in the parent would never be released in the child."""
    global _opening  # noqa: PLW0603
    _opening = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock_after_fork)


class SqliteJournal:
    """Journal in `folder`/journal.db. Made there, with mode 0600, unless create is False.

    The folder must exist. busy_seconds: how long a call may wait for another process's write before
    JournalError. Raises JournalError when the file cannot be opened or is not a journal of this schema.
    """

    def __init__(
        self,
        folder: Path,
        *,
        create: bool = True,
        busy_seconds: float = _BUSY_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        check_sqlite(apsw.sqlite_lib_version())
        self.path = folder / FILE_NAME
        self._wal = folder / (FILE_NAME + "-wal")
        self._busy_seconds = busy_seconds
        self._clock = clock
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._deadline = 0.0  # monotonic; the busy handler gives up then
        self._next_watch = 0.0
        self._durable = False
        self._identity: tuple[int, int] | None = None
        self._wal_identity: tuple[int, int] | None = None
        self._connection: apsw.Connection | None = None
        with _opening:
            self._open(create)

    def append(self, batch: Sequence[bytes], *, durable: bool = False) -> int:
        """See Journal.append."""
        with self._working("append") as connection:
            self._set_durable(connection, durable)
            with _writing(connection):
                connection.executemany(
                    "INSERT INTO records(body) VALUES (?)", ((record,) for record in batch)
                )
                last = _last(connection)
            return last

    def read_since(self, cursor: int, limit: int = 1024) -> list[tuple[int, bytes]]:
        """See Journal.read_since."""
        with self._working("read") as connection:
            rows: list[Any] = connection.execute(
                "SELECT id, body FROM records WHERE id > ? ORDER BY id LIMIT ?", (cursor, max(limit, 0))
            ).fetchall()
            return rows

    def last(self) -> int:
        """See Journal.last."""
        with self._working("read") as connection:
            return _last(connection)

    def beat(self, worker: str, body: Mapping[str, Any]) -> None:
        """See Journal.beat."""
        text = json.dumps(dict(body), allow_nan=False)
        now = self._clock()
        with self._working("heartbeat") as connection:
            self._set_durable(connection, False)
            with _writing(connection):
                connection.execute(
                    "INSERT INTO workers(name, seen, body) VALUES (?, ?, ?)"
                    " ON CONFLICT(name) DO UPDATE SET seen = excluded.seen, body = excluded.body, left = 0",
                    (worker, now, text),
                )
                connection.execute("DELETE FROM workers WHERE seen < ?", (now - FORGET_SECONDS,))

    def leave(self, worker: str) -> None:
        """See Journal.leave."""
        with self._working("heartbeat") as connection:
            connection.execute("UPDATE workers SET left = 1 WHERE name = ?", (worker,))

    def workers(self) -> list[Worker]:
        """See Journal.workers."""
        with self._working("read") as connection:
            rows: list[Any] = connection.execute(
                "SELECT name, seen, body, left FROM workers ORDER BY seen DESC, name"
            ).fetchall()
        try:
            return [Worker(name, seen, json.loads(body), bool(left)) for name, seen, body, left in rows]
        except ValueError as error:
            raise JournalError(
                f"{self.path}: a heartbeat is not JSON ({error}); the file is damaged"
            ) from error

    def close(self) -> None:
        """See Journal.close. In a forked child it does nothing: the connection is the parent's."""
        if os.getpid() != self._pid:
            return
        with self._lock:
            self._close()

    def _open(self, create: bool) -> None:
        if create:
            try:
                with suppress(FileExistsError):
                    # mknod, not open(): it makes the file without ever holding a descriptor of it.
                    os.mknod(self.path, stat.S_IFREG | 0o600)
            except OSError as error:
                raise JournalError(
                    f"{self.path}: cannot be made ({error.strerror}); the folder must exist and be writable"
                ) from error
        elif not self.path.exists():
            raise JournalError(
                f"{self.path}: there is no journal yet; it is made when the gateway starts with the plugin"
            )
        try:
            self._connect_patiently()
            self._identity = _identity(self.path)
        except apsw.Error as error:
            self._close()
            raise self._explained("open", error) from error
        except BaseException:
            self._close()
            raise

    def _connect_patiently(self) -> None:
        # Several workers starting at once may each be told "busy" while one of them turns the new file into
        # a WAL file: SQLite does not ask the busy handler then, so the whole opening is repeated.
        until = time.monotonic() + _OPEN_SECONDS
        while True:
            try:
                self._connect()
            except (apsw.BusyError, apsw.LockedError):
                self._close()
                if time.monotonic() >= until:
                    raise
                time.sleep(0.01)
            else:
                return

    def _connect(self) -> None:
        connection = apsw.Connection(str(self.path), flags=apsw.SQLITE_OPEN_READWRITE)
        self._connection = connection
        _connections[id(connection)] = connection
        connection.set_busy_handler(self._wait)
        self._deadline = time.monotonic() + self._busy_seconds
        self._check_ours(connection)  # first, so that a file that is not ours stays as it is
        mode = connection.pragma("journal_mode", "wal")
        if mode != "wal":
            raise JournalError(
                f"{self.path}: SQLite cannot use its write-ahead log here (it said {mode!r}); "
                "put the state folder on a local disk"
            )
        connection.pragma("synchronous", "NORMAL")
        connection.pragma("journal_size_limit", _WAL_BYTES_KEPT)
        connection.pragma("trusted_schema", False)
        if connection.pragma("user_version") == 0:
            with _writing(connection):
                if connection.pragma("user_version") == 0:  # no other worker has made the tables meanwhile
                    connection.execute(_SCHEMA)
                    connection.pragma("application_id", _APPLICATION_ID)
                    connection.pragma("user_version", SCHEMA_VERSION)

    def _check_ours(self, connection: apsw.Connection) -> None:
        with connection:  # one view of the file for all three questions
            version = connection.pragma("user_version")
            ours = connection.pragma("application_id") == _APPLICATION_ID
            empty = connection.execute("SELECT count(*) FROM sqlite_schema").get == 0
        if not ours and not (empty and version == 0):
            raise JournalError(
                f"{self.path}: this SQLite file is not a journal of the tool firewall; "
                "move it away, or choose another state folder"
            )
        if ours and version != SCHEMA_VERSION:
            raise JournalError(
                f"{self.path}: schema version {version}, but this release reads version {SCHEMA_VERSION}; "
                "use the release that wrote it, or choose another state folder"
            )

    def _wait(self, tries: int) -> bool:
        if time.monotonic() >= self._deadline:
            return False
        time.sleep(_BUSY_NAP_SECONDS)
        return True

    @contextmanager
    def _working(self, doing: str) -> Iterator[apsw.Connection]:
        if os.getpid() != self._pid:
            raise JournalError(
                f"{self.path}: made by process {self._pid}, used by {os.getpid()} after a fork; open another"
            )
        with self._lock:
            connection = self._connection
            if connection is None:
                raise JournalError(f"{self.path}: it was closed; open it again")
            now = time.monotonic()
            self._deadline = now + self._busy_seconds
            try:
                if now >= self._next_watch:
                    self._check_files()
                    self._next_watch = now + _WATCH_SECONDS
                yield connection
            except apsw.Error as error:
                raise self._explained(doing, error) from error

    def _check_files(self) -> None:
        for path, opened in ((self.path, self._identity), (self._wal, self._wal_identity)):
            if opened is not None and _identity(path) != opened:
                raise JournalError(
                    f"{path}: the file was moved, deleted or replaced while in use, nothing more is stored; "
                    "put it back, or restart the gateway to begin a new journal"
                )
        self._wal_identity = _identity(self._wal)

    def _set_durable(self, connection: apsw.Connection, durable: bool) -> None:
        if durable != self._durable:
            connection.pragma("synchronous", "FULL" if durable else "NORMAL")
            self._durable = durable

    def _explained(self, doing: str, error: apsw.Error) -> JournalError:
        advice = next((text for kind, text in _ADVICE if isinstance(error, kind)), "see the SQLite message")
        return JournalError(f"{self.path}: {doing} failed: {advice} (SQLite: {error})")

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            _connections.pop(id(connection), None)
            connection.close()


def check_sqlite(version: str) -> None:
    """Raises JournalError when this SQLite version cannot be trusted with a shared WAL file."""
    if tuple(int(part) for part in version.split(".")) < MINIMUM_SQLITE:
        least = ".".join(str(part) for part in MINIMUM_SQLITE)
        raise JournalError(
            f"SQLite {version} can corrupt a journal that several processes write; "
            f"at least {least} is needed: pip install --upgrade apsw"
        )


@contextmanager
def _writing(connection: apsw.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # SQLite has rolled back by itself after some errors
            connection.execute("ROLLBACK")
        raise


def _last(connection: apsw.Connection) -> int:
    # sqlite_sequence, not max(id): it also knows records that were pruned.
    last: int | None = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'records'").get
    return last or 0


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
