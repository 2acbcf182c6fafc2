# SPDX-License-Identifier: Apache-2.0
"""cost: how dear a call and a user's last calls are for what they do, given tool, user and group.

The only signal measured twice: before a call from what was spent so far, after it with what it cost.
"""

import math
from collections import defaultdict
from dataclasses import dataclass, field

from .cost_drift import CostDrift
from .decay import float32
from .frequency import CLIP, FIRST_VARIANCE, GROUP_KNOWN_FROM, SHRINK, Moments
from .fusion import Channel
from .people import Scene, later

CHANNELS = (
    Channel("cost", (0, 0.78, 1.21, 1.63, 2.30, 2.78, 3.32, 3.94, 4.34, 4.68, 5.12), alone_group=2.2),
)
TOOL_SHRINK = 2.0  # calls
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
    session: str = ""
    dear: bool = False  # the last call


class Cost:
    name = "cost"
    channels = CHANNELS

    def __init__(self) -> None:
        self.users: defaultdict[tuple[str, str], Spender] = defaultdict(Spender)
        self.groups: defaultdict[int, Moments] = defaultdict(Moments)
        self.tools: defaultdict[tuple[str, str], Moments] = defaultdict(Moments)  # by tenant and tool
        self.tenants: defaultdict[str, Moments] = defaultdict(Moments)
        self.drift = CostDrift()

    def measure(self, scene: Scene) -> list[float]:
        """Before the call: what the last calls say, if the user's last one was a dear one of this session."""
        user = self.users[scene.user.name]
        self._numbers, self._floor = (0.0, 0.0), 0.0
        fresh = user.last is not None and scene.now - user.last <= RUN_IDLE
        if not (fresh and user.dear and user.session == scene.session.id):
            return [0.0]
        score, self._numbers = self._run(user.run)
        return [score]

    def floor(self) -> float:
        return self._floor

    def numbers(self, scene: Scene) -> tuple[float, float]:
        """The call's cost and the usual one; or the mean excess of the last calls and how many they are."""
        return self._numbers

    def measure_after(self, scene: Scene, cost: float) -> list[float]:
        """With what the call did cost, above 0, and learns it."""
        name = scene.user.name
        user, group = self.users[name], self.groups[id(scene.group)]
        tool, tenant = self.tools[name[0], scene.tool.tool], self.tenants[name[0]]
        ln_cost = math.log(cost)
        of_tool = (tool.n * tool.mean + TOOL_SHRINK * tenant.mean) / (tool.n + TOOL_SHRINK)
        of_user = (user.usual.n * user.usual.mean + SHRINK * group.mean) / (user.usual.n + SHRINK)
        prior = max(group.variance, 0.1 * FIRST_VARIANCE) if group.n > GROUP_KNOWN_FROM else FIRST_VARIANCE
        variance = (user.usual.n * user.usual.variance + SHRINK * prior) / (user.usual.n + SHRINK)
        doubt = DOUBT / (tool.n + 1) + DOUBT / (user.usual.n + 1)
        deviation = math.sqrt(max(variance, LEAST_VARIANCE) + doubt)
        z = (ln_cost - of_tool - of_user) / deviation

        if user.last is None or scene.now - user.last > RUN_IDLE:
            user.run = []
        user.run = [*user.run, float32(min(RUN_MOST, max(RUN_LEAST, z)))][-RUN:]
        user.last = later(user.last, scene.now)
        user.session, user.dear = scene.session.id, z >= DEAR
        score, self._numbers = max(0.0, z), (cost, math.exp(of_tool + of_user))
        if user.dear:
            of_run, numbers = self._run(user.run)
            if of_run > score:
                score, self._numbers = of_run, numbers
        self._floor = self.drift.measure(scene, ln_cost)

        learned = of_tool + of_user + min(CLIP, max(-CLIP, z)) * deviation
        tool.learn(learned - of_user)
        tenant.learn(learned - of_user)
        user.usual.learn(learned - of_tool)
        group.learn(learned - of_tool)
        return [score]

    @staticmethod
    def _run(run: list[float]) -> tuple[float, tuple[float, float]]:
        """The last calls that together are furthest above what is usual."""
        total, best, numbers = 0.0, 0.0, (0.0, 0.0)
        for calls, z in enumerate(reversed(run), 1):
            total += z
            if total / math.sqrt(calls) > best:
                best, numbers = total / math.sqrt(calls), (total / calls, float(calls))
        return best, numbers
