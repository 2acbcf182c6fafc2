# SPDX-License-Identifier: Apache-2.0
"""cost: how dear this call, its session's last calls and ten minutes of the user are for what they do.

The only signal measured twice: before a call from what was spent so far, after it with what it cost.
"""

import math
from collections import defaultdict
from dataclasses import dataclass, field

from .decay import float32
from .frequency import CLIP, FIRST_VARIANCE, GROUP_KNOWN_FROM, SHRINK, Moments
from .fusion import Channel
from .people import Scene, later

CHANNELS = (
    Channel(
        "cost",
        (0.686, 1.389, 1.810, 2.230, 2.804, 3.242, 3.674, 4.234, 4.637, 5.032, 5.649),
        alone_group=1.8,
    ),
)
WINDOW = 600.0  # s, time constant of the running spend
LEAST_COST = 1e-9
LEAST_VARIANCE = 1e-3
TOOL_KNOWN_FROM = 5  # calls
RUN = 10  # calls of a session
RUN_LEAST, RUN_MOST = -2.5, 6.0  # standard deviations of one call in a run


def expected(user: Moments, group: Moments) -> tuple[float, float]:
    """Mean and standard deviation to expect of the user, given the peer group."""
    mean = (user.n * user.mean + SHRINK * group.mean) / (user.n + SHRINK)
    prior = max(group.variance, 0.1 * FIRST_VARIANCE) if group.n > GROUP_KNOWN_FROM else FIRST_VARIANCE
    off = user.mean - mean
    variance = (user.n * (user.variance + off * off) + SHRINK * prior) / (user.n + SHRINK)
    return mean, math.sqrt(max(variance, LEAST_VARIANCE))


@dataclass
class Spender:
    """A user."""

    last: float | None = None  # s
    spent: float = 0.0  # decayed
    calls: Moments = field(default_factory=Moments)  # ln of cost over the tool's usual
    spending: Moments = field(default_factory=Moments)  # ln of the running spend


@dataclass
class Found:
    """What a measurement found."""

    score: float
    value: float
    baseline: float


class Cost:
    name = "cost"
    channels = CHANNELS

    def __init__(self) -> None:
        self.users: defaultdict[tuple[str, str], Spender] = defaultdict(Spender)
        self.group_calls: defaultdict[int, Moments] = defaultdict(Moments)
        self.group_spending: defaultdict[int, Moments] = defaultdict(Moments)
        self.tools: defaultdict[tuple[str, str], Moments] = defaultdict(
            Moments
        )  # by tenant and tool: ln cost
        self.tenants: defaultdict[str, Moments] = defaultdict(Moments)

    def measure(self, scene: Scene) -> list[float]:
        """Before the call: the run of the session so far, and the running spend."""
        user = self.users[scene.user.name]
        found = [Found(0.0, 0.0, 0.0), self._run(scene.session.dear)]
        if user.last is not None:
            spent = user.spent * math.exp(-max(0.0, scene.now - user.last) / WINDOW)
            found.append(self._spending(scene, spent)[0])
        self._found = max(found, key=lambda one: one.score)
        return [self._found.score]

    def floor(self) -> float:
        return 0.0

    def numbers(self, scene: Scene) -> tuple[float, float]:
        return (self._found.value, self._found.baseline)

    def measure_after(self, scene: Scene, cost: float) -> list[float]:
        """With what the call did cost, and learns it."""
        name = scene.user.name
        user = self.users[name]
        tool, tenant = self.tools[name[0], scene.tool.tool], self.tenants[name[0]]
        ln_cost = math.log(max(cost, LEAST_COST))
        usual = tool.mean if tool.n >= TOOL_KNOWN_FROM else tenant.mean
        mean, deviation = expected(user.calls, self.group_calls[id(scene.group)])
        z = (ln_cost - usual - mean) / deviation
        scene.session.dear = [*scene.session.dear, float32(min(RUN_MOST, max(RUN_LEAST, z)))][-RUN:]

        since = 0.0 if user.last is None else max(0.0, scene.now - user.last)
        user.spent = user.spent * math.exp(-since / WINDOW) + cost
        user.last = later(user.last, scene.now)
        spending, spending_mean, spending_deviation = self._spending(scene, user.spent)
        self._found = max(
            Found(z, cost, math.exp(usual + mean)),
            self._run(scene.session.dear),
            spending,
            key=lambda one: one.score,
        )

        tool.learn(ln_cost)
        tenant.learn(ln_cost)
        learned = mean + deviation * min(CLIP, max(-CLIP, z))
        user.calls.learn(learned)
        self.group_calls[id(scene.group)].learn(learned)
        learned = spending_mean + spending_deviation * min(CLIP, max(-CLIP, spending.score))
        user.spending.learn(learned)
        self.group_spending[id(scene.group)].learn(learned)
        return [self._found.score]

    def _spending(self, scene: Scene, spent: float) -> tuple[Found, float, float]:
        mean, deviation = expected(self.users[scene.user.name].spending, self.group_spending[id(scene.group)])
        z = (math.log(spent + LEAST_COST) - mean) / deviation
        return Found(z, spent, math.exp(mean)), mean, deviation

    @staticmethod
    def _run(dear: list[float]) -> Found:
        """The last calls that together are furthest above what is usual."""
        total, best = 0.0, Found(0.0, 0.0, 0.0)
        for calls, z in enumerate(reversed(dear), 1):
            total += z
            if total / math.sqrt(calls) > best.score:
                best = Found(total / math.sqrt(calls), total / calls, calls)
        return best
