# SPDX-License-Identifier: Apache-2.0
"""`tool-firewall snapshot`: saves what was learned now, or lists what was saved."""

import time

import typer

from .history import reading, settings_of
from .options import JsonOption, StateOption
from .output import moment, print_json, print_table, reports_errors, say, size

_HELP = """Save what was learned, so that a restart is quick; or list what was saved.

The gateway does this by itself every `snapshot_minutes`. `list` shows what there is.

\b
Example:
  tool-firewall snapshot
  tool-firewall snapshot list
"""


def register(app: typer.Typer) -> None:
    """Adds the group, which does something by itself too."""
    group = typer.Typer(rich_markup_mode=None)
    group.callback(invoke_without_command=True, help=_HELP)(snapshot)
    group.command("list")(list_snapshots)
    app.add_typer(group, name="snapshot")


@reports_errors
def snapshot(context: typer.Context, state: StateOption = None, as_json: JsonOption = False) -> None:
    """Save what was learned now."""
    if context.invoked_subcommand is not None:
        return
    from ..snapshotter import make_snapshot

    begun = time.monotonic()
    with reading(state) as (opened, journal):
        settings, _ = settings_of(journal.workers())
        made = make_snapshot(settings, opened, journal)
    seconds = time.monotonic() - begun
    if as_json:
        print_json({"cursor": made.cursor, "bytes": made.size, "seconds": round(seconds, 3)})
    else:
        say(f"snapshot at cursor {made.cursor}, {size(made.size)}, in {seconds:.2f} s")


@reports_errors
def list_snapshots(state: StateOption = None, as_json: JsonOption = False) -> None:
    """List the snapshots, newest first.

    \b
    Example:
      tool-firewall snapshot list --json
    """
    with reading(state) as (_, journal):
        found = journal.snapshots()
    if as_json:
        print_json([{"cursor": one.cursor, "at": one.at, "bytes": one.size} for one in found])
        return
    rows = [[str(one.cursor), moment(one.at), size(one.size)] for one in found]
    print_table("snapshots", [">cursor", "=saved", ">size"], rows)
