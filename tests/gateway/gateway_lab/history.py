# SPDX-License-Identifier: Apache-2.0
"""Two weeks of ordinary work, as records in the journal: what the firewall would have learned by then.

The records are like those that real calls leave, so every worker that tails the journal learns from them,
if it runs already or starts later. The same habits, end and seed make the same records.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from cpex_tool_firewall._native import encode_call, encode_outcome, pack
from cpex_tool_firewall.journal.interface import Pack
from cpex_tool_firewall.journal.sqlite import SqliteJournal
from cpex_tool_firewall.state import open_state

DAYS: Final = 14
_DAY_SECONDS: Final = 86_400
_HOUR_SECONDS: Final = 3_600
_QUIET_SECONDS: Final = 3_000  # the history ends so long before `until`: longer than a session may idle
_BATCH: Final = 2_000

# What a session consists of, in order. http_fetch is rare, delete_records and boom never happen.
ROUTES: Final = (
    ("db_query", "db_query", "report"),
    ("db_query", "file_upload"),
    ("db_query", "db_query", "db_query", "report"),
    ("report", "db_query"),
    ("db_query", "report", "file_upload"),
)


@dataclass(frozen=True)
class Habit:
    """What one user does every day. user: as the gateway writes it. hours: UTC hours of its sessions."""

    user: str
    hours: frozenset[int]
    routes: Sequence[Sequence[str]] = ROUTES


def hours_around(now: float, *, before: int, after: int) -> frozenset[int]:
    """The UTC hours of the day from `before` hours before `now` to `after` hours after it."""
    hour = int(now // _HOUR_SECONDS)
    return frozenset((hour + offset) % 24 for offset in range(-before, after + 1))


def records(habits: Sequence[Habit], *, tenant: str, server: str, until: float, seed: int = 7) -> list[bytes]:
    """The records of DAYS days up to shortly before `until` (seconds since the epoch), oldest first."""
    chance = random.Random(seed)
    worker = chance.randrange(1, 2**63)
    first_hour = int(until - DAYS * _DAY_SECONDS) // _HOUR_SECONDS * _HOUR_SECONDS
    call = partial(encode_call, worker=worker, tenant=tenant, server=server)
    made: list[tuple[float, int, bytes]] = []
    seq = 0
    for start in range(first_hour, int(until - _QUIET_SECONDS), _HOUR_SECONDS):
        for habit in habits:
            if start // _HOUR_SECONDS % 24 not in habit.hours:
                continue
            at = start + chance.uniform(60, 1500)
            session = f"{habit.user} {start}"
            for tool in chance.choice(habit.routes):
                seq += 1
                record = call(ts=at, seq=seq, user=habit.user, session=session, tool=tool)
                end = encode_outcome(ts=at + 1, worker=worker, seq=seq, outcome="ok")
                made += [(at, seq, record), (at + 1, seq, end)]
                at += chance.uniform(20, 240)
    made.sort(key=lambda one: one[:2])
    return [record for at, _, record in made if at < until - _QUIET_SECONDS]


def write(state: Path, history: Sequence[bytes]) -> int:
    """Appends records to the journal in `state`, which may be in use; the cursor of the last one."""
    opened = open_state(str(state))
    journal = SqliteJournal(opened.folder, opened.key, busy_seconds=5.0)
    try:
        cursor = 0
        for start in range(0, len(history), _BATCH):
            cursor = journal.append([Pack(*made) for made in pack(history[start : start + _BATCH])])
        return cursor
    finally:
        journal.close()
