# SPDX-License-Identifier: Apache-2.0
"""Invented traffic that reaches every corner of the model: seeded, endless, and the same for every run.

Three tenants with and without peer groups, users with habits, a nightly batch, somebody with a hundred
sessions at once; on top of that bursts, strange tools that come again an hour and two days later, calls
at odd hours, parallel calls, outcomes that come late, out of order or never, a clock that sometimes steps
back or runs ahead, single calls dated years off, a day on which one worker of four is off, and jumps of
months. Calls have arguments, results and costs; some go round in circles, quickly or slowly.
"""

import heapq
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import count
from typing import Any
from zoneinfo import ZoneInfo

from .invented_arguments import InventedArguments
from .model import Call

MINUTE, HOUR, DAY = 60.0, 3600.0, 86400.0
START = 1_767_225_600.0  # 2026-01-01
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Pacific/Auckland")
TENANT_ZONES = {"acme": "Europe/Berlin", "globex": "Asia/Kathmandu"}
USER_ZONES = {"ann@acme": "America/New_York", "user3@globex": "Pacific/Auckland"}
TOOLS = [f"{server}/{verb}_{thing}" for server in ("crm", "ops") for verb in ("read", "list", "send", "drop")
         for thing in ("mail", "order", "row", "file", "user")]  # fmt: skip
GROUPS = {"": ("",), "acme": ("sales", "ops", ""), "globex": ("", "all")}


@dataclass(frozen=True)
class Step:
    """One thing that happens. `call` is None for an outcome; `id` pairs an outcome with its call. `now` is
    what the clock says then, `when` the true time, if that is known."""

    now: float
    id: int
    call: Call | None
    when: float = 0.0
    ok: bool = True  # of an outcome
    cost: float | None = None  # of an outcome


@dataclass
class Person:
    tenant: str
    user: str
    group: str
    zone: ZoneInfo
    mode: str
    threshold: float
    tools: list[str]
    habit: dict[str, str]  # the usual next tool
    first_hour: int
    pause: float  # s between calls
    between_sessions: float  # s
    sessions: int  # session names in use
    weekends: bool  # at work then
    agent: str
    token: str
    renews: bool  # the token, with every session
    dearer: float = 0.0  # by so many nats, for now
    previous: str = ""


def people(random_: random.Random) -> list[Person]:
    found = []
    for tenant, groups in GROUPS.items():
        for n in range(9):
            user = "ann@acme" if tenant == "acme" and n == 0 else f"user{n}@{tenant}"
            tools = random_.sample(TOOLS, random_.randint(3, 14))
            zone = USER_ZONES.get(user, TENANT_ZONES.get(tenant, "UTC"))
            found.append(
                Person(
                    tenant,
                    user,
                    groups[n % len(groups)],
                    ZoneInfo(zone),
                    random_.choice(("learning", "warn", "shadow", "block", "block")),
                    random_.choice((0.5, 0.5, 0.5, 0.34, 0.6, 0.9)),
                    tools,
                    {tool: random_.choice(tools) for tool in tools},
                    random_.randint(6, 12),
                    random_.choice((2.0, 15.0, 40.0)),
                    random_.choice((1.0, 4.0, 24.0)) * HOUR,
                    random_.choice((1, 3, 20)),
                    n % 3 > 0,
                    f"agent{n % 2}",
                    f"token of {user}",
                    n % 4 == 0,
                )
            )
    found[1].sessions = 100
    return found


class Traffic:
    def __init__(self, seed: int, jumps: tuple[float, float] = (30 * DAY, 400 * DAY)) -> None:
        self.random = random.Random(seed)
        self.people = people(self.random)
        self.jumps = jumps  # s, shortest and longest
        self.queue: list[tuple[float, int, str, tuple[Any, ...]]] = []
        self.order = count()
        self.ids = count(1)
        self.ahead = 0.0  # s that jumps have added
        self.one_off = 0.0  # s by which every fourth call is off, for now
        self.more = random.Random(seed + 1)
        self.arguments = InventedArguments(random.Random(seed + 2))
        self.failing: set[int] = set()  # ids of calls
        self.dearer: dict[int, float] = {}  # by id of call: nats
        for person in self.people:
            self.at(START + self.random.expovariate(1 / DAY), "session", person)
        self.at(START + DAY, "incident")
        self.at(START + DAY, "circle")
        self.at(START + 5 * DAY, "dear")
        self.at(START + 4 * DAY, "clock_ahead")
        self.at(START + 9 * DAY, "one_wrong")
        self.at(START + 2 * HOUR, "batch", self.people[2])

    def at(self, when: float, what: str, *about: Any) -> None:
        heapq.heappush(self.queue, (when, next(self.order), what, about))

    def steps(self, calls: int) -> Iterator[Step]:
        """So many calls, and the outcomes that come before the last of them. Time goes on evenly, but for its
        clocks, during the first half of them: weeks are compared with weeks."""
        jump_every = max(1000, calls // 24)
        done = 0
        while done < calls:
            when, _, what, about = heapq.heappop(self.queue)
            now = when + self.ahead
            if self.random.random() < 0.01:
                now -= self.random.uniform(0, 20)
            if what == "call":
                done += 1
                if done > calls / 2 and done % jump_every == 0:
                    self.ahead += self.random.uniform(*self.jumps)
                yield self.call(now + self.stray(), when, *about)
            elif what == "outcome":
                yield self.outcome(now, when, *about)
            else:
                getattr(self, what)(when, *about)

    def call(
        self,
        now: float,
        when: float,
        person: Person,
        session: str,
        tool: str,
        arguments: dict[str, Any] | None = None,
        failing: float = 0.05,
    ) -> Step:
        id_ = next(self.ids)
        kind = self.random.random()
        latency = self.random.expovariate(1 / 2)
        if kind < 0.02:
            latency = self.random.uniform(250, 350)
        elif kind < 0.03:
            latency = self.random.uniform(600, 700)
        if kind < 0.97:
            self.at(when + latency, "outcome", id_)
        if arguments is None:
            arguments = self.arguments.of(person.tenant, person.user, tool)
        if self.more.random() < failing:
            self.failing.add(id_)
        self.dearer[id_] = person.dearer
        return Step(
            now,
            id_,
            Call(
                person.tenant,
                person.user,
                person.group,
                session,
                tool,
                person.mode,
                person.threshold,
                inspectable=self.random.random() > 0.002,
                arguments=arguments,
                agent=person.agent,
                token=person.token,
            ),
            when,
        )

    def outcome(self, now: float, when: float, id_: int) -> Step:
        cost: float | None = self.more.lognormvariate(-5 + self.dearer.pop(id_), 1)
        kind = self.more.random()
        if kind < 0.05:
            cost = None
        elif kind < 0.07:
            cost = 0.0
        elif kind < 0.08:
            cost = self.more.uniform(1, 5)
        ok = id_ not in self.failing
        self.failing.discard(id_)
        return Step(now, id_, None, when, ok, cost)

    def next_tool(self, person: Person) -> str:
        kind = self.random.random()
        if kind < 0.004:
            tool = self.random.choice(TOOLS)
        elif kind < 0.7 and person.previous in person.habit:
            tool = person.habit[person.previous]
        else:
            tool = self.random.choice(person.tools)
        person.previous = tool
        return tool

    def session(self, when: float, person: Person) -> None:
        name = f"s{self.random.randrange(person.sessions)}"
        if self.more.random() < 0.01:
            person.agent = f"agent{self.more.randrange(6)}"
        if person.renews or self.more.random() < 0.01:
            person.token = f"token {self.more.randrange(10**6)}"
        at = when
        for _ in range(1 + int(self.random.expovariate(1 / 8))):
            self.at(at, "call", person, name, self.next_tool(person))
            parallel = self.random.random() < 0.1
            at += 0.01 if parallel else self.random.expovariate(1 / person.pause)
            if self.random.random() < 0.03:
                at += self.random.uniform(5 * MINUTE, 45 * MINUTE)
        following = at + self.random.expovariate(1 / person.between_sessions)
        local = datetime.fromtimestamp(following + self.ahead, person.zone)
        if not person.first_hour <= local.hour < person.first_hour + 9 and self.random.random() < 0.95:
            following += (person.first_hour - local.hour) % 24 * HOUR
        days = self.days_to_monday(following, person)
        if days and not person.weekends and self.more.random() < 0.98:
            following += days * DAY
        self.at(following, "session", person)

    def days_to_monday(self, when: float, person: Person) -> int:
        """On a weekend of that person; else 0."""
        weekday = datetime.fromtimestamp(when + self.ahead, person.zone).weekday()
        return 7 - weekday if weekday >= 5 else 0

    def somebody(self, when: float, random_: random.Random) -> Person:
        """Mostly at work that day."""
        person = random_.choice(self.people)
        if person.weekends or not self.days_to_monday(when, person) or random_.random() < 0.02:
            return person
        return random_.choice([one for one in self.people if one.weekends])

    def stray(self) -> float:
        """How far off (s) the clock of the worker is that takes the next call."""
        kind = self.random.random()
        if kind < 0.0005:
            return self.random.choice((-1, 1)) * self.random.choice((HOUR, 30 * HOUR, 20 * DAY, 3650 * DAY))
        return self.one_off if kind < 0.25 else 0.0

    def one_wrong(self, when: float) -> None:
        """One worker of four is off for a day."""
        self.one_off = self.random.choice((-1, 1)) * self.random.choice((HOUR, 2 * DAY, 3650 * DAY))
        self.at(when + DAY, "one_right")
        self.at(when + self.random.expovariate(1 / (20 * DAY)), "one_wrong")

    def one_right(self, when: float) -> None:
        self.one_off = 0.0

    def clock_ahead(self, when: float) -> None:
        """The machine's clock is off for an hour or a day of real time: by minutes, hours, or years."""
        by = self.random.choice((10 * MINUTE, 3 * HOUR, 40 * DAY, 1500 * DAY, -HOUR, -5 * DAY, -300 * DAY))
        self.ahead += by
        self.at(when + self.random.choice((HOUR, DAY)), "clock_back", by)
        self.at(when + self.random.expovariate(1 / (4 * DAY)), "clock_ahead")

    def clock_back(self, when: float, by: float) -> None:
        self.ahead -= by

    def batch(self, when: float, person: Person) -> None:
        for n in range(45):
            self.at(when + n * 0.7, "call", person, "batch", person.tools[n % 2])
        self.at(when + DAY, "batch", person)

    def circle(self, when: float) -> None:
        """One call, or up to five in turn, again and again."""
        self.at(when + self.more.expovariate(1 / (8 * HOUR)), "circle")
        person = self.somebody(when, self.more)
        name = f"s{self.more.randrange(person.sessions)}"
        round_ = [
            (tool, self.arguments.of(person.tenant, person.user, tool))
            for tool in self.more.choices(person.tools, k=self.more.randint(1, 5))
        ]
        gap = self.more.choice((0.5, 4.0, 50.0, 70.0, 300.0))
        failing = self.more.choice((0.0, 0.1, 0.9))
        for n in range(self.more.randint(5, 60)):
            tool, arguments = round_[n % len(round_)]
            self.at(when + n * gap, "call", person, name, tool, arguments, failing)

    def dear(self, when: float) -> None:
        """Somebody's calls become much dearer, and cheaper again."""
        self.at(when + self.more.expovariate(1 / (2 * DAY)), "dear")
        person = self.more.choice(self.people)
        person.dearer = self.more.choice((0.0, 0.7, 1.5, 4.0))
        self.at(when + self.more.choice((HOUR, DAY, 5 * DAY)), "cheap", person)

    def cheap(self, when: float, person: Person) -> None:
        person.dearer = 0.0

    def incident(self, when: float) -> None:
        self.at(when + self.random.expovariate(1 / (5 * HOUR)), "incident")
        person = self.somebody(when, self.random)
        name = f"s{self.random.randrange(person.sessions)}"
        kind = self.random.random()
        if kind < 0.3:
            gap = self.random.uniform(0.1, 2.5)
            same = self.random.random() < 0.5
            for n in range(self.random.randint(12, 70)):
                tool = person.tools[0] if same else self.random.choice(person.tools)
                self.at(when + n * gap, "call", person, name, tool)
        elif kind < 0.8:
            strange = self.random.sample(TOOLS, self.random.randint(1, 3))
            for later in (0.0, HOUR, 5 * HOUR, DAY, 47.9 * HOUR, 48.1 * HOUR, 49 * HOUR, 3 * DAY):
                if later and self.random.random() < 0.4:
                    continue
                for n, tool in enumerate(strange):
                    self.at(when + later + n * 3, "call", person, name, tool)
        elif kind < 0.9:
            gap = self.random.uniform(1, 15)
            for n in range(100):
                self.at(when + n * gap, "call", person, f"many{n}", person.tools[n % len(person.tools)])
        else:
            self.at(when, "session", person)
