# SPDX-License-Identifier: Apache-2.0
"""`tool-firewall mode`: show or change what happens to calls over the threshold, in all workers at once."""

from typing import Annotated

import typer

from .following import Followed, operator
from .history import read_history, reading
from .options import JsonOption, StateOption, TenantOption, ToolOption, UserOption, WhyOption
from .output import (
    WRONG_INPUT,
    fail,
    moment,
    print_json,
    print_table,
    reports_errors,
    say,
    warn,
)
from .scopes import modes_in_force, scope_words


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
    why: WhyOption = "",
    clear: Annotated[bool, typer.Option("--clear", help="Take back what was set for this scope.")] = False,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show or change the mode, in all workers and without a restart.

    learning: calls are recorded and allowed, quietly. warn: allowed, with a warning in the log. shadow: as
    warn, and the warning says what block would have stopped. block: calls over the threshold are stopped.
    The narrowest scope holds: user before tool before tenant before everywhere. Other names are accepted:
    detection for learning, audit for warn, enforce for block.

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
    from ..control import ControlError, mode_named, set_mode

    if value:
        try:
            value = mode_named(value)
        except ControlError as error:
            fail(str(error), WRONG_INPUT)
    else:
        _check_is_set(state, scope)
    by = operator()
    with reading(state) as (_, journal):
        try:
            cursor = set_mode(
                journal, value, tenant=scope["tenant"], tool=scope["tool"], user=scope["user"], by=by, why=why
            )
        except ControlError as error:
            fail(str(error), WRONG_INPUT)
        followed = Followed(journal, cursor)
    if as_json:
        print_json({**scope, "mode": value or None, "by": by, "why": why, **followed.as_json()})
    else:
        _report(scope, value)
        followed.tell()
    followed.end()


def _check_is_set(state: str | None, scope: dict[str, str]) -> None:
    if scope not in [entry["scope"] for entry in read_history(state).engine.modes()]:
        fail(f"{scope_words(scope)}: nothing was set, so there is nothing to clear; see: tool-firewall mode")


def _report(scope: dict[str, str], value: str) -> None:
    where = scope_words(scope)
    say(
        f"{where}: {value} is in force" if value else f"{where}: cleared, the next wider scope is in force",
        "bold",
    )
    if value == "learning":
        warn(f"nothing will be blocked or warned about ({where}): calls are only recorded and learned from")
