# SPDX-License-Identifier: Apache-2.0
"""The journal for several hosts: streams in one Redis 7 or Valkey server, and a spool on each host's disk.

What append() promises here. Everything goes through the server, whose order is everybody's order. But a
server may hang, restart empty, or fail over to a copy that lags, and a decision cannot wait for that:

* durable: the packs are on this host's disk, in the spool (spool.py), before append() returns. The server
  gets them at the next use of the journal, some microseconds later, or as soon as it can be reached. append()
  then returns the newest cursor it knows, not theirs.
* not durable: the packs are at the server when append() returns; while it cannot be reached they go to the
  spool as well, up to spool.MOST_ORDINARY_BYTES, and then JournalError.
* without `spooling` (the command line): the packs are at the server, and confirmed by a replica where there
  is one, or JournalError.

The spool keeps findings and control records for an hour. Whenever the server turns out to have lost what it
confirmed, every host sends again what is missing. notes() says what is wrong while all of this goes on.

Readers follow the running number of the packs: when some were removed before they were read, by somebody
else's XTRIM or by eviction, notes() says how many, findings and control records are still read from the
second stream, and reading goes on.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from .chain import ChainKey, TamperedError
from .interface import (
    FORGET_SECONDS,
    Anchor,
    Entry,
    JournalError,
    JournalLost,
    Pack,
    SnapshotInfo,
    Verified,
    Worker,
)
from .redis_connection import COMMAND_SECONDS, HistoryChanged, RedisOptions, Server, text_of
from .redis_prune import Pruner
from .redis_scripts import APPEND, BEAT, BEGIN, FORMAT, LEAD, LEAVE, SEAL, Keys, cursor_of, id_of
from .redis_seals import SEAL_PACKS, Seal, Verification, first_seal, make_seal
from .redis_snapshots import all_snapshots, load_snapshot, save_snapshot
from .redis_state import ServerState
from .redis_streams import Stored, entries_of, stream_between
from .spool import FILE_NAME as SPOOL_NAME
from .spool import Spool

_T = TypeVar("_T")

_PATIENT_SECONDS: Final = 5.0  # for each answer, where nobody waits: snapshots, verify
_REPLICA_SECONDS: Final = 0.5
_CURSORS_KNOWN: Final = 4096
_SEND_AT_ONCE: Final = 32  # packs
_SEND_AGAIN_SECONDS: Final = 0.25
_SEND_SECONDS: Final = 0.03  # of one call, for what waits in the spool
_SEAL_SECONDS: Final = 0.03
_HOUSEKEEPING_SECONDS: Final = 1.0
_ADOPT_SECONDS: Final = 30.0  # packs that wait for so long while the server answers have lost their worker
_CLEAN_SECONDS: Final = 60.0
_RESENT_SECONDS: Final = 3.0  # after heal(), within which the caller has appended again
_AFTER_HEAL_SECONDS: Final = 60.0
_AUDIT_SLICE: Final = 64
_MOST_NOTES: Final = 8
_NOTE_SECONDS: Final = 600.0  # so long notes() tells what happened once

_ANOTHER_HISTORY: Final = "the server holds another history now"
_EMPTY: Final = "the server was emptied or restarted empty"
_REWOUND: Final = (
    "the server lost the newest records it had confirmed: it was restarted, or failed over to a copy that "
    "lagged"
)
_OTHER_KEY: Final = (
    "it was made with another key; all hosts must share one key: copy the key file of the first host, or "
    "name it with TOOL_FIREWALL_KEY_FILE"
)


class RedisJournal:
    """Journal at `options.url`, made there unless create is False.

    folder: of this host's spool; used when it has one, or when spooling. key: of the installation, for the
    digests. spooling: see above. seconds: how long the server may take for an answer. clock: for heartbeats,
    and instead of the server's clock; for tests. Raises JournalError.
    """

    def __init__(
        self,
        options: RedisOptions,
        folder: Path,
        key: bytes,
        *,
        create: bool = True,
        spooling: bool = True,
        seconds: float = COMMAND_SECONDS,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._options = options
        self._create = create
        self._spooling = spooling
        self._key = ChainKey(key)
        self._keys = Keys(options.prefix)
        self._clock = clock or time.time
        self._server_clock = clock
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._replica_seconds = min(_REPLICA_SECONDS, seconds * 0.8)
        self._server = Server(options, seconds=seconds, patient=not spooling)
        self._state = ServerState(self._server)
        self._generation = ""
        self._lost = ""
        self._closed = False
        self._numbers: OrderedDict[int, int] = OrderedDict()  # running numbers of cursors read
        self._newest = (0, 0)  # cursor and number of the newest pack the server is known to have had
        self._told: dict[str, float] = {}  # notes about what happened once: until when to tell them
        self._missed = 0
        self._due = dict.fromkeys(("housekeeping", "adopt", "clean"), 0.0)
        self._reached_at = 0.0
        self._healed_at = float("-inf")
        self._audits: dict[bool, tuple[float, int]] = {}  # mine: when, and after which row
        self._room = (0.0, True)
        self._unsent = ""  # why the server does not take what waits
        self._send_at = 0.0
        self._spool: Spool | None = None
        if spooling or (folder / SPOOL_NAME).exists():
            self._spool = Spool(folder, secrets.token_hex(8))
        try:
            self._reach()
        except BaseException:
            self._let_go()
            raise

    @property
    def where(self) -> str:
        """See Journal.where."""
        return self._server.where

    @property
    def generation(self) -> str:
        """See Journal.generation."""
        return self._generation

    def notes(self) -> list[str]:
        """See Journal.notes."""
        now = time.monotonic()
        self._told = {text: until for text, until in self._told.items() if until > now}
        found = [*self._state.notes, *self._told]
        spool = self._spool
        if self._unsent and spool is not None and spool.waiting:
            found.append(
                f"{self._unsent}. {spool.waiting} packs of records wait on this host's disk ({spool.path}) "
                "and are sent as soon as the server takes them"
            )
        elif spool is not None and spool.waiting and not self._server.connected():
            found.append(
                f"{self.where}: {spool.waiting} packs of records wait on this host's disk ({spool.path}); "
                "they are sent as soon as the server answers"
            )
        if spool is not None and spool.set_aside:
            found.append(f"{spool.path}: it was damaged and set aside as {spool.set_aside}")
        return found

    # --- writing ---

    def append(self, packs: Sequence[Pack], *, durable: bool = False) -> int:
        """See Journal.append, and the top of this file."""
        made = [Pack(int(pack.kind), int(pack.records), bytes(pack.body)) for pack in packs]
        with self._entered():
            if not made:
                return self._last() if not self._spooling else self._newest[0]
            if not self._spooling or self._spool is None:
                return self._confirmed(made, durable=durable)
            if time.monotonic() - self._healed_at < _AFTER_HEAL_SECONDS:
                self._spool.replace(made)
            if durable:
                self._put_durably(self._spool, made)
            else:
                self._put(self._spool, made)
            return self._newest[0]

    def _put_durably(self, spool: Spool, packs: Sequence[Pack]) -> None:
        try:
            spool.put(packs, durable=True)
        except JournalError as error:
            # The disk does not take it: the server is the other place that can.
            self._tell(str(error))
            self._check_lost()
            self._reach()
            self._store(packs)

    def _put(self, spool: Spool, packs: Sequence[Pack]) -> None:
        why: JournalError = JournalLost(self._lost)
        if not self._lost:
            try:
                self._reach()
                self._send_waiting()
                if not spool.waiting:
                    self._store(packs)
                    return
                why = JournalError(self._unsent or f"{self.where}: more records wait than the server takes")
            except HistoryChanged:
                why = self._lose(_ANOTHER_HISTORY)
            except JournalError as error:
                why = error
        if not self._has_room(spool):
            raise why
        spool.put(packs, durable=False)

    def _has_room(self, spool: Spool) -> bool:
        now = time.monotonic()
        until, room = self._room
        if now >= until:
            room = spool.room()
            self._room = (now + 1.0, room)
        return room

    def _confirmed(self, packs: Sequence[Pack], *, durable: bool) -> int:
        self._check_lost()
        with self._history():
            self._reach()
            cursors = self._store(packs)
            if durable:
                kept = self._remember_sent(packs, cursors)
                if self._state.replicas:
                    (confirmed,) = self._server.run(("WAIT", 1, int(self._replica_seconds * 1000)))
                    if not confirmed and not kept:
                        raise JournalError(
                            f"{self.where}: stored, but no replica confirmed it within "
                            f"{self._replica_seconds:g} s; it is in force, and would be lost if the "
                            "server failed over now: look at the replicas, then repeat it"
                        )
        return cursors[-1]

    def _remember_sent(self, packs: Sequence[Pack], cursors: Sequence[int]) -> bool:
        if self._spool is None:
            return False
        try:
            self._spool.put(packs, durable=True, sent=[(self._generation, cursor) for cursor in cursors])
        except JournalError as error:
            self._tell(str(error))
            return False
        return True

    def _store(self, packs: Sequence[Pack]) -> list[int]:
        """Puts packs into the streams; their cursors."""
        arguments: list[str | bytes | int | float] = [self._generation, self._now_ms(), repr(self._clock())]
        for pack in packs:
            arguments += (pack.kind, pack.records, pack.body)
        keys = self._keys
        reply = self._server.script(APPEND, [keys.meta, keys.packs, keys.kept], arguments)
        cursors = [cursor_of(one) for one in reply[:-1]]
        self._newest = (cursors[-1], int(reply[-1]))
        return cursors

    def _send_waiting(self) -> None:
        """Sends what waits in the spool, for a short while."""
        spool = self._spool
        if spool is None or not self._spooling:
            return
        begun = time.monotonic()
        until = begun + _SEND_SECONDS
        if begun < self._send_at:
            return
        while spool.waiting:
            rows = self._of_spool(lambda: spool.next(_SEND_AT_ONCE)) or []
            if not rows:
                return
            try:
                cursors = self._store([row.pack for row in rows])
            except HistoryChanged:
                raise
            except JournalError as error:
                self._unsent = str(error)
                self._send_at = time.monotonic() + _SEND_AGAIN_SECONDS
                if not self._server.connected():
                    raise
                return  # a server that takes nothing may still be read
            self._unsent = ""
            sent = list(zip(rows, cursors, strict=True))
            self._of_spool(partial(spool.sent, sent, self._generation))
            if time.monotonic() >= until:
                return

    def _of_spool(self, action: Callable[[], _T]) -> _T | None:
        """Does something with the spool; a disk that does not take it must not keep anybody from reading."""
        try:
            return action()
        except JournalError as error:
            self._tell(str(error))
            return None

    # --- reading ---

    def read_since(self, cursor: int, limit: int = 256) -> list[Entry]:
        """See Journal.read_since."""
        cursor = max(cursor, 0)
        with self._working():
            self._send_waiting()
            self._housekeep()
            if limit <= 0:
                return []
            meta, reply = self._server.run(
                ("HMGET", self._keys.meta, "generation", "ms", "seq"),
                ("XRANGE", self._keys.packs, "(" + id_of(cursor), "+", "COUNT", limit),
            )
            last = self._checked_last(meta)
            found = entries_of(reply)
            if found:
                if self._number_of(cursor) != found[0].number - 1:
                    found = self._bridged(cursor, found, limit)
            elif cursor < last:
                found = self._bridged(cursor, found, limit)
            for entry in found:
                self._numbers[entry.cursor] = entry.number
            while len(self._numbers) > _CURSORS_KNOWN:
                self._numbers.popitem(last=False)
            if found and found[-1].cursor > self._newest[0]:
                self._newest = (found[-1].cursor, found[-1].number)
            return [Entry(entry.cursor, entry.kind, entry.records, entry.body) for entry in found]

    def _number_of(self, cursor: int) -> int | None:
        """The running number at a cursor that was read; looks it up when it was read by somebody else."""
        if cursor == 0:
            return 0
        known = self._numbers.get(cursor)
        if known is None:
            at = id_of(cursor)
            replies = self._server.run(
                ("XRANGE", self._keys.packs, at, at), ("XRANGE", self._keys.kept, at, at)
            )
            known = next((entry.number for reply in replies for entry in entries_of(reply)), None)
            if known is not None:
                self._numbers[cursor] = known
        return known

    def _bridged(self, cursor: int, found: list[Stored], limit: int) -> list[Stored]:
        """What follows `cursor` where packs were removed: first what the second stream still has of them."""
        end = "(" + id_of(found[0].cursor) if found else "+"
        reply, pruned = self._server.run(
            ("XRANGE", self._keys.kept, "(" + id_of(cursor), end, "COUNT", limit),
            ("HGET", self._keys.meta, "pruned_number"),
        )
        found = (entries_of(reply) + found)[:limit]
        number = self._number_of(cursor)
        if number is not None:
            missed = 0
            for entry in found:
                missed += max(entry.number - 1 - max(number, int(pruned or 0)), 0)
                number = entry.number
            self._note_missed(missed)
        return found

    def _note_missed(self, packs: int) -> None:
        if packs <= 0:
            return
        self._missed += packs
        self._told = {text: until for text, until in self._told.items() if not text.endswith(_MISSED)}
        self._tell(
            f"{self.where}: {self._missed} packs of ordinary calls were removed from "
            f"{self._keys.packs}{_MISSED}"
        )

    def last(self) -> int:
        """See Journal.last."""
        with self._working():
            self._send_waiting()
            return self._last()

    def _last(self) -> int:
        (meta,) = self._server.run(("HMGET", self._keys.meta, "generation", "ms", "seq"))
        return self._checked_last(meta)

    def first(self) -> int:
        """See Journal.first."""
        with self._working():
            meta, reply = self._server.run(
                ("HMGET", self._keys.meta, "pruned", "pruned_number", "number", "ms", "seq"),
                ("XRANGE", self._keys.packs, "-", "+", "COUNT", 1),
            )
            pruned, number, newest = (int(value or 0) for value in meta[:3])
            oldest = entries_of(reply)
            before = oldest[0].number - 1 if oldest else newest
            if before <= number:
                return pruned
            return oldest[0].cursor - 1 if oldest else _cursor(meta[3], meta[4])

    # --- keeping house ---

    def prune(self, *, calls_before: float, findings_before: float, upto: int) -> int:
        """See Journal.prune. Refuses to remove, and so to sign, what was altered."""
        with self._working():
            self._seal()
            pruner = Pruner(self._server, self._keys, self._key, self._generation)
            try:
                return pruner.prune(calls_before, min(findings_before, calls_before), upto)
            except TamperedError as error:
                raise JournalError(
                    f"{self.where}: {error}; nothing is removed any more, so that it can be looked into: run "
                    "tool-firewall verify"
                ) from error

    def tidy(self) -> None:
        """Seals what was stored since the last time: see redis_seals.py."""
        with self._working():
            self._send_waiting()
            self._seal()

    def _seal(self) -> None:
        until = time.monotonic() + _SEAL_SECONDS
        before = self._last_seal()
        while True:
            entries = self._packs_between(before.upto, None, SEAL_PACKS)
            if not entries:
                return
            try:
                made = make_seal(self._key, before, entries)
            except ValueError as error:
                raise JournalError(
                    f"{self.where}: a pack after cursor {before.upto} is damaged and cannot be sealed "
                    f"({error}); run tool-firewall verify"
                ) from error
            put = self._server.script(
                SEAL,
                [self._keys.meta, self._keys.seals],
                [self._generation, before.upto, made.upto, made.encoded()],
            )
            if not put or len(entries) < SEAL_PACKS or time.monotonic() >= until:
                return  # nothing more, another worker seals as well, or the rest the next time
            before = made

    def _last_seal(self) -> Seal:
        (found,) = self._server.run(("ZREVRANGE", self._keys.seals, 0, 0))
        if not found:
            return first_seal(self._key)
        try:
            return Seal.parsed(found[0])
        except TamperedError as error:
            raise JournalError(f"{self.where}: {error}; run tool-firewall verify") from error

    def _packs_between(self, after: int, upto: int | None, limit: int | None = None) -> list[Stored]:
        return stream_between(self._server, self._keys.packs, after, upto, limit)

    def anchor(self) -> Anchor:
        """See Journal.anchor. Of the newest seal."""
        with self._working():
            seal = self._last_seal()
            return Anchor(seal.upto, seal.tail if seal.upto else "")

    def verify(
        self, anchors: Sequence[Anchor] = (), progress: Callable[[int, int], None] | None = None
    ) -> Verified:
        """See Journal.verify. What was stored within the last second or two may not be sealed yet."""
        with self._working():
            last = self._last()
        with self._patiently() as server:

            def unchanged(seal: bytes) -> bool:
                return server.run(("ZSCORE", self._keys.seals, seal))[0] is not None

            def seals(after: int, limit: int) -> list[bytes]:
                (found,) = server.run(
                    ("ZRANGEBYSCORE", self._keys.seals, f"({after}", "+inf", "LIMIT", 0, limit)
                )
                return list(found)

            return Verification(
                self._key,
                anchors,
                seals=seals,
                packs=lambda after, upto: stream_between(server, self._keys.packs, after, upto),
                kept=lambda after, upto: stream_between(server, self._keys.kept, after, upto),
                unchanged=unchanged,
                last=last,
            ).run(progress)

    def size(self) -> int:
        """See Journal.size."""
        with self._working():
            keys = (self._keys.packs, self._keys.kept, self._keys.seals)
            try:
                found = self._server.run(*(("MEMORY", "USAGE", key) for key in keys))
            except JournalError:
                if self._server.connected():
                    return 0  # this user may not ask
                raise
            return sum(int(one or 0) for one in found)

    # --- snapshots ---

    def save_snapshot(self, cursor: int, body: bytes) -> None:
        """See Journal.save_snapshot."""
        with self._patiently() as server, self._history():
            save_snapshot(server, self._keys, self._generation, cursor, body, self._clock())

    def snapshots(self) -> list[SnapshotInfo]:
        """See Journal.snapshots."""
        with self._working():
            return all_snapshots(self._server, self._keys, self._generation)

    def load_snapshot(self, cursor: int) -> bytes:
        """See Journal.load_snapshot."""
        with self._patiently() as server:
            return load_snapshot(server, self._keys, self._generation, cursor)

    # --- workers ---

    def lead(self, worker: str, seconds: float) -> bool:
        """See Journal.lead. By the server's clock."""
        with self._working():
            arguments: list[str | bytes | int | float] = [worker, int(seconds * 1000), self._now_ms()]
            return bool(self._server.script(LEAD, [self._keys.lead], arguments))

    def beat(self, worker: str, body: Mapping[str, Any]) -> None:
        """See Journal.beat."""
        text = json.dumps(dict(body), allow_nan=False)
        now = self._clock()
        with self._working():
            keys = [self._keys.workers, self._keys.seen, self._keys.left]
            self._server.script(BEAT, keys, [worker, repr(now), text, repr(now - FORGET_SECONDS)])

    def leave(self, worker: str) -> None:
        """See Journal.leave."""
        with self._working():
            self._send_waiting()
            self._server.script(LEAVE, [self._keys.workers, self._keys.left, self._keys.lead], [worker])

    def workers(self) -> list[Worker]:
        """See Journal.workers."""
        with self._working():
            flat, seen, left = self._server.run(
                ("HGETALL", self._keys.workers),
                ("ZRANGE", self._keys.seen, 0, -1, "WITHSCORES"),
                ("SMEMBERS", self._keys.left),
            )
        times = dict(zip(seen[::2], seen[1::2], strict=True))
        gone = set(left)
        try:
            found = [
                Worker(text_of(name), float(times.get(name, 0)), json.loads(body), name in gone)
                for name, body in zip(flat[::2], flat[1::2], strict=True)
            ]
        except ValueError as error:
            raise JournalError(
                f"{self.where}: a heartbeat in {self._keys.workers} is not JSON ({error})"
            ) from error
        return sorted(found, key=lambda worker: (-worker.seen, worker.name))

    # --- losing and healing ---

    def heal(self, cursor: int) -> int:
        """See Journal.heal. Begins a new history where the server has none; else goes back to what it has."""
        with self._entered():
            self._server.ready()
            generation = self._begin(create=self._create)
            self._server.fresh = False
            if generation != self._generation:
                self._generation = generation
                self._numbers.clear()
                self._newest = (0, 0)
                cursor = 0
            else:
                self._newest = (0, 0)
                cursor = self._common(cursor)
                self._newest = (cursor, self._numbers.get(cursor, 0))
            if self._lost:
                now = time.monotonic()
                self._healed_at = now
                self._audits = {True: (now + _RESENT_SECONDS, 0), False: (now + _ADOPT_SECONDS, 0)}
            self._lost = ""
            return cursor

    def _common(self, cursor: int) -> int:
        """The newest cursor up to `cursor` that the server still has of what was read here.

        What a server loses is the end of its history: so a search by halves finds it.
        """
        read = sorted(one for one in self._numbers if one <= cursor)
        if not read:
            return min(cursor, self._last())
        low, high = 0, len(read)  # read[:low] are there, read[high:] are not
        while low < high:
            middle = (low + high) // 2
            if self._has(read[middle], self._numbers[read[middle]]):
                low = middle + 1
            else:
                high = middle
        for lost in read[low:]:
            del self._numbers[lost]
        if low:
            return read[low - 1]
        (reply,) = self._server.run(("XREVRANGE", self._keys.packs, id_of(read[0]), "-", "COUNT", 1))
        found = entries_of(reply)
        return found[0].cursor if found else 0

    def _has(self, cursor: int, number: int) -> bool:
        """Whether the server has this pack, or had it and removed it since."""
        at = id_of(cursor)
        reply, oldest, pruned = self._server.run(
            ("XRANGE", self._keys.packs, at, at),
            ("XRANGE", self._keys.packs, "-", "+", "COUNT", 1),
            ("HGET", self._keys.meta, "pruned"),
        )
        found = entries_of(reply)
        if found:
            return found[0].number == number
        first = entries_of(oldest)
        return cursor <= int(pruned or 0) or bool(
            first and first[0].cursor > cursor and first[0].number > number
        )

    def _housekeep(self) -> None:
        """What every worker does now and then, for the server and for its host's spool."""
        now = time.monotonic()
        if not self._is_due("housekeeping", _HOUSEKEEPING_SECONDS):
            return
        self._state.look_when_due()
        spool = self._spool
        if spool is None or not self._spooling:
            return
        if now - self._reached_at > _ADOPT_SECONDS / 2 and self._is_due("adopt", _ADOPT_SECONDS):
            self._of_spool(lambda: spool.adopt(_ADOPT_SECONDS))
        if self._is_due("clean", _CLEAN_SECONDS):
            self._of_spool(spool.clean)
        for mine, (due, after) in list(self._audits.items()):
            if now >= due:
                self._audit(spool, after, mine=mine)

    def _audit(self, spool: Spool, after: int, *, mine: bool) -> None:
        """Finds what the server once had of this host and has no longer, to send it again."""
        rows = self._of_spool(lambda: spool.remembered(after, _AUDIT_SLICE, mine=mine)) or []
        replies = (
            self._server.run(*(("XRANGE", self._keys.kept, *[id_of(row.cursor)] * 2) for row in rows))
            if rows
            else []
        )
        missing = [
            row.id
            for row, reply in zip(rows, replies, strict=True)
            if row.generation != self._generation
            or not any(one.body == row.body for one in entries_of(reply))
        ]
        if missing:
            self._of_spool(lambda: spool.send_again(missing))
            self._tell(f"{self.where}: the server had lost findings or control records; they were sent again")
        if len(rows) < _AUDIT_SLICE:
            self._audits.pop(mine)
        else:
            self._audits[mine] = (0.0, rows[-1].id)

    def _is_due(self, what: str, seconds: float) -> bool:
        now = time.monotonic()
        if now < self._due[what]:
            return False
        self._due[what] = now + seconds
        return True

    def _tell(self, text: str) -> None:
        self._told[text] = time.monotonic() + _NOTE_SECONDS
        while len(self._told) > _MOST_NOTES:
            self._told.pop(next(iter(self._told)))

    def _lose(self, what: str) -> JournalLost:
        """Notes that heal() is needed; what to raise."""
        self._lost = f"{self.where}: {what}"
        return JournalLost(self._lost)

    def _check_lost(self) -> None:
        if self._lost:
            raise JournalLost(self._lost)

    def _checked_last(self, meta: Sequence[bytes | None]) -> int:
        """The newest cursor, from generation, ms and seq. JournalLost when the history is another one."""
        if text_of(meta[0]) != self._generation:
            raise self._lose(_ANOTHER_HISTORY if meta[0] else _EMPTY)
        last = _cursor(meta[1], meta[2])
        if last < self._newest[0]:
            raise self._lose(_REWOUND)
        return last

    # --- the connection ---

    def _reach(self) -> None:
        """Connects when needed, and looks at what is behind a new connection."""
        self._server.ready()
        if not self._server.fresh:
            return
        generation = self._begin(create=self._create and not self._generation)
        if self._generation and generation != self._generation:
            raise self._lose(_ANOTHER_HISTORY)
        self._generation = generation
        if self._newest[0] and not self._has(*self._newest):
            raise self._lose(_REWOUND)
        self._server.fresh = False
        self._reached_at = time.monotonic()
        self._state.look()

    def _begin(self, *, create: bool) -> str:
        """The generation at the server; begins one where there is none, if create. Raises JournalError."""
        keys, made = self._keys, secrets.token_hex(8)
        streams = (keys.packs, keys.kept, keys.seals)
        names = [keys.meta, *streams, *(keys.aside(key, made) for key in streams)]
        found = self._server.script(
            BEGIN, names, [made, self._key.fingerprint, FORMAT, "1" if create else "0"]
        )
        generation, fingerprint, version = (text_of(one) for one in found[:3])
        if not generation:
            if self._generation:
                raise self._lose(_EMPTY)
            raise JournalError(
                f"{self.where}: there is no journal yet; it is made when the gateway starts with the plugin"
            )
        if found[3]:
            self._tell(
                f"{self.where}: {keys.meta} was missing, so nobody could say what the streams were; they are "
                f"set aside as {keys.aside(keys.packs, made)} and the like"
            )
        problem = ""
        if version != FORMAT:
            problem = f"its format is {version}, of a newer release; this one knows {FORMAT}"
        elif fingerprint != self._key.fingerprint:
            problem = _OTHER_KEY
        if problem:
            error = JournalError(f"{self.where}: {problem}")
            self._server.blame(error)
            raise error
        return generation

    @contextmanager
    def _entered(self) -> Iterator[None]:
        if os.getpid() != self._pid:
            raise JournalError(
                f"{self.where}: made by process {self._pid}, used by {os.getpid()} after a fork; open another"
            )
        with self._lock:
            if self._closed:
                raise JournalError(f"{self.where}: it was closed; open it again")
            yield

    @contextmanager
    def _history(self) -> Iterator[None]:
        try:
            yield
        except HistoryChanged as error:
            raise self._lose(_ANOTHER_HISTORY) from error

    @contextmanager
    def _working(self) -> Iterator[None]:
        with self._entered(), self._history():
            self._check_lost()
            self._reach()
            yield

    @contextmanager
    def _patiently(self) -> Iterator[Server]:
        """A connection of its own that waits for long answers."""
        with self._entered():
            self._check_lost()
            server = Server(self._options, seconds=_PATIENT_SECONDS, patient=True)
            try:
                yield server
            finally:
                server.close()

    def _now_ms(self) -> str:
        return "" if self._server_clock is None else str(int(self._server_clock() * 1000))

    def suspend(self) -> None:
        """See Journal.suspend."""
        with self._entered():
            self._let_go()

    def close(self) -> None:
        """See Journal.close. In a forked child it does nothing: the connections are the parent's."""
        if os.getpid() != self._pid:
            return
        with self._lock:
            self._let_go()
            self._closed = True

    def _let_go(self) -> None:
        self._server.close()
        if self._spool is not None:
            self._spool.close()


_MISSED: Final = (
    " before they were read here, by another program or by eviction; findings and control records were read "
    "from the second stream. Scores may be off until the next restart"
)


def _cursor(ms: bytes | None, seq: bytes | None) -> int:
    return cursor_of(b"%s-%s" % (ms, seq)) if ms and seq else 0
