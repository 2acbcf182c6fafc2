# SPDX-License-Identifier: Apache-2.0
"""A journal that lives in this process: for tests and for replays. Nothing of it survives the process."""

import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .interface import FORGET_SECONDS, JournalError, Worker


class MemoryJournal:
    """Journal over a list. Several users of one object share its records, as several workers share a file."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._records: list[bytes] = []  # the record with cursor n is at n - 1
        self._workers: dict[str, tuple[float, str, bool]] = {}  # seen, body, left
        self._closed = False

    def append(self, batch: Sequence[bytes], *, durable: bool = False) -> int:
        """See Journal.append; durable makes no difference here."""
        records = [bytes(record) for record in batch]
        with self._lock:
            self._check_open()
            self._records += records
            return len(self._records)

    def read_since(self, cursor: int, limit: int = 1024) -> list[tuple[int, bytes]]:
        """See Journal.read_since."""
        with self._lock:
            self._check_open()
            start = max(cursor, 0)
            return list(enumerate(self._records[start : start + max(limit, 0)], start + 1))

    def last(self) -> int:
        """See Journal.last."""
        with self._lock:
            self._check_open()
            return len(self._records)

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

    def workers(self) -> list[Worker]:
        """See Journal.workers."""
        with self._lock:
            self._check_open()
            found = [
                Worker(name, seen, json.loads(body), left)
                for name, (seen, body, left) in self._workers.items()
            ]
        return sorted(found, key=lambda worker: (-worker.seen, worker.name))

    def close(self) -> None:
        """See Journal.close."""
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise JournalError("memory journal: it was closed; open a new one")
