# SPDX-License-Identifier: Apache-2.0
"""The reference for the native engine: check a call before it runs, observe its end, in plain Python."""

import json
import math
from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any
from zoneinfo import ZoneInfo

from .argument_novelty import ArgumentNovelty, known_as, sends
from .arguments import LISTED, MOST_LEAVES, Fact, facts, leaves
from .burn_spike import BurnSpike
from .burst import Burst
from .calibration import PRIOR_STRENGTH, RARE, RARE_FROM, RARE_ONCE, TENANT_STRENGTH, prior_surprise
from .clock import Clock
from .cost import Cost
from .decay import Decay
from .frequency import Frequency
from .fusion import HIGH_RISK, NOTABLE, TRUNCATED, Channel, risk_of, share, surprise_of_floor
from .identity_novelty import IdentityNovelty
from .novel_path import NovelPath
from .novelty import News, Novelty
from .off_hours import OffHours
from .people import EARLIER_TOOLS, Held, Item, Peers, Scene, Session, User, later
from .rate_spike import RateSpike
from .retry_loop import RetryLoop
from .tool_hours import ToolHours

DONE_AFTER = 300.0  # s without an outcome, and a call counts as done
FAR_AHEAD = 86_400.0  # s ahead of now: the clock was set back since
WORTH_LISTING = 3.0  # nats: the rarest 5 % are listed even in an ordinary call
HELD_PER_USER = 256
DECISIONS = ("allow", "audit", "deny")


@dataclass(frozen=True)
class Settings:
    """As Engine takes them; times in seconds."""

    half_life: float = 14 * 86400.0
    new_for: float = 48 * 3600.0
    session_idle: float = 1800.0
    burst_threshold: int = 20
    burst_window: float = 60.0
    rate_spike_floor: float = 100.0  # calls of a tool in an hour
    burn_spike_floor: float = 1.0  # cost of a tool in an hour
    session_budget: float = 0.0  # 0: none
    day_budget: float = 0.0  # 0: none
    default_zone: str = "UTC"
    tenant_zones: dict[str, str] = field(default_factory=dict)
    user_zones: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Call:
    tenant: str
    user: str
    group: str  # "": the tenant is the peer group
    session: str
    tool: str
    mode: str = "learning"
    threshold: float = 0.5
    inspectable: bool = True
    arguments: dict[str, Any] = field(default_factory=dict)
    agent: str = ""  # "": unknown
    token: str = ""  # "": unknown


@dataclass(frozen=True)
class Reason:
    signal: str
    surprise: float  # -ln p
    value: float
    baseline: float
    rank: float  # the order of the reasons

    @property
    def p(self) -> float:
        return math.exp(-self.surprise)


@dataclass(frozen=True)
class Verdict:
    ticket: int  # 0 when blocked
    risk: float
    decision: str
    blocked: bool
    previous: str
    reasons: list[Reason]
    surprises: dict[str, float]  # by channel: -ln p in the peer group


@dataclass(frozen=True)
class After:
    """What is known once a call has ended; `reasons` are those of the signals measured then."""

    risk: float  # at least that of the verdict
    decision: str  # at least that of the verdict
    reasons: list[Reason]


@dataclass(frozen=True)
class Read:
    """A channel's score, as its calibrators read it."""

    channel: Channel
    prior: float  # nats
    in_tenant: float  # -ln p
    in_group: float  # -ln p

    @property
    def adds(self) -> float:
        return share(self.channel.weight, self.in_group)

    @property
    def alone(self) -> float:
        return max(self.channel.alone_group * self.in_group, self.channel.alone_tenant * self.in_tenant)


def fused(reads: Sequence[Read], floor: float) -> float:
    """The risk."""
    total = sum(one.adds for one in reads)
    specialists = (one.alone + one.channel.supported * (total - one.adds) for one in reads)
    return max(risk_of(max(total, *specialists)), floor)


@dataclass
class Running:
    """A call that was let through and has not ended."""

    scene: Scene
    risk: float
    decision: str
    threshold: float
    reads: dict[str, Read]  # by channel
    floor: float


def decision_of(risk: float, threshold: float) -> str:
    return "deny" if risk >= threshold else "audit" if risk >= NOTABLE else "allow"


def worth_telling(candidates: list[Reason], risk: float) -> list[Reason]:
    """In the order of the signals' weight in the risk."""
    least = TRUNCATED if risk >= NOTABLE else WORTH_LISTING
    return sorted((one for one in candidates if one.surprise > least), key=lambda one: -one.rank)


class Model:
    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.clock = Clock()
        self.decay = Decay(settings.half_life)
        self.novelty = Novelty(settings.new_for)
        self.path = NovelPath()
        self.hours = OffHours()
        self.frequency = Frequency()
        self.burst = Burst(settings.burst_window, settings.burst_threshold)
        self.cost = Cost(settings.session_budget, settings.day_budget)
        self.retry = RetryLoop()
        self.arguments = ArgumentNovelty(settings.new_for)
        tool_hours = ToolHours()
        self.rate_spike = RateSpike(tool_hours, settings.rate_spike_floor)
        self.burn_spike = BurnSpike(tool_hours, settings.burn_spike_floor)
        self.identity = IdentityNovelty()
        self.signals = (
            *(self.novelty, self.path, self.hours, self.frequency, self.burst),
            *(self.cost, self.retry, self.arguments),
            *(self.rate_spike, self.burn_spike, self.identity),
        )
        self.after = [channel.name for channel in self.cost.channels]  # measured and learned at the end
        self.users: dict[tuple[str, str], User] = {}
        self.peers: dict[tuple[str, str], Peers] = {}
        self.running: dict[int, Running] = {}
        self.tickets = 0
        self.met: Counter[str] = Counter()  # which cases the traffic reached

    def check(self, call: Call, now: float) -> Verdict:
        own, everybody = self.clock.read(now)
        if self.clock.jump is not None:
            self.decay.jump(*self.clock.jump)
        self.expire(everybody)
        scene, session = self._scene(call, own, everybody)

        reads: dict[str, Read] = {}
        candidates: list[Reason] = []
        for signal in self.signals:
            of_signal = [
                self._read(channel, raw, scene)
                for channel, raw in zip(signal.channels, signal.measure(scene), strict=True)
            ]
            reads |= {one.channel.name: one for one in of_signal}
            candidates += self._reasons(signal, of_signal, scene)
        floor = max(signal.floor() for signal in self.signals)
        risk = fused(list(reads.values()), floor)

        decision = decision_of(risk, call.threshold) if call.inspectable else "deny"
        blocked = decision == "deny" and call.mode == "block"

        learned = [one for name, one in reads.items() if name not in self.after]
        self._calibrate(scene, session, learned, risk)
        self.frequency.count_call(scene)
        self.burst.count_call(scene, blocked)
        self.rate_spike.count_call(scene)
        previous = session.previous
        session.last = later(session.last, own)
        ticket = 0
        if blocked:
            for item in (scene.tool, scene.step, *self._listed_facts(scene)):
                self._hold_again(scene, item, risk)
        else:
            ticket = self.tickets = self.tickets + 1
            self.running[ticket] = Running(scene, risk, decision, call.threshold, reads, floor)
            session.previous = call.tool
            if call.tool not in session.earlier:
                session.earlier = [*session.earlier, call.tool][-EARLIER_TOOLS:]
        self._note(scene, risk, decision, blocked, session)
        surprises = {name: one.in_group for name, one in reads.items()}
        return Verdict(
            ticket, risk, decision, blocked, previous or "", worth_telling(candidates, risk), surprises
        )

    def observe(self, ticket: int, now: float, ok: bool = True, cost: float | None = None) -> After | None:
        """None when the call is not (or no longer) running. Without a `cost` the risk stays as it was."""
        self.expire(self.clock.settled(now))
        if ticket not in self.running:
            self.met["unpaired"] += 1
            return None
        running = self.running.pop(ticket)
        ended = self.clock.settled(now)
        after = After(running.risk, running.decision, [])
        if cost is not None:
            after = self._measure_after(running, cost, ended)
        self.met["no_cost"] += cost is None
        self.met["failed"] += not ok
        self.met["raised_after"] += after.risk > running.risk
        self.met["worse_after"] += after.decision != running.decision
        self._learn(running, ok, ended)
        return after

    def facts(self, user: User, now: float) -> dict[str, dict[str, float]]:
        """By signal: what `tool-firewall baseline show` tells of a user."""
        found = {
            "novelty": self.novelty.facts(user.name),
            "off_hours": self.hours.facts(user.name),
            "frequency": self.frequency.facts(user.name, user.group),
            "burst": self.burst.facts(user.name, now),
            "cost": self.cost.facts(user.name, user.group),
        }
        return {signal: facts_ for signal, facts_ in found.items() if facts_}

    def cases(self) -> Counter[str]:
        """How often the calls reached each case."""
        met = self.met + self.clock.met
        for signal in self.signals:
            met += getattr(signal, "met", Counter())
        halved = sum(one.halved for peers in self.peers.values() for one in peers.calibrators.values())
        return met + Counter(epochs=self.decay.epoch, halved=halved)

    def expire(self, now: float) -> None:
        """Calls count as done in the order they came: a later one waits for those before it."""
        while self.running:
            ticket, oldest = next(iter(self.running.items()))
            if -FAR_AHEAD <= now - oldest.scene.everybody <= DONE_AFTER:
                return
            self.met["assumed_done"] += 1
            self._learn(self.running.pop(ticket), ok=True, ended=None)

    def _read(self, channel: Channel, raw: float, scene: Scene) -> Read:
        prior = prior_surprise(channel.prior, raw)
        in_tenant = scene.tenant.calibrator(channel.name).share_above(
            prior, math.exp(-prior), PRIOR_STRENGTH * channel.strength
        )
        in_group = scene.group.calibrator(channel.name).share_above(
            prior, in_tenant, TENANT_STRENGTH * channel.strength
        )
        return Read(channel, prior, -math.log(in_tenant), -math.log(in_group))

    @staticmethod
    def _reasons(signal: Any, reads: list[Read], scene: Scene) -> list[Reason]:
        """At most one; none of what is never told."""
        insists = signal.floor()
        rarest = max(surprise_of_floor(insists), *(one.in_group for one in reads), 0.0)
        if rarest <= TRUNCATED:
            return []
        said = max((max(one.adds, one.alone) for one in reads), default=0.0)
        rank = max(said, 2 * rarest) if insists > 0 else said
        value, baseline = signal.numbers(scene)
        return [Reason(signal.name, rarest, value, baseline, rank)]

    def _measure_after(self, running: Running, cost: float, ended: float) -> After:
        scene = running.scene
        session = scene.user.session_named(scene.session.id)
        risk = running.risk
        candidates: list[Reason] = []
        scores = self.cost.measure_after(scene, session, cost)
        if scores is not None:
            of_signal = [
                self._read(channel, raw, scene)
                for channel, raw in zip(self.cost.channels, scores, strict=True)
            ]
            reads = running.reads | {one.channel.name: one for one in of_signal}
            risk = max(risk, fused(list(reads.values()), max(running.floor, self.cost.floor())))
            self._calibrate(scene, session, of_signal, risk)
            candidates += self._reasons(self.cost, of_signal, scene)
        if self.burn_spike.measure_after(scene, cost, ended):
            risk = max(risk, self.burn_spike.floor())
            candidates += self._reasons(self.burn_spike, [], scene)
        decision = max(running.decision, decision_of(risk, running.threshold), key=DECISIONS.index)
        return After(risk, decision, worth_telling(candidates, risk))

    def _scene(self, call: Call, now: float, everybody: float) -> tuple[Scene, Session]:
        faded = self.decay.faded(now, everybody)
        weight = self.decay.weight(faded)
        name = (call.tenant, call.user)
        tenant = self.peers.setdefault((call.tenant, ""), Peers())
        group = self.peers.setdefault((call.tenant, call.group), Peers())
        if name not in self.users:
            self.users[name] = User(name, ZoneInfo(self._zone(call)), group)
        user = self.users[name]
        user.group = group
        for counts in (user.counts, group.counts, tenant.counts):
            counts.refresh(self.decay)
        session = user.session(call.session, now, self.settings.session_idle)
        items = [Item("tool", None, call.tool), Item("step", session.previous, call.tool)]
        items += [Item("skip", earlier, call.tool) for earlier in session.earlier]
        digest = json.dumps([call.tool, call.arguments], sort_keys=True) if call.inspectable else None
        of_leaves = [facts(leaf) for leaf in leaves(call.arguments)] if call.inspectable else []
        hour, day = user.hour_bin(now), user.day(now)
        scene = Scene(
            *(now, everybody, faded, weight, user, group, tenant, hour, day, items, session, digest),
            *(of_leaves, {"agent": call.agent, "token": call.token}, session.previous is None),
        )
        return scene, session

    def _zone(self, call: Call) -> str:
        settings = self.settings
        by_tenant = settings.tenant_zones.get(call.tenant, settings.default_zone)
        return settings.user_zones.get(call.user, by_tenant)

    def _calibrate(self, scene: Scene, session: Session | None, reads: list[Read], risk: float) -> None:
        """Rare scores teach once per session and ten minutes, those of high-risk calls an hour late."""
        rare_at = {} if session is None else session.rare_at
        for peers in (scene.group,) if scene.group is scene.tenant else (scene.group, scene.tenant):
            peers.catch_up(scene.now)
            for one in reads:
                channel = one.channel.name
                before = rare_at.get(channel)
                again = before is not None and scene.now - before < RARE_ONCE
                if one.in_group <= RARE:
                    peers.calibrator(channel).learn(one.prior)
                elif again and peers.calibrator(channel).size > RARE_FROM:
                    self.met["rare_again"] += 1
                elif risk >= HIGH_RISK:
                    peers.waiting.append((scene.now, channel, one.prior))
                else:
                    peers.calibrator(channel).learn(one.prior)
        for one in reads:
            if one.in_group > RARE:
                rare_at[one.channel.name] = scene.now

    def _learn(self, running: Running, ok: bool, ended: float | None) -> None:
        scene = running.scene
        scene.weight = self.decay.weight(scene.faded)
        levels = (scene.user.counts, scene.group.counts, scene.tenant.counts)
        for counts in levels:
            counts.refresh(self.decay)
        news: dict[str, News] = {}
        for item in scene.items:
            new = item not in scene.user.counts.sums
            if new and self._hold(scene, item, running.risk):
                continue
            of_kind = news.setdefault(item.kind, News())
            new_to_group = new and item not in scene.group.counts.sums
            of_kind.user |= new
            of_kind.group |= new_to_group
            of_kind.tenant |= new_to_group and item not in scene.tenant.counts.sums
            scene.user.counts.add_outcome(item.row, item, scene.weight)
            scene.group.counts.add_outcome(item.row, item, scene.weight)
            if scene.tenant is not scene.group:
                scene.tenant.counts.add_outcome(item.row, item, scene.weight)
        held = {fact for fact in self._listed_facts(scene) if self._hold(scene, fact, running.risk)}
        self.met["held_argument"] += len(held)
        session = scene.user.session_named(scene.session.id)
        self.met["session_gone"] += session is None
        self.novelty.learn(scene, news)
        self.hours.learn(scene)
        self.arguments.learn(scene, held)
        self.retry.learn(scene, session, ok, ended)
        self.identity.learn(scene)

    @staticmethod
    def _listed_facts(scene: Scene) -> list[Fact]:
        return [fact for fact in scene.every_fact if fact.kind in LISTED]

    def _full(self, user: User, now: float) -> bool:
        """Whether a user's list has no room for one more; takes out the oldest that is not held, if any."""
        if len(user.held) < HELD_PER_USER:
            return False
        for one, held in user.held.items():
            if not held.lasts(now, self.settings.new_for):
                self.met["unlisted"] += 1
                del user.held[one]
                return False
        return True

    def _hold(self, scene: Scene, what: Item | Fact, risk: float) -> bool:
        """Whether something stays new: first seen at high risk less than `new_for` ago, or just now. What was
        first seen at notable risk is listed for people, but learned.

        While the list is full of what is held, nothing new is learned at all.
        """
        user, key = scene.user, self._key(scene, what)
        if key in user.counts.sums:
            return False
        if key in user.held:
            held = user.held[key]
            if held.lasts(scene.now, self.settings.new_for):
                self.met["held_again"] += 1
                return True
            self.met["released"] += held.held
            held.held = False
            return False
        holds = self.settings.new_for > 0
        keep = holds and risk >= HIGH_RISK
        if not keep and (risk < NOTABLE or what.kind == "skip"):
            return holds and self._full(user, scene.now)
        if self._full(user, scene.now):
            self.met["held_refused"] += 1
            return holds
        user.held[key] = Held(scene.now, risk, scene.tool.tool, keep)
        self.met["held" if keep else "listed"] += 1
        return keep

    def _hold_again(self, scene: Scene, what: Item | Fact, risk: float) -> None:
        """As _hold, for a call that was stopped: every try begins the time anew."""
        user, key = scene.user, self._key(scene, what)
        if key in user.counts.sums:
            return
        if key not in user.held:
            self._hold(scene, what, risk)
        elif risk >= HIGH_RISK:
            held = user.held[key]
            held.since, held.risk, held.held = scene.now, max(risk, held.risk), True

    @staticmethod
    def _key(scene: Scene, what: Item | Fact) -> Hashable:
        return what if isinstance(what, Item) else known_as(scene.tool.tool, what)

    def _note(self, scene: Scene, risk: float, decision: str, blocked: bool, session: Session) -> None:
        self.met[decision] += 1
        self.met["blocked"] += blocked
        self.met["severe"] += risk >= 2 / 3
        self.met["floor_of_held"] += self.novelty.floor() > 0
        self.met["floor_of_limit"] += self.burst._limited
        self.met["floor_of_record"] += self.burst.floor() > 0 and not self.burst._limited
        self.met["exempt"] += self.burst._over and not self.burst._limited
        self.met["full_history"] += len(session.earlier) == EARLIER_TOOLS
        self.met["floor_of_argument"] += self.arguments.floor() > 0
        self.met["egress"] += sends(scene.tool.tool) and self.arguments._most > 3
        self.met["not_read"] += scene.digest is None
        self.met["most_leaves"] += len(scene.facts) == MOST_LEAVES
        self.met["most_sessions"] += len(scene.user.sessions) == 64
