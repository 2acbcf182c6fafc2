# SPDX-License-Identifier: Apache-2.0
"""What a journal costs its workers, and how late they know: the Redis journal beside the SQLite one.

    python tests/bench/bench_redis.py [--seconds 8] [--rate 2000]

Each of four processes appends `rate` records of 200 bytes a second and reads everybody's, once every 20 ms,
as the runtime does. Lag is from the moment a record was appended to the moment another process has read it.
The server runs on this machine too, with appendonly everysec, over a unix socket.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import struct
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "plugin"))

from cpex_tool_firewall._native import unpack
from cpex_tool_firewall.journal.interface import Journal, Kind, Pack
from cpex_tool_firewall.journal.sqlite import SqliteJournal
from journals import KEY, packed
from redis_server import RedisServer

POLL_SECONDS = 0.02
RECORD_BYTES = 200
PROCESSES = 4
_STAMP = struct.Struct("<dQ")

Open = Callable[[int], Journal]


def record(number: int) -> bytes:
    """With the moment it was made, and who made it."""
    return _STAMP.pack(time.monotonic(), number) + bytes(RECORD_BYTES - _STAMP.size)


def worker(number: int, start: int, open_journal: Open, rate: float, seconds: float, report: object) -> None:
    """Writes and reads until `seconds` are over, then sends what it measured."""
    journal = open_journal(number)
    cursor = start
    lags: list[float] = []
    rounds: list[float] = []
    written = read = 0
    begun = time.monotonic()
    used = resource.getrusage(resource.RUSAGE_SELF)
    made: list[bytes] = []
    while (now := time.monotonic()) < begun + seconds + 1:
        if now < begun + seconds:
            due = int((now - begun) * rate) - written
            made = [record(number) for _ in range(due)]  # made at the end of the round: the best case for all
            written += due
            if made:
                journal.append([packed(*made[at : at + 256]) for at in range(0, len(made), 256)])
        while entries := journal.read_since(cursor, 64):
            now = time.monotonic()
            for entry in entries:
                for one in unpack(entry.body):
                    then, who = _STAMP.unpack_from(one)
                    read += 1
                    if who != number:
                        lags.append(now - then)
            cursor = entries[-1].cursor
            if len(entries) < 64:
                break
        rounds.append(time.monotonic() - now)
        time.sleep(max(POLL_SECONDS - (time.monotonic() - now), 0.001))
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
    report.put((written, read, lags, cpu / (seconds + 1)))  # type: ignore[attr-defined]
    journal.close()


def fleet(
    name: str, start: int, open_journal: Open, rate: float, seconds: float, server: RedisServer | None
) -> None:
    """Four of them at once."""
    context = multiprocessing.get_context("fork")
    report = context.Queue()
    processes = [
        context.Process(target=worker, args=(number, start, open_journal, rate, seconds, report))
        for number in range(PROCESSES)
    ]
    before = server_cpu(server)
    for process in processes:
        process.start()
    found = [report.get() for _ in processes]
    for process in processes:
        process.join()
    written = sum(one[0] for one in found)
    lags = sorted(lag for one in found for lag in one[2])
    print(
        f"{name:<16} written {written}, missing {sum(written - one[1] for one in found)}, "
        f"lag ms p50 {median(lags) * 1e3:.1f} "
        f"p99 {lags[int(len(lags) * 0.99)] * 1e3:.1f} max {lags[-1] * 1e3:.1f}, "
        f"clients {sum(one[3] for one in found) * 100:.0f} % of a core in all"
        + (f", server {(server_cpu(server) - before) / (seconds + 1) * 100:.0f} %" if server else "")
    )


def server_cpu(server: RedisServer | None) -> float:
    """Seconds of processor time it has used."""
    if server is None:
        return 0.0
    info = server.client().info("cpu")
    return float(info["used_cpu_user"]) + float(info["used_cpu_sys"])


def appending(name: str, journal: Journal, records: int = 40, times: int = 1500) -> None:
    """How long one append of a pack takes."""
    pack = packed(*(record(0) for _ in range(records)))
    decision = Pack(Kind.FINDING, 1, packed(record(0)).body)
    for what, packs, durable in (("pack of 40", [pack], False), ("decision, durable", [decision], True)):
        took = []
        for n in range(times):
            begun = time.perf_counter()
            journal.append(packs, durable=durable)
            took.append(time.perf_counter() - begun)
            if durable and n % 50 == 0:
                journal.read_since(journal.last())  # sends what waits
            time.sleep(0.0005)
        took.sort()
        print(
            f"{name:<16} append ms, {what}: p50 {took[times // 2] * 1e3:.3f} "
            f"p99 {took[int(times * 0.99)] * 1e3:.3f} max {took[-1] * 1e3:.3f}"
        )
    begun, cpu = time.perf_counter(), time.process_time()
    last = journal.last()
    for _ in range(times):
        journal.read_since(last)
    took_each = (time.perf_counter() - begun) / times
    print(f"{name:<16} a read that finds nothing: {took_each * 1e6:.0f} us, "
          f"{(time.process_time() - cpu) / times * 1e6:.0f} us of it processor time")  # fmt: skip


def main() -> None:
    """Both backends, one after the other."""
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("--seconds", type=float, default=8.0)
    options.add_argument("--rate", type=float, default=2000.0, help="records a second of each process")
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        server = RedisServer(folder / "redis", appendfsync="everysec")
        (folder / "sqlite").mkdir()
        journals: dict[str, Open] = {
            "sqlite": lambda number: SqliteJournal(folder / "sqlite", KEY),
            "redis": lambda number: server.journal(folder / f"host{number}", seconds=0.05),
        }
        try:
            for name, open_journal in journals.items():
                one = open_journal(9)
                appending(name, one)
                start = one.last()
                one.close()
                fleet(
                    name, start, open_journal, given.rate, given.seconds, server if name == "redis" else None
                )
        finally:
            server.stop()


if __name__ == "__main__":
    main()
