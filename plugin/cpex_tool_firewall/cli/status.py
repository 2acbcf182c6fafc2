# SPDX-License-Identifier: Apache-2.0
"""`tool-firewall status`: the mode in force, what was learned, and which workers are alive."""

from typing import Any

import typer

from ..journal.interface import Worker
from ..liveness import state_of
from .history import History, read_history
from .options import JsonOption, StateOption
from .output import counted, duration, minute, moment, print_json, print_table, reports_errors, say, size
from .scopes import modes_in_force, scope_words

_GOOD, _BAD = "green", "bold red"
_OF_HEARTBEAT = (
    *("pid", "host", "started", "mode", "plugin_mode", "plugin_priority"),
    *("cursor", "version", "gateway"),
)


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("status")(status)


@reports_errors
def status(state: StateOption = None, as_json: JsonOption = False) -> None:
    """Show the mode, what was learned, and the workers.

    \b
    Example:
      tool-firewall status
      tool-firewall status --json | jq .mode
    """
    history = read_history(state)
    found = describe(history)
    if as_json:
        print_json(found)
    else:
        _print(found, history)


def describe(history: History) -> dict[str, Any]:
    """Everything `status` shows, for JSON."""
    summary = history.engine.summary()
    everywhere, *narrower = modes_in_force(history)
    return {
        "state": str(history.state.folder),
        "mode": everywhere,
        "scopes": narrower,
        "learning_since": _learning_since(everywhere, summary),
        "first_call": summary["since"] or None,
        "last_call": summary["last"] or None,
        "calls": summary["calls"],
        "tenants": summary["tenants"],
        "users": summary["users"],
        "tools": summary["tools"],
        "verdicts": summary["decisions"],
        "waiting": sum(1 for item in history.engine.news() if item["state"] != "rejected"),
        "snoozes": sum(1 for one in history.engine.snoozes() if one["until"] > history.now),
        "costs": history.settings.has_costs,
        "journal": {
            "where": history.where,
            "cursor": history.cursor,
            "bytes": history.journal_bytes,
            "snapshot": history.snapshot._asdict() if history.snapshot else None,
            "unreadable": history.engine.counters()["records_unreadable"],
        },
        "workers": [describe_worker(worker, history.now) for worker in history.workers],
    }


def describe_worker(worker: Worker, now: float) -> dict[str, Any]:
    """One worker for JSON. For its state see state_of()."""
    body = worker.body
    return {
        "name": worker.name,
        "state": state_of(worker, now),
        "seen": worker.seen,
        "age_seconds": round(max(now - worker.seen, 0.0), 1),
        **{key: body.get(key) for key in _OF_HEARTBEAT},
        "fail_on_plugin_error": body.get("fail_on_plugin_error"),
        "alarms": body.get("alarms") or [],
    }


def _learning_since(everywhere: dict[str, Any], summary: dict[str, Any]) -> float | None:
    if everywhere["mode"] != "learning":
        return None
    return everywhere["since"] or summary["since"] or None


def _print(found: dict[str, Any], history: History) -> None:
    mode = found["mode"]
    said = (
        f", set {moment(mode['since'])} by {mode['by']}" if mode["source"] == "command" else ", as configured"
    )
    say(f"mode       {mode['mode']}{said}" + (f" ({mode['why']})" if mode["why"] else ""), "bold")
    if not history.settings_known:
        say("           no worker has reported its settings yet: defaults are assumed", "yellow")
    if found["learning_since"]:
        age = duration(history.now - found["learning_since"])
        say(f"learning   since {moment(found['learning_since'])} ({age})")
    say(
        f"calls      {found['calls']:,} by {counted(found['users'], 'user')} in "
        f"{counted(found['tenants'], 'tenant')}, {counted(found['tools'], 'tool')}; "
        f"first {moment(found['first_call'] or 0)}, last {moment(found['last_call'] or 0)}"
    )
    say("verdicts   " + ", ".join(f"{name} {count:,}" for name, count in found["verdicts"].items()))
    if found["waiting"]:
        say(
            f"waiting    {counted(found['waiting'], 'new behaviour')} to accept or reject: tool-firewall news"
        )
    if found["snoozes"]:
        say(f"snoozed    {counted(found['snoozes'], 'scope')}: nothing is said or stopped there", "yellow")
    if not found["costs"]:
        say(
            "costs      nothing says what calls cost, so cost and burn_spike are off (settings: tool_costs, "
            "cost_argument, cost_result)"
        )
    journal = found["journal"]
    snapshot = journal["snapshot"]
    saved = (
        f"snapshot of {moment(snapshot['at'])}, {size(snapshot['size'])}" if snapshot else "no snapshot yet"
    )
    say(f"journal    {size(journal['bytes'])} in {journal['where']}; {saved}")
    if journal["unreadable"]:
        say(f"           {counted(journal['unreadable'], 'record')} could not be read", _BAD)
    if found["scopes"]:
        rows = [
            [scope_words(entry), entry["mode"], minute(entry["since"]), entry["by"], entry["why"]]
            for entry in found["scopes"]
        ]
        print_table("narrower scopes", ["scope", "=mode", "=since (UTC)", "by", "why"], rows)
    _print_workers(found["workers"])


def _print_workers(workers: list[dict[str, Any]]) -> None:
    alive = [worker for worker in workers if worker["state"] == "alive"]
    lost = [worker for worker in workers if worker["state"] in ("silent", "dead")]
    say(f"workers    {len(alive)} alive", _GOOD if alive else _BAD)
    for worker in lost:
        why = "its process is gone" if worker["state"] == "dead" else "it hangs, or was killed"
        say(f"           {_name(worker)} is silent for {duration(worker['age_seconds'])}: {why}", _BAD)
    for worker in alive:
        for alarm in worker["alarms"]:
            say(f"           {_name(worker)}: {alarm}", _BAD)
        if worker["fail_on_plugin_error"] is False:
            say(f"           {_name(worker)}: PLUGINS_FAIL_ON_PLUGIN_ERROR is not true (see doctor)", _BAD)
    rows = [
        [
            str(worker["pid"]),
            str(worker["host"]),
            worker["state"],
            duration(worker["age_seconds"]) + " ago",
            str(worker["mode"] or ""),
            minute(worker["started"] or 0),
            str(worker["version"] or ""),
        ]
        for worker in workers
        if worker["state"] != "left"
    ]
    if rows:
        print_table("", [">pid", "host", "=state", "=heard of", "=mode", "=started (UTC)", "version"], rows)


def _name(worker: dict[str, Any]) -> str:
    return f"worker {worker['pid']} on {worker['host']}"
