# SPDX-License-Identifier: Apache-2.0
"""Findings: what the records of a journal say that people should look at, one row for each incident.

A finding is made of calls that were listed, warned about or stopped, and of calls that turned out that way
when they ended (an outcome with a decision other than allow). Calls go into one row when they have the same
tenant, signal, tool, user and hour (UTC). Two kinds of signal differ: a rate_spike or burn_spike is the
tool's, whoever calls it; and a retry_loop is a row for each loop, so that two loops on one tool stay apart.

A call is filed under the strongest reason against it; the others are named in the row.

The feed holds names, numbers and keyed digests: no argument values and no tokens. Its memory is bounded; when
there are too many rows, those that nothing was added to for the longest are dropped and counted.
docs/feed.md describes every field.
"""

from __future__ import annotations

import json
import math
import re
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, NamedTuple

from .finding_tags import tags_of
from .silences import Scope, Silences
from .state import digest

NOTABLE: Final = 1 / 3
SEVERE: Final = 2 / 3
UNINSPECTABLE: Final = "uninspectable"
RETRY_LOOP: Final = "retry_loop"

RATE_LIMIT: Final = "rate_limit"
BLOCK_TOOL: Final = "block_tool"
REVIEW: Final = "review"

_HOUR_SECONDS: Final = 3600.0
_OF_THE_TOOL: Final = frozenset({"rate_spike", "burn_spike"})
_TOO_MUCH: Final = frozenset({"frequency", "burst", "rate_spike", "burn_spike", "cost", RETRY_LOOP})
_SPIKE: Final = "rate_spike"
_NEW: Final = "novelty"

_MOST_ROWS: Final = 10_000
_MOST_CALLS: Final = 65_536  # whose outcome may still come
_MOST_PARTS: Final = 256  # users and sessions of one row
_MOST_INCIDENTS: Final = 32  # of one row
_MOST_DESTINATIONS: Final = 16  # of one row

_DIGEST: Final = re.compile(r"[0-9a-f]{16}")
_UNINSPECTED: Final = {
    "depth": "the arguments are nested too deeply to be inspected",
    "size": "the arguments are too large to be inspected",
    "type": "the arguments are of a kind that cannot be inspected",
}

Fields = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Part:
    """The share of one user and session in a finding."""

    user: str
    session: str
    count: int
    risk: float
    first_seen: float
    last_seen: float


@dataclass(frozen=True, slots=True)
class Finding:
    """One row of the feed. Times are seconds since the epoch; docs/feed.md says more of each field."""

    uid: str  # "f-" and 16 hex digits: names this row
    id: str  # "" for spikes, else 16 hex digits: the same as long as the same thing goes on, hour after hour
    signal: str
    other_signals: tuple[str, ...]  # that spoke against these calls too, the most frequent first
    tenant: str
    tool: str
    server: str
    user: str  # "" when there are several, or when the reader may not see it
    principal: str  # keyed digest of tenant and user, "" when there are several
    users: int  # how many, 256 at most
    token: str  # keyed digest
    session: str  # keyed digest; of the riskiest call
    sessions: int  # how many, 256 at most
    hour: float  # its start
    count: int  # calls
    value: float  # what the signal measured at the riskiest call
    baseline: float  # and what is usual
    z_score: float | None  # None where the signal has none
    first_seen: float
    last_seen: float
    risk: float  # the highest
    decision: str  # the worst: audit | deny
    verdicts: dict[str, int]  # calls by decision
    blocked: int  # calls that were stopped
    mode: str  # in force at the last call
    explanation: str  # one sentence with its numbers
    suggested_action: str  # rate_limit | block_tool | review
    tags: tuple[str, ...]
    destinations: tuple[str, ...]  # hosts, 16 at most
    snoozed: bool
    snoozed_until: float | None  # of a snooze that is in force now
    suppressed: bool
    suppressed_until: float | None
    incidents: tuple[str, ...]  # the first 32
    parts: tuple[Part, ...] = field(repr=False)  # of users and sessions; not for readers that may see no user

    @property
    def hidden(self) -> bool:
        """Whether the feed leaves it out unless asked for all."""
        return self.snoozed or self.suppressed

    def as_json(self) -> dict[str, Any]:
        """Every documented field, fit for JSON."""
        fields = {name: getattr(self, name) for name in self.__slots__ if name != "parts"}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}


@dataclass(frozen=True, slots=True)
class Alert:
    """What one notification tells: the findings of one user, session and hour."""

    uid: str  # "a-" and 16 hex digits: a notification that was sent is not sent again
    tenant: str
    user: str  # "" when the reader may not see it
    session: str
    hour: float
    count: int  # calls in these findings
    risk: float  # the highest
    first_seen: float
    last_seen: float
    signals: tuple[str, ...]  # of the riskiest finding first
    tools: tuple[str, ...]
    findings: tuple[str, ...]  # their uids
    explanation: str  # of the riskiest finding

    def as_json(self) -> dict[str, Any]:
        """Every field, fit for JSON."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which findings are asked for; None: any."""

    since: float | None = None  # seconds since the epoch, of a call
    until: float | None = None
    tenant: str | None = None
    tool: str | None = None
    user: str | None = None
    signal: str | None = None
    uid: str | None = None  # its beginning is enough

    def takes(self, fields: Fields, signal: str) -> bool:
        """Whether a record that is filed under `signal` is wanted, `uid` aside."""
        ts = fields["ts"]
        return (
            (self.since is None or ts >= self.since)
            and (self.until is None or ts < self.until)
            and self.signal in (None, signal)
            and all(
                wanted is None or wanted == fields.get(name, "")
                for name, wanted in (("tenant", self.tenant), ("tool", self.tool), ("user", self.user))
            )
        )


class Key(NamedTuple):
    """What a row is of."""

    tenant: str
    signal: str
    tool: str
    user: str
    hour: float
    loop: str


@dataclass(slots=True)
class _Filed:
    """A call that was filed, until its outcome has come."""

    key: Key
    decision: str
    kinds: set[str]


@dataclass(slots=True)
class _Row:
    uid: str
    first_seen: float
    last_seen: float
    count: int = 0
    silent_snoozed: int = 0  # calls during a snooze
    silent_suppressed: int = 0
    blocked: int = 0
    verdicts: dict[str, int] = field(default_factory=dict)
    others: dict[str, int] = field(default_factory=dict)
    parts: dict[tuple[str, str], Part] = field(default_factory=dict)
    incidents: dict[str, None] = field(default_factory=dict)
    destinations: dict[str, None] = field(default_factory=dict)
    top: Fields = field(default_factory=dict)  # the record with the highest risk
    risk: float = -1.0
    mode: str = ""


class Feed:
    """Folds records, in the order of a journal, into findings. Not for several threads at once."""

    def __init__(self, key: bytes, wanted: Wanted | None = None, *, most_rows: int = _MOST_ROWS) -> None:
        """key: of the installation, for the digests."""
        self.dropped = 0  # rows
        self.silences = Silences()
        self._key = key
        self._wanted = wanted or Wanted()
        self._most = most_rows
        self._rows: OrderedDict[Key, _Row] = OrderedDict()  # what was added to last is at the end
        self._filed: OrderedDict[tuple[int, int], _Filed] = OrderedDict()
        self._news: dict[Key, None] = {}

    def add(self, fields: Fields) -> str | None:
        """Takes one decoded record (see decode_record); gives the uid of the finding it belongs to, if any.

        A record that was seen before, or whose call was, is not counted again.
        """
        if fields["kind"] == "control":
            self._add_control(fields)
            return None
        if fields.get("decision", "allow") == "allow":
            return None
        signals = signals_of(fields)
        signal = signals[0]
        if not self._wanted.takes(fields, signal):
            return None
        identity = (fields["worker"], fields["seq"])
        before = self._filed.get(identity)
        key = self._key_of(fields, signal, before)
        row = self._rows.get(key)
        if row is None:
            uid = f"f-{self._digest('finding', *key)}"
            if self._wanted.uid is not None and not uid.startswith(self._wanted.uid):
                return None
            row = self._rows[key] = _Row(uid, fields["ts"], fields["ts"])
            if len(self._rows) > self._most:
                self._news.pop(self._rows.popitem(last=False)[0], None)
                self.dropped += 1
        if before is not None and fields["kind"] in before.kinds:
            return row.uid  # a second copy, as a journal may hold after a fault
        self._add_to(row, key, fields, signals, before if before is not None and before.key == key else None)
        self._remember(identity, key, fields, before)
        return row.uid

    def findings(self, now: float, *, show_user: bool = True) -> list[Finding]:
        """All findings, the latest last.

        now: for the snoozes and suppressions in force. show_user: the reader may see who it was.
        """
        found = [self._finding(key, row, now, show_user) for key, row in self._rows.items()]
        return sorted(found, key=lambda one: (one.last_seen, one.uid))

    def changed(self, now: float, *, show_user: bool = True) -> list[Finding]:
        """The findings that are new since this was asked last, or whose risk has reached another band (1/3,
        1/2, 2/3), in the order in which that happened.
        """
        keys, self._news = list(self._news), {}
        return [self._finding(key, self._rows[key], now, show_user) for key in keys if key in self._rows]

    def alerts(self, now: float, *, show_user: bool = True, hidden: bool = False) -> list[Alert]:
        """The findings as notifications: one for each tenant, user, session and hour, the latest last.

        hidden: also of findings that are snoozed or suppressed.
        """
        found: dict[tuple[str, str, str, float], list[tuple[Part, Finding]]] = {}
        for finding in self.findings(now):
            if hidden or not finding.hidden:
                for part in finding.parts:
                    where = (finding.tenant, part.user, part.session, finding.hour)
                    found.setdefault(where, []).append((part, finding))
        made = [self._alert(where, entries, show_user) for where, entries in found.items()]
        return sorted(made, key=lambda one: (one.last_seen, one.uid))

    # --- filing ---

    def _key_of(self, fields: Fields, signal: str, before: _Filed | None) -> Key:
        hour = before.key.hour if before else math.floor(fields["ts"] / _HOUR_SECONDS) * _HOUR_SECONDS
        user = "" if signal in _OF_THE_TOOL else fields["user"]
        loop = _loop(fields, signal)
        if before and before.key.signal == signal and not (fields.get("loop") or fields.get("arguments")):
            loop = before.key.loop  # an ending does not say again what its call said
        return Key(fields["tenant"], signal, fields["tool"], user, hour, loop)

    def _add_to(self, row: _Row, key: Key, fields: Fields, signals: list[str], before: _Filed | None) -> None:
        decision, risk, ts = fields["decision"], fields.get("risk", 0.0), fields["ts"]
        new = before is None
        if new:
            row.count += 1
            row.blocked += bool(fields.get("blocked"))
            row.verdicts[decision] = row.verdicts.get(decision, 0) + 1
            row.silent_snoozed += self._was_snoozed(fields)
            row.silent_suppressed += self._suppressed_until(key, fields["user"], ts) > 0
        elif before is not None and before.decision == "audit" and decision == "deny":
            row.verdicts["audit"] -= 1
            row.verdicts["deny"] = row.verdicts.get("deny", 0) + 1
        for other in signals[1:]:
            if new or other not in row.others:
                row.others[other] = row.others.get(other, 0) + 1
        self._add_part(row, fields, risk, new)
        _keep(row.incidents, (fields.get("incident") or "",), _MOST_INCIDENTS)
        _keep(row.destinations, fields.get("destinations") or (), _MOST_DESTINATIONS)
        if _band(risk) > _band(row.risk):
            self._news[key] = None
        if risk > row.risk:
            row.risk, row.top = risk, fields
        row.first_seen, row.last_seen = min(row.first_seen, ts), max(row.last_seen, ts)
        row.mode = fields.get("mode", "")
        self._rows.move_to_end(key)

    def _add_part(self, row: _Row, fields: Fields, risk: float, new: bool) -> None:
        ts = fields["ts"]
        where = (fields["user"], self._opaque(fields.get("session", "")))
        part = row.parts.get(where)
        if part is None and len(row.parts) >= _MOST_PARTS:
            return
        if part is None:
            row.parts[where] = Part(*where, 1, risk, ts, ts)
        else:
            row.parts[where] = replace(
                part,
                count=part.count + new,
                risk=max(part.risk, risk),
                first_seen=min(part.first_seen, ts),
                last_seen=max(part.last_seen, ts),
            )

    def _remember(self, identity: tuple[int, int], key: Key, fields: Fields, before: _Filed | None) -> None:
        kinds = before.kinds if before else set()
        kinds.add(fields["kind"])
        self._filed[identity] = _Filed(key, fields["decision"], kinds)
        if len(self._filed) > _MOST_CALLS:
            self._filed.popitem(last=False)

    def _add_control(self, fields: Fields) -> None:
        self.silences.add(fields)
        if fields["action"] != "suppress":
            return
        scope = Scope(fields["tenant"], fields["tool"], fields["user"])
        signal = fields["value"].partition(" ")[0]
        if self.silences.suppression(scope, signal) is None:  # taken back: what it hid is there again
            for key, row in self._rows.items():
                if signal in ("*", key.signal) and _within(scope, key, row):
                    row.silent_suppressed = 0

    def _was_snoozed(self, fields: Fields) -> bool:
        """What the engine said; records of older versions do not say it."""
        said = fields.get("snoozed")
        if said is not None:
            return bool(said)
        return self.silences.snoozed(fields["tenant"], fields["tool"], fields["user"], fields["ts"]) > 0

    def _suppressed_until(self, key: Key, user: str, at: float) -> float:
        return self.silences.suppressed(key.signal, key.tenant, key.tool, user, at)

    # --- what readers get ---

    def _finding(self, key: Key, row: _Row, now: float, show_user: bool) -> Finding:
        top = row.top
        users = list(dict.fromkeys(part.user for part in row.parts.values()))
        user = users[0] if len(users) == 1 else ""
        snoozed_until = self.silences.snoozed(key.tenant, key.tool, user, now)
        suppressed_until = self._suppressed_until(key, user, now)
        reason = _reason(top)
        riskiest = max(row.parts.values(), key=lambda part: part.risk)
        return Finding(
            uid=row.uid,
            id=self._id(key),
            signal=key.signal,
            other_signals=tuple(sorted(row.others, key=lambda name: (-row.others[name], name))),
            tenant=key.tenant,
            tool=key.tool,
            server=top.get("server", ""),
            user=user if show_user else "",
            principal=self._digest("principal", key.tenant, user) if len(users) == 1 else "",
            users=len(users),
            token=self._opaque(top.get("token", "")),
            session=riskiest.session,
            sessions=len({part.session for part in row.parts.values()}),
            hour=key.hour,
            count=row.count,
            value=reason.get("value", 0.0),
            baseline=reason.get("baseline", 0.0),
            z_score=_z_score(key.signal, reason),
            first_seen=row.first_seen,
            last_seen=row.last_seen,
            risk=row.risk,
            decision="deny" if row.verdicts.get("deny") else "audit",
            verdicts={name: count for name, count in row.verdicts.items() if count},
            blocked=row.blocked,
            mode=row.mode,
            explanation=_explanation(row),
            suggested_action=suggested_action(key.signal, row.others, row.risk),
            tags=tags_of(key.signal),
            destinations=tuple(row.destinations),
            snoozed=snoozed_until > 0 or row.silent_snoozed >= row.count,
            snoozed_until=snoozed_until or None,
            suppressed=suppressed_until > 0 or row.silent_suppressed >= row.count,
            suppressed_until=suppressed_until or None,
            incidents=tuple(row.incidents),
            parts=tuple(row.parts.values()) if show_user else (),
        )

    def _alert(
        self,
        where: tuple[str, str, str, float],
        entries: list[tuple[Part, Finding]],
        show_user: bool,
    ) -> Alert:
        tenant, user, session, hour = where
        entries = sorted(entries, key=lambda entry: -entry[0].risk)
        return Alert(
            uid=f"a-{self._digest('alert', *where)}",
            tenant=tenant,
            user=user if show_user else "",
            session=session,
            hour=hour,
            count=sum(part.count for part, _ in entries),
            risk=entries[0][0].risk,
            first_seen=min(part.first_seen for part, _ in entries),
            last_seen=max(part.last_seen for part, _ in entries),
            signals=tuple(dict.fromkeys(finding.signal for _, finding in entries)),
            tools=tuple(dict.fromkeys(finding.tool for _, finding in entries)),
            findings=tuple(finding.uid for _, finding in entries),
            explanation=entries[0][1].explanation,
        )

    def _id(self, key: Key) -> str:
        """The id of what goes on: a spike has none, a loop is told from other loops."""
        if key.signal in _OF_THE_TOOL:
            return ""
        return self._digest("id", key.tenant, key.signal, key.tool, key.user, key.loop)

    def _digest(self, *parts: object) -> str:
        return digest(self._key, json.dumps(parts))

    def _opaque(self, text: str) -> str:
        return opaque(self._key, text)


def opaque(key: bytes, text: str) -> str:
    """A digest as it is; anything else as a digest, so that no raw token or session can come out."""
    return text if not text or _DIGEST.fullmatch(text) else digest(key, text)


def suggested_action(signal: str, others: Iterable[str], risk: float) -> str:
    """What to do first. Too much of something is limited; a tool that is new to its user, at a risk that 1 in
    10,000 ordinary calls reaches, is blocked until somebody looked; everything else is for a person to judge.
    """
    if signal in _TOO_MUCH:
        return RATE_LIMIT
    new_tool = signal == _NEW or (signal == "novel_path" and _NEW in others)
    return BLOCK_TOOL if new_tool and risk >= SEVERE else REVIEW


def signals_of(fields: Fields) -> list[str]:
    """What spoke against a call that was listed, strongest first. Arguments that could not be inspected come
    before all, as in what the agent is told.
    """
    names = [UNINSPECTABLE] if fields.get("uninspectable") else []
    return names + [reason["signal"] for reason in fields.get("reasons") or ()] or ["unknown"]


def explanation_of(fields: Fields) -> str:
    """The strongest reason against a call in words, without a full stop."""
    what = fields.get("uninspectable")
    if what:
        return _UNINSPECTED.get(what, "the arguments cannot be inspected")
    said: str = _reason(fields).get("explanation", "")
    return said.rstrip(". ") or f"unusual: {signals_of(fields)[0]}"


def _reason(fields: Fields) -> Fields:
    """The strongest reason; {} when there is none to tell of."""
    if fields.get("uninspectable"):
        return {}
    reasons = fields.get("reasons")
    return reasons[0] if reasons else {}


def _loop(fields: Fields, signal: str) -> str:
    """What tells one loop from another: its session, and the digest of what repeats."""
    if signal != RETRY_LOOP:
        return ""
    return f"{fields.get('session', '')} {fields.get('loop') or fields.get('arguments') or ''}"


def _z_score(signal: str, reason: Fields) -> float | None:
    """The engine's own; of a count of calls otherwise how many of its standard deviations, as a Poisson count
    has them, it lies above the baseline.
    """
    if signal == RETRY_LOOP:
        return 0.0
    said = reason.get("z_score")
    if said is not None:
        return float(said)
    if signal != _SPIKE:
        return None
    baseline = reason.get("baseline", 0.0)
    return float((reason.get("value", 0.0) - baseline) / math.sqrt(max(baseline, 1.0)))


def _explanation(row: _Row) -> str:
    text = explanation_of(row.top)
    if row.count == 1:
        return f"{text}."
    return f"{row.count:,} calls; of the riskiest ({row.risk:.2f}): {text}."


def _within(scope: Scope, key: Key, row: _Row) -> bool:
    return (
        scope.tenant in ("", key.tenant)
        and scope.tool in ("", key.tool)
        and (not scope.user or any(part.user == scope.user for part in row.parts.values()))
    )


def _band(risk: float) -> int:
    """0 below 1/3, then 1, 2 from 0.5, 3 from 2/3; -1 for none."""
    return -1 if risk < 0 else (risk >= NOTABLE) + (risk >= 0.5) + (risk >= SEVERE)


def _keep(into: dict[str, None], names: Iterable[str], most: int) -> None:
    for name in names:
        if name and len(into) < most:
            into.setdefault(name)


def visible(findings: Iterable[Finding], *, everything: bool = False) -> Iterator[Finding]:
    """The findings that are neither snoozed nor suppressed, or all."""
    return (one for one in findings if everything or not one.hidden)
