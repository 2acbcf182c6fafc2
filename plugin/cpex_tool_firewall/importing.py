# SPDX-License-Identifier: Apache-2.0
"""Puts calls of the past into a journal, each of them once.

Readers tell calls apart by (worker, seq) and drop what they have seen. So importing is harmless to repeat
when the same call always gets the same pair: records of a journal keep theirs, everything else gets one from
day_worker() and numbers(). And because the importer has read the journal itself, it does not even store what
is known already.

Imported calls are records of kind ORDINARY without an incident: readers see by that that they are history,
which moves no rate and no session of now.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from ._native import encode_call, encode_outcome, pack
from .journal.interface import Journal, Pack

if TYPE_CHECKING:
    from ._native import Engine

FUTURE_SECONDS: Final = 60.0
"""A call that is later than now by more than this is refused."""

_BATCH: Final = 1024  # records to a transaction
_MOST_OPEN: Final = 65_536  # stored calls whose ending may still come
_DAY: Final = 86_400
_PERSON: Final = b"tf import"
_WORKER_BITS: Final = 2**63 - 1


@dataclass
class Summary:
    """What was imported, or would have been."""

    records: int = 0
    calls: int = 0
    new: int = 0  # calls that the journal did not have
    users: set[tuple[str, str]] = field(default_factory=set)
    tools: set[tuple[str, str]] = field(default_factory=set)
    tenants: set[str] = field(default_factory=set)
    first: float = math.inf  # seconds since the epoch
    last: float = -math.inf


class Importer:
    """Takes calls and endings in the order they happened; close() stores the rest.

    engine: one that has read the whole journal. journal None: nothing is stored (a dry run).
    """

    def __init__(self, engine: Engine, journal: Journal | None) -> None:
        self.summary = Summary()
        self._engine = engine
        self._journal = journal
        self._records: list[bytes] = []
        self._calls: list[tuple[int, int]] = []
        self._endings: list[tuple[int, int]] = []
        self._open: dict[tuple[int, int], None] = {}  # stored, and not known to have ended

    def call(self, *, ts: float, worker: int, seq: int, **fields: Any) -> None:
        """One call; fields as encode_call() takes them. Raises JournalError, and ValueError for digests or
        facts that are none, with nothing done.
        """
        record = encode_call(ts=ts, worker=worker, seq=seq, **fields)
        found = self.summary
        found.calls += 1
        found.users.add((fields["tenant"], fields["user"]))
        found.tenants.add(fields["tenant"])
        found.tools.add((fields.get("server", ""), fields["tool"]))
        found.first = min(found.first, ts)
        found.last = max(found.last, ts)
        self._calls.append((worker, seq))
        self._add(record)

    def ended(self, *, ts: float, worker: int, seq: int, outcome: str, cost: float = math.nan) -> None:
        """How a call ended; NaN: nobody knows what it cost. Raises JournalError."""
        self._endings.append((worker, seq))
        self._add(encode_outcome(ts=ts, worker=worker, seq=seq, outcome=outcome, cost=cost))

    def close(self) -> None:
        """Stores what is left, so that it survives a power loss. Raises JournalError."""
        self._flush(durable=True)

    def _add(self, record: bytes) -> None:
        self.summary.records += 1
        self._records.append(record)
        if len(self._records) >= _BATCH:
            self._flush()

    def _flush(self, *, durable: bool = False) -> None:
        packs = [Pack(*one) for one in pack(self._records)]
        # Endings are always counted as applied: they have the number of their call.
        new = self._engine.apply([one.body for one in packs]) - len(self._endings)
        self.summary.new += new
        if new:
            self._open.update(dict.fromkeys(self._calls))
        wanted = new > 0 or any(key in self._open for key in self._endings)
        for key in self._endings:
            self._open.pop(key, None)
        while len(self._open) > _MOST_OPEN:
            del self._open[next(iter(self._open))]
        self._records, self._calls, self._endings = [], [], []
        if wanted and self._journal is not None:
            self._journal.append(packs, durable=durable)


class Numbers:
    """(worker, seq) for calls that have none of their own.

    A worker stands for one source, tenant and day, a number for the microsecond of that day: what is read
    again from the same source, whether more days of it or fewer, gets the same pairs. Calls must come in the
    same order each time.
    """

    def __init__(self, key: bytes, source: str) -> None:
        """key: the installation's. source: what it is read from."""
        self._key = key
        self._source = source
        self._workers: dict[tuple[str, int], int] = {}
        self._last: dict[int, int] = {}

    def of(self, tenant: str, ts: float) -> tuple[int, int]:
        """The pair of the next call."""
        day = int(ts // _DAY)
        worker = self._workers.get((tenant, day))
        if worker is None:
            worker = self._workers[tenant, day] = self._worker(tenant, day)
        seq = max(int((ts - day * _DAY) * 1e6) + 1, self._last.get(worker, 0) + 1)
        self._last[worker] = seq
        return worker, seq

    def _worker(self, tenant: str, day: int) -> int:
        text = repr((self._source, tenant, day)).encode("utf-8", "surrogatepass")
        made = hashlib.blake2b(text, digest_size=8, key=self._key, person=_PERSON).digest()
        return int.from_bytes(made, "little") & _WORKER_BITS or 1
