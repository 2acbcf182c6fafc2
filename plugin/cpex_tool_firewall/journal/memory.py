# SPDX-License-Identifier: Apache-2.0
"""A journal that lives in this process: for tests and for replays. Nothing of it survives the process."""

import json
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .interface import (
    FORGET_SECONDS,
    SNAPSHOTS_KEPT,
    Anchor,
    Entry,
    JournalError,
    Kind,
    Pack,
    SnapshotInfo,
    Verified,
    Worker,
)


class MemoryJournal:
    """Journal over a list. Several users of one object share its packs, as several workers share a file.

    Nobody else can reach it, so it has no digests: anchor() has none, and verify() finds everything whole.
    """

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self.where = "memory"
        self.generation = secrets.token_hex(8)
        self._clock = clock
        self._lock = threading.Lock()
        self._packs: list[tuple[float, Entry]] = []
        self._last = 0
        self._pruned_upto = 0
        self._pruned = 0
        self._snapshots: dict[int, tuple[float, bytes]] = {}
        self._workers: dict[str, tuple[float, str, bool]] = {}  # seen, body, left
        self._lead = ("", 0.0)
        self._closed = False

    def append(self, packs: Sequence[Pack], *, durable: bool = False) -> int:
        """See Journal.append; durable makes no difference here."""
        made = [Pack(pack.kind, pack.records, bytes(pack.body)) for pack in packs]
        with self._lock:
            self._check_open()
            now = self._clock()
            for pack in made:
                self._last += 1
                self._packs.append((now, Entry(self._last, *pack)))
            return self._last

    def read_since(self, cursor: int, limit: int = 256) -> list[Entry]:
        """See Journal.read_since."""
        with self._lock:
            self._check_open()
            start = max(cursor, 0)
            if not self._pruned_upto:  # the pack with cursor n is at n - 1
                return [entry for _, entry in self._packs[start : start + max(limit, 0)]]
            found = [entry for _, entry in self._packs if entry.cursor > start]
            return found[: max(limit, 0)]

    def last(self) -> int:
        """See Journal.last."""
        with self._lock:
            self._check_open()
            return self._last

    def first(self) -> int:
        """See Journal.first."""
        return self._pruned_upto

    def prune(self, *, calls_before: float, findings_before: float, upto: int) -> int:
        """See Journal.prune."""
        limits = {Kind.ORDINARY: calls_before, Kind.FINDING: min(findings_before, calls_before)}
        with self._lock:
            self._check_open()
            due = [
                entry
                for at, entry in self._packs
                if entry.cursor <= upto and at < limits.get(Kind(entry.kind), float("-inf"))
            ]
            gone = {entry.cursor for entry in due}
            self._packs = [(at, entry) for at, entry in self._packs if entry.cursor not in gone]
            self._pruned_upto = max([self._pruned_upto, *gone])
            removed = sum(entry.records for entry in due)
            self._pruned += removed
            return removed

    def save_snapshot(self, cursor: int, body: bytes) -> None:
        """See Journal.save_snapshot."""
        with self._lock:
            self._check_open()
            self._snapshots[cursor] = (self._clock(), bytes(body))
            for old in sorted(self._snapshots, reverse=True)[SNAPSHOTS_KEPT:]:
                del self._snapshots[old]

    def snapshots(self) -> list[SnapshotInfo]:
        """See Journal.snapshots."""
        with self._lock:
            self._check_open()
            found = [SnapshotInfo(cursor, at, len(body)) for cursor, (at, body) in self._snapshots.items()]
        return sorted(found, reverse=True)

    def load_snapshot(self, cursor: int) -> bytes:
        """See Journal.load_snapshot."""
        with self._lock:
            self._check_open()
            if cursor not in self._snapshots:
                raise JournalError(f"memory journal: no snapshot at cursor {cursor}")
            return self._snapshots[cursor][1]

    def anchor(self) -> Anchor:
        """See Journal.anchor."""
        return Anchor(self.last(), "")

    def verify(
        self, anchors: Sequence[Anchor] = (), progress: Callable[[int, int], None] | None = None
    ) -> Verified:
        """See Journal.verify."""
        with self._lock:
            self._check_open()
            records = sum(entry.records for _, entry in self._packs)
            first = self._packs[0][1].cursor if self._packs else 0
            return Verified(records, self._pruned, first, self._last, "")

    def lead(self, worker: str, seconds: float) -> bool:
        """See Journal.lead."""
        with self._lock:
            self._check_open()
            now = self._clock()
            holder, until = self._lead
            if holder not in ("", worker) and now < until:
                return False
            self._lead = (worker, now + seconds)
            return True

    def tidy(self) -> None:
        """See Journal.tidy: there is nothing to do."""

    def heal(self, cursor: int) -> int:
        """See Journal.heal: it cannot be lost."""
        return cursor

    def beat(self, worker: str, body: Mapping[str, Any]) -> None:
        """See Journal.beat."""
        text = json.dumps(dict(body))  # the same demands on the body as a stored journal makes
        with self._lock:
            self._check_open()
            now = self._clock()
            self._workers = {
                name: old for name, old in self._workers.items() if now - old[0] <= FORGET_SECONDS
            }
            self._workers[worker] = (now, text, False)

    def leave(self, worker: str) -> None:
        """See Journal.leave."""
        with self._lock:
            self._check_open()
            if worker in self._workers:
                self._workers[worker] = (*self._workers[worker][:2], True)
            if self._lead[0] == worker:
                self._lead = ("", 0.0)

    def workers(self) -> list[Worker]:
        """See Journal.workers."""
        with self._lock:
            self._check_open()
            found = [
                Worker(name, seen, json.loads(body), left)
                for name, (seen, body, left) in self._workers.items()
            ]
        return sorted(found, key=lambda worker: (-worker.seen, worker.name))

    def size(self) -> int:
        """See Journal.size."""
        with self._lock:
            return sum(len(entry.body) for _, entry in self._packs)

    def notes(self) -> list[str]:
        """See Journal.notes: there is nothing to say."""
        return []

    def suspend(self) -> None:
        """See Journal.suspend: there is nothing to close."""

    def close(self) -> None:
        """See Journal.close."""
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise JournalError("memory journal: it was closed; open a new one")
