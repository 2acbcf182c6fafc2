# SPDX-License-Identifier: Apache-2.0
"""`tool-firewall verify`: is the journal whole, and has anybody changed it?"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any

import typer

from ..journal.interface import Anchor, Verified
from .history import reading
from .options import JsonOption, StateOption
from .output import PROBLEM, WRONG_INPUT, counted, fail, print_json, reports_errors, say
from .progress import progress

_ANCHOR = re.compile(r"tool firewall anchor: cursor=(\d+) digest=([0-9a-f]{32})(?![0-9a-f])")


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("verify")(verify)


@reports_errors
def verify(
    anchors: Annotated[
        Path | None,
        typer.Option(
            "--anchors",
            metavar="LOG",
            help="Log of the gateway, with its lines 'tool firewall anchor: cursor=... digest=...'.",
        ),
    ] = None,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check every record of the journal against its chain of digests.

    Finds the first record that was altered, removed or reordered. Records cut off at the end are found with
    the anchors that the gateway's log keeps. Exit code 1 when the journal is not whole.

    \b
    Example:
      tool-firewall verify
      tool-firewall verify --anchors /var/log/gateway.log --json
    """
    known = [] if anchors is None else anchors_in(anchors)
    with reading(state) as (_, journal), progress("verifying") as on_progress:
        found = journal.verify(known, on_progress)
        where = journal.where
    if as_json:
        print_json(_described(found, known, where))
    else:
        say(_words(found, known, where))
    if found.problem:
        if as_json:
            raise typer.Exit(PROBLEM)
        fail(f"not whole: {found.problem}")
    if not as_json:
        say("whole", "green")


def anchors_in(path: Path) -> list[Anchor]:
    """The anchors that a log names, each once, in their order. Ends the command when there are none."""
    found: dict[Anchor, None] = {}
    try:
        with path.open("r", encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if match := _ANCHOR.search(line):
                    found[Anchor(int(match[1]), match[2])] = None
    except OSError as error:
        fail(f"{path}: cannot be read ({error.strerror})", WRONG_INPUT)
    if not found:
        fail(
            f"{path}: no line 'tool firewall anchor: cursor=... digest=...' in it; the gateway "
            "writes them at level INFO",
            WRONG_INPUT,
        )
    return list(found)


def _described(found: Verified, known: list[Anchor], where: str) -> dict[str, Any]:
    return {
        "whole": not found.problem,
        "problem": found.problem,
        "where": where,
        "records": found.records,
        "pruned": found.pruned,
        "lost": found.lost,
        "first": found.first,
        "last": found.last,
        "digest": found.digest,
        "anchors": len(known),
    }


def _words(found: Verified, known: list[Anchor], where: str) -> str:
    checked = (
        f"{counted(found.records, 'record')} checked, cursors {found.first} to {found.last}, in {where}"
        if found.records
        else f"no records to check in {where}"
    )
    pruned = f"\n{counted(found.pruned, 'record')} pruned, as signed notes say" if found.pruned else ""
    lost = (
        f"\nat least {found.lost} lost with files that were damaged or replaced, as signed notes say"
        if found.lost
        else ""
    )
    compared = f"\n{counted(len(known), 'anchor')} compared" if known else ""
    return checked + pruned + lost + compared
