# SPDX-License-Identifier: Apache-2.0
"""The chain of digests in the SQLite journal: its end, its checkpoints, pruning and verifying.

Functions over an open connection; the caller owns transactions and locks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import astuple, replace
from typing import Any, Final, NamedTuple

import apsw

from .._native import record_class, unpack
from .chain import DIGEST_BYTES, Anchors, ChainKey, Checkpoint, TamperedError
from .interface import Anchor, Kind, Verified
from .sqlite_schema import PACK_COLUMNS, last_id

_COLUMNS: Final = "start, upto, why, removed, kept, tail, fold, oldest_call, oldest_finding, seal"
# As PACK_COLUMNS: a flipped bit can make anything of anything.
_READ_COLUMNS: Final = (
    "CAST(start AS INTEGER), upto, CAST(why AS BLOB), CAST(removed AS INTEGER), CAST(kept AS INTEGER),"
    " CAST(tail AS BLOB), CAST(fold AS BLOB), CAST(oldest_call AS REAL), CAST(oldest_finding AS REAL),"
    " CAST(seal AS BLOB)"
)
_KEPT_PER_CHECKPOINT: Final = 128  # packs: so much is read when a range is pruned again
_VERIFY_SLICE: Final = 500
_CLOCK_WRONG_SECONDS: Final = 86_400.0  # stored so far in the future: the clock was wrong then


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


def sound(row: Row) -> bool:
    """Whether the kind can be one: a damaged page can give any number."""
    return 0 <= row.kind <= 255


def readable_pack(row: Row) -> bool:
    """Whether the records can be told apart, and have a digest each: what can be said without the chain."""
    if not sound(row):
        return False
    try:
        records = len(unpack(row.body))
    except ValueError:
        return False
    return records == row.records and len(row.digests) == records * DIGEST_BYTES


def end_of(connection: apsw.Connection) -> Anchor:
    """The cursor and digest (raw bytes as hex) that the next pack is linked to."""
    cursor, digest = end_bytes(connection)
    return Anchor(cursor, digest.hex() if cursor else "")


def end_bytes(connection: apsw.Connection) -> tuple[int, bytes]:
    """As end_of(), the digest as bytes."""
    newest: Any = connection.execute(
        f"SELECT id, coalesce(substr(CAST(digests AS BLOB), -{DIGEST_BYTES}), x'') FROM packs"
        " ORDER BY id DESC LIMIT 1"
    ).fetchone()
    covered: Any = connection.execute(
        "SELECT upto, coalesce(CAST(tail AS BLOB), x'') FROM checkpoints ORDER BY upto DESC LIMIT 1"
    ).fetchone()
    cursor, digest = max((newest or (0, b"")), (covered or (0, b"")), key=lambda one: one[0])
    return cursor, bytes(digest) or ChainKey.START


def checkpoints(connection: apsw.Connection, covered: int = 0) -> list[Checkpoint]:
    """Those that end at or behind a cursor, in order."""
    found: Any = connection.execute(
        f"SELECT {_READ_COLUMNS} FROM checkpoints WHERE upto >= ? ORDER BY upto", (covered,)
    ).fetchall()
    return [_checkpoint(row) for row in found]


def _checkpoint(row: tuple[Any, ...]) -> Checkpoint:
    made = Checkpoint(*row)
    if isinstance(made.why, bytes):
        made = replace(made, why=made.why.decode(errors="replace"))
    numbers = (made.start, made.upto, made.removed, made.kept)
    blobs = (made.tail, made.fold, made.seal)
    if all(isinstance(number, int) for number in numbers) and all(isinstance(blob, bytes) for blob in blobs):
        return made
    return Checkpoint(made.upto, made.upto, "damaged", 0, 0, b"", b"", None, None)  # not sealed: it is found


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
    now: float,
    calls_before: float,
    findings_before: float,
    upto: int,
    packs: int,
    covered: int,
) -> tuple[int, int, int]:
    """Removes what is due among the next `packs` packs. Returns (records removed, packs looked at, covered).

    now: by the clock that gave the packs their times. covered: checkpoints cover everything up to there; 0,
    or what the slice before returned. Raises TamperedError before it would sign something that was altered.
    """
    due = Due(calls_before, min(findings_before, calls_before), now)
    before, end = _first_uncovered(connection, key, covered, upto)
    removed, looked = _prune_new(connection, key, due, before, end, packs)
    if not looked:
        removed, looked = _prune_again(connection, key, due, packs)
    return removed, looked, before.upto


class Due(NamedTuple):
    """What may go: ordinary records and findings stored before these times."""

    calls_before: float
    findings_before: float
    now: float

    def old(self, row: Row) -> bool:
        """Whether anything stored then may be due. What was stored in the future, while the clock was wrong,
        must not keep back everything that was stored after it.
        """
        return row.at < self.calls_before or row.at > self.now + _CLOCK_WRONG_SECONDS

    def __call__(self, row: Row) -> bool:
        if row.kind == Kind.ORDINARY:
            return self.old(row)
        return row.kind == Kind.FINDING and row.at < self.findings_before


def _prune_new(
    connection: apsw.Connection, key: ChainKey, due: Due, before: Checkpoint, end: int, packs: int
) -> tuple[int, int]:
    """The oldest packs that no checkpoint covers yet: those behind `before`, up to the cursor `end`."""
    room = _KEPT_PER_CHECKPOINT - before.kept
    if before.why != "pruned" or room <= 0:
        room = _KEPT_PER_CHECKPOINT
    rows = []
    for row in rows_between(connection, before.upto, end, packs):
        room -= not due(row)
        if room < 0 or not due.old(row):
            break
        rows.append(row)
    if not rows:
        return 0, 0
    tail = _check_links(key, before.upto, before.tail, rows)
    if before.upto and not before.genuine(key):
        raise TamperedError(f"the note about cursors {before.start + 1} to {before.upto} was altered")
    if before.why != "pruned" or before.kept >= _KEPT_PER_CHECKPOINT:
        before = Checkpoint(before.upto, before.upto, "pruned", 0, 0, before.tail, key.START, None, None)
    gone = [row for row in rows if due(row)]
    kept = [row for row in rows if not due(row)]
    connection.executemany("DELETE FROM packs WHERE id = ?", ((row.id,) for row in gone))
    records = sum(row.records for row in gone)
    made = replace(before, upto=rows[-1].id, removed=before.removed + records, tail=tail)
    put_checkpoint(connection, key, with_kept(key, made, kept))
    return records, len(rows)


def _first_uncovered(
    connection: apsw.Connection, key: ChainKey, covered: int, upto: int
) -> tuple[Checkpoint, int]:
    """The checkpoint behind which the first part without one begins, and where that part ends."""
    before = Checkpoint(0, 0, "pruned", 0, 0, key.START, key.START, None, None)
    for checkpoint in checkpoints(connection, covered):
        if checkpoint.start > max(before.upto, covered):
            return before, min(checkpoint.start, upto)
        before = checkpoint
    return before, upto


def _prune_again(connection: apsw.Connection, key: ChainKey, due: Due, packs: int) -> tuple[int, int]:
    """One range that was pruned before and holds something that has become due."""
    found: Any = connection.execute(
        f"SELECT {_READ_COLUMNS} FROM checkpoints WHERE oldest_call < ? OR oldest_finding < ? "
        "ORDER BY upto LIMIT 1",
        (due.calls_before, due.findings_before),
    ).fetchone()
    if found is None:
        return 0, 0
    before = _checkpoint(found)
    rows = rows_between(connection, before.start, before.upto)
    if problem := check_range(key, before, rows):
        raise TamperedError(problem)
    gone = [row for row in rows if due(row)][:packs]
    removed = {row.id for row in gone}
    kept = [row for row in rows if row.id not in removed]
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
        f"SELECT {_READ_COLUMNS} FROM checkpoints WHERE upto = ? AND kept = 0 AND why = ?",
        (empty.start, empty.why),
    ).fetchone()
    if found is None:
        return empty
    before = _checkpoint(found)
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
        if not sound(row):
            return f"the records at cursor {row.id} were altered: these are not even records"
        fold = key.fold(fold, row)
    if fold != checkpoint.fold:
        return f"a record among those kept of {where} was altered, removed or added"
    return ""


def _check_links(key: ChainKey, cursor: int, previous: bytes, rows: Sequence[Row]) -> bytes:
    for row in rows:
        if row.id != cursor + 1:
            raise TamperedError(_removed(cursor + 1, row.id - 1))
        if problem := check_row(key, previous, row):
            raise TamperedError(problem)
        cursor, previous = row.id, key.tail(previous, row.digests)
    return previous


def _removed(first: int, last: int) -> str:
    return f"what was stored at cursors {first} to {last} was removed"


def check_row(key: ChainKey, previous: bytes, row: Row) -> str:
    """What is wrong with one pack after the digest `previous`, "" when nothing is."""
    if not sound(row):
        return f"the records at cursor {row.id} were altered: these are not even records"
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


class Verification:
    """One walk over everything, from the first record to the last.

    In steps with a read transaction each, so that it never keeps the write-ahead log from being emptied.
    What is pruned between two steps is covered by a checkpoint by then.
    """

    def __init__(self, connection: apsw.Connection, key: ChainKey, anchors: Sequence[Anchor]) -> None:
        self._connection = connection
        self._key = key
        self._anchors = Anchors(anchors)
        self._records = 0
        self._pruned = 0
        self._lost = 0
        self._cursor = 0
        self._first = 0
        self._previous = key.START

    def run(self, progress: Callable[[int, int], None] | None) -> Verified:
        """Outside of any transaction."""
        with self._connection:
            last = self._end()
        while self._cursor < last:
            with self._connection:
                problem = self._step(last)
            if problem:
                return self._verified(problem)
            if progress is not None:
                progress(self._cursor, last)
        with self._connection:
            end = self._end()
        return self._verified(self._anchors.beyond(end))

    def _end(self) -> int:
        covered: int | None = self._connection.execute("SELECT max(upto) FROM checkpoints").get
        return max(last_id(self._connection), covered or 0)

    def _step(self, last: int) -> str:
        found: Any = self._connection.execute(
            f"SELECT {_READ_COLUMNS} FROM checkpoints WHERE upto > ? ORDER BY upto LIMIT 1", (self._cursor,)
        ).fetchone()
        checkpoint = _checkpoint(found) if found else None
        if checkpoint is None or checkpoint.start > self._cursor:
            return self._plain(checkpoint.start if checkpoint else last)
        return self._covered(checkpoint)

    def _covered(self, checkpoint: Checkpoint) -> str:
        rows = rows_between(self._connection, checkpoint.start, checkpoint.upto)
        if problem := check_range(self._key, checkpoint, rows):
            return problem
        self._records += sum(row.records for row in rows)
        self._first = self._first or (rows[0].id if rows else 0)
        if checkpoint.why == "pruned":
            self._pruned += checkpoint.removed
        else:
            self._lost += checkpoint.removed
            if problem := self._anchored_in(checkpoint, rows):
                return problem
        self._cursor, self._previous = checkpoint.upto, checkpoint.tail
        if checkpoint.why != "pruned":
            return ""
        return self._anchors.contradict(checkpoint.upto, checkpoint.tail.hex())

    def _plain(self, upto: int) -> str:
        rows = rows_between(self._connection, self._cursor, upto, _VERIFY_SLICE)
        for row in rows:
            if row.id != self._cursor + 1:
                return _removed(self._cursor + 1, row.id - 1)
            if problem := check_row(self._key, self._previous, row):
                return problem
            self._records += row.records
            self._first = self._first or row.id
            self._cursor, self._previous = row.id, self._key.tail(self._previous, row.digests)
            if problem := self._anchors.contradict(self._cursor, self._previous.hex()):
                return problem
        return "" if rows else _removed(self._cursor + 1, upto)

    def _anchored_in(self, checkpoint: Checkpoint, rows: Sequence[Row]) -> str:
        """What anchors know of a range of which something was lost."""
        kept = {row.id: self._key.tail(b"", row.digests) for row in rows}
        for cursor in self._anchors.cursors:
            if not checkpoint.start < cursor <= checkpoint.upto:
                continue
            if cursor not in kept:
                return (
                    f"what an anchor knows at cursor {cursor} is missing: a signed note says that the "
                    f"journal was {checkpoint.why} behind cursor {checkpoint.start}"
                )
            if problem := self._anchors.contradict(cursor, kept[cursor].hex()):
                return problem
        return ""

    def _verified(self, problem: str) -> Verified:
        digest = self._previous.hex() if self._cursor else ""
        return Verified(self._records, self._pruned, self._first, self._cursor, digest, problem, self._lost)
