# SPDX-License-Identifier: Apache-2.0
"""Forks: of a process that only imported the plugin, of one that uses it, and in the middle of everything.

A child that hangs is ended by its own alarm clock and counted.
"""

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cpex_tool_firewall import keeper, runtime
from cpex_tool_firewall.journal.interface import Pack, records_since
from cpex_tool_firewall.plugin import ToolFirewallPlugin
from workers import FULL, TOOL, Seen, Task, call

STARTS = 200 if FULL else 20
HANGS_SECONDS = 20

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


class Gateway:
    """This process as the gateway's parent: it may use the plugin, and forks."""

    def __init__(self, folder: Path) -> None:
        runtime.shut_down()
        self.task = Task(folder, {"mode": "learning"})
        self.folder = folder

    def call(self, made: ToolFirewallPlugin, user: str = "parent") -> bool:
        """A call that got a verdict."""
        return "unscreened" not in asyncio.run(call(made, user, TOOL))

    def calls_stored(self) -> int:
        """How many calls are in the journal."""
        seen = Seen(self.task)
        try:
            seen.catch_up()
            return sum(map(len, seen.calls.values()))
        finally:
            seen.close()


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[Gateway]:
    yield Gateway(tmp_path / "state")
    runtime.shut_down()


def in_children(count: int, work: Callable[[], bool], pause: float = 0.0) -> tuple[int, int]:
    """Forks `count` children, one after the other; how many failed, and how many hung."""
    failed = hung = 0
    for _ in range(count):
        time.sleep(pause)
        pid = os.fork()
        if pid == 0:
            _in_child(work)
        status = os.waitpid(pid, 0)[1]
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM:
            hung += 1
        elif status:
            failed += 1
    return failed, hung


def _in_child(work: Callable[[], bool]) -> None:
    signal.alarm(HANGS_SECONDS)
    code = 1
    with contextlib.suppress(BaseException):  # nothing of the test's may run in the child
        code = 0 if work() else 2
    os._exit(code)


@contextmanager
def meanwhile(work: Callable[[], Any], threads: int = 1) -> Iterator[None]:
    """Does something over and over in other threads."""
    stop = threading.Event()

    def run() -> None:
        while not stop.is_set():
            work()

    started = [threading.Thread(target=run) for _ in range(threads)]
    for thread in started:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in started:
            thread.join()


def test_a_parent_that_imported_the_plugin_forks_workers(gateway: Gateway) -> None:
    def worker() -> bool:
        answered = gateway.call(gateway.task.plugin(), "child")
        runtime.shut_down()
        return answered

    assert in_children(STARTS, worker) == (0, 0)
    assert runtime.running() == []
    assert gateway.calls_stored() == STARTS


def test_a_parent_that_uses_the_plugin_forks_workers(gateway: Gateway) -> None:
    made = gateway.task.plugin()
    assert gateway.call(made)

    def worker() -> bool:
        # The instance that the parent made, then one of its own.
        answered = gateway.call(made, "child") and gateway.call(gateway.task.plugin(), "child")
        runtime.shut_down()
        return answered

    assert in_children(STARTS, worker) == (0, 0)
    assert gateway.call(made)
    runtime.shut_down()
    assert gateway.calls_stored() == 2 * STARTS + 2


def test_a_child_lives_on_when_its_parent_ends(gateway: Gateway) -> None:
    """With the parent's files open, a child would hold no lock of its own on the journal, and the parent's
    end would delete the write-ahead log under it.
    """
    made = gateway.task.plugin()
    assert gateway.call(made)
    ready, go = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(go[1])

        def worker() -> bool:
            answered = gateway.call(made, "child")
            os.write(ready[1], b"x")
            os.read(go[0], 1)
            for _ in range(10):
                answered = gateway.call(made, "child") and answered
            (found,) = runtime.running()
            seen = Seen(gateway.task)  # stored at once, without a second to notice that files are missing
            while len(seen.every) < 12:
                seen.catch_up()
            time.sleep(1.5)
            return answered and found.alarms.counts() == {}

        _in_child(worker)
    os.close(go[0])
    os.read(ready[0], 1)
    runtime.shut_down()
    os.close(go[1])
    assert os.waitpid(pid, 0)[1] == 0
    assert gateway.calls_stored() == 12


def test_forks_while_other_threads_are_in_the_hooks(gateway: Gateway) -> None:
    made = gateway.task.plugin()

    def worker() -> bool:
        answered = gateway.call(made, "child")
        runtime.shut_down()
        return answered

    with meanwhile(lambda: gateway.call(made), threads=2):
        assert in_children(STARTS, worker, 0.005) == (0, 0)


def test_forks_while_the_journal_is_being_written(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal thread is inside SQLite nearly all the time; forks between its turns hang no child."""
    monkeypatch.setattr(runtime, "POLL_SECONDS", 0.0001)
    made = gateway.task.plugin()
    (found,) = runtime.running()
    journal: Any = found._journal
    packs = [Pack(0, 1, made_pack) for made_pack in _packs(200)]
    real = found._store

    def store_much() -> None:
        real()
        journal.append(packs)
        records_since(journal, max(0, journal.last() - 50))

    monkeypatch.setattr(found, "_store", store_much)

    def worker() -> bool:
        answered = gateway.call(made, "child")
        runtime.shut_down()
        return answered

    assert in_children(STARTS, worker, 0.003) == (0, 0)
    assert runtime.alarms.active() == []


def _packs(count: int) -> list[bytes]:
    from cpex_tool_firewall._native import encode_call, pack

    records = [
        encode_call(ts=1.0, worker=5, seq=number + 1, tenant="t", user="u", tool="x")
        for number in range(count)
    ]
    return [pack([record])[0][2] for record in records]


def test_a_fork_does_not_wait_for_ever_for_a_journal_that_hangs(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(runtime, "_FORK_SECONDS", 0.2)
    made = gateway.task.plugin()
    (found,) = runtime.running()
    stuck = threading.Event()
    monkeypatch.setattr(found, "_store", lambda: stuck.wait(30))
    time.sleep(0.1)
    begun = time.monotonic()
    assert in_children(1, lambda: True) == (0, 0)
    assert time.monotonic() - begun < 5
    assert "did not answer" in caplog.text
    stuck.set()
    assert gateway.call(made)


def test_a_child_never_touches_what_the_parent_opened(gateway: Gateway) -> None:
    """Not even when it ends: closing an inherited SQLite connection drops the parent's locks."""
    made = gateway.task.plugin()
    (found,) = runtime.running()
    touched = gateway.folder / "touched"

    def touch(*_args: Any, **_more: Any) -> None:
        touched.touch()

    def worker() -> bool:
        for name in ("append", "read_since", "beat", "leave", "close", "lead", "tidy"):
            setattr(found._journal, name, touch)
        answered = gateway.call(made, "child")
        runtime.shut_down()
        time.sleep(0.1)
        return answered and runtime.running() == [] and found not in runtime.running()

    assert in_children(3, worker) == (0, 0)
    assert not touched.exists()
    assert gateway.call(made)
    assert runtime.alarms.active() == []


def test_a_child_leaves_the_snapshot_process_of_its_parent_alone(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_LEAD_EVERY", "_SNAPSHOT_CHECK_EVERY"):
        monkeypatch.setattr(keeper, name, 0.05)
    monkeypatch.setattr(keeper, "_SNAPSHOT_RECORDS", 1)
    made = gateway.task.plugin()
    (found,) = runtime.running()
    assert gateway.call(made)
    until = time.monotonic() + 30
    while found._keeper._making is None:
        assert time.monotonic() < until
        time.sleep(0.001)

    def worker() -> bool:
        answered = gateway.call(made, "child")
        runtime.shut_down()
        return answered

    assert in_children(2, worker) == (0, 0)
    while not found._journal.snapshots():
        assert time.monotonic() < until
        time.sleep(0.01)
    assert runtime.alarms.active() == []
