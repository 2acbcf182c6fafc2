# SPDX-License-Identifier: Apache-2.0
"""The records of a journal as plain objects, one after the other, and calls joined with their endings.

docs/records.md describes the fields. Objects are made one at a time: a journal of any length needs the
memory of one pack, and joining that of the calls that are still running.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from ._native import decode_record, unpack
from .journal.interface import Journal, Kind

RECORD_KINDS: Final = ("call", "outcome", "control")
OUTCOMES: Final = ("ok", "tool_error", "timeout", "unreachable")

_BATCH: Final = 64  # packs
_NO_END_SECONDS: Final = 300.0  # a call without an ending counts as done after so long
_MOST_RUNNING: Final = 65_536  # calls whose ending is waited for
_IDENTITY: Final = re.compile(r"call-([0-9a-f]{16})-([0-9]{1,19})")

Fields = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Selection:
    """Which records are wanted."""

    since: float | None = None  # seconds since the epoch; from here on
    until: float | None = None  # and before this
    kind: str | None = None  # one of RECORD_KINDS
    findings: bool = False  # only calls that were listed, warned about or stopped, and ends that made one so
    ordinary: bool = True  # also ordinary calls and outcomes; without them much less is decoded

    def takes(self, fields: Fields) -> bool:
        """Whether a decoded record is wanted, as far as its pack does not say so already."""
        ts = fields["ts"]
        return (
            (self.kind is None or fields["kind"] == self.kind)
            and (self.since is None or ts >= self.since)
            and (self.until is None or ts < self.until)
        )

    def takes_pack(self, kind: int) -> bool:
        """Whether records of this journal Kind are wanted."""
        if self.findings:
            return kind == Kind.FINDING
        return self.ordinary or kind != Kind.ORDINARY


class JournalRecords:
    """Iterates over what a journal holds at this moment, in the order of the journal.

    Iterating once more gives what came since.
    """

    def __init__(
        self,
        journal: Journal,
        selection: Selection | None = None,
        progress: Callable[[int, int], None] | None = None,
        *,
        after: int = 0,
    ) -> None:
        """progress(cursor, last cursor), after each batch. after: the cursor to begin after."""
        self._journal = journal
        self._selection = selection or Selection()
        self._progress = progress
        self.cursor = after  # read up to here
        self.damaged = 0  # records that could not be read
        self.first_damage = ""  # where and what, "" while there was none

    def __iter__(self) -> Iterator[Fields]:
        """Decoded records (see decode_record) with their `cursor`. Raises JournalError."""
        last = self._journal.last()
        while self.cursor < last and (entries := self._journal.read_since(self.cursor, _BATCH)):
            for entry in entries:
                if entry.cursor > last:
                    return
                self.cursor = entry.cursor
                if self._selection.takes_pack(entry.kind):
                    yield from self._of_pack(entry.cursor, entry.records, entry.body)
            if self._progress is not None:
                self._progress(self.cursor, last)

    def _of_pack(self, cursor: int, count: int, body: bytes) -> Iterator[Fields]:
        try:
            packed = unpack(body)
        except ValueError as error:
            self._note(cursor, count, str(error))
            return
        for record in packed:
            try:
                fields = decode_record(record)
            except ValueError as error:
                self._note(cursor, 1, str(error))
                continue
            if self._selection.takes(fields):
                yield {"cursor": cursor, **fields}

    def _note(self, cursor: int, count: int, what: str) -> None:
        self.damaged += count
        self.first_damage = self.first_damage or f"cursor {cursor}: {what}"


class EventJoiner:
    """Makes of calls and outcomes the events that `tool-firewall replay` reads, in the order of the calls."""

    def __init__(self, *, findings: bool = False) -> None:
        """findings: only of calls that were listed, warned about or stopped, before they ran or after."""
        self._findings = findings
        self._running: OrderedDict[tuple[int, int], _Joined] = OrderedDict()

    def add(self, fields: Fields) -> Iterator[Fields]:
        """Takes one decoded record; gives the events that are complete by now."""
        key = (fields["worker"], fields["seq"])
        if fields["kind"] == "call":
            self._running[key] = _Joined(_event(fields), fields["blocked"], fields["decision"] != "allow")
        elif fields["kind"] == "outcome" and key in self._running:
            joined = self._running[key]
            event = joined.event
            event["ok"] = fields["outcome"] == "ok"
            event["duration"] = max(fields["ts"] - event["ts"], 0.0)
            event["cost"] = fields["cost"]
            event["risk"] = max(event["risk"], fields["risk"])
            joined.complete = True
            joined.finding |= fields["decision"] != "allow"
        else:
            return
        yield from self._complete(fields["ts"])

    def rest(self) -> Iterator[Fields]:
        """The events of calls whose ending never came."""
        while self._running:
            yield from self._wanted(self._running.popitem(last=False)[1])

    def _complete(self, now: float) -> Iterator[Fields]:
        while self._running:
            first = next(iter(self._running.values()))
            old = now - first.event["ts"] > _NO_END_SECONDS or len(self._running) > _MOST_RUNNING
            if not (first.complete or old):
                return
            self._running.popitem(last=False)
            yield from self._wanted(first)

    def _wanted(self, joined: _Joined) -> Iterator[Fields]:
        if joined.finding or not self._findings:
            yield joined.event


@dataclass(slots=True)
class _Joined:
    """A call on its way to an event."""

    event: Fields
    complete: bool
    finding: bool


def event_id(worker: int, seq: int) -> str:
    """Names a call in events so that an import knows it again."""
    return f"call-{worker:016x}-{seq}"


def identity(text: object) -> tuple[int, int] | None:
    """(worker, seq) of an event_id() of ours; None for any other."""
    found = _IDENTITY.fullmatch(text) if isinstance(text, str) else None
    return (int(found[1], 16), int(found[2])) if found else None


def to_json(fields: Fields) -> str:
    """One line of JSON in ASCII, without its end. Lone surrogates stay escaped as they were."""
    return _encode(fields)


def to_strict_json(fields: Fields) -> str:
    """As to_json(), for readers that refuse lone surrogates: those become visible text (\\\\ud800)."""
    line = _encode(fields)
    if "\\ud" in line:
        line = _encode({name: strict(value) for name, value in fields.items()})
    return line


def strict(value: Any) -> Any:
    """A text, or a list of texts, that any reader of Unicode accepts; everything else as it is."""
    if isinstance(value, list):
        return [strict(one) for one in value]
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def named_worker(fields: Fields) -> Fields:
    """The same with `worker` as 16 hex digits: as a number it is too long for most readers of JSON."""
    fields["worker"] = f"{fields['worker']:016x}"
    return fields


_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


def _event(fields: Fields) -> Fields:
    return {
        "event_id": event_id(fields["worker"], fields["seq"]),
        "ts": fields["ts"],
        "tenant": fields["tenant"],
        "user": fields["user"],
        "agent": fields["agent"],
        "group": fields["group"],
        "session": fields["session"],
        "server": fields["server"],
        "tool": fields["tool"],
        "ok": not fields["blocked"],
        "duration": None,
        "blocked": fields["blocked"],
        "arguments": fields["arguments"],
        "facts": fields["facts"],
        "destinations": fields["destinations"],
        "token": fields["token"],
        "cost": None,
        "risk": fields["risk"],
        "snoozed": fields["snoozed"],
    }
