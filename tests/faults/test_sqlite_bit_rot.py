# SPDX-License-Identifier: Apache-2.0
"""Single bits of the stored files flip, as disks and memory do it: none changes a record unnoticed, none
makes anything fail but with a JournalError, and whatever it hits, the journal works again after heal().
"""

import random
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cpex_tool_firewall._native import Engine, decode_record, unpack
from cpex_tool_firewall.journal.interface import Anchor, Entry, JournalError, JournalLost, Pack
from cpex_tool_firewall.journal.sqlite import SqliteJournal

KEY = bytes(range(32))
DAY = 86_400.0
NOW = 1_780_000_000.0
FLIPS = 1000
LOG_FLIPS = 200
SEED = 20


class Clock:
    """The host's clock."""

    now = NOW

    def __call__(self) -> float:
        return self.now


@dataclass
class Stored:
    """A journal as it lies on the disk."""

    folder: Path
    entries: list[Entry]
    anchor: Anchor


def fill(journal: SqliteJournal, clock: Clock, days: int) -> None:
    """Calls, findings and controls, some pruned, and heartbeats."""
    engine = Engine(KEY, worker=7, journaling=True)
    caller, policy = engine.caller("t", "alice"), engine.policy()
    for day in range(days):
        clock.now = NOW - (days - day) * DAY
        for n in range(4):
            for _ in range(5):
                verdict = engine.check(policy, caller, "s", f"query {n}", {}, clock.now + n * 3600)
                engine.observe(verdict.ticket, "ok", clock.now + n * 3600)
            journal.append([Pack(*made) for made in engine.drain(100)])
        engine.check(policy, caller, "s", "odd", object(), clock.now + 7200)  # cannot be inspected
        engine.note("clock", "+61", clock.now)
        journal.append([Pack(*made) for made in engine.drain(100)])
        if day == days // 2:
            while journal.prune(calls_before=clock.now, findings_before=0, upto=journal.last()):
                pass
    clock.now = NOW
    journal.beat("one", {"pid": 1})
    journal.lead("one", 10)


def everything(journal: SqliteJournal) -> list[Entry]:
    return journal.read_since(0, 1_000_000)


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> Stored:
    """All of it in the database."""
    folder = tmp_path_factory.mktemp("closed")
    clock = Clock()
    journal = SqliteJournal(folder, KEY, clock=clock)
    fill(journal, clock, 50)
    found = Stored(folder, everything(journal), journal.anchor())
    assert journal.verify([found.anchor]).problem == ""
    journal.close()
    return found


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stored]:
    """Most of it in the log, as a process leaves it that was killed."""
    folder = tmp_path_factory.mktemp("alive")
    clock = Clock()
    journal = SqliteJournal(folder, KEY, clock=clock)
    fill(journal, clock, 10)
    left = tmp_path_factory.mktemp("killed")
    found = Stored(left, everything(journal), journal.anchor())
    # Copied while it is open: closing it would empty the log.
    subprocess.run(["cp", *map(str, folder.glob("journal.db*")), str(left)], check=True)
    yield found
    journal.close()


def readable(entries: list[Entry]) -> bool:
    """What an engine says to them: every record carries its own checksum."""
    try:
        for entry in entries:
            for record in unpack(entry.body):
                decode_record(record)
    except ValueError:
        return False
    return True


def fate(stored: Stored, folder: Path, name: str, bit: int, caplog: pytest.LogCaptureFixture) -> str:
    """What comes of one flipped bit: no effect | noticed ... | SILENT."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(stored.folder, folder)
    body = bytearray((folder / name).read_bytes())
    body[bit // 8] ^= 1 << bit % 8
    (folder / name).write_bytes(body)
    caplog.clear()
    try:
        journal = SqliteJournal(folder, KEY, clock=lambda: NOW)
    except JournalError:
        return "noticed when it was opened"
    try:
        if caplog.records:
            kept = len(set(everything(journal)) & set(stored.entries))
            most = kept > 0.8 * len(stored.entries)
            return "noticed when it was opened, and " + ("saved" if most else "begun anew")
        try:
            entries = everything(journal)
            journal.workers()
            journal.lead("two", 10)
            found = journal.verify([stored.anchor])
            if found.problem:
                return "noticed by verify" + (" and by reading" if not readable(entries) else "")
        except JournalLost:
            return "noticed when it was used"
        except JournalError as error:
            return f"an error: {error}"
        return "no effect" if entries == stored.entries else "SILENT"
    finally:
        goes_on(journal)
        journal.close()


def goes_on(journal: SqliteJournal) -> None:
    """It takes new records, after heal() where that is needed, and is whole when it was saved."""
    made = Pack(0, 1, b"\x04\0\0\0last")
    try:
        journal.beat("two", {})
        cursor = journal.append([made])
    except JournalLost:
        journal.heal(0)
        journal.beat("two", {})
        cursor = journal.append([made])
        assert journal.verify().problem == ""
    assert journal.read_since(cursor - 1)[0].body == made.body


@pytest.mark.parametrize(("name", "flips"), [("journal.db", FLIPS), ("journal.db-wal", LOG_FLIPS)])
def test_no_flipped_bit_changes_anything_unnoticed(
    name: str,
    flips: int,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    stored: Stored = request.getfixturevalue("closed" if name == "journal.db" else "killed")
    chance = random.Random(SEED)
    bits = (stored.folder / name).stat().st_size * 8
    fates = Counter(
        fate(stored, tmp_path / "copy", name, chance.randrange(bits), caplog) for _ in range(flips)
    )
    with capsys.disabled():
        print(f"\n{flips} flips in {name}: " + ", ".join(f"{n} {what}" for what, n in fates.most_common()))
    assert "SILENT" not in fates
    assert not [what for what in fates if what.startswith("an error")]
