# SPDX-License-Identifier: Apache-2.0
"""`tool-firewall events`: every evaluation, allowed calls included."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.text import Text

from .history import reading
from .options import FollowOption, StateOption
from .output import console, moment, note, print_indented, reports_errors
from .progress import progress
from .risks import fitted, risk_style
from .tailing import batches, report_damage
from .times import SinceOption, UntilOption, interval

_ROWS = 100
_FIXED = 19 + 2 + 5 + 2 + 4 + 2 + 2 + 2 + 8  # columns beside user and tool
_LEAST = 12
_NAME = 32


class Verdict(StrEnum):
    """What the agent saw."""

    ALLOW = "allow"
    AUDIT = "audit"
    DENY = "deny"


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("events")(events)


@reports_errors
def events(
    follow: FollowOption = False,
    tenant: Annotated[str | None, typer.Option("--tenant", metavar="T", help="Only this tenant.")] = None,
    user: Annotated[str | None, typer.Option("--user", metavar="U", help="Only this user.")] = None,
    tool: Annotated[str | None, typer.Option("--tool", metavar="X", help="Only this tool.")] = None,
    session: Annotated[
        str | None,
        typer.Option("--session", metavar="ID", help="Only this session; its first digits will do."),
    ] = None,
    verdict: Annotated[
        Verdict | None,
        typer.Option(
            "--verdict", help="What the agent saw: allow, audit (ran, and was listed), deny (stopped)."
        ),
    ] = None,
    since: SinceOption = None,
    until: UntilOption = None,
    last: Annotated[
        int,
        typer.Option("--last", metavar="N", min=0, help="So many of the latest; 0: all. With --json all."),
    ] = _ROWS,
    state: StateOption = None,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print JSON, one object a line. Times are seconds since the epoch, UTC."),
    ] = False,
) -> None:
    """Show every evaluation, the latest at the end: who called what, the verdict, and why.

    In shadow mode, "[shadow] would deny" is what block mode would have stopped. A row after the call is what
    only its ending told.

    \b
    Example:
      tool-firewall events --verdict deny --since 36h
      tool-firewall events --follow --user alice@example.com
      tool-firewall events --json --since 14d | jq -c '[.ts, .tool, .risk]'
    """
    from ..evaluations import evaluation
    from ..records import JournalRecords, Selection

    begin, end = interval(since, until)
    wanted = {"tenant": tenant, "user": user, "tool": tool, "verdict": verdict.value if verdict else None}

    def row_of(fields: dict[str, Any]) -> dict[str, Any] | None:
        row = evaluation(opened.key, fields)
        if row is None or not row["session"].startswith(session or ""):
            return None
        return row if all(row[name] == text for name, text in wanted.items() if text is not None) else None

    with reading(state) as (opened, journal):
        selection = Selection(begin, end, ordinary=verdict in (None, Verdict.ALLOW))
        with progress("reading the journal") as on_progress:
            records = JournalRecords(journal, selection, on_progress)
            rows = (row for fields in records if (row := row_of(fields)) is not None)
            if as_json:
                _print_lines(rows)
            else:
                found = deque(rows, last or None)
        if not as_json:
            _print(found)
            if not found and not follow:
                note("no such evaluation")
        if follow:
            records = JournalRecords(journal, selection, after=records.cursor)
            for batch in batches(records, follow=True):
                came = (row for fields in batch if (row := row_of(fields)) is not None)
                _print_lines(came) if as_json else _print(came)
    report_damage(records)


def _print_lines(rows: Iterable[dict[str, Any]]) -> None:
    from ..records import to_json

    for row in rows:
        sys.stdout.write(to_json(row) + "\n")
    sys.stdout.flush()


def _print(rows: Iterable[dict[str, Any]]) -> None:
    target = console()
    name = max(min((target.width - _FIXED) // 2, _NAME), _LEAST)
    for row in rows:
        line = Text()
        line.append(f"{moment(row['ts'])[:19]}  ")
        line.append(f"{row['verdict']:<5}  {row['risk']:.2f}  ", style=risk_style(row["risk"]))
        line.append(f"{fitted(row['tool'], name)}  {fitted(row['user'], name)}  ")
        line.append(row["session"][:8], style="dim")
        target.print(line, soft_wrap=True)
        if row["reason"]:
            after = "after the call: " if row["surface"] == "tool_post_invoke" else ""
            text = f"{', '.join(row['signals'])}: {after}{row['reason']} ({row['incident']})"
            if row["snoozed"]:
                text = f"[snoozed] {text}"
            print_indented(text, 6, "dim")
