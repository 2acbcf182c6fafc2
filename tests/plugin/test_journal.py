# SPDX-License-Identifier: Apache-2.0
"""What every journal must do: order, cursors, heartbeats, closing. Runs against each backend."""

import math
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from cpex_tool_firewall.journal.interface import FORGET_SECONDS, SILENT_SECONDS, Journal, JournalError
from cpex_tool_firewall.journal.memory import MemoryJournal
from cpex_tool_firewall.journal.sqlite import SqliteJournal


class Clock:
    """A clock the test moves."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


MakeJournal = Callable[[Clock], Journal]


@pytest.fixture(params=["sqlite", "memory"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> MakeJournal:
    if request.param == "memory":
        return lambda clock: MemoryJournal(clock=clock)
    return lambda clock: SqliteJournal(tmp_path, clock=clock)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def journal(make: MakeJournal, clock: Clock) -> Journal:
    return make(clock)


def test_records_come_back_in_order_byte_for_byte(journal: Journal) -> None:
    first = [b"a", b"", bytes(range(256))]
    assert journal.append(first) == 3
    assert journal.append([b"last"], durable=True) == 4
    assert journal.read_since(0) == [(1, b"a"), (2, b""), (3, bytes(range(256))), (4, b"last")]


@pytest.mark.parametrize(
    ("cursor", "limit", "expected"),
    [
        (0, 2, [1, 2]),
        (2, 2, [3, 4]),
        (4, 100, [5]),
        (5, 100, []),
        (99, 100, []),
        (-1, 1, [1]),
        (0, 0, []),
    ],
)
def test_reading_on_from_a_cursor(journal: Journal, cursor: int, limit: int, expected: list[int]) -> None:
    journal.append([b"%d" % n for n in range(1, 6)])
    assert [found for found, _ in journal.read_since(cursor, limit)] == expected


def test_empty_batch_gives_the_newest_cursor(journal: Journal) -> None:
    assert journal.append([]) == 0
    assert journal.last() == 0
    journal.append([b"x", b"y"])
    assert journal.append([]) == 2
    assert journal.last() == 2


def test_a_batch_is_kept_whole_or_not_at_all(journal: Journal) -> None:
    journal.append([b"before"])
    with pytest.raises(TypeError):
        journal.append([b"one", object(), b"two"])  # type: ignore[list-item]
    assert journal.read_since(0) == [(1, b"before")]
    assert journal.append([b"after"]) == 2


def test_the_newest_heartbeat_of_each_worker(journal: Journal, clock: Clock) -> None:
    journal.beat("one", {"pid": 1, "cursor": 5})
    clock.now += 1
    journal.beat("two", {"pid": 2, "counters": {"calls": 3}, "alarms": ["wörd"]})
    clock.now += 1
    journal.beat("one", {"pid": 1, "cursor": 9})
    newest, older = journal.workers()
    assert (newest.name, newest.seen, newest.body) == ("one", clock.now, {"pid": 1, "cursor": 9})
    assert (older.name, older.seen) == ("two", clock.now - 1)
    assert older.body["alarms"] == ["wörd"]


def test_silence_starts_after_fifteen_seconds(journal: Journal, clock: Clock) -> None:
    journal.beat("one", {})
    (worker,) = journal.workers()
    assert not worker.silent(clock.now + SILENT_SECONDS)
    assert worker.silent(clock.now + SILENT_SECONDS + 0.001)


def test_leaving_and_forgetting(journal: Journal, clock: Clock) -> None:
    journal.beat("leaves", {"settings": {}})
    journal.beat("dies", {})
    journal.leave("leaves")
    journal.leave("never seen")
    clock.now += SILENT_SECONDS + 1
    dies, leaves = journal.workers()
    assert (dies.name, dies.left, dies.silent(clock.now), dies.alive(clock.now)) == (
        "dies",
        False,
        True,
        False,
    )
    assert (leaves.name, leaves.left, leaves.silent(clock.now), leaves.alive(clock.now)) == (
        "leaves",
        True,
        False,
        False,
    )
    assert leaves.body == {"settings": {}}
    journal.beat("leaves", {})
    assert journal.workers()[0].alive(clock.now)
    clock.now += FORGET_SECONDS + 1
    assert len(journal.workers()) == 2  # the newest settings stay known, however long nobody beats
    journal.beat("new", {})
    assert [worker.name for worker in journal.workers()] == ["new"]


def test_a_heartbeat_that_is_not_json_is_the_callers_mistake(journal: Journal) -> None:
    with pytest.raises(TypeError):
        journal.beat("one", {"body": object()})
    assert journal.workers() == []


@pytest.mark.parametrize("use", ["append", "read_since", "last", "beat", "leave", "workers"])
def test_a_closed_journal_says_so(journal: Journal, use: str) -> None:
    journal.close()
    journal.close()
    arguments = {"append": [[b"x"]], "read_since": [0], "beat": ["w", {}], "leave": ["w"]}.get(use, [])
    with pytest.raises(JournalError, match="closed"):
        getattr(journal, use)(*arguments)


def test_sqlite_keeps_records_and_heartbeats_over_reopening(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path)
    journal.append([b"a", b"b"])
    journal.beat("one", {"pid": 1})
    journal.close()
    again = SqliteJournal(tmp_path, create=False)
    assert again.read_since(0) == [(1, b"a"), (2, b"b")]
    assert again.append([b"c"]) == 3
    assert [worker.name for worker in again.workers()] == ["one"]
    again.close()


def test_sqlite_files_are_private(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path)
    journal.append([b"a"])
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {"journal.db": 0o600, "journal.db-wal": 0o600, "journal.db-shm": 0o600}
    journal.close()


def test_two_handles_of_one_process_see_each_other(tmp_path: Path) -> None:
    one, two = SqliteJournal(tmp_path), SqliteJournal(tmp_path)
    assert one.append([b"1"]) == 1
    assert two.append([b"2"]) == 2
    assert one.read_since(0) == two.read_since(0) == [(1, b"1"), (2, b"2")]
    one.close()
    assert two.append([b"3"]) == 3
    two.close()


def test_a_heartbeat_refuses_numbers_json_lacks(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path)
    with pytest.raises(ValueError, match="JSON"):
        journal.beat("one", {"x": math.nan})
    journal.close()
