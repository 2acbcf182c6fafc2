# SPDX-License-Identifier: Apache-2.0
"""Who is missed among the workers, whatever their clocks say, and who read something else than we did."""

import subprocess
import sys
import time
from typing import Any

import pytest
from cpex_tool_firewall.journal.interface import SILENT_SECONDS, Worker
from cpex_tool_firewall.liveness import MISSED_SECONDS, Attendance, diverged, silent_workers, state_of

NOW = 1_790_000_000.0


def worker(pid: int, age: float = 0.0, *, host: str = "one", left: bool = False, **body: Any) -> Worker:
    """A worker last heard of `age` seconds before NOW, and started an hour before that unless told."""
    seen = NOW - age
    about = {"pid": pid, "host": host, "started": seen - 3600, "last_seen": seen} | body
    return Worker(f"{host}:{pid}", seen, about, left)


# --- missed ---


def test_only_a_silent_worker_is_missed() -> None:
    everybody = [worker(1), worker(2, SILENT_SECONDS - 1), worker(3, 20, left=True), worker(4, 20)]
    (said,) = silent_workers(everybody, NOW)
    assert "worker 4 on one" in said
    assert silent_workers([worker(1), worker(4)], NOW) == [], "it came back"


def test_who_is_gone_for_long_is_not_missed_for_ever() -> None:
    assert silent_workers([worker(1, MISSED_SECONDS - 1)], NOW)
    assert silent_workers([worker(1, MISSED_SECONDS + 1)], NOW) == []


def test_a_worker_started_on_the_same_host_afterwards_takes_its_place() -> None:
    killed = worker(1, 20)
    assert silent_workers([killed, worker(9, started=NOW - 18)], NOW) == []
    assert len(silent_workers([killed, worker(9, host="two", started=NOW - 18)], NOW)) == 1, "another host"
    assert len(silent_workers([killed, worker(9, started=NOW - 25)], NOW)) == 1, "it was there before"
    assert len(silent_workers([killed, worker(9, 16, started=NOW - 18)], NOW)) == 2, "silent itself"


def test_one_new_worker_takes_one_place() -> None:
    silent = [worker(1, 30), worker(2, 20)]
    (said,) = silent_workers([*silent, worker(9, started=NOW - 18)], NOW)
    assert "worker 2" in said
    assert silent_workers([*silent, worker(8, started=NOW - 18), worker(9, started=NOW - 18)], NOW) == []


def test_a_heartbeat_without_a_body_is_missed_too() -> None:
    nameless = Worker("x", NOW - 20, {})
    assert len(silent_workers([nameless, worker(9, started=NOW)], NOW)) == 1


# --- clocks that differ and jump ---


class Clock:
    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("skew", [-3600.0, -30.0, 0.0, 30.0, 3600.0])
def test_a_worker_whose_clock_is_wrong_is_not_missed_while_it_beats(skew: float) -> None:
    clock = Clock()
    attendance = Attendance(clock)
    theirs = time.time() + skew
    for beat in range(20):
        seen = theirs + 5 * beat
        assert attendance.silent([Worker("w", seen, {"pid": 1, "host": "two"})]) == []
        clock.now += 5
    clock.now += SILENT_SECONDS
    assert len(attendance.silent([Worker("w", seen, {"pid": 1, "host": "two"})])) == 1, "it stopped beating"
    assert attendance.silent([Worker("w", seen + 60, {"pid": 1, "host": "two"})]) == []


def test_a_clock_that_jumps_back_is_a_sign_of_life() -> None:
    clock = Clock()
    attendance = Attendance(clock)
    seen = time.time()
    for offset in (0.0, 5.0, -3590.0, -3585.0):
        assert attendance.silent([Worker("w", seen + offset, {})]) == []
        clock.now += 10


def test_who_was_silent_long_before_we_looked_is_not_missed() -> None:
    clock = Clock()
    attendance = Attendance(clock)
    gone = Worker("w", time.time() - 2 * MISSED_SECONDS, {"pid": 1, "host": "two"})
    for _ in range(10):
        assert attendance.silent([gone]) == []
        clock.now += 5


def test_who_was_silent_shortly_before_we_looked_is_missed_within_another_span() -> None:
    clock = Clock()
    attendance = Attendance(clock)
    silent = Worker("w", time.time() - 60, {"pid": 1, "host": "two"})
    assert attendance.silent([silent]) == []
    clock.now += SILENT_SECONDS + 1
    assert len(attendance.silent([silent])) == 1
    clock.now += MISSED_SECONDS
    assert attendance.silent([silent]) == []


# --- what one look tells ---


def test_a_process_of_this_host_that_is_gone_is_dead() -> None:
    import socket

    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    body = {"pid": process.pid, "host": socket.gethostname()}
    assert state_of(Worker("w", NOW - 10, body), NOW) == "dead"
    assert state_of(Worker("w", NOW - 10, body | {"host": "elsewhere"}), NOW) == "alive"
    assert state_of(Worker("w", NOW - 20, body | {"host": "elsewhere"}), NOW) == "silent"
    assert state_of(Worker("w", NOW - 20, body, left=True), NOW) == "left"


# --- one truth ---


def test_a_worker_that_read_something_else_is_named() -> None:
    seen = {7: "aa", 9: "bb"}
    assert diverged([worker(1, cursor=7, digest="aa"), worker(2, cursor=9, digest="bb")], seen) == []
    (said,) = diverged([worker(1, cursor=7, digest="aa"), worker(2, cursor=9, digest="cc")], seen)
    assert "worker 2 on one" in said
    assert "cursor 9" in said


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"cursor": 8, "digest": "cc"},  # we did not stop there
        {"cursor": 10, "digest": "cc"},  # we know no digest there
        {"cursor": 9, "digest": ""},  # it did not read from the beginning
        {"cursor": "9", "digest": "cc"},
        {"cursor": 9, "digest": 7},
    ],
)
def test_where_one_of_us_cannot_say_nothing_is_said(body: dict[str, Any]) -> None:
    assert diverged([worker(1, **body)], {9: "bb", 10: ""}) == []


def test_who_left_may_have_read_what_it_likes() -> None:
    assert diverged([worker(1, cursor=9, digest="cc", left=True)], {9: "bb"}) == []
