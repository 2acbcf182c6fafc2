# SPDX-License-Identifier: Apache-2.0
"""Whoever changes a stored journal is found out: a thousand ways of doing it, and what pruning may do."""

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import pytest
from cpex_tool_firewall._native import Engine, encode_control, pack
from cpex_tool_firewall.journal.interface import Anchor, JournalError, Kind, Pack
from cpex_tool_firewall.journal.sqlite import SqliteJournal

KEY = bytes(range(32))
DAY = 86_400.0
NOW = 1_780_000_000.0
TAMPERS = int(os.environ.get("TOOL_FIREWALL_TAMPERS", "1000"))


class Clock:
    """The host's clock: what is stored when."""

    now = NOW

    def __call__(self) -> float:
        return self.now


def fill(folder: Path, *, days: int = 100) -> SqliteJournal:
    """Some packs a day, a finding every third day, a change of mode every tenth."""
    clock = Clock()
    journal = SqliteJournal(folder, KEY, clock=clock)
    engine = Engine(KEY, worker=7, journaling=True)
    caller, policy = engine.caller("t", "alice"), engine.policy()
    for day in range(days):
        clock.now = NOW - (days - day) * DAY
        for n in range(3):
            for _ in range(2):
                verdict = engine.check(policy, caller, "s", "query", {}, clock.now + n * 3600)
                engine.observe(verdict.ticket, "ok", clock.now + n * 3600)
            journal.append([Pack(*made) for made in engine.drain(100)])
        if day % 3 == 0:
            engine.check(policy, caller, "s", "odd", object(), clock.now + 7200)  # cannot be inspected
            journal.append([Pack(*made) for made in engine.drain(100)])
        if day % 10 == 0:
            engine.note("clock", "+61", clock.now)
            journal.append([Pack(*made) for made in engine.drain(100)])
    clock.now = NOW
    return journal


def prune(journal: SqliteJournal, *, now: float = NOW, upto: int | None = None) -> int:
    """Everything that is due by `now`; how many records."""
    limit = journal.last() if upto is None else upto
    removed = 0
    while some := journal.prune(calls_before=now - 14 * DAY, findings_before=now - 90 * DAY, upto=limit):
        removed += some
    return removed


def kinds(journal: SqliteJournal) -> dict[Kind, int]:
    entries = journal.read_since(0, 100_000)
    return {kind: sum(entry.kind == kind for entry in entries) for kind in Kind}


# --- pruning ---


def test_an_untouched_journal_is_whole(tmp_path: Path) -> None:
    journal = fill(tmp_path)
    seen: list[tuple[int, int]] = []
    found = journal.verify(progress=lambda done, total: seen.append((done, total)))
    assert found.problem == ""
    assert found.records == sum(entry.records for entry in journal.read_since(0, 100_000))
    assert (found.first, found.last, found.pruned) == (1, journal.last(), 0)
    assert found.digest == journal.anchor().digest
    assert seen[-1] == (journal.last(), journal.last())


def test_pruning_removes_what_is_due_and_stays_whole(tmp_path: Path) -> None:
    journal = fill(tmp_path)
    before = kinds(journal)
    removed = prune(journal)
    after = kinds(journal)
    old = [entry for entry in journal.read_since(0, 100_000) if entry.cursor <= journal.first()]
    assert removed > 0
    assert Kind.ORDINARY not in {entry.kind for entry in old}
    assert after[Kind.CONTROL] == before[Kind.CONTROL]
    assert 0 < after[Kind.FINDING] < before[Kind.FINDING]
    assert 0 < after[Kind.ORDINARY] < before[Kind.ORDINARY]
    found = journal.verify()
    assert (found.problem, found.pruned) == ("", removed)


def test_pruning_again_later_takes_the_rest(tmp_path: Path) -> None:
    journal = fill(tmp_path)
    prune(journal)
    for days in (10, 50, 120):
        prune(journal, now=NOW + days * DAY)
        assert journal.verify().problem == ""
    assert kinds(journal)[Kind.ORDINARY] == kinds(journal)[Kind.FINDING] == 0
    assert kinds(journal)[Kind.CONTROL] == 10
    connection = apsw.Connection(str(tmp_path / "journal.db"))
    assert connection.execute("SELECT count(*) FROM checkpoints").get <= 5


def test_nothing_beyond_the_given_cursor_is_pruned(tmp_path: Path) -> None:
    journal = fill(tmp_path)
    prune(journal, upto=50)
    assert journal.first() <= 50
    assert [entry.cursor for entry in journal.read_since(50, 100_000)] == list(range(51, journal.last() + 1))


def test_what_is_stored_after_everything_was_pruned_follows_on(tmp_path: Path) -> None:
    journal = fill(tmp_path, days=5)
    while journal.prune(calls_before=NOW, findings_before=NOW, upto=journal.last()):
        pass
    record = encode_control(
        ts=1, worker=9, seq=1, action="mode", tenant="", tool="", user="", value="warn", by="root", why=""
    )
    last = journal.last()
    assert journal.append([Pack(*made) for made in pack([record])]) == last + 1
    assert journal.verify().problem == ""


# --- tampering ---

Tamper = Callable[[apsw.Connection, random.Random], Any]


def any_row(connection: apsw.Connection, chance: random.Random) -> int:
    rows = [row[0] for row in connection.execute("SELECT id FROM packs")]
    return int(chance.choice(rows))


def flip(column: str) -> Tamper:
    def tamper(connection: apsw.Connection, chance: random.Random) -> None:
        row = any_row(connection, chance)
        value = bytearray(connection.execute(f"SELECT {column} FROM packs WHERE id = ?", (row,)).get)
        at = chance.randrange(len(value))
        value[at] ^= 1 << chance.randrange(8)
        connection.execute(f"UPDATE packs SET {column} = ? WHERE id = ?", (bytes(value), row))

    return tamper


def change(column: str, change_to: str) -> Tamper:
    def tamper(connection: apsw.Connection, chance: random.Random) -> None:
        row = any_row(connection, chance)
        connection.execute(f"UPDATE packs SET {column} = {change_to} WHERE id = ?", (row,))

    return tamper


def remove(connection: apsw.Connection, chance: random.Random) -> None:
    connection.execute("DELETE FROM packs WHERE id = ?", (any_row(connection, chance),))


def remove_range(connection: apsw.Connection, chance: random.Random) -> None:
    row = any_row(connection, chance)
    connection.execute("DELETE FROM packs WHERE id BETWEEN ? AND ?", (row, row + chance.randrange(20)))


def swap(connection: apsw.Connection, chance: random.Random) -> None:
    one, other = any_row(connection, chance), any_row(connection, chance)
    if one == other:
        other = connection.execute("SELECT min(id) FROM packs WHERE id <> ?", (one,)).get
    rows = {
        row[0]: row[1:]
        for row in connection.execute(
            "SELECT id, at, kind, records, body, digests FROM packs WHERE id IN (?, ?)", (one, other)
        )
    }
    for to, of in ((one, other), (other, one)):
        connection.execute(
            "UPDATE packs SET at = ?, kind = ?, records = ?, body = ?, digests = ? WHERE id = ?",
            (*rows[of], to),
        )


def copy_to_the_end(connection: apsw.Connection, chance: random.Random) -> None:
    connection.execute(
        "INSERT INTO packs (at, kind, records, body, digests)"
        " SELECT at, kind, records, body, digests FROM packs WHERE id = ?",
        (any_row(connection, chance),),
    )


def replace_by_another(connection: apsw.Connection, chance: random.Random) -> None:
    one, other = any_row(connection, chance), any_row(connection, chance)
    body = connection.execute("SELECT body FROM packs WHERE id = ?", (other,)).get
    if body == connection.execute("SELECT body FROM packs WHERE id = ?", (one,)).get:
        body = bytes(body) + bytes(body)
    connection.execute("UPDATE packs SET body = ? WHERE id = ?", (body, one))


def insert_into_the_pruned(connection: apsw.Connection, chance: random.Random) -> None:
    free = connection.execute(
        "SELECT min(id) + 1 FROM packs p WHERE NOT EXISTS (SELECT 1 FROM packs WHERE id = p.id + 1)"
    ).get
    connection.execute(
        "INSERT INTO packs SELECT ?, at, kind, records, body, digests FROM packs WHERE id = ?",
        (free, any_row(connection, chance)),
    )


def forge_checkpoint(column: str, change_to: str) -> Tamper:
    def tamper(connection: apsw.Connection, chance: random.Random) -> None:
        connection.execute(
            f"UPDATE checkpoints SET {column} = {change_to} WHERE upto = (SELECT min(upto) FROM checkpoints)"
        )

    return tamper


def remove_checkpoint(connection: apsw.Connection, chance: random.Random) -> None:
    connection.execute("DELETE FROM checkpoints WHERE upto = (SELECT max(upto) FROM checkpoints)")


def prune_by_hand(connection: apsw.Connection, chance: random.Random) -> None:
    row = any_row(connection, chance)
    connection.execute("DELETE FROM packs WHERE id = ?", (row,))
    connection.execute(
        "INSERT OR REPLACE INTO checkpoints"
        " SELECT ?, ?, why, 1, 0, tail, fold, NULL, NULL, seal FROM checkpoints LIMIT 1",
        (row, row - 1),
    )


def cut_off(connection: apsw.Connection, chance: random.Random) -> None:
    last = connection.execute("SELECT max(id) FROM packs").get - chance.randrange(1, 30)
    connection.execute("DELETE FROM packs WHERE id > ?", (last,))
    connection.execute("UPDATE sqlite_sequence SET seq = ? WHERE name = 'packs'", (last,))


TAMPER: dict[str, Tamper] = {
    "a bit of a record": flip("body"),
    "a bit of a digest": flip("digests"),
    "a record made text": change("body", "substr(body, 1, 60) || x'00' || substr(body, 62)"),
    "a record made nothing": change("body", "''"),
    "a time made text": change("at", "'soon'"),
    "when it was stored": change("at", "at - 864000"),
    "its kind": change("kind", "(kind + 1) % 3"),
    "its number": change("records", "records + 1"),
    "one removed": remove,
    "several removed": remove_range,
    "two swapped": swap,
    "one repeated at the end": copy_to_the_end,
    "one replaced by another": replace_by_another,
    "one put where others were pruned": insert_into_the_pruned,
    "a note about pruning: removed": forge_checkpoint("removed", "removed + 1"),
    "a note about pruning: upto": forge_checkpoint("upto", "upto + 1"),
    "a note about pruning: fold": forge_checkpoint("fold", "zeroblob(16)"),
    "a note about pruning: tail": forge_checkpoint("tail", "zeroblob(16)"),
    "no note about pruning": remove_checkpoint,
    "pruned by hand": prune_by_hand,
    "the end cut off": cut_off,
}


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Anchor]:
    """A pruned journal, closed, and the anchor somebody kept."""
    folder = tmp_path_factory.mktemp("stored")
    journal = fill(folder)
    prune(journal)
    assert journal.verify().problem == ""
    anchor = journal.anchor()
    journal.close()
    return folder, anchor


def tampered(stored: Path, folder: Path, tamper: Tamper, chance: random.Random) -> SqliteJournal:
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(stored, folder)
    connection = apsw.Connection(str(folder / "journal.db"))
    with connection:
        tamper(connection, chance)
    connection.close()
    return SqliteJournal(folder, KEY)


def test_every_tamper_is_found(stored: tuple[Path, Anchor], tmp_path: Path) -> None:
    folder, anchor = stored
    chance = random.Random(18)
    names = list(TAMPER)
    missed = []
    for number in range(TAMPERS):
        name = names[number % len(names)]
        journal = tampered(folder, tmp_path / "copy", TAMPER[name], chance)
        if journal.verify([anchor]).problem == "":
            missed.append(name)
        journal.close()
    assert missed == []


def test_an_older_copy_is_found_by_its_anchor(tmp_path: Path) -> None:
    (tmp_path / "now").mkdir()
    journal = fill(tmp_path / "now", days=5)
    journal.close()
    shutil.copytree(tmp_path / "now", tmp_path / "backup")
    journal = SqliteJournal(tmp_path / "now", KEY)
    record = encode_control(
        ts=1, worker=9, seq=1, action="mode", tenant="", tool="", user="", value="block", by="root", why=""
    )
    journal.append([Pack(*made) for made in pack([record])])
    anchor = journal.anchor()
    journal.close()
    restored = SqliteJournal(tmp_path / "backup", KEY)
    assert restored.verify().problem == ""
    assert f"an anchor knows cursor {anchor.cursor}" in restored.verify([anchor]).problem
    # Going on from there does not hide it.
    record = encode_control(
        ts=2, worker=10, seq=1, action="mode", tenant="", tool="", user="", value="warn", by="root", why=""
    )
    restored.append([Pack(*made) for made in pack([record])])
    assert restored.verify().problem == ""
    assert "an older copy was restored" in restored.verify([anchor]).problem


def test_the_first_problem_is_named(stored: tuple[Path, Anchor], tmp_path: Path) -> None:
    folder, _ = stored
    last = SqliteJournal(folder, KEY).last()

    def alter(connection: apsw.Connection, _: random.Random) -> None:
        for row in (last - 5, last - 2):
            connection.execute("UPDATE packs SET body = zeroblob(length(body)) WHERE id = ?", (row,))

    def take_out(connection: apsw.Connection, _: random.Random) -> None:
        connection.execute("DELETE FROM packs WHERE id IN (?, ?)", (last - 8, last - 7))

    chance = random.Random(1)
    assert (
        f"cursor {last - 5} were altered" in tampered(folder, tmp_path / "a", alter, chance).verify().problem
    )
    problem = tampered(folder, tmp_path / "b", take_out, chance).verify().problem
    assert problem == f"what was stored at cursors {last - 8} to {last - 7} was removed"


def test_pruning_does_not_sign_what_was_altered(tmp_path: Path) -> None:
    journal = fill(tmp_path)
    prune(journal, upto=100)
    connection = apsw.Connection(str(tmp_path / "journal.db"))
    altered = journal.read_since(200, 1)[0].cursor
    connection.execute("UPDATE packs SET at = at - 1000000 WHERE id = ?", (altered,))
    connection.close()
    with pytest.raises(JournalError, match="tool-firewall verify"):
        prune(journal)
    assert journal.read_since(altered - 1, 1)[0].cursor == altered
    assert f"cursor {altered}" in journal.verify().problem


def test_another_key_is_refused(stored: tuple[Path, Anchor]) -> None:
    with pytest.raises(JournalError, match="another key"):
        SqliteJournal(stored[0], bytes(32))
