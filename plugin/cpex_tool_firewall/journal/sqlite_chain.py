# SPDX-License-Identifier: Apache-2.0
"""The chain of digests in the SQLite journal: its end, its checkpoints, pruning and verifying.

Functions over an open connection; the caller owns transactions and locks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, replace
from typing import Any, Final, NamedTuple

import apsw

from .._native import record_class, unpack
from .chain import DIGEST_BYTES, ChainKey, Checkpoint
from .interface import Anchor, Kind, Verified
from .sqlite_schema import PACK_COLUMNS, last_id

_COLUMNS: Final = "start, upto, why, removed, kept, tail, fold, oldest_call, oldest_finding, seal"
_KEPT_PER_CHECKPOINT: Final = 512  # packs: so much is read when a range is pruned again
_VERIFY_SLICE: Final = 500


class TamperedError(Exception):
    """A record is not what it was when it was stored. The text says where."""


class Row(NamedTuple):
    """One pack as stored."""

    id: int
    at: float
    kind: int
    records: int
    body: bytes
    digests: bytes


def rows_between(connection: apsw.Connection, after: int, upto: int, limit: int = -1) -> list[Row]:
    """The packs in (after, upto], in order."""
    found: Any = connection.execute(
        f"SELECT {PACK_COLUMNS} FROM packs WHERE id > ? AND id <= ? ORDER BY id LIMIT ?",
        (after, upto, limit),
    )
    return [Row(*row) for row in found]


def end_of(connection: apsw.Connection) -> Anchor:
    """The cursor and digest (raw bytes as hex) that the next pack is linked to."""
    cursor, digest = end_bytes(connection)
    return Anchor(cursor, digest.hex() if cursor else "")


def end_bytes(connection: apsw.Connection) -> tuple[int, bytes]:
    """As end_of(), the digest as bytes."""
    newest: Any = connection.execute(
        f"SELECT id, substr(CAST(digests AS BLOB), -{DIGEST_BYTES}) FROM packs ORDER BY id DESC LIMIT 1"
    ).fetchone()
    covered: Any = connection.execute(
        "SELECT upto, tail FROM checkpoints ORDER BY upto DESC LIMIT 1"
    ).fetchone()
    cursor, digest = max((newest or (0, b"")), (covered or (0, b"")), key=lambda one: one[0])
    return cursor, bytes(digest) or ChainKey.START


def checkpoints(connection: apsw.Connection) -> list[Checkpoint]:
    """All of them, in order."""
    found: Any = connection.execute(f"SELECT {_COLUMNS} FROM checkpoints ORDER BY upto")
    return [Checkpoint(*row) for row in found]


def put_checkpoint(connection: apsw.Connection, key: ChainKey, made: Checkpoint) -> None:
    """Seals and stores one, in place of those it covers."""
    connection.execute("DELETE FROM checkpoints WHERE upto > ? AND upto <= ?", (made.start, made.upto))
    connection.execute(
        f"INSERT INTO checkpoints ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        astuple(made.sealed(key)),
    )


def prune_slice(
    connection: apsw.Connection,
    key: ChainKey,
    *,
    calls_before: float,
    findings_before: float,
    upto: int,
    packs: int,
) -> tuple[int, int]:
    """Removes what is due among the next `packs` packs. Returns (records removed, packs looked at).

    Raises TamperedError before it would sign something that was altered.
    """
    findings_before = min(findings_before, calls_before)
    removed, looked = _prune_new(connection, key, calls_before, findings_before, upto, packs)
    if looked:
        return removed, looked
    return _prune_again(connection, key, calls_before, findings_before)


def _prune_new(
    connection: apsw.Connection,
    key: ChainKey,
    calls_before: float,
    findings_before: float,
    upto: int,
    packs: int,
) -> tuple[int, int]:
    """The packs right after the last checkpoint."""
    found: Any = connection.execute(
        f"SELECT {_COLUMNS} FROM checkpoints ORDER BY upto DESC LIMIT 1"
    ).fetchone()
    before = (
        Checkpoint(*found) if found else Checkpoint(0, 0, "pruned", 0, 0, key.START, key.START, None, None)
    )
    rows = rows_between(connection, before.upto, upto, packs)
    young = next((n for n, row in enumerate(rows) if row.at >= calls_before), len(rows))
    rows = rows[:young]
    if not rows:
        return 0, 0
    tail = _check_links(key, before.tail, rows)
    if found and not before.genuine(key):
        raise TamperedError(f"the note about cursors {before.start + 1} to {before.upto} was altered")
    if before.why != "pruned" or before.kept >= _KEPT_PER_CHECKPOINT:
        before = Checkpoint(before.upto, before.upto, "pruned", 0, 0, before.tail, key.START, None, None)
    gone = [row for row in rows if _is_due(row, calls_before, findings_before)]
    kept = [row for row in rows if not _is_due(row, calls_before, findings_before)]
    connection.executemany("DELETE FROM packs WHERE id = ?", ((row.id,) for row in gone))
    records = sum(row.records for row in gone)
    made = replace(before, upto=rows[-1].id, removed=before.removed + records, tail=tail)
    put_checkpoint(connection, key, with_kept(key, made, kept))
    return records, len(rows)


def _prune_again(
    connection: apsw.Connection, key: ChainKey, calls_before: float, findings_before: float
) -> tuple[int, int]:
    """One range that was pruned before and holds something that has become due."""
    found: Any = connection.execute(
        f"SELECT {_COLUMNS} FROM checkpoints WHERE oldest_call < ? OR oldest_finding < ? "
        "ORDER BY upto LIMIT 1",
        (calls_before, findings_before),
    ).fetchone()
    if found is None:
        return 0, 0
    before = Checkpoint(*found)
    rows = rows_between(connection, before.start, before.upto)
    if problem := check_range(key, before, rows):
        raise TamperedError(problem)
    gone = [row for row in rows if _is_due(row, calls_before, findings_before)]
    kept = [row for row in rows if not _is_due(row, calls_before, findings_before)]
    connection.executemany("DELETE FROM packs WHERE id = ?", ((row.id,) for row in gone))
    records = sum(row.records for row in gone)
    anew = replace(
        before,
        removed=before.removed + records,
        kept=0,
        fold=key.START,
        oldest_call=None,
        oldest_finding=None,
    )
    anew = with_kept(key, anew, kept)
    if not anew.kept:
        anew = _joined(connection, key, anew)
    put_checkpoint(connection, key, anew)
    return records, max(len(rows), 1)


def _joined(connection: apsw.Connection, key: ChainKey, empty: Checkpoint) -> Checkpoint:
    """An empty range takes in the empty one before it, so that their number stays small."""
    found: Any = connection.execute(
        f"SELECT {_COLUMNS} FROM checkpoints WHERE upto = ? AND kept = 0 AND why = ?",
        (empty.start, empty.why),
    ).fetchone()
    if found is None:
        return empty
    before = Checkpoint(*found)
    if not before.genuine(key):
        raise TamperedError(f"the note about cursors {before.start + 1} to {before.upto} was altered")
    return replace(empty, start=before.start, removed=before.removed + empty.removed)


def with_kept(key: ChainKey, made: Checkpoint, kept: Sequence[Row]) -> Checkpoint:
    """The checkpoint with some more packs that its range still holds, behind those it knows."""
    fold, calls, findings = made.fold, made.oldest_call, made.oldest_finding
    for row in kept:
        fold = key.fold(fold, row)
        if row.kind == Kind.ORDINARY:
            calls = row.at if calls is None else min(calls, row.at)
        elif row.kind == Kind.FINDING:
            findings = row.at if findings is None else min(findings, row.at)
    return replace(made, kept=made.kept + len(kept), fold=fold, oldest_call=calls, oldest_finding=findings)


def check_range(key: ChainKey, checkpoint: Checkpoint, rows: Sequence[Row]) -> str:
    """What is wrong with a range that has a checkpoint, "" when nothing is."""
    where = f"cursors {checkpoint.start + 1} to {checkpoint.upto}"
    if not checkpoint.genuine(key):
        return f"the signed note about what was removed from {where} was altered"
    fold = key.START
    for row in rows:
        fold = key.fold(fold, row)
    if fold != checkpoint.fold:
        return f"a record among those kept of {where} was altered, removed or added"
    return ""


def _check_links(key: ChainKey, previous: bytes, rows: Sequence[Row]) -> bytes:
    for row in rows:
        if problem := check_row(key, previous, row):
            raise TamperedError(problem)
        previous = key.tail(previous, row.digests)
    return previous


def check_row(key: ChainKey, previous: bytes, row: Row) -> str:
    """What is wrong with one pack after the digest `previous`, "" when nothing is."""
    try:
        digests = key.link(previous, row.id, row.at, row.kind, row.body)
        records = unpack(row.body)
    except ValueError:
        return f"the records at cursor {row.id} were altered: they cannot even be told apart"
    if len(records) != row.records:
        return f"the records at cursor {row.id} were altered: {row.records} stored, {len(records)} there"
    if digests != row.digests:
        return _first_difference(row, digests)
    return _wrong_kind(row, records)


def _first_difference(row: Row, digests: bytes) -> str:
    for start in range(0, len(digests), DIGEST_BYTES):
        if digests[start : start + DIGEST_BYTES] != row.digests[start : start + DIGEST_BYTES]:
            number = start // DIGEST_BYTES + 1
            return (
                f"record {number} of {row.records} at cursor {row.id} is not what was stored there, or what "
                "came before it was altered, removed, added or moved"
            )
    return f"the digests at cursor {row.id} were altered"


def _wrong_kind(row: Row, records: Sequence[bytes]) -> str:
    try:
        kinds = {record_class(record) for record in records}
    except ValueError:
        return ""  # of a newer release; its digest is right
    return "" if kinds <= {row.kind} else f"the kind of the records at cursor {row.id} was altered"


def _is_due(row: Row, calls_before: float, findings_before: float) -> bool:
    if row.kind == Kind.ORDINARY:
        return row.at < calls_before
    return row.kind == Kind.FINDING and row.at < findings_before


class Verification:
    """One walk over everything, from the first record to the last."""

    def __init__(self, connection: apsw.Connection, key: ChainKey, anchors: Sequence[Anchor]) -> None:
        self._connection = connection
        self._key = key
        self._anchors = sorted(anchors)
        self._records = 0
        self._pruned = 0
        self._cursor = 0
        self._first = 0
        self._previous = key.START

    def run(self, progress: Callable[[int, int], None] | None) -> Verified:
        """Inside a read transaction of the caller."""
        newest: int | None = self._connection.execute("SELECT max(id) FROM packs").get
        last = max(last_id(self._connection), newest or 0)
        for problem in self._steps(last):
            if problem:
                return self._verified(problem)
            if progress is not None:
                progress(self._cursor, last)
        return self._verified(self._cut_off(last))

    def _steps(self, last: int) -> Iterator[str]:
        for checkpoint in checkpoints(self._connection):
            if checkpoint.start != self._cursor:
                yield from self._plain(checkpoint.start)
            rows = rows_between(self._connection, checkpoint.start, checkpoint.upto)
            yield check_range(self._key, checkpoint, rows)
            self._records += sum(row.records for row in rows)
            self._first = self._first or (rows[0].id if rows else 0)
            self._pruned += checkpoint.removed
            self._cursor, self._previous = checkpoint.upto, checkpoint.tail
            yield self._wrong_anchor(checkpoint.upto, checkpoint.tail)
        yield from self._plain(last)

    def _plain(self, upto: int) -> Iterator[str]:
        while rows := rows_between(self._connection, self._cursor, upto, _VERIFY_SLICE):
            for row in rows:
                if row.id != self._cursor + 1:
                    yield f"what was stored at cursors {self._cursor + 1} to {row.id - 1} was removed"
                    return
                if problem := check_row(self._key, self._previous, row):
                    yield problem
                    return
                self._records += row.records
                self._first = self._first or row.id
                self._cursor, self._previous = row.id, self._key.tail(self._previous, row.digests)
                if problem := self._wrong_anchor(self._cursor, self._previous):
                    yield problem
                    return
            yield ""
        if self._cursor < upto:
            yield f"what was stored at cursors {self._cursor + 1} to {upto} was removed"

    def _wrong_anchor(self, cursor: int, digest: bytes) -> str:
        for anchor in self._anchors:
            if anchor.cursor == cursor and anchor.digest != digest.hex():
                return (
                    f"the chain up to cursor {cursor} is not the one the anchor knows: the journal was made "
                    "anew, or an older copy was restored and continued"
                )
        return ""

    def _cut_off(self, last: int) -> str:
        beyond = [anchor for anchor in self._anchors if anchor.cursor > max(self._cursor, last)]
        if not beyond:
            return ""
        return (
            f"everything after cursor {self._cursor} is missing: an anchor knows cursor {beyond[-1].cursor}; "
            "the end was cut off, or an older copy was restored"
        )

    def _verified(self, problem: str) -> Verified:
        digest = self._previous.hex() if self._cursor else ""
        return Verified(self._records, self._pruned, self._first, self._cursor, digest, problem)
