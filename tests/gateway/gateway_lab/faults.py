# SPDX-License-Identifier: Apache-2.0
"""Real faults of the storage under a running gateway, each a context that ends it again."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_WRITE_LOCKER = """
import sys, apsw
database = apsw.Connection(sys.argv[1])
database.set_busy_timeout(5000)
database.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()
database.execute("ROLLBACK")
"""
_READ_LOCKER = """
import fcntl, sys
with open(sys.argv[1], "r+b") as file:
    fcntl.lockf(file, fcntl.LOCK_EX, int(sys.argv[3]), int(sys.argv[2]))
    print("locked", flush=True)
    sys.stdin.read()
"""
# Where SQLite's readers of a write-ahead log take their locks in the -shm file (wal.c: WALINDEX_LOCK_OFFSET).
_FIRST_READ_LOCK, _READ_LOCKS = 123, 5


@contextmanager
def locked_for_writing(journal: Path) -> Iterator[None]:
    """Another process keeps a transaction open, as a backup script or a debugger would."""
    with _holding(_WRITE_LOCKER, str(journal)):
        yield


@contextmanager
def locked_for_reading(journal: Path) -> Iterator[None]:
    """Another process holds the readers' locks, as one does that was stopped while it recovered the log."""
    shared = journal.with_name(f"{journal.name}-shm")
    with _holding(_READ_LOCKER, str(shared), str(_FIRST_READ_LOCK), str(_READ_LOCKS)):
        yield


@contextmanager
def _holding(script: str, *arguments: str) -> Iterator[None]:
    """A process that says "locked" when it holds its lock, and gives it up when its standard input ends."""
    command = [sys.executable, "-c", script, *arguments]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        yield
    finally:
        process.communicate("")
    assert process.returncode == 0


@contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """A file system of its own at `folder`, of `size` ("1m"). PermissionError where one may not mount."""
    folder.mkdir(mode=0o700)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "none", str(folder)],
        check=False,
        capture_output=True,
        text=True,
    )
    if mounted.returncode != 0:
        raise PermissionError(mounted.stderr.strip())
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@contextmanager
def full(folder: Path) -> Iterator[None]:
    """Not a byte is free on the file system of `folder`."""
    ballast = folder / "ballast"
    try:
        with ballast.open("wb", buffering=0) as file:
            for size in (65536, 512, 1):
                _fill(file.fileno(), size)
        yield
    finally:
        ballast.unlink()


def _fill(descriptor: int, size: int) -> None:
    try:
        while True:
            os.write(descriptor, bytes(size))
    except OSError:
        return
