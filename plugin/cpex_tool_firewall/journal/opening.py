# SPDX-License-Identifier: Apache-2.0
"""Which journal the settings ask for: the one line of registration of a backend."""

from __future__ import annotations

from ..config import Settings
from ..state import State
from .interface import Journal
from .sqlite import BUSY_SECONDS, SqliteJournal


def open_journal(
    settings: Settings, state: State, *, create: bool = True, busy_seconds: float | None = None
) -> Journal:
    """The journal of this installation; made when there is none, unless create is False.

    busy_seconds: how long a call may wait for other processes; None: as short as a worker needs it. Raises
    JournalError.
    """
    patience = BUSY_SECONDS if busy_seconds is None else busy_seconds
    return SqliteJournal(state.folder, state.key, create=create, busy_seconds=patience)
