# SPDX-License-Identifier: Apache-2.0
"""The state folder and the key: where, with which rights, and what is said when something is wrong."""

import os
import re
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cpex_tool_firewall import state
from cpex_tool_firewall.state import StateError, check_folder, digest, find_folder, open_state


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (state.STATE_VARIABLE, state.KEY_VARIABLE, "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize(
    ("setting", "variable", "root", "xdg", "expected"),
    [
        ("/set", "/env", True, None, "/set"),
        (None, "/env", True, None, "/env"),
        ("", "/env", False, "/xdg", "/env"),
        (None, None, True, "/xdg", "/var/lib/cpex-tool-firewall"),
        (None, "", True, None, "/var/lib/cpex-tool-firewall"),
        (None, None, False, "/xdg", "/xdg/cpex-tool-firewall"),
        (None, None, False, "relative", "/home/x/.local/state/cpex-tool-firewall"),
        (None, None, False, None, "/home/x/.local/state/cpex-tool-firewall"),
        ("~/mine", None, False, None, "/home/x/mine"),
    ],
)
def test_where_the_state_is(
    monkeypatch: pytest.MonkeyPatch,
    setting: str | None,
    variable: str | None,
    root: bool,
    xdg: str | None,
    expected: str,
) -> None:
    monkeypatch.setenv("HOME", "/home/x")
    monkeypatch.setattr(os, "geteuid", lambda: 0 if root else 1000)
    for name, value in ((state.STATE_VARIABLE, variable), ("XDG_STATE_HOME", xdg)):
        if value is not None:
            monkeypatch.setenv(name, value)
    assert find_folder(setting) == Path(expected)


def test_a_relative_folder_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StateError, match=r"state: 'here' is not an absolute path"):
        find_folder("here")
    monkeypatch.setenv(state.STATE_VARIABLE, "there")
    with pytest.raises(StateError, match=r"TOOL_FIREWALL_STATE: 'there' is not an absolute path"):
        find_folder()


def test_first_start_makes_a_private_folder_and_key(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        opened = open_state(str(tmp_path / "a" / "state"))
    finally:
        os.umask(old)
    assert opened.folder == tmp_path / "a" / "state"
    assert mode_of(opened.folder) == 0o700
    assert mode_of(opened.folder / "key") == 0o600
    assert [path.name for path in opened.folder.iterdir()] == ["key"]
    assert len(opened.key) == 32
    assert open_state(str(opened.folder)) == opened
    assert open_state(str(opened.folder), create=False).key == opened.key
    assert open_state(str(tmp_path / "b")).key != opened.key


def test_the_key_is_not_in_the_repr(tmp_path: Path) -> None:
    opened = open_state(str(tmp_path / "s"))
    assert repr(opened.key) not in repr(opened)
    assert "key=" not in repr(opened)


def test_workers_that_start_at_once_get_one_key(tmp_path: Path) -> None:
    script = (
        "import sys\nfrom cpex_tool_firewall.state import open_state\n"
        "print(open_state(sys.argv[1]).key.hex())"
    )
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path / "s")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(8)
    ]
    said = [worker.communicate(timeout=20) for worker in workers]
    assert [errors for _, errors in said] == [""] * 8
    assert len({key for key, _ in said}) == 1
    assert [path.name for path in (tmp_path / "s").iterdir()] == ["key"]


def test_the_first_key_stays_when_two_are_made(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    first = open_state(str(folder)).key
    state._make_key(folder / "key")  # a worker that saw no key a moment ago
    assert open_state(str(folder)).key == first
    assert [path.name for path in folder.iterdir()] == ["key"]


def test_a_reader_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(StateError, match=r"absent: there is no state folder.*--state"):
        open_state(str(tmp_path / "absent"), create=False)
    tmp_path.chmod(0o700)
    with pytest.raises(StateError, match=r"key: there is no key"):
        open_state(str(tmp_path), create=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o707, 0o701])
def test_a_folder_others_can_enter_is_refused(tmp_path: Path, mode: int) -> None:
    tmp_path.chmod(mode)
    with pytest.raises(StateError, match=rf"{re.escape(str(tmp_path))}: others.*mode {mode:04o}.*chmod 700"):
        open_state(str(tmp_path))


def test_a_file_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(StateError, match="state: there is a file where a folder should be"):
        open_state(str(tmp_path / "state"))
    with pytest.raises(StateError, match="state: this is not a folder"):
        check_folder(tmp_path / "state")
    with pytest.raises(StateError, match="state: there is a file where a folder should be"):
        open_state(str(tmp_path / "state" / "inner"))


@pytest.mark.skipif(os.geteuid() != 0, reason="root makes a folder here that another user cannot write")
@pytest.mark.parametrize("where", ["owned", "inside"])
def test_an_unwritable_place_is_a_clear_error_for_an_ordinary_user(tmp_path: Path, where: str) -> None:
    for parent in (tmp_path, *tmp_path.parents):
        if parent.stat().st_uid == 0 and not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o011)
    folder = tmp_path / "state"
    folder.mkdir(mode=0o700)
    target = folder if where == "owned" else tmp_path / "new"
    child = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setuid(65534)
        try:
            open_state(str(target))
            said = "opened"
        except StateError as error:
            said = str(error)
        os.write(child[1], said.encode())
        os._exit(0)
    os.waitpid(pid, 0)
    said = os.read(child[0], 4096).decode()
    assert said.startswith(f"{target}: ")
    assert "uid 65534" in said


@pytest.mark.parametrize("length", [0, 16, 31, 33, 64])
def test_a_key_of_another_length_is_refused(tmp_path: Path, length: int) -> None:
    folder = tmp_path / "s"
    open_state(str(folder))
    (folder / "key").write_bytes(b"k" * length)
    with pytest.raises(StateError, match=rf"key: the key has {length} bytes, it must have 32"):
        open_state(str(folder))


def test_a_key_others_can_read_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    open_state(str(folder))
    (folder / "key").chmod(0o640)
    with pytest.raises(StateError, match=r"key: others may read the key \(mode 0640\).*chmod 600"):
        open_state(str(folder))


def test_a_lost_key_is_not_replaced_when_there_is_a_journal(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    first = open_state(str(folder)).key
    (folder / "key").unlink()
    assert open_state(str(folder)).key != first  # nothing was recorded yet: a new key harms nobody
    (folder / "key").unlink()
    (folder / "journal.db").touch()
    with pytest.raises(StateError, match=r"key: the key is missing but there is a journal"):
        open_state(str(folder))
    assert not (folder / "key").exists()


def test_the_key_may_be_kept_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = tmp_path / "mounted-secret"
    monkeypatch.setenv(state.KEY_VARIABLE, str(secret))
    with pytest.raises(StateError, match=r"mounted-secret: there is no key; TOOL_FIREWALL_KEY_FILE names it"):
        open_state(str(tmp_path / "s"))
    secret.write_bytes(bytes(range(32)))
    secret.chmod(0o440)  # as a cluster mounts it for a group
    opened = open_state(str(tmp_path / "s"))
    assert opened.key == bytes(range(32))
    assert list(opened.folder.iterdir()) == []
    secret.chmod(0o444)
    with pytest.raises(StateError, match="others may read the key"):
        open_state(str(tmp_path / "s"))


def test_digests_are_short_keyed_and_accept_any_text() -> None:
    one, two = bytes(32), b"k" * 32
    assert digest(one, "abc") == digest(one, "abc")
    assert len({digest(one, "abc"), digest(two, "abc"), digest(one, "abd"), digest(one, "ABC")}) == 4
    for text in ("", "ü€", "\ud800 lone", "x" * 100_000, "nul\0"):
        assert re.fullmatch("[0-9a-f]{16}", digest(one, text))
