# SPDX-License-Identifier: Apache-2.0
"""The files of the journal are deleted, replaced or damaged while four processes use it.

Whatever is done: everything that was acknowledged is there in the end, all processes go on in one file, and
that is whole.
"""

import random
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from cpex_tool_firewall.journal.interface import JournalLost
from cpex_tool_firewall.journal.sqlite import SqliteJournal
from hammer import KEY, Done, Hammer, numbered, read_all

OLD_PACKS = 400
"""Packs of long ago: nobody stores them again."""


def run(*command: str) -> None:
    """In a process of its own: an open() of the file here would drop this process's locks."""
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A state folder with an older copy of its journal beside it."""
    made = tmp_path / "state"
    made.mkdir(mode=0o700)
    journal = SqliteJournal(made, KEY)
    for n in range(OLD_PACKS):
        journal.append([numbered("old", n * 10, 10)])
        if n == OLD_PACKS // 2:
            journal.copy_to(older(tmp_path))
    journal.close()
    return made


def older(tmp_path: Path) -> Path:
    found = tmp_path / "older"
    found.mkdir(exist_ok=True)
    return found


def delete(*names: str) -> Callable[[Path], None]:
    def harm(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return harm


def move_away(folder: Path) -> None:
    (folder / "journal.db").rename(folder.parent / "elsewhere.db")


def put_an_older_copy(folder: Path) -> None:
    shutil.copy(folder.parent / "older" / "journal.db", folder.parent / "restored.db")
    (folder.parent / "restored.db").rename(folder / "journal.db")


def put_another_journal(folder: Path) -> None:
    another = folder.parent / "another"
    another.mkdir()
    SqliteJournal(another, KEY).close()
    (another / "journal.db").rename(folder / "journal.db")


def put_garbage(folder: Path) -> None:
    (folder.parent / "garbage").write_bytes(b"garbage" * 1000)
    (folder.parent / "garbage").rename(folder / "journal.db")


LOST = {
    "the database deleted": delete("journal.db"),
    "the log deleted": delete("journal.db-wal"),
    "the index deleted": delete("journal.db-shm"),
    "all of them deleted": delete("journal.db", "journal.db-wal", "journal.db-shm"),
    "the database moved": move_away,
    "an older copy put in its place": put_an_older_copy,
    "another journal put in its place": put_another_journal,
    "garbage put in its place": put_garbage,
}


def check_agreement(
    folder: Path, hammers: list[Hammer], overwritten: Mapping[str, set[int]] | None = None
) -> dict[str, set[int]]:
    """Stops them, and checks that all have read the same, all that was acknowledged, from one whole file.
    Returns what is in it. overwritten: what may be missing there.
    """
    for hammer in hammers:
        hammer.ask_to_stop()
    done = [hammer.done() for hammer in hammers]
    journal = SqliteJournal(folder, KEY)
    for its in done:
        assert its.inode == journal.path.stat().st_ino
        assert its.generation == journal.generation
    try:
        there = read_all(journal)
    except JournalLost:  # a page that nobody read meanwhile
        assert journal.heal(0) == 0
        there = read_all(journal)
    for hammer, its in zip(hammers, done, strict=True):
        missing = set(range(its.stored)) - there[hammer.name] - (overwritten or {}).get(hammer.name, set())
        assert not missing, f"{len(missing)} acknowledged calls of {hammer.name} are missing; {its.errors}"
        for other, other_done in zip(hammers, done, strict=True):
            unread = set(range(other_done.stored)) - numbers(its, other.name)
            assert not unread, f"{hammer.name} did not read {len(unread)} calls of {other.name}: {its.errors}"
    assert journal.verify().problem == ""
    journal.close()
    print(
        f"healed {[its.heals for its in done]} times, longest time without a store "
        f"{max(its.longest_gap for its in done):.2f} s, slowest use {max(its.slowest for its in done):.3f} s"
    )
    return there


def numbers(done: Done, name: str) -> set[int]:
    return {number for start, end in done.seen.get(name, []) for number in range(start, end)}


@pytest.mark.parametrize("harm", LOST)
def test_nothing_is_lost_with(harm: str, folder: Path) -> None:
    hammers = [Hammer(folder, name) for name in "abcd"]
    time.sleep(1.0)
    LOST[harm](folder)
    time.sleep(2.5)
    there = check_agreement(folder, hammers)
    assert there["old"] == set(range(OLD_PACKS * 10))


def test_harm_after_harm(folder: Path) -> None:
    chance = random.Random(4)
    hammers = [Hammer(folder, name) for name in "abcd"]
    for _ in range(6):
        time.sleep(chance.uniform(0.5, 2.0))
        LOST[chance.choice(["the database deleted", "the log deleted", "an older copy put in its place"])](
            folder
        )
    time.sleep(2.5)
    there = check_agreement(folder, hammers)
    assert there["old"] == set(range(OLD_PACKS * 10))


# --- overwritten in place: what was on those pages is gone ---


def overwrite(name: str, first: float, count: int) -> Callable[[Path], None]:
    """Random bytes over `count` pages, from the part `first` of the file on."""

    def harm(folder: Path) -> None:
        path = folder / name
        page = int(path.stat().st_size / 4096 * first)
        run(
            "dd", "if=/dev/urandom", f"of={path}", "bs=4096", f"count={count}", f"seek={page}", "conv=notrunc"
        )

    return harm


def truncate(name: str) -> Callable[[Path], None]:
    return lambda folder: run("truncate", "-s", "0", str(folder / name))


def copy_over(folder: Path) -> None:
    run("cp", str(folder.parent / "older" / "journal.db"), str(folder / "journal.db"))


DAMAGE = {
    "a page of the database": overwrite("journal.db", 0.5, 1),
    "many pages of the database": overwrite("journal.db", 0.2, 10),
    "the first page of the database": overwrite("journal.db", 0.0, 1),
    "pages of the log": overwrite("journal.db-wal", 0.1, 20),
    "the log cut to nothing": truncate("journal.db-wal"),
    "the database cut to nothing": truncate("journal.db"),
    "an older copy over it": copy_over,
}


@pytest.mark.parametrize("harm", DAMAGE)
def test_what_is_new_is_there_after(harm: str, folder: Path) -> None:
    hammers = [Hammer(folder, name) for name in "abcd"]
    time.sleep(1.0)
    before = SqliteJournal(folder, KEY)
    stored = read_all(before)
    before.close()
    DAMAGE[harm](folder)
    time.sleep(2.5)
    there = check_agreement(folder, hammers, stored)
    lost = OLD_PACKS * 10 - len(there.get("old", set()))
    print(f"{harm}: {lost} of {OLD_PACKS * 10} old calls lost")
