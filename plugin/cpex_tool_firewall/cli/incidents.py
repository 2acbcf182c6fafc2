# SPDX-License-Identifier: Apache-2.0
"""Finding the finding that somebody means: by its uid, the beginning of it, or an incident of it."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .output import PROBLEM, WRONG_INPUT, fail
from .progress import progress

if TYPE_CHECKING:
    from ..feed import Finding
    from ..journal.interface import Journal

_INCIDENT = re.compile(r"tf-[0-9a-f]{12}")
_UID = re.compile(r"f-[0-9a-f]{6,16}")
_AFTER_SECONDS = 600.0  # a call of the hour may end so much later
_MOST_CALLS = 1000


@dataclass(slots=True)
class Behind:
    """The calls behind a finding, and what else its users did in that hour."""

    calls: list[dict[str, Any]] = field(default_factory=list)  # decoded records, the first 1,000
    left_out: int = 0
    outcomes: dict[tuple[int, int], dict[str, Any]] = field(default_factory=dict)  # by (worker, seq)
    all_times: list[float] = field(default_factory=list)  # of every call of these users in the hour


def is_incident(text: str) -> bool:
    """Whether a text has the form of an incident's name."""
    return _INCIDENT.fullmatch(text) is not None


def is_uid(text: str) -> bool:
    """Whether a text has the form of a finding's uid, or of the first six digits or more of one."""
    return _UID.fullmatch(text) is not None


def locate(journal: Journal, key: bytes, text: str) -> Finding:
    """The finding. Ends the command when there is none, or when the beginning of a uid is that of several."""
    from ..feed import Feed, Wanted
    from ..records import JournalRecords, Selection

    if not is_incident(text) and not is_uid(text):
        fail(
            f"{text!r} names no finding; accepted: a uid of the feed (f- and 6 to 16 hex digits), or an "
            "incident (tf- and 12 hex digits)",
            WRONG_INPUT,
        )
    with progress("reading the journal") as on_progress:
        uid: str | None = text
        if is_incident(text):
            uid = None
            feed = Feed(key)
            for fields in JournalRecords(journal, Selection(findings=True), on_progress):
                filed = feed.add(fields)
                if filed and fields.get("incident") == text:
                    uid = filed
                    break
        if uid is None:
            fail(f"{text}: no call of that incident is in the journal", PROBLEM)
        feed = Feed(key, Wanted(uid=uid))
        for fields in JournalRecords(journal, Selection(ordinary=False), on_progress):
            feed.add(fields)
    found = feed.findings(time.time())
    if not found:
        fail(f"{text}: there is no such finding; see: tool-firewall feed --all --since 90d", PROBLEM)
    if len(found) > 1:
        uids = ", ".join(one.uid for one in found[:5])
        fail(f"{text}: several findings begin so: {uids}", WRONG_INPUT)
    return found[0]


def gather(journal: Journal, key: bytes, finding: Finding) -> Behind:
    """The calls of a finding, in the order of the journal, and their endings."""
    from ..feed import Feed, Wanted
    from ..records import JournalRecords, Selection

    feed = Feed(key, Wanted(uid=finding.uid))
    behind = Behind()
    users = {part.user for part in finding.parts}
    seen: set[tuple[int, int]] = set()
    selection = Selection(since=finding.hour, until=finding.hour + 3600.0 + _AFTER_SECONDS)
    with progress("reading the journal") as on_progress:
        for fields in JournalRecords(journal, selection, on_progress):
            identity = (fields["worker"], fields["seq"])
            filed = feed.add(fields)
            if fields["kind"] == "call":
                if fields["tenant"] == finding.tenant and fields["user"] in users:
                    behind.all_times.append(fields["ts"])
            elif fields["kind"] == "outcome" and (identity in seen or filed):
                behind.outcomes[identity] = fields
            if filed and identity not in seen:
                if len(behind.calls) < _MOST_CALLS:
                    seen.add(identity)
                    behind.calls.append(fields)
                else:
                    behind.left_out += 1
    return behind
