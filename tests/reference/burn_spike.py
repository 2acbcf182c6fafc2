# SPDX-License-Identifier: Apache-2.0
"""burn_spike: a tool that costs far more in an hour than in the same hour of the weeks before."""

from collections import Counter

from .fusion import NOTABLE
from .people import Scene
from .tool_hours import ToolHours, spike_from, tells


class BurnSpike:
    name = "burn_spike"
    channels = ()

    def __init__(self, hours: ToolHours, least: float) -> None:
        self.hours = hours
        self.least = least  # cost in an hour
        self.first: dict[str, float] = {}  # by tenant: when something first cost something, s
        self.met: Counter[str] = Counter()

    def measure(self, scene: Scene) -> list[float]:
        self._told = ""
        return []

    def measure_after(self, scene: Scene, cost: float, ended: float) -> bool:
        """Whether there is something to tell."""
        self._told = ""
        tenant = scene.user.name[0]
        self.first[tenant] = min(self.first.get(tenant, ended), ended)
        before = self.hours.this(scene).cost
        self.hours.add_cost(scene, cost)
        self._spent = self.hours.this(scene).cost
        if self._spent >= self.least:
            usual = self.hours.usual(scene, self.first[tenant])
            price = usual.cost / usual.calls if usual.calls > 0 else cost
            at = spike_from(usual.cost, price, usual.weeks, self.least)
            self._told, self._usual = tells(at, before, self._spent), usual.cost
            self.met[f"burn_{self._told}"] += 1
            self.met["burn_compared"] += self._told != "" and at > self.least
        return self._told != ""

    def floor(self) -> float:
        return NOTABLE if self._told else 0.0

    def numbers(self, scene: Scene) -> tuple[float, float]:
        """The cost of this hour, and the usual one."""
        return (self._spent, self._usual) if self._told else (0.0, 0.0)
