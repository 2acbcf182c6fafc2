# SPDX-License-Identifier: Apache-2.0
"""Processes that hammer one journal as workers do, while a test harms its files: FOLDER NAME.

Each appends numbered packs without a pause worth the name, reads everybody's, heals the journal when it is
lost, and then stores again what it stored during the last RESEND_SECONDS. When its standard input closes it
stores what is left, waits until it has read what was there then, and prints what it did as JSON.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
import zlib
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cpex_tool_firewall._native import decode_record, encode_call, pack, unpack
from cpex_tool_firewall.journal.interface import RESEND_SECONDS, JournalError, JournalLost, Pack
from cpex_tool_firewall.journal.sqlite import SqliteJournal

KEY: Final = bytes(range(32))
_PAUSE_SECONDS: Final = 0.01
_RECORDS: Final = 10  # in a pack
_LAST_WORDS_SECONDS: Final = 20.0


def numbered(name: str, start: int, count: int) -> Pack:
    """One pack with the calls start, start + 1, ... of the user NAME."""
    worker = zlib.crc32(name.encode()) + 1
    records = [
        encode_call(ts=1_790_000_000.0 + n, worker=worker, seq=n, tenant="t", user=name, tool="q")
        for n in range(start, start + count)
    ]
    (made,) = pack(records)
    return Pack(*made)


def read_all(journal: SqliteJournal, cursor: int = 0) -> dict[str, set[int]]:
    """The numbers of each user that are in the journal."""
    found: dict[str, set[int]] = {}
    while entries := journal.read_since(cursor, 256):
        for entry in entries:
            _note(found, entry.body)
        cursor = entries[-1].cursor
    return found


def _note(found: dict[str, set[int]], body: bytes) -> None:
    for record in unpack(body):
        try:
            fields = decode_record(record)
        except ValueError:
            continue  # damaged: as the engine does
        found.setdefault(fields["user"], set()).add(fields["seq"])


@dataclass
class Done:
    """What a hammer says at its end."""

    stored: int  # its calls 0 .. stored - 1 were acknowledged
    heals: int
    slowest: float  # s, one use of the journal, heal() apart
    longest_gap: float  # s between two appends that worked
    generation: str
    inode: int
    cursor: int
    seen: dict[str, list[tuple[int, int]]]  # by user: ranges of numbers it has read
    errors: list[str]


class Hammer:
    """One running process."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(folder), name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "up\n", self._process.communicate()[1]

    def ask_to_stop(self) -> None:
        """Tells it to end as it should."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.stdin = None

    def done(self) -> Done:
        """What it did, when it has ended."""
        said, wrong = self._process.communicate(timeout=90)
        assert self._process.returncode == 0, wrong
        return Done(**json.loads(said))

    def kill(self) -> None:
        """SIGKILL."""
        self._process.kill()
        self._process.communicate()


class _Worker:
    def __init__(self, folder: Path, name: str) -> None:
        self.journal = SqliteJournal(folder, KEY)
        self.name = name
        self.cursor = 0
        self.seen: dict[str, set[int]] = {}
        self.made = 0
        self.done = Done(0, 0, 0.0, 0.0, "", 0, 0, {}, [])
        self.lost = False
        self._pending: deque[Pack] = deque()
        self._stored: deque[tuple[float, Pack]] = deque()
        self._worked = time.monotonic()

    def turn(self) -> None:
        """One round, as the journal thread of a worker does it."""
        if not self._pending:
            self._pending.append(numbered(self.name, self.made, _RECORDS))
            self.made += _RECORDS
        self._try(self._store)
        self._try(self._read)

    def _try(self, step: Any) -> None:
        begun = time.monotonic()
        try:
            if self.lost:
                self.cursor = self.journal.heal(self.cursor)
                self.lost = False
                self.done.heals += 1
                self._pending.extendleft(pack for _, pack in reversed(self._stored))
                self._stored.clear()
                begun = time.monotonic()
            step()
        except JournalLost as error:
            self.lost = True
            self._say(error)
        except JournalError as error:
            self._say(error)
        self.done.slowest = max(self.done.slowest, time.monotonic() - begun)

    def _say(self, error: JournalError) -> None:
        if str(error) not in self.done.errors and len(self.done.errors) < 20:
            self.done.errors.append(str(error))

    def _store(self) -> None:
        while self._pending:
            batch = list(self._pending)[:100]
            self.journal.append(batch, durable=self.made // _RECORDS % 10 == 9)
            now = time.monotonic()
            self.done.longest_gap = max(self.done.longest_gap, now - self._worked)
            self._worked = now
            for _ in batch:
                self._stored.append((now, self._pending.popleft()))
            while self._stored[0][0] < now - RESEND_SECONDS:
                self._stored.popleft()
        self.done.stored = self.made

    def _read(self) -> None:
        while entries := self.journal.read_since(self.cursor):
            for entry in entries:
                _note(self.seen, entry.body)
            self.cursor = entries[-1].cursor

    def finish(self) -> Done:
        """Stores what is left, and reads until nothing new comes."""
        until = time.monotonic() + _LAST_WORDS_SECONDS
        quiet = 0
        while quiet < 150 and time.monotonic() < until:  # 1.5 s: longer than files are left unwatched
            before = self.cursor
            self._try(self._store)
            self._try(self._read)
            quiet = 0 if self.cursor != before or self.lost or self._pending else quiet + 1
            time.sleep(0.01)
        self.done.generation = self.journal.generation
        self.done.inode = self.journal.path.stat().st_ino
        self.done.cursor = self.cursor
        self.done.seen = {name: _ranges(numbers) for name, numbers in self.seen.items()}
        self.journal.close()
        return self.done


def _ranges(numbers: set[int]) -> list[tuple[int, int]]:
    ranges: list[tuple[int, int]] = []
    for number in sorted(numbers):
        if ranges and number == ranges[-1][1]:
            ranges[-1] = (ranges[-1][0], number + 1)
        else:
            ranges.append((number, number + 1))
    return ranges


def main() -> None:
    """See above."""
    folder, name = Path(sys.argv[1]), sys.argv[2]
    worker = _Worker(folder, name)
    worker.turn()
    print("up", flush=True)
    while not select.select([sys.stdin], [], [], _PAUSE_SECONDS)[0]:
        worker.turn()
    done = worker.finish()
    print(json.dumps(vars(done)))


if __name__ == "__main__":
    os.nice(5)
    main()
