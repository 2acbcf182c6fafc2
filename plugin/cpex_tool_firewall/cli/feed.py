# SPDX-License-Identifier: Apache-2.0
"""`tool-firewall feed`: the findings, one row for each incident, and what comes while one looks."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer
from rich.cells import cell_len
from rich.text import Text

from .history import reading
from .options import FollowOption, JsonOption, StateOption
from .output import (
    console,
    counted,
    minute,
    moment,
    note,
    print_indented,
    print_json,
    reports_errors,
    say,
)
from .progress import progress
from .risks import SignalOption, fitted, known_signal, risk_style
from .tailing import batches, report_damage
from .times import point_in_time

if TYPE_CHECKING:
    from ..feed import Feed, Finding
    from ..records import JournalRecords

_ROWS = 50
_UID_SHOWN = 10
_FIXED = 4 + 2 + 16 + 2 + 2 + 12 + 2 + 11 + 2 + _UID_SHOWN  # columns beside what it is about
_LEAST = 20
_ABOUT = 44


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("feed")(feed)


@reports_errors
def feed(
    follow: FollowOption = False,
    since: Annotated[
        str,
        typer.Option("--since", metavar="TIME", help="Only calls from here on: 36h, 2026-11-21T06:30, ..."),
    ] = "7d",
    tenant: Annotated[str | None, typer.Option("--tenant", metavar="T", help="Only this tenant.")] = None,
    tool: Annotated[str | None, typer.Option("--tool", metavar="X", help="Only this tool.")] = None,
    user: Annotated[str | None, typer.Option("--user", metavar="U", help="Only this user.")] = None,
    signal: SignalOption = None,
    everything: Annotated[
        bool, typer.Option("--all", help="Also what is snoozed or suppressed, and all rows.")
    ] = False,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what people should look at: one row for each incident, the latest at the end.

    A row is what one signal says of one user and tool within an hour. Yellow is a risk of 1/3 or more (1 in
    100 ordinary calls), red 0.5 (1 in 1,000), bold red 0.667 (1 in 10,000). `finding show` tells more of one.
    With --follow a row is printed again when its risk reaches the next of these. With --json it is a list,
    and with --follow one object a line.

    \b
    Example:
      tool-firewall feed
      tool-firewall feed --since 36h --user alice@example.com
      tool-firewall feed --follow --json | jq -r .explanation
    """
    from ..feed import Feed, Wanted, visible
    from ..records import JournalRecords, Selection

    begin = point_in_time("--since", since)
    if signal is not None:
        known_signal(signal)
    with reading(state) as (opened, journal):
        made = Feed(opened.key, Wanted(begin, None, tenant, tool, user, signal))
        with progress("reading the journal") as on_progress:
            records = JournalRecords(journal, Selection(ordinary=False), on_progress)
            for fields in records:
                made.add(fields)
        now = time.time()
        found = made.findings(now)
        shown = list(visible(found, everything=everything))
        if as_json and not follow:
            print_json([one.as_json() for one in shown])
        elif as_json:
            _print_lines(shown)
        else:
            _print(shown if everything else shown[-_ROWS:], len(shown), len(found) - len(shown), begin or 0.0)
        if made.dropped:
            note(f"{counted(made.dropped, 'finding')} with the oldest news left out; narrow it with --since")
        if follow:
            made.changed(now)
            records = JournalRecords(journal, Selection(ordinary=False), after=records.cursor)
            _follow(made, records, everything, as_json)
    report_damage(records)


def _follow(made: Feed, records: JournalRecords, everything: bool, as_json: bool) -> None:
    from ..feed import visible

    for batch in batches(records, follow=True):
        for fields in batch:
            made.add(fields)
        news = list(visible(made.changed(time.time()), everything=everything))
        if as_json:
            _print_lines(news)
        else:
            for finding in news:
                print_finding(finding)


def _print_lines(findings: list[Finding]) -> None:
    from ..records import to_json

    for finding in findings:
        sys.stdout.write(to_json(finding.as_json()) + "\n")
    sys.stdout.flush()


def _print(shown: list[Finding], count: int, hidden: int, begin: float) -> None:
    if count > len(shown):
        note(f"the {len(shown)} latest of {counted(count, 'finding')}; --all shows all of them")
    several = len({finding.tenant for finding in shown}) > 1
    longest = max((cell_len(_subject(finding)) for finding in shown), default=0)
    for finding in shown:
        print_finding(finding, tenant=several, most=longest)
    more = f"; {hidden:,} snoozed or suppressed (--all shows them)" if hidden else ""
    say(f"{counted(count, 'finding') if count else 'no findings'} since {moment(begin)}{more}", "dim")


def print_finding(finding: Finding, *, tenant: bool = False, most: int = _ABOUT) -> None:
    """Two lines, or more in a narrow terminal: numbers, then what it says.

    most: columns for what it is about.
    """
    target = console()
    about = max(min(target.width - _FIXED, most), _LEAST)
    line = Text(style="dim" if finding.hidden else "")
    line.append(f"{finding.risk:.2f}  ", style=risk_style(finding.risk))
    line.append(f"{finding.signal:<16}  ")
    line.append(fitted(_subject(finding), about), style="bold")
    line.append(f"  {counted(finding.count, 'call'):>12}  {minute(finding.last_seen)[5:]}  ")
    line.append(finding.uid[:_UID_SHOWN])
    target.print(line, soft_wrap=True)
    whole = f"{_subject(finding)}: " if cell_len(_subject(finding)) > about else ""
    print_indented(whole + _words(finding, tenant), 6, "dim")


def _subject(finding: Finding) -> str:
    return f"{finding.tool} by {finding.user or counted(finding.users, 'user')}"


def _words(finding: Finding, tenant: bool) -> str:
    also = f" Also: {', '.join(finding.other_signals)}." if finding.other_signals else ""
    stopped = f" {counted(finding.blocked, 'call')} stopped." if finding.blocked else ""
    where = f" Tenant {finding.tenant or '(none)'}." if tenant else ""
    quiet = ""
    if finding.snoozed:
        quiet = f"[snoozed{_until(finding.snoozed_until)}] "
    elif finding.suppressed:
        quiet = f"[suppressed{_until(finding.suppressed_until)}] "
    return f"{quiet}{finding.explanation}{stopped}{also}{where} Suggested: {finding.suggested_action}."


def _until(ts: float | None) -> str:
    return f" until {moment(ts)}" if ts else ""
