# SPDX-License-Identifier: Apache-2.0
"""`tool-firewall mode`: show or change what happens to calls over the threshold, in all workers at once."""

import os
import pwd
import time
from typing import Annotated

import typer

from ..journal.interface import Journal, Worker
from ..liveness import state_of
from .history import read_history, reading
from .options import JsonOption, StateOption
from .output import (
    PROBLEM,
    WRONG_INPUT,
    counted,
    fail,
    moment,
    print_json,
    print_table,
    reports_errors,
    say,
    warn,
)
from .scopes import modes_in_force, scope_words

_FOLLOW_SECONDS = 2.0
_LOOK_SECONDS = 0.02

TenantOption = Annotated[
    str, typer.Option("--tenant", metavar="T", help="Only for this tenant (the gateway's team id).")
]
ToolOption = Annotated[
    str, typer.Option("--tool", metavar="X", help="Only for this tool, as its server names it.")
]
UserOption = Annotated[
    str, typer.Option("--user", metavar="U", help="Only for this user, as the gateway names them.")
]


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("mode")(mode)


@reports_errors
def mode(
    value: Annotated[
        str | None,
        typer.Argument(
            metavar="MODE",
            help="learning, warn, shadow or block; none: show what is in force.",
            show_default=False,
        ),
    ] = None,
    tenant: TenantOption = "",
    tool: ToolOption = "",
    user: UserOption = "",
    why: Annotated[str, typer.Option("--why", metavar="TEXT", help="The reason, for the record.")] = "",
    clear: Annotated[bool, typer.Option("--clear", help="Take back what was set for this scope.")] = False,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show or change the mode, in all workers and without a restart.

    learning: calls are recorded and allowed, quietly. warn: allowed, with a warning in the log. shadow: as
    warn, and the warning says what block would have stopped. block: calls over the threshold are stopped.
    The narrowest scope holds: user before tool before tenant before everywhere.

    \b
    Example:
      tool-firewall mode
      tool-firewall mode warn
      tool-firewall mode block --tool delete_records --why "ticket 4711"
      tool-firewall mode --clear --tool delete_records
    """
    scope = {"tenant": tenant, "tool": tool, "user": user}
    if value is None and not clear:
        if why:
            fail("--why goes with a mode to set, or with --clear", WRONG_INPUT)
        _show(state, scope, as_json)
        return
    if value is not None and clear:
        fail("give either a mode or --clear, not both", WRONG_INPUT)
    _change(state, scope, value or "", why, as_json)


def operator() -> str:
    """Who runs this command: the user, and through sudo the user behind it."""
    try:
        name = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        name = f"uid {os.geteuid()}"
    behind = os.environ.get("SUDO_USER")
    return f"{behind} (sudo as {name})" if behind and behind != name else name


def _show(state: str | None, scope: dict[str, str], as_json: bool) -> None:
    history = read_history(state)
    found = modes_in_force(history)
    asked = any(scope.values())
    policy = history.engine.policy(mode=history.settings.mode, threshold=history.settings.threshold)
    in_force = history.engine.mode_in_force(policy, **scope, now=history.now)
    if as_json:
        print_json({"asked": {**scope, "mode": in_force}, "in_force": found})
        return
    if asked:
        say(f"{scope_words(scope)}: {in_force}", "bold")
    if found[0]["source"] == "configuration" and not history.settings_known:
        warn("no worker has reported its settings yet: the default mode is assumed")
    rows = [
        [
            scope_words(entry),
            entry["mode"],
            moment(entry["since"]) if entry["since"] else "as configured",
            entry["by"],
            entry["why"],
        ]
        for entry in found
    ]
    print_table("", ["scope", "=mode", "=since", "by", "why"], rows)


def _change(state: str | None, scope: dict[str, str], value: str, why: str, as_json: bool) -> None:
    from ..control import ControlError, set_mode

    if not value:
        _check_is_set(state, scope)
    by = operator()
    with reading(state) as (_, journal):
        started = time.monotonic()
        try:
            cursor = set_mode(
                journal, value, tenant=scope["tenant"], tool=scope["tool"], user=scope["user"], by=by, why=why
            )
        except ControlError as error:
            fail(str(error), WRONG_INPUT)
        live, behind = wait_for_workers(journal, cursor)
        seconds = time.monotonic() - started
    if as_json:
        print_json(
            {
                **scope,
                "mode": value or None,
                "by": by,
                "why": why,
                "cursor": cursor,
                "workers": len(live),
                "behind": [_worker(worker) for worker in behind],
                "seconds": round(seconds, 3),
            }
        )
    else:
        _report(scope, value, live, behind, seconds)
    if behind:
        raise typer.Exit(PROBLEM)


def _check_is_set(state: str | None, scope: dict[str, str]) -> None:
    if scope not in [entry["scope"] for entry in read_history(state).engine.modes()]:
        fail(f"{scope_words(scope)}: nothing was set, so there is nothing to clear; see: tool-firewall mode")


def wait_for_workers(journal: Journal, cursor: int) -> tuple[list[Worker], list[Worker]]:
    """Waits up to 2 s until all live workers have applied the record at `cursor`.

    Returns the live ones, and those of them that are still behind.
    """
    until = time.monotonic() + _FOLLOW_SECONDS
    while True:
        now = time.time()
        live = [worker for worker in journal.workers() if state_of(worker, now) == "alive"]
        behind = [worker for worker in live if _applied(worker) < cursor]
        if not behind or time.monotonic() >= until:
            return live, behind
        time.sleep(_LOOK_SECONDS)


def _applied(worker: Worker) -> int:
    cursor = worker.body.get("cursor")
    return cursor if isinstance(cursor, int) else 0


def _report(
    scope: dict[str, str], value: str, live: list[Worker], behind: list[Worker], seconds: float
) -> None:
    where = scope_words(scope)
    say(
        f"{where}: {value} is in force" if value else f"{where}: cleared, the next wider scope is in force",
        "bold",
    )
    if value == "learning":
        warn(f"nothing will be blocked or warned about ({where}): calls are only recorded and learned from")
    if not live:
        say("no worker is alive: it takes effect when the gateway starts")
    elif not behind:
        follow = "the one live worker follows" if len(live) == 1 else f"all {len(live)} live workers follow"
        say(f"{follow} ({seconds:.2f} s)", "green")
    else:
        names = "; ".join(_worker(worker) for worker in behind)
        warn(
            f"{len(behind)} of {counted(len(live), 'live worker')} did not confirm within "
            f"{_FOLLOW_SECONDS:g} s: {names}. The change is stored and holds as soon as they read it; "
            "look with: tool-firewall status"
        )


def _worker(worker: Worker) -> str:
    return f"{worker.body.get('pid')} on {worker.body.get('host')}"
