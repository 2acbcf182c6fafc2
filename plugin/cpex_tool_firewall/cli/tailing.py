# SPDX-License-Identifier: Apache-2.0
"""Reading the records of a journal for a command, and going on with what comes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from .output import PROBLEM, counted, fail

if TYPE_CHECKING:
    from ..records import Fields, JournalRecords

_LOOK_SECONDS = 0.5


def batches(records: JournalRecords, *, follow: bool) -> Iterator[Iterator[Fields]]:
    """What there is; with `follow` then what came since, twice a second, until the user interrupts."""
    yield iter(records)
    while follow:
        try:
            time.sleep(_LOOK_SECONDS)
        except KeyboardInterrupt:
            return
        yield iter(records)


def report_damage(records: JournalRecords) -> None:
    """Ends the command with the exit code for a problem when records could not be read."""
    if records.damaged:
        fail(
            f"{counted(records.damaged, 'damaged record')} left out; the first: {records.first_damage}. "
            "Run: tool-firewall verify",
            PROBLEM,
        )
