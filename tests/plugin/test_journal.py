# SPDX-License-Identifier: Apache-2.0
"""What every journal must do: order, cursors, heartbeats, closing. Runs against each backend."""

from collections.abc import Callable
from pathlib import Path

import pytest
from cpex_tool_firewall.journal.interface import FORGET_SECONDS, SILENT_SECONDS, Journal, JournalError, Kind
from cpex_tool_firewall.journal.memory import MemoryJournal
from cpex_tool_firewall.journal.sqlite import SqliteJournal
from journals import KEY, Clock, packed, unpacked
from redis_server import RedisServer

MakeJournal = Callable[[Clock], Journal]


@pytest.fixture(params=["sqlite", "memory", "redis", "redis-spooling"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> MakeJournal:
    if request.param == "memory":
        return lambda clock: MemoryJournal(clock=clock)
    if request.param == "sqlite":
        return lambda clock: SqliteJournal(tmp_path, KEY, clock=clock)
    server: RedisServer = request.getfixturevalue("redis_server")
    spooling = request.param == "redis-spooling"
    return lambda clock: server.journal(
        tmp_path, at={"prefix": tmp_path.name}, spooling=spooling, clock=clock
    )


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def journal(make: MakeJournal, clock: Clock) -> Journal:
    return make(clock)


def test_packs_come_back_in_order_byte_for_byte(journal: Journal) -> None:
    first = [packed(b"a", b"", bytes(range(256))), packed(b"b", kind=Kind.FINDING)]
    cursor = journal.append(first)
    assert 0 < cursor == journal.last()
    journal.append([packed(b"last", kind=Kind.CONTROL)], durable=True)
    assert journal.last() > cursor
    found = journal.read_since(0)
    assert [(entry.kind, entry.records, entry.body) for entry in found[:2]] == [tuple(pack) for pack in first]
    assert unpacked(found) == [b"a", b"", bytes(range(256)), b"b", b"last"]
    assert [entry.cursor for entry in found] == sorted({entry.cursor for entry in found})
    assert found[-1].cursor == journal.last()


@pytest.mark.parametrize(
    ("after", "limit", "expected"),
    [(0, 2, [1, 2]), (2, 2, [3, 4]), (4, 100, [5]), (5, 100, []), (0, 0, [])],
)
def test_reading_on_from_a_cursor(journal: Journal, after: int, limit: int, expected: list[int]) -> None:
    journal.append([packed(b"%d" % n) for n in range(1, 6)])
    cursors = [0, *(entry.cursor for entry in journal.read_since(0))]
    found = journal.read_since(cursors[after], limit)
    assert [int(body) for body in unpacked(found)] == expected


def test_there_is_nothing_beyond_the_end_nor_before_the_beginning(journal: Journal) -> None:
    journal.append([packed(b"x")])
    assert journal.read_since(journal.last() + 99) == []
    assert unpacked(journal.read_since(-1)) == [b"x"]
    assert journal.first() == 0


def test_nothing_appended_gives_the_newest_cursor(journal: Journal) -> None:
    assert journal.append([]) == 0
    assert journal.last() == 0
    last = journal.append([packed(b"x"), packed(b"y")])
    assert journal.append([]) == journal.last() == last


def test_a_batch_is_kept_whole_or_not_at_all(journal: Journal) -> None:
    journal.append([packed(b"before")])
    with pytest.raises((TypeError, AttributeError)):
        journal.append([packed(b"one"), object(), packed(b"two")])  # type: ignore[list-item]
    assert unpacked(journal.read_since(0)) == [b"before"]
    journal.append([packed(b"after")])
    assert unpacked(journal.read_since(0)) == [b"before", b"after"]


def test_pruning_by_kind_age_and_place(journal: Journal, clock: Clock) -> None:
    for kind in (Kind.ORDINARY, Kind.FINDING, Kind.CONTROL):
        journal.append([packed(kind.name.encode() + b" old", kind=kind)])
    clock.now += 100
    snapshot = journal.last()
    for kind in (Kind.ORDINARY, Kind.FINDING, Kind.CONTROL):
        journal.append([packed(kind.name.encode() + b" new", kind=kind)])

    def prune(calls: float, findings: float, upto: int) -> int:
        removed = 0
        while some := journal.prune(
            calls_before=clock.now + calls, findings_before=clock.now + findings, upto=upto
        ):
            removed += some
        return removed

    assert prune(-100, -100, journal.last()) == 0, "nothing is older than that"
    assert prune(-50, -150, journal.last()) == 1
    assert unpacked(journal.read_since(0))[:2] == [b"FINDING old", b"CONTROL old"]
    assert 0 < journal.first() <= snapshot
    assert prune(-50, -50, journal.last()) == 1
    assert prune(50, 50, snapshot) == 0, "not beyond the cursor"
    assert prune(50, 50, journal.last()) == 2
    assert unpacked(journal.read_since(0)) == [b"CONTROL old", b"CONTROL new"]
    assert journal.verify().problem == ""
    last = journal.last()
    assert journal.append([packed(b"after")]) > last
    assert unpacked(journal.read_since(last)) == [b"after"]


def test_snapshots_are_kept_whole_and_two_of_them(journal: Journal) -> None:
    assert journal.snapshots() == []
    big = bytes(range(256)) * 10_000
    for cursor, body in ((3, b"first"), (7, big), (9, b"")):
        journal.save_snapshot(cursor, body)
    assert [(info.cursor, info.size) for info in journal.snapshots()] == [(9, 0), (7, len(big))]
    assert journal.load_snapshot(7) == big
    assert journal.load_snapshot(9) == b""
    with pytest.raises(JournalError):
        journal.load_snapshot(3)


def test_a_snapshot_at_the_same_cursor_replaces_the_old_one(journal: Journal) -> None:
    journal.save_snapshot(5, b"old")
    journal.save_snapshot(5, b"new")
    assert [info.cursor for info in journal.snapshots()] == [5]
    assert journal.load_snapshot(5) == b"new"


def test_one_worker_leads(journal: Journal, clock: Clock) -> None:
    assert journal.lead("one", 10)
    assert not journal.lead("two", 10)
    clock.now += 5
    assert journal.lead("one", 10), "it goes on leading"
    clock.now += 9
    assert not journal.lead("two", 10)
    clock.now += 2
    assert journal.lead("two", 10), "the other one has said nothing for too long"
    assert not journal.lead("one", 10)


def test_who_leaves_leads_no_longer(journal: Journal) -> None:
    journal.beat("one", {})
    assert journal.lead("one", 10)
    journal.leave("one")
    assert journal.lead("two", 10)


def test_a_history_has_a_name_and_a_place(journal: Journal) -> None:
    assert journal.generation
    assert journal.where
    assert journal.size() >= 0
    journal.tidy()
    assert journal.heal(0) == 0


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


@pytest.mark.parametrize(
    "use", ["append", "read_since", "last", "beat", "leave", "workers", "lead", "anchor", "verify"]
)
def test_a_closed_journal_says_so(journal: Journal, use: str) -> None:
    journal.close()
    journal.close()
    arguments = {
        "append": [[packed(b"x")]],
        "read_since": [0],
        "beat": ["w", {}],
        "leave": ["w"],
        "lead": ["w", 10.0],
    }.get(use, [])
    with pytest.raises(JournalError, match="closed"):
        getattr(journal, use)(*arguments)
