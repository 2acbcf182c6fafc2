# SPDX-License-Identifier: Apache-2.0
"""What every SQLite file of ours has in common: which SQLite may open it, waiting, transactions, identity.

The reasons are in sqlite.py.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import apsw

from .interface import JournalError

MINIMUM_SQLITE: Final = (3, 51, 3)
NAP_SECONDS: Final = 0.0005

_OPENING_NAP_SECONDS: Final = 0.01

# Connections of this process, by id. Holding them here keeps a forked child from closing them with its
# garbage.
_connections: dict[int, apsw.Connection] = {}


def check_sqlite(version: str) -> None:
    """Raises JournalError when this SQLite version cannot be trusted with a shared WAL file."""
    if tuple(int(part) for part in version.split(".")) < MINIMUM_SQLITE:
        least = ".".join(str(part) for part in MINIMUM_SQLITE)
        raise JournalError(
            f"SQLite {version} can corrupt a journal that several processes write; "
            f"at least {least} is needed: pip install --upgrade apsw"
        )


class Patience:
    """A busy handler that takes short naps and gives up in time."""

    def __init__(self) -> None:
        self._until = 0.0  # monotonic

    def lasts(self, seconds: float) -> None:
        """From now on it lasts so long."""
        self._until = time.monotonic() + seconds

    def __call__(self, tries: int) -> bool:
        if time.monotonic() >= self._until:
            return False
        time.sleep(NAP_SECONDS)
        return True


def make_private(path: Path) -> None:
    """Makes an empty file with mode 0600 unless there is one. Raises OSError."""
    with suppress(FileExistsError):
        # mknod, not open(): it makes the file without ever holding a descriptor of it.
        os.mknod(path, stat.S_IFREG | 0o600)


def connect(path: Path, patience: Patience) -> apsw.Connection:
    """Opens an existing file. End it with disconnect()."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    _connections[id(connection)] = connection
    connection.set_busy_handler(patience)
    return connection


def disconnect(connection: apsw.Connection) -> None:
    """Closes a connection of connect()."""
    _connections.pop(id(connection), None)
    connection.close()


def opened_patiently(opening: Callable[[], apsw.Connection], seconds: float) -> apsw.Connection:
    """opening(), again and again for so long while it is told "busy".

    Several processes starting at once may each be told so while one of them turns the new file into a WAL
    file: SQLite does not ask the busy handler then, so the whole opening is repeated.
    """
    until = time.monotonic() + seconds
    while True:
        try:
            return opening()
        except (apsw.BusyError, apsw.LockedError):
            if time.monotonic() >= until:
                raise
            time.sleep(_OPENING_NAP_SECONDS)


@contextmanager
def writing(connection: apsw.Connection) -> Iterator[None]:
    """A transaction that has the write lock from the beginning."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # SQLite has rolled back by itself after some errors
            connection.execute("ROLLBACK")
        raise


def identity(path: Path) -> tuple[int, int] | None:
    """Tells whether the file of this name is still the same one; None when there is none."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino
