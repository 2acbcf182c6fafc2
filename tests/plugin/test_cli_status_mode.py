# SPDX-License-Identifier: Apache-2.0
"""`tool-firewall status` and `mode`: what they show, what they change, and whether the workers follow."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_support import DAY, MONDAY_NOON, Site, heartbeat, run, worker
from cpex_tool_firewall.cli import status as status_module
from cpex_tool_firewall.config import load


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path / "state")
    yield made
    made.close()


def status(site: Site) -> dict:
    result = run("status", "--state", str(site.folder), "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_version_and_help_name_every_command() -> None:
    assert run("--version").stdout.startswith("tool-firewall 0.")
    text = run("--help").stdout
    for command in ("status", "mode", "baseline", "replay", "doctor", "Example:"):
        assert command in text


@pytest.mark.parametrize(
    "command",
    [
        *(
            ["status"],
            ["mode"],
            ["baseline"],
            ["baseline", "list"],
            ["baseline", "show"],
            ["replay"],
            ["doctor"],
        ),
        *(["feed"], ["finding"], ["finding", "show"], ["events"], ["runs"]),
        *(["snooze"], ["suppress"], ["news"], ["accept"], ["reject"]),
    ],
)
def test_every_help_has_an_example(command: list[str]) -> None:
    result = run(*command, "--help")
    assert result.exit_code == 0
    assert "Example:\n" in result.stdout
    assert "tool-firewall " + " ".join(command) in result.stdout


@pytest.mark.parametrize(
    "command",
    [
        *(["status"], ["mode"], ["mode", "block"], ["baseline", "list"], ["baseline", "show", "x"]),
        *(["feed"], ["finding", "show", "tf-0123456789ab"], ["events"], ["runs", "0123abcd"]),
        *(["snooze", "1h"], ["suppress", "burst"], ["news"], ["accept", "i-0123456789abcdef"]),
    ],
)
def test_without_state_there_is_one_clear_line_and_nothing_is_made(
    command: list[str], tmp_path: Path
) -> None:
    absent = tmp_path / "absent"
    result = run(*command, "--state", str(absent))
    assert result.exit_code == 1
    assert result.stderr.startswith(f"error: {absent}: there is no state folder")
    assert len(result.stderr.splitlines()) == 1
    assert not absent.exists()


def test_status_of_an_empty_journal(site: Site) -> None:
    found = status(site)
    assert found["calls"] == found["users"] == 0
    assert found["mode"]["mode"] == "learning"
    assert found["first_call"] is None
    assert found["workers"] == []
    text = run("status", "--state", str(site.folder)).stdout
    assert "no worker has reported its settings yet" in text
    assert "0 alive" in text


def test_status_counts_what_is_in_the_journal(site: Site) -> None:
    site.habit("alice")
    site.habit("bob", tenant="t2")
    found = status(site)
    assert (found["calls"], found["users"], found["tenants"], found["tools"]) == (120, 2, 2, 2)
    assert sum(found["verdicts"].values()) == 120
    assert found["learning_since"] == found["first_call"] == MONDAY_NOON
    assert found["journal"]["cursor"] == site.journal.last()
    assert found["journal"]["snapshot"] is None
    assert found["journal"]["bytes"] > 4096
    text = run("status", "--state", str(site.folder)).stdout
    assert "120 by 2 users in 2 tenants, 2 tools" in text
    assert "since 2026-11-16 12:00:00 UTC" in text


def test_the_configured_mode_comes_from_the_newest_heartbeat(tmp_path: Path) -> None:
    site = Site(tmp_path / "state", load({"mode": "shadow"}))
    site.journal.beat("w", heartbeat(site.settings))
    site.journal.leave("w")  # the gateway was stopped in good order
    found = status(site)
    assert found["mode"]["mode"] == "shadow"
    assert found["mode"]["source"] == "configuration"
    assert found["learning_since"] is None
    assert found["workers"][0]["state"] == "left"
    site.close()


def test_workers_alive_silent_and_dead(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    real = time.time()
    with subprocess.Popen([sys.executable, "-c", "pass"]) as ended:
        ended.wait()
    for name, age, body in (
        ("alive", 1, heartbeat()),
        ("silent", 16, heartbeat(host="elsewhere", alarms=["journal: full"])),
        ("dead", 10, heartbeat(pid=ended.pid)),
        ("hangs", 20, heartbeat()),
        ("young", 6, heartbeat(pid=ended.pid)),  # one heartbeat missed at most: not yet to be doubted
    ):
        site.journal._clock = lambda age=age: real - age  # type: ignore[attr-defined]
        site.journal.beat(name, body)
    found = {entry["name"]: entry["state"] for entry in status(site)["workers"]}
    assert found == {
        "alive": "alive",
        "silent": "silent",
        "dead": "dead",
        "hangs": "silent",
        "young": "alive",
    }
    text = run("status", "--state", str(site.folder)).stdout
    assert "2 alive" in text
    assert "on elsewhere is silent for 16 s: it hangs, or was killed" in text
    assert f"worker {ended.pid} " in text
    assert "its process is gone" in text


def test_status_shows_alarms_and_the_missing_fail_switch(site: Site) -> None:
    site.journal.beat("w", heartbeat(alarms=["journal: the disk is full"], fail_on_plugin_error=False))
    text = run("status", "--state", str(site.folder)).stdout
    assert "journal: the disk is full" in text
    assert "PLUGINS_FAIL_ON_PLUGIN_ERROR is not true" in text


def test_names_from_clients_cannot_drive_the_terminal(site: Site) -> None:
    evil = "eve\x1b[2J\r\n[red]x[/red]\x9b31m"
    site.call(evil, "tool\x07", MONDAY_NOON)
    run("mode", "warn", "--user", evil, "--state", str(site.folder))
    for command in (["status"], ["mode"], ["baseline", "list"], ["baseline", "show", evil]):
        output = run(*command, "--state", str(site.folder)).output
        assert not any(character in output for character in "\x1b\r\x07\x9b"), command
    assert "[red]x[/red]" in run("baseline", "list", "--state", str(site.folder)).stdout
    users = json.loads(run("baseline", "list", "--state", str(site.folder), "--json").stdout)
    assert users[0]["user"] == evil


def test_mode_shows_what_is_in_force_since_when_and_by_whom(site: Site) -> None:
    state = ["--state", str(site.folder)]
    assert run("mode", "warn", *state).exit_code == 0
    run(
        "mode",
        "block",
        "--tool",
        "delete_records",
        "--why",
        "ticket 4711",
        *state,
        env={"SUDO_USER": "carol"},
    )
    shown = run("mode", *state).stdout
    everywhere, narrow = (line for line in shown.splitlines() if "warn" in line or "block" in line)
    assert everywhere.split()[:2] == ["everywhere", "warn"]
    assert narrow.startswith("tool delete_records  block  20")
    assert "ticket 4711" in narrow
    assert "carol (sudo as " in narrow or os.geteuid() != 0
    found = json.loads(run("mode", "--json", *state).stdout)["in_force"]
    assert [(entry["tool"], entry["mode"], entry["why"]) for entry in found] == [
        ("", "warn", ""),
        ("delete_records", "block", "ticket 4711"),
    ]
    assert abs(found[0]["since"] - time.time()) < 5


def test_mode_answers_for_one_scope(site: Site) -> None:
    state = ["--state", str(site.folder)]
    run("mode", "warn", *state)
    run("mode", "block", "--tool", "delete_records", *state)
    run("mode", "learning", "--user", "alice", *state)
    for scope, expected in (
        (["--tool", "delete_records", "--user", "bob"], "block"),
        (["--tool", "delete_records", "--user", "alice"], "learning"),
        (["--tenant", "t9"], "warn"),
    ):
        assert json.loads(run("mode", *scope, "--json", *state).stdout)["asked"]["mode"] == expected


@pytest.mark.parametrize("value", ["learning", "warn", "shadow", "block"])
def test_setting_a_mode_writes_one_record(site: Site, value: str) -> None:
    result = run("mode", value, "--tenant", "t1", "--state", str(site.folder))
    assert result.exit_code == 0
    assert f"tenant t1: {value} is in force" in result.stdout
    assert "takes effect when the gateway starts" in result.stdout
    (record,) = site.controls()
    assert (record["value"], record["tenant"], record["tool"], record["user"]) == (value, "t1", "", "")
    warned = "nothing will be blocked" in result.stderr
    assert warned == (value == "learning")


def test_clearing_gives_way_to_the_configured_mode(site: Site) -> None:
    state = ["--state", str(site.folder)]
    run("mode", "block", *state)
    assert status(site)["mode"]["mode"] == "block"
    assert run("mode", "--clear", *state).exit_code == 0
    assert status(site)["mode"] == {
        "tenant": "",
        "tool": "",
        "user": "",
        "mode": "learning",
        "source": "configuration",
        "since": None,
        "by": "",
        "why": "",
    }
    again = run("mode", "--clear", *state)
    assert again.exit_code == 1
    assert "everywhere: nothing was set" in again.stderr
    assert len(site.controls()) == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["Block"], "'Block' is not a mode; accepted: learning, warn, shadow, block"),
        (["block", "--clear"], "either a mode or --clear"),
        (["--why", "because"], "--why goes with"),
        (["block", "--why", "x" * 201], "why: 201 characters"),
        (["block", "extra"], "extra"),
    ],
)
def test_wrong_usage_ends_with_2_and_changes_nothing(site: Site, arguments: list[str], said: str) -> None:
    result = run("mode", *arguments, "--state", str(site.folder))
    assert result.exit_code == 2
    assert said in result.stderr
    assert site.controls() == []


def test_mode_waits_until_all_live_workers_follow(site: Site) -> None:
    site.journal.beat("ended in good order", heartbeat())
    site.journal.leave("ended in good order")
    with worker(site, "one"), worker(site, "two", every=0.1):
        started = time.monotonic()
        result = run("mode", "block", "--state", str(site.folder), "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert (found["workers"], found["behind"]) == (2, [])
    assert time.monotonic() - started < 1.9


def test_mode_names_the_worker_that_does_not_follow(site: Site) -> None:
    with worker(site, "good"), worker(site, "stuck", follow=False):
        result = run("mode", "block", "--state", str(site.folder))
    assert result.exit_code == 1
    assert "everywhere: block is in force" in result.stdout
    assert "1 of 2 live workers did not confirm within 2 s" in result.stderr
    assert len(site.controls()) == 1


def test_a_mode_set_here_is_obeyed_by_the_next_engine(site: Site) -> None:
    site.habit("alice")
    run("mode", "block", "--tool", "delete_records", "--state", str(site.folder))
    shown = json.loads(
        run(
            "mode", "--json", "--tool", "delete_records", "--user", "alice", "--state", str(site.folder)
        ).stdout
    )
    assert shown["asked"]["mode"] == "block"


@pytest.mark.parametrize(
    "error",
    [
        ImportError("undefined symbol: x", path="/site/_native.cpython-313-x86_64-linux-gnu.so"),
        ModuleNotFoundError("No module named x", name="cpex_tool_firewall._native"),
    ],
)
def test_an_engine_that_does_not_load_is_one_clear_line(
    site: Site, monkeypatch: pytest.MonkeyPatch, error: ImportError
) -> None:
    def fails(folder: str | None) -> None:
        raise error

    monkeypatch.setattr(status_module, "read_history", fails)
    result = run("status", "--state", str(site.folder))
    assert result.exit_code == 1
    assert result.stderr.startswith(
        f"error: the scoring engine cannot be loaded ({error}); run: tool-firewall doctor"
    )


def test_output_to_a_pipe_is_plain_and_whole(site: Site) -> None:
    user = "a-very-long-user-name-" + "x" * 60 + "@example.com"
    site.call(user, "t" * 50, MONDAY_NOON + DAY)
    result = subprocess.run(
        [sys.executable, "-c", "from cpex_tool_firewall.cli import main; main()", "baseline", "list"],
        env={**os.environ, "TOOL_FIREWALL_STATE": str(site.folder), "COLUMNS": "40"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert user in result.stdout
    assert "\x1b" not in result.stdout
