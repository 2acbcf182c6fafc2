# SPDX-License-Identifier: Apache-2.0
"""`tool-firewall events` and `runs`: every evaluation, and the calls of one session."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli_support import DAY, HOUR, Site, run
from cpex_tool_firewall.cli import tailing
from test_cli_feed import Later


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    start = (time.time() - DAY) // HOUR * HOUR
    made = Site(tmp_path / "state")
    for user in ("alice", "bob"):
        made.habit(user, days=5, start=start - 5 * DAY)
    made.call("alice", "db_query", start + 30)
    made.call("alice", "delete_records", start + 60, mode="shadow")
    made.burst("bob", start + 300, mode="block")
    yield made
    made.close()


def events(site: Site, *arguments: str) -> list[dict]:
    result = run("events", *arguments, "--json", "--state", str(site.folder))
    assert result.exit_code == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_every_evaluation_is_there_allowed_calls_included(site: Site) -> None:
    found = events(site)
    assert len(found) == 2 * 60 + 2 + 25
    assert {row["verdict"] for row in found} == {"allow", "audit", "deny"}
    assert all(row["reason"] for row in found if row["verdict"] != "allow")


def test_filters(site: Site) -> None:
    assert {row["user"] for row in events(site, "--user", "bob")} == {"bob"}
    assert len(events(site, "--tool", "delete_records")) == 1
    denied = events(site, "--verdict", "deny")
    assert denied and {row["verdict"] for row in denied} == {"deny"}
    assert {row["verdict"] for row in events(site, "--verdict", "allow")} == {"allow"}
    assert 26 <= len(events(site, "--since", "2d")) < 60
    assert len(events(site, "--until", "2d")) + len(events(site, "--since", "2d")) == 147
    session = denied[0]["session"]
    assert {row["user"] for row in events(site, "--session", session)} == {"bob"}
    assert events(site, "--session", session[:6]) == events(site, "--session", session)
    assert events(site, "--tenant", "t2") == []


def test_shadow_rows_say_what_block_would_have_done(site: Site) -> None:
    text = run("events", "--tool", "delete_records", "--state", str(site.folder)).stdout
    assert "audit" in text
    assert "[shadow] would deny: delete_records" in text
    assert "(tf-" in text


def test_the_table_shows_the_last_ones(site: Site) -> None:
    text = run("events", "--last", "5", "--state", str(site.folder)).stdout
    assert len([line for line in text.splitlines() if line.startswith("20")]) == 5
    text = run("events", "--state", str(site.folder)).stdout
    assert len([line for line in text.splitlines() if line.startswith("20")]) == 100
    text = run("events", "--last", "0", "--state", str(site.folder)).stdout
    assert len([line for line in text.splitlines() if line.startswith("20")]) == 147


def test_following(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = Later(
        lambda: site.call("alice", "db_query", time.time()), lambda: site.call("bob", "db_query", time.time())
    )
    monkeypatch.setattr(tailing, "time", steps)
    rows = events(site, "--follow", "--user", "alice", "--since", "2h")
    assert [row["user"] for row in rows] == ["alice"]


def test_nothing_found_says_so(site: Site) -> None:
    result = run("events", "--user", "nobody", "--state", str(site.folder))
    assert (result.exit_code, result.stdout) == (0, "")
    assert "no such evaluation" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [["--verdict", "block"], ["--since", "x"], ["--last", "-1"], ["--since", "1d", "--until", "2d"]],
)
def test_wrong_usage_ends_with_2(site: Site, arguments: list[str]) -> None:
    assert run("events", *arguments, "--state", str(site.folder)).exit_code == 2


# --- runs ---


def test_the_calls_of_a_session_in_order(site: Site) -> None:
    session = events(site, "--user", "alice")[0]["session"]
    result = run("runs", session[:8], "--state", str(site.folder), "--json")
    found = json.loads(result.stdout)
    assert found["session"] == session
    assert [call["step"] for call in found["calls"]] == list(range(1, 63))
    last = found["calls"][-1]
    assert (last["tool"], last["outcome"], last["cost"], last["verdict"]) == (
        "delete_records",
        "ok",
        None,
        "audit",
    )
    assert last["seconds"] == pytest.approx(0.1)
    text = run("runs", session[:8], "--state", str(site.folder)).stdout
    assert text.startswith(f"session {session} of alice, tenant t1")
    assert "62 calls in" in text
    assert "delete_records" in text and "novelty" in text


def test_stopped_calls_have_no_ending(site: Site) -> None:
    session = events(site, "--user", "bob")[0]["session"]
    text = run("runs", session, "--state", str(site.folder)).stdout
    assert "stopped" in text


@pytest.mark.parametrize(
    ("session", "code", "said"),
    [
        ("zzzz", 2, "is not a session"),
        ("abc", 2, "is not a session"),
        ("0" * 16, 1, "no call of such a session"),
    ],
)
def test_what_is_no_session_is_one_clear_line(site: Site, session: str, code: int, said: str) -> None:
    result = run("runs", session, "--state", str(site.folder))
    assert result.exit_code == code
    assert said in result.stderr
