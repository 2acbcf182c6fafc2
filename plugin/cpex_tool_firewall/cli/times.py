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
_AHEAD = (
    "accepted: 2h, 3d or 90m (from now), 2026-11-21, 2026-11-21T06:30, seconds since 1970, or now; all UTC"
)
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
    found = _absolute(text)
    if found is None:
        fail(f"{option}: {text!r} is not a time; {_ACCEPTED}", WRONG_INPUT)
    return found


def deadline(name: str, text: str, now: float) -> float:
    """When something is to end, in seconds since the epoch: a length from now, or a time, which may be past.
    Ends the command when the text is neither.
    """
    if text == "now":
        return now
    if ahead := _AGO.fullmatch(text):
        return now + float(ahead[1]) * _SECONDS[ahead[2]]
    found = _absolute(text)
    if found is None:
        fail(f"{name}: {text!r} is not a time; {_AHEAD}", WRONG_INPUT)
    return found


def _absolute(text: str) -> float | None:
    if re.fullmatch(r"\d{5,12}(\.\d+)?", text):
        return float(text)
    try:
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def interval(since: str | None, until: str | None) -> tuple[float | None, float | None]:
    """Both ends; ends the command when they are the wrong way round."""
    begin, end = point_in_time("--since", since), point_in_time("--until", until)
    if begin is not None and end is not None and begin >= end:
        fail("--since is not before --until", WRONG_INPUT)
    return begin, end
