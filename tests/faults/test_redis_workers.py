# SPDX-License-Identifier: Apache-2.0
"""Whole workers on one Redis journal while the server dies, hangs and forgets: what was answered is there.

Decisions are on the host's disk before they are answered, so the server's fate must not show in any answer,
and once it is back every decision and every call is in the journal.
"""

import contextlib
import random
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from cpex_tool_firewall.journal.interface import JournalError
from redis_server import RedisServer
from workers import FULL, Seen, Task, Worker

WORKERS = 2
OUTAGE_SECONDS = 60.0 if FULL else 4.0
POINTS = 200 if FULL else 6
SEED = 20261121


class Site:
    """Two workers under load, and one server."""

    def __init__(self, folder: Path, **options: str) -> None:
        self.server = RedisServer(folder / "redis", **options)
        self.task = Task(
            folder / "state",
            {"journal": "redis", "redis_url": self.server.url, "snapshot_minutes": 0},
            calls=100,
            decisions=20,
        )
        self.seen = Seen(self.task)
        self.workers = [Worker(self.task) for _ in range(WORKERS)]
        for worker in self.workers:
            worker.wait(lambda it: it.number and len(it.recorded) > 10)

    def run(self, seconds: float) -> None:
        """Lets them work, and reads on as a third process does."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            time.sleep(0.1)

    def wait_for_all(self, seconds: float) -> None:
        """Until everything that was answered as recorded so far is in the journal, or for so long."""
        answered = self.answered()
        until = time.monotonic() + seconds
        while answered - self.seen.decisions and time.monotonic() < until:
            time.sleep(1)
            self.catch_up()

    def lost_calls(self, worker: Worker) -> int:
        """How many of its ordinary calls are not in the journal."""
        return max(len(worker.answered) - len(self.seen.calls.get(worker.number, ())), 0)

    def finish(self, alive: Sequence[Worker] | None = None) -> None:
        """Ends the workers as they should, and reads everything from the beginning."""
        for worker in self.workers if alive is None else alive:
            assert worker.stop() == 0
        self.seen.close()
        self.seen = Seen(self.task)
        self.seen.catch_up()

    def catch_up(self) -> None:
        """Reads on; a server that was away may be so at the first try."""
        with contextlib.suppress(JournalError):
            self.seen.catch_up()

    def missing(self) -> set[int]:
        """Decisions that were answered as recorded and are not in the journal."""
        assert len(self.answered()) > WORKERS * 20
        return self.answered() - self.seen.decisions

    def answered(self) -> set[int]:
        """Decisions that were answered as recorded."""
        return {incident for worker in self.workers for incident in worker.recorded}

    def unrecorded(self) -> int:
        """Decisions that waited in vain for their record."""
        return sum(len(worker.unrecorded) for worker in self.workers)

    def end(self) -> None:
        """After a test."""
        for worker in self.workers:
            worker.kill()
        self.seen.close()
        self.server.stop()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.end()


def test_the_server_is_killed_and_comes_back(site: Site) -> None:
    site.server.kill()
    site.run(OUTAGE_SECONDS)
    site.server.start()
    site.run(3)
    before = [len(worker.recorded) for worker in site.workers]
    site.run(2)
    assert all(len(worker.recorded) > then for worker, then in zip(site.workers, before, strict=True))
    site.finish()
    assert site.missing() == set()
    assert site.unrecorded() <= WORKERS * 2, "at most those that waited when it died"
    for worker in site.workers:
        calls = site.seen.calls[worker.number]
        assert len(calls) >= len(worker.answered), "ordinary calls waited on the disk too"


def test_the_server_hangs_and_goes_on(site: Site) -> None:
    site.server.freeze()
    site.run(OUTAGE_SECONDS)
    site.server.thaw()
    site.run(3)
    site.finish()
    assert site.missing() == set()
    assert site.unrecorded() <= WORKERS * 2, "at most those that waited when it began to hang"


def test_the_server_restarts_empty(site: Site) -> None:
    generation = site.seen.journal.generation
    site.run(2)
    site.server.kill()
    site.server.forget()
    site.server.start()
    site.run(8)  # what the spool remembers is sent again some seconds after the workers' own
    site.finish()
    assert site.seen.journal.generation != generation
    assert site.missing() == set()
    assert all(worker.troubles == 0 for worker in site.workers)


def test_workers_killed_at_random_points_lose_no_decision(site: Site) -> None:
    dice = random.Random(SEED)
    for _ in range(POINTS):
        victim = Worker(site.task)
        site.workers.append(victim)
        victim.wait(lambda it: it.recorded)
        time.sleep(dice.uniform(0.0, 0.5))
        victim.kill()
    site.wait_for_all(60)  # what a victim left in the spool, a worker of its host adopts after 30 s
    site.finish(site.workers[:WORKERS])
    lost = [site.lost_calls(victim) for victim in site.workers[WORKERS:]]
    print(
        f"{POINTS} kills, {sum(lost)} of the last ordinary calls missing, at most {max(lost)} of one worker"
    )
    assert site.missing() == set()


def test_a_worker_dies_during_an_outage_and_the_next_one_sends_its_decisions(site: Site) -> None:
    first, second = site.workers
    site.server.kill()
    site.run(2)
    first.kill()
    second.kill()
    site.server.start()
    heir = Worker(site.task)
    heir.wait(lambda it: it.recorded)
    site.wait_for_all(60)  # it adopts after 30 s
    site.workers.append(heir)
    site.finish([heir])
    assert site.missing() == set()
