# SPDX-License-Identifier: Apache-2.0
"""Which time to believe: a day either way as it is; further off only when sixteen calls in a row agree."""

from collections import Counter
from typing import NamedTuple

FAR = 86_400.0  # s
SKEW = 60.0  # s
ENOUGH = 16  # calls
ENOUGH_DISPROVED = 1024  # votes


class Moment(NamedTuple):
    """One call's time (s): for what belongs to its user, and for what everybody shares."""

    own: float
    everybody: float


class Clock:
    """Live calls only; the reference knows no imported history."""

    def __init__(self) -> None:
        self.newest: float | None = None  # s, the latest time believed
        self.strange: list[float] = []  # times of the strange calls in a row
        self.wrong_by: float | None = None  # s, how far off a clock found wrong is
        self.votes = 0  # for that clock
        self.jump: tuple[float, float] | None = None  # s, from and to, when the last call was believed
        self.met: Counter[str] = Counter()

    def read(self, ts: float) -> Moment:
        self.jump = None
        if self.newest is None:
            self.newest = ts
        if abs(ts - self.newest) > FAR:
            return self._strange(ts, self.newest)
        if self.strange:
            off = self.strange[-1] - self.newest
            if self.wrong_by is None or abs(off - self.wrong_by) > FAR:
                self.wrong_by = off
                self.votes = 0
            self.strange.clear()
        self.votes = max(0, self.votes - 2)
        self.newest = max(self.newest, ts)
        return Moment(ts, ts)

    def settled(self, ts: float) -> float:
        """A time of something that is no call."""
        return ts if self.newest is None or abs(ts - self.newest) <= FAR else self.newest

    def _strange(self, ts: float, newest: float) -> Moment:
        off = ts - newest
        self.met["clock_ahead" if off > 0 else "clock_behind"] += 1
        if self.strange:
            first, last = self.strange[0], self.strange[-1]
            same_side = (first > newest) == (off > 0)
            if not (same_side and last - FAR <= ts <= last + max(FAR, abs(first - newest))):
                self.strange.clear()
        self.strange.append(ts)
        if self.wrong_by is None or abs(off - self.wrong_by) > FAR:
            return self._believe(ts, newest) if len(self.strange) >= ENOUGH else Moment(ts, newest)
        self.votes += 1
        if self.votes >= ENOUGH_DISPROVED:
            self.met["clock_outvoted"] += 1
            return self._believe(ts, newest)
        self.wrong_by = min(self.wrong_by, off)
        self.met["clock_corrected"] += 1
        return Moment(ts - self.wrong_by, newest)

    def _believe(self, ts: float, newest: float) -> Moment:
        self.met["clock_moved_on" if ts > newest else "clock_moved_back"] += 1
        self.jump = (newest, ts)
        self.newest = ts
        self.strange.clear()
        self.wrong_by = None
        self.votes = 0
        return Moment(ts, ts)
