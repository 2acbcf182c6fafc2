# SPDX-License-Identifier: Apache-2.0
"""`tool-firewall runs SESSION`: the calls of one session, in their order."""

from __future__ import annotations

import re
from typing import Annotated, Any

import typer

from .history import reading
from .options import JsonOption, StateOption
from .output import (
    PROBLEM,
    WRONG_INPUT,
    counted,
    duration,
    fail,
    moment,
    print_json,
    print_table,
    reports_errors,
    say,
)
from .progress import progress
from .tailing import report_damage
from .times import SinceOption, point_in_time

_MOST = 10_000
_SESSION = re.compile(r"[0-9a-f]{4,16}")


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("runs")(runs)


@reports_errors
def runs(
    session: Annotated[
        str,
        typer.Argument(
            metavar="SESSION", help="The session, or its first digits, as feed and events show it."
        ),
    ],
    since: SinceOption = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the calls of one session in their order: risk, verdict, outcome, cost.

    \b
    Example:
      tool-firewall runs 5f0c2a9e
      tool-firewall runs 5f0c2a9e --since 36h --json
    """
    if not _SESSION.fullmatch(session):
        fail(
            f"{session!r} is not a session; accepted: 4 to 16 hex digits, as feed and events show",
            WRONG_INPUT,
        )
    from ..evaluations import evaluation
    from ..records import JournalRecords, Selection

    found: dict[tuple[int, int], dict[str, Any]] = {}
    left_out = 0
    with reading(state) as (opened, journal), progress("reading the journal") as on_progress:
        records = JournalRecords(journal, Selection(point_in_time("--since", since)), on_progress)
        for fields in records:
            identity = (fields["worker"], fields["seq"])
            if fields["kind"] == "call":
                row = evaluation(opened.key, fields)
                if row is None or not row["session"].startswith(session) or identity in found:
                    continue
                if len(found) >= _MOST:
                    left_out += 1
                    continue
                found[identity] = {
                    "step": len(found) + 1,
                    **row,
                    "outcome": None,
                    "cost": None,
                    "seconds": None,
                }
            elif fields["kind"] == "outcome" and identity in found:
                _end(found[identity], fields, evaluation(opened.key, fields))
    rows = list(found.values())
    _check(session, rows)
    if as_json:
        print_json({"session": rows[0]["session"], "calls": rows, "calls_left_out": left_out})
    else:
        _print(rows, left_out)
    report_damage(records)


def _end(row: dict[str, Any], ending: dict[str, Any], after: dict[str, Any] | None) -> None:
    row["outcome"], row["cost"] = ending["outcome"], ending.get("cost")
    row["seconds"] = max(ending["ts"] - row["ts"], 0.0)
    row["risk"] = max(row["risk"], ending.get("risk", 0.0))
    if after is not None:
        row["signals"] = list(dict.fromkeys([*row["signals"], *after["signals"]]))
        row["reason"] = row["reason"] or after["reason"]
        row["incident"] = row["incident"] or after["incident"]
        row["verdict"] = "audit" if row["verdict"] == "allow" else row["verdict"]


def _check(session: str, rows: list[dict[str, Any]]) -> None:
    sessions = sorted({row["session"] for row in rows})
    if not sessions:
        fail(f"{session}: no call of such a session is in the journal", PROBLEM)
    if len(sessions) > 1:
        fail(f"{session}: several sessions begin so: {', '.join(sessions[:5])}", WRONG_INPUT)


def _print(rows: list[dict[str, Any]], left_out: int) -> None:
    first, last = rows[0], rows[-1]
    length = duration(last["ts"] - first["ts"])
    say(f"session {first['session']} of {first['user']}, tenant {first['tenant'] or '(none)'}", "bold")
    days = [moment(row["ts"])[:10] for row in rows]
    print_table(
        "",
        [">step", "=UTC", "tool", "=verdict", ">risk", "=outcome", ">cost", "why"],
        [
            [
                str(row["step"]),
                moment(row["ts"])[11 if before == day else 0 : 19],
                row["tool"],
                row["verdict"],
                f"{row['risk']:.2f}",
                row["outcome"] or ("stopped" if row["verdict"] == "deny" else "?"),
                "" if row["cost"] is None else f"{row['cost']:g}",
                f"{', '.join(row['signals'])} {row['incident']}".strip(),
            ]
            for row, day, before in zip(rows, days, ["", *days], strict=False)
        ],
    )
    costs = [row["cost"] for row in rows if row["cost"] is not None]
    spent = f", cost {sum(costs):g}" if costs else ""
    more = f"; {counted(left_out, 'later call')} left out" if left_out else ""
    say(f"{counted(len(rows), 'call')} in {length}{spent}{more}", "dim")
