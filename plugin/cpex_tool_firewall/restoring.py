# SPDX-License-Identifier: Apache-2.0
"""From a journal to an engine: the newest snapshot that can be used, then everything after it.

Workers start with this, the command line reads with it, and the snapshot process makes the next snapshot
with it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from ._native import Engine
from .journal.interface import Journal, JournalError, SnapshotInfo

_BATCH: Final = 64  # packs


@dataclass(slots=True)
class Restored:
    """An engine that has read everything up to `cursor`."""

    engine: Engine
    cursor: int = 0
    snapshot: SnapshotInfo | None = None  # what it started from
    refused: list[str] = field(default_factory=list)  # snapshots that could not be used, and why
    lost: str = ""  # what is missing from the baselines, "" when nothing is
    records: int = 0  # read after the snapshot


def label_of(journal: Journal, cursor: int) -> str:
    """What a snapshot of this journal at `cursor` is labelled with."""
    return f"{journal.generation}:{cursor}"


def restore(
    journal: Journal, build: Callable[[], Engine], progress: Callable[[int, int], None] | None = None
) -> Restored:
    """Builds an engine and feeds it the journal.

    build: makes a fresh engine; called again after a snapshot was refused. progress(cursor, last cursor),
    now and then. A snapshot that is damaged, of a newer release or of another key is passed over for the
    one before it, and without any the whole journal is read. Raises JournalError.
    """
    restored = _from_snapshot(journal, build)
    first = journal.first()
    if restored.cursor < first:
        restored.engine.forget_digest()
        restored.lost = (
            f"calls before cursor {first} were pruned and no usable snapshot holds them: users are scored as "
            "newcomers where nothing newer is known of them"
        )
    last = journal.last()
    while entries := journal.read_since(restored.cursor, _BATCH):
        restored.engine.apply([entry.body for entry in entries])
        restored.cursor = entries[-1].cursor
        restored.records += sum(entry.records for entry in entries)
        if progress is not None:
            progress(restored.cursor, last)
    return restored


def _from_snapshot(journal: Journal, build: Callable[[], Engine]) -> Restored:
    refused: list[str] = []
    for info in journal.snapshots():
        engine = build()
        try:
            label = engine.restore(journal.load_snapshot(info.cursor))
            if label != label_of(journal, info.cursor):
                raise ValueError("it belongs to another journal")
        except (ValueError, JournalError) as error:
            refused.append(f"snapshot at cursor {info.cursor}: {error}")
            continue
        return Restored(engine, info.cursor, info, refused)
    return Restored(build(), refused=refused)
