# SPDX-License-Identifier: Apache-2.0
"""`tool-firewall backup`: a copy of the state folder that can take its place, made while the gateway runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from ..journal.sqlite import SqliteJournal
from ..state import key_path
from .history import reading
from .options import JsonOption, StateOption
from .output import WRONG_INPUT, console, fail, print_json, reports_errors, say, size

_KEY_NAME = "key"


def register(app: typer.Typer) -> None:
    """Adds the command."""
    app.command("backup")(backup)


@reports_errors
def backup(
    target: Annotated[Path, typer.Argument(metavar="FOLDER", help="A new or empty folder for the copy.")],
    without_key: Annotated[
        bool,
        typer.Option("--without-key", help="Leave the key out; keep it elsewhere: nothing opens without it."),
    ] = False,
    state: StateOption = None,
    as_json: JsonOption = False,
) -> None:
    """Copy the journal, its newest snapshot and the key, while the gateway runs.

    The copy is a state folder itself. To restore it: stop the gateway, put it in the place of the state
    folder (owner: the user of the gateway, mode 0700), start the gateway. What happened since the backup is
    then not known any more; `tool-firewall verify --anchors` says so to whoever asks.

    \b
    Example:
      tool-firewall backup /backup/tool-firewall-2026-11-21
    """
    try:
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        target.chmod(0o700)
        if any(target.iterdir()):
            fail(f"{target}: this folder is not empty; name a new one", WRONG_INPUT)
    except OSError as error:
        fail(f"{target}: cannot be made ({error.strerror})")
    with reading(state) as (opened, journal):
        if not isinstance(journal, SqliteJournal):
            fail(f"{journal.where}: this journal is not a file; back it up with the means of its server")
        with console(error=True).status("copying the journal"):
            journal.copy_to(target)
        if not without_key:
            _copy_key(key_path(opened.folder), target / _KEY_NAME)
    files = {path.name: path.stat().st_size for path in sorted(target.iterdir())}
    if as_json:
        print_json({"folder": str(target), "files": files})
        return
    say(f"{target}: {size(sum(files.values()))} in {', '.join(files)}")
    if without_key:
        say("the key is not in it", "yellow")


def _copy_key(source: Path, target: Path) -> None:
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "wb") as file:
        file.write(source.read_bytes())
