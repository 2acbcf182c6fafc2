# SPDX-License-Identifier: Apache-2.0
"""What an operator changes, written as records: every worker reads them from the journal and follows.

Modes, snoozes, and judgements on new behaviour are the engine's; a suppression concerns the feed alone. Each
record says who did it and why. An empty tenant, tool or user means any.
"""

import itertools
import secrets
import time
from dataclasses import dataclass
from typing import Final

from ._native import encode_control, pack
from .journal.interface import Journal, Pack
from .silences import (
    ANY_SIGNAL,
    SNOOZE,
    SUPPRESS,
    SUPPRESS_SECONDS,
    Scope,
    Silence,
    snoozed_until,
)

MODES: Final = ("learning", "warn", "shadow", "block")
CLEAR: Final = ""
"""The value that removes what was said for a scope; the next wider one holds again."""

MODE_ALIASES: Final = {"detection": "learning", "audit": "warn", "enforce": "block"}
"""Other names of the modes that people may use. Stored and shown are ours."""

HABITS: Final = ("burst", "cost")
"""What can be accepted besides items: that a user calls in bursts, or has come to spend more."""

WHY_LENGTH: Final = 200

_EVERYWHERE: Final = Scope()

# Readers tell records apart by writer and number, and workers skip their own: so this process writes under a
# number of its own.
_writer = secrets.randbelow(2**63 - 1) + 1
_numbers = itertools.count(1)


class ControlError(ValueError):
    """A control change that cannot be written. The text says what is accepted."""


@dataclass(frozen=True, slots=True)
class Silenced:
    """What became of a snooze or suppression."""

    cursor: int  # of its record
    until: float  # s since the epoch; 0: it was cleared
    clamped: bool  # a later end was asked for than may be
    first: float  # when the chain of snoozes began; the time of the suppression


def mode_named(value: str) -> str:
    """The mode of that name or alias. Raises ControlError for a value that is none."""
    found = MODE_ALIASES.get(value, value)
    if found not in MODES:
        also = ", ".join(f"{alias} = {mode}" for alias, mode in MODE_ALIASES.items())
        raise ControlError(
            f"mode: {value!r} is not a mode; accepted: {', '.join(MODES)} (or by other names: {also})"
        )
    return found


def set_mode(
    journal: Journal,
    value: str,
    *,
    tenant: str = "",
    tool: str = "",
    user: str = "",
    by: str,
    why: str = "",
    now: float | None = None,
) -> int:
    """Puts a mode in force for a scope, or clears it with "": returns the cursor of the record, once on disk.

    An empty tenant, tool or user means any. by: who did it; why: for the record, at most 200 characters.
    Raises ControlError for a value that is no mode, JournalError when it could not be stored.
    """
    named = CLEAR if value == CLEAR else mode_named(value)
    return _write(journal, "mode", Scope(tenant, tool, user), named, by, why, _time(now))


def snooze(
    journal: Journal,
    until: float,
    scope: Scope = _EVERYWHERE,
    *,
    current: Silence | None,
    by: str,
    why: str = "",
    now: float | None = None,
) -> Silenced:
    """Quiets the firewall for a scope until a time (s since the epoch); a time that is not ahead clears it.

    Snoozed calls are scored and recorded, and neither warned about nor stopped for their behaviour. An end
    later than 7 days after the first snooze of an unbroken chain is brought forward to that. current: what is
    in force for this scope (Silences.snooze). Raises ControlError, JournalError.
    """
    at = _time(now)
    if until <= at:
        return Silenced(_write(journal, SNOOZE, scope, CLEAR, by, why, at), 0.0, False, at)
    first, end = snoozed_until(until, at, current)
    return Silenced(_write(journal, SNOOZE, scope, _seconds(end), by, why, at), end, end < until, first)


def suppress(
    journal: Journal,
    signal: str,
    until: float,
    scope: Scope = _EVERYWHERE,
    *,
    by: str,
    why: str = "",
    now: float | None = None,
) -> Silenced:
    """Hides findings of a signal ("*": of any) from the feed until a time, 90 days at most; a time that is
    not ahead clears it. Nothing else changes. Raises ControlError, JournalError.
    """
    at = _time(now)
    if not signal or signal.split() != [signal]:
        raise ControlError(f"signal: {signal!r} is not the name of a signal; {ANY_SIGNAL} means all")
    if until <= at:
        return Silenced(_write(journal, SUPPRESS, scope, signal, by, why, at), 0.0, False, at)
    if signal == ANY_SIGNAL and not any(scope):
        raise ControlError("this would hide every finding there is; name a signal, or a tenant, tool or user")
    end = min(until, at + SUPPRESS_SECONDS)
    cursor = _write(journal, SUPPRESS, scope, f"{signal} {_seconds(end)}", by, why, at)
    return Silenced(cursor, end, end < until, at)


def accept(
    journal: Journal,
    item: str,
    *,
    tenant: str,
    user: str,
    tool: str = "",
    by: str,
    why: str = "",
    now: float | None = None,
) -> int:
    """Says that a new behaviour of a user is fine: item is its id from Engine.news(), or one of HABITS.

    tool: for whoever reads the record. Returns its cursor. Raises ControlError, JournalError.
    """
    return _judge(journal, "accept", item, Scope(tenant, tool, user), by, why, now)


def reject(
    journal: Journal,
    item: str,
    *,
    tenant: str,
    user: str,
    tool: str = "",
    by: str,
    why: str = "",
    now: float | None = None,
) -> int:
    """Says that a new behaviour of a user is not fine: it leaves what was learned, and each later use has a
    risk of 0.5 at least. As accept(), but a habit cannot be rejected.
    """
    if item in HABITS:
        raise ControlError(f"{item} can be accepted, not rejected: it is told anyway unless accepted")
    return _judge(journal, "reject", item, Scope(tenant, tool, user), by, why, now)


def _judge(
    journal: Journal, action: str, item: str, scope: Scope, by: str, why: str, now: float | None
) -> int:
    if item not in HABITS and not is_item(item):
        raise ControlError(f"item: {item!r} is not an item; accepted: i- and 16 hex digits, as in: news")
    if not scope.user:
        raise ControlError("user: an item is one user's; name the user")
    return _write(journal, action, scope, item, by, why, _time(now))


def is_item(text: str) -> bool:
    """Whether a text has the form of an item's id."""
    return text.startswith("i-") and len(text) == 18 and set(text[2:]) <= set("0123456789abcdef")


def _write(journal: Journal, action: str, scope: Scope, value: str, by: str, why: str, now: float) -> int:
    if len(why) > WHY_LENGTH:
        raise ControlError(f"why: {len(why)} characters; accepted: at most {WHY_LENGTH}")
    record = encode_control(
        ts=now,
        worker=_writer,
        seq=next(_numbers),
        action=action,
        tenant=scope.tenant,
        tool=scope.tool,
        user=scope.user,
        value=value,
        by=by,
        why=why,
    )
    return journal.append([Pack(*made) for made in pack([record])], durable=True)


def _seconds(ts: float) -> str:
    return f"{ts:.3f}"


def _time(now: float | None) -> float:
    return time.time() if now is None else now
