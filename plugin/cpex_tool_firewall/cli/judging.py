# SPDX-License-Identifier: Apache-2.0
"""`tool-firewall news`, `accept` and `reject`: new behaviours, and what a person says of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from .following import Followed, operator
from .history import History, read_history, reading
from .incidents import locate
from .options import JsonOption, StateOption, WhyOption
from .output import (
    PROBLEM,
    WRONG_INPUT,
    fail,
    minute,
    moment,
    print_json,
    print_table,
    reports_errors,
    say,
)

if TYPE_CHECKING:
    from ..feed import Finding

_HABIT_OF = {"burst": "burst", "frequency": "burst", "cost": "cost"}  # by signal
_HABITS = {"burst": "bursts", "cost": "higher costs"}
_SLACK_SECONDS = 1.0

IdsArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="ID...", help="Items of news (i-...), a finding (f-...), or an incident (tf-...)."
    ),
]
TenantOption = Annotated[
    str | None, typer.Option("--tenant", metavar="T", help="Only this tenant (team id).")
]
UserOption = Annotated[str | None, typer.Option("--user", metavar="U", help="Only this user.")]


def register(app: typer.Typer) -> None:
    """Adds the commands."""
    app.command("news")(news)
    app.command("accept")(accept)
    app.command("reject")(reject)


@reports_errors
def news(
    tenant: TenantOption = None,
    user: UserOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """List new behaviours that nobody has judged yet: what was first used at a risk of 1/3 or more.

    listed: it becomes ordinary with use. held: it stays new until the time shown. rejected: each use has a
    risk of 0.5 at least, until it is accepted.

    \b
    Example:
      tool-firewall news
      tool-firewall news --user alice@example.com --json
    """
    found = _items(read_history(state), tenant, user)
    if as_json:
        print_json(found)
        return
    rows = [
        [
            item["id"],
            item["user"],
            _what(item),
            f"{item['risk']:.2f}",
            minute(item["since"]),
            item["state"],
            moment(item["until"]) if item.get("until") else "",
        ]
        for item in found
    ]
    print_table(
        "",
        ["=id", "user", "what", ">risk", "=since (UTC)", "=state", "=until"],
        rows,
        empty="nothing new that nobody has judged",
    )


@reports_errors
def accept(
    ids: IdsArgument,
    tenant: TenantOption = None,
    user: UserOption = None,
    why: WhyOption = "",
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say that a new behaviour is fine: from now on it is ordinary for that user.

    An incident or a finding stands for everything new of its user that this tool brought. "burst" with --user
    says that this user may call in bursts, "cost" that what this user has come to spend is fine. An earlier
    rejection is taken back.

    \b
    Example:
      tool-firewall accept i-5f0c2a9e71d34b60 --why "new role, ticket 4711"
      tool-firewall accept tf-5f0c2a9e71d3
      tool-firewall accept burst --user nightly@example.com
    """
    _judge("accept", ids, tenant, user, why, state, as_json)


@reports_errors
def reject(
    ids: IdsArgument,
    tenant: TenantOption = None,
    user: UserOption = None,
    why: WhyOption = "",
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say that a new behaviour is not fine: what was learned of it goes, and each later use is acted on.

    Each later use has a risk of 0.5 at least, so it is warned about, or stopped in block mode. It does not
    stop the tool for anybody else, nor in the other modes.

    \b
    Example:
      tool-firewall reject i-5f0c2a9e71d34b60 --why "stolen token, incident tf-5f0c2a9e71d3"
      tool-firewall reject tf-5f0c2a9e71d3
    """
    _judge("reject", ids, tenant, user, why, state, as_json)


def _judge(
    verb: str,
    ids: list[str],
    tenant: str | None,
    user: str | None,
    why: str,
    state: str | None,
    as_json: bool,
) -> None:
    from .. import control

    history = read_history(state)
    judged: dict[str, dict[str, Any]] = {}
    with reading(state) as (opened, journal):
        for name in ids:
            if name in control.HABITS:
                chosen = [_habit(name, history, tenant, user)]
            elif control.is_item(name):
                chosen = [_item(history, name, tenant, user)]
            else:
                chosen = _items_of(history, locate(journal, opened.key, name), name, verb)
            judged |= {f"{item['tenant']} {item['user']} {item['id']}": item for item in chosen}
        by, cursor = operator(), 0
        write = control.accept if verb == "accept" else control.reject
        try:
            for item in judged.values():
                cursor = write(
                    journal,
                    item["id"],
                    tenant=item["tenant"],
                    user=item["user"],
                    tool=item["tool"],
                    by=by,
                    why=why,
                )
        except control.ControlError as error:
            fail(str(error), WRONG_INPUT)
        followed = Followed(journal, cursor)
    done = f"{verb}ed"
    if as_json:
        items = [{name: item[name] for name in ("tenant", "user", "id", "tool")} for item in judged.values()]
        print_json({done: items, "by": by, "why": why, **followed.as_json()})
    else:
        for item in judged.values():
            say(f"{done}: {_what(item)}, of {item['user']}", "bold")
        followed.tell()
    followed.end()


def _items(history: History, tenant: str | None, user: str | None) -> list[dict[str, Any]]:
    news = history.engine.news()
    return [item for item in news if tenant in (None, item["tenant"]) and user in (None, item["user"])]


def _item(history: History, name: str, tenant: str | None, user: str | None) -> dict[str, Any]:
    found = [item for item in _items(history, tenant, user) if item["id"] == name]
    if not found:
        fail(f"{name}: there is no such new behaviour; see: tool-firewall news", PROBLEM)
    if len(found) > 1:
        owners = ", ".join(f"{item['user']} in tenant {item['tenant'] or '(none)'}" for item in found[:5])
        fail(f"{name}: it is of several; choose with --user or --tenant: {owners}", WRONG_INPUT)
    return found[0]


def _items_of(history: History, finding: Finding, name: str, verb: str) -> list[dict[str, Any]]:
    """Everything new that the tool of a finding brought its user until the finding was last seen."""
    if finding.signal in _HABIT_OF and verb == "accept":
        return [_habit_of(_HABIT_OF[finding.signal], finding.tenant, finding.user, finding.tool)]
    found = [
        item
        for item in _items(history, finding.tenant, finding.user)
        if item["tool"] == finding.tool
        and item["since"] <= finding.last_seen + _SLACK_SECONDS
        and item["state"] != f"{verb}ed"
    ]
    if not found:
        fail(
            f"{name}: {finding.signal} of {finding.tool} brought nothing new that waits for a judgement; "
            "see: tool-firewall news, snooze, suppress",
            PROBLEM,
        )
    return found


def _habit(habit: str, history: History, tenant: str | None, user: str | None) -> dict[str, Any]:
    if user is None:
        fail(f"{habit}: whose? name the user with --user", WRONG_INPUT)
    known = {entry["tenant"] for entry in history.engine.principals() if entry["user"] == user}
    tenants = sorted(known if tenant is None else {tenant} & known)
    if not tenants:
        fail(f"nothing was learned of {user}; see: tool-firewall baseline list", PROBLEM)
    if len(tenants) > 1:
        fail(
            f"{user} is known in several tenants; choose one with --tenant: {', '.join(tenants)}", WRONG_INPUT
        )
    return _habit_of(habit, tenants[0], user, "")


def _habit_of(habit: str, tenant: str, user: str, tool: str) -> dict[str, Any]:
    return {"tenant": tenant, "user": user, "id": habit, "kind": habit, "tool": tool, "from": ""}


def _what(item: dict[str, Any]) -> str:
    kind, tool = item["kind"], item["tool"]
    if kind in _HABITS:
        return _HABITS[kind]
    if kind == "tool":
        return f"the tool {tool}"
    if kind == "argument":
        return f"a new {item.get('what') or 'value'} in the arguments of {tool}"
    later = "some time after" if kind == "skip" else "right after"
    return f"{tool} {later} {item['from'] or 'the session start'}"
