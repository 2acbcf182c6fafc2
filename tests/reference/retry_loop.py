# SPDX-License-Identifier: Apache-2.0
"""retry_loop: the same call again and again, or failing again and again."""

import math
from collections import defaultdict

from .fusion import Channel
from .people import Scene

CHANNELS = (
    Channel(
        "retry",
        (0, 0, 1.306, 2.159, 3.903, 6.689, 9.272, 14.160, 17.315, 19.820, 24.901),
        alone_group=1.2,
    ),
)
MOST = 60.0  # nats
LEAST_FAILING = 1e-3
FORGIVEN = 0.5  # of the failures, by a success


class Share:
    """How often something happened."""

    def __init__(self, hits: float, total: float) -> None:
        self.hits = hits
        self.total = total

    def learn(self, hit: bool) -> None:
        self.hits += hit
        self.total += 1

    @property
    def value(self) -> float:
        return self.hits / self.total


class RetryLoop:
    name = "retry_loop"
    channels = CHANNELS

    def __init__(self) -> None:
        self.repeating: defaultdict[tuple[str, str], Share] = defaultdict(lambda: Share(2.0, 20.0))  # by user
        self.failing: defaultdict[int, Share] = defaultdict(lambda: Share(1.0, 50.0))  # by group

    def measure(self, scene: Scene) -> list[float]:
        session = scene.session
        if session.digest != scene.digest:
            session.repeats, session.failures = 0, 0.0
        else:
            session.repeats += 1
        session.digest = scene.digest
        scene.repeats = session.repeats > 0
        self._repeats = session.repeats
        self._repeating = self.repeating[scene.user.name].value
        failing = max(LEAST_FAILING, min(1.0, self.failing[id(scene.group)].value))
        score = session.repeats * -math.log(min(1.0, self._repeating)) + session.failures * -math.log(failing)
        return [min(MOST, score)]

    def floor(self) -> float:
        return 0.0

    def numbers(self, scene: Scene) -> tuple[float, float]:
        return (self._repeats, self._repeating)

    def learn(self, scene: Scene, ok: bool) -> None:
        if scene.session.digest == scene.digest:
            scene.session.failures = scene.session.failures * FORGIVEN if ok else scene.session.failures + 1
        self.failing[id(scene.group)].learn(not ok)
        self.repeating[scene.user.name].learn(scene.repeats)
