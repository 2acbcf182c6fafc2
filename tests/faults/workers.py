# SPDX-License-Identifier: Apache-2.0
"""Whole workers in processes of their own, under load, and what they answered until somebody killed them.

A worker is what a gateway's worker is to the firewall: it was forked from a process that had imported the
plugin, makes an instance, and calls the two hooks. It tells every answer, with its moment, through a pipe as
it happens, so that what it had answered is known whenever it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import multiprocessing
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from cpex.framework import (
    GlobalContext,
    PluginConfig,
    PluginContext,
    ToolPostInvokePayload,
    ToolPreInvokePayload,
)
from cpex_tool_firewall import keeper, runtime
from cpex_tool_firewall._native import decode_record
from cpex_tool_firewall.config import load
from cpex_tool_firewall.journal.interface import Journal, records_since
from cpex_tool_firewall.journal.opening import open_journal
from cpex_tool_firewall.plugin import ToolFirewallPlugin
from cpex_tool_firewall.snapshotter import make_snapshot
from cpex_tool_firewall.state import open_state

FULL: Final = os.environ.get("TOOL_FIREWALL_FAULTS") == "full"
"""The figures the project promises; without it a short slice of the same."""

NAME: Final = "ToolFirewall"
FINE: Final[dict[str, Any]] = {"content": [{"type": "text", "text": "done"}], "isError": False}
TOOL: Final = "db_query"
"""What ordinary calls call."""

ORDINARY_CALLS_PER_USER: Final = 10
"""Each user makes so few that nobody is stopped for a burst."""

_MESSAGE: Final = struct.Struct("<dcQ")  # monotonic moment, what, number
_READY, _CALL, _RECORDED, _UNRECORDED, _PHASE, _TROUBLE, _ANSWER = (bytes([one]) for one in b"WCRUPTA")
_PHASES: Final = ("append", "prune", "tidy", "heal", "save_snapshot", "start_snapshot")


@dataclass(frozen=True)
class Task:
    """What a worker does. settings: the plugin's. calls, decisions: how many a second."""

    folder: Path
    settings: Mapping[str, Any] = field(default_factory=dict)
    calls: float = 300.0
    decisions: float = 40.0
    eager_keeper: bool = False  # snapshots, pruning and checkpoints several times a second
    marked: tuple[str, ...] = ()  # of _PHASES: the worker tells when it enters one
    only_snapshots: bool = False  # no calls: make one snapshot after the other, as the snapshot process does

    def plugin(self) -> ToolFirewallPlugin:
        """An instance as the gateway makes it."""
        return ToolFirewallPlugin(
            PluginConfig(
                name=NAME,
                kind="cpex_tool_firewall.plugin.ToolFirewallPlugin",
                hooks=["tool_pre_invoke", "tool_post_invoke"],
                config={"state": str(self.folder), "mode": "block", **self.settings},
            )
        )


async def call(made: ToolFirewallPlugin, user: str, tool: str) -> dict[str, Any]:
    """A whole call; the firewall's metadata of the answer, "stopped" and "incident" added."""
    context = PluginContext(global_context=GlobalContext(request_id="r", user=user, tenant_id="team"))
    answer = await made.tool_pre_invoke(ToolPreInvokePayload(name=tool, args={"q": 1}), context)
    told = dict(answer.metadata[NAME]) | {"stopped": not answer.continue_processing}
    if answer.continue_processing:
        await made.tool_post_invoke(ToolPostInvokePayload(name=tool, result=FINE), context)
    else:
        told["incident"] = answer.violation.details["incident"]
    return told


def resident() -> int:
    """Bytes of memory this process has in use."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def open_files() -> int:
    """How many files this process has open."""
    return len(os.listdir("/proc/self/fd"))


class Worker:
    """A running worker process, and what it has told so far. kill() or stop() it."""

    def __init__(self, task: Task, environment: Mapping[str, str] | None = None) -> None:
        """environment: more variables; the worker is then started anew instead of forked."""
        self.number = 0  # of its runtime
        self.answers: list[bool] = []  # to ask(): whether the call was stopped
        self.answered: list[float] = []  # monotonic moments at which an ordinary call was answered
        self.recorded: dict[int, float] = {}  # incident -> moment: decisions answered as recorded
        self.unrecorded: dict[int, float] = {}
        self.phases: Counter[str] = Counter()
        self.troubles = 0  # answers that an ordinary call must not get
        self._changed = threading.Condition()
        ours, theirs = _context.Pipe(duplex=False)
        their_orders, self._orders = _context.Pipe(duplex=False)
        if environment is None:
            self._process: Any = _context.Process(
                target=_work, args=(task, theirs, their_orders), daemon=True
            )
            self._process.start()
        else:
            self._process = _Started(environment, theirs, their_orders)
            self._orders.send(task)
        theirs.close()
        their_orders.close()
        self._reader = threading.Thread(target=self._read, args=(ours,), daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """Of the process."""
        pid: int = self._process.pid
        return pid

    def wait(self, condition: Callable[[Worker], Any], seconds: float = 30.0) -> None:
        """Waits for what a worker is to tell; AssertionError when it does not within `seconds`."""
        with self._changed:
            assert self._changed.wait_for(lambda: condition(self) or not self._reader.is_alive(), seconds), (
                f"the worker did not get there within {seconds} s"
            )
        assert condition(self), f"the worker ended before it got there: exit code {self._process.exitcode}"

    def wait_for_phase(self, phase: str, seconds: float = 30.0) -> None:
        """Returns as soon as the worker enters `phase` once more."""
        before = self.phases[phase]
        self.wait(lambda worker: worker.phases[phase] > before, seconds)

    def ask(self, user: str, tool: str, seconds: float = 10.0) -> bool:
        """Has it make one more call; whether that was stopped."""
        before = len(self.answers)
        self._orders.send((user, tool))
        self.wait(lambda worker: len(worker.answers) > before, seconds)
        return self.answers[before]

    def kill(self) -> float:
        """SIGKILL to it and to whatever it started; the moment before."""
        moment = time.monotonic()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._end()
        return moment

    def stop(self, seconds: float = 30.0) -> int | None:
        """Asks it to end as it should; its exit code."""
        with contextlib.suppress(BrokenPipeError):
            self._orders.send(None)
        self._process.join(seconds)
        return self._end()

    def _end(self) -> int | None:
        if self._process.is_alive():
            self._process.kill()
        self._process.join()
        self._reader.join(10)
        self._orders.close()
        code: int | None = self._process.exitcode
        return code

    def _read(self, pipe: Connection) -> None:
        with contextlib.suppress(EOFError, OSError):
            while True:
                moment, what, number = _MESSAGE.unpack(pipe.recv_bytes())
                with self._changed:
                    self._note(moment, what, number)
                    self._changed.notify_all()
        pipe.close()
        with self._changed:
            self._changed.notify_all()

    def _note(self, moment: float, what: bytes, number: int) -> None:
        if what == _READY:
            self.number = number
        elif what == _CALL:
            self.answered.append(moment)
        elif what == _RECORDED:
            self.recorded[number] = moment
        elif what == _UNRECORDED:
            self.unrecorded[number] = moment
        elif what == _ANSWER:
            self.answers.append(bool(number))
        elif what == _PHASE:
            self.phases[_PHASES[number]] += 1
        else:
            self.troubles += 1


class _Started:
    """A worker process that was started with variables of its own, as far as Worker uses a process."""

    def __init__(self, environment: Mapping[str, str], pipe: Connection, orders: Connection) -> None:
        self._popen = subprocess.Popen(
            [
                sys.executable,
                "-c",
                "import workers; workers.main()",
                str(pipe.fileno()),
                str(orders.fileno()),
            ],
            pass_fds=(pipe.fileno(), orders.fileno()),
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **environment},
        )
        self.pid = self._popen.pid
        self.kill = self._popen.kill

    @property
    def exitcode(self) -> int | None:
        return self._popen.poll()

    def is_alive(self) -> bool:
        return self._popen.poll() is None

    def join(self, seconds: float | None = None) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(seconds)


class Seen:
    """What is in the journal of a folder, read as it grows: the calls of each worker, and the decisions."""

    def __init__(self, task: Task) -> None:
        state = open_state(str(task.folder))
        self.settings = load({"state": str(task.folder), **task.settings})
        self.key = state.key
        self.journal: Journal = open_journal(self.settings, state, busy_seconds=5.0)
        self.calls: dict[int, set[int]] = {}  # worker -> seqs of its calls of TOOL that ran
        self.every: set[tuple[int, int]] = set()  # (worker, seq) of all calls
        self.numbered: dict[int, set[int]] = {}  # worker -> seqs of all its calls and controls
        self.decisions: set[int] = set()  # incidents
        self.controls: list[dict[str, Any]] = []
        self._cursor = 0

    def catch_up(self) -> None:
        """Reads what is new."""
        last = self.journal.last()
        for record in records_since(self.journal, self._cursor):
            fields = decode_record(record)
            worker, seq = fields["worker"], fields["seq"]
            if fields["kind"] == "outcome":
                continue
            self.numbered.setdefault(worker, set()).add(seq)
            if fields["kind"] == "control":
                self.controls.append(fields)
                continue
            self.every.add((worker, seq))
            if fields["blocked"]:
                self.decisions.add(_incident(fields["incident"]))
            elif fields["tool"] == TOOL:
                self.calls.setdefault(worker, set()).add(seq)
        self._cursor = last

    def close(self) -> None:
        """Closes the journal."""
        self.journal.close()


def _incident(text: str) -> int:
    return int(text.removeprefix("tf-"), 16)


# --- in the worker ---


def main() -> None:
    """Of a process that was started: the pipes are given by number, the task comes through the second."""
    pipe, orders = Connection(int(sys.argv[1])), Connection(int(sys.argv[2]))
    _work(orders.recv(), pipe, orders)


def _work(task: Task, pipe: Connection, orders: Connection) -> None:
    os.setsid()  # with what it starts, a group of its own
    logging.disable(logging.WARNING)
    _mark(task, pipe)
    if task.eager_keeper:
        _make_eager()
    if task.only_snapshots:
        _make_snapshots(task, pipe, orders)
        return
    asyncio.run(_load(task, pipe, orders))
    runtime.shut_down()


def _make_snapshots(task: Task, pipe: Connection, orders: Connection) -> None:
    state = open_state(str(task.folder))
    settings = load({"state": str(task.folder), **task.settings})
    journal = open_journal(settings, state, create=False, busy_seconds=5.0)
    _tell(pipe, _READY, 1)
    while not orders.poll():
        make_snapshot(settings, state, journal)
    journal.close()


async def _load(task: Task, pipe: Connection, orders: Connection) -> None:
    made = task.plugin()
    (found,) = runtime.running()
    _tell(pipe, _READY, found.worker)
    decisions = asyncio.create_task(_decisions(made, task, pipe))
    begun, done = time.monotonic(), 0
    while True:
        if orders.poll():
            order = orders.recv()
            if order is None:
                break
            told = await call(made, *order)
            _tell(pipe, _ANSWER, told["stopped"])
        due = int((time.monotonic() - begun) * task.calls)
        while done < due:
            told = await call(made, f"user-{found.worker:x}-{done // ORDINARY_CALLS_PER_USER}", TOOL)
            _tell(pipe, _TROUBLE if told["stopped"] or told["degraded"] else _CALL, done)
            done += 1
        await asyncio.sleep(0.001)
    decisions.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await decisions


async def _decisions(made: ToolFirewallPlugin, task: Task, pipe: Connection) -> None:
    """A user who is stopped for a burst again and again."""
    while task.decisions:
        told = await call(made, "mallory", "delete_records")
        if told["stopped"]:
            _tell(pipe, _RECORDED if told["recorded"] else _UNRECORDED, _incident(told["incident"]))
            await asyncio.sleep(1 / task.decisions)


def _tell(pipe: Connection, what: bytes, number: int) -> None:
    pipe.send_bytes(_MESSAGE.pack(time.monotonic(), what, number))


def _mark(task: Task, pipe: Connection) -> None:
    """Makes this process tell when it enters the phases of `task`."""
    from cpex_tool_firewall.journal.sqlite import SqliteJournal

    for phase in task.marked:
        owner, name = (
            (keeper.Keeper, "_start_snapshot") if phase == "start_snapshot" else (SqliteJournal, phase)
        )
        real, number = getattr(owner, name), _PHASES.index(phase)

        def marked(*args: Any, _real: Any = real, _number: int = number, **more: Any) -> Any:
            _tell(pipe, _PHASE, _number)
            return _real(*args, **more)

        setattr(owner, name, marked)


def _make_eager() -> None:
    for name in ("_LEAD_EVERY", "_TIDY_EVERY", "_PRUNE_EVERY", "_SNAPSHOT_CHECK_EVERY"):
        setattr(keeper, name, 0.1)
    keeper._SNAPSHOT_RECORDS = 200  # type: ignore[misc]
    keeper.LEASE_SECONDS = 0.5  # type: ignore[misc]
    # With keep_calls_days at 0.01, its least, ordinary records are old after two seconds.
    keeper._DAY = 200.0  # type: ignore[misc]


_context: Final = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["cpex_tool_firewall.plugin", "cpex.framework", "workers"])
