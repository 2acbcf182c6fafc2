# SPDX-License-Identifier: Apache-2.0
"""What the elected worker does for all, and that there is one of it: by the clock of the test."""

import logging
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from cpex_tool_firewall import keeper as keeper_module
from cpex_tool_firewall._native import encode_call, pack
from cpex_tool_firewall.alarms import Alarms
from cpex_tool_firewall.config import load
from cpex_tool_firewall.journal.interface import Journal, Pack, records_since
from cpex_tool_firewall.journal.memory import MemoryJournal
from cpex_tool_firewall.journal.opening import open_journal
from cpex_tool_firewall.keeper import LEASE_SECONDS, Keeper
from cpex_tool_firewall.state import State, open_state
from hooks import wait_for

DAY = 86_400.0


class Clock:
    """Both clocks of a test: it stands still until somebody moves it."""

    def __init__(self) -> None:
        self.now = 1_790_000_000.0

    def __call__(self) -> float:
        return self.now


class Site:
    """A state folder with a journal that counts what is asked of it, and keepers of it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.clock = Clock()
        self.state: State = open_state(str(folder))
        self.journal: Any = Counting(MemoryJournal(clock=self.clock))
        self.alarms = Alarms()
        self._monkeypatch = monkeypatch
        monkeypatch.setattr(keeper_module.time, "time", self.clock)

    def on_disk(self) -> None:
        """With the real journal of the folder instead, as a snapshot process finds it."""
        self.journal = open_journal(load({}), self.state)

    def keeper(self, name: str = "one", **settings: Any) -> Keeper:
        about = load({"anchor_seconds": 0, **settings})
        return Keeper(name, self.journal, about, self.state, self.alarms, clock=self.clock)

    def calls(self, count: int) -> int:
        """Stores calls, one a pack; the cursor of the last one."""
        cursor = 0
        for number in range(count):
            record = encode_call(ts=self.clock.now, worker=9, seq=number + 1, tenant="t", user="a", tool="x")
            cursor = self.journal.append([Pack(*made) for made in pack([record])])
        return cursor

    def turns(self, keeper: Keeper, seconds: float, cursor: int = 0, records: int = 0) -> None:
        """Lets a keeper have its turns, one a second."""
        until = self.clock.now + seconds
        while self.clock.now < until:
            self.clock.now += 1
            turn(keeper, cursor, records)

    def on(self, cause: str) -> str:
        """The text of an alarm, "" when it is off."""
        return next((text for text in self.alarms.active() if text.startswith(f"{cause}:")), "")


class Counting:
    """A journal that notes which of its functions were called."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.asked: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        self.asked[name] += 1
        return getattr(self._journal, name)


def turn(
    keeper: Keeper,
    cursor: int = 0,
    records: int = 0,
    *,
    digests: Mapping[int, str] | None = None,
    busy: bool = False,
) -> None:
    keeper.turn(cursor, records, digests or {}, busy=busy)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    return Site(tmp_path / "state", monkeypatch)


# --- who ---


def test_one_of_many_leads_and_another_follows_it_when_it_hangs(site: Site) -> None:
    one, two = site.keeper("one"), site.keeper("two")
    for _ in range(30):
        site.clock.now += 1
        turn(one)
        turn(two)
        assert (one.leading, two.leading) == (True, False)
    hung = site.clock.now
    while not two.leading:
        site.clock.now += 1
        turn(two)
    assert site.clock.now - hung <= LEASE_SECONDS + 2
    turn(one)  # it comes back to itself
    assert not one.leading


def test_who_does_not_lead_does_nothing(site: Site) -> None:
    turn(site.keeper("one"))
    before = site.journal.asked.copy()
    site.turns(site.keeper("two"), LEASE_SECONDS - 2)
    assert set(site.journal.asked - before) == {"lead"}


def test_the_store_is_tidied_once_a_second(site: Site) -> None:
    keeper = site.keeper()
    for _ in range(1000):
        site.clock.now += 0.02
        turn(keeper)
    assert 19 <= site.journal.asked["tidy"] <= 21


# --- anchors ---


def test_anchors_are_logged_when_the_end_of_the_chain_moved(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    keeper = site.keeper(anchor_seconds=10)
    site.turns(keeper, 30)
    assert "anchor" not in caplog.text  # nothing to anchor yet
    site.on_disk()  # the journal in memory has no digests
    keeper = site.keeper(anchor_seconds=10)
    cursor = site.calls(3)
    site.turns(keeper, 30)
    site.turns(keeper, 30)
    assert caplog.text.count("tool firewall anchor: cursor=") == 1
    assert f"cursor={cursor} digest={site.journal.anchor().digest}" in caplog.text
    site.calls(1)
    site.turns(keeper, 11)
    assert caplog.text.count("tool firewall anchor: cursor=") == 2
    site.journal.close()


def test_anchors_can_be_switched_off(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    site.calls(3)
    site.turns(site.keeper(anchor_seconds=0), 60)
    assert "anchor" not in caplog.text


# --- the others ---


def beat(site: Site, name: str, **more: Any) -> None:
    body = {"pid": 4711, "host": "elsewhere", "started": 1.0, "last_seen": site.clock.now}
    site.journal.beat(name, body | {"generation": site.journal.generation} | more)


def test_a_worker_that_goes_silent_is_an_alarm_until_it_is_back(site: Site) -> None:
    keeper = site.keeper()
    beat(site, "other")
    site.turns(keeper, 10)
    assert site.on("silent-worker") == ""
    site.turns(keeper, 15)
    assert "worker 4711 on elsewhere" in site.on("silent-worker")
    beat(site, "other")
    site.turns(keeper, 6)
    assert site.on("silent-worker") == ""


def test_a_worker_that_left_is_not_missed(site: Site) -> None:
    keeper = site.keeper()
    beat(site, "other")
    site.turns(keeper, 6)
    site.journal.leave("other")
    site.turns(keeper, 60)
    assert site.on("silent-worker") == ""


def test_a_worker_that_read_something_else_is_an_alarm(site: Site) -> None:
    keeper = site.keeper()
    site.clock.now += 1
    beat(site, "other", cursor=7, digest="aa")
    turn(keeper, digests={7: "aa"})
    assert site.on("diverged") == ""
    site.clock.now += 6
    turn(keeper, digests={7: "bb"})
    assert "up to cursor 7" in site.on("diverged")
    beat(site, "other", cursor=7, digest="bb", generation="another")
    site.clock.now += 6
    turn(keeper, digests={7: "aa"})  # cursors of another history say nothing
    assert site.on("diverged") == ""


def test_who_no_longer_leads_no_longer_judges(site: Site) -> None:
    one, two = site.keeper("one"), site.keeper("two")
    beat(site, "other")
    site.turns(one, 25)
    assert site.on("silent-worker")
    site.clock.now += LEASE_SECONDS + 1
    turn(two)
    assert two.leading
    site.clock.now += 3
    turn(one)
    assert not one.leading
    assert site.on("silent-worker") == ""


def beats(site: Site, keeper: Keeper, ahead: float, late: float = 0.0, times: int = 3) -> None:
    """Another worker whose clock is `ahead`, noticed `late` after each of its heartbeats."""
    for _ in range(times):
        beat(site, "other", last_seen=site.clock.now + ahead)
        site.turns(keeper, late + 1 if late else 0)
        turn(keeper)
        site.clock.now += 5


@pytest.mark.parametrize(("ahead", "said"), [(30, "30 s ahead"), (3, "3 s ahead"), (-30, "30 s behind")])
def test_clocks_that_disagree_are_an_alarm_until_they_agree(site: Site, ahead: float, said: str) -> None:
    keeper = site.keeper()
    beats(site, keeper, ahead)
    assert f"worker 4711 on elsewhere is about {said}" in site.on("clock-skew")
    beats(site, keeper, 0.1)
    assert site.on("clock-skew") == ""


@pytest.mark.parametrize(("ahead", "late"), [(1.5, 0), (-1.5, 0), (0, 4), (-1.5, 4)])
def test_clocks_that_nearly_agree_are_not(site: Site, ahead: float, late: float) -> None:
    beats(site, site.keeper(), ahead, late, times=6)
    assert site.on("clock-skew") == ""


def test_the_clock_of_a_worker_that_left_does_not_matter(site: Site) -> None:
    keeper = site.keeper()
    beats(site, keeper, 30)
    assert site.on("clock-skew")
    site.journal.leave("other")
    site.turns(keeper, 6)
    assert site.on("clock-skew") == ""


# --- pruning ---


def test_nothing_is_pruned_before_there_is_a_snapshot(site: Site) -> None:
    site.calls(5)
    site.clock.now += 30 * DAY
    site.turns(site.keeper(snapshot_minutes=0), 1300)
    assert len(records_since(site.journal)) == 5


def test_what_is_old_is_pruned_up_to_the_older_snapshot(site: Site) -> None:
    for size in (3, 4, 5):
        cursor = site.calls(size)
        site.journal.save_snapshot(cursor, b"x")
    site.clock.now += 15 * DAY
    late = site.calls(2)
    keeper = site.keeper(snapshot_minutes=0)
    site.turns(keeper, 1300)
    left = site.journal.read_since(0)
    # Only two snapshots are kept; the older of them is the one at 7.
    assert [entry.cursor for entry in left] == [8, 9, 10, 11, 12, late - 1, late]


def test_young_records_are_kept(site: Site) -> None:
    for _ in range(2):
        site.journal.save_snapshot(site.calls(3), b"x")
    site.clock.now += 13 * DAY
    site.turns(site.keeper(snapshot_minutes=0), 1300)
    assert len(records_since(site.journal)) == 6


def test_nothing_is_pruned_by_a_clock_that_was_set_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = Site(tmp_path / "state", monkeypatch)
    site.on_disk()
    for _ in range(2):
        site.journal.save_snapshot(site.calls(3), b"x")
    keeper = site.keeper(snapshot_minutes=0)
    right = time.time_ns() / 1e9  # that of the files
    monkeypatch.setattr(site.journal, "_clock", site.clock)  # of the same host
    site.clock.now = right - 400 * DAY  # no battery, and no network yet
    site.turns(keeper, 1300)
    assert len(records_since(site.journal)) == 6
    site.clock.now = right
    site.turns(keeper, 1300)
    assert len(records_since(site.journal)) == 6
    site.clock.now = right + 15 * DAY
    site.turns(keeper, 1300)
    assert len(records_since(site.journal)) == 3
    site.journal.close()


def test_pruning_goes_on_in_slices_and_gives_way_to_who_waits(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    slices = [5, 5, 2, 0]
    monkeypatch.setattr(site.journal._journal, "prune", lambda **_: slices.pop(0))
    site.journal.save_snapshot(1, b"x")
    keeper = site.keeper(snapshot_minutes=0)
    turn(keeper, busy=True)
    assert len(slices) == 4
    for left in (3, 2, 1, 0, 0):
        turn(keeper)  # no time goes by
        assert len(slices) == left
    slices += [7, 0]
    turn(keeper)
    assert len(slices) == 2  # not before it is due again
    site.clock.now += 601
    turn(keeper)
    assert len(slices) == 1


# --- snapshots ---


class Started:
    """Counts the snapshot processes that are started instead of starting them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        monkeypatch.setattr(Keeper, "_start_snapshot", self._start)

    def _start(self) -> None:
        self.count += 1


def test_a_snapshot_is_made_when_it_is_time(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    started = Started(monkeypatch)
    keeper = site.keeper(snapshot_minutes=15)
    site.turns(keeper, 890, cursor=5)
    assert started.count == 0
    site.turns(keeper, 20, cursor=5)
    assert started.count > 0


def test_no_snapshot_is_made_when_nothing_is_new(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    started = Started(monkeypatch)
    site.journal.save_snapshot(5, b"x")
    site.turns(site.keeper(snapshot_minutes=1), 300, cursor=5)
    assert started.count == 0


def test_no_snapshot_is_made_when_they_are_switched_off(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    started = Started(monkeypatch)
    site.turns(site.keeper(snapshot_minutes=0), 300, cursor=5, records=10_000_000)
    assert started.count == 0


def test_much_traffic_makes_a_snapshot_due_sooner(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    started = Started(monkeypatch)
    keeper = site.keeper(snapshot_minutes=15)
    site.turns(keeper, 10, cursor=5, records=1000)
    assert started.count == 0
    site.turns(keeper, 10, cursor=9, records=1_000_000)
    assert started.count > 0
    site.journal.save_snapshot(9, b"x")
    site.turns(keeper, 10, cursor=9, records=1_000_000)
    started.count = 0
    site.turns(keeper, 30, cursor=12, records=1_100_000)
    assert started.count == 0


def finish(site: Site, keeper: Keeper) -> None:
    """Waits for the snapshot process, and lets the keeper look at it."""
    process = keeper._making
    assert process is not None
    wait_for(lambda: process.poll() is not None, 30)
    site.clock.now += 6
    turn(keeper)
    assert keeper._making is None


def test_a_snapshot_is_made_by_a_process_of_its_own(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    site.on_disk()
    cursor = site.calls(5)
    keeper = site.keeper(snapshot_minutes=1)
    site.clock.now += 61
    turn(keeper, cursor)
    assert keeper._making is not None
    assert keeper._making.pid != os.getpid()
    finish(site, keeper)
    assert [info.cursor for info in site.journal.snapshots()] == [cursor]
    assert "made a snapshot" in caplog.text
    assert site.on("snapshot") == ""
    site.journal.close()


def test_a_snapshot_that_cannot_be_made_is_an_alarm_and_tried_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.on_disk()
    cursor = site.calls(5)
    keeper = site.keeper(snapshot_minutes=1)
    with monkeypatch.context() as broken:
        broken.setattr(sys, "executable", "/bin/false")
        site.clock.now += 61
        turn(keeper, cursor)
        finish(site, keeper)
    assert "no snapshot could be made: exit 1" in site.on("snapshot")
    site.turns(keeper, 50, cursor)
    assert keeper._making is None
    site.turns(keeper, 20, cursor)
    finish(site, keeper)
    assert site.on("snapshot") == ""
    assert len(site.journal.snapshots()) == 1
    site.journal.close()


def test_a_program_that_is_not_there_is_an_alarm(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    keeper = site.keeper(snapshot_minutes=1)
    site.turns(keeper, 70, cursor=5)
    assert "cannot be started" in site.on("snapshot")


def test_what_a_failing_snapshot_process_says_is_in_the_alarm(site: Site, tmp_path: Path) -> None:
    keeper = site.keeper(snapshot_minutes=1)
    (site.state.folder / "key").unlink()
    site.turns(keeper, 70, cursor=5)
    process = keeper._making
    assert process is not None
    wait_for(lambda: process.poll() is not None, 30)
    site.turns(keeper, 6, cursor=5)
    assert str(site.state.folder / "key") in site.on("snapshot")


def test_a_snapshot_process_that_hangs_is_ended(site: Site) -> None:
    keeper = site.keeper(snapshot_minutes=1)
    site.turns(keeper, 70, cursor=5)
    process = keeper._making
    assert process is not None
    os.kill(process.pid, signal.SIGSTOP)
    site.turns(keeper, 890, cursor=5)
    assert keeper._making is process
    assert process.poll() is None
    site.turns(keeper, 20, cursor=5)
    wait_for(lambda: process.poll() is not None)
    turn(keeper, 5)
    assert "ended by signal 9" in site.on("snapshot")


def test_many_settings_do_not_hold_up_the_thread(site: Site) -> None:
    groups = {"sales": [f"user-{number:06}@example.com" for number in range(20_000)]}  # 480 kB
    keeper = site.keeper(snapshot_minutes=1, peer_groups=groups)
    site.clock.now += 61
    begun = time.monotonic()
    turn(keeper, 5)
    assert keeper._making is not None
    assert keeper._making.poll() is None  # it has not had the time to read them
    assert time.monotonic() - begun < 0.5
    keeper._making.kill()
    keeper._making.wait()


def test_who_no_longer_leads_still_sees_its_process_end(site: Site) -> None:
    one = site.keeper("one", snapshot_minutes=1)
    site.turns(one, 70, cursor=5)
    process = one._making
    assert process is not None
    site.clock.now += LEASE_SECONDS + 1
    turn(site.keeper("two"))
    wait_for(lambda: process.poll() is not None, 30)
    site.clock.now += 3
    turn(one)
    assert not one.leading
    assert one._making is None
