# SPDX-License-Identifier: Apache-2.0
"""Costs that rise too slowly for `cost` to see, against what was usual at first and is never learned anew."""

import math
from collections import defaultdict
from dataclasses import dataclass

from .people import Scene

DAY = 86_400.0  # s
TOOL_CALLS = 50
TENANT_CALLS = 500
TOOL_SHRINK = 2.0  # calls
USER_DAYS = 5  # on which a user was active
USER_CALLS = 50
WORTH_TELLING = math.log(1.5)  # times the first cost
MOST_OF_A_CALL = 1.5  # nats
ENOUGH = 10.0  # nats
RISK = 0.5


@dataclass
class First:
    """The mean of the first calls."""

    most: int
    calls: int = 0
    mean: float = 0.0

    def learn(self, x: float) -> None:
        if self.calls < self.most:
            self.calls += 1
            self.mean += (x - self.mean) / self.calls


@dataclass
class Beginning:
    """Of a user: what calls cost in the first days, and how much too much was spent since."""

    calls: int = 0
    mean: float = 0.0
    days: int = 0
    day: int | None = None
    frozen: bool = False
    excess: float = 0.0  # nats


class CostDrift:
    def __init__(self) -> None:
        self.tools: defaultdict[tuple[str, str], First] = defaultdict(lambda: First(TOOL_CALLS))
        self.tenants: defaultdict[str, First] = defaultdict(lambda: First(TENANT_CALLS))
        self.users: defaultdict[tuple[str, str], Beginning] = defaultdict(Beginning)

    def measure(self, scene: Scene, ln_cost: float) -> float:
        """The risk this insists on; learns the call."""
        name = scene.user.name
        tool, tenant = self.tools[name[0], scene.tool.tool], self.tenants[name[0]]
        usual = (tool.calls * tool.mean + TOOL_SHRINK * tenant.mean) / (tool.calls + TOOL_SHRINK)
        tool.learn(ln_cost)
        tenant.learn(ln_cost)

        user = self.users[name]
        today = math.floor(scene.now / DAY)
        if not user.frozen:
            if user.day is None or today > user.day:
                user.day = today
                user.days += 1
            user.frozen = user.days > USER_DAYS and user.calls >= USER_CALLS
        if not user.frozen:
            user.calls += 1
            user.mean += (ln_cost - usual - user.mean) / user.calls
            return 0.0
        more = min(MOST_OF_A_CALL, ln_cost - usual - user.mean) - WORTH_TELLING
        user.excess = max(0.0, user.excess + more)
        if user.excess < ENOUGH:
            return 0.0
        user.excess = 0.0
        return RISK
