# SPDX-License-Identifier: Apache-2.0
"""What one worker does for all: prune, make snapshots, watch the others, write anchors.

The workers elect it through the journal; when it ends or hangs, another one is elected within LEASE_SECONDS.
Everything here is done in small steps on the journal thread, or in a process of its own, so that no call
and no decision waits for it.
"""

from __future__ import annotations

import json
import logging
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Final

from .alarms import Alarms
from .config import Settings
from .journal.interface import Journal, Worker
from .liveness import Attendance, diverged
from .skew import Skew
from .snapshotter import INCOMPLETE
from .state import State

LEASE_SECONDS: Final = 10.0
_LEAD_EVERY: Final = 2.0
_TIDY_EVERY: Final = 1.0
_WATCH_EVERY: Final = 5.0
_PRUNE_EVERY: Final = 600.0  # looks for something to prune; then a slice a turn until there is none
_SNAPSHOT_CHECK_EVERY: Final = 5.0
_SNAPSHOT_RECORDS: Final = (
    500_000  # so many new ones make a snapshot due before its time: half a second to read
)
_SNAPSHOT_RETRY_SECONDS: Final = 60.0
_SNAPSHOT_SECONDS_AT_MOST: Final = 900.0  # a process that takes longer hangs
_DAY: Final = 86_400.0

logger = logging.getLogger(__name__)


class Keeper:
    """The duties of the elected worker. turn() is called by the journal thread, once a round."""

    def __init__(
        self,
        name: str,
        journal: Journal,
        settings: Settings,
        state: State,
        alarms: Alarms,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.leading = False
        self.history_missing = False
        """No snapshot can be made from the journal: the worker must save what it has learned itself."""
        self._name = name
        self._journal = journal
        self._settings = settings
        self._state = state
        self._alarms = alarms
        self._clock = clock
        self._due: dict[str, float] = {}
        self._attendance = Attendance(clock)
        self._skew = Skew()
        self._pruning = False
        self._snapshot_cursor = 0
        self._snapshot_at = clock()
        self._records_then = 0  # read when the last snapshot appeared
        self._making: subprocess.Popen[str] | None = None
        self._making_until = 0.0
        self._anchored = 0

    def turn(self, cursor: int, records_read: int, digests: Mapping[int, str], *, busy: bool) -> None:
        """One round. cursor: how far this worker has read; records_read: how many records that were;
        digests: of what it had read at recent cursors; busy: somebody waits for a record, so nothing long
        now.

        Raises JournalError.
        """
        if self._is_due("lead", _LEAD_EVERY):
            self._elect()
        if self._making is not None:
            self._look_at_process(self._making)
        if not self.leading:
            return
        if self._is_due("tidy", _TIDY_EVERY):
            self._journal.tidy()
        if self._settings.anchor_seconds and self._is_due("anchor", self._settings.anchor_seconds):
            self._anchor()
        if self._is_due("watch", _WATCH_EVERY):
            self._watch(digests)
        if self._is_due("snapshot", _SNAPSHOT_CHECK_EVERY):
            self._look_after_snapshots(cursor, records_read)
        if not busy and (self._pruning or self._is_due("prune", _PRUNE_EVERY)):
            self._pruning = self._prune() > 0

    def end(self) -> None:
        """At the end of the process: a snapshot that is being made may finish by itself."""
        if self._making is not None and self._making.poll() is None:
            logger.info("tool firewall: leaving a snapshot to finish by itself")

    def _is_due(self, what: str, seconds: float) -> bool:
        now = self._clock()
        if now < self._due.get(what, 0.0):
            return False
        self._due[what] = now + seconds
        return True

    def _elect(self) -> None:
        led, self.leading = self.leading, False
        self.leading = self._journal.lead(self._name, LEASE_SECONDS)
        if led and not self.leading:
            for cause in ("silent-worker", "clock-skew", "diverged"):
                self._alarms.clear(cause)

    def _anchor(self) -> None:
        """The end of the chain of digests, where whoever changes the journal cannot reach it: in the log."""
        anchor = self._journal.anchor()
        if anchor.digest and anchor.cursor != self._anchored:
            self._anchored = anchor.cursor
            logger.info("tool firewall anchor: cursor=%d digest=%s", anchor.cursor, anchor.digest)

    def _watch(self, digests: Mapping[int, str]) -> None:
        workers = self._journal.workers()
        self._say("silent-worker", self._attendance.silent(workers))
        self._say("clock-skew", self._skew.apart(workers))
        self._say("diverged", self._diverged(workers, digests))

    def _diverged(self, workers: list[Worker], digests: Mapping[int, str]) -> list[str]:
        here = self._journal.generation
        return diverged([worker for worker in workers if worker.body.get("generation") == here], digests)

    def _say(self, cause: str, problems: list[str]) -> None:
        if problems:
            self._alarms.report(cause, "; ".join(problems))
        else:
            self._alarms.clear(cause)

    def _prune(self) -> int:
        """One slice. Nothing that the older of the snapshots does not hold, so that one damaged snapshot
        costs nothing.
        """
        kept = self._journal.snapshots()
        now = time.time()
        # With a clock that was set back everything seems to come from a future that nobody believes: wait
        # until it is right, or until the snapshots are of its time.
        if not kept or any(info.at > now + _DAY for info in kept):
            return 0
        return self._journal.prune(
            calls_before=now - self._settings.keep_calls_days * _DAY,
            findings_before=now - self._settings.keep_findings_days * _DAY,
            upto=kept[-1].cursor,
        )

    def _look_after_snapshots(self, cursor: int, records_read: int) -> None:
        if self._making is not None or not self._settings.snapshot_minutes:
            return
        newest = max((info.cursor for info in self._journal.snapshots()), default=0)
        now = self._clock()
        if newest != self._snapshot_cursor:
            self._snapshot_cursor, self._snapshot_at, self._records_then = newest, now, records_read
        waited = now - self._snapshot_at
        new = records_read - self._records_then
        due = waited >= self._settings.snapshot_minutes * 60 or new >= _SNAPSHOT_RECORDS
        if due and cursor > newest and now >= self._due.get("snapshot-retry", 0.0):
            self._start_snapshot()

    def _start_snapshot(self) -> None:
        task = {"state": str(self._state.folder), "settings": self._settings.model_dump(mode="json")}
        try:
            # Not a pipe: that would hold up the journal thread until the other side reads it.
            with os.fdopen(os.memfd_create("tool-firewall-snapshot"), "w+", encoding="utf-8") as given:
                json.dump(task, given)
                given.seek(0)
                self._making = subprocess.Popen(
                    [sys.executable, "-m", "cpex_tool_firewall.snapshotter"],
                    stdin=given,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
        except OSError as error:
            self._no_snapshot(f"its process cannot be started ({error.strerror})")
        else:
            self._making_until = self._clock() + _SNAPSHOT_SECONDS_AT_MOST

    def _look_at_process(self, process: subprocess.Popen[str]) -> None:
        if process.poll() is not None:
            self._making = None
            self._finish_snapshot(process)
        elif self._clock() >= self._making_until:
            process.kill()  # found dead at the next turn
            self._making_until = math.inf

    def _finish_snapshot(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        with process.stdout, process.stderr:
            said, wrong = process.stdout.read(), process.stderr.read()
        if process.returncode == 0:
            logger.info("tool firewall: made a snapshot %s", said.strip())
            self._alarms.clear("snapshot")
        elif process.returncode == INCOMPLETE:
            self.history_missing = True
        else:
            lines = wrong.strip().splitlines()
            self._no_snapshot(lines[-1] if lines else _end(process.returncode))

    def _no_snapshot(self, why: str) -> None:
        self._due["snapshot-retry"] = self._clock() + _SNAPSHOT_RETRY_SECONDS
        self._alarms.report(
            "snapshot",
            f"no snapshot could be made: {why}. Nothing is lost, but restarts take longer and nothing is "
            "pruned",
        )


def _end(code: int) -> str:
    """How a process ended, in words."""
    return f"it was ended by signal {-code}" if code < 0 else f"exit {code}"
