# SPDX-License-Identifier: Apache-2.0
"""`tool-firewall baseline`: whose habits are known, and what exactly was learned of one user."""

import difflib
from typing import Annotated, Any, NoReturn

import typer

from .history import History, read_history
from .options import JsonOption, StateOption
from .output import (
    PROBLEM,
    WRONG_INPUT,
    console,
    counted,
    duration,
    fail,
    minute,
    moment,
    print_json,
    print_table,
    reports_errors,
    say,
)

_BARS = " ▁▂▃▄▅▆▇█"
_ASCII_BARS = " .:-=+*#@"
_HELP = """Show what was learned: of everybody, or of one user.

\b
Example:
  tool-firewall baseline list
  tool-firewall baseline show alice@example.com
"""
_NEAREST = 5
_STEPS_SHOWN = 20
_LABEL = 9


def register(app: typer.Typer) -> None:
    """Adds the group."""
    group = typer.Typer(help=_HELP, no_args_is_help=True, rich_markup_mode=None)
    group.command("list")(list_users)
    group.command("show")(show)
    app.add_typer(group, name="baseline")


TenantOption = Annotated[
    str | None, typer.Option("--tenant", metavar="T", help="Only this tenant (team id).")
]


@reports_errors
def list_users(tenant: TenantOption = None, state: StateOption = None, as_json: JsonOption = False) -> None:
    """List every user something was learned of, the busiest first.

    \b
    Example:
      tool-firewall baseline list
      tool-firewall baseline list --tenant 4f1c --json
    """
    found = [entry for entry in read_history(state).engine.principals() if tenant in (None, entry["tenant"])]
    found.sort(key=lambda entry: (-entry["calls"], entry["tenant"], entry["user"]))
    if as_json:
        print_json(found)
        return
    rows = [
        [
            entry["user"],
            entry["tenant"] or "(no tenant)",
            entry["group"] or "(tenant)",
            f"{entry['calls']:,}",
            minute(entry["first"]),
            minute(entry["last"]),
        ]
        for entry in found
    ]
    print_table(
        "",
        ["user", "tenant", "compared with", ">calls", "=first (UTC)", "=last (UTC)"],
        rows,
        empty="no user yet",
    )


@reports_errors
def show(
    user: Annotated[str, typer.Argument(metavar="USER", help="The user, as the gateway names them.")],
    tenant: TenantOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what was learned of one user: tools, steps, hours, rates, costs, and what still counts as new.

    \b
    Example:
      tool-firewall baseline show alice@example.com
      tool-firewall baseline show alice@example.com --tenant 4f1c --json
    """
    history = read_history(state)
    found = history.engine.baseline(_tenant_of(history, user, tenant), user)
    if found is None:
        _unknown(history, user, tenant)
    if as_json:
        print_json(found)
        return
    _print(found, history.now)


def _tenant_of(history: History, user: str, tenant: str | None) -> str:
    if tenant is not None:
        return tenant
    tenants = sorted(entry["tenant"] for entry in history.engine.principals() if entry["user"] == user)
    if len(tenants) > 1:
        names = ", ".join(name or '"" (no tenant)' for name in tenants)
        fail(f"{user} is known in several tenants; choose one with --tenant: {names}", WRONG_INPUT)
    return tenants[0] if tenants else ""


def _unknown(history: History, user: str, tenant: str | None) -> NoReturn:
    where = "" if tenant is None else f" in tenant {tenant or '(no tenant)'}"
    entries = history.engine.principals()
    elsewhere = sorted({entry["tenant"] or "(no tenant)" for entry in entries if entry["user"] == user})
    if elsewhere:
        fail(f"nothing was learned of {user}{where}; known in: {', '.join(elsewhere)}", PROBLEM)
    near = nearest(user, [entry["user"] for entry in entries if tenant in (None, entry["tenant"])])
    hint = f"; nearest: {', '.join(near)}" if near else "; see: tool-firewall baseline list"
    fail(f"nothing was learned of {user}{where}{hint}", PROBLEM)


def nearest(name: str, known: list[str]) -> list[str]:
    """Up to five of the known names most like `name`: those that contain it, then those spelt alike."""
    wanted = name.casefold()
    within = sorted({other for other in known if wanted in other.casefold()})
    by_fold = {other.casefold(): other for other in known}
    by_fold |= {other.casefold().partition("@")[0]: other for other in known}
    alike = [by_fold[near] for near in difflib.get_close_matches(wanted, by_fold, n=_NEAREST)]
    return list(dict.fromkeys(within + alike))[:_NEAREST]


def _print(found: dict[str, Any], now: float) -> None:
    say(f"{found['user']}", "bold")
    compared = {
        "configuration": f"the peer group {found['group']}",
        "learned": f"{found['group']} (a peer group learned from the use of tools)",
    }.get(found["group_from"], "the whole tenant")
    say(f"tenant     {found['tenant'] or '(no tenant)'}, compared with {compared}")
    say(f"calls      {found['calls']:,}, first {moment(found['first'])}, last {moment(found['last'])}")
    print_table(
        "\ntools",
        ["tool", ">share", ">calls (decayed)", "server"],
        [
            [entry["tool"], f"{entry['share']:.1%}", f"{entry['count']:,.1f}", entry["server"]]
            for entry in found["tools"]
        ],
        empty="none yet: only calls that ran are learned from",
    )
    steps = found["steps"]
    more = f" (the {_STEPS_SHOWN} most used of {len(steps)})" if len(steps) > _STEPS_SHOWN else ""
    print_table(
        f"\nsteps{more}",
        ["from", "to", ">times (decayed)"],
        [
            [step["from"] or "(session start)", step["to"], f"{step['count']:,.1f}"]
            for step in steps[:_STEPS_SHOWN]
        ],
    )
    _print_hours(found["hours"], found["zone"], found["signals"].get("off_hours", {}))
    _print_signals(found["signals"])
    print_table(
        "\nstill new",
        ["what", "until"],
        [
            [_held_words(item), f"{moment(item['until'])} (in {duration(item['until'] - now)})"]
            for item in found["held"]
        ],
        empty="nothing",
    )


def heat_strip(values: list[float], bars: str = _BARS) -> str:
    """24 hours as 24 characters: blank for none, then by share of the busiest hour."""
    most = max(values, default=0.0)
    if most <= 0:
        return bars[0] * len(values)
    top = len(bars) - 1
    return "".join(bars[max(1, round(value / most * top))] if value > 0 else bars[0] for value in values)


def _print_hours(hours: list[float], zone: str, days: dict[str, float]) -> None:
    say(f"\nhours with calls, {zone} (0 to 23)", "bold")
    bars = _BARS if "utf" in (console().encoding or "").lower() else _ASCII_BARS
    say(" " * (_LABEL + 3) + "0     6     12    18    ", "dim")
    say(f"  {'days':<{_LABEL}}|{heat_strip(hours, bars)}|")
    say(
        f"  the tallest stands for {max(hours, default=0.0):,.1f} of {days.get('days', 0.0):,.1f} days with "
        f"calls; {days.get('weekend_days', 0.0):,.1f} of these on weekends (decayed)"
    )


def _print_signals(signals: dict[str, dict[str, float]]) -> None:
    rates = signals.get("frequency", {})
    rows = []
    for name, usual in rates.items():
        if name.startswith("usual_"):
            window = name.removeprefix("usual_")
            rows.append([_window_words(window), f"{usual:,.1f}", f"{rates.get('high_' + window, 0.0):,.1f}"])
    print_table("\nrates", ["calls within", ">usual", ">high"], rows, empty="not known yet")
    burst = signals.get("burst")
    if burst:
        exempt = "yes" if burst.get("exempt") else "no"
        say(
            f"\nburst      record {burst.get('record_60s', 0.0):,.0f} calls in a minute; over the limit on "
            f"{counted(int(burst.get('days_over_limit', 0)), 'day')}; exempt from the limit: {exempt}"
        )
    novelty = signals.get("novelty")
    if novelty:
        say(
            f"novelty    {novelty.get('recent_new', 0.0):,.1f} of the last "
            f"{novelty.get('recent_calls', 0.0):,.1f} calls (decayed) brought something new"
        )
    cost = signals.get("cost")
    if cost:
        say(
            f"cost       {cost.get('times_usual', 1.0):,.2f} times what the same tools usually cost here (by "
            f"{counted(round(cost.get('calls', 0.0)), 'call')}); on the first days "
            f"{cost.get('times_at_first', 1.0):,.2f} times; {cost.get('spent_today', 0.0):,.4g} spent on the "
            "last day"
        )


def _window_words(window: str) -> str:
    seconds = window.removesuffix("s")
    return duration(float(seconds)) if seconds.isdigit() else window


def _held_words(item: dict[str, Any]) -> str:
    if item["kind"] == "tool":
        return f"the tool {item['tool']}"
    if item["kind"] == "argument":
        return f"a recipient, host or account in the arguments of {item['tool']}"
    later = "some time after" if item["kind"] == "skip" else "right after"
    return f"{item['tool']} {later} {item['from'] or 'the session start'}"
