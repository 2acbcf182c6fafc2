# SPDX-License-Identifier: Apache-2.0
"""Modes in force, scope by scope, for the commands that show them."""

from typing import Any

from .history import History


def modes_in_force(history: History) -> list[dict[str, Any]]:
    """The global mode first, then every narrower scope that was set, the most general first.

    Each: {tenant, tool, user, mode, source, since, by, why}; source "command", or "configuration" for a
    global mode that nobody changed (since None, by and why empty).
    """
    records = [
        {**entry["scope"], **{key: entry[key] for key in ("mode", "since", "by", "why")}, "source": "command"}
        for entry in history.engine.modes()
    ]
    policy = history.engine.policy(mode=history.settings.mode, threshold=history.settings.threshold)
    configured = {
        "tenant": "",
        "tool": "",
        "user": "",
        "mode": history.engine.mode_in_force(policy, now=history.now),
        "since": None,
        "by": "",
        "why": "",
        "source": "configuration",
    }
    everywhere = [entry for entry in records if not is_narrow(entry)] or [configured]
    return everywhere + [entry for entry in records if is_narrow(entry)]


def is_narrow(scope: dict[str, Any]) -> bool:
    """True when the scope names a tenant, a tool or a user."""
    return bool(scope["tenant"] or scope["tool"] or scope["user"])


def scope_words(scope: dict[str, Any]) -> str:
    """tenant t1, tool delete_records; "everywhere" for the global scope."""
    named = [f"{part} {scope[part]}" for part in ("tenant", "tool", "user") if scope[part]]
    return ", ".join(named) or "everywhere"
