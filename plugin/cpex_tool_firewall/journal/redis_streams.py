# SPDX-License-Identifier: Apache-2.0
"""Entries of the Redis journal's streams."""

from __future__ import annotations

from typing import Any, NamedTuple

from .interface import JournalError
from .redis_connection import Server, text_of
from .redis_scripts import cursor_of, id_of, time_of


class Stored(NamedTuple):
    """One stream entry: a pack."""

    cursor: int
    number: int  # running number in its history, from 1
    kind: int
    records: int
    body: bytes

    @property
    def at(self) -> float:
        """When it was stored, s."""
        return time_of(self.cursor)


def entries_of(reply: Any) -> list[Stored]:
    """The entries in a reply of XRANGE. Raises JournalError when they are not ours."""
    found = []
    for entry_id, flat in reply:
        values = dict(zip(flat[::2], flat[1::2], strict=True))
        try:
            number, kind, records = (int(values[name]) for name in (b"i", b"k", b"n"))
            found.append(Stored(cursor_of(entry_id), number, kind, records, values[b"b"]))
        except (KeyError, ValueError) as error:
            raise JournalError(
                f"stream entry {text_of(entry_id)} is not one of ours ({error!r}); another program writes "
                "there: change redis_prefix"
            ) from error
    return found


def stream_between(
    server: Server, key: str, after: int, upto: int | None, limit: int | None = None
) -> list[Stored]:
    """The entries of a stream in (after, upto], in order."""
    count = () if limit is None else ("COUNT", limit)
    end = "+" if upto is None else id_of(upto)
    (reply,) = server.run(("XRANGE", key, "(" + id_of(after), end, *count))
    return entries_of(reply)
