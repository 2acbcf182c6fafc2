# SPDX-License-Identifier: Apache-2.0
"""A SQLite journal that is lost more than once, before and after it was pruned."""

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
from cpex_tool_firewall.journal.interface import JournalLost, records_since
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
