# SPDX-License-Identifier: Apache-2.0
"""Two gunicorn workers, no Redis: one mode for all, one history for all, over restarts too."""

import os
import signal
import time
from collections.abc import Callable, Iterator

import httpx
import pytest
from conftest import Screened
from cpex_tool_firewall.control import set_mode
from gateway_lab.firewall import ScoredCall

WORKERS = 2
_TRIES = 200


@pytest.fixture(scope="module")
def pair(start_lab: Callable[..., Screened]) -> Iterator[Screened]:
    started = start_lab(users=("alice", "bob", "dave", "erin"), workers=WORKERS, server="gunicorn")
    yield started
    started.lab.stop()


def ask_both_workers(
    pair: Screened, tool: str, *, user: str = "alice", each: int = 3
) -> list[tuple[bool, ScoredCall]]:
    """Calls on fresh connections until every worker has answered `each`: (ok, record) of all calls."""
    pair.firewall.skip()
    made: list[tuple[bool, ScoredCall]] = []
    for _ in range(_TRIES):
        pair.lab.disconnect()
        answer = pair.lab.call(user, tool, {"table": "t"} if tool == "delete_records" else {"sql": "x"})
        made.append((answer.ok, pair.firewall.call()))
        served = [call.worker for _, call in made]
        if len(set(served)) == WORKERS and min(served.count(worker) for worker in set(served)) >= each:
            return made
    raise AssertionError(f"{_TRIES} calls did not reach {WORKERS} workers")


@pytest.mark.parametrize("mode", ["block", "warn", "block", "learning"])
def test_a_change_of_mode_reaches_every_worker_within_a_second(pair: Screened, mode: str) -> None:
    changed = time.monotonic()
    set_mode(pair.firewall.journal, mode, by="test")
    time.sleep(max(0.0, 1.0 - (time.monotonic() - changed)))
    for ok, call in ask_both_workers(pair, "delete_records"):
        assert call.mode == mode
        assert ok == (mode != "block")
        assert call.blocked == (mode == "block")


def test_the_command_says_what_is_in_force_and_since_when(pair: Screened) -> None:
    pair.firewall.mode("block")
    pair.firewall.mode("warn", "--tool", "delete_records")
    shown = pair.firewall.command("mode")
    assert shown.returncode == 0, shown.stderr
    assert "block" in shown.stdout
    assert "delete_records" in shown.stdout
    # The narrower scope wins: this tool is warned about although everything else is blocked.
    assert all(ok for ok, _ in ask_both_workers(pair, "delete_records", each=1))
    pair.firewall.mode("block", "--tool", "delete_records")


def test_the_mode_survives_a_restart_and_so_does_the_history(pair: Screened) -> None:
    pair.firewall.mode("block")
    pair.lab.restart_gateway()
    assert all(not ok for ok, _ in ask_both_workers(pair, "delete_records", each=2))
    known = ask_both_workers(pair, "db_query", user="dave", each=1)
    assert all(ok for ok, _ in known)
    assert {(call.mode, call.decision) for _, call in known} == {("block", "allow")}


def test_a_killed_worker_comes_back_with_mode_and_history(pair: Screened) -> None:
    pair.firewall.mode("block")
    victim = next(worker.body["pid"] for worker in pair.firewall.workers() if not worker.silent(time.time()))
    os.kill(victim, signal.SIGKILL)
    time.sleep(1)
    with httpx.Client(base_url=pair.lab.base_url, trust_env=False, timeout=60) as client:
        _until_answering(client)
    made = ask_both_workers(pair, "delete_records", each=2)
    assert all(call.blocked for _, call in made)


def _until_answering(client: httpx.Client) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            client.get("/health")
            return
        except httpx.TransportError:
            time.sleep(0.2)
    raise AssertionError("the gateway does not answer")
