# SPDX-License-Identifier: Apache-2.0
"""The SQLite journal: its files, other processes, killed writers, full disks, wrong and vanished files."""

import os
import random
import shutil
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest
from cpex_tool_firewall.journal import sqlite
from cpex_tool_firewall.journal.interface import Entry, JournalError, JournalLost, Kind, Pack
from cpex_tool_firewall.journal.sqlite import SqliteJournal
from cpex_tool_firewall.journal.sqlite_file import check_sqlite
from journal_writer import numbers_of
from journals import KEY, Clock, everything, packed, unpacked

WRITER = str(Path(__file__).with_name("journal_writer.py"))


def start_writer(folder: Path, name: str, batches: int, size: int) -> subprocess.Popen[str]:
    command = [sys.executable, WRITER, str(folder), name, str(batches), str(size)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("version", ["3.40.1", "3.51.2", "3.7.17"])
def test_old_sqlite_is_refused(version: str) -> None:
    with pytest.raises(JournalError, match=rf"SQLite {version}.*3\.51\.3"):
        check_sqlite(version)


@pytest.mark.parametrize("version", ["3.51.3", "3.54.1", "4.0.0", "3.51.3.1"])
def test_new_sqlite_is_accepted(version: str) -> None:
    check_sqlite(version)


def test_three_writers_and_a_tailing_reader_lose_nothing(tmp_path: Path) -> None:
    batches, size = 500, 10
    reader = SqliteJournal(tmp_path, KEY)
    writers = [start_writer(tmp_path, name, batches, size) for name in ("a", "b", "c")]
    seen: list[Entry] = []
    until = time.monotonic() + 30
    while len(seen) < 3 * batches and time.monotonic() < until:
        seen += reader.read_since(seen[-1].cursor if seen else 0, 400)
        time.sleep(0.002)
    for writer in writers:
        _, errors = writer.communicate(timeout=20)
        assert writer.returncode == 0, errors
    assert [entry.cursor for entry in seen] == list(range(1, 3 * batches + 1))
    assert reader.verify().problem == ""
    for name in ("a", "b", "c"):
        assert numbers_of(name, unpacked(seen)) == list(range(batches * size))
    reader.close()


def test_kill_minus_nine_keeps_what_was_acknowledged(tmp_path: Path) -> None:
    chance = random.Random(7)
    watcher = SqliteJournal(tmp_path, KEY)  # a second process has the file open all along, as in production
    for round_number in range(12):
        name = f"r{round_number}"
        writer = start_writer(tmp_path, name, 1_000_000, 10)
        assert writer.stdout is not None
        assert writer.stdout.readline() == "10\n"  # it is up and writing
        time.sleep(chance.uniform(0, 0.06))
        writer.kill()
        lines, _ = writer.communicate()
        acknowledged = int(lines.split()[-1]) if lines.split() else 10
        kept = len(numbers_of(name, unpacked(everything(watcher))))
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
    journal = SqliteJournal(tmp_path, KEY, create=False)
    assert len(unpacked(everything(journal))) == 36
    journal.close()


def test_opening_waits_for_a_worker_that_is_making_the_file(tmp_path: Path) -> None:
    (tmp_path / "journal.db").touch(0o600)
    other = apsw.Connection(str(tmp_path / "journal.db"))
    other.execute("BEGIN EXCLUSIVE")  # not yet a WAL file: this keeps everybody out
    release = threading.Timer(0.3, other.execute, ["ROLLBACK"])
    release.start()
    journal = SqliteJournal(tmp_path, KEY)
    release.join()
    assert journal.append([packed(b"x")]) == 1
    journal.close()
    other.close()


def test_only_durable_appends_wait_for_the_disk(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path, KEY)
    connection = journal._connection
    assert connection is not None
    for durable, level in ((False, 1), (True, 2), (False, 1), (True, 2)):  # SQLite: 1 is NORMAL, 2 is FULL
        journal.append([packed(b"x")], durable=durable)
        assert connection.pragma("synchronous") == level
    journal.beat("w", {})
    assert connection.pragma("synchronous") == 1
    journal.close()


def test_a_locked_file_fails_soon_and_reads_go_on(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path, KEY)
    journal.append([packed(b"before")])
    other = apsw.Connection(str(tmp_path / "journal.db"))
    other.execute("BEGIN EXCLUSIVE")
    started = time.monotonic()
    with pytest.raises(JournalError, match="another process keeps the file locked"):
        journal.append([packed(b"during")])
    assert time.monotonic() - started < 0.5
    assert unpacked(journal.read_since(0)) == [b"before"]
    other.execute("ROLLBACK")
    other.close()
    assert journal.append([packed(b"after")]) == 2
    journal.close()


def test_a_short_lock_is_waited_out(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path, KEY, busy_seconds=2.0)
    other = apsw.Connection(str(tmp_path / "journal.db"))
    other.execute("BEGIN IMMEDIATE")
    release = threading.Timer(0.1, other.execute, ["ROLLBACK"])
    release.start()
    assert journal.append([packed(b"x")]) == 1
    release.join()
    other.close()
    journal.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    yield from mounted_disk(tmp_path / "small", "512k")


@pytest.fixture
def big_disk(tmp_path: Path) -> Iterator[Path]:
    yield from mounted_disk(tmp_path / "big", "80m")


def mounted_disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of its own that can be filled."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", str(folder)],
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
    journal = SqliteJournal(small_disk, KEY)
    kept = journal.append([packed(b"x" * 100)] * 10)
    filler = fill(small_disk)
    with pytest.raises(JournalError, match="disk"):
        journal.append([packed(b"y" * 5000)] * 20)
    assert [entry.cursor for entry in journal.read_since(0)] == list(range(1, kept + 1))
    filler.unlink()
    assert journal.append([packed(b"z")]) == kept + 1
    assert unpacked(journal.read_since(kept)) == [b"z"]
    journal.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_journal_cannot_be_made_on_a_full_disk(small_disk: Path) -> None:
    fill(small_disk)
    with pytest.raises(JournalError, match=r"journal\.db.*disk"):
        SqliteJournal(small_disk, KEY)


def test_the_folder_must_exist(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match=r"absent.journal\.db: cannot be made"):
        SqliteJournal(tmp_path / "absent", KEY)


def test_a_reader_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="there is no journal yet"):
        SqliteJournal(tmp_path, KEY, create=False)
    assert list(tmp_path.iterdir()) == []


def test_another_schema_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    SqliteJournal(tmp_path, KEY).close()
    connection = apsw.Connection(str(tmp_path / "journal.db"))
    connection.pragma("user_version", sqlite.SCHEMA_VERSION + 1)
    connection.close()
    with pytest.raises(JournalError, match="schema version 3, but this release reads versions 1 to 2"):
        SqliteJournal(tmp_path, KEY)
    connection = apsw.Connection(str(tmp_path / "journal.db"))
    assert connection.pragma("user_version") == sqlite.SCHEMA_VERSION + 1
    connection.close()


def test_somebody_elses_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    connection = apsw.Connection(str(tmp_path / "journal.db"))
    connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    before = (tmp_path / "journal.db").read_bytes()
    with pytest.raises(JournalError, match="not a journal of the tool firewall"):
        SqliteJournal(tmp_path, KEY)
    assert (tmp_path / "journal.db").read_bytes() == before


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "journal.db").write_bytes(b"hello, I am not a database\n" * 100)
    with pytest.raises(JournalError, match="this is not a journal"):
        SqliteJournal(tmp_path, KEY)


# --- files that are gone or damaged: nothing is lost ---


def fill_with(journal: SqliteJournal, count: int, first: int = 0) -> list[bytes]:
    """Stores `count` packs of four records; returns the records."""
    records = [b"%06d" % n for n in range(first * 4, (first + count) * 4)]
    for n in range(0, len(records), 4):
        journal.append([packed(*records[n : n + 4], kind=Kind(n // 4 % 3))])
    return records


def healed(journal: SqliteJournal, cursor: int = 0) -> int:
    """Uses the journal until it notices that it is lost, then heals it."""
    until = time.monotonic() + 2
    with pytest.raises(JournalLost):
        while time.monotonic() < until:
            journal.read_since(0)
            time.sleep(0.02)
    with pytest.raises(JournalLost):
        journal.append([packed(b"not before it is healed")])
    return journal.heal(cursor)


@pytest.mark.parametrize("harm", ["delete", "move", "replace by garbage", "replace by an empty file"])
@pytest.mark.parametrize("name", ["journal.db", "journal.db-wal", "journal.db-shm"])
def test_files_that_are_gone_cost_nothing(tmp_path: Path, name: str, harm: str) -> None:
    journal, other = SqliteJournal(tmp_path, KEY), SqliteJournal(tmp_path, KEY)
    records = fill_with(journal, 50)
    generation, last = journal.generation, journal.last()
    victim = tmp_path / name
    if harm == "move":
        victim.rename(tmp_path / "aside")
    else:
        victim.unlink()
    if harm.startswith("replace"):
        victim.write_bytes(b"garbage" * 1000 if "garbage" in harm else b"")
    assert healed(journal, last) == last
    assert journal.append([packed(b"after")]) > last
    assert unpacked(everything(journal)) == [*records, b"after"]
    assert journal.generation == generation
    assert healed(other, last) == last, "the other one follows"
    other.append([packed(b"from the other")])
    assert unpacked(journal.read_since(last)) == [b"after", b"from the other"]
    other.close()
    assert journal.verify().problem == ""
    journal.close()
    again = SqliteJournal(tmp_path, KEY)
    assert unpacked(everything(again)) == [*records, b"after", b"from the other"]
    assert again.verify().problem == ""
    again.close()


def test_a_database_that_is_gone_after_all_were_killed_is_begun_anew(tmp_path: Path) -> None:
    SqliteJournal(tmp_path, KEY).close()
    (tmp_path / "journal.db").unlink()
    journal = SqliteJournal(tmp_path, KEY)
    assert journal.last() == 0
    journal.close()


def copied_then_continued(folder: Path) -> tuple[SqliteJournal, list[bytes]]:
    """A journal with 20 packs, and a copy of its file when it had 10: (journal, its records)."""
    journal = SqliteJournal(folder, KEY)
    records = fill_with(journal, 10)
    journal.close()
    shutil.copy(folder / "journal.db", folder / "backup.db")
    journal = SqliteJournal(folder, KEY)
    return journal, records + fill_with(journal, 10, 10)


def test_an_older_copy_put_in_its_place_costs_nothing(tmp_path: Path) -> None:
    journal, records = copied_then_continued(tmp_path)
    # The log of the newer file is left beside the copy: opened like this, SQLite would mix them.
    (tmp_path / "backup.db").replace(tmp_path / "journal.db")
    assert healed(journal, 20) == 20
    journal.append([packed(b"again")])
    assert unpacked(everything(journal)) == [*records, b"again"]
    assert unpacked(journal.read_since(20)) == [b"again"]
    assert journal.verify().problem == ""
    journal.close()


def test_an_older_copy_written_over_it_is_noticed(tmp_path: Path) -> None:
    journal, records = copied_then_continued(tmp_path)
    assert journal._connection is not None
    journal._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
    anchor = journal.anchor()
    subprocess.run(["cp", str(tmp_path / "backup.db"), str(tmp_path / "journal.db")], check=True)
    other = SqliteJournal(tmp_path, KEY)  # makes SQLite look at the file again
    other.beat("other", {})
    assert healed(journal, 20) == 20, "no cursor is given twice"
    assert unpacked(everything(journal)) == records[:40]
    cursor = journal.append([packed(b"again")])
    assert unpacked(journal.read_since(20)) == [b"again"]
    assert cursor > 1_000_000
    found = journal.verify()
    assert (found.problem, found.lost) == ("", 10)
    assert f"anchor knows at cursor {anchor.cursor} is missing" in journal.verify([anchor]).problem
    other.close()
    journal.close()


def test_an_older_copy_put_back_while_nobody_looked_goes_on_behind_its_snapshots(tmp_path: Path) -> None:
    journal, records = copied_then_continued(tmp_path)
    journal.save_snapshot(20, b"what was learned up to 20")
    anchor = journal.anchor()
    journal.close()
    (tmp_path / "backup.db").replace(tmp_path / "journal.db")
    journal = SqliteJournal(tmp_path, KEY)
    assert unpacked(everything(journal)) == records[:40]
    journal.append([packed(b"again")])
    assert unpacked(journal.read_since(20)) == [b"again"], "who starts from the snapshot misses nothing"
    assert journal.verify().problem == ""
    assert "rolled back behind cursor 10" in journal.verify([anchor]).problem
    journal.close()


def test_another_journal_in_its_place_is_followed_unless_it_is_empty(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    journal = SqliteJournal(tmp_path / "state", KEY)
    records = fill_with(journal, 10)
    for name, stored in (("empty", 0), ("full", 3)):
        (tmp_path / name).mkdir()
        another = SqliteJournal(tmp_path / name, KEY)
        theirs = fill_with(another, stored)
        generation = another.generation
        another.close()
        (tmp_path / name / "journal.db").replace(tmp_path / "state" / "journal.db")
        assert healed(journal, 10) == (0 if stored else 10)
        assert unpacked(everything(journal)) == (theirs if stored else records)
        assert (journal.generation == generation) == (stored > 0)
    journal.close()


def test_whoever_was_killed_while_he_saved_it_leaves_that_to_the_next(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path, KEY)
    records = fill_with(journal, 10)
    journal.close()
    (tmp_path / "journal.db").rename(tmp_path / "journal.rescued.db")  # it was complete, and not yet in place
    (tmp_path / "journal.db").write_bytes(b"damaged")
    journal = SqliteJournal(tmp_path, KEY)
    assert unpacked(everything(journal)) == records
    assert [path.read_bytes() for path in tmp_path.glob("journal.damaged-*.db")] == [b"damaged"]
    journal.close()


def pages(path: Path) -> int:
    connection = apsw.Connection(str(path))
    found = connection.pragma("page_count")
    connection.close()
    return int(found)


def damage(path: Path, page: int) -> None:
    """Overwrites one page, from a process of its own: an open() here would drop this process's locks."""
    command = ["dd", "if=/dev/urandom", f"of={path}", "bs=4096", "count=1", f"seek={page}", "conv=notrunc"]
    subprocess.run(command, check=True, capture_output=True)


def damage_head(path: Path) -> None:
    """Overwrites the list of tables."""
    command = ["dd", "if=/dev/urandom", f"of={path}", "bs=1", "count=3000", "seek=200", "conv=notrunc"]
    subprocess.run(command, check=True, capture_output=True)


def test_damaged_pages_cost_what_was_on_them(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path, KEY)
    records = [b"%08d" % n * 50 for n in range(4000)]
    for n in range(0, len(records), 4):
        journal.append([packed(*records[n : n + 4])])
    last = journal.last()
    journal.close()
    chance = random.Random(3)
    page_count = pages(tmp_path / "journal.db")
    for page in chance.sample(range(page_count // 3, page_count - 5), 3):
        damage(tmp_path / "journal.db", page)
    journal = SqliteJournal(tmp_path, KEY)
    try:
        found = everything(journal)
    except JournalLost:
        assert journal.heal(0) == 0
        found = everything(journal)
    kept = set(unpacked(found))
    assert len(kept) > 3900
    assert kept <= set(records), "what is there is what was stored"
    assert journal.verify().problem == ""
    assert journal.append([packed(b"after")]) > last
    assert list(tmp_path.glob("journal.damaged-*.db"))
    journal.close()


def test_a_damaged_head_begins_anew_and_keeps_the_old_file(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path, KEY)
    fill_with(journal, 100)
    generation = journal.generation
    journal.close()
    damage_head(tmp_path / "journal.db")
    journal = SqliteJournal(tmp_path, KEY)
    assert journal.generation != generation
    assert journal.append([packed(b"x")]) == 1
    assert len(list(tmp_path.glob("journal.damaged-*.db"))) == 1
    journal.close()


@pytest.mark.parametrize("table", ["packs", "checkpoints", "meta", "workers", "leads"])
def test_a_damaged_text_of_a_table_costs_nothing(tmp_path: Path, table: str) -> None:
    journal = SqliteJournal(tmp_path, KEY)
    records = fill_with(journal, 100)
    generation = journal.generation
    journal.close()
    body = bytearray((tmp_path / "journal.db").read_bytes())
    body[body.index(f"CREATE TABLE {table}".encode()) + 3] ^= 0x80
    (tmp_path / "journal.db").write_bytes(body)
    journal = SqliteJournal(tmp_path, KEY)
    assert journal.generation == generation
    assert unpacked(everything(journal)) == records
    assert journal.verify().problem == ""
    (damaged,) = tmp_path.glob("journal.damaged-*.db")
    assert damaged.read_bytes() == body, "what was damaged is kept as it was"
    journal.close()


def test_a_reader_does_not_touch_a_damaged_file(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path, KEY)
    fill_with(journal, 100)
    journal.close()
    damage_head(tmp_path / "journal.db")
    with pytest.raises(JournalError, match="damaged"):
        SqliteJournal(tmp_path, KEY, create=False)
    assert not list(tmp_path.glob("journal.damaged-*"))


def test_few_damaged_files_are_kept(tmp_path: Path) -> None:
    for _ in range(5):
        journal = SqliteJournal(tmp_path, KEY)
        journal.append([packed(b"x")])
        (tmp_path / "journal.db-wal").unlink()
        healed(journal)
        journal.close()
    assert len(list(tmp_path.glob("journal.damaged-*.db"))) == 3


# --- an older file ---

_VERSION_ONE = """
CREATE TABLE records (id INTEGER PRIMARY KEY AUTOINCREMENT, body BLOB NOT NULL);
CREATE TABLE workers (
  name TEXT PRIMARY KEY, seen REAL NOT NULL, body TEXT NOT NULL, left INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
"""


def version_one(folder: Path, records: list[bytes]) -> None:
    """The file as schema version 1 made it."""
    connection = apsw.Connection(str(folder / "journal.db"))
    connection.pragma("journal_mode", "wal")
    with connection:
        connection.execute(_VERSION_ONE)
        connection.pragma("application_id", 0x54464A31)
        connection.pragma("user_version", 1)
        connection.executemany("INSERT INTO records(body) VALUES (?)", ((record,) for record in records))
        connection.execute("INSERT INTO workers VALUES ('old', 5.0, '{\"pid\": 1}', 1)")
    connection.close()


def test_a_file_of_version_one_is_brought_up_to_date(tmp_path: Path) -> None:
    outcome = b"\x01\x02" + (5).to_bytes(8, "little") + (6).to_bytes(8, "little") + bytes(8) + b"\x00"
    mode = b"\x01\x03" + bytes(24) + b"\x04\x00mode" + bytes(6) + b"\x04\x00warn" + bytes(4)
    records = [outcome] * 2500 + [mode, b"not a record at all"]
    version_one(tmp_path, records)
    journals = [SqliteJournal(tmp_path, KEY), SqliteJournal(tmp_path, KEY)]
    for journal in journals:
        found = everything(journal)
        assert unpacked(found) == records
        assert [entry.cursor for entry in found] == list(range(1, len(records) + 1))
        assert found[2500].kind == Kind.CONTROL
        assert journal.verify().problem == ""
        assert [worker.name for worker in journal.workers()] == ["old"]
    assert journals[0].append([packed(b"new")]) == len(records) + 1
    for journal in journals:
        journal.close()


def test_several_workers_may_bring_a_file_up_to_date_at_once(tmp_path: Path) -> None:
    outcome = b"\x01\x02" + (5).to_bytes(8, "little") + (6).to_bytes(8, "little") + bytes(8) + b"\x00"
    version_one(tmp_path, [outcome] * 20_000)
    writers = [start_writer(tmp_path, name, 2, 5) for name in "abc"]
    for writer in writers:
        _, errors = writer.communicate(timeout=60)
        assert writer.returncode == 0, errors
    journal = SqliteJournal(tmp_path, KEY)
    assert len(unpacked(everything(journal))) == 20_030
    assert journal.verify().problem == ""
    journal.close()


# --- room ---


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_what_must_not_be_lost_finds_room_on_a_full_disk(big_disk: Path) -> None:
    journal = SqliteJournal(big_disk, KEY)
    journal.append([packed(b"x")])
    journal.tidy()
    assert (big_disk / "reserve").stat().st_size == 4 * 1024 * 1024
    filler = fill(big_disk)
    with pytest.raises(JournalError, match="disk"):
        for _ in range(100):
            journal.append([packed(b"y" * 50_000)])
    cursor = journal.append([packed(b"z" * 500_000, kind=Kind.FINDING)], durable=True)
    assert unpacked(journal.read_since(cursor - 1)) == [b"z" * 500_000]
    assert not (big_disk / "reserve").exists()
    journal.tidy()
    assert not (big_disk / "reserve").exists(), "not while it is needed"
    filler.unlink()
    journal.tidy()
    assert (big_disk / "reserve").exists()
    journal.close()


def test_the_log_stays_small_beside_a_slow_reader(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path, KEY)
    reader = apsw.Connection(str(tmp_path / "journal.db"))
    journal.append([packed(b"x" * 60_000)])
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM packs").get == 1
    for _ in range(400):
        journal.append([packed(b"x" * 60_000)])
    assert (tmp_path / "journal.db-wal").stat().st_size > 20_000_000, "the reader holds it up"
    journal.tidy()
    reader.execute("COMMIT")
    journal.tidy()
    assert (tmp_path / "journal.db-wal").stat().st_size == 0
    reader.close()
    journal.close()


def test_pruning_holds_no_lock_for_long(tmp_path: Path) -> None:
    clock = Clock()
    journal = SqliteJournal(tmp_path, KEY, clock=clock)
    for _ in range(40):
        journal.append([packed(*[b"x" * 150] * 50) for _ in range(100)])
    clock.now += 100
    other = SqliteJournal(tmp_path, KEY, busy_seconds=1.0)
    waits = []
    removed = 0
    while some := journal.prune(calls_before=clock.now, findings_before=clock.now, upto=journal.last()):
        removed += some
        begun = time.monotonic()
        other.append([packed(b"y", kind=Kind.CONTROL)])
        waits.append(time.monotonic() - begun)
    assert removed == 200_000
    assert len(waits) > 10, "in slices"
    assert journal.verify().problem == ""
    other.close()
    journal.close()


def test_a_forked_child_may_not_use_it_and_does_no_harm(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path, KEY)
    journal.append([packed(b"parent")])
    script_says = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            journal.append([packed(b"child")])
            said = "appended"
        except JournalError as error:
            said = str(error)
        journal.close()
        os.write(script_says[1], said.encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert "after a fork" in os.read(script_says[0], 4096).decode()
    assert journal.append([packed(b"parent again")]) == 2
    other = SqliteJournal(tmp_path, KEY)
    assert unpacked(other.read_since(0)) == [b"parent", b"parent again"]
    other.close()
    journal.close()


class SlowBatch(list[Pack]):
    """A batch that lets other threads run while it is being appended."""

    def __iter__(self) -> Iterator[Pack]:
        for record in super().__iter__():
            time.sleep(0.02)
            yield record


def test_threads_share_one_journal(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path, KEY)
    errors: list[Exception] = []

    def work(name: str) -> None:
        try:
            for n in range(5):
                journal.append(SlowBatch([packed(f"{name}:{n}".encode())] * 3), durable=n == 2)
                journal.read_since(journal.last() - 5)
        except JournalError as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=[name]) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    bodies = unpacked(everything(journal))
    assert len(bodies) == 4 * 5 * 3
    assert all(bodies[i] == bodies[i + 1] == bodies[i + 2] for i in range(0, len(bodies), 3))
    journal.close()


def test_sqlite_keeps_records_and_heartbeats_over_reopening(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path, KEY)
    journal.append([packed(b"a"), packed(b"b")])
    journal.beat("one", {"pid": 1})
    journal.close()
    again = SqliteJournal(tmp_path, KEY, create=False)
    assert unpacked(again.read_since(0)) == [b"a", b"b"]
    assert again.append([packed(b"c")]) == 3
    assert [worker.name for worker in again.workers()] == ["one"]
    again.close()


def test_sqlite_files_are_private(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path, KEY)
    journal.append([packed(b"a")])
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    names = ("journal.db", "journal.db-wal", "journal.db-shm", "journal.lock")
    assert modes == dict.fromkeys(names, 0o600)
    journal.close()


def test_two_handles_of_one_process_see_each_other(tmp_path: Path) -> None:
    one, two = SqliteJournal(tmp_path, KEY), SqliteJournal(tmp_path, KEY)
    assert one.append([packed(b"1")]) == 1
    assert two.append([packed(b"2")]) == 2
    assert one.read_since(0) == two.read_since(0)
    assert unpacked(one.read_since(0)) == [b"1", b"2"]
    one.close()
    assert two.append([packed(b"3")]) == 3
    two.close()


def test_a_heartbeat_refuses_numbers_json_lacks(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path, KEY)
    with pytest.raises(ValueError, match="JSON"):
        journal.beat("one", {"x": float("nan")})
    journal.close()
