# SPDX-License-Identifier: Apache-2.0
"""`tool-firewall`: what an operator does from the command line. Each command group is a file of its own here.

Exit codes: 0 well, 1 a problem was found, 2 wrong usage or input.
"""

import platform
from typing import Annotated

import typer

from . import (
    backfill,
    backup,
    baseline,
    calibration,
    doctor,
    events,
    export,
    feed,
    finding,
    import_records,
    judging,
    mode,
    replay,
    runs,
    silencing,
    snapshot,
    status,
    verify,
)
from .version import installed_version

app = typer.Typer(
    name="tool-firewall",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _group in (
    *(status, mode, baseline, calibration, doctor),
    *(feed, finding, events, runs, judging, silencing),
    *(export, import_records, backfill, verify, snapshot, backup, replay),
):
    _group.register(app)


def main() -> None:
    """Entry point of the `tool-firewall` script."""
    app()


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"tool-firewall {installed_version()} (Python {platform.python_version()})")
        raise typer.Exit


@app.callback()
def _options(
    show_version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and end."),
    ] = False,
) -> None:
    """Tool Firewall for the ContextForge MCP gateway: is it working, what has it learned, what may it stop.

    \b
    Example:
      tool-firewall doctor
      tool-firewall status
      tool-firewall mode block --tool delete_records
    """
