# SPDX-License-Identifier: Apache-2.0
"""Costs that rise too slowly for `cost` to see, against what was usual at first and is never learned anew."""

import math
from collections import defaultdict
from dataclasses import dataclass

from .people import Scene
from .tool_cost import ToolCost

TOOL_CALLS = 50
TENANT_CALLS = 500
USER_DAYS = 5  # on which a user was active
USER_CALLS = 50
WORTH_TELLING = math.log(1.5)  # times the first cost
MOST_OF_A_CALL = 1.5  # nats
ENOUGH = 10.0  # nats


def another_day(day: int, last: int | None) -> bool:
    """Whether a call's day is another one than that of the last call. A call that began before midnight and
    ended later is one of today; what is further back comes from a clock that was wrong, now or then."""
    return last is None or day > last or day < last - 1


@dataclass
class First:
    """The mean of the first calls."""

    calls: int = 0
    mean: float = 0.0

    def learn(self, x: float) -> None:
        self.calls += 1
        self.mean += (x - self.mean) / self.calls


@dataclass
class Beginning:
    """Of a user: what calls cost in the first days, and how much too much was spent since."""

    calls: int = 0
    mean: float = 0.0
    days: int = 0  # beyond USER_DAYS, what calls cost at first is settled
    day: int | None = None
    excess: float = 0.0  # nats


class CostDrift:
    def __init__(self) -> None:
        self.tools: defaultdict[tuple[str, str], ToolCost] = defaultdict(ToolCost)
        self.tenants: defaultdict[str, First] = defaultdict(First)
        self.users: defaultdict[tuple[str, str], Beginning] = defaultdict(Beginning)

    def measure(self, scene: Scene, ln_cost: float) -> float | None:
        """The ln of what this call would have cost at first, when that is worth telling; learns the call."""
        name = scene.user.name
        tool, tenant = self.tools[name[0], scene.tool.tool], self.tenants[name[0]]
        more = ln_cost - tool.shrunk(tenant.mean)
        if tool.calls < TOOL_CALLS:
            tool.learn(ln_cost, TOOL_CALLS)
        if tenant.calls < TENANT_CALLS:
            tenant.learn(ln_cost)

        user = self.users[name]
        if user.days <= USER_DAYS:
            if another_day(scene.day, user.day):
                if user.days < USER_DAYS or user.calls >= USER_CALLS:
                    user.days += 1
                user.day = scene.day
            if user.days <= USER_DAYS:
                user.calls += 1
                user.mean += (more - user.mean) / user.calls
                return None
        user.excess = max(0.0, user.excess + min(MOST_OF_A_CALL, more - user.mean) - WORTH_TELLING)
        if user.excess < ENOUGH:
            return None
        user.excess = 0.0
        return ln_cost - more + user.mean
