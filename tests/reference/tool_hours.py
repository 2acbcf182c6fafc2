# SPDX-License-Identifier: Apache-2.0
"""How often a tool was called in this hour, by everybody of a tenant together, and in the same hour of the
two weeks before; and when that is a spike. Hours are those of UTC."""

import math
from collections import defaultdict
from dataclasses import dataclass

from .decay import float32
from .people import Scene

HOUR = 3600.0  # s
WEEK = 168  # hours
WEEKS_KEPT = 3  # this one and two before
WEEKS_TOLD_APART = 32
SINCE_MONDAY = 72  # hours; 1970 began on a Thursday
RATIO = 3.0
DEVIATIONS = 6.0
BETWEEN_WEEKS = 0.25  # standard deviation of an hour between weeks, as a share


@dataclass
class Hour:
    week: int = -1  # modulo WEEKS_TOLD_APART
    calls: int = 0
    cost: float = 0.0


@dataclass(frozen=True)
class Usual:
    calls: float
    cost: float
    weeks: int  # it is the mean of; 0: there is nothing to compare with


class ToolHours:
    """Of all tenants. A week takes the place of the one WEEKS_KEPT before."""

    def __init__(self) -> None:
        self.hours: defaultdict[tuple[str, str, int, int], Hour] = defaultdict(Hour)

    def this(self, scene: Scene, back: int = 0) -> Hour:
        """The hour of a call so many weeks before; Hour() when nothing is known of it."""
        week, place = self._place(scene, back)
        hour = self.hours[place]
        return hour if hour.week == week else Hour()

    def usual(self, scene: Scene, first: float) -> Usual:
        """`first`: when the tenant was first seen, s."""
        since = math.floor(scene.now / HOUR) - math.floor(first / HOUR)
        weeks = min(WEEKS_KEPT - 1, since // WEEK) if since >= WEEK else 0
        before = [self.this(scene, back) for back in range(1, weeks + 1)]
        return Usual(
            sum(hour.calls / weeks for hour in before), sum(hour.cost / weeks for hour in before), weeks
        )

    def add_call(self, scene: Scene) -> None:
        week, place = self._place(scene, 0)
        if self.hours[place].week != week:
            self.hours[place] = Hour(week)
        self.hours[place].calls += 1

    def add_cost(self, scene: Scene, cost: float) -> None:
        """Nothing when the hour is over and its place taken."""
        hour = self.this(scene)
        hour.cost = float32(hour.cost + cost)

    @staticmethod
    def _place(scene: Scene, back: int) -> tuple[int, tuple[str, str, int, int]]:
        hour = math.floor(scene.now / HOUR) + SINCE_MONDAY
        week = hour // WEEK - back
        place = (scene.user.name[0], scene.tool.tool, hour % WEEK, week % WEEKS_KEPT)
        return week % WEEKS_TOLD_APART, place


def spike_from(usual: float, unit: float, weeks: int, least: float) -> float:
    """From which count, or sum of costs, an hour is a spike. `unit`: 1, or the usual cost of a call."""
    if weeks == 0:
        return least
    deviation = math.sqrt(unit * usual + (BETWEEN_WEEKS * usual) ** 2)
    return max(least, min(RATIO * usual, usual + DEVIATIONS * max(deviation, unit)))


def tells(at: float, before: float, after: float) -> str:
    """Of the step from `before` to `after`: "over" the limit, "doubled" over twice, four times ... of it,
    or "" for nothing worth telling."""
    if at <= 0 or after < at:
        return ""
    if before < at:
        return "over"
    return "doubled" if math.floor(math.log2(after / at)) > math.floor(math.log2(before / at)) else ""
