# SPDX-License-Identifier: Apache-2.0
"""Which workers live, and whether they hold the same state: judged by their heartbeats.

A heartbeat carries the time of its own host, and clocks differ and jump. Whoever looks once (the command
line) has to believe it; whoever looks again and again (the elected worker) asks an Attendance instead, which
only notices that a heartbeat changed, by its own clock.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final, Literal

from .journal.interface import HEARTBEAT_SECONDS, SILENT_SECONDS, Worker

# One missed heartbeat. A younger one is believed even when its process is not seen from here (another
# container).
_DOUBT_SECONDS: Final = 1.5 * HEARTBEAT_SECONDS

MISSED_SECONDS: Final = 600.0
"""For so long a silent worker is missed; after that it is taken for gone for good."""

State = Literal["alive", "silent", "dead", "left"]


def state_of(worker: Worker, now: float) -> State:
    """alive; silent: hangs or was killed; dead: its process on this host is gone; left: it ended well."""
    if worker.left:
        return "left"
    if now - worker.seen > _DOUBT_SECONDS and _process_is_gone(worker):
        return "dead"
    return "silent" if worker.silent(now) else "alive"


def silent_workers(workers: Iterable[Worker], now: float) -> list[str]:
    """A sentence for each worker that is missed: silent, not replaced on its host, and not for too long.

    now: by the clock of the workers' `seen`. A worker that started on the same host after the last sign of
    life of a silent one takes the place of one such; that is why the gateway started it.
    """
    everybody = list(workers)
    replacing = [worker for worker in everybody if worker.alive(now)]
    missed = []
    for worker in sorted(everybody, key=lambda one: one.seen):
        if not worker.silent(now):
            continue
        replacement = next((other for other in replacing if _replaces(other, worker)), None)
        if replacement is not None:
            replacing.remove(replacement)
        elif now - worker.seen <= MISSED_SECONDS:
            missed.append(
                f"{name_of(worker)} has been silent for more than {SILENT_SECONDS:.0f} s: it hangs or was "
                "killed. Restart it if it still runs"
            )
    return missed


def diverged(workers: Iterable[Worker], seen: Mapping[int, str]) -> list[str]:
    """A sentence for each worker that read something else than we did up to the same place in the journal.

    workers: of the same generation of the journal. seen: cursor -> digest of everything we had read up to
    there; where we cannot say, or they cannot, nothing is said.
    """
    return [
        f"{name_of(worker)} read something else than this worker up to cursor {worker.body.get('cursor')}: "
        "its scores differ. Run `tool-firewall verify`, and restart it"
        for worker in workers
        if not worker.left and _differs(worker, seen)
    ]


def name_of(worker: Worker) -> str:
    """How people know a worker."""
    return f"worker {worker.body.get('pid')} on {worker.body.get('host')}"


class Attendance:
    """Turns the times in heartbeats into our own: when a heartbeat was last seen to change."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._noticed: dict[str, tuple[float, float]] = {}  # name -> (their time, ours)

    def silent(self, workers: Iterable[Worker]) -> list[str]:
        """silent_workers(), whatever the workers' clocks say. Call it at every look, or nothing is noticed.

        A worker that is new to us counts from now on; one whose heartbeat is very old is taken for gone until
        it beats.
        """
        now, wall = self._clock(), time.time()
        known: dict[str, tuple[float, float]] = {}
        attending = []
        for worker in workers:
            before = self._noticed.get(worker.name)
            if before is not None and before[0] == worker.seen:
                noticed = before
            elif before is not None:
                noticed = (worker.seen, now)
            else:
                age = wall - worker.seen
                noticed = (worker.seen, now - age if age > MISSED_SECONDS else now)
            known[worker.name] = noticed
            attending.append(replace(worker, seen=noticed[1]))
        self._noticed = known
        return silent_workers(attending, now)


def _replaces(newer: Worker, silent: Worker) -> bool:
    """True when `newer` was started on the host of `silent` after its last sign of life.

    Both times are of one host, so they can be compared.
    """
    started, seen = newer.body.get("started"), silent.body.get("last_seen")
    return (
        newer.body.get("host") == silent.body.get("host")
        and isinstance(started, int | float)
        and isinstance(seen, int | float)
        and started >= seen
    )


def _differs(worker: Worker, seen: Mapping[int, str]) -> bool:
    cursor, digest = worker.body.get("cursor"), worker.body.get("digest")
    if not isinstance(cursor, int) or not isinstance(digest, str) or not digest:
        return False
    ours = seen.get(cursor, "")
    return bool(ours) and ours != digest


def _process_is_gone(worker: Worker) -> bool:
    pid = worker.body.get("pid")
    return worker.body.get("host") == socket.gethostname() and not Path(f"/proc/{pid}").exists()
