# SPDX-License-Identifier: Apache-2.0
"""Four workers under load on one journal: what is lost, how late the others know, what the journal costs.

python tests/bench/bench_workers.py [--full] [--seconds 10] [--workers 4] [--rate 2000] [--users 40000]
                                    [--journal sqlite] [--check]

Each worker is a process with the plugin in it and calls both hooks `rate` times a second. The users take
turns over all workers; there are so many of them that nobody is in a burst. When the load is over, the whole
journal is read and compared with what was made, and with what every worker noted while it ran:

lost     calls, and ends of calls, that are not in the journal, or that a worker did not apply.
lag      from the moment a call was checked in one worker to the moment its record was applied in another one;
         of every call in every other worker.
journal  processor time of the journal threads together, in % of one core; beside it that of the processes
         which make snapshots: every 500,000 records, which is every 30 s here.
hook     tool_pre_invoke, called directly, while all this runs.

--full: 60 s. --journal redis: with a redis-server of its own. --check: exit code 1 when something is lost,
the lag is over 100 ms at p99 or the journal threads need more than 30 % of a core.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from bisect import bisect_left
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from cpex_tool_firewall._native import decode_record, unpack
from cpex_tool_firewall.config import load
from cpex_tool_firewall.journal.opening import open_journal
from cpex_tool_firewall.state import open_state
from fleet import Fleet, redis_server

USERS = 40_000
MOST_LAG_MS = 100.0
MOST_JOURNAL_PERCENT = 30.0
FULL_SECONDS = 60.0


def percentile(ordered: Any, share: float) -> Any:
    """Of a sorted sequence."""
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def journal_settings(kind: str, running: ExitStack, folder: Path) -> dict[str, Any]:
    """The settings that choose a journal; a server it needs runs until `running` is closed."""
    if kind == "sqlite":
        return {}
    (folder / "redis").mkdir()
    return {"journal": "redis", "redis_url": running.enter_context(redis_server(folder / "redis"))}


class Reading:
    """What is in the journal, and how late each worker knew of each call."""

    def __init__(self, settings: dict[str, Any], ends: list[dict[str, Any]]) -> None:
        self.calls: Counter[int] = Counter()
        self.outcomes: Counter[int] = Counter()
        self.packs = 0
        self.size = 0
        self.urgent = 0
        self.lags: list[float] = []  # s
        marks = {
            end["worker"]: ([cursor for _, cursor in end["marks"]], [at for at, _ in end["marks"]])
            for end in ends
        }
        loaded = load(settings)
        state = open_state(settings["state"], create=False)
        journal = open_journal(loaded, state, create=False, busy_seconds=5.0)
        seen: dict[int, set[int]] = {worker: set() for worker in marks}
        cursor = 0
        while entries := journal.read_since(cursor):
            for entry in entries:
                self.packs += 1
                self.size += len(entry.body)
                self.urgent += entry.kind != 0
                applied = {}
                for worker, (cursors, times) in marks.items():
                    found = bisect_left(cursors, entry.cursor)
                    applied[worker] = times[found] if found < len(times) else None
                self._read(unpack(entry.body), applied, seen)
            cursor = entries[-1].cursor
        journal.close()
        for worker, numbers in seen.items():
            self.calls[worker] = len(numbers)

    def _read(self, records: list[bytes], applied: dict[int, Any], seen: dict[int, set[int]]) -> None:
        for record in records:
            fields = decode_record(record)
            worker = fields["worker"]
            if fields["kind"] == "outcome":
                self.outcomes[worker] += 1
            elif fields["kind"] == "call" and worker in seen:
                seen[worker].add(fields["seq"])
                self.lags += [
                    at - fields["ts"] for other, at in applied.items() if at is not None and other != worker
                ]


def measure(options: argparse.Namespace) -> bool:
    with ExitStack() as running:
        folder = Path(running.enter_context(tempfile.TemporaryDirectory(dir=options.folder)))
        settings = {"state": str(folder / "state"), **journal_settings(options.journal, running, folder)}
        load_before = os.getloadavg()[0]
        with Fleet(settings, options.workers) as fleet:
            ends = fleet.each(
                "load",
                begin=time.time() + 1,
                seconds=options.seconds,
                rate=options.rate,
                users=options.users,
                workers=options.workers,
            )
        reading = Reading(settings, ends)
    return report(options, ends, reading, load_before)


def report(
    options: argparse.Namespace, ends: list[dict[str, Any]], reading: Reading, load_before: float
) -> bool:
    made = sum(end["made"] for end in ends)
    took = max(end["took"] for end in ends)
    calls = made - sum(reading.calls.values())
    # A call too many at once counts as done: its end is known already, and is no record.
    crowded = sum(end["counters"]["unpaired"] for end in ends)
    ends_missing = made - sum(end["stopped"] for end in ends) - sum(reading.outcomes.values()) - crowded
    missing = calls + ends_missing
    applied = sum(end["counters"]["records_applied"] for end in ends)
    unapplied = (sum(reading.calls.values()) + sum(reading.outcomes.values())) * (len(ends) - 1) - applied
    lags = sorted(reading.lags)
    spans = sorted(span for end in ends for span in end["spans"])
    journal = sum(end["journal_cpu"] for end in ends) / took * 100
    whole = sum(end["cpu"] for end in ends) / took * 100
    lag = [percentile(lags, share) * 1e3 for share in (0.5, 0.99, 0.999)] + [lags[-1] * 1e3]
    print(
        f"{options.journal}: {len(ends)} workers, {made:,} calls in {took:.1f} s ({made / took:,.0f}/s), "
        f"load average before {load_before:.2f}"
    )
    print(f"  lost     {calls} calls and {ends_missing} ends not in the journal, {unapplied} not applied")
    print(
        f"  lag      p50 {lag[0]:.1f} ms, p99 {lag[1]:.1f}, p99.9 {lag[2]:.1f}, max {lag[3]:.1f} "
        f"({len(lags):,} of {made * (len(ends) - 1):,})"
    )
    snapshots = sum(end["children_cpu"] for end in ends) / took * 100
    print(
        f"  journal  {journal:.1f} % of one core, making snapshots beside it {snapshots:.1f} %; "
        f"the workers as a whole {whole:.1f} %"
    )
    hook = [percentile(spans, share) / 1e3 for share in (0.5, 0.99, 0.999)]
    print(f"  hook     p50 {hook[0]:.2f} us, p99 {hook[1]:.1f}, p99.9 {hook[2]:.1f}")
    print(
        f"  records  {2 * made / reading.packs:.1f} in a pack, {reading.size / 2 / made:.0f} bytes each; "
        f"{reading.urgent} packs of findings, {sum(end['notable'] for end in ends)} calls notable, "
        f"{max(end['memory'] for end in ends) >> 20} MiB in the largest process"
    )
    return (
        missing == 0
        and unapplied == 0
        and len(lags) == made * (len(ends) - 1)
        and lag[1] <= MOST_LAG_MS
        and journal <= MOST_JOURNAL_PERCENT
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--full", action="store_true", help=f"{FULL_SECONDS:g} s")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--rate", type=float, default=2000.0, help="calls a second in each worker")
    parser.add_argument("--users", type=int, default=USERS, help="fewer are in a burst sooner or later")
    parser.add_argument("--journal", choices=("sqlite", "redis"), default="sqlite")
    parser.add_argument("--folder", help="where the journal is made; default: the folder for temporary files")
    parser.add_argument("--check", action="store_true", help="exit code 1 when a target is missed")
    options = parser.parse_args()
    if options.full:
        options.seconds = FULL_SECONDS
    met = measure(options)
    return 1 if options.check and not met else 0


if __name__ == "__main__":
    sys.exit(main())
