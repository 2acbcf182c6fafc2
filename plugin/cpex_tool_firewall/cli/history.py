# SPDX-License-Identifier: Apache-2.0
"""What the journal tells: its records in a fresh engine, its workers, and the settings they run with.

The command line is a reader like any worker; it needs no running gateway. The engine is imported late, so
that `doctor` can still speak when it cannot be loaded.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ..config import ConfigError, Settings, load
from ..journal.interface import Journal, SnapshotInfo, Worker
from ..journal.opening import open_journal
from ..state import State, open_state
from .output import console, warn

if TYPE_CHECKING:
    from .._native import Engine
    from ..restoring import Restored

_QUIET_SECONDS = 0.5  # a progress bar appears only when reading takes longer


@dataclass(frozen=True, slots=True)
class History:
    """Everything learned so far, up to `cursor`, and who is writing."""

    state: State
    engine: Engine
    settings: Settings
    settings_known: bool  # False: no worker has said what it runs with, and these are the defaults
    workers: list[Worker]
    cursor: int
    where: str
    journal_bytes: int
    snapshot: SnapshotInfo | None  # the newest one that can be used
    now: float


@contextmanager
def reading(folder: str | None) -> Iterator[tuple[State, Journal]]:
    """The existing state folder and its journal, closed afterwards. Raises StateError and JournalError."""
    state = open_state(folder, create=False)
    journal = open_journal(load({}), state, create=False, busy_seconds=2.0)
    try:
        yield state, journal
    finally:
        journal.close()


def read_history(folder: str | None) -> History:
    """The newest snapshot and the journal after it, with a progress bar when it takes long."""
    with reading(folder) as (state, journal):
        workers = journal.workers()
        settings, known = settings_of(workers)
        from ..engines import build_engine

        restored = _restore(journal, lambda: build_engine(settings, state.key))
        for refused in restored.refused:
            warn(refused)
        if restored.lost:
            warn(restored.lost)
        return History(
            state=state,
            engine=restored.engine,
            settings=settings,
            settings_known=known,
            workers=workers,
            cursor=restored.cursor,
            where=journal.where,
            journal_bytes=journal.size(),
            snapshot=restored.snapshot,
            now=time.time(),
        )


def settings_of(workers: list[Worker]) -> tuple[Settings, bool]:
    """The settings of the newest heartbeat that has some; the defaults and False when none has."""
    for worker in workers:
        found = worker.body.get("settings")
        if found is None:
            continue
        try:
            return load(found), True
        except ConfigError as error:
            warn(f"worker {worker.name} runs with settings this release does not know: {error}")
    return load({}), False


def _restore(journal: Journal, build: Callable[[], Engine]) -> Restored:
    from ..restoring import restore

    started = time.monotonic()
    bar = Progress(
        TextColumn("reading the journal"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console(error=True),
        transient=True,
        disable=not console(error=True).is_terminal,
    )
    task = bar.add_task("", total=None)

    def show(cursor: int, last: int) -> None:
        if time.monotonic() - started > _QUIET_SECONDS:
            bar.start()
            bar.update(task, completed=cursor, total=last)

    try:
        return restore(journal, build, show)
    finally:
        bar.stop()
