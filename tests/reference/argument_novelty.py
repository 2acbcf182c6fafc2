# SPDX-License-Identifier: Apache-2.0
"""argument_novelty: values nobody has used before, at arguments where new values are rare."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from .arguments import Fact
from .fusion import Channel
from .people import Scene
from .rate import Rate

CHANNELS = (
    Channel("identity", (0, 0, 0, 0, 0, 0.093, 0.699, 1.624, 2.118, 2.595, 3.223), weight=1.6),
    Channel(
        "egress",
        (0, 0, 0, 0, 0, 0.126, 0.366, 1.236, 1.817, 2.344, 2.760),
        weight=2.0,
        alone_group=2.8,
    ),
)
USER_WINDOW = 60  # values
SHARE_UNIT = 2**-19
GROUP_WINDOW = 400.0  # values
NEW_WINDOW = 200.0  # new values
TEACHES_FROM = 5  # values of a user
LEAST = 0.1  # nats: what is new nine times in ten says nothing
SECOND = 0.3  # how much the less new of address and domain adds

# Where nearly everything is new, as with ids and questions, nothing follows from it: such values are passed
# over, all but one in eight, to notice when that changes. And where a user's new values are nearly always new
# to the peer group, those others are not looked for there.
MANY_VALUES = 30
NEARLY_ALL = 0.8
UNSHARED_FROM = 30.0  # new values
UNSHARED = 0.9
ONE_IN = 8

SENDING = frozenset(
    (
        "send", "post", "upload", "share", "invite", "transfer", "publish", "forward",
        "reply", "webhook", "export", "submit", "schedule", "tweet", "mail", "email",
        "webpage", "http", "download", "curl", "pay", "money", "transaction",
    )
)  # fmt: skip
READING = frozenset(
    (
        "search", "list", "find", "read", "calculate", "view", "display", "lookup",
    )
)  # fmt: skip

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")  # of send_email, send-email, SendEmail, HTTPSend


def sends(tool: str) -> bool:
    """Whether a tool's name says that something leaves or changes hands."""
    words = {word.lower() for word in _WORD.findall(tool.rpartition("/")[2])}
    return bool(words & SENDING) and not words & READING


@dataclass
class GroupRates:
    """Of the values at one argument of one tool."""

    new_to_user: Rate = field(default_factory=lambda: Rate(GROUP_WINDOW))
    new_to_group: Rate = field(default_factory=lambda: Rate(NEW_WINDOW))
    new_to_tenant: Rate = field(default_factory=lambda: Rate(NEW_WINDOW))

    @property
    def unshared(self) -> bool:
        return self.new_to_group.total >= UNSHARED_FROM and self.new_to_group.value > UNSHARED


@dataclass
class UserRate:
    """How many values a user gave at one argument, and how many of them were new."""

    values: int = 0  # at most USER_WINDOW
    units: int = 0  # new ones, in SHARE_UNIT

    @property
    def new(self) -> float:
        return self.units * SHARE_UNIT

    @property
    def nearly_all_new(self) -> bool:
        return self.values >= MANY_VALUES and self.units > NEARLY_ALL * (self.values / SHARE_UNIT)

    def learn(self, new: bool) -> None:
        self.units += round(new / SHARE_UNIT)
        if self.values < USER_WINDOW:
            self.values += 1
        else:
            self.units = self.units * USER_WINDOW // (USER_WINDOW + 1)


def known_as(tool: str, fact: Fact) -> Hashable:
    """What a value is remembered as: identities wherever they are seen, others per argument of a tool."""
    return ("fact", fact.kind, fact.value) if fact.identity else ("fact", tool, *fact)


def held_risk(scene: Scene, fact: Fact, new_for: float) -> float:
    """The risk of the call in which a still new value was first seen, 0 for any other value."""
    held = scene.user.held.get(known_as(scene.tool.tool, fact))
    return held.risk if held is not None and held.lasts(scene.now, new_for) else 0.0


class ArgumentNovelty:
    name = "argument_novelty"
    channels = CHANNELS

    def __init__(self, new_for: float, picked: Callable[[Fact], int]) -> None:
        """`picked`: a number made of a value; those it divides by ONE_IN are the one in eight."""
        self.new_for = new_for  # s
        self.picked = picked
        self.met: Counter[str] = Counter()
        self.users: defaultdict[tuple[tuple[str, str], str, str, str], UserRate] = defaultdict(UserRate)
        self.groups: defaultdict[tuple[int, str, str, str], GroupRates] = defaultdict(GroupRates)

    def measure(self, scene: Scene) -> list[float]:
        identity = most = 0.0
        self._rate = 0.0
        for of_leaf in scene.facts:
            said = whose = 0.0
            for fact in of_leaf:
                surprise = self._surprise(scene, fact)
                said = max(said, surprise) + SECOND * min(said, surprise)
                if fact.identity:
                    whose = max(whose, surprise) + SECOND * min(whose, surprise)
            identity = max(identity, whose)
            if said > most:
                most = said
                user = self.users[scene.user.name, scene.tool.tool, of_leaf[0].path, of_leaf[0].kind]
                self._rate = user.new / user.values if user.values else 0.0
        self._most = most
        self._held = max((held_risk(scene, fact, self.new_for) for fact in scene.every_fact), default=0.0)
        return [identity, most if sends(scene.tool.tool) else 0.0]

    def floor(self) -> float:
        return self._held

    def numbers(self, scene: Scene) -> tuple[float, float]:
        return (self._most, self._rate)

    def learn(self, scene: Scene, held: set[Fact]) -> None:
        """`held`: what stays new."""
        tool = scene.tool.tool
        levels = (scene.user.counts, scene.group.counts, scene.tenant.counts)
        found = []
        for fact in dict.fromkeys(scene.every_fact):
            if not self._passed_over(scene, fact):
                seen = [known_as(tool, fact) in counts.sums for counts in levels]
                found.append((fact, seen, self._unshared(scene, fact)))
        for fact, (by_user, by_group, by_tenant), unshared in found:
            user, group = self._rates(scene, fact)
            if user.values >= TEACHES_FROM:
                group.new_to_user.learn(not by_user)
                if not by_user and not unshared:
                    group.new_to_group.learn(not by_group)
                    if not by_group:
                        group.new_to_tenant.learn(not by_tenant)
            user.learn(not by_user)
        for fact, _, unshared in found:
            if fact in held:
                continue
            reach = 1 if unshared else 2 if scene.group is scene.tenant else 3
            for counts in levels[:reach]:
                counts.add(known_as(tool, fact), scene.weight)

    def _rates(self, scene: Scene, fact: Fact) -> tuple[UserRate, GroupRates]:
        tool = scene.tool.tool
        return (
            self.users[scene.user.name, tool, fact.path, fact.kind],
            self.groups[id(scene.group), tool, fact.path, fact.kind],
        )

    def _passed_over(self, scene: Scene, fact: Fact) -> bool:
        user, _ = self._rates(scene, fact)
        passed = user.nearly_all_new and not fact.identity and self.picked(fact) % ONE_IN != 0
        self.met["passed_over"] += passed
        return passed

    def _unshared(self, scene: Scene, fact: Fact) -> bool:
        _, group = self._rates(scene, fact)
        unshared = group.unshared and not fact.identity and self.picked(fact) % ONE_IN != 0
        self.met["unshared"] += unshared
        return unshared

    def _surprise(self, scene: Scene, fact: Fact) -> float:
        value = known_as(scene.tool.tool, fact)
        if self._passed_over(scene, fact) or value in scene.user.counts.sums:
            return 0.0
        user, group = self._rates(scene, fact)
        surprise = -math.log((user.new + 4 * group.new_to_user.value + 1) / (user.values + 5))
        if not self._unshared(scene, fact) and value not in scene.group.counts.sums:
            surprise -= math.log(group.new_to_group.value)
            if fact.identity and value not in scene.tenant.counts.sums:
                surprise -= math.log(group.new_to_tenant.value)
        self.met["hardly_new"] += surprise < LEAST
        return surprise if surprise >= LEAST else 0.0
