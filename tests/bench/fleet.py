# SPDX-License-Identifier: Apache-2.0
"""Several real workers: processes of their own with the plugin in them, on one journal.

    with Fleet({"state": folder}, 4) as fleet:
        fleet.each("load", seconds=10, ...)      # all of them at once; a list of what they return
        fleet.one(2, "hooks", [...])             # one of them

The commands are the methods of Worker that take what the process was asked to do. Everything a worker returns
is measured in its own process, with clocks that all processes of one host share.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import multiprocessing
import random
import resource
import shutil
import socket
import subprocess
import time
from array import array
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from cpex.framework import (
    GlobalContext,
    PluginConfig,
    PluginContext,
    ToolPostInvokePayload,
    ToolPreInvokePayload,
)
from cpex_tool_firewall import runtime
from cpex_tool_firewall.plugin import ToolFirewallPlugin

NAME: Final = "ToolFirewall"
KIND: Final = "cpex_tool_firewall.plugin.ToolFirewallPlugin"
TOOLS: Final = 7
FINE: Final = ToolPostInvokePayload(name="search", result={"content": [], "isError": False})
WORDS: Final = ("river", "stone", "light", "garden", "window", "paper", "simple", "orange", "music", "number")

_START_SECONDS: Final = 60.0
_BREATH: Final = 0.002  # s between two looks at what is due
_CONTEXTS: Final = 8192
_VARIANTS: Final = 71  # of the arguments for each tool
_STRANGE_EVERY: Final = 501  # calls: a tool that its user has never used


def arguments(seed: int) -> dict[str, Any]:
    """Clean arguments of about 200 bytes of JSON."""
    chance = random.Random(seed)
    return {
        "query": " ".join(chance.choices(WORDS, k=10)),
        "limit": chance.randint(1, 99),
        "options": {"sort": "asc", "deep": True},
        "note": " ".join(chance.choices(WORDS, k=12)),
    }


def instance(settings: Mapping[str, Any]) -> ToolFirewallPlugin:
    """A plugin instance as the gateway makes it."""
    hooks = ["tool_pre_invoke", "tool_post_invoke"]
    return ToolFirewallPlugin(PluginConfig(name=NAME, kind=KIND, hooks=hooks, config=dict(settings)))


class Fleet:
    """`count` workers with the plugin's `settings`; `settings["state"]` is a folder they share."""

    def __init__(self, settings: Mapping[str, Any], count: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipes: list[Connection] = []
        self._processes = []
        for number in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(dict(settings), number, theirs), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)
        self.workers: list[int] = [self._answer(pipe, _START_SECONDS) for pipe in self._pipes]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Ends all workers as a process should: what they have recorded is in the journal then."""
        for pipe in self._pipes:
            with contextlib.suppress(OSError):
                pipe.send(None)
        for process in self._processes:
            process.join(15)
            if process.is_alive():
                process.kill()
                process.join()
        for pipe in self._pipes:
            pipe.close()
        self._pipes.clear()

    def one(self, number: int, command: str, *about: Any, **more: Any) -> Any:
        """What one worker returns for a command."""
        self.ask(number, command, *about, **more)
        return self.answer(number)

    def each(self, command: str, *about: Any, **more: Any) -> list[Any]:
        """What every worker returns, all of them at work at the same time."""
        for number in range(len(self._pipes)):
            self.ask(number, command, *about, **more)
        return [self.answer(number) for number in range(len(self._pipes))]

    def ask(self, number: int, command: str, *about: Any, **more: Any) -> None:
        """Sends a command; answer() gets what it returns."""
        self._pipes[number].send((command, about, more))

    def answer(self, number: int) -> Any:
        """What the oldest unanswered command of a worker returned; RuntimeError when it failed."""
        return self._answer(self._pipes[number], 600.0)

    @staticmethod
    def _answer(pipe: Connection, seconds: float) -> Any:
        if not pipe.poll(seconds):
            raise RuntimeError(f"a worker does not answer within {seconds:g} s")
        what, value = pipe.recv()
        if what == "error":
            raise RuntimeError(f"a worker failed: {value}")
        return value


def _serve(settings: dict[str, Any], number: int, pipe: Connection) -> None:
    logging.disable(logging.CRITICAL)
    try:
        worker = Worker(settings, number)
        pipe.send(("ok", worker.runtime.worker))
        while (task := pipe.recv()) is not None:
            command, about, more = task
            pipe.send(("ok", getattr(worker, command)(*about, **more)))
    except EOFError:
        pass  # the parent is gone
    except Exception as error:  # noqa: BLE001  the parent must learn of whatever it was
        pipe.send(("error", f"{type(error).__name__}: {error}"))
    finally:
        runtime.shut_down()


class Worker:
    """In its process: an instance of the plugin, its runtime, and what was seen of its journal thread."""

    def __init__(self, settings: Mapping[str, Any], number: int) -> None:
        self.number = number
        self.plugin = instance(settings)
        (self.runtime,) = runtime.running()
        self.marks: list[tuple[float, int]] = []  # when everything up to a cursor was applied
        self._watch_reading()
        self._callers: dict[tuple[str, ...], Any] = {}
        self._policies: dict[tuple[str, float], Any] = {}

    def _watch_reading(self) -> None:
        found, marks = self.runtime, self.marks
        read = found._read

        def watched() -> None:
            before = found._cursor
            read()
            if found._cursor != before:
                marks.append((time.time(), found._cursor))

        found._read = watched  # type: ignore[method-assign]

    # --- load ---

    def load(self, *, begin: float, seconds: float, rate: float, users: int, workers: int) -> dict[str, Any]:
        """Calls both hooks `rate` times a second, evenly, from the time `begin` on; users take turns over
        all workers. Returns what was measured; waits 1 s more, so that the others' last calls come in.
        """
        return asyncio.run(self._load(begin, seconds, rate, users, workers))

    async def _load(
        self, begin: float, seconds: float, rate: float, users: int, workers: int
    ) -> dict[str, Any]:
        count = int(seconds * rate)
        self.marks.clear()
        spans = array("q", bytes(8 * count))
        payloads = {
            (tool, seed): ToolPreInvokePayload(name=f"tool_{tool}", args=arguments(seed))
            for tool in range(TOOLS)
            for seed in range(_VARIANTS)
        }
        strange = ToolPreInvokePayload(name="strange_tool", args=arguments(0))
        contexts = [
            PluginContext(global_context=GlobalContext(request_id="r", user="", tenant_id="team"))
            for _ in range(_CONTEXTS)
        ]
        running: deque[PluginContext] = deque()
        before, after = self.plugin.tool_pre_invoke, self.plugin.tool_post_invoke
        clock, done, stopped, notable = time.perf_counter_ns, 0, 0, 0
        journal_cpu, own_cpu = self._journal_cpu(), time.process_time()
        await asyncio.sleep(begin - time.time())
        while done < count:
            while running:
                await after(FINE, running.popleft())
            for n in range(done, min(int((time.time() - begin) * rate), count)):
                turn = n * workers + self.number
                context = contexts[n % _CONTEXTS]
                # The shift in each round takes everybody to every worker.
                user = (turn + turn // users) % users
                context.global_context.user = f"user{user}@example.com"
                payload = strange if turn % _STRANGE_EVERY == 0 else payloads[(user % TOOLS, n % _VARIANTS)]
                start = clock()
                answer = await before(payload, context)
                spans[n] = clock() - start
                stopped += not answer.continue_processing
                notable += bool(answer.metadata[NAME]["notable"])
                running.append(context)
                done += 1
            await asyncio.sleep(_BREATH)
        while running:
            await after(FINE, running.popleft())
        took = time.time() - begin
        own_cpu = time.process_time() - own_cpu
        journal_cpu = self._journal_cpu() - journal_cpu
        await asyncio.sleep(1)
        return {
            "worker": self.runtime.worker,
            "made": done,
            "took": took,
            "spans": spans,
            "stopped": stopped,
            "notable": notable,
            "journal_cpu": journal_cpu,
            "cpu": own_cpu,
            "children_cpu": sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2]),
            "marks": self.marks,
            "counters": self.runtime.engine.counters(),
            "memory": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        }

    def _journal_cpu(self) -> float:
        thread = self.runtime._thread.ident
        assert thread is not None
        return time.clock_gettime(time.pthread_getcpuclockid(thread))

    # --- single calls ---

    def hooks(self, calls: Sequence[tuple[str, str]], at: Sequence[float] = ()) -> list[dict[str, Any]]:
        """Whole calls (user, tool) through both hooks, the first at once or each at its time in `at`; the
        metadata of their answers, and `stopped`.
        """
        return asyncio.run(self._hooks(calls, at))

    async def _hooks(self, calls: Sequence[tuple[str, str]], at: Sequence[float]) -> list[dict[str, Any]]:
        found = []
        for number, (user, tool) in enumerate(calls):
            if at:
                await asyncio.sleep(max(0.0, at[number] - time.time()))
            about = GlobalContext(request_id="r", user=user, tenant_id="team")
            context = PluginContext(global_context=about)
            answer = await self.plugin.tool_pre_invoke(ToolPreInvokePayload(name=tool, args={}), context)
            if answer.continue_processing:
                await self.plugin.tool_post_invoke(FINE, context)
            found.append(dict(answer.metadata[NAME]) | {"stopped": not answer.continue_processing})
        return found

    def calls(self, calls: Sequence[Any]) -> list[tuple[float, str, bool]]:
        """Calls (replicas.Call) of a time of their own, straight to the engine, each ended at once: (risk,
        decision, blocked).
        """
        found = []
        engine = self.runtime.engine
        for call in calls:
            verdict = engine.check(self._policy(call), self._caller(call), "", call.tool, {}, call.at)
            if verdict.ticket:
                engine.observe(verdict.ticket, "ok", call.at)
            found.append((verdict.risk, verdict.decision, verdict.blocked))
        return found

    def _caller(self, call: Any) -> Any:
        key = (call.tenant, call.user, call.group, call.session)
        if key not in self._callers:
            self._callers[key] = self.runtime.engine.caller(
                call.tenant, call.user, group=call.group, session=call.session
            )
        return self._callers[key]

    def _policy(self, call: Any) -> Any:
        key = (call.mode, call.threshold)
        if key not in self._policies:
            self._policies[key] = self.runtime.engine.policy(mode=call.mode, threshold=call.threshold)
        return self._policies[key]

    # --- where it stands ---

    def stored(self) -> int:
        """Waits until everything this worker has recorded is in the journal; the cursor it is in by then."""
        return asyncio.run(self._stored())

    async def _stored(self) -> int:
        for _ in range(10):
            if await self.runtime.recorded(timeout=2):
                break
            await asyncio.sleep(0.1)  # another worker kept the file locked
        else:
            raise RuntimeError("the journal does not take the records")
        return self.runtime._journal.last()

    def reach(self, cursor: int, seconds: float = 10.0) -> float:
        """Waits until everything up to `cursor` was applied; how long that took."""
        begin = time.monotonic()
        while self.runtime._cursor < cursor:
            if time.monotonic() - begin > seconds:
                raise RuntimeError(f"cursor {cursor} not reached in {seconds:g} s: {self.runtime._cursor}")
            time.sleep(0.001)
        return time.monotonic() - begin

    def counters(self) -> dict[str, int]:
        """Engine.counters()."""
        return self.runtime.engine.counters()


@contextlib.contextmanager
def redis_server(folder: Path) -> Iterator[str]:
    """A redis-server of our own for as long as the block lasts; its address. RuntimeError without one."""
    found = shutil.which("redis-server")
    if found is None:
        raise RuntimeError("there is no redis-server here: apt-get install redis-server")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = {
        "--port": port,
        "--bind": "127.0.0.1",
        "--dir": folder,
        "--save": "",
        "--appendonly": "yes",
        "--appendfsync": "everysec",
        "--maxmemory-policy": "noeviction",
    }
    command = [found, *(str(part) for pair in options.items() for part in pair)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.05)
        else:
            raise RuntimeError("redis-server does not start")
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        server.terminate()
        server.wait(10)
