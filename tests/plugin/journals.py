# SPDX-License-Identifier: Apache-2.0
"""What the tests of the journals share: a key, a clock, and packs of any bytes."""

from collections.abc import Iterable

from cpex_tool_firewall._native import unpack
from cpex_tool_firewall.journal.interface import Entry, Journal, Kind, Pack

KEY = bytes(range(32))


class Clock:
    """A clock the test moves."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now


def packed(*records: bytes, kind: Kind = Kind.ORDINARY) -> Pack:
    """One pack of these records; to a journal they may be any bytes."""
    body = b"".join(len(record).to_bytes(4, "little") + record for record in records)
    return Pack(kind, len(records), body)


def unpacked(entries: Iterable[Entry]) -> list[bytes]:
    """The records of these entries."""
    return [record for entry in entries for record in unpack(entry.body)]


def everything(journal: Journal, cursor: int = 0, limit: int = 500) -> list[Entry]:
    """All entries after `cursor`."""
    found: list[Entry] = []
    while entries := journal.read_since(found[-1].cursor if found else cursor, limit):
        found += entries
    return found
