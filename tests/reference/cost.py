# SPDX-License-Identifier: Apache-2.0
"""cost: how dear a call and a user's last calls are for what they do, given tool, user and group.

The only channel measured twice: before a call from what was spent so far, after it with what it cost.
"""

import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from .cost_drift import CostDrift, another_day
from .decay import float32
from .frequency import CLIP, FIRST_VARIANCE, GROUP_KNOWN_FROM, MEMORY, SHRINK, Moments
from .fusion import HIGH_RISK, Channel
from .people import Peers, Scene, Session, later
from .tool_cost import ToolCost

CHANNELS = (
    Channel("cost", (0, 0.78, 1.21, 1.63, 2.30, 2.78, 3.32, 3.94, 4.34, 4.68, 5.12), alone_group=2.2),
)
LEAST_VARIANCE = 0.04  # of the ln of costs; prices that never change would make a trifle rare
DOUBT = 0.25  # variance of a mean of one call
RUN = 10  # calls
RUN_IDLE = 1800.0  # s without a call that cost something
RUN_LEAST, RUN_MOST = -2.5, 3.5  # standard deviations of one call in a run
DEAR = 1.5  # standard deviations; only a dear call makes a run


@dataclass
class Spender:
    """A user."""

    usual: Moments = field(default_factory=Moments)  # ln of cost over the tool's usual
    run: list[float] = field(default_factory=list)  # standard deviations of the last costs, newest last
    last: float | None = None  # s
    session: str | None = None
    dear: bool = False  # the last call
    day: int | None = None
    day_spent: float = 0.0


class Cost:
    name = "cost"
    channels = CHANNELS

    def __init__(self, session_budget: float, day_budget: float) -> None:
        self.session_budget = session_budget  # 0: none
        self.day_budget = day_budget  # 0: none
        self.users: defaultdict[tuple[str, str], Spender] = defaultdict(Spender)
        self.groups: defaultdict[int, Moments] = defaultdict(Moments)
        self.tools: defaultdict[tuple[str, str], ToolCost] = defaultdict(ToolCost)  # by tenant and tool
        self.tenants: defaultdict[str, Moments] = defaultdict(Moments)
        self.drift = CostDrift()
        self.met: Counter[str] = Counter()

    def measure(self, scene: Scene) -> list[float]:
        """Before the call: what the last calls say, if the user's last one was a dear one of this session."""
        user = self.users[scene.user.name]
        self._numbers = (0.0, 0.0)
        score = 0.0
        fresh = user.last is not None and scene.now - user.last <= RUN_IDLE
        if fresh and user.dear and user.session == scene.session.id:
            score, calls = self._run(user.run)
            self._numbers = (calls, 0.0)
        self._floor = self._over_budget(
            scene.session.spent, user.day_spent if user.day == scene.day else 0.0, "before"
        )
        return [score]

    def floor(self) -> float:
        return self._floor

    def numbers(self, scene: Scene) -> tuple[float, float]:
        """Before the call, how many calls are dear together; after it, its cost and the usual one. Or what
        was spent and the budget."""
        return self._numbers

    def facts(self, name: tuple[str, str], group: Peers) -> dict[str, float]:
        user = self.users[name]
        if user.usual.n == 0:
            return {}
        return {
            "calls": user.usual.n,
            "times_usual": math.exp(self._of_user(user.usual, self.groups[id(group)])),
            "times_at_first": math.exp(self.drift.users[name].mean),
            "spent_today": user.day_spent,
        }

    def measure_after(self, scene: Scene, session: Session | None, cost: float) -> list[float] | None:
        """With what the call did cost, and learns it. None when it cost nothing."""
        self._floor = 0.0
        if cost <= 0:
            return None
        name = scene.user.name
        user, group = self.users[name], self.groups[id(scene.group)]
        tool, tenant = self.tools[name[0], scene.tool.tool], self.tenants[name[0]]
        ln_cost = math.log(cost)
        of_tool = tool.shrunk(tenant.mean)
        of_user = self._of_user(user.usual, group)
        prior = max(group.variance, 0.1 * FIRST_VARIANCE) if group.n > GROUP_KNOWN_FROM else FIRST_VARIANCE
        variance = (user.usual.n * user.usual.variance + SHRINK * prior) / (user.usual.n + SHRINK)
        deviation = math.sqrt(
            max(variance, LEAST_VARIANCE) + DOUBT / (tool.calls + 1) + DOUBT / (user.usual.n + 1)
        )
        z = (ln_cost - of_tool - of_user) / deviation

        if user.last is None or scene.now - user.last > RUN_IDLE:
            user.run = []
        user.run = [*user.run, float32(min(RUN_MOST, max(RUN_LEAST, z)))][-RUN:]
        user.last = later(user.last, scene.now)
        user.session, user.dear = None if session is None else session.id, z >= DEAR
        score, self._numbers = max(0.0, z), (cost, math.exp(of_tool + of_user))
        if user.dear:
            of_run, calls = self._run(user.run)
            self.met["cost_run"] += of_run > score and calls > 2
            score = max(score, of_run)

        at_first = self.drift.measure(scene, ln_cost)
        if at_first is not None:
            self.met["cost_drift"] += 1
            self._numbers = (cost, math.exp(at_first))
            self._floor = HIGH_RISK
        self._spend(user, session, scene.day, cost)

        learned = of_tool + of_user + min(CLIP, max(-CLIP, z)) * deviation
        tool.learn(learned - of_user, int(MEMORY))
        tenant.learn(learned - of_user)
        user.usual.learn(learned - of_tool)
        group.learn(learned - of_tool)
        return [score]

    def _spend(self, user: Spender, session: Session | None, day: int, cost: float) -> None:
        if another_day(day, user.day):
            user.day, user.day_spent = day, 0.0
        user.day_spent += cost
        if session is not None:
            session.spent += cost
        over = self._over_budget(0.0 if session is None else session.spent, user.day_spent, "after")
        self._floor = max(self._floor, over)

    def _over_budget(self, of_session: float, of_day: float, when: str) -> float:
        if 0 < self.session_budget < of_session:
            self._numbers = (of_session, self.session_budget)
            self.met[f"session_budget_{when}"] += 1
        elif 0 < self.day_budget < of_day:
            self._numbers = (of_day, self.day_budget)
            self.met[f"day_budget_{when}"] += 1
        else:
            return 0.0
        return HIGH_RISK

    @staticmethod
    def _of_user(user: Moments, group: Moments) -> float:
        return (user.n * user.mean + SHRINK * group.mean) / (user.n + SHRINK)

    @staticmethod
    def _run(run: list[float]) -> tuple[float, float]:
        """The last calls that together are furthest above what is usual: how far, and how many."""
        total, best, most = 0.0, 0.0, 0.0
        for calls, z in enumerate(reversed(run), 1):
            total += z
            if total / math.sqrt(calls) > best:
                best, most = total / math.sqrt(calls), float(calls)
        return best, most
