# SPDX-License-Identifier: Apache-2.0
"""What is wrong with the firewall right now, for the log, the heartbeat and the metrics.

An alarm has a cause, a fixed word such as ``state``. It is logged as an ERROR when it begins and when its
text changes, and otherwise only counted, however often it is raised; its end is logged too. A cause that
comes and goes is logged once a minute at most: what began within that minute is logged after it, if it is
raised then.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from dataclasses import dataclass

_QUIET_SECONDS = 60.0

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _Alarm:
    text: str = ""
    told: str = ""  # the text that was logged last since the alarm began
    active: bool = False
    count: int = 0
    logged: float = -math.inf  # monotonic, as is the next one
    until: float = math.inf


class Alarms:
    """The alarms of one process. Callable from any thread; never raises."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._alarms: dict[str, _Alarm] = {}

    def report(self, cause: str, text: str, *, lasts: float = math.inf) -> None:
        """Raises the alarm `cause`. `text`: what is wrong and what to do, without anything secret.

        lasts: after so many seconds without another report it no longer counts as on; for what nobody clears.
        """
        now = time.monotonic()
        with self._lock:
            alarm = self._alarms.setdefault(cause, _Alarm())
            if now >= alarm.until:  # it had ended by itself
                alarm.told = ""
            speak = alarm.told != text and now - alarm.logged >= _QUIET_SECONDS
            alarm.count += 1
            alarm.active, alarm.text, alarm.until = True, text, now + lasts
            if speak:
                alarm.logged, alarm.told = now, text
        if speak:
            logger.error("tool firewall alarm [%s]: %s", cause, text)

    def clear(self, cause: str) -> None:
        """Ends the alarm `cause`, if it is on."""
        with self._lock:
            alarm = self._alarms.get(cause)
            if alarm is None or not alarm.active:
                return
            alarm.active = False
            told, alarm.told = alarm.told, ""
            count = alarm.count
        if told:
            logger.warning("tool firewall alarm [%s] is over (raised %d times so far)", cause, count)

    def active(self) -> list[str]:
        """One sentence for each alarm that is on."""
        now = time.monotonic()
        with self._lock:
            return [
                f"{cause}: {alarm.text}"
                for cause, alarm in self._alarms.items()
                if alarm.active and now < alarm.until
            ]

    def counts(self) -> dict[str, int]:
        """How often each cause was raised since the process started."""
        with self._lock:
            return {cause: alarm.count for cause, alarm in self._alarms.items()}

    def start_anew(self) -> None:
        """In a forked child: the parent's troubles are not its own, and a lock held there is never let go."""
        self._lock = threading.Lock()
        self._alarms.clear()
