# SPDX-License-Identifier: Apache-2.0
"""novelty: steps and skips nobody has seen, weighed by how often user, group and tenant meet new ones."""

import math
from collections import defaultdict
from dataclasses import dataclass, field

from .fusion import Channel
from .people import Item, Scene, User

CHANNELS = (Channel("novelty", (0, 0, 0, 0, 2.230, 4.012, 5.956, 7.542, 8.409, 9.474, 10.222), weight=1.2),)
USER_WINDOW = 60.0  # events
GROUP_WINDOW = 400.0  # events
NEW_WINDOW = 200.0  # new items
TEACHES_FROM = 5.0  # events of a user
KINDS = ("step", "skip")


@dataclass
class Rate:
    """A share of events, divided back beyond its window."""

    hits: float
    total: float
    window: float

    def learn(self, hit: bool) -> None:
        if self.total > self.window:
            self.hits *= self.window / (self.total + 1)
            self.total *= self.window / (self.total + 1)
        self.hits += hit
        self.total += 1

    @property
    def value(self) -> float:
        return self.hits / self.total


@dataclass
class GroupRates:
    new_to_user: Rate = field(default_factory=lambda: Rate(1.0, 4.0, GROUP_WINDOW))
    new_to_group: Rate = field(default_factory=lambda: Rate(1.0, 2.0, NEW_WINDOW))
    new_to_tenant: Rate = field(default_factory=lambda: Rate(1.0, 2.0, NEW_WINDOW))


@dataclass
class UserRates:
    events: float = 0.0
    new: float = 0.0

    def learn(self, new: bool) -> None:
        fade = 1.0 if self.events < USER_WINDOW else USER_WINDOW / (self.events + 1)
        self.events = (self.events + 1) * fade
        self.new = (self.new + new) * fade


@dataclass
class News:
    """To whom something of one kind was new in one call."""

    user: bool = False
    group: bool = False
    tenant: bool = False


class Novelty:
    name = "novelty"
    channels = CHANNELS

    def __init__(self, new_for: float) -> None:
        self.new_for = new_for  # s
        self.users: defaultdict[tuple[tuple[str, str], str], UserRates] = defaultdict(UserRates)
        self.groups: defaultdict[tuple[int, str], GroupRates] = defaultdict(GroupRates)

    def measure(self, scene: Scene) -> list[float]:
        skips = max((self._surprise(scene, item) for item in scene.skips), default=0.0)
        self._score = self._surprise(scene, scene.step) + skips
        self._held = max(self.held_risk(scene.user, item, scene.now) for item in (scene.tool, scene.step))
        return [self._score]

    def floor(self) -> float:
        return self._held

    def numbers(self, scene: Scene) -> tuple[float, float]:
        rates = self.users[scene.user.name, "step"]
        return (self._score, rates.new / rates.events if rates.events > 0 else 0.0)

    def facts(self, user: tuple[str, str]) -> dict[str, float]:
        rates = self.users[user, "step"]
        return {"recent_calls": rates.events, "recent_new": rates.new}

    def held_risk(self, user: User, item: Item, now: float) -> float:
        """The risk of the call in which a still new item was first seen, 0 for any other item."""
        held = None if item in user.counts.sums else user.held.get(item)
        return held.risk if held is not None and held.lasts(now, self.new_for) else 0.0

    def learn(self, scene: Scene, news: dict[str, News]) -> None:
        """`news`: by kind, for the kinds of which the call taught something."""
        for kind in KINDS:
            if kind not in news:
                continue
            user = self.users[scene.user.name, kind]
            teaches = user.events >= TEACHES_FROM
            user.learn(news[kind].user)
            if not teaches:
                continue
            group = self.groups[id(scene.group), kind]
            group.new_to_user.learn(news[kind].user)
            if news[kind].user:
                group.new_to_group.learn(news[kind].group)
            if news[kind].group:
                group.new_to_tenant.learn(news[kind].tenant)

    def _surprise(self, scene: Scene, item: Item) -> float:
        if item in scene.user.counts.sums:
            return 0.0
        user = self.users[scene.user.name, item.kind]
        group = self.groups[id(scene.group), item.kind]
        surprise = -math.log((user.new + 4 * group.new_to_user.value + 1) / (user.events + 5))
        if item not in scene.group.counts.sums:
            surprise -= math.log(group.new_to_group.value)
            if item not in scene.tenant.counts.sums:
                surprise -= math.log(group.new_to_tenant.value)
        return surprise
