# SPDX-License-Identifier: Apache-2.0
"""What the journal tells: its records in a fresh engine, its workers, and the settings they run with.

The command line is a reader like any worker; it needs no running gateway. The engine is imported late, so
that `doctor` can still speak when it cannot be loaded.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ..config import ConfigError, Settings, load
from ..journal.interface import Journal, Worker
from ..journal.sqlite import SqliteJournal
from ..state import State, open_state
from .output import console, warn

if TYPE_CHECKING:
    from .._native import Engine

_BATCH = 4096
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
    now: float


@contextmanager
def reading(folder: str | None) -> Iterator[tuple[State, Journal]]:
    """The existing state folder and its journal, closed afterwards. Raises StateError and JournalError."""
    state = open_state(folder, create=False)
    journal = SqliteJournal(state.folder, create=False, busy_seconds=2.0)
    try:
        yield state, journal
    finally:
        journal.close()


def read_history(folder: str | None) -> History:
    """Reads the whole journal into a fresh engine, with a progress bar when it takes long."""
    with reading(folder) as (state, journal):
        workers = journal.workers()
        settings, known = settings_of(workers)
        from ..engines import build_engine

        engine = build_engine(settings, state.key)
        cursor = _apply_all(journal, engine)
    return History(state, engine, settings, known, workers, cursor, time.time())


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


def _apply_all(journal: Journal, engine: Engine) -> int:
    cursor, applied, total = 0, 0, journal.last()
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
    task = bar.add_task("", total=total)
    try:
        while rows := journal.read_since(cursor, _BATCH):
            engine.apply([record for _, record in rows])
            cursor = rows[-1][0]
            applied += len(rows)
            if time.monotonic() - started > _QUIET_SECONDS:
                bar.start()
                bar.update(task, completed=applied)
    finally:
        bar.stop()
    return cursor
