# SPDX-License-Identifier: Apache-2.0
"""off_hours: how far an hour is from those at which a user is active, counted by days.

What a day teaches is learned when it is over, so every call of a night is judged alike; what was odd is
learned a day later still. A single odd call counts half, a session of them nearly in full.
"""

import math
from collections import Counter
from dataclasses import dataclass, field

from .decay import float32
from .fusion import Channel
from .people import Scene

CHANNELS = (
    Channel(
        "hour",
        (0, 0, 0.021, 0.102, 0.294, 0.546, 0.827, 1.439, 1.840, 2.120, 2.232),
        weight=0.8,
        alone_group=2.0,
        strength=8.0,
    ),
)
HALF_LIFE = 14.0  # days
KERNEL = [3.0 ** -min(off, 24 - off) for off in range(24)]  # by hours off
NEVER = 0.05  # days
NEVER_WEEKEND = 0.5  # days
TRUSTED_FROM = 5.0  # days
ODD = 2.0  # nats
MOST_DAYS = 60  # of a calendar looked at


def weekend(day: int) -> bool:
    return (day + 3) % 7 >= 5  # day 0 was a Thursday


@dataclass
class Days:
    """Of a user: at which hours on how many days; all fading."""

    day: int
    hours: set[int] = field(default_factory=set)  # of today
    odd: set[int] = field(default_factory=set)  # ... that were odd
    held: set[int] = field(default_factory=set)  # odd hours of the day before, learned when today is over
    active: list[float] = field(default_factory=lambda: [0.0] * 24)  # days, by hour
    days: float = 0.0
    weekends: float = 0.0  # days among them
    calendar: float = 0.0  # days that were weekend, active or not

    def turn(self, day: int) -> None:
        """A new day begins."""
        if day <= self.day:
            return
        gap = day - self.day
        fade = math.exp2(-gap / HALF_LIFE)
        learned = (self.hours - self.odd) | self.held
        passed = sum(weekend(one) for one in range(self.day, min(day, self.day + MOST_DAYS)))
        late = self.odd if gap > 1 else set()
        self.active = [
            float32(float32((days + (hour in learned)) * fade) + (fade if hour in late else 0.0))
            for hour, days in enumerate(self.active)
        ]
        self.days = float32((self.days + 1) * fade)
        self.weekends = float32((self.weekends + weekend(self.day)) * fade)
        self.calendar = float32(self.calendar * fade + passed)
        self.held = self.odd if gap == 1 else set()
        self.day, self.hours, self.odd = day, set(), set()


class OffHours:
    name = "off_hours"
    channels = CHANNELS

    def __init__(self) -> None:
        self.users: dict[tuple[str, str], Days] = {}
        self.met: Counter[str] = Counter()

    def measure(self, scene: Scene) -> list[float]:
        user = self.users.setdefault(scene.user.name, Days(scene.day))
        user.turn(scene.day)
        hour = scene.hour[1]
        near = sum(KERNEL[off] * user.active[(hour + off) % 24] for off in range(24))
        trust = min(1.0, user.days / TRUSTED_FROM)
        odd_hour = trust * max(0.0, -math.log((near + NEVER) / (user.days + NEVER)))
        odd_day = 0.0
        if scene.weekend:
            share = (user.weekends + NEVER_WEEKEND) / (user.calendar + NEVER_WEEKEND)
            odd_day = trust * max(0.0, -math.log(share))
        scene.odd_hour = odd_hour > ODD
        score = max(odd_hour, odd_day)
        session = scene.session
        session.odd += score > ODD
        calls = max(1, session.odd)
        self._numbers = (near if odd_hour >= odd_day else user.weekends, user.days)
        self.met["odd_hour"] += odd_hour > ODD
        self.met["odd_weekend"] += odd_day > max(1.0, odd_hour)
        self.met["odd_session"] += session.odd > 1
        return [score * (calls / (calls + 1))]

    def floor(self) -> float:
        return 0.0

    def numbers(self, scene: Scene) -> tuple[float, float]:
        """On how many days active near this hour, or on weekends; of how many days."""
        return self._numbers

    def learn(self, scene: Scene) -> None:
        user = self.users[scene.user.name]
        user.hours.add(scene.hour[1])
        if scene.odd_hour:
            user.odd.add(scene.hour[1])

    def facts(self, name: tuple[str, str]) -> dict[str, float]:
        """For people, today counts."""
        user = self.users[name]
        return {"days": user.days + 1, "weekend_days": user.weekends + weekend(user.day)}

    def by_hour(self, name: tuple[str, str]) -> list[float]:
        """On how many days the user was active in each hour; for people, today counts."""
        user = self.users[name]
        return [days + (hour in user.hours) for hour, days in enumerate(user.active)]
