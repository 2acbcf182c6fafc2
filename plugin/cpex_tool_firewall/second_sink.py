# SPDX-License-Identifier: Apache-2.0
"""Where a decision is recorded that the journal did not take in time: one JSON line on standard error.

Whoever collects the gateway's log has it then, whatever becomes of this process. The journal gets the record
too, as soon as it works again.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Final

MARK: Final = "tool_firewall"
"""The key that such a line begins with; its value is "record"."""


def put(
    *,
    incident: str,
    ts: float,
    tenant: str,
    user: str,
    tool: str,
    verdict: str,
    mode: str,
    signals: Sequence[str],
) -> bool:
    """Writes one line. ts: s since the epoch. verdict: deny | audit | uninspected. No argument is in it.

    False when even that failed; nothing is raised.
    """
    line = json.dumps(
        {
            MARK: "record",
            "incident": incident,
            "ts": round(ts, 3),
            "tenant": tenant,
            "user": user,
            "tool": tool,
            "verdict": verdict,
            "mode": mode,
            "signals": list(signals),
            "recorded": False,
        }
    )
    try:
        sys.stderr.write(f"{line}\n")  # one write, so that lines of several workers do not mix
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):  # full, closed, or there is none
        return False
    return True
