# SPDX-License-Identifier: Apache-2.0
"""The journal's file takes nothing for a while: locked by another process, on a read-only file system."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cpex_tool_firewall.journal.interface import JournalError
from cpex_tool_firewall.journal.sqlite import SqliteJournal
from hammer import KEY, Hammer, numbered, read_all
from test_sqlite_lost_files import check_agreement
from workers import FULL

LOCKED_SECONDS = 60.0 if FULL else 3.0

LOCK = """
import apsw, sys
connection = apsw.Connection(sys.argv[1])
connection.set_busy_timeout(10_000)
connection.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()
"""


def test_a_lock_that_another_process_keeps_costs_nothing(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path, KEY)
    for n in range(100):
        journal.append([numbered("old", n * 10, 10)])
    hammers = [Hammer(tmp_path, name) for name in "abcd"]
    time.sleep(0.5)
    other = subprocess.Popen(
        [sys.executable, "-c", LOCK, str(tmp_path / "journal.db")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert other.stdout is not None
    assert other.stdout.readline() == "locked\n"
    until = time.monotonic() + LOCKED_SECONDS
    slowest = 0.0
    while time.monotonic() < until:
        begun = time.monotonic()
        with pytest.raises(JournalError, match="another process keeps the file locked"):
            journal.append([numbered("old", 1000, 10)])
        assert len(read_all(journal)["old"]) == 1000, "reading goes on"
        slowest = max(slowest, time.monotonic() - begun)
        time.sleep(0.1)
    other.kill()  # with the lock: its end lets go of it
    other.communicate()
    assert slowest < 1.0
    journal.close()
    time.sleep(0.5)
    done = check_agreement(tmp_path, hammers)
    assert done["old"] == set(range(1000))


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A folder that can be mounted read-only."""
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    mounted = subprocess.run(["mount", "--bind", folder, folder], capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"nothing can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_read_only_file_system_is_reported_and_works_again_by_itself(read_only: Path) -> None:
    journal = SqliteJournal(read_only, KEY)
    journal.append([numbered("a", 0, 10)])
    journal.close()  # while something is open to be written, the kernel refuses what follows
    subprocess.run(["mount", "-o", "remount,bind,ro", read_only], check=True)
    for create in (True, False):
        with pytest.raises(JournalError, match=r"(?s)journal\.(db|lock): .*[Rr]ead-only"):
            SqliteJournal(read_only, KEY, create=create)
    subprocess.run(["mount", "-o", "remount,bind,rw", read_only], check=True)
    journal = SqliteJournal(read_only, KEY)
    journal.append([numbered("b", 0, 10)])
    assert set(read_all(journal)) == {"a", "b"}
    assert journal.verify().problem == ""
    journal.close()
