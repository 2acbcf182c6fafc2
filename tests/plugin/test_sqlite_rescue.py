# SPDX-License-Identifier: Apache-2.0
"""A SQLite journal that is lost more than once, before and after it was pruned."""

import math
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest
from cpex_tool_firewall.journal import sqlite_rescue
from cpex_tool_firewall.journal.interface import JournalError, JournalLost, records_since
from cpex_tool_firewall.journal.sqlite import SqliteJournal
from journal_writer import KEY, numbers_of, packs


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[SqliteJournal]:
    made = SqliteJournal(tmp_path, KEY)
    yield made
    made.close()


def lose(journal: SqliteJournal) -> None:
    """Deletes the file, waits until that is noticed, and heals."""
    journal.path.unlink()
    journal._next_watch = 0.0
    with pytest.raises(JournalLost):
        journal.last()
    journal.heal(0)


def write(journal: SqliteJournal, start: int, count: int) -> int:
    """Calls start, start + 1, ..., each a pack; the cursor of the last one."""
    return max(journal.append(packs("alice", number, 1)) for number in range(start, start + count))


def numbers(journal: SqliteJournal) -> list[int]:
    return numbers_of("alice", records_since(journal))


def test_what_was_written_between_two_losses_outlives_the_second(journal: SqliteJournal) -> None:
    for number in range(4):
        write(journal, number * 600, 600)  # more than a slice
        lose(journal)
        assert numbers(journal) == list(range((number + 1) * 600))
        assert journal.verify().problem == ""


def test_what_was_saved_is_pruned_like_everything_else(journal: SqliteJournal) -> None:
    upto = write(journal, 0, 30)
    while journal.prune(calls_before=math.inf, findings_before=math.inf, upto=upto - 20):
        pass
    assert numbers(journal) == list(range(10, 30))
    lose(journal)
    write(journal, 30, 10)
    lose(journal)
    last = write(journal, 40, 10)
    assert numbers(journal) == list(range(10, 50))
    assert journal.verify().problem == ""
    while journal.prune(calls_before=math.inf, findings_before=math.inf, upto=last):
        pass
    assert numbers(journal) == []
    assert journal.verify().problem == ""
    assert journal.first() > 0


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        ("UPDATE checkpoints SET tail = CAST(x'ff80ff80ff80ff80' AS TEXT)", "note"),
        ("UPDATE checkpoints SET fold = '0123456789abcdef'", "note"),
        ("UPDATE checkpoints SET kept = NULL", ""),
        ("UPDATE checkpoints SET start = NULL", ""),
        ("UPDATE checkpoints SET start = 5000000", ""),
        ("UPDATE checkpoints SET start = -5", "note"),
        ("UPDATE sqlite_sequence SET seq = CAST(x'ff80' AS TEXT)", None),
    ],
)
def test_a_damaged_note_costs_no_record(journal: SqliteJournal, damage: str, says: str | None) -> None:
    upto = write(journal, 0, 30)
    while journal.prune(calls_before=math.inf, findings_before=math.inf, upto=upto - 20):
        pass
    generation, connection = journal.generation, journal._connection
    assert connection is not None
    connection.pragma("writable_schema", True)
    connection.execute(
        "UPDATE sqlite_schema SET sql = replace(sql, 'NOT NULL', '') WHERE name = 'checkpoints'"
    )
    connection.execute("PRAGMA writable_schema = RESET").fetchall()
    connection.execute(damage)

    write(journal, 30, 5)  # goes on all the same
    assert (journal.verify().problem == "") == (says is None)
    assert (says or "") in journal.verify().problem
    lose(journal)
    write(journal, 35, 5)
    assert journal.generation == generation
    assert numbers(journal) == list(range(10, 40))
    assert journal.verify().problem == ""


def test_what_a_killed_process_began_is_noticed_at_once(journal: SqliteJournal, tmp_path: Path) -> None:
    write(journal, 0, 10)
    other = SqliteJournal(tmp_path, KEY)
    made = tmp_path / ".journal-1.rescue"
    assert other._connection is not None
    sqlite_rescue.copy(
        *(other._connection, made, other._key, other.generation), known=10, busy_seconds=other._busy_seconds
    )
    made.rename(tmp_path / "journal.rescued.db")
    other.close()  # its locks are gone: killed

    journal._next_watch = 0.0
    with pytest.raises(JournalLost, match="killed before it was done"):
        write(journal, 10, 1)
    journal.heal(0)
    write(journal, 10, 10)
    with_third = SqliteJournal(tmp_path, KEY)
    assert numbers(with_third) == list(range(20))
    with_third.close()


@pytest.mark.parametrize("error", [apsw.BusyError("locked"), apsw.FullError("full"), apsw.IOError("quota")])
def test_history_is_not_begun_anew_because_it_cannot_be_copied_now(
    journal: SqliteJournal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: apsw.Error
) -> None:
    write(journal, 0, 10)
    if isinstance(error, apsw.IOError):
        error.extendedresult = apsw.SQLITE_IOERR_WRITE
    generation = journal.generation
    litter = tmp_path / ".journal-1.rescue"
    litter.write_bytes(b"of one who was killed")

    def fail(*_args: object, **_more: object) -> int:
        raise error

    journal.path.unlink()
    journal._next_watch = 0.0
    with pytest.raises(JournalLost):
        journal.last()
    with monkeypatch.context() as patched:
        patched.setattr(sqlite_rescue, "copy", fail)
        with pytest.raises(JournalError, match="cannot be saved"):
            journal.heal(0)
    assert not litter.exists()
    journal.heal(0)
    assert journal.generation == generation
    assert numbers(journal) == list(range(10))
