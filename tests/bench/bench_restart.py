# SPDX-License-Identifier: Apache-2.0
"""How long a worker takes to be ready: the snapshot of a long history, and the journal after it.

python tests/bench/bench_restart.py [--full] [--calls 1000000] [--users 20000] [--check]

The history is made by an engine that checks and observes every one of the calls, spread over 14 days, and
saved as a snapshot; after it the journal holds as many records as the tail says. Timed is runtime.acquire()
in a process of its own that has imported the plugin. 500,000 records are what makes a snapshot due; another
100,000 come while it is made, under the load of bench_workers.py.

--full: 10,000,000 calls. --check: exit code 1 when a start takes 2 s or longer.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cpex_tool_firewall import runtime
from cpex_tool_firewall._native import Engine
from cpex_tool_firewall.config import load
from cpex_tool_firewall.engines import build_engine
from cpex_tool_firewall.journal.interface import Pack
from cpex_tool_firewall.journal.opening import open_journal
from cpex_tool_firewall.restoring import label_of
from cpex_tool_firewall.state import open_state

FULL_CALLS = 10_000_000
DAYS = 14
TAILS = (0, 100_000, 500_000, 600_000)  # records
MOST_SECONDS = 2.0
TENANTS = 5
TOOLS = 200
TOOLS_OF_A_USER = 8
HABIT = 0.9  # so often a user goes on as usual
APPENDED_AT_ONCE = 10_000  # records


class Traffic:
    """Calls of users who each have a few tools, mostly in the same order."""

    def __init__(self, engine: Engine, users: int) -> None:
        chance = random.Random(5)
        self._engine = engine
        self._chance = chance
        self._policy = engine.policy()
        tools = [f"tool_{number:03d}" for number in range(TOOLS)]
        self._people = [
            (
                engine.caller(f"team{user % TENANTS}", f"user{user}@example.com", session=f"s{user}"),
                chance.sample(tools, TOOLS_OF_A_USER),
            )
            for user in range(users)
        ]
        self._next = [0] * users

    def make(self, count: int, begin: float, end: float) -> None:
        """So many calls between two times, each ended after half a second."""
        engine, policy, people, following = self._engine, self._policy, self._people, self._next
        chance, users, step = self._chance, len(self._people), (end - begin) / count
        draw = chance.random
        arguments = {"q": 1}
        for number in range(count):
            user = int(draw() * users)
            caller, tools = people[user]
            habit = (following[user] + 1) % TOOLS_OF_A_USER
            tool = habit if draw() < HABIT else int(draw() * TOOLS_OF_A_USER)
            following[user] = tool
            now = begin + number * step
            verdict = engine.check(policy, caller, "server", tools[tool], arguments, now)
            engine.observe(verdict.ticket, "ok", now + 0.5)


def prepare(folder: Path, calls: int, users: int) -> Iterator[tuple[int, int]]:
    """Makes the journal with a snapshot; yields (records after it, its bytes) as the tail grows."""
    settings = load({"state": str(folder / "state")})
    state = open_state(settings.state)
    journal = open_journal(settings, state, busy_seconds=5.0)
    engine = build_engine(settings, state.key, worker=1)
    now = time.time() - 3600
    Traffic(engine, users).make(calls, now - DAYS * 86_400, now)
    body = engine.snapshot(label_of(journal, journal.last()))
    size = len(body)
    journal.save_snapshot(journal.last(), body)
    del engine, body
    writer = build_engine(settings, state.key, worker=2, journaling=True)
    traffic = Traffic(writer, users)
    stored = 0
    for tail in TAILS:
        while stored < tail:
            begin = now + stored / 100
            traffic.make(APPENDED_AT_ONCE // 2, begin, begin + 50)
            packs = [Pack(*made) for made in writer.drain(APPENDED_AT_ONCE)]
            journal.append(packs)
            stored += sum(pack.records for pack in packs)
        yield stored, size
    journal.close()


def start(state: str, answer: Any) -> None:
    """In a process of its own: one start."""
    settings = load({"state": state, "snapshot_minutes": 0})  # no newer one, or the next start is quicker
    begin = time.perf_counter()
    found = runtime.acquire(settings)
    took = time.perf_counter() - begin
    answer.send((took, found.engine.summary()["calls"], runtime.alarms.active()))
    runtime.shut_down()


def timed_start(folder: Path) -> tuple[float, int]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=start, args=(str(folder / "state"), theirs))
    process.start()
    took, calls, alarms = ours.recv()
    process.join()
    if alarms:
        raise RuntimeError(f"the start was not as it should be: {alarms}")
    return took, calls


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--full", action="store_true", help=f"{FULL_CALLS:,} calls")
    parser.add_argument("--calls", type=int, default=1_000_000)
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--check", action="store_true", help="exit code 1 when a target is missed")
    options = parser.parse_args()
    calls = FULL_CALLS if options.full else options.calls
    met = True
    print(f"{calls:,} calls of {options.users:,} users, load average {os.getloadavg()[0]:.2f}")
    with tempfile.TemporaryDirectory() as folder:
        for tail, size in prepare(Path(folder), calls, options.users):
            found = [timed_start(Path(folder)) for _ in range(options.rounds)]
            seconds = [took for took, _ in found]
            if found[0][1] < calls:
                raise RuntimeError(f"only {found[0][1]} calls were restored")
            print(
                f"  snapshot of {size / 1e6:.1f} MB + {tail:7,} records: ready in "
                f"{statistics.median(seconds):.2f} s (min {min(seconds):.2f}, max {max(seconds):.2f})",
                flush=True,
            )
            met &= max(seconds) < MOST_SECONDS
    return 1 if options.check and not met else 0


if __name__ == "__main__":
    sys.exit(main())
