# SPDX-License-Identifier: Apache-2.0
"""What operators silenced: snoozes, which quiet the firewall, and suppressions, which only hide findings.

Both have a scope (tenant, tool, user; "" means any) and an end, and come from control records. A snooze lasts
SNOOZE_SECONDS at most, counted from the first of an unbroken chain for its scope: extending it does not
lengthen that. A chain breaks when a snooze ran out or was cleared.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any, Final, NamedTuple

from .journal.interface import Journal
from .records import JournalRecords, Selection

SNOOZE: Final = "snooze"
SUPPRESS: Final = "suppress"
ANY_SIGNAL: Final = "*"

SNOOZE_SECONDS: Final = 7 * 86_400.0
"""The longest a scope can be snoozed, from the first snooze of a chain."""

SUPPRESS_SECONDS: Final = 90 * 86_400.0
"""The longest a suppression lasts; about as long as findings are kept."""

_MOST: Final = 10_000  # that ended are dropped beyond this


class Scope(NamedTuple):
    """Whom a change is for; "" means any."""

    tenant: str = ""
    tool: str = ""
    user: str = ""


@dataclass(frozen=True, slots=True)
class Silence:
    """One snooze or suppression. Times are seconds since the epoch."""

    first: float  # when the chain of snoozes, or the suppression, began
    until: float
    by: str
    why: str

    def holds(self, at: float) -> bool:
        """Whether it is in force at that time."""
        return self.first <= at < self.until


def snoozed_until(asked: float, now: float, current: Silence | None) -> tuple[float, float]:
    """(first of the chain, end) of a snooze that is asked for now, with the bound applied.

    current: what was last set for the same scope.
    """
    first = current.first if current is not None and current.holds(now) else now
    return first, min(asked, first + SNOOZE_SECONDS)


class Silences:
    """What is silenced, from control records in the order of the journal; others are ignored."""

    def __init__(self) -> None:
        self._snoozes: dict[Scope, Silence] = {}
        self._suppressed: dict[tuple[Scope, str], Silence] = {}

    def add(self, fields: Mapping[str, Any]) -> None:
        """Takes one decoded record."""
        action = fields.get("action")
        if action == SNOOZE:
            self._add_snooze(fields)
        elif action == SUPPRESS:
            self._add_suppression(fields)

    def snooze(self, scope: Scope) -> Silence | None:
        """What was last set for exactly this scope and not cleared; it may have ended."""
        return self._snoozes.get(scope)

    def suppression(self, scope: Scope, signal: str) -> Silence | None:
        """What was last set for exactly this scope and signal and not cleared; it may have ended."""
        return self._suppressed.get((scope, signal))

    def snoozed(self, tenant: str, tool: str, user: str, at: float) -> float:
        """Until when calls of this kind are snoozed, seen from `at`; 0 when they are not."""
        if not self._snoozes:
            return 0.0
        return max(self._end(self._snoozes.get(scope), at) for scope in _covering(tenant, tool, user))

    def suppressed(self, signal: str, tenant: str, tool: str, user: str, at: float) -> float:
        """Until when findings of this kind are hidden, seen from `at`; 0 when they are not."""
        if not self._suppressed:
            return 0.0
        return max(
            self._end(self._suppressed.get((scope, name)), at)
            for scope in _covering(tenant, tool, user)
            for name in (signal, ANY_SIGNAL)
        )

    def snoozes(self, at: float) -> Iterator[tuple[Scope, Silence]]:
        """The snoozes in force, the most general first."""
        found = [(scope, one) for scope, one in self._snoozes.items() if one.holds(at)]
        return iter(sorted(found, key=lambda entry: _specific(entry[0])))

    def suppressions(self, at: float) -> Iterator[tuple[Scope, str, Silence]]:
        """The suppressions in force, the most general first."""
        found = [(scope, signal, one) for (scope, signal), one in self._suppressed.items() if one.holds(at)]
        return iter(sorted(found, key=lambda entry: (*_specific(entry[0]), entry[1])))

    def _add_snooze(self, fields: Mapping[str, Any]) -> None:
        scope, now = _scope(fields), fields["ts"]
        asked = _seconds(fields["value"])
        if asked is None:
            return
        if asked <= now:
            self._snoozes.pop(scope, None)
            return
        first, until = snoozed_until(asked, now, self._snoozes.get(scope))
        self._snoozes[scope] = Silence(first, until, fields["by"], fields["why"])
        self._trim(self._snoozes, now)

    def _add_suppression(self, fields: Mapping[str, Any]) -> None:
        signal, _, text = fields["value"].partition(" ")
        key, now = (_scope(fields), signal), fields["ts"]
        asked = _seconds(text)
        if not signal or asked is None:
            return
        if asked <= now:
            self._suppressed.pop(key, None)
            return
        current = self._suppressed.get(key)
        first = current.first if current is not None and current.holds(now) else now
        until = min(asked, now + SUPPRESS_SECONDS)
        self._suppressed[key] = Silence(first, until, fields["by"], fields["why"])
        self._trim(self._suppressed, now)

    @staticmethod
    def _end(silence: Silence | None, at: float) -> float:
        return silence.until if silence is not None and silence.holds(at) else 0.0

    @staticmethod
    def _trim(silences: dict[Any, Silence], now: float) -> None:
        if len(silences) > _MOST:
            for key in [key for key, one in silences.items() if one.until <= now]:
                del silences[key]


def read_silences(journal: Journal) -> Silences:
    """What is silenced according to a whole journal. Raises JournalError."""
    found = Silences()
    for fields in JournalRecords(journal, Selection(kind="control", ordinary=False)):
        found.add(fields)
    return found


def _scope(fields: Mapping[str, Any]) -> Scope:
    return Scope(fields["tenant"], fields["tool"], fields["user"])


def _covering(tenant: str, tool: str, user: str) -> Iterator[Scope]:
    """Every scope that a call of this kind is in."""
    for parts in product({tenant, ""}, {tool, ""}, {user, ""}):
        yield Scope(*parts)


def _specific(scope: Scope) -> tuple[int, Scope]:
    """To sort by: how much a scope names, then what."""
    return sum(map(bool, scope)), scope


def _seconds(text: str) -> float | None:
    """A time in a record: 0 for "", None for what is none."""
    if not text:
        return 0.0
    try:
        found = float(text)
    except ValueError:
        return None
    return found if math.isfinite(found) else None
