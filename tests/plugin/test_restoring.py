# SPDX-License-Identifier: Apache-2.0
"""From a journal to an engine: with snapshots that can be used, and with snapshots that cannot."""

import math

import pytest
from cpex_tool_firewall._native import Engine
from cpex_tool_firewall.journal.interface import JournalError, Pack, records_since
from cpex_tool_firewall.journal.memory import MemoryJournal
from cpex_tool_firewall.restoring import Restored, label_of, restore

KEY = bytes(range(32))
NOW = 1_790_000_000.0


class Site:
    """A journal, a worker that writes it, and readers."""

    def __init__(self) -> None:
        self.journal = MemoryJournal()
        self._worker = build(worker=7, journaling=True)
        self._now = NOW

    def calls(self, count: int, tool: str = "db_query") -> None:
        engine = self._worker
        policy, caller = engine.policy(), engine.caller("t", "alice")
        for _ in range(count):
            ticket = engine.check(policy, caller, "srv", tool, None, self._now).ticket
            engine.observe(ticket, "ok", self._now + 1)
            self._now += 600
            self.journal.append([Pack(*pack) for pack in engine.drain(9)])

    def snapshot(self, *, damaged: bool = False, generation: str | None = None, key: bytes = KEY) -> int:
        """Saves one of everything so far; its cursor."""
        made = restore(self.journal, lambda: build(key=key))
        label = label_of(self.journal, made.cursor)
        if generation is not None:
            label = f"{generation}:{made.cursor}"
        body = bytearray(made.engine.snapshot(label))
        if damaged:
            body[len(body) // 2] ^= 0x40
        self.journal.save_snapshot(made.cursor, bytes(body))
        return made.cursor

    def prune(self) -> None:
        """Removes all calls up to here."""
        while self.journal.prune(calls_before=math.inf, findings_before=math.inf, upto=self.journal.last()):
            pass

    def read(self) -> Restored:
        """As a starting worker reads it."""
        return restore(self.journal, build)


def build(*, key: bytes = KEY, worker: int = 0, journaling: bool = False) -> Engine:
    return Engine(key, worker=worker, journaling=journaling)


def knows(restored: Restored) -> object:
    """What an engine knows of alice and in all."""
    return restored.engine.baseline("t", "alice"), restored.engine.summary()


@pytest.fixture
def site() -> Site:
    return Site()


def test_an_empty_journal_gives_a_fresh_engine(site: Site) -> None:
    found = site.read()
    assert (found.cursor, found.snapshot, found.refused, found.lost, found.records) == (0, None, [], "", 0)
    assert found.engine.summary()["calls"] == 0


def test_without_a_snapshot_everything_is_read(site: Site) -> None:
    site.calls(20)
    shown: list[tuple[int, int]] = []
    found = restore(site.journal, build, lambda done, last: shown.append((done, last)))
    assert found.engine.summary()["calls"] == 20
    assert found.records == len(records_since(site.journal)) == 40
    assert found.cursor == site.journal.last()
    assert found.snapshot is None
    assert shown[-1] == (found.cursor, found.cursor)


def test_with_a_snapshot_only_what_came_after_it_is_read(site: Site) -> None:
    site.calls(20)
    before = site.read()
    cursor = site.snapshot()
    site.calls(5, "report")
    found = site.read()
    assert found.snapshot is not None
    assert found.snapshot.cursor == cursor
    assert found.records == 10
    # And it is as good as having read everything.
    everything = restore(_Without(site.journal), build)
    assert everything.records == 50
    assert knows(found) == knows(everything) != knows(before)
    assert found.engine.read_digest == everything.engine.read_digest != 0


def test_a_damaged_snapshot_is_passed_over_for_the_one_before(site: Site) -> None:
    site.calls(10)
    older = site.snapshot()
    site.calls(10)
    newer = site.snapshot(damaged=True)
    found = site.read()
    assert found.snapshot is not None
    assert found.snapshot.cursor == older
    assert found.engine.summary()["calls"] == 20
    assert len(found.refused) == 1
    assert f"snapshot at cursor {newer}" in found.refused[0]
    assert found.lost == ""


@pytest.mark.parametrize(
    "wrong",
    [{"damaged": True}, {"generation": "another"}, {"key": bytes(32)}],
    ids=["bits", "journal", "key"],
)
def test_without_a_usable_snapshot_everything_is_read(site: Site, wrong: dict[str, object]) -> None:
    site.calls(10)
    site.snapshot(**wrong)  # type: ignore[arg-type]
    found = site.read()
    assert found.snapshot is None
    assert found.engine.summary()["calls"] == 10
    assert found.records == 20
    assert len(found.refused) == 1
    assert found.lost == ""


def test_a_snapshot_that_cannot_be_read_is_passed_over(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.calls(10)
    site.snapshot()

    def unreadable(_cursor: int) -> bytes:
        raise JournalError("the disk reported an error")

    monkeypatch.setattr(site.journal, "load_snapshot", unreadable)
    found = site.read()
    assert found.engine.summary()["calls"] == 10
    assert "the disk reported an error" in found.refused[0]


def test_what_was_pruned_is_in_the_snapshot(site: Site) -> None:
    site.calls(10)
    whole = site.read()
    site.snapshot()
    site.prune()
    assert records_since(site.journal) == []
    found = site.read()
    assert knows(found) == knows(whole)
    assert found.lost == ""
    assert found.engine.read_digest == whole.engine.read_digest


def test_what_was_pruned_and_is_in_no_usable_snapshot_is_said_to_be_lost(site: Site) -> None:
    site.calls(10)
    site.snapshot(damaged=True)
    site.prune()
    site.calls(3)
    found = site.read()
    assert found.engine.summary()["calls"] == 3
    assert "pruned" in found.lost
    assert len(found.refused) == 1
    # It cannot be compared with workers that read from the beginning.
    assert found.engine.read_digest == 0


class _Without:
    """A journal without its snapshots."""

    def __init__(self, journal: MemoryJournal) -> None:
        self._journal = journal

    def snapshots(self) -> list[object]:
        return []

    def __getattr__(self, name: str) -> object:
        return getattr(self._journal, name)
