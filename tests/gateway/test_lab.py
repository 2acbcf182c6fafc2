# SPDX-License-Identifier: Apache-2.0
"""The lab itself, and what the plugin relies on in the gateway: who calls, which tool, pre to post."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from gateway_lab import TRANSPORTS, GatewayOptions, Lab
from gateway_lab.mcp_client import McpRefused
from spy_plugin import read_notes

HERE = Path(__file__).parent


class Spied:
    """A lab whose only plugin is the spy."""

    def __init__(self, lab: Lab, notes: Path) -> None:
        self.lab = lab
        self._notes = notes
        self._read = 0

    def notes(self) -> list[dict[str, Any]]:
        """What the spy saw since this was last asked."""
        every = read_notes(self._notes)
        new, self._read = every[self._read :], len(every)
        return new


@pytest.fixture(scope="module")
def spied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spied]:
    folder = tmp_path_factory.mktemp("spied")
    notes = folder / "notes.jsonl"
    spy = {
        "name": "Spy",
        "kind": "spy_plugin.SpyPlugin",
        "hooks": ["tool_pre_invoke", "tool_post_invoke"],
        "mode": "sequential",
        "priority": 10,
        "config": {"notes": str(notes), "block": ["report"]},
    }
    with Lab(folder, GatewayOptions(plugins=[spy], python_path=[HERE], tool_timeout_seconds=2)) as lab:
        yield Spied(lab, notes)


@pytest.mark.parametrize("kind", ["api", "login"])
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_call_reaches_plugin_and_upstream(spied: Spied, transport: str, kind: str) -> None:
    spied.notes()
    spied.lab.upstream_calls()
    answer = spied.lab.call("alice", "db_query", {"sql": "select 1"}, transport=transport, kind=kind)
    assert answer.ok, answer
    assert "10 rows for select 1" in answer.text
    assert [call["tool"] for call in spied.lab.upstream_calls()] == ["db_query"]
    pre, post = (note for note in spied.notes() if note["what"] != "shutdown")
    user = pre["user"]["email"] if isinstance(pre["user"], dict) else pre["user"]
    assert user == "alice@example.com"
    assert pre["original_name"] == "db_query"
    assert pre["gateway_id"] == spied.lab.installation.gateway
    assert pre["tenant"] == spied.lab.installation.team
    assert post["carried"] == "db_query"


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_refusal_by_a_plugin_is_told_and_stops_the_call(spied: Spied, transport: str) -> None:
    spied.lab.upstream_calls()
    answer = spied.lab.call("alice", "report", {"period": "today"}, transport=transport)
    assert not answer.ok
    assert "the spy refuses this tool" in answer.text
    assert spied.lab.upstream_calls() == []


def test_who_is_outside_the_team_never_reaches_the_plugin(spied: Spied) -> None:
    spied.notes()
    assert not spied.lab.call("carol", "db_query", {"sql": "select 1"}).ok
    with pytest.raises(McpRefused):
        spied.lab.connect(spied.lab.token("carol"))
    assert [note for note in spied.notes() if note["what"] == "pre"] == []


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize(
    ("tool", "arguments"), [("boom", {"message": "kaput"}), ("http_fetch", {"url": "slow", "delay": 4})]
)
def test_a_failed_call_reaches_the_post_hook(
    spied: Spied, transport: str, tool: str, arguments: dict[str, Any]
) -> None:
    spied.notes()
    answer = spied.lab.call("bob", tool, arguments, transport=transport)
    assert not answer.ok
    posts = [note for note in spied.notes() if note["what"] == "post"]
    assert len(posts) == 1
    assert posts[0]["carried"] == tool
    assert posts[0]["result"]["isError"] is True
