# SPDX-License-Identifier: Apache-2.0
"""What a worker has to store: taken from the engine's queue, kept until a journal has it, and a little
longer.

Nothing taken from the engine is forgotten before an append() succeeded. What was stored stays here for
RESEND_SECONDS, because a store may lose what it confirmed (a deleted write-ahead log, a server that failed
over): after Journal.heal() it is stored again. Readers know the copies by their numbers.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Final

from ._native import Engine
from .journal.interface import RESEND_SECONDS, Kind, Pack

_MOST_AT_ONCE: Final = 32  # packs
_MOST_REMEMBERED: Final = 16 * 1024 * 1024  # bytes of stored packs


class Outbox:
    """Between one engine and its journal. Used by one thread."""

    def __init__(self, engine: Engine, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._engine = engine
        self._clock = clock
        self._pending: deque[Pack] = deque()
        self._taken = 0  # of the pending ones, by take()
        self._stored: deque[tuple[float, Pack]] = deque()
        self._stored_bytes = 0

    def records(self) -> int:
        """How many records there are to store now."""
        return sum(pack.records for pack in self._pending) + self._engine.counters()["records_queued"]

    def take(self, limit: int) -> list[Pack]:
        """What to store next: what is still to store, else up to `limit` new records; [] when there is none.

        A part of it when it is much, so that no append() is long. The same again until stored().
        """
        if not self._pending:
            self._pending.extend(Pack(*pack) for pack in self._engine.drain(limit))
        taken = list(islice(self._pending, _MOST_AT_ONCE))
        self._taken = len(taken)
        return taken

    def stored(self) -> int:
        """What take() gave last is in the journal. Returns how many records that were."""
        now = self._clock()
        records = 0
        for _ in range(self._taken):
            pack = self._pending.popleft()
            records += pack.records
            self._stored.append((now, pack))
            self._stored_bytes += len(pack.body)
        self._taken = 0
        self._forget(now)
        return records

    def store_again(self) -> None:
        """Puts what was stored lately in front of what is still to store."""
        self._forget(self._clock())
        self._pending.extendleft(pack for _, pack in reversed(self._stored))
        self._stored.clear()
        self._stored_bytes = 0
        self._taken = 0

    def _forget(self, now: float) -> None:
        while self._stored and (
            now - self._stored[0][0] > RESEND_SECONDS or self._stored_bytes > _MOST_REMEMBERED
        ):
            self._stored_bytes -= len(self._stored.popleft()[1].body)


def urgent(packs: Sequence[Pack]) -> bool:
    """True when findings or control records are among them: these must survive a power loss."""
    return any(pack.kind != Kind.ORDINARY for pack in packs)
