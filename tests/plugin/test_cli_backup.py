# SPDX-License-Identifier: Apache-2.0
"""`tool-firewall backup`: the copy is a state folder that works, also when others write meanwhile."""

import json
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_support import MONDAY_NOON, Site, heartbeat, run
from cpex_tool_firewall.journal.sqlite import SqliteJournal
from cpex_tool_firewall.snapshotter import make_snapshot
from cpex_tool_firewall.state import State


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path / "state")
    made.habit("alice@example.com")
    made.journal.beat("w", heartbeat(made.settings))
    yield made
    made.close()


def users(folder: Path) -> list[tuple[str, int]]:
    found = run("baseline", "list", "--state", str(folder), "--json")
    assert found.exit_code == 0, found.stderr
    return [(entry["user"], entry["calls"]) for entry in json.loads(found.stdout)]


def test_the_copy_is_a_state_folder(site: Site, tmp_path: Path) -> None:
    make_snapshot(site.settings, site.state, site.journal)
    site.call("alice@example.com", "db_query", MONDAY_NOON + 86_400 * 9)
    target = tmp_path / "deep" / "backup"
    result = run("backup", str(target), "--state", str(site.folder))
    assert result.exit_code == 0, result.stderr
    assert "journal.db" in result.stdout
    assert users(target) == users(site.folder)
    assert stat.S_IMODE(target.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in target.iterdir()} == {0o600}
    copy = SqliteJournal(target, site.state.key)
    assert copy.verify().problem == ""
    assert copy.generation == site.journal.generation
    assert len(copy.snapshots()) == 1
    copy.close()


def test_without_the_key_nothing_opens(site: Site, tmp_path: Path) -> None:
    result = run("backup", str(tmp_path / "b"), "--without-key", "--state", str(site.folder), "--json")
    assert sorted(json.loads(result.stdout)["files"]) == ["journal.db"]
    assert run("status", "--state", str(tmp_path / "b")).exit_code == 1
    (tmp_path / "b" / "key").write_bytes(site.state.key)
    (tmp_path / "b" / "key").chmod(0o600)
    assert users(tmp_path / "b") == users(site.folder)


def test_a_folder_with_something_in_it_is_left_alone(site: Site, tmp_path: Path) -> None:
    target = tmp_path / "used"
    target.mkdir()
    (target / "mine").touch()
    result = run("backup", str(target), "--state", str(site.folder))
    assert result.exit_code == 2
    assert "not empty" in result.stderr
    assert [path.name for path in target.iterdir()] == ["mine"]


def test_others_may_write_meanwhile(site: Site, tmp_path: Path) -> None:
    stop = threading.Event()
    other = SqliteJournal(site.folder, site.state.key)

    def write() -> None:
        while not stop.is_set():
            other.append([], durable=True)
            other.beat("x", {})

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for number in range(3):
            result = run("backup", str(tmp_path / str(number)), "--state", str(site.folder))
            assert result.exit_code == 0, result.stderr
            state = State(tmp_path / str(number), site.state.key)
            copy = SqliteJournal(state.folder, state.key)
            assert copy.verify().problem == ""
            copy.close()
    finally:
        stop.set()
        thread.join()
        other.close()
