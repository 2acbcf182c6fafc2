# SPDX-License-Identifier: Apache-2.0
"""Arguments, loops and costs in a real gateway, and what an operator makes of the findings."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from conftest import Screened
from cpex_tool_firewall._native import decode_record
from cpex_tool_firewall.journal.interface import records_since
from gateway_lab import Answer
from gateway_lab.firewall import ScoredCall

THRESHOLD = 0.5
NOTABLE = 1 / 3


class Site:
    """The gateway of these tests, and the operator's command line."""

    def __init__(self, started: Screened) -> None:
        self.lab, self.firewall = started.lab, started.firewall

    def call(self, user: str, tool: str, arguments: dict[str, Any]) -> tuple[Answer, ScoredCall]:
        answer = self.lab.call(user, tool, arguments, transport="rpc")
        return answer, self.firewall.call()

    def operate(self, *arguments: str) -> Any:
        """What `tool-firewall ARGUMENTS --json` prints."""
        done = self.firewall.command(*arguments, "--json")
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return json.loads(done.stdout)

    def records(self, kind: str) -> list[dict[str, Any]]:
        decoded = [decode_record(record) for record in records_since(self.firewall.journal)]
        return [fields for fields in decoded if fields["kind"] == kind]

    def feed(self, *arguments: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.operate("feed", *arguments)
        return found

    def warnings(self) -> int:
        return self.lab.gateway_log().count("tool firewall unusual call")


@pytest.fixture(scope="module")
def site(start_lab: Callable[..., Screened]) -> Iterator[Site]:
    started = start_lab(
        {"mode": "warn", "cost_result": "/structuredContent/cost"}, users=("alice", "dave", "erin", "frank")
    )
    yield Site(started)
    started.lab.stop()


def test_a_loop_of_failing_calls_is_found_within_a_few_calls(site: Site) -> None:
    risks = []
    for _ in range(8):
        site.lab.call("frank", "boom", {"message": "again"}, transport="rpc")
    scored = site.firewall.calls(8)
    risks = [call.risk for call in scored]
    assert any("retry_loop" in call.signals for call in scored)
    assert max(risks[:6]) >= NOTABLE, risks
    findings = [row for row in site.feed("--user", site.lab.email("frank")) if row["tool"] == "boom"]
    assert findings
    assert all("again" not in json.dumps(row) for row in findings)


def test_a_new_destination_is_recorded_and_told(site: Site) -> None:
    for number in range(12):
        site.call("alice", "http_fetch", {"url": f"https://wiki.example.com/page/{number}"})
    _, scored = site.call("alice", "http_fetch", {"url": "https://paste.example.net/upload?secret=hunter2"})
    assert "argument_novelty" in scored.signals
    last = site.records("call")[-1]
    assert last["destinations"] == ["paste.example.net"]
    (reason,) = [one for one in last["reasons"] if one["signal"] == "argument_novelty"]
    assert "paste.example.net" in reason["explanation"]
    assert b"hunter2" not in b"".join(site.firewall.raw_records())


def test_a_call_that_turns_out_dear_is_a_finding_after_it_ran(site: Site) -> None:
    for number in range(30):
        site.call("erin", "ask_model", {"question": f"question {number}", "price": 0.01})
    before = site.warnings()
    answer, scored = site.call("erin", "ask_model", {"question": "a last one", "price": 400.0})
    assert answer.ok
    ended = site.records("outcome")[-1]
    assert ended["cost"] == 400.0
    assert ended["risk"] > scored.risk
    assert ended["risk"] >= NOTABLE
    assert ended["user"] == site.lab.email("erin")
    assert "cost" in [reason["signal"] for reason in ended["reasons"]]
    warned = ended["decision"] == "deny" or scored.decision == "deny"
    assert site.warnings() - before == (1 if warned else 0)
    assert [row for row in site.feed("--signal", "cost") if row["tool"] == "ask_model"]
    # What follows in the session is scored with it.
    _, after = site.call("erin", "ask_model", {"question": "one more", "price": 0.01})
    assert "cost" in after.signals


def test_an_accepted_tool_is_ordinary_and_a_rejected_one_never(site: Site) -> None:
    site.firewall.mode("block")
    answer, scored = site.call("dave", "delete_records", {"table": "old"})
    assert not answer.ok
    assert scored.blocked
    user = site.lab.email("dave")
    waiting = [item for item in site.operate("news", "--user", user) if item["kind"] == "tool"]
    assert [(item["tool"], item["state"]) for item in waiting] == [("delete_records", "held")]
    item = waiting[0]["id"]

    site.operate("accept", item, "--why", "new role")
    answer, scored = site.call("dave", "delete_records", {"table": "old"})
    assert answer.ok, scored
    assert scored.risk < THRESHOLD

    answer, _ = site.call("alice", "delete_records", {"table": "old"})
    assert not answer.ok
    (item,) = [
        item["id"]
        for item in site.operate("news", "--user", site.lab.email("alice"))
        if (item["kind"], item["tool"]) == ("tool", "delete_records")
    ]
    site.operate("reject", item, "--why", "not hers")
    answer, scored = site.call("alice", "delete_records", {"table": "old"})
    assert not answer.ok
    assert scored.risk >= THRESHOLD
    states = {one["id"]: one["state"] for one in site.operate("news", "--user", site.lab.email("alice"))}
    assert states[item] == "rejected"
    site.firewall.mode("warn")


def test_a_load_test_under_snooze_runs_in_block_mode_and_is_recorded(site: Site) -> None:
    site.firewall.mode("block")
    user = site.lab.email("frank")
    site.operate("snooze", "1h", "--user", user, "--why", "load test")
    before = site.warnings()
    for number in range(30):
        site.lab.call("frank", "db_query", {"sql": f"select {number}"}, transport="rpc")
    scored = site.firewall.calls(30)
    assert not any(call.blocked for call in scored)
    assert any(call.decision == "deny" and "burst" in call.signals for call in scored)
    assert site.warnings() == before
    snoozed = [call for call in site.records("call") if call["user"] == user and call["snoozed"]]
    assert snoozed
    hidden = [row for row in site.feed("--user", user) if row["signal"] == "burst"]
    shown = [row for row in site.feed("--user", user, "--all") if row["snoozed"]]
    assert not hidden
    assert shown

    site.operate("snooze", "now", "--user", user)
    answer, scored_one = site.call("frank", "db_query", {"sql": "select 31"})
    assert not answer.ok
    assert scored_one.blocked
    site.firewall.mode("warn")


def test_the_feed_explains_itself(site: Site) -> None:
    rows = site.feed("--all")
    assert rows
    for row in rows:
        assert row["suggested_action"] in ("rate_limit", "block_tool", "review")
        assert row["explanation"]
        assert row["tags"]
    shown = site.firewall.command("finding", "show", rows[0]["uid"])
    assert shown.returncode == 0, shown.stderr
    assert rows[0]["tool"] in shown.stdout
    assert "hunter2" not in shown.stdout
    events = site.firewall.command("events", "--user", site.lab.email("frank"), "--json")
    assert events.returncode == 0
    assert len(events.stdout.splitlines()) >= 39
