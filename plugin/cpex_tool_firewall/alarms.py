# SPDX-License-Identifier: Apache-2.0
"""What is wrong with the firewall right now, for the log, the heartbeat and the metrics.

An alarm has a cause, a fixed word such as ``journal``. It is logged as an ERROR when it begins, and after
that only counted, however often it is raised; its end is logged too. A cause that comes and goes is logged
once a minute at most.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass

_QUIET_SECONDS = 60.0

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Alarm:
    text: str = ""
    active: bool = False
    count: int = 0
    logged: float | None = None  # monotonic


class Alarms:
    """The alarms of one process. Callable from any thread; never raises."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._alarms: dict[str, _Alarm] = {}

    def report(self, cause: str, text: str) -> None:
        """Raises the alarm `cause`. `text`: what is wrong and what to do, without anything secret."""
        now = time.monotonic()
        with self._lock:
            alarm = self._alarms.setdefault(cause, _Alarm())
            alarm.count += 1
            begins = not alarm.active
            alarm.active, alarm.text = True, text
            speak = begins and (alarm.logged is None or now - alarm.logged >= _QUIET_SECONDS)
            if speak:
                alarm.logged = now
        if speak:
            logger.error("tool firewall alarm [%s]: %s", cause, text)

    def clear(self, cause: str) -> None:
        """Ends the alarm `cause`, if it is on."""
        with self._lock:
            alarm = self._alarms.get(cause)
            if alarm is None or not alarm.active:
                return
            alarm.active = False
            count = alarm.count
        logger.warning("tool firewall alarm [%s] is over (raised %d times so far)", cause, count)

    def active(self) -> list[str]:
        """One sentence for each alarm that is on."""
        with self._lock:
            return [f"{cause}: {alarm.text}" for cause, alarm in self._alarms.items() if alarm.active]

    def counts(self) -> dict[str, int]:
        """How often each cause was raised since the process started."""
        with self._lock:
            return {cause: alarm.count for cause, alarm in self._alarms.items()}

    def renew_after_fork(self) -> None:
        """In a forked child: a lock that another thread held in the parent would never be released here."""
        self._lock = threading.Lock()
