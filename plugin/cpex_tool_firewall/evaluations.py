# SPDX-License-Identifier: Apache-2.0
"""Every evaluation as one row: what was asked, what the agent saw, and why.

A call is evaluated before it runs. When it ends, what only the ending tells (its cost) may make it a finding;
that is a row of its own. No row holds an argument value or a token.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from .feed import explanation_of, opaque, signals_of
from .records import event_id

VERDICTS: Final = ("allow", "audit", "deny")
BEFORE: Final = "tool_pre_invoke"
AFTER: Final = "tool_post_invoke"

_SHADOW: Final = "[shadow] would deny: "


def evaluation(key: bytes, fields: Mapping[str, Any]) -> dict[str, Any] | None:
    """The row of a decoded record, None for one that is no evaluation.

    key: of the installation. Fields that records of older versions lack are empty.
    """
    after = fields["kind"] == "outcome"
    decision = fields.get("decision")
    if fields["kind"] == "control" or decision is None or (after and decision == "allow"):
        return None
    listed = decision != "allow"
    would_deny = decision == "deny" and fields.get("mode") == "shadow" and not fields.get("blocked")
    return {
        "ts": fields["ts"],
        "event": event_id(fields["worker"], fields["seq"]),
        "surface": AFTER if after else BEFORE,
        "verdict": verdict_of(fields),
        "decision": decision,
        "mode": fields.get("mode", ""),
        "risk": fields.get("risk", 0.0),
        "tenant": fields.get("tenant", ""),
        "user": fields.get("user", ""),
        "agent": fields.get("agent", ""),
        "session": opaque(key, fields.get("session", "")),
        "token": opaque(key, fields.get("token", "")),
        "server": fields.get("server", ""),
        "tool": fields.get("tool", ""),
        "previous": fields.get("previous", ""),
        "signals": signals_of(fields) if listed else [],
        "reason": (_SHADOW if would_deny else "") + explanation_of(fields) if listed else "",
        "incident": fields.get("incident", "") if listed else "",
        "snoozed": bool(fields.get("snoozed", False)),
        "destinations": list(fields.get("destinations") or ()),
    }


def verdict_of(fields: Mapping[str, Any]) -> str:
    """What the agent saw: deny when the call was stopped, audit when it ran and was listed, else allow."""
    if fields.get("blocked"):
        return "deny"
    return "allow" if fields.get("decision", "allow") == "allow" else "audit"
