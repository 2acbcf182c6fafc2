# SPDX-License-Identifier: Apache-2.0
"""frequency: how unusual the number of calls in about a minute, ten minutes and an hour is for this user."""

import math
from collections import defaultdict
from dataclasses import dataclass

from .fusion import Channel
from .people import Peers, Scene, later

CHANNELS = (
    Channel(
        "rate", (0.416, 1.089, 1.394, 1.636, 1.919, 2.120, 2.330, 2.607, 2.792, 2.967, 3.165), weight=1.6
    ),
)
WINDOWS = (60.0, 600.0, 3600.0)  # s, time constants
MEMORY = 400.0  # calls
SHRINK = 15.0  # calls
FIRST_VARIANCE = 0.25
NOISE = 0.25  # the variance of ln N is at least this over the mean N: single calls are counted
CLIP = 3.0  # standard deviations
GROUP_KNOWN_FROM = 5  # calls


@dataclass
class Moments:
    """Exponentially weighted mean and variance, exact for the first MEMORY values."""

    n: float = 0.0
    mean: float = 0.0
    variance: float = 0.0

    def learn(self, x: float) -> None:
        self.n = min(self.n + 1, MEMORY)
        off = x - self.mean
        self.mean += off / self.n
        self.variance += (off * (x - self.mean) - self.variance) / self.n


def shrunk(user: Moments, group: Moments) -> tuple[float, float]:
    """Mean and standard deviation to expect of the user, given the peer group."""
    mean = (user.n * user.mean + SHRINK * group.mean) / (user.n + SHRINK)
    prior = max(group.variance, 0.1 * FIRST_VARIANCE) if group.n > GROUP_KNOWN_FROM else FIRST_VARIANCE
    off = user.mean - mean
    variance = (user.n * (user.variance + off * off) + SHRINK * prior) / (user.n + SHRINK)
    return mean, math.sqrt(max(variance, NOISE * math.exp(-mean)))


class Frequency:
    name = "frequency"
    channels = CHANNELS

    def __init__(self) -> None:
        self.last: dict[tuple[str, str], float] = {}
        self.count: defaultdict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
        self.user: defaultdict[tuple[tuple[str, str], float], Moments] = defaultdict(Moments)
        self.group: defaultdict[tuple[int, float], Moments] = defaultdict(Moments)

    def measure(self, scene: Scene) -> list[float]:
        name = scene.user.name
        since = max(0.0, scene.now - self.last.get(name, scene.now))
        self._seen = []  # by window: count, mean, deviation
        self._most = (0.0, 0)  # largest z, its window
        for i, window in enumerate(WINDOWS):
            count = self.count[name][i] * math.exp(-since / window) + 1
            mean, deviation = shrunk(self.user[name, window], self.group[id(scene.group), window])
            self._seen.append((count, mean, deviation))
            z = (math.log(count) - mean) / deviation
            if z > self._most[0]:
                self._most = (z, i)
        return [self._most[0]]

    def floor(self) -> float:
        return 0.0

    def numbers(self, scene: Scene) -> tuple[float, float]:
        count, mean, _ = self._seen[self._most[1]]
        return (count, math.exp(mean))

    def facts(self, user: tuple[str, str], group: Peers) -> dict[str, float]:
        found = {}
        for window in WINDOWS:
            mean, deviation = shrunk(self.user[user, window], self.group[id(group), window])
            found[f"usual_{window:.0f}s"] = math.exp(mean)
            found[f"high_{window:.0f}s"] = math.exp(mean + CLIP * deviation)
        return found

    def count_call(self, scene: Scene) -> None:
        name = scene.user.name
        self.last[name] = later(self.last.get(name), scene.now)
        self.count[name] = [count for count, _, _ in self._seen]
        for window, (count, mean, deviation) in zip(WINDOWS, self._seen, strict=True):
            x = min(mean + CLIP * deviation, max(mean - CLIP * deviation, math.log(count)))
            self.user[name, window].learn(x)
            self.group[id(scene.group), window].learn(x)
