# SPDX-License-Identifier: Apache-2.0
"""A progress bar on standard error, when that is a terminal."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from .output import console

OnProgress = Callable[[int, int], None]

_QUIET_SECONDS = 0.5  # it appears only when the work takes longer


@contextmanager
def progress(doing: str) -> Iterator[OnProgress | None]:
    """on_progress(done, in all; 0 when unknown), or None where nobody would see it."""
    terminal = console(error=True)
    if not terminal.is_terminal:
        yield None
        return
    bar = Progress(
        TextColumn(doing),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=terminal,
        transient=True,
    )
    task = bar.add_task("", total=None)
    begun = time.monotonic()

    def on_progress(done: int, total: int) -> None:
        bar.update(task, completed=done, total=total or None)
        if time.monotonic() - begun > _QUIET_SECONDS:
            bar.start()

    try:
        yield on_progress
    finally:
        bar.stop()
