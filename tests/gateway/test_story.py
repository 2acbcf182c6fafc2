# SPDX-License-Identifier: Apache-2.0
"""The acceptance scenarios of the firewall, over /rpc and over MCP, each in a fresh real gateway."""

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from conftest import Screened
from gateway_lab import TRANSPORTS, Answer, Lab
from gateway_lab.firewall import Firewall, ScoredCall

THRESHOLD = 0.5


@dataclass(frozen=True)
class Story:
    """The gateway of one transport, with two weeks of history of everybody."""

    lab: Lab
    firewall: Firewall
    transport: str

    def call(self, user: str, tool: str, arguments: dict[str, object]) -> tuple[Answer, ScoredCall]:
        """One call and what was recorded of it."""
        answer = self.lab.call(user, tool, arguments, transport=self.transport)
        return answer, self.firewall.call()

    def query(self, user: str) -> tuple[Answer, ScoredCall]:
        return self.call(user, "db_query", {"sql": "select name from customers"})

    def warnings(self) -> list[str]:
        """What the firewall logged as WARNING or worse about calls, so far."""
        lines = self.lab.gateway_log().splitlines()
        return [line for line in lines if "cpex_tool_firewall" in line and re.search("WARNING|ERROR", line)]


@pytest.fixture(scope="module", params=TRANSPORTS)
def story(request: pytest.FixtureRequest, start_lab: Callable[..., Screened]) -> Iterator[Story]:
    started = start_lab({"burst_threshold": 20}, users=("alice", "bob", "dave", "erin", "frank"))
    yield Story(started.lab, started.firewall, request.param)
    started.lab.stop()


def test_an_ordinary_call_is_allowed_at_low_risk(story: Story) -> None:
    answer, scored = story.query("alice")
    assert answer.ok
    assert scored.mode == "learning"
    assert scored.risk < THRESHOLD
    assert scored.decision == "allow"
    assert scored.user == story.lab.email("alice")
    assert scored.tenant == story.lab.installation.team
    assert scored.outcome == "ok"


def test_learning_records_and_keeps_quiet(story: Story) -> None:
    before = story.warnings()
    answer, scored = story.call("erin", "http_fetch", {"url": "https://example.com/"})
    assert answer.ok
    assert scored.risk > 0
    assert not scored.blocked
    assert story.warnings() == before


def test_a_novel_tool_is_warned_about_and_runs(story: Story) -> None:
    story.firewall.mode("warn")
    _, usual = story.query("alice")
    before = story.warnings()
    story.lab.upstream_calls()
    answer, scored = story.call("alice", "delete_records", {"table": "customers"})
    assert answer.ok
    assert [call["tool"] for call in story.lab.upstream_calls()] == ["delete_records"]
    assert scored.risk >= THRESHOLD
    assert scored.risk >= 3 * usual.risk
    assert scored.decision == "deny"
    assert not scored.blocked
    assert "novelty" in scored.signals
    new = story.warnings()[len(before) :]
    assert len(new) == 1, new
    assert "delete_records" in new[0]
    assert "novelty" in new[0] or scored.signals[0] in new[0]
    assert "customers" not in new[0]


def test_a_novel_tool_is_stopped_in_block_mode(story: Story) -> None:
    story.firewall.mode("block")
    story.lab.upstream_calls()
    answer, scored = story.call("alice", "delete_records", {"table": "customers"})
    assert not answer.ok
    assert story.lab.upstream_calls() == []
    assert scored.blocked
    assert scored.outcome == ""
    assert scored.risk >= THRESHOLD
    # The agent reads which signal it was, what to do and an incident id; no number it could play against.
    assert "Stopped by the tool firewall" in answer.text
    assert "administrator" in answer.text
    assert re.search(r"\btf-[0-9a-f]{12}\b", answer.text)
    assert re.search(r"TF_[A-Z_]+", answer.text)
    assert not re.search(r"\b0\.\d", answer.text), answer.text
    assert "customers" not in answer.text
    if story.transport == "rpc":
        assert answer.status == 403
    # What is known still runs.
    answer, _ = story.query("alice")
    assert answer.ok


def test_a_burst_is_seen_by_the_twenty_first_call(story: Story) -> None:
    story.firewall.mode("warn")
    started = time.monotonic()
    answers = [
        story.lab.call("dave", "db_query", {"sql": f"select {number}"}, transport=story.transport)
        for number in range(25)
    ]
    assert time.monotonic() - started < 30
    assert all(answer.ok for answer in answers)
    scored = story.firewall.calls(25)
    assert all(call.risk < THRESHOLD for call in scored[:10])
    assert all(call.risk >= THRESHOLD for call in scored[20:])
    assert all("burst" in call.signals for call in scored[20:])

    story.firewall.mode("block")
    story.lab.upstream_calls()
    answer, stopped = story.query("dave")
    assert not answer.ok
    assert stopped.blocked
    assert stopped.signals[0] == "burst"
    assert story.lab.upstream_calls() == []
    assert "too many tool calls" in answer.text
    if story.transport == "rpc":
        assert answer.status == 429
        assert int(answer.headers["retry-after"]) >= 1


def test_an_hour_that_somebody_never_works_is_noticed(story: Story) -> None:
    story.firewall.mode("warn")
    _, usual = story.query("frank")
    assert "off_hours" not in usual.signals
    answer, scored = story.query("bob")
    # The first call at such an hour is worth listing, not stopping; a session of them is.
    assert answer.ok
    assert 1 / 3 <= scored.risk < THRESHOLD
    assert "off_hours" in scored.signals
    assert scored.risk >= 3 * usual.risk
    for _ in range(4):
        _, scored = story.query("bob")
    assert scored.risk >= THRESHOLD
    assert "off_hours" in scored.signals


def test_back_to_warn_nothing_is_stopped(story: Story) -> None:
    story.firewall.mode("block")
    story.firewall.mode("warn")
    story.lab.upstream_calls()
    answer, scored = story.call("alice", "delete_records", {"table": "customers"})
    assert answer.ok
    assert not scored.blocked
    # It was warned about before, and still is: one warning does not make it ordinary.
    assert scored.risk >= THRESHOLD
    assert len(story.lab.upstream_calls()) == 1
