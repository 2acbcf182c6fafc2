# SPDX-License-Identifier: Apache-2.0
"""Changes of mode, written as records: every worker reads them from the journal and follows."""

import itertools
import secrets
import time
from typing import Final

from ._native import encode_control, pack
from .journal.interface import Journal, Pack

MODES: Final = ("learning", "warn", "shadow", "block")
CLEAR: Final = ""
"""The value that removes what was said for a scope; the next wider one holds again."""

_WHY_LENGTH = 200

# Readers tell records apart by writer and number, and workers skip their own: so this process writes under a
# number of its own.
_writer = secrets.randbelow(2**63 - 1) + 1
_numbers = itertools.count(1)


class ControlError(ValueError):
    """A control change that cannot be written. The text says what is accepted."""


def set_mode(
    journal: Journal,
    value: str,
    *,
    tenant: str = "",
    tool: str = "",
    user: str = "",
    by: str,
    why: str = "",
    now: float | None = None,
) -> int:
    """Puts a mode in force for a scope, or clears it with "": returns the cursor of the record, once on disk.

    An empty tenant, tool or user means any. by: who did it; why: for the record, at most 200 characters.
    Raises ControlError for a value that is no mode, JournalError when it could not be stored.
    """
    if value not in (*MODES, CLEAR):
        raise ControlError(f"mode: {value!r} is not a mode; accepted: {', '.join(MODES)}")
    if len(why) > _WHY_LENGTH:
        raise ControlError(f"why: {len(why)} characters; accepted: at most {_WHY_LENGTH}")
    record = encode_control(
        ts=time.time() if now is None else now,
        worker=_writer,
        seq=next(_numbers),
        action="mode",
        tenant=tenant,
        tool=tool,
        user=user,
        value=value,
        by=by,
        why=why,
    )
    return journal.append([Pack(*made) for made in pack([record])], durable=True)
