# SPDX-License-Identifier: Apache-2.0
"""What leaves a trace in the baseline and what must not, and who a call is counted for."""

import threading
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import Screened
from gateway_lab import TRANSPORTS, Answer
from gateway_lab.firewall import NAME
from gateway_lab.mcp_client import McpRefused
from spy_plugin import read_notes

QUERY = {"sql": "select 1"}


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_call_that_access_control_refuses_leaves_no_trace(shared: Screened, transport: str) -> None:
    shared.firewall.skip()
    if transport == "rpc":
        assert not shared.lab.call("carol", "db_query", QUERY).ok
    else:
        with pytest.raises(McpRefused):
            shared.lab.connect(shared.lab.token("carol"))
    _only_trace_is_of_the_next_call(shared)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_call_that_a_policy_plugin_blocks_leaves_no_trace(shared: Screened, transport: str) -> None:
    shared.firewall.skip()
    answer = shared.lab.call("alice", "report", {"period": "today"}, transport=transport)
    assert "the spy refuses this tool" in answer.text
    _only_trace_is_of_the_next_call(shared)


def _only_trace_is_of_the_next_call(shared: Screened) -> None:
    """A worker's records keep their order: had the refused call left one, it would come before this one."""
    assert shared.lab.call("erin", "db_query", QUERY).ok
    assert shared.firewall.call().user == shared.lab.email("erin")


def test_one_user_is_one_principal_whatever_way_they_come(shared: Screened) -> None:
    shared.firewall.skip()
    for transport in TRANSPORTS:
        for kind in ("api", "login"):
            assert shared.lab.call("alice", "db_query", QUERY, transport=transport, kind=kind).ok
    calls = shared.firewall.calls(4)
    assert {(call.tenant, call.user) for call in calls} == {
        (shared.lab.installation.team, shared.lab.email("alice"))
    }
    assert {call.server for call in calls} == {shared.lab.installation.gateway}
    assert {call.tool for call in calls} == {"db_query"}
    # Two tokens, whichever transport they are used on; a session never spans two tokens.
    assert len({call.token for call in calls}) == 2
    assert len({call.session for call in calls}) == len({(call.token, call.session) for call in calls})


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize(
    ("tool", "arguments", "outcome"),
    [
        ("db_query", QUERY, "ok"),
        ("boom", {"message": "kaput"}, "tool_error"),
        ("http_fetch", {"url": "https://example.com/", "delay": 6}, "timeout"),
    ],
)
def test_an_outcome_is_recorded_as_what_it_was(
    shared: Screened, transport: str, tool: str, arguments: dict[str, Any], outcome: str
) -> None:
    shared.firewall.skip()
    answer = shared.lab.call("dave", tool, arguments, transport=transport)
    assert answer.ok == (outcome == "ok")
    scored = shared.firewall.call()
    assert scored.tool == tool
    assert scored.outcome == outcome


def test_an_unreachable_upstream_is_recorded_as_that(shared: Screened) -> None:
    shared.firewall.skip()
    shared.lab.upstream.stop()
    try:
        for transport in TRANSPORTS:
            assert not shared.lab.call("dave", "db_query", QUERY, transport=transport).ok
    finally:
        shared.lab.start_upstream()
    assert [call.outcome for call in shared.firewall.calls(2)] == ["unreachable", "unreachable"]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_call_keeps_its_end_when_the_plugin_is_rebuilt_meanwhile(
    shared: Screened, spy_notes: Path, transport: str
) -> None:
    assert shared.lab.call("erin", "http_fetch", {"url": "https://example.com/"}, transport=transport).ok
    shared.firewall.calls(1)
    seen = len(read_notes(spy_notes))
    client = shared.lab.connect(shared.lab.token("erin")) if transport == "mcp" else None

    def slow() -> Answer:
        arguments = {"url": "https://example.com/", "delay": 3}
        tool = shared.lab.tool("http_fetch")
        return client.call(tool, arguments) if client else shared.lab.rpc("erin").call(tool, arguments)

    answers: list[Answer] = []
    caller = threading.Thread(target=lambda: answers.append(slow()))
    caller.start()
    time.sleep(1)
    force_rebuild(shared)
    # A call meanwhile makes the gateway build the new instance while the slow call still runs on the old one.
    assert shared.lab.call("alice", "http_fetch", {"url": "https://example.com/"}).ok
    caller.join()
    if client:
        client.close()
    assert [answer.ok for answer in answers] == [True]
    notes = read_notes(spy_notes)[seen:]
    assert "shutdown" in [note["what"] for note in notes], (
        "the instances were not rebuilt; this proves nothing"
    )
    pre = [note for note in notes if note["what"] == "pre"]
    assert len({note["instance"] for note in pre}) == 2, pre
    calls = shared.firewall.calls(2)
    assert {call.user: call.outcome for call in calls} == {
        shared.lab.email("erin"): "ok",
        shared.lab.email("alice"): "ok",
    }


def test_different_tools_and_rebuilt_instances_meet_in_one_engine(shared: Screened) -> None:
    """Seven calls each of three tools in a minute are a burst for one engine, and none for three of them."""
    shared.firewall.skip()
    tools: list[tuple[str, dict[str, Any]]] = [
        ("db_query", QUERY),
        ("file_upload", {"path": "a.txt"}),
        ("http_fetch", {"url": "https://example.com/"}),
    ]
    for _ in range(7):
        for tool, arguments in tools:
            assert shared.lab.call("bob", tool, arguments).ok
        force_rebuild(shared)
    calls = shared.firewall.calls(21)
    assert "burst" in calls[-1].signals
    assert calls[-1].risk >= 0.5
    assert len({call.worker for call in calls}) == 1


def test_rebuilds_by_the_gateways_own_clock_lose_nothing(shared: Screened, spy_notes: Path) -> None:
    """The gateway rebuilds an instance 30 s after it made it, on the next use."""
    seen = len(read_notes(spy_notes))
    shared.firewall.skip()
    until = time.monotonic() + 36
    made = 0
    while time.monotonic() < until:
        for tool, arguments in (("db_query", QUERY), ("file_upload", {"path": "a.txt"})):
            assert shared.lab.call("alice", tool, arguments).ok
            made += 1
        time.sleep(4)
    notes = [note for note in read_notes(spy_notes)[seen:] if note["what"] == "pre"]
    for name in ("db_query", "file_upload"):
        assert len({note["instance"] for note in notes if note["original_name"] == name}) >= 2
    calls = shared.firewall.calls(made)
    assert {call.outcome for call in calls} == {"ok"}
    assert len({call.worker for call in calls}) == 1
    # One session goes on across tools and instances: the engine knew what came before each call.
    assert [call.previous for call in calls[1:]] == [call.tool for call in calls[:-1]]


def force_rebuild(shared: Screened) -> None:
    """Makes the gateway throw away every plugin instance: the same thing its own clock does after 30 s."""
    shared.lab.administrator.request("PUT", f"/admin/plugins/{NAME}", json={"mode": "enforce"})
