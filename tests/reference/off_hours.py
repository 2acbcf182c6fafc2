# SPDX-License-Identifier: Apache-2.0
"""off_hours: at what local hours a user starts sessions, weekdays and weekends apart."""

import math

from .fusion import Channel
from .people import Scene

CHANNELS = (
    Channel(
        "hour", (2.138, 2.693, 5.481, 6.011, 6.223, 6.269, 6.314, 6.314, 7.070, 7.860, 8.314), weight=1.6
    ),
)
ALL = ("hours",)


class OffHours:
    name = "off_hours"
    channels = CHANNELS

    def measure(self, scene: Scene) -> list[float]:
        day, hour = scene.hour

        def starts(at: int) -> float:
            return scene.user.counts.get(("hour", day, at % 24)) / scene.weight

        self._near = 0.5 * starts(hour) + 0.25 * starts(hour + 1) + 0.25 * starts(hour - 1)
        self._total = scene.user.counts.get(ALL) / scene.weight
        return [-math.log((self._near + 1 / 24) / (self._total + 2))]

    def floor(self) -> float:
        return 0.0

    def numbers(self, scene: Scene) -> tuple[float, float]:
        return (self._near, self._total / 48)

    def learn_start(self, scene: Scene) -> None:
        """A session began with this call."""
        scene.user.counts.add(("hour", *scene.hour), scene.weight)
        scene.user.counts.add(ALL, scene.weight)
