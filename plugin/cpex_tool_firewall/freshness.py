# SPDX-License-Identifier: Apache-2.0
"""How long ago the journal last took records and last gave them: asked at every call, so it costs nothing.

The journal thread notes when it succeeded. A thread that hangs notes nothing, which is what makes it visible.
"""

from __future__ import annotations

from time import monotonic
from typing import Final

UNWRITTEN_SECONDS: Final = 1.0
"""For so long records may wait before calls count as not recorded."""

STALE_SECONDS: Final = 5.0
"""For so long others' records may be missing before verdicts say that they are."""

TAIL_ALARM: Final = "tail-stale"
TAIL_ALARM_TEXT: Final = (
    f"nothing could be read from the journal for {STALE_SECONDS:g} s: calls of other workers and changes of "
    "mode are not known here. Calls are judged by what was known before"
)


class Freshness:
    """Of one journal. Written by the journal thread, read by any."""

    __slots__ = ("_read_at", "_stored_at", "failing")

    def __init__(self) -> None:
        self.failing = False
        """The last try to store failed."""
        self._stored_at = self._read_at = monotonic()

    def stored(self) -> None:
        """Everything there was to store is stored."""
        self._stored_at = monotonic()

    def read(self) -> None:
        """Everything there was to read was read."""
        self._read_at = monotonic()

    def unwritten(self) -> bool:
        """True when records could not be stored for too long, or nobody even tried."""
        return monotonic() - self._stored_at > UNWRITTEN_SECONDS

    def stale(self) -> bool:
        """True when what others did is too long unknown."""
        return monotonic() - self._read_at > STALE_SECONDS
