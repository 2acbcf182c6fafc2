# SPDX-License-Identifier: Apache-2.0
"""The SQLite journal under faults: other processes, killed writers, full disks, wrong and vanished files."""

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest
from cpex_tool_firewall.journal import sqlite
from cpex_tool_firewall.journal.interface import JournalError
from cpex_tool_firewall.journal.sqlite import SqliteJournal, check_sqlite

WRITER = str(Path(__file__).with_name("journal_writer.py"))


def start_writer(folder: Path, name: str, batches: int, size: int) -> subprocess.Popen[str]:
    command = [sys.executable, WRITER, str(folder), name, str(batches), str(size)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def read_all(journal: SqliteJournal, cursor: int = 0) -> list[tuple[int, bytes]]:
    found: list[tuple[int, bytes]] = []
    while rows := journal.read_since(found[-1][0] if found else cursor, 500):
        found += rows
    return found


@pytest.mark.parametrize("version", ["3.40.1", "3.51.2", "3.7.17"])
def test_old_sqlite_is_refused(version: str) -> None:
    with pytest.raises(JournalError, match=rf"SQLite {version}.*3\.51\.3"):
        check_sqlite(version)


@pytest.mark.parametrize("version", ["3.51.3", "3.54.1", "4.0.0", "3.51.3.1"])
def test_new_sqlite_is_accepted(version: str) -> None:
    check_sqlite(version)


def test_three_writers_and_a_tailing_reader_lose_nothing(tmp_path: Path) -> None:
    batches, size = 500, 10
    reader = SqliteJournal(tmp_path)
    writers = [start_writer(tmp_path, name, batches, size) for name in ("a", "b", "c")]
    seen: list[tuple[int, bytes]] = []
    until = time.monotonic() + 30
    while len(seen) < 3 * batches * size and time.monotonic() < until:
        seen += reader.read_since(seen[-1][0] if seen else 0, 400)
        time.sleep(0.002)
    for writer in writers:
        _, errors = writer.communicate(timeout=20)
        assert writer.returncode == 0, errors
    assert [cursor for cursor, _ in seen] == list(range(1, 3 * batches * size + 1))
    for name in ("a", "b", "c"):
        own = [int(body.split(b":")[1]) for _, body in seen if body.startswith(name.encode())]
        assert own == list(range(batches * size))
    reader.close()


def test_kill_minus_nine_keeps_what_was_acknowledged(tmp_path: Path) -> None:
    chance = random.Random(7)
    watcher = SqliteJournal(tmp_path)  # a second process has the file open all along, as in production
    for round_number in range(12):
        name = f"r{round_number}"
        writer = start_writer(tmp_path, name, 1_000_000, 10)
        assert writer.stdout is not None
        assert writer.stdout.readline() == "10\n"  # it is up and writing
        time.sleep(chance.uniform(0, 0.06))
        writer.kill()
        lines, _ = writer.communicate()
        acknowledged = int(lines.split()[-1]) if lines.split() else 10
        kept = sum(body.startswith(name.encode() + b":") for _, body in read_all(watcher))
        assert kept >= acknowledged
        assert kept % 10 == 0, "half a batch was kept"
    watcher.close()
    connection = apsw.Connection(str(tmp_path / "journal.db"))
    assert connection.pragma("integrity_check") == "ok"
    connection.close()


def test_many_processes_may_make_the_journal_at_once(tmp_path: Path) -> None:
    writers = [start_writer(tmp_path, f"w{n}", 3, 2) for n in range(6)]
    for writer in writers:
        _, errors = writer.communicate(timeout=20)
        assert writer.returncode == 0, errors
    journal = SqliteJournal(tmp_path, create=False)
    assert len(read_all(journal)) == 36
    journal.close()


def test_opening_waits_for_a_worker_that_is_making_the_file(tmp_path: Path) -> None:
    (tmp_path / "journal.db").touch(0o600)
    other = apsw.Connection(str(tmp_path / "journal.db"))
    other.execute("BEGIN EXCLUSIVE")  # not yet a WAL file: this keeps everybody out
    release = threading.Timer(0.3, other.execute, ["ROLLBACK"])
    release.start()
    journal = SqliteJournal(tmp_path)
    release.join()
    assert journal.append([b"x"]) == 1
    journal.close()
    other.close()


def test_only_durable_appends_wait_for_the_disk(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path)
    connection = journal._connection
    assert connection is not None
    for durable, level in ((False, 1), (True, 2), (False, 1), (True, 2)):  # SQLite: 1 is NORMAL, 2 is FULL
        journal.append([b"x"], durable=durable)
        assert connection.pragma("synchronous") == level
    journal.beat("w", {})
    assert connection.pragma("synchronous") == 1
    journal.close()


def test_a_locked_file_fails_soon_and_reads_go_on(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path)
    journal.append([b"before"])
    other = apsw.Connection(str(tmp_path / "journal.db"))
    other.execute("BEGIN EXCLUSIVE")
    started = time.monotonic()
    with pytest.raises(JournalError, match="another process keeps the file locked"):
        journal.append([b"during"])
    assert time.monotonic() - started < 0.5
    assert journal.read_since(0) == [(1, b"before")]
    other.execute("ROLLBACK")
    other.close()
    assert journal.append([b"after"]) == 2
    journal.close()


def test_a_short_lock_is_waited_out(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path, busy_seconds=2.0)
    other = apsw.Connection(str(tmp_path / "journal.db"))
    other.execute("BEGIN IMMEDIATE")
    release = threading.Timer(0.1, other.execute, ["ROLLBACK"])
    release.start()
    assert journal.append([b"x"]) == 1
    release.join()
    other.close()
    journal.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k,mode=0700", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    # Lazily: a test that failed may have left a file open there.
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Fills the file system of `folder` with one file, which is returned."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(b"f" * 4096)
    return filler


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_full_disk_is_reported_and_survived(small_disk: Path) -> None:
    journal = SqliteJournal(small_disk)
    kept = journal.append([b"x" * 100] * 10)
    filler = fill(small_disk)
    with pytest.raises(JournalError, match="disk"):
        journal.append([b"y" * 5000] * 20)
    assert [cursor for cursor, _ in journal.read_since(0)] == list(range(1, kept + 1))
    filler.unlink()
    assert journal.append([b"z"]) == kept + 1
    assert journal.read_since(kept) == [(kept + 1, b"z")]
    journal.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_journal_cannot_be_made_on_a_full_disk(small_disk: Path) -> None:
    fill(small_disk)
    with pytest.raises(JournalError, match=r"journal\.db.*disk"):
        SqliteJournal(small_disk)


def test_the_folder_must_exist(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match=r"absent.journal\.db: cannot be made"):
        SqliteJournal(tmp_path / "absent")


def test_a_reader_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="there is no journal yet"):
        SqliteJournal(tmp_path, create=False)
    assert list(tmp_path.iterdir()) == []


def test_another_schema_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    SqliteJournal(tmp_path).close()
    connection = apsw.Connection(str(tmp_path / "journal.db"))
    connection.pragma("user_version", sqlite.SCHEMA_VERSION + 1)
    connection.close()
    with pytest.raises(JournalError, match="schema version 2, but this release reads version 1"):
        SqliteJournal(tmp_path)
    connection = apsw.Connection(str(tmp_path / "journal.db"))
    assert connection.pragma("user_version") == sqlite.SCHEMA_VERSION + 1
    connection.close()


def test_somebody_elses_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    connection = apsw.Connection(str(tmp_path / "journal.db"))
    connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    before = (tmp_path / "journal.db").read_bytes()
    with pytest.raises(JournalError, match="not a journal of the tool firewall"):
        SqliteJournal(tmp_path)
    assert (tmp_path / "journal.db").read_bytes() == before


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "journal.db").write_bytes(b"hello, I am not a database\n" * 100)
    with pytest.raises(JournalError, match="this is not a journal"):
        SqliteJournal(tmp_path)


@pytest.mark.parametrize("name", ["journal.db", "journal.db-wal"])
@pytest.mark.parametrize("harm", ["delete", "replace"])
def test_writing_into_files_that_are_gone_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, harm: str
) -> None:
    monkeypatch.setattr(sqlite, "_WATCH_SECONDS", 0.0)
    journal = SqliteJournal(tmp_path)
    journal.append([b"a"])
    journal.append([b"b"])
    victim = tmp_path / name
    aside = tmp_path / "aside"
    victim.rename(aside)
    if harm == "replace":
        victim.touch()
    for use in (
        lambda: journal.append([b"lost"]),
        lambda: journal.read_since(0),
        lambda: journal.beat("w", {}),
    ):
        with pytest.raises(JournalError, match=rf"{name}: the file was moved, deleted or replaced"):
            use()
    aside.replace(victim)
    assert journal.append([b"c"]) == 3
    assert [body for _, body in journal.read_since(0)] == [b"a", b"b", b"c"]
    journal.close()


def test_files_are_looked_at_each_second_only(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path)
    journal.append([b"a"])
    (tmp_path / "journal.db").rename(tmp_path / "aside")
    until = time.monotonic() + 1.5
    with pytest.raises(JournalError, match="moved"):
        while time.monotonic() < until:
            journal.read_since(0)
            time.sleep(0.05)
    journal.close()


def test_a_forked_child_may_not_use_it_and_does_no_harm(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path)
    journal.append([b"parent"])
    script_says = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            journal.append([b"child"])
            said = "appended"
        except JournalError as error:
            said = str(error)
        journal.close()
        os.write(script_says[1], said.encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert "after a fork" in os.read(script_says[0], 4096).decode()
    assert journal.append([b"parent again"]) == 2
    other = SqliteJournal(tmp_path)
    assert [body for _, body in other.read_since(0)] == [b"parent", b"parent again"]
    other.close()
    journal.close()


class SlowBatch(list[bytes]):
    """A batch that lets other threads run while it is being appended."""

    def __iter__(self) -> Iterator[bytes]:
        for record in super().__iter__():
            time.sleep(0.02)
            yield record


def test_threads_share_one_journal(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path)
    errors: list[Exception] = []

    def work(name: str) -> None:
        try:
            for n in range(5):
                journal.append(SlowBatch([f"{name}:{n}".encode()] * 3), durable=n == 2)
                journal.read_since(journal.last() - 5)
        except JournalError as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=[name]) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    bodies = [body for _, body in read_all(journal)]
    assert len(bodies) == 4 * 5 * 3
    assert all(bodies[i] == bodies[i + 1] == bodies[i + 2] for i in range(0, len(bodies), 3))
    journal.close()
