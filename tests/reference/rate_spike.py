# SPDX-License-Identifier: Apache-2.0
"""rate_spike: a tool called far more often in an hour than in the same hour of the weeks before. Told when it
crosses the limit and with every doubling, as a floor under the risk."""

from collections import Counter

from .fusion import NOTABLE
from .people import Scene
from .tool_hours import ToolHours, spike_from, tells


class RateSpike:
    name = "rate_spike"
    channels = ()

    def __init__(self, hours: ToolHours, least: float) -> None:
        self.hours = hours
        self.least = least  # calls in an hour
        self.first: dict[str, float] = {}  # by tenant: when it was first seen, s
        self.met: Counter[str] = Counter()

    def measure(self, scene: Scene) -> list[float]:
        self._calls = self.hours.this(scene).calls + 1
        self._told, self._usual = "", 0.0
        if self._calls >= self.least:
            usual = self.hours.usual(scene, self.first.get(scene.user.name[0], 0.0))
            at = spike_from(usual.calls, 1.0, usual.weeks, self.least)
            self._told, self._usual = tells(at, self._calls - 1, self._calls), usual.calls
            self.met[f"rate_{self._told}"] += 1
            self.met["rate_compared"] += self._told != "" and at > self.least
        return []

    def floor(self) -> float:
        return NOTABLE if self._told else 0.0

    def numbers(self, scene: Scene) -> tuple[float, float]:
        """Calls in this hour, and usually."""
        return (self._calls, self._usual)

    def count_call(self, scene: Scene) -> None:
        tenant = scene.user.name[0]
        self.first[tenant] = min(self.first.get(tenant, scene.everybody), scene.everybody)
        self.hours.add_call(scene)
