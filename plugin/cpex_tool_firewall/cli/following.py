# SPDX-License-Identifier: Apache-2.0
"""Whether the live workers have applied a change, and who made it: for the commands that change something."""

import os
import pwd
import time
from typing import Any

import typer

from ..journal.interface import Journal, Worker
from ..liveness import state_of
from .output import PROBLEM, counted, say, warn

_FOLLOW_SECONDS = 2.0
_LOOK_SECONDS = 0.02


def operator() -> str:
    """Who runs this command: the user, and through sudo the user behind it."""
    try:
        name = pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        name = f"uid {os.geteuid()}"
    behind = os.environ.get("SUDO_USER")
    return f"{behind} (sudo as {name})" if behind and behind != name else name


class Followed:
    """Waits up to 2 s until all live workers have applied the record at a cursor."""

    def __init__(self, journal: Journal, cursor: int) -> None:
        started = time.monotonic()
        self._cursor = cursor
        self.live, self.behind = wait_for_workers(journal, cursor)
        self.seconds = time.monotonic() - started

    def as_json(self) -> dict[str, Any]:
        """What programs get to know of it."""
        return {
            "cursor": self._cursor,
            "workers": len(self.live),
            "behind": [worker_words(worker) for worker in self.behind],
            "seconds": round(self.seconds, 3),
        }

    def tell(self) -> None:
        """What people get to know of it."""
        if not self.live:
            say("no worker is alive: it takes effect when the gateway starts")
        elif not self.behind:
            one = len(self.live) == 1
            follow = "the one live worker follows" if one else f"all {len(self.live)} live workers follow"
            say(f"{follow} ({self.seconds:.2f} s)", "green")
        else:
            names = "; ".join(worker_words(worker) for worker in self.behind)
            warn(
                f"{len(self.behind)} of {counted(len(self.live), 'live worker')} did not confirm within "
                f"{_FOLLOW_SECONDS:g} s: {names}. The change is stored and holds as soon as they read it; "
                "look with: tool-firewall status"
            )

    def end(self) -> None:
        """Ends the command with the exit code for a problem where a worker is behind."""
        if self.behind:
            raise typer.Exit(PROBLEM)


def wait_for_workers(journal: Journal, cursor: int) -> tuple[list[Worker], list[Worker]]:
    """Waits up to 2 s until all live workers have applied the record at `cursor`.

    Returns the live ones, and those of them that are still behind.
    """
    until = time.monotonic() + _FOLLOW_SECONDS
    while True:
        now = time.time()
        live = [worker for worker in journal.workers() if state_of(worker, now) == "alive"]
        behind = [worker for worker in live if _applied(worker) < cursor]
        if not behind or time.monotonic() >= until:
            return live, behind
        time.sleep(_LOOK_SECONDS)


def worker_words(worker: Worker) -> str:
    """One worker, for people."""
    return f"{worker.body.get('pid')} on {worker.body.get('host')}"


def _applied(worker: Worker) -> int:
    cursor = worker.body.get("cursor")
    return cursor if isinstance(cursor, int) else 0
