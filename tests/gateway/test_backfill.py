# SPDX-License-Identifier: Apache-2.0
"""Calls made while the plugin was absent, learned afterwards from the real gateway's own database."""

import json
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from gateway_lab import TRANSPORTS, GatewayOptions, Lab
from gateway_lab.firewall import Firewall, firewall_plugin

STORING = {"STRUCTURED_LOGGING_DATABASE_ENABLED": "true", "LOG_LEVEL": "INFO"}
ROUTE = ("db_query", "report", "db_query", "file_upload")
ARGUMENTS = {"db_query": {"sql": "select 1"}, "file_upload": {"path": "a.txt", "content": "text"}}
ROUNDS = 14
SETTLE_SECONDS = 2.5  # backfill leaves the rows of the last two seconds for the next time


@dataclass
class Past:
    """A gateway that ran for a while without the plugin, and has it now."""

    lab: Lab
    firewall: Firewall

    def backfill(self, *arguments: str, code: int = 0) -> dict[str, Any]:
        url = f"sqlite:///{self.lab.database}"
        done = self.firewall.command("backfill", "--gateway-db", url, "--json", *arguments)
        assert done.returncode == code, done.stdout + done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def baseline(self, user: str, *, tenant: str | None = None) -> dict[str, Any]:
        done = self.firewall.command(
            *("baseline", "show", self.lab.email(user), "--json"),
            *("--tenant", tenant or self.lab.installation.team),
        )
        assert done.returncode == 0, done.stdout + done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found


def spread_over_days(database: Path) -> None:
    """Makes of the calls of the last minute those of ROUNDS days at this hour: one day for each round.

    The rows stay as the gateway wrote them but for their time. Its own SQLite may write to its file; the
    gateway is stopped.
    """
    connection = sqlite3.connect(database)
    with connection:
        rows = connection.execute(
            "SELECT correlation_id, max(timestamp) FROM structured_log_entries"
            " WHERE component = 'tool_service' AND user_id IS NOT NULL GROUP BY correlation_id ORDER BY 2"
        ).fetchall()
        per_day = len(rows) // ROUNDS
        for number, (correlation, _) in enumerate(rows):
            day, at = divmod(number, per_day)
            back = (ROUNDS - day) * 86_400 - at * 45
            connection.execute(
                "UPDATE structured_log_entries SET timestamp ="
                " strftime('%Y-%m-%d %H:%M:%f', timestamp, ?) || '000' WHERE correlation_id = ?",
                (f"-{back} seconds", correlation),
            )
    connection.close()


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Past]:
    without = GatewayOptions(env=STORING)
    with Lab(tmp_path_factory.mktemp("backfill"), without) as lab:
        for number in range(ROUNDS):
            for tool in ROUTE:
                transport = TRANSPORTS[number % 2]
                assert lab.call("alice", tool, ARGUMENTS.get(tool), transport=transport).ok
            lab.call("bob", "boom", {}, transport="rpc", kind="login")
        lab.stop_gateway()
        spread_over_days(lab.database)
        lab.restart_gateway(replace(without, plugins=[firewall_plugin(mode="warn")]))
        # The first call makes the state folder.
        assert lab.call("erin", "report", {}).ok
        firewall = Firewall(lab)
        firewall.calls(1)
        yield Past(lab, firewall)
        firewall.close()


def test_a_dry_run_says_what_there_is_and_stores_nothing(past: Past) -> None:
    before = past.firewall.journal.last()
    found = past.backfill("--dry-run")
    assert past.firewall.journal.last() == before
    assert (found["calls"], found["new"]) == (ROUNDS * 5, ROUNDS * 5)
    assert (found["users"], found["tenants"]) == (2, 1)
    assert time.time() - found["first"] > (ROUNDS - 1) * 86_400


def test_calls_join_the_plugins_own_baseline(past: Past) -> None:
    found = past.backfill()
    assert found["new"] == ROUNDS * 5
    installation = past.lab.installation
    alice = past.baseline("alice")
    assert alice["calls"] == ROUNDS * len(ROUTE)
    assert {(tool["server"], tool["tool"]) for tool in alice["tools"]} == {
        (installation.gateway, tool) for tool in ROUTE
    }
    assert {(step["from"], step["to"]) for step in alice["steps"]} >= {
        ("db_query", "report"),
        ("report", "db_query"),
        ("db_query", "file_upload"),
    }
    assert past.baseline("bob")["calls"] == ROUNDS

    past.firewall.skip()
    wait_until_read(past)
    # The beginning of her usual route, over both transports.
    for transport, tool in zip(TRANSPORTS, ROUTE, strict=False):
        assert past.lab.call("alice", tool, ARGUMENTS.get(tool), transport=transport).ok
        usual = past.firewall.call()
        assert (usual.tenant, usual.server) == (installation.team, installation.gateway)
        assert usual.decision == "allow"
        assert "novelty" not in usual.signals
        assert "novel_path" not in usual.signals
    assert past.baseline("alice")["calls"] == ROUNDS * len(ROUTE) + 2
    past.lab.call("alice", "delete_records", {"table": "t"})
    novel = past.firewall.call()
    assert "novelty" in novel.signals
    assert novel.risk >= 0.5


def test_again_it_adds_nothing_and_leaves_the_plugins_own_calls_out(past: Past) -> None:
    time.sleep(SETTLE_SECONDS)
    before = past.firewall.journal.last()
    found = past.backfill("--days", "30")
    assert found["new"] == 0
    assert found["known"] == ROUNDS * 5
    # erin's and alice's, which the gateway stored and the plugin recorded.
    assert found["recorded_by_plugin"] == 4
    assert past.firewall.journal.last() == before
    assert past.backfill("--tenant", "another")["other_tenants"] == ROUNDS * 5 + 4


def wait_until_read(past: Past) -> None:
    cursor = past.firewall.journal.last()
    until = time.monotonic() + 15
    while not any(worker.body.get("cursor", 0) >= cursor for worker in past.firewall.workers()):
        assert time.monotonic() < until, "no worker read what was backfilled"
        time.sleep(0.1)
