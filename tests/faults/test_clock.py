# SPDX-License-Identifier: Apache-2.0
"""Clocks that jump, and clocks that differ: real processes whose system time is moved with libfaketime."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from workers import FULL, Seen, Task, Worker

WORKERS = 4
CALLS_PER_SECOND = 20.0
BURST = 28  # the limit is 20 in 60 s
JUMPS = ("+1h", "-1h", "+10y", "-10y") if FULL else ("+1h",)

LIBRARIES = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))

pytestmark = pytest.mark.skipif(not LIBRARIES, reason="the Debian package faketime is not installed")


class Clock:
    """The system time of a process: as it is, plus what is set here. Monotonic time is left alone."""

    def __init__(self, file: Path, ahead: str = "+0") -> None:
        self._file = file
        self.set(ahead)

    def set(self, ahead: str) -> None:
        """Jumps, within a second."""
        self._file.write_text(ahead)

    @property
    def environment(self) -> dict[str, str]:
        """For the process."""
        return {
            "LD_PRELOAD": str(LIBRARIES[0]),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DISABLE_SHM": "1",
        }


class Site:
    """Workers on one state folder, each with a clock or with the host's."""

    def __init__(self, folder: Path) -> None:
        self.task = Task(
            folder / "state", {"mode": "block", "snapshot_minutes": 0}, calls=CALLS_PER_SECOND, decisions=0
        )
        self.seen = Seen(self.task)
        self.workers: list[Worker] = []

    def start(self, *clocks: Clock | None) -> None:
        """One worker for each clock."""
        self.workers = [Worker(self.task, None if clock is None else clock.environment) for clock in clocks]
        for worker in self.workers:
            worker.wait(lambda it: it.number and len(it.answered) > 5)

    def go_on(self, calls: int = 20) -> None:
        """Until every worker has answered so many more."""
        before = [len(worker.answered) for worker in self.workers]
        for worker, had in zip(self.workers, before, strict=True):
            worker.wait(lambda it, had=had: len(it.answered) >= had + calls)  # type: ignore[misc]

    def burst(self, user: str) -> int:
        """One user makes far too many calls, each at the next worker; how many of them are stopped."""
        stopped = 0
        for number in range(BURST):
            stopped += self.workers[number % len(self.workers)].ask(user, "db_query")
            time.sleep(0.05)  # as long as records take to arrive at the others
        return stopped

    def alarm(self, worker: Worker, cause: str) -> bool:
        """Whether the last heartbeat of a worker carries an alarm."""
        return any(
            text.startswith(f"{cause}:")
            for found in self.seen.journal.workers()
            if found.body.get("pid") == worker.pid
            for text in found.body.get("alarms", ())
        )

    def check(self) -> None:
        """After all have ended: nothing was lost, nobody was stopped without reason."""
        for worker in self.workers:
            assert worker.stop() == 0
            assert worker.troubles == 0
        self.seen.catch_up()
        for worker in self.workers:
            asked = len(worker.answers) - sum(worker.answers)
            assert len(self.seen.calls[worker.number]) == len(worker.answered) + asked
        assert len(self.seen.decisions) == sum(sum(worker.answers) for worker in self.workers)
        assert self.seen.journal.verify().problem == ""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    for worker in made.workers:
        worker.kill()
    made.seen.close()


def wait(condition: Callable[[], bool], seconds: float) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"not within {seconds} s"
        time.sleep(0.05)


@pytest.mark.parametrize("jump", JUMPS)
def test_one_of_four_clocks_jumps(jump: str, site: Site, tmp_path: Path) -> None:
    clock = Clock(tmp_path / "clock")
    site.start(clock, *[None] * (WORKERS - 1))
    jumped = site.workers[0]
    assert site.burst("bob") >= BURST - 25  # it does while the clocks agree
    clock.set(jump)

    def noted() -> bool:
        site.seen.catch_up()
        return any(
            fields["action"] == "clock" and fields["worker"] == jumped.number for fields in site.seen.controls
        )

    wait(noted, 10)
    site.go_on()
    assert site.burst("carol") >= BURST - 25
    wait(lambda: site.alarm(jumped, "clock"), 10)
    assert not any(site.alarm(worker, "clock") for worker in site.workers[1:])
    site.check()


def test_two_hosts_half_a_minute_apart(site: Site, tmp_path: Path) -> None:
    site.start(Clock(tmp_path / "one"), Clock(tmp_path / "other", "+30"))
    site.go_on()
    assert site.burst("bob") >= BURST - 25
    # Whoever of them leads says so.
    wait(lambda: any(site.alarm(worker, "clock-skew") for worker in site.workers), 25)
    site.check()
