# SPDX-License-Identifier: Apache-2.0
"""What lasts: restarts, several processes on one state folder, forks, a failing journal, the way out."""

import asyncio
import gc
import math
import multiprocessing
import os
import queue
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cpex.framework import PluginContext, ToolPreInvokePayload
from cpex_tool_firewall import restoring, runtime
from cpex_tool_firewall._native import encode_call, pack
from cpex_tool_firewall.control import set_mode
from cpex_tool_firewall.journal import sqlite_rescue
from cpex_tool_firewall.journal.interface import JournalError, Pack, records_since
from cpex_tool_firewall.journal.sqlite import SqliteJournal
from cpex_tool_firewall.plugin import HANDOVER, ToolFirewallPlugin
from cpex_tool_firewall.snapshotter import IncompleteError, make_snapshot
from cpex_tool_firewall.state import StateError, open_state
from hooks import HOUR, Firewall, about, call, said, wait_for
from journals import packed

WORKER = Path(__file__).parent / "runtime_worker.py"


def worker(state: Path, *command: Any, **options: Any) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, str(WORKER), str(state), *map(str, command)],
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
        text=True,
        **options,
    )


@contextmanager
def lines_of(process: "subprocess.Popen[str]") -> "Iterator[queue.Queue[tuple[float, str]]]":
    """The lines a worker prints, each with the moment it came."""
    found: queue.Queue[tuple[float, str]] = queue.Queue()

    def read() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            found.put((time.monotonic(), line.strip()))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    try:
        yield found
    finally:
        process.kill()
        process.wait()
        reader.join()


def first_line(lines: "queue.Queue[tuple[float, str]]", wanted: str, seconds: float = 15.0) -> float:
    """Waits for a line; returns the moment it came."""
    until = time.monotonic() + seconds
    while True:
        try:
            moment, line = lines.get(timeout=max(0.0, until - time.monotonic()))
        except queue.Empty:
            pytest.fail(f"{wanted!r} was not printed within {seconds} s")
        if line == wanted:
            return moment


# --- importing, starting, ending ---


def test_importing_starts_nothing() -> None:
    code = (
        "import sys, threading, os; before = len(os.listdir('/proc/self/fd'));"
        "import cpex_tool_firewall as package;"
        "assert not [name for name in sys.modules if name.split('.')[0] in ('cpex', 'pydantic', 'apsw')];"
        "assert 'cpex_tool_firewall._native' not in sys.modules;"
        "package.ToolFirewallPlugin; assert 'cpex_tool_firewall._native' in sys.modules;"
        "assert set(package.__all__) <= set(dir(package));"
        "from cpex_tool_firewall import runtime; assert runtime.running() == [];"
        "assert threading.active_count() == 1, threading.enumerate();"
        "assert not any('journal' in os.readlink(f'/proc/self/fd/{f}') for f in os.listdir('/proc/self/fd')"
        " if os.path.exists(f'/proc/self/fd/{f}'))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_name_of_the_package_is_an_attribute_error() -> None:
    import cpex_tool_firewall

    with pytest.raises(AttributeError, match="Nothing"):
        _ = cpex_tool_firewall.Nothing


def test_there_is_one_runtime_and_it_outlives_its_instances(firewall: Firewall) -> None:
    instance = firewall.instance()
    first = firewall.runtime
    assert len(first.instances) == 1
    del instance
    gc.collect()
    assert len(first.instances) == 0
    firewall.instance()
    assert firewall.runtime is first
    assert [thread.name for thread in threading.enumerate()].count("tool-firewall-journal") == 1


async def test_the_state_is_private(firewall: Firewall) -> None:
    await call(firewall.instance(), "db_query")
    assert stat.S_IMODE(firewall.state.stat().st_mode) == 0o700
    for path in firewall.state.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


async def test_a_restart_keeps_what_was_learned_and_the_mode(firewall: Firewall) -> None:
    instance = firewall.instance()
    await firewall.history(instance, "db_query", "read_file", calls=60)
    journal = firewall.journal()
    set_mode(journal, "block", by="test", why="a test", now=firewall.now)
    journal.close()
    wait_for(firewall.runtime.engine.modes)
    before = firewall.runtime.engine.baseline("team", "alice@example.com")
    firewall.restart()

    instance = firewall.instance()
    assert firewall.runtime.engine.baseline("team", "alice@example.com") == before
    (mode,) = firewall.runtime.engine.modes()
    assert (mode["mode"], mode["by"], mode["why"]) == ("block", "test", "a test")
    assert said(await call(instance, "db_query"))["limit_mode"] == "block"
    assert not (await call(instance, "delete_records")).continue_processing


def test_a_page_that_was_damaged_meanwhile_keeps_no_worker_from_starting(firewall: Firewall) -> None:
    journal = SqliteJournal(firewall.state, open_state(str(firewall.state)).key)
    for n in range(200):
        record = encode_call(
            ts=firewall.now, worker=5, seq=n + 1, tenant="t", user=f"user {n}", tool="q" * 200
        )
        journal.append([Pack(*made) for made in pack([record])])
    journal.close()
    path = firewall.state / "journal.db"
    page = path.stat().st_size // 4096 // 2
    command = ["dd", "if=/dev/urandom", f"of={path}", "bs=4096", "count=1", f"seek={page}", "conv=notrunc"]
    subprocess.run(command, check=True, capture_output=True)
    firewall.instance()
    assert 150 < firewall.runtime.engine.summary()["calls"] < 200


def test_a_process_that_ends_leaves_every_call_behind(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with worker(state, "calls", "alice", "db_query", 300) as process:
        assert process.wait(30) == 0
    with worker(state, "follow", 0.2) as process:
        assert process.communicate(timeout=30)[0].splitlines()[-1] == "learning 300"


def test_a_killed_process_loses_at_most_its_last_moments(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with worker(state, "killed", "alice", "db_query", 300) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "done\n"
        time.sleep(0.2)
        process.stdin.write("go\n")
        process.stdin.flush()
        assert process.wait(30) == -9
    with worker(state, "follow", 0.2) as process:
        assert process.communicate(timeout=30)[0].splitlines()[-1] == "learning 300"


# --- several processes ---


async def test_a_change_of_mode_reaches_every_process_within_a_second(firewall: Firewall) -> None:
    firewall.instance()
    with lines_of(worker(firewall.state, "follow", 60)) as lines:
        first_line(lines, "learning 0")
        for mode in ("warn", "block", "learning"):
            journal = firewall.journal()
            begin = time.monotonic()
            set_mode(journal, mode, by="test")
            journal.close()
            here = wait_for(
                lambda mode=mode: (
                    firewall.runtime.engine.modes()[:1] and firewall.runtime.engine.modes()[0]["mode"] == mode
                )
            )
            there = first_line(lines, f"{mode} 0") - begin
            assert here < 1
            assert there < 1


async def test_processes_learn_from_each_other(firewall: Firewall) -> None:
    instance = firewall.instance()
    firewall.now = time.time()
    with worker(firewall.state, "calls", "alice@example.com", "from_there", 50) as process:
        assert process.wait(30) == 0
    wait_for(lambda: firewall.runtime.engine.summary()["calls"] == 50)
    with lines_of(worker(firewall.state, "follow", 60)) as lines:
        first_line(lines, "learning 50")
        await call(instance, "from_here")
        first_line(lines, "learning 51")
    baseline = firewall.runtime.engine.baseline("team", "alice@example.com")
    assert baseline is not None
    # The tool that is new to her is held as new, whichever process saw it.
    seen = {item["tool"] for item in (*baseline["tools"], *baseline["held"])}
    assert seen == {"from_there", "from_here"}


async def test_a_process_says_how_it_is(firewall: Firewall, monkeypatch: pytest.MonkeyPatch) -> None:
    instance = firewall.instance(burst_threshold=33)
    await call(instance, "db_query")
    journal = firewall.journal()
    wait_for(journal.workers)
    (found,) = journal.workers()
    body = found.body
    assert body["pid"] == os.getpid()
    assert body["mode"] == "learning"
    assert body["instances"] == 1
    assert body["settings"]["burst_threshold"] == 33
    assert body["alarms"] == []
    assert body["python"].startswith("3.")
    assert isinstance(body["fail_on_plugin_error"], bool)
    assert body["cpex"]
    cursor = set_mode(journal, "warn", by="test")
    # The heartbeat that confirms a change comes at once, not with the next five seconds.
    assert wait_for(lambda: journal.workers()[0].body["cursor"] >= cursor) < 1
    assert journal.workers()[0].body["mode"] == "warn"
    journal.close()


# --- a journal that fails ---


class Stubborn:
    """A journal that can be told to fail."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.failing: set[str] = set()
        self.error: Exception = JournalError("/state/journal.db: the disk is full")
        self.slow = 0.0

    def _do(self, what: str) -> None:
        if what in self.failing:
            raise self.error
        if what == "append" and self.slow:
            time.sleep(self.slow)

    def append(self, packs: Sequence[Pack], *, durable: bool = False) -> int:
        self._do("append")
        return int(self._inner.append(packs, durable=durable))

    def read_since(self, cursor: int, limit: int = 256) -> Any:
        self._do("read_since")
        return self._inner.read_since(cursor, limit)

    def beat(self, worker: str, body: Mapping[str, Any]) -> None:
        self._do("beat")
        self._inner.beat(worker, body)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


@pytest.fixture
def stubborn(firewall: Firewall) -> Stubborn:
    firewall.instance()
    found = Stubborn(firewall.runtime._journal)
    firewall.runtime._journal = found  # type: ignore[assignment]
    return found


@pytest.mark.parametrize("error", [JournalError("/state/journal.db: the disk is full"), RuntimeError("odd")])
async def test_calls_go_on_while_the_journal_fails_and_nothing_is_lost(
    firewall: Firewall, stubborn: Stubborn, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    stubborn.error = error
    stubborn.failing = {"append"}
    instance = firewall.instance()
    for _ in range(10):
        assert said(await call(instance, "db_query"))["degraded"] is False
        firewall.now += HOUR
    wait_for(lambda: runtime.alarms.counts().get("journal-write", 0) >= 3)
    assert caplog.text.count("journal-write") == 1
    assert any("journal-write" in text for text in runtime.alarms.active())
    journal = firewall.journal()
    # What others do still arrives.
    set_mode(journal, "warn", by="test", now=firewall.now)
    wait_for(firewall.runtime.engine.modes)
    stubborn.failing = set()
    wait_for(lambda: not runtime.alarms.active())
    wait_for(lambda: len(records_since(journal)) >= 21)
    assert len(records_since(journal)) == 21  # ten calls, ten outcomes, one change of mode
    journal.close()


async def test_what_a_working_journal_complains_about_is_an_alarm_until_it_is_over(
    firewall: Firewall, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "HEARTBEAT_SECONDS", 0.05)
    firewall.instance()
    monkeypatch.setattr(firewall.runtime._journal, "notes", lambda: ["appendonly is off"])
    wait_for(lambda: "journal-notes: appendonly is off" in runtime.alarms.active())
    monkeypatch.undo()
    wait_for(lambda: not runtime.alarms.active())


async def test_a_record_that_cannot_be_read_is_an_alarm(
    firewall: Firewall, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "HEARTBEAT_SECONDS", 0.05)
    firewall.instance()
    journal = firewall.journal()
    journal.append([packed(b"not a record")])
    wait_for(lambda: any("records-unreadable: 1 records" in text for text in runtime.alarms.active()))
    journal.close()


async def refused(instance: ToolFirewallPlugin) -> Any:
    """The answer to a call that is stopped for certain: one of far too many."""
    for _ in range(30):
        answer = await call(instance, "db_query")
    assert not answer.continue_processing
    return answer


async def test_a_refusal_says_whether_its_record_is_safe(firewall: Firewall, stubborn: Stubborn) -> None:
    instance = firewall.instance(mode="block")
    assert said(await refused(instance))["recorded"] is True
    stubborn.failing = {"append"}
    assert said(await refused(instance))["recorded"] is False
    stubborn.failing = set()
    wait_for(lambda: not any("journal-write" in text for text in runtime.alarms.active()))
    stubborn.slow = 0.5
    begin = time.monotonic()
    answer = await call(instance, "db_query")
    assert time.monotonic() - begin < 0.2  # it waits 50 ms, not for the disk
    assert not answer.continue_processing
    assert said(answer)["recorded"] is False
    stubborn.slow = 0


async def test_an_allowed_call_waits_for_nothing(firewall: Firewall, stubborn: Stubborn) -> None:
    stubborn.slow = 0.3
    instance = firewall.instance()
    begin = time.monotonic()
    for number in range(50):
        await call(instance, f"tool-{number % 2}")
    assert time.monotonic() - begin < 0.3
    stubborn.slow = 0


async def test_the_journal_is_read_in_pieces(firewall: Firewall, monkeypatch: pytest.MonkeyPatch) -> None:
    instance = firewall.instance()
    await firewall.history(instance, "db_query", calls=100)
    firewall.restart()
    monkeypatch.setattr(restoring, "_BATCH", 7)
    firewall.instance()
    assert firewall.runtime.engine.summary()["calls"] == 100


def test_a_journal_that_is_none_is_a_state_error(firewall: Firewall) -> None:
    firewall.state.mkdir(mode=0o700)
    (firewall.state / "key").write_bytes(bytes(32))
    (firewall.state / "key").chmod(0o600)
    (firewall.state / "journal.db").write_text("This is not a database, and never was one." * 100)
    with pytest.raises(StateError, match=r"journal\.db"):
        firewall.instance(mode="block")
    firewall.instance(mode="warn")
    assert runtime.running() == []
    assert runtime.alarms.active()


async def test_a_place_where_nobody_may_write_is_a_state_error(firewall: Firewall) -> None:
    nowhere = "/proc/tool-firewall/state"  # not even root can make a folder there
    with pytest.raises(StateError, match=nowhere):
        firewall.instance(mode="block", state=nowhere)
    assert said(await call(firewall.instance(mode="warn", state=nowhere), "t"))["unscreened"] is True


# --- shutting down while hooks run, forking ---


async def test_a_hook_that_runs_while_all_ends_gets_its_answer(firewall: Firewall) -> None:
    instance = firewall.instance(mode="block")
    await refused(instance)
    stuck = Stubborn(firewall.runtime._journal)
    stuck.slow = 0.3
    firewall.runtime._journal = stuck  # type: ignore[assignment]
    running = asyncio.create_task(call(instance, "db_query"))
    await asyncio.sleep(0.01)  # it waits for its record now
    await asyncio.to_thread(runtime.shut_down)
    assert not (await running).continue_processing
    # And the instance, should it be called once more, starts anew.
    assert said(await call(instance, "db_query", user="bob"))["degraded"] is False


async def test_what_was_learned_is_saved_behind_older_snapshots(firewall: Firewall) -> None:
    await firewall.history(firewall.instance(), "db_query", calls=20)
    journal = firewall.journal()
    wait_for(lambda: len(records_since(journal)) >= 40)
    for cursor in (journal.last() + 50, journal.last() + 60):
        journal.save_snapshot(cursor, b"of what was put in the place of an older copy")
    connection = journal._connection
    assert connection is not None
    with connection:
        sqlite_rescue.jump(connection, journal._key, journal.last() + 60)
    firewall.runtime._history_missing = True
    wait_for(lambda: journal.snapshots()[0].cursor == journal.last())
    firewall.restart()
    firewall.instance()
    assert firewall.runtime.engine.summary()["calls"] == 20
    assert runtime.alarms.active() == []


async def test_what_no_snapshot_holds_any_more_is_saved_by_who_knows_it(firewall: Firewall) -> None:
    await firewall.history(firewall.instance(), "db_query", calls=20)
    journal = firewall.journal()
    wait_for(lambda: len(records_since(journal)) >= 40)
    last = journal.last()
    while journal.prune(calls_before=math.inf, findings_before=math.inf, upto=last):
        pass
    assert journal.snapshots() == []  # deleted by mistake
    with pytest.raises(IncompleteError, match="no usable snapshot"):
        make_snapshot(firewall.runtime.settings, open_state(str(firewall.runtime.folder)), journal)
    assert journal.snapshots() == []
    firewall.runtime._keeper._start_snapshot()
    wait_for(journal.snapshots, 20.0)
    firewall.restart()
    firewall.instance()
    assert firewall.runtime.engine.summary()["calls"] == 20
    assert runtime.alarms.active() == []


def in_child(work: Any) -> Any:
    """Runs `work` in a forked child and returns what it returns."""
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()

    def child() -> None:
        try:
            results.put(("ok", work()))
        except BaseException as error:  # noqa: BLE001  it is handed to the parent
            results.put(("failed", repr(error)))

    process = context.Process(target=child)
    process.start()
    process.join(30)
    assert process.exitcode == 0
    how, value = results.get()
    assert how == "ok", value
    return value


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_child_starts_its_own_runtime(firewall: Firewall) -> None:
    instance = firewall.instance()
    asyncio.run(firewall.history(instance, "db_query", calls=20))
    parent = firewall.runtime
    context = PluginContext(global_context=about())
    asyncio.run(instance.tool_pre_invoke(ToolPreInvokePayload(name="db_query", args={}), context))
    wait_for(lambda: parent.engine.counters()["records_queued"] == 0)

    def child() -> tuple[bool, int, int, int]:
        # The ticket of a call that began in the parent means nothing here.
        assert context.global_context.state[HANDOVER]
        answer = asyncio.run(call(instance, "from_the_child"))
        mine = firewall.runtime
        assert mine is not parent
        runtime.shut_down()
        return said(answer)["degraded"], mine.worker, os.getpid(), mine.engine.summary()["calls"]

    for number in range(3):
        degraded, its_worker, pid, seen = in_child(child)
        assert degraded is False
        assert its_worker != parent.worker
        assert pid != os.getpid()
        assert seen == 22 + number  # what the parent and the earlier children did, and its own
    # The parent goes on as before, its journal intact, and learns of the children.
    assert firewall.runtime is parent
    wait_for(lambda: parent.engine.summary()["calls"] == 24)
    asyncio.run(call(instance, "db_query"))
    firewall.restart()
    firewall.instance()
    assert firewall.runtime.engine.summary()["calls"] == 25
    assert runtime.alarms.active() == []


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_forks_under_load_do_not_hang(firewall: Firewall) -> None:
    instance = firewall.instance()
    stop = threading.Event()

    def load() -> None:
        while not stop.is_set():
            asyncio.run(call(instance, "db_query"))

    thread = threading.Thread(target=load)
    thread.start()
    try:
        for _ in range(10):
            assert in_child(lambda: said(asyncio.run(call(instance, "t")))["degraded"]) is False
    finally:
        stop.set()
        thread.join()


def test_a_preloaded_gateway_may_fork_before_anything_runs(firewall: Firewall) -> None:
    def child() -> bool:
        answer = asyncio.run(call(firewall.instance(), "t"))
        runtime.shut_down()
        return bool(said(answer)["degraded"])

    assert in_child(child) is False
    assert runtime.running() == []
