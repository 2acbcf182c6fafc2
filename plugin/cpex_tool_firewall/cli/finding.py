# SPDX-License-Identifier: Apache-2.0
"""`tool-firewall finding show`: one finding, its calls, and its hour as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.bar import Bar
from rich.table import Table
from rich.text import Text

from ..finding_tags import TAG_NAMES
from ..names import printable
from .history import reading
from .incidents import Behind, gather, locate
from .options import JsonOption, StateOption
from .output import console, counted, moment, print_json, print_table, reports_errors, say
from .risks import risk_style

if TYPE_CHECKING:
    from ..feed import Finding

_SLOT_SECONDS = 300.0
_SLOTS = 12
_BAR_WIDTH = 40
_CALLS_SHOWN = 20
_HELP = """Look at one finding of the feed.

\b
Example:
  tool-firewall finding show f-5f0c2a9e71
  tool-firewall finding show tf-5f0c2a9e71d3
"""


def register(app: typer.Typer) -> None:
    """Adds the group."""
    group = typer.Typer(help=_HELP, no_args_is_help=True, rich_markup_mode=None)
    group.callback()(_group)  # a group, although it has one command so far
    group.command("show")(show)
    app.add_typer(group, name="finding")


def _group() -> None:
    """See _HELP."""


@reports_errors
def show(
    name: Annotated[
        str,
        typer.Argument(
            metavar="ID", help="The uid from the feed, its first digits, or an incident (tf-...)."
        ),
    ],
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a finding: what was measured and what is usual, the calls behind it, and its hour as a picture.

    \b
    Example:
      tool-firewall finding show f-5f0c2a9e71
      tool-firewall finding show tf-5f0c2a9e71d3 --json
    """
    with reading(state) as (opened, journal):
        finding = locate(journal, opened.key, name)
        behind = gather(journal, opened.key, finding)
    from ..evaluations import evaluation

    calls = []
    for fields in behind.calls:
        row = evaluation(opened.key, fields) or {}
        ending = behind.outcomes.get((fields["worker"], fields["seq"]), {})
        calls.append({**row, "outcome": ending.get("outcome"), "cost": ending.get("cost")})
    if as_json:
        print_json({**finding.as_json(), "calls": calls, "calls_left_out": behind.left_out})
        return
    _print(finding)
    _print_hour(finding, behind)
    _print_calls(calls, behind.left_out)


def _print(finding: Finding) -> None:
    target = console()
    head = Text(f"{finding.risk:.2f}  {finding.signal}  ", style=risk_style(finding.risk))
    head.append(
        printable(f"{finding.tool} by {finding.user or counted(finding.users, 'user')}"), style="bold"
    )
    target.print(head, soft_wrap=True)
    say(f"      {finding.explanation}")
    also = f", also {', '.join(finding.other_signals)}" if finding.other_signals else ""
    z_score = "" if finding.z_score is None else f", z-score {finding.z_score:.1f}"
    numbers = f"{finding.value:,.4g}, usual {finding.baseline:,.4g}{z_score}"
    verdicts = ", ".join(f"{count:,} {name}" for name, count in finding.verdicts.items())
    rows = [
        ("uid", finding.uid + (f" (id {finding.id})" if finding.id else "")),
        ("signal", finding.signal + also),
        ("measured", numbers),
        ("calls", f"{finding.count:,} ({verdicts}), {finding.blocked:,} stopped, mode {finding.mode or '?'}"),
        ("seen", f"{moment(finding.first_seen)} to {moment(finding.last_seen)}"),
        ("tenant", finding.tenant or "(no tenant)"),
        (
            "session",
            f"{finding.session or '?'}" + (f" and {finding.sessions - 1} more" * (finding.sessions > 1)),
        ),
        ("token", finding.token or "(none)"),
        ("destinations", ", ".join(finding.destinations)),
        ("suggested", finding.suggested_action),
        ("tags", "; ".join(f"{tag} {TAG_NAMES[tag]}" for tag in finding.tags)),
        ("snoozed", _quiet(finding.snoozed, finding.snoozed_until)),
        ("suppressed", _quiet(finding.suppressed, finding.suppressed_until)),
    ]
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(overflow="fold")
    for label, text in rows:
        if text:
            table.add_row(label, Text(printable(text)))
    target.print(table)


def _quiet(quiet: bool, until: float | None) -> str:
    if not quiet:
        return ""
    return f"until {moment(until)}" if until else "while these calls came"


def _print_hour(finding: Finding, behind: Behind) -> None:
    mine = _by_slot([fields["ts"] for fields in behind.calls], finding.hour)
    everything = _by_slot(behind.all_times, finding.hour)
    most = max(*everything, *mine, 1)
    who = "this user's" if len({part.user for part in finding.parts}) == 1 else "these users'"
    say(f"\nthe hour from {moment(finding.hour)}: its calls, of all {who} calls", "bold")
    table = Table(box=None, show_header=False, padding=(0, 1, 0, 0))
    for _ in range(3):
        table.add_column(no_wrap=True)
    for slot in range(_SLOTS):
        counts = (
            f"{mine[slot]} of {max(everything[slot], mine[slot])}" if everything[slot] or mine[slot] else ""
        )
        start = moment(finding.hour + slot * _SLOT_SECONDS)[11:16]
        table.add_row(
            Text(f"  {start}", style="dim"), _bar(mine[slot], most, risk_style(finding.risk)), counts
        )
    console().print(table)


def _bar(count: int, most: int, style: str) -> Bar | Text:
    if "utf" in (console().encoding or "").lower():
        color = style.rsplit(maxsplit=1)[-1] if style else "default"
        return Bar(most, 0, count, width=_BAR_WIDTH, color=color)
    return Text(f"{'#' * round(count / most * _BAR_WIDTH):<{_BAR_WIDTH}}")


def _by_slot(times: list[float], hour: float) -> list[int]:
    counts = [0] * _SLOTS
    for ts in times:
        slot = int((ts - hour) // _SLOT_SECONDS)
        if 0 <= slot < _SLOTS:
            counts[slot] += 1
    return counts


def _print_calls(calls: list[dict[str, Any]], left_out: int) -> None:
    shown = calls[:_CALLS_SHOWN]
    rows = [
        [
            moment(call["ts"])[11:19],
            call["verdict"],
            f"{call['risk']:.2f}",
            f"{call['previous'] or '(start)'} -> {call['tool']}",
            call["outcome"] or ("stopped" if call["verdict"] == "deny" else ""),
            "" if call["cost"] is None else f"{call['cost']:g}",
            call["session"][:8],
            call["incident"],
        ]
        for call in shown
    ]
    print_table(
        "\ncalls",
        ["=UTC", "=verdict", ">risk", "step", "=outcome", ">cost", "=session", "=incident"],
        rows,
    )
    rest = len(calls) - len(shown) + left_out
    if rest:
        say(
            f"and {counted(rest, 'call')} more; --json has {'all' if not left_out else 'the first 1,000'}",
            "dim",
        )
