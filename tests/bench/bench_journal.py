# SPDX-License-Identifier: Apache-2.0
"""What the SQLite journal itself costs: storing, reading, pruning, verifying, saving what is damaged.

python tests/bench/bench_journal.py [--records 1000000] [--findings-every 10]

One process. Packs of 40 records, as 4 workers with 2,000 calls a second make them every 20 ms; every tenth
pack holds findings. While the journal is pruned, a second connection writes all the time and takes down how
long it was kept waiting.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from cpex_tool_firewall._native import Engine, encode_call, pack
from cpex_tool_firewall.journal.interface import JournalLost, Pack
from cpex_tool_firewall.journal.sqlite import SqliteJournal

KEY = bytes(range(32))
RECORDS_PER_PACK = 40
DAY = 86_400.0
NOW = 1_790_000_000.0


def findings() -> Pack:
    """One pack of calls that cannot be inspected."""
    engine = Engine(KEY, worker=8, journaling=True)
    caller, policy = engine.caller("team", "mallory@example.com"), engine.policy()
    for n in range(RECORDS_PER_PACK):
        engine.check(policy, caller, "server", "odd", object(), NOW + n * 60)
    (made,) = engine.drain(RECORDS_PER_PACK)
    return Pack(*made)


def packs(count: int, every: int) -> list[Pack]:
    """So many packs, of a few thousand different calls; each `every`th holds findings."""
    made = []
    stopped = findings()
    for n in range(count):
        if n % every == every - 1:
            made.append(stopped)
            continue
        records = [
            encode_call(
                ts=NOW + n,
                worker=7,
                seq=n * RECORDS_PER_PACK + i + 1,
                tenant="team",
                user=f"user-{i}@example.com",
                session=f"session-{i}",
                server="server",
                tool=f"tool-{n % 50}",
            )
            for i in range(RECORDS_PER_PACK)
        ]
        made += [Pack(*one) for one in pack(records)]
    return made


class Aged:
    """The clock while the journal is filled: spread over 20 days."""

    def __init__(self, count: int) -> None:
        self.now = NOW - 20 * DAY
        self.step = 20 * DAY / count

    def __call__(self) -> float:
        return self.now


def store(journal: SqliteJournal, made: list[Pack], clock: Aged) -> list[float]:
    """Appends them one by one; the time of each, s."""
    times = []
    for one in made:
        begun = time.perf_counter()
        journal.append((one,))
        times.append(time.perf_counter() - begun)
        clock.now += clock.step
    return times


def read(journal: SqliteJournal) -> float:
    """Reads everything; s for each pack."""
    begun, cursor, count = time.perf_counter(), 0, 0
    while entries := journal.read_since(cursor, 64):
        cursor, count = entries[-1].cursor, count + len(entries)
    return (time.perf_counter() - begun) / count


def prune(journal: SqliteJournal, folder: Path, calls_before: float, findings_before: float) -> None:
    """Removes what was stored before these times, and says how long a writer beside it had to wait."""
    upto = journal.last()
    other = SqliteJournal(folder, KEY, busy_seconds=5.0)
    waits: list[float] = []
    done = threading.Event()
    one = packs(1, 2)[0]

    def write() -> None:
        while not done.wait(0.002):
            begun = time.perf_counter()
            other.append((one,))
            waits.append(time.perf_counter() - begun)

    writer = threading.Thread(target=write)
    writer.start()
    removed, slices, begun = 0, [], time.perf_counter()
    while True:
        before = time.perf_counter()
        some = journal.prune(calls_before=calls_before, findings_before=findings_before, upto=upto)
        slices.append(time.perf_counter() - before)
        if not some and slices[-1] < 0.01:  # else it only came as far as one call may
            break
        removed += some
        time.sleep(0.002)
    taken = time.perf_counter() - begun
    done.set()
    writer.join()
    other.close()
    waits.sort()
    slices.sort()
    print(
        f"prune: {removed} records in {taken:.2f} s; {len(slices)} slices, p50 "
        f"{slices[len(slices) // 2] * 1e3:.1f}, max {slices[-1] * 1e3:.1f} ms; {len(waits)} writes beside it "
        f"waited p50 {waits[len(waits) // 2] * 1e3:.2f}, max {waits[-1] * 1e3:.1f} ms"
    )


def save(folder: Path) -> tuple[float, int]:
    """Damages a page in the middle and heals: (s, packs that are missing)."""
    path = folder / "journal.db"
    before = SqliteJournal(folder, KEY)
    there = len(before.read_since(0, 10_000_000))
    before.close()
    page = path.stat().st_size // 4096 // 2
    command = ["dd", "if=/dev/urandom", f"of={path}", "bs=4096", "count=4", f"seek={page}", "conv=notrunc"]
    subprocess.run(command, check=True, capture_output=True)
    journal = SqliteJournal(folder, KEY)
    try:
        read(journal)
    except JournalLost:
        begun = time.perf_counter()
        journal.heal(0)
        taken = time.perf_counter() - begun
    else:
        raise SystemExit("the damage was not noticed")
    missing = there - len(journal.read_since(0, 10_000_000))
    assert journal.verify().problem == ""
    journal.close()
    return taken, missing


def main() -> None:
    """Measures, and prints what it found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--findings-every", type=int, default=10, help="packs (default: 10)")
    options = parser.parse_args()
    records: int = options.records
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        made = packs(2000, options.findings_every)
        clock = Aged(records // RECORDS_PER_PACK)
        journal = SqliteJournal(folder, KEY, clock=clock)
        times: list[float] = []
        while len(times) * RECORDS_PER_PACK < records:
            times += store(journal, made, clock)
            journal.tidy()
        print(
            f"append: p50 {statistics.median(times) * 1e6:.0f} us, p99 "
            f"{statistics.quantiles(times, n=100)[98] * 1e6:.0f} us, max {max(times) * 1e3:.1f} ms "
            f"a pack of {RECORDS_PER_PACK} records"
        )
        durable = []
        for one in made[:200]:
            begun = time.perf_counter()
            journal.append((one,), durable=True)
            durable.append(time.perf_counter() - begun)
        print(
            f"append, durable: p50 {statistics.median(durable) * 1e6:.0f} us, max {max(durable) * 1e3:.1f} ms"
        )
        print(f"read: {read(journal) * 1e6:.0f} us a pack")
        begun = time.perf_counter()
        found = journal.verify()
        taken = time.perf_counter() - begun
        print(f"verify: {found.records} records in {taken:.2f} s, {found.records / taken:,.0f} a second")
        journal.close()
        shutil.copytree(folder, folder / "copy")
        taken, missing = save(folder / "copy")
        print(f"saving {found.records} records, 4 pages of them damaged: {taken:.2f} s, {missing} packs lost")
        clock.now = NOW
        journal = SqliteJournal(folder, KEY, clock=clock)
        prune(journal, folder, NOW - 14 * DAY, NOW - 90 * DAY)
        prune(journal, folder, NOW, NOW - 90 * DAY)
        prune(journal, folder, NOW, NOW)
        assert journal.verify().problem == ""
        journal.close()


if __name__ == "__main__":
    main()
