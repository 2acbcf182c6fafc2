# SPDX-License-Identifier: Apache-2.0
"""What every journal backend must do, and what a worker says about itself in its heartbeat.

A record is opaque bytes made by the engine; the journal knows no scoring. Its cursor is a positive integer
that grows in the order in which records became visible: whoever has read up to cursor N has seen every
record up to N, and no record with a smaller cursor appears later. Cursor 0 is before the first record.

Heartbeats are liveness, not truth: only the newest one of each process is kept. A worker beats

* every HEARTBEAT_SECONDS, and
* at once after it applied a control record, with `cursor` at or past that record. `tool-firewall mode`
  waits for this to report that every live worker follows. A worker must therefore take `cursor` from what
  its engine has applied, not from what it has read.

On an orderly end it calls leave(), so that a heartbeat that grew old means a worker that hangs or was
killed. The heartbeat itself stays for a while: its `settings` are what the command line builds its engine
with.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypedDict

HEARTBEAT_SECONDS = 5.0
"""How often a worker beats."""

SILENT_SECONDS = 15.0
"""A worker whose last heartbeat is older than this counts as silent."""

FORGET_SECONDS = 86_400.0
"""Heartbeats older than this are dropped when a newer one is written."""


class JournalError(Exception):
    """The journal could not do what was asked; nothing of the failed call was kept.

    The text names the journal, what was wrong and what to do. Records handed to a failed append() are still
    the caller's: put them back and try again later.
    """


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
    instances: int  # plugin instances alive in this process
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
    """An append-only log with heartbeats beside it. Callable from any thread."""

    def append(self, batch: Sequence[bytes], *, durable: bool = False) -> int:
        """Adds records, all or none; returns the cursor of the last one (for an empty batch, of the newest).

        durable: return only when the records survive a power loss. Without it they survive the death of every
        process, and may be lost with the machine. Raises JournalError.
        """

    def read_since(self, cursor: int, limit: int = 1024) -> list[tuple[int, bytes]]:
        """Up to `limit` records after `cursor`, oldest first, each with its cursor. Raises JournalError."""

    def last(self) -> int:
        """The cursor of the newest record, 0 when there is none. Raises JournalError."""

    def beat(self, worker: str, body: Mapping[str, Any]) -> None:
        """Replaces the heartbeat of `worker`; body must be JSON (see Heartbeat). Raises JournalError."""

    def leave(self, worker: str) -> None:
        """Notes that a worker ended as it should; unknown ones are ignored. Raises JournalError."""

    def workers(self) -> list[Worker]:
        """The last heartbeat of each process, newest first. Raises JournalError."""

    def close(self) -> None:
        """Lets go of everything. May be called twice; using the journal afterwards raises JournalError."""
