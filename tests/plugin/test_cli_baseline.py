# SPDX-License-Identifier: Apache-2.0
"""`tool-firewall baseline`: who is known, what was learned of them, and who is asked for by mistake."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_support import DAY, HOUR, MONDAY_NOON, Site, heartbeat, run
from cpex_tool_firewall.cli.baseline import heat_strip, nearest
from cpex_tool_firewall.config import load
from traffic import live, stream


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path / "state", load({"time_zone": "Europe/Berlin"}))
    made.habit("alice@example.com", days=8)
    made.habit("bob@example.com", tenant="t1")
    made.habit("bob@example.com", tenant="t2")
    made.journal.beat("w", heartbeat(made.settings))
    yield made
    made.close()


def show(site: Site, *arguments: str) -> str:
    result = run("baseline", "show", *arguments, "--state", str(site.folder))
    assert result.exit_code == 0, result.stderr
    return result.stdout


def test_list_has_everybody_once_per_tenant_the_busiest_first(site: Site) -> None:
    found = json.loads(run("baseline", "list", "--state", str(site.folder), "--json").stdout)
    assert [(entry["user"], entry["tenant"], entry["calls"]) for entry in found] == [
        ("alice@example.com", "t1", 96),
        ("bob@example.com", "t1", 60),
        ("bob@example.com", "t2", 60),
    ]
    only = json.loads(run("baseline", "list", "--tenant", "t2", "--state", str(site.folder), "--json").stdout)
    assert [entry["user"] for entry in only] == ["bob@example.com"]
    text = run("baseline", "list", "--state", str(site.folder)).stdout
    assert "2026-11-16 12:00" in text


def test_list_of_an_empty_journal(tmp_path: Path) -> None:
    empty = Site(tmp_path / "empty")
    assert "no user yet" in run("baseline", "list", "--state", str(empty.folder)).stdout
    assert json.loads(run("baseline", "list", "--state", str(empty.folder), "--json").stdout) == []
    empty.close()


def test_show_names_tools_with_their_share(site: Site) -> None:
    text = show(site, "alice@example.com")
    rows = {
        line.split()[0]: line.split()[1:]
        for line in text.split("\nsteps")[0].splitlines()
        if line.startswith(("db_query", "export"))
    }
    # Every sixth call is an export; those of the first two days were not learned: they were new.
    assert rows["db_query"][0] == "86.4%"
    assert rows["export"][0] == "13.6%"
    assert "96, first 2026-11-16 12:00:00 UTC" in text


def test_show_has_the_steps_between_tools(site: Site) -> None:
    found = json.loads(show(site, "alice@example.com", "--json"))
    steps = {(step["from"], step["to"]) for step in found["steps"]}
    assert steps == {
        ("", "db_query"),
        ("db_query", "db_query"),
        ("db_query", "export"),
        ("export", "db_query"),
    }
    text = show(site, "alice@example.com")
    assert "(session start)" in text


def test_hours_are_in_the_users_zone_and_named(site: Site) -> None:
    text = show(site, "alice@example.com")
    assert "Europe/Berlin" in text
    strip = next(line for line in text.splitlines() if line.strip().startswith("days")).split("|")[1]
    assert len(strip) == 24
    assert strip[13] == "█"  # noon UTC in winter
    assert strip.replace("█", "").strip() == ""
    # Seven days have faded a little, today has not.
    assert "the tallest stands for 6.8 of 6.8 days with calls; 1.9 of these on weekends (decayed)" in text
    found = json.loads(show(site, "alice@example.com", "--json"))
    assert len(found["hours"]) == 24
    assert found["hours"][13] == pytest.approx(found["signals"]["off_hours"]["days"])


def test_costs_and_held_arguments(tmp_path: Path) -> None:
    seen = Site(tmp_path / "seen")
    assert "\ncost " not in show_nothing(seen)
    events = stream(14)
    sent = next(event for event in reversed(events) if event["tool"] == "send_mail")
    live(seen, [*events, {**sent, "ts": events[-1]["ts"] + 60, "args": {"to": ["eve@evil.example"]}}])
    text = show(seen, sent["user"])
    assert "a recipient, host or account in the arguments of send_mail" in text
    cost = json.loads(show(seen, sent["user"], "--json"))["signals"]["cost"]
    assert set(cost) == {"calls", "times_usual", "times_at_first", "spent_today"}
    assert f"cost       {cost['times_usual']:.2f} times what the same tools usually cost here" in text
    assert f"(by {cost['calls']:.0f} calls)" in text
    seen.close()


def show_nothing(site: Site) -> str:
    site.call("new", "db_query", MONDAY_NOON - 30 * DAY)
    return show(site, "new")


def test_rates_burst_and_what_is_still_new(site: Site) -> None:
    after = MONDAY_NOON + 7 * DAY + 2 * HOUR
    assert site.call("alice@example.com", "delete_records", after) == "deny"
    text = show(site, "alice@example.com")
    assert "the tool delete_records" in text
    assert "2026-11-25 14:00:00 UTC" in text
    for window in ("1 min", "10 min", "1.0 h"):
        assert any(line.startswith(window) for line in text.splitlines())
    assert "exempt from the limit: no" in text
    assert "nothing" in show(site, "bob@example.com", "--tenant", "t1").split("still new")[1]


def test_a_user_of_several_tenants_must_be_told_apart(site: Site) -> None:
    result = run("baseline", "show", "bob@example.com", "--state", str(site.folder))
    assert result.exit_code == 2
    assert "choose one with --tenant: t1, t2" in result.stderr
    assert json.loads(show(site, "bob@example.com", "--tenant", "t2", "--json"))["tenant"] == "t2"


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("alice", "nearest: alice@example.com"),
        ("Alice@Example.com", "nearest: alice@example.com"),
        ("alcie@exmaple.com", "nearest: alice@example.com"),
        ("zzzz", "see: tool-firewall baseline list"),
    ],
)
def test_an_unknown_user_gets_the_nearest_names(site: Site, asked: str, said: str) -> None:
    result = run("baseline", "show", asked, "--state", str(site.folder))
    assert result.exit_code == 1
    assert f"nothing was learned of {asked}" in result.stderr
    assert said in result.stderr


def test_the_wrong_tenant_is_told_the_right_one(site: Site) -> None:
    result = run("baseline", "show", "alice@example.com", "--tenant", "t2", "--state", str(site.folder))
    assert result.exit_code == 1
    assert "in tenant t2; known in: t1" in result.stderr


def test_a_user_without_tenant_is_found(site: Site) -> None:
    site.call("solo", "db_query", MONDAY_NOON, tenant="")
    assert "(no tenant)" in show(site, "solo")
    assert "(no tenant)" in show(site, "solo", "--tenant", "")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.0], "  "),
        ([1.0, 0.0, 8.0], "▁ █"),
        ([8.0, 4.0, 0.001], "█▄▁"),
        ([], ""),
    ],
)
def test_heat_strip(values: list[float], expected: str) -> None:
    assert heat_strip(values) == expected


def test_nearest_prefers_names_that_contain_the_asked_one() -> None:
    known = ["malice@x.org", "alice@x.org", "bob@x.org", "alicia@x.org"]
    assert nearest("alice", known)[:2] == ["alice@x.org", "malice@x.org"]
    assert "alicia@x.org" in nearest("alice", known)
    assert nearest("qqq", known) == []
