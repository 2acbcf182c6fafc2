# SPDX-License-Identifier: Apache-2.0
"""Whether the clocks of the workers agree, by what their heartbeats say they were written at.

A heartbeat is noticed a while after it was written, so a clock that is behind looks a little more so: it is
reported later than one that is ahead.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Final

from .journal.interface import HEARTBEAT_SECONDS, Worker
from .liveness import name_of

SKEW_SECONDS: Final = 2.0
"""So far apart clocks may be without anybody saying so."""

_LATE_SECONDS: Final = HEARTBEAT_SECONDS + 3.0
"""A heartbeat is noticed so late at most, when whoever asks does so as often as workers beat."""


class Skew:
    """Compares clocks with this host's. Ask it at every look, or nothing is noticed."""

    def __init__(self) -> None:
        self._ahead: dict[str, tuple[float, float]] = {}  # name -> (last heartbeat, how far ahead it was)

    def apart(self, workers: Iterable[Worker]) -> list[str]:
        """A sentence for each worker that lives and whose clock differs from ours."""
        now = time.time()
        known: dict[str, tuple[float, float]] = {}
        problems = []
        for worker in workers:
            written = worker.body.get("last_seen")
            if worker.left or not isinstance(written, int | float):
                continue
            before, ahead = self._ahead.get(worker.name, (written, 0.0))
            if written != before:
                ahead = written - now
            known[worker.name] = (written, ahead)
            if ahead > SKEW_SECONDS or ahead < -(SKEW_SECONDS + _LATE_SECONDS):
                where = "ahead of" if ahead > 0 else "behind"
                problems.append(
                    f"the clock of {name_of(worker)} is about {abs(ahead):.0f} s {where} this one's: its "
                    "calls count at other times. Let the hosts synchronise their clocks"
                )
        self._ahead = known
        return problems
