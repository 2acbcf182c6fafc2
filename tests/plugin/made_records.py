# SPDX-License-Identifier: Apache-2.0
"""Decoded records as plain objects, for the tests of what is made of them."""

import itertools
from typing import Any

HOUR = 3600.0
NOON = 1_794_830_400.0  # 2026-11-16 12:00 UTC
KEY = bytes(range(32))
SESSION, OTHER_SESSION, TOKEN = "aa" * 8, "bb" * 8, "cc" * 8

_numbers = itertools.count(1)


def reason(signal: str, value: float = 7.0, baseline: float = 2.0, **more: Any) -> dict[str, Any]:
    """One reason, as a record has it."""
    text = f"{signal} was {value:g} where {baseline:g} is usual"
    return {"signal": signal, "p": 0.001, "value": value, "baseline": baseline, "explanation": text, **more}


def call(*signals: str | dict[str, Any], ts: float = NOON, risk: float = 0.55, **more: Any) -> dict[str, Any]:
    """A call that was listed for these signals, strongest first; without any an ordinary one."""
    number = next(_numbers)
    listed = "deny" if risk >= 0.5 else "audit"
    return {
        "kind": "call",
        "ts": ts,
        "worker": 4711,
        "seq": number,
        "tenant": "t1",
        "user": "alice",
        "agent": "",
        "group": "",
        "session": SESSION,
        "token": TOKEN,
        "server": "srv",
        "tool": "export",
        "previous": "db_query",
        "blocked": False,
        "decision": listed if signals else "allow",
        "mode": "warn",
        "uninspectable": "",
        "risk": risk if signals else 0.05,
        "incident": f"tf-{number:012x}",
        "reasons": [reason(one) if isinstance(one, str) else one for one in signals],
        **more,
    }


def outcome(of: dict[str, Any], *signals: str | dict[str, Any], **more: Any) -> dict[str, Any]:
    """How a call ended; with signals, something that only its ending told."""
    ending = {
        "kind": "outcome",
        "ts": of["ts"] + 0.5,
        "worker": of["worker"],
        "seq": of["seq"],
        "outcome": "ok",
        "cost": None,
        "risk": of["risk"],
        "decision": "allow",
    }
    if signals:
        same = ("tenant", "user", "agent", "group", "session", "token", "server", "tool", "previous", "mode")
        ending |= {name: of[name] for name in (*same, "incident")}
        ending |= {"decision": "deny", "risk": 0.6, "snoozed": False}
        ending["reasons"] = [reason(one) if isinstance(one, str) else one for one in signals]
    return ending | more


def control(action: str, value: str, ts: float = NOON, **scope: str) -> dict[str, Any]:
    """A change by an operator."""
    return {
        "kind": "control",
        "ts": ts,
        "worker": 1,
        "seq": next(_numbers),
        "action": action,
        "tenant": "",
        "tool": "",
        "user": "",
        "value": value,
        "by": "root",
        "why": "because",
        **scope,
    }
