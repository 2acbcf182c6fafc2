# SPDX-License-Identifier: Apache-2.0
"""How the command line speaks: tables and text for people, JSON for programs, errors with an exit code.

Names of users and tools come from clients. They are shown with control characters escaped, and never read
as markup.
"""

import functools
import json
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NoReturn, ParamSpec, TypeVar

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..journal.interface import JournalError
from ..names import printable
from ..state import StateError

PROBLEM: Final = 1
"""Exit code: something was found wrong, or could not be done."""

WRONG_INPUT: Final = 2
"""Exit code: the command line or a given file is wrong."""

_PLAIN_WIDTH = 200  # columns when the output is no terminal: nothing is to be cut off in a file
_MINUTE, _HOUR, _DAY = 60, 3600, 86_400

P = ParamSpec("P")
R = TypeVar("R")


def console(*, error: bool = False) -> Console:
    """The terminal, or plain text where there is none."""
    stream = sys.stderr if error else sys.stdout
    width = None if stream.isatty() else _PLAIN_WIDTH
    return Console(file=stream, width=width, markup=False, highlight=False, emoji=False, soft_wrap=False)


def say(text: str, style: str = "") -> None:
    """One line on standard output, wrapped by the terminal only."""
    console().print(Text(printable_lines(text), style=style), soft_wrap=True)


def note(text: str) -> None:
    """One line on standard error, where standard output belongs to data."""
    console(error=True).print(Text(printable_lines(text)), soft_wrap=True)


def warn(text: str) -> None:
    """One line on standard error."""
    console(error=True).print(Text(f"warning: {printable_lines(text)}", style="yellow"), soft_wrap=True)


def fail(text: str, code: int = PROBLEM) -> NoReturn:
    """Says what is wrong on standard error and ends the command."""
    console(error=True).print(Text(f"error: {printable_lines(text)}", style="bold red"), soft_wrap=True)
    raise typer.Exit(code)


def print_json(value: Any) -> None:
    """`value` as JSON in ASCII: whatever a client put into a name, it does nothing to a terminal."""
    sys.stdout.write(json.dumps(value, indent=2) + "\n")


def print_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, empty: str = "none"
) -> None:
    """A table. Headings that start with ">" align to the right; those, and those with "=", never wrap."""
    target = console()
    if title:
        target.print(Text(title, style="bold"))
    if not rows:
        target.print(Text(f"  {empty}"))
        return
    table = Table(box=None, pad_edge=True, padding=(0, 2, 0, 0), header_style="dim")
    for column in columns:
        right, whole = column.startswith(">"), column.startswith((">", "="))
        table.add_column(
            column.lstrip(">="), justify="right" if right else "left", overflow="fold", no_wrap=whole
        )
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    target.print(table)


def print_indented(text: str, indent: int, style: str = "") -> None:
    """A paragraph, wrapped to the terminal, each line `indent` columns in and none padded."""
    target = console()
    for line in Text(printable_lines(text)).wrap(target, max(target.width - indent, 20)):
        target.print(Text(" " * indent + line.plain.rstrip(), style=style), soft_wrap=True)


def printable_lines(text: str) -> str:
    """`text` with everything but its line ends made printable."""
    return "\n".join(printable(line) for line in text.split("\n"))


def moment(ts: float) -> str:
    """A time as people read it, in UTC: 2026-11-21 06:27:05 UTC; "never" for 0."""
    if ts <= 0:
        return "never"
    try:
        return datetime.fromtimestamp(ts, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return f"{ts:g} s"


def minute(ts: float) -> str:
    """moment() without seconds and zone, for columns whose heading says UTC."""
    text = moment(ts)
    return text[:16] if text.endswith(" UTC") else text


def duration(seconds: float) -> str:
    """A length of time, roughly: 3 s, 5 min, 2.5 h, 4 days."""
    seconds = max(seconds, 0.0)
    if seconds < _MINUTE:
        return f"{seconds:.0f} s"
    if seconds < _HOUR:
        return f"{seconds / _MINUTE:.0f} min"
    if seconds < 2 * _DAY:
        return f"{seconds / _HOUR:.1f} h"
    return f"{seconds / _DAY:.0f} days"


def size(count: int) -> str:
    """A number of bytes: 900 B, 12.5 KiB, 3.0 MiB."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GiB"


def counted(count: int, one: str, many: str = "") -> str:
    """1 worker, 2 workers, 1,234 calls."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def reports_errors(command: Callable[P, R]) -> Callable[P, R]:
    """A command whose expected errors become one clear line and exit code 1 instead of a traceback."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except (StateError, JournalError) as error:
            fail(str(error))
        except ImportError as error:
            # The loader names the module of a file that is absent, and only the file of one that does not
            # load.
            if "_native" not in f"{error.name} {error.path}":
                raise
            fail(f"the scoring engine cannot be loaded ({error}); run: tool-firewall doctor")

    return wrapped
