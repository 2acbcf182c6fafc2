# SPDX-License-Identifier: Apache-2.0
"""What others can see of a call: the gateway's observability and Prometheus page; and what nobody may see."""

import base64
import json
import re
import sqlite3
import time

import pytest
from conftest import Screened
from gateway_lab import TRANSPORTS
from prometheus_client.parser import text_string_to_metric_families


def _samples(page: str) -> dict[str, float]:
    """Sum of each sample of the firewall's metrics over its labels, by sample name."""
    sums: dict[str, float] = {}
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            if sample.name.startswith("tool_firewall_"):
                sums[sample.name] = sums.get(sample.name, 0.0) + sample.value
    return sums


def test_prometheus_shows_calls_verdicts_and_risk(shared: Screened) -> None:
    before = _samples(shared.lab.prometheus())
    shared.firewall.skip()
    for _ in range(3):
        assert shared.lab.call("alice", "db_query", {"sql": "select 1"}).ok
    risks = [call.risk for call in shared.firewall.calls(3)]
    page = shared.lab.prometheus()
    after = _samples(page)
    assert after["tool_firewall_calls_total"] - before.get("tool_firewall_calls_total", 0) == 3
    assert after["tool_firewall_risk_count"] - before.get("tool_firewall_risk_count", 0) == 3
    assert after["tool_firewall_risk_sum"] - before.get("tool_firewall_risk_sum", 0) == pytest.approx(
        sum(risks)
    )
    kinds = {family.name: family.type for family in text_string_to_metric_families(page)}
    assert kinds["tool_firewall_calls"] == "counter"
    assert kinds["tool_firewall_risk"] == "histogram"
    assert re.search(r'tool_firewall_calls_total\{[^}]*decision="allow"', page)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_metadata_survives_the_gateways_list_of_allowed_fields(shared: Screened, transport: str) -> None:
    shared.firewall.skip()
    started = time.time()
    assert shared.lab.call("alice", "db_query", {"sql": "select 1"}, transport=transport).ok
    scored = shared.firewall.call()
    spans = _plugin_spans(shared, started)
    assert spans, "the gateway kept no metadata of the firewall"
    kept = spans[-1]
    assert kept["total_checked"] == 1
    assert kept["total_blocked"] == 0
    assert kept["allowed"] == 1
    assert kept["notable"] is (scored.decision != "allow")
    assert kept["blocked"] is False
    assert kept["stage"] == "tool_pre_invoke"


def _plugin_spans(shared: Screened, since: float, *, seconds: float = 10) -> list[dict[str, object]]:
    """Attributes of the firewall's metric spans since a time, oldest first; waits for the first."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with sqlite3.connect(f"file:{shared.lab.database}?mode=ro", uri=True) as database:
            rows = database.execute(
                "SELECT attributes FROM observability_spans WHERE name LIKE 'plugin.metrics.%firewall%'"
                " AND start_time >= strftime('%Y-%m-%d %H:%M:%S', ?, 'unixepoch') ORDER BY start_time",
                (since,),
            ).fetchall()
        if rows:
            return [json.loads(attributes) for (attributes,) in rows]
        time.sleep(0.1)
    return []


def test_no_argument_value_and_no_token_is_kept(shared: Screened) -> None:
    canary = "canary-7f3a91c0"
    shared.firewall.skip()
    for user in ("alice", "dave"):
        shared.lab.call(user, "db_query", {"sql": f"select '{canary}'", "options": {canary: canary}})
        shared.lab.call(user, "delete_records", {"table": canary, "where": canary}, transport="mcp")
        shared.lab.call(user, "boom", {"message": canary})
    shared.firewall.calls(6)
    secrets = [canary.encode()]
    for user in ("alice", "dave"):
        for kind in ("api", "login"):
            token = shared.lab.token(user, kind)
            claims = token.split(".")[1]
            jti = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["jti"]
            secrets += [token.encode(), jti.encode()]
    records = b"\n".join(shared.firewall.raw_records())
    beats = json.dumps([worker.body for worker in shared.firewall.workers()]).encode()
    firewall_log = "\n".join(
        line for line in shared.lab.gateway_log().splitlines() if "firewall" in line.lower()
    )
    page = shared.lab.prometheus()
    for secret in secrets:
        assert secret not in records
        assert secret not in beats
        assert secret not in firewall_log.encode()
        assert secret not in page.encode()
