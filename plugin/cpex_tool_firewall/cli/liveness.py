# SPDX-License-Identifier: Apache-2.0
"""Which workers live, judged by their heartbeats and, on this host, by their processes."""

import socket
from pathlib import Path
from typing import Literal

from ..journal.interface import HEARTBEAT_SECONDS, Worker

# One missed heartbeat. A younger one is believed even when its process is not seen from here (another
# container).
_DOUBT_SECONDS = 1.5 * HEARTBEAT_SECONDS

State = Literal["alive", "silent", "dead", "left"]


def state_of(worker: Worker, now: float) -> State:
    """alive; silent: hangs or was killed; dead: its process on this host is gone; left: it ended well."""
    if worker.left:
        return "left"
    if now - worker.seen > _DOUBT_SECONDS and _process_is_gone(worker):
        return "dead"
    return "silent" if worker.silent(now) else "alive"


def _process_is_gone(worker: Worker) -> bool:
    pid = worker.body.get("pid")
    return worker.body.get("host") == socket.gethostname() and not Path(f"/proc/{pid}").exists()
