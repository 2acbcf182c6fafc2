# SPDX-License-Identifier: Apache-2.0
"""`tool-firewall snooze` and `suppress`: what they write, what they say, what they refuse."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_support import DAY, HOUR, Site, run, worker


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path / "state")
    yield made
    made.close()


def command(site: Site, *arguments: str) -> object:
    return run(*arguments, "--state", str(site.folder))


def answer(site: Site, *arguments: str) -> dict:
    result = run(*arguments, "--json", "--state", str(site.folder))
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


@pytest.mark.parametrize(
    ("text", "seconds"), [("2h", 2 * HOUR), ("3d", 3 * DAY), ("90m", 1.5 * HOUR), ("1.5h", 1.5 * HOUR)]
)
def test_a_snooze_for_a_while(site: Site, text: str, seconds: float) -> None:
    found = answer(site, "snooze", text, "--tool", "db_query", "--why", "load test")
    assert found["snoozed_until"] == pytest.approx(time.time() + seconds, abs=5)
    assert (found["clamped"], found["why"], found["workers"]) == (False, "load test", 0)
    (record,) = site.controls()
    assert (record["action"], record["tool"], record["user"], record["tenant"]) == (
        "snooze",
        "db_query",
        "",
        "",
    )
    assert float(record["value"]) == pytest.approx(found["snoozed_until"], abs=0.001)
    assert record["by"] == found["by"] != ""


def test_a_snooze_until_a_time(site: Site) -> None:
    until = time.time() + 5 * HOUR
    text = time.strftime("%Y-%m-%dT%H:%M", time.gmtime(until))
    assert answer(site, "snooze", text)["snoozed_until"] == pytest.approx(until, abs=61)


def test_a_later_end_is_brought_forward_and_said_so(site: Site) -> None:
    result = command(site, "snooze", "9d", "--tool", "db_query")
    assert result.exit_code == 0
    assert "tool db_query: snoozed until" in result.stdout and "(in 7 days)" in result.stdout
    assert "a scope is snoozed for 7 days at most" in result.stderr
    (record,) = site.controls()
    assert float(record["value"]) == pytest.approx(time.time() + 7 * DAY, abs=5)


def test_extending_keeps_the_bound_and_another_scope_has_its_own(site: Site) -> None:
    first = answer(site, "snooze", "6d")
    time.sleep(0.01)
    second = answer(site, "snooze", "9d")
    assert second["clamped"]
    assert second["snoozed_until"] == pytest.approx(first["first"] + 7 * DAY, abs=0.001)
    assert second["first"] == first["first"]
    assert answer(site, "snooze", "9d", "--user", "x")["first"] > first["first"]


def test_now_or_a_past_time_clears_and_begins_a_new_chain(site: Site) -> None:
    first = answer(site, "snooze", "2h", "--user", "alice")
    for text in ("now", "2026-01-01"):
        result = command(site, "snooze", text, "--user", "alice")
        assert result.exit_code == 0
        assert "user alice: no longer snoozed" in result.stdout
        again = answer(site, "snooze", "2h", "--user", "alice")
        assert again["first"] > first["first"]
    assert answer(site, "snooze", "now", "--user", "alice")["snoozed_until"] is None
    result = command(site, "snooze", "now", "--user", "alice")
    assert result.exit_code == 1
    assert "nothing is snoozed" in result.stderr


def test_snoozes_in_force_are_listed(site: Site) -> None:
    assert "none" in command(site, "snooze").stdout
    command(site, "snooze", "2h", "--tool", "db_query", "--why", "ticket 4711")
    command(site, "snooze", "3d", "--user", "alice")
    text = command(site, "snooze").stdout
    assert "tool db_query" in text and "ticket 4711" in text and "(in 2.0 h)" in text
    found = run("snooze", "--json", "--state", str(site.folder))
    assert [entry["scope"]["user"] for entry in json.loads(found.stdout)] == ["alice", ""]
    assert "alice" not in command(site, "snooze", "--tool", "db_query").stdout


def test_workers_follow_a_snooze(site: Site) -> None:
    with worker(site, "one"):
        result = command(site, "snooze", "2h")
    assert "the one live worker follows" in result.stdout
    with worker(site, "stuck", follow=False):
        result = command(site, "snooze", "3h")
    assert result.exit_code == 1
    assert "did not confirm" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["snooze", "soon"], "UNTIL: 'soon' is not a time; accepted: 2h, 3d"),
        (["snooze", "2h", "--why", "x" * 201], "why: 201 characters"),
        (["snooze", "--why", "x"], "--why goes with a change"),
        (["suppress", "bursts"], "is not a signal; there are: novelty"),
        (["suppress", "*"], "would hide every finding"),
        (["suppress", "burst", "soon"], "is not a time"),
        (["suppress", "f-0123456789", "1d", "--user", "x"], "leave those options out"),
        (["suppress", "--why", "x"], "--why goes with a change"),
    ],
)
def test_wrong_usage_ends_with_2_and_changes_nothing(site: Site, arguments: list[str], said: str) -> None:
    result = command(site, *arguments)
    assert result.exit_code == 2
    assert said in result.stderr
    assert site.controls() == []


def test_a_suppression(site: Site) -> None:
    found = answer(site, "suppress", "off_hours", "10d", "--user", "bob", "--why", "nights")
    assert (found["signal"], found["user"], found["clamped"]) == ("off_hours", "bob", False)
    assert found["suppressed_until"] == pytest.approx(time.time() + 10 * DAY, abs=5)
    (record,) = site.controls()
    assert (record["action"], record["why"]) == ("suppress", "nights")
    text = command(site, "suppress").stdout
    assert "off_hours" in text and "user bob" in text and "nights" in text
    result = command(site, "suppress", "off_hours", "now", "--user", "bob")
    assert "off_hours, user bob: shown in the feed again" in result.stdout
    result = command(site, "suppress", "off_hours", "now", "--user", "bob")
    assert result.exit_code == 1
    assert "nothing is suppressed" in result.stderr


def test_a_suppression_lasts_a_month_unless_said_otherwise(site: Site) -> None:
    assert answer(site, "suppress", "burst")["suppressed_until"] == pytest.approx(
        time.time() + 30 * DAY, abs=5
    )
    result = command(site, "suppress", "novelty", "120d")
    assert "suppressed for 90 days at most" in result.stderr


def test_a_finding_can_be_suppressed_by_its_name(site: Site) -> None:
    now = time.time()
    site.burst("bob", now - 300)
    (row,) = json.loads(run("feed", "--json", "--signal", "burst", "--state", str(site.folder)).stdout)
    for name in (row["uid"][:10], row["incidents"][0]):
        found = answer(site, "suppress", name, "1d")
        assert (found["signal"], found["tenant"], found["tool"], found["user"]) == (
            "burst",
            "t1",
            "db_query",
            "bob",
        )
    assert json.loads(run("feed", "--json", "--signal", "burst", "--state", str(site.folder)).stdout) == []
    result = command(site, "suppress", "f-000000", "1d")
    assert result.exit_code == 1
