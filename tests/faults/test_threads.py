# SPDX-License-Identifier: Apache-2.0
"""Many event loops in many threads call the hooks of instances that are rebuilt and given up meanwhile."""

import asyncio
import gc
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cpex_tool_firewall import outbox, runtime
from cpex_tool_firewall.plugin import ToolFirewallPlugin
from workers import FULL, Seen, Task, call, open_files, resident

LOOPS = 8
CALLERS_PER_LOOP = 8
CONTEXTS = 16
REBUILDS = 100_000 if FULL else 10_000
DRIFT = 0.02
ALLOWANCE = 1 << 20  # bytes: pages, not objects


class Contexts:
    """Plugin instances by context, as the gateway keeps them: each is replaced now and then."""

    def __init__(self, task: Task) -> None:
        self.rebuilds = 0
        self._task = task
        self._instances = [task.plugin() for _ in range(CONTEXTS)]

    def any(self, chance: random.Random) -> ToolFirewallPlugin:
        """The instance of one context. It may be given up while it is used."""
        return self._instances[chance.randrange(CONTEXTS)]

    async def rebuild(self) -> None:
        """As the gateway does it: the old one is shut down, whoever uses it, and a new one made."""
        number = self.rebuilds % CONTEXTS
        await self._instances[number].shutdown()
        self._instances[number] = self._task.plugin()
        self.rebuilds += 1


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Task]:
    runtime.shut_down()
    # What is remembered of ten seconds would look like growth.
    monkeypatch.setattr(outbox, "RESEND_SECONDS", 0.2)
    yield Task(tmp_path / "state", {"mode": "learning"})
    runtime.shut_down()


def test_instances_are_rebuilt_under_many_loops(task: Task, capsys: pytest.CaptureFixture[str]) -> None:
    contexts = Contexts(task)
    (process,) = runtime.running()
    errors: list[BaseException] = []
    done: list[int] = []
    ending = threading.Event()

    async def caller(chance: random.Random) -> int:
        calls = 0
        while not ending.is_set():
            told = await call(contexts.any(chance), f"user-{chance.randrange(50)}", "db_query")
            assert told["total_checked"] == 1
            assert not told["degraded"]
            calls += 1
            await asyncio.sleep(0.2)  # what cannot be stored at once would look like growth
        return calls

    async def loop(number: int) -> None:
        chances = [random.Random(number * 100 + one) for one in range(CALLERS_PER_LOOP)]
        done.extend(await asyncio.gather(*map(caller, chances)))

    def thread(number: int) -> None:
        try:
            asyncio.run(loop(number))
        except BaseException as error:  # noqa: BLE001  the test looks at it
            errors.append(error)

    async def rebuild(until: int) -> None:
        while contexts.rebuilds < until and not errors:
            await contexts.rebuild()
            if contexts.rebuilds % 50 == 0:
                await asyncio.sleep(0.001)

    threads = [threading.Thread(target=thread, args=(number,)) for number in range(LOOPS)]
    for one in threads:
        one.start()
    try:
        asyncio.run(rebuild(REBUILDS // 2))
        gc.collect()
        before = resident(), open_files()
        asyncio.run(rebuild(REBUILDS))
        gc.collect()
        after = resident(), open_files()
    finally:
        ending.set()
        for one in threads:
            one.join()
    assert errors == []
    assert runtime.running() == [process]
    assert runtime.events["error_pre"] == runtime.events["error_post"] == 0
    gc.collect()
    assert len(process.instances) == CONTEXTS
    with capsys.disabled():
        print(
            f"\n{REBUILDS} rebuilds under {LOOPS} loops with {sum(done)} calls: resident "
            f"{before[0] >> 10} -> {after[0] >> 10} KiB, {before[1]} -> {after[1]} open files"
        )
    assert after[1] <= before[1]
    assert after[0] <= before[0] * (1 + DRIFT) + ALLOWANCE
    runtime.shut_down()
    seen = Seen(task)
    seen.catch_up()
    assert sum(map(len, seen.calls.values())) == sum(done)
    seen.close()


def test_decisions_on_many_loops_are_each_answered(task: Task) -> None:
    """The journal thread answers those who wait on the loop they wait on."""
    made = Task(task.folder, {"mode": "block"}).plugin()
    recorded: list[bool] = []

    async def one(number: int) -> None:
        for _ in range(60):
            told = await call(made, f"mallory-{number}", "delete_records")
            if told["stopped"]:
                recorded.append(told["recorded"])

    threads = [threading.Thread(target=lambda n=n: asyncio.run(one(n))) for n in range(LOOPS)]  # type: ignore[misc]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(recorded) >= LOOPS * 30
    # Waiting more than 50 ms for the disk is allowed; on a busy machine it happens.
    assert sum(recorded) > len(recorded) * 0.8


def test_a_loop_that_ended_is_nobody_to_answer(task: Task) -> None:
    """A gateway's loop may end, or be stopped, while a decision waits for its record."""
    made = Task(task.folder, {"mode": "block"}).plugin()
    failed_before = runtime.alarms.counts().get("journal-write", 0)

    async def cut_short() -> None:
        for _ in range(30):
            waiting = asyncio.ensure_future(call(made, "mallory", "delete_records"))
            await asyncio.sleep(0)
            waiting.cancel()

    for _ in range(20):
        asyncio.run(cut_short())
    time.sleep(0.1)
    assert asyncio.run(call(made, "alice", "db_query"))["total_checked"] == 1
    assert runtime.alarms.counts().get("journal-write", 0) == failed_before
    (process,) = runtime.running()
    assert not process._waiting


def test_a_free_threaded_python_is_refused() -> None:
    """There the GIL would not keep the engine's calls apart."""
    code = (
        "import sys; sys.abiflags = 't'\n"
        "try:\n    import cpex_tool_firewall\n"
        "except ImportError as error:\n    print(error); sys.exit(0)\n"
        "sys.exit('it was imported')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "free-threaded" in done.stdout


def test_resident_memory_is_measured() -> None:
    """The checks above rest on it."""
    before = resident()
    block = bytearray(os.urandom(1 << 20)) * 16
    assert resident() - before > 8 << 20
    del block
