# SPDX-License-Identifier: Apache-2.0
"""What a worker has to store: nothing is forgotten before it is stored, and not at once after that."""

from collections.abc import Iterable

import pytest
from cpex_tool_firewall import outbox as outbox_module
from cpex_tool_firewall._native import Engine, decode_record, unpack
from cpex_tool_firewall.journal.interface import RESEND_SECONDS, Kind, Pack
from cpex_tool_firewall.outbox import Outbox, urgent

NOW = 1_790_000_000.0


class Bench:
    """An engine with its outbox, and a clock that stands still."""

    def __init__(self) -> None:
        self.engine = Engine(bytes(32), worker=7, journaling=True)
        self.now = 1000.0
        self.outbox = Outbox(self.engine, clock=lambda: self.now)
        self._calls = 0

    def calls(self, count: int) -> None:
        policy = self.engine.policy()
        for _ in range(count):
            caller = self.engine.caller("t", f"user {self._calls}")
            self.engine.check(policy, caller, "srv", "db_query", None, NOW + self._calls)
            self._calls += 1

    def packs(self, count: int) -> None:
        """So many packs: calls and notes about itself are of different kinds."""
        for number in range(count):
            if number % 2:
                self.engine.note("gap", str(number), NOW)
            else:
                self.calls(1)

    def store(self, limit: int = 512) -> list[Pack]:
        """Everything there is, as if it went into a journal."""
        found: list[Pack] = []
        while packs := self.outbox.take(limit):
            found += packs
            self.outbox.stored()
        return found


@pytest.fixture
def bench() -> Bench:
    return Bench()


def seqs(packs: Iterable[Pack]) -> list[int]:
    return [decode_record(record)["seq"] for pack in packs for record in unpack(pack.body)]


def test_there_is_nothing_to_store_at_first(bench: Bench) -> None:
    assert bench.outbox.take(10) == []
    bench.outbox.stored()
    assert bench.outbox.take(10) == []


def test_what_was_taken_is_given_again_until_it_is_stored(bench: Bench) -> None:
    bench.calls(3)
    first = bench.outbox.take(10)
    bench.calls(2)
    assert bench.outbox.take(10) == first
    assert seqs(first) == [1, 2, 3]
    bench.outbox.stored()
    assert seqs(bench.outbox.take(10)) == [4, 5]


def test_no_more_records_are_taken_than_asked_for(bench: Bench) -> None:
    bench.calls(10)
    assert seqs(bench.outbox.take(4)) == [1, 2, 3, 4]
    assert bench.engine.counters()["records_queued"] == 6


def test_much_is_given_in_parts_and_in_order(bench: Bench) -> None:
    bench.packs(80)
    first = bench.outbox.take(512)
    assert 1 < len(first) < 80
    rest = bench.store()
    assert seqs(rest) == list(range(1, 81))  # the first part is the beginning of it: it was not stored yet
    assert rest[: len(first)] == first


def test_it_says_how_much_there_is_to_store(bench: Bench) -> None:
    assert bench.outbox.records() == 0
    bench.calls(5)
    assert bench.outbox.records() == 5
    bench.outbox.take(3)  # three of them wait here now, two in the engine
    assert bench.outbox.records() == 5
    assert bench.outbox.stored() == 3
    assert bench.outbox.records() == 2
    assert bench.outbox.stored() == 0
    bench.outbox.store_again()
    assert bench.outbox.records() == 5


def test_what_was_stored_lately_can_be_stored_again(bench: Bench) -> None:
    bench.calls(2)
    old = bench.store()
    bench.now += RESEND_SECONDS / 2
    bench.calls(2)
    newer = bench.store()
    bench.calls(1)
    bench.outbox.store_again()
    again = bench.store()
    assert again[: len(old) + len(newer)] == [*old, *newer]
    assert seqs(again) == [1, 2, 3, 4, 5]


def test_it_comes_before_what_is_still_to_store(bench: Bench) -> None:
    bench.calls(2)
    bench.store()
    bench.calls(2)
    waiting = bench.outbox.take(9)  # the append() of these failed
    bench.outbox.store_again()
    bench.outbox.stored()  # of nothing: nothing was taken since
    assert seqs(waiting) == [3, 4]
    assert seqs(bench.store()) == [1, 2, 3, 4]


def test_it_is_remembered_for_a_while_only(bench: Bench) -> None:
    bench.calls(2)
    bench.store()
    bench.now += RESEND_SECONDS + 0.1
    bench.outbox.store_again()
    assert bench.outbox.take(9) == []


def test_a_second_loss_sends_it_once_more(bench: Bench) -> None:
    bench.calls(2)
    bench.store()
    for _ in range(2):
        bench.outbox.store_again()
        assert seqs(bench.store()) == [1, 2]


def test_no_more_than_so_many_bytes_are_remembered(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.calls(1)
    (pack,) = bench.store()
    monkeypatch.setattr(outbox_module, "_MOST_REMEMBERED", 3 * len(pack.body) + 20)
    for _ in range(9):
        bench.calls(1)
        bench.store()
    bench.outbox.store_again()
    assert seqs(bench.store()) == [8, 9, 10]


def test_only_ordinary_records_may_be_lost_with_the_machine(bench: Bench) -> None:
    def packs(*kinds: int) -> list[Pack]:
        return [Pack(kind, 1, b"") for kind in kinds]

    assert not urgent([])
    assert not urgent(packs(Kind.ORDINARY, Kind.ORDINARY))
    assert urgent(packs(Kind.ORDINARY, Kind.FINDING))
    assert urgent(packs(Kind.CONTROL))
