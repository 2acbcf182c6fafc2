# SPDX-License-Identifier: Apache-2.0
"""What the history of an installation can detect: new tools tried out on copies of its engine.

A probe is asked of a fresh copy each time: a user works as usual for some calls, at the hour and with the
steps that were learned of them, and then calls a tool they never called. The risk of that call is what a live
one would get. Arguments, tokens and agents are left open, so that nothing but the tool and its place is new.
Nothing is stored.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo

if TYPE_CHECKING:
    from ._native import Engine

NOBODYS: Final = "nobody's"
"""A tool that nobody ever called."""

PEERS: Final = "peers'"
"""A tool that others of the peer group call, and this user never did."""

KINDS: Final = (NOBODYS, PEERS)
MOST_USUAL_CALLS: Final = 5

_NEW_TOOL: Final = "(a tool that nobody calls)"
_MOST_PEERS: Final = 50  # whose tools are looked at
_MOST_IDLE: Final = 0.8  # of the time after which a session ends, between two calls
_SHORTEST_GAP: Final = 30.0  # s
_TOOK: Final = 0.5  # s
_TEN_MINUTES: Final = 600.0
_SATURDAY: Final = 5
_FEW_WEEKENDS: Final = 0.5  # days with calls, decayed


@dataclass(frozen=True, slots=True)
class User:
    """Somebody to try it with."""

    tenant: str
    name: str
    calls: int


@dataclass(frozen=True, slots=True)
class Probe:
    """What a new tool would have got."""

    user: User
    kind: str  # one of KINDS
    after: int  # calls of the session before it
    tool: str
    risk: float
    reasons: tuple[str, ...]


class Detection:
    """Tries new tools on copies of an engine."""

    def __init__(
        self, engine: Engine, build: Callable[[], Engine], *, session_idle: float, tenant: str | None = None
    ) -> None:
        """engine: with the history; it stays as it is. build: a fresh one of the same settings and key.
        session_idle: s. tenant: only its users; None for all.
        """
        self._tenant = tenant
        self._engine = engine
        self._build = build
        self._most_gap = session_idle * _MOST_IDLE
        self._last = engine.summary()["last"]

    @cached_property
    def users(self) -> list[User]:
        """Everybody something was learned of, in a fixed order."""
        found = [
            User(entry["tenant"], entry["user"], entry["calls"])
            for entry in self._engine.principals()
            if entry["calls"] and self._tenant in (None, entry["tenant"])
        ]
        return sorted(found, key=lambda user: (user.tenant, user.name))

    def sample(self, size: int) -> list[User]:
        """That many of them at most, the same ones each time."""
        dice = random.Random(size)
        return dice.sample(self.users, min(size, len(self.users)))

    def probes(self, user: User, sessions: Iterable[int]) -> Iterator[Probe]:
        """New tools in ordinary sessions of this user, drawn by their numbers, each after 0 to
        MOST_USUAL_CALLS calls; tools of peers only where there are some.
        """
        learned = self._engine.baseline(user.tenant, user.name)
        if learned is None or not learned["tools"]:
            return
        tools = [("", _NEW_TOOL, NOBODYS)]
        if theirs := self._tool_of_peers(user, learned):
            tools.append((*theirs, PEERS))
        for session in sessions:
            for server, tool, kind in tools:
                yield self._probe(user, learned, session, server, tool, kind)

    def _probe(
        self, user: User, learned: dict[str, Any], session: int, server: str, tool: str, kind: str
    ) -> Probe:
        engine = self._build()
        engine.restore(self._copy)
        policy = engine.policy()
        caller = engine.caller(
            user.tenant, user.name, group=_configured(learned), session=f"detection {session}"
        )
        now, gap = self._begin(learned), self._gap(learned)
        calls = session % (MOST_USUAL_CALLS + 1)
        for number, (its_server, usual) in enumerate(_ordinary_session(user, learned, session, calls)):
            # Another digest each time, and nothing that could be new.
            arguments = {f"call {number}": None}
            verdict = engine.check(policy, caller, its_server, usual, arguments, now)
            engine.observe(verdict.ticket, "ok", now + _TOOK)
            now += gap
        verdict = engine.check(policy, caller, server, tool, None, now)
        reasons = tuple(reason.text for reason in verdict.reasons)
        return Probe(user, kind, calls, tool if kind == PEERS else "", verdict.risk, reasons)

    @cached_property
    def _copy(self) -> bytes:
        return self._engine.snapshot("detection")

    def _begin(self, learned: dict[str, Any]) -> float:
        """The next time at which this user usually works, after everything that was seen."""
        hours = learned["hours"]
        busiest = max(range(24), key=hours.__getitem__)
        zone = UTC if learned["zone"] == "UTC" else ZoneInfo(learned["zone"])
        start = datetime.fromtimestamp(self._last, zone)
        begin = start.replace(hour=busiest, minute=10, second=0, microsecond=0)
        only_weekdays = learned["signals"].get("off_hours", {}).get("weekend_days", 0.0) < _FEW_WEEKENDS
        while begin <= start or (only_weekdays and begin.weekday() >= _SATURDAY):
            begin += timedelta(days=1)
        return begin.timestamp()

    def _gap(self, learned: dict[str, Any]) -> float:
        """Between calls, so that their number in ten minutes is a usual one."""
        usual: float = learned["signals"].get("frequency", {}).get("usual_600s", 1.0)
        return min(max(_TEN_MINUTES / max(usual, 0.1), _SHORTEST_GAP), self._most_gap)

    def _tool_of_peers(self, user: User, learned: dict[str, Any]) -> tuple[str, str] | None:
        own = {(tool["server"], tool["tool"]) for tool in learned["tools"]}
        tried = {item["tool"] for item in learned["held"]}
        group = (user.tenant, _configured(learned), learned["group"])
        if group not in self._tools_of_groups:
            self._tools_of_groups[group] = self._tools_of(*group)
        used = self._tools_of_groups[group]
        return next(
            (tool for tool, _ in used.most_common() if tool not in own and tool[1] not in tried), None
        )

    @cached_property
    def _tools_of_groups(self) -> dict[tuple[str, str, str], Counter[tuple[str, str]]]:
        return {}

    def _tools_of(self, tenant: str, configured: str, group: str) -> Counter[tuple[str, str]]:
        """By how many users. group: the one in force, which may be learned where none is configured."""
        members = [
            entry["user"]
            for entry in self._engine.principals()
            if entry["tenant"] == tenant and entry["group"] == configured
        ]
        used: Counter[tuple[str, str]] = Counter()
        for member in random.Random(0).sample(sorted(members), min(len(members), _MOST_PEERS)):
            learned = self._engine.baseline(tenant, member)
            if learned is not None and learned["group"] == group:
                used.update((tool["server"], tool["tool"]) for tool in learned["tools"])
        return used


def _configured(learned: dict[str, Any]) -> str:
    """The peer group that calls of this user bring along."""
    group: str = learned["group"] if learned["group_from"] == "configuration" else ""
    return group


def _ordinary_session(
    user: User, learned: dict[str, Any], session: int, calls: int
) -> Iterator[tuple[str, str]]:
    """(server, tool) of calls as the steps of this user go, drawn by how often each was taken."""
    dice = random.Random(repr((user.tenant, user.name, session)))
    steps: dict[str, tuple[list[str], list[float]]] = {}
    for step in learned["steps"]:
        tools, weights = steps.setdefault(step["from"], ([], []))
        tools.append(step["to"])
        weights.append(step["count"])
    servers = {tool["tool"]: tool["server"] for tool in reversed(learned["tools"])}
    most_used = learned["tools"][0]["tool"]
    previous = ""
    for _ in range(calls):
        tools, weights = steps.get(previous, ([most_used], [1.0]))
        previous = dice.choices(tools, weights)[0]
        yield servers.get(previous, ""), previous
