# SPDX-License-Identifier: Apache-2.0
"""Points in time on the command line: --since, --until."""

import re
import time
from datetime import UTC, datetime
from typing import Annotated

import typer

from .output import WRONG_INPUT, fail

_AGO = re.compile(r"(\d+(?:\.\d+)?)([mhd])")
_SECONDS = {"m": 60.0, "h": 3600.0, "d": 86_400.0}
_ACCEPTED = "accepted: 14d, 36h or 90m (ago), 2026-11-21, 2026-11-21T06:30, or seconds since 1970; all UTC"

SinceOption = Annotated[
    str | None, typer.Option("--since", metavar="TIME", help="Only from here on: 14d, 2026-11-21T06:30, ...")
]
UntilOption = Annotated[str | None, typer.Option("--until", metavar="TIME", help="Only before this.")]


def point_in_time(option: str, text: str | None) -> float | None:
    """Seconds since the epoch; None for None. Ends the command when the text is not a time."""
    if text is None:
        return None
    if ago := _AGO.fullmatch(text):
        return time.time() - float(ago[1]) * _SECONDS[ago[2]]
    if re.fullmatch(r"\d{5,12}(\.\d+)?", text):
        return float(text)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        fail(f"{option}: {text!r} is not a time; {_ACCEPTED}", WRONG_INPUT)
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


def interval(since: str | None, until: str | None) -> tuple[float | None, float | None]:
    """Both ends; ends the command when they are the wrong way round."""
    begin, end = point_in_time("--since", since), point_in_time("--until", until)
    if begin is not None and end is not None and begin >= end:
        fail("--since is not before --until", WRONG_INPUT)
    return begin, end
