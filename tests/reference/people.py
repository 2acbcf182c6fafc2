# SPDX-License-Identifier: Apache-2.0
"""Who is compared with whom, and what a call is made of."""

import math
from collections import defaultdict, deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import NamedTuple
from zoneinfo import ZoneInfo

from .arguments import Fact
from .calibration import Calibrator
from .clock import SKEW
from .decay import Counts
from .loop import Loop

EARLIER_TOOLS = 6
SESSIONS_PER_USER = 64


class Item(NamedTuple):
    """Something that can be new: a tool; a step to it; a skip to it from an earlier tool of the session."""

    kind: str  # tool | step | skip
    origin: str | None  # of a step or skip; None for the tool itself and for the start of a session
    tool: str

    @property
    def row(self) -> tuple[str, str | None]:
        return (self.kind, self.origin)


def later(last: float | None, now: float) -> float:
    """The later of two times; but `now` when `last` is over a minute ahead: then the clock was set back."""
    if last is None or now < last - SKEW:
        return now
    return max(last, now)


LATE = 3600.0  # s


@dataclass
class Session:
    id: str
    last: float = 0.0  # s
    previous: str | None = None
    earlier: list[str] = field(default_factory=list)  # distinct tools, at most EARLIER_TOOLS
    rare_at: dict[str, float] = field(default_factory=dict)  # by channel
    odd: int = 0  # calls at odd hours
    spent: float = 0.0  # cost of its calls
    loop: Loop = field(default_factory=Loop)


@dataclass
class Peers:
    """A tenant, or a peer group inside one."""

    counts: Counts = field(default_factory=Counts)
    calibrators: defaultdict[str, Calibrator] = field(
        default_factory=lambda: defaultdict(Calibrator)
    )  # by channel
    waiting: deque[tuple[float, str, float]] = field(
        default_factory=deque
    )  # since (s), channel, prior surprise

    def calibrator(self, channel: str) -> Calibrator:
        return self.calibrators[channel]

    def catch_up(self, now: float) -> None:
        """Learns the rare scores that have waited an hour, and those whose clock had run ahead."""
        while self.waiting and abs(now - self.waiting[0][0]) >= LATE:
            _, channel, surprise = self.waiting.popleft()
            self.calibrator(channel).learn(surprise)


@dataclass
class Held:
    """When something was first seen at notable risk, or last stopped at high risk, and how high. It is *held*
    back at high risk, and only *listed* otherwise."""

    since: float  # s
    risk: float
    tool: str
    held: bool

    def lasts(self, now: float, new_for: float) -> bool:
        return self.held and abs(now - self.since) < new_for


@dataclass
class User:
    name: tuple[str, str]  # tenant, user
    zone: ZoneInfo
    group: Peers  # of the last call
    counts: Counts = field(default_factory=Counts)
    sessions: list[Session] = field(default_factory=list)
    held: dict[Hashable, Held] = field(default_factory=dict)  # by item, or by known_as() of a value

    def session(self, id_: str, now: float, idle: float) -> Session:
        """The user's session, begun anew after `idle` seconds. A new one takes the place of an idle one, or,
        when the user has as many as allowed, of the one used least lately."""
        replace = None
        for at, session in enumerate(self.sessions):
            if session.id == id_:
                if now - session.last > idle:
                    self.sessions[at] = Session(id_)
                return self.sessions[at]
            if now - session.last > idle:
                replace = at
        if replace is None and len(self.sessions) >= SESSIONS_PER_USER:
            replace = min(range(len(self.sessions)), key=lambda at: self.sessions[at].last)
        session = Session(id_)
        if replace is None:
            self.sessions.append(session)
        else:
            self.sessions[replace] = session
        return session

    def session_named(self, id_: str) -> Session | None:
        """As it is now: begun anew perhaps, or gone."""
        return next((session for session in self.sessions if session.id == id_), None)

    def day(self, now: float) -> int:
        """Days since 1970 on the user's clock."""
        return datetime.fromtimestamp(math.floor(now), self.zone).toordinal() - date(1970, 1, 1).toordinal()

    def hour_bin(self, now: float) -> tuple[str, int]:
        """Kind of day and hour on the user's clock."""
        local = datetime.fromtimestamp(math.floor(now), self.zone)
        return ("weekend" if local.weekday() >= 5 else "weekday", local.hour)


@dataclass
class Scene:
    """One call with everything the signals may look at."""

    now: float  # s, the call's own time
    everybody: float  # s, as the clock says
    faded: float  # s, for Decay.weight
    weight: float  # forward-decay weight of an event now
    user: User
    group: Peers
    tenant: Peers
    hour: tuple[str, int]
    day: int  # on the user's clock, since 1970
    items: list[Item]  # the tool, the step, the skips
    session: Session
    digest: str | None  # of tool and arguments; None when those cannot be read
    facts: list[list[Fact]]  # by leaf of the arguments
    identities: dict[str, str]  # of the caller, by kind
    starts_session: bool
    odd_hour: bool = False
    repeats: bool = False  # earlier calls of the session
    repeated_before: bool = False  # the call before this one did

    @property
    def every_fact(self) -> list[Fact]:
        return [fact for of_leaf in self.facts for fact in of_leaf]

    @property
    def weekend(self) -> bool:
        return self.hour[0] == "weekend"

    @property
    def tool(self) -> Item:
        return self.items[0]

    @property
    def step(self) -> Item:
        return self.items[1]

    @property
    def skips(self) -> list[Item]:
        return self.items[2:]


def witten_bell(item: Item, scene: Scene, base: float | None) -> float:
    """P(item in its row): tenant, then peer group, then user. `base`: P above the tenant, None for none."""
    p = base
    for counts in (scene.tenant.counts, scene.group.counts, scene.user.counts):
        count = counts.get(item) / scene.weight
        total = counts.get(item.row) / scene.weight
        types = counts.types.get(item.row, 1)
        if p is None:
            p = count / (total + types) if count > 0 else types / (total + types)
        else:
            p = (count + types * p) / (total + types)
        assert p <= 1 + 1e-12
    assert p is not None
    return min(1.0, max(1e-12, p))
