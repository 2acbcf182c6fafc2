# SPDX-License-Identifier: Apache-2.0
"""gunicorn with preload: the plugin is imported in the parent, and used in the four workers it forks."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Screened

WORKERS = 4
_TRIES = 200


@pytest.fixture(scope="module")
def preloaded(start_lab: Callable[..., Screened]) -> Iterator[Screened]:
    started = start_lab(users=("alice",), workers=WORKERS, server="gunicorn", preload=True)
    yield started
    started.lab.stop()


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def pids(site: Screened) -> set[int]:
    """The workers that live and have a journal."""
    return {
        worker.body["pid"]
        for worker in site.firewall.workers()
        if worker.alive(time.time()) and Path(f"/proc/{worker.body['pid']}").exists()
    }


def call_until(site: Screened, done: Callable[[], bool]) -> None:
    """Calls on fresh connections, all answered, until every worker had its share."""
    for _ in range(_TRIES):
        site.lab.disconnect()
        assert site.lab.call("alice", "db_query", {"sql": "x"}).ok
        if done():
            return
    raise AssertionError(f"not within {_TRIES} calls")


def open_files(pid: int) -> list[str]:
    found: list[Any] = list(Path(f"/proc/{pid}/fd").iterdir())
    return [os.readlink(path) for path in found if path.exists()]


def test_every_worker_has_a_journal_of_its_own_and_the_parent_none(preloaded: Screened) -> None:
    call_until(preloaded, lambda: len(pids(preloaded)) == WORKERS)
    workers = pids(preloaded)
    (parent,) = {parent_of(pid) for pid in workers}
    for pid in workers:
        assert any(name.endswith("journal.db") for name in open_files(pid))
    assert not any("journal.db" in name for name in open_files(parent))
    threads = Path(f"/proc/{parent}/task").iterdir()
    assert not any("tool-firewall" in (thread / "comm").read_text() for thread in threads)


def test_a_killed_worker_is_replaced_by_one_that_knows_everything(preloaded: Screened) -> None:
    call_until(preloaded, lambda: len(pids(preloaded)) == WORKERS)
    victim = min(pids(preloaded))
    os.kill(victim, signal.SIGKILL)
    call_until(preloaded, lambda: len(pids(preloaded) - {victim}) == WORKERS)
    assert preloaded.firewall.journal.verify().problem == ""
    for worker in preloaded.firewall.workers():
        assert not [text for text in worker.body["alarms"] if text.startswith(("journal", "diverged"))]
