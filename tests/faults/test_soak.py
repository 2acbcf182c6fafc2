# SPDX-License-Identifier: Apache-2.0
"""A day of a worker in a few seconds: steady calls, instances rebuilt, snapshots, pruning, lost files, again
and again. Memory and open files stay as they were, and so does what is known of a user who is away.

`make soak` takes TOOL_FIREWALL_SOAK_SECONDS for it, half an hour unless told.
"""

import asyncio
import gc
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from cpex_tool_firewall import keeper, outbox, runtime
from cpex_tool_firewall import plugin as plugin_module
from cpex_tool_firewall.plugin import ToolFirewallPlugin
from workers import Seen, Task, call, open_files, resident

SECONDS: Final = float(os.environ.get("TOOL_FIREWALL_SOAK_SECONDS", "8"))
CONTEXTS: Final = 20
REBUILDS_A_DAY: Final = 2880  # every 30 s
CALLS_PER_SECOND: Final = 300.0
USERS: Final = 400
DAY: Final = 86_400.0
MOST_RESIDENT: Final = 256 << 20
DRIFT: Final = 0.02
ALLOWANCE: Final = 4 << 20  # bytes; of a process that is young, and whose snapshots take pages for a moment
LOSSES: Final = 3  # times the journal's files are deleted
FILES_FOR_A_WHILE: Final = 12  # of a snapshot process, and of a file that was saved


class Day:
    """Time that goes so fast that a day takes SECONDS."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._start = time.time() - DAY

    def __call__(self) -> float:
        return self._start + (time.monotonic() - self._begun) * DAY / SECONDS


@pytest.fixture
def task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Task]:
    runtime.shut_down()
    monkeypatch.setattr(plugin_module, "time", Day())
    monkeypatch.setattr(outbox, "RESEND_SECONDS", 2.0)  # or what is remembered would look like growth
    for name in ("_LEAD_EVERY", "_TIDY_EVERY", "_PRUNE_EVERY", "_SNAPSHOT_CHECK_EVERY"):
        monkeypatch.setattr(keeper, name, 0.2)
    monkeypatch.setattr(keeper, "_SNAPSHOT_RECORDS", CALLS_PER_SECOND * SECONDS / 5)
    monkeypatch.setattr(keeper, "_DAY", 200.0)  # what is older than two seconds may be pruned
    yield Task(tmp_path / "state", {"mode": "learning", "keep_calls_days": 0.01})
    runtime.shut_down()


class Soak:
    """The traffic of that day, and what it is measured by."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.instances: list[ToolFirewallPlugin] = [task.plugin() for _ in range(CONTEXTS)]
        (self.runtime,) = runtime.running()
        self.calls = self.rebuilds = self.losses = 0
        self.sizes: list[int] = []
        self.files: list[int] = []
        self._chance = random.Random(7)

    async def one(self, user: str, tool: str) -> None:
        """A call at one of the contexts."""
        told = await call(self._chance.choice(self.instances), user, tool)
        assert told["total_checked"] == 1
        self.calls += 1

    def baseline(self) -> Any:
        """What is known of the one who is away. Counts fade with the hours, all alike: these are shares.
        What is usual is left out: it is judged beside the others, who learn.
        """
        found = self.runtime.engine.baseline("team", "victim")
        assert found is not None
        steps = {(step["from"], step["to"]): step["count"] for step in found["steps"]}
        shares = {way: round(count / sum(steps.values()), 9) for way, count in steps.items()}
        tools = {tool["tool"]: round(tool["share"], 9) for tool in found["tools"]}
        return found["calls"], found["first"], found["last"], found["signals"]["novelty"], tools, shares

    async def run(self) -> None:
        """The whole day."""
        begun = time.monotonic()
        while (gone := time.monotonic() - begun) < SECONDS:
            while self.calls < gone * CALLS_PER_SECOND:
                number = self._chance.randrange(USERS)
                await self.one(f"user-{number}", f"tool-{self._chance.randrange(5) + number % 7}")
            while self.rebuilds < gone / SECONDS * REBUILDS_A_DAY:
                context = self.rebuilds % CONTEXTS
                await self.instances[context].shutdown()
                self.instances[context] = self.task.plugin()
                self.rebuilds += 1
            if self.losses < (gone / SECONDS) * (LOSSES + 1) - 1:
                (self.task.folder / "journal.db").unlink()
                self.losses += 1
            if len(self.sizes) < gone / SECONDS * 100:
                self.sizes.append(resident())
                self.files.append(open_files())
            await asyncio.sleep(0.002)


def test_a_day(task: Task, capsys: pytest.CaptureFixture[str]) -> None:
    soak = Soak(task)

    async def past() -> None:
        for number in range(60):
            await soak.one("victim", ("db_query", "report", "export")[number % 3])

    asyncio.run(past())
    before = soak.baseline()
    asyncio.run(soak.run())
    gc.collect()
    assert soak.baseline() == before
    settled = soak.sizes[len(soak.sizes) // 2]
    with capsys.disabled():
        print(
            f"\na day in {SECONDS:g} s: {soak.calls} calls, {soak.rebuilds} rebuilds, {soak.losses} lost "
            f"files; resident {soak.sizes[0] >> 20} MiB at first, {settled >> 20} at noon, "
            f"{soak.sizes[-1] >> 20} at the end, {max(soak.sizes) >> 20} at most; "
            f"open files {soak.files[0]} to {max(soak.files)}"
        )
    assert runtime.running() == [soak.runtime]
    assert runtime.events["error_pre"] == runtime.events["error_post"] == 0
    assert max(soak.sizes) <= MOST_RESIDENT
    assert soak.sizes[-1] <= settled * (1 + DRIFT) + ALLOWANCE
    # A file that was saved stays open, locked, for a few seconds; then all is as before.
    assert max(soak.files) <= soak.files[0] + FILES_FOR_A_WHILE
    until = time.monotonic() + 10
    while open_files() > soak.files[0] + 2 and time.monotonic() < until:
        time.sleep(0.1)
    assert open_files() <= soak.files[0] + 2
    assert soak.runtime.engine.counters()["records_dropped"] == 0
    runtime.shut_down()
    seen = Seen(task)
    assert len(seen.journal.snapshots()) >= 1
    assert seen.journal.verify().problem == ""
    assert seen.journal.first() > 0  # something was pruned
    seen.close()
