# SPDX-License-Identifier: Apache-2.0
"""What every journal backend must do, and what a worker says about itself in its heartbeat.

A journal keeps *packs*: up to 256 records of one kind, encoded by the engine (native/journal/pack.h). It
knows their kind, which decides how long they are kept, and nothing else about them: the journal knows no
scoring.

Its cursor is a positive integer that grows in the order in which packs became visible: whoever has read up to
cursor N has seen everything up to N, and nothing with a smaller cursor appears later. Cursor 0 is before the
first pack.

A pack may be stored twice, when the first try was cut short or the store lost what it had confirmed: readers
tell records apart by (worker, seq), so the second copy changes nothing.

Heartbeats are liveness, not truth: only the newest one of each process is kept. A worker beats

* every HEARTBEAT_SECONDS, and
* at once after it applied a control record, with `cursor` at or past that record. `tool-firewall mode`
  waits for this to report that every live worker follows. A worker must therefore take `cursor` from what
  its engine has applied, not from what it has read.

On an orderly end it calls leave(), so that a heartbeat that grew old means a worker that hangs or was
killed. The heartbeat itself stays for a while: its `settings` are what the command line builds its engine
with.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple, Protocol, TypedDict

HEARTBEAT_SECONDS = 5.0
"""How often a worker beats."""

SILENT_SECONDS = 15.0
"""A worker whose last heartbeat is older than this counts as silent."""

FORGET_SECONDS = 86_400.0
"""Heartbeats older than this are dropped when a newer one is written."""

SNAPSHOTS_KEPT = 2
"""Older snapshots are deleted when a newer one was saved: one to use, one in case that one is damaged."""


class JournalError(Exception):
    """The journal could not do what was asked; nothing of the failed call was kept.

    The text names the journal, what was wrong and what to do. Packs handed to a failed append() are still the
    caller's: keep them and try again later.
    """


class JournalLost(JournalError):
    """What is behind this journal is not the history it was opened with, or no longer all of it.

    Files were moved, deleted, replaced or damaged; a server restarted empty or failed over to a copy that
    lags. Every call raises this until heal() was called.
    """


class Kind(IntEnum):
    """What a record is worth; equals the class in its header (native/journal/record.h)."""

    ORDINARY = 0  # allowed calls, and how calls ended
    FINDING = 1  # calls that were listed, warned about or stopped
    CONTROL = 2  # changes by an operator, and what the firewall says about itself


class Pack(NamedTuple):
    """Records on their way into a journal."""

    kind: int  # a Kind
    records: int  # how many
    body: bytes


class Entry(NamedTuple):
    """One pack in a journal."""

    cursor: int
    kind: int
    records: int
    body: bytes


class SnapshotInfo(NamedTuple):
    """One saved snapshot."""

    cursor: int  # it holds everything up to here
    at: float  # seconds since the epoch, when it was saved
    size: int  # bytes


@dataclass(frozen=True, slots=True)
class Verified:
    """What verify() found. Whole when `problem` is ""."""

    records: int  # that were checked
    pruned: int  # that are gone, as signed checkpoints say
    first: int  # cursors
    last: int
    digest: str  # of the newest record, hex: an anchor, when somebody outside keeps it
    problem: str = ""  # the first record that was altered, removed or reordered, and how one can tell
    lost: int = 0  # at least so many are gone with files that were damaged or replaced, as signed notes say


class Anchor(NamedTuple):
    """The end of the chain of digests at some time; kept outside it proves that nothing was cut off since."""

    cursor: int
    digest: str  # 32 hex characters; "" while there is none


class Heartbeat(TypedDict, total=False):
    """Body of a heartbeat. Readers must not rely on any key: older versions may not send it."""

    pid: int
    host: str
    started: float  # seconds since the epoch, when this process started its runtime
    last_seen: float  # seconds since the epoch, when this was written
    version: str  # of this plugin
    gateway: str  # version of the gateway, "" when it is not installed
    cpex: str
    python: str
    fail_on_plugin_error: bool  # PLUGINS_FAIL_ON_PLUGIN_ERROR is true in this process
    mode: str  # in force for calls that no narrower scope names
    settings: dict[str, Any]  # base settings, Settings.model_dump(mode="json"): how the console learns them
    cursor: int  # applied up to here
    generation: str  # of the journal it reads; cursors of different generations cannot be compared
    digest: str  # of everything it read up to `cursor`, hex; "" when it did not read from the beginning
    instances: int  # plugin instances alive in this process
    plugin_mode: (
        str  # how the gateway runs the plugin: sequential | transform | ... | disabled; "" when unknown
    )
    plugin_priority: int
    counters: dict[str, int]  # Engine.counters()
    alarms: list[str]  # what is wrong right now, one sentence each; [] when all is well


@dataclass(frozen=True, slots=True)
class Worker:
    """The last sign of life of one process: alive, silent (hangs or was killed), or left."""

    name: str
    seen: float  # seconds since the epoch, by the clock of the worker's host
    body: dict[str, Any]  # a Heartbeat, as far as that version knew it
    left: bool = False  # it said good-bye

    def silent(self, now: float) -> bool:
        """True when a worker that did not leave has not been heard of for longer than SILENT_SECONDS."""
        return not self.left and now - self.seen > SILENT_SECONDS

    def alive(self, now: float) -> bool:
        """True when the worker was heard of within SILENT_SECONDS and did not leave."""
        return not self.left and not self.silent(now)


class Journal(Protocol):
    """An append-only log with snapshots and heartbeats beside it. Callable from any thread.

    Everything raises JournalError when it cannot be done, JournalLost when heal() is needed first.
    """

    @property
    def where(self) -> str:
        """Where it is, for people: a path or an address without credentials."""

    @property
    def generation(self) -> str:
        """Names this history. A journal that was begun anew has another one: its cursors start over."""

    def append(self, packs: Sequence[Pack], *, durable: bool = False) -> int:
        """Adds packs, all or none; returns the cursor of the last one (for none, of the newest).

        durable: return only when they survive what the backend promises to survive (SQLite: a power loss).
        Without it they survive the death of every process of ours, and may be lost with the machine.
        """

    def read_since(self, cursor: int, limit: int = 256) -> list[Entry]:
        """Up to `limit` packs after `cursor`, oldest first."""

    def last(self) -> int:
        """The cursor of the newest pack, 0 when there was none."""

    def first(self) -> int:
        """Reading from before this cursor misses ordinary records: they were pruned. 0 when nothing was."""

    def prune(self, *, calls_before: float, findings_before: float, upto: int) -> int:
        """Removes one small slice of what was stored before those times (s since the epoch), never beyond the
        cursor `upto`; ordinary records by the first time, findings by the second, control records never.

        Leaves a signed note of what it removed, so that verify() tells pruning from tampering. Holds no lock
        for longer than 50 ms. Returns how many records it removed; call again until that is 0.
        """

    def save_snapshot(self, cursor: int, body: bytes) -> None:
        """Stores the state of an engine that has read up to `cursor`, all or nothing; keeps the newest
        SNAPSHOTS_KEPT.
        """

    def snapshots(self) -> list[SnapshotInfo]:
        """What snapshots there are, newest first."""

    def load_snapshot(self, cursor: int) -> bytes:
        """The body of one of snapshots(). Whether it is intact, Engine.restore() finds out."""

    def anchor(self) -> Anchor:
        """The end of the chain of digests."""

    def verify(
        self, anchors: Sequence[Anchor] = (), progress: Callable[[int, int], None] | None = None
    ) -> Verified:
        """Checks every digest from the first record to the last, and that `anchors` are still in the chain.

        progress(records done, records in all), now and then.
        """

    def lead(self, worker: str, seconds: float) -> bool:
        """Elects one worker: True when `worker` holds the lead for the next `seconds`, newly or as before."""

    def tidy(self) -> None:
        """What the elected worker does once a second to keep the store in order; quick."""

    def heal(self, cursor: int) -> int:
        """After JournalLost: saves what can be saved and goes on with a working history. Returns the cursor
        to read on from (`cursor`: how far the caller had read); 0 when the history is another one, or an
        older one. The caller appends again whatever it stored during the last RESEND_SECONDS; what is already
        there does no harm. From then on workers may have read the same in another order.
        """

    def beat(self, worker: str, body: Mapping[str, Any]) -> None:
        """Replaces the heartbeat of `worker`; body must be JSON (see Heartbeat)."""

    def leave(self, worker: str) -> None:
        """Notes that a worker ended as it should; unknown ones are ignored."""

    def workers(self) -> list[Worker]:
        """The last heartbeat of each process, newest first."""

    def size(self) -> int:
        """Bytes in use, snapshots not included; 0 when unknown."""

    def notes(self) -> list[str]:
        """What is wrong right now although the journal works, one sentence each; [] when all is well. Asks
        nobody and never fails: it is what was found while the journal was used.
        """

    def suspend(self) -> None:
        """Closes files and connections until the next use opens them again: called before a fork, so that
        the child inherits none. What a child inherits of SQLite makes it take no locks of its own.
        """

    def close(self) -> None:
        """Lets go of everything. May be called twice; using the journal afterwards raises JournalError."""


RESEND_SECONDS = 10.0
"""How long a worker remembers what it stored, to store it again after heal()."""


def records_since(journal: Journal, cursor: int = 0) -> list[bytes]:
    """All records after `cursor`, one by one; for tools and tests, not for large journals."""
    from .._native import unpack

    found: list[bytes] = []
    while entries := journal.read_since(cursor):
        for entry in entries:
            found += unpack(entry.body)
        cursor = entries[-1].cursor
    return found
