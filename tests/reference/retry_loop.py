# SPDX-License-Identifier: Apache-2.0
"""retry_loop: the same call, or the same few calls, again and again, or failing again and again.

Only what follows within a minute counts: slow polling is no loop. Who repeats calls by habit, such as a batch
or a quick poller, is expected to go on once it has begun.
"""

import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from .decay import float32
from .fusion import Channel
from .people import Scene, Session, later
from .rate import Rate

CHANNELS = (
    Channel(
        "retry",
        (0, 0, 0.003, 1.896, 3.912, 5.758, 8.048, 10.731, 12.595, 14.489, 16.257),
        alone_group=1.2,
        supported=0.3,
    ),
)
MOST = 60.0  # nats
FORGOTTEN_AFTER = 60.0  # s without a call, nor the end of one
LEAST_FAILING = 1e-3
FORGIVEN = 0.5  # of the failures, by a success
USER_WINDOW = 400.0  # calls
GROUP_WINDOW = 4000.0  # calls


@dataclass
class Habit:
    """How often a user repeats a call, and how often another repeat follows."""

    begins: Rate = field(default_factory=lambda: Rate(USER_WINDOW, hits=2.0, total=20.0))
    goes_on: Rate = field(default_factory=lambda: Rate(USER_WINDOW, hits=2.0, total=8.0))


class RetryLoop:
    name = "retry_loop"
    channels = CHANNELS

    def __init__(self) -> None:
        self.users: defaultdict[tuple[str, str], Habit] = defaultdict(Habit)
        self.met: Counter[str] = Counter()
        self.failing: defaultdict[int, Rate] = defaultdict(lambda: Rate(GROUP_WINDOW, hits=1.0, total=50.0))

    def measure(self, scene: Scene) -> list[float]:
        loop = scene.session.loop
        if loop.busy is None or scene.now - loop.busy > FORGOTTEN_AFTER:
            loop.forget()
        scene.repeated_before = loop.repeats > 0
        loop.count(scene.digest)
        loop.busy = later(loop.busy, scene.now)
        scene.repeats = loop.repeats > 0

        habit = self.users[scene.user.name]
        score = loop.failures * -math.log(max(LEAST_FAILING, self.failing[id(scene.group)].value))
        if loop.repeats:
            score -= math.log(habit.begins.value) + (loop.repeats - 1) * math.log(habit.goes_on.value)
        self.met["repeat"] += loop.repeats > 0
        self.met["cycle"] += loop.repeats > loop.runs[0]
        self.met["failures"] += loop.failures > 1
        self._numbers = (float(loop.repeats), habit.goes_on.value)
        if loop.failures > loop.repeats:
            self._numbers = (loop.failures, self.failing[id(scene.group)].value)
        return [min(MOST, score)]

    def floor(self) -> float:
        return 0.0

    def numbers(self, scene: Scene) -> tuple[float, float]:
        """Repeats and how often the user's go on; or failures and how often the group's calls fail."""
        return self._numbers

    def learn(self, scene: Scene, session: Session | None, ok: bool, ended: float | None) -> None:
        """`session`: as it is now, None when it is gone. `ended`: s, None when the end was not seen."""
        if session is not None and ended is not None:
            loop = session.loop
            loop.busy = later(loop.busy, ended)
            self.met["forgiven"] += ok and loop.failures > 0
            loop.failures = float32(loop.failures * FORGIVEN if ok else loop.failures + 1)
        if ended is not None:
            self.failing[id(scene.group)].learn(not ok)
        habit = self.users[scene.user.name]
        (habit.goes_on if scene.repeated_before else habit.begins).learn(scene.repeats)
