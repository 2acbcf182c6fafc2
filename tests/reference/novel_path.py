# SPDX-License-Identifier: Apache-2.0
"""novel_path: how improbable this tool is after the one before it, and after earlier ones of the session."""

import math

from .fusion import Channel
from .people import Scene, witten_bell

CHANNELS = (
    Channel(
        "transition",
        (0.569, 1.690, 2.398, 3.237, 4.997, 6.659, 9.220, 10.594, 12.209, 13.735, 16.501),
        weight=1.2,
        alone_tenant=2.8,
    ),
    Channel(
        "skip", (0.878, 1.867, 2.394, 2.994, 3.956, 5.070, 6.401, 7.941, 9.566, 11.641, 13.549), weight=1.6
    ),
    Channel(
        "path",
        (1.599, 3.114, 4.367, 5.682, 8.266, 10.565, 12.663, 16.576, 19.888, 23.030, 26.855),
        alone_group=2.8,
    ),
)


class NovelPath:
    name = "novel_path"
    channels = CHANNELS

    def measure(self, scene: Scene) -> list[float]:
        self._tool = witten_bell(scene.tool, scene, None)
        self._step = witten_bell(scene.step, scene, self._tool)
        transition = -math.log(self._step)
        skips = [-math.log(witten_bell(item, scene, self._tool)) for item in scene.skips]
        skip = sum(skips) / len(skips) if skips else 0.0
        return [transition, skip, transition + skip]

    def floor(self) -> float:
        return 0.0

    def numbers(self, scene: Scene) -> tuple[float, float]:
        return (self._step, self._tool)
