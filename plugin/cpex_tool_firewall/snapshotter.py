# SPDX-License-Identifier: Apache-2.0
"""Makes a snapshot: the last one, everything after it, and the result saved. In a process of its own.

A worker could copy its own engine, but its calls would wait for that as long as the copying takes. So the
elected worker starts this beside itself, with low priority:

    python -m cpex_tool_firewall.snapshotter        {"state": FOLDER, "settings": {...}} on standard input

It prints one line of JSON, {"cursor", "bytes", "seconds"}; on an error one line of text to standard error,
exit 1; exit 3 when the journal and its snapshots no longer hold everything that was learned.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Final

from .config import ConfigError, Settings, load
from .engines import build_engine
from .journal.interface import Journal, JournalError, SnapshotInfo
from .journal.opening import open_journal
from .restoring import label_of, restore
from .state import State, StateError, open_state

_NICE: Final = 10
_BUSY_SECONDS: Final = 5.0

INCOMPLETE: Final = 3
"""Exit code: only a worker that has learned it before can save what is missing here."""


class IncompleteError(JournalError):
    """A snapshot would hold less than was learned, and take the place of what may still be repaired."""


def make_snapshot(settings: Settings, state: State, journal: Journal) -> SnapshotInfo:
    """Saves a snapshot of everything in the journal. Raises JournalError, IncompleteError when that is not
    everything that was learned.
    """
    restored = restore(journal, lambda: build_engine(settings, state.key))
    if restored.lost:
        raise IncompleteError("; ".join([restored.lost, *restored.refused]))
    if restored.snapshot is not None and restored.snapshot.cursor == restored.cursor:
        return restored.snapshot
    body = restored.engine.snapshot(label_of(journal, restored.cursor))
    journal.save_snapshot(restored.cursor, body)
    return SnapshotInfo(restored.cursor, time.time(), len(body))


def main() -> int:
    """Reads its task from standard input."""
    os.nice(_NICE)
    task = json.load(sys.stdin)
    begun = time.monotonic()
    try:
        settings = load(task["settings"])
        state = open_state(task["state"], create=False)
        journal = open_journal(settings, state, create=False, busy_seconds=_BUSY_SECONDS)
        try:
            made = make_snapshot(settings, state, journal)
        finally:
            journal.close()
    except (ConfigError, StateError, JournalError) as error:
        print(error, file=sys.stderr)
        return INCOMPLETE if isinstance(error, IncompleteError) else 1
    except Exception as error:  # noqa: BLE001  its text goes into an alarm, and may hold anything
        print(f"unexpected {type(error).__name__}", file=sys.stderr)
        return 1
    print(
        json.dumps({"cursor": made.cursor, "bytes": made.size, "seconds": round(time.monotonic() - begun, 3)})
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
