# SPDX-License-Identifier: Apache-2.0
"""burst: too many calls at once, a floor under the risk whatever the other signals say."""

import math
from collections import defaultdict, deque
from dataclasses import dataclass, field

from .people import Scene, later

MINUTE = 60.0
DAY = 86400.0
FIRST_RECORD = 3.0
RECORD_WINDOW = 600.0  # s
RECORD_GROWTH = 3.0
RECORD_HALF_LIFE = 30 * DAY
LEAST = 15.0  # calls
OVER = 2.5  # times the record
HIGHEST = 0.9
EXEMPT_DAYS = 3
LAPSES_AFTER = 30  # days


@dataclass
class State:
    last: float | None = None
    minute: float = 0.0  # decayed count of calls
    minute_ran: float = 0.0  # of those that were not blocked; only these make a record
    recent: deque[float] = field(default_factory=deque)  # the last calls, at most as many as the limit
    burst_calls: int = 0  # since the limit was passed
    record: float = FIRST_RECORD
    window_start: float | None = None
    window_most: float = 0.0
    days: list[int] = field(default_factory=list)  # on which the limit was passed, unblocked; ascending


class Burst:
    name = "burst"
    channels = ()

    def __init__(self, window: float, limit: int) -> None:
        self.window = window  # s
        self.limit = limit  # calls
        self.users: defaultdict[tuple[str, str], State] = defaultdict(State)

    def measure(self, scene: Scene) -> list[float]:
        user = self.users[scene.user.name]
        since = 0.0 if user.last is None else max(0.0, scene.now - user.last)
        fade = math.exp(-since / MINUTE)
        self._minute = user.minute * fade + 1
        self._ran_before = user.minute_ran * fade
        self._record = user.record
        self._over = len(user.recent) == self.limit and abs(scene.now - user.recent[0]) < self.window
        self._calls = self.limit + user.burst_calls + 1
        self._limited = self._over and not self.exempt(user, scene.now)
        floors = [0.0]
        if self._minute >= LEAST and self._minute >= OVER * self._record:
            floors.append(0.5 + 0.1 * math.log2(self._minute / (OVER * self._record)))
        if self._limited:
            floors.append(0.5 + 0.1 * math.log2(self._calls / self.limit))
        self._floor = min(HIGHEST, max(floors))
        return []

    def floor(self) -> float:
        return self._floor

    def numbers(self, scene: Scene) -> tuple[float, float]:
        return (self._calls, self.limit) if self._limited else (self._minute, self._record)

    def facts(self, user: tuple[str, str], now: float) -> dict[str, float]:
        state = self.users[user]
        return {
            "record_60s": state.record,
            "days_over_limit": len(state.days),
            "exempt": self.exempt(state, now),
        }

    def exempt(self, user: State, now: float) -> bool:
        """Passed the limit on three earlier days, the last of them at most 30 days ago."""
        today = math.floor(now / DAY)
        earlier = len(user.days) - (user.days[-1] >= today if user.days else 0)
        return earlier >= EXEMPT_DAYS and today - user.days[-1] <= LAPSES_AFTER

    def count_call(self, scene: Scene, blocked: bool) -> None:
        user = self.users[scene.user.name]
        user.last = later(user.last, scene.now)
        user.minute = self._minute
        user.minute_ran = self._ran_before + (not blocked)
        user.recent.append(scene.now)
        if len(user.recent) > self.limit:
            user.recent.popleft()
        user.burst_calls = user.burst_calls + 1 if self._over else 0
        if blocked:
            return
        if self._over:
            self._remember_day(user, scene.now)
        if user.window_start is None:
            user.window_start = scene.now
        age = abs(scene.now - user.window_start)
        if age > RECORD_WINDOW:
            faded = user.record * math.exp2(-age / RECORD_HALF_LIFE)
            user.record = max(FIRST_RECORD, faded, min(user.window_most, RECORD_GROWTH * user.record))
            user.window_start = scene.now
            user.window_most = 0.0
        user.window_most = max(user.window_most, user.minute_ran)

    @staticmethod
    def _remember_day(user: State, now: float) -> None:
        today = math.floor(now / DAY)
        if user.days and today <= user.days[-1]:
            return
        if user.days and today - user.days[-1] > LAPSES_AFTER:
            user.days.clear()
        user.days.append(today)
