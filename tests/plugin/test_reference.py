# SPDX-License-Identifier: Apache-2.0
"""The native engine against the plain Python model in tests/reference: the same calls, the same numbers.

About 100,000 invented calls by default. More, and labelled traffic:

    TOOL_FIREWALL_REFERENCE_CALLS=1000000   how many calls to invent
    TOOL_FIREWALL_STREAMS=FOLDER            compare on every FOLDER/*/events.jsonl.gz, the format that
                                            `tool-firewall replay` reads; without it that test is skipped
"""

import gzip
import json
import math
import os
import sys
from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cpex_tool_firewall import _native, zones
from reference.arguments import BEYOND, Fact
from reference.model import After, Call, Model, Reason, Settings, Verdict
from reference.people import Held, Item, User
from reference.traffic import DAY, HOUR, TENANT_ZONES, USER_ZONES, ZONES, Step, Traffic

CALLS = int(os.environ.get("TOOL_FIREWALL_REFERENCE_CALLS", "100000"))
STREAMS = os.environ.get("TOOL_FIREWALL_STREAMS", "")

SAME = 1e-9  # of risks and other 64-bit numbers, absolute and relative
SAME_P = 1e-6  # of p, a 32-bit number, relative

KEY = b"k" * 32
BASELINES_EVERY = 2000  # steps
UNINSPECTABLE = {"x": object()}

# What the invented traffic must reach, or it compares less than it claims.
MUST_MEET = (
    *("allow", "audit", "deny", "severe", "blocked"),
    *("assumed_done", "unpaired", "full_history", "most_sessions", "session_gone"),
    *("held", "held_again", "released", "floor_of_held", "listed"),
    *("held_argument", "floor_of_argument", "egress", "most_leaves", "not_read"),
    *("passed_over", "unshared", "hardly_new"),
    *("no_cost", "raised_after", "worse_after", "cost_run", "cost_drift"),
    *("session_budget_before", "session_budget_after", "day_budget_before", "day_budget_after"),
    *("rate_over", "rate_doubled", "rate_compared", "burn_over", "burn_doubled", "burn_compared"),
    *("repeat", "cycle", "failed", "failures", "forgiven"),
    *("odd_hour", "odd_weekend", "odd_session", "hours_as_before", "new_agent", "new_token"),
    *("floor_of_limit", "floor_of_record", "exempt"),
    *("rare_again", "halved", "epochs"),
    *("clock_ahead", "clock_behind", "clock_corrected", "clock_moved_on", "clock_moved_back"),
)


@dataclass
class Deviation:
    """The largest differences seen."""

    risk: float = 0.0
    p: float = 0.0  # relative
    number: float = 0.0
    calls: int = 0
    ended: int = 0  # calls that were seen to end
    reasons: int = 0


def native_engine(settings: Settings) -> _native.Engine:
    return _native.Engine(
        KEY,
        burst_threshold=settings.burst_threshold,
        burst_window=settings.burst_window,
        rate_spike_floor=settings.rate_spike_floor,
        burn_spike_floor=settings.burn_spike_floor,
        session_budget=settings.session_budget,
        day_budget=settings.day_budget,
        journaling=True,
        half_life_days=settings.half_life / DAY,
        new_for_hours=settings.new_for / HOUR,
        session_idle=settings.session_idle,
        zones=zones.tables(ZONES),
        default_zone=settings.default_zone,
        tenant_zones=settings.tenant_zones,
        user_zones=settings.user_zones,
    )


class Pair:
    """Both engines, fed with the same calls."""

    def __init__(self, settings: Settings) -> None:
        self.engine = native_engine(settings)
        self.model = Model(settings, self.digest)
        self.digests: dict[Fact, int] = {}
        self.callers: dict[tuple[str, ...], _native.Caller] = {}
        self.policies: dict[tuple[str, float], _native.Policy] = {}
        self.tickets: dict[int, tuple[int, int]] = {}  # by step id: of the engine, of the model
        self.risks: dict[int, float] = {}  # before the call, by ticket of the engine
        self.deviation = Deviation()

    def run(self, steps: Iterable[Step]) -> Deviation:
        for number, step in enumerate(steps):
            try:
                self.feed(step)
                if number % BASELINES_EVERY == 0:
                    self.compare_baselines()
            except AssertionError as error:
                raise AssertionError(f"step {number}: {step}: {error}") from error
        self.compare_baselines()
        return self.deviation

    def feed(self, step: Step) -> None:
        if step.call is not None:
            self.tickets[step.id] = self.check(step.call, step.now)
            return
        ours, theirs = self.tickets.pop(step.id)
        if ours or theirs:
            self.end(ours, theirs, step)

    def end(self, ours: int, theirs: int, step: Step) -> None:
        expected = self.model.observe(theirs, step.now, step.ok, step.cost)
        outcome = "ok" if step.ok else "tool_error"
        cost = math.nan if step.cost is None else step.cost
        before = self.risks.pop(ours)
        after = self.engine.observe(ours, outcome, step.now, cost)
        recorded = self.last_record()
        if expected is None:
            assert (after, recorded) == (False, None)
            return
        assert recorded is not None and recorded["kind"] == "outcome"
        self.compare_risk(recorded["risk"], expected)
        self.deviation.ended += 1
        if expected.decision == "allow" or recorded["risk"] <= before:  # then no more is said of it
            assert after is True
            return
        assert isinstance(after, _native.Aftermath)
        assert (after.decision, after.risk) == (expected.decision, recorded["risk"])
        self.compare_reasons(after.reasons, expected.reasons)

    def digest(self, fact: Fact) -> int:
        """The engine's, of a value that is nobody's identity."""
        if fact not in self.digests:
            value: Any = fact.value
            if isinstance(value, tuple):
                sign, exponent = value
                value = sign * (math.ldexp(0.5, exponent) if exponent < BEYOND else math.inf) if sign else 0
            elif isinstance(value, bytes):
                value = value.decode()
            *_, last = self.engine.facts({"": value})["facts"].split(";")  # a path's folder comes first
            self.digests[fact] = int(last.split()[2], 16)
        return self.digests[fact]

    def last_record(self) -> dict[str, Any] | None:
        """The last record since the last time."""
        packs = self.engine.drain(100)
        return _native.decode_record(_native.unpack(packs[-1][2])[-1]) if packs else None

    def check(self, call: Call, now: float) -> tuple[int, int]:
        expected = self.model.check(call, now)
        server, _, tool = call.tool.rpartition("/")
        verdict = self.engine.check(
            self.policy(call),
            self.caller(call),
            server,
            tool,
            call.arguments if call.inspectable else UNINSPECTABLE,
            now,
        )
        self.risks[verdict.ticket] = verdict.risk
        self.engine.drain(100)
        self.compare(verdict, expected)
        return verdict.ticket, expected.ticket

    def compare(self, verdict: _native.Verdict, expected: Verdict) -> None:
        self.compare_risk(verdict.risk, expected)
        assert (verdict.decision, verdict.blocked) == (expected.decision, expected.blocked)
        assert verdict.session_context == expected.previous.rpartition("/")[2]
        self.compare_reasons(verdict.reasons, expected.reasons)
        self.deviation.calls += 1

    def compare_risk(self, risk: float, expected: Verdict | After) -> None:
        assert math.isclose(risk, expected.risk, rel_tol=SAME, abs_tol=SAME), (
            f"risk {risk!r}, the model says {expected}"
        )
        assert 0 <= risk <= 1
        self.deviation.risk = max(self.deviation.risk, abs(risk - expected.risk))

    def compare_reasons(self, reasons: list[_native.Reason], expected: list[Reason]) -> None:
        assert [one.signal for one in reasons] == [one.signal for one in expected], expected
        for ours, theirs in zip(reasons, expected, strict=True):
            assert 0 < ours.p <= 1
            assert math.isclose(ours.p, theirs.p, rel_tol=SAME_P), (
                f"{ours.signal}: p {ours.p!r}, not {theirs.p!r}"
            )
            self.deviation.p = max(self.deviation.p, abs(ours.p / theirs.p - 1))
            self.same_number(ours.value, theirs.value, f"{ours.signal}: value")
            self.same_number(ours.baseline, theirs.baseline, f"{ours.signal}: baseline")
        self.deviation.reasons += len(reasons)

    def same_number(self, ours: float, theirs: float, what: str) -> None:
        assert math.isclose(ours, theirs, rel_tol=SAME, abs_tol=SAME), f"{what} {ours!r}, not {theirs!r}"
        self.deviation.number = max(self.deviation.number, abs(ours - theirs))

    def compare_baselines(self) -> None:
        """What was learned of every user, as `tool-firewall baseline show` would tell it."""
        now = self.model.clock.newest or 0.0
        for (tenant, name), user in self.model.users.items():
            baseline = self.engine.baseline(tenant, name)
            assert baseline is not None
            user.counts.refresh(self.model.decay)
            weight = self.model.decay.weight(self.model.decay.faded(now, now))
            facts = self.model.facts(user, now)
            tools = {f"{one['server']}/{one['tool']}".lstrip("/"): one["count"] for one in baseline["tools"]}
            counted = {
                key.tool: sum_
                for key, sum_ in user.counts.sums.items()
                if isinstance(key, Item) and key.kind == "tool"
            }
            assert tools.keys() == counted.keys()
            for tool, count in tools.items():
                self.same_number(count, counted[tool] / weight, f"{name}: {tool}")
            for hour, days in enumerate(self.model.hours.by_hour(user.name)):
                self.same_number(baseline["hours"][hour], days, f"{name}: hour {hour}")
            self.compare_news(user)
            assert baseline["signals"].keys() == facts.keys()
            for signal, expected in facts.items():
                assert baseline["signals"][signal].keys() == expected.keys()
                for fact, value in expected.items():
                    self.same_number(baseline["signals"][signal][fact], value, f"{name}: {signal} {fact}")

    def compare_news(self, user: User) -> None:
        """What was listed of a user, for people to judge."""
        now, new_for = self.model.clock.newest or 0.0, self.model.settings.new_for

        def told(key: Hashable, held: Held) -> tuple[Any, ...]:
            state = "held" if held.lasts(now, new_for) else "listed"
            item = (key.kind, key.origin or "") if isinstance(key, Item) else ("argument", "")
            kind, origin = item
            return kind, origin.rpartition("/")[2], held.tool.rpartition("/")[2], held.since, state

        news = self.engine.news(*user.name)
        ours = sorted((one["kind"], one["from"], one["tool"], one["since"], one["state"]) for one in news)
        theirs = [told(key, held) for key, held in user.held.items()]
        assert ours == sorted(one for one in theirs if one[0] != "skip")

    def caller(self, call: Call) -> _native.Caller:
        key = (call.tenant, call.user, call.group, call.session, call.agent, call.token)
        if key not in self.callers:
            self.callers[key] = self.engine.caller(
                call.tenant,
                call.user,
                agent=call.agent,
                group=call.group,
                session=call.session,
                token=call.token,
            )
        return self.callers[key]

    def policy(self, call: Call) -> _native.Policy:
        key = (call.mode, call.threshold)
        if key not in self.policies:
            self.policies[key] = self.engine.policy(mode=call.mode, threshold=call.threshold)
        return self.policies[key]


SETTINGS = {
    "default": (
        Settings(
            rate_spike_floor=6,
            burn_spike_floor=0.1,
            session_budget=8,
            day_budget=20,
            tenant_zones=TENANT_ZONES,
            user_zones=USER_ZONES,
        ),
        (30 * DAY, 400 * DAY),
    ),
    "short": (
        Settings(
            half_life=2 * DAY,
            new_for=6 * HOUR,
            session_idle=300,
            burst_threshold=5,
            burst_window=10,
            rate_spike_floor=8,
            burn_spike_floor=0.1,
            session_budget=3,
            day_budget=5,
            default_zone="Europe/Berlin",
            tenant_zones=TENANT_ZONES,
        ),
        (5 * DAY, 200 * DAY),
    ),
}


@pytest.mark.parametrize("which", SETTINGS)
def test_invented_traffic_gives_the_same_verdicts(which: str) -> None:
    settings, jumps = SETTINGS[which]
    pair = Pair(settings)
    calls = CALLS * 3 // 5 if which == "default" else CALLS * 2 // 5
    deviation = pair.run(Traffic(seed=7, jumps=jumps).steps(calls))
    met = pair.model.cases()
    print(f"\n{which}: {deviation}\n{dict(met)}")
    assert deviation.calls == calls
    if CALLS >= 100_000:
        assert [case for case in MUST_MEET if met[case] <= 0] == []


def events(path: Path) -> Iterator[Step]:
    """A stream: the agent is the peer group, every call ends at once."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines):
            event = json.loads(line)
            call = Call(
                *(event["tenant"], event["user"], event["agent"], event["session"], event["tool"]),
                arguments=event.get("args", {}),
                agent=event["agent"],
            )
            yield Step(event["ts"], number, call)
            yield Step(event["ts"], number, None, ok=event.get("ok", True), cost=event.get("cost"))


@pytest.mark.skipif(not STREAMS, reason="TOOL_FIREWALL_STREAMS names no folder with labelled streams")
def test_labelled_streams_give_the_same_verdicts() -> None:
    paths = sorted(Path(STREAMS).glob("*/events.jsonl.gz"))
    assert paths, f"no */events.jsonl.gz in {STREAMS}"
    for path in paths:
        pair = Pair(Settings())
        deviation = pair.run(events(path))
        print(f"\n{path.parent.name}: {deviation}\n{dict(pair.model.cases())}")
        assert deviation.calls > 0
