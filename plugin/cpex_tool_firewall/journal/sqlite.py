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
  error. Nor may one be open while the process forks: SQLite in the child would take the parent's locks for
  its own and take none, and the next process that closes would delete the write-ahead log under it.
* On closing, the last connection deletes the write-ahead log by name. When another file has taken the name
  meanwhile, that would be its log: so a connection to files that are gone keeps its hands off.
"""

import ctypes
import json
import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import apsw

from . import sqlite_rescue
from .chain import ChainKey, TamperedError
from .interface import (
    FORGET_SECONDS,
    Anchor,
    Entry,
    JournalError,
    JournalLost,
    Pack,
    SnapshotInfo,
    Verified,
    Worker,
)
from .reserve import Reserve
from .snapshot_files import SnapshotFiles
from .sqlite_chain import Verification, end_bytes, end_of, prune_slice
from .sqlite_file import (
    NAP_SECONDS,
    Patience,
    check_sqlite,
    connect,
    disconnect,
    identity,
    make_private,
    opened_patiently,
    writing,
)
from .sqlite_schema import (
    APPLICATION_ID,
    ENTRY_COLUMNS,
    OLDEST_VERSION,
    SCHEMA_VERSION,
    last_id,
    make_schema,
    meta,
    migrate,
)

FILE_NAME = "journal.db"

BUSY_SECONDS = 0.05
_OPEN_SECONDS = 30.0  # another worker may be bringing an older file up to date
_WATCH_SECONDS = 1.0
_WAL_BYTES_KEPT = 16 * 1024 * 1024
_WAL_PAGES_TIDIED = 256  # 1 MiB; the elected worker empties a longer log each second
_WAL_PAGES_AT_MOST = 8192  # 32 MiB; whoever writes then empties it, should nobody be elected
_TRUNCATE_SECONDS = 0.005
_LOCK_OUT_SECONDS = 3.0  # everybody has noticed by then that there is another file
_PRUNE_SECONDS = 0.01  # aim for one slice: a decision may be waiting behind it
_PRUNE_MOST_SECONDS = 0.03  # for one call of prune()
_PRUNE_PACKS = 32
_PRUNE_MOST_PACKS = 4096

_LOCKED = "another process keeps the file locked; look for one that hangs (fuser -v shows who has it open)"
_ADVICE: tuple[tuple[type[apsw.Error], str], ...] = (
    (apsw.FullError, "the disk is full; free space on that file system, writing resumes by itself"),
    (apsw.BusyError, _LOCKED),
    (apsw.LockedError, _LOCKED),
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
    (apsw.CorruptError, "the file is damaged"),
    (apsw.IOError, "the disk reported an error or is full; check the file system and its free space"),
)

_NOT_WRITTEN = (
    apsw.SQLITE_IOERR_WRITE,
    apsw.SQLITE_IOERR_FSYNC,
    apsw.SQLITE_IOERR_DIR_FSYNC,
    apsw.SQLITE_IOERR_TRUNCATE,
)
_LOST_READS = (apsw.SQLITE_IOERR_READ, apsw.SQLITE_IOERR_SHORT_READ, apsw.SQLITE_IOERR_CORRUPTFS)

_opening = threading.Lock()

logger = logging.getLogger(__name__)


def _renew_lock_after_fork() -> None:
    """A lock that another thread held in the parent would never be released in the child."""
    global _opening  # noqa: PLW0603
    _opening = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock_after_fork)


class SqliteJournal:
    """Journal in `folder`/journal.db. Made there, with mode 0600, unless create is False.

    The folder must exist. key: of the installation, for the digests. busy_seconds: how long a call may wait
    for another process's write before JournalError. Raises JournalError when the file cannot be opened, is
    not a journal, is of a newer release, or of another key; JournalLost when it is damaged: heal() helps.
    """

    def __init__(
        self,
        folder: Path,
        key: bytes,
        *,
        create: bool = True,
        busy_seconds: float = BUSY_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        check_sqlite(apsw.sqlite_lib_version())
        self.path = folder / FILE_NAME
        self._folder = folder
        self._key = ChainKey(key)
        self._busy_seconds = busy_seconds
        self._clock = clock
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._patience = Patience()
        self._next_watch = 0.0
        self._durable = False
        self._generation = ""
        self._snapshots = SnapshotFiles(folder)
        self._reserve = Reserve(folder)
        self._prune_packs = _PRUNE_PACKS
        self._covered = 0  # see prune_slice()
        self._identities: dict[str, tuple[int, int] | None] = {}
        self._connection: apsw.Connection | None = None
        self._retired: list[tuple[float, apsw.Connection]] = []  # close after that monotonic time
        self._seen = 0  # the highest cursor
        self._own = (0, b"")  # the end of the chain after the last append()
        self._suspended = False
        self._lost = ""
        with _opening:
            self._open(create)

    @property
    def where(self) -> str:
        """See Journal.where."""
        return str(self.path)

    @property
    def generation(self) -> str:
        """See Journal.generation."""
        return self._generation

    def append(self, packs: Sequence[Pack], *, durable: bool = False) -> int:
        """See Journal.append."""
        with self._working("append") as connection:
            self._set_durable(connection, durable)
            try:
                cursor = self._append(connection, packs)
            except apsw.FullError:
                # The reserve is kept for just this: what must not be lost finds room.
                if not durable or not self._reserve.drop():
                    raise
                cursor = self._append(connection, packs)
        return cursor

    def _append(self, connection: apsw.Connection, packs: Sequence[Pack]) -> int:
        with writing(connection):
            cursor = last_id(connection)
            _, previous = end_bytes(connection)
            now = self._clock()
            rows = []
            for pack in packs:
                cursor += 1
                try:
                    digests = self._key.link(previous, cursor, now, pack.kind, pack.body)
                except ValueError as error:
                    raise JournalError(f"{self.path}: this is not a pack ({error})") from error
                previous = self._key.tail(previous, digests)
                rows.append((cursor, now, pack.kind, pack.records, pack.body, digests))
            connection.executemany("INSERT INTO packs VALUES (?, ?, ?, ?, ?, ?)", rows)
        if rows:
            self._own = cursor, previous
            self._seen = cursor
        return cursor

    def read_since(self, cursor: int, limit: int = 256) -> list[Entry]:
        """See Journal.read_since."""
        with self._working("read") as connection:
            rows: Any = connection.execute(
                f"SELECT {ENTRY_COLUMNS} FROM packs WHERE id > ? ORDER BY id LIMIT ?",
                (cursor, max(limit, 0)),
            ).fetchall()
        if rows:
            self._seen = max(self._seen, rows[-1][0])
        return [Entry(*row) for row in rows]

    def last(self) -> int:
        """See Journal.last."""
        with self._working("read") as connection:
            return last_id(connection)

    def first(self) -> int:
        """See Journal.first."""
        with self._working("read") as connection:
            found: int | None = connection.execute(
                "SELECT max(upto) FROM checkpoints WHERE why = 'pruned' AND removed > 0"
            ).get
            return found or 0

    def prune(self, *, calls_before: float, findings_before: float, upto: int) -> int:
        """See Journal.prune. Refuses to remove, and so to sign, what was altered."""
        with self._working("prune") as connection:
            self._set_durable(connection, False)
            until = time.monotonic() + _PRUNE_MOST_SECONDS
            while True:
                begun = time.monotonic()
                self._patience.lasts(self._busy_seconds)
                try:
                    with writing(connection):
                        removed, looked, self._covered = prune_slice(
                            connection,
                            self._key,
                            now=self._clock(),
                            calls_before=calls_before,
                            findings_before=findings_before,
                            upto=upto,
                            packs=self._prune_packs,
                            covered=self._covered,
                        )
                except TamperedError as error:
                    raise JournalError(
                        f"{self.path}: {error}; nothing is removed any more, so that it can be looked into: "
                        "run tool-firewall verify"
                    ) from error
                self._adapt(time.monotonic() - begun)
                # Where everything is kept the next slice follows, but not for long: a decision may wait
                # for this thread. The next call goes on from there.
                if removed or not looked or time.monotonic() >= until:
                    return removed
                time.sleep(NAP_SECONDS)  # whoever waits for the lock gets it

    def _adapt(self, seconds: float) -> None:
        if seconds > _PRUNE_SECONDS:
            self._prune_packs = max(self._prune_packs // 2, 1)
        elif seconds < _PRUNE_SECONDS / 2:
            self._prune_packs = min(self._prune_packs * 2, _PRUNE_MOST_PACKS)

    def save_snapshot(self, cursor: int, body: bytes) -> None:
        """See Journal.save_snapshot."""
        self._snapshots.save(self._generation, cursor, body)

    def snapshots(self) -> list[SnapshotInfo]:
        """See Journal.snapshots."""
        return self._snapshots.all(self._generation)

    def load_snapshot(self, cursor: int) -> bytes:
        """See Journal.load_snapshot."""
        return self._snapshots.load(self._generation, cursor)

    def anchor(self) -> Anchor:
        """See Journal.anchor."""
        with self._working("read") as connection:
            with connection:
                found = end_of(connection)
            return found

    def verify(
        self, anchors: Sequence[Anchor] = (), progress: Callable[[int, int], None] | None = None
    ) -> Verified:
        """See Journal.verify."""
        with self._working("verify") as connection:
            return Verification(connection, self._key, anchors).run(progress)

    def lead(self, worker: str, seconds: float) -> bool:
        """See Journal.lead."""
        now = self._clock()
        with self._working("election") as connection:
            self._set_durable(connection, False)
            with writing(connection):
                found: Any = connection.execute(
                    "SELECT CAST(holder AS BLOB), CAST(until AS REAL) FROM leads WHERE name = 'keeper'"
                ).fetchone()
                # A lease that ends much later than any is given was made before the clock was set back.
                if found and found[0] != worker.encode() and now < (found[1] or 0.0) <= now + 10 * seconds:
                    return False
                connection.execute(
                    "INSERT OR REPLACE INTO leads VALUES ('keeper', ?, ?)", (worker, now + seconds)
                )
                return True

    def tidy(self) -> None:
        """Keeps the write-ahead log small and the reserve in place."""
        with self._working("checkpoint") as connection:
            # This one hinders nobody. The one that makes the file short keeps everybody from writing, so it
            # is only tried when no reader is in its way.
            in_log, moved = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)
            if in_log - moved > _WAL_PAGES_TIDIED:
                in_log, moved = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
            with suppress(FileNotFoundError):
                if moved == in_log and self._file("-wal").stat().st_size > _WAL_BYTES_KEPT:
                    self._patience.lasts(_TRUNCATE_SECONDS)
                    with suppress(apsw.BusyError, apsw.LockedError):
                        connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        self._reserve.keep()

    def beat(self, worker: str, body: Mapping[str, Any]) -> None:
        """See Journal.beat."""
        text = json.dumps(dict(body), allow_nan=False)
        now = self._clock()
        with self._working("heartbeat") as connection:
            self._set_durable(connection, False)
            with writing(connection):
                connection.execute(
                    "INSERT INTO workers(name, seen, body) VALUES (?, ?, ?)"
                    " ON CONFLICT(name) DO UPDATE SET seen = excluded.seen, body = excluded.body, left = 0",
                    (worker, now, text),
                )
                connection.execute("DELETE FROM workers WHERE seen < ?", (now - FORGET_SECONDS,))

    def leave(self, worker: str) -> None:
        """See Journal.leave."""
        with self._working("heartbeat") as connection, writing(connection):
            connection.execute("UPDATE workers SET left = 1 WHERE name = ?", (worker,))
            connection.execute("DELETE FROM leads WHERE holder = ?", (worker,))

    def workers(self) -> list[Worker]:
        """See Journal.workers."""
        with self._working("read") as connection:
            rows: list[Any] = connection.execute(
                "SELECT CAST(name AS BLOB), CAST(seen AS REAL), CAST(body AS BLOB), left FROM workers"
                " ORDER BY seen DESC, name"
            ).fetchall()
        return [worker for row in rows if (worker := _worker(row)) is not None]

    def size(self) -> int:
        """See Journal.size. Looks, never opens."""
        total = 0
        for suffix in ("", "-wal"):
            with suppress(FileNotFoundError):
                total += self._file(suffix).stat().st_size
        return total

    def heal(self, cursor: int) -> int:
        """See Journal.heal: follows whoever put a new file in place, or makes one from what is readable."""
        self._check_process()
        with self._lock:
            before = self._generation
            self._seen = max(self._seen, cursor)
            self._patience.lasts(self._busy_seconds)
            try:
                with sqlite_rescue.only_one(self._folder):
                    sqlite_rescue.finish(self.path)
                    rolled_back = self._heal()
            except (apsw.Error, OSError) as error:
                raise JournalLost(
                    f"{self.path}: it is lost, and cannot be saved either ({error}); free space, or move its "
                    "files away"
                ) from error
            self._lost = ""
            self._suspended = False
            return 0 if rolled_back or self._generation != before else cursor

    def copy_to(self, folder: Path) -> None:
        """Puts a whole copy of the journal and its newest snapshot into an empty folder, while others go on
        writing. It can be opened as it is. Raises JournalError.
        """
        target = folder / FILE_NAME
        with self._working("backup") as connection:
            connection.execute("VACUUM INTO ?", (str(target),))
        target.chmod(0o600)
        for info in self.snapshots()[:1]:
            SnapshotFiles(folder).save(self._generation, info.cursor, self.load_snapshot(info.cursor))

    def notes(self) -> list[str]:
        """See Journal.notes: what is wrong with a file, its next use says."""
        return []

    def suspend(self) -> None:
        """See Journal.suspend."""
        self._check_process()
        with self._lock:
            if self._connection is not None and not self._lost:  # what is lost, heal() reads from it
                self._close(self._connection)
                self._connection, self._suspended = None, True
            self._close_retired()

    def close(self) -> None:
        """See Journal.close. In a forked child it does nothing: the connection is the parent's."""
        if os.getpid() != self._pid:
            return
        with self._lock:
            self._close_retired()
            self._close(self._connection)
            self._connection, self._suspended = None, False

    # --- opening ---

    def _open(self, create: bool) -> None:
        if not create and not self.path.exists():
            raise JournalError(
                f"{self.path}: there is no journal yet; it is made when the gateway starts with the plugin"
            )
        if not self._folder.is_dir():
            raise JournalError(f"{self.path}: cannot be made; the folder must exist")
        # Nobody opens a file while another takes its place: its log would be found beside the other.
        with sqlite_rescue.only_one(self._folder):
            try:
                sqlite_rescue.finish(self.path)
                if create:
                    make_private(self.path)
            except OSError as error:
                raise JournalError(
                    f"{self.path}: cannot be made ({error.strerror}); the folder must be writable"
                ) from error
            self._open_file(create)
        if create:
            self._go_past_snapshots()

    def _open_file(self, create: bool) -> None:
        try:
            self._swap(self._connected())
        except (apsw.CorruptError, apsw.IOError) as error:
            if not create:
                raise JournalError(
                    f"{self.path}: the file is damaged (SQLite: {error}); the gateway saves what can be read "
                    "when it starts"
                ) from error
            try:
                self._save(self._connect())
            except (apsw.Error, OSError) as worse:
                raise JournalError(
                    f"{self.path}: the file is damaged (SQLite: {error}) and cannot be saved ({worse}); move "
                    "it away, or restore a backup"
                ) from worse
        except apsw.Error as error:
            raise self._explained("open", error) from error

    def _go_past_snapshots(self) -> None:
        """A snapshot that has read further than the journal goes: this is an older copy. Whoever starts from
        the snapshot would miss what is stored from now on, if it got the same cursors once more.
        """
        newest = max((info.cursor for info in self.snapshots()), default=0)
        with self._working("open") as connection:
            if newest > last_id(connection):
                with writing(connection):
                    if newest > last_id(connection):
                        sqlite_rescue.jump(connection, self._key, newest)
                logger.error(
                    "tool firewall: %s is an older copy: a snapshot knows cursor %d", self.path, newest
                )

    def _connect(self) -> apsw.Connection:
        self._patience.lasts(self._busy_seconds)
        return connect(self.path, self._patience)

    def _connected(self) -> apsw.Connection:
        return opened_patiently(self._prepared, _OPEN_SECONDS)

    def _prepared(self) -> apsw.Connection:
        connection = self._connect()
        try:
            self._prepare(connection)
        except BaseException:
            self._close(connection)
            raise
        return connection

    def _prepare(self, connection: apsw.Connection) -> None:
        self._check_ours(connection)  # first, so that a file that is not ours stays as it is
        mode = connection.pragma("journal_mode", "wal")
        if mode != "wal":
            raise JournalError(
                f"{self.path}: SQLite cannot use its write-ahead log here (it said {mode!r}); "
                "put the state folder on a local disk"
            )
        connection.pragma("synchronous", "NORMAL")
        connection.pragma("journal_size_limit", _WAL_BYTES_KEPT)
        connection.pragma("wal_autocheckpoint", _WAL_PAGES_AT_MOST)
        connection.pragma("trusted_schema", False)
        connection.pragma("cell_size_check", True)
        if connection.pragma("user_version") != SCHEMA_VERSION:
            with writing(connection):
                found = connection.pragma("user_version")
                if found == 0:
                    make_schema(connection, self._key)
                elif found < SCHEMA_VERSION:  # no other worker has done it meanwhile
                    migrate(connection, self._key, self._clock())
        if meta(connection, "key") != self._key.fingerprint:
            raise JournalError(
                f"{self.path}: it was made with another key; restore the key it belongs to, or move the "
                "journal away to start anew"
            )

    def _check_ours(self, connection: apsw.Connection) -> None:
        with connection:  # one view of the file for all three questions
            version = connection.pragma("user_version")
            ours = connection.pragma("application_id") == APPLICATION_ID
            empty = connection.execute("SELECT count(*) FROM sqlite_schema").get == 0
        if not ours and not (empty and version == 0):
            raise JournalError(
                f"{self.path}: this SQLite file is not a journal of the tool firewall; "
                "move it away, or choose another state folder"
            )
        if ours and not OLDEST_VERSION <= version <= SCHEMA_VERSION:
            raise JournalError(
                f"{self.path}: schema version {version}, but this release reads versions {OLDEST_VERSION} to "
                f"{SCHEMA_VERSION}; use the release that wrote it, or choose another state folder"
            )

    def _swap(self, connection: apsw.Connection) -> None:
        """Works with another connection from now on."""
        before, self._connection = self._connection, connection
        if before is not None:
            self._close(before, gone=True)
        self._generation = _generation(connection)
        self._own = (0, b"")
        self._seen = last_id(connection)
        self._covered = 0
        self._durable = False
        self._identities = {suffix: identity(self._file(suffix)) for suffix in ("", "-wal", "-shm")}
        self._next_watch = 0.0

    # --- using ---

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise JournalError(
                f"{self.path}: made by process {self._pid}, used by {os.getpid()} after a fork; open another"
            )

    @contextmanager
    def _working(self, doing: str) -> Iterator[apsw.Connection]:
        self._check_process()
        with self._lock:
            if self._lost:
                raise JournalLost(self._lost)
            if self._suspended:
                self._resume(doing)
            connection = self._connection
            if connection is None:
                raise JournalError(f"{self.path}: it was closed; open it again")
            now = time.monotonic()
            self._patience.lasts(self._busy_seconds)
            try:
                if now >= self._next_watch:
                    self._check_files()
                    self._check_own(connection)
                    self._next_watch = now + _WATCH_SECONDS
                yield connection
            except (apsw.CorruptError, apsw.NotADBError) as error:
                self._lost = str(self._explained(doing, error))
                raise JournalLost(self._lost) from error
            except UnicodeDecodeError as error:  # text that is none
                self._lost = f"{self.path}: {doing} failed: the file is damaged ({error})"
                raise JournalLost(self._lost) from error
            except apsw.IOError as error:
                if getattr(error, "extendedresult", 0) not in _LOST_READS:
                    raise self._explained(doing, error) from error
                self._lost = str(self._explained(doing, error))
                raise JournalLost(self._lost) from error
            except apsw.BusyError as error:
                self._check_files()  # whoever saved it keeps it locked until we know
                raise self._explained(doing, error) from error
            except apsw.Error as error:
                raise self._explained(doing, error) from error

    def _resume(self, doing: str) -> None:
        """Opens again what suspend() closed. The logs may have been deleted with good reason meanwhile."""
        if identity(self.path) != self._identities[""]:
            self._lost = f"{self.path}: the file was deleted, moved or replaced while this process forked"
            raise JournalLost(self._lost)
        try:
            with sqlite_rescue.only_one(self._folder):
                self._swap(self._connected())
        except apsw.CorruptError as error:
            self._lost = str(self._explained(doing, error))
            raise JournalLost(self._lost) from error
        except apsw.Error as error:
            raise self._explained(doing, error) from error
        self._suspended = False

    def _check_own(self, connection: apsw.Connection) -> None:
        """What this process stored last must still be there: an older copy may have been written over it."""
        cursor, digest = self._own
        if not cursor:
            return
        found: Any = connection.execute(
            "SELECT substr(CAST(digests AS BLOB), -16) FROM packs WHERE id = ?1"
            " UNION ALL SELECT NULL FROM checkpoints WHERE upto >= ?1",
            (cursor,),
        ).fetchone()
        if found is None or found[0] not in (None, digest):
            self._lost = f"{self.path}: an older copy was written over it, or its end was cut off"
            raise JournalLost(self._lost)

    def _check_files(self) -> None:
        self._close_retired(time.monotonic())
        for suffix, opened in self._identities.items():
            found = identity(self._file(suffix))
            if opened is None:
                self._identities[suffix] = found  # made since
            elif found != opened:
                what = "deleted" if found is None else "moved or replaced"
                self._lost = f"{self._file(suffix)}: the file was {what} while in use"
                raise JournalLost(self._lost)
        if sqlite_rescue.unfinished(self.path):  # what is stored here from now on would be lost with it
            self._lost = f"{self.path}: another process saved it, or was killed before it was done"
            raise JournalLost(self._lost)

    def _set_durable(self, connection: apsw.Connection, durable: bool) -> None:
        if durable != self._durable:
            connection.pragma("synchronous", "FULL" if durable else "NORMAL")
            self._durable = durable

    def _explained(self, doing: str, error: apsw.Error) -> JournalError:
        advice = next((text for kind, text in _ADVICE if isinstance(error, kind)), "see the SQLite message")
        return JournalError(f"{self.path}: {doing} failed: {advice} (SQLite: {error})")

    # --- healing ---

    def _heal(self) -> bool:
        """True when the file that is there now is an older copy."""
        found = identity(self.path)
        if found is not None and found != self._identities.get(""):
            self._remove_stale_log()
            with suppress(apsw.Error, JournalError):  # not a journal, damaged, of another key
                return self._follow(self._connected())
        source = self._connection
        if source is None and found is not None:
            source = self._connect()
        self._save(source)
        return False

    def _remove_stale_log(self) -> None:
        """The log of a file whose place another one took: SQLite would take it for the other's."""
        for suffix in ("-wal", "-shm"):
            mine = self._identities.get(suffix)
            if mine is not None and identity(self._file(suffix)) == mine:
                self._file(suffix).unlink(missing_ok=True)

    def _follow(self, connection: apsw.Connection) -> bool:
        """Works with the file that is there now. True when it is an older copy. Raises JournalError when
        what this process still has open is worth more; everybody comes to the same conclusion then.
        """
        last = last_id(connection)
        same = _generation(connection) == self._generation
        older = same and last < self._seen
        begun_anew = last == 0 or meta(connection, "after") == self._generation
        if (older or (begun_anew and not same)) and self._holds(last + 1 if same else 1):
            self._close(connection, gone=True)
            raise JournalError(f"{self.path}: the file that was put there lacks what is in the one before")
        if older:
            with writing(connection):
                sqlite_rescue.jump(connection, self._key, self._seen)
            logger.error(
                "tool firewall: %s was replaced by an older copy; cursors %d to %d are missing",
                *(self.path, last + 1, self._seen),
            )
        self._swap(connection)
        return older

    def _holds(self, cursor: int) -> bool:
        """Whether something from that cursor on can still be read of the file that was open so far."""
        if self._connection is None:
            return False
        try:
            return last_id(self._connection) >= cursor
        except apsw.Error:
            return False

    def _save(self, source: apsw.Connection | None) -> None:
        """Puts a new file in place, with everything that `source` can still read, and works with that."""
        self._rescue(source)
        made = self._connected()
        if source is not None:
            self._retired.append((time.monotonic() + _LOCK_OUT_SECONDS, source))
        self._connection = None
        self._swap(made)

    def _close_retired(self, now: float = math.inf) -> None:
        due = [connection for until, connection in self._retired if until <= now]
        self._retired = [(until, connection) for until, connection in self._retired if until > now]
        for connection in due:
            self._close(connection, gone=True)

    def _rescue(self, source: apsw.Connection | None) -> None:
        target = self.path.with_name(f".{self.path.stem}-{os.getpid()}.rescue")
        for left in self._folder.glob(f".{self.path.stem}-*.rescue*"):  # by whoever was killed
            left.unlink(missing_ok=True)
        sqlite_rescue.enough_room(self.path)
        try:
            if source is None:
                raise apsw.CantOpenError("it was not open")
            missing = sqlite_rescue.copy(
                source,
                target,
                self._key,
                self._generation,
                known=self._seen,
                busy_seconds=self._busy_seconds,
            )
            what = f"{missing} packs of records could not be read" if missing else "everything could be read"
        except (apsw.FullError, apsw.BusyError, apsw.LockedError):
            target.unlink(missing_ok=True)
            raise
        except apsw.Error as error:
            target.unlink(missing_ok=True)
            if getattr(error, "extendedresult", 0) in _NOT_WRITTEN:
                raise  # it can be read; the new file is what fails
            # Not even its tables: a history begun anew is better than none.
            sqlite_rescue.begin_anew(target, self._key, after=self._generation)
            what = f"nothing could be read ({error}), it begins anew"
        target.chmod(0o600)
        sqlite_rescue.put_in_place(self.path, target)
        logger.error("tool firewall: saved the journal %s: %s", self.path, what)

    def _file(self, suffix: str) -> Path:
        return self.path.with_name(self.path.name + suffix)

    def _close(self, connection: apsw.Connection | None, *, gone: bool = False) -> None:
        if connection is None:
            return
        if gone or identity(self.path) != self._identities.get("", identity(self.path)):
            keep = ctypes.c_int(1)
            connection.file_control("main", apsw.SQLITE_FCNTL_PERSIST_WAL, ctypes.addressof(keep))
        disconnect(connection)


def _worker(row: tuple[Any, ...]) -> Worker | None:
    """None when it is damaged: the next heartbeat replaces it."""
    name, seen, body, left = row
    try:
        told = json.loads(body)
    except (TypeError, ValueError):
        return None
    if not isinstance(told, dict) or not isinstance(seen, float):
        return None
    return Worker(name.decode(errors="replace"), seen, told, bool(left))


def _generation(connection: apsw.Connection) -> str:
    found = meta(connection, "generation")
    if found is None:
        raise apsw.CorruptError("the journal does not say which one it is")
    return found
