# SPDX-License-Identifier: Apache-2.0
"""identity_novelty: an agent or a token a user was never seen with, weighed by how often sessions of this
user and of the peer group bring a new one."""

import math
from collections import Counter, defaultdict
from dataclasses import dataclass

from .fusion import Channel
from .novelty import UserRates
from .people import Scene
from .rate import Rate

CHANNELS = (Channel("identity_novelty", (0, 0, 0, 0, 0.5, 1.2, 1.8, 2.4, 2.8, 3.2, 3.7), weight=1.2),)
KINDS = ("agent", "token")
GROUP_WINDOW = 400.0  # sessions
TEACHES_FROM = 5.0  # sessions of a user


def key(kind: str, identity: str) -> tuple[str, str, str]:
    return ("identity", kind, identity)


@dataclass
class Told:
    score: float = 0.0
    share: float = 0.0  # of the user's sessions that brought a new one


class IdentityNovelty:
    name = "identity_novelty"
    channels = CHANNELS

    def __init__(self) -> None:
        self.users: defaultdict[tuple[tuple[str, str], str], UserRates] = defaultdict(UserRates)
        self.groups: defaultdict[tuple[int, str], Rate] = defaultdict(
            lambda: Rate(GROUP_WINDOW, hits=1.0, total=4.0)
        )
        self.met: Counter[str] = Counter()

    def measure(self, scene: Scene) -> list[float]:
        self._told = Told()
        for kind in KINDS:
            identity = scene.identities[kind]
            user = self.users[scene.user.name, kind]  # events: sessions
            if not identity or user.events == 0 or key(kind, identity) in scene.user.counts.sums:
                continue
            share = self.groups[id(scene.group), kind].value
            score = -math.log((user.new + 4 * share + 1) / (user.events + 5))
            self.met[f"new_{kind}"] += 1
            if score > self._told.score:
                self._told = Told(score, user.new / user.events)
        return [self._told.score]

    def floor(self) -> float:
        return 0.0

    def numbers(self, scene: Scene) -> tuple[float, float]:
        return (self._told.score, self._told.share)

    def learn(self, scene: Scene) -> None:
        for kind in KINDS:
            identity = scene.identities[kind]
            if not identity:
                continue
            new = key(kind, identity) not in scene.user.counts.sums
            scene.user.counts.add(key(kind, identity), scene.weight)
            if not new and not scene.starts_session:
                continue
            user = self.users[scene.user.name, kind]
            if user.events >= TEACHES_FROM:
                self.groups[id(scene.group), kind].learn(new)
            user.learn(new)
