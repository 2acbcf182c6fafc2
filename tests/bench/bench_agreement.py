# SPDX-License-Identifier: Apache-2.0
"""The same calls through one worker and through four: how many verdicts differ, and by how much the risk.

python tests/bench/bench_agreement.py [--full] [--calls 50000] [--processes 500] [--check]

A load balancer spreads the calls over the workers, one after the other. Played are the labelled streams in
$TOOL_FIREWALL_STREAMS, if that is set (FOLDER/*/events.jsonl.gz, in the format of `tool-firewall replay`),
and the invented traffic of tests/reference with clocks that are right.

simulated  In one process and simulated time (replicas.py): each worker makes a turn every 20 ms, so that a
           call reaches the others after 5 to 45 ms. `turn` shows what slower journals would do; `apart`
           leaves out calls that no journal can tell in time, those right after another one of their user.
processes  Four real processes on SQLite. Weeks of calls cannot be waited for: what lies more than 45 ms of
           the stream's time after another call waits until every worker knows of that one, the rest does
           not. So only --processes N calls of them, 0 for none; all with --full, which takes half an hour.

--check: exit code 1 when a labelled stream differs in more than 0.1 % of the verdicts, or by more than .02 at
p99.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cpex_tool_firewall import zones
from cpex_tool_firewall._native import Engine
from cpex_tool_firewall.config import Settings
from cpex_tool_firewall.engines import build_engine
from fleet import Fleet
from reference import traffic
from replicas import TURN, Agreement, Answer, Call, Replicas, agreement, changes

STREAMS = os.environ.get("TOOL_FIREWALL_STREAMS", "")
WORKERS = 4
TURNS = (TURN, 0.1, 1.0)
SAME = 0.999
RISK_AT_P99 = 0.02
TAIL = 0.045  # s: what is closer together may pass in another order
KEY = b"k" * 32


def labelled(path: Path, mode: str) -> Iterator[Call]:
    """A labelled stream; the agent is the peer group, as `tool-firewall replay` has it."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            event = json.loads(line)
            yield Call(
                event["ts"],
                event["tenant"],
                event["user"],
                event["agent"],
                event["session"],
                event["tool"],
                mode,
                ends=event["ts"] + event["duration"],
            )


class Straight(traffic.Traffic):
    """Without sessions that go round in circles: of a loop that is quicker than the journal, each worker
    sees but its own part, as of a burst (bench_burst.py).
    """

    def circle(self, when: float) -> None:
        return


def invented(count: int, *, seed: int = 7) -> list[Call]:
    """The traffic of the reference tests, by clocks that are right, and without its circles."""
    steps = list(Straight(seed).steps(count))
    ends = {step.id: step.when for step in steps if step.call is None}
    return [
        Call(
            step.when,
            step.call.tenant,
            step.call.user,
            step.call.group,
            step.call.session,
            step.call.tool,
            step.call.mode,
            step.call.threshold,
            ends.get(step.id),
            step.call.inspectable,
        )
        for step in steps
        if step.call is not None
    ]


def plain_engine(**more: Any) -> Engine:
    return build_engine(Settings(), KEY, **more)


def travelling_engine(**more: Any) -> Engine:
    return Engine(
        KEY,
        zones=zones.tables(traffic.ZONES),
        tenant_zones=traffic.TENANT_ZONES,
        user_zones=traffic.USER_ZONES,
        **more,
    )


def in_processes(calls: Sequence[Call], workers: int) -> list[Answer]:
    """The answers of real workers. Calls in one round are closer together than the journal's delay, or of
    users who have nothing to do with each other.
    """
    answers: list[Answer] = []
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "state").mkdir(mode=0o700)
        with Fleet({"state": str(Path(folder, "state"))}, workers) as fleet:
            first = 0
            while first < len(calls):
                past = first + 1
                while past < len(calls) and calls[past].at - calls[first].at < TAIL:
                    past += 1
                shares: list[list[Call]] = [[] for _ in range(workers)]
                for number in range(first, past):
                    shares[number % workers].append(calls[number])
                for worker, share in enumerate(shares):
                    fleet.ask(worker, "calls", share)
                told = [[Answer(*one) for one in fleet.answer(worker)] for worker in range(workers)]
                answers += [told[number % workers].pop(0) for number in range(first, past)]
                cursor = max(fleet.each("stored"))
                fleet.each("reach", cursor)
                first = past
    return answers


def say(what: str, found: Agreement, one: Sequence[Answer], other: Sequence[Answer]) -> None:
    differing = ", ".join(f"{n} {how}" for how, n in changes(one, other, found.differing).most_common(4))
    print(
        f"{what:34} {found.calls:7,} {found.same:9.4%} {found.risk(0.99):8.4f} {found.risk(0.999):8.4f} "
        f"{found.risk(1):6.3f}  {differing}"
    )


def compare(
    name: str, calls: Sequence[Call], make: Callable[..., Engine], turns: Sequence[float]
) -> list[Agreement]:
    """One agreement for each turn; and, for the first, one of the calls that have none of the same user just
    before them.
    """
    one = list(Replicas(make, 1).run(calls))
    alone = list(apart(calls))
    found = []
    for turn in turns:
        four = list(Replicas(make, WORKERS, turn=turn).run(calls))
        found.append(agreement(one, four))
        say(f"{name}, turn {turn * 1e3:g} ms", found[-1], one, four)
        if turn == turns[0]:
            mine, theirs = [one[n] for n in alone], [four[n] for n in alone]
            say(f"{name}, {TAIL * 1e3:g} ms apart", agreement(mine, theirs), mine, theirs)
    return found


def apart(calls: Sequence[Call]) -> Iterator[int]:
    """The numbers of the calls that no other call of the same user comes just before."""
    last: dict[tuple[str, str], float] = {}
    for number, call in enumerate(calls):
        who = (call.tenant, call.user)
        if call.at - last.get(who, 0.0) >= TAIL:
            yield number
        last[who] = call.at


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calls", type=int, default=50_000)
    parser.add_argument("--processes", type=int, default=500, help="calls through real processes")
    parser.add_argument("--full", action="store_true", help="all calls through real processes")
    parser.add_argument("--check", action="store_true", help="exit code 1 when a target is missed")
    options = parser.parse_args()
    if options.full:
        options.processes = options.calls
    paths = sorted(Path(STREAMS).glob("*/events.jsonl.gz")) if STREAMS else []
    met = True
    print(f"{'stream':34} {'calls':>7} {'same':>9} {'p99':>8} {'p99.9':>8} {'max':>6}  what differs")
    for path in paths:
        for mode in ("warn", "block"):
            calls = list(islice(labelled(path, mode), options.calls))
            found = compare(f"{path.parent.name}, {mode}", calls, plain_engine, TURNS)[0]
            met &= found.same >= SAME and found.risk(0.99) <= RISK_AT_P99
    calls = invented(options.calls)
    compare("invented", calls, travelling_engine, TURNS)
    if options.processes:
        source = (
            labelled(paths[0], "warn")
            if paths
            else (call for call in calls if call.ends and call.inspectable)
        )
        some = list(islice(source, options.processes))
        one, four = in_processes(some, 1), in_processes(some, WORKERS)
        found = agreement(one, four)
        say("real processes", found, one, four)
        met &= found.same >= SAME and found.risk(0.99) <= RISK_AT_P99
    return 1 if options.check and not met else 0


if __name__ == "__main__":
    sys.exit(main())
